"""What happens to an action after it was decided: a person's answer, its outcome, whether it helped, and undoing it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from aiops import plugins
from aiops.meaning import Meanings
from aiops.policy import answers, guards, scope
from aiops.policy.guards import Question
from aiops.policy.learning import TrackRecord
from aiops.policy.ledger import USELESS, Attempt, Ledger, State, action_id
from aiops.policy.load import Policy
from aiops.policy.turn import Turn
from aiops.policy.verify import Look, good, judge
from aiops.quantities import format_duration
from aiops.stops import Stops
from aiops.types import Action, Command, Outcome, OutcomeStatus

FINAL: Mapping[str, str] = {"refused": "refused", "failed": "failed", "unknown": "unknown", "helped": "helped",
                            "no_help": "no_help", "worse": "worse"}
NO_ANSWER_S = 900.0


@dataclass(slots=True)
class Lifecycle:
    """Moves attempts on. Holds no state of its own but the ledger and the track record that it is given.

    changed: names of policies that say something else since the last turn.
    """

    policies: Mapping[str, Policy]
    mode: str
    meanings: Meanings
    ledger: Ledger
    record: TrackRecord
    stops: Stops
    changed: set[str] = field(default_factory=set)

    def look(self, turn: Turn, policy: Policy, incident: str, attempt: Attempt | None = None) -> Look:
        """What verification sees now; of an attempt also what became of its trigger, and of its neighbours."""
        name = policy.spec.feedback.success_metric
        rule = self.meanings.signals.get(self.meanings.current(name or ""))
        value = turn.measure(name, incident) if name else None
        trigger, risen = turn.since(attempt) if attempt else ("", ())
        return Look(value, turn.clear(incident), rule.direction if rule else "both", trigger, risen)

    # ------------------------------------------------------------------------------------------------- outcomes
    def hear(self, turn: Turn, outcomes: Iterable[Outcome]) -> None:
        """Outcomes that came back from the cluster. Unknown ids (an old run) and repeated ones change nothing."""
        undos = {action_id(a.id, "undo"): a for a in self.ledger.live() if a.undo == "running"}
        for outcome in outcomes:
            attempt = self.ledger.attempts.get(outcome.action)
            if outcome.action in undos:
                self.ledger.change(undos[outcome.action], undo=outcome.status, undo_at=outcome.at)
            elif attempt and attempt.state == "submitted":
                self._heard(attempt, outcome)

    def _heard(self, attempt: Attempt, outcome: Outcome) -> None:
        if outcome.status == "done":
            self.ledger.change(attempt, state="verifying", done_at=outcome.at)
        elif outcome.status in FINAL:
            self.ledger.change(attempt, state=FINAL[outcome.status], ended_at=outcome.at, said=outcome.reason)

    # ------------------------------------------------------------------------------------------------- people
    def obey(self, turn: Turn, commands: Iterable[Command]) -> None:
        """Approvals and rejections. One that comes too late, twice or for nothing is noted and changes nothing."""
        for command in commands:
            if command.verb not in ("approve", "reject"):
                continue
            attempt = self.ledger.attempts.get(command.target)
            if attempt is None or attempt.state != "asked":
                state = "no such action" if attempt is None else f"it is {attempt.state}"
                turn.notes.append(f"{command.verb} {command.target}: nothing is asked there, {state}.")
            elif command.verb == "reject":
                self._turn_down(turn, attempt, "rejected", f"rejected by {command.by or 'a person'}")
            else:
                self._approve(turn, attempt, command)

    def _approve(self, turn: Turn, attempt: Attempt, command: Command) -> None:
        """Once enough people have approved, ask every guard again: minutes went by since the question was asked."""
        by, policy = command.by or "a person", self.policies.get(attempt.policy)
        try:
            told = self._said(turn, attempt, policy, command, by)
        except ValueError as e:
            turn.notes.append(f"approve {attempt.id} by {by}: {e}.")
            return
        attempt, needed = self.ledger.put(told), policy.spec.guards.approvals if policy else 1
        if len(attempt.approvals) < needed:
            reason = f"{attempt.reason}; {len(attempt.approvals)} of {needed} approvals so far: {answers.by_whom(attempt)}"
            turn.actions.append(attempt.action("ask", turn.now, "asked", reason))
            return
        why = self._no_longer(turn, attempt, policy)
        if why or policy is None:
            self._turn_down(turn, attempt, "refused", f"approved by {answers.by_whom(attempt)}, but {why}")
            return
        before = bool(good(policy.spec, self.look(turn, policy, attempt.incident)))
        attempt = self.ledger.change(attempt, state="submitted", acted_at=turn.now, good_before=before)
        turn.actions.append(attempt.action("act", turn.now, f"approved by {answers.by_whom(attempt)}"))

    def _said(self, turn: Turn, attempt: Attempt, policy: Policy | None, command: Command, by: str) -> Attempt:
        """The attempt with this answer. Raises ValueError where it is none."""
        if command.params and policy:
            incident = turn.incidents.get(attempt.incident)
            wanted = answers.altered(policy, attempt, incident, turn.around(attempt.incident), command.params)
            attempt = answers.changed(attempt, wanted, by, turn.now)
        if by in attempt.approvals:
            raise ValueError("has approved it already; somebody else has to")
        return answers.approved(attempt, by, turn.now)

    def _no_longer(self, turn: Turn, attempt: Attempt, policy: Policy | None) -> str | None:
        if policy is None:
            return f"policy {attempt.policy} is not loaded any more"
        if self.mode == "observe":
            return "the daemon only observes now"
        if attempt.incident not in turn.open:
            return "the incident is over"
        incident = turn.incidents[attempt.incident]
        refusal = guards.refuse(Question(
            policy.name, policy.spec, attempt.incident, attempt.target, attempt.disruptive, turn.now, turn.evidence.age(incident),
            self.ledger, maintenance=turn.evidence.maintenance(incident, attempt.target), own=attempt.id,
            explained=turn.evidence.explained(incident), onset=scope.onset(incident), stopped=self.stops.reason,
            subsided=f"{attempt.trigger[1]} of {attempt.trigger[0]}" if turn.evidence.subsided(*attempt.trigger) else "",
            recovers=getattr(plugins.load_type("remediations", attempt.type), "recovers", False),
            cluster_wide=policy.cluster_wide))
        return refusal[1] if refusal else None

    def _turn_down(self, turn: Turn, attempt: Attempt, state: str, reason: str) -> None:
        attempt = self.ledger.change(attempt, state=state, ended_at=turn.now)
        turn.actions.append(attempt.action("refused", turn.now, state, reason))

    def recall(self, turn: Turn) -> None:
        """Withdraw questions whose policy says something else now: an answer to them would be to another question."""
        for attempt in [a for a in self.ledger.live() if a.state == "asked" and a.policy in self.changed]:
            self._withdraw(turn, attempt, f"policy {attempt.policy} was changed after it had asked", "withdrawn")
        self.changed.clear()

    def expire(self, turn: Turn) -> None:
        """Withdraw questions that nobody answered, or whose incident is over, or policy gone. The record still says that it was
        asked."""
        for attempt in [a for a in self.ledger.live() if a.state == "asked"]:
            policy = self.policies.get(attempt.policy)
            if attempt.incident not in turn.open:
                self._withdraw(turn, attempt, "the incident ended before anybody approved")
            elif policy is None:
                self._withdraw(turn, attempt, f"policy {attempt.policy} is not loaded any more", "withdrawn")
            elif turn.now - attempt.decided_at >= (within := policy.spec.guards.approval_within):
                self._withdraw(turn, attempt, f"nobody approved within {format_duration(within)}")

    def _withdraw(self, turn: Turn, attempt: Attempt, reason: str, state: State = "expired") -> None:
        self.ledger.change(attempt, state=state, ended_at=turn.now)
        turn.outcomes.append(Outcome(attempt.id, "refused", turn.now, reason))

    # ------------------------------------------------------------------------------------------------- verify
    def verify(self, turn: Turn) -> None:
        """Judge what was done; give up on what never answered."""
        for attempt in self.ledger.live():
            policy = self.policies.get(attempt.policy)
            if attempt.undo == "running":
                self._undo_overdue(turn, attempt)
            elif attempt.undo == "waiting":
                self.ledger.put(self._undo(turn, attempt, attempt.said))
            elif attempt.state == "submitted" and turn.now - (attempt.acted_at or 0.0) > NO_ANSWER_S:
                self._end(turn, attempt, "unknown", f"no answer within {format_duration(NO_ANSWER_S)}")
            elif attempt.state == "verifying" and policy is None:
                self._end(turn, attempt, "unknown", f"policy {attempt.policy} is not loaded any more")
            elif attempt.state == "verifying" and policy is not None:
                self._judge(turn, attempt, policy)

    def _judge(self, turn: Turn, attempt: Attempt, policy: Policy) -> None:
        look = self.look(turn, policy, attempt.incident, attempt)
        verdict = judge(policy.spec, look, turn.now - (attempt.done_at or turn.now), attempt.good_before)
        if verdict is None:
            return
        status, reason = verdict
        turn.outcomes.append(Outcome(attempt.id, status, turn.now, reason))
        attempt = replace(attempt, state=status, ended_at=turn.now, said=reason)
        undone = status in USELESS and policy.spec.undo
        self.ledger.put(self._undo(turn, attempt, reason) if undone else attempt)  # at once: other threads look at it
        if status != "unknown" and policy.spec.feedback.learning_enabled:
            told = self.record.learn(attempt.signature, attempt.kind, status)
            turn.notes += [told] if told else []

    def _end(self, turn: Turn, attempt: Attempt, status: OutcomeStatus, reason: str) -> None:
        turn.outcomes.append(Outcome(attempt.id, status, turn.now, reason))
        self.ledger.change(attempt, state=status, ended_at=turn.now, said=reason)

    # ------------------------------------------------------------------------------------------------- undo
    def _undo(self, turn: Turn, attempt: Attempt, why: str) -> Attempt:
        """The attempt with what becomes of it."""
        if not plugins.load_type("remediations", attempt.type).reversible:
            return attempt
        if self.mode == "observe":
            turn.notes.append(f"{attempt.id}: not undone, the daemon only observes now.")
            return attempt
        if self.stops.frozen:
            if not attempt.undo:
                turn.notes.append(f"{attempt.id}: is undone when everything is started again; {self.stops.reason}.")
            return replace(attempt, undo="waiting")
        turn.actions.append(Action(action_id(attempt.id, "undo"), attempt.type, attempt.target,
                                   {**attempt.params, "undo_of": attempt.id}, attempt.incident, attempt.policy, "act",
                                   f"{'made it worse' if attempt.state == 'worse' else 'did not help'}: {why}", turn.now, "undo"))
        return replace(attempt, undo="running", undo_at=turn.now)

    def _undo_overdue(self, turn: Turn, attempt: Attempt) -> None:
        if turn.now - (attempt.undo_at or 0.0) > NO_ANSWER_S:
            self.ledger.change(attempt, undo="unknown")
            text = f"no answer to the undo within {format_duration(NO_ANSWER_S)}"
            turn.outcomes.append(Outcome(action_id(attempt.id, "undo"), "unknown", turn.now, text))
