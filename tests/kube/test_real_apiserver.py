"""The Kubernetes source against a real kube-apiserver with a real etcd, under the rights of deploy/role-read.yaml."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fakes.collected import Collected
from kube.controlplane import BASE, Control, missing
from ruamel.yaml import YAML

from aiops.links import Known
from aiops.sources.kubernetes.api import KubeError
from aiops.sources.kubernetes.source import KubernetesSource

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    """Its own, without controllers: it is stopped, and its etcd forgets."""
    if why := missing(BASE):
        pytest.skip(why)
    with Control(tmp_path_factory.mktemp("own-control"), {"aiops": "read-token"}) as control:
        role = YAML(typ="safe").load((ROOT / "deploy" / "role-read.yaml").read_text())
        control.create("/apis/rbac.authorization.k8s.io/v1/clusterroles", role)
        control.create("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", {
            "metadata": {"name": "aiops-read"}, "subjects": [{"kind": "User", "name": "aiops"}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "aiops-read"}})
        control.create("/api/v1/namespaces", {"metadata": {"name": "shop"}})
        yield control


def now() -> float:
    return time.time()


def stamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.fixture(scope="module")
def source(control: Control) -> Iterator[KubernetesSource]:
    """The reader, with a token in a file, which is wrong at first."""
    kubeconfig = control.kubeconfig("reader", "an-old-token")
    made = KubernetesSource(kubeconfig=kubeconfig)
    with pytest.raises(KubeError, match=r"HTTP 401: Unauthorized\. Check the credentials\."):
        made.poll(now(), Collected())
    kubeconfig.with_suffix(".token").write_text("read-token")
    yield made
    made.close()


def told(got: Collected) -> Known:
    """The topology by all that was told of it: the whole, then what was another."""
    known = Known()
    for _, links in got.topology:
        known.put(links)
    return known


def gather(source: KubernetesSource, holds: Callable[[Collected], bool], within_s: float = 90.0) -> Collected:
    """All that polls hand over until it holds, failures in between left aside."""
    got, deadline = Collected(), time.monotonic() + within_s
    while True:
        try:
            source.poll(now(), got)
        except KubeError as e:
            error = str(e)
        else:
            error = ""
        if not error and holds(got):
            return got
        assert time.monotonic() < deadline, f"did not come: {got.events}, {error}"
        source.fresh.wait(0.5)


TEMPLATE = {"metadata": {"labels": {"app": "api"}}, "spec": {"containers": [{"name": "c", "image": "api:1"}],
                                                             "volumes": [{"name": "v", "configMap": {"name": "settings"}}]}}
POD = {"metadata": {"name": "api-x", "labels": {"app": "api"}}, "spec": {
    "nodeName": "gpu-1", "containers": [{"name": "c", "image": "api:1"}]}}


def test_a_cluster_is_read_with_the_rights_of_the_read_role(control: Control, source: KubernetesSource) -> None:
    """The token in the file was wrong and is put right; every kind can be listed and watched; nothing is left out."""
    control.create("/api/v1/nodes", {"metadata": {"name": "gpu-1", "labels": {"zone": "a"}}})
    control.patch("/api/v1/nodes/gpu-1/status", {"status": {"capacity": {"nvidia.com/gpu": "2"}, "conditions": [
        {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastTransitionTime": stamp(now() - 5000)}]}})
    control.create("/api/v1/namespaces/shop/configmaps", {"metadata": {"name": "settings"}, "data": {"a": "1"}})
    control.create("/apis/apps/v1/namespaces/shop/deployments", {"metadata": {"name": "api"}, "spec": {
        "replicas": 2, "selector": {"matchLabels": {"app": "api"}}, "template": TEMPLATE}})
    owner = control.call("GET", "/apis/apps/v1/namespaces/shop/deployments/api")["metadata"]["uid"]
    control.create("/apis/apps/v1/namespaces/shop/replicasets", {"metadata": {"name": "api-1", "ownerReferences": [
        {"apiVersion": "apps/v1", "kind": "Deployment", "name": "api", "uid": owner, "controller": True}]}, "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": "api"}}, "template": TEMPLATE}})
    pod = json.loads(json.dumps(POD))
    pod["metadata"]["ownerReferences"] = [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "api-1", "uid": "u",
                                           "controller": True}]
    control.create("/api/v1/namespaces/shop/pods", pod)
    control.create("/api/v1/namespaces/shop/services", {"metadata": {"name": "api"}, "spec": {
        "selector": {"app": "api"}, "ports": [{"port": 80}]}})
    control.create("/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices", {
        "metadata": {"name": "api-abc", "labels": {"kubernetes.io/service-name": "api"}}, "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.9"], "targetRef": {"kind": "Pod", "name": "api-x", "namespace": "shop"}}]})
    wanted = {("deployment/shop/api", "pod/shop/api-x"), ("pod/shop/api-x", "node//gpu-1"),
              ("service/shop/api", "pod/shop/api-x"), ("node//gpu-1", "gpu/gpu-1/1")}
    gather(source, lambda got: wanted <= {(e.source, e.target) for e in told(got).edges})
    assert source.synced and source.notes == {}


def test_changes_are_told_with_time_and_author(control: Control, source: KubernetesSource) -> None:
    """Image, replicas through the scale subresource, a ConfigMap, a cordon: as a real server writes managedFields."""
    began = now() - 1.0
    deployment = "/apis/apps/v1/namespaces/shop/deployments/api"
    template = {**TEMPLATE, "spec": {**TEMPLATE["spec"], "containers": [{"name": "c", "image": "api:2"}]}}
    control.patch(f"{deployment}?fieldManager=kubectl-set", {"spec": {"template": template}})
    control.patch(f"{deployment}/scale?fieldManager=kubectl", {"spec": {"replicas": 5}})
    control.patch("/api/v1/namespaces/shop/configmaps/settings?fieldManager=argocd", {"data": {"a": "2"}})
    control.patch("/api/v1/nodes/gpu-1?fieldManager=kubectl-cordon", {"spec": {"unschedulable": True}})
    got = gather(source, lambda got: len(got.events) >= 4)
    told = {(e.entity, e.reason): e for e in got.events}
    assert {(*k, e.kind, e.text) for k, e in told.items()} == {
        ("deployment/shop/api", "Rollout", "change", "image api:1 -> api:2 by kubectl-set"),
        ("deployment/shop/api", "Scaled", "change", "replicas 2 -> 5 by kubectl"),
        ("deployment/shop/api", "ConfigChanged", "change", "ConfigMap settings changed by argocd"),
        ("node//gpu-1", "Cordoned", "change", "no new pods by kubectl-cordon")}
    assert all(began - 1.0 <= e.time <= now() for e in got.events)


def test_troubles_and_states_are_told(control: Control, source: KubernetesSource) -> None:
    """A container killed for memory, a node under pressure, an Event that is counted up."""
    at = now()
    control.patch("/api/v1/namespaces/shop/pods/api-x/status", {"status": {"phase": "Running", "containerStatuses": [{
        "name": "c", "image": "api:2", "imageID": "", "ready": False, "restartCount": 3,
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}, "lastState": {"terminated": {
            "reason": "OOMKilled", "exitCode": 137, "startedAt": stamp(at - 60), "finishedAt": stamp(at - 7)}}}]}})
    control.patch("/api/v1/nodes/gpu-1/status", {"status": {"conditions": [
        {"type": "Ready", "status": "True", "lastTransitionTime": stamp(at - 5000)},
        {"type": "MemoryPressure", "status": "True", "reason": "KubeletHasInsufficientMemory",
         "lastTransitionTime": stamp(at - 3)}]}})
    event = control.create("/api/v1/namespaces/shop/events", {
        "metadata": {"name": "api-x.1"}, "involvedObject": {"kind": "Pod", "namespace": "shop", "name": "api-x"},
        "type": "Warning", "reason": "BackOff", "message": "Back-off restarting", "count": 1, "lastTimestamp": stamp(at - 2)})
    got = gather(source, lambda got: len(got.events) >= 4)
    assert {(e.entity, e.reason) for e in got.events} == {
        ("pod/shop/api-x", "OOMKilled"), ("pod/shop/api-x", "CrashLoopBackOff"), ("node//gpu-1", "MemoryPressure"),
        ("pod/shop/api-x", "BackOff")}
    assert {e.time for e in got.events if e.reason == "OOMKilled"} == {float(int(at - 7))}
    assert got.values("kube_pod_container_status_restarts_total", container="c")[-1] == 3
    assert got.values("kube_node_status_condition", condition="MemoryPressure")[-1] == 1
    control.patch(f"/api/v1/namespaces/shop/events/{event['metadata']['name']}", {"count": 9, "lastTimestamp": stamp(now())})
    got = gather(source, lambda got: bool(got.events))
    assert [e.text for e in got.events] == ["Back-off restarting (9 times)"]


def test_an_event_through_the_newer_api_is_the_same(control: Control, source: KubernetesSource) -> None:
    """What is written to events.k8s.io/v1 is read through the core API, once."""
    control.create("/apis/events.k8s.io/v1/namespaces/shop/events", {
        "metadata": {"name": "new.1"}, "regarding": {"kind": "Pod", "namespace": "shop", "name": "api-x"}, "type": "Warning",
        "reason": "Unhealthy", "note": "probe failed", "action": "Probing", "reportingController": "kubelet",
        "reportingInstance": "k", "eventTime": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"})
    got = gather(source, lambda got: bool(got.events))
    assert [(e.entity, e.reason, e.text) for e in got.events] == [("pod/shop/api-x", "Unhealthy", "probe failed")]


def test_after_an_outage_with_lost_history_only_the_difference_is_told(control: Control, source: KubernetesSource) -> None:
    """The API server stops, etcd forgets, the server comes back: nothing twice, and what happened meanwhile once."""
    control.patch("/api/v1/nodes/gpu-1?fieldManager=kubectl-uncordon", {"spec": {"unschedulable": None}})
    gather(source, lambda got: [e.reason for e in got.events] == ["Uncordoned"])
    control.stop("kube-apiserver")
    control.start()
    control.call("DELETE", "/api/v1/namespaces/shop/pods/api-x?gracePeriodSeconds=0")
    control.compact()
    control.stop("kube-apiserver")
    control.start()
    got = gather(source, lambda got: any("pod/shop/api-x" in links.gone_nodes for _, links in got.topology))
    assert got.events == []


def test_no_content_of_a_config_map_reaches_us(control: Control, source: KubernetesSource) -> None:
    """A real server answers with the metadata alone."""
    import asyncio

    from aiops.sources.kubernetes.api import KubeApi
    from aiops.sources.kubernetes.wire import METADATA

    async def read() -> bytes:
        api = KubeApi(source._watching._access)
        try:
            return await api.get("/api/v1/namespaces/shop/configmaps", {"limit": "5"}, METADATA.format("List"))
        finally:
            await api.close()
    found = json.loads(asyncio.run(read()))
    assert found["kind"] == "PartialObjectMetadataList"
    assert all(set(item) <= {"metadata", "kind", "apiVersion"} for item in found["items"])
    assert any(item["metadata"]["name"] == "settings" for item in found["items"])
