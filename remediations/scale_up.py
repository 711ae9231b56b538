"""ScaleUp: more replicas, by a number (`replicas: "+2"`) or to a number (`replicas: 5`). Undone by scaling back.

Fails to help where the bottleneck is elsewhere (a database, a node without room), and where a HorizontalPodAutoscaler
owns the replicas: it would scale back, so such a target is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field

from aiops.interfaces import Cluster, Plan, Refused
from aiops.types import Action
from remediations._scaling import RIGHTS, scaled
from remediations._targets import Name, OneOf, number


def _replicas(value: object) -> object:
    if isinstance(value, str) and re.fullmatch(r"\+[1-9]\d{0,2}", value):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    raise ValueError(f'{value!r} is no way to scale up. Write "+2" (two more, quoted) or 5 (to five).')


class ScaleUpTarget(OneOf):
    """`max` is the most replicas that this action may ever lead to."""

    kinds: ClassVar[tuple[str, ...]] = ("deployment", "statefulset")
    deployment: Name | None = None
    statefulset: Name | None = None
    replicas: Annotated[int | str, BeforeValidator(_replicas)]
    max: Annotated[int, Field(ge=1, le=10000)] = 20

    def params(self) -> Mapping[str, object]:
        return {"replicas": self.replicas, "max": self.max}


class ScaleUp:
    """Raise the replicas of a Deployment or StatefulSet."""

    target: ClassVar = ScaleUpTarget
    disruptive: ClassVar[bool] = False
    reversible: ClassVar[bool] = True
    examples: ClassVar[tuple[Mapping[str, object], ...]] = (
        {"deployment": "api", "replicas": "+2"}, {"statefulset": "shop/db", "replicas": 5, "max": 6})
    verbs: ClassVar[frozenset[tuple[str, str, str]]] = RIGHTS

    def plan(self, action: Action, cluster: Cluster) -> Plan:
        return scaled(action, cluster, lambda before: _wanted(action, before), "Raise its maxReplicas.")


def _wanted(action: Action, before: int) -> int:
    """Replicas then. Raises Refused where that is no scaling up."""
    wanted = action.params.get("replicas")
    after = before + int(wanted) if isinstance(wanted, str) else int(str(wanted))
    if before == 0:
        raise Refused(f"{action.target} has 0 replicas: it was switched off on purpose.")
    if after <= before:
        raise Refused(f"{action.target} already has {before} replicas; {after} would not be more.")
    most = number(action, "max", 20)
    if after > most:
        raise Refused(f"{after} replicas of {action.target} would be more than the allowed {most}. Raise target.max.")
    return after
