"""Which lines are of one kind: log templates, mined as lines come (the Drain family of methods).

A line is masked (aiops/logtext.py) and cut into words and the separators between them (aiops/logtemplate.py). Templates with the
same separators and level share a tree, word by word; a line that fits none becomes a template of its own. Where templates differ
in few words only, and enough of them do, these words are variables and they become one (aiops/logbuckets.py). After He et al.,
"Drain" (ICWS 2017), which merges by similarity at once; here a word must vary before it counts as a variable.

All state is a function of the lines and their order: no clock, no chance. At most MAX_TEMPLATES are kept; those that were not
seen for longest (counted in lines) go first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from operator import attrgetter
from typing import Any

from aiops.logbuckets import Bucket, born
from aiops.logtemplate import Template, Tokens, id_of, joined, tokens
from aiops.logtext import Level, Words, phrase

__all__ = ["Template", "Templates"]

MAX_TEMPLATES, EVICT = 2_000, 500
MAX_KEYS = 10_000
FORMAT = 2
"""Of the state. Before 2 no value had several words."""
_last = attrgetter("last")


class Templates:
    """Streaming template miner. `add` gives the template of a line; `merged` collects (id that went, id that stands for it)."""

    def __init__(self) -> None:
        self._words = Words()
        self._keys: dict[str, tuple[Template, Bucket, int]] = {}
        self._buckets: dict[tuple[Level, Tokens], Bucket] = {}
        self._lines = self._count = 0
        self.merged: list[tuple[str, str]] = []

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Template]:
        """The templates, in the order in which they were born."""
        return iter(sorted((t for b in self._buckets.values() for t in b.templates), key=born))

    def by_id(self, id: str) -> Template | None:
        """The template with this id, None where there is none any more."""
        return next((t for b in self._buckets.values() for t in b.templates if t.id == id), None)

    def add(self, text: str) -> Template:
        """The template of one line (or of what `aiops.logframes` made of several). Never fails, whatever the text."""
        self._lines += 1
        key = self._words.line(text)
        found = self._keys.get(key)
        template = found[0] if found is not None and found[1].version == found[2] else self._sorted_in(key)
        template.count += 1
        template.last = self._lines
        return template

    def _sorted_in(self, key: str) -> Template:
        level, body = phrase(key)
        words, seps = tokens(body)
        place = (level, seps)
        bucket = self._buckets.get(place) or self._buckets.setdefault(place, Bucket())
        template = bucket.find(words)
        if template is None:
            template = self._new(bucket, level, words, seps)
        if len(self._keys) >= MAX_KEYS:
            self._keys.clear()
        self._keys[key] = (template, bucket, bucket.version)
        return template

    def _new(self, bucket: Bucket, level: Level, words: Tokens, seps: Tokens) -> Template:
        template = Template(id_of(level, words, seps), level, words, seps, self._lines)
        bucket.put(template)
        self._count += 1
        while (merged := bucket.merge(template)) is not None:
            template, gone = merged
            self._count -= len(gone)
            self.merged.extend((t.id, template.id) for t in gone)
        if self._count > MAX_TEMPLATES:
            self._evict(template)
        return template

    def _evict(self, spared: Template) -> None:
        """The templates that were not seen for longest."""
        for template in sorted((t for t in self if t is not spared), key=_last)[:EVICT]:
            place = (template.level, template.seps)
            self._buckets[place].drop(template)
            self._count -= 1
            if not self._buckets[place].templates:
                self._buckets.pop(place).version += 1

    # ------------------------------------------------------------------------------------------------------- state
    def state(self) -> dict[str, Any]:
        """Plain JSON values: each template as a row, in the order of birth."""
        rows = [[t.id, t.level, list(t.words), list(t.seps), t.born, t.last, t.count] for t in self]
        return {"format": FORMAT, "lines": self._lines, "templates": rows}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Into one that has seen nothing. Raises KeyError, TypeError or ValueError for what is no such state.

        Templates of an older format are cut into words anew; their ids stay.
        """
        self._lines = int(state["lines"])
        cut = state.get("format", 1) < FORMAT
        for id, level, words, seps, first, last, count in state["templates"]:
            words, seps = tokens(joined(words, seps)) if cut else (tuple(words), tuple(seps))
            template = Template(str(id), level, words, seps, int(first))
            template.last, template.count = int(last), int(count)
            self._buckets.setdefault((level, template.seps), Bucket()).put(template)
            self._count += 1
