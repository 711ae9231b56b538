"""How a policy stands on an incident, in the words of `aiops.types.EndName`: of what it tried, or of what kept it from trying."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from aiops.policy.ledger import CLOSED_TO_POLICY, Attempt
from aiops.types import EndName, Standing

_OF_ATTEMPT: Mapping[str, EndName] = {"asked": "waiting", "submitted": "acting", "verifying": "acting", "shadow": "rehearsed",
                                      "rejected": "rejected", "expired": "expired",
                                      "withdrawn": "expired"}
_OF_REFUSAL: Mapping[str, EndName] = {"condition": "condition", "target": "no_target", "maintenance": "maintenance",
                                      "cooldown": "cooldown"}
_WINDOW = re.compile(r"maintenance (\S+) until")


def of_attempt(a: Attempt) -> Standing:
    """`by` is the action while something is still to come of it, afterwards how it ended: `helped`, `no_help`, `unknown`, …"""
    state: EndName = "acting" if a.undo == "running" else _OF_ATTEMPT.get(a.state, "acted")
    words = {"asked": "waits for approval", "submitted": "is being done", "verifying": "is done; whether it helps is watched",
             "shadow": "was only rehearsed", "no_help": "did not help", "worse": "made it worse"}
    told = "is being undone" if a.undo == "running" else words.get(a.state, a.state)
    text = f"{a.type} {a.target} {told}"
    return Standing(a.policy, state, a.state, f"{text}: {a.said}" if a.said else text) if state == "acted" else Standing(
        a.policy, state, a.id, text)


def of_refusal(policy: str, category: str, reason: str) -> Standing:
    """`category` is the name of the guard, or `condition`, or `target`; maintenance is named by its window."""
    window = _WINDOW.search(reason) if category == "maintenance" else None
    return Standing(policy, _OF_REFUSAL.get(category, "blocked"), window[1] if window else category, reason)


def settled(mine: Sequence[Attempt]) -> Attempt | None:
    """The attempt because of which nothing is decided anew: one that is not over first."""
    over = (a for a in reversed(mine) if a.state in CLOSED_TO_POLICY)
    return next((a for a in mine if a.live), None) or next(over, None)
