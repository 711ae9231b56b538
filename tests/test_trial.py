"""The rule by which a candidate takes over: counts, bounds, and what counts as having found an incident."""

from __future__ import annotations

import json
import math

import pytest
from helpers import T0, anomaly, frame, signals

from aiops.trial import LEAST_S, MOST_ENTITIES, REST_S, Episodes, Trial, poisson_upper, ready_enough

OF = signals("service//a x", "service//b y")


def at(t, held=()):
    return frame(T0 + t, (1.0, 1.0), OF, [s.entity not in held for s in OF])


def said(t, key="service//a x"):
    return [anomaly(T0 + t, key, 1e-6)]


def exact_upper(count):
    """The mean at which `count` or fewer have a chance of 5 %, by bisection."""
    low, high = 0.0, 10.0 * count + 10.0
    for _ in range(100):
        m = (low + high) / 2
        chance = math.fsum(math.exp(-m + k * math.log(m) - math.lgamma(k + 1)) for k in range(count + 1))
        low, high = (m, high) if chance > 0.05 else (low, m)
    return low


@pytest.mark.parametrize("count", [0, 1, 2, 5, 17, 100, 400])
def test_the_bound_is_that_of_the_poisson_interval(count):
    """Within one per cent of the exact one."""
    assert poisson_upper(count) == pytest.approx(exact_upper(count), rel=0.01)


def test_what_lasts_or_comes_back_soon_counts_once():
    """And is over five minutes after it was last said."""
    e = Episodes()
    for t in range(0, 600, 10):
        e.add(at(t), said(t) if t < 300 else ())
    assert e.count == 0
    e.add(at(290 + REST_S + 1), ())
    assert e.count == 1
    e.add(at(2000), said(2000))
    e.add(at(2000 + REST_S - 1), said(2000 + REST_S - 1))
    e.add(at(9000), ())
    assert e.count == 2


def test_signals_are_counted_each():
    """Two of one entity, one of another."""
    e = Episodes()
    e.add(at(0), [*said(0), *said(0, "service//a z"), *said(0, "service//b y")])
    e.add(at(1000), ())
    assert e.count == 3


@pytest.mark.parametrize("when", [0, 100, 299])
def test_what_became_an_incident_is_not_quiet_time(when):
    """Held at the time, or soon after: before an incident opens its entity is not held yet."""
    e = Episodes()
    e.add(at(0, ("service//a",) if when == 0 else ()), [*said(0), *said(0, "service//b y")])
    e.add(at(when + 1, ("service//a",)), ())
    e.add(at(1000), ())
    assert e.count == 1


def test_counts_survive_a_restart_in_the_middle_of_an_episode():
    """As JSON."""
    trial = Trial()
    trial.begin(T0)
    trial.watch(at(0), said(0), said(0, "service//b y"))
    again = Trial()
    again.restore(json.loads(json.dumps(trial.state())))
    for t in (trial, again):
        t.watch(at(1000), (), ())
    assert again.state() == trial.state()
    assert (again.serving.count, again.candidate.count) == (1, 1)


@pytest.mark.parametrize(("serving", "candidate", "better"), [(0, 2, True), (0, 3, False), (10, 16, True), (10, 17, False),
                                                              (10, 0, True)])
def test_a_few_more_may_be_chance_and_many_are_not(serving, candidate, better):
    """At most the upper end of the interval."""
    trial = Trial()
    trial.begin(T0)
    trial.serving.count, trial.candidate.count = serving, candidate
    verdict = trial.verdict(T0 + LEAST_S)
    assert verdict.better is better
    assert f"{candidate} anomalies on quiet time against {serving}" in verdict.text


def test_it_is_judged_once_a_day():
    """On everything since it began."""
    trial = Trial()
    assert trial.judge(T0 + 1e9) is None, "nothing began yet"
    trial.begin(T0)
    assert [trial.judge(T0 + h * 3600.0) is not None for h in (1, 23, 24, 25, 47, 48, 49)] == [
        False, False, True, False, False, True, False]


def test_what_it_remembers_has_an_end():
    """However many entities speak."""
    trial = Trial()
    trial.begin(T0)
    for t in range(3):
        trial.watch(at(t * 1000), (), [anomaly(T0 + t * 1000, f"pod/x/{t}-{i} m", 1e-6) for i in range(MOST_ENTITIES)])
    assert len(trial._spoke) == MOST_ENTITIES and len(trial.candidate._open) == MOST_ENTITIES


@pytest.mark.parametrize(("serving", "candidate", "ready"), [
    (100, 95, True), (100, 94, False), (0, 0, True), (None, 0, True), (10, None, True)])
def test_ready_means_95_per_cent_of_what_serves(serving, candidate, ready):
    """A detector that does not say always is."""
    assert ready_enough(serving, candidate) is ready
