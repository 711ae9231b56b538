"""Why nothing happened: exactly one named state for everything that was odd."""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
from helpers import STEP_S, T0, Feed, alert, anomaly, links, pipeline
from hypothesis import given, settings
from hypothesis import strategies as st

from aiops import yamlfile
from aiops.cluster.actuator import SimulatedActuator
from aiops.cluster.simulated import SimulatedCluster
from aiops.endstates import KEEP_S, MOST_ANOMALIES, EndStates, furthest, of_alert, of_anomaly
from aiops.loop import advance, with_outcomes
from aiops.meaning import shipped
from aiops.policy.guards import GUARDS
from aiops.policy.ledger import Attempt, State
from aiops.policy.load import Policy, compile_document
from aiops.policy.standing import of_attempt, of_refusal
from aiops.types import Action, AlertState, Cause, Command, EndName, EndState, Incident, Outcome, RawAlert, Report, Standing

ENTITIES = ["service/shop/api", "service/shop/db", "node//a", "pod/shop/api-1", "pod/shop/db-1", "service/lab/x"]
TOPOLOGY = links("service/shop/api calls service/shop/db", "service/shop/api owns pod/shop/api-1",
                 "pod/shop/api-1 runs_on node//a",
                 "service/shop/db owns pod/shop/db-1", "pod/shop/db-1 runs_on node//a")
NAMES = frozenset(get_args(EndName))


def policy(name: str, mode: str = "act", condition: str = "true", **guards: Any) -> Policy:
    """One that restarts a deployment whenever there is an incident."""
    data = {"apiVersion": "aiops.io/v1", "kind": "RemediationPolicy", "metadata": {"name": name}, "spec": {
        "trigger": {"type": "Incident"}, "diagnosis": {"correlations": [{"metric": "unknown"}]},
        "mode": mode, "match": {"namespace": guards.pop("where", "shop")},
        "actions": [{"type": "Restart", "condition": condition, "target": {"deployment": "api"}}],
        "guards": {"maxEvidenceAge": "1h", **guards}, "verify": {"settle": "20s", "within": "40s"}, "undo": False}}
    problems: list[Any] = []
    made = compile_document(yamlfile.Document("p.yaml", data, {}), shipped(), problems)
    assert made and not problems, problems
    return made


# --------------------------------------------------------------------------------------------------- whole scenarios
class Scenario:
    """Random faults, alerts of others, maintenance and answers of people over a few entities; all from one seed."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        modes = self.random.choice(["act", "ask", "shadow", "earned"], 3)
        conditions = self.random.choice(["true", "incident.alerts > 2.0", "correlation.unknown > 1.0"], 3)
        policies = [policy(f"p{k}", str(m), str(c), cooldown="3m", approvalWithin="2m") for k, (m, c) in
                    enumerate(zip(modes, conditions, strict=True))][:int(self.random.integers(0, 4))]
        self.pipeline = pipeline(policies, str(self.random.choice(["observe", "ask", "act"])))
        self.actuator = SimulatedActuator(SimulatedCluster.from_links(TOPOLOGY))
        self.feed = Feed()
        self.asked: list[str] = []

    def reports(self, ticks: int = 90) -> list[Report]:
        out = []
        for k in range(ticks):
            report = advance(self.pipeline, self._batch(k), self.actuator, ())
            self.asked += [a.id for a in report.actions if a.decision == "ask"]
            out.append(report)
        return out

    def _batch(self, k: int) -> Any:
        r, at = self.random, T0 + k * STEP_S
        bad = k > 30 and k % 40 > 20
        values = {f"{e} app_errors": float(r.uniform(0.9, 1.1) + 30 * (bad and n < k // 20)) for n, e in enumerate(ENTITIES)}
        alerts = tuple(RawAlert(k, at, str(r.choice(ENTITIES)), "Slow", str(r.choice(["firing", "resolved"])))  # type: ignore[arg-type]
                       for _ in range(int(r.random() < 0.3)))
        batch = self.feed.batch(at, values, alerts=alerts, commands=tuple(self._said(at)), links=TOPOLOGY if k == 0 else None)
        return with_outcomes(batch, self.actuator.collect())

    def _said(self, at: float) -> Any:
        r = self.random
        if r.random() < 0.05:
            yield Command(at, "maintenance_start", f"m{at:.0f}", "ann", (str(r.choice(ENTITIES)),), None, at + 200, "disks")
        if self.asked and r.random() < 0.3:
            yield Command(at, "approve" if r.random() < 0.5 else "reject", self.asked.pop(), "bob")
        for incident in self.pipeline.book.open():
            if r.random() < 0.02:
                yield Command(at, "false_alarm", incident.id, "ann")


@functools.cache
def reports(seed: int) -> list[Report]:
    return Scenario(seed).reports()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_everything_odd_has_exactly_one_state_in_every_step(seed: int) -> None:
    """Whatever happens: each alert and each anomaly of a step once, by a documented name, and the same in every run."""
    assert [r.ends for r in Scenario(seed).reports()] == [r.ends for r in reports(seed)]
    for report in reports(seed):
        keys = Counter((e.entity, e.signal) for e in report.ends)
        assert not [k for k, n in keys.items() if n > 1]
        assert keys.keys() >= {(a.entity, a.signal) for a in report.alerts} | {(a.entity, a.name) for a in report.anomalies}
        assert {e.state for e in report.ends} <= NAMES
        assert all(e.at == report.at and e.since <= e.at for e in report.ends)


def test_random_scenarios_meet_most_states() -> None:
    """Or the test above would prove little."""
    met = {e.state for seed in range(10) for r in reports(seed) for e in r.ends}
    assert met >= {"acting", "waiting", "acted", "rehearsed", "condition", "no_policy", "inhibited", "maintenance", "resolved",
                   "below_budget", "blocked"}, NAMES - met


def states(p: Any, ticks: int = 70, said: dict[int, Any] | None = None) -> list[EndState]:
    """The states of the alert of a service that fails from tick 31 to 50, step by step."""
    feed, actuator = Feed(), SimulatedActuator(SimulatedCluster.from_links(TOPOLOGY))
    out = []
    for k in range(ticks):
        told = RawAlert(k, T0 + k * STEP_S, "service/shop/api", "Slow", "firing" if 31 <= k < 50 else "resolved")
        batch = feed.batch(T0 + k * STEP_S, {}, alerts=(told,) if k > 30 else (), links=TOPOLOGY if k == 0 else None)
        command = said and said.get(k)
        batch = replace(batch, commands=(command(out),)) if command else batch
        report = advance(p, with_outcomes(batch, actuator.collect()), actuator, ())
        out += [e for e in report.ends if e.entity == "service/shop/api"]
    return out


def course(found: list[EndState]) -> list[str]:
    """The states one after the other."""
    return [key for key, _ in itertools.groupby(f"{e.state} {e.by}".strip() if not e.by.startswith(("a-", "inc-")) else e.state
                                                for e in found)]


@pytest.mark.parametrize(("policies", "mode", "expected"), [
    ([], "act", ["no_policy", "resolved"]),
    ([policy("p", where="lab")], "act", ["no_policy", "resolved"]),
    ([policy("p", condition="correlation.unknown > 1.0")], "act", ["condition condition", "resolved"]),
    ([policy("p", namespaces=["lab"])], "act", ["blocked namespace", "resolved"]),
    ([policy("p")], "observe", ["rehearsed"]),
    ([policy("p", "ask", approvalWithin="1m")], "act", ["waiting", "expired"]),
])
def test_a_fault_that_nobody_heals(policies: list[Policy], mode: str, expected: list[str]) -> None:
    """The reason has a name, and where somebody holds it back, that one's."""
    assert course(states(pipeline(policies, mode))) == expected


def test_a_fault_that_is_healed() -> None:
    """Acting while it is done and watched, then how it ended, also after the alert is gone."""
    found = states(pipeline([policy("p")], "act"), 80)
    assert course(found)[0] == "acting" and course(found)[-1].startswith("acted ")
    assert found[0].policy == "p" and "Restart deployment/shop/api" in found[0].text


def test_a_question_that_is_rejected() -> None:
    """By a person, from the next state on."""
    no = {35: lambda out: Command(T0, "reject", out[-1].by, "ann")}
    assert course(states(pipeline([policy("p", "ask")], "act"), 45, no)) == ["waiting", "rejected"]


def test_maintenance_is_named_with_its_window() -> None:
    """So that a person finds who started it."""
    on = {0: lambda out: Command(T0, "maintenance_start", "mnt-1", "ann", ("service/shop/api",), None, T0 + 9000, "disks")}
    assert course(states(pipeline([policy("p")], "act"), 45, on)) == ["maintenance mnt-1"]


def test_a_symptom_names_its_cause() -> None:
    """And the cause has the state of the incident."""
    p = pipeline([], "act")
    feed = Feed()
    for k in range(60):
        values = {"service/shop/db app_errors": 1 + k % 3 / 10 + 30 * (k > 45),
                  "service/shop/api app_latency": 1 + k % 4 / 10 + 9 * (k > 45)}
        report = p.step(feed.batch(T0 + k * STEP_S, values, links=TOPOLOGY if k == 0 else None))
    found = {e.entity: (e.state, e.by) for e in report.ends}
    assert found == {"service/shop/db": ("no_policy", ""), "service/shop/api": ("inhibited", "service/shop/db")}
    [incident] = p.book.open()
    assert [e.entity for e in p.ends.of(incident.id)] == ["service/shop/api", "service/shop/db"]


# ------------------------------------------------------------------------------------------------------ the functions
TEXT = st.text(max_size=20)
CAUSES = st.lists(st.builds(Cause, TEXT, st.just(0.5), st.just(()), st.just(())), max_size=2).map(tuple)
INCIDENTS = st.none() | st.builds(Incident, TEXT, st.just(T0), st.just(T0), st.sampled_from(["open", "closed"]),
                                  st.just("warning"), st.just(()), st.just(()), CAUSES)
FATES = st.none() | st.builds(Standing, TEXT, st.sampled_from(sorted(NAMES)), TEXT, TEXT)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(get_args(AlertState)), TEXT, st.booleans(), INCIDENTS, FATES)
def test_each_alert_has_a_state(state: Any, text: str, silent: bool, incident: Any, fate: Any) -> None:
    """Total: nothing that can be an alert raises, or is without a name."""
    for words in (text, f"maintenance {text}"):
        found = of_alert(T0, replace(alert("pod//a x"), state=state, text=words, silent=silent), incident, fate)
        assert found.state in NAMES and (found.entity, found.signal) == ("pod//a", "x")


@given(st.floats(0, 2) | st.just(math.nan), st.integers(-5, 5), st.booleans())
def test_each_anomaly_has_a_state(p: float, signal: int, known: bool) -> None:
    """Remarks, what is not known yet, and what is too weak; figures that are none as well."""
    a = replace(anomaly(T0, "pod//a x", 0.5, signal), p_value=p)
    found = of_anomaly(T0, a, lambda column: known)
    assert found.state == ("noted" if p >= 1 else "not_learned_yet" if signal >= 0 and not known else "below_budget")


def test_each_state_of_an_attempt_and_each_guard_has_a_state() -> None:
    """Also those that are added later."""
    for state in (*get_args(State), "of tomorrow"):
        a = Attempt("a-1", "p", "i", 0, 0, "Restart", "pod//a", {}, "", T0, state)
        assert of_attempt(a).state in NAMES and of_attempt(replace(a, undo="running")).state == "acting"
    for category in ("condition", "target", "of_tomorrow", *(g.__name__ for g in GUARDS)):
        found = of_refusal("p", category, "why")
        assert found.state in NAMES and found.by == category
    assert of_refusal("p", "maintenance", "somebody concerned is under maintenance mnt-1 until noon").by == "mnt-1"
    assert of_refusal("p", "rate", "").state == "blocked" and of_refusal("p", "cooldown", "").state == "cooldown"


def test_of_several_policies_the_one_that_went_furthest_counts() -> None:
    """Whatever their order."""
    several = [Standing("c", "condition"), Standing("b", "blocked", "rate"), Standing("a", "acting", "a-1"),
               Standing("d", "noted")]
    for order in itertools.permutations(several):
        assert furthest(order) == several[2]
    assert furthest(()) is None


def test_how_it_ended_is_told_after_the_incident() -> None:
    """From what the incident itself remembers: done things by their last outcome, a question by nobody's answer."""
    action = Action("a-1", "Restart", "pod//a", {}, "i", "p", "act", "", T0)
    told = (Outcome("a-1", "done", T0), Outcome("a-1", "helped", T0 + 60, "all clear"))
    alerts = (alert("pod//a x", state="resolved"),)
    i = Incident("i", T0, T0, "closed", "warning", ("pod//a",), alerts, actions=(action,), outcomes=told)
    [end] = EndStates().update(T0 + 60, (), (), [i], {}, lambda c: True)
    assert (end.state, end.by, end.text) == ("acted", "helped", "Restart pod//a: helped: all clear")
    asked = replace(i, actions=(replace(action, decision="ask"),), outcomes=(Outcome("a-1", "refused", T0, "nobody approved"),))
    [end] = EndStates().update(T0 + 60, (), (), [asked], {}, lambda c: True)
    assert (end.state, end.text) == ("expired", "Restart pod//a: nobody approved")


# ------------------------------------------------------------------------------------------------------------- memory
def test_since_is_when_it_got_there() -> None:
    """New words for the same thing are no new state."""
    ends = EndStates()
    i = Incident("i", T0, T0, "open", "warning", ("pod//a",), (alert("pod//a x"),), (Cause("pod//a", 1.0, (), ()),))
    for k, text in enumerate(("wait 2m more", "wait 1m more")):
        [end] = ends.update(T0 + k, (), i.alerts, [i], {"i": [Standing("p", "cooldown", "cooldown", text)]}, lambda c: True)
    assert (end.since, end.at, end.text, end.new) == (T0, T0 + 1, "wait 1m more", False)
    [end] = ends.update(T0 + 2, (), i.alerts, [i], {}, lambda c: True)
    assert (end.state, end.new) == ("no_policy", True)
    assert ends.known() == [end]


def test_an_incident_that_is_over_keeps_how_it_ended() -> None:
    """Also when the same signal is in another one by now; the last state of the signal is that of the newer."""
    ends, a = EndStates(), alert("pod//a x")
    first, second = (Incident(k, T0, T0, "open", "warning", ("pod//a",), (a,), (Cause("pod//a", 1.0, (), ()),)) for k in "ij")
    ends.update(T0, (), [a], [first], {"i": [Standing("p", "cooldown", "cooldown")]}, lambda c: True)
    ends.update(T0 + 1, (), [a], [second], {}, lambda c: True)
    assert [e.state for e in (*ends.of("i"), *ends.of("j"))] == ["cooldown", "no_policy"]
    assert [(e.incident, e.state) for e in ends.known()] == [("j", "no_policy")]


def test_memory_is_bounded_by_number_and_age() -> None:
    """The newest stay; what becomes an alert is no anomaly any more."""
    ends = EndStates()
    for k in range(0, 3 * MOST_ANOMALIES, 1000):
        ends.update(T0 + k, [anomaly(T0, f"pod//{n} x", 0.01) for n in range(k, k + 1000)], (), (), {}, lambda c: True)
    found = ends.known()
    assert len(found) == MOST_ANOMALIES and f"pod//{3 * MOST_ANOMALIES - 1}" in {e.entity for e in found}
    last = f"pod//{3 * MOST_ANOMALIES - 1} x"
    ends.update(T0 + 3 * MOST_ANOMALIES, (), [alert(last)], (), {}, lambda c: True)
    assert Counter(e.alerted for e in ends.known()) == {False: MOST_ANOMALIES - 1, True: 1}
    ends.update(T0 + 2 * KEEP_S, [anomaly(T0, "pod//z x", 0.01)], [alert("pod//y x")], (), {}, lambda c: True)
    assert {e.entity for e in ends.known()} == {"pod//y", "pod//z"}
