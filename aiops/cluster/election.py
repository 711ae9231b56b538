"""Of several replicas one carries out actions: what binds the lease to the worker that acts, and to each of its writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from aiops.changes import Change, Object
from aiops.cluster.lease import Deposed, Lease
from aiops.cluster.shared import SharedLedger
from aiops.interfaces import Cluster
from aiops.types import Action, Outcome

SHORTEST_S = 2.0
"""A write is not begun where less time is left for it."""


class Election:
    """`lead` is the worker's; `fence` is asked right before each write, in the worker's thread too."""

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self._term: int | None = None

    @property
    def held(self) -> int | None:
        """The term for which we took over, whether or not the lease still runs; None where another led since."""
        return self._term

    def lead(self, take_over: Callable[[int], None]) -> None:
        """Returns while we lead. take_over: called first in each term, with its number; where it raises we do not lead.

        Raises Waits while another leads or nobody does, and Deposed, once, where another has led since we did.
        """
        if self._term is not None and self.lease.seen > self._term:
            self._term = None
            raise Deposed(f"another replica leads since, {self.lease.leader or 'gone again'}")
        term = self.lease.term()
        if term is None:
            raise self.lease.waits()
        if term == self._term:
            return
        self._term = term
        try:
            take_over(term)
        except BaseException:
            self._term = None
            raise

    def fence(self) -> float:
        """Seconds that a write may take now. Raises Waits where none may be begun: also in a term that is not the worker's."""
        left_s = self.lease.left_s()
        if left_s < SHORTEST_S or self._term is None or self.lease.term() != self._term:
            raise self.lease.waits()
        return left_s


class Office:
    """What the worker asks: whether it is ours to act, what others began and did, and what becomes of the shared ledger."""

    def __init__(self, election: Election, ledger: SharedLedger) -> None:
        self.election, self._ledger = election, ledger

    def lead(self, take_over: Callable[[], None]) -> None:
        """As `Election.lead`; the ledger is claimed before `take_over` is called."""
        def claim(term: int) -> None:
            self._ledger.claim(term)
            take_over()
        try:
            self.election.lead(claim)
        except Deposed:
            self._ledger.drop()
            raise
        self._ledger.flush()

    def must_lead(self) -> None:
        """Raises Waits where we do not."""
        self.election.fence()

    def began(self, action: str) -> bool:
        return self._ledger.began(action)

    def ended(self, actions: Sequence[str]) -> Mapping[str, Outcome]:
        """How these ended, by the ledger as it is now. Raises Retry where it cannot be read."""
        self._ledger.refresh()
        return self._ledger.ended(actions)

    def handed(self, again: bool = False) -> Mapping[str, dict[str, object]]:
        """What was done, by action, as far as it is news; again: by the ledger as it is now. Raises Retry where that cannot be
        read."""
        if again:
            self._ledger.refresh()
        return self._ledger.handed()

    def elsewhere(self, action: Action, at: float, within_s: float) -> Outcome | None:
        return self._ledger.elsewhere(action, at, within_s)

    def start(self) -> None:
        self.election.lease.start()

    def stop(self) -> None:
        self.election.lease.stop()


class Gated:
    """A Cluster that asks the fence before each write, also before those that leave the cluster."""

    def __init__(self, cluster: Cluster, fence: Callable[[], float]) -> None:
        self._cluster, self._fence = cluster, fence

    def get(self, target: str) -> Object | None:
        return self._cluster.get(target)

    def find(self, kind: str, namespace: str = "", selector: str = "", fields: str = "") -> Sequence[Object]:
        return self._cluster.find(kind, namespace, selector, fields)

    def try_out(self, change: Change) -> None:
        self._cluster.try_out(change)

    def write(self, change: Change) -> Object:
        self._fence()
        return self._cluster.write(change)
