"""What actions are aimed at, as policies write it: `deployment: api-server`, `pod: "selector:app=api-server"`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, model_validator

from aiops.changes import Object, value_at
from aiops.interfaces import Cluster, Refused
from aiops.kinds import kind_of
from aiops.types import Action, Entity
from aiops.yamlfile import Strict

SELECTOR = "selector:"
MOST_PAIRS = 32
LONGEST_VALUE = 1000
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
    if all("!=" in term for term in value.split(",")):
        raise ValueError(f"{value!r} selects whatever is not that, of every service. Add what is meant: key=value.")
    return value


def _node(value: str) -> str:
    if not re.fullmatch(_NAME, value):
        raise ValueError(f"{value!r} is not the name of a node. Nodes have no namespace.")
    return value


def _label(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", value):
        raise ValueError(f"{value!r} is no name. Write lower case letters, digits and '-', at most 63.")
    return value


def one_line(value: str) -> str:
    """Raises ValueError for line breaks and other control characters."""
    if any(ord(c) < 32 or ord(c) == 127 for c in value):
        raise ValueError("a line break or another control character. Write it on one line.")
    return value


def values_in_bounds(pairs: dict[str, str]) -> dict[str, str]:
    """Raises ValueError for too many, too long, or no plain text."""
    if len(pairs) > MOST_PAIRS:
        raise ValueError(f"{len(pairs)} entries; at most {MOST_PAIRS} are taken.")
    for name, value in pairs.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,62}", name):
            raise ValueError(f"{name!r} is no name. Write letters, digits and '_', at most 63, no digit first.")
        if len(value) > LONGEST_VALUE or "\0" in value:
            raise ValueError(f"{name}: a value of {len(value)} characters; at most {LONGEST_VALUE} are taken.")
    return pairs


Pairs = dict[str, str]
"""Names and values that go out to others: checked by `values_in_bounds`."""
Label = Annotated[str, AfterValidator(_label)]
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
        return qualified(kind, str(getattr(self, kind)), namespace)


class NodeTarget(Strict):
    """One node, by name."""

    node: NodeName

    def entity(self, namespace: str) -> Entity:
        return f"node//{self.node}"

    def params(self) -> Mapping[str, object]:
        return {}


def qualified(kind: str, value: str, namespace: str) -> Entity:
    """`api` or `shop/api` as an entity; `namespace` where the value names none."""
    if not kind_of(kind).namespaced:
        return f"{kind}//{value}"
    return f"{kind}/{namespace}/{value}" if value.startswith(SELECTOR) or "/" not in value else f"{kind}/{value}"


def number(action: Action, name: str, default: int) -> int:
    """A whole number among the action's parameters."""
    value = action.params.get(name, default)
    return value if isinstance(value, int) else default


def writes_so_far(action: Action) -> int:
    """How many writes this very action has made in earlier turns, as the executor recorded them."""
    written = action.params.get("written")
    return len(written) if isinstance(written, list) else 0


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


def created_at(one: Object) -> float:
    """UTC seconds; 0, long ago, where the object does not say."""
    return moment(one["metadata"].get("creationTimestamp"))


def moment(text: Any) -> float:
    """A time as Kubernetes writes it, in UTC seconds; 0 where there is none."""
    try:
        return datetime.fromisoformat(text).timestamp() if text else 0.0
    except ValueError:
        return 0.0


def controller_of(one: Object) -> str:
    """`ReplicaSet/api-7d4`, the controller that owns it; empty where there is none."""
    owner = next((o for o in one["metadata"].get("ownerReferences") or [] if o.get("controller")), None)
    return f"{owner.get('kind', '')}/{owner.get('name', '')}" if owner else ""


def refuse_where_owned(one: Object, target: Entity, but: tuple[str, ...] = ()) -> None:
    """Raises Refused where a controller, of another kind than `but`, made the object and would take a change of it back."""
    owner = controller_of(one)
    if owner and owner.split("/")[0] not in but:
        raise Refused(f"{target} is made by {owner}, which would take the change back. Change that instead.")
