"""The reflector against a small API server over real HTTP: it never loses or invents a change, and never asks without pause."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fakes.kube_watch import KubeWatch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiops.sources.kubernetes import reflector as module
from aiops.sources.kubernetes.api import Access, KubeApi
from aiops.sources.kubernetes.objects import Pod
from aiops.sources.kubernetes.reflector import Backoff, Change, Key, Reflector

PODS = "/api/v1/pods"
SOON_S = 60.0


def pod(name: str, **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "shop", "uid": f"uid-{name}", **more}}


@pytest.fixture
def server() -> Iterator[KubeWatch]:
    fake = KubeWatch({PODS: [pod("a"), pod("b"), pod("c")]})
    yield fake
    fake.close()


def kubeconfig(path: Path, url: str, **user: str) -> Path:
    path.write_text(json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "lab", "clusters": [{"name": "lab", "cluster": {"server": url}}],
        "users": [{"name": "me", "user": user or {"token": "the-token"}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "me"}}]}))
    return path


class Watched:
    """A reflector that keeps versions, and a copy of its store that is made of nothing but the changes it told."""

    def __init__(self, api: KubeApi) -> None:
        self.told = asyncio.Event()
        self.reflector: Reflector[str] = Reflector(api, PODS, Pod, lambda o: o.metadata.resource_version,
                                                   backoff=Backoff(0), told=self.told.set)
        self.copy: dict[Key, str] = {}
        self.changes: list[Change[str]] = []

    def look(self) -> dict[Key, str]:
        for change in self.reflector.take():
            assert self.copy.pop(change.key, None) == change.before
            if change.after is not None:
                self.copy[change.key] = change.after
            self.changes.append(change)
        return self.copy

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(SOON_S):
            while not holds():
                await self.told.wait()
                self.told.clear()

    async def same_as(self, server: KubeWatch) -> None:
        await self.until(lambda: self.look() == versions(server) and self.reflector.store() == versions(server))


def versions(server: KubeWatch) -> dict[Key, str]:
    return {key: item["metadata"]["resourceVersion"] for key, item in server.objects[PODS].items()}


@asynccontextmanager
async def watching(server: KubeWatch, tmp_path: Path, **user: str) -> AsyncIterator[Watched]:
    api = KubeApi(Access(kubeconfig(tmp_path / "kubeconfig", server.url, **user)))
    w = Watched(api)
    task = asyncio.create_task(w.reflector.run())
    try:
        yield w
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await api.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits of milliseconds."""
    for name, value in {"FIRST_WAIT_S": 0.001, "LEAST_WAIT_S": 0.001, "MOST_WAIT_S": 0.01, "LASTED_S": 0.5}.items():
        monkeypatch.setattr(module, name, value)


def test_the_copy_follows_what_is_added_changed_and_deleted(server: KubeWatch, tmp_path: Path) -> None:
    """One list, one watch; the first look is marked as such, later changes carry what was before."""
    async def story() -> None:
        async with watching(server, tmp_path) as w:
            await w.same_as(server)
            assert all(c.initial and c.before is None for c in w.changes)
            w.changes.clear()
            server.put(PODS, pod("d"))
            server.put(PODS, pod("a", labels={"x": "y"}))
            server.delete(PODS, "b")
            await w.same_as(server)
            assert {(c.key[1], c.before is None, c.after is None, c.initial) for c in w.changes} == {
                ("d", True, False, False), ("a", False, False, False), ("b", False, True, False)}
    asyncio.run(story())
    assert [r.watch for r in server.seen(PODS)] == [False, True]
    assert server.requests[1].args.items() >= {"allowWatchBookmarks": "true", "resourceVersion": "103"}.items()
    assert 240 <= int(server.requests[1].args["timeoutSeconds"]) <= 480


def test_what_comes_and_goes_between_two_looks_is_no_change(server: KubeWatch, tmp_path: Path) -> None:
    """Memory for changes is bounded by the number of objects, however long nobody looks."""
    async def story() -> None:
        async with watching(server, tmp_path) as w:
            await w.same_as(server)
            w.changes.clear()
            for n in range(50):
                server.put(PODS, pod("brief"))
                server.put(PODS, pod("a", labels={"n": str(n)}))
                server.delete(PODS, "brief")
            last = server.put(PODS, pod("end"))
            await w.until(lambda: w.reflector.store().get(("shop", "end")) == str(last))
            w.look()
            assert sorted(c.key[1] for c in w.changes) == ["a", "end"]
    asyncio.run(story())


def test_long_lists_come_in_chunks(server: KubeWatch, tmp_path: Path) -> None:
    """Each with its limit and the token of the one before."""
    server.chunk = 2
    async def story() -> None:
        async with watching(server, tmp_path) as w:
            await w.same_as(server)
    asyncio.run(story())
    assert [(r.args.get("continue"), r.args["limit"], r.headers["Authorization"]) for r in server.seen(PODS, watch=False)] == [
        (None, "500", "Bearer the-token"), ("103:2", "500", "Bearer the-token")]


def test_a_continue_token_that_expired_starts_the_list_anew(server: KubeWatch, tmp_path: Path) -> None:
    """410 in the middle of a list: from the beginning, once, without a pause and nothing doubled."""
    server.chunk = 2
    answers: list[Any] = [None, 410]
    server.fault = lambda r: answers.pop(0) if answers else None
    async def story() -> None:
        async with watching(server, tmp_path) as w:
            await w.same_as(server)
            assert w.reflector.failures == 0
    asyncio.run(story())
    assert [r.args.get("continue") for r in server.seen(PODS, watch=False)] == [None, "103:2", None, "103:2"]


def test_a_bookmark_moves_the_version_and_nothing_else(server: KubeWatch, tmp_path: Path, quick: None) -> None:
    """After quiet hours the watch goes on from the bookmark, though the history before it is gone."""
    async def story() -> None:
        async with watching(server, tmp_path) as w:
            await w.same_as(server)
            server.put("/api/v1/nodes", pod("other"))
            server.bookmark()
            await w.until(lambda: w.reflector.version == str(server.version))
            w.changes.clear()
            server.compact()
            server.cut()
            server.put(PODS, pod("d"))
            await w.same_as(server)
            assert [c.key[1] for c in w.changes] == ["d"]
    asyncio.run(story())
    assert len(server.seen(PODS, watch=False)) == 1  # no second list


def test_after_410_only_the_differences_are_changes(server: KubeWatch, tmp_path: Path, quick: None) -> None:
    """What happened while the watch was away is found by a new list; what stayed is not told again."""
    async def story() -> None:
        async with watching(server, tmp_path) as w:
            await w.same_as(server)
            w.changes.clear()
            server.fault = lambda r: 503
            server.cut()
            await w.until(lambda: w.reflector.failures > 0)
            server.delete(PODS, "a")
            server.put(PODS, pod("b", labels={"new": "1"}))
            server.compact()
            server.fault = lambda r: None
            await w.same_as(server)
            assert sorted((c.key[1], c.after is None, c.initial) for c in w.changes) == [("a", True, False), ("b", False, False)]
    asyncio.run(story())


def test_a_token_that_was_rotated_is_read_from_its_file(server: KubeWatch, tmp_path: Path, quick: None) -> None:
    """401 in the middle of the day: the new token is tried at once, and nobody hears of it."""
    file = tmp_path / "token"
    file.write_text("one")
    server.tokens = {"one"}
    async def story() -> None:
        async with watching(server, tmp_path, tokenFile=str(file)) as w:
            await w.same_as(server)
            server.tokens = {"two"}
            file.write_text("two")
            server.cut()
            server.put(PODS, pod("d"))
            await w.same_as(server)
            assert w.reflector.error is None or w.reflector.error.status != 401
    asyncio.run(story())


def test_a_token_that_stays_wrong_is_a_failure_that_says_so(server: KubeWatch, tmp_path: Path) -> None:
    """And the words of the server are told, not the token."""
    server.tokens = {"another"}
    async def story() -> None:
        async with watching(server, tmp_path) as w:
            await w.until(lambda: w.reflector.error is not None)
            assert str(w.reflector.trouble()) == "Kubernetes /api/v1/pods: HTTP 401: sorry 401. Check the credentials."
            assert not w.reflector.synced and w.reflector.settled
    asyncio.run(story())


FAULTS: list[Any] = [500, 503, 403, 401, 410, 429, "close", "half", "junk", "expired"]


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_broken_server_is_asked_a_handful_of_times_in_seconds(server: KubeWatch, tmp_path: Path, fault: Any) -> None:
    """Watches that fail in any way, for three seconds: the shipped informer sends hundreds to thousands of requests."""
    server.fault = lambda r: fault if r.watch else None
    async def story() -> None:
        async with watching(server, tmp_path) as w:
            await asyncio.sleep(3.0)  # the time is what is measured
            assert w.reflector.synced
            assert w.reflector.failures >= 1
            assert w.reflector.error is not None
    asyncio.run(story())
    assert 2 <= len(server.requests) <= 14


@pytest.mark.parametrize("fault", ["half", "junk", "expired", "close", 500])
def test_after_any_failure_of_a_watch_nothing_is_missing(server: KubeWatch, tmp_path: Path, quick: None, fault: Any) -> None:
    """What happened during the failure is there afterwards, and the trouble is over once a watch lasts."""
    async def story() -> None:
        async with watching(server, tmp_path) as w:
            await w.same_as(server)
            server.fault = lambda r: fault if r.watch else None
            server.cut()
            await w.until(lambda: w.reflector.trouble() is not None)
            server.put(PODS, pod("d"))
            server.delete(PODS, "c")
            server.fault = lambda r: None
            await w.same_as(server)
            await w.until(lambda: w.reflector.error is None)
    asyncio.run(story())


def test_a_half_open_connection_is_given_up(server: KubeWatch, tmp_path: Path, quick: None,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    """The server has vanished without a word: a little after the time that it was asked for, the watch is opened anew."""
    monkeypatch.setattr(module, "WATCH_S", (1, 2))
    monkeypatch.setattr(module, "OVER_S", 0.1)
    async def story() -> None:
        async with watching(server, tmp_path) as w:
            server.fault = lambda r: "stall" if r.watch and len(server.seen(PODS, watch=True)) == 1 else None
            await w.until(lambda: w.reflector.error is not None)
            assert "no answer in time" in str(w.reflector.error)
            server.put(PODS, pod("d"))
            await w.same_as(server)
    asyncio.run(story())


def test_an_object_that_cannot_be_read_does_not_stop_the_others(server: KubeWatch, tmp_path: Path) -> None:
    """Its metadata may tell which one it is; it is counted and left out, also when it was there before."""
    async def story() -> None:
        async with watching(server, tmp_path) as w:
            await w.same_as(server)
            server.put(PODS, pod("a", labels={"x": "1"}) | {"spec": {"nodeName": 7}})
            server.put(PODS, pod("d"))
            await w.until(lambda: ("shop", "d") in w.look())
            assert set(w.reflector.store()) == {("shop", n) for n in "bcd"}
            assert w.reflector.dropped == {"undecodable": 1}
            assert w.reflector.failures == 0
    asyncio.run(story())


STEPS = st.lists(st.one_of(
    st.tuples(st.just("put"), st.sampled_from("abcdef")), st.tuples(st.just("delete"), st.sampled_from("abcdef")),
    st.tuples(st.just("fault"), st.sampled_from(FAULTS)), st.tuples(st.sampled_from(["cut", "compact", "bookmark", "wait"]),
                                                                    st.just(None))), max_size=25)


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_after_any_sequence_of_failures_the_copy_is_the_server(tmp_path: Path, quick: None, steps: list[tuple[str, Any]]) -> None:
    """Objects come and go while lists and watches fail in every way; in the end, and told by changes alone, both are equal."""
    server = KubeWatch({PODS: [pod("a"), pod("b")]})
    server.chunk = 2
    async def story() -> None:
        async with watching(server, tmp_path) as w:
            faults: list[Any] = []
            server.fault = lambda r: faults.pop() if faults else None
            for what, about in steps:
                await step(w, what, about, faults)
            await w.same_as(server)
    async def step(w: Watched, what: str, about: Any, faults: list[Any]) -> None:
        if what == "put":
            server.put(PODS, pod(about))
        elif what == "delete" and ("shop", about) in server.objects[PODS]:
            server.delete(PODS, about)
        elif what == "fault":
            faults.append(about)
            server.cut()
        elif what in ("cut", "compact", "bookmark"):
            getattr(server, what)()
        else:
            w.look()
            await asyncio.sleep(0.005)
    try:
        asyncio.run(story())
    finally:
        server.close()


def test_the_token_of_a_service_account_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kubelet rotates the file: after a minute by itself, at once where the server refuses the old one."""
    from kubernetes.config import incluster_config
    for name, text in {"token": "one", "ca.crt": Path(ssl.get_default_verify_paths().cafile or certifi()).read_text()}.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    access = Access()
    assert (access.url, access.headers()) == ("https://10.0.0.1:443", {"Authorization": "bearer one"})
    (tmp_path / "token").write_text("two\n")
    assert access.headers() == {"Authorization": "bearer one"}
    assert access.renew()
    assert access.headers() == {"Authorization": "bearer two"}
    assert not access.renew()


def certifi() -> str:
    import certifi
    return certifi.where()
