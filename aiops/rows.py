"""A million names as two arrays: what is (entity, something) is kept as the numbers of both among the few distinct ones."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from aiops.types import Bools, Entity, Ints, Signal

Row = TypeVar("Row")
Columns = NDArray[np.int64]
_KIND = attrgetter("name", "labels", "unit", "direction", "min_abs", "min_rel", "additive", "resource", "limit", "horizon_s")
UNKNOWN = -1


class Distinct:
    """Values, each with a number by order of appearance. Only ever added to: `lean` makes another one."""

    def __init__(self, values: Iterable[Any] = ()) -> None:
        self.number: dict[Any, int] = dict(zip(dict.fromkeys(values), itertools.count(), strict=False))
        self.all: list[Any] = list(self.number)

    def codes(self, values: Iterable[Any]) -> Ints:
        """The number of each, int32[n]; those that are new get one."""
        values, number = list(values), self.number
        new = [value for value in dict.fromkeys(values) if value not in number]
        number.update(zip(new, itertools.count(len(number)), strict=False))
        self.all.extend(new)
        return np.fromiter(map(number.__getitem__, values), np.int32, len(values))

    def code(self, value: Any) -> int:
        """The number of one value; a new one gets one."""
        known = self.number.get(value)
        if known is None:
            known = self.number[value] = len(self.all)
            self.all.append(value)
        return known

    def find(self, values: Iterable[Any]) -> Ints:
        """The number of each, int32[n], -1 for those that are not there."""
        return np.array([self.number.get(value, UNKNOWN) for value in values], np.int32)


def compact(distinct: Distinct, codes: Ints) -> tuple[list[Any], Ints]:
    """The values that these codes name, and the number of each among those."""
    used = np.zeros(len(distinct.all), np.bool_)
    used[codes] = True
    return [distinct.all[k] for k in np.flatnonzero(used).tolist()], (np.cumsum(used, dtype=np.int32) - 1)[codes]


def lean(distinct: Distinct, codes: Ints) -> tuple[Distinct, Ints]:
    """As it is, or once most of its values are named by none of these codes, anew and without those; and the codes in it.

    What is renumbered is less than what is forgotten, so that who does this again and again works for what is gone only.
    """
    used = np.zeros(len(distinct.all), np.bool_)
    used[codes] = True
    if 2 * np.count_nonzero(used) >= len(used):
        return distinct, codes
    mine, codes = compact(distinct, codes)
    return Distinct(mine), codes


class Pairs(Sequence[Row]):
    """Row k is made of `entities.all[entity[k]]` and `kinds.all[kind[k]]`; both int32[n]. Never changed, but for more distinct
    ones that no row here names: safe beside a running step."""

    __slots__ = ("entities", "entity", "first", "kind", "kinds")

    def __init__(self, entities: Distinct, kinds: Distinct, entity: Ints, kind: Ints, first: int = 0) -> None:
        self.entities, self.kinds, self.entity, self.kind, self.first = entities, kinds, entity, kind, first

    def _row(self, k: int, entity: Entity, kind: Any) -> Row:
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.entity)

    @overload
    def __getitem__(self, k: int) -> Row: ...
    @overload
    def __getitem__(self, k: slice) -> Pairs[Row]: ...
    def __getitem__(self, k: int | slice) -> Row | Pairs[Row]:
        """A row, or some of them that follow each other, which keep their numbers."""
        if isinstance(k, slice):
            first, _, step = k.indices(len(self))
            if step != 1:
                raise ValueError("rows are cut without steps")
            return type(self)(self.entities, self.kinds, self.entity[k], self.kind[k], self.first + first)
        k = range(len(self))[k]
        return self._row(self.first + k, self.entities.all[self.entity[k]], self.kinds.all[self.kind[k]])

    def distinct(self) -> tuple[list[Entity], list[Any]]:
        """The entities and kinds that there are rows of."""
        return compact(self.entities, self.entity)[0], compact(self.kinds, self.kind)[0]

    def in_order(self) -> list[Entity]:
        """The entities in the order of their first rows."""
        first = np.sort(np.unique(self.entity, return_index=True)[1])
        return [self.entities.all[k] for k in self.entity[first].tolist()]

    def of_entities(self, names: Collection[Entity]) -> Bools:
        """bool[n]: which rows are about one of these."""
        codes = self.entities.find(names)
        wanted = np.zeros(len(self.entities.all), np.bool_)
        wanted[codes[codes >= 0]] = True
        return wanted[self.entity]

    def by_entity(self, told: Callable[[Entity], Any], dtype: Any = np.float64) -> NDArray[Any]:
        """[n, ...]: what is told of each row's entity; each one is asked about once."""
        return _each(self.entities, self.entity, told, dtype)

    def by_kind(self, told: Callable[[Any], Any], dtype: Any = np.float64) -> NDArray[Any]:
        """[n, ...]: what is told of each row's kind; each one is asked about once."""
        return _each(self.kinds, self.kind, told, dtype)


def _each(distinct: Distinct, codes: Ints, told: Callable[[Any], Any], dtype: Any) -> NDArray[Any]:
    mine, place = compact(distinct, codes)
    return np.array([told(one) for one in mine], dtype)[place]


class Rows(Pairs[tuple[Any, ...]]):
    """Rows of names, as they are saved: an entity, and what follows it in the row."""

    __slots__ = ()

    def _row(self, k: int, entity: Entity, kind: Any) -> tuple[Any, ...]:
        return entity, *kind

    @classmethod
    def of(cls, rows: Sequence[Sequence[Any]]) -> Rows:
        """Of plain rows, as earlier versions saved them; as it is if it is one."""
        if isinstance(rows, Rows):
            return rows
        entities, kinds = Distinct(), Distinct()
        entity, kind = entities.codes(row[0] for row in rows), kinds.codes(tuple(row[1:]) for row in rows)
        return cls(entities, kinds, entity, kind)

    def take(self, columns: Columns) -> Rows:
        """These rows, in this order; what only the others name is left out."""
        return Rows(*_taken(self, columns))

    def joined(self, more: Rows) -> Rows:
        """These, and then those."""
        entities, kinds = Distinct(self.entities.all), Distinct(self.kinds.all)
        entity, kind = entities.codes(more.entities.all), kinds.codes(more.kinds.all)
        return Rows(entities, kinds, np.append(self.entity, entity[more.entity]), np.append(self.kind, kind[more.kind]))

    def state(self) -> dict[str, Any]:
        """As lists and arrays."""
        kinds = [list(kind) for kind in self.kinds.all]
        return {"entities": self.entities.all, "kinds": kinds, "entity": self.entity, "kind": self.kind}

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> Rows:
        """The reverse. Raises KeyError, ValueError, TypeError for what is no such state."""
        entity, kind = (np.asarray(state[k], np.int32) for k in ("entity", "kind"))
        rows = cls(Distinct(state["entities"]), Distinct(tuple(k) for k in state["kinds"]), entity, kind)
        for distinct, codes, told in ((rows.entities, entity, state["entities"]), (rows.kinds, kind, state["kinds"])):
            outside = len(codes) and not 0 <= codes.min() <= codes.max() < len(told)
            if outside or len(distinct.all) != len(told) or len(codes) != len(entity):
                raise ValueError("names and their numbers do not fit together")
        return rows


class Signals(Pairs[Signal]):
    """The watched columns: row k is the Signal with id k, made when it is asked for. `kinds`: all but id and entity."""

    __slots__ = ()

    def _row(self, k: int, entity: Entity, kind: Signal) -> Signal:
        return Signal(k, entity, *_KIND(kind))

    def rows(self) -> Rows:
        """To be saved."""
        mine = self.take(np.arange(len(self)))
        return Rows(mine.entities, Distinct(map(_KIND, mine.kinds.all)), mine.entity, mine.kind)

    def take(self, columns: Columns) -> Signals:
        """These columns, numbered anew in this order."""
        return Signals(*_taken(self, columns))

    def places(self, entities: Iterable[Entity]) -> Columns:
        """int64, rising: the columns of these entities."""
        return self.first + np.flatnonzero(self.of_entities(frozenset(entities)))


def columnar(signals: Sequence[Signal]) -> Signals:
    """As it is where it is by column already."""
    if isinstance(signals, Signals):
        return signals
    entities, kinds = Distinct(), Distinct()
    entity, kind = entities.codes(s.entity for s in signals), kinds.codes(replace(s, id=UNKNOWN, entity="") for s in signals)
    return Signals(entities, kinds, entity, kind, signals[0].id if signals else 0)


def _taken(pairs: Pairs[Any], columns: Columns) -> tuple[Distinct, Distinct, Ints, Ints]:
    entities, entity = compact(pairs.entities, pairs.entity[columns])
    kinds, kind = compact(pairs.kinds, pairs.kind[columns])
    return Distinct(entities), Distinct(kinds), entity, kind


class Index:
    """Where each pair of numbers stands: O(log n) for many at once. Sorted keys, so that nothing is an object."""

    def __init__(self) -> None:
        self._keys = np.zeros(0, np.int64)
        self._places = np.zeros(0, np.int32)

    def find(self, left: NDArray[Any], right: NDArray[Any]) -> Columns:
        """int64[n]: -1 for what is not there, or a number is -1."""
        keys = joined(left, right)
        at = np.searchsorted(self._keys, keys)
        there = (at < len(self._keys)) & (left >= 0) & (right >= 0)
        there[there] = self._keys[at[there]] == keys[there]
        out = np.full(len(keys), UNKNOWN, np.int64)
        out[there] = self._places[at[there]]
        return out

    def add(self, left: NDArray[Any], right: NDArray[Any], places: NDArray[Any]) -> None:
        """Of equal pairs the last counts, here and of those that are there already."""
        keys = joined(left, right)
        order = np.argsort(keys, kind="stable")
        order = order[np.append(np.diff(keys[order]) != 0, len(keys) > 0)[:len(keys)]]
        keys, places = keys[order], places[order].astype(np.int32)
        at = np.searchsorted(self._keys, keys)
        there = np.append(self._keys, UNKNOWN)[at] == keys
        self._places[at[there]] = places[there]
        self._keys = np.insert(self._keys, at[~there], keys[~there])
        self._places = np.insert(self._places, at[~there], places[~there])

    @property
    def count(self) -> int:
        """How many pairs there are."""
        return len(self._keys)

    def places(self) -> Columns:
        """int64: all that can be found."""
        return self._places.astype(np.int64)

    def pairs(self) -> tuple[Ints, Ints]:
        """int32: the two numbers of each of `places`."""
        return (self._keys >> 32).astype(np.int32), self._keys.astype(np.int32)

    def keep(self, where: Columns) -> None:
        """From now on these are the places, int64 by place; what was at one that is -1 now is found no more."""
        places = where[self._places]
        there = places >= 0
        self._keys, self._places = self._keys[there], places[there].astype(np.int32)


def joined(left: NDArray[Any], right: NDArray[Any]) -> Columns:
    """int64[n]: one number for each pair, negative where the left one is."""
    return (left.astype(np.int64) << 32) | (right.astype(np.int64) & 0xFFFFFFFF)
