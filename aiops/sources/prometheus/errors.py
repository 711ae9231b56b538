"""What went wrong between us and a Prometheus, in words: what happened, and what a person may do about it."""

from __future__ import annotations

import json
import re
from email.utils import parsedate_to_datetime
from typing import Any

from aiops.sources.access import SourceError

MAX_AFTER_S = 300.0
REMEDY = "Is this the address of a Prometheus server?"
_TLS = (
    ("Hostname mismatch", "its certificate is for another name", "Write that name as url or as serverName."),
    ("IP address mismatch", "its certificate is for another name", "Write that name as url or as serverName."),
    ("doesn't match", "its certificate is for another name", "Write that name as url or as serverName."),
    ("certificate has expired", "its certificate has expired", "Renew it on the server."),
    ("CERTIFICATE_VERIFY_FAILED", "its certificate is from a CA that is not known here", "Give that CA as caFile."),
    ("CERTIFICATE_REQUIRED", "it wants a client certificate", "Give certFile and keyFile."),
    ("certificate required", "it wants a client certificate", "Give certFile and keyFile."),
    ("UNKNOWN_CA", "it does not accept our client certificate", "Check certFile and keyFile: its CA must know them."),
    ("unknown ca", "it does not accept our client certificate", "Check certFile and keyFile: its CA must know them."),
    ("KEY_VALUES_MISMATCH", "keyFile is not the key of certFile", "Give both from the same issue."),
    ("key values mismatch", "keyFile is not the key of certFile", "Give both from the same issue."),
    ("EOF occurred in violation", "it ended the connection", "If it wants a client certificate: check certFile and keyFile."),
    ("WRONG_VERSION_NUMBER", "the server does not speak TLS on this port", "Write the url with http://."),
    ("record layer failure", "the server does not speak TLS on this port", "Write the url with http://."),
)


def timed_out(url: str, timeout_s: float) -> SourceError:
    """It took longer than it may: a smaller question may be answered in time."""
    return SourceError(url, f"no answer within {timeout_s:g} s.", "Ask for less, or raise the timeout.", late=True)


def unanswered(url: str, timeout_s: float, error: Exception) -> SourceError:
    """A time-out, which comes in several wrappings, or no connection at all."""
    inner: Any = error.args[0] if error.args else error
    text = str(getattr(inner, "reason", inner))
    if "timed out" in text and "connect timeout" not in text:
        return timed_out(url, timeout_s)
    if "SSL" in text or "alert" in text:
        return untrusted(url, text)
    known = re.search(r"\[Errno -?\d+\] ([^'\")]+)", text)
    own = " If it wants a client certificate: check certFile and keyFile." if url.startswith("https:") else ""
    return SourceError(url, f"cannot be reached: {known[1] if known else text[:200]}.",
                       f"Is Prometheus running there?{own}")


def untrusted(url: str, text: str) -> SourceError:
    """Either side does not trust the other's certificate, or one of them does not speak TLS."""
    for sign, what, do in _TLS:
        if sign in text:
            return SourceError(url, f"TLS: {what}.", do)
    known = re.search(r"\[SSL[^\]]*\] ([^(']+)", text)
    return SourceError(url, f"TLS: {(known[1] if known else text)[:200].strip()}.",
                       "Check caFile, certFile and keyFile, and that the server speaks TLS on this port.")


def told(body: bytes) -> str:
    """What an error says, in one line: `errorType: error` of Prometheus, else the title or the text of a page. '' for none."""
    try:
        found = json.loads(body)
        text = ": ".join(str(found[k]) for k in ("errorType", "error") if found.get(k))
    except (ValueError, AttributeError, RecursionError):
        page = body.decode("utf-8", "replace")
        title = re.search(r"<title[^>]*>([^<]*)", page, re.IGNORECASE)
        text = title[1] if title else re.sub(r"<[^>]{0,1000}>", " ", page[:4000])
    line = "".join(c for c in " ".join(text.split())[:300] if c.isprintable()).rstrip(".")
    return f"{line}." if line else ""


def remedy(status: int, text: str = "") -> str:
    """What a person may do about it."""
    if "org id" in text.lower():
        return "Give the tenant."
    if status == 401:
        return "Give a valid bearer token (tokenFile), or username and passwordFile."
    if status == 403:
        return "Check whether this token and tenant may read metrics."
    if status == 400:
        return "Check the selector or query."
    if status in (413, 422):
        return "Ask for less: a shorter time, fewer series."
    if status == 404:
        return "Is the path prefix of the URL right?"
    if status == 429:
        return "It is asked too often, or too much."
    return "See the log of the Prometheus server."


def retry_after(header: str | None, now: float) -> float:
    """Retry-After, in seconds or as a date; 0 where there is none that can be read."""
    try:
        if header is None:
            return 0.0
        at = float(header) if header.strip().isdigit() else parsedate_to_datetime(header).timestamp() - now
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return min(max(0.0, at), MAX_AFTER_S)
