"""Hands decisions to the executor, each once, and hands back what became of them.

Only decision `act` is ever carried out. Live: a worker thread does one turn after the other; Retry is tried again for a while.
What an earlier run began is settled before anything else is done.
"""

from __future__ import annotations

import heapq
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from aiops.cluster.executor import Check, Executor, Notes
from aiops.cluster.simulated import SimulatedCluster
from aiops.interfaces import Begun, Clock, Cluster, Log, Refused, Retry
from aiops.types import Action, Outcome

PATIENCE_S = 600.0
REMEMBER = 10_000
NEVER_BEGUN = "the daemon stopped before it was begun; nothing was changed"


class Ledger(Log, Protocol):
    """A Log that outlives the process."""

    def begun(self) -> Sequence[Begun]: ...
    def ended(self, actions: Iterable[str]) -> Mapping[str, Outcome]: ...


class SimulatedActuator:
    """Acts at once on a cluster in memory; the outcome is there at the next `collect`. Event time only."""

    def __init__(self, cluster: SimulatedCluster, checks: Sequence[Check] = ()) -> None:
        self.cluster = cluster
        self._executor = Executor(cluster, Notes(), checks)
        self._seen: set[str] = set()
        self._outcomes: list[Outcome] = []

    def submit(self, actions: Sequence[Action]) -> None:
        for action in actions:
            if action.decision != "act" or action.id in self._seen:
                continue
            self._seen.add(action.id)
            self.cluster.now = action.at
            try:
                outcome = self._patiently(action)
            except Retry as e:
                outcome = self._executor.give_up(action, action.at, f"gave up: {e.reason}")
            self._outcomes.append(outcome)

    def _patiently(self, action: Action) -> Outcome:
        """As long as each retry changes something: pods are replaced in turn."""
        while True:
            before = len(self.cluster.calls)
            try:
                return self._executor.carry_out(action, action.at)
            except Retry:
                if len(self.cluster.calls) == before:
                    raise

    def collect(self) -> Sequence[Outcome]:
        outcomes, self._outcomes = self._outcomes, []
        return outcomes


class LiveActuator:
    """A worker thread that acts on a real cluster, one action after the other.

    awaited: ids of actions that were decided in an earlier run and of which no outcome was heard: each gets one.
    `run_due` is the worker's step, and all that tests need.
    """

    def __init__(self, cluster: Cluster, clock: Clock, ledger: Ledger, awaited: Sequence[str] = (),
                 checks: Sequence[Check] = (), patience_s: float = PATIENCE_S,
                 gate: Callable[[Action], None] = lambda action: None) -> None:
        self._clock, self._ledger, self._patience_s = clock, ledger, patience_s
        self._executor = Executor(cluster, ledger, checks, gate)
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._due: list[tuple[float, int, Action]] = []
        self._unsettled: dict[str, Begun] = {}
        self._given_up_at: dict[str, float] = {}
        self._count = 0
        self._outcomes: list[Outcome] = []
        self._wake, self._stopping = threading.Condition(), False
        self._thread: threading.Thread | None = None
        self._take_over(awaited)

    def _take_over(self, awaited: Sequence[str]) -> None:
        """What an earlier run began is looked up first; what it decided and never began is told so."""
        for begun in self._ledger.begun():
            self._seen[begun.action.id] = None
            self._unsettled[begun.action.id] = begun
            self._push(begun.action, self._clock.monotonic())
        ended = self._ledger.ended(awaited)
        for name in awaited:
            if name not in self._seen:
                self._outcomes.append(ended.get(name) or Outcome(name, "failed", self._clock.now(), NEVER_BEGUN))

    def submit(self, actions: Sequence[Action]) -> None:
        new = [a for a in actions if a.decision == "act" and a.id not in self._seen]
        try:
            ended = self._ledger.ended(a.id for a in new)
        except OSError as e:
            self._outcomes += [Outcome(a.id, "failed", self._clock.now(), f"not done: {e}") for a in new]
            return
        with self._wake:
            for action in new:
                if action.id not in self._seen:
                    self._seen[action.id] = None
                    if action.id not in ended:
                        self._push(action, self._clock.monotonic())
            while len(self._seen) > REMEMBER:
                self._seen.popitem(last=False)
            self._wake.notify()

    def collect(self) -> Sequence[Outcome]:
        with self._wake:
            outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def start(self) -> None:
        """Work in the background until `stop`."""
        self._thread = threading.Thread(target=self._run, name="actuator", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 20.0) -> None:
        """Finish the running turn, leave what was not begun, and end the worker."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread:
            self._thread.join(timeout_s)

    def run_due(self) -> float | None:
        """Carry out every action that is due; seconds until the next one, None where nothing waits."""
        while True:
            with self._wake:
                now = self._clock.monotonic()
                if self._stopping or not self._due:
                    return None
                if self._due[0][0] > now:
                    return self._due[0][0] - now
                _, _, action = heapq.heappop(self._due)
            self._attempt(action, now)

    def _run(self) -> None:
        while True:
            wait_s = self.run_due()
            with self._wake:
                if self._stopping:
                    return
                if wait_s is not None or not self._due:
                    self._wake.wait(wait_s)

    def _attempt(self, action: Action, now: float) -> None:
        deadline = self._given_up_at.setdefault(action.id, now + self._patience_s)
        at = self._clock.now()
        try:
            outcome = self._settled(action, at) or self._executor.carry_out(action, at)
        except Retry as e:
            if now + e.after_s <= deadline:
                with self._wake:
                    self._push(action, now + max(0.5, e.after_s))
                return
            outcome = self._given_up(action, at, f"gave up after {self._patience_s:.0f} s: {e.reason}")
        self._finish(action, outcome)

    def _settled(self, action: Action, at: float) -> Outcome | None:
        """Of an action that was interrupted: how it ended, or None where it goes on. Old ones do not: their evidence is."""
        begun = self._unsettled.get(action.id)
        if begun is None:
            if self._unsettled:
                raise Retry("what an earlier run left unfinished is looked up first", 1.0)
            return None
        try:
            outcome = self._executor.settle(begun, at)
        except Refused as e:
            outcome = Outcome(action.id, "unknown", at, f"interrupted, and the cluster does not say how far it came: {e.reason}")
        del self._unsettled[action.id]
        if outcome is None and action.state != "undo" and at - action.at > self._patience_s:
            return self._executor.give_up(action, at, "interrupted, and the evidence for it is old by now.")
        return outcome

    def _given_up(self, action: Action, at: float, reason: str) -> Outcome:
        if self._unsettled.pop(action.id, None):
            return Outcome(action.id, "unknown", at, f"interrupted, and nobody can tell how far it came; {reason}")
        return self._executor.give_up(action, at, reason)

    def _finish(self, action: Action, outcome: Outcome) -> None:
        self._given_up_at.pop(action.id, None)
        try:
            self._ledger.result(action, outcome)
        except Exception as e:  # noqa: BLE001 - the outcome is real, whether or not it could be written down
            outcome = Outcome(outcome.action, outcome.status, outcome.at, f"{outcome.reason} (not recorded: {e})")
        with self._wake:
            self._outcomes.append(outcome)

    def _push(self, action: Action, due: float) -> None:
        self._count += 1
        heapq.heappush(self._due, (due, self._count, action))
