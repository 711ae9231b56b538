"""Durations, sizes and Kubernetes quantities as people write them: `90s`, `1h30m`, `14d`, `512MiB`, `500m`."""

from __future__ import annotations

import math
import re
from decimal import ROUND_CEILING, Decimal
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB)?")
_BYTES = {"B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
          "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}

_QUANTITY = re.compile(r"(\d{1,18}(?:\.\d{0,9})?|\.\d{1,9})(?:(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?|[eE]([+-]?\d{1,2}))")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}


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


def parse_quantity(value: object) -> Decimal:
    """A Kubernetes quantity as a number: `500m` -> 0.5, `1Gi` -> 1073741824. Raises ValueError with the remedy.

    https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
    """
    match = _QUANTITY.fullmatch(str(value).strip())
    if not match or isinstance(value, bool):
        raise ValueError(f"{value!r} is not a quantity. Write for example 500m, 2, 512Mi or 4Gi.")
    number, suffix, exponent = Decimal(match[1]), match[2] or "", match[3]
    if suffix in _BINARY:
        return number * (1 << _BINARY[suffix])
    return number.scaleb(int(exponent) if exponent else _DECIMAL[suffix])


def is_binary(value: object) -> bool:
    """Whether a quantity is written with one of Ki, Mi, Gi, …"""
    return str(value).strip().endswith("i")


def format_quantity(number: Decimal, binary: bool = False) -> str:
    """As the API server itself writes it: the largest unit that leaves a whole number; rounded up to n, or binary to 1."""
    if binary:
        whole = int(number.to_integral_value(ROUND_CEILING))
        unit = next((u for u in reversed(_BINARY) if whole and whole % 2 ** _BINARY[u] == 0), "")
        return f"{whole // 2 ** _BINARY.get(unit, 0)}{unit}"
    billionths = int((number * 10**9).to_integral_value(ROUND_CEILING))
    unit = next((u for u in reversed(_DECIMAL) if billionths and billionths % 10 ** (9 + _DECIMAL[u]) == 0), "")
    return f"{billionths // 10 ** (9 + _DECIMAL[unit])}{unit}"


WRITTEN_DURATION = {"anyOf": [{"type": "integer"}, {"type": "string"}], "format": "duration", "maxLength": 64,
                    "pattern": f"^({_PART.pattern})+$|^0(\\.0)?$"}
"""A duration as people write it, for schemas: text, or 0."""
Duration = Annotated[float, BeforeValidator(parse_duration), PlainSerializer(format_duration),
                     WithJsonSchema(WRITTEN_DURATION, mode="validation")]
Bytes = Annotated[int, BeforeValidator(parse_bytes), PlainSerializer(format_bytes)]
