"""Incidents as plain JSON: one form for `replay --json`, the store, the HTTP API and webhooks."""

from __future__ import annotations

import math
from typing import Any

from aiops.types import Action, Alert, Cause, EndState, Incident, ModelEvent, Outcome, Recurrence

JSON = dict[str, Any]


def number(value: float) -> float | None:
    """JSON has no NaN; what is not a number becomes null."""
    return value if math.isfinite(value) else None


def incident(i: Incident) -> JSON:
    return {
        "id": i.id, "title": i.title, "opened_at": i.opened_at, "updated_at": i.updated_at, "closed_at": i.closed_at,
        "state": i.state, "severity": i.severity, "entities": list(i.entities),
        "priority": {"level": i.priority.level, "score": i.priority.score, "reasons": [
            {"text": r.text, "contribution": r.contribution} for r in i.priority.reasons]},
        "impact": {"entities": list(i.impact.entities), "weight": i.impact.weight, "criticality": i.impact.criticality,
                   "requests_per_second": number(i.impact.requests)}, "before": recurrence(i.before),
        "alerts": [alert(a) for a in i.alerts], "causes": [cause(c) for c in i.causes],
        "actions": [action(a) for a in i.actions], "outcomes": [outcome(o) for o in i.outcomes],
        "timeline": [{"at": t.at, "kind": t.kind, "text": t.text} for t in i.timeline], "models": list(i.models),
        "merged_into": i.merged_into or None,
    }


def alert(a: Alert) -> JSON:
    return {
        "entity": a.entity, "signal": a.signal, "since": a.since, "score": a.score, "p_value": a.p_value, "at": a.at,
        "state": a.state, "severity": a.severity, "detectors": list(a.detectors), "value": number(a.value),
        "expected": number(a.expected), "lower": number(a.lower), "upper": number(a.upper), "unit": a.unit,
        "direction": a.direction, "text": a.text,
    }


def cause(c: Cause) -> JSON:
    return {"entity": c.entity, "score": c.score, "signals": list(c.signals),
            "reasons": [{"text": r.text, "contribution": r.contribution} for r in c.reasons]}


def action(a: Action) -> JSON:
    return {"id": a.id, "policy": a.policy, "type": a.type, "target": a.target, "params": dict(a.params),
            "decision": a.decision, "reason": a.reason, "at": a.at, "state": a.state, "incident": a.incident,
            "models": list(a.models)} | ({"answers": list(a.answers)} if a.answers else {})


def recurrence(r: Recurrence) -> JSON:
    return {"in_7d": r.in_7d, "in_90d": r.in_90d, "latest": [
        {"incident": s.incident, "at": s.at, "lasted_s": s.lasted_s, "verdict": s.verdict,
         "done": [{"type": kind, "status": status} for kind, status in s.done]} for s in r.latest]}


def outcome(o: Outcome) -> JSON:
    return {"action": o.action, "status": o.status, "at": o.at, "reason": o.reason}


def end_state(e: EndState) -> JSON:
    return {"at": e.at, "since": e.since, "entity": e.entity, "signal": e.signal, "state": e.state, "by": e.by, "text": e.text,
            "policy": e.policy}


def model_event(e: ModelEvent) -> JSON:
    return {"at": e.at, "detector": e.detector, "kind": e.kind, "model": e.model, "text": e.text}


TIMES = frozenset({"at", "since", "opened_at", "updated_at", "closed_at"})


def rounded(value: Any, digits: int = 6, key: str = "") -> Any:
    """Every float in a JSON value at `digits` significant digits, times at the millisecond: no digest hangs on the last bit."""
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return round(value, 3) if key in TIMES else float(f"{value:.{digits}g}")
    if isinstance(value, dict):
        return {k: rounded(v, digits, k) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(v, digits, key) for v in value]
    return value
