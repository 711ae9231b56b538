"""`aiops score`: any CSV with a `timestamp` column through the detectors' own arithmetic, strictly causal.

Row k of the output depends on rows 1..k only. One column is judged by the seasonal baseline; several columns also by an
isolation forest over all of them, and the row's p-value combines what the columns say.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aiops import plugins
from aiops.types import Anomaly, Floats, Frame, Signal

ALARM_P = 10**-3.5
"""A row is an anomaly below this p-value. The tail rule of detectors: docs/decisions/003-calibrated-evidence.md."""
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
    rows = Scorer(names).run(times, values)
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


class Scorer:
    """The detectors of one entity whose signals are the columns."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._names = list(columns)
        self._signals = tuple(Signal(i, "file//csv", c) for i, c in enumerate(columns))
        self._baseline = plugins.load("detectors", "baseline")()
        self._forest = plugins.load("detectors", "isolation_forest")() if len(columns) > 1 else None

    def run(self, times: Floats, values: Floats) -> dict[str, list[Any]]:
        """Columns of the output for values float64[rows, columns]."""
        out: dict[str, list[Any]] = {k: [] for k in ("score", "p_value", "expected", "lower", "upper", "anomaly")}
        last = -math.inf
        for at, row in zip(times, values, strict=True):
            last = max(float(at), math.nextafter(last, math.inf))
            self._row(last, row, out)
        return out

    def _row(self, at: float, row: Floats, out: dict[str, list[Any]]) -> None:
        frame = Frame(at, row, np.ones(len(row), np.bool_), self._signals)
        self._baseline.observe(frame)
        votes = self._forest.observe(frame) if self._forest else []
        each = np.where(np.isfinite(row), self._baseline.last_p, 1.0)
        p = _combined(each, votes)
        expected, width = self._baseline.band
        worst = int(np.argmin(each))
        half = float(width[worst]) if math.isfinite(width[worst]) else math.nan
        e = float(expected[worst])
        for name, value in (("score", 1.0 - p), ("p_value", p), ("expected", e), ("lower", e - half), ("upper", e + half),
                            ("anomaly", int(p < ALARM_P))):
            out[name].append(value)
        if len(self._names) > 1:
            share = -np.log(each)
            share = share / share.sum() if share.sum() > 0 else np.zeros(len(each))
            for name, value in zip(self._names, share, strict=True):
                out.setdefault(f"contribution_{name}", []).append(float(value))


def _combined(each: Floats, votes: Sequence[Anomaly]) -> float:
    """The smallest p-value, corrected for having looked at several columns (Bonferroni), the forest being one of them."""
    looks = [*each.tolist(), *([min(v.p_value for v in votes)] if votes else [])]
    return float(min(1.0, min(looks) * len(each)))
