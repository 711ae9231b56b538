"""What turns out later: that an alert goes on in another incident, that two incidents are one, or that one is two.

An alert of others that lasts through what an incident began with says little of that incident after a while, and it is the
first suspect of what begins next to it: it goes on there. docs/decisions/039.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence, Set
from typing import TYPE_CHECKING

from aiops.humanise import duration
from aiops.others import SENDER
from aiops.types import Alert, Entity
from correlators.graph import Graph

if TYPE_CHECKING:
    from correlators.group import Group, Grouper

LENT = 0.5
"""What a lasting alert adds to the evidence for the incident that begins next to it: it is odd, but it is not new."""
LINK_HOPS = 1
"""Two incidents are one where an alert is on somebody in both, or on somebody who needs, or is needed by, both directly."""


# ------------------------------------------------------------------------------------------------------- goes on there
def inherit(grouper: Grouper, now: float, graph: Graph, troubled: Set[Entity], held: Set[str]) -> None:
    """What has been on for longer than a window goes on in the incident that begins near it."""
    for group in list(grouper.groups.values()):
        young = group.closed_at is None and now - group.began <= 2 * grouper.window_s
        if not young or group.blind or len(group.asked) == len(group.entities) or group.evidence < 1.0 - LENT:
            continue
        lasting = sorted(_lasting(grouper, group, graph, troubled, held), key=lambda found: (found[1].since, found[1].key))
        lent = LENT * max((old.weight(alert.key) for old, alert in lasting), default=0.0)
        if group.raised or group.evidence + lent >= 1.0:
            if not group.raised:
                grouper.promote(now, group)
            group.asked = set(group.entities)
            for k, (old, alert) in enumerate(lasting):
                _move(grouper, now, old, group, alert)
                group.lend(alert.key, lent if k == 0 else 0.0)


def _lasting(grouper: Grouper, group: Group, graph: Graph, troubled: Set[Entity],
             held: Set[str]) -> Iterator[tuple[Group, Alert]]:
    """Alerts of others in older incidents, around whom was not asked yet."""
    for entity in sorted(graph.near_any(group.entities - group.asked, grouper.distance, troubled)):
        for old in grouper.of(entity):
            if old.raised and old.closed_at is None and old.id not in held and group.began - old.began > grouper.window_s:
                for alert in old.of(entity):
                    if SENDER in alert.detectors and group.began - alert.since > grouper.window_s:
                        yield old, alert


def _move(grouper: Grouper, now: float, old: Group, group: Group, alert: Alert) -> None:
    old.give_up(alert.key, group.id)
    grouper.join(now, group, alert)


# ----------------------------------------------------------------------------------------------------------------- one
def merge(grouper: Grouper, now: float, graph: Graph, fresh: Sequence[Alert]) -> list[Group]:
    """Incidents that an alert of this step shows to be one: the younger goes into the older. Those that are gone now."""
    gone: list[Group] = []
    for alert in sorted(fresh, key=lambda a: (a.since, a.key)):
        home = grouper.home(alert)
        linked = _linked(grouper, alert, home, graph) if home and home.raised and not home.blind else []
        for younger in linked[1:]:
            _merge(grouper, now, younger, linked[0], alert, {a.key for a in fresh})
            gone += [younger] if younger.opened_at < now else []
    return gone


def _linked(grouper: Grouper, alert: Alert, home: Group, graph: Graph) -> list[Group]:
    """The incident of an alert, and those that began at the same time and of which somebody who suffers is next to it; the oldest
    first."""
    near = graph.around(alert.entity, LINK_HOPS, ())
    found = {g.id: g for e in near for g in grouper.of(e) if e in g.suffering and _alike(g, home, alert, grouper)}
    return sorted([home, *found.values()], key=lambda g: (g.opened_at, g.id))


def _alike(group: Group, home: Group, alert: Alert, grouper: Grouper) -> bool:
    apart = (group.began - home.began, alert.since - group.began, alert.since - home.began)
    return group is not home and group.raised and not group.blind and group.closed_at is None \
        and not group.rested(alert, grouper.rest_s) and max(map(abs, apart)) <= grouper.window_s


def _merge(grouper: Grouper, now: float, younger: Group, into: Group, link: Alert, fresh: Set[str]) -> None:
    """fresh: what came in this step, of which the younger one has not been told."""
    mine = [a for a in younger.alerts.values() if grouper.home(a) is younger]
    grouper.forget(younger)
    for alert in mine:
        younger.give_up(alert.key, into.id)
        grouper.join(now, into, alert)
    younger.drop(fresh)
    grouper.assigned = [(index, into.id if name == younger.id else name) for index, name in grouper.assigned]
    younger.closed_at, younger.merged_into, younger.changed, into.changed = now, into.id, True, True
    why = f"{link.entity}: {link.signal} links them"
    younger.story.append(("merged", f"merged into {into.id}: {why}"))
    into.story.append(("merged", f"{younger.id} is part of this one: {why}"))


# ----------------------------------------------------------------------------------------------------------------- two
def split(grouper: Grouper, now: float, graph: Graph, troubled: Set[Entity], held: Set[str]) -> None:
    """What fires in an incident far from its oldest part, and began a window later, becomes another one."""
    for group in list(grouper.groups.values()):
        if group.raised and group.closed_at is None and group.changed and not group.blind and group.id not in held:
            for part in _apart(group, graph, grouper, troubled):
                _split(grouper, now, group, part)


def _apart(group: Group, graph: Graph, grouper: Grouper, troubled: Set[Entity]) -> Iterator[list[Alert]]:
    """The parts with which nothing connects the oldest one, each worth an incident by itself."""
    firing = {e: group.of(e) for e in sorted(group.suffering)}
    onsets = {e: min(a.since for a in alerts) for e, alerts in firing.items()}
    first = min(onsets.values(), default=0.0)
    if all(since - first <= grouper.window_s for since in onsets.values()):
        return
    for entities in graph.clusters(firing.keys(), grouper.distance, troubled):
        alerts = [a for e in entities for a in firing[e]]
        if min(onsets[e] for e in entities) - first > grouper.window_s and sum(group.weight(a.key) for a in alerts) >= 1.0:
            yield sorted(alerts, key=lambda a: (a.since, a.key))


def _split(grouper: Grouper, now: float, group: Group, part: Sequence[Alert]) -> None:
    other = grouper.open(now, part[0], False)
    for alert in part:
        weight = group.weight(alert.key)
        _move(grouper, now, group, other, alert)
        other.lend(alert.key, weight)
    grouper.promote(now, other)
    other.asked = set(other.entities)
    later = duration(part[0].since - group.began)
    group.story.append(("split", f"{_named(part)} goes on as {other.id}: it began {later} later, and nothing connects them"))
    other.story.append(("split", f"split from {group.id}: it began {later} later, and nothing connects them any more"))


def _named(part: Collection[Alert]) -> str:
    first, *more = sorted({a.entity for a in part})
    return f"{first} and {len(more)} more" if more else first
