"""From the raw lines of one file to what was logged: frames of container runtimes off, parts joined, times read.

Container runtimes: the CRI format (`2026-01-02T03:04:05.6Z stdout F text`, `P` for a part) and Docker's json-file
(`{"log": "text\\n", "stream": "stdout", "time": "…"}`, a part where `log` has no line end).
https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, tzinfo
from typing import Any, NamedTuple

from aiops.sources.logs.stamps import Stamps, number

MAX_LINE_BYTES = 16 * 1024
FULL = "more log lines come than a step takes; the rest is read later"
MAX_JOINED = 200
MAX_FIELD_CHARS = 200
_TEXT_KEYS = ("message", "msg", "log")
_LEVEL_KEYS = ("level", "lvl", "severity")
_TIME_KEYS = ("time", "timestamp", "ts", "@timestamp")
_CRI = re.compile(r"(\d{4}-\d\d-\d\dT\S+) (stdout|stderr) ([PF])(?::\S*)? ?(.*)", re.DOTALL)
_PYTHON, _GO = "Traceback (most recent call last):", re.compile(r"panic: |fatal error: |goroutine \d+ \[|runtime: ")
_LINKS = ("During handling of the above", "The above exception was the direct")
_JAVA = re.compile(r"\s+at |\s*\.\.\. \d+ |Caused by: |\s*Suppressed: ")
_GO_FRAME = re.compile(r"[\w./*()\[\]\-{}]+\(.*\)$|created by |\[signal |exit status |goroutine \d+ \[|r\w+ +0x|main\.")


class Entry(NamedTuple):
    """What was logged at once. `time` in UTC seconds, None where neither the runtime nor the text says it."""

    time: float | None
    text: str


class LineReader:
    """The lines of one file, in order. Memory: one line of at most 16 KiB a stream, and one trace where `multiline`.

    rejected counts what was cut or repaired: too_long, undecodable, nul.
    """

    def __init__(self, *, multiline: bool = False, zone: tzinfo = UTC, rejected: Counter[str] | None = None) -> None:
        self._multiline, self._stamps = multiline, Stamps(zone)
        self.rejected: Counter[str] = Counter() if rejected is None else rejected
        self._parts: dict[str, tuple[str, str]] = {}
        self._traces: dict[str, Trace] = {}

    def entries(self, lines: Iterable[bytes], now: float) -> Iterator[Entry]:
        """The entries that these whole lines complete. Empty lines are left out."""
        for raw in lines:
            framed = self._unframed(self._decoded(raw))
            if framed is None:
                continue
            stream, stamp, text = framed
            if self._multiline:
                for done in self._joined(stream, stamp, text):
                    yield self._entry(*done, now)
            elif text and not text.isspace():
                yield self._entry(stamp, text, now)

    def flush(self, now: float, parts: bool = False) -> Iterator[Entry]:
        """What waits for lines that belong to it: when nothing more was written for a while.

        parts: also the beginnings of lines that will never end.
        """
        for trace in self._traces.values():
            if trace.lines:
                yield self._entry(trace.stamp, trace.taken(), now)
        while parts and self._parts:
            yield self._entry(*self._parts.pop(next(iter(self._parts))), now)

    @property
    def waiting(self) -> bool:
        """Whether a trace is open that `flush` would hand out."""
        return any(t.lines for t in self._traces.values())

    def state(self) -> dict[str, Any]:
        """What was read and not yet handed out, as plain JSON."""
        traces = {k: [t.stamp, t.kind, t.lines] for k, t in self._traces.items() if t.lines}
        return {"parts": {k: list(v) for k, v in self._parts.items()}, "traces": traces} if self._parts or traces else {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state`. Raises ValueError, TypeError or AttributeError for what is none."""
        self._parts = {str(k): (str(a), str(b)) for k, (a, b) in dict(state.get("parts", {})).items()}
        for stream, (stamp, kind, lines) in dict(state.get("traces", {})).items():
            self._traces[str(stream)] = Trace(str(stamp), str(kind), [str(x) for x in lines][:MAX_JOINED])

    # --------------------------------------------------------------------------------------------------- the pieces
    def _decoded(self, raw: bytes) -> str:
        if b"\0" in raw:
            self.rejected["nul"] += 1
            raw = raw.replace(b"\0", b"")
        if len(raw) > MAX_LINE_BYTES:
            self.rejected["too_long"] += 1
            raw = raw[:MAX_LINE_BYTES]
        try:
            return raw.decode("utf-8").rstrip("\r")
        except UnicodeDecodeError:
            self.rejected["undecodable"] += 1
            return raw.decode("utf-8", "replace").rstrip("\r")

    def _unframed(self, line: str) -> tuple[str, str, str] | None:
        """Stream, the runtime's time ("" for none) and text of a line; None for a part of one that has not ended."""
        stream = stamp = ""
        whole = True
        if line[4:5] == "-" and (m := _CRI.fullmatch(line)):
            stamp, stream, flag, text = m.groups()
            whole = flag == "F"
        elif line.startswith('{"log":') and (found := _docker(line)):
            stream, stamp, text = found
            whole = text.endswith("\n")
            text = text.removesuffix("\n").removesuffix("\r")
        else:
            return "", "", line
        before = self._parts.pop(stream, None)
        if before:
            stamp, text = before[0], before[1] + text
        if len(text) > MAX_LINE_BYTES:
            self.rejected["too_long"] += whole
            text = text[:MAX_LINE_BYTES]
        if whole:
            return stream, stamp, text
        self._parts[stream] = (stamp, text)
        return None

    def _joined(self, stream: str, stamp: str, text: str) -> Iterator[tuple[str, str]]:
        trace = self._traces.get(stream)
        if trace and trace.lines and trace.takes(text):
            trace.add(text)
            return
        done = (trace.stamp, trace.taken()) if trace and trace.lines else None
        if text and not text.isspace():
            trace = self._traces.pop(stream, None) or Trace()
            self._traces[stream] = trace  # in the order in which they began
            trace.begin(stamp, text)
        if done:  # last: whoever takes no more does not come back
            yield done

    def _entry(self, stamp: str, text: str, now: float) -> Entry:
        if text.startswith("{") and text.rstrip().endswith("}") and (fields := _object(text)) is not None:
            at = self._stamps.of(stamp, now) if stamp else self._field_time(fields, now)
            return Entry(at, _sentence(fields) or text)
        return Entry(self._stamps.of(stamp or text, now), text)

    def _field_time(self, fields: dict[str, Any], now: float) -> float | None:
        value = next((fields[k] for k in _TIME_KEYS if k in fields), None)
        at = number(value)
        return self._stamps.of(value if isinstance(value, str) else f"{at:.6f}" if at else "", now)


class Trace:
    """A line and those that belong to it: the stack of a Python, Java or Go program. At most 200 lines, 16 KiB."""

    def __init__(self, stamp: str = "", kind: str = "", lines: list[str] | None = None) -> None:
        self.stamp, self.kind, self.lines = stamp, kind, lines or []
        self._size = sum(map(len, self.lines))

    def begin(self, stamp: str, text: str) -> None:
        self.stamp, self.lines, self._size = stamp, [text], len(text)
        self.kind = "python" if text.startswith(_PYTHON) else "go" if _GO.match(text) else ""

    def takes(self, text: str) -> bool:
        """Whether the next line belongs to this one; the kind of the trace follows from the lines so far."""
        if len(self.lines) >= MAX_JOINED or self._size + len(text) > MAX_LINE_BYTES:
            return False
        if text.startswith(_PYTHON):
            taken, self.kind = True, "python"
        elif self.kind == "python":  # up to the exception, which is the first line that is not indented
            taken = True
            if text and not text[0].isspace():
                self.kind = "raised"
        elif self.kind == "raised":  # another exception may follow, after an empty line
            taken = not text.strip() or text.startswith(_LINKS) or text[0].isspace()
        elif self.kind == "go":
            taken = not text.strip() or text[0].isspace() or _GO_FRAME.match(text) is not None
        else:
            taken = (text[:1] in (" ", "\t") and bool(text.strip())) or _JAVA.match(text) is not None
        return taken

    def add(self, text: str) -> None:
        self.lines.append(text)
        self._size += len(text) + 1

    def taken(self) -> str:
        """The lines as one text; the trace is empty after that."""
        text = "\n".join(self.lines).rstrip()
        self.lines, self._size, self.kind = [], 0, ""
        return text


def plain(text: str) -> str:
    """A line as a person would read it: without the container runtime's frame, and out of JSON `LEVEL message error`."""
    framed = _CRI.fullmatch(text)
    if framed:
        text = framed[4]
    if not text.startswith("{") or not text.rstrip().endswith("}"):
        return text
    fields = _object(text)
    return (_sentence(fields) if fields is not None else "") or text


def _object(text: str) -> dict[str, Any] | None:
    import msgspec
    try:
        fields = msgspec.json.decode(text.encode("utf-8", "replace"))
    except (msgspec.DecodeError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None


def _sentence(fields: dict[str, Any]) -> str:
    message = next((str(fields[k]) for k in _TEXT_KEYS if fields.get(k)), "")
    if not message:
        return ""
    level = next((str(fields[k]).upper() for k in _LEVEL_KEYS if isinstance(fields.get(k), str)), "")
    error = str(fields.get("error") or fields.get("err") or "")[:MAX_FIELD_CHARS]
    return " ".join(part for part in (level, message.rstrip("\n"), error) if part)


def _docker(line: str) -> tuple[str, str, str] | None:
    """Stream, time and text of a line of Docker's json-file; None where it is no such line."""
    fields = _object(line)
    if fields is None or not all(isinstance(fields.get(k), str) for k in ("log", "stream", "time")):
        return None
    return fields["stream"], fields["time"], fields["log"]
