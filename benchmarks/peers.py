"""How fast `peers` is, how soon it finds a straggler, and how often it is wrong. Run with `make bench`.

Synthetic fleets, seeded: the members of a group share a wave, steps and a level, differ from each other by up to a quarter
for good, and have noise of their own: independent, heavy-tailed (Student t, 3 degrees of freedom) or wandering (an
autoregression). Beside it the usual rule: an alarm when a member is beyond 3.5 robust z-scores (median and MAD of the group)
three times in a row. Times of the machine that this runs on; all else is the same everywhere.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from aiops.alerting import Alerting
from aiops.types import Frame, Signal
from detectors.peers import REPORT_P, Peers

STEP_S, START_S = 15.0, 1_700_000_000.0
HOUR, DAY = 240, 5760
MIN_REL = 0.25


def signals(groups: int, members: int) -> tuple[Signal, ...]:
    """As the door makes them of a metric that no pack knows."""
    return tuple(Signal(g * members + k, f"job/ml/job-{g}", "step_seconds", f'rank="{k}"', direction="up", min_rel=MIN_REL)
                 for g in range(groups) for k in range(members))


def fleet(groups: int, members: int, ticks: int, share: float, kind: str = "independent", seed: int = 0) -> np.ndarray[Any, Any]:
    """float64[ticks, groups, members]."""
    rng = np.random.default_rng(seed)
    shape, k = (ticks, groups, members), np.arange(ticks)[:, None, None]
    wave = 0.4 * np.sin(2 * np.pi * (k / (4 * HOUR) + rng.uniform(0, 1, (1, groups, 1))))
    level = rng.uniform(1, 50, (1, groups, 1)) * (1 + wave)
    for g in range(groups):
        for at in rng.integers(0, ticks, max(1, ticks // (2 * HOUR))):
            level[at:, g] *= rng.uniform(0.7, 1.4)
    e = rng.standard_t(3, shape) / 3**0.5 if kind == "heavy tails" else rng.standard_normal(shape)
    if kind.startswith("wandering"):
        keep = 1 - STEP_S / float(kind.split()[1])
        for i in range(1, ticks):
            e[i] = keep * e[i - 1] + (1 - keep * keep)**0.5 * e[i]
    return np.asarray(level * rng.uniform(0.8, 1.25, (1, groups, members)) * (1 + share * e))


def frames(x: np.ndarray[Any, Any]) -> Iterator[Frame]:
    of, learn = signals(*x.shape[1:]), np.ones(x[0].size, np.bool_)
    for k, row in enumerate(x):
        yield Frame(START_S + k * STEP_S, row.ravel(), learn, of)


def run(x: np.ndarray[Any, Any]) -> tuple[float, list[tuple[int, int]]]:
    """The share of p-values below 0.001, and (tick, column) of each alarm at a budget of one a day over this fleet."""
    detector, alerting, told, alarms = Peers(), Alerting(), 0, []
    firing: set[str] = set()
    place = {f"{s.entity}|{s.key}": s.id for s in signals(*x.shape[1:])}
    for k, frame in enumerate(frames(x)):
        found = detector.observe(frame)
        told += sum(a.p_value <= REPORT_P for a in found)
        now = {a.key for a in alerting.update(frame, found) if a.state == "firing"}
        alarms += [(k, place[key]) for key in sorted(now - firing)]
        firing = now
    return told / x.size, alarms


def rule(x: np.ndarray[Any, Any], limit: float = 3.5, times: int = 3) -> list[tuple[int, int]]:
    """(tick, column) of each alarm of the usual rule, in the bad direction and with the same least effect."""
    middle = np.median(x, axis=2, keepdims=True)
    mad = 1.4826 * np.median(np.abs(x - middle), axis=2, keepdims=True)
    odd = ((x - middle > limit * mad) & (x - middle > 0.1 * MIN_REL * middle)).reshape(len(x), -1)
    row = np.lib.stride_tricks.sliding_window_view(odd, times, axis=0).all(axis=2)
    new = row & ~np.vstack([np.zeros((1, row.shape[1]), np.bool_), row[:-1]])
    return [(int(k) + times - 1, int(c)) for k, c in np.argwhere(new)]


def delays(alarms: list[tuple[int, int]], start: int, members: int, sick: int) -> tuple[list[float], int]:
    """Minutes to the first alarm of each sick member, and how many alarms were about somebody or something else."""
    first: dict[int, int] = {}
    for k, column in alarms:
        if k >= start and column % members < sick:
            first.setdefault(column, k)
    wrong = sum(k < start or c % members >= sick for k, c in alarms)
    return sorted((k - start + 1) * STEP_S / 60 for k in first.values()), wrong


def speed() -> None:
    print(f"{'signals':>9} {'groups':>7} {'ms a step':>10} {'signals/s':>12}")
    for groups, members in ((1, 8), (100, 10), (1_000, 20), (5_000, 20), (100, 1_000)):
        x = 10 + np.random.default_rng(0).normal(0, 0.2, (60, groups, members))
        detector, spent = Peers(), []
        for frame in frames(x):
            began = time.perf_counter()
            detector.observe(frame)
            spent.append(time.perf_counter() - began)
        middle = float(np.median(spent[20:]))
        print(f"{groups * members:>9,} {groups:>7,} {1e3 * middle:>10.2f} {groups * members / middle:>12,.0f}")


def found() -> None:
    """One hour of history would do; six are given, so that tails are learned. The fault lasts 20 minutes."""
    print(f"\n{'ranks':>6} {'sick':>5} {'slower':>7} {'noise':>6} {'found':>7} {'median':>7} {'p90':>6} {'wrong':>6}   "
          f"{'rule: found':>11} {'median':>7} {'wrong':>6}")
    start, last = 6 * HOUR, 80
    for members, sick, slower, share in ((8, 1, 0.05, 0.01), (8, 1, 0.05, 0.02), (64, 1, 0.05, 0.02), (4, 1, 0.05, 0.02),
                                         (3, 1, 0.05, 0.01), (5, 2, 0.05, 0.01), (8, 1, 0.10, 0.05), (8, 1, 0.5, 0.02)):
        groups = max(16, 256 // members)
        x = fleet(groups, members, start + last, share, seed=members)
        x[start:, :, :sick] *= 1 + slower
        ours, wrong = delays(run(x)[1], start, members, sick)
        theirs, noise = delays(rule(x), start, members, sick)
        many = groups * sick
        print(f"{members:>6} {sick:>5} {slower:>7.0%} {share:>6.0%} {len(ours) / many:>7.0%} {_minutes(ours, many, 0.5):>7} "
              f"{_minutes(ours, many, 0.9):>6} {wrong:>6}   "
              f"{len(theirs) / many:>11.0%} {_minutes(theirs, many, 0.5):>7} {noise:>6}")


def _minutes(of: list[float], many: int, share: float) -> str:
    return f"{of[int(share * many)]:.1f}" if len(of) > share * many else "-"


def calm() -> None:
    """A day on which nothing happens to any one member, at a budget of one false alarm."""
    print(f"\n{'a calm day':<18} {'ranks':>6} {'signals':>8} {'p < 0.001':>10} {'alarms':>7} {'alarms by the rule':>19}")
    for kind, members, share in (("independent", 8, 0.02), ("independent", 8, 0.10), ("independent", 3, 0.10),
                                 ("independent", 64, 0.10), ("heavy tails", 8, 0.10), ("wandering 150", 8, 0.10),
                                 ("wandering 1500", 8, 0.05)):
        groups = 256 // members
        x = fleet(groups, members, DAY, share, kind, seed=1)
        told, alarms = run(x)
        print(f"{kind:<18} {members:>6} {groups * members:>8} {told:>10.5f} {len(alarms):>7} {len(rule(x)):>19,}")


def main() -> None:
    speed()
    found()
    calm()


if __name__ == "__main__":
    sys.exit(main())
