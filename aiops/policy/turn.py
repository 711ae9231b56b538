"""One call of the policy book: what it was given, and what it has to say so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from aiops.policy.evidence import Evidence
from aiops.policy.ledger import Attempt
from aiops.types import Action, Incident, Outcome, Standing


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided in one step. `notes` are for the log: commands that could not be obeyed, and why.

    `standings`: by incident, how each policy that it triggers stands on it now.
    """

    actions: tuple[Action, ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    notes: tuple[str, ...] = ()
    standings: Mapping[str, Sequence[Standing]] = field(default_factory=dict)


@dataclass(slots=True)
class Turn:
    """`incidents` by id: those handed in now, and those remembered because something is still to come of an action."""

    now: float
    evidence: Evidence
    incidents: Mapping[str, Incident]
    open: frozenset[str]
    actions: list[Action] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    standings: dict[str, list[Standing]] = field(default_factory=dict)

    def stand(self, incident: str, standing: Standing) -> None:
        """Where a policy leaves the incident in this step."""
        self.standings.setdefault(incident, []).append(standing)

    def clear(self, incident: str) -> bool | None:
        """Whether all alerts of the incident are resolved; None where that cannot be told."""
        known = self.incidents.get(incident)
        return self.evidence.clear(known) if known else None

    def measure(self, name: str, incident: str) -> float | None:
        known = self.incidents.get(incident)
        return self.evidence.measure(name, known) if known else None

    def since(self, attempt: Attempt) -> tuple[str, tuple[str, ...]]:
        """What asked for the attempt, if it still fires; and the alerts that began near it after it was done."""
        incident = self.incidents.get(attempt.incident)
        if incident is None:
            return "", ()
        firing = {(a.entity, a.signal.split("{", 1)[0]) for a in incident.alerts if a.state == "firing"}
        known = {text.rsplit(" ", 1)[0] for text in attempt.evidence}
        risen = self.evidence.risen(incident, attempt.target, attempt.done_at or self.now)
        names = sorted({f"{a.entity}: {a.signal}" for a in risen if f"{a.entity} {a.signal}" not in known})
        return ": ".join(attempt.trigger) if attempt.trigger in firing else "", tuple(names)

    def decision(self) -> Decision:
        return Decision(tuple(self.actions), tuple(self.outcomes), tuple(self.notes), self.standings)
