"""The wire format of protobuf, read by hand and checked: https://protobuf.dev/programming-guides/encoding/."""

from __future__ import annotations

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
TRUNCATED, OVERFLOW, WRONG_TYPE, BAD_TAG, TOO_MANY = 1, 2, 3, 4, 5
TEXTS = {
    TRUNCATED: "it ends in the middle of a field",
    OVERFLOW: "a number has more than 64 bits",
    WRONG_TYPE: "a field has another type than the protocol says",
    BAD_TAG: "this is no field of a protobuf message",
    TOO_MANY: "one request holds too many series, samples or symbols; lower max_samples_per_send",
}


class MalformedError(Exception):
    """The message cannot be read. `code` is one of the above, `at` the offset of the field in the uncompressed message."""

    def __init__(self, code: int, at: int) -> None:
        super().__init__(f"malformed at byte {at} of the uncompressed message: {TEXTS[code]}")
        self.code, self.at = code, at


def varint(data: bytes, at: int, end: int, field_at: int) -> tuple[int, int]:
    """The number at `at`, 0..2^64-1, and the offset behind it. Raises MalformedError, which names `field_at`."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise MalformedError(TRUNCATED, field_at)
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64:
                raise MalformedError(OVERFLOW, field_at)
            return value, at
    raise MalformedError(OVERFLOW, field_at)


def field(data: bytes, at: int, end: int) -> tuple[int, int, int, int]:
    """(number, wire type, value, next): `value` is the number itself for VARINT, else the offset where the content begins.

    Raises MalformedError where the field does not lie within `end`, has a group's type, or a number that is none.
    """
    if end - at > 1 and data[at] < 0x80 and data[at] & 7 == BYTES and data[at] > 7:  # as nearly all are
        size, begin = data[at + 1], at + 2
        if size < 0x80 and size <= end - begin:
            return data[at] >> 3, BYTES, begin, begin + size
    tag, p = varint(data, at, end, at)
    number, wire = tag >> 3, tag & 7
    if tag >> 32 or number == 0 or wire in (3, 4, 6, 7):
        raise MalformedError(BAD_TAG, at)
    if wire == VARINT:
        value, after = varint(data, p, end, at)
        return number, wire, value, after
    if wire == BYTES:
        size, p = varint(data, p, end, at)
    else:
        size = 8 if wire == FIXED64 else 4
    if size > end - p:
        raise MalformedError(TRUNCATED, at)
    return number, wire, p, p + size


def expect(wire: int, wanted: int, at: int) -> None:
    """Raises MalformedError where a known field has another wire type."""
    if wire != wanted:
        raise MalformedError(WRONG_TYPE, at)
