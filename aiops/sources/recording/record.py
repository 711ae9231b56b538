"""`aiops record`: raw samples of a real Prometheus -> the folder that `aiops replay` reads."""

from __future__ import annotations

import gzip
import json
import math
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from aiops.meaning import Meanings, format_labels
from aiops.sources.access import Access, SourceError
from aiops.sources.prometheus.api import PromApi
from aiops.sources.prometheus.decode import Labels
from aiops.types import Event, Floats, Kind, Links, LogLine

WRITTEN = ("metrics.parquet", "logs.jsonl.gz", "events.jsonl.gz", "topology.yaml", "fixture.yaml")
DIGITS = 9  # significant digits of a value; more only costs space


class NoSamplesError(ValueError):
    """Prometheus answered, and nothing that was asked for is there."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a recording holds. `notes` are things a person should know: selectors without data, partial results."""

    out: Path
    samples: int
    series: int
    metrics: int
    lines: int
    events: int
    start: float
    end: float
    size_bytes: int
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _Track:
    """One series while it is being collected."""

    metric: str
    labels: Labels
    times: list[Floats] = field(default_factory=list)
    values: list[Floats] = field(default_factory=list)


def record(url: str, matches: Sequence[str], start: float, end: float, step_s: float, out: Path, *,
           meanings: Meanings, name: str = "", description: str = "", origin: str = "",
           access: Access | None = None, timeout_s: float = 30.0, logs: Iterable[LogLine] = (), events: Iterable[Event] = (),
           topology: Links | None = None, force: bool = False) -> Recorded:
    """Writes the stored samples of `matches` with start < time <= end, and what else is handed in, to the folder `out`.

    The times are those of the scrapes and gaps stay gaps; `step_s` only states the nominal interval. Raises SourceError
    (unreachable, bad selector), ValueError (times; NoSamplesError) and FileExistsError
    (`out` holds a recording, and no `force`).
    """
    _check(start, end, step_s, out, force)
    api = PromApi(url, access, timeout_s=timeout_s)
    try:
        tracks, notes = _collect(api, matches, start, end, meanings)
        told = _kinds(api, tracks, meanings, notes)
        notes += [f"partial results: {text}" for text in api.warnings] + list(api.infos)
    finally:
        api.close()
    lines, happened = sorted(logs, key=lambda x: x.time), sorted(events, key=lambda x: x.time)
    fixture = {"name": name or out.name, "description": description, "origin": origin or "recorded from a Prometheus",
               "step": step_s, **({"metrics": {m: {"kind": k} for m, k in told.items()}} if told else {})}
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    samples = _write_metrics(partial / "metrics.parquet", tracks, meanings)
    _write_lines(partial / "logs.jsonl.gz", [asdict(x) for x in lines])
    _write_lines(partial / "events.jsonl.gz", [asdict(x) for x in happened])
    if topology:
        write_yaml(partial / "topology.yaml", _topology(topology))
    write_yaml(partial / "fixture.yaml", fixture)
    size = _move(partial, out)
    return Recorded(out, samples, len(tracks), len({t.metric for t in tracks}), len(lines), len(happened), start, end,
                    size, tuple(notes))


def write_yaml(path: Path, data: Any) -> None:
    """Block style, in the order of the keys."""
    from ruamel.yaml import YAML
    yaml = YAML()
    yaml.width = 120
    with path.open("w", encoding="utf-8") as f:
        yaml.dump(data, f)


def _check(start: float, end: float, step_s: float, out: Path, force: bool) -> None:
    if not (math.isfinite(start) and math.isfinite(end) and start < end):
        raise ValueError(f"start {start:.0f} is not before end {end:.0f}. Give Unix seconds or dates, start first.")
    if not step_s > 0:
        raise ValueError(f"step {step_s:g} is not a length of time. Give the scrape interval in seconds, say 15.")
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out}: is a file. A recording is a folder; give another name.")
    if not force and any((out / f).exists() for f in (*WRITTEN, "metrics.csv")):
        raise FileExistsError(f"{out}: already holds a recording. Give another folder, or --force to replace it.")


def _collect(api: PromApi, matches: Sequence[str], start: float, end: float,
             meanings: Meanings) -> tuple[list[_Track], list[str]]:
    """All wanted series, each once however many selectors match it, in the order of their labels."""
    tracks: dict[str, _Track] = {}
    notes = []
    for match in matches:
        mine: dict[str, _Track] = {}
        found = False
        for labels, times, values in api.raw(match, start, end):
            found = True
            metric, key = labels.get("__name__", ""), format_labels(labels)
            if not metric or meanings.ignored(metric) or key in tracks:
                continue
            track = mine.setdefault(key, _Track(metric, {k: v for k, v in labels.items() if k != "__name__"}))
            track.times.append(times)
            track.values.append(values)
        tracks |= mine
        if not found:
            notes.append(f"no samples for {match}")
    if not tracks:
        wanted = ", ".join(matches) or "no selector"
        raise NoSamplesError(f"{api.url}: no samples for {wanted} between {start:.0f} and {end:.0f}. "
                             "Check the selector, the times (UTC), and how long this Prometheus keeps its samples.")
    return [tracks[k] for k in sorted(tracks)], notes


def _kinds(api: PromApi, tracks: list[_Track], meanings: Meanings, notes: list[str]) -> dict[str, Kind]:
    """What the targets say about metrics that no pack knows. A server without metadata is noted, the samples are kept."""
    unknown = sorted({t.metric for t in tracks if not meanings.knows(t.metric)})
    try:
        metadata = api.metadata() if unknown else {}
    except SourceError as e:
        notes.append(f"gauge or counter is guessed from the names of {len(unknown)} metrics: {e}")
        return {}
    return {m: metadata[m] for m in unknown if metadata.get(m, "unknown") != "unknown"}


def _names(tracks: list[_Track], meanings: Meanings) -> list[tuple[str, str, str]]:
    """(entity, metric, labels) of each track.

    Where dropped labels alone tell two series apart (`instance` of two replicas), the labels stay: merged, two counters
    would look like one that resets at every scrape.
    """
    names: list[tuple[str, str, str]] = []
    clashes: dict[tuple[str, str, str], list[int]] = {}
    for i, t in enumerate(tracks):
        entity, rest = meanings.entity(t.metric, t.labels)
        names.append((entity, t.metric, format_labels(rest)))
        clashes.setdefault(names[-1], []).append(i)
    for (entity, metric, _), members in clashes.items():
        if len(members) > 1:
            for i in members:
                names[i] = (entity, metric, format_labels(tracks[i].labels))
    return names


def _write_metrics(path: Path, tracks: list[_Track], meanings: Meanings) -> int:
    """Columns time, entity, metric, labels, value, by time; strings as categories. Returns the number of rows."""
    import pandas as pd
    from fastparquet import write
    names = _names(tracks, meanings)
    counts = np.array([sum(map(len, t.times)) for t in tracks])
    times = np.concatenate([x for t in tracks for x in t.times])
    owner = np.repeat(np.arange(len(tracks)), counts)
    order = np.lexsort((owner, times))
    columns: dict[str, Any] = {"time": times[order]}
    for place, column in enumerate(("entity", "metric", "labels")):
        kinds = sorted({n[place] for n in names})
        code = {k: i for i, k in enumerate(kinds)}
        codes = np.array([code[n[place]] for n in names], np.int32)[owner[order]]
        columns[column] = pd.Categorical.from_codes(codes, pd.Index(kinds, dtype=object))
    columns["value"] = rounded(np.concatenate([x for t in tracks for x in t.values])[order])
    write(str(path), pd.DataFrame(columns), compression="ZSTD", stats=False)
    return len(times)


def rounded(values: Floats, digits: int = DIGITS) -> Floats:
    """Each value at `digits` significant digits; zero, NaN and infinities as they are."""
    out = values.copy()
    usable = np.isfinite(values) & (values != 0)
    power = digits - 1 - np.floor(np.log10(np.abs(values[usable])))
    usable[usable] = np.abs(power) < 300
    power = power[np.abs(power) < 300]
    out[usable] = np.where(power >= 0, np.round(values[usable] * 10.0 ** power) / 10.0 ** power,
                           np.round(values[usable] / 10.0 ** -power) * 10.0 ** -power)
    return out


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    """JSON lines, gzipped without a time stamp so that equal content gives equal files. No rows, no file."""
    if not rows:
        return
    text = "".join(json.dumps(r, ensure_ascii=False, separators=(",", ":")) + "\n" for r in rows)
    path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


def _topology(links: Links) -> dict[str, Any]:
    nodes = [{"id": n.entity, "criticality": n.criticality, **({"labels": n.labels} if n.labels else {})}
             for n in links.nodes]
    return {"nodes": nodes, "edges": [{"from": e.source, "to": e.target, "kind": e.kind} for e in links.edges]}


def _move(partial: Path, out: Path) -> int:
    """Puts the finished files in place, removes what was there before, and returns their size in bytes."""
    out.mkdir(parents=True, exist_ok=True)
    size = 0
    for name in WRITTEN:
        if (partial / name).exists():
            size += (partial / name).stat().st_size
            (partial / name).replace(out / name)
        else:
            (out / name).unlink(missing_ok=True)
    (out / "metrics.csv").unlink(missing_ok=True)
    partial.rmdir()
    return size
