"""Opening a SQLite file: one owner, schema by number, and a broken file is set aside instead of stopping the daemon.

One process writes, over one connection, and that same connection checkpoints; readers open read-only
(https://www.sqlite.org/wal.html). `synchronous=FULL`: what was committed survives a power cut, not only `kill -9`.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import IO

SCHEMA = Path(__file__).with_name("schema")


class StoreError(Exception):
    """The store cannot be used; the text says where and what to do."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A writer connection, the lock that keeps other daemons out, and what a person should know about the opening."""

    connection: sqlite3.Connection
    lock: IO[str]
    notice: str = ""


def open_writer(path: Path) -> Opened:
    """The file as its only writer, created or brought to the newest schema. Raises StoreError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _lock(path)
    except OSError as e:
        raise StoreError(f"{path}: cannot be written: {e.strerror or e}. "
                         "Name a folder that the daemon owns in 'store'.") from e
    try:
        return _open_or_replace(path, lock)
    except BaseException:
        lock.close()
        raise


def open_reader(path: Path) -> sqlite3.Connection:
    """A connection that cannot write; cheap enough to open for one question."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)
    connection.row_factory = sqlite3.Row
    return connection


def _lock(path: Path) -> IO[str]:
    handle = path.with_name(path.name + ".lock").open("a+")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.seek(0)
        owner = handle.read().strip() or "unknown"
        handle.close()
        raise StoreError(f"{path}: used by another aiops (process {owner}). Stop it or set another 'store'.") from None
    handle.seek(0)
    handle.truncate()
    handle.write(str(os.getpid()))
    handle.flush()
    return handle


def _open_or_replace(path: Path, lock: IO[str]) -> Opened:
    try:
        return Opened(_connect(path), lock)
    except sqlite3.OperationalError as e:
        raise StoreError(f"{path}: cannot be opened: {e}. Check the file's owner and the free space.") from e
    except sqlite3.DatabaseError as e:
        aside = _set_aside(path)
        notice = (f"{path}: the incident store was damaged ({e}); it was moved to {aside}, a new one was started. "
                  "Earlier incidents are in the moved file only.")
        return Opened(_connect(path), lock, notice)


def _connect(path: Path) -> sqlite3.Connection:
    path.touch(mode=0o600)
    connection = sqlite3.connect(path, timeout=5.0, check_same_thread=False, isolation_level=None)
    try:
        connection.row_factory = sqlite3.Row
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=5000"):
            connection.execute(f"PRAGMA {pragma}")
        problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise sqlite3.DatabaseError(problem)
        _migrate(path, connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _migrate(path: Path, connection: sqlite3.Connection) -> None:
    """Run the numbered files that this database has not seen; each is one transaction."""
    scripts = sorted(SCHEMA.glob("*.sql"))
    have = connection.execute("PRAGMA user_version").fetchone()[0]
    if have > len(scripts):
        raise StoreError(f"{path}: written by a newer aiops (schema {have}, known here: {len(scripts)}). "  # noqa: S608
                         "Update aiops, or set another 'store'.")
    for number, script in enumerate(scripts[have:], start=have + 1):
        text = script.read_text(encoding="utf-8")
        connection.executescript(f"BEGIN IMMEDIATE;\n{text}\nPRAGMA user_version={number};\nCOMMIT;")


def _set_aside(path: Path) -> Path:
    """Move the file with its write-ahead log to the first free name `NAME.damaged-N`."""
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    path.rename(aside)
    for suffix in ("-wal", "-shm"):
        side = path.with_name(path.name + suffix)
        if side.exists():
            side.rename(aside.with_name(aside.name + suffix))
    return aside
