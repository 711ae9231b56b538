"""Log lines a second on one core: the miner, the detector and the counts, beside masking with a few regular expressions alone.

    python benchmarks/logs.py [--data FOLDER] [--lines N]

Lines are synthetic: 60 kinds with numbers, addresses, ids, names and times in them, seeded. Figures are lines per second of
processor time. `repeated` is what a daemon sees: kinds of lines that it knows, values that it does not. FOLDER: csv files with
columns `content` and `event_id` (loghub's 2k samples); then grouping accuracy too: the share of lines whose group holds exactly
the lines of their true group, with ids as they are after the last line, and with those that were given when each line came; and
the same with a letter for each digit, so that next to nothing can be masked and templates must be found by what varies.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path

import numpy as np

from aiops.logcounts import LogCounts
from aiops.logframes import message
from aiops.templates import Templates
from aiops.types import Frame, LogLine
from detectors.logs import Logs

SIMPLE = [re.compile(p) for p in (
    r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b", r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b", r"\b0x[0-9a-fA-F]+\b",
    r"\b[0-9a-fA-F]{8,}\b", r"(?:/[\w.\-]+)+", r"[-+]?\b\d+(?:\.\d+)?\b")]
WORDS = (
    "request", "response", "order", "user", "cache", "queue", "worker", "replica", "session", "block", "shard", "lease", "token",
    "index", "batch", "stream", "retry", "commit", "open", "close", "read", "write", "sent", "received", "started", "finished",
    "failed", "slow", "late", "empty", "full", "denied", "accepted", "dropped")
TICK = 1000
LETTERS = str.maketrans("0123456789", "qwzxvjkhgm")


def lines(count: int, seed: int = 1) -> list[str]:
    """About 125 characters each, four values that were never seen before among them."""
    rng = np.random.default_rng(seed)
    kinds = [" ".join(rng.choice(WORDS, 6)) for _ in range(60)]
    values = rng.integers(0, 100_000, (count, 3)).tolist()
    chosen = rng.zipf(1.4, count) % 60
    return [f"2026-01-02T03:{a % 60:02d}:{b % 60:02d}.{c % 1000:03d}Z INFO {kinds[k]} "
            f"id={a:x}{c:05x} from 10.0.{b % 250}.{c % 250}:80 in {c / 7:.1f} ms"
            for (a, b, c), k in zip(values, chosen.tolist(), strict=True)]


def masked(line: str) -> str:
    for pattern in SIMPLE:
        line = pattern.sub("<*>", line)
    return line


def rate(work: Callable[[Sequence[str]], object], said: Sequence[str]) -> float:
    """Lines per second of processor time."""
    began = time.process_time()
    work(said)
    return len(said) / (time.process_time() - began)


def ticks(said: Sequence[str]) -> list[tuple[LogLine, ...]]:
    all_lines = [LogLine(0.0, f"pod/shop/api-{k % 20}", text) for k, text in enumerate(said)]
    return [tuple(all_lines[k:k + TICK]) for k in range(0, len(all_lines), TICK)]


def table(count: int) -> None:
    known, fresh = lines(20_000), lines(count, seed=2)
    short = ["user 17 logged in", "cache miss for key 9f3a", "GET /healthz 200", "took 12 ms"] * (count // 4)
    as_json = [json.dumps({"ts": "2026-01-02T03:04:05Z", "level": "info", "msg": line, "caller": "x.go:1", "trace": "0af7" * 8,
                           "tags": {"a": "b" * 200, "c": list(range(40))}}) for line in fresh]
    rng = np.random.default_rng(3)
    pool = ["".join(w) for w in rng.choice(list("abcdefghijklmnop"), (20_000, 7))]
    alike = [" ".join(["request", "from", "client", "of", *rng.choice(pool, 5)]) for _ in range(count // 20)]
    unlike = [" ".join(rng.choice(pool, 12)) for _ in range(count // 20)]
    miner, counts, detector = Templates(), LogCounts(), Logs()
    for line in known:
        miner.add(line)
    none = np.empty(0), np.empty(0, np.bool_)
    rows = [
        ("masking alone: six regular expressions", rate(lambda said: [masked(x) for x in said], fresh)),
        ("masking alone, short lines", rate(lambda said: [masked(x) for x in said], short)),
        ("templates, first sight", rate(miner_of, fresh)),
        ("templates, repeated", rate(lambda said: [miner.add(x) for x in said], fresh)),
        ("templates, short lines (25 characters)", rate(lambda said: [miner.add(x) for x in said], short)),
        ("templates, twelve random words (no two alike)", rate(miner_of, unlike)),
        ("templates, four words and five random ones", rate(miner_of, alike)),
        ("templates, JSON lines (600 bytes)", rate(lambda said: [miner.add(message(x)) for x in said], as_json)),
        ("counts as series, 20 entities", rate(lambda said: [counts.count(float(k), t)
                                                             for k, t in enumerate(ticks(said))], fresh)),
        ("detector, 20 entities", rate(lambda said: [detector.observe(Frame(float(k), *none, (), t))
                                                     for k, t in enumerate(ticks(said))], fresh)),
    ]
    print(f"{'what':<44}{'lines/s':>12}")
    for what, speed in rows:
        print(f"{what:<44}{speed:>12,.0f}")


def miner_of(said: Sequence[str]) -> Templates:
    miner = Templates()
    for line in said:
        miner.add(line)
    return miner


def right(found: Sequence[Hashable], true: Sequence[Hashable]) -> tuple[float, float]:
    """Grouping accuracy, and the F1 score over groups."""
    mine, theirs = defaultdict(set), defaultdict(set)
    for k, (a, b) in enumerate(zip(found, true, strict=True)):
        mine[a].add(k)
        theirs[b].add(k)
    whole = {frozenset(s) for s in theirs.values()}
    whole &= {frozenset(s) for s in mine.values()}
    return sum(map(len, whole)) / len(found), 2 * len(whole) / (len(mine) + len(theirs))


def grouped(contents: Sequence[str], true: Sequence[str]) -> list[float]:
    """After the last line, and with the ids that were given when each line came."""
    miner = Templates()
    given = [(t, t.id) for t in map(miner.add, contents)]
    return [*right([t.root().id for t, _ in given], true), right([i for _, i in given], true)[0]]


def accuracy(folder: Path) -> None:
    print(f"\n{'':<30}{'as logged':>12}{'':>12}{'':>8}{'no digits':>12}")
    print(f"{'':<30}{'accuracy':>12}{'F1 groups':>12}{'at once':>8}{'accuracy':>12}{'F1 groups':>12}")
    rows = []
    for path in sorted(folder.glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as f:
            lines_of = list(csv.DictReader(f))
        contents, true = [row["content"].replace("\n", " ") for row in lines_of], [row["event_id"] for row in lines_of]
        rows.append(grouped(contents, true) + grouped([c.translate(LETTERS) for c in contents], true)[:2])
        print(f"{path.stem:<30}" + told(rows[-1]))
    if rows:
        print(f"{'mean':<30}" + told(np.mean(rows, axis=0)))


def told(row: Iterable[float]) -> str:
    return "".join(f"{x:>{width}.3f}" for x, width in zip(row, (12, 12, 8, 12, 12), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--lines", type=int, default=200_000)
    arguments, _ = parser.parse_known_args()
    table(arguments.lines)
    if arguments.data:
        accuracy(arguments.data)


if __name__ == "__main__":
    sys.exit(main())
