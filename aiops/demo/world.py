"""The simulated cluster: services with a daily rhythm, pods on nodes, GPUs, a volume, a job; what they measure and log.

Objects live in a `SimulatedCluster`, so whatever an action changes there - replicas, pods, nodes, images, jobs - shows in the
next tick: more replicas share the load, a fresh pod has no leak, pods leave a drained node. Faults (faults.py) change how pods,
nodes and volumes behave as long as nobody did what cures them; habits (everyday.py) are what goes on in any case. Seeded and in
event time: equal calls give equal telemetry.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from aiops.changes import Object, labels_of, uid_of, value_at
from aiops.cluster.simulated import SimulatedCluster
from aiops.demo import objects, telemetry
from aiops.demo.objects import NAMESPACE, NODES, SERVICES, kind_of
from aiops.demo.telemetry import CORES
from aiops.interfaces import Samples
from aiops.types import Entity, Event

DAY_S = 86400.0
STARTUP_S = {"chat": 60.0}
STARTUP_USUAL_S = 15.0


@dataclass(slots=True)
class Pod:
    """One pod in one tick. Faults set what is wrong with it; the rest follows."""

    entity: Entity
    app: str
    node: str
    uid: str
    started_at: float
    ready: bool = True
    slowness: float = 1.0
    error_rate: float = 0.0
    leaked_mib: float = 0.0
    hung: bool = False
    restarts: int = 0
    waiting: str = ""
    logs: list[str] = field(default_factory=list)
    load: float = 0.0
    latency_s: float = 0.0
    queue: float = 0.0

    @property
    def finite(self) -> bool:
        """Of a job: it ends by itself."""
        return self.app == "report"


@dataclass(slots=True)
class Machine:
    """One node in one tick."""

    name: str
    gpu: bool
    ready: bool = True
    cpu: float = 0.0
    heat: float = 0.0
    gone: bool = False


class Trouble(Protocol):
    """A fault: from `start` on it is applied in every tick. `cured` looks at the cluster only."""

    start: float

    def begin(self, world: World, at: float) -> None: ...
    def apply(self, world: World, at: float) -> None: ...
    def cured(self, world: World) -> bool: ...


class Habit(Protocol):
    """What goes on without anything being wrong: it acts on the cluster's objects, before each tick."""

    def act(self, world: World, at: float) -> None: ...


class World:
    """`tick` moves it on and hands what is measured to a sink of samples. `surge` multiplies the demand of services.

    Set by habits: `down`, nodes that are switched off; `rolling`, deployments in a rollout; `work`, pods of jobs with the cores
    that they use; `blips`, pods with how slow they are in this tick, and their share of errors.
    """

    def __init__(self, seed: int = 0, faults: Sequence[Trouble] = (), tick_s: float = 15.0,
                 habits: Sequence[Habit] = ()) -> None:
        self.cluster = SimulatedCluster(objects=[*objects.nodes(), *objects.workloads(), *objects.batch()])
        self.faults, self.tick_s, self.habits = list(faults), tick_s, list(habits)
        self.down: set[str] = set()
        self.rolling: set[str] = set()
        self.work: dict[Entity, float] = {}
        self.blips: dict[Entity, tuple[float, float]] = {}
        self.pods: dict[Entity, Pod] = {}
        self.nodes: dict[str, Machine] = {}
        self.surge: dict[str, float] = {}
        self.volume_used = 0.55
        self.job_failures = 0.0
        self.events: list[Event] = []
        self._random = np.random.default_rng(seed)
        self._totals: dict[tuple[Entity, str, str], float] = {}
        self._begun: set[int] = set()
        self._wobble: dict[str, float] = {}

    def tick(self, at: float, into: Samples) -> None:
        """One interval up to `at`."""
        self.cluster.now = at
        for habit in self.habits:
            habit.act(self, at)
        self._schedule()
        self._look(at)
        for number, fault in enumerate(self.faults):
            if at >= fault.start:
                if number not in self._begun:
                    self._begun.add(number)
                    fault.begin(self, at)
                    self._look(at)
                fault.apply(self, at)
        self._serve(at)
        telemetry.tell(self, telemetry.Emitter(at, into, self._totals, self.tick_s, self._random))
        into.links("demo", telemetry.links(self))
        for event in self.events:
            into.event(event)
        self.events = []

    # --------------------------------------------------------------------------------------------- scheduler, kubelet
    def _schedule(self) -> None:
        """Pods without a node get the emptiest that takes them; a pod on a node that is gone stays where it is."""
        for entity, one in self.cluster.objects.items():
            if not entity.startswith("pod/") or value_at(one, ("spec", "nodeName")):
                continue
            wants = labels_of(one).get("app") == "chat"
            fit = [n for n, gpu in NODES.items() if gpu == wants and not value_at(self.node(n), ("spec", "unschedulable"))
                   and (n not in self.nodes or self.nodes[n].ready)]
            if fit:
                one.setdefault("spec", {})["nodeName"] = min(fit, key=lambda n: (self._guests(n), n))

    def _guests(self, node: str) -> int:
        return sum(value_at(one, ("spec", "nodeName")) == node for one in self._pod_objects())

    def node(self, name: str) -> Object:
        return self.cluster.objects[f"node//{name}"]

    def _pod_objects(self) -> Iterator[Object]:
        return (one for entity, one in self.cluster.objects.items() if entity.startswith("pod/"))

    def _look(self, at: float) -> None:
        """Every pod and node as they are when nothing is wrong with them; what lasts over ticks is kept by uid."""
        before = {p.uid: p for p in self.pods.values()}
        self.nodes = {n: Machine(n, gpu, ready=n not in self.down) for n, gpu in NODES.items()}
        self.pods = {}
        for entity, one in self.cluster.objects.items():
            if not entity.startswith("pod/"):
                continue
            old = before.get(uid_of(one))
            app, started = labels_of(one).get("app", ""), _started(one)
            pod = Pod(entity, app, str(value_at(one, ("spec", "nodeName")) or ""), uid_of(one), started)
            pod.restarts = old.restarts if old else 0
            pod.ready = bool(pod.node) and at - started >= STARTUP_S.get(app, STARTUP_USUAL_S)
            pod.slowness, pod.error_rate = self.blips.get(entity, (1.0, 0.0))
            self.pods[entity] = pod
        gone = before.keys() - {p.uid for p in self.pods.values()}
        if gone:  # counters begin anew with the process
            entities = {before[uid].entity for uid in gone}
            self._totals = {key: total for key, total in self._totals.items() if key[0] not in entities}

    def of(self, app: str) -> list[Pod]:
        """The pods of a workload, by name."""
        return sorted((p for p in self.pods.values() if p.app == app), key=lambda p: p.entity)

    def workload(self, app: str) -> Object:
        return self.cluster.objects[f"{kind_of(app)}/{NAMESPACE}/{app}"]

    # -------------------------------------------------------------------------------------------------------- traffic
    def _serve(self, at: float) -> None:
        """Requests are shared by the pods that are ready; what does not fit waits, and a caller waits for whom it calls."""
        waited: dict[str, float] = {}
        for service in SERVICES:
            pods = [p for p in self.of(service.name) if p.ready]
            demand = service.rate * season(at) * self._wander(service.name) * self.surge.get(service.name, 1.0)
            behind = max((waited[c] for c in service.calls), default=0.0)
            for pod in pods:
                busy = self.nodes[pod.node].cpu
                slow = pod.slowness * (1.0 + 4.0 * max(0.0, busy - 0.9) / 0.1)
                share = demand / len(pods)
                use = share * slow / service.capacity
                pod.load = min(use, 1.0)
                pod.latency_s = service.latency_s * slow / (1.0 - min(use, 0.9)) + behind + 2.0 * max(0.0, use - 0.9)
                pod.queue = 0.3 * use / (1.0 - min(use, 0.9)) + 40.0 * max(0.0, use - 0.95)
                if pod.hung:
                    pod.queue, pod.latency_s = (at - pod.started_at) % 600.0 * share / 10.0 + 20.0, 30.0
            waited[service.name] = sum(p.latency_s for p in pods) / len(pods) if pods else 5.0
        for machine in self.nodes.values():
            mine = [p for p in self.pods.values() if p.node == machine.name and p.ready]
            work = sum(self.work.get(p.entity, 0.0) for p in mine)
            machine.cpu = min(1.0, max(machine.cpu, 0.08 + 0.12 * sum(p.load for p in mine) + work / CORES))

    def _wander(self, name: str) -> float:
        """Slow, autocorrelated noise around 1."""
        last = self._wobble.get(name, 0.0)
        self._wobble[name] = now = 0.9 * last + 0.02 * float(self._random.standard_normal())
        return math.exp(now)

    @property
    def remaps(self) -> set[str]:
        """Nodes with a GPU that waits for a reset to take a row out of use."""
        begun = [f for k, f in enumerate(self.faults) if k in self._begun]
        return {str(getattr(f, "target", "")) for f in begun if getattr(f, "remap", False)}

def season(at: float) -> float:
    """Of a day: from 0.55 at night to 1.15 in the afternoon; on Saturdays and Sundays a quarter less."""
    weekend = (at // DAY_S + 3) % 7 >= 5  # 1970 began on a Thursday
    return (0.75 if weekend else 1.0) * (0.85 + 0.3 * math.sin(2.0 * math.pi * (at % DAY_S / DAY_S - 0.35)))


def _started(one: Object) -> float:
    from remediations._pods import started_at

    return started_at(one)


