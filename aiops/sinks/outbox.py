"""Messages that wait on disk until their receiver has them: delivered at least once, an outage loses nothing and is not
followed by a flood.

One outbox a receiver. A newer message about the same subject replaces the one that still waits, so after an outage the
receiver gets the newest state of each incident, at the pace it can take. Retries back off exponentially with jitter, for the
receiver as a whole; a permanent refusal (4xx) puts that one message into the dead letters, which are kept and listed.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aiops.interfaces import Clock
from aiops.sinks.http import Reply

JSON = dict[str, Any]
_SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (id INTEGER PRIMARY KEY AUTOINCREMENT, subject TEXT NOT NULL, body TEXT NOT NULL,
    queued_at REAL NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, dead TEXT);
CREATE UNIQUE INDEX IF NOT EXISTS waiting ON messages (subject) WHERE dead IS NULL;
CREATE TABLE IF NOT EXISTS memory (subject TEXT PRIMARY KEY, value TEXT NOT NULL, at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Message:
    """`id` never repeats and stays the same over retries: receivers use it to recognise a repetition."""

    id: int
    subject: str
    body: JSON
    queued_at: float
    attempts: int


@dataclass(frozen=True, slots=True)
class Pace:
    """How patiently. Delays in seconds; `max_waiting` and `max_dead` bound the file."""

    first_s: float = 2.0
    longest_s: float = 300.0
    gap_s: float = 1.0
    give_up_s: float = 7 * 86400.0
    max_waiting: int = 10_000
    max_dead: int = 1_000


class Outbox:
    """A queue in the file `folder/NAME.outbox` and, once started, a thread that empties it through `send`.

    `send` gets one message and answers with the receiver's Reply; it must not raise. Thread-safe.
    """

    def __init__(self, folder: Path, name: str, send: Callable[[Message], Reply], clock: Clock,
                 pace: Pace | None = None) -> None:
        self.name, self._send, self._clock, self.pace = name, send, clock, pace or Pace()
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.outbox"
        path.touch(mode=0o600)
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(_SCHEMA)
        self._mutex = threading.RLock()
        self._wake, self._stop = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self.epoch = int(self._fact("epoch", lambda: int(clock.now() * 1000)))
        self._failures, self._not_before = 0, float("-inf")
        self._jitter = np.random.default_rng(sum(name.encode()))
        self.delivered, self.last_error = 0, ""

    # ------------------------------------------------------------------------------------------------ the sender's side
    def put(self, subject: str, body: Mapping[str, Any]) -> None:
        """Queue the newest word on a subject; what still waits about it is replaced and keeps its place in the queue."""
        with self._mutex, self._db:
            self._db.execute("BEGIN")
            row = self._db.execute("DELETE FROM messages WHERE subject = ? AND dead IS NULL RETURNING queued_at",
                                   (subject,)).fetchone()
            self._db.execute("INSERT INTO messages (subject, body, queued_at) VALUES (?,?,?)",
                             (subject, json.dumps(body), row[0] if row else self._clock.now()))
            self._shed()
        self._wake.set()

    def pending(self, subject: str) -> JSON | None:
        """The body that still waits about a subject."""
        with self._mutex:
            row = self._db.execute("SELECT body FROM messages WHERE subject = ? AND dead IS NULL", (subject,)).fetchone()
            return dict(json.loads(row[0])) if row else None

    def remember(self, subject: str, value: JSON) -> None:
        """Keep a small fact about a subject over restarts: what was last said, the receiver's id of the message."""
        with self._mutex:
            self._db.execute("INSERT OR REPLACE INTO memory VALUES (?,?,?)", (subject, json.dumps(value), self._clock.now()))
            self._db.execute("DELETE FROM memory WHERE subject IN (SELECT subject FROM memory ORDER BY at DESC "
                             "LIMIT -1 OFFSET ?)", (self.pace.max_waiting,))

    def recall(self, subject: str) -> JSON:
        """What `remember` kept; empty when nothing was."""
        with self._mutex:
            row = self._db.execute("SELECT value FROM memory WHERE subject = ?", (subject,)).fetchone()
            return dict(json.loads(row[0])) if row else {}

    # ------------------------------------------------------------------------------------------------ delivery
    def start(self) -> None:
        """Deliver in a thread of its own until `close`."""
        self._thread = threading.Thread(target=self._run, name=f"outbox-{self.name}", daemon=True)
        self._thread.start()

    def close(self, wait_s: float = 2.0) -> None:
        """Stop delivering; what still waits is delivered by the next run."""
        self._stop.set()
        self._wake.set()
        if self._thread:
            self._thread.join(wait_s)
        with self._mutex:
            self._db.close()

    def step(self) -> float | None:
        """Deliver at most one message. Returns the seconds until the next is due, None when nothing waits."""
        now = self._clock.now()
        self._not_before = min(self._not_before, now + 2 * max(self.pace.longest_s, 3600.0))  # the clock may be set back
        message = self._oldest()
        if message is None:
            return None
        if now < self._not_before:
            return self._not_before - now
        self._settle(message, self._send(message), self._clock.now())
        return max(0.0, self._not_before - self._clock.now()) if self._oldest() else None

    def waiting(self) -> int:
        with self._mutex:
            return int(self._db.execute("SELECT count(*) FROM messages WHERE dead IS NULL").fetchone()[0])

    def dead(self) -> list[JSON]:
        """Messages that the receiver refused for good, newest first, with the reason."""
        with self._mutex:
            rows = self._db.execute("SELECT id, subject, queued_at, attempts, dead FROM messages WHERE dead IS NOT NULL "
                                    "ORDER BY id DESC").fetchall()
        return [dict(zip(("id", "subject", "queued_at", "attempts", "reason"), row, strict=True)) for row in rows]

    def status(self) -> JSON:
        """For the health page: how much waits, was delivered and was given up, and the last thing that went wrong."""
        return {"name": self.name, "waiting": self.waiting(), "dead": len(self.dead()), "delivered": self.delivered,
                "failures": self._failures, "error": self.last_error}

    # ------------------------------------------------------------------------------------------------ inside
    def _fact(self, name: str, make: Callable[[], int]) -> int:
        """A number that belongs to the file; `epoch` keeps message ids apart from those of an earlier, deleted file."""
        self._db.execute("INSERT OR IGNORE INTO facts VALUES (?,?)", (name, make()))
        return int(self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()[0])

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            try:
                wait = self.step()
            except sqlite3.Error as e:
                wait, self.last_error = 60.0, f"outbox of {self.name}: {e}"
            self._wake.wait(wait) if wait is None or self._failures == 0 else self._stop.wait(wait)

    def _oldest(self) -> Message | None:
        with self._mutex:
            row = self._db.execute("SELECT id, subject, body, queued_at, attempts FROM messages WHERE dead IS NULL "
                                   "ORDER BY queued_at, id LIMIT 1").fetchone()
        return Message(row[0], row[1], json.loads(row[2]), row[3], row[4]) if row else None

    def _settle(self, message: Message, reply: Reply, now: float) -> None:
        """Remove, bury or keep for a retry, and set when the receiver may be spoken to again."""
        if reply.ok:
            self._failures, self.last_error, self._not_before = 0, "", now + self.pace.gap_s
            self.delivered += 1
            self._change("DELETE FROM messages WHERE id = ?", message.id)
            return
        why = f"HTTP {reply.status}: {reply.text[:200]}" if reply.status else reply.text
        self.last_error = why
        if reply.permanent or now - message.queued_at > self.pace.give_up_s:
            self._not_before = now + self.pace.gap_s
            self._change("UPDATE messages SET attempts = attempts + 1, dead = ? WHERE id = ?", why, message.id)
            return
        self._failures += 1
        self._not_before = now + self._delay(reply)
        self._change("UPDATE messages SET attempts = attempts + 1 WHERE id = ?", message.id)

    def _delay(self, reply: Reply) -> float:
        """What the receiver asked for, at most an hour; else doubling, with the upper half left to chance."""
        if reply.retry_after_s is not None:
            return min(reply.retry_after_s, 3600.0)
        ceiling = min(self.pace.longest_s, self.pace.first_s * 2.0 ** min(self._failures - 1, 30))
        return float(ceiling * self._jitter.uniform(0.5, 1.0))

    def _shed(self) -> None:
        """Too much waits: the oldest go to the dead letters; of those the oldest are deleted."""
        over = self.waiting() - self.pace.max_waiting
        if over > 0:
            self._db.execute("UPDATE messages SET dead = 'the outbox was full' WHERE id IN (SELECT id FROM messages "
                             "WHERE dead IS NULL ORDER BY queued_at, id LIMIT ?)", (over,))
        self._db.execute("DELETE FROM messages WHERE id IN (SELECT id FROM messages WHERE dead IS NOT NULL ORDER BY id DESC "
                         "LIMIT -1 OFFSET ?)", (self.pace.max_dead,))

    def _change(self, sql: str, *given: Any) -> None:
        with self._mutex:
            self._db.execute(sql, given)
