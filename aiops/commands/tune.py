"""`aiops tune`: what another budget would have paged."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from aiops.commands.common import (
    CommandError,
    ConfigOption,
    Format,
    FormatOption,
    argument,
    clean,
    dump,
    existing,
    option,
    print_table,
    say,
)
from aiops.commands.daemon import load

if TYPE_CHECKING:
    from rich.table import Table

    from aiops.tune import History

SHOWN = 5


PathArgument = Annotated[Path | None, argument("PATH", "A store, a journal or a recording; else the configuration's store.")]
BudgetOption = Annotated[list[str] | None, option("--budget", metavar="N/TIME", help="As 1/1w; may be given several times.")]


def tune(path: PathArgument = None, budget: BudgetOption = None, config: ConfigOption = None,
         output: FormatOption = Format.table) -> int:
    """Say what another budget would have paged.

    Plays the stored history once for each budget. Without --budget: 1/1d, 1/1w and 1/30d.
    """
    from aiops import tune as history

    wanted = budget or list(history.USUAL)
    for text in wanted:
        try:
            history.parse_budget(text)
        except ValueError as e:
            raise CommandError("--budget", str(e)) from None
    found = history.tune(existing(path or load(config).config.store, "folder"), wanted)
    if output is not Format.table:
        dump({"runs": found.runs, "seconds": found.seconds, "budgets": [row.json() for row in found.rows]}, output)
        return 0
    _print(found)
    return 0


def _print(found: History) -> None:
    from aiops import humanise

    span = humanise.duration(found.seconds)
    runs = humanise.count(found.runs, "run")
    say(f"{span} of history in {runs}, played once for each budget. The first row is the budget that was set.")
    print_table(_table(found))


def _table(found: History) -> Table:
    from rich.table import Table

    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("BUDGET", "PAGED", "FALSE", "USEFUL", "NOT JUDGED", "LEVEL", "LOST"):
        table.add_column(name, overflow="fold", justify="left" if name in ("BUDGET", "LOST") else "right")
    for row in (r.json() for r in found.rows):
        lost = [clean(name) for name in row["lost"]]
        more = f" and {len(lost) - SHOWN} more" if len(lost) > SHOWN else ""
        numbers = [str(row[k]) for k in ("paged", "false_alarms", "useful", "unjudged")]
        table.add_row(row["budget"], *numbers, f"{row['level']:.1f}", ", ".join(lost[:SHOWN]) + more)
    return table
