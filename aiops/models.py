"""What a model is: the code of a detector at one version, with its settings, and what it has learned so far.

The id of a model, `baseline-v2-3f9c`, is the detector's name, the `VERSION` of its code and four hex digits that change with
its settings. What a model has learned is only ever read by the code that wrote it, or by that code's `migrate`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from aiops import plugins
from aiops.interfaces import Detector
from aiops.types import Anomaly, Bools, Floats, Frame

Columns = NDArray[np.int64]
Settings = Mapping[str, Any]
DAY_S = 86_400.0
KEEP_S, EPHEMERAL_KEEP_S = 7 * DAY_S, 6 * 3600.0
"""A signal that was silent for so long before a restart is forgotten with it; one of a pod, container or process sooner."""
EPHEMERAL = ("process/", "container/", "pod/")


class Unusable(Exception):  # noqa: N818 - a verdict, not an error class
    """What was saved cannot be used. The text names the detector, the versions and the reason."""


@dataclass(frozen=True, slots=True)
class Saved:
    """What a model had learned from all frames up to `at`: arrays and plain values, as its detector's `state` gives them."""

    detector: str
    version: int
    settings: Settings
    at: float
    state: Mapping[str, Any]

    @property
    def id(self) -> str:
        return model_id(self.detector, self.version, self.settings)


@dataclass(frozen=True, slots=True)
class Lineage:
    """The models of one detector. `trial`: figures of the candidate. `refused`: a model that a person took back."""

    serving: Saved
    candidate: Saved | None = None
    previous: Saved | None = None
    refused: str = ""
    since: float = math.nan
    trial: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Learned:
    """Everything that a pipeline has learned up to `at`.

    door: its columns, by entity and name, and the last sample of each raw series. Column k of every model is column k of
    the door. `more`: what other stages keep, by name. `ended`: the run ended in good order just then.
    """

    at: float
    door: Mapping[str, Any]
    lineages: Mapping[str, Lineage]
    more: Mapping[str, Any] = field(default_factory=dict)
    ended: bool = False


class Model:
    """One running model: frames that it has learned from are passed over when they come again.

    settings: what is given of the detector's `Settings`, the rest by default. version: of the code, by default the
    present one. Raises Unusable where that code is not there or does not take these settings.
    """

    def __init__(self, detector: str, settings: Settings | None = None, version: int | None = None) -> None:
        code, self.version = code_of(detector, version)
        self.name = detector
        chosen = validated(code, detector, settings or {})
        self.detector: Detector = code() if chosen is None else code(chosen)
        self.settings: Settings = {} if chosen is None else chosen.model_dump(mode="json", by_alias=True)
        self.at = -math.inf

    @property
    def id(self) -> str:
        return model_id(self.name, self.version, self.settings)

    @property
    def fresh(self) -> bool:
        """Nothing was learned yet."""
        return self.at == -math.inf

    def observe(self, frame: Frame) -> Sequence[Anomaly]:
        if not frame.at > self.at:
            return ()
        self.at = frame.at
        return self.detector.observe(frame)

    def ready(self) -> int | None:
        """How many signals (or entities) it can judge; None where its detector does not say."""
        count = getattr(self.detector, "ready_count", None)
        return None if count is None else int(count())

    def move(self, columns: Columns) -> None:
        """Only these signal columns stay, in this order. Raises Unusable where the detector cannot do that."""
        mover = getattr(self.detector, "move", None)
        if mover is None:
            self.detector = revived(self.saved(), columns, math.inf).detector
        else:
            mover(columns)

    def saved(self) -> Saved:
        return Saved(self.name, self.version, self.settings, self.at, self.detector.state())


def model_id(detector: str, version: int, settings: Settings) -> str:
    """`baseline-v2-3f9c`."""
    told = json.dumps(settings, sort_keys=True)
    return f"{detector}-v{version}-{hashlib.sha256(told.encode()).hexdigest()[:4]}"


def code_of(detector: str, version: int | None = None) -> tuple[Any, int]:
    """The detector's class and its version: the present one, or one kept as `detectors/_NAME_vN.py`. Raises Unusable."""
    present = plugins.load("detectors", detector)
    known = int(getattr(present, "VERSION", 1))
    if version is None or version == known:
        return present, known
    kept = plugins.load_kept("detectors", detector, version)
    if kept is None:
        raise Unusable(f"{detector}: what was learned is of version {version}, and this aiops has version {known} only")
    return kept, version


def validated(code: Any, detector: str, given: Settings) -> Any:
    """The detector's settings as its model, None where it takes none. Raises Unusable."""
    model = plugins.settings(code)
    if model is None and given:
        raise Unusable(f"{detector}: takes no settings")
    try:
        return None if model is None else model.model_validate(given)
    except ValidationError as e:
        what = "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in e.errors())
        raise Unusable(f"{detector}: its settings are not understood: {what}") from None


def revived(saved: Saved, columns: Columns | None, now: float) -> Model:
    """A model that goes on where `saved` stopped, on these columns of it (None: all). Raises Unusable; nothing is ever half read.

    Of another version: by its own code where that is still there, else through `migrate(state, version)` of the present
    one. A time after `now` is that of a clock that was wrong: the model then goes on from now.
    """
    saved = _readable(saved)
    model = Model(saved.detector, saved.settings, saved.version)
    try:
        model.detector.restore(moved(saved, model.detector, columns).state)
    except Unusable:
        raise
    except Exception as e:  # noqa: BLE001 - whatever a damaged state does to the code that reads it
        raise Unusable(f"{saved.detector}: what was learned cannot be read: {type(e).__name__}: {e}") from None
    model.at = saved.at if saved.at <= now else math.nextafter(now, -math.inf)
    return model


def _readable(saved: Saved) -> Saved:
    """As it is where its code is there, else migrated to the present version. Raises Unusable."""
    try:
        code_of(saved.detector, saved.version)
    except Unusable:
        present, version = code_of(saved.detector)
        migrate = getattr(present, "migrate", None)
        state = migrate(saved.state, saved.version) if migrate else None
        if state is None:
            raise
        return replace(saved, version=version, state=state)
    return saved


# ------------------------------------------------------------------------------------------------------- columns
def by_signal(code: Any) -> tuple[str, ...] | None:
    """Which arrays of the state have one column a signal, `tail.u` for `u` in the map `tail`; None where it is not said."""
    names: tuple[str, ...] | None = getattr(code, "BY_SIGNAL", None)
    return names


def moved(saved: Saved, code: Any, columns: Columns | None) -> Saved:
    """On these columns of it (None: all). Raises Unusable where the code does not say what it keeps by signal."""
    names = by_signal(code)
    if columns is not None and names is None:
        raise Unusable(f"{saved.detector}: version {saved.version} does not say what it keeps by signal, and signals are gone")
    return replace(saved, state=picked(saved.state, names or (), columns))


def picked(state: Mapping[str, Any], names: Sequence[str], columns: Columns | None) -> dict[str, Any]:
    """The state with only these signal columns left, in this order, in the arrays `names`. The rest stays as it is."""
    out = dict(state)
    if columns is None:
        return out
    for name in names:
        head, _, rest = name.partition(".")
        out[head] = picked(out[head], [rest], columns) if rest else _columns(out[head], columns)
    return out


def known_columns(saved: Saved, code: Any) -> int:
    """How many signal columns there were when this was saved; 0 where nothing is kept by signal."""
    return max((_reach(saved.state, name) for name in by_signal(code) or ()), default=0)


def _reach(state: Mapping[str, Any], name: str) -> int:
    """The length of the last axis of the array `name`; 0 for what is no array."""
    found: Any = state
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return int(np.shape(found)[-1]) if np.ndim(found) else 0


def _columns(array: NDArray[Any], columns: Columns) -> NDArray[Any]:
    """What was saved earlier may have fewer columns: they are only ever added."""
    return array[..., columns[columns < array.shape[-1]]]


def still_there(ephemeral: Bools, heard: Floats, at: float) -> Columns:
    """The columns whose signals were heard lately: int64, rising. ephemeral bool[S]: is it a signal of what comes and goes?
    heard float64[S]: event time of the last value of each."""
    return np.flatnonzero(at - heard <= np.where(ephemeral, EPHEMERAL_KEEP_S, KEEP_S))


def ephemeral(entity: str) -> bool:
    """Whether it comes and goes, as pods, containers and processes do."""
    return entity.startswith(EPHEMERAL)
