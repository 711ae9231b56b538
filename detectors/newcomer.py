"""Somebody new who uses a lot: a process, pod or service without a past, and therefore without a baseline.

A newcomer is no fault, and raises nothing alone. But when its machine runs short of what it uses, it is the first to be
asked. Watches signals of consumed resources (cpu, memory, disk, network, gpu) for their first 30 samples, from the moment
the run itself is 30 ticks old. Blind to what was there from the start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aiops.arrays import grown
from aiops.humanise import quantity
from aiops.rows import columnar
from aiops.types import CONSUMED, Anomaly, Frame, Signal

YOUNG = 30
SETTLED_TICKS = 30
P, LEAST_P = 1e-4, 1e-8


class Newcomer:
    """State: one count a signal."""

    VERSION = 1
    BY_SIGNAL = ("n",)

    def __init__(self) -> None:
        self._ticks = 0
        self.n = np.zeros(0)

    def observe(self, frame: Frame) -> Sequence[Anomaly]:
        had = len(frame.signals)
        before = len(self.n)
        if had > before:
            self.n = grown(self.n, had, 0.0)[:had].copy()
            if self._ticks < SETTLED_TICKS:
                self.n[before:] = YOUNG  # was there from the start
        heard = np.isfinite(frame.values)
        young = np.flatnonzero(heard & (self.n < YOUNG))
        least = columnar(frame.signals).take(young).by_kind(_much)
        found = [self._anomaly(frame, i) for i in young[frame.values[young] >= least].tolist()]
        self.n[heard] = np.minimum(self.n[heard] + 1, YOUNG)
        self._ticks += 1
        return found

    def _anomaly(self, frame: Frame, i: int) -> Anomaly:
        s, value = frame.signals[i], float(frame.values[i])
        p = max(P * s.min_abs / value, LEAST_P)  # who uses more is asked first
        return Anomaly(frame.at, s.entity, s.key, 1.0 - p, p, "newcomer", i, value, 0.0, onset=frame.at,
                       text=f"new here, and uses {quantity(value, s.unit)} ({s.key})")

    def state(self) -> dict[str, Any]:
        return {"ticks": self._ticks, "n": self.n.copy()}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._ticks, self.n = int(state["ticks"]), np.array(state["n"], np.float64)


def _much(kind: Signal) -> float:
    """The smallest deviation of that resource that is worth telling; infinite for what is not used up."""
    return kind.min_abs if kind.resource in CONSUMED and kind.direction != "down" and kind.min_abs > 0 else np.inf
