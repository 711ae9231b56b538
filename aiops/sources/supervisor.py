"""Keeps one source going: runs its polls, backs off when it fails, and says how it is.

Backoff is exponential with full jitter: the n-th failure in a row waits a random time up to base * 2^n, never more than
five minutes. https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np

from aiops.interfaces import Clock, Samples, Source
from aiops.redaction import Redactor

MAX_BACKOFF_S = 300.0
MIN_BACKOFF_S = 1.0
HANG_S = 300.0
"""A poll that takes longer is shown as failing while it lasts; a source that knows better has its own `hang_s`."""
MAX_ERROR_CHARS = 300
State = Literal["ok", "failing", "starting"]
_REDACTOR = Redactor()


class Supervised:
    """One source under supervision. Not thread-safe: one caller polls it; `status` may be read from any thread.

    `jitter_seed` makes the waits repeatable; by default it follows from the source's name.
    """

    def __init__(self, source: Source, clock: Clock, *, jitter_seed: int | None = None) -> None:
        self.source, self._clock = source, clock
        self._random = np.random.default_rng(zlib.crc32(source.name.encode()) if jitter_seed is None else jitter_seed)
        self._state: State = "starting"
        self._error = ""
        self._failures = 0
        self._failures_in_row = 0
        self._last_success: float | None = None
        self._next_try: float | None = None
        self._busy_since: float | None = None
        self._closed = False
        self.filled = not hasattr(source, "history")

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def interval_s(self) -> float:
        return self.source.interval_s

    def due(self, now: float) -> bool:
        """False while backing off. A `next_try` further away than any backoff means the clock was set back: try."""
        if self._closed:
            return False
        return self._next_try is None or now >= self._next_try or self._next_try - now > MAX_BACKOFF_S

    def poll(self, into: Samples) -> bool:
        """Poll once if it is due; True when it was polled and worked. Never raises."""
        now = self._clock.now()
        return self.due(now) and self._attempt(lambda: self.source.poll(now, into), now)

    def backfill(self, into: Samples) -> bool:
        """All of the source's history at once; True when done, or when it has none. Never raises."""
        if not hasattr(self.source, "backfill"):
            return True
        now = self._clock.now()
        done = self.due(now) and self._attempt(lambda: self.source.backfill(now, into), now)  # type: ignore[attr-defined]
        self.filled = self.filled or done
        return done

    def history(self, into: Samples) -> Iterator[float]:
        """The source's history piece by piece: yields the event time up to which everything was handed in. Never raises.

        So the caller can step through one piece before it asks for the next, and memory stays bounded. Ends early on a
        failure (see `status`); called again once `due`, it goes on where it stopped. `filled` says whether it is complete.
        """
        now = self._clock.now()
        if self.filled or not self.due(now):
            return
        pieces: Iterator[float] = self.source.history(now, into)  # type: ignore[attr-defined]
        piece: list[float] = []
        while self._attempt(lambda: piece.extend(itertools.islice(pieces, 1)), now):
            if not piece:
                self.filled = True
                return
            yield piece.pop()

    def status(self) -> dict[str, Any]:
        """How the source is: name, state, error, last_success, failures, next_try (UTC seconds or None), notes, rejected.

        rejected: what the source could not use, counted by reason, where it has a mapping of that name.
        """
        notes = getattr(self.source, "notes", {})
        hanging = self._hanging()
        return {"name": self.name, "state": "failing" if hanging else self._state, "error": hanging or self._error,
                "last_success": self._last_success,
                "failures": self._failures, "next_try": self._next_try,
                "notes": sorted(notes.values() if isinstance(notes, dict) else notes),
                "rejected": dict(getattr(self.source, "rejected", {}))}

    def _hanging(self) -> str:
        """What to say of a call that does not come back: a driver or a peer that is stuck; empty while all is well."""
        since, most = self._busy_since, getattr(self.source, "hang_s", HANG_S)
        spent = self._clock.now() - since if since is not None else 0.0
        return f"a call has not come back for {spent:.0f} s; other sources go on without it" if spent > most else ""

    def close(self) -> None:
        """Close the source; polls after that do nothing. Never raises."""
        self._closed = True
        try:
            self.source.close()
        except Exception as e:  # noqa: BLE001 - whatever a source does must not stop the daemon from ending
            self._error = brief(e)

    def _attempt(self, work: Callable[[], object], now: float) -> bool:
        self._busy_since = now
        try:
            work()
        except Exception as e:  # noqa: BLE001 - any source may fail in any way; the daemon goes on and shows it
            self._failed(brief(e), float(getattr(e, "after_s", 0.0)))
            return False
        finally:
            self._busy_since = None
        self._state, self._error, self._next_try = "ok", "", None
        self._failures_in_row = 0
        self._last_success = now
        return True

    def _failed(self, error: str, after_s: float) -> None:
        """after_s: what whoever was asked wants to be left alone for (Retry-After)."""
        self._failures += 1
        self._failures_in_row += 1
        self._state, self._error = "failing", error
        self._next_try = self._clock.now() + max(self._wait(), min(after_s, MAX_BACKOFF_S))

    def _wait(self) -> float:
        base = max(MIN_BACKOFF_S, min(self.source.interval_s, MAX_BACKOFF_S))
        most = min(MAX_BACKOFF_S, base * 2.0 ** min(self._failures_in_row, 16))
        return max(MIN_BACKOFF_S, float(self._random.uniform(0.0, most)))


def brief(error: BaseException) -> str:
    """One bounded line about an error, credentials blotted out."""
    text = " ".join(str(error).split()) or type(error).__name__
    if type(error) in (KeyError, IndexError, AttributeError, TypeError):
        text = f"{type(error).__name__}: {text}"
    text = _REDACTOR.text(text)
    return text if len(text) <= MAX_ERROR_CHARS else text[:MAX_ERROR_CHARS - 1] + "…"
