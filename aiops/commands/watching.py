"""Commands about what a running daemon watches: `readiness`, and `maintenance start`, `list`, `end`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from aiops.commands.common import CommandError, Format, FormatOption, argument, clean, dump, option, print_table, say
from aiops.commands.incidents import DEFAULT_SERVER, ServerOption, TokenOption, talking
from aiops.commands.recordings import moment, seconds

if TYPE_CHECKING:
    from aiops.client import Client

WORDS = {"ready": "ready", "masked": "masked", "constant": "constant", "no_season": "without a season yet",
         "warming_up": "warming up", "silent": "silent"}

EntityArgument = Annotated[str, argument("ENTITY", "A part of the entity's name; all when left out.")]
EntitiesArgument = Annotated[list[str], argument("ENTITY", "kind/namespace/name; may hold wildcards: 'node//gpu-*'.")]
WindowArgument = Annotated[str, argument("ID", "As 'aiops maintenance list' shows it.")]


def readiness(entity: EntityArgument = "", state: Annotated[str, option(metavar="STATE", help="Only this state.")] = "",
              limit: Annotated[int, typer.Option(min=1, max=1000, help="At most this many.")] = 50,
              output: FormatOption = Format.table, server: ServerOption = DEFAULT_SERVER,
              token_file: TokenOption = None) -> None:
    """Say which signals are judged by now, and why others are not."""
    if state and state not in WORDS:
        raise CommandError("--state", f"{state!r} is none of {', '.join(WORDS)}.")
    with talking(server, token_file) as client:
        found = client.readiness(entity, state, limit)
    if output is not Format.table:
        dump(found, output)
        return
    _readiness_table(found)


def topology(entity: Annotated[str, option("--entity", metavar="ENTITY", help="A part of the name of one end.")] = "",
             at: Annotated[str, option("--at", metavar="TIME", help="As it was then, for example -2h.")] = "",
             limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most this many.")] = 100,
             output: FormatOption = Format.table, server: ServerOption = DEFAULT_SERVER,
             token_file: TokenOption = None) -> None:
    """Say who depends on whom, who says so, and since when."""
    with talking(server, token_file) as client:
        when = moment(at, "--at", _now(client, at)) if at else None
        found = client.topology(when, entity, limit)
    if output is not Format.table:
        dump(found, output)
        return
    _topology_table(found)


def _now(client: Client, at: str) -> float:
    """Before when `-2h` is: the time of the daemon, which in a replay or the demo is not ours."""
    from aiops.clock import WallClock

    told = client.topology(limit=1)["at"] if at.startswith(("-", "+")) else None
    return WallClock().now() if told is None else float(told)


def start(entities: EntitiesArgument,
          lasting: Annotated[str, option("--for", metavar="DURATION", help="How long, for example 2h; 30d at most.")],
          reason: Annotated[str, option("--reason", metavar="TEXT", help="What is done there; people see it.")] = "",
          begin: Annotated[str, option("--from", metavar="TIME", help="When it begins, if not now.")] = "",
          server: ServerOption = DEFAULT_SERVER, token_file: TokenOption = None) -> None:
    """Start a window: nothing is learned, told or done there."""
    from aiops.clock import WallClock

    since = moment(begin, "--from", WallClock().now()) if begin else None
    with talking(server, token_file) as client:
        window = client.start_maintenance(entities, seconds(lasting, "--for"), since, reason)
    from aiops.humanise import count, utc

    say(f"started {window['id']}: {count(window['matches'], 'watched entity', 'watched entities')} from {utc(window['from'])} "
        f"until {utc(window['until'])}")


def windows(output: FormatOption = Format.table, server: ServerOption = DEFAULT_SERVER, token_file: TokenOption = None) -> None:
    """List the windows: active, planned, and over since yesterday."""
    with talking(server, token_file) as client:
        found = client.maintenance()
    if output is not Format.table:
        dump({"maintenance": found}, output)
        return
    if not found:
        say("No maintenance.")
        return
    _windows_table(found)


def end(window: WindowArgument, server: ServerOption = DEFAULT_SERVER, token_file: TokenOption = None) -> None:
    """End a window that was started with 'aiops maintenance start'."""
    with talking(server, token_file, "aiops maintenance list") as client:
        client.end_maintenance(window)
    say(f"ended {window}")


def _readiness_table(found: dict[str, Any]) -> None:
    counts = found["counts"]
    said = ", ".join(f"{n:,} {WORDS.get(state, state)}" for state, n in counts.items() if n)
    say(f"{sum(counts.values()):,} signals" + (f": {said}" if said else ""))
    if not found["signals"]:
        return
    from aiops.commands.story import grid

    table = grid("ENTITY", "SIGNAL", "STATE", "SAMPLES", "WHY")
    for r in found["signals"]:
        table.add_row(clean(r["entity"]), clean(r["signal"]), clean(r["state"]), f"{r['samples']:,}", clean(r["reason"]))
    print_table(table)
    if found["total"] > len(found["signals"]):
        say(f"{found['total'] - len(found['signals']):,} more are not shown.")


def _topology_table(found: dict[str, Any]) -> None:
    from aiops.commands.story import grid
    from aiops.humanise import count, utc

    told = f" at {utc(found['at'])}" if found["at"] is not None else ""
    say(count(found["total"], "edge") + f"{told}, version {found['version']}")
    if found["exact_since"] and found["at"] and found["at"] < found["exact_since"]:
        say(f"What was before {utc(found['exact_since'])} is not wholly known.")
    table = grid("FROM", "KIND", "TO", "SOURCES", "SINCE", "CONFIRMED")
    for e in found["edges"]:
        seen = utc(e["confirmed"]) if e["until"] is None else f"gone {utc(e['until'])}"
        table.add_row(*(clean(x) for x in (e["from"], e["kind"], e["to"], ", ".join(e["sources"]), utc(e["since"]), seen)))
    if found["edges"]:
        print_table(table)
    if found["total"] > len(found["edges"]):
        say(f"{found['total'] - len(found['edges']):,} more are not shown. Name one end with --entity, or raise --limit.")


def _windows_table(found: list[dict[str, Any]]) -> None:
    from aiops.commands.story import grid
    from aiops.humanise import utc

    table = grid("ID", "STATE", "ENTITIES", "WHEN", "REASON", "BY")
    for w in found:
        when = f"{w['weekly']} {w['timezone']}" if "weekly" in w else f"{utc(w['from'])} to {utc(w['until'])}"
        whom = ", ".join(w["entities"]) + ("" if w["namespace"] == "*" else f" in {w['namespace']}")
        table.add_row(*(clean(x) for x in (w["id"], w["state"], whom, when, w["reason"], w["by"])))
    print_table(table)

