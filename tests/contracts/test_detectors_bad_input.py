"""What every detector does with telemetry as it really is and for as long as it comes, over each file in `detectors/`.

Frames that are odd in one way each, raw samples through the door and the intake, and tables through `aiops score`. Nothing
raises, nothing warns, every p-value is one, and what is found in good data is found after bad data too.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import STEP_S, T0, Feed, frame, meanings, noise, signals
from test_detectors import FAULT, NAMES, course, flat, make

from aiops import build, meaning
from aiops.intake import Intake
from aiops.score import Scorer
from aiops.signals import Door
from aiops.types import Frame

HOUR_S, DAY_S = 3600.0, 86_400.0
PAIR = signals("service//a x", "service//b y")
FOUR = signals("service//a one", "service//a two", "service//b one", "node//n three")
TICKS = 100


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def sound(detector, f: Frame) -> list:
    """Lets it observe, checks what it says and what it shows, and gives back what it found."""
    found = list(detector.observe(f))
    for a in found:
        assert 0 <= a.score <= 1 and 0 < a.p_value <= 1 and a.at == f.at
    p = getattr(detector, "last_p", np.ones(len(f.signals)))
    assert p.shape == (len(f.signals),) and np.all((p > 0) & (p <= 1))
    return found


def all_sound(detector, frames) -> list[list]:
    return [sound(detector, f) for f in frames]


# ------------------------------------------------------------------------------------------------------ odd telemetry
def every(values, step_s: float = STEP_S, of=PAIR, start: float = T0) -> Iterator[Frame]:
    for k, row in enumerate(np.asarray(values, np.float64)):
        yield frame(start + k * step_s, row, of)


def nan_runs() -> Iterator[Frame]:
    """A signal that never speaks, one that speaks once, and silence of fifty ticks."""
    x = noise(TICKS, 4)
    x[:, 0], x[1:, 1], x[35:85, 2] = np.nan, np.nan, np.nan
    return every(x, of=FOUR)


def irregular() -> Iterator[Frame]:
    """From microseconds to hours between one frame and the next."""
    steps = 10.0 ** np.random.default_rng(1).uniform(-6, 4.5, TICKS)
    return (frame(T0 + float(t), row, PAIR) for t, row in zip(np.cumsum(steps), noise(TICKS, 2), strict=True))


def gaps_of_days() -> Iterator[Frame]:
    """Three days, then a year."""
    for k, f in enumerate(every(noise(TICKS, 2))):
        yield replace(f, at=f.at + (3 * DAY_S if k >= 50 else 0) + (400 * DAY_S if k >= 80 else 0))


def huge() -> Iterator[Frame]:
    """Around 1e300, of both signs, and 1e300 among ordinary values."""
    x = noise(TICKS, 4) * np.array([1e298, -1e298, 1, 1])
    x[::2, 1] *= -1
    largest = np.finfo(float).max
    x[60:64, 2] = (1e300, -1e300, largest, -largest)
    x[:4, 3] = (largest, -largest, largest, -largest)
    return every(x, of=FOUR)


def tiny() -> Iterator[Frame]:
    """Denormal noise, the smallest number there is, and zeros of both signs."""
    x = np.column_stack([noise(TICKS)[:, 0] * 1e-310, np.where(np.arange(TICKS) % 2, 5e-324, 0.0), np.full(TICKS, -0.0)])
    return every(x, of=FOUR[:3])


def beyond_2_to_53() -> Iterator[Frame]:
    """Integers of which a float does not hold the last digits."""
    steps = np.arange(TICKS)
    return every(np.column_stack([2.0**60 + steps, 2.0**63 - 2.0**12 * steps]))


def seen_once() -> Iterator[Frame]:
    """Every tick brings a series that reports this once and never again."""
    of: tuple = PAIR
    for k, row in enumerate(noise(TICKS, 2)):
        of = (*of, replace(PAIR[0], id=len(of), entity=f"job//{k}", name="once"))
        values = np.full(len(of), np.nan)
        values[:2], values[-1] = row, 1e6 + k
        yield frame(T0 + k * STEP_S, values, of)


def slow_beside_fast(hours: int = 40, burst: int = 8) -> Iterator[Frame]:
    """One series reports each hour, the other each second, in bursts around the full hour."""
    x = noise(hours * burst, 2)
    for k in range(hours * burst):
        hour, second = divmod(k, burst)
        yield frame(T0 + hour * HOUR_S + second, (x[k, 0] if second == 0 else np.nan, x[k, 1]), PAIR)


ODD = (nan_runs, irregular, gaps_of_days, huge, tiny, beyond_2_to_53, seen_once, slow_beside_fast)


@pytest.mark.parametrize("odd", ODD, ids=lambda f: f.__name__)
def test_odd_telemetry_is_taken(name, odd):
    """Sound verdicts throughout, and the state that it leads to can be kept and gone on with."""
    first, second = make(name), make(name)
    frames = list(odd())
    all_sound(first, frames[:-10])
    second.restore(pickle.loads(pickle.dumps(first.state())))
    assert [flat(sound(second, f)) for f in frames[-10:]] == [flat(sound(first, f)) for f in frames[-10:]]


def test_odd_telemetry_gives_causal_verdicts(name):
    """With gaps, silence and irregular time, what was said of the first frames does not change with what follows."""
    frames = [*gaps_of_days(), *(replace(f, at=f.at + 600 * DAY_S) for f in irregular())]
    whole, cut = all_sound(make(name), frames), all_sound(make(name), frames[:130])
    assert [flat(x) for x in whole[:130]] == [flat(x) for x in cut]


def test_what_was_seen_once_is_not_missed(name):
    """No word about it after its one frame: it was never regular."""
    for k, f in enumerate(seen_once()):
        assert {a.entity for a in make_running(name, f) if a.entity.startswith("job//")} <= {f"job//{k}"}


_RUNNING: dict[str, object] = {}


def make_running(name, f):
    if f.at == T0:
        _RUNNING[name] = make(name)
    return sound(_RUNNING[name], f)


def test_a_slow_series_is_not_missed_between_its_samples(name):
    """Nor is noise at two speeds more than noise: next to nothing is found in it."""
    found = [a for f in slow_beside_fast() for a in make_running(name, f)]
    assert len(found) <= 0.02 * 320
    assert "absent" not in {a.name for a in found}


def test_a_constant_is_left_alone_for_ever(name):
    """Zero, one, huge, tiny and beyond 2^53: nothing is ever said."""
    of = signals("service//a zero", "service//a one", "service//b huge", "service//b tiny", "node//n big", "node//n negative")
    constant = np.tile([0.0, 1.0, 1e300, 5e-324, 2.0**60 + 1, -1e-3], (400, 1))
    assert not [a for f in every(constant, 60.0, of) for a in make_running(name, f)]


# ---------------------------------------------------------------------------------------------- still awake afterwards
def after(disturbance: str) -> Iterator[Frame]:
    """The usual course with its fault, and something in the first hundred ticks that was no fault."""
    for k, f in enumerate(course()):
        if disturbance == "a gap of two days" and k >= 70:
            f = replace(f, at=f.at + 2 * DAY_S)
        if disturbance == "silence" and 50 <= k < 80:
            f = replace(f, values=np.full(len(f.values), np.nan))
        if disturbance == "1e300" and k == 60:
            f = replace(f, values=np.full(len(f.values), 1e300))
        if disturbance == "zeros" and 60 <= k < 63:
            f = replace(f, values=np.zeros(len(f.values)))
        yield f


@functools.cache
def sees_fault(name: str, disturbance: str) -> bool:
    detector = make(name)
    return any([sound(detector, f) for k, f in enumerate(after(disturbance)) if k < FAULT.stop][FAULT.start:])


@pytest.mark.parametrize("disturbance", ["a gap of two days", "silence", "1e300", "zeros"])
def test_what_it_finds_it_still_finds_after_a_disturbance(name, disturbance):
    """Who sees the fault in an undisturbed course sees it in a disturbed one."""
    assert sees_fault(name, disturbance) == sees_fault(name, "")


@pytest.mark.slow
def test_a_month_of_one_value_and_then_another():
    """The step is told in its first frame by somebody, and after a month nobody tells it any more."""
    month, of = 60, signals("service//a x", "service//a y")
    values = np.repeat([[5.0, 100.0], [5.0, 140.0]], month, axis=0)
    detectors = [make(n) for n in NAMES]
    told = [[a.signal for d in detectors for a in sound(d, f)] for f in every(values, 12 * HOUR_S, of)]
    assert not any(told[:month]) and set(told[month]) == {1}
    assert not any(told[-month // 3:])


# ----------------------------------------------------------------------------------------------- memory, determinism
def test_its_memory_is_the_same_after_ten_times_as_long(name):
    """Every place that it will ever need is there after a day."""
    detector, sizes = make(name), []
    for frames in (every(noise(300, 4), 300.0, FOUR), every(noise(2700, 4), STEP_S, FOUR, start=T0 + 2 * DAY_S)):
        for f in frames:
            detector.observe(f)
        sizes.append(len(pickle.dumps(detector.state())))
    assert sizes[1] <= sizes[0] * 1.02


DIGEST = """
import json
from test_detectors_bad_input import digests
print(json.dumps(digests()))
"""


def digests() -> dict[str, str]:
    """What each detector says of the usual course, in one short word."""
    return {n: hashlib.sha256(repr([flat(d.observe(f)) for f in course(160)]).encode()).hexdigest()
            for n, d in ((n, make(n)) for n in NAMES)}


@pytest.fixture(scope="module")
def elsewhere() -> dict[str, str]:
    """The same in another process whose sets and dictionaries of strings are hashed differently."""
    here = Path(__file__).parent
    paths = [str(here), str(here.parent), str(here.parents[1])]
    env = {**os.environ, "PYTHONHASHSEED": "7" if os.environ.get("PYTHONHASHSEED") != "7" else "8",
           "PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])}
    out = subprocess.run([sys.executable, "-c", DIGEST], env=env, check=True, capture_output=True, text=True)
    return dict(json.loads(out.stdout))


@pytest.mark.slow
def test_another_process_with_another_hash_seed_agrees(elsewhere):
    """To the last bit."""
    assert digests() == elsewhere


# ------------------------------------------------------------------------------------------------- through the door
COUNTERS = meanings({"hits_total": "counter", "load": "gauge"}, {"hits": {"rate": "hits_total"}, "load_now": {"value": "load"}})
HITS, LOAD = "service//a hits_total", "service//a load"


def counted(ticks: int = 150, resets=()) -> Iterator[dict[str, float]]:
    """About 50 hits a tick; the process restarts sometimes, and the counter with it. A gauge beside it."""
    rng, total = np.random.default_rng(2), 1e9
    for k in range(ticks):
        total = (0.0 if k in resets else total) + float(rng.integers(45, 56))
        yield {HITS: total, LOAD: float(rng.normal(10, 1))}


def through_door(detector, door: Door, batches) -> list[list[tuple]]:
    out = []
    for batch in batches:
        values = door.values(batch)
        out.append(flat(sound(detector, Frame(batch.at, values, np.ones(len(values), np.bool_), door.signals))))
    return out


def test_a_counter_that_resets_is_no_anomaly(name):
    """Three restarts change no verdict: the rates that the door makes are those of a counter that went on."""
    said = []
    for resets in ((), (60, 90, 120)):
        feed = Feed()
        batches = [feed.batch(T0 + STEP_S * k, s) for k, s in enumerate(counted(resets=resets))]
        said.append(through_door(make(name), Door(COUNTERS), batches))
    assert said[0] == said[1]


def test_what_comes_twice_late_or_broken_changes_no_verdict(name):
    """Each sample twice, an old one again, NaN, infinities, the far future, an unknown series: counted, and left out."""
    rows = [(T0 + STEP_S * k, s) for k, s in enumerate(counted())]
    clean, dirty, bad = Feed(), Feed(), ((LOAD, T0 - 5, 9.9), (LOAD, T0 + 1e9, 7.0), (HITS, math.nan, 1.0), (HITS, T0, math.inf))
    plain = [clean.batch(at, s) for at, s in rows]
    odd = [dirty.batch(at, [*((key, at, v) for key, v in s.items()), *((key, at, v) for key, v in s.items()),
                            *((key, at - 40, 1e6) for key in s), *bad]) for at, s in rows]
    door = Door(COUNTERS)
    assert through_door(make(name), door, odd) == through_door(make(name), Door(COUNTERS), plain)
    assert door.dropped["in_the_future"] == len(rows) and door.dropped["not_a_number"] == 2 * len(rows)
    assert door.dropped["duplicate"] >= 2 * len(rows)


def test_a_clock_that_stands_or_goes_back_is_survived(name):
    """Samples through the intake at times that repeat and fall; batches rise all the same, and what is late is counted."""
    intake, door, detector, handed = Intake(STEP_S), Door(COUNTERS), make(name), []
    clock = [0, 10, 20, 20, 20, 5, 15, 30, 40, 50, 45, 60] * 10
    for k, (passed, s) in enumerate(zip(clock, counted(len(clock)), strict=True)):
        at = T0 + 60.0 * (k // 12) + passed
        for key, value in s.items():
            intake.sample(at, *key.split(" "), {}, value)
        batches = intake.drain(at)
        handed.extend(b.at for b in batches)
        through_door(detector, door, batches)
    assert np.all(np.diff(handed) > 0)
    assert door.dropped["late_or_duplicate"] > 50


def test_hourly_and_secondly_series_in_one_batch():
    """The whole pipeline with every detector, sixty-minute data beside one-second data and everything broken among it."""
    pipeline, feed = build.pipeline(meaning.shipped(), (), "observe"), Feed()
    x, p_values = noise(200, 2), []
    for k in range(200):
        at = T0 + (k // 5) * HOUR_S + k % 5
        rows = [("service//a fast", at, float(x[k, 0])), ("service//a fast", at, float(x[k, 0])), ("node//n odd", at, math.nan)]
        rows += [("service//b slow", at, float(x[k, 1]))] if k % 5 == 0 else []
        rows += [(f"job//{k} once", at, 1e300)]
        report = pipeline.step(feed.batch(at, rows))
        p_values += [a.p_value for a in report.anomalies]
        assert not report.incidents
    assert all(0 < p <= 1 for p in p_values) and len(p_values) < 20
    assert report.counts.dropped == {"duplicate": 200, "not_a_number": 200} and report.counts.samples == 840


# -------------------------------------------------------------------------------------------------- through `aiops score`
ROWS = 150
TABLES = {
    "repeated times": (np.repeat(np.arange(ROWS / 10), 10) * 60.0, noise(ROWS)[:, 0]),
    "falling times": (np.where(np.arange(ROWS) % 7 == 3, 0.0, np.arange(ROWS) * 60.0), noise(ROWS)[:, 0]),
    "gaps of days": (np.arange(ROWS) * 60.0 + np.arange(ROWS) // 50 * 9 * DAY_S, noise(ROWS)[:, 0]),
    "runs of NaN": (np.arange(ROWS) * 60.0, np.where(np.arange(ROWS) // 20 % 2, np.nan, noise(ROWS)[:, 0])),
    "only NaN": (np.arange(ROWS) * 60.0, np.full(ROWS, np.nan)),
    "infinities": (np.arange(ROWS) * 60.0, np.where(np.arange(ROWS) % 50 == 40, np.inf, noise(ROWS)[:, 0])),
    "1e300": (np.arange(ROWS) * 60.0, np.where(np.arange(ROWS) % 50 == 40, -1e300, 1e299 * noise(ROWS)[:, 0])),
    "denormals": (np.arange(ROWS) * 60.0, 1e-310 * noise(ROWS)[:, 0]),
    "beyond 2^53": (np.arange(ROWS) * 60.0, 2.0**60 + np.arange(ROWS)),
    "a month and another": (np.arange(ROWS) * 6 * HOUR_S, np.repeat([5.0, 7.0], ROWS // 2)),
}


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("columns", [1, 2])
def test_any_table_is_scored(table, columns):
    """One row out for each row in, p-values in (0, 1], and whoever is missing or no number is no anomaly."""
    times, x = TABLES[table]
    values = np.column_stack([x, noise(ROWS, seed=5)[:, 0]])[:, :columns]
    out = Scorer([f"c{i}" for i in range(columns)]).run(times, values)
    p, score, flag = (np.asarray(out[k], np.float64) for k in ("p_value", "score", "anomaly"))
    assert p.shape == (ROWS,) and np.all((p > 0) & (p <= 1)) and np.all((score >= 0) & (score <= 1))
    assert set(flag) <= {0.0, 1.0} and flag.mean() < 0.25
    if columns == 1:
        assert np.all(p[~np.isfinite(x)] == 1.0)


def test_a_time_that_falls_counts_as_just_after_the_one_before():
    """Wherever in the past it points to: the verdicts are those of the same table with that reading."""
    times = np.arange(ROWS) * 60.0
    values, wrong, right = noise(ROWS), times.copy(), times.copy()
    wrong[[50, 100]] = (-1e9, times[99])
    right[[50, 100]] = np.nextafter(times[[49, 99]], np.inf)
    assert repr(Scorer(["x"]).run(wrong, values)) == repr(Scorer(["x"]).run(right, values))
