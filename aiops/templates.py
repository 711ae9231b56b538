"""Which lines are of one kind: log templates, mined as lines come (the Drain family of methods).

A line is masked (aiops/logtext.py) and cut into words and the separators between them. Templates with the same separators and
level share a tree, word by word; a line that fits none becomes a template of its own. Where templates differ in one word only,
and enough of them do, that word is a variable and they become one. After He et al., "Drain" (ICWS 2017), which merges by
similarity at once; here a word must vary before it counts as a variable.

All state is a function of the lines and their order: no clock, no chance. At most MAX_TEMPLATES are kept; those that were not
seen for longest (counted in lines) go first.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any

from aiops.logtext import UNIT, VARIABLE, Level, Words, phrase

ANY = "\x01"
"""A word of a template that fits every word: it was seen to vary."""
MAX_TEMPLATES, EVICT = 2_000, 500
MAX_WORDS, MAX_PLACES = 48, 24
"""Words of a template; the first so many of them may turn out to be variables."""
MAX_KEYS, MAX_STEPS = 10_000, 400
NEED, NEED_NAME, NEED_VALUE, NEED_FIRST = 4, 3, 2, 12
"""Different words in one place that make it a variable: anywhere, after a word that announces one, after `=` or a quote, and
at the beginning."""
NEVER = 10**9
_SPLIT = re.compile(r"([\s,;:=()\[\]{}\"'<>|]+)")
_ANNOUNCES = frozenset((
    "user", "users", "host", "node", "pod", "container", "service", "server", "device", "disk", "volume", "image", "queue",
    "topic", "table", "job", "task", "named", "from", "by"))
_UNITS = frozenset((
    "B", "kB", "KB", "MB", "GB", "TB", "PB", "KiB", "MiB", "GiB", "TiB", "bytes", "byte", "ns", "us", "ms", "s", "sec", "secs",
    "second", "seconds", "min", "minutes", "h", "hours"))
_VARIES = frozenset((VARIABLE, ANY, UNIT))
Tokens = tuple[str, ...]


class Template:
    """One kind of line. `id`: 10 hex digits that come from the first line of the kind, and stay when it becomes more general.

    words, seps: what it is made of; born, last: numbers of the lines at which it was first and last seen; count: lines so far.
    parent: the template that it became part of, None while it stands for itself.
    """

    __slots__ = ("born", "count", "id", "last", "level", "parent", "seps", "text", "words")

    def __init__(self, id: str, level: Level, words: Tokens, seps: Tokens, born: int) -> None:
        self.id, self.level, self.words, self.seps = id, level, words, seps
        self.born = self.last = born
        self.count = 0
        self.parent: Template | None = None
        self.text = shown(words, seps)

    def root(self) -> Template:
        """The template that stands for this one now."""
        t = self
        while t.parent is not None:
            t = t.parent
        return t


_born, _last = attrgetter("born"), attrgetter("last")


class Templates:
    """Streaming template miner. `add` gives the template of a line; `merged` collects (id that went, id that stands for it)."""

    def __init__(self) -> None:
        self._words = Words()
        self._keys: dict[str, tuple[Template, _Bucket, int]] = {}
        self._buckets: dict[tuple[Level, Tokens], _Bucket] = {}
        self._lines = self._count = 0
        self.merged: list[tuple[str, str]] = []

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Template]:
        """The templates, in the order in which they were born."""
        return iter(sorted((t for b in self._buckets.values() for t in b.templates), key=_born))

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
        bucket = self._buckets.get(place) or self._buckets.setdefault(place, _Bucket())
        template = bucket.find(words)
        if template is None:
            template = self._new(bucket, level, words, seps)
        if len(self._keys) >= MAX_KEYS:
            self._keys.clear()
        self._keys[key] = (template, bucket, bucket.version)
        return template

    def _new(self, bucket: _Bucket, level: Level, words: Tokens, seps: Tokens) -> Template:
        template = Template(_id(level, shown(words, seps)), level, words, seps, self._lines)
        bucket.put(template)
        self._count += 1
        while (group := bucket.mergeable(template)) is not None:
            template, gone = bucket.merge(*group)
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
        return {"lines": self._lines, "templates": rows}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Into one that has seen nothing. Raises KeyError, TypeError or ValueError for what is no such state."""
        self._lines = int(state["lines"])
        for id, level, words, seps, born, last, count in state["templates"]:
            template = Template(str(id), level, tuple(words), tuple(seps), int(born))
            template.last, template.count = int(last), int(count)
            self._buckets.setdefault((level, template.seps), _Bucket()).put(template)
            self._count += 1


class _Bucket:
    """Templates with the same separators. `tree`: one dict a word, templates as leaves.

    places: templates that are equal but for one word, by a hash of the rest; skeletons: equal but for what follows `=`.
    `version` rises with every change, so that what was found before is looked up again.
    """

    __slots__ = ("places", "skeletons", "templates", "tree", "version")

    def __init__(self) -> None:
        self.version = 0
        self.tree: dict[str, Any] = {}
        self.templates: dict[Template, None] = {}
        self.places: dict[int, tuple[Template, ...]] = {}
        self.skeletons: dict[int, tuple[Template, ...]] = {}

    def find(self, words: Tokens) -> Template | None:
        """The template that fits, the most literal one first; None also after MAX_STEPS steps of search."""
        stack: list[tuple[Any, int]] = [(self.tree, 0)]
        for _ in range(MAX_STEPS):
            if not stack:
                return None
            node, place = stack.pop()
            if place == len(words):
                found: Template = node
                return found
            word = words[place]
            steps = (ANY, UNIT, word) if word in _UNITS else (ANY, word)
            stack += [(below, place + 1) for step in steps if (below := node.get(step)) is not None]
        return None

    def put(self, template: Template) -> None:
        node = self.tree
        for word in template.words[:-1]:
            node = node.setdefault(word, {})
        node[template.words[-1]] = template
        self.templates[template] = None
        for index, key in self._indexed(template):
            index[key] = (*index.get(key, ()), template)
        self.version += 1

    def drop(self, template: Template) -> None:
        path = [self.tree]
        for word in template.words[:-1]:
            path.append(path[-1][word])
        for node, word in zip(reversed(path), reversed(template.words), strict=True):
            del node[word]
            if node:
                break
        del self.templates[template]
        for index, key in self._indexed(template):
            index[key] = tuple(t for t in index[key] if t is not template)
            if not index[key]:
                del index[key]
        self.version += 1

    def _indexed(self, template: Template) -> Iterator[tuple[dict[int, tuple[Template, ...]], int]]:
        for key in _rests(template.words):
            yield self.places, key
        if len(values := _values(template.seps)) > 1:
            yield self.skeletons, _skeleton(template.words, values)

    def mergeable(self, template: Template) -> tuple[Sequence[Template], Tokens] | None:
        """Templates that are to become one with this one, and the words of that one."""
        words = template.words
        for place, key in enumerate(_rests(words)):
            alike = self.places[key]
            if len(alike) > 1 and len(alike) >= needed(template, place, [t.words[place] for t in alike]):
                varied = UNIT if _is_unit(template, place, [t.words[place] for t in alike]) else ANY
                return alike, (*words[:place], varied, *words[place + 1:])
        if len(values := _values(template.seps)) > 1:
            others = [t for t in self.skeletons[_skeleton(words, values)] if t is not template]
            if others:
                other = min(others, key=_born)
                return (template, other), tuple(a if a == b else ANY for a, b in zip(words, other.words, strict=True))
        return None

    def merge(self, group: Sequence[Template], words: Tokens) -> tuple[Template, list[Template]]:
        """The oldest of the group, now with these words, and the others, which are part of it from now on."""
        there = self._exactly(words)
        all_of = sorted({*group, there} if there else group, key=_born)
        first, gone = all_of[0], all_of[1:]
        for template in all_of:
            self.drop(template)
        for template in gone:
            template.parent = first
            first.count += template.count
            first.last = max(first.last, template.last)
        first.words, first.text = words, shown(words, first.seps)
        self.put(first)
        return first, gone

    def _exactly(self, words: Tokens) -> Template | None:
        node: Any = self.tree
        for word in words:
            node = node.get(word)
            if node is None:
                return None
        found: Template = node
        return found


# -------------------------------------------------------------------------------------------------------- decisions
def needed(template: Template, place: int, words: Sequence[str]) -> int:
    """How many templates must differ in this place only, before what stands there counts as a variable."""
    plain = [w for w in words if w not in _VARIES]
    if not words[0] or not any(w not in _VARIES and any(map(str.isalpha, w)) for i, w in enumerate(template.words) if i != place):
        return NEVER  # nothing else says what kind of line it is
    if _is_unit(template, place, words):
        return 2
    if 2 * sum(w.isupper() or w.endswith(("ed", "ing")) for w in plain) > len(plain):
        return NEVER  # GET and POST, started and stopped: what happened, not to whom
    if len(plain) < len(words):
        return 2
    if place == 0:
        return NEED_FIRST
    before = template.seps[place - 1]
    if before[-1] in "='\"" or all("." in w[1:-1] for w in plain):
        return NEED_VALUE
    return NEED_NAME if template.words[place - 1].lower() in _ANNOUNCES else NEED


def _is_unit(template: Template, place: int, words: Sequence[str]) -> bool:
    return (place > 0 and template.words[place - 1] in (VARIABLE, ANY) and template.seps[place - 1] == " "
            and all(w in _UNITS or w == UNIT for w in words))


def _rests(words: Tokens) -> list[int]:
    """For each of the first places, a hash of the place and of all other words."""
    return [hash((place, words[:place], words[place + 1:])) for place in range(min(len(words), MAX_PLACES))]


def _values(seps: Tokens) -> list[int]:
    return [place + 1 for place, sep in enumerate(seps) if sep[-1] == "="]


def _skeleton(words: Tokens, values: Iterable[int]) -> int:
    rest = list(words)
    for place in values:
        rest[place] = ""
    return hash(tuple(rest))


# ------------------------------------------------------------------------------------------------------------- text
def tokens(body: str) -> tuple[Tokens, Tokens]:
    """Words and the separators between them, one less; a line with too many words ends in one that varies."""
    parts = _SPLIT.split(body)
    words, seps = tuple(parts[0::2]), tuple(parts[1::2])
    return ((*words[:MAX_WORDS - 1], ANY), seps[:MAX_WORDS - 1]) if len(words) > MAX_WORDS else (words, seps)


def shown(words: Tokens, seps: Tokens) -> str:
    """The template as people read it, with `<*>` for what varies."""
    out = [words[0]]
    for sep, word in zip(seps, words[1:], strict=True):
        out += (sep, word)
    return "".join(out).replace(" " + UNIT, "").replace(UNIT, "").replace(VARIABLE, "<*>").replace(ANY, "<*>")


def _id(level: Level, text: str) -> str:
    return hashlib.blake2b(f"{level} {text}".encode("utf-8", "surrogatepass"), digest_size=5).hexdigest()
