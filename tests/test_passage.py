"""The time to zero: against the inverse Gaussian, against simulation, and at the edges of what numbers can be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import invgauss

from aiops import passage
from aiops.passage import Fall

KNOWN = 1e12  # a window after which the drift is known
SURE = 1e6  # degrees of freedom with which the variance is


def fall(room=1.0, drift=0.1, variance=0.05, window=KNOWN, df=SURE, noise=0.0, veer=0.0, shape=(1,)):
    return Fall(*(np.full(shape, x, np.float64) for x in (room, drift, variance, window, df, noise, veer)))


@pytest.mark.parametrize(("room", "drift", "variance"), [(1.0, 0.1, 0.05), (5.0, 0.1, 0.001), (0.1, 2.0, 3.0)])
def test_a_known_drift_gives_the_inverse_gaussian(room, drift, variance):
    """Mean room / drift, shape room squared / variance."""
    t = np.geomspace(0.1, 1000, 40)
    mean, shape = room / drift, room**2 / variance
    expected = invgauss.cdf(t, mean / shape, scale=shape)
    assert passage.reached(t, room, drift, variance, KNOWN) == pytest.approx(expected, abs=1e-9)


def test_an_unknown_drift_gives_the_share_of_simulated_walks():
    """Drift drawn anew for each walk, as uncertain as a window of 20 s leaves it."""
    r, n, dt = np.random.default_rng(0), 20_000, 0.01
    drift = r.normal(0.1, np.sqrt(0.05 / 20.0), n)
    left, lowest = np.full(n, 1.0), np.full(n, 1.0)
    share = {}
    for k in range(1, 1001):
        left -= drift * dt + np.sqrt(0.05 * dt) * r.standard_normal(n)
        lowest = np.minimum(lowest, left)
        share[k] = np.mean(lowest <= 0)
    for k in (200, 500, 1000):
        # a walk that is only looked at every 0.01 s overlooks some touches
        assert share[k] - 0.01 < passage.reached(np.array(k * dt), 1.0, 0.1, 0.05, 20.0) < share[k] + 0.02


@settings(max_examples=200, deadline=None, derandomize=True)
@given(room=st.floats(0, 1e30), drift=st.floats(-1e30, 1e30), variance=st.floats(0, 1e60), window=st.floats(1, 1e9),
       veer=st.floats(0, 1e57))
def test_it_is_a_probability_that_rises_with_time(room, drift, variance, window, veer):
    """Whatever the figures, and without a warning."""
    veering = passage.reached(np.geomspace(1e-3, 3e8, 50), room, drift, variance, window, veer)
    assert np.all((veering >= 0) & (veering <= 1))
    p = passage.reached(np.geomspace(1e-3, 3e8, 50), room, drift, variance, window)
    assert np.all((p >= 0) & (p <= 1))
    if drift >= 0:
        assert np.all(np.diff(p) >= -1e-6)


def test_a_drift_that_wanders_gives_the_share_of_simulated_walks():
    """The drift walks at random itself; near the middle of the times, to a few per cent."""
    r, n, dt, veer = np.random.default_rng(0), 20_000, 0.05, 1e-4
    drift, left, lowest = np.full(n, 0.1), np.full(n, 1.0), np.full(n, 1.0)
    for _ in range(200):
        drift += np.sqrt(veer * dt) * r.standard_normal(n)
        left -= drift * dt + np.sqrt(1e-4 * dt) * r.standard_normal(n)
        lowest = np.minimum(lowest, left)
    expected = passage.reached(np.array(10.0), 1.0, 0.1, 1e-4, 1e4, veer * 10 / 3 / (1000 + 10 / 3))
    assert np.mean(lowest <= 0) == pytest.approx(expected, abs=0.05)


def test_a_drift_that_may_change_widens_the_interval_to_both_sides():
    """And never shortens it; a forecast for longer than was seen is no wider for it."""
    still, veering = (passage.quantiles(fall(variance=1e-4, window=20.0, veer=v))[:, 0] for v in (0.0, 5e-5))
    assert veering[0] < 0.95 * still[0] and veering[2] > 1.1 * still[2]
    assert veering[1] == pytest.approx(still[1], rel=0.1)


def test_quantiles_are_where_the_chance_is_reached():
    """And later for later shares."""
    early, middle, late = passage.quantiles(fall())[:, 0]
    assert early < middle < late
    for t, share in ((early, 0.05), (middle, 0.5), (late, 0.95)):
        assert passage.reached(np.array(t), 1.0, 0.1, 0.05, KNOWN) == pytest.approx(share, abs=0.005)


@pytest.mark.parametrize("doubt", [{"df": 4.0}, {"window": 5.0}, {"noise": 0.2}])
def test_whatever_is_less_known_widens_the_interval(doubt):
    """Variance, drift, and what is left."""
    narrow, wide = (passage.quantiles(f)[:, 0] for f in (fall(), fall(**doubt)))
    assert wide[0] < narrow[0]
    assert wide[2] > narrow[2]


def test_what_does_not_wander_runs_out_on_time():
    """A straight line has no interval."""
    assert passage.quantiles(fall(variance=0.0))[:, 0] == pytest.approx([10.0, 10.0, 10.0], rel=0.01)
    assert passage.lasts(fall(variance=0.0), np.array([9.99])) == pytest.approx(1.0)
    assert passage.lasts(fall(variance=0.0), np.array([10.01])) == pytest.approx(0.0)


def test_what_rises_may_never_run_out():
    """No time is given for what is reached with less than the chance asked for."""
    times = passage.quantiles(fall(drift=-0.1, variance=0.001))
    assert np.all(np.isinf(times))


def test_opinions_are_averaged_and_silence_is_none():
    """One of two windows knows nothing: the other decides. None does: never."""
    one = fall(shape=(1, 1))
    both = Fall(*(np.concatenate([x, np.full((1, 1), np.nan)]) for x in (getattr(one, n) for n in Fall.__slots__)))
    assert passage.quantiles(both) == pytest.approx(passage.quantiles(one))
    none = Fall(*(np.full((2, 1), np.nan) for _ in Fall.__slots__))
    assert np.all(np.isinf(passage.quantiles(none)))


def test_the_chance_to_last_is_what_remains():
    """One less the chance to have reached zero, with all doubts in it."""
    gone = passage.reached(np.array(10.0), 1.0, 0.1, 0.05, KNOWN)
    assert passage.lasts(fall(), np.array([10.0])) == pytest.approx(1 - gone, abs=1e-3)
    sure, unsure = (passage.lasts(f, np.array([15.0])) for f in (fall(variance=0.01), fall(variance=0.01, df=4.0)))
    assert unsure > sure
