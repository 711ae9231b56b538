"""The systemd journal, kernel lines included, by `journalctl` as a child process that follows it.

Nothing but the pipe lies between: where more comes than is read or taken, journalctl waits. Its own backoff is that of
the source: a child that ended is told, and started again with the next poll, behind the last line that was handed on. How
far the poll before came is written down at the beginning of each: an ordered restart repeats nothing, a kill the lines of
the last poll.
https://www.freedesktop.org/software/systemd/man/latest/journalctl.html, https://systemd.io/JOURNAL_EXPORT_FORMATS/
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import subprocess
import tempfile
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import msgspec

from aiops.interfaces import Samples
from aiops.sources.access import SourceError
from aiops.sources.journald.entries import CURSOR, FIELDS, Entries, Entry
from aiops.sources.logs.lines import FULL
from aiops.sources.offsets import Place, note
from aiops.types import LogLine

MAX_LINES = 50_000
MAX_ENTRY = 1024 * 1024
PIPE_BYTES = 1024 * 1024
QUIET_MS = 50
"""journalctl is asked for more until nothing came for so long."""
END_S, ASK_S = 2.0, 10.0
_RIGHTS = "Check units and directory of the journald source, and the rights to read the journal (group systemd-journal)."
PRIORITIES = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")


class JournaldSource:
    """The journal of this machine, or of `directory`. Kernel lines belong to `node//HOST`, others to `process/HOST/UNIT`.

    units: only these (and the kernel), all when empty. priority: only what is at least so bad. node: the name of the machine,
    else what each line says. `rejected` counts by reason: too_long (cut), undecodable (repaired), malformed, empty.
    """

    def __init__(self, name: str = "journald", interval_s: float = 10.0, *, units: Sequence[str] = (), priority: str = "info",
                 directory: Path | None = None, node: str | None = None, place: Path | None = None,
                 program: str = "journalctl") -> None:
        self.name, self.interval_s = name, interval_s
        self._units, self._priority, self._directory = tuple(units), priority, directory
        self._program = program
        self._child: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] | None = None
        self._rest, self._skipping = b"", False
        self._left: deque[bytes] = deque()
        self._next: tuple[str, LogLine | None] | None = None
        self._place = Place(place)
        self.rejected: Counter[str] = Counter()
        self._entries = Entries(node, self.rejected)
        self.notes: dict[str, str] = {}
        self._cursor, self._since = self._restored()

    def poll(self, now: float, into: Samples) -> None:
        """The lines that came since the last poll, at most 50,000. Raises SourceError where journalctl does not run."""
        if self._since is None:
            self._since = now
        self._save()
        child = self._child or self._start()
        note(self.notes, "full", not self._hand_on(child, now, into), FULL)
        if _events(child, 0) == select.POLLHUP:
            self._ended(child)

    def newest(self) -> float | None:
        """When the newest line was written that would be read, None where there is none. Raises SourceError."""
        try:
            done = subprocess.run(self._asking("--lines=1"), stdin=subprocess.DEVNULL, capture_output=True,  # noqa: S603 - as below
                                  timeout=ASK_S)
        except subprocess.TimeoutExpired:
            raise SourceError(self._program, f"gave no line within {ASK_S:.0f} s.", "Is the journal damaged? journalctl --verify "
                              "tells.") from None
        except OSError as e:
            raise self._not_started(e) from None
        said = " ".join(done.stderr.decode("utf-8", "replace").split())
        if done.returncode or "No journal files" in said or "not seeing messages" in said:
            raise SourceError(self._program, f"{said[:300].rstrip('.') or 'it failed'}.", _RIGHTS)
        try:
            return int(msgspec.json.decode(done.stdout, type=Entry).time) / 1e6
        except (msgspec.DecodeError, ValueError):
            return None

    def close(self) -> None:
        """Ends the child, and writes down how far it came."""
        self._save()
        self._stop()

    # ------------------------------------------------------------------------------------------------------- the child
    def _start(self) -> subprocess.Popen[bytes]:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - the child writes to it; closed by _stop
        try:
            child = subprocess.Popen(self._command(), stdin=subprocess.DEVNULL,  # noqa: S603 - no shell, arguments are checked
                                     stdout=subprocess.PIPE, stderr=self._said, start_new_session=True)
        except OSError as e:
            self._stop()
            raise self._not_started(e) from None
        assert child.stdout is not None
        os.set_blocking(child.stdout.fileno(), False)
        with contextlib.suppress(OSError):  # a smaller pipe does as well
            fcntl.fcntl(child.stdout.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._child, self._rest, self._skipping = child, b"", False
        self._left.clear()  # the child tells them again, from behind the cursor
        self._next = None
        return child

    def _not_started(self, error: OSError) -> SourceError:
        return SourceError(self._program, f"cannot be started: {(error.strerror or str(error)).lower()}.",
                           "Install systemd's journalctl, or follow files with a logs source.")

    def _command(self) -> list[str]:
        where = f"--after-cursor={self._cursor}" if self._cursor else f"--since=@{self._since:.0f}"
        return self._asking("--follow", "--no-tail", where)

    def _asking(self, *how: str) -> list[str]:
        command = [self._program, "--all", "--output=json", f"--output-fields={FIELDS}", "--no-pager",
                   f"--priority={self._priority}", *how]
        if self._directory is not None:
            command.append(f"--directory={self._directory}")
        units = [f"_SYSTEMD_UNIT={u}" for u in self._units]
        return [*command, *units, "+", "_TRANSPORT=kernel"] if units else command

    def _ended(self, child: subprocess.Popen[bytes]) -> None:
        """A child that ended by itself. A cursor that it did not understand is given up."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(END_S)
        said = ""
        if self._said is not None:
            self._said.seek(0)
            said = " ".join(self._said.read(2000).decode("utf-8", "replace").split())
        self._stop()
        if "cursor" in said.lower():
            self._cursor = ""
            self.notes["cursor"] = "journald: the place of the last run is not understood; lines may come again"
        raise SourceError(self._program, f"ended with {child.returncode}: {said[:300] or 'it said nothing'}.",
                          _RIGHTS)

    def _stop(self) -> None:
        """By its process id: nobody else is asked to end."""
        child, self._child = self._child, None
        if child is not None:
            child.terminate()
            try:
                child.wait(END_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            if child.stdout is not None:
                child.stdout.close()
        if self._said is not None:
            self._said.close()
            self._said = None

    # ------------------------------------------------------------------------------------------------------- the lines
    def _hand_on(self, child: subprocess.Popen[bytes], now: float, into: Samples) -> bool:
        """Line by line, so that no more is read than is taken. False where one was not: it is the first of the next poll."""
        for _ in range(MAX_LINES):
            if self._next is None:
                if not self._left and not self._read(child):
                    return True
                self._next = self._entries.line(self._left.popleft(), now)
            cursor, line = self._next
            if line is not None and not into.line(line):
                return False
            self._cursor, self._next = cursor or self._cursor, None
        return True

    def _read(self, child: subprocess.Popen[bytes]) -> bool:
        """The next whole lines of JSON; False where nothing came for a moment. One longer than a MiB is left out."""
        assert child.stdout is not None
        while not self._left and _events(child, QUIET_MS) & select.POLLIN:
            chunk = os.read(child.stdout.fileno(), 256 * 1024)
            if not chunk:
                break
            found = (self._rest + chunk).split(b"\n")
            self._rest = found.pop()
            if self._skipping and found:
                del found[0]
                self._skipping = False
            self._left += found
            if self._skipping or len(self._rest) > MAX_ENTRY:
                self.rejected["too_long"] += not self._skipping
                self._rest, self._skipping = b"", True
        return bool(self._left)

    # ------------------------------------------------------------------------------------------------------- the place
    def _restored(self) -> tuple[str, float | None]:
        saved = self._place.load()
        if self._place.problem:
            self.notes["begin"] = self._place.problem
        if not isinstance(saved, dict):
            return "", None
        cursor, since = saved.get("cursor"), saved.get("since")
        return (cursor if isinstance(cursor, str) and CURSOR.fullmatch(cursor) else "",
                float(since) if isinstance(since, int | float) and 0 <= since < 1e11 else None)

    def _save(self) -> None:
        if self._since is not None:
            self._place.save({"cursor": self._cursor, "since": self._since})
        note(self.notes, "place", bool(self._place.problem), self._place.problem)


def _events(child: subprocess.Popen[bytes], wait_ms: int) -> int:
    """POLLIN where there is something to read, POLLHUP where nobody writes any more, 0 after `wait_ms` without either."""
    assert child.stdout is not None
    ready = select.poll()
    ready.register(child.stdout.fileno(), select.POLLIN)
    return next((event for _, event in ready.poll(wait_ms)), 0)
