"""What a recording says of machines and pods, told to the cluster that its replay acts on.

So that who was away then is away in the replay as well, and the same guards refuse the same actions. Read from the topology and
from the metrics of kube-state-metrics, as far as they were recorded; what was not is taken to be well.
https://github.com/kubernetes/kube-state-metrics/tree/main/docs/metrics
"""

from __future__ import annotations

import numpy as np

from aiops.changes import Object
from aiops.cluster.simulated import SimulatedCluster
from aiops.links import Known
from aiops.meaning import parse_labels
from aiops.types import Batch, Entity, Series

READY = {"kube_node_status_condition": {"condition": "Ready", "status": "true"}, "kube_pod_status_ready": {"condition": "true"}}
CORDONED = "kube_node_spec_unschedulable"


class Recorded:
    """Hand it every batch before its step. A state is taken over when it is first told and when it changes: in between, what the
    replay itself did stands."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        self._cluster = cluster
        self._known = Known()
        self._tells: dict[int, tuple[Entity, str]] = {}
        self._told: dict[int, bool] = {}

    def tell(self, batch: Batch) -> None:
        """What the batch says of who is there, who is ready, and who is cordoned."""
        if batch.links is not None:
            self._known.put(batch.links)
            self._cluster.follow(self._known.whole())
        for number in batch.retired.tolist():
            self._tells.pop(number, None)
            self._told.pop(number, None)
        self._tells |= {s.id: (s.entity, s.metric) for s in batch.new_series if _tells(s)}
        if self._tells:
            mine = np.isin(batch.series, list(self._tells))
            for number, value in zip(batch.series[mine].tolist(), batch.value[mine].tolist(), strict=True):
                if value == value and self._told.get(number) != (value > 0):
                    self._told[number] = value > 0
                    self._is(*self._tells[number], value > 0)

    def _is(self, entity: Entity, metric: str, true: bool) -> None:
        one: Object | None = self._cluster.objects.get(entity)
        if one is None:
            return
        if metric == CORDONED:
            one["spec"]["unschedulable"] = true
        else:
            one["status"]["conditions"] = [{"type": "Ready", "status": str(true)}]


def _tells(s: Series) -> bool:
    """Whether a series says of a machine or pod that it is ready, or cordoned."""
    if s.metric == CORDONED:
        return True
    wanted = READY.get(s.metric)
    try:
        return wanted is not None and parse_labels(s.labels).items() >= wanted.items()
    except ValueError:
        return False
