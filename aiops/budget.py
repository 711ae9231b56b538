"""From a budget of false incidents to the alarm level: theory first, then what this fleet's own time looks like.

Theory: with uniform, independent p-values the level that chance crosses once in N samples is ln N - K nats (Lorden 1971;
Shin, Ramdas, Rinaldo, "E-detectors", 2022). Real residuals are neither, so it is counted how often each level of the
ladder would have paged, and the level in force is where that curve meets the budget. docs/budget.md explains it on one page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from aiops import curve
from aiops.curve import Record
from aiops.ladder import RUNGS
from aiops.types import Bools, Floats, Frame

K = -math.log(1e-3)
"""Reference value in nats: what a p-value of 0.001 is worth. Weaker evidence is never reported by detectors."""
MIN_LEVEL = 6.0
"""The least that the theory may ask for. What was counted may lead below it."""
MIN_TICK_S, LONGEST_TICK_S = 0.1, 3600.0
GAP_TICKS = 3.0
"""A tick longer than so many usual ones is a pause and says nothing about the usual one."""
SETTLING_TICKS = 30
"""At first detectors have no opinion: that nothing happens then says nothing."""
YOUNG_S, YOUNG_COUNTS = 86_400.0, 0.1
"""In its first day a fleet does for the first time what it does every day, and what is odd then says little about later:
once the day is over, what was counted in it counts so much."""
SOLVE_S, THEORY_MOVES = 3600.0, 0.05
"""The level is set anew after so long, after each page, and when the theory asks for so many nats more or less."""
CALM_TIMES, CALM_NATS = 1.5, 6.0
"""The level is at most so much above the one that incidents which were not paged ask for by themselves: what nothing
innocent resembles is believed, from the second day on and until people say that it was false more often than not."""
LEAST_MEMORY_S, MOST_MEMORY_S, MEMORY_PERIODS = 7 * 86_400.0, 30 * 86_400.0, 3.0
ROUNDED = 1e-6
HEALED = "healed"
MAX_VERDICTS = 1000
"""Only the newest verdicts count."""
_CLOCKS = ("began", "at", "tick_s", "ticks", "solved_at", "theory", "watched_s")


class Budget:
    """Sets `level`, in nats, so that `incidents` false ones are to be expected in each `per_s` of event time."""

    def __init__(self, incidents: float, per_s: float) -> None:
        self._rate = incidents / per_s
        self._aim = aim(self._rate)
        self._record = Record(memory_s(self._rate))
        self._verdicts: dict[str, str] = {}
        self._began, self._at, self._tick_s, self._ticks = math.inf, -math.inf, 0.0, 0
        self._solved_at, self._theory, self._watched_s = -math.inf, 0.0, 0.0
        self._rates: Floats = np.zeros(0)
        self.level = MIN_LEVEL

    @property
    def memory_s(self) -> float:
        """What is so old counts for 1/e."""
        return memory_s(self._rate)

    @property
    def tick_s(self) -> float:
        """The usual time between two frames."""
        return self._tick_s

    @property
    def reached(self) -> Bools:
        """bool[rungs]: those that are not above the level in force."""
        return np.asarray(self.level >= RUNGS)

    def watch(self, frame: Frame) -> None:
        """Time goes by; now and then, and when something has changed, the level is set anew."""
        tick = max(frame.at - self._at, 0.0) if math.isfinite(self._at) else 0.0
        grown_up = self._comes_of_age(frame.at)
        self._at = frame.at
        self._learn_tick(tick)
        theory = self._by_theory(len(frame.signals))
        if grown_up:
            self._record.weigh(YOUNG_COUNTS)
        if grown_up or frame.at - self._solved_at >= SOLVE_S or abs(theory - self._theory) > THEORY_MOVES:
            self._solve(theory)
        free = float(frame.learn.mean()) if frame.held and len(frame.learn) else 1.0
        self._ticks += 1
        if self._ticks > SETTLING_TICKS:
            self._watched_s += free * min(tick, GAP_TICKS * self._tick_s)

    def count(self, opened: Floats, paged: Floats) -> None:
        """float64[rungs]: incidents that each rung has opened in this step, and those counted before that were now paged."""
        self._record.count(opened, paged, self.level)
        if paged.any():
            self._solve(self._theory)

    def share(self, nats: float) -> float:
        """0..1: with this share of the budget the level would be so high."""
        return min(curve.rate(self._rates, nats) / self._aim, 1.0)

    @property
    def room(self) -> bool:
        """Whether the level in force keeps to the budget, as far as is known: it may be held below what the budget asks for."""
        return not len(self._rates) or curve.rate(self._rates, self.level) <= self._aim * (1.0 + ROUNDED)

    # ------------------------------------------------------------------------------------------------------- people
    def judge(self, incident: str, verdict: str) -> None:
        """What a person said of an incident: `false_alarm` or `useful`."""
        self._verdicts.pop(incident, None)
        self._verdicts[incident] = verdict
        self._bound()

    def _bound(self) -> None:
        if len(self._verdicts) > MAX_VERDICTS:
            del self._verdicts[next(iter(self._verdicts))]

    def healed(self, incident: str) -> None:
        """It was treated and that helped, verified: it was not false, unless a person says so."""
        self._verdicts.setdefault(incident, HEALED)
        self._bound()

    @property
    def verdicts(self) -> list[str]:
        """What people said, or healing showed (`healed`), the newest last. Safe beside a running step."""
        return list(self._verdicts.values())

    @property
    def false_share(self) -> float:
        """Of the incidents that were judged, the share that was false; all of them while nothing is known."""
        return (self._false_alarms() + 1.0) / (len(self._verdicts) + 1.0)

    def _false_alarms(self) -> int:
        return sum(v == "false_alarm" for v in self._verdicts.values())

    # -------------------------------------------------------------------------------------------------------- level
    def _learn_tick(self, tick: float) -> None:
        usual = self._tick_s
        if not usual:
            self._tick_s = min(tick, LONGEST_TICK_S)
        elif tick < GAP_TICKS * usual:
            self._tick_s = usual + 0.2 * (max(tick, usual / 2) - usual)

    def _comes_of_age(self, at: float) -> bool:
        """Is this the first step after the first day?"""
        self._began = min(self._began, at)
        return self._at - self._began < YOUNG_S <= at - self._began

    def _by_theory(self, signals: int) -> float:
        """ln N - K, where N samples are looked at in the time in which the budget allows one false incident."""
        samples = max(signals, 1) / (max(self._tick_s, MIN_TICK_S) * self._rate)
        return max(MIN_LEVEL, math.log(max(samples, 1.0)) - K)

    def _solve(self, theory: float) -> None:
        self._record.watch(self._watched_s, self.level)
        if math.isfinite(self._solved_at):
            self._record.forget(max(self._at - self._solved_at, 0.0))
        self._solved_at, self._theory, self._watched_s = self._at, theory, 0.0
        self._rates = self._record.rates(self._aim, theory, self.false_share)
        self.level = min(curve.level(self._rates, self._aim), self._most())

    def _most(self) -> float:
        """The highest level that is believed to be needed."""
        young = self._at - self._began < YOUNG_S
        if young or 2 * self._false_alarms() > len(self._verdicts):
            return math.inf
        calm = self._record.rates(self._aim, self._theory, 0.0)
        return CALM_TIMES * curve.level(calm, self._aim) + CALM_NATS

    def forget(self) -> int:
        """As if nothing had been counted and nobody had said anything: a new first day. How many verdicts are gone."""
        gone = len(self._verdicts)
        self._record, self._verdicts, self._rates = Record(self.memory_s), {}, np.zeros(0)
        self._began, self._ticks, self._solved_at, self._watched_s = math.inf, 0, -math.inf, 0.0
        return gone

    # -------------------------------------------------------------------------------------------------------- state
    def state(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and maps; floats may be infinite."""
        return {"record": self._record.state(), "verdicts": dict(self._verdicts), "level": self.level,
                "rates": self._rates.tolist(), **{k: getattr(self, f"_{k}") for k in _CLOCKS}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """The budget itself is not restored: another one than before is met from the next step on."""
        self._record.restore(state["record"])
        self._verdicts, self.level = dict(state["verdicts"]), float(state["level"])
        self._rates = np.array(state["rates"], np.float64)
        for k in _CLOCKS:
            setattr(self, f"_{k}", state[k])


def memory_s(rate: float) -> float:
    """For how long to remember: as long as the budget takes for three incidents, a week at least and 30 days at most."""
    return min(max(MEMORY_PERIODS / rate, LEAST_MEMORY_S), MOST_MEMORY_S)


def aim(rate: float) -> float:
    """The rate to aim at. A level that is known from few incidents errs to both sides, and costs more on the low one than
    it saves on the high one: the fewer are expected within memory, the more is kept in reserve."""
    return rate / (1.0 + 1.0 / (4.0 * rate * memory_s(rate)))
