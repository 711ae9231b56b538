"""What is not live, on the page: `aiops replay --serve` plays a recording into it, `aiops run --demo` a simulated cluster."""

from __future__ import annotations

import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

from aiops import __version__
from aiops.clock import WallClock
from aiops.cluster.actuator import SimulatedActuator
from aiops.cluster.checks import not_paused
from aiops.demo.tour import Tour
from aiops.demo.world import World
from aiops.desk import Desk, Vitals
from aiops.intake import Intake
from aiops.interfaces import Sink
from aiops.loop import advance
from aiops.pipeline import Pipeline
from aiops.replay import Result
from aiops.secretfile import Secret
from aiops.sinks.console import Console
from aiops.sinks.metrics import Metrics
from aiops.store.sqlite import Store
from aiops.web.app import create_app
from aiops.web.server import Server

STARTED_AT = 1_789_992_000.0
"""When the demo begins, in its own time: 2026-09-21 12:00 UTC, a Monday. Every demo is the same until a person has a say."""
TICK_S, WARM_S, SPEED = 15.0, 7200.0, 20.0
SHOWN_EVERY_S = 300.0
LEARNING = "Two hours without a fault go by first, as fast as they can, so that it is known what is normal."
KEEP, KEEP_PLOTS = 5000, 200
"""Incidents that are kept, and of how many the plots."""


class Plays(Protocol):
    folder: Path
    pipeline: Pipeline

    def play(self, speed: float = 0.0, *, sinks: tuple[object, ...] = ()) -> Result: ...


def serve_replay(player: Plays, speed: float, listen: str) -> int:
    """Plays it `speed` times as fast as it happened and keeps the page up until interrupted. Returns the exit code."""
    clock = WallClock()

    def desk(store: Store, vitals: Vitals, metrics: Metrics) -> Desk:
        states = [_source(f"recording {player.folder.name}")]
        return Desk(store, vitals, metrics, "replay", clock.now(), clock.now, lambda: states, lambda command: None,
                    stale_s=float("inf"))
    with _page(player.pipeline, desk, listen) as (url, sinks):
        _say(f"aiops {__version__}: {player.folder.name} at {speed:g} times its speed. Page: {url}")
        try:
            player.play(speed, sinks=(*sinks, Console()))
            _say("The recording has ended. The page stays up; Ctrl-C ends it.")
            threading.Event().wait()
        except KeyboardInterrupt:
            _say("")
    return 0


def serve_demo(pipeline: Pipeline, mode: str, listen: str, token: Secret | None = None) -> int:
    """A simulated cluster in which one thing after the other goes wrong, on the page until SIGINT or SIGTERM. Returns the exit
    code. Raises ListenError."""
    demo, stop = Demo(pipeline), threading.Event()

    def desk(store: Store, vitals: Vitals, metrics: Metrics) -> Desk:
        return Desk(store, vitals, metrics, mode, STARTED_AT, lambda: demo.at, lambda: [_source("simulated cluster", demo.at)],
                    demo.intake.command, token, stale_s=float("inf"), simulation=demo.text)
    with _until_signal(stop), _page(pipeline, desk, listen) as (url, sinks):
        _say(f"aiops {__version__}: {mode} mode on a simulated cluster, {SPEED:g} times as fast as life. Page: {url}")
        _say(LEARNING)
        demo.run(sinks, stop, WallClock())
    return 0


class Demo:
    """The simulated cluster and what is done to it, in its own time: `at`, UTC seconds. Memory is bounded."""

    def __init__(self, pipeline: Pipeline, say: Callable[[str], object] | None = None) -> None:
        self.tour = Tour(say or _say)
        self.world, self.intake, self.at = World(0, [self.tour], TICK_S), Intake(TICK_S), STARTED_AT
        self._pipeline, self._actuator = pipeline, SimulatedActuator(self.world.cluster, [not_paused])

    def run(self, sinks: tuple[Sink, ...], stop: threading.Event, clock: WallClock) -> None:
        """Two calm hours without a pause, of which little is shown, then SPEED times as fast as life, until `stop`."""
        while not self.warm and not stop.is_set():
            self.tick(sinks if self.at % SHOWN_EVERY_S == 0 else ())
        self.tour.set_out(self.world, self.at)
        while not stop.is_set():
            began = clock.monotonic()
            self.tick((*sinks, self.tour))
            stop.wait(max(0.0, TICK_S / SPEED - (clock.monotonic() - began)))

    def tick(self, sinks: tuple[Sink, ...]) -> None:
        """What is measured in one interval, through the pipeline; what it decides is done in the simulated cluster."""
        self.at += TICK_S
        self.world.tick(self.at, self.intake)
        for batch in self.intake.drain(self.at, tuple(self._actuator.collect())):
            advance(self._pipeline, batch, self._actuator, sinks)

    @property
    def warm(self) -> bool:
        return self.at >= STARTED_AT + WARM_S

    def text(self) -> str:
        """For the page, two lines: what this is, and what goes on in truth."""
        truth = self.tour.text() if self.warm else f"all is calm. {LEARNING}"
        return f"This cluster is made up and runs {SPEED:g} times as fast as life. Nothing else is touched.\nIn truth: {truth}"


@contextmanager
def _page(pipeline: Pipeline, desk: Callable[[Store, Vitals, Metrics], Desk],
          listen: str) -> Iterator[tuple[str, tuple[Sink, ...]]]:
    """A page over a store in a temporary folder: its address, and the sinks that feed it."""
    with tempfile.TemporaryDirectory(prefix="aiops-show-") as scratch, closing(
            Store(Path(scratch) / "show.sqlite", KEEP, KEEP_PLOTS)) as store:
        vitals, metrics = Vitals(pipeline), Metrics(__version__)
        host, _, port = listen.rpartition(":")
        server = Server(create_app(desk(store, vitals, metrics)), host.strip("[]"), int(port))
        try:
            server.start()
            yield server.url, (store, vitals, metrics)
        finally:
            server.stop()


def _source(name: str, read_at: float | None = None) -> dict[str, Any]:
    return {"name": name, "state": "ok", "error": "", "last_success": read_at, "failures": 0}


@contextmanager
def _until_signal(stop: threading.Event) -> Iterator[None]:
    """SIGINT and SIGTERM set `stop`."""
    before = {n: signal.signal(n, lambda *_: stop.set()) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
