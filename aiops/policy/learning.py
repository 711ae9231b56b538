"""The track record: how often an action helped for one kind of fault, how sure that is, and the autonomy that follows.

Beta-Bernoulli with a flat prior: after s helped and f not, the chance to help is Beta(s + 1, f + 1). The rule of `earned`,
in the words of policies/README.md: an action acts by itself once NEEDED of it helped and the odds are above TRUST with 95 %
confidence; it asks again at once after one that made it worse, after PATIENCE in a row that did not help, and when the odds
are no longer above TRUST. Then the counting towards NEEDED begins at nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from aiops.globs import named

NEEDED, PATIENCE = 5, 2
TRUST = 0.5
LEVEL = 0.05
MAX_RECORDS = 10_000
"""Beyond these the one that learned nothing for longest is forgotten."""


@dataclass(frozen=True, slots=True)
class Record:
    """What came of the verified actions. `towards`: of those that helped, the ones since autonomy was last lost (or since the
    beginning); `in_row`: the last ones that were no good, in a row; `earned`: it acts by itself."""

    helped: int = 0
    no_help: int = 0
    worse: int = 0
    towards: int = 0
    in_row: int = 0
    earned: bool = False

    @property
    def not_helped(self) -> int:
        return self.no_help + self.worse

    @property
    def tried(self) -> int:
        return self.helped + self.not_helped

    @property
    def lower(self) -> float:
        """Lower end of the one-sided 95 % interval of the chance to help."""
        return self._quantile(LEVEL)

    @property
    def upper(self) -> float:
        """Upper end of the one-sided 95 % interval; with `lower` a two-sided one of 90 %."""
        return self._quantile(1.0 - LEVEL)

    @property
    def chance(self) -> float:
        """The expected chance to help; one half where nothing is known."""
        return (self.helped + 1) / (self.tried + 2)

    def _quantile(self, q: float) -> float:
        return beta_quantile(q, self.helped + 1, self.not_helped + 1)

    def after(self, status: str) -> Record:
        """With one verified outcome more: `helped`, `no_help` or `worse`."""
        if status == "helped":
            new = replace(self, helped=self.helped + 1, towards=self.towards + 1, in_row=0)
            return replace(new, earned=new.towards >= NEEDED and new.lower > TRUST)
        count = {status: getattr(self, status) + 1}
        new = replace(self, in_row=self.in_row + 1, **count)
        lost = status == "worse" or new.in_row >= PATIENCE or (self.earned and new.lower <= TRUST)
        return replace(new, towards=0, earned=False) if lost else new

    @property
    def standing(self) -> str:
        """How it stands to autonomy, for people."""
        if self.earned:
            return "acts by itself"
        if self.towards >= NEEDED:
            return f"{self.towards} successes of {NEEDED} towards act, and odds that are not above {TRUST:g} for certain yet"
        return f"{self.towards} of {NEEDED} successes towards act"

    def __str__(self) -> str:
        return f"helped {self.helped} of {self.tried} times, at least {self.lower:.2f} with 95 % confidence"


@dataclass(slots=True)
class TrackRecord:
    """Records by fault signature, and action on a class of workload (`Restart of deployment`)."""

    records: dict[str, Record] = field(default_factory=dict)

    def of(self, signature: str, action: str) -> Record:
        return self.records.get(f"{signature}|{action}", Record())

    def learn(self, signature: str, action: str, status: str) -> str:
        """Count one verified outcome; what that changes about autonomy, in words, empty for nothing."""
        key = f"{signature}|{action}"
        old = self.records.pop(key, Record())
        new = self.records[key] = old.after(status)
        if len(self.records) > MAX_RECORDS:
            del self.records[next(iter(self.records))]
        if new.earned == old.earned:
            return ""
        turn = "has earned to act by itself" if new.earned else "asks again"
        return f"{action} for {fault(key)} {turn} where a policy says 'earned': {new}."

    def forget(self, patterns: tuple[str, ...] = ()) -> int:
        """Forget the records that one of these names (`fault`, or `fault action`; globs), all where there are none; how many."""
        gone = [key for key in self.records if named(patterns, fault(key), key.rpartition("|")[2])]
        for key in gone:
            del self.records[key]
        return len(gone)

    def state(self) -> dict[str, Any]:
        return {key: [r.helped, r.no_help, r.worse, r.towards, r.in_row, r.earned] for key, r in self.records.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.records = {key: _read(row) for key, row in state.items()}


def _read(row: list[Any]) -> Record:
    """Of two figures, as versions before wrote it: helped and not. What was earned by the rule of then stays earned."""
    if len(row) > 2:
        helped, no_help, worse, towards, in_row = map(int, row[:5])
        return Record(helped, no_help, worse, towards, in_row, bool(row[5]))
    helped, not_helped = map(int, row)
    old = Record(helped, not_helped, towards=helped)
    return replace(old, earned=helped >= NEEDED and old.lower > TRUST)


def fault(key: str) -> str:
    """The kind of fault in a record's key, for people: `http_error_rate of service`."""
    return " of ".join(key.split("|")[:-1])


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
