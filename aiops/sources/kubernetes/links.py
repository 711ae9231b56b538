"""The topology of a cluster, from what the API server says.

Service and workload own their pods, a pod runs on its node, a node uses its GPUs. A pod that has finished is left out. An
object may say `aiops.io/criticality: "3"` in an annotation, and carry the label `aiops.io/proxy: "true"`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from aiops.sources.kubernetes.kinds import Deployed, Machine
from aiops.sources.kubernetes.objects import Labelled, Meta, Pod, Slice, controller, entity
from aiops.sources.kubernetes.reflector import Key
from aiops.types import Edge, Entity, Links, Node

_KEPT_LABELS = frozenset({"aiops.io/proxy", "app.kubernetes.io/name", "app.kubernetes.io/version",
                          "topology.kubernetes.io/zone"})


def links(pods: Mapping[Key, Pod], sets: Mapping[Key, Deployed], workloads: Mapping[Entity, Deployed],
          services: Iterable[Labelled], slices: Iterable[Slice], machines: Iterable[Machine]) -> Links:
    """The whole graph, sorted, so that equal clusters give equal links."""
    running = {key: p for key, p in pods.items() if not p.finished}
    edges = {*_placement(running.values()), *_ownership(running.values(), sets)}
    for piece in slices:
        edges.update(_membership(piece, running))
    nodes = {(n := _node("pod", p.metadata)).entity: n for p in running.values()}
    nodes |= {(n := _node("service", s.metadata)).entity: n for s in services}
    nodes |= {e: _node(e.split("/")[0], w.meta) for e, w in workloads.items()}
    for m in machines:
        nodes[f"node//{m.meta.name}"] = _node("node", m.meta)
        edges.update(Edge(f"node//{m.meta.name}", f"gpu/{m.meta.name}/{i}", "uses") for i in range(m.gpus))
    return Links(tuple(nodes[e] for e in sorted(nodes)), tuple(sorted(edges, key=lambda e: (e.source, e.target, e.kind))))


def shape(item: Any) -> object:
    """All that the graph takes from an object: while it stays the same, so does the graph."""
    if isinstance(item, Pod):
        return item.finished, item.spec.node_name, _shape(item.metadata)
    if isinstance(item, Slice):
        return [e.target_ref for e in item.endpoints or ()], _shape(item.metadata)
    if isinstance(item, Machine):
        return item.gpus, _shape(item.meta)
    meta = getattr(item, "metadata", None) or getattr(item, "meta", None)
    return _shape(meta) if meta else None


def _shape(meta: Meta) -> object:
    return meta.labels, (meta.annotations or {}).get("aiops.io/criticality"), controller(meta)


def _placement(pods: Iterable[Pod]) -> Iterable[Edge]:
    for p in pods:
        if p.spec.node_name:
            yield Edge(f"pod/{p.metadata.namespace}/{p.metadata.name}", f"node//{p.spec.node_name}", "runs_on")


def _ownership(pods: Iterable[Pod], sets: Mapping[Key, Deployed]) -> Iterable[Edge]:
    """Workload -> pod, with the ReplicaSet in between left out."""
    for p in pods:
        owner = controller(p.metadata)
        if owner and owner[0] == "replicaset" and (p.metadata.namespace, owner[1]) in sets:
            owner = controller(sets[p.metadata.namespace, owner[1]].meta) or owner
        if owner and owner[0] != "node":
            yield Edge(f"{owner[0]}/{p.metadata.namespace}/{owner[1]}", f"pod/{p.metadata.namespace}/{p.metadata.name}", "owns")


def _membership(piece: Slice, running: Mapping[Key, Pod]) -> Iterable[Edge]:
    """Service -> pod, from an EndpointSlice."""
    service = (piece.metadata.labels or {}).get("kubernetes.io/service-name")
    for endpoint in piece.endpoints or () if service else ():
        target = endpoint.target_ref
        if target and target.kind == "Pod" and (piece.metadata.namespace, target.name) in running:
            namespace = piece.metadata.namespace
            yield Edge(f"service/{namespace}/{service}", f"pod/{namespace}/{target.name}", "owns")


def _node(kind: str, meta: Meta) -> Node:
    told = (meta.annotations or {}).get("aiops.io/criticality", "1")
    try:
        criticality = max(0.0, float(told))
    except ValueError:
        criticality = 1.0
    labels = {k.rpartition("/")[2]: v for k, v in (meta.labels or {}).items() if k in _KEPT_LABELS}
    return Node(entity(kind, meta.namespace, meta.name), criticality if criticality < float("inf") else 1.0, labels)
