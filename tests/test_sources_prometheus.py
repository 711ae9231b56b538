"""Polling a Prometheus: every sample once, in time, and history that can be resumed."""

from __future__ import annotations

import itertools
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.collected import Collected
from fakes.prometheus import running
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from aiops.clock import WallClock
from aiops.sources.access import Access, SourceError
from aiops.sources.prometheus import PrometheusSource

NOW = 1_795_000_000.0
NODE = {"__name__": "node_load1", "instance": "a:9100", "job": "node"}


class FakePrometheus:
    """Range selectors over series that are given as labels and samples; `broken` answers 503, `warnings` are sent along."""

    def __init__(self, server: HTTPServer) -> None:
        self.series: list[tuple[dict[str, str], dict[float, float]]] = []
        self.kinds: dict[str, str] = {}
        self.asked: list[Request] = []
        self.broken = False
        self.broken_after: int | None = None
        self.warnings: list[str] = []
        self.url = server.url_for("").rstrip("/")
        server.expect_request("/api/v1/query").respond_with_handler(self._query)
        server.expect_request("/api/v1/metadata").respond_with_handler(
            lambda _: self._ok({n: [{"type": k, "help": "", "unit": ""}] for n, k in self.kinds.items()}))

    def scrape(self, labels: dict[str, str], *times: float, value: float = 1.0) -> None:
        """Samples become visible now."""
        for known, samples in self.series:
            if known == labels:
                samples.update(dict.fromkeys(times, value))
                return
        self.series.append((labels, dict.fromkeys(times, value)))

    def _query(self, request: Request) -> Response:
        self.asked.append(request)
        if self.broken or (self.broken_after is not None and len(self.asked) > self.broken_after):
            return Response("gateway", status=503)
        found = re.fullmatch(r'\{__name__=~"(.*)"\}\[(\d+)ms\]', request.values["query"])
        assert found, request.values["query"]
        until = float(request.values["time"])
        since = until - int(found[2]) / 1000
        rows = [{"metric": labels, "values": [[t, str(v)] for t, v in sorted(samples.items()) if since <= t <= until]}
                for labels, samples in self.series if re.fullmatch(found[1], labels["__name__"])]
        return self._ok({"resultType": "matrix", "result": [r for r in rows if r["values"]]})

    def _ok(self, data: object) -> Response:
        body = {"status": "success", "data": data} | ({"warnings": self.warnings} if self.warnings else {})
        return Response(json.dumps(body), content_type="application/json")


@pytest.fixture
def fake(httpserver: HTTPServer) -> FakePrometheus:
    return FakePrometheus(httpserver)


def source(fake: FakePrometheus, **more: object) -> PrometheusSource:
    return PrometheusSource("prom", fake.url, **({"packs": ["node"]} | more))  # type: ignore[arg-type]


def times(got: Collected) -> list[float]:
    return [s.time for s in got.samples]


def poll(s: PrometheusSource, now: float) -> Collected:
    got = Collected()
    s.poll(now, got)
    return got


def test_samples_keep_their_time_entity_labels_and_kind(fake: FakePrometheus) -> None:
    """As the pack says: job and instance make the entity, the rest tells series apart."""
    fake.scrape({"__name__": "node_cpu_seconds_total", "instance": "a:9100", "job": "node", "cpu": "0", "mode": "idle"},
                NOW - 5.25, value=7.5)
    (s,) = poll(source(fake), NOW).samples
    assert (s.time, s.entity, s.metric, s.labels, s.value, s.kind) == (
        NOW - 5.25, "node//a:9100", "node_cpu_seconds_total", {"cpu": "0", "mode": "idle"}, 7.5, "counter")


def test_overlapping_polls_hand_over_every_sample_once(fake: FakePrometheus) -> None:
    """A scrape that became visible late is caught by the next poll; nothing comes twice."""
    s = source(fake)
    fake.scrape(NODE, NOW - 20, NOW - 5)
    assert times(poll(s, NOW)) == [NOW - 20, NOW - 5]
    fake.scrape({**NODE, "instance": "slow:9100"}, NOW - 1)
    fake.scrape(NODE, NOW + 10)
    got = poll(s, NOW + 15)
    assert sorted((x.entity, x.time) for x in got.samples) == [("node//a:9100", NOW + 10), ("node//slow:9100", NOW - 1)]
    assert poll(s, NOW + 15).samples == []


def test_after_an_outage_the_gap_is_caught_up(fake: FakePrometheus) -> None:
    """Half an hour of failed polls is read afterwards; more than an hour is cut, and said."""
    s = source(fake)
    poll(s, NOW)
    fake.broken = True
    with pytest.raises(SourceError, match="503"):
        poll(s, NOW + 60)
    fake.broken = False
    fake.scrape(NODE, *(NOW + 30 * i for i in range(1, 60)))
    assert len(poll(s, NOW + 1800).samples) == 59
    assert "gap" not in s.notes
    poll(s, NOW + 10_000)
    assert "8200 s without contact" in s.notes["gap"]


def test_history_comes_oldest_first_and_in_chunks(fake: FakePrometheus) -> None:
    """Three hours are read hour by hour, one query at a time; each chunk ends where the next begins."""
    fake.scrape(NODE, *(NOW - 60 * i for i in range(180)))
    s, got, ends = source(fake, backfill_s=3 * 3600.0), Collected(), []
    for end in s.history(NOW, got):
        assert all(t <= end for t in times(got))
        ends.append(end)
    assert ends == [NOW - 7200, NOW - 3600, NOW]
    assert times(got) == sorted(times(got))
    assert len(got.samples) == 180
    assert poll(s, NOW + 5).samples == [], "the live poll goes on where history ended"


def test_history_goes_on_after_a_failure_without_doubles(fake: FakePrometheus) -> None:
    """It fails in the middle of the second chunk; the next call reads that one again, and every sample came once."""
    fake.scrape(NODE, *(NOW - 60 * i for i in range(180)))
    s, got = source(fake, backfill_s=3 * 3600.0, match=['{__name__=~"more_.*"}']), Collected()
    next(s.history(NOW, got))
    fake.broken_after = len(fake.asked) + 1
    with pytest.raises(SourceError):
        s.backfill(NOW, got)
    fake.broken_after = None
    assert len(got.samples) > 60, "part of the second chunk is in already"
    s.backfill(NOW, got)
    assert sorted(times(got)) == sorted(NOW - 60 * i for i in range(180))


def test_the_kind_comes_from_the_pack_else_from_metadata(fake: FakePrometheus) -> None:
    """A histogram's sum is a counter although metadata knows only the family."""
    fake.kinds = {"my_seconds": "histogram", "my_level": "gauge", "my_total_things": "counter"}
    for name in ("my_seconds_sum", "my_level", "my_total_things"):
        fake.scrape({"__name__": name, "job": "x"}, NOW - 1)
    got = poll(source(fake, match=['{__name__=~"my_.*"}']), NOW)
    assert {s.metric: s.kind for s in got.samples} == {
        "my_seconds_sum": "counter", "my_level": "gauge", "my_total_things": "counter"}


def test_what_two_selectors_find_is_handed_over_once(fake: FakePrometheus) -> None:
    """`match` may well select what a pack has selected already."""
    fake.scrape(NODE, NOW - 1)
    assert len(poll(source(fake, match=['{__name__=~"node_.*"}']), NOW).samples) == 1


def test_partial_results_are_counted_and_shown(fake: FakePrometheus) -> None:
    """Thanos answers 200 with a warning when a store is down: the operator must see it."""
    fake.warnings = ["store 10.0.0.1 is down"]
    s = source(fake)
    poll(s, NOW)
    poll(s, NOW + 15)
    assert re.fullmatch(r"\d+ warnings, partial results: store 10.0.0.1 is down", s.notes["warnings"])
    assert int(s.notes["warnings"].split()[0]) >= 2


def test_a_pack_that_finds_nothing_is_named(fake: FakePrometheus) -> None:
    """No exporter, or another job: silence must not look like health."""
    s = source(fake, packs=["node", "dcgm"])
    fake.scrape(NODE, NOW - 1)
    poll(s, NOW)
    assert list(s.notes) == ["pack dcgm"]
    assert "none of its metrics" in s.notes["pack dcgm"]


def test_the_token_is_read_again_when_it_rotates(fake: FakePrometheus, tmp_path: Path) -> None:
    """Service account tokens live for an hour; the header follows the file. The tenant goes along."""
    token = tmp_path / "token"
    token.write_text("first\n")
    s = source(fake, access=Access(token_file=token, tenant="team-a"))
    poll(s, NOW)
    token.write_text("second\n")
    poll(s, NOW + 15)
    assert {r.headers["X-Scope-OrgID"] for r in fake.asked} == {"team-a"}
    assert list(dict.fromkeys(r.headers["Authorization"] for r in fake.asked)) == ["Bearer first", "Bearer second"]


def test_a_token_that_cannot_be_read_says_which(fake: FakePrometheus, tmp_path: Path) -> None:
    """Place and remedy, and not a single request without credentials."""
    s = source(fake, access=Access(token_file=tmp_path / "nope"))
    with pytest.raises(SourceError, match=r"nope: the token cannot be read: no such file.* Check tokenFile"):
        poll(s, NOW)
    assert fake.asked == []


def test_memory_of_series_that_ended_is_given_back(fake: FakePrometheus) -> None:
    """A cluster makes thousands of new pods a day."""
    s = source(fake)
    for i in range(1500):
        fake.scrape({**NODE, "instance": f"n{i}"}, NOW - 1)
    poll(s, NOW)
    assert len(s._series) == 1500
    fake.series.clear()
    poll(s, NOW + 4 * 3600)
    assert len(s._series) == 0


@pytest.fixture
def real_prometheus(tmp_path: Path) -> Iterator[str]:
    with running(tmp_path, "api") as url:
        yield url


@pytest.mark.real("prometheus")
def test_a_real_prometheus_is_read_without_gaps_or_doubles(real_prometheus: str) -> None:
    """History, then polls while it goes on scraping: rising times, every scrape of `up` seen, real kinds."""
    clock, pause, got = WallClock(), threading.Event(), Collected()
    s = PrometheusSource("prom", real_prometheus, packs=["service"], backfill_s=120.0)
    for _ in range(150):
        pause.wait(0.2)
        try:
            s.poll(clock.now(), got) if got.samples else s.backfill(clock.now(), got)
        except SourceError:
            continue  # still starting
        if len(got.values("up")) >= 20:
            break
    ups = [x.time for x in got.samples if x.metric == "up"]
    assert len(ups) >= 20
    gaps = [b - a for a, b in itertools.pairwise(ups)]
    assert all(0.0 < g < 0.5 for g in gaps), "5 scrapes a second, each once"
    cpu = [x for x in got.samples if x.metric == "process_cpu_seconds_total"]
    assert {(x.entity, x.kind) for x in cpu} == {("service//api", "counter")}
    assert all(b.value >= a.value for a, b in itertools.pairwise(cpu))
    s.close()
