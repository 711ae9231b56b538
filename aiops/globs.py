"""Names that people give with wildcards, for things that have an entity, or something like it, and one more word."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase


def named(patterns: Sequence[str], *parts: str) -> bool:
    """Whether one of these globs is the first part, or all of them with a blank between; anything where there are no globs."""
    return not patterns or any(fnmatchcase(x, p) for p in patterns for x in (parts[0], " ".join(parts)))
