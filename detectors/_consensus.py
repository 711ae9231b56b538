"""What all members of a group share, and what a member usually differs from it by.

A median polish (Tukey, "Exploratory Data Analysis", 1977) that goes on in time: the group's level is the median of its members,
each freed of its usual difference, and the usual difference is what is left, learned slowly. Differences are kept both as
sums and as multiples, because nobody says which of the two they are: eight degrees hotter, or twice as much memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aiops.types import Bools, Floats
from detectors._kin import LEAST, Groups, Places, carried

POSITIVE_SHARE = 0.75
"""So many members must be positive for multiples to mean anything."""
DECIDED, MISS_SHARE, MOST_MISS = 0.2, 0.01, 3.0
"""Sums or multiples: 20 % better is better for good. Misses are averaged over some hundred ticks."""
LEAST_RATIO, MOST_RATIO = 1e-3, 1e6
MOST_GROWN = 10.0


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """float64[P] each. common, factor: the group's level and multiple. added, multiplied: what each predicts for a member;
    expected: the prediction that counts (that nearest to what came, of all that experience allows)."""

    common: Floats
    factor: Floats
    added: Floats
    multiplied: Floats
    expected: Floats


class Consensus:
    """offset, ratio, usual float64[P]: usual difference as a sum, as a multiple, and usual level of each member.
    miss_added, miss_multiplied float64[groups]: how far off each way to predict was lately."""

    per_place, per_group = ("offset", "ratio", "usual"), ("miss_added", "miss_multiplied")

    def __init__(self) -> None:
        self.offset = self.ratio = self.usual = self.miss_added = self.miss_multiplied = np.zeros(0)

    def lay_out(self, groups: Groups, before: Places) -> None:
        for name in self.per_place:
            setattr(self, name, carried(getattr(self, name), before, 1.0 if name == "ratio" else 0.0))
        for name in self.per_group:
            had = getattr(self, name)
            setattr(self, name, np.append(had, np.ones(max(0, groups.count - len(had)))))

    def predict(self, groups: Groups, x: Floats, settled: Bools) -> Prediction:
        """For x[P]; NaN where fewer than three of the group speak. Members that are not settled are asked only where there
        are no others. Fewer than half of those asked can say what they like."""
        heard = np.isfinite(x)
        asked = heard & (settled | (groups.sum(heard & settled) < LEAST)[groups.group])
        fits = asked & (x > 0) & (self.ratio > LEAST_RATIO)
        common = groups.median(np.where(asked, x - self.offset, np.nan))
        factor = groups.median(np.where(fits, x / np.maximum(self.ratio, LEAST_RATIO), np.nan))
        many = groups.sum(asked)
        common[many < LEAST] = np.nan
        factor[groups.sum(fits) < np.maximum(LEAST, POSITIVE_SHARE * many)] = np.nan
        return self._combined(groups, x, common[groups.group], factor[groups.group])

    def _combined(self, groups: Groups, x: Floats, common: Floats, factor: Floats) -> Prediction:
        """While experience does not tell sums from multiples, both are granted: between the two lies no deviation."""
        added, multiplied = common + self.offset, factor * self.ratio
        multiplied = np.where(np.isfinite(multiplied), multiplied, added)
        lean, apart = self._lean(groups), multiplied - added
        one, other = added + np.maximum(lean, 0.0) * apart, multiplied + np.minimum(lean, 0.0) * apart
        expected = np.clip(x, np.minimum(one, other), np.maximum(one, other))
        return Prediction(common, factor, added, multiplied, expected)

    def _lean(self, groups: Groups) -> Floats:
        """From -1, where the differences in a group are sums, to 1, where they are multiples."""
        a, m = self.miss_added, self.miss_multiplied
        return np.clip((a - m) / (DECIDED * np.minimum(a, m)), -1.0, 1.0)[groups.group]

    def stretch(self, groups: Groups, expected: Floats) -> Floats:
        """By how much more a member may deviate now than at its usual level: in proportion to the level where differences
        are multiples, as ever where they are sums, and the more of both where nobody knows."""
        with np.errstate(over="ignore"):
            grown = np.where(self.usual > 0, np.abs(expected) / np.maximum(self.usual, 1e-300), 1.0)
        grown = np.clip(grown, 1.0 / MOST_GROWN, MOST_GROWN)
        return np.asarray(1.0 + np.minimum(1.0 + self._lean(groups), 1.0) * (grown - 1.0))

    def learn(self, groups: Groups, x: Floats, p: Prediction, which: Bools, share: Floats, fast: Floats, reach: Floats,
              unit: Floats) -> None:
        """`share` of the difference, cut at `reach`, is believed; `fast` is the share for levels; misses count in `unit`."""
        level = np.minimum(np.abs(p.expected), MOST_GROWN * (self.usual + reach))
        self.usual += np.where(which, fast * (level - self.usual), 0.0)
        self.offset += np.where(which, share * np.clip(x - p.added, -reach, reach), 0.0)
        many = which & (p.factor > 0)
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            step = share * np.clip(x - p.factor * self.ratio, -reach, reach) / p.factor
        self.ratio = np.clip(self.ratio + np.where(many, step, 0.0), 0.0, MOST_RATIO)
        self._compare(groups, x, p, which, unit)

    def _compare(self, groups: Groups, x: Floats, p: Prediction, which: Bools, unit: Floats) -> None:
        many = groups.sum(which)
        for name, predicted in zip(self.per_group, (p.added, p.multiplied), strict=True):
            miss = np.where(which, np.minimum(np.abs(x - predicted) / unit, MOST_MISS), 0.0)
            old = getattr(self, name)
            new = np.maximum(groups.sum(miss) / np.maximum(many, 1.0), 1e-3)
            setattr(self, name, np.where(many > 0, old + MISS_SHARE * (new - old), old))
