"""Which part of a journal belongs to an incident: its entities, who is near them in the topology, and the time around it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from aiops import stops
from aiops.arrays import grown
from aiops.links import Known
from aiops.sinks.journal import Journal
from aiops.types import Batch, Bools, Command, Edge, Entity, Event, Floats, Ints, Links, LogLine, Outcome, RawAlert, Series
from correlators.graph import Graph
from detectors._kin import owner

JSON = dict[str, Any]
HOPS, LEARNED_HOPS = 2, 4
"""How far telemetry reaches from the incident, as far as alerts join; and what was learned, for those who join later."""
MAX_ENTITIES, MAX_SERIES, MAX_SAMPLES, MAX_LINES = 2_000, 20_000, 4_000_000, 100_000
MAX_DEPENDENTS = 2_000
MAX_LINKS = 50


@dataclass
class Slice:
    """One incident's part. Rows are in the order in which they came: series (index into `series`), time, value, and `at`, the
    event time of their batch. `ats`: of every batch. `policies`: the last set that was told before the span, and each within it.
    `left_out`: what did not fit, by reason."""

    series: list[Series] = field(default_factory=list)
    ids: Ints = field(default_factory=lambda: np.empty(0, np.int32))
    times: Floats = field(default_factory=lambda: np.empty(0))
    values: Floats = field(default_factory=lambda: np.empty(0))
    row_at: Floats = field(default_factory=lambda: np.empty(0))
    ats: list[float] = field(default_factory=list)
    lines: list[tuple[float, LogLine]] = field(default_factory=list)
    events: list[tuple[float, Event]] = field(default_factory=list)
    alerts: list[tuple[float, RawAlert]] = field(default_factory=list)
    links: list[tuple[float, Links]] = field(default_factory=list)
    outcomes: list[tuple[float, Outcome]] = field(default_factory=list)
    commands: list[tuple[float, Command]] = field(default_factory=list)
    policies: list[tuple[float, Mapping[str, str]]] = field(default_factory=list)
    entities: tuple[Entity, ...] = ()
    learned_entities: tuple[Entity, ...] = ()
    left_out: dict[str, int] = field(default_factory=dict)


def cut(folder: Path, run: str, incident: Mapping[str, Any], start: float, until: float) -> Slice:
    """The part of an incident (in the form of aiops.serial) between two event times. Raises JournalError, OSError.

    Series and log lines that do not fit are left out farthest first, samples oldest first; all of it is counted.
    """
    journal = Journal(folder, run).tail(start)
    series, told = journal.catalogue(until)
    graph = Graph(_ever(told))
    known = {s.entity for s in series}
    entities, left = _near(graph, incident, known, HOPS)
    found = Slice(entities=entities, learned_entities=_near(graph, incident, known, LEARNED_HOPS)[0])
    _note(found, "entities", left)
    _choose(found, series)
    found.links = _links(told, entities, _dependents(graph, incident), start)
    _collect(found, journal, (start, until), incident)
    return found


# ---------------------------------------------------------------------------------------------------------- entities
def _near(graph: Graph, incident: Mapping[str, Any], known: set[Entity], hops: int) -> tuple[tuple[Entity, ...], int]:
    """Who is within so many hops, the nearest first, and how many did not fit. Paths do not lead through quiet hubs: as the
    correlator joins alerts. With who is compared with them, where peers gave evidence."""
    own = [*incident["entities"], *(c["entity"] for c in incident["causes"]), *(a["target"] for a in incident["actions"])]
    order = dict.fromkeys(own)
    edge = set(order)
    for _ in range(hops):
        through = [e for e in sorted(edge) if e in own or not graph.is_hub(e)]
        edge = {n for e in through for n in graph.neighbours(e)} - set(order)
        order.update(dict.fromkeys(sorted(edge)))
    order.update(dict.fromkeys(sorted(_peers(incident, known))))
    return tuple(order)[:MAX_ENTITIES], max(0, len(order) - MAX_ENTITIES)


def _peers(incident: Mapping[str, Any], known: set[Entity]) -> set[Entity]:
    owners = {owner(a["entity"]) for a in incident["alerts"] if "peers" in a["detectors"]}
    return {e for e in known if owner(e) in owners} if owners else set()


def _choose(found: Slice, series: Iterable[Series]) -> None:
    """The series of these entities, those of the nearest where there are too many."""
    rank = {e: i for i, e in enumerate(found.entities)}
    mine = list({_name(s): s for s in series if s.entity in rank}.values())  # who came back has had two numbers
    nearest = sorted(mine, key=lambda s: (rank[s.entity], s.id))[:MAX_SERIES]
    _note(found, "series", len(mine) - len(nearest))
    found.series = sorted(nearest, key=lambda s: (s.id, _name(s)))


# ---------------------------------------------------------------------------------------------------------- topology
def _links(told: Sequence[tuple[float, Links]], entities: Sequence[Entity], dependents: set[Entity],
           start: float) -> list[tuple[float, Links]]:
    """What held at `start` and each change since, cut to edges that touch these entities or lead to who depends on them."""
    touched, inside = set(entities), {*entities, *dependents}
    out: list[tuple[float, Links]] = []
    nodes, edges = Known(), Known()
    for at, links in told:
        nodes.put(replace(links, edges=(), gone_edges=()))
        edges.put(replace(links, nodes=(), gone_nodes=(), edges=tuple(e for e in links.edges if _keeps(e, touched, inside))))
        part = _part(nodes, edges.whole().edges, inside)
        if not out or part != out[-1][1]:
            out.append((max(at, start) if math.isfinite(at) else start, part))
    before = [x for x in out if x[0] <= start][-1:]
    return [*before, *[x for x in out if x[0] > start][-MAX_LINKS:]]


def _dependents(graph: Graph, incident: Mapping[str, Any]) -> set[Entity]:
    """Who is hurt when they are: what the incident's impact is counted from."""
    out: set[Entity] = set()
    for cause in incident["causes"]:
        if len(out) < MAX_DEPENDENTS:
            out.update(graph.dependents(cause["entity"])[:MAX_DEPENDENTS])
    return out


def _ever(told: Iterable[tuple[float, Links]]) -> Links:
    """Everybody and every edge that was told of: who was near once counts as near."""
    ever = Known()
    for _, links in told:
        ever.put(replace(links, whole=False, gone_nodes=(), gone_edges=()))
    return ever.whole()


def _part(known: Known, edges: tuple[Edge, ...], inside: set[Entity]) -> Links:
    named = inside | {x for e in edges for x in (e.source, e.target)}
    return Links(tuple(known.nodes[e] for e in sorted(named) if e in known.nodes), edges)


def _keeps(edge: Edge, touched: set[Entity], inside: set[Entity]) -> bool:
    return edge.source in touched or edge.target in touched or (edge.source in inside and edge.target in inside)


# --------------------------------------------------------------------------------------------------------- telemetry
def _collect(found: Slice, journal: Journal, span: tuple[float, float], incident: Mapping[str, Any]) -> None:
    """All batches within the span, less what is somebody else's."""
    place = {_name(s): i for i, s in enumerate(found.series)}
    to = np.full(0, -1, np.int32)
    parts: list[tuple[Ints, Floats, Floats, Floats]] = []
    for batch in journal.batches():
        if batch.at > span[1]:
            break
        to = _numbered(to, batch, place)
        if batch.policies is not None:
            found.policies = [x for x in found.policies if x[0] >= span[0]] if batch.at < span[0] else found.policies
            found.policies.append((batch.at, batch.policies))
        if batch.at < span[0]:
            continue
        found.ats.append(batch.at)
        parts.append(_rows(batch, to))
        _listen(found, batch, set(found.entities), incident)
    if parts:
        found.ids = np.concatenate([p[0] for p in parts])
        found.times, found.values, found.row_at = (np.concatenate([p[k] for p in parts]) for k in (1, 2, 3))
    _trim(found, set(incident["entities"]))


def _name(s: Series) -> tuple[str, str, str]:
    return s.entity, s.metric, s.labels


def _numbered(to: Ints, batch: Batch, place: Mapping[tuple[str, str, str], int]) -> Ints:
    """Which series has which id from this batch on: `to[id]` is its place, -1 for one that is not wanted."""
    to[batch.retired[(batch.retired >= 0) & (batch.retired < len(to))]] = -1
    new = [s for s in batch.new_series if s.id >= 0]
    to = grown(to, max((s.id for s in new), default=-1) + 1, -1)
    for s in new:
        to[s.id] = place.get(_name(s), -1)
    return to


def _rows(batch: Batch, to: Ints) -> tuple[Ints, Floats, Floats, Floats]:
    legal = (batch.series >= 0) & (batch.series < len(to))
    ids = np.where(legal, to[np.where(legal, batch.series, 0)] if len(to) else -1, -1)
    keep: Bools = ids >= 0
    return ids[keep].astype(np.int32), batch.time[keep], batch.value[keep], np.full(int(keep.sum()), batch.at)


def _listen(found: Slice, batch: Batch, mine: set[Entity], incident: Mapping[str, Any]) -> None:
    """Lines, events and alerts of these entities; outcomes of this incident's actions; what people said of it, and of masks."""
    at, actions = batch.at, {a["id"] for a in incident["actions"]}
    found.lines += [(at, x) for x in batch.lines if x.entity in mine]
    found.events += [(at, x) for x in batch.events if x.entity in mine]
    found.alerts += [(at, x) for x in batch.alerts if x.entity in mine]
    found.outcomes += [(at, x) for x in batch.outcomes if x.action in actions]
    targets = actions | {incident["id"]}
    for_all = ("maintenance_start", "maintenance_end", "reset", *stops.VERBS)
    found.commands += [(at, x) for x in batch.commands if x.target in targets or x.verb in for_all]
    if len(found.lines) > 2 * MAX_LINES:
        _trim_lines(found, set(incident["entities"]))


def _trim(found: Slice, own: set[Entity]) -> None:
    _trim_lines(found, own)
    gone = max(0, len(found.ids) - MAX_SAMPLES)
    if gone:
        found.ids = found.ids[gone:]
        found.times, found.values, found.row_at = (x[gone:] for x in (found.times, found.values, found.row_at))
    _note(found, "samples", gone)


def _trim_lines(found: Slice, own: set[Entity]) -> None:
    """The incident's own lines stay longest, then the newest."""
    gone = max(0, len(found.lines) - MAX_LINES)
    if gone:
        order = sorted(range(len(found.lines)), key=lambda i: (found.lines[i][1].entity in own, i))
        kept = sorted(order[gone:])
        found.lines = [found.lines[i] for i in kept]
    _note(found, "log_lines", gone)


def _note(found: Slice, what: str, count: int) -> None:
    if count:
        found.left_out[what] = found.left_out.get(what, 0) + count

