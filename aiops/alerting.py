"""From anomalies to alerts: evidence that lasts, judged against the budget of false incidents.

Each (entity, signal) sums its evidence over time: a one-sided CUSUM of -ln p above a reference `K` (Page, "Continuous
inspection schemes", 1954), in shares of the alarm level. The level follows from the budget: docs/budget.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from aiops import budget
from aiops.budget import MIN_LEVEL, Record
from aiops.habits import Habits
from aiops.ladder import CAP_SHARE, NO_SIGNAL, QUIET_S, RECOVER_SHARE, RUNGS, UNKNOWN, Gain, Ladder
from aiops.others import Others
from aiops.types import Alert, AlertState, Anomaly, Frame, RawAlert, Severity, Signal

VERSION = 1
"""Of what `state` gives."""
K = -math.log(1e-3)
"""Reference value in nats: what a p-value of 0.001 is worth. Weaker evidence is never reported by detectors."""
MIN_TICK_S, LONGEST_TICK_S = 0.1, 3600.0
SOLVE_S, THEORY_MOVES = 3600.0, 0.01
"""The level is set anew after so long, after each page, and when the theory asks for so many nats more or less."""
SETTLING_TICKS = 30
"""At first detectors have no opinion: that nothing happens then says nothing."""
CALM_TIMES, CALM_NATS = 1.5, 6.0
"""The level is at most so much above the one that incidents which were not paged ask for by themselves: what nothing
innocent resembles is believed, until people say that it was false more often than not."""
GAP_TICKS = 3.0
"""A tick longer than so many usual ones is a pause and says nothing about the usual one."""
SUPPORT_SHARE = 0.5
SUPPORTERS = frozenset({"isolation_forest", "newcomer"})
"""Detectors that add to evidence and never raise it alone."""
WITNESS = "newcomer"
"""The one whose evidence is worth remembering while nothing else speaks: it may name the cause of somebody else's trouble."""
CRITICAL = frozenset({"up", "errors"})
_CLOCKS = ("at", "tick_s", "ticks", "solved_at", "theory", "watched_s")
MAX_VERDICTS = 1000
"""Only the newest verdicts of people count."""


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
    """Pending -> firing -> resolved per (entity, signal). Deterministic; memory bounded by what is odd right now."""

    def __init__(self, incidents: float = 1.0, per_s: float = 86_400.0) -> None:
        self._budget = incidents / per_s
        self._tracks: dict[str, _Track] = {}
        self._others = Others()
        self._ladder, self._habits, self._record = Ladder(), Habits(), Record()
        self._verdicts: dict[str, str] = {}
        self._at, self._tick_s, self._ticks = -math.inf, 0.0, 0
        self._solved_at, self._theory, self._watched_s = -math.inf, 0.0, 0.0
        self._rates = np.zeros(0)
        self._lost_columns = False
        self.level = MIN_LEVEL

    def update(self, frame: Frame, anomalies: Sequence[Anomaly], raw: Sequence[RawAlert] = ()) -> tuple[Alert, ...]:
        """The alerts that are firing, or were until this step, and what newcomers say as `pending` ones."""
        self._set_level(frame)
        self._find_columns(frame)
        before = {k for k, t in self._tracks.items() if t.state == "firing"}
        fresh = self._add(frame.at, anomalies)
        self._recover(frame, fresh)
        self._keep_book(frame, fresh, [k for k, t in self._tracks.items() if t.state == "firing" and k not in before])
        out = [self._alert(k, frame) for k in sorted(self._tracks)
               if self._tracks[k].state != "pending" or WITNESS in self._tracks[k].detectors]
        self._tracks = {k: t for k, t in self._tracks.items() if t.state != "resolved" and t.share > 0}
        return (*out, *self._others.update(frame.at, raw))

    def judge(self, incident: str, verdict: str) -> None:
        """What a person said of an incident: `false_alarm` or `useful`. The last thousand incidents count."""
        self._verdicts.pop(incident, None)
        self._verdicts[incident] = verdict
        if len(self._verdicts) > MAX_VERDICTS:
            del self._verdicts[next(iter(self._verdicts))]

    # ------------------------------------------------------------------------------------------------------- levels
    def _set_level(self, frame: Frame) -> None:
        """Asks the record for the level that keeps to the budget: now and then, and when something has changed."""
        tick = max(frame.at - self._at, 0.0) if math.isfinite(self._at) else 0.0
        self._at = frame.at
        self._learn_tick(tick)
        theory = self._by_theory(len(frame.signals))
        if frame.at - self._solved_at >= SOLVE_S or abs(theory - self._theory) > THEORY_MOVES:
            self._solve(frame.at, theory)
        free = float(frame.learn.mean()) if frame.held and len(frame.learn) else 1.0
        self._ticks += 1
        if self._ticks > SETTLING_TICKS:
            self._watched_s += free * min(tick, GAP_TICKS * self._tick_s)

    def _learn_tick(self, tick: float) -> None:
        usual = self._tick_s
        if not usual:
            self._tick_s = min(tick, LONGEST_TICK_S)
        elif tick < GAP_TICKS * usual:
            self._tick_s = usual + 0.2 * (max(tick, usual / 2) - usual)

    def _by_theory(self, signals: int) -> float:
        """ln N - K, where N samples are looked at in the time in which the budget allows one false incident."""
        samples = max(signals, 1) / (max(self._tick_s, MIN_TICK_S) * self._budget)
        return max(MIN_LEVEL, math.log(max(samples, 1.0)) - K)

    def _solve(self, at: float, theory: float) -> None:
        self._record.watch(self._watched_s, self.level)
        if math.isfinite(self._solved_at):
            self._record.forget(max(at - self._solved_at, 0.0))
        self._habits.forget(at)
        self._solved_at, self._theory, self._watched_s = at, theory, 0.0
        self._rates = self._record.rates(self._budget, theory, self._false_share())
        self.level = min(budget.level(self._rates, self._budget), self._most())

    def _most(self) -> float:
        """The highest level that is believed to be needed."""
        if 2 * self._false_alarms() > len(self._verdicts):
            return math.inf
        calm = self._record.rates(self._budget, self._theory, 0.0)
        return CALM_TIMES * budget.level(calm, self._budget) + CALM_NATS

    def _false_alarms(self) -> int:
        return sum(v == "false_alarm" for v in self._verdicts.values())

    def _false_share(self) -> float:
        """Of the incidents that people judged, the share that was false; all of them while nobody says anything."""
        return (self._false_alarms() + 1.0) / (len(self._verdicts) + 1.0)

    def _keep_book(self, frame: Frame, fresh: set[str], paged: Sequence[str]) -> None:
        """Counts what each level would have paged, and learns how high signals go by themselves; not from held entities."""
        for gone in self._ladder.fall(frame.at, frame.values, fresh):
            self._learn_habit(frame, gone.key, gone.entity, gone.nats, 1.0)
        self._ladder.page(paged)
        for key in paged:
            self._learn_habit(frame, key, self._tracks[key].last.entity, self.level, self._false_share())
        entities = {self._tracks[key].last.entity for key in paged}
        seen = self._ladder.incidents(frame.at, self._tick_s, self.level >= RUNGS, frame.held, entities)
        self._record.count(*seen, self.level)
        if paged:
            self._solve(frame.at, self._theory)

    def _learn_habit(self, frame: Frame, key: str, entity: str, nats: float, weight: float) -> None:
        if entity not in frame.held:
            self._habits.add(frame.at, key, nats * self._habits.scale(key), weight)

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
            self._ladder.climb(at, gains)
        return fresh

    def _strengthen(self, key: str, at: float, a: Anomaly, group: Sequence[Anomaly]) -> Gain:
        """Adds to the track; returns what was added, for the ladder."""
        track = self._tracks.get(key)
        if track is None:
            track = self._tracks[key] = _Track(a, a.onset if a.onset == a.onset else at)
        surprise = -math.log(a.p_value)
        support = 1.0 + (SUPPORT_SHARE if any(g.detector in SUPPORTERS for g in group) else 0.0)
        gain = max(surprise - K, 0.0) / self._habits.scale(key)
        track.share = min(track.share + min(gain / self.level, CAP_SHARE) * support, 1.0 + 1.0 / self.level)
        if _deviation(a) >= _deviation(track.last):
            track.last = a  # people are shown the worst
        track.p_value = min(track.p_value, a.p_value)
        track.strength = max(track.strength, surprise)
        track.seen_at = at
        track.detectors.update(g.detector for g in group)
        if track.share >= 1.0:
            track.state = "firing"
        return Gain(key, a.entity, a.signal, gain, support)

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
                track.share -= RECOVER_SHARE
                track.silent = not spoke
            if track.share <= 0:
                track.share = 0.0
                track.state = "resolved" if track.state == "firing" else "pending"

    # ------------------------------------------------------------------------------------------------------- alerts
    def _alert(self, key: str, frame: Frame) -> Alert:
        t = self._tracks[key]
        a = t.last
        high = max(self._ladder.highest(key), self.level) if t.state == "firing" else 0.0
        share = min(budget.rate(self._rates, high) / self._budget, 1.0)
        signal = frame.signals[a.signal] if a.signal >= 0 else Signal(-1, a.entity, a.name, resource=_resource(a.name))
        return Alert(
            key, a.entity, a.name, t.state, t.since, frame.at,
            1.0 - t.p_value, t.p_value, t.strength, tuple(sorted(t.detectors)), _severity(signal),
            a.value, a.expected, a.lower, a.upper, signal.unit, signal.direction,
            signal.resource, a.text, silent=t.silent and t.state == "resolved", budget_share=share)

    # -------------------------------------------------------------------------------------------------------- state
    def state(self) -> dict[str, Any]:
        """Everything that is remembered, as plain numbers, strings, lists and maps (floats may be NaN or infinite)."""
        tracks = {k: {**vars(t), "last": asdict(t.last), "detectors": sorted(t.detectors)} for k, t in self._tracks.items()}
        return {"version": VERSION, "tracks": tracks, "others": self._others.state(), "ladder": self._ladder.state(),
                "habits": self._habits.state(), "record": self._record.state(), "verdicts": dict(self._verdicts),
                "level": self.level, "rates": self._rates.tolist(), **{k: getattr(self, f"_{k}") for k in _CLOCKS}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Into one that has seen nothing. The budget is its own: another one than before is met from the first step.

        Raises ValueError for a state of another version; nothing is changed then.
        """
        if state.get("version") != VERSION:
            raise ValueError(f"alerting: state of version {state.get('version')!r}; this is version {VERSION}. Start without it.")
        self._tracks = {k: _Track(**{**t, "last": Anomaly(**t["last"]), "detectors": set(t["detectors"])})
                        for k, t in state["tracks"].items()}
        for part in ("others", "ladder", "habits", "record"):
            getattr(self, f"_{part}").restore(state[part])
        for k in _CLOCKS:
            setattr(self, f"_{k}", float(state[k]))
        self._verdicts, self.level = dict(state["verdicts"]), float(state["level"])
        self._rates = np.array(state["rates"], np.float64)
        self._lost_columns = True

    def _find_columns(self, frame: Frame) -> None:
        """After a restore columns may have other numbers than before; signals may appear one after the other."""
        if self._lost_columns:
            of = {f"{s.entity}|{s.key}": s.id for s in frame.signals}
            for key, track in self._tracks.items():
                if track.last.signal != NO_SIGNAL:
                    track.last = replace(track.last, signal=of.get(key, UNKNOWN))
            self._ladder.find_columns(of)
            self._lost_columns = any(t.last.signal == UNKNOWN for t in self._tracks.values())


def _spoke(frame: Frame, column: int) -> bool:
    return column == NO_SIGNAL or (column >= 0 and math.isfinite(frame.values[column]))


def _deviation(a: Anomaly) -> float:
    """How far from expected, in the signal's unit; the surprise where there is no expectation."""
    size = abs(a.value - a.expected)
    return size if math.isfinite(size) else -math.log(a.p_value)


def _resource(name: str) -> str:
    return {"absent": "up", "log_errors": "errors"}.get(name, "")


def _severity(signal: Signal) -> Severity:
    return "critical" if signal.resource in CRITICAL else "warning"


