"""Switches of objects that several hands may turn (cordoned, suspended): turned on by us only with a note that it was us.

What somebody else turned on is not turned off, and what somebody turned off after us is not turned on again.
"""

from __future__ import annotations

from dataclasses import dataclass

from aiops.changes import MANAGER, Change, Object, annotations_of, patch, value_at
from aiops.interfaces import Refused
from aiops.types import Action


@dataclass(frozen=True, slots=True)
class Switch:
    """`field` of the spec; `note`: the annotation with the id of the action that turned it on; `off`: its value then.

    `done`, `undone`: what people call it (cordoned, uncordoned).
    """

    field: str
    note: str
    done: str
    undone: str
    off: bool | None = None

    def is_on(self, one: Object) -> bool:
        return value_at(one, ("spec", self.field)) is True

    def is_ours(self, one: Object) -> bool:
        """We turned it on, and nobody turned it since."""
        return self.is_on(one) and self.note in annotations_of(one) and not self._held_by_others(one)

    def turn_on(self, action: Action, one: Object) -> Change:
        """Nothing to write where it is on already. Raises Refused where somebody turned it off after us."""
        if self.is_on(one):
            return patch(action.target, one, {})
        if self.note in annotations_of(one):
            raise Refused(f"{action.target} was {self.undone} by somebody after we had {self.done} it. "
                          f"Remove the annotation {self.note} to allow it again.")
        return patch(action.target, one, {("spec", self.field): True, ("metadata", "annotations", self.note): action.id})

    def turn_off(self, action: Action, one: Object) -> Change:
        """Nothing to write where it is off already. Raises Refused where it was not us who turned it on."""
        if not self.is_on(one):
            return patch(action.target, one, {})
        if not self.is_ours(one):
            raise Refused(f"{action.target} was {self.done} by somebody else. Hands off.")
        return patch(action.target, one, {("spec", self.field): self.off, ("metadata", "annotations", self.note): None})

    def _held_by_others(self, one: Object) -> bool:
        """Who set a field last is noted by the API server: others, and not us.

        https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management
        """
        holders = {entry.get("manager") for entry in one["metadata"].get("managedFields") or []
                   if value_at(entry, ("fieldsV1", "f:spec", f"f:{self.field}")) is not None}
        return bool(holders) and MANAGER not in holders


CORDON = Switch("unschedulable", "aiops.io/cordoned-by", "cordoned", "uncordoned")
SUSPEND = Switch("suspend", "aiops.io/suspended-by", "suspended", "resumed", off=False)
