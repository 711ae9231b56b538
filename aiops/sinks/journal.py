"""The journal: every batch that came in, as JSON lines, so that a run can be replayed bit for bit.

A folder holds segments `START-NNNNNN.jsonl`, gzip-compressed once closed. START is the start of the run: it keeps the
runs of one folder apart. Each segment starts with a header that carries all series and the topology known so far, so
that it can be read without the segments before it. A line that a kill tore off is counted, not fatal. What a run knew
when it began lies beside its segments, in `START.models`.
"""

from __future__ import annotations

import gzip
import math
import re
import shutil
import threading
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np

from aiops.links import Known, joined
from aiops.sinks.wire import End, Header, batch_from_wire, batch_to_wire
from aiops.types import Batch, Links, Series

JSON = dict[str, Any]
BEGINNINGS_SHARE = 0.25
"""Of the space for the journal, what runs knew when they began may take this much; the newest is always kept."""
_NAME = re.compile(r"(?P<run>\d{13,})-(?P<number>\d{6})\.jsonl(\.gz)?\Z")
_encode = msgspec.json.Encoder().encode


class JournalError(Exception):
    """The folder holds no journal that can be read; the text says why."""


class JournalWriter:
    """Appends batches; starts a new segment after `max_bytes` and keeps the newest `keep` segments of the folder.

    keep_bytes, keep_s: closed segments beyond this size on disk, and those that ended longer ago than this, go too. A
    segment spans at most a 24th of keep_s, so that nothing stays much longer.
    header: what belongs to the run (version, config, …); `started_at` in it (seconds) names the run and is required.
    A full disk does not raise: `write` answers False, `problem` says why, and the next batch starts a new segment.
    """

    def __init__(self, folder: Path, header: Mapping[str, Any], max_bytes: int = 64 << 20, keep: int = 48,
                 keep_bytes: float = math.inf, keep_s: float = math.inf) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        self._keep, self._keep_bytes, self._keep_s = keep, keep_bytes, keep_s
        self._at, self._began = -math.inf, -math.inf
        self._about = dict(header)
        self._run = f"{max(0, round(float(header['started_at']) * 1000)):013d}"
        self._series: dict[int, Series] = {}
        self._links: Known | None = None
        self._policies: dict[str, str] | None = None
        self._file: BinaryIO | None = None
        self._number, self._size = 0, 0
        self._packer: threading.Thread | None = None
        self.batches, self.failed, self.problem = 0, 0, ""

    @property
    def run(self) -> str:
        """The name of the run."""
        return self._run

    @property
    def beginning(self) -> Path:
        """The folder for what the run knows when it begins."""
        return self.folder / f"{self._run}.models"

    def write(self, batch: Batch) -> bool:
        """Append one batch and flush it to the system. False when it could not be written."""
        try:
            line = _encode(batch_to_wire(batch))
            self._at = batch.at
            if self._file is None or self._size >= self.max_bytes or batch.at - self._began >= self._keep_s / 24:
                self._rotate()
                self._began = batch.at
            self._put(line)
            self.batches, self.problem = self.batches + 1, ""
        except (OSError, ValueError) as e:
            self._give_up(e)
        _follow(self._series, batch)
        if batch.links is not None:
            self._links = self._links or Known()
            self._links.put(batch.links)
        self._policies = self._policies if batch.policies is None else dict(batch.policies)
        return not self.problem

    def close(self, digest: str | None = None) -> None:
        """End the run, with the digest of its verdicts when there is one, and pack the last segment."""
        try:
            if self._file is not None:
                self._put(_encode(End(self.batches, self.failed, digest)))
                self._file.close()
                self._file = None
                self._pack()
        except OSError as e:
            self._give_up(e)
        if self._packer:
            self._packer.join()

    def _rotate(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.problem:
            self._pack()
        while (path := self.folder / f"{self._run}-{self._number:06d}.jsonl").exists() or _packed(path).exists():
            self._number += 1
        self._file, self._size = path.open("xb", buffering=1 << 16), 0
        try:
            path.chmod(0o600)
            self._put(_encode(Header(1, self._number, self.failed, self._about, tuple(self._series.values()),
                                     self._links.whole() if self._links else None,
                                     self._policies)))
            self._size = 0  # a header that grew past max_bytes must not end its own segment
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        self._number += 1

    def _put(self, line: bytes) -> None:
        assert self._file is not None
        self._file.write(line + b"\n")
        self._file.flush()
        self._size += len(line) + 1

    def _give_up(self, why: OSError | ValueError) -> None:
        """Leave the segment as it is (a reader counts the torn line) and begin another with the next batch."""
        self.failed += 1
        self.problem = f"{self.folder}: the journal cannot be written: {getattr(why, 'strerror', None) or why}"
        file, self._file = self._file, None
        try:
            if file is not None:
                file.close()
        except OSError:
            self.problem += " (and not closed)"

    def _pack(self) -> None:
        """Compress and expire closed segments beside the run, one packer at a time."""
        if self._packer and self._packer.is_alive():
            self._packer.join()
        closed = sorted(self.folder.glob("*.jsonl"))
        limits = (self._keep, self._keep_bytes, self._at - self._keep_s)
        self._packer = threading.Thread(target=_pack, args=(self.folder, closed, limits), name="journal-packer")
        self._packer.start()


class Journal:
    """Reads one run of a folder back, as `aiops.interfaces.Recording`. The figures are final after the last batch.

    torn: lines that were cut off or are no batch. gaps: segments that are missing or end early. unordered: batches
    whose time did not rise. lost: batches that the writer could not write. digest: what the run said of itself at its
    end, None when it was killed.
    """

    def __init__(self, folder: Path, run: str | None = None) -> None:
        known = runs(folder)
        if not known or (run is not None and run not in known):
            what = f"no run {run!r} (known: {', '.join(known)})" if known else "no segments (START-NNNNNN.jsonl)"
            raise JournalError(f"{folder}: {what}. Name the folder that 'aiops run' wrote.")
        self.folder, self.run = folder, run or known[-1]
        self.paths = _segments(folder, self.run)
        self.header = _header(self.paths[0])
        self.torn = self.gaps = self.unordered = self.lost = 0
        self.digest: str | None = None

    @property
    def beginning(self) -> Path:
        """The folder with what the run knew when it began; not there where it knew nothing."""
        return self.folder / f"{self.run}.models"

    def since(self, at: float) -> Iterator[Batch]:
        """The batches after `at`, the first with all series until then; segments that end before it are not read."""
        tail = self.tail(at)
        known: dict[int, Series] = {}
        for batch in tail.batches():
            if batch.at > at and known:
                _follow(known, batch)
                yield replace(batch, new_series=tuple(known.values()), retired=np.zeros(0, np.int32))
                known = {}
            elif batch.at > at:
                yield batch
            else:
                _follow(known, batch)

    def tail(self, at: float) -> Journal:
        """The same run without the segments that end before `at`."""
        later = next((i for i, path in enumerate(self.paths) if self._first_at(path) > at), len(self.paths))
        tail = Journal(self.folder, self.run)
        tail.paths = self.paths[max(0, later - 1):]
        return tail

    def catalogue(self, until: float) -> tuple[list[Series], list[tuple[float, Links]]]:
        """Every series that there was (an id may have been given twice), and what was told of the topology, whole or what
        changed, with the time from which on it held (-inf: from before), up to `until`.

        Lines that tell of neither are not decoded: a tenth of the work of reading everything.
        """
        series: dict[Series, None] = {}
        links: list[tuple[float, Links]] = []
        for path in self.paths:
            for line in self._lines(path):
                if b'"new_series":' not in line and b'"links":' not in line:
                    continue
                try:
                    item = _item(line)
                except (msgspec.DecodeError, ValueError, OverflowError, IndexError):
                    continue  # `batches` counts it
                if isinstance(item, Batch) and item.at > until:
                    return list(series), links
                series |= dict.fromkeys(_told(item))
                if not isinstance(item, End) and item.links is not None:
                    links.append((item.at if isinstance(item, Batch) else -math.inf, item.links))
        return list(series), links

    def last_at(self) -> float:
        """The time of the last whole batch; -inf where there is none."""
        tail = Journal(self.folder, self.run)
        tail.paths = self.paths[-1:]
        return max((batch.at for batch in tail.batches()), default=-math.inf)

    def _first_at(self, path: Path) -> float:
        """The time of a segment's first batch; -inf where that cannot be read."""
        with _open(path) as file:
            try:
                file.readline()
                return batch_from_wire(file.readline()).at
            except (msgspec.DecodeError, ValueError, EOFError, OSError, zlib.error):
                return -math.inf

    def batches(self) -> Iterator[Batch]:
        """All batches in order; series and topology of segments that are gone enter with the first batch after them."""
        self.torn = self.gaps = self.unordered = self.lost = 0
        known: dict[int, Series] = {}
        last, expected = float("-inf"), 0
        missed: Header | None = None
        for item in self._items():
            if isinstance(item, End):
                self.digest, self.lost = item.digest, item.failed
            elif isinstance(item, Header):
                missed = item if item.segment != expected or item.failed != self.lost else None
                self.gaps += item.segment != expected
                expected, self.lost = item.segment + 1, item.failed
            elif not item.at > last:
                self.unordered += 1
            else:
                batch, missed = _caught_up(item, missed, known), None
                _follow(known, batch)
                last = batch.at
                yield batch

    def _items(self) -> Iterator[Header | End | Batch]:
        """What the lines say, in order. A line that says nothing is counted."""
        for path in self.paths:
            for line in self._lines(path):
                try:
                    yield _item(line)
                except (msgspec.DecodeError, ValueError, OverflowError, IndexError):
                    self.torn += 1

    def _lines(self, path: Path) -> Iterator[bytes]:
        """Whole lines of a segment. A file cut short ends early and is counted."""
        path = path if path.exists() else _packed(path)  # packed by another run since the folder was read
        with _open(path) as file:
            try:
                for line in file:
                    if line.endswith(b"\n"):
                        yield line
                    else:
                        self.torn += 1
            except (EOFError, OSError, zlib.error):
                self.gaps += 1


def read(folder: Path, run: str | None = None) -> Iterator[Batch]:
    """The batches of a run, the newest by default. Raises JournalError when there is none."""
    return Journal(folder, run).batches()


def header(folder: Path, run: str | None = None) -> JSON:
    """What the run said of itself when it started: version, started_at, config, … Raises JournalError."""
    return Journal(folder, run).header


def runs(folder: Path) -> list[str]:
    """The runs that a folder holds, oldest first."""
    found = (_NAME.match(p.name) for p in folder.glob("*.jsonl*")) if folder.is_dir() else ()
    return sorted({m["run"] for m in found if m})


def _segments(folder: Path, run: str) -> list[Path]:
    """One path a segment, in order; the uncompressed one where both are there."""
    paths = sorted(folder.glob(f"{run}-*.jsonl*"), reverse=True)
    found = {p.name.removesuffix(".gz"): p for p in paths if _NAME.match(p.name)}
    return [found[name] for name in sorted(found)]


def _header(path: Path) -> JSON:
    try:
        with _open(path) as file:
            head = msgspec.json.decode(file.readline(), type=Header)
    except (OSError, EOFError, zlib.error, msgspec.DecodeError) as e:
        raise JournalError(f"{path}: not a journal segment: {e}. Remove the file if it is of no use.") from None
    if head.aiops_journal != 1:
        raise JournalError(f"{path}: journal format {head.aiops_journal}; this aiops reads format 1. Update aiops.")
    return {"aiops_journal": head.aiops_journal, **head.about}


def _open(path: Path) -> BinaryIO | gzip.GzipFile:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def _item(line: bytes) -> Header | End | Batch:
    if line.startswith(b'{"aiops_journal"'):
        return msgspec.json.decode(line, type=Header)
    if line.startswith(b'{"aiops_end"'):
        return msgspec.json.decode(line, type=End)
    return batch_from_wire(line)


def _follow(known: dict[int, Series], batch: Batch) -> None:
    """Which series there are after the batch."""
    for number in batch.retired.tolist():
        known.pop(number, None)
    known.update((s.id, s) for s in batch.new_series)


def _told(item: Header | End | Batch) -> tuple[Series, ...]:
    """The series that a line introduces."""
    return item.series if isinstance(item, Header) else item.new_series if isinstance(item, Batch) else ()


def _caught_up(batch: Batch, missed: Header | None, known: Mapping[int, Series]) -> Batch:
    """After a gap: the batch, with the series and the topology that its segment's header tells besides."""
    if missed is None:
        return batch
    now = {s.id: s for s in missed.series}
    _follow(now, batch)
    gone = [number for number, s in known.items() if now.get(number) != s]
    missing = tuple(s for number, s in now.items() if known.get(number) != s)
    return replace(batch, new_series=missing, retired=np.array(gone, np.int32), links=joined(missed.links, batch.links),
                   policies=missed.policies if batch.policies is None else batch.policies)


def _packed(path: Path) -> Path:
    return path.with_name(path.name + ".gz")


def _pack(folder: Path, closed: list[Path], limits: tuple[int, float, float]) -> None:
    """Compress each closed segment and expire old ones. A disk that refuses leaves them as they are."""
    for path in closed:
        part = path.with_name(path.name + ".part")
        try:
            with path.open("rb") as source, gzip.open(part, "wb", compresslevel=6) as target:
                shutil.copyfileobj(source, target, 1 << 20)
            shutil.copystat(path, part)  # the time of its last batch: it expires by that
            part.chmod(0o600)
            part.rename(_packed(path))
            path.unlink()
        except OSError:
            part.unlink(missing_ok=True)
    _expire(folder, *limits)


def _expire(folder: Path, keep: int, keep_bytes: float, before: float) -> None:
    """Delete all but the newest `keep` closed segments within `keep_bytes` that were written to since `before`."""
    total = _expire_beginnings(folder, keep_bytes * BEGINNINGS_SHARE)
    newest_first = sorted((p for p in folder.glob("*.jsonl.gz") if _NAME.match(p.name)), reverse=True)
    for number, path in enumerate(newest_first, 1):
        about = path.stat()
        total += about.st_size
        if number > keep or total > keep_bytes or about.st_mtime < before:
            path.unlink(missing_ok=True)


def _expire_beginnings(folder: Path, keep_bytes: float) -> int:
    """What runs knew when they began: gone with their last segment, and the oldest beyond `keep_bytes`. Bytes that stay."""
    known, total = runs(folder), 0
    for number, path in enumerate(sorted(folder.glob("*.models"), reverse=True)):
        size = sum(p.stat().st_size for p in path.iterdir())
        if (known and path.stem < known[0]) or (number and total + size > keep_bytes):
            shutil.rmtree(path, ignore_errors=True)
        else:
            total += size
    return total
