"""Change windows of policies: in the wall time of a place, over midnight and over the change of clocks."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from test_policy_decide import BAD, Facts, book, incident, policy

from aiops import yamlfile
from aiops.meaning import shipped
from aiops.policy import testing
from aiops.policy.load import compile_document
from aiops.types import Anomaly, Command, Outcome
from aiops.yamlfile import Document

OFFICE = {"days": ["mon-fri"], "from": "09:00", "to": "17:00", "timezone": "Europe/Berlin"}


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def decided(b, moment, commands=(), outcomes=()):
    now = at(moment)
    facts = Facts(BAD.values, seen=(Anomaly(now, "pod/shop/api-7d4", "http_error_rate", 0.99, 1e-6, "baseline", 3),))
    return b.decide(now, [incident(opened_at=now)], facts, outcomes, commands)


def decision(moment, **guards):
    """What a policy with these guards does at that moment (UTC)."""
    [action] = decided(book(policy(guards=guards)), moment).actions
    return action.decision


@pytest.mark.parametrize(("moment", "may"), [
    ("2026-11-23T08:30", True), ("2026-11-23T07:30", False), ("2026-11-23T16:30", False), ("2026-11-22T12:00", False),
    ("2026-07-06T07:30", True), ("2026-07-06T15:30", False)])
def test_only_while_people_are_at_work(moment, may):
    """Nine to five in Berlin, on working days: an hour earlier by UTC in winter than in London, two in summer."""
    assert decision(moment, windows=[OFFICE]) == ("act" if may else "refused")


@pytest.mark.parametrize(("moment", "may"), [
    ("2026-03-29T00:30", False), ("2026-03-29T01:30", True), ("2026-03-29T02:30", False),
    ("2026-10-25T00:30", True), ("2026-10-25T01:30", True), ("2026-10-25T02:30", True), ("2026-10-25T03:30", False)])
def test_the_hour_that_is_lost_and_the_one_that_comes_twice(moment, may):
    """02:00 to 04:00 on a Sunday in Berlin lasts one hour in spring and three in autumn."""
    night = {"days": ["Sun"], "from": "02:00", "to": "04:00", "timezone": "Europe/Berlin"}
    assert decision(moment, windows=[night]) == ("act" if may else "refused")
    assert decision(moment, notDuring=[night]) == ("refused" if may else "act")


def test_a_window_over_midnight_and_one_of_several():
    """Friday night reaches into Saturday; without days it is every day, without a zone it is UTC."""
    nights = {"days": ["fri"], "from": "22:00", "to": "06:00"}
    noon = {"from": "12:00", "to": "13:00"}
    found = [decision(t, windows=[nights, noon]) for t in ("2026-11-21T05:00", "2026-11-21T12:30", "2026-11-21T23:00")]
    assert found == ["act", "act", "refused"]


def test_a_freeze_is_stronger_than_a_window():
    """Once, from a moment to a moment."""
    freeze = {"from": "2026-11-23T00:00Z", "to": "2026-11-24T00:00Z"}
    [action] = decided(book(policy(guards={"windows": [OFFICE], "notDuring": [freeze]})), "2026-11-23T10:00").actions
    assert (action.decision, action.state) == ("refused", "window")
    assert action.reason == "guards.notDuring: 2026-11-23T00:00:00Z to 2026-11-24T00:00:00Z"
    assert decision("2026-11-24T10:00", windows=[OFFICE], notDuring=[freeze]) == "act"


def test_what_waits_for_the_morning_is_done_then():
    """It is said once why it waits, and looked at again in each step."""
    b = book(policy(guards={"windows": [OFFICE]}))
    [night] = decided(b, "2026-11-23T03:00").actions
    assert night.reason == "outside guards.windows (Mon,Tue,Wed,Thu,Fri 09:00-17:00 Europe/Berlin)"
    assert decided(b, "2026-11-23T04:00").actions == ()
    assert [a.decision for a in decided(b, "2026-11-23T08:00").actions] == ["act"]


def test_an_approval_after_closing_time_is_refused_and_undoing_is_not():
    """Nobody is kept from putting back what did not help."""
    b = book(policy(mode="ask", guards={"windows": [OFFICE]}))
    [asked] = decided(b, "2026-11-23T15:50").actions
    [late] = decided(b, "2026-11-23T16:10", [Command(0.0, "approve", asked.id, "anna")]).actions
    assert (late.decision, late.reason[:38]) == ("refused", "approved by anna, but outside guards.w")
    b = book(policy(guards={"windows": [OFFICE]}))
    [done] = decided(b, "2026-11-23T15:55").actions
    decided(b, "2026-11-23T15:56", outcomes=[Outcome(done.id, "done", at("2026-11-23T15:56"))])
    [undo] = [a for a in decided(b, "2026-11-23T16:30").actions if a.state == "undo"]
    assert undo.decision == "act"


@pytest.mark.parametrize(("window", "said"), [
    ({"from": "9:00", "to": "17:00"}, "is no weekly window"), ({"from": "09:00", "to": "09:00"}, "has no length"),
    ({"days": ["monday"], "from": "09:00", "to": "17:00"}, "days[0]"),
    ({"days": ["mox"], "from": "09:00", "to": "17:00"}, "no day"),
    ({"from": "09:00", "to": "17:00", "timezone": "Berlin"}, "no time zone 'Berlin'"), ({"from": "09:00"}, "to"),
    ({"from": "2026-11-23T00:00", "to": "2026-11-24T00:00Z"}, "names no time zone"),
    ({"from": "2026-11-25T00:00Z", "to": "2026-11-24T00:00Z"}, "'to' is not later"),
    ({"days": ["mon"], "from": "2026-11-23T00:00Z", "to": "2026-11-24T00:00Z"}, "leave out days")])
def test_what_is_no_window_is_said_at_its_place(window, said):
    """With the remedy."""
    data = {"apiVersion": "aiops.io/v1", "kind": "RemediationPolicy", "metadata": {"name": "p"}, "spec": {
        "trigger": {"type": "Incident"}, "actions": [{"type": "Restart", "target": {"pod": "api-0"}}],
        "guards": {"windows": [window]}}}
    problems = []
    assert compile_document(Document("p.yaml", data, {}), shipped(), problems) is None
    assert any("$.spec.guards.windows[0]" in str(p) and said in str(p) for p in problems), problems


def test_a_policy_test_may_say_when_it_happens():
    """Or it could not tell a window from none."""
    cases = [{"name": name, "at": moment, "correlation": {"http_error_rate": 0.9}, "expect": {"decision": want}}
             for name, moment, want in (("day", "2026-11-23T10:00Z", "act"), ("night", "2026-11-23T20:00Z", "refused"))]
    results = testing.run([policy(guards={"windows": [OFFICE]}, tests=cases)])
    assert [r.wrong for r in results] == ["", ""]


def test_yaml_reads_times_and_dates_as_people_write_them(tmp_path):
    """Quoted or not."""
    (tmp_path / "p.yaml").write_text("{from: 09:00, to: '17:00'}\n")
    [document] = yamlfile.read(tmp_path / "p.yaml")
    assert decision("2026-11-23T10:00", windows=[document.data]) == "act"
    (tmp_path / "p.yaml").write_text("{from: 2026-11-23T00:00:00Z, to: 2026-11-24T00:00:00Z}\n")
    [document] = yamlfile.read(tmp_path / "p.yaml")
    assert decision("2026-11-23T10:00", notDuring=[document.data]) == "refused"
