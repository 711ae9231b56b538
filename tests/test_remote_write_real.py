"""Debian's real Prometheus pushes: into the receiving end, and into a daemon of its own process."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest
from fakes.prometheus import running
from test_run import CLOCK, Running, until

from aiops.intake import Intake
from aiops.meaning import shipped
from aiops.sources.remote_write import RemoteWriteSource
from aiops.types import Batch
from aiops.web.app import create_app
from aiops.web.server import Server

sys.path.insert(0, str(Path(__file__).with_name("browser")))
from web_demo import calm

pytestmark = [pytest.mark.real("prometheus"), pytest.mark.slow]
READY_S = 60.0
QUEUE = "queue_config: {batch_send_deadline: 200ms, min_backoff: 50ms, max_backoff: 200ms, retry_on_http_429: true}"


def pushing(url: str, token: Path | None = None) -> str:
    """What is added to the configuration of a Prometheus."""
    authorization = f"authorization: {{credentials_file: {token}}}, " if token else ""
    return f"remote_write: [{{url: '{url}/api/v1/write', {authorization}{QUEUE}}}]\n"


class Receiving:
    """A server with a source behind it, and all that came in."""

    def __init__(self, token: str | None) -> None:
        self.source = RemoteWriteSource("remote_write", shipped())
        self.intake, self.batches = Intake(15.0), list[Batch]()
        view = calm()
        view.token = token
        self.server = Server(create_app(view, receiver=self.source), port=0)
        self.server.start()

    @property
    def ended(self) -> list[int]:
        """The numbers of series whose sender says that they ended."""
        return np.flatnonzero(self.intake.catalogue._ended).tolist()

    def samples(self, metric: str) -> list[tuple[float, float]]:
        """Time and value of every sample of a metric up to now."""
        self.source.poll(CLOCK.now(), self.intake)
        self.batches += self.intake.drain(CLOCK.now())
        ids = {s.id for b in self.batches for s in b.new_series if s.metric == metric}
        return [(t, v) for b in self.batches for i, t, v in zip(b.series.tolist(), b.time.tolist(), b.value.tolist(), strict=True)
                if i in ids]


@contextmanager
def receiving(token: str | None = None) -> Iterator[Receiving]:
    one = Receiving(token)
    try:
        yield one
    finally:
        one.server.stop()


def test_a_real_prometheus_is_understood_also_after_its_restart(tmp_path: Path) -> None:
    """All it scrapes arrives, with a token; nothing is refused; and after a restart the same series have the same numbers."""
    (tmp_path / "token").write_text("s3cret\n")
    with receiving("s3cret") as got:
        for life in (1, 2):
            with running(tmp_path, "itself", pushing(got.server.url, tmp_path / "token")):
                before = len(got.samples("up"))
                until(lambda: len(got.samples("up")) > before + 5, READY_S, f"five samples of up in life {life}")  # noqa: B023
        assert {v for _, v in got.samples("up")} == {1.0}
        assert len(got.samples("prometheus_tsdb_head_samples_appended_total")) > 5
        names = {(s.entity, s.metric, s.labels) for b in got.batches for s in b.new_series}
        assert len(names) == sum(len(b.new_series) for b in got.batches) > 300
        assert not set(got.source.requests) - {"204"} and not set(got.source.skipped) - {"not_watched", "not_a_number"}


def test_prometheus_sends_again_what_was_refused_under_pressure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """429 for a while: afterwards no scrape is missing."""
    with receiving() as got, running(tmp_path, "itself", pushing(got.server.url)):
        until(lambda: len(got.samples("up")) > 3, READY_S, "the first samples")
        monkeypatch.setattr("aiops.intake.MAX_SAMPLES", 0)
        until(lambda: got.source.requests["429"] > 3, READY_S, "three refusals")
        monkeypatch.setattr("aiops.intake.MAX_SAMPLES", 8_000_000)
        seen = len(got.samples("up"))
        until(lambda: len(got.samples("up")) > seen + 10, READY_S, "ten more samples")
        times = sorted({t for t, _ in got.samples("up")})
        assert max(b - a for a, b in pairwise(times)) < 1.0, "every scrape, at five a second"
        assert not set(got.source.requests) - {"204", "429"}


def test_a_target_that_goes_away_is_told_as_ended(tmp_path: Path) -> None:
    """By the staleness markers that Prometheus writes when a target leaves its configuration."""
    with receiving() as got, running(tmp_path, "itself", pushing(got.server.url)) as url:
        until(lambda: len(got.samples("up")) > 3, READY_S, "the first samples")
        config = (tmp_path / "p.yml").read_text()
        (tmp_path / "p.yml").write_text(re.sub(r"targets: \[.*?\]", "targets: []", config))
        reload(url)
        until(lambda: got.samples("up") and len(got.ended) > 100, READY_S, "a hundred series that ended")
        numbers = {s.id for b in got.batches for s in b.new_series}
        assert set(got.ended) <= numbers


def reload(url: str) -> None:
    """SIGHUP to the Prometheus that listens there: found by its port, started by this test."""
    import signal

    import psutil

    port = url.rpartition(":")[2]
    alive = [p for p in psutil.Process().children() if p.status() != psutil.STATUS_ZOMBIE]
    [process] = [p for p in alive if any(port in part for part in p.cmdline())]
    process.send_signal(signal.SIGHUP)


@pytest.fixture
def started() -> Iterator[Callable[..., Running]]:
    """Starts daemons; none outlives the test."""
    daemons: list[Running] = []

    def start(*arguments: Any) -> Running:
        daemons.append(Running(*arguments))
        return daemons[-1]
    yield start
    for one in daemons:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait(20)


def test_a_daemon_that_only_listens_watches_what_is_pushed(tmp_path: Path, started: Callable[..., Running]) -> None:
    """Nothing but `remote_write` in its sources: signals, status, metrics, and which decoder is at work."""
    one = started(tmp_path / "aiops", "store: state\nlisten: 127.0.0.1:0\ninterval: 1s\nsources:\n  - remote_write: {}\n")
    with running(tmp_path, "itself", pushing(one.url())):
        status = until(lambda: (s := one.status())["counts"].get("samples", 0) > 2000 and s, READY_S, "two thousand samples")
        [source] = [s for s in status["sources"] if s["name"] == "remote_write"]
        assert source["state"] == "ok" and status["counts"]["signals"] > 100
        with urlopen(one.url() + "/metrics", timeout=5) as answer:
            text = answer.read().decode()
    assert 'aiops_remote_write_requests_total{status="204"}' in text
    assert 'aiops_remote_write_series{decoder="' in text
    assert '"decoder": "' in one.text() or "decoder=" in one.text()
