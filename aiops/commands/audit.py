"""`aiops audit verify` and `aiops audit list`: read the record of every decision. No daemon is asked."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping
from itertools import chain as both
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aiops.commands.common import (
    GOOD,
    PROBLEMS,
    CommandError,
    ConfigOption,
    Format,
    FormatOption,
    argument,
    clean,
    console,
    dump,
    note,
    option,
    say,
)
from aiops.commands.daemon import load
from aiops.commands.recordings import moment

if TYPE_CHECKING:
    from rich.table import Table

JSON = Mapping[str, Any]
PathArgument = Annotated[Path | None, argument("[STORE|DIR]", "A store, or its folder audit; by default the configured one.")]


def verify(path: PathArgument = None, config: ConfigOption = None,
           holds: Annotated[str, option("--holds", metavar="HASH", help="This hash, noted earlier, must still be there.")] = "",
           ) -> int:
    """Check that the record is whole, as it was written.

    Exit code 1 names the first line that was changed, taken out or put in.
    """
    from aiops import chain
    from aiops.humanise import count

    if holds and not re.fullmatch(r"[0-9a-f]{8,64}", holds.lower()):
        raise CommandError("--holds", f"{holds!r} is not a hash. Give at least 8 of its 64 digits.")
    folder = _folder(path, config)
    found = chain.verify(folder)
    for text in found.notes:
        note(f"note: {clean(text)}")
    if found.problem:
        say(f"{clean(found.place)}: {clean(found.problem)}. Before it {count(found.entries, 'entry', 'entries')} "
            f"{'is' if found.entries == 1 else 'are'} as written.")
        return PROBLEMS
    if holds and not any(e["hash"].startswith(holds.lower()) for e in chain.entries(folder)):
        say(f"{folder}: no entry has the hash {clean(holds)}: entries at the end were taken out, or all of it was written anew, "
            "or the entry is older than what is kept.")
        return PROBLEMS
    say(f"{folder}: {count(found.entries, 'entry', 'entries')} in {count(found.segments, 'file')}, {found.first} to "
        f"{found.last}, all as written. The last hash is {found.head}")
    return GOOD


def entries(path: PathArgument = None, config: ConfigOption = None,
            incident: Annotated[str, option("--incident", metavar="ID", help="Only what is about this incident.")] = "",
            since: Annotated[str, option("--since", metavar="TIME", help="Only from then on: a time, or -2h.")] = "",
            kind: Annotated[str, option("--kind", metavar="KIND", help="Only this kind, for example decision.")] = "",
            limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most this many, the newest.")] = 200,
            output: FormatOption = Format.table) -> None:
    """Show what was decided, by whom and why, and why nothing was done."""
    from aiops import chain
    from aiops.clock import WallClock

    begin = moment(since, "--since", WallClock().now()) if since else 0.0
    fits = (e for e in chain.entries(_folder(path, config)) if chain.seconds(e) >= begin and kind in ("", e["kind"])
            and (not incident or incident in (e["what"].get("incident"), e["what"].get("target"))))
    kept = deque(fits, maxlen=limit + 1)
    found = list(kept)[-limit:]
    if output is not Format.table:
        dump({"entries": found}, output)
    elif found:
        console().print(listing(found))
    else:
        say("No entries.")
    if len(kept) > limit:
        note(f"note: there are older ones; these are the newest {limit:,}. Show more with --limit.")


def listing(found: list[dict[str, Any]]) -> Table:
    """One row an entry, the oldest first."""
    from aiops import chain
    from aiops.commands.story import grid
    from aiops.humanise import utc

    table = grid("SEQ", "AT", "KIND", "WHO", "WHAT")
    for e in found:
        who = f"{e['who'].get('role', '')} {e['who'].get('name', '')}".removeprefix("daemon ")
        table.add_row(str(e["seq"]), utc(chain.seconds(e)), clean(e["kind"]), clean(who),
                      clean(sentence(e["kind"], e["what"])))
    return table


def sentence(kind: str, what: JSON) -> str:
    """An entry in one line."""
    def of(*names: str) -> str:
        return " ".join(str(what[n]) for n in names if what.get(n) not in (None, ""))

    told = {"decision": of("decision", "type", "target") + (f" [{what['guard']}]" if what.get("guard") else ""),
            "answer": of("verb", "target"), "outcome": of("status", "action"), "state": of("entity", "signal"),
            "model": of("detector", "event", "model"), "replica": of("verb", "type", "on", "state")}.get(kind)
    if told is None:
        return ", ".join(_pairs(what))
    state = f": {of('state', 'by').replace('_', ' ', 1)}" if kind == "state" else ""
    why = of("reason") or of("text")
    return f"{told}{state}{f': {why}' if why else ''}"


def _pairs(what: JSON) -> Iterator[str]:
    flat = both.from_iterable(v.items() if isinstance(v, Mapping) else [(k, v)] for k, v in what.items())
    return (f"{k} {v}" for k, v in flat)


def _folder(path: Path | None, config: Path | None) -> Path:
    """The folder of the record. Raises ChainError, CommandError."""
    from aiops import chain

    if path is not None and config is not None:
        raise CommandError("aiops audit", "give a folder or --config, not both.")
    return chain.find(path or load(config).config.store)
