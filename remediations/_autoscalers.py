"""Who else sets the replicas of a workload: a HorizontalPodAutoscaler would take back what is scaled beside it."""

from __future__ import annotations

from aiops.changes import Object, entity_of, value_at
from aiops.interfaces import Cluster, Refused
from aiops.kinds import parts
from aiops.types import Entity

HPA = "horizontalpodautoscaler"


def autoscaler_of(cluster: Cluster, target: Entity) -> Object | None:
    """The autoscaler that rules this workload, if any."""
    kind, namespace, name = parts(target)
    for one in cluster.find(HPA, namespace):
        ref = value_at(one, ("spec", "scaleTargetRef")) or {}
        if str(ref.get("kind", "")).lower() == kind and ref.get("name") == name:
            return one
    return None


def refuse_where_an_autoscaler_rules(cluster: Cluster, target: Entity, remedy: str = "Raise its maxReplicas.") -> None:
    """Raises Refused, naming it and the remedy."""
    found = autoscaler_of(cluster, target)
    if found:
        raise Refused(f"{entity_of(found, HPA)} owns the replicas of {target} and would scale it back. {remedy}")
