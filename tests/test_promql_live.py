"""From a Prometheus to signals that are judged: two weeks of history through the live shell, and then the present."""

from __future__ import annotations

import itertools
import math
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiops import build, meaning
from aiops.clock import ManualClock, WallClock
from aiops.intake import Intake
from aiops.live import Live
from aiops.loop import NoActuator
from aiops.sources.access import SourceError
from aiops.sources.prometheus.api import PromApi, Wanted
from aiops.sources.prometheus.source import PrometheusSource
from aiops.sources.supervisor import Supervised
from aiops.types import Batch

DAYS, STEP_S = 14, 300
NAMES = {"node_load1": "gauge", "node_procs_blocked": "gauge", "node_disk_io_time_seconds_total": "counter"}


def openmetrics(end: int, nodes: int) -> Iterator[str]:
    """Two weeks of a daily wave with a ripple, one sample in five minutes."""
    for m, (name, kind) in enumerate(NAMES.items()):
        yield f"# TYPE {name.removesuffix('_total') if kind == 'counter' else name} {kind}\n"
        for n in range(nodes):
            total = 0.0
            for k in range(DAYS * 86400 // STEP_S):
                at = end - DAYS * 86400 + k * STEP_S
                level = 10 + 5 * math.sin(2 * math.pi * at / 86400) + (k * 7919 % 13) / 13
                total += level * STEP_S
                value = total if kind == "counter" else level * 10 ** m
                yield f'{name}{{instance="n{n}:9100",job="node"}} {value:.3f} {at}\n'
    yield "# EOF\n"


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """A real Prometheus over two weeks that were written with promtool, with a low limit on samples in memory; and their end."""
    end = int(WallClock().now()) // STEP_S * STEP_S
    (tmp_path / "past.om").write_text("".join(openmetrics(end, 4)))
    subprocess.run(["promtool", "tsdb", "create-blocks-from", "openmetrics", str(tmp_path / "past.om"), str(tmp_path / "tsdb")],
                   check=True, capture_output=True, timeout=120)
    (tmp_path / "p.yml").write_text("{}\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [shutil.which("prometheus") or "prometheus", f"--config.file={tmp_path / 'p.yml'}",
         f"--storage.tsdb.path={tmp_path / 'tsdb'}", "--storage.tsdb.retention.time=60d", "--query.max-samples=200",
         f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"])
    try:
        yield f"http://127.0.0.1:{port}", end
    finally:
        process.terminate()
        process.wait(20)


def wait_for(url: str) -> None:
    api, pause = PromApi(url, retries=0), threading.Event()
    for _ in range(150):
        try:
            api.read(Wanted(0.0, 1.0, match="up"))
            break
        except SourceError:
            pause.wait(0.2)
    api.close()


@pytest.mark.slow
@pytest.mark.real("prometheus", "promtool")
def test_two_weeks_of_history_make_signals_ready(stored: tuple[str, int]) -> None:
    """Every stored sample once and in order, however little the server wants to load at a time; then all is judged."""
    url, end = stored
    wait_for(url)
    clock = ManualClock(float(end))
    source = PrometheusSource("prometheus", url, packs=["node"], interval_s=STEP_S, share=1.0)
    batches: list[Batch] = []
    pipeline = build.pipeline(meaning.shipped(), (), "observe", ("baseline", "absence"))
    live = Live(pipeline, [Supervised(source, clock)], Intake(STEP_S), NoActuator(), [], clock, STEP_S, batches.append)
    live.tick()
    assert live.sources[0].filled and live.last is not None
    got = sorted((int(s), t) for b in batches for s, t in zip(b.series, b.time, strict=True))
    assert len(got) == len(set(got)) == 4 * len(NAMES) * (DAYS * 86400 // STEP_S - 1), "the begin itself is not part of it"
    assert all(a.at < b.at for a, b in itertools.pairwise(batches))
    assert live.last.counts.ready == live.last.counts.signals >= 4 * len(NAMES)
    assert live.last.counts.dropped == {} and "history" not in source.notes
    source.close()
