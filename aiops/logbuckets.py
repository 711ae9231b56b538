"""Which templates are one kind of line: those that differ in a few words only, where enough different words were seen.

The evidence is the number of different words in one place while all else is equal. How many are needed hangs on what the place
looks like: a value after `=` or in quotes needs two, the first word of a line twelve. Up to three places may vary at once; then
the more is needed the less the templates have in common.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from operator import attrgetter, ne
from typing import Any

from aiops.logtemplate import ANY, VARIES, Template, Tokens
from aiops.logtext import UNIT, VARIABLE

MAX_PLACES = 24
"""The first so many words of a template may turn out to be variables."""
MAX_STEPS, MAX_VARYING, MAX_NEAR = 400, 3, 40
NEED, NEED_NAME, NEED_VALUE = 4, 3, 2
"""Different words in one place that make it a variable: anywhere; names, or after a word that announces one; dotted names, or
after `=` or a quote."""
NEED_ACTION, NEED_FIRST, NEED_FIRST_NAME = 12, 12, 6
"""GET and POST, started and stopped: what happened, not to whom; at the beginning; there, if all are names like `a.service`."""
MORE = 3
"""So many more for each constant word that is missing, where several places vary."""
NEVER = 10**9
_NAME = re.compile(r"\w[.\-_/]\w")
_ANNOUNCES = frozenset((
    "user", "users", "host", "node", "pod", "container", "service", "server", "device", "disk", "volume", "image", "queue",
    "topic", "table", "job", "task", "named", "from", "by"))
_UNITS = frozenset((
    "B", "kB", "KB", "MB", "GB", "TB", "PB", "KiB", "MiB", "GiB", "TiB", "bytes", "byte", "ns", "us", "ms", "s", "sec", "secs",
    "second", "seconds", "min", "minutes", "h", "hours"))

born = attrgetter("born")
Group = Sequence[Template]
Index = dict[int, tuple[Template, ...]]


class Bucket:
    """Templates with the same separators. `tree`: one dict a word, templates as leaves.

    Indexes, by hashes; templates of one key in the order of birth. places: equal but for one word; skeletons: equal but for what
    follows `=`; segments: equal in one of four parts, and so all that differ in three places at most.
    `version` rises with every change, so that what was found before is looked up again.
    """

    __slots__ = ("places", "segments", "skeletons", "templates", "tree", "version")

    def __init__(self) -> None:
        self.version = 0
        self.tree: dict[str, Any] = {}
        self.templates: dict[Template, None] = {}
        self.places: Index = {}
        self.segments: Index = {}
        self.skeletons: Index = {}

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
            steps = (ANY, UNIT, word) if _unit(word) else (ANY, word)
            stack += [(below, place + 1) for step in steps if (below := node.get(step)) is not None]
        return None

    def put(self, template: Template) -> None:
        node = self.tree
        for word in template.words[:-1]:
            node = node.setdefault(word, {})
        node[template.words[-1]] = template
        self.templates[template] = None
        for index, key in self._indexed(template):
            there = index.get(key, ())
            late = there and there[-1].born > template.born
            index[key] = tuple(sorted((*there, template), key=born)) if late else (*there, template)
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

    def _indexed(self, template: Template) -> Iterator[tuple[Index, int]]:
        for key in _rests(template.words):
            yield self.places, key
        for key in _segments(template.words):
            yield self.segments, key
        if len(values := _values(template.seps)) > 1:
            yield self.skeletons, _skeleton(template.words, values)

    # ---------------------------------------------------------------------------------------------------------- merges
    def merge(self, template: Template) -> tuple[Template, list[Template]] | None:
        """Make this one and those that are of its kind one; None where there are none.

        Gives the oldest of them, that stands for all from now on, and the others, which are part of it.
        """
        found = self._one_place(template) or self._values_alike(template) or self._several_places(template)
        if found is None:
            return None
        group, words = found
        first, *gone = sorted({*group, *(t for t in self.templates if _covers(words, t.words))}, key=born)
        for one in (first, *gone):
            self.drop(one)
        for one in gone:
            one.parent = first
            first.count += one.count
            first.last = max(first.last, one.last)
        first.become(words)
        self.put(first)
        return first, gone

    def _one_place(self, template: Template) -> tuple[Group, Tokens] | None:
        for place, key in enumerate(_rests(template.words)):
            alike = self.places[key]
            if len(alike) > 1 and len(alike) >= needed(template, place, [t.words[place] for t in alike]):
                return alike, _varied(template, (place,), alike)
        return None

    def _values_alike(self, template: Template) -> tuple[Group, Tokens] | None:
        """What follows `=` in two or more places is a value the first time that it differs."""
        if len(values := _values(template.seps)) < 2:
            return None
        others = [t for t in self.skeletons[_skeleton(template.words, values)] if t is not template]
        if not others:
            return None
        return (template, others[0]), tuple(a if a == b else ANY for a, b in zip(template.words, others[0].words, strict=True))

    def _several_places(self, template: Template) -> tuple[Group, Tokens] | None:
        by_places = self._near(template)
        tried = sorted((p for p in by_places if len(p) > 1), key=lambda p: (-len(by_places[p]), p))[:3]
        for places in tried:
            group = [template, *(t for p in by_places if set(p) <= set(places) for t in by_places[p])]
            if all(varies(template, place, places, [t.words[place] for t in group]) for place in places):
                return group, _varied(template, places, group)
        return None

    def _near(self, template: Template) -> dict[tuple[int, ...], list[Template]]:
        """The youngest that share a part with this one and differ in a few places: by these places."""
        words, found = template.words, dict[tuple[int, ...], list[Template]]()
        near = {t for key in _segments(words) for t in self.segments[key][-MAX_NEAR:] if t is not template}
        for other in sorted(near, key=born):
            if sum(map(ne, words, other.words)) <= MAX_VARYING:
                places = tuple(k for k, (a, b) in enumerate(zip(words, other.words, strict=True)) if a != b)
                found.setdefault(places, []).append(other)
        return found


# -------------------------------------------------------------------------------------------------------- decisions
def needed(template: Template, place: int, words: Sequence[str]) -> int:
    """How many templates must differ in this place only, before what stands there counts as a variable."""
    plain = [w for w in words if w not in VARIES]
    if not words[0] or not constants(template, (place,)):
        return NEVER  # nothing else says what kind of line it is
    if _is_unit(template, place, words):
        return 2
    if 2 * sum(w.isupper() or w.endswith(("ed", "ing")) for w in plain) > len(plain):
        return NEED_ACTION
    if len(plain) < len(words):
        return 2
    names = all(_NAME.search(w) for w in plain)
    if place == 0:
        return NEED_FIRST_NAME if names else NEED_FIRST
    if template.seps[place - 1][-1] in "='\"" or all("." in w[1:-1] or "/" in w[1:-1] for w in plain):
        return NEED_VALUE
    return NEED_NAME if names or template.words[place - 1].lower() in _ANNOUNCES else NEED


def varies(template: Template, place: int, places: Sequence[int], words: Sequence[str]) -> bool:
    """Whether what stands in this one of several places is a variable: as `needed`, and more where little else is equal."""
    if not (constant := constants(template, places)):
        return False
    more = 0 if _is_unit(template, place, words) else MORE * max(0, len(places) + 1 - constant)
    return len(set(words)) >= needed(template, place, words) + more


def constants(template: Template, places: Sequence[int]) -> int:
    """How many words that say something stand elsewhere."""
    return sum(w not in VARIES and any(map(str.isalpha, w)) for k, w in enumerate(template.words) if k not in places)


def _covers(words: Tokens, others: Tokens) -> bool:
    return all(a in (b, ANY) or (a == UNIT and _unit(b)) for a, b in zip(words, others, strict=True))


def _varied(template: Template, places: Sequence[int], group: Group) -> Tokens:
    """The words of the template that stands for all of the group."""
    words = list(template.words)
    for place in places:
        words[place] = UNIT if _is_unit(template, place, [t.words[place] for t in group]) else ANY
    return tuple(words)


def _is_unit(template: Template, place: int, words: Sequence[str]) -> bool:
    return (place > 0 and template.words[place - 1] in (VARIABLE, ANY) and template.seps[place - 1] == " "
            and all(_unit(w) or w == UNIT for w in words))


def _unit(word: str) -> bool:
    return word.rstrip(".") in _UNITS


def _rests(words: Tokens) -> list[int]:
    """For each of the first places, a hash of the place and of all other words."""
    return [hash((place, words[:place], words[place + 1:])) for place in range(min(len(words), MAX_PLACES))]


def _segments(words: Tokens) -> list[int]:
    """Hashes of the four quarters, but for those in which all varies."""
    cuts = [len(words) * k // (MAX_VARYING + 1) for k in range(MAX_VARYING + 2)]
    return [hash((a, words[a:b])) for a, b in pairwise(cuts) if any(w and w not in VARIES for w in words[a:b])]


def _values(seps: Tokens) -> list[int]:
    return [place + 1 for place, sep in enumerate(seps) if sep[-1] == "="]


def _skeleton(words: Tokens, values: Iterable[int]) -> int:
    rest = list(words)
    for place in values:
        rest[place] = ""
    return hash(tuple(rest))
