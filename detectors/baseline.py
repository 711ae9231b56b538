"""Seasonal robust baseline over all signals at once: several views of each sample, one p-value.

Four cheap predictors compete per signal: a fast level, the level of the last hour, the time of day on past days, and the
hour of the week. Their mixture leaves a residual, and nine views say how odd the sample is: a spike, one that lasts, far
from the level of the last weeks, a shift of the last hour, more variance, a jump, more jumps, a flat line, a stay at the end
of the range. Each view turns into a p-value by the tail of its own past; novelty - nothing like it was ever seen - joins
them. The arithmetic is in `aiops.kernel`, one compiled loop over arrays. Updates are winsorised, and odd samples wait before
the seasons learn them, so that one fault does not become the new normal.

Fails where the first samples are already broken, and on series that change meaning without changing their name. It has
no opinion until a signal was seen 30 times, none about the time of day before that day was seen, and none about the hour of
the week before that hour was seen in the weeks since a season showed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
from numpy.typing import NDArray
from pydantic import field_validator

from aiops import kernel
from aiops.arrays import grown, pack, packed, renumbered, with_spare
from aiops.rows import columnar
from aiops.types import Anomaly, Bools, Floats, Frame, Ints
from aiops.yamlfile import Strict

READY_AFTER = kernel.READY_AFTER
REPORT_P = 1e-3
REPORT = -np.log(REPORT_P)
_BLANK: Mapping[str, Any] = {"core": 0.0, "bins": kernel.prior_bins(), "cuts": kernel.PRIOR_CUT, "leaders": 0.0, "place": -1}
"""What is kept in rows, one a signal, and what a row is before its signal was heard."""
_ROWS = tuple(_BLANK)
SEASON_PAYS = 2.0
"""A season of its own is kept for signals whose hours of the day differ by more than so many scales."""


class Settings(Strict):
    """`timezone`: of the days and weeks that load follows, as `Europe/Berlin`; daylight saving time is heeded."""

    timezone: str = "UTC"

    @field_validator("timezone")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"unknown time zone {name!r}. Use a name like 'Europe/Berlin'") from None
        return name


class Baseline:
    """What it remembers of each signal: 70 floats, 9 histograms of 41 bins, level and scale of 24 hours, 4 x 48 remembered
    values; for seasonal signals also 48 slots of the day and 168 hours of the week. Under 4 kB in all."""

    VERSION = 3
    BY_SIGNAL = (*_ROWS, "hour_level", "hour_scale")

    def __init__(self, settings: Settings | None = None) -> None:
        self._zone = ZoneInfo((settings or Settings()).timezone)
        self._hour = -1
        self._offset_s = 0.0
        self.core = np.zeros((0, kernel.COLUMNS))
        self.bins = np.zeros((0, kernel.TAILS, kernel.BINS), np.float32)
        self.cuts = np.zeros((0, kernel.TAILS, 2), np.float32)
        self.leaders = np.zeros((0, kernel.FEATURES, kernel.LEADERS), np.float32)
        self.place = np.zeros(0, np.int32)
        self.hour_level = np.zeros((kernel.HOURS, 0), np.float32)
        self.hour_scale = np.zeros((kernel.HOURS, 0), np.float32)
        self.day = np.zeros((kernel.SLOTS, 0), np.float32)
        self.week = np.zeros((kernel.WEEK_HOURS, 0), np.float32)
        self.seasons = 0
        self.out = np.zeros((0, 8))
        self._about = np.zeros((3, 0))
        self._size = 0

    # ------------------------------------------------------------------------------------------------------ observe
    def observe(self, frame: Frame) -> Sequence[Anomaly]:
        if not frame.signals:
            return []
        out = self.judge(frame)
        _, min_abs, min_rel = self._described(frame)
        odd = np.flatnonzero(out[:, kernel.ALARM] > REPORT)
        against = self.out[odd, kernel.REFERENCE]
        effect = np.abs(np.clip(frame.values[odd], -kernel.HUGE, kernel.HUGE) - against)
        told = (effect >= min_abs[odd]) & (effect >= min_rel[odd] * np.abs(against)) & (effect > 0)
        return [self._anomaly(frame, int(i)) for i in odd[told]]

    def judge(self, frame: Frame) -> Floats:
        """Score and learn: float64[S, 8], the columns `kernel.ALARM` and following. Valid until the next call."""
        size = len(frame.signals)
        self._resize(size)
        self._each_hour(frame.at, size)
        self._step(frame.at, frame.values, frame.learn, self._described(frame)[0])
        return self.out

    def _step(self, at: float, values: Floats, learn: Bools, signs: Floats) -> None:
        kernel.step(at, at + self._offset_s, values, learn, signs, self.core, self.bins, self.cuts, self.hour_level,
                    self.hour_scale, self.day, self.week, self.place, self.leaders, self.out, np.empty(kernel.SCRATCH))

    def _described(self, frame: Frame) -> tuple[Floats, Floats, Floats]:
        """Direction (-1, 0, 1) and minimum effects of all signals as arrays; those of new signals are added."""
        if len(frame.signals) > self._about.shape[1]:
            sign = {"up": 1.0, "down": -1.0, "both": 0.0}
            new = columnar(frame.signals[self._about.shape[1]:])
            more = new.by_kind(lambda s: (sign[s.direction], s.min_abs, s.min_rel)).T
            self._about = np.concatenate([self._about, more], axis=1)
        signs, min_abs, min_rel = self._about
        return signs, min_abs, min_rel

    def _anomaly(self, frame: Frame, i: int) -> Anomaly:
        signal, row = frame.signals[i], self.out[i]
        p = float(np.exp(-min(row[kernel.ALARM], 690.0)))
        expected, width = float(row[kernel.REFERENCE]), float(row[kernel.WIDTH])
        return Anomaly(
            frame.at, signal.entity, signal.key, 1.0 - p, p, "baseline", i, float(frame.values[i]),
            expected, *signal.band(expected, width), frame.at)

    # ---------------------------------------------------------------------------------------------- what it says of all
    @property
    def band(self) -> tuple[Floats, Floats]:
        """Expected value and half the width of the band, float64[S] each; NaN while a signal is not ready or silent."""
        return self.out[:, kernel.EXPECTED].copy(), self.out[:, kernel.WIDTH].copy()

    @property
    def last_p(self) -> Floats:
        """float64[S]: the p-value of the last sample of each signal, 1 where there was none."""
        return np.exp(-np.minimum(self.out[:, kernel.ALARM], 690.0))

    def ready_count(self) -> int:
        """Signals that were seen often enough to be judged."""
        return int(np.count_nonzero(self.samples_seen() >= READY_AFTER))

    def samples_seen(self) -> Floats:
        """float64[S]: how many samples were learned of each signal."""
        return self.core[:len(self.out), kernel.N].copy()

    @property
    def seen_from(self) -> Floats:
        """float64[S]: when the first sample of each signal came."""
        return self.core[:len(self.out), kernel.FROM].copy()

    @property
    def scale(self) -> Floats:
        """float64[S]: the usual size of the residual, 0 for what never varied."""
        return self.core[:len(self.out), kernel.SCALE].copy()

    def relearn(self, columns: Ints) -> None:
        """What these signals do now is their new normal: levels, remembered values and tails begin anew, the season stays."""
        core = self.core[columns]
        core[:, kernel.SLOW] = core[:, kernel.LEVEL] = core[:, kernel.FAST] = core[:, kernel.X]
        core[:, kernel.N] = np.minimum(core[:, kernel.N], READY_AFTER)
        core[:, [kernel.SHIFT, kernel.VOLATILITY, kernel.JUMPS, kernel.SLOW_SCALE]] = 0.0
        self.core[columns] = core
        self.bins[columns], self.cuts[columns] = kernel.prior_bins(), kernel.PRIOR_CUT

    @staticmethod
    def warm() -> None:
        """Compile or load the loop now: in the middle of a step it would make the step late."""
        warm = Baseline()
        warm._resize(1)
        warm._step(0.0, np.zeros(1), np.ones(1, np.bool_), np.zeros(1))

    # ------------------------------------------------------------------------------------------------------- growth
    def _resize(self, size: int) -> None:
        if size != len(self.out):
            self.out = np.zeros((size, 8))
        self._size = max(self._size, size)
        for k in _ROWS:
            setattr(self, k, _rows(getattr(self, k), size, _BLANK[k]))
        self.hour_level = grown(self.hour_level, size, np.nan)
        self.hour_scale = grown(self.hour_scale, size, np.nan)

    def _each_hour(self, at: float, size: int) -> None:
        """The offset of the time zone, and a season of their own for signals that begin to show one."""
        if int(at // kernel.HOUR_S) == self._hour:
            return
        self._hour = int(at // kernel.HOUR_S)
        self._offset_s = self._utc_offset_s(at)
        old = (self.place[:size] < 0) & (self.core[:size, kernel.N] >= READY_AFTER)
        i = np.flatnonzero(old & (at - self.core[:size, kernel.FROM] >= kernel.DAY_S))
        if i.size:
            level = self.hour_level[:, i]
            with np.errstate(invalid="ignore"):
                spread = np.fmax.reduce(level) - np.fmin.reduce(level)
                self._grant(i[spread > SEASON_PAYS * self.core[i, kernel.SCALE]], at)

    def _utc_offset_s(self, at: float) -> float:
        try:
            offset = datetime.fromtimestamp(at, self._zone).utcoffset()
        except (OverflowError, ValueError, OSError):  # a time that no calendar knows
            return 0.0
        return offset.total_seconds() if offset else 0.0

    def _grant(self, i: Ints, at: float) -> None:
        if not i.size:
            return
        first, self.seasons = self.seasons, self.seasons + len(i)
        self.day, self.week = grown(self.day, self.seasons, np.nan), grown(self.week, self.seasons, np.nan)
        self.place[i] = np.arange(first, self.seasons, dtype=np.int32)
        level = self.hour_level[:, i]
        level = np.where(np.isnan(level), self.core[i, kernel.LEVEL], level)
        self.day[:, first:self.seasons] = np.repeat(level, kernel.SLOTS // kernel.HOURS, axis=0)
        self.core[i, kernel.GRANTED_AT] = at

    def move(self, columns: NDArray[np.int64]) -> None:
        """Only these columns stay, in this order, and the seasons of those: in place."""
        columns = columns[columns < self._size]
        self._size = len(columns)
        for k in _ROWS:
            setattr(self, k, pack(getattr(self, k), columns, _BLANK[k]))
        for k in ("hour_level", "hour_scale"):
            setattr(self, k, pack(getattr(self, k).T, columns, np.nan).T)
        self._move_seasons()
        self.out = np.zeros((0, 8))
        self._about = self._about[:, columns[columns < self._about.shape[1]]]

    def _move_seasons(self) -> None:
        """The seasons of those that are left close their gaps, too."""
        seasonal = np.flatnonzero(self.place >= 0)
        kept = np.zeros(self.seasons, np.bool_)
        kept[self.place[seasonal]] = True
        seasons = packed(kept)
        self.place[seasonal] = renumbered(seasons, self.seasons)[self.place[seasonal]]
        self.seasons = len(seasons)
        for k in ("day", "week"):
            setattr(self, k, pack(getattr(self, k).T, seasons, np.nan).T)

    # -------------------------------------------------------------------------------------------------------- state
    def state(self) -> dict[str, Any]:
        each = {k: _flat(getattr(self, k)[:self._size].copy()).T for k in _ROWS}  # copied and saved as it lies: it is a lot
        hours = {k: getattr(self, k)[:, :self._size].copy() for k in ("hour_level", "hour_scale")}
        seasons = hours | {k: getattr(self, k)[:, :self.seasons].copy() for k in ("day", "week")}
        return {**each, **seasons, "seasons": self.seasons, "hour": self._hour, "offset_s": self._offset_s}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes the arrays of the state over: they are a lot, and are not copied."""
        for k in _ROWS:
            mine, rows = getattr(self, k), np.asarray(state[k])
            rows = np.moveaxis(rows, -1, 0).reshape(rows.shape[-1], *mine.shape[1:])
            setattr(self, k, np.require(rows, mine.dtype, ["C", "W"]))
        self._size = len(self.core)
        for k in ("hour_level", "hour_scale", "day", "week"):
            setattr(self, k, np.require(state[k], np.float32, ["C", "W"]))
        self.seasons, self._hour, self._offset_s = int(state["seasons"]), int(state["hour"]), float(state["offset_s"])


def _flat(array: NDArray[Any]) -> NDArray[Any]:
    """A row of numbers for each signal, as a plain array where it is one number."""
    return array if array.ndim == 1 else array.reshape(len(array), int(np.prod(array.shape[1:])))


def _rows(array: Any, size: int, fill: Any) -> Any:
    """An array with at least `size` rows, and some to spare when it must grow; new rows are filled."""
    if len(array) >= size:
        return array
    more = np.empty((with_spare(size), *array.shape[1:]), array.dtype)
    more[:len(array)] = array
    more[len(array):] = fill
    return more
