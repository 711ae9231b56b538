"""Something runs out: a disk, memory, a KV cache, a quota, spare rows, a certificate. When, and how sure that is.

Watches the signals of which packs know the limit. What is left falls with a drift and a diffusion that are estimated over
twelve windows, from minutes to days; the time to zero follows by first passage (aiops/passage.py), with a 90 % interval.
A trend is believed for as long ahead as it has lasted, so what a window of two hours sees is told when two hours are left,
and never further ahead than the signal's horizon, the time in which somebody can act: nothing is told before what was left
has halved within the window. A start is no trend: a window must have seen more than itself, and what is known for less
than two days must be four fifths full, and end within a quarter of the time for which it is known, or three hours. A window
whose forecasts were wrong twice, because what was left came back by itself, believes only in less than was ever left:
saw-teeth are told at most twice.

What runs out within seven horizons (at most a week) is a note for people, told again when half of the time is left.

A countdown (unit seconds, direction down: the time that a certificate is still valid) passes one second a second and has
no interval. It is told a horizon before its end, or in the last quarter of what was ever left where that is shorter: what
lives for a day is not late in its last week.

It describes and learns no normal: what `Frame.learn` masks is forecast like everything else, or it would be silent while
the disk fills that the incident is about.

Blind to what fills faster than in some 20 minutes (that is the baseline's), to steps, and to what is full and stays so.
Wrong about the first two teeth of a saw that comes within its own height of the limit, and about a burst that ends shortly
before it. An interval that heeds a change of pace may have no end: then only its beginning is told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiops import passage
from aiops.arrays import renumbered
from aiops.humanise import duration
from aiops.rows import columnar
from aiops.types import Anomaly, Bools, Floats, Frame, Signal
from detectors._trends import WINDOW_S, WINDOWS, Trends, arranged

REPORT_P, LEAST_P = 1e-3, 1e-6
"""No single estimate is worth more than one in a million: it takes several samples to raise an alert."""
NOTE_P, NOTE_HORIZONS, NOTE_S, NOTE_WINDOWS = 0.01, 7.0, 7 * 86_400.0, 3.0
NOTE_EVERY = 4
"""Notes are looked for when the fourth window closes a bin: every six minutes."""
YOUNG_S, YOUNG_LEFT = 2 * 86_400.0, 0.2
"""What is known for less than this must have less than this share left to be believed."""
YOUNG_SHARE, YOUNG_AHEAD_S = 1 / 4, 3 * 3600.0
"""And raises an alarm no further ahead than this share of the time for which it is known, nor than this."""
START_S = 86_400.0
"""A window must have seen the signal for twice its length, or its length and this."""
LAST_SHARE = 0.25
NEIGHBOURS, CERTAIN = 1, 2.0
"""The surest window is often too sure: the next ones have a say in the interval where their drift is two standard errors."""
HUGE = 1e30
_FRESH = {"since": np.nan, "last": np.nan, "told": np.inf, "told_at": -np.inf}


class Exhaustion:
    """State: 1.7 kB a signal with a limit, nothing for the others."""

    VERSION = 2
    BY_SIGNAL = ("place",)

    def __init__(self) -> None:
        self._known = 0
        self._was, self._column = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._limit, self._sign, self._horizon = np.zeros(0), np.zeros(0), np.zeros(0)
        self._countdown = np.zeros(0, np.bool_)
        self.trends = Trends()
        self.since, self.told, self.told_at = np.zeros(0), np.zeros(0), np.zeros(0)
        self.last = np.zeros((3, 0))

    @staticmethod
    def warm() -> None:
        """Import scipy's special functions now, and not in the step that first needs them."""
        import scipy.special  # noqa: F401

    def observe(self, frame: Frame) -> Sequence[Anomaly]:
        self._register(frame.signals)
        if not len(self._column):
            return []
        closed = self.trends.close(frame.at, self._horizon)
        room = np.clip(self._sign * (self._limit - frame.values[self._column]), 0.0, HUGE)
        heard = np.isfinite(room)
        self.since[heard & np.isnan(self.since)] = frame.at
        self.last[:, heard] = [self.last[1, heard], self.last[2, heard], room[heard]]
        found, odd = self._alarms(frame, heard)
        if closed >= NOTE_EVERY:
            found += self._notes(frame, heard & ~odd)
        self.trends.add(room)
        return found

    def _register(self, signals: Sequence[Signal]) -> None:
        if self._known == len(signals):
            return
        some = columnar(signals[self._known:])
        new = [some[k] for k in np.flatnonzero(some.by_kind(lambda s: s.limit is not None, np.bool_)).tolist()]
        if new or len(self._was):
            self._arrange([*range(len(self._column)), *(self._was[s.id] if s.id < len(self._was) else -1 for s in new)])
            self._was = np.zeros(0, np.int64)
        self._known = len(signals)
        self._column = np.append(self._column, np.array([s.id for s in new], np.int64))
        self._limit = np.append(self._limit, np.array([s.limit for s in new], np.float64))
        self._sign = np.append(self._sign, [-1.0 if s.direction == "down" else 1.0 for s in new])
        self._horizon = np.append(self._horizon, [s.horizon_s for s in new])
        countdown = [s.direction == "down" and s.unit == "seconds" for s in new]
        self._countdown = np.append(self._countdown, np.array(countdown, np.bool_))

    def _arrange(self, order: Sequence[int]) -> None:
        for name, fill in _FRESH.items():
            setattr(self, name, arranged(getattr(self, name), order, fill))
        self.trends.arrange(order)

    # ------------------------------------------------------------------------------------------------------ forecasts
    def _alarms(self, frame: Frame, heard: Bools) -> tuple[list[Anomaly], Bools]:
        """What runs out within its horizon, and bool[C]: which."""
        ahead = np.minimum(self._horizon, self._trusted(frame.at))
        p, window = self._forecast(frame.at, heard, np.minimum(ahead, WINDOW_S[:, None]))
        p = self._or_counted(p, frame.at, np.minimum(self._horizon, LAST_SHARE * self.trends.most))
        odd = heard & (p < REPORT_P)
        i = np.flatnonzero(odd)
        times = self._times(frame.at, i, window[i]) if len(i) else np.zeros((3, 0))
        return [self._alarm(frame, int(c), max(float(p[c]), LEAST_P), t) for c, t in zip(i, times.T, strict=True)], odd

    def _notes(self, frame: Frame, heard: Bools) -> list[Anomaly]:
        """What runs out later than that, but can be seen coming; told again when half of the time is left."""
        ahead = np.minimum(np.minimum(NOTE_HORIZONS * self._horizon, NOTE_S), NOTE_WINDOWS * WINDOW_S[:, None])
        p, window = self._forecast(frame.at, heard, ahead)
        i = np.flatnonzero(heard & (self._or_counted(p, frame.at, self._horizon) < NOTE_P))
        times = self._times(frame.at, i, window[i]) if len(i) else np.zeros((3, 0))
        told = np.where(frame.at - self.told_at < NOTE_S, self.told, np.inf)
        news = times[1] <= 0.5 * told[i]
        self.told[i[news]], self.told_at[i[news]] = times[1, news], frame.at
        return [self._note(frame, int(c), t) for c, t in zip(i[news], times.T[news], strict=True)]

    def _forecast(self, at: float, heard: Bools, horizon: Floats) -> tuple[Floats, Floats]:
        """float64[C] and int64[C]: the chance that it lasts longer than `horizon` float64[WINDOWS, C], by the window that is
        the surest that it does not, and the shortest window that is sure: it knows best how it is now."""
        trends, p = self.trends, np.ones((WINDOWS, len(self._column)))
        now = np.maximum(_middle(self.last), self.last[2])  # what was freed counts at once, what was lost not quite
        room = np.maximum(trends.left(at), now)
        fit = heard & self._known_enough(at, room) & ~trends.excuses()
        k, c = np.nonzero(fit & (trends.df > 0) & (trends.sustained * horizon > room))
        if len(k):
            p[k, c] = passage.lasts(trends.fall(at, k, c, room[k, c]), horizon[k, c])
        best = p.min(axis=0)
        return best, (p <= np.maximum(best, REPORT_P)).argmax(axis=0)

    def _trusted(self, at: float) -> Floats:
        """float64[C]: how far ahead an alarm may look: until a second day was seen, a trend may be half of a daily wave."""
        age = at - self.since
        return np.where(age >= YOUNG_S, np.inf, np.minimum(YOUNG_SHARE * age, YOUNG_AHEAD_S))

    def _or_counted(self, p: Floats, at: float, ahead: Floats) -> Floats:
        """`p`, but for countdowns, of which it is certain whether they end within `ahead` once they were seen for minutes."""
        ends = (self.last[2] <= ahead) & (at - self.since >= WINDOW_S[0])
        return np.where(self._countdown, np.where(ends, 0.0, 1.0), p)

    def _known_enough(self, at: float, room: Floats) -> Bools:
        """bool[WINDOWS, C]: a start is no trend."""
        age = at - self.since
        seen = age >= (WINDOW_S + np.minimum(WINDOW_S, START_S))[:, None]
        whole = np.where(self._sign > 0, np.abs(self._limit), self.trends.most)
        return np.asarray(seen & ((age >= YOUNG_S) | (room <= YOUNG_LEFT * whole)))

    def _times(self, at: float, c: Any, k: Any) -> Floats:
        """float64[3, n]: seconds by which it has run out with a chance of 5, 50 and 95 %, by windows `k` and their neighbours."""
        near = k + np.arange(-NEIGHBOURS, NEIGHBOURS + 1)[:, None]
        inside, near = (near >= 0) & (near < WINDOWS), np.clip(near, 0, WINDOWS - 1)
        falls = inside & (self.trends.certainty()[near, c] > CERTAIN)
        fall = self.trends.opinions(at, near, c, _middle(self.last[:, c]))
        times = passage.quantiles(replace(fall, room=np.where(falls, fall.room, np.nan)))
        return np.where(self._countdown[c], self.last[2, c], times)

    # ----------------------------------------------------------------------------------------------------- in words
    def _alarm(self, frame: Frame, c: int, p: float, times: Floats) -> Anomaly:
        s, column = frame.signals[self._column[c]], int(self._column[c])
        return Anomaly(frame.at, s.entity, s.key, 1.0 - p, p, "exhaustion", column, float(frame.values[column]),
                       onset=frame.at, text="has run out" if self.last[2, c] <= 0 else _words(times))

    def _note(self, frame: Frame, c: int, times: Floats) -> Anomaly:
        s, column = frame.signals[self._column[c]], int(self._column[c])
        return Anomaly(frame.at, s.entity, s.key, 0.0, 1.0, "exhaustion", column, float(frame.values[column]),
                       text=f"{s.key} {_words(times)}")

    def move(self, columns: NDArray[np.int64]) -> None:
        """Only these signals stay, in this order."""
        if len(self._was):  # nothing was registered since a restore
            self._was = self._was[columns[columns < len(self._was)]]
            return
        columns = columns[columns < self._known]
        column = renumbered(columns, self._known)[self._column]
        left = np.flatnonzero(column >= 0)
        self._arrange(left.tolist())
        self._column, self._known = column[left], len(columns)
        for name in ("_limit", "_sign", "_horizon", "_countdown"):
            setattr(self, name, getattr(self, name)[left])

    def state(self) -> dict[str, Any]:
        """`place` int64[S]: where the other arrays keep each signal, -1 for those without a limit."""
        place = np.full(self._known, -1, np.int64)
        place[self._column] = np.arange(len(self._column))
        return {"place": self._was.copy() if len(self._was) else place, "trends": self.trends.state(),
                **{name: getattr(self, name).copy() for name in _FRESH}}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]
        self._was = np.array(state["place"], np.int64)
        self.trends.restore(state["trends"])
        for name in _FRESH:
            setattr(self, name, np.array(state[name], np.float64))


def _middle(x: Floats) -> Floats:
    """float64[n]: the median of x[3, n], NaN where one of the three is."""
    return np.asarray(np.maximum(np.minimum(x[0], x[1]), np.minimum(np.maximum(x[0], x[1]), x[2])), np.float64)


def _words(times: Floats) -> str:
    """`runs out in 3 h 12 min (90 %: 2 h 6 min to 6 h 48 min)`; what is certain has no interval, what may stop no end."""
    early, middle, late = (duration(float(t)) for t in times)
    if np.isinf(times[2]):
        return f"may run out in {early}" if np.isinf(times[1]) else f"runs out in {middle} (95 %: not before {early})"
    return f"runs out in {middle}" + (f" (90 %: {early} to {late})" if early != late else "")
