"""`aiops policy test`: the `tests:` that policies carry, run through the same decider, with the daemon in mode act."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aiops.meaning import Meanings, shipped
from aiops.policy.decide import PolicyBook
from aiops.policy.load import Policy
from aiops.policy.schema import AnomalyTrigger, Case
from aiops.types import Action, Alert, Anomaly, Cause, Entity, Incident

NOW = 1_000_000.0


@dataclass(frozen=True, slots=True)
class CaseResult:
    """One test: `wrong` says what was decided instead, and is empty where the test passed."""

    policy: str
    file: str
    case: str
    wrong: str = ""

    @property
    def passed(self) -> bool:
        return not self.wrong

    def __str__(self) -> str:
        return f"{self.file}: {self.policy}: {self.case}: {self.wrong or 'ok'}"


@dataclass(frozen=True, slots=True)
class _Given:
    """Evidence that says exactly what a test case gives."""

    case: Case
    anomaly: Anomaly

    def anomalies(self, incident: Incident) -> Sequence[Anomaly]:
        return (self.anomaly,)

    def measure(self, name: str, incident: Incident) -> float | None:
        return self.case.correlation.get(name)

    def log_count(self, pattern: str, incident: Incident) -> int:
        given = self.case.correlation.get(f"logs:{pattern}")
        return int(given or 0)

    def event_count(self, pattern: str, incident: Incident) -> int:
        return int(self.case.correlation.get(f"events:{pattern}") or 0)

    def age(self, incident: Incident) -> float:
        return self.case.age

    def around(self, entity: Entity) -> Mapping[str, str]:
        return self.case.around.model_dump(exclude_none=True, exclude={"pods"})

    def affected(self, incident: Incident) -> int:
        pods = {e for e in (self.case.cause, self.anomaly.entity) if e and e.startswith("pod/")}
        return len(pods) if self.case.around.pods is None else self.case.around.pods

    def subsided(self, entity: Entity, name: str) -> bool:
        return False

    def explained(self, incident: Incident) -> str:
        return ""

    def risen(self, incident: Incident, target: Entity, since: float) -> Sequence[Alert]:
        return ()

    def maintenance(self, incident: Incident, target: Entity) -> str:
        return ""

    def clear(self, incident: Incident) -> bool:
        return False


def run(policies: Sequence[Policy], meanings: Meanings | None = None) -> list[CaseResult]:
    """Every test of every policy, each with a fresh book that holds only that policy."""
    known = meanings or shipped()
    return [CaseResult(p.name, p.file, case.name, _wrong(case, decide(p, case, known)))
            for p in policies for case in p.spec.tests]


def decide(policy: Policy, case: Case, meanings: Meanings) -> Action | None:
    """The decision that a policy takes on the situation of a test, or None where it is not triggered."""
    trigger = policy.spec.trigger
    metric = trigger.metric if isinstance(trigger, AnomalyTrigger) else "anything"
    model = trigger.model if isinstance(trigger, AnomalyTrigger) else None
    given = case.anomaly
    detector = given.detector or model or "baseline"
    now = NOW if case.at is None else case.at
    anomaly = Anomaly(now, given.entity, given.metric or metric, given.score, 0.0, detector, 0, onset=now - given.since)
    causes = (Cause(case.cause, 1.0, case.signals or (anomaly.name,), ()),) if case.cause else ()
    alert = Alert(f"{given.entity}|{anomaly.name}", given.entity, anomaly.name, "firing", anomaly.onset, now, anomaly.score,
                  anomaly.p_value, detectors=(anomaly.detector,))
    incident = Incident("i-test", now - given.since, now, "open", case.severity, (given.entity,), (alert,), causes)
    evidence = _Given(_aliased(policy, case), anomaly)
    actions = PolicyBook([policy], "act", meanings).decide(now, [incident], evidence).actions
    return actions[0] if actions else None


def _aliased(policy: Policy, case: Case) -> Case:
    """The case with measurements also under the names that evidence is asked for."""
    values = dict(case.correlation)
    for item in policy.spec.diagnosis.correlations:
        if item.key in values:
            values[item.plain] = values[item.key]
    return case.model_copy(update={"correlation": values})


def _wrong(case: Case, action: Action | None) -> str:
    expect = case.expect
    got = action.decision if action else "none"
    found = {"decision": got, "type": action.type if action else None, "target": action.target if action else None}
    if expect.decision != got:
        return f"expected decision {expect.decision}, got {got}" + (f": {action.reason}" if action else "")
    for name in ("type", "target"):
        wanted = getattr(expect, name)
        if wanted is not None and wanted != found[name]:
            return f"expected {name} {wanted}, got {found[name]}"
    if expect.reason is not None and (action is None or expect.reason not in action.reason):
        return f"expected a reason with {expect.reason!r}, got {action.reason if action else 'none'!r}"
    return ""
