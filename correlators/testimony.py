"""Who is spoken of: an alert tells of its own entity, and where it is about a call, of both ends of it.

That a call is slow is measured at the caller, and says that the callee is slow, or the network of either. Whose it is shows
in how many of their calls are slow: the end of which all are is the likelier one. A slow call whose callee itself waits for a
slow call is explained by the latter. What detectors found odd and was too little for an alert is weak evidence, for whom the
incident's entities depend on.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from aiops.callends import Call, call_ends
from aiops.types import Alert, Anomaly, Entity, Signal
from correlators.graph import Graph

WAITING = frozenset({"latency", "network", "errors"})
"""Kinds of signals by which a caller tells of its callee."""
WEAK, WAITED = 0.3, 0.25
"""What was too little for an alert counts half; that somebody waits for others says little of himself."""
DEEPER, STARVED = 0.8, 0.7
"""How much of a slow call is explained by a slow call of the callee, and by a caller that lacks a resource itself."""
OWN = frozenset({"cpu", "memory", "disk", "gpu"})
"""What somebody uses up himself, however slow others are."""
OF_DETECTOR = {"ceased": "errors"}
"""What kind of signal it is where a detector speaks of none: who stops short of what he usually calls fails."""
KEEP_S, KEEP_TICKS, MAX_WEAK = 300.0, 3.0, 2000
HOPS, MOST_BELOW = 3, 500


@dataclass(frozen=True, slots=True)
class Testimony:
    """One alert as it speaks of one entity. `weight` 0..1: how much of it; `about`: how, for people, where that is not plain.
    `faint`: it is none, but what detectors found odd around it."""

    alert: Alert
    weight: float = 1.0
    about: str = ""
    faint: bool = False

    @property
    def nats(self) -> float:
        return self.weight * self.alert.strength


def call_of(alert: Alert, graph: Graph) -> Call | None:
    """Caller and callee of the call that an alert is about, where its labels name them and the topology knows both."""
    ends = call_ends(alert.entity, alert.signal.partition("{")[2].removesuffix("}")) if alert.resource in WAITING else None
    return ends if ends and ends[0] in graph and ends[1] in graph else None


def statements(alerts: Sequence[Alert], graph: Graph, weak: Sequence[Alert] = ()) -> dict[Entity, list[Testimony]]:
    """What is said of each entity, in the order of the alerts' keys. weak: what was too little for an alert."""
    told = {a.key for a in alerts}
    ordered = sorted([*alerts, *(a for a in weak if a.key not in told)], key=lambda a: a.key)
    calls = {a.key: call for a in ordered if (call := call_of(a, graph))}
    share = _shares(set(calls.values()), starved(ordered, graph), graph)
    out: dict[Entity, list[Testimony]] = defaultdict(list)
    for a in ordered:
        faint = a.key not in told
        weight = (WEAK if faint else 1.0) * (WAITED if a.resource == "waiting" else 1.0)
        if a.key not in calls:
            out[a.entity].append(Testimony(a, weight, "", faint))
            continue
        caller, callee = calls[a.key]
        of_callee = share[caller, callee]
        out[caller].append(Testimony(a, weight * share[callee, caller], f"its calls of {callee} are slow", faint))
        out[callee].append(Testimony(a, weight * of_callee, f"slow for {caller}", faint))
    return dict(out)


def starved(alerts: Sequence[Alert], graph: Graph) -> set[Entity]:
    """Whose processor, memory, disk or GPU deviates, with the services that consist of them."""
    short = {a.entity for a in alerts if a.resource in OWN and a.state != "pending"}
    return short.union(*(graph.owners(e) for e in sorted(short)))


def _shares(slow: Collection[Call], short: Collection[Entity], graph: Graph) -> dict[Call, float]:
    """Of each slow call (caller, callee) what speaks against the callee, and under (callee, caller) what against the caller."""
    touched: dict[Entity, set[Call]] = defaultdict(set)
    for call in slow:
        for end in call:
            touched[end].add(call)
    part = {e: len(calls) / (1 + max(_calls_of(e, graph), len(calls))) for e, calls in touched.items()}
    waits = {caller for caller, _ in slow}
    out: dict[Call, float] = {}
    for caller, callee in slow:
        total = part[caller] + part[callee]
        left = (1.0 - DEEPER * (callee in waits)) * (1.0 - STARVED * (caller in short and callee not in short))
        out[caller, callee] = left * part[callee] / total
        out[callee, caller] = (1.0 - DEEPER * (callee in waits)) * part[caller] / total
    return out


def _calls_of(entity: Entity, graph: Graph) -> int:
    """How many calls there are that the entity makes or answers."""
    return len([1 for _, kind in graph.dependencies(entity) if kind == "calls"]) + len(graph.callers(entity))


class Murmurs:
    """What detectors found odd lately, as pending alerts by key. Memory: the newest MAX_WEAK of the last minutes."""

    def __init__(self) -> None:
        self._by: dict[Entity, dict[str, Alert]] = {}
        self._last_at = 0.0

    def hear(self, now: float, anomalies: Iterable[Anomaly], signals: Sequence[Signal]) -> None:
        """One step's anomalies; signals: what its columns show."""
        tick_s, self._last_at = (now - self._last_at if self._last_at else 0.0), now
        for a in anomalies:
            if a.p_value >= 1.0:
                continue
            of, strength = self._by.setdefault(a.entity, {}), -math.log(max(a.p_value, 1e-300))
            old = of.pop(a.name, None)
            about = signals[a.signal] if a.signal >= 0 else Signal(-1, a.entity, a.name, resource=OF_DETECTOR.get(a.detector, ""))
            new = Alert(f"{a.entity}|{a.name}", a.entity, a.name, "pending", a.onset if a.onset == a.onset else now, now,
                        a.score, a.p_value, strength, (a.detector,), value=a.value, expected=a.expected, lower=a.lower,
                        upper=a.upper, unit=about.unit, direction=about.direction, resource=about.resource, text=a.text)
            if old is not None:
                stronger = new if strength >= old.strength else old
                new = replace(stronger, since=min(old.since, new.since), at=now,
                              detectors=tuple(sorted({*old.detectors, a.detector})))
            of[a.name] = new
        self._forget(now - max(KEEP_S, KEEP_TICKS * tick_s))

    def _forget(self, before: float) -> None:
        kept = {e: {n: a for n, a in of.items() if a.at >= before} for e, of in self._by.items()}
        self._by = {e: of for e, of in list(kept.items())[-MAX_WEAK:] if of}

    def below(self, entities: Collection[Entity], graph: Graph, since: float) -> list[Alert]:
        """What is said of those that the entities consist of or depend on, and began since then. Sorted by key."""
        if not self._by:
            return []
        near = graph.below(entities, HOPS, MOST_BELOW)
        found = (a for e in sorted(near & self._by.keys()) for a in self._by[e].values())
        return sorted((a for a in found if a.since >= since), key=lambda a: a.key)
