"""Calls of the action Webhook: one signed POST to an endpoint of the configuration, and what its answer means.

Signed after Standard Webhooks, as the notices of incidents are. Taken (2xx); turned down (3xx, 4xx): nothing was done; too many
(429), not there (503, no connection): later; anything else, a time-out above all: nobody knows, and it is not repeated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from aiops.changes import Change
from aiops.interfaces import Ambiguous, Clock, Refused, Retry
from aiops.secretfile import Secret
from aiops.sinks.http import Reply, post
from aiops.sinks.receiver import said
from aiops.sinks.webhook import key, sign

PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`secret`: what it is signed with, or what says it, where it rotates; empty for no signature."""

    url: str = field(repr=False)
    secret: str | Secret = field(default="", repr=False)


class WebhookCalls:
    """The endpoints by their names. An address never gets into a text."""

    def __init__(self, endpoints: Mapping[str, Endpoint], clock: Clock) -> None:
        self._endpoints, self._clock = dict(endpoints), clock

    def check(self, change: Change) -> None:
        """Raises Refused for a name that the configuration does not know."""
        self._endpoint(change)

    def send(self, change: Change) -> None:
        """Raises Retry, Refused or Ambiguous."""
        endpoint, name = self._endpoint(change), str(change.body["id"])
        body, now = msgspec.json.encode(dict(change.body)), self._clock.now()
        headers = {"Content-Type": "application/cloudevents+json; charset=utf-8", "Idempotency-Key": name}
        if secret := said(endpoint.secret):
            headers |= sign(key(secret), name, int(now), body)
        _judge(change.entity, post(endpoint.url, body, headers, now))

    def _endpoint(self, change: Change) -> Endpoint:
        name = change.entity.rpartition("/")[2]
        if name not in self._endpoints:
            known = ", ".join(sorted(self._endpoints)) or "none"
            raise Refused(f"no webhook is called {name!r}. Known: {known}. Add it to webhooks in the configuration.")
        return self._endpoints[name]


def _judge(who: str, reply: Reply) -> None:
    words = f"{who}: HTTP {reply.status}: {reply.text[:200]}" if reply.status else f"{who}: {reply.text}"
    if reply.ok:
        return
    if reply.status in (429, 503) or not reply.sent:
        raise Retry(words, min(reply.retry_after_s or PATIENCE_S, 300.0))
    if reply.permanent:
        raise Refused(words)
    raise Ambiguous(words)
