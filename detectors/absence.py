"""An entity that reported regularly and then fell silent.

Silence of a whole source (most entities at once) is the source's failure, not theirs: it is left to the source's own
health. Counts of log lines are no sign of life: they are made here, zeros too. Single metrics that vanish while their entity
still speaks are no absence: labels change, exporters are updated.
Processes, containers and pods come and go on purpose and are left out: whoever needs them speaks for them. Fails on other
entities that are taken out of service without a word: they are forgotten after an hour. After a restart somebody is only
missed once he was heard again: the time in which nobody listened is not his silence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiops.arrays import grown
from aiops.logcounts import COUNTED
from aiops.rows import columnar
from aiops.types import Anomaly, Frame

REGULAR_AFTER = 30
MISSED = 4.0
"""Silence longer than this many usual intervals is odd; each further interval makes it ten times less likely."""
LEAST_S = 20.0
"""A poll may be late by this much on a busy machine."""
FORGET_S = 3600.0
SOURCE_SHARE = 0.5
EPHEMERAL = ("process/", "container/", "pod/", "mig/", "job/")


class Absence:
    """State: four floats an entity."""

    VERSION = 1
    BY_SIGNAL = ()

    def __init__(self) -> None:
        self._names: list[str] = []
        self._index: dict[str, int] = {}
        self._of_signal = np.zeros(0, np.int64)
        self.last = np.zeros(0)
        self.interval = np.zeros(0)
        self.spread = np.zeros(0)
        self.n = np.zeros(0)
        self.lasting = np.zeros(0, np.bool_)
        self._unheard: set[str] = set()

    def observe(self, frame: Frame) -> Sequence[Anomaly]:
        self._register(frame)
        size = len(self._names)
        spoke = np.zeros(size + 1, np.bool_)  # the last place is nobody's
        spoke[self._of_signal[np.isfinite(frame.values)]] = True
        spoke = spoke[:size]
        if self._unheard:
            self._unheard -= {self._names[i] for i in np.flatnonzero(spoke)}
        found = self._silent(frame.at, spoke)
        self._learn(frame.at, spoke)
        return found

    def _register(self, frame: Frame) -> None:
        if len(self._of_signal) == len(frame.signals):
            return
        new = columnar(frame.signals[len(self._of_signal):])
        counted = new.by_kind(lambda s: s.name in COUNTED, np.bool_)
        told = new.take(np.flatnonzero(~counted))
        for entity in told.in_order():
            self._place(entity)
        places = new.by_entity(lambda entity: self._index.get(entity, -1), np.int64)
        self._of_signal = np.concatenate([self._of_signal, np.where(counted, -1, places)])
        for name in ("last", "interval", "spread", "n"):
            setattr(self, name, grown(getattr(self, name), len(self._names), 0.0))
        self.lasting = np.array([not name.startswith(EPHEMERAL) for name in self._names], np.bool_)

    def _place(self, entity: str) -> int:
        if entity not in self._index:
            self._index[entity] = len(self._names)
            self._names.append(entity)
        return self._index[entity]

    def _silent(self, at: float, spoke: Any) -> list[Anomaly]:
        size = len(spoke)
        quiet_s = at - self.last[:size]
        interval = self.interval[:size]
        regular = self.lasting & (self.n[:size] >= REGULAR_AFTER) & (self.spread[:size] < 0.5 * interval) & (quiet_s < FORGET_S)
        missing = regular & ~spoke & (quiet_s > np.maximum(MISSED * interval, LEAST_S))
        if self._unheard:
            missing &= np.array([name not in self._unheard for name in self._names], np.bool_)
        if np.count_nonzero(missing) > max(1.0, SOURCE_SHARE * np.count_nonzero(regular)):
            return []
        return [self._anomaly(at, int(i), float(quiet_s[i] / interval[i])) for i in np.flatnonzero(missing)]

    def _anomaly(self, at: float, i: int, missed: float) -> Anomaly:
        p = 10.0 ** -min(missed, 12.0)
        text = f"silent for {at - self.last[i]:.0f} s; it used to report every {self.interval[i]:.0f} s"
        return Anomaly(at, self._names[i], "absent", 1.0 - p, p, "absence", onset=float(self.last[i]), text=text)

    def _learn(self, at: float, spoke: Any) -> None:
        i = np.flatnonzero(spoke)
        gap = at - self.last[i]
        again = gap > FORGET_S
        n = np.where(again, 0.0, self.n[i])
        share = np.where(n > 1, np.maximum(0.05, 1.0 / np.maximum(n, 1.0)), 1.0)
        gap = np.where(n > 0, gap, 0.0)
        gap = np.where(n > 10, np.minimum(gap, 3.0 * self.interval[i]), gap)
        self.spread[i] += share * (np.abs(gap - self.interval[i]) - self.spread[i])
        self.interval[i] += share * (gap - self.interval[i])
        self.n[i], self.last[i] = n + 1, at

    def move(self, columns: NDArray[np.int64]) -> None:
        """Only these signals stay, in this order, and whoever has one of them. Who is missed is missed as before."""
        self._of_signal = self._of_signal[columns[columns < len(self._of_signal)]]
        kept = np.unique(self._of_signal[self._of_signal >= 0])
        self._of_signal = np.where(self._of_signal >= 0, np.searchsorted(kept, self._of_signal), -1)
        self._names = [self._names[i] for i in kept.tolist()]
        self._index = {name: i for i, name in enumerate(self._names)}
        self._unheard &= self._index.keys()
        for name in ("last", "interval", "spread", "n", "lasting"):
            setattr(self, name, getattr(self, name)[kept])

    def state(self) -> dict[str, Any]:
        return {"names": list(self._names), **{k: getattr(self, k).copy() for k in ("last", "interval", "spread", "n")}}

    def restore(self, state: Mapping[str, Any]) -> None:
        last = np.array(state["last"], np.float64)[:len(state["names"])]
        kept = np.flatnonzero(last >= last.max(initial=0.0) - FORGET_S)
        self._names = [state["names"][i] for i in kept]
        self._unheard = set(self._names)
        self._index = {name: i for i, name in enumerate(self._names)}
        self._of_signal = np.zeros(0, np.int64)
        for k in ("last", "interval", "spread", "n"):
            setattr(self, k, np.array(state[k], np.float64)[kept])
