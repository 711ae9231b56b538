"""`${cause.name}` in targets: a few names, filled in once an incident is known. No expressions.

What is filled in comes from telemetry, so only Kubernetes names pass: no label can smuggle in a selector or a path.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

NAMES = ("cause.name", "cause.namespace", "cause.kind", "cause.workload", "cause.service", "cause.node", "incident.id")
SAMPLE = dict.fromkeys(NAMES, "sample")
_PLACE = re.compile(r"\$\{([^}]*)\}")
_SAFE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,251}[A-Za-z0-9])?")


def unknown(value: object) -> str | None:
    """What is wrong with the names in a target's value, also further down in it, or None."""
    if isinstance(value, Mapping | list):
        inner = value.values() if isinstance(value, Mapping) else value
        return next((wrong for one in inner if (wrong := unknown(one))), None)
    if not isinstance(value, str):
        return None
    for name in _PLACE.findall(value):
        if name.strip() not in NAMES:
            close = difflib.get_close_matches(name.strip(), NAMES, n=1)
            hint = f"Did you mean '${{{close[0]}}}'?" if close else f"Known: {', '.join(NAMES)}."
            return f"nothing is called '${{{name}}}'. {hint}"
    rest = _PLACE.sub("", value)
    return "'${' without '}'. Write ${cause.name}." if "${" in rest else None


def fill(target: Mapping[str, Any], values: Mapping[str, str]) -> dict[str, Any]:
    """The target with every name filled in. Raises ValueError where a value is missing or is no Kubernetes name."""
    return {key: _filled(value, values) for key, value in target.items()}


def _filled(value: Any, values: Mapping[str, str]) -> Any:
    """Values of maps and items of lists too; never the keys of maps."""
    if isinstance(value, Mapping):
        return fill(value, values)
    if isinstance(value, list):
        return [_filled(one, values) for one in value]
    return _fill(value, values) if isinstance(value, str) else value


def _fill(text: str, values: Mapping[str, str]) -> str:
    def one(match: re.Match[str]) -> str:
        name = match[1].strip()
        value = values.get(name, "")
        if not value:
            raise ValueError(f"{name} is not known in this incident")
        if not _SAFE.fullmatch(value):
            raise ValueError(f"{name} is {value[:80]!r}, which is not a Kubernetes name")
        return value

    return _PLACE.sub(one, text)
