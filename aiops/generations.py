"""The models of one detector over time: the one that serves, a candidate in its shadow, and the one that served before.

Only the serving model's anomalies go on; the candidate sees the same frames and is counted (`aiops.trial` has the rule). Who
served before is kept as it was on the day it was replaced, learns nothing meanwhile, and can be called back.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from aiops.globs import named
from aiops.interfaces import Detector, Relearns
from aiops.models import Columns, Lineage, Model, Saved, Settings, Unusable, by_signal, code_of, known_columns, moved, revived
from aiops.trial import Trial, ready_enough
from aiops.types import Anomaly, Command, Floats, Frame, Incident, Ints, ModelEvent

JSON = dict[str, Any]


class Generations:
    """A detector to everybody outside. Begins with the model that is configured, which has learned nothing yet.

    Deterministic: what happens follows from frames, incidents and commands alone.
    """

    def __init__(self, model: Model) -> None:
        self.name = model.name
        self.serving = model
        self.candidate: Model | None = None
        self._previous: Saved | None = None
        self._due: Columns | None = None
        self.refused = ""
        self.since = math.nan
        self.trial = Trial()
        self._configured = model.id
        self._at = -math.inf
        self._untold: list[tuple[Any, str, str]] = []

    @property
    def id(self) -> str:
        """The id of the model that serves."""
        return self.serving.id

    @property
    def fresh(self) -> bool:
        """A model is there that has learned nothing yet: past telemetry is of use."""
        return self.serving.fresh or (self.candidate is not None and self.candidate.fresh)

    @property
    def movable(self) -> bool:
        """Whether columns can be taken out of what was learned."""
        return by_signal(self.serving.detector) is not None

    @property
    def previous(self) -> Saved | None:
        """The model of before, on the columns of now: it is moved when somebody asks for it, however often columns moved."""
        due, self._due = self._due, None
        if due is not None:
            self._previous = self._moved(self._previous, due)
        return self._previous

    @previous.setter
    def previous(self, saved: Saved | None) -> None:
        self._previous, self._due = saved, None

    def edge(self) -> int:
        """How many of the columns the model of before knows."""
        if self._due is not None:
            return len(self._due)
        try:
            return known_columns(self._previous, code_of(self._previous.detector, self._previous.version)[0]) \
                if self._previous else 0
        except Unusable:
            return 0

    def abreast(self, at: float) -> bool:
        """Whether its models have seen the step of `at`, or nothing yet: after a restart the past is passed over."""
        return all(m.fresh or m.at == at for m in (self.serving, self.candidate) if m is not None)

    def __getattr__(self, name: str) -> Any:
        """What else the serving detector offers (`last_p`)."""
        if name.startswith("_") or "serving" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.serving.detector, name)

    # ------------------------------------------------------------------------------------------------------ observe
    def observe(self, frame: Frame) -> Sequence[Anomaly]:
        self._at = frame.at
        if math.isnan(self.since):
            self.since = frame.at
        both = frame.at > self.serving.at
        found = self.serving.observe(frame)
        if self.candidate is not None:
            self._shadow(self.candidate, frame, found, both)
        return found

    def _shadow(self, candidate: Model, frame: Frame, found: Sequence[Anomaly], both: bool) -> None:
        """The candidate's turn; whatever it does, the serving model goes on."""
        try:
            theirs = candidate.observe(frame)
        except Exception as e:  # noqa: BLE001 - a candidate on trial must not stop the watch
            self._tell("dropped", candidate.id, f"failed in the shadow of {self.id}: {type(e).__name__}: {e}")
            self.candidate, self.trial = None, Trial()
            return
        if both and not self.trial.running and ready_enough(self.serving.ready(), candidate.ready()):
            self.trial.begin(frame.at)
        if both and self.trial.running:
            self.trial.watch(frame, found, theirs)

    @property
    def settled(self) -> Ints:
        """Columns that settled at a new level in this step, as the serving model says."""
        told: Ints | None = getattr(self.serving.detector, "settled", None)
        if self.serving.at == self._at and told is not None:
            return told
        return np.zeros(0, np.int32)  # of a step that it passed over

    def relearn(self, columns: Ints) -> None:
        """The candidate too: it lives in the same world."""
        for model in (self.serving, self.candidate):
            if model is not None and isinstance(model.detector, Relearns):
                model.detector.relearn(columns)

    def move(self, columns: Columns) -> None:
        """Only these signal columns stay, in this order, in all models; columns[k] is not less than k. One that fails at that is
        of no use any more: its columns would be those of others."""
        try:
            self.serving.move(columns)
        except Exception as e:  # noqa: BLE001 - the others must not be left with other numbers
            self._tell("fresh", self.id, f"learns anew: its signals could not be renumbered: {type(e).__name__}: {e}")
            self.serving = Model(self.name, self.serving.settings, self.serving.version)
        if self.candidate is not None:
            try:
                self.candidate.move(columns)
            except Exception as e:  # noqa: BLE001
                self._tell("dropped", self.candidate.id, f"can no longer be tried: {e}")
                self.candidate, self.trial = None, Trial()
        if self._previous is not None:
            known = self.edge() if self._due is None else len(self._due)
            mine = columns[columns < known]
            self._due = mine if self._due is None else self._due[mine]

    # ------------------------------------------------------------------------------------------------------- review
    def review(self, at: float, incidents: Iterable[Incident], commands: Sequence[Command]) -> list[ModelEvent]:
        """The end of a step: what became of incidents, what people want, and whether the candidate takes over."""
        if self.candidate is not None and self.trial.running:
            self.trial.hear(self.name, incidents, commands)
            verdict = self.trial.judge(at)
            if verdict and verdict.better:
                self._succeed("takeover", f"took over from {self.id}: {verdict.text}")
            elif verdict:
                self._tell("kept", self.candidate.id, f"stays in the shadow of {self.id}: {verdict.text}")
        for command in commands:
            if command.target == self.name and command.verb in ("promote", "rollback"):
                (self._promote if command.verb == "promote" else self._roll_back)(command.by or "somebody")
        told, self._untold = self._untold, []
        return [ModelEvent(at, self.name, kind, model, f"{model} {text}") for kind, model, text in told]

    def _promote(self, by: str) -> None:
        if self.candidate is None:
            self._tell("refused", self.id, f"stays: there is no candidate that {by} could promote")
            return
        figures = self.trial.verdict(self._at).text if self.trial.running else "nothing was compared yet"
        self._succeed("promoted", f"took over from {self.id}, promoted by {by}: {figures}")

    def _roll_back(self, by: str) -> None:
        """The model of before as it was then; the one that goes is kept in its place, and is not tried again by itself."""
        if self.previous is None:
            self._tell("refused", self.id, f"stays: there is no model from before that {by} could call back")
            return
        try:
            former = revived(self.previous, None, self._at)
        except Unusable as e:
            self._tell("refused", self.id, f"stays: {by} called back the one before: {e}")
            return
        gone, self.previous = self.id, self.serving.saved()
        self.refused = gone if gone == self._configured else ""
        self.serving, self.since, self.trial = former, self._at, Trial()
        self._tell("rollback", self.id, f"serves again, as it was when it was replaced: {gone} was taken back by {by}")

    def _succeed(self, kind: str, text: str) -> None:
        assert self.candidate is not None
        self._tell(kind, self.candidate.id, text)
        self.previous, self.refused = self.serving.saved(), ""
        self.serving, self.candidate, self.since, self.trial = self.candidate, None, self._at, Trial()

    def _tell(self, kind: Any, model: str, text: str) -> None:
        self._untold.append((kind, model, text))

    def forget(self) -> None:
        """The serving model begins anew; as it was it becomes the one of before, which a rollback calls back."""
        self.previous = self.serving.saved()
        self.serving = Model(self.name, self.serving.settings, self.serving.version)
        self.since, self.trial = self._at, Trial()

    # -------------------------------------------------------------------------------------------------------- state
    def lineage(self) -> Lineage:
        """All that is to be kept over a restart."""
        candidate = self.candidate.saved() if self.candidate else None
        return Lineage(self.serving.saved(), candidate, self.previous, self.refused, self.since, self.trial.state())

    def state(self) -> JSON:
        return {"lineage": self.lineage()}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.begin(state["lineage"], None, math.inf)

    def begin(self, kept: Lineage, columns: Columns | None, now: float) -> None:
        """Goes on where `kept` stopped, on these columns of it (None: all). To be called before the first frame.

        Where version or settings differ from what is configured, the kept model serves and the configured one is its
        candidate; where the kept one cannot be used, the configured one says so, serves and learns anew.
        """
        wanted = self.serving
        self.previous = self._moved(kept.previous, columns)
        try:
            self.serving = revived(kept.serving, columns, now)
        except Unusable as e:
            self._tell("fresh", wanted.id, f"serves and learns anew: {e}")
            return
        self.since, self.refused = kept.since, kept.refused
        if kept.serving.version != self.serving.version:
            self._tell("takeover", self.id, f"took over what {kept.serving.id} had learned: that code is gone")
        if _same(self.serving, wanted):
            self.refused = ""
        elif wanted.id == self.refused:
            self._tell("refused", wanted.id, f"is configured and was taken back: {self.id} serves. 'aiops model rollback "
                                             f"{self.name}' calls it back")
        else:
            self._begin_trial(kept, wanted, columns, now)

    def _begin_trial(self, kept: Lineage, wanted: Model, columns: Columns | None, now: float) -> None:
        self.refused, self.candidate = "", wanted
        if kept.candidate is not None and kept.candidate.id == wanted.id:
            try:
                self.candidate = revived(kept.candidate, columns, now)
                self.trial.restore(kept.trial)
            except Unusable as e:
                self._tell("fresh", wanted.id, f"learns anew: {e}")
            return
        self._tell("shadow", wanted.id, f"is tried in the shadow of {self.id}")

    def _moved(self, saved: Saved | None, columns: Columns | None) -> Saved | None:
        """The model of before on the columns of now; None where its code is gone."""
        if saved is None:
            return None
        try:
            return moved(saved, code_of(saved.detector, saved.version)[0], columns)
        except Unusable as e:
            self._tell("dropped", saved.id, f"can no longer be called back: {e}")
        except Exception as e:  # noqa: BLE001 - nobody has read it since it was saved: it may hold anything
            self._tell("dropped", saved.id, f"can no longer be called back: {type(e).__name__}: {e}")
        return None

    # --------------------------------------------------------------------------------------------- for people to see
    def summary(self) -> JSON:
        """As `aiops model list` shows it."""
        return {"detector": self.name, "serving": self.id, "settings": dict(self.serving.settings),
                "since": None if math.isnan(self.since) else self.since, "candidate": self._candidate_summary(),
                "previous": {"id": self._previous.id, "at": self._previous.at} if self._previous else None,
                "refused": self.refused or None}

    def _candidate_summary(self) -> JSON | None:
        if self.candidate is None:
            return None
        trial = self.trial
        verdict = trial.verdict(self._at) if trial.running else None
        return {"id": self.candidate.id, "settings": dict(self.candidate.settings),
                "began": trial.began if trial.running else None, "due": trial.due if trial.running else None,
                "not_worse": verdict.better if verdict else None,
                "text": verdict.text if verdict else "not ready yet"}


class BandedGenerations(Generations):
    """Of a detector that says in which band it expects each signal."""

    @property
    def band(self) -> tuple[Floats, Floats]:
        band: tuple[Floats, Floats] = self.serving.detector.band  # type: ignore[attr-defined]
        return band

    def ready_count(self) -> int:
        return self.serving.ready() or 0


def generations(name: str, settings: Settings | None = None) -> Generations:
    """The models of an installed detector, configured like this. Raises Unusable."""
    model = Model(name, settings)
    return (BandedGenerations if hasattr(model.detector, "band") else Generations)(model)


class Models:
    """All detectors of a pipeline. Those that are no Generations have no model to tell of."""

    def __init__(self, detectors: Sequence[Detector]) -> None:
        self.all = [d for d in detectors if isinstance(d, Generations)]

    @property
    def ids(self) -> Mapping[str, str]:
        """Detector -> id of the model that serves."""
        return {g.name: g.id for g in self.all}

    @property
    def fresh(self) -> bool:
        return any(g.fresh for g in self.all)

    @property
    def movable(self) -> bool:
        """Whether columns can be taken out of what was learned, by all of them."""
        return all(g.movable for g in self.all)

    def abreast(self, at: float) -> bool:
        """Whether all have seen all columns of the step of `at`."""
        return all(g.abreast(at) for g in self.all)

    def edges(self) -> set[int]:
        """Column counts up to which models of before know the columns."""
        return {g.edge() for g in self.all}

    def move(self, columns: Columns) -> None:
        for g in self.all:
            g.move(columns)

    def forget(self, names: Sequence[str]) -> int:
        """The serving models of these detectors (globs; all where there are none) begin anew; how many."""
        mine = [g for g in self.all if named(names, g.name) and not g.serving.fresh]
        for g in mine:
            g.forget()
        return len(mine)

    def review(self, at: float, incidents: Sequence[Incident], commands: Sequence[Command]) -> tuple[ModelEvent, ...]:
        return tuple(e for g in self.all for e in g.review(at, incidents, commands))

    def lineages(self) -> dict[str, Lineage]:
        return {g.name: g.lineage() for g in self.all}

    def begin(self, kept: Mapping[str, Lineage], columns: Columns | None, now: float) -> None:
        """Each goes on from what was kept of it."""
        for g in self.all:
            if g.name in kept:
                g.begin(kept[g.name], columns, now)

    def summaries(self) -> list[JSON]:
        return [g.summary() for g in self.all]


def _same(a: Model, b: Model) -> bool:
    return (a.version, dict(a.settings)) == (b.version, dict(b.settings))
