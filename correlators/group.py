"""Alerts into incidents: close in time *and* close in the graph, or the same entity.

Default window 300 s, from the onset on, and distance 2 (DESIGN: correlation; docs/decisions/035). Quiet hubs do not glue. An
incident that closes and whose alerts come back within the window opens again under its old name: flapping is one incident.
What turns out later to be one, or two, or to go on in another: `correlators.regroup`.
"""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Sequence, Set
from dataclasses import dataclass, field, replace

from aiops.others import SENDER
from aiops.types import GOES_ON, Alert, Entity
from correlators import regroup
from correlators.graph import Graph
from correlators.nearest import nearest

WINDOW_S = 300.0
DISTANCE = 2
WITNESS_LATE_S = 15.0
CLOSE_AFTER_S = 60.0
CLOSE_AFTER_TICKS = 2
REST_S, REST_TICKS = 180.0, 3
"""What was well for so long is over: what deviates then is another incident, though it be the same signal."""
LASTING = frozenset({"memory", "disk"})
"""What was filled does not empty when the trouble ends: it does not keep the trouble of others in the same incident."""
MOST_RETURNS = 2
"""What comes back more often than so, each time within the window, is flapping, and stays one incident."""
MOST_WAITING = 10_000
"""So many raw alerts of what is no incident yet are remembered, the newest."""


def begins(alert: Alert) -> bool:
    """Whether it tells when trouble began: not of what lasts, nor by others, who repeat themselves."""
    return alert.resource not in LASTING and SENDER not in alert.detectors


@dataclass
class Group:
    """One incident in the making: its alerts by key, newest state of each.

    `began`: onset of the first. `raised`: it had enough evidence; until then it is no incident (`waiting`: its raw alerts).
    `blind`: alerts of others, about what the topology does not know. `odd_at`: the last deviation of what does not last.
    `returns`: how often an alert has come back by now, each time in another incident. `asked`: around whom lasting alerts were
    looked for. `story`: (kind, text) of what became of it in this step; `merged_into`: the incident that it is part of now, for
    good.
    """

    id: str
    opened_at: float
    began: float
    blind: bool = False
    returns: dict[str, int] = field(default_factory=dict)
    alerts: dict[str, Alert] = field(default_factory=dict)
    firing_at: float = 0.0
    odd_at: float = math.nan
    closed_at: float | None = None
    changed: bool = True
    raised: bool = False
    merged_into: str = ""
    asked: set[Entity] = field(default_factory=set)
    story: list[tuple[str, str]] = field(default_factory=list)
    waiting: deque[int] = field(default_factory=lambda: deque(maxlen=MOST_WAITING))

    _evidence: dict[str, float] = field(default_factory=dict)
    _fires: dict[Entity, set[str]] = field(default_factory=dict)
    _acts: set[str] = field(default_factory=set)
    _entities: set[Entity] = field(default_factory=set)

    @property
    def entities(self) -> Set[Entity]:
        return self._entities

    @property
    def firing(self) -> bool:
        return bool(self._fires)

    @property
    def evidence(self) -> float:
        """1 is enough for an incident. Where nothing says that alerts belong together, they do not add up."""
        return max(self._evidence.values(), default=0.0) if self.blind else sum(self._evidence.values())

    @property
    def suffering(self) -> Set[Entity]:
        """Who has alerts that fire."""
        return self._fires.keys()

    def of(self, entity: Entity) -> list[Alert]:
        """The alerts of an entity that fire. Sorted."""
        return [self.alerts[key] for key in sorted(self._fires.get(entity, ()))]

    def weight(self, key: str) -> float:
        """What one alert adds to the evidence."""
        return self._evidence.get(key, 0.0)

    def lend(self, key: str, weight: float) -> None:
        """Evidence that another incident had it for."""
        self._evidence[key] = weight

    def give_up(self, key: str, to: str) -> None:
        """An alert that goes on in another incident: here it neither fires any more nor is over."""
        alert = self.alerts[key]
        self._silence(alert)
        self.alerts[key] = replace(alert, state="suppressed", text=f"{GOES_ON}{to}")
        self.changed = True

    def drop(self, keys: Set[str]) -> None:
        """As if it had never had these alerts."""
        self.alerts = {key: a for key, a in self.alerts.items() if key not in keys}
        self._entities = {a.entity for a in self.alerts.values()}

    def knows(self, alert: Alert) -> bool:
        """It is the alert that the group has. One of others that was not repeated for long enough is over for good."""
        old = self.alerts[alert.key]
        return old.state == "firing" or not (old.silent and SENDER in old.detectors)

    def open_until(self, rest_s: float) -> float:
        """Trouble that begins later is another incident's: all has been well for so long, or all but what lasts. When those of
        others deviated last is not known."""
        unknown = math.isnan(self.odd_at)
        if self.firing if unknown else self._acts:
            return math.inf
        return (self.firing_at if unknown else self.odd_at) + rest_s

    def rested(self, alert: Alert, rest_s: float) -> bool:
        """Whether the alert is trouble that began after all was well."""
        return begins(alert) and alert.since >= self.open_until(rest_s)

    def takes(self, alert: Alert, other: Entity, window_s: float, rest_s: float) -> bool:
        """Whether an alert may join for the sake of another entity near it: at the onset, while that one still suffers.

        On the same entity at any time; where all is over, what was in it may be flapping.
        """
        if self.rested(alert, rest_s):
            return False
        if self.closed_at is not None:
            return alert.entity in self._entities and SENDER not in alert.detectors
        return other in self._fires and (abs(alert.since - self.began) <= window_s or alert.entity == other)

    def take(self, now: float, alert: Alert) -> None:
        """The newest state of an alert, which began when it was first told of."""
        old = self.alerts.get(alert.key)
        self.changed = self.changed or old is None or old.state != alert.state
        self.alerts[alert.key] = replace(alert, since=old.since) if old and old.since < alert.since else alert
        self._entities.add(alert.entity)
        if alert.state == "firing":
            self._evidence[alert.key] = max(alert.opens, self._evidence.get(alert.key, 0.0))
            self._fires.setdefault(alert.entity, set()).add(alert.key)
            if alert.resource not in LASTING:
                self._acts.add(alert.key)
                self.odd_at = max(now if math.isnan(alert.odd_at) else alert.odd_at, self.odd_at)
            self.firing_at, self.changed = now, self.changed or self.closed_at is not None
            self.closed_at = None
        else:
            self._silence(alert)

    def _silence(self, alert: Alert) -> None:
        if alert.entity in self._fires:
            self._fires[alert.entity].discard(alert.key)
            self._acts.discard(alert.key)
            if not self._fires[alert.entity]:
                del self._fires[alert.entity]


class Grouper:
    """Keeps open groups, and closed ones for one window. Each alert key belongs to at most one of them."""

    def __init__(self, window_s: float = WINDOW_S, distance: int = DISTANCE) -> None:
        self.window_s, self.distance = window_s, distance
        self.groups: dict[str, Group] = {}
        self._of: dict[str, str] = {}
        self._with: dict[Entity, dict[str, None]] = {}
        self.assigned: list[tuple[int, str]] = []
        self._last_at: float | None = None
        self.rest_s = REST_S
        self._returns: dict[str, int] = {}
        self.habitual = 0

    def __contains__(self, key: str) -> bool:
        """Whether the alert belongs to an incident."""
        return key in self._of

    def update(self, now: float, alerts: Sequence[Alert], graph: Graph, held: Set[str] = frozenset()) -> list[Group]:
        """All groups that are open or changed in this step, oldest first. held: incidents of which nothing is to be taken."""
        self.assigned, self._returns = [], {}
        self.rest_s = max(REST_S, REST_TICKS * (now - self._last_at if self._last_at is not None else 0.0))
        for group in self.groups.values():
            group.changed, group.story = False, []
        troubled = {a.entity for a in alerts if a.state == "firing"}
        told = sorted((a for a in alerts if a.state != "pending"), key=lambda a: (a.since, a.key))
        for alert in told:
            if home := self.home(alert):
                returns = home.returns.get(alert.key, 0)
                again = alert.state == "firing" and returns < MOST_RETURNS and home.rested(alert, self.rest_s)
                if home.knows(alert) and not again:
                    self.join(now, home, alert)
                else:
                    del self._of[alert.key]
                    self._returns[alert.key] = returns + again
        fresh: dict[Entity, list[Alert]] = {}
        for alert in told:
            if alert.state == "firing" and self.home(alert) is None:
                fresh.setdefault(alert.entity, []).append(alert)
        blind = {e for e in fresh if e not in graph and all(SENDER in a.detectors for a in fresh[e])}
        for cluster in (sorted(blind), *graph.clusters(fresh.keys() - blind, self.distance, troubled)):
            if cluster:
                self._place(now, [a for e in cluster for a in fresh[e]], graph, troubled, cluster[0] in blind)
        regroup.inherit(self, now, graph, troubled, held)
        self._raise(now, told)
        gone = regroup.merge(self, now, graph, [alert for found in fresh.values() for alert in found])
        regroup.split(self, now, graph, troubled, held)
        for alert in alerts:
            if alert.state == "pending":
                self._witness(now, alert, graph)
        self._close(now)
        self._last_at = now
        return gone + [g for g in self.groups.values() if g.raised and (g.changed or g.closed_at is None)]

    def _raise(self, now: float, told: Sequence[Alert]) -> None:
        """What has enough evidence becomes an incident, with all of its raw alerts, under the name that it has from now on."""
        for home, alert in [(home, a) for a in told if (home := self.home(a))]:
            if not home.raised and home.evidence >= 1.0:
                self.promote(now, home)
            if home.raised:
                self.assigned += [(index, home.id) for index in alert.indexes]
            else:
                home.waiting.extend(alert.indexes)

    def _place(self, now: float, alerts: Sequence[Alert], graph: Graph, troubled: set[Entity], blind: bool) -> None:
        """Alerts that began together and near each other go together: into the open incident nearest to one of them."""
        first = min(alerts, key=lambda a: (a.since, a.key))
        group = self._nearest(alerts, graph, troubled) or (self._blind(first.since) if blind else None)
        group = group or self.open(now, first, blind)
        for alert in alerts:
            self.join(now, group, alert)
        group.returns.update((a.key, self._returns[a.key]) for a in alerts if a.key in self._returns)

    def _witness(self, now: float, alert: Alert, graph: Graph) -> None:
        """Evidence too weak to raise anything joins the incident of a host that lacks the very resource it is about.

        Who came after the trouble began has not made it.
        """
        for group in self.groups.values():
            short = {a.entity for a in group.alerts.values() if a.state == "firing" and a.resource == alert.resource
                     and alert.since <= a.since + WITNESS_LATE_S}
            if group.closed_at is None and any(alert.entity in graph.guests(host) for host in short):
                self.join(now, group, alert)
                return

    def home(self, alert: Alert) -> Group | None:
        """The group that it is in."""
        return self.groups.get(self._of.get(alert.key, ""))

    def of(self, entity: Entity) -> list[Group]:
        """The groups that it is in."""
        return [self.groups[name] for name in self._with.get(entity, ())]

    def _nearest(self, alerts: Sequence[Alert], graph: Graph, troubled: set[Entity]) -> Group | None:
        return nearest(self, alerts, graph, troubled, self.rest_s, begins)

    def _blind(self, since: float) -> Group | None:
        """The open group, of what the topology does not know, that began at the same time: time is all that is known."""
        return next((g for g in reversed(self.groups.values())
                     if g.blind and g.closed_at is None and abs(since - g.began) <= self.window_s), None)

    def open(self, now: float, alert: Alert, blind: bool) -> Group:
        name = _name(now, alert.key)
        group = self.groups[name] = Group(name, now, alert.since, blind)
        return group

    def join(self, now: float, group: Group, alert: Alert) -> None:
        group.take(now, alert)
        self._of[alert.key] = group.id
        self._with.setdefault(alert.entity, {})[group.id] = None

    def _close(self, now: float) -> None:
        tick = now - self._last_at if self._last_at is not None else 0.0
        for group in list(self.groups.values()):
            if group.closed_at is None and not group.firing and \
                    now - group.firing_at >= max(CLOSE_AFTER_S, CLOSE_AFTER_TICKS * tick):
                group.closed_at, group.changed = now, True
                self.habitual += 0 if group.raised else len(group.alerts)
            elif group.closed_at is not None and now - group.closed_at > self.window_s:
                self.forget(group)

    def promote(self, now: float, group: Group) -> None:
        """It is an incident from now on, and has its name by that and by its first alert."""
        group.raised, group.opened_at = True, now
        del self.groups[group.id]
        for entity in group.entities:
            del self._with[entity][group.id]
        group.id = _name(now, next(iter(group.alerts)))
        self.groups[group.id] = group
        self._of.update(dict.fromkeys(group.alerts, group.id))
        for entity in group.entities:
            self._with[entity][group.id] = None
        self.assigned += [(index, group.id) for index in group.waiting]
        group.waiting.clear()

    def forget(self, group: Group) -> None:
        """It is no group any more."""
        del self.groups[group.id]
        for key in group.alerts:
            if self._of.get(key) == group.id:
                del self._of[key]
        for entity in group.entities:
            self._with[entity].pop(group.id, None)
            if not self._with[entity]:
                del self._with[entity]


def _name(now: float, key: str) -> str:
    return "inc-" + hashlib.sha256(f"{now:.3f}|{key}".encode()).hexdigest()[:10]
