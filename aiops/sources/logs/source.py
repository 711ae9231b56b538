"""Follows log files as `tail -F` does: by path pattern, over rotation and truncation, with bounded memory.

Files that are there when the daemon starts for the first time are followed from their end (`from_start` reads them whole);
files that appear later are read from their beginning. After a restart each file is read on where it was left.

How sure that is: at the beginning of each poll it is written down how far the last one came. An ordered end loses nothing
and repeats nothing. After `kill -9` nothing is lost, and the lines of the last poll may come twice.
"""

from __future__ import annotations

import glob
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Any

from aiops.interfaces import Samples
from aiops.sources.logs.lines import FULL, MAX_LINE_BYTES, Entry, LineReader, plain
from aiops.sources.logs.tail import Key, Tail, identity, regular, shape
from aiops.sources.offsets import Place, note
from aiops.types import Entity, LogLine

__all__ = ["MAX_LINE_BYTES", "LogFileSource", "plain"]

MAX_LINES = 50_000
MAX_FILES = 5_000
MAX_OPEN = 200
LINGER_POLLS = 2
"""A file that was renamed is still written to for a moment: until nothing came in so many polls."""
_BAD_STATE = (KeyError, TypeError, ValueError, AttributeError)
_POD = re.compile(r".*/pods/([^_/]+)_([^_/]+)_[^_/]+/[^/]+/[^/]+$")
_KUBELET = re.compile(r"(?P<pod>[^_/]+)_(?P<namespace>[^_/]+)_(?P<container>.+)-[0-9a-f]{64}\.log")


class LogFileSource:
    """Log lines of files. Each line belongs to `entity` where that is given, else to what the path says.

    paths are glob patterns (`**` allowed). `…/pods/NAMESPACE_POD_UID/CONTAINER/N.log` and
    `…/POD_NAMESPACE_CONTAINER-ID.log` become `pod/NAMESPACE/POD`, any other `service//STEM`. `entity` may use `{stem}` and
    `{parent}` of the path. Compressed files are left alone. place: the file that keeps the offsets, None for none.
    `rejected` counts by reason: too_long (cut), undecodable and nul (repaired), behind (polls that left lines for the next one),
    rotated_away (files that were gone before they were read to the end).
    """

    def __init__(self, paths: Sequence[str], name: str = "logs", interval_s: float = 5.0, *, entity: str = "",
                 from_start: bool = False, multiline: bool = False, zone: tzinfo = UTC, place: Path | None = None) -> None:
        self.name, self.interval_s = name, interval_s
        self._patterns, self._entity, self._from_start = tuple(paths), entity, from_start
        self._multiline, self._zone = multiline, zone
        self._tails: dict[Key, Tail] = {}
        self._known: dict[Key, Mapping[str, Any]] = {}
        self._looked = self._told_before = False
        self._turn = self._open = 0
        self._place = Place(place)
        self.rejected: Counter[str] = Counter()
        self.notes: dict[str, str] = {}
        self._unread: list[str] = []
        saved = self._place.load()
        note(self.notes, "begin", bool(self._place.problem), self._place.problem)
        if saved is not None:
            self.restore(saved)

    def poll(self, now: float, into: Samples) -> None:
        """What was written since the last poll, at most 50,000 lines over all files. Times that lines do not tell are `now`."""
        self._unread.clear()
        self._find()
        self._save()
        self._hand_on_all(now, into)
        note(self.notes, "full", any(t.held for t in self._tails.values()), FULL)
        note(self.notes, "unread", bool(self._unread), f"{len(self._unread)} files cannot be read: {', '.join(self._unread[:3])}")

    def _hand_on_all(self, now: float, into: Samples) -> None:
        left, tails = MAX_LINES, self._in_turn()
        self._open = sum(t.fd >= 0 for t in tails)
        for i, tail in enumerate(tails):
            left -= self._hand_on(tail, left, now, into)
            if left <= 0 or tail.held:  # the rest comes with the next poll, which begins with the next file
                self.rejected["behind"] += 1
                self._turn += i + 1
                return

    def close(self) -> None:
        """Writes down how far everything was read; nothing where nothing was looked at yet."""
        if self._looked:
            self._save()
        for tail in self._tails.values():
            tail.close()

    def state(self) -> dict[str, Any]:
        """Where each file is read on, as plain JSON."""
        return {"patterns": list(self._patterns), "files": [t.state() for t in self._tails.values()]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where a `state` left off; what is not understood is left out and told."""
        try:
            self._told_before = tuple(state["patterns"]) == self._patterns
            self._known = {(int(f["device"]), int(f["inode"])): f for f in state["files"]}
        except _BAD_STATE:
            self._told_before, self._known = False, {}
            self.notes["begin"] = "the offsets of the last run are not understood; files are followed from their end"

    # ------------------------------------------------------------------------------------------------ which files
    def _find(self) -> None:
        found = sorted({p for pattern in self._patterns for p in glob.glob(pattern, recursive=True)})  # noqa: PTH207
        here: dict[Key, str] = {}
        for path in found:
            if (stat := regular(path)) is None or (key := identity(stat)) in here:
                continue
            here[key] = path
            if key not in self._tails and len(self._tails) < MAX_FILES:
                self._add(key, path)
            if (tail := self._tails.get(key)) is not None:
                tail.path, tail.left, tail.stat = path, None, shape(stat)
        for key, tail in self._tails.items():
            if key not in here and tail.left is None:
                tail.left = 0
        if not self._looked:
            self._find_renamed()
        self._looked = True
        note(self.notes, "files", len(here) > MAX_FILES,
                   f"{len(here)} files match; only {MAX_FILES} are followed. Narrow the patterns.")
        note(self.notes, "none", not here, f"no file matches {', '.join(self._patterns)}")

    def _add(self, key: Key, path: str) -> None:
        """A file that was not followed: from where the last run left it, else from its end, or from its beginning if new."""
        tail = self._tail(path, key)
        try:
            if not tail.open() or tail.packed():
                return
            if not self._resumed(tail, self._known.pop(key, None)) and not (
                    self._looked or self._from_start or self._told_before):
                tail.to_end()
        except OSError as e:
            self._unreadable(path, e)
            return
        finally:
            tail.close()
        self._tails[key] = tail

    def _tail(self, path: str, key: Key) -> Tail:
        reader = LineReader(multiline=self._multiline, zone=self._zone, rejected=self.rejected)
        return Tail(path, key, self._entity_of(path), reader)

    def _resumed(self, tail: Tail, state: Mapping[str, Any] | None) -> bool:
        try:
            return state is not None and tail.resume(state)
        except _BAD_STATE:
            return False

    def _find_renamed(self) -> None:
        """Files that were rotated while the daemon was down: what is left in them comes first."""
        for key, state in self._known.items():
            tail = self._tail(str(state.get("path", "")), key)
            tail.left = 0
            try:
                there = self._resumed(tail, state) and len(self._tails) < MAX_FILES
            except OSError:
                there = False
            tail.close()
            if there:
                self._tails[key] = tail
            else:
                self.rejected["rotated_away"] += 1
        self._known = {}

    def _in_turn(self) -> list[Tail]:
        """What was renamed first, then each file in its turn."""
        tails = sorted(self._tails.values(), key=lambda t: t.path)
        first = self._turn % max(1, len(tails))
        return sorted([*tails[first:], *tails[:first]], key=lambda t: t.left is None)

    # ------------------------------------------------------------------------------------------------- which lines
    def _hand_on(self, tail: Tail, most: int, now: float, into: Samples) -> int:
        """How many lines were handed on."""
        if tail.idle:
            return 0
        if tail.held and not into.line(tail.held):
            return 0
        tail.held, was_open = None, tail.fd >= 0
        try:
            if not tail.open():
                self.rejected["rotated_away"] += 1
                del self._tails[tail.key]
                return 0
            count, more = tail.read(most, lambda lines: self._take(tail, lines, now, into))
        except OSError as e:
            self._unreadable(tail.path, e)
            return 0
        if tail.held is None:
            self._finish(tail, count, more, now, into)
        if not was_open:
            self._keep_open(tail)
        return count

    def _take(self, tail: Tail, lines: Sequence[bytes], now: float, into: Samples) -> int:
        """How many of the lines were read, up to one whose entry was not taken."""
        for k, line in enumerate(lines, 1):
            if not self._offer(tail, tail.reader.entries((line,), now), now, into):
                return k
        return len(lines)

    def _offer(self, tail: Tail, entries: Iterable[Entry], now: float, into: Samples) -> bool:
        """False where one was not taken: the tail holds it until the next poll."""
        for at, text in entries:
            line = LogLine(now if at is None else at, tail.entity, text)
            if not into.line(line):
                tail.held = line
                return False
        return True

    def _keep_open(self, tail: Tail) -> None:
        """A file that is open outlives its removal; so many can be."""
        if self._open < MAX_OPEN:
            self._open += 1
        else:
            tail.close()

    def _finish(self, tail: Tail, count: int, more: bool, now: float, into: Samples) -> None:
        """After `count` lines: what waits for more that does not come; of a file that has been left all that there still is."""
        if tail.left is not None and not more:
            tail.left = 0 if count else tail.left + 1
            self._take(tail, tail.last_words(), now, into)
        if not count and tail.held is None:
            gone = tail.left is not None and tail.left > LINGER_POLLS
            if self._offer(tail, tail.reader.flush(now, parts=gone), now, into) and gone:
                tail.close()
                del self._tails[tail.key]

    def _entity_of(self, path: str) -> Entity:
        p = Path(path)
        if self._entity:
            return self._entity.replace("{stem}", p.stem).replace("{parent}", p.parent.name)
        if pod := _POD.fullmatch(path):
            return f"pod/{pod[1]}/{pod[2]}"
        kubelet = _KUBELET.fullmatch(p.name)
        return f"pod/{kubelet['namespace']}/{kubelet['pod']}" if kubelet else f"service//{p.stem}"

    # ---------------------------------------------------------------------------------------------------- the rest
    def _save(self) -> None:
        self._place.save(self.state())
        note(self.notes, "offsets", bool(self._place.problem), self._place.problem)

    def _unreadable(self, path: str, error: OSError) -> None:
        self._unread.append(f"{path}: {(error.strerror or str(error)).lower()}")
