"""The way to one Prometheus: credentials, TLS, limits, errors in words - and one query at a time.

However many sources name a server, it gets one query at a time from this process, and what reads history takes a share of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

from aiops.clock import WallClock
from aiops.interfaces import Clock
from aiops.sources.access import Access, SourceError
from aiops.sources.prometheus.errors import MAX_AFTER_S, REMEDY, remedy, retry_after, timed_out, told, unanswered, untrusted

if TYPE_CHECKING:
    from prometheus_api_client import PrometheusConnect
    from requests import Response, Session

MAX_BODY_BYTES = 256 * 1024 * 1024
"""Of one answer, unpacked. Whoever meets it asks for less."""
MAX_ERROR_BYTES = 64 * 1024
SKEW_S = 2.0
"""Clocks that differ by less are taken for equal: the server tells its time in whole seconds."""


class Turn:
    """A server's queue of one. `free_at`: when (monotonic seconds) whoever reads history may ask again."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.free_at = float("-inf")


_turns: WeakValueDictionary[str, Turn] = WeakValueDictionary()
_turns_lock = threading.Lock()


def turn_of(url: str) -> Turn:
    """The one queue of that server, whatever the path of the URL."""
    parts = urlsplit(url)
    with _turns_lock:
        return _turns.setdefault(f"{parts.scheme}://{parts.netloc.rpartition('@')[2].lower()}", Turn())


class PromHttp:
    """Requests to one server. Blocking; every method raises SourceError. Not for several threads at once.

    timeout_s bounds each request; Prometheus is asked to give up then as well. retries: how often a server that is not
    there, or answers 502, 503 or 504, is asked again at once. `skew_s`: seconds that the server's clock is ahead of ours,
    0 where nobody knows.
    """

    def __init__(self, url: str, access: Access | None = None, *, timeout_s: float = 30.0, retries: int = 2,
                 max_bytes: int = MAX_BODY_BYTES, clock: Clock | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise SourceError(url, "not a URL of a Prometheus server.", "Write it like http://prometheus:9090.")
        self.url, self.access, self.timeout_s = url.rstrip("/"), access or Access(), timeout_s
        self.clock: Clock = clock or WallClock()
        self.skew_s = 0.0
        self._retries, self._max_bytes = retries, max_bytes
        self._opened: tuple[tuple[bytes, ...], Session, PrometheusConnect] | None = None
        self._method = "POST"
        self._turn = turn_of(self.url)
        self._asked_at, self._began = 0.0, 0.0
        _import()

    # --------------------------------------------------------------------------------------------------- what is asked
    def query(self, path: str, form: Mapping[str, str], share: float = 1.0) -> bytes:
        """The body of an answer to `query` or `query_range`, sent as a form: selectors outgrow URLs.

        share: of the server's time that this may take. After a query of 2 s with a share of 0.5 the next one waits for 2 s.
        """
        self._wait(share)
        asked = {**form, "timeout": f"{max(1, round(self.timeout_s * 1000))}ms"}
        if not self._turn.lock.acquire(timeout=self.timeout_s):
            raise SourceError(self.url, f"another query to it has run for {self.timeout_s:g} s.", "It waits for its turn.")
        began = self.clock.monotonic()
        try:
            return self._sent(f"{self.url}/api/v1/{path}", asked)
        finally:
            now = self.clock.monotonic()
            if share < 1.0:
                self._turn.free_at = now + (now - began) * (1.0 / share - 1.0)
            self._turn.lock.release()

    def library(self, call: Callable[[PrometheusConnect], Any]) -> Any:
        """What `prometheus_api_client` knows how to ask: what there is. Not for samples, which it makes into objects."""
        return self._guarded(lambda: call(self._open()[1]))

    def session(self) -> Session:
        """A session of `requests` in which every answer is bounded and checked."""
        return self._open()[0]

    def close(self) -> None:
        if self._opened:
            self._opened[1].close()
            self._opened = None

    def _wait(self, share: float) -> None:
        pause = self._turn.free_at - self.clock.monotonic() if share < 1.0 else 0.0
        if pause > 0:
            self.clock.sleep_until(self.clock.now() + min(pause, MAX_AFTER_S))

    def _sent(self, url: str, form: Mapping[str, str]) -> bytes:
        body: bytes = self._guarded(lambda: self._request(url, form).content)
        return body

    def _request(self, url: str, form: Mapping[str, str]) -> Response:
        """POST, or GET for what stands between us and Prometheus and lets nothing else pass."""
        session = self.session()
        how: dict[str, Any] = {"timeout": (min(10.0, self.timeout_s), self.timeout_s * 1.1), "allow_redirects": False,
                               "stream": True, "verify": self.access.verify}  # else REQUESTS_CA_BUNDLE would win over caFile
        if self._method == "POST":
            try:
                return session.post(url, data=form, **how)
            except SourceError as e:
                if e.status != 405:
                    raise
                self._method = "GET"
        return session.get(url, params=form, **how)

    # -------------------------------------------------------------------------------------------------------- sessions
    def _open(self) -> tuple[Session, PrometheusConnect]:
        """Made anew when a certificate on disk has changed."""
        seen = self.access.certificates()
        if self._opened is None or self._opened[0] != seen:
            self.close()
            self._opened = (seen, *self._make())
        self._began = self.clock.monotonic()
        self._asked_at = self.clock.now()
        return self._opened[1:]

    def _make(self) -> tuple[Session, PrometheusConnect]:
        import requests
        import urllib3
        from prometheus_api_client import PrometheusConnect
        session = requests.Session()
        session.auth = self._authenticate
        session.verify = self.access.verify
        session.cert = self.access.client_certificate
        session.headers["Accept-Encoding"] = "gzip"
        session.hooks["response"].append(self._checked)
        if self.access.insecure_skip_verify:
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        client = PrometheusConnect(self.url, session=session, timeout=self.timeout_s)
        session.mount(f"{self.url}/", _adapter(self._retries, self.access.server_name))  # the library has mounted its own
        return session, client

    def _authenticate(self, request: Any) -> Any:
        request.headers.update(self.access.sent())
        return request

    # --------------------------------------------------------------------------------------------------------- answers
    def _checked(self, response: Response, **_: object) -> None:
        """Before anybody sees an answer: no redirect, no error, and no more than fits."""
        self._look_at_the_clock(response)
        if 300 <= response.status_code < 400:
            scheme, host = urlsplit(response.headers.get("Location", "")[:200])[:2]
            to = f"{scheme}://{host}" if host else "another path"
            response.close()
            raise SourceError(self.url, f"HTTP {response.status_code}: it redirects to {to}.",
                              "Redirects are not followed, the token would go along. Write the address itself as url, "
                              "or credentials that its login accepts.", response.status_code)
        body = self._read(response, self._max_bytes if response.ok else MAX_ERROR_BYTES)
        if not response.ok:
            raise self._refused(response, body)

    def _read(self, response: Response, most: int) -> bytes:
        pieces, size = [], 0
        try:
            for piece in response.iter_content(1 << 20):
                pieces.append(piece)
                size += len(piece)
                if size > most and response.ok:
                    raise SourceError(self.url, f"an answer of more than {most >> 20} MiB.",
                                      "Watch fewer packs, or keep labels that nobody needs out of Prometheus.", too_much=True)
                if size > most:
                    break
                if self.clock.monotonic() - self._began > 3 * self.timeout_s:
                    raise timed_out(self.url, self.timeout_s)
        finally:
            response.close()
        body = b"".join(pieces)
        response._content = body  # as if `requests` had read it: it knows no limit
        return body

    def _refused(self, response: Response, body: bytes) -> SourceError:
        status, text = response.status_code, told(body) or f"{response.reason}."
        large, late = status in (413, 422) or "exceeded maximum resolution" in text, text.startswith("timeout:") or status == 504
        after_s = retry_after(response.headers.get("Retry-After"), self._asked_at + self.skew_s)
        return SourceError(self.url, f"HTTP {status}: {text}", remedy(status, text), status, after_s=after_s,
                           too_much=large, late=late)

    def _look_at_the_clock(self, response: Response) -> None:
        try:
            told_at = parsedate_to_datetime(response.headers["Date"]).timestamp()
        except (KeyError, ValueError, TypeError, OverflowError):
            return
        earliest, latest = told_at - self.clock.now(), told_at + 1.0 - self._asked_at
        self.skew_s = 0.0 if earliest - SKEW_S <= 0.0 <= latest + SKEW_S else (earliest + latest) / 2

    # ---------------------------------------------------------------------------------------------------------- errors
    def _guarded(self, call: Callable[[], Any]) -> Any:
        import requests
        from prometheus_api_client.exceptions import PrometheusApiClientException
        try:
            return call()
        except requests.exceptions.SSLError as e:
            raise untrusted(self.url, str(e)) from None
        except (requests.Timeout, requests.ConnectionError) as e:
            raise unanswered(self.url, self.timeout_s, e) from None
        except requests.exceptions.ChunkedEncodingError:
            raise SourceError(self.url, "the answer broke off.", "See the log of the server, or of a proxy before it.") from None
        except (requests.RequestException, PrometheusApiClientException) as e:
            raise SourceError(self.url, f"{' '.join(str(e).split())[:200]}.", REMEDY) from None
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as e:
            raise SourceError(self.url, f"the answer is not of the Prometheus API ({type(e).__name__}).", REMEDY) from None


def _import() -> None:
    """Before there are threads: two that import these at once find them half made, because they import in a circle."""
    import prometheus_api_client  # noqa: F401
    import requests  # noqa: F401


def _adapter(retries: int, server_name: str) -> Any:
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    class Adapter(HTTPAdapter):
        """Expects the certificate of `server_name`, where that is not the name in the URL."""

        def init_poolmanager(self, *args: Any, **more: Any) -> None:
            if server_name:
                more |= {"server_hostname": server_name, "assert_hostname": server_name}
            super().init_poolmanager(*args, **more)

    # `Retry` would sleep for as long as a Retry-After says, without an end; the supervisor heeds it instead.
    return Adapter(max_retries=Retry(total=retries, read=0, backoff_factor=0.2, status_forcelist=(502, 503, 504),
                                     allowed_methods=None, raise_on_status=False, respect_retry_after_header=False))
