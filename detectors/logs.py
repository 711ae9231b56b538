"""Logs per entity: more errors than usual or of a new kind, a burst of one kind of line, one that is new or stopped.

Lines of a trace are one event; events are sorted into templates (aiops/templates.py). Error events in each tick are compared
with the entity's own past rate (Poisson tail with a robust rate); an error template that this entity never logged is evidence
of its own. Each template has a habit: how often, and how regularly. One that came steadily and is missing for far longer than
ever is odd, if the entity logs other things meanwhile: then neither less traffic nor a broken log is the reason. It is
forgotten after half an hour. A new kind of line that is no error is as odd as new kinds are rare on its entity: nothing is said
in the first thousand ticks. Fails on what an entity logs less than once in some minutes: there is no habit.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiops.logframes import Joiner
from aiops.logtext import level_of
from aiops.templates import Template, Templates
from aiops.types import Anomaly, Frame, LogLine
from detectors._loghabit import FORGET, MIN_RATE, Habit, poisson_tail
from detectors._logmix import Mix, Odd
from detectors._lognew import Novelty

__all__ = ["READY_TICKS", "Logs", "is_error", "poisson_tail"]

REPORT_P = 1e-3
READY_TICKS = 30
NEW_TEMPLATE_P = 1e-4
BURST_TIMES, BURST_MORE = 3.0, 10.0
"""A burst is at least so many times the usual lines, and so many more."""
STOPPED_S = 1800.0
MAX_STEP_S = 120.0
"""Longer than this between two ticks nobody listened: it counts for so much silence."""
MAX_KNOWN, MAX_HABITS, MAX_ENTITIES = 200, 32, 5_000


@dataclass(slots=True)
class _Entity:
    """ticks: since it was first heard; rate: error events a tick; lines: events so far; known: ids of its error templates."""

    ticks: int = 0
    rate: float = 0.0
    lines: int = 0
    known: dict[str, None] = field(default_factory=dict)
    habits: dict[str, Habit] = field(default_factory=dict)
    novelty: Novelty = field(default_factory=Novelty)
    mix: Mix = field(default_factory=Mix)

    def rename(self, gone: str, kept: str) -> None:
        """Two templates became one."""
        self.novelty.rename(gone, kept)
        self.mix.rename(gone, kept)
        if gone in self.known:
            del self.known[gone]
            self.known[kept] = None
        habit = self.habits.pop(gone, None)
        if habit and (kept not in self.habits or habit.ticks > self.habits[kept].ticks):
            self.habits[kept] = habit


@dataclass(slots=True)
class _Said:
    """What one entity logged in one tick: errors with their templates; of each template how often, and the first line of it."""

    errors: list[tuple[LogLine, Template]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    recent: Counter[str] = field(default_factory=Counter)
    first: dict[str, tuple[LogLine, Template]] = field(default_factory=dict)


class Logs:
    """State: the miner's templates; a rate, the known error templates and at most 32 habits per entity that logged."""

    VERSION = 4
    BY_SIGNAL = ()

    def __init__(self) -> None:
        self._miner, self._joiner = Templates(), Joiner()
        self._entities: dict[str, _Entity] = {}
        self._clock, self._last_at = 0.0, math.nan

    def observe(self, frame: Frame) -> Sequence[Anomaly]:
        if frame.at > self._last_at:
            self._clock += min(frame.at - self._last_at, MAX_STEP_S)
        self._last_at = frame.at
        said = self._listen(frame.lines)
        for name, entity in self._entities.items():
            now = said.get(name)
            recent = entity.mix.hear(frame.at, now.counts if now else {}, name not in frame.held)
            if now:
                now.recent = recent
        found = [a for name in sorted(said) for a in self._judge(frame.at, name, said[name])]
        for name, entity in self._entities.items():
            self._learn(entity, said.get(name) or _Said(), name in frame.held)
        return found

    def _listen(self, lines: Sequence[LogLine]) -> dict[str, _Said]:
        sorted_in = [(line, self._miner.add(line.text)) for line in self._joiner.events(lines)]
        self._rename()
        said: dict[str, _Said] = {}
        for line, first_template in sorted_in:
            template = first_template if first_template.parent is None else first_template.root()
            now = said.get(line.entity) or said.setdefault(line.entity, _Said())
            now.counts[template.id] = now.counts.get(template.id, 0) + 1
            now.first.setdefault(template.id, (line, template))
            if template.level == "error":
                now.errors.append((line, template))
        for name, now in said.items():
            entity = self._entities.pop(name) if name in self._entities else _Entity()
            self._entities[name] = entity  # who spoke last stands last
            entity.lines += sum(now.counts.values())
        while len(self._entities) > MAX_ENTITIES:
            said.pop(gone := next(iter(self._entities)), None)
            del self._entities[gone]
        return said

    def _rename(self) -> None:
        for gone, kept in self._miner.merged:
            for entity in self._entities.values():
                entity.rename(gone, kept)
        self._miner.merged.clear()

    # ------------------------------------------------------------------------------------------------------ judgement
    def _judge(self, at: float, name: str, now: _Said) -> Iterator[Anomaly]:
        entity = self._entities[name]
        if missing := entity.mix.missing(now.recent, now.counts, {template.id for _, template in now.errors}):
            yield from self._missing(at, name, missing)
        if now.errors:
            yield from self._errors(at, name, entity, now)
        if entity.ticks < READY_TICKS:
            return
        yield from self._new(at, name, entity, now)
        yield from self._bursts(at, name, entity, now)
        yield from self._stopped(at, name, entity, now)

    def _errors(self, at: float, name: str, entity: _Entity, now: _Said) -> Iterator[Anomaly]:
        """More than usual in a tick, and more than usual among all lines: with more traffic there are more errors."""
        errors = now.errors
        kinds = {template.id for _, template in errors}
        odd = entity.mix.errors(now.recent, kinds)
        if entity.ticks < READY_TICKS and odd is None:
            return
        p = poisson_tail(len(errors), max(entity.rate, MIN_RATE)) if entity.ticks >= READY_TICKS else 0.0
        new = [line for line, template in errors if template.id not in entity.known]
        if new:
            p *= NEW_TEMPLATE_P / REPORT_P
        p = max(p, odd.p_value if odd else 0.0)
        if p < REPORT_P:
            shown = new[0] if new else errors[0][0]
            text = (f"{len(errors)} error lines in one tick ({entity.rate:.2g} usual), {'new error' if new else 'errors'}: "
                    f"{shown.text[:200]}")
            yield _anomaly(at, name, "log_errors", p, float(len(errors)), entity.rate, min(e.time for e, _ in errors), text)

    def _missing(self, at: float, name: str, odd: Odd) -> Iterator[Anomaly]:
        """A kind of line no longer comes with the one that it else follows."""
        if odd.p_value < REPORT_P:
            kind, leader = self._miner.by_id(odd.kind), self._miner.by_id(odd.leader)
            usual = odd.usual * odd.trials
            text = (f"{odd.count} instead of about {usual:.0f} lines: {kind.text[:200] if kind else odd.kind}; usually they come "
                    f"with: {leader.text[:200] if leader else odd.leader}")
            yield _anomaly(at, name, "log_missing", odd.p_value, float(odd.count), usual, at, text)

    def _new(self, at: float, name: str, entity: _Entity, now: _Said) -> Iterator[Anomaly]:
        """The first kind of line that is new; of errors `_errors` speaks."""
        new = [now.first[id][0] for id in entity.novelty.new(now.counts) if now.first[id][1].level != "error"]
        if new and (p := entity.novelty.p_value()) < REPORT_P:
            text = f"{len(new)} new {'kind' if len(new) == 1 else 'kinds'} of line: {new[0].text[:200]}"
            yield _anomaly(at, name, "log_new", p, float(len(new)), entity.novelty.rate, new[0].time, text)

    def _bursts(self, at: float, name: str, entity: _Entity, now: _Said) -> Iterator[Anomaly]:
        """The most unusual one; all the entity's habits were tried."""
        odd = []
        for id, count in now.counts.items():
            habit = entity.habits.get(id)
            usual = habit.usual(entity.ticks) if habit else 0.0
            if habit and habit.ticks >= READY_TICKS and count >= BURST_TIMES * usual + BURST_MORE:
                odd.append((habit.burst(count, entity.ticks) * len(entity.habits), id, count, usual))
        if odd and (best := min(odd))[0] < REPORT_P:
            p, id, count, usual = best
            line, template = now.first[id]
            what = "log_errors" if template.level == "error" else "log_burst"
            text = f"{count} lines of one kind in one tick ({usual:.2g} usual): {line.text[:200]}"
            yield _anomaly(at, name, what, p, float(count), usual, line.time, text)

    def _stopped(self, at: float, name: str, entity: _Entity, now: _Said) -> Iterator[Anomaly]:
        """The most unusual silence of a template, while its entity logs others."""
        tried = [(habit.silence(self._clock, entity.lines), id) for id, habit in entity.habits.items() if id not in now.counts]
        if tried and (best := min(tried))[0] * len(tried) < REPORT_P:
            p, id = best
            habit, silent_s = entity.habits[id], self._clock - entity.habits[best[1]].at
            template = self._miner.by_id(id)
            text = (f"not logged for {silent_s:.0f} s, else every {max(habit.gap_s, 0.1):.2g} s: "
                    f"{template.text[:200] if template else id}")
            yield _anomaly(at, name, "log_stopped", p * len(tried), 0.0, habit.rate, at - silent_s, text)

    # --------------------------------------------------------------------------------------------------------- memory
    def _learn(self, entity: _Entity, now: _Said, held: bool) -> None:
        entity.ticks += 1
        for id in now.counts:
            if held and id in entity.habits:
                entity.habits[id].at, entity.habits[id].line = self._clock, entity.lines
        if held:
            return
        entity.novelty.learn(now.counts)
        share = max(FORGET, 1.0 / entity.ticks)
        limit = entity.rate + 3.0 * math.sqrt(entity.rate + 1.0) if entity.ticks > READY_TICKS else math.inf
        entity.rate += share * (min(float(len(now.errors)), limit) - entity.rate)
        for _, template in now.errors:
            entity.known.pop(template.id, None)
            entity.known[template.id] = None  # what came last stands last
        while len(entity.known) > MAX_KNOWN:
            del entity.known[next(iter(entity.known))]
        self._learn_habits(entity, now)

    def _learn_habits(self, entity: _Entity, now: _Said) -> None:
        for id, count in now.counts.items():
            if id not in entity.habits and len(entity.habits) < MAX_HABITS:
                entity.habits[id] = Habit(entity.ticks - 1, self._clock, entity.lines)
            if id in entity.habits:
                entity.habits[id].learn(count, entity.ticks, self._clock, entity.lines)
        for id in [k for k, h in entity.habits.items() if self._clock - h.at > STOPPED_S] if now.counts else ():
            del entity.habits[id]

    def move(self, columns: Any) -> None:
        """Nothing is kept by column, and no time is lost."""

    # ---------------------------------------------------------------------------------------------------------- state
    def state(self) -> dict[str, Any]:
        entities = {name: [e.ticks, e.rate, e.lines, list(e.known), {k: h.row() for k, h in e.habits.items()}, e.novelty.row(),
                           e.mix.state()]
                    for name, e in self._entities.items()}
        return {"clock": self._clock, "miner": self._miner.state(), "open": self._joiner.state(), "entities": entities}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._clock, self._last_at = float(state["clock"]), math.nan
        self._miner.restore(state["miner"])
        self._joiner.restore(state["open"])
        self._entities = {
            name: _Entity(int(ticks), rate, int(lines), dict.fromkeys(known), {k: Habit.of(row) for k, row in habits.items()},
                          Novelty.of(novelty), Mix.of(mix))
            for name, (ticks, rate, lines, known, habits, novelty, mix) in state["entities"].items()}

    @staticmethod
    def migrate(state: Mapping[str, Any], version: int) -> dict[str, Any] | None:
        """Version 1 kept masked error texts, with `*` for what varies: they are mined as lines. Version 2 knew nothing of new
        kinds, version 3 not who follows whom."""
        if version in (2, 3):
            more = [Novelty().row()] if version == 2 else []
            return {**state, "entities": {name: [*row, *more, Mix().state()] for name, row in state["entities"].items()}}
        if version != 1:
            return None
        new = Logs()
        for name, rate in state["rate"].items():
            known = [new._miner.add(str(text).replace("*", "0")) for text in state["texts"][name]]
            entity = new._entities[name] = _Entity(int(state["ticks"][name]), float(rate))
            entity.known = {t.root().id: None for t in known}
        new._rename()
        return new.state()


def is_error(text: str) -> bool:
    """Does the line speak of an error? What its logger says of it, else the usual spellings of exceptions."""
    return level_of(text) == "error"


def _anomaly(at: float, entity: str, name: str, p: float, value: float, usual: float, onset: float, text: str) -> Anomaly:
    return Anomaly(at, entity, name, 1.0 - p, max(p, 1e-300), "logs", -1, value, usual, onset=onset, text=text)
