"""Arrays that grow at the end, and close their gaps in place."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiops.types import Bools

Columns = NDArray[np.int64]
SPARE = 8
"""Room for an eighth more than was asked for: what is spare is memory that nothing uses."""
_PIECE = 1 << 16


def grown(array: np.ndarray[Any, Any], size: int, fill: float | bool) -> np.ndarray[Any, Any]:
    """`array` with its last axis at least `size` long, spare room included, new places set to `fill`."""
    have = array.shape[-1]
    if size <= have:
        return array
    out = np.empty((*array.shape[:-1], with_spare(size)), array.dtype)
    out[..., :have] = array
    out[..., have:] = fill
    return out


def with_spare(size: int) -> int:
    """How long an array is made that must hold so many."""
    return max(size + size // SPARE, 64)


def packed(stays: Bools, edges: Iterable[int] = ()) -> Columns:
    """int64[those that stay]: which column each place takes when gaps are filled with the last ones, in their order.

    Most stay where they are: columns[k] >= k, and the work is that of the gaps and not of all. Nothing crosses an edge to the
    left: whoever knows only the first `edge` columns finds those of them that stay in front of the others.
    """
    columns, stays = np.arange(len(stays)), stays.copy()
    for edge in sorted({*edges, len(stays)}):
        count = int(np.count_nonzero(stays[:edge]))
        columns[:count][~stays[:count]] = columns[count:edge][stays[count:edge]]
        stays[:count], stays[count:edge] = True, False
    return columns[:np.count_nonzero(stays)]


def pack(array: NDArray[Any], columns: Columns, fill: Any) -> NDArray[Any]:
    """Place k of the first axis takes what was at columns[k], which must not be less than k; all others are set to `fill`.

    In place, in small pieces; the array is only replaced by a smaller one, alike in memory, where less than half of it is
    left in use. For the last axis pass a transposed view.
    """
    targets = np.flatnonzero(columns != np.arange(len(columns)))
    for at in range(0, len(targets), _PIECE):
        piece = targets[at:at + _PIECE]
        array[piece] = array[columns[piece]]
    array[len(columns):] = fill
    if 2 * with_spare(len(columns)) >= len(array):
        return array
    return array[:with_spare(len(columns))].copy(order="K")


def renumbered(columns: Columns, count: int, gone: int = -1) -> Columns:
    """int64[count]: the new number of each of `count` columns, of which `columns` stay, in this order; `gone` for the rest."""
    where = np.full(count, gone, np.int64)
    where[columns] = np.arange(len(columns))
    return where
