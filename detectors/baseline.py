"""Seasonal robust baseline over all signals at once.

Four cheap predictors compete per signal - a fast, a middle and a day-long level, and the day's level shifted by what this
hour of the week usually adds - and are mixed by the inverse cube of their recent error. Residuals in the bad
direction become p-values by the tail of their own past. Updates are winsorised, so that one fault does not become the new normal.

Fails where the first samples are already broken, and on series that change meaning without changing their name. It has
no opinion until a signal was seen 30 times, and none about the hour of the week before that hour was seen once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aiops.calibration import Tail
from aiops.signals import grown
from aiops.types import Anomaly, Bools, Floats, Frame

READY_AFTER = 30
REPORT_P = 1e-3
FAST, MIDDLE, SCALE, SEASON = 0.3, 0.05, 0.02, 0.03
CLIP = 3.0
"""Residuals are cut at this many scales before anything learns from them."""
HUGE = 1e150
"""Larger values count as this: their differences and quotients stay numbers."""
HOUR, WEEK_HOURS = 3600.0, 168
DAY_S = 24 * HOUR
SEASON_FROM_S = 20 * HOUR
_COLUMNS = ("n", "seen_from", "seen_at", "fast", "middle", "day", "scale",
            "error_fast", "error_middle", "error_day", "error_season")


class Baseline:
    """State: 11 floats a signal and the tail's 4, and 168 hours a signal once 20 hours were seen."""

    def __init__(self) -> None:
        for name in _COLUMNS:
            setattr(self, name, np.zeros(0))
        self.n: Floats
        self.seen_from: Floats
        self.seen_at: Floats
        self.fast: Floats
        self.middle: Floats
        self.day: Floats
        self.scale: Floats
        self.error_fast: Floats
        self.error_middle: Floats
        self.error_day: Floats
        self.error_season: Floats
        self.tail = Tail()
        self.band: tuple[Floats, Floats] = (np.zeros(0), np.zeros(0))
        self.last_p = np.zeros(0)
        self.season = np.zeros((0, 0), np.float32)
        self._meta: tuple[int, Floats, Floats, Floats] = (0, np.zeros(0), np.zeros(0), np.zeros(0))

    # ------------------------------------------------------------------------------------------------------ observe
    def observe(self, frame: Frame) -> Sequence[Anomaly]:
        size = len(frame.signals)
        if not size:
            return []
        self._resize(size)
        expected, season = self._predict(frame.at, size)
        values = np.clip(frame.values, -HUGE, HUGE)
        residual = values - expected
        scale = self._safe_scale(size, expected)
        score = self._bad(frame, residual) / scale
        p = self.last_p = np.where(self._ready(size), self.tail.p_value(score), 1.0)
        odd = (p < REPORT_P) & self._ready(size) & self._worth_telling(frame, residual, expected)
        width = self.tail.quantile(REPORT_P, size) * scale
        self.band = (expected, np.where(self._ready(size), width, np.nan))
        found = [self._anomaly(frame, int(i), float(p[i]), expected, width) for i in np.flatnonzero(odd)]
        self._learn(frame, values, expected, season, score, scale)
        return found

    def ready_count(self) -> int:
        """Signals that were seen often enough to be judged."""
        return int(np.count_nonzero(self.n >= READY_AFTER))

    def _ready(self, size: int) -> Bools:
        return np.asarray(self.n[:size] >= READY_AFTER)

    def _bad(self, frame: Frame, residual: Floats) -> Floats:
        """The residual where it points in the bad direction, its size where both are bad, else at most 0."""
        sign = self._signs(frame)
        return np.where(sign == 0, np.abs(residual), sign * residual)

    def _worth_telling(self, frame: Frame, residual: Floats, expected: Floats) -> Bools:
        _, _, min_abs, min_rel = self._described(frame)
        size = np.abs(residual)
        return np.asarray((size >= min_abs) & (size >= min_rel * np.abs(expected)) & (size > 0))

    def _signs(self, frame: Frame) -> Floats:
        return self._described(frame)[1]

    def _described(self, frame: Frame) -> tuple[int, Floats, Floats, Floats]:
        """Direction (-1, 0, 1) and minimum effects of all signals as arrays, rebuilt only when signals were added."""
        if self._meta[0] != len(frame.signals):
            sign = {"up": 1.0, "down": -1.0, "both": 0.0}
            self._meta = (
                len(frame.signals),
                np.array([sign[s.direction] for s in frame.signals]),
                np.array([s.min_abs for s in frame.signals]),
                np.array([s.min_rel for s in frame.signals]))
        return self._meta

    def _anomaly(self, frame: Frame, i: int, p: float, expected: Floats, width: Floats) -> Anomaly:
        signal = frame.signals[i]
        e, w = float(expected[i]), float(width[i])
        return Anomaly(
            frame.at, signal.entity, signal.key, 1.0 - p, p, "baseline", i, float(frame.values[i]),
            e, *signal.band(e, w), frame.at)

    # ------------------------------------------------------------------------------------------------------ predict
    def _predict(self, at: float, size: int) -> tuple[Floats, Floats]:
        """The mixture's prediction, and the season's share alone (NaN where this hour is not known yet)."""
        season = self._season_at(at, size)
        known = np.isfinite(season)
        day = self.day[:size]
        voters = (
            (self.fast[:size], self._weight(self.error_fast[:size])),
            (self.middle[:size], self._weight(self.error_middle[:size])),
            (day, self._weight(self.error_day[:size])),
            (day + np.where(known, season, 0.0), np.where(known, self._weight(self.error_season[:size]), 0.0)),
        )
        total = sum((weight for _, weight in voters), np.zeros(size))
        return sum((weight * value for value, weight in voters), np.zeros(size)) / total, season

    @staticmethod
    def _weight(error: Floats) -> Floats:
        return 1.0 / np.clip(error, 1e-12, 1e90) ** 3

    def _season_at(self, at: float, size: int) -> Floats:
        """What this time of the week adds to the day's level, between the middles of the two nearest hours."""
        if not self.season.size:
            return np.full(size, np.nan)
        place = at / HOUR - 0.5
        share = place - np.floor(place)
        before, after = int(np.floor(place)) % WEEK_HOURS, (int(np.floor(place)) + 1) % WEEK_HOURS
        a, b = self.season[before, :size], self.season[after, :size]
        return np.where(np.isnan(b), a, np.where(np.isnan(a), b, (1 - share) * a + share * b)).astype(np.float64)

    def _safe_scale(self, size: int, expected: Floats) -> Floats:
        """The robust scale, never below a hair of the level: a constant series has no scale of its own."""
        return np.maximum(self.scale[:size], 1e-3 * np.abs(expected) + 1e-9)

    # -------------------------------------------------------------------------------------------------------- learn
    def _learn(self, frame: Frame, x: Floats, expected: Floats, season: Floats, score: Floats, scale: Floats) -> None:
        size = len(frame.signals)
        which = np.isfinite(x) & frame.learn
        new = which & (self.n[:size] == 0)
        self._start(np.flatnonzero(new), x, frame.at)
        i = np.flatnonzero(which & ~new)
        n = self.n[i] + 1
        self.n[i] = n
        residual = x[i] - expected[i]
        young = n < READY_AFTER
        limit = np.where(young, np.inf, CLIP * scale[i])
        step = np.clip(residual, -limit, limit)
        seen = expected[i] + step  # the winsorised observation: all that the predictors get to know
        for name, prediction in (("error_fast", self.fast[i]), ("error_middle", self.middle[i]),
                                 ("error_day", self.day[i]), ("error_season", self.day[i] + season[i])):
            self._blend(getattr(self, name), i, np.abs(seen - prediction), np.maximum(0.05, 1 / n))
        self._blend(self.scale, i, np.abs(step), np.maximum(SCALE, 1 / n))
        self._learn_season(frame.at, i, seen)
        self._blend(self.fast, i, seen, np.maximum(FAST, 1 / n))
        self._blend(self.middle, i, seen, np.maximum(MIDDLE, 1 / n))
        self._blend(self.day, i, seen, np.clip((frame.at - self.seen_at[i]) / DAY_S, 1 / n, 1.0))
        self.seen_at[i] = frame.at
        self.tail.learn(score, which & (self.n[:size] >= READY_AFTER // 2))

    def _start(self, i: Any, x: Floats, at: float) -> None:
        self.n[i], self.seen_from[i], self.seen_at[i] = 1, at, at
        self.fast[i] = self.middle[i] = self.day[i] = x[i]

    @staticmethod
    def _blend(into: Floats, i: Any, value: Floats, share: Floats) -> None:
        known = np.isfinite(value)
        into[i[known]] += share[known] * (value[known] - into[i[known]])

    def _learn_season(self, at: float, i: Any, seen: Floats) -> None:
        old = i[at - self.seen_from[i] >= SEASON_FROM_S]
        if not old.size and not self.season.size:
            return
        if not self.season.size:
            self.season = np.full((WEEK_HOURS, len(self.n)), np.nan, np.float32)
        row = self.season[int(at / HOUR) % WEEK_HOURS]
        offset = (seen - self.day[i]).astype(np.float32)
        known = np.isfinite(row[i])
        row[i] = np.where(known, row[i] + SEASON * (offset - row[i]), offset)

    def _resize(self, size: int) -> None:
        for name in _COLUMNS:
            setattr(self, name, grown(getattr(self, name), size, 0.0))
        self.tail.resize(size)
        if self.season.size:
            self.season = grown(self.season, len(self.n), np.nan)

    # -------------------------------------------------------------------------------------------------------- state
    def state(self) -> dict[str, Any]:
        return {**{k: getattr(self, k).copy() for k in _COLUMNS}, "tail": self.tail.state(), "season": self.season.copy()}

    def restore(self, state: Mapping[str, Any]) -> None:
        for k in _COLUMNS:
            setattr(self, k, np.array(state[k], np.float64))
        self.tail.restore(state["tail"])
        self.season = np.array(state["season"], np.float32)
