"""A recording through the same pipeline as live telemetry: same input, config and version, same verdicts, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiops import serial
from aiops.interfaces import Actuator, Clock, Sink
from aiops.loop import advance, with_outcomes
from aiops.pipeline import Pipeline
from aiops.types import Batch, Counts, Incident, Report


@dataclass
class Result:
    """What a replay found."""

    fixture: str
    started_at: float
    ended_at: float
    counts: Counts
    incidents: dict[str, Incident] = field(default_factory=dict)
    assigned: dict[int, str] = field(default_factory=dict)
    digest: str = ""
    models: tuple[str, ...] = ()

    def add(self, report: Report) -> None:
        """Take in one step's report."""
        self.ended_at, self.counts, self.models = report.at, report.counts, report.models
        self.incidents.update((i.id, i) for i in report.incidents)
        self.assigned.update(report.assigned)

    def incident_of(self, index: int) -> str | None:
        """Where a raw alert is now: of what was merged, the incident that goes on."""
        name = self.assigned.get(index)
        while name and name in self.incidents and self.incidents[name].merged_into:
            name = self.incidents[name].merged_into
        return name

    def json(self) -> dict[str, Any]:
        """The document of `aiops replay --json`."""
        c = self.counts
        incidents = sorted(self.incidents.values(), key=lambda i: (i.opened_at, i.id))
        return {
            "fixture": self.fixture, "batches": c.batches, "samples": c.samples, "log_lines": c.log_lines,
            "started_at": self.started_at, "ended_at": self.ended_at,
            "funnel": {"raw_anomalies": c.raw_anomalies, "alerts": c.alerts, "incidents": c.incidents,
                       "prioritised": c.prioritised, "actionable": c.actionable},
            "habitual": c.habitual, "signals": c.signals, "dropped": dict(c.dropped), "models": list(self.models),
            "incidents": [serial.incident(i) for i in incidents], "digest": self.digest}


def replay(name: str, batches: Iterator[Batch], pipeline: Pipeline, actuator: Actuator, sinks: Sequence[Sink] = (),
           pace: Callable[[float], None] = lambda at: None) -> Result:
    """Every batch through the pipeline. `pace(at)` waits until event time `at` is due, where a speed was asked for."""
    result: Result | None = None
    for batch in batches:
        pace(batch.at)
        report = advance(pipeline, with_outcomes(batch, actuator.collect()), actuator, sinks)
        if result is None:
            result = Result(name, batch.at, batch.at, report.counts)
        result.add(report)
    result = result or Result(name, 0.0, 0.0, Counts())
    for incident in pipeline.book.current():
        result.incidents[incident.id] = incident
    result.digest = pipeline.book.digest()
    return result


def paced(clock: Clock, speed: float) -> Callable[[float], None]:
    """Waits so that event time passes `speed` times as fast as the clock; 0 does not wait at all."""
    start: list[float] = []

    def wait(at: float) -> None:
        if speed > 0:
            if not start:
                start.extend((at, clock.now()))
            clock.sleep_until(start[1] + (at - start[0]) / speed)
    return wait
