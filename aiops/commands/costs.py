"""`aiops costs`: what each deployment costs and how much of it idles, from a running daemon."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aiops.commands.common import Format, FormatOption, clean, dump, print_table, say
from aiops.commands.incidents import DEFAULT_SERVER, ServerOption, TokenOption, talking

if TYPE_CHECKING:
    from rich.table import Table

JSON = Mapping[str, Any]


class Over(str, Enum):  # noqa: UP042 - typer prints the values of exactly this kind of enum
    """The stretch of time that is added up."""

    hour = "hour"
    day = "day"
    total = "total"


SINCE = {"hour": "last hour", "day": "last day", "total": "since the beginning"}
WindowOption = Annotated[Over, typer.Option("--window", help="The last hour, the last day, or all since the beginning.")]


def costs(window: WindowOption = Over.hour, output: FormatOption = Format.table, server: ServerOption = DEFAULT_SERVER,
          token_file: TokenOption = None) -> None:
    """Say what deployments cost, and which GPUs idle."""
    with talking(server, token_file) as client:
        found = client.costs(window.value)
    if output is not Format.table:
        dump(found, output)
        return
    deployments, currency = found.get("deployments", []), clean(found.get("currency", ""))
    if not deployments:
        say(f"No GPUs, tokens or spending were seen in the {SINCE[window.value]}." if window is not Over.total else
            "No GPUs, tokens or spending were seen yet.")
        return
    say(f"{SINCE[window.value]}{', in ' + currency if currency else ''}")
    print_table(listing(deployments))
    if not currency:
        say("No prices are configured: these are idle figures only. Set prices to see what they cost.")


def listing(deployments: Sequence[JSON]) -> Table:
    """One row a deployment. Columns of money only where somebody knows what something costs."""
    from aiops.commands.story import grid

    priced = any(d.get("cost") is not None for d in deployments)
    money = ("COST", "PER HOUR", "IDLE COST", "PER REQUEST", "PER 1K TOKENS") if priced else ()
    table = grid("DEPLOYMENT", "GPUS", "IDLE", "IDLE GPU-H", "REQUESTS", "TOKENS IN", "TOKENS OUT", "TOKENS/GPU-S", *money)
    for d in deployments:
        idle = d.get("idle_ratio")
        row = [clean(d["deployment"]), f"{d['gpus']:.3g}", "" if idle is None else f"{idle:.0%}", _number(d["idle_gpu_hours"]),
               *(f"{d[k]:,.0f}" for k in ("requests", "prompt_tokens", "generated_tokens")),
               _number(d["tokens_per_gpu_second"])]
        if priced:
            row += [_number(d[k]) for k in ("cost", "cost_per_hour", "idle_cost", "cost_per_request", "cost_per_1k_tokens")]
        table.add_row(*row)
    return table


def _number(value: float | None) -> str:
    """Three digits that say something: 0.00213, 12.3, 4,560; empty where it is not known."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
