"""What goes through the ledger that all replicas see: what a decider says of its actions, and who judges them."""

from __future__ import annotations

import pytest
from test_cluster_replicas import API, LEDGER, NOW, action, world
from test_desk import page

from aiops.desk import Desk
from aiops.web.view import NotPossible

__all__ = ["page", "world"]


class Mind:
    """A decider that says what a test sets."""

    def __init__(self, leads=True):
        self.leads, self.unwanted, self.said = leads, set(), {}

    def wanted(self, name):
        return name not in self.unwanted

    def about(self, name):
        return self.said.get(name)

    def says(self, name, state, undo=""):
        self.said[name] = {"attempt": {"id": name, "incident": "i", "state": state, "undo": undo},
                           "incident": {"id": "i", "entities": [API]}}
        return self


def verbs(replica):
    said = [(c.verb, c.target) for c in replica.said]
    replica.said.clear()
    return said


def test_what_is_known_of_an_action_is_there_before_it_is_done(world):
    """With the intent; and what becomes of it, as soon as the decider says so."""
    mind = Mind().says("a-1", "submitted")
    one = world.replica("one", judge=mind)
    seen, write = [], world.cluster.write
    world.cluster.write = lambda change: (seen.append(world.recorded()["a-1"]["about"]), write(change))[1]
    one.turn()
    one.actuator.submit([action()])
    one.turn()
    assert seen == [mind.about("a-1")]
    mind.says("a-1", "no_help", "running")
    world.later(4, one)
    assert world.recorded()["a-1"]["about"]["attempt"]["state"] == "no_help"


def test_a_follower_hears_of_each_change_once_and_who_leads_hears_before_it_does_anything(world):
    """`handed` comes before `lead`."""
    mind = Mind().says("a-1", "submitted")
    one, two = world.replica("one", judge=mind), world.replica("two", judge=Mind())
    one.turn()
    one.actuator.submit([action()])
    one.turn()
    world.later(20, one, two)
    assert verbs(two) == [("handed", "a-1")]
    mind.says("a-1", "verifying")
    world.later(20, one, two)
    [heard] = two.said
    assert (heard.by, heard.params["attempt"]["state"]) == (one.lease.holder, "verifying")
    assert (heard.params["ended"]["status"], heard.params["ended"]["at"]) == ("done", NOW)
    two.said.clear()
    mind.says("a-1", "helped")
    world.later(2, one)
    one.lease.release()
    world.later(6, two)
    assert verbs(two) == [("handed", "a-1"), ("lead", "aiops/aiops")]
    world.later(6, one, two)
    assert ("follow", "aiops/aiops") in verbs(one)


def test_the_ledger_is_not_written_while_nothing_changes(world):
    """Also by a leader that took over what is still being judged."""
    mind = Mind().says("a-1", "verifying")
    one, two = world.replica("one", judge=mind), world.replica("two", judge=Mind().says("a-1", "verifying"))
    one.turn()
    one.actuator.submit([action()])
    one.turn()
    one.lease.release()
    world.later(10, two)
    before = world.store.objects[LEDGER]["metadata"]["resourceVersion"]
    world.later(60, two)
    assert world.store.objects[LEDGER]["metadata"]["resourceVersion"] == before


def test_what_was_withdrawn_is_never_begun(world):
    """It gave way to what another did for the same incident."""
    mind = Mind()
    one = world.replica("one", judge=mind)
    one.actuator.submit([action(), action("a-2", "deployment/shop/web")])
    mind.unwanted.add("a-1")
    assert sorted(world.later(4, one)) == [("a-1", "refused"), ("a-2", "done")]
    assert len(world.calls()) == 1


def test_nothing_new_is_begun_before_what_the_last_leader_did_was_taken_in(world):
    """What it had begun is settled at once."""
    one, mind = world.replica("one", judge=Mind().says("a-1", "verifying")), Mind(leads=False)
    two = world.replica("two", judge=mind)
    one.turn()
    one.actuator.submit([action()])
    one.turn()
    two.actuator.submit([action("b-1", "deployment/shop/web")])
    one.lease.release()
    assert world.later(20, two) == [] and len(world.calls()) == 1
    mind.leads = True
    assert world.later(4, two) == [("b-1", "done")]


def test_the_same_undo_decided_by_two_is_done_once(world):
    """Its id is that of the action: the first one was killed after it had been carried out."""
    one = world.replica("one", judge=Mind().says("a-1", "no_help", "running"))
    one.turn()
    one.actuator.submit([action()])
    one.turn()
    undo = action("a-1-undo", state="undo", undo_of="a-1")
    one.actuator.submit([undo])
    one.turn()
    two = world.replica("two", judge=Mind())
    one.lease.release()
    two.turn()
    two.actuator.submit([undo])
    assert world.later(6, two) == [("a-1-undo", "undone")]
    assert [c.split(": ")[-1] for c in world.calls()] == ["3 -> 5", "5 -> 3"]


def test_answers_are_taken_by_the_one_that_leads(page, world):
    """The other says who that is: a person who was told 'accepted' would wait for nothing."""
    one, two = world.replica("one"), world.replica("two")
    one.turn()
    two.turn()
    assert one.actuator.follows() == "" and one.actuator.notes() == []
    assert two.actuator.follows() == f"waits for the lease aiops/aiops: {one.lease.holder} leads"
    assert two.actuator.notes() == [
        f"{one.lease.holder} carries out and takes answers; this replica watches, learns and decides."]
    desk = Desk(page.store, page.vitals, page.metrics, "ask", NOW, lambda: NOW, tuple, page.said.append,
                follows=two.actuator.follows)
    page.store.incidents = lambda state, limit: [{"actions": [{"id": "a-1", "decision": "ask", "state": "asked"}]}]
    who = f"carries out nothing, it waits for the lease aiops/aiops: {one.lease.holder} leads"
    for answer in (desk.approve, desk.reject):
        with pytest.raises(NotPossible, match=who):
            answer("a-1", "anna")
    assert page.said == []
