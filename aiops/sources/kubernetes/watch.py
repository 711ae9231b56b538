"""Reflectors of one API server in a thread of their own, and what they know for whoever asks from another thread."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

from aiops.sources.kubernetes.api import Access, KubeApi, KubeError
from aiops.sources.kubernetes.kinds import Kind
from aiops.sources.kubernetes.reflector import Change, Key, Reflector

END_S = 5.0
FORBIDDEN = (403, 404)
Work = Callable[[], Coroutine[Any, Any, None]]


class Background:
    """One event loop in a daemon thread. `start` begins anew where it has ended; `close` ends it and waits for that.

    `error`: what ended it, None while it runs or was closed.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: threading.Thread | None = None
        self._stop: Callable[[], object] = lambda: None
        self._begun = threading.Event()
        self._closed = False
        self.error: BaseException | None = None

    @property
    def alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self, work: Work) -> None:
        if self.alive or self._closed:
            return
        self._begun.clear()
        self._thread = threading.Thread(target=self._run, args=(work,), name=self._name, daemon=True)
        self._thread.start()
        self._begun.wait(END_S)

    def close(self) -> None:
        self._closed = True
        if self.alive:
            self._stop()
        if self._thread is not None:
            self._thread.join(END_S)

    def _run(self, work: Work) -> None:
        async def run() -> None:
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            assert task is not None
            self._stop = lambda: loop.call_soon_threadsafe(task.cancel)
            self._begun.set()
            await work()
        try:
            asyncio.run(run())
        except asyncio.CancelledError:
            self.error = None
        except BaseException as e:  # noqa: BLE001 - told by whoever looks after the source
            self.error = e
        finally:
            self._begun.set()


class Watching:
    """Follows `kinds` in `namespaces` (none: all). `besides`: what else runs beside the reflectors, in the same loop.

    `fresh` is set whenever something has come in, or failed.
    """

    def __init__(self, access: Access, kinds: Sequence[Kind], namespaces: Sequence[str], name: str,
                 besides: Callable[[KubeApi], Coroutine[Any, Any, None]] | None = None) -> None:
        self._access, self._besides = access, besides
        self._kinds, self._namespaces = tuple(kinds), tuple(namespaces)
        self._background = Background(f"watch-{name}")
        self._reflectors: dict[Kind, list[Reflector[Any]]] = {}
        self._settled = threading.Event()
        self.fresh = threading.Event()

    def start(self, wait_s: float) -> None:
        """Begin, where that was not done yet, and wait until each first list is there or has failed.

        Raises KubeError where there is no configuration, and RuntimeError where the watch had broken down.
        """
        if not self._background.alive:
            broken, self._background.error = self._background.error, None
            self._access.headers()
            self._settled.clear()
            self._background.start(self._main)
            if broken:
                raise RuntimeError(f"the watch broke down and begins anew: {broken!r}") from broken
        if self._background.alive:
            self._settled.wait(wait_s)

    @property
    def synced(self) -> bool:
        """Whether all that may be read has been read once."""
        return bool(self._reflectors) and all(r.synced or refused(r.error) for r in self._all())

    def store(self, kind: Kind) -> dict[Key, Any]:
        return {key: kept for r in self._reflectors.get(kind, ()) for key, kept in r.store().items()}

    def take(self, kind: Kind) -> list[Change[Any]]:
        return [change for r in self._reflectors.get(kind, ()) for change in r.take()]

    def trouble(self, kind: Kind) -> KubeError | None:
        return next((e for r in self._reflectors.get(kind, ()) if (e := r.trouble())), None)

    def dropped(self) -> Counter[str]:
        """By reason, over all kinds."""
        return sum((r.dropped for r in self._all()), Counter())

    def close(self) -> None:
        self._background.close()

    def _all(self) -> Iterator[Reflector[Any]]:
        return (r for every in self._reflectors.values() for r in every)

    async def _main(self) -> None:
        api = KubeApi(self._access)
        self._reflectors = {kind: [self._reflector(api, kind, path) for path in kind.paths(self._namespaces)]
                            for kind in self._kinds}
        try:
            async with asyncio.TaskGroup() as group:
                for reflector in self._all():
                    group.create_task(reflector.run())
                if self._besides:
                    group.create_task(self._besides(api))
        finally:
            await api.close()
            self._settled.set()

    def _reflector(self, api: KubeApi, kind: Kind, path: str) -> Reflector[Any]:
        query = {"fieldSelector": kind.field_selector} if kind.field_selector else {}
        return Reflector(api, path, kind.item, kind.keep, metadata_only=kind.metadata_only, query=query, told=self._told)

    def _told(self) -> None:
        self.fresh.set()
        if not self._settled.is_set() and all(r.settled for r in self._all()):
            self._settled.set()


def refused(error: KubeError | None) -> bool:
    """A missing right, or a kind that this server does not know: no reason to do without the rest."""
    return error is not None and error.status in FORBIDDEN
