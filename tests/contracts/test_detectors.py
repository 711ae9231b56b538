"""What every detector promises, run over each file in `detectors/` without registration."""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterator
from dataclasses import fields, replace

import numpy as np
import pytest
from helpers import STEP_S, T0, signals

from aiops import plugins
from aiops.models import Lineage, Model, Saved, Unusable, picked, revived
from aiops.store.models import packed, unpacked
from aiops.types import Frame, LogLine, Signal

NAMES = plugins.names("detectors")
ALONE = signals("service//a one", "service//a two", "service//b one", "node//n three")
LEASE = Signal(9, "certificate//c", "left", unit="seconds", direction="down", min_abs=1e3, limit=0.0, horizon_s=3600.0)
SIGNALS = (*ALONE, *(Signal(len(ALONE) + k, "service//a", "busy", f'replica="{k}"') for k in range(5)), LEASE)
HOG = Signal(len(SIGNALS), "process//hog", "cores", direction="up", min_abs=0.2, resource="cpu")
FAULT = range(150, 165)
SILENT_ON_FAULTS = {"drift", "young", "ceased"}
"""Tells of new levels that have settled; speaks of signals that are too young for a fault after 150 samples: test_young.py;
speaks of calls: test_ceased.py."""
NEVER_LEARNS_LEVELS = {"drift", "newcomer", "young", "ceased", "exhaustion"}


def make(name):
    return plugins.load("detectors", name)()


def course(ticks: int = 240, of=SIGNALS, start: int = 0, seed: int = 3, fault: range = FAULT,
           learn: bool = True) -> Iterator[Frame]:
    """Noise with a fault in it that no detector can overlook: values jump, one replica leaves the others, an entity falls
    silent, errors are logged, somebody new uses a lot, and time runs out."""
    x = np.random.default_rng(seed).normal(10, 1, (start + ticks, len(of)))
    for k in range(start, start + ticks):
        row, lines = np.where([s is LEASE for s in of], 1e5, x[k]), [LogLine(T0 + STEP_S * k, "service//a", f"INFO request {k}")]
        if k in fault:
            row[:2] += 40
            row[2] = np.nan
            row[len(ALONE):len(ALONE) + 1] += 40
            row[LEASE.id:LEASE.id + 1] = 100.0
            lines += [LogLine(T0 + STEP_S * k, "service//a", f"ERROR broken pipe {i}") for i in range(20)]
        shown = (*of, HOG) if k >= FAULT.start and of is SIGNALS else of
        row = np.append(row, 2.0)[:len(shown)]
        held = frozenset() if learn else frozenset(s.entity for s in shown)
        yield Frame(T0 + STEP_S * k, row, np.full(len(shown), learn), shown, tuple(lines), held=held)


def flat(found) -> list[tuple]:
    """Anomalies as values that compare equal when they are: NaN included."""
    return [tuple("nan" if isinstance(v, float) and math.isnan(v) else v for v in (getattr(a, f.name) for f in fields(a)))
            for a in found]


def run(detector, course) -> list[list[tuple]]:
    return [flat(detector.observe(f)) for f in course]


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def test_the_folder_holds_detectors():
    """The registry is the folder: these come with the program."""
    assert set(NAMES) >= {"absence", "baseline", "drift", "isolation_forest", "logs"}


def test_it_says_nothing_before_it_learned_anything(name):
    """The first frames of a run raise no alarm, however odd they are."""
    assert run(make(name), course(10, fault=range(10))) == [[]] * 10


def test_it_scores_before_it_learns(name):
    """The verdict on a frame does not depend on what comes after, and a second look knows the first."""
    whole, cut = run(make(name), course(200)), run(make(name), course(155))
    assert whole[:155] == cut


def test_what_it_finds_is_well_formed(name):
    """Scores and p-values in range, entities and signals that exist, one name for the detector: its file's."""
    found = [a for f in course() for a in make_found(name, f)]
    for a in found:
        assert 0 <= a.score <= 1 and 0 < a.p_value <= 1
        assert a.detector == name
        assert a.entity in {s.entity for s in (*SIGNALS, HOG)} and a.name
        assert a.signal == -1 or (*SIGNALS, HOG)[a.signal].entity == a.entity
    assert found or name in SILENT_ON_FAULTS


_RUNNING: dict[str, object] = {}


def make_found(name, frame):
    if frame.at == T0:
        _RUNNING[name] = make(name)
    return _RUNNING[name].observe(frame)


def test_it_leaves_the_frame_as_it_was(name):
    """Not a bit of the arrays changes, and they are not kept: changing them later changes nothing."""
    detector, untouched = make(name), make(name)
    for frame, same in zip(course(), course(), strict=True):
        frame.values.flags.writeable = frame.learn.flags.writeable = False
        assert flat(detector.observe(frame)) == flat(untouched.observe(same))
        assert np.array_equal(frame.values, same.values, equal_nan=True) and np.array_equal(frame.learn, same.learn)
        same.values[:] = -1e9
        same.learn[:] = False


def test_it_takes_whatever_comes(name):
    """No signals at all, all silent, huge and tiny values, signals and entities that appear in the middle of a run."""
    detector = make(name)
    detector.observe(Frame(T0 - 1, np.empty(0), np.empty(0, np.bool_), ()))
    more = (*SIGNALS, *signals("a b", "service//a later", "pod/x/new one")[1:])
    more = tuple(replace(s, id=i) for i, s in enumerate(more))
    for k, f in enumerate((*course(80), *course(80, more, start=80))):
        if k % 7 == 3:
            f.values[:] = np.nan
        if k % 11 == 5:
            f.values[:] = np.resize((1e300, -1e300, 5e-324, 0.0, 1e300, 1.0), len(f.values))
        found = detector.observe(f)
        assert all(0 <= a.score <= 1 and 0 < a.p_value <= 1 for a in found)


def test_it_takes_an_empty_start_and_an_empty_end(name):
    """Frames without any column, before and between."""
    detector = make(name)
    for k in range(5):
        assert list(detector.observe(Frame(T0 + k, np.empty(0), np.empty(0, np.bool_), ()))) == []
    run(detector, course(40))


def test_its_state_goes_on_where_it_stopped(name):
    """Saved and restored, it finds from then on what it would have found."""
    first, second = make(name), make(name)
    run(first, course(170))
    second.restore(pickle.loads(pickle.dumps(first.state())))
    later = range(200, 215)
    assert run(second, course(120, start=170, fault=later)) == run(first, course(120, start=170, fault=later))


def test_its_state_is_a_copy(name):
    """What is saved does not change when the detector goes on."""
    detector = make(name)
    run(detector, course(100))
    state = detector.state()
    before = pickle.dumps(state)
    run(detector, course(100, start=100))
    assert pickle.dumps(state) == before


def test_two_of_it_agree(name):
    """Seeded: the same frames give the same verdicts, to the last bit."""
    assert run(make(name), course()) == run(make(name), course())


def test_it_does_not_depend_on_what_was_seen_elsewhere(name):
    """Two runs at once in one process share nothing."""
    alone = run(make(name), course())
    a, b, together = make(name), make(name), []
    for f, g in zip(course(), course(seed=9), strict=True):
        together.append(flat(a.observe(f)))
        b.observe(g)
    assert together == alone


@pytest.mark.parametrize("name", [n for n in NAMES if n not in NEVER_LEARNS_LEVELS])
def test_a_fault_that_it_may_not_learn_stays_a_fault(name):
    """After two hundred frames of a masked fault it is as odd as at first."""
    detector = make(name)
    run(detector, course(150, fault=range(0)))
    always = range(150, 351)
    seen = [detector.observe(f) for f in course(200, start=150, fault=always, learn=False)]
    assert seen[5] or name == "absence"
    last = detector.observe(next(course(1, start=350, fault=always, learn=False)))
    assert {a.entity for a in last} >= {"service//a"} if name != "absence" else {a.entity for a in last} >= {"service//b"}


@pytest.mark.parametrize("name", [n for n in NAMES if n not in NEVER_LEARNS_LEVELS])
def test_frames_of_a_masked_fault_leave_no_trace(name):
    """What comes after a masked fault is judged as if it had not been."""
    masked, spared = make(name), make(name)
    run(masked, course(150, fault=range(0)))
    run(spared, course(150, fault=range(0)))
    run(masked, course(30, start=150, fault=range(150, 180), learn=False))
    after = [{a[:6] for a in step} for step in run(masked, course(60, start=180, fault=range(0)))]
    assert after == [{a[:6] for a in step} for step in run(spared, course(60, start=180, fault=range(0)))]


# ------------------------------------------------------------------------------------------------- over a restart
def saved(name, ticks=170) -> Saved:
    model = Model(name)
    run(model, course(ticks))
    return model.saved()


def on_disk(state):
    """As it comes back from a file."""
    return unpacked(*packed(state))


def test_it_says_of_which_version_it_is_and_what_it_keeps_by_signal(name):
    """VERSION rises whenever an old state can no longer be read; BY_SIGNAL names arrays of the state whose last axis is
    the signals."""
    code = plugins.load("detectors", name)
    assert isinstance(code.VERSION, int) and code.VERSION >= 1
    state = saved(name).state
    assert picked(state, code.BY_SIGNAL, np.arange(len(SIGNALS) + 1)).keys() == state.keys()


def test_its_state_is_arrays_and_plain_values_and_goes_on_from_a_file(name):
    """Nothing needs to be pickled; read back, it finds what it would have found."""
    first = Model(name)
    run(first, course(170))
    kept = first.saved()
    second = revived(Saved(kept.detector, kept.version, kept.settings, kept.at, on_disk(kept.state)), None, math.inf)
    later = range(200, 215)
    assert run(second, course(120, start=170, fault=later)) == run(first, course(120, start=170, fault=later))


def test_a_state_of_another_version_is_refused_by_name(name):
    """And named: who wrote it, who should read it. Nothing is half read: there is no model then."""
    kept = saved(name, 40)
    with pytest.raises(Unusable, match=f"^{name}: what was learned is of version 99, and this aiops has version \\d+ only$"):
        revived(Saved(name, 99, kept.settings, kept.at, kept.state), None, math.inf)


def test_a_state_that_is_damaged_is_refused_by_name(name):
    """Whatever is missing in it."""
    kept = saved(name, 40)
    for gone in (*kept.state, None):
        damaged = {k: v for k, v in kept.state.items() if gone is not None and k != gone}
        with pytest.raises(Unusable, match=f"^{name}: what was learned cannot be read: "):
            revived(Saved(name, kept.version, kept.settings, kept.at, damaged), None, math.inf)


def test_the_same_settings_are_the_same_model(name):
    """An id says which code and which settings; it does not hang on who asks."""
    assert Model(name).id == Model(name).id
    assert Model(name).id.startswith(f"{name}-v")


@pytest.mark.parametrize("name", NAMES)
def test_it_knows_its_signals_on_other_columns(name):
    """A signal that was forgotten leaves the others as they were: what is found of them is the same, under new numbers."""
    narrow, wide = SIGNALS[:3], signals("gone//x four", "service//a one", "service//a two", "service//b one")
    kept = Model(name)
    rows = np.random.default_rng(5).normal(10, 1, (300, 4))
    rows[200:215, 1:3] += 40
    rows[200:215, 3] = np.nan

    def frames(start, end, of, values):
        for k in range(start, end):
            errors = [LogLine(T0 + STEP_S * k, "service//a", f"ERROR broken pipe {i}") for i in range(20 if k >= 200 else 0)]
            lines = (LogLine(T0 + STEP_S * k, "service//a", f"INFO request {k}"), *errors)
            yield Frame(T0 + STEP_S * k, values[k], np.ones(len(of), np.bool_), of, lines)
    run(kept, frames(0, 170, wide, rows))
    moved = revived(kept.saved(), np.array([1, 2, 3]), math.inf)
    column = {(s.entity, s.key): s.id for s in narrow}
    for f, g in zip(frames(170, 300, wide, rows), frames(170, 300, narrow, rows[:, 1:]), strict=True):
        expected = [a for a in kept.observe(f) if a.entity != "gone//x"]
        found = moved.observe(g)
        assert [(a.entity, a.name, a.p_value) for a in found] == [(a.entity, a.name, a.p_value) for a in expected]
        assert all(a.signal in (-1, column.get((a.entity, a.name))) for a in found)


def test_its_candidate_leaves_it_alone(name):
    """With a second model in its shadow it finds what it finds alone."""
    from aiops.generations import generations

    alone, watched = make(name), generations(name)
    watched.begin(Lineage(Model(name).saved()), None, math.inf)
    watched.candidate = Model(name)
    assert run(watched, course()) == run(alone, course())
