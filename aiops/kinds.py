"""Where the API server keeps each kind of object that actions look at or change."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import NamedTuple

from aiops.interfaces import Refused
from aiops.types import Entity


class Kind(NamedTuple):
    """`group` empty: core."""

    group: str
    version: str
    plural: str
    namespaced: bool = True

    def path(self, namespace: str, name: str = "", subresource: str = "") -> str:
        """Of one object, of its subresource, or without a name of all in a namespace (empty: in all)."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        within = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        return "".join([root, within, f"/{self.plural}", f"/{name}" if name else "", f"/{subresource}" if subresource else ""])


KINDS = {
    "pod": Kind("", "v1", "pods"),
    "node": Kind("", "v1", "nodes", namespaced=False),
    "namespace": Kind("", "v1", "namespaces", namespaced=False),
    "configmap": Kind("", "v1", "configmaps"),
    "deployment": Kind("apps", "v1", "deployments"),
    "statefulset": Kind("apps", "v1", "statefulsets"),
    "daemonset": Kind("apps", "v1", "daemonsets"),
    "replicaset": Kind("apps", "v1", "replicasets"),
    "controllerrevision": Kind("apps", "v1", "controllerrevisions"),
    "job": Kind("batch", "v1", "jobs"),
    "cronjob": Kind("batch", "v1", "cronjobs"),
    "horizontalpodautoscaler": Kind("autoscaling", "v2", "horizontalpodautoscalers"),
    "poddisruptionbudget": Kind("policy", "v1", "poddisruptionbudgets"),
    "httproute": Kind("gateway.networking.k8s.io", "v1", "httproutes"),
    "endpointslice": Kind("discovery.k8s.io", "v1", "endpointslices"),
}
SYSTEM = frozenset({"kube-system", "kube-public", "kube-node-lease"})
"""The cluster's own namespaces."""
OUTSIDE = ("webhook", "person")
"""Whom actions may be aimed at that is no object of the cluster."""


def within(namespace: str, allowed: Sequence[str]) -> bool:
    """Whether it is one of these, or fits one as a glob; the cluster's own must be named word for word."""
    return namespace in allowed or (namespace not in SYSTEM and any(fnmatch.fnmatchcase(namespace, glob) for glob in allowed))


def kind_of(name: str) -> Kind:
    """Raises Refused for what is not known here."""
    if name not in KINDS:
        raise Refused(f"a {name} is nothing that can be changed here. Known: {', '.join(sorted(KINDS))}.")
    return KINDS[name]


def parts(target: Entity) -> tuple[str, str, str]:
    """`deployment/shop/api`, `node//gpu-3` -> kind, namespace, name. Raises Refused where it is no such thing."""
    kind, _, rest = target.partition("/")
    namespace, _, name = rest.partition("/")
    if not (kind and name) or "/" in name or (not namespace and kind not in OUTSIDE and kind_of(kind).namespaced):
        raise Refused(f"{target!r} is not kind/namespace/name.")
    return kind, namespace, name


def outside(target: Entity) -> bool:
    """Whether it is no object of the cluster: nothing that could be looked up there."""
    return target.partition("/")[0] in OUTSIDE
