"""People in the loop: so many of them, by name, with the parameters that they want, in the time that they have."""

from __future__ import annotations

import json
import re

import pytest
from test_policy_decide import BAD, T0, Facts, book, incident, policy, step
from test_web import ask, serving  # noqa: F401 - the fixture

from aiops import cli, serial
from aiops.incidents import IncidentBook
from aiops.types import Command

BOTH = Facts({"http_error_rate": 0.9, "container_restarts": 9.0})


def asking(**guards):
    return book(policy(mode="ask", guards=guards))


def answer(b, action, by, at=15.0, verb="approve", facts=BAD, **params):
    return step(b, at, facts, commands=[Command(T0 + at, verb, action.id, by, params=params)])


def asked(b, facts=BAD):
    [action] = step(b, facts=facts).actions
    assert (action.decision, action.state, action.answers) == ("ask", "asked", ())
    return action


def test_two_different_people_must_approve():
    """Who approves twice counts once; the question says how far it is."""
    b = asking(approvals=2)
    first = asked(b)
    [waits] = answer(b, first, "anna").actions
    assert (waits.id, waits.decision, waits.state) == (first.id, "ask", "asked")
    assert waits.reason == f"{first.reason}; 1 of 2 approvals so far: anna"
    again = answer(b, first, "anna", 30.0)
    assert again.actions == ()
    assert again.notes == (f"approve {first.id} by anna: has approved it already; somebody else has to.",)
    [acts] = answer(b, first, "ben", 45.0).actions
    assert (acts.decision, acts.state, acts.reason) == ("act", "approved by anna and ben", first.reason)
    assert acts.answers == ("13:46:55 UTC: anna approved", "13:47:25 UTC: ben approved")


def test_one_is_enough_to_reject():
    """Whoever has approved before."""
    b = asking(approvals=3)
    first = asked(b)
    answer(b, first, "anna")
    [no] = answer(b, first, "ben", 30.0, verb="reject").actions
    assert (no.decision, no.state, no.reason) == ("refused", "rejected", "rejected by ben")


def test_half_the_approvals_expire_with_the_question():
    """From when it was asked first."""
    b = asking(approvals=2, approvalWithin="10m")
    first = asked(b)
    answer(b, first, "anna", 500.0)
    expired = step(b, 600.0)
    assert [(o.action, o.reason) for o in expired.outcomes] == [(first.id, "nobody approved within 10m")]
    assert answer(b, first, "ben", 615.0).actions == ()


def test_another_parameter_is_what_is_done():
    """Checked as in a policy; who changed what is on record, and what nobody changed stays."""
    b = asking()
    first = asked(b)
    [acts] = answer(b, first, "anna", replicas="+1").actions
    assert dict(acts.params) == {"replicas": "+1", "max": 20}
    assert acts.answers == ('13:46:55 UTC: anna changed replicas "+2" -> "+1"', "13:46:55 UTC: anna approved")
    assert acts.target == "deployment/shop/api"


def test_a_change_voids_what_others_approved():
    """They approved something else."""
    b = asking(approvals=2)
    first = asked(b)
    answer(b, first, "anna")
    [waits] = answer(b, first, "ben", 30.0, replicas="+1").actions
    assert waits.reason.endswith("; 1 of 2 approvals so far: ben")
    [acts] = answer(b, first, "anna", 45.0).actions
    assert (acts.decision, acts.state, acts.params["replicas"]) == ("act", "approved by ben and anna", "+1")


@pytest.mark.parametrize(("params", "said"), [
    ({"replicas": "-3"}, "'-3' is no way to scale up"), ({"replica": 3}, "unknown key 'replica'. Did you mean 'replicas'?"),
    ({"max": 0}, "greater than or equal to 1"), ({"deployment": "other"}, "deployment stays deployment/shop/api"),
    ({"statefulset": "other"}, "exactly one of deployment, statefulset is needed"),
    ({"replicas": "${cause.name}"}, "no way to scale")])
def test_what_cannot_be_is_said_and_the_question_stays(params, said):
    """Nothing is done, and somebody may approve it as it was asked."""
    b = asking()
    first = asked(b)
    answered = answer(b, first, "anna", **params)
    assert answered.actions == ()
    assert said in answered.notes[0], answered.notes
    with pytest.raises(ValueError, match=re.escape(said)):
        b.altered(first.id, params)
    assert answer(b, first, "anna", 30.0).actions[0].decision == "act"


def test_pods_that_are_selected_stay_selected_and_the_limit_of_the_policy_stays():
    """A restart has nothing to change but its target, which stays."""
    restart = {"type": "Restart", "target": {"pod": "selector:app=api"}}
    b = book(policy(mode="ask", actions=[restart], guards={"maxUnavailable": 2}))
    first = asked(b)
    assert b.altered(first.id, {}) == {"max_unavailable": 2}
    for params in ({"max_unavailable": 99}, {"pod": "selector:app=other"}):
        assert answer(b, first, "anna", **params).actions == ()


def test_guards_are_asked_again_with_the_last_approval():
    """Hours may lie between the first and the last one."""
    b = asking(approvals=2)
    first = asked(b)
    answer(b, first, "anna")
    [late] = answer(b, first, "ben", 600.0, facts=Facts(BAD.values, age_s=301.0), replicas="+1").actions
    assert late.decision == "ask"
    [late] = answer(b, first, "carl", 615.0, facts=Facts(BAD.values, age_s=316.0)).actions
    assert late.decision == "refused"
    assert late.reason.startswith("approved by ben and carl, but the newest evidence is 5m16s old")


def test_answers_outlast_a_restart_and_are_replayed():
    """Equal commands give equal decisions, from what was saved too."""
    b = asking(approvals=2)
    first = asked(b)
    answer(b, first, "anna", replicas="+1")
    again = asking(approvals=2)
    again.restore(json.loads(json.dumps(b.state())))
    one, two = (answer(x, first, "ben", 30.0).actions for x in (b, again))
    assert one == two and one[0].decision == "act" and one[0].params["replicas"] == "+1"


def test_the_answers_are_in_the_incident():
    """For the page and `aiops show`; who is asked nothing has none."""
    b, known = asking(approvals=2), IncidentBook()
    known.update(T0, [incident()])
    first = asked(b)
    known.record(T0, [first], (), ())
    assert "answers" not in serial.incident(known.current()[0])["actions"][0]
    known.record(T0, answer(b, first, "anna").actions, (), ())
    [action] = serial.incident(known.current()[0])["actions"]
    assert action["answers"] == ["13:46:55 UTC: anna approved"]
    assert known.current()[0].timeline[-1].text.endswith("1 of 2 approvals so far: anna")


def test_the_command_line_says_who_and_what(ask, capsys):  # noqa: F811 - the fixture
    """And reads numbers as numbers, but not +1."""
    url = ask.server.url
    assert cli.main(["approve", "act-7f21-2", "--by", "anna", "--set", "replicas=+1", "--set", "max=6", "--server", url]) == 0
    assert capsys.readouterr().out == "approved act-7f21-2 with replicas=+1, max=6\n"
    assert ask.view.said == [("approve", "act-7f21-2", "anna"), ("set", "replicas='+1'", "max=6")]
    assert cli.main(["approve", "act-7f21-2", "--set", "replicas", "--server", url]) == 2
    assert "is not NAME=VALUE" in capsys.readouterr().err


def test_the_page_and_show_list_the_answers(ask, capsys):  # noqa: F811 - the fixture
    """As they came, escaped."""
    form = ask.view.incident("inc-7f21")
    next(a for a in form["actions"] if a["id"] == "act-7f21-2")["answers"] = ["13:46:55 UTC: <b>anna</b> approved"]
    page = ask("/incidents/inc-7f21")[1]
    assert "<li>13:46:55 UTC: &lt;b&gt;anna&lt;/b&gt; approved</li>" in page
    assert cli.main(["show", "inc-7f21", "--server", ask.server.url]) == 0
    assert "anna" in capsys.readouterr().out


@pytest.mark.parametrize("body", [{"set": {"replicas": ["x"]}}, {"set": {"replicas": None}}, {"by": "x" * 101}, {"sett": {}}])
def test_a_body_that_is_none_is_refused(ask, body):  # noqa: F811 - the fixture
    """422, and nothing is approved."""
    assert ask("/api/actions/act-7f21-2/approve", "POST", body)[0] == 422
    assert ask.view.said == []
