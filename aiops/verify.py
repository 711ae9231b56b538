"""`replay --verify`: what a replay found against the recording's `expect.yaml`.

A fault counts as found when the incident that overlaps it most names its cause first. Outside of faults, and after
`score_from`, there must be no incident. Expected decisions must have been taken in some incident of the fault.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from aiops import serial, yamlfile
from aiops.types import Incident

BEFORE_S, AFTER_S = 60.0, 300.0


class Lenient(BaseModel):
    """Ground truth of other origins carries more keys than we read."""

    model_config = ConfigDict(extra="ignore", coerce_numbers_to_str=True)


class ExpectedDecision(Lenient):
    policy: str
    type: str | None = None
    target: str | None = None
    decision: str


class Fault(Lenient):
    """`cause`: entity that must come first; `also`: entities that are as right."""

    id: str
    start: float
    end: float
    cause: str
    also: list[str] = Field(default=[])
    decisions: list[ExpectedDecision] = Field(default=[])


class Expect(Lenient):
    score_from: float | None = None
    faults: list[Fault] = Field(default=[])


def read(folder: Path) -> Expect | None:
    """The ground truth of a recording; None where there is none. Raises Problems."""
    path = folder / "expect.yaml"
    documents = yamlfile.read(path) if path.exists() else []
    return yamlfile.validate(documents[0], Expect) if documents else None


def differences(expect: Expect, incidents: list[Incident]) -> list[str]:
    """Everything that is not as expected, one sentence each; empty when all is."""
    found = list(_missed(expect, incidents))
    windows = [(f.start - BEFORE_S, f.end + AFTER_S) for f in expect.faults]
    for i in sorted(incidents, key=lambda i: (i.opened_at, i.id)):
        inside = any(start <= a.since <= end for start, end in windows for a in i.alerts)
        if not inside and i.opened_at >= (expect.score_from or 0.0):
            found.append(f"{i.id} ({i.title}) was raised where nothing is wrong")
    return found


def same_incident(told: Mapping[str, Any], incidents: list[Incident]) -> list[str]:
    """How the replay of a capsule differs from its `incident.json`: one sentence each; empty when cause and decisions agree."""
    mine = [i for i in incidents if set(i.entities) & set(told["entities"])]
    if not mine:
        return [f"{told['id']} was not found again"]
    best = min(mine, key=lambda i: (abs(i.opened_at - told["opened_at"]), i.id))
    cause, before = (x["entity"] if x else "nobody" for x in (
        next(iter(serial.incident(best)["causes"]), None), next(iter(told["causes"]), None)))
    found = [] if cause == before else [f"{best.id} names {cause} as the cause, {told['id']} named {before}"]
    decided, then = _decided(serial.incident(best)), _decided(told)
    return found + [f"{told['id']}: decided {d}, and the replay did not" for d in sorted(then - decided)] + [
        f"{best.id}: decided {d}, and the run did not" for d in sorted(decided - then)]


def _decided(form: Mapping[str, Any]) -> set[str]:
    return {f"{a['policy']}: {a['decision']} {a['type']} on {a['target']}" for a in form["actions"]}


def _missed(expect: Expect, incidents: list[Incident]) -> Iterator[str]:
    for fault in expect.faults:
        mine = [i for i in incidents if _overlap(fault, i)]
        if not mine:
            yield f"{fault.id}: no incident while {fault.cause} was broken"
            continue
        best = max(mine, key=lambda i: (_overlap(fault, i), -i.opened_at))
        named = best.causes[0].entity if best.causes else "nobody"
        if named not in (fault.cause, *fault.also):
            yield f"{fault.id}: {best.id} names {named} as the cause, expected {fault.cause}"
        taken = [a for i in mine for a in i.actions]
        yield from (f"{fault.id}: expected {_words(d)}, decided {[_taken(a) for a in taken] or 'nothing'}"
                    for d in fault.decisions if not any(_same(d, a) for a in taken))


def _overlap(fault: Fault, incident: Incident) -> int:
    return sum(fault.start - BEFORE_S <= a.since <= fault.end + AFTER_S for a in incident.alerts)


def _same(d: ExpectedDecision, a: Any) -> bool:
    return (d.policy == a.policy and d.decision == a.decision and d.type in (None, a.type)
            and d.target in (None, a.target))


def _words(d: ExpectedDecision) -> str:
    return f"{d.policy}: {d.decision} {d.type or 'any action'}{f' on {d.target}' if d.target else ''}"


def _taken(a: Any) -> str:
    return f"{a.policy}: {a.decision} {a.type} on {a.target}"
