"""The ledger of blast radius: nobody's unavailability adds up, with ours, to more than the limits allow.

Failure domains are all nodes, the nodes of one group, and the pods of one service. What is away counts, whoever took it away,
and what we are about to take away counts as if it were gone. Only what takes something away is ever held back: uncordoning,
scaling up and undoing pass without a look. It is asked by the one worker that writes, right before each turn, so nothing of
ours can come in between; what others do in the FRESH_S seconds between two listings is seen by the next one.
Why so: docs/decisions/026-blast-radius.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from aiops.changes import Change, Edit, Object, entity_of, labels_of, uid_of, value_at
from aiops.cluster.executor import Fewer
from aiops.interfaces import NOT_NOW, Cluster, Refused
from aiops.kinds import KINDS, parts
from aiops.limits import Limit, Limits
from aiops.types import Action, Entity

FRESH_S, NO_S = 3.0, 30.0
"""So old may a listing of nodes be on which one is taken away; and so old one on which that is refused, which harms nobody: in a
burst of thousands, one listing of 10,000 nodes is enough for all of them."""
AGAIN_S = 10.0
GROUP_LABELS = ("topology.kubernetes.io/zone", "nvidia.com/gpu.clique", "node.kubernetes.io/instance-type")
CONDITION_TAINTS = ("aiops.io/", "node.kubernetes.io/", "node.cloudprovider.kubernetes.io/")
"""Taints that say that something is wrong with a node; all others only say whom it is for."""
KEEPS_AWAY = ("NoSchedule", "NoExecute")
FINISHED = ("Succeeded", "Failed")
SHOWN = 3


class Domain:
    """One failure domain of nodes: how many belong to it, and who is away, with the reason. Pure."""

    def __init__(self, name: str, total: int) -> None:
        self.name, self.total = name, total
        self.away: dict[str, str] = {}

    def refusal(self, node: str, limit: Limit, setting: str) -> str | None:
        """Why this one must not go as well, or None. Who is away already costs nothing; the last one never goes."""
        gone, most = len(self.away) + 1, limit.most(self.total)
        if node in self.away or (gone <= most and gone < self.total):
            return None
        if gone <= most:
            return f"nobody would be left of {self.name}."
        return f"{len(self.away)} of {self.total} of {self.name} are away{self._who()}, and {setting} allows {most} ({limit})."

    def _who(self) -> str:
        """` (gpu-1 cordoned, gpu-7 not ready and 4 more)`."""
        some = ", ".join(f"{name} {why}" for name, why in sorted(self.away.items())[:SHOWN])
        more = f" and {len(self.away) - SHOWN} more" if len(self.away) > SHOWN else ""
        return f" ({some}{more})" if some else ""


class Fleet:
    """All nodes, and the groups of them. Pure; a listing makes a new one."""

    def __init__(self, nodes: Iterable[tuple[str, str, str]]) -> None:
        """nodes: name, group (empty: in none) and why it is away (empty: it is there)."""
        rows = list(nodes)
        self.group = {name: group for name, group, _ in rows}
        self.all = Domain("the nodes", len(rows))
        self.groups = {group: Domain(f"the nodes with {group}", n) for group, n in Counter(self.group.values()).items() if group}
        for name, _, why in rows:
            if why:
                self.take(name, why)

    def take(self, name: str, why: str) -> None:
        for domain in self._domains(name):
            domain.away[name] = why

    def give_back(self, name: str) -> None:
        for domain in self._domains(name):
            domain.away.pop(name, None)

    def refusal(self, name: str, limits: Limits) -> str | None:
        """Why this node must not be taken away as well, or None."""
        everybody, *groups = self._domains(name)
        refusal = everybody.refusal(name, limits.nodes, "limits.nodes")
        return refusal or next((why for g in groups if (why := g.refusal(name, limits.node_group, "limits.nodeGroup"))), None)

    def _domains(self, name: str) -> Iterator[Domain]:
        yield self.all
        group = self.group.get(name, "")
        if group:
            yield self.groups[group]


class Service:
    """The pods of one workload. Pure. total: how many there should be; ready: those that serve."""

    def __init__(self, name: Entity, total: int, ready: Iterable[Entity]) -> None:
        self.name, self.total, self.ready = name, total, set(ready)

    def take(self, pod: Entity, limit: Limit) -> str | None:
        """Takes it away where it may go; else why not. One that is not ready costs nothing; an only one may go: it comes back."""
        short, most = self.total - len(self.ready), limit.most(self.total)
        if pod in self.ready and short + 1 > most:
            return f"{short} of {self.total} pods of {self.name} are away, and limits.service allows {most} ({limit})"
        self.ready.discard(pod)
        return None


@dataclass(slots=True)
class _Listing:
    """What was seen of pods of a namespace: service -> pod -> whether it is ready."""

    at: float
    pods: dict[Entity, dict[Entity, bool]]
    service: dict[Entity, Entity]
    uids: dict[Entity, str]


class Radius:
    """The check before each turn. `now`: seconds of a clock that only rises; asked for the age of listings."""

    def __init__(self, limits: Limits, now: Callable[[], float], fresh_s: float = FRESH_S) -> None:
        self._limits, self._now, self._fresh_s = limits, now, fresh_s
        self._fleet, self._fleet_at = Fleet(()), float("-inf")
        self._namespaces: dict[str, _Listing] = {}
        self._keys: set[str] = set()
        self.listed = 0

    def __call__(self, action: Action, changes: Sequence[Change], cluster: Cluster) -> None:
        """Raises Refused where a limit forbids it, and Fewer where only some of the pods may go now."""
        nodes = list(dict.fromkeys(c.entity for c in changes if takes_node(c)))
        for node in nodes:
            self._node(node, changes, cluster)
        if action.state == "undo":
            return
        for change in changes:
            self._rollout(change, cluster)
        self._pods(changes, cluster)

    # ------------------------------------------------------------------------------------------------------- nodes
    def _node(self, entity: Entity, changes: Sequence[Change], cluster: Cluster) -> None:
        name, now = parts(entity)[2], cluster.get(entity) or {}
        refusal = self._refusal(name, now) if self._now() - self._fleet_at < NO_S else ""
        if not refusal:
            self._nodes(cluster, anew=name not in self._fleet.group)
            refusal = self._refusal(name, now)
        if refusal:
            raise Refused(f"{NOT_NOW}{entity} must not go away as well: {refusal}")
        self._keys |= {key for c in changes if c.entity == entity for key in _tainted(c.edits)}
        self._fleet.take(name, "taken away by us")

    def _refusal(self, name: str, now: Object) -> str | None:
        """By the listing that is at hand, with this node as it is now."""
        why = _why_away(now, self._keys)
        if why:
            self._fleet.take(name, why)
        else:
            self._fleet.give_back(name)
        return self._fleet.refusal(name, self._limits) if name in self._fleet.group else None

    def _nodes(self, cluster: Cluster, anew: bool) -> None:
        if anew or self._now() - self._fleet_at >= self._fresh_s:
            listed = cluster.find("node")
            self._fleet = Fleet((str(n["metadata"]["name"]), self._group(n), _why_away(n, self._keys)) for n in listed)
            self._fleet_at, self.listed = self._now(), self.listed + 1

    def _group(self, node: Object) -> str:
        """`topology.kubernetes.io/zone=eu-1`; empty where the node has none of the labels."""
        own, label = labels_of(node), self._limits.node_group.label
        return next((f"{key}={own[key]}" for key in ((label,) if label else GROUP_LABELS) if own.get(key)), "")

    # -------------------------------------------------------------------------------------------------------- pods
    def _rollout(self, change: Change, cluster: Cluster) -> None:
        """A Deployment that is recreated loses all its pods at once."""
        if change.verb != "patch" or not any(e.path[:2] == ("spec", "template") for e in change.edits):
            return
        now = cluster.get(change.entity)
        if value_at(now, ("spec", "strategy", "type")) != "Recreate":
            return
        service = self._service(change.entity, self._listing(parts(change.entity)[1], cluster), cluster)
        why = next((why for pod in sorted(service.ready) if (why := service.take(pod, self._limits.service))), None)
        if why:
            raise Refused(f"{NOT_NOW}a rollout of {change.entity} takes all its pods away at once (strategy Recreate): {why}.")

    def _pods(self, changes: Sequence[Change], cluster: Cluster) -> None:
        """Those that may go, one after the other, as if those before were gone already."""
        services: dict[Entity, Service] = {}
        passed: list[Change] = []
        refusal = ""
        for change in changes:
            why = self._pod(change, services, cluster) if _takes_pod(change) else None
            refusal = refusal or why or ""
            if why is None:
                passed.append(change)
        for change in passed if services else ():
            self._note(change)
        if refusal:
            raise Fewer(refusal, AGAIN_S, tuple(passed))

    def _pod(self, change: Change, services: dict[Entity, Service], cluster: Cluster) -> str | None:
        namespace = parts(change.entity)[1]
        found = self._listing(namespace, cluster)
        if found.uids.get(change.entity) != change.uid:
            found = self._listing(namespace, cluster, anew=True)
        name = found.service.get(change.entity)
        if name is None:
            return None
        if not found.pods[name][change.entity]:
            found.pods[name][change.entity] = _there(cluster.get(change.entity) or {})
        if name not in services:
            services[name] = self._service(name, found, cluster)
        return services[name].take(change.entity, self._limits.service)

    @staticmethod
    def _service(name: Entity, found: _Listing, cluster: Cluster) -> Service:
        """As many pods as the workload asks for should be there; as many as there are where it does not say."""
        pods, asked = found.pods.get(name, {}), _asked(name, cluster)
        return Service(name, len(pods) if asked is None else asked, (pod for pod, ready in pods.items() if ready))

    def _listing(self, namespace: str, cluster: Cluster, anew: bool = False) -> _Listing:
        found = self._namespaces.get(namespace)
        if found is None or anew or self._now() - found.at >= self._fresh_s:
            for old in [n for n, listing in self._namespaces.items() if self._now() - listing.at >= self._fresh_s]:
                del self._namespaces[old]
            found = self._namespaces[namespace] = _listing(cluster.find("pod", namespace), self._now())
            self.listed += 1
        return found

    def _note(self, change: Change) -> None:
        """What goes counts as gone until the next listing."""
        found = self._namespaces.get(parts(change.entity)[1]) if _takes_pod(change) else None
        name = found.service.get(change.entity) if found else None
        if found and name:
            found.pods[name][change.entity] = False


def takes_node(change: Change) -> bool:
    """Whether it keeps new pods off a node: it is cordoned, tainted or deleted."""
    if not change.entity.startswith("node/"):
        return False
    cordons = any(e.path == ("spec", "unschedulable") and e.after is True for e in change.edits)
    return change.verb == "delete" or cordons or any(_tainted(change.edits))


def _takes_pod(change: Change) -> bool:
    return change.verb in ("evict", "delete") and change.entity.startswith("pod/")


def _tainted(edits: Sequence[Edit]) -> Iterator[str]:
    """The keys of taints that keep pods away and that were not there before."""
    for edit in edits:
        if edit.path[:2] == ("spec", "taints"):
            before, after = (x if isinstance(x, list) else [x] if x else [] for x in (edit.before, edit.after))
            for taint in after if all(isinstance(t, dict) for t in after) else ():
                if taint.get("effect") in KEEPS_AWAY and taint not in before:
                    yield str(taint.get("key", ""))


def _why_away(node: Object, ours: Iterable[str]) -> str:
    """Empty where new pods may come: it is not cordoned, ready, and no taint says that something is wrong with it."""
    if value_at(node, ("spec", "unschedulable")):
        return "cordoned"
    conditions = value_at(node, ("status", "conditions")) or []
    if not any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions):
        return "not ready"
    for taint in value_at(node, ("spec", "taints")) or []:
        key = str(taint.get("key", ""))
        if taint.get("effect") in KEEPS_AWAY and (key.startswith(CONDITION_TAINTS) or key in ours):
            return f"tainted with {key}"
    return ""


def _listing(pods: Sequence[Object], at: float) -> _Listing:
    found = _Listing(at, {}, {}, {})
    for pod in pods:
        if value_at(pod, ("status", "phase")) not in FINISHED:
            entity, name = entity_of(pod, "pod"), service_of(pod)
            found.pods.setdefault(name, {})[entity] = _there(pod)
            found.service[entity], found.uids[entity] = name, uid_of(pod)
    return found


def _there(pod: Object) -> bool:
    """Ready, and not told to stop."""
    conditions = value_at(pod, ("status", "conditions")) or []
    ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)
    return ready and "deletionTimestamp" not in pod.get("metadata", {})


def service_of(pod: Object) -> Entity:
    """The workload that owns it: of a ReplicaSet that a Deployment made, which its name and label tell, that Deployment.

    A pod that nobody owns is a service by itself.
    """
    meta = pod["metadata"]
    owner = next((o for o in meta.get("ownerReferences") or [] if o.get("controller")), None)
    if owner is None:
        return entity_of(pod, "pod")
    kind, name, tail = str(owner.get("kind", "")).lower(), str(owner.get("name", "")), labels_of(pod).get("pod-template-hash", "")
    if kind == "replicaset" and tail and name.endswith(f"-{tail}"):
        kind, name = "deployment", name.removesuffix(f"-{tail}")
    return f"{kind}/{meta.get('namespace', '')}/{name}"


def _asked(service: Entity, cluster: Cluster) -> int | None:
    """How many pods the workload asks for; None where it does not say, or is of a kind that is not known here."""
    kind = service.partition("/")[0]
    if kind not in KINDS or kind not in ("deployment", "statefulset", "replicaset", "daemonset"):
        return None
    path = ("status", "desiredNumberScheduled") if kind == "daemonset" else ("spec", "replicas")
    found = value_at(cluster.get(service), path)
    return found if isinstance(found, int) else None
