"""What an answer of a Prometheus costs its reader: 100,000 series, the CPU time of one thread, both ways on the same bytes.

One way: prometheus_api_client parses the answer, and a dict finds the number of each series by its labels. The other: what
`aiops` does, from the bytes to the block that the pipeline takes. Both end with the same arrays; that is checked first.
Run: .venv/bin/python benchmarks/promql.py [--series 100000] [--samples 1] [--rounds 5]
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np
from prometheus_api_client import PrometheusConnect

from aiops.intake import Intake
from aiops.meaning import shipped
from aiops.sources.prometheus.api import PromApi, Wanted
from aiops.sources.prometheus.series import Catalogue

AT = 1_795_000_000.0
QUERY = '{__name__=~"container_.*"}[60s]'


def answer(series: int, samples: int) -> bytes:
    """A matrix as Prometheus encodes it: ten labels a series, 600 bytes, as cAdvisor writes them."""
    rows = []
    for k in range(series):
        pod = f"api-server-{k % 977:03d}-{k:06x}"
        labels = {"__name__": "container_memory_usage_bytes", "container": "server", "id": f"/kubepods.slice/{pod}/{'f' * 64}",
                  "image": f"registry.example.com/team/service@sha256:{'a' * 64}", "instance": f"10.0.{k % 250}.7:10250",
                  "job": "kubelet", "metrics_path": "/metrics/cadvisor", "name": f"{k:064x}", "namespace": f"team-{k % 40}",
                  "node": f"gpu-node-{k % 500}", "pod": pod}
        values = [[AT - 15 * (samples - j) + 0.123, repr(round(1e9 + 37.5 * k + j, 3))] for j in range(samples)]
        rows.append({"metric": labels, "values": values})
    return msgspec.json.encode({"status": "success", "data": {"resultType": "matrix", "result": rows}})


class Library:
    """prometheus_api_client, its JSON, and a dict of label tuples."""

    def __init__(self, url: str) -> None:
        self._client = PrometheusConnect(url)
        self._known: dict[tuple[tuple[str, str], ...], int] = {}

    def read(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        ids, times, values = [], [], []
        for row in self._client.custom_query(QUERY, params={"time": f"{AT:.3f}"}):
            key = tuple(sorted(row["metric"].items()))
            number = self._known.setdefault(key, len(self._known))
            for at, value in row["values"]:
                ids.append(number)
                times.append(at)
                values.append(float(value))
        return np.array(ids, np.int32), np.array(times), np.array(values)


class Ours:
    """The source's own path, with the intake behind it."""

    def __init__(self, url: str) -> None:
        self._api, self._into = PromApi(url), Intake(3600.0)  # one batch
        self._catalogue = Catalogue(shipped())

    def read(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        wanted = Wanted(AT - 3600, AT, match=QUERY.removesuffix("[60s]"))
        self._catalogue._last[:] = -np.inf  # as if all of it were new: the recorded answer is always the same
        self._catalogue.take(self._api.read(wanted), wanted.start, wanted.end, self._into)
        [batch] = self._into.drain(AT)[-1:]
        return batch.series, batch.time, batch.value


def serve(body: bytes) -> HTTPServer:
    """The recorded bytes, over loopback, from a thread whose time is not counted."""
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Quiet."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def cpu_s(work: Callable[[], object], rounds: int) -> float:
    """The median CPU time of this thread."""
    took = []
    for _ in range(rounds):
        began = time.thread_time()
        work()
        took.append(time.thread_time() - began)
    return statistics.median(took)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--series", type=int, default=100_000)
    arguments.add_argument("--samples", type=int, default=1)
    arguments.add_argument("--rounds", type=int, default=5)
    a = arguments.parse_args()
    with TemporaryDirectory() as folder:
        recorded = Path(folder) / "answer.json"
        recorded.write_bytes(answer(a.series, a.samples))
        server = serve(recorded.read_bytes())
    url = f"http://127.0.0.1:{server.server_address[1]}"
    library, ours = Library(url), Ours(url)
    began = time.thread_time()
    first = ours.read()
    met = time.thread_time() - began
    theirs = library.read()
    assert all(np.array_equal(x, y) for x, y in zip(first, theirs, strict=True)), "both must find the same samples"
    slow, fast = cpu_s(library.read, a.rounds), cpu_s(ours.read, a.rounds)
    server.shutdown()
    print(f"{a.series:,} series x {a.samples} samples, {len(answer(a.series, a.samples)) / 1e6:.1f} MB, CPU of the reader:")
    print(f"  prometheus_api_client + dict  {slow:7.3f} s  {a.series / slow / 1e3:8.0f} k series/s")
    print(f"  aiops, known series           {fast:7.3f} s  {a.series / fast / 1e3:8.0f} k series/s   {slow / fast:.1f} x")
    print(f"  aiops, series met first       {met:7.3f} s  {a.series / met / 1e3:8.0f} k series/s")


if __name__ == "__main__":
    main()
