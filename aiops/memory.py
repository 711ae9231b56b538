"""What policies remember over a restart: attempts, cooldowns, breakers, and how often what helped.

A daemon that forgot them would act again on the same fault in each of its lives.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import structlog

from aiops.pipeline import Decider
from aiops.types import Report

log = structlog.get_logger("aiops.memory")


class PolicyMemory:
    """A sink that writes the decider's state whenever something was decided or came back.

    `restored` is what was found at the start, {} for nothing: the journal keeps it, so that a replay starts from the same.
    A damaged file is set aside and said so; a disk that refuses is said so and tried again with the next decision.
    """

    def __init__(self, path: Path, decider: Decider) -> None:
        self._path, self._decider = path, decider
        self.restored = self._read()
        if self.restored:
            decider.restore(self.restored)

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
            return found if isinstance(found, dict) else {}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as e:
            aside = self._path.with_suffix(".damaged")
            log.error("policies start without a memory", file=str(self._path), problem=str(e), kept_as=str(aside))
            self._path.replace(aside)
            return {}

    def publish(self, report: Report) -> None:
        if report.actions or report.outcomes:
            self._write(json.dumps(self._decider.state(), sort_keys=True))

    def _write(self, text: str) -> None:
        part = self._path.with_suffix(".part")
        try:
            part.write_text(text, encoding="utf-8")
            part.replace(self._path)
        except OSError as e:
            log.error("policies cannot write their memory", file=str(self._path), problem=e.strerror)

    def close(self) -> None:
        """Every state is on disk already."""
