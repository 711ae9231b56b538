"""What there is in the simulated cluster at first: services with their pods, machines, and what runs as a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aiops.changes import Object
from aiops.cluster.simulated import LONG_AGO

NAMESPACE = "shop"


@dataclass(frozen=True, slots=True)
class Service:
    """`rate`: requests per second at noon. `capacity`: what one pod can serve. `latency_s`: when nothing waits."""

    name: str
    replicas: int
    rate: float
    capacity: float
    latency_s: float
    memory_mib: float
    calls: tuple[str, ...] = ()
    gpu: bool = False


SERVICES = (
    Service("db", 2, 240.0, 260.0, 0.004, 900.0),
    Service("catalog", 3, 120.0, 80.0, 0.02, 300.0, ("db",)),
    Service("chat", 4, 24.0, 12.0, 0.35, 9000.0, gpu=True),
    Service("gateway", 3, 150.0, 120.0, 0.01, 200.0, ("catalog", "chat")),
)
NODES = {"web-0": False, "web-1": False, "web-2": False, "gpu-0": True, "gpu-1": True, "gpu-2": True}


def kind_of(app: str) -> str:
    """The kind of workload, as entities spell it."""
    return "statefulset" if app == "db" else "deployment"


def nodes() -> list[tuple[str, Object]]:
    """As (kind, object)."""
    return [("node", {"kind": "Node", "metadata": {"name": n, "labels": {"kubernetes.io/hostname": n}}, "spec": {},
                      "status": {"conditions": [{"type": "Ready", "status": "True"}]}}) for n in NODES]


def workloads() -> list[tuple[str, Object]]:
    """Those of the services, with their pods, as (kind, object)."""
    made: list[tuple[str, Object]] = []
    for s in SERVICES:
        kind = {"statefulset": "StatefulSet", "deployment": "Deployment"}[kind_of(s.name)]
        template = {"metadata": {"labels": {"app": s.name}}, "spec": {"containers": [{"name": s.name, "image": f"{s.name}:1"}]}}
        spec = {"replicas": s.replicas, "selector": {"matchLabels": {"app": s.name}}, "template": template}
        meta = {"name": s.name, "namespace": NAMESPACE, "annotations": {"deployment.kubernetes.io/revision": "1"}}
        made.append((kind.lower(), {"kind": kind, "metadata": meta, "spec": spec}))
        owner = [{"kind": "ReplicaSet", "name": f"{s.name}-1", "controller": True}]
        made += [("pod", _pod(f"{s.name}-{k}", s.name, owner)) for k in range(s.replicas)]
    return made


def _pod(name: str, app: str, owner: list[dict[str, Any]]) -> Object:
    meta = {"name": name, "namespace": NAMESPACE, "labels": {"app": app}, "ownerReferences": owner, "creationTimestamp": LONG_AGO}
    ready = [{"type": "Ready", "status": "True"}]
    return {"kind": "Pod", "metadata": meta, "spec": {},
            "status": {"phase": "Running", "startTime": LONG_AGO, "conditions": ready}}


def batch() -> list[tuple[str, Object]]:
    """A nightly job that nobody looks at until it hangs, and what clears a volume, as (kind, object)."""
    meta = {"name": "embed", "namespace": NAMESPACE, "labels": {"app": "embed"}}
    pod = {"containers": [{"name": "clean", "image": "clean:1", "command": ["clean"]}], "restartPolicy": "Never"}
    schedule = {"schedule": "0 0 31 2 *", "suspend": True, "jobTemplate": {"spec": {"template": {"spec": pod}}}}
    cleaner = {"kind": "CronJob", "metadata": {"name": "clean-data-db-0", "namespace": NAMESPACE}, "spec": schedule}
    job = {"kind": "Job", "metadata": meta, "spec": {"suspend": False, "parallelism": 2}, "status": {"active": 2}}
    return [("cronjob", cleaner), ("job", job)]
