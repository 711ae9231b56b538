"""OTLP/HTTP on the wire: requests out of protobuf or JSON, answers into the same. Pure: bytes in, bytes out.

Both encodings give objects with the names of the protocol's messages (`resource_logs`, `data_points`, `HasField`), so that
what follows does not care which it was. https://github.com/open-telemetry/opentelemetry-proto
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

Signal = Literal["logs", "metrics"]
MAX_BODY = 8 * 1024 * 1024
"""Bytes of a request, compressed or not."""
PROTOBUF, JSON = "application/x-protobuf", "application/json"
NO_PROTOBUF = ("protobuf is not understood here: the package opentelemetry-proto is missing. Install aiops[otlp], "
               "or let the sender use JSON (OTEL_EXPORTER_OTLP_PROTOCOL=http/json).")
INVALID_ARGUMENT, RESOURCE_EXHAUSTED, UNAVAILABLE = 3, 8, 14  # https://grpc.io/docs/guides/status-codes/


class Refused(Exception):  # noqa: N818 - an answer, not a failure of this program
    """A request that gets an error as its answer: HTTP status, reason for the counters, and a sentence for the sender."""

    def __init__(self, status: int, reason: str, text: str) -> None:
        super().__init__(text)
        self.status, self.reason, self.text = status, reason, text


# ------------------------------------------------------------------------------------------------- the JSON encoding
Nanos = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Integer = Annotated[int, msgspec.Meta(ge=-2**63, le=2**63 - 1)]


class Message(msgspec.Struct, rename="camel"):
    """Keys that are not known are skipped, as the specification asks."""

    def HasField(self, name: str) -> bool:  # noqa: N802 - the name that protobuf gives it
        """Whether an optional field was there."""
        return getattr(self, name) is not None


class AnyValue(Message):
    string_value: str | None = None
    bool_value: bool | None = None
    int_value: Integer | None = None
    double_value: float | None = None
    bytes_value: str | None = None
    array_value: ArrayValue | None = None
    kvlist_value: KeyValueList | None = None


class KeyValue(Message):
    key: str = ""
    value: AnyValue = msgspec.field(default_factory=AnyValue)


class ArrayValue(Message):
    values: list[AnyValue] = []


class KeyValueList(Message):
    values: list[KeyValue] = []


class Resource(Message):
    attributes: list[KeyValue] = []


class LogRecord(Message):
    time_unix_nano: Nanos = 0
    observed_time_unix_nano: Nanos = 0
    severity_number: Integer = 0
    severity_text: str = ""
    body: AnyValue | None = None
    attributes: list[KeyValue] = []
    event_name: str = ""


class ScopeLogs(Message):
    log_records: list[LogRecord] = []


class ResourceLogs(Message):
    resource: Resource = msgspec.field(default_factory=Resource)
    scope_logs: list[ScopeLogs] = []


class Logs(Message):
    resource_logs: list[ResourceLogs] = []


class NumberDataPoint(Message):
    attributes: list[KeyValue] = []
    time_unix_nano: Nanos = 0
    as_double: float | None = None
    as_int: Integer | None = None
    flags: Integer = 0


class DistributionPoint(Message):
    """A point of a histogram, an exponential histogram or a summary."""

    attributes: list[KeyValue] = []
    time_unix_nano: Nanos = 0
    count: Nanos = 0
    sum: float | None = None
    flags: Integer = 0
    quantile_values: list[Quantile] = []


class Quantile(Message):
    quantile: float = 0.0
    value: float = 0.0


class Numbers(Message):
    data_points: list[NumberDataPoint] = []
    aggregation_temporality: Integer = 0
    is_monotonic: bool = False


class Distributions(Message):
    data_points: list[DistributionPoint] = []
    aggregation_temporality: Integer = 0


class Metric(Message):
    name: str = ""
    unit: str = ""
    gauge: Numbers | None = None
    sum: Numbers | None = None
    histogram: Distributions | None = None
    exponential_histogram: Distributions | None = None
    summary: Distributions | None = None


class ScopeMetrics(Message):
    metrics: list[Metric] = []


class ResourceMetrics(Message):
    resource: Resource = msgspec.field(default_factory=Resource)
    scope_metrics: list[ScopeMetrics] = []


class Metrics(Message):
    resource_metrics: list[ResourceMetrics] = []


_FORMS: Mapping[Signal, type[Message]] = {"logs": Logs, "metrics": Metrics}


# ---------------------------------------------------------------------------------------------------------- requests
def media(content_type: str) -> str:
    """The encoding that a Content-Type names. Raises Refused (415) for any other."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in (PROTOBUF, JSON):
        raise Refused(415, "content_type", f"Content-Type is {kind[:80]!r}; send {PROTOBUF} or {JSON}.")
    return kind


def unpacked(body: bytes, encoding: str) -> bytes:
    """The body without its compression. Raises Refused: 415 for another one than gzip, 413 beyond 8 MiB, 400 if broken."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        plain = body
    elif encoding == "gzip":
        stream = zlib.decompressobj(wbits=31)
        try:
            plain = stream.decompress(body, MAX_BODY + 1)
        except zlib.error as e:
            raise Refused(400, "gzip", f"not gzip, as Content-Encoding says: {e}.") from None
        if len(plain) <= MAX_BODY and (not stream.eof or stream.unused_data):
            raise Refused(400, "gzip", "the gzip stream is cut off, or more follows it.")
    else:
        raise Refused(415, "content_encoding", f"Content-Encoding is {encoding[:80]!r}; send gzip or none.")
    if len(plain) > MAX_BODY:
        raise Refused(413, "too_large", f"the request is larger than {MAX_BODY >> 20} MiB. Send smaller batches.")
    return plain


def decoded(signal: Signal, kind: str, body: bytes) -> Any:
    """The request. Raises Refused: 400 for what is none, 415 for protobuf where its package is not installed."""
    if kind == JSON:
        try:
            return msgspec.json.decode(body, type=_FORMS[signal], strict=False)
        except (msgspec.DecodeError, RecursionError, ValueError) as e:
            raise Refused(400, "malformed", f"not an OTLP {signal} request in JSON: {str(e)[:200]}.") from None
    form = _protobuf(signal)[0]
    from google.protobuf.message import DecodeError
    try:
        return form.FromString(body)
    except (DecodeError, RecursionError, ValueError) as e:
        raise Refused(400, "malformed", f"not an OTLP {signal} request in protobuf: {str(e)[:200]}.") from None


def _protobuf(signal: Signal) -> tuple[Any, Any]:
    """The messages of a request and of its answer."""
    try:
        if signal == "logs":
            from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
            return logs.ExportLogsServiceRequest, logs.ExportLogsServiceResponse
        from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
        return metrics.ExportMetricsServiceRequest, metrics.ExportMetricsServiceResponse
    except ImportError:
        raise Refused(415, "no_protobuf", NO_PROTOBUF) from None


# ----------------------------------------------------------------------------------------------------------- answers
def accepted(signal: Signal, kind: str, rejected: int, why: str) -> bytes:
    """The answer to a request of which all was taken, or all but `rejected` records."""
    field = "rejected_log_records" if signal == "logs" else "rejected_data_points"
    if kind == JSON:
        camel = "rejectedLogRecords" if signal == "logs" else "rejectedDataPoints"
        partial = {"partialSuccess": {camel: str(rejected), "errorMessage": why}} if rejected else {}
        return msgspec.json.encode(partial)
    answer = _protobuf(signal)[1]()
    if rejected:
        setattr(answer.partial_success, field, rejected)
        answer.partial_success.error_message = why
    return bytes(answer.SerializeToString())


def failed(kind: str, status: int, text: str) -> bytes:
    """A google.rpc.Status, which every error is told in; written by hand, because its package is another one."""
    code = {429: RESOURCE_EXHAUSTED, 503: UNAVAILABLE}.get(status, INVALID_ARGUMENT)
    if kind == JSON:
        return msgspec.json.encode({"code": code, "message": text})
    message = text.encode()
    return b"\x08" + bytes([code]) + b"\x12" + _varint(len(message)) + message


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])
