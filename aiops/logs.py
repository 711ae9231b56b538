"""What the daemon says about itself: one line an event on stderr, for people on a terminal, as JSON elsewhere.

The logs of libraries take the same way, from WARNING on, without tracebacks. Those are shown in debugging only.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog

NOISY = ("urllib3", "uvicorn", "kubernetes", "py.warnings", "apscheduler")
"""Libraries that warn of what the state of a source, or `aiops.live` in its own words, tells already."""


def configure(debug: bool = False, stream: TextIO | None = None) -> None:
    """Set up structlog and the standard library's logging. Call once, at the start of a process."""
    out = stream or sys.stderr
    renderer: Any = structlog.processors.JSONRenderer()
    if out.isatty():
        renderer = structlog.dev.ConsoleRenderer(event_key="event", timestamp_key="at")
    structlog.configure(
        processors=[structlog.stdlib.add_log_level, structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
                    structlog.processors.format_exc_info if debug else brief, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if debug else logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(out))
    logging.captureWarnings(True)
    logging.root.handlers = [Bridge()]
    logging.root.setLevel(logging.WARNING)
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.WARNING if debug else logging.ERROR)


def brief(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """An exception as one line: its kind and its text."""
    told = event.pop("exc_info", None)
    error = told if isinstance(told, BaseException) else told[1] if isinstance(told, tuple) else sys.exc_info()[1]
    if told and error is not None:
        event["error"] = f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")
    return event


class Bridge(logging.Handler):
    """Hands records of the standard library on to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        """As a line of the logger of the same name."""
        try:
            more = {"exc_info": record.exc_info} if record.exc_info else {}
            structlog.get_logger(record.name).log(record.levelno, record.getMessage(), logger=record.name, **more)
        except Exception:  # noqa: BLE001 - logging must never stop the program; this is the standard library's own way out
            self.handleError(record)
