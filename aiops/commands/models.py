"""`aiops model list`, `aiops model promote`, `aiops model rollback`: talk to a running daemon."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from aiops import humanise
from aiops.commands.common import CommandError, Format, FormatOption, argument, clean, dump, print_table, say
from aiops.commands.incidents import DEFAULT_SERVER, ServerOption, TokenOption, talking

if TYPE_CHECKING:
    from rich.table import Table

JSON = Mapping[str, Any]
LIST = "aiops model list"
DetectorArgument = Annotated[str, argument("DETECTOR", "As 'aiops model list' shows it.")]
AnyDetectorArgument = Annotated[str | None, argument("DETECTOR", "By default the one whose model changed last.")]


def models(output: FormatOption = Format.table, server: ServerOption = DEFAULT_SERVER, token_file: TokenOption = None) -> None:
    """List which model of each detector serves, and what is tried beside it."""
    with talking(server, token_file, LIST) as client:
        found = client.models()
    if output is not Format.table:
        dump(found, output)
        return
    print_table(listing(found.get("models", [])))
    for event in found.get("events", [])[:10]:
        say(f"{humanise.utc(event['at'])}  {clean(event['text'])}")


def promote(detector: DetectorArgument, server: ServerOption = DEFAULT_SERVER, token_file: TokenOption = None) -> None:
    """Let the candidate of a detector serve from now on, whatever the comparison says."""
    with talking(server, token_file, LIST) as client:
        client.promote(detector)
    say(f"{detector}: the candidate serves with the next step")


def rollback(detector: AnyDetectorArgument = None, server: ServerOption = DEFAULT_SERVER,
             token_file: TokenOption = None) -> None:
    """Call back the model that served before, as it was when it was replaced."""
    with talking(server, token_file, LIST) as client:
        name = detector or newest(client.models().get("models", []))
        client.roll_back(name)
    say(f"{name}: the model of before serves with the next step")


def newest(found: Sequence[JSON]) -> str:
    """The detector whose model changed last. Raises CommandError where none has a model from before."""
    changed = [m for m in found if m.get("previous")]
    if not changed:
        raise CommandError("", "no detector has a model from before: nothing took over from another yet.")
    return str(max(changed, key=lambda m: m.get("since") or 0.0)["detector"])


def listing(found: Sequence[JSON]) -> Table:
    """One row a detector."""
    from rich.table import Table

    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("DETECTOR", "SERVES", "SINCE", "BEFORE", "CANDIDATE"):
        table.add_column(name, overflow="fold")
    for m in found:
        before, candidate = m.get("previous") or {}, m.get("candidate")
        table.add_row(clean(m["detector"]), clean(m["serving"]), humanise.utc(m.get("since")), clean(before.get("id", "")),
                      clean(f"{candidate['id']}: {_state(candidate)}") if candidate else "")
    return table


def _state(candidate: JSON) -> str:
    words = {True: "not worse so far", False: "worse so far", None: ""}[candidate.get("not_worse")]
    due = f", judged {humanise.utc(candidate['due'])}" if candidate.get("due") else ""
    return f"{words}{': ' if words else ''}{candidate['text']}{due}"
