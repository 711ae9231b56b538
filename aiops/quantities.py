"""Durations and sizes as people write them: `90s`, `1h30m`, `14d`, `512MiB`."""

from __future__ import annotations

import math
import re
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB)?")
_BYTES = {"B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
          "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def parse_duration(value: object) -> float:
    """A Go duration (with `d` and `w` as Prometheus has them) in seconds. Raises ValueError with the remedy.

    A number without a unit is refused, 0 excepted: nobody can tell seconds from milliseconds by looking at it.
    """
    text = str(value).strip()
    if text in ("0", "0.0"):
        return 0.0
    parts = _PART.findall(text)
    if not parts or "".join(n + u for n, u in parts) != text:
        unit = " It has no unit." if re.fullmatch(r"-?\d+(\.\d+)?", text) else ""
        raise ValueError(f"{value!r} is not a duration.{unit} Write for example 15s, 1h30m or 14d.")
    return math.fsum(float(n) * _UNITS[u] for n, u in parts)


def format_duration(seconds: float) -> str:
    """The shortest exact way to write a duration down to milliseconds: 5400 -> `1h30m`."""
    left = round(seconds * 1000)
    out = []
    for unit in ("d", "h", "m", "s", "ms"):
        size = round(_UNITS[unit] * 1000)
        if left >= size:
            out.append(f"{left // size}{unit}")
            left %= size
    return "".join(out) or "0s"


def parse_bytes(value: object) -> int:
    """`2GiB`, `500MB` or a plain number of bytes. Raises ValueError with the remedy."""
    match = _SIZE.fullmatch(str(value).strip())
    if not match:
        raise ValueError(f"{value!r} is not a size. Write for example 512MiB or 2GiB.")
    return int(float(match[1]) * _BYTES[match[2] or "B"])


def format_bytes(size: int) -> str:
    """The largest binary unit that loses nothing: 2147483648 -> `2GiB`."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size and size % _BYTES[unit] == 0:
            return f"{size // _BYTES[unit]}{unit}"
    return f"{size}B"


WRITTEN_DURATION = {"anyOf": [{"type": "integer"}, {"type": "string"}], "format": "duration", "maxLength": 64,
                    "pattern": f"^({_PART.pattern})+$|^0(\\.0)?$"}
"""A duration as people write it, for schemas: text, or 0."""
Duration = Annotated[float, BeforeValidator(parse_duration), PlainSerializer(format_duration),
                     WithJsonSchema(WRITTEN_DURATION, mode="validation")]
Bytes = Annotated[int, BeforeValidator(parse_bytes), PlainSerializer(format_bytes)]
