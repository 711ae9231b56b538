"""What an incident means: who is hurt, how urgent it is, and whether it was here before."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace

import numpy as np

from aiops.history import History
from aiops.past import IncidentMemory
from aiops.rows import Signals
from aiops.slo import Burn, Slos
from aiops.types import Entity, Impact, Incident
from correlators.graph import Graph
from correlators.priority import prioritise


class Weighing:
    """Adds to incidents as the correlator finds them what it does not know. `slos` and `past` are read, not moved on."""

    def __init__(self, history: History, slos: Slos, past: IncidentMemory) -> None:
        self._history, self.slos, self.past = history, slos, past
        self._signals: Signals | None = None
        self._requests: dict[Entity, list[int]] = {}

    def weigh(self, new: Incident, old: Incident | None, graph: Graph, signals: Signals) -> Incident:
        """old: what it was a step ago. What is over stays what it was."""
        if old is not None and new.state == "closed":
            return replace(new, impact=old.impact, priority=old.priority, before=old.before)
        impact = self._impact(new, old, signals)
        new = replace(new, impact=impact, before=self.past.of(new, graph))
        return replace(new, priority=prioritise(new.severity, impact, self._burns(new), old.priority if old else None))

    def _impact(self, new: Incident, old: Incident | None, signals: Signals) -> Impact:
        """Of one suspect the most that was ever hurt: whoever was moved away from it was hurt, too."""
        suspect = [c.entity for c in new.causes[:1]]
        if old is None or suspect != [c.entity for c in old.causes[:1]]:
            return replace(new.impact, requests=self._most({*suspect, *new.impact.entities}, signals))
        wider = new.impact if new.impact.weight > old.impact.weight else old.impact
        return replace(wider, requests=old.impact.requests)

    def _burns(self, i: Incident) -> tuple[Burn, ...]:
        return self.slos.burns({*i.entities, *(c.entity for c in i.causes[:1]), *i.impact.entities}) if self.slos.specs else ()

    def _most(self, entities: Collection[Entity], signals: Signals) -> float:
        """The most that one of them usually gets; what calls what counts the same requests again, so they are not added.

        Looked up anew only where somebody else is suspected: in a storm there are many incidents.
        """
        if signals is not self._signals:
            self._signals, self._requests = signals, {}
            told = signals.by_kind(lambda s: s.resource == "traffic" and s.unit == "requests/s", np.bool_)
            for k in np.flatnonzero(told).tolist():
                self._requests.setdefault(signals[k].entity, []).append(k)
        usual = [self._usual(k) for entity in sorted(entities) for k in self._requests.get(entity, ())]
        return max((u for u in usual if np.isfinite(u)), default=math.nan)

    def _usual(self, column: int) -> float:
        """What was expected last; the last value where nothing is."""
        _, values, expected, _ = self._history.column(column)
        if not len(values):
            return math.nan
        return float(expected[-1] if np.isfinite(expected[-1]) else values[-1])
