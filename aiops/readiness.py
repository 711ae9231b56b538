"""Which signals are judged by now, and why the others are not: worked out when somebody asks, never in a step.

`ready`: judged and learned. `masked`: not learned, and judged if it was before. `constant`: judged, and never seen to vary,
so that any change stands out. `no_season`: judged, without knowing yet what is usual at this time of the day. `warming_up`:
too few samples to be judged. `silent`: nothing to judge, because nothing is reported.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from aiops.humanise import duration, utc
from aiops.masks import Hold
from aiops.rows import columnar
from aiops.types import Entity, Floats, Signal

State = Literal["ready", "masked", "constant", "no_season", "warming_up", "silent"]
STATES: tuple[State, ...] = ("masked", "warming_up", "constant", "no_season", "silent", "ready")
NEEDED = 30
DAY_KNOWN_S = 20 * 3600.0
SILENT_S, SILENT_INTERVALS = 300.0, 3.0


@dataclass(frozen=True, slots=True)
class Readiness:
    """One signal: its state, why, how many samples were learned, and since when it is masked or silent."""

    entity: Entity
    signal: str
    state: State
    reason: str
    samples: int
    since: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What the baseline knows of each signal, float64[S]: samples learned, seconds of history (NaN: not told), and whether
    it was ever seen to vary, bool[S]."""

    samples: Floats
    span_s: Floats
    varies: Any


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """One moment: signals, when each was last heard and how often it usually is (float64[S], NaN: never), what is held."""

    at: float
    signals: Sequence[Signal]
    heard: Floats
    interval: Floats
    known: Known
    held: Mapping[Entity, Hold]


def of_baseline(detector: Any, at: float, size: int) -> Known:
    """What a baseline tells of itself: the one place that knows where it keeps that. Nothing at all for None."""
    none = np.full(size, np.nan)
    if detector is None:
        return Known(np.zeros(size), none, np.ones(size, np.bool_))
    samples = detector.samples_seen() if hasattr(detector, "samples_seen") else detector.n
    first, scale = getattr(detector, "seen_from", none), getattr(detector, "scale", np.ones(size))
    return Known(_fit(samples, size, 0.0), at - _fit(first, size, np.nan), _fit(scale, size, 1.0) > 0)


def states(f: Facts) -> list[State]:
    """The state of each signal; where several hold, the one that people should know first."""
    size = len(f.signals)
    usual = np.fmax(SILENT_S, SILENT_INTERVALS * f.interval)
    silent = ~(f.at - f.heard <= usual)
    masked = columnar(f.signals).of_entities(f.held)
    young = f.known.samples < NEEDED
    order = (silent, masked, young, ~f.known.varies, f.known.span_s < DAY_KNOWN_S)
    names: tuple[State, ...] = ("silent", "masked", "warming_up", "constant", "no_season", "ready")
    first = np.argmax(np.vstack([*order, np.ones(size, np.bool_)]), axis=0) if size else np.zeros(0, np.int64)
    return [names[k] for k in first.tolist()]


def counted(f: Facts) -> dict[str, int]:
    """How many signals are in each state, all states named."""
    found = Counter(states(f))
    return {state: found[state] for state in STATES}


def page(f: Facts, entity: str = "", state: str = "", limit: int = 100, offset: int = 0) -> tuple[int, list[Readiness]]:
    """How many signals fit, and some of them: those first that are not ready. `entity`: a part of its name, in any case."""
    signals, part = columnar(f.signals), entity.lower()
    told = np.array([STATES.index(x) for x in states(f)], np.int64)
    found = np.flatnonzero(signals.by_entity(lambda name: part in name.lower(), np.bool_)
                           & ((told == STATES.index(state)) if state in STATES else np.full(len(told), state == "")))
    by_name = {name: k for k, name in enumerate(sorted(signals.entities.all))}
    by_key = {key: k for k, key in enumerate(sorted({kind.key for kind in signals.kinds.all}))}
    ranks = signals.by_kind(lambda kind: by_key[kind.key], np.int64), signals.by_entity(by_name.__getitem__, np.int64), told
    shown = found[np.lexsort([rank[found] for rank in ranks])][offset:offset + limit].tolist()
    return len(found), [_explained(f, signals[k], STATES[told[k]]) for k in shown]


def _explained(f: Facts, s: Signal, state: State) -> Readiness:
    n, hold, heard, span = int(f.known.samples[s.id]), f.held.get(s.entity), float(f.heard[s.id]), float(f.known.span_s[s.id])
    few = f"; {n} of {NEEDED} samples" if n < NEEDED else ""
    reasons = {
        "silent": f"nothing reported since {utc(heard)}" if math.isfinite(heard) else "nothing usable reported yet",
        "masked": f"not learned since {utc(hold.since)}: {hold.reason}{few}" if hold else "",
        "warming_up": f"warming up: {n} of {NEEDED} samples",
        "constant": "judged; never seen to vary, so any change stands out",
        "no_season": f"judged; the time of the day is not known yet: seen {duration(span)} of {duration(DAY_KNOWN_S)}"}
    since = {"silent": heard if math.isfinite(heard) else None, "masked": hold.since if hold else None}.get(state)
    return Readiness(s.entity, s.key, state, reasons.get(state, "judged"), n, since)


def _fit(column: Any, size: int, fill: float) -> Floats:
    """The first `size` values: arrays have room to spare, and a signal may have come since they were made."""
    out = np.full(size, fill)
    out[:min(size, len(column))] = column[:size]
    return out
