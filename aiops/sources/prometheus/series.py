"""Which series a Prometheus has, and until when each was read: raw label bytes -> number, so that a known series is never
decoded again."""

from __future__ import annotations

import re
from collections import Counter, deque

import numpy as np

from aiops.gpupods import GpuPods
from aiops.interfaces import Samples
from aiops.meaning import Meanings
from aiops.sources.prometheus.decode import Answer, Labels, Unusable, encode, labels_of
from aiops.types import Bools, Floats, Ints, Kind

MAX_SERIES = 2_000_000
FORGET_S = 3 * 3600.0
MAX_LABELS, MAX_LABEL_BYTES = 200, 64 * 1024
_UNKNOWN, _UNWATCHED = -1, -2
_FAMILY = re.compile(r"_(sum|count|bucket|total)$")


class Catalogue:
    """The series of one source. Not thread-safe.

    `kinds` is what the targets declare. `found` holds the names of the metrics that were seen, `dropped` what was left out,
    by reason: ignored, no_name, bad_labels, too_many_series (series); nan, histogram, duplicate (samples).
    """

    def __init__(self, meanings: Meanings) -> None:
        self.kinds: dict[str, Kind] = {}
        self.found: set[str] = set()
        self.dropped: Counter[str] = Counter()
        self.newest = float("-inf")
        self.pods = GpuPods()
        self._now = float("-inf")
        self._retired: deque[Ints] = deque()  # filled by the thread of the ticks
        self._meanings = meanings
        self._places: dict[bytes, int] = {}
        self._size = 0
        self._numbers: Ints = np.full(1024, _UNKNOWN, np.int32)
        self._last: Floats = np.full(1024, -np.inf)
        self._into: Samples | None = None

    def __len__(self) -> int:
        return len(self._places)

    def take(self, answer: Answer, start: float, end: float, into: Samples) -> int | None:
        """Hands in every sample with start < time <= end that was not handed in before: how many, or None where there was
        no room for them. Then nothing was taken, and they may be read again."""
        if into is not self._into:
            self._into = into
            self._numbers[:] = _UNKNOWN
            into.on_retire(self._retired.append)
        self._now = end
        self._numbers[self.pods.again(end)] = _UNKNOWN
        while self._retired:
            self._numbers[np.isin(self._numbers, self._retired.popleft())] = _UNKNOWN
        places = self._places_of(answer.metrics, into)
        rows = np.repeat(places, answer.counts)
        fresh: Bools = (rows >= 0) & (answer.times > start) & (answer.times <= end) & (answer.times > self._last[rows])
        usable = fresh & ~np.isnan(answer.values)
        self.dropped["histogram"] += answer.histograms
        rows_in, times = rows[usable], answer.times[usable]
        keep = self._once(rows_in, times, answer.metrics, places)
        if not into.block(self._numbers[rows_in[keep]], times[keep], answer.values[usable][keep]):
            return None
        self.dropped["nan"] += int(fresh.sum() - usable.sum())
        np.maximum.at(self._last, rows[fresh], answer.times[fresh])
        if len(times):
            self.newest = max(self.newest, float(times.max()))
        return len(times)

    def forget(self, now: float) -> None:
        """Series that ended need no memory of when they were last seen. Cheap enough for every poll."""
        alive: Bools = now - self._last[:self._size] < FORGET_S
        if len(self._places) <= 1000 or alive.sum() > 0.8 * len(self._places):
            return
        moved = np.cumsum(alive) - 1
        self._places = {key: int(moved[k]) for key, k in self._places.items() if k >= 0 and alive[k]}
        self._size = int(alive.sum())
        for column in (self._numbers, self._last):
            column[:self._size] = column[:len(alive)][alive]

    def _once(self, rows: Ints, times: Floats, metrics: list[bytes], places: Ints) -> Bools:
        """The first of equal samples, where one answer holds a set of labels twice."""
        if not (np.bincount(places[places >= 0], minlength=1) > 1).any():
            return np.ones(len(rows), np.bool_)
        order = np.lexsort((times, rows))
        again = np.zeros(len(rows), np.bool_)
        again[order[1:]] = (np.diff(rows[order]) == 0) & (np.diff(times[order]) == 0)
        self.dropped["duplicate"] += int(again.sum())
        return ~again

    # ------------------------------------------------------------------------------------------------- series to places
    def _places_of(self, metrics: list[bytes], into: Samples) -> Ints:
        """int32[series]: the place of each in the arrays here, negative for what is never watched."""
        get = self._places.get
        places = np.array([get(m, _UNKNOWN) for m in metrics], np.int32)
        new = (places == _UNKNOWN) | ((places >= 0) & (self._numbers[places] == _UNKNOWN))
        for k in np.flatnonzero(new).tolist():
            places[k] = self._place(metrics[k], into)
        return np.where(self._numbers[places] == _UNWATCHED, np.int32(_UNWATCHED), places)

    def _place(self, metric: bytes, into: Samples) -> int:
        """Of a series that is new here, or new to `into`."""
        try:
            labels = labels_of(metric)
        except Unusable:
            return self._leave(metric, "bad_labels")
        name = labels.pop("__name__", "")
        if not name or self._meanings.ignored(name):
            return self._leave(metric, "ignored" if name else "no_name")
        if len(labels) > MAX_LABELS or len(metric) > MAX_LABEL_BYTES:
            return self._leave(metric, "bad_labels")
        if len(self._places) >= MAX_SERIES:
            return self._leave(metric, "too_many_series")
        entity, own = self._meanings.entity(name, labels)
        number = into.series(entity, name, own, self._kind(name))
        self.found.add(name)
        place = self._known(metric, {"__name__": name, **labels})
        self.pods.see(place, name, labels, entity, self._now)
        self._numbers[place] = _UNWATCHED if number is None else number
        return place

    def _known(self, metric: bytes, labels: Labels) -> int:
        """Prometheus sorts labels. Where they came in another order they are the same series all the same."""
        names = sorted(labels)
        canonical = metric if names == list(labels_of(metric)) else encode({n: labels[n] for n in names})
        place = self._places.get(canonical, _UNKNOWN)
        if place < 0:
            place = self._size
            self._size += 1
            if place == len(self._last):
                self._numbers = np.concatenate([self._numbers, np.full(place, _UNKNOWN, np.int32)])
                self._last = np.concatenate([self._last, np.full(place, -np.inf)])
            self._last[place] = -np.inf
            self._places[canonical] = place
        self._places[metric] = place
        return place

    def _leave(self, metric: bytes, reason: str) -> int:
        """Counted once, and passed over from now on."""
        self.dropped[reason] += 1
        if len(self._places) < MAX_SERIES:
            self._places[metric] = _UNWATCHED
        return _UNWATCHED

    def _kind(self, metric: str) -> Kind:
        told = self.kinds.get(metric) or self.kinds.get(_FAMILY.sub("", metric), "unknown")
        return self._meanings.kind(metric, told)
