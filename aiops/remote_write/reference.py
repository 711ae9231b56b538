"""The decoder in Python: it defines what is decoded, and does the work where there is no compiler.

A series whose label bytes are in the table, followed by exactly one sample in its usual form, is recognised by one look-up of
bytes: what is in the table was read field by field before. Everything else is read field by field.
"""

from __future__ import annotations

import struct
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from aiops.remote_write.codec import (
    CODES,
    FRESH,
    MAX_LABEL_BYTES,
    MAX_ROWS,
    REASONS,
    STALE_BITS,
    UNHEARD,
    V1,
    Decoder,
    Limits,
    Pair,
    Scan,
    Unknown,
    Window,
    fault,
    unpacked,
)
from aiops.remote_write.wire import BYTES, FIXED64, TOO_MANY, VARINT, MalformedError, expect, field, varint
from aiops.types import Ints

_BITS = struct.Struct("<Q")
_USUAL = 18
"""Bytes of one sample with a timestamp between 2004 and 2109: tag, length, tag, 8 of the value, tag, 6 of the timestamp."""
_INDEX = {reason: i for i, reason in enumerate(REASONS)}


class _Series(NamedTuple):
    """One TimeSeries, read: the key of its labels (b"" with `code` where they are unusable), its samples as (ms, bits)."""

    key: bytes
    code: int
    samples: list[tuple[int, int]]
    pairs: list[tuple[int, int]]
    kind: tuple[int, int]


class Reference(Decoder):
    """Keeps the label bytes themselves, so that nothing can collide."""

    name = "python"

    def __init__(self, limits: Limits | None = None) -> None:
        super().__init__(limits or Limits())
        self._watched: dict[bytes, int] = {}
        self._others: dict[bytes, int] = {}
        self._asked: list[bytes] = []

    def __len__(self) -> int:
        return len(self._watched) + len(self._others)

    def scan(self, body: bytes, version: int, window: Window) -> Scan:
        data = unpacked(body, self.limits.message)
        rows = (self._usual_v1 if version == V1 else self._usual_v2)(data, window)
        if rows is None:
            rows = _Rows(data, window)
            (self._scan_v1 if version == V1 else self._scan_v2)(rows)
        self._asked = list(rows.asked)
        return rows.scan()

    def intern(self, numbers: Ints) -> None:
        for key, number in zip(self._asked, numbers.tolist(), strict=True):
            (self._watched if number >= 0 else self._others)[key] = number
            for table, most in ((self._watched, self.limits.watched), (self._others, self.limits.others)):
                if len(table) > most:
                    for old in list(islice(table, max(1, most // 8))):
                        del table[old]
        self._asked = []

    def forget(self, numbers: Ints) -> int:
        before, gone = len(self), set(numbers.tolist())
        self._watched = {key: n for key, n in self._watched.items() if n not in gone}
        self._others = {key: n for key, n in self._others.items() if n not in gone}
        return before - len(self)

    def _number(self, key: bytes) -> int | None:
        number = self._watched.get(key)
        return number if number is not None else self._others.get(key)

    # ----------------------------------------------------------------------------------------------------------- 1.0
    def _scan_v1(self, rows: _Rows) -> None:
        """Every series, field by field."""
        at, end = 0, len(rows.data)
        while at < end:
            at = self._next_v1(rows, at, end)

    def _next_v1(self, rows: _Rows, at: int, end: int) -> int:
        """Takes the field at `at`; the offset behind it."""
        number, wire, begin, after = field(rows.data, at, end)
        if number == 1:
            expect(wire, BYTES, at)
            rows.began(at)
            self._take(rows, _series_v1(rows, begin, after, self.limits.labels), None)
        return after

    def _usual_v1(self, data: bytes, window: Window) -> _Rows | None:
        """The same where known series come with one sample each in its usual form: one look-up a series.

        None where something else was taken for a sample, or cannot be read: then it is to be read field by field.
        """
        rows, at, end = _Rows(data, window), 0, len(data)
        watched, others = self._watched, self._others
        ids, where = rows.ids, rows.where
        while at < end:
            if data[at] == 0x0A and end - at > 3:
                size = data[at + 1]
                begin = at + 2
                if size > 0x7F and data[at + 2] < 0x80:
                    size += (data[at + 2] << 7) - 0x80
                    begin = at + 3
                stop = begin + size
                if size >= _USUAL and stop <= end and data[stop - _USUAL] == 0x12:
                    key = data[begin:stop - _USUAL]
                    number = watched.get(key)
                    if number is None:
                        number = others.get(key)
                    if number is not None:
                        ids.append(number)
                        where.append(stop)
                        at = stop
                        continue
            try:
                at = self._next_v1(rows, at, end)
            except MalformedError:
                return None
        return rows if len(ids) <= MAX_ROWS and rows.usual() else None

    # ----------------------------------------------------------------------------------------------------------- 2.0
    def _scan_v2(self, rows: _Rows) -> None:
        """Every series, field by field."""
        known, series = _outline(rows.data)
        for at, begin, stop in series:
            rows.began(at)
            self._take(rows, _series_v2(rows, known, begin, stop, self.limits.labels), known)

    def _usual_v2(self, data: bytes, window: Window) -> _Rows | None:
        """As `_usual_v1`: packed references, one sample, and perhaps metadata, in this order."""
        rows = _Rows(data, window)
        try:
            known, series = _outline(data)
            for _, begin, stop in series:
                number = behind = None
                if stop - begin > _USUAL + 2 and data[begin] == 0x0A:
                    refs_end = begin + 2 + data[begin + 1]
                    behind = refs_end + _USUAL
                    told = stop - behind - 2
                    metadata = 0 <= told < 0x80 and data[behind:behind + 2] == bytes((0x2A, told))
                    if data[begin + 1] < 0x80 and (told == -2 or metadata):
                        number = self._known_v2(data[begin + 2:refs_end], known)
                if number is None or behind is None:
                    self._take(rows, _series_v2(rows, known, begin, stop, self.limits.labels), known)
                else:
                    rows.ids.append(number)
                    rows.where.append(behind)
        except MalformedError:
            return None
        return rows if len(rows.ids) <= MAX_ROWS and rows.usual() else None

    def _known_v2(self, packed: bytes, symbols: _Symbols) -> int | None:
        """The number of a series by its references, None where they are unknown or more than two bytes long."""
        refs = list(packed)
        if not packed.isascii():
            rest = iter(packed)
            refs = [b if b < 0x80 else b - 0x80 + (next(rest, 0x80) << 7) for b in rest]
        if not refs or max(refs) >= min(len(symbols.coded), 1 << 14):
            return None
        return self._number(b"\0" + b"".join([symbols.coded[ref] for ref in refs]))

    # ---------------------------------------------------------------------------------------------------------- both
    def _take(self, rows: _Rows, series: _Series, symbols: _Symbols | None) -> None:
        """Adds the samples of one series."""
        number: int | None = series.code or self._number(series.key)
        if number is None:
            number = rows.ask(series, symbols) if any(map(rows.usable, series.samples)) else UNHEARD
        rows.add(number, series.samples)


class _Rows:
    """What a scan gathers. A row is at `where`: behind a usual sample in the message, or -1 - its place in `slow`."""

    def __init__(self, data: bytes, window: Window) -> None:
        self.data, self.window = data, window
        self.ids: list[int] = []
        self.where: list[int] = []
        self.slow: list[tuple[int, int]] = []
        self.asked: dict[bytes, int] = {}
        self.fresh: list[Unknown] = []
        self.skipped = [0] * len(REASONS)
        self._series = 0

    def began(self, at: int) -> None:
        """Another series begins. Raises MalformedError where there are too many."""
        self._series += 1
        if self._series > MAX_ROWS:
            raise MalformedError(TOO_MANY, at)

    def room(self, more: int, at: int) -> None:
        """Raises MalformedError where there is no room for one more sample, beside `more` that were not added yet."""
        if len(self.ids) + more >= MAX_ROWS:
            raise MalformedError(TOO_MANY, at)

    def add(self, number: int, samples: list[tuple[int, int]]) -> None:
        for sample in samples:
            self.ids.append(number)
            self.where.append(-1 - len(self.slow))
            self.slow.append(sample)

    def usable(self, sample: tuple[int, int]) -> bool:
        """Whether a sample is worth asking for its series."""
        time, bits = sample
        nan = (bits & 0x7FF0000000000000) == 0x7FF0000000000000 and (bits & 0x000FFFFFFFFFFFFF) != 0
        return self.window.lower_ms <= time <= self.window.upper_ms and not nan

    def ask(self, series: _Series, symbols: _Symbols | None) -> int:
        """The place of an unknown series among those to be asked for."""
        k = self.asked.setdefault(series.key, len(self.asked))
        if k == len(self.fresh):
            labels = [symbols.pair(*p) if symbols else _label(self.data, *p) for p in series.pairs]
            code = fault(labels)
            usable = () if code else tuple(p for p in labels if p)
            self.fresh.append(Unknown(usable, code, _kind(self.data, *series.kind)))
        return FRESH - k

    def usual(self) -> bool:
        """Whether the bytes in front of each `where` are a sample in its usual form, in all of them."""
        raw, where = self._raw()
        if not len(where):
            return True
        head = raw[where[:, None] - np.array([18, 17, 16, 7])]
        tail = raw[where[:, None] - np.arange(6, 0, -1)]
        return bool((head == [0x12, 0x10, 0x09, 0x10]).all() and ((tail >= 0x80) == [1, 1, 1, 1, 1, 0]).all())

    def _raw(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        where = np.array(self.where, np.int64)
        return np.frombuffer(self.data, np.uint8), where[where >= 0]

    def scan(self) -> Scan:
        """Each row goes one way: handed on, the end of a series, or counted by the first reason that holds."""
        ids, times, bits = np.array(self.ids, np.int32), *self._values()
        values = bits.view(np.float64)
        refused = (ids < 0) & (ids > UNHEARD)
        late = ~refused & ((times < self.window.lower_ms) | (times > self.window.upper_ms))
        rest = ~refused & ~late
        stale = rest & (bits == STALE_BITS)
        nan = rest & ~stale & np.isnan(values)
        ended, taken = stale & (ids != UNHEARD), rest & ~stale & ~nan
        for code, n in zip(*np.unique(ids[refused], return_counts=True), strict=True):
            self.skipped[-1 - int(code)] += int(n)
        for reason, which in (("time_out_of_range", late), ("not_a_number", nan), ("stale_unknown", stale & ~ended)):
            self.skipped[_INDEX[reason]] += int(np.count_nonzero(which))
        seconds = times / 1000.0
        return Scan(ids[taken], seconds[taken], values[taken], ids[ended], seconds[ended], self.skipped, self.fresh)

    def _values(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Milliseconds and the bits of the value, of each row."""
        raw, usual = self._raw()
        fast = np.array(self.where, np.int64) >= 0
        times, bits = np.empty(len(fast), np.int64), np.empty(len(fast), np.int64)
        slow = np.array([b for _, b in self.slow], np.uint64).view(np.int64)
        times[~fast], bits[~fast] = np.array([t for t, _ in self.slow], np.int64), slow
        if len(usual):
            seven = (raw[usual[:, None] - np.arange(6, 0, -1)] & 0x7F).astype(np.int64)
            times[fast] = (seven << (7 * np.arange(6))).sum(axis=1)
            bits[fast] = np.ascontiguousarray(raw[usual[:, None] - np.arange(15, 7, -1)]).view("<i8")[:, 0]
        return times, bits


def _outline(data: bytes) -> tuple[_Symbols, list[tuple[int, int, int]]]:
    """Symbols of a message of 2.0, and where its series are: the field, its content, behind it. The symbols may stand last."""
    at, end = 0, len(data)
    symbols: list[tuple[int, int]] = []
    series: list[tuple[int, int, int]] = []
    while at < end:
        number, wire, begin, stop = field(data, at, end)
        if number in (4, 5):
            expect(wire, BYTES, at)
            if (len(symbols) if number == 4 else len(series)) >= MAX_ROWS:
                raise MalformedError(TOO_MANY, at)
            if number == 4:
                symbols.append((begin, stop))
            else:
                series.append((at, begin, stop))
        at = stop
    return _Symbols(data, symbols), series


class _Symbols:
    """The strings of one request of 2.0."""

    def __init__(self, data: bytes, spans: list[tuple[int, int]]) -> None:
        self._data, self.spans = data, spans
        longest = MAX_LABEL_BYTES + 1  # enough to see that it is too long
        self.coded = [(b - a).to_bytes(4, "big") + data[a:min(b, a + longest)] for a, b in spans]

    def pair(self, name: int, value: int) -> Pair:
        return self.coded[name][4:], self.coded[value][4:]


def _sample(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Milliseconds and the bits of the value; what is left out is 0, and of what comes twice the last counts."""
    time = bits = 0
    while at < end:
        number, wire, value, after = field(data, at, end)
        if number == 1:
            expect(wire, FIXED64, at)
            bits = _BITS.unpack_from(data, value)[0]
        elif number == 2:
            expect(wire, VARINT, at)
            time = value - (1 << 64) if value >> 63 else value
        at = after
    return time, bits


def _series_v1(rows: _Rows, at: int, end: int, most: int) -> _Series:
    data = rows.data
    labels: list[tuple[int, int]] = []
    samples: list[tuple[int, int]] = []
    pieces: list[bytes] = []
    count = 0
    while at < end:
        number, wire, begin, after = field(data, at, end)
        if 1 <= number <= 4:
            expect(wire, BYTES, at)
            if number == 1:
                count += 1
                if count <= most:
                    labels.append((begin, after))
                    pieces.append(data[at:after])
            elif number == 2:
                rows.room(len(samples), at)
                samples.append(_sample(data, begin, after))
            else:
                rows.skipped[_INDEX["exemplar" if number == 3 else "histogram"]] += 1
        at = after
    key, code = b"", CODES["too_many_labels"]
    if count <= most:
        key = b"".join(pieces)
        code = CODES["label_too_long"] if len(key) > MAX_LABEL_BYTES else 0
    return _Series(key, code, samples, labels, (0, 0))


def _series_v2(rows: _Rows, symbols: _Symbols, at: int, end: int, most: int) -> _Series:
    data, kind = rows.data, (0, 0)
    samples: list[tuple[int, int]] = []
    refs: list[int] = []
    while at < end:
        number, wire, value, after = field(data, at, end)
        if number == 1:
            _refs(data, wire, value, at, after, refs)
        elif 2 <= number <= 5:
            expect(wire, BYTES, at)
            if number == 2:
                rows.room(len(samples), at)
                samples.append(_sample(data, value, after))
            elif number == 5:
                kind = value, after
            else:
                rows.skipped[_INDEX["histogram" if number == 3 else "exemplar"]] += 1
        at = after
    key, code = _key_v2(refs, symbols, most)
    return _Series(key, code, samples, [] if code else list(zip(refs[::2], refs[1::2], strict=True)), kind)


def _refs(data: bytes, wire: int, value: int, at: int, after: int, refs: list[int]) -> None:
    """Adds the references of the field at `at`: one number, or many in a packed field."""
    if wire == VARINT:
        refs.append(value)
    else:
        expect(wire, BYTES, at)
        while value < after:
            if len(refs) >= MAX_ROWS:
                raise MalformedError(TOO_MANY, value)
            ref, value = varint(data, value, after, value)
            refs.append(ref)


def _key_v2(refs: list[int], symbols: _Symbols, most: int) -> tuple[bytes, int]:
    """Key and code. Begins with a byte with which no key of 1.0 begins."""
    if len(refs) > 2 * most:
        return b"", CODES["too_many_labels"]
    if len(refs) % 2 or (refs and max(refs) >= len(symbols.spans)):
        return b"", CODES["labels_malformed"]
    coded = symbols.coded
    key = b"\0" + b"".join([coded[ref] for ref in refs])
    return key, CODES["label_too_long"] if len(key) - 1 - 4 * len(refs) > MAX_LABEL_BYTES else 0


def _label(data: bytes, at: int, end: int) -> Pair | None:
    """Name and value, None where the message of the label cannot be read."""
    name = value = b""
    try:
        while at < end:
            number, wire, begin, after = field(data, at, end)
            if number in (1, 2):
                expect(wire, BYTES, at)
                if number == 1:
                    name = data[begin:after]
                else:
                    value = data[begin:after]
            at = after
    except MalformedError:
        return None
    return name, value


def _kind(data: bytes, at: int, end: int) -> int:
    """The type in a metric's metadata, 0 where none can be read."""
    kind = 0
    try:
        while at < end:
            number, wire, value, after = field(data, at, end)
            if number == 1 and wire == VARINT:
                kind = value if value < 256 else 0
            at = after
    except MalformedError:
        return 0
    return kind
