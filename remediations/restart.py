"""Restart: pods one after another through the eviction API (disruption budgets are obeyed), or a rollout restart.

`pod` is a name or `selector:app=api-server`. Pods that started after the decision are left alone, so an interrupted
restart goes on where it stopped. Nothing to undo: a restart changes no specification.
https://kubernetes.io/docs/concepts/scheduling-eviction/api-eviction/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import ClassVar

from aiops.changes import Object, evict, patch, value_at
from aiops.interfaces import Cluster, Plan
from aiops.kinds import parts
from aiops.types import Action
from remediations import _pods
from remediations._targets import SELECTOR, Name, OneOf, PodName, looked_up

TEMPLATE = ("spec", "template", "metadata", "annotations")
RESTARTED = "kubectl.kubernetes.io/restartedAt"
LAST_ACTION = "aiops.io/last-action"


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

    def plan(self, action: Action, cluster: Cluster) -> Plan:
        kind, _, name = parts(action.target)
        if kind != "pod":
            return _rollout(action, looked_up(cluster, action.target))
        pods = _pods.replaceable(_pods.meant(action, cluster))
        old = _old(action, pods)
        now = tuple(evict(p) for p in _pods.may_go(action, pods, old))
        rest = f"{len(old)} of {len(pods)} pods are still to be replaced" if old and name.startswith(SELECTOR) else ""
        return Plan(_said(action, pods), now, rest, 10.0)


def _rollout(action: Action, workload: Object) -> Plan:
    """As `kubectl rollout restart`: a new annotation in the pod template."""
    text = f"Restart {action.target} by a rollout."
    if value_at(workload, (*TEMPLATE, LAST_ACTION)) == action.id:
        return Plan(text)
    at = datetime.fromtimestamp(action.at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return Plan(text, (patch(action.target, workload, {(*TEMPLATE, RESTARTED): at, (*TEMPLATE, LAST_ACTION): action.id}),))


def _said(action: Action, pods: Sequence[Object]) -> str:
    names = ", ".join(map(_pods.name_of, pods[:5])) + (", …" if len(pods) > 5 else "")
    plural = "s" if len(pods) != 1 else ""
    return f"Evict {len(pods)} pod{plural}, at most {_pods.at_once(action, len(pods))} at once: {names}."


def _old(action: Action, pods: Sequence[Object]) -> list[Object]:
    """Pods that are still to be replaced; the broken ones first."""
    return sorted(_pods.old_ones(action, pods), key=lambda p: (_pods.ready(p), _pods.name_of(p)))
