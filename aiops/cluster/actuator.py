"""Carries decisions out, once each, and hands back what became of them.

Only decision `act` is ever carried out. Live: the intent is recorded, then acted; Retry is tried again for a while, an
Ambiguous answer never. A run that died between intent and outcome leaves `unknown`, not a second attempt.
"""

from __future__ import annotations

import heapq
import threading
from collections import OrderedDict
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Protocol

from aiops import plugins
from aiops.cluster.simulated import SimulatedCluster
from aiops.interfaces import Ambiguous, Clock, Cluster, Refused, Retry
from aiops.types import Action, Outcome

PATIENCE_S = 600.0
REMEMBER = 10_000
Snapshots = MutableMapping[str, Mapping[str, object]]


class Journal(Protocol):
    """Where intents and results are written, durably, before the call returns. May raise OSError."""

    def intent(self, action: Action) -> None: ...
    def result(self, action: Action, outcome: Outcome, snapshot: Mapping[str, object]) -> None: ...


def perform(action: Action, cluster: Cluster, snapshots: Snapshots, at: float) -> Outcome:
    """Do or undo it now. Raises Retry where nothing was changed; everything else becomes an Outcome."""
    try:
        remediation = plugins.load_type("remediations", action.type)()
        if action.state == "undo":
            before = snapshots.get(str(action.params.get("undo_of", "")))
            if before is None:
                raise Refused("what the action had changed is not known any more.")
            remediation.undo(action, before, cluster)
            return Outcome(action.id, "undone", at, f"put back what {action.params['undo_of']} had changed")
        plan = remediation.plan(action, cluster)
        snapshots[action.id] = remediation.act(action, cluster)
        return Outcome(action.id, "done", at, plan)
    except Retry:
        raise
    except Refused as e:
        return Outcome(action.id, "refused", at, e.reason)
    except Ambiguous as e:
        return Outcome(action.id, "unknown", at, f"{e.reason}; it may have been done and is not repeated")
    except Exception as e:  # noqa: BLE001 - one broken remediation must not stop the daemon
        return Outcome(action.id, "failed", at, f"{type(e).__name__}: {e}")


class SimulatedActuator:
    """Acts at once on a cluster in memory; the outcome is there at the next `collect`. Event time only."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        self.cluster = cluster
        self._snapshots: dict[str, Mapping[str, object]] = {}
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
                outcome = Outcome(action.id, "failed", action.at, f"gave up: {e.reason}")
            self._outcomes.append(outcome)

    def _patiently(self, action: Action) -> Outcome:
        """As long as each retry changes something: pods are replaced in turn."""
        while True:
            before = len(self.cluster.calls)
            try:
                return perform(action, self.cluster, self._snapshots, action.at)
            except Retry:
                if len(self.cluster.calls) == before:
                    raise

    def collect(self) -> Sequence[Outcome]:
        outcomes, self._outcomes = self._outcomes, []
        return outcomes


class LiveActuator:
    """A worker thread that acts on a real cluster, one action after the other.

    `interrupted`: actions whose intent was recorded by an earlier run, without an outcome. `snapshots`: what earlier runs
    changed, so that it can be undone. `run_due` is the worker's step, and all that tests need.
    """

    def __init__(self, cluster: Cluster, clock: Clock, journal: Journal, interrupted: Sequence[str] = (),
                 snapshots: Mapping[str, Mapping[str, object]] | None = None, patience_s: float = PATIENCE_S) -> None:
        self._cluster, self._clock, self._journal, self._patience_s = cluster, clock, journal, patience_s
        self._snapshots: OrderedDict[str, Mapping[str, object]] = OrderedDict(snapshots or {})
        self._seen: OrderedDict[str, None] = OrderedDict((key, None) for key in interrupted)
        self._due: list[tuple[float, int, Action]] = []
        self._given_up_at: dict[str, float] = {}
        self._count = 0
        text = "the daemon stopped while acting; it may have been done and is not repeated"
        self._outcomes = [Outcome(key, "unknown", clock.now(), text) for key in interrupted]
        self._wake, self._stopping = threading.Condition(), False
        self._thread: threading.Thread | None = None

    def submit(self, actions: Sequence[Action]) -> None:
        with self._wake:
            for action in actions:
                if action.decision == "act" and action.id not in self._seen:
                    self._seen[action.id] = None
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
        """Finish the running action, leave what was not begun, and end the worker."""
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
        first = action.id not in self._given_up_at
        deadline = self._given_up_at.setdefault(action.id, now + self._patience_s)
        at = self._clock.now()
        try:
            if first:
                self._journal.intent(action)
            outcome = perform(action, self._cluster, self._snapshots, at)
        except Retry as e:
            if now + e.after_s <= deadline:
                with self._wake:
                    self._push(action, now + max(0.5, e.after_s))
                return
            outcome = Outcome(action.id, "failed", at, f"gave up after {self._patience_s:.0f} s: {e.reason}")
        except Exception as e:  # noqa: BLE001 - the journal's: without a record of the intent nothing may be done
            outcome = Outcome(action.id, "failed", at, f"not done, the intent could not be recorded: {e}")
        self._finish(action, outcome)

    def _finish(self, action: Action, outcome: Outcome) -> None:
        self._given_up_at.pop(action.id, None)
        try:
            self._journal.result(action, outcome, self._snapshots.get(action.id, {}))
        except Exception as e:  # noqa: BLE001 - the outcome is real, whether or not it could be written down
            outcome = Outcome(outcome.action, outcome.status, outcome.at, f"{outcome.reason} (not recorded: {e})")
        with self._wake:
            self._outcomes.append(outcome)
            while len(self._snapshots) > REMEMBER:
                self._snapshots.popitem(last=False)

    def _push(self, action: Action, due: float) -> None:
        self._count += 1
        heapq.heappush(self._due, (due, self._count, action))
