"""What another budget would have paged: the stored history once more through the whole pipeline, once for each budget.

That is exact where a count of remembered evidence would not be: what is paged decides what is learned from afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiops.app import Player
from aiops.quantities import format_duration, parse_duration
from aiops.schema import Budget
from aiops.sinks.journal import runs
from aiops.types import Incident

USUAL = ("1/1d", "1/1w", "1/30d")
NEAR_S = 300.0
"""The same trouble, paged earlier or later, is within so many seconds."""


@dataclass
class Row:
    """One budget. level: in nats, at the end. lost: incidents that the stated budget paged and this one did not."""

    budget: str
    level: float = 0.0
    incidents: list[Incident] = field(default_factory=list)
    false_alarms: int = 0
    useful: int = 0
    lost: list[str] = field(default_factory=list)

    def json(self) -> dict[str, Any]:
        return {"budget": self.budget, "paged": len(self.incidents), "false_alarms": self.false_alarms, "useful": self.useful,
                "unjudged": len(self.incidents) - self.false_alarms - self.useful, "lost": self.lost, "level": self.level}


@dataclass
class History:
    """What was played: how many runs, how many seconds of event time, and a row for each budget, the stated one first."""

    runs: int
    seconds: float
    rows: list[Row]


def parse_budget(text: str) -> Budget:
    """`3/1w`: incidents and time. Raises ValueError with the remedy."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)/(.+)", text.strip())
    if not match:
        raise ValueError(f"{text!r} is not a budget. Write incidents/time, for example 1/1d or 3/1w.")
    incidents, per_s = float(match[1]), parse_duration(match[2])
    if not (incidents > 0 and per_s > 0):
        raise ValueError(f"{text!r}: both must be more than zero. Write for example 1/1d.")
    return Budget.model_validate({"incidents": incidents, "per": format_duration(per_s)})


def show_budget(budget: Budget) -> str:
    return f"{budget.incidents:g}/{format_duration(budget.per_s)}"


def stretches(path: Path) -> list[tuple[Path, str | None]]:
    """What can be played below a path, oldest first: the runs of a journal or of a store's journal, or one recording."""
    for folder in (path, path / "journal"):
        if found := runs(folder):
            return [(folder, run) for run in found]
    return [(path, None)]


def tune(path: Path, budgets: Sequence[str], advance: Callable[[], None] = lambda: None) -> History:
    """The stated budget and each of `budgets` over all that is stored. Raises what reading a recording or journal raises."""
    parts = stretches(path)
    stated, seconds, verdicts = _play(parts, None, advance)
    rows = [stated]
    for text in dict.fromkeys(budgets):
        budget = parse_budget(text)
        if show_budget(budget) != stated.budget:
            row, _, _ = _play(parts, budget, advance)
            rows.append(row)
    for row in rows:
        _judge(row, stated, verdicts)
    return History(len(parts), seconds, rows)


def _play(parts: Sequence[tuple[Path, str | None]], budget: Budget | None,
          advance: Callable[[], None]) -> tuple[Row, float, dict[str, str]]:
    """Incidents, seconds of event time, and what people said, over all parts."""
    row, seconds = Row(""), 0.0
    verdicts: dict[str, str] = {}
    for folder, run in parts:
        player = Player(folder, None, run, budget)
        result = player.play(advance=advance)
        row.budget, row.level = show_budget(player.budget), player.pipeline.alerting.level
        row.incidents += sorted(result.incidents.values(), key=lambda i: (i.opened_at, i.id))
        seconds += result.ended_at - result.started_at
        verdicts |= player.verdicts
    return row, seconds, verdicts


def _judge(row: Row, stated: Row, verdicts: dict[str, str]) -> None:
    """What people said of an incident of the stated budget holds for the same trouble under another."""
    same = {i.id: [s.id for s in stated.incidents if _same(i, s)] for i in row.incidents}
    said = [{verdicts[name] for name in names if name in verdicts} for names in same.values()]
    row.useful = sum("useful" in v for v in said)
    row.false_alarms = sum(v == {"false_alarm"} for v in said)
    kept = {name for names in same.values() for name in names}
    row.lost = [s.id for s in stated.incidents if s.id not in kept]


def _same(a: Incident, b: Incident) -> bool:
    """Do they share an alert, at about the same time?"""
    apart = max(a.opened_at - (b.closed_at or b.updated_at), b.opened_at - (a.closed_at or a.updated_at))
    return apart <= NEAR_S and bool({x.key for x in a.alerts} & {x.key for x in b.alerts})
