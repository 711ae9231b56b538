"""How fast the pure step is, and what a series costs. Run with `make bench`.

Synthetic telemetry: noisy daily sines, ten signals an entity, seeded. Wall time of this process on whatever machine this
is; read ratios, not absolute figures.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator

import numpy as np

from aiops import build, meaning
from aiops.types import Batch, Series


def telemetry(series: int, ticks: int, step_s: float, seed: int = 0) -> Iterator[Batch]:
    """`ticks` batches of one sample a series."""
    rng = np.random.default_rng(seed)
    level, swing = rng.uniform(10, 100, series), rng.uniform(0, 0.3, series)
    ids = np.arange(series, dtype=np.int32)
    new = tuple(Series(i, f"service//s{i // 10}", f"metric_{i % 10}", "", "gauge") for i in range(series))
    for k in range(ticks):
        at = 1_700_000_000.0 + k * step_s
        season = 1 + swing * np.sin(2 * np.pi * at / 86400.0)
        yield Batch(at, ids, np.full(series, at), level * season * rng.normal(1, 0.02, series), new if k == 0 else ())


def run(series: int, ticks: int, step_s: float) -> tuple[float, float]:
    """Seconds in `step`, and bytes of resident memory that were added per series."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pipeline = build.pipeline(meaning.shipped(), (), "observe")
    spent = 0.0
    for batch in telemetry(series, ticks, step_s):
        began = time.perf_counter()
        pipeline.step(batch)
        spent += time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return spent, (after - before) * 1024 / series


def main() -> None:
    print(f"{'what':<44}{'result':>16}")
    for series, ticks in ((1_000, 600), (100_000, 30)):
        spent, size = run(series, ticks, 15.0)
        print(f"{f'step, {series:,} series, samples/s':<44}{series * ticks / spent:>16,.0f}")
        print(f"{f'step, {series:,} series, bytes/series':<44}{size:>16,.0f}")
    spent, _ = run(500, 5760, 15.0)
    print(f"{'a day at 15 s x 500 series, seconds':<44}{spent:>16.1f}")
    print(f"{'hours replayed per second':<44}{24 / spent:>16.1f}")


if __name__ == "__main__":
    sys.exit(main())
