"""Capsules: from a fault in live telemetry to a recording that replays to the same incident."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import T0
from test_restart import Life

from aiops import app
from aiops.capsules.make import make
from aiops.sinks.capsules import Failed
from aiops.types import Edge, Event, Links, LogLine

STEP_S = 10.0
FAULT = range(300, 330)
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

    def __init__(self, folder: Path, source: Any, start: int = 0, make: Callable[[Path], None] = here) -> None:
        super().__init__(folder, source, start)
        self.capsules = self.daemon.capsules
        self.capsules._make, self.capsules._worker = make, Idle()  # type: ignore[assignment]

    def drain(self) -> Watched:
        """Until nothing is ordered any more."""
        while self.capsules._waiting:
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
                        "interval: {step:g}s\ndetectors: {detectors}\n")
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
