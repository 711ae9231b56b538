"""Writing the rows of one report and reading them back. Every function works inside its caller's transaction."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from aiops import serial
from aiops.types import Action, ModelEvent, Outcome

JSON = dict[str, Any]
MODEL_EVENTS = 1000
INTERRUPTED = "the daemon restarted; it opens again if it is still wrong"
_UPSERT = """INSERT INTO incidents (id, opened_at, updated_at, closed_at, state, severity, title, body)
VALUES (?,?,?,?,?,?,?,?) ON CONFLICT (id) DO UPDATE SET
opened_at = excluded.opened_at, updated_at = excluded.updated_at, closed_at = excluded.closed_at,
state = excluded.state, severity = excluded.severity, title = excluded.title, body = excluded.body"""


def text(value: str) -> str:
    """What SQLite can hold: half a surrogate pair, which only broken input has, becomes a question mark."""
    return value.encode("utf-8", "replace").decode()


def put_incident(db: sqlite3.Connection, form: JSON) -> None:
    """Insert or replace one incident, given in the form of aiops.serial."""
    db.execute(_UPSERT, (text(form["id"]), form["opened_at"], form["updated_at"], form["closed_at"], form["state"],
                         form["severity"], text(form["title"]), json.dumps(form, default=str)))


def put_action(db: sqlite3.Connection, action: Action) -> None:
    body = json.dumps(serial.action(action), default=str)
    row = (action.id, action.incident, action.policy, action.type, action.target, action.decision)
    db.execute("INSERT OR REPLACE INTO actions VALUES (?,?,?,?,?,?,?,?)", (*(text(v) for v in row), action.at, body))


def put_outcome(db: sqlite3.Connection, outcome: Outcome) -> None:
    db.execute("INSERT OR REPLACE INTO outcomes VALUES (?,?,?,?)",
               (text(outcome.action), outcome.status, outcome.at, text(outcome.reason)))


def put_model_event(db: sqlite3.Connection, event: ModelEvent) -> None:
    """The newest MODEL_EVENTS are kept."""
    db.execute("INSERT INTO model_events (at, detector, kind, model, text) VALUES (?,?,?,?,?)",
               (event.at, event.detector, event.kind, event.model, text(event.text)))
    db.execute("DELETE FROM model_events WHERE id <= (SELECT max(id) FROM model_events) - ?", (MODEL_EVENTS,))


def model_events(db: sqlite3.Connection, limit: int) -> list[JSON]:
    """Newest first."""
    rows = db.execute("SELECT at, detector, kind, model, text FROM model_events ORDER BY id DESC LIMIT ?", (limit,))
    return [dict(row) for row in rows]


def put_facts(db: sqlite3.Connection, facts: JSON) -> None:
    for name, value in facts.items():
        db.execute("INSERT OR REPLACE INTO facts VALUES (?,?)", (name, json.dumps(value)))


def put_feedback(db: sqlite3.Connection, incident: str, verdict: str, at: float, by: str) -> bool:
    """False when no such incident is known."""
    if db.execute("SELECT 1 FROM incidents WHERE id = ?", (incident,)).fetchone() is None:
        return False
    db.execute("INSERT OR REPLACE INTO feedback VALUES (?,?,?,?)", (incident, verdict, at, text(by)))
    return True


def interrupt(db: sqlite3.Connection, at: float) -> list[JSON]:
    """Close what an earlier run left open, saying so in its timeline. Returns them as they are now."""
    left = db.execute("SELECT body FROM incidents WHERE state = 'open' ORDER BY opened_at").fetchall()
    forms = [json.loads(row["body"]) for row in left]
    for form in forms:
        form.update(state="closed", closed_at=at, updated_at=at)
        form["timeline"].append({"at": at, "kind": "interrupted", "text": INTERRUPTED})
        put_incident(db, form)
    return forms


def incidents(db: sqlite3.Connection, state: str | None, limit: int, offset: int) -> list[JSON]:
    """Newest first; the open ones first of all when no state is asked for."""
    where, given = ("WHERE state = ?", (state,)) if state else ("", ())
    order = "ORDER BY state = 'closed', opened_at DESC, id LIMIT ? OFFSET ?"
    rows = db.execute(f"SELECT body FROM incidents {where} {order}", (*given, limit, offset))  # noqa: S608
    return [json.loads(row["body"]) for row in rows]


def incident(db: sqlite3.Connection, name: str) -> JSON | None:
    """One incident with the feedback that people gave on it."""
    row = db.execute("SELECT body FROM incidents WHERE id = ?", (text(name),)).fetchone()
    if row is None:
        return None
    form: JSON = json.loads(row["body"])
    said = db.execute("SELECT verdict, at, said_by AS by FROM feedback WHERE incident = ? ORDER BY at", (text(name),))
    form["feedback"] = [dict(r) for r in said]
    return form


def expire(db: sqlite3.Connection, keep: int, keep_plots: int) -> int:
    """Delete the oldest closed incidents beyond `keep` and all that hangs on them; plots earlier. Returns how many."""
    old = ("SELECT id FROM incidents WHERE state = 'closed' ORDER BY closed_at DESC, id LIMIT -1 "
           "OFFSET max(0, ? - (SELECT count(*) FROM incidents WHERE state = 'open'))")
    db.execute(f"DELETE FROM plots WHERE incident IN ({old})", (min(keep, keep_plots),))  # noqa: S608
    doomed = [row[0] for row in db.execute(old, (keep,))]
    for name in doomed:
        db.execute("DELETE FROM outcomes WHERE action IN (SELECT id FROM actions WHERE incident = ?)", (name,))
        for table, column in (("actions", "incident"), ("feedback", "incident"), ("incidents", "id")):
            db.execute(f"DELETE FROM {table} WHERE {column} = ?", (name,))  # noqa: S608
    return len(doomed)


def stats(db: sqlite3.Connection) -> JSON:
    """How much is kept, by table."""
    counts = {t: db.execute(f"SELECT count(*) FROM {t}").fetchone()[0]  # noqa: S608
              for t in ("incidents", "actions", "outcomes", "points", "feedback")}
    counts["open"] = db.execute("SELECT count(*) FROM incidents WHERE state = 'open'").fetchone()[0]
    return counts


def facts(db: sqlite3.Connection) -> JSON:
    return {row["name"]: json.loads(row["value"]) for row in db.execute("SELECT name, value FROM facts")}
