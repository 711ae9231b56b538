"""Who may ask what: checked for every request, also for routes that others add to the app.

Host: on loopback only loopback names are served, so that a web site cannot reach the daemon by rebinding its own name to
127.0.0.1. Writes: never from another origin (Fetch metadata, https://www.w3.org/TR/fetch-metadata/, and Origin), and with the
token where one is configured. Every answer carries a strict Content Security Policy.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_REASONS = {401: "no_token", 403: "other_origin", 421: "host_name"}
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
                               "object-src 'none'",
    "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


class Guard:
    """ASGI middleware. `state.hosts` is the set of names served, or None for any; `state.view` has `token` and `tokens`.

    Whose token it was is in the request's `state.whose`. What it refuses is counted in `state.refused`.
    """

    def __init__(self, app: ASGIApp, state: Any) -> None:
        self._app, self._state = app, state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return

        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        view, headers = self._state.view, Headers(scope=scope)
        token, named = view.token, view.tokens
        refusal = refuse(scope["method"], headers, self._state.hosts, token, named)
        scope.setdefault("state", {})["whose"] = whose(headers, token, named)
        if refusal:
            self._state.refused[_REASONS[refusal.status_code]] += 1
        await (refusal or self._app)(scope, receive, secured)


def refuse(method: str, headers: Headers, hosts: frozenset[str] | None, token: str | None,
           named: Mapping[str, str] = MappingProxyType({})) -> Response | None:
    """The answer to a request that must not go on, or None."""
    host = headers.get("host", "")
    if hosts is not None and _name(host) not in hosts:
        return _no(421, f"This daemon listens on loopback and is not served under {host[:100]!r}. Ask for localhost.")
    if method in SAFE:
        return None
    if not _same_origin(headers, host):
        return _no(403, "Refused: the request comes from another origin. Use this daemon's own page, or the command line.")
    return unauthorised(headers, token, named)


def unauthorised(headers: Headers, token: str | None, named: Mapping[str, str] = MappingProxyType({})) -> Response | None:
    """The answer to who shows no token where one is configured, or None. named: as in `whose`."""
    if (token is not None or named) and whose(headers, token, named) is None:
        place = "none of those in this daemon's tokenFiles" if named else "not the one in this daemon's tokenFile"
        text = (f"The token is {place}." if "authorization" in headers
                else "A token is needed: send 'Authorization: Bearer TOKEN'.")
        return _no(401, text, {"WWW-Authenticate": "Bearer"})
    return None


def whose(headers: Headers, token: str | None, named: Mapping[str, str]) -> str | None:
    """The name of the token that is shown, empty for `token`, which has none; None where it is neither, or there are none."""
    found = "" if token is not None and _bearer(headers, token) else None
    for name, one in named.items():
        found = name if _bearer(headers, one) else found
    return found


def _name(host: str) -> str:
    """Without the port, in lower case."""
    name, colon, port = host.lower().rpartition(":")
    return name if colon and port.isdigit() else host.lower()


def _same_origin(headers: Headers, host: str) -> bool:
    """Programs send neither header; browsers send at least one with every write."""
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc.lower() == host.lower()


def _bearer(headers: Headers, token: str) -> bool:
    scheme, _, given = headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())


def _no(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": text}, status, headers)
