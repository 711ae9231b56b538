"""What is remembered over a restart. Policies: attempts, cooldowns, breakers, and how often what helped; a daemon that
forgot them would act again on the same fault in each of its lives. Masks: windows of maintenance, and what people said.
Incidents: those that are over. Models: what detectors learned.
"""

from __future__ import annotations

import json
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import structlog

from aiops.costs import Costs
from aiops.models import Learned
from aiops.pipeline import Pipeline
from aiops.store.models import ModelFiles
from aiops.types import Report

log = structlog.get_logger("aiops.memory")
SAVE_EVERY_S = 900.0


class Keeper(Protocol):
    """Something whose state is plain JSON."""

    def state(self) -> dict[str, Any]: ...
    def restore(self, state: Mapping[str, Any]) -> None: ...


class Revised(Keeper, Protocol):
    """One that counts its changes."""

    @property
    def revision(self) -> int: ...


class Memory(ABC):
    """A sink that writes the state of something whenever it is `due`.

    `restored` is what was found at the start, {} for nothing: the journal keeps it, so that a replay starts from the same.
    A damaged file is set aside and said so; a disk that refuses is said so and tried again with the next decision.
    """

    def __init__(self, path: Path, keeper: Keeper) -> None:
        self._path, self._keeper = path, keeper
        self.restored = self._restored()

    @abstractmethod
    def due(self, report: Report) -> bool:
        """Whether the state must be written after this step."""

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

    def close(self) -> None:  # noqa: B027 - nothing is held open
        """Every state is on disk already."""


def remembered(path: Path) -> dict[str, Any]:
    """What such a file holds now; {} where that cannot be read."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


class RevisionMemory(Memory):
    """Of what counts its changes (masks, incidents that are over): written whenever it has another revision."""

    def __init__(self, path: Path, keeper: Revised) -> None:
        super().__init__(path, keeper)
        self._revised, self._written = keeper, keeper.revision

    def due(self, report: Report) -> bool:
        before, self._written = self._written, self._revised.revision
        return self._written != before


class PolicyMemory(RevisionMemory):
    """The decider's: written whenever something was decided, came back, or was said."""

    def due(self, report: Report) -> bool:
        return super().due(report) or bool(report.actions or report.outcomes)


class Found(NamedTuple):
    """When what was learned was saved, and whether the run ended in good order then."""

    at: float
    ended: bool


class CostMemory(Memory):
    """What was added up of costs: written every quarter of an hour, in event time."""

    def __init__(self, path: Path, costs: Costs) -> None:
        super().__init__(path, costs)
        self._written = -math.inf

    def due(self, report: Report) -> bool:
        if report.at - self._written < SAVE_EVERY_S:
            return False
        self._written = report.at
        return True

    def close(self) -> None:
        """Write once more what has come since."""
        self._write(json.dumps(self._keeper.state(), sort_keys=True))


class ModelMemory:
    """Reads what an earlier run learned, hands it to the pipeline, and writes it down every quarter of an hour.

    A sink for reports about now: history comes faster than a disk can write. In event time, in a thread of its own; at
    once when a model took over or a person spoke. `found` is what was read at the start, None for nothing. `now`: see
    `Pipeline.restore`. Never raises: a disk that refuses is said so, and tried again.
    """

    def __init__(self, files: ModelFiles, pipeline: Pipeline, now: float) -> None:
        self._files, self._pipeline = files, pipeline
        self._writer: threading.Thread | None = None
        found = files.read()
        self.found = found and Found(found.at, found.ended)
        self._saved_at = -math.inf
        if found is not None:
            pipeline.restore(found, now)
            self._saved_at = min(found.at, now)
            self._keep_what_is_not_used(found)
        for note in files.notes:
            log.error("models", problem=note)

    @property
    def since(self) -> float | None:
        """Up to when everything was learned; None where some model needs the past from the beginning."""
        return None if self.found is None or self._pipeline.models.fresh else self._saved_at

    def _keep_what_is_not_used(self, found: Learned) -> None:
        for g in self._pipeline.models.all:
            if g.serving.fresh and g.name in found.lineages:
                self._files.keep_a_copy(g.name)

    def publish(self, report: Report) -> None:
        due = report.at - self._saved_at >= SAVE_EVERY_S
        if report.model_events:
            self._wait()
            self._write(self._pipeline.learned())
        elif due and not (self._writer and self._writer.is_alive()):
            learned = self._pipeline.learned()  # copies, made here: the pipeline goes on while they are written
            self._writer = threading.Thread(target=self._write, args=(learned,), name="models", daemon=True)
            self._writer.start()
        else:
            return
        self._saved_at = report.at

    def _write(self, learned: Learned) -> None:
        try:
            self._files.write(learned)
        except (OSError, TypeError, ValueError) as e:
            log.error("what was learned cannot be written", folder=str(self._files.folder), problem=str(e))

    def _wait(self) -> None:
        if self._writer:
            self._writer.join()

    def link_into(self, folder: Path) -> None:
        """What the run begins with, beside its journal."""
        try:
            self._files.link_into(folder)
        except OSError as e:
            log.error("the journal of this run will not replay alike", folder=str(folder), problem=str(e))

    def end(self, orderly: bool) -> None:
        """The end of the run: all that was learned, unless a step still hangs in the middle of learning."""
        self._wait()
        learned = self._pipeline.learned(ended=True) if orderly else None
        if learned is not None and math.isfinite(learned.at):
            self._write(learned)

    def close(self) -> None:
        """Nothing is held open."""
