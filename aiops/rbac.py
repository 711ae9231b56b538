"""Which rights in Kubernetes are needed: to read always, to act only what each remediation declares in `verbs`.

One source for the manifests (`scripts/rbac.py`) and for `aiops doctor`, which asks the cluster about each of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from aiops import plugins
from aiops.sources.kubernetes import kinds, policies

Right = tuple[str, str, str]  # API group ("" is core), resource, verb

READ: frozenset[Right] = kinds.RIGHTS | {("", "pods/log", "get")}
SECRETS: frozenset[Right] = kinds.SECRETS.rights
"""Needed with `secrets: true` only: only the metadata is asked for, but who may list them may read them."""
POLICIES: frozenset[Right] = policies.RIGHTS
"""Needed with `policies: {kubernetes: true}` only: to follow RemediationPolicies and to write their status."""


EVERY_ACTION: frozenset[Right] = frozenset({("", "namespaces", "get")})
"""Whether a namespace asks to be left alone."""

LOOKS: tuple[tuple[frozenset[Right], frozenset[Right]], ...] = (
    (frozenset({("", "nodes", "patch"), ("", "nodes", "delete")}), frozenset({("", "nodes", "list")})),
    (frozenset({("", "pods/eviction", "create"), ("", "pods", "delete")}), frozenset({
        ("", "pods", "list"), ("apps", "deployments", "get"), ("apps", "statefulsets", "get"),
        ("apps", "daemonsets", "get"), ("apps", "replicasets", "get")})),
    (frozenset({("apps", "deployments", "patch")}), frozenset({("", "pods", "list")})),
)
"""Who takes nodes or pods away looks first at how many are away already (aiops.cluster.radius)."""


def leader(lease: str) -> dict[Right, str]:
    """What one of several replicas needs in the namespace of the lease, and of which object; empty where one is made, for which
    RBAC knows no name."""
    of = {"leases": ("coordination.k8s.io", lease), "configmaps": ("", f"{lease}-actions")}
    return {(group, resource, verb): "" if verb == "create" else name
            for resource, (group, name) in of.items() for verb in ("create", "get", "update")}


LEADER = leader("aiops")


def stopper(name: str) -> dict[Right, str]:
    """What is needed in the namespace of the ConfigMap that stops everything: to obey it, and to write it on `aiops stop`."""
    return {("", "configmaps", verb): "" if verb == "create" else name for verb in ("create", "get", "patch")}


def leader_role() -> dict[str, Any]:
    """A Role, not a ClusterRole: the lease, and the ledger of actions that all replicas see."""
    by_name = {name: [right for right, of in LEADER.items() if of == name] for name in sorted(set(LEADER.values()))}
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": {"name": "aiops-leader", "namespace": "aiops", "labels": {"app.kubernetes.io/name": "aiops"},
                     "annotations": {"aiops.io/why": "Which of several replicas acts, and what it has begun."}},
        "rules": [rule | ({"resourceNames": [name]} if name else {})
                  for name, rights in by_name.items() for rule in rules(rights)],
    }


def leader_binding() -> dict[str, Any]:
    """Grants it to the service account of deploy/."""
    group = "rbac.authorization.k8s.io"
    return {"apiVersion": f"{group}/v1", "kind": "RoleBinding",
            "metadata": {"name": "aiops-leader", "namespace": "aiops", "labels": {"app.kubernetes.io/name": "aiops"}},
            "roleRef": {"apiGroup": group, "kind": "Role", "name": "aiops-leader"},
            "subjects": [{"kind": "ServiceAccount", "name": "aiops", "namespace": "aiops"}]}


def actions() -> dict[str, frozenset[Right]]:
    """The rights of each remediation by its YAML type. Remediations that touch no cluster are left out."""
    names = plugins.names("remediations")
    found = {plugins.camel(name): frozenset(plugins.load("remediations", name).verbs) for name in names}
    return {name: with_checks(verbs) for name, verbs in found.items() if verbs}


def with_checks(verbs: frozenset[Right]) -> frozenset[Right]:
    """What an action needs, and what is looked at before it may."""
    return verbs.union(EVERY_ACTION, *(needed for taking, needed in LOOKS if verbs & taking))


def rules(rights: Iterable[Right]) -> list[dict[str, Any]]:
    """Rights as the `rules` of a Role: one rule for all resources of a group that share their verbs. Sorted."""
    verbs: dict[tuple[str, str], set[str]] = {}
    for group, resource, verb in rights:
        verbs.setdefault((group, resource), set()).add(verb)
    grouped: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (group, resource), allowed in sorted(verbs.items()):
        grouped.setdefault((group, tuple(sorted(allowed))), []).append(resource)
    return [{"apiGroups": [group], "resources": names, "verbs": list(allowed)}
            for (group, allowed), names in sorted(grouped.items())]


def cluster_role(name: str, rights: Iterable[Right], why: str) -> dict[str, Any]:
    """A ClusterRole manifest; by itself it grants nothing to anybody."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/name": "aiops"}, "annotations": {"aiops.io/why": why}},
        "rules": rules(rights),
    }


def kebab(name: str) -> str:
    """`ScaleUp` -> `scale-up`, `SetHPA` -> `set-hpa`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()
