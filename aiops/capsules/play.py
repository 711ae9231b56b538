"""A capsule played again: the batches as they came, with the settings, the policies and the knowledge of then.

Two things make it come to the same verdicts with a part of the telemetry only. What was learned until shortly before the
incident is in the capsule: models pass over what they know, and evidence is taken up where it stood. And the alarm level is the
one that was in force: it follows from how many signals are watched, and a capsule watches a few (docs/decisions/020).
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
from pydantic import ValidationError

from aiops import build
from aiops.budget import Budget
from aiops.capsules import learned as known
from aiops.schema import Config
from aiops.sources.recording.folder import COLUMNS, DEFAULT_STEP_S, MAX_TIME, FolderRecording, RecordingError
from aiops.store.capsules import CapsuleError, check
from aiops.types import Batch, Command, Event, Links, LogLine, Outcome, RawAlert, Series

JSON = dict[str, Any]
MOST_RUN = 64 << 20
MOST_BATCHES = 1_000_000
K = TypeVar("K")


class Run(msgspec.Struct, frozen=True):
    """`run.json`."""

    ats: list[float]
    level: float
    config: dict[str, Any] = {}
    policies: dict[str, str] = {}
    policy_changes: list[tuple[float, dict[str, str]]] = []
    packs: dict[str, str] = {}
    policy_memory: dict[str, Any] = {}
    mask_memory: dict[str, Any] = {}
    links: list[tuple[float, Links]] = []
    outcomes: list[tuple[float, Outcome]] = []
    commands: list[tuple[float, Command]] = []


class HeldBudget(Budget):
    """Keeps the level that was in force: what a few signals ask for is not what all of them asked for."""

    def _solve(self, theory: float) -> None:
        """Nothing moves the level."""


class CapsuleRecording(FolderRecording):
    """A capsule as batches with the times at which they were stepped. Raises CapsuleError, RecordingError, Problems."""

    def __init__(self, folder: Path) -> None:
        self.manifest = check(folder)
        self.folder, self.skipped, self.alert_lines = folder, Counter(), 0
        self.run = _read_run(folder / "run.json")
        self.about = self._about()
        self.step_s = self.about.step or DEFAULT_STEP_S
        self._lines_of = self._feed("logs", LogLine)
        self._events_of, self._alerts_of = self._feed("events", Event), self._feed("alerts", RawAlert)
        self._plan()

    def _plan(self) -> None:
        ats = sorted({float(at) for at in self.run.ats if abs(at) < MAX_TIME})
        if not ats or len(ats) > MOST_BATCHES:
            raise RecordingError(f"{self.folder}/run.json: {len(self.run.ats)} batches. Export the capsule again.")
        self.ats = np.array(ats)
        self.ticks = np.arange(len(ats))
        self.started_at, self.ended_at = ats[0], ats[-1]

    def batches(self) -> Iterator[Batch]:
        """As they came. Series are told with their first sample. May be called again."""
        series, ids, times, values, row_at = self._rows()
        order = np.argsort(row_at, kind="stable")
        ids, times, values = ids[order], times[order], values[order]
        cuts = np.searchsorted(row_at[order], self.ats, side="right")
        told = np.zeros(len(series), np.bool_)
        ats, run = self.ats, self.run
        links, lines, events = _by_time(run.links, ats), _by_time(self._lines_of, ats), _by_time(self._events_of, ats)
        alerts, outcomes, commands = _by_time(self._alerts_of, ats), _by_time(run.outcomes, ats), _by_time(run.commands, ats)
        policies = _by_time(run.policy_changes, ats)
        start = 0
        for k, (at, end) in enumerate(zip(self.ats.tolist(), cuts.tolist(), strict=True)):
            here = ids[start:end]
            fresh = np.unique(here[~told[here]])
            told[fresh] = True
            yield Batch(at, here, times[start:end], values[start:end], tuple(series[i] for i in fresh.tolist()),
                        tuple(lines.get(k, ())), tuple(events.get(k, ())), tuple(alerts.get(k, ())),
                        links[k][-1] if k in links else None, tuple(outcomes.get(k, ())), tuple(commands.get(k, ())),
                        policies=policies[k][-1] if k in policies else None)
            start = end

    def _rows(self) -> tuple[tuple[Series, ...], Any, Any, Any, Any]:
        """Series, and of each row: its series, time, value and batch, in the order of the file."""
        table = self._table()
        empty = np.zeros(0)
        if table is None or not len(table):
            return (), empty.astype(np.int32), empty, empty, empty
        import pandas as pd

        missing = [c for c in (*COLUMNS, "labels", "at") if c not in table.columns]
        if missing:
            raise RecordingError(f"{self.folder}: metrics have no column {', '.join(missing)}. Export the capsule again.")
        number = {name: pd.to_numeric(table[name], errors="coerce").to_numpy(np.float64) for name in ("time", "value", "at")}
        keys = pd.MultiIndex.from_arrays([table[name].astype(str) for name in ("entity", "metric", "labels")])
        ids, unique = pd.factorize(keys, sort=False)
        usable = np.abs(number["at"]) < MAX_TIME
        series = tuple(self._series(i, *key) for i, key in enumerate(unique))
        return series, ids[usable].astype(np.int32), number["time"][usable], number["value"][usable], number["at"][usable]

    def _feed(self, name: str, kind: type[K]) -> list[tuple[float, K]]:
        """What came, each with the time of its batch."""
        found: list[tuple[float, K]] = []
        for index, line in enumerate(self._raw_lines(f"{name}.jsonl")):
            try:
                item = msgspec.json.decode(line, type=kind)
                if isinstance(item, RawAlert):
                    self.alert_lines, item = index + 1, replace(item, index=index)
                found.append((msgspec.json.decode(line, type=_When).at, item))
            except msgspec.DecodeError:
                self.skipped[f"{name}.jsonl_lines_malformed"] += 1
        return found


class _When(msgspec.Struct, frozen=True):
    at: float


def _by_time(items: list[tuple[float, K]], ats: Any) -> dict[int, list[K]]:
    """By the number of the batch that came then, or next."""
    out: dict[int, list[K]] = {}
    for at, item in items:
        if math.isfinite(at):
            out.setdefault(min(int(np.searchsorted(ats, at)), len(ats) - 1), []).append(item)
    return out


def _read_run(path: Path) -> Run:
    try:
        if path.stat().st_size > MOST_RUN:
            raise ValueError(f"is larger than {MOST_RUN >> 20} MiB")
        return msgspec.json.decode(path.read_bytes(), type=Run, strict=False)
    except (OSError, ValueError, msgspec.DecodeError) as e:
        raise CapsuleError(f"{path}: cannot be read: {getattr(e, 'strerror', None) or e}. Export the capsule again.") from None


class Capsule:
    """One capsule, ready to be played once: `pipeline`, `batches`, `source` and `links` of it.

    policies: a folder with others than those of the run. budget: another one than that of the run: its own level then.
    """

    def __init__(self, folder: Path, policies: Path | None = None, budget: Any = None) -> None:
        self.source = CapsuleRecording(folder)
        run = self.source.run
        known_packs = build.meanings_from(run.packs)
        config = _config(run, folder)
        beyond = config.policies.beyond
        book = build.policies(policies, known_packs) if policies else build.policies_from(run.policies, known_packs, beyond)
        self.budget = budget or config.budget
        self.pipeline = build.pipeline(known_packs, book, config.mode, config.detectors, self.budget.incidents,
                                       self.budget.per_s, build.masks(config), beyond, config.topology.calls,
                                       build.slos(config))
        self._held = None if budget else run.level
        self._learned = known.read(folder / "learned")
        self._take_up(run, folder)

    def batches(self) -> Iterator[Batch]:
        """The batches of the recording; the evidence of then is taken up where it stood."""
        waiting: Callable[[], None] | None = self._go_on
        for batch in self.source.batches():
            if waiting and (self._learned is None or batch.at > self._learned.at):
                waiting()
                waiting = None
            yield batch

    def _take_up(self, run: Run, folder: Path) -> None:
        try:
            if run.policy_memory:
                self.pipeline.decider.restore(run.policy_memory)
            if run.mask_memory:
                self.pipeline.masks.restore(run.mask_memory)
            if self._learned is not None:
                self.pipeline.restore(known.before(self._learned), math.inf)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as e:
            raise CapsuleError(f"{folder}: what the run knew cannot be read: {type(e).__name__}: {e}. "
                               "Export the capsule again, with the version of aiops that made it.") from None

    def _go_on(self) -> None:
        """From here on models learn again, and alerting with them."""
        alerting = self.pipeline.alerting
        if self._learned is not None and "alerting" in self._learned.more:
            alerting.restore(self._learned.more["alerting"])
        if self._held is not None:
            held = HeldBudget(self.budget.incidents, self.budget.per_s)
            held.restore(alerting.budget.state())
            held.level = self._held
            alerting.budget = held


def _config(run: Run, folder: Path) -> Config:
    """What of the run's configuration decides verdicts; the rest by default. Raises CapsuleError."""
    try:
        return Config.model_validate({**run.config, "sources": [{"host": {}}]})
    except ValidationError as e:
        what = "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in e.errors())
        raise CapsuleError(f"{folder}/run.json: the settings are not understood: {what[:300]}. "
                           "Replay it with the version of aiops that made it.") from None


def incident_of(folder: Path) -> Mapping[str, Any]:
    """`incident.json`: the incident as the run told it last. Raises CapsuleError."""
    path = folder / "incident.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise CapsuleError(f"{path}: cannot be read: {e}.") from None
    return dict(found) if isinstance(found, dict) else {}

