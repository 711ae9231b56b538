"""Logs of pods against a small API server over real HTTP: no gap and no double over breaks, restarts and rotation."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fakes.collected import Collected
from fakes.kube_watch import KubeWatch

from aiops.sources.kubernetes import kinds as kubekinds
from aiops.sources.kubernetes import podlogs, reflector
from aiops.sources.kubernetes.source import KubernetesSource

NOW = 1_795_000_000.0
PODS = "/api/v1/pods"
EVERY = [f"{kind.root}/{kind.plural}" for kind in kubekinds.ALWAYS]
LOG = "/api/v1/namespaces/shop/pods/api-x/log"


def line(after_s: float, text: str, digits: str = "") -> str:
    return f"{datetime.fromtimestamp(NOW + after_s, UTC):%Y-%m-%dT%H:%M:%S}{digits}Z {text}"


def pod(name: str = "api-x", restarts: int = 0, running: bool = True, containers: tuple[str, ...] = ("c",),
        app: str = "api") -> dict[str, Any]:
    state: dict[str, Any] = {"running": {}} if running else {"terminated": {"exitCode": 1}}
    return {"metadata": {"name": name, "namespace": "shop", "uid": f"uid-{name}", "labels": {"app": app}},
            "spec": {"containers": [{"name": c} for c in containers]},
            "status": {"phase": "Running", "containerStatuses": [
                {"name": c, "restartCount": restarts, "state": state} for c in containers]}}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[KubeWatch]:
    for name, value in {"FIRST_WAIT_S": 0.001, "LEAST_WAIT_S": 0.001, "MOST_WAIT_S": 0.05}.items():
        monkeypatch.setattr(reflector, name, value)
    fake = KubeWatch({path: [] for path in EVERY})
    yield fake
    fake.close()


@pytest.fixture
def source(server: KubeWatch, tmp_path: Path) -> Iterator[KubernetesSource]:
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "lab",
        "clusters": [{"name": "lab", "cluster": {"server": server.url}}], "users": [{"name": "me", "user": {"token": "t"}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "me"}}]}))
    made = KubernetesSource(kubeconfig=path, log_selector="app=api", events=False, states=False)
    yield made
    made.close()


def until(source: KubernetesSource, holds: Callable[[Collected], bool], got: Collected | None = None) -> Collected:
    """Everything that polls hand over until it holds."""
    got, deadline = got or Collected(), time.monotonic() + 60.0
    while True:
        source.poll(NOW + 20, got)
        if holds(got):
            return got
        assert time.monotonic() < deadline, f"did not come; lines: {got.texts()}, notes: {source.notes}"
        source.fresh.wait(0.05)


def test_lines_come_as_they_are_written(source: KubernetesSource, server: KubeWatch) -> None:
    """By the pod's entity, with the time of the kubelet, JSON made plain; other pods are not read."""
    server.put(PODS, pod())
    server.put(PODS, pod("db-0", app="db"))
    server.write("shop", "api-x", "c", line(0, "first", ".123456789"), line(0, '{"msg":"second","level":"error"}', ".2"))
    got = until(source, lambda got: len(got.lines) == 2)
    assert [(x.entity, x.text) for x in got.lines] == [("pod/shop/api-x", "first"), ("pod/shop/api-x", "ERROR second")]
    assert got.lines[0].time == pytest.approx(NOW + 0.123456789)
    server.write("shop", "api-x", "c", line(5, "third"))
    assert until(source, lambda got: bool(got.lines)).texts() == ["third"]
    assert len(server.seen(LOG)) == 1
    assert server.seen(LOG)[0].args == {"container": "c", "follow": "true", "timestamps": "true",
                                        "sinceTime": line(-10, "")[:-1]}
    assert "app=api" in {r.args.get("labelSelector") for r in server.seen(PODS)}


def test_after_a_break_nothing_is_missing_and_nothing_double(source: KubernetesSource, server: KubeWatch) -> None:
    """The API knows only seconds: the last one is asked for again. Equal lines of the same time were two, and stay two."""
    written = [line(7, f"a{n}", f".{n}") for n in range(4)] + [line(8, "same", ".5"), line(8, "same", ".5")]
    server.put(PODS, pod())
    server.write("shop", "api-x", "c", *written)
    got = until(source, lambda got: len(got.lines) == 6)
    for n in range(6):
        server.fault = lambda r: 503 if r.path == LOG else None
        server.cut(logs=True)
        server.write("shop", "api-x", "c", line(8, f"late{n}", f".{n}1"), line(8, "same", ".5"))
        server.fault = lambda r: None
        until(source, lambda got, n=n: len(got.lines) >= 6 + 2 * (n + 1), got)
    assert sorted(got.texts()) == sorted(x.split(" ", 1)[1] for x in server.logs["shop", "api-x", "c"][0])
    assert {r.args["sinceTime"] for r in server.seen(LOG)[1:]} == {line(8, "")[:-1]}


def test_a_restart_of_the_container_loses_no_last_words(source: KubernetesSource, server: KubeWatch) -> None:
    """While the connection was away it crashed and came again: the previous instance's log is read to its end first."""
    server.put(PODS, pod())
    server.write("shop", "api-x", "c", line(1, "works"))
    got = until(source, lambda got: got.texts() == ["works"])
    server.fault = lambda r: 500 if r.path == LOG else None
    server.cut(logs=True)
    server.write("shop", "api-x", "c", line(2, "panic: out of luck"))
    server.write("shop", "api-x", "c", line(3, "starts again"), restarted=True)
    server.put(PODS, pod(restarts=1))
    server.fault = lambda r: None
    until(source, lambda got: len(got.lines) >= 3, got)
    assert got.texts() == ["works", "panic: out of luck", "starts again"]


def test_of_a_container_that_has_ended_the_rest_is_read_once(source: KubernetesSource, server: KubeWatch) -> None:
    """Its last line may lack an end. No request in a circle until it starts again, and then it goes on."""
    server.put(PODS, pod(running=False))
    server.write("shop", "api-x", "c", line(1, "done") + "\r", ended=True)
    got = until(source, lambda got: got.texts() == ["done"])
    server.write("shop", "api-x", "c", line(9, "again"), restarted=True)
    server.put(PODS, pod(restarts=1))
    until(source, lambda got: got.texts() == ["done", "again"], got)
    assert len(server.seen(LOG)) <= 8


def test_a_line_without_an_end_is_cut_and_counted(source: KubernetesSource, server: KubeWatch) -> None:
    """Its beginning is handed over, the rest is skipped, and the next line is whole."""
    server.put(PODS, pod())
    server.write("shop", "api-x", "c", line(1, "x" * 1_000_000), line(2, "next"))
    got = until(source, lambda got: len(got.lines) == 2)
    assert [len(t) for t in got.texts()] == [podlogs.MAX_LINE_BYTES + podlogs.STAMP_CHARS - len(line(1, "")), 4]
    server.cut(logs=True)
    until(source, lambda got: source.dropped["too_long"] >= 1)


def test_odd_bytes_and_lines_without_a_time_do_no_harm(source: KubernetesSource, server: KubeWatch) -> None:
    """The kubelet's own complaints stand in the log without a time: counted. Bytes that are no UTF-8 are replaced."""
    server.put(PODS, pod())
    server.write("shop", "api-x", "c", "unable to retrieve container logs for containerd://1", line(1, "caf\udce9"), line(2, ""),
                 "2026-99-99T99:99:99Z no such day", line(3, "fine"))
    got = until(source, lambda got: len(got.lines) == 2)
    assert got.texts() == ["caf�", "fine"]
    assert source.dropped["no_time"] == 2


def test_one_pod_without_logs_does_not_stop_the_others(source: KubernetesSource, server: KubeWatch) -> None:
    """It is named in the notes, once it works no more."""
    for name in ("bad", "good"):
        server.put(PODS, pod(name))
        server.write("shop", name, "c", line(1, name))
    server.fault = lambda r: 500 if "/bad/" in r.path else None
    got = until(source, lambda got: got.texts() == ["good"] and "log shop/bad/c" in source.notes)
    assert "/pods/bad/log: HTTP 500: sorry 500" in source.notes["log shop/bad/c"]
    server.fault = lambda r: None
    until(source, lambda got: sorted(got.texts()) == ["bad", "good"], got)


def test_streams_are_bounded_and_a_pod_that_goes_makes_room(source: KubernetesSource, server: KubeWatch,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    """Which are left out is told."""
    monkeypatch.setattr(podlogs, "MAX_STREAMS", 2)
    monkeypatch.setattr(podlogs, "LAST_WORDS_S", 0.01)
    for name in ("a", "b", "c"):
        server.put(PODS, pod(name))
        server.write("shop", name, "c", line(1, name))
    got = until(source, lambda got: len(got.lines) == 2 and "log logs" in source.notes)
    assert "3 containers match; only 2 are followed" in source.notes["log logs"]
    server.delete(PODS, "a")
    until(source, lambda got: sorted(got.texts()) == ["a", "b", "c"], got)
    until(source, lambda got: "log logs" not in source.notes)


def test_what_waits_is_bounded_and_nothing_of_it_is_lost(source: KubernetesSource, server: KubeWatch,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    """While nobody polls the connection is not read; the rest stays with the kubelet."""
    monkeypatch.setattr(podlogs, "MAX_WAITING_BYTES", 20_000)
    monkeypatch.setattr(podlogs, "FULL_WAIT_S", 0.001)
    server.put(PODS, pod())
    server.write("shop", "api-x", "c", *(line(1, f"{n} {'y' * 1000}") for n in range(10_000)))
    got = Collected()
    most = 0
    until(source, lambda got: bool(got.lines), got)
    before = len(got.lines)
    while len(got.lines) < 10_000:
        source.fresh.wait(0.01)
        source.poll(NOW + 20, got)
        most, before = max(most, len(got.lines) - before), len(got.lines)
    assert [int(t.split()[0]) for t in got.texts()] == list(range(10_000))
    assert most < 2000  # a buffer of the connection more than the bound


def test_lines_that_are_not_taken_wait(source: KubernetesSource, server: KubeWatch) -> None:
    """In their order, and they count for what may wait."""
    server.put(PODS, pod())
    server.write("shop", "api-x", "c", *(line(1, f"{n}") for n in range(9)))
    got = Collected(room=0)
    while len(got.lines) < 9:
        until(source, lambda got: got.room == 0, got)
        got.room = 3
    assert got.texts() == [f"{n}" for n in range(9)]


def test_a_silent_stream_is_opened_anew(source: KubernetesSource, server: KubeWatch, monkeypatch: pytest.MonkeyPatch) -> None:
    """A half-open connection is silent for ever."""
    monkeypatch.setattr(podlogs, "IDLE_S", 0.1)
    server.put(PODS, pod())
    server.write("shop", "api-x", "c", line(1, "one"))
    server.fault = lambda r: "stall" if r.path == LOG and len(server.seen(LOG)) == 1 else None
    until(source, lambda got: got.texts() == ["one"])
    assert len(server.seen(LOG)) >= 2
