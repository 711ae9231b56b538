"""Reads of the Prometheus HTTP API: discovery, metadata, range queries, raw samples.

https://prometheus.io/docs/prometheus/latest/querying/api/ - also spoken by Thanos, Mimir, Cortex and VictoriaMetrics.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from aiops.types import Floats, Kind

if TYPE_CHECKING:
    from prometheus_api_client import PrometheusConnect
    from requests import Response, Session

MAX_POINTS = 11_000  # what Prometheus accepts for one series in one range query
Labels = dict[str, str]
Read = tuple[Labels, Floats, Floats]
# What a metric family consists of. https://prometheus.io/docs/concepts/metric_types/
_MEMBERS: dict[str, dict[str, Kind]] = {
    "counter": {"": "counter", "_total": "counter"},
    "gauge": {"": "gauge"},
    "histogram": {"_bucket": "counter", "_sum": "counter", "_count": "counter"},
    "summary": {"": "gauge", "_sum": "counter", "_count": "counter"},
}


class SourceError(Exception):
    """A source could not be read. `status` is the HTTP status, 0 where no answer came at all."""

    def __init__(self, url: str, what: str, remedy: str, status: int = 0) -> None:
        super().__init__(f"{url}: {what} {remedy}".strip())
        self.url, self.what, self.remedy, self.status = url, what, remedy, status


class PromApi:
    """One Prometheus. Blocking; every method raises SourceError.

    `warnings` holds what the server said about partial results. timeout_s bounds each request; `token` is
    sent as a bearer token, `tenant` as X-Scope-OrgID (Mimir, Cortex, Loki).
    """

    def __init__(self, url: str, *, timeout_s: float = 30.0, token: str = "", tenant: str = "",
                 retries: int = 2) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise SourceError(url, "not a URL of a Prometheus server.", "Write it like http://prometheus:9090.")
        self.url = url.rstrip("/")
        self.timeout_s, self._retries = timeout_s, retries
        self.warnings: list[str] = []
        headers = {"Authorization": f"Bearer {token}" if token else "", "X-Scope-OrgID": tenant}
        self._headers = {name: value for name, value in headers.items() if value}
        self._opened: tuple[Session, PrometheusConnect] | None = None

    def series(self, match: str, start: float, end: float) -> list[Labels]:
        """The label sets (with `__name__`) that had samples between start and end."""
        when = [datetime.fromtimestamp(t, UTC) for t in (start, end)]
        found = self._ask(lambda c: c.get_series(when[0], when[1], params={"match[]": match}))
        return [dict(labels) for labels in found]

    def metadata(self) -> dict[str, Kind]:
        """Metric -> gauge or counter, as the targets declare it. Empty where the server keeps no metadata."""
        data = self._ask(lambda c: self._session().get(
            f"{self.url}/api/v1/metadata", headers=self._headers, timeout=self.timeout_s).json()["data"])
        return {metric: kind for family, entries in data.items() if entries
                for metric, kind in _members(family, str(entries[0].get("type", "")))}

    def range(self, query: str, start: float, end: float, step_s: float) -> Iterator[Read]:
        """Evaluates `query` at start, start + step, … <= end: (labels, times float64[n], values float64[n]).

        A long time is asked for in pieces of at most 11,000 points: the same labels may come several times, in order.
        """
        if not step_s > 0 or end < start:
            raise ValueError(f"range needs step > 0 and end >= start, got {step_s:g} from {start:g} to {end:g}")
        points = int((end - start) / step_s + 1e-9) + 1
        for first in range(0, points, MAX_POINTS):
            last = min(points, first + MAX_POINTS) - 1
            yield from self._matrix("query_range", {"query": query, "start": start + first * step_s,
                                                    "end": start + last * step_s, "step": step_s})

    def raw(self, selector: str, start: float, end: float, chunk_s: float = 3600.0) -> Iterator[Read]:
        """Stored samples with start < time <= end, with the times of the scrapes and with real gaps.

        `selector` is a plain series selector. A range query would repeat the last sample for five minutes after
        a target has gone. https://prometheus.io/docs/prometheus/latest/querying/basics/#range-vector-selectors
        """
        at = start
        while at < end:
            until = min(at + chunk_s, end)
            width_ms = int(np.ceil((until - at) * 1000)) + 1
            for labels, times, values in self._matrix("query", {"query": f"{selector}[{width_ms}ms]", "time": until}):
                new = (times > at) & (times <= until)
                if new.any():
                    yield labels, times[new], values[new]
            at = until

    def instant(self, query: str, at: float) -> list[tuple[Labels, float, float]]:
        """(labels, time, value) of an instant query that gives a vector."""
        found = self._ask(lambda c: c.custom_query(query, params={"time": f"{at:.3f}"}))
        return [(dict(r["metric"]), float(r["value"][0]), float(r["value"][1])) for r in found if "value" in r]

    def close(self) -> None:
        if self._opened:
            self._opened[0].close()
            self._opened = None

    def _matrix(self, path: str, params: Mapping[str, object]) -> Iterator[Read]:
        query = str(params["query"])
        rest = {k: f"{v:.3f}" if isinstance(v, float) else v for k, v in params.items() if k != "query"}
        if path == "query":
            found = self._ask(lambda c: c.custom_query(query, params=rest))
        else:
            epoch = datetime.fromtimestamp(0, UTC)  # the library rounds its times to seconds; `params` override them
            found = self._ask(lambda c: c.custom_query_range(query, epoch, epoch, step="", params=rest))
        for result in found:
            pairs = result.get("values", ())
            times = np.fromiter((p[0] for p in pairs), np.float64, len(pairs))
            values = np.array([p[1] for p in pairs], dtype="U32").astype(np.float64)
            yield dict(result["metric"]), times, values

    def _session(self) -> Session:
        return self._client_and_session()[0]

    def _client_and_session(self) -> tuple[Session, PrometheusConnect]:
        if self._opened is None:
            import requests
            from prometheus_api_client import PrometheusConnect
            from urllib3.util import Retry
            session = requests.Session()
            session.hooks["response"].append(self._check)
            retry = Retry(total=self._retries, read=0, backoff_factor=0.2, status_forcelist=(502, 503, 504),
                          allowed_methods=None, raise_on_status=False)
            client = PrometheusConnect(self.url, headers=self._headers, session=session, retry=retry,
                                       timeout=self.timeout_s)
            self._opened = session, client
        return self._opened

    def _check(self, response: Response, **_: object) -> None:
        """The client library drops both the message of an error and the warnings of a partial result; keep them."""
        if response.is_redirect:
            return
        if not response.ok:
            raise SourceError(self.url, f"HTTP {response.status_code}: {_message(response)}",
                              _remedy(response.status_code), response.status_code)
        if b'"warnings"' in response.content or b'"infos"' in response.content:
            body = response.json()
            for text in [*(body.get("warnings") or []), *(body.get("infos") or [])]:
                if text not in self.warnings[-100:]:
                    self.warnings.append(text)

    def _unanswered(self, error: Exception) -> SourceError:
        """A time-out, which comes in several wrappings, or no connection at all."""
        inner: Any = error.args[0] if error.args else error
        text = str(getattr(inner, "reason", inner))
        if "timed out" in text:
            return SourceError(self.url, f"no answer within {self.timeout_s:g} s.", "Ask for less, or raise the timeout.")
        known = re.search(r"\[Errno -?\d+\] ([^'\")]+)", text)
        return SourceError(self.url, f"cannot be reached: {known[1] if known else text}.", "Is Prometheus running there?")

    def _ask(self, call: Any) -> Any:
        import requests
        from prometheus_api_client.exceptions import PrometheusApiClientException
        try:
            return call(self._client_and_session()[1])
        except (requests.Timeout, requests.ConnectionError) as e:
            raise self._unanswered(e) from None
        except (requests.RequestException, PrometheusApiClientException) as e:
            raise SourceError(self.url, f"{e}.", "Is this the address of a Prometheus server?") from None
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as e:
            raise SourceError(self.url, f"the answer is not of the Prometheus API ({type(e).__name__}).",
                              "Is this the address of a Prometheus server?") from None


def _members(family: str, declared: str) -> list[tuple[str, Kind]]:
    """The series names of a family and their kinds; nothing where the type says nothing."""
    return [(family + suffix, kind) for suffix, kind in _MEMBERS.get(declared, {}).items()]


def _message(response: Response) -> str:
    """Prometheus puts its message under `error`; proxies answer with a page of HTML."""
    try:
        return str(response.json()["error"]).rstrip(".") + "."
    except (ValueError, KeyError, TypeError):
        return f"{response.text.strip()[:120] or response.reason}."


def _remedy(status: int) -> str:
    if status in (401, 403):
        return "Check the bearer token and the tenant."
    if status in (400, 422):
        return "Check the selector or query."
    if status == 404:
        return "Is the path prefix of the URL right?"
    return "See the log of the Prometheus server."
