"""Which entity is the cause? Arithmetic that a person can check.

A candidate's score is the strength of its own deviation, less what its dependencies explain: a dependency that turned
bad no later explains most of it, one that turned bad afterwards little, and so does one that was slow long before and
hurt nobody. Slow calls speak of both their ends (`correlators.testimony`). Lost traffic is explained by who calls, if that
is in trouble. A change just before the onset speaks for a candidate, and so does a fault that the hardware itself tells of
(XIDs). Pods, processes and services that took the very resource that their node lacks explain the node, and not the other
way round. Each item is a reason with its contribution; shares add up to 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from aiops import xids
from aiops.humanise import quantity, utc
from aiops.types import CONSUMED, Alert, Cause, Entity, Event, Reason
from correlators.graph import Graph
from correlators.testimony import OWN, Testimony, statements

EXPLAINED, EXPLAINED_LATER, EXPLAINED_BEFORE = 0.8, 0.3, 0.3
DELAY = frozenset({"latency", "waiting"})
HANDED_ON = frozenset({"latency", "errors", "traffic"})
"""Who is slow or fails makes its callers so at once; who runs out of something may do so long before."""
OWN_KEPT = 0.8
"""What somebody uses up himself is not explained by those whom he calls, but for this share."""
HARMLESS, USED = 0.6, OWN | {"network"}
"""Who uses more and hurts nobody, long before others are hurt, has done little."""
LITTLE, CALLS = 0.8, 4.0
"""Who is slower by little beside the others has not made them so slow, even if each calls it so many times."""
NOT_BY_DELAY, ANSWERS, TIMEOUT_S = 0.3, 0.5, 1.0
"""Who fails does hardly fail because somebody whom he calls is slow, and answers within any time-out: so much of it may be, and
so much less is the latter to blame."""
AT_ONCE_S, AT_ONCE_TICKS = 300.0, 1.5
"""A dependency that was slow for longer before the candidate was hurt has not hurt it by that."""
OWN_WORDS = "log_"
"""How signals are called that come of what somebody logs."""
ENOUGH = 0.5
"""A dependency explains in full when its deviation is at least this share of the candidate's own (on the log scale)."""
ENOUGH_TO_FAIL = 0.35
"""The same for who fails: errors are handed on whole, and are surer the further they have come."""
SAME_TIME_S = 15.0
CHANGE_BEFORE_S, CHANGE_AFTER_S, CHANGE_BONUS = 900.0, 30.0, 2.0
FAULT_BEFORE_S, FAULT_AFTER_S = 900.0, 60.0
FAULT_BONUS: Mapping[str, float] = MappingProxyType({"hardware": 2.0, "fabric": 2.0, "driver": 1.0, "application": 0.0})
"""By where the fault lies. A GPU that shows nothing but the errors of an application is explained by that application."""
FAIR_SHARE = 1 / 3
"""Of guests that use more of what their host lacks, those are to blame that took at least this share of the most."""
SEVERAL_BONUS = 0.25
FLOOR = 0.05
CLOCK = "%H:%M:%S"


@dataclass(frozen=True, slots=True)
class _Candidate:
    """`alerts`: those that are about it, on its own or as one end of a call; `said` with the weight of each. `tells`: it would be
    seen if it failed."""

    entity: Entity
    said: tuple[Testimony, ...]
    tells: bool = False

    @property
    def alerts(self) -> tuple[Alert, ...]:
        return tuple(t.alert for t in self.said)

    @property
    def onset(self) -> float:
        return min(a.since for a in self.alerts)

    @property
    def over_at(self) -> float:
        """When it was well again; infinite while something still fires."""
        return math.inf if any(a.state == "firing" for a in self.alerts) else max(a.at for a in self.alerts)

    @property
    def strength(self) -> float:
        """ln(1 + nats) of the strongest signal: a hundred times more evidence is not a hundred times more guilt."""
        return math.log1p(self.nats)

    @property
    def nats(self) -> float:
        return max(t.nats for t in self.said)

    @property
    def faint(self) -> bool:
        """All that is said of it was too little for an alert."""
        return all(t.faint for t in self.said)

    @property
    def own(self) -> float:
        """The same of what it uses up itself, 0 where that is as usual."""
        return math.log1p(max((t.nats for t in self.said if t.alert.resource in OWN), default=0.0))

    @property
    def answers(self) -> bool:
        """It is slow and nothing else, and still answers before others give up, as far as is known."""
        return self.tells and self.prompt

    @property
    def prompt(self) -> bool:
        """It is slow and nothing else, and not so slow that others give up."""
        slow = [a.value for a in self.alerts if a.resource in DELAY and a.unit == "seconds"]
        return self.kinds <= DELAY | {"traffic", "network"} and max(slow, default=TIMEOUT_S) < TIMEOUT_S

    @property
    def stops_short(self) -> bool:
        """It leaves out calls that it usually makes (detectors/ceased.py)."""
        return any("ceased" in a.detectors for a in self.alerts)

    def delays(self) -> dict[str, float]:
        """By how many seconds it is slower, by name of the signal, where that is known."""
        found: dict[str, float] = {}
        for a in self.alerts:
            if a.resource in DELAY and a.unit == "seconds" and not math.isnan(a.value - a.expected):
                name = a.signal.partition("{")[0]
                found[name] = max(found.get(name, 0.0), a.value - a.expected)
        return found

    @property
    def kinds(self) -> set[str]:
        return {a.resource for a in self.alerts}

    @property
    def resources(self) -> set[str]:
        return {a.resource for a in self.alerts if a.resource in CONSUMED}


def rank(alerts: Sequence[Alert], graph: Graph, changes: Sequence[Event], tick_s: float = 0.0,
         faults: Sequence[Event] = (), weak: Sequence[Alert] = (),
         tells: Callable[[Entity], bool] = lambda entity: False) -> tuple[Cause, ...]:
    """All candidates, best first. `changes` are the change events remembered, `faults` those that tell of broken hardware;
    `tick_s` is how exactly onsets are known. `weak`: what was odd and too little for an alert. `tells`: whether it would be seen
    if the entity failed.
    """
    candidates = _candidates(alerts, weak, graph, tells)
    culprits = {e: c for e, c in candidates.items() if not (
        _is_victim(c, faults) or c.kinds == {"traffic"} or _harmless(c, candidates, graph, tick_s))}
    scored = []
    for entity, candidate in candidates.items():
        reasons = [*_own(candidate), *_explained(candidate, culprits, graph, tick_s), *_changed(candidate, changes),
                   *_faulted(candidate, faults), *_harmless(candidate, candidates, graph, tick_s),
                   *_answers(candidate, candidates, graph), *_little(candidate, candidates)]
        scored.append((max(FLOOR, sum(r.contribution for r in reasons)), candidate, tuple(reasons), entity))
    total = sum(s for s, *_ in scored) or 1.0
    ordered = sorted(scored, key=lambda x: (-x[0], x[1].onset, x[3]))
    return tuple(Cause(entity, score / total, _signals(c), reasons) for score, c, reasons, entity in ordered)


def _candidates(alerts: Sequence[Alert], weak: Sequence[Alert], graph: Graph,
                tells: Callable[[Entity], bool]) -> dict[Entity, _Candidate]:
    said = statements(alerts, graph, weak)
    real = {e: v for e, v in said.items() if not graph.is_proxy(e)} or said
    return {e: _Candidate(e, tuple(v), tells(e)) for e, v in real.items()}


def _signals(candidate: _Candidate) -> tuple[str, ...]:
    """The signal that deviated first leads, of those that were told of loudly: it names the incident."""
    return tuple(t.alert.signal for t in sorted(
        candidate.said, key=lambda t: (t.alert.state == "pending", t.alert.since, -t.nats, t.alert.key)))


def _own(candidate: _Candidate) -> list[Reason]:
    worst = max(candidate.said, key=lambda t: (t.nats, t.alert.key))
    about = f"{worst.about}: " if worst.about else ""
    reasons = [Reason(about + describe(worst.alert), candidate.strength)]
    kinds = {a.resource or a.signal for a in candidate.alerts}
    if len(kinds) > 1:
        first = min(candidate.alerts, key=lambda a: (a.since, -a.strength, a.key))
        names = ", ".join(sorted(a.signal for a in candidate.alerts)[:5])
        began = f"; first {describe(first)}" if first is not worst.alert else ""
        text = f"{len(candidate.alerts)} of its signals deviate: {names}{began}"
        reasons.append(Reason(text, SEVERAL_BONUS * math.log(len(kinds))))
    return reasons


def describe(a: Alert) -> str:
    """`http_error_rate is 31 %, expected 0.1 %, since 03:12:05`."""
    if a.text:
        return f"{a.signal}: {a.text}" if a.signal.startswith("alert:") else a.text
    if math.isnan(a.value) or math.isnan(a.expected):
        return f"{a.signal} since {utc(a.since, CLOCK)}"
    expected = 0.0 if abs(a.expected) < 1e-4 * abs(a.value) else a.expected
    return f"{a.signal} is {quantity(a.value, a.unit)}, expected {quantity(expected, a.unit)}, since {utc(a.since, CLOCK)}"


def _explained(c: _Candidate, others: Mapping[Entity, _Candidate], graph: Graph, tick_s: float) -> list[Reason]:
    """The strongest single explanation by somebody whom the candidate depends on."""
    best: Reason | None = None
    called = {d for e in (c.entity, *graph.owners(c.entity)) for d, kind in graph.dependencies(e) if kind == "calls"}
    called.update(*(graph.owned(e) for e in sorted(called)))
    for entity in _explainers(c, others, graph):
        other = others[entity]
        if other.over_at < c.onset:
            continue  # it was well before this one turned bad
        later_s = other.onset - c.onset
        share = EXPLAINED if later_s <= max(SAME_TIME_S, tick_s) else EXPLAINED_LATER
        if other.kinds <= HANDED_ON and -later_s > max(AT_ONCE_S, AT_ONCE_TICKS * tick_s):
            share = EXPLAINED_BEFORE
        if "errors" in c.kinds and (other.answers or (c.stops_short and other.prompt)):
            share *= NOT_BY_DELAY
        taken = -share * c.strength * _as_much(other, c)
        if entity in called:
            taken = max(taken, OWN_KEPT * c.own - c.strength) if c.own else taken
        if best is None or taken < best.contribution:
            when = "at the same time" if abs(later_s) <= max(SAME_TIME_S, tick_s) else (
                f"{later_s:.0f} s later" if later_s > 0 else f"{-later_s:.0f} s earlier")
            best = Reason(f"explained by {entity}, which it depends on and which turned bad {when}", taken)
    return [best] if best else []


def _as_much(other: _Candidate, c: _Candidate) -> float:
    """0..1: how much of what is odd about a candidate is as odd about the other. Who was never loud does not explain who is:
    there the evidence itself is compared, and not on the log scale. Failing that others measure is handed on whole; what somebody
    logs of himself is not."""
    if any(a.resource == "errors" and not a.signal.startswith(OWN_WORDS) for a in c.alerts):
        return min(1.0, other.strength / (ENOUGH_TO_FAIL * c.strength))
    if other.faint and not c.faint:
        return min(1.0, other.nats / (ENOUGH * c.nats))
    return min(1.0, other.strength / (ENOUGH * c.strength))


def _explainers(c: _Candidate, others: Mapping[Entity, _Candidate], graph: Graph) -> list[Entity]:
    """Candidates that this one depends on, directly or through one quiet entity, and consumers of what it lacks.

    A pod depends on whom its service calls.
    """
    found: list[Entity] = []
    called = [d for owner in graph.owners(c.entity) for d in graph.dependencies(owner) if d[1] == "calls"]
    for entity, kind in sorted({*graph.dependencies(c.entity), *called}):
        if entity in others:
            if not (kind == "runs_on" and c.entity in _takers(others[entity], {**others, c.entity: c}, graph)):
                found.append(entity)
        else:
            found += [e for e, _ in graph.dependencies(entity) if e in others]
    if c.kinds == {"traffic"}:  # who gets no work is not to blame for that; who hands it out may be
        found = [e for owner in (c.entity, *graph.owners(c.entity)) for e in graph.callers(owner) if e in others]
    found += sorted(_takers(c, others, graph))
    return sorted(set(found) - {c.entity})


def _harmless(c: _Candidate, others: Mapping[Entity, _Candidate], graph: Graph, tick_s: float) -> list[Reason]:
    """A pod or process that used more well before anybody was hurt, and is not slow or failing itself."""
    near = {c.entity, *graph.owners(c.entity), *graph.owned(c.entity)}
    if not c.kinds <= USED or c.entity.startswith(("node/", "gpu/")) or any("exhaustion" in a.detectors for a in c.alerts):
        return []
    hurt = [a for o in others.values() for a in o.alerts if a.resource in HANDED_ON and a.state != "pending"]
    first_s = min((a.since for a in hurt), default=c.onset) - c.onset
    if first_s <= max(AT_ONCE_S, AT_ONCE_TICKS * tick_s) or any(o.kinds & HANDED_ON for e, o in others.items() if e in near):
        return []
    return [Reason(f"hurts nobody: others were hurt {first_s:.0f} s later, and it is neither slow nor failing itself",
                   -HARMLESS * c.strength)]


def _answers(c: _Candidate, others: Mapping[Entity, _Candidate], graph: Graph) -> list[Reason]:
    """Who calls it fails, and it does not."""
    called = [e for owner in (c.entity, *graph.owners(c.entity)) for e in graph.callers(owner)] if c.answers else []
    failing = [e for e in called if e in others and any(
        a.resource == "errors" and a.state != "pending" for a in others[e].alerts)]
    return [Reason(f"slow, and still answers, while {failing[0]} fails", -ANSWERS * c.strength)] if failing else []


def _little(c: _Candidate, others: Mapping[Entity, _Candidate]) -> list[Reason]:
    """Nothing but slow, and by little beside what others are slower by in the same signal."""
    mine = c.delays() if c.kinds <= DELAY else {}
    most = {name: max(o.delays().get(name, 0.0) for o in others.values()) for name in mine}
    shares = {name: delay / most[name] for name, delay in mine.items() if delay > 0.0}
    if not shares or CALLS * max(shares.values()) >= 1.0:
        return []
    name = max(shares, key=lambda n: (shares[n], n))
    text = f"little: {name} rose by {quantity(mine[name], 'seconds')}, elsewhere by {quantity(most[name], 'seconds')}"
    return [Reason(text, -LITTLE * (1.0 - CALLS * shares[name]) * c.strength)]


def _takers(host: _Candidate, others: Mapping[Entity, _Candidate], graph: Graph) -> set[Entity]:
    """Guests that took what the host lacks. Who merely works harder since the host is short took little beside the most."""
    taken: dict[str, dict[Entity, float]] = {}
    for guest in graph.guests(host.entity):
        for a in others[guest].alerts if guest in others else ():
            if a.resource in host.resources:
                taken.setdefault(a.signal, {})[guest] = a.value - (0.0 if math.isnan(a.expected) else a.expected)
    return {guest for by in taken.values() for guest, more in by.items() if not more < FAIR_SHARE * max(by.values())}


def _changed(c: _Candidate, changes: Sequence[Event]) -> list[Reason]:
    near = [e for e in changes if e.entity == c.entity and -CHANGE_AFTER_S <= c.onset - e.time <= CHANGE_BEFORE_S]
    if not near:
        return []
    last = max(near, key=lambda e: (e.time, e.text))
    ago = max(c.onset - last.time, 0.0)
    bonus = CHANGE_BONUS * (1.0 - ago / CHANGE_BEFORE_S)
    return [Reason(f"changed {ago:.0f} s before: {last.text or last.reason}", bonus)]


def _near(c: _Candidate, faults: Sequence[Event]) -> list[Event]:
    return [e for e in faults if e.entity == c.entity and -FAULT_AFTER_S <= c.onset - e.time <= FAULT_BEFORE_S]


def _is_victim(c: _Candidate, faults: Sequence[Event]) -> bool:
    """Nothing but errors, and all that was told of them lies with the application: what depends on it is not its victim."""
    near = _near(c, faults)
    return bool(near) and all(xids.fault(e) == "application" for e in near) and all(a.resource == "errors" for a in c.alerts)


def _faulted(c: _Candidate, faults: Sequence[Event]) -> list[Reason]:
    """The worst that the hardware told of itself around the onset; of equals an XID, which brings advice, then the earliest."""
    near = _near(c, faults)
    if not near:
        return []
    worst = min(near, key=lambda e: (-FAULT_BONUS[xids.fault(e) or "application"], "XID " not in e.reason, e.time, e.text))
    others = len({e.reason for e in near} - {worst.reason})
    more = f" (and {others} other fault{'s' if others > 1 else ''})" if others else ""
    bonus = -EXPLAINED * c.strength if _is_victim(c, faults) else FAULT_BONUS[xids.fault(worst) or "application"]
    return [Reason(f"{utc(worst.time, CLOCK)} {xids.headline(worst)}{more}", bonus)]
