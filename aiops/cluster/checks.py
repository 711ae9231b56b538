"""What is looked at right before something is written: reasons to leave it alone that only the cluster itself knows."""

from __future__ import annotations

from collections.abc import Sequence

from aiops.changes import PAUSED, Change, paused
from aiops.interfaces import Cluster, Refused
from aiops.kinds import outside, parts
from aiops.types import Action


def not_paused(action: Action, changes: Sequence[Change], cluster: Cluster) -> None:
    """Raises Refused where somebody annotated the object, or its namespace, to be left alone."""
    targets = [action.target] if "selector:" not in action.target and not outside(action.target) else []
    for target in dict.fromkeys([*targets, *(c.entity for c in changes if c.verb in ("patch", "evict", "delete"))]):
        _, namespace, _ = parts(target)
        for one in (target, f"namespace//{namespace}" if namespace else ""):
            found = cluster.get(one) if one else None
            if found is not None and paused(found):
                raise Refused(f"{one} is annotated {PAUSED}.")
