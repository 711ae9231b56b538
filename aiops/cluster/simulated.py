"""A cluster in memory: what replay acts on, and what tests look into. Deterministic; time moves only by `now`.

It keeps Kubernetes objects and does at once what controllers would do: an evicted pod is replaced (on no node in particular), a
rollout replaces all, a workload has as many pods as it asks for, and a created Job succeeds. Calls are only written down.
A workload that nobody described has ASSUMED replicas and pods of its name.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import count

from aiops.changes import Change, Object, edited, entity_of, labels_of, uid_of, value_at
from aiops.interfaces import Refused
from aiops.kinds import parts
from aiops.types import Entity, Links, entity_parts

ASSUMED = 2
LONG_AGO = "1970-01-01T00:00:00Z"
SCALED = ("deployment", "statefulset")
_API = {"deployment": "Deployment", "statefulset": "StatefulSet", "daemonset": "DaemonSet"}


class SimulatedCluster:
    """`workloads`: entity -> replicas. `pods`: entity -> labels. `objects` is all there is; `calls` all that was changed.

    `fail(error)` makes the next write raise it. `now` is the time at which new pods start.
    """

    def __init__(self, workloads: Mapping[Entity, int] | None = None,
                 pods: Mapping[Entity, Mapping[str, str]] | None = None, objects: Sequence[tuple[str, Object]] = ()) -> None:
        self.now = 0.0
        self.objects: dict[Entity, Object] = {}
        self.calls: list[Change] = []
        self._failures: list[Exception] = []
        self._count = 0
        self._followed: set[Entity] = set()
        for entity, replicas in (workloads or {}).items():
            self.put(_workload(entity, replicas))
        for entity, given in (pods or {}).items():
            self.put(_pod(entity, given, LONG_AGO))
        for kind, one in objects:
            self.put(one, kind)

    @classmethod
    def from_links(cls, links: Links) -> SimulatedCluster:
        """The machines and pods of a topology, all of them well. Labels: theirs, and of pods `app` after the service that owns
        them."""
        made = cls()
        made.follow(links)
        return made

    def follow(self, links: Links) -> None:
        """The topology is this now: who is new comes, who is not in it any more goes. What is there stays as it is."""
        found = {n.entity: dict(n.labels) for n in links.nodes}
        for edge in links.edges:
            for end in (edge.source, edge.target):
                found.setdefault(end, {})
            if edge.kind == "owns" and edge.target.startswith("pod/"):
                found[edge.target].setdefault("app", entity_parts(edge.source)[2])
        here = {entity: own for entity, own in found.items() if entity.startswith(("pod/", "node//"))}
        for entity in self._followed - here.keys():
            self.objects.pop(entity, None)
        for entity in here.keys() - self._followed:
            self.put(_pod(entity, here[entity], LONG_AGO) if entity.startswith("pod/") else _node(entity, here[entity]))
        self._followed = set(here)

    def put(self, one: Object, kind: str = "") -> Object:
        """Takes an object in, or what became of it; it gets a uid, and a new version."""
        self._count += 1
        meta = one.setdefault("metadata", {})
        meta.setdefault("uid", f"uid-{self._count}")
        meta["resourceVersion"] = str(self._count)
        self.objects[entity_of(one, kind or str(one["kind"]).lower())] = one
        return one

    def fail(self, error: Exception) -> None:
        """The next write raises this instead; several are raised in order."""
        self._failures.append(error)

    def replicas(self, target: Entity) -> int:
        """What a workload asks for."""
        return int(value_at(self.get(target), ("spec", "replicas")) or 0)

    # --------------------------------------------------------------------------------------------------- Cluster
    def get(self, target: str) -> Object | None:
        kind, namespace, _ = parts(target)
        if target not in self.objects and (kind in _API or kind == "namespace"):
            self.put(_workload(target, ASSUMED) if namespace else _named(target))
        return copy.deepcopy(self.objects.get(target))

    def find(self, kind: str, namespace: str = "", selector: str = "", fields: str = "") -> Sequence[Object]:
        """fields: equality of any two fields, as `spec.nodeName=gpu-3`; an API server knows only some."""
        terms, wanted = [t for t in selector.split(",") if t], [t.split("=") for t in fields.split(",") if t]
        found = [one for entity, one in self.objects.items()
                 if entity.split("/")[0] == kind and namespace in ("", entity_parts(entity)[1]) and _fits(labels_of(one), terms)
                 and all(value_at(one, tuple(path.split("."))) == value for path, value in wanted)]
        return copy.deepcopy(found or (self._assumed(namespace, terms) if kind == "pod" else []))

    def try_out(self, change: Change) -> None:
        self._after(change)

    def write(self, change: Change) -> Object:
        self._after(change)
        if self._failures:
            raise self._failures.pop(0)
        self.calls.append(change)
        return self.happens(change)

    def happens(self, change: Change) -> Object:
        """The same done by somebody else: not among `calls`."""
        after = self._after(change)
        if change.verb == "call":
            return {}
        if after is None:
            gone = self.objects.pop(change.entity, {})
            if change.verb == "evict" and gone:
                self._replace(gone)
            return gone
        kind, before = change.entity.split("/")[0], self.objects.get(change.entity)
        if kind == "job" and change.verb == "create":
            after["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}
        self.put(after, kind)
        if kind in _API and before is not None:
            self._roll_out(before, after)
        return copy.deepcopy(after)

    def _after(self, change: Change) -> Object | None:
        """The object as the change leaves it, None where it is gone then. Raises what an API server would say."""
        now = self.get(change.entity)
        if change.verb == "call":
            return {}
        if change.verb == "create":
            if now is not None and change.standing(now) != "done":
                raise Refused(f"{change.entity} exists already, and was made by somebody else.")
            return now or copy.deepcopy(dict(change.body))
        if change.verb in ("evict", "delete"):
            return None if now is None or uid_of(now) == change.uid else now
        if now is None:
            raise Refused(f"{change.entity} does not exist any more.")
        return edited(now, change.edits)

    # ----------------------------------------------------------------------------------------------- controllers
    def _roll_out(self, before: Object, after: Object) -> None:
        """Another template replaces all pods; of scaled workloads as many are there as are asked for."""
        mine = self._pods_of(after)
        if value_at(before, ("spec", "template")) != value_at(after, ("spec", "template")):
            for pod in mine:
                self._replace(self.objects.pop(entity_of(pod, "pod")))
        if mine and str(after["kind"]).lower() in SCALED:
            self._keep(after, mine)

    def _keep(self, workload: Object, mine: Sequence[Object]) -> None:
        meta, wanted = workload["metadata"], int(value_at(workload, ("spec", "replicas")) or 0)
        for _ in range(len(mine), wanted):
            names = (f"pod/{meta['namespace']}/{meta['name']}-{k}" for k in count())
            self.put(_pod(next(n for n in names if n not in self.objects), labels_of(mine[0]), self._time()))
        for pod in mine[wanted:]:
            self.objects.pop(entity_of(pod, "pod"))

    def _pods_of(self, workload: Object) -> list[Object]:
        meta = workload["metadata"]
        match = value_at(workload, ("spec", "selector", "matchLabels")) or {"app": meta["name"]}
        return [one for entity, one in self.objects.items() if entity.startswith(f"pod/{meta['namespace']}/")
                and match.items() <= labels_of(one).items()]

    def _replace(self, pod: Object) -> None:
        """By a fresh one of the same name, at once, where a controller owns it."""
        owners = pod["metadata"].get("ownerReferences")
        if owners:
            self.put(_pod(entity_of(pod, "pod"), labels_of(pod), self._time()))["metadata"]["ownerReferences"] = owners

    def _time(self) -> str:
        return datetime.fromtimestamp(self.now, UTC).isoformat().replace("+00:00", "Z")

    def _assumed(self, namespace: str, terms: Sequence[str]) -> list[Object]:
        """Pods that must be there, or nobody would have asked for them: those of the workload that the selector names."""
        given = dict(t.replace("==", "=").split("=", 1) for t in terms if "!=" not in t)
        app = next(iter(given.values()), "")
        if not (app and namespace):
            return []
        for i in range(self.replicas(f"deployment/{namespace}/{app}")):
            if f"pod/{namespace}/{app}-{i}" not in self.objects:
                self.put(_pod(f"pod/{namespace}/{app}-{i}", given, LONG_AGO))
        return [one for entity, one in self.objects.items()
                if entity.startswith(f"pod/{namespace}/") and _fits(labels_of(one), terms)]


def _named(entity: Entity) -> Object:
    kind, namespace, name = entity_parts(entity)
    within = {"namespace": namespace} if namespace else {}
    return {"kind": _API.get(kind, kind.capitalize()), "metadata": {"name": name, **within}}


def _workload(entity: Entity, replicas: int) -> Object:
    one = _named(entity)
    own = {"app": one["metadata"]["name"]}
    template = {"metadata": {"labels": own}, "spec": {"containers": [{"name": own["app"], "image": f"{own['app']}:1"}]}}
    counted = {"replicas": replicas} if entity.split("/")[0] in SCALED else {}
    return one | {"spec": {**counted, "selector": {"matchLabels": own}, "template": template}}


def _pod(entity: Entity, own: Mapping[str, str], started: str) -> Object:
    one = _named(entity)
    one["metadata"] |= {"labels": dict(own), "creationTimestamp": started,
                        "ownerReferences": [{"kind": "ReplicaSet", "name": own.get("app", "x"), "controller": True}]}
    return one | {"spec": {}, "status": {"phase": "Running", "startTime": started,
                                         "conditions": [{"type": "Ready", "status": "True"}]}}


def _node(entity: Entity, own: Mapping[str, str]) -> Object:
    one = _named(entity)
    one["metadata"]["labels"] = dict(own)
    return one | {"spec": {}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}


def _fits(own: Mapping[str, str], terms: Sequence[str]) -> bool:
    for term in terms:
        name, _, value = term.replace("!=", "=").replace("==", "=").partition("=")
        if (own.get(name) == value) == ("!=" in term):
            return False
    return True
