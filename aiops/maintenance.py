"""Windows of maintenance: of whom nothing is learned, told or touched, because people are working there on purpose."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from aiops.humanise import utc
from aiops.types import Command, Entity
from aiops.windows import Once, When

CONFIGURED = "configuration"
MAX_WINDOWS = 200
KEEP_S = 24 * 3600.0
"""A window that is over stays in the list for a day."""


@dataclass(frozen=True, slots=True)
class Maintenance:
    """One window. `entities` are globs over whole entities (`node//gpu-*`), `namespace` one over their namespace."""

    id: str
    entities: tuple[str, ...]
    when: When
    namespace: str = "*"
    reason: str = ""
    by: str = ""

    def matches(self, entity: Entity) -> bool:
        """Whether the window names this entity; what belongs to it is the caller's business."""
        return _namespace(entity, self.namespace) and any(fnmatch.fnmatchcase(entity, glob) for glob in self.entities)

    def told(self, until: float) -> str:
        """`maintenance mnt-1f until 2026-11-21 22:00:00 UTC: new disks`."""
        return f"maintenance {self.id} until {utc(until)}" + (f": {self.reason}" if self.reason else "")


class Calendar:
    """All windows: those of the configuration, and those that people start and end. `windows` is replaced, never changed."""

    def __init__(self, configured: Sequence[Maintenance] = ()) -> None:
        self.windows: tuple[Maintenance, ...] = tuple(configured)

    def active(self, now: float) -> list[tuple[Maintenance, float, float]]:
        """The windows that `now` lies in, each with begin and end."""
        around = ((w, w.when.around(now)) for w in self.windows)
        return [(w, *times) for w, times in around if times]

    def obey(self, command: Command) -> str:
        """Start or end a window as a person said; a note where that cannot be done, else empty."""
        if command.verb == "maintenance_start":
            return self._start(command)
        if command.verb == "maintenance_end":
            return self._end(command)
        return ""

    def _start(self, c: Command) -> str:
        since = c.time if c.since is None else c.since
        if any(w.id == c.target for w in self.windows) or not c.entities or not since < c.until < math.inf:
            return f"maintenance {c.target}: not started: it is known already, or names nobody, or has no length."
        said = [w for w in self._said() if not (isinstance(w.when, Once) and c.time - w.when.until > KEEP_S)]
        if len(said) >= MAX_WINDOWS:
            return f"maintenance {c.target}: not started: there are {MAX_WINDOWS} windows already. End some."
        new = Maintenance(c.target, c.entities, Once(since, c.until), "*", c.reason, c.by or "somebody")
        self.windows = (*self._configured(), *said, new)
        return ""

    def _end(self, c: Command) -> str:
        found = next((w for w in self._said() if w.id == c.target), None)
        if found is None or not isinstance(found.when, Once):
            return f"maintenance {c.target}: not ended: no window of that name was started by a person."
        ended = replace(found, when=Once(min(found.when.since, c.time), min(found.when.until, c.time)))
        self.windows = tuple(ended if w.id == c.target else w for w in self.windows)
        return ""

    def _said(self) -> list[Maintenance]:
        return [w for w in self.windows if w.by != CONFIGURED]

    def _configured(self) -> list[Maintenance]:
        return [w for w in self.windows if w.by == CONFIGURED]

    def state(self) -> list[dict[str, Any]]:
        """What people started, as plain JSON; the rest stands in the configuration."""
        return [as_json(w) for w in self._said()]

    def restore(self, state: Iterable[Mapping[str, Any]]) -> None:
        self.windows = (*self._configured(), *map(from_json, state))


def shown(windows: Iterable[Maintenance], now: float) -> list[dict[str, Any]]:
    """The windows for people: as `as_json`, with `state` and, while active, `ends_at`; the active first, then by name."""
    out = []
    for w in windows:
        around = w.when.around(now)
        over = isinstance(w.when, Once) and w.when.until <= now
        out.append({**as_json(w), "state": "active" if around else "over" if over else "planned",
                    "ends_at": around[1] if around else None})
    return sorted(out, key=lambda form: (("active", "planned", "over").index(form["state"]), form["id"]))


def as_json(w: Maintenance) -> dict[str, Any]:
    """The form of the state file and of the API."""
    when = {"from": w.when.since, "until": w.when.until} if isinstance(w.when, Once) else {
        "weekly": str(w.when).rpartition(" ")[0], "timezone": w.when.zone}
    return {"id": w.id, "entities": list(w.entities), "namespace": w.namespace, "reason": w.reason, "by": w.by, **when}


def from_json(form: Mapping[str, Any]) -> Maintenance:
    """The single window that `as_json` wrote. Raises KeyError, TypeError or ValueError for another form."""
    when = Once(float(form["from"]), float(form["until"]))
    return Maintenance(form["id"], tuple(form["entities"]), when, form["namespace"], form["reason"], form["by"])


def _namespace(entity: Entity, glob: str) -> bool:
    parts = entity.split("/", 2)
    return glob == "*" or fnmatch.fnmatchcase(parts[1] if len(parts) > 1 else "", glob)
