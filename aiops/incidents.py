"""The book of incidents: what the correlator finds, joined with what was decided and what became of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from aiops import serial
from aiops.account import again
from aiops.types import Action, Cause, Command, Incident, Outcome, TimelineEntry
from correlators.priority import URGENT

MAX_TIMELINE = 200
FORGET_S = 3600.0
_ANSWERED = frozenset({"rejected", "refused"})
"""States of what was asked, and was turned down."""
_SAID = {"firing": ("alert", "deviates"), "pending": ("witness", "is new and uses a lot"),
         "resolved": ("recovered", "is back to normal"), "suppressed": ("suppressed", "is suppressed")}


class IncidentBook:
    """Open incidents, and closed ones for an hour (late outcomes still find them). `chain` hashes those that left."""

    def __init__(self) -> None:
        self._incidents: dict[str, Incident] = {}
        self._changed: set[str] = set()
        self._action_of: dict[str, str] = {}
        self.opened = 0
        self._urgent: set[str] = set()
        self._acted: set[str] = set()
        self.chain = ""

    @property
    def prioritised(self) -> int:
        """Incidents that deserve a person's attention: they were P1 or P2 at some time, or some policy had an answer."""
        return len(self._urgent | self._acted)

    @property
    def actionable(self) -> int:
        """Incidents for which some policy had an answer."""
        return len(self._acted)

    def open(self) -> list[Incident]:
        return [i for i in self._incidents.values() if i.state == "open"]

    def acted_in(self) -> set[str]:
        """Open incidents in which something was done, is asked, or was turned down: what comes of it is to be seen there."""
        return {i.id for i in self.open() if any(a.type != "Notify" and (a.decision in ("act", "ask") or a.state in _ANSWERED)
                                                 for a in i.actions)}

    def get(self, name: str) -> Incident | None:
        """One that is still in the book."""
        return self._incidents.get(name)

    def current(self) -> list[Incident]:
        """All that are still in the book, by id."""
        return [self._incidents[k] for k in sorted(self._incidents)]

    # ---------------------------------------------------------------------------------------------- from correlation
    def update(self, now: float, found: Sequence[Incident], models: Mapping[str, str] | None = None) -> list[Incident]:
        """Takes in this step's incidents; returns them with their history. models: detector -> id of its present model."""
        self._changed = set()
        for new in found:
            old = self._incidents.get(new.id)
            story = self._story(now, old, new)
            kept = replace(new, actions=old.actions, outcomes=old.outcomes, timeline=old.timeline) if old else \
                replace(new, timeline=())
            kept = replace(kept, causes=self._steady(old, kept), models=_found_by(now, old, new, models or {}))
            self._incidents[new.id] = self._told(kept, story)
            if old is None:
                self.opened += 1
            if new.priority.level in URGENT:
                self._urgent.add(new.id)
            if story:
                self._changed.add(new.id)
        self._forget(now)
        return [self._incidents[i.id] for i in found]

    @staticmethod
    def _steady(old: Incident | None, new: Incident) -> tuple[Cause, ...]:
        """After closing, the causes stay what they were while it was open."""
        return old.causes if old and new.state == "closed" and old.causes else new.causes

    @staticmethod
    def _story(now: float, old: Incident | None, new: Incident) -> list[TimelineEntry]:
        before = {a.key: a.state for a in old.alerts} if old else {}
        story = [TimelineEntry(now, "opened", f"opened: {new.title}")] if old is None else []
        for a in new.alerts:
            if before.get(a.key) != a.state:
                kind, verb = ("silent", "is no longer reported") if a.silent else _SAID[a.state]
                why = f": {a.text}" if a.state == "suppressed" else ""
                story.append(TimelineEntry(now, kind, f"{a.entity}: {a.signal} {verb}{why}"))
        story += new.timeline  # what the correlator has to say
        if old and old.causes and new.causes and old.causes[0].entity != new.causes[0].entity and new.state == "open":
            text = f"suspected cause is now {new.causes[0].entity}, before {old.causes[0].entity}"
            story.append(TimelineEntry(now, "cause", text))
        if old and old.priority.level != new.priority.level:
            now_is = new.priority
            best = max(now_is.reasons, key=lambda r: r.contribution, default=None)
            why = f": {best.text}" if best else ""
            story.append(TimelineEntry(now, "priority", f"priority is now {now_is.level}, before {old.priority.level}{why}"))
        if new.before.in_90d and not (old and old.before.in_90d):
            story.append(TimelineEntry(now, "seen", f"seen before: {again({'before': serial.recurrence(new.before)})}"))
        if old and old.state != new.state:
            verb = "closed" if new.state == "closed" else "reopened"
            story.append(TimelineEntry(now, verb, f"{verb}: {new.title}"))
        return story

    # ------------------------------------------------------------------------------------------------ from decisions
    def signed(self, actions: Sequence[Action]) -> tuple[Action, ...]:
        """Decisions with the models whose evidence they rest on."""
        return tuple(replace(a, models=i.models) if (i := self._incidents.get(a.incident)) else a for a in actions)

    def record(self, now: float, actions: Sequence[Action], outcomes: Sequence[Outcome],
               commands: Sequence[Command]) -> tuple[Incident, ...]:
        """Writes decisions, outcomes and what people said into the incidents; returns all that changed in this step."""
        for action in actions:
            self._put_action(action)
        for outcome in outcomes:
            self._put_outcome(outcome)
        for command in commands:
            if command.target in self._incidents:
                entry = TimelineEntry(now, "feedback", f"{command.verb.replace('_', ' ')} ({command.by or 'somebody'})")
                self._set(self._told(self._incidents[command.target], [entry]))
        return tuple(self._incidents[k] for k in sorted(self._changed) if k in self._incidents)

    def _put_action(self, action: Action) -> None:
        incident = self._incidents.get(action.incident)
        if incident is None:
            return
        others = tuple(a for a in incident.actions if a.id != action.id)
        entry = TimelineEntry(action.at, action.decision, f"{action.decision}: {action.type} {action.target}: {action.reason}")
        self._action_of[action.id] = incident.id
        if action.decision != "refused":
            self._acted.add(incident.id)
        self._set(self._told(replace(incident, actions=(*others, action)), [entry]))

    def _put_outcome(self, outcome: Outcome) -> None:
        incident = self._incidents.get(self._action_of.get(outcome.action, ""))
        if incident is None:
            return
        said = outcome.status.replace("_", " ")
        entry = TimelineEntry(outcome.at, outcome.status, f"{said}: {outcome.reason or outcome.action}")
        self._set(self._told(replace(incident, outcomes=(*incident.outcomes, outcome)), [entry]))

    def _set(self, incident: Incident) -> None:
        self._incidents[incident.id] = incident
        self._changed.add(incident.id)

    @staticmethod
    def _told(incident: Incident, story: Sequence[TimelineEntry]) -> Incident:
        """With more timeline; the beginning and the newest entries are kept when it grows too long."""
        if not story:
            return incident
        timeline = (*incident.timeline, *story)
        if len(timeline) > MAX_TIMELINE:
            timeline = (*timeline[:MAX_TIMELINE // 4], *timeline[-(3 * MAX_TIMELINE // 4):])
        return replace(incident, timeline=timeline)

    def digest(self) -> str:
        """SHA-256 over all incidents and decisions so far, figures at six significant digits."""
        chain = hashlib.sha256(self.chain.encode())
        for incident in self.current():
            chain.update(canonical(incident).encode())
        return chain.hexdigest()

    def _forget(self, now: float) -> None:
        for i in list(self._incidents.values()):
            if i.closed_at is not None and now - i.closed_at > FORGET_S:
                self.chain = hashlib.sha256((self.chain + canonical(i)).encode()).hexdigest()
                del self._incidents[i.id]
                self._action_of = {k: v for k, v in self._action_of.items() if v != i.id}


def _found_by(now: float, old: Incident | None, new: Incident, models: Mapping[str, str]) -> tuple[str, ...]:
    """Those who had a part in it before, and the present models of the detectors behind the alerts of this step."""
    names = {name for a in new.alerts if a.at == now for name in a.detectors}
    return tuple(sorted({*(old.models if old else ()), *(models[name] for name in names if name in models)}))


def canonical(incident: Incident) -> str:
    """One spelling of an incident, for digests."""
    return json.dumps(serial.rounded(serial.incident(replace(incident, updated_at=0.0))), sort_keys=True)
