"""A recording - a folder of metrics, logs, events, alerts and topology - as an ordered run of batches.

Rows may be unordered, duplicated, NaN or malformed: they are sorted, counted and carried on. `expect.yaml` is never read.
"""

from __future__ import annotations

import gzip
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import numpy as np

from aiops import yamlfile
from aiops.meaning import format_labels, parse_labels
from aiops.sources.recording.about import About, read_topology
from aiops.types import Batch, Event, Links, LogLine, RawAlert, Series

FILES = ("metrics.parquet", "metrics.csv", "logs.jsonl", "events.jsonl", "alerts.jsonl")
COLUMNS = ("time", "entity", "metric", "value")
DEFAULT_STEP_S = 10.0
MAX_TIME = 1e15
"""No time beyond it is one, in whatever unit."""
MAX_NAME = 1024
"""Characters of the name of an entity or alert."""
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
T = TypeVar("T", LogLine, Event)


class RecordingError(Exception):
    """The folder cannot be replayed. The text names file and remedy."""


@dataclass(frozen=True, slots=True, eq=False)
class _Metrics:
    series: tuple[Series, ...]
    ids: Any
    times: Any
    values: Any


class FolderRecording:
    """One recording folder. `skipped` counts what could not be used, by reason, once `batches` ran."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise RecordingError(f"{folder}: no such folder. Name a recording, e.g. one below fixtures/.")
        self.folder = folder
        self.skipped: Counter[str] = Counter()
        self.alert_lines = 0
        self.about = self._about()
        self._metrics = self._read_metrics()
        self._lines = self._read_lines("logs.jsonl", LogLine)
        self._events = self._read_lines("events.jsonl", Event)
        self._alerts = sorted(self._read_alerts("alerts.jsonl"), key=lambda a: a.time)
        if not (self._metrics or self._lines or self._events or self._alerts):
            raise RecordingError(f"{folder}: nothing to replay: none of {', '.join(FILES)} (.gz) has a usable row.")
        self.step_s = self.about.step or self._usual_step()
        self._plan()

    # ------------------------------------------------------------------------------------------------------ reading
    def _about(self) -> About:
        path = self.folder / "fixture.yaml"
        documents = yamlfile.read(path) if path.exists() else []
        return yamlfile.validate(documents[0], About) if documents else About(name=self.folder.name)

    def links(self) -> Links | None:
        """The topology, where the recording has one. Raises Problems."""
        path = self.folder / "topology.yaml"
        return read_topology(path) if path.exists() else None

    def _read_metrics(self) -> _Metrics | None:
        table = self._table()
        if table is None or not len(table):
            return None
        import pandas as pd

        missing = [c for c in COLUMNS if c not in table.columns]
        if missing:
            named = ", ".join(missing)
            raise RecordingError(f"{self.folder}: metrics have no column {named}. Needed: {', '.join(COLUMNS)}.")
        times = pd.to_numeric(table["time"], errors="coerce").to_numpy(np.float64)
        values = pd.to_numeric(table["value"], errors="coerce").to_numpy(np.float64)
        labels = table["labels"].fillna("").astype(str) if "labels" in table.columns else pd.Series("", index=table.index)
        keys = pd.MultiIndex.from_arrays([table["entity"].astype(str), table["metric"].astype(str), labels])
        ids, unique = pd.factorize(keys, sort=False)
        usable = np.abs(times) < MAX_TIME
        self.skipped["rows_without_time"] += int((~usable).sum())
        if not usable.any():
            return None
        series = tuple(self._series(i, *key) for i, key in enumerate(unique))
        order = np.flatnonzero(usable)[np.argsort(times[usable], kind="stable")]
        return _Metrics(series, ids[order].astype(np.int32), times[order], values[order])

    def _series(self, i: int, entity: str, metric: str, labels: str) -> Series:
        told = self.about.metrics.get(metric)
        try:
            labels = format_labels(parse_labels(labels)) if labels else ""
        except ValueError:
            self.skipped["labels_malformed"] += 1
        return Series(i, entity, metric, labels, told.kind if told else "unknown")

    def _table(self) -> Any:
        """The rows as a DataFrame; None where there is no metrics file."""
        parquet, csv = self.folder / "metrics.parquet", self.folder / "metrics.csv"
        if parquet.exists():
            import fastparquet

            try:
                return fastparquet.ParquetFile(str(parquet)).to_pandas()
            except Exception as e:  # noqa: BLE001 - any reader's error means: this file is no parquet file
                raise RecordingError(f"{parquet}: cannot be read as parquet: {str(e).splitlines()[0]}.") from None
        if csv.exists():
            import pandas as pd

            try:
                return pd.read_csv(csv, on_bad_lines=self._bad_row, engine="python", dtype=str, keep_default_na=False)
            except pd.errors.EmptyDataError:
                return None
            except (ValueError, OSError) as e:
                raise RecordingError(f"{csv}: cannot be read: {str(e).splitlines()[0]}.") from None
        return None

    def _bad_row(self, row: Sequence[str]) -> None:
        self.skipped["rows_malformed"] += 1

    def _read_alerts(self, name: str) -> Iterator[RawAlert]:
        """Alerts with their place in the file, unusable ones left out: the place is what `--alerts-out` answers for."""
        for index, line in enumerate(self._raw_lines(name)):
            self.alert_lines = index + 1
            try:
                row = msgspec.json.decode(line, type=_AlertRow)
                if abs(row.time) < MAX_TIME:
                    yield row.alert(index)
                    continue
                self.skipped[f"{name}_lines_without_time"] += 1
            except UNREADABLE:
                self.skipped[f"{name}_lines_malformed"] += 1

    def _read_lines(self, name: str, kind: type[T]) -> list[T]:
        decode = msgspec.json.Decoder(kind).decode
        out: list[T] = []
        for line in self._raw_lines(name):
            try:
                item = decode(line)
                if abs(item.time) < MAX_TIME:
                    out.append(item)
                else:
                    self.skipped[f"{name}_lines_without_time"] += 1
            except UNREADABLE:
                self.skipped[f"{name}_lines_malformed"] += 1
        return sorted(out, key=lambda x: x.time)

    def _raw_lines(self, name: str) -> Iterator[bytes]:
        plain, packed = self.folder / name, self.folder / f"{name}.gz"
        path = plain if plain.exists() else packed
        if not path.exists():
            return
        with (gzip.open(path) if path.suffix == ".gz" else path.open("rb")) as f:
            try:
                yield from (line for line in f if line.strip())
            except (OSError, EOFError, zlib.error) as e:
                raise RecordingError(f"{path}: cannot be read to its end: {e}.") from None

    # ---------------------------------------------------------------------------------------------------- batching
    def _usual_step(self) -> float:
        """The median interval between samples of the same series."""
        if self._metrics is None or len(self._metrics.ids) < 2:
            return DEFAULT_STEP_S
        m = self._metrics
        order = np.lexsort((m.times, m.ids))
        gaps = np.diff(m.times[order])[np.diff(m.ids[order]) == 0]
        gaps = gaps[gaps > 0]
        return float(np.round(np.median(gaps), 3)) if len(gaps) else DEFAULT_STEP_S

    def _plan(self) -> None:
        """Which ticks there are: `at` is the end of the tick in which something happened."""
        times = [m.times for m in [self._metrics] if m is not None]
        times += [np.array([x.time for x in items]) for items in (self._lines, self._events, self._alerts) if items]
        ticks = np.unique(np.concatenate([self._tick(t) for t in times]))
        self.ticks = ticks
        self.started_at, self.ended_at = float(ticks[0] * self.step_s), float(ticks[-1] * self.step_s)

    def _tick(self, times: Any) -> Any:
        return np.ceil(np.asarray(times) / self.step_s - 1e-9).astype(np.int64)

    def __len__(self) -> int:
        return len(self.ticks)

    def batches(self) -> Iterator[Batch]:
        """All batches, in event time. May be called again."""
        m = self._metrics
        empty = np.zeros(0)
        times, ids, values = (m.times, m.ids, m.values) if m else (empty, empty.astype(np.int32), empty)
        cut = np.searchsorted(self._tick(times), self.ticks, side="right")
        lines, events, alerts = (_Feed(x, self.step_s) for x in (self._lines, self._events, self._alerts))
        start = 0
        for k, tick in enumerate(self.ticks):
            end = int(cut[k])
            yield Batch(
                float(tick * self.step_s), ids[start:end], times[start:end], values[start:end],
                (m.series if m else ()) if k == 0 else (),
                lines.until(int(tick)), events.until(int(tick)), alerts.until(int(tick)), self.links() if k == 0 else None)
            start = end


class _AlertRow(msgspec.Struct, frozen=True):
    """One line of alerts.jsonl."""

    time: float
    entity: Annotated[str, msgspec.Meta(max_length=MAX_NAME)]
    name: Annotated[str, msgspec.Meta(max_length=MAX_NAME)]
    status: Literal["firing", "resolved"] = "firing"
    severity: str = "warning"
    labels: dict[str, str] = {}

    def alert(self, index: int) -> RawAlert:
        return RawAlert(index, self.time, self.entity, self.name, self.status, self.severity, self.labels)


class _Feed:
    """Hands out a sorted list piece by piece, tick by tick."""

    def __init__(self, items: Sequence[Any], step_s: float) -> None:
        self._items, self._step_s, self._next = items, step_s, 0

    def until(self, tick: int) -> tuple[Any, ...]:
        start = self._next
        while self._next < len(self._items) and np.ceil(self._items[self._next].time / self._step_s - 1e-9) <= tick:
            self._next += 1
        return tuple(self._items[start:self._next])
