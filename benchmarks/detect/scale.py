"""What very many series cost: `baseline` alone on synthetic series, after it knows their hours of the week."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np

from aiops import plugins
from aiops.types import Frame, Signal

HOUR_S, FRAMES = 3600.0, 48
"""Frames are an hour apart: after two days every series is judged and has a season."""
TIMED = 12


def frames(series: int, count: int = FRAMES, seed: int = 0) -> Iterator[Frame]:
    """Noisy daily waves, all series in every frame."""
    rng = np.random.default_rng(seed)
    level, swing = rng.uniform(10, 100, series), rng.uniform(0, 0.3, series)
    signals = tuple(Signal(i, f"service//s{i // 10}", f"m{i % 10}") for i in range(series))
    for k in range(count):
        wave = 1 + swing * np.sin(2 * np.pi * k / 24.0)
        yield Frame(1.7e9 + HOUR_S * k, level * wave * rng.normal(1, 0.02, series), np.ones(series, np.bool_), signals)


def samples_per_s(series: int = 100_000) -> float:
    """Samples judged and learned in a second of processor time."""
    detector, spent = _baseline(), 0.0
    for k, frame in enumerate(frames(series)):
        began = time.process_time()
        detector.observe(frame)
        spent += time.process_time() - began if k >= FRAMES - TIMED else 0.0
    return series * TIMED / spent


def bytes_per_series(series: int = 10_000) -> float:
    """Memory that the detector still holds after the last frame."""
    detector, source = _baseline(), frames(series)
    first = next(source)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    detector.observe(first)
    for frame in source:
        detector.observe(frame)
    del frame
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return held / series


def _baseline() -> Any:
    return plugins.load("detectors", "baseline")()
