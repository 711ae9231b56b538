"""Which signals are judged by now, and why the others are not."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
from helpers import STEP_S, T0, Feed, pipeline

from aiops.masks import Hold
from aiops.readiness import NEEDED, STATES, Facts, Known, counted, of_baseline, page, states
from aiops.readiness import State as Readable
from aiops.types import Batch, Event, Signal
from aiops.web.view import ReadinessState

DAY = 86_400.0


def fed(ticks, values, step_s=STEP_S, **more):
    """A pipeline after so many ticks; `values(k)` gives key -> value."""
    p, feed = pipeline(detectors=("baseline",)), Feed()
    for k in range(ticks):
        p.step(feed.batch(T0 + k * step_s, values(k), **{n: v for n, (at, v) in more.items() if at == k}))
    return p


def told(p, **query):
    _, found = page(p.readiness(), **query)
    return {f"{r.entity} {r.signal}": (r.state, r.reason) for r in found}


def noisy(k):
    return {"service//a x": 1 + 0.01 * (k % 7)}


def test_a_signal_warms_up_and_says_how_far_it_is():
    """Thirty samples, and then it is judged."""
    assert told(fed(12, noisy)) == {"service//a x": ("warming_up", "warming up: 12 of 30 samples")}
    assert told(fed(NEEDED, noisy))["service//a x"][0] == "no_season"


@pytest.mark.slow
def test_without_a_day_of_history_the_time_of_the_day_is_not_known():
    """Judged already, and it says what it has seen."""
    assert told(fed(540, noisy, step_s=60.0))["service//a x"] == (
        "no_season", "judged; the time of the day is not known yet: seen 8 h 59 min of 20 h")
    assert told(fed(1300, noisy, step_s=60.0))["service//a x"] == ("ready", "judged")


def test_what_never_varied_is_told():
    """Any change will stand out."""
    assert told(fed(100, lambda k: {"service//a x": 5.0}))["service//a x"] == (
        "constant", "judged; never seen to vary, so any change stands out")


def test_who_is_held_says_by_what_and_since_when():
    """An incident, here; the other signals go on."""
    p = fed(120, lambda k: {"service//a x": 1 + 0.01 * (k % 7) + 30 * (k >= 110), "service//b x": 1 + 0.01 * (k % 5)})
    said = told(p)
    [incident] = p.book.open()
    state, reason = said["service//a x"]
    assert state == "masked" and reason.endswith(f": incident {incident.id}") and "2001-09-09 02:05" in reason
    assert said["service//b x"][0] == "no_season"


def test_who_is_held_before_it_is_ready_says_both():
    """A pod that was born into a deploy."""
    p = fed(12, noisy, events=(10, (Event(T0 + 100, "service//a", "change", "Deployed"),)))
    assert told(p)["service//a x"][1].endswith("service//a changed; 10 of 30 samples")


def test_a_deploy_is_a_reason_too():
    """With what was deployed."""
    p = fed(50, noisy, events=(49, (Event(T0 + 490, "service//a", "change", "Deployed"),)))
    assert told(p)["service//a x"] == ("masked", "not learned since 2001-09-09 01:54:50 UTC: service//a changed")


def test_silence_is_told_with_its_beginning():
    """After five minutes, or three of its own intervals."""
    p = fed(100, lambda k: {**({"service//a x": 1.0 + k % 2} if k < 50 else {}), "service//b x": 1.0 + k % 2})
    assert told(p)["service//a x"] == ("silent", "nothing reported since 2001-09-09 01:54:50 UTC")
    hourly = fed(40, lambda k: {"service//b x": 1.0 + k % 2, **({"service//a x": 1.0 + k % 3} if k % 4 == 0 else {})},
                 step_s=900.0)
    assert told(hourly)["service//a x"][0] == "warming_up", "an hourly signal is not silent between its samples"


def test_what_never_reported_anything_usable_is_silent():
    """A counter with one sample has no rate."""
    p = fed(1, lambda k: {"service//a hits_total": 1.0})
    assert told(p)["service//a hits_total"][0] in ("silent", "warming_up")
    empty = pipeline(detectors=("baseline",))
    assert page(empty.readiness()) == (0, []) and set(counted(empty.readiness()).values()) == {0}


def test_without_a_baseline_nothing_is_judged():
    """Detectors are a matter of configuration."""
    p, feed = pipeline(detectors=("absence",)), Feed()
    for k in range(50):
        p.step(feed.batch(T0 + k, noisy(k)))
    assert told(p)["service//a x"] == ("warming_up", "warming up: 0 of 30 samples")


def test_counts_and_pages_agree():
    """All states are counted; those that are not ready come first; a page knows how many there are."""
    p = fed(60, lambda k: {f"service//s{j} x": 1 + 0.01 * ((k + j) % 7) for j in range(40 if k > 40 else 20)})
    facts = p.readiness()
    assert counted(facts) == {**dict.fromkeys(STATES, 0), "warming_up": 20, "no_season": 20}
    total, first = page(facts, limit=30)
    assert (total, len(first), [r.state for r in first]) == (40, 30, ["warming_up"] * 20 + ["no_season"] * 10)
    assert page(facts, limit=30, offset=30)[1] == page(facts, limit=100)[1][30:]
    assert page(facts, state="no_season")[0] == 20 and page(facts, entity="S1")[0] == 11 == page(facts, entity="s1")[0]


def test_ready_agrees_with_the_funnel():
    """What is counted as ready is what was seen often enough."""
    p = fed(35, lambda k: {"service//a x": 1 + 0.01 * (k % 7), **({"service//b x": 1.0} if k > 20 else {})})
    young = counted(p.readiness())["warming_up"]
    assert p.counts().ready == p.counts().signals - young == 1


def facts(n, **known):
    of = tuple(Signal(k, f"a//{k}", "x") for k in range(n))
    usual = {"samples": np.full(n, 99.0), "span_s": np.full(n, DAY), "varies": np.ones(n, np.bool_)}
    return Facts(T0, of, np.full(n, T0), np.full(n, 15.0), Known(**{**usual, **known}), {})


def test_the_first_thing_to_know_is_said():
    """A silent signal that is also held and young is silent."""
    f = facts(6)
    f.heard[:2] = (np.nan, T0 - 301)
    f.known.samples[:4] = 3
    f.known.varies[:5] = False
    held = {"a//0": Hold("x", T0), "a//2": Hold("x", T0)}
    assert states(Facts(f.at, f.signals, f.heard, f.interval, f.known, held)) == [
        "silent", "silent", "masked", "warming_up", "constant", "ready"]


@pytest.mark.parametrize("at", [-math.inf, math.nan, 0.0, 1e300])
def test_no_time_breaks_the_answer(at):
    """Before the first step, and with absurd clocks."""
    f = facts(3)
    odd = Facts(at, f.signals, f.heard, f.interval, f.known, {})
    assert len(page(odd)[1]) == 3 and sum(counted(odd).values()) == 3


def test_a_signal_that_came_since_the_arrays_were_made_is_warming_up():
    """Readers do not wait for the step that runs beside them."""
    known = of_baseline(pipeline(detectors=("baseline",))._banded, T0, 4)
    assert known.samples.tolist() == [0.0] * 4 and np.isnan(known.span_s).all()


def test_the_page_and_the_core_know_the_same_states():
    """The HTTP interface may not import the core."""
    assert set(get_args(ReadinessState)) == set(get_args(Readable)) == set(STATES)


def test_a_gross_fault_is_found_right_after_thirty_samples():
    """Cold start: useful within half a minute's worth of samples, without a day of history."""
    p, feed, opened = pipeline(), Feed(), []
    for k in range(36):
        report = p.step(feed.batch(T0 + k * STEP_S, {"service//db app_errors": 1 + 0.1 * (k % 5) + 40 * (k >= 30),
                                                     "service//shop app_latency": 1 + 0.1 * (k % 3)}))
        opened += [k for i in report.incidents if i.opened_at == report.at]
    assert opened and opened[0] - 30 <= 3
    assert p.step(Batch(T0 + 999)).counts.incidents == 1
