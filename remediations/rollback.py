"""Rollback: back to the revision before, as `kubectl rollout undo`: its pod template becomes the template again.

A Deployment keeps its revisions as ReplicaSets, a StatefulSet and a DaemonSet as ControllerRevisions. Undone by putting the
newer template back. Fails to help where what broke is not in the template: a ConfigMap, a Secret, a database. A StatefulSet
whose broken pods never become ready waits for somebody to delete them. What deploys from Git will deploy it again.
https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#rolling-back-a-deployment
https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#forced-rollback
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from aiops.changes import Object, annotations_of, patch, uid_of, value_at
from aiops.interfaces import Cluster, Plan, Refused, Retry
from aiops.kinds import parts
from aiops.quantities import Duration, format_duration
from aiops.types import Action
from remediations._targets import Name, OneOf, created_at, looked_up

REVISION = "deployment.kubernetes.io/revision"
HASH = "pod-template-hash"
LEFT = "aiops.io/rolled-back-from"
REMEMBERED = 5


class RollbackTarget(OneOf):
    """`within`: only a revision that is younger than this can be what broke it."""

    kinds: ClassVar[tuple[str, ...]] = ("deployment", "statefulset", "daemonset")
    deployment: Name | None = None
    statefulset: Name | None = None
    daemonset: Name | None = None
    within: Duration = 86400.0

    def params(self) -> Mapping[str, object]:
        return {"within_s": self.within}


class Revision(NamedTuple):
    """`name` of the object that keeps it. `created_at`: UTC seconds, 0 where that is not known."""

    number: int
    name: str
    created_at: float
    template: Any


class Rollback:
    """Go back to the pod template of the revision before."""

    target: ClassVar = RollbackTarget
    disruptive: ClassVar[bool] = True
    reversible: ClassVar[bool] = True
    takes_back: ClassVar[bool] = True
    examples: ClassVar[tuple[Mapping[str, object], ...]] = (
        {"deployment": "api"}, {"statefulset": "shop/db", "within": "6h"}, {"daemonset": "agent"})
    verbs: ClassVar[frozenset[tuple[str, str, str]]] = frozenset({
        ("apps", "deployments", "get"), ("apps", "deployments", "patch"), ("apps", "replicasets", "list"),
        ("apps", "statefulsets", "get"), ("apps", "statefulsets", "patch"),
        ("apps", "daemonsets", "get"), ("apps", "daemonsets", "patch"), ("apps", "controllerrevisions", "list"),
    })

    def plan(self, action: Action, cluster: Cluster) -> Plan:
        workload = looked_up(cluster, action.target)
        _refuse_where_nothing_would_roll(action, workload)
        history = _history(action, workload, cluster)
        if len(history) < 2:
            raise Refused(f"{action.target} has no earlier revision to go back to.")
        now, before = history[0], history[1]
        left = [n for n in annotations_of(workload).get(LEFT, "").split(",") if n]
        _refuse_where_it_is_no_remedy(action, now, before, left)
        names = ",".join([*left, now.name][-REMEMBERED:])
        change = patch(action.target, workload, {("spec", "template"): before.template, ("metadata", "annotations", LEFT): names})
        return Plan(f"Roll {action.target} back from revision {now.number} to {before.number}.", (change,))


def _refuse_where_nothing_would_roll(action: Action, workload: Object) -> None:
    """Raises Refused, or Retry while its controller has not seen the newest template."""
    if value_at(workload, ("spec", "paused")):
        raise Refused(f"{action.target} is paused: somebody is in the middle of a rollout.")
    if value_at(workload, ("spec", "updateStrategy", "type")) == "OnDelete":
        raise Refused(f"{action.target} replaces pods only when they are deleted (OnDelete): a rollback would change nothing.")
    seen = value_at(workload, ("status", "observedGeneration"))
    if seen is not None and seen < workload["metadata"].get("generation", 0):
        raise Retry(f"the controller of {action.target} has not seen its newest template yet", 5.0)


def _refuse_where_it_is_no_remedy(action: Action, now: Revision, before: Revision, left: list[str]) -> None:
    """What is older than the trouble did not bring it, and what was left for its faults is nowhere to go back to."""
    age_s, within_s = action.at - now.created_at, float(str(action.params.get("within_s", 86400.0)))
    if now.created_at < before.created_at:
        raise Refused(f"{action.target} was rolled back already; revision {before.number} is what was left then.")
    if before.name in left:
        raise Refused(f"{action.target} was rolled back from the revision before ({before.number}) already: it failed then.")
    if age_s > within_s:
        raise Refused(f"revision {now.number} of {action.target} is {format_duration(round(age_s))} old, more than "
                      f"{format_duration(within_s)}: the rollout is not what broke it.")


def _history(action: Action, workload: Object, cluster: Cluster) -> list[Revision]:
    """The revisions that the workload owns, the newest first."""
    kind, namespace, _ = parts(action.target)
    keeper, read = ("replicaset", _of_replica_set) if kind == "deployment" else ("controllerrevision", _of_controller_revision)
    labels = value_at(workload, ("spec", "selector", "matchLabels")) or {}
    found = cluster.find(keeper, namespace, ",".join(f"{k}={v}" for k, v in sorted(labels.items())))
    mine = [read(one) for one in found
            if any(o.get("uid") == uid_of(workload) for o in one["metadata"].get("ownerReferences") or [])]
    return sorted((r for r in mine if r.template), key=lambda r: -r.number)


def _of_replica_set(one: Object) -> Revision:
    """The hash of the template is the controller's own, and no part of what people wrote."""
    template = copy.deepcopy(value_at(one, ("spec", "template")))
    (value_at(template, ("metadata", "labels")) or {}).pop(HASH, None)
    return Revision(int(annotations_of(one).get(REVISION, 0)), one["metadata"]["name"], created_at(one), template)


def _of_controller_revision(one: Object) -> Revision:
    template = {k: v for k, v in (value_at(one, ("data", "spec", "template")) or {}).items() if k != "$patch"}
    return Revision(int(one.get("revision", 0)), one["metadata"]["name"], created_at(one), template)
