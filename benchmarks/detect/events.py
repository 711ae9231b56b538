"""What somebody on call would say of the alarms: was each event noticed in time, and how often was there nothing?

An event is a run of labelled rows; runs at most max(10 min, 2 intervals) apart are one. It is detected when an alarm falls
between 5 intervals before its start and one interval after min(its end, start + max(1 h, 3 intervals)). Alarms outside of
[start - 5 intervals, end + max(30 min, 3 intervals)] are false; they make one notification in max(1 h, 1 interval) at most,
so an alarm that is stuck costs 24 a day.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from aiops.types import Bools, Floats
from benchmarks.detect.cases import Case

DAY_S = 86_400.0
PAST_DAYS = 14
QUANTILES = (0.99, 0.995, 0.998, 0.999, 0.9995, 0.9998)
"""For running quantiles; of hourly data the share beyond is ten times as large."""
FALSE_A_DAY = 0.5
TRIES = 150


@dataclass(frozen=True)
class Counts:
    """Of one file, or pooled. `delays_s`: of each detected event, from its start to the first alarm."""

    events: int
    delays_s: tuple[float, ...]
    false: int
    days: float
    delays: tuple[float, ...] = ()
    """The same in intervals of the file."""

    @property
    def detected(self) -> int:
        return len(self.delays_s)

    @property
    def recall(self) -> float:
        return self.detected / self.events if self.events else 0.0

    @property
    def precision(self) -> float:
        told = self.detected + self.false
        return self.detected / told if told else 0.0

    @property
    def f1(self) -> float:
        both = self.precision + self.recall
        return 2.0 * self.precision * self.recall / both if both else 0.0

    @property
    def false_a_day(self) -> float:
        return self.false / self.days if self.days else 0.0


def pooled(counts: Sequence[Counts]) -> Counts:
    return Counts(
        sum(c.events for c in counts), tuple(d for c in counts for d in c.delays_s), sum(c.false for c in counts),
        sum(c.days for c in counts), tuple(d for c in counts for d in c.delays))


def count(alarm: Bools, of: Case) -> Counts:
    """The alarms of one file, bool[n] as long as the file; rows of the warm-up do not count."""
    times, labels, interval = of.times[of.warmup:], of.labels[of.warmup:], of.interval_s
    alarms = times[alarm[of.warmup:]]
    excused, delays = np.zeros(len(alarms), np.bool_), []
    found = spans(times, labels, max(600.0, 2 * interval))
    for start, end in found:
        from_ = start - 5 * interval
        until = min(end, start + max(3600.0, 3 * interval)) + interval
        in_time = alarms[(alarms >= from_) & (alarms <= until)]
        delays += [max(0.0, float(in_time[0] - start))] if in_time.size else []
        excused |= (alarms >= from_) & (alarms <= end + max(1800.0, 3 * interval))
    days = float(times[-1] - times[0] + interval) / DAY_S if len(times) else 0.0
    false = notifications(alarms[~excused], max(3600.0, interval))
    return Counts(len(found), tuple(delays), false, days, tuple(d / interval for d in delays))


def spans(times: Floats, labels: Bools, apart_s: float) -> list[tuple[float, float]]:
    """First and last time of each run of labels, joined where not further apart."""
    edge = np.flatnonzero(np.diff(labels.astype(np.int8), prepend=0, append=0))
    out: list[tuple[float, float]] = []
    for first, behind in zip(edge[::2], edge[1::2], strict=True):
        start, end = float(times[first]), float(times[behind - 1])
        if out and start - out[-1][1] <= apart_s:
            start = out.pop()[0]
        out.append((start, end))
    return out


def notifications(times: Floats, rest_s: float) -> int:
    """How many messages alarms at these times make if each is followed by so much rest."""
    told, last = 0, -np.inf
    for at in times:
        if at - last >= rest_s:
            told, last = told + 1, float(at)
    return told


def rows_a_day(interval_s: float) -> int:
    """At least 24."""
    return max(24, int(DAY_S // interval_s))


# ------------------------------------------------------------------------------- recall for so many false notifications
def best_recall(of: Sequence[tuple[Case, Floats]]) -> tuple[float, float]:
    """The best recall with at most half a false notification a day and file, alarms being made from the scores:

    (a) where they exceed a running quantile of their file's own last 14 days, the same quantile for all files;
    (b) where they exceed one threshold, the same for all files.
    """
    return max((_affordable(of, _above_running(q)) for q in QUANTILES), default=0.0), _one_threshold(of)


Rule = Callable[[Case, Floats], Bools]


def _affordable(of: Sequence[tuple[Case, Floats]], rule: Rule) -> float:
    """Recall, or 0 where there are too many false notifications."""
    got = pooled([count(rule(case, score), case) for case, score in of])
    return got.recall if got.false_a_day <= FALSE_A_DAY else 0.0


def _one_threshold(of: Sequence[tuple[Case, Floats]]) -> float:
    scored = np.concatenate([score[case.warmup:] for case, score in of])
    shares = np.geomspace(1.0 / len(scored), 0.2, TRIES)
    return max(_affordable(of, _above(float(t))) for t in np.unique(np.quantile(scored, 1.0 - shares)))


def _above(threshold: float) -> Rule:
    return lambda _case, score: np.asarray(score > threshold)


def _above_running(q: float) -> Rule:
    """The quantile is taken anew four times a day, from the end of the warm-up on."""
    return lambda case, score: above_running(score, adapted(q, case.interval_s), case.interval_s, max(case.warmup, 1))


def adapted(q: float, interval_s: float) -> float:
    return q if interval_s < 3600 else 1.0 - 10.0 * (1.0 - q)


def above_running(score: Floats, q: float, interval_s: float, start: int) -> Bools:
    """bool[n]: rows whose score exceeds the q-quantile of the 14 days before, refreshed four times a day."""
    day = rows_a_day(interval_s)
    every = max(1, day // 4)
    out = np.zeros(len(score), np.bool_)
    for k in range(start, len(score), every):
        past = np.sort(score[max(0, k - PAST_DAYS * day):k])
        place = int(np.clip(np.ceil(q * len(past)) - 1, 0, len(past) - 1))
        out[k:k + every] = score[k:k + every] > past[place]
    return out
