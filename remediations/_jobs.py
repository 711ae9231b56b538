"""What actions need to know of Jobs: how they are named in policies, whether they ended, and who else starts and stops them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from aiops.changes import Object, labels_of, value_at
from aiops.interfaces import Refused
from aiops.types import Entity
from remediations._targets import Name, OneOf, refuse_where_owned

QUEUE = "kueue.x-k8s.io/queue-name"
CONTROLLER = "kubernetes.io/job-controller"


class JobTarget(OneOf):
    """A Job or a CronJob."""

    kinds: ClassVar[tuple[str, ...]] = ("job", "cronjob")
    job: Name | None = None
    cronjob: Name | None = None

    def params(self) -> Mapping[str, object]:
        return {}


def ended(job: Object) -> str:
    """`Complete` or `Failed`, empty while it runs."""
    conditions = value_at(job, ("status", "conditions")) or []
    return next((str(c["type"]) for c in conditions if c.get("type") in ("Complete", "Failed") and c.get("status") == "True"), "")


def refuse_where_queued(one: Object, target: Entity) -> None:
    """Raises Refused where another controller decides when it runs."""
    refuse_where_owned(one, target, but=("CronJob",))
    manager = value_at(one, ("spec", "managedBy"))
    if manager not in (None, CONTROLLER):
        raise Refused(f"{target} is managed by {manager}, which decides when it runs.")
    if QUEUE in labels_of(one):
        raise Refused(f"{target} is in the queue {labels_of(one)[QUEUE]!r}, which decides when it runs. Stop it there.")
