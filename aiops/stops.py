"""The global stop: who said that nothing is to be decided or done any more, and why. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from aiops.types import Command

VERBS = ("stop", "freeze", "start")


@dataclass(frozen=True, slots=True)
class Stop:
    """`source`: where it was said, empty for people; `freeze`: what was done stays, not even undone."""

    source: str
    by: str
    reason: str
    at: float
    freeze: bool = False

    def __str__(self) -> str:
        """`stopped by anna at 2026-11-21T22:00:00Z: storm in zone a`."""
        when = datetime.fromtimestamp(self.at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        said = f"{'frozen' if self.freeze else 'stopped'} by {self.by or 'a person'} at {when}"
        return f"{said}: {self.reason}" if self.reason else said


class Stops:
    """All stops that stand, by source. Nothing is done while there is one."""

    def __init__(self) -> None:
        self._standing: dict[str, Stop] = {}

    def obey(self, command: Command) -> str:
        """What follows from `stop`, `freeze` and `start` (target = source), in words; empty where it is nothing new."""
        before = self._standing.get(command.target)
        if command.verb == "start":
            self._standing = {k: v for k, v in self._standing.items() if k != command.target}
            by = f" by {command.by or 'a person'}" + (f": {command.reason}" if command.reason else "")
            left = f"; still {self.reason}" if self._standing else ""
            return f"started again{by}{left}." if before else ""
        stop = Stop(command.target, command.by, command.reason, command.time, command.verb == "freeze")
        self._standing = {**self._standing, command.target: stop}
        return "" if before and (before.reason, before.freeze) == (stop.reason, stop.freeze) else f"{stop}."

    @property
    def standing(self) -> tuple[Stop, ...]:
        return tuple(self._standing[k] for k in sorted(self._standing))

    @property
    def reason(self) -> str:
        """Empty while nothing is stopped."""
        return "; ".join(map(str, self.standing))

    @property
    def frozen(self) -> bool:
        return any(s.freeze for s in self.standing)

    def by(self, source: str) -> Stop | None:
        return self._standing.get(source)

    def state(self) -> list[dict[str, Any]]:
        return [asdict(s) for s in self.standing]

    def restore(self, state: list[Mapping[str, Any]]) -> None:
        """Raises KeyError or TypeError where it is not what `state` gave."""
        self._standing = {s["source"]: Stop(**s) for s in state}
