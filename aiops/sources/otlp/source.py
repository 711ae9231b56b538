"""Logs and metrics that are pushed by OTLP over HTTP: POST /v1/logs and /v1/metrics on the daemon's own server.

A request is answered once its content waits for the next tick. Where too much waits the sender is told to come again (429).
Points that add up since the last one (delta temporality) are summed, because everything behind this counts from the start.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from aiops.interfaces import Samples
from aiops.meaning import Meanings
from aiops.sources.otlp import wire
from aiops.sources.otlp.convert import Point, Rejected, lines, points
from aiops.sources.otlp.wire import Refused, Signal
from aiops.types import Ints, LogLine

MAX_LINES = 50_000
"""Log records that are taken between two polls: they wait for the tick with those of all other sources."""
RETRY_S = 5
IDLE = "nothing was received yet. Point OTEL_EXPORTER_OTLP_ENDPOINT of a sender at this address"
Answer = tuple[int, dict[str, str], bytes]
Sums = dict[int, tuple[float, float]]


class OtlpSource:
    """Receives instead of asking. `pushes` maps a path to what answers a POST there; thread-safe, one request at a time.

    `rejected` counts by reason: content_type, content_encoding, no_protobuf, gzip, too_large, too_many_messages, malformed
    (requests); empty (records); no_name, no_value, no_time, future, too_old,
    no_temporality, out_of_order, not_finite, ignored, too_many_series (points); busy (requests that were asked to come again).
    """

    def __init__(self, name: str, interval_s: float, now: Callable[[], float], meanings: Meanings) -> None:
        self.name, self.interval_s = name, interval_s
        self._now, self._known = now, meanings
        self._lock = threading.Lock()
        self._into: Samples | None = None
        self._lines = 0
        self._sums: Sums = {}
        self._listening = False
        self._received = 0
        self.rejected: Counter[str] = Counter()
        self.notes: dict[str, str] = {"idle": IDLE}
        self.pushes: Mapping[str, Callable[[Mapping[str, str], bytes], Answer]] = {
            "/v1/logs": lambda headers, body: self.receive("logs", headers, body),
            "/v1/metrics": lambda headers, body: self.receive("metrics", headers, body)}

    def poll(self, now: float, into: Samples) -> None:
        """From the first poll on there is somebody to hand things to; each makes room for more records."""
        if not self._listening:
            into.on_retire(self._forget)
            self._listening = True
        with self._lock:
            self._into, self._lines = into, 0

    def close(self) -> None:
        """What comes after this is refused, so that nothing is taken that no step will see."""
        with self._lock:
            self._into = None

    def receive(self, signal: Signal, headers: Mapping[str, str], body: bytes) -> Answer:
        """Status, headers and body of the answer to a POST. Header names are in lower case."""
        kind = wire.JSON
        try:
            kind = wire.media(headers.get("content-type", ""))
            with self._lock:  # one at a time: a request can need forty times its size in memory
                rejected = self._take(signal, wire.decoded(signal, kind, wire.unpacked(
                    body, headers.get("content-encoding", ""))))
                self._count(rejected)
            why = ", ".join(f"{reason}: {n}" for reason, n in sorted(rejected.items()))
            return 200, {"content-type": kind}, wire.accepted(signal, kind, rejected.total(), why)
        except Refused as e:
            with self._lock:
                self.rejected[e.reason] += 1
            again = {"retry-after": str(RETRY_S)} if e.status in (429, 503) else {}
            return e.status, {"content-type": kind, **again}, wire.failed(kind, e.status, e.text)

    def _take(self, signal: Signal, request: Any) -> Counter[str]:
        """Take a request as a whole, or raise Refused. Returns how many of its records could not be used, by reason."""
        if self._into is None:
            raise Refused(503, "busy", "aiops is starting or ending. Come again.")
        return (self._take_lines if signal == "logs" else self._take_points)(request, self._into)

    def _count(self, rejected: Counter[str]) -> None:
        self.rejected.update(rejected)
        self._received += 1
        self.notes.pop("idle", None)

    def _take_lines(self, request: Any, into: Samples) -> Counter[str]:
        found = list(lines(request, self._now()))
        taken = [x for x in found if isinstance(x, LogLine)]
        if self._lines and self._lines + len(taken) > MAX_LINES:
            raise Refused(429, "busy", f"{self._lines} log records wait for the next step. Come again.")
        rejected = Counter(x.reason for x in found if isinstance(x, Rejected))
        if len(taken) > MAX_LINES:
            rejected["too_many_lines"] = len(taken) - MAX_LINES
        if not into.line(*taken[:MAX_LINES]):
            raise Refused(429, "busy", "too many log lines wait for the next step. Come again.")
        self._lines += min(len(taken), MAX_LINES)
        return rejected

    def _take_points(self, request: Any, into: Samples) -> Counter[str]:
        rejected: Counter[str] = Counter()
        sums: Sums = {}
        rows: list[tuple[int, float, float]] = []
        for p in points(request, self._known, self._now()):
            if isinstance(p, Rejected):
                rejected[p.reason] += 1
                continue
            number = into.series(p.entity, p.metric, p.labels, p.kind)
            if number is None:
                rejected["too_many_series"] += 1
                continue
            value = self._total(number, p, sums) if p.delta else p.value
            if isinstance(value, Rejected):
                rejected[value.reason] += 1
            else:
                rows.append((number, p.time, value))
        if rows and not into.block(np.array([r[0] for r in rows], np.int32), *np.array(rows, np.float64).T[1:]):
            raise Refused(429, "busy", "too many samples wait for the next step. Come again.")
        self._sums |= sums
        return rejected

    def _total(self, number: int, p: Point, sums: Sums) -> float | Rejected:
        """The sum up to a point of delta temporality; not for one that is no later than the last, which is a repetition."""
        last, total = sums.get(number) or self._sums.get(number) or (-np.inf, 0.0)
        if p.time <= last or not np.isfinite(p.value):
            return Rejected("out_of_order" if p.time <= last else "not_finite")
        sums[number] = (p.time, total + p.value)
        return total + p.value

    def _forget(self, numbers: Ints) -> None:
        """These series were retired: one that comes back starts at 0 again, which is a reset like any other."""
        with self._lock:
            for number in numbers.tolist():
                self._sums.pop(number, None)
