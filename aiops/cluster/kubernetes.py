"""A real cluster. Least rights: workloads are read, only `/scale`, evictions and a template annotation are written.

Objects annotated `aiops.io/paused: "true"` are never touched. The key of an action makes its second call a no-op: for a
restart it is kept in the pod template, for the rest in memory (after a crash nothing is repeated, see `actuator.py`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiops.cluster.transport import JSON, Api
from aiops.interfaces import Clock, Pod, Refused, Retry

PAUSED = "aiops.io/paused"
LAST_ACTION = "aiops.io/last-action"
RESTARTED = "kubectl.kubernetes.io/restartedAt"
_PLURAL = {"deployment": "deployments", "statefulset": "statefulsets", "daemonset": "daemonsets"}
_REMEMBER = 10_000


def connect(kubeconfig: Path | None = None, context: str | None = None, timeout_s: tuple[float, float] = (5.0, 30.0)) -> Api:
    """The cluster that this runs in, else the one of the kubeconfig. Raises Refused where neither is there."""
    from kubernetes import client, config

    settings = client.Configuration()
    try:
        if kubeconfig is None and context is None:
            try:
                config.load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]
                return api(settings, timeout_s)
            except config.ConfigException:
                pass
        file = str(kubeconfig) if kubeconfig else None
        config.load_kube_config(file, context, client_configuration=settings)  # type: ignore[no-untyped-call]
    except (config.ConfigException, OSError) as e:
        raise Refused(f"no Kubernetes cluster: {e}. Set KUBECONFIG, or run inside a cluster.") from None
    return api(settings, timeout_s)


def api(settings: Any, timeout_s: tuple[float, float] = (5.0, 30.0)) -> Api:
    """A connection with these `kubernetes.client.Configuration`; requests are never repeated behind our back."""
    from kubernetes import client

    settings.retries = False
    return Api(client.ApiClient(settings), timeout_s)


class KubernetesCluster:
    """The Cluster protocol over an API server."""

    def __init__(self, connection: Api, clock: Clock) -> None:
        self._api, self._clock = connection, clock
        self._done: OrderedDict[str, Mapping[str, object]] = OrderedDict()
        self._uids: dict[str, str] = {}

    def done(self, key: str) -> Mapping[str, object] | None:
        return self._done.get(key)

    def replicas(self, target: str) -> int:
        return int(self._workload(target).get("spec", {}).get("replicas", 1))

    def autoscaler(self, target: str) -> str | None:
        kind, namespace, name = _split(target)
        path = f"/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers"
        for item in self._api.get(path).get("items", []):
            ref = item.get("spec", {}).get("scaleTargetRef", {})
            if str(ref.get("kind", "")).lower() == kind and ref.get("name") == name:
                return f"horizontalpodautoscaler/{namespace}/{item.get('metadata', {}).get('name', '')}"
        return None

    def scale(self, target: str, before: int, after: int, key: str) -> Mapping[str, object]:
        """Patches `/scale` on the resource version that was read, so that nobody else's change is overwritten."""
        if key not in self._done:
            workload = self._workload(target)
            now = int(workload.get("spec", {}).get("replicas", 1))
            if now != before:
                raise Retry(f"{target} has {now} replicas now, not {before}")
            version = {"resourceVersion": workload.get("metadata", {}).get("resourceVersion")}
            self._api.patch(f"{_path(target)}/scale", {"metadata": version, "spec": {"replicas": after}})
            self._remember(key, {"before": before, "after": after})
        return self._done[key]

    def pods(self, namespace: str, selector: str) -> Sequence[Pod]:
        found: list[Pod] = []
        query = {"labelSelector": selector, "limit": "500"}
        while True:
            page = self._api.get(f"/api/v1/namespaces/{namespace}/pods", query)
            found += [self._pod(item) for item in page.get("items", []) if _counts(item)]
            more = page.get("metadata", {}).get("continue")
            if not more:
                return found
            query["continue"] = more

    def pod(self, target: str) -> Pod | None:
        _, namespace, name = _split(target)
        item = self._api.get(f"/api/v1/namespaces/{namespace}/pods/{name}")
        if _paused(item):
            raise Refused(f"{target} is annotated {PAUSED}.")
        return self._pod(item)

    def evict(self, pod: str, key: str) -> None:
        """Through the eviction API, on trial first. A pod that is gone or was replaced meanwhile is evicted enough."""
        if key in self._done:
            return
        _, namespace, name = _split(pod)
        body: JSON = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": namespace}}
        options: JSON = {"preconditions": {"uid": self._uids[pod]}} if pod in self._uids else {}
        path = f"/api/v1/namespaces/{namespace}/pods/{name}/eviction"
        try:
            self._api.post(path, body | {"deleteOptions": options | {"dryRun": ["All"]}}, writes=False)
            self._api.post(path, body | {"deleteOptions": options})
        except (Refused, Retry) as e:
            if ": 404:" not in e.reason and "Precondition failed" not in e.reason:
                raise
        self._remember(key, {"pod": pod})

    def restart(self, target: str, key: str) -> None:
        """As `kubectl rollout restart`: a new annotation in the pod template."""
        if key in self._done:
            return
        template = self._workload(target).get("spec", {}).get("template", {})
        if (template.get("metadata", {}).get("annotations") or {}).get(LAST_ACTION) != key:
            at = datetime.fromtimestamp(self._clock.now(), UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
            notes = {RESTARTED: at, LAST_ACTION: key}
            self._api.patch(_path(target), {"spec": {"template": {"metadata": {"annotations": notes}}}})
        self._remember(key, {})

    def may(self, group: str, resource: str, verb: str, namespace: str = "") -> bool:
        """Whether we have a right (SelfSubjectAccessReview), for `aiops doctor`. Empty namespace = in all."""
        name, _, sub = resource.partition("/")
        what = {"group": group, "resource": name, "subresource": sub, "verb": verb, "namespace": namespace}
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": what}}
        answer = self._api.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body, writes=False)
        return bool(answer.get("status", {}).get("allowed"))

    def _workload(self, target: str) -> JSON:
        workload = self._api.get(_path(target))
        if _paused(workload):
            raise Refused(f"{target} is annotated {PAUSED}.")
        return workload

    def _pod(self, item: JSON) -> Pod:
        meta, status = item.get("metadata", {}), item.get("status", {})
        entity = f"pod/{meta.get('namespace', '')}/{meta.get('name', '')}"
        self._uids[entity] = str(meta.get("uid", ""))
        ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in status.get("conditions") or [])
        owned = any(o.get("controller") and o.get("kind") != "Node" for o in meta.get("ownerReferences") or [])
        started = status.get("startTime") or meta.get("creationTimestamp")
        return Pod(entity, ready, _seconds(started), leaving="deletionTimestamp" in meta, owned=owned)

    def _remember(self, key: str, what: Mapping[str, object]) -> None:
        self._done[key] = what
        while len(self._done) > _REMEMBER:
            self._done.popitem(last=False)


def _counts(item: JSON) -> bool:
    """Not finished, and nobody asked us to leave it alone."""
    return item.get("status", {}).get("phase") not in ("Succeeded", "Failed") and not _paused(item)


def _paused(item: JSON) -> bool:
    return (item.get("metadata", {}).get("annotations") or {}).get(PAUSED) == "true"


def _split(target: str) -> tuple[str, str, str]:
    kind, _, rest = target.partition("/")
    namespace, _, name = rest.partition("/")
    if not (kind and namespace and name) or "/" in name:
        raise Refused(f"{target!r} is not kind/namespace/name.")
    return kind, namespace, name


def _path(target: str) -> str:
    kind, namespace, name = _split(target)
    if kind not in _PLURAL:
        raise Refused(f"{target}: a {kind} is no workload. Known: {', '.join(_PLURAL)}.")
    return f"/apis/apps/v1/namespaces/{namespace}/{_PLURAL[kind]}/{name}"


def _seconds(text: str | None) -> float:
    """RFC 3339 to UTC seconds; 0 (long ago) where it cannot be read."""
    try:
        return datetime.fromisoformat(text).timestamp() if text else 0.0
    except ValueError:
        return 0.0
