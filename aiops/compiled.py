"""Compiled loops, where they can be had: one piece of code, read as Python, run as machine code.

Numba is never needed to run: without it, or with NUMBA_DISABLE_JIT=1, the same functions run as they are written, with
the same results and some hundred times slower.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])

try:
    from numba import njit
    from numba.core.options import DefaultOptions
    _UNCOUNTED = {"_nrt": False} if hasattr(DefaultOptions, "_nrt") else {}  # not public: without it all is as before, and slower
except ImportError:  # pragma: no cover - the environment of the tests has it
    njit = None  # type: ignore[assignment]


def compiled(function: F) -> F:
    """Machine code for a function of numbers and arrays. IEEE arithmetic as written: no reordering, no contraction.

    What was compiled is kept beside the source, or in the user's cache folder where that cannot be written.
    """
    if njit is None:
        return function
    return _compiled(function)


def in_place(function: F) -> F:
    """As `compiled`, for functions that only read and write arrays which they are given: half the time of the baseline.

    They become part of the function that calls them, and references to arrays are not counted: each count is a locked
    addition, and there were a hundred of them a series. One that makes an array is refused when it is compiled.
    """
    if njit is None:
        return function
    return _compiled(function, inline="always", **_UNCOUNTED)


def _compiled(function: F, **how: Any) -> F:
    try:
        return cast(F, njit(cache=True, error_model="numpy", **how)(function))
    except RuntimeError:  # no folder for the cache can be written: compile anew each time
        return cast(F, njit(error_model="numpy", **how)(function))
