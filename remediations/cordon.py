"""Cordon: no new pods on a node; those that run stay. Undone by uncordoning.

It notes in the annotation `aiops.io/cordoned-by` that it was us. What somebody uncordoned after us is not cordoned again.
Fails to help pods that are there already: Drain moves them. https://kubernetes.io/docs/concepts/architecture/nodes/
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from aiops.interfaces import Cluster, Plan
from aiops.types import Action
from remediations._switches import CORDON
from remediations._targets import NodeTarget, looked_up


class Cordon:
    """Mark a node as unschedulable. One that is so already is left as it is."""

    target: ClassVar = NodeTarget
    disruptive: ClassVar[bool] = False
    reversible: ClassVar[bool] = True
    examples: ClassVar[tuple[Mapping[str, object], ...]] = ({"node": "gpu-1"},)
    verbs: ClassVar[frozenset[tuple[str, str, str]]] = frozenset({("", "nodes", "get"), ("", "nodes", "patch")})

    def plan(self, action: Action, cluster: Cluster) -> Plan:
        change = CORDON.turn_on(action, looked_up(cluster, action.target))
        return Plan(f"Cordon {action.target}." if change.edits else f"{action.target} is cordoned already.", (change,))
