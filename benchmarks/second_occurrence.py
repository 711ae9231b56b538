"""Is a fault found again that was there yesterday? With masks and without.

Synthetic telemetry, seeded: daily sines with noise, one sample a minute for ten days. On the ninth day each faulty signal is
raised for 30 minutes, 2 or 6 hours, and on the tenth again, at the same time of the day or five hours later. A fault is
found when an alert begins in its first hour. Quiet signals beside them show what a mask costs: one cannot get
used to what is not learned. Half a minute for each way of masking, at most.

The alarm level is the one that the budget had found when the first fault began: 240 faults in a day would be taken for false
ones that no budget allows.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from aiops import build, meaning
from aiops.budget import Budget
from aiops.masks import Masks
from aiops.types import Alert, Batch, Bools, Series, Signal
from correlators.graph import Graph

STEP_S, DAY_S, START = 60.0, 86_400.0, 1_700_006_400.0
DAYS, EACH, QUIET = 10, 20, 60
LENGTHS = {"30 min": 1800.0, "2 h": 7200.0, "6 h": 21_600.0}
LATER = {"same time": 0.0, "5 h later": 5 * 3600.0}
FIRST_AT = 8 * DAY_S + 10 * 3600.0
KINDS = {"clear": (0.03, 12.0, 40.0), "small": (0.08, 5.0, 10.0)}
"""Noise as a share of the level, and by how many standard deviations of it faulty signals are raised, evenly between the two:
more than the 25 % of the level that are the smallest effect worth telling of a metric that no pack knows."""


class Unmasked(Masks):
    """Learns from everything."""

    def learn(self, batch: Batch, signals: Sequence[Signal], graph: Graph) -> Bools:
        super().learn(batch, signals, graph)
        self.held = {}
        return np.ones(len(signals), np.bool_)


class Settled(Budget):
    """Keeps the level of another budget."""

    def __init__(self, other: Budget) -> None:
        super().__init__(1.0, DAY_S)
        self.restore(other.state())
        self.settled = True

    def _solve(self, theory: float) -> None:
        if not getattr(self, "settled", False):
            super()._solve(theory)


@dataclass(frozen=True)
class Fault:
    """Columns of one kind of fault, and when it begins each time."""

    kind: str
    length: str
    when: str
    columns: slice

    def spans(self) -> list[tuple[float, float]]:
        first, second = FIRST_AT, FIRST_AT + DAY_S + LATER[self.when]
        return [(START + t, START + t + LENGTHS[self.length]) for t in (first, second)]


FAULTS = [Fault(kind, length, when, slice(EACH * k, EACH * (k + 1)))
          for k, (kind, length, when) in enumerate(product(KINDS, LENGTHS, LATER))]
BROKEN = EACH * len(FAULTS)
CONTROLS = {"quiet, white noise": slice(BROKEN, BROKEN + QUIET),
            "quiet, heavy tails that last": slice(BROKEN + QUIET, BROKEN + 2 * QUIET)}
SIGNALS = BROKEN + 2 * QUIET


def telemetry() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Times float64[ticks] and values float64[ticks, SIGNALS]."""
    rng = np.random.default_rng(1)
    times = START + STEP_S * np.arange(int(DAYS * DAY_S / STEP_S))
    level, swing, phase = rng.uniform(50, 200, SIGNALS), rng.uniform(0, 0.4, SIGNALS), rng.uniform(0, 2 * np.pi, SIGNALS)
    noise = rng.standard_normal((len(times), SIGNALS))
    lasting = CONTROLS["quiet, heavy tails that last"]
    noise[:, lasting] = _autoregressive(rng.standard_t(3, (len(times), QUIET)), 0.95)
    share = np.full(SIGNALS, KINDS["clear"][0])
    for fault in FAULTS:
        share[fault.columns] = KINDS[fault.kind][0]
    values = level * (1 + swing * np.sin(2 * np.pi * times[:, None] / DAY_S + phase) + share * noise)
    for fault in FAULTS:
        height = (share * level)[fault.columns] * np.linspace(*KINDS[fault.kind][1:], EACH)
        for begin, end in fault.spans():
            values[(times >= begin) & (times < end), fault.columns] += height
    return times, values


def _autoregressive(shocks: NDArray[np.float64], memory: float) -> NDArray[np.float64]:
    out = np.zeros_like(shocks)
    for k in range(1, len(out)):
        out[k] = memory * out[k - 1] + np.sqrt(1 - memory**2) * shocks[k]
    return out


class Seen:
    """When each signal was under alert, and when those alerts began."""

    def __init__(self, ticks: int) -> None:
        self.firing = np.zeros((ticks, SIGNALS), np.bool_)
        self.since = np.full((ticks, SIGNALS), np.nan)

    def add(self, tick: int, alerts: Sequence[Alert]) -> None:
        for a in alerts:
            if a.state == "firing":
                column = int(a.entity.rpartition("s")[2])
                self.firing[tick, column], self.since[tick, column] = True, a.since

    def found(self, times: NDArray[np.float64], columns: slice, begin: float, end: float) -> float:
        """Share of the columns on which an alert began in the first hour of the fault."""
        rows = (times >= begin) & (times < min(end, begin + 3600.0))
        return float((self.since[rows, columns] >= begin - STEP_S).any(axis=0).mean())

    def stuck(self, times: NDArray[np.float64], columns: slice, end: float) -> float:
        """Share of the columns that are under alert an hour after the fault is over."""
        return float(self.firing[times >= end + 3600.0, columns][0].mean())

    def begun(self, columns: slice, from_day: float) -> float:
        """Alerts a day that began after that many days."""
        rows = self.firing[int(from_day * DAY_S / STEP_S):, columns]
        return float((rows[1:] & ~rows[:-1]).sum() / (DAYS - from_day))


def run(masks: Masks, times: NDArray[np.float64], values: NDArray[np.float64]) -> Seen:
    """The whole week through a pipeline with the seasonal baseline."""
    pipeline = build.pipeline(meaning.shipped(), (), "observe", ("baseline",), masks=masks)
    new = tuple(Series(k, f"service//s{k}", "metric", "", "gauge") for k in range(SIGNALS))
    ids, seen = np.arange(SIGNALS, dtype=np.int32), Seen(len(times))
    for k, at in enumerate(times.tolist()):
        if at == START + FIRST_AT:
            pipeline.alerting.budget = Settled(pipeline.alerting.budget)
        seen.add(k, pipeline.step(Batch(at, ids, np.full(SIGNALS, at), values[k], new if k == 0 else ())).alerts)
    return seen


def show(name: str, seen: Seen, times: NDArray[np.float64]) -> None:
    """One table: the share of signals on which the fault was found, each time, and what the mask costs."""
    print(f"\n{name:<28}{'first':>8}{'second':>8}{'loss':>8}{'still on an hour after':>26}")
    for fault in FAULTS:
        first, second = (seen.found(times, fault.columns, *span) for span in fault.spans())
        still = max(seen.stuck(times, fault.columns, end) for _, end in fault.spans())
        about = f"{fault.kind}, {fault.length}, {fault.when}"
        print(f"{about:<28}{first:>8.2f}{second:>8.2f}{first - second:>8.2f}{still:>26.2f}")
    for control, columns in CONTROLS.items():
        print(f"{control + ': alerts a day':<52}{seen.begun(columns, 2.0):>26.1f}")


def main() -> None:
    times, values = telemetry()
    for name, masks in (("without masks", Unmasked()), ("with masks", Masks())):
        show(name, run(masks, times, values), times)


if __name__ == "__main__":
    sys.exit(main())
