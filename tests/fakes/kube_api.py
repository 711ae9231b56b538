"""A small Kubernetes API server over HTTP: workloads, pods, evictions, autoscalers, dry run, resource versions and rights.

It answers the real paths with real status codes. `seen` lists the rights that requests needed, `writes` what was changed.
"""

from __future__ import annotations

import copy
import json
import re
import threading
from urllib.parse import unquote

from werkzeug import Request, Response

WORKLOAD = re.compile(r"/apis/apps/v1/namespaces/([^/]+)/(deployments|statefulsets|daemonsets)/([^/]+)(/scale)?$")
POD = re.compile(r"/api/v1/namespaces/([^/]+)/pods(?:/([^/]+)(/eviction)?)?$")
HPA = re.compile(r"/apis/autoscaling/v2/namespaces/([^/]+)/horizontalpodautoscalers$")
REVIEW = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


def status(code, message, **headers):
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}
    return Response(json.dumps(body), code, headers, content_type="application/json")


class KubeApi:
    """`fault` is called with (method, path, trial) before each request; what it returns is the answer."""

    def __init__(self):
        self.workloads, self.pods, self.hpas = {}, {}, []
        self.seen, self.writes, self.requests = set(), [], []
        self.forbidden, self.protected = set(), set()
        self.fault = lambda method, path, trial: None
        self.released = threading.Event()
        self.version = 100

    def workload(self, plural, namespace, name, replicas=3, **annotations):
        self.version += 1
        self.workloads[plural, namespace, name] = {
            "metadata": {"name": name, "namespace": namespace, "resourceVersion": str(self.version),
                         "annotations": annotations},
            "spec": {"replicas": replicas, "template": {"metadata": {}}}}

    def add_pod(self, namespace, name, labels, started="2026-01-01T00:00:00Z", ready=True, owner="ReplicaSet", **more):
        owners = [{"kind": owner, "name": "x", "uid": "u", "controller": True}] if owner else []
        self.pods[namespace, name] = {
            "metadata": {"name": name, "namespace": namespace, "labels": labels, "uid": f"uid-{name}",
                         "ownerReferences": owners, **more},
            "status": {"phase": "Running", "startTime": started,
                       "conditions": [{"type": "Ready", "status": str(ready)}]}}

    def __call__(self, request: Request) -> Response:
        path, body = unquote(request.path), json.loads(request.data or b"null")
        options = (body or {}).get("deleteOptions", {}) if isinstance(body, dict) else {}
        trial = request.args.get("dryRun") == "All" or options.get("dryRun") == ["All"]
        self.requests.append((request.method, path, dict(request.args), body, request.content_type))
        broken = self.fault(request.method, path, trial)
        return broken if broken is not None else self.answer(request, path, body, trial)

    def answer(self, request, path, body, trial):
        found = WORKLOAD.match(path)
        if found:
            return self.on_workload(request, found, body, trial)
        found = POD.match(path)
        if found:
            return self.on_pod(request, found, body, trial)
        if HPA.match(path):
            return self.needs("autoscaling", "horizontalpodautoscalers", "list") or self.json({"items": self.hpas})
        if path == REVIEW:
            asked = body["spec"]["resourceAttributes"]
            resource = asked["resource"] + (f"/{asked['subresource']}" if asked["subresource"] else "")
            allowed = (asked["group"], resource, asked["verb"]) not in self.forbidden
            return self.json({"status": {"allowed": allowed}})
        return status(404, "the server could not find the requested resource")

    def needs(self, group, resource, verb):
        self.seen.add((group, resource, verb))
        if (group, resource, verb) in self.forbidden:
            return status(403, f'{resource} is forbidden: User "aiops" cannot {verb} resource "{resource}"')
        return None

    def json(self, data, code=200):
        return Response(json.dumps(data), code, content_type="application/json")

    def on_workload(self, request, found, body, trial):
        namespace, plural, name, scale = found.groups()
        denied = self.needs("apps", plural + (scale or ""), {"GET": "get", "PATCH": "patch"}[request.method])
        if denied:
            return denied
        here = self.workloads.get((plural, namespace, name))
        if here is None:
            return status(404, f'{plural}.apps "{name}" not found')
        if request.method == "GET":
            return self.json(here)
        if request.content_type != "application/merge-patch+json":
            return status(415, "unsupported media type")
        version = (body.get("metadata") or {}).pop("resourceVersion", None)
        if version not in (None, here["metadata"]["resourceVersion"]):
            return status(409, "the object has been modified; please apply your changes to the latest version")
        if not trial:
            self.writes.append(("patch", plural + (scale or ""), name, copy.deepcopy(body)))
            merge(here, body)
            self.version += 1
            here["metadata"]["resourceVersion"] = str(self.version)
        return self.json(here)

    def on_pod(self, request, found, body, trial):
        namespace, name, eviction = found.groups()
        verb = "create" if eviction else "get" if name else "list"
        denied = self.needs("", "pods" + (eviction or ""), verb)
        if denied:
            return denied
        if not name:
            return self.listed(namespace, request.args)
        pod = self.pods.get((namespace, name))
        if pod is None:
            return status(404, f'pods "{name}" not found')
        return self.evict(namespace, name, pod, body, trial) if eviction else self.json(pod)

    def evict(self, namespace, name, pod, body, trial):
        wanted = body["deleteOptions"].get("preconditions", {}).get("uid")
        if wanted not in (None, pod["metadata"]["uid"]):
            return status(409, "Precondition failed: UID in precondition differs")
        if name in self.protected:
            return status(429, "Cannot evict pod as it would violate the pod's disruption budget.", **{"Retry-After": "7"})
        if not trial:
            self.writes.append(("evict", "pods", name, {}))
            del self.pods[namespace, name]
            self.add_pod(namespace, name + "x", pod["metadata"]["labels"], "2099-01-01T00:00:00Z")
        return self.json({}, 201)

    def listed(self, namespace, args):
        terms = [t.split("=") for t in args.get("labelSelector", "").split(",") if t]
        items = [p for (ns, _), p in sorted(self.pods.items())
                 if ns == namespace and all(p["metadata"]["labels"].get(k) == v for k, v in terms)]
        start = int(args.get("continue", 0))
        more = {"continue": str(start + 2)} if len(items) > start + 2 else {}
        return self.json({"items": items[start:start + 2], "metadata": more})


def merge(into, patch):
    for key, value in patch.items():
        if isinstance(value, dict):
            merge(into.setdefault(key, {}), value)
        else:
            into[key] = value
