"""The body of a pushed request, read within bounds of size, memory and time; and what is answered where it is not taken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import Receive

BODY_S = 30.0


class RefusedError(Exception):
    """A request that is answered before its content is looked at. `reason` is for the counters, the text for the sender."""

    def __init__(self, status: int, reason: str, text: str, retry_s: int | None = None) -> None:
        super().__init__(text)
        self.status, self.reason, self.retry_s = status, reason, retry_s

    def response(self) -> Response:
        """The connection stays open, and the server reads and forgets the rest of the body: closed with unread bytes, it would
        be reset, and the sender would see that instead of the answer and send the same again. Too slow a one is closed."""
        headers = {"Connection": "close"} if self.status == 408 else {}
        if self.retry_s is not None:
            headers["Retry-After"] = str(self.retry_s)
        return JSONResponse({"error": str(self)}, self.status, headers)


class Bodies:
    """Reads bodies on the event loop. `most` bytes may be held at once, of bodies that are being read or worked on."""

    def __init__(self, most: int) -> None:
        self._most, self._held = most, 0

    @asynccontextmanager
    async def read(self, headers: Headers, receive: Receive, most: int, remedy: str) -> AsyncIterator[bytes]:
        """The whole body, which is held until the end of the block.

        Raises RefusedError: too_large beyond `most` bytes, busy beyond what may be held in all, too_slow after BODY_S,
        cut_off where the connection ends first. remedy: what the sender of too much should do.
        """
        held = [0]
        try:
            self._announced(headers.get("content-length", ""), most, remedy)
            async with asyncio.timeout(BODY_S):
                parts = [part async for part in self._parts(receive, held, most, remedy)]
            yield parts[0] if len(parts) == 1 else b"".join(parts)
        except TimeoutError:
            raise RefusedError(408, "too_slow", f"the body did not come within {BODY_S:g} s") from None
        finally:
            self._held -= held[0]

    async def _parts(self, receive: Receive, held: list[int], most: int, remedy: str) -> AsyncIterator[bytes]:
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise RefusedError(400, "cut_off", "the connection ended within the body")
            part: bytes = message.get("body", b"")
            held[0] += len(part)
            self._held += len(part)
            if held[0] > most:
                raise RefusedError(413, "too_large", f"the body has more than {most} bytes. {remedy}")
            if self._held > self._most:
                raise RefusedError(429, "busy", "too many bodies are being read; come again", 1)
            yield part
            more = message.get("more_body", False)

    def _announced(self, size: str, most: int, remedy: str) -> None:
        """Who says beforehand that it is too much is not read at all."""
        if size.isdecimal() and (len(size) > 18 or int(size) > most):
            raise RefusedError(413, "too_large", f"the body has {size[:30]} bytes; at most {most} are taken. {remedy}")
