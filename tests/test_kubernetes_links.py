"""The topology of a cluster from its objects: what each stands for, and differences that add up to the whole."""

from __future__ import annotations

from typing import Any

import msgspec
from fakes.collected import Collected
from fakes.kube_watch import KubeWatch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_sources_kubernetes import PODS, kubeconfig, make, meta, pod, server, until  # noqa: F401 - fixtures

from aiops.links import Known
from aiops.sources.kubernetes import kinds
from aiops.sources.kubernetes.kinds import Kind
from aiops.sources.kubernetes.links import Cluster
from aiops.sources.kubernetes.reflector import Change
from aiops.types import Edge

KINDS: dict[str, Kind] = {"pod": kinds.PODS, "node": kinds.NODES, "service": kinds.SERVICES, "endpointslice": kinds.SLICES,
                          "replicaset": kinds.REPLICASETS, "ingress": kinds.INGRESSES, "httproute": kinds.HTTPROUTES,
                          "deployment": kinds.DEPLOYMENTS}


def decoded(kind: str, given: dict[str, Any]) -> Any:
    """As the reflector keeps it."""
    return KINDS[kind].keep(msgspec.json.decode(msgspec.json.encode(given), type=KINDS[kind].item))


def edges(kind: str, given: dict[str, Any]) -> set[Edge]:
    """What one object by itself says."""
    item = decoded(kind, given)
    return {*Cluster().take({kind: [Change(("shop", "x"), None, item, True)]}).edges}


def node(**labels: str) -> dict[str, Any]:
    return {"metadata": {**meta("gpu-1"), "namespace": "", "labels": labels}, "status": {"capacity": {}}}


# ------------------------------------------------------------------------------------------------------------- fabric
def test_a_machine_runs_on_what_it_shares_with_others() -> None:
    """Topograph's labels of version 1, its earlier ones, and that of the GPU operator."""
    now = edges("node", node(**{
        "topology.kubernetes.io/zone": "eu-1a", "fabric.topograph.run/tier-0": "s1", "fabric.topograph.run/tier-1": "s2",
        "fabric.topograph.run/tier-2": "s3", "fabric.topograph.run/tier-10": "s9", "fabric.topograph.run/tier-x": "no",
        "accelerator.topograph.run/domain": "d", "accelerator.topograph.run/sub-domain": "d.1"}))
    chain = [("node//gpu-1", "zone//eu-1a"), ("node//gpu-1", "leaf//s1"), ("leaf//s1", "spine//s2"), ("spine//s2", "core//s3"),
             ("core//s3", "tier-10//s9"), ("node//gpu-1", "nvlink_partition//d.1"), ("nvlink_partition//d.1", "nvlink_domain//d")]
    assert now == {Edge(a, b, "runs_on") for a, b in chain}
    before = edges("node", node(**{"network.topology.nvidia.com/accelerator": "nvl1", "network.topology.nvidia.com/leaf": "s1",
                                   "network.topology.nvidia.com/core": "s3"}))
    assert before == {Edge("node//gpu-1", "nvlink_domain//nvl1", "runs_on"), Edge("node//gpu-1", "leaf//s1", "runs_on"),
                      Edge("leaf//s1", "core//s3", "runs_on")}
    assert edges("node", node(**{"nvidia.com/gpu.clique": "u.1"})) == {Edge("node//gpu-1", "nvlink_domain//u.1", "runs_on")}


# ------------------------------------------------------------------------------------------------------------- routes
def test_an_ingress_calls_each_service_that_it_leads_to() -> None:
    """By its paths, and by default; a backend that is no service is none."""
    backend = {"service": {"name": "api", "port": {"number": 80}}}
    bucket = {"resource": {"kind": "Bucket", "name": "b"}}
    assert edges("ingress", {"metadata": meta("web"), "spec": {
        "defaultBackend": {"service": {"name": "front"}},
        "rules": [{"http": {"paths": [{"backend": backend}, {"backend": bucket}]}}, {}]}}) == {
            Edge("ingress/shop/web", "service/shop/api"), Edge("ingress/shop/web", "service/shop/front")}


def test_a_gateway_calls_its_routes_and_these_their_services() -> None:
    """Also in other namespaces; a backend without a share of the traffic is none, nor is one that is no service."""
    found = edges("httproute", {"metadata": meta("web"), "spec": {
        "parentRefs": [{"name": "gw", "namespace": "infra"}, {"kind": "Service", "name": "mesh"}],
        "rules": [{"backendRefs": [{"name": "api", "weight": 90}, {"name": "new", "weight": 0},
                                   {"name": "far", "namespace": "other", "kind": "Service"}, {"kind": "Bucket", "name": "b"}]}]}})
    assert found == {Edge("gateway/infra/gw", "httproute/shop/web"), Edge("httproute/shop/web", "service/shop/api"),
                     Edge("httproute/shop/web", "service/other/far")}


def test_a_pod_uses_its_claims() -> None:
    """Those that it names, and those that are made for it; other volumes are not even kept."""
    one = pod("db-0")
    one["spec"]["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": "data-db-0"}},
                              {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
                              {"name": "cfg", "configMap": {"name": "c"}}]
    assert {e.target for e in edges("pod", one) if e.kind == "uses"} == {
        "persistentvolumeclaim/shop/data-db-0", "persistentvolumeclaim/shop/db-0-scratch"}
    assert len(decoded("pod", one).spec.volumes) == 2


# -------------------------------------------------------------------------------------------------------- differences
def _pod(k: int, node_name: str | None, owner: str, phase: str) -> tuple[str, tuple[str, str], dict[str, Any]]:
    return "pod", ("shop", f"p{k}"), pod(f"p{k}", ("ReplicaSet", owner), node_name, phase)


def _slice(k: int, pods: list[int]) -> tuple[str, tuple[str, str], dict[str, Any]]:
    ends = [{"targetRef": {"kind": "Pod", "name": f"p{n}", "namespace": "shop"}} for n in pods]
    about = meta(f"s{k}", labels={"kubernetes.io/service-name": "api"})
    return "endpointslice", ("shop", f"s{k}"), {"metadata": about, "endpoints": ends}


def _set(k: int, owner: str) -> tuple[str, tuple[str, str], dict[str, Any]]:
    return "replicaset", ("shop", f"rs{k}"), {"metadata": meta(f"rs{k}", owner=("Deployment", owner)), "spec": {"replicas": 1}}


def _machine(k: int, leaf: str) -> tuple[str, tuple[str, str], dict[str, Any]]:
    given = node(**{"network.topology.nvidia.com/leaf": leaf, "network.topology.nvidia.com/spine": "s"})
    given["metadata"]["name"] = f"n{k}"
    return "node", ("", f"n{k}"), given


few = st.integers(0, 3)
objects = st.one_of(
    st.builds(_pod, few, st.sampled_from([None, "n0", "n1"]), st.sampled_from(["rs0", "rs1"]),
              st.sampled_from(["Running", "Succeeded"])),
    st.builds(_slice, st.integers(0, 1), st.lists(few, max_size=3)),
    st.builds(_set, st.integers(0, 1), st.sampled_from(["a", "b"])),
    st.builds(_machine, st.integers(0, 1), st.sampled_from(["l0", "l1"])))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(st.lists(st.tuples(objects, st.booleans()), max_size=4), min_size=1, max_size=8))
def test_differences_add_up_to_the_whole(turns) -> None:
    """In whatever order objects come, change their parents, and go: a pod before its ReplicaSet, a slice before its pods."""
    followed, known, here = Cluster(), Known(), {}
    for turn in turns:
        news: dict[str, dict[tuple[str, str], Change[Any]]] = {}
        for (kind, key, made), stays in turn:
            before = here.get((kind, key))
            first = news.setdefault(kind, {}).get(key)
            here.pop((kind, key), None)
            if stays:
                here[kind, key] = decoded(kind, made)
            news[kind][key] = Change(key, first.before if first else before, here.get((kind, key)))
        known.put(followed.take({kind: [*changes.values()] for kind, changes in news.items()}))
        whole = Cluster().take({name: [Change(key, None, item) for (kind, key), item in here.items() if kind == name]
                                for name in KINDS})
        assert known.whole() == Known(whole).whole()


def test_one_pod_more_is_a_difference_of_one_pod(make, server: KubeWatch) -> None:  # noqa: F811 - fixtures
    """From the API server on: the whole is told once."""
    source = make()
    first = until(source, lambda got: bool(got.topology))
    assert first.topology[0][1].whole
    server.put(PODS, pod("api-y", ("ReplicaSet", "api-1")))
    second: Collected = until(source, lambda got: bool(got.topology))
    [(_, change)] = second.topology
    assert not change.whole and [n.entity for n in change.nodes] == ["pod/shop/api-y"]
    assert {*change.edges} == {Edge("deployment/shop/api", "pod/shop/api-y", "owns"),
                               Edge("pod/shop/api-y", "node//gpu-1", "runs_on")}


def test_a_cluster_without_the_gateway_api_lacks_nothing(make, server: KubeWatch) -> None:  # noqa: F811 - fixtures
    """Its 404 is no trouble and no note."""
    del server.objects["/apis/gateway.networking.k8s.io/v1/httproutes"]
    source = make()
    until(source, lambda got: bool(got.topology))
    assert source.synced and not source.notes
