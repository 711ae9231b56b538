"""Faults that an obvious action makes worse: what is there to be taken back, and to be learned from."""

from __future__ import annotations

from aiops.changes import evict, value_at
from aiops.demo.everyday import new_revision
from aiops.demo.faults import BY_NAME, Fault
from aiops.demo.world import World, season
from aiops.types import Entity


class Trap(Fault):
    """A fault that no action of the shipped policies cures, and that an obvious one makes worse: it has to be taken back."""

    @property
    def right(self) -> frozenset[tuple[str, Entity]]:
        """None."""
        return frozenset()

    def cured(self, world: World) -> bool:
        """Not from here."""
        return False


class ConnectionLimit(Trap):
    """The database that keeps the conversations has no connection left: engines wait for one, and requests for engines.

    Each further engine takes some from all others, and who gets none answers with an error.
    """

    def apply(self, world: World, at: float) -> None:
        callers, usual = world.of(self.target), BY_NAME[self.target].replicas
        short = max(0.0, 1.0 - usual / max(len(callers), 1))
        for pod in callers:
            pod.slowness, pod.error_rate = 2.1 / season(at) * max(1.0, len(callers) / usual), min(1.0, 1.5 * short)
        for pod in world.of("db") if short else ():
            pod.error_rate = short
            pod.logs += ["FATAL: sorry, too many clients already"] * 3


class ColdCache(Trap):
    """A replica is slow because of what it is asked. Started anew it has lost its cache too, and asks the database for all."""

    def begin(self, world: World, at: float) -> None:
        first = world.of(self.target)[0]
        self._entity, self._uid = first.entity, first.uid

    def apply(self, world: World, at: float) -> None:
        pod = world.pods.get(self._entity)
        if pod is None:
            return
        pod.slowness = 3.0
        if pod.uid != self._uid:
            pod.error_rate = 0.25
            pod.logs.append("WARN cache is empty, asking the database; timeout after 2 s")
            for other in world.of("db"):
                other.slowness = 3.0


class MigratedData(Trap):
    """A rollout has moved the data to a new form, and a tenth of the requests fail. The version before cannot read it at all."""

    NEW = "migrated"

    def begin(self, world: World, at: float) -> None:
        new_revision(world, self.target, f"{self.target}:{self.NEW}", at)
        for pod in world.of(self.target):
            world.cluster.happens(evict(world.cluster.objects[pod.entity]))

    def apply(self, world: World, at: float) -> None:
        containers = value_at(world.workload(self.target), ("spec", "template", "spec", "containers"))
        reads = str(containers[0]["image"]).endswith(f":{self.NEW}")
        for pod in world.of(self.target):
            pod.error_rate = 0.12
            if not reads:
                pod.ready, pod.waiting = False, "CrashLoopBackOff"
                pod.restarts += int(at / world.tick_s) % 4 == 0
                pod.logs.append("FATAL: column price_cents does not exist")


TRAPS = {"ConnectionLimit": "chat", "ColdCache": "catalog", "MigratedData": "catalog"}
"""Each with the service that it is set for."""
