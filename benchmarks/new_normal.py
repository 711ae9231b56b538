"""Does it pay to learn a lasting new level on purpose? Run with `python benchmarks/new_normal.py`: a minute.

Made-up series, seeded: daily sines with noise, a sample every five minutes for 21 days, through the whole pipeline with its
masks. On the eleventh day the level of most of them changes for good. Afterwards each of these has one fault of two hours:
raised by a share of its level, or back at the old level. Played twice: as shipped, and with `relearn` switched the other way.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import product

import numpy as np

from aiops import build, meaning
from aiops.pipeline import Pipeline
from aiops.types import Batch, Floats, Series

STEP_S, DAY_S, START = 300.0, 86_400.0, 1_700_006_400.0
DAYS, CHANGE_DAY, EACH, QUIET, NOISE = 21.0, 10.4, 5, 40, 0.04
SHIFTS = {"none": 0.0, "+60 %": 0.6, "+35 %": 0.35, "-40 %": -0.4}
FAULTS = {"twice the level": 1.0, "+50 %": 0.5, "back at the old level": None}
AFTER_DAYS = (2.0, 4.0, 8.0)
FAULT_S = 2 * 3600.0


@dataclass(frozen=True)
class Case:
    shift: str
    fault: str
    after: float
    columns: range

    @property
    def at(self) -> float:
        return (CHANGE_DAY + self.after) * DAY_S


CASES = [Case(*case, range(EACH * k, EACH * (k + 1))) for k, case in enumerate(product(SHIFTS, FAULTS, AFTER_DAYS))]
CHANGED = EACH * len(CASES)


def telemetry() -> Floats:
    """float64[ticks, columns]: the changed ones, then `QUIET` that stay as they are."""
    r = np.random.default_rng(11)
    t = np.arange(int(DAYS * DAY_S / STEP_S))[:, None] * STEP_S
    columns = CHANGED + QUIET
    x = 100 * (1 + 0.15 * np.sin(2 * np.pi * (t / DAY_S + r.random(columns))) + NOISE * r.standard_normal((len(t), columns)))
    new = t[:, 0] >= CHANGE_DAY * DAY_S
    for case in CASES:
        part, by = x[:, case.columns.start:case.columns.stop], 1 + SHIFTS[case.shift]
        part[new] *= by
        rise = FAULTS[case.fault]
        part[(t[:, 0] >= case.at) & (t[:, 0] < case.at + FAULT_S)] *= 1 / by if rise is None else 1 + rise
    return x


class Unlearning(Pipeline):
    """Whoever judges levels is left to notice by itself."""

    def _relearn(self) -> None:
        """Nobody is asked."""


def play(x: Floats, relearns: bool) -> tuple[list[list[tuple[float, float]]], list[list[float]]]:
    """For each column: (begin, end) of its alerts in seconds from the start, and when a new normal was announced."""
    pipeline = build.pipeline(meaning.shipped(), (), "observe", ("baseline", "drift"))
    if not relearns:
        pipeline.__class__ = Unlearning
    columns = x.shape[1]
    series = tuple(Series(i, f"service//s{i}", "work") for i in range(columns))
    ids, alerts, told = np.arange(columns, dtype=np.int32), [[] for _ in range(columns)], [[] for _ in range(columns)]
    firing: dict[int, float] = {}
    for k, row in enumerate(x):
        at = k * STEP_S
        report = pipeline.step(Batch(START + at, ids, np.full(columns, START + at), row, series if k == 0 else ()))
        now = {int(a.entity.rpartition("s")[2]) for a in report.alerts if a.state == "firing" and a.signal == "work"}
        for c in now - firing.keys():
            firing[c] = at
        for c in [c for c in firing if c not in now]:
            alerts[c].append((firing.pop(c), at))
        for a in report.anomalies:
            if a.name == "new_normal":
                told[int(a.entity.rpartition("s")[2])].append(at)
    for c, since in firing.items():
        alerts[c].append((since, np.inf))
    return alerts, told


def show(name: str, alerts: list[list[tuple[float, float]]], told: list[list[float]]) -> None:
    change = CHANGE_DAY * DAY_S
    lasts, false, found, changed = [], [], {}, [case for case in CASES if SHIFTS[case.shift]]
    for case in CASES:
        for c in case.columns:
            hit = any(case.at <= begin < case.at + FAULT_S for begin, _ in alerts[c])
            found.setdefault((case.fault, bool(SHIFTS[case.shift]), case.after), []).append(hit)
    for c in (c for case in changed for c in case.columns):
        lasts += [end - change for begin, end in alerts[c] if change <= begin < change + DAY_S / 2][-1:]
    for case in changed:
        own = (case.at, case.at + FAULT_S + 7200)
        false += [sum(begin >= change + DAY_S / 2 and not own[0] <= begin < own[1] for begin, _ in alerts[c])
                  for c in case.columns]
    days = DAYS - CHANGE_DAY - 0.5
    quiet = [sum(begin > change for begin, _ in alerts[c]) for c in range(CHANGED, CHANGED + QUIET)]
    first = [(t[0] - change) / 3600 for t in told if t]
    print(f"\n{name}: announced of {len(first)} of {EACH * len(changed)}, {sum(map(len, told))} times, "
          f"median {np.median(first):.0f} h after")
    print(f"  alerts at the change {len(lasts)}, over after h: median {np.median(lasts or [0]) / 3600:.1f}, "
          f"most {max(lasts, default=0) / 3600:.1f}")
    print(f"  alerts without a fault per series-day after it {np.mean(false) / days:.4f}; "
          f"of the unchanged {np.mean(quiet) / (days + .5):.4f}")
    print(f"  {'faults found':<34}" + "".join(f"{f'{after:g} d':>8}" for after in AFTER_DAYS))
    for fault, moved in product(FAULTS, (True, False)):
        if moved or FAULTS[fault] is not None:
            print(f"  {fault + ('' if moved else ', no change before'):<34}"
                  + "".join(f"{np.mean(found[fault, moved, after]):>8.2f}" for after in AFTER_DAYS))


def main() -> None:
    x = telemetry()
    for name, relearns in (("with relearn", True), ("without", False)):
        show(name, *play(x, relearns))


if __name__ == "__main__":
    sys.exit(main())
