"""JSON over the Kubernetes client's connection and credentials, with its errors translated once.

A read, a dry run and a refused connection change nothing: Retry. A write that was sent and not answered, or answered by a
gateway in between, may have been carried out: Ambiguous. What the API server understood and turned down: Refused. An answer
that cannot be read says nothing: it is never taken for an object that is not there.
https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from aiops.changes import MANAGER
from aiops.cluster.quiet import SERVER, Quiet, endpoint_of
from aiops.interfaces import Ambiguous, Refused, Retry

MOST_WAIT_S = 300.0
"""No server may ask for more."""
TIMEOUT_S = (5.0, 30.0)
JSON = dict[str, Any]
_MERGE = "application/merge-patch+json"


class Api:
    """A connection to one API server. `client` is a `kubernetes.client.ApiClient`.

    fence: asked right before each write how many seconds that may take; raises Retry where we may not write at all. quiet:
    what fails is left alone for a while, and answered with Retry meanwhile. Methods raise Retry, Refused or Ambiguous only.
    """

    def __init__(self, client: Any, timeout_s: tuple[float, float] = TIMEOUT_S, fence: Callable[[], float] | None = None,
                 quiet: Quiet | None = None) -> None:
        self._client, self._timeout_s, self._fence, self._quiet = client, timeout_s, fence, quiet

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
        endpoint = endpoint_of(method, path)
        if self._quiet:
            self._quiet.ask(endpoint)
        try:
            found = _understood(f"{method} {path}", *self._sent(method, path, query, body, content, writes), writes)
        except (Unavailable, Ambiguous) as e:
            if self._quiet:
                after_s = e.after_s if isinstance(e, Unavailable) else 0.0
                self._quiet.failed(SERVER if isinstance(e, Unreachable) else endpoint, e.reason, after_s)
            raise
        except (Refused, Conflict):
            self._works(endpoint)
            raise
        self._works(endpoint)
        return found

    def _works(self, endpoint: str) -> None:
        if self._quiet:
            self._quiet.works(endpoint)

    def _sent(self, method: str, path: str, query: Mapping[str, str], body: JSON | None, content: str,
              writes: bool) -> tuple[Any, bytes]:
        """The answer and its body. Raises Unavailable, Ambiguous, and what the fence raises."""
        headers = {"Accept": "application/json"} | ({"Content-Type": content} if body is not None else {})
        fence, timeout_s = self._fence if writes else None, self._timeout_s
        if fence:
            query = {**query, "timeout": f"{int(_within(self._timeout_s, fence())[1])}s"}
        try:
            request = self._client.param_serialize(method, path, query_params=list(query.items()), header_params=headers,
                                                   body=body, auth_settings=["BearerToken"])
        except Exception as e:  # noqa: BLE001 - a token file that is being rotated, a plug-in that fails
            raise Unavailable(f"{method} {path}: no credentials: {_said(e)}") from None
        if fence:
            timeout_s = _within(self._timeout_s, fence())
        try:
            answer = self._client.call_api(*request, _request_timeout=timeout_s)
            return answer, answer.read()
        except Exception as e:  # noqa: BLE001 - the client lets errors of three libraries through
            raise _unanswered(f"{method} {path}", e, writes) from None


class Unavailable(Retry):
    """This endpoint does not do what it is there for, whatever it is asked. Nothing was changed."""


class Unreachable(Unavailable):
    """Nobody is there at all."""


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


def _unanswered(what: str, error: Exception, writes: bool) -> Exception:
    """Only of a connection that was never made it is sure that nothing was sent."""
    from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

    if isinstance(_root(error), ConnectTimeoutError | NewConnectionError):
        return Unreachable(f"{what} failed: {_said(error)}")
    if writes:
        return Ambiguous(f"no answer to {what}: {type(error).__name__}")
    return Unavailable(f"{what} failed: {_said(error)}")


def _understood(what: str, answer: Any, text: bytes, writes: bool) -> JSON:
    """The object that was answered. Raises what the status means, and where there is no object in it."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        data = None
    if not 200 <= answer.status < 300:
        own = data if isinstance(data, dict) and data.get("kind") == "Status" else None
        said = str((own or {}).get("message") or answer.reason or "")
        raise _verdict(answer.status, f"{what}: {answer.status}: {said[:300]}", answer.headers, own, writes)
    if isinstance(data, dict):
        return data
    said = f"{what}: {answer.status}, and no JSON object with it"
    raise Ambiguous(said) if writes else Unavailable(said)


def _verdict(status: int, text: str, headers: Mapping[str, str], own: JSON | None, writes: bool) -> Exception:
    """own: what the API server itself says of it, None where somebody else answered: a gateway, a proxy, an error page."""
    if status == 429:
        return (Retry if _budget(own) else Unavailable)(text, _seconds(headers.get("Retry-After"), 10.0))
    if status == 404:
        return Missing(text) if own else Refused(f"{text}. That is not of the API server, or it does not know this kind.")
    if status == 409:
        return Conflict(text, 1.0)
    if status == 410:  # a list that took so long that its next page is not to be had any more
        return Retry(text, 1.0)
    if status >= 500 or status == 408:
        sure = not writes or (status == 503 and own)
        return Unavailable(text, _seconds(headers.get("Retry-After"), 5.0)) if sure else Ambiguous(text)
    if status in (401, 403):
        return Refused(f"{text} Grant the right, see `aiops doctor`.")
    return Refused(text)


def _budget(own: JSON | None) -> bool:
    """Whether it is about this one pod: a disruption budget keeps it."""
    causes = ((own or {}).get("details") or {}).get("causes") or []
    return any(cause.get("reason") == "DisruptionBudget" for cause in causes)


def _seconds(header: str | None, default: float) -> float:
    return min(float(header), MOST_WAIT_S) if header and header.isdecimal() else default


def _root(error: BaseException) -> BaseException:
    """urllib3 wraps the real error once it gives up retrying."""
    return getattr(error, "reason", None) or error


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}"
