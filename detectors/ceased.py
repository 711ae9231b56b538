"""Calls that are made no more, by somebody who goes on calling others: he stops short of them.

A request that fails half way, or returns too early, leaves out what would have come after. It shows where one signal tells of
several calls of the same caller: of those that he usually makes whenever he makes any, some are missing. How often a call is
missing by chance is counted, in the ticks in which another one of the same caller was heard; so many in a row are as
improbable as that share to their power. Where nothing of a caller is heard nothing is said: he may be idle, or not measured.

It speaks in the ranking of causes and raises nothing alone: features are turned off on purpose. Fails where a caller makes
one call only, and on calls that are seldom made anyhow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiops.arrays import grown
from aiops.callends import Call, call_ends
from aiops.rows import columnar
from aiops.types import Anomaly, Bools, Entity, Frame, Signal

Places = NDArray[np.int64]
CEASED = "calls_ceased"
SPEAKS_OF = frozenset({"latency", "errors", "traffic", "network"})
READY, MOST = 30, 500
"""So many ticks with others are needed; beyond so many, older ones count half."""
LEAST_RUN, GIVE_UP = 2, 60
"""Missing for so many ticks is worth telling; for so many it is how things are now."""
REPORT_P, LEAST_P = 1e-3, 1e-6


class Ceased:
    """State, by signal: `heard`, in how many ticks another call of the same caller was heard; in how many of those it was
    `missing`; how many in a row by now (`run`), and `since` when."""

    VERSION = 1
    BY_SIGNAL = ("heard", "missing", "run", "since")

    def __init__(self) -> None:
        self.heard, self.missing, self.run, self.since = (np.zeros(0) for _ in range(4))
        self._known = 0
        self._columns: Places = np.zeros(0, np.int64)
        self._group: Places = np.zeros(0, np.int64)
        self._counts: Bools = np.zeros(0, np.bool_)
        self._calls: list[Call] = []
        self._groups: dict[tuple[str, Entity], int] = {}

    def observe(self, frame: Frame) -> Sequence[Anomaly]:
        size = len(frame.signals)
        for name in self.BY_SIGNAL:
            setattr(self, name, grown(getattr(self, name), size, 0.0)[:max(size, len(getattr(self, name)))])
        self._meet(frame)
        if not len(self._columns):
            return []
        i = self._columns
        made = np.isfinite(frame.values[i]) & ~(self._counts & (frame.values[i] == 0.0))
        others = np.bincount(self._group, made)[self._group] - made >= 1
        ceased = others & ~made
        self.since[i] = np.where(ceased & (self.run[i] == 0), frame.at, self.since[i])
        run = self.run[i] + ceased
        p = np.maximum(((self.missing[i] + 1.0) / (self.heard[i] + 2.0)) ** run, LEAST_P)
        odd = (run >= LEAST_RUN) & (self.heard[i] >= READY) & (p < REPORT_P)
        told = odd & ceased
        self._learn(i[made & others & frame.learn[i] & ~odd])
        self.run[i] = np.where(made, 0.0, run)
        found = [self._anomaly(frame.at, k, float(p[k])) for k in np.flatnonzero(told).tolist()]
        self._forget(i[told & (run >= GIVE_UP)])
        return found

    def _anomaly(self, at: float, k: int, p: float) -> Anomaly:
        caller, callee = self._calls[k]
        text = f"calls {callee} no more, and others as before"
        return Anomaly(at, caller, f'{CEASED}{{to="{callee}"}}', 1.0 - p, p, "ceased",
                       onset=float(self.since[self._columns[k]]), text=text)

    def _learn(self, i: Places) -> None:
        """These were made, and left out before for as long as `run`. What was told of teaches nothing."""
        self.heard[i] += 1.0 + self.run[i]
        self.missing[i] += self.run[i]
        old = i[self.heard[i] > MOST]
        self.heard[old] /= 2.0
        self.missing[old] /= 2.0

    def _forget(self, columns: Places) -> None:
        for name in self.BY_SIGNAL:
            getattr(self, name)[columns] = 0.0

    def _meet(self, frame: Frame) -> None:
        """Finds the calls among new signals; those of one signal and caller are a group."""
        if self._known == len(frame.signals):
            return
        new = columnar(frame.signals[self._known:])
        about = np.flatnonzero(new.by_kind(_is_of_call, np.bool_))
        places, groups = [], []
        for k, signal in ((int(k), new[int(k)]) for k in about):
            call = call_ends(signal.entity, signal.labels)
            if call:
                places.append(self._known + k)
                groups.append(self._groups.setdefault((signal.name, call[0]), len(self._groups)))
                self._calls.append(call)
        self._columns = np.concatenate([self._columns, np.array(places, np.int64)])
        self._group = np.concatenate([self._group, np.array(groups, np.int64)])
        self._counts = np.array([frame.signals[k].resource == "traffic" for k in self._columns], np.bool_)
        self._known = len(frame.signals)

    def state(self) -> dict[str, Any]:
        return {k: getattr(self, k).copy() for k in self.BY_SIGNAL}

    def restore(self, state: Mapping[str, Any]) -> None:
        for k in self.BY_SIGNAL:
            setattr(self, k, np.array(state[k], np.float64))


def _is_of_call(kind: Signal) -> bool:
    return kind.resource in SPEAKS_OF and call_ends("", kind.labels) is not None
