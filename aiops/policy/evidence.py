"""What a policy may ask about an incident. The pipeline answers; policies never see raw data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from aiops.types import Alert, Anomaly, Entity, Incident


class Evidence(Protocol):
    """Answers about now, in the incident's window and scope. Pure for one step."""

    def anomalies(self, incident: Incident) -> Sequence[Anomaly]:
        """Recent anomalies on the incident's entities."""
        ...

    def measure(self, name: str, incident: Incident) -> float | None:
        """A signal or raw metric: last value of a level, increase of what adds up. None where it is not known."""
        ...

    def log_count(self, pattern: str, incident: Incident) -> int:
        """Lines on the incident's entities that match the regular expression."""
        ...

    def event_count(self, pattern: str, incident: Incident) -> int:
        """Events on the incident's entities, or their neighbours, whose reason or text matches the regular expression."""
        ...

    def age(self, incident: Incident) -> float:
        """Seconds since the newest evidence that supports the incident."""
        ...

    def maintenance(self, incident: Incident, target: Entity) -> str:
        """Which maintenance the target, the incident's entities, their owners, or what these directly depend on is under; empty
        for none."""
        ...

    def around(self, entity: Entity) -> Mapping[str, str]:
        """Names of the `workload` and `service` that the entity is part of, or consists of, and of its `node`; each only where
        there is exactly one."""
        ...

    def affected(self, incident: Incident) -> int:
        """Pods of the cause's workload or service, itself included, with an alert that fires in this incident."""
        ...

    def subsided(self, entity: Entity, name: str) -> bool:
        """Whether a signal that was odd is not any more: it was reported just now, as it is expected, and nobody finds it odd.
        False where that cannot be told. name: of the signal, without labels."""
        ...

    def explained(self, incident: Incident) -> str:
        """The incident, with its cause, that explains this one: opened at about the same time, on what its cause depends on.
        Empty for none."""
        ...

    def risen(self, incident: Incident, target: Entity, since: float) -> Sequence[Alert]:
        """Alerts that began after `since` on the target, the incident's entities or their neighbours, and still fire: only of
        signals of which it is known which side is bad, and not that something fell silent."""
        ...

    def clear(self, incident: Incident) -> bool | None:
        """Whether all its alerts are resolved; None where that cannot be told, because somebody fell silent."""
        ...
