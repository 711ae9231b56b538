"""`aiops score`: any CSV with a `timestamp` column through the detectors' own arithmetic, strictly causal.

Row k of the output depends on rows 1..k only. Every column is judged by the seasonal baseline; with several columns the
row's p-value says how odd they are together.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aiops import kernel
from aiops.types import Bools, Floats, Frame, Signal
from detectors.baseline import Baseline

ALARMS_PER_DAY = 0.1
"""A row is an anomaly where this many rows as odd, or fewer, are expected in a day of one series."""
SAMPLES_COUNT = 0.75
"""The power of their number by which samples within an hour count as looks."""
STEEP, MOST_EVIDENCE = 2.0, 25.0
"""Evidence of several columns e counts as exp(STEEP e), up to so many nats."""
NEW, NEW_FROM = 32.0 * math.log(10.0), 0.5
"""Nats that a novelty of 1 adds, and from where it counts: what was never seen outranks any residual."""
MOST_NATS = 690.0
BACK = 3
TIME = "timestamp"


class ScoreError(Exception):
    """The file cannot be scored. The text names file, column or row, and the remedy."""


def score(path: Path, columns: Sequence[str] | None, out: Path | None) -> int:
    """Writes `timestamp, score, p_value, expected, lower, upper, anomaly` (and contributions) as CSV; 0 when done."""
    import pandas as pd

    table = _read(path)
    names = _columns(table, columns, path)
    times = _times(table[TIME], path)
    values = np.column_stack([pd.to_numeric(table[c], errors="coerce").to_numpy(np.float64) for c in names])
    scorer = Scorer(names)
    rows = scorer.run(times, values)
    if scorer.not_rising:
        sys.stderr.write(f"aiops score: {path}: {scorer.not_rising} of {len(times)} times do not rise; "
                         "such a row counts as just after the one before.\n")
    result = pd.DataFrame(rows)
    result.insert(0, TIME, table[TIME])
    result.to_csv(out or sys.stdout, index=False, float_format="%.9g")
    return 0


def _read(path: Path) -> Any:
    import pandas as pd

    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except pd.errors.EmptyDataError:
        raise ScoreError(f"{path}: is empty. A header with {TIME!r} and one value column are needed.") from None
    except (OSError, UnicodeDecodeError, pd.errors.ParserError) as e:
        raise ScoreError(f"{path}: cannot be read as CSV: {str(e).splitlines()[0].rstrip('.')}.") from None
    if TIME not in table.columns:
        raise ScoreError(f"{path}:1: no column {TIME!r}. Found: {', '.join(map(str, table.columns))}.")
    return table


def _columns(table: Any, wanted: Sequence[str] | None, path: Path) -> list[str]:
    import pandas as pd

    if wanted:
        missing = [c for c in wanted if c not in table.columns]
        if missing:
            raise ScoreError(f"{path}:1: no column {missing[0]!r}. Found: {', '.join(map(str, table.columns))}.")
        return list(wanted)
    numeric = [c for c in table.columns if c != TIME and pd.to_numeric(table[c], errors="coerce").notna().any()]
    if not numeric:
        raise ScoreError(f"{path}: no column with numbers beside {TIME!r}. Name columns with --columns.")
    return numeric


def _times(column: Any, path: Path) -> Floats:
    """Unix seconds of numbers or of dates; a time that makes no sense repeats the one before."""
    import pandas as pd

    numbers = pd.to_numeric(column, errors="coerce")
    if numbers.notna().mean() < 0.5:
        dates = pd.to_datetime(column, errors="coerce", utc=True, format="mixed")
        if not dates.notna().any() and len(column):
            raise ScoreError(f"{path}:2: {TIME} {column.iloc[0]!r} is neither Unix seconds nor a date.")
        numbers = pd.Series(dates.astype("datetime64[ns, UTC]").astype("int64") / 1e9).where(dates.notna())
    return np.asarray(numbers.ffill().fillna(0.0).to_numpy(np.float64))


def rising(times: Floats) -> tuple[Floats, int]:
    """Times that rise strictly, but for steps back to a clock that was right after all, and how many did not rise.

    One time far in the future must not stop the clock of all that follow: after BACK rows in a row that rise among themselves and
    lie more than a day before it, it is they that are believed. Row k depends on rows 1..k only.
    """
    out, last, behind, odd = np.empty(len(times)), -math.inf, 0, 0
    for k, t in enumerate(times.tolist()):
        rises = k > 0 and t > times[k - 1]
        behind = 0 if t > last else behind + 1 if rises or not behind else 1
        if t > last or (behind >= BACK and last - t > kernel.DAY_S):
            last, behind = t, 0
        else:
            last, odd = math.nextafter(last, math.inf), odd + 1
        out[k] = last
    return out, odd


class Scorer:
    """The baseline over the columns of a file, which are the signals of one entity.

    The p-value of a row is the geometric mean of what all views say, smoothed over the last samples, times how new it is;
    with several columns it is the root mean square of their evidence. `anomaly` is where a person would be told: where a row
    so odd is expected less than once in ten days, by the tail of the past of each column or of all together.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self._names = list(columns)
        self._signals = tuple(Signal(i, "file//csv", c) for i, c in enumerate(columns))
        self._baseline = Baseline()
        self._joint = Joint()
        self.not_rising = 0

    def run(self, times: Floats, values: Floats) -> dict[str, list[Any]]:
        """Columns of the output for values float64[rows, columns]. `not_rising` says how many times were no later than before."""
        times, self.not_rising = rising(times)
        rows, width = values.shape
        seen = np.zeros((rows, width, 8))
        interval = np.zeros((rows, width))
        learn = np.ones(width, np.bool_)
        for k in range(rows):
            seen[k] = self._baseline.judge(Frame(float(times[k]), values[k], learn, self._signals))
            interval[k] = self._baseline.core[:width, kernel.DT]
        known = np.isfinite(values)
        return self._one(seen[:, 0], interval[:, 0], known[:, 0]) if width == 1 else self._several(seen, interval, known)

    def _one(self, seen: Floats, interval: Floats, known: Bools) -> dict[str, list[Any]]:
        nats = seen[:, kernel.LASTING_EVIDENCE] + NEW * np.maximum(seen[:, kernel.NOVELTY] - NEW_FROM, 0.0)
        return _table(np.where(known, nats, 0.0), _alarms(seen[:, kernel.ALARM], interval), seen)

    def _several(self, seen: Floats, interval: Floats, known: Bools) -> dict[str, list[Any]]:
        evidence = np.where(known, seen[:, :, kernel.EVIDENCE], 0.0) ** 2
        total = evidence.sum(axis=1)
        together = np.sqrt(total / len(self._names))
        each = seen[:, :, kernel.ALARM].max(axis=1) - math.log(len(self._names))
        worst = np.argmax(evidence, axis=1)
        alarm = _alarms(np.maximum(self._joint.nats(together, interval.max(axis=1)), each), interval.max(axis=1))
        out = _table(together, alarm, seen[np.arange(len(seen)), worst])
        for i, name in enumerate(self._names):
            share = np.divide(evidence[:, i], total, out=np.zeros(len(total)), where=total > 0)
            out[f"contribution_{name}"] = share.tolist()
        return out


class Joint:
    """Calibrates the evidence of all columns together by the tail of its own past.

    Evidence is in nats, so its tail falls about exponentially: what is handed to the Pareto tail is its exponential.
    """

    def __init__(self) -> None:
        self._bins, self._cut = kernel.prior_bins()[None], kernel.PRIOR_CUT[None].copy()
        self._scale, self._n = 0.0, 0

    def nats(self, evidence: Floats, interval: Floats) -> Floats:
        """-ln p of each row, each judged by the rows before it."""
        out = np.zeros(len(evidence))
        for k, e in enumerate(np.expm1(STEEP * np.minimum(evidence, MOST_EVIDENCE)).tolist()):
            z = e / self._scale if self._scale > 0.0 else 0.0
            if self._n >= kernel.READY_AFTER:
                out[k] = kernel.surprise(z, kernel.place_of(z), 0, self._bins, self._cut)
            if e > 0.0:
                self._learn(e, z, float(interval[k]))
        return out

    def _learn(self, e: float, z: float, dt: float) -> None:
        self._n += 1
        self._scale += max(1.0 / self._n, 2.0 * dt / kernel.DAY_S) * (min(e, 8.0 * self._scale or e) - self._scale)
        kernel.count(kernel.place_of(z), 1.0, 0, self._bins)
        if self._n % kernel.REFRESH == 0 or self._n == kernel.READY_AFTER:
            kernel.fit_tail(0, self._bins, self._cut, math.exp(-math.log(2.0) * kernel.REFRESH * dt / kernel.MONTH_S))


def _alarms(nats: Floats, interval: Floats) -> Bools:
    """Where p times the looks of a day stays below the expected alarms of a day.

    Samples that are closer than an hour resemble each other: twice as many of them are 2**SAMPLES_COUNT as many looks.
    """
    looks = math.log(24.0) + SAMPLES_COUNT * np.log(kernel.HOUR_S / np.maximum(interval, 1e-3))
    return np.asarray(nats > looks - math.log(ALARMS_PER_DAY))


def _table(nats: Floats, alarm: Bools, row: Floats) -> dict[str, list[Any]]:
    p = np.exp(-np.minimum(nats, MOST_NATS))
    expected, width = row[:, kernel.EXPECTED], row[:, kernel.WIDTH]
    return {"score": (1.0 - p).tolist(), "p_value": p.tolist(), "expected": expected.tolist(),
            "lower": (expected - width).tolist(), "upper": (expected + width).tolist(), "anomaly": alarm.astype(int).tolist()}
