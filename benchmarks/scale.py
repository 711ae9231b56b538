"""A million series in one process: seconds a step, bytes a series, save and restart; forests of 1,000 entities in one call.

    python benchmarks/scale.py [--series 1000000]

River beside it is a rough equivalent of what a seasonal baseline keeps, as one object a series: 168 hours x (EWMean + EWVar), one
EWMean + EWVar and one P2 quantile; a point of it is timed, and its memory. scikit-learn: an IsolationForest an entity, one row
each. CPU time (user) of this process; the first touch of memory is counted apart, as it depends on the machine.
"""

from __future__ import annotations

import argparse
import gc
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from aiops import build, meaning
from aiops.daemon import RARELY
from aiops.pipeline import Pipeline
from aiops.store.models import ModelFiles
from benchmarks.pipeline import telemetry
from detectors._forest import Stack, fitted, flattened

WARM = 34
"""Steps until every view is judged."""


def measured(what: str, work: Callable[[], Any]) -> tuple[Any, float]:
    """What it gives, and seconds of CPU time in user space; printed with those in the kernel and by the clock."""
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    result = work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    user = after.ru_utime - before.ru_utime
    print(f"{what:<58}{user:>8.2f} s, system {after.ru_stime - before.ru_stime:.2f} s, clock {time.perf_counter() - began:.2f} s",
          flush=True)
    return result, user


def resident() -> float:
    """Bytes."""
    return float(psutil.Process().memory_info().rss)


def pipeline() -> Pipeline:
    return build.pipeline(meaning.shipped(), (), "observe")


def steps(series: int) -> float:
    """Seconds a step when every series has a sample; then save, read, restore, and the first step after that."""
    gc.set_threshold(*RARELY)
    build.warm(("baseline", "isolation_forest"))
    before, core, spent = resident(), pipeline(), []
    batch = None
    for k, batch in enumerate(telemetry(series, WARM + 6, 15.0)):
        began = time.process_time()
        core.step(batch)
        spent.append(time.process_time() - began)
        if k == 0:
            print(f"{f'the first step: {series:,} series are met':<58}{spent[0]:>8.2f} s", flush=True)
    a_step = statistics.median(spent[WARM:])
    print(f"{f'a step, {series:,} series present, every detector':<58}{a_step:>8.3f} s")
    print(f"{'bytes a series, no season yet':<58}{(resident() - before) / series:>8,.0f}")
    assert batch is not None
    restart(core, replace(batch, at=batch.at + 60.0, time=batch.time + 60.0,
                          new_series=next(telemetry(series, 1, 15.0)).new_series))
    return a_step / series


def restart(core: Pipeline, batch: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        learned, _ = measured("what was learned is copied", core.learned)
        measured("and written", lambda: ModelFiles(Path(folder)).write(learned))
        learned = core = None  # type: ignore[assignment]
        gc.collect()
        again = pipeline()
        found, read = measured("restart: read", lambda: ModelFiles(Path(folder)).read())
        _, restored = measured("restart: restored", lambda: again.restore(found, found.at))
        _, first = measured("restart: the first step", lambda: again.step(batch))
        print(f"{'restart to scoring':<58}{read + restored + first:>8.2f} s")


def river_point() -> tuple[float, float]:
    """Seconds a point of the equivalent, and its bytes."""
    from river import stats

    class One:
        def __init__(self) -> None:
            self.season = [(stats.EWMean(), stats.EWVar()) for _ in range(168)]
            self.level, self.spread, self.high = stats.EWMean(), stats.EWVar(), stats.Quantile(0.99)

        def point(self, x: float, hour: int) -> float:
            mean, var = self.season[hour]
            z = (x - mean.get()) / (abs(var.get()) + 1e-9) ** 0.5
            for s in (mean, var, self.level, self.spread):
                s.update(x)
            self.high.update(abs(z))
            return z

    before = resident()
    many = [One() for _ in range(2000)]
    size = (resident() - before) / len(many)
    x = np.random.default_rng(0).normal(10, 1, 2000).tolist()
    spent = []
    for hour in range(30):
        began = time.process_time()
        for one, value in zip(many, x, strict=True):
            one.point(value, hour)
        spent.append((time.process_time() - began) / len(many))
    return statistics.median(spent), size


def forests(entities: int = 1000, width: int = 8, grown: int = 25) -> None:
    """One row each: scikit-learn's `score_samples` one after the other, and all forests in one call. The scores are equal."""
    rng = np.random.default_rng(0)
    models = [fitted(rng.integers(-300, 300, (256, width)).astype(np.int16), 100, 128, seed) for seed in range(grown)]
    stack = Stack([flattened(models[k % grown]) for k in range(entities)])
    rows, places = rng.integers(-300, 300, (entities, width)).astype(np.int16), np.arange(entities)
    ours = stack.scores(places, rows)  # compiles
    fast = statistics.median(timed(lambda: stack.scores(places, rows)) for _ in range(20))
    some = range(0, entities, 20)
    slow = statistics.median(timed(lambda k=k: models[k % grown].score_samples(rows[k:k + 1].astype(np.float32))) for k in some)
    theirs = np.array([-models[k % grown].score_samples(rows[k:k + 1].astype(np.float32))[0] for k in some])
    print(f"{f'{entities} forests, a row each, scikit-learn one by one':<58}{slow * entities:>8.3f} s")
    print(f"{f'{entities} forests, a row each, in one call':<58}{fast:>8.4f} s, {slow * entities / fast:,.0f} times as fast, "
          f"largest difference of a score {np.abs(theirs - ours[::20]).max():.1e}")


def timed(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--series", type=int, default=100_000)
    given = parser.parse_args()
    forests()
    ours = steps(given.series)
    theirs, size = river_point()
    print(f"{'river, a point of the equivalent; bytes a series':<58}{theirs * 1e6:>8.2f} us; {size:,.0f}")
    print(f"{'ours, a point with everything':<58}{ours * 1e6:>8.2f} us, {theirs / ours:.2f} times as fast")
    return 0


if __name__ == "__main__":
    sys.exit(main())
