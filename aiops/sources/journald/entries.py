"""Entries of the journal as journalctl writes them in JSON: whose line it is, when it was written, what it says.

https://systemd.io/JOURNAL_EXPORT_FORMATS/
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import msgspec

from aiops.sources.logs.lines import MAX_LINE_BYTES
from aiops.types import LogLine

_LEVELS = {0: "CRITICAL", 1: "CRITICAL", 2: "CRITICAL", 3: "ERROR", 4: "WARN"}
_LEVEL_WORD = re.compile(r"\b(CRIT\w*|FATAL|ERR|ERROR|WARN|WARNING|EMERG|PANIC)\b", re.IGNORECASE)
CURSOR = re.compile(r"s=[a-zA-Z0-9=;._-]{1,500}")
FIELDS = "MESSAGE,PRIORITY,_HOSTNAME,_SYSTEMD_UNIT,SYSLOG_IDENTIFIER,_TRANSPORT"


class Entry(msgspec.Struct):
    """A value is a text, a list of bytes where it is none, a list of those where a field is there twice, or null."""

    cursor: str = msgspec.field(name="__CURSOR", default="")
    time: str = msgspec.field(name="__REALTIME_TIMESTAMP", default="")
    message: Any = msgspec.field(name="MESSAGE", default=None)
    priority: Any = msgspec.field(name="PRIORITY", default=None)
    host: Any = msgspec.field(name="_HOSTNAME", default=None)
    unit: Any = msgspec.field(name="_SYSTEMD_UNIT", default=None)
    program: Any = msgspec.field(name="SYSLOG_IDENTIFIER", default=None)
    transport: Any = msgspec.field(name="_TRANSPORT", default=None)


class Entries:
    """Entries as log lines. `node` is the name of the machine, else what each line says; `rejected` counts by reason."""

    def __init__(self, node: str | None, rejected: Counter[str]) -> None:
        self._node, self._rejected = node, rejected

    def line(self, raw: bytes, now: float) -> tuple[str, LogLine | None]:
        """Its cursor, "" for none, and what it says, None where that is nothing (counted)."""
        try:
            entry = msgspec.json.decode(raw, type=Entry)
            at = int(entry.time) / 1e6
        except (msgspec.DecodeError, RecursionError, ValueError):
            self._rejected["malformed"] += 1
            return "", None
        cursor = entry.cursor if CURSOR.fullmatch(entry.cursor) else ""
        text = self._text(entry.message).strip()
        if not text:
            self._rejected["empty"] += 1
            return cursor, None
        host = self._node or self._text(entry.host) or "localhost"
        if self._text(entry.transport) == "kernel":
            return cursor, LogLine(min(at, now), f"node//{host}", text)
        who = (self._text(entry.unit) or self._text(entry.program))[:200].strip("/")
        entity = f"process/{host}/{who}" if who else f"node//{host}"
        return cursor, LogLine(min(at, now), entity, levelled(entry.priority, text))

    def _text(self, value: Any) -> str:
        """A value as text, of several the first."""
        if isinstance(value, list) and value and not isinstance(value[0], int):
            value = value[0]
        if isinstance(value, list):
            try:
                raw = bytes(value)
            except (TypeError, ValueError):
                return ""
            value = raw.decode("utf-8", "replace").replace("\0", "")
            self._rejected["undecodable"] += "�" in value
        if not isinstance(value, str):
            return ""
        if len(value) > MAX_LINE_BYTES:
            self._rejected["too_long"] += 1
        return value[:MAX_LINE_BYTES]


def levelled(priority: Any, text: str) -> str:
    """The text with its level before it where it is bad and does not say so itself."""
    level = _LEVELS.get(int(priority)) if isinstance(priority, str) and priority in "01234" and priority else None
    return f"{level} {text}" if level and not _LEVEL_WORD.search(text[:200]) else text
