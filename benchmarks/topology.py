"""What a change of the topology of a large cluster costs, beside building it whole with networkx each time.

usage: python benchmarks/topology.py [--entities 100000] [--changes 20] [--steps 10]
A cluster of pods with their deployments, services, machines, zones and leaf switches; in each step so many pods go and as many
come. User CPU time, median of the steps: what the Kubernetes source, the intake and the pipeline do, and the journal's line.
"""

from __future__ import annotations

import argparse
import resource
from statistics import median

import msgspec
import networkx as nx

from aiops.intake import Intake
from aiops.links import Known
from aiops.sinks.wire import batch_to_wire
from aiops.sources.kubernetes.kinds import machine
from aiops.sources.kubernetes.links import Cluster
from aiops.sources.kubernetes.objects import (
    Endpoint,
    KubeNode,
    ManagedMeta,
    Meta,
    NodeStatus,
    Owner,
    Pod,
    PodSpec,
    Reference,
    Slice,
)
from aiops.sources.kubernetes.reflector import Change
from aiops.types import Links
from correlators.topology import Topology

A_NODE, A_SERVICE = 100, 20
NAMESPACE = "shop"


def pod(k: int, nodes: int) -> Pod:
    labels = {"app": f"d{k // A_SERVICE}"}
    meta = Meta(f"p{k}", NAMESPACE, labels=labels, owner_references=[Owner("Deployment", f"d{k // A_SERVICE}", True)])
    return Pod(meta, PodSpec(f"n{k % nodes}"))


def node(k: int) -> object:
    labels = {"topology.kubernetes.io/zone": f"z{k % 3}", "network.topology.nvidia.com/leaf": f"l{k // 32}",
              "network.topology.nvidia.com/spine": f"s{k // 512}"}
    return machine(KubeNode(ManagedMeta(f"n{k}", labels=labels), status=NodeStatus({"nvidia.com/gpu": "8"})))


def piece(service: int, first: int) -> Slice:
    ends = [Endpoint(Reference("Pod", f"p{k}", NAMESPACE)) for k in range(first, first + A_SERVICE)]
    return Slice(Meta(f"e{service}", NAMESPACE, labels={"kubernetes.io/service-name": f"svc{service}"}), ends)


def spent() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


def whole(links: Links) -> nx.DiGraph[str]:
    """How it was done before: everything anew."""
    g: nx.DiGraph[str] = nx.DiGraph()
    for n in links.nodes:
        g.add_node(n.entity, criticality=n.criticality, labels=dict(n.labels))
    for e in links.edges:
        g.add_edge(e.source, e.target, kind=e.kind)
    return g


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entities", type=int, default=100_000)
    parser.add_argument("--changes", type=int, default=20)
    parser.add_argument("--steps", type=int, default=10)
    given = parser.parse_args()
    pods = given.entities * 90 // 100
    nodes = max(1, pods // A_NODE)
    cluster, intake, run = Cluster(), Intake(15.0), Topology()

    def step(at: float, changes: dict[str, list[Change[object]]]) -> tuple[int, float]:
        """Bytes of the journal's line, and seconds without writing it."""
        began = spent()
        intake.links("kubernetes", cluster.take(changes))
        batch = intake.drain(at)[-1]
        run.hear(batch)
        took = spent() - began
        return len(msgspec.json.encode(batch_to_wire(batch))), took

    size, took = step(1e9, {
        "pod": [Change((NAMESPACE, f"p{k}"), None, pod(k, nodes)) for k in range(pods)],
        "node": [Change(("", f"n{k}"), None, node(k)) for k in range(nodes)],
        "endpointslice": [Change((NAMESPACE, f"e{s}"), None, piece(s, s * A_SERVICE)) for s in range(pods // A_SERVICE)]})
    print(f"{len([*run.graph.entities()]):,} entities, {sum(1 for _ in run.edges()):,} edges")
    print(f"the first time: {took:.2f} s, {size / 1e6:.1f} MB in the journal; memory at most "
          f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB, objects of the cluster included")
    known = Known()
    known.put(Links(tuple(run.nodes()), tuple(h.edge for h in run.edges())))
    steps, sizes, wholes = [], [], []
    for k in range(given.steps):
        gone = range(k * given.changes, (k + 1) * given.changes)
        size, took = step(1e9 + 15 * (k + 1), {"pod": [
            *(Change((NAMESPACE, f"p{g}"), pod(g, nodes), None) for g in gone),
            *(Change((NAMESPACE, f"p{pods + g}"), None, pod(pods + g, nodes)) for g in gone)]})
        steps.append(took)
        sizes.append(size)
        began = spent()
        whole(known.whole())
        wholes.append(spent() - began)
    ratio = median(wholes) / max(median(steps), 1e-6)
    print(f"{given.changes} pods go and {given.changes} come: {1000 * median(steps):.2f} ms, {median(sizes) / 1e3:.1f} kB in the "
          f"journal; networkx whole: {1000 * median(wholes):.0f} ms, {ratio:,.0f} times as much")


if __name__ == "__main__":
    main()
