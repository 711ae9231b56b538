"""What happens, line by line on stderr: for people on a terminal, as JSON lines for everything else.

One line for each incident that opens, changes its cause or closes, for each decision and each outcome. The time is the
event's, so a replay prints what the live run printed.
"""

from __future__ import annotations

import json
import sys
import threading
from collections import OrderedDict
from typing import Any, TextIO

from aiops import serial, story
from aiops.account import again
from aiops.humanise import iso, utc
from aiops.types import Action, Incident, Outcome, Report

JSON = dict[str, Any]
COLOURS = {"critical": "bold red", "warning": "yellow", "info": "cyan", "good": "green", "plain": ""}
REMEMBERED = 10_000


class Console:
    """A Sink. as_json: None decides by whether `stream` is a terminal."""

    def __init__(self, stream: TextIO | None = None, as_json: bool | None = None) -> None:
        self._stream = stream or sys.stderr
        self._json = (not self._stream.isatty()) if as_json is None else as_json
        self._rich: Any = None
        self._known: OrderedDict[str, tuple[str, str]] = OrderedDict()
        self._mutex = threading.Lock()

    def publish(self, report: Report) -> None:
        """Print what is new. A closed or broken stream is not the daemon's problem."""
        with self._mutex:
            try:
                for line in self._lines(report):
                    self._print(line)
                self._stream.flush()
            except (OSError, ValueError):
                return

    def close(self) -> None:
        """Nothing is held."""

    def _lines(self, report: Report) -> list[JSON]:
        lines = [line for i in report.incidents if (line := self._incident(i))]
        lines += [_decision(a) for a in report.actions]
        lines += [_outcome(o) for o in report.outcomes]
        return lines + [{"at": report.at, "event": "note", "level": "info", "text": note} for note in report.notes]

    def _incident(self, i: Incident) -> JSON | None:
        cause = i.causes[0].entity if i.causes else ""
        before = self._known.get(i.id)
        self._known[i.id] = (i.state, cause)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        if before == (i.state, cause) or (before is None and i.state == "closed"):
            return None
        form = serial.incident(i)
        what = "closed" if i.state == "closed" else "opened" if before is None or before[0] == "closed" else "changed"
        share = f" - probable cause {story.name(cause)} ({i.causes[0].score:.0%})" if cause else ""
        seen = f" - {again(form)}" if again(form) else ""
        text = {"opened": f"{i.priority.level} {story.headline(form)}{share}{seen}", "changed": f"{story.headline(form)}{share}",
                "closed": f"{story.headline(form)}, {story.since(form, i.updated_at)}"}[what]
        return {"at": i.updated_at, "event": f"incident {what}", "level": "good" if what == "closed" else i.severity,
                "incident": i.id, "severity": i.severity, "priority": i.priority.level, "cause": cause,
                "text": text}

    def _print(self, line: JSON) -> None:
        if self._json:
            self._stream.write(json.dumps({**line, "at": iso(line["at"]), "unix": line["at"]}) + "\n")
            return
        from rich.console import Console as Rich
        from rich.text import Text

        self._rich = self._rich or Rich(file=self._stream, highlight=False, soft_wrap=True)
        text = Text(f"{utc(line['at'], '%H:%M:%S')}  ", style="dim")
        text.append(f"{line['event']:<17} ", style=COLOURS.get(line["level"], ""))
        text.append(f"{line.get('incident', ''):<10} ", style="dim")
        text.append(printable(line["text"]))
        self._rich.print(text)


def printable(text: str) -> str:
    """One line without control characters: a name from outside must not move the cursor or change colours."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(text.split()))


def _decision(a: Action) -> JSON:
    form = serial.action(a)
    return {"at": a.at, "event": f"decision {a.decision}", "level": "info" if a.decision in ("act", "ask") else "plain",
            "incident": a.incident, "action": a.id, "policy": a.policy,
            "text": f"{a.policy} {story.decision(form)} - {a.reason}"}


def _outcome(o: Outcome) -> JSON:
    level = {"helped": "good", "done": "plain", "refused": "plain"}.get(o.status, "warning")
    return {"at": o.at, "event": f"outcome {o.status}", "level": level, "action": o.action,
            "text": f"{o.action}: {story.ended(serial.outcome(o))}{' - ' + o.reason if o.reason else ''}"}
