"""The result as Markdown: each measure with the best peer, ours and the goal; then every figure of everybody."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.detect.figures import Figures

OURS = "aiops"
Board = Mapping[str, Mapping[str, Figures]]
"""set -> detector -> figures"""


@dataclass(frozen=True)
class Measure:
    """One row of the table: `figure` of a set, with `also` in parentheses. The best peer has the largest `judged_by`.

    Delays are judged by F1: whoever sees one event in a hundred may well see that one early.
    """

    set: str
    title: str
    figure: str
    goal: str = "-"
    also: str = ""
    digits: int = 2
    judged_by: str = ""


WHOLE_NAB = 58
"""Files of the whole corpus; its goals are others than those of a part."""


def measures(nab_files: float) -> list[Measure]:
    standard, low_fp = (">= 75 (must 70.2)", ">= 67.5 (must 64)") if nab_files >= WHOLE_NAB else (
        ">= 75 (must 71)", ">= 68.5 (must 64)")
    return [
        Measure("nab", "NAB standard, NAB's threshold", "best_standard", standard),
        Measure("nab", "NAB low FP, NAB's threshold", "best_low_fp", low_fp),
        Measure("nab", "NAB low FN, NAB's threshold", "best_low_fn"),
        Measure("nab", "NAB standard, cross-fitted", "crossfitted_standard"),
        Measure("nab", "NAB standard, alarms as given", "given_standard", ">= 40"),
        Measure("nab", "NAB low FP, alarms as given", "given_low_fp", ">= 40"),
        *_events("kpi", "KPI", ">= 0.70 (<= 0.10)", ">= 0.46"),
        *_events("wsd", "WSD", ">= 0.80 (<= 0.10)", ">= 0.44"),
        *_events("cloud-monitoring", "Cloud Monitoring", ">= 0.55 (<= 0.10)", ">= 0.64"),
        *_events("asd", "ASD", "-", ">= 0.40"),
        Measure("asd", "ASD recall at 0.5 false a day, running quantile", "recall_quantile", ">= 0.65"),
        Measure("asd", "ASD recall at 0.5 false a day, one threshold", "recall_threshold", ">= 0.70"),
    ]


def _events(of: str, title: str, f1: str, volume: str) -> list[Measure]:
    return [Measure(of, f"{title} event F1 (false a series-day)", "f1", f1, "false_a_day"),
            Measure(of, f"{title} VUS-PR", "vus_pr", volume),
            Measure(of, f"{title} delay in samples, median (p90)", "delay_median", "1 (5)", "delay_p90", 1, "f1")]


# -------------------------------------------------------------------------------------------------------- the main table
def main_table(board: Board, extra: Iterable[Sequence[str]] = ()) -> str:
    """`extra` are further rows: measure, best peer, ours, goal."""
    files = max((f["files"] for f in board.get("nab", {}).values()), default=0.0)
    rows = [_row(m, board[m.set]) for m in measures(files) if m.set in board]
    return markdown(("measure", "best peer run here", "ours", "goal"), [*rows, *extra])


def _row(m: Measure, by_detector: Mapping[str, Figures]) -> Sequence[str]:
    ours = by_detector.get(OURS)
    name = best_peer(m, by_detector)
    peer = f"{name} {_cell(m, by_detector[name])}" if name else "-"
    return m.title, peer, _cell(m, ours) if ours else "-", m.goal


def best_peer(m: Measure, by_detector: Mapping[str, Figures]) -> str:
    """The first of equals; "" where no peer has the figure."""
    known = {name: f[m.judged_by or m.figure] for name, f in by_detector.items() if name != OURS}
    known = {name: value for name, value in known.items() if math.isfinite(value)}
    return max(known, key=lambda name: known[name], default="")


def _cell(m: Measure, figures: Figures) -> str:
    text = number(figures[m.figure], m.digits)
    return f"{text} ({number(figures[m.also], m.digits)})" if m.also else text


# ---------------------------------------------------------------------------------------------------------------- speed
def one_series(board: Board) -> list[Sequence[str]]:
    """Rows of files with one column in a second, over all sets of such files."""
    single = [by for by in board.values() if all(f["rows"] == f["values"] for f in by.values())]
    speed = {who: sum(by[who]["rows"] for by in single) / max(sum(by[who]["seconds"] for by in single), 1e-9)
             for who in (single[0] if single else ())}
    peers = sorted((value, who) for who, value in speed.items() if who != OURS)
    between = " to ".join(f"{value:,.0f} ({who})" for value, who in dict.fromkeys((peers[0], peers[-1]))) if peers else "-"
    return [("rows/s of one series, one core", between, f"{speed[OURS]:,.0f}", ">= 10,000")] if speed else []


def many_series(samples_per_s: float, bytes_per_series: float) -> list[Sequence[str]]:
    return [("samples/s over 100,000 series, one core", "-", f"{samples_per_s:,.0f}", ">= 1,000,000"),
            ("bytes a series", "-", f"{bytes_per_series:,.0f}", "<= 4,096")]


# ------------------------------------------------------------------------------------------------------- all the figures
NAB_RULES = (("best", "NAB's threshold"), ("crossfitted", "cross-fitted"), ("given", "as given"))
NAB_COLUMNS = tuple(
    (f"{rule}_{profile}", title) for rule, long in NAB_RULES
    for profile, title in (("standard", f"{long}: standard"), ("low_fp", "low FP"), ("low_fn", "low FN")))
EVENT_COLUMNS = (
    ("f1", "F1"), ("precision", "precision"), ("recall", "recall"), ("false_a_day", "false a day"), ("vus_pr", "VUS-PR"),
    ("delay_median", "delay median"), ("delay_p90", "p90"), ("recall_quantile", "recall (a)"), ("recall_threshold", "recall (b)"))


def set_table(name: str, by_detector: Mapping[str, Figures]) -> str:
    """One row a detector."""
    some = next(iter(by_detector.values()))
    columns = [(key, title) for key, title in (NAB_COLUMNS if name == "nab" else EVENT_COLUMNS) if key in some]
    digits = 1 if name == "nab" else 3
    rows = [(who, *(number(f[key], digits) for key, _ in columns), f"{f['rows_per_s']:,.0f}") for who, f in by_detector.items()]
    head = f"{name}: {some['files']:.0f} files, {some['rows']:.0f} rows, {some['values']:.0f} values"
    if "events" in some:
        head += f", {some['events']:.0f} events in {some['days']:.0f} series-days"
    return f"{head}\n\n{markdown(('detector', *(title for _, title in columns), 'rows/s'), rows)}"


def number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "-"


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose columns are as wide as their widest cell, so that it reads in a terminal as well."""
    cells = [list(header), *(list(row) for row in rows)]
    width = [max(len(row[k]) for row in cells) for k in range(len(header))]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, width, strict=True)) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in width) + "|", *lines[1:]])


def machine() -> str:
    """Processor, cores and Python of this machine."""
    info = Path("/proc/cpuinfo")
    models = [line.split(":", 1)[1].strip() for line in info.read_text(encoding="utf-8").splitlines()
              if line.startswith("model name")] if info.is_file() else []
    return f"{models[0] if models else platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
