"""How fast many resources run out, over windows from minutes to days at once, and which falls are known to turn.

Each window is twelve bins of means in event time; two bins make one of the next longer window. The bounds are the clock's
and the same for all columns, so closing a bin, the only costly step, is done for all of them at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiops.passage import Fall
from aiops.types import Bools, Floats

BINS, WINDOWS = 12, 12
DAY_S = 86_400.0
WIDTH_S = DAY_S / 2.0 ** np.arange(WINDOWS - 1, -1, -1)
"""42 s, 84 s, … a day."""
WINDOW_S = BINS * WIDTH_S
"""8 min, 17 min, … 12 days."""
LAG = np.where(WINDOW_S < 3 * DAY_S, 1, DAY_S / WIDTH_S).astype(np.int64)
"""Windows of three days and more compare each bin with the same time of the day before."""
SPAN_S = (BINS - LAG) * WIDTH_S
"""What the drift was seen over."""
FEWEST_SHARE, LATELY_SHARE = 0.7, 1 / 3
"""Differences that a window needs, and the newest of them, which must show the fall as well: what has stopped is over."""
SMOOTHED = 1.5
"""Differences of means over bins have two thirds of the variance of a Brownian motion over the same time."""
TURN_KEEP_S = 16 * 86_400.0
"""What turned twice within this time turns by itself: two of the longest usual cycle, the week."""
AHEAD, BENT, UNSURE = 2.0, 2.0, 20.0
"""By how many bends (drift lately less drift) the drift is ahead by the time that counts: 1.5 now, if it changes at a steady
pace. Variance of a bend by diffusion alone, in variance / span. Variance of the drift a second, in squared bends / span: 6.75
for a random walk of the drift (n thirds of a window), times three because a single bend tells it (Student, two degrees)."""
DEEPER = 0.75
EMPTY_SHARE = 0.02
"""Below this share of the most that was ever left, it did run out, and came back because somebody acted."""
_FRESH = {"total": 0.0, "count": 0.0, "bins": np.nan, "drift": np.nan, "lately": np.nan, "variance": np.nan, "df": 0.0,
          "low": np.inf, "believed": False, "turn": np.inf, "turned_at": -np.inf, "excused": False, "most": 0.0}


class Trends:
    """float64[WINDOWS, C] of C columns: `drift` is what is lost a second; `lately` the same over the newest third;
    `variance` a second; `df` its degrees of freedom, 0 where too little is known. bool[WINDOWS, C] `excused`: falls like
    this one came back by themselves, twice.

    Over three days and more, what a daily wave does is neither drift nor diffusion. State: 1.7 kB a column.
    """

    def __init__(self) -> None:
        self.index = np.full(WINDOWS, np.iinfo(np.int64).min)
        self.total, self.count, self.low = (np.zeros((WINDOWS, 0)) for _ in range(3))
        self.drift, self.lately, self.variance, self.df = (np.zeros((WINDOWS, 0)) for _ in range(4))
        self.bins = np.zeros((WINDOWS, BINS, 0), np.float32)
        self.believed, self.excused = np.zeros((WINDOWS, 0), np.bool_), np.zeros((WINDOWS, 0), np.bool_)
        self.turn, self.turned_at = np.zeros((WINDOWS, 2, 0)), np.zeros((WINDOWS, 2, 0))
        self.most = np.zeros(0)

    def arrange(self, order: Sequence[int]) -> None:
        """Column k is from now on what column order[k] was; a new one where that is -1."""
        for name, fill in _FRESH.items():
            setattr(self, name, arranged(getattr(self, name), order, fill))

    def add(self, room: Floats) -> None:
        """Takes in what is left now, float64[C], NaN where nothing was heard."""
        heard = np.isfinite(room)
        self.total[0, heard] += room[heard]
        self.count[0, heard] += 1
        self.most[heard] = np.maximum(self.most[heard], room[heard])

    def close(self, at: float, horizon: Floats) -> int:
        """Closes the bins that ended by `at`; returns of how many windows. `horizon` float64[C]: how far ahead anybody asks."""
        for k, new in enumerate(np.floor(at / WIDTH_S).astype(np.int64)):
            if new <= self.index[k]:
                return k  # the bins of longer windows hold this one
            self._put(k, int(new))
            self._estimate(k)
            self._remember(k, at, np.minimum(horizon, WINDOW_S[k]))
        return WINDOWS

    @property
    def sustained(self) -> Floats:
        """float64[WINDOWS, C]: the drift, and no more than lately."""
        return np.asarray(np.minimum(self.drift, self.lately), np.float64)

    def certainty(self) -> Floats:
        """float64[WINDOWS, C]: the drift in its standard errors, 0 where too little is known."""
        doubt = np.sqrt(self.variance / SPAN_S[:, None])
        return np.where(self.df > 0, self.drift / np.maximum(doubt, 1e-200), 0.0)

    def left(self, at: float) -> Floats:
        """float64[WINDOWS, C]: what is left now by each window: its newest bin, less what was lost since the middle of it."""
        newest = self.bins[np.arange(WINDOWS), (self.index - 1) % BINS]
        return np.asarray(newest - self.sustained * self._elapsed(at)[:, None], np.float64)

    def fall(self, at: float, k: Any, c: Any, room: Floats) -> Fall:
        """What is known of the falls of columns `c` in windows `k`, where the drift stays as it is."""
        noise, steady = np.sqrt(self._blur(at, k, c)), np.zeros(1)
        return Fall(np.maximum(room, 0.0), self.sustained[k, c], self.variance[k, c], SPAN_S[k], self.df[k, c], noise, steady)

    def opinions(self, at: float, k: Any, c: Any, now: Floats) -> Fall:
        """What windows k[m, n] think of columns c[n]: the drift may change as it did within them.

        What is left is as that of them says that knows it best, less sure by as much as it differs from `now` float64[n].
        """
        drift, variance, bend, span = self.drift[k, c], self.variance[k, c], (self.lately - self.drift)[k, c], SPAN_S[k]
        blur = np.where(self.df[k, c] > 0, self._blur(at, k, c) + (bend * self._elapsed(at)[k]) ** 2, np.inf)
        best = blur.argmin(axis=0)
        room, least = (x[best, np.arange(len(best))] for x in (self.left(at)[k, c], blur))
        changes = np.maximum(bend ** 2 - BENT * variance / span, 0.0)
        ahead = drift + AHEAD * bend * changes / np.maximum(bend ** 2, 1e-200)
        noise = np.sqrt(least + (room - now) ** 2)
        return Fall(np.maximum(room, 0.0) + 0.0 * drift, ahead, variance, span, self.df[k, c], noise, UNSURE * changes / span)

    def _blur(self, at: float, k: Any, c: Any) -> Floats:
        """How unsure it is what is left now, squared."""
        return np.asarray(self.variance[k, c] * (self._elapsed(at)[k] + WIDTH_S[k] / 3.0), np.float64)

    def _elapsed(self, at: float) -> Floats:
        """float64[WINDOWS]: seconds since the middle of the newest closed bin."""
        return np.asarray(at - (self.index - 0.5) * WIDTH_S, np.float64)

    def _newest(self, k: int) -> Floats:
        return np.asarray(self.bins[k, (self.index[k] - 1) % BINS], np.float64)

    # --------------------------------------------------------------------------------------------------- a bin closes
    def _put(self, k: int, new: int) -> None:
        """The open bin into the ring, silence into those that were skipped, and its sums on to the next longer window."""
        old = int(self.index[k])
        mean = np.where(self.count[k] > 0, self.total[k] / np.maximum(self.count[k], 1.0), np.nan)
        self.bins[k, np.arange(max(old, new - BINS), new) % BINS] = np.nan
        if new - old <= BINS:
            self.bins[k, old % BINS] = mean
        if k + 1 < WINDOWS:
            self.total[k + 1] += self.total[k]
            self.count[k + 1] += self.count[k]
        self.total[k], self.count[k], self.index[k] = 0.0, 0.0, new

    def _estimate(self, k: int) -> None:
        x = self.bins[k, (self.index[k] + np.arange(BINS)) % BINS].astype(np.float64)
        lag = int(LAG[k])
        loss, step = x[:-lag] - x[lag:], x[:-1] - x[1:]
        mean, n = _mean(loss)
        lately, _ = _mean(loss[-round(LATELY_SHARE * len(loss)):])
        if lag == 1:
            square, _ = _mean((step - mean) ** 2)
            df = n - 1.0
            square *= n / np.maximum(df, 1.0)
        else:  # what the same step of the day before does not explain, of which there are two
            square, df = _mean((step[lag:] - step[:-lag]) ** 2 / 2.0)
        self.drift[k] = mean / (lag * WIDTH_S[k])
        self.lately[k] = lately / (lag * WIDTH_S[k])
        self.variance[k] = SMOOTHED * square / WIDTH_S[k]
        self.df[k] = np.where(n >= FEWEST_SHARE * len(loss), df, 0.0)

    def _remember(self, k: int, at: float, horizon: Floats) -> None:
        """A fall that was to reach zero within the horizon, and came back to twice its lowest, teaches this window."""
        now = self._newest(k)
        back = now >= 2.0 * self.low[k]
        wrong = back & self.believed[k] & (self.low[k] > EMPTY_SHARE * self.most)
        self.turn[k, 0, wrong], self.turn[k, 1, wrong] = self.turn[k, 1, wrong], self.low[k, wrong]
        self.turned_at[k, 0, wrong], self.turned_at[k, 1, wrong] = self.turned_at[k, 1, wrong], at
        self.low[k] = np.where(back, now, np.fmin(self.low[k], now))
        short = np.minimum(self.drift[k], self.lately[k]) * horizon > now
        self.believed[k] = (self.believed[k] & ~back) | ((self.df[k] > 0) & short)
        twice = (at - self.turned_at[k] < TURN_KEEP_S).all(axis=0)
        self.excused[k] = twice & ~(now < DEEPER * self.turn[k].min(axis=0))

    def excuses(self) -> Bools:
        """bool[WINDOWS, C]: a window, or one of its neighbours, which see nearly the same, has learned that such a fall turns."""
        out = self.excused.copy()
        out[:-1] |= self.excused[1:]
        out[1:] |= self.excused[:-1]
        return out

    def state(self) -> dict[str, Any]:
        return {"index": self.index.copy(), **{name: getattr(self, name).copy() for name in _FRESH}}

    def restore(self, state: Mapping[str, Any]) -> None:
        for name in ("index", *_FRESH):
            setattr(self, name, np.array(state[name]))


def arranged(array: NDArray[Any], order: Sequence[int], fill: float | bool) -> NDArray[Any]:
    """Columns (the last axis) in another order; a new one, filled, for each -1."""
    fresh = np.full((*array.shape[:-1], 1), fill, array.dtype)
    return np.concatenate([array, fresh], axis=-1)[..., np.array(order, np.int64)]


def _mean(x: Floats) -> tuple[Floats, Floats]:
    """float64[C]: the mean over what is known of x[n, C], 0 where nothing is, and of how many that is."""
    known = np.isfinite(x)
    n = known.sum(axis=0).astype(np.float64)
    return np.where(known, x, 0.0).sum(axis=0) / np.maximum(n, 1.0), n
