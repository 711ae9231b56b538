"""Carries out one action, once: plan, check, try out, write down, write, write down what was written.

Every write is on record before it is sent, and what it takes to undo it as soon as it was answered. So at any moment, also
after a crash, what became of an action can be told from the record and from the object itself (`Change.standing`). A write
that was not answered is looked up, never repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from aiops import plugins
from aiops.changes import Change, Changed
from aiops.interfaces import Ambiguous, Begun, Cluster, Failed, Log, Plan, Refused, Retry
from aiops.types import Action, Outcome

Check = Callable[[Action, Sequence[Change], Cluster], None]
"""Looks at what is about to be written; raises Refused or Retry where it must not be, Fewer where only some of it may be."""


class Fewer(Retry):
    """Only `changes` may be written now; the rest in `after_s` seconds."""

    def __init__(self, reason: str, after_s: float, changes: Sequence[Change]) -> None:
        super().__init__(reason, after_s)
        self.changes = changes


class Executor:
    """Carries actions out on a cluster. `checks` are asked before each turn, in this order, and `gate` before each write."""

    def __init__(self, cluster: Cluster, log: Log, checks: Sequence[Check] = (),
                 gate: Callable[[Action], None] = lambda action: None) -> None:
        self._cluster, self._log, self._checks, self._gate = cluster, log, checks, gate

    def carry_out(self, action: Action, at: float) -> Outcome:
        """One turn. Raises Retry where more is to come, or nothing could be changed yet; all else becomes an Outcome."""
        try:
            self._log.begin(action)
        except OSError as e:
            return Outcome(action.id, "failed", at, f"not done, the intent could not be recorded: {e}")
        try:
            return self._undo(action, at) if action.state == "undo" else self._act(action, at)
        except Changed as e:
            raise Retry(str(e), 1.0) from None
        except Retry:
            raise
        except Refused as e:
            return Outcome(action.id, "refused", at, e.reason + self._put_back(action))
        except Failed as e:
            return Outcome(action.id, "failed", at, e.reason)
        except Ambiguous as e:
            return Outcome(action.id, "unknown", at, f"{e.reason}; it may have been done and is not repeated")
        except Exception as e:  # noqa: BLE001 - one broken remediation must not stop the daemon
            return Outcome(action.id, "failed", at, f"{type(e).__name__}: {e}{self._put_back(action)}")

    def give_up(self, action: Action, at: float, reason: str) -> Outcome:
        """After too many Retry: nothing is left half done."""
        return Outcome(action.id, "failed", at, reason + ("" if action.state == "undo" else self._put_back(action)))

    def settle(self, begun: Begun, at: float) -> Outcome | None:
        """What became of an action that was interrupted, told from the cluster; None where it is to be gone on with.

        Raises Retry while the cluster cannot be asked.
        """
        left = 0
        for number, change in begun.doubtful:
            now = self._cluster.get(change.entity) if change.verb != "call" else None
            found = change.standing(now)
            if found == "unknown":
                return Outcome(begun.action.id, "unknown", at, f"interrupted, and nobody can tell whether it was done: {change}")
            if found == "done":
                self._log.written(begun.action.id, number, _inverse(begun.action, change, now))
            left += found == "not done"
        if left or begun.rest or not begun.text:
            return None
        return Outcome(begun.action.id, "undone" if begun.action.state == "undo" else "done", at,
                       f"{begun.text} It was done when the daemon was interrupted.")

    # ----------------------------------------------------------------------------------------------------- one turn
    def _act(self, action: Action, at: float) -> Outcome:
        so_far = replace(action, params={**action.params, "written": [c.entity for c in self._log.writes(action.id)]})
        plan = plugins.load_type("remediations", action.type)().plan(so_far, self._cluster)
        self._take(action, plan)
        if plan.rest:
            raise Retry(plan.rest, plan.after_s)
        return Outcome(action.id, "done", at, plan.text)

    def _undo(self, action: Action, at: float) -> Outcome:
        of = str(action.params.get("undo_of", ""))
        inverses = self._log.inverses(of)
        if not inverses:
            raise Refused("what the action had changed is not known any more.")
        text = f"put back what {of} had changed"
        try:
            self._take(action, Plan(text, tuple(c for c in inverses if c.standing(self._cluster.get(c.entity)) != "done")))
        except Changed as e:
            raise Refused(f"hands off: {e}.") from None
        return Outcome(action.id, "undone", at, text)

    def _take(self, action: Action, plan: Plan) -> None:
        self._gate(action)
        changes, fewer = self._allowed(action, [c for c in plan.changes if c.verb != "patch" or c.edits])
        self._not_again(action, changes)
        possible, later = self._possible(changes)
        later = fewer or later
        if possible:
            first = self._log.turn(action, replace(plan, changes=tuple(possible), rest=plan.rest or str(later or "")))
            for number, change in enumerate(possible, first):
                self._gate(action)
                self._log.written(action.id, number, self._write(action, change))
        if later:
            raise later

    def _allowed(self, action: Action, changes: Sequence[Change]) -> tuple[Sequence[Change], Retry | None]:
        """What every check lets pass, and why the rest has to wait."""
        fewer: Fewer | None = None
        for check in self._checks if changes else ():
            try:
                check(action, changes, self._cluster)
            except Fewer as e:
                changes, fewer = e.changes, e
        return changes, fewer

    def _not_again(self, action: Action, changes: Sequence[Change]) -> None:
        """What an earlier turn created and somebody deleted is not created again. Raises Refused."""
        creates = {c.entity for c in changes if c.verb == "create"}
        gone = next((c.entity for c in self._log.inverses(action.id) if c.entity in creates), None) if creates else None
        if gone:
            raise Refused(f"{gone} was made by this action, and somebody deleted it. Hands off.")

    def _possible(self, changes: Sequence[Change]) -> tuple[list[Change], Retry | None]:
        """What the API server would take now. A pod whose disruption budget forbids it does not keep others waiting."""
        possible, later = [], None
        for change in changes:
            try:
                self._cluster.try_out(change)
                possible.append(change)
            except Retry as e:
                if change.verb != "evict":
                    raise
                later = e
        return possible, later

    def _write(self, action: Action, change: Change) -> Change | None:
        """What undoes it. Without an answer: told from the object, where that is possible."""
        try:
            return _inverse(action, change, self._cluster.write(change))
        except Ambiguous as e:
            now = self._looked_up(change, e)
            if change.standing(now) != "done":
                raise
            return _inverse(action, change, now)

    def _looked_up(self, change: Change, doubt: Ambiguous) -> Any:
        if change.verb == "call":
            raise doubt
        try:
            return self._cluster.get(change.entity)
        except (Retry, Refused):
            raise doubt from None

    def _put_back(self, action: Action) -> str:
        """Undoes what was written of an action that cannot be finished; what to add to its reason."""
        inverses = self._log.inverses(action.id) if action.state != "undo" else ()
        try:
            for change in inverses:
                self._gate(replace(action, state="undo"))
                self._cluster.write(change)
        except (Changed, Retry, Refused, Ambiguous) as e:
            return f" What it had changed could not be put back: {e}"
        return " What it had changed was put back." if inverses else ""


def _inverse(action: Action, change: Change, written: Any) -> Change | None:
    kind = plugins.load_type("remediations", action.type)
    return change.inverse(written or {}) if kind.reversible and change.reversible else None


class Notes:
    """A Log in memory, for replay and tests. It remembers the last KEPT actions."""

    KEPT = 10_000

    def __init__(self) -> None:
        self.plans: list[tuple[str, Plan]] = []
        self.outcomes: list[Outcome] = []
        self._inverses: dict[str, list[Change]] = {}
        self._written: dict[str, list[Change]] = {}

    def begin(self, action: Action) -> None:
        """Nothing outlives this process."""
        for noted in (self._inverses, self._written):
            for name in [*noted][:-self.KEPT]:
                del noted[name]
        del self.plans[:-self.KEPT], self.outcomes[:-self.KEPT]

    def turn(self, action: Action, plan: Plan) -> int:
        self.plans.append((action.id, plan))
        return 0

    def written(self, action: str, number: int, inverse: Change | None) -> None:
        self._written.setdefault(action, []).append(self.plans[-1][1].changes[number])
        if inverse is not None:
            self._inverses.setdefault(action, []).insert(0, inverse)

    def writes(self, action: str) -> Sequence[Change]:
        return self._written.get(action, [])

    def inverses(self, action: str) -> Sequence[Change]:
        return self._inverses.get(action, [])

    def result(self, action: Action, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
