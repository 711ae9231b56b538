"""Two daemons on a real API server: what the one that died had done is judged, put back and counted by the other, once."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kube.apiclient import path_of
from kube.controlplane import Control, until
from kube.lab import Account
from kube.world import World

ROOT = Path(__file__).parents[2]
API = ["deployment/shop/api", "HighLatency"]
CONFIG = """\
apiVersion: aiops.io/v1
kind: Config
mode: act
store: {store}
listen: 127.0.0.1:0
interval: 500ms
detectors: [baseline]
policies: {policies}
leaderElection: {{lease: aiops/aiops}}
sources:
  - kubernetes: {{kubeconfig: {kubeconfig}, events: false}}
sinks:
  - console: {{}}
"""
POLICY = """\
apiVersion: aiops.io/v1
kind: RemediationPolicy
metadata: {name: more-replicas}
spec:
  trigger: {type: Anomaly, metric: "alert:HighLatency"}
  mode: act
  actions:
    - {type: ScaleUp, target: {deployment: api, replicas: "+2"}}
  guards: {cooldown: 1s}
  verify: {settle: 20s, within: 8s}
"""


class Daemon:
    """A process of `kube.sees`; `name` is its agent in the audit log of the API server."""

    def __init__(self, control: Control, folder: Path, name: str, account: Account | None = None) -> None:
        self.user = account.user if account else "aiops"
        self.control, self.folder, self.name = control, folder, f"{name}-{folder.name}"
        self.store = folder / name
        policies = folder / "policies"
        policies.mkdir(exist_ok=True)
        (policies / "p.yaml").write_text(POLICY)
        config = folder / f"{name}.yaml"
        kubeconfig = account.kubeconfig if account else control.kubeconfig("aiops", "aiops-token")
        config.write_text(CONFIG.format(store=self.store, policies=policies, kubeconfig=kubeconfig))
        self.log = folder / f"{name}.log"
        path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "kube.sees", self.name, str(folder / "alerts.json"), str(config)],
                stdout=log, stderr=log, cwd=ROOT, env={**os.environ, "PYTHONPATH": path})

    def runs(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return "Page: " in self.log.read_text()

    @property
    def page(self) -> str:
        return re.findall(r"Page: (\S+)", self.log.read_text())[-1]

    def leads(self) -> bool:
        """A process writes its own name into the lease with its agent."""
        lease = self.control.admin.find("leases", "aiops", "aiops")
        writes = [r for r in self.control.audit.writes(self.user) if r.agent == self.name and r.code < 300]
        made = [r for r in writes if r.resource == "leases"]
        return bool(lease and made) and lease["spec"].get("holderIdentity") == made[-1].body["spec"]["holderIdentity"]

    def acted(self) -> list[str]:
        """What it did to anything but the lease and the ledger."""
        writes = [r for r in self.control.audit.writes(self.user) if r.agent == self.name and r.namespace != "aiops"]
        return [f"{r.what} -> {r.body['spec']['replicas']}" for r in writes]

    def memory(self) -> dict[str, Any]:
        """What it knows of attempts."""
        try:
            return dict(json.loads((self.store / "policy-memory.json").read_text()))
        except FileNotFoundError:
            return {"record": {}, "ledger": {"attempts": []}}

    def told(self) -> str:
        """Its audit record."""
        return "".join(p.read_text() for p in sorted((self.store / "audit").iterdir()))

    def counted(self) -> list[list[int]]:
        """Helped, did not help, made it worse: of all that it counted."""
        return [row[:3] for row in self.memory()["record"].values()]

    def states(self) -> dict[str, list[str]]:
        """Attempt -> state and undo."""
        return {a["id"]: [a["state"], a["undo"]] for a in self.memory()["ledger"]["attempts"]}

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


class Stage:
    """The world that both see, and the daemons in it."""

    def __init__(self, control: Control, folder: Path) -> None:
        self.control, self.folder, self.made = control, folder, list[Daemon]()
        self.fires()

    def fires(self, *alerts: list[str]) -> None:
        part = self.folder / "alerts.part"
        part.write_text(json.dumps(alerts))
        part.replace(self.folder / "alerts.json")

    def start(self, name: str, account: Account | None = None) -> Daemon:
        """With the rights of the user `aiops`, or those of an account."""
        self.made.append(Daemon(self.control, self.folder, name, account))
        until(self.made[-1].runs, 60.0, f"{name} runs")
        return self.made[-1]

    def replicas(self) -> int:
        return int(self.control.admin.get("deployments", "shop", "api")["spec"]["replicas"])

    def entries(self) -> dict[str, Any]:
        found = self.control.admin.find("configmaps", "aiops", "aiops-actions")
        return {e["id"]: e for e in json.loads(found["data"]["actions.json"])} if found else {}


@pytest.fixture
def stage(quiet: Control, world: World, tmp_path: Path) -> Iterator[Stage]:
    world.reset()
    for resource, name in (("leases", "aiops"), ("configmaps", "aiops-actions")):
        if quiet.admin.find(resource, "aiops", name):
            quiet.admin.delete(resource, "aiops", name)
    quiet.admin.patch(path_of("deployments", "shop", "api"), {"metadata": {"managedFields": [{}]}})  # nobody has just touched it
    made = Stage(quiet, tmp_path)
    yield made
    for one in made.made:
        one.process.kill()
        one.process.wait()


def acted_and_killed(stage: Stage) -> tuple[Daemon, Daemon, str]:
    """Both see the fault, the first acts, and is killed long before it could judge."""
    first = stage.start("first")
    until(first.leads, 30.0, "the first leads")
    second = stage.start("second")
    stage.fires(API)
    until(lambda: "incident opened" in second.log.read_text(), 30.0, "the second sees it, too")
    until(lambda: any(e["status"] == "done" for e in stage.entries().values()), 30.0, "done")
    first.kill()
    [(action, entry)] = stage.entries().items()
    assert entry["about"]["attempt"]["trigger"] == [API[0], f"alert:{API[1]}"] and stage.replicas() == 4
    return first, second, action


def settled(stage: Stage, daemon: Daemon, done: Callable[[], bool], what: str) -> float:
    """Seconds that it took."""
    began = time.monotonic()
    until(done, 60.0, lambda: f"{what}: {daemon.states()} {daemon.log.read_text()[-3000:]}")
    return time.monotonic() - began


def test_what_a_dead_leader_did_is_judged_and_undone_by_the_next_one_once(stage: Stage) -> None:
    """It did not help: put back, counted, and not done again for the same evidence; also when the first one is back and leads."""
    first, second, action = acted_and_killed(stage)
    took_s = settled(stage, second, lambda: stage.replicas() == 2, "undone")
    settled(stage, second, lambda: second.states()[action] == ["no_help", "undone"], "heard")
    print(f"\njudged and undone {took_s:.1f} s after the leader was killed (settle 20 s, within 8 s)")
    assert second.counted() == [[0, 1, 0]]
    again = stage.start("first")
    until(lambda: again.states().get(action) == ["no_help", "undone"], 30.0, lambda: f"the first hears of it: {again.states()}")
    second.kill()
    until(again.leads, 30.0, "the first leads again")
    until(lambda: again.told().count('"verb":"lead"') == 2, 30.0, "and judges")
    stage.control.audit.settled("aiops")
    assert first.name == again.name
    assert first.acted() == ["patch deployments/scale shop/api 200 -> 4"]
    assert second.acted() == ["patch deployments/scale shop/api 200 -> 2"]
    assert (again.counted(), stage.replicas()) == ([[0, 1, 0]], 2)


def test_what_helped_is_counted_by_the_next_one_and_stays(stage: Stage) -> None:
    """The alert is resolved while nobody leads."""
    first, second, action = acted_and_killed(stage)
    stage.fires()
    settled(stage, second, lambda: second.states().get(action) == ["helped", ""], "judged")
    assert second.counted() == [[1, 0, 0]] and stage.replicas() == 4
    stage.control.audit.settled("aiops")
    assert [*first.acted(), *second.acted()] == ["patch deployments/scale shop/api 200 -> 4"]
