"""The door: what raw samples become, and what is done with those that cannot be used."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from helpers import Feed, meanings
from hypothesis import given, settings
from hypothesis import strategies as st

from aiops.meaning import Meanings, shipped
from aiops.signals import STALE_INTERVALS, STALE_S, Door
from aiops.types import Batch, Series

PACK = meanings(
    {"up": "gauge", "req_total": "counter", "dur_sum": "counter", "dur_count": "counter", "free": "gauge", "size": "gauge",
     "temp": "gauge", "kills_total": "counter"},
    {"rate": {"rate": "req_total"},
     "errors": {"ratio": [{"metric": "req_total", "where": {"code": "5.."}}, "req_total"]},
     "used": {"ratio": ["free", "size"], "invert": True},
     "latency": {"mean": ["dur_sum", "dur_count"]},
     "kills": {"increase": "kills_total"},
     "alive": {"value": "up", "combine": "min"},
     "hottest": {"value": "temp", "combine": "max"},
     "usual": {"value": "temp", "combine": "mean"},
     "per_code": {"rate": "req_total", "by": ["code"]}})
API = "service//api"


class Run:
    """A door, and the newest values by signal name."""

    def __init__(self, known: Meanings = PACK) -> None:
        self.door, self.feed = Door(known), Feed()

    def __call__(self, at: float, samples: dict[str, float] | list[tuple[str, float, float]]) -> dict[str, float]:
        samples = {f"{API} {k}": v for k, v in samples.items()} if isinstance(samples, dict) else [
            (f"{API} {k}", t, v) for k, t, v in samples]
        values = self.door.values(self.feed.batch(at, samples))
        return {s.key: float(v) for s, v in zip(self.door.signals, values, strict=True)}


def test_a_counter_is_a_rate_from_its_second_sample_on():
    """One sample says nothing about a rate."""
    run = Run()
    assert math.isnan(run(0, {"req_total": 100})["rate"])
    assert run(10, {"req_total": 150})["rate"] == 5.0


def test_a_counter_that_falls_was_reset():
    """After a restart it counted what it shows, not a negative rate."""
    run = Run()
    run(0, {"req_total": 1e6})
    assert run(10, {"req_total": 20})["rate"] == 2.0
    assert run(20, {"req_total": 40})["rate"] == 2.0


def test_a_gap_is_spread_over_the_time_it_took():
    """A scrape that was missed does not look like a burst."""
    run = Run()
    run(0, {"req_total": 0})
    run(10, {"req_total": 50})
    assert run(70, {"req_total": 350})["rate"] == 5.0


def test_signals_that_did_not_report_have_no_value():
    """Silence is NaN, not zero and not the last value."""
    run = Run()
    run(0, {"up": 1, "temp": 3})
    assert math.isnan(run(10, {"temp": 4})["alive"])
    assert not math.isnan(run(20, {"up": 1})["alive"])


def test_only_the_newest_of_several_samples_counts():
    """Whatever the order in which they came."""
    run = Run()
    assert run(10, [("temp", 9.0, 5.0), ("temp", 3.0, 1.0), ("temp", 6.0, 2.0)])["hottest"] == 5.0
    run(20, [("req_total", 20.0, 200.0), ("req_total", 10.0, 100.0)])
    assert run(30, {"req_total": 300})["rate"] == 10.0


def test_duplicates_and_late_samples_are_counted_and_left_out():
    """The same time twice, and a time before what is known."""
    run = Run()
    run(10, {"temp": 1.0})
    values = run(20, [("temp", 20.0, 2.0), ("temp", 20.0, 2.0), ("up", 20.0, 1.0)])
    assert (values["hottest"], run.door.dropped["duplicate"]) == (2.0, 1)
    values = run(30, [("temp", 15.0, 99.0)])
    assert math.isnan(values["hottest"])
    assert run.door.dropped["late_or_duplicate"] == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", ["value", "time"])
def test_what_is_no_number_is_counted_and_changes_nothing(bad, place):
    """A NaN between two samples of a counter leaves its rate right."""
    run = Run()
    run(0, {"req_total": 0})
    values = run(10, [("req_total", bad, 50.0) if place == "time" else ("req_total", 10.0, bad)])
    assert math.isnan(values["rate"])
    assert run.door.dropped == {"not_a_number": 1}
    assert run(20, {"req_total": 100})["rate"] == 5.0


@pytest.mark.parametrize("ids", [[7], [-1], [2**31 - 1], [-(2**31)]])
def test_unknown_series_are_counted(ids):
    """Samples of series that were never introduced, before and after others were."""
    door = Door(PACK)
    n = np.array(ids, np.int32)
    batch = Batch(1.0, n, np.ones(1), np.ones(1))
    assert len(door.values(batch)) == 0
    door.values(Feed().batch(2.0, {f"{API} temp": 1.0}))
    door.values(Batch(3.0, n, np.full(1, 3.0), np.ones(1)))
    assert door.dropped == {"unknown_series": 2}


def test_a_negative_id_is_never_introduced():
    """It would name another series from the end."""
    door = Door(PACK)
    door.values(Batch(1.0, np.array([-1], np.int32), np.ones(1), np.ones(1), (Series(-1, API, "temp"),)))
    assert (door.series_count, len(door.signals)) == (0, 0)
    assert door.dropped == {"unknown_series": 1}


def test_malformed_labels_are_counted_and_the_rest_goes_on():
    """One series of nonsense does not stop its neighbours."""
    door = Door(PACK)
    values = door.values(Batch(
        1.0, np.array([0, 1], np.int32), np.ones(2), np.array([4.0, 5.0]),
        (Series(0, API, "temp", "no labels at all"), Series(1, API, "temp", 'core="1"'))))
    assert door.dropped == {"labels_malformed": 1}
    assert {s.name: v for s, v in zip(door.signals, values, strict=True)} == {"hottest": 5.0, "usual": 5.0}


def test_a_share_whose_part_vanished_is_zero_after_three_intervals():
    """Errors stop being exported when the process restarts: that is no error rate of long ago."""
    run = Run()
    for k in range(4):
        values = run(10.0 * k, {'req_total{code="200"}': 90.0 * k, 'req_total{code="500"}': 10.0 * k})
    assert values["errors"] == pytest.approx(0.1)
    seen = [run(10.0 * k, {'req_total{code="200"}': 90.0 * k})["errors"] for k in range(4, 9)]
    assert seen == [pytest.approx(0.1), pytest.approx(0.1), pytest.approx(0.1), 0.0, 0.0]


def test_one_outage_does_not_change_what_is_usual():
    """After three minutes without any scrape, who vanishes still leaves the sum soon."""
    run = Run()
    for at in (0, 10, 20, 200, 210):
        run(at, {'up{i="1"}': 1, 'up{i="2"}': 0})
    assert [run(at, {'up{i="1"}': 1})["alive"] for at in (220, 230, 240, 250)] == [0.0, 0.0, 0.0, 1.0]


def test_a_share_of_nothing_has_no_value():
    """No requests is not an error rate of zero."""
    run = Run()
    run(0, {'req_total{code="500"}': 5})
    assert math.isnan(run(10, {'req_total{code="500"}': 5})["errors"])


def test_an_inverted_share_is_what_is_left():
    """Used is one less what is free; without knowing what is free, nothing is known."""
    run = Run()
    assert run(0, {"free": 25, "size": 100})["used"] == 0.75
    run = Run()
    run(0, {"size": 100})
    assert all(math.isnan(v) for v in run(10, {"size": 100}).values())


def test_a_mean_is_that_of_the_tick():
    """Not of all time since the process began."""
    run = Run()
    run(0, {"dur_sum": 1000, "dur_count": 10})
    assert run(10, {"dur_sum": 1006, "dur_count": 13})["latency"] == 2.0
    assert math.isnan(run(20, {"dur_sum": 1006, "dur_count": 13})["latency"])


def test_an_increase_adds_up_and_says_so():
    """Two kills, then none, whatever the interval."""
    run = Run()
    run(0, {"kills_total": 5})
    assert run(10, {"kills_total": 7})["kills"] == 2.0
    assert run(100, {"kills_total": 7})["kills"] == 0.0
    assert [s.name for s in run.door.signals if s.additive] == ["kills"]


def test_a_total_is_what_the_counter_says():
    """Not a rate and not an increase."""
    run = Run(meanings({"rows_total": "counter"}, {"spent": {"total": "rows_total"}}))
    assert math.isnan(run(0, {"rows_total": 7})["spent"])
    assert [run(t, {"rows_total": v})["spent"] for t, v in ((10, 7), (20, 9))] == [7, 9]


def test_until_counts_the_seconds_to_a_unix_time():
    """From the tick on, past zero, and only while it is told."""
    run = Run(meanings({"ends": "gauge"}, {"left": {"until": "ends", "combine": "min"}}))
    assert [run(t, {"ends": 100.0})["left"] for t in (0, 40, 130)] == [100, 60, -30]
    assert math.isnan(run(140, {})["left"])


def test_a_limit_comes_with_the_signal():
    """With the time that people need; a metric that is called like a signal has its limit too."""
    rule = {"value": "temp", "direction": "up", "limit": {"at": 90, "horizon": "2h"}}
    run = Run(meanings({"temp": "gauge", "free": "gauge"}, {"hot": rule, "bytes": {"value": "free"}}))
    run(0, {"temp": 20, "free": 1, "hot{place=\"x\"}": 30})
    assert {s.key: (s.limit, s.horizon_s) for s in run.door.signals} == {
        "hot": (90, 7200), "bytes": (None, 86_400), 'hot{place="x"}': (90, 7200)}


@pytest.mark.parametrize(("rule", "message"), [
    ({"value": "up", "limit": {"at": 1}}, "a limit is reached from one side. Add direction: up or direction: down."),
    ({"value": "up", "direction": "up", "limit": {"at": 1, "horizon": "0s"}}, "greater than 0"),
    ({"value": "up", "direction": "up", "limit": 1}, "Limit"),
    ({"value": "up", "until": "up"}, "exactly one of value, rate, increase, ratio, mean, total, until is needed"),
    ({}, "found none")])
def test_a_rule_that_makes_no_sense_is_refused(rule, message):
    """With the remedy."""
    with pytest.raises(ValueError, match=message):
        meanings({"up": "gauge"}, {"x": rule})


def test_an_increase_is_counted_once_when_its_series_come_in_different_ticks():
    """A scrape that a tick cuts in two does not double the kills of the first half."""
    run = Run()
    run(0, {'kills_total{c="a"}': 0, 'kills_total{c="b"}': 0})
    first = run(10, {'kills_total{c="a"}': 3})["kills"]
    second = run(11, {'kills_total{c="b"}': 0})["kills"]
    assert (first, second) == (3.0, 0.0)


def test_extremes_and_means_over_series():
    """The worst of several, as the rule says."""
    run = Run()
    values = run(0, {'temp{c="a"}': 40, 'temp{c="b"}': 60, 'up{i="1"}': 1, 'up{i="2"}': 0})
    assert (values["hottest"], values["usual"], values["alive"]) == (60.0, 50.0, 0.0)


def test_labels_that_are_kept_make_signals_of_their_own():
    """One rate for each code."""
    run = Run()
    run(0, {'req_total{code="200",pod="x"}': 0, 'req_total{code="200",pod="y"}': 0, 'req_total{code="500"}': 0})
    values = run(10, {'req_total{code="200",pod="x"}': 10, 'req_total{code="200",pod="y"}': 20, 'req_total{code="500"}': 5})
    assert (values['per_code{code="200"}'], values['per_code{code="500"}'], values["rate"]) == (3.0, 0.5, 3.5)


def test_a_metric_that_changes_its_labels_is_counted_once_again_soon():
    """After a new version the old series are silent: they leave the sum after three of their intervals."""
    run = Run()
    for k in range(5):
        run(10.0 * k, {'req_total{version="1"}': 100.0 * k})
    seen = [run(10.0 * k, {'req_total{version="2"}': 100.0 * (k - 5)})["rate"] for k in range(5, 11)]
    assert math.isnan(seen[0])
    assert seen[1:] == [20.0, 20.0, 10.0, 10.0, 10.0]


def test_unknown_metrics_have_cautious_defaults():
    """A gauge as it is, a counter's rate, a histogram's mean; its buckets and labels of information are left alone."""
    run = Run(shipped())
    names = {"my_gauge": 3.0, "my_total": 1.0, "wait_bucket": 1.0, "wait_sum": 4.0, "wait_count": 2.0, "build_info": 1.0}
    run(0, names)
    values = run(10, {**names, "my_total": 11.0, "wait_sum": 10.0, "wait_count": 4.0})
    assert values == pytest.approx({"my_gauge": 3.0, "my_total": 1.0, "wait": 3.0})
    assert {s.min_rel for s in run.door.signals} == {0.25, 0.5}
    assert {s.direction for s in run.door.signals} == {"both"}


def test_ten_thousand_unknown_series_are_ten_thousand_signals():
    """Nothing is lost, and a tick of them is one array operation."""
    door = Door(shipped())
    ids = np.arange(10_000, dtype=np.int32)
    new = tuple(Series(i, f"service//s{i}", "made_up") for i in range(10_000))
    first = door.values(Batch(1.0, ids, np.ones(10_000), ids.astype(float), new))
    assert (len(door.signals), first.tolist()) == (10_000, list(range(10_000)))
    assert door.values(Batch(2.0, ids[:1], np.full(1, 2.0), np.ones(1)))[0] == 1.0


def test_series_that_are_introduced_again_stay_what_they_are():
    """A journal whose first segments are gone repeats all series."""
    door = Door(PACK)
    series = Series(0, API, "temp")
    for at in (1.0, 2.0):
        values = door.values(Batch(at, np.zeros(1, np.int32), np.full(1, at), np.full(1, at), (series,)))
        assert values.tolist() == [at, at]
    assert (door.series_count, len(door.signals)) == (1, 2)


# ---------------------------------------------------------------------------------- fast path == naive reference
KEYS = ["temp", 'temp{c="b"}', "up", 'up{c="b"}', "free", "size", "dur_sum", "dur_count", "kills_total", 'kills_total{c="b"}',
        'req_total{code="200"}', 'req_total{code="500"}', 'req_total{code="503"}']
COUNTERS = {k for k in KEYS if "_" in k}


class Naive:
    """What the door does, written down series by series in plain Python."""

    def __init__(self) -> None:
        self.time: dict[str, float] = {}
        self.last: dict[str, float] = {}
        self.level: dict[str, float] = {}
        self.delta: dict[str, float] = {}
        self.interval: dict[str, float] = {}
        self.dropped: Counter[str] = Counter()

    def tick(self, at: float, rows: list[tuple[str, float, float]]) -> dict[str, float]:
        newest: dict[str, tuple[float, float]] = {}
        finite = [r for r in rows if math.isfinite(r[1]) and math.isfinite(r[2])]
        self.dropped["not_a_number"] += len(rows) - len(finite)
        self.dropped["duplicate"] += len(finite) - len({r[:2] for r in finite})
        for key, time, value in finite:
            if key not in newest or time >= newest[key][0]:
                newest[key] = (time, value)
        updated = {key for key, (time, value) in newest.items() if self.absorb(key, time, value)}
        fresh = {k: v for k, v in self.level.items() if self.fresh(k, at) and math.isfinite(v)}
        return self.signals(fresh, updated)

    def absorb(self, key: str, time: float, value: float) -> bool:
        before = self.time.get(key)
        if before is not None and time <= before:
            self.dropped["late_or_duplicate"] += 1
            return False
        self.level[key], self.delta[key] = value, value
        if key in COUNTERS:
            change = math.nan if before is None else value - self.last[key]
            self.delta[key] = value if change < 0 else change
            self.level[key] = math.nan if before is None else self.delta[key] / (time - before)
        if before is not None:
            span, usual = time - before, self.interval.get(key)
            self.interval[key] = span if usual is None else usual + 0.3 * (min(max(span, usual / 2), 2 * usual) - usual)
        self.time[key], self.last[key] = time, value
        return math.isfinite(self.level[key])

    def fresh(self, key: str, at: float) -> bool:
        return at - self.time[key] <= min(STALE_S, STALE_INTERVALS * self.interval.get(key, math.inf))

    def signals(self, fresh: dict[str, float], updated: set[str]) -> dict[str, float]:
        def some(start: str, of: dict[str, float] = fresh) -> list[float]:
            return [of[k] for k in KEYS if k in of and k.startswith(start)]

        def ratio(over: list[float], under: list[float]) -> float:
            return sum(over) / sum(under) if sum(under) > 0 else math.nan

        def touched(*starts: str) -> bool:
            return any(k.startswith(s) for k in updated for s in starts)

        deltas = {k: self.delta[k] for k in fresh if k in updated}
        errors = some('req_total{code="5')
        out = {
            "rate": (sum(some("req_total")), touched("req_total")),
            "errors": (ratio(errors, some("req_total")), touched("req_total")),
            "used": (1 - ratio(some("free"), some("size")) if some("free") else math.nan, touched("free", "size")),
            "latency": (ratio(some("dur_sum"), some("dur_count")), touched("dur_")),
            "kills": (sum(some("kills_total", deltas)), touched("kills_total")),
            "alive": (min(some("up"), default=math.nan), touched("up")),
            "hottest": (max(some("temp"), default=math.nan), touched("temp")),
            "usual": (float(np.mean(some("temp") or [math.nan])), touched("temp"))}
        out |= {f'per_code{{code="{c}"}}': (sum(some(f'req_total{{code="{c}"')), touched(f'req_total{{code="{c}"'))
                for c in ("200", "500", "503")}
        return {name: value for name, (value, reported) in out.items() if reported and not math.isnan(value)}


numbers = st.one_of(st.integers(0, 50), st.sampled_from([math.nan, math.inf]))
sample = st.tuples(st.sampled_from(KEYS), st.integers(-4, 0), numbers)
ticks = st.lists(st.tuples(st.sampled_from([1, 1, 1, 2, 9]), st.lists(sample, max_size=20)), min_size=1, max_size=12)


@pytest.mark.slow
@settings(max_examples=150, deadline=None, derandomize=True)
@given(ticks)
def test_the_fast_path_equals_the_naive_reference(plan):
    """Any interleaving of gauges, counters, resets, gaps, late, double and unusable samples."""
    door, naive, at = Door(PACK), Naive(), 0.0
    introduce = tuple(Series(i, API, *_split(key)) for i, key in enumerate(KEYS))
    for steps, rows in plan:
        at += 10.0 * steps
        timed = [(key, at + 5.0 * back, float(value)) for key, back, value in rows]
        ids = np.array([KEYS.index(k) for k, _, _ in timed], np.int32)
        got = door.values(Batch(at, ids, np.array([t for _, t, _ in timed]), np.array([v for *_, v in timed]), introduce))
        introduce = ()
        reported = {s.key: float(v) for s, v in zip(door.signals, got, strict=True) if not math.isnan(v)}
        assert reported == pytest.approx(naive.tick(at, timed), rel=1e-12)
    assert +door.dropped == +naive.dropped


def _split(key: str) -> tuple[str, str]:
    metric, _, labels = key.partition("{")
    return metric, labels.removesuffix("}")


def test_a_metric_called_like_a_signal_of_a_pack_has_its_meaning():
    """A recording rule `http_error_rate` is bad when it rises, in the unit and with the smallest effect of the pack."""
    door = Door(shipped())
    door.values(Batch(10.0, np.array([0], np.int32), np.array([10.0]), np.array([0.4]),
                      (Series(0, "service//api", "http_error_rate", 'zone="a"', "gauge"),)))
    [signal] = door.signals
    rule = shipped().signals["http_error_rate"]
    assert (signal.name, signal.labels) == ("http_error_rate", 'zone="a"')
    assert (signal.direction, signal.unit, signal.min_abs, signal.resource) == (
        "up", rule.unit, rule.min_effect.abs, "errors")


def test_a_sample_from_the_future_does_not_make_the_next_ones_late():
    """One wrong clock must not deafen a series for a year."""
    door = Door(shipped())
    new = (Series(0, "service//api", "queue_length", "", "gauge"),)
    door.values(Batch(10.0, np.array([0], np.int32), np.array([10.0 + 3e7]), np.array([5.0]), new))
    assert door.dropped == {"in_the_future": 1}
    assert door.values(Batch(20.0, np.array([0], np.int32), np.array([20.0]), np.array([7.0]))).tolist() == [7.0]


# ----------------------------------------------------------------------------------------------------- over a restart
def restarted(run: Run, known: Meanings = PACK, columns: list[int] | None = None, samples: bool = True) -> Run:
    """A door that goes on where another stopped; series get new ids, as after a restart."""
    state, again = run.door.state(), Run(known)
    again.door.restore(state, list(range(len(run.door.signals))) if columns is None else columns, samples)
    return again


def test_after_a_restart_signals_have_their_columns_and_counters_their_last_sample():
    """Whatever comes first; silent until they are heard; what was counted meanwhile is a rate at once."""
    run = Run()
    run(0, {"req_total": 100, "free": 30, "size": 60, "temp": 7})
    run(10, {"req_total": 150, "free": 30, "size": 60, "temp": 7})
    keys = [s.key for s in run.door.signals]
    again = restarted(run)
    assert list(again.door.signals) == list(run.door.signals)
    first = again(40, {"temp": 8, "new": 1})
    assert list(first) == [*keys, "new"] and first["hottest"] == 8 and math.isnan(first["used"]) and math.isnan(first["rate"])
    assert again(50, {"req_total": 350})["rate"] == 5.0
    assert again(60, {"size": 60, "free": 15})["used"] == 0.75
    assert not again.door.dropped


def test_what_is_not_newer_than_the_last_sample_is_late_after_a_restart_too():
    """Unless the past is wanted once more."""
    run = Run()
    run(0, {"temp": 1})
    run(10, {"temp": 2})
    assert math.isnan(restarted(run)(10, {"temp": 3})["hottest"])
    assert restarted(run, samples=False)(10, {"temp": 3})["hottest"] == 3


def test_columns_that_are_left_out_are_new_when_they_come_back():
    """At the end, with what is left in its old order."""
    run = Run()
    run(0, {"up": 1, "x": 2, "y": 3})
    assert [s.key for s in run.door.signals] == ["alive", "x", "y"]
    again = restarted(run, columns=[0, 2])
    assert [s.key for s in again.door.signals] == ["alive", "y"]
    assert again(10, {"x": 5, "y": 6}) == {"alive": pytest.approx(math.nan, nan_ok=True), "y": 6, "x": 5}


def test_a_signal_that_means_something_else_now_gets_another_column():
    """A rate that became an increase has nothing to do with what was learned; another smallest effect is a detail."""
    before = meanings({"k_total": "counter", "t": "gauge"}, {"k": {"rate": "k_total"}, "hot": {"value": "t"}})
    after = meanings({"k_total": "counter", "t": "gauge"}, {
        "k": {"increase": "k_total"}, "hot": {"value": "t", "min_effect": {"abs": 3.0}, "unit": "celsius"}})
    run = Run(before)
    run(0, {"k_total": 5, "t": 1})
    again = restarted(run, after)
    again(10, {"k_total": 9, "t": 2})
    again(20, {"k_total": 10, "t": 2})
    assert [(s.key, s.additive) for s in again.door.signals] == [("k", False), ("hot", False), ("k", True)]
    assert (again.door.signals[1].min_abs, again.door.signals[1].unit) == (3.0, "celsius")
    third = restarted(again, after)
    assert third(30, {"k_total": 12})["k"] == 2.0 and len(third.door.signals) == 3


def test_when_each_column_was_last_heard_is_known_over_restarts():
    """Also of those that did not come back yet."""
    run = Run()
    run(0, {"up": 1, "x": 2})
    run(10, {"x": 2})
    assert run.door.last_heard().tolist() == [0.0, 10.0]
    again = restarted(run)
    again(20, {"x": 3, "never": math.nan})
    assert again.door.last_heard().tolist() == [0.0, 20.0, -math.inf]
    assert restarted(again).door.last_heard().tolist() == [0.0, 20.0, -math.inf]
