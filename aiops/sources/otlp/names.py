"""Names as Prometheus writes them, out of those of OpenTelemetry.

https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/#otlp-metric-points-to-prometheus;
units are UCUM, https://ucum.org
"""

from __future__ import annotations

import re
from functools import lru_cache

_UNITS = {
    "d": "days", "h": "hours", "min": "minutes", "s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds",
    "By": "bytes", "KiBy": "kibibytes", "MiBy": "mebibytes", "GiBy": "gibibytes", "TiBy": "tibibytes", "KBy": "kilobytes",
    "kBy": "kilobytes", "MBy": "megabytes", "GBy": "gigabytes", "TBy": "terabytes", "bit": "bits", "m": "meters", "V": "volts",
    "A": "amperes", "J": "joules", "W": "watts", "g": "grams", "Cel": "celsius", "Hz": "hertz", "%": "percent"}
_PER = {"s": "second", "min": "minute", "m": "minute", "h": "hour", "d": "day", "w": "week", "mo": "month", "y": "year"}
_ODD = re.compile(r"[^a-zA-Z0-9_:]+|__+")
_NOTE = re.compile(r"\{[^}]*\}")


@lru_cache(maxsize=20_000)
def metric_name(name: str, unit: str, counts: bool, gauge: bool) -> str:
    """`http.server.duration` in `s` -> `http_server_duration_seconds`. "" where nothing of the name is left.

    counts: a monotonic sum, which ends in `_total`. gauge: a share without a unit (`1`) then ends in `_ratio`.
    """
    words = [w for w in _ODD.sub("_", name).split("_") if w]
    if not words:
        return ""
    for suffix in _unit_words(unit, gauge):
        if suffix not in words:
            words += suffix.split("_")
    if counts:
        words = [w for w in words if w != "total"] + ["total"]
    whole = "_".join(words)
    return "_" + whole if whole[0].isdigit() else whole


def _unit_words(unit: str, gauge: bool) -> list[str]:
    unit = _NOTE.sub("", unit).strip()
    if unit == "1":
        return ["ratio"] if gauge else []
    what, slash, per = unit.partition("/")
    found = [_UNITS.get(what.strip(), _ODD.sub("_", what).strip("_"))]
    if slash and per.strip():
        found.append("per_" + _PER.get(per.strip(), _ODD.sub("_", per).strip("_")))
    return [w for w in found if w.strip("_") and w != "per_"]


@lru_cache(maxsize=20_000)
def label_name(key: str) -> str:
    """`http.route` -> `http_route`; "" for what cannot be one, and for the names that Prometheus keeps for itself."""
    name = re.sub(r"[^a-zA-Z0-9_]", "_", key)
    if name[:1].isdigit():
        name = "key_" + name
    return "" if not name.strip("_") or name.startswith("__") else name
