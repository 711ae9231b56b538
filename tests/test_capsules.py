"""Capsules: from a fault in live telemetry to a recording that replays to the same incident."""

from __future__ import annotations

import gzip
import json
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fastparquet
import numpy as np
import pytest
from helpers import T0, frames, signals
from test_restart import Life

from aiops import app
from aiops.capsules import learned as known
from aiops.capsules.archive import opened, save
from aiops.capsules.make import make
from aiops.capsules.redact import redacted
from aiops.models import Learned, Lineage, Model, Saved
from aiops.sinks.capsules import Failed
from aiops.store.capsules import check
from aiops.types import Edge, Event, Links, LogLine, Node
from detectors.absence import Absence
from detectors.baseline import Baseline
from detectors.drift import Drift
from detectors.exhaustion import Exhaustion

STEP_S = 10.0
FAULT = range(300, 330)
LOG_SIGNALS = 5
"""Of an entity that logs one kind of line: error, warning and info lines, that kind, and all others."""
POLICY = """
apiVersion: aiops.io/v1
kind: RemediationPolicy
metadata: {name: restart-broken}
spec:
  trigger: {type: Anomaly, metric: app_errors}
  actions:
    - {type: Restart, condition: "anomaly.value > 20.0", target: {deployment: "shop/db"}}
"""


class Shop:
    """Forty services; `service/shop/web` calls `service/shop/db`, which breaks; `service/far/…` have nothing to do with it."""

    name = "shop"

    def __init__(self, fault: range = FAULT, others: int = 40) -> None:
        self.interval_s, self.fault, self.others = STEP_S, fault, others

    def poll(self, now: float, into: Any) -> None:
        k = round((now - T0) / STEP_S)
        x = np.random.default_rng(k).normal(10.0, 1.0, 4 + self.others)
        bad = k in self.fault
        into.sample(now, "service/shop/db", "app_errors", {}, float(x[0] + 30 * bad))
        into.sample(now, "service/shop/web", "app_latency", {"route": "/pay"}, float(x[1] + 20 * (bad and k > self.fault[0])))
        into.sample(now, "service/shop/db", "hits_total", {}, 100.0 * k + float(x[2]), "counter")
        into.sample(now, "pod/shop/db-0", "app_threads", {}, float(x[3]))
        for i in range(self.others):
            into.sample(now, f"service/far/s{i}", "app_errors", {}, float(x[4 + i]))
        into.line(LogLine(now, "service/shop/db", "ERROR cannot write: disk gone" if bad else f"INFO request {k} done"))
        into.line(LogLine(now, "service/far/s1", f"INFO nothing to see {k}"))
        if k == self.fault[0] - 3:
            into.event(Event(now, "service/shop/db", "change", "Deployed", "db 2.0"))
        if k % 100 == 0:
            calls = [Edge("service/shop/web", "service/shop/db"), Edge("service/shop/db", "pod/shop/db-0", "owns"),
                     *(Edge("service/far/s0", f"service/far/s{i}") for i in range(1, self.others))]
            into.links("shop", Links((), tuple(calls)))

    def close(self) -> None:
        """Nothing is held."""


def here(path: Path) -> None:
    """Makes a capsule in this process: as the daemon's own, without starting another."""
    try:
        make(path)
    except OSError as e:
        raise Failed(str(e)) from None


class Idle:
    """Stands for the worker: `drain` does its work."""

    def join(self, _: float) -> None:
        """It has ended."""


class Watched(Life):
    """A life whose capsules are made in the tick that ordered them."""

    def __init__(self, folder: Path, source: Any, start: int = 0, real: bool = False) -> None:
        super().__init__(folder, source, start)
        self.capsules, self.real = self.daemon.capsules, real
        if not real:
            self.capsules._make, self.capsules._worker = here, Idle()  # type: ignore[assignment]

    def drain(self) -> Watched:
        """Until nothing is ordered any more."""
        while self.capsules._waiting and not self.real:
            self.capsules._carry_out(self.capsules._next())
            self.capsules._sweep()
        return self

    def run(self, until: int) -> Watched:
        for k in range(self.k, until):
            super().run(k + 1)
            self.drain()
        return self


@pytest.fixture
def alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Watched]]:
    """Starts lives over one folder; the last one is killed at the end of the test. No worker: `drain` does its work."""
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "p.yaml").write_text(POLICY, encoding="utf-8")
    monkeypatch.setattr("test_restart.CONFIG", "store: state\nlisten: 127.0.0.1:0\nsources: [host]\npolicies: policies\n"
                        "interval: {step:g}s\ndetectors: {detectors}\n"
                        "slos: [{{name: acmecorp pays, signal: app_errors, above: -1, entity: service/payments/db-eu-west, "
                        "objective: 99%}}]\n")
    lives: list[Watched] = []

    def start(*arguments: Any, **more: Any) -> Watched:
        lives.append(Watched(tmp_path, *arguments, **more))
        return lives[-1]
    yield start
    for life in lives[-1:]:
        life.kill()


def told(life: Life) -> dict[str, Any]:
    """The incident as the daemon tells it."""
    [form] = life.daemon.store.incidents()
    return form


def story(form: dict[str, Any]) -> Any:
    return (form["id"], form["opened_at"], form["closed_at"], [(c["entity"], round(c["score"], 6)) for c in form["causes"]],
            [(a["id"], a["policy"], a["decision"], a["target"], a["at"]) for a in form["actions"]],
            [(a["entity"], a["signal"], a["since"]) for a in form["alerts"]])


@pytest.mark.slow
def test_a_capsule_replays_to_the_same_incident(alive: Callable[..., Watched], tmp_path: Path) -> None:
    """The same id, times, causes with their shares, decisions and alerts, out of 4 of 44 series and two hours of two."""
    life = alive(Shop()).run(FAULT[-1] + 120)
    form = told(life)
    folder = tmp_path / "state" / "capsules" / form["id"]
    about = json.loads((folder / "capsule.json").read_text())
    assert (about["series"], about["entities"], about["left_out"]) == (4, 4, {})
    assert about["learned_at"] and about["learned_at"] < form["opened_at"]
    assert not list(folder.parent.glob("*.job")) and not list(folder.parent.glob("*.before")), "it is the last one"
    assert form["state"] == "closed" and form["causes"][0]["entity"] == "service/shop/db" and form["actions"]
    [again] = app.Player(folder, None).play().json()["incidents"]
    assert story(again) == story(form)
    assert app.replay(folder, verify=True, as_json=True) == 0


def until_made(life: Watched) -> None:
    """Until a capsule was made, or not."""
    deadline = time.monotonic() + 100
    while not (life.capsules.made or life.capsules.failed) and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    assert (life.capsules.made, life.capsules.problem) == (1, "")


@pytest.mark.slow
def test_made_beside_the_step_and_ended_by_the_next_life(alive: Callable[..., Watched], tmp_path: Path) -> None:
    """By a process of its own while the incident is open; the daemon is killed, and the next one adds what came until then."""
    first = alive(Shop(), real=True).run(FAULT[0] + 10)
    until_made(first)
    name = told(first)["id"]
    folder = tmp_path / "state" / "capsules" / name
    assert check(folder)["until"] < T0 + 10 * (FAULT[0] + 8) and folder.with_suffix(".job").exists()
    first.run(FAULT[0] + 20).kill()
    second = alive(Shop(), start=FAULT[0] + 22, real=True)
    second.capsules.resume(second.daemon.store.incident)
    until_made(second)
    assert check(folder)["until"] == T0 + 10 * (FAULT[0] + 19) and not folder.with_suffix(".job").exists()
    [again] = app.Player(folder, None).play().json()["incidents"]
    assert (again["id"], again["causes"][0]["entity"], again["state"]) == (name, "service/shop/db", "open")
    listed = second.daemon.server._app.state.view.capsules()
    assert (listed["capsules"][0]["incident"], listed["capsules"][0]["whole"], listed["made"]) == (name, True, 1)
    with tarfile.open(fileobj=second.daemon.server._app.state.view.capsule(name)) as archive:
        assert f"{name}/incident.json" in archive.getnames()


@pytest.mark.slow
def test_what_was_learned_of_others_is_not_in_it(alive: Callable[..., Watched], tmp_path: Path) -> None:
    """Columns, evidence and names of nobody but those within four hops."""
    life = alive(Shop()).run(FAULT[-1] + 20)
    folder = tmp_path / "state" / "capsules" / told(life)["id"]
    kept = known.read(folder / "learned")
    assert kept is not None and {row[0] for row in kept.door["signals"]} == {
        "service/shop/db", "service/shop/web", "pod/shop/db-0"}
    baseline = kept.lineages["baseline"].serving.state
    assert {baseline[k].shape[-1] for k in ("core", "bins", "hour_level")} == {4 + LOG_SIGNALS}
    assert b"service/far" not in everything(folder)
    everybody = known.read(tmp_path / "state" / "models")
    assert everybody is not None and len(everybody.door["signals"]) == 44 + 2 * LOG_SIGNALS


# ------------------------------------------------------------------------------------------------------------ redaction
PLANTED = ("payments", "acmecorp", "hunter2", "alice", "10.11.12.13", "fe80::dead:beef", "bob@acmecorp.example",
           "eyJhbGciOiJIUzI1NiJ9", "4111111111111111", "vault.acmecorp.example", "s3cr3t-t0ken", "db-eu-west", "Straße",
           "goldcustomer", "sk-live-9aZ81kQ")


class Office(Shop):
    """The same fault where names, labels, log lines, events and alerts are full of what is nobody else's business."""

    def poll(self, now: float, into: Any) -> None:
        k = round((now - T0) / STEP_S)
        x = np.random.default_rng(k).normal(10.0, 1.0, 3)
        bad = k in self.fault
        mine, other = "service/payments/db-eu-west", "pod/payments/checkout-7d4f9-x2x9z"
        into.sample(now, mine, "app_errors", {"tenant": "goldcustomer"}, float(x[0] + 30 * bad))
        into.sample(now, other, "app_latency", {"route": "/acmecorp/alice"}, float(x[1] + 20 * bad))
        into.sample(now, "node//10.11.12.13", "node_cpu_seconds_total", {"mode": "idle", "cpu": "0"}, 9.0 * k, "counter")
        into.line(LogLine(now, mine, f"ERROR user alice at 10.11.12.13 failed, password=hunter2 bob@acmecorp.example {k}" if bad
                          else "INFO login alice via https://vault.acmecorp.example/v1?token=s3cr3t-t0ken from fe80::dead:beef"))
        into.line(LogLine(now, other, 'card 4111111111111111 "Straße 5" Bearer eyJhbGciOiJIUzI1NiJ9.e30 key sk-live-9aZ81kQ'))
        if k == self.fault[0] - 3:
            into.event(Event(now, mine, "change", "Deployed", "acmecorp/checkout:1.2 by alice"))
        if k == 0:
            into.links("office", Links((Node(mine, 2.0, {"team": "goldcustomer"}),), (Edge(other, mine),)))


def everything(folder: Path) -> bytes:
    """All bytes of a capsule, unpacked, with the strings of its tables."""
    found = b""
    for path in folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            found += path.name.encode() + (gzip.decompress(data) if path.suffix == ".gz" else data)
        if path.suffix == ".parquet":
            found += fastparquet.ParquetFile(str(path)).to_pandas().to_csv().encode()
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                found += b"".join(arrays[name].tobytes() for name in arrays.files)
    return found


@pytest.mark.slow
def test_a_redacted_capsule_replays_alike_and_tells_no_name(alive: Callable[..., Watched], tmp_path: Path) -> None:
    """Same times, causes, and decisions; no planted name, address, token or text is left in any byte. Shares of causes may differ
    a little: redacted lines are of other kinds, and how often each is usual is learned anew."""
    policy = tmp_path / "policies" / "p.yaml"
    policy.write_text(POLICY.replace("shop/db", "payments/db-eu-west").replace("restart-broken", "acmecorp-restart"))
    life = alive(Office()).run(FAULT[-1] + 120)
    form = told(life)
    folder = tmp_path / "state" / "capsules" / form["id"]
    assert [p for p in PLANTED if p.encode() in everything(folder)] == list(PLANTED), "otherwise the test could not fail"
    out = redacted(folder, tmp_path)
    packed = save(out, tmp_path / "r.tar.gz")
    with opened(packed) as again:
        left = everything(again).lower()
        assert [p for p in PLANTED if p.lower().encode() in left] == []
        assert [p for p in ("eu", "west", "checkout", "acmecorp-restart", form["id"]) if f"{p}".encode() in left] == []
        player = app.Player(again, None)
        result = player.play().json()
        assert app.replay(again, verify=True, as_json=True) == 0
    [replayed] = result["incidents"]
    assert replayed["id"] == out.name and [a["id"] for a in replayed["actions"]] == [
        a["id"] for a in json.loads((out / "incident.json").read_text())["actions"]]
    plain = story(form)
    assert story(replayed)[1:3] == plain[1:3]
    assert [c["score"] for c in replayed["causes"]] == pytest.approx([c["score"] for c in form["causes"]], abs=0.01)
    assert [(a["decision"], a["type"], a["at"]) for a in replayed["actions"]] == [
        (a["decision"], a["type"], a["at"]) for a in form["actions"]] and form["actions"]
    assert [c["entity"].split("/")[0] for c in replayed["causes"]] == [c["entity"].split("/")[0] for c in form["causes"]]
    assert redacted(folder, make_folder(tmp_path / "other")).name != out.name, "another key, other names"


def make_folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_rows_of_others_leave_every_detector() -> None:
    """Seasons and trends, too, which are kept by place: what is left is what it was."""
    of = signals(*(f"node//n{i} disk" for i in range(6)), limit=100.0, direction="up")
    x = np.cumsum(np.random.default_rng(1).uniform(0.0, 0.01, (40, 6)), axis=0)
    mine = {"node//n4", "node//n1"}
    lineages, state = {}, {}
    for name, code in (("exhaustion", Exhaustion()), ("baseline", Baseline()), ("drift", Drift()), ("absence", Absence())):
        for f in frames(x, of, step_s=60.0):
            code.observe(f)
        if isinstance(code, Baseline):
            code._grant(np.arange(6), T0)
        state[name] = code.state()
        lineages[name] = Lineage(Saved(name, code.VERSION, Model(name).settings, T0 + 2400, state[name]))
    rows = [[s.entity, s.name, s.labels, s.unit, s.direction, 0.0, 0.0, False, "", 100.0, 86400.0] for s in of]
    door = {"signals": rows, "heard": np.full(6, T0), "series": [[s.entity, s.name, ""] for s in of], "raw": np.zeros((5, 6))}
    small = known.picked(Learned(T0 + 2400, door, lineages), mine)
    left = {name: line.serving.state for name, line in small.lineages.items()}
    assert [row[0] for row in small.door["signals"]] == ["node//n1", "node//n4"] and small.door["raw"].shape == (5, 2)
    assert left.keys() == lineages.keys()
    for get in (lambda s: s["exhaustion"]["trends"]["bins"], lambda s: s["exhaustion"]["last"], lambda s: s["baseline"]["day"],
                lambda s: s["baseline"]["core"], lambda s: s["drift"]["level"]):
        np.testing.assert_array_equal(get(left), get(state)[..., [1, 4]])
    assert left["absence"]["names"] == ["node//n1", "node//n4"] and left["baseline"]["seasons"] == 2
