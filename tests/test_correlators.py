"""Alerts into incidents, and incidents to their cause: by time, by topology, by arithmetic that a person can check."""

from __future__ import annotations

from dataclasses import replace

import networkx as nx
import pytest
from helpers import T0, alert, graph, links
from hypothesis import given, settings
from hypothesis import strategies as st

from aiops.types import Alert, Edge, Event, Links, Node
from correlators.correlate import Correlate
from correlators.graph import HUB_DEGREE, Graph
from correlators.group import CLOSE_AFTER_S, MOST_RETURNS, REST_S, WINDOW_S, Grouper
from correlators.impact import MAX_LISTED, impact
from correlators.rootcause import CHANGE_BEFORE_S, rank

SHOP = graph("service//gateway calls service//checkout", "service//checkout calls service//db",
             "service//gateway calls service//catalog", "service//catalog calls service//db",
             *(f"service//{s} runs_on node//n" for s in ("gateway", "checkout", "catalog", "db", "other")))


# ------------------------------------------------------------------------------------------------------------ graph
def hops(g, a, b, limit=2, troubled=()):
    return g.distance(a, b, limit, set(troubled))


def test_distance_goes_both_ways_along_the_edges():
    """Callers and callees are equally near."""
    g = graph("a//1 calls a//2", "a//2 calls a//3", "a//3 calls a//4")
    assert [hops(g, "a//1", f"a//{i}", 3) for i in (1, 2, 3, 4)] == [0, 1, 2, 3]
    assert (hops(g, "a//4", "a//2"), hops(g, "a//4", "a//1")) == (2, None)


def test_who_is_not_in_the_graph_is_near_to_itself_only():
    """Unknown entities are legal."""
    assert hops(SHOP, "x//1", "x//1") == 0
    assert hops(SHOP, "x//1", "service//db") is hops(SHOP, "service//db", "x//1") is None
    assert Graph().dependencies("x//1") == Graph().dependents("x//1") == []


def test_a_quiet_machine_does_not_make_neighbours():
    """Everything runs on something; only a machine in trouble connects its guests."""
    assert hops(SHOP, "service//other", "service//db") is None
    assert hops(SHOP, "service//other", "service//db", troubled={"node//n"}) == 2
    assert hops(SHOP, "node//n", "service//db") == 1


def test_a_quiet_hub_does_not_make_neighbours():
    """Nor does whatever has very many neighbours."""
    for degree, expected in ((HUB_DEGREE, 2), (HUB_DEGREE + 1, None)):
        g = graph(*(f"service//{i} calls service//dns" for i in range(degree)))
        assert hops(g, "service//0", "service//1") == expected
        assert hops(g, "service//0", "service//1", troubled={"service//dns"}) == 2


def test_an_edge_to_oneself_is_left_out():
    """And a cycle ends the search, not the program."""
    g = graph("a//1 calls a//1", "a//1 calls a//2", "a//2 calls a//1")
    assert g.dependencies("a//1") == [("a//2", "calls")]
    assert g.dependents("a//1") == ["a//2"]


def test_guests_are_who_uses_a_machines_resources():
    """What runs on it, and the processes it runs; not who calls it."""
    g = graph("pod//a runs_on node//n", "node//n uses process//p", "service//s calls node//n")
    assert g.guests("node//n") == ["pod//a", "process//p"]
    assert g.guests("node//unknown") == []


places = st.sampled_from([f"service//{k}" for k in range(8)] + [f"node//{k}" for k in range(3)] + ["service//hub"])


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.tuples(places, places), max_size=25), st.sets(places, max_size=7), st.integers(1, 3),
       st.sets(places, max_size=2))
def test_clusters_are_those_of_all_pairs(pairs, chosen, limit, others):
    """The walk from all at once finds what asking for every pair would."""
    hub = [("service//hub", f"service//x{k}") for k in range(HUB_DEGREE + 1)]
    g = Graph(Links((), tuple(Edge(a, b) for a, b in [*pairs, *hub])))
    troubled = chosen | others
    naive = nx.Graph()
    naive.add_nodes_from(chosen)
    naive.add_edges_from((a, b) for a in chosen for b in chosen if g.distance(a, b, limit, troubled) is not None)
    assert g.clusters(chosen, limit, troubled) == sorted(sorted(c) for c in nx.connected_components(naive))
    assert g.near_any(chosen, limit, troubled) == {n for e in chosen for n in g.around(e, limit, troubled)}


# --------------------------------------------------------------------------------------------------------- grouping
class Run:
    """A correlator and its clock; alerts by key, firing until told otherwise."""

    def __init__(self, g=SHOP):
        self.correlate, self.graph, self.now, self.firing = Correlate(), g, T0, {}

    def step(self, *fire, clear=(), after=10.0, events=()):
        """Incidents after the step, by id."""
        self.now += after
        gone = [replace(self.firing.pop(key), state="resolved", at=self.now) for key in clear]
        for key in fire:
            self.firing[key] = self.firing.get(key) or alert(key, since=self.now)
        current = [replace(a, at=self.now) for a in self.firing.values()]
        return {i.id: i for i in self.correlate.correlate(self.now, [*current, *gone], self.graph, events)}

    def entities(self, *fire, **more):
        """The entities of each open incident."""
        return sorted(sorted(i.entities) for i in self.step(*fire, **more).values() if i.state == "open")


CHECKOUT, DB, GATEWAY, OTHER, NODE = (f"{e} errors" for e in (
    "service//checkout", "service//db", "service//gateway", "service//other", "node//n"))


def test_two_faults_far_apart_stay_two_incidents():
    """At the same time, and on the same quiet machine."""
    assert Run().entities(CHECKOUT, OTHER) == [["service//checkout"], ["service//other"]]


def test_neighbours_in_trouble_at_the_same_time_are_one_incident():
    """Whatever comes first, and two hops away as well."""
    run = Run()
    run.step(GATEWAY)
    assert run.entities(DB) == [["service//db", "service//gateway"]]


def test_what_begins_together_goes_together_whatever_its_names():
    """Each is near the next one only, and the two ends are told of first."""
    g = graph("service//b calls service//z", "service//z calls service//y", "service//y calls service//x",
              "service//x calls service//a")
    assert len(Run(g).entities("service//a errors", "service//b errors", "service//y errors")) == 1


def test_a_machine_in_trouble_brings_its_guests_together():
    """Three strangers and the node that they run on."""
    assert Run().entities(NODE, OTHER, "service//catalog slow") == [["node//n", "service//catalog", "service//other"]]


def test_a_hub_in_trouble_brings_its_callers_together():
    """The same callers, with and without an alert on what they share."""
    g = graph(*(f"service//{i} calls service//dns" for i in range(20)))
    assert len(Run(g).entities("service//1 errors", "service//2 errors")) == 2
    assert len(Run(g).entities("service//1 errors", "service//2 errors", "service//dns errors")) == 1


def test_neighbours_at_different_times_are_two_incidents():
    """Later than the window after the last of them."""
    run = Run()
    run.step(CHECKOUT)
    assert len(run.entities(DB, after=WINDOW_S + 1)) == 2


def test_the_same_entity_belongs_to_its_open_incident_at_any_time():
    """A second symptom an hour later is news about the same trouble."""
    run = Run()
    run.step(CHECKOUT)
    assert run.entities("service//checkout slow", after=3600) == [["service//checkout"]]


def test_an_incident_closes_when_all_has_been_well_for_a_while():
    """Not in the same moment; it says so once, and is gone."""
    run = Run()
    [name] = run.step(CHECKOUT)
    states = [run.step(clear=[CHECKOUT])[name].state]
    while (found := run.step()) and found[name].state == "open":
        states.append("open")
    closed_at = found[name].closed_at
    assert closed_at is not None and run.now - T0 - 20 >= CLOSE_AFTER_S - 10
    assert run.step() == {}


def close(run, *keys):
    run.step(clear=keys)
    while any(i.state == "open" for i in run.step().values()):
        pass


def test_flapping_reopens_the_same_incident():
    """Under its old name, with when it was opened first."""
    run = Run()
    [name] = run.step(CHECKOUT)
    close(run, CHECKOUT)
    again = run.step(CHECKOUT)
    assert list(again) == [name]
    assert (again[name].state, again[name].closed_at, again[name].opened_at) == ("open", None, T0 + 10)


def test_what_comes_back_after_a_rest_is_another_incident():
    """The same signal, well for minutes in between: the first stays closed."""
    run = Run()
    [name] = run.step(CHECKOUT)
    close(run, CHECKOUT)
    run.step(after=REST_S)
    again = run.step(CHECKOUT)
    assert name not in again and len(again) == 1


def test_memory_that_stays_taken_does_not_hold_what_begins_next_to_it_after_a_rest():
    """It still fires, within the window of its onset; before the rest was long enough a neighbour belongs to it."""
    for after, incidents in ((REST_S / 4, 1), (REST_S + 20, 2)):
        run = Run()
        run.firing["service//db memory"] = alert("service//db memory", since=T0 + 10, resource="memory")
        run.step(DB)
        run.step(clear=[DB])
        run.step(after=after)
        found = run.entities(CHECKOUT)
        assert len(found) == incidents and "service//checkout" in found[0]


def test_what_comes_back_over_and_over_stays_one_incident():
    """A crash loop: it rests each time, and after some returns all of them are in the last incident."""
    run, names = Run(), set()
    for _ in range(10):
        names |= run.step(CHECKOUT).keys()
        close(run, CHECKOUT)
        run.step(after=REST_S)
    assert len(names) == 1 + MOST_RETURNS


def test_another_fault_near_one_that_is_over_is_another_incident():
    """On an entity that was in the first, with another signal; soon after the first it still belongs to it."""
    for rest_s, open_now in ((REST_S, 1), (REST_S / 4, 1)):
        run = Run()
        [name] = run.step(CHECKOUT)
        close(run, CHECKOUT)
        run.step(after=rest_s)
        found = run.step("service//checkout slow")
        assert (len(found), name in found) == (open_now, rest_s < REST_S)


def test_trouble_long_after_is_a_new_incident():
    """The window is over."""
    run = Run()
    [name] = run.step(CHECKOUT)
    close(run, CHECKOUT)
    run.step(after=WINDOW_S + 1)
    assert name not in run.step(CHECKOUT)


def test_a_neighbour_does_not_reopen_what_is_closed():
    """Only who was in it does."""
    run = Run()
    [name] = run.step(CHECKOUT)
    close(run, CHECKOUT)
    assert name not in run.step(DB)


def test_what_ended_before_it_was_known_opens_nothing():
    """A resolved alert of nobody."""
    run = Run()
    run.firing[DB] = alert(DB)
    assert run.step(clear=[DB]) == {}


def test_raw_alerts_are_assigned_to_the_incident_that_they_joined():
    """Each index once, in the step in which it came."""
    run = Run()
    run.firing[CHECKOUT] = replace(alert(CHECKOUT), indexes=(3, 4))
    [name] = run.step()
    assert run.correlate.assigned == [(3, name), (4, name)]
    run.firing[CHECKOUT] = alert(CHECKOUT)
    run.step()
    assert run.correlate.assigned == []


def test_a_witness_joins_the_incident_of_a_machine_that_lacks_what_it_uses():
    """And opens none, nor joins another's."""
    g = graph("node//n uses process//hog", "node//m uses process//calm")
    run = Run(g)
    run.firing["witness"] = alert("process//hog cores", state="pending", resource="cpu", strength=9.0)
    run.firing["bystander"] = alert("process//calm cores", state="pending", resource="cpu", strength=9.0)
    assert run.step() == {}
    run.firing["short"] = alert("node//n busy", resource="memory")
    assert run.entities() == [["node//n"]]
    run.firing["short too"] = alert("node//n pressure", resource="cpu")
    assert run.entities() == [["node//n", "process//hog"]]


def test_memory_does_not_grow_with_incidents():
    """A thousand incidents come and go."""
    run = Run()
    for k in range(300):
        key = f"service//s{k} errors"
        run.step(key)
        run.step(clear=[key], after=CLOSE_AFTER_S)
        run.step(after=CLOSE_AFTER_S)
        run.step(after=WINDOW_S + 1)
    assert len(run.correlate._grouper.groups) <= 1
    assert len(run.correlate._grouper._of) <= 1


# ------------------------------------------------------------------------------------------------------------ cause
def ranked(*alerts, g=SHOP, changes=(), tick_s=10.0):
    return [c.entity.split("/")[-1] for c in rank(alerts, g, changes, tick_s)]


def test_who_is_called_explains_who_calls():
    """The database, however loud the gateway is."""
    assert ranked(alert(GATEWAY, T0 + 10, 300), alert(CHECKOUT, T0 + 5, 100), alert(DB, T0, 20))[0] == "db"


def test_who_failed_afterwards_explains_little():
    """A database that turns bad long after the checkout excuses it less than one that was bad before."""
    def taken(db_at):
        [c] = [c for c in rank([alert(CHECKOUT, T0), alert(DB, db_at)], SHOP, [], 10.0) if "checkout" in c.entity]
        return c.reasons[-1].contribution
    strength = rank([alert(CHECKOUT)], SHOP, [])[0].reasons[0].contribution
    assert taken(T0 - 200) == taken(T0) == taken(T0 + 12) == pytest.approx(-0.8 * strength)
    assert taken(T0 + 200) == pytest.approx(3 / 8 * taken(T0))
    assert ranked(alert(CHECKOUT, T0, 200), alert(DB, T0 + 200, 20)) == ["checkout", "db"]
    assert ranked(alert(CHECKOUT, T0, 200), alert(DB, T0, 20)) == ["db", "checkout"]


def test_of_equals_the_first_to_turn_bad_comes_first():
    """And then the name, so that there is one answer."""
    assert ranked(alert("a//x e", T0 + 9), alert("b//y e", T0), alert("c//z e", T0), g=Graph()) == ["y", "z", "x"]


def test_who_was_well_again_before_explains_nothing():
    """A hiccup of the database that was over when the checkout began to fail."""
    over = replace(alert(DB, T0, 80, "resolved"), at=T0 + 100)
    assert ranked(over, alert(CHECKOUT, T0 + 50))[0] == "db"
    causes = rank([over, alert(CHECKOUT, T0 + 150)], SHOP, [])
    assert {len(c.reasons) for c in causes if c.entity == "service//checkout"} == {1}


def test_a_weak_deviation_does_not_explain_a_strong_one_in_full():
    """On the log scale half of it is enough; a fraction takes a fraction."""
    def taken(strength):
        [checkout] = [c for c in rank([alert(CHECKOUT, T0, 1000), alert(DB, T0, strength)], SHOP, []) if "checkout" in c.entity]
        return checkout.reasons[1].contribution
    assert taken(1000) == pytest.approx(taken(40))
    assert taken(40) < taken(5) < taken(1) < 0


def test_a_quiet_middle_passes_the_blame_on():
    """The gateway is slow because of the database, although the checkout between them shows nothing."""
    assert ranked(alert(GATEWAY, T0, 300), alert(DB, T0, 100)) == ["db", "gateway"]


def test_who_took_what_the_machine_lacks_explains_the_machine():
    """And is not excused by it; who only suffers on it is."""
    g = graph("service//hog runs_on node//n", "service//victim runs_on node//n", "node//n uses process//stress")
    node = alert("node//n busy", resource="cpu")
    for guilty in ("service//hog", "process//stress"):
        assert ranked(alert(f"{guilty} cores", resource="cpu"), node, g=g)[0] == guilty.split("/")[-1]
    assert ranked(alert("service//victim latency", resource="latency"), node, g=g)[0] == "n"


def test_who_works_harder_since_the_machine_is_short_is_no_taker():
    """Of two whose use rose, the one that took fifteen cores is to blame, and not the one that needs one more for its queue."""
    g = graph("pod//hog runs_on node//n", "pod//victim runs_on node//n")
    node = alert("node//n busy", resource="cpu")
    hog = alert("pod//hog cores", T0, 13.0, resource="cpu", value=15.0, expected=0.0)
    victim = alert("pod//victim cores", T0, 20.0, resource="cpu", value=2.0, expected=1.2)
    assert ranked(node, hog, victim, alert("pod//victim latency", T0, 60.0), g=g)[0] == "hog"
    alike = replace(victim, value=9.0, key="pod//victim|cores")
    assert ranked(node, hog, alike, g=g)[0] == "victim"


def test_a_pod_waits_for_whom_its_service_calls():
    """Calls are known of services; their pods are what is slow."""
    g = graph("service//shop owns pod//shop-1", "service//shop calls service//db")
    assert ranked(alert("pod//shop-1 latency", T0, 80.0), alert("service//db latency", T0, 40.0), g=g)[0] == "db"


def test_a_change_just_before_speaks_for_a_candidate():
    """The nearer the more; not on another entity, not long before, not after."""
    def first(entity, at):
        return ranked(alert(CHECKOUT, T0), alert("service//catalog slow", T0),
                      changes=[Event(at, entity, "change", "Deployed", "v2")])[0]
    assert ranked(alert(CHECKOUT, T0), alert("service//catalog slow", T0))[0] == "catalog"
    assert first("service//checkout", T0 - 60) == "checkout"
    assert first("service//other", T0 - 60) == "catalog"
    assert first("service//checkout", T0 - CHANGE_BEFORE_S - 1) == "catalog"
    assert first("service//checkout", T0 + 300) == "catalog"


def test_only_changes_count_as_changes():
    """Warnings and normal events do not."""
    for kind, reasons in (("change", 2), ("warning", 1), ("normal", 1)):
        run = Run()
        [incident] = run.step(CHECKOUT, events=[Event(run.now, "service//checkout", kind, "x")]).values()
        assert len(incident.causes[0].reasons) == reasons


def test_a_proxy_is_never_the_first():
    """A caller's view of a call is a symptom; where nothing else is known, it is better than nothing."""
    g = graph("service//lb calls service//api", nodes=[Node("service//lb", labels={"proxy": "true"})])
    assert ranked(alert("service//lb errors", T0 - 100, 500), alert("service//api errors", T0, 10), g=g) == ["api"]
    assert ranked(alert("service//lb errors"), g=g) == ["lb"]


def test_several_signals_make_a_case():
    """Errors and latency together weigh more than either alone; two of the same kind do not."""
    one = alert("service//a x", strength=20, resource="errors")
    same = rank([one, alert("service//a y", strength=20, resource="errors")], Graph(), [])[0]
    both = rank([one, alert("service//a y", strength=20, resource="latency")], Graph(), [])[0]
    assert (len(same.reasons), len(both.reasons)) == (1, 2)


def test_shares_add_up_and_reasons_add_up():
    """The score is the share of the sum of the contributions, never below a floor."""
    causes = rank([alert(GATEWAY, T0, 300), alert(CHECKOUT, T0, 100), alert(DB, T0, 20)], SHOP, [])
    points = [max(0.05, sum(r.contribution for r in c.reasons)) for c in causes]
    assert sum(c.score for c in causes) == pytest.approx(1)
    assert [c.score for c in causes] == pytest.approx([p / sum(points) for p in points])


def test_without_the_evidence_the_verdict_moves():
    """Take away the database's alert or its edge, and it is no longer the cause."""
    alerts = [alert(GATEWAY, T0 + 9, 300), alert(CHECKOUT, T0, 200), alert(DB, T0, 20)]
    assert ranked(*alerts)[0] == "db"
    assert ranked(*alerts[:2])[0] == "checkout"
    assert ranked(*alerts, g=Graph())[0] == "gateway"


ENTITIES = ["gateway", "checkout", "catalog", "db", "other"]
some = st.builds(lambda e, s, since, strength: alert(f"service//{e} {s}", T0 + since, strength),
                 st.sampled_from(ENTITIES), st.sampled_from(["errors", "latency"]), st.sampled_from([0.0, 10.0, 40.0]),
                 st.sampled_from([5.0, 50.0]))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(some, min_size=1, max_size=8, unique_by=lambda a: a.key), st.randoms(use_true_random=False))
def test_the_ranking_does_not_depend_on_any_order(alerts, random):
    """Of alerts, of edges and nodes, of changes, of dictionaries."""
    edges = [Edge(a, b, k) for a in SHOP._g for b, k in SHOP.dependencies(a)]
    changes = [Event(T0 - 5, f"service//{e}", "change", "Deployed", e) for e in ("db", "catalog")]
    expected = rank(alerts, Graph(Links((), tuple(edges))), changes, 10.0)
    for items in (alerts, edges, changes):
        random.shuffle(items)
    assert rank(alerts, Graph(Links((), tuple(edges))), changes, 10.0) == expected


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(some, min_size=1, max_size=8, unique_by=lambda a: a.key), st.randoms(use_true_random=False))
def test_the_grouping_does_not_depend_on_the_order_of_alerts(alerts, random):
    """The same incidents under the same names."""
    first = Correlate().correlate(T0 + 60, alerts, SHOP, [])
    random.shuffle(alerts)
    assert sorted(map(repr, Correlate().correlate(T0 + 60, alerts, SHOP, []))) == sorted(map(repr, first))


# ----------------------------------------------------------------------------------------------------------- impact
def test_impact_is_everybody_who_depends_on_the_cause():
    """Directly or not, the most critical first; the weight includes the cause itself."""
    g = graph("a//web calls a//api", "a//api calls a//db", "a//job calls a//db",
              nodes=[Node("a//web", 5.0), Node("a//db", 2.0)])
    found = impact("a//db", g)
    assert (found.entities, found.weight) == (("a//web", "a//api", "a//job"), 9.0)
    assert impact("a//unknown", g).entities == ()


def test_a_long_list_of_the_hurt_is_cut_and_weighed_in_full():
    """Nobody reads thousands of names."""
    found = impact("a//db", graph(*(f"a//{i} calls a//db" for i in range(200))))
    assert (len(found.entities), found.weight) == (MAX_LISTED, 201.0)


def test_an_incident_has_severity_impact_and_causes():
    """All put together in one step."""
    run = Run(Graph(links("service//web calls service//db")))
    run.firing[DB] = replace(alert(DB), severity="critical")
    [i] = run.step("service//web slow").values()
    assert (i.severity, i.state, i.entities) == ("critical", "open", ("service//db", "service//web"))
    assert (i.causes[0].entity, i.impact.entities) == ("service//db", ("service//web",))


def test_a_newcomer_testifies_only_against_trouble_that_it_can_have_made():
    """Who was new shortly before the node ran short joins; who came half a minute later does not."""
    topology = Graph(Links((), (Edge("node//n", "process/n/hog", "uses"), Edge("node//n", "process/n/late", "uses"))))

    def odd(entity: str, state: str, since: float) -> Alert:
        return Alert(f"{entity}|m", entity, "m", state, since, 100.0, 0.9999, 1e-4, 9.2, resource="memory")  # type: ignore[arg-type]

    grouper = Grouper()
    [group] = grouper.update(100.0, [odd("node//n", "firing", 60.0), odd("process/n/hog", "pending", 55.0),
                                     odd("process/n/late", "pending", 90.0)], topology)
    assert group.entities == {"node//n", "process/n/hog"}
