"""From OTLP messages to samples and log lines: whom they belong to, what they are called, what cannot be used. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from aiops.meaning import Meanings
from aiops.sources.logs.lines import MAX_LINE_BYTES, plain
from aiops.sources.otlp.names import label_name, metric_name
from aiops.sources.otlp.wire import Refused
from aiops.types import Entity, Kind, LogLine

DELTA, CUMULATIVE = 1, 2
NO_VALUE = 1
MAX_LABELS, MAX_LABEL_CHARS, MAX_DEPTH = 64, 1024, 6
MAX_MESSAGES = 500_000
"""Resources, scopes, metrics, data points and log records in one request: empty ones cost time and say nothing."""
OLDEST_S, AHEAD_S = 30 * 86400.0, 300.0
_LEVELS = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")
_PLACES = {"service.namespace": "namespace", "k8s.namespace.name": "namespace", "k8s.pod.name": "pod", "service.name": "service",
           "service.instance.id": "instance", "k8s.container.name": "container", "host.name": "node", "k8s.node.name": "node"}
"""Resource attributes that say whom telemetry is about, in the words of Prometheus and Kubernetes; of two the later counts.
https://opentelemetry.io/docs/specs/semconv/resource/"""


class Point(NamedTuple):
    """One sample. `delta`: it is what was added since the point before."""

    entity: Entity
    metric: str
    labels: dict[str, str]
    kind: Kind
    time: float
    value: float
    delta: bool


class Rejected(NamedTuple):
    """A record that cannot be used, and why in one word."""

    reason: str


class Allowance:
    """How many messages of a request are still looked at."""

    def __init__(self) -> None:
        self._left = MAX_MESSAGES

    def of(self, messages: Any) -> Any:
        """The messages. Raises Refused (413) where they are too many."""
        self._left -= len(messages)
        if self._left < 0:
            raise Refused(413, "too_many_messages", f"the request has more than {MAX_MESSAGES} parts. Send smaller batches.")
        return messages


# ------------------------------------------------------------------------------------------------------------ whose
def place(attributes: Any) -> dict[str, str]:
    """What the attributes of a resource say about whom it is: labels namespace, pod, service, instance, container, node."""
    given = {a.key: text(a.value) for a in attributes if a.key in _PLACES}
    return {label: given[key][:MAX_LABEL_CHARS] for key, label in _PLACES.items() if given.get(key)}


def whose(known: Meanings, metric: str, where: Mapping[str, str], labels: dict[str, str]) -> tuple[Entity, dict[str, str]]:
    """The entity of a series, and the labels that tell its series apart. Without pod and service it is the machine's."""
    hints = {k: v for k, v in where.items() if k not in labels and k != "node" and not (k == "service" and "pod" in where)}
    entity, rest = known.entity(metric, {**labels, **hints})
    if ("pod" not in where and "service" not in where and where.get("node")
            and entity.partition("/")[0] in ("unknown", "instance")):
        return f"node//{where['node']}", labels
    own = {k: v for k, v in rest.items() if k in labels or (k == "container") or (k == "instance" and "pod" not in where)}
    return entity, own


def log_entity(where: Mapping[str, str]) -> Entity:
    """Pod, else service, else machine."""
    for kind in ("pod", "service"):
        if where.get(kind):
            return f"{kind}/{where.get('namespace', '')}/{where[kind]}"
    return f"node//{where['node']}" if where.get("node") else "unknown//otlp"


# ---------------------------------------------------------------------------------------------------------- metrics
def points(request: Any, known: Meanings, now: float) -> Iterator[Point | Rejected]:
    """Every sample of a metrics request, one data point after the other. Raises Refused."""
    allowed = Allowance()
    for resource in allowed.of(request.resource_metrics):
        where = place(resource.resource.attributes)
        for scope in allowed.of(resource.scope_metrics):
            for metric in allowed.of(scope.metrics):
                for found in _metric(metric, now, allowed):
                    yield found if isinstance(found, Rejected) else _placed(found, known, where)


def _placed(point: Point, known: Meanings, where: Mapping[str, str]) -> Point | Rejected:
    if known.ignored(point.metric):
        return Rejected("ignored")
    entity, labels = whose(known, point.metric, where, point.labels)
    return point._replace(entity=entity, labels=labels, kind=known.kind(point.metric, point.kind))


def _metric(metric: Any, now: float, allowed: Allowance) -> Iterator[Point | Rejected]:
    if metric.HasField("gauge"):
        yield from _numbers(metric, metric.gauge, now, allowed, counts=False, gauge=True)
    elif metric.HasField("sum"):
        yield from _numbers(metric, metric.sum, now, allowed, counts=metric.sum.is_monotonic, gauge=False)
    for field in ("histogram", "exponential_histogram", "summary"):
        if metric.HasField(field):
            yield from _distributions(metric, getattr(metric, field), field == "summary", now, allowed)


def _numbers(metric: Any, numbers: Any, now: float, allowed: Allowance, counts: bool, gauge: bool) -> Iterator[Point | Rejected]:
    name = metric_name(metric.name, metric.unit, counts, gauge)
    how = CUMULATIVE if gauge else numbers.aggregation_temporality
    for p in allowed.of(numbers.data_points):
        at = _time(p.time_unix_nano, now)
        if isinstance(at, Rejected) or (reason := _unusable(name, how)):
            yield at if isinstance(at, Rejected) else Rejected(reason)
        elif not p.flags & NO_VALUE:
            value = p.as_double if p.HasField("as_double") else float(p.as_int) if p.HasField("as_int") else None
            kind: Kind = "counter" if counts else "gauge"
            yield Rejected("no_value") if value is None else Point("", name, _labels(p.attributes), kind, at, value, how == DELTA)


def _distributions(metric: Any, found: Any, summary: bool, now: float, allowed: Allowance) -> Iterator[Point | Rejected]:
    """`_count` and `_sum`, and the quantiles of a summary. Buckets are not kept: nothing here asks for them."""
    name = metric_name(metric.name, metric.unit, counts=False, gauge=False)
    how = CUMULATIVE if summary else found.aggregation_temporality
    for p in allowed.of(found.data_points):
        at = _time(p.time_unix_nano, now)
        if isinstance(at, Rejected) or (reason := _unusable(name, how)):
            yield at if isinstance(at, Rejected) else Rejected(reason)
            continue
        if p.flags & NO_VALUE:
            continue
        labels = _labels(p.attributes)
        yield Point("", name + "_count", labels, "counter", at, float(p.count), how == DELTA)
        if summary or p.HasField("sum"):
            yield Point("", name + "_sum", labels, "counter", at, p.sum or 0.0, how == DELTA)
        for q in p.quantile_values if summary else ():
            yield Point("", name, {**labels, "quantile": f"{q.quantile:g}"}, "gauge", at, q.value, False)


def _unusable(name: str, temporality: int) -> str:
    return "no_name" if not name else "no_temporality" if temporality not in (DELTA, CUMULATIVE) else ""


def _time(nanos: int, now: float) -> float | Rejected:
    at = nanos / 1e9
    if not nanos:
        return Rejected("no_time")
    return Rejected("future") if at > now + AHEAD_S else Rejected("too_old") if at < now - OLDEST_S else at


def _labels(attributes: Any) -> dict[str, str]:
    """At most 64 of at most 1,024 characters. Those that come to the same name are joined by `;`, as the specification says."""
    found: dict[str, str] = {}
    for a in attributes:
        name, value = label_name(a.key), text(a.value)[:MAX_LABEL_CHARS]
        if name and value and (name in found or len(found) < MAX_LABELS):
            found[name] = f"{found[name]};{value}"[:MAX_LABEL_CHARS] if name in found else value
    return found


# -------------------------------------------------------------------------------------------------------------- logs
def lines(request: Any, now: float) -> Iterator[LogLine | Rejected]:
    """Every record of a logs request as a line: `SEVERITY body`, the exception behind it. Raises Refused.

    Ids of traces stay out.
    """
    allowed = Allowance()
    for resource in allowed.of(request.resource_logs):
        entity = log_entity(place(resource.resource.attributes))
        for scope in allowed.of(resource.scope_logs):
            for record in allowed.of(scope.log_records):
                found = sentence(record)
                yield LogLine(_log_time(record, now), entity, found) if found else Rejected("empty")


def sentence(record: Any) -> str:
    """What the record says, bounded."""
    body = plain(text(record.body)) if record.HasField("body") else ""
    given = {a.key: a.value for a in record.attributes}
    error = ": ".join(t for k in ("exception.type", "exception.message") if k in given and (t := text(given[k])))
    body = body.strip() or record.event_name
    if error and error not in body:
        body = f"{body} {error}".strip()
    level = _LEVELS[min((record.severity_number - 1) // 4, 5)] if record.severity_number > 0 else record.severity_text.upper()
    if body and level and not re.search(rf"\b{re.escape(level)}\b", body[:100], re.IGNORECASE):
        body = f"{level} {body}"
    return body[:MAX_LINE_BYTES]


def _log_time(record: Any, now: float) -> float:
    """When it happened, else when it was seen, else now; now also where that cannot be."""
    at = (record.time_unix_nano or record.observed_time_unix_nano) / 1e9
    return min(at, now) if now - OLDEST_S <= at <= now + AHEAD_S else now


# ------------------------------------------------------------------------------------------------------------ values
def text(value: Any) -> str:
    """An AnyValue as text: strings as they are, maps and lists as JSON."""
    if value.HasField("string_value"):
        return str(value.string_value)
    found = _plain(value, 0)
    return "" if found is None else found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)


def _plain(value: Any, depth: int) -> Any:
    """As JSON has it; what is nested deeper than 6 is left out."""
    for field in ("string_value", "bool_value", "int_value", "double_value"):
        if value.HasField(field):
            return getattr(value, field)
    if value.HasField("bytes_value"):
        return value.bytes_value.hex() if isinstance(value.bytes_value, bytes) else value.bytes_value
    if depth >= MAX_DEPTH:
        return "…"
    if value.HasField("array_value"):
        return [_plain(v, depth + 1) for v in value.array_value.values]
    if value.HasField("kvlist_value"):
        return {kv.key: _plain(kv.value, depth + 1) for kv in value.kvlist_value.values}
    return None
