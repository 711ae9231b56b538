"""One turn of the daemon, the same live and in replay: step, tell, act."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from aiops.interfaces import Actuator, Sink
from aiops.pipeline import Pipeline
from aiops.types import HANDED, Action, Batch, Outcome, Report


class NoActuator:
    """Carries out nothing: outcomes, where there are any, are in the recording already."""

    def submit(self, actions: Sequence[Action]) -> None:
        """Recorded actions have happened."""

    def collect(self) -> Sequence[Outcome]:
        return ()


class Record(Protocol):
    """Who writes down what will be done. `recorded`: the actions of the last report that are on disk."""

    @property
    def recorded(self) -> frozenset[str]: ...
    @property
    def problem(self) -> str: ...


class Recorded:
    """An actuator that carries out only what is on record. The record is a sink, so it hears of an action before this does."""

    def __init__(self, actuator: Actuator, record: Record) -> None:
        self._actuator, self._record = actuator, record
        self._refused: list[Outcome] = []

    def submit(self, actions: Sequence[Action]) -> None:
        """Hands on what is on record; the rest is refused: nothing was done."""
        there = self._record.recorded
        self._refused += [Outcome(a.id, "refused", a.at, f"not done, because it is not on record: {self._record.problem}")
                          for a in actions if a.id not in there]
        self._actuator.submit([a for a in actions if a.id in there])

    def collect(self) -> Sequence[Outcome]:
        refused, self._refused = self._refused, []
        return [*refused, *self._actuator.collect()]


def advance(pipeline: Pipeline, batch: Batch, actuator: Actuator, sinks: Sequence[Sink], watchers: Sequence[Sink] = ()) -> Report:
    """Step, write down what was decided, then let it be done: a crash in between forgets no attempt. Sinks never raise.

    watchers: sinks that only show; what is to be done does not wait for them.
    """
    report = pipeline.step(batch)
    for sink in sinks:
        sink.publish(report)
    actuator.submit([a for a in report.actions if a.decision == "act" and a.state != HANDED])
    for watcher in watchers:
        watcher.publish(report)
    return report


def with_outcomes(batch: Batch, outcomes: Sequence[Outcome]) -> Batch:
    """The batch, with what became of earlier actions: feedback enters by the front door."""
    return replace(batch, outcomes=(*batch.outcomes, *outcomes)) if outcomes else batch
