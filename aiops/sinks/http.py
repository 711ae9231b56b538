"""One POST to somebody outside. Never raises, never follows a redirect, and never puts the address into a text."""

from __future__ import annotations

import email.utils
import http.client
import socket
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_REPLY = 4096


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. `status` 0: nothing did. `retry_after_s`: what the receiver asked for, None when it did not.

    `sent`: False where it surely never got there.
    """

    status: int
    text: str = ""
    retry_after_s: float | None = None
    sent: bool = True

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def permanent(self) -> bool:
        """The same request will never work: a 4xx other than time-out, too early and too many; a redirect."""
        return 300 <= self.status < 500 and self.status not in (408, 425, 429)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry what is said here to a place that nobody named."""

    def redirect_request(self, *_: Any) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirect)


def check_url(url: str) -> str:
    """The address, or ValueError. The text does not repeat it: webhook addresses are secrets."""
    if not url.lower().startswith(("http://", "https://")) or any(c.isspace() for c in url):
        raise ValueError("not an http:// or https:// address")
    return url


def post(url: str, body: bytes, headers: Mapping[str, str], now: float, timeout_s: float = 10.0) -> Reply:
    """POST and read a short answer. `now` turns a Retry-After date into seconds."""
    request = urllib.request.Request(url, body, {"User-Agent": "aiops", **headers}, method="POST")  # noqa: S310
    try:
        with _opener.open(request, timeout=timeout_s) as reply:
            return _reply(reply.status, reply.read(MAX_REPLY), reply.headers, now)
    except urllib.error.HTTPError as e:
        with e:
            return _reply(e.code, _rest(e), e.headers, now)
    except urllib.error.URLError as e:
        return Reply(0, _why(e.reason), sent=not isinstance(e.reason, ConnectionRefusedError | socket.gaierror))
    except (OSError, http.client.HTTPException, ValueError) as e:
        return Reply(0, _why(e))


def _rest(e: urllib.error.HTTPError) -> bytes:
    try:
        return e.read(MAX_REPLY)
    except (OSError, http.client.HTTPException):
        return b""


def _reply(status: int, body: bytes, headers: Any, now: float) -> Reply:
    return Reply(status, body.decode("utf-8", "replace"), _retry_after(headers.get("Retry-After"), now))


def _retry_after(value: str | None, now: float) -> float | None:
    """Seconds or an HTTP date, RFC 9110 section 10.2.3."""
    if not value:
        return None
    try:
        return max(0.0, float(value)) if value.strip().isdigit() else \
            max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return None


def _why(reason: object) -> str:
    """The system's own words, without anything that could name the address."""
    text = getattr(reason, "strerror", None) or type(reason).__name__
    return "timed out" if isinstance(reason, TimeoutError) else str(text)
