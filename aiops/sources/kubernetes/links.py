"""The topology of a cluster, from what the API server says.

Service and workload own their pods, a pod runs on its node and uses its claims, a node uses its GPUs; an Ingress calls services,
a Gateway its HTTPRoutes, and these services. A node runs on what it shares with others: its zone, its NVLink domain, its leaf
switch, which hangs on a spine. A pod that has finished is left out. An object may say `aiops.io/criticality: "3"` in an
annotation, and carry the label `aiops.io/proxy: "true"`. Labels of the fabric:
https://docs.nvidia.com/topograph/reference/node-labels-and-annotations, and `nvidia.com/gpu.clique` of the GPU operator.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

from aiops.sources.kubernetes.kinds import Deployed, Machine
from aiops.sources.kubernetes.objects import HttpRoute, Ingress, Labelled, Meta, Pod, Slice, controller, entity
from aiops.sources.kubernetes.reflector import Change, Key
from aiops.types import Edge, Links, Node

_KEPT_LABELS = frozenset({"aiops.io/proxy", "app.kubernetes.io/name", "app.kubernetes.io/version",
                          "topology.kubernetes.io/zone", "nvidia.com/gpu.product"})
TIERS = ("leaf", "spine", "core")
_FABRIC, _TIER = "network.topology.nvidia.com/", "fabric.topograph.run/tier-"
_DOMAIN = ("accelerator.topograph.run/domain", _FABRIC + "accelerator", "nvidia.com/gpu.clique")
_PARTITION = "accelerator.topograph.run/sub-domain"
ZONE = "topology.kubernetes.io/zone"
Part = tuple[str, Key]
"""An object: its kind in lower case, namespace and name."""


class Cluster:
    """Follows what changes and says what of the topology does: the work is that of the changes, not of the cluster.

    Of each object it is known which node and edges it stands for, and which other objects must be looked at once more with it.
    """

    def __init__(self) -> None:
        self._items: dict[Part, Any] = {}
        self._nodes: dict[Part, Node] = {}
        self._edges: dict[Part, frozenset[Edge]] = {}
        self._count: Counter[Edge] = Counter()
        self._refers: dict[Part, frozenset[Part]] = {}
        self._with: dict[Part, set[Part]] = {}
        self._whole = True

    def take(self, changes: Mapping[str, Iterable[Change[Any]]]) -> Links:
        """What is another in the topology after these changes, by kind; the first time the whole."""
        dirty: dict[Part, None] = {}
        for kind, some in changes.items():
            for change in some:
                dirty.update(dict.fromkeys(self._put((kind, change.key), change.after)))
        before = {part: (self._nodes.get(part), self._edges.get(part, frozenset())) for part in dirty}
        for part in dirty:
            self._look(part)
        found, self._whole = self._difference(before), False
        return found

    def _put(self, part: Part, item: Any | None) -> list[Part]:
        """Who is to be looked at: the object, and who must be with it. Nobody, where it is the same for the topology."""
        old = self._items.pop(part, None)
        if item is not None:
            self._items[part] = item
        same = (old is None) == (item is None) and shape(old) == shape(item)
        return [] if same else [part, *sorted(self._with.get(part, ()))]

    def _look(self, part: Part) -> None:
        """What an object stands for now."""
        node, edges, others = self._of(part)
        if node is None:
            self._nodes.pop(part, None)
        else:
            self._nodes[part] = node
        old, new = self._edges.pop(part, frozenset()), frozenset(edges)
        self._count.subtract(old - new)
        self._count.update(new - old)
        if new:
            self._edges[part] = new
        self._refer(part, frozenset(others))

    def _refer(self, part: Part, others: frozenset[Part]) -> None:
        for other in self._refers.pop(part, frozenset()) - others:
            self._with[other].discard(part)
            if not self._with[other]:
                del self._with[other]
        for other in others:
            self._with.setdefault(other, set()).add(part)
        if others:
            self._refers[part] = others

    def _difference(self, before: Mapping[Part, tuple[Node | None, frozenset[Edge]]]) -> Links:
        """Edges that several objects tell are there while one of them does."""
        nodes, gone = [], []
        told: set[Edge] = set()
        for part, (node, edges) in before.items():
            now = self._nodes.get(part)
            nodes += [now] if now is not None and now != node else []
            gone += [node.entity] if node is not None and now is None else []
            told |= edges ^ self._edges.get(part, frozenset())
        here = {e for e in told if self._count[e] > 0}
        went = told - here
        for edge in went:
            del self._count[edge]
        return Links(tuple(sorted(nodes, key=lambda n: n.entity)), tuple(sorted(here, key=_place)), tuple(sorted(gone)),
                     tuple(sorted(went, key=_place)), self._whole)

    # --------------------------------------------------------------------------------------------- what an object says
    def _of(self, part: Part) -> tuple[Node | None, Iterable[Edge], Iterable[Part]]:
        """Node, edges, and the objects with which it must be looked at again."""
        item, (kind, (namespace, _)) = self._items.get(part), part
        if isinstance(item, Pod):
            return (None, (), ()) if item.finished else self._of_pod(item)
        if isinstance(item, Slice):
            return None, [*self._membership(item)], [("pod", (namespace, e.target_ref.name)) for e in item.endpoints or ()
                                                     if e.target_ref and e.target_ref.kind == "Pod"]
        if isinstance(item, Machine):
            return _node("node", item.meta), [*_machine(item)], ()
        if isinstance(item, Ingress):
            return _node(kind, item.metadata), [*_ingress(item)], ()
        if isinstance(item, HttpRoute):
            return _node(kind, item.metadata), [*_route(item)], ()
        if isinstance(item, Labelled):
            return _node(kind, item.metadata), (), ()
        return (_node(kind, item.meta), (), ()) if isinstance(item, Deployed) and kind != "replicaset" else (None, (), ())

    def _of_pod(self, p: Pod) -> tuple[Node, Iterable[Edge], Iterable[Part]]:
        """Workload -> pod, with the ReplicaSet in between left out; pod -> node and claims."""
        me, namespace = f"pod/{p.metadata.namespace}/{p.metadata.name}", p.metadata.namespace
        edges = [Edge(me, f"node//{p.spec.node_name}", "runs_on")] if p.spec.node_name else []
        edges += [Edge(me, f"persistentvolumeclaim/{namespace}/{claim}", "uses") for claim in _claims(p)]
        owner, others = controller(p.metadata), list[Part]()
        if owner and owner[0] == "replicaset":
            others.append(("replicaset", (namespace, owner[1])))
            above = self._items.get(others[0])
            owner = (controller(above.meta) if above is not None else None) or owner
        if owner and owner[0] != "node":
            edges.append(Edge(f"{owner[0]}/{namespace}/{owner[1]}", me, "owns"))
        return _node("pod", p.metadata), edges, others

    def _membership(self, piece: Slice) -> Iterator[Edge]:
        """Service -> pod, from an EndpointSlice."""
        namespace, service = piece.metadata.namespace, (piece.metadata.labels or {}).get("kubernetes.io/service-name")
        for endpoint in piece.endpoints or () if service else ():
            target = endpoint.target_ref
            pod = self._items.get(("pod", (namespace, target.name))) if target and target.kind == "Pod" else None
            if target and pod is not None and not pod.finished:
                yield Edge(f"service/{namespace}/{service}", f"pod/{namespace}/{target.name}", "owns")


def shape(item: Any) -> object:
    """All that the graph takes from an object: while it stays the same, so does the graph."""
    if isinstance(item, Pod):
        return item.finished, item.spec.node_name, [*_claims(item)], _shape(item.metadata)
    if isinstance(item, Slice):
        return [e.target_ref for e in item.endpoints or ()], _shape(item.metadata)
    if isinstance(item, Machine):
        return item.gpus, _shape(item.meta)
    if isinstance(item, Ingress | HttpRoute):
        return item.spec, _shape(item.metadata)
    meta = getattr(item, "metadata", None) or getattr(item, "meta", None)
    return _shape(meta) if meta else None


def _shape(meta: Meta) -> object:
    return meta.labels, (meta.annotations or {}).get("aiops.io/criticality"), controller(meta)


def _claims(p: Pod) -> Iterator[str]:
    """https://kubernetes.io/docs/concepts/storage/ephemeral-volumes/#persistentvolumeclaim-naming"""
    for volume in p.spec.volumes or ():
        if volume.persistent_volume_claim:
            yield volume.persistent_volume_claim.claim_name
        elif volume.ephemeral:
            yield f"{p.metadata.name}-{volume.name}"


def _machine(m: Machine) -> Iterator[Edge]:
    """Its GPUs, and what it shares with other machines, tier by tier."""
    me, labels = f"node//{m.meta.name}", m.meta.labels or {}
    for i in range(m.gpus):
        yield Edge(me, f"gpu/{m.meta.name}/{i}", "uses")
    domain = next((labels[k] for k in _DOMAIN if labels.get(k)), "")
    ways = [[f"zone//{labels.get(ZONE, '')}"], [f"nvlink_partition//{labels.get(_PARTITION, '')}", f"nvlink_domain//{domain}"],
            _tiers(labels)]
    for way in ways:
        chain = [me, *(e for e in way if not e.endswith("//"))]
        yield from (Edge(lower, upper, "runs_on") for lower, upper in pairwise(chain))


def _tiers(labels: Mapping[str, str]) -> list[str]:
    """The switches above a machine, the nearest first: by Topograph's tiers, else by the names that it gave until version 1."""
    found = {int(k.removeprefix(_TIER)): v for k, v in labels.items() if k.startswith(_TIER) and k[len(_TIER):].isdecimal() and v}
    found = found or {n: v for n, tier in enumerate(TIERS) if (v := labels.get(_FABRIC + tier))}
    return [f"{TIERS[n] if n < len(TIERS) else f'tier-{n}'}//{found[n]}" for n in sorted(found)]


def _ingress(i: Ingress) -> Iterator[Edge]:
    paths = [p.backend for r in i.spec.rules or () if r.http for p in r.http.paths or ()]
    for backend in [*([i.spec.default_backend] if i.spec.default_backend else []), *paths]:
        if backend.service and backend.service.name:
            yield Edge(f"ingress/{i.metadata.namespace}/{i.metadata.name}",
                       f"service/{i.metadata.namespace}/{backend.service.name}", "calls")


def _route(r: HttpRoute) -> Iterator[Edge]:
    """A backend that gets no traffic is none."""
    me, own = f"httproute/{r.metadata.namespace}/{r.metadata.name}", r.metadata.namespace
    for parent in r.spec.parent_refs or ():
        if parent.kind in ("", "Gateway"):
            yield Edge(f"gateway/{parent.namespace or own}/{parent.name}", me, "calls")
    for backend in (b for rule in r.spec.rules or () for b in rule.backend_refs or ()):
        if backend.kind in ("", "Service") and backend.weight > 0:
            yield Edge(me, f"service/{backend.namespace or own}/{backend.name}", "calls")


def _node(kind: str, meta: Meta) -> Node:
    told = (meta.annotations or {}).get("aiops.io/criticality", "1")
    try:
        criticality = max(0.0, float(told))
    except ValueError:
        criticality = 1.0
    labels = {k.rpartition("/")[2]: v for k, v in (meta.labels or {}).items() if k in _KEPT_LABELS}
    return Node(entity(kind, meta.namespace, meta.name), criticality if criticality < float("inf") else 1.0, labels)


def _place(edge: Edge) -> tuple[str, str, str]:
    return edge.source, edge.target, edge.kind
