"""VUS-PR: the volume under the precision-recall surface.

Source: Paparrizos, Boniol, Palpanas, Tsay, Elmore, Franklin, "Volume Under the Surface: A New Accuracy Evaluation Measure
for Time-Series Anomaly Detection", PVLDB 15(11), 2022. No threshold is chosen. Labels get soft shoulders of growing length,
as an alarm just before or after is nearly as good; each length gives an area under precision over recall, and their mean is
the volume. 1 for the labels themselves, about the share of labelled rows for noise.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from aiops.types import Bools, Floats

THRESHOLDS = 250
HOUR_S = 3600.0
HOURLY_BUFFER = 6


def buffer(interval_s: float) -> tuple[int, int]:
    """The longest buffer in rows, and the step between lengths: an hour, 6 rows of hourly data, every 4th at a minute."""
    longest = max(2, int(HOUR_S // interval_s)) if interval_s < HOUR_S else HOURLY_BUFFER
    return longest, 4 if interval_s <= 60 else 1


def vus_pr(score: Floats, labels: Bools, longest: int, step: int = 1) -> float:
    """0 to 1. score float64[n] without NaN, labels bool[n] with at least one True, buffers of 0, `step`, ... `longest` rows."""
    surface = _Surface(score, labels)
    return float(np.mean([surface.area(length) for length in range(0, longest + 1, step)]))


class _Surface:
    """What all buffer lengths share: the order of the scores and how many rows each threshold selects."""

    def __init__(self, score: Floats, labels: Bools) -> None:
        n = len(score)
        self._labels = labels.astype(np.float64)
        self._order = np.argsort(-score, kind="stable")
        falling = score[self._order]
        levels = falling[np.linspace(0, n - 1, THRESHOLDS).astype(int)]
        self._selected = np.searchsorted(-falling, -levels, side="right")
        self._rank = np.empty(n, np.int64)
        self._rank[self._order] = np.arange(n)
        self._hits = self._cumulated(self._labels)

    def _cumulated(self, weight: Floats) -> Floats:
        """float64[thresholds]: the sum of the weights of the selected rows."""
        return np.asarray(np.append(0.0, np.cumsum(weight[self._order]))[self._selected])

    def area(self, length: int) -> float:
        """Under precision over recall for shoulders of this many rows in all."""
        soft = shoulders(self._labels, length)
        hits = self._cumulated(soft)
        positives = self._labels.sum() + (hits - self._hits) / 2.0
        recall = np.minimum(hits / positives, 1.0) * self._touched(soft)
        precision = hits / self._selected
        return float(np.sum(np.diff(recall, prepend=0.0) * precision))

    def _touched(self, soft: Floats) -> Floats:
        """float64[thresholds]: the share of labelled stretches in which at least one row is selected."""
        first = np.sort([self._rank[a:b].min() for a, b in runs(soft > 0)])
        return np.asarray(np.searchsorted(first, self._selected, side="left") / len(first))


def shoulders(labels: Floats, length: int) -> Floats:
    """Labels with a fading half of `length` rows on both sides of every run, at most 1."""
    soft, n = labels.copy(), len(labels)
    fading = np.sqrt(1.0 - np.arange(1, length // 2 + 1) / length) if length else np.empty(0)
    for first, behind in runs(labels > 0):
        after = min(len(fading), n - behind)
        before = min(len(fading), first)
        soft[behind:behind + after] += fading[:after]
        soft[first - before:first] += fading[:before][::-1]
    return np.minimum(soft, 1.0)


def runs(flags: Bools) -> NDArray[np.int64]:
    """int64[runs, 2]: first row of each run of True, and the row behind it."""
    return np.flatnonzero(np.diff(flags.astype(np.int8), prepend=0, append=0)).reshape(-1, 2)
