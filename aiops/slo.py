"""Objectives and how fast their error budgets are spent: several windows, several rates.

After the Google SRE workbook, chapter 5 (https://sre.google/workbook/alerting-on-slos/#6-multiwindow-multi-burn-rate-alerts):
a budget burns where it does so over a long window, so that it matters, and over a short one, so that it still does.
Everything is counted in minutes of event time. Memory is bounded: MOST_WATCHED pairs of objective and signal, three days each.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from aiops.humanise import count, duration, figure, quantity
from aiops.rows import columnar
from aiops.types import Entity, Frame, Signal

MINUTE_S = 60.0
RULES = ((0.02, 60, 5), (0.05, 360, 30), (0.10, 4320, 360))
"""The share of the budget that is spent in a long window, that window and the short one, in minutes."""
KEPT = max(long for _, long, _ in RULES)
MOST_WATCHED = 200


@dataclass(frozen=True, slots=True)
class Slo:
    """`objective` in 0..1: the share that is to be good over `window_s`. The signal is the share (0..1) that is bad, or with
    `below` or `above` a level: a minute is as bad as the share of its values that are not below, or above."""

    name: str
    signal: str
    objective: float
    window_s: float = 30 * 86400.0
    entity: str = "*"
    below: float | None = None
    above: float | None = None

    def covers(self, signal: Signal) -> bool:
        """Whether this signal tells of it."""
        return self.signal in (signal.name, signal.key) and fnmatchcase(signal.entity, self.entity)

    def bad(self, value: float) -> float:
        """The share that is bad in a tick, 0..1."""
        if self.below is not None:
            return float(not value < self.below)
        if self.above is not None:
            return float(not value > self.above)
        return min(1.0, max(0.0, value))


@dataclass(frozen=True, slots=True)
class Burn:
    """`rate` times as fast as it may, the error budget is spent, over the long window of `RULES[rule]`; `spent` is the share of
    the whole budget that went in it."""

    slo: str
    entity: Entity
    rule: int
    rate: float
    spent: float
    window_s: float

    def __str__(self) -> str:
        long_s = RULES[self.rule][1] * MINUTE_S
        return (f"'{self.slo}' spends its error budget {figure(self.rate, 2)} times too fast: {quantity(self.spent, 'ratio')} of "
                f"that of {duration(self.window_s)} in the last {duration(long_s)}")


class Slos:
    """Counts bad minutes by objective and signal. What was not measured counts as good."""

    def __init__(self, specs: Sequence[Slo] = ()) -> None:
        self.specs = {s.name: s for s in specs}
        self.notes: list[str] = []
        self._at = -math.inf
        self._rows: dict[tuple[str, Entity, str], int] = {}
        self._columns: list[tuple[int, int, Slo]] = []
        self._size = 0
        self._minute = 0
        self._bad = np.zeros((0, KEPT), np.float32)
        self._count = np.zeros(0)
        self._burning: tuple[Burn, ...] | None = None

    def update(self, frame: Frame) -> None:
        """Take in one step. One that is not later than the last is passed over: it was counted before a restart."""
        self.notes = []
        if not self.specs or not frame.at > self._at:
            return
        self._at, self._burning = frame.at, None
        self._watch(frame.signals)
        self._turn(int(frame.at // MINUTE_S))
        slot = self._minute % KEPT
        for column, row, slo in self._columns:
            value = float(frame.values[column])
            if math.isfinite(value):
                n = self._count[row] = self._count[row] + 1
                self._bad[row, slot] += (slo.bad(value) - self._bad[row, slot]) / n

    def renumber(self) -> None:
        """Columns have other numbers from the next step on."""
        self._columns, self._size = [], 0

    def burns(self, entities: Collection[Entity]) -> tuple[Burn, ...]:
        """Of the objectives of these entities those whose budget burns, the fastest first."""
        if self._burning is None:  # once a step: a storm has many incidents
            found = [burn for (name, entity, _), row in self._rows.items() if (burn := self._burn(self.specs[name], entity, row))]
            self._burning = tuple(sorted(found, key=lambda b: (b.rule, -b.rate, b.slo, b.entity)))
        return tuple(b for b in self._burning if b.entity in entities)

    def _burn(self, slo: Slo, entity: Entity, row: int) -> Burn | None:
        budget = 1.0 - slo.objective
        for rule, (share, long, short) in enumerate(RULES):
            least = max(1.0, share * slo.window_s / (long * MINUTE_S))
            rate = self._mean(row, long) / budget
            if rate >= least and self._mean(row, short) / budget >= least:
                return Burn(slo.name, entity, rule, rate, rate * long * MINUTE_S / slo.window_s, slo.window_s)
        return None

    def _mean(self, row: int, minutes: int) -> float:
        slots = np.arange(self._minute - minutes + 1, self._minute + 1) % KEPT
        return float(self._bad[row, slots].sum(dtype=np.float64)) / minutes

    def _turn(self, minute: int) -> None:
        """Empty the minutes that have come since."""
        gone = min(minute - self._minute, KEPT)
        if gone > 0:
            self._bad[:, np.arange(minute - gone + 1, minute + 1) % KEPT] = 0.0
            self._count[:] = 0.0
            self._minute = minute

    def _watch(self, signals: Sequence[Signal]) -> None:
        if len(signals) == self._size:
            return
        new = columnar(signals[self._size:])
        names = {s.signal.partition("{")[0] for s in self.specs.values()}
        left: dict[str, list[Entity]] = {}
        for k in np.flatnonzero(new.by_kind(lambda s: s.name in names, np.bool_)).tolist():
            for slo in (s for s in self.specs.values() if s.covers(new[k])):
                row = self._row((slo.name, new[k].entity, new[k].key))
                if row is None:
                    left.setdefault(slo.name, []).append(new[k].entity)
                else:
                    self._columns.append((self._size + k, row, slo))
        self._size = len(signals)
        self.notes = [_left_out(name, entities) for name, entities in left.items()]

    def _row(self, key: tuple[str, Entity, str]) -> int | None:
        if key not in self._rows:
            if len(self._rows) >= MOST_WATCHED:
                return None
            self._rows[key] = len(self._rows)
            self._bad = np.vstack([self._bad, np.zeros((1, KEPT), np.float32)])
            self._count = np.append(self._count, 0.0)
        return self._rows[key]

    # ------------------------------------------------------------------------------------------------ over a restart
    def state(self) -> dict[str, Any]:
        """As plain JSON: of each objective and signal the minutes that were bad."""
        rows = [[*key, _sparse(self._bad[row], self._minute)] for key, row in self._rows.items() if self._bad[row].any()]
        return {"at": self._at if math.isfinite(self._at) else None, "rows": rows}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from an earlier run; objectives that there are no more are forgotten."""
        if state["at"] is None:
            return
        self._at = float(state["at"])
        self._minute = int(self._at // MINUTE_S)
        for name, entity, key, minutes in state["rows"]:
            row = self._row((name, entity, key)) if name in self.specs else None
            if row is not None:
                self._fill(row, minutes)

    def _fill(self, row: int, minutes: Iterable[tuple[int, float]]) -> None:
        for minute, bad in minutes:
            if self._minute - KEPT < minute <= self._minute:
                self._bad[row, minute % KEPT] = bad


def _left_out(name: str, entities: Sequence[Entity]) -> str:
    others = f" and {count(len(entities) - 1, 'other')}" if len(entities) > 1 else ""
    return (f"slos: '{name}' is not watched on {entities[0]}{others}: {MOST_WATCHED} pairs of an objective and a signal are the "
            "most. Give the objective an 'entity'.")


def _sparse(bad: np.typing.NDArray[np.float32], minute: int) -> list[list[float]]:
    """[minute, share] of those that were bad."""
    minutes = np.arange(minute - KEPT + 1, minute + 1)
    shares = bad[minutes % KEPT]
    return [[int(m), float(s)] for m, s in zip(minutes[shares > 0].tolist(), shares[shares > 0].tolist(), strict=True)]
