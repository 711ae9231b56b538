"""Of whom nothing is learned, and why; and which alerts are kept from people, and why.

What was broken yesterday must not be normal today. An entity is held - scored, and not learned - while

- an incident is open on it and one of its own alerts there fires, or did until five minutes ago. After 24 hours it is
  learned again, with a note, once: after 7 days where a person said that the incident was useful, at once where one said
  that it was a false alarm, or where a detector announced the new level as the new normal;
- it, or what owns it, changed (a deploy) less than a minute ago;
- it, what owns it, or what it runs on is under maintenance.

An alert that fires on what is under maintenance, or at a level that a person called a false alarm, becomes `suppressed`
with the reason as its text: it raises nothing, and nothing is done about it. What was learned before a mask began stays
learned. No clock, no I/O: equal input gives equal masks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from aiops.accepted import Accepted
from aiops.maintenance import Calendar, Maintenance
from aiops.quantities import format_duration
from aiops.rows import Columns, columnar
from aiops.sensitivity import VERDICTS, Sensitivity
from aiops.types import Alert, Anomaly, Batch, Bools, Command, Entity, Incident, Signal
from correlators.graph import Graph

INCIDENT_S, CONFIRMED_S = 24 * 3600.0, 7 * 24 * 3600.0
QUIET_S = 300.0
AFTER_CHANGE_S = 60.0
"""Long enough for the dip of a restart; too short for a new level, which is meant, to add up to an alert."""
NEW_NORMAL = "new_normal"


@dataclass(frozen=True, slots=True)
class Hold:
    """Why nothing is learned from an entity, and since when."""

    reason: str
    since: float


class Masks:
    """`obey` and `learn` before the detectors of a step, `suppress` on its alerts, `watch` on its incidents.

    `held` says of whom nothing was learned in the last step; it is replaced, never changed. `notes` are those of the last
    step. `revision` rises when `state` has changed.
    """

    def __init__(self, windows: Sequence[Maintenance] = ()) -> None:
        self.calendar, self.accepted, self.sensitivity = Calendar(windows), Accepted(), Sensitivity()
        self.held: Mapping[Entity, Hold] = {}
        self.notes: list[str] = []
        self.revision = 0
        self._signals = columnar(())
        self._cover = _Cover()
        self._changed: dict[Entity, float] = {}
        self._open: list[Incident] = []
        self._verdicts: dict[str, str] = {}
        self._since: dict[tuple[str, Entity], float] = {}
        self._released: dict[tuple[str, Entity], None] = {}
        self._suppressed: set[str] = set()
        self.suppressed = 0

    # --------------------------------------------------------------------------------------------- before detection
    def obey(self, commands: Iterable[Command]) -> None:
        """What people said: windows of maintenance, and what an incident was worth."""
        self.notes = []
        for command in commands:
            self.notes += [note for note in [self.calendar.obey(command)] if note]
            if command.verb in VERDICTS:
                self._judge(command)
            self.revision += 1

    def learn(self, batch: Batch, signals: Sequence[Signal], graph: Graph) -> Bools:
        """bool[S]: what may be learned in this step. `held` tells the rest, and why."""
        now = batch.at
        self.sensitivity.graph = graph
        self._signals = columnar(signals)
        self._cover.update(self.calendar.active(now), graph, self._signals.entities.number)
        self._changed |= {e.entity: now for e in batch.events if e.kind == "change"}
        self._changed = {e: t for e, t in self._changed.items() if now - t < AFTER_CHANGE_S}
        self.held = {**self._of_incidents(now), **self._of_changes(graph), **self._cover.holds}
        may = np.ones(len(signals), np.bool_)
        may[self.columns(self.held)] = False
        return may

    def _judge(self, command: Command) -> None:
        """A fault that was given up as the new normal is held again once somebody says that it is one."""
        self._verdicts[command.target] = command.verb
        self._released = {key: None for key in self._released if key[0] != command.target}
        self.accepted.judge(command)
        self.sensitivity.judge(command)

    def maintained(self, entity: Entity) -> str:
        """Which maintenance an entity is under, with its end and reason; empty for none."""
        return self._cover.reason(entity)

    def columns(self, entities: Iterable[Entity]) -> Columns:
        """int64: the columns of these entities' signals, as of the last step."""
        return self._signals.places(entities)

    def renumber(self) -> None:
        """Columns have other numbers from the next step on."""
        self._signals, self._cover = columnar(()), _Cover()

    def _of_changes(self, graph: Graph) -> dict[Entity, Hold]:
        """Who was deployed, all that it owns by now (the pods of a rollout come after its event), and whom those serve."""
        held: dict[Entity, Hold] = {}
        for root, at in self._changed.items():
            below = list(closure([root], graph.owned))
            served = [owner for e in below[1:] for owner in graph.owners(e)]
            held |= {e: Hold(f"{root} changed", at) for e in (*below, *served)}
        return held

    def _of_incidents(self, now: float) -> dict[Entity, Hold]:
        speaking = [(i.id, e) for i in self._open for e in _speaking(i, now)]
        self._since = {key: self._since.get(key, now) for key in speaking}
        self._released = {key: None for key in self._released if key in self._since}
        held = {}
        for (incident, entity), since in self._since.items():
            if not self._over(incident, entity, now - since):
                held[entity] = Hold(f"incident {incident}", since)
        return held

    def _over(self, incident: str, entity: Entity, lasted: float) -> bool:
        """Whether this entity is learned although the incident is open. Tells when its time is up."""
        verdict = self._verdicts.get(incident)
        most = CONFIRMED_S if verdict == "useful" else INCIDENT_S
        if verdict == "false_alarm" or (incident, entity) in self._released:
            return True
        if lasted >= most:
            self._release(incident, entity, f"after {format_duration(most)}, although {incident} is open. If this is not the "
                          f"new normal, say so: aiops feedback {incident} --useful")
        return lasted >= most

    def _release(self, incident: str, entity: Entity, why: str) -> None:
        self._released[incident, entity] = None
        self.notes.append(f"{entity}: learned again {why}")

    # ---------------------------------------------------------------------------------------------- after detection
    def hear(self, anomalies: Iterable[Anomaly]) -> None:
        """A new normal that a detector announces is learned from the next step on."""
        for a in anomalies:
            if a.name == NEW_NORMAL and a.p_value == 1.0:
                for incident, entity in [k for k in self._since if k[1] == a.entity and k not in self._released]:
                    self._release(incident, entity, f"although {incident} is open: {a.text}")

    def suppress(self, now: float, alerts: Sequence[Alert]) -> tuple[Alert, ...]:
        """The alerts, those that must not raise anything as `suppressed` and with the reason in their text."""
        out = tuple(self._judged(now, a) for a in alerts)
        reasons = {a.key: a for a in out if a.state == "suppressed"}
        new = [reasons[key] for key in sorted(reasons.keys() - self._suppressed)]
        self.notes += [f"{a.entity}: {a.signal} is suppressed: {a.text}" for a in new]
        self.suppressed += len(new)
        self._suppressed = set(reasons)
        return out

    def _judged(self, now: float, a: Alert) -> Alert:
        if a.state != "firing":
            return a
        reason = self.maintained(a.entity) or self.accepted.reason(a, now)
        return replace(a, state="suppressed", text=f"{reason}; {a.text}" if a.text else reason) if reason else a

    def watch(self, incidents: Iterable[Incident]) -> None:
        """The incidents as they are after this step: those that are open hold their entities in the next one."""
        before = {i.id for i in self._open}
        self._open = [i for i in incidents if i.state == "open"]
        self.accepted.watch(self._open)
        self.sensitivity.watch(self._open)
        now_open = {i.id for i in self._open}
        self._verdicts = {k: v for k, v in self._verdicts.items() if k in now_open}
        self.revision += now_open != before

    # -------------------------------------------------------------------------------------------------------- state
    def state(self) -> dict[str, Any]:
        """What people said, as plain JSON. Incidents do not survive a restart, nor does what they hold."""
        return {"maintenance": self.calendar.state(), "accepted": self.accepted.state(), "sensitivity": self.sensitivity.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Raises KeyError, TypeError or ValueError for another form, and has changed nothing then."""
        accepted, sensitivity, calendar = Accepted(), Sensitivity(), Calendar(self.calendar.windows)
        accepted.restore(state["accepted"])
        calendar.restore(state["maintenance"])
        if "sensitivity" in state:  # versions before knew nothing of it
            sensitivity.restore(state["sensitivity"])
        self.accepted, self.sensitivity, self.calendar = accepted, sensitivity, calendar


class _Cover:
    """Whom the windows cover now: whom they name, all that those own, and all that runs on those."""

    def __init__(self) -> None:
        self.holds: dict[Entity, Hold] = {}
        self._active: list[tuple[Maintenance, Hold]] = []
        self._of: tuple[object, ...] = ()

    def update(self, active: Sequence[tuple[Maintenance, float, float]], graph: Graph, watched: Collection[Entity]) -> None:
        """Worked out anew when a window begins or ends, and when somebody came: pods come and go."""
        now = (tuple(active), graph, len(watched))
        if now == self._of:
            return
        self._of, self.holds = now, {}
        self._active = [(w, Hold(w.told(until), since)) for w, since, until in active]
        known = {*watched, *graph.entities()} if active else ()
        for window, hold in self._active:
            named = [e for e in known if window.matches(e)]
            covered = closure(named, lambda e: (*graph.owned(e), *graph.guests(e)))
            self.holds |= {e: hold for e in covered if e not in self.holds}

    def reason(self, entity: Entity) -> str:
        """Also for who is named and was never heard of before."""
        hold = self.holds.get(entity) or next((h for w, h in self._active if w.matches(entity)), None)
        return hold.reason if hold else ""


def closure(roots: Iterable[Entity], below: Callable[[Entity], Iterable[Entity]]) -> Iterator[Entity]:
    """The roots and everything below them, each once."""
    todo, seen = list(roots), set()
    while todo:
        entity = todo.pop()
        if entity not in seen:
            seen.add(entity)
            yield entity
            todo += below(entity)


def _speaking(incident: Incident, now: float) -> Iterator[Entity]:
    """Entities with an alert that fires, or was heard within five minutes (suppressed ones have their own reason)."""
    return iter(dict.fromkeys(a.entity for a in incident.alerts if a.state == "firing" or (
        a.state in ("pending", "resolved") and now - a.at < QUIET_S)))
