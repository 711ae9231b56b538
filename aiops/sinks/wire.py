"""Batches as JSON lines that keep every bit of every float.

msgspec writes the shortest decimal that reads back as the same float64. JSON has no NaN and no infinity: they are
`null`, and what is not the ordinary NaN is listed in `odd_…` with its bits. A time shared by all is written once.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TypeVar

import msgspec
import numpy as np

from aiops.types import Batch, Command, Event, Floats, Links, LogLine, Outcome, RawAlert, Series

T = TypeVar("T", LogLine, Event, RawAlert)
_NAN_BITS = int(np.array([np.nan]).view(np.uint64)[0])


class Header(msgspec.Struct, frozen=True):
    """First line of a segment: `about` is what the run says of itself, `failed` counts batches
    that were lost before it; the rest makes the segment readable alone. `policies`: None while they are those of `about`."""

    aiops_journal: int
    segment: int
    failed: int
    about: dict[str, object]
    series: tuple[Series, ...] = ()
    links: Links | None = None
    policies: dict[str, str] | None = None


class End(msgspec.Struct, frozen=True):
    """Last line of a run that ended in good order."""

    aiops_end: int
    failed: int
    digest: str | None


class Odd(msgspec.Struct, frozen=True, array_like=True):
    """One value that JSON cannot say: its place, and the bits of the float64 as an integer."""

    index: int
    bits: int


class WireBatch(msgspec.Struct, frozen=True, omit_defaults=True):
    """A Batch with lists for arrays. `times` has one item when all are equal."""

    at: float
    series: list[int] = []
    times: list[float | None] = []
    values: list[float | None] = []
    odd_times: list[Odd] = []
    odd_values: list[Odd] = []
    new_series: tuple[Series, ...] = ()
    lines: tuple[LogLine, ...] = ()
    events: tuple[Event, ...] = ()
    alerts: tuple[RawAlert, ...] = ()
    links: Links | None = None
    outcomes: tuple[Outcome, ...] = ()
    commands: tuple[Command, ...] = ()
    retired: list[int] = []
    policies: dict[str, str] | None = None


_decode = msgspec.json.Decoder(WireBatch).decode


def batch_to_wire(b: Batch) -> WireBatch:
    """Arrays to lists. Lines, events and alerts whose time is not a number would not read back and get the batch's."""
    times, values = np.asarray(b.time, np.float64), np.asarray(b.value, np.float64)
    bits = times.view(np.uint64)
    if len(bits) > 1 and (bits == bits[0]).all():
        times = times[:1]
    return WireBatch(
        b.at, b.series.tolist(), times.tolist(), values.tolist(), _odd(times), _odd(values), b.new_series,
        tuple(_timed(x, b.at) for x in b.lines), tuple(_timed(x, b.at) for x in b.events),
        tuple(_timed(x, b.at) for x in b.alerts), b.links, b.outcomes, b.commands, b.retired.tolist(),
        None if b.policies is None else dict(b.policies))


def batch_from_wire(line: bytes) -> Batch:
    """Raises msgspec.DecodeError or ValueError for a line that is no batch."""
    w = _decode(line)
    n = len(w.series)
    times, values = _floats(w.times, w.odd_times), _floats(w.values, w.odd_values)
    if len(times) == 1 and n > 1:
        times = np.repeat(times, n)
    if not len(times) == len(values) == n:
        raise ValueError(f"{n} series, {len(times)} times, {len(values)} values")
    return Batch(w.at, np.array(w.series, np.int32), times, values, w.new_series, w.lines, w.events, w.alerts, w.links,
                 w.outcomes, w.commands, np.array(w.retired, np.int32), w.policies)


def _odd(values: Floats) -> list[Odd]:
    places = np.flatnonzero(~np.isfinite(values))
    bits = values.view(np.uint64)
    return [Odd(int(k), int(bits[k])) for k in places if int(bits[k]) != _NAN_BITS]


def _floats(values: list[float | None], odd: list[Odd]) -> Floats:
    out = np.array(values, np.float64)
    bits = out.view(np.uint64)
    for item in odd:
        bits[item.index] = item.bits
    return out


def _timed(item: T, at: float) -> T:
    return item if math.isfinite(item.time) else replace(item, time=at)
