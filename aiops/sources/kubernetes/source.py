"""What a Kubernetes cluster says about itself: topology, changes, troubles, states, and logs of its pods.

The cluster is watched (`watch`) by a thread that this source owns; a poll hands over what has changed since the last one.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aiops.interfaces import Samples
from aiops.links import empty
from aiops.sources.kubernetes import changes, kinds, states, trouble
from aiops.sources.kubernetes.api import Access, KubeError
from aiops.sources.kubernetes.kinds import (
    AUTOSCALERS,
    EVENTS,
    HTTPROUTES,
    INGRESSES,
    JOBS,
    NODES,
    PODS,
    REPLICASETS,
    SERVICES,
    SLICES,
    WORKLOADS,
    Kind,
)
from aiops.sources.kubernetes.links import Cluster
from aiops.sources.kubernetes.podlogs import PodLogs
from aiops.sources.kubernetes.reflector import Change
from aiops.sources.kubernetes.states import States
from aiops.sources.kubernetes.watch import Watching, refused
from aiops.types import Entity, Event

FIRST_LIST_S = 20.0
STATES_AFTER_S = 120.0
"""Where somebody else may bring the same states, he gets so long to be heard first."""
_CONTENT = {kinds.CONFIGMAPS: "configmap", kinds.SECRETS: "secret"}
_DROPPED = {
    "undecodable": "objects could not be read and were left out", "too_many": "objects were left out: too many of a kind",
    "unknown_event": "events of an unknown type in a watch", "states": "times there was no room for the states",
    "too_long": "log lines were cut: too long", "no_time": "log lines were left out: they have no time"}
_LINKED = {PODS: "pod", NODES: "node", SERVICES: "service", SLICES: "endpointslice", REPLICASETS: "replicaset",
           INGRESSES: "ingress", HTTPROUTES: "httproute", **WORKLOADS}
Elsewhere = Callable[[str], bool]


class KubernetesSource:
    """Watches one API server. `namespaces` empty: all of them. `log_selector`: labels of pods whose logs are followed.

    `states`: pods, workloads and nodes as samples; None: but for those of which `elsewhere(metric)` is true, because somebody
    else brings them (kube-state-metrics). Raises KubeError while the cluster cannot be listed or watched. A right that is
    missing (403) for anything but pods is named in `notes`, and that part is left out. `dropped` counts by reason.
    """

    def __init__(self, name: str = "kubernetes", interval_s: float = 15.0, *, namespaces: Sequence[str] = (),
                 events: bool = True, topology: bool = True, states: bool | None = None, secrets: bool = False,
                 log_selector: str = "", kubeconfig: Path | None = None, context: str | None = None) -> None:
        self.name, self.interval_s = name, interval_s
        self.notes: dict[str, str] = {}
        self.dropped: Counter[str] = Counter()
        self.elsewhere: Elsewhere | None = None
        self.yields = states is None
        self._cluster = Cluster() if topology else None
        self._logs = PodLogs(log_selector, namespaces) if log_selector else None
        followed = [*kinds.ALWAYS, *(kinds.ROUTES if topology else ()), *([EVENTS] if events else []),
                    *([kinds.SECRETS] if secrets else [])]
        self._watching = Watching(Access(kubeconfig, context), followed, namespaces, name, self._logs.run if self._logs else None)
        self._kinds = tuple(followed)
        self._rollouts = changes.Rollouts()
        self._states = None if states is False else States()
        self._users: dict[tuple[str, str, str], list[Entity]] = {}
        self._first_poll: float | None = None

    @property
    def fresh(self) -> threading.Event:
        """Set once something has come in since the last poll, or failed."""
        return self._watching.fresh

    @property
    def rejected(self) -> Mapping[str, int]:
        """What could not be used, by reason."""
        return self.dropped

    @property
    def synced(self) -> bool:
        """Whether everything that may be read has been read once."""
        return self._watching.synced

    def poll(self, now: float, into: Samples) -> None:
        """Hand over what happened since the last poll, with the times at which it did, and how things are."""
        if self._first_poll is None:
            self._first_poll = now
        if self._logs:
            self._logs.begin(now)
        self._watching.start(FIRST_LIST_S)
        self._watching.fresh.clear()
        news = {kind: self._watching.take(kind) for kind in self._kinds}
        if any(news.values()):
            self._hand_over(now, news, into)
        if self._states:
            self._emit(now, into)
        if self._logs:
            self._logs.drain(now, into)
        self._tell()

    def close(self) -> None:
        self._watching.close()

    # ------------------------------------------------------------------------------------------------- what changed
    def _hand_over(self, now: float, news: dict[Kind, list[Change[Any]]], into: Samples) -> None:
        workloads = {f"{name}/{'/'.join(key)}": w for kind, name in WORKLOADS.items()
                     for key, w in self._watching.store(kind).items()}
        if any(news[kind] for kind in WORKLOADS):
            self._users = _users(workloads)
        if self._cluster is not None:
            changed = self._cluster.take({name: news[kind] for kind, name in _LINKED.items()})
            if changed.whole or not empty(changed):
                into.links(self.name, changed)
        for event in self._events(now, news):
            into.event(event)
        if self._states:
            self._put_states(news)

    def _events(self, now: float, news: dict[Kind, list[Change[Any]]]) -> Iterable[Event]:
        """Changes and troubles; the watch may bring them in any order."""
        scalers = {s.target: s for s in self._watching.store(AUTOSCALERS).values()}
        for kind, name in {**WORKLOADS, JOBS: "job"}.items():
            for c in news[kind]:
                entity = f"{name}/{'/'.join(c.key)}"
                yield from self._rollouts.of(entity, c, scalers.get(entity), now) if name != "job" else \
                    trouble.of_job(entity, c, now)
        yield from changes.recent((c.after for c in news[REPLICASETS] if c.initial and c.after), now)
        for kind, name in _CONTENT.items():
            for c in news.get(kind, ()):
                yield from changes.of_content(name, c, self._users, now)
        for kind, told in _TOLD.items():
            for c in news.get(kind, ()):
                yield from told(c, now)

    def _put_states(self, news: dict[Kind, list[Change[Any]]]) -> None:
        assert self._states
        for kind, (name, of) in _STATES.items():
            for c in news[kind]:
                entity = f"{name}/{'/'.join(c.key)}"
                self._states.put(entity, of(entity, c.after) if c.after else ())

    def _emit(self, now: float, into: Samples) -> None:
        """Only what the cluster said lately: states of which nobody knows whether they still hold are not told."""
        assert self._states
        elsewhere, waited = self.elsewhere, now - (self._first_poll or now) >= STATES_AFTER_S
        if self._watching.trouble(PODS) or (elsewhere and not waited):
            return
        if not self._states.emit(now, into, lambda metric: not (elsewhere and elsewhere(metric))):
            self.dropped["states"] += 1

    # ------------------------------------------------------------------------------------------------------- health
    def _tell(self) -> None:
        """Raises KubeError for whatever is wrong, after all was handed over that is there."""
        troubles = {kind: e for kind in self._kinds if (e := self._watching.trouble(kind))}
        self.notes = {kind.plural: str(e) for kind, e in troubles.items()
                      if kind is not PODS and refused(e) and not _absent(kind, e)}
        self.dropped.update({k: v - self.dropped[k] for k, v in self._watching.dropped().items()})
        if self._logs:
            self.notes |= {f"log {k}": v for k, v in self._logs.notes.items()}
            self.dropped.update({k: v - self.dropped[k] for k, v in self._logs.dropped.items()})
        self.notes |= {f"dropped {k}": f"{v} {_DROPPED.get(k, k)}" for k, v in self.dropped.items() if v}
        errors = [e for kind, e in troubles.items() if kind.plural not in self.notes and not _absent(kind, e)]
        if self._logs and (e := self._logs.trouble()):
            errors.append(e)
        if errors:
            raise errors[0]
        if not self.synced:
            raise KubeError("lists", f"not complete after {FIRST_LIST_S:.0f} s; still reading.")


def _absent(kind: Kind, error: KubeError) -> bool:
    """A kind that this cluster does not have, and need not."""
    return kind.optional and error.status == 404


def _users(workloads: dict[Entity, Any]) -> dict[tuple[str, str, str], list[Entity]]:
    """Who refers to a ConfigMap or Secret: (kind, namespace, name) -> workloads."""
    found: dict[tuple[str, str, str], list[Entity]] = {}
    for entity, w in workloads.items():
        for kind, name in w.refers:
            found.setdefault((kind, w.meta.namespace, name), []).append(entity)
    return found


def _workload(entity: Entity, w: Any) -> Iterable[states.State]:
    return states.of_workload(entity.partition("/")[0], entity, w)


_TOLD: dict[Kind, Callable[[Any, float], Iterable[Event]]] = {
    NODES: lambda c, now: [*changes.of_machine(c, now), *trouble.of_machine(c, now)],
    AUTOSCALERS: changes.of_scaler, PODS: trouble.of_pod, EVENTS: trouble.of_event}
_STATES: dict[Kind, tuple[str, Callable[[Entity, Any], Iterable[states.State]]]] = {
    PODS: ("pod", lambda _, p: states.of_pod(p)), NODES: ("node", lambda _, m: states.of_machine(m)),
    AUTOSCALERS: ("horizontalpodautoscaler", lambda _, s: states.of_scaler(s)),
    **{kind: (name, _workload) for kind, name in {**WORKLOADS, JOBS: "job"}.items()}}
