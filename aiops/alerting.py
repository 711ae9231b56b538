"""From anomalies to alerts: evidence that lasts, judged against the budget of false incidents.

Each (entity, signal) sums its evidence over time: a one-sided CUSUM of -ln p above a reference `K` (Page, "Continuous
inspection schemes", 1954), in shares of the alarm level. The level follows from the budget: docs/budget.md.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from aiops.budget import Budget, K
from aiops.habits import Habits
from aiops.ladder import NO_SIGNAL, QUIET_S, RECOVER_SHARE, ROUNDED, UNKNOWN, Gain, Ladder, Places, added, recovery
from aiops.others import Others
from aiops.rows import columnar
from aiops.types import Alert, AlertState, Anomaly, Entity, Frame, RawAlert, Severity, Signal

VERSION = 4
"""Of what `state` gives."""
SUPPORT_SHARE = 0.5
SUPPORTERS = frozenset({"isolation_forest", "newcomer", "young", "ceased"})
"""Detectors that add to evidence and never raise it alone."""
WITNESS = "newcomer"
"""The one whose evidence is worth remembering while nothing else speaks: it may name the cause of somebody else's trouble."""
CRITICAL = frozenset({"up", "errors"})
COUNTS = frozenset({"log_errors", "log_missing"})
"""What is odd about many lines of a minute together."""


class Topology(Protocol):
    """What alerting asks of the graph."""

    def neighbours(self, entity: Entity) -> Sequence[Entity]: ...
    def is_hub(self, entity: Entity) -> bool: ...


@dataclass
class _Track:
    """Evidence of one (entity, signal). `share`: of the level in force."""

    last: Anomaly
    since: float
    share: float = 0.0
    strength: float = 0.0
    p_value: float = 1.0
    state: AlertState = "pending"
    seen_at: float = 0.0
    silent: bool = False
    detectors: set[str] = field(default_factory=set)


class Alerting:
    """Pending -> firing -> resolved per (entity, signal). Deterministic; memory bounded by what is odd right now.

    moved: event time, entity, signal -> how many times the usual evidence it needs, as people's words moved it.
    """

    def __init__(self, incidents: float = 1.0, per_s: float = 86_400.0) -> None:
        self.moved: Callable[[float, Entity, str], float] = lambda at, entity, signal: 1.0
        self.budget = Budget(incidents, per_s)
        self._ladder, self.habits = Ladder(), Habits(self.budget.memory_s)
        self._tracks: dict[str, _Track] = {}
        self._others = Others()
        self._lost_columns = False

    @property
    def dropped(self) -> Counter[str]:
        """Alerts of others that were of no use, by reason."""
        return self._others.dropped

    @property
    def level(self) -> float:
        """Nats of evidence that raise an alert."""
        return self.budget.level

    def update(self, frame: Frame, anomalies: Sequence[Anomaly], raw: Sequence[RawAlert] = (),
               graph: Topology | None = None) -> tuple[Alert, ...]:
        """The alerts that are firing, or were until this step, and what newcomers say as `pending` ones.

        graph: who is near whom, so that what will be one incident is counted as one.
        """
        self.budget.watch(frame)
        self._find_columns(frame)
        before = {k for k, t in self._tracks.items() if t.state == "firing"}
        fresh = self._add(frame.at, (a for a in anomalies if not _waits(frame, a)))
        self._recover(frame, fresh)
        self._keep_book(frame, graph, fresh, [k for k, t in self._tracks.items() if t.state == "firing" and k not in before])
        out = [self._alert(k, frame) for k in sorted(self._tracks)
               if self._tracks[k].state != "pending" or WITNESS in self._tracks[k].detectors]
        self._tracks = {k: t for k, t in self._tracks.items() if t.state != "resolved" and t.share > 0}
        return (*out, *self._others.update(frame.at, raw))

    def _keep_book(self, frame: Frame, graph: Topology | None, fresh: set[str], paged: Sequence[str]) -> None:
        """Counts what each level would have paged, and learns how high signals go by themselves; not from held entities."""
        for gone in self._ladder.fall(frame.at, frame.values, fresh, self.budget.tick_s):
            self._learn_habit(frame, gone.key, gone.entity, gone.nats * self.needed(frame.at, gone.key), 1.0)
        self._ladder.page(paged)
        for key in paged:
            nats = self.level * self.habits.scale(key)  # as without words: they must not count twice
            self._learn_habit(frame, key, self._tracks[key].last.entity, nats, self.budget.false_share)
        entities = {self._tracks[key].last.entity for key in paged}
        self.budget.count(*self._ladder.incidents(frame.at, self.budget.tick_s, self.budget.reached, frame.held, entities,
                                                  lambda entity: _near(graph, entity)))
        self.habits.forget(frame.at)

    def _learn_habit(self, frame: Frame, key: str, entity: str, nats: float, weight: float) -> None:
        if entity not in frame.held:
            self.habits.add(frame.at, key, nats, weight)

    def needed(self, at: float, key: str) -> float:
        """How many times the usual evidence `entity|signal` needs: by how restless it is, and by what people said of its class,
        of which the latter makes it less only while the level keeps to the budget."""
        moved = self.moved(at, *key.split("|", 1))
        return self.habits.scale(key) * (moved if moved >= 1.0 or self.budget.room else 1.0)

    # ----------------------------------------------------------------------------------------------------- evidence
    def _add(self, at: float, anomalies: Iterable[Anomaly]) -> set[str]:
        """Adds this step's evidence; returns the keys that received some."""
        best: dict[str, list[Anomaly]] = {}
        for a in anomalies:
            if a.p_value < 1.0:
                best.setdefault(f"{a.entity}|{a.name}", []).append(a)
        fresh: set[str] = set()
        gains: list[Gain] = []
        for key, group in best.items():
            main = [a for a in group if a.detector not in SUPPORTERS]
            if main:
                gains.append(self._strengthen(key, at, min(main, key=lambda a: (a.p_value, a.detector)), group))
                fresh.add(key)
            elif witness := next((a for a in group if a.detector == WITNESS), None):
                self._testify(key, at, witness)
                fresh.add(key)
            elif key in self._tracks:
                self._support(self._tracks[key], group)
        if gains:
            self._ladder.climb(at, gains, self.budget.tick_s)
        return fresh

    def _strengthen(self, key: str, at: float, a: Anomaly, group: Sequence[Anomaly]) -> Gain:
        """Adds to the track; returns what was added, for the ladder."""
        track = self._tracks.get(key)
        if track is None:
            track = self._tracks[key] = _Track(a, a.onset if a.onset == a.onset else at)
        surprise = -math.log(a.p_value)
        support = 1.0 + (SUPPORT_SHARE if any(g.detector in SUPPORTERS for g in group) else 0.0)
        gain = max(surprise - K, 0.0) / self.needed(at, key)
        counted = a.name in COUNTS
        share = float(added(gain / self.level, self.budget.tick_s, counted))
        track.share = min(track.share + share * support, 1.0 + 1.0 / self.level)
        if _deviation(a) >= _deviation(track.last):
            track.last = a  # people are shown the worst
        track.p_value = min(track.p_value, a.p_value)
        track.strength = max(track.strength, surprise)
        track.seen_at = at
        track.detectors.update(g.detector for g in group)
        if track.share >= 1.0:
            track.state = "firing"
        return Gain(key, a.entity, a.signal, gain, support, counted)

    def _testify(self, key: str, at: float, a: Anomaly) -> None:
        """Half of what an alert needs, kept up while the witness speaks."""
        track = self._tracks.setdefault(key, _Track(a, at))
        track.share = max(track.share, 0.5)
        track.strength = max(track.strength, -math.log(a.p_value))
        track.p_value, track.seen_at, track.last = min(track.p_value, a.p_value), at, a
        track.detectors.add(WITNESS)
        self._ladder.lift(at, Gain(key, a.entity, a.signal, 0.0), 0.5)

    @staticmethod
    def _support(track: _Track, group: Sequence[Anomaly]) -> None:
        track.detectors.update(a.detector for a in group)

    def _recover(self, frame: Frame, fresh: set[str]) -> None:
        for key, track in self._tracks.items():
            if key in fresh:
                continue
            spoke = _spoke(frame, track.last.signal)
            if spoke or frame.at - track.seen_at > QUIET_S:
                fires = track.state == "firing"
                track.share = min(track.share, 1.0) - recovery(self.budget.tick_s) if fires else track.share - RECOVER_SHARE
                track.silent = not spoke
            if track.share <= ROUNDED:
                track.share = 0.0
                track.state = "resolved" if track.state == "firing" else "pending"

    # ------------------------------------------------------------------------------------------------------- alerts
    def _alert(self, key: str, frame: Frame) -> Alert:
        t = self._tracks[key]
        a = t.last
        high = max(self._ladder.highest(key), self.level) if t.state == "firing" else 0.0
        share = self.budget.share(high)
        signal = frame.signals[a.signal] if a.signal >= 0 else Signal(-1, a.entity, a.name, resource=_resource(a.name))
        return Alert(
            key, a.entity, a.name, t.state, t.since, frame.at,
            1.0 - t.p_value, t.p_value, t.strength, tuple(sorted(t.detectors)), _severity(signal),
            a.value, a.expected, a.lower, a.upper, signal.unit, signal.direction,
            signal.resource, a.text, silent=t.silent and t.state == "resolved", budget_share=share, odd_at=t.seen_at)

    # -------------------------------------------------------------------------------------------------------- state
    def state(self) -> dict[str, Any]:
        """Everything that is remembered, as plain numbers, strings, lists and maps (floats may be NaN or infinite)."""
        tracks = {k: {**vars(t), "last": asdict(t.last), "detectors": sorted(t.detectors)} for k, t in self._tracks.items()}
        return {"version": VERSION, "tracks": tracks, "others": self._others.state(), "ladder": self._ladder.state(),
                "habits": self.habits.state(), "budget": self.budget.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Into one that has seen nothing. The budget is its own: another one than before is met from the first step.

        Raises ValueError for a state of another version; nothing is changed then.
        """
        if state.get("version") != VERSION:
            raise ValueError(f"alerting: state of version {state.get('version')!r}; this is version {VERSION}. Start without it.")
        self._tracks = {k: _Track(**{**t, "last": Anomaly(**t["last"]), "detectors": set(t["detectors"])})
                        for k, t in state["tracks"].items()}
        for name, part in (("others", self._others), ("ladder", self._ladder), ("habits", self.habits), ("budget", self.budget)):
            part.restore(state[name])
        self._lost_columns = True

    def columns(self, count: int) -> Places:
        """Which of the frame's `count` columns there is evidence about. None in the first steps after a restore."""
        if self._lost_columns:
            return np.zeros(0, np.int64)
        found = [*(t.last.signal for t in self._tracks.values()), *self._ladder.column.tolist()]
        return np.array([k for k in found if 0 <= k < count], np.int64)

    def keep(self, columns: Places, count: int) -> None:
        """Of the frame's `count` columns only these stay, in this order. What is about one that is gone is heard no more."""
        if self._lost_columns:  # they are looked up by name before they are used again
            return
        where = np.full(count, UNKNOWN, np.int64)
        where[columns] = np.arange(len(columns))
        for track in self._tracks.values():
            if track.last.signal >= 0:
                track.last = replace(track.last, signal=int(where[track.last.signal]))
        self._ladder.move(where)

    def _find_columns(self, frame: Frame) -> None:
        """After a restore columns may have other numbers than before; signals may appear one after the other."""
        self._lost_columns &= bool(self._tracks) or bool(self._ladder)
        if self._lost_columns:
            signals = columnar(frame.signals)
            odd = {t.last.entity for t in self._tracks.values()} | set(self._ladder.entities())
            of = {f"{s.entity}|{s.key}": s.id for s in (signals[k] for k in signals.places(odd).tolist())}
            for key, track in self._tracks.items():
                if track.last.signal != NO_SIGNAL:
                    track.last = replace(track.last, signal=of.get(key, UNKNOWN))
            self._ladder.find_columns(of)
            self._lost_columns = any(t.last.signal == UNKNOWN for t in self._tracks.values())


def _near(graph: Topology | None, entity: Entity) -> set[Entity]:
    """Within two hops, not through hubs: who joins the same incident (correlators/group.py)."""
    first = set(graph.neighbours(entity)) if graph else set()
    return {e for n in first if graph and not graph.is_hub(n) for e in graph.neighbours(n)} | first


def _spoke(frame: Frame, column: int) -> bool:
    return column == NO_SIGNAL or (column >= 0 and math.isfinite(frame.values[column]))


def _waits(frame: Frame, a: Anomaly) -> bool:
    """Evidence, and no alert: time spent waiting for others is their alert, or none, as in long polls. How many lines there are
    follows the traffic, and whether somebody collects them; of what they say the detector of logs speaks."""
    return a.signal >= 0 and (frame.signals[a.signal].resource == "waiting" or frame.signals[a.signal].unit == "lines")


def _deviation(a: Anomaly) -> float:
    """How far from expected, in the signal's unit; the surprise where there is no expectation."""
    size = abs(a.value - a.expected)
    return size if math.isfinite(size) else -math.log(a.p_value)


def _resource(name: str) -> str:
    return {"absent": "up", "log_errors": "errors", "log_burst": "errors", "log_missing": "errors"}.get(name, "")


def _severity(signal: Signal) -> Severity:
    return "critical" if signal.resource in CRITICAL else "warning"


