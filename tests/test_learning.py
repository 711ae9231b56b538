"""What outcomes teach: chances with intervals, and autonomy that is earned and lost by the rule of policies/README.md."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from test_policy_decide import BAD, POD, T0, Facts, acted, book, finish, incident, policy, step

from aiops.policy import learning
from aiops.policy.learning import NEEDED, PATIENCE, Record, TrackRecord, beta_quantile, fault
from aiops.types import Alert, Command

FAULT, ACTION = "http_error_rate|service", "ScaleUp of deployment"
APART_S = 3 * 86_400.0
PATIENT = {"cooldown": "0s", "maxActions": {"count": 99, "per": "1h"}, "breaker": {"useless": 100, "of": 100}}
EARNED = {"mode": "earned", "guards": PATIENT, "undo": False, "escalate": {"after": 100}}
AFTER = {"helped": Facts({"http_error_rate": 0.0}), "no_help": BAD}


def after(*statuses):
    record = Record()
    for status in statuses:
        record = record.after(status)
    return record


def once(b, n, status):
    """One fault from decision to verdict; what was decided about it first, and the notes of the verdict."""
    at, this = n * APART_S, [replace(incident(n), opened_at=T0 + n * APART_S)]
    [first] = step(b, at, incidents=this).actions
    action = first
    if first.decision == "ask":
        [action] = step(b, at + 5, incidents=this, commands=[Command(T0, "approve", first.id, "ann")]).actions
    finish(b, action, at + 15, incidents=this)
    if status == "worse":
        risen = Alert("n", "service/shop/db", "x", "firing", T0 + at + 20, T0 + at + 70, 0.9, 1e-6, direction="up")
        decision = step(b, at + 375, replace(AFTER["helped"], rising=(risen,)), this)
    else:
        decision = step(b, at + (100 if status == "helped" else 700), AFTER[status], this)
    assert [o.status for o in decision.outcomes] == [status]
    return first, decision.notes


def by_the_rule(history):
    """policies/README.md, read word for word: may it act after these outcomes?"""
    acts, towards, in_row = False, 0, 0
    for n, status in enumerate(history, 1):
        towards, in_row = (towards + 1, 0) if status == "helped" else (towards, in_row + 1)
        helped = history[:n].count("helped")
        likely = beta_quantile(0.05, helped + 1, n - helped + 1) > 0.5
        if status == "worse" or in_row >= 2 or (acts and not likely):
            acts, towards = False, 0
        elif status == "helped":
            acts = towards >= 5 and likely
    return acts


# ------------------------------------------------------------------------------------------------------------- autonomy
@pytest.mark.parametrize("seed", range(4))
def test_it_acts_by_itself_exactly_where_the_rule_says_so(seed):
    """Random outcomes through the decider: never an act before it was earned, and none after it was lost."""
    rng, b, history, decided = np.random.default_rng(seed), book(policy(**EARNED)), [], []
    for n in range(1, 40):
        status = str(rng.choice(["helped", "no_help", "worse"], p=[0.85, 0.1, 0.05]))
        first, _ = once(b, n, status)
        assert first.decision == ("act" if by_the_rule(history) else "ask"), history
        decided.append(first.decision)
        history.append(status)
    assert {"act", "ask"} == set(decided)
    assert b.record.of(FAULT, ACTION).earned == by_the_rule(history)


def test_five_that_helped_are_needed_and_the_question_says_how_many_there_are():
    """From asking to acting, with the record in the reason, and one note when it turns."""
    b = book(policy(**EARNED))
    told = []
    for n in range(1, 6):
        first, notes = once(b, n, "helped")
        assert first.decision == "ask" and f"; asks: {n - 1} of 5 successes towards act (helped" in first.reason
        told += notes
    assert told == ["ScaleUp of deployment for http_error_rate of service has earned to act by itself where a policy says "
                    "'earned': helped 5 of 5 times, at least 0.61 with 95 % confidence."]
    first, _ = once(b, 6, "helped")
    assert first.decision == "act" and "; acts by itself: helped 5 of 5 times, at least 0.61" in first.reason


def test_one_that_made_it_worse_takes_autonomy_back_at_once():
    """Whatever it had earned: the next fault asks again, and it takes five more, and good odds."""
    b = book(policy(**EARNED))
    for n in range(1, 21):
        once(b, n, "helped")
    first, notes = once(b, 21, "worse")
    assert first.decision == "act" and "asks again where a policy says 'earned': helped 20 of 21 times" in notes[0]
    assert [once(b, n, "helped")[0].decision for n in range(22, 28)] == ["ask"] * 5 + ["act"]


def test_two_in_a_row_that_did_not_help_take_it_back_and_one_does_not():
    """With a record that is long enough for the odds to bear it."""
    long = after(*["helped"] * 20)
    assert PATIENCE == 2 and long.after("no_help").earned and not long.after("no_help").after("no_help").earned
    assert long.after("no_help").after("helped").after("no_help").earned
    assert long.after("no_help").after("no_help").towards == 0


def test_odds_that_are_no_longer_good_take_it_back():
    """Five that helped are just enough; one that did not is one too many."""
    assert after(*["helped"] * 5).earned and not after(*["helped"] * 5, "no_help").earned
    mixed = after(*["helped", "no_help"] * 8)
    assert mixed.towards == 8 and not mixed.earned and "odds that are not above 0.5" in mixed.standing


def test_before_it_is_earned_one_failure_does_not_take_the_successes():
    """The counting goes on; two in a row, or one that made it worse, begin it anew."""
    three = after("helped", "helped", "helped")
    assert three.standing == "3 of 5 successes towards act" == three.after("no_help").standing
    assert three.after("worse").standing == three.after("no_help").after("no_help").standing == "0 of 5 successes towards act"


def test_what_is_not_verified_teaches_nothing():
    """An outcome that is unknown, and a rehearsal, are no success and no failure."""
    b = book(policy(**EARNED))
    [question] = step(b, 0).actions
    [action] = step(b, 5, commands=[Command(T0, "approve", question.id, "ann")]).actions
    finish(b, action, 15, "unknown")
    rehearsing = book(policy(mode="shadow"))
    step(rehearsing, 0)
    assert b.record.state() == rehearsing.record.state() == {}


# --------------------------------------------------------------------------------------------------------------- records
def test_intervals_hold_the_chance_in_nine_of_ten_cases():
    """The interval that people see covers the true chance as often as it says, drawn from the prior that it rests on."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        chance = rng.random()
        helped = int(rng.binomial(12, chance))
        record = Record(helped, 12 - helped)
        hits += record.lower <= chance <= record.upper
    assert 340 <= hits <= 380


def test_candidates_come_in_the_order_of_their_chances():
    """The file's order until something is known; then what helped more often; an interval that is wide is no merit."""
    both = Facts({"http_error_rate": 0.9, "container_restarts": 9.0})
    assert acted(book(), both).type == "ScaleUp"
    for first, second, expected in ((("no_help",), (), "Restart"), (("helped",), (), "ScaleUp"), ((), ("helped",), "Restart"),
                                    (("helped",) * 9 + ("no_help",), ("helped",), "ScaleUp")):
        b = book()
        for status in first:
            b.record.learn(FAULT, ACTION, status)
        for status in second:
            b.record.learn(FAULT, f"Restart of {POD.split('/')[0]}", status)
        assert acted(b, both).type == expected, (first, second)


def test_a_record_of_an_earlier_version_is_read():
    """Two figures then: what had been earned by the rule of then stays earned."""
    record = TrackRecord()
    record.restore({"a|b|c": [5, 0], "a|b|d": [1, 2]})
    assert record.records == {"a|b|c": Record(5, 0, 0, 5, 0, True), "a|b|d": Record(1, 2, 0, 1)}
    other = TrackRecord()
    other.restore(json.loads(json.dumps(record.state())))
    assert other == record


def test_records_are_forgotten_by_name_and_bounded(monkeypatch):
    """By the fault, or by fault and action; the one that learned nothing for longest goes first."""
    record = TrackRecord()
    for key in ("errors|service|Restart of deployment", "errors|service|Restart of pod", "latency|pod|Evict of pod"):
        record.learn(*key.rsplit("|", 1), "helped")
    assert fault("errors|service|Restart of pod") == "errors of service"
    assert (record.forget(("errors of service *pod",)), record.forget(("errors of *",)), record.forget(("nobody",))) == (1, 1, 0)
    assert record.forget() == 1 and not record.records
    monkeypatch.setattr(learning, "MAX_RECORDS", 3)
    for n in (1, 2, 3, 1, 4):
        record.learn("errors|service", f"Restart of x{n}", "helped")
    assert [key[-1] for key in record.records] == ["3", "1", "4"]
    assert NEEDED == 5
