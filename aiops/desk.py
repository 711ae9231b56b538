"""What the page shows of a running pipeline, live or in replay: implements `aiops.web.view.View`.

`Vitals` is a sink: it copies what is drawn at the end of each step, so that readers never touch the pipeline's state.
"""

from __future__ import annotations

import json
import math
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from hashlib import sha256
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from aiops import __version__, learned, maintenance, readiness, serial
from aiops.capsules.archive import pack
from aiops.cluster.brake import Brake
from aiops.interfaces import Ambiguous, Refused, Retry
from aiops.pipeline import Pipeline
from aiops.secretfile import Secret
from aiops.sinks.metrics import Metrics
from aiops.store import capsules
from aiops.store.sqlite import Store
from aiops.types import Command, Report, Signal
from aiops.web.view import Check, CostWindow, NotPossible, Verdict
from aiops.windows import Once

JSON = dict[str, Any]
SHOWN, OF_A_KIND = 24, 4
POINTS = 120
GONE_S = 300.0
MOST_RECENT_NOTES = 20
FIRST = ("up", "errors", "latency", "cpu", "memory", "disk", "saturation", "gpu", "network", "traffic", "")


class Vitals:
    """A sink that keeps small plots of the most telling signals: those under alert first, then some of each kind of resource."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._seen = pipeline.door.signals
        self._first: list[Signal] = []
        self.plots: list[JSON] = []
        self.report: Report | None = None
        self.notes: list[str] = []
        self.models: list[JSON] = []
        self.costs = pipeline.costs.sums()
        self.steps = 0

    @property
    def pipeline(self) -> Pipeline:
        """For what may be read beside a running step: what is replaced, never changed."""
        return self._pipeline

    def publish(self, report: Report) -> None:
        signals = self._pipeline.door.signals
        if signals is not self._seen:
            self._seen = signals
            rank = 2 * signals.by_kind(lambda s: FIRST.index(s.resource), np.uint8)
            rank += signals.by_entity(lambda entity: entity.startswith("process/"), np.uint8)
            self._first = [signals[k] for k in _in_turn(rank)[:SHOWN * 2].tolist()]
        column = self._pipeline.door.column
        hot = [signals[k] for a in report.alerts if a.state == "firing" and (k := column(a.entity, a.signal)) is not None]
        ordered = dict.fromkeys([*hot[:SHOWN], *self._first])
        self.plots = list(islice((p for s in ordered if (p := self._plot(s, report.at))), SHOWN))
        self.notes = [*self.notes, *report.notes][-MOST_RECENT_NOTES:]
        self.models = self._pipeline.models.summaries()
        self.costs = self._pipeline.costs.sums()
        self.report, self.steps = report, self.steps + 1

    def _plot(self, s: Signal, now: float) -> JSON | None:
        """None for a signal that fell silent."""
        times, values, expected, width = self._pipeline.history.column(s.id)
        if not len(times) or now - times[-1] > GONE_S:
            return None
        e, half = float(expected[-1]), float(width[-1])
        ready, (lower, upper) = math.isfinite(half), s.band(e, half)
        return {"entity": s.entity, "signal": s.key, "unit": s.unit, "ready": ready,
                "points": np.column_stack((times[-POINTS:], values[-POINTS:])).tolist(),
                "expected": serial.number(e), "lower": serial.number(lower), "upper": serial.number(upper)}

    def close(self) -> None:
        """Nothing is held open."""


class Desk:
    """Answers the page's questions from the store and the last report; hands what people say to `submit`.

    notes: what stands beside the notes of the last steps for as long as the daemon runs; refused: what stands there now of
    series that are left out, and of what cannot be written. capsules: their folder, and how the
    making of them goes. brake: what stops everything at once; for_all: the place
    where that is written for the other replicas, and what writes it. files: the store, and what puts all that was learned, as it
    was last saved, into a folder of it. simulation: what to say where nothing of it is real, else nothing. tokens: by the name of
    whom they belong to. follows: why answers are of no use here, empty where they are.
    """

    def __init__(self, store: Store, vitals: Vitals, metrics: Metrics, mode: str, started_at: float, now: Callable[[], float],
                 sources: Callable[[], Sequence[JSON]], submit: Callable[[Command], None], token: Secret | None = None,
                 stale_s: float = 300.0, notes: Sequence[str] = (),
                 capsules: tuple[Path, Callable[[], JSON]] | None = None,
                 refused: Callable[[], Sequence[str]] = tuple, brake: Brake | None = None,
                 for_all: tuple[str, Callable[[Command], None]] | None = None,
                 files: tuple[Path, Callable[[Path], None]] | None = None, simulation: Callable[[], str] = str,
                 tokens: Mapping[str, Secret] = MappingProxyType({}), follows: Callable[[], str] = str) -> None:
        self._simulation, self._tokens, self._follows = simulation, tokens, follows
        self._brake = brake or Brake()
        self._place = for_all[0] if for_all else ""
        self._tell: Callable[[Command], None] | None = for_all[1] if for_all else None
        self._token = token
        self._capsules, self._files, self._packing = capsules, files, threading.Lock()
        self._notes, self._refused = tuple(notes), refused
        self._store, self._vitals, self._metrics, self._mode = store, vitals, metrics, mode
        self._started_at, self._now, self._sources, self._submit = started_at, now, sources, submit
        self._stale_s = stale_s

    @property
    def token(self) -> str | None:
        return self._token() if self._token else None

    @property
    def tokens(self) -> Mapping[str, str]:
        return {name: secret() for name, secret in self._tokens.items()}

    # ------------------------------------------------------------------------------------------------------ reading
    def incidents(self, state: str | None = None, limit: int = 100, offset: int = 0) -> Sequence[JSON]:
        return self._store.incidents(state, limit, offset)

    def incident(self, name: str) -> JSON | None:
        form = self._store.incident(name)
        return form and {**form, "why": [serial.end_state(e) for e in self._vitals.pipeline.ends.of(name)],
                         "sensitivity": learned.shifts_in(self._vitals.pipeline, self._at(), form["alerts"])}

    def status(self) -> JSON:
        report = self._vitals.report
        counts = {**asdict(replace(report.counts, dropped={})), "dropped": dict(report.counts.dropped)} if report else {}
        return {
            "version": __version__, "mode": self._mode, "started_at": self._started_at, "at": report.at if report else None,
            "counts": counts, "sources": list(self._sources()), "notes": [*self._notes, *self._refused(), *self._vitals.notes],
            "stops": self._brake.stops.state(), "simulation": self._simulation()}

    def vitals(self) -> Sequence[JSON]:
        return self._vitals.plots

    def models(self) -> JSON:
        return {"models": self._vitals.models, "events": self._store.model_events()}

    def _at(self) -> float:
        """Event time: of the last step."""
        return self._vitals.report.at if self._vitals.report else -math.inf

    def learned(self) -> JSON:
        return {"at": serial.number(self._at()), "kinds": learned.summary(self._vitals.pipeline)}

    def learned_of(self, kind: str, names: Sequence[str], limit: int = 100) -> JSON:
        if kind not in learned.KINDS:
            raise LookupError(learned.unknown_kind(kind))
        total, rows = learned.listing(self._vitals.pipeline, kind, tuple(names), self._at(), limit)
        return {"kind": kind, "what": learned.KINDS[kind][0], "total": total, "rows": rows}

    def learned_files(self) -> IO[bytes] | None:
        if self._files is None:
            return None
        if not self._packing.acquire(blocking=False):
            raise NotPossible("something is being packed already. Ask again in a minute")
        try:
            return self._packed_files(*self._files)
        finally:
            self._packing.release()

    def _packed_files(self, store: Path, put: Callable[[Path], None]) -> IO[bytes]:
        with tempfile.TemporaryDirectory(dir=store, prefix="export-") as scratch:
            folder = Path(scratch) / "learned"
            folder.mkdir()
            told = {"version": __version__, **self.learned(), **learned.everything(self._vitals.pipeline, self._at())}
            (folder / "learned.json").write_text(json.dumps(told, indent=1, ensure_ascii=False), encoding="utf-8")
            put(folder)
            return _packed(folder)

    def costs(self, window: CostWindow) -> JSON:
        return self._vitals.costs.json(window)

    def metrics_text(self) -> str:
        for s in self._sources():
            self._metrics.source(s["name"], s["state"] == "ok", s.get("rejected"))
        self._metrics.readiness(readiness.counted(self._vitals.pipeline.readiness()))
        self._metrics.costs([asdict(f) for f in self._vitals.costs.figures("hour")])
        return self._metrics.text()

    def ready(self) -> tuple[bool, Sequence[Check]]:
        """Ready once a step was taken and at least one source delivers."""
        report, states = self._vitals.report, self._sources()
        fresh = report is not None and self._now() - report.at < self._stale_s
        alive = [s["name"] for s in states if s["state"] == "ok"]
        checks = (
            Check("pipeline", fresh, "" if fresh else "no step was taken in the last minutes"),
            Check("sources", bool(alive) or not states, "" if alive else "no source delivers; see /api/status"))
        return all(c.ok for c in checks), checks

    def revision(self) -> int:
        return self._store.revision + self._vitals.steps

    def readiness(self, entity: str = "", state: str = "", limit: int = 100, offset: int = 0) -> JSON:
        facts = self._vitals.pipeline.readiness()
        total, found = readiness.page(facts, entity, state, limit, offset)
        return {"total": total, "counts": readiness.counted(facts), "signals": [asdict(r) for r in found]}

    def topology(self, at: float | None = None, entity: str = "", limit: int = 100, offset: int = 0) -> JSON:
        return self._vitals.pipeline.topology.page(at, entity, limit, offset)

    def maintenance(self) -> Sequence[JSON]:
        return maintenance.shown(self._vitals.pipeline.masks.calendar.windows, self._now())

    def capsules(self) -> JSON:
        if self._capsules is None:
            return {"capsules": []}
        folder, making = self._capsules
        return {"capsules": capsules.listing(folder), **making()}

    def capsule(self, name: str) -> IO[bytes] | None:
        found = self._capsules and capsules.find(self._capsules[0], name)
        if not found:
            return None
        if not self._packing.acquire(blocking=False):
            raise NotPossible("another capsule is being packed. Ask again in a minute")
        try:
            return _packed(found)
        finally:
            self._packing.release()

    # ------------------------------------------------------------------------------------------------------ writing
    def approve(self, action: str, by: str, params: Mapping[str, object] | None = None) -> None:
        self._answer("approve", action, by, params or {})

    def reject(self, action: str, by: str) -> None:
        self._answer("reject", action, by)

    def stop(self, by: str, reason: str, freeze: bool) -> None:
        """Here at once; then for the other replicas. What could not be told to them holds here all the same."""
        verb: Literal["freeze", "stop"] = "freeze" if freeze else "stop"
        command = Command(self._now(), verb, self._place, by, reason=reason)
        self._pull(command)
        if self._tell:
            try:
                self._tell(command)
            except (Refused, Retry, Ambiguous) as e:
                self._pull(replace(command, target=""))
                raise NotPossible(f"stopped here, but other replicas were not told: {e.reason}".rstrip(".")) from None

    def start(self, by: str, reason: str) -> None:
        stops = self._brake.stops
        said = [s.source for s in stops.standing if s.source == "" or (s.source == self._place and s.by != s.source)]
        if not said:
            raise NotPossible(f"{stops.reason}. Take it back there" if stops.standing else "nothing is stopped")
        if self._tell and self._place in said:
            try:
                self._tell(Command(self._now(), "start", self._place, by, reason=reason))
            except (Refused, Retry, Ambiguous) as e:
                raise NotPossible(f"not started, the other replicas could not be told: {e.reason}".rstrip(".")) from None
        for source in said:
            self._pull(Command(self._now(), "start", source, by, reason=reason))

    def _pull(self, command: Command) -> None:
        """The pipeline is told whatever the disk says: then the stop holds, and is lost with the daemon."""
        self._submit(command)
        try:
            self._brake.obey(command)
        except OSError as e:
            raise NotPossible(f"done, but it is lost with the daemon: {e.filename}: {(e.strerror or str(e)).lower()}") from None

    def _answer(self, verb: str, action: str, by: str, params: Mapping[str, object] = MappingProxyType({})) -> None:
        known = next((a for i in self._store.incidents("open", 1000) for a in i["actions"] if a["id"] == action), None)
        if known is None:
            raise LookupError(action)
        if other := self._follows():
            raise NotPossible(f"this replica carries out nothing, it {other}. Ask the one that leads")
        if verb == "approve" and self._brake.stops.standing:
            raise NotPossible(f"{self._brake.stops.reason}. Start everything first: aiops start")
        if known["decision"] != "ask" or known["state"] not in ("", "asked"):
            raise NotPossible(f"{known['type']} on {known['target']} is not waiting for an answer: {known['decision']}")
        try:
            if params:
                self._vitals.pipeline.decider.altered(action, params)
        except ValueError as e:
            raise NotPossible(str(e).rstrip(".")) from None
        self._submit(Command(self._now(), "approve" if verb == "approve" else "reject", action, by, params=dict(params)))

    def promote(self, detector: str, by: str) -> None:
        if self._model(detector)["candidate"] is None:
            raise NotPossible(f"{detector} has no candidate")
        self._submit(Command(self._now(), "promote", detector, by))

    def roll_back(self, detector: str, by: str) -> None:
        if self._model(detector)["previous"] is None:
            raise NotPossible(f"{detector} has no model from before")
        self._submit(Command(self._now(), "rollback", detector, by))

    def forget(self, kind: str, names: Sequence[str], by: str) -> int:
        if kind not in learned.KINDS:
            raise LookupError(learned.unknown_kind(kind))
        try:
            count = learned.checked(self._vitals.pipeline, kind, names, self._at())
        except learned.UnknownName as e:
            raise NotPossible(str(e)) from None
        self._submit(Command(self._now(), "reset", kind, by, tuple(names)))
        return count

    def _model(self, detector: str) -> JSON:
        known = next((m for m in self._vitals.models if m["detector"] == detector), None)
        if known is None:
            raise LookupError(detector)
        return known

    def feedback(self, incident: str, verdict: Verdict, by: str) -> None:
        if not self._store.record_feedback(incident, verdict, self._now(), by):
            raise LookupError(incident)
        self._submit(Command(self._now(), verdict, incident, by))

    def start_maintenance(self, entities: Sequence[str], for_s: float, since: float | None, reason: str, by: str) -> JSON:
        now = self._now()
        begin = now if since is None else since
        if begin + for_s <= now:
            raise NotPossible("the window is over already. What was learned stays learned; put a window of the past into the "
                              "configuration, where it keeps a backfill from learning it.")
        name = "mnt-" + sha256(f"{now}|{begin}|{for_s}|{'|'.join(entities)}".encode()).hexdigest()[:8]
        window = maintenance.Maintenance(name, tuple(entities), Once(begin, begin + for_s), "*", reason, by)
        self._submit(Command(now, "maintenance_start", name, by, tuple(entities), begin, begin + for_s, reason))
        known, _ = self._vitals.pipeline.door.signals.distinct()
        return {**maintenance.as_json(window), "matches": sum(map(window.matches, known))}

    def end_maintenance(self, name: str, by: str) -> None:
        window = next((w for w in self.maintenance() if w["id"] == name), None)
        if window is None:
            raise LookupError(name)
        if window["by"] == maintenance.CONFIGURED:
            raise NotPossible(f"{name} stands in the configuration. Take it out there and start the daemon again.")
        if window["state"] == "over":
            raise NotPossible(f"{name} is over.")
        self._submit(Command(self._now(), "maintenance_end", name, by))


def _in_turn(rank: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The order in which signals are shown: by rank (twice the kind, plus one for a process), but only so many OF_A_KIND before
    the next kind has its turn."""
    order = np.argsort(rank, kind="stable")
    kind = rank[order] // 2
    nth = np.arange(len(kind)) - np.searchsorted(kind, kind)
    return order[np.argsort(nth // OF_A_KIND, kind="stable")]


def _packed(folder: Path) -> IO[bytes]:
    """In a file without a name beside the capsules. Once more where the capsule was made anew meanwhile."""
    for last in (False, True):
        out = tempfile.TemporaryFile(dir=folder.parent)  # noqa: SIM115 - whoever sends it closes it
        try:
            pack(folder, out)
        except FileNotFoundError:
            out.close()
            if last:
                raise
        else:
            out.seek(0)
            return out
    raise AssertionError
