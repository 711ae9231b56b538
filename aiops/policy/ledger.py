"""What was decided and what became of it: the memory of the policies. Bounded, and plain JSON when saved."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from aiops.types import Action, Decision

State = Literal["asked", "submitted", "verifying", "shadow", "helped", "no_help", "failed", "unknown", "refused",
                "rejected", "expired", "withdrawn"]
LIVE: frozenset[str] = frozenset({"asked", "submitted", "verifying"})
FRUITLESS: frozenset[str] = frozenset({"no_help", "failed"})
CLOSED_TO_POLICY: frozenset[str] = frozenset({"helped", "rejected", "expired", "unknown"})
KEEP_S = 7 * 86400.0
KEEP_MOST = 10_000


@dataclass(frozen=True, slots=True)
class Attempt:
    """One decided action of one policy on one incident.

    `acted_at` is when it was handed over (in shadow: would have been), `good_before` whether the success metric was on
    its good side already. `undo` is empty, `running`, or how undoing ended.
    """

    id: str
    policy: str
    incident: str
    index: int
    number: int
    type: str
    target: str
    params: Mapping[str, object]
    reason: str
    decided_at: float
    state: State
    disruptive: bool = False
    signature: str = ""
    good_before: bool = False
    acted_at: float | None = None
    done_at: float | None = None
    ended_at: float | None = None
    undo: str = ""
    undo_at: float | None = None

    @property
    def live(self) -> bool:
        """Something is still to come of it."""
        return self.state in LIVE or self.undo == "running"

    @property
    def rehearsed(self) -> bool:
        """Only decided, never done."""
        return self.state == "shadow"

    def action(self, decision: Decision, at: float, state: str = "", reason: str = "") -> Action:
        return Action(self.id, self.type, self.target, self.params, self.incident, self.policy, decision,
                      reason or self.reason, at, state)


@dataclass(slots=True)
class Ledger:
    """All attempts by id, oldest first, and which refusals were already said for a policy and incident."""

    attempts: dict[str, Attempt] = field(default_factory=dict)
    said: dict[str, dict[str, float]] = field(default_factory=dict)

    def put(self, attempt: Attempt) -> Attempt:
        self.attempts[attempt.id] = attempt
        return attempt

    def change(self, attempt: Attempt, **changes: Any) -> Attempt:
        return self.put(replace(attempt, **changes))

    def of(self, policy: str, incident: str) -> list[Attempt]:
        return [a for a in self.attempts.values() if a.policy == policy and a.incident == incident]

    def live(self) -> list[Attempt]:
        return [a for a in self.attempts.values() if a.live]

    def first_time(self, policy: str, incident: str, category: str, now: float) -> bool:
        """Whether this refusal is new; remembers it."""
        seen = self.said.setdefault(f"{policy}|{incident}", {})
        new = category not in seen
        seen.setdefault(category, now)
        return new

    def forget_said(self, policy: str) -> None:
        """Its refusals are said again: it has changed, and may refuse for other reasons."""
        for pair in [p for p in self.said if p.split("|", 1)[0] == policy]:
            del self.said[pair]

    def prune(self, now: float, busy: Iterable[str]) -> None:
        """Forget what ended a week ago, of incidents that are not in `busy`, and the oldest beyond KEEP_MOST."""
        kept = set(busy)
        old = [a.id for a in self.attempts.values()
               if not a.live and a.incident not in kept and now - (a.ended_at or a.decided_at) > KEEP_S]
        for key in old:
            del self.attempts[key]
        ended = [a.id for a in self.attempts.values() if not a.live]
        for key in ended[: max(0, len(self.attempts) - KEEP_MOST)]:
            del self.attempts[key]
        for pair in [p for p, seen in self.said.items()
                     if p.split("|", 1)[1] not in kept and now - max(seen.values()) > KEEP_S]:
            del self.said[pair]

    def state(self) -> dict[str, Any]:
        attempts = [asdict(a) | {"params": dict(a.params)} for a in self.attempts.values()]
        return {"attempts": attempts, "said": {k: dict(v) for k, v in self.said.items()}}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.attempts = {a["id"]: Attempt(**a) for a in state.get("attempts", [])}
        self.said = {k: dict(v) for k, v in state.get("said", {}).items()}


def action_id(*parts: object) -> str:
    """A short, stable name: equal parts give equal ids on every machine."""
    return "a-" + hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()[:12]
