"""What about an incident is worth a message, and what is not. Pure; the caller remembers what was last said."""

from __future__ import annotations

from typing import Any

JSON = dict[str, Any]
ORDER = {"info": 0, "warning": 1, "critical": 2}
QUIET_S = 300.0


def said(form: JSON, at: float) -> JSON:
    """What a message about this incident (in the form of aiops.serial) tells: to be kept, and compared with the next."""
    return {
        "state": form["state"], "severity": form["severity"], "at": at,
        "priority": (form.get("priority") or {}).get("level", ""),
        "cause": form["causes"][0]["entity"] if form["causes"] else "",
        "decisions": sorted(f"{a['id']} {a['decision']}" for a in form["actions"] if a["decision"] in ("act", "ask")),
        "outcomes": sorted(f"{o['action']} {o['status']}" for o in form["outcomes"]),
    }


def kind(before: JSON, now: JSON, minimum: str = "warning") -> str | None:
    """`opened`, `updated`, `resolved`, or None when there is nothing new to say.

    Below `minimum` severity an incident is not mentioned until it grows. A different prime suspect is news at most every
    five minutes; what was done, asked or turned out, and a higher severity or priority, are news at once.
    """
    if not before or before["state"] == "closed":
        return "opened" if now["state"] == "open" and ORDER[now["severity"]] >= ORDER.get(minimum, 0) else None
    if now["state"] == "closed":
        return "resolved"
    grown = ORDER[now["severity"]] > ORDER[before["severity"]] or _more_urgent(before, now)
    done = any(now[k] != before[k] for k in ("decisions", "outcomes"))
    moved = now["cause"] != before["cause"] and now["at"] - before["at"] >= QUIET_S
    return "updated" if grown or done or moved else None


def _more_urgent(before: JSON, now: JSON) -> bool:
    """P1 after P2. What an earlier version said had no priority."""
    return "" < str(now.get("priority", "")) < str(before.get("priority", ""))
