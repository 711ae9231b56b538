"""Does it heal, and does it keep its hands off? The simulated cluster, the real pipeline, the shipped policies in mode act.

    python benchmarks/healing.py [--seeds 25] [--kinds Leak,Hung] [--show]
    python benchmarks/healing.py --quiet-days 30 [--quiet-seeds 5] [--quiet-tick 30] [--show]

Each seed is one cluster that runs calmly for two hours, and then, in a process of its own, has each fault once. Counted: healed
without a human (the fault is cured within 45 minutes, by something that was not undone), wrong actions (anything that is not
among those that a careful person would take for this fault), the time from the fault to the decision, what made things worse, and
how much of that was undone. Traps are faults that nothing cures and that an obvious action makes worse: they are counted apart.

Quiet days have rollouts, autoscaling, maintenance, jobs, moved pods and odd samples (aiops/demo/everyday.py), but no fault: every
action is one too many. Each cluster goes on through its days, so that what is learned is used.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aiops import build, meaning, plugins, yamlfile
from aiops.cluster.actuator import SimulatedActuator
from aiops.cluster.checks import not_paused
from aiops.cluster.ownership import hands_off
from aiops.demo import faults, traps
from aiops.demo.everyday import everyday
from aiops.demo.world import World
from aiops.intake import Intake
from aiops.loop import advance
from aiops.pipeline import Pipeline
from aiops.policy.ledger import action_id
from aiops.policy.load import Policy, compile_document
from aiops.types import Action, Outcome
from aiops.yamlfile import Document

T0 = 1_790_000_000.0
TICK_S, WARM_S, LONGEST_S = 15.0, 7200.0, 2700.0
TARGETS = {"Leak": "gateway", "SlowReplica": "chat", "Hung": "chat", "BadDeploy": "catalog", "CrashLoop": "catalog",
           "Surge": "chat", "GpuLost": "gpu-1", "RowRemap": "gpu-2", "Hot": "gpu-1", "NodeLost": "web-1", "FullVolume": "db",
           "Noisy": "crunch", "StuckJob": "embed"}
EVERY = TARGETS | traps.TRAPS
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

    def __init__(self, seed: int, quiet: bool = False, tick_s: float = TICK_S) -> None:
        self.tick_s = tick_s
        self.world, self.intake = World(seed, (), tick_s, everyday(seed) if quiet else ()), Intake(tick_s)
        self.pipeline: Pipeline = build.pipeline(meaning.shipped(), policies(), "act")
        self.actuator = SimulatedActuator(self.world.cluster, [not_paused, hands_off])
        self.at = T0 + 86400.0 * (seed % 7) + 3600.0 * (seed % 24)
        self.actions: list[Action] = []
        self.outcomes: list[Outcome] = []
        self.incidents: set[str] = set()

    def tick(self) -> list[str]:
        """One interval; what was new in it, in words."""
        self.at += self.tick_s
        self.world.tick(self.at, self.intake)
        lines: list[str] = []
        for batch in self.intake.drain(self.at, tuple(self.actuator.collect())):
            report = advance(self.pipeline, batch, self.actuator, ())
            self.actions += report.actions
            self.outcomes += report.outcomes
            lines += [f"{a.decision} {a.policy} {a.type} {a.target}: {a.reason[:200]}" for a in report.actions]
            lines += [f"{o.status} {o.reason[:200]}" for o in report.outcomes]
            for i in report.incidents:
                if i.id not in self.incidents:
                    self.incidents.add(i.id)
                    firing = ", ".join(f"{a.entity} {a.signal} {a.value:.3g}" for a in i.alerts[:4])
                    lines.append(f"incident {i.id} cause {i.causes[0].entity if i.causes else '-'}: {firing}")
        return lines

    def fault(self, kind: str) -> dict[str, Any]:
        """Puts the fault in, and says what came of it."""
        fault = getattr(traps if kind in traps.TRAPS else faults, kind)(self.at + 60.0, EVERY[kind])
        self.world.faults.append(fault)
        healed = None
        while self.at < fault.start + LONGEST_S:
            self.tick()
            if healed is None and self.at > fault.start + 60.0 and fault.cured(self.world):
                healed = self.at - fault.start
            if healed is not None and not self.pipeline.book.open():
                break
        return self._told(kind, fault, healed if fault.cured(self.world) else None)

    def acts(self) -> list[Action]:
        """What was decided to be done, but for undoing."""
        return [a for a in self.actions if a.decision == "act" and a.state != "undo"]

    def _told(self, kind: str, fault: faults.Fault, healed: float | None) -> dict[str, Any]:
        acts, done = self.acts(), {o.action for o in self.outcomes if o.status == "done"}
        wrong = [f"{a.type} {a.target}" for a in acts
                 if a.id in done and a.type != "Notify" and (a.type, a.target) not in fault.right]
        right = [a for a in acts if (a.type, a.target) in fault.right]
        refused = {f"{a.policy}: {a.state}: {a.reason[:160]}" for a in self.actions if a.decision == "refused"}
        return {"kind": kind, "healed": healed, "cured": fault.cured(self.world), "wrong": wrong, **self._worse(),
                "outcomes": [o.status for o in self.outcomes], "said": [f"{o.status}: {o.reason[:160]}" for o in self.outcomes],
                "acts": [f"{a.at - fault.start:.0f} {a.policy} {a.type} {a.target}" for a in acts],
                "found_s": right[0].at - fault.start if right else None, "refused": sorted(refused)}

    def _worse(self) -> dict[str, int]:
        """What made things worse: all of it, what of it can be undone (a restart cannot), and what was."""
        worse = {o.action for o in self.outcomes if o.status == "worse"}
        undone = {o.action for o in self.outcomes if o.status == "undone"}
        can = {a.id for a in self.acts() if a.id in worse and plugins.load_type("remediations", a.type).reversible}
        return {"worse": len(worse), "reversible": len(can), "undone": sum(action_id(key, "undo") in undone for key in can)}


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


def heal(seeds: int, kinds: Sequence[str], show: bool) -> None:
    """Every kind of fault in every cluster, and a table of what came of it."""
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds}
    calm = 0
    for seed in range(seeds):
        run = Run(seed)
        end = run.at + WARM_S
        while run.at < end:
            run.tick()
        calm += len(run.acts())
        for kind in kinds:
            one = forked(run, kind)
            found[kind].append(one)
            if show:
                say(json.dumps({"seed": seed, **one}, indent=1))
    say(f"{'fault':<16}{'runs':>6}{'healed':>8}{'wrong':>7}{'worse':>7}{'undone':>8}{'to decision':>13}{'to well':>9}")
    faulty = {kind: many for kind, many in found.items() if kind in TARGETS}
    trapped = {kind: many for kind, many in found.items() if kind in traps.TRAPS}
    for group, name in ((faulty, "all faults"), (trapped, "all traps")):
        everything = [one for many in group.values() for one in many]
        for kind, many in [*group.items(), (name, everything)] if group else ():
            say(_row(kind, many))
    say(f"undone: of what made things worse and can be undone. Actions in the two calm hours before, over all seeds: {calm}")


def _row(kind: str, many: Sequence[dict[str, Any]]) -> str:
    healed = sorted(m["healed"] for m in many if m["healed"] is not None)
    first = sorted(m["found_s"] for m in many if m["found_s"] is not None)
    worse, can, undone = (sum(m[key] for m in many) for key in ("worse", "reversible", "undone"))
    return (f"{kind:<16}{len(many):>6}{len(healed):>8}{sum(len(m['wrong']) for m in many):>7}{worse:>7}{f'{undone}/{can}':>8}"
            f"{_middle(first):>13}{_middle(healed):>9}")


def _middle(sorted_s: Sequence[float]) -> str:
    return f"{sorted_s[len(sorted_s) // 2]:.0f} s" if sorted_s else "-"


def quiet(days: float, seeds: int, tick_s: float, show: bool) -> int:
    """Days without a fault in as many clusters; returns how many actions were taken."""
    acts, incidents = 0, 0
    for seed in range(seeds):
        run = Run(seed, True, tick_s)
        start = run.at
        while run.at < start + days * 86400.0 / seeds:
            for line in run.tick():
                if show:
                    say(f"seed {seed} day {(run.at - start) / 86400.0:.3f} {line}")
        acts, incidents = acts + len(run.acts()), incidents + len(run.incidents)
        by_policy = Counter(f"{a.policy} {a.type}" for a in run.acts())
        say(f"seed {seed}: {days / seeds:g} quiet days, {len(run.acts())} actions {dict(by_policy) or ''}, "
            f"{len(run.incidents)} incidents")
    say(f"{days:g} quiet days with rollouts, autoscaling, maintenance and jobs, a tick every {tick_s:g} s: "
        f"{acts} actions, {incidents / days:.1f} incidents a day")
    return acts


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, default=25)
    parser.add_argument("--kinds", default=",".join(EVERY))
    parser.add_argument("--quiet-days", type=float, help="no faults, but this many quiet days, over all clusters together")
    parser.add_argument("--quiet-seeds", type=int, default=5, help="how many clusters share the quiet days")
    parser.add_argument("--quiet-tick", type=float, default=30.0, help="seconds between two scrapes of a quiet day")
    parser.add_argument("--show", action="store_true", help="every run, with what was decided")
    given = parser.parse_args()
    if given.quiet_days is not None:
        return int(quiet(given.quiet_days, given.quiet_seeds, given.quiet_tick, given.show) > 0)
    heal(given.seeds, given.kinds.split(","), given.show)
    return 0


if __name__ == "__main__":
    sys.exit(main())
