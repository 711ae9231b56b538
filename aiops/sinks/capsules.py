"""Sees to it that each incident keeps its part of the journal: says when a capsule is to be made, and has it made.

Made in a process of its own, one at a time and with the least priority, from the journal: the step only takes notes. A capsule is
made when an incident opens, again when it has changed, a quarter of an hour apart, and for the last time a quarter of an hour
after it closed. What was learned before is linked when the incident opens: a save is replaced every quarter of an hour.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from aiops import serial
from aiops.types import Incident, Report

log = structlog.get_logger("aiops.capsules")
JSON = dict[str, Any]
AGAIN_S, TAIL_S = 900.0, 900.0
MOST_WAITING, MOST_WATCHED, MOST_NAMED = 50, 1_000, 20
MAKE_S, END_S = 600.0, 2.0
NICE = 15


class Failed(Exception):  # noqa: N818 - a verdict, not an error class
    """There is no capsule; the text says why."""


@dataclass
class _Watch:
    """One incident. `first`: what belongs to the moment it opened; `asked_at`: event time of the last order."""

    incident: Incident
    first: JSON
    asked_at: float = -math.inf
    changed: bool = True


@dataclass(frozen=True)
class Bounds:
    """How many capsules, and how many bytes of them, are kept. None are made where `keep` is 0."""

    keep: int = 200
    max_bytes: int = 1 << 30


@dataclass(frozen=True)
class Origin:
    """Where a capsule comes from: the folder of the journal and its run; `link` puts the last save of what was learned into a
    folder; `memories` reads what policies and masks remember, `level` is the alarm level in force."""

    journal: Path
    run: str
    step_s: float
    link: Callable[[Path], None]
    memories: Callable[[], Mapping[str, Any]]
    level: Callable[[], float]


class Capsules:
    """A sink; the first of all, so that what policies remember is what they knew before this step. Never raises, never waits.

    make: carries out the job in a file, raises Failed. `status` has the figures for people.
    """

    def __init__(self, folder: Path, origin: Origin, bounds: Bounds, make: Callable[[Path], None] | None = None) -> None:
        self.folder, self._origin, self._bounds = folder, origin, bounds
        self._child: subprocess.Popen[str] | None = None
        self._make = make or self._spawn
        self._watched: dict[str, _Watch] = {}
        self._waiting: dict[str, JSON] = {}
        self._ready = threading.Condition()
        self._ended = False
        self._worker: threading.Thread | None = None
        self.made = self.failed = self.skipped = 0
        self.problem = ""
        self._skipped: dict[str, None] = {}

    def status(self) -> JSON:
        """made, failed, skipped (with the names of the newest), waiting, and the last `problem`."""
        return {"made": self.made, "failed": self.failed, "skipped": self.skipped,
                "skipped_incidents": list(self._skipped)[-MOST_NAMED:], "waiting": len(self._waiting), "problem": self.problem}

    def resume(self, known: Callable[[str], JSON | None]) -> None:
        """Makes anew, for the last time, what an earlier run has left. `known`: the newest form of an incident."""
        for path in sorted(self.folder.glob("*.job")) if self._bounds.keep and self.folder.is_dir() else ():
            try:
                job = json.loads(path.read_text(encoding="utf-8"))
                form = known(job["incident"]["id"]) or job["incident"]
                form = {k: v for k, v in form.items() if k not in ("points", "feedback")}
                self._put({**job, "incident": form, "at": job["at"] + AGAIN_S + TAIL_S, "final": True, "models": None})
            except (OSError, ValueError, KeyError, TypeError) as e:
                log.warning("an order for a capsule cannot be read; it is removed", file=str(path), problem=str(e))
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Ends within seconds. What was not made is made by the next run."""
        with self._ready:
            self._ended = True
            self._ready.notify()
        if self._worker is not None:
            self._worker.join(END_S)
            self._kill()
            self._worker.join(END_S)
        for job in self._waiting.values():
            try:
                self._write(job)
            except OSError as e:
                log.error("an order for a capsule is lost", incident=job["incident"]["id"], problem=e.strerror)

    # --------------------------------------------------------------------------------------------------- in the step
    def publish(self, report: Report) -> None:
        """Takes notes of incidents that changed, and orders what is due."""
        if self._bounds.keep:
            with self._ready:
                self._note(report)

    def _note(self, report: Report) -> None:
        first: JSON | None = None
        for incident in report.incidents:
            if incident.id in self._watched:
                watch = self._watched[incident.id]
                watch.incident, watch.changed = incident, True
            elif incident.state == "open" and self._has_room(incident.id):
                first = first or self._first(report.at)
                self._watched[incident.id] = _Watch(incident, first)
                self._order(self._watched[incident.id], report.at)
        for watch in [w for w in self._watched.values() if _due(w, report.at)]:
            self._order(watch, report.at)

    def _has_room(self, name: str) -> bool:
        room = len(self._watched) < MOST_WATCHED and len(self._waiting) < MOST_WAITING
        if not room:
            self._skip(name)
        return room

    def _skip(self, name: str) -> None:
        if name not in self._skipped:
            self.skipped += 1
            self._skipped[name] = None
            log.warning("no capsule is made: too many incidents at once", incident=name, skipped=self.skipped)
        if len(self._skipped) > MOST_WATCHED:
            del self._skipped[next(iter(self._skipped))]

    def _first(self, at: float) -> JSON:
        """What is gone later: the save of what was learned before, what policies remembered, the level."""
        before = self.folder / f"{at:.3f}.before"
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not before.exists():
                self._origin.link(before)
        except (OSError, ValueError, KeyError) as e:
            log.warning("a capsule is made without what was learned", problem=getattr(e, "strerror", None) or str(e))
        return {"models": str(before) if before.is_dir() else None, "memories": dict(self._origin.memories()),
                "level": self._origin.level()}

    def _order(self, watch: _Watch, at: float) -> None:
        final = watch.incident.closed_at is not None and at >= watch.incident.closed_at + TAIL_S
        job = {"incident": serial.incident(watch.incident), "at": at, "journal": str(self._origin.journal),
               "run": self._origin.run, "step": self._origin.step_s, "keep": self._bounds.keep,
               "max_bytes": self._bounds.max_bytes, "final": final, **watch.first}
        watch.asked_at, watch.changed = at, False
        if final:
            del self._watched[watch.incident.id]
        self._put(job)

    def _put(self, job: JSON) -> None:
        with self._ready:
            self._waiting[job["incident"]["id"]] = job
            self._ready.notify()
        if self._worker is None:
            self._worker = threading.Thread(target=self._work, name="capsules", daemon=True)
            self._worker.start()

    # -------------------------------------------------------------------------------------------------- beside the step
    def _work(self) -> None:
        while (job := self._next()) is not None:
            self._carry_out(job)
            self._sweep()

    def _next(self) -> JSON | None:
        """The order that waits longest; None at the end."""
        with self._ready:
            self._ready.wait_for(lambda: bool(self._waiting) or self._ended)
            return None if self._ended else self._waiting.pop(next(iter(self._waiting)))

    def _carry_out(self, job: JSON) -> None:
        name = job["incident"]["id"]
        try:
            self._make(self._write(job))
            self.made, self.problem = self.made + 1, ""
        except (Failed, OSError) as e:
            if not self._ended:
                self.failed, self.problem = self.failed + 1, f"{name}: {getattr(e, 'strerror', None) or e}"
                log.error("a capsule cannot be made", incident=name, folder=str(self.folder), problem=self.problem)

    def _write(self, job: JSON) -> Path:
        path = self.folder / f"{job['incident']['id']}.job"
        new = path.with_suffix(".job.new")
        new.write_text(json.dumps(job, default=str), encoding="utf-8")
        new.chmod(0o600)
        new.replace(path)
        return path

    def _sweep(self) -> None:
        """Links of saves that no order needs any more: a capsule that was made once has its part of them."""
        with self._ready:
            needed = {job["models"] for job in self._waiting.values()}
            idle = [folder for folder in self.folder.glob("*.before") if str(folder) not in needed]
        for folder in idle:
            shutil.rmtree(folder, ignore_errors=True)

    def _spawn(self, path: Path) -> None:
        """In a process of its own. Raises Failed."""
        command = [sys.executable, "-m", "aiops.capsules", str(path)]
        try:
            self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,  # noqa: S603
                                           stderr=subprocess.PIPE, text=True, errors="replace",
                                           env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))})
            os.setpriority(os.PRIO_PROCESS, self._child.pid, NICE)
            if self._ended:  # `close` looked for a child before there was one
                self._kill()
            _, said = self._child.communicate(timeout=MAKE_S)
        except subprocess.TimeoutExpired:
            self._kill()
            raise Failed(f"was not made within {MAKE_S:.0f} s") from None
        if self._child.returncode:
            raise Failed((said.strip().splitlines() or ["the process was ended"])[-1][:500])

    def _kill(self) -> None:
        child = self._child
        if child is not None and child.poll() is None:
            child.kill()
            child.wait()


def _due(watch: _Watch, at: float) -> bool:
    """A quarter of an hour after the last time if it has changed, and when its last quarter of an hour is over."""
    closed_at = watch.incident.closed_at
    if closed_at is not None and at >= closed_at + TAIL_S:
        return True
    return at - watch.asked_at >= AGAIN_S and watch.changed
