"""Error lines per entity: more than usual, or a kind of error never seen before.

Counts error-level lines in each tick and compares them with the entity's own past rate (Poisson tail with a robust
rate). A new error text - masked of numbers, hex and quoted parts - is evidence of its own. The full template miner is
another matter; this one keeps at most 1,000 masked texts an entity.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from aiops.types import Anomaly, Frame, LogLine

REPORT_P = 1e-3
READY_TICKS = 30
FORGET = 0.02
MIN_RATE = 0.05
MAX_TEXTS, MAX_ENTITIES = 1000, 10_000
NEW_TEXT_P = 1e-4
_ERROR = re.compile(r"\b(ERROR|ERR|FATAL|CRITICAL|PANIC|SEVERE|EMERG|ALERT)\b|Exception\b|Traceback|\w+Error\b"
                    r"|OutOfMemory|panic:|segfault|No space left on device", re.IGNORECASE)
_VARIABLE = re.compile(r"0x[0-9a-fA-F]+|\b[0-9a-fA-F]{8,}\b|\d+|\"[^\"]*\"|'[^']*'")


class Logs:
    """State: a rate and the known masked error texts per entity that ever logged an error."""

    VERSION = 1
    BY_SIGNAL = ()

    def __init__(self) -> None:
        self._rate: dict[str, float] = {}
        self._ticks: dict[str, int] = {}
        self._texts: dict[str, dict[str, None]] = {}

    def observe(self, frame: Frame) -> Sequence[Anomaly]:
        errors: dict[str, list[LogLine]] = {}
        for line in frame.lines:
            self._first_seen(line.entity)
            if is_error(line.text):
                errors.setdefault(line.entity, []).append(line)
        found = [a for entity in sorted(errors) for a in self._judge(frame.at, entity, errors[entity])]
        for entity in self._ticks:
            self._learn(entity, errors.get(entity, []), entity in frame.held)
        return found

    def _first_seen(self, entity: str) -> None:
        if entity not in self._ticks and len(self._ticks) < MAX_ENTITIES:
            self._ticks[entity], self._rate[entity], self._texts[entity] = 0, 0.0, {}

    def _judge(self, at: float, entity: str, lines: list[LogLine]) -> list[Anomaly]:
        if self._ticks.get(entity, 0) < READY_TICKS:
            return []
        p = poisson_tail(len(lines), max(self._rate[entity], MIN_RATE))
        new = [line for line in lines if masked(line.text) not in self._texts[entity]]
        if new:
            p *= NEW_TEXT_P / REPORT_P
        if p >= REPORT_P:
            return []
        shown = (new or lines)[0]
        kind = "new error" if new else "errors"
        text = f"{len(lines)} error lines in one tick ({self._rate[entity]:.2g} usual), {kind}: {shown.text[:200]}"
        return [Anomaly(at, entity, "log_errors", 1.0 - p, max(p, 1e-300), "logs", -1, float(len(lines)),
                        self._rate[entity], onset=min(line.time for line in lines), text=text)]

    def _learn(self, entity: str, lines: list[LogLine], held: bool) -> None:
        self._ticks[entity] += 1
        if held:
            return
        rate = self._rate[entity]
        share = max(FORGET, 1.0 / self._ticks[entity])
        limit = rate + 3.0 * math.sqrt(rate + 1.0) if self._ticks[entity] > READY_TICKS else math.inf
        self._rate[entity] = rate + share * (min(float(len(lines)), limit) - rate)
        texts = self._texts[entity]
        for line in lines:
            texts[masked(line.text)] = None
        while len(texts) > MAX_TEXTS:
            del texts[next(iter(texts))]

    def state(self) -> dict[str, Any]:
        return {"rate": dict(self._rate), "ticks": dict(self._ticks), "texts": {k: list(v) for k, v in self._texts.items()}}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._rate, self._ticks = dict(state["rate"]), dict(state["ticks"])
        self._texts = {k: dict.fromkeys(v) for k, v in state["texts"].items()}


def is_error(text: str) -> bool:
    """Does the line speak of an error? Level words and the usual spellings of exceptions."""
    return _ERROR.search(text[:500]) is not None


def masked(text: str) -> str:
    """The line without what varies from one occurrence to the next."""
    return _VARIABLE.sub("*", text[:300])


def poisson_tail(count: int, rate: float) -> float:
    """P(X >= count) for X ~ Poisson(rate), by its Chernoff bound beyond the mean: cheap, and never too small."""
    if count <= rate:
        return 1.0
    return math.exp(count - rate - count * math.log(count / rate))
