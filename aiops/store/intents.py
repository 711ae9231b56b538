"""What the daemon set out to do, written before it does it: killing it at any point neither doubles nor loses an action."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aiops.changes import Change, from_json
from aiops.interfaces import Begun, Plan
from aiops.types import Action, Outcome

_SCHEMA = """
CREATE TABLE IF NOT EXISTS actions (
    id TEXT PRIMARY KEY, action TEXT NOT NULL, at REAL NOT NULL, text TEXT NOT NULL DEFAULT '', rest TEXT NOT NULL DEFAULT '',
    status TEXT, reason TEXT, ended_at REAL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS writes (
    action TEXT NOT NULL, number INTEGER NOT NULL, change TEXT NOT NULL, written INTEGER NOT NULL DEFAULT 0, inverse TEXT,
    PRIMARY KEY (action, number)
) WITHOUT ROWID;
"""
KEEP = 10_000


class Intents:
    """The executor's Log on disk (SQLite, synchronous=FULL). Thread-safe.

    Raises OSError when the file cannot be written: then nothing must be done.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        try:
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_SCHEMA)
        except sqlite3.Error as e:
            raise OSError(f"{path}: the ledger of actions cannot be used: {e}") from None

    # ------------------------------------------------------------------------------------------------------- Log
    def begin(self, action: Action) -> None:
        text = json.dumps(asdict(action) | {"params": dict(action.params)})
        self._write([("INSERT OR IGNORE INTO actions (id, action, at) VALUES (?, ?, ?)", (action.id, text, action.at))])

    def turn(self, action: Action, plan: Plan) -> int:
        [(first,)] = self._read("SELECT COUNT(*) FROM writes WHERE action = ? AND written = 1", action.id)
        self._write([
            ("DELETE FROM writes WHERE action = ? AND written = 0", (action.id,)),
            ("UPDATE actions SET text = ?, rest = ? WHERE id = ?", (plan.text, plan.rest, action.id)),
            *(("INSERT INTO writes (action, number, change) VALUES (?, ?, ?)",
               (action.id, n, json.dumps(change.as_json()))) for n, change in enumerate(plan.changes, first))])
        return int(first)

    def written(self, action: str, number: int, inverse: Change | None) -> None:
        text = json.dumps(inverse.as_json()) if inverse is not None else None
        self._write([("UPDATE writes SET written = 1, inverse = ? WHERE action = ? AND number = ?", (text, action, number))])

    def writes(self, action: str) -> Sequence[Change]:
        rows = self._read("SELECT change FROM writes WHERE action = ? AND written = 1 ORDER BY number", action)
        return [from_json(json.loads(text)) for (text,) in rows]

    def inverses(self, action: str) -> Sequence[Change]:
        rows = self._read("SELECT inverse FROM writes WHERE action = ? AND inverse IS NOT NULL ORDER BY number DESC", action)
        return [from_json(json.loads(text)) for (text,) in rows]

    def result(self, action: Action, outcome: Outcome) -> None:
        self._write([
            ("UPDATE actions SET status = ?, reason = ?, ended_at = ? WHERE id = ?",
             (outcome.status, outcome.reason, outcome.at, action.id)),
            ("DELETE FROM actions WHERE id IN "
             "(SELECT id FROM actions WHERE status IS NOT NULL ORDER BY at DESC, id LIMIT -1 OFFSET ?)", (KEEP,)),
            ("DELETE FROM writes WHERE action NOT IN (SELECT id FROM actions)", ())])

    # ------------------------------------------------------------------------------------------- after a restart
    def begun(self) -> list[Begun]:
        """Actions that an earlier run began and of which nobody wrote down how they ended, the oldest first."""
        rows = self._read("SELECT id, action, text, rest FROM actions WHERE status IS NULL ORDER BY at, id")
        return [Begun(_action(text), said, rest, self._doubtful(name)) for name, text, said, rest in rows]

    def ended(self, actions: Iterable[str]) -> dict[str, Outcome]:
        """How these actions ended, those that did."""
        found: dict[str, Outcome] = {}
        for name in actions:
            for status, reason, at in self._read(
                    "SELECT status, reason, ended_at FROM actions WHERE id = ? AND status IS NOT NULL", name):
                found[name] = Outcome(name, status, at, reason)
        return found

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def _doubtful(self, action: str) -> tuple[tuple[int, Change], ...]:
        rows = self._read("SELECT number, change FROM writes WHERE action = ? AND written = 0 ORDER BY number", action)
        return tuple((number, from_json(json.loads(text))) for number, text in rows)

    def _read(self, sql: str, *given: object) -> list[Any]:
        try:
            with self._lock:
                return self._db.execute(sql, given).fetchall()
        except sqlite3.Error as e:
            raise OSError(f"the ledger of actions cannot be read: {e}") from None

    def _write(self, statements: Sequence[tuple[str, tuple[object, ...]]]) -> None:
        """All of them or none."""
        try:
            with self._lock, self._db:
                self._db.execute("BEGIN IMMEDIATE")
                for sql, given in statements:
                    self._db.execute(sql, given)
        except sqlite3.Error as e:
            raise OSError(f"the ledger of actions cannot be written: {e}") from None


def _action(text: str) -> Action:
    data = json.loads(text)
    return Action(**data | {"models": tuple(data.get("models", ())), "answers": tuple(data.get("answers", ()))})
