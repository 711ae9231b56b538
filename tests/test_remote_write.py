"""Remote-write end to end: over HTTP into the intake, the door and the daemon, as good and bad senders do it."""

from __future__ import annotations

import http.client
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.remote_write import STALE, Request, block, packed, series_v1, v1, v2
from helpers import pipeline
from test_run import until

from aiops.catalogue import ENDED_S
from aiops.clock import ManualClock
from aiops.feeds import Source
from aiops.intake import Intake
from aiops.links import Known
from aiops.live import Live
from aiops.loop import NoActuator
from aiops.meaning import shipped
from aiops.remote_write.codec import Limits
from aiops.remote_write.reference import Reference
from aiops.remote_write.relabel import Rule
from aiops.sinks.metrics import Metrics
from aiops.sources.remote_write import RemoteWriteSource
from aiops.web.app import create_app
from aiops.web.server import Server

sys.path.insert(0, str(Path(__file__).with_name("browser")))
from web_demo import calm

NOW = 1_795_000_000.0
UP = {"__name__": "up", "job": "api", "instance": "a:80"}
V2_TYPE = "application/x-protobuf;proto=io.prometheus.write.v2.Request"
HEADERS = {"Content-Encoding": "snappy", "Content-Type": "application/x-protobuf", "X-Prometheus-Remote-Write-Version": "0.1.0"}


class Sender:
    """Posts bodies; `batch` is what arrived since the last time."""

    def __init__(self, source: RemoteWriteSource | None, token: str | None = None) -> None:
        self.source, self.intake, self.now = source, Intake(15.0), NOW
        view = calm()
        view.token = token
        self.server = Server(create_app(view, receiver=source), port=0)
        self.server.start()

    def poll(self) -> None:
        assert self.source
        self.source.poll(self.now, self.intake)

    def __call__(self, body: Any, method: str = "POST", **headers: str) -> tuple[int, str, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=20)
        sent = {k: v for k, v in (HEADERS | {k.replace("_", "-"): v for k, v in headers.items()}).items() if v}
        connection.request(method, "/api/v1/write", body, sent)
        reply = connection.getresponse()
        text = reply.read().decode()
        connection.close()
        return reply.status, text, {k.lower(): v for k, v in reply.getheaders()}

    def batch(self) -> Any:
        self.now += 1
        [batch] = self.intake.drain(self.now)
        return batch


@pytest.fixture
def sending() -> Iterator[Callable[..., Sender]]:
    """Starts servers; all are stopped at the end."""
    running: list[Sender] = []

    def start(token: str | None = None, polled: bool = True, **more: Any) -> Sender:
        sender = Sender(RemoteWriteSource("remote_write", shipped(), **more), token)
        running.append(sender)
        if polled:
            sender.poll()
        return sender
    yield start
    for one in running:
        one.server.stop()


# ------------------------------------------------------------------------------------------------------------- what is taken
def test_pushed_samples_have_entity_and_kind_as_polled_ones_have(sending: Callable[..., Sender]) -> None:
    """As the packs say; what no pack knows goes by its labels; the type that 2.0 tells is heard."""
    send = sending()
    cpu = {"__name__": "node_cpu_seconds_total", "instance": "n1:9100", "job": "node", "cpu": "0", "mode": "idle"}
    own = {"__name__": "queue_depth", "namespace": "shop", "pod": "api-1", "job": "x", "instance": "y", "topic": "a"}
    assert send(v1([(cpu, 5.0, NOW), (own, 7.0, NOW)]))[0] == 204
    assert send(v2([({"__name__": "served", "job": "j"}, 1.0, NOW)], kind=1), Content_Type=V2_TYPE)[0] == 204
    batch = send.batch()
    assert [(s.entity, s.metric, s.labels, s.kind) for s in batch.new_series] == [
        ("node//n1:9100", "node_cpu_seconds_total", 'cpu="0",mode="idle"', "counter"),
        ("pod/shop/api-1", "queue_depth", 'topic="a"', "gauge"), ("job//j", "served", "", "counter")]
    assert (batch.series.tolist(), batch.value.tolist()) == ([0, 1, 2], [5.0, 7.0, 1.0])


def test_2_0_is_told_what_was_written(sending: Callable[..., Sender]) -> None:
    """The three headers that the specification wants, for good and for partly bad requests; 1.0 gets none."""
    send = sending()
    request = Request()
    request.add(UP, (1.0, NOW), (STALE, NOW + 1), more=block(4, b"exemplar"))
    status, text, headers = send(packed(request.message()), Content_Type=V2_TYPE)
    written = {k.removeprefix("x-prometheus-remote-write-"): v for k, v in headers.items() if k.startswith("x-prometheus")}
    assert (status, text) == (204, "")
    assert written == {"samples-written": "2", "histograms-written": "0", "exemplars-written": "0"}
    status, text, headers = send(v2([(UP, 1.0, NOW + 2), (UP, 1.0, 0.0)]), Content_Type=V2_TYPE)
    assert (status, headers["x-prometheus-remote-write-samples-written"]) == (400, "1")
    assert text == '{"error":"1 samples were taken, 1 can never be: time_out_of_range 1 (see maxAge and maxAhead)"}'
    assert not [k for k in send(v1([(UP, 1.0, NOW + 3)]))[2] if k.startswith("x-prometheus")]


def test_a_native_histogram_is_counted_and_said_and_the_rest_is_taken(sending: Callable[..., Sender]) -> None:
    """400, so that its sender's operator learns of it; Prometheus does not send it again."""
    send = sending()
    status, text, _ = send(packed(series_v1(UP, (1.0, NOW)) + series_v1({"__name__": "h"}, more=block(4, b"buckets"))))
    assert (status, text) == (400, '{"error":"1 samples were taken, 1 can never be: histogram 1 (native ones are not read)"}')
    assert len(send.batch().series) == 1


def test_rules_choose_and_rename_what_is_watched(sending: Callable[..., Sender]) -> None:
    """Two replicas of a Prometheus become one series; what is dropped is no fault of the sender."""
    send = sending(rules=[Rule("drop", ("__name__",), regex="go_.*"), Rule("labeldrop", regex="replica")])
    rows = [(UP | {"replica": r}, 1.0, NOW) for r in "ab"] + [({"__name__": "go_gc", "job": "a"}, 1.0, NOW)]
    assert send(v2(rows), Content_Type=V2_TYPE)[2]["x-prometheus-remote-write-samples-written"] == "3"
    assert send.batch().series.tolist() == [0, 0]
    assert send.source.skipped == {"not_watched": 1}  # type: ignore[union-attr]


def test_names_of_prometheus_3_become_plain_and_never_merge_series(sending: Callable[..., Sender]) -> None:
    """Dots and quotes in names, which could not be told apart from syntax later."""
    send = sending()
    odd = {"__name__": "m", "k8s.pod": "a", 'x="1",y': "b", "9": "c"}
    assert send(v1([(odd, 1.0, NOW)]))[0] == 204
    assert [s.labels for s in send.batch().new_series] == ['_9="c",k8s_pod="a",x__1__y="b"']
    status, text, _ = send(v1([({"__name__": "m", "a.b": "1", "a_b": "2"}, 1.0, NOW)]))
    assert status == 400 and "duplicate_label 1" in text


# ------------------------------------------------------------------------------------------------------------ what is refused
@pytest.mark.parametrize(("body", "headers", "status", "said"), [
    (b"x", {"Content_Type": "application/json"}, 415, "Send application/x-protobuf"),
    (b"x", {"Content_Type": "application/x-protobuf;proto=some.Other"}, 415, "'some.Other' is not understood"),
    (b"x", {"Content_Encoding": "gzip"}, 415, "Content-Encoding 'gzip' is not understood. Send snappy"),
    (b"", {}, 400, "does not begin with the length of a snappy block"), (b"\xff" * 40, {}, 400, "snappy"),
    (b"\xff\xff\xff\xff\x0f", {}, 413, "4294967295 bytes uncompressed; at most 67108864 are taken"),
    (packed(series_v1(UP, (1.0, NOW))[:-3]), {}, 400, "malformed at byte 0 of the uncompressed message: it ends in the middle"),
    (packed(b"\x08\x01"), {}, 400, "a field has another type than the protocol says"),
    (v1([({"job": "a"}, 1.0, NOW)]), {}, 400, "0 samples were taken, 1 can never be: no_name 1"),
    (v1([({"__name__": "x"} | {f"l{i}": "" for i in range(100_000)}, 1.0, NOW)]), {}, 400, "too_many_labels 1"),
    (bytes(2 << 20), {}, 413, "the body has 2097152 bytes; at most 1048576 are taken")])
def test_a_bad_request_is_told_what_is_wrong_and_harms_nobody(
        sending: Callable[..., Sender], body: bytes, headers: dict[str, str], status: int, said: str) -> None:
    """No retry is asked for, and the next request is taken."""
    send = sending(max_body=1 << 20)
    got, text, answer = send(body, **headers)
    assert (got, said in text) == (status, True), text
    assert "retry-after" not in answer
    assert send(v1([(UP, 1.0, NOW)]))[0] == 204


def test_a_body_without_a_length_is_cut_off_at_the_limit(sending: Callable[..., Sender]) -> None:
    """Sent in chunks, as much as it likes."""
    send = sending(max_body=1 << 20)
    assert send(iter([bytes(1 << 18)] * 4 + [b"x"]))[0] == 413
    assert send(iter([v1([(UP, 1.0, NOW)])]))[0] == 204


def test_the_token_is_asked_for(sending: Callable[..., Sender]) -> None:
    """As Prometheus sends it with `authorization: {credentials_file: …}`."""
    send = sending(token="s3cret")
    sent = {"": 401, "Bearer wrong": 401, "Bearer s3cret": 204}
    assert {given: send(v1([(UP, 1.0, NOW)]), Authorization=given)[0] for given in sent} == sent


def test_without_a_source_the_remedy_is_told() -> None:
    """404, and what to write into the configuration."""
    sender = Sender(None)
    try:
        status, text, _ = sender(v1([(UP, 1.0, NOW)]))
        assert status == 404 and "Add 'remote_write: {}' to the sources" in text
    finally:
        sender.server.stop()


def test_only_posts_are_answered_and_before_the_first_poll_it_is_too_early(sending: Callable[..., Sender]) -> None:
    """503 with Retry-After: the sender keeps its samples."""
    send = sending(polled=False)
    assert send(None, "GET")[0] == 405
    status, _, headers = send(v1([(UP, 1.0, NOW)]))
    assert (status, headers["retry-after"]) == (503, "5")


def begun(port: int, path: str, *parts: bytes) -> socket.socket:
    """A connection on which a POST has begun, with as much of its body."""
    made = socket.create_connection(("127.0.0.1", port), 10)
    made.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-protobuf\r\n"
                 "Content-Length: 1000\r\n\r\n".encode() + b"".join(parts))
    return made


def test_every_kind_of_refusal_is_counted_by_reason(sending: Callable[..., Sender], monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not even looked at, for all endpoints together; and what could not be read, for this source."""
    monkeypatch.setattr("aiops.web.body.BODY_S", 0.2)
    send = sending(token="s3cret", max_body=1 << 20)
    assert send(bytes(64 << 20))[0] == 401
    good = {"Authorization": "Bearer s3cret"}
    send.server._app.state.view.token = None
    for body, headers in ((b"", {"Content_Encoding": "gzip"}), (b"", {"Content_Type": "a/b"}), (bytes(2 << 20), {}),
                          (b"", {"Content_Type": "application/x-protobuf;proto=x"}), (b"", {"Origin": "http://evil"}),
                          (b"\xff" * 9, {}), (b"\xff\xff\xff\xff\x0f", {}), (packed(b"\x0a\xff"), {}), (packed(b"\x08\x01"), {}),
                          (packed(b"\x0a" + b"\xff" * 11), {}), (packed(b"\x00\x00"), {}), (v1([(UP, 1.0, 0.0)]), {})):
        assert send(body, **good, **headers)[0] in (400, 403, 413, 415)
    with begun(send.server.port, "/api/v1/write", b"slow") as slow:
        assert b"408" in slow.recv(100)
    begun(send.server.port, "/api/v1/write", b"half").close()
    counted = send.server._app.state.refused
    until(lambda: counted["cut_off"] == 1, 5, "the broken connection")
    assert counted == {"no_token": 1, "content_encoding": 1, "content_type": 1, "too_large": 1, "message_type": 1,
                       "other_origin": 1, "too_slow": 1, "cut_off": 1}
    assert send.source and send.source.refused == {"not_snappy": 1, "too_large": 1, "truncated": 1, "wrong_type": 1,
                                                   "varint_overflow": 1, "bad_tag": 1}
    assert send.source.rejected == {**send.source.refused, "time_out_of_range": 1}


# ----------------------------------------------------------------------------------------------------------------- pressure
def test_what_does_not_fit_is_asked_for_again_and_nothing_is_lost_or_taken_twice(sending: Callable[..., Sender],
                                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    """429 with Retry-After; the same body is taken whole after the next step."""
    monkeypatch.setattr("aiops.intake.MAX_SAMPLES", 3)
    send = sending()
    first, second = (v1([(UP | {"n": str(k)}, 1.0, NOW + i) for k in range(2)]) for i in range(2))
    assert send(first)[0] == 204
    status, text, headers = send(second)
    assert (status, headers["retry-after"], "come again" in text) == (429, "5", True)
    assert len(send.batch().series) == 2
    assert send(second)[0] == 204
    assert send.batch().time.tolist() == [NOW + 1, NOW + 1]
    assert send.source.counts == {"samples": 4, "refused": 2, "ended": 0}  # type: ignore[union-attr]


def test_series_without_room_are_counted_and_asked_for_again_later(sending: Callable[..., Sender],
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    """Once others were retired; until then they cost a look-up."""
    send = sending()
    send.intake.catalogue.limit = 1
    body = v1([(UP, 1.0, NOW), (UP | {"n": "1"}, 1.0, NOW)])
    assert [send(body)[0], send(body)[0]] == [204, 204]
    assert send.source.skipped == {"no_room": 2}  # type: ignore[union-attr]
    assert send.intake.catalogue.refused == {"too_many_series": 1}
    send.now += 61
    send.poll()
    assert send(body)[0] == 204
    assert send.intake.catalogue.refused == {"too_many_series": 1}
    send.intake.catalogue.limit = 2
    send.source.forget(np.array([7], np.int32))  # type: ignore[union-attr]
    send.now += 61
    send.poll()
    assert send(body)[0] == 204
    assert sorted(n for batch in send.intake.drain(send.now) for n in batch.series.tolist()) == [0, 0, 0, 0, 1]


def test_many_senders_at_once_lose_nothing(sending: Callable[..., Sender]) -> None:
    """Eight of them, ten requests each, all with the same series."""
    send = sending()
    failed: list[object] = []

    def push(k: int) -> None:
        for i in range(10):
            answer = send(v1([(UP | {"n": str(n)}, float(k), NOW + i) for n in range(50)]))
            if answer[0] != 204:
                failed.append(answer)
    threads = [threading.Thread(target=push, args=(k,)) for k in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    batch = send.batch()
    assert not failed and len(batch.series) == 8 * 10 * 50 and len(batch.new_series) == 50


# ------------------------------------------------------------------------------------------------------ beyond the intake
def test_late_and_doubled_samples_are_the_doors_affair_and_no_reason_to_come_again(sending: Callable[..., Sender]) -> None:
    """Counted there by reason; the sender hears 204."""
    send, core = sending(), pipeline()
    assert send(v1([(UP, 1.0, NOW), (UP, 1.0, NOW)]))[0] == 204
    core.step(send.batch())
    assert send(v1([(UP, 1.0, NOW - 5), (UP, 1.0, NOW)]))[0] == 204
    report = core.step(send.batch())
    assert dict(report.counts.dropped) == {"duplicate": 1, "late_or_duplicate": 1}


def test_the_end_of_a_series_is_told_and_a_retired_one_is_interned_anew() -> None:
    """A quarter of an hour after the sender said that a pod's series ended it is given up; then it may come again."""
    pod = {"__name__": "queue", "namespace": "a", "pod": "b"}
    source, intake = RemoteWriteSource("remote_write", shipped()), Intake(15.0)
    source.poll(NOW, intake)
    assert source.write(v1([(pod, 1.0, NOW)]), 1).status == 204
    assert source.write(v1([(pod, STALE, NOW + 15)]), 1).status == 204
    assert intake.drain(NOW + 15)[-1].retired.tolist() == []
    assert source.known() == 1
    assert intake.drain(NOW + 15 + ENDED_S + 1)[-1].retired.tolist() == [0]
    assert source.known() == 0
    assert source.write(v1([(pod, 1.0, NOW + 20)]), 1).status == 204
    assert [s.id for b in intake.drain(NOW + 15 + ENDED_S + 16) for s in b.new_series] == [1]


def test_the_pod_that_works_on_a_gpu_is_an_edge_that_follows_it() -> None:
    """The GPU's series keeps its number when dcgm-exporter names another pod; the topology changes within ten minutes."""
    def gpu(pod: str) -> dict[str, str]:
        return {"__name__": "DCGM_FI_DEV_GPU_UTIL", "Hostname": "n1", "gpu": "0", "exported_pod": pod, "exported_namespace": "ml",
                "pod": "dcgm-exporter-x", "namespace": "gpu"}

    source, intake = RemoteWriteSource("remote_write", shipped()), Intake(15.0)
    told, users = Known(), list[set[str]]()
    for minute in range(24):
        at = NOW + 60 * minute
        source.poll(at, intake)
        assert source.write(v1([(gpu("a" if minute < 6 else "b"), 1.0, at)]), 1).status == 204
        source.poll(at, intake)
        for links in (b.links for b in intake.drain(at) if b.links):
            told.put(links)
            users.append({e.source for e in told.edges})
    assert users[0] == {"pod/ml/a"} and users[-1] == {"pod/ml/b"}
    assert len(intake.catalogue) == 1


def test_a_decoder_that_fails_is_replaced_by_the_one_in_python() -> None:
    """And it is said; no sample is lost."""
    class Broken(Reference):
        def scan(self, *_: Any) -> Any:
            raise RuntimeError("the native decoder failed")

    source, intake = RemoteWriteSource("remote_write", shipped(), decoder=Broken()), Intake(15.0)
    source.poll(NOW, intake)
    assert source.write(v1([(UP, 1.0, NOW)]), 1).status == 204
    assert source.decoder == "python" and "Please report" in source.notes["decoder failed"]


def test_pushed_telemetry_runs_through_a_live_daemon_into_its_metrics() -> None:
    """Supervised like any source; after its end senders are told to come again, to the next daemon."""
    clock = ManualClock(NOW)
    source = RemoteWriteSource("remote_write", shipped(), limits=Limits(labels=8))
    supervised, metrics = Source(source, clock), Metrics("0")
    metrics.watch("aiops_remote_write_skipped", "x", "reason", lambda: source.skipped)
    live = Live(pipeline(), [supervised], Intake(15.0), NoActuator(), [metrics], clock, 15.0, lambda batch: None)
    assert supervised.poll(live.intake)
    assert "nothing was pushed yet" in str(supervised.status()["notes"])
    for k in range(4):
        assert source.write(v1([(UP, 1.0, NOW + 15 * k), (UP, float("nan"), NOW + 15 * k)]), 1).status == 204
        clock.sleep_until(NOW + 15 * (k + 1))
        supervised.poll(live.intake)
        live.tick()
    assert live.last is not None and live.last.counts.series == 1 and live.last.counts.samples == 4
    assert "4 samples taken; not: not a number 4" in supervised.status()["notes"]
    clock.sleep_until(clock.now() + 300)
    supervised.poll(live.intake)
    assert "nothing was pushed for 5 min. Is the sender there, and what does its log say?" in supervised.status()["notes"]
    source.write(v1([(UP, 1.0, clock.now())]), 1)
    supervised.poll(live.intake)
    assert "nothing was pushed for" not in str(supervised.status()["notes"])
    assert 'aiops_remote_write_skipped_total{reason="not_a_number"} 4.0' in metrics.text()
    live.stop(source.close)
    supervised.source.poll(NOW + 90, live.intake)
    assert source.write(v1([(UP, 1.0, NOW + 60)]), 1).status == 503
