"""A slice of a journal as the folder that `aiops replay` reads: DESIGN 5.3 (fixtures/README.md) and what a replay needs besides.

`metrics.parquet` has one more column, `at`, and each line of logs, events and alerts one more key: the event time of the batch
in which it came, so that the replay steps as the run did. `run.json` holds batches, outcomes, commands, topology over time,
settings, policies and what they remembered; `incident.json` the incident; `learned/` what was known before.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from aiops.capsules.cut import Slice
from aiops.sources.recording.record import write_yaml
from aiops.types import Links

JSON = dict[str, Any]
KEPT_SETTINGS = ("mode", "budget", "detectors", "maintenance", "interval", "slos")
"""Of the configuration: what decides verdicts. Addresses, files and sinks are nobody's business."""


def write(part: Path, found: Slice, incident: Mapping[str, Any], header: Mapping[str, Any], memories: Mapping[str, Any],
          level: float, step_s: float) -> None:
    """All files but `learned/` and the manifest, into an empty folder. Raises OSError."""
    _metrics(part / "metrics.parquet", found)
    for name, rows in (("logs", found.lines), ("events", found.events), ("alerts", found.alerts)):
        _lines(part / f"{name}.jsonl.gz", ({**asdict(x), "at": at} for at, x in rows))
    if found.links:
        write_yaml(part / "topology.yaml", topology(found.links[-1][1]))
    _json(part / "incident.json", dict(incident))
    _json(part / "run.json", {
        "ats": found.ats, "level": level, **settings(header), **memories,
        "links": [[at, asdict(x)] for at, x in found.links], "outcomes": [[at, asdict(x)] for at, x in found.outcomes],
        "commands": [[at, asdict(x)] for at, x in found.commands], **policies(found)})
    write_yaml(part / "fixture.yaml", fixture(found, incident, header, level, step_s))


def settings(header: Mapping[str, Any]) -> JSON:
    """What the run says of itself that decides verdicts."""
    config = json.loads(str(header.get("config") or "{}"))
    kept = {k: config[k] for k in KEPT_SETTINGS if config.get(k) is not None}
    policies = config.get("policies")
    if isinstance(policies, dict) and policies.get("beyond"):
        kept["policies"] = {"beyond": policies["beyond"]}
    return {"config": kept, "version": header.get("version", ""),
            "policies": header.get("policies", {}), "packs": header.get("packs", {})}


def policies(found: Slice) -> JSON:
    """The policies in force at the beginning, where they are not those with which the run began, and what became of them."""
    before = [texts for at, texts in found.policies if not found.ats or at < found.ats[0]]
    later = [[at, dict(texts)] for at, texts in found.policies if found.ats and at >= found.ats[0]]
    return ({"policies": dict(before[-1])} if before else {}) | ({"policy_changes": later} if later else {})


def fixture(found: Slice, incident: Mapping[str, Any], header: Mapping[str, Any], level: float, step_s: float) -> JSON:
    """`fixture.yaml`."""
    kinds = {s.metric: {"kind": s.kind} for s in found.series if s.kind != "unknown"}
    return {"name": incident["id"], "description": incident["title"], "origin": "capsule of an incident", "step": step_s,
            "incident": incident["id"], "version": header.get("version", ""),
            "budget": settings(header)["config"].get("budget", {}), "level": level, "left_out": dict(found.left_out),
            "metrics": kinds}


def topology(links: Links) -> JSON:
    """In the form of `topology.yaml`."""
    nodes = [{"id": n.entity, "criticality": n.criticality, **({"labels": dict(n.labels)} if n.labels else {})}
             for n in links.nodes]
    return {"nodes": nodes, "edges": [{"from": e.source, "to": e.target, "kind": e.kind} for e in links.edges]}


def _metrics(path: Path, found: Slice) -> None:
    """Columns time, entity, metric, labels, value and at, in the order of arrival; no rows, no file."""
    if not len(found.ids):
        return
    columns: dict[str, Any] = {"time": found.times}
    for name in ("entity", "metric", "labels"):
        columns[name] = [getattr(s, name) for s in found.series]
    columns["value"], columns["at"] = found.values, found.row_at
    parquet(path, found.ids, columns)


def parquet(path: Path, ids: Any, columns: Mapping[str, Any]) -> None:
    """float64 arrays with an element a row, lists of text with one for each number in `ids`."""
    import pandas as pd
    from fastparquet import write as write_parquet

    table: dict[str, Any] = {}
    for name, values in columns.items():
        if isinstance(values, list):
            kinds = sorted(set(values))
            code = {k: i for i, k in enumerate(kinds)}
            codes = np.array([code[v] for v in values], np.int32)[ids]
            table[name] = pd.Categorical.from_codes(codes, pd.Index(kinds, dtype=object))
        else:
            table[name] = values
    write_parquet(str(path), pd.DataFrame(table), compression="ZSTD", stats=False)


def _lines(path: Path, rows: Iterable[JSON]) -> None:
    """JSON lines, gzipped without a time stamp so that equal content gives equal files. No rows, no file."""
    text = b"".join(json.dumps(r, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n" for r in rows)
    if text:
        path.write_bytes(gzip.compress(text, 6, mtime=0))


def _json(path: Path, value: JSON) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=None, default=str), encoding="utf-8", errors="replace")
