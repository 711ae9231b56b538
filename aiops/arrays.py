"""Arrays that grow."""

from __future__ import annotations

from typing import Any

import numpy as np


def grown(array: np.ndarray[Any, Any], size: int, fill: float | bool) -> np.ndarray[Any, Any]:
    """`array` with its last axis at least `size` long, spare room included, new places set to `fill`."""
    have = array.shape[-1]
    if size <= have:
        return array
    room = max(size, have + have // 2, 64) - have
    return np.concatenate([array, np.full((*array.shape[:-1], room), fill, array.dtype)], axis=-1)
