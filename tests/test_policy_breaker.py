"""The breaker of a policy over all its targets, and what must not happen when it closes again, or after a restart."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest
from test_policy_decide import BAD, T0, UNWELL, Facts, book, incident, policy

from aiops.clock import ManualClock
from aiops.cluster.actuator import NEVER_BEGUN, LiveActuator
from aiops.cluster.simulated import SimulatedCluster
from aiops.policy.ledger import KEEP_JUDGED
from aiops.store.intents import Intents
from aiops.types import Action, Anomaly, Cause, Outcome
from remediations.scale_up import ScaleUp

POD = "pod/shop/api-7d4"
HELPED, USELESS = Facts({"http_error_rate": 0.0}), BAD


def each(undo=False, **guards):
    """Scales up whatever is to blame; no limit of its own but the breaker."""
    return policy(actions=[{"type": "ScaleUp", "target": {"deployment": "${cause.name}", "replicas": "+2"}}],
                  guards={"cooldown": "0s", "maxActions": {"count": 1000, "per": "1h"}, **guards}, undo=undo,
                  escalate={"after": 9, "to": "#oncall"})


def fault(n, at=0.0):
    return incident(n, opened_at=T0 + at, alerts=(replace(UNWELL, signal=f"ticks{n}", since=T0 + at),),
                    causes=(Cause(f"deployment/shop/w{n}", 0.9, ("http_error_rate",), ()),))


def decide(b, at, *incidents, facts=BAD, outcomes=(), age_s=10.0):
    now = T0 + at
    seen = (Anomaly(now - age_s, POD, "http_error_rate", 0.99, 1e-6, "baseline", 3),)
    return b.decide(now, list(incidents), Facts(facts.values, seen=seen, age_s=age_s), outcomes)


def attempt(b, n, at, facts):
    """Acts on fault n, and is told at once whether it helped. False where it does not act."""
    [action] = decide(b, at, fault(n, at)).actions
    if action.decision != "act":
        return action
    decide(b, at + 1, fault(n, at), outcomes=[Outcome(action.id, "done", T0 + at + 1)])
    ended = decide(b, at + 800, fault(n, at), facts=facts)
    assert [o.status for o in ended.outcomes] == ["helped" if facts is HELPED else "no_help"]
    return action


def opened(b):
    """Five faults, each on another target, none of them healed: the time after."""
    for n in range(5):
        assert attempt(b, n, n * 1000.0, USELESS).decision == "act"
    return 5000.0


def test_five_of_ten_that_did_not_help_stop_the_policy_everywhere():
    """On a target that it never touched. What helps in between counts."""
    b = book(each())
    for n in range(4):
        attempt(b, n, n * 2000.0, USELESS)
        attempt(b, 100 + n, n * 2000.0 + 1000.0, HELPED)
    assert attempt(b, 50, 8000.0, USELESS).decision == "act"
    [refused] = decide(b, 9000.0, fault(60)).actions
    assert (refused.decision, refused.state) == ("refused", "breaker")
    said = "5 of the last attempts of this policy did not help; escalate to #oncall. One more is tried in "
    assert refused.reason.startswith(said)


def test_what_was_long_ago_is_not_counted():
    """Of the last ten: a policy that learned to help goes on."""
    b = book(each())
    for n in range(20):
        assert attempt(b, n, n * 1000.0, USELESS if n in (0, 1, 2, 3, 15) else HELPED).decision == "act"


def test_half_open_lets_one_probe_through_and_the_others_wait():
    """A hundred faults wait for it; the one that goes decides."""
    b = book(each())
    at = opened(b) + 3700.0
    first = decide(b, at, *(fault(n, at) for n in range(100, 200)))
    assert [a.decision for a in first.actions].count("act") == 1
    [probe] = [a for a in first.actions if a.decision == "act"]
    waiting = next(a for a in first.actions if a.decision == "refused")
    assert waiting.reason.endswith(f"ScaleUp of {probe.target} ({probe.id}) shows whether it helps again")
    assert decide(b, at + 15, *(fault(n, at) for n in range(100, 200))).actions == ()


@pytest.mark.parametrize(("facts", "then"), [(HELPED, "act"), (USELESS, "refused")])
def test_a_probe_that_helps_closes_it_and_one_that_does_not_waits_again(facts, then):
    """The count begins anew after it was closed."""
    b = book(each())
    at = opened(b) + 3700.0
    assert attempt(b, 100, at, facts).decision == "act"
    assert attempt(b, 101, at + 900.0, USELESS).decision == then
    assert attempt(b, 102, at + 1900.0, USELESS).decision == then


def test_what_gives_back_is_never_held_up(monkeypatch):
    """An open breaker also kept recovered nodes cordoned (NVSentinel PR 1852)."""
    b = book(each())
    at = opened(b)
    monkeypatch.setattr(ScaleUp, "recovers", True, raising=False)
    assert attempt(b, 100, at, HELPED).decision == "act"


def test_undoing_is_never_held_up():
    """Of what was done before it opened."""
    b = book(each(undo=True, breaker={"useless": 1, "of": 1}))
    [action] = decide(b, 0.0, fault(1)).actions
    decide(b, 1.0, fault(1), outcomes=[Outcome(action.id, "done", T0 + 1)])
    found = decide(b, 800.0, fault(1)).actions
    assert [a.state for a in found if a.decision == "act"] == ["undo"]


def test_it_outlasts_a_restart():
    """And costs no more with a long past: the last verdicts are kept at hand."""
    b = book(each())
    at = opened(b)
    again = book(each())
    again.restore(json.loads(json.dumps(b.state())))
    assert attempt(again, 100, at, USELESS).state == "breaker"
    assert len(again.ledger.verdicts("p")) == 5


def test_a_burst_asks_it_ten_thousand_times():
    """In about the time that it takes without."""
    b = book(each())
    at = opened(b)
    for k in range(2 * KEEP_JUDGED):
        old = next(iter(b.ledger.attempts.values()))
        b.ledger.put(replace(old, id=f"x{k}", incident=f"x{k}", ended_at=T0 + at - 1 + k / 1000))
    assert len(b.ledger.verdicts("p")) == KEEP_JUDGED
    began = time.process_time()
    found = decide(b, at + 15, *(fault(n, at) for n in range(3000)))
    assert {a.state for a in found.actions} == {"breaker"}
    assert time.process_time() - began < 5.0


# ----------------------------------------------------------------------------------- what users of other tools saw
def test_nvsentinel_450_events_that_came_while_it_was_open_are_not_worked_off_when_it_closes():
    """There: the breaker was reset, and nodes were cordoned for faults of hours ago. Here their evidence is too old by then."""
    b = book(each())
    at = opened(b)
    stale = [fault(n, at) for n in range(100, 110)]
    assert {a.state for a in decide(b, at, *stale).actions} == {"breaker"}
    assert decide(b, at + 3700.0, *stale, age_s=3700.0).actions != ()  # said anew, as refused
    assert attempt(b, 200, at + 3700.0, HELPED).decision == "act"
    later = decide(b, at + 4600.0, *stale, age_s=4600.0).actions
    assert [a for a in later if a.decision == "act"] == []
    assert {a.state for a in b.ledger.attempts.values()} == {"helped", "no_help"}


def test_nvsentinel_1280_a_restart_does_not_act_on_the_fault_that_was_healed_before_it():
    """There: a restart replayed a stale event and rebooted a node that was already at work again. Here what was done is
    remembered, and what comes in again is old."""
    b = book(each())
    healed = fault(1)
    assert attempt(b, 1, 0.0, HELPED).decision == "act"
    again = book(each())
    again.restore(json.loads(json.dumps(b.state())))
    assert decide(again, 900.0, healed, age_s=900.0).actions == ()
    forgotten = book(each())  # even where the memory is lost
    [late] = decide(forgotten, 900.0, healed, age_s=900.0).actions
    assert (late.decision, late.state) == ("refused", "evidence")


@pytest.mark.parametrize("begun", [True, False])
def test_nvsentinel_1534_what_an_earlier_run_left_in_its_queue_is_not_done_by_the_next(tmp_path, begun):
    """There the same came back two months later: a request of before the restart was carried out after it. Here what was decided
    and never begun is told so, and what was begun long ago is not gone on with."""
    cluster, clock, ledger = SimulatedCluster({"deployment/shop/w1": 2}), ManualClock(T0), Intents(tmp_path / "a.sqlite")
    old = Action("a-1", "ScaleUp", "deployment/shop/w1", {"replicas": "+2"}, "i", "p", "act", "", T0)
    if begun:
        ledger.begin(old)
    clock.sleep_until(T0 + 3600.0)
    live = LiveActuator(cluster, clock, ledger, awaited=["a-1"])
    live.run_due()
    [outcome] = live.collect()
    said = "interrupted, and the evidence for it is old by now." if begun else NEVER_BEGUN
    assert (outcome.status, outcome.reason) == ("failed", said)
    assert cluster.calls == []
    ledger.close()
