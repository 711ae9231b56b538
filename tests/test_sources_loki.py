"""Log lines of a Loki: every line once, over pages, late arrivals, restarts and interruptions of the tail."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.collected import Collected
from fakes.loki import Loki, running
from helpers import pipeline
from hypothesis import given, settings
from hypothesis import strategies as st

from aiops.clock import ManualClock
from aiops.feeds import Source
from aiops.intake import Intake
from aiops.live import Live
from aiops.loop import NoActuator
from aiops.meaning import shipped
from aiops.sources.access import SourceError
from aiops.sources.loki import source as module
from aiops.sources.loki.api import Entry, LokiApi
from aiops.sources.loki.source import NS, LokiSource, whose

NOW = 1_700_000_000.0
NOW_NS = 1_700_000_000 * NS


@pytest.fixture
def loki() -> Iterator[Loki]:
    with running() as fake:
        yield fake


def made(loki: Loki, **more: Any) -> LokiSource:
    api = {k: more.pop(k) for k in ("tenant", "token_file", "ca_file", "timeout_s") if k in more}
    return LokiSource("loki", LokiApi(loki.url, **api), '{app="api"}', shipped(), **more)


def polled(source: LokiSource, now: float = NOW, room: float = math.inf) -> list[str]:
    got = Collected(room=room)
    source.poll(now, got)
    return got.texts()


# --------------------------------------------------------------------------------------------------------------- polls
def test_lines_come_with_their_time_and_their_entity(loki: Loki) -> None:
    """Out of JSON too; and only what is new from poll to poll."""
    loki.put(NOW_NS - NS, '{"level":"error","msg":"boom"}', namespace="shop", pod="api-1", job="shop/api")
    loki.put(NOW_NS - 2 * NS, "first", host="n1")
    source = made(loki)
    got = Collected()
    source.poll(NOW, got)
    assert [(line.time, line.entity, line.text) for line in got.lines] == [
        (NOW - 2, "node//n1", "first"), (NOW - 1, "pod/shop/api-1", "ERROR boom")]
    assert polled(source, NOW + 1) == []
    loki.put(NOW_NS + NS, "second", host="n1")
    assert polled(source, NOW + 2) == ["second"]


def test_the_first_poll_goes_back_as_far_as_was_asked_for(loki: Loki) -> None:
    """And no further."""
    loki.put(NOW_NS - 61 * NS, "too old")
    loki.put(NOW_NS - 59 * NS, "new enough")
    assert polled(made(loki)) == ["new enough"]
    assert polled(made(loki, backfill_s=0.0)) == []


def test_lines_that_are_not_taken_come_again(loki: Loki, tmp_path: Path) -> None:
    """With the next poll and after a restart, late ones too; it is told while it lasts."""
    place = tmp_path / "place"
    source = made(loki, place=place)
    for i in range(4):
        loki.put(NOW_NS - 4 * NS + i, f"{i}")
    assert polled(source, room=1) == ["0"]
    assert "later" in source.notes["full"]
    assert polled(source, NOW + 1, room=2) == ["1", "2"]
    assert polled(source, NOW + 2) == ["3"]
    assert source.notes == {}
    loki.put(NOW_NS - 3 * NS, "late")
    assert polled(source, NOW + 3, room=0) == []
    source.close()
    assert "late" in polled(made(loki, place=place), NOW + 4)


def test_a_line_that_arrives_late_comes_once(loki: Loki) -> None:
    """Polls overlap by 10 seconds."""
    source = made(loki)
    polled(source)
    loki.put(NOW_NS - 3 * NS, "late")
    assert polled(source, NOW + 5) == ["late"]
    assert polled(source, NOW + 6) == []


def test_many_lines_come_page_by_page(loki: Loki, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, each once, also where several share a nanosecond at the border; the rest comes with the next poll."""
    monkeypatch.setattr(module, "MAX_PAGES", 3)
    for i in range(1000):
        loki.put(NOW_NS - 20 * NS + i // 3, f"{i}", app="a" if i % 2 else "b")
    source = made(loki, limit=100)
    found: list[str] = []
    for k in range(12):
        got = polled(source, NOW + k)
        assert len(got) <= 300
        found += got
        if k == 0:
            assert "rest comes later" in source.notes["behind"]
    assert sorted(map(int, found)) == list(range(1000))
    assert source.notes == {}
    assert source.rejected == {}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 12), max_size=40), st.integers(3, 9), st.data())
def test_whatever_the_times_the_pages_and_the_room_every_line_comes_once(offsets: list[int], limit: int, data: Any) -> None:
    """At most two lines a nanosecond, less than a page has; arriving before or after the first polls, which take some."""
    offsets = [o for i, o in enumerate(offsets) if offsets[:i].count(o) < 2]
    early = data.draw(st.lists(st.booleans(), min_size=len(offsets), max_size=len(offsets)))

    class Api(LokiApi):
        there: list[Entry] = []

        def page(self, query: str, start: int, end: int, limit: int) -> list[Entry]:
            return sorted((e for e in self.there if start <= e.ns < end), key=lambda e: e.ns)[:limit]
    api = Api("http://127.0.0.1:1")
    all_ = [Entry(NOW_NS - 5 * NS + o, {"app": "a"}, f"{i}") for i, o in enumerate(offsets)]
    source = LokiSource("loki", api, "{}", shipped(), limit=limit)
    found: list[str] = []
    api.there = [e for e, first in zip(all_, early, strict=True) if first]
    for room in data.draw(st.lists(st.integers(0, 9), max_size=3)):
        found += polled(source, room=room)
    found += polled(source)
    api.there = all_
    found += polled(source, NOW + 1, room=data.draw(st.integers(0, 9)))
    found += [*polled(source, NOW + 2), *polled(source, NOW + 3)]
    assert sorted(found) == sorted(e.text for e in all_)
    assert source.rejected == {}


def test_more_lines_in_a_nanosecond_than_a_page_has_are_told(loki: Loki) -> None:
    """There is no way to ask for the others: it goes on behind them."""
    for i in range(10):
        loki.put(NOW_NS - NS, f"{i}")
    loki.put(NOW_NS - 1, "after")
    source = made(loki, limit=4)
    assert polled(source)[-1] == "after"
    assert source.rejected == {"same_time": 1}


def test_after_a_long_outage_an_hour_is_read_and_the_gap_is_told(loki: Loki) -> None:
    """Nobody waits for a day of lines."""
    source = made(loki)
    polled(source)
    loki.put(NOW_NS + 60 * NS, "lost")
    loki.put(NOW_NS + 7000 * NS, "read")
    assert polled(source, NOW + 7200) == ["read"]
    assert "only the last 3600 s" in source.notes["gap"]
    assert source.rejected == {"gap": 1}


@pytest.mark.parametrize(("labels", "entity"), [
    ({"namespace": "shop", "pod": "a-1", "app": "a", "host": "n"}, "pod/shop/a-1"),
    ({"namespace": "shop", "service_name": "a", "host": "n"}, "service/shop/a"), ({"app": "a"}, "service//a"),
    ({"service_name": "unknown_service", "hostname": "n1"}, "node//n1"),
    ({"job": "systemd-journal", "node_name": "n"}, "node//n"),
    ({"instance": "h:9100", "job": "x"}, "instance//h:9100"), ({"job": "x"}, "job//x"), ({"filename": "/x"}, "unknown//loki"),
    ({}, "unknown//loki"),
])
def test_a_stream_belongs_to_what_its_labels_name(labels: dict[str, str], entity: str) -> None:
    """Pod, service, host, and then as for metrics."""
    assert whose(shipped(), labels) == entity


def test_a_long_line_is_cut_and_counted(loki: Loki) -> None:
    """At 16 KiB."""
    loki.put(NOW_NS - 1, "x" * 100_000)
    source = made(loki)
    assert len(polled(source)[0]) == 16 * 1024
    assert source.rejected == {"too_long": 1}


# ------------------------------------------------------------------------------------------------------------ restarts
def test_a_restart_goes_on_where_it_stopped(loki: Loki, tmp_path: Path) -> None:
    """An ordered one repeats nothing; a kill repeats the lines of the last poll; none is lost, even if it came late."""
    place = tmp_path / "offsets.json"
    source = made(loki, place=place)
    for k in range(3):
        loki.put(NOW_NS + k * NS - 1, f"{k}")
        assert polled(source, NOW + k) == [f"{k}"]
    assert polled(made(loki, place=place), NOW + 3) == ["2"], "killed"
    source.close()
    loki.put(NOW_NS + 2 * NS + 1, "while down")
    assert polled(made(loki, place=place), NOW + 60) == ["while down"]


def test_another_query_begins_anew(loki: Loki, tmp_path: Path) -> None:
    """How far another one came says nothing about it; nonsense in the file neither."""
    place = tmp_path / "offsets.json"
    loki.put(NOW_NS - 1, "x")
    for saved in ({"query": "other", "done_ns": NOW_NS}, {"query": '{app="api"}', "done_ns": "x"}, [1], 3):
        place.write_text(json.dumps(saved))
        assert polled(made(loki, place=place)) == ["x"]


# -------------------------------------------------------------------------------------------------------------- errors
@pytest.mark.parametrize(("failure", "said"), [
    ((400, 'parse error at line 1, col 5: syntax error: unexpected IDENTIFIER\n'), "answered 400: parse error at line 1, col 5: "
     "syntax error: unexpected IDENTIFIER. Check query and limit of the loki source."),
    ((401, "no org id"), "answered 401: no org id. Check tenant and tokenFile"),
    ((429, "too many outstanding requests"), "answered 429: too many outstanding requests. Loki limits queries"),
    ((500, "x" * 5000), "answered 500: " + "x" * 300 + "."), ((503, ""), "answered 503: Service Unavailable."),
])
def test_what_loki_says_is_told(loki: Loki, failure: tuple[int, str], said: str) -> None:
    """In its own words, in one line, with the remedy; and then it goes on where it was."""
    loki.failure = failure
    source = made(loki)
    with pytest.raises(SourceError) as e:
        polled(source)
    assert str(e.value).startswith(f"{loki.url}: {said}")
    assert "\n" not in str(e.value)
    loki.failure = None
    loki.put(NOW_NS - 1, "x")
    assert polled(source) == ["x"]


def test_a_limit_that_loki_refuses_is_told_in_its_words(loki: Loki) -> None:
    """The remedy is the setting."""
    with pytest.raises(SourceError, match=r"max_entries_limit_per_query \(9000 > 5000\)\. Check query and limit"):
        polled(made(loki, limit=9000))


@pytest.mark.parametrize(("answer", "said"), [
    ("", "no answer of Loki"), ("{", "no answer of Loki"), ("<html>", "no answer of Loki"), ('{"data": 3}', "no answer of Loki"),
    ("[" * 100_000, "no answer of Loki"),
    ('{"data": {"resultType": "matrix", "result": []}}', r"gives figures \(matrix\), not lines\. Write a query for lines"),
    ('{"data": {"resultType": "streams", "result": [{"stream": {}, "values": [["x", "y"]]}]}}', "no answer of Loki"),
    ('{"data": {"resultType": "streams", "result": [{"stream": {}, "values": [[1, 2]]}]}}', "is no line with its time"),
    ('{"data": {"resultType": "streams", "result": [{"stream": {"a": 1}, "values": []}]}}', "no answer of Loki"),
])
def test_an_answer_that_is_none_is_told(loki: Loki, answer: str, said: str) -> None:
    """A proxy's page, half a JSON, a query for figures."""
    loki.answer = answer
    with pytest.raises(SourceError, match=said):
        polled(made(loki))


def test_structured_metadata_beside_a_line_is_no_trouble(loki: Loki) -> None:
    """Loki 3 sends a third element."""
    loki.answer = json.dumps({"status": "success", "data": {"resultType": "streams", "result": [
        {"stream": {"app": "a"}, "values": [[str(NOW_NS - 1), "x", {"structuredMetadata": {"k": "v"}}]]}]}})
    assert polled(made(loki)) == ["x"]


def test_who_asks_is_told_and_a_rotated_token_is_read_again(tmp_path: Path) -> None:
    """X-Scope-OrgID and the bearer token."""
    with running(tenant="team", token="one") as loki:
        token = tmp_path / "token"
        token.write_text("one\n")
        source = made(loki, tenant="team", token_file=token)
        loki.put(NOW_NS - 1, "x")
        assert polled(source) == ["x"]
        loki.token = "two"
        with pytest.raises(SourceError, match="401: unauthorized"):
            polled(source)
        token.write_text("two\n")
        assert polled(source) == []
        token.unlink()
        with pytest.raises(SourceError, match=r"the token cannot be read: no such file or directory\. Check tokenFile"):
            polled(source)


def test_nobody_there_is_told_in_one_sentence(tmp_path: Path) -> None:
    """And so is a file of certificates that is not there."""
    with pytest.raises(SourceError, match=r"http://127.0.0.1:9: cannot be reached: Connection refused\. Check url") as e:
        polled(LokiSource("loki", LokiApi("http://127.0.0.1:9"), "{}", shipped()))
    assert len(str(e.value)) < 200
    with pytest.raises(SourceError, match=r"cannot be reached: .*CA certificate"):
        polled(LokiSource("loki", LokiApi("https://127.0.0.1:9", ca_file=tmp_path / "ca.pem"), "{}", shipped()))


# ---------------------------------------------------------------------------------------------------------------- tail
def line(ns: int, text: str) -> Any:
    return ns, (("app", "a"),), text


def until(done: Callable[[], bool]) -> None:
    """Something in another thread; the clock of these tests is not used for it."""
    pause = threading.Event()
    for _ in range(1000):
        if done():
            return
        pause.wait(0.01)
    pytest.fail("nothing happened for ten seconds")


@pytest.fixture
def tailing(loki: Loki) -> Iterator[LokiSource]:
    source = made(loki, tail=True)
    assert polled(source) == []
    assert loki.opened.acquire(timeout=10)
    yield source
    source.close()
    assert not source._tail.running  # type: ignore[union-attr]


def test_lines_come_by_the_websocket_without_being_asked_for(loki: Loki, tailing: LokiSource) -> None:
    """While it is open there are no queries."""
    before = len(loki.queries)
    loki.push(line(NOW_NS + 1, "one"), line(NOW_NS + 2, "two"))
    loki.push(line(NOW_NS + 2, "two"))
    until(lambda: len(tailing._tail._waiting) == 3)  # type: ignore[union-attr]
    assert polled(tailing, NOW + 1) == ["one", "two"]
    assert len(loki.queries) == before


def test_what_a_broken_tail_missed_is_asked_for_and_it_is_opened_again(loki: Loki, tailing: LokiSource) -> None:
    """Every line once: those from before, from the time in between, and after."""
    loki.put(NOW_NS + NS, "before")
    loki.push(line(NOW_NS + NS, "before"))
    loki.lines[-1] = line(NOW_NS + NS, "before")
    until(lambda: bool(tailing._tail._waiting))  # type: ignore[union-attr]
    loki.hang_up()
    loki.put(NOW_NS + 2 * NS, "between", app="a")
    until(lambda: not tailing._tail.running)  # type: ignore[union-attr]
    assert polled(tailing, NOW + 3) == ["before", "between"]
    assert tailing.notes == {"tail": "the tail was interrupted, and goes on: Loki ended the tail"}
    assert loki.opened.acquire(timeout=10)
    loki.push(line(NOW_NS + 4 * NS, "after"))
    until(lambda: any(e.text == "after" for e in tailing._tail._waiting))  # type: ignore[union-attr]
    assert polled(tailing, NOW + 5) == ["after"]
    assert tailing.notes == {}


@pytest.mark.parametrize("wrong", ["dropped", "nonsense"])
def test_what_the_tail_left_out_is_asked_for(loki: Loki, tailing: LokiSource, wrong: str) -> None:
    """Loki drops lines for a reader that is slow, and says so; a message that is none ends the tail."""
    loki.put(NOW_NS + NS, "left out")
    if wrong == "dropped":
        loki.push(dropped=3)
    else:
        loki.push_text('{"streams": [{"stream": 3}]}')
    until(lambda: bool(tailing._tail._missed))  # type: ignore[union-attr]
    assert polled(tailing, NOW + 2) == ["left out"]
    assert "interrupted" in tailing.notes["tail"]


def test_more_lines_than_are_kept_are_asked_for(loki: Loki, tailing: LokiSource, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory between two polls is bounded; nothing is lost by it."""
    monkeypatch.setattr("aiops.sources.loki.tail.MAX_WAITING", 3)
    many = [line(NOW_NS + i, f"{i}") for i in range(8)]
    loki.lines += many
    loki.push(*many)
    until(lambda: bool(tailing._tail._missed))  # type: ignore[union-attr]
    assert sorted(polled(tailing, NOW + 2)) == [f"{i}" for i in range(8)]


def test_where_the_websocket_is_refused_lines_are_polled(loki: Loki, tailing: LokiSource) -> None:
    """A proxy that knows no websockets: told, tried again with each poll, and no line is missing."""
    loki.no_tail = True
    loki.hang_up()
    for k in range(1, 5):
        until(lambda: not tailing._tail.running)  # type: ignore[union-attr]
        loki.put(NOW_NS + k * NS, f"{k}")
        assert polled(tailing, NOW + k) == [f"{k}"]
    assert "404" in tailing.notes["tail"]


# --------------------------------------------------------------------------------------------------------- end to end
def test_errors_in_loki_open_an_incident(loki: Loki) -> None:
    """From Loki's answer through the intake and the pipeline; in the times of the lines."""
    clock = ManualClock(NOW)
    live = Live(pipeline(), [Source(made(loki), clock)], Intake(10.0), NoActuator(), [], clock, 10.0, lambda batch: None)
    for k in range(60):
        clock.sleep_until(NOW + 10.0 * k)
        at = int(clock.now()) * NS - 2 * NS
        loki.put(at, "INFO ok", app="db", namespace="shop")
        for i in range(40 if k > 45 else 0):
            loki.put(at + i, f"ERROR disk gone {i}", app="db", namespace="shop")
        live.sources[0].poll(live.intake)
        live.tick()
    assert [i.entities for i in live.pipeline.book.open()] == [("service/shop/db",)]
    assert live.last is not None
    assert live.last.counts.log_lines == 60 + 14 * 40
