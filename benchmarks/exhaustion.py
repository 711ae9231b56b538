"""How good the forecasts of `exhaustion` are. Run with `python benchmarks/exhaustion.py`.

Made-up series, seeded, one sample a minute, alarms as `Alerting` raises them. For comparison two rules that people write in
PromQL: `avail < 15 % and predict_linear(avail[6h], 24h) < 0 for 1h`, as the node mixin has it, and
`predict_linear(avail[1h], 24h) < 0 for 5m`, as many have copied it.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from aiops.alerting import Alerting
from aiops.types import Anomaly, Floats, Frame, Signal
from detectors.exhaustion import Exhaustion

STEP_S, DAY_S, HOUR_S = 60.0, 86_400.0, 3600.0
T0 = 1_700_000_000.0
SERIES = 10
WARM_S = 2 * DAY_S
Rng = np.random.Generator


@dataclass
class Run:
    """What was said of each column: ticks at which an alarm was raised, and each forecast (tick, early, late in seconds)."""

    alarms: dict[int, list[int]] = field(default_factory=dict)
    notes: dict[int, list[int]] = field(default_factory=dict)
    told: dict[int, list[tuple[int, float, float]]] = field(default_factory=dict)
    seconds: float = 0.0


class Watched(Exhaustion):
    """Keeps the figures behind the words."""

    def __init__(self) -> None:
        super().__init__()
        self.figures: dict[int, tuple[float, float]] = {}

    def _alarm(self, frame: Frame, c: int, p: float, times: Floats) -> Anomaly:
        self.figures[c] = (float(times[0]), float(times[2]))
        return super()._alarm(frame, c, p, times)


def play(x: Floats, horizon_s: float, known_s: float = 0.0) -> Run:
    """x float64[ticks, columns]: shares of capacity in use, of what was heard of for `known_s` before."""
    of = tuple(Signal(i, f"node//{i}", "used", unit="ratio", direction="up", limit=1.0, horizon_s=horizon_s)
               for i in range(x.shape[1]))
    detector, alerting, out, firing = Watched(), Alerting(), Run(), set()
    began = time.perf_counter()
    learn = np.ones(len(of), np.bool_)
    for k, row in enumerate(x):
        frame = Frame(T0 + k * STEP_S, row, learn, of)
        detector.figures = {}
        found = detector.observe(frame)
        if k == 0:
            detector.since -= known_s
        for a in found:
            if a.p_value == 1.0:
                out.notes.setdefault(a.signal, []).append(k)
        for c, (early, late) in detector.figures.items():
            out.told.setdefault(c, []).append((k, early, late))
        now = {int(a.entity.rpartition("/")[2]) for a in alerting.update(frame, found) if a.state == "firing"}
        for c in now - firing:
            out.alarms.setdefault(c, []).append(k)
        firing = now
    out.seconds = time.perf_counter() - began
    return out


def predict_linear(x: Floats, window_s: float, ahead_s: float, least_left: float, for_s: float) -> dict[int, list[int]]:
    """Ticks at which the PromQL rule begins to fire, by column: least squares over the window, extrapolated."""
    n, left = int(window_s / STEP_S), 1.0 - x
    t = np.arange(len(x), dtype=np.float64)[:, None] * STEP_S
    zero = np.zeros((1, x.shape[1]))
    sums = [np.concatenate([zero, np.cumsum(v, axis=0)]) for v in (left, t * left)]
    y, ty = (s[n:] - s[:-n] for s in sums)
    now = t[n - 1:]
    middle = now - (n - 1) * STEP_S / 2
    slope = (ty - middle * y) / (STEP_S ** 2 * n * (n ** 2 - 1) / 12)
    short = (y / n + slope * (now + ahead_s - middle) < 0) & (left[n - 1:] < least_left)
    hold, out = int(for_s / STEP_S), {}
    for c in range(x.shape[1]):
        run, fires = 0, False
        for k in range(len(short)):
            run = run + 1 if short[k, c] else 0
            if run > hold and not fires:
                out.setdefault(c, []).append(k + n - 1)
            fires = run > hold
    return out


RULES: Mapping[str, Callable[[Floats], dict[int, list[int]]]] = {
    "6h->24h, <15 %": lambda x: predict_linear(x, 6 * HOUR_S, DAY_S, 0.15, HOUR_S),
    "1h->24h": lambda x: predict_linear(x, HOUR_S, DAY_S, 1.0, 300.0)}


# ------------------------------------------------------------------------------------------- that never run out
def hours(days: float) -> Floats:
    return np.arange(int(days * DAY_S / STEP_S))[:, None] * STEP_S / HOUR_S


def hover(t: Floats, r: Rng, level: float, noise: float, season: float) -> Floats:
    wave = season * np.sin(2 * np.pi * (t / 24 + r.random(SERIES)))
    return level + wave + noise * r.standard_normal((len(t), SERIES))


def saw(t: Floats, r: Rng, shortest: float, longest: float) -> Floats:
    low, high = r.uniform(0.3, 0.6, SERIES), r.uniform(0.8, 0.95, SERIES)
    period = r.uniform(shortest, longest, SERIES)
    return low + (high - low) * ((t / period + r.random(SERIES)) % 1.0) + 0.002 * r.standard_normal((len(t), SERIES))


def bursts(t: Floats, r: Rng, level: float) -> Floats:
    """Three a day: something grows for up to 40 min by up to 25 points, stays for up to two hours and is deleted."""
    x = np.full((len(t), SERIES), level)
    for c in range(SERIES):
        for start in r.uniform(0, t[-1, 0], int(t[-1, 0] / 8)):
            grows, stays, size = r.uniform(0.03, 0.7), r.uniform(0.2, 2.0), r.uniform(0.05, min(0.25, 0.8 * (1 - level)))
            since = t[:, 0] - start
            x[:, c] += size * np.clip(since / grows, 0, 1) * (since < grows + stays)
    return np.minimum(x, 0.99) + 0.001 * r.standard_normal(x.shape)


def steps(t: Floats, r: Rng) -> Floats:
    jumps = r.random((len(t), SERIES)) < STEP_S / (2 * DAY_S)
    return np.minimum(0.5 + 0.03 * np.cumsum(jumps, axis=0), 0.96) + 0.001 * r.standard_normal((len(t), SERIES))


def reverting(t: Floats, r: Rng, level: float, spread: float, within: float) -> Floats:
    """Ornstein-Uhlenbeck, as the use of a KV cache is; `within` in hours."""
    x, out, share = np.full(SERIES, level), np.empty((len(t), SERIES)), STEP_S / HOUR_S / within
    for k in range(len(t)):
        x = x + share * (level - x) + spread * np.sqrt(2 * share) * r.standard_normal(SERIES)
        out[k] = x
    return np.clip(out, 0, 1)


def warm_up(t: Floats, r: Rng) -> Floats:
    within, top = 10 ** r.uniform(-1, 2, SERIES), r.uniform(0.5, 0.9, SERIES)
    return top * (1 - np.exp(-t / within)) + 0.001 * r.standard_normal((len(t), SERIES))


NEVER: Mapping[str, tuple[float, Callable[[Floats, Rng], Floats]]] = {
    "hovers at 97 %, noise": (DAY_S, lambda t, r: hover(t, r, 0.97, 0.003, 0.0)),
    "hovers at 97 %, daily ±1.5": (DAY_S, lambda t, r: hover(t, r, 0.97, 0.001, 0.015)),
    "daily 40 to 90 %": (DAY_S, lambda t, r: hover(t, r, 0.65, 0.01, 0.25)),
    "saw-tooth of a day to 80-95 %": (DAY_S, lambda t, r: saw(t, r, 24.0, 24.0)),
    "saw-tooth of 1-6 h": (DAY_S, lambda t, r: saw(t, r, 1.0, 6.0)),
    "saw-tooth of 2-30 min (GC)": (4 * HOUR_S, lambda t, r: saw(t, r, 1 / 30, 0.5)),
    "bursts on 60 %": (DAY_S, lambda t, r: bursts(t, r, 0.60)),
    "bursts on 75 %": (DAY_S, lambda t, r: bursts(t, r, 0.75)),
    "steps of 3 points": (DAY_S, steps),
    "KV cache 60 ± 15 %, minutes": (HOUR_S / 2, lambda t, r: reverting(t, r, 0.6, 0.15, 0.2)),
    "KV cache 60 ± 15 %, an hour": (HOUR_S / 2, lambda t, r: reverting(t, r, 0.6, 0.15, 1.0)),
    "80 ± 8 %, half a day": (DAY_S, lambda t, r: reverting(t, r, 0.8, 0.08, 12.0)),
    "starts and settles at 50-90 %": (4 * HOUR_S, warm_up)}


def false_alarms(days: float) -> None:
    print(f"\nfalse alarms per series-day, {SERIES} series x {days:g} days of each kind")
    print(f"{'kind':<32}{'first 2 d':>10}{'later':>8}{'notes':>8}" + "".join(f"{name:>18}" for name in RULES))
    t, total = hours(days), np.zeros(3 + len(RULES))
    for name, (horizon_s, make) in NEVER.items():
        x = np.clip(make(t, np.random.default_rng(1)), 0, 1)
        run = play(x, horizon_s)
        row = [*_split(run.alarms, days), sum(map(len, run.notes.values())) / SERIES / days,
               *(sum(map(len, rule(x).values())) / SERIES / days for rule in RULES.values())]
        total += row
        print(f"{name:<32}{row[0]:>10.3f}" + "".join(f"{v:>8.3f}" for v in row[1:3]) + "".join(f"{v:>18.3f}" for v in row[3:]))
    total /= len(NEVER)
    print(f"{'mean':<32}{total[0]:>10.3f}" + "".join(f"{v:>8.3f}" for v in total[1:3])
          + "".join(f"{v:>18.3f}" for v in total[3:]))


def _split(alarms: Mapping[int, list[int]], days: float) -> tuple[float, float]:
    ticks = np.array([k for found in alarms.values() for k in found])
    early = np.count_nonzero(ticks * STEP_S < WARM_S)
    return early / SERIES / (WARM_S / DAY_S), (len(ticks) - early) / SERIES / (days - WARM_S / DAY_S)


# ------------------------------------------------------------------------------------------------- that run out
def filled(shape: Floats, before_days: float, r: Rng, noise: float, under: Floats | float = 0.0) -> Floats:
    """60 % for some days and then to 100 % along `shape` (0 to 1); `under` is added all the time."""
    x = np.concatenate([np.zeros(int(before_days * DAY_S / STEP_S)), shape])[:, None]
    return 0.6 + 0.4 * x + under * (1 - x) + noise * r.standard_normal((len(x), SERIES))


def line(fill_h: float) -> Floats:
    return np.linspace(0, 1, int(fill_h * HOUR_S / STEP_S))


def teeth(ticks: int, period_min: float) -> Floats:
    return 0.1 * ((np.arange(ticks)[:, None] / period_min + np.linspace(0, 1, SERIES)) % 1.0 - 0.5)


def fills() -> Iterable[tuple[str, Floats]]:
    r = np.random.default_rng(2)
    for fill_h in (0.5, 1, 6, 24, 168):
        for noise in (0.0005, 0.005):
            yield f"straight, {fill_h:g} h, noise {noise * 100:g} points", filled(line(fill_h), 2, r, noise)
    for fill_h in (24,):
        n = int(2 * DAY_S / STEP_S) + len(line(fill_h))
        daily = 0.05 * np.sin(2 * np.pi * (np.arange(n)[:, None] * STEP_S / DAY_S + np.linspace(0, 1, SERIES)))
        yield f"with teeth of 20 min, {fill_h} h", filled(line(fill_h), 2, r, 0.001, teeth(n, 20.0))
        yield f"with a daily wave of ±5, {fill_h} h", filled(line(fill_h), 2, r, 0.001, daily)
        yield f"faster and faster, {fill_h} h", filled(np.expm1(3 * line(fill_h)) / np.expm1(3), 2, r, 0.001)
        yield f"slower and slower, {fill_h} h", filled(1 - (1 - line(fill_h)) ** 1.5, 2, r, 0.001)


def leads() -> None:
    print(f"\nthat run out: hours from the alarm to the end (least, median of {SERIES}), found, and the share of forecasts "
          "whose 90 % interval holds the end")
    print(f"{'how':<40}{'least':>8}{'median':>8}{'found':>8}{'early':>8}{'holds':>8}{'1st note':>10}"
          + "".join(f"{name:>18}" for name in RULES))
    for name, x in fills():
        x = np.clip(x, 0, 1)
        began, end = int(2 * DAY_S / STEP_S), len(x)
        run = play(x, DAY_S)
        early = sum(k < began for found in run.alarms.values() for k in found)
        left = _left(run.alarms, began, end)
        holds = [low <= (end - k) * STEP_S <= high for told in run.told.values() for k, low, high in told if k >= began]
        noted = _left(run.notes, began, end)
        print(f"{name:<40}{min(left, default=0):>8.2f}{_median(left):>8.2f}{f'{len(left)}/{SERIES}':>8}{early:>8}"
              f"{np.mean(holds) if holds else np.nan:>8.2f}{_median(noted):>10.1f}"
              + "".join(f"{_median(_left(rule(x), began, end)):>18.2f}" for rule in RULES.values()))


def _left(alarms: Mapping[int, list[int]], began: int, end: int) -> list[float]:
    firsts = (next((k for k in found if k >= began), None) for found in alarms.values())
    return [(end - k) * STEP_S / HOUR_S for k in firsts if k is not None]


def _median(values: list[float]) -> float:
    return float(np.median(values)) if values else 0.0


# ------------------------------------------------------------------------------------------------------- coverage
def coverage(series: int = 100, days: float = 3.0) -> None:
    """Brownian motion with drift from 40 % on, as the interval assumes, of disks that are a month old: does it hold the end?"""
    print(f"\nBrownian motion with drift, {series} series each: share of forecasts whose 90 % interval holds the end")
    print(f"{'mean hours to the end, diffusion':<40}{'first':>8}{'all':>8}{'told':>8}{'median width / time left':>28}")
    for fill_h in (6.0, 24.0):
        for wander in (0.05, 0.1, 0.3):  # standard deviation over the whole fill, as share of the room
            x, ends = brownian(series, days, fill_h, wander)
            run = play(x, DAY_S, known_s=30 * DAY_S)
            rows = [[((ends[c] - k) * STEP_S, low, high) for k, low, high in told if k < ends[c]]
                    for c, told in run.told.items() if np.isfinite(ends[c])]
            rows = [row for row in rows if row]
            first = [row[0][1] <= row[0][0] <= row[0][2] for row in rows]
            each = [low <= t <= high for row in rows for t, low, high in row]
            width = [(high - low) / t for row in rows for t, low, high in row]
            print(f"{f'{fill_h:g} h, {wander:g}':<40}{_mean(first):>8.2f}{_mean(each):>8.2f}{len(rows):>8}"
                  f"{np.median(width) if width else np.nan:>28.2f}")


def _mean(values: list[bool]) -> float:
    return float(np.mean(values)) if values else float("nan")


def brownian(series: int, days: float, fill_h: float, wander: float) -> tuple[Floats, Floats]:
    """Shares in use, and the tick at which each is full (inf where it is not)."""
    r, ticks, room = np.random.default_rng(3), int(days * DAY_S / STEP_S), 0.6
    per_tick = STEP_S / (fill_h * HOUR_S)
    x = 1 - room + np.cumsum(room * per_tick + room * wander * np.sqrt(per_tick) * r.standard_normal((ticks, series)), axis=0)
    full = x >= 1
    ends = np.where(full.any(axis=0), full.argmax(axis=0).astype(np.float64), np.inf)
    x[np.arange(ticks)[:, None] > ends] = np.nan
    return np.maximum(x, 0.0), ends


def main(arguments: list[str]) -> None:
    parts: dict[str, Any] = {"coverage": coverage, "leads": leads, "false_alarms": lambda: false_alarms(7.0)}
    wanted = [a for a in arguments if re.fullmatch("|".join(parts), a)] or list(parts)
    for name in wanted:
        parts[name]()
    x = np.random.default_rng(4).uniform(0.4, 0.6, (1000, 1000))
    print(f"\n{'1,000 signals with a limit, ms a step':<40}{play(x, DAY_S).seconds:>8.2f}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
