"""What `make bench-rca` counts."""

from __future__ import annotations

from dataclasses import replace

from helpers import T0, alert, graph

from aiops.types import Cause, Incident
from benchmarks.rca import MISSED, Row, best, line, rank, windows


def incident(name: str, *since: float, causes=()) -> Incident:
    alerts = tuple(replace(alert("service//a x"), since=T0 + s) for s in since)
    named = tuple(Cause(e, 0.5, (), ()) for e in causes)
    return Incident(name, T0, T0, "open", "warning", ("service//a",), alerts, named)


def test_an_alert_belongs_to_the_fault_in_whose_time_it_began():
    """From a minute before a fault until five after, or a minute before the next."""
    faults = [{"start": 1000.0, "end": 1300.0}, {"start": 1400.0, "end": 1500.0}]
    assert windows(faults) == [(940.0, 1340.0), (1340.0, 1800.0)]


def test_the_incident_with_most_alerts_inside_is_taken():
    """Of equals the one that has fewer outside."""
    few, many, wide = incident("few", 1), incident("many", 1, 2), incident("wide", 1, 2, 900)
    assert best([few, wide, many], T0, T0 + 10) is many
    assert best([few], T0 + 100, T0 + 200) is None


def test_pods_count_as_their_service_once():
    """The second service is second, however many pods of the first are named before it."""
    found = incident("i", 1, causes=("pod//a-1", "service//a", "service//b"))
    g = graph("service//a owns pod//a-1")
    assert [rank(found, f"service//{s}", g) for s in "abc"] == [1, 2, MISSED]
    assert rank(None, "service//a", g) == MISSED


def test_no_incident_is_a_miss():
    """One first, one third, one without: a third, two thirds, two thirds."""
    rows = [Row("r", "1", 1, "i"), Row("r", "2", 3, "i"), Row("r", "3", MISSED, "")]
    assert line("x", rows).split()[1:6] == ["3", "0.333", "0.667", "0.667", "1"]
