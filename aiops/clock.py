"""The only place that reads a clock. Everything else is handed `now`."""

from __future__ import annotations

import threading
import time


class WallClock:
    """Real time, at the live edge only."""

    def __init__(self) -> None:
        self._stop = threading.Event()

    def now(self) -> float:
        """Seconds since 1970, UTC. May jump when the host's clock is set."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never goes back. For time-outs and measured durations."""
        return time.monotonic()

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
