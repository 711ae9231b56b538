"""The log of one container while it is followed: how far it was handed on, so that nothing is after a break or twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

MAX_RECENT = 50_000
Key = tuple[str, str, str, str]  # namespace, pod, uid of the pod, container


@dataclass(slots=True)
class Stream:
    """`second`: the last whole second of which a line was handed on; `recent` the lines of it, as hashes."""

    key: Key
    running: bool
    second: str = ""
    recent: Counter[int] = field(default_factory=Counter)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    gone: bool = False

    def tell(self, running: bool) -> None:
        if running != self.running:
            self.running = running
            self.changed.set()


class Again:
    """Which lines of one reading were handed on before: those before the last second, and those of it that are remembered."""

    def __init__(self, s: Stream) -> None:
        self._s, self._from, self._left = s, s.second, Counter(s.recent)

    def known(self, stamp: str, raw: bytes) -> bool:
        """Whether it was handed on; if not, it is from now on."""
        second, mark = stamp[:19], hash(raw)
        if second < self._from:
            return True
        if second == self._from and self._left[mark] > 0:
            self._left[mark] -= 1
            return True
        if second > self._s.second:
            self._s.second, self._s.recent = second, Counter()
        if second == self._s.second and len(self._s.recent) < MAX_RECENT:
            self._s.recent[mark] += 1
        return False
