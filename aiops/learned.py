"""All that was learned, kind by kind, as people are shown it: by the API, the page and the command line.

Read beside a running step: of what a step changes copies are taken. What is forgotten is so by a Command, in `Pipeline.step`.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from aiops import readiness, serial
from aiops.budget import HEALED
from aiops.globs import named, signals_named
from aiops.pipeline import Pipeline
from aiops.policy.learning import Record, fault
from aiops.rows import columnar

JSON = dict[str, Any]
Rows = list[JSON]
KINDS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "records": ("how often an action helped for a kind of fault, and whether it has earned to act", ("fault", "action")),
    "sensitivity": ("how much more or less evidence people's words ask of a signal of a class of entities", ("class", "signal")),
    "accepted": ("levels that people called a false alarm", ("entity", "signal")),
    "habits": ("how much more evidence restless signals need", ("entity", "signal")),
    "budget": ("the alarm level, and what people said of incidents", ()),
    "series": ("what detectors know of each signal", ("entity", "signal")),
    "models": ("all that one detector knows", ("detector",)),
    "templates": ("log templates, and what entities usually log", ("entity",)),
}
"""What each kind is, and which fields of its rows name one: what is forgotten by name is named by the first, or by both."""
WHOLE = ("budget", "templates")
"""Forgotten as a whole only."""
MOST_SEARCHED = 100_000


class UnknownName(Exception):  # noqa: N818 - an answer, not a failure
    """Nothing is called so; the text says what may be meant."""


def summary(pipeline: Pipeline) -> Rows:
    """Each kind, what it is, and how many there are."""
    return [{"kind": kind, "what": what, "count": _count(pipeline, kind)} for kind, (what, _) in KINDS.items()]


def listing(pipeline: Pipeline, kind: str, names: Sequence[str], at: float, limit: int = 100) -> tuple[int, Rows]:
    """How many there are of a kind with these names (globs; all where there are none), and at most `limit` of them."""
    if kind == "series":
        return _series(pipeline, names, limit)
    rows = [row for row in _ROWS[kind](pipeline, at) if named(names, *_names(kind, row))]
    return len(rows), rows[:limit]


def checked(pipeline: Pipeline, kind: str, names: Sequence[str], at: float) -> int:
    """How many of a kind would be forgotten. Raises LookupError for a kind that there is not, UnknownName for a name."""
    if kind not in KINDS:
        raise LookupError(kind)
    if names and kind in WHOLE:
        raise UnknownName(f"{kind} are forgotten as a whole. Give no name")
    for name in names:
        if not listing(pipeline, kind, (name,), at, 1)[0]:
            raise UnknownName(f"among {kind} nothing is named {name!r}.{_hint(pipeline, kind, name, at)}".rstrip("."))
    return listing(pipeline, kind, names, at, 1)[0]


def _hint(pipeline: Pipeline, kind: str, name: str, at: float) -> str:
    if kind == "series":
        known = pipeline.door.signals.distinct()[0][:MOST_SEARCHED]
    else:
        rows = _ROWS[kind](pipeline, at)[:MOST_SEARCHED]
        known = [" ".join(n[:k]) for n in (_names(kind, row) for row in rows) for k in (1, 2)]
    close = difflib.get_close_matches(name, dict.fromkeys(known), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else f" 'aiops learned show {kind}' lists what there is."


def unknown_kind(kind: str) -> str:
    """What to say of a kind that there is not."""
    close = difflib.get_close_matches(kind, KINDS, n=1)
    hint = f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(KINDS)}."
    return f"nothing of kind {kind[:50]!r} is learned. {hint}"


def everything(pipeline: Pipeline, at: float, most: int = 100_000) -> JSON:
    """All kinds with their rows, at most so many of each: what a person can read of an export."""
    return {kind: {"what": what, "rows": listing(pipeline, kind, (), at, most)[1]} for kind, (what, _) in KINDS.items()}


def shifts_in(pipeline: Pipeline, at: float, alerts: Sequence[Mapping[str, Any]]) -> Rows:
    """Of `sensitivity`, what is about these alerts (`entity`, `signal`) of an incident."""
    said = pipeline.masks.sensitivity
    mine = {(said.class_of(a["entity"]), str(a["signal"]).partition("{")[0]) for a in alerts}
    return [row for row in said.rows(at) if (row["class"], row["signal"]) in mine]


# ---------------------------------------------------------------------------------------------------- kinds
def _records(pipeline: Pipeline, at: float) -> Rows:
    """Every record; and of actions that a policy wants to earn and of which nothing is known yet, that they begin at nothing."""
    book: Any = pipeline.decider
    policies, known = list(book.policies.values()), list(book.record.records.items())
    rows = [_record(key, record, policies) for key, record in known]
    told = {(name, row["action"].partition(" of ")[0]) for row in rows for name in row["policies"]}
    for policy in [p for p in policies if p.spec.mode == "earned"]:
        kinds = dict.fromkeys(step.type for step in policy.steps)
        rows += [_record(f"{_metric(policy)}|{kind}", Record(), [policy]) for kind in kinds if (policy.name, kind) not in told]
    return sorted(rows, key=lambda row: (row["fault"], -row["chance"], row["action"]))


def _metric(policy: Any) -> str:
    return getattr(policy.spec.trigger, "metric", None) or "incident"


def _record(key: str, r: Record, policies: Sequence[Any]) -> JSON:
    metric, action = key.split("|")[0], key.rpartition("|")[2]
    kind = action.partition(" of ")[0]
    mine = [p for p in policies if _metric(p) == metric and any(s.type == kind for s in p.steps)]
    return {"fault": fault(key), "action": action, "helped": r.helped, "no_help": r.no_help, "worse": r.worse, "chance": r.chance,
            "lower": r.lower, "upper": r.upper, "earned": r.earned, "standing": r.standing, "policies": [p.name for p in mine],
            "modes": sorted({p.spec.mode for p in mine})}


def _budget(pipeline: Pipeline, at: float) -> Rows:
    budget = pipeline.alerting.budget
    said = budget.verdicts
    return [{"level": budget.level, "within_budget": budget.room, "false_alarms": said.count("false_alarm"),
             "useful": said.count("useful"), "healed": said.count(HEALED), "memory_s": budget.memory_s}]


def _models(pipeline: Pipeline, at: float) -> Rows:
    return [{**{k: m[k] for k in ("detector", "serving", "since")}, "ready": g.serving.ready()}
            for g, m in zip(pipeline.models.all, pipeline.models.summaries(), strict=True)]


def _templates(pipeline: Pipeline, at: float) -> Rows:
    return [{"entity": entity, "templates": texts} for entity, texts in sorted(pipeline.log_counts.known())]


def _series(pipeline: Pipeline, names: Sequence[str], limit: int) -> tuple[int, Rows]:
    facts = pipeline.readiness()
    found = np.flatnonzero(signals_named(names, columnar(facts.signals))).tolist()
    states = readiness.states(facts)
    return len(found), [_one_series(pipeline, facts, k, states[k]) for k in found[:limit]]


def _one_series(pipeline: Pipeline, facts: readiness.Facts, k: int, state: str) -> JSON:
    signal, (_, _, expected, width) = facts.signals[k], pipeline.history.column(k)
    middle, half = (float(expected[-1]), float(width[-1])) if len(expected) else (math.nan, math.nan)
    lower, upper = signal.band(middle, half)
    needed = pipeline.alerting.needed(facts.at, f"{signal.entity}|{signal.key}")
    return {"entity": signal.entity, "signal": signal.key, "unit": signal.unit, "state": state,
            "samples": int(facts.known.samples[k]), "expected": serial.number(middle), "lower": serial.number(lower),
            "upper": serial.number(upper), "evidence_needed": needed}


_ROWS: Mapping[str, Callable[[Pipeline, float], Rows]] = {
    "records": _records, "sensitivity": lambda p, at: p.masks.sensitivity.rows(at),
    "accepted": lambda p, at: p.masks.accepted.rows(at), "habits": lambda p, at: p.alerting.habits.rows(), "budget": _budget,
    "models": _models, "templates": _templates}


def _names(kind: str, row: JSON) -> tuple[str, ...]:
    fields = KINDS[kind][1]
    return tuple(str(row[name]) for name in fields) or (kind,)


def _count(pipeline: Pipeline, kind: str) -> int:
    """Without making a row of each."""
    if kind == "series":
        return len(pipeline.door.signals)
    if kind == "records":
        book: Any = pipeline.decider
        return len(book.record.records)
    return len(_ROWS[kind](pipeline, float(pipeline.readiness().at)))
