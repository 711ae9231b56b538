"""The folder is the registry: `detectors/baseline.py` is `baseline`, `remediations/scale_up.py` is `ScaleUp`.

One file holds one public class (or function) named after the file. Nothing is registered and nothing is imported before
it is asked for.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import pkgutil
import sys
from types import ModuleType
from typing import Any

ACRONYMS = frozenset({"hpa"})
"""Words that YAML writes in capitals throughout."""


class UnknownPlugin(ValueError):  # noqa: N818 - reads as what it is
    """No file of that name in the folder. The text names the nearest one that exists."""


def names(package: str) -> list[str]:
    """The plug-ins of a package by file name, sorted. Files that start with `_` are helpers."""
    folder = importlib.import_module(package).__path__
    return sorted(m.name for m in pkgutil.iter_modules(folder) if not m.name.startswith("_"))


def type_names(package: str) -> list[str]:
    """The plug-ins as YAML writes types: `scale_up` -> `ScaleUp`."""
    return [camel(name) for name in names(package)]


def camel(name: str) -> str:
    """`scale_up` -> `ScaleUp`, `set_hpa` -> `SetHPA`."""
    return "".join(part.upper() if part in ACRONYMS else part[:1].upper() + part[1:] for part in name.split("_"))


def load(package: str, name: str) -> Any:
    """The one public class or function of `<package>/<name>.py`. `name` is the file's (`baseline`).

    Raises UnknownPlugin where there is no such file, and TypeError where the file holds no such thing.
    """
    known = names(package)
    if name not in known:
        raise UnknownPlugin(_unknown(package, name, known))
    return _public(importlib.import_module(f"{package}.{name}"), name)


def load_type(package: str, name: str) -> Any:
    """As `load`, by the name that YAML writes types with (`ScaleUp`)."""
    files = {camel(file): file for file in names(package)}
    if name not in files:
        raise UnknownPlugin(_unknown(package, name, list(files)))
    return load(package, files[name])


def load_kept(package: str, name: str, version: int) -> Any:
    """As `load`, from `<package>/_<name>_v<version>.py`: the code of an earlier version, kept. None where there is none."""
    module = f"{package}._{name}_v{version}"
    return _public(importlib.import_module(module), name) if importlib.util.find_spec(module) else None


def settings(code: Any) -> Any:
    """The pydantic model `Settings` beside a plug-in's class, None where it has no settings."""
    return getattr(sys.modules[code.__module__], "Settings", None)


def _unknown(package: str, name: str, known: list[str]) -> str:
    singular = package.rsplit(".", 1)[-1].removesuffix("s")
    by_case = {k.lower(): k for k in known}
    close = difflib.get_close_matches(name.lower(), by_case, n=1)
    hint = f"Did you mean {by_case[close[0]]!r}?" if close else f"Known: {', '.join(known) or 'none'}."
    return f"unknown {singular} {name!r}. {hint}"


def _public(module: ModuleType, file: str) -> Any:
    for wanted in (camel(file), file):
        found = getattr(module, wanted, None)
        if found is not None:
            return found
    raise TypeError(f"{module.__file__}: no class {camel(file)!r} and no function {file!r}. Name it after the file.")
