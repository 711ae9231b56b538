"""A proxy in front of the real API server that misbehaves on demand: late, cut, throttled, half, gone.

It shows the API server's own certificate, so clients need only its port. Each connection is answered by a thread of its own,
one request a connection. `faults` are tried in order for each request; the first that applies is taken, else it is passed on.
"""

from __future__ import annotations

import json
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from kube.controlplane import Control

MOST = 64 * 1024
GONE = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "too old resource version", "reason": "Expired",
        "code": 410}


@dataclass(frozen=True)
class Asked:
    """One request: `raw` is all of it. `at`: by the proxy's clock."""

    at: float
    method: str
    uri: str
    raw: bytes

    @property
    def trial(self) -> bool:
        return b"dryRun" in self.raw

    @property
    def what(self) -> str:
        """`PATCH /apis/apps/v1/namespaces/shop/deployments/api/scale`, `trial ` before a dry run, `WATCH` for a watch."""
        path, _, query = self.uri.partition("?")
        method = "WATCH" if "watch=" in query else self.method
        return f"{'trial ' if self.trial else ''}{method} {path}"


Answer = Callable[["Proxy", Asked, ssl.SSLSocket], None]


@dataclass
class Fault:
    """`times`: how often it applies; None: always. `what`: a pattern of `Asked.what`, from its beginning."""

    what: str
    answer: Answer
    times: int | None = None
    took: list[Asked] = field(default_factory=list)

    def applies(self, asked: Asked) -> bool:
        return re.match(self.what, asked.what) is not None and self.times != len(self.took)


class Proxy:
    """A context manager: its port is open while it lasts. `now` stamps what was asked. `released` lets go of what is held."""

    def __init__(self, control: Control, now: Callable[[], float] = time.monotonic) -> None:
        self._control, self._now, self._lock = control, now, threading.Lock()
        self.faults: list[Fault] = []
        self.asked: list[Asked] = []
        self.released = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self._listening.getsockname()[1]}"
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(control.folder / "apiserver.crt", control.folder / "apiserver.key")
        self._upstream = ssl.create_default_context(cafile=str(control.ca))
        self._open: set[socket.socket] = set()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._listening.close()
        self.cut()

    def kubeconfig(self, name: str, token: str) -> Path:
        """As `Control.kubeconfig`, by way of the proxy."""
        path = self._control.kubeconfig(name, token)
        path.write_text(path.read_text().replace(self._control.url, self.url))
        return path

    def fault(self, what: str, answer: Answer, times: int | None = None) -> Fault:
        self.faults.append(Fault(what, answer, times))
        return self.faults[-1]

    def calm(self) -> None:
        """No faults any more, and what was asked is forgotten."""
        with self._lock:
            self.faults, self.asked = [], []

    def matching(self, what: str) -> list[Asked]:
        return [a for a in list(self.asked) if re.match(what, a.what)]

    def cut(self) -> None:
        """All connections, in the middle of whatever they do."""
        with self._lock:
            left = list(self._open)
        for one in left:
            cut(one)

    # ---------------------------------------------------------------------------------------------------- serving
    def _accept(self) -> None:
        while True:
            try:
                plain, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(plain,), name="proxied", daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        try:
            client = self._tls.wrap_socket(plain, server_side=True)
        except OSError:
            plain.close()
            return
        with self._kept(client):
            raw = _request(client)
            if raw:
                method, uri, _ = raw.split(b"\r\n", 1)[0].decode().split(" ", 2)
                asked = Asked(self._now(), method, uri, raw)
                self._chosen(asked)(self, asked, client)

    def _chosen(self, asked: Asked) -> Answer:
        with self._lock:
            self.asked.append(asked)
            for fault in self.faults:
                if fault.applies(asked):
                    fault.took.append(asked)
                    return fault.answer
        return passed

    def _kept(self, one: socket.socket) -> Kept:
        return Kept(one, self._open, self._lock)

    def upstream(self, sent: bytes) -> Kept:
        """A connection to the API server, on which this was sent."""
        plain = socket.create_connection(("127.0.0.1", self._control.port))
        made = self._upstream.wrap_socket(plain, server_hostname="127.0.0.1")
        made.sendall(sent)
        return self._kept(made)

    def answered(self, asked: Asked) -> bytes:
        """All of the API server's answer."""
        with self.upstream(_closing(asked.raw)) as server:
            return b"".join(iter(lambda: server.recv(MOST), b""))


class Kept:
    """Closes a socket at the end, and swallows what a cut connection raises."""

    def __init__(self, one: socket.socket, among: set[socket.socket], lock: threading.Lock) -> None:
        self._one, self._among, self._lock = one, among, lock

    def __enter__(self) -> Any:
        with self._lock:
            self._among.add(self._one)
        return self._one

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        with self._lock:
            self._among.discard(self._one)
        self._one.close()
        return kind is not None and issubclass(kind, OSError)


def cut(one: socket.socket) -> None:
    """As a machine that falls silent in the middle: a reset, and no word of farewell."""
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


# -------------------------------------------------------------------------------------------------- what it answers
def passed(proxy: Proxy, asked: Asked, client: ssl.SSLSocket) -> None:
    """As it comes, byte for byte, until the API server ends it."""
    with proxy.upstream(_closing(asked.raw)) as server:
        while data := server.recv(MOST):
            client.sendall(data)


def says(code: int, body: Any = None, text: str = "", **headers: str) -> Answer:
    """Not passed on: this status, with a Status object of that message, or a body of its own."""
    if body is None:
        body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": text or f"made up {code}", "code": code}
    return lambda proxy, asked, client: client.sendall(_answer(code, body, headers))


def held(proxy: Proxy, asked: Asked, client: ssl.SSLSocket) -> None:
    """Carried out at once, and answered when the client has long gone."""
    data = proxy.answered(asked)
    proxy.released.wait(60)
    client.sendall(data)


def lost(proxy: Proxy, asked: Asked, client: ssl.SSLSocket) -> None:
    """Carried out; the connection is cut before a word of the answer."""
    proxy.answered(asked)
    cut(client)


def torn(proxy: Proxy, asked: Asked, client: ssl.SSLSocket) -> None:
    """Carried out; the connection is cut within the answer."""
    data = proxy.answered(asked)
    client.sendall(data[:len(data) // 2])
    cut(client)


def halved(proxy: Proxy, asked: Asked, client: ssl.SSLSocket) -> None:
    """Carried out; the answer is whole as HTTP, and half an object as JSON."""
    head, _, body = proxy.answered(asked).partition(b"\r\n\r\n")
    body = _unchunked(body) if b"chunked" in head.lower() else body
    client.sendall(_answer(int(head.split(b" ", 2)[1]), body[:len(body) // 2], {}))


def unsent(proxy: Proxy, asked: Asked, client: ssl.SSLSocket) -> None:
    """Half of the request reaches the API server, then all is cut."""
    with proxy.upstream(asked.raw[:len(asked.raw) - 10]) as server:
        cut(server)
    cut(client)


def refused(proxy: Proxy, asked: Asked, client: ssl.SSLSocket) -> None:
    """Cut before anything was passed on."""
    cut(client)


def watched(*events: Any) -> Answer:
    """A watch with these lines, which then ends."""
    body = b"".join(e if isinstance(e, bytes) else json.dumps(e).encode() + b"\n" for e in events)
    return lambda proxy, asked, client: client.sendall(_answer(200, body, {}))


def _answer(code: int, body: Any, headers: dict[str, str]) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = {"Content-Type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()},
             "Content-Length": str(len(data)), "Connection": "close"}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {code} made up\r\n{head}\r\n".encode() + data


# ------------------------------------------------------------------------------------------------------------ HTTP
def _request(client: ssl.SSLSocket) -> bytes:
    """Head and body; empty where the client has gone."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = client.recv(MOST)
        if not more:
            return b""
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    found = re.search(rb"content-length: *(\d+)", head.lower())
    missing = (int(found[1]) if found else 0) - len(body)
    while missing > 0:
        more = client.recv(MOST)
        if not more:
            return b""
        data, missing = data + more, missing - len(more)
    return data


def _closing(raw: bytes) -> bytes:
    """The request, after which the API server ends the connection."""
    first, _, rest = raw.partition(b"\r\n")
    rest = re.sub(rb"(?im)^(connection|accept-encoding):[^\r]*\r\n", b"", rest)
    return first + b"\r\nConnection: close\r\n" + rest


def _unchunked(body: bytes) -> bytes:
    out = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        if length == 0:
            break
        out, body = out + rest[:length], rest[length + 2:]
    return out
