"""How urgent an incident is, P1 to P4, from arithmetic that a person can check: what is wrong, who is hurt, and how fast it
spends what was promised. docs/incidents.md explains the figures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from aiops.humanise import count, figure
from aiops.slo import Burn
from aiops.types import Impact, Priority, PriorityLevel, Reason, Severity
from correlators.impact import MAX_LISTED

LEVELS: tuple[tuple[PriorityLevel, float], ...] = (("P1", 5.0), ("P2", 3.0), ("P3", 1.0), ("P4", -math.inf))
"""Each level and the score from which it begins."""
STAYS = 0.5
"""A level is left downwards once the score is so much below its beginning: figures near it do not make it flap."""
URGENT = frozenset({"P1", "P2"})
"""Worth interrupting a person."""
OF_SEVERITY: Mapping[Severity, float] = {"critical": 3.0, "warning": 1.0, "info": 0.0}
OF_BURN = (3.0, 2.0, 1.0)
"""By how fast a budget is spent, the fastest first: as `aiops.slo.RULES`."""
MOST = 2.0
"""More dependents, or criticality, than make this add no more."""


def prioritise(severity: Severity, impact: Impact, burns: Sequence[Burn], before: Priority | None = None) -> Priority:
    """before: what it was a step ago, None in the first."""
    reasons = tuple(r for r in (_severity(severity), _dependents(impact), _criticality(impact), _requests(impact),
                                _burn(burns)) if r is not None)
    score = sum(r.contribution for r in reasons)
    return Priority(level(score, before.level if before else None), score, reasons)


def level(score: float, before: PriorityLevel | None = None) -> PriorityLevel:
    """The level of a score; the one before as long as the score is not clearly below it."""
    now = next(name for name, least in LEVELS if score >= least)
    if before is not None and before < now and score >= dict(LEVELS)[before] - STAYS:
        return before
    return now


def _severity(severity: Severity) -> Reason:
    return Reason(f"its severity is {severity}", OF_SEVERITY[severity])


def _dependents(impact: Impact) -> Reason | None:
    """Four times as many add one."""
    if not impact.entities:
        return None
    more, verb = " or more" * (len(impact.entities) >= MAX_LISTED), "depends" if len(impact.entities) == 1 else "depend"
    text = f"{len(impact.entities)}{more} {verb} on it; their criticalities and its own add up to {figure(impact.weight)}"
    return Reason(text, min(MOST, 0.5 * math.log2(1.0 + impact.weight)))


def _criticality(impact: Impact) -> Reason | None:
    """Twice as critical as usual adds one, half takes one; what does not matter at all takes two."""
    if impact.criticality == 1.0:
        return None
    told = math.log2(impact.criticality) if impact.criticality > 0 else -MOST
    return Reason(f"the most critical that it hurts has criticality {figure(impact.criticality)}", max(-MOST, min(MOST, told)))


def _requests(impact: Impact) -> Reason | None:
    """Ten thousand times as many a second add one, and none adds more."""
    if not impact.requests > 0:
        return None
    text = f"the busiest that it hurts usually gets {figure(impact.requests)} requests/s"
    return Reason(text, min(1.0, 0.25 * math.log10(1.0 + impact.requests)))


def _burn(burns: Sequence[Burn]) -> Reason | None:
    """The fastest alone: two objectives over the same requests are not twice the harm."""
    if not burns:
        return None
    worst = min(burns, key=lambda b: (b.rule, -b.rate, b.slo, b.entity))
    others = f" (and {count(len(burns) - 1, 'other objective')})" if len(burns) > 1 else ""
    return Reason(f"{worst}{others}", OF_BURN[worst.rule])
