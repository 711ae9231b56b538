"""Log lines of a Loki: polled with `query_range`, or by its websocket with the polls filling what it missed.

Polls overlap, because lines arrive late; each line is handed on once. The time up to which everything was handed on is
written down at the beginning of each poll: an ordered restart repeats nothing, a kill repeats the lines of the last poll.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from aiops.interfaces import Samples
from aiops.meaning import Meanings
from aiops.sources.logs.lines import FULL, MAX_LINE_BYTES, plain
from aiops.sources.loki.api import Entry, LokiApi
from aiops.sources.loki.tail import LokiTail
from aiops.sources.offsets import Place, note
from aiops.types import Entity, LogLine

NS = 1_000_000_000
OVERLAP_NS = 10 * NS
LATE_NS = 60 * NS
MAX_CATCH_UP_S = 3600.0
MAX_PAGES = 20
MAX_SEEN = 300_000
DEFAULT_LIMIT = 2_000
_SERVICE = ("service", "service_name", "app", "app_kubernetes_io_name")
_HOST = ("host", "hostname", "node", "node_name", "nodename")


class LokiSource:
    """The lines that a LogQL query selects. backfill_s: how far back the first poll of all goes.

    limit: lines of one query, at most Loki's max_entries_limit_per_query. tail: use the websocket. place: the file that
    keeps how far it came. `rejected` counts by reason: too_long (cut), same_time (more lines in one nanosecond than one
    query gives), gap (times that were skipped, because more than an hour had been missed).
    """

    def __init__(self, name: str, api: LokiApi, query: str, meanings: Meanings, *, interval_s: float = 10.0,
                 backfill_s: float = 60.0, limit: int = DEFAULT_LIMIT, tail: bool = False, place: Path | None = None) -> None:
        self.name, self.interval_s = name, interval_s
        self._api, self._query, self._meanings, self._limit = api, query, meanings, limit
        self._backfill_s = backfill_s
        self._tail = LokiTail(api, query) if tail else None
        self._place = Place(place)
        self._seen: dict[tuple[int, int], None] = {}
        self._entities: dict[tuple[tuple[str, str], ...], Entity] = {}
        self.rejected: Counter[str] = Counter()
        self.notes: dict[str, str] = {}
        self._done_ns, self._from_ns = self._restored()
        self._newest_ns = self._from_ns - 1
        self._behind = False
        self._refused_ns: int | None = None
        self._owed = False

    def poll(self, now: float, into: Samples) -> None:
        """The lines that came since the last poll. Raises SourceError with what Loki said."""
        now_ns = int(now * NS)
        self._save()
        if self._tail is None:
            self._fetch(now_ns, into)
        else:
            self._follow(self._tail, now_ns, into)
        note(self.notes, "behind", self._behind and self._refused_ns is None,
            f"Loki has more lines than {MAX_PAGES * self._limit} a poll; the rest comes later. Narrow the query, or raise limit.")
        note(self.notes, "full", self._refused_ns is not None, FULL)

    def close(self) -> None:
        """Writes down how far it came."""
        self._save()
        if self._tail:
            self._tail.close()
        self._api.close()

    # -------------------------------------------------------------------------------------------------------- ranges
    def _fetch(self, now_ns: int, into: Samples) -> None:
        """Page by page up to now, at most 20 of them; the next poll goes on where this one stopped."""
        at, self._behind = self._start(now_ns), False
        for _ in range(MAX_PAGES):
            page = self._api.page(self._query, at, now_ns + 1, self._limit)
            self._refused_ns = None
            new, all_taken = self._hand_on(page, into)
            if not all_taken:
                break
            if len(page) < self._limit:
                self._done_ns = max(self._done_ns or 0, now_ns)
                return
            last = page[-1].ns
            if last == at and not new:  # one page cannot hold all lines of this nanosecond
                self.rejected["same_time"] += 1
                last += 1
            at = last
            self._done_ns = max(self._done_ns or 0, at)
        self._behind = True

    def _start(self, now_ns: int) -> int:
        if self._done_ns is None:
            return now_ns - int(self._backfill_s * NS)
        start = max(self._from_ns, self._done_ns - (0 if self._behind else OVERLAP_NS))
        oldest = now_ns - int(MAX_CATCH_UP_S * NS)
        if start < oldest:
            self.rejected["gap"] += 1
            self.notes["gap"] = f"{(now_ns - start) / NS:.0f} s without contact; only the last {MAX_CATCH_UP_S:.0f} s are read"
        return max(start, oldest)

    # ---------------------------------------------------------------------------------------------------------- tail
    def _follow(self, tail: LokiTail, now_ns: int, into: Samples) -> None:
        """What the websocket brought; what it could not bring is asked for, and it is opened again."""
        was_running = tail.running
        found, missed = tail.taken()
        _, all_taken = self._hand_on(found, into)
        self._owed = self._owed or bool(missed) or not was_running or self._behind
        note(self.notes, "tail", bool(missed), f"the tail was interrupted, and goes on: {missed}")
        if all_taken and self._owed:
            self._fetch(now_ns, into)
            self._owed = False
        if not self._behind:
            self._done_ns = max(self._done_ns or 0, now_ns - OVERLAP_NS)
        if not tail.running:
            tail.start(max(self._from_ns, (self._done_ns or 0) - OVERLAP_NS), self._limit)

    # --------------------------------------------------------------------------------------------------------- lines
    def _hand_on(self, found: Iterable[Entry], into: Samples) -> tuple[int, bool]:
        """How many new ones were handed on, and whether that is all: the next poll goes on from one that was not taken."""
        new = 0
        left = iter(found)
        for entry in left:
            key = (entry.ns, hash((entry.text, *sorted(entry.labels.items()))))
            if key in self._seen or entry.ns < self._from_ns:
                continue
            text = self._text(entry.text)
            if text and not into.line(LogLine(entry.ns / NS, self._entity(entry.labels), text)):
                self._go_on_from(min(e.ns for e in (entry, *left)))
                return new, False
            self._seen[key] = None
            self._newest_ns = max(self._newest_ns, entry.ns)
            new += 1
        self._forget()
        return new, True

    def _go_on_from(self, ns: int) -> None:
        """Lines from this time on were not taken."""
        self._refused_ns = ns if self._refused_ns is None else min(ns, self._refused_ns)
        self._behind, self._done_ns = True, self._refused_ns

    def _text(self, text: str) -> str:
        if len(text) > MAX_LINE_BYTES:
            self.rejected["too_long"] += 1
        return plain(text[:MAX_LINE_BYTES].rstrip("\r\n")).strip()

    def _forget(self) -> None:
        """Lines older than the overlap are not asked for again."""
        if len(self._seen) > 10_000:
            oldest = (self._done_ns or 0) - 2 * OVERLAP_NS
            self._seen = {k: None for k in self._seen if k[0] >= oldest}
        while len(self._seen) > MAX_SEEN:
            del self._seen[next(iter(self._seen))]

    def _entity(self, labels: Mapping[str, str]) -> Entity:
        key = tuple(sorted(labels.items()))
        if key not in self._entities:
            if len(self._entities) >= 10_000:
                self._entities.clear()
            self._entities[key] = whose(self._meanings, labels)
        return self._entities[key]

    # --------------------------------------------------------------------------------------------------------- place
    def _restored(self) -> tuple[int | None, int]:
        saved: Any = self._place.load()
        note(self.notes, "begin", bool(self._place.problem), self._place.problem)
        if isinstance(saved, dict) and saved.get("query") == self._query and isinstance(saved.get("done_ns"), int):
            return saved["done_ns"], saved["done_ns"] + 1
        return None, 0

    def _save(self) -> None:
        if self._done_ns is not None:  # what comes late is newer than the newest line, mostly
            done = max(self._newest_ns, self._done_ns - LATE_NS)
            left = done if self._refused_ns is None else self._refused_ns - 1
            self._place.save({"query": self._query, "done_ns": min(done, left)})
        note(self.notes, "place", bool(self._place.problem), self._place.problem)


def whose(meanings: Meanings, labels: Mapping[str, str]) -> Entity:
    """The entity of a stream: pod, service (`service_name`, `app`), host, else instance and job, as for metrics."""
    def first(names: Iterable[str]) -> str:
        return next((labels[n] for n in names if labels.get(n)), "")
    service, host = first(_SERVICE), first(_HOST)
    if service == "unknown_service":  # what Loki calls a stream of which it knows nothing
        service = ""
    if host and not labels.get("pod") and not service:
        return f"node//{host}"
    known = {k: v for k, v in labels.items() if k != "service"} | ({"service": service} if service else {})
    entity, _ = meanings.entity("", known)
    return "unknown//loki" if entity == "unknown//" else entity
