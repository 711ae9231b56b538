"""Signals that were seen a few times only: how far is this sample from those few?

The baseline has no opinion before 30 samples, and some signals come so seldom (spans of sampled traces) that they never get
there in time. With five and more, the next one is predicted by Student's law around their mean, on a logarithmic scale and
with a spread that is at least what such figures usually have (a normal-gamma prior worth a few samples). Speaks of calls
only: latency, errors, traffic, time spent waiting. How rare the never seen is cannot be known from so few: p is 1e-5 at least.

Fails where the few samples were already broken, and is silent in the first 30 ticks of a run, when everything is young.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiops.arrays import grown
from aiops.rows import columnar
from aiops.types import Anomaly, Floats, Frame, Signal

Places = NDArray[np.int64]
FEWEST, READY = 5, 30
SETTLED_TICKS = 30
SPEAKS_OF = frozenset({"latency", "errors", "traffic", "network", "waiting"})
PRIOR_N, PRIOR_SPREAD = 3.0, 0.25
"""What is believed of the spread before anything was seen, on the log scale, and how many samples that is worth."""
REPORT_P, LEAST_P = 1e-3, 1e-5
CLIP = 4.0
"""In spreads: what a sample may teach at most once there are enough."""


class Young:
    """State: count, mean and sum of squares of each signal, on the log scale."""

    VERSION = 1
    BY_SIGNAL = ("n", "mean", "square")

    def __init__(self) -> None:
        self._ticks = 0
        self.n, self.mean, self.square = (np.zeros(0) for _ in range(3))
        self._about = np.zeros((3, 0))

    def observe(self, frame: Frame) -> Sequence[Anomaly]:
        size = len(frame.signals)
        for name in self.BY_SIGNAL:
            setattr(self, name, grown(getattr(self, name), size, 0.0)[:max(size, len(getattr(self, name)))])
        self._describe(frame)
        self._ticks += 1
        sign, least_abs, _ = self._about[:, :size]
        i = np.flatnonzero(np.isfinite(frame.values) & (sign != 0.0) & (self.n[:size] < READY) & (frame.values >= 0.0))
        if not len(i):
            return []
        y = np.log(frame.values[i] + least_abs[i])
        found = self._judge(frame, i, y) if self._ticks > SETTLED_TICKS else []
        learn = frame.learn[i]
        self._learn(i[learn], y[learn])
        return found

    def _judge(self, frame: Frame, i: Places, y: Floats) -> list[Anomaly]:
        from scipy.special import stdtr

        n, (sign, least_abs, least_rel) = self.n[i], self._about[:, i]
        away = sign * (y - self.mean[i]) / (self._spread(i) * np.sqrt(1.0 + 1.0 / np.maximum(n, 1.0)))
        p = np.maximum(stdtr(np.maximum(n - 1.0, 0.0) + PRIOR_N, -away), LEAST_P)
        expected = np.exp(self.mean[i]) - least_abs
        effect = sign * (frame.values[i] - expected)
        told = (n >= FEWEST) & (p < REPORT_P) & (effect >= least_abs) & (effect >= least_rel * np.abs(expected))
        return [self._anomaly(frame, int(i[k]), float(p[k]), float(expected[k])) for k in np.flatnonzero(told)]

    def _spread(self, i: Places) -> Floats:
        prior = PRIOR_N * PRIOR_SPREAD**2
        return np.sqrt((self.square[i] + prior) / (np.maximum(self.n[i] - 1.0, 0.0) + PRIOR_N))

    def _anomaly(self, frame: Frame, i: int, p: float, expected: float) -> Anomaly:
        s = frame.signals[i]
        return Anomaly(frame.at, s.entity, s.key, 1.0 - p, p, "young", i, float(frame.values[i]), expected, onset=frame.at)

    def _learn(self, i: Places, y: Floats) -> None:
        """Welford's update, from deviations that are cut off once there are enough samples to know the spread."""
        step = y - self.mean[i]
        most = np.where(self.n[i] >= FEWEST, CLIP * self._spread(i), np.inf)
        step = np.clip(step, -most, most)
        self.n[i] += 1.0
        self.mean[i] += step / self.n[i]
        self.square[i] += step * step * (1.0 - 1.0 / self.n[i])

    def _describe(self, frame: Frame) -> None:
        """Direction (0: not spoken of) and least effects of new signals are added."""
        known = self._about.shape[1]
        if len(frame.signals) > known:
            more = columnar(frame.signals[known:]).by_kind(_described).T
            self._about = np.concatenate([self._about, more], axis=1)

    def state(self) -> dict[str, Any]:
        return {"ticks": self._ticks, **{k: getattr(self, k).copy() for k in self.BY_SIGNAL}}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._ticks = int(state["ticks"])
        for k in self.BY_SIGNAL:
            setattr(self, k, np.array(state[k], np.float64))


def _described(kind: Signal) -> tuple[float, float, float]:
    sign = {"up": 1.0, "down": -1.0, "both": 0.0}[kind.direction]
    known = kind.resource in SPEAKS_OF and kind.min_abs > 0.0
    return (sign if known else 0.0), kind.min_abs, kind.min_rel
