"""Follows log files as `tail -F` does: by path pattern, over rotation and truncation, with bounded memory.

Files that are already there when a pattern is first looked at are followed from their end (`from_start` reads them
whole); files that appear later are read from their beginning. Offsets survive a restart through `state` and `restore`.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from aiops.interfaces import Samples
from aiops.types import Entity, LogLine

MAX_LINE_BYTES = 16 * 1024
MAX_LINES = 20_000
MAX_FILES = 500
MAX_FIELD_CHARS = 200
CHUNK = 256 * 1024
_TEXT_KEYS = ("message", "msg", "log")
_LEVEL_KEYS = ("level", "lvl", "severity")
_KUBELET = re.compile(r"(?P<pod>[^_/]+)_(?P<namespace>[^_/]+)_(?P<container>.+)-[0-9a-f]{64}\.log")
_CRI = re.compile(r"\d{4}-\d\d-\d\dT\S+ (stdout|stderr) (?P<flag>[PF]) ?(?P<text>.*)", re.DOTALL)


@dataclass(slots=True)
class _File:
    """A file being followed. `rest`: the last line as far as it has been written. `skipping`: inside a line too long."""

    path: str
    inode: int
    offset: int = 0
    handle: BinaryIO | None = None
    rest: bytes = b""
    skipping: bool = False

    def close(self) -> None:
        if self.handle:
            self.handle.close()
            self.handle = None


class LogFileSource:
    """Log lines of files. Each line belongs to `entity` where that is given, else to what the path says.

    paths are glob patterns (`**` allowed). Kubelet paths `/var/log/containers/POD_NAMESPACE_CONTAINER-ID.log` become
    `pod/NAMESPACE/POD`; any other becomes `service//STEM`. `entity` may use `{stem}` and `{parent}` of the path.
    `dropped` counts by reason what was left out: too_long, too_many (left for the next poll), undecodable (repaired).
    """

    def __init__(self, paths: Sequence[str], name: str = "logs", interval_s: float = 5.0, *, entity: str = "",
                 from_start: bool = False) -> None:
        self.name, self.interval_s = name, interval_s
        self._patterns, self._entity, self._from_start = tuple(paths), entity, from_start
        self._files: dict[str, _File] = {}
        self._known: dict[str, tuple[int, int]] = {}
        self._looked = False
        self._turn = 0
        self.dropped: dict[str, int] = {}
        self.notes: dict[str, str] = {}

    def poll(self, now: float, into: Samples) -> None:
        """Every whole line written since the last poll, with time `now`, at most 20,000 a poll over all files."""
        self._find()
        left = MAX_LINES
        paths = sorted(self._files)
        first = self._turn % max(1, len(paths))
        for i, path in enumerate([*paths[first:], *paths[:first]]):
            entity = self._entity_of(path)
            for text in self._lines(self._files[path], left):
                into.line(LogLine(now, entity, text))
                left -= 1
            if left <= 0:  # the rest comes with the next poll, which begins with the next file
                self._count("too_many")
                self._turn = first + i + 1
                return

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def state(self) -> dict[str, Any]:
        """path -> [inode, offset of the first line not yet handed over]."""
        return {f.path: [f.inode, f.offset - len(f.rest)] for f in self._files.values()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where a `state` left off; what is not understood is ignored."""
        for path, place in state.items():
            if isinstance(place, list | tuple) and len(place) == 2 and all(isinstance(n, int) for n in place):
                self._known[path] = (place[0], place[1])

    # ------------------------------------------------------------------------------------------------ which files
    def _find(self) -> None:
        found = sorted({p for pattern in self._patterns for p in glob.glob(pattern, recursive=True)})  # noqa: PTH207
        for path in found:
            if path not in self._files and len(self._files) < MAX_FILES:
                self._add(path)
        if len(found) > MAX_FILES:
            self.notes["files"] = f"{len(found)} files match; only {MAX_FILES} are followed. Narrow the patterns."
        if not found:
            self.notes["none"] = f"no file matches {', '.join(self._patterns)}"
        else:
            self.notes.pop("none", None)
        for path in [p for p, f in self._files.items() if p not in found and f.handle is None]:
            del self._files[path]
        self._looked = True

    def _add(self, path: str) -> None:
        try:
            stat = os.stat(path)  # noqa: PTH116
        except OSError:
            return
        if not os.path.isfile(path):  # noqa: PTH113
            return
        inode, offset = self._known.pop(path, (0, -1))
        if inode != stat.st_ino or not 0 <= offset <= stat.st_size:
            new = self._looked or self._from_start or inode
            offset = 0 if new else stat.st_size
        self._files[path] = _File(path, stat.st_ino, offset)

    # ------------------------------------------------------------------------------------------------- which lines
    def _lines(self, file: _File, most: int) -> Iterator[str]:
        """At most `most` new lines; first the rest of a file that was rotated away, then the new file of that path."""
        if not self._open(file):
            return
        for text in self._read(file, most):
            most -= 1
            yield text
        if most > 0 and self._replaced(file):
            if file.rest:
                yield self._text(file.rest)
                file.rest = b""
            file.close()
            file.offset, file.skipping = 0, False
            if self._open(file):
                yield from self._read(file, most)

    def _open(self, file: _File) -> bool:
        if file.handle is not None:
            return True
        try:
            file.handle = open(file.path, "rb")  # noqa: PTH123, SIM115 - stays open between polls, closed by close()
            file.inode = os.fstat(file.handle.fileno()).st_ino
        except OSError as e:
            self.notes[file.path] = f"{file.path}: cannot be read: {(e.strerror or str(e)).lower()}"
            return False
        self.notes.pop(file.path, None)
        return True

    def _replaced(self, file: _File) -> bool:
        """True when another file has this path now, or none; what is left in the old one has been read."""
        try:
            return os.stat(file.path).st_ino != file.inode  # noqa: PTH116
        except OSError:
            file.close()
            return False

    def _read(self, file: _File, most: int) -> Iterator[str]:
        assert file.handle is not None
        size = os.fstat(file.handle.fileno()).st_size
        if size < file.offset:  # truncated in place, as logrotate's copytruncate does
            file.offset, file.rest, file.skipping = 0, b"", False
        while most > 0:
            file.handle.seek(file.offset)
            chunk = file.handle.read(CHUNK)
            if not chunk:
                return
            file.offset += len(chunk)
            lines = (file.rest + chunk).split(b"\n")
            file.rest = lines.pop()
            if len(lines) > most:
                unread = b"\n".join([*lines[most:], file.rest])
                file.offset, file.rest, lines = file.offset - len(unread), b"", lines[:most]
            for raw in lines:
                if not self._cut(file, raw):
                    most -= 1
                    yield self._text(raw)
            if len(file.rest) > MAX_LINE_BYTES:
                if not file.skipping:
                    most -= 1
                    yield self._text(file.rest)
                file.rest, file.skipping = b"", True

    def _cut(self, file: _File, raw: bytes) -> bool:
        """True for what is only the tail of a line of which the beginning was handed over already."""
        tail, file.skipping = file.skipping, False
        return tail or not raw.strip()

    def _text(self, raw: bytes) -> str:
        raw = raw.rstrip(b"\r")
        if len(raw) > MAX_LINE_BYTES:
            self._count("too_long")
            raw = raw[:MAX_LINE_BYTES]
        text = raw.decode("utf-8", "replace")
        if "�" in text:
            self._count("undecodable")
        return plain(text)

    def _entity_of(self, path: str) -> Entity:
        p = Path(path)
        if self._entity:
            return self._entity.replace("{stem}", p.stem).replace("{parent}", p.parent.name)
        kubelet = _KUBELET.fullmatch(p.name)
        return f"pod/{kubelet['namespace']}/{kubelet['pod']}" if kubelet else f"service//{p.stem}"

    def _count(self, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1


def plain(text: str) -> str:
    """A line as a person would read it: without the container runtime's frame, and out of JSON `LEVEL message error`."""
    framed = _CRI.fullmatch(text)
    if framed:
        text = framed["text"]
    if not text.startswith("{") or not text.rstrip().endswith("}"):
        return text
    import msgspec
    try:
        fields = msgspec.json.decode(text.encode())
    except (msgspec.DecodeError, RecursionError):
        return text
    message = next((str(fields[k]) for k in _TEXT_KEYS if fields.get(k)), "") if isinstance(fields, dict) else ""
    if not message:
        return text
    level = next((str(fields[k]).upper() for k in _LEVEL_KEYS if isinstance(fields.get(k), str)), "")
    error = str(fields.get("error") or fields.get("err") or "")[:MAX_FIELD_CHARS]
    return " ".join(part for part in (level, message.rstrip("\n"), error) if part)
