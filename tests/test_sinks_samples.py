"""Realistic incidents for the tests of sinks and page; the sentences made from them are checked here."""

from __future__ import annotations

from dataclasses import replace

from aiops import serial, story
from aiops.types import Action, Alert, Cause, Impact, Incident, Outcome, Reason, TimelineEntry

T0 = 1_772_000_000.0
API, NODE, DB = "deployment/shop/api", "node//gpu-3", "pod/shop/db-0"


def alert(entity: str = API, signal: str = "http_error_rate", p: float = 1e-9, **changes: object) -> Alert:
    base = Alert(f"{entity}|{signal}", entity, signal, "firing", T0 - 120, T0, 0.99, p, 20.0, ("baseline",), "critical",
                 0.21, 0.008, 0.005, 0.012, "ratio", "up")
    return replace(base, **changes)  # type: ignore[arg-type]


def incident(name: str = "i-1", **changes: object) -> Incident:
    causes = (Cause(DB, 0.74, ("memory_usage",), (Reason("began 45 s before everything else", 0.41),
                                                  Reason("3 of 4 symptoms depend on it", 0.33))),
              Cause(API, 0.26, ("http_error_rate",), (Reason("rolled out 2 h ago", -0.05),)))
    base = Incident(name, T0, T0, "open", "critical", (API, DB), (alert(), alert(DB, "memory_usage", 1e-12, value=8.1e9,
                    expected=2.1e9, lower=1.9e9, upper=2.4e9, unit="bytes")), causes, Impact(("service/shop/web",), 2.0),
                    timeline=(TimelineEntry(T0, "opened", "2 signals"),))
    return replace(base, **changes)  # type: ignore[arg-type]


def asked(**changes: object) -> Action:
    base = Action("a-1", "Restart", DB, {}, "i-1", "restart-leaking", "ask", "memory grew for 20 min", T0 + 30)
    return replace(base, **changes)  # type: ignore[arg-type]


def test_headline_says_what_broke_at_the_suspected_cause() -> None:
    """The suspected cause's own signal is named, with value and band in readable units."""
    assert story.headline(serial.incident(incident())) == \
        "pod shop/db-0: memory_usage is 7.54 GiB (expected 1.77 GiB to 2.24 GiB)"


def test_sentences_cope_with_what_is_not_known() -> None:
    """No numbers, no alerts, one bound only: still a sentence."""
    bare = alert(value=float("nan"), text="log template never seen before")
    assert story.level(serial.alert(bare)) == "log template never seen before"
    assert story.level(serial.alert(alert(lower=float("nan"), expected=float("nan")))) == "21 % (expected below 1.2 %)"
    assert story.headline(serial.incident(incident(alerts=(), causes=(), entities=("node//a",)))) == "node//a"


def test_a_closed_incident_says_that_the_signal_is_back() -> None:
    """Within its band again it is back; closed for another reason it is told how bad it was."""
    back = alert(DB, "memory_usage", 1e-12, value=2.2e9, expected=2.1e9, lower=1.9e9, upper=2.4e9, unit="bytes", state="resolved")
    closed = serial.incident(incident(alerts=(back,), state="closed", closed_at=T0 + 60))
    assert story.headline(closed) == "pod shop/db-0: memory_usage is back at 2.05 GiB (expected 1.77 GiB to 2.24 GiB)"
    assert story.headline(serial.incident(incident(state="closed", closed_at=T0))) == (
        "pod shop/db-0: memory_usage was 7.54 GiB (expected 1.77 GiB to 2.24 GiB)")


def test_an_alert_of_others_is_called_by_its_name() -> None:
    """It has no value, and fires."""
    theirs = alert(DB, "alert:DiskFull", 1e-3, text="it goes off by habit: 7 times in 8 hours")
    assert story.headline(serial.incident(incident(alerts=(theirs,)))) == "pod shop/db-0: DiskFull is firing"
    assert story.headline(serial.incident(incident(alerts=(theirs,), state="closed"))) == "pod shop/db-0: DiskFull fired"


def test_what_is_nothing_beside_the_value_is_zero() -> None:
    """Nobody wants to read 3.75e-18."""
    lines = alert(DB, "log_error_lines", 1e-9, value=8.0, expected=1e-20, lower=0.0, upper=3.75e-18, unit="lines")
    told = story.headline(serial.incident(incident(alerts=(lines,))))
    assert told == "pod shop/db-0: log_error_lines is 8 lines (expected 0 lines)"


def test_who_fell_silent_is_said_to_be_silent() -> None:
    """And not that his 'absent' was abnormal."""
    text = "silent for 26 s; it used to report every 5 s"
    nan = float("nan")
    quiet = alert(DB, "absent", 1e-5, value=nan, expected=nan, lower=nan, upper=nan, text=text)
    form = serial.incident(incident(alerts=(quiet,)))
    assert story.headline(form) == f"pod shop/db-0: {text}"
    assert story.headline({**form, "state": "closed"}) == "pod shop/db-0: was silent"


def test_durations_count_from_the_beginning_not_from_the_opening() -> None:
    """The signals were wrong two minutes before the incident was opened."""
    form = serial.incident(incident())
    assert story.since(form, T0 + 60).endswith("UTC (3 min)")
    closed = serial.incident(incident(state="closed", closed_at=T0 + 480))
    assert story.since(closed, T0 + 9999).endswith("(10 min)")


def test_only_an_open_question_waits_for_an_answer() -> None:
    """An action can be approved while the incident is open and nothing came of it yet."""
    form = serial.incident(incident(actions=(asked(),)))
    assert story.waits(form, form["actions"][0])
    for answered in (incident(actions=(asked(),), outcomes=(Outcome("a-1", "done", T0 + 60),)),
                     incident(actions=(asked(),), state="closed", closed_at=T0 + 60),
                     incident(actions=(asked(state="rejected"),)), incident(actions=(asked(decision="shadow"),))):
        form = serial.incident(answered)
        assert not story.waits(form, form["actions"][0])
