"""Lists of the Kubernetes API as small structs: the official client for addresses and credentials, msgspec for the rest.

Only the fields that are used are decoded, some 200 times faster than the client's models. Lists come in chunks of 500;
a continue token that expired (410) starts the list anew, once.
https://kubernetes.io/docs/reference/using-api/api-concepts/#retrieving-large-results-sets-in-chunks
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

LIMIT = 500
MAX_CHUNKS = 2_000
TIMEOUT_S = (5.0, 30.0)
Item = TypeVar("Item")


class KubeError(Exception):
    """The API server could not be asked. `status` is the HTTP status, 0 where no answer came."""

    def __init__(self, path: str, what: str, status: int = 0) -> None:
        super().__init__(f"Kubernetes {path}: {what}")
        self.status = status


class Part(msgspec.Struct, rename="camel"):
    """Base of everything decoded: unknown fields are skipped, null counts as absent where a default is given."""


class Owner(Part):
    kind: str
    name: str
    controller: bool | None = None


class Meta(Part):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: list[Owner] | None = None


class Container(Part):
    name: str = ""
    image: str = ""


class PodSpec(Part):
    node_name: str = ""
    containers: list[Container] | None = None


class PodStatus(Part):
    phase: str = ""


class Pod(Part):
    metadata: Meta
    spec: PodSpec = msgspec.field(default_factory=PodSpec)
    status: PodStatus = msgspec.field(default_factory=PodStatus)


class NodeStatus(Part):
    capacity: dict[str, str] | None = None


class KubeNode(Part):
    metadata: Meta
    status: NodeStatus = msgspec.field(default_factory=NodeStatus)


class Template(Part):
    spec: PodSpec = msgspec.field(default_factory=PodSpec)


class WorkloadSpec(Part):
    replicas: int | None = None
    template: Template = msgspec.field(default_factory=Template)


class WorkloadStatus(Part):
    update_revision: str = ""


class Workload(Part):
    """A Deployment, StatefulSet, DaemonSet or ReplicaSet."""

    metadata: Meta
    spec: WorkloadSpec = msgspec.field(default_factory=WorkloadSpec)
    status: WorkloadStatus = msgspec.field(default_factory=WorkloadStatus)


class Reference(Part):
    kind: str = ""
    name: str = ""
    namespace: str = ""


class Endpoint(Part):
    target_ref: Reference | None = None


class Slice(Part):
    """An EndpointSlice: which pods stand behind a service."""

    metadata: Meta
    endpoints: list[Endpoint] | None = None


class Service(Part):
    metadata: Meta


class EventSeries(Part):
    last_observed_time: str | None = None


class KubeEvent(Part):
    metadata: Meta
    involved_object: Reference = msgspec.field(default_factory=Reference)
    reason: str | None = None
    message: str | None = None
    type: str | None = None
    event_time: str | None = None
    last_timestamp: str | None = None
    series: EventSeries | None = None

    @property
    def when(self) -> str | None:
        """The last time it happened, as far as the API says."""
        again = self.series.last_observed_time if self.series else None
        return again or self.last_timestamp or self.event_time or self.metadata.creation_timestamp


class _ListMeta(Part):
    continue_: str | None = msgspec.field(default=None, name="continue")


class _Chunk(Part, Generic[Item]):
    items: list[Item] | None = None
    metadata: _ListMeta = msgspec.field(default_factory=_ListMeta)


class KubeApi:
    """Reads from one API server. Without `kubeconfig`: the service account of the pod, else the user's kubeconfig."""

    def __init__(self, kubeconfig: Path | None = None, context: str | None = None) -> None:
        self._kubeconfig, self._context = kubeconfig, context
        self._client: Any = None

    def items(self, path: str, item: type[Item], **query: str) -> list[Item]:
        """All items of a collection. Raises KubeError."""
        decoder: msgspec.json.Decoder[_Chunk[Item]] = msgspec.json.Decoder(_Chunk[item])  # type: ignore[valid-type]
        try:
            return self._chunks(path, decoder, query)
        except KubeError as e:
            if e.status != 410:
                raise
        return self._chunks(path, decoder, query)

    def get(self, path: str, query: dict[str, str] | None = None) -> bytes:
        """The body of one GET. Raises KubeError for anything but a 200."""
        from urllib3.exceptions import HTTPError
        client = self._open()
        try:
            request = client.param_serialize(method="GET", resource_path=path, query_params=list((query or {}).items()),
                                             header_params={"Accept": "application/json"}, auth_settings=["BearerToken"])
            answer = client.call_api(*request, _request_timeout=TIMEOUT_S)
            body = answer.read()
        except (HTTPError, OSError) as e:
            raise KubeError(path, f"cannot be reached ({_innermost(e)}).") from None
        except client_exceptions() as e:
            raise KubeError(path, f"HTTP {e.status} {e.reason}.", int(e.status or 0)) from None
        if answer.status != 200:
            raise KubeError(path, f"HTTP {answer.status}: {_message(body) or answer.reason}{_remedy(answer.status)}",
                            answer.status)
        return bytes(body)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _chunks(self, path: str, decoder: msgspec.json.Decoder[_Chunk[Item]], query: dict[str, str]) -> list[Item]:
        found: list[Item] = []
        token = ""
        for _ in range(MAX_CHUNKS):
            asked = {**query, "limit": str(LIMIT), **({"continue": token} if token else {})}
            try:
                chunk = decoder.decode(self.get(path, asked))
            except msgspec.DecodeError as e:
                raise KubeError(path, f"the answer is not a list of the Kubernetes API ({e}).") from None
            found += chunk.items or []
            token = chunk.metadata.continue_ or ""
            if not token:
                return found
        raise KubeError(path, f"more than {MAX_CHUNKS * LIMIT} objects, or a list that never ends.")

    def _open(self) -> Any:
        if self._client is None:
            from kubernetes import client, config
            from kubernetes.config import ConfigException
            settings = client.Configuration()
            try:
                if not self._kubeconfig and os.environ.get("KUBERNETES_SERVICE_HOST"):
                    config.load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]
                else:
                    file = str(self._kubeconfig) if self._kubeconfig else None
                    config.load_kube_config(file, self._context, settings)  # type: ignore[no-untyped-call]
            except (ConfigException, OSError) as e:
                raise KubeError("configuration", f"{str(e).rstrip('.')}. Set kubeconfig, or run it in a cluster.") from None
            settings.retries = 0  # the supervisor backs off; retries on top of it would only hide how things are
            self._client = client.ApiClient(settings)
        return self._client


def client_exceptions() -> type[Any]:
    """What the client raises for an answer it does not like."""
    from kubernetes.client import ApiException
    return ApiException


def _innermost(error: BaseException) -> str:
    reason: Any = getattr(error, "reason", None) or error
    return str(reason).split(": ")[-1].strip("()>.'") or type(error).__name__


def _message(body: bytes) -> str:
    """What the API server says in its Status object."""
    try:
        found = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return ""
    return str(found.get("message", ""))[:200] if isinstance(found, dict) else ""


def _remedy(status: int) -> str:
    if status == 401:
        return ". Check the credentials."
    return ". Grant the right; `aiops doctor` lists what is missing." if status == 403 else "."
