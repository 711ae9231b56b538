"""A cluster with a way out: what calls somebody else goes there, all the rest to the API server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from aiops.changes import Change, Object
from aiops.interfaces import Cluster
from aiops.kinds import outside


class Calls(Protocol):
    """Who is called. Both raise `Retry`, `Refused` or `Ambiguous`, as a Cluster does."""

    def check(self, change: Change) -> None:
        """Whether it could be called: nothing is sent."""
        ...

    def send(self, change: Change) -> None: ...


class WithCalls:
    """The Cluster protocol: `call` changes go to `calls`."""

    def __init__(self, cluster: Cluster, calls: Calls) -> None:
        self._cluster, self._calls = cluster, calls

    def get(self, target: str) -> Object | None:
        return None if outside(target) else self._cluster.get(target)

    def find(self, kind: str, namespace: str = "", selector: str = "", fields: str = "") -> Sequence[Object]:
        return self._cluster.find(kind, namespace, selector, fields)

    def try_out(self, change: Change) -> None:
        if change.verb == "call":
            self._calls.check(change)
        else:
            self._cluster.try_out(change)

    def write(self, change: Change) -> Object:
        if change.verb != "call":
            return self._cluster.write(change)
        self._calls.send(change)
        return {}
