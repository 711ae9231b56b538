"""How high the innocent excursions of each signal usually go, so that a few restless signals do not deafen the rest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from aiops.globs import named

USUAL_NATS, USUAL_COUNT = 4.0, 3.0
"""How high an excursion goes by chance alone, and for how many excursions that counts before any was seen."""
MAX_SIGNALS = 100_000
FADED = 0.02


class Habits:
    """How high the excursions of each signal usually go: of those that reached the ladder at all, a sum that forgets.

    One number a signal that has excursions; a signal without any counts as usual. What was `memory_s` ago counts for 1/e.
    """

    def __init__(self, memory_s: float) -> None:
        self._memory_s = memory_s
        self._of: dict[str, tuple[float, float, float]] = {}

    def scale(self, key: str) -> float:
        """>= 1: how many times higher than by chance alone. Evidence is divided by it."""
        count, total, _ = self._of.get(key, (0.0, 0.0, 0.0))
        return max(1.0, (USUAL_COUNT * USUAL_NATS + total) / ((USUAL_COUNT + count) * USUAL_NATS))

    def add(self, at: float, key: str, nats: float, weight: float = 1.0) -> None:
        """An excursion that went so high ended, or was paged."""
        count, total, then = self._of.pop(key, (0.0, 0.0, at))
        keep = math.exp(-max(at - then, 0.0) / self._memory_s)
        self._of[key] = count * keep + weight, total * keep + weight * nats, at
        if len(self._of) > MAX_SIGNALS:
            del self._of[next(iter(self._of))]

    def forget(self, at: float) -> None:
        """Those that faded leave: the oldest stand first."""
        while self._of:
            key, (count, _, then) = next(iter(self._of.items()))
            if count * math.exp(-max(at - then, 0.0) / self._memory_s) > FADED:
                return
            del self._of[key]

    def rows(self, least: float = 1.005) -> list[dict[str, Any]]:
        """Signals that need at least so many times the usual evidence, the most restless first. Safe beside a running step."""
        found = sorted((-self.scale(key), key, v[2]) for key, v in list(self._of.items()))
        return [{"entity": key.split("|", 1)[0], "signal": key.split("|", 1)[-1], "factor": -less, "at": at}
                for less, key, at in found if -less >= least]

    def unlearn(self, patterns: tuple[str, ...] = ()) -> int:
        """Forget the signals that these name (`entity`, or `entity signal`; globs), all where there are none; how many."""
        gone = [key for key in self._of if named(patterns, *key.split("|", 1))]
        for key in gone:
            del self._of[key]
        return len(gone)

    def state(self) -> dict[str, Any]:
        return {key: list(v) for key, v in self._of.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._of = {key: (float(n), float(total), float(at)) for key, (n, total, at) in state.items()}
