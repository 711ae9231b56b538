"""YAML that people write: every problem of a document at once, each with file, line, path and remedy.

YAML 1.2 (`NO` stays a string), duplicate keys are refused, keys are checked against a pydantic model.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from aiops.quantities import format_bytes, format_duration, parse_bytes, parse_duration

Place = tuple[str | int, ...]
MAX_BYTES = 16 * 1024 * 1024
MOST_PROBLEMS = 100
"""Of one document: each takes a look for what was meant, and nobody reads more."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in a file, in the form `file:line: $.path: what. remedy`."""

    file: str
    line: int
    path: str
    text: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.path}: {self.text}" if self.path else f"{where}: {self.text}"


class Problems(Exception):  # noqa: N818 - reads as what it is
    """All problems that were found in one or more files."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(p) for p in self.problems))


class Strict(BaseModel):
    """Base of every model that a file is checked against: unknown keys are errors, values never change afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML document as plain Python data, with the line of each place in it."""

    file: str
    data: Any
    lines: dict[Place, int]

    def line(self, place: Place) -> int:
        """The line of a place, or of the nearest place around it (1-based; 0 = unknown)."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 0)

    def problem(self, place: Place, text: str) -> Problem:
        return Problem(self.file, self.line(place), dollar(place), text)


def dollar(place: Place) -> str:
    """`('spec', 'actions', 0, 'type')` -> `$.spec.actions[0].type`."""
    return "$" + "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in place)


def read(path: Path) -> list[Document]:
    """The documents of a file, empty ones left out. Raises Problems where it cannot be read or parsed."""
    return parse(read_text(path), str(path))


def read_text(path: Path) -> str:
    """What is in a file. Raises Problems where it cannot be read."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise Problems([Problem(str(path), 0, "", f"larger than {MAX_BYTES >> 20} MiB. Split it.")])
        return path.read_text(encoding="utf-8")
    except OSError as e:
        raise Problems([Problem(str(path), 0, "", f"cannot be read: {(e.strerror or str(e)).lower()}.")]) from None
    except UnicodeDecodeError as e:
        raise Problems([Problem(str(path), 0, "", f"is not UTF-8 text (byte {e.start}).")]) from None


def parse(text: str, file: str) -> list[Document]:
    """As `read`, from text. `file` is only named in problems."""
    yaml = YAML(typ="rt", pure=True)
    documents = []
    try:
        for node in yaml.load_all(text):
            if node is not None:
                lines: dict[Place, int] = {}
                documents.append(Document(file, _plain(node, (), lines), lines))
    except DuplicateKeyError as e:
        line = e.problem_mark.line + 1 if e.problem_mark else 0
        what = str(e.problem).split(" with value")[0]
        raise Problems([Problem(file, line, "", f"{what}. Remove one of the two.")]) from None
    except MarkedYAMLError as e:
        line = e.problem_mark.line + 1 if e.problem_mark else 0
        remedy = " Indent with spaces." if "'\\t'" in str(e.problem) else ""
        raise Problems([Problem(file, line, "", f"is not valid YAML: {e.problem or e.context}.{remedy}")]) from None
    except (YAMLError, ValueError, RecursionError) as e:
        raise Problems([Problem(file, 0, "", f"is not valid YAML: {str(e).splitlines()[0]}.")]) from None
    return documents


def validate(document: Document, model: type[M]) -> M:
    """The document as a `model`. Raises Problems with everything that is wrong."""
    try:
        return model.model_validate(document.data)
    except ValidationError as e:
        raise Problems(_problems(document, model, e)) from None


def _plain(node: Any, place: Place, lines: dict[Place, int]) -> Any:
    if isinstance(node, CommentedMap):
        lines.setdefault(place, node.lc.line + 1)
        out = {}
        for key, value in node.items():
            lines[(*place, str(key))] = node.lc.key(key)[0] + 1
            out[key if isinstance(key, int | float) else str(key)] = _plain(value, (*place, str(key)), lines)
        return out
    if isinstance(node, CommentedSeq):
        lines.setdefault(place, node.lc.line + 1)
        for i in range(len(node)):
            lines[(*place, i)] = node.lc.item(i)[0] + 1
        return [_plain(value, (*place, i), lines) for i, value in enumerate(node)]
    if isinstance(node, bool) or node is None:
        return node
    for simple in (int, float, str):
        if isinstance(node, simple):
            return simple(node)
    return node


def faults(document: Document, place: Place, data: Any, model: type[BaseModel]) -> Iterator[Problem]:
    """What is wrong with the data at a place of a document that a model of its own describes."""
    try:
        model.model_validate(data)
    except ValidationError as e:
        for item in e.errors():
            inner = _real_place(data, item["loc"])
            yield document.problem((*place, *inner), _sentence(item, inner, model, data))


def _problems(document: Document, model: type[BaseModel], error: ValidationError) -> Iterator[Problem]:
    found = error.errors()
    for item in found[:MOST_PROBLEMS]:
        place = _real_place(document.data, item["loc"])
        yield document.problem(place, _sentence(item, place, model, document.data))
    if len(found) > MOST_PROBLEMS:
        yield document.problem((), f"{len(found) - MOST_PROBLEMS} more mistakes. Mend these first.")


def _real_place(data: Any, loc: tuple[str | int, ...]) -> Place:
    """pydantic's location without the names of union members that it mixes in."""
    place: list[str | int] = []
    here = data
    for i, part in enumerate(loc):
        try:
            here = here[part]
        except (KeyError, IndexError, TypeError):
            if i < len(loc) - 1 or not (here is None or isinstance(here, dict)):
                continue  # the name of a union's member
        place.append(part)
    return tuple(place)


_BOUNDS = {"greater_than": ("gt", "more than"), "greater_than_equal": ("ge", "at least"),
           "less_than": ("lt", "less than"), "less_than_equal": ("le", "at most")}
_SHAPES = {"model_type": "must be a map, as {key: value}", "dict_type": "must be a map, as {key: value}",
           "list_type": "must be a list, as [a, b]", "string_type": "must be text: put it in quotes",
           "path_type": "must be the path of a file or folder", "bool_type": "must be true or false",
           "bool_parsing": "must be true or false", "float_type": "must be a number", "float_parsing": "must be a number",
           "int_type": "must be a whole number", "int_parsing": "must be a whole number",
           "int_from_float": "must be a whole number"}


def _sentence(item: Any, place: Place, model: type[BaseModel], data: Any) -> str:
    name = str(place[-1]) if place else ""
    if item["type"] == "extra_forbidden":
        known = _keys_of(model)
        if name in known:
            return "unknown key here. It belongs to another section."
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
        return f"unknown key.{f' Did you mean {close[0]!r}?' if close else ''}"
    if item["type"] == "missing":
        return "missing, and there is no default. Add it."
    if item["type"] == "too_short":
        return "must not be empty."
    if item["type"] in _BOUNDS:
        return _bound(item, _written(data, place))
    if item["type"] in _SHAPES:
        return f"{_SHAPES[item['type']]}, got {_short(item.get('input'))}."
    message = str(item["msg"]).removeprefix("Value error, ")
    message = re.sub("^(input|string) should ", "must ", message[:1].lower() + message[1:])
    if item["type"] == "value_error" or isinstance(item.get("input"), dict | list):
        return message + ("" if message.endswith((".", "?")) else ".")
    return f"{message}, got {_short(item.get('input'))}."


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) < 60 else shown[:57] + "..."


def _written(data: Any, place: Place) -> Any:
    """What stands at a place, before it was read as a duration or a size."""
    for part in place:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return None
    return data


def _bound(item: Any, written: Any) -> str:
    """A limit in the words in which the value was written: `3h` has a limit of `1h`, not of 3600."""
    key, words = _BOUNDS[item["type"]]
    limit, value = item["ctx"][key], item.get("input")
    for parse, form in ((parse_duration, format_duration), (parse_bytes, format_bytes)):
        try:
            if isinstance(written, str) and parse(written) == value:
                return f"must be {words} {form(limit)}, got {written}."
        except ValueError:
            continue
    return f"must be {words} {limit:g}, got {_short(value)}."


@lru_cache(maxsize=64)
def _keys_of(model: type[BaseModel]) -> list[str]:
    return sorted(_keys(model.model_json_schema()))


def _keys(schema: Any) -> set[str]:
    if isinstance(schema, dict):
        own = set(schema.get("properties", {}))
        return own.union(*(_keys(v) for v in schema.values())) if schema else own
    if isinstance(schema, list):
        return set().union(*(_keys(v) for v in schema))
    return set()
