"""How often one template is logged by one entity: its rate, how much that varies, and how long it is silent between."""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass

FORGET = 0.02
MIN_RATE = 0.05
STEADY_AFTER = 60
"""Ticks in which it must have been logged before its silence says anything."""
STEADY_GAP = 12.0
"""Its longest silence so far is at most so many usual ones: else it has no habit."""
FORGET_GAP = 0.002


@dataclass(slots=True)
class Habit:
    """rate: lines a tick; spread: variance over rate, at least 1; ticks: in which it was logged.

    at, line: when it was last logged, in seconds and in lines of its entity; gap_s, gap_lines: the usual silence between two
    ticks with it; longest_s, longest_lines: the longest, slowly forgotten. tick: the last tick that the rate knows of.
    """

    tick: int
    at: float
    line: int
    rate: float = 0.0
    spread: float = 1.0
    ticks: int = 0
    gap_s: float = 0.0
    gap_lines: float = 0.0
    longest_s: float = 0.0
    longest_lines: float = 0.0

    def row(self) -> list[float]:
        """All fields, in this order."""
        return list(astuple(self))

    @classmethod
    def of(cls, row: list[float]) -> Habit:
        tick, at, line, rate, spread, ticks, *gaps = row
        return cls(int(tick), at, int(line), rate, spread, int(ticks), *gaps)

    def usual(self, tick: int) -> float:
        """Lines a tick, by now: it fell in each tick without one."""
        return self.rate * (1.0 - FORGET) ** max(0, tick - 1 - self.tick)

    def burst(self, count: int, tick: int) -> float:
        """p-value of so many lines in one tick."""
        rate = max(self.usual(tick), MIN_RATE)
        return poisson_tail(count / self.spread, rate / self.spread)

    def silence(self, at: float, line: int) -> float:
        """p-value of its silence by now: the larger of what time and what the entity's other lines say. 1 without a habit."""
        if (self.ticks < STEADY_AFTER or self.longest_s > STEADY_GAP * self.gap_s
                or self.longest_lines > STEADY_GAP * self.gap_lines):
            return 1.0
        longest_of = math.log(self.ticks + 1.0)  # of n exponential gaps the longest is about ln n usual ones
        return max(math.exp(-(at - self.at) / max(self.gap_s, self.longest_s / longest_of, 1e-9)),
                   math.exp(-(line - self.line) / max(self.gap_lines, self.longest_lines / longest_of, 1e-9)))

    def learn(self, count: int, tick: int, at: float, line: int) -> None:
        """It was logged `count` times in this tick; one burst does not change what is usual."""
        self.ticks += 1
        share = max(FORGET, 1.0 / self.ticks)
        before = self.usual(tick)
        limit = before + 3.0 * math.sqrt(self.spread * (before + 1.0)) if self.ticks > 30 else math.inf
        near = min(float(count), limit)
        self.spread = max(1.0, self.spread + share * ((near - before) ** 2 / max(before, 1.0) - self.spread))
        self.rate, self.tick = before + share * (near - before), tick
        if self.ticks > 1:
            self._learn_gap(at - self.at, line - self.line, max(FORGET, 1.0 / (self.ticks - 1)))
        self.at, self.line = at, line

    def _learn_gap(self, seconds: float, lines: float, share: float) -> None:
        self.gap_s += share * (seconds - self.gap_s)
        self.gap_lines += share * (lines - self.gap_lines)
        self.longest_s = max(seconds, self.longest_s * (1.0 - FORGET_GAP))
        self.longest_lines = max(lines, self.longest_lines * (1.0 - FORGET_GAP))


def poisson_tail(count: float, rate: float) -> float:
    """P(X >= count) for X ~ Poisson(rate), by its Chernoff bound beyond the mean: cheap, and never too small."""
    if count <= rate:
        return 1.0
    return math.exp(count - rate - count * math.log(count / rate))
