"""What one of several replicas needs to act: a lease, a ledger that all see, and a connection that writes only then."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, NamedTuple
from uuid import uuid4

from aiops.cluster.election import Election, Gated, Office
from aiops.cluster.lease import TERMS, Lease, Terms
from aiops.cluster.quiet import Quiet
from aiops.cluster.shared import Own, SharedLedger
from aiops.cluster.transport import Api
from aiops.interfaces import Clock, Cluster

LEDGER = "actions"
"""The ConfigMap is called after the lease, with this at its end."""


class Several(NamedTuple):
    """The parts of an actuator that acts only while it leads. `api` writes only then."""

    api: Api
    ledger: SharedLedger
    office: Office

    def gated(self, cluster: Cluster) -> Cluster:
        """The same cluster, which asks before each write: also before those that `api` does not see."""
        return Gated(cluster, self.office.election.fence)


def one_of_several(clock: Clock, own: Own, connect: Callable[..., Api], namespace: str, name: str,
                   about: Callable[[str], dict[str, Any] | None] = lambda action: None, terms: Terms = TERMS) -> Several:
    """about: what our decider says of an action. connect: makes a connection, given its `timeout_s` (to connect, to read) or its
    `fence` and `quiet`."""
    holder = f"{socket.gethostname()}_{uuid4()}"
    lease = Lease(connect(timeout_s=(terms.retry_s, terms.retry_s * 2)), namespace, name, holder, clock, terms,
                  lambda: ledger.next_term())
    election = Election(lease)
    api = connect(fence=election.fence, quiet=Quiet(clock.monotonic))
    ledger = SharedLedger(own, api, namespace, f"{name}-{LEDGER}", holder, about)
    return Several(api, ledger, Office(election, ledger))
