"""The Kubernetes source against a small API server over real HTTP: topology, changes, troubles, states, failures."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fakes.collected import Collected
from fakes.kube_watch import KubeWatch, merged

from aiops import rbac
from aiops.sources.kubernetes import reflector
from aiops.sources.kubernetes.api import KubeError
from aiops.sources.kubernetes.source import KubernetesSource
from aiops.types import Event

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
    "/api/v1/events": [], "/apis/batch/v1/jobs": [], "/apis/autoscaling/v2/horizontalpodautoscalers": [],
    "/api/v1/configmaps": [], "/apis/networking.k8s.io/v1/ingresses": [], "/apis/gateway.networking.k8s.io/v1/httproutes": [],
}
PODS, DEPLOYMENTS, NODES, EVENTS = "/api/v1/pods", "/apis/apps/v1/deployments", "/api/v1/nodes", "/api/v1/events"
SOON_S = 60.0


@pytest.fixture
def server() -> Iterator[KubeWatch]:
    fake = KubeWatch(SHOP)
    yield fake
    fake.close()


@pytest.fixture
def kubeconfig(server: KubeWatch, tmp_path: Path) -> Path:
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "lab",
        "clusters": [{"name": "lab", "cluster": {"server": server.url}}],
        "users": [{"name": "me", "user": {"token": "the-token"}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "me"}}]}))
    return path


@pytest.fixture
def make(kubeconfig: Path) -> Iterator[Callable[..., KubernetesSource]]:
    """Sources that are closed at the end."""
    made: list[KubernetesSource] = []

    def source(**settings: Any) -> KubernetesSource:
        made.append(KubernetesSource(**{"kubeconfig": kubeconfig, **settings}))
        return made[-1]
    yield source
    for one in made:
        one.close()


@pytest.fixture
def source(make: Callable[..., KubernetesSource]) -> KubernetesSource:
    return make()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits of milliseconds."""
    for name, value in {"FIRST_WAIT_S": 0.001, "LEAST_WAIT_S": 0.001, "MOST_WAIT_S": 0.01, "LASTED_S": 0.5}.items():
        monkeypatch.setattr(reflector, name, value)


def poll(source: KubernetesSource, now: float = NOW) -> Collected:
    got = Collected()
    source.poll(now, got)
    return got


def until(source: KubernetesSource, holds: Callable[[Collected], bool], now: float = NOW) -> Collected:
    """All that polls hand over until it holds; waits for the watch in between."""
    got, deadline = Collected(), time.monotonic() + SOON_S
    while True:
        source.poll(now, got)
        if holds(got):
            return got
        assert time.monotonic() < deadline, f"did not come; events: {got.events}"
        source.fresh.wait(1.0)


def events(source: KubernetesSource, count: int = 1, now: float = NOW) -> list[Event]:
    """The next events, exactly so many."""
    found = until(source, lambda got: len(got.events) >= count, now).events
    assert len(found) == count
    return found


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
    assert source.synced and source.notes == {}


def test_nodes_carry_criticality_and_the_proxy_label(source: KubernetesSource) -> None:
    """And finished pods are no part of the graph, waiting ones are."""
    nodes = {n.entity: n for n in poll(source).topology[0][1].nodes}
    assert nodes["deployment/shop/api"].criticality == 3.0
    assert nodes["service/shop/api"].labels == {"proxy": "true"}
    assert "pod/shop/waiting" in nodes
    assert "pod/shop/done" not in nodes


def test_topology_is_told_only_when_it_changed(source: KubernetesSource, server: KubeWatch) -> None:
    """A cluster at rest gives no new links, nor does a pod that only gets ready; a pod that moves does."""
    poll(source)
    server.change(PODS, "api-x", status={"conditions": [{"type": "Ready", "status": "True"}]})
    got = until(source, lambda got: 1.0 in got.values("kube_pod_status_ready"))
    assert got.topology == []
    server.change(PODS, "api-x", spec={"nodeName": "gpu-2"})
    got = until(source, lambda got: bool(got.topology))
    assert ("pod/shop/api-x", "node//gpu-2", "runs_on") in edges(got)


def test_only_what_is_needed_is_asked_for(source: KubernetesSource, server: KubeWatch) -> None:
    """The rights that requests need are the rights of the read role, no more and no less, and no content is ever asked for."""
    until(source, lambda got: len([r for r in server.requests if r.watch]) >= 14)
    assert {r.right for r in server.requests} | {("", "pods/log", "get")} == rbac.READ
    for request in server.requests:
        partial = "as=PartialObjectMetadata" in request.headers["Accept"]
        assert partial == (request.right[1] in ("configmaps", "services"))
    assert "json, application/json" not in " ".join(r.headers["Accept"] for r in server.requests)  # no way back to content


def test_long_lists_come_in_chunks(source: KubernetesSource, server: KubeWatch) -> None:
    """Five pods in chunks of two are three requests."""
    server.chunk = 2
    got = poll(source)
    assert len(server.seen(PODS, watch=False)) == 3
    assert len([n for n in got.topology[0][1].nodes if n.entity.startswith("pod/")]) == 4


@pytest.mark.parametrize("status", [401, 403, 500, 503])
def test_a_failure_is_shown_with_what_and_where(source: KubernetesSource, server: KubeWatch, status: int) -> None:
    """The server's own words are in the message, the token is not; it is asked a handful of times."""
    server.fault = lambda r: status if r.path == PODS else None
    with pytest.raises(KubeError, match=rf"Kubernetes /api/v1/pods: HTTP {status}: sorry {status}") as error:
        poll(source)
    assert error.value.status == status
    assert "the-token" not in str(error.value)
    assert not source.synced or status == 403
    assert Counter(r.path for r in server.requests)[PODS] <= 2


@pytest.mark.parametrize("path", [EVENTS, "/apis/apps/v1/replicasets", NODES])
def test_a_missing_right_is_named_and_the_rest_goes_on(source: KubernetesSource, server: KubeWatch, path: str,
                                                       quick: None) -> None:
    """Least privilege must not mean no topology at all. Once granted, the note is gone."""
    server.fault = lambda r: 403 if r.path == path else None
    got = poll(source)
    assert ("service/shop/api", "pod/shop/api-x", "owns") in edges(got)
    (note,) = source.notes.values()
    assert f"{path}: HTTP 403: sorry 403. Grant the right" in note
    server.fault = lambda r: None
    until(source, lambda got: source.notes == {})


def test_a_watch_that_keeps_failing_is_told_and_its_last_word_is_kept(source: KubernetesSource, server: KubeWatch,
                                                                      quick: None) -> None:
    """The supervisor must show it; when it works again, what happened meanwhile is handed over once."""
    poll(source)
    server.fault = lambda r: 500 if r.path == PODS else None
    server.cut()
    with pytest.raises(KubeError, match="HTTP 500"):
        until(source, lambda got: False)
    server.put(PODS, pod("api-y", ("ReplicaSet", "api-1")))
    server.fault = lambda r: None
    got, deadline = Collected(), time.monotonic() + SOON_S
    while not got.topology and time.monotonic() < deadline:
        source.fresh.wait(1.0)
        try:
            source.poll(NOW, got)
        except KubeError:
            continue
    assert ("deployment/shop/api", "pod/shop/api-y", "owns") in edges(got)
    assert got.events == []


def test_states_are_not_told_while_nobody_knows_them(source: KubernetesSource, server: KubeWatch, quick: None) -> None:
    """A pod that was ready ten minutes ago is not known to be ready now."""
    assert poll(source).values("kube_pod_status_ready")
    server.fault = lambda r: 500 if r.path == PODS else None
    server.cut()
    with pytest.raises(KubeError):
        until(source, lambda got: False)
    got = Collected()
    with pytest.raises(KubeError):
        source.poll(NOW + 600, got)
    assert got.samples == []


# ------------------------------------------------------------------------------------------------------------ changes
def managed(at: float, manager: str, *fields: str, subresource: str = "") -> dict[str, Any]:
    return {"manager": manager, "operation": "Update", "time": stamp(at), "fieldsType": "FieldsV1", "subresource": subresource,
            "fieldsV1": {"f:spec": {f"f:{f}": {} for f in fields}}}


def test_a_rollout_is_a_change_of_its_deployment(source: KubernetesSource, server: KubeWatch) -> None:
    """New revision and image: one event, at the time and by whom the object says; one more when every pod runs it."""
    assert poll(source).events == []
    new = deployment("4", "api:2")
    new["metadata"].update(managedFields=[
        managed(NOW - 500, "helm", "template"), managed(NOW + 20, "kubectl-set", "template"),
        managed(NOW + 25, "kube-controller-manager", "template", subresource="status")])
    server.put(DEPLOYMENTS, new)
    (event,) = events(source, now=NOW + 30)
    assert (event.time, event.entity, event.kind, event.reason) == (NOW + 20, "deployment/shop/api", "change", "Rollout")
    assert event.text == "revision 3 -> 4; image api:1 -> api:2 by kubectl-set"
    done = {"observedGeneration": 6, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2, "conditions": [
        {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable", "lastUpdateTime": stamp(NOW + 65)}]}
    server.change(DEPLOYMENTS, "api", status=done)
    (event,) = events(source, now=NOW + 90)
    assert (event.time, event.kind, event.reason, event.text) == (NOW + 65, "change", "RolloutFinished", "after 45 s: api:2")
    server.change(DEPLOYMENTS, "api", metadata={"labels": {"x": "y"}})
    here = server.objects[DEPLOYMENTS]["shop", "api"]  # a newer server writes one default more, in the same generation
    here["spec"]["template"]["spec"]["hostUsers"] = True
    server.change(DEPLOYMENTS, "api", status={"collisionCount": 0})
    server.put(EVENTS, warning("last", NOW + 90))
    assert [e.reason for e in events(source, now=NOW + 91)] == ["BackOff"]


def test_a_rollout_that_does_not_end_is_a_warning(source: KubernetesSource, server: KubeWatch) -> None:
    """Past its deadline; told once. The restart of a rollout is a rollout too."""
    poll(source)
    again = deployment()
    again["spec"]["template"]["metadata"] = {"annotations": {"kubectl.kubernetes.io/restartedAt": "2026-11-18T00:00:00Z"}}
    again["status"] = {"conditions": [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded",
                                       "message": "ReplicaSet has timed out progressing.", "lastUpdateTime": stamp(NOW - 1)}]}
    server.put(DEPLOYMENTS, again)
    found = events(source, 2)
    assert [(e.kind, e.reason, e.text) for e in found] == [
        ("change", "Rollout", "restarted"), ("warning", "RolloutFailed", "ReplicaSet has timed out progressing.")]


@pytest.mark.parametrize(("manager", "scaled", "text"), [
    ("kubectl", False, "replicas 2 -> 4 by kubectl"), ("kube-controller-manager", True, "replicas 2 -> 4 by the autoscaler api")])
def test_scaling_is_a_change_too_and_not_a_rollout(source: KubernetesSource, server: KubeWatch, manager: str, scaled: bool,
                                                   text: str) -> None:
    """Replicas by hand or autoscaler: managedFields tell which."""
    if scaled:
        server.put("/apis/autoscaling/v2/horizontalpodautoscalers", autoscaler())
    poll(source)
    new = deployment(replicas=4)
    new["metadata"]["managedFields"] = [managed(NOW - 3, manager, "replicas", subresource="scale")]
    server.put(DEPLOYMENTS, new)
    (event,) = events(source)
    assert (event.time, event.reason, event.text) == (NOW - 3, "Scaled", text)


def autoscaler(most: int = 10) -> dict[str, Any]:
    return {"metadata": meta("api"), "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "api"}, "minReplicas": 2,
                                              "maxReplicas": most, "metrics": []}, "status": {"currentReplicas": 2}}


def test_other_bounds_of_an_autoscaler_are_a_change_of_what_it_scales(source: KubernetesSource, server: KubeWatch) -> None:
    """Its present number of replicas is none."""
    server.put("/apis/autoscaling/v2/horizontalpodautoscalers", autoscaler())
    poll(source)
    server.change("/apis/autoscaling/v2/horizontalpodautoscalers", "api", status={"currentReplicas": 3})
    server.change("/apis/autoscaling/v2/horizontalpodautoscalers", "api", spec={"maxReplicas": 4})
    (event,) = events(source)
    assert (event.entity, event.kind, event.text) == ("deployment/shop/api", "change", "autoscaler api: most 10 -> 4")


@pytest.mark.parametrize("place", [
    {"volumes": [{"name": "v", "configMap": {"name": "settings"}}]},
    {"volumes": [{"name": "v", "projected": {"sources": [{"configMap": {"name": "settings"}}]}}]},
    {"containers": [{"image": "api:1", "envFrom": [{"configMapRef": {"name": "settings"}}]}]},
    {"initContainers": [{"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "a"}}}]}]},
])
def test_a_config_map_that_changes_is_a_change_of_who_uses_it(source: KubernetesSource, server: KubeWatch,
                                                              place: dict[str, Any]) -> None:
    """Wherever the pod template refers to it; one that nobody uses is none, nor are other labels."""
    user = deployment()
    user["spec"]["template"]["spec"].update(place)
    server.put(DEPLOYMENTS, user)
    for name in ("settings", "other"):
        server.put("/api/v1/configmaps", {"metadata": meta(name), "data": {"secret": "content"}})
    poll(source)
    data = {**managed(NOW - 5, "argocd", "x"), "fieldsV1": {"f:data": {"f:a": {}}}}
    server.change("/api/v1/configmaps", "other", metadata={"managedFields": [data]})
    server.change("/api/v1/configmaps", "settings", metadata={"managedFields": [data]})
    (event,) = events(source)
    assert (event.time, event.entity, event.kind, event.reason, event.text) == (
        NOW - 5, "deployment/shop/api", "change", "ConfigChanged", "ConfigMap settings changed by argocd")
    server.change("/api/v1/configmaps", "settings", metadata={"labels": {"x": "y"}})
    server.put(EVENTS, warning("last", NOW))
    assert [e.reason for e in events(source)] == ["BackOff"]


def test_secrets_are_looked_at_only_where_that_is_asked_for(make: Callable[..., KubernetesSource], server: KubeWatch) -> None:
    """Then their metadata only, and the content is never sent."""
    server.put("/api/v1/secrets", {"metadata": meta("key"), "data": {"a": "Y29udGVudA=="}})
    user = deployment()
    user["spec"]["template"]["spec"]["volumes"] = [{"name": "v", "secret": {"secretName": "key"}}]
    server.put(DEPLOYMENTS, user)
    poll(make())
    assert not server.seen("/api/v1/secrets")
    source = make(secrets=True)
    poll(source)
    server.change("/api/v1/secrets", "key", data={"a": "bmV3"})
    assert [e.text for e in events(source)] == ["Secret key changed"]
    assert all("as=PartialObjectMetadata" in r.headers["Accept"] for r in server.seen("/api/v1/secrets"))


def test_a_node_that_is_cordoned_tainted_and_opened_again(source: KubernetesSource, server: KubeWatch) -> None:
    """What Kubernetes taints by itself goes with its conditions and is no change."""
    poll(source)
    mine, own = {"key": "gpu", "value": "bad", "effect": "NoSchedule"}, {"key": "node.kubernetes.io/unschedulable", "effect": "X"}
    server.change(NODES, "gpu-1", "", metadata={"managedFields": [managed(NOW - 4, "kubectl-cordon", "unschedulable")]},
                  spec={"unschedulable": True, "taints": [mine, own]})
    assert [(e.time, e.entity, e.kind, e.reason, e.text) for e in events(source, 2)] == [
        (NOW - 4, "node//gpu-1", "change", "Cordoned", "no new pods by kubectl-cordon"),
        (NOW, "node//gpu-1", "change", "Tainted", "gpu=bad:NoSchedule")]
    server.change(NODES, "gpu-1", "", spec={"unschedulable": False, "taints": [own]})
    assert [e.reason for e in events(source, 2)] == ["Uncordoned", "TaintRemoved"]


def test_a_stateful_set_is_done_when_its_revision_is_current(source: KubernetesSource, server: KubeWatch) -> None:
    """It has no revision annotation and no Progressing condition."""
    poll(source)
    path = "/apis/apps/v1/statefulsets"
    server.change(path, "db", spec={"template": {"spec": {"containers": [{"image": "db:2"}]}}}, status={
        "updateRevision": "db-2", "currentRevision": "db-1", "readyReplicas": 1, "observedGeneration": 2})
    assert [(e.entity, e.text) for e in events(source)] == [("statefulset/shop/db", "revision db-1 -> db-2; image  -> db:2")]
    server.change(path, "db", status={"currentRevision": "db-2"})
    assert [(e.reason, e.text) for e in events(source, now=NOW + 60)] == [("RolloutFinished", "after 60 s: db:2")]


def test_a_rollout_shortly_before_the_start_is_known(source: KubernetesSource, server: KubeWatch) -> None:
    """The daemon may start because of it: the ReplicaSet's age tells when. An old or empty one is no change."""
    def replicaset(name: str, age: float, replicas: int = 2) -> dict[str, Any]:
        made = meta(name, owner=("Deployment", "api"), annotations={"deployment.kubernetes.io/revision": "3"})
        return {"metadata": {**made, "creationTimestamp": stamp(NOW - age)}, "spec": {
            "replicas": replicas, "template": {"spec": {"containers": [{"image": "api:1"}]}}}}
    for made in (replicaset("api-1", 600), replicaset("api-0", 90_000), replicaset("api-9", 700, 0)):
        server.put("/apis/apps/v1/replicasets", made)
    (event,) = poll(source).events
    assert (event.time, event.entity, event.text) == (NOW - 600, "deployment/shop/api", "revision 3; image api:1")
    assert poll(source).events == []


# ----------------------------------------------------------------------------------------------------------- troubles
def test_a_warning_is_told_when_it_happens_and_when_it_happens_again(source: KubernetesSource, server: KubeWatch) -> None:
    """The API keeps an event for an hour and counts it up: that is news, a new label is not; what is old at the start neither."""
    server.put(EVENTS, warning("e1", NOW - 20))
    server.put(EVENTS, warning("old", NOW - 3000))
    (event,) = poll(source).events
    assert (event.time, event.entity, event.kind, event.reason) == (NOW - 20, "pod/shop/api-x", "warning", "BackOff")
    server.change(EVENTS, "e1", metadata={"labels": {"seen": "1"}})
    server.change(EVENTS, "e1", count=7, lastTimestamp=stamp(NOW + 50))
    server.put(EVENTS, warning("n", NOW + 51, kind="Node", target="gpu-1"))
    got = events(source, 2, NOW + 60)
    assert [(e.time, e.entity, e.text) for e in got] == [
        (NOW + 50, "pod/shop/api-x", "restarting failed container (7 times)"),
        (NOW + 51, "node//gpu-1", "restarting failed container")]
    assert {r.args["fieldSelector"] for r in server.seen(EVENTS)} == {"type=Warning"}


def test_an_event_of_the_newer_api_counts_in_its_series(source: KubernetesSource, server: KubeWatch) -> None:
    """events.k8s.io/v1 writes the same objects: without count and lastTimestamp, with a series."""
    new = {**warning("e1", 0), "lastTimestamp": None, "eventTime": stamp(NOW - 30)[:-1] + ".123456Z"}
    server.put(EVENTS, new)
    assert [e.time for e in events(source)] == [NOW - 30 + 0.123456]
    server.change(EVENTS, "e1", series={"count": 3, "lastObservedTime": stamp(NOW - 2)})
    assert [(e.time, e.text[-9:]) for e in events(source)] == [(NOW - 2, "(3 times)")]


def test_events_are_not_told_again_after_the_watch_was_away(source: KubernetesSource, server: KubeWatch, quick: None) -> None:
    """A new list (410) holds everything of the last hour."""
    for n in range(5):
        server.put(EVENTS, warning(f"e{n}", NOW - 20))
    assert len(poll(source).events) == 5
    server.fault = lambda r: "expired" if r.watch and r.path == EVENTS else None
    server.cut()
    with pytest.raises(KubeError, match="the watch ended with 410"):
        until(source, lambda got: False)
    server.fault = lambda r: None
    server.put(EVENTS, warning("new", NOW - 1))
    got, deadline = Collected(), time.monotonic() + SOON_S
    while not got.events and time.monotonic() < deadline:
        source.fresh.wait(1.0)
        try:
            source.poll(NOW, got)
        except KubeError:
            continue
    assert [e.time for e in got.events] == [NOW - 1]


def test_an_event_from_a_clock_ahead_is_not_in_the_future(source: KubernetesSource, server: KubeWatch) -> None:
    """A node's clock may be wrong; event time must not run ahead of the batch."""
    server.put(EVENTS, warning("e1", NOW + 500))
    assert [e.time for e in poll(source).events] == [NOW]


def test_a_container_that_was_killed_for_memory_is_told_with_its_time(source: KubernetesSource, server: KubeWatch) -> None:
    """There is no Event for that in the cluster. It counts as a restart, and waits in a crash loop until it runs again."""
    poll(source)
    killed = {"name": "c", "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}},
              "lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137, "finishedAt": stamp(NOW - 7)}}}
    server.change(PODS, "api-x", status={"containerStatuses": [killed]})
    got = until(source, lambda got: len(got.events) >= 2)
    assert [(e.time, e.entity, e.kind, e.reason, e.text) for e in got.events] == [
        (NOW - 7, "pod/shop/api-x", "warning", "OOMKilled", "container c ended with exit code 137, restarted 3 times"),
        (NOW, "pod/shop/api-x", "warning", "CrashLoopBackOff", "container c: back-off 40s")]
    waiting = "kube_pod_container_status_waiting_reason"
    assert got.values("kube_pod_container_status_restarts_total", container="c")[-1] == 3
    assert got.values(waiting, reason="CrashLoopBackOff")[-1] == 1
    server.change(PODS, "api-x", status={"containerStatuses": [{**killed, "state": {"running": {"startedAt": stamp(NOW)}}}]})
    got = until(source, lambda got: got.values(waiting, reason="CrashLoopBackOff")[-1] == 0)
    assert got.events == []


def test_an_image_that_cannot_be_pulled_ends_at_zero(source: KubernetesSource, server: KubeWatch) -> None:
    """A reason that is over is told as 0, not left where it was; creating containers is no trouble."""
    poll(source)
    waiting = "kube_pod_container_status_waiting_reason"
    for reason in ("ContainerCreating", "ImagePullBackOff"):
        state = [{"name": "c", "state": {"waiting": {"reason": reason}}}]
        server.change(PODS, "waiting", status={"containerStatuses": state})
    assert [e.reason for e in events(source)] == ["ImagePullBackOff"]
    server.change(PODS, "waiting", status={"containerStatuses": [{"name": "c", "state": {"running": {}}}]})
    until(source, lambda got: got.values(waiting, reason="ImagePullBackOff")[-1:] == [0.0])
    server.delete(PODS, "waiting")
    until(source, lambda got: bool(got.topology))
    assert not poll(source).values(waiting, reason="ImagePullBackOff")


def test_conditions_of_a_node_are_events_with_an_onset_and_samples(source: KubernetesSource, server: KubeWatch) -> None:
    """Those of the kubelet and of node-problem-detector; what was bad long before the start is a sample and no event."""
    def conditions(ready: str, deadlock: str, at: float) -> dict[str, Any]:
        told = {"Ready": ready, "MemoryPressure": "False", "KernelDeadlock": deadlock, "DiskPressure": "True"}
        return {"conditions": [{"type": t, "status": s, "reason": f"{t}Reason", "message": "why", "lastTransitionTime": stamp(
            NOW - 86_400 if t == "DiskPressure" else at)} for t, s in told.items()]}
    server.change(NODES, "gpu-1", "", status=conditions("True", "False", NOW - 5000))
    got = poll(source)
    assert got.events == []
    assert {s.labels["condition"]: s.value for s in got.samples if s.metric == "kube_node_status_condition"} == {
        "Ready": 1.0, "MemoryPressure": 0.0, "KernelDeadlock": 0.0, "DiskPressure": 1.0}
    server.change(NODES, "gpu-1", "", status=conditions("Unknown", "True", NOW - 9))
    found = events(source, 2)
    assert [(e.time, e.entity, e.kind, e.reason, e.text) for e in found] == [
        (NOW - 9, "node//gpu-1", "warning", "NotReady", "ReadyReason: why"),
        (NOW - 9, "node//gpu-1", "warning", "KernelDeadlock", "KernelDeadlockReason: why")]
    server.change(NODES, "gpu-1", "", status=conditions("True", "False", NOW - 1))
    assert [(e.kind, e.reason) for e in events(source, 2)] == [("normal", "Ready"), ("normal", "NoKernelDeadlock")]


def test_a_job_that_has_failed_for_good_is_told(source: KubernetesSource, server: KubeWatch) -> None:
    """With the time at which it did, and as a number of failed pods."""
    server.put("/apis/batch/v1/jobs", {"metadata": meta("train"), "spec": {}, "status": {"failed": 1}})
    poll(source)
    server.change("/apis/batch/v1/jobs", "train", status={"failed": 4, "conditions": [
        {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "too often",
         "lastTransitionTime": stamp(NOW - 2)}]})
    got = until(source, lambda got: bool(got.events))
    assert [(e.time, e.entity, e.reason) for e in got.events] == [(NOW - 2, "job/shop/train", "BackoffLimitExceeded")]
    assert got.values("kube_job_status_failed")[-1] == 4


# ------------------------------------------------------------------------------------------------------------- states
def test_states_have_the_names_of_kube_state_metrics(source: KubernetesSource, server: KubeWatch) -> None:
    """The pack knows every one of them, by the same entity, so that signals come of them without kube-state-metrics."""
    from aiops import meaning
    server.put("/apis/autoscaling/v2/horizontalpodautoscalers", autoscaler())
    server.change(DEPLOYMENTS, "api", status={"replicas": 2, "availableReplicas": 1, "unavailableReplicas": 1})
    got, meanings = poll(source), meaning.shipped()
    told = {(s.entity, s.metric): s.value for s in got.samples}
    assert told["deployment/shop/api", "kube_deployment_status_replicas_unavailable"] == 1
    assert told["node//gpu-1", "kube_node_spec_unschedulable"] == 0
    assert told["horizontalpodautoscaler/shop/api", "kube_horizontalpodautoscaler_spec_max_replicas"] == 10
    assert {e.partition("/")[0] for e, _ in told} == {"deployment", "statefulset", "horizontalpodautoscaler", "pod", "node"}
    for s in got.samples:
        kind, namespace, name = s.entity.split("/")
        exported = {**s.labels, kind: name, "namespace": namespace, "job": "kube-state-metrics", "instance": "x",
                    **({"uid": "1"} if kind == "pod" else {})}
        assert meanings.knows(s.metric)
        assert meanings.entity(s.metric, exported) == (s.entity, s.labels)
        assert meanings.kind(s.metric, "unknown") == s.kind


def test_what_kube_state_metrics_brings_is_left_out(make: Callable[..., KubernetesSource], server: KubeWatch) -> None:
    """Twice the same counter from two sources would look like restarts. Nothing until the other had time to be heard."""
    source = make()
    assert source.yields
    source.elsewhere = lambda metric: metric.startswith("kube_pod_")
    assert poll(source).samples == []
    metrics = {s.metric for s in poll(source, NOW + 121).samples}
    assert metrics and not any(m.startswith("kube_pod_") for m in metrics)
    source.elsewhere = lambda metric: False
    assert poll(source, NOW + 136).values("kube_pod_status_phase")
    assert poll(make(states=False)).samples == []
    assert not make(states=True).yields


def test_a_pod_that_has_done_its_work_has_no_states(source: KubernetesSource, server: KubeWatch) -> None:
    """It is not ready any more, and that is no fault; one that failed has its phase."""
    server.change(PODS, "static", status={"phase": "Failed"})
    told = {(s.entity, s.metric) for s in poll(source).samples}
    assert not any(e == "pod/shop/done" for e, _ in told)
    assert [m for e, m in told if e == "pod/shop/static"] == ["kube_pod_status_phase"]


# ----------------------------------------------------------------------------------------------------------- failures
def test_only_the_namespaces_asked_for_are_read(make: Callable[..., KubernetesSource], server: KubeWatch) -> None:
    """A Role in one namespace is enough; nodes are cluster-wide and left out where they are forbidden."""
    server.put(PODS, merged(pod("foreign"), {"metadata": {"namespace": "other"}}))
    server.fault = lambda r: 403 if r.path == NODES else None
    got = poll(make(namespaces=["shop"]))
    assert ("pod/shop/api-x", "node//gpu-1", "runs_on") in edges(got)
    assert not any("/other/" in n.entity for n in got.topology[0][1].nodes)
    assert PODS not in {r.path for r in server.requests}


def test_an_answer_that_is_no_list_is_an_error_and_no_traceback(source: KubernetesSource, server: KubeWatch) -> None:
    """A login page of a proxy, for example."""
    server.fault = lambda r: "junk"
    with pytest.raises(KubeError, match="not a list of the Kubernetes API"):
        poll(source)


def test_a_list_that_never_ends_is_given_up(source: KubernetesSource, server: KubeWatch,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken proxy that repeats one page must not eat the memory."""
    monkeypatch.setattr(reflector, "MAX_CHUNKS", 3)
    server.chunk = 1
    with pytest.raises(KubeError, match="never ends"):
        poll(source)


def test_no_api_server_says_so(tmp_path: Path, kubeconfig: Path, make: Callable[..., KubernetesSource],
                               monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens, or there is no configuration at all: plain words."""
    settings = json.loads(kubeconfig.read_text())
    settings["clusters"][0]["cluster"]["server"] = "http://127.0.0.1:1"
    kubeconfig.write_text(json.dumps(settings))
    with pytest.raises(KubeError, match=r"cannot be reached \(.*127.0.0.1.*"):
        poll(make())
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(KubeError, match=r"configuration: .*Set kubeconfig, or run it in a cluster"):
        poll(make(kubeconfig=tmp_path / "none"))


def test_closing_ends_the_thread_and_its_connections(make: Callable[..., KubernetesSource]) -> None:
    """At once, also in the middle of a watch; polls after that do nothing wrong."""
    import threading
    source = make(name="ends")
    poll(source)
    assert [t for t in threading.enumerate() if t.name == "watch-ends"]
    began = time.monotonic()
    source.close()
    assert time.monotonic() - began < 3.0
    assert not [t for t in threading.enumerate() if t.name == "watch-ends"]


def test_a_watch_that_broke_down_is_told_and_begins_anew(source: KubernetesSource, server: KubeWatch,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake of our own must not leave a silent thread behind."""
    poll(source)
    monkeypatch.setattr(reflector.Reflector, "_apply", lambda *_: 1 / 0)
    server.put(PODS, pod("api-y"))
    with pytest.raises(RuntimeError, match="the watch broke down and begins anew"):
        until(source, lambda got: False)
    monkeypatch.undo()
    got = until(source, lambda got: bool(got.topology))
    assert "pod/shop/api-y" in {n.entity for n in got.topology[-1][1].nodes}


def test_a_bad_rollout_is_seen_from_the_watch_to_the_signals(kubeconfig: Path, server: KubeWatch) -> None:
    """Through configuration, supervisor, intake and door: the change, the crash loop as a signal, and the topology."""
    from aiops import config, feeds, meaning
    from aiops.clock import ManualClock
    from aiops.intake import Intake
    from aiops.signals import Door
    settings = kubeconfig.parent / "aiops.yaml"
    settings.write_text(f"apiVersion: aiops.io/v1\nkind: Config\nsources: [{{kubernetes: {{kubeconfig: {kubeconfig}}}}}]\n")
    clock, intake, known = ManualClock(NOW), Intake(15.0), meaning.shipped()
    (source,) = feeds.sources(config.load(settings, {}), clock, known)
    door = Door(known)
    try:
        assert source.poll(intake), source.status()
        (first,) = intake.drain(clock.now())
        assert first.links is not None and len(first.links.nodes) == 8
        door.values(first)
        clock.sleep_until(NOW + 15)
        server.put(DEPLOYMENTS, deployment("4", "api:broken"))
        server.change(PODS, "api-x", status={"containerStatuses": [
            {"name": "c", "restartCount": 0, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]})
        seen: list[Event] = []
        while len(seen) < 2:
            source.source.fresh.wait(5.0)  # type: ignore[attr-defined]
            assert source.poll(intake), source.status()
            clock.sleep_until(clock.now() + 15)
            (batch,) = intake.drain(clock.now())
            values = door.values(batch)
            seen += batch.events
    finally:
        source.close()
    assert {(e.kind, e.entity, e.reason) for e in seen} == {
        ("change", "deployment/shop/api", "Rollout"), ("warning", "pod/shop/api-x", "CrashLoopBackOff")}
    signals = {(s.entity, s.name): values[s.id] for s in door.signals}
    assert signals["pod/shop/api-x", "pod_waiting"] == 1
    assert signals["pod/shop/db-0", "pod_ready"] == 0
