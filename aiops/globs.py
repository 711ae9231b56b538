"""Names that people give with wildcards, for what has an entity (or something like it) and perhaps one more word."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import numpy as np

from aiops.rows import Signals
from aiops.types import Bools


def named(patterns: Sequence[str], first: str, second: str = "") -> bool:
    """Whether one of these globs is `first`, or `first second`; anything where there are no globs."""
    return not patterns or any(fnmatchcase(first, p) for p in patterns) or any(
        fnmatchcase(first, a) and fnmatchcase(second, b) for p in patterns for a, b in _halves(p))


def signals_named(patterns: Sequence[str], signals: Signals) -> Bools:
    """bool[S]: the same of the entities and signals of many columns; each distinct name is looked at once."""
    found = signals.by_entity(lambda entity: not patterns or any(fnmatchcase(entity, p) for p in patterns), np.bool_)
    for first, second in [half for p in patterns for half in _halves(p)]:
        found |= _both(signals, first, second)
    return np.asarray(found)


def _both(signals: Signals, first: str, second: str) -> Bools:
    mine = signals.by_entity(lambda entity: fnmatchcase(entity, first), np.bool_)
    return np.asarray(mine & signals.by_kind(lambda kind: fnmatchcase(kind.key, second), np.bool_))


def _halves(pattern: str) -> list[tuple[str, str]]:
    """At each blank: both may hold some themselves."""
    cuts = [k for k, c in enumerate(pattern) if c == " "]
    return [(pattern[:k], pattern[k + 1:]) for k in cuts]
