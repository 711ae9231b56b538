"""Polls a Prometheus for the raw samples of the metrics that packs know, and hands in its history first.

Samples keep the times of their scrapes. Polls overlap, because a sample becomes visible only when its scrape has ended;
a sample is handed on once. Thanos, Mimir, Cortex and VictoriaMetrics answer the same questions. How, and why so:
docs/decisions/021-promql-pull.md.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence, Set

from aiops.clock import WallClock
from aiops.humanise import duration, utc
from aiops.interfaces import Clock, Samples
from aiops.meaning import Meanings, shipped
from aiops.sources.access import Access, SourceError
from aiops.sources.prometheus.api import PromApi, Wanted, smaller
from aiops.sources.prometheus.decode import Answer
from aiops.sources.prometheus.pace import Pace
from aiops.sources.prometheus.series import Catalogue

NAMES_PER_QUERY = 40
OVERLAP_S = 60.0
MAX_CATCH_UP_S = 3600.0
DEFAULT_BACKFILL_S = 14 * 86400.0
DEFAULT_SHARE = 0.5
PARTIAL_TRIES = 4
"""As often a partial result is asked for; then what is there counts (live), or the stretch stays empty (history)."""


class PrometheusSource:
    """The metrics of `packs` (None: of all packs in `meanings`), and whatever `match` selects besides.

    backfill_s is how much history is asked for, `share` how much of the server's time that may take. `notes` says what the
    server warned of, how far history is, and which packs have nothing there. `clock` measures how long queries take.
    Raises SourceError where it cannot be read.
    """

    def __init__(self, name: str, url: str, *, packs: Sequence[str] | None = None, meanings: Meanings | None = None,
                 interval_s: float = 15.0, backfill_s: float = DEFAULT_BACKFILL_S, share: float = DEFAULT_SHARE,
                 match: Sequence[str] = (), access: Access | None = None, timeout_s: float = 30.0,
                 clock: Clock | None = None) -> None:
        self.name, self.interval_s = name, interval_s
        self.notes: dict[str, str] = {}
        self._meanings = meanings or shipped()
        self._packs = tuple(packs) if packs is not None else None
        self._clock = clock or WallClock()  # of its own: what waits between two queries ends when the source is closed
        self._api = PromApi(url, access, timeout_s=timeout_s, retries=0, clock=self._clock)
        self._series = Catalogue(self._meanings)
        self._groups = _groups(self._meanings.metric_names(self._packs), match)
        self._backfill_s, self._share = backfill_s, share
        self._done_to: float | None = None
        self._from: float | None = None
        self._most_s = MAX_CATCH_UP_S
        self._todo: deque[Wanted] = deque()
        self._pace = Pace()
        self._piece_end = 0.0
        self._partial, self._patient = 0, True
        self._told_kinds, self._closed = False, False
        self._warned: Counter[str] = Counter()

    @property
    def dropped(self) -> Counter[str]:
        """What was not handed in, by reason."""
        return self._series.dropped

    def close(self) -> None:
        if isinstance(self._clock, WallClock):
            self._clock.stop()
        self._closed = True
        self._api.close()

    # ----------------------------------------------------------------------------------------------------- history
    def history(self, now: float, into: Samples) -> Iterator[float]:
        """Hands in the history up to `now`, and what passes meanwhile, oldest first, one query at a time; yields the time up
        to which all is in. After a failure a new call goes on where the last one stopped: nothing is asked for twice."""
        began = self._clock.monotonic()
        if self._from is None:
            self._from = self._done_to = now - self._backfill_s
        while (at := self._done_to or 0.0) < (end := self._end(now, began, at)):
            if not self._todo:
                self._piece_end = min(at + self._pace.piece_s, end)
                self._todo.extend(Wanted(at, self._piece_end, g.names, g.match) for g in self._groups)
                self._pace.begin()
            while self._todo:
                self._read_next(into)
            self._done_to = self._piece_end
            self._pace.resize()
            self._tell_history(at, end, began)
            yield self._done_to
        self.notes.pop("history", None)
        self._tell()

    def backfill(self, now: float, into: Samples) -> None:
        """All of `history` at once; only for as much as fits into memory."""
        for _ in self.history(now, into):
            pass

    def _end(self, now: float, began: float, at: float) -> float:
        """History grows while it is read. What is left at its end is for the first poll."""
        grown = now + self._api.skew_s + self._clock.monotonic() - began
        return grown if grown - at > OVERLAP_S or at < now else at

    def _read_next(self, into: Samples) -> None:
        """The next of what this piece still needs; it is crossed off once it is in."""
        self._begin()
        wanted = self._todo[0]
        began = self._clock.monotonic()
        try:
            answer = self._api.read(wanted, self._share)
        except SourceError as e:
            halves = smaller(wanted, e)
            if not halves:
                raise
            self._pace.too_long(wanted.end - wanted.start)
            self._todo.popleft()
            self._todo.extendleft(reversed(halves))
            if e.late:
                raise  # smaller, and later
            return
        self._pace.took(self._clock.monotonic() - began)
        if answer.partial and self._patient and self._partial + 1 < PARTIAL_TRIES:
            self._partial += 1
            raise SourceError(self._api.url, f"partial results: {answer.partial[0][:200]}.", "The history is asked for again.")
        if answer.partial:
            self._patient = False
            self.notes["partial history"] = (f"no history from {utc(wanted.start)} to {utc(wanted.end)} and maybe more: "
                                             f"the server had only a part of it ({answer.partial[0][:100]})")
        else:
            self._pace.read(len(answer.times))
            self._put(answer, wanted, into)
        self._partial = 0
        self._todo.popleft()

    def _tell_history(self, at: float, end: float, began: float) -> None:
        """`at`: where the piece that is in began."""
        first, done_to = self._from or at, self._done_to or at
        left = (self._clock.monotonic() - began) * (end - done_to) / max(1.0, done_to - first)
        self.notes["history"] = (f"history: read up to {utc(done_to)}, {min(0.99, (done_to - first) / max(1.0, end - first)):.0%}"
                                 + (f"; about {duration(left)} to go" if left > 60.0 else ""))

    # -------------------------------------------------------------------------------------------------------- live
    def poll(self, now: float, into: Samples) -> None:
        """The samples that became visible since the last poll, at most an hour of them. By the server's clock."""
        self._begin()
        at = now + self._api.skew_s
        start = self._done_to if self._done_to is not None else at - self.interval_s
        if at - start > MAX_CATCH_UP_S:
            self.notes["gap"] = f"{duration(at - start)} without contact; only the last {duration(MAX_CATCH_UP_S)} was read"
            start = at - MAX_CATCH_UP_S
        self._todo.clear()
        at = min(at, start + self._most_s)
        try:
            partial = self._fetch(min(start, at) - OVERLAP_S, at, into)
        except SourceError as e:
            self._most_s = max(OVERLAP_S, min(self._most_s, at - start) / 2) if e.late else self._most_s
            raise
        self._most_s = min(2 * self._most_s, MAX_CATCH_UP_S)
        self._partial = self._partial + 1 if partial else 0
        if not partial or self._partial >= PARTIAL_TRIES:
            self._done_to = at
        self._series.forget(at)
        links = self._series.pods.changed(at)
        if links:
            into.links(f"{self.name}-gpus", links)
        self._tell()

    def _fetch(self, start: float, end: float, into: Samples) -> bool:
        """Every new sample with start < time <= end; True where the server had only a part of them.

        A part of the series is not the whole: its sums would be too small. So it waits until the whole is there, but not
        for ever: for as long as a poll's overlap reaches back.
        """
        partial, todo = False, deque(Wanted(start, end, g.names, g.match) for g in self._groups)
        while todo:
            wanted = todo.popleft()
            try:
                answer = self._api.read(wanted)
            except SourceError as e:
                halves = smaller(wanted, e, fewer_series=True)
                if not halves:
                    raise
                todo.extendleft(reversed(halves))
                continue
            partial |= bool(answer.partial)
            if not answer.partial or self._partial + 1 >= PARTIAL_TRIES:
                self._put(answer, wanted, into)
        return partial

    @property
    def rejected(self) -> dict[str, int]:
        """What could not be used, by reason; what packs ignore on purpose is not among it."""
        return {reason: n for reason, n in self.dropped.items() if n and reason != "ignored"}

    @property
    def found(self) -> Set[str]:
        """Names of the metrics that this Prometheus has."""
        return self._series.found

    # ----------------------------------------------------------------------------------------------------- reading
    def _begin(self) -> None:
        """What the targets declare, once. Some servers keep none; the packs and the naming convention then have to do."""
        if self._closed:
            raise SourceError(self._api.url, "the source was closed.", "")
        if not self._told_kinds:
            try:
                self._series.kinds = self._api.metadata()
            except SourceError as e:
                if e.status in (0, 401, 403, 429, 503):
                    raise
                self.notes["metadata"] = f"no metadata: {e.what}"
            self._told_kinds = True

    def _put(self, answer: Answer, wanted: Wanted, into: Samples) -> None:
        if self._series.take(answer, wanted.start, wanted.end, into) is None:
            raise SourceError(self._api.url, "more samples wait for the next step than there is room for.",
                              "They are read again later. Watch fewer packs if it lasts.")

    def _tell(self) -> None:
        """What a person should know: partial results, clocks, and packs that were asked for by name and have nothing here."""
        for key, said in (("warnings", self._api.warnings), ("infos", self._api.infos)):
            self._warned[key] += len(said)
            if said:
                what = "warnings, partial results" if key == "warnings" else "remarks of the server"
                self.notes[key] = f"{self._warned[key]} {what}: {said[-1][:200]}"
            said.clear()
        skew = self._api.skew_s
        self.notes["clock"] = (f"the server's clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the clock here; "
                               "its times count. Check NTP on both")
        if not skew:
            del self.notes["clock"]
        left = ", ".join(f"{n} {reason}" for reason, n in sorted(self.dropped.items()) if n and reason != "ignored")
        self.notes |= {"dropped": f"left out: {left}"} if left else {}
        for pack in self._packs or ():
            missing = self._series.found.isdisjoint(self._meanings.metric_names([pack]))
            if missing:
                self.notes[f"pack {pack}"] = f"pack {pack}: none of its metrics is in this Prometheus"
            else:
                self.notes.pop(f"pack {pack}", None)


def _groups(names: Sequence[str], match: Sequence[str]) -> list[Wanted]:
    """A few selectors that together name all metrics, each short enough for a URL; they say nothing of time yet."""
    groups = [tuple(names[i:i + NAMES_PER_QUERY]) for i in range(0, len(names), NAMES_PER_QUERY)]
    return [*(Wanted(0.0, 0.0, names=group) for group in groups), *(Wanted(0.0, 0.0, match=m) for m in match)]
