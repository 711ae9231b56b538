"""`drift`: which new levels are told, once, and learned on purpose; and which are not."""

from __future__ import annotations

import pickle
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from helpers import Feed, bare_pipeline, frame, pipeline

from aiops.generations import generations
from aiops.humanise import utc
from aiops.models import Model
from aiops.types import Signal
from detectors._crowd import FEWEST, MAX_KINDS, MOST, REST_S, Crowd
from detectors.drift import LONG, MOST_TOLD, QUARTER_S, Drift

DAY_S, HOUR_S, STEP_S = 86_400.0, 3600.0, 600.0
MONDAY = 4 * DAY_S + 2100 * 7 * DAY_S


def cpu(i=0, **more):
    usual = {"id": i, "entity": f"service//s{i}", "name": "cpu", "unit": "ratio", "min_abs": 0.02, "min_rel": 0.05}
    return Signal(**usual | more)


def days(count, step_s=STEP_S):
    """Times from a Monday on, in days, as a column."""
    return np.arange(int(count * DAY_S / step_s))[:, None] * step_s / DAY_S


def noisy(x, seed=0, scale=0.02, columns=8):
    """Columns that differ in their noise."""
    return x + scale * np.random.default_rng(seed).standard_normal((len(x), columns))


def play(x, learn=None, detector=None, of=None, step_s=STEP_S, start=MONDAY):
    """(days since the start, anomaly) of what is told, and the columns that settled with the day."""
    detector, of = detector or Drift(), of or tuple(cpu(i) for i in range(x.shape[1]))
    told, settled = [], []
    for k, row in enumerate(x):
        at = k * step_s / DAY_S
        told += [(at, a) for a in detector.observe(frame(start + k * step_s, row, of, True if learn is None else learn(at)))]
        settled += [(at, int(i)) for i in detector.settled]
    return told, settled


def wave(t, by=0.1):
    return by * np.sin(2 * np.pi * t)


def week(t):
    """Half of the load on Saturdays and Sundays."""
    return 0.4 * np.where(t % 7 >= 5, 0.5, 1.0) + wave(t, 0.05)


def test_a_new_level_is_told_once_and_its_column_learned_anew():
    """After a day and a half at most, with both levels, since when, and never again in three weeks."""
    t = days(28)
    told, settled = play(noisy(0.4 + wave(t) + 0.22 * (t >= 10.5)))
    assert sorted(i for _, i in settled) == list(range(8))
    own = [(at, a) for at, a in told if a.name == "new_normal"]
    assert len(own) == 8 and all(11.5 < at < 12.3 for at, _ in own)
    a = own[0][1]
    assert (a.p_value, a.signal, a.detector) == (1.0, -1, "drift")
    before, after, since = re.fullmatch(r"cpu has a new normal: ([\d.]+) % -> ([\d.]+) % since (.+ UTC)", a.text).groups()
    assert 39 < float(before) < 41 < 61 < float(after) < 63
    assert since == utc(MONDAY + 10.5 * DAY_S, "%Y-%m-%d %H:%M UTC")


@pytest.mark.parametrize("down", [0.1, 0.3])
def test_a_level_that_falls_is_a_new_normal_too(down):
    """For good news there is no other detector."""
    t = days(16)
    told, _ = play(noisy(0.4 - down * (t >= 10.5)))
    assert len(told) == 8


QUIET = {
    "noise": lambda t: 0.4 + 0 * t,
    "a daily wave": lambda t: 0.4 + wave(t, 0.3),
    "weekends": week,
    "a public holiday": lambda t: np.where((t >= 16) & (t < 17), 0.2 + wave(t, 0.05), week(t)),
    "a spike": lambda t: 0.4 + 5.0 * ((t >= 10.5) & (t < 10.51)),
    "a fault of six hours": lambda t: 0.4 + wave(t) + 0.5 * ((t >= 10.4) & (t < 10.65)),
    "a fault of six hours every second day": lambda t: 0.4 + wave(t) + 0.5 * ((t > 7) & (t % 2 >= 1.4) & (t % 2 < 1.65)),
    "a day of trouble": lambda t: 0.4 + wave(t) + 0.5 * ((t >= 10.4) & (t < 11.3)),
    "a slow trend": lambda t: 0.2 + 0.01 * t,
    "less than is worth telling": lambda t: 0.4 + 0.015 * (t >= 10.5),
    "constant": lambda t: 0.4 + 0 * t}


@pytest.mark.parametrize("kind", QUIET)
def test_nothing_is_told(kind):
    """Four weeks of what is no new normal. (All signals of a kind together are another matter.)"""
    x = noisy(QUIET[kind](days(28)), scale=0.0 if kind == "constant" else 0.02)
    told, settled = play(x)
    assert [a.text for _, a in told if a.name == "new_normal"] == [] and settled == []


def test_a_trend_that_begins_is_told_a_few_times_at_most():
    """Twice a signal in four weeks, days apart: it never comes to rest."""
    t = days(38)
    _, settled = play(noisy(0.2 + 0.02 * np.maximum(t - 10, 0)))
    for i in range(8):
        mine = [at for at, k in settled if k == i]
        assert len(mine) <= 4 and all(b - a > 1 for a, b in pairwise(mine))
    assert len(settled) <= 16


def test_a_level_that_comes_back_is_told_again():
    """Two changes, two notes: there and back."""
    t = days(28)
    _, settled = play(noisy(0.4 + 0.3 * ((t >= 10) & (t < 17))))
    assert [len([1 for _, k in settled if k == i]) for i in range(8)] == [2] * 8


def test_in_the_first_week_it_takes_three_days():
    """Nobody knows yet what weekends do."""
    t = days(10)
    _, settled = play(noisy(0.4 + 0.3 * (t >= 3)))
    assert len(settled) == 8 and all(3 + (LONG - 1) * QUARTER_S / DAY_S <= at < 6.5 for at, _ in settled)


def test_what_came_with_an_incident_is_told_when_its_mask_ends():
    """Two days of it are watched and not learned; not a word before."""
    t = days(20)
    _, settled = play(noisy(0.4 + 0.3 * (t >= 10)), learn=lambda at: not 10.02 <= at < 12)
    assert len(settled) == 8 and all(12 <= at <= 12.25 for at, _ in settled)


def test_a_masked_fault_of_two_days_is_no_new_normal():
    """It was over before the mask was."""
    t = days(20)
    told, settled = play(noisy(0.4 + 0.3 * ((t >= 10) & (t < 12))), learn=lambda at: not 10.02 <= at < 12.05)
    assert told == [] and settled == []


@pytest.mark.parametrize("step_s", [pytest.param(15.0, marks=pytest.mark.slow), 3600.0])
def test_any_interval_will_do(step_s):
    """Seconds or an hour."""
    t = days(9.6, step_s)
    _, settled = play(noisy(0.4 + 0.3 * (t >= 7.7), columns=2), step_s=step_s)
    assert sorted(i for _, i in settled) == [0, 1]


def test_gaps_do_not_count():
    """Half of the samples are missing, a day is silent: told once all the same."""
    t = days(20)
    x = noisy(0.4 + wave(t) + 0.3 * (t >= 12))
    x[np.random.default_rng(1).random(x.shape) < 0.5] = np.nan
    x[(t[:, 0] > 9) & (t[:, 0] < 10)] = np.nan
    _, settled = play(x)
    assert sorted(i for _, i in settled) == list(range(8))


def test_several_signals_of_an_entity_are_one_note():
    """The first three by name, the others counted."""
    of = tuple(cpu(i, entity="service//a", name=f"s{i}") for i in range(5))
    t = days(14)
    told, settled = play(noisy(0.4 + 0.3 * (t >= 10), columns=5, scale=0.001), of=of)
    [(_, a)] = told
    assert len(settled) == 5 and a.text.count("has a new normal") == 3 and a.text.endswith(", 2 more signals")


def test_a_fleet_that_settles_is_not_a_thousand_notes():
    """Twenty in words, one of them counts the rest; every entity is named to whoever holds masks."""
    of, t = tuple(cpu(i, entity=f"k{i % 40}//s{i}") for i in range(200)), days(12)
    told, settled = play(noisy(0.4 + 0.3 * (t >= 10), columns=200, scale=0.001), of=of)
    assert len(settled) == 200 and len({a.entity for _, a in told}) == 200
    shown = [a.text for _, a in told if a.text]
    assert len(shown) == MOST_TOLD and shown[-1].endswith("; 180 more entities with a new normal")


def test_it_costs_64_bytes_a_signal():
    """However long it runs."""
    drift, of = Drift(), tuple(cpu(i) for i in range(1000))
    for k in range(40):
        drift.observe(frame(MONDAY + k * QUARTER_S, np.full(1000, 0.5), of))
    assert sum(getattr(drift, name).nbytes for name in Drift.BY_SIGNAL) <= 64 * 1000
    assert len(pickle.dumps(drift.state())) < 64 * 1000 + 50_000


@pytest.mark.parametrize("odd", [1e300, -1e300, 5e-324, np.inf, np.nan])
def test_absurd_values_pass(odd):
    """One of them makes no new normal, and does not hide the next."""
    t = days(30)
    x = noisy(0.4 + 0.3 * (t >= 20), columns=2)
    x[1000, 0] = odd
    _, settled = play(x)
    assert [i for _, i in settled].count(1) == 1 and [i for _, i in settled].count(0) <= 1


def test_counters_of_a_signal_follow_its_column():
    """After a restart on other columns it goes on as before."""
    t = days(16)
    x = noisy(0.4 + wave(t) + 0.3 * (t >= 10), columns=3)
    cut = 144 * 11
    whole = play(x)[1]
    first = Drift()
    play(x[:cut], detector=first)
    second, state = Drift(), first.state()
    second.restore({k: v[..., [1, 2]] if k in Drift.BY_SIGNAL else v for k, v in pickle.loads(pickle.dumps(state)).items()})
    of = (cpu(0, entity="service//s1"), cpu(1, entity="service//s2"))
    _, settled = play(x[cut:, 1:], detector=second, of=of, start=MONDAY + cut * STEP_S)
    assert [(round(at + 11, 3), i + 1) for at, i in settled] == [(round(at, 3), i) for at, i in whole if i > 0]
    assert len(settled) == 2


# ------------------------------------------------------------------------------------------------------- together
def crowd_notes(x, **more):
    return [(at, a) for at, a in play(x, **more)[0] if a.name == "crowd"]


def test_a_kind_that_moves_together_is_told_within_minutes():
    """Forty nodes a little hotter after an update, each by too little to be worth telling of one."""
    t = days(12, 60.0)
    of = tuple(cpu(i, entity=f"node//n{i}", min_abs=0.2) for i in range(40))
    [(at, a)] = crowd_notes(noisy(0.4 + wave(t) + 0.05 * (t >= 10.3), columns=40), of=of, step_s=60.0)
    assert 10.3 < at < 10.3 + 3 * HOUR_S / DAY_S
    assert (a.entity, a.p_value) == ("node//*", 1.0)
    assert re.fullmatch(r"40 signals together moved up by \d\.\d times of what is usual", a.text)


def test_a_daily_wave_or_a_few_signals_are_no_crowd():
    """What everybody does every day, and what nine signals do."""
    t = days(12)
    assert crowd_notes(noisy(0.4 + wave(t, 0.3), columns=40)) == []
    assert crowd_notes(noisy(0.4 + 0.3 * (t >= 10), columns=FEWEST - 1)) == []


def test_weekends_that_move_everything_are_told_once():
    """And then known."""
    assert len(crowd_notes(noisy(week(days(35)), columns=20))) <= 1
    assert REST_S > 7 * DAY_S


def test_crowds_are_bounded():
    """Kinds, and members of each."""
    crowd = Crowd()
    assert [crowd.place(f"k{i}") for i in range(MAX_KINDS + 2)] == [*range(MAX_KINDS), -1, -1]
    assert [crowd.place("k0") for _ in range(MOST)].count(-1) == 1


# -------------------------------------------------------------------------------------------------- the pipeline
class Judge:
    """Remembers what it was told to learn anew."""

    def __init__(self):
        self.anew = []

    def observe(self, frame):
        self.at = frame.at
        return ()

    def relearn(self, columns):
        self.anew += [(self.at, int(c)) for c in columns]

    def state(self):
        return {}

    def restore(self, state):
        """Nothing to restore."""


def steps(p, x):
    feed = Feed()
    return [p.step(feed.batch(MONDAY + k * STEP_S, {f"service//s{i} cpu": float(v) for i, v in enumerate(row)}))
            for k, row in enumerate(x)]


@pytest.mark.slow
def test_whoever_judges_levels_learns_the_new_one_in_the_same_step():
    """Once, and nobody is asked who cannot."""
    t, judge = days(16), Judge()
    reports = steps(bare_pipeline([Drift(), judge]), noisy(0.4 + 0.3 * (t >= 10), columns=2))
    told = [(r.at, n) for r in reports for n in r.notes]
    assert sorted(c for _, c in judge.anew) == [0, 1]
    assert sorted({at for at, _ in judge.anew}) == sorted({at for at, _ in told})
    assert told[0][1].startswith("service//s0: cpu has a new normal: 0.4")


@pytest.mark.slow
def test_models_in_service_and_on_trial_learn_it():
    """`Generations` hands on what its detector offers, once for each step that it took part in."""
    drift, baseline = generations("drift"), generations("baseline")
    asked = []
    baseline.serving.detector.relearn = lambda columns: asked.append(columns.tolist())
    t = days(14)
    steps(bare_pipeline([drift, baseline]), noisy(0.4 + 0.3 * (t >= 10), columns=1))
    assert asked == [[0]]
    baseline.candidate = Model("baseline")
    baseline.candidate.detector.relearn = lambda columns: asked.append((columns.tolist(), "candidate"))
    baseline.relearn(np.array([3], np.int32))
    assert asked[1:] == [[3], ([3], "candidate")]
    assert len(generations("logs").settled) == 0
    drift.observe(frame(MONDAY, [1.0], (cpu(),)))
    assert len(drift.settled) == 0, "a frame of the past is passed over"


@pytest.mark.slow
def test_a_new_normal_closes_its_incident():
    """With the baseline: the incident that it opened is over soon after, and nothing is odd from then on."""
    t = days(16)
    p = pipeline(detectors=("baseline", "drift"))
    reports = steps(p, noisy(10 + 4.0 * (t >= 10), columns=1, scale=0.2))
    told = [(r.at - MONDAY) / DAY_S for r in reports for n in r.notes if "has a new normal" in n]
    assert len(told) == 1 and 11 < told[0] < 12.5
    incidents = {i.id: i for r in reports for i in r.incidents}
    assert [i.state for i in incidents.values()] == ["closed"] * len(incidents)
    assert all((i.closed_at - MONDAY) / DAY_S < told[0] + 0.2 for i in incidents.values())


def test_river_is_only_needed_when_there_is_a_crowd():
    """Its import takes seconds, and is asked for before the first step."""
    assert "import river.drift" in Path(__file__).parents[1].joinpath("detectors/drift.py").read_text(encoding="utf-8")
    crowd = Crowd()
    assert crowd._windows == [None] * MAX_KINDS
    list(crowd.moved(MONDAY, np.zeros(FEWEST - 1), np.zeros(FEWEST - 1, np.int8)))
    assert crowd._windows == [None] * MAX_KINDS
