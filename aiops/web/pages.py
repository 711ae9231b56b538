"""What the two pages show, worked out from the JSON forms; the templates only place it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from aiops import account, story
from aiops.humanise import count, duration, figure, quantity, unit_name, utc
from aiops.types import Counts
from aiops.web import plot
from aiops.web.view import View

JSON = dict[str, Any]
HERE = Path(__file__).parent
MODES = {"observe": "Watches and explains. Does nothing.", "ask": "Asks a person before it does anything.",
         "act": "Does what policies allow, and checks whether it helped."}
STAGES = (("raw_anomalies", "raw anomalies"), ("alerts", "alerts"), ("incidents", "incidents"),
          ("prioritised", "prioritised"), ("actionable", "actionable"))
MOST_VITALS, MOST_PLOTS, MOST_WINDOWS = 48, 24, 10


@dataclass(frozen=True, slots=True)
class Step:
    """One entry of an incident's timeline, whatever it came from."""

    at: float
    kind: str
    text: str


@lru_cache(maxsize=1)
def environment() -> Environment:
    """Templates that escape everything and know how to write numbers and times."""
    made = Environment(loader=PackageLoader("aiops.web"), autoescape=True, undefined=StrictUndefined,
                       trim_blocks=True, lstrip_blocks=True)
    made.filters.update(utc=utc, duration=duration, quantity=quantity, figure=figure, entity=story.name, unit=unit_name,
                        clock=lambda at: utc(at, "%H:%M:%S"), stamp=lambda at: utc(at, "%Y-%m-%dT%H:%M:%SZ"),
                        percent=lambda share: f"{share:.0%}", thousands=lambda n: f"{n:,}")
    made.globals.update(story=story, account=account, count=count, static=_static())
    return made


def overview(view: View) -> str:
    """The page at `/`."""
    status = view.status()
    vitals = view.vitals()
    return environment().get_template("overview.html").render(
        **_frame(status), open=sorted(view.incidents("open", 200), key=story.most_urgent_first),
        closed=view.incidents("closed", 20), working=[w for w in view.maintenance() if w["state"] == "active"][:MOST_WINDOWS],
        calm=_calm(status), funnel=list(_funnel(_counts(status))), groups=_vitals(vitals),
        hidden=max(0, len(vitals) - MOST_VITALS),
        unused=_unused(status))


def incident(view: View, form: JSON) -> str:
    """The page of one incident."""
    status = view.status()
    causes = form["causes"]
    widest = max([abs(r["contribution"]) for c in causes for r in c["reasons"]], default=0.0) or 1.0
    plots, without = _plots(form)
    return environment().get_template("incident.html").render(
        **_frame(status), i=form, causes=causes, widest=widest, plots=plots, without=without, steps=_timeline(form),
        lines=account.account(form, _frame(status)["now"]), decided=story.decided(form), why=form.get("why", []),
        actions=sorted(form["actions"], key=lambda a: (not story.waits(form, a), a["decision"] == "refused", -a["at"])))


def learned(view: View) -> str:
    """The page of what was learned: the track record of actions, and what people's words moved."""
    status = view.status()
    of = {kind: view.learned_of(kind, ()) for kind in ("records", "sensitivity", "accepted")}
    return environment().get_template("learned.html").render(**_frame(status), kinds=view.learned()["kinds"], of=of)


def missing(view: View, name: str) -> str:
    """The page for an incident that is not known."""
    return environment().get_template("missing.html").render(**_frame(view.status()), name=name[:200])


def _frame(status: JSON) -> JSON:
    """What every page has: mode, health, time."""
    counts, sources = _counts(status), status.get("sources") or []
    return {"status": status, "counts": counts, "now": status["at"] or status["started_at"],
            "mode_text": MODES.get(status["mode"], ""), "warming": counts["signals"] - counts["ready"],
            "failing": [s for s in sources if s["state"] == "failing"]}


def _counts(status: JSON) -> JSON:
    """Nothing was counted before the first step."""
    return {**asdict(Counts()), **status["counts"]}


def _unused(status: JSON) -> list[tuple[str, str, int]]:
    """(source, reason, how many) of what could not be used, most first; what was dropped after the sources has none."""
    found = [("", reason, n) for reason, n in _counts(status)["dropped"].items()]
    found += [(s["name"], reason, n) for s in status.get("sources") or [] for reason, n in (s.get("rejected") or {}).items() if n]
    return sorted(((source, reason.replace("_", " "), n) for source, reason, n in found), key=lambda item: -item[2])


def _calm(status: JSON) -> str:
    """What the list of open incidents says while it is empty."""
    counts = _counts(status)
    if not status.get("sources"):
        return "No source is configured, so there is nothing to watch. Add one under 'sources' in the configuration."
    if not counts["signals"]:
        return "Waiting for the first telemetry. Signals appear here as soon as a source has been read."
    warming = counts["signals"] - counts["ready"]
    ready = f"{counts['ready']:,} ready" + (f", {warming:,} warming up" if warming else "")
    failing, sources = sum(s["state"] == "failing" for s in status["sources"]), count(len(status["sources"]), "source")
    if failing:
        verb = "is" if failing == 1 else "are"
        return (f"No incident is open, but {failing} of {sources} {verb} failing: what they would show is not seen. "
                f"{count(counts['signals'], 'signal')} watched, {ready}.")
    return f"Nothing is wrong. {count(counts['signals'], 'signal')} watched, {ready}."


def _funnel(counts: JSON) -> Iterator[tuple[str, int, float]]:
    """Stage, number, and its width in per cent on a logarithmic scale: five orders of magnitude must fit."""
    most = math.log1p(max(counts[key] for key, _ in STAGES)) or 1.0
    for key, label in STAGES:
        yield label, counts[key], round(100 * math.log1p(counts[key]) / most, 1)


def _vitals(vitals: Sequence[JSON]) -> list[tuple[str, list[tuple[JSON, plot.Plot | None]]]]:
    """Small plots by entity, in the order in which the view hands them out."""
    shown = sorted(enumerate(vitals[:MOST_VITALS]), key=lambda item: _first(vitals, item[1]["entity"]))
    grouped = groupby((v for _, v in shown), key=lambda v: str(v["entity"]))
    return [(entity, [(v, plot.spark(v)) for v in group]) for entity, group in grouped]


def _first(vitals: Sequence[JSON], entity: str) -> int:
    return next(k for k, v in enumerate(vitals) if v["entity"] == entity)


def _plots(form: JSON) -> tuple[list[tuple[JSON, plot.Plot]], list[JSON]]:
    """(alert, plot) of every signal with enough points, the suspected cause first; and the alerts that have none."""
    points: dict[tuple[str, str], list[JSON]] = {}
    for p in form.get("points") or []:
        points.setdefault((p["entity"], p["signal"]), []).append(p)
    rank = {c["entity"]: k for k, c in enumerate(form["causes"])}
    alerts = sorted(form["alerts"], key=lambda a: (rank.get(a["entity"], len(rank)), a["p_value"]))
    marks = _marks(form)
    drawn: list[tuple[JSON, plot.Plot]] = []
    without: list[JSON] = []
    for alert in alerts:
        rows = plot.rows(points.get((alert["entity"], alert["signal"]), []))
        until = alert["at"] if alert["state"] == "resolved" else form["closed_at"]
        made = plot.draw(alert["entity"], alert["signal"], alert["unit"], rows, alert["since"], until, marks)
        if made is not None and len(drawn) < MOST_PLOTS:
            drawn.append((alert, made))
        else:
            without.append(alert)
    return drawn, without


def _marks(form: JSON) -> list[plot.Mark]:
    """Where in the plots something was done."""
    acted = [a for a in form["actions"] if a["decision"] == "act" or story.outcome(form, a)]
    marks = [plot.Mark(a["at"], f"{a['type']} {story.name(a['target'])}", "action") for a in acted]
    ends = [o for o in form["outcomes"] if o["status"] in ("helped", "undone")]
    return marks + [plot.Mark(o["at"], story.ended(o), "outcome") for o in ends]


def _timeline(form: JSON) -> list[Step]:
    """Evidence, decisions and outcomes in one order of time."""
    steps = [Step(t["at"], t["kind"], t["text"]) for t in form["timeline"]]
    told = {(step.kind, step.at) for step in steps}
    steps += [Step(a["since"], "signal", f"{story.name(a['entity'])}: {a['signal']} leaves what is normal")
              for a in form["alerts"] if not any(a["signal"] in s.text and a["entity"] in s.text for s in steps)]
    steps += [Step(a["at"], a["decision"], f"{a['policy']} {story.decision(a)} - {a['reason']}") for a in form["actions"]
              if (a["decision"], a["at"]) not in told]
    steps += [Step(o["at"], o["status"], f"{story.ended(o)} - {o['reason']}" if o["reason"] else story.ended(o))
              for o in form["outcomes"] if (o["status"], o["at"]) not in told]
    return sorted(steps, key=lambda s: s.at)


def _static() -> dict[str, str]:
    """Addresses of our static files that change with their content, so that they can be cached for ever."""
    return {p.name: f"/static/{p.name}?v={sha256(p.read_bytes()).hexdigest()[:12]}" for p in (HERE / "static").iterdir()}
