"""Which pod works on which GPU, read off the labels that dcgm-exporter writes.

The exporter names the pod that a GPU is given to. Scraped without `honorLabels` these names arrive as `exported_pod`,
because `pod` is then the exporter itself. https://docs.nvidia.com/datacenter/dcgm/latest/gpu-telemetry/dcgm-exporter.html
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

import numpy as np

from aiops.types import Edge, Entity, Ints, Links, Node

EXPORTER = re.compile(r"(^|[-/])(nvidia-)?dcgm(-exporter)?($|[-/])|dcgm-exporter")
"""Pods and containers that measure GPUs and do not use them."""
KINDS = ("gpu/", "mig/")
WITNESSES = frozenset({"DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_FB_USED"})
"""What every GPU and every MIG instance has."""
FORGET_S, AGAIN_S = 660.0, 300.0
MAX_EDGES = 100_000


def edge(labels: Mapping[str, str], entity: Entity) -> Edge | None:
    """`pod uses gpu` (or mig), None where the labels name no pod that works on it. Never raises.

    labels: all labels of a raw series, with those that made the entity. entity: what `Meanings.entity` made of them.
    """
    if not entity.startswith(KINDS):
        return None
    if labels.get("exported_pod"):
        namespace, pod = labels.get("exported_namespace", ""), labels["exported_pod"]
    elif labels.get("pod") and not _measures(labels):
        namespace, pod = labels.get("namespace", ""), labels["pod"]
    else:
        return None
    return Edge(f"pod/{namespace}/{pod}", entity, "uses")


def _measures(labels: Mapping[str, str]) -> bool:
    return any(EXPORTER.search(labels.get(name, "")) for name in ("pod", "container"))


class GpuPods:
    """Collects the edges that a source sees, and says when they changed. Bounded; a pair not seen for ten minutes is forgotten.

    For each series that a source meets: `see(number, metric, labels, entity, now)`; after each poll: the series numbered
    `again(now)` are to be met anew, because a GPU keeps its number when its pod changes, and
    `into.links(f"{name}-gpus", links)` if `changed(now)` gives any.
    """

    def __init__(self) -> None:
        self._seen: dict[Edge, float] = {}
        self._told: frozenset[Edge] = frozenset()
        self._witnesses: set[int] = set()
        self._asked = -math.inf

    def see(self, number: int, metric: str, labels: Mapping[str, str], entity: Entity, now: float) -> None:
        """A series that was met, with all its labels. Only those of a metric that every GPU has are looked at."""
        if metric in WITNESSES and entity.startswith(KINDS):
            self._witnesses.add(number)
            found = edge(labels, entity)
            if found and (found in self._seen or len(self._seen) < MAX_EDGES):
                self._seen[found] = now

    def again(self, now: float) -> Ints:
        """int32: whom to meet anew, every five minutes; else nobody."""
        if now - self._asked < AGAIN_S:
            return np.zeros(0, np.int32)
        self._asked, met = now, self._witnesses
        self._witnesses = set()
        return np.array(sorted(met), np.int32)

    def changed(self, now: float) -> Links | None:
        """All that is known, where it is something else than at the last call."""
        self._seen = {e: at for e, at in self._seen.items() if now - at <= FORGET_S}
        if self._seen.keys() == self._told:
            return None
        self._told = frozenset(self._seen)
        edges = sorted([*self._told, *slices(e.target for e in self._told)], key=lambda e: (e.source, e.target))
        return Links(tuple(Node(n) for n in sorted({n for e in edges for n in (e.source, e.target)})), tuple(edges))


def slices(entities: Iterable[Entity]) -> set[Edge]:
    """`mig/NODE/GPU/INSTANCE runs_on gpu/NODE/GPU` for each MIG instance among the entities."""
    out: set[Edge] = set()
    for entity in entities:
        if entity.startswith("mig/") and entity.count("/") >= 3:
            out.add(Edge(entity, "gpu/" + entity.removeprefix("mig/").rpartition("/")[0], "runs_on"))
    return out
