"""Points of signals under alert, filed under the incidents they belong to and kept within bounds."""

from __future__ import annotations

import math
import sqlite3
from collections import OrderedDict, deque
from collections.abc import Iterable

from aiops.types import Incident, Point

Key = tuple[str, str]
LEAD_UP = 240  # points remembered before an incident opens, so that its plots show what led to it
LEAD_KEYS = 2000  # signals for which that is done at once


class Filing:
    """Which incidents a point belongs to. Bounded memory; the oldest signals are forgotten first."""

    def __init__(self, signals_per_incident: int = 32) -> None:
        self.limit = signals_per_incident
        self._watched: dict[Key, tuple[str, ...]] = {}
        self._open: dict[str, tuple[Key, ...]] = {}
        self._recent: OrderedDict[Key, deque[Point]] = OrderedDict()

    def file(self, incidents: Iterable[Incident], points: Iterable[Point]) -> list[tuple[str, Point]]:
        """(incident id, point) for everything that is to be stored now."""
        out: list[tuple[str, Point]] = []
        fresh = [i for i in incidents if i.state == "open"]
        for incident in fresh:
            out += self._follow(incident)
        for point in points:
            key = (point.entity, point.signal)
            out += [(incident, point) for incident in self._watched.get(key, ())]
            self._remember(key, point)
        return out

    def forget(self, closed: Iterable[str]) -> None:
        """These incidents get no more points."""
        for incident in closed:
            if self._open.pop(incident, None) is not None:
                self._index()

    def _follow(self, incident: Incident) -> list[tuple[str, Point]]:
        """Start watching signals that this incident has gained; hand out what is remembered of them."""
        have = self._open.get(incident.id, ())
        alerts = sorted(incident.alerts, key=lambda a: -a.strength)
        gained = [k for k in dict.fromkeys((a.entity, a.signal) for a in alerts) if k not in have]
        gained = gained[: max(0, self.limit - len(have))]
        if gained or incident.id not in self._open:
            self._open[incident.id] = (*have, *gained)
            self._index()
        return [(incident.id, p) for key in gained for p in self._recent.get(key, ())]

    def _index(self) -> None:
        watched: dict[Key, tuple[str, ...]] = {}
        for incident, keys in self._open.items():
            for key in keys:
                watched[key] = (*watched.get(key, ()), incident)
        self._watched = watched

    def _remember(self, key: Key, point: Point) -> None:
        self._recent.setdefault(key, deque(maxlen=LEAD_UP)).append(point)
        self._recent.move_to_end(key)
        if len(self._recent) > LEAD_KEYS:
            self._recent.popitem(last=False)


def write(db: sqlite3.Connection, filed: Iterable[tuple[str, Point]], limit: int) -> None:
    """Store points inside the caller's transaction; plots that grew beyond `limit` points are thinned."""
    grown: set[int] = set()
    ids: dict[tuple[str, str, str], int] = {}
    for incident, p in filed:
        name = (incident, p.entity, p.signal)
        plot = ids.get(name) or ids.setdefault(name, _plot(db, *name))
        row = (plot, p.at, *(_null(v) for v in (p.value, p.expected, p.lower, p.upper)))
        db.execute("INSERT OR REPLACE INTO points VALUES (?,?,?,?,?,?)", row)
        grown.add(plot)
    for plot in grown:
        _thin(db, plot, limit)


def read(db: sqlite3.Connection, incident: str) -> list[dict[str, object]]:
    """All points of an incident, by signal and then by time, in the form of the HTTP interface."""
    rows = db.execute(
        "SELECT p.at, l.entity, l.signal, p.value, p.expected, p.lower, p.upper FROM plots l "
        "JOIN points p ON p.plot = l.id WHERE l.incident = ? ORDER BY l.id, p.at", (incident,))
    return [dict(row) for row in rows]


def _plot(db: sqlite3.Connection, incident: str, entity: str, signal: str) -> int:
    name = tuple(v.encode("utf-8", "replace").decode() for v in (incident, entity, signal))
    db.execute("INSERT OR IGNORE INTO plots (incident, entity, signal) VALUES (?,?,?)", name)
    row = db.execute("SELECT id FROM plots WHERE incident = ? AND entity = ? AND signal = ?", name)
    return int(row.fetchone()[0])


def _thin(db: sqlite3.Connection, plot: int, limit: int) -> None:
    """Every second point goes: a long incident keeps its whole length at half the resolution."""
    if db.execute("SELECT count(*) FROM points WHERE plot = ?", (plot,)).fetchone()[0] <= limit:
        return
    db.execute("DELETE FROM points WHERE plot = ?1 AND at IN (SELECT at FROM (SELECT at, row_number() "
               "OVER (ORDER BY at) AS n FROM points WHERE plot = ?1) WHERE n % 2 = 0)", (plot,))


def _null(value: float) -> float | None:
    return value if math.isfinite(value) else None
