"""What actions need to know of pods: which are meant, which are ready, which would come back, and how many may be away."""

from __future__ import annotations

import math
from collections.abc import Sequence

from aiops.changes import Object, entity_of, paused, value_at
from aiops.interfaces import Cluster, Refused
from aiops.kinds import parts
from aiops.types import Action
from remediations._targets import SELECTOR, looked_up, moment

FINISHED = ("Succeeded", "Failed")
MIRROR = "kubernetes.io/config.mirror"


def meant(action: Action, cluster: Cluster) -> Sequence[Object]:
    """The running pods that a target names or selects, by name; paused ones are left out. Raises Refused where there are none."""
    _, namespace, name = parts(action.target)
    if not name.startswith(SELECTOR):
        return [looked_up(cluster, action.target)]
    found = [p for p in cluster.find("pod", namespace, name.removeprefix(SELECTOR)) if running(p) and not paused(p)]
    if not found:
        raise Refused(f"no pod in namespace {namespace} matches {name.removeprefix(SELECTOR)}.")
    return sorted(found, key=name_of)


def replaceable(pods: Sequence[Object]) -> Sequence[Object]:
    """The same pods. Raises Refused where one of them would not come back."""
    orphan = next((name_of(p) for p in pods if not owned(p)), None)
    if orphan:
        raise Refused(f"{orphan} has no controller: evicted, it would not come back.")
    return pods


def name_of(pod: Object) -> str:
    return entity_of(pod, "pod")


def running(pod: Object) -> bool:
    return value_at(pod, ("status", "phase")) not in FINISHED


def ready(pod: Object) -> bool:
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in value_at(pod, ("status", "conditions")) or [])


def leaving(pod: Object) -> bool:
    """It was told to stop."""
    return "deletionTimestamp" in pod["metadata"]


def owned(pod: Object) -> bool:
    """A controller will replace it when it goes; a node's own (mirror) pod comes back by itself and cannot be evicted."""
    return any(o.get("controller") and o.get("kind") != "Node" for o in pod["metadata"].get("ownerReferences") or [])


def started_at(pod: Object) -> float:
    """UTC seconds; 0, long ago, where the pod does not say."""
    return moment(value_at(pod, ("status", "startTime")) or pod["metadata"].get("creationTimestamp"))


def at_once(action: Action, pods: int) -> int:
    """How many of them may be away at once. At least one, or nothing would ever move; a share is rounded down."""
    allowed = action.params.get("max_unavailable", 1)
    if isinstance(allowed, str):
        return max(1, math.floor(pods * int(allowed.rstrip("%")) / 100))
    return max(1, allowed) if isinstance(allowed, int) else 1


def may_go(action: Action, pods: Sequence[Object], old: Sequence[Object]) -> list[Object]:
    """Those of `old` that may go now, where `pods` are all that count. One that is not ready anyway costs nothing."""
    broken = [p for p in old if not ready(p)]
    away = sum(1 for p in pods if not ready(p) or leaving(p))
    room = max(0, at_once(action, len(pods)) - away)
    return broken + [p for p in old if ready(p)][:room]


def old_ones(action: Action, pods: Sequence[Object]) -> list[Object]:
    """Those that were there when it was decided and were not told to stop yet.

    Kubernetes writes whole seconds: one of the second of the decision may have come after it, and is none of these.
    """
    return [p for p in pods if started_at(p) < math.floor(action.at) and not leaving(p)]
