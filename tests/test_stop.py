"""The global stop: at once, for everybody, over a restart; and what was done is still put back, unless it is frozen."""

from __future__ import annotations

import json

import pytest
from test_policy_decide import BAD, Facts, acted, book, policy, step
from test_radius import pod

from aiops.changes import patch
from aiops.clock import ManualClock
from aiops.cluster.actuator import LiveActuator
from aiops.cluster.brake import Brake, Said, StopMap, Watched, stop_data, stop_in, stop_of
from aiops.cluster.executor import Executor, Notes
from aiops.cluster.simulated import SimulatedCluster
from aiops.interfaces import Plan, Refused, Retry
from aiops.stops import Stops
from aiops.store.intents import Intents
from aiops.types import Action, Command, Outcome

API, NOW = "deployment/shop/api", 1_790_000_000.0
STOP = Command(1000.0, "stop", "", "anna", reason="storm in zone a")
START = Command(1100.0, "start", "", "ben")
FREEZE = Command(1000.0, "freeze", "", "anna")
SAID = "stopped by anna at 1970-01-01T00:16:40Z: storm in zone a"


def action(key="a-1", state="", **params):
    return Action(key, "ScaleUp", API, {"replicas": "+2", **params}, "i", "p", "act", "", NOW, state)


# ---------------------------------------------------------------------------------------------------------- decisions
def test_nothing_is_decided_in_the_step_in_which_it_was_said():
    """Refused by the guard of that name, with who and why; and on when it is started, on what is known then."""
    b = book()
    [refused] = step(b, commands=[STOP]).actions
    assert (refused.decision, refused.state, refused.reason) == ("refused", "stopped", SAID)
    assert step(b, 15.0).actions == ()
    decided = step(b, 30.0, commands=[START])
    assert decided.notes == ("started again by ben.",)
    assert [a.decision for a in decided.actions] == ["act"]


def test_what_was_seen_before_a_stop_is_no_ground_for_an_action_after_it():
    """The evidence must be fresh when it is started again. (Old events were processed after a breaker was reset:
    NVSentinel 450.)"""
    b = book()
    step(b, commands=[STOP])
    [late] = step(b, 3600.0, Facts(BAD.values, age_s=3600.0), commands=[START]).actions
    assert (late.decision, late.state) == ("refused", "evidence")


def test_a_question_that_is_approved_while_everything_is_stopped_is_refused():
    """The page says so before; a chat button may not know."""
    b = book(policy(mode="ask"))
    [asked] = step(b).actions
    [late] = step(b, 15.0, commands=[STOP, Command(1.0, "approve", asked.id, "carl")]).actions
    assert (late.decision, late.reason) == ("refused", f"approved by carl, but {SAID}")


def test_everybody_who_stopped_must_start():
    """A person does not start what a ConfigMap stops."""
    b = book()
    step(b, commands=[STOP, Command(1001.0, "stop", "configmap aiops/stop", "configmap aiops/stop")])
    decided = step(b, 15.0, commands=[START])
    assert decided.notes[0].startswith("started again by ben; still stopped by configmap aiops/stop at ")
    assert b.stops.standing and decided.actions == ()
    assert [a.decision for a in step(b, 30.0, commands=[Command(1200.0, "start", "configmap aiops/stop")]).actions] == ["act"]


def test_what_the_worker_refused_while_it_was_stopped_is_decided_again_on_fresh_evidence():
    """Or for want of room: another node was away. After the cooldown; what the cluster refused for good is not."""
    for reason, again in ((f"not now: {SAID}.", ["act"]), ("deployment/shop/api does not exist.", [])):
        b = book()
        done = acted(b)
        at_once = step(b, 15.0, outcomes=[Outcome(done.id, "refused", 1_000_015.0, reason)]).actions
        assert [a.state for a in at_once] == (["cooldown"] if again else []) and step(b, 30.0).actions == ()
        later = [a for a in step(b, 700.0).actions if a.decision == "act"]
        assert [a.decision for a in later] == again and done.id not in [a.id for a in later]


def no_help(b, commands=()):
    """An action that was done and did not help; what is decided after `within`."""
    done = acted(b)
    step(b, 10.0, outcomes=[Outcome(done.id, "done", 1_000_010.0)])
    step(b, 20.0, commands=commands)
    return done, step(b, 800.0)


def test_what_did_not_help_is_undone_while_everything_is_stopped():
    """A stop keeps us from doing more, not from putting back."""
    done, later = no_help(book(), [STOP])
    assert [(o.status, o.action) for o in later.outcomes] == [("no_help", done.id)]
    assert [(a.state, a.decision) for a in later.actions if a.state == "undo"] == [("undo", "act")]


def test_frozen_nothing_is_undone_until_it_is_started_again():
    """Verified it is; the undo waits, also over a restart."""
    b = book()
    done, later = no_help(b, [FREEZE])
    assert [o.status for o in later.outcomes] == ["no_help"] and [a for a in later.actions if a.state == "undo"] == []
    assert later.notes == (f"{done.id}: is undone when everything is started again; frozen by anna at 1970-01-01T00:16:40Z.",)
    again = book()
    again.restore(json.loads(json.dumps(b.state())))
    assert again.stops.frozen and step(again, 815.0).notes == ()
    undone = [a for a in step(again, 830.0, commands=[START]).actions if a.state == "undo"]
    assert [a.params["undo_of"] for a in undone] == [done.id]


def test_equal_batches_give_equal_stops():
    """A replay from what was journalled stops where the daemon did."""
    runs = []
    for _ in range(2):
        b = book()
        runs.append([step(b, at, commands=said).actions for at, said in ((0, [STOP]), (15, []), (30, [START]), (45, []))])
    assert runs[0] == runs[1]


# -------------------------------------------------------------------------------------------------------- the worker
def test_it_takes_effect_between_two_writes_and_what_was_begun_is_put_back():
    """Without waiting for the next step."""
    cluster, brake = SimulatedCluster({API: 2}), Brake()
    both = [patch(f"deployment/shop/{name}", cluster.get(f"deployment/shop/{name}"), {("spec", "replicas"): 4}) for name in "ab"]
    write = cluster.write

    def pulled(change):
        brake.obey(STOP)
        return write(change)

    cluster.write = pulled
    executor = Executor(cluster, Notes(), gate=brake.gate)
    with pytest.raises(Refused, match="storm in zone a"):
        executor._take(action(), Plan("Two.", tuple(both)))
    assert [c.entity for c in cluster.calls] == ["deployment/shop/a"]
    assert executor._put_back(action()) == " What it had changed was put back."
    assert cluster.replicas("deployment/shop/a") == 2


def test_frozen_nothing_is_put_back():
    """And says so."""
    cluster, brake, notes = SimulatedCluster({API: 2}), Brake(), Notes()
    executor = Executor(cluster, notes, gate=brake.gate)
    executor.carry_out(action(), NOW)
    brake.obey(FREEZE)
    assert "could not be put back: frozen by anna" in executor._put_back(action())
    with pytest.raises(Retry, match="frozen by anna"):
        executor.carry_out(action("a-2", "undo", undo_of="a-1"), NOW)
    brake.obey(START)
    assert executor.carry_out(action("a-2", "undo", undo_of="a-1"), NOW).status == "undone"


def test_what_waits_in_the_queue_is_not_done_after_a_stop(tmp_path):
    """It ends as refused, and does not come back with the start."""
    cluster, brake, ledger = SimulatedCluster({API: 2}), Brake(), Intents(tmp_path / "a.sqlite")
    live = LiveActuator(cluster, ManualClock(NOW), ledger, gate=brake.gate)
    live.submit([action()])
    brake.obey(STOP)
    live.run_due()
    brake.obey(START)
    live.run_due()
    assert [(o.status, o.reason) for o in live.collect()] == [("refused", f"not now: {SAID}.")]
    assert cluster.calls == []
    ledger.close()


@pytest.mark.parametrize(("data", "stops"), [
    ({"stop": "true"}, True), ({"stop": "yes please"}, True), ({"stop": " TRUE "}, True), ({"freeze": "true"}, True),
    ({"stop": "false"}, False), ({"stop": ""}, False), ({"stop": "No"}, False), ({}, False), (None, False)])
def test_a_config_map_is_obeyed_before_each_turn(data, stops):
    """Whatever it says but false: who writes something there wants it to stop. Undoing goes on, also where it cannot be read."""
    cluster = SimulatedCluster({API: 2})
    if data is not None:
        cluster.put({"kind": "ConfigMap", "metadata": {"name": "stop", "namespace": "aiops"}, "data": {**data, "reason": "why"}})
    executor = Executor(cluster, Notes(), [StopMap("configmap/aiops/stop")])
    outcome = executor.carry_out(action(), NOW)
    assert outcome.status == ("refused" if stops else "done")
    if stops:
        assert outcome.reason == "not now: stopped by configmap/aiops/stop: why."
        return
    get = cluster.get
    cluster.get = lambda target: (_ for _ in ()).throw(Retry("no answer")) if "configmap" in target else get(target)
    with pytest.raises(Retry, match="no answer"):
        executor.carry_out(action("a-3"), NOW)
    assert executor.carry_out(action("a-2", "undo", undo_of="a-1"), NOW).status == "undone"


# ------------------------------------------------------------------------------------------------- where it is said
def test_places_are_watched_and_told_once(tmp_path):
    """A ConfigMap, a file; who cannot be read keeps what it said last, and what is not configured any more says nothing."""
    brake, told, file = Brake(), [], tmp_path / "STOP"
    cluster = SimulatedCluster()
    places = {"configmap aiops/stop": lambda: stop_of(cluster.get("configmap/aiops/stop")), "the file": lambda: stop_in(file)}
    watched = Watched(places, brake, told.append, 1.0)

    def poll(at):
        watched.poll(at, None)
        said, told[:] = [(c.verb, c.target, c.reason) for c in told], []
        return said

    assert poll(1.0) == []
    file.write_text("power cut\n")
    assert poll(2.0) == [("stop", "the file", "power cut")] and poll(3.0) == []
    cluster.put({"kind": "ConfigMap", "metadata": {"name": "stop", "namespace": "aiops"}, "data": {"freeze": "true"}})
    assert poll(4.0) == [("freeze", "configmap aiops/stop", "")]
    assert brake.stops.frozen
    cluster.get = lambda target: (_ for _ in ()).throw(Retry("no answer"))
    file.unlink()
    with pytest.raises(RuntimeError, match="no answer"):
        watched.poll(5.0, None)
    assert [(c.verb, c.target) for c in told] == [("start", "the file")]
    assert [s.source for s in brake.stops.standing] == ["configmap aiops/stop"]
    Watched({}, brake, told.append, 1.0).poll(6.0, None)
    assert brake.stops.standing == ()


def test_what_a_person_stops_on_one_replica_stops_the_others_through_the_config_map():
    """Written with who and why; known to the one who wrote it, so that it is not told twice; taken back on any of them."""
    cluster, place = SimulatedCluster(), "configmap aiops/stop"
    said = Command(1000.0, "stop", place, "anna", reason="storm")
    cluster.put({"kind": "ConfigMap", "metadata": {"name": "stop", "namespace": "aiops"}, "data": stop_data(said)})
    places = {place: lambda: stop_of(cluster.get("configmap/aiops/stop"))}
    here, there = Brake(), Brake()
    here.obey(said)
    told_here, told_there = [], []
    Watched(places, here, told_here.append, 1.0).poll(2.0, None)
    Watched(places, there, told_there.append, 1.0).poll(2.0, None)
    assert told_here == [] and [(c.verb, c.target, c.by, c.reason) for c in told_there] == [("stop", place, "anna", "storm")]
    cluster.objects["configmap/aiops/stop"]["data"] = stop_data(Command(3.0, "start", place, "ben"))
    for brake in (here, there):
        Watched(places, brake, told_here.append, 1.0).poll(4.0, None)
        assert brake.stops.standing == ()


def test_a_file_stops_while_it_is_there(tmp_path):
    """Empty, or with a reason; unless it says false."""
    file = tmp_path / "STOP"
    assert stop_in(file) is None
    for text, said in (("", Said(False, "")), ("why", Said(False, "why")), ("freeze: all", Said(True, "freeze: all")),
                       ("false\n", None)):
        file.write_text(text)
        assert stop_in(file) == said


def test_a_stop_outlasts_a_crash_in_either_order(tmp_path):
    """The brake is on disk before the pipeline hears; what one of them missed it is told at the next start."""
    Brake(tmp_path / "stop.json").obey(STOP)
    again, known = Brake(tmp_path / "stop.json"), Stops()
    assert again.stops.standing[0].reason == "storm in zone a"
    [told] = again.unheard(known.standing, 2000.0)
    assert (told.verb, told.time, told.by, told.reason) == ("stop", 1000.0, "anna", "storm in zone a")
    known.obey(told)
    assert again.unheard(known.standing, 2000.0) == []
    again.obey(START)
    assert [c.verb for c in Brake(tmp_path / "stop.json").unheard(known.standing, 2000.0)] == ["start"]


def test_a_brake_that_cannot_be_read_lets_nothing_start(tmp_path):
    """It might say stop."""
    (tmp_path / "stop.json").write_text('[{"source": ')
    with pytest.raises(ValueError, match="cannot be understood, and might say that everything is to be stopped"):
        Brake(tmp_path / "stop.json")


def test_pods_are_left_alone_too():
    """In the middle of a restart in turns: what was replaced stays replaced, the others stay."""
    cluster, brake = SimulatedCluster(objects=[pod(f"api-{i}") for i in range(3)]), Brake()
    cluster.now = NOW
    restart = Action("a-1", "Restart", "pod/shop/selector:app=api", {"max_unavailable": 1}, "i", "p", "act", "", NOW)
    executor = Executor(cluster, Notes(), gate=brake.gate)
    with pytest.raises(Retry):
        executor.carry_out(restart, NOW)
    brake.obey(STOP)
    assert executor.carry_out(restart, NOW).status == "refused"
    assert len(cluster.calls) == 1
