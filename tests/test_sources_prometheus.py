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

from aiops.clock import ManualClock, WallClock
from aiops.sources.access import Access, SourceError
from aiops.sources.prometheus.pace import FIRST_PIECE_S
from aiops.sources.prometheus.source import PARTIAL_TRIES, PrometheusSource

NOW = 1_795_000_000.0
NODE = {"__name__": "node_load1", "instance": "a:9100", "job": "node"}


class FakePrometheus:
    """Range selectors over series that are given as labels and samples; `broken` answers 503, `warnings` are sent along,
    and answers of more than `limit` samples are refused with `refuse`."""

    def __init__(self, server: HTTPServer) -> None:
        self.series: list[tuple[dict[str, str], dict[float, float]]] = []
        self.kinds: dict[str, str] = {}
        self.asked: list[Request] = []
        self.broken = False
        self.broken_after: int | None = None
        self.warnings: list[str] = []
        self.limit: int | None = None
        self.refuse: tuple[int, dict[str, str]] = (422, {
            "status": "error", "errorType": "execution", "error": "query processing would load too many samples into memory"})
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
        if self.limit is not None and sum(len(r["values"]) for r in rows) > self.limit:  # type: ignore[arg-type,misc]
            return Response(json.dumps(self.refuse[1]), self.refuse[0])
        return self._ok({"resultType": "matrix", "result": [r for r in rows if r["values"]]})

    def _ok(self, data: object) -> Response:
        body = {"status": "success", "data": data} | ({"warnings": self.warnings} if self.warnings else {})
        return Response(json.dumps(body, separators=(",", ":")), content_type="application/json")


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
    assert "2 h 17 min without contact; only the last 1 h was read" in s.notes["gap"]


def windows(fake: FakePrometheus) -> list[tuple[float, float]]:
    """Begin and end of every query that was answered, to the millisecond that range selectors take in at their begin."""
    out = []
    for request in fake.asked:
        end = float(request.values["time"])
        out.append((end - (int(request.values["query"].split("[")[1].rstrip("ms]")) - 1) / 1000, end))
    return out


def test_history_comes_oldest_first_and_in_pieces(fake: FakePrometheus) -> None:
    """One query at a time; each piece begins where the one before ended, and grows while the server is quick."""
    fake.scrape(NODE, *(NOW - 60 * i for i in range(180)))
    s, got, ends = source(fake, backfill_s=3 * 3600.0), Collected(), []
    for end in s.history(NOW, got):
        assert all(t <= end for t in times(got))
        ends.append(end)
    assert ends == sorted(set(ends)) and ends[0] == NOW - 3 * 3600 + FIRST_PIECE_S
    assert NOW <= ends[-1] < NOW + 30 and len(ends) < 10
    asked = sorted(set(windows(fake)))
    assert all(b[0] == pytest.approx(a[1], abs=0.002) for a, b in itertools.pairwise(asked))
    assert times(got) == sorted(times(got))
    assert len(got.samples) == 180
    assert poll(s, NOW + 5).samples == [], "the live poll goes on where history ended"
    assert "history" not in s.notes


def test_history_that_failed_is_read_on_and_nothing_is_asked_for_twice(fake: FakePrometheus) -> None:
    """It fails in the middle of a piece; the next call begins with the very query that failed."""
    fake.scrape(NODE, *(NOW - 60 * i for i in range(180)))
    s, got = source(fake, backfill_s=3 * 3600.0, match=['{__name__=~"node_.*"}']), Collected()
    next(s.history(NOW, got))
    assert re.match("history: read up to 2026-11-.* UTC, 3%", s.notes["history"])
    fake.broken_after = len(fake.asked) + 2
    with pytest.raises(SourceError, match="503"):
        s.backfill(NOW, got)
    fake.broken_after = None
    failed = fake.asked.pop()
    s.backfill(NOW, got)
    asked = [(r.values["query"], r.values["time"]) for r in fake.asked]
    assert len(asked) == len(set(asked)), "no question twice"
    assert (failed.values["query"], failed.values["time"]) in asked
    assert sorted(times(got)) == sorted(NOW - 60 * i for i in range(180))


@pytest.mark.slow
@pytest.mark.parametrize("refuse", [
    (422, {"status": "error", "errorType": "execution", "error": "query processing would load too many samples into memory"}),
    (400, {"status": "error", "errorType": "bad_data", "error": "exceeded maximum resolution of 11,000 points per timeseries"}),
    (413, {"error": "too large"}),
    (422, {"status": "error", "errorType": "execution", "error": "the query hit the max number of series limit"}),
])
def test_what_is_too_much_is_asked_for_in_halves(fake: FakePrometheus, refuse: tuple[int, dict[str, str]]) -> None:
    """In time, else in series; the next pieces are smaller from the start. Nothing is lost, nothing comes twice."""
    for name in ("node_load1", "node_memory_MemAvailable_bytes", "node_memory_MemTotal_bytes"):
        fake.scrape({**NODE, "__name__": name}, *(NOW - 15 * i for i in range(720)))
    fake.limit, fake.refuse = 40, refuse
    s, got = source(fake, backfill_s=3 * 3600.0), Collected()
    s.backfill(NOW, got)
    assert sorted({(x.metric, x.time) for x in got.samples}) == sorted((x.metric, x.time) for x in got.samples)
    assert len(got.samples) == 3 * 720


def test_a_late_answer_makes_for_a_smaller_question_later(fake: FakePrometheus) -> None:
    """A query that runs into its time-out says little about its size: it is halved, and the supervisor waits before it."""
    fake.scrape(NODE, *(NOW - 15 * i for i in range(720)))
    fake.limit, fake.refuse = 15, (503, {"status": "error", "errorType": "timeout", "error": "query timed out"})
    s, got, failures = source(fake, backfill_s=3 * 3600.0), Collected(), 0
    for _ in range(100):
        try:
            s.backfill(NOW, got)
            break
        except SourceError as e:
            assert e.late
            failures += 1
    assert 0 < failures < 20 and len(got.samples) == 720


def test_what_is_too_much_even_for_the_smallest_question_is_an_error(fake: FakePrometheus) -> None:
    """With the server's own words; not an endless loop."""
    fake.scrape(NODE, *(NOW - i for i in range(720)))
    fake.limit = 0
    with pytest.raises(SourceError, match="too many samples into memory"):
        source(fake, backfill_s=600.0).backfill(NOW, Collected())
    assert len(fake.asked) < 20


def test_a_partial_piece_of_history_is_asked_for_again_then_left_empty(fake: FakePrometheus) -> None:
    """A part of the series would teach sums that are too small. The server comes back: the rest is read as usual."""
    fake.scrape(NODE, *(NOW - 60 * i for i in range(180)))
    s, got = source(fake, backfill_s=3 * 3600.0), Collected()
    next(s.history(NOW, got))
    before, fake.warnings = len(got.samples), ["store 10.0.0.1 is down"]
    for _ in range(PARTIAL_TRIES - 1):
        with pytest.raises(SourceError, match=r"partial results: store 10\.0\.0\.1 is down\. The history is asked for again"):
            s.backfill(NOW, got)
    next(s.history(NOW, got))
    fake.warnings = []
    s.backfill(NOW, got)
    gap = 180 - len(got.samples)
    assert before < len(got.samples) and gap >= 5
    assert re.match("no history from 2026-11-.* to 2026-11-.*store 10.0.0.1 is down", s.notes["partial history"])


def test_remarks_on_a_query_are_no_partial_results(fake: FakePrometheus) -> None:
    """Prometheus 3 sends annotations of PromQL in the same place."""
    fake.warnings = ["PromQL info: metric might not be a counter"]
    fake.scrape(NODE, NOW - 5)
    s = source(fake)
    assert len(poll(s, NOW).samples) == 1
    assert "PromQL info" in s.notes["infos"] and "warnings" not in s.notes


def test_partial_polls_wait_for_the_whole_but_not_for_ever(fake: FakePrometheus) -> None:
    """Back within a minute: nothing is lost. A store that stays away does not blind us to the others."""
    s = source(fake)
    poll(s, NOW)
    fake.scrape(NODE, NOW + 10)
    fake.warnings = ["store down"]
    assert poll(s, NOW + 15).samples == []
    fake.warnings = []
    assert times(poll(s, NOW + 30)) == [NOW + 10]
    fake.warnings = ["store down"]
    fake.scrape(NODE, NOW + 40)
    came = [times(poll(s, NOW + 45 + 15 * k)) for k in range(PARTIAL_TRIES)]
    assert came == [[]] * (PARTIAL_TRIES - 1) + [[NOW + 40]]


def test_history_grows_while_it_is_read(fake: FakePrometheus) -> None:
    """Reading takes two hours on a slow server: the two hours are part of it, and no gap is left to the first poll."""
    clock = ManualClock(NOW)
    fake.scrape(NODE, *(NOW + 60 * i for i in range(-180, 240)))
    s, got = source(fake, backfill_s=3 * 3600.0, clock=clock), Collected()
    end = NOW
    for end in s.history(NOW, got):  # noqa: B007
        clock.sleep_until(clock.now() + 300.0)
    assert clock.now() - end < 600
    assert len(got.samples) == sum(t <= end for t in fake.series[0][1]) - 1
    assert "gap" not in s.notes


def test_samples_that_find_no_room_are_read_again(fake: FakePrometheus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too much waits for the next step already: an error, and at the next poll they come."""
    fake.scrape(NODE, NOW - 5)
    s, got = source(fake), Collected()
    monkeypatch.setattr(got, "block", lambda *_: False)
    with pytest.raises(SourceError, match="more samples wait for the next step than there is room for"):
        s.poll(NOW, got)
    monkeypatch.undo()
    s.poll(NOW + 15, got)
    assert times(got) == [NOW - 5]


def test_odd_series_and_samples_are_counted_and_carried_past(fake: FakePrometheus) -> None:
    """NaN, no name, labels twice, labels called value and timestamp, a flood of labels: the good ones come through."""
    odd = {**NODE, "value": "v", "timestamp": "t", "ünïcode": "\u0000\"\\"}
    fake.scrape(odd, NOW - 5, value=float("inf"))
    fake.scrape({**NODE, "instance": "nan"}, NOW - 5, value=float("nan"))
    twice = {**NODE, "instance": "twice"}
    fake.series += [(twice, {NOW - 5: 1.0}), (twice, {NOW - 5: 2.0, NOW - 4: 3.0})]
    fake.scrape({**NODE, **{f"l{i}": "x" for i in range(300)}}, NOW - 5)
    fake.series.append(({"__name__": ""}, {NOW - 5: 1.0}))
    s = source(fake, match=['{__name__=~".*"}'])
    got = poll(s, NOW)
    assert [(x.labels, x.value) for x in got.samples if "value" in x.labels] == [
        ({"value": "v", "timestamp": "t", "ünïcode": "\u0000\"\\"}, float("inf"))]
    assert sorted(x.value for x in got.samples if x.entity == "node//twice:9100" or "twice" in x.entity) == [1.0, 3.0]
    assert s.dropped == {"nan": 1, "duplicate": 1, "bad_labels": 1, "no_name": 1, "histogram": 0}
    assert s.notes["dropped"] == "left out: 1 bad_labels, 1 duplicate, 1 nan, 1 no_name"
    poll(s, NOW + 15)
    assert s.dropped["bad_labels"] == 1, "counted once a series"


def test_labels_in_another_order_are_the_same_series(fake: FakePrometheus) -> None:
    """Not every server sorts them."""
    s = source(fake)
    fake.scrape(dict(sorted(NODE.items())), NOW - 5)
    assert len(poll(s, NOW).samples) == 1
    fake.series = [(dict(sorted(NODE.items(), reverse=True)), {NOW - 5: 1.0, NOW + 5: 1.0})]
    assert times(poll(s, NOW + 15)) == [NOW + 5]


def test_the_times_of_a_server_whose_clock_is_off_count(fake: FakePrometheus) -> None:
    """Its clock is two minutes behind ours: its newest samples are old by ours, and are read all the same."""
    clock = ManualClock(WallClock().now() + 120.0)
    now = clock.now()
    s = source(fake, clock=clock)
    poll(s, now)
    fake.scrape(NODE, now - 121.0)
    assert times(poll(s, now)) == [now - 121.0]
    assert "the server's clock is 120 s behind the clock here" in s.notes["clock"] or "119 s behind" in s.notes["clock"]
    assert "NTP" in s.notes["clock"]


def test_who_is_slow_is_asked_for_less_time_at_once(fake: FakePrometheus) -> None:
    """Half an hour to catch up with, and the server times out: the next poll asks for half as much, and so on."""
    s = source(fake)
    poll(s, NOW)
    fake.scrape(NODE, *(NOW + 15 * i for i in range(1, 121)))
    fake.limit, fake.refuse = 30, (503, {"status": "error", "errorType": "timeout", "error": "query timed out"})
    got, failures = Collected(), 0
    for k in range(60):
        try:
            s.poll(NOW + 1800 + k, got)
        except SourceError:
            failures += 1
    assert 2 < failures < 30
    assert len(got.samples) == 120, "in the end everything is there, once"


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
