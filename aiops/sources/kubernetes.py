"""What a Kubernetes cluster says about itself: topology, rollouts, warning events. Polled, in chunks.

Links: service and workload own their pods, a pod runs on its node, a node uses its GPUs. A pod that has finished is left
out. An object may say `aiops.io/criticality: "3"` in an annotation, and carry the label `aiops.io/proxy: "true"`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from aiops.interfaces import Samples
from aiops.sources.kubeapi import KubeApi, KubeError, KubeEvent, KubeNode, Meta, Pod, Service, Slice, Workload
from aiops.sources.podlogs import PodLogs
from aiops.types import Edge, Entity, Event, Links, Node

RECENT_S = 3600.0
EVENT_AGE_S = 600.0
MAX_EVENTS_KNOWN = 20_000
MAX_TEXT = 500
REVISION = "deployment.kubernetes.io/revision"
GPU_RESOURCE = "nvidia.com/gpu"
_WORKLOADS = (("deployments", "deployment"), ("statefulsets", "statefulset"), ("daemonsets", "daemonset"))
_CLUSTER_WIDE = frozenset({"node", "namespace", "persistentvolume"})
_KEPT_LABELS = frozenset({"aiops.io/proxy", "app.kubernetes.io/name", "app.kubernetes.io/version",
                          "topology.kubernetes.io/zone"})
Item = TypeVar("Item")


class KubernetesSource:
    """Polls the API server. `namespaces` empty: all of them. `log_selector`: labels of pods whose logs are followed.
    Raises KubeError where it cannot be read.

    A right that is missing (403) for anything but pods is named in `notes`, and that part is left out.
    """

    def __init__(self, name: str = "kubernetes", interval_s: float = 30.0, *, namespaces: Sequence[str] = (),
                 events: bool = True, topology: bool = True, log_selector: str = "",
                 kubeconfig: Path | None = None, context: str | None = None) -> None:
        self.name, self.interval_s = name, interval_s
        self.notes: dict[str, str] = {}
        self._api = KubeApi(kubeconfig, context)
        self._namespaces, self._events, self._topology = tuple(namespaces), events, topology
        self._logs = PodLogs(self._api, log_selector, namespaces) if log_selector else None
        self._before: dict[Entity, _Version] | None = None
        self._known: dict[str, str] = {}
        self._links: Links | None = None

    def poll(self, now: float, into: Samples) -> None:
        """Topology when it changed, rollouts since the last poll, warnings that are new."""
        pods = self._list("/api/v1", "pods", Pod)
        sets = self._optional("/apis/apps/v1", "replicasets", Workload)
        workloads = [(f"{kind}/{w.metadata.namespace}/{w.metadata.name}", w)
                     for plural, kind in _WORKLOADS for w in self._optional("/apis/apps/v1", plural, Workload)]
        if self._topology:
            links = self._graph(pods, sets, workloads)
            if links != self._links:
                into.links(self.name, links)
                self._links = links
        self._put_changes(now, workloads, sets, into)
        if self._events:
            self._put_events(now, into)
        if self._logs:
            self._logs.poll(now, into)
            self.notes = {k: v for k, v in self.notes.items() if not k.startswith("log ")}
            self.notes |= {f"log {k}": v for k, v in self._logs.notes.items()}

    def close(self) -> None:
        self._api.close()

    # ---------------------------------------------------------------------------------------------------- reading
    def _list(self, root: str, plural: str, item: type[Item], **query: str) -> list[Item]:
        namespaces = () if plural == "nodes" else self._namespaces
        paths = [f"{root}/namespaces/{n}/{plural}" for n in namespaces] or [f"{root}/{plural}"]
        return [found for path in paths for found in self._api.items(path, item, **query)]

    def _optional(self, root: str, plural: str, item: type[Item], **query: str) -> list[Item]:
        try:
            found = self._list(root, plural, item, **query)
        except KubeError as e:
            if e.status not in (403, 404):
                raise
            self.notes[plural] = str(e)
            return []
        self.notes.pop(plural, None)
        return found

    # --------------------------------------------------------------------------------------------------- topology
    def _graph(self, pods: list[Pod], sets: list[Workload], workloads: list[tuple[Entity, Workload]]) -> Links:
        running = {(p.metadata.namespace, p.metadata.name): p for p in pods if p.status.phase not in ("Succeeded", "Failed")}
        edges = {*_placement(running.values()), *_ownership(running.values(), sets)}
        services = self._optional("/api/v1", "services", Service)
        for piece in self._optional("/apis/discovery.k8s.io/v1", "endpointslices", Slice):
            edges.update(_membership(piece, running))
        nodes = {_entity("pod", p.metadata): _node("pod", p.metadata) for p in running.values()}
        nodes |= {_entity("service", s.metadata): _node("service", s.metadata) for s in services}
        nodes |= {entity: _node(entity.split("/")[0], w.metadata) for entity, w in workloads}
        for machine in self._optional("/api/v1", "nodes", KubeNode):
            nodes[f"node//{machine.metadata.name}"] = _node("node", machine.metadata)
            edges.update(_gpus(machine))
        return Links(tuple(nodes[e] for e in sorted(nodes)),
                     tuple(sorted(edges, key=lambda e: (e.source, e.target, e.kind))))

    # ---------------------------------------------------------------------------------------------------- changes
    def _put_changes(self, now: float, workloads: list[tuple[Entity, Workload]], sets: list[Workload],
                     into: Samples) -> None:
        versions = {entity: _Version.of(w) for entity, w in workloads}
        if self._before is None:
            for event in _recent_rollouts(now, sets):
                into.event(event)
        for entity, version in versions.items():
            old = (self._before or {}).get(entity)
            if old is not None:
                for reason, text in version.since(old):
                    into.event(Event(now, entity, "change", reason, text[:MAX_TEXT]))
        self._before = versions

    # ----------------------------------------------------------------------------------------------------- events
    def _put_events(self, now: float, into: Samples) -> None:
        """Warnings that are new or happened again. What is older than ten minutes at the first sight is history."""
        for event in self._optional("/api/v1", "events", KubeEvent, fieldSelector="type=Warning"):
            uid, version = event.metadata.uid, event.metadata.resource_version
            if self._known.get(uid) == version and uid:
                continue
            self._known.pop(uid, None)
            self._known[uid] = version
            at = seconds(event.when, now)
            if now - at <= EVENT_AGE_S:
                text = (event.message or "")[:MAX_TEXT]
                into.event(Event(min(at, now), _involved(event), "warning", event.reason or "", text))
        for uid in list(self._known)[:max(0, len(self._known) - MAX_EVENTS_KNOWN)]:
            del self._known[uid]


class _Version:
    """What of a workload changes in a rollout, and what when it is scaled."""

    __slots__ = ("images", "replicas", "revision")

    def __init__(self, revision: str, images: tuple[str, ...], replicas: int | None) -> None:
        self.revision, self.images, self.replicas = revision, images, replicas

    @classmethod
    def of(cls, w: Workload) -> _Version:
        images = tuple(c.image for c in w.spec.template.spec.containers or ())
        generation = str(w.metadata.generation) if w.spec.replicas is None else ""  # a DaemonSet: never scaled
        revision = (w.metadata.annotations or {}).get(REVISION) or w.status.update_revision or generation
        return cls(revision, images, w.spec.replicas)

    def since(self, old: _Version) -> Iterable[tuple[str, str]]:
        """(reason, text) of each change."""
        if (self.revision, self.images) != (old.revision, old.images):
            what = [f"revision {old.revision or '?'} -> {self.revision or '?'}"] if self.revision != old.revision else []
            if self.images != old.images:
                what.append(f"image {', '.join(old.images)} -> {', '.join(self.images)}")
            yield "Rollout", "; ".join(what)
        if self.replicas != old.replicas and None not in (self.replicas, old.replicas):
            yield "Scaled", f"replicas {old.replicas} -> {self.replicas}"


def _recent_rollouts(now: float, sets: list[Workload]) -> Iterable[Event]:
    """Rollouts of the last hour, from the age of ReplicaSets: what a daemon that just started would have missed."""
    for s in sets:
        owner = _controller(s.metadata)
        at = seconds(s.metadata.creation_timestamp, 0.0)
        revision = (s.metadata.annotations or {}).get(REVISION, "")
        if owner and owner[0] == "deployment" and revision not in ("", "1") and s.spec.replicas and now - at <= RECENT_S:
            images = ", ".join(c.image for c in s.spec.template.spec.containers or ())
            yield Event(at, f"deployment/{s.metadata.namespace}/{owner[1]}", "change", "Rollout",
                        f"revision {revision}; image {images}"[:MAX_TEXT])


def _placement(pods: Iterable[Pod]) -> Iterable[Edge]:
    for p in pods:
        if p.spec.node_name:
            yield Edge(_entity("pod", p.metadata), f"node//{p.spec.node_name}", "runs_on")


def _ownership(pods: Iterable[Pod], sets: list[Workload]) -> Iterable[Edge]:
    """Workload -> pod, with the ReplicaSet in between left out."""
    deployments = {(s.metadata.namespace, s.metadata.name): _controller(s.metadata) for s in sets}
    for p in pods:
        owner = _controller(p.metadata)
        if owner and owner[0] == "replicaset":
            owner = deployments.get((p.metadata.namespace, owner[1])) or owner
        if owner and owner[0] != "node":
            yield Edge(f"{owner[0]}/{p.metadata.namespace}/{owner[1]}", _entity("pod", p.metadata), "owns")


def _membership(piece: Slice, running: dict[tuple[str, str], Pod]) -> Iterable[Edge]:
    """Service -> pod, from an EndpointSlice."""
    service = (piece.metadata.labels or {}).get("kubernetes.io/service-name")
    for endpoint in piece.endpoints or () if service else ():
        target = endpoint.target_ref
        if target and target.kind == "Pod" and (piece.metadata.namespace, target.name) in running:
            namespace = piece.metadata.namespace
            yield Edge(f"service/{namespace}/{service}", f"pod/{namespace}/{target.name}", "owns")


def _gpus(machine: KubeNode) -> Iterable[Edge]:
    """Node -> each GPU it offers, under the name that the dcgm pack gives it."""
    count = (machine.status.capacity or {}).get(GPU_RESOURCE, "0")
    for i in range(int(count) if count.isdigit() and int(count) <= 64 else 0):
        yield Edge(f"node//{machine.metadata.name}", f"gpu/{machine.metadata.name}/{i}", "uses")


def _node(kind: str, meta: Meta) -> Node:
    told = (meta.annotations or {}).get("aiops.io/criticality", "1")
    try:
        criticality = max(0.0, float(told))
    except ValueError:
        criticality = 1.0
    labels = {k.rpartition("/")[2]: v for k, v in (meta.labels or {}).items() if k in _KEPT_LABELS}
    return Node(_entity(kind, meta), criticality if criticality < float("inf") else 1.0, labels)


def _controller(meta: Meta) -> tuple[str, str] | None:
    """(kind in lower case, name) of the object that manages this one."""
    return next(((o.kind.lower(), o.name) for o in meta.owner_references or () if o.controller), None)


def _entity(kind: str, meta: Meta) -> Entity:
    return f"{kind}/{'' if kind in _CLUSTER_WIDE else meta.namespace}/{meta.name}"


def _involved(event: KubeEvent) -> Entity:
    kind = event.involved_object.kind.lower() or "unknown"
    namespace = "" if kind in _CLUSTER_WIDE else event.involved_object.namespace
    return f"{kind}/{namespace}/{event.involved_object.name}"


def seconds(timestamp: str | None, otherwise: float) -> float:
    """RFC 3339 as UTC seconds; `otherwise` where there is none or it cannot be read."""
    if not timestamp:
        return otherwise
    try:
        return datetime.fromisoformat(timestamp.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return otherwise
