"""Settings from several layers, each value remembering where it came from, so that errors can name the place.

Later layers win. Maps are merged key by key; everything else, lists included, is replaced as a whole.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiops import yamlfile
from aiops.yamlfile import Document, Place, Problem, Problems


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value was given: a file with its line, a variable, a flag, or `default`."""

    name: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.name}:{self.line}" if self.line else self.name


@dataclass(slots=True)
class Layers:
    """The merged values so far, and the origin of each place in them."""

    data: dict[str, Any] = field(default_factory=dict)
    origins: dict[Place, Origin] = field(default_factory=dict)

    def put(self, place: Place, value: Any, origin: Callable[[Place], Origin]) -> None:
        """Lay `value` over what is at `place`; `origin` tells where each place of it was written."""
        if isinstance(value, dict) and (value or not place):
            self.origins[place] = origin(place)
            for key, inner in value.items():
                self.put((*place, str(key)), inner, origin)
            return
        here = self.data
        for key in place[:-1]:
            if not isinstance(here.get(str(key)), dict):
                here[str(key)] = {}
            here = here[str(key)]
        here[str(place[-1])] = value
        self.origins = {p: o for p, o in self.origins.items() if p[:len(place)] != place}
        self._remember(place, value, origin)

    def _remember(self, place: Place, value: Any, origin: Callable[[Place], Origin]) -> None:
        self.origins[place] = origin(place)
        inner: Iterable[tuple[str | int, Any]] = ()
        if isinstance(value, dict):
            inner = ((str(k), v) for k, v in value.items())
        elif isinstance(value, list):
            inner = enumerate(value)
        for key, below in inner:
            self._remember((*place, key), below, origin)

    def given(self, place: Place) -> Origin:
        """Where the value in effect was given; `default` for a key that no layer set, though one may have set its map."""
        here: Any = self.data
        for key in place:
            if not isinstance(here, dict | list):
                break
            if isinstance(here, dict) and key not in here:
                return Origin("default")
            here = here[key]  # type: ignore[index]
        return self.origin(place)

    def origin(self, place: Place) -> Origin:
        """The origin of a place, or of the nearest place around it: where a mistake has to be mended."""
        while place and place not in self.origins:
            place = place[:-1]
        return self.origins.get(place, Origin("default"))


@dataclass(frozen=True, slots=True)
class Merged(Document):
    """The merged values as one document whose problems point at the layer they came from."""

    layers: Layers = field(default_factory=Layers)

    def problem(self, place: Place, text: str) -> Problem:
        origin = self.layers.origin(place)
        return Problem(origin.name, origin.line, yamlfile.dollar(place), text)


def put_file(layers: Layers, document: Document) -> None:
    """A YAML document as a layer. Raises Problems where it is not a map."""
    if not isinstance(document.data, dict):
        raise Problems([Problem(document.file, 1, "$", "is not a map of settings. Start with `kind: Config`.")])
    layers.put((), document.data, lambda place: Origin(document.file, document.line(place)))


def put_environment(layers: Layers, env: Mapping[str, str], prefix: str, known: Iterable[str],
                    ignore: re.Pattern[str]) -> None:
    """`PREFIX_A__B=value` as `a.b`. Values that start with `[` or `{` are read as YAML.

    `known` are all keys that a settings file may hold; names match them without case and underscores. Variables that
    match `ignore` belong to somebody else. Raises Problems for names whose first part is no setting.
    """
    keys = {_plain(k): k for k in known}
    problems = []
    for name in sorted(env):
        if not name.startswith(prefix) or ignore.fullmatch(name):
            continue
        parts = [_plain(p) for p in name[len(prefix):].split("__")]
        if parts[0] not in keys:
            problems.append(Problem(name, 0, "", f"no setting has this name.{_similar(parts[0], keys, prefix)}"))
            continue
        origin = Origin(name)
        try:
            layers.put(tuple(keys.get(p, p) for p in parts), _value(env[name], name), lambda _, o=origin: o)  # type: ignore[misc]
        except Problems as e:
            problems += e.problems
    if problems:
        raise Problems(problems)


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def _similar(part: str, keys: Mapping[str, str], prefix: str) -> str:
    close = difflib.get_close_matches(part, keys, n=1)
    return f" Did you mean {prefix}{_shout(keys[close[0]])}?" if close else " Unset it."


def _shout(key: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", key).upper()


def _value(text: str, name: str) -> Any:
    if not text.lstrip().startswith(("[", "{")):
        return text
    documents = yamlfile.parse(text, name)
    return documents[0].data if documents else text


def put_flags(layers: Layers, flags: Mapping[str, Any]) -> None:
    """Command line options by setting name; `None` means not given."""
    for name, value in flags.items():
        if value is not None:
            origin = Origin("--" + name)
            layers.put(tuple(name.split(".")), value, lambda _, o=origin: o)  # type: ignore[misc]
