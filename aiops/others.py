"""Alerts of other systems (Alertmanager), as they are: already judged by somebody's rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from aiops.types import Alert, RawAlert, Severity

QUIET_S = 300.0
STRENGTH = 13.8
"""In nats: as much as two samples at p = 0.001."""


class Others:
    """Firing until it is told to be resolved, or was not repeated for QUIET_S. Memory: what fires."""

    def __init__(self) -> None:
        self._raw: dict[str, Alert] = {}

    def update(self, at: float, raw: Sequence[RawAlert]) -> list[Alert]:
        """Those that fire, or did until this step."""
        touched: dict[str, None] = {}
        for r in raw:
            key = f"{r.entity}|alert:{r.name}"
            old = self._raw.get(key)
            if r.status == "resolved":
                if old:
                    self._raw[key] = replace(old, state="resolved", at=at, indexes=(*old.indexes, r.index))
            elif old and old.state == "firing":
                self._raw[key] = replace(old, at=at, indexes=(*old.indexes, r.index))
            else:
                severity: Severity = "critical" if r.severity in {"critical", "page"} else "warning"
                self._raw[key] = Alert(key, r.entity, f"alert:{r.name}", "firing", r.time, at, 0.999, 1e-3, STRENGTH,
                                       ("alertmanager",), severity, indexes=(r.index,))
            touched[key] = None
        for key, a in self._raw.items():
            if a.state == "firing" and at - a.at > QUIET_S:
                self._raw[key] = replace(a, state="resolved", at=at)
                touched[key] = None
        out = [self._raw[key] for key in self._raw]
        self._raw = {k: replace(a, indexes=()) for k, a in self._raw.items() if a.state == "firing"}
        return [a for a in out if a.state == "firing" or a.key in touched]

    def state(self) -> list[dict[str, Any]]:
        """The alerts that fire, as plain maps."""
        return [asdict(a) for a in self._raw.values()]

    def restore(self, state: Sequence[Mapping[str, Any]]) -> None:
        alerts = [Alert(**{**a, "detectors": tuple(a["detectors"]), "indexes": tuple(a["indexes"])}) for a in state]
        self._raw = {a.key: a for a in alerts}
