"""The nouns. Standard library and NumPy only; no I/O, no clock.

Conventions: times are UTC seconds since 1970 (float), durations end in `_s`, an entity is the string
`kind/namespace/name` (`pod/shop/api-7d4`, `node//gpu-3`, `gpu/gpu-3/0`) and the node key of the topology graph.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Entity = str
Kind = Literal["gauge", "counter", "unknown"]
Direction = Literal["up", "down", "both"]
AlertState = Literal["pending", "firing", "resolved", "suppressed"]
IncidentState = Literal["open", "closed"]
Severity = Literal["info", "warning", "critical"]
Decision = Literal["act", "ask", "shadow", "refused"]
OutcomeStatus = Literal["done", "refused", "failed", "unknown", "helped", "no_help", "worse", "undone"]
EdgeKind = Literal["calls", "runs_on", "owns", "uses"]
PriorityLevel = Literal["P1", "P2", "P3", "P4"]

CONSUMED = frozenset({"cpu", "memory", "disk", "network", "gpu"})
"""Kinds of resource that somebody uses up and others then lack."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]
Bools = NDArray[np.bool_]


def entity_parts(entity: Entity) -> tuple[str, str, str]:
    """`pod/shop/api` -> kind, namespace, name (which may hold slashes). What is missing is empty: names come from outside."""
    kind, _, rest = entity.partition("/")
    namespace, _, name = rest.partition("/")
    return kind, namespace, name


# --------------------------------------------------------------------------------------------------- what comes in
@dataclass(frozen=True, slots=True)
class Series:
    """One raw time series, interned once; `id` is its place in every array of samples.

    `labels` is canonical: `k="v",…` sorted by name, without the labels that already made the entity.
    """

    id: int
    entity: Entity
    metric: str
    labels: str = ""
    kind: Kind = "unknown"


@dataclass(frozen=True, slots=True)
class LogLine:
    time: float
    entity: Entity
    text: str


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to an entity: a Kubernetes event, a deploy, an XID. `kind` is `change`, `warning` or `normal`."""

    time: float
    entity: Entity
    kind: str
    reason: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class RawAlert:
    """An alert of another system (Alertmanager). `index` is its place in the input stream."""

    index: int
    time: float
    entity: Entity
    name: str
    status: Literal["firing", "resolved"] = "firing"
    severity: str = "warning"
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def critical(self) -> bool:
        """Whether it is to wake somebody, as its sender says."""
        return self.severity in {"critical", "page"}


@dataclass(frozen=True, slots=True)
class Edge:
    """`source` depends on `target`; `owns` goes from a service to its pod. `told`: who says so, sorted, with commas between."""

    source: Entity
    target: Entity
    kind: EdgeKind = "calls"
    told: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Node:
    entity: Entity
    criticality: float = 1.0
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Links:
    """The topology at one moment, which replaces what was known before; or, where it is not `whole`, what changed since: nodes
    and edges that came or are others now, and those that went (`gone_nodes`, `gone_edges`)."""

    nodes: tuple[Node, ...] = ()
    edges: tuple[Edge, ...] = ()
    gone_nodes: tuple[Entity, ...] = ()
    gone_edges: tuple[Edge, ...] = ()
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Command:
    """What a person said: `approve`, `reject` (target = action id), `false_alarm`, `useful` (target = incident id),
    `maintenance_start`, `maintenance_end` (target = the window's id), `rollback`, `promote` (target = name of a detector),
    `stop`, `freeze`, `start` (target = where it was said, empty for people), `reset` (target = a kind of what was learned,
    `aiops.learned.KINDS`; `entities` = names in it, globs, all where there are none).
    What replicas say: `handed` (target = action id, `params`: all that is known of it), `lead`, `follow` (target = the lease).

    An approval may change parameters (`params`: field of the target -> value). A window covers `entities` (globs) from `since`
    (None: from `time`) until `until`, UTC seconds.
    """

    time: float
    verb: Literal["approve", "reject", "false_alarm", "useful", "maintenance_start", "maintenance_end", "rollback", "promote",
                  "stop", "freeze", "start", "reset", "handed", "lead", "follow"]
    target: str
    by: str = ""
    entities: tuple[str, ...] = ()
    since: float | None = None
    until: float = 0.0
    reason: str = ""
    params: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an action."""

    action: str
    status: OutcomeStatus
    at: float
    reason: str = ""


def _no_ints() -> Ints:
    return np.empty(0, np.int32)


def _no_floats() -> Floats:
    return np.empty(0, np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """All that arrived in one tick. `at` is the event time of the tick and strictly rises from batch to batch.

    series int32[n], time float64[n] (seconds), value float64[n]: one row a sample, unordered, possibly NaN.
    `new_series` introduces ids before their first sample. `retired` int32[m]: ids of which nothing comes any more, freed before
    `new_series` gives some of them to others. `links` is None while the topology is unchanged. `policies`: the whole set that
    is in force from this batch on, as texts by name (`aiops.policy.texts`); None while it is unchanged.
    """

    at: float
    series: Ints = field(default_factory=_no_ints)
    time: Floats = field(default_factory=_no_floats)
    value: Floats = field(default_factory=_no_floats)
    new_series: tuple[Series, ...] = ()
    lines: tuple[LogLine, ...] = ()
    events: tuple[Event, ...] = ()
    alerts: tuple[RawAlert, ...] = ()
    links: Links | None = None
    outcomes: tuple[Outcome, ...] = ()
    commands: tuple[Command, ...] = ()
    retired: Ints = field(default_factory=_no_ints)
    policies: Mapping[str, str] | None = None


# ---------------------------------------------------------------------------------------------- what is watched
@dataclass(frozen=True, slots=True)
class Signal:
    """What is scored: a raw gauge, the rate of a counter, or a quantity that a pack defines over several raw series.

    `id` is its column in every Frame. `min_abs` (in `unit`) and `min_rel` (share of the expected value) are the
    smallest deviation worth telling a person about; both must be exceeded. `additive` marks increases that add up
    over a window (restarts), as opposed to levels of which the last one counts. `limit` is the value at which a resource
    has run out, reached in the bad direction, None where there is no such value; somebody must know `horizon_s` before.
    """

    id: int
    entity: Entity
    name: str
    labels: str = ""
    unit: str = ""
    direction: Direction = "both"
    min_abs: float = 0.0
    min_rel: float = 0.0
    additive: bool = False
    resource: str = ""
    limit: float | None = None
    horizon_s: float = 86_400.0

    @property
    def key(self) -> str:
        """Name with labels, as Prometheus writes it."""
        return f"{self.name}{{{self.labels}}}" if self.labels else self.name

    def band(self, expected: float, half: float) -> tuple[float, float]:
        """Lower and upper edge of what is expected; what packs give a unit is never negative."""
        lower = expected - half
        return (max(lower, 0.0) if self.unit and expected >= 0 else lower), expected + half


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One tick as detectors see it.

    values float64[S]: one number a signal, NaN where it did not report in this tick.
    learn  bool[S]: False where nothing may be learned (open incident, deploy, maintenance).
    signals[i] describes column i; columns are only ever added. `held` are the entities of which nothing may be learned.
    residuals float64[S]: (value - expected) / half the width of the baseline's band in this tick, NaN where that is not
    known; for detectors that come after the baseline, empty where none runs.
    """

    at: float
    values: Floats
    learn: Bools
    signals: Sequence[Signal]
    lines: tuple[LogLine, ...] = ()
    events: tuple[Event, ...] = ()
    held: frozenset[Entity] = frozenset()
    residuals: Floats = field(default_factory=_no_floats)


# --------------------------------------------------------------------------------------------- what is found
@dataclass(frozen=True, slots=True)
class Anomaly:
    """One detector's opinion on one signal (or entity) at one instant.

    `score` in 0..1 (1 = most anomalous), `p_value` the chance of something at least as odd when all is well.
    `signal` is the column in the frame, or -1 where the anomaly is not about a metric (log templates).
    """

    at: float
    entity: Entity
    name: str
    score: float
    p_value: float
    detector: str
    signal: int = -1
    value: float = math.nan
    expected: float = math.nan
    lower: float = math.nan
    upper: float = math.nan
    onset: float = math.nan
    text: str = ""


@dataclass(frozen=True, slots=True)
class Alert:
    """A deviation that lasted: one per entity and signal. `score` 0..1, `strength` in nats of evidence.

    `silent`: resolved because nothing was reported any more, which says nothing about whether it is well. `suppressed`:
    it deviates, and raises nothing for the reason that `text` gives.
    `budget_share` in 0..1: with this share of the budget of false incidents it would still have been raised.
    `opens` in 0..1: its share of what opens an incident; below 1 for an alert of others that comes and goes by habit (`text`).
    `odd_at`: when it deviated last, NaN where that is not known apart from `at`.
    """

    key: str
    entity: Entity
    signal: str
    state: AlertState
    since: float
    at: float
    score: float
    p_value: float
    strength: float = 0.0
    detectors: tuple[str, ...] = ()
    severity: Severity = "warning"
    value: float = math.nan
    expected: float = math.nan
    lower: float = math.nan
    upper: float = math.nan
    unit: str = ""
    direction: Direction = "both"
    resource: str = ""
    text: str = ""
    indexes: tuple[int, ...] = ()
    silent: bool = False
    budget_share: float = 1.0
    opens: float = 1.0
    odd_at: float = math.nan


@dataclass(frozen=True, slots=True)
class Reason:
    """One item of evidence and what it added to (or took from) a candidate's score."""

    text: str
    contribution: float


@dataclass(frozen=True, slots=True)
class Cause:
    """A candidate for the root cause; `score` in 0..1 is its share among all candidates."""

    entity: Entity
    score: float
    signals: tuple[str, ...]
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    at: float
    kind: str
    text: str


HANDED = "handed"
GOES_ON = "it goes on in "
"""How the text of an alert begins that was given to another incident, whose id follows."""
"""The state of an action that is in another's hands, or was: it is shown, and not carried out here."""


@dataclass(frozen=True, slots=True)
class Action:
    """A remediation that a policy asks for. `id` doubles as the idempotency key; `params` is what the type declares.

    `models`: ids of the models whose evidence it rests on. `answers`: what people said so far, where it asks.
    """

    id: str
    type: str
    target: Entity
    params: Mapping[str, object]
    incident: str
    policy: str
    decision: Decision
    reason: str
    at: float
    state: str = ""
    models: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Impact:
    """Who depends on the suspected cause. `weight` is the sum of their criticalities, its own included; `criticality` the
    highest among them. `requests`: the most requests a second that one of them usually gets, NaN where no signal says so.
    """

    entities: tuple[Entity, ...] = ()
    weight: float = 0.0
    criticality: float = 1.0
    requests: float = math.nan


@dataclass(frozen=True, slots=True)
class Priority:
    """How urgent an incident is: `score` is the sum of what the reasons add, `level` what follows from it."""

    level: PriorityLevel = "P4"
    score: float = 0.0
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True, slots=True)
class Seen:
    """An earlier incident of the same signature: when it opened, how long it lasted, what was done (`type`, the status that
    came of it) and what a person said of it (`useful`, `false_alarm`, or empty)."""

    incident: str
    at: float
    lasted_s: float
    done: tuple[tuple[str, str], ...] = ()
    verdict: str = ""


@dataclass(frozen=True, slots=True)
class Recurrence:
    """That it was here before: how often in the last 7 and in the last 90 days, this time not counted; the latest, newest
    first."""

    in_7d: int = 0
    in_90d: int = 0
    latest: tuple[Seen, ...] = ()


@dataclass(frozen=True, slots=True)
class Incident:
    """`models`: ids of the models that found it, sorted (`baseline-v2-3f9c`). `merged_into`: the id of the incident that it
    turned out to be a part of, and that goes on instead."""

    id: str
    opened_at: float
    updated_at: float
    state: IncidentState
    severity: Severity
    entities: tuple[Entity, ...]
    alerts: tuple[Alert, ...]
    causes: tuple[Cause, ...] = ()
    impact: Impact = Impact()
    closed_at: float | None = None
    actions: tuple[Action, ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    timeline: tuple[TimelineEntry, ...] = ()
    models: tuple[str, ...] = ()
    priority: Priority = Priority()
    before: Recurrence = Recurrence()
    merged_into: str = ""

    @property
    def title(self) -> str:
        """`node//a: node_cpu_busy_ratio` - the best cause with its strongest signal, for lists and notices."""
        if not self.causes:
            return ", ".join(self.entities[:2])
        best = self.causes[0]
        return f"{best.entity}: {best.signals[0]}" if best.signals else best.entity


@dataclass(frozen=True, slots=True)
class Point:
    """One drawn sample of a signal under alert: observed value and the band in which it was expected."""

    at: float
    entity: Entity
    signal: str
    value: float
    expected: float
    lower: float
    upper: float


@dataclass(frozen=True, slots=True)
class Counts:
    """Totals since the start of the run: the funnel and what was dropped on the way in, by reason."""

    batches: int = 0
    samples: int = 0
    log_lines: int = 0
    raw_anomalies: int = 0
    alerts: int = 0
    incidents: int = 0
    prioritised: int = 0
    actionable: int = 0
    series: int = 0
    signals: int = 0
    ready: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    suppressed: int = 0
    habitual: int = 0


@dataclass(frozen=True, slots=True)
class ModelEvent:
    """A turn in the life of a detector's models. `model` is the id it is about, `text` says why, for people. Of a `reset`
    `detector` is the kind of what was forgotten."""

    at: float
    detector: str
    kind: Literal["fresh", "shadow", "kept", "takeover", "promoted", "rollback", "dropped", "refused", "reset"]
    model: str
    text: str


EndName = Literal[
    "acting", "waiting", "acted", "rehearsed", "rejected", "expired", "cooldown", "blocked", "no_target", "condition",
    "no_policy", "no_incident", "habitual", "inhibited", "maintenance", "suppressed", "pending", "not_learned_yet",
    "below_budget", "noted", "resolved"]
"""Where an alert or anomaly has ended for now: docs/audit.md says what each means."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a policy stands on an open incident now. `by`: the guard, the action, or the status of what was done."""

    policy: str
    state: EndName
    by: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class EndState:
    """The one state in which an alert, or an anomaly that is none, has ended for now, and since when.

    `by` names who or what holds it there (a guard, a window, a cause, an action), `text` says it for people. `alerted`:
    it is an alert, or was one.
    """

    at: float
    since: float
    entity: Entity
    signal: str
    state: EndName
    by: str = ""
    text: str = ""
    incident: str = ""
    policy: str = ""
    alerted: bool = True

    @property
    def new(self) -> bool:
        """Whether it got there in this step."""
        return self.since == self.at


@dataclass(frozen=True, slots=True)
class Report:
    """All that one step found, decided and refused.

    `incidents` are those that changed in this step; `actions` the decisions taken in it; `points` feed the plots;
    `assigned` says for raw alerts of others (by index) which incident they went to. `models` are the ids of the models
    that judged this step, sorted; `model_events` what became of models in it. `ends`: where each alert and anomaly of the
    step has ended for now; `commands`: what people said; `policies`: the texts of a new set of policies, by name.
    """

    at: float
    anomalies: tuple[Anomaly, ...] = ()
    alerts: tuple[Alert, ...] = ()
    incidents: tuple[Incident, ...] = ()
    actions: tuple[Action, ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    points: tuple[Point, ...] = ()
    counts: Counts = Counts()
    notes: tuple[str, ...] = ()
    assigned: tuple[tuple[int, str], ...] = ()
    models: tuple[str, ...] = ()
    model_events: tuple[ModelEvent, ...] = ()
    ends: tuple[EndState, ...] = ()
    commands: tuple[Command, ...] = ()
    policies: Mapping[str, str] | None = None
