"""Who is odd at the same hour every day: a nightly backup, a checkpoint, a batch. It is a schedule, and no news.

Kept as one bit for each of the last seven days, hour of the day and place: 24 bytes a place. Weekly schedules are not seen.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from aiops.types import Bools
from detectors._kin import Places

HOUR_S, HOURS = 3600.0, 24
DAYS_BEFORE = 2
"""A fault of yesterday is found again today; what was there on two other days of the week is expected."""


class Habit:
    """bits uint8[24, P]: bit k of an hour says whether the place was odd in it, k days before that hour was last entered."""

    def __init__(self) -> None:
        self.bits: NDArray[np.uint8] = np.zeros((HOURS, 0), np.uint8)
        self.hour = 0

    def lay_out(self, before: Places) -> None:
        bits = np.zeros((HOURS, len(before)), np.uint8)
        bits[:, before >= 0] = self.bits[:, before[before >= 0]]
        self.bits = bits

    def enter(self, at: float) -> None:
        """Moves on to the hour of `at`: the bits of each hour entered on the way grow a day older."""
        hour = int(at // HOUR_S)
        if hour > self.hour:
            slot = np.arange(HOURS)
            older = np.minimum((hour - slot) // HOURS - (self.hour - slot) // HOURS, 8)
            for k in np.flatnonzero(older):
                self.bits[k] = (self.bits[k].astype(np.uint16) << older[k]).astype(np.uint8)
            self.hour = hour

    def mark(self, places: Places) -> None:
        """They are odd now."""
        self.bits[self.hour % HOURS, places] |= 1

    def usual(self, places: Places) -> Bools:
        """Were they odd at this time of the day, give or take an hour, on two days before?"""
        before, now, after = (self.bits[(self.hour + k) % HOURS, places] for k in (-1, 0, 1))
        days = before & 0xFE | now & 0xFE | (after & 0x7F) << 1
        return np.asarray(np.bitwise_count(days) >= DAYS_BEFORE)
