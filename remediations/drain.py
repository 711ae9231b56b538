"""Drain: cordon a node, then evict its pods in turns until none is left, as `kubectl drain`. Undone by uncordoning.

Disruption budgets are obeyed: pods that may not go yet are asked for again. Pods of DaemonSets and a node's own (mirror) pods
stay. Refused as a whole, before anything is done, where a pod has no controller (`force`) or keeps data in an emptyDir
(`deleteEmptyDirData`), where the policy names namespaces and a pod is of another one, and where somebody else cordoned the
node. Fails where a budget never lets a pod go, or there is no room elsewhere; then the node is uncordoned, and the pods that
went stay where they are.
https://kubernetes.io/docs/tasks/administer-cluster/safely-drain-node/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field

from aiops.changes import Object, annotations_of, evict, value_at
from aiops.humanise import count
from aiops.interfaces import Cluster, Plan, Refused
from aiops.kinds import parts, within
from aiops.types import Action
from remediations import _pods
from remediations._switches import CORDON
from remediations._targets import NodeTarget, controller_of, looked_up

SHOWN = 3


class DrainTarget(NodeTarget):
    """`force`: pods without a controller go too, for good; `deleteEmptyDirData`: pods lose what they keep on the node."""

    force: bool = False
    delete_empty_dir_data: Annotated[bool, Field(alias="deleteEmptyDirData")] = False

    def params(self) -> Mapping[str, object]:
        return {"force": self.force, "deleteEmptyDirData": self.delete_empty_dir_data}


class Drain:
    """Empty a node, at most `max_unavailable` (a count or a share such as `25%`) of its pods away at once."""

    target: ClassVar = DrainTarget
    disruptive: ClassVar[bool] = True
    reversible: ClassVar[bool] = True
    examples: ClassVar[tuple[Mapping[str, object], ...]] = (
        {"node": "gpu-1"}, {"node": "gpu-0", "deleteEmptyDirData": True, "force": True})
    verbs: ClassVar[frozenset[tuple[str, str, str]]] = frozenset({
        ("", "nodes", "get"), ("", "nodes", "patch"),
        ("", "pods", "list"), ("", "pods", "get"), ("", "pods/eviction", "create"),
    })

    def plan(self, action: Action, cluster: Cluster) -> Plan:
        node = looked_up(cluster, action.target)
        if CORDON.is_on(node) and not CORDON.is_ours(node):
            raise Refused(f"{action.target} was cordoned by somebody else. Hands off.")
        cordon = CORDON.turn_on(action, node)
        pods = [p for p in cluster.find("pod", fields=f"spec.nodeName={parts(action.target)[2]}") if _to_go(p)]
        _refuse_what_is_out_of_bounds(action, pods)
        _refuse_what_would_be_lost(action, pods)
        waiting = sorted((p for p in pods if not _pods.leaving(p)), key=lambda p: (_pods.ready(p), _pods.name_of(p)))
        now = (evict(p) for p in _pods.may_go(action, pods, waiting))
        rest = f"{count(len(pods), 'pod')} still to leave {action.target}" if pods else ""
        text = f"Cordon {action.target} and evict its pods, at most {_pods.at_once(action, len(pods))} at once."
        return Plan(text if pods else f"{action.target} is cordoned and drained.", (cordon, *now), rest, 5.0)


def _to_go(pod: Object) -> bool:
    """Not those that ended, that a DaemonSet would start again here at once, or that the node itself runs."""
    return _pods.running(pod) and not controller_of(pod).startswith("DaemonSet/") and _pods.MIRROR not in annotations_of(pod)


def _refuse_what_is_out_of_bounds(action: Action, pods: Sequence[Object]) -> None:
    """Raises Refused, before anything is done, where the policy names namespaces and a pod is of another one."""
    allowed: Any = action.params.get("namespaces") or ()
    others = sorted(_pods.name_of(p) for p in pods if allowed and not within(p["metadata"]["namespace"], allowed))
    if others:
        names = ", ".join(others[:SHOWN]) + (f" and {len(others) - SHOWN} more" if len(others) > SHOWN else "")
        raise Refused(f"{count(len(others), 'pod')} of {action.target} would go that the policy must not touch: {names}. "
                      f"guards.namespaces is {', '.join(map(str, allowed))}.")


def _refuse_what_would_be_lost(action: Action, pods: Sequence[Object]) -> None:
    for pod in pods:
        if not action.params.get("force") and not controller_of(pod):
            raise Refused(f"{_pods.name_of(pod)} has no controller: it would not come back. Set target.force to allow it.")
        if not action.params.get("deleteEmptyDirData") and any("emptyDir" in v for v in value_at(pod, ("spec", "volumes")) or []):
            raise Refused(f"{_pods.name_of(pod)} keeps data on the node (emptyDir). Set target.deleteEmptyDirData to lose it.")
