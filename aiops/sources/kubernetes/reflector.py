"""Keeps a copy of one collection of the Kubernetes API: a list in chunks, then a watch from there on, for ever.

What goes wrong is answered with exponential backoff and full jitter, also where the server answers and closes at once, so that
a broken server is asked a handful of times and not thousands. A watch that is too far behind (410) starts with a new list, of
which only the differences are changes.
https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar

import msgspec
import numpy as np

from aiops.sources.kubernetes.api import JSON, KubeApi, KubeError
from aiops.sources.kubernetes.lines import Lines
from aiops.sources.kubernetes.objects import Meta
from aiops.sources.kubernetes.wire import METADATA, Chunk, Known, News, Status

LIMIT = 500
MAX_CHUNKS = 2_000
MAX_OBJECT = 16 * 1024 * 1024
MAX_OBJECTS = 1_000_000
WATCH_S = (240, 480)
OVER_S = 15.0
"""So much later than the server should have ended it, a watch is given up: a half-open connection says nothing for ever."""
LASTED_S = 10.0
"""A watch that lives that long works; one that ends before counts as a failure, whatever it delivered."""
FIRST_WAIT_S, LEAST_WAIT_S, MOST_WAIT_S = 1.0, 0.2, 30.0
TROUBLED = 3

Key = tuple[str, str]
Kept = TypeVar("Kept")


class Backoff:
    """Full jitter: the n-th failure in a row waits a random time up to 1 s * 2^n, never more than half a minute.

    From the third on at least a second.
    """

    def __init__(self, seed: int | None = None) -> None:
        self._random = np.random.default_rng(seed)

    def wait(self, failures: int) -> float:
        most = min(MOST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(failures, 16))
        least = FIRST_WAIT_S if failures >= TROUBLED else LEAST_WAIT_S
        return max(least, float(self._random.uniform(0.0, most)))

    def watch_s(self) -> int:
        """How long to ask a watch to last: spread, so that not all of them end at the same time."""
        return int(self._random.integers(*WATCH_S))


@dataclass(frozen=True, slots=True)
class Change(Generic[Kept]):
    """What became of one object between two looks; `initial`: it was there at the first look. None: it is not there."""

    key: Key
    before: Kept | None
    after: Kept | None
    initial: bool = False


class TokenExpired(KubeError):  # noqa: N818 - a reason to begin anew, told to nobody
    """A list took so long that its next chunk is not to be had any more (410)."""


class Reflector(Generic[Kept]):
    """One collection at `path`, decoded as `item` (a struct with `metadata`), of which `keep` says what stays in memory.

    `run` belongs to an event loop; everything else may be called from any thread. `told` is called after each turn for the
    better or worse. `dropped` counts by reason what could not be used.
    """

    def __init__(self, api: KubeApi, path: str, item: type[Any], keep: Callable[[Any], Kept], *, metadata_only: bool = False,
                 query: dict[str, str] | None = None, backoff: Backoff | None = None,
                 told: Callable[[], None] = lambda: None, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep) -> None:
        self.path, self._api, self._keep, self._told, self._sleep = path, api, keep, told, sleep
        self._item = msgspec.json.Decoder(item)
        self._query, self._backoff = dict(query or {}), backoff or Backoff()
        self._accepts = (METADATA.format("List"), METADATA.format("")) if metadata_only else (JSON, JSON)
        self._lock = threading.Lock()
        self._store: dict[Key, Kept] = {}
        self._versions: dict[Key, str] = {}
        self._before: dict[Key, Kept | None] = {}
        self.version = ""
        self._handed = False
        self.synced = False
        self.failures = 0
        self.error: KubeError | None = None
        self.dropped: Counter[str] = Counter()

    # ------------------------------------------------------------------------------------------------- for any thread
    def store(self) -> dict[Key, Kept]:
        """A copy of all there is: (namespace, name) -> what is kept of it."""
        with self._lock:
            return dict(self._store)

    def take(self) -> list[Change[Kept]]:
        """What has changed since the last call. Nothing before the first list is complete."""
        with self._lock:
            if not self.synced:
                return []
            first, self._handed = not self._handed, True
            found = [Change(key, before, self._store.get(key), first) for key, before in self._before.items()]
            self._before = {}
        return [c for c in found if c.before is not c.after]

    @property
    def settled(self) -> bool:
        """Whether the first attempt has come to an end, good or bad."""
        return self.synced or self.error is not None

    def trouble(self) -> KubeError | None:
        """Why the copy is not to be relied on: there is none yet, or the watch failed several times in a row."""
        return self.error if not self.synced or self.failures >= TROUBLED else None

    # --------------------------------------------------------------------------------------------------- the loop
    async def run(self) -> NoReturn:
        """Lists and watches until it is cancelled."""
        while True:
            try:
                await self._turn()
            except KubeError as e:
                self.failures, self.error = self.failures + 1, e
                self._told()
                await self._sleep(max(self._backoff.wait(self.failures), e.after_s))

    async def _turn(self) -> None:
        """A list, where it is needed, and one watch to its end. Raises KubeError for all that should make it wait."""
        if not self.version:
            await self._list()
            self._told()
        watched = asyncio.get_running_loop().call_later(LASTED_S, self._works)
        try:
            await self._watch()
        finally:
            early = watched.when() > asyncio.get_running_loop().time()
            watched.cancel()
        if early:
            raise KubeError(self.path, "the server ends each watch at once.")

    def _works(self) -> None:
        self.failures, self.error = 0, None
        self._told()

    # --------------------------------------------------------------------------------------------------------- list
    async def _list(self) -> None:
        """The whole collection. A continue token that expired starts it anew, once."""
        try:
            found, version = await self._chunks()
        except TokenExpired:
            found, version = await self._chunks()
        with self._lock:
            for key in self._store.keys() - found.keys():
                self._remove(key)
            for key, (its, kept) in found.items():
                if self._versions.get(key) != its or not its:
                    self._put(key, its, kept)
            self.version, self.synced = version, True

    async def _chunks(self) -> tuple[dict[Key, tuple[str, Kept]], str]:
        found: dict[Key, tuple[str, Kept]] = {}
        token = ""
        for _ in range(MAX_CHUNKS):
            query = {**self._query, "limit": str(LIMIT), **({"continue": token} if token else {})}
            body = await self._chunk(query)
            try:
                chunk = msgspec.json.decode(body, type=Chunk)
            except (msgspec.DecodeError, RecursionError) as e:
                raise KubeError(self.path, f"the answer is not a list of the Kubernetes API ({e}).") from None
            found.update(self._decoded(chunk.items or ()))
            token = chunk.metadata.continue_ or ""
            if not token:
                if not chunk.metadata.resource_version:
                    raise KubeError(self.path, "the answer is not a list of the Kubernetes API (no resourceVersion).")
                return found, chunk.metadata.resource_version
        raise KubeError(self.path, f"more than {MAX_CHUNKS * LIMIT} objects, or a list that never ends.")

    async def _chunk(self, query: dict[str, str]) -> bytes:
        try:
            return await self._api.get(self.path, query, self._accepts[0])
        except KubeError as e:
            if e.status == 410 and "continue" in query:
                raise TokenExpired(self.path, "the continue token expired.", 410) from None
            raise

    def _decoded(self, items: Iterable[msgspec.Raw]) -> Iterable[tuple[Key, tuple[str, Kept]]]:
        """Each object that can be read; one that cannot does not stop the others."""
        for raw in items:
            try:
                item = self._item.decode(raw)
            except (msgspec.DecodeError, RecursionError):
                self.dropped["undecodable"] += 1
                continue
            yield item.metadata.key, (item.metadata.resource_version, self._keep(item))

    # -------------------------------------------------------------------------------------------------------- watch
    async def _watch(self) -> None:
        """Follow what happens from the last known version on, until the server ends it."""
        lasts = self._backoff.watch_s()
        query = {**self._query, "watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(lasts),
                 "resourceVersion": self.version}
        lines = Lines(MAX_OBJECT)
        try:
            async with self._api.stream(self.path, query, self._accepts[1], lasts + OVER_S) as answer:
                async for chunk in answer.content.iter_any():
                    for line in lines.feed(chunk):
                        self._hear(line)
        except KubeError as e:
            if e.status == 410:
                self.version = ""
            raise

    def _hear(self, line: bytes) -> None:
        if not line.strip():
            return
        try:
            news = msgspec.json.decode(line, type=News)
            if news.type == "ERROR":
                status = msgspec.json.decode(news.object, type=Status)
                raise KubeError(self.path, f"the watch ended with {status.code}: {(status.message or '')[:200]}", status.code)
            known = msgspec.json.decode(news.object, type=Known).metadata
        except (msgspec.DecodeError, RecursionError) as e:
            self.version = ""  # what it would have said is not known: a new list tells
            raise KubeError(self.path, f"the watch sent something that is no event ({e}).") from None
        with self._lock:
            self._apply(news, known)
        self._told()

    def _apply(self, news: News, known: Meta) -> None:
        """An object that cannot be read is one that is not known, as it would be after a list."""
        if news.type in ("ADDED", "MODIFIED"):
            found = dict(self._decoded([news.object]))
            for key, (version, kept) in found.items():
                self._put(key, version, kept)
            if not found:
                self._remove(known.key)
        elif news.type == "DELETED":
            self._remove(known.key)
        elif news.type != "BOOKMARK":
            self.dropped["unknown_event"] += 1
        self.version = known.resource_version or self.version

    def _put(self, key: Key, version: str, kept: Kept) -> None:
        if key not in self._store and len(self._store) >= MAX_OBJECTS:
            self.dropped["too_many"] += 1
            return
        self._before.setdefault(key, self._store.get(key))
        self._store[key], self._versions[key] = kept, version

    def _remove(self, key: Key) -> None:
        if key in self._store:
            gone = self._store.pop(key)
            del self._versions[key]
            self._before.setdefault(key, gone)
