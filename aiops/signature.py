"""The signature of a fault: what is compared when something happens again. Names of pods are never part of it.

Its coarse half, `fault`, is what the track record of actions is kept by (`aiops.policy.learning`): which signal, on what kind
of cause. The whole, `Signature`, is what tells that it was here before: also on which workload, and with which other signals.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from aiops.types import Alert, Entity

SHARED = 0.5
"""Two incidents of one cause are the same again where they have so large a share of their signals in common."""
ONSET_S = 60.0
"""What began later than this after the first may come of what was done, and is not compared."""
MOST_SIGNALS = 50


def fault(signal: str, cause: Entity) -> str:
    """`http_error_rate|service`: the kind of fault; `unknown` where there is no cause."""
    return f"{signal}|{cause.partition('/')[0] or 'unknown'}"


@dataclass(frozen=True, slots=True)
class Signature:
    """`cause`: the class of the suspected cause (`pod of deployment/shop/chat`); `own`: the kinds of fault that it showed as it
    began, `all`: those that anybody showed then; each sorted."""

    cause: str
    own: tuple[str, ...]
    all: tuple[str, ...]

    def same(self, other: Signature) -> bool:
        """Whether it is the same fault again."""
        return self.cause == other.cause and (_share(self.own, other.own) + _share(self.all, other.all)) / 2 >= SHARED


def signature(cause: Entity, group: str, alerts: Iterable[Alert]) -> Signature:
    """cause: the suspected one, which belongs to the class `group`. What was only watched or suppressed is left out."""
    told = [a for a in alerts if a.state in ("firing", "resolved")]
    until = min((a.since for a in told), default=0.0) + ONSET_S
    shown = [(a.entity, fault(a.signal.partition("{")[0], a.entity)) for a in told if a.since <= until]
    own = {f for entity, f in shown if entity == cause}
    return Signature(group, tuple(sorted(own)[:MOST_SIGNALS]), tuple(sorted({f for _, f in shown})[:MOST_SIGNALS]))


def _share(one: Iterable[str], other: Iterable[str]) -> float:
    """What both have of what either has (Jaccard), 0..1."""
    a, b = set(one), set(other)
    return len(a & b) / len(a | b) if a | b else 0.0
