"""What a replay found, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from aiops import serial
from aiops.account import again
from aiops.humanise import clean, count, duration, utc
from aiops.replay import Result
from aiops.types import Incident


def print_summary(result: Result, skipped: Mapping[str, int], console: Console | None = None) -> None:
    """Incidents, the most urgent first, with the reasons of their first causes; the funnel, and what was left out."""
    out = console or Console(highlight=False)
    if console is None and not out.is_terminal:
        out = Console(highlight=False, width=10_000)  # so that `grep` finds whole lines
    c = result.counts
    span = duration(result.ended_at - result.started_at)
    out.print(f"[bold]{_safe(result.fixture)}[/]: {span} from {utc(result.started_at)}; "
              f"{c.samples:,} samples of {c.series:,} series, {c.log_lines:,} log lines")
    incidents = sorted(result.incidents.values(), key=lambda i: (i.priority.level, -i.priority.score, i.opened_at, i.id))
    for incident in incidents:
        _incident(out, incident)
    if not incidents:
        out.print("[green]No incident.[/]")
    out.print(f"{c.raw_anomalies:,} anomalies → {c.alerts:,} alerts → {c.incidents:,} incidents → "
              f"{c.prioritised:,} prioritised → {c.actionable:,} actionable")
    if c.habitual:
        out.print(f"{c.habitual:,} alerts of others opened no incident: they come and go by habit")
    for reason, number in {**skipped, **c.dropped}.items():
        out.print(f"[yellow]left out[/]: {number:,} {reason.replace('_', ' ')}")
    out.print(f"digest {result.digest}")


def _incident(out: Console, i: Incident) -> None:
    until = f"closed {utc(i.closed_at, '%H:%M:%S')}" if i.closed_at else "still open"
    until += f", part of {i.merged_into}" if i.merged_into else ""
    colour = "red" if i.severity == "critical" else "yellow"
    out.print()
    urgent = f"{i.priority.level} {i.severity}"
    out.print(f"[bold {colour}]{urgent}[/] [bold]{_safe(i.title)}[/]  {i.id}, {utc(i.opened_at)}, {until}, "
              f"{count(len(i.alerts), 'alert')} on {count(len(i.entities), 'entity', 'entities')}")
    if seen := again(serial.incident(i)):
        out.print(f"  [bold]seen before[/]: {_safe(seen)}")
    table = Table(box=None, padding=(0, 1), show_header=False)
    for cause in i.causes[:3]:
        for n, reason in enumerate(cause.reasons):
            table.add_row(_safe(cause.entity) if n == 0 else "", f"{cause.score:.0%}" if n == 0 else "",
                          f"{reason.contribution:+.2f}", _safe(reason.text))
    out.print(table)
    for a in i.actions:
        out.print(f"  [bold]{a.decision}[/] {_safe(a.type)} {_safe(a.target)} ({_safe(a.policy)}): {_safe(a.reason)}")
    for o in i.outcomes:
        out.print(f"  [bold]{o.status}[/]: {_safe(o.reason)}")


def _safe(text: str) -> str:
    """As it is: neither marks of ours nor control characters."""
    return escape(clean(text))
