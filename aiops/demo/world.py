"""The simulated cluster: services with a daily rhythm, pods on nodes, GPUs, a volume, a job; what they measure and log.

Objects live in a `SimulatedCluster`, so whatever an action changes there - replicas, pods, nodes, images, jobs - shows in the
next tick: more replicas share the load, a fresh pod has no leak, pods leave a drained node. Faults (faults.py) change how pods,
nodes and volumes behave as long as nobody did what cures them. Seeded and in event time: equal calls give equal telemetry.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from aiops.changes import Object, labels_of, uid_of, value_at
from aiops.cluster.simulated import LONG_AGO, SimulatedCluster
from aiops.interfaces import Samples
from aiops.types import Edge, Entity, Event, Links, LogLine, Node

NAMESPACE = "shop"
DAY_S = 86400.0
STARTUP_S = {"chat": 60.0}
STARTUP_USUAL_S = 15.0
MIB = float(1 << 20)
GPUS_PER_NODE = 2


@dataclass(frozen=True, slots=True)
class Service:
    """`rate`: requests per second at noon. `capacity`: what one pod can serve. `latency_s`: when nothing waits."""

    name: str
    replicas: int
    rate: float
    capacity: float
    latency_s: float
    memory_mib: float
    calls: tuple[str, ...] = ()
    gpu: bool = False


SERVICES = (
    Service("db", 2, 240.0, 260.0, 0.004, 900.0),
    Service("catalog", 3, 120.0, 80.0, 0.02, 300.0, ("db",)),
    Service("chat", 4, 24.0, 12.0, 0.35, 9000.0, gpu=True),
    Service("gateway", 3, 150.0, 120.0, 0.01, 200.0, ("catalog", "chat")),
)
NODES = {"web-0": False, "web-1": False, "web-2": False, "gpu-0": True, "gpu-1": True, "gpu-2": True}


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


class World:
    """`tick` moves it on and hands what is measured to a sink of samples. `surge` multiplies the demand of services."""

    def __init__(self, seed: int = 0, faults: Sequence[Trouble] = (), tick_s: float = 15.0) -> None:
        self.cluster = SimulatedCluster(objects=[*_nodes(), *_workloads(), *_batch()])
        self.faults, self.tick_s = list(faults), tick_s
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
        emit = _Emitter(at, into, self._totals, self.tick_s, self._random)
        self._tell(emit)
        into.links("demo", self.links())
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
        self.nodes = {n: Machine(n, gpu) for n, gpu in NODES.items()}
        self.pods = {}
        for entity, one in self.cluster.objects.items():
            if not entity.startswith("pod/"):
                continue
            old = before.get(uid_of(one))
            app, started = labels_of(one).get("app", ""), _started(one)
            pod = Pod(entity, app, str(value_at(one, ("spec", "nodeName")) or ""), uid_of(one), started)
            pod.restarts = old.restarts if old else 0
            pod.ready = bool(pod.node) and at - started >= STARTUP_S.get(app, STARTUP_USUAL_S)
            self.pods[entity] = pod

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
            demand = service.rate * _rhythm(at) * self._wander(service.name) * self.surge.get(service.name, 1.0)
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
            machine.cpu = min(1.0, max(machine.cpu, 0.08 + 0.12 * sum(p.load for p in mine)))

    def _wander(self, name: str) -> float:
        """Slow, autocorrelated noise around 1."""
        last = self._wobble.get(name, 0.0)
        self._wobble[name] = now = 0.9 * last + 0.02 * float(self._random.standard_normal())
        return math.exp(now)

    # ----------------------------------------------------------------------------------------------------------- tell
    def _tell(self, emit: _Emitter) -> None:
        for service in SERVICES:
            pods = self.of(service.name)
            self._tell_service(emit, service, [p for p in pods if p.ready])
            asked = int(value_at(self.workload(service.name), ("spec", "replicas")) or 0)
            workload = f"{kind_of(service.name)}/{NAMESPACE}/{service.name}"
            emit.gauge(workload, "kube_deployment_spec_replicas", float(asked))
            emit.gauge(workload, "kube_deployment_status_replicas_available", float(sum(p.ready for p in pods)))
            for pod in pods:
                self._tell_pod(emit, service, pod)
        for pod in self.pods.values():
            if pod.node and self.nodes[pod.node].ready:
                emit.count(pod.entity, "container_cpu_usage_seconds_total", self._cores(pod), f'container="{pod.app}"')
        for machine in self.nodes.values():
            self._tell_node(emit, machine)
        volume = f"persistentvolumeclaim/{NAMESPACE}/data-db-0"
        emit.gauge(volume, "kubelet_volume_stats_capacity_bytes", 100e9)
        emit.gauge(volume, "kubelet_volume_stats_available_bytes", 100e9 * (1.0 - self.volume_used), noise=1e-5)
        emit.gauge(f"job/{NAMESPACE}/embed", "kube_job_status_failed", float(int(self.job_failures)))

    def _cores(self, pod: Pod) -> float:
        """What it keeps busy of the 16 cores of its node; what no service does takes all that is left."""
        if pod.app in {s.name for s in SERVICES}:
            return 0.2 + 1.7 * pod.load
        return 15.0 * self.nodes[pod.node].cpu

    def _tell_service(self, emit: _Emitter, service: Service, pods: Sequence[Pod]) -> None:
        entity = f"service/{NAMESPACE}/{service.name}"
        served = sum(p.load * service.capacity for p in pods if not p.hung)
        failed = sum(p.load * service.capacity * min(p.error_rate + 0.001, 1.0) for p in pods)
        if not pods:
            served = failed = service.rate
        waited = sum(p.latency_s * p.load for p in pods) / max(sum(p.load for p in pods), 1e-9) if pods else 5.0
        emit.requests(entity, served, failed, waited)
        emit.gauge(entity, "http_requests_in_flight", sum(p.queue + p.load for p in pods), noise=0.05)

    def _tell_pod(self, emit: _Emitter, service: Service, pod: Pod) -> None:
        memory = (service.memory_mib + pod.leaked_mib) * MIB
        box = f'container="{service.name}"'
        emit.gauge(pod.entity, "container_memory_working_set_bytes", memory, box, noise=0.01)
        emit.gauge(pod.entity, "container_spec_memory_limit_bytes", service.memory_mib * 2 * MIB, box)
        emit.gauge(pod.entity, "kube_pod_status_ready", float(pod.ready), 'condition="true"')
        emit.gauge(pod.entity, "kube_pod_container_status_waiting_reason", float(bool(pod.waiting)),
                   f'reason="{pod.waiting or "CrashLoopBackOff"}"')
        emit.level(pod.entity, "kube_pod_container_status_restarts_total", float(pod.restarts), box)
        if pod.ready:
            emit.requests(pod.entity, 0.0 if pod.hung else pod.load * service.capacity,
                          pod.load * service.capacity * min(pod.error_rate + 0.001, 1.0), pod.latency_s)
            if service.gpu:
                self._tell_engine(emit, pod, service)
        for text in pod.logs:
            emit.line(pod.entity, text)

    def _tell_engine(self, emit: _Emitter, pod: Pod, service: Service) -> None:
        """As vLLM tells it."""
        model = 'model_name="llama"'
        served = 0.0 if pod.hung else pod.load * service.capacity
        emit.gauge(pod.entity, "vllm:num_requests_waiting", pod.queue, model, noise=0.1)
        emit.gauge(pod.entity, "vllm:num_requests_running", 0.0 if pod.hung else 16.0 * pod.load, model, noise=0.05)
        emit.gauge(pod.entity, "vllm:kv_cache_usage_perc", min(1.0, 0.2 + 0.75 * pod.load), model, noise=0.02)
        emit.count(pod.entity, "vllm:generation_tokens_total", 150.0 * served, model)
        emit.count(pod.entity, "vllm:time_to_first_token_seconds_count", served, model)
        emit.count(pod.entity, "vllm:time_to_first_token_seconds_sum", served * pod.latency_s, model)

    def _tell_node(self, emit: _Emitter, machine: Machine) -> None:
        entity = f"node//{machine.name}"
        emit.gauge(entity, "kube_node_status_condition", float(machine.ready), 'condition="Ready",status="true"')
        if not machine.ready:
            return
        emit.count(entity, "node_cpu_seconds_total", 16.0 * machine.cpu, 'cpu="all",mode="user"', noise=0.02)
        emit.count(entity, "node_cpu_seconds_total", 16.0 * (1.0 - machine.cpu), 'cpu="all",mode="idle"')
        for k in range(GPUS_PER_NODE if machine.gpu else 0):
            gpu = f"gpu/{machine.name}/{k}"
            use = 0.0 if machine.gone and k == 0 else min(1.0, 0.9 * machine.cpu + 0.3)
            emit.gauge(gpu, "DCGM_FI_DEV_GPU_UTIL", 100.0 * use, noise=0.03)
            emit.gauge(gpu, "DCGM_FI_DEV_GPU_TEMP", 48.0 + 20.0 * use + machine.heat, noise=0.01)
            emit.gauge(gpu, "DCGM_FI_DEV_SM_CLOCK", 1980.0 - 25.0 * machine.heat, noise=0.002)
            emit.count(gpu, "DCGM_FI_DEV_THERMAL_VIOLATION", 4e7 * machine.heat)
            emit.gauge(gpu, "DCGM_FI_DEV_ROW_REMAP_PENDING", float(machine.name in self.remaps and k == 0))

    @property
    def remaps(self) -> set[str]:
        """Nodes with a GPU that waits for a reset to take a row out of use."""
        begun = [f for k, f in enumerate(self.faults) if k in self._begun]
        return {str(getattr(f, "target", "")) for f in begun if getattr(f, "remap", False)}

    def links(self) -> Links:
        """Who calls whom, which pods make up a service, and where they run."""
        nodes = [Node(f"service/{NAMESPACE}/{s.name}", 1.0 if s.name in ("gateway", "chat") else 0.7) for s in SERVICES]
        edges = [Edge(f"service/{NAMESPACE}/{s.name}", f"service/{NAMESPACE}/{c}") for s in SERVICES for c in s.calls]
        for pod in self.pods.values():
            if pod.app in {s.name for s in SERVICES}:
                edges.append(Edge(f"service/{NAMESPACE}/{pod.app}", pod.entity, "owns"))
                edges.append(Edge(f"{kind_of(pod.app)}/{NAMESPACE}/{pod.app}", pod.entity, "owns"))
            if pod.node:
                edges.append(Edge(pod.entity, f"node//{pod.node}", "runs_on"))
        edges += [Edge(f"node//{n}", f"gpu/{n}/{k}", "uses") for n, gpu in NODES.items() if gpu for k in range(GPUS_PER_NODE)]
        edges += [Edge(f"pod/{NAMESPACE}/db-0", f"persistentvolumeclaim/{NAMESPACE}/data-db-0", "uses")]
        return Links(tuple(nodes), tuple(edges))


class _Emitter:
    """Hands samples on; counters add up over ticks."""

    def __init__(self, at: float, into: Samples, totals: dict[tuple[Entity, str, str], float], tick_s: float,
                 random: np.random.Generator) -> None:
        self._at, self._into, self._totals, self._tick_s, self._random = at, into, totals, tick_s, random

    def gauge(self, entity: Entity, metric: str, value: float, labels: str = "", noise: float = 0.0) -> None:
        value *= 1.0 + noise * float(self._random.standard_normal()) if noise else 1.0
        self._into.sample(self._at, entity, metric, _labels(labels), value, "gauge")

    def level(self, entity: Entity, metric: str, value: float, labels: str = "") -> None:
        """A counter that is kept elsewhere."""
        self._into.sample(self._at, entity, metric, _labels(labels), value, "counter")

    def count(self, entity: Entity, metric: str, per_second: float, labels: str = "", noise: float = 0.01) -> None:
        key = (entity, metric, labels)
        more = max(0.0, per_second * (1.0 + noise * float(self._random.standard_normal()))) * self._tick_s
        self._totals[key] = self._totals.get(key, 0.0) + more
        self._into.sample(self._at, entity, metric, _labels(labels), self._totals[key], "counter")

    def requests(self, entity: Entity, per_second: float, failed: float, latency_s: float) -> None:
        self.count(entity, "http_requests_total", max(per_second - failed, 0.0), 'code="200"')
        self.count(entity, "http_requests_total", failed, 'code="500"', noise=0.1)
        self.count(entity, "http_request_duration_seconds_count", per_second, noise=0.0)
        self.count(entity, "http_request_duration_seconds_sum", per_second * latency_s, noise=0.02)

    def line(self, entity: Entity, text: str) -> None:
        self._into.line(LogLine(self._at, entity, text))


def kind_of(app: str) -> str:
    """The kind of workload, as entities spell it."""
    return "statefulset" if app == "db" else "deployment"


def _labels(text: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in text.replace('"', "").split(",")) if text else {}


def _rhythm(at: float) -> float:
    """Of a day: from 0.55 at night to 1.15 in the afternoon."""
    return 0.85 + 0.3 * math.sin(2.0 * math.pi * (at % DAY_S / DAY_S - 0.35))


def _started(one: Object) -> float:
    from remediations._pods import started_at

    return started_at(one)


def _nodes() -> list[tuple[str, Object]]:
    return [("node", {"kind": "Node", "metadata": {"name": n, "labels": {"kubernetes.io/hostname": n}}, "spec": {},
                      "status": {"conditions": [{"type": "Ready", "status": "True"}]}}) for n in NODES]


def _workloads() -> list[tuple[str, Object]]:
    made: list[tuple[str, Object]] = []
    for s in SERVICES:
        kind = {"statefulset": "StatefulSet", "deployment": "Deployment"}[kind_of(s.name)]
        template = {"metadata": {"labels": {"app": s.name}}, "spec": {"containers": [{"name": s.name, "image": f"{s.name}:1"}]}}
        spec = {"replicas": s.replicas, "selector": {"matchLabels": {"app": s.name}}, "template": template}
        meta = {"name": s.name, "namespace": NAMESPACE, "annotations": {"deployment.kubernetes.io/revision": "1"}}
        made.append((kind.lower(), {"kind": kind, "metadata": meta, "spec": spec}))
        owner = [{"kind": "ReplicaSet", "name": f"{s.name}-1", "controller": True}]
        made += [("pod", _pod(f"{s.name}-{k}", s.name, owner)) for k in range(s.replicas)]
    return made


def _pod(name: str, app: str, owner: list[dict[str, Any]]) -> Object:
    meta = {"name": name, "namespace": NAMESPACE, "labels": {"app": app}, "ownerReferences": owner, "creationTimestamp": LONG_AGO}
    ready = [{"type": "Ready", "status": "True"}]
    return {"kind": "Pod", "metadata": meta, "spec": {},
            "status": {"phase": "Running", "startTime": LONG_AGO, "conditions": ready}}


def _batch() -> list[tuple[str, Object]]:
    """A nightly job that nobody looks at until it hangs."""
    meta = {"name": "embed", "namespace": NAMESPACE, "labels": {"app": "embed"}}
    pod = {"containers": [{"name": "clean", "image": "clean:1", "command": ["clean"]}], "restartPolicy": "Never"}
    schedule = {"schedule": "0 0 31 2 *", "suspend": True, "jobTemplate": {"spec": {"template": {"spec": pod}}}}
    cleaner = {"kind": "CronJob", "metadata": {"name": "clean-data-db-0", "namespace": NAMESPACE}, "spec": schedule}
    job = {"kind": "Job", "metadata": meta, "spec": {"suspend": False, "parallelism": 2}, "status": {"active": 2}}
    return [("cronjob", cleaner), ("job", job)]
