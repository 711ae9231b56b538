"""One small cluster that the examples of all remediations speak of, as (kind, object)."""

from __future__ import annotations

import copy
from typing import Any


def seeded() -> list[tuple[str, dict[str, Any]]]:
    """Fresh copies each time."""
    return copy.deepcopy(_OBJECTS)


def _workload(kind: str, name: str, replicas: int | None) -> tuple[str, dict[str, Any]]:
    resources = {"requests": {"memory": "512Mi"}, "limits": {"memory": "1Gi", "cpu": "500m"}}
    containers = [{"name": name, "image": f"{name}:2", "resources": resources}]
    spec = {"selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": containers}}}
    meta = {"name": name, "namespace": "shop", "uid": f"uid-{name}"}
    return kind.lower(), {"kind": kind, "metadata": meta, "spec": spec | ({"replicas": replicas} if replicas else {})}


def _pod(name: str, app: str, node: str, owner: str = "ReplicaSet") -> tuple[str, dict[str, Any]]:
    owners = [{"kind": owner, "name": f"{app}-2", "uid": "u", "controller": True}] if owner else []
    return "pod", {
        "kind": "Pod", "metadata": {"name": name, "namespace": "shop", "labels": {"app": app}, "ownerReferences": owners,
                                    "uid": f"uid-{name}"},
        "spec": {"nodeName": node, "containers": [{"name": app}]},
        "status": {"phase": "Running", "startTime": "2026-01-01T00:00:00Z", "conditions": [{"type": "Ready", "status": "True"}]}}


def _with(made: tuple[str, dict[str, Any]], spec: dict[str, Any], **annotations: str) -> tuple[str, dict[str, Any]]:
    made[1]["spec"] |= spec
    made[1]["metadata"]["annotations"] = {f"aiops.io/{k.replace('_', '-')}": v for k, v in annotations.items()}
    return made


def _node(name: str) -> tuple[str, dict[str, Any]]:
    return "node", {"kind": "Node", "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}, "spec": {},
                    "status": {"conditions": [{"type": "Ready", "status": "True"}]}}


def _revisions(kind: str, of: str) -> list[tuple[str, dict[str, Any]]]:
    """Two revisions of a workload, with the images OF:1 and OF:2, the second from an hour before the tests' now."""
    found = []
    for number, created in ((1, "2026-09-01T00:00:00Z"), (2, "2026-09-21T13:00:00Z")):
        meta = {"name": f"{of}-{number}", "namespace": "shop", "labels": {"app": of}, "creationTimestamp": created,
                "annotations": {"deployment.kubernetes.io/revision": str(number)},
                "ownerReferences": [{"name": of, "uid": f"uid-{of}", "controller": True}]}
        template = _workload("Deployment", of, 1)[1]["spec"]["template"]
        template["spec"]["containers"][0]["image"] = f"{of}:{number}"
        if kind == "replicaset":
            template["metadata"]["labels"]["pod-template-hash"] = f"hash-{number}"
            found.append((kind, {"kind": "ReplicaSet", "metadata": meta, "spec": {"template": template}}))
        else:
            data = {"spec": {"template": {"$patch": "replace", **template}}}
            found.append((kind, {"kind": "ControllerRevision", "metadata": meta, "revision": number, "data": data}))
    return found


def _plain(kind: str, name: str, spec: dict[str, Any], **more: Any) -> tuple[str, dict[str, Any]]:
    return kind.lower(), {"kind": kind, "metadata": {"name": name, "namespace": "shop"}, "spec": spec, **more}


def _backed(service: str) -> tuple[str, dict[str, Any]]:
    meta = {"name": f"{service}-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": service}}
    ready = {"addresses": ["10.0.0.1"], "conditions": {"ready": True}}
    return "endpointslice", {"kind": "EndpointSlice", "metadata": meta, "endpoints": [ready]}


_JOB = {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "job", "image": "job:1"}]}}}
_BACKENDS = [{"name": "stable", "port": 80, "weight": 9}, {"name": "canary", "port": 80}]


_OBJECTS: list[tuple[str, dict[str, Any]]] = [
    ("namespace", {"kind": "Namespace", "metadata": {"name": "shop"}}),
    _workload("Deployment", "api", 2), _workload("StatefulSet", "db", 3), _workload("DaemonSet", "agent", None),
    *(_pod(f"api-{i}", "api", f"gpu-{i % 2}") for i in range(3)),
    _pod("agent-x", "agent", "gpu-1", "DaemonSet"), _pod("proxy-gpu-1", "proxy", "gpu-1", "Node"),
    _with(_pod("shell", "shell", "gpu-0", ""), {"volumes": [{"name": "scratch", "emptyDir": {}}]}),
    *_revisions("replicaset", "api"), *_revisions("controllerrevision", "db"), *_revisions("controllerrevision", "agent"),
    _node("gpu-0"), _node("gpu-1"),
    _with(_node("gpu-2"), {"taints": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]}),
    _with(_node("gpu-3"), {"unschedulable": True}, cordoned_by="a-0"),
    _plain("HorizontalPodAutoscaler", "web", {"scaleTargetRef": {"kind": "Deployment", "name": "web"},
                                              "minReplicas": 2, "maxReplicas": 10}),
    _plain("Job", "train", {"suspend": False, **_JOB}),
    _with(_plain("Job", "paused", {**_JOB}), {"suspend": True}, suspended_by="a-0"),
    _plain("CronJob", "nightly", {"suspend": False, "schedule": "0 3 * * *", "jobTemplate": {"spec": _JOB}}),
    _with(_plain("CronJob", "paused", {"schedule": "0 3 * * *", "jobTemplate": {"spec": _JOB}}), {"suspend": True},
          suspended_by="a-0"),
    _plain("HTTPRoute", "web", {"rules": [{"backendRefs": _BACKENDS}]}), _backed("stable"), _backed("canary"),
]
_MIRROR = next(one for _, one in _OBJECTS if one["metadata"]["name"] == "proxy-gpu-1")
_MIRROR["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "x"}
