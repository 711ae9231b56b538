"""A cluster in memory: what replay acts on, and what tests look into. Deterministic; time moves only by `now`.

A workload that nobody described has ASSUMED replicas; pods are those of the topology, those that were given, or as many
as the workload of that name has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aiops.interfaces import Pod, Retry
from aiops.types import Entity, Links

ASSUMED = 2


class SimulatedCluster:
    """`workloads`: entity -> replicas. `pods`: entity -> labels. `calls` lists every change that was asked for.

    `fail(error)` makes the next change raise it. `now` is the time at which replacement pods start.
    """

    def __init__(self, workloads: Mapping[Entity, int] | None = None,
                 pods: Mapping[Entity, Mapping[str, str]] | None = None) -> None:
        self.now = 0.0
        self.workloads = dict(workloads or {})
        self.autoscalers: dict[Entity, str] = {}
        self.calls: list[tuple[str, ...]] = []
        self._labels = {entity: dict(labels) for entity, labels in (pods or {}).items()}
        self._pods = {entity: Pod(entity, ready=True, started_at=float("-inf")) for entity in self._labels}
        self._done: dict[str, dict[str, object]] = {}
        self._failures: list[Exception] = []

    @classmethod
    def from_links(cls, links: Links) -> SimulatedCluster:
        """The pods of a topology. Their labels: those of the node, and `app` after the service that owns them."""
        labels = {n.entity: dict(n.labels) for n in links.nodes if n.entity.startswith("pod/")}
        for edge in links.edges:
            for end in (edge.source, edge.target):
                if end.startswith("pod/"):
                    labels.setdefault(end, {})
            if edge.kind == "owns" and edge.target.startswith("pod/"):
                labels[edge.target].setdefault("app", edge.source.split("/", 2)[2])
        return cls(pods=labels)

    def fail(self, error: Exception) -> None:
        """The next change raises this instead; several are raised in order."""
        self._failures.append(error)

    def done(self, key: str) -> Mapping[str, object] | None:
        return self._done.get(key)

    def replicas(self, target: str) -> int:
        return self.workloads.get(target, ASSUMED)

    def autoscaler(self, target: str) -> str | None:
        return self.autoscalers.get(target)

    def scale(self, target: str, before: int, after: int, key: str) -> Mapping[str, object]:
        if key not in self._done:
            if self.replicas(target) != before:
                raise Retry(f"{target} has {self.replicas(target)} replicas now, not {before}")
            self._change(key, ("scale", target, str(before), str(after)), {"before": before, "after": after})
            self.workloads[target] = after
        return self._done[key]

    def pods(self, namespace: str, selector: str) -> Sequence[Pod]:
        wanted = [term for term in selector.split(",") if term]
        found = [p for e, p in self._pods.items() if e.split("/")[1] == namespace and self._fits(e, wanted)]
        return found or self._assumed(namespace, wanted)

    def pod(self, target: str) -> Pod | None:
        return self._pods.get(target)

    def evict(self, pod: str, key: str) -> None:
        """The pod is replaced at once by a fresh one of the same name."""
        if key not in self._done:
            self._change(key, ("evict", pod), {"pod": pod})
            self._pods[pod] = Pod(pod, ready=True, started_at=self.now)

    def restart(self, target: str, key: str) -> None:
        if key not in self._done:
            self._change(key, ("restart", target), {})

    def _change(self, key: str, call: tuple[str, ...], result: dict[str, object]) -> None:
        if self._failures:
            raise self._failures.pop(0)
        self.calls.append(call)
        self._done[key] = result

    def _fits(self, entity: Entity, wanted: Sequence[str]) -> bool:
        labels = self._labels.get(entity, {})
        for term in wanted:
            if "!=" in term:
                name, _, value = term.partition("!=")
                fits = labels.get(name, "") != value
            else:
                name, _, value = term.replace("==", "=").partition("=")
                fits = labels.get(name) == value
            if not fits:
                return False
        return True

    def _assumed(self, namespace: str, wanted: Sequence[str]) -> Sequence[Pod]:
        """Pods that must be there, or nobody would have asked for them: those of the workload that the selector names."""
        app = next((t.replace("==", "=").partition("=")[2] for t in wanted if "!=" not in t), "")
        if not app:
            return []
        labels = dict(t.replace("==", "=").split("=", 1) for t in wanted if "!=" not in t)
        for i in range(self.replicas(f"deployment/{namespace}/{app}")):
            entity = f"pod/{namespace}/{app}-{i}"
            self._labels.setdefault(entity, {}).update(labels)
            self._pods.setdefault(entity, Pod(entity, ready=True, started_at=float("-inf")))
        return [p for e, p in self._pods.items() if e.split("/")[1] == namespace and self._fits(e, wanted)]
