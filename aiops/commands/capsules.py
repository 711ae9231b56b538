"""`aiops capsule list` and `aiops capsule export`: what an incident kept of the telemetry around it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aiops import humanise
from aiops.commands.common import CommandError, Format, FormatOption, clean, dump, note, option, print_table, say
from aiops.commands.incidents import DEFAULT_SERVER, IncidentArgument, ServerOption, TokenOption, talking

if TYPE_CHECKING:
    from rich.table import Table

JSON = Mapping[str, Any]
LIST = "aiops capsule list"
StoreOption = Annotated[Path | None, option("--store", metavar="DIR", help="Read a store's folder; no daemon is asked.")]


def capsules(output: FormatOption = Format.table, store: StoreOption = None, server: ServerOption = DEFAULT_SERVER,
             token_file: TokenOption = None) -> None:
    """List the capsules of incidents."""
    if store:
        from aiops.store.capsules import listing as read

        found: JSON = {"capsules": read(_folder(store))}
    else:
        with talking(server, token_file, LIST) as client:
            found = client.capsules()
    if output is not Format.table:
        dump(found, output)
        return
    if found["capsules"]:
        print_table(listing(found["capsules"]))
    else:
        say("No capsules.")
    for text in _troubles(found):
        note(f"note: {clean(text)}")


def export(
    incident: IncidentArgument,
    out: Annotated[Path | None, option("-o", "--out", metavar="FILE.tar.gz|DIR", help="By default ID.tar.gz here.")] = None,
    redact: Annotated[bool, typer.Option("--redact", help="Replace names and whatever else could be somebody's.")] = False,
    store: StoreOption = None, server: ServerOption = DEFAULT_SERVER, token_file: TokenOption = None,
) -> None:
    """Save the capsule of an incident: a recording for 'aiops replay'."""
    import tempfile

    from aiops.capsules.archive import save
    from aiops.store.capsules import CapsuleError, check

    with _capsule(incident, store, server, token_file) as folder, tempfile.TemporaryDirectory(prefix="aiops-") as scratch:
        try:
            check(folder)
            if redact:
                from aiops.capsules.redact import redacted

                folder = redacted(folder, Path(scratch))
            saved = save(folder, out or Path(f"{folder.name}.tar.gz"))
        except CapsuleError as e:
            raise CommandError("", str(e)) from None
    note(f"note: {incident} is called {folder.name} in it." if redact else
         "note: it holds log lines, names and policies as they are; --redact takes out what could be somebody's.")
    say(f"{saved}. Play it: aiops replay {saved}")


@contextmanager
def _capsule(name: str, store: Path | None, server: str, token_file: Path | None) -> Iterator[Path]:
    """The folder of a capsule: of a store, or as the daemon sent it."""
    if store:
        from aiops.store.capsules import find

        found = find(_folder(store), name)
        if found is None:
            raise CommandError("", f"{store}: no capsule of {name!r}. '{LIST} --store {store}' lists what there is.")
        yield found
        return
    import tempfile

    from aiops.capsules.archive import opened

    with tempfile.TemporaryDirectory(prefix="aiops-") as scratch:
        archive = Path(scratch) / "capsule.tar.gz"
        with talking(server, token_file, LIST) as client:
            client.capsule(name, archive)
        with opened(archive) as folder:
            yield folder


def _folder(store: Path) -> Path:
    """The capsules of a store. Raises CommandError."""
    folder = store / "capsules"
    if not store.is_dir():
        raise CommandError(str(store), "no such folder. Name the folder that 'store' sets in the configuration.")
    return folder


def _troubles(found: JSON) -> Iterator[str]:
    if found.get("skipped"):
        names = ", ".join(found.get("skipped_incidents", [])[-5:])
        yield f"{found['skipped']} incidents have none, because too many opened at once: {names}"
    if found.get("problem"):
        yield f"the last one could not be made: {found['problem']}"


def listing(found: list[JSON]) -> Table:
    """One row a capsule."""
    from rich.table import Table

    from aiops.humanise import quantity

    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("ID", "OPENED", "SERIES", "LOG LINES", "SIZE", "STATE", "WHAT"):
        table.add_column(name, overflow="fold", justify="right" if name in ("SERIES", "LOG LINES", "SIZE") else "left")
    for c in found:
        table.add_row(clean(c["incident"]), humanise.utc(c["opened_at"]), f"{c['series']:,}", f"{c['log_lines']:,}",
                      quantity(c["bytes"], "bytes"), "whole" if c["whole"] else "goes on", clean(c["title"]))
    return table
