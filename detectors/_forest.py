"""Isolation forests as flat arrays of small integers, and one walk over all of them at once.

scikit-learn grows them, on rows of whole numbers; so a threshold can be rounded down to a whole number and separates the
same rows. A node is five bytes. Scores are those of scikit-learn's `-score_samples`; one call of that for one row costs
milliseconds, and the walk some microseconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiops.compiled import compiled
from aiops.types import Floats

Array = np.ndarray[Any, Any]
Steps = NDArray[np.int16]
MOST_ROWS = 256
_NODES, _KINDS = ("feature", "child", "threshold"), (np.int8, np.int16, np.int16)


@dataclass(frozen=True, slots=True)
class Forest:
    """feature int8[n], child int16[n], threshold int16[n]: the nodes, tree after tree, each breadth first; roots int32[trees].

    `child` is the place of the left child, counted from the root; the right one follows it. In a leaf it is minus the number
    of rows that ended there while the tree was grown. `sample`: of how many rows each tree was grown.
    """

    feature: NDArray[np.int8]
    child: Steps
    threshold: Steps
    roots: NDArray[np.int32]
    sample: int


def fitted(past: Steps, trees: int, sample: int, seed: int) -> Any:
    """scikit-learn's model of these rows, int16[n, columns]; the same rows and seed give the same."""
    import sklearn
    from sklearn.ensemble import IsolationForest as Sklearn

    model = Sklearn(n_estimators=trees, max_samples=min(sample, len(past)), random_state=seed)
    with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):  # else a third of the time is for checks
        return model.fit(past.astype(np.float32))


def flattened(model: Any) -> Forest:
    """A model of scikit-learn that was fitted to whole numbers within int16, 127 columns at most."""
    parts = [_breadth_first(e.tree_) for e in model.estimators_]
    nodes = [np.concatenate(p) for p in zip(*parts, strict=True)]
    ends = np.cumsum([len(p[0]) for p in parts])
    return Forest(nodes[0].astype(np.int8), nodes[1].astype(np.int16), nodes[2].astype(np.int16),
                  np.concatenate([[0], ends[:-1]]).astype(np.int32), int(model.max_samples_))


def _breadth_first(tree: Any) -> tuple[Array, Array, Array]:
    left, right = tree.children_left.tolist(), tree.children_right.tolist()
    order = [0]
    for node in order:
        if left[node] >= 0:
            order += [left[node], right[node]]
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    inner = tree.children_left >= 0
    child = np.where(inner, place[tree.children_left], -tree.n_node_samples)
    return (np.where(inner, tree.feature, 0)[order], child[order], np.where(inner, np.floor(tree.threshold), 0)[order])


class Stack:
    """All forests end to end. `which` int64[k]: the places that have one. `forests`: the same, as views of the whole."""

    def __init__(self, forests: Sequence[Forest | None]) -> None:
        there = [(place, f) for place, f in enumerate(forests) if f is not None]
        self.which = np.array([place for place, _ in there], np.int64)
        self.feature, self.child, self.threshold = (_joined([getattr(f, name) for _, f in there], kind)
                                                    for name, kind in zip(_NODES, _KINDS, strict=True))
        starts = np.cumsum([0, *(len(f.child) for _, f in there)])
        self.roots = _joined([f.roots + start for (_, f), start in zip(there, starts, strict=False)], np.int64)
        self.first = np.cumsum([0, *(0 if f is None else len(f.roots) for f in forests)])
        self.normal = AVERAGE_PATH[[0 if f is None else f.sample for f in forests]]
        self.forests = list(forests)
        for (place, f), start, end in zip(there, starts[:-1], starts[1:], strict=True):
            self.forests[place] = replace(f, feature=self.feature[start:end], child=self.child[start:end],
                                          threshold=self.threshold[start:end])

    def scores(self, places: NDArray[np.int64], rows: Steps) -> Floats:
        """float64[k] in 0..1 (1 = isolated at once): of rows int16[k, columns], each by the forest of its place."""
        out = np.empty(len(places))
        path_lengths(self.feature, self.child, self.threshold, self.roots, self.first, places, rows, AVERAGE_PATH, out)
        return np.asarray(2.0 ** -(out / self.normal[places]))


@compiled
def path_lengths(feature: Array, child: Array, threshold: Array, roots: Array, first: Array, places: Array, rows: Array,
                 average: Array, out: Array) -> None:
    """Fills out[k] with the mean depth at which the trees of forest places[k] isolate rows[k]."""
    for k in range(len(places)):
        total = 0.0
        start, end = first[places[k]], first[places[k] + 1]
        for t in range(start, end):
            root, depth = roots[t], 0
            node = root
            while child[node] > 0:
                node = root + child[node] + (1 if rows[k, feature[node]] > threshold[node] else 0)
                depth += 1
            total += depth + average[-child[node]]
        out[k] = total / (end - start)


def _average_path() -> Floats:
    """float64[MOST_ROWS + 1]: mean depth of an unsuccessful search in a binary tree of n rows (equation 1 of the paper)."""
    n = np.arange(3.0, MOST_ROWS + 1)
    many = 2.0 * (np.log(n - 1.0) + np.euler_gamma) - 2.0 * (n - 1.0) / n
    return np.concatenate([[0.0, 0.0, 1.0], many])


AVERAGE_PATH = _average_path()


def _joined(parts: Sequence[Array], kind: Any) -> Array:
    return np.concatenate([np.zeros(0, kind), *parts]).astype(kind)


def packed(forests: Sequence[Forest | None]) -> dict[str, Any]:
    """All of them end to end, for a file."""
    there = [(place, f) for place, f in enumerate(forests) if f is not None]
    about = [[place, len(f.child), len(f.roots), f.sample] for place, f in there]
    arrays = {name: _joined([getattr(f, name) for _, f in there], kind)
              for name, kind in zip((*_NODES, "roots"), (*_KINDS, np.int32), strict=True)}
    return {"about": about, **arrays}


def unpacked(state: Mapping[str, Any], count: int) -> list[Forest | None]:
    out: list[Forest | None] = [None] * count
    node = root = 0
    for place, nodes, trees, sample in state["about"]:
        feature, child, threshold = (np.array(state[name][node:node + nodes]) for name in _NODES)
        out[place] = Forest(feature, child, threshold, np.array(state["roots"][root:root + trees]), sample)
        node, root = node + nodes, root + trees
    return out
