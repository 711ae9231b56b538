"""One log file that is being read while others write, rotate and truncate it.

A file is known by its device, its inode and a fingerprint of its first bytes: a name is given to another file at every
rotation, and an inode is used again soon after a file was removed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from aiops.sources.logs.lines import MAX_LINE_BYTES, LineReader
from aiops.types import LogLine

HEAD_BYTES = 256
CHUNK = 256 * 1024
MAX_BYTES = 64 * 1024 * 1024
"""At most so much of one file is read in one poll."""
Key = tuple[int, int]
Use = Callable[[list[bytes]], int]
"""Takes lines, and says how many of them."""
PACKED = (".gz", ".bz2", ".xz", ".zst", ".lz4", ".zip", ".Z")
_MAGIC = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18", b"PK\x03\x04", b"\x1f\x9d")


@dataclass(slots=True)
class Tail:
    """A file and how far it has been read. `rest`: the last line as far as it was written; `skipping`: inside one too long.

    `seen`, `stat`: size and time of the last change when it was read, and as they are now.
    `held`: what was read and not taken; nothing more is read before it is.
    `left`: the polls since another file took its place (or none did), None while it is the one at `path`.
    """

    path: str
    key: Key
    entity: str
    reader: LineReader
    offset: int = 0
    head_size: int = 0
    head: str = ""
    rest: bytes = b""
    skipping: bool = False
    fd: int = -1
    seen: tuple[int, int] = (-1, -1)
    stat: tuple[int, int] = (-1, -1)
    left: int | None = None
    held: LogLine | None = None

    # ------------------------------------------------------------------------------------------------- open and closed
    def open(self) -> bool:
        """Open the file, under another name in its folder if it was renamed. False where it is gone. Raises OSError."""
        if self.fd >= 0:
            return True
        for path in (self.path, located(self.path, self.key)):
            if not path:
                continue
            try:
                fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            if identity(os.fstat(fd)) == self.key:
                self.fd = fd
                return True
            os.close(fd)
        return False

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    @property
    def idle(self) -> bool:
        """Whether there is nothing to look for in it."""
        return self.left is None and self.stat == self.seen and self.offset >= self.stat[0] and not (
            self.reader.waiting or self.held)

    # -------------------------------------------------------------------------------------------------------- reading
    def read(self, most: int, use: Use) -> tuple[int, bool]:
        """Hand at most `most` lines written since the last call to `use`; how many, and whether more is there. Raises OSError."""
        now = shape(os.fstat(self.fd))
        if now == self.seen and self.offset >= now[0]:
            return 0, False
        restarted = now[0] < self.offset or not self._same_head()
        self.seen = now
        count = use(self._restarted()) if restarted else 0
        more = True
        for _ in range(MAX_BYTES // CHUNK):
            if count >= most or self.held:
                break
            chunk = os.pread(self.fd, CHUNK, self.offset)
            if not chunk:
                more = False
                break
            count += self._use(chunk, most - count, use)
        self._fingerprint()
        return count, more

    def _use(self, chunk: bytes, most: int, use: Use) -> int:
        """What `use` leaves of the chunk is read again with the next poll."""
        before = self.offset, self.rest, self.skipping
        lines = self._split(chunk, most)
        used = use(lines)
        if used < len(lines):
            self.offset, self.rest, self.skipping = before
            self._split(chunk, used)
        return used

    def to_end(self) -> None:
        """What was written up to now is no news."""
        self.offset = os.fstat(self.fd).st_size
        self._fingerprint()

    def last_words(self) -> list[bytes]:
        """The unfinished line of a file to which nobody writes any more."""
        rest, self.rest = self.rest, b""
        return [rest] if rest and not self.skipping else []

    def _split(self, chunk: bytes, most: int) -> list[bytes]:
        self.offset += len(chunk)
        if not self.rest and chunk[:1] == b"\0":  # the hole that a truncation under an open file leaves
            chunk = chunk.lstrip(b"\0")
        lines = (self.rest + chunk).split(b"\n")
        self.rest = lines.pop()
        if self.skipping and lines:
            del lines[0]
            self.skipping = False
        if len(lines) > most:
            unread = sum(map(len, lines[most:])) + len(lines) - most + len(self.rest)
            self.offset, self.rest, lines = self.offset - unread, b"", lines[:most]
        if self.skipping:
            self.rest = b""
        elif len(self.rest) > MAX_LINE_BYTES and len(lines) < most:
            lines.append(self.rest)
            self.rest, self.skipping = b"", True
        return lines

    def _restarted(self) -> list[bytes]:
        """Truncated in place, as logrotate's copytruncate does: what was not a whole line yet will not become one."""
        lines = self.last_words()
        self.offset, self.skipping, self.head_size, self.head = 0, False, 0, ""
        return lines

    # ---------------------------------------------------------------------------------------------------- fingerprint
    def _same_head(self) -> bool:
        return not self.head_size or digest(os.pread(self.fd, self.head_size, 0)) == self.head

    def _fingerprint(self) -> None:
        if self.head_size < HEAD_BYTES:
            head = os.pread(self.fd, HEAD_BYTES, 0)
            self.head_size, self.head = len(head), digest(head)

    def packed(self) -> bool:
        """Whether it is a compressed file, which nobody appends lines to."""
        return os.pread(self.fd, 8, 0).startswith(_MAGIC)

    # ---------------------------------------------------------------------------------------------------------- state
    def state(self) -> dict[str, Any]:
        """Where to go on, as plain JSON. The unfinished line is read again."""
        return {"path": self.path, "entity": self.entity, "device": self.key[0], "inode": self.key[1],
                "offset": self.offset - len(self.rest), "head_size": self.head_size, "head": self.head,
                "skipping": self.skipping, "reader": self.reader.state(),
                "held": [self.held.time, self.held.text] if self.held else None}

    def resume(self, state: Mapping[str, Any]) -> bool:
        """Go on from a `state` if this is the file that it is about. Raises OSError; ValueError, TypeError… for no state."""
        size, offset = int(state["head_size"]), int(state["offset"])
        if not self.open() or not 0 <= offset <= os.fstat(self.fd).st_size or not 0 <= size <= HEAD_BYTES:
            return False
        if size and digest(os.pread(self.fd, size, 0)) != state["head"]:
            return False
        self.reader.restore(state["reader"])
        self.entity = str(state["entity"])
        if held := state.get("held"):
            self.held = LogLine(float(held[0]), self.entity, str(held[1]))
        self.offset, self.head_size, self.head, self.skipping = offset, size, str(state["head"]), bool(state["skipping"])
        return True


def identity(found: os.stat_result) -> Key:
    """What tells one file from another whatever its name."""
    return found.st_dev, found.st_ino


def shape(found: os.stat_result) -> tuple[int, int]:
    """What changes when a file is written to: size in bytes, time in nanoseconds."""
    return found.st_size, found.st_mtime_ns


def regular(path: str) -> os.stat_result | None:
    """The stat of a plain file that is not compressed by its name, else None."""
    if path.endswith(PACKED):
        return None
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return found if stat.S_ISREG(found.st_mode) else None


def located(path: str, key: Key) -> str:
    """The name that a file has in the folder of its old name, "" for none."""
    try:
        with os.scandir(os.path.dirname(path) or ".") as entries:  # noqa: PTH120
            for entry in entries:
                if entry.inode() == key[1] and identity(entry.stat()) == key:
                    return entry.path
    except OSError:
        pass
    return ""


def digest(head: bytes) -> str:
    return blake2b(head, digest_size=8).hexdigest()
