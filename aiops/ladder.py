"""What every other alarm level would have paged: evidence climbs a ladder of levels beside the one that is in force.

Rows are (entity, signal) pairs that are odd right now; memory is bounded by MAX_ROWS of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from aiops.types import Bools, Entity, Floats

RUNGS: Floats = np.array([3.0 * 1.05**k for k in range(76)])
"""The levels that are watched, in nats: 3 to 116."""
CAP_SHARE, ALONE = 0.6, 4.0
"""One sample adds at most this share of a level, so that no single sample raises an alert. One that speaks for minutes (REST_S:
it is an average over as long) does where it is worth so many times the level: the next one would come late."""
COUNTED_S = 60.0
"""Many lines of a minute are no single sample: where a tick is as long as that, they may raise an alert in one."""
RECOVER_SHARE = 0.2
"""One normal sample takes this share of a level away: five in a row resolve what fires."""
REST_S, LEAST_NORMAL = 180.0, 3
"""Fewer do, but so many at least, where they speak for so long a time: what is sampled seldom is not in trouble for longer."""
JOIN_S, CLOSE_S, CLOSE_TICKS = 300.0, 60.0, 2.0
"""The correlator closes an incident after so long without an alert, and opens it again within JOIN_S of that."""
ROUNDED = 1e-9
QUIET_S = 300.0
"""Silence for longer is taken for recovery."""
MAX_ROWS = 10_000
NO_SIGNAL, UNKNOWN = -1, -2
Places = NDArray[np.int64]
_NONE: Floats = np.zeros(len(RUNGS))


def recovery(tick_s: float) -> float:
    """What one normal sample takes away from an alert that fires, as a share of its level."""
    return min(max(RECOVER_SHARE, tick_s / REST_S), 1.0 / LEAST_NORMAL)


def added(shares: Any, tick_s: float, counted: Any = False) -> Any:
    """What samples add to evidence that are worth so many times a level, float or array. counted: those that count many lines."""
    most = np.where(np.logical_and(counted, tick_s >= COUNTED_S), 1.0, CAP_SHARE)
    return np.where((shares >= ALONE) & (tick_s >= REST_S), 1.0, np.minimum(shares, most))


class Gain(NamedTuple):
    """What one sample says of one key: `nats` of evidence, `support` the factor by which supporters raise what it adds, `counted`
    whether it counts many lines.

    column: of the signal in the frame, NO_SIGNAL for what is about none, UNKNOWN for one that was not seen yet.
    """

    key: str
    entity: Entity
    column: int
    nats: float
    support: float = 1.0
    counted: bool = False


class Ladder:
    """share float64[rows, rungs]: evidence as a share of each level. on bool[rows, rungs]: an alert would be firing at it.

    top int64[rows]: the highest rung that fired, -1 for none. paged bool[rows]: the level in force raised an alert.
    last float64[entities, rungs]: when a rung last fired. counted bool[entities, rungs]: this incident is counted at
    that rung, and was not paged.
    """

    def __init__(self) -> None:
        self._keys, self._entities = Rows(), Rows()
        self.share: Floats = np.zeros((0, len(RUNGS)))
        self.on: Bools = np.zeros((0, len(RUNGS)), np.bool_)
        self.top: Places = np.zeros(0, np.int64)
        self.entity: Places = np.zeros(0, np.int64)
        self.column: Places = np.zeros(0, np.int64)
        self.seen_at: Floats = np.zeros(0)
        self.paged: Bools = np.zeros(0, np.bool_)
        self.last: Floats = np.zeros((0, len(RUNGS)))
        self.counted: Bools = np.zeros((0, len(RUNGS)), np.bool_)

    # ----------------------------------------------------------------------------------------------------- evidence
    def climb(self, at: float, gains: Sequence[Gain], tick_s: float = 0.0) -> None:
        """Adds evidence (`added`, times the support). A key appears once."""
        rows = self._places(gains)
        known = rows >= 0
        told = zip(*((g.nats, g.support, g.counted) for g in gains), strict=True)
        nats, support, counted = (np.array(x)[known, None] for x in told)
        rows, add = rows[known], added(nats / RUNGS, tick_s, counted) * support
        self.share[rows] = np.minimum(self.share[rows] + add, 1.0 + 1.0 / RUNGS)
        self.on[rows] |= self.share[rows] >= 1.0
        reached = np.where(self.on[rows], np.arange(len(RUNGS)), -1).max(axis=1, initial=-1)
        self.top[rows] = np.maximum(self.top[rows], reached)
        self.seen_at[rows] = at

    def lift(self, at: float, what: Gain, share: float) -> None:
        """At least this share of every level."""
        [row] = self._places([what])
        if row >= 0:
            self.share[row] = np.maximum(self.share[row], share)
            self.seen_at[row] = at

    def fall(self, at: float, values: Floats, fresh: Iterable[str], tick_s: float = 0.0) -> list[Gain]:
        """Normal samples: everybody who is not in `fresh` and was heard, or was silent for QUIET_S, goes down.

        Those who reach the ground leave; of them, those who were never paged and had reached the ladder are returned,
        with the highest level as `nats`.
        """
        if not self._keys.of:
            return []
        falling = self.entity >= 0
        falling[[self._keys.of[k] for k in fresh if k in self._keys.of]] = False
        heard = self.column == NO_SIGNAL
        metric = self.column >= 0
        heard[metric] = np.isfinite(values[self.column[metric]])
        rows = np.flatnonzero(falling & (heard | (at - self.seen_at > QUIET_S)))
        on = self.on[rows]
        high = np.where(on, np.minimum(self.share[rows], 1.0), self.share[rows])
        self.share[rows] = np.maximum(high - np.where(on, recovery(tick_s), RECOVER_SHARE), 0.0)
        self.share[rows] *= self.share[rows] > ROUNDED
        self.on[rows] &= self.share[rows] > 0
        left = [self._leave(row) for row in rows[~self.share[rows].any(axis=1)].tolist()]
        return [gain for gain in left if gain.nats > 0]

    def _leave(self, row: int) -> Gain:
        nats = 0.0 if self.paged[row] else self._level(row)
        gain = Gain(self._keys.names[row], self._entities.names[self.entity[row]], int(self.column[row]), nats)
        self.top[row], self.entity[row], self.column[row], self.paged[row] = -1, -1, -1, False
        self._keys.give(row)
        return gain

    def page(self, keys: Iterable[str]) -> None:
        """The level in force raised an alert for these."""
        self.paged[[self._keys.of[k] for k in keys if k in self._keys.of]] = True

    def highest(self, key: str) -> float:
        """The highest level, in nats, at which this key would have raised an alert since it was last normal; 0 for none."""
        row = self._keys.of.get(key, -1)
        return self._level(row) if row >= 0 else 0.0

    def _level(self, row: int) -> float:
        return float(RUNGS[self.top[row]]) if self.top[row] >= 0 else 0.0

    # ---------------------------------------------------------------------------------------------------- incidents
    def incidents(self, at: float, tick_s: float, seen: Bools, held: frozenset[Entity], paged: set[Entity],
                  near: Callable[[Entity], Iterable[Entity]]) -> tuple[Floats, Floats]:
        """How many incidents each rung has opened in this step, and how many of those counted before were now paged.

        What one entity and those `near` it show in close succession is one incident. Only rungs in `seen` count, and no
        entity in `held`. `paged`: entities that the level in force raised an alert for just now.
        """
        if not self._entities.of:
            return _NONE, _NONE
        window_s = JOIN_S + max(CLOSE_S, CLOSE_TICKS * tick_s)
        self._expire(at - window_s)
        lit = np.flatnonzero(self.on.any(axis=1))
        if not len(lit):
            return _NONE, _NONE
        places, on = _by_entity(self.entity[lit], self.on[lit])
        names = [self._entities.names[i] for i in places.tolist()]
        new = on & (at - self.last[places] > window_s)
        opened = self._alone(at - window_s, names, new, near)
        counted = np.where(new, opened & seen & np.array([[name not in held] for name in names]), self.counted[places])
        moved = on & counted & np.array([[name in paged] for name in names], np.bool_)
        self.last[places] = np.where(on, at, self.last[places])
        self.counted[places] = counted & ~moved
        return (new & counted).sum(axis=0, dtype=np.float64), moved.sum(axis=0, dtype=np.float64)

    def _alone(self, since: float, names: Sequence[Entity], new: Bools, near: Callable[[Entity], Iterable[Entity]]) -> Bools:
        """bool[names, rungs]: of `new`, where nobody near was firing since then, nor is begun by one before it by name."""
        out = new.copy()
        begun: dict[Entity, int] = {}
        for k in sorted(np.flatnonzero(new.any(axis=1)).tolist(), key=names.__getitem__):
            around = list(near(names[k]))
            rows = [self._entities.of[e] for e in around if e in self._entities.of]
            out[k] &= ~(self.last[rows] > since).any(axis=0) & ~out[[begun[e] for e in around if e in begun]].any(axis=0)
            begun[names[k]] = k
        return out

    def _expire(self, before: float) -> None:
        """Entities of which nobody is on the ladder any more leave when their window has passed."""
        old = self.last.max(axis=1) < before
        old[self.entity[self.entity >= 0]] = False
        for row in [r for r in self._entities.of.values() if old[r]]:
            self.last[row], self.counted[row] = -np.inf, False
            self._entities.give(row)

    # ------------------------------------------------------------------------------------------------------- memory
    def _places(self, gains: Sequence[Gain]) -> Places:
        """The row of each key, a new one where it has none; -1 where there is no room left."""
        rows = np.array([self._keys.take(g.key) for g in gains], np.int64)
        entities = [self._entities.take(g.entity) if row >= 0 else -1 for row, g in zip(rows.tolist(), gains, strict=True)]
        self._grow()
        known = rows >= 0
        self.entity[rows[known]] = np.array(entities, np.int64)[known]
        self.column[rows[known]] = np.array([g.column for g in gains], np.int64)[known]
        return rows

    def _grow(self) -> None:
        keys, entities = len(self._keys.names), len(self._entities.names)
        if keys > len(self.share):
            for name, fill in (("share", 0.0), ("on", False), ("top", -1), ("entity", -1), ("column", -1),
                               ("seen_at", -np.inf), ("paged", False)):
                setattr(self, name, _longer(getattr(self, name), keys, fill))
        if entities > len(self.last):
            self.last, self.counted = _longer(self.last, entities, -np.inf), _longer(self.counted, entities, False)

    def __bool__(self) -> bool:
        """Whether anybody stands on it."""
        return bool(self._keys.of)

    def move(self, where: Places) -> None:
        """Columns have other numbers: int64[S], UNKNOWN for one that is gone."""
        known = self.column >= 0
        self.column[known] = where[self.column[known]]

    def entities(self) -> Iterable[Entity]:
        """Those that something is known of."""
        return self._entities.of

    def find_columns(self, of: Mapping[str, int]) -> None:
        """After a restart columns may have other numbers: `of` says which by key."""
        for key, row in self._keys.of.items():
            if self.column[row] != NO_SIGNAL:
                self.column[row] = of.get(key, UNKNOWN)

    def state(self) -> dict[str, Any]:
        """What is odd right now, as plain lists."""
        keys = {k: [self._entities.names[self.entity[r]], self.share[r].tolist(), self.on[r].tolist(), int(self.top[r]),
                    int(self.column[r]), float(self.seen_at[r]), bool(self.paged[r])] for k, r in self._keys.of.items()}
        entities = {e: [self.last[r].tolist(), self.counted[r].tolist()] for e, r in self._entities.of.items()}
        return {"keys": keys, "entities": entities}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Into a ladder on which nobody stands yet; `find_columns` must follow."""
        for entity, (last, counted) in state["entities"].items():
            row = self._entities.take(entity)
            self._grow()
            self.last[row], self.counted[row] = last, counted
        for key, (entity, share, on, top, column, seen_at, paged) in state["keys"].items():
            [row] = self._places([Gain(key, entity, column, 0.0)])
            self.share[row], self.on[row], self.top[row] = share, on, top
            self.seen_at[row], self.paged[row] = seen_at, paged


class Rows:
    """Which row belongs to which name; rows that were given back are used again."""

    def __init__(self) -> None:
        self.of: dict[str, int] = {}
        self.names: list[str] = []
        self._free: list[int] = []

    def take(self, name: str) -> int:
        """The name's row, a new one where it has none; -1 where all are taken."""
        if name not in self.of:
            if not self._free:
                if len(self.names) >= MAX_ROWS:
                    return -1
                self._free.append(len(self.names))
                self.names.append("")
            self.of[name] = self._free.pop()
            self.names[self.of[name]] = name
        return self.of[name]

    def give(self, row: int) -> None:
        """The row is free again."""
        del self.of[self.names[row]]
        self.names[row] = ""
        self._free.append(row)


def _longer(array: Any, size: int, fill: float) -> Any:
    """At least so many rows, and room for as many again."""
    more = max(64, 2 * size) - len(array)
    return np.concatenate([array, np.full((more, *array.shape[1:]), fill, array.dtype)])


def _by_entity(places: Places, on: Bools) -> tuple[Places, Bools]:
    """The entities of some rows, each once, and what any of their rows says."""
    order = np.argsort(places, kind="stable")
    unique, first = np.unique(places[order], return_index=True)
    return unique, np.logical_or.reduceat(on[order], first, axis=0)
