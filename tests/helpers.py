"""Builders that the tests of the core share: signals, frames, batches, alerts, graphs and small recordings."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aiops import build, meaning
from aiops.alerting import Alerting
from aiops.meaning import Meanings, Pack, format_labels, parse_labels
from aiops.pipeline import Pipeline
from aiops.types import Alert, Anomaly, Batch, Edge, Entity, Floats, Frame, Links, Node, Series, Signal
from correlators.correlate import Correlate
from correlators.graph import Graph

T0 = 1_000_000_000.0
STEP_S = 10.0


# ------------------------------------------------------------------------------------------------- signals and frames
def signals(*keys: str, **same: Any) -> tuple[Signal, ...]:
    """`"service//api errors"` -> a signal of that entity and name; `same` are fields that all of them get."""
    return tuple(Signal(i, *key.split(" ", 1), **same) for i, key in enumerate(keys))  # type: ignore[misc]


def frame(at: float, values: Any, of: tuple[Signal, ...], learn: Any = True, **more: Any) -> Frame:
    x = np.asarray(values, np.float64)
    may = np.broadcast_to(np.asarray(learn, np.bool_), x.shape).copy()
    held = frozenset(s.entity for s, ok in zip(of, may, strict=True) if not ok)
    return Frame(at, x, may, of, **{"held": held, **more})


def frames(values: Any, of: tuple[Signal, ...], step_s: float = STEP_S, start: float = T0, learn: Any = True) -> Iterator[Frame]:
    """One frame for each row of values[ticks, S]."""
    for k, row in enumerate(np.asarray(values, np.float64)):
        yield frame(start + k * step_s, row, of, learn)


def noise(ticks: int, columns: int = 1, level: float = 10.0, scale: float = 1.0, seed: int = 0) -> Floats:
    return level + scale * np.random.default_rng(seed).standard_normal((ticks, columns))


def anomaly(at: float, key: str, p: float, signal: int = 0, detector: str = "baseline", **more: Any) -> Anomaly:
    entity, name = key.split(" ", 1)
    return Anomaly(at, entity, name, 1.0 - p, p, detector, signal, **more)


def alert(key: str, since: float = T0, strength: float = 50.0, state: Any = "firing", at: float | None = None,
          **more: Any) -> Alert:
    """A lasting deviation of `"service//api errors"`."""
    entity, signal = key.split(" ", 1)
    return Alert(f"{entity}|{signal}", entity, signal, state, since, since if at is None else at, 0.999, 1e-6, strength, **more)


def graph(*edges: str, nodes: Iterable[Node] = ()) -> Graph:
    return Graph(links(*edges, nodes=nodes))


def links(*edges: str, nodes: Iterable[Node] = ()) -> Links:
    """`"service//a calls service//b"`: a depends on b."""
    return Links(tuple(nodes), tuple(Edge(a, b, kind) for a, kind, b in (e.split(" ") for e in edges)))  # type: ignore[arg-type]


def meanings(metrics: Mapping[str, str], defined: Mapping[str, Mapping[str, Any]]) -> Meanings:
    """A pack of its own: metric -> kind, signal -> rule."""
    return Meanings((Pack.model_validate({
        "pack": "test", "metrics": {name: {"kind": kind} for name, kind in metrics.items()}, "signals": dict(defined)}),))


# --------------------------------------------------------------------------------------------------------- batches
def split_key(key: str) -> tuple[Entity, str, str]:
    """`service//a hits{code="200"}` -> entity, metric, canonical labels."""
    entity, _, rest = key.partition(" ")
    metric, _, labels = rest.partition("{")
    return entity, metric, format_labels(parse_labels(labels.removesuffix("}")))


class Feed:
    """Makes batches and interns the series in them."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}

    def batch(self, at: float, samples: Mapping[str, float] | Sequence[tuple[str, float, float]] = (), **more: Any) -> Batch:
        """`samples`: key -> value now, or rows of (key, time, value)."""
        rows = [(k, at, v) for k, v in samples.items()] if isinstance(samples, Mapping) else list(samples)
        new = tuple(self._intern(key) for key in dict.fromkeys(k for k, _, _ in rows) if key not in self._ids)
        return Batch(at, np.array([self._ids[k] for k, _, _ in rows], np.int32), np.array([t for _, t, _ in rows], np.float64),
                     np.array([v for _, _, v in rows], np.float64), new, **more)

    def _intern(self, key: str) -> Series:
        self._ids[key] = len(self._ids)
        return Series(self._ids[key], *split_key(key))


def pipeline(policies: Sequence[Any] = (), mode: Any = "act", known: Meanings | None = None,
             detectors: Sequence[str] = ("baseline", "absence", "logs")) -> Pipeline:
    """A pipeline without the slow detectors."""
    return build.pipeline(known or meaning.shipped(), policies, mode, detectors)


def quiet_decider() -> Any:
    """A decider that never decides anything."""
    return build.PolicyBook((), "observe", meaning.shipped())


def bare_pipeline(detectors: Sequence[Any]) -> Pipeline:
    return Pipeline(meaning.shipped(), detectors, Alerting(), Correlate(), quiet_decider())


# ------------------------------------------------------------------------------------------------------- recordings
ERRORS, LATENCY = "app_errors", "app_latency"


def tiny_rows(ticks: int = 60, fault: tuple[int, int] = (42, 52)) -> list[tuple[float, str, str, float]]:
    """Two services; in the fault the first fails and the second, which calls it, is slow. Noise is fixed."""
    wave = np.random.default_rng(7).uniform(0.9, 1.1, (ticks, 2))
    rows = []
    for k in range(ticks):
        bad = fault[0] <= k < fault[1]
        rows.append((T0 + k * STEP_S, "service//db", ERRORS, float(wave[k, 0] + 30 * bad)))
        rows.append((T0 + k * STEP_S, "service//shop", LATENCY, float(wave[k, 1] + 5 * bad)))
    return rows


def write_csv(folder: Path, rows: Iterable[Sequence[object]], header: str = "time,entity,metric,value") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [header, *(",".join(str(x) for x in row) for row in rows)]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def tiny_recording(folder: Path) -> Path:
    """A recording of ten minutes with one fault in it: metrics, logs, an event, alerts of others, topology, ground truth."""
    write_csv(folder, tiny_rows())
    lines = [{"time": T0 + k * STEP_S, "entity": "service//db", "text": f"GET /{k} 200"} for k in range(60)]
    lines += [{"time": T0 + 430.0, "entity": "service//db", "text": "ERROR disk gone"}] * 5
    write_jsonl(folder / "logs.jsonl", lines)
    write_jsonl(folder / "events.jsonl", [
        {"time": T0 + 410.0, "entity": "service//db", "kind": "change", "reason": "Deployed", "text": "db 2.0"}])
    write_jsonl(folder / "alerts.jsonl", [
        {"time": T0 + 450.0, "entity": "service//shop", "name": "Slow"},
        {"time": T0 + 540.0, "entity": "service//shop", "name": "Slow", "status": "resolved"}])
    (folder / "topology.yaml").write_text(
        "nodes: [{id: service//db, criticality: 2}]\nedges: [{from: service//shop, to: service//db}]\n", encoding="utf-8")
    (folder / "expect.yaml").write_text(
        f"score_from: {T0 + 300}\nfaults: [{{id: f, start: {T0 + 420}, end: {T0 + 520}, cause: service//db}}]\n",
        encoding="utf-8")
    return folder


def write_jsonl(path: Path, items: Iterable[Mapping[str, object]]) -> None:
    path.write_text("".join(json.dumps(i) + "\n" for i in items), encoding="utf-8")
