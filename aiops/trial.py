"""Is a candidate no worse than the model that serves? Both see the same frames; this counts what each says and decides.

The rule. Once the candidate is ready for 95 % of what the serving model is ready for, and a day has passed since then, it is
not worse if

1. its anomalies on quiet time are not more than the upper end of the one-sided 95 % Poisson interval of the serving model's
   number over the same time. An anomaly that lasts, or comes back within five minutes, counts once; on quiet time it is when
   nothing was wrong with its entity (no open incident, no change) until five minutes after; and
2. it said something of an entity of each incident that the serving model found and that proved right: a person called it
   useful, or a policy acted on it and nobody called it a false alarm.

Else it stays in the shadow, and is judged again a day later on everything since the beginning. What it cannot see: a
candidate that is later than the serving model, and incidents that only the candidate would have found.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from aiops.types import Anomaly, Command, Frame, Incident

LEAST_S = 86_400.0
READY_SHARE = 0.95
REST_S = 300.0
"""An anomaly is over when nothing was said of its signal for so long."""
LEAD_S = 300.0
"""What was said of an entity so long before an incident opened belongs to it."""
MOST_CASES, MOST_ENTITIES = 1000, 10_000
Z = 1.6448536269514722
"""95 % of a standard normal distribution lie below."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`better`: not worse by the rule. `text`: the figures, for people."""

    better: bool
    text: str


@dataclass(slots=True)
class Case:
    """An incident that the serving model found during the trial."""

    found: bool = False
    acted: bool = False
    said: str = ""

    @property
    def proven(self) -> bool:
        return self.said == "useful" or (self.acted and self.said != "false_alarm")


class Episodes:
    """Counts anomalies on quiet time, each once however long it lasts. Memory bounded by what is odd right now."""

    def __init__(self) -> None:
        self.count = 0
        self._open: dict[tuple[str, str], tuple[float, bool]] = {}

    def add(self, frame: Frame, found: Iterable[Anomaly]) -> None:
        for a in found:
            self._open[a.entity, a.name] = frame.at, self._open.get((a.entity, a.name), (0.0, True))[1]
        for key, (last, quiet) in list(self._open.items()):
            quiet = quiet and key[0] not in frame.held
            self._open[key] = last, quiet
            if frame.at - last > REST_S:
                self.count += quiet
                del self._open[key]

    def state(self) -> dict[str, Any]:
        return {"count": self.count, "open": [[*key, *rest] for key, rest in self._open.items()]}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.count = int(state["count"])
        self._open = {(entity, name): (float(last), bool(quiet)) for entity, name, last, quiet in state["open"]}


class Trial:
    """The figures of one candidate beside one serving model. Deterministic; event time only."""

    def __init__(self) -> None:
        self.began = math.nan
        self.due = math.nan
        self.serving, self.candidate = Episodes(), Episodes()
        self.cases: dict[str, Case] = {}
        self._spoke: dict[str, float] = {}

    @property
    def running(self) -> bool:
        """Whether anything is counted yet: not before the candidate is ready."""
        return math.isfinite(self.began)

    def begin(self, at: float) -> None:
        self.began, self.due = at, at + LEAST_S

    def watch(self, frame: Frame, found: Sequence[Anomaly], theirs: Sequence[Anomaly]) -> None:
        """One frame: what the serving model said, and what the candidate said."""
        self.serving.add(frame, found)
        self.candidate.add(frame, theirs)
        self._spoke.update((a.entity, frame.at) for a in theirs)
        if len(self._spoke) > MOST_ENTITIES:
            self._spoke = {e: at for e, at in self._spoke.items() if at >= frame.at - LEAD_S}

    def hear(self, detector: str, incidents: Iterable[Incident], commands: Iterable[Command]) -> None:
        """What became of incidents that `detector` had a part in: those open or changed in this step."""
        for i in incidents:
            if i.opened_at >= self.began and any(detector in a.detectors for a in i.alerts):
                self._take_in(i)
        for c in commands:
            if c.target in self.cases and c.verb in ("useful", "false_alarm"):
                self.cases[c.target].said = c.verb

    def _take_in(self, i: Incident) -> None:
        if i.id not in self.cases and len(self.cases) >= MOST_CASES:
            return
        case = self.cases.setdefault(i.id, Case())
        case.found = case.found or any(self._spoke.get(e, -math.inf) >= i.opened_at - LEAD_S for e in i.entities)
        case.acted = case.acted or any(a.decision == "act" for a in i.actions)

    def judge(self, at: float) -> Verdict | None:
        """The verdict when it is due: a day after the beginning, then every day. None in between."""
        if not at >= self.due:
            return None
        self.due = at + LEAST_S
        return self.verdict(at)

    def verdict(self, at: float) -> Verdict:
        """By the figures so far."""
        most = poisson_upper(self.serving.count)
        proven = [c for c in self.cases.values() if c.proven]
        found = sum(c.found for c in proven)
        hours = (at - self.began) / 3600.0
        text = (f"{hours:.0f} h side by side; {self.candidate.count} anomalies on quiet time against {self.serving.count} "
                f"(at most {most:.1f}), {found} of {len(proven)} proven incidents found")
        return Verdict(self.candidate.count <= most and found == len(proven), text)

    def state(self) -> dict[str, Any]:
        return {"began": self.began, "due": self.due, "serving": self.serving.state(), "candidate": self.candidate.state(),
                "cases": {key: asdict(c) for key, c in self.cases.items()}, "spoke": dict(self._spoke)}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.began, self.due = float(state["began"]), float(state["due"])
        self.serving.restore(state["serving"])
        self.candidate.restore(state["candidate"])
        self.cases = {key: Case(**c) for key, c in state["cases"].items()}
        self._spoke = {entity: float(at) for entity, at in state["spoke"].items()}


def ready_enough(serving: int | None, candidate: int | None) -> bool:
    """Whether the candidate can judge 95 % of what the serving model can. None: it does not say, and always can."""
    return serving is None or candidate is None or candidate >= READY_SHARE * serving


def poisson_upper(count: int) -> float:
    """Upper end of the one-sided 95 % interval for the mean of a Poisson variable that came out as `count` >= 0.

    The cube-root approximation of Wilson and Hilferty ("The Distribution of Chi-Square", 1931), within 1 % of the exact
    2.996 at 0 and closer above.
    """
    n = count + 1.0
    return float(n * (1.0 - 1.0 / (9.0 * n) + Z / (3.0 * math.sqrt(n))) ** 3)
