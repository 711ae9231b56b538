"""The group that is nearest to alerts which begin together: in the graph first, then in time.

All of them are walked from at once: next to a gateway in trouble stand its ten thousand callers, for each of those that alert.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence, Set
from typing import TYPE_CHECKING

from aiops.types import Alert, Entity
from correlators.graph import Graph

if TYPE_CHECKING:
    from correlators.group import Group, Grouper

Onsets = dict[Entity, list[float]]


def nearest(grouper: Grouper, alerts: Sequence[Alert], graph: Graph, troubled: Set[Entity], rest_s: float,
            begins: Callable[[Alert], bool]) -> Group | None:
    """The open group closest in the graph, then in time; a closed one only for an entity that was already in it.

    rest_s: what `begins` so long after all was well in a group is not its.
    """
    first = {a.entity: a for a in sorted(alerts, key=lambda a: (a.since, a.key), reverse=True)}
    found = [(0, abs(a.since - g.began), g.id) for e, a in first.items() for g in grouper.of(e)
             if g.takes(a, e, grouper.window_s, rest_s)]
    for new in () if found else (True, False):
        onsets = {e: [a.since] for e, a in first.items() if begins(a) is new}
        found += _walk(grouper, onsets, graph, troubled, rest_s if new else math.inf)
    return grouper.groups[min(found)[2]] if found else None


def _walk(grouper: Grouper, onsets: Onsets, graph: Graph, troubled: Set[Entity], rest_s: float) -> list[tuple[int, float, str]]:
    """The groups at the fewest hops that take one of these: hops, seconds apart, name."""
    for hops in range(grouper.distance):
        quiet = {e for e in onsets if hops and e not in troubled and graph.is_hub(e)}
        onsets = _spread(grouper, graph, {e: when for e, when in onsets.items() if e not in quiet}, hops + 1 == grouper.distance)
        found = [(hops + 1, apart, g.id) for e, when in onsets.items() for g in grouper.of(e) if e in g.suffering
                 and (apart := _apart(when, g.began, g.open_until(rest_s))) <= grouper.window_s]
        if found:
            return found
    return []


def _spread(grouper: Grouper, graph: Graph, onsets: Onsets, last: bool) -> Onsets:
    """One hop on: who is reached, by alerts that began when. last: only those who are in a group matter any more."""
    out: dict[Entity, list[list[float]]] = {}
    for entity, when in onsets.items():
        for other in graph.neighbours(entity):
            if not last or grouper.of(other):
                out.setdefault(other, []).append(when)
    return {e: found[0] if len(found) == 1 else sorted({t for when in found for t in when}) for e, found in out.items()}


def _apart(when: Sequence[float], began: float, until: float) -> float:
    """Seconds to the nearest of these times before `until`, which are sorted; infinite where there is none."""
    when = when[:bisect_left(when, until)]
    k = bisect_left(when, began)
    return min((abs(t - began) for t in when[max(k - 1, 0):k + 1]), default=math.inf)
