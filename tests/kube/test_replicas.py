"""Two replicas in two processes on a real API server: exactly one acts, whatever happens to the other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from kube.audit import Request
from kube.controlplane import Control, until
from kube.world import World

from aiops.types import Action

ROOT = Path(__file__).parents[2]
FAILOVER_S = 20.0


class Replica:
    """A process. `told` is what it said of each action; `name` is its agent in the audit log."""

    def __init__(self, control: Control, at: float, name: str, folder: Path, *interrupted: str) -> None:
        self.control, self.at, self.name, self.told = control, at, name, dict[str, list[str]]()
        kubeconfig = control.kubeconfig("aiops", "aiops-token")
        path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        self.process = subprocess.Popen([sys.executable, "-m", "kube.replica", name, str(kubeconfig), str(folder), *interrupted],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
                                        env={**os.environ, "PYTHONPATH": path})
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            action, *rest = json.loads(line)
            self.told[action] = rest

    def decides(self, key: str, target: str) -> None:
        """As its pipeline would: two more."""
        action = Action(key, "ScaleUp", target, {"replicas": "+2"}, "i", "p", "act", "", self.at)
        assert self.process.stdin
        self.process.stdin.write(json.dumps(asdict(action)) + "\n")
        self.process.stdin.flush()

    def leads(self) -> bool:
        lease = self.control.admin.find("leases", "aiops", "aiops")
        return bool(lease) and self.holder == lease["spec"].get("holderIdentity")

    @property
    def holder(self) -> str:
        """Who it is in the lease: a process writes its own with its agent."""
        made = [r for r in self.writes() if r.resource == "leases" and r.code < 300]
        return str(made[-1].body["spec"]["holderIdentity"]) if made else "nobody"

    def writes(self, since: float = 0.0) -> list[Request]:
        return [r for r in self.control.audit.writes("aiops", since) if r.agent == self.name]

    def acted(self, since: float = 0.0) -> list[str]:
        """What it did to anything but the lease and the ledger."""
        return [r.what for r in self.writes(since) if r.namespace != "aiops"]

    def state(self) -> str:
        """`T`: halted; `Z`: killed; `S` or `R`: alive."""
        return Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0]

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def replica(quiet: Control, world: World, tmp_path: Path) -> Iterator[Callable[..., Replica]]:
    world.reset()
    for resource, name in (("leases", "aiops"), ("configmaps", "aiops-actions")):
        if quiet.admin.find(resource, "aiops", name):
            quiet.admin.delete(resource, "aiops", name)
    made: list[Replica] = []

    def start(name: str, *interrupted: Any) -> Replica:
        made.append(Replica(quiet, world.at, f"{name}-{tmp_path.name}", tmp_path, *map(str, interrupted)))
        return made[-1]
    yield start
    for one in made:
        one.end()


def ledger(quiet: Control) -> dict[str, Any]:
    found = quiet.admin.find("configmaps", "aiops", "aiops-actions")
    return {e["id"]: e for e in json.loads(found["data"]["actions.json"])} if found else {}


def test_exactly_one_acts_and_hands_over_when_it_stops(replica: Callable[..., Replica], quiet: Control) -> None:
    """The other one waits with what it decided itself; an orderly stop gives the lease back, and it does not do it again."""
    first = replica("first")
    until(first.leads, what="the first leads")
    second = replica("second")
    second.decides("b-1", "deployment/shop/api")
    second.decides("b-2", "statefulset/shop/db")
    first.decides("a-1", "deployment/shop/api")
    until(lambda: "a-1" in first.told, what="done")
    assert first.told["a-1"][0] == "done" and second.told == {} and second.acted() == []
    first.process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    until(second.leads, what="the second leads")
    assert time.monotonic() - began < 8.0
    until(lambda: len(second.told) == 2, what="the second is done")
    assert second.told["b-1"][0] == "refused" and first.holder in second.told["b-1"][1]
    assert second.told["b-2"][0] == "done"
    assert first.acted() == ["patch deployments/scale shop/api 200"]
    assert second.acted() == ["patch statefulsets/scale shop/db 200"]
    assert first.process.wait(10) == 0
    assert all("timeout=" in r.uri for r in first.writes() if r.resource != "leases"), "the server ends it, too"


@pytest.mark.parametrize("stage", ["before", "sent", "after"])
def test_a_leader_that_is_killed_is_followed_and_its_action_is_done_once(
        replica: Callable[..., Replica], quiet: Control, stage: str) -> None:
    """In less than twenty seconds, before or after its write took effect."""
    first = replica("first", int(signal.SIGKILL), stage)
    until(first.leads, what="the first leads")
    second = replica("second")
    until(lambda: any(r.agent == second.name for r in quiet.audit.requests("aiops")), what="the second follows")
    first.decides("a-1", "deployment/shop/api")
    until(lambda: first.state() == "Z", what="killed")
    began = time.monotonic()
    until(lambda: ledger(quiet)["a-1"]["status"] == "done", FAILOVER_S + 10, "taken over")
    assert time.monotonic() - began < FAILOVER_S
    assert quiet.admin.get("deployments", "shop", "api")["spec"]["replicas"] == 4
    done = [w for w in first.acted() + second.acted() if w.endswith(" 200")]
    assert done == ["patch deployments/scale shop/api 200"] or stage == "sent"
    assert len(done) <= 1
    print(f"\nfailover after a kill {stage} the write: {time.monotonic() - began:.1f} s")


@pytest.mark.parametrize("stage", ["before", "sent", "after"])
def test_a_leader_that_is_halted_past_its_lease_writes_nothing_any_more(
        replica: Callable[..., Replica], quiet: Control, stage: str) -> None:
    """Halted in the middle of an action, the other one finishes it; awake again it lets go of everything."""
    first = replica("first", int(signal.SIGSTOP), stage)
    until(first.leads, what="the first leads")
    second = replica("second")
    first.decides("a-1", "deployment/shop/api")
    first.decides("a-2", "statefulset/shop/db")
    until(lambda: first.state() == "T", what="halted")
    until(lambda: ledger(quiet)["a-1"]["status"] == "done", 40.0, "taken over")
    second.decides("b-1", "statefulset/shop/db")
    until(lambda: "b-1" in second.told, what="the second goes on")
    quiet.audit.settled("aiops")
    awake = time.time()
    first.process.send_signal(signal.SIGCONT)
    until(lambda: len(first.told) == 2, 60.0, lambda: f"the first lets go: {first.told}")
    assert first.acted(awake) == [] and [r.what for r in first.writes(awake) if r.code < 300] == []
    assert first.told["a-2"][0] == "refused" and "another replica leads since" in first.told["a-2"][1]
    assert first.told["a-1"][0] in ("unknown", "done")
    assert quiet.admin.get("deployments", "shop", "api")["spec"]["replicas"] == 4
    assert quiet.admin.get("statefulsets", "shop", "db")["spec"]["replicas"] == 5
