"""The only place that reads a clock. Everything else is handed `now`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class WallClock:
    """Real time, at the live edge only. Never goes back: event time must rise.

    When the host's clock is set back, time goes on from where it was, at its usual pace, until the host has caught up.
    `wall` and `steady` read the two clocks of the system; tests hand in others.
    """

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic) -> None:
        self._wall, self._steady = wall, steady
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._base, self._base_at = wall(), steady()

    def now(self) -> float:
        """Seconds since 1970, UTC."""
        with self._lock:
            wall, steady = self._wall(), self._steady()
            here = max(wall, self._base + steady - self._base_at)
            self._base, self._base_at = here, steady
            return here

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never goes back. For time-outs and measured durations."""
        return self._steady()

    def sleep_until(self, at: float) -> None:
        """Wait until `at`; returns early once `stop()` was called."""
        self._stop.wait(max(0.0, at - self.now()))

    def stop(self) -> None:
        self._stop.set()


class ManualClock:
    """Time that moves only when told to: for tests and paced replays."""

    def __init__(self, now: float = 0.0) -> None:
        self._now = now

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._now

    def sleep_until(self, at: float) -> None:
        self._now = max(self._now, at)

    def stop(self) -> None:
        """Nothing waits, so there is nothing to wake."""
