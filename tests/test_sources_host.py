"""The host source against this machine: plausible figures, rising counters, and who uses the memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from fakes.collected import Collected

from aiops import meaning
from aiops.sources.host import processes
from aiops.sources.host.processes import Processes, _script, _Seen
from aiops.sources.host.source import HostSource

NOW = 1_700_000_000.0


@pytest.fixture(scope="module")
def two_polls() -> tuple[Collected, Collected]:
    source = HostSource(node="here")
    first, second = Collected(), Collected()
    source.poll(NOW, first)
    sum(i * i for i in range(2_000_000))  # some CPU time that must show up
    source.poll(NOW + 15, second)
    return first, second


def test_figures_are_plausible(two_polls: tuple[Collected, Collected]) -> None:
    """Memory as psutil sees it, shares between 0 and 1, everything on one node at the time of the poll."""
    _, got = two_polls
    total, available = got.values("node_memory_MemTotal_bytes")[0], got.values("node_memory_MemAvailable_bytes")[0]
    assert total == psutil.virtual_memory().total
    assert 0 < available < total
    assert 0 <= got.values("node_load1")[0] < 10_000
    sizes = got.values("node_filesystem_size_bytes")
    assert all(0 <= a <= s for a, s in zip(got.values("node_filesystem_avail_bytes"), sizes, strict=True))
    assert {s.entity for s in got.samples if s.metric.startswith("node_")} == {"node//here"}
    assert {s.time for s in got.samples} == {NOW + 15}


def test_counters_rise_and_never_fall(two_polls: tuple[Collected, Collected]) -> None:
    """Every counter of the first poll is there again, no lower; CPU time went on."""
    def counters(c: Collected) -> dict[tuple[str, str, str], float]:
        return {(s.entity, s.metric, str(s.labels)): s.value for s in c.samples if s.kind == "counter"}
    first, second = (counters(c) for c in two_polls)
    assert first and all(second.get(key, value) >= value for key, value in first.items())
    cpu = [key for key in second if key[1] == "node_cpu_seconds_total"]
    assert sum(second[k] for k in cpu) > sum(first[k] for k in cpu)


def test_every_metric_is_known_to_a_pack(two_polls: tuple[Collected, Collected]) -> None:
    """A metric that the packs do not know would be watched without a meaning; kinds agree as well."""
    meanings = meaning.shipped()
    for s in two_polls[1].samples:
        assert meanings.knows(s.metric), s.metric
        assert meanings.kind(s.metric) == s.kind, s.metric


def test_no_series_is_written_twice_in_one_poll(two_polls: tuple[Collected, Collected]) -> None:
    """Bind mounts and partitions are not counted again."""
    keys = [(s.entity, s.metric, str(s.labels)) for s in two_polls[1].samples]
    assert len(keys) == len(set(keys))


def test_what_is_missing_is_named_and_the_rest_is_read(tmp_path: Path) -> None:
    """Without /proc (another system, a sandbox) CPU and memory are still there, and the notes say what is not."""
    source, got = HostSource(node="here", proc=tmp_path, processes=False), Collected()
    source.poll(NOW, got)
    assert got.values("node_memory_MemTotal_bytes")
    assert not got.values("node_pressure_cpu_waiting_seconds_total")
    assert {"pressure", "vmstat", "tcp"} <= set(source.notes)
    assert "pressure: not available here" in source.notes["pressure"]


def test_pressure_is_read_as_seconds(tmp_path: Path) -> None:
    """PSI counts microseconds; the pack's rate is a share of time only for seconds."""
    (tmp_path / "pressure").mkdir()
    for what in ("cpu", "memory", "io"):
        (tmp_path / "pressure" / what).write_text("some avg10=0.00 avg60=0.00 avg300=0.00 total=2500000\nfull total=1\n")
    got = Collected()
    HostSource(node="here", proc=tmp_path, processes=False).poll(NOW, got)
    assert got.values("node_pressure_io_waiting_seconds_total") == [2.5]


def test_a_process_that_hogs_memory_is_named_and_linked() -> None:
    """A real child with 80 MB shows up by its script's name, as something that the node depends on."""
    code = "import sys; b = bytearray(80_000_000); print('up', flush=True); sys.stdin.read()"
    source = HostSource(node="here")
    before = Collected()
    source.poll(NOW, before)
    name = Path(sys.executable).resolve().name
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout and child.stdout.readline() == b"up\n"
        got = Collected()
        source.poll(NOW + 15, got)
        mine = [s for s in got.samples if s.metric == "host_process_memory_bytes" and s.value >= 80e6]
        assert mine
        assert any(s.entity.startswith(("process/here/python", f"process/here/{name}")) for s in mine)
        _, links = [*before.topology, *got.topology][-1]  # told again only where the names have changed
        assert {("node//here", s.entity, "uses") for s in mine} <= {(e.source, e.target, e.kind) for e in links.edges}


def test_a_process_that_ended_stays_linked_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """An incident outlives what caused it; half an hour later the link is gone."""
    running = [_Seen((1, 1.0), "hog", 5e9, 1, 0.0, 0.0)]
    monkeypatch.setattr(processes, "_running", lambda: iter(running))
    source, got = HostSource(node="here"), Collected()
    source.poll(NOW, got)
    running.clear()
    source.poll(NOW + 60, got)
    assert [e.target for e in got.topology[-1][1].edges] == ["process/here/hog"]
    source.poll(NOW + 1900, got)
    assert got.topology[-1][1].edges == ()


def seen(pid: int, name: str, memory: float, cpu: float = 0.0, began: float = 1.0) -> _Seen:
    return _Seen((pid, began), name, memory, 1, cpu, 0.0)


def scan(p: Processes, monkeypatch: pytest.MonkeyPatch, now: float, *running: _Seen) -> dict[str, tuple[float, float, int]]:
    monkeypatch.setattr(processes, "_running", lambda: iter(running))
    return {g.name: (g.memory_bytes, g.cpu_s, g.count) for g in p.scan(now)}


BIG = 100 * 2**20


def test_cpu_of_a_name_never_falls_when_one_of_its_processes_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A falling counter would be taken for a reset, and the rest of the sum for work of this moment."""
    p = Processes()
    scan(p, monkeypatch, 0, seen(1, "w", BIG, 1000.0), seen(2, "w", BIG, 500.0))
    assert scan(p, monkeypatch, 15, seen(1, "w", BIG, 1003.0), seen(2, "w", BIG, 501.0))["w"] == (2 * BIG, 4.0, 2)
    assert scan(p, monkeypatch, 30, seen(2, "w", BIG, 502.0))["w"] == (BIG, 5.0, 1)


def test_a_process_number_used_again_is_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Same pid, later start: its CPU time counts from zero, in full."""
    p = Processes()
    scan(p, monkeypatch, 0, seen(1, "w", BIG, 1000.0))
    assert scan(p, monkeypatch, 15, seen(1, "w", BIG, 2.0, began=9.0))["w"][1] == 2.0


def test_small_and_idle_processes_are_not_watched_but_a_watched_one_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name enters by size or work; it leaves only when its last process has ended."""
    p = Processes()
    assert scan(p, monkeypatch, 0, seen(1, "small", 1e6), seen(2, "big", BIG)).keys() == {"big"}
    assert scan(p, monkeypatch, 10, seen(1, "small", 1e6, 5.0), seen(2, "big", BIG)).keys() == {"big", "small"}
    assert scan(p, monkeypatch, 20, seen(1, "small", 1e6, 5.0), seen(2, "big", 1e6)).keys() == {"big", "small"}
    assert scan(p, monkeypatch, 30, seen(2, "big", 1e6)).keys() == {"big"}


def test_the_number_of_names_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty programs take turns at being large and all stay: `keep` names at most, this minute's giant among them."""
    p = Processes(top=5, keep=8)
    for minute in range(50):
        crowd = [seen(i, f"p{i}", BIG + (50 * BIG if i == minute else 0)) for i in range(50)]
        names = scan(p, monkeypatch, minute * 60.0, *crowd)
        assert len(names) <= 8
        assert f"p{minute}" in names


@pytest.mark.parametrize(("arguments", "shown"), [
    (["-u", "/srv/worker.py", "--token=secret"], ["worker.py"]), (["-m", "http.server", "80"], ["http.server"]),
    (["-jar", "/opt/kafka.jar"], ["kafka.jar"]), (["-c", "print('secret')"], []), ([], []),
])
def test_an_interpreter_is_named_by_its_script_and_never_by_arguments(arguments: list[str], shown: list[str]) -> None:
    """`python3` says nothing; its arguments may hold secrets."""
    assert _script(arguments) == shown
