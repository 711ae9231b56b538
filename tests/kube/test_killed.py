"""Every remediation, killed with SIGKILL at every point on a real API server: each write is done once, none is lost.

The audit log of the API server says what was done. Two lives are cut short, the third goes on to the end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kube.audit import Request
from kube.controlplane import Control
from kube.world import World

from aiops import plugins

ROOT = Path(__file__).parents[2]
TYPES = plugins.type_names("remediations")
MARK: Any = {"resourceVersion", "uid"}
POINTS: Counter[str] = Counter()


@pytest.fixture(scope="module")
def lives(quiet: Control, world: World) -> Iterator[Lives]:
    made = Lives(quiet, world)
    yield made
    made.close()
    total = sum(POINTS.values())
    print(f"\n{total} kill points over {len(POINTS)} actions on a real API server: {dict(POINTS)}")


class Lives:
    """The process that forks, and what it needs to be told each time."""

    def __init__(self, control: Control, world: World) -> None:
        self.control, self.world = control, world
        kubeconfig = control.kubeconfig("aiops", "aiops-token")
        self.common = {"kubeconfig": str(kubeconfig), "url": control.url, "ca": str(control.ca), "at": world.at}
        path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        self.process = subprocess.Popen([sys.executable, "-m", "kube.mortal"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": path})

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        assert self.process.wait(20) == 0

    def live(self, agent: str, folder: Path, kill: int, **job: Any) -> dict[str, Any]:
        """One life. Returns once all that it sent has reached the server and was answered, or died with it."""
        assert self.process.stdin and self.process.stdout
        wanted = [list(key) for key in self.world.wanted]
        text = json.dumps({**self.common, "agent": agent, "folder": str(folder), "kill": kill, "wanted": wanted, **job})
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "the process that forks has died"
        told: dict[str, Any] = json.loads(line)
        assert "error" not in told, told["error"]
        self.sent[agent] = self.sent.get(agent, 0) + told["sent"]
        if told["killed"]:
            self._arrived(agent)
        return told

    def fresh(self) -> None:
        """Everything as it was, nobody leads, nothing is recorded."""
        self.world.reset()
        self.sent: dict[str, int] = {}
        for resource, name in (("leases", "aiops"), ("configmaps", "aiops-actions")):
            if self.control.admin.find(resource, "aiops", name):
                self.control.admin.delete(resource, "aiops", name)

    def _arrived(self, agent: str) -> None:
        """A request whose sender was killed is answered, or was dropped before anybody saw it, which a second tells."""
        deadline = time.monotonic() + 1.0
        while len(self.requests(agent)) < self.sent[agent] and time.monotonic() < deadline:
            self.control.admin.find("namespaces", None, "aiops")
        self.control.audit.settled("aiops")

    def requests(self, agent: str) -> list[Request]:
        return [r for r in self.control.audit.writes("aiops") if r.agent == agent]

    def done(self, agent: str, folder: Path) -> tuple[Counter[str], Counter[str]]:
        """What was carried out on the cluster and outside of it; and what may have been: its sender died, and the server says
        504 of requests that nobody waits for, whether or not they took effect."""
        self.control.audit.settled("aiops")
        ours = [(r, f"{r.verb} {r.resource}/{r.sub} {r.name} {json.dumps(_plain(r.body), sort_keys=True)}")
                for r in self.requests(agent) if r.namespace != "aiops"]
        calls = (folder / "calls").read_text().splitlines() if (folder / "calls").exists() else []
        return Counter([text for r, text in ours if r.code < 300] + calls), Counter(text for r, text in ours if r.code >= 500)


def _plain(body: Any) -> Any:
    """Without what differs from one object to the next of its name."""
    if isinstance(body, dict):
        return {k: _plain(v) for k, v in body.items() if k not in MARK}
    return [_plain(v) for v in body] if isinstance(body, list) else body


def killed_everywhere(lives: Lives, name: str, example: Any, folder: Path, several: bool) -> int:
    """How many points there were."""
    def life(agent: str, kill: int, number: int, submit: bool) -> dict[str, Any]:
        own = f"own-{number}" if several else "own"
        return lives.live(agent, folder / agent, kill, type=name, example=example, several=several, submit=submit, own=own,
                          after_s=40.0 * number)

    def begin(agent: str) -> str:
        (folder / agent).mkdir()
        lives.fresh()
        return agent
    calm = begin(f"{name}-{several}-calm")
    undisturbed = life(calm, -1, 0, True)
    assert undisturbed["ended"][0] == "done", undisturbed
    wanted, _ = lives.done(calm, folder / calm)
    state = lives.world.state()
    for point in range(undisturbed["spent"]):
        agent = begin(f"{name}-{several}-{point}")
        assert life(agent, point, 0, True)["killed"]
        POINTS[name] += 1
        POINTS[name] += life(agent, point // 2, 1, False)["killed"]
        last = life(agent, -1, 2, True)
        found, perhaps = lives.done(agent, folder / agent)
        where = f"{name} killed at point {point} of {undisturbed['spent']}: {last}, {[r.what for r in lives.requests(agent)]}"
        assert found <= wanted, f"doubled: {where}"
        assert lives.world.state() == state, where
        called = Counter({line: n for line, n in wanted.items() if line.startswith("call ")})
        assert wanted - found - perhaps <= called, f"lost: {where}"
        assert found >= wanted - perhaps or last["ended"][0] == "unknown", where
    return int(undisturbed["spent"])


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", TYPES)
def test_killed_anywhere_it_is_done_once(lives: Lives, name: str, tmp_path: Path) -> None:
    """A daemon on its own, which starts again with the same store."""
    example = plugins.load_type("remediations", name).examples[0]
    assert killed_everywhere(lives, name, example, tmp_path, several=False) > 3


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["ScaleUp", "Restart", "Drain", "RunJob"])
def test_the_next_leader_goes_on_where_the_last_one_was_killed(lives: Lives, name: str, tmp_path: Path) -> None:
    """Another replica, with a store of its own: all that it knows is the ledger in the cluster. Also the lease is written."""
    example = plugins.load_type("remediations", name).examples[-1]
    assert killed_everywhere(lives, name, example, tmp_path, several=True) > 20
