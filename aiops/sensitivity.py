"""What people say of incidents moves how much evidence a signal of a class of entities needs: within bounds, and for a while.

The class of a pod is its workload, of a node its pool: `class_of`. An incident that somebody calls a false alarm makes every
(signal, class) that alerted in it need a quarter more evidence, one that was useful as much less. What several people said
adds up within LEAST and MOST, and fades day by day until nothing is left after FADES_S. The last word on an incident counts.

A class is never blind: it needs at most MOST times the evidence, which adds up as before. And less evidence than usual is enough
only while the alarm level keeps to the budget (`aiops.alerting`). Event time only; equal words give equal figures.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from aiops.globs import named
from aiops.types import Alert, Command, Entity, Incident
from correlators.graph import Graph
from detectors._kin import owner

STEP = 1.25
"""One verdict counts so much, as a factor of the evidence that is needed."""
LEAST, MOST = 0.8, 2.0
FADES_S = 60 * 86_400.0
"""A verdict counts less each day, and nothing after so long."""
WORKLOADS = ("deployment", "statefulset", "daemonset", "job", "cronjob")
MAX_INCIDENTS, MAX_VERDICTS, MAX_OF_ONE, MAX_CLASSES = 200, 500, 50, 100_000
VERDICTS = ("false_alarm", "useful")
Key = tuple[str, str]
"""Class and signal."""


@dataclass(frozen=True, slots=True)
class Said:
    """A verdict on an incident, and about which (class, signal) it is."""

    verdict: str
    at: float
    by: str
    about: tuple[Key, ...]

    def weight(self, now: float) -> float:
        """-1..1: above 0 where more evidence is needed."""
        left = max(1.0 - max(now - self.at, 0.0) / FADES_S, 0.0)
        return left if self.verdict == "false_alarm" else -left


class Sensitivity:
    """Remembers what the newest 200 incidents were about, so that they can be judged the morning after; 500 verdicts."""

    def __init__(self) -> None:
        self.graph = Graph()
        self._open: dict[str, Incident] = {}
        self._about: dict[str, tuple[Key, ...]] = {}
        self._said: dict[str, Said] = {}
        self._of: dict[Key, tuple[Said, ...]] = {}
        self._signals: frozenset[str] = frozenset()
        self._classes: tuple[Graph, dict[Entity, str]] = self.graph, {}

    def watch(self, incidents: Iterable[Incident]) -> None:
        """The incidents that are open now. What those that are not any more were about is remembered."""
        before, self._open = self._open, {i.id: i for i in incidents}
        self._about |= {name: self._concerned(i) for name, i in before.items() if name not in self._open}
        for name in list(self._about)[:-MAX_INCIDENTS]:
            del self._about[name]

    def judge(self, command: Command) -> None:
        """What a person said of an incident; of one that is not known any more nothing follows."""
        before = self._said.pop(command.target, None)
        about = self._about_incident(command.target) or (before.about if before else ())
        if about:
            self._said[command.target] = Said(command.verb, command.time, command.by or "somebody", about)
        self._said = {k: s for k, s in self._said.items() if s.weight(command.time)}
        for name in list(self._said)[:-MAX_VERDICTS]:
            del self._said[name]
        self._index()

    def _about_incident(self, name: str) -> tuple[Key, ...]:
        return self._concerned(self._open[name]) if name in self._open else self._about.get(name, ())

    def _concerned(self, i: Incident) -> tuple[Key, ...]:
        """The strongest first; not what other systems alerted, which no evidence is asked for."""
        mine = sorted((a for a in i.alerts if "alertmanager" not in a.detectors), key=lambda a: (-a.strength, a.key))
        return tuple(dict.fromkeys((self.class_of(a.entity), signal_of(a)) for a in mine))[:MAX_OF_ONE]

    def _index(self) -> None:
        found: dict[Key, list[Said]] = {}
        for said in self._said.values():
            for key in said.about:
                found.setdefault(key, []).append(said)
        self._of = {key: tuple(all_of) for key, all_of in found.items()}
        self._signals = frozenset(signal for _, signal in found)

    def factor(self, now: float, entity: Entity, signal: str) -> float:
        """LEAST..MOST: so many times the usual evidence is needed of this signal (labels do not count) of this entity."""
        name = signal.partition("{")[0]
        if name not in self._signals:
            return 1.0  # nearly always
        return _factor(self._of.get((self.class_of(entity), name), ()), now)

    def class_of(self, entity: Entity) -> str:
        """As `class_of` says, by the topology of now."""
        graph, known = self._classes
        if graph is not self.graph or len(known) > MAX_CLASSES:
            self._classes = self.graph, {}
            known = self._classes[1]
        if entity not in known:
            known[entity] = class_of(entity, self.graph)
        return known[entity]

    def rows(self, now: float) -> list[dict[str, Any]]:
        """What is moved now, for people: the farthest first. Safe beside a running step."""
        out = []
        for (group, signal), all_of in sorted(self._of.items()):
            mine = [s for s in all_of if s.weight(now)]
            if mine:
                out.append({"class": group, "signal": signal, "factor": _factor(all_of, now),
                            "false_alarms": sum(s.verdict == "false_alarm" for s in mine),
                            "useful": sum(s.verdict == "useful" for s in mine), "by": sorted({s.by for s in mine}),
                            "until": max(s.at for s in mine) + FADES_S})
        return sorted(out, key=lambda row: -abs(math.log(row["factor"])))

    def forget(self, patterns: tuple[str, ...] = ()) -> int:
        """Forget what was said about what these name (`class`, or `class signal`; globs), all where there are none; how many."""
        gone = {key for key in self._of if named(patterns, *key)}
        self._said = {name: Said(s.verdict, s.at, s.by, left) for name, s in self._said.items()
                      if (left := tuple(key for key in s.about if key not in gone))}
        self._index()
        return len(gone)

    def state(self) -> dict[str, Any]:
        """Plain JSON."""
        about = {**self._about, **{name: self._concerned(i) for name, i in self._open.items()}}
        return {"about": {name: _rows(keys) for name, keys in about.items()},
                "said": {name: {"verdict": s.verdict, "at": s.at, "by": s.by, "about": _rows(s.about)}
                         for name, s in self._said.items()}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Into one that has heard nothing. Raises KeyError, TypeError or ValueError for another form."""
        self._about = {name: _keys(keys) for name, keys in state["about"].items()}
        self._said = {name: Said(str(s["verdict"]), float(s["at"]), str(s["by"]), _keys(s["about"]))
                      for name, s in state["said"].items()}
        self._index()


def _factor(said: Iterable[Said], now: float) -> float:
    """The product of what was said, each faded, within the bounds."""
    return min(max(math.exp(math.log(STEP) * math.fsum(s.weight(now) for s in said)), LEAST), MOST)


def _rows(keys: Iterable[Key]) -> list[dict[str, str]]:
    return [{"class": group, "signal": signal} for group, signal in keys]


def _keys(rows: Iterable[Mapping[str, str]]) -> tuple[Key, ...]:
    return tuple((str(row["class"]), str(row["signal"])) for row in rows)


def signal_of(a: Alert) -> str:
    """The signal without its labels: what one container or path showed is said of all."""
    return a.signal.partition("{")[0]


def class_of(entity: Entity, graph: Graph) -> str:
    """`pod of deployment/shop/chat` where the topology knows the workload; else what names have in common (`pod/shop/chat*`),
    and the entity itself where they have nothing."""
    seen, edge = {entity}, [entity]
    for _ in range(3):
        edge = sorted({o for e in edge for o in graph.owners(e)} - seen)
        seen.update(edge)
        if found := [e for e in edge if e.startswith(tuple(f"{kind}/" for kind in WORKLOADS))]:
            return f"{entity.partition('/')[0]} of {found[0]}"
    common = owner(entity)
    return entity if common == entity else f"{common}*"
