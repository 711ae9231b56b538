"""What actions are aimed at, as policies write it: `deployment: api-server`, `pod: "selector:app=api-server"`."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, model_validator

from aiops.changes import Object, value_at
from aiops.interfaces import Cluster, Refused
from aiops.kinds import kind_of
from aiops.types import Action, Entity
from aiops.yamlfile import Strict

SELECTOR = "selector:"
_NAME = r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?"
_QUALIFIED = re.compile(rf"({_NAME}/)?{_NAME}")
_LABEL = r"[A-Za-z0-9]([-A-Za-z0-9_./]*[A-Za-z0-9])?"
_EQUALITY = re.compile(rf"{_LABEL}(=|==|!=)({_LABEL})?(,{_LABEL}(=|==|!=)({_LABEL})?)*")


def _name(value: str) -> str:
    if not _QUALIFIED.fullmatch(value):
        raise ValueError(f"{value!r} is not a Kubernetes name. Write name or namespace/name, in lower case.")
    return value


def _pod(value: str) -> str:
    if not value.startswith(SELECTOR):
        return _name(value)
    if not _EQUALITY.fullmatch(value.removeprefix(SELECTOR)):
        raise ValueError(f"{value!r} is not a selector. Write selector:key=value, several with a comma.")
    return value


def _node(value: str) -> str:
    if not re.fullmatch(_NAME, value):
        raise ValueError(f"{value!r} is not the name of a node. Nodes have no namespace.")
    return value


Name = Annotated[str, AfterValidator(_name)]
PodName = Annotated[str, AfterValidator(_pod)]
NodeName = Annotated[str, AfterValidator(_node)]


class OneOf(Strict):
    """A target of which exactly one of the fields in `kinds` is given."""

    kinds: ClassVar[tuple[str, ...]] = ()

    @model_validator(mode="after")
    def _exactly_one(self) -> OneOf:
        given = [k for k in self.kinds if getattr(self, k) is not None]
        if len(given) != 1:
            raise ValueError(f"exactly one of {', '.join(self.kinds)} is needed, found {len(given) or 'none'}.")
        return self

    def entity(self, namespace: str) -> Entity:
        """`kind/namespace/name`; `namespace` where the policy names none."""
        kind = next(k for k in self.kinds if getattr(self, k) is not None)
        value = str(getattr(self, kind))
        if not kind_of(kind).namespaced:
            return f"{kind}//{value}"
        if value.startswith(SELECTOR) or "/" not in value:
            return f"{kind}/{namespace}/{value}"
        return f"{kind}/{value}"


def number(action: Action, name: str, default: int) -> int:
    """A whole number among the action's parameters."""
    value = action.params.get(name, default)
    return value if isinstance(value, int) else default


def looked_up(cluster: Cluster, target: Entity) -> Object:
    """The object. Raises Refused where there is none."""
    found = cluster.get(target)
    if found is None:
        raise Refused(f"{target} does not exist.")
    return found


def replicas_of(workload: Object) -> int:
    """How many are asked for; one where nothing is said, as Kubernetes has it."""
    asked: Any = value_at(workload, ("spec", "replicas"))
    return 1 if asked is None else int(asked)
