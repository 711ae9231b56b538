"""Evidence that lasts becomes an alert, at a level that follows from the budget."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from helpers import STEP_S, T0, anomaly, frame, signals
from hypothesis import given, settings
from hypothesis import strategies as st

from aiops.alerting import SUPPORTERS, Alerting
from aiops.budget import MIN_LEVEL, K
from aiops.ladder import QUIET_S
from aiops.types import Anomaly, Frame, RawAlert, Signal

A, B = "service//a errors", "service//b errors"
OF = (Signal(0, "service//a", "errors", unit="ratio", direction="up", resource="errors"), Signal(1, "service//b", "errors"))


class Run:
    """Ticks of ten seconds; hands in anomalies by key and gives back alerts by key."""

    def __init__(self, alerting=None, of=OF):
        self.alerting, self.of, self.k = alerting or Alerting(), of, 0
        self.tick()

    @property
    def at(self):
        return T0 + self.k * STEP_S

    def tick(self, *anomalies, raw=(), values=None):
        self.k += 1
        x = np.ones(len(self.of)) if values is None else values
        found = [replace(a, at=self.at) for a in anomalies]
        return {a.key.replace("|", " ", 1): a for a in self.alerting.update(frame(self.at, x, self.of), found, raw)}

    def ticks(self, count, *anomalies, **more):
        """States of A over so many ticks; None where it is no alert."""
        return [a.state if (a := self.tick(*anomalies, **more).get(A)) else None for _ in range(count)]


ODD = anomaly(T0, A, 1e-9, value=0.5, expected=0.01)


def test_one_sample_never_fires():
    """However improbable, and however many detectors say so."""
    for p in (1e-4, 1e-12, 1e-300):
        run = Run()
        assert run.tick(*(anomaly(T0, A, p, detector=d) for d in ("baseline", "isolation_forest", "other"))) == {}
        assert run.ticks(20) == [None] * 20


def test_a_deviation_that_lasts_fires():
    """With two strong samples in a row, and stays while it lasts."""
    assert Run().ticks(6, ODD) == [None, "firing", "firing", "firing", "firing", "firing"]


def test_weak_evidence_adds_up():
    """A slow leak is never very odd, but it is odd all the time."""
    states = Run().ticks(60, anomaly(T0, A, 5e-4))
    fired = states.index("firing")
    assert 5 < fired < 40
    assert set(states[fired:]) == {"firing"}


def test_what_is_worth_nothing_never_fires():
    """Evidence at the reference value, and notes with p = 1."""
    assert Run().ticks(200, anomaly(T0, A, math.exp(-K))) == [None] * 200
    assert Run().ticks(200, anomaly(T0, A, 1.0)) == [None] * 200


def test_it_resolves_after_normal_samples_and_says_so_once():
    """Not with the first of them."""
    run = Run()
    run.ticks(3, ODD)
    states = run.ticks(10)
    assert states[0] == "firing"
    assert 3 <= states.index("resolved") <= 6
    assert states.count("resolved") == 1 and states[-1] is None


class Seldom(Run):
    """The same, with a sample every five minutes."""

    at = property(lambda self: T0 + self.k * 300.0)


def test_what_is_sampled_seldom_recovers_after_three_normal_samples():
    """They speak for a quarter of an hour."""
    run = Seldom()
    run.ticks(3, ODD)
    assert run.ticks(4) == ["firing", "firing", "resolved", None]


def test_one_sample_of_minutes_is_enough_where_it_is_overwhelming():
    """A failure of one in twenty over five minutes; not what is merely odd, and not one of many samples."""
    worst = anomaly(T0, A, 1e-30)
    assert Seldom().ticks(1, worst) == ["firing"]
    assert "firing" not in (*Seldom().ticks(1, ODD), *Run().ticks(1, worst))


def minute_of_lines(name, p, tick_s):
    """The alerts after the second tick, of so long, in which many lines of pod//a were odd together."""
    alerting, of = Alerting(), signals("pod//a x")
    for k in range(2):
        odd = [Anomaly(T0 + k * tick_s, "pod//a", name, 1.0, p, "logs", -1)] if k else []
        found = alerting.update(frame(T0 + k * tick_s, [1.0], of), odd)
    return [a.state for a in found]


def test_many_lines_of_a_minute_are_no_single_sample():
    """They raise an alert in one tick where it is that long; one sample does not, and nothing that comes every ten seconds."""
    assert minute_of_lines("log_missing", 1e-12, 60.0) == minute_of_lines("log_errors", 1e-12, 60.0) == ["firing"]
    assert minute_of_lines("log_missing", 1e-12, 10.0) == minute_of_lines("log_stopped", 1e-12, 60.0) == []


def test_how_many_lines_there_are_raises_no_alert():
    """It follows the traffic, and whether somebody collects them. The same evidence about requests does."""
    for unit, states in (("lines", [None] * 5), ("ratio", [None, *["firing"] * 4])):
        assert Run(of=(replace(OF[0], unit=unit), OF[1])).ticks(5, ODD) == states


def test_it_does_not_flap():
    """Three odd samples, one normal one, again and again: one alert."""
    run = Run()
    run.ticks(3, ODD)
    states = [s for _ in range(20) for s in (*run.ticks(3, ODD), *run.ticks(1))]
    assert set(states) == {"firing"}


def test_silence_is_no_recovery_for_a_while():
    """A signal that reports nothing keeps its alert for five minutes, and not for ever."""
    run = Run()
    run.ticks(3, ODD)
    quiet = run.ticks(100, values=np.array([np.nan, 1.0]))
    resolved_s = quiet.index("resolved") * STEP_S
    assert QUIET_S < resolved_s < 2 * QUIET_S


def test_an_alert_that_has_no_signal_recovers_too():
    """Log lines and absence belong to no column."""
    run = Run()
    run.ticks(3, anomaly(T0, "service//a log_errors", 1e-9, signal=-1))
    assert [len(run.tick()) for _ in range(8)][-1] == 0


def test_an_alert_tells_the_worst_it_saw():
    """Value and expectation of the largest deviation, the smallest p-value, the onset of the first, what the signal means."""
    run = Run()
    run.tick(anomaly(T0, A, 1e-5, value=0.2, expected=0.01, onset=T0 + 5))
    run.tick(anomaly(T0, A, 1e-9, value=0.9, expected=0.02, onset=T0 + 10))
    a = run.tick(anomaly(T0, A, 1e-6, value=0.3, expected=0.03, onset=T0 + 20, detector="other"))[A]
    assert (a.value, a.expected, a.p_value, a.since, a.at) == (0.9, 0.02, 1e-9, T0 + 5, run.at)
    assert (a.severity, a.unit, a.direction, a.resource) == ("critical", "ratio", "up", "errors")
    assert (a.detectors, a.strength, a.score) == (("baseline", "other"), pytest.approx(-math.log(1e-9)), 1 - 1e-9)


def test_entities_do_not_share_evidence():
    """One odd sample each is nothing."""
    run = Run()
    assert run.tick(ODD) == run.tick(anomaly(T0, B, 1e-9, signal=1)) == {}


# ------------------------------------------------------------------------------------------------------------ level
def level(of=OF, ticks=3, step_s=STEP_S, **budget):
    alerting = Alerting(**budget)
    for k in range(ticks):
        alerting.update(frame(T0 + k * step_s, np.ones(len(of)), of), [])
    return alerting.level


def test_the_level_follows_from_budget_and_number_of_signals():
    """ln of the samples between two accepted false alarms, less the reference value."""
    thousand = signals(*(f"a//{i} x" for i in range(1000)))
    assert level(thousand, incidents=1, per_s=86_400) == pytest.approx(math.log(1000 * 86_400 / STEP_S) - K)
    assert level(thousand, incidents=7, per_s=7 * 86_400) == pytest.approx(level(thousand))
    assert level(thousand, incidents=1, per_s=7 * 86_400) == pytest.approx(level(thousand) + math.log(7))
    assert level(thousand, step_s=1.0) == pytest.approx(level(thousand) + math.log(10))


def test_the_level_has_a_floor():
    """A generous budget over few signals still asks for more than one odd sample."""
    assert level(incidents=1e6) == level((), incidents=1.0, ticks=1) * 0 + MIN_LEVEL


def test_a_pause_does_not_lower_the_level():
    """The usual tick counts, not the night in which the daemon was off."""
    alerting, of = Alerting(), signals(*(f"a//{i} x" for i in range(1000)))
    for k in (0, 1, 2, 5000, 5001):
        alerting.update(frame(T0 + k * STEP_S, np.ones(1000), of), [])
    assert alerting.level == pytest.approx(math.log(1000 * 86_400 / STEP_S) - K, abs=0.01)


def test_one_short_tick_hardly_raises_the_level():
    """A clock that hiccups, or the last step before the end."""
    alerting, of = Alerting(), signals(*(f"a//{i} x" for i in range(1000)))
    for at in (0, 10, 20, 20.001, 30):
        alerting.update(frame(T0 + at, np.ones(1000), of), [])
    assert alerting.level == pytest.approx(math.log(1000 * 86_400 / STEP_S) - K, abs=0.3)


def test_more_is_asked_where_more_is_watched():
    """The same evidence, again and again, fires sooner among two signals than among a million."""
    weak = anomaly(T0, A, 1e-5)
    few, many = Run(of=OF), Run(of=OF * 500_000)
    assert few.ticks(10, weak).index("firing") < many.ticks(10, weak).index("firing")


@pytest.mark.parametrize("seed", range(3))
def test_false_alarms_keep_to_the_budget(seed):
    """On uniform p-values, a hundred signals for one day of budget: about one alert, surely not ten."""
    rng, of = np.random.default_rng(seed), signals(*(f"a//{i} x" for i in range(100)))
    run, fired = Run(Alerting(1.0, 2000 * STEP_S), of), set()
    for _ in range(2000):
        p = rng.uniform(size=100)
        odd = [anomaly(run.at, f"a//{i} x", float(p[i]), signal=int(i)) for i in np.flatnonzero(p < 1e-3)]
        fired |= {key for key, a in run.tick(*odd).items() if a.state == "firing"}
    assert len(fired) <= 3


# ----------------------------------------------------------------------------------------------------- supporters
def test_supporters_alone_never_raise():
    """A voter over features of an entity is never the verdict."""
    for detector in sorted(SUPPORTERS):
        assert "firing" not in Run().ticks(100, anomaly(T0, A, 1e-12, detector=detector))


def test_a_newcomer_is_a_witness_while_it_speaks():
    """Told as pending evidence, which raises nothing, and gone when it has nothing more to say."""
    run = Run()
    assert run.ticks(5, anomaly(T0, A, 1e-4, detector="newcomer")) == ["pending"] * 5
    assert run.ticks(10)[-1] is None


def test_support_makes_it_faster_and_is_named():
    """The same evidence with a second opinion."""
    weak, second = anomaly(T0, A, 2e-4), anomaly(T0, A, 1e-6, detector="isolation_forest")
    alone, supported = Run(), Run()
    assert supported.ticks(40, weak, second).index("firing") < alone.ticks(40, weak).index("firing")
    assert supported.tick(weak)[A].detectors == ("baseline", "isolation_forest")


# ------------------------------------------------------------------------------------------------ alerts of others
def raw(index, name="Slow", status="firing", entity="service//a", severity="warning"):
    return RawAlert(index, T0, entity, name, status, severity)


def test_an_alert_of_others_fires_at_once_and_carries_its_index():
    """Somebody has judged it already."""
    run = Run()
    a = run.tick(raw=[raw(7)])["service//a alert:Slow"]
    assert (a.state, a.indexes, a.detectors, a.severity) == ("firing", (7,), ("alertmanager",), "warning")
    assert run.tick()["service//a alert:Slow"].indexes == ()


def test_each_repetition_carries_its_own_index():
    """Whether it fires again or resolves, also within one step."""
    run = Run()
    assert run.tick(raw=[raw(0), raw(1), raw(2, name="Down", severity="critical")])["service//a alert:Slow"].indexes == (0, 1)
    found = run.tick(raw=[raw(3, status="resolved")])
    assert (found["service//a alert:Slow"].state, found["service//a alert:Slow"].indexes) == ("resolved", (3,))
    assert found["service//a alert:Down"].severity == "critical"
    assert "service//a alert:Slow" not in run.tick()


def test_an_alert_that_nobody_repeats_expires():
    """Prometheus repeats what still fires; silence for five minutes is its end."""
    run = Run()
    run.tick(raw=[raw(0)])
    states = [run.tick().get("service//a alert:Slow") for _ in range(40)]
    ends = [k for k, a in enumerate(states) if a is not None and a.state == "resolved"]
    assert [(k + 1) * STEP_S for k in ends] == [QUIET_S]
    assert states[-1] is None


def test_resolving_what_never_fired_is_nothing():
    """No alert appears out of it."""
    assert Run().tick(raw=[raw(0, status="resolved")]) == {}


def test_an_alert_that_fires_again_begins_anew():
    """Since then, not since last week."""
    run = Run()
    run.tick(raw=[raw(0)])
    run.tick(raw=[raw(1, status="resolved")])
    again = run.tick(raw=[replace(raw(2), time=T0 + 25)])["service//a alert:Slow"]
    assert (again.state, again.since, again.indexes) == ("firing", T0 + 25, (2,))


# ------------------------------------------------------------------------------------------------------- determinism
@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.permutations([anomaly(T0, A, 1e-5), anomaly(T0, A, 1e-5, detector="logs", value=3.0, expected=1.0),
                        anomaly(T0, A, 1e-6, detector="isolation_forest"), anomaly(T0, B, 1e-7, signal=1),
                        anomaly(T0, "service//c x", 1e-8, signal=-1)]))
def test_the_order_of_anomalies_does_not_matter(order):
    """Detectors may be listed in any order."""
    straight, shuffled = Run(), Run()
    for _ in range(5):
        found, other = straight.tick(*sorted(order, key=repr)), shuffled.tick(*order)
        assert repr(found) == repr(other)


def test_its_memory_is_what_is_odd_now():
    """Ten thousand entities that were odd once are forgotten."""
    run = Run()
    for k in range(500):
        run.tick(*(anomaly(T0, f"pod//{k}-{i} x", 1e-4, signal=-1) for i in range(20)), raw=[raw(k, name=f"n{k}")])
    for _ in range(60):
        run.tick()
    state = run.alerting.state()
    assert (state["tracks"], state["others"]["on"], state["ladder"]) == ({}, {}, {"keys": {}, "entities": {}})


def test_silence_resolves_an_alert_without_calling_it_well():
    """After five minutes without samples the alert ends, marked as silent."""
    of, alerting = signals("service//api x"), Alerting()
    for k in range(8):
        at = T0 + k * STEP_S
        [alert] = alerting.update(frame(at, [9.0], of), [anomaly(at, "service//api x", 1e-12)]) or [None]
    assert alert.state == "firing"
    for k in range(8, 60):
        for alert in alerting.update(frame(T0 + k * STEP_S, [math.nan], of), []):
            last = alert
    assert (last.state, last.silent) == ("resolved", True)


def test_evidence_stays_with_its_signal_when_columns_are_given_up():
    """It has another column then: silence is looked for there, and the recovery is seen there."""
    alerting = Alerting()
    run = Run(alerting, (OF[1], replace(OF[0], id=1)))
    odd = replace(ODD, signal=1)
    assert run.ticks(3, odd)[-1] == "firing"
    alerting.keep(np.array([1]), 2)
    [track] = alerting._tracks.values()
    assert (track.last.signal, set(alerting._ladder.column[alerting._ladder.column >= 0].tolist())) == (0, {0})
    run.of = (OF[0],)
    assert "resolved" in run.ticks(30)


def test_waiting_for_others_raises_nothing():
    """However long: who is waited for has an alert, or it is meant."""
    def states(resource):
        alerting = Alerting()
        signal = Signal(0, "service//a", "wait", resource=resource)
        for k in range(40):
            at = 1e9 + 15.0 * k
            odd = [Anomaly(at, "service//a", "wait", 1.0, 1e-30, "baseline", 0, 9.0, 1.0, onset=at)] if k > 30 else []
            alerts = alerting.update(Frame(at, np.array([1.0]), np.array([True]), (signal,)), odd)
        return [a.state for a in alerts]
    assert (states("waiting"), states("latency")) == ([], ["firing"])
