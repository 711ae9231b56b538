"""Where live sources put what they read, and batches are made of it: one thread-safe buffer for all sources."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import structlog

from aiops.beat import Round
from aiops.catalogue import MAX_SERIES, MOST_NOTES, Catalogue
from aiops.links import Merger
from aiops.meaning import format_labels
from aiops.types import Batch, Command, Event, Floats, Ints, Links, LogLine, Outcome, RawAlert

log = structlog.get_logger("aiops.intake")
MAX_LINES = 100_000
"""Log lines that may wait for the next tick: what a step can read in about two seconds."""
MAX_TEXT = 256 * 1024 * 1024
"""Characters of lines that may wait: 100,000 of the longest would be more than a machine has to spare."""
MAX_SAMPLES = 8_000_000
"""Samples that may wait for the next tick; who pushes more is asked to come again later."""
MAX_EVENTS, MAX_ALERTS = 100_000, 100_000
"""Of alerts critical ones may be as many again."""
Block = tuple[Ints, Floats, Floats]


class Intake:
    """Buffers what arrived since the last tick; which series there are is its catalogue. What goes beyond limits is counted.

    Implements `aiops.interfaces.Samples`. `news` is set when a block has come: whoever waits for it clears it.
    """

    def __init__(self, tick_s: float, max_series: int = MAX_SERIES) -> None:
        self._tick_s = tick_s
        self._lock = threading.Lock()
        self.catalogue = Catalogue(max_series)
        self._over: list[Ints] = []
        self._forget: list[Callable[[Ints], object]] = []
        self._series: list[int] = []
        self._times: list[float] = []
        self._values: list[float] = []
        self._blocks: list[Block] = []
        self._waiting = 0
        self._lines: list[LogLine] = []
        self._text = 0
        self._events: list[Event] = []
        self._alerts: list[RawAlert] = []
        self._commands: list[Command] = []
        self._links = Merger()
        self._policies: dict[str, str] | None = None
        self._last_at = -np.inf
        self._round, self._looked = Round(), (0, 0)
        self.news = threading.Event()
        self._alert_count = 0
        self.dropped: Counter[str] = Counter()

    # ------------------------------------------------------------------------------------------ what sources call
    def sample(self, time: float, entity: str, metric: str, labels: Mapping[str, str], value: float,
               kind: str = "unknown") -> None:
        with self._lock:
            if len(self._series) + self._waiting >= MAX_SAMPLES:
                self.dropped["samples"] += 1
                return
            number = self.catalogue.number(entity, metric, format_labels(labels) if labels else "", kind)
            if number is not None:
                self._series.append(number)
                self._times.append(time)
                self._values.append(value)

    def series(self, entity: str, metric: str, labels: Mapping[str, str], kind: str = "unknown") -> int | None:
        """The number of a series for `block`, None where there is no room for another one (counted)."""
        with self._lock:
            return self.catalogue.number(entity, metric, format_labels(labels) if labels else "", kind)

    def on_retire(self, forget: Callable[[Ints], object]) -> None:
        """`forget` is called with the numbers, int32, that must not be used any more: their series were given up."""
        with self._lock:
            self._forget.append(forget)

    def ended(self, series: Ints) -> None:
        """Their source says that nothing more comes of these for now: they are given up sooner than silent ones."""
        with self._lock:
            self._over.append(series)

    def block(self, series: Ints, time: Floats, value: Floats) -> bool:
        """Many samples at once: int32[n] numbers of `series`, float64[n] seconds, float64[n]; the arrays are not copied.

        False where so much waits already that they were not taken: nothing of them was, and the sender should come again.
        """
        with self._lock:
            if len(self._series) + self._waiting + len(series) > MAX_SAMPLES:
                return False
            self._blocks.append((series, time, value))
            self._waiting += len(series)
        self.news.set()
        return True

    def line(self, *lines: LogLine) -> bool:
        """One line or several. False where so many wait already that none of these was taken: come again after the tick."""
        with self._lock:
            text = self._text + sum(len(line.text) for line in lines)
            if len(self._lines) + len(lines) > MAX_LINES or (self._lines and text > MAX_TEXT):
                return False
            self._lines += lines
            self._text = text
            return True

    def event(self, event: Event) -> None:
        with self._lock:
            if len(self._events) < MAX_EVENTS:
                self._events.append(event)
            else:
                self.dropped["events"] += 1

    def alert(self, alert: RawAlert) -> None:
        with self._lock:
            if not np.isfinite(alert.time):
                self.dropped["alerts_without_time"] += 1
            elif len(self._alerts) < MAX_ALERTS * (2 if alert.critical else 1):
                self._alerts.append(replace(alert, index=self._alert_count))
            else:
                self.dropped["alerts"] += 1
            self._alert_count += 1

    def links(self, source: str, links: Links) -> None:
        """What a source tells of the topology now: all of it, or what is another than before (`Links.whole`)."""
        with self._lock:
            self._links.put(source, links)

    def links_again(self) -> None:
        """A step has failed: the next batch tells the whole topology, whatever the last one told."""
        with self._lock:
            self._links.again()

    def command(self, command: Command) -> None:
        """What a person said on the page or the command line."""
        with self._lock:
            self._commands.append(command)

    def policies(self, texts: Mapping[str, str]) -> None:
        """The whole set of policies that is in force from the next batch on."""
        with self._lock:
            self._policies = dict(texts)

    def notes(self) -> list[str]:
        """Which series are left out, and why: for people, bounded."""
        with self._lock:
            return self.catalogue.notes()

    def complete(self) -> bool:
        """Whether a sample of every series that comes in each interval has come since the last `drain`."""
        with self._lock:
            singles, blocks = self._looked
            self._round.hear(np.array(self._series[singles:], np.int32))
            for numbers, _, _ in self._blocks[blocks:]:
                self._round.hear(numbers)
            self._looked = len(self._series), len(self._blocks)
            return self._round.complete

    def dropped_total(self) -> int:
        """How much did not fit, over all reasons."""
        with self._lock:
            return sum(self.dropped.values()) + sum(self.catalogue.refused.values())

    # ------------------------------------------------------------------------------------------- what the loop calls
    def drain(self, at: float, outcomes: tuple[Outcome, ...] = ()) -> list[Batch]:
        """Everything since the last call as batches up to `at`: one, or one a tick where history was handed in."""
        with self._lock:
            at = max(at, float(np.nextafter(self._last_at, np.inf)))
            history = self._history(at - 2 * self._tick_s)
            rest = self._rest(at, outcomes, bool(history))
            for batch in (*history, rest):
                self.catalogue.heard(batch.series, batch.at)
            for numbers in self._over:
                self.catalogue.ended(numbers)
            retired = self.catalogue.review(at)
            told = self.catalogue.told(at)
            batches = [*history, replace(rest, retired=retired, events=(*rest.events, *told))]
            self._last_at = at
            self._round.close(rest.series)
            self._clear()
        self._tell_retired(retired)
        _tell_refused([event.text for event in told])
        return batches

    def drain_history(self, until: float) -> list[Batch]:
        """Only samples up to `until`, one batch a tick; everything newer waits for a later call."""
        with self._lock:
            batches, retired = self._history(until), np.zeros(0, np.int32)
            if batches:
                self._last_at = batches[-1].at
                for batch in (*batches, replace(batches[-1], series=self._samples()[0])):  # what waits still is not silent
                    self.catalogue.heard(batch.series, batch.at)
                retired = self.catalogue.review(self._last_at)
                batches[-1] = replace(batches[-1], retired=retired)
        self._tell_retired(retired)
        return batches

    def _tell_retired(self, retired: Ints) -> None:
        """Outside of the lock: a number that is used meanwhile is not given to another series before the next review."""
        for forget in [*self._forget] if len(retired) else []:
            forget(retired)

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
        self._blocks, self._waiting, self._looked = [(ids[keep], times[keep], values[keep])], len(keep), (0, 0)
        return batches

    def _samples(self) -> Block:
        """Everything that waits, as arrays."""
        single = np.array(self._series, np.int32), np.array(self._times, np.float64), np.array(self._values, np.float64)
        ids, times, values = zip(*self._blocks, single, strict=True)
        return np.concatenate(ids), np.concatenate(times), np.concatenate(values)

    def _piece(self, at: float, ids: Ints, times: Floats, values: Floats, first: bool) -> Batch:
        return Batch(at, ids, times, values, self.catalogue.taken() if first else (), links=self._links.take() if first else None)

    def _rest(self, at: float, outcomes: tuple[Outcome, ...], told: bool) -> Batch:
        return Batch(
            at, *self._samples(),
            self.catalogue.taken(), tuple(self._lines), tuple(self._events), tuple(self._alerts),
            None if told else self._links.take(), outcomes, tuple(self._commands), policies=self._policies)

    def _clear(self) -> None:
        self._series, self._times, self._values = [], [], []
        self._blocks, self._waiting, self._over, self._looked = [], 0, [], (0, 0)
        self._lines, self._events, self._alerts, self._commands = [], [], [], []
        self._policies, self._text = None, 0


def _tell_refused(texts: list[str]) -> None:
    for text in texts[:MOST_NOTES]:
        log.warning("series refused", problem=text)
    if len(texts) > MOST_NOTES:
        log.warning("series refused", problem=f"New series of {len(texts) - MOST_NOTES} more metrics are left out.")
