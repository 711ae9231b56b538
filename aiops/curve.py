"""How many false incidents each alarm level would cost: counted along the ladder, and continued beyond what was seen.

Beyond the highest rung that was reached the curve goes on as a Weibull tail of shape 1/2, as steep as just below (peaks
over threshold: Leadbetter, "On a basis for peaks over threshold modeling", 1991). docs/budget.md explains it on one page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from aiops.ladder import RUNGS
from aiops.types import Floats

CEILING = 100.0
"""The highest level in nats."""
THEORY_S, LEAST_THEORY_S = 86_400.0, 3600.0
"""The theory counts as much as a day of watching; it is forgotten like a day of watching, down to an hour of it."""
SLOPE_COUNT, SLOPE_MEMORY = 3.0, 40.0
"""How steeply the curve falls: as after so many incidents by theory, and as the last so many fell."""
HEIGHTS: Floats = np.sqrt(RUNGS)
"""Over the root of the level the logarithm of the rate falls about evenly: tails between exponential and Pareto."""
STEEPEST, FLATTEST = 1e-6, 0.99
"""The share that goes on from one rung to the next is within these, so that the curve falls and stays above zero."""


class Record:
    """How often each rung would have opened an incident, and for how long that was watched.

    opened float64[2, rungs]: incidents that stayed below the level in force, and those that were paged. came: those of
    them that the next rung was watched for too. seconds float64[rungs]. A rung above the level in force is not watched:
    once an incident is open, nothing is learned from its entities, so what would have come after is not known. What was
    `memory_s` ago counts for 1/e.
    """

    def __init__(self, memory_s: float) -> None:
        self._memory_s = memory_s
        self.theory_s = THEORY_S
        self.opened: Floats = np.zeros((2, len(RUNGS)))
        self.came: Floats = np.zeros((2, len(RUNGS)))
        self.seconds: Floats = np.zeros(len(RUNGS))

    def watch(self, seconds: float, level: float) -> None:
        """So much more time was watched at this level."""
        self.seconds[level >= RUNGS] += seconds

    def count(self, opened: Floats, paged: Floats, level: float) -> None:
        """What `Ladder.incidents` says of one step."""
        if not opened.any() and not paged.any():
            return  # nearly always
        change = np.stack([opened - paged, paged])
        self.opened += change
        self.came[:, :-1] += change[:, :-1] * (level >= RUNGS[1:])

    def forget(self, seconds: float) -> None:
        """So much time went by."""
        keep = math.exp(-seconds / self._memory_s)
        self.weigh(keep)
        self.theory_s = max(self.theory_s * keep, LEAST_THEORY_S)

    def weigh(self, keep: float) -> None:
        """What was counted and watched so far counts for this share of itself."""
        for array in (self.opened, self.came, self.seconds):
            array *= keep

    def rates(self, budget: float, theory: float, false_share: float) -> Floats:
        """float64[rungs], falling: false incidents a second that are expected at each rung.

        budget: those accepted a second. theory: the level that it leads to by theory. false_share: how many of those
        that were paged are believed to be false.
        """
        opened = np.maximum(self.opened[0] + false_share * self.opened[1], 0.0)
        came = np.maximum(self.came[0] + false_share * self.came[1], 0.0)
        base = int(np.argmax(opened))  # below it, restless entities are in one endless incident
        by_theory = self.theory_s * budget * np.exp(np.minimum(theory - RUNGS, 500.0))
        opened, came = opened + by_theory, came + by_theory
        if not self.opened.any():
            return np.asarray(by_theory / (self.seconds[0] + self.theory_s))
        out = np.full(len(RUNGS), opened[base] / (self.seconds[base] + self.theory_s))
        survived, fell = SLOPE_COUNT * (HEIGHTS[1] - HEIGHTS[0]) / (RUNGS[1] - RUNGS[0]), SLOPE_COUNT
        for j in range(base, len(RUNGS) - 1):
            step = HEIGHTS[j + 1] - HEIGHTS[j]
            usual = math.exp(-step * fell / survived)
            went_on = (opened[j + 1] + SLOPE_COUNT * usual) / (came[j] + SLOPE_COUNT)
            out[j + 1] = out[j] * min(max(went_on, STEEPEST), FLATTEST)
            lost = max(came[j] - opened[j + 1], 0.0)
            forget = min(1.0, SLOPE_MEMORY / (fell + lost))
            survived = forget * (survived + step * (opened[j + 1] + lost / 2))
            fell = forget * (fell + lost)
        return out

    def state(self) -> dict[str, Any]:
        return {"opened": self.opened.tolist(), "came": self.came.tolist(), "seconds": self.seconds.tolist(),
                "theory_s": self.theory_s}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.opened, self.came, self.seconds = (np.array(state[k], np.float64) for k in ("opened", "came", "seconds"))
        self.theory_s = float(state["theory_s"])


def level(rates: Floats, budget: float) -> float:
    """The lowest level in nats, RUNGS[0] to CEILING, at which `rates` keep to the budget; between rungs an exponential."""
    over = np.flatnonzero(rates > budget)
    if not len(over):
        return float(RUNGS[0])
    j = min(int(over[-1]), len(RUNGS) - 2)
    return float(min(RUNGS[j] + math.log(rates[j] / budget) / _slope(rates, j), CEILING))


def rate(rates: Floats, at_level: float) -> float:
    """False incidents a second that are expected at a level, read off the same curve."""
    j = min(max(int(np.searchsorted(RUNGS, at_level, side="right")) - 1, 0), len(RUNGS) - 2)
    return float(rates[j] * math.exp(-_slope(rates, j) * (at_level - RUNGS[j])))


def _slope(rates: Floats, j: int) -> float:
    """How fast the curve falls above rung j, a nat."""
    return float(math.log(rates[j] / rates[j + 1]) / (RUNGS[j + 1] - RUNGS[j]))
