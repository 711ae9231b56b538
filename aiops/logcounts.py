"""Log lines as series: how many of each level, and of each of an entity's usual templates, in every tick.

Pure: called once a tick with its lines, in event time. Series are dense: an entity that logged lately has a value in each tick,
zero too, so that silence is a figure and not a gap.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from aiops.logframes import Joiner
from aiops.templates import Templates
from aiops.types import Entity, LogLine

LINES, TEMPLATE_LINES = "log_lines", "log_template_lines"
COUNTED = frozenset({"log_error_lines", "log_warning_lines", "log_info_lines", TEMPLATE_LINES})
"""The signals that packs/logs.yaml makes of them."""
LEVELS = ("error", "info", "warning")
OTHER = "other"
TOP = 8
"""Templates of an entity that have a series of their own; the rest is added up."""
USUAL_AFTER = 5
"""Ticks in which a template must come before it is a usual one."""
KEEP_S, EPHEMERAL_KEEP_S = 86_400.0, 3600.0
EPHEMERAL = ("pod/", "container/", "process/")
MAX_ENTITIES, MAX_CANDIDATES, MAX_SAMPLES = 5_000, 32, 5
MAX_SAMPLE_CHARS = 500


class LogCount(NamedTuple):
    """One sample: how many lines in this tick."""

    entity: Entity
    metric: str
    labels: Mapping[str, str]
    value: float


@dataclass(slots=True)
class _Entity:
    """last: when it last logged. slots: its usual templates, with when each last came; candidates: ticks in which each other
    template came. samples: of the newest error lines, one a template."""

    last: float = 0.0
    slots: dict[str, float] = field(default_factory=dict)
    candidates: dict[str, int] = field(default_factory=dict)
    samples: deque[tuple[str, LogLine]] = field(default_factory=lambda: deque(maxlen=MAX_SAMPLES))

    def rename(self, gone: str, kept: str) -> None:
        """Two templates became one; it keeps the place of the other where it has none."""
        if gone in self.slots:
            last = self.slots.pop(gone)
            self.slots[kept] = max(last, self.slots.get(kept, last))
            self.candidates.pop(kept, None)
        elif gone in self.candidates:
            came = self.candidates.pop(gone)
            if kept not in self.slots:
                self.candidates[kept] = max(came, self.candidates.get(kept, 0))

    def settle(self, at: float, counts: Mapping[str, int], keep_s: float) -> None:
        """Which templates have a series of their own from now on: those that came often first, until they are long gone."""
        for id in [k for k, last in self.slots.items() if at - last > keep_s]:
            del self.slots[id]
        for id in counts:
            if id in self.slots:
                self.slots[id] = at
            elif id in self.candidates or len(self.candidates) < MAX_CANDIDATES:
                self.candidates[id] = self.candidates.get(id, 0) + 1
                if self.candidates[id] >= USUAL_AFTER and len(self.slots) < TOP:
                    del self.candidates[id]
                    self.slots[id] = at
        if len(self.candidates) >= MAX_CANDIDATES:  # who came once makes room
            self.candidates = {k: n for k, n in self.candidates.items() if n > 1}


class LogCounts:
    """Counts lines by level and template. At most MAX_ENTITIES entities; those that were silent for longest go first.

    An event of several lines (a trace) counts as one line.
    """

    def __init__(self) -> None:
        self._miner, self._joiner = Templates(), Joiner()
        self._entities: dict[Entity, _Entity] = {}

    def count(self, at: float, lines: Sequence[LogLine]) -> list[LogCount]:
        """The samples of one tick, sorted by entity. `at`: the tick's event time; rises from call to call."""
        levels: dict[Entity, dict[str, int]] = {}
        counts: dict[Entity, dict[str, int]] = {}
        mined = [(event, self._miner.add(event.text)) for event in self._joiner.events(lines)]
        self._rename()
        for event, found in mined:
            template = found if found.parent is None else found.root()
            entity = self._heard(event.entity, at)
            _add(levels.setdefault(event.entity, {}), template.level)
            _add(counts.setdefault(event.entity, {}), template.id)
            if template.level == "error":
                _keep(entity.samples, template.id, event)
        self._forget(at)
        out = []
        for name in sorted(self._entities):
            now = counts.get(name, {})
            self._entities[name].settle(at, now, _keep_s(name))
            out += _samples(name, self._entities[name], levels.get(name, {}), now)
        return out

    def samples(self, entity: Entity) -> tuple[LogLine, ...]:
        """Its newest error lines, one a template, at most five, oldest first."""
        found = self._entities.get(entity)
        return tuple(line for _, line in found.samples) if found else ()

    def text(self, template: str) -> str:
        """What the template with this id looks like; "" where it is not known any more."""
        found = self._miner.by_id(template)
        return found.text if found else ""

    def known(self) -> list[tuple[Entity, list[str]]]:
        """Entities with their usual templates. Safe beside a running step."""
        return [(name, [self.text(id) for id in list(e.slots)]) for name, e in list(self._entities.items())]

    def forget(self) -> int:
        """Begin anew, with no template and nobody who logged; how many entities are forgotten."""
        gone = len(self._entities)
        self._miner, self._joiner, self._entities = Templates(), Joiner(), {}
        return gone

    def _heard(self, name: Entity, at: float) -> _Entity:
        entity = self._entities.pop(name) if name in self._entities else _Entity()
        self._entities[name] = entity  # who spoke last stands last
        entity.last = at
        return entity

    def _forget(self, at: float) -> None:
        for name in [n for n, e in self._entities.items() if at - e.last > _keep_s(n)]:
            del self._entities[name]
        while len(self._entities) > MAX_ENTITIES:
            del self._entities[next(iter(self._entities))]

    def _rename(self) -> None:
        for gone, kept in self._miner.merged:
            for entity in self._entities.values():
                entity.rename(gone, kept)
        self._miner.merged.clear()

    # ---------------------------------------------------------------------------------------------------------- state
    def state(self) -> dict[str, Any]:
        """Plain JSON values."""
        entities = {name: [e.last, dict(e.slots), dict(e.candidates), [[id, s.time, s.text] for id, s in e.samples]]
                    for name, e in self._entities.items()}
        return {"miner": self._miner.state(), "open": self._joiner.state(), "entities": entities}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Into one that has seen nothing. Raises KeyError, TypeError or ValueError for what is no such state."""
        self._miner.restore(state["miner"])
        self._joiner.restore(state["open"])
        for name, (last, slots, candidates, samples) in state["entities"].items():
            kept = deque(((id, LogLine(time, name, text)) for id, time, text in samples), maxlen=MAX_SAMPLES)
            self._entities[name] = _Entity(last, dict(slots), dict(candidates), kept)


def _samples(name: Entity, entity: _Entity, levels: Mapping[str, int], counts: Mapping[str, int]) -> list[LogCount]:
    out = [LogCount(name, LINES, {"level": level}, float(levels.get(level, 0))) for level in LEVELS]
    out += [LogCount(name, TEMPLATE_LINES, {"template": id}, float(counts.get(id, 0))) for id in sorted(entity.slots)]
    rest = sum(n for id, n in counts.items() if id not in entity.slots)
    return [*out, LogCount(name, TEMPLATE_LINES, {"template": OTHER}, float(rest))]


def _keep(samples: deque[tuple[str, LogLine]], id: str, line: LogLine) -> None:
    """The newest line of each of the newest templates."""
    for old in [s for s in samples if s[0] == id]:
        samples.remove(old)
    samples.append((id, LogLine(line.time, line.entity, line.text[:MAX_SAMPLE_CHARS])))


def _add(counts: dict[str, int], key: str) -> None:
    counts[key] = counts.get(key, 0) + 1


def _keep_s(name: Entity) -> float:
    return EPHEMERAL_KEEP_S if name.startswith(EPHEMERAL) else KEEP_S
