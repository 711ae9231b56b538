"""A lasting new normal, announced once.

One ADWIN (river) an entity watches how far its signals are, on average, from where they were; when the window splits,
the entity has settled elsewhere: a note for people, never an alert.

Source: Bifet, Gavaldà, "Learning from Time-Changing Data with Adaptive Windowing", SDM 2007. Slow to see small shifts;
blind to changes that cancel out over the signals of an entity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aiops.signals import HUGE, grown
from aiops.types import Anomaly, Floats, Frame

MAX_ENTITIES = 200
SETTLE = 60
MIN_SHIFT = 3.0
REST_S = 3600.0


class Drift:
    """Running mean and scale over each signal's whole past; one ADWIN for each of the first 200 entities."""

    VERSION = 1
    BY_SIGNAL = ("place", "n", "mean", "scale")

    def __init__(self) -> None:
        self._of: dict[str, int] = {}
        self._place = np.zeros(0, np.int64)
        self._adwin: list[Any] = []
        self._told: list[float] = []
        self.n = np.zeros(0)
        self.mean = np.zeros(0)
        self.scale = np.zeros(0)

    @staticmethod
    def warm() -> None:
        """Import river now, which takes seconds, and not in the step that first needs it."""
        import river.drift  # noqa: F401

    def observe(self, frame: Frame) -> Sequence[Anomaly]:
        self._register(frame)
        mean = self._mean_distance(frame)
        found = [Anomaly(frame.at, entity, "new_normal", 0.0, 1.0, "drift", text="settled at a new level")
                 for entity, place in self._of.items()
                 if np.isfinite(mean[place]) and self._moved(place, float(mean[place]), frame.at)]
        self._learn(frame)
        return found

    def _mean_distance(self, frame: Frame) -> Floats:
        """float64[entities]: how far an entity's signals are from where they were, NaN where nothing can be said."""
        z = self._distance(frame)
        use = np.isfinite(z) & (self._place >= 0)
        place, size = self._place[use], len(self._adwin)
        with np.errstate(invalid="ignore"):
            return np.bincount(place, z[use], minlength=size) / np.bincount(place, minlength=size)

    def _register(self, frame: Frame) -> None:
        if len(self._place) == len(frame.signals):
            return
        new = frame.signals[len(self._place):]
        for signal in new:
            if signal.entity not in self._of and len(self._of) < MAX_ENTITIES:
                self._of[signal.entity] = len(self._adwin)
                self._adwin.append(None)
                self._told.append(-np.inf)
        places = np.array([self._of.get(signal.entity, -1) for signal in new], np.int64)
        self._place = np.concatenate([self._place, places])
        for name in ("n", "mean", "scale"):
            setattr(self, name, grown(getattr(self, name), len(frame.signals), 0.0))

    def _distance(self, frame: Frame) -> Floats:
        size = len(frame.signals)
        settled = self.n[:size] >= SETTLE
        scale = np.maximum(self.scale[:size], 1e-3 * np.abs(self.mean[:size]) + 1e-9)
        with np.errstate(over="ignore"):  # infinitely far is 10 far
            z = np.clip((np.clip(frame.values, -HUGE, HUGE) - self.mean[:size]) / scale, -10.0, 10.0)
        return np.where(settled & frame.learn, z, np.nan)

    def _moved(self, place: int, value: float, at: float) -> bool:
        if self._adwin[place] is None:
            self._adwin[place] = _window()
        adwin = self._adwin[place]
        before = adwin.estimation
        adwin.update(value)
        if not adwin.drift_detected or at - self._told[place] < REST_S or abs(adwin.estimation - before) < MIN_SHIFT:
            return False
        self._told[place] = at
        return True

    def _learn(self, frame: Frame) -> None:
        i = np.flatnonzero(np.isfinite(frame.values) & frame.learn)
        n = self.n[i] + 1
        share = np.maximum(1.0 / n, 1e-3)
        step = np.clip(frame.values[i], -HUGE, HUGE) - self.mean[i]
        self.mean[i] += share * step
        self.scale[i] += share * (np.abs(step) - self.scale[i])
        self.n[i] = n

    def state(self) -> dict[str, Any]:
        """The windows start afresh after a restore: only levels and what was told are kept."""
        return {"of": dict(self._of), "place": self._place.copy(), "told": list(self._told),
                **{k: getattr(self, k).copy() for k in ("n", "mean", "scale")}}

    def restore(self, state: Mapping[str, Any]) -> None:
        place = np.array(state["place"], np.int64)
        left = np.unique(place[place >= 0]).tolist()  # entities whose last signal was forgotten make room for others
        names = {old: name for name, old in state["of"].items()}
        self._of = {names[old]: new for new, old in enumerate(left)}
        self._told = [state["told"][old] for old in left]
        self._place = np.where(place >= 0, np.searchsorted(left, place), -1)
        self._adwin = [None for _ in self._of]
        for k in ("n", "mean", "scale"):
            setattr(self, k, np.array(state[k], np.float64))


def _window() -> Any:
    from river.drift import ADWIN

    return ADWIN(delta=1e-5)
