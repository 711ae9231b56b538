"""`POST /api/v1/write`: the negotiation of remote-write, and a body that is read within limits. A plain ASGI application.

Bodies are worked on in a thread of their own, one after the other, so that the page answers meanwhile.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

PATH = "/api/v1/write"
BODY_S = 30.0
MOST_HELD = 256 << 20
"""Bytes of bodies that are being read or wait; who comes beyond that is asked to come again."""
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


class RefusedError(Exception):
    """A request that is answered before its body is looked at."""

    def __init__(self, status: int, text: str, retry_s: int | None = None) -> None:
        super().__init__(text)
        self.status, self.retry_s = status, retry_s


class WriteEndpoint:
    """The application behind PATH. `receiver` None: nothing is configured to be received."""

    def __init__(self, receiver: Receiver | None) -> None:
        self._receiver = receiver
        self._worker = ThreadPoolExecutor(1, "remote-write")
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = await self._answer(scope, receive)
        except RefusedError as e:
            response = _response(e.status, str(e), e.retry_s)
            response.headers["Connection"] = "close"
        await response(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> Response:
        if self._receiver is None:
            raise RefusedError(404, "remote-write is not received here. Add 'remote_write: {}' to the sources of aiops.")
        if scope["method"] != "POST":
            raise RefusedError(405, "remote-write is a POST")
        headers = Headers(scope=scope)
        version = negotiated(headers)
        held = [0]
        try:
            body = await self._body(headers, receive, self._receiver.max_body, held)
            answer = await asyncio.get_running_loop().run_in_executor(self._worker, self._receiver.write, body, version)
        finally:
            self._held -= held[0]
        response = _response(answer.status, answer.text, answer.retry_s)
        if version == 2 and answer.written is not None:
            for what, n in (("Samples", answer.written), ("Histograms", 0), ("Exemplars", 0)):
                response.headers[WRITTEN.format(what)] = str(n)
        return response

    async def _body(self, headers: Headers, receive: Receive, most: int, held: list[int]) -> bytes:
        """The whole body. Raises RefusedError beyond `most` bytes, beyond MOST_HELD in all, and after BODY_S."""
        size = headers.get("content-length", "")
        if size.isdigit() and int(size) > most:
            raise RefusedError(413, f"the body has {size} bytes; at most {most} are taken. Lower max_samples_per_send.")
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(BODY_S):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise RefusedError(400, "the connection ended within the body")
                    parts.append(message.get("body", b""))
                    self._hold(len(parts[-1]), most, held)
                    more = message.get("more_body", False)
        except TimeoutError:
            raise RefusedError(408, f"the body did not come within {BODY_S:g} s") from None
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _hold(self, size: int, most: int, held: list[int]) -> None:
        held[0] += size
        self._held += size
        if held[0] > most:
            raise RefusedError(413, f"the body has more than {most} bytes. Lower max_samples_per_send.")
        if self._held > MOST_HELD:
            raise RefusedError(429, "too many bodies are being read; come again", 1)


def negotiated(headers: Headers) -> int:
    """The version of the message. Raises RefusedError for what is not understood; absent headers mean 1.0, as it was."""
    encoding = headers.get("content-encoding", "snappy").strip().lower()
    if encoding != "snappy":
        raise RefusedError(415, f"Content-Encoding {encoding[:100]!r} is not understood. Send snappy.")
    media, *parameters = (part.strip() for part in headers.get("content-type", "application/x-protobuf").split(";"))
    if media.lower() != "application/x-protobuf":
        raise RefusedError(415, f"Content-Type {media[:100]!r} is not understood. Send application/x-protobuf.")
    proto = next((value.strip().strip('"') for name, _, value in (p.partition("=") for p in parameters)
                  if name.strip().lower() == "proto"), "")
    if proto not in PROTOS:
        raise RefusedError(415, f"the message {proto[:100]!r} is not understood. Send one of {', '.join(filter(None, PROTOS))}.")
    return PROTOS[proto]


def _response(status: int, text: str, retry_s: int | None) -> Response:
    headers = {"Retry-After": str(retry_s)} if retry_s is not None else None
    return Response(None, 204, headers) if status == 204 else JSONResponse({"error": text}, status, headers)
