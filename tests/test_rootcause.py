"""Who is spoken of, and what speaks for and against a candidate."""

from __future__ import annotations

from dataclasses import replace

import pytest
from helpers import T0, alert, graph

from aiops.types import Alert, Anomaly, Signal
from correlators.ablation import ablated
from correlators.rootcause import rank
from correlators.testimony import MAX_WEAK, Murmurs, call_of, statements

SHOP = graph("service//front calls service//cart", "service//front calls service//ads", "service//front calls service//pay",
             "service//pay calls service//bank", "service//front owns pod//front-1", "service//cart owns pod//cart-1")


def slow(caller: str, callee: str, **more) -> Alert:
    """A slow call, measured at the caller."""
    a = alert(f"service//{caller} gap", resource="latency", **more)
    signal = f'gap{{from="{caller}",to="{callee}"}}'
    return replace(a, key=f"service//{caller}|{signal}", signal=signal)


def firsts(*alerts: Alert, weak=(), g=SHOP, **more) -> list[str]:
    return [c.entity for c in rank(alerts, g, [], 60.0, (), weak, **more)]


def test_a_slow_call_speaks_against_the_end_of_which_all_are_slow():
    """One of three slow: the callee, which says nothing itself. All three: the caller."""
    assert call_of(slow("front", "cart"), SHOP) == ("service//front", "service//cart")
    assert firsts(slow("front", "cart"))[0] == "service//cart"
    said = statements([slow("front", to) for to in ("cart", "ads", "pay")], SHOP)
    assert said["service//front"][0].weight > said["service//cart"][0].weight


def test_a_slow_call_behind_a_slow_call_explains_it():
    """The bank, not who waits for it, nor who waits for that."""
    assert firsts(slow("front", "pay", strength=90), slow("pay", "bank"))[0] == "service//bank"


def test_who_lacks_processor_time_is_no_witness_against_others():
    """Everything takes long for who is starved."""
    starved = alert("pod//front-1 cpu", resource="cpu")
    assert firsts(slow("front", "cart"), slow("front", "ads"), starved)[0] == "pod//front-1"


def test_ends_that_nobody_knows_are_not_accused():
    """Labels are texts from outside: without both in the topology the alert speaks of its entity alone."""
    odd = replace(slow("front", "cart"), signal='gap{from="front",to="nobody"}')
    torn = replace(slow("front", "cart"), signal='gap{from="front')
    assert call_of(odd, SHOP) is call_of(torn, SHOP) is None
    assert firsts(odd) == firsts(torn) == ["service//front"]


def test_weak_evidence_names_who_raised_no_alert():
    """What was too little for an alert explains who depends on it, and less than an alert does."""
    weak = alert("service//bank errors", state="pending", strength=12.0, resource="errors")
    found = rank([alert("service//pay errors", strength=12.0, resource="errors")], SHOP, [], 60.0, (), [weak])
    assert [c.entity for c in found] == ["service//bank", "service//pay"]
    loud = replace(weak, state="firing")
    assert rank([alert("service//pay errors", resource="errors"), loud], SHOP, [])[0].score > found[0].score


def test_lost_traffic_is_the_callers():
    """Who gets no work is explained by who hands it out, and is in trouble."""
    idle = [alert(f"service//{s} calls", resource="traffic") for s in ("cart", "ads")]
    assert firsts(*idle, alert("service//front errors", resource="errors"))[0] == "service//front"


def delayed(entity: str, value: float, expected: float, **more) -> Alert:
    return replace(alert(f"{entity} latency_avg", resource="latency", **more), value=value, expected=expected, unit="seconds")


def test_little_delay_explains_no_large_one():
    """A database that is 3 ms slower has not made its caller half a second slower, however sure both are."""
    reasons = {c.entity: c for c in rank([delayed("service//pay", 0.7, 0.2), delayed("service//bank", 0.007, 0.004, strength=90)],
                                         SHOP, [], 60.0)}
    assert any("little" in r.text and r.contribution < 0 for r in reasons["service//bank"].reasons)
    same = rank([delayed("service//pay", 0.7, 0.2), delayed("service//bank", 0.6, 0.1)], SHOP, [], 60.0)
    assert not any("little" in r.text for c in same for r in c.reasons)
    assert same[0].entity == "service//bank"


def test_who_is_slow_and_answers_does_not_make_callers_fail():
    """Only where it would be seen if it failed, and not where it takes longer than callers wait."""
    fails = alert("service//pay errors", resource="errors")
    quick, late = delayed("service//bank", 0.7, 0.1), delayed("service//bank", 7.0, 0.1)
    assert firsts(fails, quick, tells=lambda entity: True)[0] == "service//pay"
    assert firsts(fails, quick)[0] == firsts(fails, late, tells=lambda entity: True)[0] == "service//bank"


def test_who_used_more_long_before_and_hurt_nobody_is_no_cause():
    """Memory that rose a quarter of an hour before others turned slow, in a pod that is well."""
    rose = alert("pod//cart-1 memory", T0 - 900, strength=300, resource="memory")
    assert firsts(rose, alert("service//front latency", resource="latency"))[0] == "service//front"
    at_once = replace(rose, since=T0)
    assert firsts(at_once, alert("service//front latency", resource="latency"))[0] == "pod//cart-1"


def test_murmurs_are_remembered_for_minutes_and_within_bounds():
    """The strongest of each signal, from when it began; of those below the incident's entities only."""
    murmurs, signals = Murmurs(), [Signal(0, "service//bank", "x", resource="errors")]
    odd = Anomaly(T0, "service//bank", "x", 0.99, 1e-4, "young", 0, onset=T0)
    murmurs.hear(T0, [odd, replace(odd, entity="service//far", signal=-1)], signals)
    murmurs.hear(T0 + 60, [replace(odd, at=T0 + 60, onset=T0 + 60, p_value=1e-3)], signals)
    [one] = murmurs.below(["service//pay"], SHOP, T0 - 60)
    assert (one.entity, one.since, one.p_value, one.resource, one.state) == ("service//bank", T0, 1e-4, "errors", "pending")
    for late in (1000, 1060):
        murmurs.hear(T0 + late, [], signals)
    assert murmurs.below(["service//pay"], SHOP, T0 - 60) == []
    murmurs.hear(T0 + 1120, [replace(odd, entity=f"service//{k}", signal=-1) for k in range(MAX_WEAK + 50)], signals)
    assert len(murmurs._by) == MAX_WEAK


def test_taking_an_item_away_moves_the_verdict():
    """Without the explanation the loud caller leads; without anything that is there nothing moves."""
    causes = rank([alert("service//pay errors", strength=300), alert("service//bank errors", strength=50)], SHOP, [])
    assert causes[0].entity == "service//bank"
    moved = ablated(causes, "EXPLAINED by")
    assert moved[0].entity == "service//pay"
    assert sum(c.score for c in moved) == pytest.approx(1.0)
    assert [c.entity for c in ablated(causes, "no such text")] == [c.entity for c in causes]


def test_who_was_never_loud_does_not_explain_a_loud_delay():
    """A callee that is hardly odd is in the list, and not above the one that is very slow itself."""
    loud = alert("service//pay latency", strength=24.0, resource="latency")
    faint = alert("service//bank latency", state="pending", strength=9.6, resource="latency")
    assert firsts(loud, weak=[faint])[0] == "service//pay"


def test_errors_are_handed_on_whole():
    """Who fails, and is nothing else, is explained by whom it calls and who is odd enough, though the failing is surer by far."""
    failing = alert("service//front errors", strength=46.0, resource="errors")
    odd = alert("service//ads spans", state="pending", strength=9.4, resource="traffic")
    stops = alert("service//pay calls_ceased", state="pending", strength=10.4, resource="errors")
    assert firsts(failing, weak=[stops])[0] == "service//pay"
    assert firsts(failing, weak=[odd])[0] == "service//front"


def test_who_stops_short_does_not_do_so_because_another_is_slow():
    """Whom it calls took 56 ms and not 7: that makes nobody leave out the calls that come after."""
    failing = alert("service//front errors", strength=44.0, resource="errors")
    stops = alert("service//pay calls_ceased", state="pending", strength=10.4, resource="errors", detectors=("ceased",))
    slow = alert("service//bank latency", state="pending", strength=6.0, resource="latency", unit="seconds", value=0.056,
                 expected=0.007)
    assert firsts(failing, weak=[stops, slow])[0] == "service//pay"
    assert firsts(failing, weak=[replace(stops, detectors=("baseline",)), slow])[0] != "service//pay"


def test_who_came_new_and_took_what_the_node_lacks_is_the_cause_though_he_raised_no_alert():
    """It joined the incident of its node as a witness, and counts in full; the same said by nobody's witness counts for less."""
    node = alert("node//n1 node_cpu_busy_ratio", strength=24.0, resource="cpu", value=0.99, expected=0.3)
    new = alert("pod//crunch container_cpu_cores", state="pending", strength=13.5, resource="cpu", value=14.8,
                detectors=("newcomer",))
    on = graph("pod//crunch runs_on node//n1")
    assert rank([node, new], on, ())[0].entity == "pod//crunch"
    assert rank([node], on, (), weak=[new])[0].entity == "node//n1"


def test_what_somebody_logs_of_himself_is_not_handed_on_to_who_is_hardly_odd():
    """A failing that callers measure may come from anybody below; error lines are written where it fails."""
    odd = alert("service//ads latency", state="pending", strength=9.4, resource="latency")
    for name, first in (("http_error_rate", "service//ads"), ("log_errors", "service//front"), ("log_missing", "service//front")):
        assert firsts(alert(f"service//front {name}", strength=18.0, resource="errors"), weak=[odd])[0] == first
