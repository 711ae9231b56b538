"""An incident told in ten lines at most, for whoever is woken by it: everything in them comes from the arithmetic.

What broke, since when, who is hurt, how urgent it is, why this is the cause and not the next one, what was done and whether it
helped, whether it was here before, and what to do now. Works on the JSON form of aiops.serial, as `aiops.story` does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from aiops import story
from aiops.humanise import count, duration, figure, utc
from aiops.types import GOES_ON

JSON = dict[str, Any]
MOST_REASONS, LONGEST, LONGEST_REASON = 3, 500, 150
NEAR = 0.7
"""A second candidate with so large a part of the first one's share is nearly as likely."""
COMES_BACK = 2
"""So often in the week before makes the third time."""
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
CAME = {"helped": "helped", "no_help": "did not help", "worse": "made it worse", "failed": "failed", "undone": "was undone",
        "unknown": "had an unknown result", "done": "was done", "refused": "was refused"}
_TRIED = frozenset(CAME) - {"refused"}
_CONDITION = re.compile(r".* is (?:true|false) \((?P<values>.*?)\)(?P<rest>.*)", re.DOTALL)
_MEASURED = re.compile(r"correlation\.(\w+ = [^,]+)")


def account(form: JSON, now: float) -> list[tuple[str, str]]:
    """(what it is about, one sentence) in the order in which people ask. now: for how long it has lasted."""
    lines = [("What", story.headline(form)), ("Since", _since(form, now)), ("Who is hurt", _hurt(form)),
             ("Priority", _priority(form)), ("Cause", _cause(form)), ("Why not", _second(form)), ("Done", _done(form)),
             ("Result", _result(form)), ("Before", again(form) or _never(form)), ("Now", _now(form))]
    return [(about, _cut(_plain(form, text))) for about, text in lines if text]


def again(form: JSON) -> str:
    """`the third like it in 7 days; on 2026-11-18 Restart helped`; empty for what was not here before."""
    before = form.get("before") or {}
    in_7d, in_90d, latest = before.get("in_7d", 0), before.get("in_90d", 0), before.get("latest") or []
    if not in_90d or not latest:
        return ""
    times = f"the {_ordinal(in_7d + 1)} like it in 7 days" if in_7d else f"the {_ordinal(in_90d + 1)} like it in 90 days"
    told = next((s for s in latest if s["done"]), latest[0])
    day = utc(told["at"], "%Y-%m-%d")
    said = ", which a person called a false alarm" if told["verdict"] == "false_alarm" else ""
    if not told["done"]:
        return f"{times}; on {day} it was over after {duration(told['lasted_s'])} without an action{said}"
    what = ", then ".join(f"{d['type']} {CAME.get(d['status'], d['status'])}" for d in told["done"])
    return f"{times}; on {day} {what}{said}"


def urgency(form: JSON) -> str:
    """`P1`, `P2`, …; empty where it was not judged, by a version before."""
    return str((form.get("priority") or {}).get("level", ""))


def _since(form: JSON, now: float) -> str:
    over = "over" if form["state"] == "closed" else "not over yet"
    over = "the daemon was restarted meanwhile" if story.interrupted(form) else over
    over = f"part of {form['merged_into']} from then on" if form.get("merged_into") else over
    signals = count(len(form.get("alerts") or []), "signal")
    where = count(len(form.get("entities") or []), "entity", "entities")
    return f"{story.since(form, now).removeprefix('since ')}, {over}; {signals} on {where}"


def _hurt(form: JSON) -> str:
    impact = form.get("impact") or {}
    names = [story.name(e) for e in impact.get("entities") or []]
    told = f"{_listed(names)} {'depends' if len(names) == 1 else 'depend'} on it" if names else \
        "nobody who depends on it is known"
    requests = impact.get("requests_per_second")
    if not requests:
        return told
    return told + (f"; the busiest of them usually gets {figure(requests)} requests/s" if names else
                   f"; it usually gets {figure(requests)} requests/s itself")


def _listed(names: Sequence[str], most: int = 4) -> str:
    """`a, b and c`, `a, b, c, d and 9 more`."""
    shown, left = list(names[:most]), len(names) - most
    last = f"{left} more" if left > 0 else shown.pop()
    return f"{', '.join(shown)} and {last}" if shown else last


def _priority(form: JSON) -> str:
    priority = form.get("priority") or {}
    if not priority.get("reasons"):
        return ""
    return f"{priority['level']}: {_weighed(priority['reasons'])}; {priority['score']:.2f} in all"


def _cause(form: JSON) -> str:
    causes = form.get("causes") or []
    if not causes:
        return "no candidate stands out"
    return f"{story.name(causes[0]['entity'])} ({causes[0]['score']:.0%}): {_weighed(causes[0]['reasons'])}"


def _second(form: JSON) -> str:
    """What speaks against the next candidate; where nothing does, that less speaks for it."""
    causes = form.get("causes") or []
    if len(causes) < 2:
        return "nobody else that could be the cause deviates" if causes else ""
    first, second = causes[:2]
    who = f"{story.name(second['entity'])} ({second['score']:.0%})"
    against = [r for r in second["reasons"] if r["contribution"] < 0]
    if second["score"] >= NEAR * first["score"]:
        who += " is nearly as likely"
    if against:
        return f"{who}: {_weighed(against)}"
    mine, theirs = (sum(r["contribution"] for r in c["reasons"]) for c in (first, second))
    told = f"as much speaks for it, {theirs:.2f}" if f"{theirs:.2f}" == f"{mine:.2f}" else \
        f"less speaks for it, {theirs:.2f} against {mine:.2f}"
    return f"{who}: {told}; above all {_weighed(second['reasons'], 1)}"


def _weighed(reasons: Sequence[JSON], most: int = MOST_REASONS) -> str:
    """The weightiest first, each with what it adds or takes."""
    best = sorted(reasons, key=lambda r: -abs(r["contribution"]))
    return "; ".join(f"{_cut(r['text'], LONGEST_REASON)} ({r['contribution']:+.2f})" for r in best[:most])


def _done(form: JSON) -> str:
    """What was carried out or asked, the newest first; else what would have been done, else why nothing was. Beside that what
    was refused, unless its policy is not for this."""
    actions = sorted(form.get("actions") or [], key=lambda a: -a["at"])
    told = [a for a in actions if a["decision"] in ("act", "ask")] or [a for a in actions if a["decision"] == "shadow"]
    if told:
        more = f"; and {len(told) - 2} more" if len(told) > 2 else ""
        return "; ".join(_action(a) for a in told[:2]) + more + _besides(actions, told)
    if actions:
        return f"nothing; {_refusal(actions[0])}"
    return "nothing; no policy is for this"


def _action(a: JSON) -> str:
    words = {"act": "did", "ask": "asked whether to", "shadow": "would have done (only rehearsed)"}[a["decision"]]
    what = f"{words} {a['type']} {story.name(a['target'])}"
    return f"{utc(a['at'], '%H:%M:%S')} {what} ({a['policy']}, because {_why(a['reason'])})"


def _besides(actions: Sequence[JSON], told: Sequence[JSON]) -> str:
    others = [a for a in actions if a["decision"] == "refused" and a.get("state") != "condition" and not any(
        (a["policy"], a["type"]) == (b["policy"], b["type"]) for b in told)]
    return f"; {_refusal(others[0])}" if others else ""


def _refusal(a: JSON) -> str:
    return f"{a['type']} ({a['policy']}) was refused: {_why(a['reason'])}"


def _why(reason: str) -> str:
    """Of a condition its values only: who is woken knows no policy by heart. All, where it does not hold: any may be why."""
    found = _CONDITION.fullmatch(reason)
    if not found:
        return reason
    if reason.startswith("no condition met"):
        return f"its condition does not hold: {found['values'].replace('correlation.', '')}"
    return ", ".join(_MEASURED.findall(found["values"])) or found["values"]


def _result(form: JSON) -> str:
    """What came of what was done, and of questions."""
    return "; ".join(_results(form))


def _results(form: JSON) -> Iterator[str]:
    for a in sorted(form.get("actions") or [], key=lambda a: a["at"]):
        end = story.outcome(form, a)
        if end is None or a["decision"] not in ("act", "ask"):
            continue
        said = f": {end['reason']}" if end.get("reason") else ""
        came = CAME.get(end["status"], end["status"])
        yield f"{a['type']} {'was not done' if a['decision'] == 'ask' and end['status'] == 'refused' else came}{said}"


def _never(form: JSON) -> str:
    return "nothing like it is remembered" if form.get("before") is not None else ""


def _now(form: JSON) -> str:
    """The next thing that a person can do."""
    causes = form.get("causes") or []
    if form.get("merged_into"):
        return f"go on with {form['merged_into']}: this is part of it"
    if form["state"] == "closed" and (form.get("before") or {}).get("in_7d", 0) >= COMES_BACK and causes:
        return ("it is over, and the like was here before: what ended it did not last. Look for the reason in "
                f"{story.name(causes[0]['entity'])}")
    if form["state"] == "closed":
        return f"nothing to do; was it worth telling? 'aiops feedback {form['id']} --useful' or '--false-alarm'"
    actions = sorted(form.get("actions") or [], key=lambda a: -a["at"])
    asked = next((a for a in actions if story.waits(form, a)), None)
    if asked:
        return f"answer: 'aiops approve {asked['id']}' or 'aiops reject {asked['id']}'"
    ends = {a["id"]: end["status"] for a in actions if (end := story.outcome(form, a))}
    going = [a for a in actions if a["decision"] == "act" and ends.get(a["id"], "done") == "done"]
    if going:
        return f"wait: whether {going[0]['type']} helps is being watched"
    if not any(a.get("state") == "firing" for a in form.get("alerts") or []):
        elsewhere = next((a["text"] for a in form.get("alerts") or [] if a.get("text", "").startswith(GOES_ON)), "")
        if elsewhere:
            return f"go on with {elsewhere.removeprefix(GOES_ON)}: what is still wrong is there"
        return "wait: nothing deviates any more, and it is over when it stays so"
    where = f": begin with {story.name(causes[0]['entity'])}" if causes else ""
    tried = "what was done did not end it, and" if set(ends.values()) & _TRIED else "nothing is being done by itself;"
    return f"{tried} a person is needed{where}"


def _ordinal(n: int) -> str:
    if n <= len(ORDINALS):
        return ORDINALS[n - 1]
    ending = "th" if 10 < n % 100 < 14 else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}"


def _plain(form: JSON, text: str) -> str:
    """Entities of the incident by their names for people."""
    known = {*(form.get("entities") or []), *((form.get("impact") or {}).get("entities") or []),
             *(c["entity"] for c in form.get("causes") or [])}
    for entity in sorted(known, key=lambda e: (-len(e), e)):
        text = text.replace(entity, story.name(entity))
    return text


def _cut(text: str, most: int = LONGEST) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[:most - 1].rpartition(' ')[0].rstrip(',;: ') or text[:most - 1]}…"
