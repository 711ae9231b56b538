"""The door: raw samples become signals.

Counters turn into rates (resets and gaps repaired), series that belong together are combined as the packs say, and what
cannot be used is counted by reason. Everything after this point sees one column of numbers per signal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from aiops.arrays import grown, renumbered
from aiops.meaning import Meanings, Selector, SignalRule, format_labels, parse_labels
from aiops.recipes import Recipes, Samples
from aiops.types import Batch, Bools, Floats, Ints, Kind, Series, Signal

FUTURE_S = 300.0
"""A sample further ahead of its batch than this is not believed: it would make all that follow look late."""
STALE_S, STALE_INTERVALS = 300.0, 3.0
"""A series that missed three of its own intervals, or 300 s (Prometheus' look-back), no longer counts in sums."""
MAX_SIGNALS = 2_000_000
BLANK = 2.0**63
"""What DCGM writes for a figure that it does not have: 0x7ffffffffffffff0 and following, as float64."""
HUGE = 1e150
"""Larger values are learned as this: their differences and quotients stay numbers."""

_HISTOGRAM_PARTS = ("_sum", "_count")
DERIVED_S, LOOK_S = 3600.0, 600.0
"""A derived series that was not told for an hour is given up; whether there is one is looked at so often."""
AWAITED_S = 7 * 86_400.0
"""The last sample of a series from before a restart is kept for so long, until the series is heard again."""
_RAW = ("_time", "_last", "_level", "_delta", "_interval")
_HORIZON_S = Signal(-1, "", "").horizon_s


class _Use(NamedTuple):
    """A signal that a metric is an ingredient of, in which parts. `by`: the labels that are kept, None for all. `about`: the
    fields of a Signal from `unit` on."""

    name: str
    rule: SignalRule
    parts: tuple[tuple[int, Selector], ...]
    by: Sequence[str] | None
    about: tuple[Any, ...]

    @classmethod
    def of(cls, metric: str, name: str, rule: SignalRule, by: Sequence[str] | None) -> _Use:
        parts = tuple((k, s) for k, s in enumerate(rule.parts) if s.metric == metric)
        return cls(name, rule, parts, by, _about(_described(-1, "", name, "", rule)))


class Derived(Protocol):
    """One sample of a series that the pipeline itself made out of a batch, at the batch's time."""

    @property
    def entity(self) -> str: ...
    @property
    def metric(self) -> str: ...
    @property
    def labels(self) -> Mapping[str, str]: ...
    @property
    def value(self) -> float: ...


class Door:
    """Keeps the last sample of each raw series and computes each tick's signal values. O(samples + signals) a tick.

    A raw series has a row in the arrays here; series of batches are known by their ids, derived ones by name. `shrunk`: series
    were given up since that was last set to False.
    """

    def __init__(self, meanings: Meanings) -> None:
        self._meanings = meanings
        self.signals: tuple[Signal, ...] = ()
        self.dropped: Counter[str] = Counter()
        self._names: dict[tuple[str, str, str], int] = {}
        self._uses: dict[tuple[str, bool], tuple[_Use, ...]] = {}
        self._counts: dict[tuple[str, Kind], bool] = {}
        self._recipes = Recipes()
        self._plan = self._recipes.plan()
        self._series: dict[int, Series] = {}
        self._free: list[int] = []
        self._row = np.zeros(0, np.int32)
        self._derived: dict[tuple[str, str, tuple[tuple[str, str], ...]], int] = {}
        self._looked = -np.inf
        self.shrunk = False
        self._known = np.zeros(0, np.bool_)
        self._counter = np.zeros(0, np.bool_)
        self._time = np.zeros(0)
        self._last = np.zeros(0)
        self._level = np.zeros(0)
        self._delta = np.zeros(0)
        self._interval = np.zeros(0)
        self._reserved: set[int] = set()
        self._heard = np.zeros(0)
        self._past: dict[tuple[str, ...], int] = {}
        self._past_raw = np.zeros((len(_RAW), 0))

    @property
    def series_count(self) -> int:
        return len(self._series)

    def values(self, batch: Batch, derived: Sequence[Derived] = ()) -> Floats:
        """One float64 a signal, NaN where it did not report in this tick."""
        if len(batch.retired) or batch.at - self._looked >= LOOK_S:
            self._retire(self._rows_of(batch.retired), batch.at)
        rows, times, values = self._usable(batch) if not batch.new_series else self._introduced(batch)
        if derived:
            more = self._named(derived)
            rows, times = np.append(rows, more), np.append(times, np.full(len(more), batch.at))
            values = np.append(values, [d.value for d in derived])
        updated = self._absorb(rows, times, values)
        return self._plan.values(batch.at, Samples(self._level, self._delta, self._last), self._fresh(batch.at), updated)

    def heard(self) -> tuple[Floats, Floats]:
        """Of each signal, float64[S] seconds: when its newest sample was, and how far its samples usually are apart.

        NaN where nothing was heard yet. May be called while another thread is in `values`.
        """
        plan = self._plan  # read first: what it points at is there already
        return plan.newest(self._time), plan.newest(self._interval)

    # ------------------------------------------------------------------------------------------------ registration
    def _introduced(self, batch: Batch) -> tuple[Ints, Floats, Floats]:
        """The usable samples, after the new series have been given their rows."""
        self._row = grown(self._row, max(s.id for s in batch.new_series) + 1, -1)
        new = [s for s in batch.new_series if s.id >= 0 and self._row[s.id] < 0]
        self._row[[s.id for s in new]] = self._register(new)
        return self._usable(batch)

    def _named(self, derived: Sequence[Derived]) -> Ints:
        """The row of each derived series; one that was not there before gets one."""
        keys = [(d.entity, d.metric, tuple(d.labels.items())) for d in derived]
        new = [key for key in keys if key not in self._derived]
        if new:
            rows = self._register([Series(-1, e, m, format_labels(dict(labels)), "gauge") for e, m, labels in new])
            self._derived |= zip(new, rows, strict=True)
        return np.array([self._derived[key] for key in keys], np.int32)

    def _register(self, new: Sequence[Series]) -> list[int]:
        """Their rows in the arrays. They become ingredients of signals, old or new."""
        first_new = len(self.signals)
        signals = list(self.signals)
        rows = self._rooms(len(new))
        places, past, counters = np.array(rows, np.int64), [], []
        self._series.update(zip(rows, new, strict=True))
        for row, series in zip(rows, new, strict=True):
            past.append(self._past.pop((series.entity, series.metric, series.labels), -1) if self._past else -1)
            counters.append(self._is_counter(series.metric, series.kind))
            self._add(row, series, counters[-1], signals)
        self._known[places], self._counter[places] = True, counters
        self._recall(places, np.array(past, np.int64))
        if len(signals) != first_new:
            self.signals = tuple(signals)
        self._plan = self._recipes.plan()
        return rows

    def _rooms(self, count: int) -> list[int]:
        """So many rows that are free."""
        used, reused = len(self._series) + len(self._free), self._free[:count]
        rows = [*reused, *range(used, used + count - len(reused))]
        del self._free[:count]
        size = max(rows, default=-1) + 1
        self._known, self._counter = grown(self._known, size, False), grown(self._counter, size, False)
        for name in _RAW:
            setattr(self, name, grown(getattr(self, name), size, np.nan))
        return rows

    def _recall(self, rows: NDArray[np.int64], past: NDArray[np.int64]) -> None:
        """The last sample from before a restart, of those that have one (`past` >= 0)."""
        for name, values in zip(_RAW, self._past_raw, strict=True):
            getattr(self, name)[rows[past >= 0]] = values[past[past >= 0]]
        if not self._past:
            self._past_raw = np.zeros((len(_RAW), 0))

    def _awaited(self) -> dict[tuple[str, ...], int]:
        """Series that were not heard of since a restart, less those that were not for long before it."""
        times = self._past_raw[_RAW.index("_time")]
        newest = np.fmax.reduce(self._time, initial=-np.inf)
        return {name: k for name, k in self._past.items() if newest - times[k] <= AWAITED_S}

    def _rows_of(self, ids: Ints) -> Ints:
        """The rows of those ids that are known; they are known no more."""
        ids = np.unique(ids[(ids >= 0) & (ids < len(self._row))])
        rows = self._row[ids]
        self._row[ids] = -1
        return rows[rows >= 0]

    def _retire(self, rows: Ints, at: float) -> None:
        """Series that do not come again, and derived ones that were not told for long. Columns that nothing feeds stay
        until `keep`."""
        self._looked = at
        silent = [key for key, row in self._derived.items() if at - self._time[row] > DERIVED_S]
        if not len(rows) and not silent:
            return
        self.shrunk = True
        gone = np.zeros(len(self._known), np.bool_)
        gone[rows] = gone[[self._derived.pop(key) for key in silent]] = True
        for row in np.flatnonzero(gone).tolist():
            del self._series[row]
            self._free.append(row)
        self._heard = self.last_heard()
        for name in _RAW:
            getattr(self, name)[gone] = np.nan
        self._known[gone] = False
        self._recipes.drop(gone)
        self._plan = self._recipes.plan()

    def fed(self) -> Bools:
        """bool[S]: columns that a series feeds."""
        return self._recipes.fed()

    def reserved(self) -> NDArray[np.int64]:
        """The columns from before a restart that nothing feeds yet, rising."""
        return np.array(sorted(self._reserved), np.int64)

    def keep(self, columns: NDArray[np.int64]) -> None:
        """Only these columns stay, in this order; between two batches. columns[k] must not be less than k."""
        heard = self.last_heard()[columns]
        self._past = self._awaited()
        where = renumbered(columns, len(self.signals))
        self._rename(columns, where)
        self._reserved = set(where[self.reserved()].tolist()) - {-1}
        self._heard = heard
        self._recipes.keep(columns)
        self._plan = self._recipes.plan()

    def _rename(self, columns: NDArray[np.int64], where: NDArray[np.int64]) -> None:
        """The work of those that go and of those that get another number; a name belongs to the last column that took it."""
        signals, names = list(self.signals), self._names
        for old in np.flatnonzero(where < 0).tolist():
            key = _named(signals[old])
            if names.get(key) == old:
                del names[key]
        taken = np.flatnonzero(columns != np.arange(len(columns)))
        for new, old in zip(taken.tolist(), columns[taken].tolist(), strict=True):
            s, key = signals[old], _named(signals[old])
            signals[new] = Signal(new, *_describe(s))
            if names.get(key) == old:
                names[key] = new
        self.signals = tuple(signals[:len(columns)])

    def _is_counter(self, metric: str, told: Kind) -> bool:
        known = self._counts.get((metric, told))
        if known is None:
            known = self._counts[metric, told] = self._meanings.kind(metric, told) == "counter"
        return known

    def _add(self, row: int, series: Series, counter: bool, signals: list[Signal]) -> None:
        """The series becomes an ingredient of the signals that it feeds: those of the packs, else itself."""
        uses = self._uses_of(series.metric, counter)
        try:
            labels = parse_labels(series.labels) if series.labels else {}
        except ValueError:
            self.dropped["labels_malformed"] += 1
            return
        for use in uses:
            kept = labels if use.by is None else {k: labels[k] for k in use.by if k in labels}
            text = format_labels(kept) if kept else ""
            for part, selector in use.parts:
                if not selector.where or selector.matches(labels):
                    signal = self._signal(series.entity, use, text, signals)
                    if signal is not None:
                        self._recipes.add(signal, row, part)
                        if use.rule.rest and part == 0:  # of [part, rest] the part belongs to the whole as well
                            self._recipes.add(signal, row, 1)

    def _uses_of(self, metric: str, counter: bool) -> tuple[_Use, ...]:
        """What series of a metric are for, worked out once a metric."""
        known = self._uses.get((metric, counter))
        if known is None:
            known = self._uses[metric, counter] = tuple(self._work_out(metric, counter))
        return known

    def _work_out(self, metric: str, counter: bool) -> Iterator[_Use]:
        known = self._meanings
        used = known.uses(metric)
        for name, rule in used:
            yield _Use.of(metric, name, rule, rule.by)
        if not used and not known.knows(metric) and not known.ignored(metric):
            name, default = _default_rule(metric, counter, known.signals.get(metric))
            if default:
                yield _Use.of(metric, name, default, None)

    def _signal(self, entity: str, use: _Use, text: str, signals: list[Signal]) -> int | None:
        key = (entity, use.name, text)
        column = self._names.get(key)
        if column is not None and (column not in self._reserved or self._confirmed(column, use)):
            if self._recipes.fits(column, use.rule):
                return column
            self.dropped["defined_otherwise"] += 1
            return None
        if len(signals) >= MAX_SIGNALS:
            self.dropped["too_many_signals"] += 1
            return None
        self._names[key] = self._recipes.define(use.rule)
        signals.append(Signal(len(signals), entity, use.name, text, *use.about))
        return self._names[key]

    def _confirmed(self, column: int, use: _Use) -> bool:
        """Whether this rule fills the reserved column. One whose meaning has changed since is left empty for ever."""
        self._reserved.discard(column)
        same: bool = _about(self.signals[column]) == use.about
        if same:
            self._recipes.redefine(column, use.rule)
        return same

    # ----------------------------------------------------------------------------------------------- over a restart
    def state(self) -> dict[str, Any]:
        """signals: all but the id of each column; heard: when each last had a value, float64[S] (-inf: never);
        series: entity, metric and labels of each raw series with its last sample, `raw` float64[5, series], those not heard
        of since a restart included."""
        rows = np.flatnonzero(self._known & np.isfinite(self._time))
        awaited = self._awaited()
        raw = np.array([getattr(self, name)[rows] for name in _RAW])
        return {"signals": [_describe(s) for s in self.signals], "heard": self.last_heard(),
                "series": [*(_identify(self._series[k]) for k in rows.tolist()), *awaited],
                "raw": np.append(raw, self._past_raw[:, list(awaited.values())], axis=1)}

    def last_heard(self) -> Floats:
        """float64[S]: event time of the last sample of each column, -inf where there was none."""
        out = grown(self._heard, len(self.signals), -np.inf)[:len(self.signals)].copy()
        raw, signal = self._plan.raw, self._plan.signal
        told = np.isfinite(self._time[raw])
        np.maximum.at(out, signal[told], self._time[raw[told]])
        return out

    def restore(self, state: Mapping[str, Any], columns: Sequence[int], samples: bool = True) -> None:
        """Reserve these columns of an earlier run for its signals, in this order; before the first batch.

        samples: go on from the last sample of each series too, as if there had been no restart: what is not newer is late.
        """
        self.signals = tuple(self._meant(i, Signal(i, *state["signals"][k])) for i, k in enumerate(columns))
        self._names = {(s.entity, s.name, s.labels): s.id for s in self.signals}
        self._reserved = set(self._names.values())
        self._recipes.reserve(len(self.signals))
        self._heard = np.asarray(state["heard"], np.float64)[np.array(columns, np.int64)]
        self._plan = self._recipes.plan()
        if samples:
            self._past = {tuple(name): k for k, name in enumerate(state["series"])}
            self._past_raw = np.asarray(state["raw"], np.float64)

    def _meant(self, column: int, s: Signal) -> Signal:
        """The signal as the packs of today mean it; as it was where none has its name."""
        rule = self._meanings.signals.get(s.name)
        if rule is None:
            return s
        return replace(_described(column, s.entity, s.name, s.labels, rule), additive=s.additive)

    # ----------------------------------------------------------------------------------------------------- samples
    def _usable(self, batch: Batch) -> tuple[Ints, Floats, Floats]:
        """The newest usable sample of each series; the rest is counted by reason."""
        ids, times, values = batch.series, batch.time, batch.value
        known = (ids >= 0) & (ids < len(self._row))
        rows = np.full(len(ids), -1, np.int32)
        rows[known] = self._row[ids[known]]
        known = rows >= 0
        finite = np.isfinite(values) & np.isfinite(times) & (values != BLANK)
        self._count("unknown_series", ~known)
        self._count("not_a_number", known & ~finite)
        ahead = known & finite & (times > batch.at + FUTURE_S)
        self._count("in_the_future", ahead)
        keep = known & finite & ~ahead
        rows, times, values = rows[keep], times[keep], values[keep]
        if len(rows) > 1 and not np.all(np.diff(rows) > 0):
            order = np.lexsort((times, rows))
            rows, times, values = rows[order], times[order], values[order]
            last = np.append(np.diff(rows) != 0, True)
            same = np.append((np.diff(rows) == 0) & (np.diff(times) == 0), False)
            self._count("duplicate", same)
            rows, times, values = rows[last], times[last], values[last]
        late = times <= self._time[rows]
        self._count("late_or_duplicate", late)
        return rows[~late], times[~late], values[~late]

    def _absorb(self, rows: Ints, times: Floats, values: Floats) -> Bools:
        """Remember the samples; bool per raw series: did it report something usable now?"""
        change = values - self._last[rows]
        delta = np.where(change < 0, values, change)  # a counter that fell was reset: it counted `value` since then
        span = times - self._time[rows]
        counter = self._counter[rows]
        with np.errstate(divide="ignore", invalid="ignore"):
            self._level[rows] = np.where(counter, delta / span, values)
        self._delta[rows] = np.where(counter, delta, values)
        usual = self._interval[rows]
        near = np.clip(span, 0.5 * usual, 2.0 * usual)  # one outage does not change what is usual
        self._interval[rows] = np.where(np.isfinite(usual), usual + 0.3 * (near - usual), span)
        self._time[rows], self._last[rows] = times, values
        updated = np.zeros(len(self._known), np.bool_)
        updated[rows] = np.isfinite(self._level[rows])
        return updated

    def _fresh(self, at: float) -> Bools:
        with np.errstate(invalid="ignore"):
            return (at - self._time) <= np.fmin(STALE_S, STALE_INTERVALS * self._interval)

    def _count(self, reason: str, which: Bools) -> None:
        n = int(np.count_nonzero(which))
        if n:
            self.dropped[reason] += n


_identify = attrgetter("entity", "metric", "labels")
_ABOUT = ("unit", "direction", "min_abs", "min_rel", "additive", "resource", "limit", "horizon_s")
_named = attrgetter("entity", "name", "labels")
_describe, _about = attrgetter("entity", "name", "labels", *_ABOUT), attrgetter(*_ABOUT)


def _described(column: int, entity: str, name: str, labels: str, rule: SignalRule) -> Signal:
    limit, horizon_s = (rule.limit.at, rule.limit.horizon_s) if rule.limit else (None, _HORIZON_S)
    return Signal(column, entity, name, labels, rule.unit, rule.direction, rule.min_effect.abs, rule.min_effect.rel,
                  rule.increase is not None, rule.resource, limit, horizon_s)


def _default_rule(metric: str, counter: bool, namesake: SignalRule | None) -> tuple[str, SignalRule | None]:
    """How a metric is watched that no pack knows. Buckets are left out: their sum and count say what is needed.

    A metric that is called like a pack's signal (a recording rule, somebody else's exporter) has that signal's meaning.
    """
    if metric.endswith("_bucket"):
        return metric, None
    for ending in _HISTOGRAM_PARTS:
        if counter and metric.endswith(ending):
            base = metric.removesuffix(ending)
            pair = (Selector(metric=base + "_sum"), Selector(metric=base + "_count"))
            return base, SignalRule(mean=pair, min_effect={"rel": 0.5})  # type: ignore[arg-type]
    selector = Selector(metric=metric)
    rule = {"rate": selector} if counter else {"value": selector}
    if namesake:
        told = namesake.model_dump(include={"help", "unit", "direction", "min_effect", "resource", "limit"})
        return metric, SignalRule.model_validate({**rule, **told})
    return metric, SignalRule.model_validate({**rule, "min_effect": {"rel": 0.25}})
