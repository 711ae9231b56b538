"""The one pure step: a batch in, a report out. No clock, no thread, no I/O; live and replay share it.

    batch -> signals -> anomalies -> alerts -> incidents -> decisions -> report
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np

from aiops import xids
from aiops.alerting import Alerting
from aiops.arrays import packed
from aiops.costs import Costs
from aiops.endstates import EndStates
from aiops.evidence import RecentEvidence
from aiops.forgetting import Forgetting
from aiops.generations import Models
from aiops.history import History
from aiops.incidents import IncidentBook
from aiops.interfaces import Detector, Relearns, Settles
from aiops.logcounts import LogCounts
from aiops.masks import Masks
from aiops.meaning import Meanings
from aiops.models import Columns, Learned, ephemeral, still_there
from aiops.past import IncidentMemory
from aiops.readiness import Facts, of_baseline
from aiops.rows import Rows
from aiops.signals import Door
from aiops.slo import Slo, Slos
from aiops.stops import Stops
from aiops.types import (
    Action,
    Anomaly,
    Batch,
    Bools,
    Command,
    Counts,
    Event,
    Floats,
    Frame,
    Incident,
    Outcome,
    Point,
    Report,
    Standing,
)
from aiops.weighing import Weighing
from aiops.xidgauges import Xids
from correlators.correlate import Correlate
from correlators.topology import Topology

LEAD_TICKS_S = 900.0
MAX_POINTS_A_STEP = 5000
MIN_GONE, GONE_SHARE = 1000, 0.05
"""Columns without a series are given up when there are so many, and so large a share of all."""


class Decided(Protocol):
    @property
    def actions(self) -> tuple[Action, ...]: ...
    @property
    def outcomes(self) -> tuple[Outcome, ...]: ...
    @property
    def notes(self) -> tuple[str, ...]: ...
    @property
    def standings(self) -> Mapping[str, Sequence[Standing]]: ...


class Decider(Protocol):
    def decide(self, now: float, incidents: Sequence[Incident], evidence: RecentEvidence,
               outcomes: Sequence[Outcome], commands: Sequence[Command]) -> Decided: ...
    def awaited(self) -> Sequence[str]: ...
    @property
    def leads(self) -> bool: ...
    def about(self, action: str) -> dict[str, Any] | None: ...
    def wanted(self, action: str) -> bool: ...
    def altered(self, action: str, given: Mapping[str, object]) -> Mapping[str, object]: ...
    @property
    def revision(self) -> int: ...
    @property
    def stops(self) -> Stops: ...
    def forget(self, names: tuple[str, ...]) -> int: ...
    def reload(self, texts: Mapping[str, str]) -> Sequence[str]: ...
    def state(self) -> dict[str, Any]: ...
    def restore(self, state: Mapping[str, Any]) -> None: ...


@runtime_checkable
class Banded(Protocol):
    """A detector that says in which band it expects each signal: expected and half-width, float64[S]."""

    band: tuple[Floats, Floats]

    def ready_count(self) -> int: ...


@dataclass
class Totals:
    batches: int = 0
    samples: int = 0
    log_lines: int = 0
    raw_anomalies: int = 0
    alerts: int = 0


class Pipeline:
    """Holds all state of the daemon's mind. `step` must be called with strictly rising `batch.at`."""

    def __init__(self, meanings: Meanings, detectors: Sequence[Detector], alerting: Alerting, correlator: Correlate,
                 decider: Decider, masks: Masks | None = None, topology: Topology | None = None,
                 slos: Sequence[Slo] = ()) -> None:
        self._detectors, self.alerting, self._correlator, self.decider = detectors, alerting, correlator, decider
        self.masks = masks or Masks()
        self.alerting.moved = lambda at, entity, signal: self.masks.sensitivity.factor(at, entity, signal)
        self._banded: Banded | None = next((d for d in detectors if isinstance(d, Banded)), None)
        self._settle = [d for d in detectors if isinstance(d, Settles)]
        self._relearn_too = [d for d in detectors if isinstance(d, Relearns)]
        self.models = Models(detectors)
        self.door = Door(meanings)
        self.log_counts = LogCounts()
        self.xids = Xids()
        self.history = History()
        self.evidence = RecentEvidence(self.history, meanings, self.masks.maintained)
        self.topology = topology or Topology()
        self.graph = self.topology.graph
        self.costs = Costs()
        self.slos, self.past = Slos(slos), IncidentMemory()
        self.weighing = Weighing(self.history, self.slos, self.past)
        self.book = IncidentBook()
        self.ends = EndStates()
        self._totals = Totals()
        self.forgetting = Forgetting(self.door, self.models, self.alerting, self.masks, decider, self.log_counts, self._move)
        self._at = -np.inf
        self._alerted: set[str] = set()
        self._drawn: set[str] = set()
        self._gpus: dict[str, dict[str, str]] = {}

    def step(self, batch: Batch) -> Report:
        """Everything that follows from one batch. Raises ValueError when time does not rise."""
        if not batch.at > self._at:
            raise ValueError(f"batch at {batch.at} does not follow {self._at}: event time must rise")
        if self.door.shrunk:
            self._tidy(self._at)
        resets = tuple(self.forgetting.obey(batch.at, c) for c in batch.commands if c.verb == "reset")
        self._at = batch.at
        self._learn_topology(batch)
        batch = replace(batch, events=(*batch.events, *self._kernel_says(batch)))
        batch = replace(batch, events=(*batch.events, *self.xids.observe(batch)))
        self.masks.obey(batch.commands)
        frame = self._frame(batch)
        anomalies = tuple(self._observe(frame))
        self._relearn()
        self._remember(frame, anomalies)
        self.masks.hear(anomalies)
        self._listen(batch)
        alerts = self.masks.suppress(batch.at, self.alerting.update(frame, anomalies, batch.alerts, self.graph))
        self.evidence.alerts = alerts
        self._correlator.hear(batch.at, anomalies, frame.signals)
        found = self._correlator.correlate(batch.at, alerts, self.graph, batch.events, self.book.acted_in())
        models = self.models.ids
        found = [self.weighing.weigh(i, self.book.get(i.id), self.graph, self.door.signals) for i in found]
        incidents = self.book.update(batch.at, found, models)
        self.masks.watch(incidents)
        reloaded = () if batch.policies is None else self.decider.reload(batch.policies)
        self.evidence.hear(self.book.open())
        decided = self.decider.decide(batch.at, incidents, self.evidence, batch.outcomes, batch.commands)
        actions = self.book.signed(decided.actions)
        changed = self.book.record(batch.at, actions, (*batch.outcomes, *decided.outcomes), batch.commands)
        self._credit(changed)
        self.past.learn(batch.at, changed, batch.commands, self.graph)
        events = resets + self.models.review(batch.at, (*changed, *self.book.open()), batch.commands)
        latest = {i.id: i for i in (*incidents, *changed)}.values()
        ends = self.ends.update(batch.at, anomalies, alerts, latest, decided.standings, self._usual_known)
        self._count(batch, anomalies, alerts)
        return Report(
            batch.at, anomalies, alerts, changed, actions, (*batch.outcomes, *decided.outcomes),
            self._points(frame, changed), self.counts(),
            (*self._notes(anomalies), *self.xids.notes, *self.slos.notes, *self.masks.notes, *reloaded, *decided.notes,
             *(e.text for e in events)),
            tuple(self._correlator.assigned), tuple(sorted(models.values())), events, ends, batch.commands, batch.policies)

    # ------------------------------------------------------------------------------------------------ over a restart
    def learned(self, ended: bool = False) -> Learned:
        """All that is to be kept over a restart, as copies: between two steps."""
        more = {"alerting": self.alerting.state(), "xids": self.xids.state(), "log_counts": self.log_counts.state(),
                "calls": self.topology.state(), "slos": self.slos.state()}
        return Learned(self._at, self.door.state(), self.models.lineages(), more, ended)

    def restore(self, kept: Learned, now: float) -> None:
        """Goes on from what an earlier run learned; before the first step. `now`: a time after it is no excuse to wait.

        What was not heard of lately is forgotten. Where a model learns anew, the past may be handed in once more: those
        that know it pass it over.
        """
        rows, heard = Rows.of(kept.door["signals"]), np.asarray(kept.door["heard"], np.float64)
        columns = np.arange(len(rows))
        if self.models.movable:
            columns = still_there(rows.by_entity(ephemeral, np.bool_), heard, kept.at)
        self.models.begin(kept.lineages, columns if len(columns) < len(rows) else None, now)
        self.door.restore({**kept.door, "signals": rows}, columns, samples=kept.at <= now and not self.models.fresh)
        if "alerting" in kept.more:
            self.alerting.restore(kept.more["alerting"])
        if "xids" in kept.more:
            self.xids.restore(kept.more["xids"])
        if "log_counts" in kept.more:
            self.log_counts.restore(kept.more["log_counts"])
        if "calls" in kept.more:
            self.topology.restore(kept.more["calls"])
        if "slos" in kept.more:
            self.slos.restore(kept.more["slos"])

    # ------------------------------------------------------------------------------------------------ what is gone
    def _tidy(self, at: float) -> None:
        """Columns that nothing feeds any more are given up once they are many, so that memory follows what lives.

        The last columns move into their places, in all that is kept by column, so that the work is that of the columns given
        up; in the order of columns where somebody has not seen all of them yet. What is odd right now stays, and what belongs
        to an open incident: it is still asked for. at: of the step before.
        """
        self.door.shrunk = False
        stays = self._stays(at)
        count, gone = len(stays), int(np.count_nonzero(~stays))
        if gone < MIN_GONE or gone < GONE_SHARE * count or not self.models.movable:
            return
        abreast = self.models.abreast(at) and self.costs.at == at
        columns = packed(stays, self.models.edges()) if abreast else np.flatnonzero(stays)
        self.door.keep(columns)
        self._move(columns, count)

    def _move(self, columns: Columns, count: int) -> None:
        """Of `count` columns only these stay, in this order, with everybody but the door."""
        self.models.move(columns)
        self.alerting.keep(columns, count)
        self.history.keep(columns)
        self.costs.keep(columns)
        self.evidence.renumber()
        self.slos.renumber()
        self.masks.renumber()

    def _stays(self, at: float) -> Bools:
        """bool[S]: what a series feeds, what is awaited after a restart, and what is not over yet."""
        stays, awaited = self.door.fed(), self.door.reserved()
        comes_and_goes = self.door.signals.take(awaited).by_entity(ephemeral, np.bool_)
        stays[awaited[still_there(comes_and_goes, self.door.last_heard()[awaited], at)]] = True
        stays[self.alerting.columns(len(stays))] = True
        stays[self.masks.columns(e for i in self.book.open() for e in i.entities)] = True
        return stays

    # ------------------------------------------------------------------------------------------------ the way in
    def _learn_topology(self, batch: Batch) -> None:
        if self.topology.hear(batch, self.masks.held):
            self.graph = self.evidence.graph = self.topology.graph
        if batch.links is not None:
            self._gpus = xids.by_address(self.topology.nodes())

    def _kernel_says(self, batch: Batch) -> Iterator[Event]:
        """XIDs in the kernel's log, unless the driver told of them in the same batch."""
        told = {(e.entity, e.reason) for e in batch.events}
        for line in batch.lines:
            found = xids.of_line(line, self._gpus.get(line.entity)) if "Xid" in line.text else None
            if found and (found.entity, found.reason) not in told:
                told.add((found.entity, found.reason))
                yield found

    def _listen(self, batch: Batch) -> None:
        """What people say of incidents tells alerting how many of them are false."""
        for command in batch.commands:
            if command.verb in ("false_alarm", "useful"):
                self.alerting.budget.judge(command.target, command.verb)

    def _credit(self, changed: Sequence[Incident]) -> None:
        """What a real action healed was no false alarm."""
        for incident in changed:
            done = {a.id for a in incident.actions if a.decision == "act"}
            if any(o.status == "helped" and o.action in done for o in incident.outcomes):
                self.alerting.budget.healed(incident.id)

    def _frame(self, batch: Batch) -> Frame:
        values = self.door.values(batch, self.log_counts.count(batch.at, batch.lines))
        learn = self.masks.learn(batch, self.door.signals, self.graph)
        return Frame(batch.at, values, learn, self.door.signals, batch.lines, batch.events, frozenset(self.masks.held))

    def _observe(self, frame: Frame) -> Iterator[Anomaly]:
        """Each detector's turn. Those after the one with a band are handed how far each value lies from it."""
        for d in self._detectors:
            yield from d.observe(frame)
            if self._banded is not None and d is self._banded:  # type: ignore[comparison-overlap]
                frame = replace(frame, residuals=_residuals(frame.values, *self._banded.band))

    def _relearn(self) -> None:
        """A new normal is learned on purpose, by whoever judges levels."""
        for columns in (d.settled for d in self._settle):
            for d in self._relearn_too if len(columns) else ():
                d.relearn(columns)

    def _remember(self, frame: Frame, anomalies: Sequence[Anomaly]) -> None:
        none = np.full(len(frame.values), np.nan)
        expected, width = self._banded.band if self._banded and len(frame.values) else (none, none)
        self.history.add(frame.at, frame.values, expected, width)
        self.evidence.update(frame.at, frame.signals, frame.lines, anomalies, frame.events)
        self.costs.update(frame, self.graph)
        self.slos.update(frame)

    # ----------------------------------------------------------------------------------------------- the way out
    def _count(self, batch: Batch, anomalies: Sequence[Anomaly], alerts: Sequence[Any]) -> None:
        t = self._totals
        t.batches += 1
        t.samples += len(batch.series)
        t.log_lines += len(batch.lines)
        t.raw_anomalies += len(anomalies) + sum(a.status == "firing" for a in batch.alerts)
        firing = {a.key for a in alerts if a.state == "firing"}
        t.alerts += len(firing - self._alerted)
        self._alerted = firing

    def counts(self) -> Counts:
        t = self._totals
        ready = self._banded.ready_count() if self._banded else 0
        return Counts(
            t.batches, t.samples, t.log_lines, t.raw_anomalies, t.alerts, self.book.opened, self.book.prioritised,
            self.book.actionable, self.door.series_count, len(self.door.signals), ready,
            dict(sorted((self.door.dropped + self.alerting.dropped).items())), self.masks.suppressed, self._correlator.habitual)

    def readiness(self) -> Facts:
        """What `aiops.readiness` needs to say which signals are judged. Safe beside a running step."""
        signals = self.door.signals
        heard, interval = self.door.heard()
        size = min(len(signals), len(heard))
        return Facts(self._at, signals[:size], heard[:size], interval[:size], of_baseline(self._banded, self._at, size),
                     self.masks.held)

    def _points(self, frame: Frame, changed: Sequence[Incident]) -> tuple[Point, ...]:
        """This tick of every signal in an open incident, and once the quarter of an hour that led up to it."""
        points: list[Point] = []
        if not changed and not self.book.open():
            self._drawn = set()
            return ()
        active: set[str] = set()
        for incident in (*changed, *self.book.open()):
            for alert in incident.alerts:
                signal = None if alert.key in active else self.door.column(alert.entity, alert.signal)
                if signal is None or len(points) > MAX_POINTS_A_STEP:
                    continue
                active.add(alert.key)
                since = frame.at if alert.key in self._drawn else incident.opened_at - LEAD_TICKS_S
                rows = zip(*self.history.column(signal, since), strict=True)
                band = frame.signals[signal].band
                points += [Point(t, alert.entity, alert.signal, v, e, *band(e, w)) for t, v, e, w in rows]
        self._drawn = active
        return tuple(points)

    def _usual_known(self, column: int) -> bool:
        """Whether the baseline knows what is usual there."""
        return self._banded is None or bool(np.isfinite(self._banded.band[1][column:column + 1]).any())

    @staticmethod
    def _notes(anomalies: Sequence[Anomaly]) -> list[str]:
        return [f"{a.entity}: {a.text}" for a in anomalies if a.p_value == 1.0 and a.text]


def _residuals(values: Floats, expected: Floats, width: Floats) -> Floats:
    """float64[S], in half-widths of the band; NaN where there is no value or no band, infinite beyond all numbers."""
    if len(expected) != len(values):  # a step that the baseline passed over
        return np.full(len(values), np.nan)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.asarray((values - expected) / width)
