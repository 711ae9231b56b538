"""The decider: for every open incident and every policy that it triggers, exactly one decision, with its reason.

Pure: no clock, no I/O; equal calls give equal answers. The order of one step: outcomes, people's answers, questions
that expired, verification, and only then new decisions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, Literal

from aiops.interfaces import NOT_NOW
from aiops.meaning import Meanings
from aiops.policy import answers, guards, handover, scope
from aiops.policy.conditions import Verdict
from aiops.policy.evidence import Evidence
from aiops.policy.guards import Question
from aiops.policy.handover import Handover
from aiops.policy.learning import TrackRecord
from aiops.policy.ledger import FRUITLESS, USELESS, Attempt, Ledger, State, action_id, kind_of
from aiops.policy.lifecycle import Lifecycle
from aiops.policy.load import Policy, Step
from aiops.policy.scope import Hit
from aiops.policy.standing import of_attempt, of_refusal, settled
from aiops.policy.texts import Compiler, Texts
from aiops.policy.turn import Decision, Turn
from aiops.policy.verify import good
from aiops.signature import fault
from aiops.stops import VERBS, Stops
from aiops.types import Action, Command, Incident, Outcome, entity_parts
from aiops.types import Decision as Kind

__all__ = ["Decision", "PolicyBook"]
Mode = Literal["observe", "ask", "act"]
_STATE: Mapping[str, State] = {"act": "submitted", "ask": "asked", "shadow": "shadow"}
LONGEST_REASON, MOST_NAMED = 600, 5


@dataclass(frozen=True, slots=True)
class Choice:
    """One action of a policy, aimed and judged. `problem` says why it cannot be aimed."""

    index: int
    step: Step
    target: str
    params: Mapping[str, object]
    verdict: Verdict
    problem: str = ""


class PolicyBook:
    """All policies, their attempts and their track record. `mode` is the most that any policy may do, `beyond` the namespaces
    whose custom resources may act elsewhere too. `stops`: who says that nothing may be done now. `revision` rises with every
    command: what is to be remembered may have changed.

    Hand `decide` every open incident in every step, and a closed one once; event time `now` never goes back.
    """

    def __init__(self, policies: Sequence[Policy], mode: Mode, meanings: Meanings, beyond: Sequence[str] = ()) -> None:
        self.policies = {p.name: p for p in sorted(policies, key=lambda p: p.name)}
        self._compiler = Compiler(meanings, beyond)
        self.mode, self.meanings = mode, meanings
        self.ledger, self.record, self.stops = Ledger(), TrackRecord(), Stops()
        self.revision = 0
        self._lifecycle = Lifecycle(self.policies, mode, meanings, self.ledger, self.record, self.stops)
        self._handover = Handover(self._lifecycle)
        self._remembered: dict[str, Incident] = {}
        self._around: dict[str, Mapping[str, str]] = {}
        self._places: list[Incident] = []

    def decide(self, now: float, incidents: Sequence[Incident], evidence: Evidence,
               outcomes: Sequence[Outcome] = (), commands: Sequence[Command] = ()) -> Decision:
        """Everything that follows at `now` from what is known and from what came back."""
        turn = self._turn(now, incidents, evidence)
        self._stop(turn, commands)
        handover.follow(self._lifecycle, turn)
        self._handover.obey(turn, commands)
        self._lifecycle.hear(turn, outcomes)
        self._lifecycle.recall(turn)
        self._lifecycle.obey(turn, commands)
        self._lifecycle.expire(turn)
        if self.leads:
            self._lifecycle.verify(turn)
        for incident in sorted((i for i in incidents if i.id in turn.open), key=lambda i: (i.opened_at, i.id)):
            seen = scope.Seen(incident, turn.evidence)
            for policy in self.policies.values():
                self._consider(turn, policy, incident, seen)
        self._remember(turn)
        return turn.decision()

    def _stop(self, turn: Turn, commands: Sequence[Command]) -> None:
        """First of all: nothing is decided any more in the step in which it was said."""
        for command in commands:
            if command.verb in VERBS:
                note = self.stops.obey(command)
                turn.notes += [note] if note else []
            self.revision += 1

    def awaited(self) -> Sequence[str]:
        """Ids of what was handed over to be done, or undone, and of which nothing was heard yet."""
        live = self.ledger.live()
        return [a.id for a in live if a.state == "submitted"] + [action_id(a.id, "undo") for a in live if a.undo == "running"]

    # ---------------------------------------------------------------------------------------- one of several
    @property
    def leads(self) -> bool:
        """Whether it is ours to judge what was done."""
        return self._handover.leads

    def about(self, action: str) -> dict[str, Any] | None:
        """What another replica needs to go on with an action; None where there is nothing. Beside a running step, too."""
        attempt = self.ledger.attempts.get(action)
        return handover.about(attempt, self._remembered.get(attempt.incident) if attempt else None)

    def wanted(self, action: str) -> bool:
        """Whether it is still to be done: it may have been withdrawn since. Beside a running step, too."""
        attempt = self.ledger.attempts.get(action)
        return attempt is None or attempt.state == "submitted"

    def reload(self, texts: Texts) -> tuple[str, ...]:
        """Go on with the policies of these texts, and say what has changed. Attempts, cooldowns and records stay.

        A set in which something is wrong (of another version of this program) is not taken at all.
        """
        compiled = self._compiler(texts)
        if compiled.problems:
            first = next(iter(compiled.problems.values()))[0]
            return (f"policies: the new set is not understood, the one before stays in force: {first}",)
        before, after = self.policies, {p.name: p for p in compiled.policies}
        self.policies = self._lifecycle.policies = after
        turned = {name for name in before.keys() & after.keys() if not _same(before[name], after[name])}
        self._lifecycle.changed |= turned
        for name in turned:
            self.ledger.forget_said(name)
        return _told(after.keys() - before.keys(), turned, before.keys() - after.keys())

    def altered(self, action: str, given: Mapping[str, object]) -> Mapping[str, object]:
        """The parameters that a question would have with these changes. Raises ValueError where they are not possible.

        May be asked beside a running step.
        """
        attempt = self.ledger.attempts.get(action)
        policy = self.policies.get(attempt.policy) if attempt else None
        if attempt is None or policy is None:
            raise ValueError("it is not asked any more")
        return answers.altered(policy, attempt, self._remembered.get(attempt.incident),
                               self._around.get(attempt.incident, {}), given)

    def forget(self, patterns: tuple[str, ...]) -> int:
        """Forget the track records that one of these names, all where there are none; how many."""
        return self.record.forget(patterns)

    def state(self) -> dict[str, Any]:
        """Plain JSON; `restore` of it goes on exactly there."""
        return {"ledger": self.ledger.state(), "record": self.record.state(), "stops": self.stops.state(),
                "leads": not self._handover.several, "incidents": [handover.sketch(i) for i in self._places]}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.ledger.restore(state.get("ledger", {}))
        self.record.restore(state.get("record", {}))
        self.stops.restore(state.get("stops", []))
        self._handover.restore(state.get("leads", True), state.get("incidents", []))

    def _turn(self, now: float, incidents: Sequence[Incident], evidence: Evidence) -> Turn:
        known = self._remembered | {i.id: i for i in incidents}
        return Turn(now, evidence, known, frozenset(i.id for i in incidents if i.state == "open"))

    def _remember(self, turn: Turn) -> None:
        """Incidents that an attempt still needs, even after they are closed; the rest is forgotten."""
        needed = {a.incident for a in self.ledger.live()}
        self._remembered = {key: i for key, i in turn.incidents.items() if key in needed}
        self._around = {key: turn.around(key) for key in self._remembered}
        self._places = [i for key, i in turn.incidents.items() if key in needed or self.ledger.of_incident(key)]
        self.ledger.prune(turn.now, turn.open)

    # -------------------------------------------------------------------------------------------- one policy
    def _consider(self, turn: Turn, policy: Policy, incident: Incident, seen: scope.Seen) -> None:
        mine = self.ledger.of(policy.name, incident.id)
        if over := settled(mine):
            turn.stand(incident.id, of_attempt(over))
            return
        hit = scope.triggered(policy, incident, seen, self.meanings)
        if hit is None:
            return
        choices = self._choices(turn, policy, incident, hit)
        met = [c for c in choices if c.verdict.met]
        if not met:
            self._refuse(turn, policy, incident, choices[0], "condition", _no_condition(choices))
            return
        signature, firing = _signature(policy, incident), _firing(incident)
        chosen = _next(met, mine, firing, lambda c: self.record.of(signature, kind_of(c.step.type, c.target)).chance)
        if chosen is not None:
            age_s = max(turn.evidence.age(incident), turn.now - hit.at)
            self._settle(turn, policy, incident, chosen, mine, signature, age_s, hit, firing)
        elif any(a.state in FRUITLESS for a in mine) and all(a.state in FRUITLESS | {"refused"} for a in mine):
            self._refuse(turn, policy, incident, met[0], "exhausted", _tried(mine, policy.spec.escalate.to))
        elif mine:
            turn.stand(incident.id, of_attempt(mine[-1]))

    def _choices(self, turn: Turn, policy: Policy, incident: Incident, hit: Hit) -> list[Choice]:
        around = turn.evidence.around(incident.causes[0].entity) if incident.causes else {}
        values = scope.base_scope(incident, hit, scope.measure(policy, incident, turn.evidence), turn.now, around,
                                  turn.evidence.affected(incident))
        out = []
        for i, step in enumerate(policy.steps):
            target, params, problem = _aim(policy, step, incident, hit, around)
            if step.remediation.disruptive:
                params |= _limits(policy, target)
            more = {"target": scope.entity_scope(target) if target else {},
                    "history": scope.history_scope(self.ledger.on(policy.name, target), turn.now)}
            out.append(Choice(i, step, target, params, step.condition.evaluate(values | more), problem))
        return out

    def _settle(self, turn: Turn, policy: Policy, incident: Incident, choice: Choice, mine: list[Attempt],
                signature: str, age_s: float, hit: Hit, firing: tuple[str, ...]) -> None:
        """Guards, then mode: the one decision on this action. `age_s`: of the evidence that triggered it."""
        if choice.problem:
            self._refuse(turn, policy, incident, choice, "target", choice.problem)
            return
        decision, why = self._granted(policy, signature, kind_of(choice.step.type, choice.target))
        question = Question(
            policy.name, policy.spec, incident.id, choice.target, choice.step.remediation.disruptive, turn.now, age_s,
            self.ledger, decision == "shadow", turn.evidence.maintenance(incident, choice.target),
            explained=turn.evidence.explained(incident), onset=scope.onset(incident), stopped=self.stops.reason,
            subsided=f"{hit.name} of {hit.entity}" if turn.evidence.subsided(hit.entity, hit.name) else "",
            recovers=getattr(choice.step.remediation, "recovers", False), cluster_wide=policy.cluster_wide)
        refusal = guards.refuse(question)
        if refusal:
            self._refuse(turn, policy, incident, choice, *refusal)
            return
        number = sum(a.index == choice.index for a in mine)
        attempt = self._attempt(turn, policy, incident, choice, number, decision, signature,
                                _cut(f"{choice.verdict.reason}{why}"))
        attempt = self.ledger.put(replace(attempt, trigger=(hit.entity, hit.name), evidence=firing))
        turn.stand(incident.id, of_attempt(attempt))
        turn.actions.append(attempt.action(decision, turn.now, _STATE[decision]))

    def _attempt(self, turn: Turn, policy: Policy, incident: Incident, choice: Choice, number: int, decision: Kind,
                 signature: str, reason: str) -> Attempt:
        before = bool(good(policy.spec, self._lifecycle.look(turn, policy, incident.id)))
        shadow = decision == "shadow"
        key = action_id(policy.name, incident.id, choice.index, number)
        return Attempt(key, policy.name, incident.id, choice.index, number, choice.step.type,
                       choice.target, dict(choice.params), reason, turn.now, _STATE[decision],
                       disruptive=choice.step.remediation.disruptive, signature=signature, good_before=before,
                       acted_at=None if decision == "ask" else turn.now, ended_at=turn.now if shadow else None)

    def _granted(self, policy: Policy, signature: str, action: str) -> tuple[Kind, str]:
        """What the modes allow, and the words for it."""
        mode = policy.spec.mode
        if mode == "shadow":
            return "shadow", "; only rehearsed: the policy is in mode shadow"
        if self.mode == "observe":
            return "shadow", "; only rehearsed: the daemon is in mode observe"
        if mode == "earned":
            record = self.record.of(signature, action)
            if not record.earned:
                return "ask", f"; asks: {record.standing} ({record})"
            mode, earned = "act", f"; acts by itself: {record}"
        else:
            earned = ""
        if mode == "ask":
            return "ask", "; asks: the policy is in mode ask"
        if self.mode == "ask":
            return "ask", "; asks: the daemon is in mode ask"
        return "act", earned

    def _refuse(self, turn: Turn, policy: Policy, incident: Incident, choice: Choice, category: str,
                reason: str) -> None:
        """Say it once for each policy, incident and kind of reason; it is looked at again in the next step."""
        turn.stand(incident.id, of_refusal(policy.name, category, _cut(reason)))
        if not self.ledger.first_time(policy.name, incident.id, category, turn.now):
            return
        key = action_id(policy.name, incident.id, choice.index, "refused", category)
        target = choice.target or str(next(iter(choice.step.target.values()), ""))
        turn.actions.append(Action(key, choice.step.type, target, dict(choice.params), incident.id, policy.name,
                                   "refused", _cut(reason), turn.now, category))


def _aim(policy: Policy, step: Step, incident: Incident, hit: Hit,
         around: Mapping[str, str]) -> tuple[str, dict[str, object], str]:
    """Target entity and parameters, or what is wrong."""
    try:
        namespace = scope.namespace_for(policy, step, incident, hit)
        target, params = step.aim(scope.template_values(incident, around), namespace)
    except ValueError as e:
        return "", {}, f"no target for {step.type}: {e}"
    return target, params, ""


def _limits(policy: Policy, target: str) -> dict[str, object]:
    """What an action that takes pods away must keep to; whose pods they may be, where the target does not tell."""
    guards = policy.spec.guards
    where = {"namespaces": list(guards.namespaces)} if guards.namespaces and target and not entity_parts(target)[1] else {}
    return {"max_unavailable": guards.max_unavailable, **where}


def _next(met: Sequence[Choice], mine: Sequence[Attempt], firing: tuple[str, ...],
          chance: Callable[[Choice], float]) -> Choice | None:
    """The action that holds, failed least in this incident, and helped most often in others; then by the file's order.

    What the cluster refused is passed over (but for what it only refused for now), and what was no good while nothing has
    changed since. None where nothing is left, or where the best one was only rehearsed.
    """
    failed = {c.index: sum(a.index == c.index and a.state in FRUITLESS for a in mine) for c in met}
    last = {a.index: a for a in mine}
    for choice in sorted(met, key=lambda c: (failed[c.index], -chance(c), c.index)):
        before = last.get(choice.index)
        if before is None or before.state in ("failed", "withdrawn") or (before.state in USELESS and before.evidence != firing):
            return choice
        if before.state == "refused" and before.said.startswith(NOT_NOW):
            return choice
        if before.state not in FRUITLESS | {"refused"}:
            return None
    return None


def _firing(incident: Incident) -> tuple[str, ...]:
    """Every alert that fires, with its onset: where this is the same, the evidence is."""
    return tuple(sorted(f"{a.entity} {a.signal} {a.since:.0f}" for a in incident.alerts if a.state == "firing"))


def _tried(mine: Sequence[Attempt], to: str) -> str:
    """All that was done, for the person who takes over."""
    tried = "; ".join(f"{a.type} of {a.target}: {a.state.replace('_', ' ')}{f' ({a.said})' if a.said else ''}" for a in mine)
    return f"all that this policy allows was tried: {tried}. Escalate to {to}."
def _same(one: Policy, other: Policy) -> bool:
    """Whether both decide alike: their tests do not count."""
    return one.namespace == other.namespace and one.spec.model_copy(update={"tests": ()}) == \
        other.spec.model_copy(update={"tests": ()})


def _told(new: Set[str], changed: Set[str], gone: Set[str]) -> tuple[str, ...]:
    named = ", ".join(f"{', '.join(sorted(names)[:MOST_NAMED])}{'…' if len(names) > MOST_NAMED else ''} {what}"
                      for names, what in ((new, "new"), (changed, "changed"), (gone, "gone")) if names)
    return (f"policies: {named}.",) if named else ()


def _signature(policy: Policy, incident: Incident) -> str:
    """The kind of fault, for the track record: what triggered, and the kind of its cause."""
    return fault(getattr(policy.spec.trigger, "metric", "incident"), incident.causes[0].entity if incident.causes else "")


def _no_condition(choices: Sequence[Choice]) -> str:
    return "no condition met: " + "; ".join(f"{c.step.type}: {c.verdict.reason}" for c in choices)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_REASON else text[: LONGEST_REASON - 1] + "…"
