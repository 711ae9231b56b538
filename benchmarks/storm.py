"""A storm of raw alerts through lifetime, habit and grouping: alerts a second, a step with 1,000 alerting entities of 100,000.

    python benchmarks/storm.py [--entities 100000]

CPU time (user) of this process. The ratio is to one dictionary entry written for each raw alert, the least that deduplication
can cost. The graph has services in chains of calls with a pod each, on machines of 50 pods; the alerting ones are spread over it.
"""

from __future__ import annotations

import argparse
import random
import resource
from collections.abc import Callable, Sequence

import psutil

from aiops.others import Others
from aiops.types import Edge, Links, RawAlert
from correlators.correlate import Correlate
from correlators.graph import Graph

STEP_S, START = 15.0, 1e9
FLOOD = 1_000_000


def cpu(work: Callable[[], object]) -> float:
    """Seconds in user space."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    work()
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime - before


def topology(entities: int) -> Graph:
    """Half services, which call up to three others, and half pods of theirs, on machines."""
    rng, half = random.Random(1), entities // 2
    calls = [Edge(f"service/a/{k}", f"service/a/{rng.randrange(k)}") for k in range(1, half) for _ in range(rng.randrange(1, 4))]
    owns = [Edge(f"service/a/{k}", f"pod/a/{k}", "owns") for k in range(half)]
    runs = [Edge(f"pod/a/{k}", f"node//{k // 50}", "runs_on") for k in range(half)]
    return Graph(Links((), (*calls, *owns, *runs)))


def alerts(at: float, count: int, keys: int, spread: int) -> list[RawAlert]:
    """`count` raw alerts of `keys` rules and places, in the step that ends at `at`."""
    chosen = [f"service/a/{k * spread}" for k in range(max(keys // 4, 1))]
    return [RawAlert(i, at - STEP_S * (1 - i / count), chosen[i % keys // 4], f"Rule{i % 4}") for i in range(count)]


def least(raw: Sequence[RawAlert]) -> dict[str, float]:
    """Naive: one entry each."""
    return {f"{r.entity}|alert:{r.name}": r.time for r in raw}


def flood(graph: Graph) -> None:
    """A million raw alerts in a minute, of 4,000 keys."""
    others, correlate = Others(), Correlate()
    batches = [(START + (k + 1) * STEP_S, alerts(START + (k + 1) * STEP_S, FLOOD // 4, 4000, 40)) for k in range(4)]
    before = psutil.Process().memory_info().rss
    naive = cpu(lambda: [least(raw) for _, raw in batches])
    told = cpu(lambda: [others.update(at, raw) for at, raw in batches])
    found = Others()
    whole = cpu(lambda: [correlate.correlate(at, found.update(at, raw), graph, ()) for at, raw in batches])
    grown = (psutil.Process().memory_info().rss - before) / 2**20
    print(f"lifetime and habit      {FLOOD / told:>12,.0f} alerts/s, {told / naive:.1f} times one dictionary entry each")
    print(f"with grouping and cause {FLOOD / whole:>12,.0f} alerts/s, memory grew by {grown:.0f} MiB")


def step(graph: Graph, entities: int) -> None:
    """What a step costs while 1,000 entities alert."""
    others, correlate, spent = Others(), Correlate(), []
    for k in range(6):
        at = START + (k + 1) * STEP_S
        raw = alerts(at, 4000, 4000, entities // 2000)
        found = others.update(at, raw)
        spent.append(cpu(lambda at=at, found=found: correlate.correlate(at, found, graph, ())))  # type: ignore[misc]
    first, then = spent[0] * 1000, sorted(spent[1:])[2] * 1000
    print(f"a step, 1,000 entities of {entities:,} alert: the first {first:.0f} ms, then {then:.0f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entities", type=int, default=100_000)
    entities = parser.parse_args().entities
    graph = topology(entities)
    flood(graph)
    step(graph, entities)


if __name__ == "__main__":
    main()
