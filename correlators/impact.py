"""Who is hurt: everybody who depends on the suspected cause, weighted by how much they matter."""

from __future__ import annotations

import heapq

from aiops.types import Entity, Impact
from correlators.graph import Graph

MAX_LISTED = 50


def impact(cause: Entity, graph: Graph) -> Impact:
    """The cause's dependents, most critical first, and the sum of their criticalities (its own included)."""
    hurt, critical = graph.reach(cause), graph.critical
    special = sorted(critical.keys() & hurt)
    first = sorted([*special, *heapq.nsmallest(MAX_LISTED, hurt - critical.keys())], key=lambda e: (-graph.criticality(e), e))
    weight = graph.criticality(cause) + sum(critical[e] for e in special) + (len(hurt) - len(special))
    return Impact(tuple(first[:MAX_LISTED]), weight)
