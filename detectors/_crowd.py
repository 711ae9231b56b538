"""Whether all signals of a kind of entity moved together: one ADWIN (river) a kind.

Watches how far they are from their levels on average, less what that is at this time of the day on other days. A change
after an update of every node is told of the nodes within minutes, and not a day later of a thousand signals. Source: Bifet,
Gavaldà, "Learning from Time-Changing Data with Adaptive Windowing", SDM 2007.

Deaf to what comes within a week of the last such move, and to a move of a part of the signals.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiops.types import Floats

MAX_KINDS, FEWEST, MOST = 32, 10, 2000
"""Kinds of entity that are watched; signals that make a crowd, and how many of them are asked."""
SLOTS, DAY_S = 96, 86_400.0
WAVE_SHARE = 0.3
SHIFT = 2.0
"""In usual distances of a signal's quarter from its level, on average over all."""
REST_S = 8 * DAY_S
"""What moves again within this time has been told: a weekend that moves nearly everything is told once."""
DELTA = 1e-4


class Crowd:
    """State: the daily wave of each kind; its window begins anew after a restore."""

    def __init__(self) -> None:
        self.kinds: dict[str, int] = {}
        self.wave = np.full((SLOTS, MAX_KINDS), np.nan)
        self.total, self.count = np.zeros(MAX_KINDS), np.zeros(MAX_KINDS)
        self.told = np.full(MAX_KINDS, -np.inf)
        self.members = np.zeros(MAX_KINDS, np.int64)
        self.slot = -1
        self._windows: list[Any] = [None] * MAX_KINDS

    def place(self, kind: str) -> int:
        """The number of the kind of one more signal, -1 where it is not watched."""
        if kind not in self.kinds and len(self.kinds) < MAX_KINDS:
            self.kinds[kind] = len(self.kinds)
        k = self.kinds.get(kind, -1)
        if k < 0 or self.members[k] >= MOST:
            return -1
        self.members[k] += 1
        return k

    def recount(self, kind: NDArray[np.int8]) -> None:
        """These are the signals that are left, as `place` numbered them: who is gone makes room."""
        self.members = np.bincount(kind[kind >= 0], minlength=MAX_KINDS)

    def moved(self, at: float, away: Floats, kind: NDArray[np.int8]) -> Iterator[tuple[str, float, int]]:
        """Kinds that moved just now, by how much, and how many signals they are.

        `away` float64[n]: how far some signals are from their levels, NaN where unknown; `kind` int8[n]: as `place` said.
        """
        self._turn(int(at // (DAY_S / SLOTS)))
        use = np.isfinite(away)
        many = np.bincount(kind[use], minlength=MAX_KINDS)
        mean = np.bincount(kind[use], away[use], minlength=MAX_KINDS) / np.maximum(many, 1)
        crowd = many >= FEWEST
        self.total[crowd] += mean[crowd]
        self.count[crowd] += 1
        odd = mean - self.wave[self.slot % SLOTS]
        for name, k in self.kinds.items():
            now = self._now(k, float(odd[k])) if crowd[k] and np.isfinite(odd[k]) else 0.0
            if abs(now) >= SHIFT:
                before, self.told[k] = self.told[k], at
                if at - before >= REST_S:
                    yield name, now, int(many[k])

    def _turn(self, slot: int) -> None:
        """What was usual in the slot that is over."""
        if slot != self.slot and self.slot >= 0:
            row, known = self.wave[self.slot % SLOTS], self.count > 0
            mean = self.total[known] / self.count[known]
            row[known] = np.where(np.isnan(row[known]), mean, row[known] + WAVE_SHARE * (mean - row[known]))
            self.total[:], self.count[:] = 0.0, 0.0
        self.slot = slot

    def _now(self, k: int, odd: float) -> float:
        """The mean since the last change, which is what an adaptive window holds."""
        if self._windows[k] is None:
            from river.drift import ADWIN

            self._windows[k] = ADWIN(delta=DELTA)
        self._windows[k].update(odd)
        return float(self._windows[k].estimation)

    def state(self) -> dict[str, Any]:
        return {"kinds": dict(self.kinds), "slot": self.slot,
                **{k: getattr(self, k).copy() for k in ("wave", "total", "count", "told", "members")}}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.kinds, self.slot = dict(state["kinds"]), int(state["slot"])
        for k in ("wave", "total", "count", "told"):
            setattr(self, k, np.array(state[k], np.float64))
        self.members = np.array(state["members"], np.int64)
        self._windows = [None] * MAX_KINDS
