"""The memory of the daemon: incidents, decisions, outcomes and plots in one SQLite file that survives `kill -9`.

`publish` is the only writer's door and never raises: what cannot be written now (disk full) is kept and tried again
with the next report, and `stats()` says so. Readers get a connection of their own and never wait for the writer.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aiops import serial
from aiops.store import database, plots, rows
from aiops.store.database import StoreError
from aiops.types import Action, Counts, Incident, ModelEvent, Outcome, Point, Report

__all__ = ["Store", "StoreError"]
JSON = dict[str, Any]
COUNTS_EVERY_S = 60.0
MAX_UNSAVED = 10_000


class Store:
    """A Sink and the source of every list of incidents. Thread-safe.

    keep: incidents kept, the oldest closed go first. keep_plots: the newest incidents whose points are kept.
    points_per_plot: a plot with more is thinned to half its resolution. `notice` tells of a damaged file set aside.
    Raises StoreError when the file cannot be used at all.
    """

    def __init__(self, path: Path, keep: int = 5000, keep_plots: int = 500, points_per_plot: int = 400) -> None:
        self.path, self.keep, self.keep_plots, self.points_per_plot = path, keep, keep_plots, points_per_plot
        opened = database.open_writer(path)
        self._db, self._owner, self.notice = opened.connection, opened.lock, opened.notice
        self._mutex = threading.Lock()
        self._filing = plots.Filing()
        self._unsaved = _Unsaved()
        self._counts_at, self._errors, self._error, self._closed = float("-inf"), 0, "", False
        self._revision = 0

    # ------------------------------------------------------------------------------------------------ writing
    def publish(self, report: Report) -> None:
        """Write what changed, in one transaction. Never raises."""
        with self._mutex:
            if self._closed:
                return
            self._unsaved.add(report, self._filing.file(report.incidents, report.points))
            self._filing.forget(i.id for i in report.incidents if i.state == "closed")
            due = report.at - self._counts_at >= COUNTS_EVERY_S
            if due:
                self._counts_at = report.at
            if due or self._unsaved:
                self._save(report.counts, report.at)

    def record_feedback(self, incident: str, verdict: str, at: float, by: str = "") -> bool:
        """What a person said about an incident: `false_alarm` or `useful`. False when the incident is not known."""
        with self._write() as db:
            return rows.put_feedback(db, incident, verdict, at, by)

    def interrupt_open(self, at: float) -> list[JSON]:
        """On start: close what an earlier run left open. Returns these incidents, for receivers to be told."""
        with self._write() as db:
            return rows.interrupt(db, at)

    def close(self) -> None:
        """Write what is pending and give the file back. Further reports are ignored."""
        with self._mutex:
            if self._closed:
                return
            if self._unsaved:
                self._save(None, self._counts_at)
            self._closed = True
            self._db.close()
            self._owner.close()

    # ------------------------------------------------------------------------------------------------ reading
    def incidents(self, state: str | None = None, limit: int = 100, offset: int = 0) -> list[JSON]:
        """Incidents in the form of aiops.serial, open before closed, then newest first. `state`: None for both."""
        with self._read() as db:
            return rows.incidents(db, state, max(0, limit), max(0, offset))

    def incident(self, name: str) -> JSON | None:
        """One incident with `points` (to draw) and `feedback`; None when it is not known."""
        with self._read() as db:
            form = rows.incident(db, name)
            return form and {**form, "points": plots.read(db, name)}

    def model_events(self, limit: int = 50) -> list[JSON]:
        """What became of models, newest first: {at, detector, kind, model, text}."""
        with self._read() as db:
            return rows.model_events(db, max(0, limit))

    @property
    def revision(self) -> int:
        """Rises whenever something that a person can see was written."""
        return self._revision

    def stats(self) -> JSON:
        """Rows by table, the funnel as last written (`counts`, `counts_at`), bytes on disk, and failed writes."""
        with self._read() as db:
            known = rows.facts(db)
            size = sum(p.stat().st_size for p in self.path.parent.glob(self.path.name + "*") if p.is_file())
            return {**rows.stats(db), "counts": known.get("counts"), "counts_at": known.get("counts_at"), "bytes": size,
                    "write_errors": self._errors, "last_error": self._error, "sqlite": sqlite3.sqlite_version}

    # ------------------------------------------------------------------------------------------------ inside
    def _save(self, counts: Counts | None, at: float) -> None:
        try:
            with _transaction(self._db) as db:
                self._unsaved.write(db, self.points_per_plot)
                if counts is not None:
                    rows.put_facts(db, {"counts": asdict(counts), "counts_at": at})
                if self._unsaved.closed:
                    rows.expire(db, self.keep, self.keep_plots)
        except (sqlite3.Error, ValueError, TypeError, OverflowError) as e:
            self._errors, self._error = self._errors + 1, f"{self.path}: not written, will be tried again: {e}"
            return
        self._error = ""
        self._revision += bool(self._unsaved)
        self._unsaved = _Unsaved()

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._mutex, _transaction(self._db) as db:
            yield db
        self._revision += 1

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        with closing(database.open_reader(self.path)) as db:
            yield db


class _Unsaved:
    """What waits for the next transaction: the newest form of each incident, and everything that happened."""

    def __init__(self) -> None:
        self.incidents: dict[str, Incident] = {}
        self.actions: list[Action] = []
        self.outcomes: list[Outcome] = []
        self.points: list[tuple[str, Point]] = []
        self.model_events: list[ModelEvent] = []

    def __bool__(self) -> bool:
        return bool(self.incidents or self.actions or self.outcomes or self.points or self.model_events)

    @property
    def closed(self) -> bool:
        return any(i.state == "closed" for i in self.incidents.values())

    def add(self, report: Report, filed: Sequence[tuple[str, Point]]) -> None:
        """Keep it; while nothing can be written, plots give way first."""
        self.incidents.update({i.id: i for i in report.incidents})
        self.actions += report.actions
        self.outcomes += report.outcomes
        self.points += filed
        self.model_events += report.model_events
        del self.points[:-MAX_UNSAVED], self.actions[:-MAX_UNSAVED], self.outcomes[:-MAX_UNSAVED]

    def write(self, db: sqlite3.Connection, points_per_plot: int) -> None:
        for incident in self.incidents.values():
            rows.put_incident(db, serial.incident(incident))
        for action in self.actions:
            rows.put_action(db, action)
        for outcome in self.outcomes:
            rows.put_outcome(db, outcome)
        for event in self.model_events:
            rows.put_model_event(db, event)
        plots.write(db, self.points, points_per_plot)


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")
