"""What was logged, out of lines as they come: frames of runtimes off, JSON read, traces of several lines made one.

Pure functions of the lines.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import msgspec

from aiops.types import Entity, LogLine

MAX_FIELD_CHARS, MAX_KEYS, MAX_OPEN = 200, 30, 10_000
_TEXT_KEYS = ("message", "msg", "log", "event", "body")
_LEVEL_KEYS = ("level", "lvl", "severity", "levelname", "log.level")
_ERROR_KEYS = ("error", "err", "exception")
_CRI = re.compile(r"\d{4}-\d\d-\d\dT\S+ (?:stdout|stderr) [PF] ?(.*)", re.DOTALL)


# -------------------------------------------------------------------------------------------------------- one line
def message(text: str) -> str:
    """The line as a person would have written it: without the container runtime's frame, and JSON as `LEVEL message error`.

    JSON without a message is told by its keys: `{code, path}`. What is no such line is given back as it is.
    """
    if text[4:5] == "-" and (framed := _CRI.fullmatch(text)):
        text = framed[1]
    return _of_json(text) if text.startswith("{") else text


def _of_json(text: str) -> str:
    try:
        fields = msgspec.json.decode(text)
    except (ValueError, RecursionError):  # also what is no text at all: lone surrogates
        return text
    said = next((fields[k] for k in _TEXT_KEYS if isinstance(fields.get(k), str) and fields[k]), "")
    if not said:
        return "{" + ", ".join(sorted(map(str, fields))[:MAX_KEYS]) + "}"
    level = next((fields[k].upper() for k in _LEVEL_KEYS if isinstance(fields.get(k), str)), "")
    error = next((fields[k][:MAX_FIELD_CHARS] for k in _ERROR_KEYS if isinstance(fields.get(k), str)), "")
    return " ".join(part for part in (level, condensed(said.rstrip("\n").split("\n")), error) if part)


# --------------------------------------------------------------------------------------------------- several lines
_PYTHON = "Traceback (most recent call last):"
_LINKS = ("During handling of the above", "The above exception was the direct")
_GO = re.compile(r"panic: |fatal error: |goroutine \d+ \[")
_MAYBE = frozenset(("", " ", "\t", "C", "D", "T", "f", "g", "p"))
"""What a line begins with that belongs to a trace."""
_GO_FRAME = re.compile(r"[\w./*()\[\]\-{}]+\(.*\)$|created by |\[signal |exit status |goroutine \d+ \[")


class Trace:
    """Says of each line of one stream whether it belongs to the line before: stack traces of Java, Python and Go, and
    whatever is indented. `kind`: of the trace that is being read, "" for none."""

    def __init__(self, kind: str = "") -> None:
        self.kind = kind

    def continues(self, text: str) -> bool:
        """Whether this line belongs to the one before."""
        if text[:1] not in _MAYBE and not self.kind:
            return False
        if text[:1] in " \t" or not text:  # "" too: empty lines end nothing
            return True
        if self.kind == "python":  # the first line that is not indented says which error it was
            self.kind = ""
            return True
        if self.kind == "go" and _GO_FRAME.match(text):
            return True
        self.kind = "python" if text.startswith(_PYTHON) else "go" if text[0] in "pfg" and _GO.match(text) else ""
        return text.startswith(("Caused by: ", *_LINKS))


def condensed(lines: Sequence[str]) -> str:
    """One line for all that belong together: the first, and of a trace also what it says in the end."""
    first = lines[0]
    if len(lines) == 1:
        return first
    if _PYTHON in first:
        last = next((x for x in reversed(lines) if x[:1] not in ("", " ", "\t")), "")
        return f"{first} {last[:MAX_FIELD_CHARS]}" if last != first else first
    cause = next((x.strip() for x in reversed(lines) if x.startswith("Caused by: ")), "")
    return f"{first} {cause[:MAX_FIELD_CHARS]}" if cause else first


class Joiner:
    """Makes events of lines: those of one entity that belong together, within one call, become one with the first one's time.

    Bounded: at most MAX_OPEN entities are remembered to be inside a trace.
    """

    def __init__(self) -> None:
        self._open: dict[Entity, str] = {}

    def events(self, lines: Sequence[LogLine]) -> list[LogLine]:
        """One line an event, in the order of their first lines."""
        groups: list[tuple[LogLine, list[str]]] = []
        newest: dict[Entity, tuple[Trace, list[str]]] = {}
        for line in lines:
            trace, together = newest.get(line.entity) or (Trace(self._open.pop(line.entity, "")), None)
            texts = line.text.split("\n") if "\n" in line.text else [line.text]
            if trace.continues(texts[0]) and together is not None:
                together += texts
            else:
                together = texts
                groups.append((line, texts))
            newest[line.entity] = trace, together
        self._remember(newest)
        return [line if texts == [line.text] else replace(line, text=condensed(texts)) for line, texts in groups]

    def _remember(self, newest: dict[Entity, tuple[Trace, list[str]]]) -> None:
        self._open.update((entity, trace.kind) for entity, (trace, _) in newest.items() if trace.kind)
        while len(self._open) > MAX_OPEN:
            del self._open[next(iter(self._open))]

    def state(self) -> dict[Entity, str]:
        return dict(self._open)

    def restore(self, state: dict[Entity, str]) -> None:
        self._open = dict(state)
