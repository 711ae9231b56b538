"""p-values mean what they say: the share of normal samples below p is about p."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import frame, signals

from aiops.calibration import PRIOR_U, TAIL, Tail
from detectors.baseline import Baseline

COLUMNS, TICKS, WARM = 300, 1500, 400
QUIETEST = 1 / 15
"""Measured on normal noise: a p-value of 0.001 comes 12 times too seldom for the tail alone, 6 times in the baseline."""
NOISE = {
    "normal": lambda rng: np.abs(rng.standard_normal(COLUMNS)),
    "exponential": lambda rng: rng.exponential(1.0, COLUMNS),
    "heavy": lambda rng: np.abs(rng.standard_t(3, COLUMNS)),
}


def realised(draw, p_values):
    """Shares of p < 1e-2 and p < 1e-3 after the warm-up."""
    rng, below = np.random.default_rng(0), []
    for k in range(TICKS):
        p = p_values(draw(rng), k)
        if k >= WARM:
            below.append([(p < 1e-2).mean(), (p < 1e-3).mean()])
    return np.mean(below, axis=0)


@pytest.mark.parametrize("kind", NOISE)
def test_the_tail_learns_how_often_scores_are_exceeded(kind):
    """Never three times too often; where the tail is lighter than any Pareto (normal noise) it errs on the quiet side."""
    tail = Tail()
    tail.resize(COLUMNS)

    def p_values(score, k):
        p = tail.p_value(score)
        tail.learn(score, np.ones(COLUMNS, np.bool_))
        return p
    hundredth, thousandth = realised(NOISE[kind], p_values)
    assert 1 / 3 < hundredth / 1e-2 < 3
    assert QUIETEST < thousandth / 1e-3 < 3


@pytest.mark.parametrize("direction", ["up", "both"])
@pytest.mark.parametrize("kind", ["normal", "exponential"])
def test_the_baseline_is_wrong_as_seldom_as_it_says(kind, direction):
    """On noise without any fault, with level and scale learned on the way."""
    names = signals(*(f"a//{i} x" for i in range(COLUMNS)), direction=direction)
    baseline = Baseline()

    def p_values(score, k):
        baseline.observe(frame(1e9 + 15.0 * k, 10 + score, names))
        return baseline.last_p

    def draw(rng):
        return rng.standard_normal(COLUMNS) if kind == "normal" else rng.exponential(1.0, COLUMNS)
    hundredth, thousandth = realised(draw, p_values)
    assert 1 / 5 < hundredth / 1e-2 < 3
    assert QUIETEST < thousandth / 1e-3 < 3


def test_p_values_fall_as_scores_rise():
    """Without a jump where the fitted tail begins, and never below the smallest number that has a logarithm."""
    tail = Tail()
    z = np.concatenate([np.linspace(0.001, 20, 4000), [1e300]])
    tail.resize(len(z))
    p = tail.p_value(z)
    assert np.all(np.diff(p) <= 0)
    assert np.max(np.abs(np.diff(np.log(p[:-1])))) < 0.05
    assert p[-1] > 0


def test_what_is_no_score_is_not_odd():
    """NaN, zero and the good direction have a p-value of one."""
    tail = Tail()
    tail.resize(4)
    assert tail.p_value(np.array([np.nan, 0.0, -5.0, -np.inf])).tolist() == [1.0] * 4


def test_the_band_ends_where_its_p_value_begins():
    """`quantile` is the inverse of `p_value`."""
    tail = Tail()
    tail.resize(3)
    tail.learn(np.array([1.0, 5.0, 9.0]), np.ones(3, np.bool_))
    for p in (1e-2, 1e-3, 1e-6):
        assert tail.p_value(tail.quantile(p, 3)) == pytest.approx([p] * 3)
    assert tail.quantile(TAIL, 3) == pytest.approx(tail.u[:3])


def test_what_is_masked_teaches_nothing():
    """Nor do NaN."""
    tail = Tail()
    tail.resize(3)
    tail.learn(np.array([1e6, np.nan, 2.0]), np.array([False, True, True]))
    assert tail.u[:2].tolist() == [PRIOR_U] * 2
    assert tail.u[2] != PRIOR_U


def test_one_monstrous_score_does_not_blind_it():
    """The next fault, a hundred times the usual, is still told."""
    tail = Tail()
    tail.resize(1)
    rng = np.random.default_rng(1)
    for k in range(500):
        tail.learn(np.abs(rng.standard_normal(1)) if k != 250 else np.array([1e30]), np.ones(1, np.bool_))
    assert tail.p_value(np.array([100.0]))[0] < 1e-4


def test_its_state_goes_on_where_it_stopped():
    """And the copy shares nothing with the original."""
    tail, copy = Tail(), Tail()
    tail.resize(2)
    tail.learn(np.array([4.0, 1.0]), np.ones(2, np.bool_))
    state = tail.state()
    tail.learn(np.array([9.0, 9.0]), np.ones(2, np.bool_))
    copy.restore(state)
    copy.learn(np.array([9.0, 9.0]), np.ones(2, np.bool_))
    assert np.array_equal(copy.p_value(np.full(2, 7.0)), tail.p_value(np.full(2, 7.0)))
