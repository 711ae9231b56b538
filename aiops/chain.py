"""The audit record's file format: JSON lines, each with the SHA-256 of itself and of the line before. docs/audit.md.

A folder holds segments `audit-NNNNNNNNNNNN.jsonl`, named after the number of their first entry; the chain goes on from one to
the next. A line is `{"at","hash","kind","prev","seq","what","who"}` in one spelling: keys sorted, no blanks, UTF-8, whole
numbers and texts only (other numbers are written as text), so that `jq -cS 'del(.hash)'` gives what was hashed.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

JSON = dict[str, Any]
BEGINNING = "0" * 64
"""What stands for the hash before the first entry."""
FIELDS = frozenset({"at", "hash", "kind", "prev", "seq", "what", "who"})
EXACT = 2**53
_spell = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode
LONGEST_LINE = 4 << 20
_NAME = re.compile(r"audit-(\d{12,})\.jsonl\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


class ChainError(Exception):
    """The folder holds no audit record that can be read; the text says why."""


class BrokenLine(Exception):  # noqa: N818 - a finding, not a failure
    """What is wrong with one line."""


@dataclass(frozen=True, slots=True)
class Draft:
    """An entry before it has its place in the chain. at: UTC seconds; who: {role, name}; what: a JSON value."""

    at: float
    kind: str
    who: Mapping[str, str]
    what: Mapping[str, Any]


@dataclass(slots=True)
class Verdict:
    """What `verify` found. `problem` is empty where the chain is whole; `place` is `file:line` of the first broken line."""

    segments: int = 0
    entries: int = 0
    first: int = 0
    last: int = 0
    head: str = BEGINNING
    place: str = ""
    problem: str = ""
    notes: list[str] = field(default_factory=list)


def seal(draft: Draft, seq: int, prev: str) -> tuple[bytes, str]:
    """The line of an entry, with its newline, and its hash. Equal drafts at equal places give equal bytes."""
    entry = {"at": moment(draft.at), "kind": draft.kind, "prev": prev, "seq": seq, "what": plain(draft.what),
             "who": plain(draft.who)}
    digest = hashlib.sha256(canonical(entry)).hexdigest()
    return canonical({**entry, "hash": digest}) + b"\n", digest


def canonical(value: Any) -> bytes:
    """One spelling of a JSON value: that of `jq -cS`, for what `plain` gives."""
    return _spell(value).encode()


def fingerprint(value: Any) -> str:
    """SHA-256 of a JSON value in that spelling."""
    return hashlib.sha256(canonical(plain(value))).hexdigest()


def plain(value: Any) -> Any:
    """A JSON value without what tools spell differently: fractions and huge numbers as text, no control characters."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        whole = math.isfinite(value) and value == int(value) and abs(value) < EXACT
        return int(value) if whole else str(value)
    if isinstance(value, Mapping):
        return {_CONTROL.sub(" ", str(k)): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    text = str(value)
    return text if text.isprintable() else _CONTROL.sub(" ", text)


def parse(line: bytes) -> JSON:
    """An entry from its line, without the newline. Raises BrokenLine where it is none, or its hash is not that of its content."""
    try:
        entry = json.loads(line)
        spelled = canonical(entry)
    except (ValueError, RecursionError):
        raise BrokenLine("is not JSON") from None
    kinds = {"seq": int, "what": dict, "who": dict, "kind": str, "at": str}
    if not isinstance(entry, dict) or entry.keys() != FIELDS or any(type(entry[k]) is not t for k, t in kinds.items()):
        raise BrokenLine("is not an entry of an audit record")
    told = entry["hash"]
    found = hashlib.sha256(canonical({k: v for k, v in entry.items() if k != "hash"})).hexdigest()
    if told != found:
        raise BrokenLine(f"was changed: its content hashes to {found[:12]}…, and it says {str(told)[:12]}…")
    if spelled != line:
        raise BrokenLine("is spelled otherwise than it was written")
    return entry


def segments(folder: Path) -> list[Path]:
    """The files of a record in order."""
    found = ((int(m[1]), p) for p in folder.glob("audit-*.jsonl") if (m := _NAME.match(p.name)))
    return [p for _, p in sorted(found)]


def segment_name(seq: int) -> str:
    return f"audit-{seq:012d}.jsonl"


def find(path: Path) -> Path:
    """The folder of the record: a store, or the folder itself. Raises ChainError."""
    for folder in (path / "audit", path):
        if folder.is_dir() and segments(folder):
            return folder
    what = "holds no audit record (audit-NNNNNNNNNNNN.jsonl)" if path.is_dir() else "no such folder"
    raise ChainError(f"{path}: {what}. Name the folder that 'store' sets in the configuration.")


def lines(path: Path) -> Iterator[tuple[int, bytes, bool]]:
    """Number, content and whether it is whole, of each line; nothing where the daemon has dropped the file by now.

    Raises ChainError where it cannot be read.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), 1):
                yield number, line.removesuffix(b"\n"), line.endswith(b"\n")
    except FileNotFoundError:
        return
    except OSError as e:
        raise ChainError(f"{path}: cannot be read: {(e.strerror or str(e)).lower()}.") from None


def entries(folder: Path) -> Iterator[JSON]:
    """All entries in order; lines that are none are passed over: `verify` tells of them. Raises ChainError."""
    for path in segments(folder):
        for _, line, whole in lines(path):
            try:
                if whole:
                    yield parse(line)
            except BrokenLine:
                continue


def verify(folder: Path) -> Verdict:
    """Goes through the whole chain until the first line that is not what was written. Raises ChainError."""
    found, anchors = Verdict(), set()
    paths = segments(folder)
    begin: JSON | None = None
    for path in paths:
        found.segments += 1
        for number, line, whole in lines(path):
            place = f"{path}:{number}"
            if not whole and path == paths[-1]:
                found.notes.append(f"{place}: the last line was cut off while it was written; the next start removes it")
                break
            try:
                entry = parse(line)
                _follows(found, entry, path, number)
            except BrokenLine as e:
                found.place, found.problem = place, str(e)
                return found
            begin = begin or entry
            if entry["kind"] == "dropped":
                anchors.add(f"{entry['what'].get('last')} {entry['what'].get('hash')}")
            found.entries, found.last, found.head = found.entries + 1, entry["seq"], entry["hash"]
    if begin is not None:
        found.first = begin["seq"]
        _begins(found, begin, anchors, paths[0])
    return found


def _follows(found: Verdict, entry: JSON, path: Path, number: int) -> None:
    """Whether the entry comes right after the one before. Raises BrokenLine."""
    if found.entries and entry["seq"] != found.last + 1:
        raise BrokenLine(f"is entry {entry['seq']}, and the one before is {found.last}: something between them was taken out")
    if found.entries and entry["prev"] != found.head:
        raise BrokenLine(f"does not follow the entry before it, which hashes to {found.head[:12]}…")
    if number == 1 and path.name != segment_name(entry["seq"]):
        raise BrokenLine(f"is entry {entry['seq']}, which the name of the file denies")


def _begins(found: Verdict, begin: JSON, anchors: set[str], path: Path) -> None:
    """The first entry is the first of all, or a later one says that what was before it was dropped."""
    if (begin["seq"], begin["prev"]) == (1, BEGINNING) or f"{begin['seq'] - 1} {begin['prev']}" in anchors:
        return
    found.place = f"{path}:1"
    found.problem = f"is entry {begin['seq']}, and no entry says that those before it were dropped"


def seconds(entry: JSON) -> float:
    """The time of an entry as UTC seconds; 0 where it is none."""
    try:
        return datetime.fromisoformat(str(entry["at"])).timestamp()
    except ValueError:
        return 0.0


def moment(at: float) -> str:
    """`2026-03-01T14:05:09.250Z`."""
    known = min(max(at, 0.0), 253_402_300_799.0) if math.isfinite(at) else 0.0
    return datetime.fromtimestamp(round(known, 3), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
