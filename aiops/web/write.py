"""`POST /api/v1/write`: the negotiation of remote-write, and a body that is read within limits. A plain ASGI application.

Bodies are worked on in a thread of their own, one after the other, so that the page answers meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from aiops.web.body import Bodies, RefusedError

PATH = "/api/v1/write"
MOST_HELD = 256 << 20
"""Bytes of bodies that are being read or wait; who comes beyond that is asked to come again."""
REMEDY = "Lower max_samples_per_send."
PROTOS = {"": 1, "prometheus.WriteRequest": 1, "io.prometheus.write.v2.Request": 2}
WRITTEN = "X-Prometheus-Remote-Write-{}-Written"


class Answer(Protocol):
    """What is to be told: see aiops.sources.remote_write.Answer."""

    @property
    def status(self) -> int: ...
    @property
    def text(self) -> str: ...
    @property
    def written(self) -> int | None: ...
    @property
    def retry_s(self) -> int | None: ...


class Receiver(Protocol):
    """Who takes what was pushed."""

    @property
    def max_body(self) -> int: ...
    def write(self, body: bytes, version: int) -> Answer: ...


class WriteEndpoint:
    """The application behind PATH. `receiver` None: nothing is configured to be received.

    `refused` counts by reason what was not even looked at.
    """

    def __init__(self, receiver: Receiver | None, refused: Counter[str]) -> None:
        self._receiver, self._refused = receiver, refused
        self._worker = ThreadPoolExecutor(1, "remote-write")
        self._bodies = Bodies(MOST_HELD)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = await self._answer(scope, receive)
        except RefusedError as e:
            self._refused[e.reason] += 1
            response = e.response()
        await response(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> Response:
        if self._receiver is None:
            raise RefusedError(404, "not_configured",
                               "remote-write is not received here. Add 'remote_write: {}' to the sources of aiops.")
        if scope["method"] != "POST":
            raise RefusedError(405, "not_a_post", "remote-write is a POST")
        headers = Headers(scope=scope)
        version = negotiated(headers)
        async with self._bodies.read(headers, receive, self._receiver.max_body, REMEDY) as body:
            answer = await asyncio.get_running_loop().run_in_executor(self._worker, self._receiver.write, body, version)
        response = _response(answer.status, answer.text, answer.retry_s)
        if version == 2 and answer.written is not None:
            for what, n in (("Samples", answer.written), ("Histograms", 0), ("Exemplars", 0)):
                response.headers[WRITTEN.format(what)] = str(n)
        return response


def negotiated(headers: Headers) -> int:
    """The version of the message. Raises RefusedError for what is not understood; absent headers mean 1.0, as it was."""
    encoding = headers.get("content-encoding", "snappy").strip().lower()
    if encoding != "snappy":
        raise RefusedError(415, "content_encoding", f"Content-Encoding {encoding[:100]!r} is not understood. Send snappy.")
    media, *parameters = (part.strip() for part in headers.get("content-type", "application/x-protobuf").split(";"))
    if media.lower() != "application/x-protobuf":
        raise RefusedError(415, "content_type", f"Content-Type {media[:100]!r} is not understood. Send application/x-protobuf.")
    proto = next((value.strip().strip('"') for name, _, value in (p.partition("=") for p in parameters)
                  if name.strip().lower() == "proto"), "")
    if proto not in PROTOS:
        raise RefusedError(415, "message_type", f"the message {proto[:100]!r} is not understood. "
                           f"Send one of {', '.join(filter(None, PROTOS))}.")
    return PROTOS[proto]


def _response(status: int, text: str, retry_s: int | None) -> Response:
    headers = {"Retry-After": str(retry_s)} if retry_s is not None else None
    return Response(None, 204, headers) if status == 204 else JSONResponse({"error": text}, status, headers)
