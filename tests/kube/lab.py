"""What a test of the closed loop needs at hand: accounts with exact rights, workloads, nodes of its own, waiting."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kube.apiclient import APPLY, Client, Json, path_of
from kube.audit import Request
from kube.controlplane import Control, until
from kube.kubelet import Fleet
from kube.podscript import PREFIX

OWNER = PREFIX + "namespace"
RBAC = "rbac.authorization.k8s.io"
_NUMBERS = itertools.count(1)


@dataclass(frozen=True)
class Cluster:
    """A control plane with controllers, a scheduler and simulated nodes."""

    control: Control
    fleet: Fleet


@dataclass(frozen=True)
class Account:
    """A ServiceAccount: `user` is its name in the audit log, `client` speaks as it, `kubeconfig` is for a program."""

    control: Control
    user: str
    token: str
    kubeconfig: Path
    client: Client

    def writes(self) -> list[Request]:
        """What it changed or tried to change, once every request of it is answered."""
        return [r for r in self.control.audit.settled(self.user) if r.writes]


def grant(control: Control, namespace: str, name: str, rules: Sequence[Json]) -> Account:
    """A ServiceAccount with a ClusterRole of these rules and nothing else. Gone with the namespace."""
    admin, full = control.admin, f"{namespace}-{name}"
    labels = {"name": full, "labels": {OWNER: namespace}}
    admin.create("serviceaccounts", {"metadata": {"name": name}}, namespace)
    admin.create("clusterroles", {"metadata": labels, "rules": list(rules)})
    admin.create("clusterrolebindings", {
        "metadata": labels, "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": full}})
    token = admin.create(path_of("serviceaccounts", namespace, name, "token"), {"spec": {"expirationSeconds": 7200}})
    text = token["status"]["token"]
    return Account(control, f"system:serviceaccount:{namespace}:{name}", text, control.kubeconfig(full, text),
                   control.client(text, f"{name}/1"))


def clear(control: Control, namespace: str) -> None:
    """Without waiting: the namespace (which only goes where controllers run) and what `grant` made for it."""
    for resource in ("clusterrolebindings", "clusterroles"):
        control.call("DELETE", f"{path_of(resource)}?labelSelector={OWNER}%3D{namespace}")
    control.admin.delete("namespaces", None, namespace)


@dataclass
class Lab:
    """One test's part of the cluster: its namespace, and nodes of its own where it asks for them."""

    control: Control
    fleet: Fleet
    namespace: str
    _nodes: list[str] = field(default_factory=list)

    @property
    def admin(self) -> Client:
        return self.control.admin

    def account(self, name: str, rules: Sequence[Json]) -> Account:
        return grant(self.control, self.namespace, name, rules)

    def nodes(self, count: int, **kind: Any) -> list[str]:
        """Fresh nodes with the label `lab: NAMESPACE` and a taint-free start; kind as for Fleet.add. Removed at the end."""
        labels = {"lab": self.namespace, **kind.pop("labels", {})}
        names = self.fleet.add(f"{self.namespace}-{next(_NUMBERS)}", count, labels=labels, **kind)
        self._nodes += names
        until(lambda: all(not self.admin.get("nodes", None, name)["spec"].get("taints") for name in names), what="nodes ready")
        return names

    def deploy(self, name: str, replicas: int = 1, script: Mapping[str, str] | None = None, *, memory: str = "",
               image: str = "", own_nodes: bool = False, **spec: Any) -> Json:
        """Creates or changes a Deployment (server-side apply, as a person). `script`: see podscript.py, without the prefix;
        `memory`: its limit; `own_nodes`: only on those of `nodes()`; further keys go into the pod's spec."""
        resources = {"resources": {"limits": {"memory": memory}}} if memory else {}
        container = {"name": name, "image": image or f"{name}:1", **resources}
        where = {"nodeSelector": {"lab": self.namespace}} if own_nodes else {}
        return self.admin.patch(path_of("deployments", self.namespace, name) + "?fieldManager=person&force=true", {
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "labels": {"app": name}}, "spec": {
                "replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": {
                    "metadata": {"labels": {"app": name}, "annotations": {PREFIX + k: v for k, v in (script or {}).items()}},
                    "spec": {"containers": [container], **where, **spec}}}}, APPLY)

    def script(self, pod: str, **notes: str | None) -> None:
        """Changes what a pod does from now on: `script(pod, exits_after="1")`; None takes an annotation away."""
        annotations = {PREFIX + k.replace("_", "-"): v for k, v in notes.items()}
        self.admin.change("pods", self.namespace, pod, {"metadata": {"annotations": annotations}})

    def pods(self, app: str) -> list[Json]:
        """The pods with this label `app`, by name."""
        found = self.admin.list("pods", self.namespace, labelSelector=f"app={app}")
        return sorted(found, key=lambda pod: str(pod["metadata"]["name"]))

    def settled(self, name: str, within_s: float = 60.0) -> Json:
        """The Deployment, once its controller has seen it and all replicas are of the new template and available."""
        def done() -> Json | None:
            item = self.admin.get("deployments", self.namespace, name)
            status, wanted = item["status"], item["spec"]["replicas"]
            counts = {status.get(key, 0) for key in ("replicas", "updatedReplicas", "availableReplicas")}
            return item if status.get("observedGeneration") == item["metadata"]["generation"] and counts == {wanted} else None
        return until(done, within_s, lambda: f"{name} settled, but {self.told(name)}")  # type: ignore[no-any-return]

    def told(self, app: str) -> list[str]:
        """Of each of its pods: name, node, state, restarts, and what the scheduler says where it has none."""
        return [f"{p['metadata']['name']} on {p['spec'].get('nodeName')}: {state(p)}, {restarts(p)} restarts "
                + " ".join(c.get("message", "") for c in p["status"].get("conditions") or []) for p in self.pods(app)]

    def close(self) -> None:
        self.fleet.remove(self._nodes)


def state(pod: Json) -> str:
    """`ready`, `running`, the reason why it waits or ended, or its phase."""
    containers = pod["status"].get("containerStatuses") or []
    if not containers:
        return str(pod["status"].get("phase", ""))
    first = containers[0]
    for kind in ("waiting", "terminated"):
        if kind in first["state"]:
            return str(first["state"][kind]["reason"])
    return "ready" if first["ready"] else "running"


def restarts(pod: Json) -> int:
    return sum(c["restartCount"] for c in pod["status"].get("containerStatuses") or [])
