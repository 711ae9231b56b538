"""Isolation forest per entity: is this combination of its signals rare?

A row holds one tick of an entity: how far each signal lies from what the baseline expects of it, what the others leave
unexplained of that, and four columns over all of them (`detectors._joint`). Forests are grown by scikit-learn on a schedule in
event time, on a sample of the last two weeks, and walked over all entities at once (`detectors._forest`). Rows of a wider
box are put among those of the past: else nothing far out is further out than the furthest that was seen.

Where no baseline runs, a signal's deviation is from its own recent level. Signals that do not report count as usual. Says
which signals isolate the row: by how much the score falls when a signal does what the others let expect of it.

Source: Liu, Ting, Zhou, "Isolation Forest", ICDM 2008; the sample is a reservoir (Vitter, ACM TOMS 11, 1985) that forgets.
Blind to order and to all that one signal does slowly: it is a voter, and its anomalies only support evidence that another
detector found. Needs 64 ticks before its first fit, 32 signals of an entity at most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from aiops.arrays import grown, pack, renumbered
from aiops.calibration import Tail
from aiops.quantities import Duration
from aiops.rows import columnar
from aiops.signals import HUGE
from aiops.types import Anomaly, Bools, Floats, Frame
from aiops.yamlfile import Strict
from detectors import _joint
from detectors._forest import Forest, Stack, Steps, fitted, flattened, packed, unpacked

ROWS, WINDOW = 128, 256
FIRST_FIT = 64
WIDTH = 32
SPAN_S = 14 * 86_400.0
"""The window is a sample of about so long, once it has been full for that long."""
BACKGROUND = 0.25
"""Rows of the wider box for each row of the past."""
REACH, OWN_WIDTH = 16.0, 4.0
"""Half-widths that count; the half-width of a signal without a baseline, in usual deviations."""
MAX_ENTITIES = 2000
REPORT_P = 1e-3
FORGET, SCORE_FORGET, MIN_SPREAD = 0.02, 0.05, 0.001
KNOWN_AFTER = 30
DOUBT = 16.0
"""A forest that is new is surprised easily: after so many scores it is believed half."""
TELL, TELL_SHARE = 3, 0.2
_SLOT = 1 << 32
_PER_SIGNAL = ("n", "level", "scale")
_PER_ENTITY = ("mean", "spread", "rows", "fitted_rows", "fitted_at", "learned_at")
_ARRAYS = {"window": ((WINDOW, 2, WIDTH), np.int16), "lately": ((WIDTH,), np.float32), "edge": ((_joint.SHARED,), np.float32),
           "usual": ((WIDTH,), np.float32), "weights": ((WIDTH, WIDTH), np.float32)}


class Settings(Strict):
    """What may be set under `detectors`. `trees` of each forest; `refit`: how often it is grown anew, in event time."""

    trees: int = Field(default=32, ge=8, le=512)
    refit: Duration = Field(default=24 * 3600.0, ge=600.0)


class IsolationForest:
    """Per entity a sample of 256 ticks, what its signals let expect of each other, and one forest, seeded by the entity's
    number: replays agree. About 50 kB an entity."""

    VERSION = 2
    BY_SIGNAL = ("place", *_PER_SIGNAL)

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings or Settings()
        self._seeds: list[int] = []
        self._of: dict[str, int] = {}
        self._names: list[str] = []
        self._forests: list[Forest | None] = []
        self._stack: Stack | None = None
        self._columns = np.zeros((0, WIDTH), np.int64)
        self._widths = np.zeros(0, np.int64)
        self._seen = 0
        self._alone = False
        self._latest = np.zeros((0, WIDTH), np.float32)
        self.tail = Tail()
        for name in (*_PER_SIGNAL, *_PER_ENTITY):
            setattr(self, name, np.zeros(0))
        for name, (shape, kind) in _ARRAYS.items():
            setattr(self, name, np.zeros((0, *shape), kind))
        self.n: Floats
        self.level: Floats
        self.scale: Floats
        self.mean: Floats
        self.spread: Floats
        self.rows: Floats
        self.fitted_rows: Floats
        self.fitted_at: Floats
        self.learned_at: Floats
        self.window: Steps
        self.lately: NDArray[np.float32]
        self.edge: NDArray[np.float32]
        self.usual: NDArray[np.float32]
        self.weights: NDArray[np.float32]

    @staticmethod
    def warm() -> None:
        """Import scikit-learn and compile the loops now, which takes seconds, and not in the step of the first fit."""
        warm = IsolationForest(Settings(trees=8))
        warm._new_entities(["a"])
        warm._widths[0], warm.rows[0] = 1, FIRST_FIT
        warm._fit(0, 0.0)
        now = np.zeros((1, 2, WIDTH), np.int16)
        warm._shares(0, now[0], float(warm._scores(np.zeros(1, np.int64), now)[0]))

    def observe(self, frame: Frame) -> Sequence[Anomaly]:
        if self._seen < len(frame.signals):
            self._register(frame)
        if not self._names:
            return []
        now, heard = self._deviations(frame)
        some = heard.any(axis=1)
        learn = some & frame.learn[self._columns[:, 0]]
        found = self._vote(frame, now, heard, learn)
        self._remember(now, learn, frame.at)
        self._refit(frame.at)
        if self._alone:
            self._learn_scale(frame)
        return found

    # --------------------------------------------------------------------------------------------------- bookkeeping
    def _register(self, frame: Frame) -> None:
        new = columnar(frame.signals[self._seen:])
        self._new_entities([e for e in new.in_order() if e not in self._of])
        places = new.by_entity(lambda entity: self._of.get(entity, -1), np.int64)
        for k in np.flatnonzero(places >= 0).tolist():
            place = int(places[k])
            if self._widths[place] < WIDTH:
                self._columns[place, self._widths[place]] = self._seen + k
                self._widths[place] += 1
                self._restart(place)
        self._seen = len(frame.signals)
        for name in _PER_SIGNAL:
            setattr(self, name, grown(getattr(self, name), self._seen, 0.0))

    def _new_entities(self, names: Sequence[str]) -> None:
        """Room for all of them at once: copying the windows for each would take as long as their number squared."""
        names = names[:max(0, MAX_ENTITIES - len(self._names))]
        if not names:
            return
        more = len(names)
        self._of.update((name, len(self._names) + k) for k, name in enumerate(names))
        self._names += names
        first = max(self._seeds, default=-1) + 1
        self._seeds += range(first, first + more)
        self._forests += [None] * more
        self._widths = np.append(self._widths, np.zeros(more, np.int64))
        self._columns = np.vstack([self._columns, np.full((more, WIDTH), -1)])
        for name, (shape, kind) in _ARRAYS.items():
            setattr(self, name, np.concatenate([getattr(self, name), np.zeros((more, *shape), kind)]))
        self.tail.resize(len(self._names))
        for column in _PER_ENTITY:
            setattr(self, column, np.append(getattr(self, column), np.zeros(more)))

    def _restart(self, place: int) -> None:
        """A new signal changes what a row means: the window starts again."""
        if self._forests[place] is not None:
            self._forests[place], self._stack = None, None
        self.rows[place] = self.fitted_rows[place] = 0
        self.lately[place] = 0

    # --------------------------------------------------------------------------------------------------- deviations
    def _deviations(self, frame: Frame) -> tuple[Steps, Bools]:
        """int16[entities, 2, WIDTH]: residuals in steps, silent signals at their usual value, and their means of the last
        dozen ticks; bool[entities, WIDTH]: what spoke."""
        alone = len(frame.residuals) != len(frame.values)
        if alone != self._alone:  # a baseline came or went: what was remembered is of another measure
            for place in range(len(self._names)):
                self._restart(place)
        self._alone = alone
        residuals = np.append(self._own_residuals(frame) if alone else frame.residuals, np.nan)[self._columns]
        heard = ~np.isnan(residuals)
        now = np.rint(_joint.FINE * np.clip(np.where(heard, residuals, 0.0), -REACH, REACH))
        self._latest = (self.lately + _joint.LATELY * (now - self.lately)).astype(np.float32)
        return np.stack([now, np.rint(self._latest)], axis=1).astype(np.int16), heard

    def _own_residuals(self, frame: Frame) -> Floats:
        """float64[S]: where no baseline runs, the deviation from a signal's own recent level, NaN where there is no value."""
        scale = np.maximum(self.scale[:self._seen], 1e-3 * np.abs(self.level[:self._seen]) + 1e-9)
        with np.errstate(over="ignore"):  # infinitely far is as far as can be
            far = (np.clip(frame.values, -HUGE, HUGE) - self.level[:self._seen]) / (OWN_WIDTH * scale)
        return np.where(self.n[:self._seen] >= KNOWN_AFTER, far, np.nan)

    # --------------------------------------------------------------------------------------------------------- vote
    def _vote(self, frame: Frame, now: Steps, heard: Bools, learn: Bools) -> list[Anomaly]:
        which = self._stacked().which
        k = which[heard[which].any(axis=1)]
        if not len(k):
            return []
        rows, scores, beyond = self._rows(k, now[k]), np.full(len(self._names), np.nan), np.ones(len(self._names))
        scores[k] = self._stacked().scores(k, rows)
        beyond[k] = np.max(np.abs(rows[:, :_joint.SHARED].astype(np.float64)) / self.edge[k], axis=1)
        surprise = np.maximum(scores - self.mean, 0.0) / np.maximum(self.spread, MIN_SPREAD)
        surprise *= 1.0 + np.log(np.maximum(beyond, 1.0))  # to a forest all that is outside of the past is alike
        p = self.tail.p_value(surprise / (1.0 + DOUBT / (self.tail.n[:len(surprise)] + 1.0)))
        odd = np.flatnonzero(np.isfinite(scores) & (p < REPORT_P)).tolist()
        found = [a for i in odd for a in self._explain(frame, i, float(p[i]), self._shares(i, now[i], scores[i]), heard[i])]
        self._learn_scores(scores, surprise, learn & np.isfinite(scores))
        return found

    def _rows(self, places: NDArray[np.int64], now: Steps) -> Steps:
        """int16[k, columns]: what the forests of these entities judge, of their residuals now int16[k, 2, WIDTH]."""
        rows = np.zeros((len(places), _joint.columns(WIDTH)), np.int16)
        _joint.describe(places, now[:, 0], now[:, 1], self._widths, self.usual, self.weights, rows)
        return rows

    def _scores(self, places: NDArray[np.int64], now: Steps) -> Floats:
        return self._stacked().scores(places, self._rows(places, now))

    def _stacked(self) -> Stack:
        if self._stack is None:
            self._stack = Stack(self._forests)
            self._forests = self._stack.forests
        return self._stack

    def _shares(self, place: int, now: Steps, score: float) -> Floats:
        """float64[width], sum 1: what each signal adds to the score: how far it falls without what is odd in the signal."""
        width = int(self._widths[place])
        tamed = np.zeros((width, 2, WIDTH), np.int16)
        _joint.without(now, width, self.usual[place], self.weights[place], tamed)
        fall = np.maximum(score - self._scores(np.full(width, place), tamed), 0.0)
        return np.asarray(fall / fall.sum()) if fall.sum() > 0 else np.full(width, 1.0 / width)

    def _explain(self, frame: Frame, place: int, p: float, shares: Floats, heard: Bools) -> list[Anomaly]:
        """The entity's anomaly, told at the signals that isolate it: the first one always."""
        mine = self._columns[place]
        order = [k for k in np.argsort(-shares, kind="stable")[:TELL].tolist() if heard[k]]
        text = ", ".join(f"{frame.signals[mine[k]].key} {shares[k]:.0%}" for k in order)
        return [Anomaly(frame.at, self._names[place], frame.signals[mine[k]].key, 1.0 - p, p, "isolation_forest", int(mine[k]),
                        float(frame.values[mine[k]]), onset=frame.at, text=f"rare together: {text}")
                for k in order if k == order[0] or shares[k] >= TELL_SHARE]

    # -------------------------------------------------------------------------------------------------------- learn
    def _learn_scores(self, scores: Floats, surprise: Floats, which: Bools) -> None:
        self.tail.learn(surprise, which)
        i = np.flatnonzero(which)
        clipped = np.minimum(scores[i], self.mean[i] + 3 * np.maximum(self.spread[i], MIN_SPREAD))
        self.spread[i] += SCORE_FORGET * (np.abs(clipped - self.mean[i]) - self.spread[i])
        self.mean[i] += SCORE_FORGET * (clipped - self.mean[i])

    def _remember(self, now: Steps, learn: Bools, at: float) -> None:
        """The first 256 ticks, and then each with the chance that leaves a sample of all, of two weeks at most."""
        i = np.flatnonzero(learn)
        count = self.rows[i].astype(np.int64)
        dice = _dice(np.array(self._seeds, np.uint64)[i], count.astype(np.uint64))
        lately = WINDOW * (at - self.learned_at[i]) / SPAN_S
        chance = np.where(count < WINDOW, 1.0, np.minimum(np.maximum(WINDOW / (count + 1.0), lately), 1.0))
        slot = np.where(count < WINDOW, count, (dice & np.uint64(WINDOW - 1)).astype(np.int64))
        taken = (dice >> np.uint64(11)).astype(np.float64) / 2.0**53 < chance
        self.window[i[taken], slot[taken]] = now[i[taken]]
        self.rows[i] += 1
        self.learned_at[i], self.lately[i] = at, self._latest[i]

    def _refit(self, at: float) -> None:
        """At most one fit a tick, the longest overdue first: a fit takes a tenth of a second."""
        young = at - self.fitted_at < self._settings.refit
        due = (self.rows >= FIRST_FIT) & (self.rows >= 4 * self.fitted_rows) & (young | (self.fitted_rows == 0))
        due |= (self.fitted_rows > 0) & ~young
        if due.any():
            i = np.flatnonzero(due)
            self._fit(int(i[np.argmin(self.fitted_at[i])]), at)

    def _fit(self, place: int, at: float) -> None:
        width = int(self._widths[place])
        past = self.window[place, :int(min(self.rows[place], WINDOW))]
        _joint.learn_relations(past[:, 0, :width].copy(), self.usual[place, :width], self.weights[place, :width, :width])
        rows = self._rows(np.full(len(past), place), past)[:, :_joint.columns(width)]
        self.edge[place] = np.maximum(np.abs(rows[:, :_joint.SHARED].astype(np.float32)).max(axis=0), _joint.STEPS)
        model = fitted(_with_background(rows, self._seeds[place]), self._settings.trees, ROWS, self._seeds[place])
        self._forests[place], self._stack = flattened(model), None
        own = -model.score_samples(rows.astype(np.float32))
        self.fitted_at[place], self.fitted_rows[place] = at, self.rows[place]
        self.mean[place] = np.median(own)
        self.spread[place] = np.mean(np.abs(own - np.median(own)))

    def _learn_scale(self, frame: Frame) -> None:
        x = np.clip(frame.values, -HUGE, HUGE)
        i = np.flatnonzero(np.isfinite(frame.values) & frame.learn)
        n = self.n[i] + 1
        share = np.maximum(FORGET, 1.0 / n)
        reach = np.where(n > 30, 5.0 * np.maximum(self.scale[i], 1e-9), np.inf)
        step = np.where(n == 1, 0.0, np.clip(x[i] - self.level[i], -reach, reach))
        self.level[i] = np.where(n == 1, x[i], self.level[i] + share * step)
        self.scale[i] += share * (np.abs(step) - self.scale[i])
        self.n[i] = n

    # -------------------------------------------------------------------------------------------------------- state
    def ready_count(self) -> int:
        """Entities with a forest."""
        return sum(f is not None for f in self._forests)

    def state(self) -> dict[str, Any]:
        """Windows, scales and the grown forests. `place` int64[S]: the entity that a signal is a column of, and in units
        of 2**32 which of its columns; -1 for none."""
        place = np.full(self._seen, -1)
        entity, slot = np.nonzero(self._columns >= 0)
        place[self._columns[entity, slot]] = entity + _SLOT * slot
        return {
            "names": list(self._names), "widths": self._widths.tolist(), "seeds": list(self._seeds), "place": place,
            "alone": self._alone, "forests": packed(self._forests), "tail": self.tail.state(),
            **{k: getattr(self, k).copy() for k in (*_PER_SIGNAL, *_PER_ENTITY, *_ARRAYS)}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """An entity that lost a signal begins its window anew; one that lost all of them makes room for another."""
        slot, place = np.divmod(np.array(state["place"], np.int64), _SLOT)
        place[slot < 0] = -1
        left = np.bincount(place[place >= 0], minlength=len(state["names"]))
        kept = np.flatnonzero(left)
        self._names = [state["names"][k] for k in kept]
        self._seeds = [state["seeds"][k] for k in kept]
        self._of = {name: i for i, name in enumerate(self._names)}
        self._alone = bool(state["alone"])
        self.tail.restore({k: v[..., kept] for k, v in state["tail"].items()})
        for k in _PER_SIGNAL:
            setattr(self, k, np.array(state[k], np.float64))
        for k in _PER_ENTITY:
            setattr(self, k, np.asarray(state[k], np.float64)[kept])
        for k, (shape, kind) in _ARRAYS.items():
            setattr(self, k, np.asarray(state[k], kind).reshape(-1, *shape)[kept])
        forests = unpacked(state["forests"], len(state["names"]))
        self._forests, self._stack = [forests[k] for k in kept], None
        self._arrange(np.where(place >= 0, np.searchsorted(kept, place), -1), slot)
        for i in np.flatnonzero(left[kept] < np.array(state["widths"], np.int64)[kept]):
            self._restart(int(i))

    def _arrange(self, place: NDArray[np.int64], slot: NDArray[np.int64]) -> None:
        """Each entity's signals in the order in which they were registered: by slot; earlier states say nothing of
        slots, and columns were in that order then."""
        self._seen, self._columns = len(place), np.full((len(self._names), WIDTH), -1)
        there = np.flatnonzero(place >= 0)
        there = there[np.lexsort((slot[there], place[there]))]
        self._widths = np.bincount(place[there], minlength=len(self._names))
        first = np.repeat(np.cumsum(self._widths) - self._widths, self._widths)
        self._columns[place[there], np.arange(len(there)) - first] = there

    def move(self, columns: NDArray[np.int64]) -> None:
        """Only these signals stay, in this order, and whoever has one of them; as `restore` has it."""
        columns = columns[columns < self._seen]
        mine = np.append(renumbered(columns, self._seen), -1)[self._columns]  # the last is nobody's
        left = np.count_nonzero(mine >= 0, axis=1)
        for i in np.flatnonzero((left > 0) & (left < self._widths)).tolist():
            self._restart(i)
        self._columns = np.take_along_axis(mine, np.argsort(mine < 0, axis=1, kind="stable"), axis=1)
        self._widths, self._seen = left, len(columns)
        for name in _PER_SIGNAL:
            setattr(self, name, pack(getattr(self, name), columns, 0.0))
        if not left.all():
            self._keep(np.flatnonzero(left))

    def _keep(self, places: NDArray[np.int64]) -> None:
        """Only these entities stay, in this order: the others make room."""
        self._names, self._seeds, self._forests = ([had[k] for k in places] for had in (self._names, self._seeds, self._forests))
        self._of, self._stack = {name: i for i, name in enumerate(self._names)}, None
        self._columns, self._widths = self._columns[places], self._widths[places]
        self.tail.restore({k: v[..., places] for k, v in self.tail.state().items()})
        for name in (*_PER_ENTITY, *_ARRAYS):
            setattr(self, name, getattr(self, name)[places])


def _with_background(rows: Steps, seed: int) -> Steps:
    """These rows, and among them some spread evenly over a box that reaches as far again in each direction."""
    low, high = rows.min(axis=0).astype(np.int64), rows.max(axis=0).astype(np.int64)
    reach = np.maximum(high - low, int(_joint.STEPS))
    shape = (int(BACKGROUND * len(rows)), rows.shape[1])
    more = np.random.default_rng(seed).integers(low - reach, high + reach, shape, endpoint=True)
    return np.vstack([rows, np.clip(more, -32_000, 32_000).astype(np.int16)])


def _dice(seed: NDArray[np.uint64], count: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A number of 64 random bits for each count of each seed (splitmix64: Steele, Lea, Flood, OOPSLA 2014)."""
    x = (seed << np.uint64(32)) + count + np.uint64(1)
    x = x * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)))
