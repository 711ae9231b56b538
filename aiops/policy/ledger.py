"""What was decided and what became of it: the memory of the policies. Bounded, and plain JSON when saved."""

from __future__ import annotations

import hashlib
from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from aiops.types import Action, Decision, entity_parts

State = Literal["asked", "submitted", "verifying", "shadow", "helped", "no_help", "worse", "failed", "unknown", "refused",
                "rejected", "expired", "withdrawn"]
LIVE: frozenset[str] = frozenset({"asked", "submitted", "verifying"})
USELESS: frozenset[str] = frozenset({"no_help", "worse"})
"""Done, and it was no good: not again for the same evidence."""
FRUITLESS: frozenset[str] = USELESS | {"failed"}
JUDGED: frozenset[str] = FRUITLESS | {"helped"}
"""It is known whether it helped."""
CLOSED_TO_POLICY: frozenset[str] = frozenset({"helped", "rejected", "expired", "unknown"})
KEEP_S = 7 * 86400.0
KEEP_MOST = 10_000
KEEP_JUDGED = 100
"""Of each policy so many of the last verdicts are at hand for its breaker."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One decided action of one policy on one incident.

    `acted_at` is when it was handed over (in shadow: would have been), `good_before` whether the success metric was on
    its good side already. `undo` is empty, `waiting` (everything is frozen), `running`, or how undoing ended. `trigger` is the
    entity and signal that asked for it, `evidence` every alert that fired in the incident then, with its onset. `said`: the
    verdict, for people. `approvals`: who approved it as it is now; `answers`: what was said about it.
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
    trigger: tuple[str, str] = ("", "")
    evidence: tuple[str, ...] = ()
    said: str = ""
    approvals: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()

    @property
    def live(self) -> bool:
        """Something is still to come of it."""
        return self.state in LIVE or self.undo in ("running", "waiting")

    @property
    def kind(self) -> str:
        """The action and the class of workload that it was aimed at: `Restart of deployment`."""
        return kind_of(self.type, self.target)

    @property
    def rehearsed(self) -> bool:
        """Only decided, never done."""
        return self.state == "shadow"

    def action(self, decision: Decision, at: float, state: str = "", reason: str = "") -> Action:
        return Action(self.id, self.type, self.target, self.params, self.incident, self.policy, decision,
                      reason or self.reason, at, state, answers=self.answers)


class Ledger:
    """All attempts by id, oldest first, and which refusals were already said for a policy and incident.

    Indexed by what guards ask for: a burst of ten thousand decisions asks ten thousand times.
    """

    def __init__(self) -> None:
        self.attempts: dict[str, Attempt] = {}
        self.said: dict[str, dict[str, float]] = {}
        self._index()

    def _index(self) -> None:
        known = list(self.attempts.values())
        self._groups: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
        self._live: defaultdict[tuple[str, ...], dict[str, None]] = defaultdict(dict)
        self._acted: defaultdict[tuple[str, bool], list[float]] = defaultdict(list)
        self._judged: defaultdict[str, list[tuple[float, str, bool]]] = defaultdict(list)
        self.attempts = {}
        for attempt in known:
            self.put(attempt)

    def put(self, attempt: Attempt) -> Attempt:
        before = self.attempts.get(attempt.id)
        self.attempts[attempt.id] = attempt
        if before is None:
            self._groups["incident", attempt.policy, attempt.incident].append(attempt.id)
            self._groups["target", attempt.policy, attempt.target].append(attempt.id)
            self._groups["all", attempt.incident].append(attempt.id)
        for key in _live_keys(attempt):
            if attempt.live:
                self._live[key][attempt.id] = None
            else:
                self._live[key].pop(attempt.id, None)
        if attempt.acted_at is not None and (before is None or before.acted_at is None):
            insort(self._acted[attempt.policy, attempt.rehearsed], attempt.acted_at)
        if attempt.state in JUDGED and attempt.ended_at is not None and (before is None or before.state not in JUDGED):
            insort(self._judged[attempt.policy], (attempt.ended_at, attempt.id, attempt.state == "helped"))
            del self._judged[attempt.policy][:-KEEP_JUDGED]
        return attempt

    def change(self, attempt: Attempt, **changes: Any) -> Attempt:
        return self.put(replace(attempt, **changes))

    def of(self, policy: str, incident: str) -> list[Attempt]:
        return [self.attempts[key] for key in self._groups.get(("incident", policy, incident), ())]

    def of_incident(self, incident: str) -> list[Attempt]:
        """Of all policies."""
        return [self.attempts[key] for key in self._groups.get(("all", incident), ())]

    def move(self, attempt: Attempt, incident: str, evidence: tuple[str, ...]) -> Attempt:
        """To another incident, which is the same fault. The last of those that are there."""
        for key in _live_keys(attempt):
            self._live[key].pop(attempt.id, None)
        del self.attempts[attempt.id]
        for old, new in ((("incident", attempt.policy, attempt.incident), ("incident", attempt.policy, incident)),
                         (("all", attempt.incident), ("all", incident))):
            self._groups[old].remove(attempt.id)
            self._groups[new].append(attempt.id)
        self.attempts[attempt.id] = attempt  # known, so that `put` counts it once
        return self.put(replace(attempt, incident=incident, evidence=evidence))

    def helped_in(self, incident: str) -> Attempt | None:
        """The last that helped in this incident, of whatever policy."""
        helped = [a for key in self._groups.get(("all", incident), ()) if (a := self.attempts[key]).state == "helped"]
        return max(helped, key=lambda a: a.done_at or 0.0, default=None)

    def on(self, policy: str, target: str) -> list[Attempt]:
        """What this policy did, or would have done, to this target."""
        return [self.attempts[key] for key in self._groups.get(("target", policy, target), ())]

    def live(self, *of: str) -> list[Attempt]:
        """Those of which something is still to come: all, or `"incident", ID`, or `"target", ENTITY`."""
        return [self.attempts[key] for key in self._live.get(of, ())]

    def disruptions(self, namespace: str, but: str) -> int:
        """Disruptive actions that are under way there, without this one."""
        found = self._live.get(("namespace", namespace), {})
        return len(found) - (but in found)

    def acted(self, policy: str, since: float, rehearsed: bool) -> int:
        """How many actions of this policy were done after `since`; rehearsed: those that would have been."""
        times = self._acted.get((policy, rehearsed), [])
        return len(times) - bisect_right(times, since)

    def verdicts(self, policy: str) -> list[tuple[float, str, bool]]:
        """When the last attempts of this policy ended, over all targets, their ids, and whether they helped; the oldest first."""
        return self._judged.get(policy, [])

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
        surplus = [a.id for a in self.attempts.values() if not a.live][: max(0, len(self.attempts) - KEEP_MOST)]
        for key in surplus:
            del self.attempts[key]
        if old or surplus:
            self._index()
        for pair in [p for p, seen in self.said.items()
                     if p.split("|", 1)[1] not in kept and now - max(seen.values()) > KEEP_S]:
            del self.said[pair]

    def state(self) -> dict[str, Any]:
        attempts = [asdict(a) | {"params": dict(a.params)} for a in self.attempts.values()]
        return {"attempts": attempts, "said": {k: dict(v) for k, v in self.said.items()}}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.attempts = {a["id"]: attempt_from(a) for a in state.get("attempts", [])}
        self._index()
        self.said = {k: dict(v) for k, v in state.get("said", {}).items()}


def _live_keys(attempt: Attempt) -> Iterator[tuple[str, ...]]:
    """Under which a live attempt is found."""
    yield ()
    yield "incident", attempt.incident
    if attempt.acted_at is not None or attempt.undo:
        yield "target", attempt.target
    if attempt.acted_at is not None and not attempt.rehearsed:
        yield "policy", attempt.policy
    if attempt.disruptive and attempt.acted_at is not None and not attempt.rehearsed:
        yield "namespace", entity_parts(attempt.target)[1]


def attempt_from(data: Mapping[str, Any]) -> Attempt:
    """From plain JSON, which knows no tuples."""
    kind, signal = data.get("trigger", ("", ""))
    return Attempt(**{**data, "trigger": (kind, signal), "evidence": tuple(data.get("evidence", ())),
                      "approvals": tuple(data.get("approvals", ())), "answers": tuple(data.get("answers", ()))})


def kind_of(action: str, target: str) -> str:
    """What the track record is kept of: an action on a class of workload."""
    return f"{action} of {target.partition('/')[0]}"


def action_id(*parts: object) -> str:
    """A short, stable name: equal parts give equal ids on every machine."""
    return "a-" + hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()[:12]
