"""Alerts into incidents: close in time *and* close in the graph, or the same entity.

Default window 300 s and distance 2 (DESIGN: correlation). Quiet hubs do not glue. An incident that closes and whose
alerts come back within the window opens again under its old name: flapping is one incident.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
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

    @property
    def entities(self) -> set[Entity]:
        return {a.entity for a in self.alerts.values()}

    @property
    def suffering(self) -> set[Entity]:
        """Entities with an alert that still fires; all of them once none does."""
        return {a.entity for a in self.alerts.values() if a.state == "firing"} or self.entities

    @property
    def firing(self) -> bool:
        return any(a.state == "firing" for a in self.alerts.values())


class Grouper:
    """Keeps open groups, and closed ones for one window. Each alert key belongs to at most one of them."""

    def __init__(self, window_s: float = WINDOW_S, distance: int = DISTANCE) -> None:
        self._window_s, self._distance = window_s, distance
        self.groups: dict[str, Group] = {}
        self._of: dict[str, str] = {}
        self.assigned: list[tuple[int, str]] = []
        self._last_at: float | None = None

    def update(self, now: float, alerts: Sequence[Alert], graph: Graph) -> list[Group]:
        """All groups that are open or changed in this step, oldest first."""
        self.assigned = []
        for group in self.groups.values():
            group.changed = False
        troubled = {a.entity for a in alerts if a.state == "firing"}
        for alert in sorted(alerts, key=lambda a: (a.since, a.key)):
            if alert.state != "pending":
                self._place(now, alert, graph, troubled)
        for alert in alerts:
            if alert.state == "pending":
                self._witness(now, alert, graph)
        self._close(now)
        self._last_at = now
        return [g for g in self.groups.values() if g.changed or g.closed_at is None]

    def _place(self, now: float, alert: Alert, graph: Graph, troubled: set[Entity]) -> None:
        group = self._home(alert)
        if group is None and alert.state != "firing":
            return
        if group is None:
            group = self._nearest(now, alert, graph, troubled) or self._open(now, alert)
        self._join(now, group, alert)
        self.assigned += [(index, group.id) for index in alert.indexes]

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

    def _nearest(self, now: float, alert: Alert, graph: Graph, troubled: set[Entity]) -> Group | None:
        """The open group closest in the graph, then in time; a closed one only for an entity that was already in it."""
        best: tuple[int, float, str] | None = None
        for group in self.groups.values():
            if group.closed_at is not None and alert.entity not in group.entities:
                continue
            apart_s = max(0.0, group.opened_at - alert.since, alert.since - group.grown_at)
            if apart_s > self._window_s and alert.entity not in group.entities:
                continue
            hops = self._hops(alert.entity, group, graph, troubled)
            if hops is not None:
                best = min(best or (hops, apart_s, group.id), (hops, apart_s, group.id))
        return self.groups[best[2]] if best else None

    def _hops(self, entity: Entity, group: Group, graph: Graph, troubled: set[Entity]) -> int | None:
        near = (graph.distance(entity, other, self._distance, troubled) for other in sorted(group.suffering))
        return min((d for d in near if d is not None), default=None)

    def _open(self, now: float, alert: Alert) -> Group:
        name = hashlib.sha256(f"{now:.3f}|{alert.key}".encode()).hexdigest()[:10]
        group = self.groups[name] = Group(f"inc-{name}", now)
        self.groups[group.id] = self.groups.pop(name)
        return group

    def _join(self, now: float, group: Group, alert: Alert) -> None:
        old = group.alerts.get(alert.key)
        if old is None or old.state != alert.state:
            group.changed = True
            if old is None:
                group.grown_at = now
        group.alerts[alert.key] = replace(alert, since=min(alert.since, old.since)) if old else alert
        self._of[alert.key] = group.id
        if alert.state == "firing":
            group.firing_at = now
            if group.closed_at is not None:
                group.closed_at, group.changed = None, True

    def _close(self, now: float) -> None:
        tick = now - self._last_at if self._last_at is not None else 0.0
        for group in list(self.groups.values()):
            if group.closed_at is None and not group.firing and \
                    now - group.firing_at >= max(CLOSE_AFTER_S, CLOSE_AFTER_TICKS * tick):
                group.closed_at, group.changed = now, True
            elif group.closed_at is not None and now - group.closed_at > self._window_s:
                del self.groups[group.id]
                self._of = {k: v for k, v in self._of.items() if v != group.id}
