"""The score of the Numenta Anomaly Benchmark.

Source: Lavin, Ahmad, "Evaluating Real-time Anomaly Detection Algorithms - the Numenta Anomaly Benchmark", ICMLA 2015.
The first alarm in a window earns up to 1, the more the earlier; a missed window costs, and so does every alarm outside of
windows, less where it comes just after one. 0 is what saying nothing gets, 100 an alarm on the first row of every window.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aiops.types import Floats

OUTSIDE = -1
FAR = 3.0
"""A false alarm further behind a window than three times its length costs in full."""


@dataclass(frozen=True)
class Profile:
    """What a false alarm and a missed window cost; a window that was found earns at most 1."""

    false_alarm: float
    missed: float


PROFILES: Mapping[str, Profile] = {"standard": Profile(0.11, 1.0), "low_fp": Profile(0.22, 1.0), "low_fn": Profile(0.11, 2.0)}


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows after probation, of one file or several: score float64[n], worth of an alarm there float64[n], window int64[n].

    `windows` counts those of the whole files, numbers in `window` are below it, or OUTSIDE.
    """

    score: Floats
    worth: Floats
    window: NDArray[np.int64]
    windows: int


def rows(score: Floats, times: Floats, windows: Sequence[tuple[float, float]], probation: int) -> Rows:
    """One file. Windows do not overlap and rise; score float64[n], one per row of the file."""
    worth, window = layout(times, windows)
    return Rows(np.asarray(score, np.float64)[probation:], worth[probation:], window[probation:], len(windows))


def layout(times: Floats, windows: Sequence[tuple[float, float]]) -> tuple[Floats, NDArray[np.int64]]:
    """What an alarm on each row is worth before the profile's weights (1 to -1), and the number of its window."""
    n = len(times)
    worth, window = np.full(n, -1.0), np.full(n, OUTSIDE, np.int64)
    behind = -1, 1.0
    start = 0
    for number, (first, last) in enumerate(windows):
        left, right = (int(np.searchsorted(times, t)) for t in (first, last))
        right = min(right, n - 1)
        _after(worth, start, left, behind)
        length = right - left + 1.0
        place = np.arange(left, right + 1)
        worth[place] = _sigmoid((place - right - 1) / length) / _sigmoid(np.array(-1.0))
        window[place] = number
        behind, start = (right, length), right + 1
    _after(worth, start, n, behind)
    return worth, window


def _after(worth: Floats, start: int, end: int, behind: tuple[int, float]) -> None:
    """Rows between two windows, by their distance from the end of the first in its lengths; in full before any."""
    right, length = behind
    if right >= 0:
        distance = (np.arange(start, end) - right) / max(length - 1.0, 1.0)
        worth[start:end] = np.where(distance > FAR, -1.0, _sigmoid(np.minimum(distance, FAR)))


def _sigmoid(x: Floats) -> Floats:
    """The paper's scaled sigmoid: 1 far before 0, 0 at 0, -1 far behind."""
    return np.asarray(2.0 / (1.0 + np.exp(5.0 * x)) - 1.0)


# ------------------------------------------------------------------------------------------------------------ scores
def best(files: Sequence[Rows]) -> dict[str, float]:
    """NAB's own rule: for each profile the one threshold for all files that scores best, chosen with the labels."""
    return {name: normal(at(joined := join(files), threshold(joined, p), p), joined.windows, p) for name, p in PROFILES.items()}


def crossfitted(files: Sequence[Rows], folds: int = 5, seed: int = 0) -> dict[str, float]:
    """The threshold comes from four fifths of the files and is used on the other fifth, five times; NaN of a single file."""
    if len(files) < 2:
        return dict.fromkeys(PROFILES, float("nan"))
    fold = np.random.default_rng(seed).permutation(len(files)) % folds
    raw = dict.fromkeys(PROFILES, 0.0)
    for k in range(folds):
        inside, outside = ([f for f, of in zip(files, fold, strict=True) if (of == k) == held] for held in (True, False))
        if inside and outside:
            for name, p in PROFILES.items():
                raw[name] += at(join(inside), threshold(join(outside), p), p)
    return {name: normal(raw[name], sum(f.windows for f in files), p) for name, p in PROFILES.items()}


def as_given(files: Sequence[Rows]) -> dict[str, float]:
    """Scores are alarms, 1 or 0: nothing is chosen at all."""
    joined = join(files)
    return {name: normal(at(joined, 0.5, p), joined.windows, p) for name, p in PROFILES.items()}


def join(files: Sequence[Rows]) -> Rows:
    """One after the other, with windows numbered through."""
    before = np.cumsum([0, *(f.windows for f in files)])
    window = [np.where(f.window == OUTSIDE, OUTSIDE, f.window + n) for f, n in zip(files, before[:-1], strict=True)]
    return Rows(np.concatenate([f.score for f in files]), np.concatenate([f.worth for f in files]), np.concatenate(window),
                int(before[-1]))


def threshold(of: Rows, profile: Profile) -> float:
    """The highest of the best thresholds; infinite where no alarm at all is best."""
    order = np.argsort(-of.score, kind="stable")
    gain = _gains(of.worth[order], of.window[order], profile)
    score, total = of.score[order], np.cumsum(gain)
    possible = np.flatnonzero(np.append(np.diff(score) != 0, True))  # rows of one score alarm together
    if not possible.size or total[possible].max() <= 0:
        return np.inf
    return float(score[possible[np.argmax(total[possible])]])


def _gains(worth: Floats, window: NDArray[np.int64], profile: Profile) -> Floats:
    """What each further alarm adds to what silence scores."""
    gain = np.where(window == OUTSIDE, profile.false_alarm * worth, 0.0)
    for number in range(window.max(initial=OUTSIDE) + 1):
        mine = np.flatnonzero(window == number)
        gain[mine] = np.diff(np.maximum.accumulate(np.append(-profile.missed, worth[mine])))
    return gain


def at(of: Rows, threshold: float, profile: Profile) -> float:
    """The raw score of alarms on all rows that reach the threshold."""
    alarm = of.score >= threshold
    raw = profile.false_alarm * of.worth[alarm & (of.window == OUTSIDE)].sum()
    first = np.full(of.windows, -profile.missed)
    inside = alarm & (of.window != OUTSIDE)
    np.maximum.at(first, of.window[inside], of.worth[inside])
    return float(raw + first[np.unique(of.window[of.window != OUTSIDE])].sum())


def normal(raw: float, windows: int, profile: Profile) -> float:
    """100 for every window found on its first row, 0 for silence; NaN without windows."""
    worst = -profile.missed * windows
    return 100.0 * (raw - worst) / (windows - worst) if windows else float("nan")
