"""A Kubernetes API server to read from, over loopback HTTP: lists in chunks, watches with bookmarks, pod logs, and failures.

`put` and `delete` change it; what happened before `compact` cannot be watched any more (410). `fault` is asked before every
answer: it returns an HTTP status, or one of `stall` (never answers), `close` (200, and the end), `half` (half an event, and the
end), `junk` (no JSON), `expired` (a watch that ends with 410), or None.
"""

from __future__ import annotations

import copy
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

Object = dict[str, Any]
Fault = int | str | None


class Request:
    def __init__(self, handler: BaseHTTPRequestHandler, sent: Any = None) -> None:
        parts = urlsplit(handler.path)
        self.method, self.sent = handler.command, sent
        self.path, self.args = parts.path, dict(parse_qsl(parts.query, keep_blank_values=True))
        self.headers = handler.headers

    @property
    def watch(self) -> bool:
        return self.args.get("watch") == "true"

    @property
    def right(self) -> tuple[str, str, str]:
        """(group, resource, verb) that a real server would ask RBAC for."""
        parts = self.path.strip("/").split("/")
        group, rest = ("", parts[2:]) if parts[0] == "api" else (parts[1], parts[3:])
        if rest[0] == "namespaces" and len(rest) > 2:
            rest = rest[2:]
        resource = rest[0] if len(rest) < 3 else f"{rest[0]}/{rest[2]}"
        if self.method == "PATCH":
            return group, resource, "patch"
        return group, resource, "get" if len(rest) > 1 else "watch" if self.watch else "list"


class KubeWatch:
    """`chunk`: the most objects in one answer. `requests`: all that were asked. `tokens`: those that are let in; empty: all."""

    def __init__(self, objects: dict[str, list[Object]] | None = None) -> None:
        self.objects: dict[str, dict[tuple[str, str], Object]] = {}
        self.chunk, self.version, self.oldest = 500, 100, 0
        self.history: list[tuple[int, str, str, Object]] = []
        self.logs: dict[tuple[str, str, str], list[list[str]]] = {}
        self.ended: dict[tuple[str, str, str], bool] = {}
        self.requests: list[Request] = []
        self.tokens: set[str] = set()
        self.fault: Callable[[Request], Fault] = lambda request: None
        self.news = threading.Condition()
        self.closed, self.generation, self.log_generation, self.bookmarks = False, 0, 0, 0
        for path, items in (objects or {}).items():
            self.objects[path] = {}
            for item in items:
                self.put(path, item)
        self.server = _Server(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    # --------------------------------------------------------------------------------------------- what a test does
    def put(self, path: str, item: Object) -> int:
        """Create or replace; the version that this made."""
        with self.news:
            self.version += 1
            item = copy.deepcopy(item)
            item["metadata"]["resourceVersion"] = str(self.version)
            key = item["metadata"].get("namespace", ""), item["metadata"]["name"]
            here = self.objects.setdefault(path, {})
            old = here.get(key, item)
            item["metadata"]["generation"] = old["metadata"].get("generation", 1) + (old.get("spec") != item.get("spec"))
            self.history.append((self.version, path, "MODIFIED" if key in here else "ADDED", item))
            here[key] = item
            self.news.notify_all()
            return self.version

    def change(self, path: str, name: str, namespace: str = "shop", **parts: Any) -> int:
        """Replace some top-level parts (spec, status, …) of an object, merged deeply."""
        return self.put(path, merged(self.objects[path][namespace, name], parts))

    def delete(self, path: str, name: str, namespace: str = "shop") -> None:
        with self.news:
            self.version += 1
            gone = copy.deepcopy(self.objects[path].pop((namespace, name)))
            gone["metadata"]["resourceVersion"] = str(self.version)
            self.history.append((self.version, path, "DELETED", gone))
            self.news.notify_all()

    def bookmark(self) -> None:
        """Tell every watch how far it has come."""
        with self.news:
            self.bookmarks += 1
            self.news.notify_all()

    def compact(self) -> None:
        with self.news:
            self.oldest, self.history = self.version, []

    def cut(self, logs: bool = False) -> None:
        """End every stream that is open, or only those of logs."""
        with self.news:
            self.generation += not logs
            self.log_generation += 1
            self.news.notify_all()

    def write(self, namespace: str, pod: str, container: str, *lines: str, restarted: bool = False,
              ended: bool = False) -> None:
        """Lines (`STAMP text`) of a container; `restarted`: of a new instance of it; `ended`: it writes no more."""
        with self.news:
            instances = self.logs.setdefault((namespace, pod, container), [[]])
            if restarted:
                instances.append([])
            instances[-1].extend(lines)
            self.ended[namespace, pod, container] = ended
            self.news.notify_all()

    def seen(self, path: str, watch: bool | None = None) -> list[Request]:
        return [r for r in list(self.requests) if r.path == path and watch in (None, r.watch)]

    def close(self) -> None:
        with self.news:
            self.closed = True
            self.news.notify_all()
        self.server.shutdown()
        self.server.server_close()

    # ---------------------------------------------------------------------------------------------- what it answers
    def answer(self, request: Request) -> tuple[int, bytes | Iterator[bytes]]:
        self.requests.append(request)
        fault = self.fault(request)
        token = request.headers.get("Authorization", "").removeprefix("Bearer ").removeprefix("bearer ")
        if self.tokens and token not in self.tokens:
            fault = 401
        if isinstance(fault, int):
            return fault, status(fault, f"sorry {fault}")
        if fault:
            return 200, self.broken(fault)
        if request.path.endswith("/log"):
            return self.log(request)
        path, namespace = collection(request.path)
        if path not in self.objects:
            return 404, status(404, "the server could not find the requested resource")
        chosen = chooser(namespace, request.args)
        return (200, self.watched(path, chosen, request)) if request.watch else self.listed(path, chosen, request)

    def patched(self, request: Request) -> tuple[int, bytes]:
        """A merge patch of the status subresource: nothing else of the object changes, and its generation stays."""
        self.requests.append(request)
        fault = self.fault(request)
        if isinstance(fault, int):
            return fault, status(fault, f"sorry {fault}")
        path, namespace = collection(request.path.removesuffix("/status").rpartition("/")[0])
        name = request.path.split("/")[-2]
        if (namespace, name) not in self.objects.get(path, {}):
            return 404, status(404, f"{name} not found")
        self.change(path, name, namespace, status=request.sent["status"])
        return 200, json.dumps(self.objects[path][namespace, name]).encode()

    def broken(self, fault: str) -> Iterator[bytes]:
        if fault == "half":
            yield b'{"type": "ADDED", "object": {"metadata": {"na'
        elif fault == "junk":
            yield b"<html>sign in</html>\n"
        elif fault == "expired":
            yield json.dumps({"type": "ERROR", "object": json.loads(status(410, "too old resource version"))}).encode() + b"\n"
        elif fault == "stall":
            with self.news:
                generation = self.generation
                while not self.closed and self.generation == generation:
                    self.news.wait(1.0)

    def listed(self, path: str, chosen: Callable[[Object], bool], request: Request) -> tuple[int, bytes]:
        with self.news:
            version, _, start = request.args.get("continue", f"{self.version}:0").partition(":")
            if int(version) < self.oldest:
                return 410, status(410, "The provided continue parameter is too old")
            items = [o for _, o in sorted(self.objects[path].items()) if chosen(o)]
        first = int(start)
        last = first + min(self.chunk, int(request.args["limit"]))
        more = {"continue": f"{version}:{last}"} if last < len(items) else {}
        partial = "as=PartialObjectMetadataList" in request.headers["Accept"]
        body = {"kind": "List", "metadata": {"resourceVersion": version, **more},
                "items": [shown(o, partial) for o in items[first:last]]}
        return 200, json.dumps(body).encode()

    def watched(self, path: str, chosen: Callable[[Object], bool], request: Request) -> Iterator[bytes]:
        version, until = int(request.args["resourceVersion"]), time.monotonic() + int(request.args["timeoutSeconds"])
        partial = "as=PartialObjectMetadata;" in request.headers["Accept"]
        generation, bookmarks = self.generation, 0
        if version < self.oldest:
            yield from self.broken("expired")
            return
        while time.monotonic() < until:
            with self.news:
                found = [(k, o) for rv, p, k, o in self.history if p == path and rv > version and chosen(o)]
                marked, bookmarks = self.bookmarks > bookmarks, self.bookmarks
                if not found and not marked:
                    self.news.wait(0.5)
                at = self.version
            if self.closed or self.generation != generation:
                return
            for kind, item in found:
                yield json.dumps({"type": kind, "object": shown(item, partial)}).encode() + b"\n"
            if found or marked:
                version = at
            if marked:
                mark = {"kind": "X", "metadata": {"resourceVersion": str(at), "creationTimestamp": None}}
                yield json.dumps({"type": "BOOKMARK", "object": mark}).encode() + b"\n"

    def log(self, request: Request) -> tuple[int, bytes | Iterator[bytes]]:
        _, _, _, _, namespace, _, pod, _ = request.path.split("/")
        instances = self.logs.get((namespace, pod, request.args["container"]), [])
        if not instances:
            return 400, status(400, "container is waiting to start")
        if request.args.get("previous") == "true":
            if len(instances) < 2:
                return 400, status(400, "previous terminated container not found")
            return 200, "".join(f"{line}\n" for line in since(instances[-2], request)).encode()
        key = namespace, pod, request.args["container"]
        return 200, self.followed(instances, lambda: self.ended[key], request)

    def followed(self, instances: list[list[str]], ended: Callable[[], bool], request: Request) -> Iterator[bytes]:
        mine, told, generation, number = instances[-1], 0, self.log_generation, len(instances)
        while True:
            with self.news:
                if told == len(mine) and len(instances) == number and not ended():
                    self.news.wait(0.5)
                new, told = mine[told:], len(mine)
            if self.closed or self.log_generation != generation:
                return
            for line in since(new, request):
                yield line.encode(errors="surrogateescape") + (b"" if line.endswith("\r") else b"\n")
            if len(instances) > number or ended():
                return


class _Server(ThreadingHTTPServer):
    daemon_threads, request_queue_size = True, 128

    def handle_error(self, *_: Any) -> None:
        """A client that went away is no news."""


def _handler(server: KubeWatch) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            code, body = server.answer(Request(self))
            self.send_response(code)
            if isinstance(body, bytes):
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                return
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for piece in body:
                self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            self.wfile.write(b"0\r\n\r\n")

        def do_PATCH(self) -> None:
            sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            code, body = server.patched(Request(self, sent))
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Tests do not print."""

    return Handler


def status(code: int, message: str) -> bytes:
    return json.dumps({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}).encode()


def collection(path: str) -> tuple[str, str]:
    """`/api/v1/namespaces/shop/pods` -> `/api/v1/pods`, `shop`."""
    before, found, rest = path.partition("/namespaces/")
    namespace, _, plural = rest.partition("/")
    return (f"{before}/{plural}", namespace) if found else (path, "")


def chooser(namespace: str, args: dict[str, str]) -> Callable[[Object], bool]:
    labels = [term.partition("=")[::2] for term in args.get("labelSelector", "").split(",") if term]
    fields = [term.partition("=")[::2] for term in args.get("fieldSelector", "").split(",") if term]

    def chosen(item: Object) -> bool:
        meta = item["metadata"]
        return (namespace in ("", meta.get("namespace", "")) and all((meta.get("labels") or {}).get(k) == v for k, v in labels)
                and all(item.get(k) == v for k, v in fields))
    return chosen


def shown(item: Object, partial: bool) -> Object:
    return {"kind": "PartialObjectMetadata", "metadata": item["metadata"]} if partial else item


def since(lines: list[str], request: Request) -> list[str]:
    """The kubelet knows only whole seconds."""
    return [line for line in lines if line[:19] >= request.args["sinceTime"][:19]]


def merged(old: Any, new: Any) -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **{k: merged(old.get(k), v) for k, v in new.items()}}
    return copy.deepcopy(new)
