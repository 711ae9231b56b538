"""A real cluster. Everything is written where it still is as it was when that was planned, and nowhere else.

A patch is made anew from the object as it is now, and sent with its resource version; an eviction names the pod's uid. So a
write that was sent twice, or late, does nothing the second time. https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from aiops.changes import Change, Object, edited, merge_patch
from aiops.cluster.quiet import Quiet
from aiops.cluster.transport import JSON, Api, Conflict, Missing, Unavailable
from aiops.interfaces import Refused, Retry
from aiops.kinds import Kind, kind_of, parts

TRIES = 5
"""Status and heartbeats change an object all the time: a patch is made anew so often before it waits."""
PAGE, PAGES = "500", 2000


def connect(kubeconfig: Path | None = None, context: str | None = None, timeout_s: tuple[float, float] = (5.0, 30.0),
            fence: Callable[[], float] | None = None, quiet: Quiet | None = None) -> Api:
    """The cluster that this runs in, else the one of the kubeconfig. Raises Refused where neither is there."""
    from kubernetes import client, config

    settings = client.Configuration()
    try:
        if kubeconfig is None and context is None:
            try:
                config.load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]
                return api(settings, timeout_s, fence, quiet)
            except config.ConfigException:
                pass
        file = str(kubeconfig) if kubeconfig else None
        config.load_kube_config(file, context, client_configuration=settings)  # type: ignore[no-untyped-call]
    except (config.ConfigException, OSError) as e:
        raise Refused(f"no Kubernetes cluster: {e}. Set KUBECONFIG, or run inside a cluster.") from None
    return api(settings, timeout_s, fence, quiet)


def api(settings: Any, timeout_s: tuple[float, float] = (5.0, 30.0), fence: Callable[[], float] | None = None,
        quiet: Quiet | None = None) -> Api:
    """A connection with these `kubernetes.client.Configuration`; requests are never repeated behind our back."""
    from kubernetes import client

    settings.retries = False
    return Api(client.ApiClient(settings), timeout_s, fence, quiet)


class KubernetesCluster:
    """The Cluster protocol over an API server."""

    def __init__(self, connection: Api) -> None:
        self._api = connection

    def get(self, target: str) -> Object | None:
        kind, namespace, name = parts(target)
        path = kind_of(kind).path(namespace, name)
        try:
            return _whole(path, self._api.get(path), "metadata", dict)
        except Missing:
            return None

    def find(self, kind: str, namespace: str = "", selector: str = "", fields: str = "") -> Sequence[Object]:
        found: list[Object] = []
        query = {"labelSelector": selector, "fieldSelector": fields, "limit": PAGE}
        path = kind_of(kind).path(namespace)
        for _ in range(PAGES):
            page = _whole(path, self._api.get(path, {k: v for k, v in query.items() if v}), "items", list)
            found += page["items"]
            query["continue"] = (page.get("metadata") or {}).get("continue", "")
            if not query["continue"]:
                return found
        raise Unavailable(f"GET {path}: more than {PAGES} pages, or a list that never ends")

    def try_out(self, change: Change) -> None:
        self._send(change, trial=True)

    def write(self, change: Change) -> Object:
        return self._send(change, trial=False)

    def may(self, group: str, resource: str, verb: str, namespace: str = "") -> bool:
        """Whether we have a right (SelfSubjectAccessReview), for `aiops doctor`. Empty namespace = in all."""
        name, _, sub = resource.partition("/")
        what = {"group": group, "resource": name, "subresource": sub, "verb": verb, "namespace": namespace}
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": what}}
        answer = self._api.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body, writes=False)
        return bool(answer.get("status", {}).get("allowed"))

    # --------------------------------------------------------------------------------------------------- each verb
    def _send(self, change: Change, trial: bool) -> Object:
        kind, namespace, name = parts(change.entity)
        at = kind_of(kind)
        if change.verb == "patch":
            return self._patch(change, at.path(namespace, name, change.subresource), trial)
        if change.verb == "create":
            return self._create(change, at, namespace, trial)
        if change.verb == "evict":
            return self._evict(change, at.path(namespace, name, "eviction"), trial)
        return self._delete(change, at.path(namespace, name), trial)

    def _patch(self, change: Change, path: str, trial: bool) -> Object:
        for _ in range(TRIES):
            now = self.get(change.entity)
            if now is None:
                raise Refused(f"{change.entity} does not exist any more.")
            body = merge_patch(now, edited(now, change.edits))
            body.setdefault("metadata", {})["resourceVersion"] = now["metadata"]["resourceVersion"]
            try:
                return self._api.patch(path, body, trial)
            except Conflict:
                continue
        raise Retry(f"{change.entity} is changed by others all the time", 5.0)

    def _create(self, change: Change, at: Kind, namespace: str, trial: bool) -> Object:
        try:
            return self._api.post(at.path(namespace), dict(change.body), trial)
        except Conflict:
            there = self.get(change.entity)
            if there is not None and change.standing(there) == "done":
                return there
            raise Refused(f"{change.entity} exists already, and was made by somebody else.") from None

    def _evict(self, change: Change, path: str, trial: bool) -> Object:
        """A pod that is gone, or was replaced meanwhile, is evicted enough."""
        _, namespace, name = parts(change.entity)
        options: JSON = {"preconditions": {"uid": change.uid}} | ({"dryRun": ["All"]} if trial else {})
        body: JSON = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": namespace},
                      "deleteOptions": options}
        try:
            return self._api.post(path, body, writes=not trial)
        except (Missing, Conflict) as e:
            return self._gone(change, e)

    def _delete(self, change: Change, path: str, trial: bool) -> Object:
        body: JSON = {"preconditions": {"uid": change.uid}, "propagationPolicy": "Background"}
        try:
            return self._api.delete(path, body, trial)
        except (Missing, Conflict) as e:
            return self._gone(change, e)

    def _gone(self, change: Change, why: Retry | Refused) -> Object:
        """Raises Retry where the one that was meant is still there."""
        if change.standing(self.get(change.entity)) != "done":
            raise Retry(why.reason)
        return {}


def _whole(path: str, answer: JSON, part: str, of: type) -> JSON:
    """What has no such part is some other answer, and not an object, or a list, without anything in it."""
    if not isinstance(answer.get(part), of):
        raise Unavailable(f"GET {path}: the answer has no {part}")
    return answer
