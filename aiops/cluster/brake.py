"""The hand brake: a stop that holds before each write, at once, without waiting for the next step.

The pipeline hears of every stop as a command, so that a replay stops where the daemon did; the brake is what keeps the worker
from writing meanwhile. It is on disk before anybody is told that it was pulled, so it also holds after a crash.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from aiops.changes import Change, value_at
from aiops.interfaces import NOT_NOW, Cluster, Refused, Retry
from aiops.stops import Stop, Stops
from aiops.types import Action, Command

RUNS = frozenset({"", "false", "no", "off", "0"})
"""What says that nothing is stopped; whatever else stands there stops, however it is spelt."""


class Brake:
    """Thread-safe. path: where it is kept, None for nowhere. Raises ValueError where that file is not to be understood."""

    def __init__(self, path: Path | None = None) -> None:
        self._path, self._stops, self._mutex = path, Stops(), threading.Lock()
        if path is not None and path.exists():
            try:
                self._stops.restore(json.loads(path.read_text(encoding="utf-8")))
            except (ValueError, KeyError, TypeError):
                raise ValueError(f"{path}: cannot be understood, and might say that everything is to be stopped. "
                                 "Remove it where it does not.") from None

    @property
    def stops(self) -> Stops:
        """For reading only."""
        return self._stops

    def obey(self, command: Command) -> None:
        """In force before it returns. Raises OSError where it cannot be kept: it holds, but not over a crash."""
        with self._mutex:
            self._stops.obey(command)
            if self._path is not None:
                part = self._path.with_suffix(".part")
                part.write_text(json.dumps(self._stops.state()), encoding="utf-8")
                part.replace(self._path)

    def unheard(self, known: Iterable[Stop], now: float) -> list[Command]:
        """What the pipeline has to be told after a crash, to know what the brake knows. known: the stops that it knows."""
        there = {s.source: s for s in known}
        ours = {s.source: s for s in self._stops.standing}
        told = [Command(s.at, "freeze" if s.freeze else "stop", s.source, s.by, reason=s.reason)
                for s in ours.values() if there.get(s.source) != s]
        return told + [Command(now, "start", source, "a restart") for source in there.keys() - ours.keys()]

    def gate(self, action: Action) -> None:
        """Before each write. Raises Refused while everything is stopped; undoing passes, and waits (Retry) while it is frozen."""
        stops = self._stops
        if action.state == "undo":
            if stops.frozen:
                raise Retry(stops.reason, 10.0)
        elif stops.standing:
            raise Refused(f"{NOT_NOW}{stops.reason}.")

    def counted(self) -> Mapping[str, int]:
        """1 for each source that stops."""
        return {"people": 0} | {s.source or "people": 1 for s in self._stops.standing}


class StopMap:
    """A ConfigMap whose key `stop` is obeyed; `freeze` and `reason` may stand beside it. entity: `configmap/NAMESPACE/NAME`."""

    def __init__(self, entity: str) -> None:
        self.entity = entity

    def __call__(self, action: Action, changes: Sequence[Change], cluster: Cluster) -> None:
        """The check: read anew before each turn. Undoing does not wait for it. Raises Refused where it says stop."""
        said = stop_of(cluster.get(self.entity)) if action.state != "undo" else None
        if said:
            raise Refused(f"{NOT_NOW}stopped by {said.by or self.entity}{': ' + said.reason if said.reason else ''}.")


class Said(NamedTuple):
    """What a place says: whether to freeze, why, and who, where `aiops stop` wrote it there."""

    freeze: bool
    reason: str
    by: str = ""


def stop_of(found: Any) -> Said | None:
    """What a ConfigMap says that says stop; None where it does not, or is not there."""
    data = value_at(found, ("data",)) or {}
    frozen = _says(data.get("freeze"))
    said = Said(frozen, str(data.get("reason", ""))[:500], str(data.get("by", ""))[:100])
    return said if frozen or _says(data.get("stop")) else None


def stop_data(command: Command) -> dict[str, str]:
    """The data of a ConfigMap that says what a person said, for all replicas."""
    stops = command.verb != "start"
    return {"stop": str(stops).lower(), "freeze": str(command.verb == "freeze").lower(),
            "reason": command.reason if stops else "", "by": command.by if stops else ""}


def stop_in(file: Path) -> Said | None:
    """The same of a file: while it is there, it stops; `freeze` in its first line freezes, other text is the reason.

    Raises OSError where it is there and cannot be read, but for a moment at which it goes away.
    """
    with contextlib.suppress(FileNotFoundError):
        text = file.read_text(encoding="utf-8", errors="replace")[:500].strip()
        return None if text.lower() in RUNS - {""} else Said(text.lower().startswith("freeze"), text)
    return None


def _known(stop: Stop | None) -> Said | None:
    """What a place said when it was looked at last."""
    return Said(stop.freeze, stop.reason, stop.by if stop.by != stop.source else "") if stop else None


def _says(value: object) -> bool:
    return str(value or "").strip().lower() not in RUNS


class Watched:
    """A source that looks whether others say stop, at places that are not the command line. `told` gets what is new.

    places: name of a place -> what it says now. Whoever cannot be read keeps what it said last, and fails the poll.
    """

    def __init__(self, places: Mapping[str, Callable[[], Said | None]], brake: Brake,
                 told: Callable[[Command], None], interval_s: float) -> None:
        self.name, self.interval_s = "stop", interval_s
        self._places, self._brake, self._told = places, brake, told

    def poll(self, now: float, into: object) -> None:
        """Raises what reading the last place that failed raised, after all were looked at."""
        failed: Exception | None = None
        for place, read in self._places.items():
            try:
                said = read()
            except Exception as e:  # noqa: BLE001 - the other places are looked at all the same
                failed = e
                continue
            before = self._brake.stops.by(place)
            if said != _known(before):
                verb: Literal["start", "freeze", "stop"] = "start" if said is None else "freeze" if said.freeze else "stop"
                self._say(Command(now, verb, place, said.by or place if said else place, reason=said.reason if said else ""))
        for stop in self._brake.stops.standing:
            if stop.source and stop.source not in self._places:
                self._say(Command(now, "start", stop.source, stop.source, reason="it is not configured any more"))
        if failed:
            raise RuntimeError(str(getattr(failed, "reason", failed))) from None

    def _say(self, command: Command) -> None:
        self._told(command)
        self._brake.obey(command)

    def close(self) -> None:
        """Nothing is held open."""
