"""Routes on which others push telemetry: reads the body within its bounds, off the event loop, and hands it on."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

MAX_BODY = 8 * 1024 * 1024
MAX_AT_ONCE = 8
"""Requests whose body is held in memory."""
Receiver = Callable[[Mapping[str, str], bytes], tuple[int, dict[str, str], bytes]]
"""Headers (names in lower case) and body -> status, headers and body of the answer. Thread-safe; does not raise."""


def add(app: FastAPI, path: str, receiver: Receiver) -> None:
    """POST on `path` goes to `receiver`. The token and the origin were checked by Guard."""
    app.state.pushing = 0

    async def push(request: Request) -> Response:
        if app.state.pushing >= MAX_AT_ONCE:
            return JSONResponse({"error": "busy: too many requests at once"}, 429, {"Retry-After": "1"})
        app.state.pushing += 1
        try:
            body = await _body(request)
            if body is None:
                return JSONResponse({"error": f"the body is larger than {MAX_BODY >> 20} MiB. Send smaller batches."}, 413)
            status, headers, answer = await run_in_threadpool(receiver, dict(request.headers), body)
            return Response(answer, status, headers)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody hears it
        finally:
            app.state.pushing -= 1

    app.add_route(path, push, methods=["POST"], include_in_schema=False)


async def _body(request: Request) -> bytes | None:
    """The body, None where it is too large; a client that says so beforehand is not read at all."""
    announced = request.headers.get("content-length", "0")
    if not announced.isdigit() or int(announced) > MAX_BODY:
        return None
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            return None
    return bytes(body)
