"""The isolation forest: equal to scikit-learn's, over residuals, and able to say which signal it was."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from helpers import STEP_S, T0, Feed, bare_pipeline, frame, frames, meanings, noise, signals
from hypothesis import given, settings
from hypothesis import strategies as st

from aiops import build, meaning, yamlfile
from aiops.alerting import SUPPORTERS
from aiops.policy.load import compile_document
from aiops.types import Frame, Signal
from aiops.yamlfile import Document
from detectors import _forest, _joint, isolation_forest
from detectors._forest import Stack, fitted, flattened, packed, unpacked
from detectors.isolation_forest import FIRST_FIT, WINDOW, IsolationForest

EIGHT = signals(*(f"node//n s{i}" for i in range(8)))
DAY_S = 86_400.0
EDGES = np.array([-32_768, -32_000, -1, 0, 1, 32_000, 32_767], np.int16)


def plain(function):
    """The loop as it is written, not compiled."""
    return getattr(function, "py_func", function)


# ------------------------------------------------------------------------------------------------------------ forests
def some_rows(rng, rows, width, spread):
    """Whole numbers with ties, a constant column and a few at the ends of the range."""
    x = np.clip(rng.normal(0, spread, (rows, width)).round(), -32_768, 32_767).astype(np.int16)
    x[:, 0] = x[0, 0]
    x[rng.integers(rows, size=2), rng.integers(width, size=2)] = rng.choice(EDGES, 2)
    return x


@settings(max_examples=20, deadline=None, derandomize=True)
@given(rows=st.integers(2, 200), width=st.integers(1, 70), seed=st.integers(0, 2**32 - 1), spread=st.sampled_from([0.6, 30, 3e4]))
def test_the_walk_scores_as_scikit_learn_does(rows, width, seed, spread):
    """For any number of rows and columns, ties, constants and the ends of the range included, compiled and not."""
    rng = np.random.default_rng(seed)
    models = [fitted(some_rows(rng, rows, width, spread), 8, 128, k) for k in range(2)]
    stack = Stack([flattened(models[0]), None, flattened(models[1])])
    asked = np.vstack([some_rows(rng, 20, width, spread), rng.choice(EDGES, (20, width))])
    for place, model in zip((0, 2), models, strict=True):
        places = np.full(len(asked), place)
        expected = -model.score_samples(asked.astype(np.float32))
        assert stack.scores(places, asked) == pytest.approx(expected, abs=1e-9)
        ways = [np.empty(len(asked)) for _ in range(2)]
        for walk, out in zip((_forest.path_lengths, plain(_forest.path_lengths)), ways, strict=True):
            walk(stack.feature, stack.child, stack.threshold, stack.roots, stack.first, places, asked, _forest.AVERAGE_PATH, out)
        assert ways[0].tobytes() == ways[1].tobytes()


def test_forests_come_back_from_a_file_as_they_were():
    """Also the places without one."""
    rng = np.random.default_rng(1)
    one, other = (flattened(fitted(some_rows(rng, 90, width, 30), 9, 64, 1)) for width in (5, 3))
    there = [None, one, None, other]
    asked, places = some_rows(rng, 2, 5, 30), np.array([1, 3])
    again = unpacked(packed(there), 4)
    assert [f is None for f in again] == [f is None for f in there]
    assert Stack(again).scores(places, asked).tobytes() == Stack(there).scores(places, asked).tobytes()


@pytest.mark.parametrize("past", [noise(100, 6, 0.0, 300.0), np.zeros((70, 6)), np.full((70, 6), 32_000.0),
                                  noise(100, 1, 0.0, 300.0) * np.ones(6)], ids=["noise", "zero", "far", "all the same"])
def test_relations_and_rows_are_the_same_compiled_and_not(past):
    """To the last bit, also where the signals are constant, equal, or as far out as can be."""
    past = past.round().astype(np.int16)
    results = []
    for how in (lambda f: f, plain):
        usual, weights, width = np.zeros((1, 6), np.float32), np.zeros((1, 6, 6), np.float32), np.array([6])
        how(_joint.learn_relations)(past, usual[0], weights[0])
        rows, tamed = np.zeros((len(past), _joint.columns(6)), np.int16), np.zeros((6, 2, 6), np.int16)
        how(_joint.describe)(np.zeros(len(past), np.int64), past, past, width, usual, weights, rows)
        how(_joint.without)(np.stack([past[0], past[0]]), 6, usual[0], weights[0], tamed)
        assert np.isfinite(weights).all()
        results.append([x.tobytes() for x in (usual, weights, rows, tamed)])
    assert results[0] == results[1]


def test_relations_are_regressions():
    """What a signal leaves unexplained is its distance from the least-squares forecast of it by the others."""
    rng = np.random.default_rng(3)
    load = rng.normal(0, 400, (5000, 1))
    past = (load * [1.0, 0.5, -1.0] + rng.normal(0, 200, (5000, 3))).round().astype(np.int16)
    usual, weights = np.zeros(3, np.float32), np.zeros((3, 3), np.float32)
    _joint.learn_relations(past, usual, weights)
    z = past / _joint.FINE / usual
    forecast = z[:, 1:] @ np.linalg.lstsq(z[:, 1:], z[:, 0], rcond=None)[0]
    left = z @ weights[0]
    assert np.corrcoef(left, z[:, 0] - forecast)[0, 1] > 0.97
    assert np.std(left) == pytest.approx(1, abs=0.3)


# ------------------------------------------------------------------------------------------------------------ what it sees
def loaded(ticks, columns=8, seed=0):
    """Residuals that share a load; a tenth of each is its own."""
    rng = np.random.default_rng(seed)
    return 0.3 * (rng.standard_normal((ticks, 1)) + 0.3 * rng.standard_normal((ticks, columns)))


def watched(x, of=EIGHT, learn=True, start=T0, detector=None):
    """What it says in each tick of residuals x, and of values that are the same."""
    detector = detector or IsolationForest()
    return [detector.observe(frame(start + k * STEP_S, row, of, learn, residuals=row)) for k, row in enumerate(x)]


def test_a_signal_that_leaves_the_others_is_told_first():
    """Each value is usual; only that they do not go together is not."""
    for odd in (0, 3, 7):
        x = loaded(500, seed=odd)
        x[490:] = 0.5 + 0.1 * x[490:]
        x[490:, odd] *= -1
        [first, *_] = watched(x)[490]
        assert (first.name, first.detector) == (f"s{odd}", "isolation_forest")
        assert first.text.startswith(f"rare together: s{odd} ")
        assert int(first.text.split()[3].rstrip("%,")) > 50


@pytest.mark.slow
def test_a_breach_of_what_goes_together_is_found_and_the_same_values_in_agreement_are_not():
    """Ten entities: all up is load; one down while the others are up is not."""
    together = apart = 0
    for seed in range(10):
        x = loaded(501, seed=seed)
        x[500] = 0.5
        together += bool(watched(x)[500])
        x[500, seed % 8] = -0.5
        apart += bool(watched(x)[500])
    assert together <= 1
    assert apart >= 9


@pytest.mark.slow
def test_many_signals_that_are_a_little_odd_are_found():
    """Each by less than half of what would be an anomaly of it alone."""
    hits = 0
    for seed in range(5):
        x = noise(501, 20, 0.0, 0.25, seed)
        x[500] = 0.7 * np.resize([1, -1, 1], 20)
        hits += bool(watched(x, signals(*(f"node//n s{i}" for i in range(20))))[500])
    assert hits >= 4


@pytest.mark.slow
def test_it_is_silent_on_quiet_days():
    """p-values below 0.001 come about as often as they say: 12 entities, 700 ticks each after the first fit."""
    told = [bool(found) for seed in range(12) for found in watched(loaded(FIRST_FIT + 700, seed=seed))[FIRST_FIT:]]
    assert np.mean(told) < 3e-3


@settings(max_examples=25, deadline=None, derandomize=True)
@given(shares=st.lists(st.floats(-16, 16), min_size=8, max_size=8))
def test_shares_of_the_signals_add_up(shares):
    """To one, none negative, whatever the row."""
    now = np.zeros((2, isolation_forest.WIDTH), np.int16)
    now[0, :8] = np.array(shares) * _joint.FINE
    found = grown_once()._shares(0, now, float(grown_once()._scores(np.zeros(1, np.int64), now[None])[0]))
    assert found.sum() == pytest.approx(1) and (found >= 0).all()


_GROWN: list[IsolationForest] = []


def grown_once():
    if not _GROWN:
        _GROWN.append(IsolationForest())
        watched(loaded(100), detector=_GROWN[0])
    return _GROWN[0]


def test_silent_and_infinite_signals_are_taken():
    """Silence is usual, and infinitely far is as far as can be."""
    x = loaded(400)
    x[100:150, 2], x[300:310, 5], x[320, :] = np.nan, np.inf, -np.inf
    found = watched(x)
    assert {a.name for a in found[300]} == {"s5"}
    assert not any(a.name == "s2" for step in found[100:150] for a in step)


def test_an_entity_with_more_signals_than_fit_is_judged_by_the_first():
    """From the thirty-third on they are left out; nothing breaks."""
    of, x = signals(*(f"a//b s{i}" for i in range(40))), noise(305, 40, 0.0, 0.3)
    x[300:, 32:] += 15
    assert not any(watched(x, of)[300:])
    x[300:, :20] += 1.5
    assert any(watched(x, of)[300:])


def test_without_a_baseline_it_measures_by_itself():
    """Raw values of any size; the same oddity is found."""
    x = 1e6 + 1e3 * loaded(500)
    x[490:, 3] += 1e4
    forest = IsolationForest()
    found = [forest.observe(f) for f in frames(x, EIGHT)]
    assert found[490][0].name == "s3"
    assert sum(map(bool, found[:490])) <= 3


def test_a_baseline_that_goes_begins_anew():
    """What was remembered was measured otherwise."""
    forest = IsolationForest()
    watched(loaded(100), detector=forest)
    assert forest.ready_count() == 1
    forest.observe(frame(T0 + 1e4, np.zeros(8), EIGHT))
    assert forest.ready_count() == 0


# ------------------------------------------------------------------------------------------------------ memory, schedule
def test_an_entity_costs_at_most_80_kilobytes():
    """With as many signals as fit and default settings, in memory as on disk."""
    of = signals(*(f"node//n{i // 32} s{i % 32}" for i in range(128)))
    forest = IsolationForest()
    watched(noise(400, 128, 0.0, 0.3), of, detector=forest)
    assert forest.ready_count() == 4
    assert len(pickle.dumps(forest.state())) < 4 * 80_000
    stack = forest._stacked()
    held = [getattr(forest, k) for k in isolation_forest._ARRAYS] + [stack.feature, stack.child, stack.threshold, stack.roots]
    assert sum(a.nbytes for a in held) < 4 * 80_000
    assert all(np.shares_memory(f.child, stack.child) for f in forest._forests)


def test_the_window_is_a_sample_of_the_last_two_weeks():
    """Of rows that tell their time: all ages up to weeks, and few that are older than three times the span."""
    forest, of = IsolationForest(), signals("node//n x")
    hours = 24 * 60
    for k in range(hours):
        forest._seen or forest._register(frame(T0, [0.0], of))
        now = np.full((1, 2, isolation_forest.WIDTH), k, np.int16)
        forest._latest = forest.lately
        forest._remember(now, np.ones(1, np.bool_), T0 + k * 3600.0)
    age = (hours - forest.window[0, :, 0, 0]) / 24
    assert len(np.unique(age)) == WINDOW
    assert 6 < np.median(age) < 14
    assert np.mean(age > 42) < 0.12


def test_it_is_grown_anew_on_its_schedule():
    """At 64 rows, four times that, four times that, and then each day, in event time."""
    forest, fits, last = IsolationForest(), [], 0.0
    for k, row in enumerate(loaded(1300)):
        watched([row], start=T0 + k * STEP_S, detector=forest)
        if forest.fitted_at[0] != last:
            fits.append(k)
            last = forest.fitted_at[0]
    assert fits == [63, 255, 1023]
    watched(loaded(1), start=T0 + 1023 * STEP_S + DAY_S, detector=forest)
    assert forest.fitted_at[0] == T0 + 1023 * STEP_S + DAY_S


@pytest.mark.slow
def test_many_newcomers_at_once_are_placed_as_one_by_one():
    """More than are watched; the first that came are."""
    of = tuple(Signal(k, f"pod//p{k // 2}", f"m{k % 2}") for k in range(4100))
    at_once, in_turn = IsolationForest(), IsolationForest()
    for detector, sizes in ((at_once, (4100,)), (in_turn, (1, 2, 3, 250, 4000, 4100))):
        for k, size in enumerate(sizes):
            detector.observe(Frame(T0 + k, np.full(size, np.nan), np.ones(size, np.bool_), of[:size]))
    a, b = at_once.state(), in_turn.state()
    assert np.array_equal(a["place"], b["place"])
    assert a["names"] == b["names"]


# ------------------------------------------------------------------------------------------------- through the pipeline
class Spy:
    """A detector that keeps what it was handed."""

    def __init__(self):
        self.handed = []

    def observe(self, frame):
        self.handed.append(frame.residuals)
        return ()

    def state(self):
        return {}

    def restore(self, state):
        pass


LOAD = meanings({"load": "gauge"}, {"load": {"value": "load"}})


def test_detectors_after_the_baseline_are_handed_residuals():
    """In half-widths of the band that people see, NaN before there is one; those before it are handed none."""
    early, baseline, late, feed = Spy(), build.models(["baseline"])[0], Spy(), Feed()
    p = bare_pipeline([early, baseline, late])
    x = noise(60)[:, 0]
    for k in range(60):
        p.step(feed.batch(T0 + k * STEP_S, {"service//a load": float(x[k])}))
        expected, half = baseline.band
        if late.handed[k].size and half[0] == half[0]:
            assert late.handed[k] == pytest.approx((x[k] - expected) / half)
    assert all(r.size == 0 for r in early.handed)
    assert np.isnan(late.handed[10][0]) and np.isfinite(late.handed[59][0])


def test_the_baseline_comes_first_whatever_is_configured():
    """The others keep their order."""
    assert [g.name for g in build.models(["absence", "isolation_forest", "baseline", "logs"])] == [
        "baseline", "absence", "isolation_forest", "logs"]


MEMORY, OTHERS = "container_memory_usage_bytes", ("container_cpu", "container_open_files", "container_threads")


def policy():
    """The documented policy, of this model and with what it needs to decide."""
    [d] = yamlfile.parse("""apiVersion: aiops.io/v1
kind: RemediationPolicy
metadata: {name: memory}
spec:
  trigger: {type: Anomaly, metric: container_memory_usage_bytes, model: isolation_forest, sensitivity: 0.95}
  mode: shadow
  actions: [{type: Restart, target: {pod: "selector:app=api"}}]
""", "p.yaml")
    compiled = compile_document(Document(d.file, d.data, d.lines), meaning.shipped(), problems := [])
    assert not problems
    return compiled


def played(detectors, fault):
    """Decisions on a pod under a wandering load; in the fault memory leaves the load that all follow."""
    p, feed, rng = build.pipeline(meaning.shipped(), [policy()], "act", detectors), Feed(), np.random.default_rng(2)
    actions, load = [], 0.0
    for k in range(500):
        load = 0.8 * load + rng.normal()
        own = rng.normal(0, 0.5, 4)
        now = {f"pod/shop/api-1 {name}": 100 + 5 * (load + own[i]) for i, name in enumerate(OTHERS)}
        now[f"pod/shop/api-1 {MEMORY}"] = 3e8 + 1e7 * (load + own[3]) + (2e8 if fault and k >= 460 else 0)
        actions += p.step(feed.batch(T0 + k * STEP_S, now)).actions
    return actions


@pytest.mark.slow
def test_a_policy_of_this_model_is_met_by_what_is_odd_together():
    """It needs both: the incident that the baseline opens, and the forest's word; quiet days and other models do not meet it."""
    both = ("baseline", "isolation_forest")
    assert "isolation_forest" in SUPPORTERS
    assert {(a.type, a.policy) for a in played(both, fault=True)} == {("Restart", "memory")}
    assert played(both, fault=False) == []
    assert played(("baseline",), fault=True) == []
    assert played(("isolation_forest",), fault=True) == []
