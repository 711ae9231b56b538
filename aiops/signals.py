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

from aiops.arrays import grown
from aiops.meaning import Meanings, Selector, SignalRule, format_labels, parse_labels
from aiops.recipes import Recipes, Samples
from aiops.rows import Columns, Distinct, Rows, Signals
from aiops.types import Batch, Bools, Floats, Ints, Kind, Series, Signal
from aiops.watched import Awaited, Told, Watched

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
_NOBODY = Awaited(Rows.of(()), np.zeros((len(_RAW), 0)))
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


class _Wanted(NamedTuple):
    """Ingredients, int32[n] each: the number of the kind of signal, of the rule that makes it, which part, and whether it
    counts where it cannot be had."""

    kind: Ints
    rule: Ints
    part: Ints
    counts: Bools


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
        self._watched = Watched(Rows.of(()), ())
        self.dropped: Counter[str] = Counter()
        self._uses: dict[tuple[str, bool], tuple[_Use, ...]] = {}
        self._counts: dict[tuple[str, Kind], bool] = {}
        self._recipes = Recipes()
        self._plan = self._recipes.plan()
        self._told = Told()
        self._known_count = 0
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
        self._heard = np.zeros(0)
        self._past = _NOBODY

    @property
    def signals(self) -> Signals:
        """What each column shows; replaced, never changed, when some are added."""
        return self._watched.signals

    def column(self, entity: str, key: str) -> int | None:
        """The column of a signal as Prometheus writes it, `name{labels}`; None where there is none."""
        return self._watched.column(entity, key)

    @property
    def series_count(self) -> int:
        return self._known_count

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
        ids = np.array([s.id for s in batch.new_series], np.int64)
        self._row = grown(self._row, int(ids.max()) + 1, -1)
        new = np.flatnonzero(ids >= 0)
        new = new[self._row[ids[new]] < 0]
        self._row[ids[new]] = self._register([batch.new_series[k] for k in new.tolist()])
        return self._usable(batch)

    def _named(self, derived: Sequence[Derived]) -> Ints:
        """The row of each derived series; one that was not there before gets one."""
        keys = [(d.entity, d.metric, tuple(d.labels.items())) for d in derived]
        new = [key for key in keys if key not in self._derived]
        if new:
            rows = self._register([Series(-1, e, m, format_labels(dict(labels)), "gauge") for e, m, labels in new])
            self._derived |= zip(new, rows.tolist(), strict=True)
        return np.array([self._derived[key] for key in keys], np.int32)

    def _register(self, new: Sequence[Series]) -> Columns:
        """Their rows in the arrays, int64. They become ingredients of signals, old or new: what series of one metric with the
        same labels feed is worked out once, and looked up for all of them together."""
        entities, kinds = Distinct(), Distinct()
        entity, kind = entities.codes(map(_entity, new)), kinds.codes(map(_identity, new))
        met = Rows(entities, kinds, entity, kind)
        rows = self._rooms(len(new))
        self._told.put(rows, met)
        self._known[rows] = True
        self._counter[rows] = met.by_kind(lambda it: self._is_counter(it[0], it[2]), np.bool_)
        self._recall(rows, met)
        self._feed(rows, met)
        self._plan = self._recipes.plan()
        return rows

    def _rooms(self, count: int) -> Columns:
        """So many rows that are free."""
        used, reused = self._known_count + len(self._free), self._free[:count]
        rows = np.array([*reused, *range(used, used + count - len(reused))], np.int64)
        del self._free[:count]
        self._known_count += count
        size = int(rows.max(initial=-1)) + 1
        self._known, self._counter = grown(self._known, size, False), grown(self._counter, size, False)
        for name in _RAW:
            setattr(self, name, grown(getattr(self, name), size, np.nan))
        return rows

    def _recall(self, rows: Columns, met: Rows) -> None:
        """The last sample from before a restart, of those that have one."""
        if not self._past:
            self._past = _NOBODY
            return
        back, values = self._past.take(met)
        for name, mine in zip(_RAW, values, strict=True):
            getattr(self, name)[rows[back]] = mine

    def _awaited(self) -> tuple[Rows, Floats]:
        """Series that were not heard of since a restart, less those that were not for long before it."""
        newest = np.fmax.reduce(self._time, initial=-np.inf)
        return self._past.rest(newest - self._past.kept(_RAW.index("_time")) <= AWAITED_S)

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
        self._free += np.flatnonzero(gone).tolist()
        self._known_count -= int(np.count_nonzero(gone))
        self._heard = self.last_heard()
        for name in _RAW:
            getattr(self, name)[gone] = np.nan
        self._known[gone] = False
        self._told.tidy(np.flatnonzero(self._known))
        self._recipes.drop(gone)
        self._plan = self._recipes.plan()

    def fed(self) -> Bools:
        """bool[S]: columns that a series feeds."""
        return self._recipes.fed()

    def reserved(self) -> Columns:
        """The columns from before a restart that nothing feeds yet, rising."""
        return np.flatnonzero(self._watched.reserved)

    def keep(self, columns: Columns) -> None:
        """Only these columns stay, in this order; between two batches."""
        heard = self.last_heard()[columns]
        self._past = Awaited(*self._awaited())
        self._watched.keep(columns)
        self._heard = heard
        self._recipes.keep(columns)
        self._plan = self._recipes.plan()

    def renew(self, gone: Bools) -> None:
        """These columns (bool[S]) are given up, and the series that fed them feed new ones, at the end; between two batches."""
        rows = np.unique(self._plan.raw[gone[self._plan.signal]])
        told = self._told.rows(rows.astype(np.int64))
        met = Rows.of([(*told[k], "counter" if self._counter[row] else "gauge") for k, row in enumerate(rows.tolist())])
        mine = np.zeros(len(self._known), np.bool_)
        mine[rows] = True
        self.keep(np.flatnonzero(~gone))
        self._recipes.drop(mine)
        self._feed(rows.astype(np.int64), met)
        self._plan = self._recipes.plan()

    def _is_counter(self, metric: str, told: Kind) -> bool:
        known = self._counts.get((metric, told))
        if known is None:
            known = self._counts[metric, told] = self._meanings.kind(metric, told) == "counter"
        return known

    def _feed(self, rows: Columns, met: Rows) -> None:
        """These series become ingredients of the signals that they feed: those of the packs, else themselves."""
        room = len(self.signals) < MAX_SIGNALS
        which, wanted = self._wanted(met, room)
        mine = np.unique(met.entity[which])
        number = np.full(len(met.entities.all), -1, np.int32)
        number[mine] = self._watched.entities([met.entities.all[k] for k in mine.tolist()], room)
        columns = self._columns(number[met.entity[which]], wanted)
        there = columns >= 0
        self._count("too_many_signals", ~there & wanted.counts)
        fits = there.copy()
        fits[there] = self._recipes.fits(columns[there], wanted.rule[there])
        self._count("defined_otherwise", there & ~fits & wanted.counts)
        self._recipes.add(columns[fits], rows[which[fits]], wanted.part[fits])

    def _wanted(self, met: Rows, room: bool) -> tuple[Columns, _Wanted]:
        """What is wanted of each series in turn: int64[n], which one, and what of it."""
        lists = [self._steps(*kind) for kind in met.kinds.all]
        self._count("labels_malformed", np.array([steps is None for steps in lists], np.bool_)[met.kind])
        steps = [step for steps in lists for step in steps or ()]
        each = np.array([len(steps or ()) for steps in lists], np.int64)
        count = each[met.kind]
        which = np.repeat(np.arange(len(met)), count)
        step = np.arange(len(which)) + np.repeat((np.cumsum(each) - each)[met.kind] - (np.cumsum(count) - count), count)
        rule, part, counts = np.array([s[1:] for s in steps], np.int32).reshape(-1, 3)[step].T
        return which, _Wanted(self._watched.kinds([s[0] for s in steps], room)[step], rule, part, counts.astype(np.bool_))

    def _steps(self, metric: str, text: str, told: Kind) -> list[tuple[Signal, int, int, bool]] | None:
        """What series of this metric with these labels feed: all of the signal but id and entity, the number of its rule, and
        in which part; with False where that is said for the second time. None for labels that cannot be read."""
        try:
            labels = parse_labels(text) if text else {}
        except ValueError:
            return None
        out = []
        for use in self._uses_of(metric, self._is_counter(metric, told)):
            kept = labels if use.by is None else {k: labels[k] for k in use.by if k in labels}
            kind = Signal(-1, "", use.name, format_labels(kept) if kept else "", *use.about)
            rule = self._recipes.number(use.rule)
            for part, selector in use.parts:
                if not selector.where or selector.matches(labels):
                    out.append((kind, rule, part, True))
                    if use.rule.rest and part == 0:  # of [part, rest] the part belongs to the whole as well
                        out.append((kind, rule, 1, False))
        return out

    def _columns(self, entity: Ints, wanted: _Wanted) -> Columns:
        """int64[n]: the columns, which are added where there are none yet; -1 where there is no room."""
        columns = self._confirmed(self._watched.find(entity, wanted.kind), wanted)
        new = np.flatnonzero(columns < 0)
        before = len(self.signals)
        columns[new] = self._watched.add(entity[new], wanted.kind[new], MAX_SIGNALS)
        first = new[np.unique(columns[new], return_index=True)[1]]
        self._recipes.define(wanted.rule[first[columns[first] >= before]])
        return columns

    def _confirmed(self, columns: Columns, wanted: _Wanted) -> Columns:
        """Reserved columns are made by the first rule that wants them. One whose meaning has changed since is left empty for
        ever: -1, as if there were none."""
        reserved = self._watched.reserved
        waiting = np.flatnonzero(columns >= 0)
        waiting = waiting[reserved[columns[waiting]]]
        waiting = waiting[np.unique(columns[waiting], return_index=True)[1]]
        same = self.signals.kind[columns[waiting]] == wanted.kind[waiting]
        self._recipes.redefine(columns[waiting[same]], wanted.rule[waiting[same]])
        reserved[columns[waiting]] = False
        return np.where(np.isin(columns, columns[waiting[~same]]), -1, columns) if not same.all() else columns

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

    # ----------------------------------------------------------------------------------------------- over a restart
    def state(self) -> dict[str, Any]:
        """signals: all but the id of each column; heard: when each last had a value, float64[S] (-inf: never);
        series: entity, metric and labels of each raw series with its last sample, `raw` float64[5, series], those not heard
        of since a restart included."""
        rows = np.flatnonzero(self._known & np.isfinite(self._time))
        awaited, kept = self._awaited()
        raw = np.array([getattr(self, name)[rows] for name in _RAW])
        return {"signals": self.signals.rows(), "heard": self.last_heard(),
                "series": self._told.rows(rows).joined(awaited), "raw": np.append(raw, kept, axis=1)}

    def last_heard(self) -> Floats:
        """float64[S]: event time of the last sample of each column, -inf where there was none."""
        out = grown(self._heard, len(self.signals), -np.inf)[:len(self.signals)].copy()
        raw, signal = self._plan.raw, self._plan.signal
        told = np.isfinite(self._time[raw])
        np.maximum.at(out, signal[told], self._time[raw[told]])
        return out

    def restore(self, state: Mapping[str, Any], columns: Sequence[int] | Columns, samples: bool = True) -> None:
        """Reserve these columns of an earlier run for its signals, in this order; before the first batch.

        samples: go on from the last sample of each series too, as if there had been no restart: what is not newer is late.
        """
        where = np.array(columns, np.int64)
        rows = Rows.of(state["signals"]).take(where)
        self._watched = Watched(rows, [self._meant(Signal(-1, "", *kind)) for kind in rows.kinds.all])
        self._recipes.reserve(len(rows))
        self._heard = np.asarray(state["heard"], np.float64)[where]
        self._plan = self._recipes.plan()
        if samples:
            self._past = Awaited(Rows.of(state["series"]), np.asarray(state["raw"], np.float64))

    def _meant(self, kind: Signal) -> Signal:
        """The kind of signal as the packs of today mean it; as it was where none has its name."""
        rule = self._meanings.signals.get(kind.name)
        if rule is None:
            return kind
        return replace(_described(-1, "", kind.name, kind.labels, rule), additive=kind.additive)

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


_entity, _identity = attrgetter("entity"), attrgetter("metric", "labels", "kind")
_ABOUT = ("unit", "direction", "min_abs", "min_rel", "additive", "resource", "limit", "horizon_s")
_about = attrgetter(*_ABOUT)


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
