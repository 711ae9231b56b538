"""Topologies as differences: what one source tells, what several of them tell together, and what changed of it.

The topology of a large cluster changes with every pod, and is too much to be built, compared or written anew each time.
"""

from __future__ import annotations

from collections.abc import Iterable

from aiops.types import Edge, Entity, Links, Node

WRITTEN = "topology-file"
"""What a person has written down counts more than what was found."""


class Known:
    """A topology that follows what is told of it. Memory: the topology."""

    def __init__(self, links: Links | None = None) -> None:
        self.nodes: dict[Entity, Node] = {}
        self.edges: dict[Edge, Edge] = {}
        if links is not None:
            self.put(links)

    def put(self, links: Links) -> Links:
        """Takes in a whole topology, or a difference; returns what is another now than before, as a difference.

        The first description of a node or edge wins within one telling. An edge from an entity to itself says nothing.
        """
        nodes, edges = _first(links)
        gone_nodes: Iterable[Entity] = self.nodes.keys() - nodes.keys() if links.whole else links.gone_nodes
        gone_edges: Iterable[Edge] = self.edges.keys() - edges.keys() if links.whole else links.gone_edges
        went_nodes = tuple(sorted(e for e in {*gone_nodes} if e not in nodes and e in self.nodes))
        went_edges = tuple(sorted((e for e in {*gone_edges} if e not in edges and e in self.edges), key=place))
        for entity in went_nodes:
            del self.nodes[entity]
        for edge in went_edges:
            del self.edges[edge]
        new_nodes = tuple(n for e, n in nodes.items() if self.nodes.get(e) != n)
        new_edges = tuple(e for e in edges.values() if (old := self.edges.get(e)) is None or old.told != e.told)
        self.nodes.update((n.entity, n) for n in new_nodes)
        for e in new_edges:
            self.edges.pop(e, None)  # the key is an edge too, and keeps who told it
            self.edges[e] = e
        return Links(new_nodes, new_edges, went_nodes, went_edges, whole=False)

    def whole(self) -> Links:
        """All of it, sorted."""
        return Links(tuple(self.nodes[e] for e in sorted(self.nodes)), tuple(sorted(self.edges.values(), key=place)))


class Merger:
    """Several sources' topologies as one, and what changed of it since it was last taken.

    Of an edge it is said who tells it. What several tell of a node is put together: of its criticality the first word that is
    not the usual 1 counts, of each label the first; the file that a person wrote is asked first, the others by their names.
    """

    def __init__(self) -> None:
        self._sources: dict[str, Known] = {}
        self._order: list[str] = []
        self._nodes: set[Entity] = set()
        self._edges: set[Edge] = set()
        self._told = Known()
        self._empty = True

    def put(self, source: str, links: Links) -> bool:
        """What a source tells now, whole or as a difference; whether anything is another than before."""
        if source not in self._sources:
            self._sources[source] = Known()
            self._order = sorted(self._sources, key=lambda name: (name != WRITTEN, name))
        change = self._sources[source].put(links)
        self._nodes.update(change.gone_nodes, (n.entity for n in change.nodes))
        self._edges.update(change.gone_edges, change.edges)
        return not empty(change)

    def of(self, source: str) -> Known:
        """What one source tells."""
        return self._sources.get(source) or Known()

    @property
    def known(self) -> Known:
        """What they tell together, as it was last taken."""
        return self._told

    def again(self) -> None:
        """The next time the whole is told: who was told last may not have heard."""
        self._empty = True

    def take(self) -> Links | None:
        """What is another than at the last call: the first time the whole, then a difference; None where nothing is."""
        nodes, edges, gone_nodes, gone_edges = [], [], [], []
        for entity in sorted(self._nodes):
            node = self._node(entity)
            nodes += [node] if node else []
            gone_nodes += [] if node else [entity]
        for key in sorted(self._edges, key=place):
            edge = self._edge(key)
            edges += [edge] if edge else []
            gone_edges += [] if edge else [key]
        self._nodes, self._edges = set(), set()
        change = self._told.put(Links(tuple(nodes), tuple(edges), tuple(gone_nodes), tuple(gone_edges), whole=False))
        if self._empty and self._sources:
            self._empty = False
            return self._told.whole()
        return None if empty(change) else change

    def _node(self, entity: Entity) -> Node | None:
        said = [n for name in self._order if (n := self._sources[name].nodes.get(entity))]
        if len(said) < 2:
            return said[0] if said else None
        labels: dict[str, str] = {}
        for n in said:
            labels = {**n.labels, **labels}
        return Node(entity, next((n.criticality for n in said if n.criticality != 1.0), 1.0), labels)

    def _edge(self, key: Edge) -> Edge | None:
        by = [(name, e) for name in self._order if (e := self._sources[name].edges.get(key))]
        if not by:
            return None
        first = by[0][1]
        told = first.told or by[0][0]
        if len(by) > 1:
            told = ",".join(sorted({part for name, e in by for part in (e.told or name).split(",")}))
        return first if told == first.told else Edge(key.source, key.target, key.kind, told)


def place(edge: Edge) -> tuple[str, str, str]:
    """What edges are sorted by."""
    return edge.source, edge.target, edge.kind


def empty(links: Links) -> bool:
    """Whether nothing is said: of a difference, that nothing is different."""
    return not (links.nodes or links.edges or links.gone_nodes or links.gone_edges)


def joined(first: Links | None, then: Links | None) -> Links | None:
    """Two tellings, one after the other, as one."""
    if first is None or then is None or then.whole:
        return first if then is None else then
    known = Known(first)
    if first.whole:
        known.put(then)
        return known.whole()
    known.put(then)
    nodes = {*first.gone_nodes, *then.gone_nodes} - known.nodes.keys()
    edges = {*first.gone_edges, *then.gone_edges} - known.edges.keys()
    return Links(*_both(known.whole()), tuple(sorted(nodes)), tuple(sorted(edges, key=place)), whole=False)


def _both(links: Links) -> tuple[tuple[Node, ...], tuple[Edge, ...]]:
    return links.nodes, links.edges


def _first(links: Links) -> tuple[dict[Entity, Node], dict[Edge, Edge]]:
    """By what they are about."""
    nodes: dict[Entity, Node] = {}
    edges: dict[Edge, Edge] = {}
    for n in links.nodes:
        nodes.setdefault(n.entity, n)
    for e in links.edges:
        if e.source != e.target:
            edges.setdefault(e, e)
    return nodes, edges
