"""What a tick of an entity looks like beside its own past: how odd each signal is alone, and how odd beside the others.

Of residuals of all signals of an entity, linear regression of each on the others says what the others let expect of it
(a Gaussian graphical model; its precision matrix holds all the regressions at once: Whittaker, "Graphical Models in Applied
Multivariate Statistics", 1990). What is left is small in what usually goes together and large where that is broken.

Plain loops, compiled where that can be had, so that every machine adds in the same order.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from aiops.compiled import compiled

Array = np.ndarray[Any, Any]
FINE = 2000.0
"""Steps of a remembered residual to half a width of the band; int16 ends at 16 half-widths."""
STEPS, FAR = 1000.0, 32.0
"""Steps of a column of a row to its usual deviation; what is 32 of them away is as far as can be."""
RIDGE, LEAST, CLIP, NORMAL = 0.02, 1e-3, 4.0, 1.2533
SHARED = 5
"""Columns over all signals: the oddest, the oddest beside the others, all together, their mean, and the oddest lately."""
LATELY = 2.0 / 13.0
"""Share of a tick in the mean of the last dozen ticks."""
LATELY_USUAL = math.sqrt(LATELY / (2.0 - LATELY))
"""The usual size of such a mean where ticks do not depend on each other, in usual residuals."""


@compiled
def learn_relations(past: Array, usual: Array, weights: Array) -> None:
    """Fills usual float32[S] (the usual size of each residual) and weights float32[S, S] from past int16[n, S].

    u = weights @ (residual / usual) is what the others do not explain, with variance of about one; weights[k, k] of
    it is what signal k itself adds. The ridge keeps signals apart that are always the same, and grows where rows are few.
    """
    n, size = past.shape
    matrix = np.zeros((size, size))
    for j in range(size):
        total = 0.0
        for i in range(n):
            total += abs(past[i, j] / FINE)
        usual[j] = max(NORMAL * total / n, LEAST)
    for j in range(size):
        for k in range(j + 1):
            product = 0.0
            for i in range(n):
                a, b = past[i, j] / FINE / usual[j], past[i, k] / FINE / usual[k]
                product += min(max(a, -CLIP), CLIP) * min(max(b, -CLIP), CLIP)
            matrix[j, k] = matrix[k, j] = product / n
        matrix[j, j] += RIDGE + size / n
    invert(matrix)
    for j in range(size):
        for k in range(size):
            weights[j, k] = matrix[j, k] / math.sqrt(matrix[j, j])


@compiled
def invert(matrix: Array) -> None:
    """A symmetric positive definite matrix in its place (Gauss-Jordan; such a matrix needs no pivots)."""
    size = len(matrix)
    for k in range(size):
        pivot = 1.0 / matrix[k, k]
        matrix[k, k] = 1.0
        for j in range(size):
            matrix[k, j] *= pivot
        for i in range(size):
            if i != k:
                factor = matrix[i, k]
                matrix[i, k] = 0.0
                for j in range(size):
                    matrix[i, j] -= factor * matrix[k, j]


@compiled
def steps(x: float) -> int:
    """In whole steps, as far as can be at most."""
    return math.floor(min(max(x, -FAR), FAR) * STEPS + 0.5)


@compiled
def columns(width: int) -> int:
    """Of a row of an entity with so many signals. Trees choose among columns evenly, so those over all signals are repeated
    until they are half of all."""
    return SHARED * repeats(width) + width


@compiled
def repeats(width: int) -> int:
    return (width + SHARED - 1) // SHARED


@compiled
def describe(places: Array, now: Array, lately: Array, widths: Array, usual: Array, weights: Array, rows: Array) -> None:
    """Fills rows int16[k, columns]: of entity places[k] with residuals now[k] and their means of the last ticks lately[k]
    the columns over all signals, repeated, and then what the others do not explain of each signal."""
    for k in range(len(places)):
        e = places[k]
        size = widths[e]
        again = repeats(size)
        worst, oddest, energy, mean, slow = 0.0, 0.0, 0.0, 0.0, 0.0
        for j in range(size):
            z, u = now[k, j] / FINE / usual[e, j], 0.0
            for i in range(size):
                u += weights[e, j, i] * (now[k, i] / FINE / usual[e, i])
            worst, oddest = max(worst, abs(z)), max(oddest, abs(u))
            slow = max(slow, abs(lately[k, j] / FINE / usual[e, j]) / LATELY_USUAL)
            energy += z * u * weights[e, j, j]
            mean += z / size
            rows[k, SHARED * again + j] = steps(u)
        for r in range(again):
            c = SHARED * r
            rows[k, c], rows[k, c + 1], rows[k, c + 2] = steps(worst), steps(oddest), steps(math.sqrt(max(energy, 0.0) / size))
            rows[k, c + 3], rows[k, c + 4] = steps(mean), steps(slow)


@compiled
def without(now: Array, size: int, usual: Array, weights: Array, rows: Array) -> None:
    """Fills rows int16[S, 2, S] with now int16[2, S] (residuals and their means of the last ticks), in row k signal k as the
    others let expect it."""
    for k in range(size):
        for i in range(size):
            rows[k, 0, i], rows[k, 1, i] = now[0, i], now[1, i]
        u = 0.0
        for i in range(size):
            u += weights[k, i] * (now[0, i] / FINE / usual[i])
        told = (now[0, k] / FINE / usual[k] - u / weights[k, k]) * usual[k]
        rows[k, 0, k], rows[k, 1, k] = math.floor(min(max(told, -16.0), 16.0) * FINE + 0.5), 0
