"""An alert that goes on in another incident, incidents that turn out to be one, and one that turns out to be two."""

from __future__ import annotations

from dataclasses import replace

import pytest
from helpers import T0, alert, links, pipeline
from hypothesis import given, settings
from hypothesis import strategies as st
from test_policy_decide import T0 as BOOK_T0
from test_policy_decide import UNWELL, book, incident, policy, step
from test_storm import CART, DB, FAR, SHOP, WEB, Storm

from aiops.account import account
from aiops.incidents import IncidentBook
from aiops.replay import Result
from aiops.serial import incident as form
from aiops.types import HANDED, Action, Batch, Command, Counts, Edge, Links, Outcome, RawAlert
from correlators.graph import HUB_DEGREE, Graph
from correlators.group import WINDOW_S, Grouper

SHARED = Graph(Links((), tuple(Edge(f"service//s{k}", "service//gateway") for k in range(HUB_DEGREE + 1))))
ONE, TWO, HUB = "service//s1", "service//s2", "service//gateway"


def lasting(storm, entity, seconds=WINDOW_S + 60.0):
    """Its one incident, after it was on for so long."""
    [name] = storm.step(entity)
    for _ in range(int(seconds / 30)):
        storm.step(entity)
    return name


# ------------------------------------------------------------------------------------------------------- goes on there
def test_what_lasts_goes_on_in_what_begins_next_to_it():
    """The raw alerts until then stay where they were; the older one says where it went, and closes."""
    storm = Storm()
    old = lasting(storm, CART)
    before = storm.index
    both = storm.step(CART, WEB)
    [new] = set(both) - {old}
    assert storm.found[new].entities == (CART, WEB)
    [left] = storm.found[old].alerts
    assert (left.state, left.text) == ("suppressed", f"it goes on in {new}")
    assert dict(account(form(storm.found[old]), storm.now))["Now"] == f"go on with {new}: what is still wrong is there"
    for _ in range(3):
        storm.step(CART, WEB)
    assert [name for name in storm.found if storm.found[name].state == "open"] == [new]
    assert {storm.assigned[k] for k in range(before)} == {old}
    assert {storm.assigned[k] for k in range(before, storm.index)} == {new}


def test_what_is_only_half_odd_becomes_an_incident_next_to_what_lasts():
    """Somewhere else it does not; and the alert that lasts stays where it is, then."""
    def opens(where):
        storm = Storm()
        storm.habit(where, 2, apart_s=2000.0)
        lasting(storm, (CART, "Down"))
        return len(storm.step((CART, "Down"), where))
    assert (opens(WEB), opens(FAR)) == (2, 1)


def test_nothing_is_taken_from_an_incident_in_which_something_was_done():
    """Whether it helped is to be seen there."""
    for held, expected in ((True, (WEB,)), (False, (CART, WEB))):
        storm = Storm()
        old = lasting(storm, CART)
        storm.now += 30.0
        told = storm.others.update(storm.now, [RawAlert(0, storm.now, CART, "Slow"), RawAlert(1, storm.now, WEB, "Slow")])
        found = storm.correlate.correlate(storm.now, told, SHOP, (), {old} if held else frozenset())
        assert [i.entities for i in found if i.id != old] == [expected]


@pytest.mark.parametrize(("decision", "state", "kind", "held"), [
    ("act", "submitted", "Restart", True), ("ask", "asked", "Restart", True), ("refused", "rejected", "Restart", True),
    ("refused", "cooldown", "Restart", False), ("shadow", "shadow", "Restart", False), ("act", "submitted", "Notify", False)])
def test_what_holds_an_incident_together(decision, state, kind, held):
    """Done, asked or answered; not what was only rehearsed, refused by a guard, or told to people."""
    kept = IncidentBook()
    kept.update(T0, [incident()])
    kept.record(T0, [Action("a-1", kind, "pod/shop/a", {}, "i-1", "p", decision, "why", T0, state)], (), ())
    assert kept.acted_in() == ({"i-1"} if held else set())


def test_alerts_of_our_own_stay_where_they_are():
    """They end by themselves when what is wrong does; those of others go on as long as somebody's rule says so."""
    grouper, own = Grouper(), alert(f"{CART} latency", since=T0)
    grouper.update(T0, [own], SHOP)
    found = grouper.update(T0 + 1000, [replace(own, at=T0 + 1000), alert(f"{WEB} latency", since=T0 + 1000)], SHOP)
    assert [sorted(g.entities) for g in found] == [[CART], [WEB]]


# ----------------------------------------------------------------------------------------------------------------- one
def test_two_incidents_become_one_when_what_both_need_alerts_too():
    """Under the name of the older one; the younger names it, and so does every raw alert of it."""
    storm = Storm(SHARED)
    [old] = storm.step(ONE)
    both = storm.step(ONE, TWO)
    [young] = set(both) - {old}
    assert storm.step(ONE, TWO, HUB) == [old]
    one, gone = storm.found[old], storm.found[young]
    assert one.entities == (HUB, ONE, TWO) and (gone.merged_into, gone.state) == (old, "closed")
    assert [t.text for t in gone.timeline] == [f"merged into {old}: {HUB}: alert:Slow links them"]
    assert [t.text for t in one.timeline] == [f"{young} is part of this one: {HUB}: alert:Slow links them"]
    assert dict(account(form(gone), storm.now))["Since"].endswith(f"part of {old} from then on; 1 signal on 1 entity")
    result = Result("x", 0, 0, Counts(), {i.id: i for i in (one, gone)}, storm.assigned)
    assert {result.incident_of(k) for k in range(storm.index)} == {old}
    assert storm.step(ONE, TWO, HUB) == [old] and young not in storm.found


@pytest.mark.parametrize(("first", "second", "link"), [(ONE, FAR, HUB), (ONE, TWO, FAR)])
def test_what_does_not_touch_both_joins_nobody(first, second, link):
    """Only somebody in both, or next to both."""
    storm = Storm(SHARED)
    storm.step(first)
    assert len(storm.step(first, second)) == 2
    assert len(storm.step(first, second, link)) == (2 if link == HUB else 3)


def test_incidents_that_began_at_other_times_stay_two():
    """The hub joins the one that began as it did."""
    storm = Storm(SHARED)
    lasting(storm, ONE, WINDOW_S)
    assert len(storm.step(ONE, TWO)) == 2
    assert len(storm.step(ONE, TWO, HUB)) == 2


# ----------------------------------------------------------------------------------------------------------------- two
def test_what_nothing_connects_any_more_and_began_later_becomes_its_own():
    """The older part keeps the name; the other one says where it comes from."""
    near, far = Graph(Links((), (Edge(WEB, CART),))), Graph()
    for held in (False, True):
        grouper = Grouper()
        slow, late = alert(f"{WEB} latency", since=T0), alert(f"{CART} errors", since=T0 + 1000)
        early = alert(f"{CART} latency", since=T0)
        [group] = grouper.update(T0, [slow, early], near)
        grouper.update(T0 + 1000, [slow, early, late], near)
        told = [slow, late, replace(early, state="resolved")]
        found = grouper.update(T0 + 1100, told, far, {group.id} if held else frozenset())
        if held:
            assert [sorted(g.suffering) for g in found] == [[CART, WEB]]
        else:
            old, new = found
            assert (old.id, [*old.suffering], [*new.suffering], new.began) == (group.id, [WEB], [CART], T0 + 1000)
            told = f"{CART} goes on as {new.id}: it began 17 min later, and nothing connects them"
            assert [text for _, text in old.story] == [told]
            assert [kind for kind, _ in new.story] == ["split"]


def test_what_began_together_is_not_split():
    """What joined them may be what caused both, and be well again."""
    grouper, g = Grouper(), SHOP
    found = [alert(f"{e} x", since=T0 + k) for k, e in enumerate((WEB, CART, DB))]
    grouper.update(T0 + 5, found, g)
    assert len(grouper.update(T0 + 100, [found[0], replace(found[1], state="resolved"), found[2]], Graph())) == 1


entities = [f"a//{k}" for k in range(9)]
pairs = st.lists(st.tuples(st.sampled_from(entities), st.sampled_from(entities)), max_size=14)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(pairs, pairs, st.lists(st.lists(st.tuples(st.sampled_from(entities), st.sampled_from(["Slow", "Down"])), max_size=6),
                              max_size=25), st.randoms(use_true_random=False))
def test_each_alert_is_in_one_incident_whatever_happens(before, after, storms, rng):
    """What fires is in one group that is open, no other has it firing, and every raw alert leads to an incident that there was;
    in whatever order things are told."""
    one, other = Storm(Graph(Links((), tuple(Edge(a, b) for a, b in before)))), Storm()
    other.graph, known = one.graph, set()
    for k, batch in enumerate(storms):
        if k == len(storms) // 2:
            one.graph = other.graph = Graph(Links((), tuple(Edge(a, b) for a, b in after)))
        after_s = rng.choice([30.0, 60.0, 200.0])
        found = one.step(*batch, after=after_s)
        assert found == other.step(*sorted(batch, reverse=True), after=after_s)
        groups = one.correlate._grouper.groups.values()
        fires = [a.key for g in groups for e in sorted(g.suffering) for a in g.of(e)]
        assert sorted(fires) == sorted(a.key for a in one.alerts if a.state == "firing")
        known |= one.found.keys()
        assert set(one.assigned.values()) <= known
        assert all(i.merged_into in known for i in one.found.values() if i.merged_into)


# ------------------------------------------------------------------------------------------------------------ policies
def merged(at):
    """Two incidents of the same; the second was merged into the first."""
    one, two = (incident(n, alerts=(UNWELL,)) for n in (1, 2))
    return [one, replace(two, state="closed", closed_at=BOOK_T0 + at, merged_into=one.id)]


def test_what_was_done_in_the_younger_is_judged_in_the_older_and_not_done_again():
    """The attempt goes with its evidence, and is shown where it is now; nobody is to do it once more."""
    b = book()
    [action] = step(b, incidents=[incident(2)]).actions
    told = step(b, 5.0, incidents=merged(at=5.0), outcomes=[Outcome(action.id, "done", BOOK_T0 + 5)])
    assert [(a.id, a.incident, a.decision, a.state) for a in told.actions] == [(action.id, "i-1", "act", HANDED)]
    assert step(b, 20.0, incidents=[incident(1)]).actions == ()
    late = step(b, 700.0, incidents=[incident(1)])
    assert [(o.action, o.status) for o in late.outcomes] == [(action.id, "no_help")]


@pytest.mark.parametrize("first", [1, 2])
def test_of_two_questions_for_the_same_one_is_left(first):
    """Whichever of both incidents asked first."""
    b = book(policy(mode="ask", guards={"cooldown": "0s", "maxActions": {"count": 10, "per": "1h"}}))
    asked = [a for n in (first, 3 - first) for a in step(b, float(n), incidents=[incident(n)] if n == first else
                                                         [incident(1), incident(2)]).actions]
    told = step(b, 9.0, incidents=merged(at=9.0))
    live = [a for a in b.ledger.live() if a.state == "asked"]
    assert [a.incident for a in live] == ["i-1"]
    assert len(told.outcomes) == sum(a.decision == "ask" for a in asked) - 1


def test_a_rejected_question_is_not_asked_again_after_a_merge():
    """People's answers go with the attempt."""
    b = book(policy(mode="ask"))
    [question] = step(b, incidents=[incident(2)]).actions
    step(b, 1.0, incidents=[incident(2)], commands=[Command(BOOK_T0 + 1, "reject", question.id, "me")])
    step(b, 2.0, incidents=merged(at=2.0))
    assert step(b, 3.0, incidents=[incident(1)]).actions == ()


def test_the_pipeline_says_so_to_everybody():
    """Through everything: the record of both, the counts, and the policies, which do the same only once."""
    core = pipeline([policy(trigger={"type": "Incident"}, actions=[{"type": "ScaleUp", "target": {"deployment": "shop/api",
                                                                                                   "replicas": "+1"}}])])
    edges = links(*(f"service//s{k} calls {HUB}" for k in range(HUB_DEGREE + 1)))
    done, seen = [], {}
    for k, entities in enumerate(((), (ONE,), (ONE, TWO), (ONE, TWO, HUB), (ONE, TWO, HUB))):
        at = T0 + 30.0 * k
        raw = tuple(RawAlert(10 * k + n, at, e, "Slow") for n, e in enumerate(entities))
        report = core.step(Batch(at, links=edges if k == 0 else None, alerts=raw))
        done += [a for a in report.actions if a.decision == "act" and a.state != HANDED]
        seen |= {i.id: i for i in report.incidents}
    old, young = sorted(seen.values(), key=lambda i: i.opened_at)
    assert (young.merged_into, young.state, old.state) == (old.id, "closed", "open")
    assert any(t.kind == "merged" for t in old.timeline) and any(t.kind == "merged" for t in young.timeline)
    assert len(done) == 1 and {a.incident for a in core.decider.ledger.attempts.values()} == {old.id}
    assert (form(young)["merged_into"], form(old)["merged_into"]) == (old.id, None)
