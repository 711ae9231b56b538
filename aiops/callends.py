"""Which call a signal is about: caller and callee, where its labels name both."""

from __future__ import annotations

from aiops.meaning import parse_labels
from aiops.types import Entity

ENDS = (("from", "to"), ("client", "server"), ("source_workload", "destination_workload"), ("source", "destination"))
"""Labels that name the caller and the callee: plain, OpenTelemetry's service graph, Istio."""
Call = tuple[Entity, Entity]


def call_ends(entity: Entity, labels: str) -> Call | None:
    """Caller and callee, as services of the entity's namespace; None for what is about no call between two."""
    if not any(f'{callee}="' in labels for _, callee in ENDS):
        return None
    try:
        found = parse_labels(labels)
    except ValueError:
        return None
    within = entity.split("/")[1] if entity.count("/") >= 2 else ""
    for caller, callee in ENDS:
        if caller in found and callee in found:
            ends = (f"service/{within}/{found[caller]}", f"service/{within}/{found[callee]}")
            return ends if ends[0] != ends[1] else None
    return None
