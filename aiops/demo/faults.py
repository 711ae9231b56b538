"""What goes wrong in the simulated cluster, how it shows, and what cures it.

`right` names the actions that a careful person would take, as (type, target); anything else that changes the cluster because of
the fault is a wrong action. A fault lasts until it is cured.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

from aiops import xids
from aiops.changes import evict, value_at
from aiops.demo.everyday import new_revision
from aiops.demo.objects import NAMESPACE, SERVICES
from aiops.demo.world import Pod, World, season
from aiops.types import Entity, Event

BY_NAME = {s.name: s for s in SERVICES}


@dataclass
class Fault(ABC):
    """From `start` (UTC seconds) on, against one service, pod or node."""

    start: float
    target: str
    remap: ClassVar[bool] = False

    def begin(self, world: World, at: float) -> None:  # noqa: B027 - most faults have no beginning of their own
        """What happens at once."""

    @abstractmethod
    def apply(self, world: World, at: float) -> None:
        """What is wrong in this tick."""

    @abstractmethod
    def cured(self, world: World) -> bool:
        """Whether somebody did what ends it."""

    @property
    @abstractmethod
    def right(self) -> frozenset[tuple[str, Entity]]:
        """What a careful person would do, as (type, target)."""


@dataclass
class _OfPods(Fault):
    """Something that sits in processes: whoever was started anew does not have it."""

    uids: set[str] = field(default_factory=set)
    all_of_them: ClassVar[bool] = False

    def begin(self, world: World, at: float) -> None:
        pods = world.of(self.target)
        self.uids = {p.uid for p in (pods if self.all_of_them else pods[:1])}
        self._entities = [p.entity for p in pods if p.uid in self.uids]

    def ill(self, world: World) -> list[Pod]:
        return [p for p in world.pods.values() if p.uid in self.uids]

    def cured(self, world: World) -> bool:
        return not self.ill(world)

    @property
    def right(self) -> frozenset[tuple[str, Entity]]:
        """Starting the ill ones anew, alone or with their like."""
        like = f"pod/{NAMESPACE}/selector:app={self.target}"
        each = [("Restart", like), ("Restart", f"deployment/{NAMESPACE}/{self.target}")]
        return frozenset([*each, *((kind, e) for e in self._entities for kind in ("Restart", "Evict"))])


class Leak(_OfPods):
    """Memory grows until the kernel kills the process, again and again."""

    all_of_them = True

    def begin(self, world: World, at: float) -> None:
        super().begin(world, at)
        self._since = dict.fromkeys(self.uids, at)

    def apply(self, world: World, at: float) -> None:
        room = BY_NAME[self.target].memory_mib
        for pod in self.ill(world):
            pod.leaked_mib = room * (at - self._since[pod.uid]) / 900.0
            if pod.leaked_mib >= room:
                self._since[pod.uid] = at
                pod.restarts += 1
                pod.ready = False
                pod.logs.append("java.lang.OutOfMemoryError: heap space; container was OOMKilled")
            elif pod.leaked_mib > 0.6 * room:
                pod.slowness, pod.error_rate = 1.6, 0.05


class SlowReplica(_OfPods):
    """One replica is three times as slow as its like."""

    def apply(self, world: World, at: float) -> None:
        for pod in self.ill(world):
            pod.slowness = 3.0


class Hung(_OfPods):
    """An engine takes requests and answers none, while its health check says that all is well."""

    def apply(self, world: World, at: float) -> None:
        for pod in self.ill(world):
            pod.hung = True


class _OfImages(Fault):
    """A rollout of a bad version: it goes when the version goes."""

    bad: ClassVar[str] = "bad"

    def begin(self, world: World, at: float) -> None:
        new_revision(world, self.target, f"{self.target}:{self.bad}", at)
        for pod in world.of(self.target):
            world.cluster.happens(evict(world.cluster.objects[pod.entity]))

    def cured(self, world: World) -> bool:
        containers = value_at(world.workload(self.target), ("spec", "template", "spec", "containers"))
        return not str(containers[0]["image"]).endswith(f":{self.bad}")

    @property
    def right(self) -> frozenset[tuple[str, Entity]]:
        return frozenset({("Rollback", f"deployment/{NAMESPACE}/{self.target}")})


class BadDeploy(_OfImages):
    """The new version answers a third of the requests with an error."""

    def apply(self, world: World, at: float) -> None:
        for pod in world.of(self.target) if not self.cured(world) else ():
            pod.error_rate = 0.35
            pod.logs += ["ERROR handler failed: KeyError: 'price'"] * 3


class CrashLoop(_OfImages):
    """The new version ends as soon as it starts."""

    bad = "broken"

    def apply(self, world: World, at: float) -> None:
        for pod in world.of(self.target)[:2] if not self.cured(world) else ():
            pod.ready, pod.waiting = False, "CrashLoopBackOff"
            if int(at / world.tick_s) % 4 == 0:
                pod.restarts += 1
                pod.logs.append("FATAL config: missing field 'tokenizer'")


@dataclass
class Surge(Fault):
    """More requests come in than the replicas can serve, at whatever hour: `factor` times those of an average weekday."""

    factor: float = 2.4

    def apply(self, world: World, at: float) -> None:
        world.surge[self.target] = self.factor / season(at)

    def cured(self, world: World) -> bool:
        service = BY_NAME[self.target]
        replicas = int(value_at(world.workload(self.target), ("spec", "replicas")) or 0)
        return replicas * service.capacity * 0.85 >= service.rate * self.factor

    @property
    def right(self) -> frozenset[tuple[str, Entity]]:
        return frozenset({("ScaleUp", f"deployment/{NAMESPACE}/{self.target}")})


class _OfNodes(Fault):
    """A machine that should be left by everybody."""

    def guests(self, world: World) -> list[Pod]:
        return [p for p in world.pods.values() if p.node == self.target]

    def cordoned(self, world: World) -> bool:
        return bool(value_at(world.node(self.target), ("spec", "unschedulable")))

    def cured(self, world: World) -> bool:
        return self.cordoned(world) and not self.guests(world)

    @property
    def right(self) -> frozenset[tuple[str, Entity]]:
        return frozenset((kind, f"node//{self.target}") for kind in ("Cordon", "Drain", "Taint"))

    def xid(self, world: World, at: float, number: int) -> None:
        world.events.append(Event(at, f"gpu/{self.target}/0", "warning", f"XID {number}", xids.describe(number)))


class GpuLost(_OfNodes):
    """A GPU fell off the bus (XID 79): what runs on it fails."""

    def begin(self, world: World, at: float) -> None:
        self.xid(world, at, 79)

    def apply(self, world: World, at: float) -> None:
        world.nodes[self.target].gone = True
        for pod in self.guests(world):
            pod.error_rate = 0.6
            pod.logs.append("RuntimeError: CUDA error: device unavailable")


class RowRemap(_OfNodes):
    """Memory of a GPU failed; a row waits for a reset to be taken out of use. What runs goes on, nothing new should come."""

    remap = True

    def begin(self, world: World, at: float) -> None:
        self.xid(world, at, 63)

    def apply(self, world: World, at: float) -> None:
        """It shows in the GPU's own metrics only."""

    def cured(self, world: World) -> bool:
        return self.cordoned(world)


class Hot(_OfNodes):
    """A fan is broken: the GPUs slow themselves down."""

    def apply(self, world: World, at: float) -> None:
        world.nodes[self.target].heat = 25.0
        for pod in self.guests(world):
            pod.slowness = 1.8


class NodeLost(_OfNodes):
    """The kubelet does not report any more."""

    def begin(self, world: World, at: float) -> None:
        world.events.append(Event(at, f"node//{self.target}", "warning", "NodeNotReady"))

    def apply(self, world: World, at: float) -> None:
        world.nodes[self.target].ready = False
        for pod in self.guests(world):
            pod.ready = False


class FullVolume(Fault):
    """The volume of the database fills up; writes fail once it is full."""

    CLEANED = "volume-cleaned"

    def apply(self, world: World, at: float) -> None:
        if self.cured(world):
            world.volume_used = 0.5
            return
        world.volume_used = min(0.995, 0.55 + 0.45 * (at - self.start) / 600.0)
        for pod in world.of("db") if world.volume_used > 0.97 else ():
            pod.error_rate = 0.2
            pod.logs.append("ERROR could not extend file: No space left on device")

    def cured(self, world: World) -> bool:
        return any(e.startswith(f"job/{NAMESPACE}/aiops-") for e in world.cluster.objects)

    @property
    def right(self) -> frozenset[tuple[str, Entity]]:
        return frozenset({("RunJob", f"cronjob/{NAMESPACE}/clean-data-db-0")})


@dataclass
class Noisy(Fault):
    """A pod of low priority takes all of a node's CPU."""

    node: str = "web-0"

    def begin(self, world: World, at: float) -> None:
        owner = [{"kind": "Job", "name": "crunch", "controller": True}]
        world.cluster.put({"kind": "Pod", "metadata": {
            "name": "crunch-0", "namespace": NAMESPACE, "labels": {"app": "crunch"}, "ownerReferences": owner,
            "creationTimestamp": "2000-01-01T00:00:00Z"}, "spec": {"nodeName": self.node, "priority": -10},
            "status": {"phase": "Running"}}, "pod")
        self._uid = world.cluster.objects[f"pod/{NAMESPACE}/crunch-0"]["metadata"]["uid"]

    def apply(self, world: World, at: float) -> None:
        if not self.cured(world):
            world.nodes[self.node].cpu = 0.99

    def cured(self, world: World) -> bool:
        pod = world.cluster.objects.get(f"pod/{NAMESPACE}/crunch-0")
        return pod is None or pod["metadata"]["uid"] != self._uid

    @property
    def right(self) -> frozenset[tuple[str, Entity]]:
        crunch = f"pod/{NAMESPACE}/crunch-0"
        return frozenset({("Evict", crunch), ("Restart", crunch), ("Evict", f"pod/{NAMESPACE}/selector:app=crunch")})


class StuckJob(Fault):
    """A job fails and starts again without end, and wears a node out."""

    def apply(self, world: World, at: float) -> None:
        if not self.cured(world):
            world.job_failures += 0.5
            world.nodes["web-1"].cpu = 0.85

    def cured(self, world: World) -> bool:
        return bool(value_at(world.cluster.objects[f"job/{NAMESPACE}/{self.target}"], ("spec", "suspend")))

    @property
    def right(self) -> frozenset[tuple[str, Entity]]:
        return frozenset({("Suspend", f"job/{NAMESPACE}/{self.target}")})
