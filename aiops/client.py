"""Talks to a running daemon over its HTTP API. Standard library only; also used to ask other HTTP servers for JSON."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

JSON = dict[str, Any]
MAX_BYTES = 64 * 1024 * 1024
MAX_LOAD = 2 << 30
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Unreachable(Exception):  # noqa: N818 - a verdict, not an error class
    """Nobody answered, or not in a way that can be understood."""


class Denied(Exception):  # noqa: N818
    """The server understood and says no. `status` is the HTTP status."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the token to another host."""

    def redirect_request(self, *_: Any) -> None:
        return None


def ask(url: str, *, body: JSON | None = None, post: bool = False, token: str = "", timeout_s: float = 10.0) -> Any:
    """The JSON that a URL answers with. Raises Unreachable or Denied, each naming the URL."""
    headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    data = json.dumps(body or {}).encode() if post else None
    if post:
        headers["Content-Type"] = "application/json"
    with _answer(url, data, headers, timeout_s) as answer:
        return json.loads(answer.read(MAX_BYTES) or b"null")


def load(url: str, out: Path, *, token: str = "", timeout_s: float = 60.0) -> None:
    """What a URL answers with, into a file, at most MAX_LOAD. Raises Unreachable or Denied, each naming the URL, and OSError."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with _answer(url, None, headers, timeout_s) as answer, out.open("wb") as file:
        while block := answer.read(1 << 20):
            file.write(block)
            if file.tell() > MAX_LOAD:
                raise Unreachable(f"{url}: the answer is larger than {MAX_LOAD >> 30} GiB.")


@contextmanager
def _answer(url: str, data: bytes | None, headers: dict[str, str], timeout_s: float) -> Iterator[Any]:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Unreachable(f"{url}: not a URL. Write it like http://127.0.0.1:8750.")
    request = urllib.request.Request(url, data, headers)  # noqa: S310 - the scheme was checked above
    proxies = urllib.request.ProxyHandler({} if parts.hostname in LOOPBACK else None)
    try:
        with urllib.request.build_opener(proxies, _NoRedirect).open(request, timeout=timeout_s) as answer:
            yield answer
    except urllib.error.HTTPError as e:
        raise Denied(f"{url}: {_said(e)}", e.code) from None
    except (OSError, HTTPException, ValueError) as e:
        raise Unreachable(f"{url}: {_reason(e)}.") from None


def _said(error: urllib.error.HTTPError) -> str:
    """What the body of an error says, shortened: it may come from anybody."""
    text = error.read(2000).decode("utf-8", "replace").strip()
    try:
        found = json.loads(text)
        text = str(found.get("detail") or found.get("error") or "") if isinstance(found, dict) else ""
    except ValueError:
        text = ""
    return f"HTTP {error.code} {error.reason}{': ' + text[:300].rstrip('.') if text else ''}"


def _reason(error: Exception) -> str:
    cause = getattr(error, "reason", error)
    if isinstance(error, ValueError) and not isinstance(error, OSError):
        return "the answer is not JSON"
    text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return str(text)[:1].lower() + str(text)[1:]


class Client:
    """One daemon. Every method raises Unreachable or Denied."""

    def __init__(self, server: str, token: str = "", timeout_s: float = 10.0) -> None:
        self.server, self._token, self._timeout_s = server.rstrip("/"), token, timeout_s

    def status(self) -> JSON:
        """Version, mode, counts and the health of the sources."""
        return self._get("/api/status")

    def incidents(self, state: str = "", limit: int = 50) -> list[JSON]:
        """The newest incidents; `state` is `open`, `closed` or empty for both."""
        query = f"?limit={limit}" + (f"&state={state}" if state else "")
        return list(self._get("/api/incidents" + query).get("incidents", []))

    def incident(self, name: str) -> JSON:
        """One incident, with the points of its signals."""
        return self._get(f"/api/incidents/{quote(name, safe='')}")

    def readiness(self, entity: str = "", state: str = "", limit: int = 100) -> JSON:
        """Which signals are judged: `total`, `counts` by state, and `signals`, at most `limit`, those first that are not."""
        wanted = {"limit": str(limit), "entity": entity, "state": state}
        return self._get("/api/readiness?" + urlencode({k: v for k, v in wanted.items() if v}))

    def topology(self, at: float | None = None, entity: str = "", limit: int = 100) -> JSON:
        """Who depends on whom, now or `at` a time: `total`, and `edges`, at most `limit`."""
        wanted = {"limit": str(limit), "entity": entity, "at": "" if at is None else f"{at:.3f}"}
        return self._get("/api/topology?" + urlencode({k: v for k, v in wanted.items() if v}))

    def costs(self, window: str = "hour") -> JSON:
        """What each deployment costs and how much of it idles, over an `hour`, a `day` or the `total`."""
        return self._get(f"/api/costs?window={window}")

    def maintenance(self) -> list[JSON]:
        """Windows of maintenance, the active first."""
        return list(self._get("/api/maintenance").get("maintenance", []))

    def start_maintenance(self, entities: list[str], for_s: float, since: float | None, reason: str) -> JSON:
        """Start a window, or plan it where `since` (UTC seconds) is given; answers with the window."""
        body: JSON = {"entities": entities, "for_s": for_s, "reason": reason}
        return self._post("/api/maintenance", body | ({} if since is None else {"from": since}))

    def end_maintenance(self, name: str) -> JSON:
        """End a window that a person started."""
        return self._post(f"/api/maintenance/{quote(name, safe='')}/end")

    def approve(self, action: str, by: str, changes: JSON) -> JSON:
        """Let an action that asks for approval happen; `changes`: fields of its target that are to be other than asked."""
        return self._post(f"/api/actions/{quote(action, safe='')}/approve", {"by": by, "set": changes})

    def reject(self, action: str, by: str) -> JSON:
        """Refuse an action that asks for approval."""
        return self._post(f"/api/actions/{quote(action, safe='')}/reject", {"by": by})

    def stop(self, by: str, reason: str, freeze: bool) -> JSON:
        """Nothing is decided or done any more."""
        return self._post("/api/stop", {"by": by, "reason": reason, "freeze": freeze})

    def start(self, by: str, reason: str) -> JSON:
        """Take back what people stopped."""
        return self._post("/api/start", {"by": by, "reason": reason})

    def feedback(self, incident: str, verdict: str, by: str) -> JSON:
        """`verdict` is `false_alarm` or `useful`."""
        return self._post(f"/api/incidents/{quote(incident, safe='')}/feedback", {"verdict": verdict, "by": by})

    def models(self) -> JSON:
        """Which model of each detector serves, and what is tried beside it."""
        return self._get("/api/models")

    def promote(self, detector: str) -> JSON:
        """Let the candidate of a detector serve."""
        return self._post(f"/api/models/{quote(detector, safe='')}/promote")

    def roll_back(self, detector: str) -> JSON:
        """Call back the model that served before."""
        return self._post(f"/api/models/{quote(detector, safe='')}/rollback")

    def learned(self) -> JSON:
        """What was learned, kind by kind."""
        return self._get("/api/learned")

    def learned_of(self, kind: str, names: list[str], limit: int = 100) -> JSON:
        """Of one kind, what these name (globs); all where there are none."""
        query = urlencode([("limit", str(limit)), *(("name", name) for name in names)])
        return self._get(f"/api/learned/{quote(kind, safe='')}?{query}")

    def learned_files(self, out: Path) -> None:
        """All that was learned as an archive, written to a file."""
        load(f"{self.server}/api/learned/export", out, token=self._token)

    def forget(self, kind: str, names: list[str], by: str) -> JSON:
        """Forget of one kind what these name; all where there are none. `matches`: how many that are."""
        return self._post(f"/api/learned/{quote(kind, safe='')}/reset", {"names": names, "by": by})

    def capsules(self) -> JSON:
        """What incidents kept of the telemetry around them, and how the making of it goes."""
        return self._get("/api/capsules")

    def capsule(self, name: str, out: Path) -> None:
        """The capsule of an incident as an archive, written to a file."""
        load(f"{self.server}/api/capsules/{quote(name, safe='')}", out, token=self._token)

    def _get(self, path: str) -> JSON:
        return self._checked(ask(self.server + path, token=self._token, timeout_s=self._timeout_s))

    def _post(self, path: str, body: JSON | None = None) -> JSON:
        answer = ask(self.server + path, body=body, post=True, token=self._token, timeout_s=self._timeout_s)
        return self._checked(answer)

    def _checked(self, answer: Any) -> JSON:
        if answer is None:
            return {}
        if not isinstance(answer, dict):
            raise Unreachable(f"{self.server}: does not answer like aiops. Is another program listening there?")
        return answer
