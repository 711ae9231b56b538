"""ScaleToZero: switch off a workload that nobody uses, to free its GPUs. Undone by scaling back to the replicas it had.

Fails its users where it was not idle after all: the first request finds nobody. Let the condition of the policy look at
requests, not at the GPU alone. Refused where a HorizontalPodAutoscaler owns the replicas.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from aiops.changes import patch
from aiops.interfaces import Cluster, Plan
from aiops.types import Action
from remediations._autoscalers import refuse_where_an_autoscaler_rules
from remediations._targets import Name, OneOf, looked_up, replicas_of


class ScaleToZeroTarget(OneOf):
    kinds: ClassVar[tuple[str, ...]] = ("deployment", "statefulset")
    deployment: Name | None = None
    statefulset: Name | None = None

    def params(self) -> Mapping[str, object]:
        return {}


class ScaleToZero:
    """Take all replicas of a Deployment or StatefulSet away."""

    target: ClassVar = ScaleToZeroTarget
    disruptive: ClassVar[bool] = True
    reversible: ClassVar[bool] = True
    examples: ClassVar[tuple[Mapping[str, object], ...]] = ({"deployment": "api"}, {"statefulset": "shop/db"})
    verbs: ClassVar[frozenset[tuple[str, str, str]]] = frozenset({
        ("apps", "deployments", "get"), ("apps", "deployments/scale", "patch"),
        ("apps", "statefulsets", "get"), ("apps", "statefulsets/scale", "patch"),
        ("autoscaling", "horizontalpodautoscalers", "list"),
    })

    def plan(self, action: Action, cluster: Cluster) -> Plan:
        workload = looked_up(cluster, action.target)
        before = replicas_of(workload)
        refuse_where_an_autoscaler_rules(cluster, action.target, "An idle workload needs one that scales to zero itself.")
        change = patch(action.target, workload, {("spec", "replicas"): 0}, "scale")
        return Plan(f"Scale {action.target} from {before} to 0 replicas.", (change,))
