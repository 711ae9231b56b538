"""The topology: who depends on whom. A thin reading of a networkx graph, which `follow` keeps up to date."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import cache, cached_property, lru_cache
from typing import Any

import networkx as nx
from networkx.utils import UnionFind

from aiops.types import Edge, EdgeKind, Entity, Links

HUB_DEGREE = 12
"""A node with more neighbours than this connects everything, and therefore nothing, unless it is in trouble itself."""
SHARED = ("node/", "zone/", "nvlink_domain/", "nvlink_partition/", "leaf/", "spine/", "core/", "tier-")
"""Machines, and what several machines share: quiet, it says nothing of those who share it."""
SAID = "said"
"""Where the graph keeps the names of those whose criticality is told and is not the usual one."""
USUAL = 1.0
"""The criticality of what nobody said anything about."""


class Graph:
    """Edges point from the dependent to what it depends on. Unknown entities are legal and have no neighbours."""

    def __init__(self, links: Links | nx.DiGraph[Entity] = Links()) -> None:  # noqa: B008 - frozen
        """links: a topology, or a graph that somebody else keeps up to date; after each change of it a new Graph is due."""
        self._g: nx.DiGraph[Entity] = nx.DiGraph() if isinstance(links, Links) else links
        if isinstance(links, Links):
            follow(self._g, links)
        self._near = lru_cache(maxsize=100_000)(self._near_uncached)
        self._needs = lru_cache(maxsize=100_000)(self._needs_uncached)
        self._guests = lru_cache(maxsize=100_000)(self._guests_uncached)

    def __contains__(self, entity: object) -> bool:
        return entity in self._g

    def criticality(self, entity: Entity) -> float:
        """As the topology says, without what it is part of."""
        return float(self._g.nodes[entity].get("criticality", USUAL)) if entity in self._g else USUAL

    def is_proxy(self, entity: Entity) -> bool:
        """Somebody else's view of a call (a load balancer, a client-side record): never a cause."""
        return entity in self._g and self._g.nodes[entity].get("labels", {}).get("proxy") == "true"

    def dependencies(self, entity: Entity) -> list[tuple[Entity, EdgeKind]]:
        """What the entity needs, directly: its callees, its node, and for a service the pods that it owns. Sorted."""
        return list(self._needs(entity))

    def owned(self, entity: Entity) -> list[Entity]:
        """What the entity consists of: the pods of a service or workload. Sorted."""
        return [target for target, kind in self.dependencies(entity) if kind == "owns"]

    def owners(self, entity: Entity) -> list[Entity]:
        """Whose part the entity is. Sorted."""
        if entity not in self._g:
            return []
        return sorted(e for e in self._g.predecessors(entity) if self._g.edges[e, entity]["kind"] == "owns")

    def entities(self) -> Iterator[Entity]:
        """All that are known, in no order."""
        return iter(self._g)

    def guests(self, host: Entity) -> list[Entity]:
        """Who uses up the host's resources: what runs on it, and what it runs (`uses`, from host to process). Sorted."""
        return list(self._guests(host))

    def users(self, resource: Entity) -> list[Entity]:
        """Who uses a resource (a GPU): the machine it is in, and the pods that it was given to. Sorted."""
        if resource not in self._g:
            return []
        return sorted(e for e in self._g.predecessors(resource) if self._g.edges[e, resource]["kind"] == "uses")

    def labels(self, entity: Entity) -> dict[str, str]:
        """What the topology says of an entity beyond its name; {} for nothing."""
        return dict(self._g.nodes[entity].get("labels", {})) if entity in self._g else {}

    def callers(self, entity: Entity) -> list[Entity]:
        """Who calls the entity, directly. Sorted."""
        if entity not in self._g:
            return []
        return sorted(e for e in self._g.predecessors(entity) if self._g.edges[e, entity]["kind"] == "calls")

    def below(self, entities: Collection[Entity], hops: int, most: int) -> set[Entity]:
        """These, what they depend on within so many hops, and what all of those consist of; no more than about `most`.

        From part to owner it goes as well: a pod depends on whom its service calls.
        """
        found = set(entities)
        edge = sorted(found)
        for _ in range(hops):
            whole = {*edge, *(o for e in edge for o in self.owners(e))}
            edge = sorted({t for e in whole for t, _ in self.dependencies(e)} - found)
            found.update(whole, edge[:most])
            if not edge or len(found) > most:
                break
        return found.union(*(self.owned(e) for e in sorted(found)))

    def dependents(self, entity: Entity) -> list[Entity]:
        """All who depend on the entity, directly or not. Sorted."""
        return sorted(self.reach(entity))

    def reach(self, entity: Entity) -> set[Entity]:
        """The same in no order: quick where they are many."""
        into: dict[Entity, dict[Entity, Any]] = self._g._pred  # type: ignore[attr-defined]  # views are ten times as slow
        found = edge = {entity} if entity in into else set[Entity]()
        while edge:
            edge = set[Entity]().union(*map(into.__getitem__, edge)) - found
            found = found | edge
        return found - {entity}

    @cached_property
    def critical(self) -> dict[Entity, float]:
        """Whose criticality is not the usual 1: as the topology says (`criticality` of a node; in Kubernetes the annotation
        `aiops.io/criticality`). A part (a pod) of which nothing is said is as critical as its most critical owner."""
        said = {e: self.criticality(e) for e in self._g.graph.get(SAID, ())}
        parts = {e for owner in said for e in self.owned(owner)} - said.keys()
        return said | {e: c for e in parts if (c := max(map(self.criticality, self.owners(e)))) != USUAL}

    def distance(self, a: Entity, b: Entity, limit: int, troubled: Collection[Entity]) -> int | None:
        """Hops between two entities, in either direction; None beyond `limit`. Paths do not lead through quiet hubs."""
        return self.around(a, limit, troubled).get(b)

    def around(self, entity: Entity, limit: int, troubled: Collection[Entity]) -> dict[Entity, int]:
        """Everybody within `limit` hops, in either direction, with the hops. Paths do not lead through quiet hubs."""
        hops = {entity: 0}
        edge = [entity]
        for far in range(1, limit + 1):
            through = [e for e in edge if e == entity or e in troubled or not self.is_hub(e)]
            edge = sorted({n for e in through for n in self._near(e)} - hops.keys())
            hops.update(dict.fromkeys(edge, far))
        return hops

    def near_any(self, entities: Collection[Entity], limit: int, troubled: Collection[Entity]) -> set[Entity]:
        """Who is around any of these: all are walked from at once."""
        found = edge = set(entities)
        for far in range(limit):
            through = [e for e in edge if not far or e in troubled or not self.is_hub(e)]
            edge = {n for e in through for n in self._near(e)} - found
            found = found | edge
        return found

    def clusters(self, entities: Collection[Entity], limit: int, troubled: Collection[Entity]) -> list[list[Entity]]:
        """Entities joined to those within `limit` hops, those to theirs, and so on. Sorted; each entity is in one cluster.

        All are walked from at once, so that it costs what is around them and not their number squared: where two walks
        meet within the limit, their beginnings belong together.
        """
        joined = UnionFind(sorted(entities))
        origin = {e: e for e in sorted(entities)}
        hops = dict.fromkeys(origin, 0)
        edge = list(origin)
        while edge:
            found: list[Entity] = []
            for e in edge:
                for n in self._near(e) if hops[e] == 0 or e in troubled or not self.is_hub(e) else ():
                    if n not in origin and hops[e] < limit:
                        origin[n], hops[n] = origin[e], hops[e] + 1
                        found += [n] if hops[n] < limit else []
                    elif n in origin and hops[e] + hops[n] < limit and (
                            hops[n] == 0 or n in troubled or not self.is_hub(n)):
                        joined.union(origin[e], origin[n])
            edge = found
        return sorted(sorted(c) for c in joined.to_sets())

    def is_hub(self, entity: Entity) -> bool:
        """Shared by so many that sharing it says nothing: machines, and nodes of high degree."""
        return entity.startswith(SHARED) or len(self._near(entity)) > HUB_DEGREE

    def neighbours(self, entity: Entity) -> tuple[Entity, ...]:
        return self._near(entity)

    def _needs_uncached(self, entity: Entity) -> tuple[tuple[Entity, EdgeKind], ...]:
        return tuple(sorted((t, edge["kind"]) for t, edge in self._g.adj[entity].items())) if entity in self._g else ()

    def _guests_uncached(self, host: Entity) -> tuple[Entity, ...]:
        if host not in self._g:
            return ()
        runs = [e for e, edge in self._g.pred[host].items() if edge["kind"] == "runs_on"]
        return tuple(sorted({*runs, *(e for e, kind in self._needs(host) if kind == "uses")}))

    def _near_uncached(self, entity: Entity) -> tuple[Entity, ...]:
        if entity not in self._g:
            return ()
        return tuple(sorted({*self._g.successors(entity), *self._g.predecessors(entity)}))


def follow(g: nx.DiGraph[Entity], change: Links) -> None:
    """Brings a graph up to date, from nothing or by a difference; the work is that of what has changed.

    Of several kinds of edge between two the last in the alphabet is read. Who is named by edges alone goes with the last of them.
    """
    said: dict[Entity, None] = g.graph.setdefault(SAID, {})
    for entity in change.gone_nodes:
        said.pop(entity, None)
        if entity in g:
            g.nodes[entity].clear()
            _leave(g, entity)
    for edge in change.gone_edges:
        if g.has_edge(edge.source, edge.target):
            _put_kinds(g, edge, g.edges[edge.source, edge.target]["kinds"] - {edge.kind})
    for node in change.nodes:
        g.add_node(node.entity, criticality=node.criticality, labels=dict(node.labels))
        said.pop(node.entity, None)
        if node.criticality != USUAL:
            said[node.entity] = None
    for edge in change.edges:
        if edge.source != edge.target:
            had = g.edges[edge.source, edge.target]["kinds"] if g.has_edge(edge.source, edge.target) else frozenset()
            _put_kinds(g, edge, had | {edge.kind})


def _put_kinds(g: nx.DiGraph[Entity], edge: Edge, kinds: frozenset[EdgeKind]) -> None:
    if kinds:
        g.add_edge(edge.source, edge.target, kind=max(kinds), kinds=_shared(kinds))
        return
    g.remove_edge(edge.source, edge.target)
    _leave(g, edge.source)
    _leave(g, edge.target)


@cache
def _shared(kinds: frozenset[EdgeKind]) -> frozenset[EdgeKind]:
    """One object for all edges of these kinds: there are few, and many edges."""
    return kinds


def _leave(g: nx.DiGraph[Entity], entity: Entity) -> None:
    """Whom nobody describes, and no edge names, is not known."""
    if not g.nodes[entity] and not g.degree(entity):
        g.remove_node(entity)
