"""Incidents in Slack, through an incoming webhook or as a bot.

With a webhook every piece of news is a message of its own
(https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks).
With a bot token and a channel there is one message an incident, updated in place, and the news go into its thread.
The address and the token are secrets: they appear in no text, log or repr.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from aiops.interfaces import Clock
from aiops.secretfile import Secret
from aiops.sinks.blocks import message
from aiops.sinks.http import Reply, check_url, post
from aiops.sinks.outbox import Message, Pace
from aiops.sinks.receiver import Receiver, said

JSON = dict[str, Any]
_TRANSIENT = {"internal_error", "fatal_error", "service_unavailable", "request_timeout", "ratelimited", "team_added_to_org"}


class Slack(Receiver):
    """A Sink. Give `url` (incoming webhook), or `token` and `channel` (bot with chat:write); either may be one that rotates.

    folder: where the outbox lives. page: the address of our page for links, empty for none. minimum: the least severity that
    is told. Raises ValueError when neither way is complete; call `start` to deliver.
    """

    def __init__(self, folder: Path, clock: Clock, url: str | Secret = "", token: str | Secret = "", channel: str = "",
                 page: str = "", minimum: str = "warning", pace: Pace | None = None, api: str = "https://slack.com/api") -> None:
        if bool(url) == bool(token) or (token and not channel):
            raise ValueError("slack: give either the address of an incoming webhook, or a token and a channel")
        try:
            if url:
                check_url(said(url))
            self.__url, self.__api = url, check_url(api)
        except ValueError as e:
            raise ValueError(f"slack: the configured address is {e}") from None
        self.__token, self._channel, self._clock = token, channel, clock
        super().__init__(folder, "slack", lambda kind, form: message(kind, form, page), self._deliver, clock, minimum, pace)

    def __repr__(self) -> str:
        return f"Slack({self._channel or 'incoming webhook'})"

    def _deliver(self, m: Message) -> Reply:
        body = {k: m.body[k] for k in ("text", "blocks")}
        if self.__url:
            return self._post(said(self.__url), body, {})
        return self._in_thread(m, body)

    def _in_thread(self, m: Message, body: JSON) -> Reply:
        """Post the incident's message, or update it and add the news below it. A repetition changes nothing visible."""
        key = f"{m.subject} ts"
        known = self.outbox.recall(key)
        if not known:
            reply, answer = self._call("chat.postMessage", {"channel": self._channel, **body})
            if reply.ok:
                self.outbox.remember(key, {"ts": answer.get("ts", ""), "channel": answer.get("channel", self._channel)})
            return reply
        reply, _ = self._call("chat.update", {**known, **body})
        if not reply.ok:
            return reply
        return self._call("chat.postMessage", {**_thread(known), "text": m.body["text"]})[0]

    def _call(self, method: str, body: JSON) -> tuple[Reply, JSON]:
        """Slack answers 200 with `ok: false` for what it refuses; that becomes a status we understand."""
        reply = self._post(f"{self.__api}/{method}", body, {"Authorization": f"Bearer {said(self.__token)}"})
        if not reply.ok:
            return reply, {}
        try:
            answer = json.loads(reply.text)
        except ValueError:
            return Reply(502, "the answer is not JSON"), {}
        if not isinstance(answer, dict):
            return Reply(502, "the answer is not an object"), {}
        if not answer.get("ok"):
            error = str(answer.get("error", "unknown"))
            return Reply(503 if error in _TRANSIENT else 400, f"{method}: {error}"), {}
        return reply, answer

    def _post(self, url: str, body: JSON, headers: dict[str, str]) -> Reply:
        data = json.dumps(body).encode()
        return post(url, data, {"Content-Type": "application/json; charset=utf-8", **headers}, self._clock.now())


def _thread(known: JSON) -> JSON:
    return {"channel": known["channel"], "thread_ts": known["ts"]}
