"""Polls a Prometheus for the raw samples of the metrics that packs know, and hands in its history first.

Samples keep the times of their scrapes. Polls overlap, because a sample becomes visible only when its scrape has ended;
a sample is handed on once. Thanos, Mimir, Cortex and VictoriaMetrics answer the same questions.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from pathlib import Path

from aiops.interfaces import Samples
from aiops.meaning import Meanings, shipped
from aiops.sources.promapi import Labels, PromApi, Read, SourceError
from aiops.types import Bools, Entity, Kind

NAMES_PER_QUERY = 40
OVERLAP_S = 60.0
MAX_CATCH_UP_S = 3600.0
CHUNK_S = 3600.0
FORGET_S = 3 * 3600.0
DEFAULT_BACKFILL_S = 14 * 86400.0
_FAMILY = re.compile(r"_(sum|count|bucket|total)$")


class PrometheusSource:
    """The metrics of `packs` (None: of all packs in `meanings`), and whatever `match` selects besides.

    backfill_s is how much history is asked for; the token is read from its file at every poll, so that it may rotate.
    `notes` says what the server warned of, and which packs have nothing there. Raises SourceError where it cannot be read.
    """

    def __init__(self, name: str, url: str, *, packs: Sequence[str] | None = None, meanings: Meanings | None = None,
                 interval_s: float = 15.0, backfill_s: float = DEFAULT_BACKFILL_S, match: Sequence[str] = (),
                 token_file: Path | None = None, tenant: str = "", timeout_s: float = 30.0) -> None:
        self.name, self.interval_s = name, interval_s
        self.notes: dict[str, str] = {}
        self.dropped: Counter[str] = Counter()
        self._meanings = meanings or shipped()
        self._packs = tuple(packs) if packs is not None else None
        self._url, self._tenant, self._timeout_s, self._token_file = url, tenant, timeout_s, token_file
        self._token = ""
        self._api = PromApi(url, timeout_s=timeout_s, tenant=tenant)
        self._selectors = [*_selectors(self._meanings.metric_names(self._packs)), *match]
        self._backfill_s = backfill_s
        self._done_to: float | None = None
        self._seen: dict[tuple[tuple[str, str], ...], _Target] = {}
        self._kinds: dict[str, Kind] | None = None
        self._found: set[str] = set()
        self._warned = 0

    # ----------------------------------------------------------------------------------------------------- history
    def history(self, now: float, into: Samples) -> Iterator[float]:
        """Hands in the history up to `now`, oldest first, one query at a time; yields the time up to which all is in.

        After a failure a new call goes on where the last one stopped, and hands in nothing twice.
        """
        at = self._done_to if self._done_to is not None else now - self._backfill_s
        while at < now:
            until = min(at + CHUNK_S, now)
            self._fetch(at, until, into)
            self._done_to = at = until
            yield until
        self._tell()

    def backfill(self, now: float, into: Samples) -> None:
        """All of `history` at once; only for as much as fits into memory."""
        for _ in self.history(now, into):
            pass

    # -------------------------------------------------------------------------------------------------------- live
    def poll(self, now: float, into: Samples) -> None:
        """The samples that became visible since the last poll, at most an hour of them."""
        start = self._done_to if self._done_to is not None else now - self.interval_s
        if now - start > MAX_CATCH_UP_S:
            self.notes["gap"] = f"{now - start:.0f} s without contact; only the last {MAX_CATCH_UP_S:.0f} s were read"
            start = now - MAX_CATCH_UP_S
        self._fetch(start - OVERLAP_S, now, into)
        self._done_to = now
        self._forget(now)
        self._tell()

    def close(self) -> None:
        self._api.close()

    @property
    def found(self) -> Set[str]:
        """Names of the metrics that this Prometheus has."""
        return self._found

    # ----------------------------------------------------------------------------------------------------- reading
    def _fetch(self, start: float, end: float, into: Samples) -> None:
        """Every new sample with start < time <= end."""
        self._authenticate()
        if self._kinds is None:
            self._kinds = self._metadata()
        for selector in self._selectors:
            for read in self._api.raw(selector, start, end, CHUNK_S + OVERLAP_S):
                self._put(read, into)
        if self._api.warnings:
            self._warned += len(self._api.warnings)
            self.notes["warnings"] = f"{self._warned} warnings, partial results: {self._api.warnings[-1][:200]}"
            self._api.warnings.clear()

    def _put(self, read: Read, into: Samples) -> None:
        labels, times, values = read
        target = self._target(labels)
        if target is None:
            return
        fresh: Bools = times > target.last
        for at, value in zip(times[fresh].tolist(), values[fresh].tolist(), strict=True):
            into.sample(at, target.entity, target.metric, target.labels, value, target.kind)
        if len(times):
            target.last = max(target.last, float(times[-1]))

    def _target(self, labels: Labels) -> _Target | None:
        """Where the samples of a series belong; None for what is never watched."""
        key = tuple(sorted(labels.items()))
        if key not in self._seen:
            metric = labels.get("__name__", "")
            if not metric or self._meanings.ignored(metric):
                self.dropped["ignored" if metric else "no_name"] += 1
                return None
            rest = {k: v for k, v in labels.items() if k != "__name__"}
            entity, own = self._meanings.entity(metric, rest)
            self._found.add(metric)
            self._seen[key] = _Target(entity, metric, own, self._kind(metric))
        return self._seen[key]

    def _kind(self, metric: str) -> Kind:
        kinds = self._kinds or {}
        told = kinds.get(metric) or kinds.get(_FAMILY.sub("", metric), "unknown")
        return self._meanings.kind(metric, told)

    def _metadata(self) -> dict[str, Kind]:
        """What the targets declare. Some servers keep none; the packs and the naming convention then have to do."""
        try:
            return self._api.metadata()
        except SourceError as e:
            if e.status in (0, 401, 403):
                raise
            self.notes["metadata"] = f"no metadata: {e.what}"
            return {}

    def _authenticate(self) -> None:
        if self._token_file is None:
            return
        try:
            token = self._token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as e:
            reason = getattr(e, "strerror", None) or "it is not UTF-8 text"
            raise SourceError(str(self._token_file), f"the token cannot be read: {reason.lower()}.",
                              "Check tokenFile and the rights of the file.") from None
        if token != self._token:
            self._api.close()
            self._token = token
            self._api = PromApi(self._url, timeout_s=self._timeout_s, token=token, tenant=self._tenant)

    def _forget(self, now: float) -> None:
        """Series that ended need no memory of when they were last seen."""
        if len(self._seen) > 1000:
            self._seen = {k: t for k, t in self._seen.items() if now - t.last < FORGET_S}

    def _tell(self) -> None:
        """Which packs were asked for by name and have nothing here: a wrong job, or an exporter that is not there."""
        for pack in self._packs or ():
            missing = not any(m in self._found for m in self._meanings.metric_names([pack]))
            if missing:
                self.notes[f"pack {pack}"] = f"pack {pack}: none of its metrics is in this Prometheus"
            else:
                self.notes.pop(f"pack {pack}", None)


class _Target:
    """Where one Prometheus series goes, and the time of the last sample that was handed on."""

    __slots__ = ("entity", "kind", "labels", "last", "metric")

    def __init__(self, entity: Entity, metric: str, labels: dict[str, str], kind: Kind) -> None:
        self.entity, self.metric, self.labels, self.kind = entity, metric, labels, kind
        self.last = float("-inf")


def _selectors(names: Sequence[str]) -> list[str]:
    """A few selectors that together name all metrics, each short enough for a URL."""
    groups = [names[i:i + NAMES_PER_QUERY] for i in range(0, len(names), NAMES_PER_QUERY)]
    return ['{__name__=~"' + "|".join(re.escape(n) for n in group) + '"}' for group in groups]
