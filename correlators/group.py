"""Alerts into incidents: close in time *and* close in the graph, or the same entity.

Default window 300 s and distance 2 (DESIGN: correlation). Quiet hubs do not glue. An incident that closes and whose
alerts come back within the window opens again under its old name: flapping is one incident.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence, Set
from dataclasses import dataclass, field, replace

from aiops.types import Alert, Entity
from correlators.graph import Graph

WINDOW_S = 300.0
DISTANCE = 2
WITNESS_LATE_S = 15.0
CLOSE_AFTER_S = 60.0
CLOSE_AFTER_TICKS = 2


@dataclass
class Group:
    """One incident in the making: its alerts by key, newest state of each."""

    id: str
    opened_at: float
    alerts: dict[str, Alert] = field(default_factory=dict)
    grown_at: float = 0.0
    firing_at: float = 0.0
    closed_at: float | None = None
    changed: bool = True

    _fires: dict[Entity, set[str]] = field(default_factory=dict)
    _entities: set[Entity] = field(default_factory=set)

    @property
    def entities(self) -> Set[Entity]:
        return self._entities

    @property
    def firing(self) -> bool:
        return bool(self._fires)

    def suffers(self, entity: Entity) -> bool:
        """An alert on the entity still fires; once none does at all, one did."""
        return entity in (self._fires or self._entities)

    def take(self, now: float, alert: Alert) -> None:
        """The newest state of an alert, which began when it was first told of."""
        old = self.alerts.get(alert.key)
        if old is None:
            self.grown_at = now
        self.changed = self.changed or old is None or old.state != alert.state
        self.alerts[alert.key] = replace(alert, since=min(alert.since, old.since)) if old else alert
        self._entities.add(alert.entity)
        if alert.state == "firing":
            self._fires.setdefault(alert.entity, set()).add(alert.key)
            self.firing_at, self.changed = now, self.changed or self.closed_at is not None
            self.closed_at = None
        elif alert.entity in self._fires:
            self._fires[alert.entity].discard(alert.key)
            if not self._fires[alert.entity]:
                del self._fires[alert.entity]


class Grouper:
    """Keeps open groups, and closed ones for one window. Each alert key belongs to at most one of them."""

    def __init__(self, window_s: float = WINDOW_S, distance: int = DISTANCE) -> None:
        self._window_s, self._distance = window_s, distance
        self.groups: dict[str, Group] = {}
        self._of: dict[str, str] = {}
        self._with: dict[Entity, dict[str, None]] = {}
        self.assigned: list[tuple[int, str]] = []
        self._last_at: float | None = None

    def __contains__(self, key: str) -> bool:
        """Whether the alert belongs to an incident."""
        return key in self._of

    def update(self, now: float, alerts: Sequence[Alert], graph: Graph) -> list[Group]:
        """All groups that are open or changed in this step, oldest first."""
        self.assigned = []
        for group in self.groups.values():
            group.changed = False
        troubled = {a.entity for a in alerts if a.state == "firing"}
        told = sorted((a for a in alerts if a.state != "pending"), key=lambda a: (a.since, a.key))
        for alert in told:
            if home := self._home(alert):
                self._join(now, home, alert)
        fresh: dict[Entity, list[Alert]] = {}
        for alert in told:
            if alert.state == "firing" and self._home(alert) is None:
                fresh.setdefault(alert.entity, []).append(alert)
        for cluster in graph.clusters(fresh, self._distance, troubled):
            self._place(now, [a for e in cluster for a in fresh[e]], graph, troubled)
        self.assigned = [(index, home.id) for a in told if (home := self._home(a)) for index in a.indexes]
        for alert in alerts:
            if alert.state == "pending":
                self._witness(now, alert, graph)
        self._close(now)
        self._last_at = now
        return [g for g in self.groups.values() if g.changed or g.closed_at is None]

    def _place(self, now: float, alerts: Sequence[Alert], graph: Graph, troubled: set[Entity]) -> None:
        """Alerts that began together and near each other go together: into the open incident nearest to one of them."""
        first = min(alerts, key=lambda a: (a.since, a.key))
        group = self._nearest(alerts, graph, troubled) or self._open(now, first)
        for alert in alerts:
            self._join(now, group, alert)

    def _witness(self, now: float, alert: Alert, graph: Graph) -> None:
        """Evidence too weak to raise anything joins the incident of a host that lacks the very resource it is about.

        Who came after the trouble began has not made it.
        """
        for group in self.groups.values():
            short = {a.entity for a in group.alerts.values() if a.state == "firing" and a.resource == alert.resource
                     and alert.since <= a.since + WITNESS_LATE_S}
            if group.closed_at is None and any(alert.entity in graph.guests(host) for host in short):
                self._join(now, group, alert)
                return

    def _home(self, alert: Alert) -> Group | None:
        return self.groups.get(self._of.get(alert.key, ""))

    def _nearest(self, alerts: Sequence[Alert], graph: Graph, troubled: set[Entity]) -> Group | None:
        """The open group closest in the graph, then in time; a closed one only for an entity that was already in it."""
        found: list[tuple[int, float, str]] = []
        for entity in sorted({a.entity for a in alerts}):
            since = min(a.since for a in alerts if a.entity == entity)
            for other, hops in graph.around(entity, self._distance, troubled).items():
                for name in self._with.get(other, ()):
                    group = self.groups[name]
                    apart_s = max(0.0, group.opened_at - since, since - group.grown_at)
                    near = group.closed_at is None and apart_s <= self._window_s
                    if group.suffers(other) and (near or entity in group.entities):
                        found.append((hops, apart_s, name))
        return self.groups[min(found)[2]] if found else None

    def _open(self, now: float, alert: Alert) -> Group:
        name = hashlib.sha256(f"{now:.3f}|{alert.key}".encode()).hexdigest()[:10]
        group = self.groups[name] = Group(f"inc-{name}", now)
        self.groups[group.id] = self.groups.pop(name)
        return group

    def _join(self, now: float, group: Group, alert: Alert) -> None:
        group.take(now, alert)
        self._of[alert.key] = group.id
        self._with.setdefault(alert.entity, {})[group.id] = None

    def _close(self, now: float) -> None:
        tick = now - self._last_at if self._last_at is not None else 0.0
        for group in list(self.groups.values()):
            if group.closed_at is None and not group.firing and \
                    now - group.firing_at >= max(CLOSE_AFTER_S, CLOSE_AFTER_TICKS * tick):
                group.closed_at, group.changed = now, True
            elif group.closed_at is not None and now - group.closed_at > self._window_s:
                self._forget(group)

    def _forget(self, group: Group) -> None:
        del self.groups[group.id]
        for key in group.alerts:
            if self._of.get(key) == group.id:
                del self._of[key]
        for entity in group.entities:
            self._with[entity].pop(group.id, None)
            if not self._with[entity]:
                del self._with[entity]
