"""`aiops learned show`, `aiops learned export`, `aiops learned reset`: what a running daemon has learned."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from aiops import humanise
from aiops.commands.common import CommandError, Format, FormatOption, argument, clean, dump, note, option, print_table, say
from aiops.commands.incidents import DEFAULT_SERVER, ByOption, ServerOption, TokenOption, talking, who

JSON = Mapping[str, Any]
LIST = "aiops learned show"
KindArgument = Annotated[str, argument("KIND", "As 'aiops learned show' lists them.")]
AnyKindArgument = Annotated[str, argument("KIND", "Of this kind; a list of all kinds when left out.")]
NamesArgument = Annotated[list[str] | None, argument("NAME", "As it is shown, or with wildcards: 'pod/shop/*'.")]


def show(kind: AnyKindArgument = "", names: NamesArgument = None,
         limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most this many.")] = 100,
         output: FormatOption = Format.table, server: ServerOption = DEFAULT_SERVER,
         token_file: TokenOption = None) -> None:
    """Show what was learned: which kinds there are, or all of one kind."""
    with talking(server, token_file, LIST) as client:
        found = client.learned_of(kind, names or [], limit) if kind else client.learned()
    if output is not Format.table:
        dump(found, output)
    elif kind:
        _show_rows(kind, found)
    else:
        _table(("KIND", "COUNT", "WHAT"), [(k["kind"], f"{k['count']:,}", k["what"]) for k in found["kinds"]])


def export(out: Annotated[Path, option("-o", "--out", metavar="FILE", help="Where to; nothing is overwritten.")] = Path(
               "learned.tar.gz"), server: ServerOption = DEFAULT_SERVER, token_file: TokenOption = None) -> None:
    """Save all that was learned as one archive."""
    if out.exists():
        raise CommandError(str(out), "is there already. Remove it, or give another name with -o.")
    part = out.with_name(out.name + ".part")
    try:
        with talking(server, token_file, LIST) as client:
            client.learned_files(part)
        part.rename(out)
    finally:
        part.unlink(missing_ok=True)
    note("note: it holds names and log templates as they are.")
    say(f"{out}. learned.json in it is for people, the rest goes into the store of a daemon that is stopped.")


def reset(kind: KindArgument, names: NamesArgument = None,
          everything: Annotated[bool, typer.Option("--all", help="Everything of this kind.")] = False, by: ByOption = "",
          server: ServerOption = DEFAULT_SERVER, token_file: TokenOption = None) -> None:
    """Forget what was learned; there is no way back, but for models."""
    if bool(names) == everything:
        raise CommandError("aiops learned reset", "give names, or --all for everything of this kind.")
    with talking(server, token_file, LIST) as client:
        count = client.forget(kind, names or [], who(by))["matches"]
    say(f"forgotten with the next step: {kind}, {count:,} of them"
        + (". 'aiops model rollback' calls a model back" if kind == "models" and count else ""))


def _show_rows(kind: str, found: JSON) -> None:
    rows = found["rows"]
    if not rows:
        say(f"No {kind}: {found['what']}.")
        return
    columns, row = _TABLES[kind]
    _table(columns, [row(r) for r in rows])
    if found["total"] > len(rows):
        say(f"{found['total'] - len(rows):,} more are not shown.")


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    from aiops.commands.story import grid

    table = grid(*columns)
    for row in rows:
        table.add_row(*(clean(x) for x in row))
    print_table(table)


def _record(r: JSON) -> Sequence[object]:
    tried = r["helped"] + r["no_help"] + r["worse"]
    return (r["fault"], r["action"], f"{r['helped']} of {tried}" + (f", {r['worse']} worse" if r["worse"] else ""),
            f"{r['chance']:.0%} ({r['lower']:.0%}-{r['upper']:.0%})", r["standing"] if "earned" in r["modes"] else "",
            ", ".join(r["policies"]))


def _said(r: JSON) -> str:
    false = humanise.count(r["false_alarms"], "false alarm") if r["false_alarms"] else ""
    return ", ".join(filter(None, (false, f"{r['useful']} useful" if r["useful"] else "")))


def _number(x: float | None) -> str:
    return "" if x is None else f"{x:.4g}"


def _series(r: JSON) -> Sequence[object]:
    band = f"{_number(r['lower'])} to {_number(r['upper'])}" if r["upper"] is not None else ""
    return r["entity"], r["signal"], r["state"], f"{r['samples']:,}", band, f"{r['evidence_needed']:.2f}"


_TABLES: Mapping[str, tuple[Sequence[str], Callable[[JSON], Sequence[object]]]] = {
    "records": (("FAULT", "ACTION", "HELPED", "CHANCE (90 %)", "AUTONOMY", "POLICIES"), _record),
    "sensitivity": (("CLASS", "SIGNAL", "EVIDENCE NEEDED", "SAID", "BY", "FADES UNTIL"), lambda r: (
        r["class"], r["signal"], f"{r['factor']:.2f}", _said(r), ", ".join(r["by"]), humanise.utc(r["until"]))),
    "accepted": (("ENTITY", "SIGNAL", "ACCEPTED", "INCIDENT", "BY", "UNTIL"), lambda r: (
        r["entity"], r["signal"], f"up to {_number(r['bound'])}" if r["side"] == "above" else f"down to {_number(r['bound'])}",
        r["incident"], r["by"], humanise.utc(r["until"]))),
    "habits": (("ENTITY", "SIGNAL", "EVIDENCE NEEDED", "LAST"), lambda r: (
        r["entity"], r["signal"], f"{r['factor']:.2f}", humanise.utc(r["at"]))),
    "budget": (("ALARM LEVEL", "KEEPS TO THE BUDGET", "SAID", "MEMORY"), lambda r: (
        f"{r['level']:.1f} nats", "yes" if r["within_budget"] else "no", _said(r) or "nothing",
        humanise.duration(r["memory_s"]))),
    "series": (("ENTITY", "SIGNAL", "STATE", "SAMPLES", "EXPECTED", "EVIDENCE NEEDED"), _series),
    "models": (("DETECTOR", "SERVES", "SINCE", "READY"), lambda r: (
        r["detector"], r["serving"], humanise.utc(r["since"]), "" if r["ready"] is None else f"{r['ready']:,}")),
    "templates": (("ENTITY", "USUAL TEMPLATES"), lambda r: (r["entity"], " | ".join(r["templates"]))),
}
"""How each kind is shown."""
