"""The JSON of the HTTP interface as models: they make the OpenAPI document, and a test holds aiops.serial to them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from aiops.web.view import CostWindow, ReadinessState, Verdict
from aiops.windows import entity_glob


class Form(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Error(Form):
    """What is wrong, in one sentence."""

    error: str


Glob = Annotated[str, Field(max_length=500)]
Who = Annotated[str, Field(max_length=100, description="Who says so, for the record; \"http\" if left out.")]


class Answer(Form):
    """Who answers."""

    by: Who = "http"


class Feedback(Answer):
    """What a person says about an incident."""

    verdict: Verdict


class Approval(Answer):
    """`set`: fields of the action's target that are to be other than asked; guards are asked again."""

    changes: dict[Annotated[str, Field(max_length=100)], bool | int | float | Annotated[str, Field(max_length=500)]] = Field(
        default_factory=dict, alias="set", max_length=20)


class Spoken(Form):
    """Who says it, and why."""

    by: Who = "http"
    reason: str = Field(default="", max_length=500)


class StopAll(Spoken):
    """`freeze`: what was done is not even undone."""

    freeze: bool = False


class Forget(Answer):
    """Names of what is to be forgotten, globs; everything of the kind where there are none."""

    names: list[Glob] = Field(default_factory=list, max_length=100)


class Forgotten(Form):
    accepted: bool
    matches: int = Field(description="How many are forgotten with the next step.")


class LearnedKind(Form):
    """One kind of what was learned."""

    kind: str
    what: str
    count: int


class LearnedKinds(Form):
    at: float | None
    kinds: list[LearnedKind]


class LearnedRows(Form):
    """`rows`: their fields follow from the kind, docs/learning.md lists them."""

    kind: str
    what: str
    total: int
    rows: list[dict[str, Any]]


class StopShown(Form):
    """A stop that stands. `source`: where it was said, empty for people."""

    source: str
    by: str
    reason: str
    at: float
    freeze: bool


class MaintenanceStart(Form):
    """A window of maintenance, from now on unless `from` says otherwise."""

    entities: list[Annotated[str, AfterValidator(entity_glob), Field(max_length=500)]] = Field(
        min_length=1, max_length=100, description="Globs over entities: kind/namespace/name.")
    for_s: float = Field(ge=1, le=30 * 86400, description="How long, in seconds; 30 days at most.")
    since: float | None = Field(default=None, alias="from", allow_inf_nan=False, ge=0, le=1e11, description="Now if left out.")
    reason: str = Field(default="", max_length=500)


class Window(Form):
    """A window of maintenance: once (`from`, `until`) or every week (`weekly` in the wall time of `timezone`)."""

    id: str
    entities: list[str]
    namespace: str
    reason: str
    by: str
    since: float | None = Field(default=None, alias="from")
    until: float | None = None
    weekly: str | None = None
    timezone: str | None = None


class Started(Window):
    matches: int = Field(description="How many watched entities the window names.")


class ListedWindow(Window):
    state: Literal["active", "planned", "over"]
    ends_at: float | None


class Windows(Form):
    maintenance: list[ListedWindow]


class DeploymentCost(Form):
    """What one deployment cost and how much of it idled; null where it is not known. Money in the currency of the prices."""

    deployment: str
    seen_hours: float = Field(description="How much of the window it reported anything in.")
    gpus: float = Field(description="Their mean number in that time.")
    gpu_hours: float
    idle_gpu_hours: float = Field(description="GPU-hours without work while memory was held.")
    idle_ratio: float | None
    requests: float
    prompt_tokens: float
    generated_tokens: float
    tokens_per_gpu_second: float | None
    cost: float | None
    idle_cost: float | None
    cost_per_hour: float | None
    cost_per_request: float | None
    cost_per_1k_tokens: float | None


class Costs(Form):
    """The most expensive deployments first. `currency` is empty where no prices are configured."""

    at: float | None
    window: CostWindow
    currency: str
    deployments: list[DeploymentCost]


class SignalReadiness(Form):
    """Whether a signal is judged, and why not; `since`: held or silent since then."""

    entity: str
    signal: str
    state: ReadinessState
    reason: str
    samples: int
    since: float | None


class ReadinessPage(Form):
    total: int
    counts: dict[str, int]
    signals: list[SignalReadiness]


class Dependency(Form):
    """`from` depends on `to`, as these sources say. `until`: it is not there any more; `confirmed`: when it was last seen."""

    source: str = Field(alias="from")
    target: str = Field(alias="to")
    kind: Literal["calls", "runs_on", "owns", "uses"]
    sources: list[str]
    since: float
    until: float | None
    confirmed: float


class TopologyPage(Form):
    """`version` counts the changes since the start. Before `exact_since` the past is not wholly known. `left_out`: pairs of
    callers for which there was no room."""

    at: float | None
    version: int
    exact_since: float | None
    total: int
    left_out: int
    edges: list[Dependency]


class Alert(Form):
    """A signal that left what is normal. `value`, `expected`, `lower`, `upper` in `unit`; null where not known."""

    entity: str
    signal: str
    since: float = Field(description="Seconds since 1970, UTC, like every time.")
    at: float
    score: float = Field(description="0..1, 1 is most anomalous.")
    p_value: float
    state: Literal["pending", "firing", "resolved", "suppressed"]
    severity: Literal["info", "warning", "critical"]
    detectors: list[str]
    value: float | None
    expected: float | None
    lower: float | None
    upper: float | None
    unit: str
    direction: Literal["up", "down", "both"]
    text: str


class Reason(Form):
    text: str
    contribution: float = Field(description="What this item of evidence added to the candidate's score.")


class Cause(Form):
    """A candidate for the root cause; `score` is its share among all."""

    entity: str
    score: float
    signals: list[str]
    reasons: list[Reason]


class Action(Form):
    id: str
    policy: str
    type: str
    target: str
    params: dict[str, Any]
    decision: Literal["act", "ask", "shadow", "refused"]
    reason: str
    at: float
    state: str
    incident: str
    models: list[str] = []
    answers: list[str] = []


class Outcome(Form):
    action: str
    status: Literal["done", "refused", "failed", "unknown", "helped", "no_help", "worse", "undone"]
    at: float
    reason: str


class Impact(Form):
    """Who depends on the suspected cause. `requests_per_second`: the most that one of them usually gets, null if not known."""

    entities: list[str]
    weight: float
    criticality: float = 1.0
    requests_per_second: float | None = None


class Priority(Form):
    """How urgent it is: `score` is the sum of what the reasons add, `level` follows from it."""

    level: Literal["P1", "P2", "P3", "P4"]
    score: float
    reasons: list[Reason]


class Tried(Form):
    type: str
    status: str


class Seen(Form):
    """An earlier incident with the same signature."""

    incident: str
    at: float
    lasted_s: float
    done: list[Tried]
    verdict: str


class Recurrence(Form):
    """How often it was here before, this time not counted; the latest, newest first."""

    in_7d: int = 0
    in_90d: int = 0
    latest: list[Seen] = []


class TimelineEntry(Form):
    at: float
    kind: str
    text: str


class Incident(Form):
    id: str
    title: str
    opened_at: float
    updated_at: float
    closed_at: float | None
    state: Literal["open", "closed"]
    severity: Literal["info", "warning", "critical"]
    entities: list[str]
    priority: Priority | None = Field(default=None, description="Null in incidents of earlier versions.")
    impact: Impact
    before: Recurrence = Recurrence()
    alerts: list[Alert]
    causes: list[Cause]
    actions: list[Action]
    outcomes: list[Outcome]
    timeline: list[TimelineEntry]
    models: list[str] = Field(default=[], description="Ids of the models that found it.")
    merged_into: str | None = Field(default=None, description="The incident that it turned out to be a part of.")


class Incidents(Form):
    incidents: list[Incident]


class Point(Form):
    at: float
    entity: str
    signal: str
    value: float | None
    expected: float | None
    lower: float | None
    upper: float | None


class Said(Form):
    verdict: str
    at: float
    by: str


class Why(Form):
    """The one state in which a signal of the incident has ended, and who or what (`by`) holds it there."""

    at: float
    since: float
    entity: str
    signal: str
    state: str
    by: str
    text: str
    policy: str


class IncidentWithPoints(Incident):
    points: list[Point]
    sensitivity: list[dict[str, Any]] = Field(
        default=[], description="How people's words move the evidence that its signals need.")
    why: list[Why] = Field(default=[], description="What was done about each signal, or why nothing was.")
    feedback: list[Said] = []


class Candidate(Form):
    """A model on trial. `text`: the figures of the comparison so far; `not_worse`: what they say, null before it began."""

    id: str
    settings: dict[str, Any]
    began: float | None
    due: float | None
    not_worse: bool | None
    text: str


class Previous(Form):
    """The model that served before, as it was at `at`."""

    id: str
    at: float


class Model(Form):
    """One detector. `refused`: a model that is configured and was taken back."""

    detector: str
    serving: str
    settings: dict[str, Any]
    since: float | None
    candidate: Candidate | None
    previous: Previous | None
    refused: str | None


class ModelEvent(Form):
    at: float
    detector: str
    kind: str
    model: str
    text: str


class Models(Form):
    models: list[Model]
    events: list[ModelEvent]


class Capsule(Form):
    """What an incident kept of the telemetry around it. `whole`: the incident is over and nothing is added any more."""

    incident: str
    title: str
    opened_at: float
    closed_at: float | None
    learned_at: float | None
    entities: int
    series: int
    samples: int
    log_lines: int
    events: int
    raw_alerts: int
    left_out: dict[str, int]
    bytes: int
    version: str
    whole: bool


class Capsules(Form):
    """`skipped`: incidents without one, because too many opened at once."""

    capsules: list[Capsule]
    made: int = 0
    failed: int = 0
    skipped: int = 0
    skipped_incidents: list[str] = []
    waiting: int = 0
    problem: str = ""


class SourceHealth(Form):
    name: str
    state: Literal["ok", "failing", "starting"]
    error: str | None
    last_success: float | None
    failures: int
    next_try: float | None = None
    notes: list[str] = []
    rejected: dict[str, int] = {}


class Status(Form):
    model_config = ConfigDict(extra="allow")

    version: str
    mode: Literal["observe", "ask", "act"]
    started_at: float
    at: float | None
    counts: dict[str, Any]
    sources: list[SourceHealth]
    notes: list[str]
    stops: list[StopShown] = []
    simulation: str = ""
