"""From an incident to what a policy sees: is it triggered, by what, and which measurements may its conditions read."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from aiops.meaning import Meanings
from aiops.policy.evidence import Evidence
from aiops.policy.ledger import Attempt
from aiops.policy.load import Policy, Step
from aiops.policy.schema import AnomalyTrigger
from aiops.types import Cause, Entity, Incident, entity_parts

PAGED = 0.95
"""The sensitivity that every incident passes: those of the stated budget."""
LEAST_SHARE = 0.002
SEVERITY = {"info": 0, "warning": 1, "critical": 2}


@dataclass(frozen=True, slots=True)
class Hit:
    """What triggered a policy: an alert or anomaly, reduced to what conditions may read."""

    entity: Entity
    name: str
    score: float
    p_value: float
    value: float
    expected: float
    detector: str
    since: float
    at: float


class Seen:
    """All that may trigger a policy in an incident, looked at once for all policies.

    `hits`: alerts, once for each of their detectors, and anomalies; `named`: the same by signal; `whole`: those of them that are
    about an entity as a whole.
    """

    def __init__(self, incident: Incident, evidence: Evidence) -> None:
        self._evidence, self._over = evidence, dict[tuple[Entity, str], bool]()
        self.hits: list[Hit] = []
        self.whole: list[Hit] = []
        self.named: dict[str, list[Hit]] = {}
        for hit, whole in _seen(incident, evidence):
            self.hits.append(hit)
            self.named.setdefault(hit.name, []).append(hit)
            if whole:
                self.whole.append(hit)

    def subsided(self, hit: Hit) -> bool:
        """Whether it is over already, although its alert still fires."""
        key = (hit.entity, hit.name)
        if key not in self._over:
            self._over[key] = self._evidence.subsided(*key)
        return self._over[key]


def triggered(policy: Policy, incident: Incident, seen: Seen, meanings: Meanings) -> Hit | None:
    """The newest evidence that fits trigger and match, the strongest of it; what is not over first. None where there is none."""
    spec = policy.spec
    least = spec.trigger.severity if not isinstance(spec.trigger, AnomalyTrigger) else "info"
    if SEVERITY[incident.severity] < max(SEVERITY[spec.match.severity], SEVERITY[least]):
        return None
    hits = _hits(policy, incident, seen, meanings)
    here = {e for e in {h.entity for h in hits} if _here(policy, e)}
    fit = (h for h in hits if h.entity in here)
    return max(fit, key=lambda h: (not seen.subsided(h), h.at, h.score, -h.since, h.entity, h.name, h.detector), default=None)


def _here(policy: Policy, entity: Entity) -> bool:
    match = policy.spec.match
    return fnmatch.fnmatchcase(entity, match.entity) and fnmatch.fnmatchcase(entity_parts(entity)[1], match.namespace)


def _hits(policy: Policy, incident: Incident, seen: Seen, meanings: Meanings) -> list[Hit]:
    trigger = policy.spec.trigger
    if not isinstance(trigger, AnomalyTrigger):
        return seen.hits
    if not rare_enough(incident, trigger.sensitivity):
        return []
    names = {trigger.metric, meanings.current(trigger.metric), *meanings.used_by.get(trigger.metric, ())}
    hits = [hit for name in sorted(names) for hit in seen.named.get(name, ())]
    about = {hit.entity for hit in hits} if trigger.model is not None else set()
    hits += [hit for hit in seen.whole if hit.entity in about]
    return [h for h in hits if h.score >= trigger.sensitivity and trigger.model in (None, h.detector)]


def rare_enough(incident: Incident, sensitivity: float) -> bool:
    """Would the incident also have been raised with (1 - sensitivity) / 0.05 times the budget of false incidents?

    At 0.95 and below every incident passes, at 0.99 those that a fifth of the budget would have shown (docs/budget.md).
    """
    share = min((a.budget_share for a in incident.alerts if a.state == "firing"), default=1.0)
    return share <= max((1.0 - sensitivity) / (1.0 - PAGED), LEAST_SHARE) * (1.0 + 1e-9)


def _seen(incident: Incident, evidence: Evidence) -> Iterator[tuple[Hit, bool]]:
    """Every alert that is not over (once for each of its detectors), and every anomaly of an entity that has one; and whether it
    is about the entity as a whole. A single odd sample of somebody who is well, or well again, calls for nothing."""
    alerts = [a for a in incident.alerts if a.state in ("firing", "pending")]
    unwell = {a.entity for a in alerts}
    for a in alerts:
        for detector in a.detectors or ("",):
            yield Hit(a.entity, _bare(a.signal), a.score, a.p_value, a.value, a.expected, detector, a.since, a.at), False
    for n in (n for n in evidence.anomalies(incident) if n.entity in unwell):
        since = n.onset if math.isfinite(n.onset) else n.at
        yield Hit(n.entity, _bare(n.name), n.score, n.p_value, n.value, n.expected, n.detector, since, n.at), n.signal < 0


def _bare(name: str) -> str:
    """The signal's name without its labels."""
    return name.split("{", 1)[0]


def measure(policy: Policy, incident: Incident, evidence: Evidence) -> dict[str, float]:
    """The map `correlation`. What is not known is left out, so that a condition over it is not met."""
    out: dict[str, float | None] = {}
    lines: list[int] = []
    for item in policy.spec.diagnosis.correlations:
        if item.logs is not None:
            lines.append(evidence.log_count(item.logs, incident))
            out[item.key] = float(lines[-1])
        elif item.events is not None:
            out[item.key] = float(evidence.event_count(item.events, incident))
        else:
            out[item.key] = evidence.measure(item.metric or "", incident)
    for name in policy.wanted:
        out[name] = evidence.measure(name, incident)
    if lines:
        out.setdefault("logs", float(sum(lines)))
    return {k: v for k, v in out.items() if v is not None and math.isfinite(v)}


def onset(incident: Incident) -> float:
    """When the newest of the alerts that fire began; long ago where none does."""
    return max((a.since for a in incident.alerts if a.state == "firing"), default=-math.inf)


def base_scope(incident: Incident, hit: Hit, correlation: dict[str, float], now: float,
               around: Mapping[str, str] = MappingProxyType({}), affected: int = 0) -> dict[str, Any]:
    """Everything that conditions read but `target` and `history`, which hang on the action. around, affected: see Evidence."""
    return {"correlation": correlation, "anomaly": _anomaly(hit, now), "incident": _incident(incident, now),
            "cause": _cause(incident.causes[0]) | {"pods": float(affected)} | dict(around) if incident.causes else {}, "now": now}


def _anomaly(hit: Hit, now: float) -> dict[str, Any]:
    numbers = {"score": hit.score, "p_value": hit.p_value, "value": hit.value, "expected": hit.expected}
    known = {k: v for k, v in numbers.items() if math.isfinite(v)}
    return known | {"metric": hit.name, "detector": hit.detector, "age_s": now - hit.since} | entity_scope(hit.entity)


def _incident(incident: Incident, now: float) -> dict[str, Any]:
    return {"id": incident.id, "severity": incident.severity, "age_s": now - incident.opened_at,
            "entities": list(incident.entities), "impact": incident.impact.weight,
            "alerts": float(sum(a.state in ("firing", "pending") for a in incident.alerts))}


def _cause(cause: Cause) -> dict[str, Any]:
    return entity_scope(cause.entity) | {"score": cause.score, "signals": list(cause.signals)}


def entity_scope(entity: Entity) -> dict[str, Any]:
    kind, namespace, name = entity_parts(entity)
    return {"entity": entity, "kind": kind, "namespace": namespace, "name": name}


def history_scope(past: list[Attempt], now: float) -> dict[str, Any]:
    """What a policy did to a target: counts by how they ended, and how long ago the last one was."""
    mine = [a for a in past if a.acted_at is not None]
    out: dict[str, Any] = {"attempts": float(len(mine))}
    out |= {state: float(sum(a.state == state for a in mine)) for state in ("helped", "no_help", "worse", "failed")}
    return out | ({"last_s": now - max(a.acted_at or 0.0 for a in mine)} if mine else {})


def template_values(incident: Incident, around: Mapping[str, str]) -> dict[str, str]:
    """What `${…}` may be filled with. around: of the first cause, see Evidence."""
    values = {"incident.id": incident.id}
    if incident.causes:
        kind, namespace, name = entity_parts(incident.causes[0].entity)
        values |= {"cause.kind": kind, "cause.namespace": namespace, "cause.name": name}
        values |= {f"cause.{key}": value for key, value in around.items()}
    return values


def namespace_for(policy: Policy, step: Step, incident: Incident, hit: Hit) -> str:
    """Where an unqualified target is looked for: the policy's own namespace, that of the entity it speaks of, the only
    one that the guards allow, the only one in the incident; else `default`, as kubectl does."""
    cause = entity_parts(incident.causes[0].entity)[1] if incident.causes else ""
    by_cause = any("cause." in str(v) for v in step.target.values())
    trigger = entity_parts(hit.entity)[1]
    literal = [n for n in policy.spec.guards.namespaces if not any(c in n for c in "*?[")]
    around = sorted({entity_parts(e)[1] for e in incident.entities} - {""})
    candidates = [policy.namespace or "", *([cause, trigger] if by_cause else [trigger, cause]),
                  literal[0] if len(literal) == 1 else "", around[0] if len(around) == 1 else ""]
    return next((c for c in candidates if c), "default")
