"""What a RemediationPolicy may say, as pydantic models. `load.py` reads files into these and compiles conditions."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from aiops.quantities import Duration
from aiops.types import Severity
from aiops.windows import Once, When, parse_moment, parse_weekly
from aiops.yamlfile import Strict

PolicyMode = Literal["shadow", "ask", "act", "earned"]


def _regex(value: str) -> str:
    try:
        re.compile(value)
    except re.error as e:
        remedy = "To mean ( ) [ ] * + ? themselves, put a backslash before them."
        raise ValueError(f"{value!r} is not a regular expression: {e}. {remedy}") from None
    return value


def _positive(seconds: float) -> float:
    if seconds <= 0:
        raise ValueError("must be longer than zero. Write for example 30s or 10m.")
    return seconds


def _share(value: object) -> object:
    if isinstance(value, str) and not re.fullmatch(r"\d{1,3}%", value):
        raise ValueError(f"{value!r} is neither a count nor a share. Write for example 1 or 25%.")
    if isinstance(value, str) and not 1 <= int(value[:-1]) <= 100:
        raise ValueError(f"{value!r} is out of range. Write a share from 1% to 100%.")
    return value


Regex = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_regex)]
Positive = Annotated[Duration, AfterValidator(_positive)]
Name = Annotated[str, Field(min_length=1, max_length=253)]


FROM_THE_SERVER = frozenset({"uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp", "selfLink",
                             "deletionGracePeriodSeconds", "managedFields", "ownerReferences", "finalizers", "generateName"})
"""What an API server adds to `metadata`: ignored, so that a policy exported from a cluster is a good file."""


def _without(value: object, names: frozenset[str]) -> object:
    return {k: v for k, v in value.items() if k not in names} if isinstance(value, dict) else value


class Metadata(Strict):
    """As Kubernetes writes it. `namespace` is where unqualified targets are looked for."""

    @model_validator(mode="before")
    @classmethod
    def _written_by_people(cls, value: object) -> object:
        return _without(value, FROM_THE_SERVER)

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]
    namespace: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class AnomalyTrigger(Strict):
    """A signal (or a raw metric, through the signals made from it) behaves oddly.

    `model`: only what this detector saw. `sensitivity`: the least anomaly score, 0..1, that counts; above 0.95 also the
    evidence that is asked for: that of (1 - sensitivity) / 0.05 times the budget of false incidents (docs/budget.md).
    """

    type: Literal["Anomaly"]
    metric: Name
    model: Name | None = None
    sensitivity: Annotated[float, Field(ge=0, le=1)] = 0.0


class IncidentTrigger(Strict):
    """Any incident of at least this severity."""

    type: Literal["Incident"]
    severity: Severity = "info"


Trigger = Annotated[AnomalyTrigger | IncidentTrigger, Field(discriminator="type")]


class Match(Strict):
    """Where the policy applies: globs over the entity that triggered it, and the least severity of the incident."""

    entity: Name = "*"
    namespace: Name = "*"
    severity: Severity = "info"


class Correlation(Strict):
    """One measurement for the conditions: `metric: NAME`, or `logs: PATTERN` or `events: PATTERN` (regular expressions; lines and
    events are counted, of an event its reason and text).

    It is `correlation.NAME`; a pattern is `correlation["logs:PATTERN"]`, or `correlation.AS` with `name: AS`.
    """

    metric: Name | None = None
    logs: Regex | None = None
    events: Regex | None = None
    name: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=100)] | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Correlation:
        if sum(x is not None for x in (self.metric, self.logs, self.events)) != 1:
            raise ValueError("exactly one of metric, logs and events is needed.")
        return self

    @property
    def key(self) -> str:
        """Its name in the map `correlation`."""
        return self.name or self.plain

    @property
    def plain(self) -> str:
        """What it would be called without a name of its own."""
        return self.metric or (f"logs:{self.logs}" if self.logs else f"events:{self.events}")


class Diagnosis(Strict):
    """What is measured before the conditions are read."""

    correlations: Annotated[tuple[Correlation, ...], Field(max_length=100)] = ()


class ActionRule(Strict):
    """One thing that may be done. Actions are tried in the file's order; the first whose condition holds is taken."""

    type: Name
    condition: Annotated[str, Field(min_length=1, max_length=2000)] = "true"
    target: dict[str, Any]


class MaxActions(Strict):
    """At most `count` actions of this policy in any window of length `per`."""

    count: Annotated[int, Field(ge=1)] = 3
    per: Positive = 3600.0


class Breaker(Strict):
    """Open while `useless` of the last `of` attempts did not help, on whatever target; then one is tried each `probeAfter`, until
    one helps."""

    useless: Annotated[int, Field(ge=1, le=100)] = 5
    of: Annotated[int, Field(ge=1, le=100)] = 10
    probe_after: Annotated[Positive, Field(alias="probeAfter")] = 3600.0

    @model_validator(mode="after")
    def _possible(self) -> Breaker:
        if self.useless > self.of:
            raise ValueError(f"useless: {self.useless} of the last {self.of} can never be. Give at most as many as 'of'.")
        return self


Clock = Annotated[str, BeforeValidator(str), Field(max_length=40)]
Day = Annotated[str, Field(pattern=r"^[A-Za-z]{3}(\s*-\s*[A-Za-z]{3})?$")]


class ChangeWindow(Strict):
    """A stretch of time: on these days (all) from one time of the day to another, in the wall time of `timezone`; an end that is
    not later is on the next day. Or once, where `from` and `to` are dates with time and zone."""

    days: tuple[Day, ...] = ()
    since: Annotated[Clock, Field(alias="from")]
    until: Annotated[Clock, Field(alias="to")]
    timezone: str | None = None

    @model_validator(mode="after")
    def _a_time(self) -> ChangeWindow:
        if isinstance(when := self.when, Once) and not when.since < when.until:
            raise ValueError("'to' is not later than 'from'.")
        return self

    @property
    def when(self) -> When:
        """Raises ValueError with the remedy where that is no time."""
        if len(self.since) > 5 or len(self.until) > 5:
            if self.days or self.timezone is not None:
                raise ValueError("'from' and 'to' are dates: leave out days and timezone, or write times like 09:00.")
            return Once(parse_moment(self.since), parse_moment(self.until))
        return parse_weekly(f"{','.join(self.days) or 'Mon-Sun'} {self.since}-{self.until}", self.timezone or "UTC")


class Guards(Strict):
    """What keeps a right decision from doing harm. The defaults are meant for production.

    cooldown        time between two actions of the policy on one target
    maxUnavailable  pods that may be away at once because of us: a count, or a share of the pods that are selected
    namespaces      globs; empty = everywhere but the cluster's own (kube-system, …), which must be named to be touched
    maxEvidenceAge  older evidence is no ground for an action
    approvals       so many different people must approve
    approvalWithin  a question that nobody answers in this time is withdrawn
    breaker         when the policy stops because what it does does not help
    windows         only within one of these; none = at any time. What was done may be undone at any time
    notDuring       not within any of these
    """

    cooldown: Duration = 600.0
    max_actions: Annotated[MaxActions, Field(alias="maxActions")] = MaxActions()
    max_unavailable: Annotated[Annotated[int, Field(ge=1)] | str, BeforeValidator(_share),
                               Field(alias="maxUnavailable")] = 1
    namespaces: Annotated[tuple[Name, ...], Field(max_length=100)] = ()
    max_evidence_age: Annotated[Positive, Field(alias="maxEvidenceAge")] = 300.0
    approvals: Annotated[int, Field(ge=1, le=10)] = 1
    approval_within: Annotated[Positive, Field(alias="approvalWithin")] = 1800.0
    breaker: Breaker = Breaker()
    windows: Annotated[tuple[ChangeWindow, ...], Field(max_length=100)] = ()
    not_during: Annotated[tuple[ChangeWindow, ...], Field(alias="notDuring", max_length=100)] = ()


class Verify(Strict):
    """When to look whether it helped: `settle` after the action is done, for at most `within`."""

    settle: Duration = 60.0
    within: Positive = 600.0


class Feedback(Strict):
    """What "helped" means: the metric crosses the threshold to its good side. Without one: all alerts are resolved."""

    success_metric: Annotated[Name | None, Field(alias="successMetric")] = None
    success_threshold: Annotated[float | None, Field(alias="successThreshold")] = None
    learning_enabled: Annotated[bool, Field(alias="learningEnabled")] = True

    @model_validator(mode="after")
    def _both(self) -> Feedback:
        if (self.success_metric is None) != (self.success_threshold is None):
            raise ValueError("successMetric and successThreshold belong together. Give both or neither.")
        return self


class Escalate(Strict):
    """After how many attempts in a row that did not help the policy stops, and who is named then."""

    after: Annotated[int, Field(ge=1)] = 2
    to: Name = "a person"


class Expect(Strict):
    """What a test expects. `none`: the policy is not triggered. Left out = not looked at."""

    decision: Literal["act", "ask", "shadow", "refused", "none"]
    type: str | None = None
    target: str | None = None
    reason: str | None = None


class TestAnomaly(Strict):
    """The anomaly of a test; `metric` and `detector` default to what the trigger asks for. `since`: how long it, and
    the incident, have lasted."""

    __test__ = False

    metric: str | None = None
    entity: str = "pod/default/example-0"
    score: Annotated[float, Field(ge=0, le=1)] = 1.0
    detector: str | None = None
    since: Duration = 0.0


class TestAround(Strict):
    """Names of what the cause of a test belongs to, or runs on; `pods`: how many of its pods are affected."""

    __test__ = False

    workload: Name | None = None
    service: Name | None = None
    node: Name | None = None
    pods: Annotated[int, Field(ge=0)] | None = None


class Case(Strict):
    """One test of a policy: what is measured, and what must be decided. `age`: seconds since the newest evidence; `around`: the
    `workload`, `service` and `node` of the cause, `signals`: what speaks for it; `at`: when."""

    name: Name
    anomaly: TestAnomaly = TestAnomaly()
    severity: Severity = "warning"
    cause: str | None = None
    signals: Annotated[tuple[Name, ...], Field(max_length=100)] = ()
    around: TestAround = TestAround()
    correlation: dict[str, float | None] = Field(default_factory=dict)
    age: Duration = 0.0
    at: Annotated[float | None, BeforeValidator(parse_moment)] = None
    expect: Expect


class Spec(Strict):
    """The policy proper. Everything but trigger and actions is optional and defaults to the careful choice."""

    trigger: Trigger
    match: Match = Match()
    diagnosis: Diagnosis = Diagnosis()
    actions: Annotated[list[ActionRule], Field(min_length=1, max_length=20)]
    mode: PolicyMode = "shadow"
    guards: Guards = Guards()
    verify: Verify = Verify()
    undo: bool = True
    feedback: Feedback = Feedback()
    escalate: Escalate = Escalate()
    tests: Annotated[tuple[Case, ...], Field(max_length=100)] = ()

    @model_validator(mode="after")
    def _earned_needs_learning(self) -> Spec:
        if self.mode == "earned" and not self.feedback.learning_enabled:
            raise ValueError("mode 'earned' needs feedback.learningEnabled: true. Trust is earned from outcomes.")
        return self


class RemediationPolicy(Strict):
    """One document, as a file and as a custom resource (whose `status` is no part of it)."""

    @model_validator(mode="before")
    @classmethod
    def _written_by_people(cls, value: object) -> object:
        return _without(value, frozenset({"status"}))

    api_version: Annotated[Literal["aiops.io/v1"], Field(alias="apiVersion")]
    kind: Literal["RemediationPolicy"]
    metadata: Metadata
    spec: Spec
