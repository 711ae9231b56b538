"""What people want forgotten is gone before a step begins: `aiops.learned` shows what there is, docs/learning.md explains it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from aiops.alerting import Alerting
from aiops.generations import Models
from aiops.globs import signals_named
from aiops.logcounts import COUNTED, LogCounts
from aiops.masks import Masks
from aiops.models import Columns
from aiops.signals import Door
from aiops.types import Command, ModelEvent

Names = tuple[str, ...]


class Records(Protocol):
    """What came of actions."""

    def forget(self, names: Names) -> int: ...


class Forgetting:
    """move: of so many columns only these stay, in this order, with everybody but the door."""

    def __init__(self, door: Door, models: Models, alerting: Alerting, masks: Masks, records: Records, log_counts: LogCounts,
                 move: Callable[[Columns, int], None]) -> None:
        self._door, self._models, self._log_counts, self._move = door, models, log_counts, move
        self.kinds: Mapping[str, Callable[[Names], int]] = {
            "series": self._series, "models": models.forget, "templates": lambda _: self._templates(), "records": records.forget,
            "accepted": lambda names: masks.accepted.forget(names), "sensitivity": lambda names: masks.sensitivity.forget(names),
            "habits": alerting.habits.unlearn, "budget": lambda _: alerting.budget.forget()}

    def obey(self, at: float, command: Command) -> ModelEvent:
        """Between two steps. What nothing is known of is no error: how many there were is told."""
        kind, names = command.target, command.entities
        count = self.kinds[kind](names) if kind in self.kinds else 0
        what = f"{kind} {', '.join(names)}".rstrip()
        return ModelEvent(at, kind, "reset", "", f"{what}: forgotten by {command.by or 'somebody'}, {count} of them")

    def _series(self, names: Names) -> int:
        """All that detectors learned of these signals (`entity`, or `entity signal`; globs): they begin as new columns."""
        gone = signals_named(names, self._door.signals)
        count = int(np.count_nonzero(gone))
        if not count or not self._models.movable:
            return 0
        self._door.renew(gone)
        self._move(np.flatnonzero(~gone), len(gone))
        return count

    def _templates(self) -> int:
        """Templates have other numbers then, so what was learned of the old ones goes, too."""
        self._models.forget(("logs",))
        self._series(tuple(f"* {name}{end}" for name in COUNTED for end in ("", "{*")))
        return self._log_counts.forget()
