"""What is remembered over a restart. Policies: attempts, cooldowns, breakers, and how often what helped; a daemon that
forgot them would act again on the same fault in each of its lives. Masks: windows of maintenance, and what people said.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import structlog

from aiops.masks import Masks
from aiops.pipeline import Decider
from aiops.types import Report

log = structlog.get_logger("aiops.memory")


class Keeper(Protocol):
    """Something whose state is plain JSON."""

    def state(self) -> dict[str, Any]: ...
    def restore(self, state: Mapping[str, Any]) -> None: ...


class Memory:
    """A sink that writes the state of something whenever it is `due`.

    `restored` is what was found at the start, {} for nothing: the journal keeps it, so that a replay starts from the same.
    A damaged file is set aside and said so; a disk that refuses is said so and tried again with the next decision.
    """

    def __init__(self, path: Path, keeper: Keeper) -> None:
        self._path, self._keeper = path, keeper
        self.restored = self._restored()

    def due(self, report: Report) -> bool:
        """Whether the state must be written after this step."""
        raise NotImplementedError

    def _restored(self) -> dict[str, Any]:
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
            if found:
                self._keeper.restore(found)
            return dict(found)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
            aside = self._path.with_suffix(".damaged")
            log.error("starts without its memory", file=str(self._path), problem=str(e), kept_as=str(aside))
            self._path.replace(aside)
            return {}

    def publish(self, report: Report) -> None:
        if self.due(report):
            self._write(json.dumps(self._keeper.state(), sort_keys=True))

    def _write(self, text: str) -> None:
        part = self._path.with_suffix(".part")
        try:
            part.write_text(text, encoding="utf-8")
            part.replace(self._path)
        except OSError as e:
            log.error("cannot write its memory", file=str(self._path), problem=e.strerror)

    def close(self) -> None:
        """Every state is on disk already."""


class PolicyMemory(Memory):
    """The decider's: written whenever something was decided or came back."""

    def __init__(self, path: Path, decider: Decider) -> None:
        super().__init__(path, decider)

    def due(self, report: Report) -> bool:
        return bool(report.actions or report.outcomes)


class MaskMemory(Memory):
    """The masks': written whenever somebody said something, and when an incident opened or closed."""

    def __init__(self, path: Path, masks: Masks) -> None:
        super().__init__(path, masks)
        self._masks, self._written = masks, masks.revision

    def due(self, report: Report) -> bool:
        before, self._written = self._written, self._masks.revision
        return self._written != before
