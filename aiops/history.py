"""The recent past of every signal: values and the band in which they were expected, for evidence and plots."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from aiops.arrays import grown, pack
from aiops.types import Floats

BUDGET = 6_000_000
MIN_TICKS, MAX_TICKS = 30, 240
LARGEST = float(np.finfo(np.float32).max)


class History:
    """A ring of ticks, three float32[ticks, S]. It grows shallower as signals are added, within a fixed memory budget."""

    def __init__(self) -> None:
        self._times = np.full(MAX_TICKS, np.nan)
        self._rings = [np.full((MAX_TICKS, 0), np.nan, np.float32) for _ in range(3)]
        self._next = 0
        self.depth = MAX_TICKS

    def add(self, at: float, values: Floats, expected: Floats, width: Floats) -> None:
        """Remember one tick; `width` is half the band."""
        size = len(values)
        if size > self._rings[0].shape[1]:
            self._fit(size)
            self._rings = [grown(r, size, np.nan) for r in self._rings]
        row = self._next % self.depth
        self._times[row] = at
        for ring, new in zip(self._rings, (values, expected, width), strict=True):
            ring[row] = np.nan
            ring[row, :len(new)] = np.clip(new, -LARGEST, LARGEST)
        self._next += 1

    def keep(self, columns: NDArray[np.int64]) -> None:
        """Only these columns stay, in this order."""
        columns = columns[columns < self._rings[0].shape[1]]
        self._rings = [pack(ring.T, columns, np.nan).T for ring in self._rings]

    def _fit(self, size: int) -> None:
        depth = int(np.clip(BUDGET // max(size, 1), MIN_TICKS, MAX_TICKS))
        if depth < self.depth:
            rows = self._rows()[-depth:]
            self._times = np.concatenate([self._times[rows], np.full(depth - len(rows), np.nan)])
            self._rings = [np.concatenate([r[rows], np.full((depth - len(rows), r.shape[1]), np.nan, np.float32)])
                           for r in self._rings]
            self.depth, self._next = depth, len(rows)

    def _rows(self) -> list[int]:
        return [i % self.depth for i in range(max(0, self._next - self.depth), self._next)]

    def column(self, signal: int, since: float = -np.inf) -> tuple[Floats, Floats, Floats, Floats]:
        """Times, values, expected and half-widths of one signal, oldest first, ticks without a value left out."""
        rows = np.array(self._rows(), np.int64)
        if signal >= self._rings[0].shape[1] or not len(rows):
            return (np.zeros(0),) * 4
        times = self._times[rows]
        value, expected, width = (r[rows, signal].astype(np.float64) for r in self._rings)
        keep = np.isfinite(value) & (times >= since)
        return times[keep], value[keep], expected[keep], width[keep]
