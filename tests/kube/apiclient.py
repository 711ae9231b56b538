"""A small client of the Kubernetes API for tests: JSON in, JSON out, connections kept, safe to share between threads."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3

Json = dict[str, Any]
MERGE, STRATEGIC = "application/merge-patch+json", "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"  # of which JSON is a part
GROUPS = {
    "/api/v1": "configmaps endpoints events namespaces nodes persistentvolumeclaims pods secrets serviceaccounts services",
    "/apis/apps/v1": "daemonsets deployments replicasets statefulsets",
    "/apis/autoscaling/v2": "horizontalpodautoscalers",
    "/apis/batch/v1": "cronjobs jobs",
    "/apis/coordination.k8s.io/v1": "leases",
    "/apis/discovery.k8s.io/v1": "endpointslices",
    "/apis/policy/v1": "poddisruptionbudgets",
    "/apis/rbac.authorization.k8s.io/v1": "clusterroles clusterrolebindings roles rolebindings",
    "/apis/scheduling.k8s.io/v1": "priorityclasses",
    "/apis/apiextensions.k8s.io/v1": "customresourcedefinitions",
}
GROUP_OF = {resource: group for group, resources in GROUPS.items() for resource in resources.split()}


class ApiError(OSError):
    """The API server said no: `status` is the HTTP code, `reason` its word (`NotFound`, `Forbidden`, `TooManyRequests`, ...)."""

    def __init__(self, what: str, status: int, text: str) -> None:
        super().__init__(f"{what}: {status}: {text[:500]}")
        self.status = status
        try:
            self.reason = str(json.loads(text).get("reason", ""))
        except ValueError:
            self.reason = ""


def path_of(resource: str, namespace: str | None = None, name: str | None = None, sub: str | None = None) -> str:
    """`("pods", "shop", "api-x", "eviction")` -> `/api/v1/namespaces/shop/pods/api-x/eviction`."""
    parts = [GROUP_OF[resource], *(["namespaces", namespace] if namespace else []), resource, name, sub]
    return "/".join(part for part in parts if part)


class Client:
    """The API server at `url` as the holder of `token`. A method answers with the object, or raises ApiError; where nobody
    answers within `timeout_s`, or the connection breaks, OSError."""

    def __init__(self, url: str, ca: Path, token: str, agent: str = "tester/1", timeout_s: float = 30.0) -> None:
        self.url = url
        self._headers = {"Authorization": f"Bearer {token}", "User-Agent": agent}
        self._pool = urllib3.PoolManager(ca_certs=str(ca), maxsize=8, retries=False, timeout=timeout_s)

    def call(self, method: str, path: str, body: Any = None, raw: bool = False, content: str = "application/json",
             accept: str = "application/json") -> Any:
        text = self._send(method, path, body, content, accept=accept).data
        return text if raw else json.loads(text)

    def get(self, resource: str, namespace: str | None, name: str, sub: str | None = None) -> Json:
        return self._json("GET", path_of(resource, namespace, name, sub))

    def find(self, resource: str, namespace: str | None, name: str) -> Json | None:
        """As `get`, but None where there is no such object."""
        try:
            return self.get(resource, namespace, name)
        except ApiError as e:
            if e.status == 404:
                return None
            raise

    def list(self, resource: str, namespace: str | None = None, **selectors: str) -> list[Json]:
        """`selectors`: labelSelector, fieldSelector."""
        return self._json("GET", path_of(resource, namespace) + _query(selectors))["items"]  # type: ignore[no-any-return]

    def create(self, resource: str, item: Mapping[str, Any], namespace: str | None = None, **query: str) -> Json:
        """`resource` is a name (`pods`) or a whole path (`/api/v1/nodes`); query: dryRun, fieldManager."""
        path = resource if resource.startswith("/") else path_of(resource, namespace)
        return self._json("POST", path + _query(query), item)

    def patch(self, path: str, body: Mapping[str, Any], content: str = MERGE) -> Json:
        return self._json("PATCH", path, body, content)

    def change(self, resource: str, namespace: str | None, name: str, body: Mapping[str, Any], sub: str | None = None) -> Json:
        """A merge patch."""
        return self.patch(path_of(resource, namespace, name, sub), body)

    def delete(self, resource: str, namespace: str | None, name: str, **options: Any) -> None:
        """options: gracePeriodSeconds, propagationPolicy, preconditions."""
        self._json("DELETE", path_of(resource, namespace, name), options)

    def evict(self, namespace: str, name: str, **options: Any) -> None:
        """By the eviction subresource, which obeys disruption budgets: ApiError 429 where one forbids it."""
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": namespace}, **options}
        self._json("POST", path_of("pods", namespace, name, "eviction"), body)

    def watch(self, path: str, timeout_s: int = 60, **query: str) -> Iterator[Json]:
        """Events of a watch until the server ends it, which it does after `timeout_s`."""
        query = {**query, "watch": "1", "timeoutSeconds": str(timeout_s)}
        with self._send("GET", path + _query(query), preload=False) as answer:
            for line in _lines(answer):
                yield json.loads(line)

    def close(self) -> None:
        self._pool.clear()

    def _json(self, method: str, path: str, body: Any = None, content: str = "application/json") -> Json:
        return self.call(method, path, body, content=content)  # type: ignore[no-any-return]

    def _send(self, method: str, path: str, body: Any = None, content: str = "application/json", preload: bool = True,
              accept: str = "application/json") -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {**self._headers, "Content-Type": content, "Accept": accept}
        try:
            answer = self._pool.request(method, self.url + path, body=data, headers=headers, preload_content=preload)
            if answer.status >= 400:
                raise ApiError(f"{method} {path}", answer.status, answer.data.decode(errors="replace"))
        except urllib3.exceptions.HTTPError as e:
            raise OSError(f"{method} {path}: {e}") from None
        return answer


def _query(values: Mapping[str, str]) -> str:
    return "?" + urlencode(values) if values else ""


def _lines(answer: Any) -> Iterator[bytes]:
    """Whole lines of a stream. A broken connection is OSError."""
    rest = b""
    try:
        while chunk := answer.read1():
            *whole, rest = (rest + chunk).split(b"\n")
            yield from whole
    except urllib3.exceptions.HTTPError as e:
        raise OSError(f"the watch broke: {e}") from None
