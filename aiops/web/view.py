"""What the page and the HTTP interface need to know; the daemon and the replay each offer it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, Literal, Protocol

JSON = dict[str, Any]
Verdict = Literal["false_alarm", "useful"]
CostWindow = Literal["hour", "day", "total"]
ReadinessState = Literal["masked", "warming_up", "constant", "no_season", "silent", "ready"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must hold before the daemon is ready. `text` says what is wrong, or empty."""

    name: str
    ok: bool
    text: str = ""


class NotPossible(Exception):  # noqa: N818 - an answer, not a failure
    """The request was understood and cannot be done now; the text says why (already answered, incident closed)."""


class View(Protocol):
    """Thread-safe; every method answers at once.

    `token`: what writers must show now, None when none is configured.
    """

    @property
    def token(self) -> str | None: ...

    @property
    def tokens(self) -> Mapping[str, str]:
        """Tokens that have a name: who shows one is the one of that name. Each suffices."""
        ...

    def incidents(self, state: str | None = None, limit: int = 100, offset: int = 0) -> Sequence[JSON]:
        """In the form of aiops.serial: the open before the closed, then newest first."""
        ...

    def incident(self, name: str) -> JSON | None:
        """The same form with `points` [{at, entity, signal, value, expected, lower, upper}] and `why`, in which state each of
        its signals has ended (aiops.serial.end_state); None when not known."""
        ...

    def status(self) -> JSON:
        """{version, mode, started_at, at, counts, sources: [{name, state ok|failing|starting, error, last_success, failures}],
        notes, stops: [{source, by, reason, at, freeze}], simulation: what to say where nothing is real}; `counts` are the
        fields of aiops.types.Counts."""
        ...

    def vitals(self) -> Sequence[JSON]:
        """Signals to show as small plots: {entity, signal, unit, points: [[t, value or None]], expected, lower, upper, ready}."""
        ...

    def models(self) -> JSON:
        """{models: as aiops.generations sums them up, events: newest first}."""
        ...

    def learned(self) -> JSON:
        """{at, kinds: [{kind, what, count}]}: what was learned, kind by kind."""
        ...

    def learned_of(self, kind: str, names: Sequence[str], limit: int = 100) -> JSON:
        """{kind, what, total, rows}: of one kind, with these names (globs; all where there are none). Raises LookupError for a
        kind that there is not."""
        ...

    def learned_files(self) -> IO[bytes] | None:
        """All of it as a tar.gz; None where nothing is kept. Raises NotPossible while another is being packed."""
        ...

    def forget(self, kind: str, names: Sequence[str], by: str) -> int:
        """Forget what these names (globs; all where there are none) name with the next step; how many that are. Raises
        LookupError for a kind that there is not, NotPossible where nothing is named so."""
        ...

    def costs(self, window: CostWindow) -> JSON:
        """{at, window, currency, deployments: [...]}, each as in aiops.costs.Figures; the most expensive first."""
        ...

    def metrics_text(self) -> str:
        """The daemon's own metrics in the text format of Prometheus."""
        ...

    def ready(self) -> tuple[bool, Sequence[Check]]:
        """Whether telemetry is being watched, and the checks behind the answer."""
        ...

    def revision(self) -> int:
        """Rises whenever something that the page shows has changed."""
        ...

    def readiness(self, entity: str = "", state: str = "", limit: int = 100, offset: int = 0) -> JSON:
        """{total, counts: {state: signals}, signals: [{entity, signal, state, reason, samples, since}]}; `entity`: a part."""
        ...

    def topology(self, at: float | None = None, entity: str = "", limit: int = 100, offset: int = 0) -> JSON:
        """{at, version, exact_since, total, left_out, edges: [{from, to, kind, sources, since, until, confirmed}]}; `entity`: a
        part of the name of an end, `at`: as it was then."""
        ...

    def maintenance(self) -> Sequence[JSON]:
        """Windows in the form of aiops.maintenance.shown, the active first."""
        ...

    def start_maintenance(self, entities: Sequence[str], for_s: float, since: float | None, reason: str, by: str) -> JSON:
        """The window, with `matches`: how many watched entities it names. Raises NotPossible when it is over already."""
        ...

    def end_maintenance(self, name: str, by: str) -> None:
        """Raises LookupError when the window is not known, NotPossible when it cannot be ended."""
        ...

    def capsules(self) -> JSON:
        """{capsules: what each says of itself, the newest first; made, failed, skipped, skipped_incidents, waiting, problem}."""
        ...

    def capsule(self, name: str) -> IO[bytes] | None:
        """An incident's capsule as a tar.gz; None where there is none. Raises NotPossible while another is being packed."""
        ...

    def approve(self, action: str, by: str, params: Mapping[str, object] | None = None) -> None:
        """params: fields of the target that are to be other than asked. Raises LookupError when the action is not known,
        NotPossible when it no longer waits, or cannot be done with these."""
        ...

    def reject(self, action: str, by: str) -> None:
        """Raises LookupError when the action is not known, NotPossible when it no longer waits."""
        ...

    def stop(self, by: str, reason: str, freeze: bool) -> None:
        """Nothing is decided or done any more, from now on. Raises NotPossible where that will not outlast a restart."""
        ...

    def start(self, by: str, reason: str) -> None:
        """Takes back what people stopped. Raises NotPossible where they did not."""
        ...

    def promote(self, detector: str, by: str) -> None:
        """Let the candidate serve. Raises LookupError when the detector is not known, NotPossible without a candidate."""
        ...

    def roll_back(self, detector: str, by: str) -> None:
        """Call the model of before back. Raises LookupError when the detector is not known, NotPossible without one."""
        ...

    def feedback(self, incident: str, verdict: Verdict, by: str) -> None:
        """Raises LookupError when the incident is not known."""
        ...
