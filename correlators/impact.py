"""Who is hurt: everybody who depends on the suspected cause, weighted by how much they matter."""

from __future__ import annotations

from aiops.types import Entity, Impact
from correlators.graph import Graph

MAX_LISTED = 50


def impact(cause: Entity, graph: Graph) -> Impact:
    """The cause's dependents, most critical first, and the sum of their criticalities (its own included)."""
    hurt = sorted(graph.dependents(cause), key=lambda e: (-graph.criticality(e), e))
    weight = graph.criticality(cause) + sum(graph.criticality(e) for e in hurt)
    return Impact(tuple(hurt[:MAX_LISTED]), weight)
