"""What healthy clusters do all day: rollouts, autoscaling, maintenance of nodes, hourly jobs, pods that move, odd samples.

None of it is a fault, so nothing should be done about any of it. Each habit acts on the objects of the cluster, as its controller
or a person would, and says so in `managedFields` and events. Seeded by its own generator: the telemetry of equal seeds differs by
what happens only.
"""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any

import numpy as np

from aiops.changes import Object, entity_of, evict, labels_of, patch, uid_of
from aiops.demo.objects import NAMESPACE, kind_of
from aiops.demo.world import DAY_S, Habit, Pod, World
from aiops.types import Entity, Event

REVISION = "deployment.kubernetes.io/revision"
DEPLOYED = ("catalog", "chat", "gateway")
HOUR_S = 3600.0


def everyday(seed: int) -> Sequence[Habit]:
    """A usual week of a cluster, in the order in which they act in a tick."""
    random = np.random.default_rng([seed, 1])
    return (Deploys(random), Autoscaler("catalog"), Autoscaler("gateway"), NodeCare(random), Hourly(random), Moves(random),
            Blips(random))


def stamp(at: float) -> str:
    """As Kubernetes writes time."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def managed(one: Object, manager: str, fields: Object, at: float) -> None:
    """As the API server notes down who set which fields, and when."""
    entries = one["metadata"].setdefault("managedFields", [])
    entries[:] = [e for e in entries if e["manager"] != manager]
    entries.append({"manager": manager, "operation": "Update", "time": stamp(at), "fieldsV1": fields})


def revision_of(deployment: Object) -> int:
    """As its controller numbers them."""
    return int(deployment["metadata"]["annotations"][REVISION])


def new_revision(world: World, app: str, image: str, at: float) -> None:
    """Another image of a deployment, with its ReplicaSet, as `kubectl set image`; its pods are not touched."""
    workload = copy.deepcopy(world.workload(app))
    number = revision_of(workload)
    keep_revision(world, workload, number, 0.0)
    workload["spec"]["template"]["spec"]["containers"] = [{"name": app, "image": image}]
    workload["metadata"]["annotations"][REVISION] = str(number + 1)
    managed(workload, "helm", {"f:spec": {"f:template": {}}}, at)
    world.cluster.put(workload)
    keep_revision(world, workload, number + 1, at)
    world.events.append(Event(at, f"deployment/{NAMESPACE}/{app}", "change", "Rollout", f"image {image} by helm"))


def keep_revision(world: World, workload: Object, number: int, at: float) -> None:
    """The ReplicaSet of a revision, as the deployment controller keeps it, made at `at`; one that is there already stays."""
    app, spec = workload["metadata"]["name"], workload["spec"]
    if f"replicaset/{NAMESPACE}/{app}-{number}" in world.cluster.objects:
        return
    owner = {"kind": "Deployment", "name": app, "uid": uid_of(workload), "controller": True}
    meta = {"name": f"{app}-{number}", "namespace": NAMESPACE, "labels": {"app": app}, "creationTimestamp": stamp(at),
            "annotations": {REVISION: str(number)}, "ownerReferences": [owner]}
    world.cluster.put({"kind": "ReplicaSet", "metadata": meta, "spec": {
        "replicas": spec["replicas"], "template": copy.deepcopy(spec["template"]), "selector": spec["selector"]}}, "replicaset")


class _NowAndThen:
    """So many times a day on average, at any time; as a Poisson process."""

    def __init__(self, random: np.random.Generator, per_day: float) -> None:
        self.random, self._mean_s = random, DAY_S / per_day
        self._next: float | None = None

    def due(self, at: float) -> bool:
        first = self._next is None
        if first or at >= (self._next or 0.0):
            self._next = at + float(self.random.exponential(self._mean_s))
            return not first
        return False


class Deploys(_NowAndThen):
    """Good versions, some five a day: a new pod comes (maxSurge 1), is ready, and an old one goes, until all are new."""

    def __init__(self, random: np.random.Generator, per_day: float = 5.0) -> None:
        super().__init__(random, per_day)
        self._app, self._old = "", set[str]()

    def act(self, world: World, at: float) -> None:
        if self._app:
            self._go_on(world, at)
        elif self.due(at):
            self.begin(world, DEPLOYED[int(self.random.integers(len(DEPLOYED)))], at)

    def begin(self, world: World, app: str, at: float) -> None:
        """A rollout of the next version."""
        number = revision_of(world.workload(app)) + 1
        new_revision(world, app, f"{app}:{number}", at)
        self._app, self._old = app, {p.uid for p in world.of(app)}
        world.rolling.add(app)

    def _go_on(self, world: World, at: float) -> None:
        app, wanted = self._app, int(world.workload(self._app)["spec"]["replicas"])
        pods = world.of(app)
        old, new = [p for p in pods if p.uid in self._old], [p for p in pods if p.uid not in self._old]
        for gone in old[:max(0, sum(p.ready for p in pods) - wanted)]:
            del world.cluster.objects[gone.entity]
        if len(new) < wanted and len(pods) <= wanted:
            another(world, app, at)
        if not old and len(new) >= wanted:
            world.rolling.discard(app)
            world.events.append(Event(at, f"deployment/{NAMESPACE}/{app}", "change", "RolloutFinished", ""))
            self._app = ""


@dataclass
class Autoscaler:
    """A HorizontalPodAutoscaler on the load of the pods: tolerance 10 %, down only to the most of the last five minutes.

    https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#algorithm-details
    """

    app: str
    least: int = 2
    most: int = 8
    load: float = 0.45
    _wanted: deque[tuple[float, int]] = field(default_factory=deque)

    @property
    def entity(self) -> Entity:
        return f"horizontalpodautoscaler/{NAMESPACE}/{self.app}"

    def act(self, world: World, at: float) -> None:
        self._exist(world)
        ready = [p for p in world.of(self.app) if p.ready]
        workload = world.workload(self.app)
        now = int(workload["spec"]["replicas"])
        if not ready or self.app in world.rolling:
            return
        ratio = sum(p.load for p in ready) / len(ready) / self.load
        wanted = now if abs(ratio - 1.0) <= 0.1 else min(self.most, max(self.least, math.ceil(len(ready) * ratio)))
        self._wanted.append((at, wanted))
        while self._wanted[0][0] < at - 300.0:
            self._wanted.popleft()
        after = wanted if wanted > now else min(now, max(w for _, w in self._wanted))
        if after != now:
            self._scale(world, workload, after, at)

    def _exist(self, world: World) -> None:
        if self.entity not in world.cluster.objects:
            meta, ref = {"name": self.app, "namespace": NAMESPACE}, {"kind": "Deployment", "name": self.app}
            spec = {"scaleTargetRef": ref, "minReplicas": self.least, "maxReplicas": self.most}
            world.cluster.put({"kind": "HorizontalPodAutoscaler", "metadata": meta, "spec": spec})

    def _scale(self, world: World, workload: Object, to: int, at: float) -> None:
        before, target = workload["spec"]["replicas"], f"deployment/{NAMESPACE}/{self.app}"
        world.cluster.happens(patch(target, workload, {("spec", "replicas"): to}, "scale"))
        managed(world.workload(self.app), "kube-controller-manager", {"f:spec": {"f:replicas": {}}}, at)
        world.events.append(Event(at, target, "change", "Scaled", f"from {before} to {to} by kube-controller-manager"))


class NodeCare(_NowAndThen):
    """Every other day a person cordons a node, drains it, reboots it for three minutes, and gives it back after a while."""

    def __init__(self, random: np.random.Generator, per_day: float = 0.5) -> None:
        super().__init__(random, per_day)
        self._node, self._empty_at = "", math.inf

    def act(self, world: World, at: float) -> None:
        if not self._node:
            if self.due(at):
                self.begin(world, str(self.random.choice(sorted(world.nodes))), at)
            return
        guests = [p for p in world.pods.values() if p.node == self._node and not p.finite]
        if guests:
            others = [p for p in world.of(guests[0].app) if p.entity != guests[0].entity]
            if all(p.ready for p in others):
                move(world, guests[0], at)
            return
        self._empty_at = min(self._empty_at, at)
        world.down = {self._node} if 120.0 <= at - self._empty_at < 300.0 else set()
        if at - self._empty_at >= 600.0:
            self._switch(world, False, at)
            self._node = ""

    def begin(self, world: World, node: str, at: float) -> None:
        """`kubectl drain` of a node."""
        self._node, self._empty_at = node, math.inf
        self._switch(world, True, at)

    def _switch(self, world: World, off: bool, at: float) -> None:
        one = world.node(self._node)
        one["spec"]["unschedulable"] = off
        managed(one, "kubectl", {"f:spec": {"f:unschedulable": {}}}, at)
        world.events.append(Event(at, f"node//{self._node}", "change", "Cordoned" if off else "Uncordoned", "by kubectl"))


class Hourly:
    """A CronJob: at the full hour a pod works for some minutes and ends; now and then it fails once and is tried again."""

    def __init__(self, random: np.random.Generator) -> None:
        self._random, self._hour, self._ends = random, -1, math.inf
        self._name, self._count = "", count()

    def act(self, world: World, at: float) -> None:
        if at >= self._ends:
            for kind in ("pod", "job"):
                world.cluster.objects.pop(f"{kind}/{NAMESPACE}/{self._name}", None)
            world.work.pop(f"pod/{NAMESPACE}/{self._name}", None)
            self._ends = math.inf
        hour = int(at // HOUR_S)
        if self._hour in (hour, -1):
            self._hour = hour
            return
        self._hour = hour
        self._begin(world, hour, at)

    def _begin(self, world: World, hour: int, at: float) -> None:
        self._name, self._ends = f"report-{hour}", at + float(self._random.uniform(240.0, 900.0))
        meta = {"name": self._name, "namespace": NAMESPACE, "labels": {"app": "report"}}
        world.cluster.put({"kind": "Job", "metadata": dict(meta), "spec": {"suspend": False, "parallelism": 1},
                           "status": {"active": 1, "failed": int(self._random.random() < 0.1)}})
        pod = made(world, self._name, {"app": "report"}, [{"kind": "Job", "name": self._name, "controller": True}], at)
        world.work[entity_of(pod, "pod")] = float(self._random.uniform(1.5, 4.0))


class Moves(_NowAndThen):
    """A pod is moved: a descheduler, a machine that was preempted, somebody who deletes one. Twice a day."""

    def __init__(self, random: np.random.Generator, per_day: float = 2.0) -> None:
        super().__init__(random, per_day)

    def act(self, world: World, at: float) -> None:
        pods = sorted(p.entity for p in world.pods.values() if p.app in DEPLOYED and p.ready and p.app not in world.rolling)
        if self.due(at) and pods:
            move(world, world.pods[str(self.random.choice(pods))], at)


class Blips(_NowAndThen):
    """A single sample out of the ordinary, six times a day: a burst of errors, a pause of the garbage collector."""

    def __init__(self, random: np.random.Generator, per_day: float = 6.0) -> None:
        super().__init__(random, per_day)

    def act(self, world: World, at: float) -> None:
        world.blips = {}
        pods = sorted(p.entity for p in world.pods.values() if p.ready)
        if self.due(at) and pods:
            slowness, errors = ((4.0, 0.0), (1.0, 0.4))[int(self.random.integers(2))]
            world.blips = {str(self.random.choice(pods)): (slowness, errors)}


# ------------------------------------------------------------------------------------------------------ pods that come
def another(world: World, app: str, at: float) -> Object:
    """One more pod of a workload's current revision."""
    revision = revision_of(world.workload(app))
    name = next(n for k in count() if f"pod/{NAMESPACE}/{(n := f'{app}-{revision}-{k}')}" not in world.cluster.objects)
    return made(world, name, {"app": app}, [{"kind": "ReplicaSet", "name": f"{app}-{revision}", "controller": True}], at)


def move(world: World, pod: Pod, at: float) -> None:
    """Evicted; its controller makes another one, of the same name where it is a StatefulSet's."""
    one = world.cluster.objects[pod.entity]
    if kind_of(pod.app) == "statefulset":
        world.cluster.now = at
        world.cluster.happens(evict(one))
        return
    another(world, str(labels_of(one)["app"]), at)
    del world.cluster.objects[pod.entity]


def made(world: World, name: str, labels: dict[str, str], owners: list[dict[str, Any]], at: float) -> Object:
    """A pod that starts now; the scheduler finds it a node."""
    meta = {"name": name, "namespace": NAMESPACE, "labels": labels, "ownerReferences": owners, "creationTimestamp": stamp(at)}
    ready = [{"type": "Ready", "status": "True"}]
    return world.cluster.put({"kind": "Pod", "metadata": meta, "spec": {},
                              "status": {"phase": "Running", "startTime": stamp(at), "conditions": ready}}, "pod")

