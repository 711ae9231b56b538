"""Which series are watched: numbers are given, kept, given up and given again; explosions are stopped and told."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import STEP_S, T0, pipeline
from structlog.testing import capture_logs

from aiops.catalogue import (
    ENDED_S,
    EPHEMERAL_SILENT_S,
    LAST_TENTH,
    MOST_OF_ONE,
    REVIEW_S,
    TELL_AGAIN_S,
    TEXT_PER_SERIES,
    Catalogue,
)
from aiops.intake import Intake
from aiops.models import KEEP_S
from aiops.types import RawAlert


def numbers(*some):
    return np.array(some, np.int32)


def reviewed(catalogue, at):
    return catalogue.review(at).tolist()


def test_a_series_has_one_number_and_is_told_once():
    """By entity, metric and labels."""
    c = Catalogue()
    assert [c.number("pod/a/b", "m", labels) for labels in ("", 'x="1"', "", 'x="1"')] == [0, 1, 0, 1]
    assert [(s.id, s.labels) for s in c.taken()] == [(0, ""), (1, 'x="1"')]
    assert c.taken() == () and len(c) == 2


def test_the_silent_are_given_up_pods_sooner_than_services():
    """After an hour and after a week; whoever speaks stays."""
    c = Catalogue()
    pod, service, talker = c.number("pod/a/b", "m", ""), c.number("service/a/b", "m", ""), c.number("pod/a/c", "m", "")
    c.heard(numbers(pod, service, talker), T0)
    assert reviewed(c, T0) == []
    c.heard(numbers(talker), T0 + EPHEMERAL_SILENT_S)
    assert reviewed(c, T0 + EPHEMERAL_SILENT_S + 1) == [pod]
    c.heard(numbers(talker), T0 + KEEP_S)
    assert reviewed(c, T0 + KEEP_S + 1) == [service]
    assert len(c) == 1 and c.retired == 2


def test_a_series_that_ended_goes_sooner_unless_it_comes_back():
    """A quarter of an hour after its source said so: pods come back under the same name, or never."""
    c = Catalogue()
    for name in ("a", "b"):
        c.number(f"pod/x/{name}", "m", "")
    c.heard(numbers(0, 1), T0)
    c.ended(numbers(0, 1))
    c.heard(numbers(1), T0 + 60)
    assert reviewed(c, T0 + ENDED_S + 1) == [0]
    assert reviewed(c, T0 + 60 + ENDED_S + 1 + REVIEW_S) == []


def test_a_number_rests_for_a_review_before_another_series_gets_it():
    """Somebody may be using it while it is given up."""
    c = Catalogue()
    c.number("pod/a/b", "m", "")
    c.heard(numbers(0), T0)
    at = T0 + EPHEMERAL_SILENT_S + 1
    assert reviewed(c, at) == [0]
    assert c.number("pod/a/new", "m", "") == 1
    c.heard(numbers(1), at)
    reviewed(c, at + REVIEW_S)
    assert c.number("pod/a/newer", "m", "") == 0


def test_what_never_had_a_sample_is_given_up_too():
    """Numbered for a block that was refused, say."""
    c = Catalogue()
    c.number("pod/a/b", "m", "")
    assert reviewed(c, T0) == []
    assert reviewed(c, T0 + EPHEMERAL_SILENT_S + 1) == [0]


def test_when_room_is_short_the_longest_silent_go_first():
    """Down to four fifths of the room, and nobody who spoke within a quarter of an hour."""
    c = Catalogue(limit=10)
    for k in range(10):
        number = c.number(f"service/a/{k}", f"m{k}", "")
        c.heard(numbers(number), T0 + 100.0 * k)
    assert sorted(reviewed(c, T0 + 2000.0)) == [0, 1]
    assert len(c) == 8


def test_a_label_explosion_stops_at_its_metric_and_is_told_with_the_label():
    """Others go on; the entity and the label are named, once an hour."""
    c = Catalogue()
    for k in range(MOST_OF_ONE + 50):
        c.number("service/shop/api", "http_requests_total", f'code="{200 + k % 3}",user="u{k}"')
    assert len(c) == MOST_OF_ONE and c.refused == {"label_explosion": 50}
    assert c.number("service/shop/api", "queue_length", "") is not None
    [event] = c.told(T0)
    assert (event.entity, event.kind, event.reason) == ("service/shop/api", "warning", "SeriesRefused")
    assert "http_requests_total are left out (refused 50 times): their label user has ever new values" in event.text
    assert c.number("service/shop/api", "http_requests_total", 'code="200",user="other"') is None
    assert c.told(T0 + 60.0) == []
    assert len(c.told(T0 + TELL_AGAIN_S)) == 1


def test_the_last_tenth_is_for_metrics_that_have_less_than_their_share():
    """One metric with many entities cannot take the room of all others."""
    c = Catalogue(limit=1000)
    for k in range(2000):
        c.number(f"pod/a/{k}", "greedy", "")
    assert len(c) == 1000  # alone it may have all
    c = Catalogue(limit=1000)
    small = [c.number("node//a", f"small_{k}", "") for k in range(10)]
    greedy = [c.number(f"pod/a/{k}", "greedy", "") for k in range(2000)]
    assert sum(n is not None for n in greedy) == int(LAST_TENTH * 1000) - len(small)
    assert all(c.number("node//b", f"small_{k}", "") is not None for k in range(10))
    assert set(c.refused) == {"more_than_its_share"}


def test_beyond_the_limit_nothing_is_taken_and_nothing_breaks():
    """Labels that cannot be read included."""
    c = Catalogue(limit=5)
    got = [c.number("service/a/b", f"m{k}", "not labels") for k in range(8)]
    assert got == [0, 1, 2, 3, 4, None, None, None]
    assert c.refused["too_many_series"] == 3 and len(c.told(T0)) == 3


# ------------------------------------------------------------------------------------------------------- with the rest
def test_who_keeps_numbers_is_told_which_not_to_use_any_more():
    """After the batch that retires them is made; a later sample of a retired number is counted, and hits nobody else."""
    intake, told = Intake(STEP_S), []
    intake.on_retire(lambda gone: told.append(gone.tolist()))
    intake.sample(T0, "pod/a/b", "m", {}, 1.0)
    intake.drain(T0)
    [batch] = intake.drain(T0 + EPHEMERAL_SILENT_S + 60)
    assert (batch.retired.tolist(), told) == ([0], [[0]])
    door = pipeline().door
    door.values(batch)
    intake.block(numbers(0), np.full(1, T0 + 9000), np.ones(1))
    [late] = intake.drain(T0 + 9000)
    door.values(late)
    assert door.dropped == {"unknown_series": 1}


def churned(ticks, each=40, live=200, seed=1):
    """Batches: pods of which `each` are replaced a tick, five signals a pod, and a service that stays."""
    rng, intake = np.random.default_rng(seed), Intake(60.0)
    first = 0
    for k in range(ticks):
        at = T0 + 60.0 * k
        first += each if k % 10 == 0 else 0
        for pod in range(first, first + live):
            for m in range(5):
                intake.sample(at, f"pod/shop/p{pod}", f"m{m}", {}, float(rng.normal(10, 1)))
        fault = 40.0 if k in range(ticks - 12, ticks) else 0.0
        intake.sample(at, "service/shop/api", "queue", {}, float(rng.normal(50, 2)) + fault)
        yield from intake.drain(at)


@pytest.mark.slow
def test_memory_follows_what_lives_and_the_verdict_stays():
    """With pods coming and going: columns are given up, and the service's incident is found all the same."""
    p, found, most = pipeline(), set(), 0
    for batch in churned(400):
        report = p.step(batch)
        found |= {a.entity for i in report.incidents for a in i.alerts}
        most = max(most, len(p.door.signals))
    ever = 5 * (200 + 40 * 40) + 1
    assert most < 0.45 * ever
    assert len(p.door.signals) == len(p._banded.band[0]) <= p.history._rings[0].shape[1] < ever
    assert [s.id for s in p.door.signals] == list(range(len(p.door.signals)))
    assert "service/shop/api" in found


def test_columns_are_given_up_once_they_are_many(monkeypatch):
    """The rest go on as if nothing had happened: the same anomalies, alerts and incidents, under other numbers."""
    batches = list(churned(220, each=4, live=20))
    monkeypatch.setattr("aiops.pipeline.MIN_GONE", 10)
    moved = pipeline()
    monkeypatch.setattr("aiops.pipeline.Pipeline._tidy", lambda self, at: None)
    kept = pipeline()
    reports = [kept.step(b) for b in batches]
    monkeypatch.undo()
    monkeypatch.setattr("aiops.pipeline.MIN_GONE", 10)
    again = [moved.step(b) for b in batches]
    assert len(moved.door.signals) < len(kept.door.signals)

    def told(report):
        return ([(a.entity, a.name, a.detector, a.p_value, a.value, a.expected) for a in report.anomalies],
                [(a.key, a.state, a.strength) for a in report.alerts], [i.id for i in report.incidents])
    for mine, theirs in zip(again, reports, strict=True):
        assert repr(told(mine)) == repr(told(theirs))
    assert any(r.incidents for r in again)


def test_the_label_is_blamed_only_where_it_is_to_blame():
    """Where there is no room at all, a label with two values is none of the reasons."""
    c = Catalogue(limit=3)
    for k in range(6):
        c.number("node//a", "cpu", f'mode="m{k}"')
    assert "there are 3 series already" in c.told(T0)[0].text
    c = Catalogue(limit=1000)
    for k in range(10):
        c.number("node//a", f"small_{k}", "")
    for k in range(2000):
        c.number(f"pod/a/{k}", "greedy", "")
    assert "it has more series than its share of series.max, 1,000. Watch less of it" in c.told(T0)[0].text


@pytest.mark.slow
def test_names_and_labels_are_bounded_in_all():
    """Sixty kilobytes of labels are as much as a hundred other series; the room comes back with those that go."""
    c = Catalogue(limit=1000)
    long = "x" * 60_000
    numbered = [c.number(f"service/a/{k}", "m", f'l="{long}"') for k in range(1000)]
    assert sum(n is not None for n in numbered) == TEXT_PER_SERIES * 1000 // 60_000
    assert set(c.refused) == {"too_much_text"} and "Drop the longest labels" in c.told(T0)[0].text
    assert c.number("service/a/b", "m", 'l="short"') is not None
    c.heard(numbers(*range(len(c))), T0)
    assert len(reviewed(c, T0 + KEEP_S + 1)) == 9 and c._text == 0


def test_what_is_refused_is_logged_once_and_stands_in_the_notes():
    """Ten sentences and how many more there are, for an hour after it was said last."""
    intake = Intake(STEP_S, max_series=5)
    with capture_logs() as logged:
        for tick in range(3):
            for k in range(20):
                intake.sample(T0 + tick, "service/a/b", f"m{k:02}", {"code": "1"}, 1.0)
            intake.drain(T0 + tick)
    texts = [entry["problem"] for entry in logged if entry["event"] == "series refused"]
    assert len(texts) == 11 and texts[-1] == "New series of 5 more metrics are left out."
    assert intake.notes() == texts
    assert texts[0] == ("New series of m05 are left out (refused once): there are 5 series already. "
                        "Watch less, or raise series.max.")
    intake.drain(T0 + 3601)  # told again: it went on after it was told
    intake.drain(T0 + 7300)
    assert intake.notes() == []


def test_names_from_outside_are_cut_in_what_is_told():
    """A sentence of ten thousand characters helps nobody."""
    c = Catalogue(limit=1)
    for k in range(3):
        c.number("service/a/" + "e" * 9000, "m" * 9000, f'{"l" * 9000}="{k}"')
    assert len(c.told(T0)[0].text) < 700


def test_single_samples_and_alerts_are_bounded_too(monkeypatch):
    """Beyond that they are counted."""
    monkeypatch.setattr("aiops.intake.MAX_SAMPLES", 3)
    monkeypatch.setattr("aiops.intake.MAX_ALERTS", 2)
    intake = Intake(STEP_S)
    for k in range(5):
        intake.sample(T0 + k, "service/a/b", "m", {}, 1.0)
        intake.alert(RawAlert(0, T0, "service/a/b", "Down"))
    assert not intake.block(numbers(0), np.full(1, T0), np.ones(1))
    [batch] = intake.drain(T0 + 9)
    assert (len(batch.series), len(batch.alerts), intake.dropped) == (3, 2, {"samples": 2, "alerts": 3})
