"""An incident in ten lines: what each says in each state of things, and that nothing is made up."""

from __future__ import annotations

from dataclasses import replace

from helpers import T0, alert

from aiops import serial
from aiops.account import LONGEST, account
from aiops.types import (
    Action,
    Cause,
    Impact,
    Incident,
    Outcome,
    Priority,
    Reason,
    Recurrence,
    Seen,
)

API, DB = "service/shop/api", "service/shop/db"
ACTION = Action("a-1", "Restart", "deployment/shop/db", {}, "inc-1", "failing-service", "act",
                "cause.kind == 'service' && correlation.http_error_rate > 0.05 is true "
                "(cause.kind = 'service', correlation.http_error_rate = 0.31)", T0 + 15)
BASE = Incident(
    "inc-1", T0 + 10, T0 + 130, "open", "critical", (API, DB),
    (alert(f"{DB} http_error_rate", value=0.31, lower=0.0, upper=0.02, unit="ratio"),
     alert(f"{API} http_latency", since=T0 + 30)),
    (Cause(DB, 0.7, ("http_error_rate",), (Reason("http_error_rate is 31 %, expected 1 %", 4.0),
                                           Reason("changed 4 s before", 1.5))),
     Cause(API, 0.2, ("http_latency",), (Reason("http_latency is 2 s", 2.0),
                                         Reason(f"explained by {DB}, which turned bad 30 s earlier", -1.2)))),
    Impact((API,), 3.0, 2.0, 120.0),
    priority=Priority("P1", 5.3, (Reason("it is critical", 3.0), Reason("the most critical has criticality 2", 1.0))),
    before=Recurrence(2, 2, (Seen("inc-0", T0 - 3600, 60.0, (("Restart", "helped"),)),)))


def told(**change):
    return dict(account(serial.incident(replace(BASE, **change)), T0 + 130))


def test_the_ten_lines():
    """Word for word: this is what somebody reads at three in the morning."""
    assert account(serial.incident(replace(BASE, actions=(ACTION,))), T0 + 130) == [
        ("What", "service shop/db: http_error_rate is 31 % (expected 0 % to 2 %)"),
        ("Since", "2001-09-09 01:46:40 UTC (2 min), not over yet; 2 signals on 2 entities"),
        ("Who is hurt", "service shop/api depends on it; the busiest of them usually gets 120 requests/s"),
        ("Priority", "P1: it is critical (+3.00); the most critical has criticality 2 (+1.00); 5.30 in all"),
        ("Cause", "service shop/db (70%): http_error_rate is 31 %, expected 1 % (+4.00); changed 4 s before (+1.50)"),
        ("Why not", "service shop/api (20%): explained by service shop/db, which turned bad 30 s earlier (-1.20)"),
        ("Done", "01:46:55 did Restart deployment shop/db (failing-service, because http_error_rate = 0.31)"),
        ("Before", "the third like it in 7 days; on 2001-09-09 Restart helped"),
        ("Now", "wait: whether Restart helps is being watched")]


def test_what_came_of_it():
    """Helped; did not help, so that a person is needed; all quiet again; over."""
    def after(status, **more):
        return told(actions=(ACTION,), outcomes=(Outcome("a-1", status, T0 + 60, "errors were 0.2"),), **more)
    assert after("helped")["Result"] == "Restart helped: errors were 0.2"
    assert after("no_help")["Result"] == "Restart did not help: errors were 0.2"
    assert after("no_help")["Now"] == "what was done did not end it, and a person is needed: begin with service shop/db"
    quiet = tuple(replace(a, state="resolved") for a in BASE.alerts)
    assert after("helped", alerts=quiet)["Now"] == "wait: nothing deviates any more, and it is over when it stays so"
    over = after("helped", alerts=quiet, state="closed", closed_at=T0 + 120, before=Recurrence())
    assert over["Now"] == "nothing to do; was it worth telling? 'aiops feedback inc-1 --useful' or '--false-alarm'"
    assert over["Since"] == "from 2001-09-09 01:46:40 UTC to 01:48:40 UTC (2 min), over; 2 signals on 2 entities"


def test_what_keeps_coming_back():
    """Over is not done when it was here twice in the same week."""
    assert told(state="closed", closed_at=T0 + 120)["Now"] == (
        "it is over, and the like was here before: what ended it did not last. Look for the reason in service shop/db")


def test_a_question_and_what_becomes_of_it():
    """Who is asked is told how to answer; what nobody answered was not done."""
    asked = replace(ACTION, decision="ask", state="asked")
    lines = told(actions=(asked,))
    assert lines["Done"].startswith("01:46:55 asked whether to Restart deployment shop/db")
    assert lines["Now"] == "answer: 'aiops approve a-1' or 'aiops reject a-1'"
    lines = told(actions=(asked,), outcomes=(Outcome("a-1", "refused", T0 + 60, "nobody approved"),))
    assert lines["Result"] == "Restart was not done: nobody approved"
    assert lines["Now"] == "nothing is being done by itself; a person is needed: begin with service shop/db"


def test_why_nothing_was_done():
    """No policy; a condition with its figures; a guard beside what was done; rehearsed only."""
    assert told()["Done"] == "nothing; no policy is for this"
    unmet = replace(ACTION, id="a-2", decision="refused", state="condition", reason=(
        "no condition met: Restart: correlation.ooms > 0 is false (correlation.ooms = 0)"))
    said = "nothing; Restart (failing-service) was refused: its condition does not hold: ooms = 0"
    assert told(actions=(unmet,))["Done"] == said
    guard = replace(ACTION, id="a-3", type="Rollback", policy="bad-deploy", decision="refused", state="cooldown",
                    reason="the cooldown of 10 min is not over")
    done = told(actions=(ACTION, guard, replace(unmet, policy="other")))["Done"]
    assert done.endswith("; Rollback (bad-deploy) was refused: the cooldown of 10 min is not over")
    shadow = told(actions=(replace(ACTION, decision="shadow"),))
    assert "would have done (only rehearsed) Restart" in shadow["Done"]


def test_why_not_the_next():
    """Something against it; nothing against it but less for it; nearly as likely; nobody else; no cause at all."""
    first, second = BASE.causes
    assert told(causes=(first,))["Why not"] == "nobody else that could be the cause deviates"
    weak = replace(second, reasons=second.reasons[:1])
    assert told(causes=(first, weak))["Why not"] == (
        "service shop/api (20%): less speaks for it, 2.00 against 5.50; above all http_latency is 2 s (+2.00)")
    assert "is nearly as likely" in told(causes=(first, replace(second, score=0.65)))["Why not"]
    none = told(causes=(), impact=Impact(), before=Recurrence())
    assert "Why not" not in none
    assert (none["Cause"], none["Who is hurt"], none["Before"]) == (
        "no candidate stands out", "nobody who depends on it is known", "nothing like it is remembered")


def test_many_and_long():
    """Names are counted, texts cut, never more than ten lines."""
    hurt = tuple(f"service/shop/s{k}" for k in range(9))
    lines = told(impact=Impact(hurt, 9.0), actions=(replace(ACTION, reason="x" * 5000),),
                 outcomes=(Outcome("a-1", "failed", T0 + 60, "y\n" * 4000),),
                 causes=(replace(BASE.causes[0], reasons=(Reason("z" * 999, 1.0), Reason("w" * 999, -1.0))), BASE.causes[1]))
    assert lines["Who is hurt"] == "service shop/s0, service shop/s1, service shop/s2, service shop/s3 and 5 more depend on it"
    assert len(lines) == 10
    assert max(map(len, lines.values())) <= LONGEST
    assert lines["Cause"].endswith("(-1.00)")


def test_forms_of_earlier_versions():
    """What the store has of before knows no priority and no memory: these lines are left out, the rest is told."""
    form = serial.incident(BASE)
    for key in ("priority", "before"):
        del form[key]
    form["impact"] = {"entities": [API], "weight": 1.0}
    lines = dict(account(form, T0 + 130))
    assert "Priority" not in lines and "Before" not in lines
    assert lines["Who is hurt"] == "service shop/api depends on it"
    stopped = {"at": T0 + 100, "kind": "interrupted", "text": "x"}
    closed = {**form, "state": "closed", "closed_at": T0 + 100, "timeline": [stopped]}
    assert "the daemon was restarted meanwhile" in dict(account(closed, T0 + 130))["Since"]
