"""ScaleToZero: switch off a workload that nobody uses, to free its GPUs. Undone by scaling back to the replicas it had.

Fails its users where it was not idle after all: the first request finds nobody. Let the condition of the policy look at
requests, not at the GPU alone. Refused where a HorizontalPodAutoscaler owns the replicas.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from aiops.interfaces import Cluster, Plan
from aiops.types import Action
from remediations._scaling import RIGHTS, scaled
from remediations._targets import Name, OneOf


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
    verbs: ClassVar[frozenset[tuple[str, str, str]]] = RIGHTS

    def plan(self, action: Action, cluster: Cluster) -> Plan:
        return scaled(action, cluster, lambda before: 0, "An idle workload needs one that scales to zero itself.")
