"""Where live sources put what they read, and batches are made of it: one thread-safe buffer for all sources."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from aiops.meaning import format_labels
from aiops.types import Batch, Command, Event, Floats, Ints, Kind, Links, LogLine, Outcome, RawAlert, Series
from correlators.graph import merged

MAX_SERIES = 2_000_000
MAX_LINES = 100_000
MAX_SAMPLES = 8_000_000
"""Samples that may wait for the next tick; who pushes more is asked to come again later."""
Block = tuple[Ints, Floats, Floats]
KINDS: Mapping[str, Kind] = {"gauge": "gauge", "counter": "counter"}


class Intake:
    """Interns series and buffers what arrived since the last tick. New series and log lines beyond the limits are counted.

    Implements `aiops.interfaces.Samples`.
    """

    def __init__(self, tick_s: float) -> None:
        self._tick_s = tick_s
        self._lock = threading.Lock()
        self._ids: dict[tuple[str, str, str], int] = {}
        self._new: list[Series] = []
        self._series: list[int] = []
        self._times: list[float] = []
        self._values: list[float] = []
        self._blocks: list[Block] = []
        self._waiting = 0
        self._lines: list[LogLine] = []
        self._events: list[Event] = []
        self._alerts: list[RawAlert] = []
        self._commands: list[Command] = []
        self._links: dict[str, Links] = {}
        self._links_changed = False
        self._last_at = -np.inf
        self._alert_count = 0
        self.dropped: Counter[str] = Counter()

    # ------------------------------------------------------------------------------------------ what sources call
    def sample(self, time: float, entity: str, metric: str, labels: Mapping[str, str], value: float,
               kind: str = "unknown") -> None:
        with self._lock:
            number = self._intern(entity, metric, format_labels(labels) if labels else "", kind)
            if number is not None:
                self._series.append(number)
                self._times.append(time)
                self._values.append(value)

    def series(self, entity: str, metric: str, labels: Mapping[str, str], kind: str = "unknown") -> int | None:
        """The number of a series for `block`, None where there is no room for another one (counted)."""
        with self._lock:
            return self._intern(entity, metric, format_labels(labels) if labels else "", kind)

    def block(self, series: Ints, time: Floats, value: Floats) -> bool:
        """Many samples at once: int32[n] numbers of `series`, float64[n] seconds, float64[n]; the arrays are not copied.

        False where so much waits already that they were not taken: nothing of them was, and the sender should come again.
        """
        with self._lock:
            if self._waiting + len(series) > MAX_SAMPLES:
                return False
            self._blocks.append((series, time, value))
            self._waiting += len(series)
            return True

    def _intern(self, entity: str, metric: str, labels: str, kind: str) -> int | None:
        key = (entity, metric, labels)
        number = self._ids.get(key)
        if number is None:
            if len(self._ids) >= MAX_SERIES:
                self.dropped["too_many_series"] += 1
                return None
            number = self._ids[key] = len(self._ids)
            self._new.append(Series(number, *key, KINDS.get(kind, "unknown")))
        return number

    def line(self, line: LogLine) -> None:
        with self._lock:
            if len(self._lines) < MAX_LINES:
                self._lines.append(line)
            else:
                self.dropped["log_lines"] += 1

    def event(self, event: Event) -> None:
        with self._lock:
            self._events.append(event)

    def alert(self, alert: RawAlert) -> None:
        with self._lock:
            self._alerts.append(replace(alert, index=self._alert_count))
            self._alert_count += 1

    def links(self, source: str, links: Links) -> None:
        with self._lock:
            if self._links.get(source) != links:
                self._links[source] = links
                self._links_changed = True

    def command(self, command: Command) -> None:
        """What a person said on the page or the command line."""
        with self._lock:
            self._commands.append(command)

    def dropped_total(self) -> int:
        """How much did not fit, over all reasons."""
        with self._lock:
            return sum(self.dropped.values())

    # ------------------------------------------------------------------------------------------- what the loop calls
    def drain(self, at: float, outcomes: tuple[Outcome, ...] = ()) -> list[Batch]:
        """Everything since the last call as batches up to `at`: one, or one a tick where history was handed in."""
        with self._lock:
            at = max(at, float(np.nextafter(self._last_at, np.inf)))
            history = self._history(at - 2 * self._tick_s)
            batches = [*history, self._rest(at, outcomes, bool(history))]
            self._last_at = at
            self._clear()
        return batches

    def drain_history(self, until: float) -> list[Batch]:
        """Only samples up to `until`, one batch a tick; everything newer waits for a later call."""
        with self._lock:
            batches = self._history(until)
            if batches:
                self._last_at = batches[-1].at
                self._new, self._links_changed = [], False
        return batches

    def _history(self, until: float) -> list[Batch]:
        """One batch a tick for samples up to `until` that are newer than all that was handed out: a backfill."""
        ids, times, values = self._samples()
        old = np.isfinite(times) & (np.ceil(times / self._tick_s) * self._tick_s <= until) & (times > self._last_at)
        if not old.any():
            return []
        ticks = np.ceil(times / self._tick_s)
        order = np.flatnonzero(old)[np.argsort(ticks[old], kind="stable")]
        pieces = np.split(order, np.flatnonzero(np.diff(ticks[order])) + 1)
        batches = [self._piece(float(ticks[p[0]]) * self._tick_s, ids[p], times[p], values[p], k == 0)
                   for k, p in enumerate(pieces)]
        keep = np.flatnonzero(~old)
        self._series, self._times, self._values = [], [], []
        self._blocks, self._waiting = [(ids[keep], times[keep], values[keep])], len(keep)
        return batches

    def _samples(self) -> Block:
        """Everything that waits, as arrays."""
        single = np.array(self._series, np.int32), np.array(self._times, np.float64), np.array(self._values, np.float64)
        ids, times, values = zip(*self._blocks, single, strict=True)
        return np.concatenate(ids), np.concatenate(times), np.concatenate(values)

    def _piece(self, at: float, ids: Ints, times: Floats, values: Floats, first: bool) -> Batch:
        return Batch(at, ids, times, values, tuple(self._new) if first else (), links=self._merged() if first else None)

    def _rest(self, at: float, outcomes: tuple[Outcome, ...], told: bool) -> Batch:
        return Batch(
            at, *self._samples(),
            () if told else tuple(self._new), tuple(self._lines), tuple(self._events), tuple(self._alerts),
            None if told else self._merged(), outcomes, tuple(self._commands))

    def _merged(self) -> Links | None:
        return merged(self._links[k] for k in sorted(self._links)) if self._links_changed else None

    def _clear(self) -> None:
        self._new, self._series, self._times, self._values = [], [], [], []
        self._blocks, self._waiting = [], 0
        self._lines, self._events, self._alerts, self._commands = [], [], [], []
        self._links_changed = False
