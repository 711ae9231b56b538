"""From counted incidents to the rate that each level would cost, and back from a budget to a level."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiops import curve
from aiops.curve import CEILING, Record
from aiops.ladder import RUNGS

DAY_S = 86_400.0
BUDGET = 1 / DAY_S
THEORY = 8.0
NONE = np.zeros(len(RUNGS))


def counted(heights, days, level=1e9, paged_above=math.inf):
    """A record of incidents that went so high, all watched at this level."""
    record = Record(30 * DAY_S)
    record.watch(days * DAY_S, level)
    for height in heights:
        opened = ((height >= RUNGS) & (level >= RUNGS)).astype(float)
        record.count(opened, opened if height > paged_above else NONE, level)
    return record


def level(record, budget=BUDGET, false_share=1.0):
    return curve.level(record.rates(budget, THEORY, false_share), budget)


def test_before_anything_was_counted_the_level_is_that_of_theory_and_falls_with_quiet_time():
    """An hour without any incident says little, a month of it that the level may be low."""
    levels = [level(counted([], days)) for days in (0.0, 1 / 24, 1.0, 30.0)]
    assert levels[0] == pytest.approx(THEORY)
    assert levels == sorted(levels, reverse=True) and levels[-1] < THEORY - 3.0


@pytest.mark.parametrize("mean", [1.0, 4.0, 12.0])
def test_exponential_excursions_give_the_level_that_they_are_known_to_need(mean):
    """Twenty a day, of this mean height in nats: ln 20 times the mean above the lowest rung is what lets one a day through."""
    rng = np.random.default_rng(5)
    heights = RUNGS[0] + rng.exponential(mean, 20 * 60)
    assert level(counted(heights, 60)) == pytest.approx(RUNGS[0] + mean * math.log(20), rel=0.12)


def test_beyond_the_highest_that_was_seen_the_curve_goes_on_and_is_careful():
    """A tenth and a hundredth of the budget lead higher, by more than exponential tails would ask for."""
    rng = np.random.default_rng(6)
    record = counted(RUNGS[0] + rng.exponential(3.0, 600), 60)
    one, tenth, hundredth = (level(record, BUDGET * share) for share in (1.0, 0.1, 0.01))
    assert tenth - one > 0.8 * 3.0 * math.log(10)
    assert hundredth - tenth > 3.0 * math.log(10)
    assert hundredth < CEILING


def test_a_level_that_was_not_watched_is_not_taken_for_a_quiet_one():
    """Watched at 6 nats only, half of what is seen there would go on as it does below: not nothing."""
    heights = RUNGS[0] + np.random.default_rng(7).exponential(4.0, 1200)
    full, cut = (counted(heights, 60, at).rates(BUDGET, THEORY, 1.0) for at in (1e9, 6.0))
    k = int(np.searchsorted(RUNGS, 9.0))
    assert 0.4 < cut[k] / full[k] < 2.5


def test_what_people_call_useful_lowers_the_level():
    """Incidents that were paged count as far as they are believed to be false."""
    record = counted(np.repeat([4.0, 20.0], [30, 60]), 30, paged_above=15.0)
    levels = [level(record, false_share=share) for share in (1.0, 0.5, 0.0)]
    assert levels == sorted(levels, reverse=True) and levels[0] > levels[2] + 5.0


def test_what_was_counted_is_forgotten():
    """A memory later it counts for 1/e, and what the theory says for no less than an hour."""
    record = counted([9.0] * 10, 10)
    record.forget(30 * DAY_S)
    assert record.opened[0, 0] == pytest.approx(10 / math.e) and record.seconds[0] == pytest.approx(10 * DAY_S / math.e)
    record.forget(1e9)
    assert record.theory_s == curve.LEAST_THEORY_S


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.floats(0.0, 1e4), max_size=40), st.floats(0.0, 1e4), st.floats(3.0, 120.0), st.floats(0.0, 1.0),
       st.floats(1e-9, 1e3))
def test_whatever_was_counted_the_curve_falls_and_leads_to_a_level(heights, days, at_level, false_share, per_day):
    """Above zero everywhere; the level is within its bounds; rate and level are each other's inverse."""
    record, budget = counted(heights, days, at_level, paged_above=30.0), per_day / DAY_S
    rates = record.rates(budget, THEORY, false_share)
    assert np.isfinite(rates).all() and (rates > 0).all() and (np.diff(rates) <= 0).all()
    found = curve.level(rates, budget)
    assert RUNGS[0] <= found <= CEILING
    if RUNGS[0] < found < CEILING:
        assert curve.rate(rates, found) == pytest.approx(budget, rel=1e-6)


def test_a_record_survives_a_restart_bit_for_bit():
    """Through JSON; both count on and agree."""
    one, two = counted([5.0, 9.0, 40.0], 3, 12.0, paged_above=10.0), Record(30 * DAY_S)
    two.restore(json.loads(json.dumps(one.state())))
    for record in (one, two):
        record.forget(DAY_S / 3)
        record.count((RUNGS <= 7.0).astype(float), NONE, 12.0)
    assert one.state() == two.state()
    assert one.rates(BUDGET, THEORY, 1.0).tolist() == two.rates(BUDGET, THEORY, 1.0).tolist()
