"""OTLP over HTTP: names, values and entities; both encodings alike; hostile bodies; the way from the socket to an incident."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.collected import Collected
from google.protobuf import json_format
from helpers import pipeline
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from test_remote_write import begun

from aiops.catalogue import EPHEMERAL_SILENT_S
from aiops.clock import ManualClock
from aiops.feeds import Source
from aiops.intake import Intake
from aiops.live import Live
from aiops.loop import NoActuator
from aiops.meaning import shipped
from aiops.sources.otlp import source as otlp
from aiops.sources.otlp import wire
from aiops.sources.otlp.names import label_name, metric_name
from aiops.sources.otlp.source import OtlpSource
from aiops.types import Ints
from aiops.web.app import create_app
from aiops.web.server import Server

sys.path.insert(0, str(Path(__file__).with_name("browser")))
from web_demo import busy

NOW = 1_700_000_000.0
NANOS = str(int(NOW * 1e9))
JSON, PROTOBUF = {"content-type": "application/json"}, {"content-type": "application/x-protobuf; charset=utf-8"}


def attributes(**of: Any) -> list[dict[str, Any]]:
    """`k8s__pod="a"` -> the attribute k8s.pod."""
    return [{"key": k.replace("__", "."), "value": v if isinstance(v, dict) else {"stringValue": v}} for k, v in of.items()]


def metrics(*found: dict[str, Any], **resource: str) -> dict[str, Any]:
    return {"resourceMetrics": [{"resource": {"attributes": attributes(**resource)}, "scopeMetrics": [{"metrics": list(found)}]}]}


def logs(*records: dict[str, Any], **resource: str) -> dict[str, Any]:
    return {"resourceLogs": [{"resource": {"attributes": attributes(**resource)}, "scopeLogs": [{"logRecords": list(records)}]}]}


def point(value: Any, at: float = NOW, **labels: Any) -> dict[str, Any]:
    return {"asDouble": value, "timeUnixNano": str(int(at * 1e9)), "attributes": attributes(**labels)}


def made(now: float = NOW) -> tuple[OtlpSource, Collected]:
    """A source that was polled once, and where it puts things."""
    into = Collected()
    source = OtlpSource("otlp", 10.0, lambda: now, shipped())
    source.poll(now, into)
    return source, into


def sent(body: dict[str, Any], now: float = NOW) -> Collected:
    """What a request comes to; all of it is taken."""
    source, into = made(now)
    signal: Any = "logs" if "resourceLogs" in body else "metrics"
    status, _, answer = source.receive(signal, JSON, json.dumps(body).encode())
    assert (status, answer) == (200, b"{}")
    source.poll(now, into)
    return into


# --------------------------------------------------------------------------------------------------------------- names
@pytest.mark.parametrize(("name", "unit", "counts", "gauge", "expected"), [
    ("http.server.request.duration", "s", False, False, "http_server_request_duration_seconds"),
    ("process.cpu.time", "s", True, False, "process_cpu_time_seconds_total"),
    ("requests", "{request}", True, False, "requests_total"),
    ("requests_total", "1", True, False, "requests_total"),
    ("system.memory.usage", "By", False, True, "system_memory_usage_bytes"),
    ("system.cpu.utilization", "1", False, True, "system_cpu_utilization_ratio"),
    ("disk.io", "By/s", False, True, "disk_io_bytes_per_second"),
    ("queue.length", "{item}/min", False, True, "queue_length_per_minute"),
    ("size_bytes", "By", False, True, "size_bytes"),
    ("temperature", "Cel", False, True, "temperature_celsius"),
    ("odd", "furlong", False, True, "odd_furlong"),
    ("9lives", "", False, True, "_9lives"),
    ("ä ö", "", False, True, ""), ("", "s", False, True, ""), ("...", "", False, True, ""),
    ("a//b..c__d", "", False, True, "a_b_c_d"), ("x", "/", False, True, "x"), ("x", "%", False, True, "x_percent"),
])
def test_metrics_get_the_names_that_prometheus_would_give_them(name: str, unit: str, counts: bool, gauge: bool,
                                                               expected: str) -> None:
    """Units written out, `_total`, `_ratio`, and no character that a name may not have."""
    assert metric_name(name, unit, counts, gauge) == expected


@pytest.mark.parametrize(("key", "expected"), [
    ("http.route", "http_route"), ("a", "a"), ("9a", "key_9a"), ("__name__", ""), ("", ""), ("..", ""), ("ä", ""),
])
def test_attributes_become_labels(key: str, expected: str) -> None:
    """As names that Prometheus takes; its own are not given away."""
    assert label_name(key) == expected


# ------------------------------------------------------------------------------------------------------------ metrics
def test_gauges_and_sums() -> None:
    """A gauge as it is; a monotonic sum counts; one that goes up and down does not."""
    got = sent(metrics(
        {"name": "queue", "gauge": {"dataPoints": [point(3.5, queue__name="a")]}},
        {"name": "done", "sum": {"aggregationTemporality": 2, "isMonotonic": True,
                                 "dataPoints": [{"asInt": "12", "timeUnixNano": NANOS}]}},
        {"name": "open", "sum": {"aggregationTemporality": 2, "dataPoints": [point(4.0)]}}, service__name="api",
        service__namespace="shop"))
    assert [(s.entity, s.metric, s.labels, s.kind, s.value, s.time) for s in got.samples] == [
        ("service/shop/api", "queue", {"queue_name": "a"}, "gauge", 3.5, NOW),
        ("service/shop/api", "done_total", {}, "counter", 12.0, NOW),
        ("service/shop/api", "open", {}, "gauge", 4.0, NOW)]


def test_histograms_and_summaries_give_count_and_sum() -> None:
    """Exponential ones too; a histogram without a sum has none; the quantiles of a summary are gauges."""
    some = {"count": "10", "sum": 2.5, "timeUnixNano": NANOS}
    got = sent(metrics(
        {"name": "d", "unit": "s", "histogram": {"aggregationTemporality": 2, "dataPoints": [
            {**some, "bucketCounts": ["1", "9"], "explicitBounds": [1.0]}]}},
        {"name": "e", "exponentialHistogram": {"aggregationTemporality": 2, "dataPoints": [
            {"count": 3, "timeUnixNano": NANOS, "scale": 1, "positive": {"offset": 0, "bucketCounts": ["3"]}}]}},
        {"name": "f", "summary": {"dataPoints": [{**some, "quantileValues": [{"quantile": 0.5, "value": 0.1}]}]}}))
    assert [(s.metric, s.kind, s.value) for s in got.samples] == [
        ("d_seconds_count", "counter", 10.0), ("d_seconds_sum", "counter", 2.5), ("e_count", "counter", 3.0),
        ("f_count", "counter", 10.0), ("f_sum", "counter", 2.5), ("f", "gauge", 0.1)]
    assert got.samples[-1].labels == {"quantile": "0.5"}


@pytest.mark.parametrize(("resource", "entity", "labels"), [
    ({"k8s__pod__name": "a-1", "k8s__namespace__name": "shop", "service__name": "a", "host__name": "n",
      "k8s__container__name": "c", "service__instance__id": "7"}, "pod/shop/a-1", {"container": "c", "x": "1"}),
    ({"service__name": "a", "service__namespace": "shop", "k8s__namespace__name": "real"}, "service/real/a", {"x": "1"}),
    ({"service__name": "a", "service__instance__id": "7", "host__name": "n"}, "service//a", {"instance": "7", "x": "1"}),
    ({"host__name": "n"}, "node//n", {"x": "1"}), ({"host__name": "pod-host", "k8s__node__name": "n"}, "node//n", {"x": "1"}),
    ({"host__name": "n", "service__instance__id": "7"}, "node//n", {"x": "1"}),
    ({}, "unknown//load", {"x": "1"}),
])
def test_telemetry_belongs_to_the_pod_else_the_service_else_the_machine(resource: dict[str, str], entity: str,
                                                                       labels: dict[str, str]) -> None:
    """As its resource says; what tells two series of an entity apart stays a label."""
    [sample] = sent(metrics({"name": "load", "gauge": {"dataPoints": [point(1.0, x="1")]}}, **resource)).samples
    assert (sample.entity, sample.labels) == (entity, labels)
    if entity != "unknown//load":
        [line] = sent(logs({"body": {"stringValue": "x"}}, **resource)).lines
        assert line.entity == entity


def delta(value: Any, at: float, **labels: str) -> dict[str, Any]:
    return {"name": "n", "sum": {"aggregationTemporality": 1, "isMonotonic": True, "dataPoints": [point(value, at, **labels)]}}


def test_deltas_are_added_up() -> None:
    """By series; a point that was sent twice, because its answer was lost, counts once and is told."""
    source, into = made()
    for value, at, label in ((1.0, 1, "a"), (2.0, 2, "a"), (5.0, 2, "b"), (3.0, 3, "a")):
        assert source.receive("metrics", JSON, json.dumps(metrics(delta(value, NOW - 9 + at, x=label))).encode())[0] == 200
    assert into.values("n_total", x="a") == [1.0, 3.0, 6.0]
    assert into.values("n_total", x="b") == [5.0]
    status, _, answer = source.receive("metrics", JSON, json.dumps(metrics(delta(3.0, NOW - 6, x="a"))).encode())
    assert (status, json.loads(answer)) == (200, {"partialSuccess": {"rejectedDataPoints": "1",
                                                                     "errorMessage": "out_of_order: 1"}})
    assert source.rejected == {"out_of_order": 1}


def test_memory_for_deltas_is_bounded_by_the_series_there_are() -> None:
    """Nothing is kept of a series for which there is no room, nor of one that was retired: that starts again at 0."""
    source, intake = OtlpSource("otlp", 10.0, lambda: NOW, shipped()), Intake(10.0, max_series=2)
    source.poll(NOW, intake)

    def push(label: str, at: float) -> None:
        body = json.dumps(metrics(delta(1.0, at, x=label), k8s__pod__name="p")).encode()
        assert source.receive("metrics", JSON, body)[0] == 200

    for k, label in enumerate("abacab"):
        push(label, NOW - 9 + k)
    assert source.rejected == {"too_many_series": 1} and sorted(source._sums) == [0, 1]
    assert [b.value.tolist() for b in intake.drain(NOW)] == [[1.0, 1.0, 2.0, 3.0, 2.0]]
    intake.drain(NOW + EPHEMERAL_SILENT_S + 60)
    assert source._sums == {}
    push("a", NOW - 1)
    assert intake.drain(NOW + EPHEMERAL_SILENT_S + 61)[-1].value.tolist() == [1.0]


@pytest.mark.parametrize(("metric", "reason"), [
    ({"name": "", "gauge": {"dataPoints": [point(1.0)]}}, "no_name"),
    ({"name": "x", "gauge": {"dataPoints": [{"asDouble": 1.0}]}}, "no_time"),
    ({"name": "x", "gauge": {"dataPoints": [point(1.0, 1.0)]}}, "too_old"),
    ({"name": "x", "gauge": {"dataPoints": [point(1.0, 4.1e9)]}}, "future"),
    ({"name": "x", "sum": {"isMonotonic": True, "dataPoints": [point(1.0)]}}, "no_temporality"),
    ({"name": "x", "histogram": {"dataPoints": [{"count": "1", "timeUnixNano": NANOS}]}}, "no_temporality"),
    ({"name": "target_info", "gauge": {"dataPoints": [point(1.0)]}}, "ignored"),
    ({"name": "x", "gauge": {"dataPoints": [{"timeUnixNano": NANOS}]}}, "no_value"), (delta("NaN", NOW), "not_finite"),
    (delta("Infinity", NOW), "not_finite"),
])
def test_points_that_cannot_be_used_are_told_to_their_sender_and_counted(metric: dict[str, Any], reason: str) -> None:
    """The rest of the request is taken; the answer says how many were not, and why."""
    source, into = made()
    body = metrics(metric, {"name": "good", "gauge": {"dataPoints": [point(1.0)]}})
    status, _, answer = source.receive("metrics", JSON, json.dumps(body).encode())
    assert (status, json.loads(answer)["partialSuccess"]) == (
        200, {"rejectedDataPoints": "1", "errorMessage": f"{reason}: 1"})
    assert [s.metric for s in into.samples] == ["good"]
    assert source.rejected == {reason: 1}


def test_a_point_that_says_it_has_no_value_is_left_out() -> None:
    """As a target does that went away: it is no sample, and no fault."""
    assert sent(metrics({"name": "x", "gauge": {"dataPoints": [{**point(1.0), "flags": 1}]}})).samples == []


def test_labels_are_bounded_and_never_collide() -> None:
    """64 of 1,024 characters; two that come to the same name are joined."""
    many = {f"k{i}": "v" * 5000 for i in range(100)}
    [sample] = sent(metrics({"name": "x", "gauge": {"dataPoints": [point(1.0, **many)]}})).samples
    assert (len(sample.labels), max(map(len, sample.labels.values()))) == (64, 1024)
    same = point(1.0, **{"a.b": "1", "a-b": {"intValue": "2"}})
    assert sent(metrics({"name": "x", "gauge": {"dataPoints": [same]}})).samples[0].labels == {"a_b": "1;2"}


# --------------------------------------------------------------------------------------------------------------- logs
@pytest.mark.parametrize(("record", "text"), [
    ({"severityNumber": 17, "body": {"stringValue": "disk gone"}}, "ERROR disk gone"),
    ({"severityNumber": 21, "severityText": "crit", "body": {"stringValue": "x"}}, "FATAL x"),
    ({"severityNumber": 99, "body": {"stringValue": "x"}}, "FATAL x"),
    ({"severityNumber": -3, "body": {"stringValue": "x"}}, "x"),
    ({"severityText": "warning", "body": {"stringValue": "x"}}, "WARNING x"),
    ({"severityNumber": 9, "body": {"stringValue": "level=info msg=x"}}, "level=info msg=x"),
    ({"body": {"kvlistValue": {"values": attributes(message="boom", code={"intValue": "7"})}}}, "boom"),
    ({"body": {"kvlistValue": {"values": attributes(a={"arrayValue": {"values": [{"boolValue": True}]}})}}}, '{"a": [true]}'),
    ({"body": {"stringValue": "failed"}, "severityNumber": 17, "traceId": "0af7651916cd43dd8448eb211c80319c",
      "attributes": attributes(exception__type="IOError", exception__message="no space")}, "ERROR failed IOError: no space"),
    ({"attributes": attributes(exception__type="IOError")}, "IOError"), ({"eventName": "device.lost"}, "device.lost"),
])
def test_a_record_is_one_line_that_says_what_happened(record: dict[str, Any], text: str) -> None:
    """Severity, body and exception; no ids of traces."""
    assert sent(logs(record)).texts() == [text]


def test_times_of_records() -> None:
    """When it happened, else when it was seen, else now; a time that cannot be is now."""
    of = [{"timeUnixNano": str(int((NOW - 5) * 1e9)), "observedTimeUnixNano": NANOS},
          {"observedTimeUnixNano": str(int((NOW - 3) * 1e9))}, {}, {"timeUnixNano": "1"}, {"timeUnixNano": str(2**62)}]
    got = sent(logs(*({**t, "body": {"stringValue": "x"}} for t in of)))
    assert [line.time for line in got.lines] == [NOW - 5, NOW - 3, NOW, NOW, NOW]


def test_an_empty_record_is_told_and_counted() -> None:
    """There is nothing to say about it."""
    source, _ = made()
    _, _, answer = source.receive("logs", JSON, json.dumps(logs({}, {"body": {"stringValue": " "}})).encode())
    assert json.loads(answer) == {"partialSuccess": {"rejectedLogRecords": "2", "errorMessage": "empty: 2"}}


# ------------------------------------------------------------------------------------------------------- both encodings
values = st.recursive(
    st.one_of(st.builds(lambda x: {"stringValue": x}, st.text(max_size=8)), st.builds(lambda x: {"boolValue": x}, st.booleans()),
              st.builds(lambda x: {"intValue": str(x)}, st.integers(-2**63, 2**63 - 1)),
              st.builds(lambda x: {"doubleValue": x}, st.floats(-1e300, 1e300)), st.just({})),
    lambda inner: st.one_of(
        st.builds(lambda x: {"arrayValue": {"values": x}}, st.lists(inner, max_size=3)),
        st.builds(lambda x: {"kvlistValue": {"values": [{"key": str(i), "value": v} for i, v in enumerate(x)]}},
                  st.lists(inner, max_size=3))), max_leaves=8)
keys = st.sampled_from(["k8s.pod.name", "service.name", "host.name", "exception.type", "a.b", "a-b", "9", "", "__name__"])
pairs = st.lists(st.builds(lambda k, v: {"key": k, "value": v}, keys, values), max_size=4)
times = st.sampled_from(["0", "1", NANOS, str(2**63 - 1)])
number_points = st.lists(st.builds(
    lambda v, t, a, f: {**v, "timeUnixNano": t, "attributes": a, "flags": f},
    st.one_of(st.builds(lambda x: {"asDouble": x}, st.floats(-1e300, 1e300)), st.just({"asInt": "-5"}), st.just({})),
    times, pairs, st.integers(0, 1)), max_size=3)
other_points = st.lists(st.builds(
    lambda c, s, t, a: {"count": str(c), **s, "timeUnixNano": t, "attributes": a}, st.integers(0, 2**63 - 1),
    st.sampled_from([{}, {"sum": 0.0}, {"sum": 1.5}]), times, pairs), max_size=3)
temporality = st.integers(0, 2)
kinds = st.one_of(
    st.builds(lambda p: {"gauge": {"dataPoints": p}}, number_points),
    st.builds(lambda p, a, m: {"sum": {"dataPoints": p, "aggregationTemporality": a, "isMonotonic": m}},
              number_points, temporality, st.booleans()),
    st.builds(lambda p, a: {"histogram": {"dataPoints": p, "aggregationTemporality": a}}, other_points, temporality),
    st.builds(lambda p, a: {"exponentialHistogram": {"dataPoints": p, "aggregationTemporality": a}}, other_points, temporality),
    st.builds(lambda p: {"summary": {"dataPoints": p}}, other_points), st.just({}))
metric_requests = st.builds(
    lambda r, m: {"resourceMetrics": [{"resource": {"attributes": r}, "scopeMetrics": [{"metrics": m}]}]}, pairs,
    st.lists(st.builds(lambda n, u, k: {"name": n, "unit": u, **k}, st.sampled_from(["", "a.b", "up", "x_total"]),
                       st.sampled_from(["", "1", "s", "By/s", "{x}"]), kinds), max_size=3))
log_requests = st.builds(
    lambda r, x: {"resourceLogs": [{"resource": {"attributes": r}, "scopeLogs": [{"logRecords": x}]}]}, pairs,
    st.lists(st.builds(lambda b, n, t, a: {**b, "severityNumber": n, "timeUnixNano": t, "attributes": a},
                       st.one_of(st.just({}), st.builds(lambda v: {"body": v}, values)), st.integers(-2, 30), times, pairs),
             max_size=3))


def both(signal: Any, form: Any, body: dict[str, Any]) -> None:
    one, other = made(), made()
    message = json_format.ParseDict(body, form())
    a = one[0].receive(signal, JSON, json.dumps(body).encode())
    b = other[0].receive(signal, PROTOBUF, message.SerializeToString())
    for source, into in (one, other):
        source.poll(NOW, into)
    assert one[1] == other[1]
    assert one[0].rejected == other[0].rejected
    assert (a[0], b[0]) == (200, 200)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(metric_requests)
def test_metrics_come_to_the_same_in_both_encodings(body: dict[str, Any]) -> None:
    """Whatever the request: samples, entities, and what is rejected."""
    both("metrics", ExportMetricsServiceRequest, body)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(log_requests)
def test_logs_come_to_the_same_in_both_encodings(body: dict[str, Any]) -> None:
    """Whatever the request: lines, entities, times, and what is rejected."""
    both("logs", ExportLogsServiceRequest, body)


# ------------------------------------------------------------------------------------------------------ hostile bodies
def answered(signal: Any, headers: dict[str, str], body: bytes) -> int:
    source, _ = made()
    status, told, answer = source.receive(signal, headers, body)
    assert status in (200, 400, 413, 415, 429)
    assert told["content-type"] in (wire.JSON, wire.PROTOBUF)
    assert len(answer) < 1000
    return status


GOOD = json_format.ParseDict(metrics({"name": "x", "gauge": {"dataPoints": [point(1.0, a="b")]}}, service__name="s"),
                             ExportMetricsServiceRequest()).SerializeToString()


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.text(max_size=100).map(str.encode),
                 st.tuples(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=4)).map(
                     lambda x: GOOD[:x[0]] + x[1] + GOOD[x[0] + len(x[1]):]),
                 st.integers(0, len(GOOD)).map(lambda n: GOOD[:n]), st.recursive(
                     st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
                     lambda x: st.one_of(st.lists(x, max_size=3), st.dictionaries(st.sampled_from(
                         ["resourceMetrics", "scopeMetrics", "metrics", "gauge", "dataPoints", "resourceLogs", "name"]), x)),
                     max_leaves=10).map(lambda x: json.dumps(x).encode())),
       st.sampled_from(["application/json", "application/x-protobuf", "text/plain", ""]),
       st.sampled_from(["", "gzip", "identity", "br"]), st.sampled_from(["logs", "metrics"]))
def test_no_body_gets_anything_but_an_answer(body: bytes, kind: str, encoding: str, signal: str) -> None:
    """Random bytes, cut and changed requests, any JSON, any header."""
    answered(signal, {"content-type": kind, "content-encoding": encoding}, body)


@pytest.mark.parametrize(("headers", "body", "status", "said"), [
    ({"content-type": "text/xml"}, b"", 415, "send application/x-protobuf or application/json"),
    ({**JSON, "content-encoding": "zstd"}, b"", 415, "send gzip or none"),
    ({**JSON, "content-encoding": "gzip"}, b"nonsense", 400, "not gzip"),
    ({**JSON, "content-encoding": "gzip"}, gzip.compress(b"{}", mtime=0)[:-4], 400, "cut off"),
    ({**JSON, "content-encoding": "gzip"}, gzip.compress(b"{}", mtime=0) + b"more", 400, "more follows"),
    ({**JSON, "content-encoding": "gzip"}, gzip.compress(b" " * (wire.MAX_BODY + 1), mtime=0), 413, "larger than 8 MiB"),
    (JSON, b" " * (wire.MAX_BODY + 1), 413, "larger than 8 MiB"),
    (JSON, b'{"resourceMetrics": [', 400, "not an OTLP metrics request in JSON"),
    (JSON, b'{"resourceMetrics": 3}', 400, "`$.resourceMetrics`"),
    (JSON, b"[" * 100_000, 400, "in JSON"), (JSON, b'{"x":' * 100_000, 400, "in JSON"),
    (JSON, b'{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"gauge":{"dataPoints":[{"asInt":1e300}]}}]}]}]}', 400, "in JSON"),
    (PROTOBUF, b"\x0a\xff\xff\xff\xff\x0f", 400, "in protobuf"), (PROTOBUF, b"\xff" * 50, 400, "in protobuf"),
    (PROTOBUF, b"\x0a\x02\x12\x7f", 400, "in protobuf"), (PROTOBUF, b"\x08\x01", 200, ""),
])
def test_what_is_wrong_with_a_request_is_said_and_counted(headers: dict[str, str], body: bytes, status: int, said: str) -> None:
    """The text is in a google.rpc.Status of the encoding that the sender speaks."""
    source, _ = made()
    got, told, answer = source.receive("metrics", headers, body)
    assert got == status
    assert said.encode() in answer
    assert source.rejected.total() == (status != 200)
    if status != 200 and told["content-type"] == wire.JSON:
        assert json.loads(answer)["code"] == wire.INVALID_ARGUMENT


def test_a_bomb_is_not_unpacked() -> None:
    """100 MiB of nothing in 100 kB: reading stops at the limit."""
    bomb = gzip.compress(b"\0" * (100 << 20), 9)
    assert len(bomb) < 200_000
    assert answered("logs", {**PROTOBUF, "content-encoding": "gzip"}, bomb) == 413


def test_protobuf_without_its_package_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON goes on working."""
    for name in ("opentelemetry.proto.collector.logs.v1", "opentelemetry.proto.collector.metrics.v1"):
        monkeypatch.setitem(sys.modules, name, None)
    for signal in ("logs", "metrics"):
        source, _ = made()
        status, headers, answer = source.receive(signal, PROTOBUF, b"")  # type: ignore[arg-type]
        assert (status, headers["content-type"]) == (415, wire.PROTOBUF)
        assert b"pip install" in answer or b"Install aiops[otlp]" in answer
        assert source.rejected == {"no_protobuf": 1}
        assert answered(signal, JSON, b"{}") == 200


def test_answers_are_those_of_the_protocol() -> None:
    """A partial success in protobuf, and an error as google.rpc.Status: code and message."""
    source, _ = made()
    body = json_format.ParseDict(logs({}), ExportLogsServiceRequest()).SerializeToString()
    _, _, answer = source.receive("logs", PROTOBUF, body)
    said = ExportLogsServiceResponse.FromString(answer).partial_success
    assert (said.rejected_log_records, said.error_message) == (1, "empty: 1")
    assert source.receive("logs", PROTOBUF, b"")[2] == b""
    text = "x" * 300
    assert wire.failed(wire.PROTOBUF, 429, text) == b"\x08\x08\x12\xac\x02" + text.encode()


# -------------------------------------------------------------------------------------------------------- backpressure
def test_a_sender_is_asked_to_come_again_while_too_much_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records: until the next poll. A request that is larger than all there is room for is taken as far as it fits."""
    monkeypatch.setattr(otlp, "MAX_LINES", 3)
    source, into = made()
    two = json.dumps(logs(*[{"body": {"stringValue": "x"}}] * 2)).encode()
    assert source.receive("logs", JSON, two)[0] == 200
    status, headers, answer = source.receive("logs", JSON, two)
    assert (status, headers["retry-after"], json.loads(answer)["code"]) == (429, "5", wire.RESOURCE_EXHAUSTED)
    source.poll(NOW, into)
    _, _, answer = source.receive("logs", JSON, json.dumps(logs(*[{"body": {"stringValue": "x"}}] * 5)).encode())
    assert json.loads(answer)["partialSuccess"]["errorMessage"] == "too_many_lines: 2"
    source.poll(NOW, into)
    assert len(into.lines) == 5
    assert source.rejected == {"busy": 1, "too_many_lines": 2}


def test_records_for_which_there_is_no_room_are_not_taken() -> None:
    """Other sources filled the tick: the request is refused whole, and comes again."""
    source, into = made()
    into.room = 1
    body = json.dumps(logs(*[{"body": {"stringValue": "x"}}] * 2)).encode()
    status, headers, _ = source.receive("logs", JSON, body)
    assert (status, headers["retry-after"], into.lines, source.rejected) == (429, "5", [], {"busy": 1})
    into.room = 2
    assert source.receive("logs", JSON, body)[0] == 200
    assert len(into.lines) == 2


def test_a_refused_block_changes_no_sum() -> None:
    """The sender comes again with the same points: they count once."""
    class Full(Collected):
        full = True

        def block(self, series: Ints, time: Any, value: Any) -> bool:
            return not self.full and super().block(series, time, value)
    into = Full()
    source = OtlpSource("otlp", 10.0, lambda: NOW, shipped())
    source.poll(NOW, into)
    body = json.dumps(metrics(delta(2.0, NOW))).encode()
    assert source.receive("metrics", JSON, body)[0] == 429
    into.full = False
    assert source.receive("metrics", JSON, body)[0] == 200
    assert into.values("n_total") == [2.0]


def test_before_the_first_poll_and_after_the_end_nothing_is_taken() -> None:
    """What would be lost is refused: 503 with Retry-After."""
    source = OtlpSource("otlp", 10.0, lambda: NOW, shipped())
    assert source.notes == {"idle": "nothing was received yet. Point OTEL_EXPORTER_OTLP_ENDPOINT of a sender at this address"}
    assert source.receive("logs", JSON, b"{}")[0] == 503
    source.poll(NOW, Collected())
    assert source.receive("logs", JSON, b"{}")[0] == 200
    assert source.notes == {}
    source.close()
    assert source.receive("logs", JSON, b"{}")[:2] == (503, {"content-type": wire.JSON, "retry-after": "5"})


# --------------------------------------------------------------------------------------------------------- end to end
@contextmanager
def serving(source: OtlpSource, token: str | None = None) -> Iterator[Any]:
    server = Server(create_app(busy(token), pushes=source.pushes), port=0)
    server.start()

    def post(path: str, body: bytes | Iterator[bytes], **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        connection.request("POST", path, body, {k.replace("_", "-"): v for k, v in headers.items()})
        reply = connection.getresponse()
        status, text = reply.status, reply.read()
        connection.close()
        return status, text
    try:
        yield post
    finally:
        server.stop()


def test_over_http_with_a_token_gzip_and_too_much() -> None:
    """The way in: 401 without the token, 200 with it, 413 for what is too large, announced or not."""
    source, into = made()
    body = gzip.compress(json.dumps(logs({"body": {"stringValue": "hello"}})).encode())
    with serving(source, "s3cret") as post:
        how = {"Content_Type": "application/json", "Content_Encoding": "gzip"}
        assert post("/v1/logs", body, **how)[0] == 401
        token = {"Authorization": "Bearer s3cret"}
        assert post("/v1/logs", body, **how, **token) == (200, b"{}")
        assert post("/v1/traces", body, **how, **token)[0] == 404
        assert post("/v1/metrics", b"", Content_Type="application/x-protobuf", **token) == (200, b"")
        assert post("/v1/logs", b"", Content_Length=str(1 << 40), **token)[0] == 413
        endless = (b" " * (1 << 20) for _ in range(20))
        with contextlib.suppress(ConnectionError):  # the answer comes, and the connection ends, while this still sends
            assert post("/v1/logs", endless, Content_Type="application/json", Transfer_Encoding="chunked", **token)[0] == 413
        assert source.rejected == {}, "it never got so far"
    source.poll(NOW, into)
    assert into.texts() == ["hello"]


@pytest.mark.parametrize("hollow", [b"\x0a\x00" * 600_000, b"\x0a\xfc\xff\x7f" + b"\x12\x00" * 1_048_574])
@pytest.mark.parametrize("signal", ["logs", "metrics"])
def test_a_request_of_nothing_but_hollow_messages_is_refused(signal: Any, hollow: bytes) -> None:
    """Half a million parts that say nothing would cost seconds; 413, counted."""
    source, _ = made()
    status, _, answer = source.receive(signal, PROTOBUF, hollow)
    assert (status, b"more than 500000 parts" in answer, source.rejected) == (413, True, {"too_many_messages": 1})


def test_slow_senders_keep_nobody_out_and_are_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty of them that never finish their body; each is counted."""
    monkeypatch.setattr("aiops.web.body.BODY_S", 1.0)
    source, _ = made()
    server = Server(create_app(busy(None), pushes=source.pushes), port=0)
    server.start()
    slow = [begun(server.port, "/v1/logs", b"x") for _ in range(40)]
    try:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        connection.request("POST", "/v1/logs", b"{}", {"Content-Type": "application/json"})
        assert connection.getresponse().status == 200
        assert {one.recv(100)[:12] for one in slow} == {b"HTTP/1.1 408"}
        assert server._app.state.refused == {"too_slow": 40}
    finally:
        for one in slow:
            one.close()
        server.stop()


def test_pushed_errors_and_metrics_open_an_incident() -> None:
    """From POST to the incident: through the intake, the pipeline and its detectors; in event time."""
    clock = ManualClock(NOW)
    source = OtlpSource("otlp", 10.0, clock.now, shipped())
    intake = Intake(10.0)
    live = Live(pipeline(), [Source(source, clock)], intake, NoActuator(), [], clock, 10.0, lambda batch: None)
    rng = np.random.default_rng(1)
    for k in range(75):
        clock.sleep_until(NOW + 10.0 * k)
        live.sources[0].poll(intake)
        bad = k > 60
        at = clock.now() - 1
        wait = point(float(rng.normal(1.0, 0.05)) + 9 * bad, at)
        records = [{"severityNumber": 9, "body": {"stringValue": "ok"}}]
        records += [{"severityNumber": 17, "body": {"stringValue": "no"}}] * 30 * bad
        for signal, body in (("metrics", metrics({"name": "queue.wait", "unit": "s", "gauge": {"dataPoints": [wait]}},
                                                 service__name="db")), ("logs", logs(*records, service__name="db"))):
            assert source.receive(signal, JSON, json.dumps(body).encode())[0] == 200  # type: ignore[arg-type]
        live.sources[0].poll(intake)
        live.tick()
    [incident] = live.pipeline.book.open()
    assert {a.signal for a in incident.alerts} >= {"queue_wait_seconds", "log_errors"}
    assert incident.entities == ("service//db",)
