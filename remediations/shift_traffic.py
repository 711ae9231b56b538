"""ShiftTraffic: move a share of what one backend of an HTTPRoute gets to another, by their weights. Undone by the old weights.

Gateway API. Refused where the other backend has no ready endpoint, where the first gets nothing already, and where another
controller made the route. Fails to help where both share what is broken, and makes it worse where the other cannot carry the
load. Any change of the route's rules since the shift keeps it from being undone.
https://gateway-api.sigs.k8s.io/guides/traffic-splitting/
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from aiops.changes import patch, value_at
from aiops.interfaces import Cluster, Plan, Refused
from aiops.kinds import parts
from aiops.types import Action
from aiops.yamlfile import Strict
from remediations._targets import Label, Name, looked_up, number, qualified, refuse_where_owned

HEAVIEST = 1_000_000


class ShiftTrafficTarget(Strict):
    """`percent`: how much of what `from` gets now goes to `to`. `rule`: which rule of the route, counted from 0."""

    httproute: Name
    source: Annotated[Label, Field(alias="from")]
    to: Label
    percent: Annotated[int, Field(ge=1, le=100)]
    rule: Annotated[int, Field(ge=0, le=15)] = 0

    @model_validator(mode="after")
    def _two(self) -> ShiftTrafficTarget:
        if self.source == self.to:
            raise ValueError(f"from and to are both {self.to!r}. Name two backends of the route.")
        return self

    def entity(self, namespace: str) -> str:
        return qualified("httproute", self.httproute, namespace)

    def params(self) -> Mapping[str, object]:
        return {"from": self.source, "to": self.to, "percent": self.percent, "rule": self.rule}


class ShiftTraffic:
    """Change the weights of two backends of an HTTPRoute."""

    target: ClassVar = ShiftTrafficTarget
    disruptive: ClassVar[bool] = False
    reversible: ClassVar[bool] = True
    examples: ClassVar[tuple[Mapping[str, object], ...]] = (
        {"httproute": "web", "from": "canary", "to": "stable", "percent": 100},
        {"httproute": "shop/web", "from": "stable", "to": "canary", "percent": 33, "rule": 0})
    verbs: ClassVar[frozenset[tuple[str, str, str]]] = frozenset({
        ("gateway.networking.k8s.io", "httproutes", "get"), ("gateway.networking.k8s.io", "httproutes", "patch"),
        ("discovery.k8s.io", "endpointslices", "list"),
    })

    def plan(self, action: Action, cluster: Cluster) -> Plan:
        route = looked_up(cluster, action.target)
        refuse_where_owned(route, action.target)
        rules = copy.deepcopy(value_at(route, ("spec", "rules")) or [])
        at = number(action, "rule", 0)
        if at >= len(rules):
            raise Refused(f"{action.target} has {len(rules)} rules, none of them is number {at}.")
        backends = rules[at].get("backendRefs") or []
        source, to = (_backend(action, backends, str(action.params[end])) for end in ("from", "to"))
        _refuse_where_nobody_listens(action, to, cluster)
        shares = _shift(action, backends, source, to)
        change = patch(action.target, route, {("spec", "rules"): rules})
        return Plan(f"Shift {action.params['percent']} % of the traffic of {source['name']} to {to['name']} in {action.target}: "
                    f"weights {shares}.", (change,))


def _backend(action: Action, backends: list[Any], name: str) -> Any:
    found = [b for b in backends if b.get("name") == name]
    if len(found) != 1:
        there = ", ".join(str(b.get("name")) for b in backends) or "none"
        raise Refused(f"{action.target} has the backends {there} in this rule; {name} is there {len(found)} times.")
    return found[0]


def _shift(action: Action, backends: list[Any], source: Any, to: Any) -> str:
    """Sets the weights, in whole numbers and without rounding; what they are then, for people."""
    moved = _weight(source) * number(action, "percent", 0)
    if not moved:
        raise Refused(f"{source['name']} gets no traffic of {action.target} already.")
    hundredfold = [_weight(b) * 100 + (moved if b is to else -moved if b is source else 0) for b in backends]
    unit = math.gcd(*hundredfold)
    if max(hundredfold) // unit > HEAVIEST:
        raise Refused(f"the weights of {action.target} are too large to be split so finely. Take another percentage.")
    for backend, weight in zip(backends, hundredfold, strict=True):
        backend["weight"] = weight // unit
    return ", ".join(f"{b['name']} {b['weight']}" for b in backends)


def _weight(backend: Any) -> int:
    """1 where nothing is said."""
    return int(backend.get("weight", 1))


def _refuse_where_nobody_listens(action: Action, to: Any, cluster: Cluster) -> None:
    """Raises Refused unless it is a Service with a ready endpoint."""
    if to.get("kind", "Service") != "Service":
        raise Refused(f"{to['name']} is no Service but a {to['kind']}: nobody can tell whether it is ready.")
    namespace = to.get("namespace") or parts(action.target)[1]
    slices = cluster.find("endpointslice", namespace, f"kubernetes.io/service-name={to['name']}")
    ready = (value_at(e, ("conditions", "ready")) is not False for s in slices for e in s.get("endpoints") or [])
    if not any(ready):
        raise Refused(f"service/{namespace}/{to['name']} has no ready endpoint to take the traffic.")
