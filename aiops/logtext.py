"""What a log line says, without what varies: numbers, addresses, ids, paths, times. Pure functions of the text.

Two stages. `Words` masks word by word, with a cache, and makes lines of one kind equal in most cases. `phrase` then takes
off what loggers put in front and masks what takes several words; it runs once a kind of line.
"""

from __future__ import annotations

import re
from typing import Literal

Level = Literal["error", "warning", "info"]
VARIABLE, MOMENT, UNIT = "\x00", "\x03", "\x02"
"""Stand-ins, one character each: a variable, a time of day or date, the unit of a variable that has several."""
MAX_CHARS = 1_000
"""Of a line; what comes behind says nothing about its kind."""

# ----------------------------------------------------------------------------------------------------------- words
_IN = r"\w.\-@#%+$~\\*&"
_DIGITS = (
    r"(?:[Tt]rue|TRUE|[Ff]alse|FALSE)\b|"
    rf"(?!(?![0-9a-fA-F]+(?![{_IN}]))[A-Za-z_]+\d[A-Za-z_]+(?![{_IN}]))"           # not a name with a digit inside: jk2_init
    rf"[A-Za-z_.\-@#%+$~\\*&]*+\d(?:[{_IN}]*[\w%])?(?::\d(?:[{_IN}]*[\w%])?)*")    # whatever else holds a digit
_PLACES = (
    r"[A-Za-z][\w+.\-]*://[^\s,;()\[\]{}\"'<>|]*[\w/]",                            # the address of a page
    r"(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}\b",                                     # of a network card
    r"(?:[0-9a-fA-F]{4,8}:)?[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7]\b",                 # of a PCI device
    r"(?:[0-9a-fA-F]{1,4}:){1,6}(?::[0-9a-fA-F]{1,4}){1,6}\b|(?:[0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}\b",     # IPv6
    r"[\w.+\-]+@[\w\-]+(?:\.[\w\-]+)+",                                            # of a person
    r"(?:[A-Za-z]:)?(?:[/\\][\w.\-@+%~$:]*[\w*~$])(?:[/\\][\w.\-@+%~$:?&=]*[\w*~$])*[/\\]?",       # a path
    r"[\w\-]+(?:\.[\w\-]+)*\.[a-z]{2,6}:\d+\b",                                    # host:port
    r"\w+(?:\.\w+)+/[\w.$\-/:@]*\w",                                               # registry.io/image, org.app/.Activity
)
_DIGIT = re.compile(rf"(?<![{_IN}])(?:{_DIGITS})")
_PLACE = re.compile(rf"(?<![{_IN}])(?:{'|'.join(_PLACES)}|{_DIGITS})")
_NUMBER = re.compile(r"[+\-]?\d+(?:[.:\-]\d+)*%?")
_KLOG = re.compile(r"[IWEF]\d{4}")
_DATE, _TIME = r"\d{4}[\-/.]\d\d[\-/.]\d\d", r"\d\d:\d\d:\d\d(?:[.,]\d+)?"
_MOMENT = re.compile(rf"(?:{_DATE}(?:[T_]{_TIME})?|{_TIME})(?:Z|[+\-]\d\d:?\d\d)?")
_STAMPED = re.compile(rf"([\[(]?){_MOMENT.pattern}([\])]?[,:]?)")


class Words(dict[str, str]):
    """Masked words by word. A cache that fills itself and is emptied when full: what it gives does not hang on what it holds."""

    LIMIT, LONGEST = 50_000, 80

    def __missing__(self, word: str) -> str:
        if _NUMBER.fullmatch(word) and not _MOMENT.fullmatch(word):
            return VARIABLE
        masked = mask(word)
        if len(word) <= self.LONGEST:
            if len(self) >= self.LIMIT:
                self.clear()
            self[word] = masked
        return masked

    def line(self, text: str) -> str:
        """The text, cut after MAX_CHARS, with every word masked: the key of its kind."""
        if len(text) > MAX_CHARS:
            text = text[:MAX_CHARS].rpartition(" ")[0] or text[:MAX_CHARS]
        return " ".join([self[word] for word in text.split(" ")])


def mask(word: str) -> str:
    """A piece of a line without blanks: `size=12,` becomes `size=VARIABLE,`."""
    if len(word) == 5 and _KLOG.fullmatch(word):
        return word[0] + VARIABLE
    stamp = _STAMPED.fullmatch(word) if word[:1] in "[(0123456789" else None
    if stamp:
        return f"{stamp[1]}{MOMENT}{stamp[2]}"
    pattern = _PLACE if ":" in word or "/" in word or "@" in word or "\\" in word else _DIGIT  # what the others need
    return pattern.sub(VARIABLE, word)


# --------------------------------------------------------------------------------------------------------- phrases
_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*"
_DAY = r"(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,? +)?"
_X = r"[\x00\x03]"
_FRAMES = tuple(re.compile(p) for p in (
    rf"<\x00>\x00 {_X} \S+ (?=\S+ \S+ \S+)",                                       # syslog: RFC 5424
    rf"(?:<\x00>)?{_MONTH} +\x00 {_X} \S+ (?=[\w.\-/]+(?:\[\x00\])?: )",           # syslog: RFC 3164
    rf"[IWEF]\x00 {_X} +\x00 \S+\] ?",                                             # klog
    r"[\[(]?\x03(?:[ ,]\x03)?[\])]?[,:]? *",                                       # a time in front
))
_PHRASES = tuple((re.compile(p), to) for p, to in (
    (r"\b(GET|POST|PUT|DELETE|PATCH|HEAD|OPTIONS) \S+ HTTP/[\d.\x00]+", "\\1 \x00"),
    (rf"\b{_DAY}(?:{_MONTH} +\x00(?: +{_X})*|\x00[ \-]{_MONTH}[ \-]\x00(?: +{_X})*)(?: +[A-Z]{{3,4}}\b)?(?: +\x00)?", VARIABLE),
    (r"\x03(?:[ ,][\x00\x03])?", VARIABLE),
    (r"\x00 \w+ \(\x00 [KMGT]i?B\)", "\x00 \x02"),                                 # 451 bytes (1.2 KB): one value told twice
    (r"<\x00 ?[a-z]{1,7}\b", VARIABLE),                                            # <1 sec
    (r"(?<==)( ?)(?:null|nil|None)\b", "\\1\x00"),
    (r"(?<=\|)(?:null|nil|None)(?=\|)", VARIABLE),
    (r"(?<= )\(\)", "(\x00)"),                                                     # connection from 10.0.0.1 ()
    (r"(?:(?<=: )|(?<=\[))\x00(?:, ?\x00)+(?=[,;.)\]]|$)", VARIABLE),               # a list, however long
    (r"\x00(?:,\x00)+|\x00(?:[,;] *\x00){2,}|\x00(?: \x00){4,}", VARIABLE),
))


def phrase(key: str) -> tuple[Level, str]:
    """Of a key that `Words.line` made: its level, and its text without frames and with longer variables masked."""
    level = level_of(key)
    for frame in _FRAMES:
        if found := frame.match(key):
            key = key[found.end():]
            break
    for pattern, to in _PHRASES:
        key = pattern.sub(to, key)
    return level, key.strip()


# ---------------------------------------------------------------------------------------------------------- levels
_LEVELS: dict[str, Level] = {
    "trace": "info", "debug": "info", "info": "info", "notice": "info", "warn": "warning", "warning": "warning",
    "error": "error", "err": "error", "fatal": "error", "critical": "error", "panic": "error", "severe": "error",
    "emerg": "error", "alert": "error", "i": "info", "w": "warning", "e": "error", "f": "error"}
_LEADS = re.compile(rf"(?:[\W\d\x00-\x03]*(?:level[=:]\W?)?({'|'.join(k for k in _LEVELS if len(k) > 1)})\b(?![\w\-]))"
                    r"|([IWEF])(?:\d{4}|\x00) (?:\d\d:\d\d|\x03)", re.IGNORECASE)
_ERROR = re.compile(r"\b(ERROR|ERR|FATAL|CRITICAL|PANIC|SEVERE|EMERG|ALERT)\b|Exception\b|Traceback|\w+Error\b"
                    r"|OutOfMemory|panic:|segfault|No space left on device", re.IGNORECASE)
_WARNING = re.compile(r"\bWARN(?:ING)?\b", re.IGNORECASE)
_LEVEL_CHARS = 500


def level_of(text: str) -> Level:
    """How bad a line is by its own account: what its logger says in front, else the usual words for errors and warnings."""
    head = text[:_LEVEL_CHARS]
    if lead := _LEADS.match(head):
        return _LEVELS[(lead[1] or lead[2]).lower()]
    return "error" if _ERROR.search(head) else "warning" if _WARNING.search(head) else "info"
