"""Appends to the audit record: goes on where the last run ended, begins new segments, and drops the oldest and says so."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from aiops.chain import BEGINNING, BrokenLine, Draft, parse, seal, seconds, segment_name, segments

DAEMON = {"role": "daemon", "name": "aiops"}
SEGMENT_BYTES = 16 << 20
APPEND = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


class AuditFile:
    """One writer at a time; not thread-safe. Never raises: a disk that refuses is told by `problem`, and tried again.

    max_bytes: of all segments; keep_s: segments that ended longer ago than this go, too (each spans a 24th of it at most).
    seq, head: number and hash of the last entry. lost: entries that could not be written and are not yet told of in it,
    lost_ever: since the start.
    """

    def __init__(self, folder: Path, max_bytes: int = 256 << 20, keep_s: float = math.inf) -> None:
        self.folder, self._keep_s = folder, keep_s
        self._segment = min(SEGMENT_BYTES, max_bytes // 4)
        self._keep_bytes = max_bytes - self._segment
        self.seq, self.head = 0, BEGINNING
        self.lost, self.lost_ever, self.problem, self.why_lost = 0, 0, "", ""
        self._fd: int | None = None
        self._size, self._began, self._dirty = 0, math.inf, False
        self._cut: dict[str, Any] | None = None

    def write(self, drafts: Sequence[Draft], durable: bool = False) -> bool:
        """Appends entries; durable: they are on disk when this returns. False where that cannot be said of all of them."""
        try:
            if self._fd is None:
                self._open()
            if drafts:
                self._rotate(drafts[0].at)
                self._append([*self._owed(drafts[0].at), *drafts])
                self.lost, self.why_lost, self._cut = 0, "", None
            if durable:
                self.sync()
        except OSError as e:
            self._give_up(e, len(drafts))
            return False
        self.problem = ""
        return True

    def sync(self) -> None:
        """What was appended is on disk when this returns. Raises OSError."""
        if self._fd is not None and self._dirty:
            os.fsync(self._fd)
            self._dirty = False

    def close(self) -> None:
        """Everything to disk."""
        try:
            self.sync()
        except OSError as e:
            self._give_up(e, 0)
        self._shut()

    # --------------------------------------------------------------------------------------------------------- inside
    def _append(self, drafts: Sequence[Draft]) -> None:
        """All of them in one piece; `seq` and `head` move on only where it was written."""
        lines, seq, head = [], self.seq, self.head
        for draft in drafts:
            seq += 1
            line, head = seal(draft, seq, head)
            lines.append(line)
        data = b"".join(lines)
        assert self._fd is not None
        self._dirty = True
        self._size += len(data)
        while data:
            data = data[os.write(self._fd, data):]
        self.seq, self.head = seq, head
        self._began = min(self._began, drafts[0].at)

    def _owed(self, at: float) -> Iterator[Draft]:
        """What must be said first: what a kill tore off, and what a full disk kept from being written."""
        if self._cut:
            yield Draft(at, "repaired", DAEMON, self._cut)
        if self.lost:
            yield Draft(at, "lost", DAEMON, {"entries": self.lost, "why": self.why_lost})

    def _give_up(self, why: OSError, count: int) -> None:
        """The segment is looked at again before the next entry: nobody knows how much of this one is in it."""
        self.lost += count
        self.lost_ever += count
        self.problem = self.why_lost = f"{self.folder}: the audit record cannot be written: {(why.strerror or str(why)).lower()}"
        self._shut()

    def _shut(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            try:
                os.close(fd)
            except OSError as e:
                self.problem = f"{self.folder}: {e.strerror}"

    # ------------------------------------------------------------------------------------------------- going on
    def _open(self) -> None:
        """Finds the end of the chain; cuts off the line that a kill tore. Raises OSError."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        paths = segments(self.folder)
        ends = (end for path in reversed(paths) if (end := _last(path)))
        end = next(ends, None)
        self.seq, self.head = (end["seq"], end["hash"]) if end else (0, BEGINNING)
        path = paths[-1] if paths else self.folder / segment_name(1)
        torn = _torn(path) if paths else b""
        self._fd = os.open(path, APPEND, 0o600)
        self._size = os.fstat(self._fd).st_size - len(torn)
        if torn:
            os.ftruncate(self._fd, self._size)
            self._cut = {"file": path.name, "bytes": len(torn), "sha256": hashlib.sha256(torn).hexdigest()}
        first = _first(path)
        self._began = seconds(first) if first else math.inf
        self._dirty = True
        self._sync_folder()

    def _rotate(self, at: float) -> None:
        """A new segment where the present one is full or spans too long; then the oldest go. Raises OSError."""
        if not self._size or (self._size < self._segment and at - self._began < self._keep_s / 24):
            return
        self.sync()
        fd = os.open(self.folder / segment_name(self.seq + 1), APPEND | os.O_EXCL, 0o600)
        self._shut()
        self._fd, self._size, self._began = fd, 0, math.inf
        self._sync_folder()
        self._expire(at)

    def _expire(self, at: float) -> None:
        """Says of each segment that must go with which entry and hash it ended; it is deleted when that is on disk."""
        closed = segments(self.folder)[:-1]
        total = sum(p.stat().st_size for p in closed)
        for path, after in pairwise(closed):
            begin = _first(after)
            old = begin is not None and at - seconds(begin) > self._keep_s
            if begin is None or not (old or total > self._keep_bytes):
                return
            total -= path.stat().st_size
            told = {"file": path.name, "last": begin["seq"] - 1, "hash": begin["prev"], "why": "age" if old else "size"}
            self._append([Draft(at, "dropped", DAEMON, told)])
            self.sync()
            path.unlink()

    def _sync_folder(self) -> None:
        """The name of a new file is on disk, too."""
        fd = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _first(path: Path) -> dict[str, Any] | None:
    with path.open("rb") as file:
        return _entry(file.readline().removesuffix(b"\n"))


def _last(path: Path) -> dict[str, Any] | None:
    """The last line of a segment that is an entry; None where there is none."""
    whole = path.read_bytes().rpartition(b"\n")[0]
    return next((e for line in reversed(whole.split(b"\n")) if (e := _entry(line))), None)


def _torn(path: Path) -> bytes:
    """What stands after the last newline."""
    return path.read_bytes().rpartition(b"\n")[2]


def _entry(line: bytes) -> dict[str, Any] | None:
    try:
        return parse(line)
    except BrokenLine:
        return None
