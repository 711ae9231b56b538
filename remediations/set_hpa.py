"""SetHPA: other bounds of a HorizontalPodAutoscaler that is there, as numbers or relative (`maxReplicas: "+5"`).

Undone by putting the old bounds back. Fails to help where the autoscaler does not want more replicas than it has, and where
its metrics are missing. Refused where another controller (KEDA) made the autoscaler.
https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field, model_validator

from aiops.changes import Step, patch, value_at
from aiops.interfaces import Cluster, Plan, Refused
from aiops.types import Action
from aiops.yamlfile import Strict
from remediations._autoscalers import HPA
from remediations._targets import Name, looked_up, number, qualified, refuse_where_owned


def _bound(value: object) -> object:
    if isinstance(value, str) and re.fullmatch(r"[+-][1-9]\d{0,2}", value):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 10000:
        return value
    raise ValueError(f'{value!r} is no number of replicas. Write "+2" or "-2" (quoted), or a number from 1.')


Bound = Annotated[int | str, BeforeValidator(_bound)]


class SetHPATarget(Strict):
    """`hpa`: name or namespace/name. `max`, `min`: the most maxReplicas and the least minReplicas that it may ever lead to."""

    hpa: Name
    min_replicas: Annotated[Bound | None, Field(alias="minReplicas")] = None
    max_replicas: Annotated[Bound | None, Field(alias="maxReplicas")] = None
    max: Annotated[int, Field(ge=1, le=10000)] = 20
    min: Annotated[int, Field(ge=1, le=10000)] = 1

    @model_validator(mode="after")
    def _something(self) -> SetHPATarget:
        if self.min_replicas is None and self.max_replicas is None:
            raise ValueError("neither minReplicas nor maxReplicas is given. Give one or both.")
        return self

    def entity(self, namespace: str) -> str:
        return qualified(HPA, self.hpa, namespace)

    def params(self) -> Mapping[str, object]:
        given = {"minReplicas": self.min_replicas, "maxReplicas": self.max_replicas, "max": self.max, "min": self.min}
        return {k: v for k, v in given.items() if v is not None}


class SetHPA:
    """Move minReplicas and maxReplicas of a HorizontalPodAutoscaler."""

    target: ClassVar = SetHPATarget
    disruptive: ClassVar[bool] = False
    reversible: ClassVar[bool] = True
    examples: ClassVar[tuple[Mapping[str, object], ...]] = (
        {"hpa": "web", "maxReplicas": "+5"}, {"hpa": "shop/web", "minReplicas": 4, "maxReplicas": 12, "max": 12})
    verbs: ClassVar[frozenset[tuple[str, str, str]]] = frozenset({
        ("autoscaling", "horizontalpodautoscalers", "get"), ("autoscaling", "horizontalpodautoscalers", "patch"),
    })

    def plan(self, action: Action, cluster: Cluster) -> Plan:
        hpa = looked_up(cluster, action.target)
        refuse_where_owned(hpa, action.target)
        low, high = _moved(action, "minReplicas", hpa), _moved(action, "maxReplicas", hpa)
        _refuse_out_of_bounds(action, low, high)
        wanted: dict[tuple[Step, ...], int] = {
            ("spec", name): value for name, value in (("minReplicas", low), ("maxReplicas", high)) if name in action.params}
        return Plan(f"Let {action.target} keep between {low} and {high} replicas.", (patch(action.target, hpa, wanted),))


def _moved(action: Action, name: str, hpa: dict[str, object]) -> int:
    """The bound as it shall be; 1 where nothing is said, as Kubernetes has it."""
    before = int(value_at(hpa, ("spec", name)) or 1)
    wanted = action.params.get(name, before)
    return before + int(wanted) if isinstance(wanted, str) else int(str(wanted))


def _refuse_out_of_bounds(action: Action, low: int, high: int) -> None:
    most, least = number(action, "max", 20), number(action, "min", 1)
    if "maxReplicas" in action.params and high > most:
        raise Refused(f"maxReplicas {high} of {action.target} would be more than the allowed {most}. Raise target.max.")
    if "minReplicas" in action.params and low < least:
        raise Refused(f"minReplicas {low} of {action.target} would be fewer than the allowed {least}. Lower target.min.")
    if low > high:
        raise Refused(f"minReplicas of {action.target} would be {low}, more than maxReplicas, {high}. Change both.")
