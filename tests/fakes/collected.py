"""A `Samples` that keeps what it was given."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from aiops.types import Event, Floats, Ints, Links, LogLine, RawAlert


@dataclass(frozen=True)
class Sample:
    time: float
    entity: str
    metric: str
    labels: dict[str, str]
    value: float
    kind: str


@dataclass
class Collected:
    samples: list[Sample] = field(default_factory=list)
    interned: list[tuple[str, str, dict[str, str], str]] = field(default_factory=list)
    listeners: list[Callable[[Ints], object]] = field(default_factory=list, compare=False)
    over: list[int] = field(default_factory=list)
    lines: list[LogLine] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    alerts: list[RawAlert] = field(default_factory=list)
    topology: list[tuple[str, Links]] = field(default_factory=list)
    room: float = math.inf
    """So many lines are taken; a test makes room for more."""

    def sample(self, time: float, entity: str, metric: str, labels: Mapping[str, str], value: float,
               kind: str = "unknown") -> None:
        self.samples.append(Sample(time, entity, metric, dict(labels), value, kind))

    def series(self, entity: str, metric: str, labels: Mapping[str, str], kind: str = "unknown") -> int | None:
        key = (entity, metric, dict(labels), kind)
        if key not in self.interned:
            self.interned.append(key)
        return self.interned.index(key)

    def block(self, series: Ints, time: Floats, value: Floats) -> bool:
        for number, at, x in zip(series.tolist(), time.tolist(), value.tolist(), strict=True):
            entity, metric, labels, kind = self.interned[number]
            self.samples.append(Sample(at, entity, metric, labels, x, kind))
        return True

    def on_retire(self, forget: Callable[[Ints], object]) -> None:
        self.listeners.append(forget)

    def ended(self, series: Ints) -> None:
        self.over += series.tolist()

    def line(self, *lines: LogLine) -> bool:
        if len(lines) > self.room:
            return False
        self.room -= len(lines)
        self.lines += lines
        return True

    def event(self, event: Event) -> None:
        self.events.append(event)

    def alert(self, alert: RawAlert) -> None:
        self.alerts.append(alert)

    def links(self, source: str, links: Links) -> None:
        self.topology.append((source, links))

    def values(self, metric: str, **labels: str) -> list[float]:
        """Values of a metric whose labels include these, in the order they came."""
        return [s.value for s in self.samples if s.metric == metric and labels.items() <= s.labels.items()]

    def texts(self) -> list[str]:
        return [line.text for line in self.lines]
