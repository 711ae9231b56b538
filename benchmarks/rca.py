"""Is the true cause first? Replays recordings with known faults and compares the ranking with `expect.yaml`.

    make bench-rca DATA=folder

DATA holds recordings, at any depth, whose `expect.yaml` has `faults: [{start, end, cause}]`. Of each fault the incident is taken
that has most alerts from a minute before it until five minutes after it (or a minute before the next fault). Causes count as the
service that owns them. AC@k is the share of faults whose cause is among the first k; no incident is a miss. Beside all, the two
halves (every other fault): what was decided looking at one half is to hold on the other. Nothing of this is read by the program.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from aiops.app import Player
from aiops.types import Incident
from correlators.graph import Graph

BEFORE_S, AFTER_S = 60.0, 300.0
MISSED = 1_000_000


@dataclass(frozen=True)
class Row:
    """One fault: the place of its cause, MISSED where it was not named, and the incident it was looked for in."""

    recording: str
    fault: str
    rank: int
    incident: str


def recordings(root: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Folders with faults whose cause is known, and what is expected of them."""
    for file in sorted(root.rglob("expect.yaml")):
        expect = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        if any("cause" in f for f in expect.get("faults") or []):
            yield file.parent, expect


def windows(faults: Sequence[dict[str, Any]]) -> list[tuple[float, float]]:
    """From when until when an alert may belong to each fault; faults in order of their start."""
    ends = [min(f["end"] + AFTER_S, g["start"] - BEFORE_S) for f, g in pairwise(faults)] + [faults[-1]["end"] + AFTER_S]
    return [(f["start"] - BEFORE_S, max(end, f["start"] + BEFORE_S)) for f, end in zip(faults, ends, strict=True)]


def best(incidents: Sequence[Incident], low: float, high: float) -> Incident | None:
    """The incident with most alerts inside; of equals the one with the larger share of its alerts, then the earlier."""
    inside = [(sum(low <= a.since <= high for a in i.alerts), i) for i in incidents]
    found = [(n, n / len(i.alerts), -i.opened_at, i) for n, i in inside if n]
    return max(found, key=lambda x: x[:3])[3] if found else None


def rank(incident: Incident | None, cause: str, graph: Graph) -> int:
    """The place of the cause among the services named, from 1; MISSED where it is not."""
    named = [(graph.owners(c.entity) or [c.entity])[0] for c in incident.causes] if incident else []
    services = list(dict.fromkeys(named))
    return services.index(cause) + 1 if cause in services else MISSED


def judge(folder: Path, expect: dict[str, Any]) -> tuple[list[Row], int]:
    """One row a fault, and the number of incidents after the warm-up that belong to none."""
    player = Player(folder, None)
    incidents = list(player.play().incidents.values())
    faults, graph = sorted(expect["faults"], key=lambda f: float(f["start"])), Graph(player.links)
    rows = []
    for fault, (low, high) in zip(faults, windows(faults), strict=True):
        found = best(incidents, low, high)
        rows.append(Row(folder.name, str(fault.get("id", "")), rank(found, fault["cause"], graph), found.id if found else ""))
    spans = [(f["start"] - BEFORE_S, f["end"] + AFTER_S) for f in faults]
    late = [i for i in incidents if min(a.since for a in i.alerts) >= float(expect.get("score_from", 0.0))]
    extra = sum(not any(low <= a.since <= high for a in i.alerts for low, high in spans) for i in late)
    return rows, extra


def line(name: str, rows: Sequence[Row], extra: str = "") -> str:
    """AC@1, AC@3 and AC@5 of some rows, and how many had no incident."""
    if not rows:
        return f"{name:34s} no fault"
    share = [sum(r.rank <= k for r in rows) / len(rows) for k in (1, 3, 5)]
    none = sum(not r.incident for r in rows)
    return f"{name:34s} {len(rows):6d}   {share[0]:.3f}   {share[1]:.3f}   {share[2]:.3f} {none:11d}   {extra}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measures how often the true cause is ranked first.")
    parser.add_argument("data", nargs="?", type=Path, help="folder that holds recordings with expect.yaml")
    parser.add_argument("--rows", action="store_true", help="one line a fault as well")
    options = parser.parse_args(argv)
    if options.data is None:
        print("left out: it needs recordings with known faults: make bench-rca DATA=folder")
        return 0
    groups: dict[str, list[Row]] = {}
    extras: dict[str, int] = {}
    began = time.process_time()
    for folder, expect in recordings(options.data):
        rows, extra = judge(folder, expect)
        group = str(folder.parent.relative_to(options.data.parent))
        groups.setdefault(group, []).extend(rows)
        extras[group] = extras.get(group, 0) + extra
        for row in rows if options.rows else ():
            place = str(row.rank) if row.rank < MISSED else "-"
            print(f"  {row.recording:20s} {row.fault:16s} {place:>3s}  {row.incident or 'no incident'}")
    if not groups:
        parser.error(f"{options.data}: no recording with faults and their cause in expect.yaml.")
    print(f"{'recordings':34s} faults    AC@1    AC@3    AC@5 no incident   incidents without a fault")
    for group, rows in groups.items():
        print(line(group, rows, str(extras[group])))
        print(line("  first half (every other)", rows[::2]))
        print(line("  second half", rows[1::2]))
    print(f"{time.process_time() - began:.0f} s of CPU time")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
