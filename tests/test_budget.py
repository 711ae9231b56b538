"""What was promised is what comes: false incidents on synthetic evidence, and everything that moves the level."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest
from helpers import frame, signals

from aiops import budget, habits
from aiops.alerting import Alerting
from aiops.budget import Budget, K, aim, memory_s
from aiops.habits import Habits
from aiops.ladder import CAP_SHARE, RUNGS
from aiops.types import Anomaly

DAY_S, STEP_S = 86_400.0, 900.0
OF = signals(*(f"service//s{i} x" for i in range(20)))
ONES = np.ones(len(OF))
HEIGHTS = {"exponential": lambda rng: rng.exponential(1.5), "Pareto": lambda rng: rng.pareto(2.0)}


class Fleet:
    """Innocent excursions, thirty a day, of a few samples each; their height in nats a sample is drawn from a law."""

    def __init__(self, per_s=DAY_S, law="exponential", seed=0):
        self.rng, self.height = np.random.default_rng(seed), HEIGHTS[law]
        self.alerting, self.running, self.k = Alerting(1.0, per_s), {}, 0
        self.firing, self.fired = set(), []

    def day(self, days=1.0):
        for _ in range(round(days * DAY_S / STEP_S)):
            self.step()
        return self

    def step(self):
        at, self.k = self.k * STEP_S, self.k + 1
        for _ in range(self.rng.poisson(30 * STEP_S / DAY_S)):
            self.running.setdefault(int(self.rng.integers(len(OF))), [int(self.rng.geometric(0.3)), self.height(self.rng) + 0.5])
        odd = [Anomaly(at, OF[i].entity, "x", 1.0, max(math.exp(-K - h), 1e-300), "baseline", i)
               for i, (_, h) in sorted(self.running.items())]
        self.running = {i: [left - 1, h] for i, (left, h) in self.running.items() if left > 1}
        now = {a.key for a in self.alerting.update(frame(at, ONES, OF), odd) if a.state == "firing"}
        self.fired += [at / DAY_S] * len(now - self.firing)
        self.firing = now


def poisson(expected):
    """The counts that 99 % of quiet fleets stay within."""
    return expected - 2.6 * math.sqrt(expected), expected + 2.6 * math.sqrt(expected)


# ---------------------------------------------------------------------------------------------------- what is promised
@pytest.mark.slow
@pytest.mark.parametrize("law", HEIGHTS)
def test_the_time_between_false_alarms_is_what_was_asked_for(law):
    """One a day in the weeks after the first, whatever law the evidence follows; without the budget it would be tens."""
    fleet = Fleet(law=law, seed=1).day(42)
    low, high = poisson(35.0)
    assert low <= sum(at >= 7 for at in fleet.fired) <= high


def test_the_first_two_weeks_are_no_flood():
    """At most three times what was promised, from the first sample on."""
    assert len(Fleet(seed=8).day(14).fired) <= 3 * 14


@pytest.mark.slow
def test_a_smaller_budget_asks_for_more():
    """And pages less."""
    fleets = [Fleet(per_s=per_s, seed=2).day(12) for per_s in (DAY_S, 7 * DAY_S, 30 * DAY_S)]
    levels = [f.alerting.level for f in fleets]
    assert levels == sorted(levels) and levels[0] + 3.0 < levels[2]
    assert len(fleets[0].fired) > len(fleets[1].fired) > len(fleets[2].fired)


def test_a_fault_is_told_at_any_budget_within_a_few_samples():
    """Also where the level is high from years of restless signals: a sample may add this share of any level."""
    fleet = Fleet(per_s=30 * DAY_S, law="Pareto", seed=3).day(10)
    at, key = fleet.k * STEP_S, "service//s3|x"
    for k in range(math.ceil(1 / CAP_SHARE)):
        odd = [Anomaly(at + k * STEP_S, OF[3].entity, "x", 1.0, 1e-300, "baseline", 3)]
        alerts = fleet.alerting.update(frame(at + k * STEP_S, ONES, OF), odd)
    assert key in {a.key for a in alerts if a.state == "firing"}


# --------------------------------------------------------------------------------------------------------------- level
def ticks(to, count, start=0, paged=None, nats=20.0):
    """Ticks of the budget alone; `paged`: in these an incident opened that reaches so many nats and is told."""
    for k in range(start, start + count):
        to.watch(frame(k * STEP_S, ONES, OF))
        opened = (nats >= RUNGS) & to.reached & (k in (paged or ()))
        to.count(opened.astype(float), opened.astype(float))
    return to


def test_each_page_raises_the_level_at_once_and_quiet_lowers_it():
    """Nobody waits for the next hour after a page, nor for ever after it."""
    own = ticks(Budget(1.0, DAY_S), 200)
    before = own.level
    ticks(own, 1, 200, paged={200})
    assert own.level > before
    raised = own.level
    ticks(own, 3000, 201)
    assert own.level < raised


def test_what_people_say_moves_the_level():
    """Called useful, an incident is no reason to page less; called false more often than not, there is no limit any more."""
    paged, levels = set(range(200, 1200, 100)), {}
    for said in ("useful", "nothing", "false_alarm"):
        own = ticks(Budget(1.0, 7 * DAY_S), 1200, paged=paged, nats=60.0)
        for k in range(len(paged) if said != "nothing" else 0):
            own.judge(f"inc-{k}", said)
        levels[said] = ticks(own, 10, 1200).level
    assert levels["useful"] < levels["nothing"] < levels["false_alarm"]


def test_a_verdict_can_be_changed_and_only_the_newest_are_kept():
    """The last word on an incident counts, once."""
    own = Budget(1.0, DAY_S)
    for verdict in ("false_alarm", "useful", "useful"):
        own.judge("inc-1", verdict)
    assert own.false_share == 0.5
    for k in range(3 * budget.MAX_VERDICTS):
        own.judge(f"inc-{k}", "useful")
    assert len(own.state()["verdicts"]) == budget.MAX_VERDICTS


def test_what_was_healed_was_no_false_alarm_unless_somebody_says_so():
    """It counts like a useful one, and never against what a person says, before or after."""
    own = Budget(1.0, DAY_S)
    for k in range(3):
        own.healed(f"inc-{k}")
    assert own.false_share == 0.25
    own.judge("inc-0", "false_alarm")
    own.healed("inc-0")
    assert own.false_share == 0.5 and own.verdicts == ["healed", "healed", "false_alarm"]


def test_what_the_first_day_showed_counts_a_tenth_once_it_is_over():
    """A fleet that did ten things for the first time listens again on the second day; one that does them daily does not."""
    per_day = round(DAY_S / STEP_S)
    first, always = set(range(40, 90, 5)), {k + d * per_day for d in range(4) for k in range(40, 90, 5)}
    once, daily = (ticks(Budget(1.0, 7 * DAY_S), per_day, paged=paged) for paged in (first, always))
    evening = once.level
    assert daily.level == evening
    ticks(once, 3 * per_day, per_day, paged=first)
    ticks(daily, 3 * per_day, per_day, paged=always)
    assert once.level < 0.7 * daily.level < 0.7 * evening


def test_pages_that_nobody_calls_false_raise_the_level_only_so_far():
    """Ten incidents that nothing innocent resembles do not deafen a fleet; on its first day they do, until that is over."""
    later, first = ticks(Budget(1.0, 7 * DAY_S), 1000), Budget(1.0, 7 * DAY_S)
    calm = later.level
    ticks(later, 90, 1000, paged=set(range(1000, 1090, 9)), nats=90.0)
    assert calm < later.level <= budget.CALM_TIMES * (calm + 1.0) + budget.CALM_NATS
    assert ticks(first, 90, paged=set(range(0, 90, 9)), nats=90.0).level > 2 * later.level


def test_a_share_of_the_budget_and_a_level_belong_together():
    """Policies ask for it: all of the budget at the level in force, less and less above."""
    own = Fleet(seed=4).day(10).alerting.budget
    shares = [own.share(own.level + more) for more in (0.0, 2.0, 5.0, 20.0)]
    assert shares[0] == pytest.approx(1.0) and shares == sorted(shares, reverse=True)
    assert 0.0 < shares[-1] < 0.2 and own.share(0.0) == 1.0


def test_memory_and_reserve_follow_from_the_budget():
    """Three incidents' worth of it, between a week and 30 days; the fewer incidents that is, the more is kept in reserve."""
    assert [memory_s(1 / (d * DAY_S)) / DAY_S for d in (0.01, 1, 7, 30, 365)] == pytest.approx([7, 7, 21, 30, 30])
    kept = [aim(1 / (d * DAY_S)) * d * DAY_S for d in (0.01, 1, 7, 30)]
    assert kept == sorted(kept, reverse=True) and kept[0] > 0.99 and kept[-1] == pytest.approx(0.8)


# --------------------------------------------------------------------------------------------------------------- habits
def test_a_signal_that_is_often_odd_must_be_odder():
    """And the others need not: evidence of a restless one counts less, after a few of its excursions, and again later."""
    own = Habits(7 * DAY_S)
    for k in range(30):
        own.add(k * 3600.0, "restless", 40.0)
        own.add(k * 3600.0, "usual", 3.0)
    assert own.scale("restless") > 8.0 and own.scale("usual") == own.scale("unknown") == 1.0
    own.forget(60 * DAY_S)
    assert own.state() == {}


def test_habits_are_bounded(monkeypatch):
    """The one that was quiet the longest makes room."""
    monkeypatch.setattr(habits, "MAX_SIGNALS", 50)
    own = Habits(7 * DAY_S)
    for k in range(500):
        own.add(float(k), f"s{k}", 10.0)
    assert len(own.state()) == 50 and own.scale("s499") > 1.0 == own.scale("s0")


# ------------------------------------------------------------------------------------------------ restarts and bad input
def test_it_goes_on_after_a_restart_bit_for_bit():
    """State through JSON in the middle of everything: the same alerts and the same state in the end."""
    straight, stopped = Fleet(seed=5).day(3.3), Fleet(seed=5).day(3.3)
    again = Alerting(1.0, DAY_S)
    again.restore(json.loads(json.dumps(stopped.alerting.state())))
    stopped.alerting = again
    assert straight.day(3).fired == stopped.day(3).fired
    assert json.dumps(straight.alerting.state(), sort_keys=True) == json.dumps(again.state(), sort_keys=True)


def test_after_a_restart_another_budget_is_met_from_what_was_counted():
    """The level does not begin anew: it is what this history asks for under the new budget."""
    old = Fleet(seed=6).day(10).alerting
    new = Alerting(1.0, 7 * DAY_S)
    new.restore(json.loads(json.dumps(old.state())))
    new.update(frame(10 * DAY_S + 7200.0, ONES, OF), [])
    assert new.level > old.level + 1.0


def test_a_state_of_another_version_is_refused_and_nothing_changes():
    """With the remedy."""
    own = Alerting()
    with pytest.raises(ValueError, match="Start without it"):
        own.restore({**own.state(), "version": 1})
    assert own.state() == Alerting().state()


@pytest.mark.parametrize("times", [[0.0, 600.0, 600.0, 600.0, 1200.0], [0.0, 600.0, -1e9, 1200.0, 1800.0],
                                   [0.0, 600.0, 1200.0, 1e12, 1e12 + 600.0], [0.0, 5e-324, 1e-9, 2e-9, 3e-9]])
def test_times_that_repeat_go_back_or_leap_do_no_harm(times):
    """The level stays a number within its bounds, without a warning, and so does all that is remembered."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        own = Alerting()
        for at in times:
            odd = [Anomaly(at, OF[0].entity, "x", 1.0, p, "baseline", 0) for p in (1e-9, 5e-324)]
            own.update(frame(at, np.full(len(OF), np.nan), OF), odd)
    assert RUNGS[0] <= own.level <= 100.0
    assert np.isfinite(own.state()["budget"]["rates"]).all()


def test_nothing_to_watch_is_no_error():
    """A daemon whose sources are all down."""
    own = Alerting()
    for k in range(100):
        own.update(frame(k * STEP_S, np.zeros(0), ()), [])
    assert RUNGS[0] <= own.level <= budget.MIN_LEVEL


@pytest.mark.parametrize(("incidents", "per_s"), [(1e9, 1.0), (1e-9, 1e9), (0.5, DAY_S)])
def test_budgets_of_any_size_lead_to_a_level(incidents, per_s):
    """A million a second, and one in the age of the universe."""
    own = ticks(Budget(incidents, per_s), 300, paged={50, 100})
    assert RUNGS[0] <= own.level <= 100.0
