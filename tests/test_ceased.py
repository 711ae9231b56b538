"""Calls that are made no more, by somebody who goes on calling others."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import STEP_S, T0

from aiops.callends import call_ends
from aiops.types import Frame, Signal
from detectors.ceased import GIVE_UP, LEAST_P, LEAST_RUN, READY, Ceased

NAN = float("nan")


def calls(*callees: str, resource: str = "latency") -> tuple[Signal, ...]:
    """One signal each, of the shop's calls."""
    return tuple(Signal(k, "service/x/shop", "took", f'from="shop",to="{to}"', "seconds", "up", resource=resource)
                 for k, to in enumerate(callees))


def told(rows, signals=None, learn: bool = True):
    """Who is said to be called no more, by tick."""
    signals, detector = signals or calls("bank", "mail", "stock"), Ceased()
    frames = (Frame(T0 + STEP_S * k, np.array(row), np.full(len(row), learn), signals) for k, row in enumerate(rows))
    return [list(detector.observe(f)) for f in frames]


USUAL, CEASED = [1.0, 1.0, 1.0], [1.0, NAN, 1.0]
BEFORE = [USUAL] * (2 * READY)


def test_a_call_that_is_left_out_while_others_are_made_is_told_of_the_caller():
    """From the second tick on, surer with each, since the first; and no more once it is made again."""
    *_, first, second, third, after = told([*BEFORE, CEASED, CEASED, CEASED, USUAL])
    assert first == after == []
    [one], [other] = second, third
    assert (one.entity, one.name, one.onset) == ("service/x/shop", 'calls_ceased{to="service/x/mail"}', T0 + STEP_S * len(BEFORE))
    assert LEAST_P <= other.p_value < one.p_value < 1e-3
    assert "service/x/mail" in one.text


def test_a_count_of_zero_is_no_call():
    """Where calls are counted, none is a number."""
    rows = [*BEFORE, *[[1.0, 0.0, 1.0]] * LEAST_RUN]
    assert told(rows, calls("bank", "mail", "stock", resource="traffic"))[-1]
    assert not told(rows)[-1]


@pytest.mark.parametrize("rows", [
    [*BEFORE, *[[NAN, NAN, NAN]] * 20],
    [*[USUAL] * (READY - 1), *[CEASED] * LEAST_RUN],
    [*[USUAL, CEASED] * (2 * READY), *[CEASED] * 3],
    [*[CEASED] * 100],
])
def test_it_is_silent_otherwise(rows):
    """Nothing is heard of the caller, too little is known, it is left out every other time, it never was made."""
    assert not any(told(rows))


def test_who_makes_one_call_only_says_nothing():
    """He may be idle."""
    assert not any(told([*[[1.0]] * 100, *[[NAN]] * 20], calls("bank")))


def test_another_callers_calls_say_nothing_of_this_one():
    """Each is compared with himself."""
    other = Signal(1, "service/x/b", "took", 'from="b",to="mail"', "seconds", "up", resource="latency")
    assert not any(told([*[[1.0, 1.0]] * 100, *[[1.0, NAN]] * 20], (calls("bank")[0], other)))


def test_what_stays_away_is_how_things_are_now():
    """After an hour or so of it nothing is told any more."""
    found = told([*BEFORE, *[CEASED] * (3 * GIVE_UP)])
    assert found[len(BEFORE) + GIVE_UP - 2] and not any(found[len(BEFORE) + GIVE_UP:])


def test_both_ends_of_a_call_are_read_off_its_labels():
    """In the namespace of who tells of it; never of a call to oneself, or of torn labels."""
    assert call_ends("service/x/a", 'client="a",server="b"') == ("service/x/a", "service/x/b")
    assert call_ends("service//a", 'from="a",to="a"') is call_ends("service//a", 'from="a",to="') is call_ends("a", "") is None
