"""A process that forks processes that carry out one action each and kill themselves at a point that is told: for test_killed.py.

Reads jobs as lines of JSON, answers each with a line. All that is slow to import is there before the first fork. A life is
spent point by point: before and after each line of the ledger, before each write of the API, when its request was sent and its
answer not read, and after the answer.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import urllib3.connection
from kube.apiclient import Client
from kube.world import World
from kubernetes import client as _kubernetes  # noqa: F401 - loaded before the fork

from aiops import plugins
from aiops.changes import Change, Object
from aiops.clock import ManualClock
from aiops.cluster.actuator import NEVER_BEGUN, LiveActuator
from aiops.cluster.checks import not_paused
from aiops.cluster.kubernetes import KubernetesCluster, connect
from aiops.cluster.ownership import hands_off
from aiops.cluster.replicas import one_of_several
from aiops.cluster.transport import Api
from aiops.interfaces import Retry
from aiops.store.intents import Intents
from aiops.types import Action

LINES = ("begin", "turn", "written", "result")
TURNS, RENEWALS = 300, 2
"""One renewal of the lease is like the next."""


class Life:
    """What is left of it; `sent` counts the writes that left."""

    def __init__(self, left: int, tell: int) -> None:
        self.left, self.tell, self.spent, self.sent, self.writing = left, tell, 0, 0, False

    def spend(self) -> None:
        if self.left == 0:
            os.write(self.tell, json.dumps({"killed": True, "sent": self.sent}).encode())
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1
        self.spent += 1


class Mortal:
    """A ledger; each line may be the last."""

    def __init__(self, ledger: Any, life: Life) -> None:
        self._ledger, self._life = ledger, life

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._ledger, name)
        if name not in LINES:
            return found

        def line(*given: Any) -> Any:
            self._life.spend()
            answer = found(*given)
            self._life.spend()
            return answer
        return line


class Outside:
    """A cluster with somebody to call: a file that gets a line for each call."""

    def __init__(self, cluster: Any, calls: Path, life: Life) -> None:
        self._cluster, self._calls, self._life = cluster, calls, life

    def get(self, target: str) -> Object | None:
        return None if target.split("/")[0] in ("webhook", "person") else self._cluster.get(target)

    def find(self, *given: Any, **named: Any) -> Any:
        return self._cluster.find(*given, **named)

    def try_out(self, change: Change) -> None:
        if change.verb != "call":
            self._cluster.try_out(change)

    def write(self, change: Change) -> Object:
        if change.verb != "call":
            return self._cluster.write(change)  # type: ignore[no-any-return]
        self._life.spend()
        with self._calls.open("a") as file:
            file.write(f"{change}\n")
        self._life.spend()
        return {}


def mortal_requests(life: Life) -> None:
    """Every write of every connection of this process is three points."""
    call, answer, renewals = Api._call, urllib3.connection.HTTPConnection.getresponse, itertools.count(1)

    def called(self: Api, method: str, path: str, *given: Any, **named: Any) -> Any:
        writes = named["writes"] if "writes" in named else given[-1]
        if not writes or ("/leases" in path and next(renewals) > RENEWALS):
            return call(self, method, path, *given, **named)
        life.spend()
        life.writing = True
        try:
            return call(self, method, path, *given, **named)
        except Retry as e:
            if "waits" in e.reason:
                life.writing = False
            raise
        finally:
            life.writing = False
            life.spend()

    def got(self: Any, *given: Any, **named: Any) -> Any:
        if life.writing:
            life.sent += 1
            life.spend()
        return answer(self, *given, **named)
    Api._call, urllib3.connection.HTTPConnection.getresponse = called, got  # type: ignore[method-assign]


def action_of(job: dict[str, Any]) -> Action:
    target = plugins.load_type("remediations", job["type"]).target.model_validate(job["example"])
    return Action("a-1", job["type"], target.entity("shop"), {**target.params(), "max_unavailable": 1}, "i", "p", "act", "",
                  job["at"])


def live(job: dict[str, Any], life: Life) -> dict[str, Any]:
    """One life of an actuator, until the action has ended or nothing is left to do: outcome, points spent, writes sent."""
    kubeconfig, folder = Path(job["kubeconfig"]), Path(job["folder"])
    clock, own, action = ManualClock(job["at"] + job["after_s"]), Intents(folder / f"{job['own']}.sqlite"), action_of(job)
    made: list[Api] = []

    def connected(**given: Any) -> Api:
        made.append(connect(kubeconfig, **given))
        made[-1]._client.user_agent = job["agent"]
        return made[-1]
    several = one_of_several(clock, own, connected, "aiops", "aiops") if job["several"] else None
    outside = Outside(KubernetesCluster(several.api if several else connected()), folder / "calls", life)
    cluster = several.gated(outside) if several else outside
    ledger = Mortal(several.ledger if several else own, life)
    mortal_requests(life)
    actuator = LiveActuator(cluster, clock, ledger, [action.id], [not_paused, hands_off], office=several and several.office)
    if job["submit"]:
        actuator.submit([action])
    world = World(Client(job["url"], Path(job["ca"]), "admin-token"), job["at"])
    world.wanted = {(kind, name): {} for kind, name in job["wanted"]}
    for _ in range(TURNS):
        if several:
            several.office.election.lease.step()
        wait_s = actuator.run_due()
        ended = {o.action: [o.status, o.reason] for o in actuator.collect() if o.reason != NEVER_BEGUN}
        if wait_s is None or ended:
            return {"killed": False, "ended": ended.get(action.id), "spent": life.spent, "sent": life.sent}
        world.tend()
        clock.sleep_until(clock.now() + max(wait_s, 2.0))
    raise AssertionError(f"{action.type} never ended")


def forked(job: dict[str, Any]) -> dict[str, Any]:
    """What the child told before its end."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        try:
            told = live(job, Life(job["kill"], write))
        except BaseException as e:  # noqa: BLE001 - told to the parent, whose test fails with it
            told = {"killed": False, "error": f"{type(e).__name__}: {e}", "ended": None, "spent": 0, "sent": 0}
        os.write(write, json.dumps(told).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        told = json.loads(pipe.read())
    os.waitpid(child, 0)
    return dict(told)


def main() -> None:
    for name in plugins.type_names("remediations"):
        plugins.load_type("remediations", name)
    for line in sys.stdin:
        print(json.dumps(forked(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
