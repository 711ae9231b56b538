"""A door for signals that several packs define: each engine's own raw metrics, one name and one unit for people and policies.

Which definition serves is decided for each entity by what it reports. Definitions of one form (both the rate of a counter,
say) fill one column together, so that an engine may rename its metrics in an upgrade. Where forms differ the first that is
present wins, and series of the others are left out and counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from aiops.meaning import Meanings, SignalRule, format_labels
from aiops.signals import Door, _Part
from aiops.types import Batch, Floats, Series, Signal


class CommonDoor(Door):
    """A Door that asks the packs for every definition, and turns raw units into those of the signals."""

    def __init__(self, meanings: Meanings) -> None:
        super().__init__(meanings)
        self._scales = np.ones(0)

    def values(self, batch: Batch) -> Floats:
        """One float64 a signal in its unit, NaN where it did not report in this tick."""
        out = super().values(batch)
        if batch.new_series or len(self._scales) != len(out):
            self._scales = np.array([rule.scale for rule in self._rules])
        return out * self._scales

    def _uses(self, series: Series, labels: Mapping[str, str]) -> Iterable[tuple[str, SignalRule, dict[str, str]]]:
        found = self._meanings.uses(series.metric)
        if not found:
            yield from super()._uses(series, labels)
        for name, rule in found:
            kept = {k: labels[k] for k in rule.by if k in labels}
            if self._fits((series.entity, name, format_labels(kept)), rule):
                yield name, rule, kept
            else:
                self.dropped["defined_otherwise"] += 1

    def _fits(self, key: tuple[str, str, str], rule: SignalRule) -> bool:
        """Whether the column is free for this definition. One that was kept over a restart is."""
        column = self._names.get(key)
        return column is None or column in self._reserved or self._rules[column].form == rule.form

    def _add(self, series: Series, signals: list[Signal]) -> None:
        """Of [part, rest] the part belongs to the whole as well."""
        before = len(self._parts)
        super()._add(series, signals)
        self._parts += [_Part(p.signal, p.raw, 1) for p in self._parts[before:] if p.part == 0 and self._rules[p.signal].rest]
