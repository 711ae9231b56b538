"""The ledger of actions where all replicas see it: a ConfigMap with the last actions, the leader's to write.

Who comes to lead writes its term into it first, and every later write names the version of the ConfigMap that it follows on. So
one who was deposed cannot record an intent any more, and what cannot be recorded is not done. What undoes each write is in it
too: the next leader can settle, finish and put back what the last one began.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from aiops.changes import Change, from_json
from aiops.cluster.lease import Waits
from aiops.cluster.transport import JSON, Api, Conflict, Missing
from aiops.interfaces import NOT_NOW, Ambiguous, Begun, Plan, Refused, Retry
from aiops.quantities import format_duration
from aiops.serial import action as action_json
from aiops.types import Action, Outcome

KEEP, MOST_BYTES = 200, 700_000
"""A ConfigMap holds 1 MiB."""
TERM, DATA = "aiops.io/term", "actions.json"
TRIES = 4
Entry = dict[str, Any]
"""One action: id, action, text, rest, writes (number, change, written, inverse), status, reason, ended_at, by, about (what its
decider says of it: why, and what became of it)."""


class Own(Protocol):
    """The ledger on this replica's disk: it remembers longer."""

    def begin(self, action: Action) -> None: ...
    def result(self, action: Action, outcome: Outcome) -> None: ...
    def begun(self) -> Sequence[Begun]: ...
    def ended(self, actions: Iterable[str]) -> Mapping[str, Outcome]: ...


class SharedLedger:
    """A Ledger in the ConfigMap NAMESPACE/NAME. `holder`: who we are. For one thread.

    Raises Retry where it cannot be written now: then nothing must be done. What was done is never turned into a Retry: it is
    written with whatever comes next, and told from the object by the next leader should there be no next.
    """

    def __init__(self, own: Own, api: Api, namespace: str, name: str, holder: str,
                 about: Callable[[str], Entry | None] = lambda action: None) -> None:
        self._own, self._api, self._namespace, self._name, self.holder = own, api, namespace, name, holder
        self.about = about
        self._handed: dict[str, str] = {}
        self._entries: dict[str, Entry] = {}
        self._object: JSON | None = None
        self._term: int | None = None
        self._owed = False

    # --------------------------------------------------------------------------------------------------- terms
    def claim(self, term: int) -> None:
        """Ours from now on, with all that was recorded before. Raises Waits where a later leader has it."""
        self.drop()
        self.refresh()
        self._term = term
        try:
            self._save()
        except BaseException:
            self._term = None
            raise

    def drop(self) -> None:
        """We do not lead any more: nothing is written from here on."""
        self._term, self._object, self._owed = None, None, False

    def refresh(self) -> None:
        """Read it, as one who only looks. Who leads knows it. Raises Refused where it cannot be understood."""
        if self._term is not None:
            return
        self._read()
        text = ((self._object or {}).get("data") or {}).get(DATA, "[]")
        try:
            self._entries = {entry["id"]: entry for entry in json.loads(text)}
        except (ValueError, KeyError, TypeError):
            raise Refused(f"the ledger {self._namespace}/{self._name} cannot be understood, and may hold what was begun. Delete "
                          "the ConfigMap where nothing was.") from None

    def flush(self) -> None:
        """Write what could not be written when it happened. A failure is tried again by the next call."""
        if self._term is not None:
            self._ask()
        if self._owed and self._term is not None:
            self._try_save()

    def _ask(self) -> None:
        """What the decider says by now of those that are not over for it."""
        for name, entry in self._entries.items():
            if entry.get("about") and not _over(entry["about"]):
                told = self.about(name)
                told = told and _sketched(entry["about"], told)
                if told and told != entry["about"]:
                    entry["about"], self._owed = told, True

    def handed(self) -> dict[str, Entry]:
        """What deciders said of actions, with how they ended (`ended`) and whose they were (`by`); each only when it is new."""
        new: dict[str, Entry] = {}
        for name, entry in self._entries.items():
            if not entry.get("about"):
                continue
            ended = entry["status"] and {"status": entry["status"], "at": entry["ended_at"], "reason": entry["reason"]}
            told = {**entry["about"], "ended": ended or None, "by": entry["by"]}
            text = json.dumps(told, sort_keys=True)
            if self._handed.get(name) != text:
                new[name], self._handed[name] = told, text
        self._handed = {name: text for name, text in self._handed.items() if name in self._entries}
        return new

    def began(self, action: str) -> bool:
        """Whether it is recorded and nobody wrote down how it ended."""
        return action in self._entries and self._entries[action]["status"] is None

    def elsewhere(self, action: Action, at: float, within_s: float) -> Outcome | None:
        """Why it is not to be begun: this very action has ended, or another replica did something to the same target lately."""
        ended = self.ended([action.id]).get(action.id)
        if ended or action.state == "undo" or self.began(action.id):
            return ended
        for entry in reversed(self._entries.values()):
            one, ago_s = entry["action"], at - float(entry["ended_at"] or entry["action"]["at"])
            done = entry["status"] in (None, "done", "unknown", "undone")
            if done and one["target"] == action.target and entry["by"] != self.holder and ago_s < within_s:
                return Outcome(action.id, "refused", at, f"{NOT_NOW}another replica, {entry['by']}, acted on {action.target} "
                               f"{format_duration(round(max(0.0, ago_s)))} ago: {one['type']} {entry['id']}.")
        return None

    # ----------------------------------------------------------------------------------------------------- Log
    def begin(self, action: Action) -> None:
        self._own.begin(action)
        self._ask()
        if action.id not in self._entries:
            self._entries[action.id] = {"id": action.id, "action": action_json(action), "text": "", "rest": "", "writes": [],
                                        "status": None, "reason": "", "ended_at": None, "by": self.holder, "term": self._term,
                                        "about": self.about(action.id)}
            self._owed = True
        if self._owed:
            self._save()

    def turn(self, action: Action, plan: Plan) -> int:
        entry = self._entries[action.id]
        kept = [w for w in entry["writes"] if w["written"]]
        first = len(kept)
        new = [{"number": n, "change": c.as_json(), "written": False, "inverse": None} for n, c in enumerate(plan.changes, first)]
        entry |= {"text": plan.text, "rest": plan.rest, "writes": kept + new, "by": self.holder, "term": self._term}
        self._save()
        return first

    def written(self, action: str, number: int, inverse: Change | None) -> None:
        for write in self._entries[action]["writes"]:
            if write["number"] == number:
                write |= {"written": True, "inverse": inverse.as_json() if inverse else None}
        self._try_save()

    def inverses(self, action: str) -> Sequence[Change]:
        writes = self._entries[action]["writes"] if action in self._entries else ()
        return [from_json(w["inverse"]) for w in reversed(writes) if w["inverse"]]

    def writes(self, action: str) -> Sequence[Change]:
        entry = self._entries.get(action, {"writes": ()})
        return [from_json(w["change"]) for w in entry["writes"] if w["written"]]

    def result(self, action: Action, outcome: Outcome) -> None:
        self._own.result(action, outcome)
        if self._term is not None and action.id in self._entries:
            self._entries[action.id] |= {"status": outcome.status, "reason": outcome.reason[:500], "ended_at": outcome.at}
            self._try_save()

    def begun(self) -> list[Begun]:
        """What is unfinished, whoever began it, the oldest first; what only we know of nobody else can have done."""
        here = [_begun(e) for e in self._entries.values() if e["status"] is None]
        ours = [b for b in self._own.begun() if b.action.id not in self._entries]
        return sorted([*here, *ours], key=lambda b: (b.action.at, b.action.id))

    def ended(self, actions: Iterable[str]) -> dict[str, Outcome]:
        """Also from another thread. What all see counts more than what only we wrote down."""
        names = list(actions)
        found = [e for name in names if (e := self._entries.get(name))]
        here = {e["id"]: Outcome(e["id"], e["status"], e["ended_at"], e["reason"]) for e in found if e["status"] is not None}
        return {**self._own.ended(set(names) - {e["id"] for e in found}), **here}

    def next_term(self) -> int:
        """The least that a lease made anew may begin with: later than all that were."""
        try:
            return term_of(self._api.get(self._path())) + 1
        except Missing:
            return 0

    # ----------------------------------------------------------------------------------------------- the object
    def _try_save(self) -> None:
        self._owed = True
        try:
            self._save()
        except (Retry, Refused):
            return

    def _save(self) -> None:
        """All of it, on top of the version that we know. Raises Retry, or Waits where another has claimed it since."""
        if self._term is None:
            raise Waits("waits for the lease: another replica leads since", 1.0)
        self._bound()
        data = {DATA: json.dumps(list(self._entries.values()), separators=(",", ":"))}
        for _ in range(TRIES):
            if self._object is None:
                self._read()
                if self._says(data):
                    self._owed = False
                    return
            try:
                self._object = self._put(self._object, data)
            except (Conflict, Missing, Ambiguous):
                self._object = None
                continue
            self._owed = False
            return
        raise Retry(f"the ledger {self._namespace}/{self._name} cannot be written", 2.0)

    def _says(self, data: Mapping[str, str]) -> bool:
        """Whether it was written already: by a write that was not answered."""
        there = self._object or {}
        return there.get("data") == data and term_of(there) == self._term

    def _put(self, before: JSON | None, data: Mapping[str, str]) -> JSON:
        meta = {"name": self._name, "namespace": self._namespace, "labels": {"app.kubernetes.io/name": "aiops"},
                "annotations": {TERM: str(self._term), "aiops.io/holder": self.holder}}
        body: JSON = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": dict(data)}
        if not before:
            return self._api.post(self._path(""), body)
        meta["resourceVersion"] = before["metadata"]["resourceVersion"]
        return self._api.put(self._path(), body)

    def _read(self) -> None:
        """The object as it is, {} where there is none. Raises Waits where its term is later than ours."""
        try:
            self._object = self._api.get(self._path())
        except Missing:
            self._object = {}
        if self._term is not None and term_of(self._object) > self._term:
            self.drop()
            raise Waits("waits for the lease: another replica leads since", 1.0)

    def _bound(self) -> None:
        """The oldest that have ended go first. Raises Refused where what is unfinished alone is too much."""
        sizes = {name: len(json.dumps(entry)) for name, entry in self._entries.items()}
        for name in [n for n, e in self._entries.items() if e["status"] is not None]:
            if len(sizes) <= KEEP and sum(sizes.values()) <= MOST_BYTES:
                return
            del self._entries[name], sizes[name]
        if sum(sizes.values()) > MOST_BYTES:
            raise Refused(f"more than {MOST_BYTES} bytes of unfinished actions do not fit into {self._namespace}/{self._name}.")

    def _path(self, name: str | None = None) -> str:
        return f"/api/v1/namespaces/{self._namespace}/configmaps" + (f"/{self._name}" if name is None else "")


def term_of(found: Mapping[str, Any] | None) -> int:
    """The term of the leader who wrote the ConfigMap last, -1 for none."""
    text = ((found or {}).get("metadata", {}).get("annotations") or {}).get(TERM, "")
    return int(text) if text.isdigit() else -1


def _sketched(before: Entry, told: Entry) -> Entry:
    """With the sketch of its incident that was told first: where it is does not change, and a write is saved."""
    sketch = before.get("incident")
    return {**told, "incident": sketch} if sketch and sketch["id"] == told["attempt"]["incident"] else {**before, **told}


def _over(about: Entry) -> bool:
    """Whether nothing is to come of it any more."""
    attempt = about["attempt"]
    return attempt["state"] not in ("submitted", "verifying") and attempt["undo"] not in ("waiting", "running")


def _begun(entry: Entry) -> Begun:
    doubtful = tuple((w["number"], from_json(w["change"])) for w in entry["writes"] if not w["written"])
    data = entry["action"]
    return Begun(Action(**data | {"models": tuple(data["models"])}), entry["text"], entry["rest"], doubtful)
