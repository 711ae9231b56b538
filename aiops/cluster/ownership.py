"""Whose field is it? What another controller keeps is not ours to change, and what somebody just changed is left alone.

Read from `metadata.managedFields`, where the API server keeps who set which field, and when it heard of each manager last.
https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from aiops import plugins
from aiops.changes import MANAGER, Change, Edit, Object, Step
from aiops.interfaces import Cluster, Refused
from aiops.quantities import format_duration
from aiops.types import Action

HANDS_OFF_S = 600.0
"""So long after somebody else's change to a field it is left alone."""
KEEPERS = frozenset({"argocd-controller", "argocd-application-controller", "kustomize-controller", "helm-controller"})
"""Who puts back what is changed beside it: the change belongs into what they read."""


class Owner(NamedTuple):
    """Who set a field, and when that manager was heard of last (UTC seconds, 0: not known)."""

    manager: str
    at: float


def hands_off(action: Action, changes: Sequence[Change], cluster: Cluster) -> None:
    """Raises Refused where a field that is about to be changed is kept by a GitOps controller, or was just changed by others.

    Actions that are there to take back a change (`takes_back`) contest the latter, and undoing does: it changes back only what
    still is as we left it.
    """
    contests = action.state == "undo" or getattr(plugins.load_type("remediations", action.type), "takes_back", False)
    for change in changes:
        now = cluster.get(change.entity) if change.verb == "patch" else None
        for edit, owner in _owners(now, change.edits) if now else ():
            where = f"{edit.path[-1] if isinstance(edit.path[-1], str) else edit} of {change.entity}"
            if owner.manager in KEEPERS:
                raise Refused(f"{where} is kept by {owner.manager}, which would put it back. Change it where that reads it from.")
            ago_s = action.at - owner.at
            if not contests and owner.at and 0.0 <= ago_s < HANDS_OFF_S:
                raise Refused(f"{where} was changed by {owner.manager} {format_duration(round(ago_s))} ago: hands off.")


def _owners(now: Object, edits: Sequence[Edit]) -> Iterator[tuple[Edit, Owner]]:
    for entry in now.get("metadata", {}).get("managedFields") or []:
        manager = str(entry.get("manager", ""))
        for edit in edits if manager != MANAGER else ():
            if _holds(entry.get("fieldsV1") or {}, edit.path):
                yield edit, Owner(manager, _seconds(entry.get("time")))


def _holds(fields: Any, path: Sequence[Step]) -> bool:
    """Whether the manager's set of fields has this one, or something below it."""
    for step in path:
        key = f"f:{step}" if isinstance(step, str) else "k:" + json.dumps(dict(step), separators=(",", ":"), sort_keys=True)
        if not isinstance(fields, dict) or key not in fields:
            return False
        fields = fields[key]
    return True


def _seconds(text: Any) -> float:
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return 0.0
