"""Who is hurt: everybody who depends on the suspected cause, weighted by how much they matter."""

from __future__ import annotations

import heapq

from aiops.types import Entity, Impact
from correlators.graph import USUAL, Graph

MAX_LISTED = 50


def impact(cause: Entity, graph: Graph) -> Impact:
    """The cause's dependents, most critical first, the sum of their criticalities (its own included), and the highest."""
    hurt, matters = graph.reach(cause), graph.critical
    special = sorted(matters.keys() & hurt)
    usual = heapq.nsmallest(MAX_LISTED, hurt - matters.keys())
    first = sorted([*special, *usual], key=lambda e: (-matters.get(e, USUAL), e))
    all_of_them = [matters.get(cause, USUAL), *(matters[e] for e in special), *[USUAL] * (len(hurt) - len(special))]
    return Impact(tuple(first[:MAX_LISTED]), sum(all_of_them), max(all_of_them))
