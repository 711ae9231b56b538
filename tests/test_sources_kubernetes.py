"""The Kubernetes source against a small API server over real HTTP: chunks, failures, topology, rollouts, events."""

from __future__ import annotations

import copy
import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fakes.collected import Collected
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from aiops.sources import kubeapi
from aiops.sources.kubeapi import KubeError
from aiops.sources.kubernetes import KubernetesSource

NOW = 1_795_000_000.0


def stamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def meta(name: str, namespace: str = "shop", owner: tuple[str, str] | None = None, **more: Any) -> dict[str, Any]:
    owners = [{"kind": owner[0], "name": owner[1], "uid": "u", "controller": True}] if owner else None
    return {"name": name, "namespace": namespace, "uid": f"uid-{name}", "managedFields": [{"x": 1}],
            "creationTimestamp": stamp(NOW - 86400), **({"ownerReferences": owners} if owners else {}), **more}


def pod(name: str, owner: tuple[str, str] | None = None, node: str | None = "gpu-1", phase: str = "Running") -> dict[str, Any]:
    spec = {"containers": [{"name": "c", "image": "api:1"}], **({"nodeName": node} if node else {})}
    return {"metadata": meta(name, owner=owner), "spec": spec, "status": {"phase": phase, "podIP": "10.0.0.1"}}


def deployment(revision: str = "3", image: str = "api:1", replicas: int = 2, **annotations: str) -> dict[str, Any]:
    return {"metadata": meta("api", annotations={"deployment.kubernetes.io/revision": revision, **annotations}, generation=5),
            "spec": {"replicas": replicas, "template": {"spec": {"containers": [{"name": "c", "image": image}]}}}}


def warning(name: str, at: float, version: str = "1", kind: str = "Pod", target: str = "api-x") -> dict[str, Any]:
    return {"metadata": meta(name, resourceVersion=version), "type": "Warning", "reason": "BackOff",
            "involvedObject": {"kind": kind, "namespace": "shop", "name": target},
            "message": "restarting failed container", "eventTime": None, "lastTimestamp": stamp(at)}


SHOP: dict[str, list[dict[str, Any]]] = {
    "/api/v1/pods": [pod("api-x", ("ReplicaSet", "api-1")), pod("db-0", ("StatefulSet", "db")),
                     pod("done", phase="Succeeded"), pod("waiting", node=None, phase="Pending"),
                     pod("static", ("Node", "gpu-1"))],
    "/apis/apps/v1/replicasets": [{"metadata": meta("api-1", owner=("Deployment", "api")), "spec": {"replicas": 2}}],
    "/apis/apps/v1/deployments": [deployment(**{"aiops.io/criticality": "3"})],
    "/apis/apps/v1/statefulsets": [{"metadata": meta("db"), "spec": {"replicas": 1}, "status": {"updateRevision": "db-1"}}],
    "/apis/apps/v1/daemonsets": [],
    "/api/v1/services": [{"metadata": meta("api", labels={"aiops.io/proxy": "true", "x": "y"}), "spec": {}}],
    "/apis/discovery.k8s.io/v1/endpointslices": [
        {"metadata": meta("api-abc", labels={"kubernetes.io/service-name": "api"}), "addressType": "IPv4",
         "endpoints": [{"addresses": ["10.0.0.1"], "targetRef": {"kind": "Pod", "name": "api-x", "namespace": "shop"}},
                       {"addresses": ["10.0.0.9"], "targetRef": {"kind": "Pod", "name": "done", "namespace": "shop"}},
                       {"addresses": ["10.1.0.1"]}]},
        {"metadata": meta("lonely"), "endpoints": None}],
    "/api/v1/nodes": [{"metadata": {**meta("gpu-1"), "namespace": ""},
                       "status": {"capacity": {"cpu": "8", "nvidia.com/gpu": "2"}}}],
    "/api/v1/events": [],
}


class FakeApiServer:
    """Lists in chunks of `chunk`; `fails` maps a path to the statuses of its next answers."""

    def __init__(self, server: HTTPServer) -> None:
        self.objects, self.chunk = copy.deepcopy(SHOP), 500
        self.fails: dict[str, list[int]] = {}
        self.asked: list[Request] = []
        self.url = server.url_for("").rstrip("/")
        for path in self.objects:
            server.expect_request(path).respond_with_handler(self._list)
        server.expect_request("/api/v1/namespaces/shop/pods").respond_with_handler(
            lambda r: self._list(r, "/api/v1/pods"))

    def _list(self, request: Request, path: str = "") -> Response:
        self.asked.append(request)
        waiting = self.fails.get(request.path, [])
        if waiting:
            status = waiting.pop(0)
            if status != 200:
                return Response(json.dumps({"kind": "Status", "message": f"sorry {status}", "code": status}), status=status)
        items = self.objects[path or request.path]
        first = int(request.args.get("continue", 0))
        last = first + min(self.chunk, int(request.args["limit"]))
        token = str(last) if last < len(items) else ""
        body = {"kind": "List", "metadata": {"resourceVersion": "77", **({"continue": token} if token else {})},
                "items": items[first:last]}
        return Response(json.dumps(body), content_type="application/json")


@pytest.fixture
def server(httpserver: HTTPServer) -> FakeApiServer:
    return FakeApiServer(httpserver)


@pytest.fixture
def kubeconfig(server: FakeApiServer, tmp_path: Path) -> Path:
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "lab",
        "clusters": [{"name": "lab", "cluster": {"server": server.url}}],
        "users": [{"name": "me", "user": {"token": "the-token"}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "me"}}]}))
    return path


@pytest.fixture
def source(kubeconfig: Path) -> KubernetesSource:
    return KubernetesSource(kubeconfig=kubeconfig)


def poll(source: KubernetesSource, now: float = NOW) -> Collected:
    got = Collected()
    source.poll(now, got)
    return got


def edges(got: Collected) -> set[tuple[str, str, str]]:
    return {(e.source, e.target, e.kind) for e in got.topology[-1][1].edges}


def test_topology_says_who_depends_on_whom(source: KubernetesSource) -> None:
    """Service and workload own the pod (no ReplicaSet in between), the pod runs on the node, the node uses its GPUs."""
    assert edges(poll(source)) == {
        ("pod/shop/api-x", "node//gpu-1", "runs_on"), ("pod/shop/db-0", "node//gpu-1", "runs_on"),
        ("pod/shop/static", "node//gpu-1", "runs_on"),
        ("deployment/shop/api", "pod/shop/api-x", "owns"), ("statefulset/shop/db", "pod/shop/db-0", "owns"),
        ("service/shop/api", "pod/shop/api-x", "owns"),
        ("node//gpu-1", "gpu/gpu-1/0", "uses"), ("node//gpu-1", "gpu/gpu-1/1", "uses")}


def test_nodes_carry_criticality_and_the_proxy_label(source: KubernetesSource) -> None:
    """And finished pods are no part of the graph, waiting ones are."""
    nodes = {n.entity: n for n in poll(source).topology[0][1].nodes}
    assert nodes["deployment/shop/api"].criticality == 3.0
    assert nodes["service/shop/api"].labels == {"proxy": "true"}
    assert "pod/shop/waiting" in nodes
    assert "pod/shop/done" not in nodes


def test_topology_is_told_only_when_it_changed(source: KubernetesSource, server: FakeApiServer) -> None:
    """A cluster at rest gives no new links; a pod that moves does."""
    poll(source)
    assert poll(source).topology == []
    server.objects["/api/v1/pods"][0]["spec"]["nodeName"] = "gpu-2"
    assert ("pod/shop/api-x", "node//gpu-2", "runs_on") in edges(poll(source))


def test_long_lists_come_in_chunks_with_the_token_sent_back(source: KubernetesSource, server: FakeApiServer) -> None:
    """Five pods in chunks of two are three requests, each with its limit and the bearer token."""
    server.chunk = 2
    got = poll(source)
    asked = [r for r in server.asked if r.path == "/api/v1/pods"]
    assert [r.args.get("continue") for r in asked] == [None, "2", "4"]
    assert {(r.args["limit"], r.headers["Authorization"]) for r in asked} == {("500", "Bearer the-token")}
    assert len([n for n in got.topology[0][1].nodes if n.entity.startswith("pod/")]) == 4


def test_an_expired_token_starts_the_list_anew_once(source: KubernetesSource, server: FakeApiServer) -> None:
    """410 Gone in the middle: from the beginning, nothing doubled. Twice in a row is a failure."""
    server.chunk = 2
    server.fails["/api/v1/pods"] = [200, 410]
    got = poll(source)
    assert [r.args.get("continue") for r in server.asked if r.path == "/api/v1/pods"] == [None, "2", None, "2", "4"]
    assert len([n for n in got.topology[0][1].nodes if n.entity.startswith("pod/")]) == 4
    server.fails["/api/v1/pods"] = [410, 410]
    with pytest.raises(KubeError, match=r"/api/v1/pods: HTTP 410: sorry 410"):
        poll(source)


@pytest.mark.parametrize("status", [401, 403, 500, 503])
def test_a_failure_is_one_request_and_says_what_and_where(source: KubernetesSource, server: FakeApiServer, status: int) -> None:
    """No retries here: the supervisor backs off. The server's own words are in the message, the token is not."""
    server.fails["/api/v1/pods"] = [status] * 9
    with pytest.raises(KubeError, match=rf"Kubernetes /api/v1/pods: HTTP {status}: sorry {status}") as error:
        poll(source)
    assert error.value.status == status
    assert "the-token" not in str(error.value)
    assert Counter(r.path for r in server.asked) == {"/api/v1/pods": 1}


@pytest.mark.parametrize("path", ["/api/v1/events", "/apis/apps/v1/replicasets", "/api/v1/nodes"])
def test_a_missing_right_is_named_and_the_rest_goes_on(source: KubernetesSource, server: FakeApiServer, path: str) -> None:
    """Least privilege must not mean no topology at all. Once granted, the note is gone."""
    server.fails[path] = [403]
    got = poll(source)
    assert ("service/shop/api", "pod/shop/api-x", "owns") in edges(got)
    (note,) = source.notes.values()
    assert f"{path}: HTTP 403: sorry 403. Grant the right" in note
    poll(source)
    assert source.notes == {}


def test_a_rollout_is_a_change_of_its_deployment(source: KubernetesSource, server: FakeApiServer) -> None:
    """New revision and image: one event. Nothing at rest, nothing at the first sight of what ran all day."""
    assert poll(source).events == []
    server.objects["/apis/apps/v1/deployments"] = [deployment("4", "api:2")]
    (event,) = poll(source, NOW + 30).events
    assert (event.time, event.entity, event.kind, event.reason) == (NOW + 30, "deployment/shop/api", "change", "Rollout")
    assert event.text == "revision 3 -> 4; image api:1 -> api:2"
    assert poll(source, NOW + 60).events == []


def test_scaling_is_a_change_too_and_not_a_rollout(source: KubernetesSource, server: FakeApiServer) -> None:
    """Replicas by hand or autoscaler."""
    poll(source)
    server.objects["/apis/apps/v1/deployments"] = [deployment(replicas=4)]
    (event,) = poll(source).events
    assert (event.reason, event.text) == ("Scaled", "replicas 2 -> 4")


def test_a_stateful_set_tells_by_its_update_revision(source: KubernetesSource, server: FakeApiServer) -> None:
    """It has no revision annotation."""
    poll(source)
    server.objects["/apis/apps/v1/statefulsets"][0]["status"]["updateRevision"] = "db-2"
    assert [(e.entity, e.text) for e in poll(source).events] == [("statefulset/shop/db", "revision db-1 -> db-2")]


def test_a_rollout_shortly_before_the_start_is_known(source: KubernetesSource, server: FakeApiServer) -> None:
    """The daemon may start because of it: the ReplicaSet's age tells when. An old or empty one is no change."""
    def replicaset(name: str, age: float, replicas: int = 2) -> dict[str, Any]:
        made = meta(name, owner=("Deployment", "api"), annotations={"deployment.kubernetes.io/revision": "3"})
        return {"metadata": {**made, "creationTimestamp": stamp(NOW - age)}, "spec": {
            "replicas": replicas, "template": {"spec": {"containers": [{"image": "api:1"}]}}}}
    server.objects["/apis/apps/v1/replicasets"] = [
        replicaset("api-1", 600), replicaset("api-0", 90_000), replicaset("api-9", 700, 0)]
    (event,) = poll(source).events
    assert (event.time, event.entity, event.text) == (NOW - 600, "deployment/shop/api", "revision 3; image api:1")
    assert poll(source).events == []


def test_a_warning_is_told_when_it_happens_and_when_it_happens_again(source: KubernetesSource, server: FakeApiServer) -> None:
    """The API keeps an event for an hour and counts it up: each new version is news, the same one is not."""
    server.objects["/api/v1/events"] = [warning("e1", NOW - 20), warning("old", NOW - 3000)]
    (event,) = poll(source).events
    assert (event.time, event.entity, event.kind, event.reason) == (NOW - 20, "pod/shop/api-x", "warning", "BackOff")
    assert poll(source, NOW + 30).events == []
    server.objects["/api/v1/events"] = [warning("e1", NOW + 50, "2"), warning("n", NOW + 51, kind="Node", target="gpu-1")]
    got = poll(source, NOW + 60)
    assert [(e.time, e.entity) for e in got.events] == [(NOW + 50, "pod/shop/api-x"), (NOW + 51, "node//gpu-1")]
    assert {r.args["fieldSelector"] for r in server.asked if r.path == "/api/v1/events"} == {"type=Warning"}


def test_an_event_from_a_clock_ahead_is_not_in_the_future(source: KubernetesSource, server: FakeApiServer) -> None:
    """A node's clock may be wrong; event time must not run ahead of the batch."""
    server.objects["/api/v1/events"] = [warning("e1", NOW + 500)]
    assert [e.time for e in poll(source).events] == [NOW]


def test_only_the_namespaces_asked_for_are_read(kubeconfig: Path, server: FakeApiServer, httpserver: HTTPServer) -> None:
    """A Role in one namespace is enough; nodes are cluster-wide and left out where they are forbidden."""
    for path in SHOP:
        if path not in ("/api/v1/nodes", "/api/v1/pods"):
            root, plural = path.rsplit("/", 1)
            httpserver.expect_request(f"{root}/namespaces/shop/{plural}").respond_with_json({"items": [], "metadata": {}})
    server.fails["/api/v1/nodes"] = [403]
    got = poll(KubernetesSource(kubeconfig=kubeconfig, namespaces=["shop"]))
    assert ("pod/shop/api-x", "node//gpu-1", "runs_on") in edges(got)
    assert "/api/v1/pods" not in {r.path for r in server.asked}


def test_an_answer_that_is_no_list_is_an_error_and_no_traceback(kubeconfig: Path, httpserver: HTTPServer) -> None:
    """A login page of a proxy, for example."""
    httpserver.clear()
    httpserver.expect_request("/api/v1/pods").respond_with_data("<html>sign in</html>")
    with pytest.raises(KubeError, match="not a list of the Kubernetes API"):
        poll(KubernetesSource(kubeconfig=kubeconfig))


def test_a_list_that_never_ends_is_given_up(source: KubernetesSource, server: FakeApiServer,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken proxy that repeats one page must not eat the memory."""
    monkeypatch.setattr(kubeapi, "MAX_CHUNKS", 3)
    server.chunk = 1
    with pytest.raises(KubeError, match="never ends"):
        poll(source)


def test_no_api_server_says_so(tmp_path: Path, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens, or there is no configuration at all: plain words."""
    settings = json.loads(kubeconfig.read_text())
    settings["clusters"][0]["cluster"]["server"] = "http://127.0.0.1:1"
    kubeconfig.write_text(json.dumps(settings))
    with pytest.raises(KubeError, match=r"cannot be reached \(.*[Cc]onnection refused"):
        poll(KubernetesSource(kubeconfig=kubeconfig))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(KubeError, match=r"configuration: .*Set kubeconfig, or run it in a cluster"):
        poll(KubernetesSource(kubeconfig=tmp_path / "none"))


def log_lines(got: Collected) -> list[tuple[str, str]]:
    return [(line.entity, line.text) for line in got.lines]


def test_pod_logs_are_followed_without_gaps_or_doubles(kubeconfig: Path, server: FakeApiServer, httpserver: HTTPServer) -> None:
    """The server knows only seconds: the last one is asked for again, lines already seen are left out."""
    written = [f"{stamp(NOW - 9)[:-1]}.123456789Z first", f"{stamp(NOW - 9)[:-1]}.2Z {{\"msg\":\"second\",\"level\":\"error\"}}"]
    asked: list[dict[str, str]] = []

    def answer(request: Request) -> Response:
        asked.append(dict(request.args))
        return Response("".join(f"{line}\n" for line in written if line[:19] >= request.args["sinceTime"][:19]) + "half a li")
    httpserver.expect_request("/api/v1/namespaces/shop/pods/api-x/log").respond_with_handler(answer)
    server.objects["/api/v1/pods"] = [pod("api-x", ("ReplicaSet", "api-1")), pod("done", phase="Succeeded")]
    source = KubernetesSource(kubeconfig=kubeconfig, log_selector="app=api")
    got = poll(source)
    assert log_lines(got) == [("pod/shop/api-x", "first"), ("pod/shop/api-x", "ERROR second")]
    assert got.lines[0].time == pytest.approx(NOW - 9 + 0.123456789)
    written.append(f"{stamp(NOW - 9)[:-1]}.200000001Z third")
    assert log_lines(poll(source, NOW + 30)) == [("pod/shop/api-x", "third")]
    assert [a["sinceTime"] for a in asked] == [stamp(NOW - 30), stamp(NOW - 9)]
    assert "app=api" in [r.args.get("labelSelector") for r in server.asked]


def test_one_pod_without_logs_does_not_stop_the_others(kubeconfig: Path, server: FakeApiServer, httpserver: HTTPServer) -> None:
    """A container that is being created answers 400; it is named, the others are read."""
    httpserver.expect_request("/api/v1/namespaces/shop/pods/a/log").respond_with_data("waiting to start", status=400)
    httpserver.expect_request("/api/v1/namespaces/shop/pods/b/log").respond_with_data(f"{stamp(NOW)} fine\n")
    server.objects["/api/v1/pods"] = [pod("a"), pod("b")]
    source = KubernetesSource(kubeconfig=kubeconfig, log_selector="app=api")
    assert log_lines(poll(source)) == [("pod/shop/b", "fine")]
    assert "/pods/a/log: HTTP 400" in source.notes["log shop/a"]
