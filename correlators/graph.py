"""The topology: who depends on whom. A thin reading of a networkx graph, replaced whole whenever it changes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from functools import cached_property, lru_cache

import networkx as nx
from networkx.utils import UnionFind

from aiops.types import Edge, EdgeKind, Entity, Links, Node

HUB_DEGREE = 12
"""A node with more neighbours than this connects everything, and therefore nothing, unless it is in trouble itself."""


class Graph:
    """Edges point from the dependent to what it depends on. Unknown entities are legal and have no neighbours."""

    def __init__(self, links: Links = Links()) -> None:  # noqa: B008 - frozen
        g: nx.DiGraph[Entity] = nx.DiGraph()
        for node in links.nodes:
            g.add_node(node.entity, criticality=node.criticality, labels=dict(node.labels))
        for edge in links.edges:
            if edge.source != edge.target:
                g.add_edge(edge.source, edge.target, kind=edge.kind)
        self._g = g
        self._near = lru_cache(maxsize=100_000)(self._near_uncached)
        self._needs = lru_cache(maxsize=100_000)(self._needs_uncached)
        self._guests = lru_cache(maxsize=100_000)(self._guests_uncached)

    def __contains__(self, entity: object) -> bool:
        return entity in self._g

    def criticality(self, entity: Entity) -> float:
        return float(self._g.nodes[entity].get("criticality", 1.0)) if entity in self._g else 1.0

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
        found, edge, into = {entity}, [entity], self._into
        while edge:
            edge = [e for e in {e for known in edge for e in into.get(known, ())} if e not in found]
            found.update(edge)
        return found - {entity}

    @cached_property
    def _into(self) -> dict[Entity, list[Entity]]:
        """Who depends directly on whom."""
        return {e: list(known) for e, known in self._g.pred.items()}

    @cached_property
    def critical(self) -> dict[Entity, float]:
        """Whose criticality is not the usual 1."""
        return {e: c for e in self._g.nodes if (c := self.criticality(e)) != 1.0}

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
        return entity.startswith("node/") or len(self._near(entity)) > HUB_DEGREE

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


def merged(links: Iterable[Links]) -> Links:
    """Several sources' topologies as one; the first description of a node or edge wins."""
    nodes: dict[Entity, Node] = {}
    edges: dict[tuple[Entity, Entity, EdgeKind], Edge] = {}
    for part in links:
        for node in part.nodes:
            nodes.setdefault(node.entity, node)
        for edge in part.edges:
            edges.setdefault((edge.source, edge.target, edge.kind), edge)
    return Links(tuple(nodes[k] for k in sorted(nodes)), tuple(edges[k] for k in sorted(edges)))
