"""Alerts of other systems (Alertmanager), as they are: already judged by somebody's rule.

What a rule is worth is told by its past: one that goes off ten times a day, or on everybody, says less each time.
docs/decisions/035.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from aiops.types import Alert, RawAlert, Severity

SENDER = "alertmanager"
QUIET_S, LEAST_QUIET_S, GAPS = 300.0, 120.0, 3.0
"""What is not repeated for so long is over; for so many times its usual interval, where that is known, and never sooner."""
STRENGTH = 13.8
"""In nats: as much as two samples at p = 0.001."""
MEMORY_S = 86_400.0
"""What was so long ago counts for 1/e; and for so long, what its rule does elsewhere speaks for an alert."""
TOGETHER_S = 300.0
OPENS_A_DAY = 2.0
"""An alert that comes less often than this opens an incident by itself."""
USUAL_S, USUAL_COUNT = 300.0, 3.0
"""How long an alert lasts, and for how many times that counts before any was over."""
MOST_KEYS, FADED = 100_000, 0.05
"""So many are remembered, and may fire at once; critical ones may be as many again."""


def surprise(a_day: float) -> float:
    """Nats: how odd it is that something which comes so many times a day comes within TOGETHER_S."""
    return -math.log(-math.expm1(-a_day * TOGETHER_S / 86_400.0))


@dataclass(slots=True)
class Past:
    """What one alert did before: `count` and `lasted_s` of how often and how long it was on, both forgetting.

    `times` since `first_at`: how often in all. `gap_s`: the longest interval at which it is repeated. `told`: it is told when
    it is over. `over_at`: when that was said last.
    """

    count: float = 0.0
    lasted_s: float = 0.0
    at: float = 0.0
    gap_s: float = 0.0
    told: bool = False
    times: int = 0
    first_at: float = 0.0
    over_at: float = -math.inf

    def quiet_s(self) -> float:
        """After so long without a word it is over."""
        return QUIET_S if self.told or not self.gap_s else min(max(GAPS * self.gap_s, LEAST_QUIET_S), QUIET_S)

    def usual_s(self) -> float:
        return (USUAL_COUNT * USUAL_S + self.lasted_s) / (USUAL_COUNT + self.count)

    def fade(self, at: float) -> None:
        keep = math.exp(-max(at - self.at, 0.0) / MEMORY_S)
        self.count, self.lasted_s, self.at = self.count * keep, self.lasted_s * keep, max(at, self.at)


@dataclass(slots=True)
class _On:
    """One that fires. `surprise`: in nats, when it began."""

    entity: str
    name: str
    since: float
    seen_at: float
    severity: Severity
    surprise: float
    fires: bool = True
    silent: bool = False
    indexes: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _Rule:
    """How often it went off on all entities together, forgetting: `count` at `at`, and since then `fresh` times. Those of the
    last TOGETHER_S are no habit: what begins everywhere at once is one thing."""

    count: float = 0.0
    fresh: float = 0.0
    at: float = 0.0

    def settle(self, at: float) -> None:
        """What is no longer fresh counts."""
        if at - self.at > TOGETHER_S:
            self.count, self.fresh, self.at = (self.count + self.fresh) * math.exp((self.at - at) / MEMORY_S), 0.0, at


class _Rules:
    """Each rule by its name, and how many entities there are. Memory: as of pasts."""

    def __init__(self) -> None:
        self.known: dict[str, _Rule] = {}
        self._keys: Counter[str] = Counter()

    def elsewhere(self, at: float, name: str, here: float, days: float) -> float:
        """How often a day it went off on one of the others, within so many days, where `here` are the times it did so here;
        once, where nothing is known."""
        rule = self.known.get(name) or _Rule(at=at)
        rule.settle(at)
        others = max(len(self._keys) - 1, 0)
        return (max(rule.count - here, 0.0) + 1.0) / (others * days + 1.0)

    def add(self, at: float, name: str) -> None:
        rule = self.known.pop(name, None) or _Rule(at=at)
        rule.settle(at)
        rule.fresh += 1.0
        self.known[name] = rule  # the one that went off longest ago stands first
        if len(self.known) > MOST_KEYS:
            del self.known[next(iter(self.known))]

    def know(self, entity: str) -> None:
        self._keys[entity] += 1

    def forget(self, entity: str) -> None:
        self._keys[entity] -= 1
        if not self._keys[entity]:
            del self._keys[entity]


class Others:
    """Firing until it is told to be resolved, or was not repeated for a while. Memory: what fires, and the past of MOST_KEYS.

    dropped: what was of no use, by reason.
    """

    def __init__(self) -> None:
        self._on: dict[str, _On] = {}
        self._pasts: dict[str, Past] = {}
        self._rules = _Rules()
        self._first_at = self._last_at = math.inf
        self.dropped: Counter[str] = Counter()

    def update(self, at: float, raw: Sequence[RawAlert]) -> list[Alert]:
        """Those that fire, or did until this step."""
        self._first_at = min(self._first_at, at)
        earliest = min(self._last_at, at)
        self._last_at = at
        touched: dict[str, _On] = {}
        for r in raw:
            key = f"{r.entity}|alert:{r.name}"
            on = self._hear(key, at, r, min(max(r.time, earliest), at))
            if on:
                on.indexes.append(r.index)
                touched[key] = on
        for key, on in self._on.items():
            if key not in touched and on.fires and at - on.seen_at > self._pasts[key].quiet_s():
                self._end(key, on, on.seen_at)
                on.silent = True
                touched[key] = on
        out = [self._alert(key, at, on) for key, on in self._on.items() if on.fires or key in touched]
        for on in touched.values():
            on.indexes = []
        self._on = {key: on for key, on in self._on.items() if on.fires}
        return out

    # ------------------------------------------------------------------------------------------------------ one alert
    def _hear(self, key: str, at: float, r: RawAlert, seen_at: float) -> _On | None:
        """The alert that this is about, None where it is about none. seen_at: its time, not before the step."""
        on = self._on.get(key)
        if r.status == "resolved":
            return self._resolve(key, at, on, r)
        if on is None or not on.fires:
            return self._begin(key, at, r, seen_at)
        past, gap = self._pasts[key], seen_at - on.seen_at
        if gap > past.quiet_s():  # it was over in between
            self._end(key, on, on.seen_at)
            return self._begin(key, at, r, seen_at)
        if gap > 0:
            past.gap_s = max(gap, 0.9 * past.gap_s)
            on.seen_at = seen_at
        return on

    def _resolve(self, key: str, at: float, on: _On | None, r: RawAlert) -> _On | None:
        if on is None:
            self.dropped["alerts_resolved_that_did_not_fire"] += 1
        elif not on.fires:
            self.dropped["alerts_resolved_twice"] += 1
        elif r.time < on.since:
            self.dropped["alerts_out_of_order"] += 1
        else:
            self._pasts[key].told, self._pasts[key].over_at = True, min(r.time, at)
            self._end(key, on, min(r.time, at))
        return on

    def _begin(self, key: str, at: float, r: RawAlert, seen_at: float) -> _On | None:
        past, indexes = self._pasts.pop(key, None), self._on[key].indexes if key in self._on else []
        if past and r.time < past.over_at:
            self._pasts[key] = past
            self.dropped["alerts_out_of_order"] += 1
            return self._on.get(key)
        severity: Severity = "critical" if r.critical else "warning"
        if key not in self._on and len(self._on) >= MOST_KEYS * (2 if severity == "critical" else 1):
            self.dropped["alerts_too_many_at_once"] += 1
            return None
        if past is None:
            past = Past(at=at, first_at=at)
            self._rules.know(r.entity)
        self._pasts[key] = past  # the one that began longest ago stands first
        past.fade(at)
        odd = surprise(self._a_day(at, r.name, past))
        self._rules.add(at, r.name)
        on = self._on[key] = _On(r.entity, r.name, min(r.time, at), seen_at, severity, odd, indexes=indexes)
        past.count, past.times = past.count + 1.0, past.times + 1
        self._forget(at)
        return on

    def _a_day(self, at: float, name: str, past: Past) -> float:
        """How often it comes: its own past, beside a day of what its rule does on the others (a gamma prior for a rate)."""
        watched, prior = (days * MEMORY_S / 86_400.0 for days in (-math.expm1(-(at - self._first_at) / MEMORY_S), 1.0))
        return (past.count + prior * self._rules.elsewhere(at, name, past.count, watched)) / (watched + prior)

    def _end(self, key: str, on: _On, over_at: float) -> None:
        on.fires = False
        past = self._pasts[key]
        past.fade(over_at)
        past.lasted_s += max(over_at - on.since, 0.0)

    def _forget(self, at: float) -> None:
        """What faded, and the oldest of too many."""
        while len(self._pasts) > len(self._on):
            key, past = next(iter(self._pasts.items()))
            if key in self._on:  # it is on for long: not the oldest any more
                self._pasts[key] = self._pasts.pop(key)
                return
            if len(self._pasts) <= 3 * MOST_KEYS and past.count * math.exp((past.at - at) / MEMORY_S) > FADED:
                return
            del self._pasts[key]
            self._rules.forget(_entity(key))

    def _alert(self, key: str, at: float, on: _On) -> Alert:
        past = self._pasts[key]
        nats = on.surprise + max(on.seen_at - on.since, 0.0) / past.usual_s()
        opens = min(nats / surprise(OPENS_A_DAY), 1.0)
        text = _habit(past, at) if opens < 1.0 else ""
        return Alert(key, on.entity, f"alert:{on.name}", "firing" if on.fires else "resolved", on.since, at, 0.999, 1e-3,
                     STRENGTH * opens, (SENDER,), on.severity, text=text, indexes=tuple(on.indexes), silent=on.silent,
                     opens=opens)

    # ---------------------------------------------------------------------------------------------------------- state
    def state(self) -> dict[str, Any]:
        """The alerts that fire, and the past of all, as plain maps."""
        return {"on": {key: asdict(on) for key, on in self._on.items()}, "first_at": self._first_at,
                "pasts": {key: asdict(past) for key, past in self._pasts.items()},
                "rules": {name: asdict(rule) for name, rule in self._rules.known.items()}}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._on = {key: _On(**on) for key, on in state["on"].items()}
        self._pasts = {key: Past(**past) for key, past in state["pasts"].items()}
        self._rules = _Rules()
        self._rules.known = {name: _Rule(**rule) for name, rule in state.get("rules", {}).items()}
        for key in self._pasts:
            self._rules.know(_entity(key))
        self._first_at = state["first_at"]


def _habit(past: Past, at: float) -> str:
    times = f"{past.times} times in {_span(at - past.first_at)}"
    return f"it goes off by habit: {times}" if past.times > 1 else "its rule goes off on others by habit"


def _entity(key: str) -> str:
    return key.split("|alert:", 1)[0]


def _span(seconds: float) -> str:
    for name, size in (("days", 86_400.0), ("hours", 3600.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds / 60:.0f} minutes"
