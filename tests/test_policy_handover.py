"""What one replica did is taken in by another: judged by what that one sees, undone, counted once, and not done again."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from test_policy_decide import BAD, POD, T0, Facts, acted, book, incident, policy, step

from aiops.incidents import IncidentBook
from aiops.policy.learning import Record
from aiops.types import HANDED, Alert, Command, Outcome

LEAD, FOLLOW = Command(T0, "lead", "aiops/aiops", "us"), Command(T0, "follow", "aiops/aiops", "us")
ERRORS = Alert(f"{POD}|http_error_rate", POD, "http_error_rate", "firing", T0 - 30, T0, 0.99, 1e-6, detectors=("baseline",))
SIGNATURE, KIND = "http_error_rate|service", "ScaleUp of deployment"


def theirs(**changes):
    """The same fault as the first replica saw it."""
    return incident(alerts=(ERRORS,), **changes)


def ours(**changes):
    """The same fault as we see it: under another name, and a little later."""
    return incident(2, alerts=(replace(ERRORS, since=ERRORS.since + 2.0),), **changes)


def handed(b, action, ended=None):
    """As it goes through the ledger that all see."""
    record = b.about(action.id) | {"by": "first", "ended": ended}
    return Command(T0, "handed", action.id, "first", params=json.loads(json.dumps(record)))


def done_by_the_first(at=0.0, done_at=5.0, **spec):
    """The first replica's book, its action, and how it ended on the cluster."""
    b = book(policy(**spec))
    [action] = step(b, at, incidents=[theirs()]).actions
    return b, action, {"status": "done", "at": T0 + done_at, "reason": "replicas 3 -> 5"}


def test_an_action_of_a_dead_leader_is_judged_undone_and_counted_once():
    """By one whose incident has another id. The undo carries the id under which the ledger knows what to put back."""
    first, action, ended = done_by_the_first()
    second = book()
    step(second, 0.0, incidents=[], commands=[FOLLOW])
    step(second, 20.0, incidents=[ours()], commands=[handed(first, action, ended), LEAD])
    late = step(second, 700.0, incidents=[ours()])
    assert [(o.action, o.status) for o in late.outcomes] == [(action.id, "no_help")] and second.leads
    undo = next(a for a in late.actions if a.state == "undo")
    assert undo.params["undo_of"] == action.id and undo.target == action.target
    assert second.record.of(SIGNATURE, KIND) == Record().after("no_help")
    undone = Outcome(undo.id, "undone", T0 + 710)
    step(second, 715.0, incidents=[ours()], outcomes=[undone], commands=[handed(first, action, ended)])
    assert second.record.of(SIGNATURE, KIND) == Record().after("no_help") and second.ledger.attempts[action.id].undo == "undone"


def test_one_that_follows_judges_nothing():
    """Also what it did itself before another led."""
    first, action, ended = done_by_the_first()
    step(first, 5.0, incidents=[theirs()], outcomes=[Outcome(action.id, "done", T0 + 5)])
    assert step(first, 700.0, incidents=[theirs()], commands=[FOLLOW]).outcomes == ()
    judged = step(first, 715.0, incidents=[theirs()], commands=[LEAD])
    assert [o.status for o in judged.outcomes] == ["no_help"]
    assert ended["status"] == "done"


def test_a_verdict_of_another_is_taken_over_and_counted_once():
    """However often it is told; and it is not judged again."""
    first, action, ended = done_by_the_first()
    second = book()
    step(second, 5.0, incidents=[ours()], commands=[FOLLOW, handed(first, action, ended)])
    step(first, 5.0, incidents=[theirs()], outcomes=[Outcome(action.id, "done", T0 + 5)])
    step(first, 700.0, incidents=[theirs()])
    told = handed(first, action, ended)
    for at in (705.0, 710.0):
        step(second, at, incidents=[ours()], commands=[told])
    assert second.record.of(SIGNATURE, KIND) == first.record.of(SIGNATURE, KIND) == Record().after("no_help")
    assert second.ledger.verdicts("p") and step(second, 715.0, incidents=[ours()], commands=[LEAD]).outcomes == ()


def test_an_undo_that_was_decided_and_perhaps_not_begun_is_asked_for_again():
    """It has the same id: who carries it out finds that it was done, or does it."""
    first, action, ended = done_by_the_first()
    step(first, 5.0, incidents=[theirs()], outcomes=[Outcome(action.id, "done", T0 + 5)])
    [undo] = [a for a in step(first, 700.0, incidents=[theirs()]).actions if a.state == "undo"]
    second = book()
    decided = step(second, 705.0, incidents=[ours()], commands=[handed(first, action, ended), LEAD])
    assert [a.id for a in decided.actions if a.state == "undo"] == [undo.id]
    assert second.record.of(SIGNATURE, KIND) == Record().after("no_help")


@pytest.mark.parametrize(("facts", "firing", "verdict"), [
    (Facts({"http_error_rate": 0.001}, is_clear=True), False, "helped"),
    (Facts({"http_error_rate": 0.5}), True, None),
    (Facts({"http_error_rate": 0.001}, rising=(replace(ERRORS, entity="pod/shop/web-1", signal="cpu"),)), False, "worse")])
def test_it_is_judged_by_what_the_new_leader_sees(facts, firing, verdict):
    """The metric, the alert that asked for it, and the neighbours."""
    first, action, ended = done_by_the_first()
    second = book()
    alerts = (replace(ERRORS, state="firing" if firing else "resolved"),)
    step(second, 20.0, incidents=[ours()], commands=[handed(first, action, ended), LEAD])
    late = step(second, 400.0, facts, incidents=[replace(ours(), alerts=alerts)])
    assert [o.status for o in late.outcomes] == ([verdict] if verdict else [])


def test_what_is_no_longer_seen_by_anybody_is_judged_by_the_metric_or_not_at_all():
    """The new leader never had an incident about it: with a metric that tells, else nobody can know."""
    for spec, verdict in (({}, "helped"), ({"feedback": {"learningEnabled": True}}, "unknown")):
        first, action, ended = done_by_the_first(**spec)
        second = book(policy(**spec))
        step(second, 20.0, incidents=[], commands=[handed(first, action, ended), LEAD])
        facts = Facts({"http_error_rate": 0.001}, is_clear=None)
        assert [o.status for o in step(second, 700.0, facts, incidents=[]).outcomes] == [verdict]


@pytest.mark.parametrize("closed", [True, False])
def test_an_alert_that_we_saw_end_counts_as_ended(closed):
    """It ended here before we heard that something had been done about it; the incident may be open for a while."""
    first, action, ended = done_by_the_first(feedback={"learningEnabled": True})
    second = book(policy(feedback={"learningEnabled": True}))
    step(second, 10.0, Facts(seen=()), incidents=[ours()], commands=[FOLLOW])
    over = replace(ours(), alerts=(replace(ERRORS, state="resolved"),))
    over = replace(over, state="closed", closed_at=T0 + 15) if closed else over
    clear = Facts(seen=(), is_clear=True)
    step(second, 15.0, clear, incidents=[over])
    there = [] if closed else [over]
    step(second, 20.0, clear, incidents=there, commands=[handed(first, action, ended), LEAD])
    assert [o.status for o in step(second, 100.0, clear, incidents=there).outcomes] == ["helped"]
    assert second.ledger.attempts[action.id].incident == over.id


def test_the_same_action_is_not_done_again_for_the_same_evidence_after_a_failover():
    """The onsets that the two saw differ, the evidence does not. With another alert it is new evidence."""
    first, action, ended = done_by_the_first(actions=[{"type": "ScaleUp", "target": {"deployment": "api", "replicas": "+2"}}])
    spec = {"actions": [{"type": "ScaleUp", "target": {"deployment": "api", "replicas": "+2"}}], "guards": {"cooldown": "1s"}}
    second = book(policy(**spec))
    step(second, 20.0, incidents=[ours()], commands=[handed(first, action, ended), LEAD])
    judged = step(second, 700.0, incidents=[ours()])
    [undo] = judged.actions
    over = step(second, 715.0, incidents=[ours()], outcomes=[Outcome(undo.id, "undone", T0 + 710)])
    assert [(a.decision, a.state) for a in over.actions] == [("refused", "exhausted")]
    assert step(second, 730.0, incidents=[ours()]).actions == ()
    more = replace(ours(), alerts=(*ours().alerts, replace(ERRORS, signal="latency", since=T0 + 720)))
    assert [a.decision for a in step(second, 745.0, incidents=[more]).actions] == ["act"]


def test_nobody_sees_a_verdict_without_the_undo_that_it_asks_for():
    """The worker reads beside the step. What looks over is not asked about again: others would never hear of the undo."""
    first, action, _ = done_by_the_first()
    step(first, 5.0, incidents=[theirs()], outcomes=[Outcome(action.id, "done", T0 + 5)])
    put, seen = first.ledger.put, []

    def watched(attempt):
        done = put(attempt)
        seen.append((done.state, done.undo))
        return done
    first.ledger.put = watched
    step(first, 700.0, incidents=[theirs()])
    assert seen == [("no_help", "running")]


@pytest.mark.parametrize(("state", "closed", "again"), [
    ("no_help", False, False), ("no_help", True, True), ("helped", False, True)])
def test_what_fires_when_we_start_may_have_fired_since_before_a_useless_action(state, closed, again):
    """Killed and started again long after it: that we see the alert for the first time is no new evidence. After one that
    helped, and after an incident that was closed, it is."""
    spec = {"actions": [{"type": "ScaleUp", "target": {"deployment": "api", "replicas": "+2"}}], "guards": {"cooldown": "1s"}}
    b = book(policy(**spec))
    [action] = step(b, 0.0, incidents=[theirs()]).actions
    gone = replace(theirs(), alerts=(replace(ERRORS, state="resolved"),))
    facts, there = (Facts({"http_error_rate": 0.001}, is_clear=True), gone) if state == "helped" else (BAD, theirs())
    step(b, 5.0, incidents=[theirs()], outcomes=[Outcome(action.id, "done", T0 + 5)])
    judged = step(b, 700.0, facts, incidents=[there])
    assert [o.status for o in judged.outcomes] == [state]
    step(b, 710.0, facts, incidents=[there], outcomes=[Outcome(a.id, "undone", T0 + 705) for a in judged.actions])
    if closed:
        step(b, 1190.0, incidents=[replace(gone, state="closed", closed_at=T0 + 1190)])
    restarted = book(policy(**spec))
    restarted.restore(json.loads(json.dumps(b.state())))
    late = incident(2, alerts=(replace(ERRORS, since=T0 + 1205),))
    decided = [step(restarted, at, incidents=[i] if i else []).actions for at, i in ((1200.0, None), (1210.0, late))]
    assert ["act" in [a.decision for a in actions if a.state != HANDED] for actions in decided] == [False, again]


def test_cooldowns_and_rates_hold_over_a_failover():
    """What another did to the target counts as done."""
    first, action, ended = done_by_the_first()
    step(first, 5.0, incidents=[theirs()], outcomes=[Outcome(action.id, "done", T0 + 5)])
    over = replace(theirs(), alerts=(replace(ERRORS, state="resolved"),))
    step(first, 100.0, Facts({"http_error_rate": 0.001}, is_clear=True), incidents=[over])
    second = book()
    late = step(second, 200.0, incidents=[incident(7, alerts=(replace(ERRORS, since=T0 + 190),))],
                commands=[handed(first, action, ended), LEAD])
    assert [(a.decision, a.state) for a in late.actions] == [("refused", "cooldown")]
    assert second.ledger.acted("p", T0 - 1, rehearsed=False) == 1


def test_what_was_wanted_here_for_the_same_incident_gives_way():
    """It was never begun: it is decided anew on what becomes of the other."""
    first, action, ended = done_by_the_first()
    second = book()
    step(second, -15.0, incidents=[], commands=[FOLLOW])
    own = acted_ours(second)
    assert second.wanted(own.id)
    decided = step(second, 15.0, incidents=[ours()], commands=[handed(first, action, ended)])
    assert [(o.action, o.status) for o in decided.outcomes] == [(own.id, "refused")]
    assert decided.outcomes[0].reason == f"not now: another replica decided on it: ScaleUp deployment/shop/api {action.id}."
    assert not second.wanted(own.id) and [a.state for a in decided.actions] == [HANDED]


def test_what_we_may_have_begun_ourselves_does_not_give_way():
    """Alone, or as the one that leads, what is decided is done: it must be judged."""
    first, action, ended = done_by_the_first()
    second = book()
    own = acted_ours(second)
    decided = step(second, 15.0, incidents=[ours()], commands=[handed(first, action, ended)])
    assert decided.outcomes == () and second.wanted(own.id)


def test_an_attempt_that_moved_is_found_in_its_new_place_only():
    """By incident, policy and target, and as long as something is to come of it; and counted once."""
    first, action, ended = done_by_the_first()
    second = book()
    step(second, 15.0, incidents=[ours()], commands=[FOLLOW, handed(first, action, ended)])
    ledger = second.ledger
    there = [ledger.of("p", "i-2"), ledger.of_incident("i-2"), ledger.live("incident", "i-2"), ledger.on("p", action.target)]
    assert [[a.id for a in found] for found in there] == [[action.id]] * 4
    assert ledger.of("p", "i-1") == ledger.of_incident("i-1") == ledger.live("incident", "i-1") == []
    again = book()
    again.restore(json.loads(json.dumps(second.state())))
    assert again.ledger.acted("p", 0.0, rehearsed=False) == ledger.acted("p", 0.0, rehearsed=False) == 1


def test_it_is_shown_in_our_incident_and_not_carried_out_here():
    """People see there what was done, and the verdict after it."""
    first, action, ended = done_by_the_first()
    known = IncidentBook()
    known.update(T0, [ours()])
    second = book()
    decided = step(second, 15.0, incidents=[ours()], commands=[FOLLOW, handed(first, action, ended)])
    known.record(T0, decided.actions, decided.outcomes, ())
    [shown] = known.current()[0].actions
    assert (shown.id, shown.state, shown.incident) == (action.id, HANDED, "i-2")
    assert shown.reason.endswith("; by another replica, or before a restart")
    assert [step(second, at, incidents=[ours()]).actions for at in (20.0, 25.0)] == [(), ()]


def acted_ours(b):
    [action] = step(b, 0.0, incidents=[ours()]).actions
    return action


def test_a_daemon_that_was_started_again_judges_what_it_had_done():
    """Its incidents have other names after a restart."""
    b = book()
    [action] = step(b, 0.0, incidents=[theirs()]).actions
    step(b, 5.0, incidents=[theirs()], outcomes=[Outcome(action.id, "done", T0 + 5)])
    again = book()
    again.restore(json.loads(json.dumps(b.state())))
    step(again, 30.0, incidents=[ours()])
    late = step(again, 700.0, incidents=[ours()])
    assert [(o.action, o.status) for o in late.outcomes] == [(action.id, "no_help")]
    assert again.record.of(SIGNATURE, KIND) == Record().after("no_help")


def test_one_of_several_that_was_started_again_waits_until_it_is_told():
    """It may have led when it was killed; another judges by now. Alone it goes on by itself."""
    first, action, _ = done_by_the_first()
    step(first, 5.0, incidents=[theirs()], outcomes=[Outcome(action.id, "done", T0 + 5)], commands=[LEAD])
    again = book()
    again.restore(json.loads(json.dumps(first.state())))
    assert not again.leads and step(again, 900.0, incidents=[]).outcomes == ()
    step(again, 915.0, incidents=[], commands=[Command(T0, "lead", "", "a restart")])
    alone = book()
    alone.restore(json.loads(json.dumps(again.state())))
    assert alone.leads


def test_equal_commands_give_equal_decisions():
    """A replay of what was journalled takes the same over."""
    runs = []
    for _ in range(2):
        first, action, ended = done_by_the_first()
        second = book()
        runs.append([step(second, at, incidents=[ours()], commands=said) for at, said in (
            (0.0, [FOLLOW]), (20.0, [handed(first, action, ended), LEAD]), (700.0, []), (715.0, []))])
    assert runs[0] == runs[1]


def test_only_what_was_handed_over_to_be_done_is_told():
    """Rehearsals and open questions are everybody's own."""
    for spec in ({"mode": "shadow"}, {"mode": "ask"}):
        b = book(policy(**spec))
        [action] = step(b).actions
        assert b.about(action.id) is None
    b = book()
    assert b.about(acted(b, BAD).id) is not None and b.about("a-unknown") is None
