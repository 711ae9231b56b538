"""Answers of the Prometheus HTTP API as arrays: what a series is called stays bytes, its numbers never become objects.

https://prometheus.io/docs/prometheus/latest/querying/api/#format-overview
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from aiops.types import Floats, Ints

Labels = dict[str, str]
_NOTHING = msgspec.Raw(b"")
_PUNCTUATION = b'[]" \t\r\n'


class Unusable(ValueError):  # noqa: N818 - a verdict, not an error class
    """The answer is not what the API promises. The text says in what, without the remedy."""


class _Row(msgspec.Struct, gc=False):
    metric: msgspec.Raw = _NOTHING
    values: msgspec.Raw = _NOTHING
    value: msgspec.Raw = _NOTHING
    histogram: msgspec.Raw = _NOTHING
    histograms: msgspec.Raw = _NOTHING


class _Data(msgspec.Struct):
    resultType: str  # noqa: N815 - the name on the wire
    result: list[_Row]


class _Body(msgspec.Struct):
    data: _Data
    status: str = ""
    warnings: list[str] | None = None
    infos: list[str] | None = None


class _Envelope(msgspec.Struct):
    """Where the rest is not as it should be: enough of it to say what came instead."""

    status: Any = None
    data: Any = None
    error: Any = None
    errorType: Any = None  # noqa: N815


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """A vector or a matrix. metrics[i] is the JSON of the labels of series i, byte for byte as it came; its samples are
    `counts[i]` entries of `times` (seconds) and `values`, series after series: counts int32[series], times, values float64[n].

    `partial`: the server says that something is missing. `infos` are remarks on the query. `histograms` counts the series
    that came as native histograms, which are not read.
    """

    metrics: list[bytes]
    counts: Ints
    times: Floats
    values: Floats
    partial: tuple[str, ...] = ()
    infos: tuple[str, ...] = ()
    histograms: int = 0


_body = msgspec.json.Decoder(_Body)
_envelope = msgspec.json.Decoder(_Envelope)
_labels = msgspec.json.Decoder(dict[str, str])


def decode(body: bytes) -> Answer:
    """The body of an answer to `query` or `query_range`. Raises Unusable."""
    try:
        found = _body.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise Unusable(_explained(body, e)) from None
    if found.status != "success" or found.data.resultType not in ("matrix", "vector"):
        raise Unusable(_explained(body, None))
    rows, matrix = found.data.result, found.data.resultType == "matrix"
    pieces = [bytes(r.values) for r in rows] if matrix else [bytes(r.value) for r in rows]
    counts = np.array([p.count(b"[") for p in pieces], np.int32)
    if matrix:
        counts = np.maximum(counts - 1, 0)  # the bracket around the samples
    if not counts.all():
        pieces = [p for p, n in zip(pieces, counts.tolist(), strict=True) if n]
    times, values = _numbers(b",".join(pieces), int(counts.sum()))
    told = [t[:500] for t in found.warnings or ()]
    remarks = [t[:500] for t in found.infos or ()]
    return Answer([bytes(r.metric) for r in rows], counts, times, values,
                  tuple(t for t in told if not t.startswith("PromQL")),
                  (*(t for t in told if t.startswith("PromQL")), *remarks),
                  sum([r.histogram is not _NOTHING or r.histograms is not _NOTHING for r in rows]))


def encode(labels: Labels) -> bytes:
    """Labels as JSON, in the order of the map."""
    return msgspec.json.encode(labels)


def labels_of(metric: bytes) -> Labels:
    """The labels of a series, `__name__` among them. Raises Unusable where they are not a map of texts."""
    try:
        return _labels.decode(metric or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise Unusable(f"labels that are not texts ({e})") from None


def _numbers(text: bytes, count: int) -> tuple[Floats, Floats]:
    """`[1.5,"2"],[2.5,"NaN"]` -> times, values. Raises Unusable where it holds anything but `count` pairs of numbers."""
    if not count:
        return np.empty(0), np.empty(0)
    try:
        flat: Floats = np.fromstring(text.translate(None, _PUNCTUATION), np.float64, sep=",")
    except (ValueError, DeprecationWarning):  # NumPy stops at what is not a number, and warns of it
        flat = np.empty(0)
    if len(flat) != 2 * count:
        raise Unusable("samples that are not pairs of a time and a number")
    return flat[0::2].copy(), flat[1::2].copy()


def _explained(body: bytes, error: Exception | None) -> str:
    """What came instead of a vector or a matrix."""
    try:
        found = _envelope.decode(body)
    except msgspec.ValidationError:
        found = _Envelope()
    except (msgspec.DecodeError, UnicodeDecodeError):
        truncated = "truncated" in str(error)
        return "half a JSON: the answer broke off" if truncated else "not JSON"
    if found.status == "error":
        return f"{found.errorType}: {found.error}"
    kind = found.data.get("resultType") if isinstance(found.data, dict) else None
    if isinstance(kind, str) and kind not in ("matrix", "vector"):
        return f"a {kind[:40]} where series were expected"
    return "JSON, but no result with status and data"
