"""Suspend: stop a Job (its running pods are ended, what is finished counts) or a CronJob (no new Jobs). Undone by resuming.

It notes in the annotation `aiops.io/suspended-by` that it was us. What somebody resumed after us is not suspended again.
Refused for what a queue (Kueue) or another controller starts and stops, and for a Job that has ended. Fails where the work is
lost with the pods: a Job without checkpoints begins anew.
https://kubernetes.io/docs/concepts/workloads/controllers/job/#suspending-a-job
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from aiops.interfaces import Cluster, Plan, Refused
from aiops.types import Action
from remediations._jobs import JobTarget, ended, refuse_where_queued
from remediations._switches import SUSPEND
from remediations._targets import looked_up


class Suspend:
    """Suspend a Job or a CronJob. One that is so already is left as it is."""

    target: ClassVar = JobTarget
    disruptive: ClassVar[bool] = True
    reversible: ClassVar[bool] = True
    examples: ClassVar[tuple[Mapping[str, object], ...]] = ({"job": "train"}, {"cronjob": "shop/nightly"})
    verbs: ClassVar[frozenset[tuple[str, str, str]]] = frozenset({
        ("batch", "jobs", "get"), ("batch", "jobs", "patch"), ("batch", "cronjobs", "get"), ("batch", "cronjobs", "patch"),
    })

    def plan(self, action: Action, cluster: Cluster) -> Plan:
        one = looked_up(cluster, action.target)
        refuse_where_queued(one, action.target)
        if ended(one):
            raise Refused(f"{action.target} has ended already.")
        change = SUSPEND.turn_on(action, one)
        return Plan(f"Suspend {action.target}." if change.edits else f"{action.target} is suspended already.", (change,))
