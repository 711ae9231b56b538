"""The verbs: what a plug-in or an edge must offer. One or two methods each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

from aiops.changes import Change, Object
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


class Cluster(Protocol):
    """What actions may look at and change. Objects are Kubernetes JSON; dry run is which Cluster is handed in.

    Every method raises `Retry` (nothing was changed, try later), `Refused` (will never work) or `Ambiguous` (may have been
    done) at the edge.
    """

    def get(self, target: str) -> Object | None:
        """`deployment/shop/api`, `node//gpu-3`: the object as it is now, None where there is none."""
        ...

    def find(self, kind: str, namespace: str = "", selector: str = "", fields: str = "") -> Sequence[Object]:
        """All of a kind with these labels and fields; in all namespaces where none is named."""
        ...

    def try_out(self, change: Change) -> None:
        """Server-side dry run: raises what `write` would raise, and changes nothing."""
        ...

    def write(self, change: Change) -> Object:
        """Does it, where everything still is as it was when it was planned; the object as it is then.

        Raises `Changed` where a field is not what it was. Writing twice does it once: the second finds another state.
        """
        ...


NOT_NOW = "not now: "
"""How the reason of a refusal begins that has nothing to do with the action itself: with fresh evidence it may be asked again."""


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


class Failed(Exception):  # noqa: N818
    """It was done and did not work. What it made is left to be looked at."""

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


@dataclass(frozen=True, slots=True)
class Plan:
    """What an action would do next: one sentence for people, and the writes, in order.

    `rest`: what is left to do after these, to be planned again in `after_s` seconds; empty where that is all. Without writes
    and without a rest there is nothing to do: it is as it shall be.
    """

    text: str
    changes: tuple[Change, ...] = ()
    rest: str = ""
    after_s: float = 5.0


class Remediation(Protocol):
    """One kind of action: it looks and says what to write; how that is tried out, recorded, done and undone is not its business.

    `verbs` are the RBAC rights it needs: `{("apps", "deployments/scale", "patch"), …}`. `target` is its `Target` model.
    `disruptive`: pods go away while it works. `reversible`: what it patches or creates is put back where it did not help.
    `examples`: targets as policies write them; the contract tests run every one. `takes_back` (False where it is not said): it
    takes back what somebody just changed, which others leave alone. `recovers` (False where it is not said): it gives back what
    was taken away, so no breaker holds it up.
    """

    verbs: ClassVar[frozenset[tuple[str, str, str]]]
    target: ClassVar[type[Any]]
    disruptive: ClassVar[bool]
    reversible: ClassVar[bool]
    examples: ClassVar[tuple[Mapping[str, object], ...]]

    def plan(self, action: Action, cluster: Cluster) -> Plan:
        """Reads only. Planned again it goes on from what it finds; the parameter `written` lists the entities of what it wrote
        so far, one for each write.

        Raises `Refused` where it cannot work, with the reason, and `Failed` where what an earlier turn began did not work.
        """
        ...


@dataclass(frozen=True, slots=True)
class Begun:
    """An action that a run left unfinished: its last turn, with the changes of which nobody knows whether they were written."""

    action: Action
    text: str
    rest: str
    doubtful: tuple[tuple[int, Change], ...]


class Log(Protocol):
    """What was set out and what was done, on disk before each call returns. May raise OSError: then nothing must be done."""

    def begin(self, action: Action) -> None:
        """The action is being looked at; nothing was written yet."""
        ...

    def turn(self, action: Action, plan: Plan) -> int:
        """These changes are about to be written; the number of the first. What an earlier turn left unwritten is dropped."""
        ...

    def written(self, action: str, number: int, inverse: Change | None) -> None: ...
    def writes(self, action: str) -> Sequence[Change]:
        """What the action has written so far, in all its turns."""
        ...

    def inverses(self, action: str) -> Sequence[Change]:
        """What undoes all that the action has written, the last write first."""
        ...

    def result(self, action: Action, outcome: Outcome) -> None: ...


class Judge(Protocol):
    """What a replica's actuator asks of its decider, from another thread."""

    @property
    def leads(self) -> bool:
        """Whether it has heard that judging is its own now."""
        ...

    def wanted(self, action: str) -> bool:
        """Whether the action is still to be done."""
        ...

    def about(self, action: str) -> dict[str, Any] | None:
        """What another replica needs to go on with it, as plain JSON; None where there is nothing."""
        ...


class Sink(Protocol):
    """Somebody who wants to know. Must not raise; a slow sink queues on disk or drops and counts, never blocks the step."""

    def publish(self, report: Report) -> None: ...
    def close(self) -> None: ...


class Actuator(Protocol):
    """Carries out decisions and hands back outcomes, which enter a later batch."""

    def submit(self, actions: Sequence[Action]) -> None: ...
    def collect(self) -> Sequence[Outcome]: ...
