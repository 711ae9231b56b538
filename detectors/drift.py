"""A lasting new normal, announced once and then learned on purpose.

Every signal has a level for each quarter of the day (UTC), and what it gains or loses a day: neither a daily wave nor a slow
trend is news. A quarter whose mean is further from its level than usual begins a run; the run ends with the first that is
not, or lies on the other side. A run of a day that has come to rest, that is clear, worth telling, and went where the signal
was not in the last week or two, is the new normal: a note, never an alert, and `settled` names the columns that whoever
judges levels had better learn anew. Where the signal has been before, and in its first week, it takes three days: weekends
and holidays are no new normal. What is not clear or not at rest by then is learned without a word.

What `Frame.learn` masks is watched and not learned: a level that came with an incident is announced when the mask ends, and
not while it holds. Besides, all signals of a kind are watched together (`_crowd.py`, ADWIN of river).

Blind to what comes and goes within a day, and to a change of shape at the same level. Wrong where the weekend begins on a
Friday, or a holiday lasts for three days, and goes where the signal never was: once in a week or two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiops.humanise import count, quantity, utc
from aiops.rows import columnar
from aiops.types import Anomaly, Bools, Floats, Frame, Ints, Signal
from detectors._crowd import Crowd

QUARTERS, QUARTER_S = 4, 6 * 3600.0
DAY, LONG, WEEK = QUARTERS, 3 * QUARTERS, 7 * QUARTERS
JUDGED_AFTER = 2 * DAY
LEVEL_SHARE, TREND_SHARE, SPREAD_SHARE = 0.3, 0.05, 0.08
MOVED, CLEAR, CUT = 2.0, 6.0, 3.0
"""In usual distances of a quarter from its level: what begins a run, what is told, and where learning is cut."""
RESTLESS, NOISE = 0.2, 1.25
"""At rest: as far from the level as the day before, within this share, and usual distances."""
BEYOND = 0.5
"""So much of the way must lie where the signal was not in the last week or two."""
HUGE, MOST, MOST_OFF = 1e30, 250, 6e4
MOST_TOLD, MOST_NAMED = 20, 3
NEW_NORMAL = "new_normal"
_FRESH = {"level": np.nan, "trend": 0.0, "spread": 0.0, "mean": 0.0, "n": 0, "offs": np.nan, "began": 0, "low": np.inf,
          "high": -np.inf, "seen": 0, "run": 0, "up": False, "new": False, "held": False, "kind": -1}


class Drift:
    """State: 64 bytes a signal."""

    VERSION = 2
    BY_SIGNAL = tuple(_FRESH)

    def __init__(self) -> None:
        self.level = np.zeros((QUARTERS, 0), np.float32)
        self.low, self.high = np.zeros((2, 0), np.float32), np.zeros((2, 0), np.float32)
        self.offs = np.zeros((QUARTERS, 0), np.float16)
        self.trend, self.spread, self.mean = (np.zeros(0, np.float32) for _ in range(3))
        self.n, self.began = np.zeros(0, np.uint16), np.zeros(0, np.int32)
        self.seen, self.run = np.zeros(0, np.uint8), np.zeros(0, np.uint8)
        self.up, self.new, self.held = (np.zeros(0, np.bool_) for _ in range(3))
        self.kind = np.zeros(0, np.int8)
        self.settled: Ints = np.zeros(0, np.int32)
        self.crowd = Crowd()
        self._quarter, self._week = -1, -1
        self._least = np.zeros((2, 0))
        self._expected = (np.zeros(0), np.zeros(0))

    @staticmethod
    def warm() -> None:
        """Import river now, which takes seconds, and not in the step that first needs it."""
        import river.drift  # noqa: F401

    def observe(self, frame: Frame) -> Sequence[Anomaly]:
        self._register(frame.signals)
        found: list[Anomaly] = []
        self.settled = np.zeros(0, np.int32)
        quarter = int(frame.at // QUARTER_S)
        if quarter > self._quarter:
            found = self._close(frame) if self._quarter >= 0 else []
            self._quarter = quarter
            self._expected = self._expect()
        values = np.clip(frame.values, -HUGE, HUGE)
        found += self._together(frame, values)
        self._add(values, frame.learn)
        return found

    def _register(self, signals: Sequence[Signal]) -> None:
        if len(self.n) == len(self._least[0]) == len(signals):
            return
        new = columnar(signals[len(self.n):])
        for name, fill in _FRESH.items():
            old = getattr(self, name)
            setattr(self, name, np.concatenate([old, np.full((*old.shape[:-1], len(new)), fill, old.dtype)], axis=-1))
        more = columnar(signals[len(self._least[0]):]).by_kind(lambda s: (s.min_abs, s.min_rel)).reshape(-1, 2).T
        self._least = np.concatenate([self._least, more], axis=1)
        self._expected = self._expect()
        if new:
            entities = new.by_entity(lambda entity: entity.partition("/")[0], np.object_).tolist()
            self.kind[-len(new):] = [self.crowd.place(kind) for kind in entities]

    def _add(self, values: Floats, learn: Bools) -> None:
        i = np.flatnonzero(np.isfinite(values))
        self.n[i] = np.minimum(self.n[i], np.iinfo(np.uint16).max - 1) + 1
        self.mean[i] += ((values[i] - self.mean[i]) / self.n[i]).astype(np.float32)
        self.held |= ~learn

    def _expect(self) -> tuple[Floats, Floats]:
        """float64[S] twice: the level of the quarter that has begun, and how far from it is usual."""
        level = self.level[self._quarter % QUARTERS].astype(np.float64) + self.trend
        return level, self._usual(level)

    def _usual(self, level: Floats) -> Floats:
        """How far a quarter usually is from its level; a constant has a hair of its own."""
        return np.asarray(np.maximum(self.spread, 1e-3 * np.abs(level) + 1e-9), np.float64)

    # -------------------------------------------------------------------------------------------------------- together
    def _together(self, frame: Frame, values: Floats) -> list[Anomaly]:
        level, usual = self._expected
        i = np.flatnonzero(frame.learn & (self.seen >= JUDGED_AFTER) & (self.kind >= 0))
        away = np.clip((values[i] - level[i]) / usual[i], -CUT, CUT)
        return [Anomaly(frame.at, f"{kind}//*", "crowd", 0.0, 1.0, "drift", text=f"{count(many, 'signal')} together moved "
                        f"{'up' if shift > 0 else 'down'} by {abs(shift):.1f} times of what is usual")
                for kind, shift, many in self.crowd.moved(frame.at, away, self.kind[i])]

    # ------------------------------------------------------------------------------------------------- a quarter ends
    def _close(self, frame: Frame) -> list[Anomaly]:
        q = self._quarter % QUARTERS
        x = np.where(self.n > 0, self.mean, np.nan).astype(np.float64)
        level = self.level[q].astype(np.float64) + self.trend
        off = (x - level) / self._usual(level)
        since_yesterday = self._run(q, x, off)
        tell, absorb = self._verdict(off, since_yesterday, frame.learn)
        told = self._announce(frame, np.flatnonzero(tell))
        self._move(tell | absorb, np.where(absorb, since_yesterday, np.nan))
        self._learn(q, x, level, off, ~(tell | absorb))
        self.settled = np.flatnonzero(tell).astype(np.int32)
        self.n[:], self.mean[:], self.held[:] = 0, 0.0, False
        return told

    def _run(self, q: int, x: Floats, off: Floats) -> Floats:
        """Quarters in a row that are away from their level to the same side; silence neither adds nor ends.

        Returns float64[S]: by how much `off` changed since the same quarter of the day before, NaN where that is not known.
        """
        judged = np.isfinite(off) & (self.seen >= JUDGED_AFTER)
        far = judged & (np.abs(off) > MOVED)
        more = far & (self.run > 0) & ((off > 0) == self.up)
        begins, ends = far & ~more, judged & ~far & (self.run > 0)
        self.spread[ends] *= 1.0 + SPREAD_SHARE * (CUT - 1.0) * np.minimum(self.run[ends], LONG)  # as if it had learned them
        self.run[ends], self.run[begins], self.run[more] = 0, 1, np.minimum(self.run[more], MOST) + 1
        self.began[begins], self.up[begins], self.new[begins] = self._quarter, off[begins] > 0, False
        self.offs[:, begins] = np.nan
        change = np.where(more, off - self.offs[q], np.nan)
        self.offs[q, far] = np.clip(off[far], -MOST_OFF, MOST_OFF)
        beyond = np.where(off > 0, x - self.high.max(axis=0), self.low.min(axis=0) - x)
        self.new |= far & (beyond > BEYOND * np.abs(off) * self._usual(self.level[q]))
        return change

    def _verdict(self, off: Floats, change: Floats, learn: Bools) -> tuple[Bools, Bools]:
        """Which runs are told, and which are learned without a word."""
        size, day = np.abs(self._by()), np.abs(self._middle())
        clear = (size >= self._least[0]) & (size >= self._least[1] * day) & (size >= CLEAR * self._usual(day))
        rests = np.abs(change) <= RESTLESS * np.abs(off) + NOISE
        long = self.run >= LONG
        tell = learn & clear & rests & (long | ((self.run > DAY) & self.new & (self.seen >= WEEK)))
        return tell, learn & long & ~tell

    def _middle(self) -> Floats:
        """The level of the day: the mean of its quarters, as far as they are known."""
        return _mean(self.level.astype(np.float64))

    def _by(self) -> Floats:
        """How far the runs went, on the mean of the last day."""
        return _mean(self.offs * self._usual(self.level.astype(np.float64) + self.trend))

    def _move(self, which: Bools, change: Floats) -> None:
        """Levels to where the run is; what has not come to rest has a trend by now."""
        i = np.flatnonzero(which)
        usual = self._usual(self.level.astype(np.float64) + self.trend)[:, i]
        self.level[:, i] += np.nan_to_num(self.offs[:, i] * usual).astype(np.float32)
        rises = np.where(np.abs(change[i]) > NOISE, change[i], 0.0) * usual[self._quarter % QUARTERS]
        self.trend[i] += np.nan_to_num(rises).astype(np.float32)
        self.run[i], self.new[i] = 0, False

    def _learn(self, q: int, x: Floats, level: Floats, off: Floats, may: Bools) -> None:
        free = np.isfinite(x) & ~self.held
        self._turn_week()
        self.low[1, free] = np.minimum(self.low[1, free], x[free])
        self.high[1, free] = np.maximum(self.high[1, free], x[free])
        first = free & np.isnan(level)
        self.level[q, first] = x[first]
        i = np.flatnonzero(free & ~first & may & (self.run == 0))
        young = self.seen[i] < JUDGED_AFTER
        step = np.where(young, off[i], np.clip(off[i], -CUT, CUT)) * self._usual(level)[i]
        self.level[q, i] += self.trend[i] + (LEVEL_SHARE * step).astype(np.float32)
        self.trend[i] += np.where(young, 0.0, TREND_SHARE * step).astype(np.float32)
        share = np.maximum(SPREAD_SHARE, 1.0 / np.maximum(self.seen[i] - DAY + 1.0, 1.0))
        self.spread[i] += (share * (np.abs(step) - self.spread[i])).astype(np.float32)
        self.seen[free] = np.minimum(self.seen[free], MOST) + 1

    def _turn_week(self) -> None:
        """Where each signal was is remembered for this week and the last."""
        week = self._quarter // WEEK
        for array, none in ((self.low, np.inf), (self.high, -np.inf)):
            if week != self._week:
                array[0] = array[1] if week == self._week + 1 else none
                array[1] = none
        self._week = week

    # ----------------------------------------------------------------------------------------------------- in words
    def _announce(self, frame: Frame, columns: Any) -> list[Anomaly]:
        """One note an entity; beyond twenty at once they are counted."""
        mine: dict[str, list[int]] = {}
        for i in columns.tolist():
            mine.setdefault(frame.signals[i].entity, []).append(i)
        texts = [self._words(frame.signals, which) for which in list(mine.values())[:MOST_TOLD]]
        if len(mine) > MOST_TOLD:
            texts[-1] += f"; {count(len(mine) - MOST_TOLD, 'more entity', 'more entities')} with a new normal"
        texts += [""] * (len(mine) - len(texts))
        return [Anomaly(frame.at, entity, NEW_NORMAL, 0.0, 1.0, "drift", text=text)
                for entity, text in zip(mine, texts, strict=True)]

    def _words(self, signals: Sequence[Signal], which: Sequence[int]) -> str:
        """`cpu has a new normal: 40 % -> 62 % since 2026-03-01 12:00 UTC`, for the first three signals of an entity."""
        before, by = self._middle(), self._by()
        said = [f"{signals[i].key} has a new normal: {quantity(float(before[i]), signals[i].unit)} -> "
                f"{quantity(float(before[i] + by[i]), signals[i].unit)} since "
                f"{utc(float(self.began[i]) * QUARTER_S, '%Y-%m-%d %H:%M UTC')}" for i in which[:MOST_NAMED]]
        more = [count(len(which) - MOST_NAMED, "more signal")] if len(which) > MOST_NAMED else []
        return ", ".join([*said, *more])

    def move(self, columns: NDArray[np.int64]) -> None:
        """Only these signals stay, in this order. The crowds go on, with room for others."""
        columns = columns[columns < len(self.n)]
        for k in _FRESH:
            setattr(self, k, getattr(self, k)[..., columns].copy())
        self.crowd.recount(self.kind)
        self._least, self._expected = self._least[:, columns[columns < self._least.shape[1]]], self._expect()

    # -------------------------------------------------------------------------------------------------------- state
    def state(self) -> dict[str, Any]:
        return {"quarter": self._quarter, "week": self._week, "crowd": self.crowd.state(),
                **{k: getattr(self, k).copy() for k in _FRESH}}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._quarter, self._week = int(state["quarter"]), int(state["week"])
        self.crowd.restore(state["crowd"])
        for k in _FRESH:
            setattr(self, k, np.array(state[k], getattr(self, k).dtype))
        self.crowd.recount(self.kind)


def _mean(x: Floats) -> Floats:
    """float64[S]: the mean over what is known of x[n, S], 0 where nothing is."""
    known = np.isfinite(x)
    return np.asarray(np.where(known, x, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1), np.float64)
