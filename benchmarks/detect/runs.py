"""Runs a detector over all cases and keeps what peers said, which does not change from day to day."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from aiops.score import Scorer
from aiops.types import Bools, Floats
from benchmarks.detect import events, peers
from benchmarks.detect.cases import Case

LEAST_P = 1e-320
WARM = 200


@dataclass(frozen=True, eq=False)
class Result:
    """What a detector made of one case: rank float64[n] (more is odder), alarm bool[n], seconds of processor time."""

    rank: Floats
    alarm: Bools
    seconds: float


def ours(case: Case) -> tuple[Floats, Bools]:
    """`aiops score` in this process: ranked by -log10 of its p-value, alarms as shipped."""
    out = Scorer(case.columns).run(case.times, case.values)
    p = np.asarray(out["p_value"], np.float64)
    return -np.log10(np.clip(p, LEAST_P, 1.0)), np.asarray(out["anomaly"]) == 1


def command_differs(case: Case) -> str:
    """Runs `aiops score` on the file as a user would. "" where every figure is the one of this process, else the column."""
    here = Scorer(case.columns).run(case.times, case.values)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.csv"
        arguments = ["score", str(case.path), "--columns", ",".join(case.columns), "-o", str(out)]
        subprocess.run([sys.executable, "-m", "aiops.cli", *arguments], check=True)
        there = pd.read_csv(out)
    for name, values in here.items():
        written = np.array([float(f"{v:.9g}") for v in values])
        if not np.array_equal(written, there[name].to_numpy(np.float64), equal_nan=True):
            return name
    return ""


def over(cases: Sequence[Case], peer: str | None, jobs: int = 1, cache: Path | None = None) -> list[Result]:
    """The results of a peer, by its key, or ours for None, in the order of the cases. Ours are never taken from the cache."""
    work: Callable[[Case], Result] = partial(_measured, peer)
    if peer is not None and cache is not None:
        work = partial(_cached, peer, cache)
    if jobs == 1:
        return [work(case) for case in cases]
    with ProcessPoolExecutor(jobs) as pool:
        return list(pool.map(work, cases))


def _measured(peer: str | None, case: Case) -> Result:
    """Imports and compilation of the first rows are not counted."""
    run = ours if peer is None else peers.PEERS[peer].run
    run(replace(case, times=case.times[:WARM], values=case.values[:WARM]))
    began = time.process_time()
    rank, alarm = run(case)
    return Result(rank, alarm, time.process_time() - began)


def _cached(peer: str, cache: Path, case: Case) -> Result:
    path = cache / f"{_key(peer, case)}.npz"
    if path.is_file():
        with np.load(path) as kept:
            return Result(kept["rank"], kept["alarm"], float(kept["seconds"]))
    result = _measured(peer, case)
    cache.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, rank=result.rank, alarm=result.alarm, seconds=result.seconds)
    return result


def _key(peer: str, case: Case) -> str:
    """Changes with the data, with the peer's library and with the code that calls it."""
    code = [Path(str(module.__file__)).read_bytes() for module in (peers, events)]
    what = [repr((peer, peers.PEERS[peer].version, case.warmup, case.interval_s)).encode(), *code]
    return hashlib.sha256(b"\0".join([*what, case.times.tobytes(), case.values.tobytes()])).hexdigest()[:32]
