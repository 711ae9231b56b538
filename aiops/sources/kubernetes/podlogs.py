"""Logs of the pods that a label selector names: one stream a container, followed over reconnects, rotation and restarts.

The API server takes times by the second, so after a break the last second is asked for again, and lines that were handed on
are left out. What the container wrote last before a restart is in the log of its previous instance, which is asked first.
https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#get-read-log-of-the-specified-pod
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from aiops.interfaces import Samples
from aiops.sources.kubernetes.api import KubeApi, KubeError
from aiops.sources.kubernetes.kinds import PODS
from aiops.sources.kubernetes.lines import Lines
from aiops.sources.kubernetes.objects import Pod
from aiops.sources.kubernetes.reflector import LASTED_S, Backoff, Reflector
from aiops.sources.kubernetes.stream import Again, Key, Stream
from aiops.sources.logs.lines import MAX_LINE_BYTES, plain
from aiops.types import LogLine

MAX_STREAMS = 200
MAX_WAITING_BYTES = 64 * 1024 * 1024
FIRST_S = 30.0
IDLE_S = 300.0
"""A stream that is silent for so long is opened anew: a half-open connection is silent too."""
LAST_WORDS_S = 30.0
FULL_WAIT_S = 0.1
STAMP_CHARS = 40
OVERHEAD = 200
_STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z")


@dataclass(frozen=True, slots=True)
class _Pod:
    """Of a pod: which containers have begun to write, and which run and may write more."""

    begun: frozenset[str]
    running: frozenset[str]
    uid: str


class PodLogs:
    """Follows at most 200 containers of pods that match `selector`. `run` belongs to an event loop, `drain` to any thread.

    Lines wait for `drain` up to 64 MiB; then nothing is read until there is room. `notes` says what cannot be read, `dropped`
    counts by reason. One container's failure does not stop the others.
    """

    def __init__(self, selector: str, namespaces: Sequence[str] = ()) -> None:
        self._selector, self._namespaces = selector, tuple(namespaces)
        self._lock = threading.Lock()
        self._waiting: list[LogLine] = []
        self._bytes = 0
        self._streams: dict[Key, Stream] = {}
        self._reflectors: list[Reflector[_Pod]] = []
        self._told = asyncio.Event()
        self._since = ""
        self.notes: dict[str, str] = {}
        self.dropped: Counter[str] = Counter()

    def begin(self, now: float) -> None:
        """Lines older than half a minute before `now` are history."""
        self._since = self._since or datetime.fromtimestamp(now - FIRST_S, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def drain(self, now: float, into: Samples) -> None:
        """The lines that came since the last call, with the times the kubelet gave them. Those not taken wait on."""
        with self._lock:
            lines, self._waiting, self._bytes = self._waiting, [], 0
        for k, line in enumerate(lines):
            if not into.line(line if line.time <= now else replace(line, time=now)):
                self._give_back(lines[k:])
                return

    def _give_back(self, lines: list[LogLine]) -> None:
        with self._lock:
            self._waiting[:0] = lines
            self._bytes += sum(map(_size, lines))

    def trouble(self) -> KubeError | None:
        """Why the pods are not known."""
        return next((e for r in self._reflectors if (e := r.trouble())), None)

    # ------------------------------------------------------------------------------------------------ which streams
    async def run(self, api: KubeApi) -> None:
        """Follows until it is cancelled."""
        told = self._told = asyncio.Event()
        self._reflectors = [Reflector(api, path, Pod, _pod, query={"labelSelector": self._selector}, told=told.set)
                            for path in PODS.paths(self._namespaces)]
        self._streams = {}
        async with asyncio.TaskGroup() as group:
            for reflector in self._reflectors:
                group.create_task(reflector.run())
            while True:
                await told.wait()
                told.clear()
                for reflector in self._reflectors:
                    if reflector.synced:
                        reflector.take()
                self._match(group, api)

    def _match(self, group: asyncio.TaskGroup, api: KubeApi) -> None:
        """Streams for containers that are new; those of pods that went may say their last words."""
        wanted = {(*at, p.uid, name): name in p.running
                  for r in self._reflectors for at, p in r.store().items() for name in sorted(p.begun)}
        for key, stream in self._streams.items():
            if key in wanted:
                stream.tell(wanted[key])
            elif not stream.gone and stream.task:
                stream.gone = True
                asyncio.get_running_loop().call_later(LAST_WORDS_S, stream.task.cancel)
        for key, running in wanted.items():
            if key not in self._streams and len(self._streams) < MAX_STREAMS:
                stream = self._streams[key] = Stream(key, running)
                stream.task = group.create_task(self._follow(api, stream))
        self.notes.pop("logs", None)
        if wanted.keys() - self._streams.keys():
            self.notes["logs"] = f"logs: {len(wanted)} containers match; only {MAX_STREAMS} are followed. Narrow the selector."

    # -------------------------------------------------------------------------------------------------- one stream
    async def _follow(self, api: KubeApi, s: Stream) -> None:
        """Until the pod is gone. A stream that lasted is no failure, whatever ended it."""
        backoff, failures, clock = Backoff(), 0, asyncio.get_running_loop().time
        name = f"{s.key[0]}/{s.key[1]}/{s.key[3]}"
        try:
            while not s.gone:
                began = clock()
                s.changed.clear()
                error = await self._turn(api, s)
                failures = 0 if clock() - began >= LASTED_S else failures + 1
                self.notes.pop(name, None)
                if error and failures:
                    self.notes[name] = str(error)
                await asyncio.sleep(backoff.wait(failures))
                if not (s.running or error):
                    await s.changed.wait()  # it has told all, until it starts again
        finally:
            self.notes.pop(name, None)
            del self._streams[s.key]
            self._told.set()  # there is room for another one

    async def _turn(self, api: KubeApi, s: Stream) -> KubeError | None:
        """What was written since the last line, to the end of the stream; why that ended, None where all is read."""
        try:
            if s.second:
                await self._last_words(api, s)
            await self._read(api, s, {"follow": "true"})
        except KubeError as e:
            return e
        return None

    async def _last_words(self, api: KubeApi, s: Stream) -> None:
        """What the previous instance of the container wrote, where there is one (else: 400)."""
        try:
            await self._read(api, s, {"previous": "true"})
        except KubeError as e:
            if e.status != 400:
                raise

    async def _read(self, api: KubeApi, s: Stream, query: dict[str, str]) -> None:
        namespace, pod, _, container = s.key
        query = {**query, "container": container, "timestamps": "true", "sinceTime": f"{s.second}Z" if s.second else self._since}
        lines, again = Lines(MAX_LINE_BYTES + STAMP_CHARS), Again(s)
        entity = f"pod/{namespace}/{pod}"
        async with api.stream(f"/api/v1/namespaces/{namespace}/pods/{pod}/log", query, "*/*", None, IDLE_S) as answer:
            async for chunk in answer.content.iter_any():
                for raw in lines.feed(chunk):
                    self._hand(entity, raw, again)
                while self._bytes > MAX_WAITING_BYTES:  # nobody fetches them: the kubelet keeps the rest for us
                    await asyncio.sleep(FULL_WAIT_S)
        if not s.running:  # a container that has ended may leave its last line without an end
            self._hand(entity, lines.rest(), again)
        self.dropped["too_long"] += lines.cut

    def _hand(self, entity: str, raw: bytes, again: Again) -> None:
        stamp, _, text = raw.decode("utf-8", "replace").partition(" ")
        if not text.strip():
            return
        at = _seconds(stamp)
        if at is None:
            self.dropped["no_time"] += 1  # the kubelet's own words about a log that it cannot read
            return
        if not again.known(stamp, raw):
            line = plain(text.rstrip("\r"))
            with self._lock:
                self._waiting.append(LogLine(at, entity, line))
                self._bytes += _size(self._waiting[-1])


def _size(line: LogLine) -> int:
    return len(line.text) + len(line.entity) + OVERHEAD


def _pod(p: Pod) -> _Pod:
    every = p.status.container_statuses or ()
    running = frozenset(c.name for c in every if c.state.running)
    return _Pod(running | {c.name for c in every if c.state.terminated or c.restart_count}, running, p.metadata.uid)


def _seconds(stamp: str) -> float | None:
    """RFC 3339 in UTC, with as many digits as there are; None for anything else."""
    if not _STAMP.fullmatch(stamp):
        return None
    whole, _, part = stamp.removesuffix("Z").partition(".")
    try:
        return datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(f"0.{part or 0}")
    except ValueError:
        return None
