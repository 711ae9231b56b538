"""Does it heal? Seeded faults in the simulated cluster, through the real pipeline, with the shipped policies in mode act.

    python benchmarks/healing.py [--seeds 25] [--kinds Leak,Hung] [--show]

Each seed is one cluster that runs calmly for two hours, and then, in a process of its own, has each fault once. Counted: healed
without a human (the fault is cured within 45 minutes, by something that was not undone), wrong actions (anything that is not
among those that a careful person would take for this fault), what made things worse, and the time from the fault to the decision.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from aiops import build, meaning, yamlfile
from aiops.cluster.actuator import SimulatedActuator
from aiops.cluster.checks import not_paused
from aiops.demo import faults
from aiops.demo.world import World
from aiops.intake import Intake
from aiops.loop import advance
from aiops.pipeline import Pipeline
from aiops.policy.load import Policy, compile_document
from aiops.types import Action, Outcome
from aiops.yamlfile import Document

T0 = 1_790_000_000.0
TICK_S, WARM_S, LONGEST_S = 15.0, 7200.0, 2700.0
TARGETS = {"Leak": "gateway", "SlowReplica": "chat", "Hung": "chat", "BadDeploy": "catalog", "CrashLoop": "catalog",
           "Surge": "chat", "GpuLost": "gpu-1", "RowRemap": "gpu-2", "Hot": "gpu-1", "NodeLost": "web-1", "FullVolume": "db",
           "Noisy": "crunch", "StuckJob": "embed"}
POLICIES = Path(__file__).parents[1] / "policies"


def policies() -> list[Policy]:
    """Those that ship, allowed to act."""
    made = []
    for path in sorted(POLICIES.glob("*.yaml")):
        for d in yamlfile.read(path):
            data = {**d.data, "spec": {**d.data["spec"], "mode": "act"}}
            policy = compile_document(Document(d.file, data, d.lines), meaning.shipped(), problems := [])
            assert policy, problems
            made.append(policy)
    return made


class Run:
    """One cluster with its daemon, in simulated time."""

    def __init__(self, seed: int) -> None:
        self.world, self.intake = World(seed), Intake(TICK_S)
        self.pipeline: Pipeline = build.pipeline(meaning.shipped(), policies(), "act")
        self.actuator = SimulatedActuator(self.world.cluster, [not_paused])
        self.at = T0 + 86400.0 * (seed % 7) + 3600.0 * (seed % 24)
        self.actions: list[Action] = []
        self.outcomes: list[Outcome] = []
        self.incidents: set[str] = set()

    def tick(self) -> None:
        self.at += TICK_S
        self.world.tick(self.at, self.intake)
        for batch in self.intake.drain(self.at, tuple(self.actuator.collect())):
            report = advance(self.pipeline, batch, self.actuator, ())
            self.actions += report.actions
            self.outcomes += report.outcomes
            self.incidents |= {i.id for i in report.incidents}

    def fault(self, kind: str) -> dict[str, Any]:
        """Puts the fault in, and says what came of it."""
        fault = getattr(faults, kind)(self.at + 60.0, TARGETS[kind])
        self.world.faults.append(fault)
        healed = None
        while self.at < fault.start + LONGEST_S:
            self.tick()
            if healed is None and self.at > fault.start + 60.0 and fault.cured(self.world):
                healed = self.at - fault.start
            if healed is not None and not self.pipeline.book.open():
                break
        healed = healed if fault.cured(self.world) else None
        acts = [a for a in self.actions if a.decision == "act" and a.state != "undo"]
        done = {o.action for o in self.outcomes if o.status == "done"}
        ours = [a for a in acts if a.id in done and a.type != "Notify"]
        wrong = [f"{a.type} {a.target}" for a in ours if (a.type, a.target) not in fault.right]
        statuses = [o.status for o in self.outcomes]
        said = [f"{o.status}: {o.reason[:160]}" for o in self.outcomes]
        right = [a for a in acts if (a.type, a.target) in fault.right]
        return {"kind": kind, "healed": healed, "cured": fault.cured(self.world), "wrong": wrong, "outcomes": statuses,
                "said": said,
                "acts": [f"{a.at - fault.start:.0f} {a.policy} {a.type} {a.target}" for a in acts],
                "found_s": right[0].at - fault.start if right else None,
                "refused": sorted({f"{a.policy}: {a.state}: {a.reason[:160]}" for a in self.actions if a.decision == "refused"})}


def forked(run: Run, kind: str) -> dict[str, Any]:
    """The fault in a child process: the parent stays as it was."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        with os.fdopen(write, "w") as out:
            json.dump(run.fault(kind), out)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        found = json.load(answer)
    os.waitpid(child, 0)
    return dict(found)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, default=25)
    parser.add_argument("--kinds", default=",".join(TARGETS))
    parser.add_argument("--show", action="store_true", help="every run, with what was decided")
    given = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    calm = 0
    for seed in range(given.seeds):
        run = Run(seed)
        while run.at < T0 + 86400.0 * (seed % 7) + 3600.0 * (seed % 24) + WARM_S:
            run.tick()
        calm += sum(a.decision == "act" for a in run.actions)
        for kind in given.kinds.split(","):
            one = forked(run, kind)
            found[kind].append(one)
            if given.show:
                sys.stdout.write(json.dumps({"seed": seed, **one}, indent=1) + "\n")
    every = [one for many in found.values() for one in many]
    sys.stdout.write(f"{'fault':<14}{'runs':>6}{'healed':>8}{'cured':>7}{'wrong':>7}{'worse':>7}{'to decision':>13}"
                     f"{'to well':>9}\n")
    for kind, many in [*found.items(), ("all", every)]:
        healed = [m["healed"] for m in many if m["healed"] is not None]
        first = sorted(m["found_s"] for m in many if m["found_s"] is not None)
        sys.stdout.write(f"{kind:<14}{len(many):>6}{len(healed):>8}{sum(m['cured'] for m in many):>7}"
                         f"{sum(len(m['wrong']) for m in many):>7}{sum(m['outcomes'].count('worse') for m in many):>7}"
                         f"{(f'{first[len(first) // 2]:.0f} s' if first else '-'):>13}"
                         f"{(f'{sorted(healed)[len(healed) // 2]:.0f} s' if healed else '-'):>9}\n")
    sys.stdout.write(f"actions in the two calm hours before, over all seeds: {calm}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
