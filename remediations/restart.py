"""Restart: pods one after another through the eviction API (disruption budgets are obeyed), or a rollout restart.

`pod` is a name or `selector:app=api-server`. Pods that started after the decision are left alone, so an interrupted
restart goes on where it stopped. Nothing to undo: a restart changes no specification.
https://kubernetes.io/docs/concepts/scheduling-eviction/api-eviction/
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

from aiops.interfaces import Cluster, Pod, Refused, Retry
from aiops.types import Action
from remediations._targets import SELECTOR, Name, OneOf, PodName, parts


class RestartTarget(OneOf):
    """Pods by name or selector, or a whole workload by rollout."""

    kinds: ClassVar[tuple[str, ...]] = ("pod", "deployment", "statefulset", "daemonset")
    pod: PodName | None = None
    deployment: Name | None = None
    statefulset: Name | None = None
    daemonset: Name | None = None

    def params(self) -> Mapping[str, object]:
        return {}


class Restart:
    """Replace pods by fresh ones, at most `max_unavailable` (a count or a share such as `25%`) away at once."""

    target: ClassVar = RestartTarget
    disruptive: ClassVar[bool] = True
    reversible: ClassVar[bool] = False
    examples: ClassVar[tuple[Mapping[str, object], ...]] = (
        {"pod": "selector:app=api"}, {"pod": "api-0"}, {"deployment": "api"}, {"statefulset": "shop/db"},
        {"daemonset": "agent"})
    verbs: ClassVar[frozenset[tuple[str, str, str]]] = frozenset({
        ("", "pods", "get"), ("", "pods", "list"), ("", "pods/eviction", "create"),
        ("apps", "deployments", "get"), ("apps", "deployments", "patch"),
        ("apps", "statefulsets", "get"), ("apps", "statefulsets", "patch"),
        ("apps", "daemonsets", "get"), ("apps", "daemonsets", "patch"),
    })

    def plan(self, action: Action, cluster: Cluster) -> str:
        kind, _, _ = parts(action.target)
        if kind != "pod":
            cluster.replicas(action.target)  # refuses what is not there or not to be touched
            return f"Restart {action.target} by a rollout."
        pods = _pods(action, cluster)
        names = ", ".join(p.entity for p in pods[:5]) + (", …" if len(pods) > 5 else "")
        plural = "s" if len(pods) != 1 else ""
        return f"Evict {len(pods)} pod{plural}, at most {_at_once(action, len(pods))} at once: {names}."

    def act(self, action: Action, cluster: Cluster) -> Mapping[str, object]:
        kind, _, _ = parts(action.target)
        if cluster.done(action.id) is not None:
            return {}
        if kind != "pod":
            cluster.restart(action.target, action.id)
            return {}
        pods = _pods(action, cluster)
        for pod in _next(action, pods):
            cluster.evict(pod.entity, f"{action.id}/{pod.entity}")
        if SELECTOR in action.target:
            _until_none_is_left(action, cluster, len(pods))
        return {}

    def undo(self, action: Action, snapshot: Mapping[str, object], cluster: Cluster) -> None:
        raise Refused(f"a restart of {action.target} cannot be undone; its specification was not changed.")


def _pods(action: Action, cluster: Cluster) -> Sequence[Pod]:
    """The pods in question, by name. Raises Refused where there are none."""
    _, namespace, name = parts(action.target)
    if not name.startswith(SELECTOR):
        return _named(action, cluster)
    found = sorted(cluster.pods(namespace, name.removeprefix(SELECTOR)), key=lambda p: p.entity)
    if not found:
        raise Refused(f"no pod in namespace {namespace} matches {name.removeprefix(SELECTOR)}.")
    return _replaceable(found)


def _named(action: Action, cluster: Cluster) -> Sequence[Pod]:
    found = cluster.pod(action.target)
    if found is None:
        raise Refused(f"{action.target} does not exist.")
    return _replaceable([found])


def _replaceable(pods: Sequence[Pod]) -> Sequence[Pod]:
    """The same pods. Raises Refused where one of them would not come back."""
    orphan = next((p.entity for p in pods if not p.owned), None)
    if orphan:
        raise Refused(f"{orphan} has no controller: evicted, it would not come back.")
    return pods


def _until_none_is_left(action: Action, cluster: Cluster, pods: int) -> None:
    _, namespace, name = parts(action.target)
    left = len(_old(action, cluster.pods(namespace, name.removeprefix(SELECTOR))))
    if left:
        raise Retry(f"{left} of {pods} pods are still to be replaced", after_s=10.0)


def _old(action: Action, pods: Sequence[Pod]) -> list[Pod]:
    """Pods that were there when it was decided and were not told to stop yet; the broken ones first."""
    return sorted((p for p in pods if p.started_at < action.at and not p.leaving), key=lambda p: (p.ready, p.entity))


def _next(action: Action, pods: Sequence[Pod]) -> list[Pod]:
    """The pods that may go now. One that is not ready anyway costs nothing."""
    old = _old(action, pods)
    broken = [p for p in old if not p.ready]
    away = sum(1 for p in pods if not p.ready or p.leaving)
    room = max(0, _at_once(action, len(pods)) - away)
    return broken + [p for p in old if p.ready][:room]


def _at_once(action: Action, pods: int) -> int:
    """At least one, or nothing would ever move. A share is rounded down."""
    allowed = action.params.get("max_unavailable", 1)
    if isinstance(allowed, str):
        return max(1, math.floor(pods * int(allowed.rstrip("%")) / 100))
    return max(1, allowed) if isinstance(allowed, int) else 1
