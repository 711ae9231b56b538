"""Prometheus pushes: what comes to `/api/v1/write` becomes blocks of samples in the next tick.

Status codes are those of the specification: 204 when all was taken; 400 when something can never be taken, whatever is usable of
it being taken; 413 beyond the limits; 429 with Retry-After when nothing was taken and it should come again. What the door finds
later, such as samples that are late or come twice, is counted there and never makes a sender come again.
https://prometheus.io/docs/specs/prw/remote_write_spec_2_0/
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aiops.gpupods import GpuPods
from aiops.humanise import duration
from aiops.interfaces import Samples
from aiops.meaning import Meanings
from aiops.remote_write.codec import (
    CODES,
    NO_ROOM,
    NOT_WATCHED,
    Decoded,
    Decoder,
    Limits,
    TooLargeError,
    UnpackableError,
    Window,
)
from aiops.remote_write.native import Native, UnavailableError
from aiops.remote_write.reference import Reference
from aiops.remote_write.relabel import Rule, relabelled
from aiops.remote_write.wire import BAD_TAG, OVERFLOW, TOO_MANY, TRUNCATED, WRONG_TYPE, MalformedError
from aiops.types import Ints, Kind

INTERVAL_S = 5.0
RETRY_S = 5
ASK_AGAIN_S = 60.0
"""Series for which there was no room are asked for again after this time, if others were retired: there are many of them."""
MOST_FOUND = 100_000
INVALID = frozenset({"labels_malformed", "too_many_labels", "label_too_long", "invalid_utf8", "duplicate_label", "no_name",
                     "time_out_of_range", "histogram"})
"""Reasons for which the specification wants 400: the sender's operator must learn of it, and coming again does not help."""
HINTS = {"time_out_of_range": " (see maxAge and maxAhead)", "too_many_labels": " (see maxLabels)",
         "histogram": " (native ones are not read)"}
QUIET_S = 120.0
"""Senders push every few seconds; after this time a note says that nobody does any more."""
NOBODYS_FAULT = frozenset({"not_watched", "not_a_number", "stale_unknown", "not_running", "queue_full"})
"""Reasons to take nothing that are no trouble: wanted, sent again, or a quantile of nothing."""
_MALFORMED = {TRUNCATED: "truncated", OVERFLOW: "varint_overflow", WRONG_TYPE: "wrong_type", BAD_TAG: "bad_tag",
              TOO_MANY: "too_many_rows"}
_ODD = re.compile(r"[^a-zA-Z0-9_]")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a sender is told. `text` is for people; `written`: samples that were taken, None before anything was looked at.

    reason: for the counters, of a request of which nothing was taken.
    """

    status: int
    text: str = ""
    written: int | None = None
    retry_s: int | None = None
    reason: str = ""


class RemoteWriteSource:
    """The receiving end. `write` may be called from any thread, one at a time is worked on.

    rules: which series are watched, and under which labels. A timestamp is believed from `max_age_s` before to `max_ahead_s`
    after the last poll. `found`: names of the metrics that are watched. `skipped` counts samples, `refused` requests of which
    nothing was taken, by reason.
    """

    interval_s = INTERVAL_S

    def __init__(self, name: str, meanings: Meanings, *, rules: Sequence[Rule] = (), limits: Limits | None = None,
                 max_body: int = 16 << 20, max_age_s: float = 6 * 3600.0, max_ahead_s: float = 600.0,
                 decoder: Decoder | None = None) -> None:
        self.name, self.max_body = name, max_body
        self.notes: dict[str, str] = {}
        self.counts: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self._meanings, self._rules, self._limits = meanings, tuple(rules), limits or Limits()
        self._max_age_s, self._max_ahead_s = max_age_s, max_ahead_s
        self.found: set[str] = set()
        self._pods = GpuPods()
        self._lock = threading.Lock()
        self._into: Samples | None = None
        self._closed = self._listening = False
        self._now = self._asked_again = self._heard_at = 0.0
        self._room = False
        self._decoder = self._best() if decoder is None else decoder

    # ------------------------------------------------------------------------------------------------------- polled
    def poll(self, now: float, into: Samples) -> None:
        """From now on samples go into `into`. Never raises: it is the senders who fail, and they are told."""
        if not self._listening:
            into.on_retire(self.forget)
            self._listening = True
        with self._lock:
            self._into, self._now = None if self._closed else into, now
            if self._room and now - self._asked_again > ASK_AGAIN_S:
                self._asked_again, self._room = now, False
                self._decoder.forget(np.array([NO_ROOM], np.int32))
            self._tell()
            self._decoder.forget(self._pods.again(now))
            links = self._pods.changed(now)
        if links:
            into.links(f"{self.name}-gpus", links)

    def close(self) -> None:
        """Nothing more is taken, for good: senders keep it for the next daemon."""
        with self._lock:
            self._closed, self._into = True, None

    def forget(self, numbers: Ints) -> int:
        """These series were retired: the next sample of one is asked for anew. How many entries of the table that were."""
        with self._lock:
            self._room = True
            return self._decoder.forget(numbers)

    @property
    def decoder(self) -> str:
        """`native` or `python`."""
        return self._decoder.name

    def known(self) -> int:
        """Series in the table, watched or not."""
        with self._lock:
            return len(self._decoder)

    # ------------------------------------------------------------------------------------------------------ written
    def write(self, body: bytes, version: int) -> Answer:
        """Take the body of one request of version 1 or 2. Never raises for what is in it."""
        with self._lock:
            answer = self._take(body, version)
            self._heard_at = self._now
            self.requests[str(answer.status)] += 1
            if answer.reason:
                self.refused[answer.reason] += 1
        return answer

    @property
    def rejected(self) -> dict[str, int]:
        """What could not be used, by reason: samples, and requests that could not be read."""
        return {reason: n for reason, n in (self.skipped + self.refused).items() if reason not in NOBODYS_FAULT}

    def _take(self, body: bytes, version: int) -> Answer:
        if self._into is None:
            return Answer(503, "aiops is starting or stopping; come again", retry_s=RETRY_S, reason="not_running")
        try:
            found = self._decoded(body, version)
        except TooLargeError as e:
            return Answer(413, f"the body is too large: {e}. Lower max_samples_per_send of the sender, or raise maxMessage.",
                          reason="too_large")
        except UnpackableError as e:
            return Answer(400, f"the body is not a block of snappy: {e}", reason="not_snappy")
        except MalformedError as e:
            return Answer(413 if e.code == TOO_MANY else 400, str(e), reason=_MALFORMED[e.code])
        if len(found.series) and not self._into.block(found.series, found.time, found.value):
            self.counts["refused"] += len(found.series)
            return Answer(429, "too much waits for the next step; come again", 0, RETRY_S, "queue_full")
        return self._taken(found, version)

    def _decoded(self, body: bytes, version: int) -> Decoded:
        window = Window(round((self._now - self._max_age_s) * 1000), round((self._now + self._max_ahead_s) * 1000))
        try:
            return self._decoder.decode(body, version, window, self._number)
        except RuntimeError as e:
            self._decoder = Reference(self._limits)
            self.notes["decoder failed"] = f"{e}. Please report this"
            return self._decoder.decode(body, version, window, self._number)

    def _taken(self, found: Decoded, version: int) -> Answer:
        if len(found.ended) and self._into is not None:
            self._into.ended(found.ended)
        self.counts["samples"] += len(found.series)
        self.counts["ended"] += len(found.ended)
        self.skipped.update(found.skipped)
        invalid = {reason: n for reason, n in found.skipped.items() if reason in INVALID}
        heard = sum(found.skipped[r] for r in ("not_watched", "not_a_number", "stale_unknown"))
        written = len(found.series) + len(found.ended) + heard
        if not invalid:
            return Answer(204, written=written)
        told = ", ".join(f"{reason} {n}{HINTS.get(reason, '')}" for reason, n in sorted(invalid.items()))
        return Answer(400, f"{written} samples were taken, {sum(invalid.values())} can never be: {told}", written)

    def _number(self, labels: dict[str, str], kind: str) -> int:
        """The number of a series that comes for the first time, or why nothing of it is taken."""
        kept = relabelled(labels, self._rules) if self._rules else labels
        metric = (kept or {}).get("__name__", "")
        if kept is None or self._meanings.ignored(metric):
            return NOT_WATCHED
        if not metric:
            return CODES["no_name"]
        named = {_plain(name): value for name, value in kept.items() if name != "__name__"}
        if len(named) + 1 < len(kept):
            return CODES["duplicate_label"]
        entity, own = self._meanings.entity(metric, named)
        told: Kind = "counter" if kind == "counter" else "gauge" if kind == "gauge" else "unknown"
        assert self._into is not None
        number = self._into.series(entity, metric, own, self._meanings.kind(metric, told))
        if number is not None:
            if len(self.found) < MOST_FOUND:
                self.found.add(metric)
            self._pods.see(number, metric, named, entity, self._now)
        return NO_ROOM if number is None else number

    # -------------------------------------------------------------------------------------------------------- about
    def _best(self) -> Decoder:
        try:
            return Native(self._limits)
        except UnavailableError as e:
            self.notes["decoder"] = f"decoded in Python: {e}"
            return Reference(self._limits)

    def _tell(self) -> None:
        if not self.requests:
            self.notes["nothing"] = "nothing was pushed yet. Point remote_write of a Prometheus at /api/v1/write"
            return
        self.notes.pop("nothing", None)
        skipped = ", ".join(f"{reason.replace('_', ' ')} {n:,}" for reason, n in sorted(self.skipped.items()))
        quiet = self._now - self._heard_at
        self.notes |= {"quiet": f"nothing was pushed for {duration(quiet)}. Is the sender there, and what does its log say?"}
        if quiet < QUIET_S:
            del self.notes["quiet"]
        self.notes["sum"] = f"{self.counts['samples']:,} samples taken" + (f"; not: {skipped}" if skipped else "")
        refused = ", ".join(f"{n:,} with {status}" for status, n in sorted(self.requests.items()) if not status.startswith("2"))
        if refused:
            self.notes["refused"] = f"requests answered with an error: {refused}. The sender's log says why"


def _plain(name: str) -> str:
    """A name of Prometheus 3, which may hold anything, in the classic alphabet."""
    plain = _ODD.sub("_", name)
    return f"_{plain}" if plain[:1].isdigit() else plain
