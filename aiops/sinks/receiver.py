"""The half that all receivers of messages share: report in, news out, through the outbox."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiops import serial
from aiops.interfaces import Clock
from aiops.secretfile import Secret
from aiops.sinks import news
from aiops.sinks.http import Reply
from aiops.sinks.outbox import Message, Outbox, Pace
from aiops.types import Report

JSON = dict[str, Any]
Render = Callable[[str, JSON], JSON]  # (opened | updated | resolved, incident in the form of aiops.serial) -> body


class Receiver:
    """A Sink: queues a message whenever an incident has news. What was last said survives a restart."""

    def __init__(self, folder: Path, name: str, render: Render, send: Callable[[Message], Reply], clock: Clock,
                 minimum: str = "warning", pace: Pace | None = None) -> None:
        self.name, self._render, self._minimum = name, render, minimum
        self.outbox = Outbox(folder, name, send, clock, pace)
        self.error = ""

    def start(self) -> None:
        """Begin to deliver, in a thread."""
        self.outbox.start()

    def publish(self, report: Report) -> None:
        """Queue what is news. Never raises."""
        for incident in report.incidents:
            self.tell(serial.incident(incident), report.at)

    def tell(self, form: JSON, at: float) -> None:
        """The same for one incident in the form of aiops.serial. A queue that cannot be written shows in the status."""
        try:
            self._tell(form, at)
            self.error = ""
        except (sqlite3.Error, OSError, ValueError) as e:
            self.error = f"{self.name}: the message about {form['id']} could not be queued: {e}"

    def _tell(self, form: JSON, at: float) -> None:
        before, now = self.outbox.recall(form["id"]), news.said(form, at)
        kind = news.kind(before, now, self._minimum)
        if kind is None:
            return
        if kind == "updated" and (self.outbox.pending(form["id"]) or {}).get("kind") == "opened":
            kind = "opened"  # the receiver has not heard of it yet
        self.outbox.put(form["id"], {"kind": kind, **self._render(kind, form)})
        self.outbox.remember(form["id"], now)

    def status(self) -> JSON:
        """Name, waiting, dead, delivered, failures, error."""
        status = self.outbox.status()
        return {**status, "error": self.error or status["error"]}

    def close(self) -> None:
        self.outbox.close()


def said(secret: str | Secret) -> str:
    """What a secret is now."""
    return secret if isinstance(secret, str) else secret()
