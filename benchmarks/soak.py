"""An hour of a cluster: a real daemon is pushed to over loopback, series come and go, and its CPU time and memory are read.

    python benchmarks/soak.py --series 200000 --minutes 60 --churn 1

`aiops run` with a remote_write source only, in a process and a folder of its own. Each series is pushed every 15 seconds, in
bodies of 2,000 spread evenly, remote-write 1.0. Each minute `churn` per cent of the pods end (with staleness markers) and as many
others begin. Printed once a minute: CPU time of the daemon in cores, resident memory, series, and what was not taken. At the end
every sample that was sent must have been taken. Bounded: it stops by itself after `minutes`, or when the daemon ends.

    python benchmarks/soak.py --rehearse --series 40000 --minutes 240 --churn 5

The same without a daemon and without waiting: source, intake and pipeline in this process, once a minute of simulated time, with
a save every quarter of an hour. It ends well when resident memory in the second half, in which all series were replaced several
times, stays within two per cent; printed are also what each move of columns took and how high memory went.
"""

from __future__ import annotations

import argparse
import gc
import http.client
import re
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import cramjam
import numpy as np
import psutil

from aiops import build, meaning
from aiops.daemon import RARELY
from aiops.intake import Intake
from aiops.sources.remote_write import RemoteWriteSource
from aiops.store.models import ModelFiles
from benchmarks.remote_write import METRICS, digest

EVERY_S, PER_BODY, PER_POD = 15.0, 2000, 40
STALE = 0x7FF0000000000002


def series_of(pod: int) -> list[bytes]:
    """The 40 series of a pod as the labels' part of a TimeSeries message: it stays the same from push to push."""
    app = f"checkout-service-{pod // 5 % 200}"
    out = []
    for i in range(PER_POD):
        named = {"__name__": METRICS[i // 4].replace("_bucket", "_seconds"), "container": app, "job": "kubelet",
                 "namespace": f"team-{pod // 50 % 40:02d}", "pod": f"{app}-{digest(f'r{pod // 5}', 10)}-{digest(f'p{pod}', 5)}",
                 "node": f"ip-10-{pod // 20 % 256}-{pod % 20}", "shard": str(i % 4)}
        out.append(b"".join(_field(1, _field(1, k.encode()) + _field(2, v.encode())) for k, v in sorted(named.items())))
    return out


def _field(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(data)) + data


def _varint(n: int) -> bytes:
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes([*out, n])


@dataclass
class Fleet:
    """Which pods there are, and how far their counters have come."""

    pods: int
    first: int = 0
    labels: dict[int, list[bytes]] = field(default_factory=dict)
    values: dict[int, np.ndarray[tuple[int], np.dtype[np.float64]]] = field(default_factory=dict)
    dice: np.random.Generator = field(default_factory=lambda: np.random.default_rng(1))

    def push(self, pod: int, at_ms: int, end: bool = False) -> list[bytes]:
        """A sample of each of its series; staleness markers when it ends."""
        if pod not in self.labels:
            self.labels[pod], self.values[pod] = series_of(pod), self.dice.uniform(0, 1e6, PER_POD)
        self.values[pod] += self.dice.gamma(4.0, 25.0, PER_POD)
        stamp = _varint(at_ms)
        values = [struct.pack("<Q", STALE)] * PER_POD if end else [struct.pack("<d", v) for v in self.values[pod].tolist()]
        return [_field(1, labels + _field(2, b"\x09" + value + b"\x10" + stamp))
                for labels, value in zip(self.labels[pod], values, strict=True)]

    def renew(self, count: int, at_ms: int) -> list[bytes]:
        """So many of the oldest pods end, others take their place. The markers of those that end."""
        ended = [m for pod in range(self.first, self.first + count) for m in self.push(pod, at_ms, end=True)]
        for pod in range(self.first, self.first + count):
            del self.labels[pod], self.values[pod]
        self.first += count
        return ended


class Sender:
    """Pushes bodies; a refused one is sent again."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self.samples, self.answers = 0, Counter[int]()

    def send(self, messages: list[bytes]) -> None:
        self.push(bytes(cramjam.snappy.compress_raw(b"".join(messages))))
        self.samples += len(messages)

    def push(self, body: bytes) -> None:
        """One body."""
        for _ in range(20):
            self.connection.request("POST", "/api/v1/write", body, {"Content-Type": "application/x-protobuf",
                                                                    "Content-Encoding": "snappy"})
            answer = self.connection.getresponse()
            answer.read()
            self.answers[answer.status] += 1
            if answer.status == 204:
                return
            if answer.status != 429:
                raise RuntimeError(f"the daemon answered {answer.status}")
            time.sleep(1.0)
        raise RuntimeError("the daemon refused a body twenty times")


class Watched:
    """The daemon's figures."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process, self._ps, self._port = process, psutil.Process(process.pid), port
        self.cpu_s, self._then = self.cpu(), time.monotonic()

    def cpu(self) -> float:
        times = self._ps.cpu_times()
        return float(times.user + times.system)

    def metrics(self) -> dict[str, float]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        return {m[1]: float(m[2]) for m in re.finditer(r"^(aiops_\S+) (\S+)$", text, re.MULTILINE)}

    def line(self, minute: int, fleet: Fleet) -> tuple[float, float]:
        """Cores since the last line, and resident MB; printed."""
        now, cpu = time.monotonic(), self.cpu()
        cores, mb = (cpu - self.cpu_s) / (now - self._then), self._ps.memory_info().rss / 1e6
        self.cpu_s, self._then = cpu, now
        m = self.metrics()
        lost = {k: int(v) for k, v in m.items() if "dropped" in k and "created" not in k and v}
        print(f"{minute:>6}{cores:>9.3f}{mb:>9.0f}{m.get('aiops_series', 0):>11,.0f}{m.get('aiops_signals', 0):>11,.0f}"
              f"{fleet.first:>9}  {lost or ''}", flush=True)
        return cores, mb


def soak(series: int, minutes: int, churn: float, port: int) -> bool:
    fleet, pods = Fleet(series // PER_POD), series // PER_POD
    with tempfile.TemporaryDirectory() as folder:
        process = started(Path(folder), port)
        try:
            sender, watched = Sender(port), Watched(process, port)
            print(f"{'minute':>6}{'cores':>9}{'MB':>9}{'series':>11}{'signals':>11}{'ended':>9}  not taken")
            figures = [minute(fleet, pods, churn, sender, watched, k) for k in range(1, minutes + 1)]
            return told(figures, sender, watched)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def started(folder: Path, port: int) -> subprocess.Popen[str]:
    config = folder / "aiops.yaml"
    config.write_text(f"sources: [remote_write: {{}}]\nstore: {folder / 'state'}\nlisten: 127.0.0.1:{port}\n"
                      "journal: {maxBytes: 4GiB}\n")
    errors: TextIO = (folder / "log").open("w")
    process = subprocess.Popen([sys.executable, "-c", "from aiops.cli import main; raise SystemExit(main())", "run", "-c",
                                str(config)], stderr=errors, text=True)
    for _ in range(300):
        time.sleep(0.1)
        if process.poll() is not None:
            raise RuntimeError((folder / "log").read_text())
        if "Page:" in (folder / "log").read_text():
            return process
    raise RuntimeError("the daemon did not start")


def minute(fleet: Fleet, pods: int, churn: float, sender: Sender, watched: Watched, number: int) -> tuple[float, float]:
    """Four rounds of all series, and the change of pods; evenly over sixty seconds."""
    began = time.monotonic()
    per = PER_BODY // PER_POD
    for round_ in range(4):
        for k, start in enumerate(range(fleet.first, fleet.first + pods, per)):
            due = began + EVERY_S * (round_ + k * per / pods)
            time.sleep(max(0.0, due - time.monotonic()))
            at_ms = int(time.time() * 1000)
            sender.send([m for pod in range(start, min(start + per, fleet.first + pods)) for m in fleet.push(pod, at_ms)])
    sender.send(fleet.renew(round(pods * churn / 100), int(time.time() * 1000)))
    time.sleep(max(0.0, began + 60.0 - time.monotonic()))
    return watched.line(number, fleet)


def told(figures: list[tuple[float, float]], sender: Sender, watched: Watched) -> bool:
    """The verdict: CPU and memory of the second half, and whether every sample was taken."""
    time.sleep(2 * EVERY_S)
    m = watched.metrics()
    taken = sum(v for k, v in m.items() if k.startswith("aiops_remote_write_samples_total") and "refused" not in k)
    half = figures[len(figures) // 2:]
    stepped = m.get("aiops_samples_total", 0)
    print(f"sent {sender.samples:,}, taken {taken:,.0f}, stepped {stepped:,.0f}; answers {dict(sender.answers)}")
    print(f"second half: {np.mean([c for c, _ in half]):.3f} cores, {half[0][1]:,.0f} -> {half[-1][1]:,.0f} MB")
    return taken == sender.samples


# ------------------------------------------------------------------------------------------------------- rehearsal
class Rehearsal:
    """Source, intake and pipeline of a daemon, at a time that is told."""

    def __init__(self, folder: Path) -> None:
        gc.set_threshold(*RARELY)
        build.warm(("baseline", "isolation_forest"))
        self.intake, self.source = Intake(60.0), RemoteWriteSource("soak", meaning.shipped())
        self.core, self.files = build.pipeline(meaning.shipped(), (), "observe"), ModelFiles(folder)
        self.moves: list[float] = []
        tidy = self.core._tidy
        self.core._tidy = lambda at: self._timed(tidy, at)  # type: ignore[method-assign]

    def _timed(self, tidy: Callable[[float], None], at: float) -> None:
        before, began = len(self.core.door.signals), time.process_time()
        tidy(at)
        if len(self.core.door.signals) < before:
            self.moves.append(time.process_time() - began)

    def minute(self, number: int, fleet: Fleet, pods: int, churn: float) -> float:
        """One push of all series, the change of pods, and the step. Its CPU seconds."""
        at, per = 1.7e9 + 60.0 * number, PER_BODY // PER_POD
        self.source.poll(at, self.intake)
        for start in range(fleet.first, fleet.first + pods, per):
            some = range(start, min(start + per, fleet.first + pods))
            self._write([m for pod in some for m in fleet.push(pod, int(at * 1000))])
        self._write(fleet.renew(round(pods * churn / 100), int(at * 1000) + 1))
        began = time.process_time()
        for batch in self.intake.drain(at + 1.0):
            self.core.step(batch)
        took = time.process_time() - began
        if number % 15 == 0:
            self.files.write(self.core.learned())
        return took

    def _write(self, messages: list[bytes]) -> None:
        answer = self.source.write(bytes(cramjam.snappy.compress_raw(b"".join(messages))), 1)
        if answer.status != 204:
            raise RuntimeError(f"the source answered {answer.status}: {answer.text}")


def rehearse(series: int, minutes: int, churn: float) -> bool:
    fleet, pods, resident, process = Fleet(series // PER_POD), series // PER_POD, [], psutil.Process()
    with tempfile.TemporaryDirectory() as folder:
        daemon = Rehearsal(Path(folder))
        print(f"{'minute':>6}{'step s':>9}{'MB':>9}{'series':>11}{'signals':>11}{'ended':>9}{'moves':>7}")
        for k in range(1, minutes + 1):
            took = daemon.minute(k, fleet, pods, churn)
            resident.append(process.memory_info().rss / 1e6)
            if k % 10 == 0:
                print(f"{k:>6}{took:>9.3f}{resident[-1]:>9.0f}{len(daemon.intake.catalogue):>11,}"
                      f"{len(daemon.core.door.signals):>11,}{fleet.first:>9}{len(daemon.moves):>7}", flush=True)
    half, peak = resident[minutes // 2:], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    if daemon.moves:
        print(f"{len(daemon.moves)} moves: {np.median(daemon.moves):.3f} s CPU each, at most {max(daemon.moves):.3f} s")
    print(f"second half: {min(half):,.0f} to {max(half):,.0f} MB after a step, {peak:,.0f} MB at most in all")
    return max(half) <= 1.02 * half[0]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--series", type=int, default=20_000)
    parser.add_argument("--minutes", type=int, default=3)
    parser.add_argument("--churn", type=float, default=1.0, help="per cent of the pods a minute")
    parser.add_argument("--port", type=int, default=18750)
    parser.add_argument("--rehearse", action="store_true", help="in this process and simulated time: minutes pass in moments")
    given = parser.parse_args()
    if given.rehearse:
        return 0 if rehearse(given.series, given.minutes, given.churn) else 1
    return 0 if soak(given.series, given.minutes, given.churn, given.port) else 1


if __name__ == "__main__":
    sys.exit(main())
