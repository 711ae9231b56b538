"""What the examples of all remediations speak of (tests/fakes/kube_objects.py), on a real API server without controllers.

`reset` puts back what an action changed. `tend` stands for controllers and kubelets, for what actions wait for: a pod that was
evicted goes and another of its name is ready, a job that was begun has ended.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from fakes.kube_objects import seeded
from kube.apiclient import ApiError, Client, Json
from kube.controlplane import until

from aiops.kinds import KINDS

SPACE = "shop"
SPEC_OF = ("spec", "data", "endpoints", "revision")
WORKLOADS = {"Deployment": "deployment", "StatefulSet": "statefulset", "DaemonSet": "daemonset"}
FREE = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


class World:
    """`at` is the time of the action, in Unix seconds: all that is there is older."""

    def __init__(self, admin: Client, at: float) -> None:
        self.admin, self.at = admin, at
        self.wanted: dict[tuple[str, str], Json] = {}

    def fill(self) -> None:
        """Create everything. What a kind needs that this API server has no type for comes first."""
        for kind, one in seeded():
            if kind == "httproute" and not self.wanted.keys() & {("httproute", one["metadata"]["name"])}:
                self._define_routes()
            self.wanted[kind, one["metadata"]["name"]] = self._make(kind, one)

    def reset(self) -> None:
        """Back to what `fill` made: what was changed is put back, what is new goes, what went is made again."""
        there = {(kind, one["metadata"]["name"]): one for kind in {k for k, _ in self.wanted} for one in self._all(kind)}
        for kind, name in there:
            if (kind, name) not in self.wanted and kind in ("job", "pod", "replicaset"):
                self._delete(kind, name)
        for (kind, name), wanted in self.wanted.items():
            now = there.get((kind, name))
            if now is None or _another(kind, now, wanted) or "deletionTimestamp" in now["metadata"]:
                self._again(kind, name)
            elif _told(now) != _told(wanted):
                self._again(kind, name) if kind == "pod" else self._put_back(kind, now, wanted)

    def state(self) -> dict[str, Any]:
        """What has become of everything: of pods whether they were replaced, of others what is wished of them, what is new."""
        self.tend()
        there = {(kind, one["metadata"]["name"]): one for kind in {k for k, _ in self.wanted} for one in self._all(kind)}
        return {f"{kind}/{name}": "new" if (kind, name) not in self.wanted else _another(kind, one, self.wanted[kind, name])
                if kind == "pod" else _told(one) for (kind, name), one in there.items()}

    def tend(self) -> None:
        there = {one["metadata"]["name"]: one for one in self._all("pod")}
        gone = [n for k, n in self.wanted if k == "pod" and (n not in there or "deletionTimestamp" in there[n]["metadata"])]
        free = next(n["metadata"]["name"] for n in self._all("node") if not n["spec"].get("unschedulable")) if gone else ""
        for name in gone:
            self._again("pod", name, free, self.at + 1.0)
        if "job" in {kind for kind, _ in self.wanted}:
            for job in self._all("job"):
                if ("job", job["metadata"]["name"]) not in self.wanted and not job["status"].get("succeeded"):
                    self._end(job["metadata"]["name"])

    # ---------------------------------------------------------------------------------------------------- objects
    def _make(self, kind: str, one: Mapping[str, Any], node: str = "", started: float | None = None) -> Json:
        body = self._real(kind, copy.deepcopy(dict(one)))
        if node:
            body["spec"]["nodeName"] = node
        status = body.pop("status", None)
        path = self._path(kind)
        made = until(lambda: self._created(path, body), what=f"{kind} {body['metadata']['name']}")
        if kind in ("pod", "node") and status:
            if started is not None:
                status["startTime"] = stamp(started)
            made = self.admin.patch(f"{path}/{made['metadata']['name']}/status", {"status": status})
        return made  # type: ignore[no-any-return]

    def _created(self, path: str, body: Json) -> Json | None:
        """None while one of that name is still on its way out."""
        try:
            return self.admin.create(path, body, fieldManager=_manager(body))
        except ApiError as e:
            if e.status != 409 or body["kind"] != "Pod":
                if e.status == 409 and body["kind"] == "Namespace":
                    return self.admin.call("GET", f"{path}/{body['metadata']['name']}")  # type: ignore[no-any-return]
                raise
            return None

    def _real(self, kind: str, one: Json) -> Json:
        """As an API server wants it: what the fakes leave out."""
        at, meta = KINDS[kind], one["metadata"]
        for key in ("uid", "creationTimestamp", "resourceVersion"):
            meta.pop(key, None)
        one["apiVersion"] = f"{at.group}/{at.version}" if at.group else at.version
        for owner in meta.get("ownerReferences", ()):
            self._own(owner)
        for container in _containers(one):
            container.setdefault("image", "some:1")
        if kind == "replicaset":
            one["spec"].setdefault("selector", {"matchLabels": one["spec"]["template"]["metadata"]["labels"]})
        if kind == "endpointslice":
            one.setdefault("addressType", "IPv4")
        if kind == "horizontalpodautoscaler":
            one["spec"]["scaleTargetRef"].setdefault("apiVersion", "apps/v1")
        return one

    def _own(self, owner: Json) -> None:
        found = next((w for (k, n), w in self.wanted.items() if n == owner["name"] and k in WORKLOADS.values()), None)
        owner.setdefault("kind", found["kind"] if found else "ReplicaSet")
        owner["apiVersion"] = "v1" if owner["kind"] == "Node" else "apps/v1"
        owner["uid"] = found["metadata"]["uid"] if found else owner.get("uid") or "u"

    def _again(self, kind: str, name: str, node: str = "", started: float | None = None) -> None:
        self._delete(kind, name)
        one = next(o for k, o in seeded() if (k, o["metadata"]["name"]) == (kind, name))
        made = self._make(kind, one, node, started)
        if started is None:
            self.wanted[kind, name] = made

    def _put_back(self, kind: str, now: Json, wanted: Json) -> None:
        body = {**now, **{k: wanted[k] for k in SPEC_OF if k in wanted}}
        body["metadata"] = {**now["metadata"], "labels": wanted["metadata"].get("labels", {}),
                            "annotations": wanted["metadata"].get("annotations", {})}
        body["metadata"].pop("managedFields", None)
        self.admin.call("PUT", f"{self._path(kind)}/{now['metadata']['name']}?fieldManager={_manager(wanted)}", body)

    def _delete(self, kind: str, name: str) -> None:
        try:
            self.admin.call("DELETE", f"{self._path(kind)}/{name}", {"gracePeriodSeconds": 0, "propagationPolicy": "Background"})
        except ApiError as e:
            if e.status != 404:
                raise

    def _end(self, name: str) -> None:
        now = stamp(datetime.now(UTC).timestamp())
        done = [{"type": t, "status": "True", "lastTransitionTime": now, "lastProbeTime": now}
                for t in ("SuccessCriteriaMet", "Complete")]
        self.admin.patch(f"{self._path('job')}/{name}/status", {"status": {
            "startTime": now, "completionTime": now, "succeeded": 1, "conditions": done, "uncountedTerminatedPods": {}}})

    def _all(self, kind: str) -> list[Json]:
        if kind == "namespace":
            return [self.admin.call("GET", f"{self._path(kind)}/{SPACE}")]
        found: list[Json] = self.admin.call("GET", self._path(kind))["items"]
        return found

    def _path(self, kind: str) -> str:
        return KINDS[kind].path(SPACE)

    def _define_routes(self) -> None:
        at = KINDS["httproute"]
        self.admin.create("customresourcedefinitions", {
            "metadata": {"name": f"{at.plural}.{at.group}", "annotations": {
                "api-approved.kubernetes.io": "unapproved, for tests"}},
            "spec": {"group": at.group, "scope": "Namespaced", "names": {
                "plural": at.plural, "singular": "httproute", "kind": "HTTPRoute", "listKind": "HTTPRouteList"},
                "versions": [{"name": at.version, "served": True, "storage": True, "schema": {"openAPIV3Schema": FREE}}]}})
        until(self._routes_served, what="HTTPRoutes served")

    def _routes_served(self) -> bool:
        try:
            return "items" in self.admin.call("GET", self._path("httproute"))
        except ApiError:
            return False


def stamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _containers(one: Json) -> Iterator[Json]:
    """Of pods, of templates, and of the templates of jobs in cron jobs."""
    spec = one.get("spec") or {}
    for inner in (spec, spec.get("template", {}).get("spec", {}),
                  spec.get("jobTemplate", {}).get("spec", {}).get("template", {}).get("spec", {})):
        yield from inner.get("containers", ())


def _manager(one: Json) -> str:
    """Whose hand it was: `aiops.io/cordoned-by` says that it was ours."""
    return "aiops" if any(key.endswith("-by") for key in one["metadata"].get("annotations") or {}) else "person"


def _another(kind: str, now: Json, wanted: Json) -> bool:
    """Whether it is a pod that took the name of one that went."""
    return kind == "pod" and bool(now["metadata"]["uid"] != wanted["metadata"]["uid"])


def _told(one: Json) -> Any:
    """What of an object is somebody's wish."""
    meta = one["metadata"]
    notes = {k: v for k, v in (meta.get("annotations") or {}).items() if k != "deprecated.daemonset.template.generation"}
    return {k: one.get(k) for k in SPEC_OF}, meta.get("labels") or {}, notes
