"""From anomalies to alerts: evidence that lasts, judged against the budget of false alarms.

Each (entity, signal) sums its evidence over time: a one-sided CUSUM of -ln p above a reference `K`. Under the promise
that p-values are uniform when all is well, the level that is crossed by chance once in N samples is ln N - K, so the
level follows from the budget and the number of signals alone (Page, "Continuous inspection schemes", 1954).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from aiops.types import Alert, AlertState, Anomaly, Frame, RawAlert, Severity, Signal

K = -math.log(1e-3)
"""Reference value in nats: what a p-value of 0.001 is worth. Weaker evidence is never reported by detectors."""
MIN_LEVEL = 6.0
MIN_TICK_S, LONGEST_TICK_S = 0.1, 3600.0
GAP_TICKS = 3.0
"""A tick longer than so many usual ones is a pause and says nothing about the usual one."""
CAP_SHARE = 0.6
"""One sample adds at most this share of the alarm level, so that no single sample raises an alert."""
RECOVER_SHARE = 0.2
"""One normal sample takes this share of the alarm level away: five in a row resolve."""
SUPPORT_SHARE = 0.5
QUIET_S = 300.0
SUPPORTERS = frozenset({"isolation_forest", "newcomer"})
"""Detectors that add to evidence and never raise it alone."""
WITNESS = "newcomer"
"""The one whose evidence is worth remembering while nothing else speaks: it may name the cause of somebody else's trouble."""
CRITICAL = frozenset({"up", "errors"})


@dataclass
class _Track:
    """Evidence of one (entity, signal)."""

    last: Anomaly
    since: float
    evidence: float = 0.0
    strength: float = 0.0
    p_value: float = 1.0
    state: AlertState = "pending"
    seen_at: float = 0.0
    silent: bool = False
    detectors: set[str] = field(default_factory=set)
    indexes: list[int] = field(default_factory=list)


class Alerting:
    """Pending -> firing -> resolved per (entity, signal). Deterministic; memory bounded by what is odd right now."""

    def __init__(self, incidents: float = 1.0, per_s: float = 86_400.0) -> None:
        self._rate = incidents / per_s
        self._tracks: dict[str, _Track] = {}
        self._raw: dict[str, Alert] = {}
        self._tick_s = 0.0
        self._at: float | None = None
        self.level = MIN_LEVEL

    def update(self, frame: Frame, anomalies: Sequence[Anomaly], raw: Sequence[RawAlert] = ()) -> tuple[Alert, ...]:
        """The alerts that are firing, or were until this step, and what newcomers say as `pending` ones."""
        self._set_level(frame)
        fresh = self._add(frame.at, anomalies)
        self._recover(frame, fresh)
        out = [self._alert(k, frame) for k in sorted(self._tracks)
               if self._tracks[k].state != "pending" or WITNESS in self._tracks[k].detectors]
        self._tracks = {k: t for k, t in self._tracks.items() if t.state != "resolved" and t.evidence > 0}
        return (*out, *self._of_others(frame.at, raw))

    # ------------------------------------------------------------------------------------------------------- levels
    def _set_level(self, frame: Frame) -> None:
        """ln N - K, where N samples are looked at in the time in which the budget allows one false incident."""
        if self._at is not None:
            usual, tick = self._tick_s, frame.at - self._at
            if not usual:
                self._tick_s = min(tick, LONGEST_TICK_S)
            elif tick < GAP_TICKS * usual:
                self._tick_s = usual + 0.2 * (max(tick, usual / 2) - usual)
        self._at = frame.at
        samples = max(len(frame.signals), 1) / (max(self._tick_s, MIN_TICK_S) * self._rate)
        self.level = max(MIN_LEVEL, math.log(max(samples, 1.0)) - K)

    # ----------------------------------------------------------------------------------------------------- evidence
    def _add(self, at: float, anomalies: Iterable[Anomaly]) -> set[str]:
        """Adds this step's evidence; returns the keys that received some."""
        best: dict[str, list[Anomaly]] = {}
        for a in anomalies:
            if a.p_value < 1.0:
                best.setdefault(f"{a.entity}|{a.name}", []).append(a)
        fresh = set()
        for key, group in best.items():
            main = [a for a in group if a.detector not in SUPPORTERS]
            if main:
                self._strengthen(key, at, min(main, key=lambda a: (a.p_value, a.detector)), group)
                fresh.add(key)
            elif witness := next((a for a in group if a.detector == WITNESS), None):
                self._testify(key, at, witness)
                fresh.add(key)
            elif key in self._tracks:
                self._support(self._tracks[key], group)
        return fresh

    def _strengthen(self, key: str, at: float, a: Anomaly, group: Sequence[Anomaly]) -> None:
        track = self._tracks.get(key)
        if track is None:
            track = self._tracks[key] = _Track(a, a.onset if a.onset == a.onset else at)
        surprise = -math.log(a.p_value)
        support = SUPPORT_SHARE if any(g.detector in SUPPORTERS for g in group) else 0.0
        gain = min(max(surprise - K, 0.0), CAP_SHARE * self.level) * (1.0 + support)
        track.evidence = min(track.evidence + gain, self.level + 1.0)
        if _deviation(a) >= _deviation(track.last):
            track.last = a  # people are shown the worst
        track.p_value = min(track.p_value, a.p_value)
        track.strength = max(track.strength, surprise)
        track.seen_at = at
        track.detectors.update(g.detector for g in group)
        if track.evidence >= self.level:
            track.state = "firing"

    def _testify(self, key: str, at: float, a: Anomaly) -> None:
        """Half of what an alert needs, kept up while the witness speaks."""
        track = self._tracks.setdefault(key, _Track(a, at))
        track.evidence = max(track.evidence, self.level / 2)
        track.strength = max(track.strength, -math.log(a.p_value))
        track.p_value, track.seen_at, track.last = min(track.p_value, a.p_value), at, a
        track.detectors.add(WITNESS)

    @staticmethod
    def _support(track: _Track, group: Sequence[Anomaly]) -> None:
        track.detectors.update(a.detector for a in group)

    def _recover(self, frame: Frame, fresh: set[str]) -> None:
        for key, track in self._tracks.items():
            if key in fresh:
                continue
            spoke = track.last.signal < 0 or math.isfinite(frame.values[track.last.signal])
            if spoke or frame.at - track.seen_at > QUIET_S:
                track.evidence -= RECOVER_SHARE * self.level
                track.silent = not spoke
            if track.evidence <= 0:
                track.evidence = 0.0
                track.state = "resolved" if track.state == "firing" else "pending"

    # ------------------------------------------------------------------------------------------------------- alerts
    def _alert(self, key: str, frame: Frame) -> Alert:
        t = self._tracks[key]
        a = t.last
        signal = frame.signals[a.signal] if a.signal >= 0 else Signal(-1, a.entity, a.name, resource=_resource(a.name))
        return Alert(
            key, a.entity, a.name, t.state, t.since, frame.at,
            1.0 - t.p_value, t.p_value, t.strength, tuple(sorted(t.detectors)), _severity(signal),
            a.value, a.expected, a.lower, a.upper, signal.unit, signal.direction,
            signal.resource, a.text, silent=t.silent and t.state == "resolved")

    def _of_others(self, at: float, raw: Sequence[RawAlert]) -> list[Alert]:
        """Alerts of other systems, as they are: already judged by somebody's rule."""
        touched: dict[str, None] = {}
        for r in raw:
            key = f"{r.entity}|alert:{r.name}"
            old = self._raw.get(key)
            if r.status == "resolved":
                if old:
                    self._raw[key] = replace(old, state="resolved", at=at, indexes=(*old.indexes, r.index))
            elif old and old.state == "firing":
                self._raw[key] = replace(old, at=at, indexes=(*old.indexes, r.index))
            else:
                severity: Severity = "critical" if r.severity in {"critical", "page"} else "warning"
                self._raw[key] = Alert(key, r.entity, f"alert:{r.name}", "firing", r.time, at, 0.999, 1e-3, 2 * K,
                                       ("alertmanager",), severity, indexes=(r.index,))
            touched[key] = None
        for key, a in self._raw.items():
            if a.state == "firing" and at - a.at > QUIET_S:
                self._raw[key] = replace(a, state="resolved", at=at)
                touched[key] = None
        out = [self._raw[key] for key in self._raw]
        self._raw = {k: replace(a, indexes=()) for k, a in self._raw.items() if a.state == "firing"}
        return [a for a in out if a.state == "firing" or a.key in touched]


def _deviation(a: Anomaly) -> float:
    """How far from expected, in the signal's unit; the surprise where there is no expectation."""
    size = abs(a.value - a.expected)
    return size if math.isfinite(size) else -math.log(a.p_value)


def _resource(name: str) -> str:
    return {"absent": "up", "log_errors": "errors"}.get(name, "")


def _severity(signal: Signal) -> Severity:
    return "critical" if signal.resource in CRITICAL else "warning"


