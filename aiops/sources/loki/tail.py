"""Lines of Loki as they come in, by its websocket: a thread that fills a bounded buffer, and says when it missed something."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from typing import Any

import msgspec

from aiops.sources.loki.api import Entry, LokiApi, Stream, entries
from aiops.sources.supervisor import brief

MAX_WAITING = 50_000
MAX_MESSAGE = 16 * 1024 * 1024
END_S = 3.0


class _Message(msgspec.Struct):
    """https://grafana.com/docs/loki/latest/reference/loki-http-api/#stream-logs"""

    streams: list[Stream] | None = None
    dropped_entries: list[Any] | None = None


class LokiTail:
    """One websocket. `start` opens it, `taken` hands out what came, `running` says whether it still is open.

    It never opens itself again: whoever polls it first asks for what was missed, and then starts it anew.
    """

    def __init__(self, api: LokiApi, query: str) -> None:
        self._api, self._query = api, query
        self._lock = threading.Lock()
        self._waiting: list[Entry] = []
        self._missed = ""
        self._thread: threading.Thread | None = None
        self._reading: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None
        self._closed = False

    @property
    def running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self, since_ns: int, limit: int) -> None:
        """Open the websocket for lines from `since_ns` on. Raises SourceError where the token cannot be read."""
        headers = self._api.headers()
        self._thread = threading.Thread(target=self._run, args=(headers, since_ns, limit), name="loki-tail", daemon=True)
        self._thread.start()

    def taken(self) -> tuple[list[Entry], str]:
        """What came since the last call, and why that is not all, "" where it is."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
            missed, self._missed = self._missed, ""
        return waiting, missed

    def close(self) -> None:
        with self._lock:
            self._closed, reading = True, self._reading
        if reading is not None:
            with contextlib.suppress(RuntimeError):  # it ended by itself
                reading[0].call_soon_threadsafe(reading[1].cancel)
        if self._thread is not None:
            self._thread.join(END_S)

    # ------------------------------------------------------------------------------------------------- in the thread
    def _run(self, headers: dict[str, str], since_ns: int, limit: int) -> None:
        async def work() -> None:
            task = asyncio.current_task()
            with self._lock:
                self._reading = (asyncio.get_running_loop(), task) if task and not self._closed else None
            if self._reading is not None:
                await self._read(headers, since_ns, limit)
        try:
            asyncio.run(work())
            self._miss("Loki ended the tail")
        except asyncio.CancelledError:
            pass
        except Exception as e:  # noqa: BLE001 - whatever ends the tail, the next poll tells it and asks for what was missed
            self._miss(brief(e))

    async def _read(self, headers: dict[str, str], since_ns: int, limit: int) -> None:
        import aiohttp

        trust: Any = ssl.create_default_context(cafile=str(self._api.ca_file)) if self._api.ca_file else True
        params = {"query": self._query, "start": str(since_ns), "limit": str(limit)}
        address = "ws" + self._api.url.removeprefix("http") + "/loki/api/v1/tail"
        async with (aiohttp.ClientSession(headers=headers) as session,
                    session.ws_connect(address, params=params, ssl=trust, heartbeat=self._api.timeout_s,
                                       max_msg_size=MAX_MESSAGE) as socket):
            async for message in socket:
                if message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                    self._put(message.data)

    def _put(self, body: str | bytes) -> None:
        """Raises DecodeError or ValueError for a message that is none: the tail then ends."""
        found = msgspec.json.decode(body, type=_Message)
        with self._lock:
            for stream in found.streams or ():
                self._waiting += entries(stream)
            if found.dropped_entries:
                self._missed = f"Loki left out {len(found.dropped_entries)} lines of the tail"
            if len(self._waiting) > MAX_WAITING:
                self._missed = "more lines came than are kept between two polls"
                del self._waiting[MAX_WAITING:]

    def _miss(self, why: str) -> None:
        with self._lock:
            self._missed = why
