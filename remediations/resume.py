"""Resume: let a Job or CronJob go on, where it was us who suspended it.

What a person, a queue or another controller suspended is never touched. Undone by suspending again. Fails where what made us
suspend it is still there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from aiops.interfaces import Cluster, Plan
from aiops.types import Action
from remediations._jobs import JobTarget
from remediations._switches import SUSPEND
from remediations._targets import looked_up


class Resume:
    """Take back a suspension of ours."""

    target: ClassVar = JobTarget
    disruptive: ClassVar[bool] = False
    reversible: ClassVar[bool] = True
    examples: ClassVar[tuple[Mapping[str, object], ...]] = ({"job": "paused"}, {"cronjob": "shop/paused"})
    verbs: ClassVar[frozenset[tuple[str, str, str]]] = frozenset({
        ("batch", "jobs", "get"), ("batch", "jobs", "patch"), ("batch", "cronjobs", "get"), ("batch", "cronjobs", "patch"),
    })

    def plan(self, action: Action, cluster: Cluster) -> Plan:
        change = SUSPEND.turn_off(action, looked_up(cluster, action.target))
        return Plan(f"Resume {action.target}." if change.edits else f"{action.target} is not suspended.", (change,))
