"""The HTTP server in a thread of its own: started, known port, stopped."""

from __future__ import annotations

import ipaddress
import logging
import socket
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastapi import FastAPI

KEPT_OPEN_S = 330
"""Longer than senders keep an idle connection (Prometheus: 5 min, prometheus/common config/http_config.go). Who is closed on
first may be sending just then: the push is reset, a warning is logged there, and it is sent again."""


class ListenError(Exception):
    """The address cannot be listened on, or must not be; the text says what to do."""


class Server:
    """Serves an app on host:port (port 0 takes a free one; `port` then tells which).

    Raises ListenError when the address is taken, or is not loopback while the app's view has no token.
    """

    def __init__(self, app: FastAPI, host: str = "127.0.0.1", port: int = 8750) -> None:
        loopback = is_loopback(host)
        if not loopback and not (app.state.view.token or app.state.view.tokens):
            raise ListenError(f"listening on {host}:{port} needs a token: anybody who can reach it could approve actions. "
                              "Configure a token, or listen on 127.0.0.1.")
        if not loopback:
            app.state.hosts = None
        self._app, self._socket = app, _bind(host, port)
        self.host, self.port = host, int(self._socket.getsockname()[1])
        self._server: Any = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where it is reached from this machine."""
        host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)  # noqa: S104 - a name, not a bind
        return f"http://[{host}]:{self.port}" if ":" in host and not host.startswith("[") else f"http://{host}:{self.port}"

    def start(self, wait_s: float = 15.0) -> None:
        """Serve in a thread; returns once requests are answered."""
        import uvicorn

        for name in ("uvicorn", "uvicorn.error"):
            logging.getLogger(name).setLevel(logging.ERROR)
        started = threading.Event()

        class Started(uvicorn.Server):
            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets)
                started.set()

        config = uvicorn.Config(self._app, log_config=None, access_log=False, lifespan="off", server_header=False,
                                timeout_graceful_shutdown=3, timeout_keep_alive=KEPT_OPEN_S, h11_max_incomplete_event_size=65536)
        self._server = Started(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name="web", daemon=True)
        self._thread.start()
        if not started.wait(wait_s):
            raise ListenError(f"the server on {self.url} did not start within {wait_s:g} s")

    def stop(self, wait_s: float = 10.0) -> None:
        """Finish what is being answered and close the port."""
        self._app.state.closing = True
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(wait_s)
        self._socket.close()


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server on `host`."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _bind(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, proto, _, address = found[0]
    except (OSError, UnicodeError, OverflowError) as e:
        raise ListenError(f"listen: {host}:{port} is no address of this machine: {e}. Write HOST:PORT.") from None
    bound = socket.socket(family, kind, proto)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
        bound.listen(128)
    except OSError as e:
        bound.close()
        raise ListenError(f"listen: {host}:{port}: {e.strerror or e}. Another aiops may be running there; "
                          "stop it or listen on another port.") from None
    return bound
