"""Incidents to any HTTP receiver: a CloudEvent (structured mode, JSON), signed after Standard Webhooks.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md
https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
The signature covers `ID.TIMESTAMP.BODY`; a repeated delivery has the same id, so that receivers can drop the second.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from pathlib import Path
from typing import Any

import msgspec

from aiops.humanise import iso
from aiops.interfaces import Clock
from aiops.secretfile import Secret
from aiops.sinks.http import Reply, check_url, post
from aiops.sinks.outbox import Message, Pace
from aiops.sinks.receiver import Receiver, said

JSON = dict[str, Any]


class Webhook(Receiver):
    """A Sink. secret: `whsec_BASE64` as Standard Webhooks writes it, or any other text as it is; empty for no signature;
    or what says it, where it rotates.

    name: tells several webhooks apart (file name of the outbox). source: who we are, in the event. Raises ValueError when
    the address or the secret cannot be used; neither is repeated in a text.
    """

    def __init__(self, folder: Path, clock: Clock, url: str, secret: str | Secret = "", name: str = "webhook",
                 source: str = "/aiops", minimum: str = "info", pace: Pace | None = None) -> None:
        try:
            key(said(secret))
            self.__url, self.__secret = check_url(url), secret
        except ValueError as e:
            raise ValueError(f"{name}: the configured address or secret is {e}") from None
        self._source, self._clock = source, clock
        super().__init__(folder, name, self._event, self._deliver, clock, minimum, pace)

    def __repr__(self) -> str:
        return f"Webhook({self.name})"

    def _event(self, kind: str, form: JSON) -> JSON:
        return {
            "specversion": "1.0", "type": f"io.aiops.incident.{kind}", "source": self._source, "subject": form["id"],
            "time": iso(form["updated_at"]), "datacontenttype": "application/json", "data": form,
        }

    def _deliver(self, m: Message) -> Reply:
        now, name = self._clock.now(), f"msg_{self.outbox.epoch}_{m.id}"
        event = {k: v for k, v in m.body.items() if k != "kind"}
        body = msgspec.json.encode({**event, "id": name})
        headers = {"Content-Type": "application/cloudevents+json; charset=utf-8"}
        if secret := said(self.__secret):
            headers |= sign(key(secret), name, int(now), body)
        return post(self.__url, body, headers, now)


def key(secret: str) -> bytes:
    """The bytes to sign with. Raises ValueError when what follows `whsec_` is not base64."""
    secret = secret.strip()
    if not secret.startswith("whsec_"):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        raise ValueError("not valid: what follows 'whsec_' must be base64") from None


def sign(secret: bytes, name: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers of Standard Webhooks."""
    digest = hmac.new(secret, f"{name}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return {"webhook-id": name, "webhook-timestamp": str(timestamp),
            "webhook-signature": "v1," + base64.b64encode(digest).decode()}
