"""Signals that were seen a few times only."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import STEP_S, T0

from aiops.types import Frame, Signal
from detectors.young import FEWEST, LEAST_P, READY, SETTLED_TICKS, Young

GAP = Signal(0, "service//a", "gap", unit="seconds", direction="up", min_abs=0.02, min_rel=0.5, resource="latency")
MEMORY = Signal(1, "service//a", "bytes", unit="bytes", direction="up", min_abs=1.0, resource="memory")


def told(seen: int, last: float, quiet: int = SETTLED_TICKS, usual: float = 0.007, learn: bool = True):
    """What is said of `last` after so many usual samples, which begin when the run is `quiet` ticks old."""
    young, rng = Young(), np.random.default_rng(1)
    values = [np.nan] * quiet + list(usual * (1 + 0.1 * rng.random(seen))) + [last]
    for k, value in enumerate(values):
        row = np.array([value, value])
        found = young.observe(Frame(T0 + STEP_S * k, row, np.full(2, learn or k < quiet), (GAP, MEMORY)))
    return found


def test_a_call_that_takes_forty_times_as_long_is_odd_after_five():
    """Of calls only, and never surer than so few can make it."""
    [one] = told(FEWEST, 0.28)
    assert (one.name, one.detector, one.value) == ("gap", "young", 0.28)
    assert one.p_value == pytest.approx(LEAST_P)
    assert one.expected == pytest.approx(0.0073, abs=3e-4)


@pytest.mark.parametrize(("seen", "last", "quiet"), [
    (FEWEST - 1, 0.28, SETTLED_TICKS), (FEWEST, 0.008, SETTLED_TICKS), (FEWEST, 0.0, SETTLED_TICKS),
    (READY, 0.28, SETTLED_TICKS), (FEWEST, 0.28, 0), (FEWEST, np.nan, SETTLED_TICKS)])
def test_it_is_silent_otherwise(seen, last, quiet):
    """Too few, as usual, in the good direction, old enough for the baseline, a young run, or nothing measured."""
    assert told(seen, last, quiet) == []


def test_what_is_not_to_be_learned_is_not():
    """During an incident the few samples would be those of the fault."""
    assert told(FEWEST, 0.28, learn=False) == []
