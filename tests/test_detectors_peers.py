"""Who is compared with whom, which member is told, and what is left alone."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from helpers import STEP_S, T0, frame, frames, noise, signals
from hypothesis import given, settings
from hypothesis import strategies as st

from aiops.alerting import Alerting
from aiops.budget import MIN_LEVEL
from aiops.ladder import CAP_SHARE
from aiops.models import picked
from aiops.types import Signal
from detectors._habit import Habit
from detectors._kin import Groups, owner, shown
from detectors.peers import CLEAR, PORTION, READY_AFTER, Peers

TICK_S = 15.0
HOUR, MINUTE = 240, 4
"""In ticks."""
DAY_S = 86_400.0


# ------------------------------------------------------------------------------------------------------- builders
def ranks(count, jobs=1, name="step_seconds", **meaning):
    """The ranks of jobs, as one entity with a label each; as unknown to any pack."""
    meaning = {"min_rel": 0.25, **meaning}
    return tuple(Signal(j * count + k, f"job/ml/train{chr(97 + j)}", name, f'rank="{k}"', **meaning)
                 for j in range(jobs) for k in range(count))


def fleet(ticks, count, jobs=1, share=0.02, seed=0, usual=0.2):
    """values[ticks, jobs * count]: a common hourly wave of 30 % with steps in it, a usual factor a member, and noise."""
    rng = np.random.default_rng(seed)
    k = np.arange(ticks)[:, None, None]
    level = rng.uniform(1, 50, (1, jobs, 1)) * (1 + 0.3 * np.sin(2 * np.pi * (k / HOUR + rng.uniform(0, 1, (1, jobs, 1)))))
    for job in range(jobs):
        level[rng.integers(HOUR // 2, HOUR):, job] *= rng.uniform(0.7, 1.4)
    own = rng.uniform(1 - usual, 1 + usual, (1, jobs, count))
    return (level * own * (1 + share * rng.standard_normal((ticks, jobs, count)))).reshape(ticks, -1)


def told(values, of, learn=True):
    """What is reported in each tick."""
    detector = Peers()
    return [detector.observe(f) for f in frames(values, of, TICK_S, learn=learn)]


def alarms(values, of, peers=None, start=T0):
    """Column -> tick of its first alarm, at a budget of one a day."""
    detector, alerting, out = peers or Peers(), Alerting(), {}
    place = {f"{s.entity}|{s.key}": s.id for s in of}
    for k, f in enumerate(frames(values, of, TICK_S, start)):
        for alert in alerting.update(f, detector.observe(f)):
            if alert.state == "firing":
                out.setdefault(place[alert.key], k)
    return out


# ------------------------------------------------------------------------------------------------- who is of one kind
@pytest.mark.parametrize(("entity", "expected"), [
    ("pod/shop/api-7d4f9c6b5d-x2k9z", "pod/shop/api"), ("pod/shop/api-7d4f-x2x", "pod/shop/api"),
    ("pod/shop/api-0", "pod/shop/api"), ("pod/shop/api-v2-7d4f9c6b5d-x2k9z", "pod/shop/api-v2"),
    ("pod/kube-system/fluent-bit-bcdfg", "pod/kube-system/fluent-bit"), ("pod/ml/train-3-x2k9z", "pod/ml/train"),
    ("pod/ops/backup-28391040-bcdfg", "pod/ops/backup"), ("pod/shop/redis-cache", "pod/shop/redis-cache"),
    ("persistentvolumeclaim/db/data-kafka-0", "persistentvolumeclaim/db/data-kafka"),
    ("gpu/gpu-3/0", "gpu/gpu-3/"), ("node//gpu-3", "node//gpu"), ("node//h100-04", "node//h100"),
    ("node//ip-10-0-1-7.ec2.internal", "node//ip"), ("node//10.0.1.7:9100", "node//"),
    ("node//worker3.dc1.example", "node//worker"), ("node//gke-prod-pool-8f3a2b1c-x7k2", "node//gke-prod-pool-8f3a2b1c"),
    ("instance//10.0.0.1:8000", "instance//8000"),
    ("service//cart1", "service//cart1"), ("process/host/python-3", "process/host/python-3"), ("odd", "odd//")])
def test_the_owner_is_read_off_the_name(entity, expected):
    """Pods of a workload, GPUs of a host, nodes of a pool, scrape targets of a port; services are no kin of each other."""
    assert owner(entity) == expected


def test_labels_that_number_members_do_not_part_them():
    """A rank is a member, a device is another quantity."""
    one, two = Signal(0, "job//t", "x", 'device="a",rank="0"'), Signal(1, "job//t", "x", 'device="a",rank="1"')
    assert shown(one) == shown(two) != shown(Signal(2, "job//t", "x", 'device="b",rank="1"')) != shown(Signal(3, "job//t", "y"))


@pytest.mark.slow
@settings(max_examples=50, deadline=None, derandomize=True)
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=8), seed=st.integers(0, 2**32 - 1), gone=st.floats(0, 1))
def test_medians_are_those_of_each_group(sizes, seed, gone):
    """As a loop over the groups says, whatever their sizes, with NaN, and however the signals came."""
    rng = np.random.default_rng(seed)
    of = [f"node//{'abcdefgh'[g]}-{k}" for g, size in enumerate(sizes) for k in range(size)]
    order = rng.permutation(len(of))
    mixed = tuple(Signal(i, of[j], "x") for i, j in enumerate(order))
    groups, in_turn = Groups(), Groups()
    groups.extend(mixed)
    for count in range(len(mixed) + 1):
        in_turn.extend(mixed[:count])
    x = np.where(rng.uniform(size=len(of)) < gone, np.nan, rng.normal(size=len(of)))
    assert np.array_equal(in_turn.columns, groups.columns) and np.array_equal(in_turn.group, groups.group)
    members = [[i for i, s in enumerate(mixed) if owner(s.entity).endswith(letter)] for letter in "abcdefgh"]
    large = sorted((m for m in members if len(m) >= 3), key=lambda m: m[2])
    assert groups.count == len(large)
    if not large:
        return
    for g, m in enumerate(large):
        assert groups.columns[groups.group == g].tolist() == m
        here = np.sort(x[m][np.isfinite(x[m])])
        expected = (np.median(here), here[len(here) // 2]) if len(here) else (np.nan, np.nan)
        found = [groups.median(x[groups.columns], upper)[g] for upper in (False, True)]
        assert found == pytest.approx(expected, nan_ok=True)


# ------------------------------------------------------------------------------------------------------ what is found
@pytest.mark.parametrize(("count", "share"), [(8, 0.01), (8, 0.02), (64, 0.02), (5, 0.01)])
def test_a_straggler_that_is_five_percent_slow_is_found(count, share):
    """Half of them within six minutes, all within ten, under waves and steps that all share; nobody else is accused."""
    jobs, start = 8, 3 * HOUR
    x = fleet(start + 10 * MINUTE, count, jobs, share, seed=count)
    x[start:, 2::count] *= 1.05
    found = alarms(x, ranks(count, jobs))
    assert sorted(found) == list(range(2, count * jobs, count))
    assert min(found.values()) >= start and np.median(list(found.values())) <= start + 6 * MINUTE


def test_a_jump_is_found_at_once():
    """Within a minute."""
    x = fleet(HOUR + 10, 8, 4)
    x[HOUR:, 1::8] *= 1.5
    found = alarms(x, ranks(8, 4))
    assert sorted(found) == [1, 9, 17, 25] and max(found.values()) <= HOUR + MINUTE


@pytest.mark.parametrize(("sick", "count"), [(2, 5), (3, 8), (3, 7)])
def test_fewer_than_half_cannot_hide(sick, count):
    """The sick are told, the healthy are not."""
    start = 3 * HOUR
    x = fleet(start + 15 * MINUTE, count, 4, 0.01, seed=sick)
    for k in range(sick):
        x[start:, k::count] *= 1.08
    found = alarms(x, ranks(count, 4))
    assert {c % count for c in found} == set(range(sick)) and len(found) >= 0.9 * 4 * sick


@pytest.mark.parametrize(("sick", "count"), [(4, 8), (2, 4), (1, 2), (5, 10)])
def test_of_halves_nobody_can_say_which_is_odd(sick, count):
    """Nor in a group of two."""
    x = fleet(2 * HOUR, count, 4, 0.01)
    for k in range(sick):
        x[HOUR:, k::count] *= 1.5
    assert alarms(x, ranks(count, 4)) == {}


def test_the_only_replica_with_errors_is_told():
    """Where there were none, and the others still have none."""
    x = np.zeros((HOUR, 8))
    x[100:, 3] = np.random.default_rng(1).poisson(5, HOUR - 100)
    assert set(alarms(x, ranks(8, direction="up"))) == {3}


def test_one_that_stops_while_the_others_go_on_is_told():
    """All wave; one stands still."""
    x = fleet(2 * HOUR, 8)
    x[HOUR:, 4] = x[HOUR - 1, 4]
    assert set(alarms(x, ranks(8))) == {4}


@pytest.mark.slow
def test_the_lasting_difference_of_a_member_is_learned_and_its_change_is_told():
    """Rank 0 holds twice as much; that is a fact. Ten per cent more is news."""
    x = fleet(3 * HOUR, 8, share=0.01)
    x[:, 0] *= 2
    of = ranks(8)
    assert alarms(x, of) == {}
    x[2 * HOUR:, 0] *= 1.1
    assert set(alarms(x, of)) == {0}


# -------------------------------------------------------------------------------------------------- what is left alone
@pytest.mark.parametrize("step", [lambda x: x * 1.6, lambda x: x + 30, lambda x: x * 0.4])
def test_what_happens_to_all_happens_to_nobody(step):
    """A step of the whole group, although its members differ by a sum or by a multiple, and nothing has told yet which."""
    own = np.array([0, 0, 5, 10, -5, 20, 0, 0])
    x = 40 + own + noise(2 * HOUR, 8, 0.0, 0.5)
    x[HOUR:] = step(x[HOUR:] - noise(HOUR, 8, 0.0, 0.5, 1)) + noise(HOUR, 8, 0.0, 0.5, 1)
    assert alarms(x, ranks(8, direction="both")) == {}


@pytest.mark.slow
def test_a_rolling_deploy_is_left_alone():
    """Each pod goes, and one with another name and level comes; then one of the new is slow, and is told."""
    old = [f"pod/shop/api-7d4f9c6b5d-x2k{i}z" for i in range(2, 8)]
    new = [f"pod/shop/api-5f6b8c9d7f-b4k{i}x" for i in range(2, 8)]
    of = tuple(Signal(i, e, "latency", direction="up", min_rel=0.25) for i, e in enumerate(old + new))
    x = fleet(3 * HOUR, 12, share=0.01, usual=0.3)
    for i in range(6):
        x[HOUR + 8 * i:, i] = np.nan
        x[:HOUR + 8 * i + 6, 6 + i] = np.nan
    assert alarms(x, of) == {}
    x[5 * HOUR // 2:, 8] *= 1.1
    assert set(alarms(x, of)) == {8}


@pytest.mark.slow
def test_missing_samples_are_no_deviation():
    """A third of them lost at random."""
    x = fleet(3 * HOUR, 8, 4, 0.01)
    x[np.random.default_rng(5).uniform(size=x.shape) < 0.33] = np.nan
    of = ranks(8, 4)
    assert alarms(x, of) == {}
    x[2 * HOUR:, 9] *= 1.08
    assert set(alarms(x, of)) == {9}


def test_constant_series_are_left_alone_until_one_changes():
    """And so are the last bits of a float."""
    x = np.full((2 * HOUR, 5), 1980.0) * (1 + 1e-15 * np.arange(5))
    of = ranks(5, direction="down")
    assert told(x, of) == [[]] * 2 * HOUR
    x[HOUR:, 1] = 1200
    assert set(alarms(x, of)) == {1}


def test_a_leader_among_idle_followers_is_not_of_their_kind():
    """Its load is its own."""
    x = np.zeros((4 * HOUR, 5))
    k = np.arange(len(x))
    x[:, 2] = 100 * (1 + 0.5 * np.sin(2 * np.pi * k / HOUR)) * (1 + 0.02 * noise(len(x))[:, 0])
    assert alarms(x, ranks(5)) == {}


def test_it_is_silent_before_a_member_is_ready():
    """Thirty samples, whatever they are."""
    x = noise(READY_AFTER, 8)
    x[10:, 0] = 1e6
    assert told(x, ranks(8)) == [[]] * READY_AFTER


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["normal", "student", "wandering"])
def test_p_values_are_what_they_say(kind):
    """No more than twice as many below 0.001 as there should be, and not none; hardly an alarm in half a day."""
    rng = np.random.default_rng(11)
    shape = (12 * HOUR, 96)
    e = rng.standard_t(3, shape) / 3**0.5 if kind == "student" else rng.standard_normal(shape)
    if kind == "wandering":
        for k in range(1, len(e)):
            e[k] = 0.95 * e[k - 1] + (1 - 0.95**2)**0.5 * e[k]
    x = fleet(len(e), 8, 12, 0.0) * (1 + 0.08 * e)
    of = ranks(8, 12)
    assert 2e-4 < sum(map(len, told(x, of))) / x.size < 2e-3
    assert len(alarms(x, of)) <= 1


# ----------------------------------------------------------------------------------------------------------- meaning
@pytest.mark.parametrize(("direction", "up", "down"), [("up", True, False), ("down", False, True), ("both", True, True)])
def test_only_the_bad_direction_is_told(direction, up, down):
    """Being faster than the others is no trouble."""
    for factor, expected in ((1.3, up), (0.7, down)):
        x = fleet(HOUR + 20, 8, share=0.01)
        x[HOUR:, 5] *= factor
        assert (5 in alarms(x, ranks(8, direction=direction))) == expected


@pytest.mark.slow
@pytest.mark.parametrize(("meaning", "expected"), [
    ({"min_rel": 0.25}, True), ({"min_rel": 0.0}, True), ({"min_rel": 1.0}, False),
    ({"min_abs": 1.0}, False), ({"min_abs": 0.3}, True)])
def test_the_least_effect_is_that_of_the_meaning(meaning, expected):
    """The least sum as it is; of the least share a tenth, because peers share what makes a signal vary. Here 6 % of 10."""
    x = noise(3 * HOUR, 8, 10.0, 0.05)
    x[2 * HOUR:, 5] += 0.6
    assert (5 in alarms(x, ranks(8, **meaning))) == expected


def test_less_than_two_percent_is_never_told():
    """However clear it is."""
    x = noise(3 * HOUR, 8, 10.0, 0.001)
    x[2 * HOUR:, 5] += 0.19
    assert alarms(x, ranks(8, min_rel=0.0)) == {}


def test_an_anomaly_says_by_how_much_and_since_when():
    """Value, what the peers lead to expect, band, and the first tick of the excursion."""
    x = noise(3 * HOUR, 8, 10.0, 0.1)
    x[:, 0] += 1
    x[2 * HOUR:, 0] *= 1.06
    of = ranks(8, unit="seconds", direction="up")
    found = [a for step in told(x, of) for a in step if a.signal == 0 and a.at >= T0 + TICK_S * (2 * HOUR + 20)]
    a = found[0]
    assert (a.entity, a.name, a.detector) == ("job/ml/traina", 'step_seconds{rank="0"}', "peers")
    assert a.value == x[int((a.at - T0) / TICK_S), 0]
    assert 10.7 < a.expected < 11.3 and a.lower < a.expected < a.upper < 12
    assert abs(a.onset - (T0 + 2 * HOUR * TICK_S)) <= 5 * TICK_S
    assert a.text.startswith('step_seconds{rank="0"} ') and a.text.endswith("% above its 7 peers, beyond its usual difference")
    assert 4 < float(a.text.split()[1]) < 7


def test_evidence_of_one_excursion_counts_once():
    """Told to the end, and adding up to what its best moment says."""
    x = fleet(8 * HOUR, 8, share=0.02)
    x[4 * HOUR:, 3] *= 1.04
    steps = told(x[:4 * HOUR + 30 * MINUTE], ranks(8))
    nats = [np.log(1e-3 / a.p_value) for step in steps for a in step if a.signal == 3]
    assert len(nats) > 20 and 0 < sum(nats) < 40 and nats[-1] == 0
    assert PORTION <= CAP_SHARE * MIN_LEVEL and CLEAR == MIN_LEVEL  # they may not import each other


# ------------------------------------------------------------------------------------------------------------- masks
def test_an_excursion_ends_with_the_mask():
    """What was seen while nothing was learned is over when learning goes on: nothing is told of it afterwards."""
    of, x = ranks(8), fleet(4 * HOUR, 8, share=0.01)
    x[2 * HOUR:3 * HOUR, 1] *= 1.1
    held = np.zeros(len(x), np.bool_)
    held[2 * HOUR + 2:3 * HOUR] = True
    detector, found = Peers(), []
    for k, row in enumerate(x):
        found.append([a.signal for a in detector.observe(frame(T0 + k * TICK_S, row, of, not held[k]))])
    assert [1] in found[3 * HOUR - 5:3 * HOUR] and not any(found[3 * HOUR:])


@pytest.mark.slow
def test_the_same_straggler_is_found_again_the_next_day():
    """Its fault of six hours was masked and taught nothing."""
    of, detector, delays = ranks(8), Peers(), []
    rng = np.random.default_rng(2)
    x = 10 * (1 + 0.01 * rng.standard_normal((2, 9 * HOUR, 8)))
    x[:, 3 * HOUR:, 6] *= 1.05
    for day in range(2):
        alerting, fired = Alerting(), None
        for k, row in enumerate(x[day]):
            f = frame(T0 + day * DAY_S + k * TICK_S, row, of, fired is None)
            if fired is None and any(a.state == "firing" for a in alerting.update(f, detector.observe(f))):
                fired = k
            elif fired is not None:
                detector.observe(f)
        delays.append(fired - 3 * HOUR)
    assert 0 <= delays[0] <= 8 * MINUTE and 0 <= delays[1] <= 8 * MINUTE


# ------------------------------------------------------------------------------------------------------------- habits
@pytest.mark.slow
def test_a_nightly_job_of_one_member_is_news_twice():
    """From the third night on it is expected at its hour, and at no other."""
    of, detector, nights = ranks(6), Peers(), []
    rng, step = np.random.default_rng(3), 300.0
    for day in range(6):
        x = 10 * (1 + 0.01 * rng.standard_normal((288, 6)))
        at = 36 if day < 5 else 150
        x[at:at + 4, 2] += 20
        alerting, fired = Alerting(), False
        for f in frames(x, of, step, T0 + day * DAY_S):
            fired |= any(a.state == "firing" for a in alerting.update(f, detector.observe(f)))
        nights.append(fired)
    assert nights == [True, True, False, False, False, True]


@settings(max_examples=30, deadline=None, derandomize=True)
@given(hours=st.lists(st.integers(0, 300), min_size=1, max_size=12))
def test_habits_are_counted_in_days(hours):
    """As the list of hours says: at this time of the day, give or take an hour, on two of the seven days before."""
    hours = np.cumsum(hours).tolist()
    habit, here = Habit(), np.array([0])
    habit.lay_out(np.array([-1]))
    for now in hours:
        habit.enter(3600.0 * now + 17)
        days = {round((now - h) / 24) for h in hours if h < now and abs((now - h + 12) % 24 - 12) <= 1}
        assert habit.usual(here)[0] == (len(days & set(range(1, 8))) >= 2), (hours, now)
        habit.mark(here)


# -------------------------------------------------------------------------------------------------------------- input
def test_groups_that_grow_keep_what_they_know():
    """A newcomer in front of or behind others moves their places, and nothing else: the straggler is found all the same."""
    rng = np.random.default_rng(4)
    names = [f"node//{pool}-{k}" for k in range(6) for pool in "ab"]
    of = tuple(Signal(i, e, "x", min_rel=0.25) for i, e in enumerate(names))
    detector, alerting, found = Peers(), Alerting(), set()
    for k in range(3 * HOUR):
        shown = of[:8 + min(4, k // 100)]
        row = 10 * (1 + 0.01 * rng.standard_normal(len(of)))
        row[3] *= 1.1 if k >= 2 * HOUR else 1
        f = frame(T0 + k * TICK_S, row[:len(shown)], shown)
        found |= {a.entity for a in alerting.update(f, detector.observe(f)) if a.state == "firing"}
    assert found == {"node//b-1"}


@pytest.mark.slow
def test_numbers_at_the_edge_break_nothing():
    """Huge, tiny and negative values, alone and together, and back to normal; the next fault is found."""
    of, x = ranks(6), 10 + noise(4 * HOUR, 6, 0.0, 0.1)
    for k, odd in enumerate((1e300, -1e300, 5e-324, np.inf, -np.inf, 0.0, 1e150)):
        x[100 + 2 * k, k % 6] = odd
        x[150 + 2 * k] = odd
    x[3 * HOUR:, 5] += 5
    found = alarms(x, of)
    assert found.pop(5) >= 3 * HOUR and set(found) <= set(range(5))
    assert all(k < 200 for k in found.values())


def test_signals_that_are_no_groups_cost_nothing():
    """No place is kept for them."""
    of, detector = signals(*(f"service//s{i} x" for i in range(50))), Peers()
    for f in frames(noise(40, 50), of, STEP_S):
        assert detector.observe(f) == []
    assert len(detector.n) == 0 == len(detector.told)
    assert not detector.state()["grouped"].any() and np.isnan(detector.state()["n"]).all()


# ------------------------------------------------------------------------------------------------------ over a restart
def straggling(ticks=3 * HOUR, start=2 * HOUR):
    """Two jobs of five ranks each and five signals that stand alone, in turn; rank 2 of job a gets slow at `start`."""
    of = [s for three in zip(ranks(5), ranks(5, 2)[5:], signals(*(f"service//s{i} x" for i in range(5))), strict=True)
          for s in three]
    x = np.random.default_rng(11).normal(10, 0.1, (ticks, 15))
    x[start:, 6] *= 1.1
    return x, tuple(replace(s, id=i) for i, s in enumerate(of))


def restored(state, columns=None):
    detector = Peers()
    detector.restore(picked(state, Peers.BY_SIGNAL, None if columns is None else np.array(columns)))
    return detector


def same(a, b):
    return pickle.dumps(a) == pickle.dumps(b)


@pytest.mark.slow
@pytest.mark.parametrize("cut", [0, 5, 2 * HOUR - 1, 2 * HOUR + 3, 2 * HOUR + 40])
def test_a_restart_changes_no_bit(cut):
    """Before, in and after the first minutes of a fault; and what is restored can be saved again at once."""
    x, of = straggling()
    detector, before = Peers(), list(frames(x[:cut], of, TICK_S))
    for f in before:
        detector.observe(f)
    state = detector.state()
    again = restored(state)
    assert same(again.state(), state)
    later = list(frames(x[cut:], of, TICK_S, T0 + cut * TICK_S))
    found = [detector.observe(f) for f in later]
    assert any(found) and [again.observe(f) for f in later] == found
    assert same(again.state(), detector.state())


@pytest.mark.parametrize("gone", ["group", "alone"])
def test_what_is_forgotten_of_others_changes_nothing_for_a_group(gone):
    """The other job, or signals that were in no group. The straggler is told in the same ticks with the same words, and the
    group's own arrays are the same to the last bit."""
    x, of = straggling()
    keep = [i for i in range(15) if i % 3 != (1 if gone == "group" else 2)]
    mine, cut = [i for i in range(15) if i % 3 == 0], 2 * HOUR + 2
    whole = Peers()
    for f in frames(x[:cut], of, TICK_S):
        whole.observe(f)
    part, fewer = restored(whole.state(), keep), tuple(replace(of[c], id=i) for i, c in enumerate(keep))
    told = []
    for f, g in zip(frames(x[cut:], of, TICK_S, T0 + cut * TICK_S), frames(x[cut:, keep], fewer, TICK_S, T0 + cut * TICK_S),
                    strict=True):
        expected = [replace(a, signal=0) for a in whole.observe(f) if a.signal in mine]
        assert [replace(a, signal=0) for a in part.observe(g) if keep[a.signal] in mine] == expected
        told += expected
    assert {a.entity for a in told} == {"job/ml/traina"}
    left, right = (picked(s, Peers.BY_SIGNAL, np.array(c)) for s, c in
                   ((whole.state(), mine), (part.state(), [keep.index(i) for i in mine])))
    assert same(left, right)


def test_a_group_that_lost_members_goes_on_with_what_it_knew():
    """Its tails and usual differences stay, the straggler is told at once; of two that are left nothing is told, and what they
    knew is gone: when a third comes, all three begin."""
    x, of = straggling()
    detector, cut = Peers(), 2 * HOUR
    for f in frames(x[:cut], of, TICK_S):
        detector.observe(f)
    state = detector.state()
    keep = [3, 6, 12]
    part, fewer = restored(state, keep), tuple(replace(of[c], id=i) for i, c in enumerate(keep))
    found = [part.observe(f) for f in frames(x[cut:cut + HOUR, keep], fewer, TICK_S, T0 + cut * TICK_S)]
    assert {a.signal for step in found for a in step} == {1} and any(found[:2])
    pair = restored(state, keep[:2])
    assert not any(pair.observe(f) for f in frames(x[cut:cut + HOUR, keep[:2]], fewer[:2], TICK_S, T0 + cut * TICK_S))
    assert not pair.state()["grouped"].any()
    pair.observe(next(iter(frames(x[:1, keep], fewer, TICK_S, T0 + (cut + HOUR) * TICK_S))))
    assert pair.state()["grouped"].all() and pair.state()["n"].tolist() == [1, 1, 1]


def test_groups_that_change_numbers_keep_their_tails():
    """Job b was complete after job a; without the first signals of a it is complete before it."""
    x, of = straggling()
    detector = Peers()
    for f in frames(x[:2 * HOUR], of, TICK_S):
        detector.observe(f)
    keep = [1, 4, 6, 7, 9, 12]
    part, fewer = restored(detector.state(), keep), tuple(replace(of[c], id=i) for i, c in enumerate(keep))
    silent = frame(T0 + 2 * HOUR * TICK_S, np.full(6, np.nan), fewer)
    part.observe(silent)
    before, after = picked(detector.state(), Peers.BY_SIGNAL, np.array(keep)), part.state()
    for look in ("jumps", "drifts"):
        assert len(set(after[look]["u"])) == 2
        assert all(np.array_equal(before[look][k], after[look][k]) for k in before[look])
