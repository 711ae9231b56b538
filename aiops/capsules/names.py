"""Names and words, and what stands for them: keyed, consistent within one capsule, and of the same structure.

Default deny: in free text a word stays only where it is one of a list of common words (words.txt) and nobody's name; short
numbers stay; everything else becomes a pseudonym. Two names never share one.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path

from aiops.redaction import IPV4, IPV6

_WORDS = Path(__file__).with_name("words.txt")
_TOKEN = re.compile(r"\w+")
_PIECE = re.compile(r"[^\W_]+")
_RUN = re.compile(r"\d+|\D+")
_CAMEL = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_ENDING = re.compile(r"(.+?)(Error|Exception|Failure)\Z")
_NUMBERED = re.compile(r"([^\W\d_]+)(\d{1,3})\Z")
_HASH = re.compile(r"(?=.*[0-9])[bcdfghjklmnpqrstvwxz2456789]{3,10}\Z|[bcdfghjklmnpqrstvwxz2456789]{5}\Z")
_HEX = re.compile(r"(?=.*\d)(?:0x)?[0-9a-fA-F]{8,}\Z")
_LONG = 5
"""Digits in a row that could be somebody's number."""
CONSONANTS, VOWELS, DIGITS, KUBERNETES, HEX = "bdfgklmnprtvz", "aeiou", "0123456789", "bcdfghjklmnpqrstvwxz", "0123456789abcdef"


@lru_cache
def words() -> frozenset[str]:
    """Common words of log lines and of what aiops says."""
    return frozenset(_WORDS.read_text(encoding="utf-8").split())


class Names:
    """key: secret bytes; equal keys give equal pseudonyms. keep: tokens that stay (names of metrics and signals)."""

    def __init__(self, key: bytes, keep: Iterable[str] = ()) -> None:
        self._key, self._keep = key, frozenset(t for name in keep for t in _TOKEN.findall(name))
        self._of: dict[tuple[str, str], str] = {}
        self._used: set[tuple[str, str]] = set()
        self._known: set[str] = set()

    def learn(self, names: Iterable[str]) -> None:
        """These are names: their parts are replaced in free text as well, whatever else they mean."""
        for name in names:
            self._known |= {p.lower() for p in _PIECE.findall(name) if not p.isdigit()}

    def knows(self, text: str) -> bool:
        """Whether this is a part of somebody's name."""
        return text.lower() in self._known

    def entity(self, text: str) -> str:
        """`kind/namespace/name`: the kind stays."""
        kind, slash, rest = text.partition("/")
        return f"{kind}/{self.name(rest)}" if slash else self.name(text)

    def name(self, text: str) -> str:
        """Every part between punctuation; a number at the end stays, where it is short and not part of an address."""
        numbers = [p for p in _PIECE.findall(text) if p.isdigit()]
        short = len(numbers) <= 2 and all(len(p) <= 3 for p in numbers)
        return _PIECE.sub(lambda m: m[0] if m[0].isdigit() and short else self._part(m[0]), text)

    def text(self, text: str) -> str:
        """Free text: a log line, a reason."""
        text = IPV6.sub(lambda m: self._made("ip", m[0].lower(), lambda x: _spelled(x, "", 8)), text)
        text = IPV4.sub(lambda m: self._made("ip", m[0], lambda x: _spelled(x, "", 8)), text)
        return _TOKEN.sub(lambda m: m[0] if self._stays(m[0]) else _PIECE.sub(lambda p: self._word(p[0]), m[0]), text)

    def id(self, text: str) -> str:
        """An identifier without structure: its digits."""
        return self._made("id", text, lambda x: _from(x, HEX, 10))

    # ------------------------------------------------------------------------------------------------------- inside
    def _stays(self, token: str) -> bool:
        return token in self._keep and token.lower() not in self._known

    def _word(self, w: str) -> str:
        """One word of a text."""
        low = w.lower()
        if low in self._known:
            return self._part(w)
        if low in words() or (w.isdigit() and len(w) < _LONG):
            return w
        if w.isdigit():
            return self._digits(w)
        if _HEX.match(w):
            return self._made("hex", low, lambda x: _from(x, HEX, len(w)))
        if w.isalpha():
            return self._letters(w)
        return "".join(self._digits(r) if r.isdigit() else self._letters(r) for r in _RUN.findall(w))

    def _letters(self, w: str) -> str:
        if w.lower() in words() or _made_of_words(w):
            return w
        ending = _ENDING.match(w)
        return self._spelled(ending[1]) + ending[2] if ending else self._spelled(w)

    def _part(self, p: str) -> str:
        """One part of a name: what Kubernetes made up stays such, `gpu3` keeps its number."""
        if p.isdigit():
            return self._digits(p)
        if _HASH.match(p):
            return self._made("hash", p, lambda x: _hashed(x, p))
        numbered = _NUMBERED.match(p)
        return self._spelled(numbered[1]) + numbered[2] if numbered else self._spelled(p)

    def _spelled(self, w: str) -> str:
        return self._made("word", w.lower(), lambda x: _spelled(x, "x", 9))

    def _digits(self, w: str) -> str:
        return self._made("digits", w, lambda x: _from(x, DIGITS, len(w)))

    def _made(self, kind: str, of: str, how: Callable[[bytes], str]) -> str:
        """The pseudonym of something: the first of its own that nobody else has, and that is not itself."""
        if (kind, of) not in self._of:
            for attempt in range(1000):
                made = how(hmac.digest(self._key, f"{kind}\0{of}\0{attempt}".encode("utf-8", "replace"), hashlib.sha512))
                if made != of and (kind, made) not in self._used:
                    break
            self._of[kind, of] = made
            self._used.add((kind, made))
        return self._of[kind, of]


def _made_of_words(w: str) -> bool:
    """`OutOfMemoryError`."""
    parts = _CAMEL.findall(w)
    return len(w) > 3 and "".join(parts) == w and all(p.lower() in words() and len(p) > 1 for p in parts)


def _from(x: bytes, letters: str, length: int) -> str:
    stream = x
    while len(stream) < length:
        stream += hashlib.sha512(stream).digest()
    return "".join(letters[b % len(letters)] for b in stream[:length])


def _spelled(x: bytes, first: str, length: int) -> str:
    """Can be said, and is no word."""
    letters = ((VOWELS, CONSONANTS)[i % 2][b % (5, 13)[i % 2]] for i, b in enumerate(x[:length]))
    return first + "".join(letters)


def _hashed(x: bytes, like: str) -> str:
    """Letters for letters and digits for digits."""
    return "".join("2456789"[b % 7] if c.isdigit() else KUBERNETES[b % len(KUBERNETES)] for b, c in zip(x, like, strict=False))
