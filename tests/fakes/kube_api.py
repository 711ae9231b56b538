"""A small Kubernetes API server over HTTP: objects of any kind, evictions, scale, dry run, resource versions and rights.

It answers the real paths with real status codes. `seen` lists the rights that requests needed, `writes` what was changed.
An evicted pod that a controller owns is replaced at once. Watches: see kube_watch.py.
"""

from __future__ import annotations

import copy
import json
import re
import threading
from urllib.parse import unquote

from werkzeug import Request, Response

from aiops.changes import labels_of, value_at

PATH = re.compile(r"/(?:api|apis/(?P<group>[^/]+))/(?P<version>v\w+)(?:/namespaces/(?P<namespace>[^/]+))?/(?P<plural>[a-z]+)"
                  r"(?:/(?P<name>[^/]+))?(?:/(?P<sub>[a-z]+))?$")
REVIEW = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
VERBS = {"PATCH": "patch", "POST": "create", "DELETE": "delete"}
PAGE = 2


def status(code, message, reason="", **headers):
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code, "reason": reason}
    return Response(json.dumps(body), code, headers, content_type="application/json")


class KubeApi:
    """`fault` is called with (method, path, trial) before each request; what it returns is the answer.

    `jobs`: how a created Job ends, at once; empty: it runs on.
    """

    def __init__(self):
        self.objects = {}
        self.seen, self.writes, self.requests = set(), [], []
        self.forbidden, self.protected = set(), set()
        self.jobs = "Complete"
        self.fault = lambda method, path, trial: None
        self.released = threading.Event()
        self.version = 100

    # ------------------------------------------------------------------------------------------------- what is there
    def put(self, plural, one, namespace=None):
        """Takes an object in; its namespace is in its metadata, or it has none."""
        self.version += 1
        meta = one.setdefault("metadata", {})
        meta |= {"resourceVersion": str(self.version)}
        meta.setdefault("uid", f"uid-{meta['name']}")
        self.objects[plural, meta.get("namespace", ""), meta["name"]] = one
        return one

    def get(self, plural, namespace, name):
        return self.objects[plural, namespace, name]

    def workload(self, plural, namespace, name, replicas=3, **annotations):
        return self.put(plural, {"metadata": {"name": name, "namespace": namespace, "annotations": annotations},
                                 "spec": {"replicas": replicas, "template": {"metadata": {}}}})

    def add_pod(self, namespace, name, labels, started="2026-01-01T00:00:00Z", ready=True, owner="ReplicaSet", **more):
        owners = [{"kind": owner, "name": "x", "uid": "u", "controller": True}] if owner else []
        return self.put("pods", {
            "metadata": {"name": name, "namespace": namespace, "labels": labels, "ownerReferences": owners, **more},
            "spec": {}, "status": {"phase": "Running", "startTime": started,
                                   "conditions": [{"type": "Ready", "status": str(ready)}]}})

    # --------------------------------------------------------------------------------------------------------- HTTP
    def __call__(self, request: Request) -> Response:
        path, body = unquote(request.path), json.loads(request.data or b"null")
        trial = dry_run(request, body)
        self.requests.append((request.method, path, dict(request.args), body, request.content_type))
        broken = self.fault(request.method, path, trial)
        return broken if broken is not None else self.answer(request, path, body, trial)

    def answer(self, request, path, body, trial):
        if path == REVIEW:
            asked = body["spec"]["resourceAttributes"]
            resource = asked["resource"] + (f"/{asked['subresource']}" if asked["subresource"] else "")
            return self.json({"status": {"allowed": (asked["group"], resource, asked["verb"]) not in self.forbidden}})
        at = PATH.match(path)
        if at is None:
            return status(404, "the server could not find the requested resource")
        group, namespace, plural, name, sub = (at[k] or "" for k in ("group", "namespace", "plural", "name", "sub"))
        if plural == "namespaces":
            namespace = ""
        verb = VERBS.get(request.method) or ("get" if name else "list")
        denied = self.needs(group, plural + (f"/{sub}" if sub else ""), verb)
        if denied:
            return denied
        if verb == "list":
            return self.listed(plural, namespace, request.args)
        if verb == "create" and not name:
            return self.create(plural, namespace, body, trial)
        here = self.objects.get((plural, namespace, name))
        if here is None:
            return status(404, f'{plural}.{group} "{name}" not found', "NotFound")
        if verb == "get":
            return self.json(here)
        if verb == "patch":
            return self.patch(request, plural, sub, here, body, trial)
        return self.evict(here, body, trial) if sub == "eviction" else self.delete(plural, here, body, trial)

    def needs(self, group, resource, verb):
        self.seen.add((group, resource, verb))
        if (group, resource, verb) in self.forbidden:
            return status(403, f'{resource} is forbidden: User "aiops" cannot {verb} resource "{resource}"', "Forbidden")
        return None

    def json(self, data, code=200):
        return Response(json.dumps(data), code, content_type="application/json")

    def patch(self, request, plural, sub, here, body, trial):
        if request.content_type != "application/merge-patch+json":
            return status(415, "unsupported media type")
        version = (body.get("metadata") or {}).pop("resourceVersion", None)
        if version not in (None, here["metadata"]["resourceVersion"]):
            return status(409, "the object has been modified; please apply your changes to the latest version", "Conflict")
        if not trial:
            what = {k: v for k, v in body.items() if k != "metadata" or v}
            self.writes.append(("patch", f"{plural}/{sub}" if sub else plural, here["metadata"]["name"], copy.deepcopy(what)))
            merge(here, body)
            self.put(plural, here)
        return self.json(here)

    def create(self, plural, namespace, body, trial):
        name = body["metadata"]["name"]
        if (plural, namespace, name) in self.objects:
            return status(409, f'{plural} "{name}" already exists', "AlreadyExists")
        made = copy.deepcopy(body)
        made["metadata"] |= {"namespace": namespace} if namespace else {}
        if not trial:
            self.writes.append(("create", plural, name, copy.deepcopy(body)))
            made |= {"status": {"conditions": [{"type": self.jobs, "status": "True"}]}} if plural == "jobs" and self.jobs else {}
            self.put(plural, made)
        return self.json(made, 201)

    def delete(self, plural, here, body, trial):
        meta = here["metadata"]
        if (body or {}).get("preconditions", {}).get("uid") not in (None, meta["uid"]):
            return status(409, "Precondition failed: UID in precondition differs", "Conflict")
        if not trial:
            self.writes.append(("delete", plural, meta["name"], {}))
            del self.objects[plural, meta.get("namespace", ""), meta["name"]]
        return self.json({})

    def evict(self, pod, body, trial):
        name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
        if body["deleteOptions"].get("preconditions", {}).get("uid") not in (None, pod["metadata"]["uid"]):
            return status(409, "Precondition failed: UID in precondition differs", "Conflict")
        if name in self.protected:
            text = "Cannot evict pod as it would violate the pod's disruption budget."
            return status(429, text, "TooManyRequests", **{"Retry-After": "7"})
        if not trial:
            self.writes.append(("evict", "pods", name, {}))
            del self.objects["pods", namespace, name]
            if pod["metadata"].get("ownerReferences"):
                self.add_pod(namespace, name + "x", pod["metadata"]["labels"], "2099-01-01T00:00:00Z")
        return self.json({}, 201)

    def listed(self, plural, namespace, args):
        terms = [t.split("=") for t in args.get("labelSelector", "").split(",") if t]
        fields = [t.split("=") for t in args.get("fieldSelector", "").split(",") if t]
        items = [one for (p, ns, _), one in sorted(self.objects.items()) if p == plural and namespace in ("", ns)
                 and all(labels_of(one).get(k) == v for k, v in terms)
                 and all(value_at(one, k.split(".")) == v for k, v in fields)]
        start = int(args.get("continue", 0))
        more = {"continue": str(start + PAGE)} if len(items) > start + PAGE else {}
        return self.json({"items": items[start:start + PAGE], "metadata": more})


def dry_run(request, body):
    """As the real one: a DELETE with a body is told in the body and nowhere else, an eviction in its options."""
    if request.method == "DELETE" and body:
        return body.get("dryRun") == ["All"]
    options = body.get("deleteOptions", {}) if isinstance(body, dict) else {}
    return request.args.get("dryRun") == "All" or options.get("dryRun") == ["All"]


def merge(into, patch):
    """RFC 7386."""
    for key, value in patch.items():
        if value is None:
            into.pop(key, None)
        elif isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        elif isinstance(value, dict):
            into[key] = {}
            merge(into[key], value)
        else:
            into[key] = value
