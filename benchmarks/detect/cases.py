"""Labelled series from a folder: one CSV a series (`timestamp` and one or more value columns), truth in files beside them.

`nab/windows.json` holds windows in time, `SET/labels.json` spans of rows; docs/detection.md describes both. Truth is read
here only and never reaches a detector.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from aiops.types import Bools, Floats

SETS = ("nab", "cloud-monitoring", "asd", "kpi", "wsd")
PROBATION_SHARE, PROBATION_ROWS = 0.15, 750
"""NAB scores nothing in the first 15 % of a file, at most 750 rows."""


class DataError(Exception):
    """The folder does not hold what is needed. The text says where, what and the remedy."""


@dataclass(frozen=True, eq=False)
class Case:
    """One file and its truth. times float64[n] Unix seconds as in the file, values float64[n, columns], labels bool[n].

    The first `warmup` rows are for learning and not scored. `windows` (NAB only): first and last second of each.
    """

    set: str
    name: str
    path: Path
    columns: tuple[str, ...]
    times: Floats
    values: Floats
    labels: Bools
    warmup: int
    interval_s: float
    windows: tuple[tuple[float, float], ...] = ()


def load(folders: Iterable[Path], sets: Sequence[str] = SETS) -> list[Case]:
    """All cases of these sets, in the order of `SETS` and of their names. Raises DataError."""
    folders = list(folders)
    cases = [case for name in SETS if name in sets for folder in folders for case in _load_set(folder / name)]
    if not cases:
        raise DataError(f"{', '.join(map(str, folders))}: none of {', '.join(sets)} with its labels is there. "
                        "docs/detection.md says where the data come from and how they are laid out.")
    return sorted(cases, key=lambda c: (SETS.index(c.set), c.name))


def _load_set(folder: Path) -> list[Case]:
    truth = folder / ("windows.json" if folder.name == "nab" else "labels.json")
    if not truth.is_file():
        return []
    read = _nab if folder.name == "nab" else _labelled
    return [read(folder, name, what) for name, what in json.loads(truth.read_text(encoding="utf-8")).items()]


def _nab(folder: Path, name: str, windows: Sequence[Sequence[str]]) -> Case:
    times, columns, values = _read(folder / name)
    limits = tuple((float(a), float(b)) for a, b in (_seconds(pd.Series(list(w))) for w in windows))
    labels = np.zeros(len(times), np.bool_)
    for first, last in limits:
        labels |= (times >= first) & (times <= last)
    probation = min(int(PROBATION_SHARE * len(times)), PROBATION_ROWS)
    return Case("nab", name, folder / name, columns, times, values, labels, probation, float(np.median(np.diff(times))), limits)


def _labelled(folder: Path, name: str, truth: dict[str, Any]) -> Case:
    times, columns, values = _read(folder / name)
    if len(times) != truth["rows"]:
        raise DataError(f"{folder / name}: has {len(times)} rows, labels.json says {truth['rows']}. Get both again.")
    labels = np.zeros(len(times), np.bool_)
    for first, last in truth["anomalous_rows"]:
        labels[first:last + 1] = True
    return Case(folder.name, name, folder / name, columns, times, values, labels, truth["warmup_rows"],
                float(truth["interval_s"]))


def _read(path: Path) -> tuple[Floats, tuple[str, ...], Floats]:
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as e:
        raise DataError(f"{path}: cannot be read: {e}. Get the data again.") from None
    columns = tuple(c for c in table.columns if c != "timestamp")
    return _seconds(table["timestamp"]), columns, table[list(columns)].to_numpy(np.float64)


def _seconds(column: pd.Series) -> Floats:
    """Unix seconds of numbers or ISO 8601 dates; UTC where no zone is given."""
    if pd.api.types.is_numeric_dtype(column):
        return np.asarray(column.to_numpy(np.float64))
    dates = pd.to_datetime(column, utc=True, format="ISO8601")
    return np.asarray(dates.astype("datetime64[ns, UTC]").astype("int64").to_numpy() / 1e9)
