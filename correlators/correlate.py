"""Alerts in, incidents out: grouping, root cause and impact put together."""

from __future__ import annotations

from collections.abc import Sequence

from aiops import xids
from aiops.types import Alert, Entity, Event, Impact, Incident, Severity
from correlators.graph import Graph
from correlators.group import Group, Grouper
from correlators.impact import impact
from correlators.rootcause import rank

MAX_CHANGES = 1000
MAX_FAULTS = 1000
MAX_IMPACTS = 10_000


class Correlate:
    """Keeps the open groups; everything else is computed anew from them in each step."""

    def __init__(self, window_s: float = 300.0, distance: int = 2) -> None:
        self._grouper = Grouper(window_s, distance)
        self._changes: list[Event] = []
        self._faults: list[Event] = []
        self._last_at = 0.0
        self._impacts: dict[Entity, Impact] = {}
        self._graph: Graph | None = None

    @property
    def assigned(self) -> list[tuple[int, str]]:
        """Raw alert index -> incident, for the raw alerts of the last step."""
        return self._grouper.assigned

    @property
    def habitual(self) -> int:
        """How many alerts of others came and went without opening an incident, because they do so by habit."""
        return self._grouper.habitual

    def correlate(self, now: float, alerts: Sequence[Alert], graph: Graph, events: Sequence[Event]) -> list[Incident]:
        """Incidents that are open, or changed in this step, without actions and outcomes."""
        self._changes = [*self._changes, *(e for e in events if e.kind == "change")][-MAX_CHANGES:]
        self._faults = [*self._faults, *(e for e in events if xids.fault(e))][-MAX_FAULTS:]
        tick_s = now - self._last_at if self._last_at else 0.0
        self._last_at = now
        return [self._incident(now, g, graph, tick_s) for g in self._grouper.update(now, alerts, graph)]

    def _incident(self, now: float, group: Group, graph: Graph, tick_s: float) -> Incident:
        alerts = tuple(sorted(group.alerts.values(), key=lambda a: (a.since, a.key)))
        causes = rank(alerts, graph, self._changes, tick_s, self._faults)
        severity: Severity = "critical" if any(a.severity == "critical" for a in alerts) else "warning"
        return Incident(
            group.id, group.opened_at, now, "closed" if group.closed_at is not None else "open", severity,
            tuple(sorted(group.entities)), alerts, causes,
            self._impact(causes[0].entity, graph) if causes else Impact(), group.closed_at)

    def _impact(self, cause: Entity, graph: Graph) -> Impact:
        """As long as the topology is the same, so is who depends on an entity."""
        if graph is not self._graph or len(self._impacts) >= MAX_IMPACTS:
            self._graph, self._impacts = graph, {}
        if cause not in self._impacts:
            self._impacts[cause] = impact(cause, graph)
        return self._impacts[cause]
