"""The topology as it changes: what sources tell and what calls show, merged, with since when each edge is there.

Follows differences: a step costs what has changed, not what there is. What went is remembered for a while, so that one can ask
how it was.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import networkx as nx

from aiops.links import Merger, place
from aiops.types import Batch, Edge, Entity, Links, Node, entity_parts
from correlators.calls import Calls, Party
from correlators.graph import Graph, follow

MAX_GONE = 20_000
"""Edges that went, of which is remembered when they were there."""
TOLD, CALLS = "topology.yaml", "calls"
"""What tells edges that name nobody: a recording."""


class Gone(NamedTuple):
    edge: Edge
    since: float
    until: float


@dataclass(frozen=True, slots=True)
class Held:
    """An edge, who tells it, since when it is there, until when it was (None: it is), and when it was last confirmed."""

    edge: Edge
    since: float
    until: float | None
    confirmed: float

    @property
    def form(self) -> dict[str, Any]:
        """For the page and for JSON."""
        e = self.edge
        return {"from": e.source, "to": e.target, "kind": e.kind, "sources": [name for name in e.told.split(",") if name],
                "since": self.since, "until": self.until, "confirmed": self.confirmed}


class Topology:
    """`graph` is what everybody reads; a new one whenever anything has changed, over the same nodes. `version` counts these.

    calls: False where call metrics are not to be read. `exact_since`: what was before this time is not wholly known any more.
    """

    def __init__(self, calls: bool = True) -> None:
        self.calls = Calls() if calls else None
        self._merger = Merger()
        self._g: nx.DiGraph[Entity] = nx.DiGraph()
        self.graph, self.version, self.at = Graph(self._g), 0, -math.inf
        self._since: dict[Edge, float] = {}
        self._gone: deque[Gone] = deque(maxlen=MAX_GONE)
        self.exact_since = math.inf
        self._namesakes: dict[str, list[Entity]] | None = None

    def hear(self, batch: Batch, held: Collection[Entity] = ()) -> bool:
        """Takes in what a batch tells; whether the graph is another one now. held: who is in trouble, whose edges stay."""
        self.exact_since = min(self.exact_since, batch.at)
        self.at = batch.at
        if batch.links is not None and self._merger.put(TOLD, batch.links):
            self._namesakes = None
        if self.calls is not None and (self.calls.observe(batch) or (batch.links is not None and len(self.calls))):
            self._merger.put(CALLS, self.calls.edges(batch.at, self._resolve, held))
        change = self._merger.take()
        if change is None:
            return False
        self._remember(batch.at, change)
        follow(self._g, change)
        self.graph = Graph(self._g)
        self.version += 1
        return True

    def nodes(self) -> list[Node]:
        """What is told of entities by themselves."""
        return [*self._merger.of(TOLD).nodes.values()]

    def edges(self, at: float | None = None, entity: Entity = "") -> Iterator[Held]:
        """The edges that there are, or were at a time, in no order. entity: a part of the name of one of their ends.

        Nothing is kept of it: a step may be running beside.
        """
        services = cache(self._named)
        calls = self.calls.confirmed(lambda party: self._resolve(party, services)) if self.calls is not None else {}
        for edge in [*self._merger.known.edges.values()]:
            since = self._since.get(edge, self.at)
            if (at is None or since <= at) and (entity in edge.source or entity in edge.target):
                others = [name for name in edge.told.split(",") if name not in _BY_CALLS]
                yield Held(edge, since, None, self.at if others else calls.get(edge, self.at))
        for edge, since, until in [*self._gone]:
            if at is not None and since <= at < until and (entity in edge.source or entity in edge.target):
                yield Held(edge, since, until, until)

    def page(self, at: float | None = None, entity: str = "", limit: int = 100, offset: int = 0) -> dict[str, Any]:
        """The edges as a document, sorted: `total`, and at most `limit` of them. Safe beside a running step."""
        found = sorted(self.edges(at, entity), key=lambda h: (*place(h.edge), h.since))
        left_out = self.calls.left_out if self.calls is not None else 0
        return {"at": _number(self.at if at is None else min(at, self.at)), "version": self.version,
                "exact_since": _number(self.exact_since), "total": len(found), "left_out": left_out,
                "edges": [h.form for h in found[offset:offset + limit]]}

    def state(self) -> list[Any]:
        """What of it is to be kept over a restart: the rest is told anew."""
        return self.calls.state() if self.calls is not None else []

    def restore(self, state: list[Any]) -> None:
        """Into one that has heard nothing."""
        if self.calls is not None:
            self.calls.restore(state)

    # ------------------------------------------------------------------------------------------------------- within
    def _remember(self, at: float, change: Links) -> None:
        """Since when edges are there; a whole one names all that there is."""
        gone = self._since.keys() - set(change.edges) if change.whole else change.gone_edges
        for edge in [*gone]:
            since = self._since.pop(edge, None)
            if since is not None:
                if len(self._gone) == MAX_GONE:
                    self.exact_since = max(self.exact_since, self._gone[0].until)
                self._gone.append(Gone(edge, since, at))
        for edge in change.edges:
            self._since.setdefault(edge, at)

    def _resolve(self, party: Party, services: Callable[[], Mapping[str, list[Entity]]] | None = None) -> Entity:
        """Which name of a party is one that sources tell of; a service without a namespace may be the only one of its name."""
        known = self._merger.of(TOLD).nodes
        for name in party.names:
            if name in known:
                return name
        kind, namespace, name = entity_parts(party.names[0])
        if kind == "service" and not namespace and len(found := (services or self._services)().get(name, [])) == 1:
            return found[0]
        return party.names[0]

    def _services(self) -> dict[str, list[Entity]]:
        if self._namesakes is None:
            self._namesakes = self._named()
        return self._namesakes

    def _named(self) -> dict[str, list[Entity]]:
        """Services by their names without namespaces."""
        found: dict[str, list[Entity]] = {}
        for entity in [*self._merger.of(TOLD).nodes]:
            if entity.startswith("service/"):
                found.setdefault(entity_parts(entity)[2], []).append(entity)
        return found


def _number(at: float) -> float | None:
    return at if math.isfinite(at) else None


_BY_CALLS = frozenset({"istio", "linkerd", "service_graph", "span_metrics"})
