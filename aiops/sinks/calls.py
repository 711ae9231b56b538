"""Calls of the action Webhook: one signed POST to an endpoint of the configuration, and what its answer means.

Signed after Standard Webhooks, as the notices of incidents are. Taken (2xx); turned down (3xx, 4xx): nothing was done; too many
(429), not there (503, no connection): later; anything else, a time-out above all: nobody knows, and it is not repeated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from aiops.changes import Change
from aiops.interfaces import Ambiguous, Clock, Refused, Retry
from aiops.sinks.http import Reply, post
from aiops.sinks.webhook import key, sign

PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`secret_file`: what it is signed with, read anew for each call; None for no signature."""

    url: str = field(repr=False)
    secret_file: Path | None = None


class WebhookCalls:
    """The endpoints by their names. An address never gets into a text."""

    def __init__(self, endpoints: Mapping[str, Endpoint], clock: Clock) -> None:
        self._endpoints, self._clock = dict(endpoints), clock

    def check(self, change: Change) -> None:
        """Raises Refused for a name that the configuration does not know, and where the secret cannot be read."""
        _secret(self._endpoint(change))

    def send(self, change: Change) -> None:
        """Raises Retry, Refused or Ambiguous."""
        endpoint, name = self._endpoint(change), str(change.body["id"])
        body, now = msgspec.json.encode(dict(change.body)), self._clock.now()
        headers = {"Content-Type": "application/cloudevents+json; charset=utf-8", "Idempotency-Key": name}
        if signed_with := _secret(endpoint):
            headers |= sign(signed_with, name, int(now), body)
        _judge(change.entity, post(endpoint.url, body, headers, now))

    def _endpoint(self, change: Change) -> Endpoint:
        name = change.entity.rpartition("/")[2]
        if name not in self._endpoints:
            known = ", ".join(sorted(self._endpoints)) or "none"
            raise Refused(f"no webhook is called {name!r}. Known: {known}. Add it to webhooks in the configuration.")
        return self._endpoints[name]


def _secret(endpoint: Endpoint) -> bytes:
    """Empty for no signature. Raises Refused where the file cannot be used: nothing goes out unsigned by mistake."""
    if endpoint.secret_file is None:
        return b""
    try:
        found = key(endpoint.secret_file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        why = e.strerror if isinstance(e, OSError) else "is not valid"
        raise Refused(f"{endpoint.secret_file}: the secret cannot be used: {why}.") from None
    if not found:
        raise Refused(f"{endpoint.secret_file}: is empty. Put the secret into it.")
    return found


def _judge(who: str, reply: Reply) -> None:
    said = f"{who}: HTTP {reply.status}: {reply.text[:200]}" if reply.status else f"{who}: {reply.text}"
    if reply.ok:
        return
    if reply.status in (429, 503) or not reply.sent:
        raise Retry(said, min(reply.retry_after_s or PATIENCE_S, 300.0))
    if reply.permanent:
        raise Refused(said)
    raise Ambiguous(said)
