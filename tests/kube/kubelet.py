"""Simulated kubelets: nodes with heartbeats, and what happens to the pods that are bound to them (see podscript.py).

Three threads whatever the number of nodes: one watches pods, one moves them on, one renews the nodes' Leases. Together they
make at most `most_per_s` requests a second; heartbeats come less often before they take more than half of that.
"""

from __future__ import annotations

import heapq
import itertools
import math
import re
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from kube.apiclient import STRATEGIC, Client, Json, path_of
from kube.podscript import Run, following, moved, script_of, stamp, status_of

LEASES = "kube-node-lease"
RETRY_S = 1.0
WATCH_S = 30


@dataclass
class Node:
    """`silent`: it sends no heartbeat and moves no pod, as a node that lost its power."""

    name: str
    ip: str
    silent: bool = False


@dataclass
class Pod:
    """A pod as it was last seen, how far it has come, and when to look at it again (Unix seconds)."""

    seen: Json
    ip: str
    run: Run
    due: float = math.inf
    deleted_at: float | None = None
    written: bool = True
    ended: bool = False

    @property
    def node(self) -> str:
        return str(self.seen["spec"]["nodeName"])

    @property
    def uid(self) -> str:
        return str(self.seen["metadata"]["uid"])

    @property
    def address(self) -> tuple[str, str]:
        return self.seen["metadata"]["namespace"], self.seen["metadata"]["name"]


@dataclass
class Fleet:
    """Nodes and their pods. `requests` counts what was asked of the API server, by kind."""

    client: Client
    heartbeat_s: float = 2.0
    most_per_s: float = 100.0
    requests: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._pods: dict[str, Pod] = {}
        self._due: list[tuple[float, str]] = []
        self._changed = threading.Condition()
        self._ended = threading.Event()
        self._free_at = 0.0
        self._ips = itertools.count(1)
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._watch, self._move, self._beat)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Returns at once; the threads end with their present request."""
        self._ended.set()
        with self._changed:
            self._changed.notify_all()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(WATCH_S + 10)

    # ----------------------------------------------------------------------------------------------------- nodes
    def add(self, prefix: str, count: int = 1, *, zones: str = "abc", gpus: int = 0, cpu: str = "16", memory: str = "64Gi",
            labels: Mapping[str, str] | None = None) -> list[str]:
        """Ready nodes PREFIX-0, ... spread over the zones, with `gpus` GPUs each. Their names."""
        names = [f"{prefix}-{k}" for k in range(count)]
        for k, name in enumerate(names):
            node = Node(name, _ip(10, 64, next(self._ips)))
            extra = {"topology.kubernetes.io/zone": zones[k % len(zones)], **({"nvidia.com/gpu.present": "true"} if gpus else {})}
            capacity = {"cpu": cpu, "memory": memory, "pods": "250", **({"nvidia.com/gpu": str(gpus)} if gpus else {})}
            self._ask("POST", path_of("nodes"), _node(node, {**extra, **(labels or {})}, capacity))
            self._ask("POST", path_of("leases", LEASES), {"metadata": {"name": name, "namespace": LEASES}, "spec": {
                "holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": _precise()}})
            with self._changed:
                self._nodes[name] = node
        return names

    def remove(self, names: list[str]) -> None:
        """The nodes, their leases and what runs on them."""
        for name in names:
            with self._changed:
                del self._nodes[name]
                bound = [pod for pod in self._pods.values() if pod.node == name]
                for pod in bound:
                    del self._pods[pod.uid]
            for pod in bound:
                self._quietly("DELETE", path_of("pods", *pod.address), {"gracePeriodSeconds": 0})
            self._quietly("DELETE", path_of("nodes", None, name))
            self._quietly("DELETE", path_of("leases", LEASES, name))

    def silence(self, name: str) -> None:
        """No heartbeat and no work from now on: the controllers call the node unknown, and its pods with it."""
        self._nodes[name].silent = True

    def resume(self, name: str) -> None:
        """It is back: it says so, and says how its pods are."""
        self._nodes[name].silent = False
        self.report(name, "Ready", "True")
        with self._changed:
            for pod in [pod for pod in self._pods.values() if pod.node == name]:
                pod.written = False
                self._plan(pod, 0.0)

    def report(self, name: str, kind: str = "Ready", status: str = "False", reason: str = "Simulated") -> None:
        """A condition of the node, in its own words: Ready, MemoryPressure, DiskPressure, ..."""
        self._ask("PATCH", path_of("nodes", None, name, "status"), {"status": {"conditions": [_condition(kind, status, reason)]}})

    def _beat(self) -> None:
        while not self._ended.wait(heartbeat_every_s(len(self._nodes), self.heartbeat_s, self.most_per_s)):
            for node in [n for n in list(self._nodes.values()) if not n.silent]:
                self._quietly("PATCH", path_of("leases", LEASES, node.name), {"spec": {"renewTime": _precise()}})

    # ------------------------------------------------------------------------------------------------------ pods
    def _watch(self) -> None:
        """Every pod that is bound to a node, for ever: a list, then watches from there on, after trouble a list again."""
        version = ""
        while not self._ended.is_set():
            try:
                version = self._watch_from(version) if version else self._list()
            except OSError:
                version = ""
                self._ended.wait(RETRY_S)

    def _list(self) -> str:
        got = self._ask("GET", path_of("pods") + "?fieldSelector=spec.nodeName!%3D")
        with self._changed:
            for uid in set(self._pods) - {item["metadata"]["uid"] for item in got["items"]}:
                del self._pods[uid]
        for item in got["items"]:
            self._take("ADDED", item)
        return str(got["metadata"]["resourceVersion"])

    def _watch_from(self, version: str) -> str:
        """The version to go on from; empty where that is too long ago."""
        self.requests["WATCH pods"] += 1
        for event in self.client.watch(path_of("pods"), WATCH_S, fieldSelector="spec.nodeName!=", resourceVersion=version,
                                       allowWatchBookmarks="true"):
            if event["type"] == "ERROR":
                return ""
            version = event["object"]["metadata"]["resourceVersion"]
            if event["type"] != "BOOKMARK":
                self._take(event["type"], event["object"])
            if self._ended.is_set():
                break
        return version

    def _take(self, kind: str, seen: Json) -> None:
        uid, now = seen["metadata"]["uid"], time.time()
        with self._changed:
            pod = self._pods.get(uid)
            if kind == "DELETED" or seen["spec"].get("nodeName") not in self._nodes:
                self._pods.pop(uid, None)
                return
            if pod is None:
                pod = self._pods[uid] = Pod(seen, _ip(10, 128, next(self._ips)), Run(since=now))
            pod.seen = seen
            if pod.deleted_at is None and "deletionTimestamp" in seen["metadata"]:
                pod.deleted_at = now
            self._plan(pod, now)

    def _plan(self, pod: Pod, at: float) -> None:
        """Look at it at this time, unless that happens earlier anyway."""
        if at < pod.due:
            pod.due = at
            heapq.heappush(self._due, (at, pod.uid))
            self._changed.notify_all()

    def _move(self) -> None:
        while not self._ended.is_set():
            pod = self._next()
            if pod is None:
                continue
            try:
                self._step(pod, time.time())
            except OSError:  # once more; where the pod is gone, the watch says so
                self.requests["failed"] += 1
                with self._changed:
                    self._plan(pod, time.time() + RETRY_S)

    def _next(self) -> Pod | None:
        """The pod that is due, after waiting for it; None after any change, to look again."""
        with self._changed:
            if not self._due or self._due[0][0] > time.time():
                self._changed.wait(self._due[0][0] - time.time() if self._due else None)
                return None
            at, uid = heapq.heappop(self._due)
            pod = self._pods.get(uid)
            if pod is None or pod.due != at:
                return None
            pod.due = math.inf
            return pod

    def _step(self, pod: Pod, now: float) -> None:
        """One step on, if it is time; else its time is noted."""
        node, script = self._nodes.get(pod.node), script_of(pod.seen)
        if node is None or node.silent or pod.ended:
            return
        if pod.deleted_at is not None:
            self._end(pod, pod.deleted_at + script.stops_after_s, now)
            return
        after = following(script, pod.run)
        if after is not None and after[0] <= now:
            pod.run, pod.written = moved(script, pod.run, after[1], now), False
        if not pod.written:
            self._ask("PATCH", path_of("pods", *pod.address, "status"), {
                "metadata": {"uid": pod.uid}, "status": status_of(pod.seen, pod.run, pod.ip, node.ip)})
            pod.written = True
        after = following(script, pod.run)
        if after is not None:
            with self._changed:
                self._plan(pod, after[0])

    def _end(self, pod: Pod, at: float, now: float) -> None:
        if at > now:
            with self._changed:
                self._plan(pod, at)
            return
        self._ask("DELETE", path_of("pods", *pod.address), {"gracePeriodSeconds": 0, "preconditions": {"uid": pod.uid}})
        pod.ended = True

    # -------------------------------------------------------------------------------------------------- requests
    def _ask(self, method: str, path: str, body: Any = None) -> Json:
        """One request, when its turn has come."""
        with self._changed:
            now = time.monotonic()
            self._free_at = max(self._free_at, now - 0.5) + 1.0 / self.most_per_s
            wait_s = self._free_at - now
            self.requests[f"{method} {_kind(path)}"] += 1
        if wait_s > 0:
            self._ended.wait(wait_s)
        content = STRATEGIC if method == "PATCH" else "application/json"
        return self.client.call(method, path, body, content=content)  # type: ignore[no-any-return]

    def _quietly(self, method: str, path: str, body: Any = None) -> None:
        """What may fail: the next heartbeat is soon, and what is gone is gone."""
        try:
            self._ask(method, path, body)
        except OSError:
            self.requests["failed"] += 1


def _node(node: Node, labels: Mapping[str, str], capacity: Mapping[str, str]) -> Json:
    pressures = ("MemoryPressure", "DiskPressure", "PIDPressure")
    return {"metadata": {"name": node.name, "labels": {
        "kubernetes.io/hostname": node.name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64", **labels}},
        "status": {"capacity": capacity, "allocatable": capacity, "addresses": [{"type": "InternalIP", "address": node.ip}],
                   "nodeInfo": {"kubeletVersion": "v0.0.0-simulated", "containerRuntimeVersion": "sim://1"},
                   "conditions": [_condition("Ready", "True", "KubeletReady"),
                                  *(_condition(kind, "False", "KubeletHasEnough") for kind in pressures)]}}


def _condition(kind: str, status: str, reason: str) -> Json:
    now = stamp(time.time())
    return {"type": kind, "status": status, "reason": reason, "message": "simulated",
            "lastHeartbeatTime": now, "lastTransitionTime": now}


def heartbeat_every_s(nodes: int, wanted_s: float, most_per_s: float) -> float:
    """So long between two heartbeats of a node that all of them take at most half of the requests."""
    return max(wanted_s, 2 * nodes / most_per_s)


def _precise() -> str:
    """Now, as Leases have it. The controllers never believe a Lease that began without a time."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _kind(path: str) -> str:
    """`/api/v1/namespaces/shop/pods/x/status` -> `pods/status`."""
    match = re.match(r"/apis?/(?:[^/]+/)?v\w+/(?:namespaces/[^/]+/)?(\w+)(?:/[^/]+(/\w+)?)?", path)
    return "" if match is None else match[1] + (match[2] or "")


def _ip(first: int, second: int, number: int) -> str:
    return f"{first}.{second + number // 62500 % 60}.{number // 250 % 250}.{number % 250 + 1}"
