"""How signals come from raw series, as arrays: which series is which ingredient of which signal.

`Recipes` is what is known so far; a `Plan` is a frozen view of it that computes a tick's values, O(ingredients), and may be
used by another thread while the recipes change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from aiops.arrays import renumbered
from aiops.meaning import SignalRule
from aiops.types import Bools, Floats, Ints

Flags = NDArray[np.uint8]
Form = tuple[object, ...]
HOW = ("sum", "max", "min", "mean")
COMBINE, DIVIDES, INVERTS, DELTA, LAST, DOWN = 0x3, 0x4, 0x8, 0x10, 0x20, 0x40
"""Bits of what a rule asks for: two for how series are combined, then one each."""


class Samples(NamedTuple):
    """Of each raw series, float64[R]: its level (the rate of a counter), what it added in this tick, and its last value."""

    level: Floats
    delta: Floats
    last: Floats


class _Asked(NamedTuple):
    """What a rule asks for. The rule stays here so that nothing else gets its `id`."""

    rule: SignalRule | None
    flags: int
    scale: float
    form: Form


_NOTHING = _Asked(None, 0, 1.0, ())


class Recipes:
    """One rule a signal, any number of ingredients. Signals are added at the end; `keep` renumbers them."""

    def __init__(self) -> None:
        self._rule = np.zeros(0, np.int32)  # of each signal, its number in _rules
        self._made = np.zeros((3, 0), np.int32)  # signal, raw series, part
        self._rules = [_NOTHING]
        self._numbers: dict[int, int] = {}
        self._forms: dict[Form, int] = {_NOTHING.form: 0}
        self._table: tuple[Flags, Floats, Ints] = _tabulated(self._rules, self._forms)

    @property
    def count(self) -> int:
        return len(self._rule)

    def number(self, rule: SignalRule) -> int:
        """What the rule is called here."""
        known = self._numbers.get(id(rule))  # rules are few and hashing them is slow
        if known is None:
            known = self._numbers[id(rule)] = len(self._rules)
            self._rules.append(_Asked(rule, _flags(rule), rule.scale, rule.form))
            self._forms.setdefault(rule.form, len(self._forms))
        return known

    def _tables(self) -> tuple[Flags, Floats, Ints]:
        """Flags, scale and form of each rule."""
        if len(self._table[0]) != len(self._rules):
            self._table = _tabulated(self._rules, self._forms)
        return self._table

    def define(self, rules: Ints) -> None:
        """So many signals more, by rules of these numbers."""
        self._rule = np.append(self._rule, rules.astype(np.int32))

    def reserve(self, count: int) -> None:
        """So many signals more that nothing is an ingredient of, until they are redefined."""
        self.define(np.zeros(count, np.int32))

    def redefine(self, columns: NDArray[np.int64], rules: Ints) -> None:
        """From now on these signals are made like this."""
        self._rule[columns] = rules

    def fits(self, columns: NDArray[np.int64], rules: Ints) -> Bools:
        """bool[n]: whether series may be added to the signal by this rule: it is made in the same form."""
        form = self._tables()[2]
        return np.asarray(form[self._rule[columns]] == form[rules])

    def add(self, signals: NDArray[np.int64], raw: NDArray[np.int64], parts: Ints) -> None:
        """These series are ingredients: of the numerator (part 0), or of the denominator (1)."""
        self._made = np.concatenate([self._made, np.array([signals, raw, parts], np.int32)], axis=1)

    def drop(self, raw: Bools) -> None:
        """These series (bool[R]) are ingredients of nothing any more."""
        self._made = self._made[:, ~raw[self._made[1]]]

    def keep(self, columns: NDArray[np.int64]) -> None:
        """Only these signals stay, in this order, with their ingredients."""
        self._made[0] = renumbered(columns, self.count)[self._made[0]]
        self._made = self._made[:, self._made[0] >= 0]
        self._rule = self._rule[columns]

    def fed(self) -> Bools:
        """bool[S]: has the signal any ingredient?"""
        return np.bincount(self._made[0], minlength=self.count) > 0

    def plan(self) -> Plan:
        """A view that later changes do not touch."""
        signal, raw, part = self._made.copy()
        flags, scale, _ = self._tables()
        return Plan.of(signal, raw, part, flags[self._rule], scale[self._rule])


def _tabulated(rules: list[_Asked], forms: dict[Form, int]) -> tuple[Flags, Floats, Ints]:
    return (np.array([r.flags for r in rules], np.uint8), np.array([r.scale for r in rules], np.float64),
            np.array([forms[r.form] for r in rules], np.int32))


def _flags(rule: SignalRule) -> int:
    asked = ((DIVIDES, rule.ratio is not None or rule.mean is not None), (INVERTS, rule.invert),
             (DELTA, rule.increase is not None), (LAST, rule.total is not None), (DOWN, rule.until is not None))
    return HOW.index(rule.combine) | sum(bit for bit, wanted in asked if wanted)


@dataclass(frozen=True, slots=True)
class Plan:
    """Ingredient j adds raw series `raw[j]` to part `part[j]` of signal `signal[j]`; `flags[S]` say how.

    scale[S] turns raw units into those of signals. alone: ingredients that are all there is of a signal, which nothing is to be
    done to: most of them, as a rule.
    """

    signal: Ints
    raw: Ints
    part: Ints
    flags: Flags
    scale: Floats
    alone: NDArray[np.int64]
    rest: NDArray[np.int64]

    @classmethod
    def of(cls, signal: Ints, raw: Ints, part: Ints, flags: Flags, scale: Floats) -> Plan:
        single = np.bincount(signal, minlength=len(flags)) == 1
        plain = single & ((flags & ~np.uint8(COMBINE)) == 0)
        alone = plain[signal]
        return cls(signal, raw, part, flags, scale, np.flatnonzero(alone), np.flatnonzero(~alone))

    def values(self, at: float, samples: Samples, fresh: Bools, updated: Bools) -> Floats:
        """float64[S], NaN where a signal did not report. fresh, updated: bool[R], may count, and reported in this tick."""
        out = np.full(len(self.flags), np.nan)
        raw = self.raw[self.alone]
        level = samples.level[raw]
        out[self.signal[self.alone]] = np.where(updated[raw] & fresh[raw] & np.isfinite(level), level, np.nan)
        if len(self.rest):
            self._combined(out, at, samples, fresh, updated)
        return out * self.scale

    def _combined(self, out: Floats, at: float, samples: Samples, fresh: Bools, updated: Bools) -> None:
        """Fills in the signals of several series, and those that are more than a level."""
        signal, raw, part = self.signal[self.rest], self.raw[self.rest], self.part[self.rest]
        flags = self.flags[signal]
        x = np.where(flags & DELTA, samples.delta[raw], samples.level[raw])
        x = np.where(flags & LAST, samples.last[raw], x)
        usable = fresh[raw] & np.isfinite(x)
        usable &= updated[raw] | (flags & DELTA == 0)  # an increase counts in the tick that brought it only
        count = len(self.flags)
        over = self._gathered(signal, x, usable & (part == 0))
        under = np.bincount(signal[usable & (part == 1)], x[usable & (part == 1)], minlength=count)
        mine = np.unique(signal[updated[raw]])  # a signal reports where one of its series did
        some = np.bincount(signal[usable & (part == 0)], minlength=count) > 0
        how = self.flags[mine]
        value = np.where(some[mine] | (how & DIVIDES > 0), over[mine], np.nan)  # no errors at all is none of so many requests
        with np.errstate(divide="ignore", invalid="ignore"):
            value = np.where(how & DIVIDES, np.where(under[mine] > 0, value / under[mine], np.nan), value)
        value = np.where(how & INVERTS, np.where(some[mine], 1.0 - value, np.nan), value)  # no part known is not "all used"
        out[mine] = np.where(how & DOWN, value - at, value)

    def _gathered(self, signal: Ints, x: Floats, which: Bools) -> Floats:
        """float64[S]: the numerators: sums, and where the rule says so the largest, smallest or mean."""
        signal, x, count = signal[which], x[which], len(self.flags)
        out = np.bincount(signal, x, minlength=count).astype(np.float64)
        how = self.flags & COMBINE
        for code, ufunc in ((1, np.fmax), (2, np.fmin)):
            mine = how[signal] == code
            if mine.any() or (how == code).any():
                out[how == code] = np.nan
                ufunc.at(out, signal[mine], x[mine])
        if (how == 3).any():
            seen = np.bincount(signal, minlength=count)
            with np.errstate(invalid="ignore"):
                out = np.where(how == 3, np.where(seen > 0, out / np.maximum(seen, 1), np.nan), out)
        return out

    def newest(self, x: Floats) -> Floats:
        """float64[S]: the largest over a signal's series, NaN where none has a value."""
        out = np.full(len(self.flags), np.nan)
        np.fmax.at(out, self.signal, x[self.raw])
        return out
