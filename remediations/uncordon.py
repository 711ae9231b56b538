"""Uncordon: let pods come to a node again, where it was us who cordoned it.

What a person or another controller cordoned is never touched. Undone by cordoning again. Fails where the node is still
broken: let the condition of the policy look at what made us cordon it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from aiops.interfaces import Cluster, Plan
from aiops.types import Action
from remediations._switches import CORDON
from remediations._targets import NodeTarget, looked_up


class Uncordon:
    """Take back a cordon of ours."""

    target: ClassVar = NodeTarget
    disruptive: ClassVar[bool] = False
    reversible: ClassVar[bool] = True
    examples: ClassVar[tuple[Mapping[str, object], ...]] = ({"node": "gpu-3"},)
    verbs: ClassVar[frozenset[tuple[str, str, str]]] = frozenset({("", "nodes", "get"), ("", "nodes", "patch")})

    def plan(self, action: Action, cluster: Cluster) -> Plan:
        change = CORDON.turn_off(action, looked_up(cluster, action.target))
        return Plan(f"Uncordon {action.target}." if change.edits else f"{action.target} is not cordoned.", (change,))
