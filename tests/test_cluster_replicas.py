"""Two replicas on one cluster: one acts, the other takes over what was left, and nothing is done twice."""

from __future__ import annotations

import itertools
import json

import pytest
from fakes.kube_store import Connection, Store

from aiops import build, config
from aiops.clock import ManualClock
from aiops.cluster.actuator import LiveActuator
from aiops.cluster.election import Election, Gated, Office
from aiops.cluster.lease import Lease
from aiops.cluster.shared import MOST_BYTES, SharedLedger
from aiops.cluster.simulated import SimulatedCluster
from aiops.interfaces import Ambiguous, Refused, Retry
from aiops.store.intents import Intents
from aiops.types import Action

API = "deployment/shop/api"
LEDGER = "/api/v1/namespaces/aiops/configmaps/aiops-actions"
NOW = 1000.0
NUMBERS = itertools.count(1)


def action(key="a-1", target=API, at=NOW, state="", **params):
    return Action(key, "ScaleUp", target, {"replicas": "+2", **params}, "i", "p", "act", "", at, state)


class Replica:
    """One process: what dies with it is this object; what stays is the folder's file and the cluster."""

    def __init__(self, name, store, cluster, folder, clock, awaited=(), judge=None):
        self.said = []
        self.name, self.clock, self.store = name, clock, store
        holder = f"{name}_{next(NUMBERS)}"
        self.lease = Lease(Connection(store), "aiops", "aiops", holder, clock, floor=lambda: self.ledger.next_term())
        self.election = Election(self.lease)
        self.api = Connection(store, self.election.fence)
        self.own = Intents(folder / f"{name}.sqlite")
        self.ledger = SharedLedger(self.own, self.api, "aiops", "aiops-actions", holder,
                                   judge.about if judge else lambda action: None)
        self.office = Office(self.election, self.ledger)
        self.actuator = LiveActuator(Gated(cluster, self.election.fence), clock, self.ledger, awaited, office=self.office,
                                      judge=judge, tell=self.said.append)

    def turn(self):
        """Look at the lease and do what is due; what became of it."""
        self.lease.step()
        self.actuator.run_due()
        return [(o.action, o.status) for o in self.actuator.collect()]


@pytest.fixture
def world(tmp_path):
    class World:
        store, cluster, clock = Store(), SimulatedCluster({API: 3, "deployment/shop/web": 3}), ManualClock(NOW)

        def replica(self, name, awaited=(), judge=None):
            return Replica(name, self.store, self.cluster, tmp_path, self.clock, awaited, judge)

        def later(self, seconds, *replicas):
            """Time goes by in steps of two seconds, in which these replicas live."""
            told = []
            for _ in range(0, seconds, 2):
                self.clock.sleep_until(self.clock.now() + 2)
                told += [each for r in replicas for each in r.turn()]
            return told

        def recorded(self):
            return {e["id"]: e for e in json.loads(self.store.objects[LEDGER]["data"]["actions.json"])}

        def calls(self):
            return [str(c) for c in self.cluster.calls]
    return World()


def test_only_the_leader_acts(world):
    """The other keeps what it decided, and is told in the end why nothing came of it."""
    one, two = world.replica("one"), world.replica("two")
    one.turn()
    two.actuator.submit([action("b-1")])
    assert two.turn() == []
    one.actuator.submit([action()])
    assert one.turn() == [("a-1", "done")]
    two.turn()
    world.later(598, one, two)
    assert world.calls() == [f"patch {API} spec.replicas: 3 -> 5"]
    world.clock.sleep_until(world.clock.now() + 2)
    one.lease.step()
    two.lease.step()
    two.actuator.run_due()
    [outcome] = two.actuator.collect()
    assert (outcome.status, outcome.reason) == (
        "refused", f"not now: gave up after 600 s: waits for the lease aiops/aiops: {one.lease.holder} leads.")


def test_the_intent_is_visible_before_the_write(world):
    """With the term of who wrote it."""
    one = world.replica("one")
    seen, write = [], world.cluster.write
    world.cluster.write = lambda change: (seen.append(world.recorded()["a-1"]), write(change))[1]
    one.turn()
    one.actuator.submit([action()])
    one.turn()
    [entry] = seen
    assert (entry["status"], entry["term"], entry["by"]) == (None, 0, one.lease.holder)
    assert [w["written"] for w in entry["writes"]] == [False]
    assert world.recorded()["a-1"]["status"] == "done"


@pytest.mark.parametrize("reached", [True, False])
def test_what_a_dead_leader_began_is_settled_first_and_done_once(world, reached):
    """It died right after, or right before, its write took effect. Only then comes what the new one wanted."""
    one, two = world.replica("one"), world.replica("two")
    one.turn()
    write = world.cluster.write

    def dies(change):
        if reached:
            write(change)
        raise KeyboardInterrupt
    world.cluster.write = dies
    one.actuator.submit([action()])
    with pytest.raises(KeyboardInterrupt):
        one.turn()
    world.cluster.write = write
    two.turn()
    two.actuator.submit([action("b-1", "deployment/shop/web")])
    told = world.later(18, two)
    assert told == [("a-1", "done"), ("b-1", "done")]
    assert world.calls() == [f"patch {API} spec.replicas: 3 -> 5", "patch deployment/shop/web spec.replicas: 3 -> 5"]
    assert {e["term"] for e in world.recorded().values()} == ({0, 1} if reached else {1})


def test_what_another_did_to_the_same_target_is_not_done_again(world):
    """Both saw the same evidence."""
    one, two = world.replica("one"), world.replica("two")
    one.turn()
    two.turn()
    two.actuator.submit([action("b-1")])
    one.actuator.submit([action()])
    one.turn()
    told = []
    for _ in range(20):
        world.clock.sleep_until(world.clock.now() + 1)
        two.lease.step()
        two.actuator.run_due()
        told += two.actuator.collect()
    assert [(o.status, o.reason) for o in told] == [
        ("refused", f"not now: another replica, {one.lease.holder}, acted on {API} 15s ago: ScaleUp a-1.")]
    assert len(world.calls()) == 1


def test_one_that_was_halted_past_its_lease_writes_nothing(world):
    """Halted before its write, another led meanwhile: the write never leaves, and the rest of the queue is given up."""
    one, two = world.replica("one"), world.replica("two")
    one.turn()
    two.turn()
    try_out = world.cluster.try_out

    def halted(change):
        world.cluster.try_out = try_out
        try_out(change)
        world.later(20, two)
    world.cluster.try_out = halted
    one.actuator.submit([action(), action("a-2", "deployment/shop/web")])
    before = sum(v for k, v in one.api.sent.items() if k != "get")
    told = one.turn() + world.later(4, one)
    assert world.calls() == [f"patch {API} spec.replicas: 3 -> 5"]
    assert world.recorded()["a-1"]["term"] == 1 and world.recorded()["a-1"]["status"] == "done"
    assert sorted(told) == [("a-1", "unknown"), ("a-2", "refused")]
    assert sum(v for k, v in one.api.sent.items() if k != "get") - before <= 2


def test_the_next_term_of_the_same_one_does_not_go_on_with_the_old_plan(world):
    """Halted; another led and went; we lead again: the plan in hand is of a term that is over."""
    one, two = world.replica("one"), world.replica("two")
    one.turn()
    two.turn()
    try_out = world.cluster.try_out

    def halted(change):
        world.cluster.try_out = try_out
        try_out(change)
        world.later(20, two)
        two.lease.release()
        one.lease.step()
    world.cluster.try_out = halted
    one.actuator.submit([action()])
    assert one.turn() == [("a-1", "unknown")]
    assert one.lease.term() == 2 and world.calls() == [f"patch {API} spec.replicas: 3 -> 5"]
    assert world.later(4, one) == []
    assert len(world.calls()) == 1


def test_a_restart_hears_how_it_ended_elsewhere(world):
    """Its action was finished by the other one; what it never began is told so."""
    one, two = world.replica("one"), world.replica("two")
    one.turn()
    world.cluster.write, write = lambda change: (_ for _ in ()).throw(KeyboardInterrupt), world.cluster.write
    one.actuator.submit([action()])
    with pytest.raises(KeyboardInterrupt):
        one.turn()
    world.cluster.write = write
    two.turn()
    again = world.replica("one", ["a-1", "a-7"])
    assert again.turn() == [("a-7", "failed")]
    told = world.later(40, two, again)
    assert told.count(("a-1", "done")) == 2
    assert len(world.calls()) == 1


def test_the_ledger_is_read_again_where_the_answer_never_came(world):
    """The intent is recorded once, and the action is done once."""
    one = world.replica("one")
    one.turn()
    one.api.silent = Ambiguous("no answer")
    one.actuator.submit([action()])
    assert one.turn() == [("a-1", "done")]
    assert len(world.calls()) == 1


def test_a_ledger_that_was_written_without_an_answer_is_not_written_again(world):
    """It is read, and says what it was to say."""
    one, puts = world.replica("one"), []
    one.turn()
    put = one.api.put

    def lost(path, body):
        puts.append(body)
        put(path, body)
        raise Ambiguous("no answer")
    one.api.put = lost
    one.actuator.submit([action()])
    assert one.turn() == [("a-1", "done")]
    texts = [p["data"]["actions.json"] for p in puts]
    assert len(texts) == len(set(texts))


@pytest.mark.parametrize("text", ["{", "[3]", "null", '[{"x": 1}]', "3"])
def test_a_ledger_that_cannot_be_understood_keeps_everybody_from_acting(world, text):
    """What was begun might be in it; the worker goes on, and looks again, not too often."""
    one, reads = world.replica("one"), []
    one.turn()
    world.store.objects[LEDGER]["data"]["actions.json"] = text
    world.clock.sleep_until(world.clock.now() + 60)
    two = world.replica("two")
    get = two.api.get
    two.api.get = lambda path: (reads.append(path), get(path))[1]
    two.actuator.submit([action()])
    assert world.later(40, two) == [] and world.calls() == []
    assert two.actuator.notes() == [
        "Nothing is carried out: the ledger aiops/aiops-actions cannot be understood, and may hold what was begun. Delete the "
        "ConfigMap where nothing was."]
    assert 1 <= len(reads) <= 20


def test_the_very_same_decision_is_heard_by_both(world):
    """Both made it in the same step: it has the same id, and is done once."""
    one, two = world.replica("one"), world.replica("two")
    one.turn()
    two.turn()
    two.actuator.submit([action()])
    one.actuator.submit([action()])
    one.turn()
    one.lease.release()
    assert world.later(4, two) == [("a-1", "done")]
    three = world.replica("three")
    two.lease.release()
    three.turn()
    three.actuator.submit([action()])
    assert three.turn() == [("a-1", "done")]
    assert len(world.calls()) == 1


def test_why_nothing_is_carried_out_is_told(world):
    """On the page, while the lease cannot be looked at."""
    one = world.replica("one")
    assert one.actuator.notes() == []
    one.lease._api.failing = Refused("GET leases: 403. Grant the right, see `aiops doctor`.")
    one.turn()
    assert one.actuator.notes() == [
        "Nothing is carried out: waits for the lease aiops/aiops: GET leases: 403. Grant the right, see `aiops doctor`."]
    one.turn()
    assert one.actuator.notes() == [] and one.actuator.leads() == {"aiops/aiops": 1.0}


def test_where_the_intent_cannot_be_recorded_nothing_is_done(world):
    """It waits; and afterwards it is done."""
    one = world.replica("one")
    one.turn()
    put = one.api.put
    one.api.put = lambda path, body: (_ for _ in ()).throw(Retry("down"))
    one.actuator.submit([action()])
    assert one.turn() == [] and world.calls() == []
    one.api.put = put
    assert world.later(6, one) == [("a-1", "done")]
    assert len(world.calls()) == 1


def test_what_was_done_is_recorded_later_where_that_failed(world):
    """A failure after the write never makes it come again."""
    one = world.replica("one")
    one.turn()
    write, put = world.cluster.write, one.api.put

    def then_down(change):
        one.api.put = lambda path, body: (_ for _ in ()).throw(Retry("down"))
        return write(change)
    world.cluster.write = then_down
    one.actuator.submit([action()])
    assert one.turn() == [("a-1", "done")]
    assert world.recorded()["a-1"]["status"] is None
    one.api.put = put
    world.later(2, one)
    assert world.recorded()["a-1"]["status"] == "done"
    assert len(world.calls()) == 1


def test_the_new_leader_can_undo_what_the_old_one_did(world):
    """What undoes it is in the ledger that all see."""
    one, two = world.replica("one"), world.replica("two")
    one.turn()
    one.actuator.submit([action()])
    one.turn()
    one.lease.release()
    two.turn()
    two.actuator.submit([action("b-2", state="undo", undo_of="a-1")])
    assert two.turn() == [("b-2", "undone")]
    assert world.cluster.replicas(API) == 3


def test_the_ledger_stays_small(world):
    """The oldest that have ended go; what is unfinished stays."""
    one = world.replica("one")
    one.turn()
    ledger, filler = one.ledger, "x" * 5000
    for n in range(300):
        ledger._entries[f"old-{n}"] = {"id": f"old-{n}", "status": "done" if n else None, "text": filler, "writes": [],
                                       "action": {}, "rest": "", "ended_at": NOW, "reason": "", "by": "x", "term": 0}
    ledger._save()
    kept = world.recorded()
    assert "old-0" in kept and "old-299" in kept and "old-1" not in kept
    assert len(world.store.objects[LEDGER]["data"]["actions.json"]) <= MOST_BYTES + 1000


# ------------------------------------------------------------------------------------------------------ configuration
def configured(tmp_path, text):
    file = tmp_path / "aiops.yaml"
    file.write_text(f"sources: [{{kubernetes: {{}}}}]\nmode: act\n{text}\n")
    return config.load(file, {})


@pytest.mark.parametrize(("text", "inside", "found"), [
    ("", False, None), ("", True, ("ops", "aiops")), ("leaderElection: {enabled: false}", True, None),
    ("leaderElection: {lease: tools/healer}", False, ("tools", "healer")),
    ("leaderElection: {lease: tools/healer, enabled: false}", True, None)])
def test_it_is_on_inside_a_cluster(tmp_path, monkeypatch, text, inside, found):
    """In the namespace of the pod, and wherever a lease is named."""
    monkeypatch.setattr(build, "SERVICE_ACCOUNT", tmp_path / "namespace")
    (tmp_path / "namespace").write_text("ops\n")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1") if inside else monkeypatch.delenv(
        "KUBERNETES_SERVICE_HOST", raising=False)
    assert build.lease(configured(tmp_path, text)) == found


def test_outside_a_cluster_the_lease_must_be_named(tmp_path, monkeypatch):
    """Nobody guesses a namespace."""
    monkeypatch.setattr(build, "SERVICE_ACCOUNT", tmp_path / "none")
    with pytest.raises(build.ConfigurationError, match=r"Set leaderElection\.lease to NAMESPACE/NAME"):
        build.lease(configured(tmp_path, "leaderElection: {enabled: true}"))
