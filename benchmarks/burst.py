"""The same fault on every node at once: is it planned in time, and does the ledger of blast radius hold?

    python benchmarks/burst.py [--nodes 1000,10000] [--profile]

N nodes with a GPU each, in ten zones; one in 211 was cordoned by others before. Then the same fault (rows of memory to be
remapped) shows on all GPUs in the same interval. Through the real pipeline (samples, detectors, alerts, incidents, policies with
their guards) with a policy that may act as often as it likes, so that the ledger alone holds it back, and then through the
executor on a simulated cluster of N nodes. Printed for each size: CPU time of each step until everything is decided, and of all
actions through the executor; how many incidents and decisions; how many nodes are away against what the limits allow; and how
much longer the larger one takes.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import pstats
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from aiops import build, meaning
from aiops.cluster.actuator import SimulatedActuator
from aiops.cluster.checks import not_paused
from aiops.cluster.radius import Radius
from aiops.cluster.simulated import SimulatedCluster
from aiops.daemon import RARELY
from aiops.limits import Limits
from aiops.policy.load import compile_document
from aiops.types import Action, Batch, Edge, Links, Node, Series
from aiops.yamlfile import parse

T0, TICK_S, WARM, STEPS = 1_790_000_000.0, 15.0, 150, 6
ZONES, ZONE = 10, "topology.kubernetes.io/zone"
LIMITS = Limits.model_validate({"nodes": {"count": 100, "share": "1%"}, "nodeGroup": {"count": 12, "share": "5%"}})
POLICY = """
apiVersion: aiops.io/v1
kind: RemediationPolicy
metadata: {name: remap}
spec:
  trigger: {type: Anomaly, metric: gpu_row_remap_pending}
  diagnosis: {correlations: [{metric: gpu_row_remap_pending}]}
  actions:
    - {type: Cordon, condition: "correlation.gpu_row_remap_pending > 0", target: {node: "${cause.node}"}}
  mode: act
  guards: {maxActions: {count: 100000, per: 1h}, maxUnavailable: 100000}
"""


@dataclass
class Found:
    """What one size came to. Seconds are CPU time of this process."""

    nodes: int
    steps_s: list[float] = field(default_factory=list)
    executor_s: float = 0.0
    incidents: int = 0
    decided: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    before: int = 0
    away: int = 0
    worst_zone: int = 0

    @property
    def planned_s(self) -> float:
        return sum(self.steps_s)


def telemetry(nodes: int) -> tuple[tuple[Series, ...], Links]:
    """One series a GPU, and where each GPU is."""
    series = tuple(Series(k, f"gpu/n{k}/0", "DCGM_FI_DEV_ROW_REMAP_PENDING", "", "gauge") for k in range(nodes))
    edges = tuple(Edge(f"gpu/n{k}/0", f"node//n{k}", "runs_on") for k in range(nodes))
    return series, Links(tuple(Node(f"node//n{k}") for k in range(nodes)), edges)


def cluster_of(nodes: int) -> SimulatedCluster:
    """All ready; one in 211 was cordoned by others."""
    ready = [{"type": "Ready", "status": "True"}]
    return SimulatedCluster(objects=[("node", {
        "kind": "Node", "metadata": {"name": f"n{k}", "labels": {ZONE: f"z{k % ZONES}"}},
        "spec": {"unschedulable": True} if k % 211 == 7 else {}, "status": {"conditions": ready}}) for k in range(nodes)])


def cordoned(cluster: SimulatedCluster) -> list[str]:
    """The zones of the nodes that are cordoned, by whomever."""
    return [one["metadata"]["labels"][ZONE] for one in cluster.objects.values() if one.get("spec", {}).get("unschedulable")]


def burst(nodes: int, profile: cProfile.Profile | None = None) -> Found:
    """Warms up, lets all fail at once, and carries out what was decided."""
    known = meaning.shipped()
    policy = compile_document(parse(POLICY, "policy.yaml")[0], known, problems := [])
    assert policy, problems
    pipeline, found = build.pipeline(known, [policy], "act"), Found(nodes)
    (series, links), ids = telemetry(nodes), np.arange(nodes, dtype=np.int32)
    actions: list[Action] = []
    for k in range(WARM + STEPS):
        at = T0 + k * TICK_S
        values = np.full(nodes, float(k >= WARM))
        batch = Batch(at, ids, np.full(nodes, at), values, series if k == 0 else (), links=links if k == 0 else None)
        if profile and k >= WARM:
            profile.enable()
        began = time.process_time()
        report = pipeline.step(batch)
        if k >= WARM:
            found.steps_s.append(time.process_time() - began)
        if profile:
            profile.disable()
        actions += [a for a in report.actions if a.decision == "act"]
        if len(actions) >= nodes:
            break
    found.incidents, found.decided = len(pipeline.book.current()), len(actions)
    cluster = cluster_of(nodes)
    found.before = len(cordoned(cluster))
    actuator = SimulatedActuator(cluster, [not_paused, Radius(LIMITS, lambda: T0)])
    began = time.process_time()
    actuator.submit(actions)
    found.executor_s = time.process_time() - began
    found.outcomes = Counter(o.status for o in actuator.collect())
    zones = cordoned(cluster)
    found.away, found.worst_zone = len(zones), max(Counter(zones).values())
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--nodes", default="1000,10000")
    parser.add_argument("--profile", action="store_true", help="where the steps of the largest one spend their time")
    given = parser.parse_args()
    gc.set_threshold(*RARELY)
    sizes = [int(n) for n in given.nodes.split(",")]
    profile = cProfile.Profile() if given.profile else None
    all_found = [burst(n, profile if n == max(sizes) else None) for n in sizes]
    for f in all_found:
        most, zone = LIMITS.nodes.most(f.nodes), LIMITS.node_group.most(f.nodes // ZONES)
        steps = ", ".join(f"{s:.2f}" for s in f.steps_s)
        sys.stdout.write(
            f"{f.nodes:,} nodes: planned in {f.planned_s:.2f} s (steps {steps}); {f.incidents:,} incidents, "
            f"{f.decided:,} decisions; through the executor {f.executor_s:.2f} s: {dict(f.outcomes)}\n"
            f"  away: {f.away} of {most} allowed ({f.before} by others before); in one zone at most {f.worst_zone} of {zone}\n")
        if f.away > most or f.worst_zone > zone:
            return 1
    if len(all_found) > 1:
        small, large = all_found[0], all_found[-1]
        more = large.nodes / small.nodes
        sys.stdout.write(f"{more:g} times as many nodes: {large.planned_s / small.planned_s:.1f} times as long to plan, "
                         f"{large.executor_s / small.executor_s:.1f} times to carry out\n")
    if profile:
        pstats.Stats(profile).sort_stats("cumulative").print_stats(35)
    return 0


if __name__ == "__main__":
    sys.exit(main())
