"""The audit record: who decided what and why, and why nothing was done. docs/audit.md lists the kinds of entries.

What is about to be done, and what people said, is on disk before `publish` returns, which is before it is carried out;
everything else is there half a minute of event time later at most. Each alert's state is written when it changes; anomalies
that are no alert are written as counts, every five minutes: there are too many of them, and the journal has them all.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import structlog

from aiops.chain import Draft, fingerprint, moment
from aiops.redaction import Redactor
from aiops.sinks.auditfile import DAEMON, AuditFile
from aiops.stops import VERBS
from aiops.types import Action, Command, EndState, Report

log = structlog.get_logger("aiops.audit")
SYNC_S = 30.0
COUNTS_S = 300.0
LONGEST_NAME = 200
JSON = dict[str, Any]
REPLICAS = frozenset({"handed", "lead", "follow"})


class Audit:
    """A sink. Thread-safe.

    recorded: the actions of the last report that are on disk, so that they may be carried out. ips: addresses of machines
    are left out, too.
    """

    def __init__(self, folder: Path, max_bytes: int = 256 << 20, keep_s: float = math.inf, ips: bool = False) -> None:
        self.recorded: frozenset[str] = frozenset()
        self._file, self._redactor = AuditFile(folder, max_bytes, keep_s), Redactor(ips)
        self._mutex = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._since, self._synced, self._at = math.inf, -math.inf, 0.0
        self._told = ""

    @property
    def problem(self) -> str:
        """Why the record cannot be written now; empty where it can."""
        return self._file.problem

    def counts(self) -> dict[str, int]:
        """How many entries there are, also of earlier runs, and how many could not be written."""
        return {"written": self._file.seq, "lost": self._file.lost_ever}

    def began(self, at: float, about: JSON) -> None:
        """The start of a run: version, mode, hashes of configuration and policies."""
        self._write([Draft(at, "started", DAEMON, about)], durable=True)
        log.info("audit record", entries=self._file.seq, hash=self._file.head)

    def ended(self, at: float, orderly: bool) -> None:
        """The end of a run, and of this sink."""
        with self._mutex:
            drafts = [*self._counted(), Draft(at, "stopped", DAEMON, {"orderly": orderly})]
        self._write(drafts, durable=True)
        log.info("audit record", entries=self._file.seq, hash=self._file.head)
        self.close()

    def publish(self, report: Report) -> None:
        """Everything that the step decided, was told, and left alone."""
        drafts = [*self._answers(report), *self._decisions(report), *self._outcomes(report), *self._models(report),
                  *self._policies(report), *self._states(report)]
        acts = frozenset(a.id for a in report.actions if a.decision == "act")
        durable = bool(acts or report.commands)
        due = report.at - self._synced >= SYNC_S
        if drafts or durable or (due and self._file.seq):
            ok = self._write(drafts, durable or due)
            self.recorded = acts if ok else frozenset()
        if due:
            self._synced = report.at

    def close(self) -> None:
        with self._mutex:
            self._file.close()

    def _write(self, drafts: list[Draft], durable: bool) -> bool:
        with self._mutex:
            ok = self._file.write([Draft(d.at, d.kind, d.who, self._redactor.value(d.what)) for d in drafts], durable)
        problem = self._file.problem
        if problem != self._told:
            (log.error if problem else log.info)("audit record", problem=problem or "none any more")
        self._told = problem
        return ok

    # ------------------------------------------------------------------------------------------------- what is written
    def _answers(self, report: Report) -> Iterator[Draft]:
        of = _incident_of(report)
        for c in report.commands:
            what: JSON = {"verb": c.verb, "target": c.target, "incident": of.get(c.target, "")}
            if c.verb in REPLICAS:
                yield Draft(report.at, "replica", {"role": "replica", "name": c.by[:LONGEST_NAME]}, what | _handed(c))
                continue
            if c.verb == "maintenance_start":
                what |= {"entities": list(c.entities), "from": moment(c.time if c.since is None else c.since),
                         "until": moment(c.until), "reason": c.reason}
            elif c.verb == "reset":
                what["names"] = list(c.entities)
            elif c.verb in VERBS:
                what["reason"] = c.reason
            elif c.params:
                what["changed"] = dict(c.params)
            yield Draft(report.at, "answer", _person(c), what)

    @staticmethod
    def _decisions(report: Report) -> Iterator[Draft]:
        said = {c.target: c for c in report.commands if c.verb in ("approve", "reject")}
        for a in report.actions:
            who = _person(said[a.id]) if a.id in said else {"role": "policy", "name": a.policy}
            yield Draft(report.at, "decision", who, _decision(a))

    @staticmethod
    def _outcomes(report: Report) -> Iterator[Draft]:
        of = _incident_of(report) if report.outcomes else {}
        for o in report.outcomes:
            what = {"action": o.action, "incident": of.get(o.action, ""), "status": o.status, "reason": o.reason,
                    "at": moment(o.at)}
            yield Draft(report.at, "outcome", DAEMON, what)

    @staticmethod
    def _models(report: Report) -> Iterator[Draft]:
        for e in report.model_events:
            yield Draft(report.at, "model", DAEMON, {"detector": e.detector, "event": e.kind, "model": e.model, "text": e.text})

    @staticmethod
    def _policies(report: Report) -> Iterator[Draft]:
        """Another set of policies, with the hash that the entry of a start with it would have, and what became of it."""
        if report.policies is not None:
            said = " ".join(note for note in report.notes if note.startswith("policies:"))
            yield Draft(report.at, "policies", DAEMON, {"policies": fingerprint(report.policies), "text": said})

    def _states(self, report: Report) -> Iterator[Draft]:
        """Alerts whose state is another than before; the others are counted."""
        for e in report.ends:
            if not e.alerted:
                self._counts[e.state] += 1
            elif e.new:
                yield Draft(report.at, "state", DAEMON, _state(e))
        self._at = report.at
        if self._counts:
            self._since = min(self._since, report.at)
            if report.at - self._since >= COUNTS_S:
                yield from self._counted()

    def _counted(self) -> Iterable[Draft]:
        if not self._counts:
            return ()
        what = {"from": moment(self._since), "counts": dict(sorted(self._counts.items()))}
        self._counts, self._since = Counter(), math.inf
        return (Draft(self._at, "anomalies", DAEMON, what),)


def _decision(a: Action) -> JSON:
    guard = {"guard": a.state} if a.decision == "refused" and a.state not in ("rejected", "refused") else {}
    return {"action": a.id, "type": a.type, "target": a.target, "params": dict(a.params), "incident": a.incident,
            "policy": a.policy, "decision": a.decision, "reason": a.reason, "models": list(a.models), **guard}


def _state(e: EndState) -> JSON:
    return {"entity": e.entity, "signal": e.signal, "state": e.state, "by": e.by, "text": e.text, "incident": e.incident,
            "policy": e.policy}


def _handed(c: Command) -> JSON:
    """What another replica said became of an action."""
    attempt = c.params.get("attempt")
    if not isinstance(attempt, Mapping):
        return {}
    return {"policy": attempt["policy"], "type": attempt["type"], "on": attempt["target"], "state": attempt["state"],
            "undo": attempt["undo"], "reason": attempt["said"]}


def _person(c: Command) -> dict[str, str]:
    return {"role": "place" if c.verb in VERBS and c.target else "person", "name": c.by[:LONGEST_NAME] or "somebody"}


def _incident_of(report: Report) -> dict[str, str]:
    """Action or incident -> incident, of those that changed."""
    return {a.id: i.id for i in report.incidents for a in i.actions} | {i.id: i.id for i in report.incidents}
