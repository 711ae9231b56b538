"""Notify: tell a person; nothing is written. The message goes where decisions go: every sink, the page, the audit.

Fails where nobody looks: it waits for no answer. `mode: ask` is what waits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from aiops.interfaces import Cluster, Plan
from aiops.types import Action
from aiops.yamlfile import Strict
from remediations._targets import Label, one_line


class NotifyTarget(Strict):
    """`message` with the names of policies/README.md filled in; `to`: who is meant, for the reader."""

    message: Annotated[str, Field(min_length=1, max_length=500), AfterValidator(one_line)]
    to: Label = "on-call"

    def entity(self, namespace: str) -> str:
        return f"person/{namespace}/{self.to}"

    def params(self) -> Mapping[str, object]:
        return {"message": self.message}


class Notify:
    """Say something, do nothing."""

    target: ClassVar = NotifyTarget
    disruptive: ClassVar[bool] = False
    reversible: ClassVar[bool] = False
    examples: ClassVar[tuple[Mapping[str, object], ...]] = (
        {"message": "Memory of gpu-1 reports remapped rows. Plan a reset.", "to": "hardware"}, {"message": "look at gpu-1"})
    verbs: ClassVar[frozenset[tuple[str, str, str]]] = frozenset()

    def plan(self, action: Action, cluster: Cluster) -> Plan:
        message = str(action.params.get("message", ""))
        return Plan(message if message.endswith(".") else f"{message}.")
