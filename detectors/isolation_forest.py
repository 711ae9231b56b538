"""Isolation forest per entity: is this combination of its signals rare?

Each row holds one tick of an entity: the hour of the day as sine and cosine, and its signals, each as a robust z-score
against its own recent past. Forests are fitted by scikit-learn on a schedule in event time and walked as flattened
trees over all entities at once (one scikit-learn call for one row costs milliseconds).

Source: Liu, Ting, Zhou, "Isolation Forest", ICDM 2008. Weak on raw points and blind to order: it is a voter, and its
anomalies only support evidence that another detector found. Needs 64 ticks before its first fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from aiops.calibration import Tail
from aiops.quantities import Duration
from aiops.signals import HUGE, grown
from aiops.types import Anomaly, Bools, Floats, Frame
from aiops.yamlfile import Strict

ROWS, WINDOW = 128, 256
FIRST_FIT = 64
WIDTH, CLOCK_COLUMNS = 34, 2
MAX_ENTITIES = 2000
REPORT_P = 1e-3
FORGET, SCORE_FORGET, MIN_SPREAD = 0.02, 0.05, 0.005
TELL, TELL_FROM = 3, 2.0
_PER_SIGNAL = ("n", "level", "scale")
_PER_ENTITY = ("mean", "spread", "rows", "fitted_rows", "fitted_at")


class Settings(Strict):
    """What may be set under `detectors`. `trees` of each forest; `refit`: how often it is grown anew, in event time."""

    trees: int = Field(default=32, ge=8, le=512)
    refit: Duration = Field(default=24 * 3600.0, ge=600.0)


class IsolationForest:
    """Per entity a ring of 256 rows (at most 32 signals) and one forest, seeded by the entity's number: replays agree."""

    VERSION = 1
    BY_SIGNAL = ("place", *_PER_SIGNAL)

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings or Settings()
        self._seeds: list[int] = []
        self._of: dict[str, int] = {}
        self._names: list[str] = []
        self._forests: list[Forest | None] = []
        self._stack: Stack | None = None
        self._columns = np.zeros((0, WIDTH - CLOCK_COLUMNS), np.int64)
        self._widths: list[int] = []
        self._window = np.zeros((0, WINDOW, WIDTH), np.float32)
        self._seen = 0
        self.tail = Tail()
        for name in (*_PER_SIGNAL, *_PER_ENTITY):
            setattr(self, name, np.zeros(0))
        self.n: Floats
        self.level: Floats
        self.scale: Floats
        self.mean: Floats
        self.spread: Floats
        self.rows: Floats
        self.fitted_rows: Floats
        self.fitted_at: Floats

    @staticmethod
    def warm() -> None:
        """Import scikit-learn now, which takes seconds, and not in the step of the first fit."""
        import sklearn.ensemble  # noqa: F401

    def observe(self, frame: Frame) -> Sequence[Anomaly]:
        if self._seen < len(frame.signals):
            self._register(frame)
        if not self._names:
            return []
        z = self._standardised(frame)
        rows, heard = self._build_rows(z, frame.at)
        learn = heard & frame.learn[self._columns[:, 0]]
        found = self._vote(frame, rows, heard, learn, z)
        self._remember(rows, learn)
        self._refit(frame.at)
        self._learn_scale(frame)
        return found

    # --------------------------------------------------------------------------------------------------- bookkeeping
    def _register(self, frame: Frame) -> None:
        new = frame.signals[self._seen:]
        self._new_entities([e for e in dict.fromkeys(s.entity for s in new) if e not in self._of])
        for signal in new:
            place = self._of.get(signal.entity)
            if place is not None and self._widths[place] < WIDTH - CLOCK_COLUMNS:
                self._columns[place, self._widths[place]] = signal.id
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
        self._widths += [0] * more
        self._columns = np.vstack([self._columns, np.full((more, WIDTH - CLOCK_COLUMNS), -1)])
        self._window = np.concatenate([self._window, np.zeros((more, WINDOW, WIDTH), np.float32)])
        self.tail.resize(len(self._names))
        for column in _PER_ENTITY:
            setattr(self, column, np.append(getattr(self, column), np.zeros(more)))

    def _restart(self, place: int) -> None:
        """A new signal changes what a row means: the window starts again."""
        if self._forests[place] is not None:
            self._forests[place], self._stack = None, None
        self.rows[place] = self.fitted_rows[place] = 0

    # --------------------------------------------------------------------------------------------------------- rows
    def _standardised(self, frame: Frame) -> Floats:
        """float64[S + 1]: z-scores, and a last 0 that the empty places of narrow entities point at."""
        size = self._seen
        scale = np.maximum(self.scale[:size], 1e-3 * np.abs(self.level[:size]) + 1e-9)
        with np.errstate(over="ignore"):  # infinitely far is 20 far
            return np.append(np.clip((np.clip(frame.values, -HUGE, HUGE) - self.level[:size]) / scale, -20.0, 20.0), 0.0)

    def _build_rows(self, z: Floats, at: float) -> tuple[NDArray[np.float32], Bools]:
        """float32[entities, WIDTH] with silent signals at their usual value; bool[entities]: did anything report?"""
        mine = z[self._columns]
        heard = np.isfinite(mine) & (self._columns >= 0)
        rows = np.zeros((len(self._names), WIDTH), np.float32)
        angle = 2 * np.pi * (at % 86400.0) / 86400.0
        rows[:, 0], rows[:, 1] = np.sin(angle), np.cos(angle)
        rows[:, CLOCK_COLUMNS:] = np.where(heard, mine, 0.0)
        return rows, np.asarray(heard.any(axis=1))

    # --------------------------------------------------------------------------------------------------------- vote
    def _vote(self, frame: Frame, rows: NDArray[np.float32], heard: Bools, learn: Bools, z: Floats) -> list[Anomaly]:
        if self._stack is None:
            self._stack = Stack.of(self._forests)
        k = self._stack.entities
        k = k[heard[k]]
        if not len(k):
            return []
        size = len(self._names)
        scores = np.full(size, np.nan)
        scores[k] = self._stack.scores(rows)[np.isin(self._stack.entities, k)]
        surprise = np.maximum(scores - self.mean, 0.0) / np.maximum(self.spread, MIN_SPREAD)
        p = self.tail.p_value(surprise)
        odd = np.flatnonzero(np.isfinite(scores) & (p < REPORT_P))
        found = [a for i in odd for a in self._explain(frame, int(i), float(p[i]), z)]
        self._learn_scores(scores, surprise, learn & np.isfinite(scores))
        return found

    def _explain(self, frame: Frame, place: int, p: float, z: Floats) -> list[Anomaly]:
        """The entity's anomaly, told at its most unusual signals."""
        mine = [int(c) for c in self._columns[place, :self._widths[place]]]
        size = sorted(((abs(float(z[c])), c) for c in mine if np.isfinite(z[c])), key=lambda x: (-x[0], x[1]))
        return [Anomaly(frame.at, self._names[place], frame.signals[c].key, 1.0 - p, p, "isolation_forest", c,
                        float(frame.values[c]), onset=frame.at) for far, c in size[:TELL] if far >= TELL_FROM]

    # -------------------------------------------------------------------------------------------------------- learn
    def _learn_scores(self, scores: Floats, surprise: Floats, which: Bools) -> None:
        self.tail.learn(surprise, which)
        i = np.flatnonzero(which)
        clipped = np.minimum(scores[i], self.mean[i] + 3 * np.maximum(self.spread[i], MIN_SPREAD))
        self.spread[i] += SCORE_FORGET * (np.abs(clipped - self.mean[i]) - self.spread[i])
        self.mean[i] += SCORE_FORGET * (clipped - self.mean[i])

    def _remember(self, rows: NDArray[np.float32], learn: Bools) -> None:
        i = np.flatnonzero(learn)
        self._window[i, self.rows[i].astype(np.int64) % WINDOW] = rows[i]
        self.rows[i] += 1

    def _refit(self, at: float) -> None:
        """At most one fit a tick, the longest overdue first: a fit takes tens of milliseconds."""
        grown_enough = (self.rows >= FIRST_FIT) & (self.rows >= 4 * self.fitted_rows) & (self.fitted_rows < WINDOW)
        due = np.flatnonzero(grown_enough | ((self.fitted_rows > 0) & (at - self.fitted_at >= self._settings.refit)))
        if len(due):
            self._fit(int(due[np.argmin(self.fitted_at[due])]), at)

    def _fit(self, place: int, at: float) -> None:
        count = int(min(self.rows[place], WINDOW))
        past = self._window[place, :count, :CLOCK_COLUMNS + self._widths[place]].copy()
        own = -self._grow(place, past).score_samples(past)
        self.fitted_at[place], self.fitted_rows[place] = at, count
        self.mean[place] = np.median(own)
        self.spread[place] = np.mean(np.abs(own - np.median(own)))

    def _grow(self, place: int, past: NDArray[np.float32]) -> Any:
        """A forest over these rows; the same rows give the same forest."""
        from sklearn.ensemble import IsolationForest as Sklearn

        model = Sklearn(n_estimators=self._settings.trees, max_samples=min(ROWS, len(past)),
                        random_state=self._seeds[place]).fit(past)
        self._forests[place], self._stack = Forest.of(model), None
        return model

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
        """Windows, scales and the grown forests. `place` int64[S]: the entity that a signal is a column of, -1 for none."""
        place = np.full(self._seen, -1)
        where = self._columns >= 0
        place[self._columns[where]] = np.nonzero(where)[0]
        return {
            "names": list(self._names), "widths": list(self._widths), "seeds": list(self._seeds), "place": place,
            "window": self._window.copy(), "forests": _packed(self._forests), "tail": self.tail.state(),
            **{k: getattr(self, k).copy() for k in (*_PER_SIGNAL, *_PER_ENTITY)}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """An entity that lost a signal begins its window anew; one that lost all of them makes room for another."""
        place = np.array(state["place"], np.int64)
        left = np.bincount(place[place >= 0], minlength=len(state["names"]))
        kept = np.flatnonzero(left)
        self._names = [state["names"][k] for k in kept]
        self._seeds = [state["seeds"][k] for k in kept]
        self._of = {name: i for i, name in enumerate(self._names)}
        self._window = np.array(state["window"], np.float32).reshape(-1, WINDOW, WIDTH)[kept]
        self.tail.restore({k: v[..., kept] for k, v in state["tail"].items()})
        for k in _PER_SIGNAL:
            setattr(self, k, np.array(state[k], np.float64))
        for k in _PER_ENTITY:
            setattr(self, k, np.array(state[k], np.float64)[kept])
        forests = _unpacked(state["forests"], len(state["names"]))
        self._forests, self._stack = [forests[k] for k in kept], None
        self._arrange(np.where(place >= 0, np.searchsorted(kept, place), -1))
        for i in np.flatnonzero(left[kept] < np.array(state["widths"], np.int64)[kept]):
            self._restart(int(i))

    def _arrange(self, place: NDArray[np.int64]) -> None:
        """Each entity's signals in the order of their columns, as when they were registered."""
        self._seen, self._widths = len(place), [0] * len(self._names)
        self._columns = np.full((len(self._names), WIDTH - CLOCK_COLUMNS), -1)
        for column in np.flatnonzero(place >= 0).tolist():
            mine = int(place[column])
            self._columns[mine, self._widths[mine]] = column
            self._widths[mine] += 1


@dataclass(slots=True)
class Forest:
    """A fitted forest as arrays [trees, nodes]; leaves point at themselves, so that every walk is equally long."""

    feature: NDArray[np.int64]
    threshold: Floats
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    length: Floats
    depth: int
    normal: float

    @classmethod
    def of(cls, model: Any) -> Forest:
        trees = [e.tree_ for e in model.estimators_]
        nodes = max(t.node_count for t in trees)
        itself = np.tile(np.arange(nodes), (len(trees), 1))
        f = cls(np.zeros((len(trees), nodes), np.int64), np.full((len(trees), nodes), np.inf), itself, itself.copy(),
                np.zeros((len(trees), nodes)), max(t.max_depth for t in trees),
                float(_average_path(np.array([model.max_samples_]))[0]))
        for k, t in enumerate(trees):
            inner = np.flatnonzero(t.children_left >= 0)
            f.feature[k, inner], f.threshold[k, inner] = t.feature[inner], t.threshold[inner]
            f.left[k, inner], f.right[k, inner] = t.children_left[inner], t.children_right[inner]
            f.length[k, :t.node_count] = t.compute_node_depths() - 1.0 + _average_path(t.n_node_samples)
        return f


_SMALL = {"feature": np.int8, "threshold": np.float64, "left": np.int16, "right": np.int16, "length": np.float64}


def _packed(forests: Sequence[Forest | None]) -> dict[str, Any]:
    """All forests end to end in the smallest types that hold them: at most 2 * ROWS nodes a tree, WIDTH features."""
    there = [(place, f) for place, f in enumerate(forests) if f is not None]
    about = [[place, *f.left.shape, f.depth] for place, f in there]
    flat = {k: np.concatenate([getattr(f, k).ravel() for _, f in there] or [[]]).astype(kind) for k, kind in _SMALL.items()}
    return {"about": about, "normal": [f.normal for _, f in there], **flat}


def _unpacked(state: Mapping[str, Any], count: int) -> list[Forest | None]:
    out: list[Forest | None] = [None] * count
    start = 0
    for (place, trees, nodes, depth), normal in zip(state["about"], state["normal"], strict=True):
        end = start + trees * nodes
        part = {k: state[k][start:end].reshape(trees, nodes) for k in _SMALL}
        part |= {k: part[k].astype(np.int64) for k in ("feature", "left", "right")}
        out[place], start = Forest(**part, depth=depth, normal=normal), end
    return out


class Stack:
    """All forests end to end, so that one walk moves every tree of every entity by one level."""

    def __init__(self, forests: Sequence[tuple[int, Forest]]) -> None:
        self.entities = np.array([place for place, _ in forests], np.int64)
        self.depth = max((f.depth for _, f in forests), default=0)
        self.normal = np.array([f.normal for _, f in forests])
        roots, offset = [], 0
        parts: dict[str, list[NDArray[Any]]] = {"feature": [], "threshold": [], "left": [], "right": [], "length": []}
        for _, f in forests:
            trees, nodes = f.left.shape
            starts = offset + nodes * np.arange(trees)
            roots.append(starts)
            for name, rows in (("feature", f.feature), ("threshold", f.threshold), ("length", f.length),
                               ("left", f.left + starts[:, None]), ("right", f.right + starts[:, None])):
                parts[name].append(rows.ravel())
            offset += trees * nodes
        flat = {k: np.concatenate(v) if v else np.zeros(0) for k, v in parts.items()}
        self.feature, self.threshold, self.length = flat["feature"], flat["threshold"], flat["length"]
        self.left, self.right = flat["left"], flat["right"]
        self.roots = np.array(roots)

    @classmethod
    def of(cls, forests: Sequence[Forest | None]) -> Stack:
        return cls([(place, f) for place, f in enumerate(forests) if f is not None])

    def scores(self, rows: NDArray[np.float32]) -> Floats:
        """Scores in 0..1 (1 = isolated at once), equal to scikit-learn's `-score_samples`; rows[entities, WIDTH]."""
        node = self.roots
        base = (self.entities * rows.shape[1])[:, None]
        flat = np.ascontiguousarray(rows).ravel()
        for _ in range(self.depth):
            node = np.where(flat[base + self.feature[node]] <= self.threshold[node], self.left[node], self.right[node])
        return np.asarray(2.0 ** -(self.length[node].mean(axis=1) / self.normal))


def _average_path(n: Any) -> Floats:
    """Mean depth of an unsuccessful search in a binary tree of n rows (equation 1 of the paper)."""
    n = np.asarray(n, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        many = 2.0 * (np.log(n - 1.0) + np.euler_gamma) - 2.0 * (n - 1.0) / n
    return np.where(n <= 1, 0.0, np.where(n == 2, 1.0, many))
