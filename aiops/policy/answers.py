"""What people answer where a policy asks: how many of them it takes, and with which parameters they want it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from aiops.policy import scope
from aiops.policy.ledger import Attempt
from aiops.policy.load import Policy
from aiops.types import Incident, entity_parts

MOST_KEPT = 20
KEPT = ("max_unavailable", "namespaces")
"""Limits that the policy gave the action; nobody who answers can raise them."""


def altered(policy: Policy, attempt: Attempt, incident: Incident | None, around: Mapping[str, str],
            given: Mapping[str, object]) -> dict[str, object]:
    """The parameters of an action with some fields of its target as a person wants them, checked by the action's own model.

    Whom it is aimed at stays. around: of the incident's cause, see Evidence. Raises ValueError in words for the person.
    """
    step = policy.steps[attempt.index] if attempt.index < len(policy.steps) else None
    if step is None or step.type != attempt.type or incident is None:
        raise ValueError("the policy has changed since it asked. Reject it; it asks anew where it still holds")
    kind, namespace, name = entity_parts(attempt.target)
    if kind in given:
        raise ValueError(f"{kind} stays {attempt.target}: what was asked is about that. Reject it and act by hand")
    own = {**step.target, **given}
    if kind in own:
        own[kind] = name if not namespace or name.startswith("selector:") else f"{namespace}/{name}"
    target, params = replace(step, target=own).aim(scope.template_values(incident, around), namespace)
    if target != attempt.target:
        raise ValueError(f"that would be {target}, and what was asked is about {attempt.target}")
    return params | {limit: attempt.params[limit] for limit in KEPT if limit in attempt.params}


def changed(attempt: Attempt, params: Mapping[str, object], by: str, at: float) -> Attempt:
    """With other parameters: who approved before approved something else."""
    before, after = dict(attempt.params), dict(params)
    said = ", ".join(f"{k} {_shown(before.get(k))} -> {_shown(after.get(k))}"
                     for k in sorted(before.keys() | after.keys()) if before.get(k) != after.get(k))
    return _told(replace(attempt, params=after, approvals=()), f"{by} changed {said}", at) if said else attempt


def approved(attempt: Attempt, by: str, at: float) -> Attempt:
    return _told(replace(attempt, approvals=(*attempt.approvals, by)), f"{by} approved", at)


def too_few(policies: Sequence[Policy], named: int) -> list[str]:
    """Policies that ask for more people than can be told apart. named: how many tokens have a name."""
    told = f"{named} tokens have names" if named else "without tokenFiles a name is what the caller says"
    return [f"Policy {p.name} asks for {p.spec.guards.approvals} approvals, and {told}."
            for p in policies if p.spec.guards.approvals > max(1, named)]


def by_whom(attempt: Attempt) -> str:
    """`anna and ben`."""
    *others, last = attempt.approvals
    return f"{', '.join(others)} and {last}" if others else last


def _told(attempt: Attempt, text: str, at: float) -> Attempt:
    when = datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S UTC")
    return replace(attempt, answers=(*attempt.answers, f"{when}: {text}")[-MOST_KEPT:])


def _shown(value: object) -> str:
    return "nothing" if value is None else json.dumps(value)[:100]
