"""The memory of incidents: whether this one was here before, what was done then, and whether that helped.

Event time only. Bounded: the newest MAX_INCIDENTS of 90 days, MAX_OF_A_CAUSE of each class of cause.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from aiops.models import ephemeral
from aiops.sensitivity import VERDICTS, class_of
from aiops.signature import Signature, signature
from aiops.types import Command, Entity, Incident, Recurrence, Seen
from correlators.graph import Graph

KEEP_S, WEEK_S = 90 * 86_400.0, 7 * 86_400.0
MAX_INCIDENTS, MAX_OF_A_CAUSE, MAX_SHOWN, MAX_DONE = 2000, 50, 3, 5
DONE = frozenset({"helped", "no_help", "worse", "failed", "unknown", "undone", "done"})
"""Statuses of an action that was carried out, or was tried."""


@dataclass(frozen=True, slots=True)
class Past:
    """What is kept of an incident that is over."""

    signature: Signature
    seen: Seen


class IncidentMemory:
    """Remembers incidents as they close, and what is said of them later. `revision` rises with each change."""

    def __init__(self) -> None:
        self._past: dict[str, Past] = {}
        self._of: dict[str, list[str]] = {}
        self._open: dict[str, tuple[Entity, str]] = {}
        self.revision = 0

    def learn(self, now: float, changed: Iterable[Incident], commands: Iterable[Command], graph: Graph) -> None:
        """Of the incidents that changed those that are over, and what people said in this step."""
        for incident in changed:
            if incident.merged_into:  # it is remembered as what it is part of
                self._open.pop(incident.id, None)
            elif incident.state == "closed" and incident.causes:
                self._put(incident, graph)
        for command in commands:
            past = self._past.get(command.target)
            if past is not None and command.verb in VERDICTS:
                self._past[command.target] = replace(past, seen=replace(past.seen, verdict=command.verb))
                self.revision += 1
        self._expire(now)

    def of(self, incident: Incident, graph: Graph) -> Recurrence:
        """When the same happened before this incident, which is open, did."""
        if not incident.causes:
            return Recurrence()
        group = self._group(incident, graph)
        if group not in self._of:
            return Recurrence()
        mine = signature(incident.causes[0].entity, group, incident.alerts)
        found = [p.seen for name in self._of[group] if (p := self._past[name]).seen.at < incident.opened_at
                 and name != incident.id and p.signature.same(mine)]
        newest = sorted(found, key=lambda s: (-s.at, s.incident))
        in_7d = sum(incident.opened_at - s.at <= WEEK_S for s in found)
        return Recurrence(in_7d, len(found), tuple(newest[:MAX_SHOWN]))

    def _group(self, incident: Incident, graph: Graph) -> str:
        """As it was when the cause came under suspicion: a pod that was replaced since has no owner any more."""
        cause, known = incident.causes[0].entity, self._open.get(incident.id)
        if known is None or known[0] != cause:
            known = self._open[incident.id] = cause, group_of(cause, graph)
        return known[1]

    def _put(self, incident: Incident, graph: Graph) -> None:
        """Once more, when something came back of what was done: the signature stays."""
        old, group = self._past.get(incident.id), self._group(incident, graph)
        mine = old.signature if old else signature(incident.causes[0].entity, group, incident.alerts)
        del self._open[incident.id]
        over = incident.closed_at or incident.updated_at
        self._keep(Past(mine, Seen(incident.id, incident.opened_at, over - incident.opened_at, _done(incident),
                                   old.seen.verdict if old else "")))

    def _keep(self, past: Past) -> None:
        name = past.seen.incident
        if name not in self._past:
            of = self._of.setdefault(past.signature.cause, [])
            of.append(name)
            if len(of) > MAX_OF_A_CAUSE:
                del self._past[of.pop(0)]
        self._past[name] = past
        self.revision += 1

    def _expire(self, now: float) -> None:
        """The oldest go first: they were put in as they closed."""
        gone = []
        for k, (name, past) in enumerate(self._past.items()):
            if now - past.seen.at <= KEEP_S and len(self._past) - k <= MAX_INCIDENTS:
                break
            gone.append(name)
        for name in gone:
            of = self._of[self._past.pop(name).signature.cause]
            of.remove(name)
        if gone:
            self._of = {cause: names for cause, names in self._of.items() if names}
            self.revision += 1

    # ------------------------------------------------------------------------------------------------ over a restart
    def state(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"incidents": [{"incident": p.seen.incident, "at": p.seen.at, "lasted_s": p.seen.lasted_s, "done": p.seen.done,
                               "verdict": p.seen.verdict, "class": p.signature.cause, "own": p.signature.own,
                               "all": p.signature.all} for p in self._past.values()]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Into one that remembers nothing. Raises KeyError, TypeError or ValueError for another form."""
        for row in state["incidents"]:
            mine = Signature(str(row["class"]), tuple(map(str, row["own"])), tuple(map(str, row["all"])))
            done = tuple((str(kind), str(status)) for kind, status in row["done"])
            self._keep(Past(mine, Seen(str(row["incident"]), float(row["at"]), float(row["lasted_s"]), done,
                                       str(row["verdict"]))))


def group_of(entity: Entity, graph: Graph) -> str:
    """The class of what comes and goes (`aiops.sensitivity.class_of`); a machine or a service is itself."""
    return class_of(entity, graph) if ephemeral(entity) else entity


def _done(incident: Incident) -> tuple[tuple[str, str], ...]:
    """(type, status) of what was carried out, in the order of time, and how each ended."""
    ended: dict[str, str] = {}
    for o in sorted(incident.outcomes, key=lambda o: o.at):
        if o.status in DONE and (o.status != "undone" or o.action not in ended):
            ended[o.action] = o.status
    actions: Sequence[tuple[str, str]] = [(a.type, ended[a.id]) for a in sorted(incident.actions, key=lambda a: (a.at, a.id))
                                          if a.id in ended and a.type != "Notify"]
    return tuple(actions[-MAX_DONE:])
