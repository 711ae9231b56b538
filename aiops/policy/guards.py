"""What keeps a right decision from doing harm. Each guard is a pure function: a reason to refuse, or None.

Order matters only for which reason is shown. In shadow, earlier shadow decisions count as if they had been done, so
that a rehearsal shows what the policy would really do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from aiops.kinds import SYSTEM, within
from aiops.policy.ledger import FRUITLESS, JUDGED, Attempt, Ledger
from aiops.policy.schema import Spec
from aiops.quantities import format_duration
from aiops.types import entity_parts

HALF_OPEN_S = 86400.0


@dataclass(frozen=True, slots=True)
class Question:
    """May this policy do that now? `past` holds every other attempt; `age_s` is that of the newest evidence; `maintenance` says
    which window somebody concerned is in, `explained` which incident explains this one, `subsided` what asked for it and is as
    usual again; `own` is the attempt itself, where it was asked before; `stopped` says who stopped everything; `recovers`: it
    gives back what was taken away; `cluster_wide`: it may act on what belongs to no namespace."""

    policy: str
    spec: Spec
    incident: str
    target: str
    disruptive: bool
    now: float
    age_s: float
    past: Ledger
    rehearsal: bool = False
    maintenance: str = ""
    own: str = ""
    stopped: str = ""
    recovers: bool = False
    explained: str = ""
    subsided: str = ""
    onset: float = math.inf
    cluster_wide: bool = True

    @property
    def namespace(self) -> str:
        return entity_parts(self.target)[1]

    def acted(self) -> list[Attempt]:
        """Attempts of this policy that touched the target, or in a rehearsal would have."""
        return [a for a in self.past.on(self.policy, self.target)
                if a.id != self.own and a.acted_at is not None and (self.rehearsal or not a.rehearsed)]


def stopped(q: Question) -> str | None:
    """Somebody pulled the brake."""
    return q.stopped or None


def namespace(q: Question) -> str | None:
    """Everywhere but the cluster's own namespaces, which must be named word for word; or only where it is allowed.

    A node is in none: whose pods are on it is for the action to look at, which is told the namespaces.
    """
    allowed = q.spec.guards.namespaces
    if not q.namespace:
        return None if q.cluster_wide else f"{q.target} belongs to no namespace; this policy acts in {', '.join(allowed)} only"
    if q.namespace in SYSTEM and q.namespace not in allowed:
        return f"namespace {q.namespace} belongs to the cluster itself; name it in guards.namespaces to allow it"
    if allowed and not within(q.namespace, allowed):
        return f"namespace {q.namespace} is not among guards.namespaces ({', '.join(allowed)})"
    return None


def maintenance(q: Question) -> str | None:
    """People work there on purpose: what looks broken may be taken apart."""
    return f"somebody concerned is under {q.maintenance}" if q.maintenance else None


def window(q: Question) -> str | None:
    """People want to be there when something is changed, or nothing changed while everybody shops."""
    guards = q.spec.guards
    closed = next((w.when for w in guards.not_during if w.when.around(q.now)), None)
    if closed:
        return f"guards.notDuring: {closed}"
    if guards.windows and not any(w.when.around(q.now) for w in guards.windows):
        return f"outside guards.windows ({'; '.join(str(w.when) for w in guards.windows)})"
    return None


def evidence(q: Question) -> str | None:
    """Old evidence is no ground for an action."""
    most = q.spec.guards.max_evidence_age
    if q.age_s <= most:
        return None
    if not math.isfinite(q.age_s):
        return "no evidence is known any more"
    return f"the newest evidence is {format_duration(round(q.age_s))} old; at most {format_duration(most)} is allowed"


def subsided(q: Question) -> str | None:
    """Alerts fire on for a while; what is as usual again calls for nothing. It is looked at anew in every step."""
    return f"{q.subsided} is as usual again" if q.subsided and not q.recovers else None


def recovering(q: Question) -> str | None:
    """What helped gets the time to be seen: only what began after it calls for more."""
    helped = q.past.helped_in(q.incident)
    if helped is None or helped.id == q.own or q.onset > (helped.done_at or 0.0):
        return None
    return f"{helped.type} of {helped.target} by {helped.policy} helped, and nothing has begun since"


def explained(q: Question) -> str | None:
    """Who treats symptoms hurts the innocent: what it depends on comes first."""
    return f"{q.explained} explains this: what this depends on is treated first" if q.explained else None


def busy(q: Question) -> str | None:
    """One action at a time for each incident and for each target."""
    for a in q.past.live("incident", q.incident):
        if a.id != q.own:
            return f"{a.type} of {a.target} by {a.policy} ({a.id}) is not finished"
    for a in q.past.live("target", q.target):
        if a.id != q.own and a.acted_at is not None:
            return f"{a.target} is still being treated by {a.policy} ({a.id}) for {a.incident}"
    return None


def breaker(q: Question) -> str | None:
    """Stop what does not help: on this target, or wherever this policy acts. Not what gives something back."""
    return None if q.recovers else _on_target(q) or _of_policy(q)


def _on_target(q: Question) -> str | None:
    """After so many attempts in a row that did not help, or one that made it worse. One probe is allowed after a day."""
    ended = [a for a in q.acted() if a.ended_at is not None and a.state in JUDGED]
    ended.sort(key=lambda a: (a.ended_at or 0.0, a.id))
    row = list(takewhile(lambda a: a.state in FRUITLESS, reversed(ended)))
    worse = next((a for a in row if a.state == "worse"), None)
    if not row or (len(row) < q.spec.escalate.after and not worse) or q.now - (row[0].ended_at or 0.0) > HALF_OPEN_S:
        return None
    if worse:
        return f"{worse.type} of {q.target} made it worse; escalate to {q.spec.escalate.to}"
    return f"{len(row)} attempt{'s' if len(row) > 1 else ''} on {q.target} did not help; escalate to {q.spec.escalate.to}"


def _of_policy(q: Question) -> str | None:
    """After so many of its last attempts, on whatever target. Then one probe at a time, until one helps."""
    setting = q.spec.guards.breaker
    useless, last = _open(q.past.verdicts(q.policy), setting.useless, setting.of)
    if not useless:
        return None
    said = f"{useless} of the last attempts of this policy did not help; escalate to {q.spec.escalate.to}"
    probe = next((a for a in q.past.live("policy", q.policy) if a.id != q.own), None)
    if probe:
        return f"{said}. {probe.type} of {probe.target} ({probe.id}) shows whether it helps again"
    left = setting.probe_after - (q.now - last)
    return f"{said}. One more is tried in {format_duration(max(1.0, round(left)))}" if left > 0 else None


def _open(verdicts: Sequence[tuple[float, str, bool]], most: int, of: int) -> tuple[int, float]:
    """How many of the last `of` did not help, and when the last one ended; 0 while that is fewer than `most`.

    What helps while it is open closes it, and the count begins anew.
    """
    recent: list[bool] = []
    for _, _, helped in verdicts:
        is_open = recent.count(False) >= most
        recent = [] if helped and is_open else [*recent, helped][-of:]
    useless = recent.count(False)
    return (useless, verdicts[-1][0]) if useless >= most else (0, 0.0)


def cooldown(q: Question) -> str | None:
    """Time between two actions of the policy on one target."""
    last = max((a.acted_at or 0.0 for a in q.acted()), default=None)
    wait = q.spec.guards.cooldown
    if last is None or q.now - last >= wait:
        return None
    left = format_duration(max(1.0, round(last + wait - q.now)))
    return f"cooldown: the last action on {q.target} was {format_duration(round(q.now - last))} ago; wait {left} more"


def rate(q: Question) -> str | None:
    """At most so many actions of this policy in a window."""
    limit = q.spec.guards.max_actions
    recent = q.past.acted(q.policy, q.now - limit.per, False)
    if q.rehearsal:
        recent += q.past.acted(q.policy, q.now - limit.per, True)
    if recent < limit.count:
        return None
    return f"{recent} actions in the last {format_duration(limit.per)}; guards.maxActions allows {limit.count}"


def unavailable(q: Question) -> str | None:
    """Not more disruptive actions at once in a namespace than may be unavailable."""
    if not q.disruptive:
        return None
    most = q.spec.guards.max_unavailable
    most = most if isinstance(most, int) else 1
    others = q.past.disruptions(q.namespace, q.own)
    if others < most:
        return None
    return f"{others} disruptive action(s) under way in namespace {q.namespace}; guards.maxUnavailable is {most}"


GUARDS: tuple[Callable[[Question], str | None], ...] = (
    stopped, namespace, maintenance, window, evidence, subsided, recovering, explained, busy, breaker, cooldown, rate,
    unavailable)


def refuse(q: Question) -> tuple[str, str] | None:
    """The first guard that says no, as (its name, its reason)."""
    for guard in GUARDS:
        reason = guard(q)
        if reason:
            return guard.__name__, reason
    return None
