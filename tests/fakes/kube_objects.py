"""One small cluster that the examples of all remediations speak of, as (kind, object)."""

from __future__ import annotations

import copy
from typing import Any


def seeded() -> list[tuple[str, dict[str, Any]]]:
    """Fresh copies each time."""
    return copy.deepcopy(_OBJECTS)


def _workload(kind: str, name: str, replicas: int | None) -> tuple[str, dict[str, Any]]:
    containers = [{"name": name, "image": f"{name}:2", "resources": {"limits": {"memory": "1Gi", "cpu": "500m"}}}]
    spec = {"selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": containers}}}
    meta = {"name": name, "namespace": "shop", "uid": f"uid-{name}"}
    return kind.lower(), {"kind": kind, "metadata": meta, "spec": spec | ({"replicas": replicas} if replicas else {})}


def _pod(name: str, app: str, node: str) -> tuple[str, dict[str, Any]]:
    owner = [{"kind": "ReplicaSet", "name": f"{app}-2", "uid": "u", "controller": True}]
    return "pod", {
        "kind": "Pod", "metadata": {"name": name, "namespace": "shop", "labels": {"app": app}, "ownerReferences": owner,
                                    "uid": f"uid-{name}"},
        "spec": {"nodeName": node, "containers": [{"name": app}]},
        "status": {"phase": "Running", "startTime": "2026-01-01T00:00:00Z", "conditions": [{"type": "Ready", "status": "True"}]}}


def _node(name: str) -> tuple[str, dict[str, Any]]:
    return "node", {"kind": "Node", "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}, "spec": {},
                    "status": {"conditions": [{"type": "Ready", "status": "True"}]}}


_OBJECTS: list[tuple[str, dict[str, Any]]] = [
    ("namespace", {"kind": "Namespace", "metadata": {"name": "shop"}}),
    _workload("Deployment", "api", 2), _workload("StatefulSet", "db", 3), _workload("DaemonSet", "agent", None),
    *(_pod(f"api-{i}", "api", f"gpu-{i % 2}") for i in range(3)),
    _node("gpu-0"), _node("gpu-1"), _node("gpu-2"),
]
