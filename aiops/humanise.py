"""Numbers and texts as people read them: `1.2 GiB`, `350 ms`, `3 min`, `14:05:09 UTC`. For eyes, never for comparing."""

from __future__ import annotations

import math
from datetime import UTC, datetime

NOTHING = "–"
_BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi")
_DECIMAL = ("", "k", "M", "G", "T", "P")
_WORDS = {"celsius": "°C", "watts": "W", "joules": "J", "hertz": "Hz", "volts": "V", "percent": "%", "per_second": "/s"}


def clean(text: object) -> str:
    """Text from telemetry without control characters, which could rewrite the reader's terminal."""
    return "".join(c if c.isprintable() else "\u00b7" if c not in "\n\t" else " " for c in str(text))


def figure(value: float, digits: int = 3) -> str:
    """At most `digits` significant digits and no exponent for what fits in a table: `0.0123`, `12.3`, `1234`."""
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e15:
        return f"{value:.{digits - 1}e}"
    whole = math.floor(math.log10(abs(value))) + 1
    text = f"{value:.{max(0, digits - whole)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _scaled(value: float, base: float, prefixes: tuple[str, ...]) -> tuple[str, str]:
    size, step = value, 0
    while abs(size) >= base * 0.9995 and step < len(prefixes) - 1:
        size, step = size / base, step + 1
    return figure(size), prefixes[step]


def duration(seconds: float | None) -> str:
    """`350 ms`, `12 s`, `3 min`, `2 h 5 min`, `4 d 3 h`."""
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    size, sign = abs(seconds), "-" if seconds < 0 else ""
    if size < 1:
        return f"{sign}{_fraction(size)}"
    if size < 59.5:
        return f"{sign}{figure(size, 2)} s"
    minutes = round(size / 60)
    if minutes < 60:
        return f"{sign}{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{sign}{hours} h {minutes} min" if minutes else f"{sign}{hours} h"
    days, hours = divmod(round(size / 3600), 24)
    return f"{sign}{days} d {hours} h" if hours else f"{sign}{days} d"


def _fraction(size: float) -> str:
    if size == 0:
        return "0 s"
    for factor, unit in ((1e3, "ms"), (1e6, "µs")):
        if size * factor >= 0.9995:
            return f"{figure(size * factor)} {unit}"
    return f"{figure(size * 1e9)} ns"


def quantity(value: float | None, unit: str = "") -> str:
    """A value with its unit. `unit` is what packs say: `bytes`, `seconds`, `ratio`, `requests/s`, … or empty."""
    if value is None or not math.isfinite(value):
        return NOTHING
    base, _, per = unit.partition("/")
    suffix = f"/{per}" if per else ""
    if base == "seconds" and not per:
        return duration(value) if abs(value) < 1 or abs(value) >= 120 else f"{figure(value)} s"
    if base == "ratio":
        return f"{figure(value * 100)} %{suffix}"
    if base == "bytes":
        size, prefix = _scaled(value, 1024.0, _BINARY)
        return f"{size} {prefix}B{suffix}"
    if base == "number":  # of something, as an XID: it is no amount
        return figure(value, 15)
    if not per and abs(value) < 1e5 and unit in _WORDS:
        return f"{figure(value)} {_WORDS[unit]}"
    size, prefix = _scaled(value, 1000.0, _DECIMAL) if abs(value) >= 1e4 else (figure(value), "")
    return f"{size}{' ' + prefix if prefix else ''}{' ' + _WORDS.get(base, base) if base else ''}{suffix}"


def unit_name(unit: str) -> str:
    """What to write beside a figure's title: `ratio` is read as per cent."""
    return {"ratio": "%"}.get(unit, _WORDS.get(unit, unit))


def count(number: int, noun: str, plural: str = "") -> str:
    """`1 signal`, `2 signals`, `12,345 signals`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def utc(at: float | None, form: str = "%Y-%m-%d %H:%M:%S UTC") -> str:
    """A time in UTC; the dash where it is unknown or out of range."""
    if at is None or not math.isfinite(at) or abs(at) > 253402300799:
        return NOTHING
    return datetime.fromtimestamp(at, UTC).strftime(form)


def iso(at: float) -> str:
    """RFC 3339 with milliseconds: `2026-03-01T14:05:09.000Z`."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
