"""What goes from one replica to the next, and over a restart: who judges an action when the one that decided it is gone.

Every replica sees the same fault in incidents of its own. What another decided is taken in with a sketch of its incident; as
soon as one of ours has the alert that asked for it, the attempt is ours: judged by what we see, put back, and counted, once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from aiops.interfaces import NOT_NOW
from aiops.policy.ledger import FRUITLESS, JUDGED, Attempt, attempt_from
from aiops.policy.lifecycle import Lifecycle
from aiops.policy.turn import Turn
from aiops.types import HANDED, Alert, Cause, Command, Incident, Outcome

JSON = dict[str, Any]
VERBS = ("handed", "lead", "follow")
MOST_NAMED = 30
"""So many entities and alerts of an incident go with its attempt: they share one ConfigMap."""
BY_ANOTHER = "; by another replica, or before a restart"
ONSET_S = 60.0
"""So much later than an action another replica may have seen the onset of what asked for it; what began after that is new. So
long after a start we see for the first time what may have lasted since before an action that was no good."""
KEEP_MOST, KEEP_CLOSED_S, KEEP_SKETCH_S = 1000, 900.0, 3600.0
_FAR: Mapping[str, int] = {"asked": 0, "submitted": 1, "verifying": 2}
_UNDO: Mapping[str, int] = {"": 0, "waiting": 1, "running": 1}


def about(attempt: Attempt | None, incident: Incident | None) -> JSON | None:
    """All that another needs to go on with an attempt; None for what was never handed over to be done."""
    if attempt is None or attempt.acted_at is None or attempt.rehearsed:
        return None
    told = {"attempt": asdict(attempt) | {"params": dict(attempt.params), "evidence": attempt.evidence[:MOST_NAMED]}}
    plain: JSON = json.loads(json.dumps(told | ({"incident": sketch(incident)} if incident else {})))
    return plain


def sketch(i: Incident) -> JSON:
    """Where an incident is, without what was seen there."""
    told = {"id": i.id, "opened_at": i.opened_at, "severity": i.severity, "entities": list(i.entities[:MOST_NAMED]),
            "causes": [c.entity for c in i.causes[:1]]}
    return told if i.closed_at is None else told | {"closed_at": i.closed_at}


def incident_of(data: Mapping[str, Any], trigger: tuple[str, str] = ("", "")) -> Incident:
    """An incident of which only the place is known: nobody can tell whether its alert still fires."""
    at, (entity, signal) = float(data["opened_at"]), trigger
    silent = Alert(f"{entity} {signal}", entity, signal, "resolved", at, at, 0.0, 1.0, silent=True)
    return Incident(data["id"], at, at, "closed", data["severity"], tuple(data["entities"]), (silent,),
                    tuple(Cause(e, 0.0, (), ()) for e in data["causes"]))


class Handover:
    """The attempts of others among ours. `leads`: whether we judge; alone we always do. `several`: we were told whether we lead,
    and wait for that after a restart. `sketches`: incidents that we know of others only, or of an earlier run of ours, by id."""

    def __init__(self, life: Lifecycle) -> None:
        self.life, self.leads, self._led = life, True, True
        self.several = False
        self.sketches: dict[str, Incident] = {}
        self._closed: dict[str, Incident] = {}
        self._began, self._over = math.nan, set[str]()

    def restore(self, leads: bool, places: Iterable[Mapping[str, Any]]) -> None:
        """Whether we lead, and the sketches of an earlier run."""
        self.leads = leads
        self.sketches = {p["id"]: incident_of(p) for p in places}
        self._over = {p["id"] for p in places if "closed_at" in p}

    def obey(self, turn: Turn, commands: Iterable[Command]) -> None:
        """`handed`: what another did; `lead` and `follow`: whether judging is up to us from now on."""
        self._led = self.leads
        self._began = turn.now if math.isnan(self._began) else self._began
        for command in commands:
            if command.verb == "handed":
                self._take(turn, command)
            elif command.verb in ("lead", "follow"):
                self.several = command.target != ""
                self.leads = command.verb == "lead"
        self._bring_home(turn)

    def _take(self, turn: Turn, command: Command) -> None:
        """Where it is further on than what we know of it; never back."""
        theirs = _as_it_is_now(command.params)
        ledger, ours = self.life.ledger, self.life.ledger.attempts.get(theirs.id)
        if ours:
            theirs = replace(theirs, incident=ours.incident, evidence=ours.evidence)
            if _far(ours) >= _far(theirs):
                return
        elif "incident" in command.params:
            self.sketches[theirs.incident] = incident_of(command.params["incident"], theirs.trigger)  # type: ignore[arg-type]
        ledger.put(theirs)
        self._count(turn, ours, theirs)
        self._give_way(turn, theirs)

    def _count(self, turn: Turn, ours: Attempt | None, theirs: Attempt) -> None:
        """Once: a verdict that we had, or gave, ourselves is in the record."""
        policy = self.life.policies.get(theirs.policy)
        judged = theirs.state in JUDGED - {"failed"} and (ours is None or ours.state not in JUDGED)
        if judged and policy and policy.spec.feedback.learning_enabled:
            told = self.life.record.learn(theirs.signature, theirs.kind, theirs.state)
            turn.notes += [told] if told else []

    def _bring_home(self, turn: Turn) -> None:
        """Attempts of incidents that are not ours go to the one of ours that has, or had, their alert."""
        self._look_back(turn)
        ledger, places = self.life.ledger, _Places(turn, self._closed.values()) if self.sketches else None
        for name in list(self.sketches) if places else ():
            for attempt in (a for a in ledger.of_incident(name) if a.acted_at is not None and not a.rehearsed):
                home = places.of(attempt, until := self._until(attempt)) if places else None
                if home:
                    moved = ledger.move(attempt, home.id, _in_our_words(attempt, home, until))
                    self._give_way(turn, moved)
                    turn.actions.append(moved.action("act", turn.now, HANDED, f"{moved.reason}{BY_ANOTHER}"))
        self.sketches = {i: sketch for i, sketch in self.sketches.items() if self._needed(i, turn.now)}
        turn.incidents = {**turn.incidents, **self.sketches, **{i: c for i, c in self._closed.items() if i not in turn.incidents}}

    def _until(self, attempt: Attempt) -> float:
        """The latest onset, as we saw it, that what asked for the attempt may have."""
        if attempt.live:
            return math.inf
        lasts = attempt.state in FRUITLESS and attempt.incident not in self._over
        return max(attempt.acted_at or attempt.decided_at, self._began if lasts else -math.inf) + ONSET_S

    def _look_back(self, turn: Turn) -> None:
        """Forget sketches of what turned out to be ours, and what was closed long ago."""
        self._closed |= {i.id: i for i in turn.incidents.values() if i.closed_at is not None}
        late = [n for n, i in self._closed.items() if n in turn.open or turn.now - (i.closed_at or 0.0) > KEEP_CLOSED_S]
        for name in [*late, *list(self._closed)[:max(0, len(self._closed) - len(late) - KEEP_MOST)]]:
            self._closed.pop(name, None)
        for name in [n for n in self.sketches if n in turn.open] + list(self.sketches)[:max(0, len(self.sketches) - KEEP_MOST)]:
            self.sketches.pop(name, None)

    def _needed(self, incident: str, now: float) -> bool:
        mine = self.life.ledger.of_incident(incident)
        return any(a.live or now - (a.ended_at or a.decided_at) <= KEEP_SKETCH_S for a in mine)

    def _give_way(self, turn: Turn, theirs: Attempt) -> None:
        """What we wanted ourselves for the same incident is decided anew on what became of theirs; not what we may have begun."""
        waiting = ("asked",) if self._led else ("asked", "submitted")
        for own in self.life.ledger.of(theirs.policy, theirs.incident):
            if own.id != theirs.id and own.state in waiting:
                text = f"{NOT_NOW}another replica decided on it: {theirs.type} {theirs.target} {theirs.id}."
                self.life.ledger.change(own, state="withdrawn", ended_at=turn.now, said=text)
                turn.outcomes.append(Outcome(own.id, "refused", turn.now, text))


def _as_it_is_now(record: Mapping[str, Any]) -> Attempt:
    """With what became of it on the cluster. An undo that was to be done is asked for once more: it has the same id."""
    attempt, ended = attempt_from(record["attempt"]), record.get("ended")
    if attempt.state == "submitted" and ended:
        status, at = ended["status"], ended["at"]
        done = {"state": "verifying", "done_at": at} if status == "done" else {"state": status, "ended_at": at}
        attempt = replace(attempt, said=ended["reason"], **done)
    return replace(attempt, undo="waiting") if attempt.undo == "running" else attempt


def _far(attempt: Attempt) -> tuple[int, int]:
    return _FAR.get(attempt.state, len(_FAR)), _UNDO.get(attempt.undo, 2)


def _keys(evidence: Iterable[str]) -> dict[str, str]:
    """Alert -> the same with its onset."""
    return {text.rsplit(" ", 1)[0]: text for text in evidence}


def follow(life: Lifecycle, turn: Turn) -> None:
    """The attempts of an incident that was merged into another go there, whatever became of them: nothing is done twice, and
    what was done is judged there. Of two questions for the same the later one is withdrawn."""
    for gone in sorted((i for i in turn.incidents.values() if i.merged_into in turn.incidents), key=lambda i: i.id):
        home = turn.incidents[gone.merged_into]
        for attempt in life.ledger.of_incident(gone.id):
            moved = life.ledger.move(attempt, home.id, _in_our_words(attempt, home, math.inf))
            if moved.state == "asked" and any(_same_aim(moved, own) for own in life.ledger.of(moved.policy, home.id)):
                _take_back(life, turn, moved, home.id)
            elif moved.state == "asked" or (moved.acted_at is not None and not moved.rehearsed):
                asked = moved.state == "asked"
                turn.actions.append(moved.action("ask" if asked else "act", turn.now, "asked" if asked else HANDED,
                                                 f"{moved.reason}; in {gone.id}, which is part of this one"))
                for own in life.ledger.of(moved.policy, home.id):
                    if not asked and own.state == "asked" and _same_aim(moved, own):
                        _take_back(life, turn, own, gone.id)


def _same_aim(one: Attempt, other: Attempt) -> bool:
    return one.id != other.id and other.live and (one.type, one.target) == (other.type, other.target)


def _take_back(life: Lifecycle, turn: Turn, question: Attempt, where: str) -> None:
    text = f"the same was decided in {where}, which is the same incident"
    life.ledger.change(question, state="withdrawn", ended_at=turn.now, said=text)
    turn.outcomes.append(Outcome(question.id, "refused", turn.now, text))


class _Places:
    """Which of our incidents has an alert: looked up for many attempts in one step."""

    def __init__(self, turn: Turn, closed: Iterable[Incident]) -> None:
        self._firing: dict[str, list[tuple[Incident, float]]] = {}
        self._any: dict[str, list[tuple[Incident, float]]] = {}
        for incident in (*(turn.incidents[i] for i in sorted(turn.open)), *(i for i in closed if not i.merged_into)):
            for alert in incident.alerts:
                for places in (self._any, self._firing) if alert.state == "firing" else (self._any,):
                    for key in (f"{alert.entity} {alert.signal}", _asked(alert.entity, alert.signal)):
                        places.setdefault(key, []).append((incident, alert.since))

    def of(self, attempt: Attempt, until: float) -> Incident | None:
        """The incident that has what asked for the attempt, else the one with most of its alerts; else one that had them. Of
        alerts that began by then."""
        return self._likest(attempt, until, self._firing) or self._likest(attempt, until, self._any)

    @staticmethod
    def _likest(attempt: Attempt, until: float, places: Mapping[str, Sequence[tuple[Incident, float]]]) -> Incident | None:
        asked = _asked(*attempt.trigger)
        keys = {asked, *_keys(attempt.evidence)}
        score: dict[str, int] = {}
        found: dict[str, Incident] = {}
        for key in keys:
            for incident in {i.id: i for i, since in places.get(key, ()) if since <= until}.values():
                found[incident.id] = incident
                score[incident.id] = score.get(incident.id, 0) + (len(keys) if key == asked else 1)
        return found[min(score, key=lambda name: (-score[name], name))] if score else None


def _asked(entity: str, signal: str) -> str:
    """What a trigger names: a signal without its labels."""
    return f"{entity}\x1f{signal.split('{', 1)[0]}"


def _in_our_words(attempt: Attempt, home: Incident, until: float) -> tuple[str, ...]:
    """What was evidence then, with the onsets that we saw: equal to ours where nothing has changed since."""
    theirs, acted = _keys(attempt.evidence), attempt.acted_at or attempt.decided_at
    firing = [a for a in home.alerts if a.state == "firing" and a.since <= until]
    ours = [a for a in firing if a.since <= acted or f"{a.entity} {a.signal}" in theirs]
    return tuple(sorted((theirs | _keys(f"{a.entity} {a.signal} {a.since:.0f}" for a in ours)).values()))
