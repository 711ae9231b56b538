"""Actuators: only `act`, only once, the intent first, and no second try for what is in doubt."""

from __future__ import annotations

import threading

import pytest

from aiops.changes import Changed, entity_of, patch
from aiops.clock import ManualClock, WallClock
from aiops.cluster.actuator import LiveActuator, SimulatedActuator
from aiops.cluster.simulated import SimulatedCluster
from aiops.interfaces import Ambiguous, Refused, Retry
from aiops.store.intents import Intents
from aiops.types import Action, Edge, Links, Node

API = "deployment/shop/api"


def action(key="a-1", decision="act", kind="ScaleUp", target=API, state="", **params):
    return Action(key, kind, target, {"replicas": "+2"} | params, "i", "p", decision, "", 100.0, state)


@pytest.fixture
def ledger(tmp_path):
    made = Intents(tmp_path / "actions.sqlite")
    yield made
    made.close()


@pytest.fixture
def cluster():
    return SimulatedCluster({API: 3})


@pytest.fixture
def live(cluster, ledger):
    clock = ManualClock(1000.0)
    actuator = LiveActuator(cluster, clock, ledger)
    actuator.clock = clock
    return actuator


def carried_out(actuator, *actions):
    """Statuses after submitting and doing all that is due."""
    actuator.submit(actions)
    if isinstance(actuator, LiveActuator):
        actuator.run_due()
    return [o.status for o in actuator.collect()]


@pytest.fixture(params=["simulated", "live"])
def either(request, cluster, live):
    return SimulatedActuator(cluster) if request.param == "simulated" else live


@pytest.mark.parametrize("decision", ["ask", "shadow", "refused"])
def test_only_act_is_carried_out(either, cluster, decision):
    """Whatever else is handed in, the cluster never hears of it."""
    assert carried_out(either, action(decision=decision)) == []
    assert cluster.calls == []


def test_one_id_is_carried_out_once(either, cluster):
    """Also when it is submitted again later."""
    assert carried_out(either, action(), action()) == ["done"]
    assert carried_out(either, action()) == []
    assert [str(c) for c in cluster.calls] == [f"patch {API} spec.replicas: 3 -> 5"]


def test_undo_uses_what_the_action_found(either, cluster):
    """The snapshot of the first action, under an id of its own."""
    carried_out(either, action())
    assert carried_out(either, action("a-2", state="undo", undo_of="a-1")) == ["undone"]
    assert cluster.replicas(API) == 3


def test_undo_leaves_alone_what_somebody_else_changed(either, cluster):
    """A person scaled further: the undo is refused."""
    carried_out(either, action())
    cluster.objects[API]["spec"]["replicas"] = 9
    assert carried_out(either, action("a-2", state="undo", undo_of="a-1")) == ["refused"]
    assert cluster.replicas(API) == 9


def test_undo_of_something_unknown_is_refused(either):
    """Nothing is guessed."""
    assert carried_out(either, action("a-2", state="undo", undo_of="a-1")) == ["refused"]


@pytest.mark.parametrize(("error", "status"), [(Refused("no"), "refused"), (Ambiguous("?"), "unknown"),
                                               (RuntimeError("bug"), "failed")])
def test_errors_become_outcomes(either, cluster, error, status):
    """A remediation that breaks does not stop the next one."""
    cluster.fail(error)
    assert carried_out(either, action("a-1"), action("a-2")) == [status, "done"]


def test_an_unknown_type_is_a_failure_in_words(either):
    """From a journal of a newer version, say."""
    either.submit([action(kind="Nonsense")])
    if isinstance(either, LiveActuator):
        either.run_due()
    [outcome] = either.collect()
    assert (outcome.status, "unknown remediation 'Nonsense'" in outcome.reason) == ("failed", True)


def test_a_restart_in_turns_is_finished(either, cluster):
    """One pod at a time; the simulated actuator needs no clock for that, the live one waits between them."""
    restart = action(kind="Restart", target="pod/shop/selector:app=web", max_unavailable=1)
    cluster.now = restart.at
    either.submit([restart])
    for _ in range(5):
        if isinstance(either, LiveActuator):
            either.run_due()
            either.clock.sleep_until(either.clock.now() + 10)
    assert [o.status for o in either.collect()] == ["done"]
    assert [str(c) for c in cluster.calls] == ["evict pod/shop/web-0", "evict pod/shop/web-1"]


def test_the_write_is_on_record_before_it_is_sent(live, ledger, cluster):
    """And what undoes it as soon as it was answered."""
    seen, write = [], cluster.write
    cluster.write = lambda change: (seen.append(ledger.begun()), write(change))[1]
    carried_out(live, action())
    [[begun]] = seen
    assert [(n, str(c)) for n, c in begun.doubtful] == [(0, f"patch {API} spec.replicas: 3 -> 5")]
    assert [str(c) for c in ledger.inverses("a-1")] == [f"patch {API} spec.replicas: 5 -> 3"]
    assert ledger.begun() == []


@pytest.mark.parametrize("broken", ["begin", "turn", "ended"])
def test_without_a_written_intent_nothing_is_done(live, ledger, cluster, broken):
    """A full disk stops acting, not deciding."""
    def full(*given):
        raise OSError("disk full")

    setattr(ledger, broken, full)
    live.submit([action()])
    live.run_due()
    [outcome] = live.collect()
    assert outcome.status == "failed" and "disk full" in outcome.reason
    assert cluster.calls == []


def test_retry_is_tried_again_when_it_said(live, cluster):
    """Not before."""
    cluster.fail(Retry("busy", 5.0))
    live.submit([action()])
    assert live.run_due() == 5.0
    live.clock.sleep_until(1004.0)
    assert live.run_due() == 1.0
    live.clock.sleep_until(1005.0)
    assert live.run_due() is None
    assert [o.status for o in live.collect()] == ["done"]


def test_retrying_ends(live, cluster):
    """After ten minutes it failed, with the last reason."""
    for _ in range(700):
        cluster.fail(Retry("busy", 5.0))
    live.submit([action()])
    outcomes = []
    while not outcomes:
        live.clock.sleep_until(live.clock.now() + (live.run_due() or 0.0))
        outcomes = live.collect()
    assert [(o.status, o.reason, o.at) for o in outcomes] == [("failed", "gave up after 600 s: busy", 1600.0)]


def test_what_an_earlier_run_changed_can_be_undone(live, cluster, ledger):
    """It is in the ledger."""
    carried_out(live, action())
    later = LiveActuator(cluster, ManualClock(2000.0), ledger)
    assert carried_out(later, action("a-2", state="undo", undo_of="a-1")) == ["undone"]
    assert cluster.replicas(API) == 3


def test_what_was_decided_and_never_begun_is_told_so(live, cluster, ledger):
    """The daemon died in between: the decider may decide again. What was ended is heard once more."""
    carried_out(live, action())
    later = LiveActuator(cluster, ManualClock(2000.0), ledger, awaited=["a-1", "a-9"])
    assert [(o.action, o.status) for o in later.collect()] == [("a-1", "done"), ("a-9", "failed")]


def test_what_was_sent_right_before_a_crash_may_still_take_effect(live, cluster, ledger):
    """Not done yet, says the object: it is looked at again when nothing can be on its way any more, and planned after that."""
    write, late = cluster.write, []
    cluster.write = lambda change: (late.append(change), (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        carried_out(live, action())
    cluster.write = write
    later = LiveActuator(cluster, clock := ManualClock(1001.0), ledger)
    assert later.run_due() == 35.0
    write(late[0])
    clock.sleep_until(1036.0)
    later.run_due()
    assert [o.status for o in later.collect()] == ["done"]
    assert [str(c) for c in cluster.calls] == [f"patch {API} spec.replicas: 3 -> 5"]


def test_what_goes_wrong_while_an_earlier_run_is_looked_up_does_not_stop_the_worker(live, cluster, ledger):
    """A ledger that cannot be written, a bug: that action is unknown, and the next one is done."""
    write = cluster.write
    cluster.write = lambda change: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        carried_out(live, action())
    cluster.write, get = write, cluster.get
    later = LiveActuator(cluster, ManualClock(1001.0), ledger)

    def broken(target):
        cluster.get = get
        raise OSError("disk full")
    cluster.get = broken
    later.submit([action("a-2")])
    later.run_due()
    assert [(o.action, o.status) for o in later.collect()] == [("a-1", "unknown"), ("a-2", "done")]


def test_the_worker_thread_does_the_same(cluster, ledger):
    """Started, fed and stopped; what was begun is finished."""
    written = threading.Event()
    result = ledger.result
    ledger.result = lambda *a: (result(*a), written.set())
    actuator = LiveActuator(cluster, WallClock(), ledger)
    actuator.start()
    actuator.submit([action()])
    assert written.wait(10)
    actuator.stop()
    assert [str(c) for c in cluster.calls] == [f"patch {API} spec.replicas: 3 -> 5"]
    assert [o.status for o in actuator.collect()] == ["done"]
    assert not actuator._thread.is_alive()


# ------------------------------------------------------------------------------------------- the cluster in memory
def test_unknown_workloads_are_assumed():
    """A recording does not say how many replicas there were; two are assumed, and pods to go with them."""
    cluster = SimulatedCluster()
    assert cluster.replicas("deployment/shop/anything") == 2
    assert names(cluster.find("pod", "shop", "app=web")) == ["pod/shop/web-0", "pod/shop/web-1"]
    assert SimulatedCluster().find("pod", "shop", "tier!=web") == []


def test_pods_come_from_the_topology():
    """Owned by a service: selected by its name; labels of the node count too."""
    links = Links((Node("pod/shop/x-1", labels={"tier": "web"}),), (Edge("service/shop/api", "pod/shop/x-1", "owns"),))
    cluster = SimulatedCluster.from_links(links)
    for selector in ("app=api", "tier=web", "app==api,tier!=db"):
        assert names(cluster.find("pod", "shop", selector)) == ["pod/shop/x-1"]
    assert cluster.get("pod/shop/x-2") is None


def test_scaling_from_an_old_number_is_no_more_what_was_meant():
    """Compare and set, as the real one does."""
    cluster = SimulatedCluster({API: 3})
    change = patch(API, cluster.get(API), {("spec", "replicas"): 4}, "scale")
    cluster.objects[API]["spec"]["replicas"] = 7
    with pytest.raises(Changed, match=r"spec\.replicas: 3 -> 7"):
        cluster.write(change)


def names(pods):
    return [entity_of(p, "pod") for p in pods]
