"""The verbs: what a plug-in or an edge must offer. One or two methods each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

from aiops.types import Action, Anomaly, Batch, Event, Floats, Frame, Ints, Links, LogLine, Outcome, RawAlert, Report


class Clock(Protocol):
    """Live edge only; nothing in the pipeline sees one."""

    def now(self) -> float: ...
    def monotonic(self) -> float: ...
    def sleep_until(self, at: float) -> None: ...


class Samples(Protocol):
    """Where a source puts what it read. Thread-safe. Interns series; unknown or unusable input is counted, never raised.

    `sample` takes one sample of anything; who has many asks for the number of each `series` once and hands in blocks of
    arrays. What does not fit is refused whole (False), be it a `block` or the lines of one call: nothing of it was taken, and
    the source comes again with it, or counts it as rejected. Who keeps numbers must drop those that `on_retire` names, and
    may say which series `ended`.
    """

    def sample(self, time: float, entity: str, metric: str, labels: Mapping[str, str], value: float,
               kind: str = "unknown") -> None: ...
    def series(self, entity: str, metric: str, labels: Mapping[str, str], kind: str = "unknown") -> int | None: ...
    def block(self, series: Ints, time: Floats, value: Floats) -> bool: ...
    def on_retire(self, forget: Callable[[Ints], object]) -> None: ...
    def ended(self, series: Ints) -> None: ...
    def line(self, *lines: LogLine) -> bool: ...
    def event(self, event: Event) -> None: ...
    def alert(self, alert: RawAlert) -> None: ...
    def links(self, source: str, links: Links) -> None: ...


class Source(Protocol):
    """Something that is polled for telemetry. `name` is unique within a daemon and shown in its health."""

    name: str
    interval_s: float

    def poll(self, now: float, into: Samples) -> None:
        """Read what is new up to `now`. Raises on failure; the caller retries with backoff and shows the source as failing."""
        ...

    def close(self) -> None: ...


class Recording(Protocol):
    """A finite, ordered source of batches."""

    def batches(self) -> Iterator[Batch]: ...


class Detector(Protocol):
    """Scores a frame, then learns from it. Bounded memory per signal; never keeps or changes the frame.

    The class says its `VERSION` (which states it can read) and `BY_SIGNAL` (which arrays of `state` have one column a
    signal); `Settings`, `migrate` and `ready_count` are optional: docs/models.md.
    """

    def observe(self, frame: Frame) -> Sequence[Anomaly]: ...
    def state(self) -> dict[str, Any]: ...
    def restore(self, state: Mapping[str, Any]) -> None: ...


@runtime_checkable
class Settles(Protocol):
    """A detector that says, int32[], which columns have settled at a new level in this step: each new level once."""

    settled: Ints


@runtime_checkable
class Relearns(Protocol):
    """A detector that learns columns anew: what they do now is their normal."""

    def relearn(self, columns: Ints) -> None: ...


@dataclass(frozen=True, slots=True)
class Pod:
    """What remediations may know about one pod. `started_at` in UTC seconds; `leaving` once it was told to stop.

    `owned`: a controller will replace it when it goes.
    """

    entity: str
    ready: bool
    started_at: float
    leaving: bool = False
    owned: bool = True


class Cluster(Protocol):
    """The few things that remediations may do. Dry run is which Cluster is handed in.

    Entities are `deployment/NAMESPACE/NAME`, `statefulset/…`, `daemonset/…`, `pod/NAMESPACE/NAME`. `key` is the id of
    the action: a second call with the same key changes nothing. Every method raises `Retry` (nothing was changed, try
    later), `Refused` (will never work) or `Ambiguous` (may have been done) at the edge.
    """

    def done(self, key: str) -> Mapping[str, object] | None:
        """What the call with this key changed, or None where there was none."""
        ...

    def replicas(self, target: str) -> int: ...
    def autoscaler(self, target: str) -> str | None:
        """The entity of the autoscaler that owns the replicas, if any."""
        ...

    def scale(self, target: str, before: int, after: int, key: str) -> Mapping[str, object]:
        """Set the replicas if they still are `before`, else Retry. Returns the first call's `{"before", "after"}`."""
        ...

    def pods(self, namespace: str, selector: str) -> Sequence[Pod]: ...
    def pod(self, target: str) -> Pod | None: ...
    def evict(self, pod: str, key: str) -> None: ...
    def restart(self, target: str, key: str) -> None: ...


class Ambiguous(Exception):  # noqa: N818 - a verdict, not an error class
    """The request was sent and nobody knows whether it was carried out. Never repeated."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Retry(Exception):  # noqa: N818 - a verdict, not an error class
    """Nothing was changed; the same request may work in `after_s` seconds."""

    def __init__(self, reason: str, after_s: float = 5.0) -> None:
        super().__init__(reason)
        self.reason, self.after_s = reason, after_s


class Refused(Exception):  # noqa: N818
    """The request was understood and will not be carried out."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Target(Protocol):
    """What an action is aimed at, as a policy writes it: a pydantic model in the remediation's file."""

    def entity(self, namespace: str) -> str:
        """The entity; `namespace` where the policy names none."""
        ...

    def params(self) -> Mapping[str, object]:
        """What else the action needs, as plain JSON values."""
        ...


class Remediation(Protocol):
    """One kind of action.

    `verbs` are the RBAC rights it needs: `{("apps", "deployments/scale", "patch"), …}`. `target` is its `Target` model.
    `disruptive`: pods go away while it works. `reversible`: `undo` can put things back. `examples`: targets as policies
    write them; the contract tests run every one.
    """

    verbs: ClassVar[frozenset[tuple[str, str, str]]]
    target: ClassVar[type[Any]]
    disruptive: ClassVar[bool]
    reversible: ClassVar[bool]
    examples: ClassVar[tuple[Mapping[str, object], ...]]

    def plan(self, action: Action, cluster: Cluster) -> str:
        """What `act` would do, in one sentence. Reads only. Raises `Refused` where it cannot work."""
        ...

    def act(self, action: Action, cluster: Cluster) -> Mapping[str, object]:
        """Do it once; returns the snapshot that `undo` needs. Idempotent by `action.id`."""
        ...

    def undo(self, action: Action, snapshot: Mapping[str, object], cluster: Cluster) -> None:
        """Put back what `act` changed. Raises `Refused` where nothing can be put back."""
        ...


class Sink(Protocol):
    """Somebody who wants to know. Must not raise; a slow sink queues on disk or drops and counts, never blocks the step."""

    def publish(self, report: Report) -> None: ...
    def close(self) -> None: ...


class Actuator(Protocol):
    """Carries out decisions and hands back outcomes, which enter a later batch."""

    def submit(self, actions: Sequence[Action]) -> None: ...
    def collect(self) -> Sequence[Outcome]: ...
