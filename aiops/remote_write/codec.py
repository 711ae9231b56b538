"""What a decoder of remote-write does, whichever language it is written in; and everything that both share.

A decoder keeps a table from the raw label bytes of a series, as they come over the wire, to its number. A known series thus
never becomes a Python string. `scan` only looks things up; what it does not know is split into labels, `Decoder.decode` asks
`resolve` for its number, and `intern` remembers the answer. A body that cannot be read changes nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cramjam
import numpy as np

from aiops.types import Floats, Ints

V1, V2 = 1, 2
STALE_BITS = 0x7FF0000000000002
"""The NaN by which Prometheus says that a series ended. https://prometheus.io/docs/specs/prw/remote_write_spec/#stale-markers"""

REFUSALS = ("not_watched", "labels_malformed", "too_many_labels", "label_too_long", "invalid_utf8", "duplicate_label", "no_name",
            "no_room")
"""Why nothing of a series is taken; reason i has the code -1 - i in place of a number."""
REASONS = (*REFUSALS, "time_out_of_range", "not_a_number", "stale_unknown", "histogram", "exemplar")
"""Everything by which samples are counted that are not handed on."""
CODES: Mapping[str, int] = {reason: -1 - i for i, reason in enumerate(REFUSALS)}
NOT_WATCHED, NO_ROOM = CODES["not_watched"], CODES["no_room"]
UNHEARD, FRESH = -32, -64
"""In a scan: of a series that is unknown and has no sample worth asking for; the k-th series to be asked for is FRESH - k."""

MAX_NAME_BYTES, MAX_VALUE_BYTES, MAX_LABEL_BYTES = 512, 4096, 65_536
"""Of one label's name, one label's value, and all labels of a series as they are encoded."""
MAX_ROWS = 1_000_000
"""Series, samples or symbols in one request."""


@dataclass(frozen=True, slots=True)
class Limits:
    """`message`: bytes after decompression; `labels`: of one series; `watched`, `others`: entries of the table."""

    message: int = 64 << 20
    labels: int = 64
    watched: int = 1 << 21
    others: int = 1 << 19


@dataclass(frozen=True, slots=True)
class Window:
    """Timestamps that are believed, in milliseconds since 1970, both ends included."""

    lower_ms: int
    upper_ms: int


Pair = tuple[bytes, bytes]
Resolve = Callable[[dict[str, str], str], int]
"""Labels (with `__name__`) and kind of a new series -> its number, or one of CODES."""
KINDS = {1: "counter", 2: "gauge"}


@dataclass(frozen=True, slots=True)
class Unknown:
    """A series that the table does not know: its labels as they came, or the code of the reason why they are unusable."""

    labels: tuple[Pair, ...]
    code: int = 0
    kind: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Scan:
    """What is in a message. series int32[n] (a number, or FRESH - k for `fresh[k]`), time float64[n] seconds, value float64[n];
    ended int32[m], ended_time float64[m]; skipped: a count for each of REASONS."""

    series: Ints
    time: Floats
    value: Floats
    ended: Ints
    ended_time: Floats
    skipped: list[int]
    fresh: list[Unknown]


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """Samples to be handed on: int32[n] numbers, float64[n] seconds, float64[n] values.

    ended int32[m], ended_time float64[m]: series that ended then. skipped: reason -> samples.
    """

    series: Ints
    time: Floats
    value: Floats
    ended: Ints
    ended_time: Floats
    skipped: Counter[str]


class TooLargeError(Exception):
    """The body says that it is larger than is taken; nothing was decompressed."""


class UnpackableError(Exception):
    """The body is not a block of snappy."""


class Decoder(ABC):
    """One table and the decoding over it. Not thread-safe: one caller at a time."""

    name = ""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits

    def decode(self, body: bytes, version: int, window: Window, resolve: Resolve) -> Decoded:
        """Samples of a request's body, as it was sent.

        Raises TooLargeError, UnpackableError, wire.MalformedError; then nothing was changed.
        """
        scan = self.scan(body, version, window)
        if not scan.fresh:
            return Decoded(scan.series, scan.time, scan.value, scan.ended, scan.ended_time, _counted(scan.skipped))
        numbers = np.array([u.code or _resolved(u, resolve) for u in scan.fresh], np.int32)
        self.intern(numbers)
        return _finished(scan, numbers)

    @abstractmethod
    def scan(self, body: bytes, version: int, window: Window) -> Scan:
        """What is in a body, by what the table knows now. Raises as `decode` does."""

    @abstractmethod
    def intern(self, numbers: Ints) -> None:
        """Remember the numbers (or codes) of the fresh series of the last scan. The oldest give way beyond the limits."""

    @abstractmethod
    def forget(self, numbers: Ints) -> int:
        """Forget all that stands for these numbers, or codes; it is asked for anew when it comes again. How many entries."""

    @abstractmethod
    def __len__(self) -> int:
        """Entries of the table."""


def declared(body: bytes, most: int) -> int:
    """The length that a snappy block says it has when it is unpacked. Raises TooLargeError beyond `most`, UnpackableError.

    https://github.com/google/snappy/blob/main/format_description.txt: a varint of at most 32 bits.
    """
    size = 0
    for i, byte in enumerate(body[:5]):
        size |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            if size > most:
                raise TooLargeError(f"{size} bytes uncompressed; at most {most} are taken")
            return size
    raise UnpackableError("it does not begin with the length of a snappy block")


def unpacked(body: bytes, most: int) -> bytes:
    """The message in a snappy block of at most `most` bytes. Raises TooLargeError before it unpacks anything, UnpackableError."""
    if not declared(body, most):
        return b""
    try:
        return bytes(cramjam.snappy.decompress_raw(body))
    except cramjam.DecompressionError as e:
        raise UnpackableError(str(e)) from None


def fault(pairs: Sequence[Pair | None]) -> int:
    """0 where the labels of a series are usable, else the code of the first reason why not; None: it could not be read."""
    for pair in pairs:
        if pair is None or not pair[0]:
            return CODES["labels_malformed"]
        if len(pair[0]) > MAX_NAME_BYTES or len(pair[1]) > MAX_VALUE_BYTES:
            return CODES["label_too_long"]
        try:
            _ = pair[0].decode(), pair[1].decode()
        except UnicodeDecodeError:
            return CODES["invalid_utf8"]
    values = dict(p for p in pairs if p)
    if len(values) != len(pairs):
        return CODES["duplicate_label"]
    return 0 if values.get(b"__name__") else CODES["no_name"]


def _resolved(unknown: Unknown, resolve: Resolve) -> int:
    """A label without a value is the same as none."""
    labels = {name.decode(): value.decode() for name, value in unknown.labels if value}
    return resolve(labels, KINDS.get(unknown.kind, "unknown"))


def _counted(skipped: list[int]) -> Counter[str]:
    return Counter({reason: n for reason, n in zip(REASONS, skipped, strict=True) if n})


def _finished(scan: Scan, numbers: Ints) -> Decoded:
    """Fresh series get their numbers; what turned out not to be taken is counted."""
    series, ended = (np.where(ids > FRESH, ids, numbers[np.maximum(FRESH - ids, 0)]) for ids in (scan.series, scan.ended))
    taken, over = series >= 0, ended >= 0
    skipped = _counted(scan.skipped)
    for code, n in zip(*np.unique(series[~taken], return_counts=True), strict=True):
        skipped[REASONS[-1 - int(code)]] += int(n)
    return Decoded(series[taken], scan.time[taken], scan.value[taken], ended[over], scan.ended_time[over], skipped)
