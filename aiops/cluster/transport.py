"""JSON over the Kubernetes client's connection and credentials, with its errors translated once.

A read, a dry run and a refused connection change nothing: Retry. A write that was sent and not answered, or answered by a
gateway in between, may have been carried out: Ambiguous. What the API server understood and turned down: Refused.
https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from aiops.changes import MANAGER
from aiops.interfaces import Ambiguous, Refused, Retry

TIMEOUT_S = (5.0, 30.0)
JSON = dict[str, Any]
_MERGE = "application/merge-patch+json"


class Api:
    """A connection to one API server. `client` is a `kubernetes.client.ApiClient`.

    fence: asked right before each write how many seconds that may take; raises Retry where we may not write at all.
    """

    def __init__(self, client: Any, timeout_s: tuple[float, float] = TIMEOUT_S, fence: Callable[[], float] | None = None) -> None:
        self._client, self._timeout_s, self._fence = client, timeout_s, fence

    def get(self, path: str, query: Mapping[str, str] | None = None) -> JSON:
        return self._call("GET", path, query or {}, None, "application/json", writes=False)

    def patch(self, path: str, body: JSON, trial: bool) -> JSON:
        """A merge patch; on trial only (`dryRun=All`), or in earnest."""
        return self._call("PATCH", path, {"fieldManager": MANAGER, **_trial(trial)}, body, _MERGE, writes=not trial)

    def post(self, path: str, body: JSON, trial: bool = False, writes: bool = True) -> JSON:
        """writes: False for questions that change nothing."""
        return self._call("POST", path, _trial(trial), body, "application/json", writes and not trial)

    def put(self, path: str, body: JSON) -> JSON:
        """The whole object; with a resource version in it only where that is still the latest, else Conflict."""
        return self._call("PUT", path, {"fieldManager": MANAGER}, body, "application/json", writes=True)

    def delete(self, path: str, body: JSON, trial: bool) -> JSON:
        """With a body the API server reads its options there, and not from the query: a dry run must be told in it."""
        told = {"dryRun": ["All"]} if trial else {}
        return self._call("DELETE", path, {}, body | told, "application/json", writes=not trial)

    def _call(self, method: str, path: str, query: Mapping[str, str], body: JSON | None, content: str,
              writes: bool) -> JSON:
        from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError

        headers = {"Accept": "application/json"} | ({"Content-Type": content} if body is not None else {})
        fence, timeout_s = self._fence if writes else None, self._timeout_s
        if fence:
            query = {**query, "timeout": f"{int(_within(self._timeout_s, fence())[1])}s"}
        request = self._client.param_serialize(method, path, query_params=list(query.items()), header_params=headers,
                                               body=body, auth_settings=["BearerToken"])
        try:
            if fence:
                timeout_s = _within(self._timeout_s, fence())
            answer = self._client.call_api(*request, _request_timeout=timeout_s)
            text = answer.read()
        except Retry:
            raise
        except Exception as e:  # noqa: BLE001 - the client lets errors of three libraries through
            if isinstance(e, HTTPError) and writes and not isinstance(_root(e), ConnectTimeoutError | NewConnectionError):
                raise Ambiguous(f"no answer to {method} {path}: {type(e).__name__}") from None
            raise Retry(f"{method} {path} failed: {type(e).__name__}: {str(e)[:200]}") from None
        return self._answer(method, path, answer, text, writes)

    def _answer(self, method: str, path: str, answer: Any, text: bytes, writes: bool) -> JSON:
        try:
            data = json.loads(text or b"{}")
        except ValueError:
            data = {}
        if 200 <= answer.status < 300:
            return data if isinstance(data, dict) else {}
        said = str(data.get("message") or answer.reason or "") if isinstance(data, dict) else ""
        raise _verdict(answer.status, f"{method} {path}: {answer.status}: {said[:300]}", answer.headers, writes)


class Missing(Refused):
    """There is no such object."""


class Conflict(Retry):
    """The object is not the one, or not in the version, that was meant; or there is one of that name."""


def _within(timeout_s: tuple[float, float], left_s: float) -> tuple[float, float]:
    """To connect and to read, both together within the time that is left. The server is told of the second one too."""
    connect_s = min(timeout_s[0], left_s / 4)
    return connect_s, min(timeout_s[1], left_s - connect_s)


def _trial(trial: bool) -> dict[str, str]:
    return {"dryRun": "All"} if trial else {}


def _verdict(status: int, text: str, headers: Mapping[str, str], writes: bool) -> Exception:
    if status == 429:
        return Retry(text, _seconds(headers.get("Retry-After"), 10.0))
    if status == 404:
        return Missing(text)
    if status == 409:
        return Conflict(text, 1.0)
    if status == 503 or (status >= 500 and not writes):
        return Retry(text, _seconds(headers.get("Retry-After"), 5.0))
    if status >= 500:
        return Ambiguous(text)
    if status in (401, 403):
        return Refused(f"{text} Grant the right, see `aiops doctor`.")
    return Refused(text)


def _seconds(header: str | None, default: float) -> float:
    return float(header) if header and header.isdigit() else default


def _root(error: BaseException) -> BaseException:
    """urllib3 wraps the real error once it gives up retrying."""
    return getattr(error, "reason", None) or error
