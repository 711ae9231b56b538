"""What an incident says to a person, in sentences: one wording for Slack, the page, the console and the command line.

Works on the JSON form of aiops.serial, so that it also reads what comes out of the store or over HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiops.humanise import count, duration, quantity, utc

JSON = dict[str, Any]
DECISIONS = {"act": "acts", "ask": "asks for approval", "shadow": "would act (shadow)", "refused": "refused"}
OUTCOMES = {"done": "done", "refused": "refused", "failed": "failed", "unknown": "result unknown", "helped": "it helped",
            "no_help": "it did not help", "worse": "it made things worse", "undone": "undone"}
ABSENT = "absent"  # the signal of who fell silent, from detectors/absence.py
OF_OTHERS = "alert:"  # before the name of an alert of another system, from aiops/others.py
SEVERITIES = ("critical", "warning", "info")
_WAITING = ("", "asked", "pending", "waiting")


def name(entity: str) -> str:
    """`pod/shop/api-7d4` -> `pod shop/api-7d4`, `node//a` -> `node a`."""
    kind, _, rest = entity.partition("/")
    return f"{kind} {rest.lstrip('/')}" if rest.strip("/") else entity


def level(alert: JSON) -> str:
    """`21 % (expected 0.5 % to 1.2 %)`, as far as the numbers are known; else with, or only, the alert's own text:
    `87 %, runs out in 3 h`."""
    value, unit = alert.get("value"), alert.get("unit", "")
    if value is None:
        return str(alert.get("text") or "")
    low, high, middle = (_plain(alert.get(k), value) for k in ("lower", "upper", "expected"))
    if low is not None and high is not None and quantity(low, unit) != quantity(high, unit):
        return f"{quantity(value, unit)} (expected {quantity(low, unit)} to {quantity(high, unit)})"
    bounds = (("expected", middle), ("expected below", high), ("expected above", low))
    known = next(((word, v) for word, v in bounds if v is not None), None)
    own = f", {alert['text']}" if alert.get("text") else ""
    return quantity(value, unit) + (f" ({known[0]} {quantity(known[1], unit)})" if known else own)


def _plain(x: float | None, beside: float) -> float | None:
    """What is nothing beside the value is 0: nobody wants to read 3.75e-18."""
    return 0.0 if x is not None and abs(x) < 1e-4 * abs(beside) else x


def worst(form: JSON) -> JSON | None:
    """The alert to speak of: of the suspected cause where it has one, the firing and the least probable first. Of what is over
    the one that began first: what came after may have come of what was done."""
    alerts, over = form.get("alerts") or [], form.get("state") == "closed"
    suspects = [c["entity"] for c in form.get("causes") or []][:1]
    return min(alerts, default=None, key=lambda a: (a["entity"] not in suspects, a.get("state") == "resolved",
                                                    a["since"] if over else 0.0, a.get("p_value", 1.0)))


def headline(form: JSON) -> str:
    """What broke, in one sentence."""
    alert = worst(form)
    if alert is None:
        return str(form.get("title") or form["id"])
    text, over = level(alert), form.get("state") == "closed" or alert.get("state") == "resolved"
    if alert["signal"].startswith(OF_OTHERS):
        return f"{name(alert['entity'])}: {alert['signal'].removeprefix(OF_OTHERS)} {'fired' if over else 'is firing'}"
    if alert["signal"] == ABSENT and (over or text):
        return f"{name(alert['entity'])}: {'was silent' if over else text}"
    if over:
        worst_text = level({**alert, "text": ""})
        text = f"is back at {text}" if _inside(alert) else f"was {worst_text or 'abnormal'}"
    elif text:
        text = f"is {text}" if alert.get("value") is not None else f"- {text}"
    return f"{name(alert['entity'])}: {alert['signal']} {text}".rstrip()


def _inside(alert: JSON) -> bool:
    value, low, high = (alert.get(k) for k in ("value", "lower", "upper"))
    return value is not None and (low, high) != (None, None) and (low is None or value >= low) and (high is None or value <= high)


def began(form: JSON) -> float:
    """When it began, which is earlier than when it was opened."""
    since = (float(a["since"]) for a in form.get("alerts") or [] if a.get("since") is not None)
    return min([float(form["opened_at"]), *since])


def lasted(form: JSON, now: float) -> float:
    """Seconds from the beginning to the end, or to `now`."""
    return max(0.0, (form.get("closed_at") or now) - began(form))


def since(form: JSON, now: float) -> str:
    """`since 2026-03-01 14:05:09 UTC (12 min)`, or from when to when."""
    start = utc(began(form))
    if form.get("closed_at"):
        return f"from {start} to {utc(form['closed_at'], '%H:%M:%S UTC')} ({duration(lasted(form, now))})"
    return f"since {start} ({duration(lasted(form, now))})"


def impact(form: JSON, at_most: int = 5) -> str:
    """Who depends on what is broken; empty when nobody is known to."""
    hit = [name(e) for e in (form.get("impact") or {}).get("entities") or []]
    return f"{count(len(hit), 'dependant')}: {listed(hit, at_most)}" if hit else ""


def listed(items: Sequence[str], at_most: int = 5) -> str:
    """`a, b, c and 4 more`."""
    shown = ", ".join(items[:at_most])
    return f"{shown} and {len(items) - at_most} more" if len(items) > at_most else shown


def decision(action: JSON) -> str:
    """`asks for approval: Restart deployment shop/api`."""
    said = (action.get("params") or {}).get("message")
    return (f"{DECISIONS.get(action['decision'], action['decision'])}: {action['type']} {name(action['target'])}"
            + (f": {said}" if said else ""))


def outcome(form: JSON, action: JSON) -> JSON | None:
    """The newest outcome of an action of this incident."""
    found = [o for o in form.get("outcomes") or [] if o["action"] == action["id"]]
    return max(found, key=lambda o: o["at"]) if found else None


def ended(outcome: JSON) -> str:
    """`it helped`, `failed`, …"""
    return OUTCOMES.get(outcome["status"], str(outcome["status"]))


def decided(form: JSON) -> JSON | None:
    """The action to speak of: one that waits for an answer, else what was done, else what would have been or was refused."""
    rank = {"act": 1, "ask": 2, "shadow": 3, "refused": 4}
    return min(form.get("actions") or [], default=None,
               key=lambda a: (0 if waits(form, a) else rank.get(a["decision"], 5), -a["at"]))


def waits(form: JSON, action: JSON) -> bool:
    """Whether a person can still approve or reject it."""
    return bool(action["decision"] == "ask" and form["state"] == "open" and action.get("state", "") in _WAITING
                and outcome(form, action) is None)


def most_urgent_first(form: JSON) -> tuple[bool, str, int, float, float]:
    """For sorting: the open before the closed, the newest first; of the open the most urgent before that, then the worst.

    What an earlier version judged has no priority and goes by its severity.
    """
    if form.get("state") == "closed":
        return True, "", 0, 0.0, -form["opened_at"]
    rank = SEVERITIES.index(form["severity"]) if form.get("severity") in SEVERITIES else len(SEVERITIES)
    priority = form.get("priority") or {"level": f"P{rank + 2}", "score": 0.0}
    return False, priority["level"], rank, -priority["score"], -form["opened_at"]


def interrupted(form: JSON) -> bool:
    """Closed because the daemon stopped watching, not because it got well."""
    timeline = form.get("timeline") or []
    return bool(form["state"] == "closed" and timeline and timeline[-1]["kind"] == "interrupted")
