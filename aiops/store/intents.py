"""What the daemon set out to do, written before it does it: killing it at any point neither doubles nor loses an action."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Mapping
from pathlib import Path

from aiops.types import Action, Outcome

_SCHEMA = """
CREATE TABLE IF NOT EXISTS intents (
    id TEXT PRIMARY KEY, type TEXT NOT NULL, target TEXT NOT NULL, incident TEXT NOT NULL, policy TEXT NOT NULL,
    at REAL NOT NULL, status TEXT, reason TEXT, ended_at REAL, snapshot TEXT
) WITHOUT ROWID;
"""
KEEP = 10_000


class Intents:
    """One row an action. `intent` returns only once the row is on disk (synchronous=FULL). Thread-safe.

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

    def intent(self, action: Action) -> None:
        self._write("INSERT OR IGNORE INTO intents (id, type, target, incident, policy, at) VALUES (?, ?, ?, ?, ?, ?)",
                    (action.id, action.type, action.target, action.incident, action.policy, action.at))

    def result(self, action: Action, outcome: Outcome, snapshot: Mapping[str, object]) -> None:
        self._write("UPDATE intents SET status = ?, reason = ?, ended_at = ?, snapshot = ? WHERE id = ?",
                    (outcome.status, outcome.reason, outcome.at, json.dumps(dict(snapshot)), action.id))
        self._write("DELETE FROM intents WHERE status IS NOT NULL AND id NOT IN "
                    "(SELECT id FROM intents ORDER BY at DESC LIMIT ?)", (KEEP,))

    def interrupted(self) -> list[str]:
        """Actions that an earlier run began and of which nobody knows how they ended."""
        with self._lock:
            return [row[0] for row in self._db.execute("SELECT id FROM intents WHERE status IS NULL ORDER BY at, id")]

    def snapshots(self) -> dict[str, Mapping[str, object]]:
        """What earlier actions changed, so that it can be undone."""
        with self._lock:
            rows = self._db.execute("SELECT id, snapshot FROM intents WHERE snapshot IS NOT NULL ORDER BY at").fetchall()
        return {name: json.loads(text) for name, text in rows}

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def _write(self, sql: str, given: tuple[object, ...]) -> None:
        try:
            with self._lock:
                self._db.execute(sql, given)
        except sqlite3.Error as e:
            raise OSError(f"the ledger of actions cannot be written: {e}") from None
