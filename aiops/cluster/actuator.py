"""Hands decisions to the executor, each once, and hands back what became of them.

Only decision `act` is ever carried out. Live: a worker thread does one turn after the other; Retry is tried again for a while.
What an earlier run began is settled before anything else is done.
"""

from __future__ import annotations

import heapq
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, Protocol

from aiops.cluster.election import Office
from aiops.cluster.executor import Check, Executor, Notes
from aiops.cluster.lease import Deposed, Waits
from aiops.cluster.simulated import SimulatedCluster
from aiops.interfaces import NOT_NOW, Begun, Clock, Cluster, Judge, Log, Refused, Retry
from aiops.types import Action, Command, Outcome

PATIENCE_S = 600.0
REMEMBER = 10_000
IN_FLIGHT_S = 35.0
"""So long after a crash a write that was sent before it may still take effect: the API server ends each request after 34 s."""
LEAST_S = 1.0
"""What has to wait is not tried more often."""
LOOK_S = 0.5
"""How often it is asked who leads."""
HEAR_S = 5.0
"""How often one who does not lead looks what was done."""
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
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._outcomes: list[Outcome] = []

    def submit(self, actions: Sequence[Action]) -> None:
        for action in actions:
            if action.decision != "act" or action.id in self._seen:
                continue
            self._seen[action.id] = None
            if len(self._seen) > REMEMBER:
                self._seen.popitem(last=False)
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
    office: where there are several replicas; only the one that leads does anything. judge: who decides here; tell: how it hears
    what other replicas did, and whether this one leads.
    `run_due` is the worker's step, and all that tests need.
    """

    def __init__(self, cluster: Cluster, clock: Clock, ledger: Ledger, awaited: Sequence[str] = (),
                 checks: Sequence[Check] = (), patience_s: float = PATIENCE_S,
                 gate: Callable[[Action], None] = lambda action: None, office: Office | None = None,
                 judge: Judge | None = None, tell: Callable[[Command], None] = lambda command: None) -> None:
        self._judge, self._say, self._unheard = judge, tell, False
        self._clock, self._ledger, self._patience_s, self._office = clock, ledger, patience_s, office
        self._started, self._awaited, self._claim_at = clock.monotonic(), list(awaited), 0.0
        self._hear_at, self._unclaimed = 0.0, ""
        self._executor = Executor(cluster, ledger, checks, gate)
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._due: list[tuple[float, int, Action]] = []
        self._unsettled: dict[str, Begun] = {}
        self._given_up_at: dict[str, float] = {}
        self._count = 0
        self._outcomes: list[Outcome] = []
        self._wake, self._stopping = threading.Condition(), False
        self._thread: threading.Thread | None = None
        if office is None:
            self._take_over()

    def _take_over(self) -> None:
        """What an earlier run began is looked up first; what it decided and never began is told so."""
        if self._office:
            self._unheard = self._hand(self._office.handed())
            self._tell_who_judges("lead", self._office)
        with self._wake:
            for begun in self._ledger.begun():
                self._seen[begun.action.id] = None
                self._unsettled[begun.action.id] = begun
                if all(action.id != begun.action.id for _, _, action in self._due):
                    self._push(begun.action, self._clock.monotonic())
            ended = self._ledger.ended(self._awaited)
            for name in self._awaited:
                if name not in self._unsettled:
                    self._outcomes.append(ended.get(name) or Outcome(name, "failed", self._clock.now(), NEVER_BEGUN))
            self._awaited = []

    def _hand(self, handed: Mapping[str, Mapping[str, object]]) -> bool:
        """What other replicas did is told to whom decides here. Whether there was anything."""
        for name, record in handed.items():
            self._say(Command(self._clock.now(), "handed", name, str(record["by"]), params=record))
        return bool(handed)

    def _tell_who_judges(self, verb: Literal["lead", "follow"], office: Office) -> None:
        lease = office.election.lease
        self._say(Command(self._clock.now(), verb, f"{lease.namespace}/{lease.name}", lease.holder))

    def follows(self) -> str:
        """Why a person's answer is of no use here, and who should get it; empty where it is ours to act."""
        lease = self._office.election.lease if self._office else None
        return "" if lease is None or lease.term() is not None else lease.waits().reason

    def leads(self) -> Mapping[str, float]:
        """Of the lease that the replicas share: 1 where it is ours, 0 where it is not. Empty where there is none."""
        if self._office is None:
            return {}
        lease = self._office.election.lease
        return {f"{lease.namespace}/{lease.name}": float(lease.term() is not None)}

    def notes(self) -> list[str]:
        """What people should know: who acts, or why nothing is carried out, where the lease or the ledger cannot be looked at."""
        lease = self._office.election.lease if self._office else None
        if self._unclaimed:
            return [f"Nothing is carried out: {self._unclaimed}"]
        if lease and not lease.problem and lease.term() is None and lease.leader not in ("", lease.holder):
            return [f"{lease.leader} carries out and takes answers; this replica watches, learns and decides."]
        return [f"Nothing is carried out: {lease.waits().reason}"] if lease and lease.problem and lease.term() is None else []

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
                    elif self._office:  # another replica decided the very same
                        self._outcomes.append(ended[action.id])
            while len(self._seen) > REMEMBER:
                self._seen.popitem(last=False)
            self._wake.notify()

    def collect(self) -> Sequence[Outcome]:
        with self._wake:
            outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def start(self) -> None:
        """Work in the background until `stop`."""
        if self._office:
            self._tell_who_judges("follow", self._office)
            self._office.start()
        self._thread = threading.Thread(target=self._run, name="actuator", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 20.0) -> None:
        """Finish the running turn, leave what was not begun, and end the worker."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread:
            self._thread.join(timeout_s)
        if self._office and not (self._thread and self._thread.is_alive()):
            self._office.stop()

    def run_due(self) -> float | None:
        """Carry out every action that is due; seconds until the next one, None where nothing waits."""
        longest = LOOK_S if self._office else None
        while True:
            self._look_who_leads()
            with self._wake:
                now = self._clock.monotonic()
                if self._stopping:
                    return None
                if not self._due:
                    return longest
                if self._due[0][0] > now:
                    return min(self._due[0][0] - now, longest or float("inf"))
                _, _, action = heapq.heappop(self._due)
            self._attempt(action, now)

    # ------------------------------------------------------------------------------------------ one of several
    def _look_who_leads(self) -> None:
        """Takes over what others left as soon as we lead; lets go of everything once another does."""
        if self._office is None or self._clock.monotonic() < self._claim_at:
            return
        try:
            self._office.lead(self._take_over)
            self._unclaimed = ""
        except Deposed as e:
            self._let_go(e.reason)
        except Waits:
            self._unclaimed = ""
            self._claim_at = self._clock.monotonic() + LOOK_S
            self._hear(self._office)
        except (Retry, Refused, OSError) as e:
            self._unclaimed = str(e)
            self._claim_at = self._clock.monotonic() + max(LEAST_S, e.after_s if isinstance(e, Retry) else HEAR_S)
            self._hear(self._office)

    def _hear(self, office: Office) -> None:
        """What others did, and how those ended of which the last run heard nothing: others may have finished them."""
        if self._clock.monotonic() < self._hear_at:
            return
        self._hear_at = self._clock.monotonic() + HEAR_S
        try:
            self._hand(office.handed(again=True))
            ended = office.ended(self._awaited) if self._awaited else {}
        except (Retry, Refused, OSError):
            return
        left = [name for name in self._awaited if name not in ended and office.began(name)]
        told = [ended.get(n) or Outcome(n, "failed", self._clock.now(), NEVER_BEGUN) for n in self._awaited if n not in left]
        with self._wake:
            self._awaited, self._outcomes = left, self._outcomes + told

    def _let_go(self, reason: str) -> None:
        """What was begun is for the one who leads now to finish, and to judge."""
        if self._office:
            self._tell_who_judges("follow", self._office)
        with self._wake:
            due, self._due = self._due, []
            self._unsettled.clear()
        for _, _, action in due:
            self._tell(action, self._in_others_hands(action, self._clock.now(), reason))

    def _in_others_hands(self, action: Action, at: float, reason: str) -> Outcome:
        if self._office is not None and self._office.began(action.id):
            return Outcome(action.id, "unknown", at, f"begun, and not finished here: {reason}")
        return Outcome(action.id, "refused", at, f"{NOT_NOW}{reason}.")

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
            outcome = self._barred(action, at) or self._settled(action, at) or self._executor.carry_out(action, at)
        except Retry as e:
            if now + e.after_s <= deadline:
                with self._wake:
                    self._push(action, now + max(LEAST_S, e.after_s))
                return
            reason = f"gave up after {self._patience_s:.0f} s: {e.reason}"
            outcome = self._given_up(action, at, reason, isinstance(e, Waits))
        except Exception as e:  # noqa: BLE001 - the worker goes on with the next one
            self._unsettled.pop(action.id, None)
            outcome = Outcome(action.id, "unknown", at, f"{type(e).__name__}: {e}; nobody can tell how far it came")
        self._finish(action, outcome)

    def _barred(self, action: Action, at: float) -> Outcome | None:
        """Why it is not for us to do: raises Waits while we do not lead."""
        if self._office is None:
            return None
        self._office.must_lead()
        if action.id in self._unsettled:
            return None
        return self._office.elsewhere(action, at, self._patience_s) or self._withdrawn(action, at)

    def _withdrawn(self, action: Action, at: float) -> Outcome | None:
        """Decided while another led, on what was known then. Raises Retry until what that one did was taken in."""
        if self._judge is None or action.state == "undo":
            return None
        if self._unheard and not self._judge.leads:
            raise Retry("what the last leader did is taken in first", 0.5)
        self._unheard = False
        if self._judge.wanted(action.id):
            return None
        return Outcome(action.id, "refused", at, f"{NOT_NOW}it was withdrawn before it was begun.")

    def _settled(self, action: Action, at: float) -> Outcome | None:
        """Of an action that was interrupted: how it ended, or None where it goes on. Old ones do not: their evidence is."""
        begun = self._unsettled.get(action.id)
        if begun is None:
            if self._unsettled:
                raise Retry("what an earlier run left unfinished is looked up first", 1.0)
            return None
        try:
            outcome = self._executor.settle(begun, at)
            self._wait_for_late(begun, outcome)
        except Refused as e:
            outcome = Outcome(action.id, "unknown", at, f"interrupted, and the cluster does not say how far it came: {e.reason}")
        del self._unsettled[action.id]
        if outcome is None and action.state != "undo" and at - action.at > self._patience_s:
            return self._executor.give_up(action, at, "interrupted, and the evidence for it is old by now.")
        return outcome

    def _wait_for_late(self, begun: Begun, outcome: Outcome | None) -> None:
        """What was sent right before a crash may be on its way. Of several replicas nothing is: the lease ends later."""
        left_s = self._started + IN_FLIGHT_S - self._clock.monotonic()
        if outcome is None and begun.doubtful and self._office is None and left_s > 0:
            raise Retry("what was sent before the daemon was interrupted may still take effect", left_s)

    def _given_up(self, action: Action, at: float, reason: str, following: bool) -> Outcome:
        if following:
            self._unsettled.pop(action.id, None)
            return self._in_others_hands(action, at, reason)
        if self._unsettled.pop(action.id, None):
            return Outcome(action.id, "unknown", at, f"interrupted, and nobody can tell how far it came; {reason}")
        return self._executor.give_up(action, at, reason)

    def _finish(self, action: Action, outcome: Outcome) -> None:
        try:
            self._ledger.result(action, outcome)
        except Exception as e:  # noqa: BLE001 - the outcome is real, whether or not it could be written down
            outcome = Outcome(outcome.action, outcome.status, outcome.at, f"{outcome.reason} (not recorded: {e})")
        self._tell(action, outcome)

    def _tell(self, action: Action, outcome: Outcome) -> None:
        self._given_up_at.pop(action.id, None)
        with self._wake:
            self._outcomes.append(outcome)

    def _push(self, action: Action, due: float) -> None:
        self._count += 1
        heapq.heappush(self._due, (due, self._count, action))
