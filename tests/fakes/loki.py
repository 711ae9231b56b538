"""A Loki on loopback, after https://grafana.com/docs/loki/latest/reference/loki-http-api/: `query_range` and `tail`.

Start is inclusive and end exclusive, `limit` counts lines over all streams in the order of `direction`, more than
`max_entries` is refused with the words of the real one, as is a missing tenant.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

Line = tuple[int, tuple[tuple[str, str], ...], str]


@dataclass
class Loki:
    """What it holds, what it was asked, and what it does wrong when told to."""

    url: str = ""
    tenant: str = ""
    token: str = ""
    max_entries: int = 5000
    lines: list[Line] = field(default_factory=list)
    queries: list[dict[str, str]] = field(default_factory=list)
    failure: tuple[int, str] | None = None
    answer: Any = None
    no_tail: bool = False
    tails: list[web.WebSocketResponse] = field(default_factory=list)
    loop: Any = None
    opened: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def put(self, ns: int, text: str, **labels: str) -> None:
        """A line arrives; who tails does not hear of it until `push`."""
        self.lines.append((ns, tuple(sorted(labels.items())), text))

    def push(self, *lines: Line, dropped: int = 0) -> None:
        """To everybody who tails, as one message."""
        message = {"streams": _streams(list(lines)), "dropped_entries": [{"labels": {}, "timestamp": "1"}] * dropped or None}
        self._in_loop(lambda tail: tail.send_json(message))

    def push_text(self, text: str) -> None:
        self._in_loop(lambda tail: tail.send_str(text))

    def hang_up(self) -> None:
        """Ends every tail."""
        self._in_loop(lambda tail: tail.close())
        self.tails.clear()

    def _in_loop(self, act: Any) -> None:
        async def all_of_them() -> None:
            for tail in list(self.tails):
                with contextlib.suppress(ConnectionError):  # it went away a moment ago
                    await act(tail)
        asyncio.run_coroutine_threadsafe(all_of_them(), self.loop).result(10)

    # ----------------------------------------------------------------------------------------------------- the server
    def _refused(self, request: web.Request) -> web.Response | None:
        if self.failure:
            return web.Response(status=self.failure[0], text=self.failure[1])
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.Response(status=401, text="unauthorized")
        if self.tenant and request.headers.get("X-Scope-OrgID") != self.tenant:
            return web.Response(status=401, text="no org id\n")
        return None

    async def query_range(self, request: web.Request) -> web.StreamResponse:
        asked = dict(request.query)
        self.queries.append(asked)
        if (refused := self._refused(request)) is not None:
            return refused
        if self.answer is not None:
            return web.Response(text=self.answer, content_type="application/json")
        start, end, limit = int(asked["start"]), int(asked["end"]), int(asked.get("limit", "100"))
        if limit > self.max_entries:
            return web.Response(status=400, text="max entries limit per query exceeded, limit > max_entries_limit_per_query "
                                f"({limit} > {self.max_entries})\n")
        assert asked["direction"] == "forward", "backward is the default"
        found = sorted((line for line in self.lines if start <= line[0] < end), key=lambda line: line[0])[:limit]
        return web.json_response({"status": "success", "data": {"resultType": "streams", "result": _streams(found), "stats": {}}})

    async def tail(self, request: web.Request) -> web.StreamResponse:
        self.queries.append({"tail": "1", **request.query})
        if (refused := self._refused(request)) is not None:
            return refused
        if self.no_tail:
            return web.Response(status=404, text="not found")
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        old = [line for line in self.lines if line[0] >= int(request.query["start"])]
        await socket.send_json({"streams": _streams(old)})
        self.tails.append(socket)
        self.opened.release()
        async for message in socket:
            assert message.type in (WSMsgType.CLOSE, WSMsgType.PING, WSMsgType.PONG)
        if socket in self.tails:
            self.tails.remove(socket)
        return socket


def _streams(lines: list[Line]) -> list[dict[str, Any]]:
    streams: dict[tuple[tuple[str, str], ...], list[list[str]]] = {}
    for ns, labels, text in lines:
        streams.setdefault(labels, []).append([str(ns), text])
    return [{"stream": dict(labels), "values": values} for labels, values in streams.items()]


@contextmanager
def running(**settings: Any) -> Iterator[Loki]:
    """A Loki in a thread of its own, on a free port; stopped at the end."""
    loki, ready, done = Loki(**settings), threading.Event(), threading.Event()

    async def serve() -> None:
        app = web.Application()
        app.add_routes([web.get("/loki/api/v1/query_range", loki.query_range), web.get("/loki/api/v1/tail", loki.tail)])
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        loki.loop = asyncio.get_running_loop()
        loki.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        ready.set()
        await asyncio.to_thread(done.wait)
        await runner.cleanup()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield loki
    finally:
        done.set()
        thread.join(10)
