"""Reads of the HTTP API of Loki: log lines of a range, and as they come in.

https://grafana.com/docs/loki/latest/reference/loki-http-api/ - `query_range` and `tail`. Times are whole nanoseconds since
1970: a float cannot hold them, and the next page begins with the last one of the page before.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from aiops.sources.access import SourceError

if TYPE_CHECKING:
    from requests import Session

MAX_ANSWER = 64 * 1024 * 1024
MAX_TEXT = 300
_REMEDIES = {
    400: "Check query and limit of the loki source.", 401: "Check tenant and tokenFile of the loki source.",
    403: "Check the rights of the token.", 404: "Check url: it is that of Loki itself, without /loki/api/v1.",
    429: "Loki limits queries; a longer interval or a narrower query asks less."}


class Entry(NamedTuple):
    """One log line: nanoseconds since 1970, the labels of its stream, its text."""

    ns: int
    labels: Mapping[str, str]
    text: str


class Stream(msgspec.Struct):
    """`values` are [nanoseconds as text, line] with structured metadata as a third element where there is any."""

    stream: dict[str, str]
    values: list[list[Any]]


class _Data(msgspec.Struct, rename="camel"):
    result_type: str
    result: list[msgspec.Raw]


class _Answer(msgspec.Struct):
    data: _Data


class LokiApi:
    """One Loki. Blocking; every method raises SourceError. The token is read anew for each request, so that it may rotate."""

    def __init__(self, url: str, *, tenant: str = "", token_file: Path | None = None, ca_file: Path | None = None,
                 timeout_s: float = 30.0) -> None:
        self.url, self.timeout_s, self.ca_file = url.rstrip("/"), timeout_s, ca_file
        self._tenant, self._token_file = tenant, token_file
        self._opened: Session | None = None
        _import()

    def headers(self) -> dict[str, str]:
        """Who asks."""
        headers = {"X-Scope-OrgID": self._tenant} if self._tenant else {}
        if self._token_file is None:
            return headers
        try:
            token = self._token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as e:
            reason = getattr(e, "strerror", None) or "it is not UTF-8 text"
            raise SourceError(str(self._token_file), f"the token cannot be read: {reason.lower()}.",
                              "Check tokenFile and the rights of the file.") from None
        return {**headers, "Authorization": f"Bearer {token}"}

    def page(self, query: str, start: int, end: int, limit: int) -> list[Entry]:
        """The first `limit` lines with start <= time < end, in the order of their times."""
        body = self._get("query_range", {"query": query, "start": str(start), "end": str(end), "limit": str(limit),
                                         "direction": "forward"})
        try:
            data = msgspec.json.decode(body, type=_Answer).data
            if data.result_type != "streams":
                raise SourceError(self.url, f"the query gives figures ({data.result_type[:40]}), not lines.",
                                  "Write a query for lines, like {namespace=\"shop\"} |= \"error\".")
            found = [e for raw in data.result for e in entries(msgspec.json.decode(raw, type=Stream))]
        except (msgspec.DecodeError, RecursionError, ValueError) as e:
            raise SourceError(self.url, f"what came back is no answer of Loki: {str(e)[:MAX_TEXT]}.", _REMEDIES[404]) from None
        return sorted(found, key=lambda e: e.ns)

    def close(self) -> None:
        if self._opened:
            self._opened.close()
            self._opened = None

    def _get(self, path: str, params: Mapping[str, str]) -> bytes:
        import requests

        self._opened = self._opened or requests.Session()
        address = f"{self.url}/loki/api/v1/{path}"
        try:
            reply = self._opened.get(address, params=params, headers=self.headers(), timeout=self.timeout_s, stream=True,
                                     verify=str(self.ca_file) if self.ca_file else True)
            with contextlib.closing(reply):
                body = _bounded(reply.iter_content(256 * 1024), MAX_ANSWER if reply.ok else 10_000)
        except (requests.RequestException, OSError) as e:
            raise SourceError(self.url, f"cannot be reached: {_short(e)}.", "Check url, caFile and the network.") from None
        if not reply.ok:
            said = " ".join(body[:10_000].decode("utf-8", "replace").split())[:MAX_TEXT]
            raise SourceError(self.url, f"answered {reply.status_code}: {said or reply.reason}.",
                              _REMEDIES.get(reply.status_code, ""), reply.status_code)
        if len(body) > MAX_ANSWER:
            raise SourceError(self.url, f"the answer is larger than {MAX_ANSWER >> 20} MiB.", "Lower limit of the loki source.")
        return body


def _import() -> None:
    """Before there are threads: two that import `requests` at once find it half made, because it imports in a circle."""
    import requests  # noqa: F401


def _bounded(chunks: Iterator[bytes], most: int) -> bytes:
    """No more than a chunk beyond `most`."""
    body = bytearray()
    for chunk in chunks:
        body += chunk
        if len(body) > most:
            break
    return bytes(body)


def _short(error: Exception) -> str:
    """The innermost reason: requests and urllib3 wrap it several times. Others (a caFile that is not there) say it at once."""
    import requests

    if not isinstance(error, requests.RequestException):
        return str(error)[:MAX_TEXT].rstrip(".")
    reason: Any = error
    while (inner := getattr(reason, "reason", None) or (reason.args[0] if reason.args else None)) is not None:
        if not isinstance(inner, Exception):
            break
        reason = inner
    told = re.sub(r"^\[Errno \d+\] ", "", str(reason).rpartition(": ")[2])
    return (told or type(reason).__name__)[:MAX_TEXT].rstrip(".")


def entries(stream: Stream) -> Iterator[Entry]:
    """The lines of a stream. Raises ValueError for one that is none."""
    for value in stream.values:
        if len(value) < 2 or not isinstance(value[0], str) or not isinstance(value[1], str):
            raise ValueError(f"{str(value)[:80]} is no line with its time")
        yield Entry(int(value[0]), stream.stream, value[1])
