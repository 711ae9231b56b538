"""The life of a decision: decided once, guarded, asked, done, verified, undone, and stopped where it does not help."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace

import pytest

from aiops import yamlfile
from aiops.cluster.actuator import SimulatedActuator
from aiops.cluster.simulated import SimulatedCluster
from aiops.meaning import shipped
from aiops.policy.decide import PolicyBook
from aiops.policy.learning import Record, TrackRecord, beta_quantile
from aiops.policy.load import compile_document
from aiops.types import Action, Alert, Anomaly, Cause, Command, Incident, Outcome

POD = "pod/shop/api-7d4"
T0 = 1_000_000.0


@dataclass
class Facts:
    """Evidence that says what a test sets."""

    values: dict = field(default_factory=dict)
    logs: dict = field(default_factory=dict)
    seen: tuple = (Anomaly(T0, POD, "http_error_rate", 0.99, 1e-6, "baseline", 3),)
    age_s: float = 10.0
    is_clear: bool = False
    window: str = ""
    rising: tuple = ()
    elsewhere: str = ""
    over: tuple = ()
    place: dict = field(default_factory=dict)

    def anomalies(self, incident):
        return self.seen

    def measure(self, name, incident):
        return self.values.get(name)

    def log_count(self, pattern, incident):
        return self.logs.get(pattern, 0)

    def age(self, incident):
        return self.age_s

    def clear(self, incident):
        return self.is_clear

    def around(self, entity):
        return self.place

    def affected(self, incident):
        return 1

    def subsided(self, entity, name):
        return (entity, name) in self.over

    def explained(self, incident):
        return self.elsewhere

    def risen(self, incident, target, since):
        return self.rising

    def maintenance(self, incident, target):
        return self.window


def policy(**spec):
    """A compiled policy; keys of `spec` replace those of the usual one."""
    usual = {
        "trigger": {"type": "Anomaly", "metric": "http_error_rate"},
        "diagnosis": {"correlations": [{"metric": "http_error_rate"}, {"metric": "container_restarts"}]},
        "actions": [
            {"type": "ScaleUp", "condition": "correlation.http_error_rate > 0.8",
             "target": {"deployment": "api", "replicas": "+2"}},
            {"type": "Restart", "condition": "correlation.container_restarts > 3", "target": {"pod": "selector:app=api"}},
        ],
        "mode": "act",
        "feedback": {"successMetric": "http_error_rate", "successThreshold": 0.01},
    }
    name = spec.pop("name", "p")
    data = {"apiVersion": "aiops.io/v1", "kind": "RemediationPolicy", "metadata": {"name": name}, "spec": usual | spec}
    problems = []
    compiled = compile_document(yamlfile.Document("p.yaml", data, {}), shipped(), problems)
    assert not problems, problems
    return compiled


UNWELL = Alert(f"{POD}|ticks", POD, "ticks", "firing", T0, T0, 0.99, 1e-6, detectors=("baseline",))
"""Nothing that a policy here asks about: somebody who has an alert is listened to."""


def incident(number=1, **changes):
    return replace(Incident(f"i-{number}", T0, T0, "open", "warning", (POD,), (UNWELL,),
                            (Cause("service/shop/api", 0.9, ("http_error_rate",), ()),)), **changes)


def book(*policies, mode="act"):
    return PolicyBook(policies or [policy()], mode, shipped())


BAD = Facts({"http_error_rate": 0.9})


def step(b, at=0.0, facts=BAD, incidents=None, outcomes=(), commands=()):
    """One step `at` seconds after the start; the anomalies are seen in it."""
    facts = replace(facts, seen=tuple(replace(a, at=T0 + at) for a in facts.seen))
    return b.decide(T0 + at, [incident()] if incidents is None else incidents, facts, outcomes, commands)


def acted(b, facts=BAD, at=0.0):
    """The one action of the next step, which must be an act."""
    [action] = step(b, at, facts).actions
    assert action.decision == "act", action
    return action


def test_the_first_action_that_holds_is_decided_with_its_reason():
    """Target in the namespace of what triggered, the parameters as the policy has them."""
    action = acted(book())
    assert (action.type, action.target, dict(action.params)) == \
        ("ScaleUp", "deployment/shop/api", {"replicas": "+2", "max": 20})
    assert action.reason == "correlation.http_error_rate > 0.8 is true (correlation.http_error_rate = 0.9)"


def test_the_order_of_the_file_decides_between_two_that_hold():
    """Both conditions hold: the first one is taken."""
    assert acted(book(), Facts({"http_error_rate": 0.9, "container_restarts": 9.0})).type == "ScaleUp"
    assert acted(book(), Facts({"http_error_rate": 0.1, "container_restarts": 9.0})).type == "Restart"


def test_a_decision_is_taken_once():
    """A condition that goes on to hold is no second decision."""
    b = book()
    acted(b)
    assert [step(b, at).actions for at in (15, 30, 45)] == [(), (), ()]


def test_the_same_situation_gives_the_same_ids():
    """Ids are idempotency keys: they hang on policy, incident, action and attempt only."""
    assert acted(book()).id == acted(book()).id
    [other] = book().decide(T0, [incident(2)], BAD).actions
    assert other.id != acted(book()).id


def test_nothing_met_is_said_once_with_every_reason():
    """Why nothing happened is always answerable: a value that is too low, and one that nobody measured."""
    b = book()
    facts = Facts({"http_error_rate": 0.02})
    [refusal] = step(b, 0, facts).actions
    assert (refusal.decision, refusal.state) == ("refused", "condition")
    assert refusal.reason == (
        "no condition met: ScaleUp: correlation.http_error_rate > 0.8 is false (correlation.http_error_rate = 0.02); "
        "Restart: correlation.container_restarts is not known in this incident")
    assert step(b, 15, facts).actions == ()


def test_a_refusal_is_looked_at_again():
    """What becomes true later is decided later."""
    b = book()
    step(b, 0, Facts({"http_error_rate": 0.02}))
    assert acted(b, at=15).type == "ScaleUp"


def test_other_anomalies_do_not_trigger():
    """Another metric, a weaker score, another detector or another namespace: silence."""
    strict = policy(trigger={"type": "Anomaly", "metric": "http_error_rate", "model": "isolation_forest", "sensitivity": 0.95})
    assert step(book(strict)).actions == ()
    forest = replace(BAD.seen[0], detector="isolation_forest")
    assert step(book(strict), facts=replace(BAD, seen=(forest,))).actions
    assert step(book(strict), facts=replace(BAD, seen=(replace(forest, score=0.94),))).actions == ()
    assert step(book(), facts=replace(BAD, seen=(replace(forest, name="up"),))).actions == ()
    assert step(book(policy(match={"namespace": "pay"}))).actions == ()
    assert step(book(policy(match={"severity": "critical"}))).actions == ()


def test_an_odd_sample_of_somebody_who_is_well_does_not_trigger():
    """The incident goes on for another's sake; what its members do once in a while is no ground for an action."""
    fires = Alert("k", "pod/shop/other-1", "container_cpu_cores", "firing", T0, T0, 0.9, 1e-6)
    over = Alert("l", POD, "http_error_rate", "resolved", T0 - 60, T0, 0.9, 1e-6)
    assert step(book(), 0, incidents=[replace(incident(), alerts=(fires, over))]).actions == ()
    again = replace(over, state="firing")
    assert len(step(book(), 0, incidents=[replace(incident(), alerts=(fires, again))]).actions) == 1


def test_a_raw_metric_triggers_through_its_signals():
    """Policies may name what Prometheus names; what is scored is the signal that a pack makes of it."""
    raw = policy(trigger={"type": "Anomaly", "metric": "http_requests_total"})
    assert step(book(raw)).actions


def test_a_verdict_on_a_whole_entity_triggers_where_the_metric_is_odd_too():
    """An isolation forest judges the entity; the alert on the metric says what it is about."""
    forest = policy(trigger={"type": "Anomaly", "metric": "http_error_rate", "model": "isolation_forest"})
    whole = Anomaly(T0, POD, "entity", 0.99, 1e-6, "isolation_forest")
    assert step(book(forest), facts=replace(BAD, seen=(whole,))).actions == ()
    alert = Alert("k", POD, 'http_error_rate{code="500"}', "firing", T0, T0, 0.9, 1e-4, detectors=("baseline",))
    assert step(book(forest), facts=replace(BAD, seen=(whole,)), incidents=[incident(alerts=(alert,))]).actions


def test_an_incident_trigger_needs_its_severity():
    """Any anomaly will do, in an incident that is severe enough."""
    any_critical = policy(trigger={"type": "Incident", "severity": "critical"})
    assert step(book(any_critical)).actions == ()
    assert step(book(any_critical), incidents=[incident(severity="critical")]).actions


@pytest.mark.parametrize(("mode", "daemon", "decision"), [
    ("shadow", "act", "shadow"), ("act", "observe", "shadow"), ("ask", "observe", "shadow"),
    ("ask", "act", "ask"), ("act", "ask", "ask"), ("act", "act", "act"), ("earned", "act", "ask"),
])
def test_the_more_careful_of_both_modes_wins(mode, daemon, decision):
    """The daemon's mode is the most that any policy may do."""
    [action] = step(book(policy(mode=mode), mode=daemon)).actions
    assert action.decision == decision


def test_left_out_a_policy_only_rehearses():
    """Fresh policies never act."""
    spec = {"trigger": {"type": "Anomaly", "metric": "http_error_rate"}}
    p = policy(**spec)
    assert replace(p, spec=p.spec.model_copy(update={"mode": type(p.spec).model_fields["mode"].default})).spec.mode == "shadow"


# ----------------------------------------------------------------------------------------------------- guards
def refusal(b, facts=BAD, at=0.0, incidents=None):
    [action] = step(b, at, facts, incidents).actions
    assert action.decision == "refused", action
    return action.state, action.reason


def test_what_is_as_usual_again_is_left_alone():
    """An alert fires on for a while after a single odd sample; once it is odd again the action follows."""
    b = book()
    over = replace(BAD, over=((POD, "http_error_rate"),))
    assert refusal(b, over) == ("subsided", f"http_error_rate of {POD} is as usual again")
    assert acted(b, at=15.0).type == "ScaleUp"


def test_what_is_over_is_not_done_however_many_approve():
    """Minutes went by since the question was asked."""
    b, over = book(mode="ask"), replace(BAD, over=((POD, "http_error_rate"),))
    [asked] = step(b).actions
    [answer] = step(b, 15, over, commands=[Command(T0 + 15, "approve", asked.id, "ann")]).actions
    assert answer.decision == "refused" and "as usual again" in answer.reason


def test_old_evidence_is_refused():
    """Acting on what was true five minutes ago is how the wrong thing gets hurt."""
    state, reason = refusal(book(), replace(BAD, age_s=301.0))
    assert (state, reason) == ("evidence", "the newest evidence is 5m1s old; at most 5m is allowed")
    assert refusal(book(), replace(BAD, age_s=float("inf")))[1] == "no evidence is known any more"


def test_the_clusters_own_namespaces_are_refused_unless_named():
    """kube-system needs its name, a glob is not enough."""
    actions = [{"type": "Restart", "target": {"deployment": "kube-system/coredns"}}]
    assert refusal(book(policy(actions=actions)))[0] == "namespace"
    assert refusal(book(policy(actions=actions, guards={"namespaces": ["*"]})))[0] == "namespace"
    assert step(book(policy(actions=actions, guards={"namespaces": ["kube-system"]}))).actions[0].decision == "act"


def test_only_allowed_namespaces_are_touched():
    """A list is a list."""
    assert refusal(book(policy(guards={"namespaces": ["pay", "bank-*"]}))) == \
        ("namespace", "namespace shop is not among guards.namespaces (pay, bank-*)")
    assert step(book(policy(guards={"namespaces": ["sh*"]}))).actions[0].decision == "act"


NODE = [{"type": "Drain", "target": {"node": "gpu-1"}}]


def test_a_node_belongs_to_no_namespace_and_its_pods_are_for_the_action_to_look_at():
    """A list of namespaces does not keep off nodes; what empties one is told the list, and nobody who approves can change it."""
    guards = {"namespaces": ["shop", "pay-*"]}
    for kind, told in (("Drain", guards["namespaces"]), ("Cordon", None)):
        [action] = step(book(policy(actions=[NODE[0] | {"type": kind}], guards=guards))).actions
        assert (action.decision, action.target, action.params.get("namespaces")) == ("act", "node//gpu-1", told)
    [free] = step(book(policy(actions=NODE))).actions
    assert (free.decision, "namespaces" in free.params) == ("act", False)
    b = book(policy(actions=NODE, guards=guards, mode="ask"))
    [asked] = step(b).actions
    approval = Command(T0, "approve", asked.id, "anna", params={"force": True})
    [action] = step(b, 10, commands=(approval,)).actions
    assert (action.params["force"], action.params["namespaces"]) == (True, guards["namespaces"])


def test_a_policy_that_is_kept_in_its_namespace_does_not_touch_nodes():
    """Nor whatever else belongs to none."""
    kept = replace(policy(actions=NODE, guards={"namespaces": ["shop"]}), cluster_wide=False)
    assert refusal(book(kept)) == ("namespace", "node//gpu-1 belongs to no namespace; this policy acts in shop only")


def test_one_action_at_a_time_for_an_incident():
    """A second policy waits for the first, and says so."""
    b = book(policy(name="a"), policy(name="b"))
    first, second = step(b).actions
    assert (first.policy, first.decision, second.policy, second.state) == ("a", "act", "b", "busy")
    assert second.reason == f"ScaleUp of deployment/shop/api by a ({first.id}) is not finished"


def test_two_incidents_never_treat_one_target_at_once():
    """The same deployment, blamed twice, is scaled once."""
    b = book()
    first, second = b.decide(T0, [incident(1), incident(2)], BAD).actions
    assert (first.decision, second.decision, second.state) == ("act", "refused", "busy")


def finish(b, action, at, status="done", facts=BAD, incidents=None):
    return step(b, at, facts, incidents, [Outcome(action.id, status, T0 + at)])


def test_cooldown_counts_over_incidents():
    """A new incident on the same target waits for the cooldown, and acts after it."""
    b = book()
    action = acted(b)
    finish(b, action, 15)
    step(b, 90, Facts({"http_error_rate": 0.0}))
    assert refusal(b, at=120, incidents=[incident(2)]) == \
        ("cooldown", "cooldown: the last action on deployment/shop/api was 2m ago; wait 8m more")
    assert [a.decision for a in step(b, 600, incidents=[incident(2)]).actions] == ["act"]


def test_max_actions_in_a_window():
    """Different targets, one policy: the count is the policy's."""
    p = policy(actions=[{"type": "Restart", "target": {"deployment": "${cause.name}"}}],
               guards={"maxActions": {"count": 2, "per": "1h"}, "maxUnavailable": 9})
    incidents = [incident(n, causes=(Cause(f"service/shop/s{n}", 1.0, (), ()),)) for n in (1, 2, 3)]
    actions = book(p).decide(T0, incidents, BAD).actions
    assert [a.decision for a in actions] == ["act", "act", "refused"]
    assert actions[2].reason == "2 actions in the last 1h; guards.maxActions allows 2"


def test_disruptive_actions_respect_max_unavailable_over_incidents():
    """One restart at a time in a namespace, by default; scaling up is not a disruption."""
    p = policy(actions=[{"type": "Restart", "target": {"deployment": "${cause.name}"}}])
    incidents = [incident(n, causes=(Cause(f"service/shop/s{n}", 1.0, (), ()),)) for n in (1, 2)]
    actions = book(p).decide(T0, incidents, BAD).actions
    assert [(a.decision, a.state) for a in actions] == [("act", "submitted"), ("refused", "unavailable")]


def test_a_target_that_needs_a_cause_waits_for_one():
    """No cause, no target: refused in words, and decided when the cause is known."""
    p = policy(actions=[{"type": "Restart", "target": {"deployment": "${cause.name}"}}])
    b = book(p)
    assert refusal(b, incidents=[incident(causes=())]) == \
        ("target", "no target for Restart: cause.name is not known in this incident")
    assert acted(b, at=15).target == "deployment/shop/api"


def test_shadow_rehearses_guards_too():
    """What shadow shows is what act would do: the second incident falls into the cooldown of the first."""
    b = book(policy(mode="shadow"))
    assert [a.decision for a in step(b).actions] == ["shadow"]
    assert refusal(b, at=60, incidents=[incident(2)])[0] == "cooldown"


def test_nothing_is_done_where_people_work():
    """Refused with the window and its reason; decided as soon as it is over."""
    b = book()
    window = replace(BAD, window="maintenance mnt-1 until 12:00: new disks")
    assert refusal(b, window) == (
        "maintenance", "somebody concerned is under maintenance mnt-1 until 12:00: new disks")
    assert step(b, 10, window).actions == ()
    assert [a.decision for a in step(b, 20).actions] == ["act"]


def test_an_approval_is_refused_where_people_have_begun_to_work():
    """The question was asked before."""
    b = book(policy(mode="ask"))
    question = ask(b)
    [answer] = step(b, 10, replace(BAD, window="maintenance mnt-1"), commands=[
        Command(T0 + 10, "approve", question.id, "ann")]).actions
    assert (answer.decision, answer.state) == ("refused", "refused")
    assert "approved by ann, but somebody concerned is under maintenance mnt-1" in answer.reason


# ---------------------------------------------------------------------------------------------------- approval
def ask(b):
    [question] = step(b).actions
    assert (question.decision, question.state) == ("ask", "asked")
    return question


def test_an_approved_question_is_acted_on_under_the_same_id():
    """The one who approved is named."""
    b = book(policy(mode="ask"))
    question = ask(b)
    [action] = step(b, 60, commands=[Command(T0 + 60, "approve", question.id, "ann")]).actions
    assert (action.id, action.decision, action.state) == (question.id, "act", "approved by ann")
    assert step(b, 75, commands=[Command(T0 + 75, "approve", question.id, "bob")]).notes == \
        (f"approve {question.id}: nothing is asked there, it is submitted.",)


def test_a_rejected_question_is_closed_for_the_incident():
    """No means no: it is not asked again."""
    b = book(policy(mode="ask"))
    question = ask(b)
    [action] = step(b, 60, commands=[Command(T0 + 60, "reject", question.id, "ann")]).actions
    assert (action.decision, action.state, action.reason) == ("refused", "rejected", "rejected by ann")
    assert step(b, 75).actions == ()


def test_a_question_expires():
    """Half an hour later the world is another one; the question stays on record, with how it ended."""
    b = book(policy(mode="ask"))
    question = ask(b)
    assert step(b, 1799).outcomes == ()
    decision = step(b, 1800)
    assert decision.actions == ()
    assert [(o.action, o.status, o.reason) for o in decision.outcomes] == \
        [(question.id, "refused", "nobody approved within 30m")]


def test_an_approval_is_checked_against_the_present():
    """Between question and answer the evidence went stale: approved, and still refused."""
    b = book(policy(mode="ask"))
    question = ask(b)
    [action] = step(b, 60, replace(BAD, age_s=400.0), commands=[Command(T0, "approve", question.id, "ann")]).actions
    assert action.decision == "refused"
    assert action.reason == "approved by ann, but the newest evidence is 6m40s old; at most 5m is allowed"


def test_a_question_ends_with_its_incident():
    """Nobody is asked about what is over, and a late approval does nothing."""
    b = book(policy(mode="ask"))
    question = ask(b)
    decision = step(b, 60, incidents=[incident(state="closed")])
    assert [o.reason for o in decision.outcomes] == ["the incident ended before anybody approved"]
    late = step(b, 75, incidents=[], commands=[Command(T0, "approve", question.id)])
    assert (late.actions, late.notes) == ((), (f"approve {question.id}: nothing is asked there, it is expired.",))


# ------------------------------------------------------------------------------------------------ verification
def test_helped_is_measured_after_settling():
    """Before `settle` nothing is judged, however good it looks."""
    b = book()
    finish(b, acted(b), 15, facts=Facts({"http_error_rate": 0.0}))
    assert step(b, 74, Facts({"http_error_rate": 0.0})).outcomes == ()
    [outcome] = step(b, 75, Facts({"http_error_rate": 0.0})).outcomes
    assert (outcome.status, outcome.reason) == ("helped", "http_error_rate was 0 (wanted <= 0.01) 1m after the action")
    assert step(b, 900).actions == ()


def no_help(b, at=0.0):
    """One attempt that does not help; returns the decision in which that is found, and its time."""
    action = acted(b, at=at)
    finish(b, action, at + 15)
    decision = step(b, at + 15 + 660)
    assert [o.status for o in decision.outcomes] == ["no_help"]
    return action, decision


def test_what_did_not_help_is_undone():
    """The undo is an action of its own that names what it undoes."""
    b = book()
    action, decision = no_help(b)
    assert decision.outcomes[0].reason == "http_error_rate was 0.9 (wanted <= 0.01) 11m after the action"
    [undo] = decision.actions
    assert (undo.type, undo.target, undo.decision, undo.state) == ("ScaleUp", "deployment/shop/api", "act", "undo")
    assert undo.params["undo_of"] == action.id != undo.id
    assert step(b, 700).actions == ()


def alerted(since, number=1):
    """The incident with an alert that began then: other evidence than before."""
    began = T0 + since
    error = Alert("k", POD, "http_error_rate", "firing", began, began, 0.9, 1e-6, detectors=("baseline",), direction="up")
    return incident(number, alerts=(error,))


def test_after_two_attempts_without_help_a_person_is_named():
    """The breaker stops the third attempt, and lets one probe through a day later."""
    b = book(policy(escalate={"after": 2, "to": "#oncall"}))
    _, decision = no_help(b)
    [second] = finish(b, decision.actions[0], 700, "undone", incidents=[alerted(690)]).actions
    assert second.decision == "act"
    finish(b, second, 715, incidents=[alerted(690)])
    [undo] = step(b, 1400, incidents=[alerted(690)]).actions
    [stop] = finish(b, undo, 1415, "undone", incidents=[alerted(1410)]).actions
    assert (stop.state, stop.reason) == ("breaker", "2 attempts on deployment/shop/api did not help; escalate to #oncall")
    assert refusal(b, at=5000, incidents=[incident(2)])[0] == "breaker"
    assert [a.decision for a in step(b, 90000, incidents=[incident(2)]).actions] == ["act"]


def test_no_new_attempt_while_the_undo_is_under_way():
    """Undo first, then think again."""
    b = book()
    _, decision = no_help(b)
    assert step(b, 800, incidents=[alerted(790)]).actions == ()
    assert finish(b, decision.actions[0], 815, "undone", incidents=[alerted(790)]).actions[0].decision == "act"


def test_what_was_no_good_is_not_done_again_for_the_same_evidence():
    """The next candidate is; and when none is left, a person hears all that was tried."""
    both = Facts({"http_error_rate": 0.9, "container_restarts": 9.0})
    b = book(policy(guards={"cooldown": "0s"}, escalate={"after": 9, "to": "#oncall"}))
    first = acted(b, both)
    finish(b, first, 15, facts=both)
    [undo] = step(b, 675, both).actions
    [second] = finish(b, undo, 690, "undone", both).actions
    assert (first.type, second.type, second.decision) == ("ScaleUp", "Restart", "act")
    finish(b, second, 705, facts=both)
    [stop] = step(b, 1400, both).actions
    assert (stop.decision, stop.state) == ("refused", "exhausted")
    assert stop.reason == (
        "all that this policy allows was tried: ScaleUp of deployment/shop/api: no help (http_error_rate was 0.9 "
        "(wanted <= 0.01) 11m after the action); Restart of pod/shop/selector:app=api: no help (http_error_rate "
        "was 0.9 (wanted <= 0.01) 11m35s after the action). Escalate to #oncall.")
    assert step(b, 9000, both).actions == ()


def test_a_symptom_is_not_treated_while_its_cause_is():
    """What fails below is treated first; also an approval is refused then."""
    known = replace(BAD, elsewhere="inc-2 (node//gpu-1)")
    assert refusal(book(), known) == ("explained", "inc-2 (node//gpu-1) explains this: what this depends on is treated first")
    b = book(policy(mode="ask"))
    question = ask(b)
    [answer] = step(b, 10, known, commands=[Command(T0 + 10, "approve", question.id, "ann")]).actions
    assert "explains this" in answer.reason


def test_what_helped_gets_the_time_to_be_seen():
    """No other policy adds to it in the same incident, unless something has begun since."""
    for since, state in ((-5, "recovering"), (100, "submitted")):
        b = book(policy(name="a"), policy(name="b", guards={"cooldown": "0s"}))
        first, _ = step(b, 0, incidents=[alerted(-5)]).actions
        finish(b, first, 15, facts=Facts({"http_error_rate": 0.0}))
        assert [o.status for o in step(b, 80, Facts({"http_error_rate": 0.0})).outcomes] == ["helped"]
        [second] = step(b, 120, incidents=[alerted(since)]).actions
        assert (second.policy, second.state) == ("b", state)


def test_a_target_may_be_named_by_its_place():
    """The workload that a pod belongs to, the node that it runs on; where that is not known, nothing is aimed at."""
    actions = [{"type": "Restart", "condition": "cause.node == 'gpu-1'", "target": {"deployment": "${cause.workload}"}}]
    known = replace(BAD, place={"workload": "chat", "node": "gpu-1"})
    assert acted(book(policy(actions=actions)), known).target == "deployment/shop/chat"
    assert refusal(book(policy(actions=actions)), replace(BAD, place={"node": "gpu-1"})) == (
        "target", "no target for Restart: cause.workload is not known in this incident")
    assert refusal(book(policy(actions=actions)))[0] == "condition"


def test_what_helped_before_is_tried_first():
    """The file's order is only what is known at the beginning."""
    both, b = Facts({"http_error_rate": 0.9, "container_restarts": 9.0}), book()
    for _ in range(2):
        b.record.learn("http_error_rate|service", "ScaleUp of deployment", "no_help")
    assert acted(b, both).type == "Restart"


def test_who_helps_one_at_the_cost_of_its_neighbours_has_made_it_worse():
    """After half the time to calm down; undone, and on record. What was odd before does not count, nor what fires no more."""
    good = Facts({"http_error_rate": 0.0})
    risen = Alert("n", "service/shop/db", "http_latency_seconds", "firing", T0 + 20, T0 + 70, 0.9, 1e-6, direction="up")
    b = book()
    finish(b, acted(b), 15, facts=good)
    assert step(b, 75, replace(good, rising=(risen,))).outcomes == ()
    decision = step(b, 375, replace(good, rising=(risen,)))
    assert [(o.status, o.reason) for o in decision.outcomes] == [("worse", (
        "service/shop/db: http_latency_seconds began to alert after the action, and still did 6m after it"))]
    assert [(a.state, a.decision) for a in decision.actions] == [("undo", "act")]
    assert b.record.of("http_error_rate|service", "ScaleUp of deployment") == Record(worse=1, in_row=1)
    known = replace(risen, entity=POD, signal="http_error_rate")
    b = book()
    [action] = step(b, 0, incidents=[alerted(-5)]).actions
    finish(b, action, 15, facts=good)
    assert [o.status for o in step(b, 75, replace(good, rising=(known,))).outcomes] == ["helped"]


def test_what_made_it_worse_once_is_not_done_again():
    """Whatever the evidence says: a person is named, for a day, and then one probe is allowed."""
    good = Facts({"http_error_rate": 0.0})
    b = book(policy(undo=False, escalate={"after": 5, "to": "#oncall"}, guards={"cooldown": "0s"}))
    risen = Alert("n", "service/shop/db", "http_latency_seconds", "firing", T0 + 20, T0 + 70, 0.9, 1e-6, direction="up")
    finish(b, acted(b), 15, facts=good)
    assert [o.status for o in step(b, 375, replace(good, rising=(risen,))).outcomes] == ["worse"]
    [again] = step(b, 4000, incidents=[incident(2, opened_at=T0 + 3900)]).actions
    assert (again.decision, again.reason) == ("refused", "ScaleUp of deployment/shop/api made it worse; escalate to #oncall")
    [probe] = step(b, 375 + 86401, incidents=[incident(3, opened_at=T0 + 86000)]).actions
    assert probe.decision == "act"


def test_a_good_metric_does_not_help_while_what_asked_for_the_action_still_fires():
    """The triggering evidence must be gone."""
    b, good = book(), Facts({"http_error_rate": 0.0})
    [action] = step(b, 0, incidents=[alerted(-5)]).actions
    finish(b, action, 15, facts=good, incidents=[alerted(-5)])
    assert step(b, 75, good, incidents=[alerted(-5)]).outcomes == ()
    assert [o.status for o in step(b, 90, good).outcomes] == ["helped"]
    b = book()
    [action] = step(b, 0, incidents=[alerted(-5)]).actions
    finish(b, action, 15, facts=good, incidents=[alerted(-5)])
    [outcome] = step(b, 700, good, incidents=[alerted(-5)]).outcomes
    assert outcome.reason.endswith(f"but {POD}: http_error_rate was still firing 11m25s after the action")


def test_a_second_attempt_has_its_own_id():
    """Idempotency keys are never reused."""
    b = book(policy(undo=False))
    first, _ = no_help(b)
    [second] = step(b, 700, incidents=[alerted(690)]).actions
    assert second.decision == "act"
    assert second.id != first.id


def test_an_action_without_an_undo_is_not_undone():
    """A restart changes nothing that could be put back."""
    restart = policy(actions=[{"type": "Restart", "target": {"deployment": "api"}}], guards={"cooldown": "1h"})
    assert [a.state for a in no_help(book(restart))[1].actions] == ["exhausted"]


def test_a_metric_that_was_good_before_proves_nothing():
    """A restart for memory with no errors at all: only resolved alerts count as help."""
    p = policy(actions=[{"type": "Restart", "condition": "true", "target": {"deployment": "api"}}])
    b, fine = book(p), Facts({"http_error_rate": 0.0})
    action = acted(b, fine)
    finish(b, action, 15, facts=fine)
    assert step(b, 300, fine).outcomes == ()
    [outcome] = step(b, 315, replace(fine, is_clear=True)).outcomes
    assert outcome.status == "helped"


def test_without_a_success_metric_resolved_alerts_are_success():
    """Also when the incident is closed and handed in no more."""
    b = book(policy(feedback={}))
    finish(b, acted(b), 15)
    assert step(b, 100).outcomes == ()
    [outcome] = step(b, 120, replace(BAD, is_clear=True), incidents=[]).outcomes
    assert (outcome.status, outcome.reason) == ("helped", "all alerts were resolved 1m45s after the action")


def test_a_metric_of_which_high_is_good_is_read_the_other_way():
    """`up` is bad when it falls: success is at or above the threshold."""
    p = policy(feedback={"successMetric": "up", "successThreshold": 1})
    b, down = book(p), Facts({"http_error_rate": 0.9, "up": 0.0})
    finish(b, acted(b, down), 15, facts=down)
    assert step(b, 100, down).outcomes == ()
    assert step(b, 120, Facts({"up": 1.0})).outcomes[0].status == "helped"


def test_what_cannot_be_measured_is_unknown_and_left_alone():
    """No verdict, no undo, no second attempt."""
    b = book()
    finish(b, acted(b), 15)
    decision = step(b, 700, Facts({}))
    assert [(o.status, o.reason) for o in decision.outcomes] == \
        [("unknown", "http_error_rate could not be measured within 11m25s after the action")]
    assert decision.actions == ()
    assert step(b, 5000).actions == ()


@pytest.mark.parametrize("status", ["unknown", "helped"])
def test_a_final_outcome_is_not_followed_by_another_attempt(status):
    """Above all: an ambiguous result is never retried."""
    b = book()
    finish(b, acted(b), 15, status)
    assert [step(b, at).actions for at in (30, 900, 9000)] == [(), (), ()]


def test_a_failed_action_may_be_tried_again_after_the_cooldown():
    """And counts for the breaker."""
    b = book()
    assert [a.state for a in finish(b, acted(b), 15, "failed").actions] == ["cooldown"]
    assert [a.state for a in finish(b, acted(b, at=600), 615, "failed").actions] == ["breaker"]


def test_what_the_cluster_refuses_gives_way_to_the_next_action():
    """ScaleUp of a deployment that does not exist: the restart is next, if its condition holds."""
    b = book(policy(guards={"cooldown": "0s"}))
    both = Facts({"http_error_rate": 0.9, "container_restarts": 9.0})
    decision = finish(b, acted(b, both), 15, "refused", both)
    assert [(a.type, a.decision) for a in decision.actions] == [("Restart", "act")]


def test_an_answer_that_never_comes_is_unknown():
    """A lost outcome blocks its incident no longer than a quarter of an hour."""
    b = book()
    acted(b)
    assert step(b, 900).outcomes == ()
    assert [o.status for o in step(b, 901).outcomes] == ["unknown"]


# ---------------------------------------------------------------------------------------------------- learning
@pytest.mark.parametrize(("q", "a", "b", "expected"), [(0.05, 1, 1, 0.05), (0.05, 6, 1, 0.05 ** (1 / 6)), (0.5, 3, 3, 0.5)])
def test_the_interval_is_that_of_the_beta_distribution(q, a, b, expected):
    """Against closed forms."""
    assert beta_quantile(q, a, b) == pytest.approx(expected, abs=1e-6)


def test_an_earned_policy_acts_after_five_approved_that_helped():
    """From asking to acting, with the record in the reason."""
    b = book(policy(mode="earned", guards={"cooldown": "0s", "maxActions": {"count": 99, "per": "1h"}}))
    for n in range(5):
        at, this = n * 1000.0, [incident(n)]
        [question] = step(b, at, incidents=this).actions
        assert question.decision == "ask"
        [action] = step(b, at + 5, incidents=this, commands=[Command(T0, "approve", question.id)]).actions
        finish(b, action, at + 15, incidents=this)
        assert step(b, at + 100, Facts({"http_error_rate": 0.0}), this).outcomes[0].status == "helped"
    [action] = step(b, 9000.0, incidents=[incident(99)]).actions
    assert action.decision == "act"
    assert "acts by itself: helped 5 of 5 times, at least 0.61" in action.reason


def test_learning_can_be_switched_off():
    """Then outcomes leave no trace."""
    b = book(policy(feedback={"successMetric": "http_error_rate", "successThreshold": 0.01, "learningEnabled": False}))
    no_help(b)
    assert b.record.state() == {}


# ----------------------------------------------------------------------------------------------------- memory
def test_a_restored_book_goes_on_where_the_other_stopped():
    """The state is plain JSON; nothing is decided twice, and verification goes on."""
    b = book()
    action = acted(b)
    finish(b, action, 15)
    other = book()
    other.restore(json.loads(json.dumps(b.state())))
    assert step(other, 30).actions == step(b, 30).actions == ()
    assert step(other, 700).outcomes == step(b, 700).outcomes != ()
    assert other.state() == b.state()


def test_memory_is_bounded():
    """What ended a week ago is forgotten, unless its incident is still open."""
    b = book(policy(mode="shadow", guards={"cooldown": "0s", "maxActions": {"count": 10**6, "per": "1h"}}))
    for n in range(50):
        b.decide(T0 + n, [incident(n)], BAD)
    assert len(b.ledger.attempts) == 50
    b.decide(T0 + 8 * 86400, [incident(7)], BAD)
    assert [a.incident for a in b.ledger.attempts.values()] == ["i-7"]
    record = TrackRecord()
    record.restore(json.loads(json.dumps({"a|b": [1, 2]})))
    assert record.of("a", "b") == Record(1, 2, towards=1)


def test_the_whole_loop_on_a_cluster_in_memory():
    """Decide, act, verify, undo: the replicas are back where they were, and every step is on record."""
    cluster = SimulatedCluster({"deployment/shop/api": 3})
    actuator, b, seen = SimulatedActuator(cluster), book(policy(guards={"cooldown": "1h"})), []
    for tick in range(60):
        decision = step(b, tick * 15.0, outcomes=actuator.collect())
        seen += [(a.decision, a.state) for a in decision.actions] + [o.status for o in decision.outcomes]
        actuator.submit(decision.actions)
    assert [str(c) for c in cluster.calls] == ["patch deployment/shop/api spec.replicas: 3 -> 5",
                                               "patch deployment/shop/api spec.replicas: 5 -> 3"]
    assert seen == [("act", "submitted"), ("act", "undo"), "no_help", ("refused", "exhausted")]


def test_deciding_leaves_its_inputs_alone():
    """Incidents and evidence are read only, and equal calls give equal answers."""
    one, two = book().decide(T0, [incident()], BAD), book().decide(T0, [incident()], BAD)
    assert one == two
    assert isinstance(one.actions[0], Action)


def test_a_trigger_that_was_seen_long_ago_is_no_ground_for_an_action():
    """Something else keeps the incident open; what the policy answers to was seen once, half an hour before."""
    old = replace(BAD, seen=tuple(replace(a, at=T0) for a in BAD.seen))
    [action] = book().decide(T0 + 1500, [incident()], old, (), ()).actions
    assert action.decision == "refused"
    assert "the newest evidence is 25m old" in action.reason


def test_an_incident_that_fell_silent_is_not_helped():
    """Without telemetry nobody can tell: the verdict is unknown, and no trust is earned."""
    b = book(policy(feedback={}, verify={"settle": "1m", "within": "2m"}))
    action = acted(b)
    step(b, 10, outcomes=[Outcome(action.id, "done", T0 + 10)])
    silent = replace(BAD, is_clear=None)
    assert not step(b, 100, silent).outcomes
    [outcome] = step(b, 300, silent).outcomes
    assert outcome.status == "unknown"
    assert "no longer reported" in outcome.reason
