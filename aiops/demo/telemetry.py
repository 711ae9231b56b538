"""What the simulated cluster measures and logs, and who depends on whom in it: as exporters, engines and kubelets tell it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from aiops.changes import value_at
from aiops.demo.objects import NAMESPACE, NODES, SERVICES, Service, kind_of
from aiops.interfaces import Samples
from aiops.types import Edge, Entity, Links, LogLine, Node

if TYPE_CHECKING:
    from aiops.demo.world import Machine, Pod, World

MIB = float(1 << 20)
GPUS_PER_NODE = 2
CORES = 16


def tell(world: World, emit: Emitter) -> None:
    """Everything that is measured in this tick."""
    for service in SERVICES:
        pods = world.of(service.name)
        _tell_service(world, emit, service, [p for p in pods if p.ready])
        asked = int(value_at(world.workload(service.name), ("spec", "replicas")) or 0)
        workload = f"{kind_of(service.name)}/{NAMESPACE}/{service.name}"
        emit.gauge(workload, "kube_deployment_spec_replicas", float(asked))
        emit.gauge(workload, "kube_deployment_status_replicas_available", float(sum(p.ready for p in pods)))
        for pod in pods:
            _tell_pod(world, emit, service, pod)
    for pod in world.pods.values():
        if pod.node and world.nodes[pod.node].ready:
            emit.count(pod.entity, "container_cpu_usage_seconds_total", _cores(world, pod), f'container="{pod.app}"')
    for machine in world.nodes.values():
        _tell_node(world, emit, machine)
    volume = f"persistentvolumeclaim/{NAMESPACE}/data-db-0"
    emit.gauge(volume, "kubelet_volume_stats_capacity_bytes", 100e9)
    emit.gauge(volume, "kubelet_volume_stats_available_bytes", 100e9 * (1.0 - world.volume_used), noise=1e-5)
    _tell_controllers(world, emit)


def _tell_controllers(world: World, emit: Emitter) -> None:
    """Jobs and autoscalers."""
    for entity, one in world.cluster.objects.items():
        if entity.startswith("job/"):
            failed = world.job_failures if entity.endswith("/embed") else value_at(one, ("status", "failed")) or 0
            emit.gauge(entity, "kube_job_status_failed", float(int(failed)))
        elif entity.startswith("horizontalpodautoscaler/"):
            replicas = world.workload(entity.rsplit("/", 1)[1])["spec"]["replicas"]
            emit.gauge(entity, "kube_horizontalpodautoscaler_status_current_replicas", float(replicas))
            emit.gauge(entity, "kube_horizontalpodautoscaler_spec_max_replicas", float(one["spec"]["maxReplicas"]))


def _cores(world: World, pod: Pod) -> float:
    """What it keeps busy of the 16 cores of its node; what no service does takes all that is left."""
    if pod.finite:
        return world.work.get(pod.entity, 0.0)
    if pod.app in {s.name for s in SERVICES}:
        return 0.2 + 1.7 * pod.load
    return 15.0 * world.nodes[pod.node].cpu


def _tell_service(world: World, emit: Emitter, service: Service, pods: Sequence[Pod]) -> None:
    entity = f"service/{NAMESPACE}/{service.name}"
    served = sum(p.load * service.capacity for p in pods if not p.hung)
    failed = sum(p.load * service.capacity * min(p.error_rate + 0.001, 1.0) for p in pods)
    if not pods:
        served = failed = service.rate
    waited = sum(p.latency_s * p.load for p in pods) / max(sum(p.load for p in pods), 1e-9) if pods else 5.0
    emit.requests(entity, served, failed, waited)
    emit.gauge(entity, "http_requests_in_flight", sum(p.queue + p.load for p in pods), noise=0.05)


def _tell_pod(world: World, emit: Emitter, service: Service, pod: Pod) -> None:
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
            _tell_engine(world, emit, pod, service)
    for text in pod.logs:
        emit.line(pod.entity, text)


def _tell_engine(world: World, emit: Emitter, pod: Pod, service: Service) -> None:
    """As vLLM tells it."""
    model = 'model_name="llama"'
    served = 0.0 if pod.hung else pod.load * service.capacity
    emit.gauge(pod.entity, "vllm:num_requests_waiting", pod.queue, model, noise=0.1)
    emit.gauge(pod.entity, "vllm:num_requests_running", 0.0 if pod.hung else 16.0 * pod.load, model, noise=0.05)
    emit.gauge(pod.entity, "vllm:kv_cache_usage_perc", min(1.0, 0.2 + 0.75 * pod.load), model, noise=0.02)
    emit.count(pod.entity, "vllm:generation_tokens_total", 150.0 * served, model)
    emit.count(pod.entity, "vllm:time_to_first_token_seconds_count", served, model)
    emit.count(pod.entity, "vllm:time_to_first_token_seconds_sum", served * pod.latency_s, model)


def _tell_node(world: World, emit: Emitter, machine: Machine) -> None:
    entity = f"node//{machine.name}"
    emit.gauge(entity, "kube_node_status_condition", float(machine.ready), 'condition="Ready",status="true"')
    cordoned = value_at(world.node(machine.name), ("spec", "unschedulable"))
    emit.gauge(entity, "kube_node_spec_unschedulable", float(bool(cordoned)))
    if not machine.ready:
        return
    emit.count(entity, "node_cpu_seconds_total", CORES * machine.cpu, 'cpu="all",mode="user"', noise=0.02)
    emit.count(entity, "node_cpu_seconds_total", CORES * (1.0 - machine.cpu), 'cpu="all",mode="idle"')
    for k in range(GPUS_PER_NODE if machine.gpu else 0):
        gpu = f"gpu/{machine.name}/{k}"
        use = 0.0 if machine.gone and k == 0 else min(1.0, 0.9 * machine.cpu + 0.3)
        emit.gauge(gpu, "DCGM_FI_DEV_GPU_UTIL", 100.0 * use, noise=0.03)
        emit.gauge(gpu, "DCGM_FI_DEV_GPU_TEMP", 48.0 + 20.0 * use + machine.heat, noise=0.01)
        emit.gauge(gpu, "DCGM_FI_DEV_SM_CLOCK", 1980.0 - 25.0 * machine.heat, noise=0.002)
        emit.count(gpu, "DCGM_FI_DEV_THERMAL_VIOLATION", 4e7 * machine.heat)
        emit.gauge(gpu, "DCGM_FI_DEV_ROW_REMAP_PENDING", float(machine.name in world.remaps and k == 0))


def links(world: World) -> Links:
    """Who calls whom, which pods make up a service, and where they run."""
    nodes = [Node(f"service/{NAMESPACE}/{s.name}", 1.0 if s.name in ("gateway", "chat") else 0.7) for s in SERVICES]
    edges = [Edge(f"service/{NAMESPACE}/{s.name}", f"service/{NAMESPACE}/{c}") for s in SERVICES for c in s.calls]
    for pod in world.pods.values():
        if pod.app in {s.name for s in SERVICES}:
            edges.append(Edge(f"service/{NAMESPACE}/{pod.app}", pod.entity, "owns"))
            edges.append(Edge(f"{kind_of(pod.app)}/{NAMESPACE}/{pod.app}", pod.entity, "owns"))
        if pod.node:
            edges.append(Edge(pod.entity, f"node//{pod.node}", "runs_on"))
    edges += [Edge(f"node//{n}", f"gpu/{n}/{k}", "uses") for n, gpu in NODES.items() if gpu for k in range(GPUS_PER_NODE)]
    edges += [Edge(f"pod/{NAMESPACE}/db-0", f"persistentvolumeclaim/{NAMESPACE}/data-db-0", "uses")]
    return Links(tuple(nodes), tuple(edges))


class Emitter:
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


@lru_cache(maxsize=256)
def _labels(text: str) -> Mapping[str, str]:
    return dict(part.split("=", 1) for part in text.replace('"', "").split(",")) if text else {}
