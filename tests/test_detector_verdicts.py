"""What each detector sees, and what it leaves alone."""

from __future__ import annotations

import json

import numpy as np
import pytest
from helpers import STEP_S, T0, frame, frames, noise, signals

from aiops.types import LogLine
from detectors.absence import FORGET_S, Absence
from detectors.baseline import READY_AFTER, Baseline
from detectors.logs import READY_TICKS, Logs, is_error, poisson_tail

MONDAY = 4 * 86_400.0  # 1970-01-05
DAY_S, HOUR_S, WEEK_S = 86_400.0, 3600.0, 604_800.0


def reported(values, **meaning):
    """Ticks in which the baseline reports the one signal that has these values."""
    of = signals("service//a x", **meaning)
    baseline = Baseline()
    return [k for k, f in enumerate(frames(np.reshape(values, (-1, 1)), of)) if baseline.observe(f)]


def then(*pieces):
    return np.concatenate([np.ravel(p) for p in pieces])


# -------------------------------------------------------------------------------------------------------- baseline
@pytest.mark.parametrize(("direction", "up", "down"), [("up", True, False), ("down", False, True), ("both", True, True)])
def test_only_the_bad_direction_is_reported(direction, up, down):
    """A drop in errors is good news."""
    for jump, expected in ((+20, up), (-20, down)):
        found = reported(then(noise(200), noise(3, level=10 + jump)), direction=direction)
        assert (200 in found) == expected


@pytest.mark.parametrize(("least", "expected"), [
    ({"min_abs": 19, "min_rel": 1.8}, True), ({"min_abs": 22, "min_rel": 0.1}, False), ({"min_abs": 1, "min_rel": 2.2}, False)])
def test_both_least_effects_must_be_exceeded(least, expected):
    """What nobody would get up for is no anomaly, however improbable."""
    assert (200 in reported(then(noise(200, scale=0.01), [30.0]), **least)) == expected


def test_a_constant_series_that_steps_is_reported_at_once():
    """No scale of its own is no excuse."""
    assert reported(then(np.full(100, 5.0), np.full(3, 6.0)))[0] == 100
    assert reported(then(np.zeros(100), np.full(3, 1e-3)))[0] == 100


def test_a_constant_series_is_left_alone_for_ever():
    """Nor does the last bit of a float count."""
    wobble = 0.1 + 1e-16 * np.arange(500)
    assert reported(wobble) == reported(np.zeros(500)) == reported(np.full(500, 1e12)) == []


def test_it_has_no_opinion_before_it_is_ready():
    """Thirty samples, whatever they are."""
    assert reported(then(noise(READY_AFTER - 1), [1e6])) == []
    baseline = Baseline()
    for k, f in enumerate(frames(noise(40), signals("a//b c"))):
        assert baseline.ready_count() == (k >= READY_AFTER)
        baseline.observe(f)


def test_the_band_holds_what_is_normal():
    """All but a few of ten thousand normal samples, and it is not drawn before the signal is ready."""
    of = signals(*(f"a//{i} x" for i in range(50)))
    baseline, inside = Baseline(), []
    for k, f in enumerate(frames(noise(600, 50), of)):
        baseline.observe(f)
        expected, width = baseline.band
        assert np.isnan(width).all() if k < READY_AFTER else np.isfinite(width).all()
        if k >= 100:
            inside.append(np.abs(f.values - expected) <= width)
    assert 0.997 < np.mean(inside) < 1
    assert width.mean() < 6


def test_an_anomaly_says_what_was_expected():
    """Value, expectation and band, from the moment before it was learned."""
    of = signals("service//a errors", direction="up")
    baseline = Baseline()
    for f in frames(noise(200), of):
        baseline.observe(f)
    [a] = baseline.observe(frame(T0 + 2000, [50.0], of))
    assert (a.entity, a.name, a.signal, a.value, a.at) == ("service//a", "errors", 0, 50.0, T0 + 2000)
    assert 9 < a.expected < 11 and a.lower < 10 < a.upper < 20
    assert a.p_value < 1e-3 and a.score == 1 - a.p_value


@pytest.mark.parametrize("huge", [1e300, -1e300, 1e200])
def test_one_huge_value_does_not_blind_it(huge):
    """It is reported, and so is the next fault, a million times smaller and more."""
    found = reported(then(noise(100), [huge], noise(100), [1000.0]))
    assert {100, 201} <= set(found) and len(found) < 5
    assert reported(then(np.zeros(100), [huge])) == [100]


def test_a_huge_value_among_the_first_leaves_numbers():
    """It takes long to forget (the first samples are believed), but what is expected stays a number near the normal."""
    of, baseline = signals("service//a x"), Baseline()
    for f in frames(then(noise(10), [1e300], noise(300)).reshape(-1, 1), of):
        baseline.observe(f)
    expected, width = baseline.band
    assert np.isfinite([expected, width]).all()


def test_what_was_masked_is_still_new():
    """Two hundred ticks of an incident teach nothing."""
    of, baseline = signals("service//a x"), Baseline()
    for f in frames(noise(200), of):
        baseline.observe(f)
    for f in frames(noise(200, level=30), of, start=T0 + 2000, learn=False):
        assert baseline.observe(f)


def weeks(count, spikes, level=0.2, daily=0.0, columns=20):
    """Rows every five minutes from a Monday on; `spikes`: (week or None for all, hour of the week) of an hour at +0.4."""
    at = MONDAY + 300.0 * np.arange(int(count * WEEK_S / 300))
    hour, week = (at - MONDAY) % WEEK_S // HOUR_S, (at - MONDAY) // WEEK_S
    x = level + daily * np.sin(2 * np.pi * at / DAY_S)[:, None] + noise(len(at), columns, 0.0, 0.02)
    for which, start in spikes:
        x[(hour == start) & ((week == which) | (which is None))] += 0.4
    return at, x


def told(at, x, week, hour):
    """bool[columns]: was p below 0.001 anywhere in that hour of that week?"""
    of = signals(*(f"node//{i} cpu" for i in range(x.shape[1])), direction="up", min_abs=0.1)
    baseline = Baseline()
    start = MONDAY + week * WEEK_S + hour * HOUR_S
    found = np.zeros(x.shape[1], np.bool_)
    for t, row in zip(at, x, strict=True):
        anomalies = baseline.observe(frame(t, row, of))
        if start <= t < start + HOUR_S:
            found[[a.signal for a in anomalies]] = True
    return found


SUNDAY_3, MONDAY_9 = 6 * 24 + 3, 9


@pytest.mark.parametrize("daily", [0.0, 0.1])
def test_a_spike_at_an_unusual_hour_of_the_week_is_reported(daily):
    """The load of every Monday at nine, on a Sunday at three."""
    assert told(*weeks(3, [(None, MONDAY_9), (2, SUNDAY_3)], daily=daily), 2, SUNDAY_3).mean() > 0.9


@pytest.mark.parametrize("daily", [0.0, 0.1])
def test_the_same_spike_is_normal_at_its_usual_hour(daily):
    """On the third Monday at nine nobody is told, after two that were the same."""
    assert told(*weeks(2.2, [(None, MONDAY_9)], daily=daily), 2, MONDAY_9).mean() < 0.1


def test_a_daily_wave_is_no_anomaly():
    """After two days of it."""
    at, x = weeks(5 / 7, [], daily=0.1)
    of, baseline, late = signals(*(f"a//{i} x" for i in range(20))), Baseline(), []
    for t, row in zip(at, x, strict=True):
        found = baseline.observe(frame(t, row, of))
        late += [len(found)] if t > MONDAY + 2 * DAY_S else []
    assert np.mean(late) / 20 < 3e-3


# ------------------------------------------------------------------------------------------------ absence
ENTITIES = signals("service//a x", "service//a y", "service//b x", "service//c x", "node//d x", "pod//e x")


def silence(ticks, quiet, step_s=STEP_S):
    """What is reported in each tick; `quiet(k)` names the columns that say nothing."""
    detector, out = Absence(), []
    for k in range(ticks):
        x = np.ones(len(ENTITIES))
        x[list(quiet(k))] = np.nan
        out.append([a.entity for a in detector.observe(frame(T0 + k * step_s, x, ENTITIES))])
    return out


def test_an_entity_that_falls_silent_is_reported():
    """Once it missed four of its intervals, and no longer when it speaks again."""
    found = silence(60, lambda k: {2} if 40 <= k < 50 else ())
    assert [k for k, names in enumerate(found) if names] == [44, 45, 46, 47, 48, 49]
    assert found[45] == ["service//b"]


def test_one_metric_that_vanishes_is_no_absence():
    """The entity still speaks."""
    assert not any(silence(60, lambda k: {1} if k >= 40 else ()))


def test_silence_of_everybody_is_the_sources_fault():
    """Most at once: their source is down, and shown as failing elsewhere."""
    assert not any(silence(60, lambda k: {0, 1, 2, 3} if k >= 40 else ()))


def test_pods_come_and_go():
    """Whoever needs them speaks for them."""
    assert not any(silence(60, lambda k: {5} if k >= 40 else ()))


def test_who_never_spoke_regularly_is_not_missed():
    """A job that runs now and then."""
    assert not any(silence(200, lambda k: () if k in (0, 1, 5, 20, 21, 60, 61, 62, 140) else {2}))


def test_who_is_gone_for_an_hour_is_forgotten():
    """It was taken away on purpose."""
    found = silence(100, lambda k: {2} if k >= 40 else (), step_s=120.0)
    gone = [k for k, names in enumerate(found) if names]
    assert gone[-1] <= 39 + FORGET_S / 120 + 1
    assert gone[0] == 44


def test_it_tells_since_when():
    """The onset is the last sign of life."""
    detector = Absence()
    for k in range(60):
        found = detector.observe(frame(T0 + 10 * k, [1, 1, 1 if k < 40 else np.nan, 1, 1, 1], ENTITIES))
    assert (found[0].onset, found[0].name, found[0].signal) == (T0 + 390, "absent", -1)
    assert found[0].text == "silent for 200 s; it used to report every 10 s"


# ------------------------------------------------------------------------------------------------ logs
def logged(plan, learn=True):
    """Anomalies of each tick; plan[k] holds the lines of service//a in tick k."""
    of, detector = signals("service//a x"), Logs()
    said = [tuple(LogLine(T0 + 10 * k, "service//a", text) for text in lines) for k, lines in enumerate(plan)]
    return [detector.observe(frame(T0 + 10 * k, [1.0], of, learn, lines=lines)) for k, lines in enumerate(said)]


CALM = [["INFO ok"]] * (READY_TICKS + 10)


def test_a_burst_of_errors_is_reported_with_a_line_of_it():
    """Twenty where there were none."""
    found = logged([*CALM, ["ERROR disk full"] * 20])
    assert not any(found[:-1])
    [a] = found[-1]
    assert (a.entity, a.name, a.value) == ("service//a", "log_errors", 20.0)
    assert a.text == "20 error lines in one tick (0 usual), new error: ERROR disk full"


def test_the_usual_errors_are_left_alone():
    """Two in each tick, then two again; never a burst."""
    assert not any(logged([["ERROR timeout 17 ms", "ERROR timeout 18 ms"]] * 80))


def test_a_new_kind_of_error_weighs_more_than_a_known_one():
    """The same number of lines, of a text that was there before and of one that was not."""
    known = [["ERROR a 1"]] * 60
    [again], [new] = (logged([*known, lines * 12])[-1] for lines in (["ERROR a 2"], ["ERROR b"]))
    assert new.p_value == pytest.approx(again.p_value / 10)


@pytest.mark.parametrize(("text", "expected"), [
    ("2026-01-01 ERROR x", True), ("java.lang.NullPointerException: y", True), ("OutOfMemoryError", True),
    ("level=error msg=z", True), ("panic: runtime", True), ("INFO 0 terrors", False), ("GET /errors 200", False), ("", False)])
def test_what_speaks_of_an_error(text, expected):
    """Level words and exceptions; not every word that holds one."""
    assert is_error(text) == expected


MIXED = [["INFO ok", f"INFO took {k} ms"] for k in range(100)]


def test_a_burst_of_one_kind_of_line_is_reported() -> None:
    """A note that comes forty times as often, while nothing is an error."""
    [*before, found] = logged([*MIXED, ["INFO ok", *["INFO took 7 ms"] * 40]])
    assert not any(before)
    [a] = found
    assert (a.name, a.value, a.expected) == ("log_burst", 40.0, pytest.approx(1.0))
    assert a.text == "40 lines of one kind in one tick (1 usual): INFO took 7 ms"


def test_what_always_comes_in_bursts_is_no_burst() -> None:
    """Its own spread is what counts."""
    plan = [["INFO ok", *["INFO flushed 3 rows"] * (40 if k % 7 == 0 else 1)] for k in range(200)]
    assert not any(logged(plan))


def test_a_kind_of_line_that_stopped_is_reported_while_others_come() -> None:
    """Since when, and how often it used to come; no more after half an hour. At first it no longer follows the other."""
    found = logged([*MIXED, *[["INFO ok"]] * 300])
    assert not any(found[:100]) and {a.name for step in found[100:105] for a in step} == {"log_missing"}
    said = [a for step in found[105:130] for a in step]
    said = [a for a in said if a.name != "log_missing"]
    assert {a.name for a in said} == {"log_stopped"} and len(said) >= 15
    assert (said[-1].onset, said[-1].text) == (T0 + 990, "not logged for 300 s, else every 10 s: INFO took <*> ms")
    assert not any(found[-100:])


def test_a_kind_of_line_that_was_never_there_is_reported() -> None:
    """After a thousand ticks without news, once; it is known from then on, and over a restart."""
    detector, of = Logs(), signals("service//a x")

    def step(k: int, *texts: str) -> list[str]:
        lines = [LogLine(T0 + 10 * k, "service//a", text) for text in ("INFO ok", *texts)]
        return [f"{a.name} {a.p_value:.2g} {a.text}" for a in detector.observe(frame(T0 + 10 * k, [1.0], of, lines=lines))]
    said = [step(k, *["INFO leader is b"] * (k in (50, 1100, 1101))) for k in range(1301)]
    assert not any(said)
    told = step(1301, "WARN falling back", "INFO leader is a", "ERROR x")
    assert told == ["log_new 0.00083 2 new kinds of line: WARN falling back"]
    again = Logs()
    again.restore(json.loads(json.dumps(detector.state())))
    detector = again
    assert not step(1302, "WARN falling back") and not step(1303, "INFO something else")


def test_an_entity_that_always_has_news_has_none() -> None:
    """New kinds in every tenth tick are what it does; nor is anything new in its first hours."""
    plan = [["INFO ok", *([f"INFO plan {chr(97 + k // 260)}{chr(97 + k // 10 % 26)} for tea"] if k % 10 == 0 else [])]
            for k in range(1500)]
    assert not any(logged(plan))


def test_an_entity_that_logs_less_of_everything_is_no_news() -> None:
    """Neither a night without traffic nor a log that is not read is a kind of line that stopped."""
    night = [line if k % 20 == 0 else [] for k, line in enumerate(MIXED * 2)]
    assert not any(logged([*MIXED, *night, *[[]] * 100, *MIXED]))


def test_what_comes_now_and_then_may_stay_away() -> None:
    """Without a steady habit nothing is missing."""
    plan = [["INFO ok", *(["INFO cleaned up"] if k < 400 and k % 97 < 3 else [])] for k in range(600)]
    assert not any(logged(plan))


def test_the_time_in_which_nobody_listened_is_no_silence() -> None:
    """Over a restart, and over an hour without a tick."""
    of, first = signals("service//a x"), Logs()

    def step(detector, at, *texts):
        return detector.observe(frame(at, [1.0], of, lines=[LogLine(at, "service//a", t) for t in texts]))
    for k, (one, two) in enumerate(MIXED):
        step(first, T0 + 10 * k, one, two)
    second = Logs()
    second.restore(first.state())
    assert not step(second, T0 + 5000, "INFO ok") and not step(first, T0 + 5000, "INFO ok")


def test_an_error_in_a_trace_is_one_error() -> None:
    """Of twenty lines."""
    trace = ["Traceback (most recent call last):", *['  File "a.py", line 3'] * 20, "ValueError: bad"]
    [*before, found] = logged([*CALM, trace * 3])
    assert not any(before)
    assert [a.value for a in found] == [3.0]
    assert found[0].text.endswith("new error: Traceback (most recent call last): ValueError: bad")


def test_the_first_version_is_read() -> None:
    """Rates go on, and the errors it knew are known."""
    old = {"rate": {"service//a": 0.5}, "ticks": {"service//a": 500}, "texts": {"service//a": ["ERROR disk * full"]}}
    detector, of = Logs(), signals("service//a x")
    detector.restore(Logs.migrate(old, 1))
    for text, kind in (("ERROR disk 7 full", "errors"), ("ERROR no route", "new error")):
        [a] = detector.observe(frame(T0, [1.0], of, learn=False, lines=[LogLine(T0, "service//a", text)] * 20))
        assert f"(0.5 usual), {kind}: {text}" in a.text
    assert Logs.migrate(old, 0) is None


def test_the_second_version_is_read() -> None:
    """All goes on; only kinds of lines have to be seen again."""
    of, first, second = signals("service//a x"), Logs(), Logs()
    for k in range(50):
        first.observe(frame(T0 + k, [1.0], of, lines=[LogLine(T0 + k, "service//a", "ERROR x")]))
    new = first.state()
    old = {**new, "entities": {name: row[:5] for name, row in new["entities"].items()}}
    second.restore(Logs.migrate(old, 2))
    assert {name: row[:5] for name, row in second.state()["entities"].items()} == old["entities"]


def test_who_was_silent_for_longest_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pods come and go for ever; the newest are watched."""
    monkeypatch.setattr("detectors.logs.MAX_ENTITIES", 10)
    of, detector = signals("service//a x"), Logs()
    for k in range(100):
        detector.observe(frame(T0 + k, [1.0], of, lines=[LogLine(T0, f"pod//{k}", "x"), LogLine(T0, "pod//stays", "x")]))
    assert set(detector.state()["entities"]) == {f"pod//{k}" for k in range(91, 100)} | {"pod//stays"}


def test_the_bound_is_never_below_the_poisson_tail():
    """Compared with the sum that it bounds."""
    from math import exp, factorial
    for rate in (0.05, 1.0, 7.5):
        for count in range(30):
            exact = 1 - sum(exp(-rate) * rate**i / factorial(i) for i in range(count))
            assert poisson_tail(count, rate) >= exact - 1e-12
