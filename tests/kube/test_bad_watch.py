"""Watches of a real API server through a proxy that misbehaves: nothing is lost, nothing stays that is gone, nothing is hot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
from kube import proxy as broken
from kube.controlplane import Control
from kube.proxy import GONE, Answer, Proxy

from aiops.sources.kubernetes import reflector as module
from aiops.sources.kubernetes.api import Access, KubeApi
from aiops.sources.kubernetes.kinds import CONFIGMAPS
from aiops.sources.kubernetes.reflector import Backoff, Key, Reflector

SOON_S = 60.0


class Watched:
    """A copy of the ConfigMaps of a namespace that is made of nothing but the changes that were told."""

    def __init__(self, control: Control, namespace: str, proxy: Proxy) -> None:
        self.control, self.namespace, self.proxy = control, namespace, proxy
        self.path = f"/api/v1/namespaces/{namespace}/configmaps"
        self.copy: dict[Key, str] = {}
        self.told = asyncio.Event()

    @asynccontextmanager
    async def following(self, **more: Any) -> AsyncIterator[Reflector[str]]:
        api = KubeApi(Access(self.proxy.kubeconfig(f"{self.namespace}-watcher", "admin-token")))
        made: Reflector[str] = Reflector(api, self.path, CONFIGMAPS.item, lambda o: o.metadata.resource_version,
                                         backoff=Backoff(0), told=self.told.set, **more)
        task = asyncio.create_task(made.run())
        try:
            yield made
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await api.close()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(SOON_S):
            while not holds():
                await self.told.wait()
                self.told.clear()

    def same(self, reflector: Reflector[str]) -> bool:
        """As it is on the server; each change fits the one before it."""
        for change in reflector.take():
            assert self.copy.pop(change.key, None) == change.before
            if change.after is not None:
                self.copy[change.key] = change.after
        there = {(self.namespace, one["metadata"]["name"]): one["metadata"]["resourceVersion"]
                 for one in self.control.admin.list("configmaps", self.namespace)}
        return self.copy == there == reflector.store()

    def put(self, name: str) -> None:
        self.control.admin.create("configmaps", {"metadata": {"name": name}}, self.namespace)

    def delete(self, name: str) -> None:
        self.control.admin.delete("configmaps", self.namespace, name)


@pytest.fixture
def watched(control: Control, namespace: str) -> Iterator[Watched]:
    with Proxy(control) as proxy:
        made = Watched(control, namespace, proxy)
        for name in ("stays", "goes"):
            made.put(name)
        yield made


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits of milliseconds."""
    for name, value in {"FIRST_WAIT_S": 0.001, "LEAST_WAIT_S": 0.001, "MOST_WAIT_S": 0.01, "LASTED_S": 0.5}.items():
        monkeypatch.setattr(module, name, value)


HALF = b'{"type": "ADDED", "object": {"me'
EXPIRED = ("WATCH", broken.says(410))
TROUBLES: dict[str, list[tuple[str, Answer]]] = {
    "410": [EXPIRED], "410 as an event": [("WATCH", broken.watched({"type": "ERROR", "object": GONE}))],
    "500 as an event": [("WATCH", broken.watched({"type": "ERROR", "object": {**GONE, "code": 500}}))],
    "closed at once": [("WATCH", broken.watched())], "half an event": [("WATCH", broken.watched(HALF))],
    "half an event and a line": [("WATCH", broken.watched(HALF + b"\n"))], "429": [("WATCH", broken.says(429))],
    "503": [("WATCH", broken.says(503, b"no upstream"))], "cut": [("WATCH", broken.refused)],
    "everything is cut": [("", broken.refused)], "everything is 500": [("", broken.says(500))],
    "410, and lists are half": [EXPIRED, ("GET", broken.halved)], "410, and lists are torn": [EXPIRED, ("GET", broken.torn)],
    "410, and lists expire": [EXPIRED, ("GET", broken.says(410))]}


@pytest.mark.parametrize("how", TROUBLES)
def test_after_a_failure_the_copy_is_the_server(watched: Watched, quick: None, how: str) -> None:
    """What came and went meanwhile is there and gone afterwards; the trouble is named while it lasts, and over when it is."""
    async def story() -> None:
        async with watched.following() as reflector:
            await watched.until(lambda: watched.same(reflector))
            for fault in TROUBLES[how]:
                watched.proxy.fault(*fault)
            watched.proxy.cut()
            await watched.until(lambda: reflector.trouble() is not None)
            watched.put("comes")
            watched.delete("goes")
            watched.proxy.calm()
            await watched.until(lambda: watched.same(reflector))
            await watched.until(lambda: reflector.error is None)
            watched.put("late")
            await watched.until(lambda: watched.same(reflector))
    asyncio.run(story())


@pytest.mark.parametrize("how", TROUBLES)
def test_a_server_that_keeps_failing_is_asked_once_a_second_at_most(watched: Watched, how: str) -> None:
    """Five minutes of simulated waiting: from the third failure on no request of a kind follows another within a second."""
    clock, over = [0.0], asyncio.Event()

    async def sleep(seconds: float) -> None:
        clock[0] += seconds
        if clock[0] > 300.0:
            over.set()
        await asyncio.sleep(0)

    async def story() -> None:
        watched.proxy._now = lambda: clock[0]
        for fault in TROUBLES[how]:
            watched.proxy.fault(*fault)
        async with watched.following(sleep=sleep), asyncio.timeout(SOON_S):
            await over.wait()
    asyncio.run(story())
    for kind in ("WATCH", "GET"):
        times = [a.at for a in watched.proxy.matching(kind)]
        gaps = [b - a for a, b in pairwise(times)][3:]
        assert all(gap >= 1.0 for gap in gaps), gaps
        assert len(times) <= 60
    assert len(watched.proxy.asked) >= 8
