"""Evict: one pod by name, or `count` pods of a selector, those of the lowest priority first and of these the youngest.

Through the eviction API, so disruption budgets are obeyed. Pods without a controller are never evicted: they would not come
back; nor are those that started since the decision. Nothing to undo. Fails to help where the scheduler puts the new pod in the
same place: cordon the node first.
https://kubernetes.io/docs/concepts/scheduling-eviction/api-eviction/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from aiops.changes import Object, evict, value_at
from aiops.interfaces import Cluster, Plan, Refused
from aiops.types import Action
from aiops.yamlfile import Strict
from remediations import _pods
from remediations._targets import SELECTOR, PodName, number, qualified, writes_so_far


class EvictTarget(Strict):
    """`pod` is a name or `selector:app=batch`; `count`: how many of those that are selected."""

    pod: PodName
    count: Annotated[int, Field(ge=1, le=100)] = 1

    @model_validator(mode="after")
    def _one_name_is_one_pod(self) -> EvictTarget:
        if self.count > 1 and not self.pod.startswith(SELECTOR):
            raise ValueError("count is for selectors; a name is one pod. Write pod: \"selector:key=value\".")
        return self

    def entity(self, namespace: str) -> str:
        return qualified("pod", self.pod, namespace)

    def params(self) -> Mapping[str, object]:
        return {"count": self.count}


class Evict:
    """Send pods away, at most `max_unavailable` (a count or a share such as `25%`) of those selected at once."""

    target: ClassVar = EvictTarget
    disruptive: ClassVar[bool] = True
    reversible: ClassVar[bool] = False
    examples: ClassVar[tuple[Mapping[str, object], ...]] = (
        {"pod": "api-0"}, {"pod": "selector:app=api"}, {"pod": "selector:app=api", "count": 2})
    verbs: ClassVar[frozenset[tuple[str, str, str]]] = frozenset({
        ("", "pods", "get"), ("", "pods", "list"), ("", "pods/eviction", "create"),
    })

    def plan(self, action: Action, cluster: Cluster) -> Plan:
        pods = _pods.meant(action, cluster)
        chosen = _chosen(action, pods)
        now = _pods.may_go(action, pods, chosen)
        rest = f"{len(chosen) - len(now)} of the pods are still to be evicted" if len(now) < len(chosen) else ""
        return Plan(_said(action, chosen), tuple(evict(p) for p in now), rest, 10.0)


def _said(action: Action, chosen: Sequence[Object]) -> str:
    if SELECTOR not in action.target:
        return f"Evict {action.target}." if chosen else f"{action.target} went away since it was decided."
    count = number(action, "count", 1)
    names = f"{', '.join(map(_pods.name_of, chosen[:5]))}{', …' if len(chosen) > 5 else ''}" if chosen else "none is left"
    return f"Evict {count} of {action.target}, the lowest priority first: {names}."


def _chosen(action: Action, pods: Sequence[Object]) -> list[Object]:
    """Those that are still to go. Raises Refused where none could come back."""
    old = _pods.old_ones(action, pods)
    left = number(action, "count", 1) - writes_so_far(action)
    if left > 0 and old and not any(_pods.owned(p) for p in old):
        raise Refused(f"no pod of {action.target} has a controller: evicted, it would not come back.")
    return sorted((p for p in old if _pods.owned(p)), key=_order)[:max(0, left)]


def _order(pod: Object) -> tuple[int, float, str]:
    """As the scheduler preempts: lowest priority first, then the youngest."""
    return int(value_at(pod, ("spec", "priority")) or 0), -_pods.started_at(pod), _pods.name_of(pod)
