"""Other detectors, run as their users would: every row is scored with what came before it, then learned.

One setting each for all data, defaults where there are any. Missing values are the last one known. Alarm rules are those
that the method documents; a method that has none alarms above the 0.999 quantile (hourly data: 0.99) of its own last 14
days of scores. Of several columns, methods for one column add up how rare each column's score is, methods for rows take the
row.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from aiops.types import Bools, Floats
from benchmarks.detect.cases import Case
from benchmarks.detect.events import DAY_S, PAST_DAYS, above_running, adapted, rows_a_day

SPAN = 60
SIGMAS = 3.0
TAIL, TAIL_P, LEAST_P, LEAST_PAST = 0.02, 10**-3.5, 1e-300, 100
OWN_QUANTILE = 0.999
FOREST_DAYS, FOREST_TREES, FOREST_ALARM = 7, 100, 0.5
HOUR_S = 3600.0


@dataclass(frozen=True)
class Peer:
    """`run` gives a rank float64[n] (more is odder) and the alarms bool[n] of a case's rows; `library` is what it stands on."""

    name: str
    library: str
    run: Callable[[Case], tuple[Floats, Bools]]

    @property
    def version(self) -> str:
        return f"{self.library} {importlib.metadata.version(self.library)}"


# ----------------------------------------------------------------------------------------------- what features there are
def filled(values: Floats) -> Floats:
    """float64[n, columns] without gaps."""
    return np.asarray(pd.DataFrame(values).ffill().fillna(0.0).to_numpy(np.float64))


def changes(values: Floats) -> Floats:
    return np.diff(values, axis=0, prepend=values[:1])


def hour_of_week(times: Floats) -> Floats:
    return np.asarray(times / HOUR_S % 168.0)


def features(case: Case) -> Floats:
    """float64[n, 5]: value, change, mean and deviation of the last hour (at least 6 rows), hour of the week.

    Of several columns: these and their changes.
    """
    values = filled(case.values)
    if values.shape[1] > 1:
        return np.hstack([values, changes(values)])
    hour = pd.Series(values[:, 0]).rolling(max(6, int(HOUR_S // case.interval_s)), min_periods=1)
    return np.column_stack([values, changes(values), hour.mean(), hour.std(ddof=0).fillna(0.0), hour_of_week(case.times)])


# -------------------------------------------------------------------------------------------------- scores of one column
def ewma_z(x: Floats) -> Floats:
    """float64[n]: distance from the exponential mean of the rows before, in their deviations; 0 where they have none."""
    past = pd.Series(x).ewm(span=SPAN)
    mean, deviation = past.mean().shift(1).to_numpy(), past.std(bias=True).shift(1).to_numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.nan_to_num(np.abs(x - mean) / deviation, nan=0.0, posinf=0.0))


def standard_absolute_deviation(x: Floats) -> Floats:
    from river import anomaly

    model, out = anomaly.StandardAbsoluteDeviation(), np.zeros(len(x))
    for k, value in enumerate(x.tolist()):
        out[k] = model.score_one(None, value)
        model.learn_one(None, value)
    return out


def by_column(score: Callable[[Floats], Floats]) -> Callable[[Case], tuple[Floats, Bools]]:
    """Alarm where any column's score is above 3."""
    def run(case: Case) -> tuple[Floats, Bools]:
        z = np.column_stack([score(x) for x in filled(case.values).T])
        rank = z[:, 0] if z.shape[1] == 1 else sum((rarity(s, case.interval_s) for s in z.T), np.zeros(len(z)))
        return rank, np.asarray((z > SIGMAS).any(axis=1))
    return run


def with_tail_rule(run: Callable[[Case], tuple[Floats, Bools]]) -> Callable[[Case], tuple[Floats, Bools]]:
    """The same rank; alarm where it is rarer than 10^-3.5 by the tail of its own last 14 days."""
    def again(case: Case) -> tuple[Floats, Bools]:
        rank, _ = run(case)
        return rank, rarity(rank, case.interval_s) > -np.log10(TAIL_P)
    return again


def rarity(score: Floats, interval_s: float) -> Floats:
    """-log10 of the share of the last 14 days' scores that were as large, refreshed four times a day; 0 before 100 scores.

    Counted up to their 98 % quantile, by a Pareto tail with Hill's estimate beyond it.
    """
    day = rows_a_day(interval_s)
    every = max(1, day // 4)
    out = np.zeros(len(score))
    for k in range(0, len(score), every):
        past = np.sort(score[max(0, k - PAST_DAYS * day):k])
        if len(past) >= LEAST_PAST:
            out[k:k + every] = -np.log10(_tail_share(score[k:k + every], past))
    return out


def _tail_share(score: Floats, past: Floats) -> Floats:
    n = len(past)
    edge = past[int((1.0 - TAIL) * n)]
    counted = np.asarray((n - np.searchsorted(past, score, side="left") + 1.0) / (n + 1.0), np.float64)
    beyond = past[past > edge]
    if edge <= 0 or not beyond.size:
        return counted
    heaviness = np.log(beyond / edge).mean()
    pareto = TAIL * np.maximum(score / edge, 1.0) ** (-1.0 / heaviness)
    return np.asarray(np.where(score > edge, np.maximum(pareto, LEAST_P), counted))


# ------------------------------------------------------------------------------------------------------ scores of rows
def by_row(model: Callable[[], Any], columns: Callable[[Case], Floats]) -> Callable[[Case], tuple[Floats, Bools]]:
    """A river model, row by row."""
    def run(case: Case) -> tuple[Floats, Bools]:
        detector, rows = model(), columns(case)
        names, rank = range(rows.shape[1]), np.zeros(len(rows))
        for k, row in enumerate(rows.tolist()):
            x = dict(zip(names, row, strict=True))
            rank[k] = detector.score_one(x)
            detector.learn_one(x)
        return rank, above_own_quantile(rank, case)
    return run


def above_own_quantile(rank: Floats, case: Case) -> Bools:
    return above_running(rank, adapted(OWN_QUANTILE, case.interval_s), case.interval_s, max(case.warmup, 1))


def half_space_trees() -> Any:
    """With the scaler that its documentation asks for."""
    from river import anomaly, preprocessing

    return preprocessing.MinMaxScaler() | anomaly.HalfSpaceTrees(seed=42)


def loda() -> Any:
    from river import anomaly, preprocessing

    return preprocessing.StandardScaler() | anomaly.LODA(seed=42)


def value_change_time(case: Case) -> Floats:
    values = filled(case.values)
    return np.column_stack([values, changes(values), case.times % DAY_S])


def isolation_forest(case: Case) -> tuple[Floats, Bools]:
    """Fitted daily on the last 7 days; a day is scored in one call by the forest fitted before it, the first day is not."""
    from sklearn.ensemble import IsolationForest

    rows, day = features(case), rows_a_day(case.interval_s)
    rank = np.zeros(len(rows))
    for k in range(day, len(rows), day):
        forest = IsolationForest(n_estimators=FOREST_TREES, random_state=0).fit(rows[max(0, k - FOREST_DAYS * day):k])
        rank[k:k + day] = -forest.score_samples(rows[k:k + day])
    return rank, rank > FOREST_ALARM


PEERS: Mapping[str, Peer] = {
    "ewma": Peer("EWMA z", "pandas", by_column(ewma_z)),
    "ewma-tail": Peer("EWMA z, tail rule", "pandas", with_tail_rule(by_column(ewma_z))),
    "sad": Peer("river SAD", "river", by_column(standard_absolute_deviation)),
    "hst": Peer("river HalfSpaceTrees", "river", by_row(half_space_trees, features)),
    "loda": Peer("river LODA", "river", by_row(loda, value_change_time)),
    "forest": Peer("IsolationForest", "scikit-learn", isolation_forest),
}
