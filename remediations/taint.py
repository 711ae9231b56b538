"""Taint: keep pods that do not tolerate it off a node. Undone by removing exactly that taint; all others stay as they are.

NoExecute is refused: it kills pods without regard to disruption budgets, which Drain obeys. A taint of the same key and effect
with another value is somebody else's and refused. Fails to help pods that are there already, and those that tolerate it.
https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import AfterValidator

from aiops.changes import item, patch, value_at
from aiops.interfaces import Cluster, Plan, Refused
from aiops.types import Action
from remediations._targets import NodeTarget, looked_up

EFFECTS = ("NoSchedule", "PreferNoSchedule")
_LABEL = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_KEY = re.compile(rf"([a-z0-9]([-a-z0-9.]{{0,251}}[a-z0-9])?/)?{_LABEL}")


def _key(value: str) -> str:
    if not _KEY.fullmatch(value):
        raise ValueError(f"{value!r} is not a key of a taint. Write for example aiops.io/suspect.")
    domain = value.rpartition("/")[0]
    if domain.endswith(("kubernetes.io", "k8s.io")):
        raise ValueError(f"{value!r} belongs to Kubernetes itself. Take a key of your own, for example aiops.io/suspect.")
    return value


def _value(value: str) -> str:
    if value and not re.fullmatch(_LABEL, value):
        raise ValueError(f"{value!r} is not the value of a taint. Letters, digits, '-', '_' and '.', at most 63.")
    return value


def _effect(value: str) -> str:
    if value == "NoExecute":
        raise ValueError("NoExecute kills pods without regard to disruption budgets. Use Drain, or NoSchedule.")
    if value not in EFFECTS:
        raise ValueError(f"{value!r} is not an effect. Write one of {', '.join(EFFECTS)}.")
    return value


class TaintTarget(NodeTarget):
    key: Annotated[str, AfterValidator(_key)]
    value: Annotated[str, AfterValidator(_value)] = ""
    effect: Annotated[str, AfterValidator(_effect)] = "NoSchedule"

    def params(self) -> Mapping[str, object]:
        return {"key": self.key, "value": self.value, "effect": self.effect}


class Taint:
    """Put a taint on a node. One that is there already is left as it is."""

    target: ClassVar = TaintTarget
    disruptive: ClassVar[bool] = False
    reversible: ClassVar[bool] = True
    examples: ClassVar[tuple[Mapping[str, object], ...]] = (
        {"node": "gpu-2", "key": "aiops.io/suspect", "value": "ecc", "effect": "PreferNoSchedule"},
        {"node": "gpu-2", "key": "aiops.io/suspect"})
    verbs: ClassVar[frozenset[tuple[str, str, str]]] = frozenset({("", "nodes", "get"), ("", "nodes", "patch")})

    def plan(self, action: Action, cluster: Cluster) -> Plan:
        node = looked_up(cluster, action.target)
        wanted = {k: str(action.params[k]) for k in ("key", "value", "effect") if action.params.get(k)}
        said = f"{wanted['key']}={wanted.get('value', '')}:{wanted['effect']}"
        path = ("spec", "taints", item(key=wanted["key"], effect=wanted["effect"]))
        there = value_at(node, path)
        if there is None:
            return Plan(f"Taint {action.target} with {said}.", (patch(action.target, node, {path: wanted}),))
        if there.get("value", "") != wanted.get("value", ""):
            raise Refused(f"{action.target} has the taint {there['key']}={there.get('value', '')}:{there['effect']} already, "
                          "of somebody else. Take another key.")
        return Plan(f"{action.target} has the taint {said} already.")
