"""`aiops record`: what is asked of Prometheus, what is written, and what a person reads when it cannot work."""

from __future__ import annotations

import gzip
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fakes.prometheus import running
from fastparquet import ParquetFile
from hypothesis import given
from hypothesis import strategies as st
from pytest_httpserver import HTTPServer
from ruamel.yaml import YAML
from werkzeug import Request, Response

from aiops import meaning
from aiops.clock import WallClock
from aiops.sources.access import Access, SourceError
from aiops.sources.prometheus.api import MAX_POINTS, PromApi
from aiops.sources.recording.record import NoSamplesError, record, rounded
from aiops.types import Edge, Event, Links, LogLine, Node

START, END = 1_795_000_000.0, 1_795_000_600.0


class FakePrometheus:
    """Answers as the HTTP API does, out of a list of series with a sample every `step` seconds."""

    def __init__(self, server: HTTPServer, step: float = 15.0) -> None:
        self.step, self.asked, self.series = step, [], {}  # type: ignore[var-annotated]
        self.metadata: dict[str, str] = {}
        self.warnings: list[str] = []
        self.url = server.url_for("").rstrip("/")
        server.expect_request("/api/v1/query").respond_with_handler(self._query)
        server.expect_request("/api/v1/query_range").respond_with_handler(self._range)
        server.expect_request("/api/v1/metadata").respond_with_handler(lambda _: self._ok(
            {name: [{"type": kind, "help": "", "unit": ""}] for name, kind in self.metadata.items()}))

    def add(self, values: float | list[float] = 1.0, **labels: str) -> None:
        self.series[json.dumps({k.replace("name__", "__name__"): v for k, v in labels.items()})] = values

    def _ok(self, data: object) -> Response:
        body = {"status": "success", "data": data} | ({"warnings": self.warnings} if self.warnings else {})
        return Response(json.dumps(body), content_type="application/json")

    def _query(self, request: Request) -> Response:
        """`NAME[Nms]` at a time: the samples of every series of that name, both ends included as in Prometheus 2."""
        self.asked.append(dict(request.values))
        selector, width = request.values["query"].rstrip("ms]").split("[")
        at = float(request.values["time"])
        return self._matrix(selector, at - int(width) / 1000, at, self.step)

    def _range(self, request: Request) -> Response:
        self.asked.append(dict(request.values))
        first, last, step = (float(request.values[k]) for k in ("start", "end", "step"))
        return self._matrix(request.values["query"], first, last, step)

    def _matrix(self, selector: str, first: float, last: float, step: float) -> Response:
        ticks = np.arange(np.ceil((first - START) / step - 1e-6), np.floor((last - START) / step + 1e-6) + 1)
        result = []
        for key, values in self.series.items():
            labels = json.loads(key)
            kept = [(START + t * step, values[int(t)] if isinstance(values, list) else values) for t in ticks
                    if START <= START + t * step <= END or step != self.step]
            if labels["__name__"] == selector and kept:
                result.append({"metric": labels, "values": [[t, str(v)] for t, v in kept]})
        return self._ok({"resultType": "matrix", "result": result})


@pytest.fixture
def fake(httpserver: HTTPServer) -> FakePrometheus:
    return FakePrometheus(httpserver)


@pytest.fixture
def meanings() -> meaning.Meanings:
    return meaning.shipped()


def table(folder: Path) -> list[tuple[float, str, str, str, float]]:
    frame = ParquetFile(str(folder / "metrics.parquet")).to_pandas()
    return list(frame[["time", "entity", "metric", "labels", "value"]].itertuples(index=False, name=None))


def test_a_range_query_never_asks_for_more_points_than_prometheus_gives(fake: FakePrometheus) -> None:
    """30,000 points are asked for in three pieces that join without a gap and without an overlap."""
    fake.add(2.5, name__="up")
    api = PromApi(fake.url)
    times = np.concatenate([t for _, t, _ in api.range("up", START, START + 29_999, 1.0)])
    api.close()
    assert np.array_equal(times, START + np.arange(30_000))
    sizes = [round((float(a["end"]) - float(a["start"])) / float(a["step"])) + 1 for a in fake.asked]
    assert max(sizes) <= MAX_POINTS
    assert len(sizes) == 3


def test_a_range_query_keeps_fractions_of_a_second(fake: FakePrometheus) -> None:
    """The client library rounds start and end to seconds; the grid that was asked for must come back."""
    fake.add(1.0, name__="up")
    [(_, times, _)] = PromApi(fake.url).range("up", START + 0.25, START + 1.25, 0.25)
    assert fake.asked[0]["start"] == f"{START + 0.25:.3f}"
    assert len(times) == 5


def test_raw_samples_at_the_seam_of_two_chunks_come_once(fake: FakePrometheus) -> None:
    """Both ends of a Prometheus 2 range selector are included: a sample on the seam is in two answers."""
    fake.add([float(i) for i in range(41)], name__="up")
    times = np.concatenate([t for _, t, _ in PromApi(fake.url).raw("up", START, END, chunk_s=150.0)])
    assert np.array_equal(times, START + 15.0 * np.arange(1, 41))
    assert len(fake.asked) == 4


def test_special_values_survive(fake: FakePrometheus) -> None:
    """Prometheus writes numbers as strings, NaN and infinities among them."""
    fake.add([1.0, float("nan"), float("inf"), float("-inf"), 1e-300] + [0.0] * 36, name__="x")
    [(_, _, values)] = PromApi(fake.url).raw("x", START - 1, START + 60)
    assert np.array_equal(values, [1.0, np.nan, np.inf, -np.inf, 1e-300], equal_nan=True)


def test_metadata_names_the_series_of_a_family(fake: FakePrometheus) -> None:
    """A histogram `x` exists as x_bucket, x_sum, x_count; a quantile of a summary is a gauge."""
    fake.metadata = {"x": "histogram", "s": "summary", "g": "gauge", "c_total": "counter", "i": "info"}
    told = PromApi(fake.url).metadata()
    assert (told["x_bucket"], told["x_sum"], told["s"], told["s_count"]) == ("counter", "counter", "gauge", "counter")
    assert (told["g"], told["c_total"]) == ("gauge", "counter")
    assert "x" not in told
    assert "i" not in told


def test_partial_results_are_told(fake: FakePrometheus) -> None:
    """Thanos and Mimir answer 200 with warnings when a store is missing; the client library drops them."""
    fake.add(1.0, name__="up")
    fake.warnings = ["store 10.0.0.7 unavailable"]
    api = PromApi(fake.url)
    list(api.raw("up", START, END, chunk_s=300.0))
    assert list(api.warnings) == ["store 10.0.0.7 unavailable"]


def test_token_and_tenant_are_sent(httpserver: HTTPServer) -> None:
    """Mimir tells tenants apart by a header, gateways check a bearer token."""
    httpserver.expect_request("/api/v1/metadata", headers={"Authorization": "Bearer t0k", "X-Scope-OrgID": "shop"}
                              ).respond_with_json({"status": "success", "data": {}})
    assert PromApi(httpserver.url_for(""), Access(token="t0k", tenant="shop")).metadata() == {}
    httpserver.check_assertions()


@pytest.mark.parametrize(("status", "body", "text"), [
    (400, {"status": "error", "error": "parse error: unclosed left brace"},
     "HTTP 400: parse error: unclosed left brace. Check the selector or query."),
    (401, None, "HTTP 401: UNAUTHORIZED. Give a valid bearer token (tokenFile), or username and passwordFile."),
    (404, None, "HTTP 404: NOT FOUND. Is the path prefix of the URL right?"),
    (503, None, "HTTP 503: SERVICE UNAVAILABLE. See the log of the Prometheus server."),
    (200, {"hello": "world"},
     "the answer is not of the Prometheus API: JSON, but no result with status and data. "
     "Is this the address of a Prometheus server?"),
])
def test_errors_name_place_value_and_remedy(httpserver: HTTPServer, status: int, body: object, text: str) -> None:
    """One line: the address, what came back, what to do."""
    answer = json.dumps(body) if body else ""
    httpserver.expect_request("/api/v1/query").respond_with_data(answer, status=status)
    url = httpserver.url_for("").rstrip("/")
    with pytest.raises(SourceError) as e:
        list(PromApi(url, retries=0).raw("up{", START, END))
    assert str(e.value) == f"{url}: {text}"
    assert e.value.status == (status if status != 200 else 0)


def test_nobody_there() -> None:
    """A refused connection is one line, not three of urllib3."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{s.getsockname()[1]}"
        with pytest.raises(SourceError) as e:
            PromApi(url, retries=0).metadata()
    assert str(e.value) == f"{url}: cannot be reached: Connection refused. Is Prometheus running there?"


def test_a_slow_server_is_given_up(httpserver: HTTPServer) -> None:
    """A read that takes longer than the timeout ends; the message says which timeout."""
    gone = threading.Event()
    httpserver.expect_request("/api/v1/metadata").respond_with_handler(lambda _: Response(str(gone.wait(5))))
    try:
        with pytest.raises(SourceError, match=r"no answer within 0\.2 s\."):
            PromApi(httpserver.url_for(""), timeout_s=0.2, retries=0).metadata()
    finally:
        gone.set()


def test_an_address_without_scheme_is_refused() -> None:
    """`prometheus:9090` is what people write first."""
    with pytest.raises(SourceError, match=r"prometheus:9090: not a URL .* Write it like http://prometheus:9090\."):
        PromApi("prometheus:9090")


def test_a_recording_holds_samples_logs_events_and_topology(
        fake: FakePrometheus, meanings: meaning.Meanings, tmp_path: Path) -> None:
    """Labels become entities, rows are in order of time, kinds are written only for metrics that no pack knows."""
    fake.add(0.25, name__="http_requests_total", job="gateway", code="200")
    fake.add(7.0, name__="shop_orders", pod="api-1", namespace="shop", job="api", instance="10.0.0.2:80")
    fake.metadata = {"shop_orders": "counter", "http_requests_total": "counter", "unused": "gauge"}
    line = LogLine(START + 5, "service//db", "ERROR disk")
    happened = Event(START + 6, "service//db", "change", "Deployed", "v2")
    links = Links((Node("service//db", 0.9),), (Edge("service//gateway", "service//db"),))
    done = record(fake.url, ["http_requests_total", "shop_orders"], START, END, 15.0, tmp_path / "r", meanings=meanings,
                  description="d", logs=[line], events=[happened], topology=links)

    rows = table(tmp_path / "r")
    assert (done.samples, done.series, done.metrics, done.lines, done.events) == (80, 2, 2, 1, 1)
    assert rows[0] == (START + 15, "service//gateway", "http_requests_total", 'code="200"', 0.25)
    assert rows[1] == (START + 15, "pod/shop/api-1", "shop_orders", "", 7.0)
    assert [r[0] for r in rows] == sorted(r[0] for r in rows)
    read = YAML(typ="safe")
    assert read.load(tmp_path / "r" / "fixture.yaml")["metrics"] == {"shop_orders": {"kind": "counter"}}
    assert read.load(tmp_path / "r" / "topology.yaml")["edges"] == [
        {"from": "service//gateway", "to": "service//db", "kind": "calls"}]
    [logged] = gzip.decompress((tmp_path / "r" / "logs.jsonl.gz").read_bytes()).splitlines()
    assert json.loads(logged) == {"time": START + 5, "entity": "service//db", "text": "ERROR disk"}


def test_a_server_without_metadata_is_recorded_all_the_same(
        httpserver: HTTPServer, meanings: meaning.Meanings, tmp_path: Path) -> None:
    """Not everything that speaks the API keeps metadata; that costs a guess, not the recording."""
    httpserver.expect_request("/api/v1/metadata").respond_with_data("", status=404)
    fake = FakePrometheus(httpserver)
    fake.add(1.0, name__="made_up", service="api")
    done = record(fake.url, ["made_up"], START, END, 15.0, tmp_path / "r", meanings=meanings)
    assert done.samples == 40
    assert done.notes[0].startswith("gauge or counter is guessed from the names of 1 metrics: http://localhost:")


def test_gaps_stay_gaps(fake: FakePrometheus, meanings: meaning.Meanings, tmp_path: Path) -> None:
    """What a range query would paper over for five minutes is left out."""
    fake.add(1.0, name__="up", job="db")
    record(fake.url, ["up"], START - 3600, END + 3600, 15.0, tmp_path / "r", meanings=meanings)
    times = [r[0] for r in table(tmp_path / "r")]
    assert (times[0], times[-1], len(times)) == (START, END, 41)


def test_two_replicas_that_map_to_one_entity_keep_the_label_that_tells_them_apart(
        fake: FakePrometheus, tmp_path: Path) -> None:
    """Merged by a pack that drops `instance`, their counters would look like one that resets at every scrape."""
    rule = meaning.EntityRule(kind="service", name=["job"], drop=["instance"])
    pack = meaning.Pack(pack="t", entity=[rule], metrics={"m_total": meaning.MetricRule(kind="counter")})
    for i in (1, 2):
        fake.add(float(i), name__="m_total", job="api", instance=f"10.0.0.{i}:80")
    record(fake.url, ["m_total"], START, END, 15.0, tmp_path / "r", meanings=meaning.Meanings((pack,)))
    rows = table(tmp_path / "r")
    assert {r[1] for r in rows} == {"service//api"}
    assert {(r[3], r[4]) for r in rows} == {(f'instance="10.0.0.{i}:80",job="api"', float(i)) for i in (1, 2)}


def test_a_series_that_two_selectors_match_is_written_once(
        fake: FakePrometheus, meanings: meaning.Meanings, tmp_path: Path) -> None:
    """`--match up --match up` must not double the samples, and a selector without data is told."""
    fake.add(1.0, name__="up", job="db")
    done = record(fake.url, ["up", "up", "absent"], START, END, 15.0, tmp_path / "r", meanings=meanings)
    assert done.samples == 40
    assert done.notes == ("no samples for absent",)


def test_an_empty_selection_is_an_error_and_writes_nothing(
        fake: FakePrometheus, meanings: meaning.Meanings, tmp_path: Path) -> None:
    """The message names the selector and the times, and says what to check."""
    with pytest.raises(NoSamplesError, match=r"no samples for up between 1795000000 and 1795000600\. Check the selector"):
        record(fake.url, ["up"], START, END, 15.0, tmp_path / "r", meanings=meanings)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_recording_is_only_replaced_when_asked(
        fake: FakePrometheus, meanings: meaning.Meanings, tmp_path: Path) -> None:
    """Without force nothing changes; with force the old logs go and the ground truth that a person wrote stays."""
    fake.add(1.0, name__="up", job="db")
    out = tmp_path / "r"
    record(fake.url, ["up"], START, END, 15.0, out, meanings=meanings, logs=[LogLine(START, "service//db", "x")])
    (out / "expect.yaml").write_text("faults: []\n")
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    with pytest.raises(FileExistsError, match="already holds a recording"):
        record(fake.url, ["up"], START, END - 60, 15.0, out, meanings=meanings)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    assert record(fake.url, ["up"], START, END - 60, 15.0, out, meanings=meanings, force=True).samples == 36
    assert sorted(p.name for p in out.iterdir()) == ["expect.yaml", "fixture.yaml", "metrics.parquet"]


@pytest.mark.parametrize(("start", "end", "step", "text"), [
    (END, START, 15.0, "start 1795000600 is not before end 1795000000"),
    (START, float("nan"), 15.0, "is not before end nan"),
    (START, END, 0.0, "step 0 is not a length of time"),
])
def test_impossible_times_are_refused(meanings: meaning.Meanings, tmp_path: Path, start: float, end: float, step: float,
                                      text: str) -> None:
    """Before anything is asked of anybody."""
    with pytest.raises(ValueError, match=text):
        record("http://127.0.0.1:9", ["up"], start, end, step, tmp_path / "r", meanings=meanings)


@given(st.lists(st.floats(allow_subnormal=False), max_size=30))
def test_rounding_keeps_nine_digits(values: list[float]) -> None:
    """The error is below half a unit of the ninth digit; zeros, NaN and infinities stay; twice is once."""
    given_, got = np.array(values), rounded(np.array(values))
    odd = ~np.isfinite(given_) | (given_ == 0)
    assert np.array_equal(got[odd], given_[odd], equal_nan=True)
    with np.errstate(over="ignore"):
        assert np.all(np.abs(got[~odd] - given_[~odd]) <= np.abs(given_[~odd]) * 5.0001e-9)
    assert np.allclose(rounded(got), got, rtol=1e-14, equal_nan=True)


@pytest.fixture
def real_prometheus(tmp_path: Path) -> Iterator[str]:
    with running(tmp_path, "prometheus") as url:
        yield url


def scrapes(url: str, wanted: int) -> list[float]:
    """The times of all scrapes so far; waits until there are `wanted`, half a minute at most."""
    pause, api, clock = threading.Event(), PromApi(url, retries=0), WallClock()
    for _ in range(150):
        pause.wait(0.2)
        try:
            times = [t for _, ts, _ in api.raw("up", clock.now() - 60, clock.now()) for t in ts]
        except SourceError:
            continue  # still starting
        if len(times) >= wanted:
            return times
    raise AssertionError("Prometheus did not scrape itself within half a minute")


@pytest.mark.real
def test_a_real_prometheus_is_recorded(real_prometheus: str, meanings: meaning.Meanings, tmp_path: Path) -> None:
    """The rows have the times of the scrapes, not of a grid; kinds come from the metadata that Prometheus keeps."""
    times = scrapes(real_prometheus, 10)
    done = record(real_prometheus, ["up", '{__name__=~"prometheus_tsdb_head_(samples_appended_total|series)"}'],
                  times[0], times[-1], 0.2, tmp_path / "r", meanings=meanings)
    rows = table(tmp_path / "r")
    assert [r[0] for r in rows if r[2] == "up"] == times[1:]
    assert {r[1] for r in rows if r[2] == "up"} == {"service//prometheus"}
    assert done.metrics == 3
    assert YAML(typ="safe").load(tmp_path / "r" / "fixture.yaml")["metrics"] == {
        "prometheus_tsdb_head_samples_appended_total": {"kind": "counter"}, "prometheus_tsdb_head_series": {"kind": "gauge"}}


@pytest.mark.real
def test_a_real_prometheus_explains_a_bad_selector(real_prometheus: str, meanings: meaning.Meanings, tmp_path: Path) -> None:
    """Its own message reaches the person who typed the selector."""
    scrapes(real_prometheus, 1)
    with pytest.raises(SourceError, match=r"HTTP 400: .*parse error.* Check the selector or query\."):
        record(real_prometheus, ["up{job="], START, END, 15.0, tmp_path / "r", meanings=meanings)
