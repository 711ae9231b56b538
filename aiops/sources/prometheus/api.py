"""Reads of the Prometheus HTTP API: discovery, metadata, range queries, raw samples.

https://prometheus.io/docs/prometheus/latest/querying/api/ - also spoken by Thanos, Mimir, Cortex and VictoriaMetrics.
What there is (series, metadata, names) is asked through prometheus_api_client; samples, of which there are many, are not.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np

from aiops.interfaces import Clock
from aiops.sources.access import Access, SourceError
from aiops.sources.prometheus.decode import Answer, Labels, Unusable, decode, labels_of
from aiops.sources.prometheus.http import MAX_BODY_BYTES, PromHttp
from aiops.types import Floats, Kind

MAX_POINTS = 11_000  # what Prometheus accepts for one series in one range query
MIN_WIDTH_S = 60.0
Read = tuple[Labels, Floats, Floats]
# What a metric family consists of. https://prometheus.io/docs/concepts/metric_types/
_MEMBERS: dict[str, dict[str, Kind]] = {
    "counter": {"": "counter", "_total": "counter"},
    "gauge": {"": "gauge"},
    "histogram": {"_bucket": "counter", "_sum": "counter", "_count": "counter"},
    "summary": {"": "gauge", "_sum": "counter", "_count": "counter"},
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """The raw samples with start < time <= end of what `match` selects, or else of the metrics in `names`."""

    start: float
    end: float
    names: tuple[str, ...] = ()
    match: str = ""

    @property
    def selector(self) -> str:
        return self.match or '{__name__=~"' + "|".join(re.escape(n) for n in self.names) + '"}'

    def halves(self, fewer_series: bool = False) -> tuple[Wanted, ...]:
        """The same in two smaller pieces, the earlier first; empty where it cannot be made smaller."""
        middle = (self.start + self.end) / 2
        if self.end - self.start > 2 * MIN_WIDTH_S and not (fewer_series and len(self.names) > 1):
            return replace(self, end=middle), replace(self, start=middle)
        half = len(self.names) // 2
        return (replace(self, names=self.names[:half]), replace(self, names=self.names[half:])) if half else ()


def smaller(wanted: Wanted, error: SourceError, fewer_series: bool = False) -> tuple[Wanted, ...]:
    """Smaller questions, where the server (or the limit on its answers) says that this one was too large."""
    if error.late and fewer_series:
        return ()  # live: whoever is slow gets time, not more queries
    return wanted.halves(fewer_series or "series" in error.what) if error.too_much or error.late else ()


class PromApi(PromHttp):
    """One Prometheus. Blocking; every method raises SourceError.

    `warnings` holds what the server said about partial results, `infos` its other remarks, the last hundred of each.
    """

    def __init__(self, url: str, access: Access | None = None, *, timeout_s: float = 30.0, retries: int = 2,
                 max_bytes: int = MAX_BODY_BYTES, clock: Clock | None = None) -> None:
        super().__init__(url, access, timeout_s=timeout_s, retries=retries, max_bytes=max_bytes, clock=clock)
        self.warnings: deque[str] = deque(maxlen=100)
        self.infos: deque[str] = deque(maxlen=100)

    # -------------------------------------------------------------------------------------------------- what there is
    def version(self) -> str:
        """What the server says it is, '' where it does not tell: Mimir, Thanos and VictoriaMetrics have no such page."""
        try:
            data = self.library(lambda _: self.session().get(
                f"{self.url}/api/v1/status/buildinfo", timeout=self.timeout_s, verify=self.access.verify).json()["data"])
        except SourceError as e:
            if e.status not in (404, 405, 501):
                raise
            return ""
        return str(data.get("version", ""))[:100] if isinstance(data, dict) else ""

    def names(self, start: float, end: float) -> set[str]:
        """The names of all metrics that had samples between start and end."""
        found = self.library(lambda c: c.all_metrics(params={"start": f"{start:.3f}", "end": f"{end:.3f}"}))
        return {str(name) for name in found}

    def series(self, match: str, start: float, end: float) -> list[Labels]:
        """The label sets (with `__name__`) that had samples between start and end."""
        when = [datetime.fromtimestamp(t, UTC) for t in (start, end)]
        found = self.library(lambda c: c.get_series(when[0], when[1], params={"match[]": match}))
        return [dict(labels) for labels in found]

    def metadata(self) -> dict[str, Kind]:
        """Metric -> gauge or counter, as the targets declare it. Empty where the server keeps no metadata."""
        found = self.library(lambda c: [(str(e["metric_name"]), str(e["type"])) for e in c.get_metric_metadata(None)])
        declared: dict[str, str] = {}
        for family, kind in found:
            declared.setdefault(family, kind)
        return {metric: kind for family, told in declared.items() for metric, kind in _members(family, told)}

    # -------------------------------------------------------------------------------------------------------- samples
    def read(self, wanted: Wanted, share: float = 1.0) -> Answer:
        """Stored samples with the times of their scrapes and with real gaps; those at `start` may come along.

        It is a range selector in an instant query. A range query would make up a value for every step out of the last
        sample, and repeat it for five minutes after a target has gone.
        https://prometheus.io/docs/prometheus/latest/querying/basics/#range-vector-selectors
        """
        width_ms = math.ceil((wanted.end - wanted.start) * 1000) + 1
        return self._answer("query", {"query": f"{wanted.selector}[{width_ms}ms]", "time": f"{wanted.end:.3f}"}, share)

    def raw(self, match: str, start: float, end: float, chunk_s: float = 3600.0) -> Iterator[Read]:
        """Stored samples with start < time <= end of a plain series selector; smaller pieces where the server wants them."""
        pieces = max(1, math.ceil((end - start) / chunk_s)) if end > start else 0
        todo = deque(Wanted(start + k * chunk_s, min(start + (k + 1) * chunk_s, end), match=match) for k in range(pieces))
        while todo:
            wanted = todo.popleft()
            try:
                answer = self.read(wanted)
            except SourceError as e:
                halves = wanted.halves() if e.too_much or e.late else ()
                if not halves:
                    raise
                todo.extendleft(reversed(halves))
                continue
            for labels, times, values in self._reads(answer):
                new = (times > wanted.start) & (times <= wanted.end)
                if new.any():
                    yield labels, times[new], values[new]

    def range(self, query: str, start: float, end: float, step_s: float) -> Iterator[Read]:
        """Evaluates `query` at start, start + step, … <= end: (labels, times float64[n], values float64[n]).

        A long time is asked for in pieces of at most 11,000 points: the same labels may come several times, in order.
        """
        if not step_s > 0 or end < start:
            raise ValueError(f"range needs step > 0 and end >= start, got {step_s:g} from {start:g} to {end:g}")
        points = int((end - start) / step_s + 1e-9) + 1
        for first in range(0, points, MAX_POINTS):
            last = min(points, first + MAX_POINTS) - 1
            yield from self._reads(self._answer("query_range", {
                "query": query, "start": f"{start + first * step_s:.3f}", "end": f"{start + last * step_s:.3f}",
                "step": f"{step_s:.3f}"}, 1.0))

    def _answer(self, path: str, form: dict[str, str], share: float) -> Answer:
        body = self.query(path, form, share)
        try:
            answer = decode(body)
        except Unusable as e:
            text = body[:200].decode("utf-8", "replace")
            what = f"{e}: {' '.join(text.split())[:80]!r}" if str(e) == "not JSON" else str(e)
            raise SourceError(self.url, f"the answer is not of the Prometheus API: {what}.",
                              "Is this the address of a Prometheus server?") from None
        self.warnings.extend(t for t in answer.partial if t not in self.warnings)
        self.infos.extend(t for t in answer.infos if t not in self.infos)
        return answer

    def _reads(self, answer: Answer) -> Iterator[Read]:
        """Series by series, for those who need their labels anyway. Labels that cannot be read are left out."""
        ends = np.cumsum(answer.counts)
        for metric, begin, end in zip(answer.metrics, (ends - answer.counts).tolist(), ends.tolist(), strict=True):
            try:
                labels = labels_of(metric)
            except Unusable:
                continue
            yield labels, answer.times[begin:end], answer.values[begin:end]


def _members(family: str, declared: str) -> list[tuple[str, Kind]]:
    """The series names of a family and their kinds; nothing where the type says nothing."""
    return [(family + suffix, kind) for suffix, kind in _MEMBERS.get(declared, {}).items()]
