"""`make bench-detect DATA=folder`: the detection table, with peers run beside it."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.detect import cases, figures, runs, scale, table
from benchmarks.detect.peers import PEERS

NOBODY = "none"


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make bench-detect", description="Measures `aiops score` and its peers on labelled series (docs/detection.md).")
    parser.add_argument("data", nargs="*", type=Path, help="folders that hold " + ", ".join(f"{s}/" for s in cases.SETS))
    parser.add_argument("--sets", default=",".join(cases.SETS), help="only these sets, comma separated")
    parser.add_argument("--peers", default=",".join(PEERS), help=f"only these peers, comma separated, or '{NOBODY}'; "
                        "loda and forest take minutes")
    parser.add_argument("--cache", type=Path, help="folder in which the peers' results are kept")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--no-scale", action="store_true", help="leave out speed and memory over very many series")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there as well")
    options = parser.parse_args(argv)
    if not options.data:
        parser.error("DATA is missing: make bench-detect DATA=folder. docs/detection.md says where labelled data come from.")
    options.sets, options.peers = _chosen(parser, "set", options.sets, cases.SETS), _chosen(parser, "peer", options.peers, PEERS)
    return options


def _chosen(parser: argparse.ArgumentParser, what: str, text: str, known: Iterable[str]) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip() != NOBODY]
    for name in names:
        if name not in known:
            parser.error(f"{what} {name!r} is not known. Known: {', '.join(known)}.")
    return names


def main(argv: Sequence[str] | None = None) -> int:
    options = arguments(argv)
    try:
        found = cases.load(options.data, options.sets)
    except cases.DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    differs = runs.command_differs(min(found, key=lambda c: len(c.times)))
    board = measured(found, options)
    scaled = {} if options.no_scale else {"samples_per_s": scale.samples_per_s(), "bytes_per_series": scale.bytes_per_series()}
    print(report(board, scaled, options.peers))
    if options.json:
        what = {"at": f"{datetime.now(UTC):%FT%TZ}", "machine": table.machine(), **scaled, "sets": board}
        options.json.write_text(json.dumps(plain(what), indent=1) + "\n", encoding="utf-8")
    if differs:
        print(f"error: `aiops score` says another {differs!r} on the command line than in this process.", file=sys.stderr)
    return 1 if differs else 0


def measured(found: Sequence[cases.Case], options: argparse.Namespace) -> dict[str, dict[str, dict[str, float]]]:
    """set -> detector -> figures, ours last."""
    board: dict[str, dict[str, dict[str, float]]] = {name: {} for name in dict.fromkeys(c.set for c in found)}
    for peer in (*options.peers, None):
        who = PEERS[peer].name if peer else table.OURS
        results = runs.over(found, peer, options.jobs, options.cache)
        print(f"{who}: {sum(r.seconds for r in results):.0f} s of processor time", file=sys.stderr)
        for name, by_detector in board.items():
            mine = [k for k, c in enumerate(found) if c.set == name]
            by_detector[who] = figures.of([found[k] for k in mine], [results[k] for k in mine])
    return board


def report(board: table.Board, scaled: Mapping[str, float], peers: Sequence[str]) -> str:
    """When and where, the table, and a table of all figures for each set."""
    libraries = sorted({PEERS[name].version for name in peers})
    head = f"Detection, {datetime.now(UTC):%F}, {', '.join([table.machine(), *libraries])}."
    extra = [*table.one_series(board), *(table.many_series(**scaled) if scaled else ())]
    return "\n\n".join([head, table.main_table(board, extra), *(table.set_table(name, by) for name, by in board.items())])


def plain(value: Any) -> Any:
    """For JSON, which has no NaN."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    sys.exit(main())
