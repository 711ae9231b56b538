"""Which series there are: the number of each, when it was last heard of, and whether there is room for another one.

Series come and go with pods; labels can explode. So a silent series is given up after a while, its number goes to another
one, and there is a most: of all series, and of one metric of one entity. What is refused is counted, and told with the label
that is to blame. Lives at the edge; the pipeline learns from batches which series came and which were retired.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from aiops.arrays import grown
from aiops.meaning import parse_labels
from aiops.models import EPHEMERAL, KEEP_S
from aiops.types import Event, Ints, Kind, Series

MAX_SERIES = 1_000_000
MOST_OF_ONE = 10_000
"""Series of one metric of one entity: more is a label that holds a name, an address or a number of something."""
LAST_TENTH = 0.9
"""Above this share of the room, metrics that have more than their share of it get no more."""
PRESSED = 0.8
"""Above this share of the room, those that were silent longest are given up sooner."""
EPHEMERAL_SILENT_S, ENDED_S, REVIEW_S = 3600.0, 900.0, 60.0
"""A silent series of a pod, container or process is given up after an hour, after a quarter if its source said that it ended."""
TEXT_PER_SERIES = 512
"""Characters of entity, metric and labels that a series may have on average, counted on all that there may be."""
TELL_AGAIN_S = 3600.0
MAX_TOLD, MAX_VALUES, MAX_READ = 100, 64, 1000
"""Metrics that are told; values of one label, and series of one metric, that are looked at to find the label to blame."""
MOST_NOTES, MOST_NAME_CHARS = 10, 200
KINDS: Mapping[str, Kind] = {"gauge": "gauge", "counter": "counter"}
_BUCKETS = 1 << 20


@dataclass
class Refused:
    """What is known of the refused series of one metric: label -> some of its values.

    count: refusals since that was `told` last, which was said as `text`.
    """

    entity: str
    reason: str = ""
    count: int = 0
    told: float = -np.inf
    text: str = ""
    values: dict[str, set[str]] = field(default_factory=dict)

    def culprit(self) -> str:
        """The label with most values; empty where none has two: then it is the entities that are many."""
        names = [name for name, some in self.values.items() if len(some) > 1]
        return max(names, key=lambda name: (len(self.values[name]), name), default="")


class Catalogue:
    """Numbers series from 0; a number is used again a review after it was given up, and not while samples still come under
    it. Not thread-safe.

    limit: how many series there may be. `came`: series since they were last `taken`. `refused`: how often another one was, by
    reason: too_many_series, label_explosion, more_than_its_share, too_much_text.
    """

    def __init__(self, limit: int = MAX_SERIES) -> None:
        self.limit = limit
        self.refused: Counter[str] = Counter()
        self.retired = 0
        self.came: list[Series] = []
        self._text = 0
        self._ids: dict[tuple[str, str, str], int] = {}
        self._series: list[Series | None] = []
        self._heard = np.zeros(0)
        self._ended = np.zeros(0, np.bool_)
        self._ephemeral = np.zeros(0, np.bool_)
        self._of_metric: Counter[str] = Counter()
        self._of_one = np.zeros(_BUCKETS, np.int32)
        self._free: list[int] = []
        self._resting: list[int] = []
        self._reviewed = -np.inf
        self._left_out: dict[str, Refused] = {}

    def __len__(self) -> int:
        return len(self._ids)

    # --------------------------------------------------------------------------------------------------- who comes
    def number(self, entity: str, metric: str, labels: str, kind: str = "unknown") -> int | None:
        """The number of a series, a new one if need be; None where there is no room for it (counted)."""
        number = self._ids.get((entity, metric, labels))
        return self._admit(entity, metric, labels, kind) if number is None else number

    def _admit(self, entity: str, metric: str, labels: str, kind: str) -> int | None:
        place = _place(entity, metric)
        size = len(entity) + len(metric) + len(labels)
        reason = self._no_room(metric, place, size)
        if reason:
            self._refuse(entity, metric, labels, reason)
            return None
        number = self._free.pop() if self._free else self._one_more()
        series = Series(number, entity, metric, labels, KINDS.get(kind, "unknown"))
        self._ids[entity, metric, labels], self._series[number] = number, series
        self._heard[number], self._ended[number] = np.nan, False
        self._ephemeral[number] = entity.startswith(EPHEMERAL)
        self._of_metric[metric] += 1
        self._of_one[place] += 1
        self._text += size
        self.came.append(series)
        return number

    def _no_room(self, metric: str, place: int, size: int) -> str:
        """Why there is no room for another series of this metric with `size` characters of names; empty where there is."""
        have = len(self._ids)
        if have >= self.limit:
            return "too_many_series"
        if self._of_one[place] >= MOST_OF_ONE:
            return "label_explosion"
        if have >= LAST_TENTH * self.limit and self._of_metric[metric] * len(self._of_metric) > have:
            return "more_than_its_share"
        return "too_much_text" if self._text + size > TEXT_PER_SERIES * self.limit else ""

    def _one_more(self) -> int:
        number = len(self._series)
        self._series.append(None)
        self._heard = grown(self._heard, number + 1, np.nan)
        self._ended, self._ephemeral = grown(self._ended, number + 1, False), grown(self._ephemeral, number + 1, False)
        return number

    def _refuse(self, entity: str, metric: str, labels: str, reason: str) -> None:
        self.refused[reason] += 1
        if metric not in self._left_out and len(self._left_out) >= MAX_TOLD:
            return
        told = self._left_out.setdefault(metric, Refused(entity))
        told.entity, told.reason, told.count = entity, reason, told.count + 1
        if told.count > MAX_READ:
            return
        try:
            found = parse_labels(labels)
        except ValueError:
            return
        for name, value in found.items():
            some = told.values.setdefault(name, set())
            if len(some) < MAX_VALUES:
                some.add(value[:MOST_NAME_CHARS])

    def taken(self) -> tuple[Series, ...]:
        """The series that came since the last call."""
        came, self.came = tuple(self.came), []
        return came

    # ---------------------------------------------------------------------------------------------------- who goes
    def heard(self, numbers: Ints, at: float) -> None:
        """Samples of these came in the tick `at`."""
        known = self._given(numbers)
        self._heard[known], self._ended[known] = at, False

    def ended(self, numbers: Ints) -> None:
        """Their source says that nothing more comes of these."""
        self._ended[self._given(numbers)] = True

    def _given(self, numbers: Ints) -> Ints:
        """Those that were ever given to anybody."""
        return numbers[(numbers >= 0) & (numbers < len(self._series))]

    def review(self, at: float) -> Ints:
        """Once a minute: the numbers of those that are given up from now on, int32."""
        if at - self._reviewed < REVIEW_S:
            return np.zeros(0, np.int32)
        self._reviewed = at
        self._rest()
        gone = self._silent(at)
        for number in gone.tolist():
            self._give_up(number)
        self.retired += len(gone)
        return gone.astype(np.int32)

    def _rest(self) -> None:
        """Numbers that rested are free; those under which something came meanwhile, or waits to be handed out, rest on."""
        nobodys = np.array(self._free + self._resting, np.int64)
        used = ~np.isnan(self._heard[nobodys])
        self._heard[nobodys] = np.nan
        self._free, self._resting = nobodys[~used].tolist(), nobodys[used].tolist()

    def _silent(self, at: float) -> NDArray[np.int64]:
        size = len(self._series)
        heard = self._heard[:size]
        heard[np.isnan(heard) & (self._occupied())] = at  # numbered, and nothing came of it yet
        silent = at - heard
        with np.errstate(invalid="ignore"):
            long = np.where(self._ephemeral[:size], np.where(self._ended[:size], ENDED_S, EPHEMERAL_SILENT_S), KEEP_S)
            gone = silent > long
            surplus = len(self._ids) - int(np.count_nonzero(gone)) - int(PRESSED * self.limit)
            if surplus > 0:
                others = np.flatnonzero(~gone & (silent > ENDED_S))
                gone[others[np.argsort(heard[others], kind="stable")[:surplus]]] = True
        return np.flatnonzero(gone)

    def _occupied(self) -> NDArray[np.bool_]:
        occupied = np.ones(len(self._series), np.bool_)
        occupied[self._free + self._resting] = False
        return occupied

    def _give_up(self, number: int) -> None:
        series = self._series[number]
        assert series is not None
        del self._ids[series.entity, series.metric, series.labels]
        self._series[number] = None
        self._heard[number] = np.nan
        self._of_one[_place(series.entity, series.metric)] -= 1
        self._text -= len(series.entity) + len(series.metric) + len(series.labels)
        self._of_metric[series.metric] -= 1
        if not self._of_metric[series.metric]:
            del self._of_metric[series.metric]
        self._resting.append(number)

    # ------------------------------------------------------------------------------------------------ what is told
    def told(self, at: float) -> list[Event]:
        """What was refused since it was last said, each metric once an hour, as events about an entity that has it."""
        out = []
        for metric, refused in self._left_out.items():
            if refused.count and at - refused.told >= TELL_AGAIN_S:
                refused.text = _text(metric, refused, self.limit)
                out.append(Event(at, refused.entity, "warning", "SeriesRefused", refused.text))
                refused.count, refused.told, refused.values = 0, at, {}
        self._left_out = {m: r for m, r in self._left_out.items() if r.count or at - r.told < TELL_AGAIN_S}
        return out

    def notes(self) -> list[str]:
        """What was told within the hour, the newest first: at most ten sentences, and how many more there are."""
        told = sorted((r for r in self._left_out.values() if r.text), key=lambda r: -r.told)
        more = len(told) - MOST_NOTES
        return [r.text for r in told[:MOST_NOTES]] + ([f"New series of {more} more metrics are left out."] if more > 0 else [])


def _place(entity: str, metric: str) -> int:
    """Where the series of one metric of one entity are counted, among a million places: two rarely share one."""
    return zlib.crc32(metric.encode(), zlib.crc32(entity.encode())) % _BUCKETS


def _text(metric: str, refused: Refused, limit: int) -> str:
    times = "once" if refused.count == 1 else f"{refused.count:,} times"
    said = f"New series of {metric[:MOST_NAME_CHARS]} are left out (refused {times}): "
    label = refused.culprit()[:MOST_NAME_CHARS]
    if refused.reason == "label_explosion":
        blame = f"their label {label} has" if label else "their labels have"
        return said + f"{blame} ever new values on {refused.entity[:MOST_NAME_CHARS]}. Drop that label at its source."
    if refused.reason == "too_much_text":
        return said + "the names and labels of all series are too long together. Drop the longest labels at their source."
    if refused.reason == "more_than_its_share":
        most = f", most of all in the label {label}" if label else ""
        return said + f"it has more series than its share of series.max, {limit:,}{most}. Watch less of it, or raise series.max."
    return said + f"there are {limit:,} series already. Watch less, or raise series.max."
