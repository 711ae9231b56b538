"""Who is hurt: everybody who depends on the suspected cause, weighted by how much they matter."""

from __future__ import annotations

from aiops.types import Entity, Impact
from correlators.graph import Graph

MAX_LISTED = 50
USUAL = 1.0
"""The criticality of what nobody said anything about."""


def impact(cause: Entity, graph: Graph) -> Impact:
    """The cause's dependents, most critical first, the sum of their criticalities (its own included), and the highest."""
    matters = {e: criticality(e, graph) for e in (cause, *graph.dependents(cause))}
    hurt = sorted(matters.keys() - {cause}, key=lambda e: (-matters[e], e))
    return Impact(tuple(hurt[:MAX_LISTED]), sum(matters[e] for e in (cause, *hurt)), max(matters.values()))


def criticality(entity: Entity, graph: Graph) -> float:
    """How much an entity matters, 0 or more: as the topology says (`criticality` of a node; in Kubernetes the annotation
    `aiops.io/criticality`). A part, a pod, of which nothing is said matters as much as the most critical that it is a part of."""
    own = graph.criticality(entity)
    return own if own != USUAL else max((graph.criticality(o) for o in graph.owners(entity)), default=own)
