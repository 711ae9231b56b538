"""The recent past: what was put in comes out in order, within a fixed budget of memory."""

from __future__ import annotations

import numpy as np
import pytest

from aiops.history import BUDGET, MAX_TICKS, MIN_TICKS, History


def put(history, at, values):
    x = np.asarray(values, float)
    history.add(at, x, x + 1, np.full(len(x), 0.5))


def test_a_column_comes_back_oldest_first():
    """Times, values, expected values and half-widths."""
    history = History()
    for k in range(5):
        put(history, 10.0 * k, [k, 100 + k])
    times, values, expected, width = history.column(1)
    assert (times.tolist(), values.tolist()) == ([0, 10, 20, 30, 40], [100, 101, 102, 103, 104])
    assert (expected.tolist(), width.tolist()) == ([101, 102, 103, 104, 105], [0.5] * 5)


def test_a_column_may_begin_later():
    """Only what is asked for, ticks without a value left out."""
    history = History()
    for k, x in enumerate([1, np.nan, 3, 4]):
        put(history, 10.0 * k, [x])
    assert history.column(0, since=10.0)[1].tolist() == [3, 4]


def test_the_oldest_ticks_are_forgotten():
    """The ring keeps as many as it is deep."""
    history = History()
    for k in range(MAX_TICKS + 7):
        put(history, float(k), [k])
    values = history.column(0)[1]
    assert (len(values), values[0], values[-1]) == (MAX_TICKS, 7, MAX_TICKS + 6)


def test_new_signals_have_no_past():
    """And the old ones keep theirs."""
    history = History()
    put(history, 0.0, [1])
    put(history, 1.0, [2, 20])
    assert history.column(0)[1].tolist() == [1, 2]
    assert history.column(1)[1].tolist() == [20]


@pytest.mark.parametrize("signal", [0, 5])
def test_nothing_known_is_an_empty_column(signal):
    """Before the first tick, and for signals that never were."""
    history = History()
    assert [len(x) for x in history.column(signal)] == [0] * 4
    put(history, 0.0, [1])
    assert [len(x) for x in history.column(7)] == [0] * 4


def test_many_signals_make_it_shallow_and_keep_the_newest():
    """The budget holds for any number of signals; the newest ticks survive the cut, in order."""
    history = History()
    for k in range(100):
        put(history, float(k), [k])
    many = BUDGET // MIN_TICKS
    put(history, 100.0, np.full(many, 100.0))
    assert history.depth == MIN_TICKS
    for k in range(101, 110):
        put(history, float(k), np.full(many, float(k)))
    values = history.column(0)[1]
    assert values.tolist() == list(range(110 - len(values), 110))
    assert len(values) == history.depth
    assert len(history.column(many - 1)[1]) == 10
