"""From gauges that keep the last XID to events with an onset.

`DCGM_FI_DEV_XID_ERRORS` holds the number of the last XID until the exporter ends: a change is news, the value is not, and
the same XID again cannot be seen. `DCGM_EXP_XID_ERRORS_COUNT{xid}` counts within a sliding window: a rise is news.
https://github.com/NVIDIA/dcgm-exporter (etc/default-counters.csv)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from aiops import xids
from aiops.meaning import parse_labels
from aiops.types import Batch, Bools, Entity, Event, Floats, Ints, Series

LAST, COUNT = "DCGM_FI_DEV_XID_ERRORS", "DCGM_EXP_XID_ERRORS_COUNT"
SAME_S = 60.0
"""Two witnesses of one XID within this time tell of one event."""
FUTURE_S = 300.0
"""A sample further ahead of its batch is not believed, as at the door."""
MAX_SERIES = 200_000
MAX_NOTES = 20
MAX_XID = 65_535
STICKY = "Told by a gauge that keeps the last XID: when the same XID comes again, it does not show."
Key = tuple[Entity, str, str]
_NOTHING = np.empty(0, np.int32), np.empty(0), np.empty(0), np.empty(0)


@dataclass(slots=True)
class _Told:
    """The last event of an entity: which XID, when, and which series told of it last (-1: an event did)."""

    xid: int
    at: float
    by: int


@dataclass(frozen=True, slots=True)
class _Change:
    """Row of the series, time of the sample, value before (NaN: first sample), value, time of the batch."""

    row: int
    at: float
    before: float
    value: float
    batch_at: float


class Xids:
    """Pure and bounded. `observe` must see every batch, in order; `notes` are of the last one."""

    def __init__(self) -> None:
        self.notes: tuple[str, ...] = ()
        self._keys: list[Key] = []
        self._xid: list[int] = []
        self._place: dict[Key, int] = {}
        self._row = np.empty(0, np.int32)
        self._last = np.empty(0, np.float64)
        self._heard = np.empty(0, np.float64)
        self._known: dict[Entity, float] = {}
        self._told: dict[Entity, _Told] = {}
        self._gone: set[int] = set()

    def observe(self, batch: Batch) -> tuple[Event, ...]:
        """The XIDs that this batch tells of through gauges, by time; none that `batch.events` tells of already."""
        notes: list[str] = []
        known = batch.retired[(batch.retired >= 0) & (batch.retired < len(self._row))]
        self._gone.update(self._row[known[self._row[known] >= 0]].tolist())
        self._row[known] = -1
        for s in batch.new_series:
            if s.metric in (LAST, COUNT):
                self._meet(s, notes)
        for e in batch.events:
            self._hear(e)
        found: list[Event] = []
        for row, at, before, value in zip(*self._changes(batch), strict=True):
            change = _Change(int(row), float(at), float(before), float(value), batch.at)
            number = self._number(change)
            if number and self._news(change, number, notes):
                found.append(xids.event(change.at, self._keys[change.row][0], number, self._witness(change)))
        more = len(notes) - MAX_NOTES
        self.notes = (*notes[:MAX_NOTES], *([f"and {more} more notes on XIDs"] if more > 0 else ()))
        return tuple(sorted(found, key=lambda e: (e.time, e.entity, e.reason)))

    # ---------------------------------------------------------------------------------------------------- the series
    def _meet(self, series: Series, notes: list[str]) -> None:
        key = (series.entity, series.metric, series.labels)
        row = self._place.get(key)
        if row is None:
            if len(self._keys) >= MAX_SERIES and self._gone:
                self._forget()
            if len(self._keys) >= MAX_SERIES:
                notes.append(f"more than {MAX_SERIES} series of XIDs: those of {series.entity} are not watched")
                return
            row = self._add(key, np.nan, -np.inf)
        if series.id >= len(self._row):
            room = max(series.id + 1, 2 * len(self._row)) - len(self._row)
            self._row = np.concatenate([self._row, np.full(room, -1, np.int32)])
        self._row[series.id] = row
        self._gone.discard(row)

    def _forget(self) -> None:
        """Series that were retired make room for others: until then they are known again when they come back."""
        left = np.array([k for k in range(len(self._keys)) if k not in self._gone], np.int64)
        where = np.full(len(self._keys) + 1, -1, np.int32)  # the last is nobody's, and is -1
        where[left] = np.arange(len(left))
        self._row = where[self._row]
        for told in self._told.values():
            told.by = int(where[told.by])
        self._keys, self._xid = [self._keys[k] for k in left.tolist()], [self._xid[k] for k in left.tolist()]
        self._place = {key: k for k, key in enumerate(self._keys)}
        self._last, self._heard, self._gone = self._last[left], self._heard[left], set()
        here = {key[0] for key in self._keys}
        self._known = {e: at for e, at in self._known.items() if e in here}

    def _add(self, key: Key, last: float, heard: float) -> int:
        row = self._place[key] = len(self._keys)
        self._keys.append(key)
        self._xid.append(_label(key[2]) if key[1] == COUNT else 0)
        if row >= len(self._last):
            room = np.zeros(max(row, 64))
            self._last, self._heard = np.append(self._last, room), np.append(self._heard, room)
        self._last[row], self._heard[row] = last, heard
        return row

    def _hear(self, event: Event) -> None:
        number = event.reason.removeprefix("XID ")
        if number != event.reason and number.isdecimal() and (event.entity in self._told or len(self._told) < MAX_SERIES):
            self._told[event.entity] = _Told(int(number), event.time, -1)

    def _changes(self, batch: Batch) -> tuple[Ints, Floats, Floats, Floats]:
        """Where a series has another value than before: its row, time, value before (NaN: first seen), value; by time."""
        if not len(self._row):
            return _NOTHING
        mine = np.flatnonzero((batch.series >= 0) & (batch.series < len(self._row)))
        mine = mine[self._row[batch.series[mine]] >= 0]
        rows, times, values = self._row[batch.series[mine]], batch.time[mine], batch.value[mine]
        usable: Bools = np.isfinite(values) & (times <= batch.at + FUTURE_S) & (times > self._heard[rows])
        if not usable.any():
            return _NOTHING
        rows, times, values = rows[usable], times[usable], values[usable]
        order = np.lexsort((times, rows))
        rows, times, values = rows[order], times[order], values[order]
        first = np.append(True, rows[1:] != rows[:-1])
        before = np.where(first, self._last[rows], np.append(np.nan, values[:-1]))
        self._last[rows], self._heard[rows] = values, times  # of several, the last assignment stays
        for r in rows[np.isnan(before)].tolist():
            self._known.setdefault(self._keys[r][0], batch.at)
        changed = np.flatnonzero(values != before)
        changed = changed[np.argsort(times[changed], kind="stable")]
        return rows[changed], times[changed], before[changed], values[changed]

    # -------------------------------------------------------------------------------------------------- the judgement
    def _number(self, c: _Change) -> int:
        """The XID that a change tells of, 0 for none."""
        if self._keys[c.row][1] == COUNT:
            return 0 if c.before >= c.value else self._xid[c.row]
        return int(c.value) if 1 <= c.value <= MAX_XID else 0

    def _news(self, c: _Change, number: int, notes: list[str]) -> bool:
        """Whether the XID happened now: not before anybody looked, and not told by another witness already."""
        entity, metric, _ = self._keys[c.row]
        told, new = self._told.get(entity), c.before != c.before
        if new and self._known[entity] >= c.batch_at:
            if told is None or told.xid != number:
                notes.append(f"{entity}: XID {number} was there before it was first looked at; since when is not known")
                self._told[entity] = _Told(number, c.at, c.row)
            return False
        if told and told.xid == number and told.by != c.row and abs(c.at - told.at) <= SAME_S:
            told.by = c.row
            return False
        if new and metric == LAST and told and told.xid == number:
            return False  # the same gauge under other labels
        self._told[entity] = _Told(number, c.at, c.row)
        return True

    def _witness(self, c: _Change) -> str:
        return STICKY if self._keys[c.row][1] == LAST else f"Seen {c.value:.0f} times in the exporter's window."

    # ------------------------------------------------------------------------------------------------ over a restart
    def state(self) -> dict[str, Any]:
        """Plain values and copies."""
        rows = [[*key, last, heard] for key, last, heard in
                zip(self._keys, self._last.tolist(), self._heard.tolist(), strict=False) if last == last]
        return {"series": rows, "known": dict(self._known), "told": {e: [t.xid, t.at] for e, t in self._told.items()}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Before the first batch. Series get new numbers and keep their places by name."""
        for entity, metric, labels, last, heard in state["series"]:
            self._add((entity, metric, labels), last, heard)
        self._gone = set(range(len(self._keys)))
        self._known = dict(state["known"])
        self._told = {e: _Told(int(x), at, -1) for e, (x, at) in state["told"].items()}


def _label(labels: str) -> int:
    """The number in the label `xid`, 0 where there is none: the exporter's way to say that all is well."""
    try:
        text = parse_labels(labels).get("xid", "")
    except ValueError:
        return 0
    return int(text) if text.isdecimal() and int(text) <= MAX_XID else 0
