"""HTTP to one Kubernetes API server: the official client for address and credentials, aiohttp for lists and streams.

The official client decodes into models, hides what a stream does, and does not back off; see docs/decisions/018-reflector.md.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

CONNECT_S, ANSWER_S = 5.0, 30.0
MAX_BODY = 256 * 1024 * 1024
JSON, MERGE = "application/json", "application/merge-patch+json"


class KubeError(Exception):
    """The API server could not be asked. `status`: of HTTP, 0 where no answer came; `after_s`: it asks to wait so long."""

    def __init__(self, path: str, what: str, status: int = 0, after_s: float = 0.0) -> None:
        super().__init__(f"Kubernetes {path}: {what}")
        self.status, self.after_s = status, after_s


class Access:
    """Address, certificates and token. Without `kubeconfig`: the service account of the pod, else the user's kubeconfig.

    The official client re-reads a service account's token every minute and runs a plugin again when its token has expired;
    `renew` reads everything anew, for a token that the server refuses. Not thread-safe.
    """

    def __init__(self, kubeconfig: Path | None = None, context: str | None = None) -> None:
        self._kubeconfig, self._context = kubeconfig, context
        self._settings: Any = None
        self.ssl: ssl.SSLContext | bool = True
        _import()

    @property
    def url(self) -> str:
        return str(self._open().host).rstrip("/")

    @property
    def more(self) -> dict[str, Any]:
        """Further arguments of an aiohttp request."""
        s = self._open()
        found = {"proxy": s.proxy or None, "server_hostname": getattr(s, "tls_server_name", None) or None}
        return {k: v for k, v in found.items() if v} | {"ssl": self.ssl}

    def headers(self) -> dict[str, str]:
        """Raises KubeError where there is no configuration. Reads files, and may run a plugin."""
        token = self._open().get_api_key_with_prefix("BearerToken", "authorization")
        return {"Authorization": token.strip()} if token else {}

    def renew(self) -> bool:
        """Read all of it again; True when that gave another token."""
        before, self._settings = (self.headers() if self._settings else {}), None
        return self.headers() != before

    def _open(self) -> Any:
        if self._settings is None:
            self._settings = self._load()
            self.ssl = _tls(self._settings)
        return self._settings

    def _load(self) -> Any:
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
        return settings


def _import() -> None:
    """Before there are threads: two that import these at once find them half made, because they import in a circle."""
    import kubernetes.client
    import kubernetes.config  # noqa: F401


def _tls(settings: Any) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.ssl_ca_cert or None)
        if settings.cert_file:
            context.load_cert_chain(settings.cert_file, settings.key_file)
    except (OSError, ssl.SSLError) as e:
        raise KubeError("configuration", f"certificates cannot be read ({_plain(e)}). Check the kubeconfig.") from None
    if not settings.verify_ssl:  # `insecure-skip-tls-verify: true`, said by the owner of the kubeconfig
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


class KubeApi:
    """Requests to one API server; belongs to one event loop. A token that is refused is read anew, and tried once more."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._session: aiohttp.ClientSession | None = None
        self._reading = asyncio.Lock()

    async def get(self, path: str, query: Mapping[str, str], accept: str = JSON) -> bytes:
        """The body of one answer. Raises KubeError."""
        async with self.stream(path, query, accept, ANSWER_S) as answer:
            body = bytearray()
            async for chunk in answer.content.iter_any():
                body += chunk
                if len(body) > MAX_BODY:
                    raise KubeError(path, f"the answer is longer than {MAX_BODY >> 20} MiB.")
            return bytes(body)

    async def patch(self, path: str, body: object, query: Mapping[str, str]) -> None:
        """A merge patch. Raises KubeError; one without a status may have been carried out."""
        timeout = aiohttp.ClientTimeout(total=ANSWER_S, sock_connect=CONNECT_S)
        try:
            answer = await self._ask(path, query, JSON, timeout, "PATCH", msgspec.json.encode(body), MERGE)
            answer.release()
        except TimeoutError:
            raise KubeError(path, "cannot be reached (no answer in time).") from None
        except (aiohttp.ClientError, OSError, ValueError) as e:
            raise KubeError(path, f"cannot be reached ({_plain(e)}).") from None

    @asynccontextmanager
    async def stream(self, path: str, query: Mapping[str, str], accept: str, total_s: float | None,
                     idle_s: float | None = None) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer with status 200, to be read within `total_s` and with no silence longer than `idle_s`. Raises KubeError,
        also for whatever goes wrong while the caller reads."""
        try:
            async with await self._ask(path, query, accept, aiohttp.ClientTimeout(
                    total=total_s, sock_connect=CONNECT_S, sock_read=idle_s)) as answer:
                yield answer
        except TimeoutError:
            raise KubeError(path, "cannot be reached (no answer in time).") from None
        except (aiohttp.ClientError, OSError, ValueError) as e:
            raise KubeError(path, f"cannot be reached ({_plain(e)}).") from None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _ask(self, path: str, query: Mapping[str, str], accept: str, timeout: aiohttp.ClientTimeout, method: str = "GET",
                   body: bytes | None = None, content: str = "") -> aiohttp.ClientResponse:
        more = {"Accept": accept, **({"Content-Type": content} if content else {})}
        for last in (False, True):
            headers = await self._headers()
            answer = await self._open().request(method, self._access.url + path, params=dict(query), timeout=timeout, data=body,
                                                headers={**more, **headers}, allow_redirects=False, **self._access.more)
            if answer.status == 200:
                return answer
            if answer.status != 401 or last or not await self._renew(headers):
                break
            answer.close()
        async with answer:
            raise await _refused(path, answer)

    async def _headers(self) -> dict[str, str]:
        async with self._reading:  # in a thread: it reads files, and may wait for a plugin
            return await asyncio.to_thread(self._access.headers)

    async def _renew(self, used: Mapping[str, str]) -> bool:
        """True when there is another token than the one that was used: many streams may be refused at the same time."""
        async with self._reading:
            if await asyncio.to_thread(self._access.headers) == used:
                return await asyncio.to_thread(self._access.renew)
            return True

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30)
            self._session = aiohttp.ClientSession(connector=connector, middlewares=(_once,))
        return self._session


async def _once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """aiohttp asks again at once where a connection breaks; how often a server that breaks them is asked is for the caller."""
    try:
        return await handler(request)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as e:
        if isinstance(e, aiohttp.ClientConnectorError):
            raise
        raise aiohttp.ClientConnectionError(str(e)) from e


async def _refused(path: str, answer: aiohttp.ClientResponse) -> KubeError:
    said = _message(await answer.content.read(64 * 1024)) or answer.reason or ""
    after = answer.headers.get("Retry-After", "")
    return KubeError(path, f"HTTP {answer.status}: {said}{_remedy(answer.status)}", answer.status,
                     min(float(after), 300.0) if after.isdigit() else 0.0)


def _plain(error: BaseException) -> str:
    return str(error).split(": ")[-1].strip("()>.'") or type(error).__name__


def _message(body: bytes) -> str:
    """What the API server says in its Status object."""
    try:
        found = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return ""
    return str(found.get("message", ""))[:200].rstrip(".") if isinstance(found, dict) else ""


def _remedy(status: int) -> str:
    if status == 401:
        return ". Check the credentials."
    return ". Grant the right; `aiops doctor` lists what is missing." if status == 403 else "."
