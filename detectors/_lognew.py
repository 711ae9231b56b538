"""How often one entity logs a kind of line that it never logged before."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

SETTLED = 100
"""Ticks in which it only gets to know the entity: then everything is new."""
FORGET_NEW = 1 / 4000
MAX_SEEN = 400


@dataclass(slots=True)
class Novelty:
    """ticks: so far; rate: share of them with a kind that was new, without the first SETTLED; seen: ids of the kinds, the one
    that came last stands last.

    Of an entity that logs more than MAX_SEEN kinds in turn some always look new; so its rate is high and nothing is said.
    """

    ticks: int = 0
    rate: float = 0.0
    seen: dict[str, None] = field(default_factory=dict)

    def p_value(self) -> float:
        """Of a tick with a new kind: how often that was so, and once more; at least FORGET_NEW."""
        return min(1.0, self.rate + max(FORGET_NEW, 1.0 / max(1, self.ticks - SETTLED + 1)))

    def new(self, ids: Collection[str]) -> list[str]:
        """Those that were never seen, in their order."""
        return [id for id in ids if id not in self.seen]

    def learn(self, ids: Collection[str]) -> None:
        """One tick with these kinds."""
        self.ticks += 1
        if self.ticks > SETTLED:
            self.rate += max(FORGET_NEW, 1.0 / (self.ticks - SETTLED)) * (bool(self.new(ids)) - self.rate)
        for id in ids:
            self.seen.pop(id, None)
            self.seen[id] = None
        while len(self.seen) > MAX_SEEN:
            del self.seen[next(iter(self.seen))]

    def rename(self, gone: str, kept: str) -> None:
        """Two kinds became one."""
        if gone in self.seen:
            del self.seen[gone]
            self.seen[kept] = None

    def row(self) -> list[Any]:
        return [self.ticks, self.rate, list(self.seen)]

    @classmethod
    def of(cls, row: Sequence[Any]) -> Novelty:
        ticks, rate, seen = row
        return cls(int(ticks), float(rate), dict.fromkeys(seen))
