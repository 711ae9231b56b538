"""Bodies of remote-write as senders make them, and as they should not: an encoder of its own, so that odd shapes can be had."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence

import cramjam

STALE = 0x7FF0000000000002
Labels = Mapping[str, str] | Sequence[tuple[str, str]]


def varint(n: int) -> bytes:
    n &= (1 << 64) - 1
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes([*out, n])


def block(number: int, content: bytes) -> bytes:
    """A field with content of any length."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def number(field: int, n: int) -> bytes:
    return varint(field << 3) + varint(n)


def double(field: int, value: float | int) -> bytes:
    """An int gives the bits, for NaNs with a payload."""
    return varint(field << 3 | 1) + (struct.pack("<Q", value) if isinstance(value, int) else struct.pack("<d", value))


def sample(value: float | int, seconds: float) -> bytes:
    return double(1, value) + number(2, round(seconds * 1000))


def pairs(labels: Labels) -> list[tuple[str, str]]:
    return sorted(labels.items()) if isinstance(labels, Mapping) else list(labels)


def label(name: str | bytes, value: str | bytes) -> bytes:
    as_bytes = [x if isinstance(x, bytes) else x.encode() for x in (name, value)]
    return block(1, block(1, as_bytes[0]) + block(2, as_bytes[1]))


def series_v1(labels: Labels, *samples: tuple[float | int, float], more: bytes = b"") -> bytes:
    """One TimeSeries of 1.0 as a field of the request."""
    return block(1, b"".join(label(*p) for p in pairs(labels)) + b"".join(block(2, sample(*s)) for s in samples) + more)


def packed(message: bytes) -> bytes:
    """As it is sent."""
    return bytes(cramjam.snappy.compress_raw(message))


def v1(rows: Iterable[tuple[Labels, float | int, float]]) -> bytes:
    """A body of 1.0: rows of labels, value and seconds."""
    return packed(b"".join(series_v1(labels, (value, at)) for labels, value, at in rows))


class Request:
    """A message of 2.0 in the making."""

    def __init__(self) -> None:
        self.symbols: dict[str, int] = {"": 0}
        self.series: list[bytes] = []

    def ref(self, text: str) -> int:
        return self.symbols.setdefault(text, len(self.symbols))

    def add(self, labels: Labels, *samples: tuple[float | int, float], kind: int = 0, more: bytes = b"") -> None:
        """kind: 1 counter, 2 gauge, as in Metadata.MetricType."""
        refs = b"".join(varint(self.ref(text)) for pair in pairs(labels) for text in pair)
        told = block(5, number(1, kind)) if kind else b""
        self.series.append(block(1, refs) + b"".join(block(2, sample(*s)) for s in samples) + told + more)

    def message(self, symbols_first: bool = True) -> bytes:
        parts = [b"".join(block(4, s.encode()) for s in self.symbols), b"".join(block(5, s) for s in self.series)]
        return b"".join(parts if symbols_first else parts[::-1])


def v2(rows: Iterable[tuple[Labels, float | int, float]], kind: int = 0) -> bytes:
    """A body of 2.0."""
    request = Request()
    for labels, value, at in rows:
        request.add(labels, (value, at), kind=kind)
    return packed(request.message())
