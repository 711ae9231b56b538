"""Routes on which others push telemetry: reads the body within its bounds, and hands it on off the event loop.

Bodies are worked on in a thread of their own, one after the other, so that the page answers meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from aiops.web.body import Bodies, RefusedError

MAX_BODY = 8 * 1024 * 1024
MOST_HELD = 64 << 20
"""Bytes of bodies that are being read or wait; who comes beyond that is asked to come again."""
REMEDY = "Send smaller batches."
Receiver = Callable[[Mapping[str, str], bytes], tuple[int, dict[str, str], bytes]]
"""Headers (names in lower case) and body -> status, headers and body of the answer. Thread-safe; does not raise."""


class Pushed:
    """What answers POST on all of these paths. `refused` counts by reason what was not even looked at.

    The token and the origin were checked by Guard.
    """

    def __init__(self, refused: Counter[str]) -> None:
        self._bodies, self._worker, self._refused = Bodies(MOST_HELD), ThreadPoolExecutor(1, "push"), refused

    def endpoint(self, receiver: Receiver) -> PushEndpoint:
        """An application in front of a receiver."""
        return PushEndpoint(receiver, self)

    async def answer(self, receiver: Receiver, scope: Scope, receive: Receive) -> Response:
        """What the receiver says, or why it was not asked."""
        headers = Headers(scope=scope)
        try:
            if scope["method"] != "POST":
                raise RefusedError(405, "not_a_post", "telemetry is sent by POST")
            async with self._bodies.read(headers, receive, MAX_BODY, REMEDY) as body:
                call = asyncio.get_running_loop().run_in_executor(self._worker, receiver, dict(headers), body)
                status, answered, text = await call
            return Response(text, status, answered)
        except RefusedError as e:
            self._refused[e.reason] += 1
            return e.response()


class PushEndpoint:
    """A plain ASGI application: starlette would read the body of anything else itself."""

    def __init__(self, receiver: Receiver, pushed: Pushed) -> None:
        self._receiver, self._pushed = receiver, pushed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._pushed.answer(self._receiver, scope, receive)
        await response(scope, receive, send)
