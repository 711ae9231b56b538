"""What the decider may ask about an incident: answers from the recent past, in the incident's window and scope."""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache

from aiops.history import History
from aiops.meaning import Meanings
from aiops.rows import columnar
from aiops.signals import STALE_S
from aiops.types import Alert, Anomaly, Entity, Event, Incident, LogLine, Signal, entity_parts
from correlators.graph import Graph

LOOK_BACK_S = 300.0
"""An incident's window starts this long before it was opened: evidence comes before alerts."""
KEEP_S = 1800.0
TOGETHER_S = 600.0
"""Incidents that were opened further apart do not explain each other."""
MOST_BELOW, MOST_YOUNG = 2000, 200
AROUND = {"workload": ("deployment", "statefulset", "daemonset"), "service": ("service",), "node": ("node",)}
"""What policies may name by its place: see `RecentEvidence.around`."""
MAX_LINES, MAX_ANOMALIES, MAX_EVENTS = 20_000, 20_000, 20_000
MAX_TEXT = 64 * 1024 * 1024
"""Characters of lines that are kept."""


class RecentEvidence:
    """Implements `aiops.policy.evidence.Evidence` over bounded recent memory."""

    def __init__(self, history: History, meanings: Meanings, maintained: Callable[[Entity], str] = lambda entity: "") -> None:
        self._history, self._meanings, self._maintained = history, meanings, maintained
        self._lines: deque[LogLine] = deque()
        self._text = 0
        self._anomalies: deque[Anomaly] = deque(maxlen=MAX_ANOMALIES)
        self._events: deque[Event] = deque(maxlen=MAX_EVENTS)
        self._signals = columnar(())
        self._named, self._names = 0, set[str]()
        self._now = 0.0
        self.graph = Graph()
        self.alerts: Sequence[Alert] = ()
        self.incidents = ()
        self._odd: Mapping[Entity, list[int]] | None = None
        self._all: tuple[Anomaly, ...] = ()
        self._explained: dict[str, tuple[str, ...]] = {}

    @property
    def incidents(self) -> Sequence[Incident]:
        """Those that are open; found by id and by cause."""
        return self._incidents

    @incidents.setter
    def incidents(self, incidents: Sequence[Incident]) -> None:
        self._incidents, self._open = incidents, {i.id for i in incidents}
        self._caused = _places(map(_cause, incidents))

    def update(self, now: float, signals: Sequence[Signal], lines: Sequence[LogLine], anomalies: Sequence[Anomaly],
               events: Sequence[Event] = ()) -> None:
        """Take in one step and forget what is older than half an hour."""
        self._now = now
        self._signals = columnar(signals)
        self._keep(lines)
        self._events.extend(events)
        while self._events and self._events[0].time < now - KEEP_S:
            self._events.popleft()
        self._anomalies.extend(a for a in anomalies if a.p_value < 1.0)
        self._odd = None
        while self._anomalies and self._anomalies[0].at < now - KEEP_S:
            self._anomalies.popleft()

    def _keep(self, lines: Sequence[LogLine]) -> None:
        """The newest of the last half hour, within bounds."""
        self._lines.extend(lines)
        self._text += sum(len(line.text) for line in lines)
        while self._lines and (self._lines[0].time < self._now - KEEP_S or len(self._lines) > MAX_LINES or self._text > MAX_TEXT):
            self._text -= len(self._lines.popleft().text)

    def renumber(self) -> None:
        """Columns have other numbers from the next step on."""
        self._signals = columnar(())
        self._named, self._names = 0, set()

    def anomalies(self, incident: Incident) -> list[Anomaly]:
        """On the incident's entities since shortly before it was opened."""
        since = incident.opened_at - LOOK_BACK_S
        here = sorted(k for entity in set(incident.entities) for k in self._places_of(entity))
        return [a for k in here if (a := self._all[k]).at >= since]

    def measure(self, name: str, incident: Incident) -> float | None:
        """The worst value over the incident's entities and their neighbours; None where nobody reported it lately.

        A raw metric that packs only use as an ingredient is answered by the first signal made from it.
        """
        name = self._meanings.current(name)
        near = self._near(name, incident)
        values = [v for s in near if (v := self._value(s, incident)) is not None]
        if not values:
            return None
        return min(values) if near[0].direction == "down" else max(values)

    def _near(self, name: str, incident: Incident) -> list[Signal]:
        """Signals called this, or made of it where none is, on the incident's entities, else on their neighbours too."""
        names = (name,) if self._known(name) else self._meanings.used_by.get(name, ())
        for entities in (incident.entities, self._scope(incident)):
            found = [self._signals[k] for k in self._signals.places(entities).tolist()]
            near = [s for n in names for s in found if s.name == n]
            if near:
                return near
        return []

    def _known(self, name: str) -> bool:
        """Whether anybody has a signal called this."""
        if self._named != len(self._signals):
            self._named = len(self._signals)
            self._names = {kind.name for kind in self._signals.distinct()[1]}
        return name in self._names

    def log_count(self, pattern: str, incident: Incident) -> int:
        """Lines on the incident's entities and their neighbours that match; 0 for a pattern that is no expression."""
        matches, scope = _matcher(pattern), self._scope(incident)
        since = incident.opened_at - LOOK_BACK_S
        return sum(1 for line in self._lines if line.time >= since and line.entity in scope and matches(line.text))

    def event_count(self, pattern: str, incident: Incident) -> int:
        """Events of the incident's window on its entities, their neighbours, and the workloads of their pods."""
        matches, scope, since = _matcher(pattern), self._scope(incident), incident.opened_at - LOOK_BACK_S
        scope |= {owner for e in tuple(scope) if e.startswith("pod/") for owner in self.graph.owners(e)}
        return sum(1 for e in self._events if e.time >= since and e.entity in scope and matches(f"{e.reason} {e.text}"))

    def age(self, incident: Incident) -> float:
        """Seconds since the newest anomaly, or alert of others, on the incident's entities."""
        alerts = [a.at for a in incident.alerts if a.state == "firing" and "alertmanager" in a.detectors]
        return self._now - max([a.at for a in self.anomalies(incident)] + alerts, default=incident.opened_at)

    def maintenance(self, incident: Incident, target: Entity) -> str:
        """The first maintenance that anybody concerned is under: target and incident, their owners, what these depend on."""
        named = [target, *incident.entities]
        concerned = [*named, *(owner for e in named for owner in self.graph.owners(e))]
        below = [e for c in concerned for e, _ in self.graph.dependencies(c)]
        return next((why for e in (*concerned, *below) if (why := self._maintained(e))), "")

    def around(self, entity: Entity) -> dict[str, str]:
        """Of a pod its owners and its node; of a service or workload those of its pods; of a GPU its node."""
        parts = [entity, *self.graph.owned(entity)]
        near = {entity, *(o for p in parts for o in self.graph.owners(p))}
        near |= {host for p in parts for host, kind in self.graph.dependencies(p) if kind == "runs_on"}
        near |= {f"node//{entity_parts(p)[1]}" for p in parts if p.startswith("gpu/")}
        found = {word: [entity_parts(e)[2] for e in near if e.split("/")[0] in kinds] for word, kinds in AROUND.items()}
        return {word: names[0] for word, names in found.items() if len(names) == 1}

    def affected(self, incident: Incident) -> int:
        """See `Evidence.affected`."""
        if not incident.causes:
            return 0
        cause = incident.causes[0].entity
        replicas = {cause, *(p for owner in (cause, *self.graph.owners(cause)) for p in self.graph.owned(owner))}
        pods = {a.entity for a in incident.alerts if a.state == "firing" and a.entity.startswith("pod/")}
        return len(pods & replicas)

    def hear(self, incidents: Sequence[Incident]) -> None:
        """The open incidents. Who explains whom is settled while they are young: actions change who runs where."""
        self.incidents = incidents
        for incident in [i for i in incidents if self._now - i.opened_at <= TOGETHER_S][:MOST_YOUNG]:
            self.explained(incident)

    def _places_of(self, entity: Entity) -> Sequence[int]:
        """Where the entity's anomalies stand among all, in order."""
        if self._odd is None:  # once a step: a burst has as many incidents as anomalies
            self._odd, self._all = _places(a.entity for a in self._anomalies), tuple(self._anomalies)
        return self._odd.get(entity, ())

    def subsided(self, entity: Entity, name: str) -> bool:
        """Whether all signals of the entity that are called this were reported in this step, within their bands, and no detector
        found one of them odd in it. False where nobody knows the band, or reported nothing."""
        mine = [s for s in (self._signals[k] for k in self._signals.places([entity]).tolist()) if s.name == name]
        here = (self._all[k] for k in self._places_of(entity))
        odd = any(a.at >= self._now and a.name.split("{", 1)[0] == name for a in here)
        return bool(mine) and not odd and all(self._usual(s) for s in mine)

    def _usual(self, signal: Signal) -> bool:
        times, values, expected, width = self._history.column(signal.id, self._now)
        if not len(times):
            return False
        lower, upper = signal.band(float(expected[-1]), float(width[-1]))
        return bool(lower <= values[-1] <= upper)

    def explained(self, incident: Incident) -> str:
        """Of two that explain each other, because they depend on each other, the later one is explained.

        It stays explained until the other incident is over: a pod that was moved away from a bad node was still its victim.
        """
        before = self._explained.get(incident.id)
        if before and before[0] in self._open:
            return " ".join(before)
        found = self._explanation(incident)
        self._explained.pop(incident.id, None)
        if found:
            self._explained[incident.id] = found
            while len(self._explained) > MOST_BELOW:
                self._explained.pop(next(iter(self._explained)))
        return " ".join(found)

    def _explanation(self, incident: Incident) -> tuple[str, ...]:
        mine = _cause(incident)
        below = self._below(mine)
        for other in (self.incidents[k] for k in sorted(k for e in below for k in self._caused.get(e, ()))):
            theirs = _cause(other)
            if other.id == incident.id or abs(other.opened_at - incident.opened_at) > TOGETHER_S:
                continue
            if mine not in self._below(theirs) or (other.opened_at, other.id) < (incident.opened_at, incident.id):
                return other.id, f"({theirs})"
        return ()

    def _below(self, entity: Entity) -> set[Entity]:
        """All that an entity depends on, through the service that it is part of: callees, their pods, nodes, GPUs. Bounded."""
        seen = {entity, *(o for o in self.graph.owners(entity) if entity.startswith("pod/"))}
        edge = list(seen)
        while edge and len(seen) < MOST_BELOW:
            edge = [t for e in edge for t, _ in self.graph.dependencies(e) if t not in seen]
            seen.update(edge)
        return seen - {entity}

    def risen(self, incident: Incident, target: Entity, since: float) -> list[Alert]:
        """Near the incident or the target, after that time; what fell silent may just have been replaced."""
        near = self._scope(incident) | {target, *self.graph.neighbours(target)}
        return [a for a in self.alerts if a.state == "firing" and a.since > since and a.entity in near and a.direction != "both"
                and set(a.detectors) != {"absence"}]

    def clear(self, incident: Incident) -> bool | None:
        """Whether nothing fires any more; None where that cannot be told: somebody fell silent, or is suppressed.

        Witnesses stay pending for ever and do not count.
        """
        if any(a.state == "firing" for a in incident.alerts):
            return False
        return None if any(a.silent or a.state == "suppressed" for a in incident.alerts) else True

    def _scope(self, incident: Incident) -> set[Entity]:
        return {n for e in incident.entities for n in (e, *self.graph.neighbours(e))}

    def _value(self, signal: Signal, incident: Incident) -> float | None:
        """What it added up to, or its last value unless that is stale: a pod that is gone has no memory in use."""
        times, values, _, _ = self._history.column(signal.id, incident.opened_at - LOOK_BACK_S)
        if not len(values):
            return None
        if signal.additive:
            return float(values.sum())
        return float(values[-1]) if self._now - times[-1] <= STALE_S else None


def _places(entities: Iterable[Entity]) -> Mapping[Entity, list[int]]:
    """Where in the row each entity stands."""
    found: defaultdict[Entity, list[int]] = defaultdict(list)
    for k, entity in enumerate(entities):
        found[entity].append(k)
    return found


def _cause(incident: Incident) -> Entity:
    return incident.causes[0].entity if incident.causes else incident.entities[0] if incident.entities else ""


@lru_cache(maxsize=256)
def _matcher(pattern: str) -> Callable[[str], bool]:
    try:
        compiled = re.compile(pattern)
    except re.error:
        return lambda text: pattern in text
    return lambda text: compiled.search(text) is not None
