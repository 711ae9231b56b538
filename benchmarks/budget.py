"""Does a budget of false incidents hold where nothing is wrong? Promised against realised, with the 95 % Poisson interval.

    python benchmarks/budget.py [--data FOLDER] [--days 120] [--series 300] [--step 300] [--only ar,season] [--seeds 3]

Every series is quiet: seeded synthetic ones, and with --data the unlabelled beginnings of real ones (a folder with
`*/labels.json` that names for each CSV beside it `warmup_rows`, `interval_s` and `anomalous_rows`), as they are and, where
there are two weeks of them, with whole days drawn again in random order. Baseline, alerting and correlation run as in the
daemon, with nothing learned from what is in an open incident, and nobody says of an incident that it was false.

The first four weeks (of short recordings the first 0.4) are for settling and not in `realised`: `day 1` is what opened on
the first day, `a day` what opened on each of the following ones up to the 14th. `floor`: fewer than promised with the level
within a nat of the lowest one, two samples in a row with p < 0.001 and little more; such a fleet is too small to use its
budget up.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from aiops import app
from aiops.alerting import Alerting
from aiops.types import Frame, Signal
from correlators.correlate import Correlate
from correlators.graph import Graph
from detectors.baseline import Baseline

DAY_S = 86_400.0
BUDGETS = (("1/day", DAY_S), ("1/week", 7 * DAY_S), ("1/month", 30 * DAY_S))
SETTLE_DAYS = 28.0
MASK_S = 6 * 3600.0
FLOOR_LEVEL = 4.0
START = 1_700_006_400.0
Rows = Iterator[tuple[float, np.ndarray]]


# ------------------------------------------------------------------------------------------------------ synthetic data
def fleet(kind: str, series: int, step_s: float, days: float, seed: int) -> Rows:
    """Times and float64[series]: levels, spreads and phases differ from series to series."""
    rng = np.random.default_rng(seed)
    make = KINDS[kind](rng, series, step_s)
    for k in range(int(days * DAY_S / step_s)):
        at = START + k * step_s
        yield at, make(at)


def noise(draw: Callable[[np.random.Generator, int], np.ndarray]) -> Callable[..., Callable[[float], np.ndarray]]:
    """Independent samples around a level."""
    def start(rng: np.random.Generator, n: int, step_s: float) -> Callable[[float], np.ndarray]:
        level, spread = rng.uniform(10, 100, n), rng.uniform(0.5, 2, n)
        return lambda at: level + spread * draw(rng, n)
    return start


def ar(rng: np.random.Generator, n: int, step_s: float) -> Callable[[float], np.ndarray]:
    """x = 0.9 x + noise."""
    level, spread, x = rng.uniform(10, 100, n), rng.uniform(0.5, 2, n), np.zeros(n)

    def draw(at: float) -> np.ndarray:
        x[:] = 0.9 * x + math.sqrt(1 - 0.81) * rng.standard_normal(n)
        return level + spread * x
    return draw


def season(rng: np.random.Generator, n: int, step_s: float) -> Callable[[float], np.ndarray]:
    """Days and weeks of its own phase, and noise that grows with the level."""
    level, phase, free = rng.uniform(10, 100, n), rng.uniform(0, 2 * np.pi, n), rng.uniform(0, 7, n)

    def draw(at: float) -> np.ndarray:
        day = 1 + 0.4 * np.sin(2 * np.pi * at / DAY_S + phase)
        week = 1 - 0.15 * (1 + np.cos(2 * np.pi * (at / DAY_S - free) / 7))
        return level * day * week * (1 + 0.05 * rng.standard_normal(n))
    return draw


def drift(rng: np.random.Generator, n: int, step_s: float) -> Callable[[float], np.ndarray]:
    """A random walk of half its noise a day, under the noise."""
    level, spread, walk = rng.uniform(10, 100, n), rng.uniform(0.5, 2, n), np.zeros(n)

    def draw(at: float) -> np.ndarray:
        walk[:] += 0.5 * math.sqrt(step_s / DAY_S) * rng.standard_normal(n)
        return level + spread * (walk + rng.standard_normal(n))
    return draw


def counts(rng: np.random.Generator, n: int, step_s: float) -> Callable[[float], np.ndarray]:
    """Few or many events a tick, more by day."""
    rate, phase = 10 ** rng.uniform(-1, 2.5, n), rng.uniform(0, 2 * np.pi, n)
    return lambda at: rng.poisson(rate * (1 + 0.5 * np.sin(2 * np.pi * at / DAY_S + phase))).astype(float)


def mixture(rng: np.random.Generator, n: int, step_s: float) -> Callable[[float], np.ndarray]:
    """A sixth of the fleet of each kind."""
    parts = [KINDS[k](rng, n // 6, step_s) for k in ("gauss", "t3", "ar", "season", "drift", "counts")]
    return lambda at: np.concatenate([part(at) for part in parts])


def jobs(rng: np.random.Generator, n: int, step_s: float) -> Callable[[float], np.ndarray]:
    """A backup, a batch, a report: on top of noise, at the same time of each day, half an hour to two hours."""
    level, spread = rng.uniform(10, 100, n), rng.uniform(0.5, 2, n)
    size, begins, lasts = spread * rng.uniform(5, 30, n), rng.uniform(0, DAY_S, n), rng.uniform(1800, 7200, n)
    return lambda at: level + spread * rng.standard_normal(n) + size * ((at - begins) % DAY_S < lasts)


KINDS: dict[str, Callable[..., Callable[[float], np.ndarray]]] = {
    "gauss": noise(lambda rng, n: rng.standard_normal(n)), "t3": noise(lambda rng, n: rng.standard_t(3, n)), "ar": ar,
    "season": season, "drift": drift, "counts": counts, "jobs": jobs, "mixture": mixture}


# ----------------------------------------------------------------------------------------------------------- real data
def beginnings(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """`<folder> <interval>` -> times and values[rows, series] of all beginnings, side by side from one start.

    What is labelled in them is left out, and so are groups that are shorter than a week.
    """
    grids: dict[tuple[str, float], list[np.ndarray]] = {}
    for labels in sorted(folder.glob("*/labels.json")):
        for name, about in sorted(json.loads(labels.read_text()).items()):
            step = float(about["interval_s"])
            grids.setdefault((labels.parent.name, step), []).append(beginning(labels.parent / name, about, step))
    found = {f"{name} {step:g} s": side_by_side(v, step) for (name, step), v in grids.items()}
    return {k: (times, values) for k, (times, values) in found.items() if times[-1] - times[0] > 6.5 * DAY_S}


def beginning(path: Path, about: dict[str, Any], step: float) -> np.ndarray:
    """values[rows, columns] at an even step, NaN where there is none or something is labelled."""
    with path.open(newline="") as f:
        rows = list(csv.reader(f))[1:1 + about["warmup_rows"]]
    times = np.array([moment(r[0]) for r in rows])
    values = np.array([[number(x) for x in r[1:]] for r in rows])
    for first, last in about["anomalous_rows"]:
        values[first:last + 1] = np.nan
    place = np.round((times - times[0]) / step).astype(int)
    grid = np.full((place[-1] + 1, values.shape[1]), np.nan)
    grid[place] = values
    return grid


def side_by_side(grids: list[np.ndarray], step: float) -> tuple[np.ndarray, np.ndarray]:
    """As long as half of them last."""
    rows = int(np.median([len(g) for g in grids]))
    padded = [np.vstack([g[:rows], np.full((max(rows - len(g), 0), g.shape[1]), np.nan)]) for g in grids]
    return START + step * np.arange(rows), np.hstack(padded)


def days_drawn(times: np.ndarray, values: np.ndarray, days: float, seed: int) -> Rows:
    """The same series with their days in a new order, again and again: one order for all series."""
    step = times[1] - times[0]
    rng, per_day = np.random.default_rng(seed), round(DAY_S / step)
    whole = len(values) // per_day
    for day in range(int(days)):
        if day % whole == 0:
            order = rng.permutation(whole)
        block = values[order[day % whole] * per_day:][:per_day]
        yield from ((START + (day * per_day + k) * step, row) for k, row in enumerate(block))


def moment(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return datetime.fromisoformat(text).timestamp()


def number(text: str) -> float:
    return float(text) if text else math.nan


# ----------------------------------------------------------------------------------------------------------- measuring
def incidents(rows: Rows, per_s: float, per_entity: int) -> tuple[list[float], float, float]:
    """When incidents opened, when the data ended, and the last level. Signals of one entity are `per_entity` columns."""
    baseline, alerting, correlate, graph = Baseline(), Alerting(1.0, per_s), Correlate(), Graph()
    of: tuple[Signal, ...] = ()
    opened: dict[str, float] = {}
    held: frozenset[str] = frozenset()
    at = 0.0
    for at, values in rows:
        if not of:
            of = tuple(Signal(i, f"service//s{i // per_entity}", f"m{i % per_entity}") for i in range(len(values)))
        learn = np.array([s.entity not in held for s in of]) if held else np.ones(len(of), np.bool_)
        frame = Frame(at, values, learn, of, held=held)
        found = correlate.correlate(at, alerting.update(frame, baseline.observe(frame)), graph, ())
        opened |= {i.id: at for i in found if i.id not in opened}
        held = frozenset(e for i in found if i.state == "open" and at - i.opened_at < MASK_S for e in i.entities)
    return sorted(opened.values()), at, alerting.level


def interval(expected: float) -> tuple[int, int]:
    """The counts that a Poisson variable takes with at least 95 % (2.5 % on each side)."""
    p, total, k, low = math.exp(-expected), 0.0, 0, -1
    while True:
        total += p
        if low < 0 and total > 0.025:
            low = k
        if total >= 0.975:
            return low, k
        k += 1
        p *= expected / k


def between(expected: float) -> str:
    low, high = interval(expected)
    return f"{low}-{high}"


class Tally:
    """What one budget came to over all data: promised and realised where the level is not at the floor, verdicts, first days."""

    def __init__(self) -> None:
        self.promised, self.realised = 0.0, 0
        self.verdicts: dict[str, int] = {"yes": 0, "floor": 0, "NO": 0}
        self.day_1: list[int] = []
        self.later: list[float] = []

    def add(self, promised: float, realised: int, inside: str) -> None:
        self.verdicts[inside] += 1
        if inside != "floor":
            self.promised, self.realised = self.promised + promised, self.realised + realised

    def settle(self, day_1: int, later: int, days: float) -> None:
        self.day_1.append(day_1)
        self.later.append(later / days)


def verdict(promised: float, realised: int, level: float) -> str:
    """yes and NO: inside of the interval and not. floor: below what was promised, and the level can go no lower."""
    low, high = interval(promised)
    if realised < low and level < FLOOR_LEVEL:
        return "floor"
    return "yes" if low <= realised <= high else "NO"


def report(name: str, make: Callable[[], Rows], settle_days: float, per_entity: int, tallies: dict[str, Tally]) -> None:
    """A row for each budget."""
    for budget, per_s in BUDGETS:
        began = time.perf_counter()
        when, end, level = incidents(make(), per_s, per_entity)
        days = [(t - START) / DAY_S for t in when]
        promised, realised = (end - START - settle_days * DAY_S) / per_s, sum(d >= settle_days for d in days)
        until = min(settle_days, 14.0)
        day_1, later = sum(d < 1 for d in days), sum(1 <= d < until for d in days)
        inside = verdict(promised, realised, level)
        tallies[budget].add(promised, realised, inside)
        tallies[budget].settle(day_1, later, until - 1)
        print(f"{name:<30}{budget:<9}{promised:>9.1f}{realised:>9}{between(promised):>10}{inside:>8}{level:>8.1f}"
              f"{day_1:>7}{later / (until - 1):>8.2f}{time.perf_counter() - began:>6.0f}", flush=True)


def conclude(tallies: dict[str, Tally]) -> None:
    """What all data say together: a budget that is not used up is no part of the sums, and is kept."""
    print()
    for budget, t in tallies.items():
        first, later = f"{np.mean(t.day_1):.1f} (most {max(t.day_1)})", f"{np.mean(t.later):.2f} (most {max(t.later):.2f})"
        print(f"{budget:<8} promised {t.promised:.1f}, realised {t.realised} ({between(t.promised)}); inside {t.verdicts['yes']},"
              f" below at the floor {t.verdicts['floor']}, outside {t.verdicts['NO']}; day 1: {first}; days 2-14: {later} a day")
    kept = sum(t.verdicts["yes"] + t.verdicts["floor"] for t in tallies.values())
    print(f"kept in {kept} of {sum(sum(t.verdicts.values()) for t in tallies.values())}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--days", type=float, default=120.0)
    parser.add_argument("--series", type=int, default=300)
    parser.add_argument("--step", type=float, default=300.0)
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--seeds", type=int, default=1, help="how many")
    parser.add_argument("--only", default=",".join(KINDS), help="kinds of synthetic data; empty for none")
    a = parser.parse_args()
    tallies = {budget: Tally() for budget, _ in BUDGETS}
    print(f"{'data':<30}{'budget':<9}{'promised':>9}{'realised':>9}{'95 %':>10}{'inside':>8}{'level':>8}{'day 1':>7}"
          f"{'a day':>8}{'s':>6}")
    for seed in range(a.seed, a.seed + a.seeds):
        for kind in [k for k in a.only.split(",") if k]:
            report(f"{kind}, seed {seed}", lambda kind=kind, seed=seed: fleet(kind, a.series, a.step, a.days, seed),
                   SETTLE_DAYS, 3, tallies)
    for name, (times, values) in (beginnings(a.data) if a.data else {}).items():
        real(name, times, values, range(a.seed, a.seed + a.seeds), a.days, tallies)
    conclude(tallies)
    quiet = app.Player(Path(__file__).parents[1] / "fixtures" / "quiet", None).play()
    hours = (quiet.ended_at - quiet.started_at) / 3600
    print(f"fixtures/quiet, {hours:.1f} h at 1/day: {quiet.counts.incidents} incidents, promised {hours / 24:.2f}")


def real(name: str, times: np.ndarray, values: np.ndarray, seeds: range, days: float, tallies: dict[str, Tally]) -> None:
    """As it is, and with days drawn."""
    width, whole_days = 19 if name.startswith("asd") else 1, (times[-1] - START) / DAY_S
    report(name, lambda: zip(times.tolist(), values, strict=True), 0.4 * whole_days, width, tallies)
    for seed in seeds if whole_days > 13.5 else ():
        report(f"{name}, drawn, seed {seed}", lambda seed=seed: days_drawn(times, values, days, seed), SETTLE_DAYS, width,
               tallies)


if __name__ == "__main__":
    sys.exit(main())
