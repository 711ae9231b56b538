"""One kind of log line: its words, the separators between them, and its text.

A word is what separators leave, but for values that have several words: what stands in quotes, a list in brackets, a remark in
parentheses, and a phrase behind a colon (`failed: no such file or directory`) are one word each, so that templates have the same
number of words whatever the value. They are glued with stand-ins for the separators in them, from the private use area. What has
masked words in it is left: `"GET <*>"` says more than its value. An empty value (`rhost= user=root`, `""`, `[]`) is a word too.
"""

from __future__ import annotations

import hashlib
import re

from aiops.logtext import UNIT, VARIABLE, Level

ANY = "\x01"
"""A word of a template that fits every word: it was seen to vary."""
EMPTY = "\x04"
"""A value of which nothing was logged."""
VARIES = frozenset((VARIABLE, ANY, UNIT))
MAX_WORDS = 48
"""Words of a template."""
Tokens = tuple[str, ...]

_SEPARATORS = " ,;:=()[]{}\"'<>|"
_SPLIT = re.compile(rf"([\s{re.escape(_SEPARATORS)}]+)")
_BEFORE = r"(?<=[\s=:(\[,]"
_PLAIN = r"[A-Za-z][\w'/\-.]*(?:,? [\w'/\-.]+)"
_QUOTED = re.compile("|".join(rf"{_BEFORE}{q})[^{q}\s\x00-\x03]+(?: [^{q}\s\x00-\x03]+){{1,15}}(?={q})" for q in "\"'"))
_ENCLOSED = re.compile(rf"(?<=\[){_PLAIN}+(?=\])|(?<= \(){_PLAIN}+(?=\))")
_TAIL = re.compile(rf"(?<=[^\s:]: ){_PLAIN}{{1,9}}(?= \(|[)\]}}.]*$)")
_PREFIX = re.compile(r"\S+ \S+ \S")
"""Before the colon: fewer words may be the name of a component, with all that it says behind."""
_EMPTY = re.compile("|".join((r"(?<=\w=)(?=[,;)\]}]|$|\s+[\w.\-]+=)",
                              *(rf"{_BEFORE}{a})(?={b})" for a, b in (('"', '"'), ("'", "'"), (r"\[", r"\]"), (r"\{", r"\}"))))))
_GLUE = {ord(c): 0xE000 + ord(c) for c in _SEPARATORS}
_SHOWN = {to: c for c, to in _GLUE.items()} | {ord(VARIABLE): "<*>", ord(ANY): "<*>", ord(EMPTY): None}


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

    def become(self, words: Tokens) -> None:
        """More general."""
        self.words, self.text = words, shown(words, self.seps)

    def root(self) -> Template:
        """The template that stands for this one now."""
        t = self
        while t.parent is not None:
            t = t.parent
        return t


def tokens(body: str) -> tuple[Tokens, Tokens]:
    """Words and the separators between them, one less; a line with too many words ends in one that varies."""
    parts = _SPLIT.split(glued(body))
    words, seps = tuple(parts[0::2]), tuple(parts[1::2])
    return ((*words[:MAX_WORDS - 1], ANY), seps[:MAX_WORDS - 1]) if len(words) > MAX_WORDS else (words, seps)


def glued(body: str) -> str:
    """With each value of several words made one word, and EMPTY where a value is empty. Twice is as once."""
    body = _ENCLOSED.sub(_glue, _QUOTED.sub(_glue, body))
    if (tail := _TAIL.search(body)) and _PREFIX.match(body, 0, tail.start()):
        body = body[:tail.start()] + _glue(tail) + body[tail.end():]
    return _EMPTY.sub(EMPTY, body)


def _glue(found: re.Match[str]) -> str:
    return found[0].translate(_GLUE)


def joined(words: Tokens, seps: Tokens) -> str:
    """The words with the separators between them."""
    out = [words[0]]
    for sep, word in zip(seps, words[1:], strict=True):
        out += (sep, word)
    return "".join(out)


def shown(words: Tokens, seps: Tokens) -> str:
    """The template as people read it, with `<*>` for what varies."""
    return joined(words, seps).replace(" " + UNIT, "").replace(UNIT, "").translate(_SHOWN)


def id_of(level: Level, words: Tokens, seps: Tokens) -> str:
    """The id of a kind of which this was the first line."""
    return hashlib.blake2b(f"{level} {shown(words, seps)}".encode("utf-8", "surrogatepass"), digest_size=5).hexdigest()
