"""A storm of alerts of others: when one is over, what its past says of it, and what becomes one incident."""

from __future__ import annotations

import random
import time
from dataclasses import replace

import pytest
from helpers import STEP_S, T0, alert, graph, links, pipeline
from hypothesis import given, settings
from hypothesis import strategies as st

from aiops import others
from aiops.others import LEAST_QUIET_S, OPENS_A_DAY, QUIET_S, Others, surprise
from aiops.types import Batch, Edge, Links, Node, RawAlert
from correlators.correlate import Correlate
from correlators.graph import Graph
from correlators.group import WINDOW_S, Grouper

SHOP = graph("service//web calls service//cart", "service//cart calls service//db", "service//far calls service//away")
WEB, CART, DB, FAR = (f"service//{name}" for name in ("web", "cart", "db", "far"))


class Storm:
    """Raw alerts through lifetime, habit and grouping, in steps."""

    def __init__(self, g: Graph = SHOP) -> None:
        self.others, self.correlate, self.graph, self.now, self.index = Others(), Correlate(), g, T0, 0
        self.assigned: dict[int, str] = {}
        self.alerts = []

    def step(self, *raw, after=30.0):
        """Ids of the open incidents. raw: entity, or (entity, name), or (entity, name, status), or those and how long ago."""
        self.now += after
        told = [self._raw(*((r,) if isinstance(r, str) else r)) for r in raw]
        self.alerts = self.others.update(self.now, told)
        found = self.correlate.correlate(self.now, self.alerts, self.graph, ())
        self.assigned.update(self.correlate.assigned)
        self.found = {i.id: i for i in found}
        return sorted(i.id for i in found if i.state == "open")

    def _raw(self, entity, name="Slow", status="firing", ago=0.0, severity="warning"):
        self.index += 1
        return RawAlert(self.index - 1, self.now - ago, entity, name, status, severity)

    def until_quiet(self):
        while any(a.state == "firing" for a in self.alerts):
            self.step()
        self.step(after=WINDOW_S + 100)
        self.step(after=WINDOW_S + 100)

    def habit(self, entity, times, apart_s=3600.0):
        """It goes off and on."""
        for _ in range(times):
            self.step(entity)
            self.until_quiet()
            self.step(after=apart_s)


# --------------------------------------------------------------------------------------------------------- lifetime
def lasts(*gaps):
    """Seconds from the last word of it to its end, in steps of 10 s."""
    storm = Storm()
    for gap in (0.0, *gaps):
        storm.step(WEB, after=10.0 + gap)
    since = storm.now
    while storm.alerts and storm.alerts[0].state == "firing":
        storm.step(after=10.0)
    return storm.now - since


@pytest.mark.parametrize(("gaps", "expected"), [
    ((), QUIET_S), ((10.0,) * 3, LEAST_QUIET_S), ((50.0,) * 3, 180.0), ((170.0,) * 3, QUIET_S)])
def test_how_long_silence_means_nothing_follows_from_how_often_it_is_repeated(gaps, expected):
    """Three times its interval, within bounds; the longest bound where it was never repeated."""
    assert lasts(*gaps) == pytest.approx(expected, abs=10.1)


def test_what_is_told_to_be_resolved_may_be_silent_for_as_long_as_before():
    """Its sender says when it is over."""
    storm = Storm()
    storm.step(WEB, (WEB, "Slow", "resolved"))
    for _ in range(3):
        storm.step(WEB, after=10.0)
    storm.step(after=QUIET_S - 20)
    assert [a.state for a in storm.alerts] == ["firing"]


def test_resolves_that_say_nothing_are_counted_and_harm_nothing():
    """Twice, of what never fired, and of an earlier time than what fires now."""
    storm = Storm()
    storm.step((WEB, "Slow", "resolved"))
    [name] = storm.step(WEB)
    storm.step((WEB, "Slow", "resolved", 300.0))
    assert [a.state for a in storm.alerts] == ["firing"]
    storm.step((WEB, "Slow", "resolved"), (WEB, "Slow", "resolved"))
    assert [(a.state, len(a.indexes)) for a in storm.alerts] == [("resolved", 2)]
    assert storm.others.dropped == {"alerts_resolved_that_did_not_fire": 1, "alerts_out_of_order": 1, "alerts_resolved_twice": 1}
    storm.step((WEB, "Slow", "firing", 200.0))
    assert (storm.alerts, storm.others.dropped["alerts_out_of_order"]) == ([], 2)
    assert set(storm.assigned.values()) == {name}


def test_an_alert_that_comes_minutes_late_fires_as_one_that_is_on_time():
    """It is over when nobody repeats it any more, not at once; and clocks that are ahead do not keep it for ever."""
    for ago in (200.0, -1e6):
        storm = Storm()
        storm.step()
        storm.step((WEB, "Slow", "firing", ago))
        storm.step(after=QUIET_S - 40)
        assert [a.state for a in storm.alerts] == ["firing"]
        storm.step(after=100.0)
        assert [a.state for a in storm.alerts] == ["resolved"]


steps = st.lists(st.lists(st.tuples(st.sampled_from([WEB, CART, DB]), st.sampled_from(["Slow", "Down"]),
                                    st.sampled_from(["firing", "firing", "firing", "resolved"]), st.floats(0, 400)),
                          max_size=6), min_size=1, max_size=25)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(steps)
def test_when_an_alert_is_on_follows_from_its_own_past_alone(batches):
    """All together give what one instance for each key gives; and so does one that was saved and read back in the middle."""
    def bare(alerts):
        return sorted((replace(a, indexes=(), opens=0.0, strength=0.0, text="") for a in alerts), key=lambda a: a.key)
    together, alone = Storm(), {(e, n): Storm() for e in (WEB, CART, DB) for n in ("Slow", "Down")}
    for k, batch in enumerate(batches):
        together.step(*batch)
        if k == len(batches) // 2:
            state, together.others = together.others.state(), Others()
            together.others.restore(state)
            together.others._last_at = together.now
        for key, storm in alone.items():
            storm.step(*(r for r in batch if r[:2] == key))
        assert bare(together.alerts) == bare(a for s in alone.values() for a in s.alerts)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(steps)
def test_what_was_saved_and_read_back_goes_on_as_before(batches):
    """What its rule does elsewhere included."""
    one, other = Storm(), Storm()
    for batch in batches:
        state, other.others = other.others.state(), Others()
        other.others.restore(state)
        other.others._last_at = one.others._last_at
        one.step(*batch)
        other.step(*batch)
        assert one.alerts == other.alerts


# ------------------------------------------------------------------------------------------------------------ habit
def test_an_alert_never_seen_before_opens_an_incident():
    """From the first minute on, and after weeks."""
    storm = Storm()
    assert len(storm.step(WEB)) == 1
    storm.until_quiet()
    storm.step(after=20 * 86_400.0)
    assert len(storm.step(FAR)) == 1


def test_what_goes_off_many_times_a_day_opens_nothing_and_says_why():
    """It is in no incident, and is counted once it is over."""
    storm = Storm()
    storm.habit(WEB, 6)
    before = storm.correlate.habitual
    assert storm.step(WEB) == []
    [a] = storm.alerts
    assert (a.opens < 1.0, a.text) == (True, "it goes off by habit: 7 times in 8 hours")
    assert storm.index - 1 not in storm.assigned
    storm.until_quiet()
    assert storm.correlate.habitual == before + 1


def test_habit_is_forgotten():
    """A week later it is news again."""
    storm = Storm()
    storm.habit(WEB, 6)
    storm.step(after=7 * 86_400.0)
    assert len(storm.step(WEB)) == 1


def test_what_lasts_longer_than_it_used_to_opens_an_incident_with_all_its_raw_alerts():
    """Those from before it was known included."""
    storm = Storm()
    storm.habit(WEB, 6)
    first = storm.index
    assert storm.step(WEB) == []
    while not (name := storm.step(WEB)):
        assert storm.index - first < 40
    assert {storm.assigned[k] for k in range(first, storm.index)} == set(name)
    assert storm.found[name[0]].opened_at == storm.now


def test_several_near_each_other_at_the_same_time_open_an_incident():
    """Each of which alone says nothing; far apart they still say nothing."""
    def both(one, other):
        storm = Storm()
        for _ in range(5):
            storm.habit(one, 1)
            storm.habit(other, 1)
        return len(storm.step(one, other))
    assert both(WEB, CART) == 1
    assert both(WEB, FAR) == 0


def test_a_rule_that_goes_off_everywhere_says_less_on_who_never_had_it():
    """Its own entity had nothing yet; another rule still opens at once."""
    storm = Storm()
    for k in range(20):
        storm.step(f"a//{k % 4}", after=1800.0)
    assert storm.step(FAR) == []
    assert [a.text for a in storm.alerts if a.entity == FAR] == ["its rule goes off on others by habit"]
    assert len(storm.step(("service//away", "Down"))) == 1


def test_what_begins_everywhere_at_once_is_no_habit():
    """A blackout in the first minute: each opens, wherever it stands."""
    storm = Storm(Graph(Links(tuple(Node(f"a//{k}") for k in range(50)))))
    assert len(storm.step(*(f"a//{k}" for k in range(50)))) == 50


def test_habit_joins_what_another_opened_as_weak_evidence():
    """It is in the incident, and the other one is the stronger candidate."""
    storm = Storm()
    storm.habit(CART, 6)
    [name] = storm.step(CART, DB)
    assert storm.found[name].entities == (CART, DB)
    assert storm.found[name].alerts[0].strength < storm.found[name].alerts[1].strength
    told = [r.text for c in storm.found[name].causes if c.entity == CART for r in c.reasons]
    assert "alert:Slow: it goes off by habit: 7 times in 8 hours" in told


def test_surprise_is_less_the_more_often_it_comes():
    """And the level is what a rule has that comes once a day."""
    nats = [surprise(r) for r in (0.1, 0.5, OPENS_A_DAY, 5.0, 50.0, 1000.0)]
    assert nats == sorted(nats, reverse=True)
    assert nats[-1] > 0


def test_the_record_says_habitual(tmp_path):
    """The end state, the count, and the index that goes to no incident; through the whole pipeline."""
    core, said = pipeline(), []
    for k in range(40):
        at = T0 + k * 600.0
        raw = (RawAlert(k, at, WEB, "Slow"), RawAlert(99, at, WEB, "Slow", "resolved")) if k % 4 == 0 else ()
        report = core.step(Batch(at, links=links("service//web calls service//db"), alerts=raw[:1]))
        said += [(e.state, e.text) for e in report.ends if e.signal == "alert:Slow"]
        if raw:
            core.step(Batch(at + 60, alerts=raw[1:]))
    assert {state for state, _ in said[-3:]} <= {"habitual", "resolved"}
    assert ("habitual", "it goes off by habit: 10 times in 6 hours") in said
    counts = core.counts()
    assert (counts.incidents < 5, counts.habitual > 5) == (True, True)


# ------------------------------------------------------------------------------------------------ what goes together
def test_an_incident_grows_at_its_onset_and_not_for_ever():
    """A storm that never ends is not one incident: what begins later, near it, is another one."""
    storm = Storm()
    [first] = storm.step(WEB)
    for _ in range(int(WINDOW_S / 30) + 1):
        storm.step(WEB)
    assert len(storm.step(WEB, CART)) == 2
    assert storm.found[first].entities == (WEB,)


def test_two_that_begin_at_the_same_time_far_apart_stay_two():
    """Whatever happens in between."""
    assert len(Storm().step(WEB, FAR, CART, "service//away")) == 2


def test_flapping_is_one_incident():
    """Told to be over and on again."""
    storm = Storm()
    [name] = storm.step(WEB)
    for _ in range(5):
        storm.step((WEB, "Slow", "resolved"))
        storm.step(after=150.0)
        assert storm.step(WEB) == [name]


def test_what_the_topology_does_not_know_goes_together_by_time_alone():
    """Nothing says that it is far apart; but it is no part of what is known, and later ones are others."""
    storm = Storm()
    assert len(storm.step("x//1", "x//2", WEB)) == 2
    assert len(storm.step("x//3", "x//1", "x//2", WEB)) == 2
    for _ in range(11):
        storm.step("x//1")
    assert len(storm.step(("x//4", "Down"), "x//1")) == 2


def test_a_topology_that_comes_late_holds_from_then_on():
    """What was put together stays; what comes next is put where it belongs."""
    storm = Storm(Graph())
    [blind] = storm.step(WEB, FAR)
    storm.graph = SHOP
    assert storm.step(WEB, FAR, CART) == [blind]
    assert storm.found[blind].entities == (CART, FAR, WEB)
    assert len(storm.step(WEB, ("x//1", "Down"), ("service//away", "Odd"), after=290.0)) == 3


def test_an_entity_that_moves_to_another_parent_is_near_the_new_one():
    """From the step on in which the topology says so."""
    before = Graph(Links((), (Edge("pod//a", "node//1", "runs_on"),)))
    storm = Storm(before)
    storm.step("node//1")
    storm.graph = Graph(Links((), (Edge("pod//a", "node//2", "runs_on"), Edge("pod//b", "node//1", "runs_on"))))
    assert len(storm.step("node//1", "pod//a")) == 2
    assert len(storm.step("node//1", "pod//a", "node//2")) == 2


def test_bad_topologies_are_harmless():
    """Cycles, edges to itself, edges to nowhere."""
    g = Graph(Links((), (Edge("a//1", "a//2"), Edge("a//2", "a//1"), Edge("a//2", "a//2"), Edge("a//3", ""), Edge("", "a//3"))))
    storm = Storm(g)
    [name] = storm.step("a//1", "a//2")
    assert len(storm.step("a//1", "a//2", "a//3")) == 2
    assert storm.found[name].impact.entities == ("a//1",) or storm.found[name].impact.entities == ("a//2",)
    assert g.dependents("a//1") == ["a//2"]


entities = [f"a//{k}" for k in range(9)]


class Naive(Grouper):
    """Asks every group about every pair."""

    def _nearest(self, alerts, graph, troubled):
        found = []
        for a in {a.entity: a for a in sorted(alerts, key=lambda a: (a.since, a.key), reverse=True)}.values():
            for group in self.groups.values():
                for other in group.entities:
                    hops = graph.distance(a.entity, other, self.distance, troubled)
                    if hops is not None and group.takes(a, other, self.window_s, self.rest_s):
                        found.append((hops, abs(a.since - group.began), group.id))
        return self.groups[min(found)[2]] if found else None


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from(entities), st.sampled_from(entities)), max_size=14),
       st.lists(st.sets(st.sampled_from(entities), max_size=4), max_size=20), st.randoms(use_true_random=False))
def test_the_index_finds_what_asking_everybody_finds(pairs, storms, rng):
    """Whatever the graph and the order in which things go wrong and get well."""
    g = Graph(Links((), tuple(Edge(a, b) for a, b in pairs)))
    quick, naive, firing, now = Grouper(), Naive(), {}, T0
    for bad in storms:
        now += rng.choice([10.0, 60.0, 200.0])
        gone = [replace(a, state="resolved", at=now) for e, a in firing.items() if e not in bad]
        firing = {e: firing.get(e) or alert(f"{e} x", since=now) for e in sorted(bad)}
        told = [*(replace(a, at=now) for a in firing.values()), *gone]
        one, other = ([(i.id, sorted(i.entities)) for i in x.update(now, told, g)] for x in (quick, naive))
        assert one == other


# ----------------------------------------------------------------------------------------------------------- a flood
def test_a_flood_is_bounded_counted_and_keeps_what_is_critical(monkeypatch):
    """Beyond so many at once only critical ones are taken in."""
    monkeypatch.setattr(others, "MOST_KEYS", 50)
    storm = Storm()
    storm.step(*((f"a//{k}", "Slow") for k in range(80)), *((f"b//{k}", "Down", "firing", 0.0, "critical") for k in range(20)))
    assert len(storm.alerts) == 70
    assert sum(a.severity == "critical" for a in storm.alerts) == 20
    assert storm.others.dropped == {"alerts_too_many_at_once": 30}


def test_memory_is_bounded_over_days(monkeypatch):
    """However many rules there are, and however many raw alerts wait."""
    monkeypatch.setattr(others, "MOST_KEYS", 100)
    storm, rng = Storm(), random.Random(1)
    for _ in range(300):
        storm.step(*{f"a//{rng.randrange(10_000)}" for _ in range(10)}, after=400.0)
    assert len(storm.others._pasts) <= 300
    assert len(storm.correlate._grouper._of) <= 40
    storm.step(after=30 * 86_400.0)
    storm.step(WEB)
    assert list(storm.others._pasts) == [f"{WEB}|alert:Slow"]


def test_a_hundred_thousand_raw_alerts_in_a_step_are_one_incident_each_key_once():
    """Each has its incident."""
    storm = Storm()
    storm.now += STEP_S
    raw = [RawAlert(k, storm.now, (WEB, CART, DB)[k % 3], f"R{k % 7}") for k in range(100_000)]
    alerts = storm.others.update(storm.now, raw)
    [incident] = storm.correlate.correlate(storm.now, alerts, storm.graph, ())
    assert len(incident.alerts) == 21
    assert sorted(k for k, _ in storm.correlate.assigned) == list(range(100_000))


def test_a_gateway_with_ten_thousand_callers_is_one_incident_in_little_time():
    """A thousand of them alert with it: each sees all the others through it, and is not asked for all of them."""
    storm = Storm(Graph(Links((), tuple(Edge(f"service//s{k}", "service//gateway") for k in range(10_000)))))
    began = time.process_time()
    assert len(storm.step("service//gateway", *(f"service//s{10 * k}" for k in range(1000)))) == 1
    assert time.process_time() - began < 4.0
