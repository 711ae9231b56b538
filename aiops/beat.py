"""When an interval is over: as soon as everything that comes in each interval has come, else a moment after it should have.

So no telemetry lies about for most of an interval because the daemon was started at an unlucky moment. Pure; the edge hands in
the time, in seconds of a clock that only rises. Why so: docs/decisions/033-end-of-an-interval.md.
"""

from __future__ import annotations

import numpy as np

from aiops.types import Ints

EARLIEST = 0.8
"""An interval is not over before this share of it: who sends three times in one does not make it three times as short."""
GRACE, MOST_GRACE_S = 0.1, 0.5
"""Who is late is waited for so long: this share of an interval, and never longer than that."""


class Round:
    """Which series are still to come in this interval: those that came in both of the last two. `left`: how many."""

    def __init__(self) -> None:
        self._due, self._last = np.zeros(0, np.bool_), np.zeros(0, np.bool_)
        self.left = self.size = 0

    def hear(self, numbers: Ints) -> None:
        """Samples of these came."""
        known = numbers[numbers < len(self._due)]
        if self._due[known].any():
            self._due[known] = False
            self.left = int(np.count_nonzero(self._due))

    def close(self, numbers: Ints) -> None:
        """The interval is over; these came in it."""
        came = np.zeros(int(numbers.max(initial=-1)) + 1, np.bool_)
        came[numbers] = True
        both = min(len(came), len(self._last))
        self._due, self._last = came[:both] & self._last[:both], came
        self.left = self.size = int(np.count_nonzero(self._due))

    @property
    def complete(self) -> bool:
        """Whether all have come. Never where none was expected."""
        return self.size > 0 and self.left == 0


class Beat:
    """The end of each interval of `tick_s`. It keeps step with what comes in: once an interval ended in vain, the next one is
    expected to end when the last thing came, and one interval later where nothing came. first: when the first one ends."""

    def __init__(self, tick_s: float, first: float) -> None:
        self._tick_s, self._grace_s = tick_s, min(GRACE * tick_s, MOST_GRACE_S)
        self._began = first - tick_s - self._grace_s
        self._heard: float | None = None

    def hear(self, now: float) -> None:
        """Something came."""
        self._heard = now

    def over(self, now: float, complete: bool) -> bool:
        """Whether the interval is over."""
        return self.left_s(now) <= 0.0 or (complete and now >= self._began + EARLIEST * self._tick_s)

    def left_s(self, now: float) -> float:
        """How long it lasts at most."""
        return self._began + self._tick_s + self._grace_s - now

    def close(self, now: float, complete: bool) -> None:
        """It is over; the next one begins, at most one late."""
        due = max(self._began + self._tick_s, now - self._tick_s)
        self._began = now if complete else due if self._heard is None else min(self._heard, due)
        self._heard = None
