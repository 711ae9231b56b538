"""The memory of incidents: the same again, what was done then, over a restart and in a replay."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import T0, alert, graph
from test_restart import Life, Telemetry

from aiops import app, serial
from aiops.account import again
from aiops.past import KEEP_S, MAX_INCIDENTS, MAX_OF_A_CAUSE, IncidentMemory
from aiops.policy.decide import _signature
from aiops.sensitivity import class_of
from aiops.signature import SHARED, fault, signature
from aiops.types import Action, Cause, Command, Incident, Outcome

DAY_S = 86_400.0
OWNED = graph("deployment/shop/chat owns pod/shop/chat-7d4-a", "deployment/shop/chat owns pod/shop/chat-7d4-b")
POD, OTHER = "pod/shop/chat-7d4-a", "pod/shop/chat-7d4-b"


def incident(name="inc-1", at=T0, cause=POD, signals=("http_error_rate",), state="closed", done=(), more=()):
    alerts = tuple(alert(f"{cause} {s}", since=at) for s in signals) + tuple(alert(k, since=at + 5.0) for k in more)
    actions = tuple(Action(f"{name}-{n}", kind, "deployment/shop/chat", {}, name, "p", "act", "why", at + n)
                    for n, (kind, _) in enumerate(done))
    outcomes = tuple(Outcome(f"{name}-{n}", status, at + 60 + n) for n, (_, status) in enumerate(done))
    return Incident(name, at, at + 600, state, "critical", (cause,), alerts, (Cause(cause, 1.0, signals, ()),),
                    closed_at=at + 600 if state == "closed" else None, actions=actions, outcomes=outcomes)


def remembering(*incidents, g=OWNED):
    memory = IncidentMemory()
    for i in incidents:
        memory.learn(i.updated_at, [i], [], g)
    return memory


# -------------------------------------------------------------------------------------------------------- the signature
def test_the_same_on_another_pod_of_the_workload_is_the_same_again():
    """Names of pods are not part of it; another workload, or other signals, are something else."""
    memory = remembering(incident())
    later = incident("inc-2", T0 + DAY_S, OTHER, state="open")
    assert [s.incident for s in memory.of(later, OWNED).latest] == ["inc-1"]
    elsewhere = incident("inc-3", T0 + DAY_S, "pod/shop/db-0", state="open")
    assert memory.of(elsewhere, OWNED).in_90d == 0
    other = incident("inc-4", T0 + DAY_S, OTHER, ("gpu_temperature",), state="open")
    assert memory.of(other, OWNED).in_90d == 0


def test_machines_are_themselves():
    """Three nodes of a pool that fail once each are not one that fails for the third time."""
    memory = remembering(incident(cause="node//gpu-1", signals=("node_ready",)))
    assert memory.of(incident("inc-2", T0 + 1, "node//gpu-2", ("node_ready",), "open"), OWNED).in_90d == 0
    assert memory.of(incident("inc-3", T0 + 1, "node//gpu-1", ("node_ready",), "open"), OWNED).in_90d == 1


def test_the_pod_that_was_replaced_has_no_owner_any_more():
    """The class is that of when it came under suspicion: a restart takes the pod out of the topology before the end."""
    memory = IncidentMemory()
    memory.of(incident(state="open"), OWNED)
    memory.learn(T0 + 600, [incident()], [], graph())
    assert memory.of(incident("inc-2", T0 + DAY_S, OTHER, state="open"), OWNED).in_90d == 1


def test_how_it_began_is_compared():
    """What came later may come of what was done; labels do not count; alerts of others count by their names."""
    late = alert(f"{POD} pod_ready", since=T0 + 300)
    one = signature(POD, "g", [alert(f'{POD} errors{{route="/a"}}'), late])
    assert one.own == one.all == ("errors|pod",)
    two = signature(POD, "g", [alert(f"{POD} errors"), alert("service//web Slow"), alert(f"{POD} x", state="suppressed")])
    assert two.all == ("Slow|service", "errors|pod")
    assert one.same(two)  # all of the own, half of the whole
    assert not one.same(signature(POD, "g", [alert(f"{POD} latency")]))
    assert not one.same(replace(one, cause="h"))
    assert SHARED == 0.5
    assert signature("", "", []).own == ()


def test_the_track_record_is_kept_by_the_same_notion():
    """The key of the records is the coarse half of the signature."""
    class Spec:
        class trigger:  # noqa: N801
            metric = "http_error_rate"

    class Policy:
        spec = Spec
    assert _signature(Policy, incident()) == fault("http_error_rate", POD) == "http_error_rate|pod"  # type: ignore[arg-type]
    assert _signature(Policy, replace(incident(), causes=())) == "http_error_rate|unknown"  # type: ignore[arg-type]
    assert class_of(POD, OWNED) == "pod of deployment/shop/chat"


# ----------------------------------------------------------------------------------------------------- what it remembers
def test_what_was_done_and_whether_it_helped():
    """In the order of time, how each ended; a message is no remedy, a question that nobody answered was not done."""
    done = [("Restart", "no_help"), ("Notify", "done"), ("ScaleUp", "refused"), ("Rollback", "helped")]
    i = incident(done=done)
    i = replace(i, outcomes=(*i.outcomes, Outcome("inc-1-0", "undone", T0 + 90)))
    [seen] = remembering(i).of(incident("inc-2", T0 + DAY_S, state="open"), OWNED).latest
    assert (seen.done, seen.lasted_s, seen.at) == ((("Restart", "no_help"), ("Rollback", "helped")), 600.0, T0)


def test_a_late_outcome_and_a_verdict_are_added():
    """Both come after the end; of other commands, and other incidents, nothing follows."""
    memory = remembering(incident())
    said = [Command(T0, verb, of) for verb, of in (("false_alarm", "inc-1"), ("useful", "zzz"), ("approve", "inc-1"))]
    memory.learn(T0 + 700, [incident(done=[("Restart", "helped")])], said, OWNED)
    found = memory.of(incident("inc-2", T0 + DAY_S, state="open"), OWNED)
    assert (found.in_90d, found.latest[0].done, found.latest[0].verdict) == (1, (("Restart", "helped"),), "false_alarm")


def test_the_words():
    """Third in a week with what helped; without an action how long it took; a false alarm; longer ago than a week."""
    def told(*past, at=T0 + 2 * DAY_S, commands=()):
        memory = remembering(*past)
        memory.learn(T0 + DAY_S, [], commands, OWNED)
        now = incident("inc-now", at, OTHER, state="open")
        return again(serial.incident(replace(now, before=memory.of(now, OWNED))))
    first, second = incident("inc-1", done=[("Restart", "helped")]), incident("inc-2", T0 + 3600)
    assert told() == ""
    assert told(first, second) == "the third like it in 7 days; on 2001-09-09 Restart helped"
    assert told(second) == "the second like it in 7 days; on 2001-09-09 it was over after 10 min without an action"
    assert told(first, at=T0 + 30 * DAY_S) == "the second like it in 90 days; on 2001-09-09 Restart helped"
    both = incident(done=[("Restart", "no_help"), ("Rollback", "helped")])
    assert told(both).endswith("Restart did not help, then Rollback helped")
    assert told(first, commands=[Command(T0 + DAY_S, "false_alarm", "inc-1")]).endswith(
        "Restart helped, which a person called a false alarm")
    many = [incident(f"inc-{k}", T0 + 700 * k) for k in range(11)]
    assert told(*many).startswith("the 12th like it in 7 days")


def test_only_what_was_before_counts():
    """Not itself, when it opens again; not what opened later; not what is older than ninety days."""
    memory = remembering(incident(), incident("inc-2", T0 + DAY_S))
    assert memory.of(incident(state="open"), OWNED).in_90d == 0
    assert memory.of(incident("inc-2", T0 + DAY_S, state="open"), OWNED).in_90d == 1
    memory.learn(T0 + KEEP_S + 3600, [], [], OWNED)
    assert [p["incident"] for p in memory.state()["incidents"]] == ["inc-2"]
    assert memory.of(replace(incident("inc-3", T0 + KEEP_S, state="open"), causes=()), OWNED).in_90d == 0


def test_memory_is_bounded():
    """Of one cause and of all; the oldest go first, and the index with them."""
    memory = remembering(*(incident(f"inc-{k}", T0 + k) for k in range(MAX_OF_A_CAUSE + 20)))
    found = memory.of(incident("inc-x", T0 + DAY_S, state="open"), OWNED)
    assert (found.in_7d, found.latest[0].incident, len(found.latest)) == (MAX_OF_A_CAUSE, f"inc-{MAX_OF_A_CAUSE + 19}", 3)
    many = remembering(*(incident(f"inc-{k}", T0 + k, f"node//n{k}") for k in range(MAX_INCIDENTS + 300)), g=graph())
    assert len(many.state()["incidents"]) == len(many._past) == MAX_INCIDENTS == sum(map(len, many._of.values()))
    assert many._open == {}


def test_it_is_plain_json_and_comes_back():
    """State, through JSON, gives the same answers; another form is refused."""
    memory = remembering(incident(done=[("Restart", "helped")]), incident("inc-2", T0 + 700))
    again_ = IncidentMemory()
    again_.restore(json.loads(json.dumps(memory.state())))
    now = incident("inc-3", T0 + DAY_S, OTHER, state="open")
    assert again_.of(now, OWNED) == memory.of(now, OWNED)
    assert again_.state() == memory.state()
    with pytest.raises(KeyError):
        IncidentMemory().restore({"incidents": [{"incident": "x"}]})


# ------------------------------------------------------------------------------------------------------------ end to end
@pytest.fixture
def alive(tmp_path: Path) -> Iterator[Callable[..., Life]]:
    """Starts lives over one folder; the last one is killed at the end of the test."""
    lives: list[Life] = []

    def start(*arguments: object, **more: object) -> Life:
        lives.append(Life(tmp_path, *arguments, **more))  # type: ignore[arg-type]
        return lives[-1]
    yield start
    for life in lives[-1:]:
        life.kill()


def thrice(k: int) -> float:
    return 30.0 if any(at <= k < at + 12 for at in (120, 210, 320)) else 0.0


@pytest.mark.slow
def test_the_third_time_after_a_kill_and_in_the_replay(alive: Callable[..., Life], tmp_path: Path) -> None:
    """Twice in one life, which is killed, once in the next: the third time, in the report, the store, and the replay."""
    first = alive(Telemetry(10.0, thrice)).run(290)
    book = sorted(first.daemon.live.pipeline.book.current(), key=lambda i: i.opened_at)
    assert [i.before.in_7d for i in book] == [0, 1]
    first.kill()
    second = alive(Telemetry(10.0, thrice), start=290).run(326)
    [told] = {i.id: i for r in second.reports for i in r.incidents}.values()
    assert told.before.in_7d == 2
    assert any(t.kind == "seen" and "the third like it in 7 days" in t.text for t in told.timeline)
    stored = second.daemon.store.incident(told.id)
    assert stored is not None
    assert stored["before"] == serial.recurrence(told.before)
    digest = second.daemon.live.pipeline.book.digest()
    replayed = app.Player(tmp_path / "state" / "journal", None).play()
    assert replayed.incidents[told.id].before == told.before
    assert replayed.digest == digest
