"""The track record: how often an action helped for one kind of fault, and how sure that is.

Beta-Bernoulli with a flat prior: after s helped and f not, the chance to help is Beta(s + 1, f + 1). Trust is granted
on the lower end of its one-sided 95 % interval, so it takes several successes to earn and few failures to lose.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

NEEDED = 5
TRUST = 0.5
LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class Record:
    """Helped and not helped, with the lower bound of the chance to help."""

    helped: int = 0
    not_helped: int = 0

    @property
    def lower(self) -> float:
        return beta_quantile(LEVEL, self.helped + 1, self.not_helped + 1)

    @property
    def chance(self) -> float:
        """The expected chance to help; one half where nothing is known."""
        return (self.helped + 1) / (self.helped + self.not_helped + 2)

    @property
    def trusted(self) -> bool:
        return self.helped >= NEEDED and self.lower > TRUST

    def __str__(self) -> str:
        tried = self.helped + self.not_helped
        return f"helped {self.helped} of {tried} times, at least {self.lower:.2f} with 95 % confidence"


@dataclass(slots=True)
class TrackRecord:
    """Records by fault signature, and action on a class of workload (`Restart of deployment`)."""

    records: dict[str, Record] = field(default_factory=dict)

    def of(self, signature: str, action: str) -> Record:
        return self.records.get(f"{signature}|{action}", Record())

    def learn(self, signature: str, action: str, helped: bool) -> Record:
        """Count one verified outcome."""
        old = self.of(signature, action)
        new = Record(old.helped + helped, old.not_helped + (not helped))
        self.records[f"{signature}|{action}"] = new
        return new

    def state(self) -> dict[str, Any]:
        return {key: [r.helped, r.not_helped] for key, r in self.records.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.records = {key: Record(int(h), int(n)) for key, (h, n) in state.items()}


def beta_quantile(q: float, a: int, b: int) -> float:
    """The q-quantile of Beta(a, b) for whole a, b >= 1, to 1e-9, by bisection over the binomial sum."""
    low, high = 0.0, 1.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if _beta_cdf(middle, a, b) < q else (low, middle)
    return (low + high) / 2


def _beta_cdf(x: float, a: int, b: int) -> float:
    """P(Beta(a, b) <= x) = P(Binomial(a + b - 1, x) >= a)."""
    n = a + b - 1
    if x <= 0.0 or x >= 1.0:
        return float(x >= 1.0)
    return math.fsum(math.exp(_log_choose(n, k) + k * math.log(x) + (n - k) * math.log1p(-x)) for k in range(a, n + 1))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
