"""PatchResources: other requests or limits of one container, as a quantity or relative (`memory: "+25%"`), at most `max`.

A rollout replaces the pods, within the workload's own strategy. Undone by putting the old values back. Fails to help where no
node has so much room (the new pods stay pending, the old ones go on), and where a VerticalPodAutoscaler sets them anew.
https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, model_validator

from aiops.changes import Object, Step, item, patch, value_at
from aiops.interfaces import Cluster, Plan, Refused
from aiops.quantities import format_quantity, is_binary, parse_quantity
from aiops.types import Action
from remediations._targets import Name, OneOf, looked_up

CONTAINERS = ("spec", "template", "spec", "containers")
_MORE = re.compile(r"\+([1-9]\d{0,2})%")
_STEP = {"cpu": Decimal("0.001"), "memory": Decimal(2**20), "ephemeral-storage": Decimal(2**20)}


def _quantity(value: object) -> str:
    """In the API server's own words, so that what was written is recognised."""
    number = parse_quantity(value)
    if not number:
        raise ValueError(f"{value!r} is nothing at all. Write for example 500m or 512Mi.")
    return format_quantity(number, is_binary(value))


def _amount(value: object) -> str:
    if isinstance(value, str) and _MORE.fullmatch(value):
        return value
    if str(value).startswith(("+", "-")):
        raise ValueError(f'{value!r} is no way to change it. Write "+25%" (at most +999%), or how much it shall be, as 2Gi.')
    return _quantity(value)


def _container(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", value):
        raise ValueError(f"{value!r} is not the name of a container.")
    return value


Resource = Literal["cpu", "memory", "ephemeral-storage"]
Amount = Annotated[str, BeforeValidator(_amount)]
Quantity = Annotated[str, BeforeValidator(_quantity)]


class PatchResourcesTarget(OneOf):
    """`container` may be left out where there is only one. `max`: the most that this action may ever lead to."""

    kinds: ClassVar[tuple[str, ...]] = ("deployment", "statefulset", "daemonset")
    deployment: Name | None = None
    statefulset: Name | None = None
    daemonset: Name | None = None
    container: Annotated[str, AfterValidator(_container)] | None = None
    requests: dict[Resource, Amount] = {}
    limits: dict[Resource, Amount] = {}
    max: dict[Resource, Quantity] = {}

    @model_validator(mode="after")
    def _bounded(self) -> PatchResourcesTarget:
        wanted = [*self.requests.items(), *self.limits.items()]
        if not wanted:
            raise ValueError("neither requests nor limits are given. Write for example limits: {memory: \"+25%\"}.")
        for name, amount in wanted:
            most = self.max.get(name)
            if most is None and _MORE.fullmatch(amount):
                raise ValueError(f"{name}: {amount!r} needs an end, or it would grow for ever. Add max: {{{name}: …}}.")
            if most is not None and not _MORE.fullmatch(amount) and parse_quantity(amount) > parse_quantity(most):
                raise ValueError(f"{name}: {amount} is more than max, {most}.")
        return self

    def params(self) -> Mapping[str, object]:
        return {"container": self.container or "", "requests": dict(self.requests), "limits": dict(self.limits),
                "max": dict(self.max)}


class PatchResources:
    """Change requests and limits of a container in the pod template."""

    target: ClassVar = PatchResourcesTarget
    disruptive: ClassVar[bool] = True
    reversible: ClassVar[bool] = True
    examples: ClassVar[tuple[Mapping[str, object], ...]] = (
        {"deployment": "api", "limits": {"memory": "+25%"}, "max": {"memory": "4Gi"}},
        {"statefulset": "shop/db", "container": "db", "requests": {"cpu": "250m"}, "limits": {"cpu": 2, "memory": "2Gi"}},
        {"daemonset": "agent", "limits": {"cpu": "+10%"}, "max": {"cpu": 1}})
    verbs: ClassVar[frozenset[tuple[str, str, str]]] = frozenset({
        ("apps", "deployments", "get"), ("apps", "deployments", "patch"),
        ("apps", "statefulsets", "get"), ("apps", "statefulsets", "patch"),
        ("apps", "daemonsets", "get"), ("apps", "daemonsets", "patch"),
    })

    def plan(self, action: Action, cluster: Cluster) -> Plan:
        workload = looked_up(cluster, action.target)
        container = _meant(action, workload)
        wanted = _wanted(action, container)
        _refuse_requests_above_limits(action, container, wanted)
        here: tuple[Step, ...] = (*CONTAINERS, item(name=str(container["name"])), "resources")
        change = patch(action.target, workload, {(*here, *path): after for path, after in wanted.items()})
        said = ", ".join(f"{path[0]}.{path[1]} to {after}" for path, after in wanted.items())
        return Plan(f"Set {said} of container {container['name']} of {action.target}.", (change,))


def _meant(action: Action, workload: Object) -> Object:
    there: list[Object] = value_at(workload, CONTAINERS) or []
    name = action.params.get("container")
    found = [c for c in there if c.get("name") == name] if name else there
    if len(found) != 1:
        names = ", ".join(str(c.get("name")) for c in there) or "none"
        raise Refused(f"{action.target} has the containers {names}; name one of them in target.container.")
    return found[0]


def _wanted(action: Action, container: Object) -> dict[tuple[str, str], str]:
    """(requests or limits, resource) -> its new value. Raises Refused beyond `max`."""
    given: Any = action.params
    out = {}
    for part in ("requests", "limits"):
        for name, amount in (given.get(part) or {}).items():
            before = value_at(container, ("resources", part, name))
            most = (given.get("max") or {}).get(name)
            out[part, name] = _grown(action, f"{part}.{name}", name, before, amount) if _MORE.fullmatch(amount) else amount
            if most is not None and parse_quantity(out[part, name]) > parse_quantity(most):
                raise Refused(f"{out[part, name]} as {part}.{name} of {action.target} would be more than the allowed {most}. "
                              "Raise target.max.")
    return out


def _grown(action: Action, where: str, name: str, before: object, more: str) -> str:
    """So many per cent more, rounded up to a whole Mi (or thousandth of a CPU)."""
    if before is None:
        raise Refused(f"{action.target} has no {where}, of which {more} could be told.")
    percent = int(more.strip("+%"))
    steps = (parse_quantity(before) * (100 + percent) / 100 / _STEP[name]).to_integral_value(ROUND_CEILING)
    return format_quantity(steps * _STEP[name], binary=name != "cpu")


def _refuse_requests_above_limits(action: Action, container: Object, wanted: Mapping[tuple[str, str], str]) -> None:
    for name in {name for _, name in wanted}:
        ask, most = (wanted.get((part, name)) or value_at(container, ("resources", part, name))
                     for part in ("requests", "limits"))
        if ask and most and parse_quantity(ask) > parse_quantity(most):
            raise Refused(f"{action.target} would ask for more {name} ({ask}) than its limit ({most}). Change both.")
