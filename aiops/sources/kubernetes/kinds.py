"""Which collections of the Kubernetes API are followed, and what of each object stays in memory.

`RIGHTS` is all that is needed to follow them: lists and watches, nothing else (docs/sources.md, `aiops doctor`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import msgspec

from aiops.sources.kubernetes import objects as k8s
from aiops.sources.kubernetes.objects import Labelled, Managed, Owned, seconds
from aiops.sources.kubernetes.workloads import Autoscaler, Named, Template, TemplateSpec, Workload, WorkloadStatus
from aiops.types import Entity

Right = tuple[str, str, str]
Reference = tuple[str, str]
MAX_TEXT = 500
REVISION = "deployment.kubernetes.io/revision"
RESTARTED = "kubectl.kubernetes.io/restartedAt"


@dataclass(frozen=True, slots=True)
class By:
    """When a field was set last, and by whom: NaN and empty where the object does not say."""

    at: float = float("nan")
    manager: str = ""

    @property
    def text(self) -> str:
        return f" by {self.manager}" if self.manager else ""


@dataclass(frozen=True, slots=True)
class Deployed:
    """A workload: what of it changes in a rollout and what when it is scaled, and how far it has come.

    `template` is a digest of the pod template; `refers` names the ConfigMaps and Secrets in it. `asked` and `ready` count pods.
    `settled`: every pod runs the template that is asked for.
    """

    meta: k8s.Meta
    template: str
    images: tuple[str, ...]
    restarted: str
    refers: frozenset[Reference]
    replicas: int | None
    suspended: bool
    status: WorkloadStatus
    settled: bool
    template_by: By
    replicas_by: By

    @property
    def revision(self) -> str:
        return (self.meta.annotations or {}).get(REVISION, "") or self.status.update_revision


@dataclass(frozen=True, slots=True)
class Content:
    """A ConfigMap or Secret without its content: `version` changes with the data, as far as managedFields tell."""

    uid: str
    version: str
    by: By


@dataclass(frozen=True, slots=True)
class Machine:
    """A node. `taints` without those that Kubernetes sets by itself."""

    meta: k8s.Meta
    cordoned: bool
    taints: tuple[str, ...]
    gpus: int
    conditions: tuple[k8s.Condition, ...]
    cordoned_by: By
    taints_by: By


@dataclass(frozen=True, slots=True)
class Scaler:
    """A HorizontalPodAutoscaler: whom it scales, between how many replicas, and on what (a digest)."""

    meta: k8s.Meta
    target: Entity
    least: int
    most: int
    metrics: str
    current: int
    by: By


# ------------------------------------------------------------------------------------------------------ what is kept
def deployed(w: Workload) -> Deployed:
    template = msgspec.json.decode(w.spec.template, type=Template)
    fields = w.metadata.managed_fields or ()
    meta = _small(w.metadata)
    return Deployed(meta, _digest(w.spec.template), tuple(c.image for c in template.spec.containers or ()),
                    (template.metadata.annotations or {}).get(RESTARTED, ""), frozenset(_refers(template.spec)),
                    w.spec.replicas, bool(w.spec.suspend), w.status, _settled(w),
                    _by(fields, b'"f:template"'), _by(fields, b'"f:replicas"'))


def _settled(w: Workload) -> bool:
    s = w.status
    if s.observed_generation < w.metadata.generation:
        return False
    if w.spec.replicas is None:  # a DaemonSet
        return s.desired_number_scheduled == s.updated_number_scheduled == s.number_available
    if s.update_revision:  # a StatefulSet: currentRevision is moved when the last pod is done
        return s.current_revision == s.update_revision and s.ready_replicas == w.spec.replicas
    return s.updated_replicas == s.replicas == s.available_replicas == w.spec.replicas


def content(o: Owned) -> Content:
    by = _by(o.metadata.managed_fields or (), b'"f:data"', b'"f:binaryData"', b'"f:stringData"')
    known = by.at == by.at
    return Content(o.metadata.uid, str(by.at) if known else o.metadata.resource_version, by)


def machine(n: k8s.KubeNode) -> Machine:
    count = (n.status.capacity or {}).get("nvidia.com/gpu", "0")
    taints = sorted(f"{t.key}{'=' if t.value else ''}{t.value}:{t.effect}" for t in n.spec.taints or ()
                    if not t.key.startswith("node.kubernetes.io/"))
    fields = n.metadata.managed_fields or ()
    return Machine(_small(n.metadata), n.spec.unschedulable, tuple(taints),
                   int(count) if count.isdigit() and int(count) <= 64 else 0, tuple(n.status.conditions or ()),
                   _by(fields, b'"f:unschedulable"'), _by(fields, b'"f:taints"'))


def scaler(h: Autoscaler) -> Scaler:
    target = h.spec.scale_target_ref
    fields = [m for m in h.metadata.managed_fields or () if not m.subresource]
    return Scaler(_small(h.metadata), k8s.entity(target.kind.lower(), h.metadata.namespace, target.name),
                  1 if h.spec.min_replicas is None else h.spec.min_replicas, h.spec.max_replicas, _digest(h.spec.metrics),
                  h.status.current_replicas, _by(fields, b'"f:spec"'))


def _small(meta: k8s.Meta) -> k8s.Meta:
    """Without managedFields, which are most of an object."""
    return k8s.Meta(meta.name, meta.namespace, meta.uid, meta.generation, meta.resource_version, meta.creation_timestamp,
                    meta.labels, meta.annotations, meta.owner_references)


def _digest(raw: msgspec.Raw) -> str:
    return blake2b(bytes(raw), digest_size=12).hexdigest()


def _by(fields: Iterator[Managed] | tuple[Managed, ...] | list[Managed], *names: bytes) -> By:
    """The last one to set one of these fields of the spec. A field has one owner, but for what several apply alike.

    What comes through the scale subresource has no time: whoever owns it that way set it last.
    """
    found = [By(seconds(m.time, float("nan")), m.manager) for m in fields
             if m.subresource != "status" and any(name in bytes(m.fields_v1) for name in names)]
    return max(found, key=lambda by: by.at if by.at == by.at else float("inf"), default=By())


def _refers(spec: TemplateSpec) -> Iterator[Reference]:
    """(kind in lower case, name) of each ConfigMap and Secret that the pods use."""
    for kind, named in _named(spec):
        name = (named.name or named.secret_name) if named else None
        if name:
            yield kind, name


def _named(spec: TemplateSpec) -> Iterator[tuple[str, Named | None]]:
    for volume in spec.volumes or ():
        yield "configmap", volume.config_map
        yield "secret", volume.secret
        for part in (volume.projected.sources or ()) if volume.projected else ():
            yield "configmap", part.config_map
            yield "secret", part.secret
    for container in (*(spec.containers or ()), *(spec.init_containers or ())):
        for source in container.env_from or ():
            yield "configmap", source.config_map_ref
            yield "secret", source.secret_ref
        for variable in container.env or ():
            if variable.value_from:
                yield "configmap", variable.value_from.config_map_key_ref
                yield "secret", variable.value_from.secret_key_ref


# ---------------------------------------------------------------------------------------------------- what is followed
@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of object. `metadata_only`: the server is asked for nothing else, so that no content is ever read. `optional`:
    many clusters do not have it, and nothing is amiss then."""

    plural: str
    root: str
    item: type[Any]
    keep: Callable[[Any], Any]
    metadata_only: bool = False
    namespaced: bool = True
    field_selector: str = ""
    optional: bool = False

    @property
    def rights(self) -> frozenset[Right]:
        group = self.root.removeprefix("/apis/").partition("/")[0] if self.root.startswith("/apis/") else ""
        return frozenset((group, self.plural, verb) for verb in ("list", "watch"))

    def paths(self, namespaces: tuple[str, ...]) -> list[str]:
        if not self.namespaced or not namespaces:
            return [f"{self.root}/{self.plural}"]
        return [f"{self.root}/namespaces/{n}/{self.plural}" for n in namespaces]


def _whole(item: Any) -> Any:
    return item


def _pod(p: k8s.Pod) -> k8s.Pod:
    """Of its volumes only claims: there are many others."""
    p.spec.volumes = [v for v in p.spec.volumes or () if v.persistent_volume_claim or v.ephemeral] or None
    return p


def _event(e: k8s.KubeEvent) -> k8s.KubeEvent:
    e.message = (e.message or "")[:MAX_TEXT]
    return e


_CORE, _APPS = "/api/v1", "/apis/apps/v1"
PODS = Kind("pods", _CORE, k8s.Pod, _pod)
NODES = Kind("nodes", _CORE, k8s.KubeNode, machine, namespaced=False)
DEPLOYMENTS = Kind("deployments", _APPS, Workload, deployed)
STATEFULSETS = Kind("statefulsets", _APPS, Workload, deployed)
DAEMONSETS = Kind("daemonsets", _APPS, Workload, deployed)
REPLICASETS = Kind("replicasets", _APPS, Workload, deployed)
JOBS = Kind("jobs", "/apis/batch/v1", Workload, deployed)
SERVICES = Kind("services", _CORE, Labelled, _whole, metadata_only=True)
SLICES = Kind("endpointslices", "/apis/discovery.k8s.io/v1", k8s.Slice, _whole)
INGRESSES = Kind("ingresses", "/apis/networking.k8s.io/v1", k8s.Ingress, _whole, optional=True)
HTTPROUTES = Kind("httproutes", "/apis/gateway.networking.k8s.io/v1", k8s.HttpRoute, _whole, optional=True)
AUTOSCALERS = Kind("horizontalpodautoscalers", "/apis/autoscaling/v2", Autoscaler, scaler)
CONFIGMAPS = Kind("configmaps", _CORE, Owned, content, metadata_only=True)
SECRETS = Kind("secrets", _CORE, Owned, content, metadata_only=True)
EVENTS = Kind("events", _CORE, k8s.KubeEvent, _event, field_selector="type=Warning")

WORKLOADS = {DEPLOYMENTS: "deployment", STATEFULSETS: "statefulset", DAEMONSETS: "daemonset"}
ALWAYS = (PODS, NODES, *WORKLOADS, REPLICASETS, JOBS, SERVICES, SLICES, AUTOSCALERS, CONFIGMAPS)
ROUTES = (INGRESSES, HTTPROUTES)
"""Followed for the topology only."""
RIGHTS = frozenset(right for kind in (*ALWAYS, *ROUTES, EVENTS) for right in kind.rights)
