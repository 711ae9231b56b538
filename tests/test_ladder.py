"""The ladder says what every other alarm level would have paged: compared with a plain simulation of each level alone."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiops import ladder
from aiops.ladder import CAP_SHARE, NO_SIGNAL, QUIET_S, RECOVER_SHARE, ROUNDED, RUNGS, UNKNOWN, Gain, Ladder

STEP_S = 10.0
WINDOW_S = 360.0
ALL = np.ones(len(RUNGS), np.bool_)
A, B, C = "service//a", "service//b", "service//c"


def gain(entity, nats, column=0, name="x", support=1.0):
    return Gain(f"{entity}|{name}", entity, column, nats, support)


class Run:
    """Ticks of ten seconds; gives back the incidents that were opened, for each rung."""

    def __init__(self, near=None):
        self.ladder, self.near, self.k = Ladder(), near or {}, 0

    def tick(self, *gains, seen=ALL, held=frozenset(), paged=frozenset(), values=(1.0, 1.0, 1.0)):
        at, self.k = self.k * STEP_S, self.k + 1
        if gains:
            self.ladder.climb(at, gains)
        self.ladder.fall(at, np.array(values), {g.key for g in gains})
        self.ladder.page(g.key for g in gains if g.entity in paged)
        return self.ladder.incidents(at, STEP_S, seen, held, set(paged), lambda e: self.near.get(e, ()))[0]

    def ticks(self, count, *gains, **more):
        return sum(self.tick(*gains, **more) for _ in range(count))


def alone(level, samples):
    """One level by itself, as aiops.alerting does it: how many times an alert begins more than a window after the last."""
    share, on, last, opened = 0.0, False, -math.inf, 0
    for k, nats in enumerate(samples):
        if nats > 0:
            share = min(share + min(nats / level, CAP_SHARE), 1.0 + 1.0 / level)
            on = on or share >= 1.0
        else:
            share = max(min(share, 1.0 if on else share) - RECOVER_SHARE, 0.0)
            share *= share > ROUNDED
            on = on and share > 0.0
        if on:
            opened += k * STEP_S - last > WINDOW_S
            last = k * STEP_S
    return opened


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.floats(0.1, 60.0), st.integers(1, 9), st.integers(0, 50)), max_size=6))
def test_each_rung_counts_what_that_level_alone_would_have_paged(bursts):
    """Bursts of any height and length, and pauses between them that are shorter and longer than the window."""
    samples = [nats for height, odd, calm in bursts for nats in [height] * odd + [0.0] * calm]
    run = Run()
    counted = sum((run.tick(*([gain(A, nats)] if nats else [])) for nats in samples), np.zeros(len(RUNGS)))
    assert counted.tolist() == [alone(level, samples) for level in RUNGS]


def test_one_sample_opens_nothing_at_any_level():
    """However improbable: two are needed."""
    run = Run()
    assert not run.tick(gain(A, 1e6)).any()
    assert run.tick(gain(A, 1e6)).all()


def test_support_raises_what_a_sample_adds():
    """By the same factor at every level."""
    run = Run()
    run.tick(gain(A, 2.0), gain(B, 2.0, support=1.5))
    alone_, supported = run.ladder.share[0], run.ladder.share[1]
    assert np.allclose(supported, 1.5 * alone_)


def test_what_is_far_apart_in_time_or_in_the_graph_is_counted_twice_and_the_rest_once():
    """Two entities, neighbours or not; one entity with two signals; the same one again within the window and after it."""
    odd = [gain(A, 50.0), gain(B, 50.0)]
    assert Run().ticks(5, *odd)[0] == 2.0
    assert Run(near={A: [B], B: [A]}).ticks(5, *odd)[0] == 1.0
    assert Run().ticks(5, gain(A, 50.0), gain(A, 50.0, name="y"))[0] == 1.0
    for pause, incidents in ((20, 1.0), (60, 2.0)):
        run = Run()
        assert (run.ticks(5, odd[0]) + run.ticks(pause) + run.ticks(5, odd[0]))[0] == incidents


def test_a_neighbour_that_comes_later_belongs_to_the_incident():
    """As long as it has not been over for longer than the window."""
    near = {A: [B], B: [A]}
    for pause, incidents in ((5, 1.0), (60, 2.0)):
        run = Run(near)
        assert (run.ticks(5, gain(A, 50.0)) + run.ticks(pause) + run.ticks(5, gain(B, 50.0)))[0] == incidents


def test_levels_above_the_one_in_force_and_entities_in_incidents_are_not_counted():
    """What comes after something was paged is not known at a level that would not have paged it."""
    seen = RUNGS <= 6.0
    counted = Run().ticks(5, gain(A, 50.0), seen=seen)
    assert counted[seen].all() and not counted[~seen].any()
    assert not Run().ticks(5, gain(A, 50.0), held=frozenset({A})).any()


def test_what_was_counted_first_and_paged_later_moves():
    """From the incidents nobody was told of to those that somebody was; once, and only at the rungs that had counted it."""
    ladder_ = Ladder()

    def step(at, nats, paged):
        ladder_.climb(at, [gain(A, nats)])
        return ladder_.incidents(at, STEP_S, ALL, frozenset(), paged, lambda e: ())

    opened = sum(step(k * STEP_S, 2.0, set())[0] for k in range(3))
    _, moved = step(30.0, 2.0, {A})
    assert moved[opened > 0].all() and not moved[RUNGS > 9.0].any()
    assert not step(40.0, 2.0, {A})[1][opened > 0].any()


def test_silence_is_no_recovery_for_a_while():
    """NaN keeps a row where it is for five minutes, then it falls; what is about no signal falls at once."""
    run = Run()
    run.ticks(3, gain(A, 50.0), gain(B, 50.0, column=NO_SIGNAL), gain(C, 50.0, column=UNKNOWN))
    silent = [math.nan] * 3
    run.ticks(8, values=silent)
    assert [run.ladder.highest(f"{e}|x") > 0 for e in (A, B, C)] == [True, False, True]
    run.ticks(int(QUIET_S / STEP_S) + 8, values=silent)
    assert run.ladder.highest(f"{A}|x") == run.ladder.highest(f"{C}|x") == 0.0


def test_it_says_how_high_what_ended_unpaged_had_been():
    """That is what the habit of a signal is learned from."""
    ladder_ = Ladder()
    for k, nats in enumerate((2.0, 2.0, 2.0)):
        ladder_.climb(k * STEP_S, [gain(A, nats), gain(B, nats)])
    ladder_.page([f"{B}|x"])
    gone = [g for k in range(3, 15) for g in ladder_.fall(k * STEP_S, np.ones(1), ())]
    assert [(g.key, g.nats) for g in gone] == [(f"{A}|x", float(RUNGS[RUNGS <= 6.0].max()))]


def test_rows_are_used_again_and_there_is_an_end_to_them(monkeypatch):
    """A storm over more rows than there is room for is counted as far as it goes, and the rest is left out."""
    monkeypatch.setattr(ladder, "MAX_ROWS", 100)
    run = Run()
    for storm in range(5):
        opened = run.ticks(3, *(gain(f"pod//{storm}-{i}", 50.0, NO_SIGNAL) for i in range(150)))
        assert opened[0] == 100.0
        run.ticks(60)
        assert run.ladder.state() == {"keys": {}, "entities": {}}
    assert len(run.ladder.share) <= 200 and len(run.ladder.last) <= 200


def test_it_goes_on_after_a_restart_as_if_there_had_been_none():
    """Bit for bit, through JSON, with columns that have other numbers now; a column that is gone counts as silent."""
    rng = np.random.default_rng(3)
    odd = [[gain(e, float(rng.exponential(6.0)), c) for c, e in enumerate((A, B, C)) if rng.random() < 0.6] for _ in range(300)]
    straight, before, after = Run(), Run(), Run()
    for gains in odd[:150]:
        straight.tick(*gains)
        before.tick(*gains)
    after.k = before.k
    after.ladder.restore(json.loads(json.dumps(before.ladder.state())))
    after.ladder.find_columns({f"{A}|x": 2, f"{B}|x": 1, f"{C}|x": 0})
    for gains in odd[150:]:
        moved = [g._replace(column=2 - g.column) for g in gains]
        assert after.tick(*moved).tolist() == straight.tick(*gains).tolist()
    after.ladder.find_columns({})
    assert (after.ladder.column[list(after.ladder._keys.of.values())] == UNKNOWN).all()


@pytest.mark.parametrize("nats", [0.0, 5e-324, 1e300, math.inf])
def test_any_amount_of_evidence_is_a_number(nats):
    """No warning, and shares stay between nothing and a little more than the level."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = Run()
        run.ticks(5, gain(A, nats))
    assert np.isfinite(run.ladder.share).all() and run.ladder.share.max() < 1.5
