"""Remote-write: samples a second on one core, from the body to (series, time, value), and over HTTP. Run with `make bench`.

Side by side in one run: cramjam + protobuf (upb) + a dictionary by tuples of labels, the decoder in Python, the one in Rust. CPU
time of the thread, median of several passes over the same bodies of 2,000 series; over HTTP the CPU time of the serving process.
heavy: 58 bytes a label, as from cAdvisor; light: 25; shuffled: heavy with neighbours from different pods, which packs badly.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import multiprocessing
import random
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import cramjam
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from aiops.remote_write.codec import V1, V2, Decoder, Window
from aiops.remote_write.native import Native, UnavailableError
from aiops.remote_write.reference import Reference
from aiops.sources.remote_write import Answer, RemoteWriteSource
from tests.fakes.remote_write import v1, v2

PER_BODY = 2000
NOW_S = 1_763_683_200.0
WINDOW = Window(int(NOW_S - 1e6) * 1000, int(NOW_S + 1e6) * 1000)
METRICS = ("container_network_receive_bytes_total", "container_cpu_usage_seconds_total", "container_memory_working_set_bytes",
           "container_fs_reads_bytes_total", "kube_pod_container_status_restarts_total", "http_server_requests_total",
           "http_server_request_duration_seconds_bucket", "process_resident_memory_bytes", "go_memstats_heap_inuse_bytes",
           "grpc_server_handled_total")
Rows = list[tuple[dict[str, str], float, float]]


def digest(text: str, n: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:n]


def labels(i: int, heavy: bool) -> dict[str, str]:
    """Of series i: forty series a pod, five pods an application."""
    pod, metric, k = i // 40, METRICS[i % 40 // 4], i % 4
    app = f"checkout-service-{pod // 5 % 200}"
    own = {"__name__": metric, "container": app, "namespace": f"team-{pod // 50 % 40:02d}-production",
           "pod": f"{app}-{digest(f'r{pod // 5}', 10)}-{digest(f'p{pod}', 5)}"}
    node = f"ip-10-{pod // 4000 % 256}-{pod // 20 % 256}-{pod % 20}.eu-west-1.compute.internal"
    if not heavy:
        return own | {"cluster": "prod-eu-1", "endpoint": "http-metrics", "instance": f"10.{pod // 20 % 256}.{pod % 20}.7:9090",
                      "job": app, "node": node[:22], "code": str(200 + k)}
    scope = f"kubepods-burstable-pod{digest(f'u{pod}', 32)}.slice/cri-containerd-{digest(f'c{pod}', 64)}.scope"
    return own | {"cluster": "prod-eu-west-1-kubernetes-blue", "id": f"/kubepods.slice/kubepods-burstable.slice/{scope}",
                  "image": f"registry.example.com/platform/{app}@sha256:{digest('i' + app, 64)}", "instance": node,
                  "job": "kubelet-cadvisor-metrics", "device_or_code": f"shard-{k}"}


def requests(kind: str, bodies: int, at: float = NOW_S) -> Iterator[Rows]:
    """The same series in every round; values and times are new in each."""
    dice, series = random.Random(1), bodies * PER_BODY
    for body in range(bodies):
        order = range(body * PER_BODY, (body + 1) * PER_BODY)
        if kind == "shuffled":
            order = [(i * 7919 + body) % series for i in order]  # type: ignore[assignment]
        yield [(labels(i, kind != "light"), dice.random() * 1e6, at + dice.randrange(1000) / 1000) for i in order]


# ---------------------------------------------------------------------------------------------------------- the way of before
def messages() -> tuple[Any, Any]:
    """The classes of both versions' messages, made at run time: what is needed of them."""
    file = descriptor_pb2.FileDescriptorProto(name="rw.proto", package="rw", syntax="proto3")
    types = descriptor_pb2.FieldDescriptorProto

    def message(name: str, *fields: tuple[str, int, int, str, bool]) -> None:
        made = file.message_type.add(name=name)
        for field, number, kind, of, many in fields:
            label = types.LABEL_REPEATED if many else types.LABEL_OPTIONAL
            made.field.add(name=field, number=number, type=kind, label=label, **({"type_name": f".rw.{of}"} if of else {}))

    message("Label", ("name", 1, types.TYPE_STRING, "", False), ("value", 2, types.TYPE_STRING, "", False))
    message("Sample", ("value", 1, types.TYPE_DOUBLE, "", False), ("timestamp", 2, types.TYPE_INT64, "", False))
    message("Series", ("labels", 1, types.TYPE_MESSAGE, "Label", True), ("samples", 2, types.TYPE_MESSAGE, "Sample", True))
    message("Write", ("timeseries", 1, types.TYPE_MESSAGE, "Series", True))
    message("Series2", ("refs", 1, types.TYPE_UINT32, "", True), ("samples", 2, types.TYPE_MESSAGE, "Sample", True))
    message("Write2", ("symbols", 4, types.TYPE_STRING, "", True), ("timeseries", 5, types.TYPE_MESSAGE, "Series2", True))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)  # type: ignore[no-untyped-call]
    return tuple(message_factory.GetMessageClass(pool.FindMessageTypeByName(f"rw.{n}")) for n in ("Write", "Write2"))  # type: ignore[return-value]


class Upb:
    """Parse everything, make a tuple of a series' labels, look it up."""

    def __init__(self) -> None:
        self.ids: dict[object, int] = {}
        self.messages = messages()

    def __call__(self, body: bytes, version: int) -> int:
        read, ids = self.messages[version - 1].FromString(bytes(cramjam.snappy.decompress_raw(body))), self.ids
        out = []
        symbols = list(read.symbols) if version == V2 else []
        for series in read.timeseries:
            key = tuple([symbols[r] for r in series.refs] if symbols else [(p.name, p.value) for p in series.labels])
            number = ids.setdefault(key, len(ids))
            out += [(number, s.timestamp, s.value) for s in series.samples]
        return len(out)


def ours(decoder: Decoder) -> Callable[[bytes, int], int]:
    ids: dict[object, int] = {}

    def resolve(found: dict[str, str], kind: str) -> int:
        return ids.setdefault(tuple(found.items()), len(ids))

    return lambda body, version: len(decoder.decode(body, version, WINDOW, resolve).series)


# -------------------------------------------------------------------------------------------------------------- measuring
def rate(work: Callable[[bytes, int], int], bodies: list[bytes], version: int, passes: int) -> float:
    """Million samples a second of this thread's CPU time, when all series are known."""
    spent = []
    for _ in range(passes + 1):
        began = time.thread_time()
        count = sum(work(body, version) for body in bodies)
        spent.append((time.thread_time() - began) / count)
        assert count == len(bodies) * PER_BODY
    return 1e-6 / statistics.median(spent[1:])


def contenders() -> dict[str, Callable[[bytes, int], int]]:
    out: dict[str, Callable[[bytes, int], int]] = {"upb": Upb(), "python": ours(Reference())}
    try:
        return out | {"native": ours(Native())}
    except UnavailableError as e:
        print(f"without the native decoder: {e}")
        return out


def decoding(bodies: int, passes: int) -> None:
    print(f"{'decode + intern, M samples/s':<32}{'upb':>8}{'python':>9}{'':>8}{'native':>9}")
    for kind in ("heavy", "light", "shuffled"):
        rows = list(requests(kind, bodies))
        for version, packer in ((V1, v1), (V2, v2)):
            sent = [packer(r) for r in rows]
            found = {name: rate(work, sent, version, passes) for name, work in contenders().items()}
            kb = sum(map(len, sent)) / len(sent) / 1000
            text = "".join(f"{found[n]:>9.2f} {found[n] / found['upb']:>6.1f}x" for n in ("python", "native") if n in found)
            print(f"{f'{kind}, {version}.0, {kb:.0f} kB a body':<32}{found['upb']:>8.3f}{text}")


# -------------------------------------------------------------------------------------------------------------- over HTTP
class Before:
    """The way of before, behind the same server."""

    max_body = 16 << 20

    def __init__(self) -> None:
        self._work = Upb()

    def write(self, body: bytes, version: int) -> Answer:
        return Answer(204, written=self._work(body, version))


class NobodysView:
    """What the page would show: nothing."""

    token = None

    def status(self) -> dict[str, object]:
        return {"version": "0"}


def serve(which: str, pipe: Connection) -> None:
    """The serving process: tells its port; asked, its CPU seconds and what arrived, which goes into batches then."""
    from aiops.intake import Intake
    from aiops.meaning import shipped
    from aiops.web.app import create_app
    from aiops.web.server import Server

    intake = Intake(15.0)
    receiver: Any = Before()
    if which != "upb":
        receiver = RemoteWriteSource("remote_write", shipped(), decoder=Native() if which == "native" else Reference())
        receiver.poll(NOW_S, intake)
    server = Server(create_app(NobodysView(), receiver=receiver), port=0)  # type: ignore[arg-type]
    server.start()
    pipe.send(server.port)
    while pipe.recv():
        count = sum(len(b.series) for b in intake.drain(NOW_S + 15))
        used = resource.getrusage(resource.RUSAGE_SELF)
        pipe.send((used.ru_utime + used.ru_stime, count))
    server.stop()


def post(port: int, bodies: list[bytes], version: int) -> None:
    """Each body once, over one connection."""
    proto = {V1: "", V2: ";proto=io.prometheus.write.v2.Request"}[version]
    headers = {"Content-Encoding": "snappy", "Content-Type": f"application/x-protobuf{proto}"}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for body in bodies:
        connection.request("POST", "/api/v1/write", body, headers)
        answer = connection.getresponse()
        assert answer.status == 204, answer.read()
        answer.read()
    connection.close()


def served(which: str, bodies: list[bytes], version: int, passes: int) -> tuple[float, float]:
    """Million samples a second of the server's CPU time, and of wall time with one sender."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(which, theirs), daemon=True)
    process.start()
    theirs.close()  # so that the end of the process is seen
    port, cpu, wall = ours.recv(), [], []
    for _ in range(passes + 2):
        ours.send(True)
        before, _ = ours.recv()
        began = time.perf_counter()
        post(port, bodies, version)
        wall.append(time.perf_counter() - began)
        ours.send(True)
        after, count = ours.recv()
        assert which == "upb" or count == len(bodies) * PER_BODY, "a sample was lost"
        cpu.append(after - before)
    ours.send(False)
    process.join(20)
    n = len(bodies) * PER_BODY / 1e6
    return n / statistics.median(cpu[2:]), n / statistics.median(wall[2:])


def over_http(bodies: int, passes: int) -> None:
    print("\nover HTTP into batches, M samples/s of the server's CPU time (of wall time, one sender)")
    for kind in ("heavy", "light", "shuffled"):
        for version, packer in ((V1, v1), (V2, v2)):
            sent = [packer(r) for r in requests(kind, bodies)]
            found = {which: served(which, sent, version, passes) for which in contenders()}
            base = found["upb"][0]
            print(f"{f'{kind}, {version}.0':<16}" + "".join(
                f"{which:>10} {cpu:6.2f} ({wall:5.2f}) {cpu / base:5.1f}x" for which, (cpu, wall) in found.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bodies", type=int, default=50, help="of 2,000 series each")
    parser.add_argument("--passes", type=int, default=5)
    a = parser.parse_args()
    decoding(a.bodies, a.passes)
    over_http(a.bodies, a.passes)


if __name__ == "__main__":
    sys.exit(main())
