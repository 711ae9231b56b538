"""Levels that a person called a false alarm: an alert that is no worse than one of them raises nothing.

For two weeks, in which these data are learned like any others. What has no level (silence) cannot be accepted. A person
takes it back by calling the same incident useful. Fails where somebody calls a real fault a false alarm: a later fault
of the same size on the same signal is then shown as suppressed only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from aiops.globs import named
from aiops.types import Alert, Command, Entity, Incident

ACCEPT_S = 14 * 24 * 3600.0
MARGIN = 0.1
"""How much further from what was expected still counts as the same level."""
MAX_INCIDENTS, MAX_LEVELS = 200, 1000


@dataclass(frozen=True, slots=True)
class Level:
    """`signal` of `entity` may lie as far as `bound`, on the side of the expectation where it was then."""

    entity: Entity
    signal: str
    up: bool
    bound: float

    @classmethod
    def of(cls, a: Alert) -> Level:
        return cls(a.entity, a.signal, a.value > a.expected, a.value + MARGIN * (a.value - a.expected))

    def holds(self, a: Alert) -> bool:
        """Whether the alert is on that side and no further away."""
        return (a.value > a.expected) == self.up and (a.value <= self.bound if self.up else a.value >= self.bound)


@dataclass(frozen=True, slots=True)
class _Said:
    """A level with who accepted it: at the time `at`, about an incident."""

    level: Level
    incident: str
    by: str
    at: float


class Accepted:
    """Remembers what the newest 200 incidents were about, so that they can be judged the morning after; 1,000 levels."""

    def __init__(self) -> None:
        self._open: dict[str, Incident] = {}
        self._about: dict[str, tuple[Level, ...]] = {}
        self._said: list[_Said] = []
        self._by: dict[tuple[Entity, str], list[_Said]] = {}

    def watch(self, incidents: Iterable[Incident]) -> None:
        """The incidents that are open now. What those that are not any more were about is remembered."""
        before, self._open = self._open, {i.id: i for i in incidents}
        self._about |= {name: _levels(i) for name, i in before.items() if name not in self._open}
        for name in list(self._about)[:-MAX_INCIDENTS]:
            del self._about[name]

    def judge(self, command: Command) -> None:
        """`false_alarm` accepts the levels of an incident, `useful` takes that back."""
        self._said = [s for s in self._said if s.incident != command.target and command.time - s.at < ACCEPT_S]
        if command.verb == "false_alarm":
            levels = self._known().get(command.target, ())
            self._said += [_Said(x, command.target, command.by or "somebody", command.time) for x in levels]
            del self._said[:-MAX_LEVELS]
        self._index()

    def _index(self) -> None:
        """Levels by what they are about: a storm of alerts asks often."""
        self._by = {}
        for s in self._said:
            self._by.setdefault((s.level.entity, s.level.signal), []).append(s)

    def reason(self, a: Alert, now: float) -> str:
        """Why the alert raises nothing; empty where it does."""
        for s in self._by.get((a.entity, a.signal), ()):
            if now - s.at < ACCEPT_S and s.level.holds(a):
                return f"{s.by} called {s.incident} a false alarm, and this is no worse"
        return ""

    def rows(self, now: float) -> list[dict[str, Any]]:
        """The levels that are accepted now, for people. Safe beside a running step."""
        return [{"entity": s.level.entity, "signal": s.level.signal, "side": "above" if s.level.up else "below",
                 "bound": s.level.bound, "incident": s.incident, "by": s.by, "until": s.at + ACCEPT_S}
                for s in list(self._said) if now - s.at < ACCEPT_S]

    def forget(self, patterns: tuple[str, ...] = ()) -> int:
        """Forget the levels of what these name (`entity`, or `entity signal`; globs), all where there are none; how many."""
        before = len(self._said)
        self._said = [s for s in self._said if not named(patterns, s.level.entity, s.level.signal)]
        self._index()
        return before - len(self._said)

    def _known(self) -> dict[str, tuple[Level, ...]]:
        return self._about | {name: _levels(i) for name, i in self._open.items()}

    def state(self) -> dict[str, Any]:
        """Plain JSON."""
        about = {name: [asdict(x) for x in levels] for name, levels in self._known().items()}
        return {"about": about, "said": [asdict(s) for s in self._said]}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._about = {k: tuple(Level(**x) for x in v) for k, v in state["about"].items()}
        self._said = [_Said(Level(**s["level"]), s["incident"], s["by"], s["at"]) for s in state["said"]]
        self._index()


def _levels(i: Incident) -> tuple[Level, ...]:
    """What was seen in the incident, where it was a matter of how much."""
    return tuple(x for x in map(Level.of, i.alerts) if math.isfinite(x.bound))
