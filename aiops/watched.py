"""Which columns there are, found by name; and the series of before a restart that are still awaited.

Everything is asked for many at once: a million series come in one batch when a daemon starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from aiops.arrays import grown, renumbered
from aiops.rows import UNKNOWN, Columns, Distinct, Index, Pairs, Rows, Signals, joined, lean
from aiops.types import Bools, Entity, Floats, Ints, Signal

NO_CODES = np.zeros(0, np.int32)
NO_NUMBER = np.array([UNKNOWN], np.int32)


class Watched:
    """The columns, known by entity, name and labels; only ever added to, or renumbered by `keep`.

    `signals` is replaced, never changed: whoever holds an earlier one may go on with it.
    `reserved` bool[S]: columns from before a restart that nothing feeds yet.
    """

    def __init__(self, rows: Pairs[Any], kinds: Sequence[Signal]) -> None:
        """kinds: the meaning of each of the rows' kinds."""
        self._entities, self._kinds, self._names = rows.entities, Distinct(), Distinct()
        self._index, self._name_of = Index(), NO_CODES
        self._entity, self._kind = rows.entity, self.kinds(kinds)[rows.kind] if len(rows) else NO_CODES
        self._index.add(self._entity, self._name_of[self._kind], np.arange(len(rows)))
        self.reserved = np.ones(len(rows), np.bool_)
        self.signals = self._view(len(rows))

    def entities(self, names: Sequence[Entity], more: bool = True) -> Ints:
        """The number of each, for `find` and `add`; of new ones -1 unless there may be `more`."""
        return self._entities.codes(names) if more else self._entities.find(names)

    def kinds(self, kinds: Sequence[Signal], more: bool = True) -> Ints:
        """The same of kinds: all but id and entity of a signal."""
        codes = self._kinds.codes(kinds) if more else self._kinds.find(kinds)
        self._name_kinds()
        return codes

    def _name_kinds(self) -> None:
        new = self._names.codes((k.name, k.labels) for k in self._kinds.all[len(self._name_of):])
        self._name_of = np.append(self._name_of, new)

    def find(self, entity: Ints, kind: Ints) -> Columns:
        """int64[n]: the columns with the entity, and the kind's name and labels; -1 where there is none."""
        return self._index.find(entity, self._name(kind))

    def _name(self, kind: Ints) -> Ints:
        return np.append(self._name_of, NO_NUMBER)[kind]

    def column(self, entity: Entity, key: str) -> int | None:
        """The column of a signal as Prometheus writes it, `name{labels}`; None where there is none."""
        name, _, rest = key.partition("{")
        for it in ((name, rest.removesuffix("}")), (key, "")):
            [column] = self._index.find(self._entities.find([entity]), self._names.find([it])).tolist()
            if column >= 0:
                return int(column)
        return None

    def add(self, entity: Ints, kind: Ints, most: int) -> Columns:
        """int64[n]: new columns of these, which may be named several times, in the order in which they are named first; -1 beyond
        the `most` that there may be. A column of before with that name is found no more."""
        _, first, inverse = np.unique(joined(entity, self._name(kind)), return_index=True, return_inverse=True)
        if not len(first):
            return np.zeros(0, np.int64)
        rank = np.empty(len(first), np.int64)
        rank[np.argsort(first)] = np.arange(len(first))
        size = len(self.signals)
        columns = np.where(size + rank < most, size + rank, UNKNOWN)[inverse]
        self._append(np.sort(first)[:max(0, most - size)], entity, kind)
        return columns

    def _append(self, which: Columns, entity: Ints, kind: Ints) -> None:
        size, more = len(self.signals), len(which)
        self._entity, self._kind = (grown(x, size + more, 0) for x in (self._entity, self._kind))
        self._entity[size:size + more], self._kind[size:size + more] = entity[which], kind[which]
        self._index.add(entity[which], self._name_of[kind[which]], np.arange(size, size + more))
        self.reserved = np.append(self.reserved, np.zeros(more, np.bool_))
        self.signals = self._view(size + more)

    def _view(self, size: int) -> Signals:
        return Signals(self._entities, self._kinds, self._entity[:size], self._kind[:size])

    def keep(self, columns: Columns) -> None:
        """Only these columns stay, in this order. Of two with one name the same is found as before, or none where it is gone."""
        self._index.keep(renumbered(columns, len(self.signals)))
        entities, self._entity = lean(self._entities, self._entity[columns])
        kinds, self._kind = lean(self._kinds, self._kind[columns])
        self.reserved = self.reserved[columns]
        if entities is not self._entities or kinds is not self._kinds:
            self._rename(entities, kinds)
        self.signals = self._view(len(columns))

    def _rename(self, entities: Distinct, kinds: Distinct) -> None:
        """Names have other numbers; columns have not."""
        if kinds is not self._kinds:
            self._names, self._name_of = Distinct(), NO_CODES
        self._entities, self._kinds = entities, kinds
        self._name_kinds()
        found, self._index = self._index.places(), Index()
        self._index.add(self._entity[found], self._name_of[self._kind[found]], found)


class Told:
    """Entity, metric and labels of each raw series, by its row in the door."""

    def __init__(self) -> None:
        self._entities, self._kinds = Distinct(), Distinct()
        self._entity, self._kind = NO_CODES, NO_CODES

    def put(self, places: Columns, met: Rows) -> None:
        """These rows are now about those series: rows of entity, metric, labels, and whatever else."""
        size = int(places.max(initial=-1)) + 1
        self._entity, self._kind = grown(self._entity, size, 0), grown(self._kind, size, 0)
        self._entity[places] = self._entities.codes(met.entities.all)[met.entity]
        self._kind[places] = self._kinds.codes(k[:2] for k in met.kinds.all)[met.kind]

    def rows(self, places: Columns) -> Rows:
        """Entity, metric and labels of these."""
        return Rows(self._entities, self._kinds, self._entity, self._kind).take(places)

    def tidy(self, live: Columns) -> None:
        """Forgets the names of all rows but these, once most are of others."""
        self._entities, self._entity[live] = lean(self._entities, self._entity[live])
        self._kinds, self._kind[live] = lean(self._kinds, self._kind[live])


class Awaited:
    """Series of before a restart that were not heard again yet, with what was kept of each: `raw` float64[k, n]."""

    def __init__(self, rows: Rows, raw: Floats) -> None:
        self._rows, self._raw = rows, raw
        self._index = Index()
        self._index.add(rows.entity, rows.kind, np.arange(len(rows)))
        self._waits = np.zeros(len(rows), np.bool_)
        self._waits[self._index.places()] = True

    def take(self, met: Rows) -> tuple[Bools, Floats]:
        """Which of these come again, bool[m], and what was kept of those; they are awaited no more."""
        back = np.zeros(len(met), np.bool_)
        entity, kind = self._rows.entities.find(met.entities.all), self._rows.kinds.find(k[:2] for k in met.kinds.all)
        found = self._index.find(entity[met.entity], kind[met.kind])
        there = np.flatnonzero(found >= 0)
        there = there[self._waits[found[there]]]
        there = there[np.sort(np.unique(found[there], return_index=True)[1])]  # the first of each
        back[there], self._waits[found[there]] = True, False
        return back, self._raw[:, found[there]]

    def rest(self, keep: Bools) -> tuple[Rows, Floats]:
        """Those that are still awaited, of `keep` bool[n]."""
        still = np.flatnonzero(self._waits & keep)
        return self._rows.take(still), self._raw[:, still]

    def __bool__(self) -> bool:
        """Whether any is still awaited."""
        return bool(self._waits.any())

    def kept(self, row: int) -> Floats:
        """float64[n]: one figure that was kept of each."""
        return np.asarray(self._raw[row])
