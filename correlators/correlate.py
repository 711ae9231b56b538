"""Alerts in, incidents out: grouping, root cause and impact put together."""

from __future__ import annotations

from collections.abc import Sequence, Set

from aiops import xids
from aiops.rows import columnar
from aiops.types import Alert, Anomaly, Entity, Event, Impact, Incident, Severity, Signal, TimelineEntry
from correlators.graph import Graph
from correlators.group import Group, Grouper
from correlators.impact import impact
from correlators.rootcause import rank
from correlators.testimony import Murmurs

MAX_CHANGES = 1000
MAX_FAULTS = 1000
MAX_IMPACTS = 10_000
AROUND_S, AROUND_TICKS = 60.0, 2.0
"""Weak evidence counts that began so shortly before or after an incident did: what is older or later has another story."""


class Correlate:
    """Keeps the open groups; everything else is computed anew from them in each step."""

    def __init__(self, window_s: float = 300.0, distance: int = 2) -> None:
        self._grouper = Grouper(window_s, distance)
        self._changes: list[Event] = []
        self._faults: list[Event] = []
        self._murmurs = Murmurs()
        self._signals = columnar(())
        self._weak: dict[str, dict[str, Alert]] = {}
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

    def hear(self, now: float, anomalies: Sequence[Anomaly], signals: Sequence[Signal]) -> None:
        """What detectors found odd in this step; before `correlate`."""
        self._murmurs.hear(now, anomalies, signals)
        self._signals = columnar(signals)

    def correlate(self, now: float, alerts: Sequence[Alert], graph: Graph, events: Sequence[Event],
                  held: Set[str] = frozenset()) -> list[Incident]:
        """Incidents that are open, or changed in this step, without actions and outcomes. held: those of which nothing may be
        taken away."""
        self._changes = [*self._changes, *(e for e in events if e.kind == "change")][-MAX_CHANGES:]
        self._faults = [*self._faults, *(e for e in events if xids.fault(e))][-MAX_FAULTS:]
        tick_s = now - self._last_at if self._last_at else 0.0
        self._last_at = now
        groups = self._grouper.update(now, alerts, graph, held)
        self._weak = {k: v for k, v in self._weak.items() if k in self._grouper.groups}
        return [self._incident(now, g, graph, tick_s) for g in groups]

    def _incident(self, now: float, group: Group, graph: Graph, tick_s: float) -> Incident:
        alerts = tuple(sorted(group.alerts.values(), key=lambda a: (a.since, a.key)))
        weak = self._listen(now, group, graph, tick_s)
        causes = rank(alerts, graph, self._changes, tick_s, self._faults, weak, self._tells)
        severity: Severity = "critical" if any(a.severity == "critical" for a in alerts) else "warning"
        return Incident(
            group.id, group.opened_at, now, "closed" if group.closed_at is not None else "open", severity,
            tuple(sorted(group.entities)), alerts, causes,
            self._impact(causes[0].entity, graph) if causes else Impact(), group.closed_at,
            timeline=tuple(TimelineEntry(now, kind, text) for kind, text in group.story), merged_into=group.merged_into)

    def _impact(self, cause: Entity, graph: Graph) -> Impact:
        """As long as the topology is the same, so is who depends on an entity."""
        if graph is not self._graph or len(self._impacts) >= MAX_IMPACTS:
            self._graph, self._impacts = graph, {}
        if cause not in self._impacts:
            self._impacts[cause] = impact(cause, graph)
        return self._impacts[cause]

    def _tells(self, entity: Entity) -> bool:
        """Whether errors of the entity are measured."""
        return any(self._signals[k].resource == "errors" for k in self._signals.places([entity]).tolist())

    def _listen(self, now: float, group: Group, graph: Graph, tick_s: float) -> list[Alert]:
        """Weak evidence from around the beginning of the incident. What is alert of another incident speaks there."""
        heard, around_s = self._weak.setdefault(group.id, {}), max(AROUND_S, AROUND_TICKS * tick_s)
        if now - group.opened_at <= around_s:
            began = min(a.since for a in group.alerts.values())
            found = self._murmurs.below(group.entities, graph, began - around_s)
            heard.update((a.key, a) for a in found if a.key not in self._grouper)
        return [heard[k] for k in sorted(heard)]
