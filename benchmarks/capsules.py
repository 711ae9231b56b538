"""What a capsule costs: seconds and bytes for one incident out of 10,000 series, and what the step pays for ordering it.

Two and a quarter hours of a journal at 15 s, services of ten series each that call one another in tens; what was learned of all
series is saved before. The capsule is made by the process that the daemon starts.

    python benchmarks/capsules.py [SERIES] [TICKS]
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from aiops import build, meaning
from aiops.sinks.capsules import Bounds, Capsules, Origin
from aiops.sinks.journal import JournalWriter
from aiops.store.capsules import listing
from aiops.store.models import ModelFiles
from aiops.types import Alert, Batch, Edge, Incident, Links, LogLine, Report, Series

T0, STEP_S, EACH = 1_000_000_000.0, 15.0, 10
SAVED_AT = 480


def main(series: int = 10_000, ticks: int = 540) -> None:
    """Prints one JSON object."""
    with tempfile.TemporaryDirectory() as scratch:
        store = Path(scratch)
        files = ModelFiles(store / "models")
        writer = JournalWriter(store / "journal", {"started_at": T0, "version": "bench", "config": json.dumps(
            {"detectors": ["baseline", "absence"], "sources": [{"host": {}}]})})
        pipeline = build.pipeline(meaning.shipped(), (), "observe", ["baseline", "absence"])
        for k in range(ticks):
            batch = _batch(k, series)
            writer.write(batch)
            if SAVED_AT - 40 <= k <= SAVED_AT:
                pipeline.step(batch if k > SAVED_AT - 40 else _first(batch, series))
            if k == SAVED_AT:
                files.write(pipeline.learned())
        writer.close()
        print(json.dumps(_measured(store, series, ticks, writer.run, files)))


def _batch(k: int, series: int) -> Batch:
    at, ids = T0 + k * STEP_S, np.arange(series, dtype=np.int32)
    value = np.random.default_rng(k).normal(100.0, 5.0, series).round(3)
    lines = tuple(LogLine(
        at, f"service/shop/s{i}", f"INFO request {k}-{i} done in {i % 90} ms") for i in range(0, series // EACH, 5))
    batch = Batch(at, ids, np.full(series, at), value, lines=lines)
    return _first(batch, series) if k == 0 else batch


def _first(batch: Batch, series: int) -> Batch:
    services = series // EACH
    new = tuple(Series(i, f"service/shop/s{i // EACH}", f"metric_{i % EACH}") for i in range(series))
    edges = tuple(Edge(f"service/shop/s{i}", f"service/shop/s{i + 1}") for i in range(services - 1) if i % 10 != 9)
    return Batch(batch.at, batch.series, batch.time, batch.value, new, batch.lines, links=Links((), edges))


def _measured(store: Path, series: int, ticks: int, run: str, files: ModelFiles) -> dict[str, object]:
    opened_at = T0 + (SAVED_AT + 20) * STEP_S
    alerts = (Alert("k", "service/shop/s55", "metric_1", "firing", opened_at, opened_at, 0.99, 1e-9),)
    incident = Incident("inc-bench", opened_at, opened_at, "closed", "warning", ("service/shop/s55",), alerts,
                        closed_at=opened_at + 300.0)
    origin = Origin(store / "journal", run, STEP_S, files.link_into, dict, lambda: 9.0)
    sink = Capsules(store / "capsules", origin, Bounds())
    still = replace(incident, state="open", closed_at=None)
    began = time.perf_counter()
    sink.publish(Report(T0 + ticks * STEP_S, incidents=(still,)))
    published = time.perf_counter() - began
    while not (sink.made or sink.failed):
        time.sleep(0.01)
    took = time.perf_counter() - began
    sink.close()
    [made] = listing(store / "capsules")
    journal = sum(p.stat().st_size for p in (store / "journal").iterdir() if p.is_file())
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"series": series, "ticks": ticks, "in_the_step_s": round(published, 4), "made_s": round(took, 2),
            "cpu_s": round(usage.ru_utime + usage.ru_stime, 2), "peak_MiB": round(usage.ru_maxrss / 1024),
            "journal_bytes": journal, "problem": sink.problem, "capsule": {
                k: made[k] for k in ("series", "samples", "log_lines", "bytes")}}


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
