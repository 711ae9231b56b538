"""`aiops replay --serve`: a recording played into the page."""

from __future__ import annotations

import sys
import tempfile
import threading
from pathlib import Path
from typing import Protocol

from aiops import __version__
from aiops.clock import WallClock
from aiops.desk import Desk, Vitals
from aiops.pipeline import Pipeline
from aiops.replay import Result
from aiops.sinks.console import Console
from aiops.sinks.metrics import Metrics
from aiops.store.sqlite import Store
from aiops.web.app import create_app
from aiops.web.server import Server


class Plays(Protocol):
    folder: Path
    pipeline: Pipeline

    def play(self, speed: float = 0.0, *, sinks: tuple[object, ...] = ()) -> Result: ...


def serve_replay(player: Plays, speed: float, listen: str) -> int:
    """Plays it `speed` times as fast as it happened and keeps the page up until interrupted. Returns the exit code."""
    clock = WallClock()
    with tempfile.TemporaryDirectory(prefix="aiops-replay-") as scratch:
        store, vitals, metrics = Store(Path(scratch) / "replay.sqlite"), Vitals(player.pipeline), Metrics(__version__)
        states = [{"name": f"recording {player.folder.name}", "state": "ok", "error": "", "last_success": None, "failures": 0}]
        desk = Desk(store, vitals, metrics, "replay", clock.now(), clock.now, lambda: states, lambda command: None,
                    stale_s=float("inf"))
        host, _, port = listen.rpartition(":")
        server = Server(create_app(desk), host.strip("[]"), int(port))
        server.start()
        sys.stderr.write(f"aiops {__version__}: {player.folder.name} at {speed:g} times its speed. Page: {server.url}\n")
        try:
            player.play(speed, sinks=(store, vitals, metrics, Console()))
            sys.stderr.write("The recording has ended. The page stays up; Ctrl-C ends it.\n")
            threading.Event().wait()
        except KeyboardInterrupt:
            sys.stderr.write("\n")
        finally:
            server.stop()
            store.close()
    return 0
