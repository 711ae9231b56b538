"""States of pods, workloads and nodes as samples under the names of kube-state-metrics, so that packs know them without it.

A state is told at every poll while it lasts. What only ever says 1 there (a reason to wait, a condition) goes back to 0 here
for as long as its object lives: a level that comes down is known to have ended, one that vanishes is not.
https://github.com/kubernetes/kube-state-metrics/tree/main/docs/metrics
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from aiops.interfaces import Samples
from aiops.sources.kubernetes.kinds import Deployed, Machine, Scaler
from aiops.sources.kubernetes.objects import Condition, Pod
from aiops.types import Entity, Ints

WAITING = "kube_pod_container_status_waiting_reason"
CONDITION = "kube_node_status_condition"
ENDS_AT_ZERO = frozenset({WAITING, CONDITION})
PHASES = ("Pending", "Failed", "Unknown")
Labels = tuple[tuple[str, str], ...]
SeriesKey = tuple[Entity, Labels]


@dataclass(frozen=True, slots=True)
class State:
    """One number about an object."""

    metric: str
    entity: Entity
    value: float
    labels: Labels = ()
    kind: str = "gauge"


class States:
    """The present states of all objects. `put` once an object changes, `emit` at every poll. Memory: some numbers an object."""

    def __init__(self) -> None:
        self._values: dict[str, dict[SeriesKey, float]] = defaultdict(dict)
        self._kinds: dict[str, str] = {}
        self._of: dict[Entity, tuple[State, ...]] = {}
        self._numbers: dict[tuple[str, SeriesKey], int | None] = {}
        self._retired: deque[Ints] = deque()  # filled by the thread of the ticks
        self._into: Samples | None = None

    def put(self, entity: Entity, states: Iterable[State]) -> None:
        """What holds of `entity` from now on; nothing: it is gone."""
        new = {(s.metric, s.entity, s.labels): s for s in states}
        old = self._of.pop(entity, ())
        for s in old:
            if new and s.metric in ENDS_AT_ZERO:
                new.setdefault((s.metric, s.entity, s.labels), State(s.metric, s.entity, 0.0, s.labels, s.kind))
        for s in old:
            if (s.metric, s.entity, s.labels) not in new:
                del self._values[s.metric][s.entity, s.labels]
                self._numbers.pop((s.metric, (s.entity, s.labels)), None)
        for s in new.values():
            self._values[s.metric][s.entity, s.labels] = s.value
            self._kinds[s.metric] = s.kind
        if new:
            self._of[entity] = tuple(new.values())

    def emit(self, now: float, into: Samples, wanted: Callable[[str], bool]) -> bool:
        """A sample of each state of the metrics that are wanted. False where there was no room for some."""
        if into is not self._into:
            self._into, self._numbers = into, {}
            into.on_retire(self._retired.append)
        self._forget_retired()
        refused = [metric for metric, values in self._values.items()
                   if values and wanted(metric) and not self._emit(metric, values, now, into)]
        return not refused

    def _forget_retired(self) -> None:
        """Numbers that belong to others by now; and who was refused may ask again, as there is room."""
        while self._retired:
            gone = set(self._retired.popleft().tolist())
            self._numbers = {key: n for key, n in self._numbers.items() if n is not None and n not in gone}

    def _emit(self, metric: str, values: dict[SeriesKey, float], now: float, into: Samples) -> bool:
        numbers = [self._number(metric, key, into) for key in values]
        known = np.array([n is not None for n in numbers], np.bool_)
        ids = np.array([n for n in numbers if n is not None], np.int32)
        return into.block(ids, np.full(len(ids), now), np.fromiter(values.values(), np.float64, len(values))[known])

    def _number(self, metric: str, key: SeriesKey, into: Samples) -> int | None:
        if (metric, key) not in self._numbers:
            entity, labels = key
            self._numbers[metric, key] = into.series(entity, metric, dict(labels), self._kinds[metric])
        return self._numbers[metric, key]


def of_pod(p: Pod) -> Iterator[State]:
    """Nothing of a pod that has done its work: that it is not ready any more is no fault."""
    entity = f"pod/{p.metadata.namespace}/{p.metadata.name}"
    if p.status.phase == "Succeeded":
        return
    for phase in PHASES:
        yield State("kube_pod_status_phase", entity, float(p.status.phase == phase), (("phase", phase),))
    if p.finished:
        return
    ready = _is_true(p.status.conditions, "Ready")
    yield State("kube_pod_status_ready", entity, float(ready), (("condition", "true"),))
    for c in p.status.container_statuses or ():
        name = ("container", c.name)
        yield State("kube_pod_container_status_restarts_total", entity, float(c.restart_count), (name,), "counter")
        reason = c.state.waiting.reason if c.state.waiting else None
        yield State(WAITING, entity, float(reason == "CrashLoopBackOff"), (name, ("reason", "CrashLoopBackOff")))
        if reason and reason != "CrashLoopBackOff":
            yield State(WAITING, entity, 1.0, (name, ("reason", reason)))


def of_workload(kind: str, entity: Entity, w: Deployed) -> Iterator[State]:
    s, asked = w.status, float(w.replicas or 0)
    told: dict[str, dict[str, float]] = {
        "deployment": {"kube_deployment_spec_replicas": asked, "kube_deployment_status_replicas": s.replicas,
                       "kube_deployment_status_replicas_available": s.available_replicas,
                       "kube_deployment_status_replicas_unavailable": s.unavailable_replicas},
        "statefulset": {"kube_statefulset_replicas": asked, "kube_statefulset_status_replicas_ready": s.ready_replicas},
        "daemonset": {"kube_daemonset_status_number_unavailable": s.number_unavailable},
        "job": {"kube_job_status_failed": s.failed},
    }
    for metric, value in told.get(kind, {}).items():
        yield State(metric, entity, float(value))


def of_scaler(s: Scaler) -> Iterator[State]:
    entity = f"horizontalpodautoscaler/{s.meta.namespace}/{s.meta.name}"
    yield State("kube_horizontalpodautoscaler_status_current_replicas", entity, float(s.current))
    yield State("kube_horizontalpodautoscaler_spec_max_replicas", entity, float(s.most))


def of_machine(m: Machine) -> Iterator[State]:
    """Whether it is cordoned, and each condition that the kubelet or a problem detector reports."""
    yield State("kube_node_spec_unschedulable", f"node//{m.meta.name}", float(m.cordoned))
    for c in m.conditions:
        labels = (("condition", c.type), ("status", "true"))
        yield State(CONDITION, f"node//{m.meta.name}", float(c.status == "True"), labels)


def _is_true(conditions: Iterable[Condition] | None, name: str) -> bool:
    return any(c.type == name and c.status == "True" for c in conditions or ())
