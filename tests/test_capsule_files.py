"""Capsules on disk and on the way: bounds, crashes, storms, a disk that refuses, hostile archives, the API and the commands."""

from __future__ import annotations

import gzip
import io
import json
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import T0
from test_sinks_samples import incident
from test_web import serving
from typer.testing import CliRunner
from web_demo import DemoView

from aiops import cli
from aiops.capsules import archive
from aiops.capsules.archive import opened, pack, save, unpack
from aiops.capsules.cut import cut
from aiops.capsules.make import make
from aiops.capsules.names import Names, words
from aiops.sinks import capsules as sink
from aiops.sinks.capsules import AGAIN_S, TAIL_S, Bounds, Capsules, Failed, Origin
from aiops.sinks.journal import JournalWriter
from aiops.store.capsules import CapsuleError, check, evict, find, listing, manifest, recover
from aiops.types import Batch, Edge, Incident, Links, LogLine, Report, Series

RUN = f"{round(T0 * 1000):013d}"


# --------------------------------------------------------------------------------------------------------- a small store
def journal(folder: Path, ticks: int = 40, series: int = 30) -> Path:
    """A run of 10 s ticks. `service//0` calls `service//1`, that `service//2`, and so on."""
    config = {"mode": "observe", "budget": {"incidents": 1.0, "per": "1d"}, "detectors": ["baseline", "absence"],
              "sources": [{"host": {}}], "page": "https://secret.example"}
    writer = JournalWriter(folder, {"started_at": T0, "version": "1", "config": json.dumps(config), "policies": {}, "packs": {}})
    ids = np.arange(series, dtype=np.int32)
    new = tuple(Series(i, f"service//{i}", "errors") for i in range(series))
    chain = Links((), tuple(Edge(f"service//{i}", f"service//{i + 1}") for i in range(series - 1)))
    for k in range(ticks):
        at = T0 + 10.0 * k
        value = np.random.default_rng(k).normal(10.0, 1.0, series)
        lines = tuple(LogLine(at, f"service//{i}", f"line {k}") for i in range(series))
        writer.write(Batch(at, ids, np.full(series, at), value, new if k == 0 else (), lines, links=chain if k == 0 else None))
    writer.close()
    return folder


def order(store: Path, of: Incident, final: bool = True, **more: Any) -> Path:
    """A job as the sink writes it, over the journal of `store`."""
    from aiops import serial
    folder = store / "capsules"
    folder.mkdir(parents=True, exist_ok=True)
    if not (store / "journal").is_dir():
        journal(store / "journal")
    job = {"incident": serial.incident(of), "at": T0 + 1e6, "journal": str(store / "journal"), "run": RUN, "step": 10.0,
           "keep": 100, "max_bytes": 1 << 30, "final": final, "models": None, "memories": {}, "level": 9.0, **more}
    path = folder / f"{of.id}.job"
    path.write_text(json.dumps(job), encoding="utf-8")
    return path


def broken(name: str = "inc-1", opened_at: float = T0 + 100, closed_at: float | None = T0 + 200) -> Incident:
    return incident(id=name, opened_at=opened_at, updated_at=opened_at, closed_at=closed_at, entities=("service//10",),
                    state="closed" if closed_at else "open", causes=(), alerts=(), actions=(), outcomes=(), timeline=())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One capsule."""
    store = tmp_path_factory.mktemp("store")
    make(order(store, broken()))
    return store / "capsules" / "inc-1"


# ---------------------------------------------------------------------------------------------------------------- cutting
def test_only_what_is_near_is_kept(made: Path) -> None:
    """Two hops in both directions; of the configuration nothing but what decides verdicts."""
    about = check(made)
    assert (about["entities"], about["series"], about["samples"], about["log_lines"]) == (5, 5, 200, 200)
    assert (about["from"], about["until"]) == (T0, T0 + 390)
    assert b"secret.example" not in b"".join(p.read_bytes() for p in made.rglob("*") if p.is_file())
    assert {p.stat().st_mode & 0o777 for p in made.rglob("*") if p.is_file()} == {0o600}


def test_a_hub_brings_nobody_along(tmp_path: Path) -> None:
    """What runs on a machine with two hundred others is near the machine, and not near them."""
    writer = JournalWriter(tmp_path, {"started_at": T0})
    pods = [f"pod/a/p{i}" for i in range(200)]
    new = tuple(Series(i, p, "m") for i, p in enumerate(pods))
    writer.write(Batch(T0, new_series=new, links=Links((), tuple(Edge(p, "node//n", "runs_on") for p in pods))))
    writer.close()
    told = {"id": "i", "entities": ["pod/a/p1"], "causes": [], "actions": [], "alerts": [], "opened_at": T0}
    assert cut(tmp_path, RUN, told, T0, T0 + 1).entities == ("pod/a/p1", "node//n")


def test_what_does_not_fit_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Series far away, old samples and lines of others go first."""
    for name, most in (("MAX_ENTITIES", 3), ("MAX_SERIES", 2), ("MAX_SAMPLES", 50), ("MAX_LINES", 60)):
        monkeypatch.setattr(f"aiops.capsules.cut.{name}", most)
    journal(tmp_path)
    told = {"id": "i", "entities": ["service//10"], "causes": [], "actions": [], "alerts": [], "opened_at": T0}
    found = cut(tmp_path, RUN, told, T0, T0 + 1e6)
    assert found.left_out == {"entities": 2, "series": 1, "log_lines": 60, "samples": 30}
    assert [s.entity for s in found.series] == ["service//10", "service//11"] and found.row_at[0] == T0 + 150
    assert sum(line.entity == "service//10" for _, line in found.lines) == 40


# ---------------------------------------------------------------------------------------------------- crashes and bounds
def test_a_crash_leaves_no_half_capsule(made: Path, tmp_path: Path) -> None:
    """A folder that is not finished is none; one that was about to be replaced comes back."""
    for name in ("inc-2.part", "inc-3.gone", "inc-4.gone", "inc-4"):
        subprocess.run(["cp", "-r", str(made), str(tmp_path / name)], check=True)
    assert find(tmp_path, "inc-2.part") is None and find(tmp_path, "../inc-4") is None and find(tmp_path, "inc-2") is None
    recover(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["inc-3", "inc-4"]
    assert check(tmp_path / "inc-3")["incident"] == "inc-1"


@pytest.mark.slow
def test_killed_at_any_moment_while_it_is_made(tmp_path: Path) -> None:
    """kill -9 of the process that makes it, over an older capsule: that or the new one is there and whole, and the next start
    makes it anew."""
    path = order(tmp_path, broken(closed_at=None), final=False)
    folder = tmp_path / "capsules"
    make(path)
    before = manifest(folder / "inc-1")
    kills = 0
    for wait in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.6):
        child = subprocess.Popen([sys.executable, "-m", "aiops.capsules", str(path)])
        deadline = time.monotonic() + 60  # until it has begun to write
        while not (folder / "inc-1.part").exists() and child.poll() is None and time.monotonic() < deadline:
            threading.Event().wait(0.01)
        try:
            child.wait(wait)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            kills += 1
        child.wait()
        recover(folder)
        assert check(folder / "inc-1")["samples"] == before["samples"] and not list(folder.glob("*.part"))
    assert kills
    assert path.exists() and make(path)["samples"] == before["samples"]


def test_the_oldest_that_are_over_make_room(made: Path, tmp_path: Path) -> None:
    """By number and by bytes, the first closed first; never one whose incident is not over."""
    for k, closed_at in enumerate((300, 100, 200, None)):
        folder = tmp_path / f"inc-{k}"
        subprocess.run(["cp", "-r", str(made), str(folder)], check=True)
        (folder / "capsule.json").write_text(json.dumps({**manifest(folder), "closed_at": closed_at}))
    (tmp_path / "inc-3.job").touch()
    assert evict(tmp_path, 3, 1 << 30) == ["inc-1"]
    size = sum(p.stat().st_size for p in made.rglob("*") if p.is_file())
    assert evict(tmp_path, 100, 2 * size + 100_000) == ["inc-2"] or size < 100_000
    assert evict(tmp_path, 0, 0)[-1] == "inc-0" and [p.name for p in tmp_path.iterdir() if p.is_dir()] == ["inc-3"]


# --------------------------------------------------------------------------------------------------------------- the sink
def linked(target: Path) -> None:
    target.mkdir(parents=True)
    (target / "index.json").write_text("{}")


def sinked(folder: Path, makes: Any, keep: int = 10) -> Capsules:
    return Capsules(folder, Origin(folder, RUN, 10.0, linked, lambda: {"policy_memory": {"k": 1}}, lambda: 9.5),
                    Bounds(keep, 1 << 30), makes)


class Idle:
    def join(self, _: float) -> None:
        """Stands for a worker that never gets a turn."""


def test_when_capsules_are_made(tmp_path: Path) -> None:
    """At the opening, a quarter of an hour later if it has changed, and at last a quarter of an hour after it closed."""
    jobs: list[dict[str, Any]] = []
    it = sinked(tmp_path, lambda path: jobs.append(json.loads(path.read_text())))
    it._worker = Idle()  # type: ignore[assignment]
    now = [T0]

    def step(to: float, *told: Incident) -> int:
        now[0] = to
        it.publish(Report(to, incidents=told))
        while it._waiting:
            it._carry_out(it._next())  # type: ignore[arg-type]
        return len(jobs)
    first = broken(opened_at=T0, closed_at=None)
    assert step(T0, first) == 1 and jobs[0]["level"] == 9.5 and jobs[0]["memories"] == {"policy_memory": {"k": 1}}
    assert Path(jobs[0]["models"]).is_dir()
    assert step(T0 + 10, first) == 1 and step(T0 + AGAIN_S, first) == 2 and step(T0 + 3 * AGAIN_S) == 2
    closed = broken(opened_at=T0, closed_at=T0 + 3000)
    assert step(T0 + 3000, closed) == 3
    assert [j["final"] for j in jobs] == [False] * 3
    assert step(T0 + 3000 + TAIL_S) == 4 and jobs[-1]["final"] and it._watched == {}
    assert (it.status()["made"], it.status()["failed"]) == (4, 0)
    it._sweep()
    assert list(tmp_path.glob("*.before")) == []


def test_a_storm_does_not_hold_up_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand incidents at once: as many as may wait are ordered, the others are counted and named, nothing is made in it."""
    it = sinked(tmp_path, lambda path: pytest.fail("made within the step"))
    it._worker = Idle()  # type: ignore[assignment]
    storm = tuple(broken(f"inc-{k}", T0, None) for k in range(1000))
    began = time.perf_counter()
    it.publish(Report(T0, incidents=storm))
    it.publish(Report(T0 + 10, incidents=storm))
    took = time.perf_counter() - began
    told = it.status()
    assert (told["waiting"], told["skipped"], len(told["skipped_incidents"])) == (50, 950, 20) and took < 2.0
    assert len(list(tmp_path.glob("*.before"))) == 1, "one link of what was learned for all that open in one step"


def test_none_are_made_where_none_may_be_kept(tmp_path: Path) -> None:
    """keep: 0."""
    it = sinked(tmp_path / "x", None, keep=0)
    it.publish(Report(T0, incidents=(broken(closed_at=None),)))
    assert not (tmp_path / "x").exists() and it.status()["waiting"] == 0
    it.close()


def test_a_disk_that_refuses_is_told_and_not_fatal(tmp_path: Path) -> None:
    """Counted, with the reason; the order stays, so that the next try or the next start makes it."""
    def full(path: Path) -> None:
        raise Failed("no space left on device")
    it = sinked(tmp_path, full)
    it.publish(Report(T0, incidents=(broken(closed_at=None),)))
    it._ready.acquire()
    it._ready.release()
    deadline = time.monotonic() + 60
    while not it.failed and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    it.close()
    assert it.status()["problem"] == "inc-1: no space left on device" and (tmp_path / "inc-1.job").exists()


@pytest.mark.slow
def test_a_process_of_its_own_makes_it(tmp_path: Path) -> None:
    """As in the daemon: another process, whose refusal comes back as one line; a run that was killed is made good by the next."""
    path = order(tmp_path, broken())
    it = sinked(tmp_path / "capsules", None)
    it._make(path)
    assert check(tmp_path / "capsules" / "inc-1")["samples"] == 200 and not path.exists()
    with pytest.raises(Failed, match=r"no run|no segments"):
        it._make(order(tmp_path, broken("inc-2"), run="0000000000000"))
    order(tmp_path, broken("inc-3", closed_at=None), final=False)
    (tmp_path / "capsules" / "inc-2.job").unlink()
    (tmp_path / "capsules" / "inc-4.job").write_text("{")
    closed = {**json.loads((tmp_path / "capsules" / "inc-3.job").read_text())["incident"], "state": "closed",
              "closed_at": T0 + 300, "points": []}
    it.resume({"inc-3": closed}.get)
    deadline = time.monotonic() + 60
    while not it.made and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    it.close()
    assert check(tmp_path / "capsules" / "inc-3")["closed_at"] == T0 + 300
    assert list((tmp_path / "capsules").glob("*.job")) == []


def test_no_space_for_the_capsule_leaves_the_older_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of it is removed."""
    path = order(tmp_path, broken(), final=False)
    make(path)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")
    monkeypatch.setattr("aiops.capsules.make.write", full)
    with pytest.raises(OSError, match="No space"):
        make(path)
    assert check(tmp_path / "capsules" / "inc-1") and not list((tmp_path / "capsules").glob("*.part"))


# --------------------------------------------------------------------------------------------------------------- archives
def test_an_archive_and_back(made: Path, tmp_path: Path) -> None:
    """The same files; equal capsules give equal bytes; a folder where the name says so; nothing is overwritten."""
    first, second = (save(made, tmp_path / name) for name in ("a.tar.gz", "b.tgz"))
    assert first.read_bytes() == second.read_bytes()
    with opened(first) as folder:
        assert {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()} == {
            p.name: p.read_bytes() for p in made.iterdir() if p.is_file()}
    assert not folder.exists()
    assert check(save(made, tmp_path / "plain"))
    with pytest.raises(CapsuleError, match="is there already"):
        save(made, first)


def member(name: str, **more: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for key, value in more.items():
        setattr(info, key, value)
    return info


EVIL = {
    "absolute": [(member("/etc/evil", size=1), b"x")],
    "upward": [(member("inc-1/../../evil", size=1), b"x")],
    "hidden": [(member("inc-1/.ssh", size=1), b"x")],
    "deep": [(member("inc-1/a/b/c", size=1), b"x")],
    "symbolic link": [(member("inc-1/x", type=tarfile.SYMTYPE, linkname="/etc/passwd"), b"")],
    "hard link": [(member("inc-1/x", type=tarfile.LNKTYPE, linkname="/etc/passwd"), b"")],
    "device": [(member("inc-1/x", type=tarfile.CHRTYPE), b"")],
    "fifo": [(member("inc-1/x", type=tarfile.FIFOTYPE), b"")],
    "twice": [(member("inc-1/x", size=1), b"x")] * 2,
    "no folder": [(member("x", size=1), b"x")],
    "two folders": [(member("a/capsule.json", size=2), b"{}"), (member("b/capsule.json", size=2), b"{}")],
    "nothing": [],
    "no capsule": [(member("inc-1/metrics.csv", size=1), b"x")],
    "backslash": [(member("inc-1\\x", size=1), b"x")],
}


@pytest.mark.parametrize("kind", EVIL)
def test_hostile_archives_are_refused(kind: str, tmp_path: Path) -> None:
    """One line, exit code 2, and nothing is written outside."""
    evil = tmp_path / "evil.tar.gz"
    with tarfile.open(evil, "w:gz") as tar:
        for info, data in EVIL[kind]:
            tar.addfile(info, io.BytesIO(data))
    before = sorted(tmp_path.rglob("*"))
    (into := tmp_path / "into").mkdir()
    with pytest.raises(CapsuleError, match=r"evil\.tar\.gz"):
        unpack(evil, into)
    assert sorted(p for p in tmp_path.rglob("*") if into not in (p, *p.parents)) == before
    assert [p for p in into.rglob("*") if p.is_symlink()] == []


@pytest.mark.parametrize("data", [b"", b"no archive", gzip.compress(b"no tar" * 100, mtime=0),
                                  gzip.compress(b"\0" * 10_240, mtime=0)[:-9]])  # ids are the same in every process
def test_what_is_no_archive(data: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Through the command."""
    (tmp_path / "x.tar.gz").write_bytes(data)
    assert cli.main(["replay", str(tmp_path / "x.tar.gz")]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}/x.tar.gz: ")


def test_bombs_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what members say before anything is written, by what they hold, and by their number."""
    monkeypatch.setattr(archive, "MOST_BYTES", 1 << 20)
    for name, count, size in (("big", 1, 2 << 20), ("many", 300, 1)):
        with tarfile.open(tmp_path / f"{name}.tar.gz", "w:gz") as tar:
            for k in range(count):
                tar.addfile(member(f"inc-1/f{k}", size=size), io.BytesIO(b"\0" * size))
        (into := tmp_path / name).mkdir()
        with pytest.raises(CapsuleError, match="larger than a capsule may be"):
            unpack(tmp_path / f"{name}.tar.gz", into)
        assert sum(p.stat().st_size for p in into.rglob("*") if p.is_file()) <= 1 << 20


def test_every_archive_cut_short_is_refused(made: Path, tmp_path: Path) -> None:
    """At any length."""
    out = io.BytesIO()
    pack(made, out)
    data = out.getvalue()
    for k, length in enumerate(np.random.default_rng(1).integers(0, len(data) - 8, 40).tolist()):
        (tmp_path / "cut.tar.gz").write_bytes(data[:length])
        (into := tmp_path / str(k)).mkdir()
        with pytest.raises(CapsuleError):
            check(unpack(tmp_path / "cut.tar.gz", into))


@pytest.mark.parametrize("file", ["run.json", "incident.json", "metrics.parquet", "capsule.json", "logs.jsonl.gz"])
def test_a_damaged_capsule_is_not_believed(file: str, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A byte that changed: one line that names the file, exit code 2."""
    folder = save(made, tmp_path / "inc-1")
    data = bytearray((folder / file).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / file).write_bytes(data)
    assert cli.main(["replay", str(folder), "--json"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {folder}")


# ------------------------------------------------------------------------------------------------------ API and commands
class Kept(DemoView):
    """A daemon with one capsule."""

    folder: Path

    def capsules(self) -> dict[str, Any]:
        return {"capsules": listing(self.folder), "skipped": 2, "skipped_incidents": ["inc-7", "inc-8"], "problem": ""}

    def capsule(self, name: str) -> Any:
        found = find(self.folder, name)
        out = io.BytesIO()
        pack(found, out) if found else None
        out.seek(0)
        return out if found else None


@pytest.fixture
def daemon(made: Path) -> Iterator[Any]:
    view = Kept(token="s3cret")
    view.folder = made.parent
    with serving(view) as client:
        yield client


def test_a_capsule_needs_the_token_and_the_list_does_not(daemon: Any) -> None:
    """Log lines and policies are in it; its name and size are not worth hiding."""
    status, text, _ = daemon("/api/capsules")
    assert (status, json.loads(text)["capsules"][0]["incident"]) == (200, "inc-1")
    assert daemon("/api/capsules/inc-1")[0] == 401
    assert daemon("/api/capsules/inc-9", Authorization="Bearer s3cret")[0] == 404
    assert daemon("/api/capsules/..%2f..%2fetc", Authorization="Bearer s3cret")[0] == 404


def test_export_from_a_daemon_and_from_a_store(daemon: Any, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same archive; without the token one line says what to give."""
    run = CliRunner().invoke
    here = ["--server", f"http://127.0.0.1:{daemon.server.port}"]
    assert cli.main(["capsule", "export", "inc-1", "-o", str(tmp_path / "a.tar.gz"), *here]) == 2
    monkeypatch.setenv("AIOPS_TOKEN", "s3cret")
    assert cli.main(["capsule", "export", "inc-1", "-o", str(tmp_path / "a.tar.gz"), *here]) == 0
    store = tmp_path / "store"
    store.mkdir()
    (store / "capsules").symlink_to(made.parent)
    assert cli.main(["capsule", "export", "inc-1", "-o", str(tmp_path / "b.tar.gz"), "--store", str(store)]) == 0
    assert (tmp_path / "a.tar.gz").read_bytes() == (tmp_path / "b.tar.gz").read_bytes()
    told = run(cli.app, ["capsule", "list", *here]).output
    assert "inc-1" in told and "whole" in told and "2 incidents have none, because too many opened at once: inc-7, inc-8" in told
    assert cli.main(["capsule", "export", "inc-9", "--store", str(store)]) == 2
    assert cli.main(["capsule", "export", "inc-1", "--redact", "-o", str(tmp_path / "c"), "--store", str(store)]) == 0
    assert check(tmp_path / "c")["redacted"] is True
    assert cli.main(["replay", str(tmp_path / "c")]) == 0


# -------------------------------------------------------------------------------------------------------------- redaction
def test_names_keep_their_structure() -> None:
    """Kind, punctuation, ordinals and what Kubernetes makes up; one name, one pseudonym; another key, another."""
    names = Names(b"k")
    pod, again, node = (names.entity(x) for x in ("pod/shop/api-7d4f9-x2x9z", "pod/shop/api-0", "node//gpu-17"))
    assert pod.split("/")[:2] == ["pod", again.split("/")[1]] and pod.split("/")[2].split("-")[0] == again.split("/")[2][:-2]
    assert again.endswith("-0") and node.endswith("-17") and node.startswith("node//")
    from detectors._kin import owner
    assert owner(pod) == owner(again), "peers are found by their names"
    address = names.entity("node//10.0.1.7")
    assert address.replace(".", "").split("/")[2].isdigit() and "10.0.1.7" not in address
    assert Names(b"other").entity("pod/shop/api-0") != again and Names(b"k").entity("pod/shop/api-0") == again


def test_only_common_words_and_short_numbers_stay() -> None:
    """A thousand random tokens of every kind: none survives."""
    rng = np.random.default_rng(3)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"))
    names = Names(b"k")
    for _ in range(1000):
        token = "".join(rng.choice(letters, int(rng.integers(6, 30))))
        if not {p.lower() for p in token.split("_")} <= words():
            assert token not in names.text(f"ERROR user {token} failed after 30 ms: token={token};")
    assert names.text("ERROR OutOfMemoryError after 30.5 s at 12:30:07") == "ERROR OutOfMemoryError after 30.5 s at 12:30:07"
    assert names.text("AcmeBankError") not in ("AcmeBankError", "Error") and names.text("AcmeBankError").endswith("Error")
    assert sink.MOST_WAITING < sink.MOST_WATCHED


def test_a_process_that_starts_while_the_daemon_ends_is_ended_too(tmp_path: Path) -> None:
    """`close` could not see it yet; the order stays for the next run."""
    path = order(tmp_path, broken())
    it = sinked(tmp_path / "capsules", None)
    it.close()
    with pytest.raises(Failed):
        it._make(path)
    assert it._child is not None and it._child.returncode == -signal.SIGKILL
    assert path.exists()
