"""What every action needs that sets the replicas of a workload: the rights, and the one write."""

from __future__ import annotations

from collections.abc import Callable

from aiops.changes import patch
from aiops.interfaces import Cluster, Plan
from aiops.types import Action
from remediations._autoscalers import refuse_where_an_autoscaler_rules
from remediations._targets import looked_up, replicas_of

RIGHTS: frozenset[tuple[str, str, str]] = frozenset({
    ("apps", "deployments", "get"), ("apps", "deployments/scale", "patch"),
    ("apps", "statefulsets", "get"), ("apps", "statefulsets/scale", "patch"),
    ("autoscaling", "horizontalpodautoscalers", "list"),
})


def scaled(action: Action, cluster: Cluster, wanted: Callable[[int], int], remedy: str) -> Plan:
    """From the replicas that there are to those that are wanted instead. remedy: what to do where an autoscaler rules.

    Raises Refused where there is no such workload, where one rules, and what `wanted` raises.
    """
    workload = looked_up(cluster, action.target)
    before = replicas_of(workload)
    after = wanted(before)
    refuse_where_an_autoscaler_rules(cluster, action.target, remedy)
    change = patch(action.target, workload, {("spec", "replicas"): after}, "scale")
    return Plan(f"Scale {action.target} from {before} to {after} replicas.", (change,))
