"""The console says each thing once, and the daemon's metrics follow the conventions."""

from __future__ import annotations

import io
import json

from prometheus_client.parser import text_string_to_metric_families
from test_sinks_samples import T0, asked, incident

from aiops.sinks.console import Console
from aiops.sinks.metrics import Metrics
from aiops.types import Cause, Counts, Outcome, Report


def story() -> list[Report]:
    one = incident()
    other = incident(causes=(Cause("node//gpu-3", 0.9, (), ()),))
    return [
        Report(T0, incidents=(one,)), Report(T0 + 15, incidents=(one,)),
        Report(T0 + 30, incidents=(other,), actions=(asked(),)),
        Report(T0 + 60, outcomes=(Outcome("a-1", "helped", T0 + 60, "back to 0.8 %"),), notes=("re-learning 3 signals",)),
        Report(T0 + 90, incidents=(incident(state="closed", closed_at=T0 + 90, updated_at=T0 + 90),)),
    ]


def test_each_thing_is_said_once_as_json() -> None:
    """Opened, changed, decided, turned out, noted, closed: six lines for five reports."""
    stream = io.StringIO()
    console = Console(stream)
    for report in story():
        console.publish(report)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines] == [
        "incident opened", "incident changed", "decision ask", "outcome helped", "note", "incident closed"]
    assert lines[0]["at"] == "2026-02-25T06:13:20.000Z"
    assert lines[1]["cause"] == "node//gpu-3"


def test_lines_for_people_are_plain_sentences() -> None:
    """Time, event, incident, sentence; no colour codes where the stream is no terminal."""
    stream = io.StringIO()
    console = Console(stream, as_json=False)
    for report in story():
        console.publish(report)
    first = stream.getvalue().splitlines()[0]
    assert first == ("06:13:20  incident opened   i-1        P4 pod shop/db-0: memory_usage is 7.54 GiB "
                     "(expected 1.77 GiB to 2.24 GiB) - probable cause pod shop/db-0 (74%)")


def test_a_name_cannot_move_the_cursor() -> None:
    """Escape sequences, new lines and markup from outside are shown, not obeyed."""
    stream = io.StringIO()
    evil = "pod/x/\x1b[2J\n[red]a"
    named = incident(alerts=(), causes=(), entities=(evil,))
    Console(stream, as_json=False).publish(Report(T0, incidents=(named,), notes=(evil,)))
    assert "\x1b" not in stream.getvalue()
    assert stream.getvalue().count("\n") == 2
    assert "[red]a" in stream.getvalue()


def test_a_closed_stream_does_not_stop_the_daemon() -> None:
    """stderr may be gone."""
    stream = io.StringIO()
    console = Console(stream)
    stream.close()
    console.publish(story()[0])


def test_metrics_follow_the_totals() -> None:
    """The page shows what the reports said, under names that Prometheus conventions ask for."""
    metrics = Metrics("1.2.3")
    counts = Counts(batches=7, samples=700, incidents=2, series=50, signals=40, ready=38, dropped={"late": 3})
    metrics.publish(Report(T0, incidents=(incident("a"), incident("b")), actions=(asked(),), counts=counts))
    closed = incident("a", state="closed")
    ended = Report(T0 + 1, incidents=(closed,), outcomes=(Outcome("a-1", "helped", T0),), counts=counts)
    metrics.publish(ended)
    metrics.step(0.02)
    metrics.source("prometheus", False)
    found = {(s.name, tuple(sorted(s.labels.items()))): s.value
             for family in text_string_to_metric_families(metrics.text()) for s in family.samples}
    expected = {
        ("aiops_build_info", (("version", "1.2.3"),)): 1, ("aiops_batches_total", ()): 7, ("aiops_samples_total", ()): 700,
        ("aiops_incidents_total", ()): 2, ("aiops_incidents_open", ()): 1, ("aiops_series", ()): 50, ("aiops_ready", ()): 38,
        ("aiops_dropped_samples_total", (("reason", "late"),)): 3, ("aiops_source_up", (("source", "prometheus"),)): 0,
        ("aiops_step_seconds_count", ()): 1, ("aiops_outcomes_total", (("status", "helped"),)): 1,
        ("aiops_decisions_total", (("decision", "ask"), ("type", "Restart"))): 1,
    }
    assert {k: found[k] for k in expected} == expected


def test_two_daemons_in_one_process_do_not_share_metrics() -> None:
    """No global registry: constructing twice works and counts apart."""
    first, second = Metrics("1"), Metrics("1")
    first.publish(Report(T0, counts=Counts(batches=5)))
    assert "aiops_batches_total 5.0" in first.text()
    assert "aiops_batches_total 0.0" in second.text()
