"""ScaleDown: fewer replicas, by a number (`replicas: "-2"`) or to a number (`replicas: 2`), never below `min`.

Undone by scaling up again. Fails to help where load comes back at once, and where a HorizontalPodAutoscaler owns the
replicas: such a target is refused. Which pods go is up to the controller.
https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/#scaling-a-replicaset
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
    if isinstance(value, str) and re.fullmatch(r"-[1-9]\d{0,2}", value):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    raise ValueError(f'{value!r} is no way to scale down. Write "-2" (two less, quoted) or 2 (to two); ScaleToZero goes to 0.')


class ScaleDownTarget(OneOf):
    """`min` is the fewest replicas that this action may ever lead to."""

    kinds: ClassVar[tuple[str, ...]] = ("deployment", "statefulset")
    deployment: Name | None = None
    statefulset: Name | None = None
    replicas: Annotated[int | str, BeforeValidator(_replicas)]
    min: Annotated[int, Field(ge=1, le=10000)] = 1

    def params(self) -> Mapping[str, object]:
        return {"replicas": self.replicas, "min": self.min}


class ScaleDown:
    """Lower the replicas of a Deployment or StatefulSet."""

    target: ClassVar = ScaleDownTarget
    disruptive: ClassVar[bool] = True
    reversible: ClassVar[bool] = True
    examples: ClassVar[tuple[Mapping[str, object], ...]] = (
        {"deployment": "api", "replicas": "-1"}, {"statefulset": "shop/db", "replicas": 2, "min": 2})
    verbs: ClassVar[frozenset[tuple[str, str, str]]] = RIGHTS

    def plan(self, action: Action, cluster: Cluster) -> Plan:
        return scaled(action, cluster, lambda before: _wanted(action, before), "Lower its minReplicas or maxReplicas.")


def _wanted(action: Action, before: int) -> int:
    """Replicas then. Raises Refused where that is no scaling down, or too much of it."""
    wanted = action.params.get("replicas")
    after = before + int(wanted) if isinstance(wanted, str) else int(str(wanted))
    least = number(action, "min", 1)
    if after < least:
        raise Refused(f"{after} replicas of {action.target}, which has {before}, would be fewer than the allowed {least}. "
                      "Lower target.min.")
    if after >= before:
        raise Refused(f"{action.target} has {before} replicas; {after} would not be fewer.")
    return after
