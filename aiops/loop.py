"""One turn of the daemon, the same live and in replay: step, tell, act."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from aiops.interfaces import Actuator, Sink
from aiops.pipeline import Pipeline
from aiops.types import Action, Batch, Outcome, Report


class NoActuator:
    """Carries out nothing: outcomes, where there are any, are in the recording already."""

    def submit(self, actions: Sequence[Action]) -> None:
        """Recorded actions have happened."""

    def collect(self) -> Sequence[Outcome]:
        return ()


def advance(pipeline: Pipeline, batch: Batch, actuator: Actuator, sinks: Sequence[Sink]) -> Report:
    """Step, write down what was decided, then let it be done: a crash in between forgets no attempt. Sinks never raise."""
    report = pipeline.step(batch)
    for sink in sinks:
        sink.publish(report)
    actuator.submit([a for a in report.actions if a.decision == "act"])
    return report


def with_outcomes(batch: Batch, outcomes: Sequence[Outcome]) -> Batch:
    """The batch, with what became of earlier actions: feedback enters by the front door."""
    return replace(batch, outcomes=(*batch.outcomes, *outcomes)) if outcomes else batch
