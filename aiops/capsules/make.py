"""Makes one capsule: a job of the daemon, read from a file, in a process of its own so that no step waits for it.

The daemon may be killed, and this process with it, at any moment: nothing is believed that was not finished.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiops.capsules import learned as known
from aiops.capsules.cut import Slice, cut
from aiops.capsules.write import write
from aiops.models import Learned
from aiops.sinks.journal import Journal
from aiops.store import capsules as store

JSON = dict[str, Any]
LEAD_S, TAIL_S, OLDEST_S = 7200.0, 900.0, 6 * 3600.0
"""Telemetry from so long before the incident opened until so long after it closed; from the last save of what was learned where
that is older, but not from longer before than the last."""


def make(path: Path) -> JSON:
    """Carries out the job in the file and evicts what is too much. Returns the manifest. Raises OSError, JournalError.

    The job: `incident` (form of aiops.serial), `at` (event time until which to read), `journal`, `run`, `models` (a save of
    what was learned before; null for none), `level`, `memories`, `keep`, `max_bytes`, `step`, `final`.
    """
    job = json.loads(path.read_text(encoding="utf-8"))
    folder, incident = path.parent, job["incident"]
    out = folder / incident["id"]
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        part.chmod(0o700)
        about = _fill(part, out, job)
        store.place(part, out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    if job["final"]:
        path.unlink(missing_ok=True)
    store.evict(folder, job["keep"], job["max_bytes"])
    return about


def _fill(part: Path, out: Path, job: Mapping[str, Any]) -> JSON:
    incident, header = job["incident"], Journal(Path(job["journal"]), job["run"]).header
    found_before = _before(out, job)
    start, until = span(incident, found_before, float(job["at"]))
    found = cut(Path(job["journal"]), job["run"], incident, start, until)
    write(part, found, incident, header, job["memories"], float(job["level"]), float(job["step"]))
    small = found_before and known.picked(found_before, set(found.learned_entities))
    if small:
        known.write(part / "learned", small)
    else:
        found.left_out["learned"] = 1
    return store.seal(part, _about(found, incident, small, header))


def _before(out: Path, job: Mapping[str, Any]) -> Learned | None:
    """What was learned before the incident opened: in the save that was linked then, or in the capsule as it is so far."""
    opened_at = float(job["incident"]["opened_at"])
    for folder in (Path(job["models"]) if job["models"] else None, out / "learned"):
        found = known.read(folder) if folder else None
        if known.is_before(found, opened_at):
            return found
    return None


def span(incident: Mapping[str, Any], learned: Learned | None, at: float) -> tuple[float, float]:
    """From when until when."""
    opened_at, closed_at = float(incident["opened_at"]), incident["closed_at"]
    start = opened_at - LEAD_S
    if learned is not None and learned.at > opened_at - OLDEST_S:
        start = min(start, learned.at)
    until = at if closed_at is None else min(at, float(closed_at) + TAIL_S)
    return start, max(until, opened_at)


def _about(found: Slice, incident: Mapping[str, Any], learned: Learned | None, header: Mapping[str, Any]) -> JSON:
    closed_at = incident["closed_at"]
    return {
        "incident": incident["id"], "title": incident["title"], "opened_at": incident["opened_at"], "closed_at": closed_at,
        "from": found.ats[0] if found.ats else None, "until": found.ats[-1] if found.ats else None,
        "learned_at": learned.at if learned and math.isfinite(learned.at) else None, "version": header.get("version", ""),
        "entities": len(found.entities), "series": len(found.series), "samples": len(found.ids), "log_lines": len(found.lines),
        "events": len(found.events), "raw_alerts": len(found.alerts), "left_out": dict(found.left_out), "redacted": False}
