"""Webhook: a signed POST to an endpoint that the configuration names under `webhooks`; its address is in no policy.

Each call carries the action's id as Idempotency-Key. Without an answer the outcome is unknown and the call is not repeated:
whether it was carried out only the receiver can tell. Nothing to undo. Fails where the receiver answers first and works later:
"done" means that it took the order.
https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import AfterValidator

from aiops.changes import call
from aiops.humanise import iso
from aiops.interfaces import Cluster, Plan
from aiops.types import Action
from aiops.yamlfile import Strict
from remediations._targets import Label, Pairs, values_in_bounds


class WebhookTarget(Strict):
    """`webhook`: the name in the configuration. `data`: what the receiver is told beside who, what and why."""

    webhook: Label
    data: Annotated[Pairs, AfterValidator(values_in_bounds)] = {}

    def entity(self, namespace: str) -> str:
        return f"webhook//{self.webhook}"

    def params(self) -> Mapping[str, object]:
        return {"data": dict(self.data)}


class Webhook:
    """Ask another system to act."""

    target: ClassVar = WebhookTarget
    disruptive: ClassVar[bool] = False
    reversible: ClassVar[bool] = False
    examples: ClassVar[tuple[Mapping[str, object], ...]] = (
        {"webhook": "tickets"}, {"webhook": "tickets", "data": {"node": "gpu-1", "priority": "2"}})
    verbs: ClassVar[frozenset[tuple[str, str, str]]] = frozenset()

    def plan(self, action: Action, cluster: Cluster) -> Plan:
        data = {"action": action.id, "policy": action.policy, "incident": action.incident, "reason": action.reason,
                "at": action.at, "data": action.params.get("data") or {}}
        event = {"specversion": "1.0", "type": "io.aiops.action.webhook", "source": "/aiops", "id": action.id,
                 "subject": action.incident, "time": iso(action.at), "datacontenttype": "application/json", "data": data}
        return Plan(f"Call {action.target}.", (call(action.target, event),))
