"""Axes: ranges, round numbers and times to label them with."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from aiops.humanise import quantity, utc

_LONG = (86400.0, 3600.0, 60.0)  # units of long durations, which are read in whole steps
_TIME_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800)


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps low..high of the data onto start..end of the drawing."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Position, at most one drawing's length outside of it, to a tenth."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + min(2.0, max(-1.0, share)) * (self.end - self.start), 1)


def time_ticks(low: float, high: float, most: int = 5) -> list[tuple[float, str]]:
    """Round UTC times with their labels: seconds, minutes or days, as fine as the span asks for."""
    step = next((s for s in _TIME_STEPS if (high - low) / s <= most), 604800 * max(1, math.ceil((high - low) / 604800 / most)))
    form = "%H:%M:%S" if step < 60 else "%H:%M" if step < 86400 else "%b %d"
    first = math.ceil(low / step) * step
    return [(first + k * step, utc(first + k * step, form)) for k in range(int((high - first) // step) + 1)]


def value_ticks(low: float, high: float, unit: str, most: int = 4) -> list[tuple[float, str]]:
    """Round values in the unit that is read: MiB for bytes, minutes for long durations, per cent for ratios."""
    base = _base(max(abs(low), abs(high)), unit)
    step = base * _round((high - low) / base / most, (1.0, 2.0, 5.0, 10.0) if base in _LONG else (1.0, 2.0, 2.5, 5.0, 10.0))
    first = math.ceil(low / step - 1e-9)
    ticks = [(k * step, quantity(k * step, unit)) for k in range(first, int(high / step + 1e-9) + 1)]
    return ticks[: 2 * most]


def value_range(values: Iterable[float], bounds: Iterable[float]) -> tuple[float, float]:
    """Low and high of what is drawn. Bounds of the band widen it by at most the span of the values, so that a band which is
    not certain yet does not flatten the line."""
    seen = list(values) or list(bounds) or [0.0]
    low, high = min(seen), max(seen)
    room = (high - low) or abs(high) or 1.0
    inside = [min(max(b, low - room), high + room) for b in bounds]
    low, high = min([low, *inside]), max([high, *inside])
    if low == high:
        low, high = low - (abs(low) or 1.0) * 0.5, high + (abs(high) or 1.0) * 0.5
    pad = (high - low) * 0.06
    return (0.0 if 0 <= low < (high - low) * 0.5 else low - pad), high + pad


def _base(size: float, unit: str) -> float:
    if unit.startswith("bytes"):
        return 1024.0 ** min(5, max(0, math.floor(math.log(size, 1024)))) if size >= 1 else 1.0
    if unit == "seconds" and size >= 120:
        return next((base for base in _LONG if size >= 2 * base), 60.0)
    return 1.0


def _round(size: float, factors: tuple[float, ...]) -> float:
    """The next of the factors times a power of ten."""
    power = 10.0 ** math.floor(math.log10(size))
    return next(f * power for f in factors if size <= f * power * (1 + 1e-9))
