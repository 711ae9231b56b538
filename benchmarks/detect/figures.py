"""All figures of one detector on one set of cases, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aiops.types import Floats
from benchmarks.detect import events, nab, vus
from benchmarks.detect.cases import Case
from benchmarks.detect.runs import Result

Figures = Mapping[str, float]


def of(cases: Sequence[Case], results: Sequence[Result]) -> dict[str, float]:
    """Cases of one set with what was said of each. NAB's own score for NAB, events and VUS-PR for the others."""
    values = sum(case.values.size for case in cases)
    seconds = sum(r.seconds for r in results)
    rows = sum(len(case.times) for case in cases)
    common = {"files": float(len(cases)), "rows": float(rows), "values": float(values), "seconds": seconds,
              "rows_per_s": rows / seconds if seconds else float("nan")}
    by_set = _nab if cases[0].set == "nab" else _events
    return {**common, **by_set(cases, results)}


def _nab(cases: Sequence[Case], results: Sequence[Result]) -> dict[str, float]:
    ranked, alarms = (
        [nab.rows(x, c.times, c.windows, c.warmup) for c, x in zip(cases, column, strict=True)]
        for column in ([r.rank for r in results], [r.alarm.astype(np.float64) for r in results]))
    scores = {"best": nab.best(ranked), "crossfitted": nab.crossfitted(ranked), "given": nab.as_given(alarms)}
    return {f"{rule}_{profile}": value for rule, got in scores.items() for profile, value in got.items()}


def _events(cases: Sequence[Case], results: Sequence[Result]) -> dict[str, float]:
    counts = events.pooled([events.count(r.alarm, c) for c, r in zip(cases, results, strict=True)])
    ranked = [(c, r.rank) for c, r in zip(cases, results, strict=True)]
    out = {"events": float(counts.events), "detected": float(counts.detected), "false": float(counts.false), "days": counts.days,
           "precision": counts.precision, "recall": counts.recall, "f1": counts.f1, "false_a_day": counts.false_a_day,
           **_delays(counts.delays_s, "_s"), **_delays(counts.delays, ""), "vus_pr": volume(ranked)}
    if cases[0].set == "asd":
        out["recall_quantile"], out["recall_threshold"] = events.best_recall(ranked)
    return out


def _delays(delays: Sequence[float], unit: str) -> dict[str, float]:
    """Of detected events: half and nine tenths of them are seen within this time."""
    some: Any = delays or [float("nan")]
    return {f"delay_median{unit}": float(np.median(some)), f"delay_p90{unit}": float(np.quantile(some, 0.9))}


def volume(ranked: Sequence[tuple[Case, Floats]]) -> float:
    """Mean VUS-PR over the files that have events after their warm-up; NaN where none has."""
    got = [vus.vus_pr(rank[c.warmup:], c.labels[c.warmup:], *vus.buffer(c.interval_s))
           for c, rank in ranked if c.labels[c.warmup:].any()]
    return float(np.mean(got)) if got else float("nan")
