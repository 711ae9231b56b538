"""What a remediation wants to write, as data: it can be tried out, recorded before it is done, recognised afterwards, and undone.

A patch is a list of edits, each of one field: what it was when that was planned, and what it shall be. It is written only where
the field still is what it was, so a change that was made meanwhile, by a person or by a controller, is never overwritten.
Undoing turns the edits around, under the same condition. Kubernetes objects are plain JSON throughout.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from aiops.types import Entity

Object = dict[str, Any]
"""A Kubernetes object as JSON."""
Step = str | tuple[tuple[str, str], ...]
"""A field by its name, or the item of a list whose fields have these values."""
Verb = Literal["patch", "evict", "create", "delete", "call"]
PAUSED = "aiops.io/paused"
MANAGER = "aiops"
"""As whom the API server notes our writes down."""
Standing = Literal["done", "not done", "unknown"]


class Changed(Exception):  # noqa: N818 - a verdict, not an error class
    """A field is not what it was when the change was planned; the text says which and how."""


@dataclass(frozen=True, slots=True)
class Edit:
    """One field. `before`, `after`: JSON values; None where the field, or the item of the list, is not there."""

    path: tuple[Step, ...]
    before: Any
    after: Any

    def __str__(self) -> str:
        where = ".".join(s if isinstance(s, str) else f"[{','.join(f'{k}={v}' for k, v in s)}]" for s in self.path)
        return f"{where.replace('.[', '[')}: {_shown(self.before)} -> {_shown(self.after)}"


@dataclass(frozen=True, slots=True)
class Change:
    """One write. `edits` of a patch, `body` of what is created or called; `subresource` as in `/scale`; `uid` of what goes away.

    Made by `patch`, `evict`, `create`, `delete` and `call`.
    """

    verb: Verb
    entity: Entity
    edits: tuple[Edit, ...] = ()
    body: Mapping[str, Any] = field(default_factory=dict)
    subresource: str = ""
    uid: str = ""

    def __str__(self) -> str:
        """`patch deployment/shop/api spec.replicas: 3 -> 5`, for people and for the audit."""
        return " ".join([self.verb, self.entity, "; ".join(map(str, self.edits))]).rstrip()

    @property
    def reversible(self) -> bool:
        return self.verb in ("patch", "create")

    def inverse(self, written: Object) -> Change:
        """What undoes it. written: the object as the write answered."""
        if self.verb == "create":
            return delete(self.entity, uid_of(written))
        return replace(self, edits=tuple(Edit(e.path, e.after, e.before) for e in reversed(self.edits)))

    def standing(self, now: Object | None) -> Standing:
        """Whether it was done, told from the object as it is now (None: it is not there). A doubt is `unknown`."""
        if self.verb == "evict" or self.verb == "delete":
            gone = now is None or uid_of(now) != self.uid or "deletionTimestamp" in now.get("metadata", {})
            return "done" if gone else "not done"
        if self.verb == "create":
            return "not done" if now is None else "done" if _created(self.body, now) else "unknown"
        if self.verb == "call" or now is None:
            return "unknown"
        if all(value_at(now, e.path) == e.after for e in self.edits):
            return "done"
        return "not done" if all(value_at(now, e.path) == e.before for e in self.edits) else "unknown"

    def as_json(self) -> dict[str, Any]:
        """Plain JSON; `from_json` of it is equal."""
        edits = [{"path": [s if isinstance(s, str) else dict(s) for s in e.path], "before": e.before, "after": e.after}
                 for e in self.edits]
        return {"verb": self.verb, "entity": self.entity, "edits": edits, "body": dict(self.body),
                "subresource": self.subresource, "uid": self.uid}


def from_json(data: Mapping[str, Any]) -> Change:
    """Raises KeyError, TypeError or ValueError where it is not what `as_json` gave."""
    edits = tuple(Edit(tuple(s if isinstance(s, str) else item(**s) for s in e["path"]), e["before"], e["after"])
                  for e in data["edits"])
    return Change(data["verb"], data["entity"], edits, dict(data["body"]), data["subresource"], data["uid"])


def item(**key: str) -> Step:
    """The item of a list whose fields have these values: `item(name="api")` of `containers`."""
    return tuple(sorted(key.items()))


def patch(entity: Entity, now: Object, wanted: Mapping[tuple[Step, ...], Any], subresource: str = "") -> Change:
    """The edits that lead from the object as it is to these values (None: to be removed); what is so already is left out."""
    found = ((path, value_at(now, path), after) for path, after in wanted.items())
    return Change("patch", entity, tuple(Edit(*each) for each in found if each[1] != each[2]), subresource=subresource)


def evict(pod: Object) -> Change:
    """Through the eviction API, which obeys disruption budgets; this very pod and not one that took its name."""
    return Change("evict", entity_of(pod, "pod"), uid=uid_of(pod))


def create(entity: Entity, body: Mapping[str, Any]) -> Change:
    return Change("create", entity, body=body)


def delete(entity: Entity, uid: str) -> Change:
    return Change("delete", entity, uid=uid)


def call(entity: Entity, body: Mapping[str, Any]) -> Change:
    """Something outside the cluster: `webhook//NAME`."""
    return Change("call", entity, body=body)


# ------------------------------------------------------------------------------------------------------- paths
def value_at(now: Any, path: Sequence[Step]) -> Any:
    """The value of a field, None where it is not there."""
    for step in path:
        if isinstance(step, str):
            now = now.get(step) if isinstance(now, dict) else None
        else:
            now = next((x for x in now if _fits(x, step)), None) if isinstance(now, list) else None
        if now is None:
            return None
    return now


def edited(now: Object, edits: Sequence[Edit]) -> Object:
    """A copy of the object with the edits made. Raises Changed where a field is not what it was."""
    result = copy.deepcopy(now)
    for edit in edits:
        found = value_at(result, edit.path)
        if found != edit.before:
            raise Changed(f"{Edit(edit.path, edit.before, found)}, changed by somebody else meanwhile")
        _put(result, edit.path, edit.after)
    return result


def merge_patch(now: Any, wanted: Any) -> dict[str, Any]:
    """RFC 7386: what leads from one object to the other; lists as a whole."""
    out: dict[str, Any] = {key: None for key in now if key not in wanted}
    for key, value in wanted.items():
        if key not in now or not (isinstance(value, dict) and isinstance(now[key], dict)):
            if key not in now or now[key] != value:
                out[key] = value
        elif inner := merge_patch(now[key], value):
            out[key] = inner
    return out


def _put(into: Any, path: Sequence[Step], value: Any) -> None:
    """Set, add or (None) remove a field; what is missing on the way is made."""
    step, rest = path[0], path[1:]
    if isinstance(step, str):
        if rest:
            empty: Any = {} if isinstance(rest[0], str) else []
            if value is None and into.get(step) is None:
                return
            into[step] = into.get(step) if into.get(step) is not None else empty
            _put(into[step], rest, value)
        elif value is None:
            into.pop(step, None)
        else:
            into[step] = copy.deepcopy(value)
        return
    at = next((k for k, x in enumerate(into) if _fits(x, step)), None)
    if rest:
        if at is None:
            into.append(dict(step))
            at = len(into) - 1
        _put(into[at], rest, value)
    elif value is None:
        into[:] = [x for k, x in enumerate(into) if k != at]
    elif at is None:
        into.append(copy.deepcopy(value))
    else:
        into[at] = copy.deepcopy(value)


def _fits(one: Any, key: tuple[tuple[str, str], ...]) -> bool:
    return isinstance(one, dict) and all(one.get(k) == v for k, v in key)


# ----------------------------------------------------------------------------------------------------- objects
def uid_of(one: Mapping[str, Any]) -> str:
    return str(one.get("metadata", {}).get("uid", ""))


def entity_of(one: Mapping[str, Any], kind: str) -> Entity:
    """`kind/namespace/name` of an object."""
    meta = one.get("metadata", {})
    return f"{kind}/{meta.get('namespace', '')}/{meta.get('name', '')}"


def annotations_of(one: Mapping[str, Any]) -> Mapping[str, str]:
    return one.get("metadata", {}).get("annotations") or {}


def labels_of(one: Mapping[str, Any]) -> Mapping[str, str]:
    return one.get("metadata", {}).get("labels") or {}


def paused(one: Mapping[str, Any]) -> bool:
    """Whether somebody asked us to leave it alone."""
    return annotations_of(one).get(PAUSED) == "true"


def _created(body: Mapping[str, Any], now: Object) -> bool:
    """Whether it is the one that was to be created here: all its annotations are there."""
    return dict(annotations_of(now)) | dict(annotations_of(body)) == dict(annotations_of(now))


def _shown(value: Any) -> str:
    return "nothing" if value is None else str(value) if not isinstance(value, dict | list) else "{…}" if value else "{}"
