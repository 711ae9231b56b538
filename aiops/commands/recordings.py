"""`aiops replay`, `aiops record` and `aiops score`: work on recorded telemetry."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from aiops.commands.common import UNREACHABLE, USAGE, CommandError, argument, existing, note, option, say

ReplayArgument = Annotated[Path, argument("DIR", "The recording, a journal, or a capsule (also as .tar.gz).")]


def replay(
    folder: ReplayArgument,
    policies: Annotated[Path | None, option(metavar="DIR", help="Policies to decide with.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
    speed: Annotated[float, typer.Option(min=0, help="Times faster than it happened; 0: as fast as it goes.")] = 0.0,
    serve: Annotated[bool, typer.Option("--serve", help="Show it on the page while it plays.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Compare with what is expected; exit 1 if it differs.")] = False,
    alerts_out: Annotated[Path | None, option(metavar="FILE", help="For each raw alert, its incident.")] = None,
    listen: Annotated[str, typer.Option(help="Where --serve listens.")] = "127.0.0.1:8750",
) -> int:
    """Play a recording through the same pipeline that runs live."""
    packed = folder.is_file() and folder.name.endswith((".tar.gz", ".tgz"))
    if not folder.is_dir() and not packed:
        what = "is neither a folder nor a .tar.gz." if folder.exists() else "no such folder."
        raise CommandError(str(folder), what)
    if policies:
        existing(policies, "folder")
    from aiops import app
    from aiops.capsules.archive import opened

    with opened(folder) as recording:
        return int(app.replay(recording, policies, as_json=as_json, speed=speed, serve=serve, verify=verify,
                              alerts_out=alerts_out, listen=listen, shown=folder))


def record(
    prometheus: Annotated[str, option(metavar="URL", help="The Prometheus to read from.")],
    match: Annotated[list[str], option(metavar="SELECTOR", help="Which series; may be given several times.")],
    start: Annotated[str, option(help="Begin: a date, Unix seconds, or -2h before the end.")],
    out: Annotated[Path, option("-o", "--out", metavar="DIR", help="Folder to write.")],
    end: Annotated[str, typer.Option(help="End: a date, Unix seconds or 'now'.")] = "now",
    step: Annotated[str, typer.Option(help="Nominal interval between samples.")] = "15s",
    token_file: Annotated[Path | None, option(metavar="FILE", help="Bearer token.")] = None,
    username: Annotated[str, option(help="Basic authentication, with --password-file.")] = "",
    password_file: Annotated[Path | None, option(metavar="FILE", help="Its password.")] = None,
    tenant: Annotated[str, option(help="X-Scope-OrgID of Mimir or Cortex.")] = "",
    ca_file: Annotated[Path | None, option(metavar="FILE", help="CA of the server's certificate.")] = None,
    cert_file: Annotated[Path | None, option(metavar="FILE", help="Client certificate.")] = None,
    key_file: Annotated[Path | None, option(metavar="FILE", help="Its key, where --cert-file does not hold it.")] = None,
    server_name: Annotated[str, option(help="Name in the server's certificate, if not the one in the URL.")] = "",
    timeout: Annotated[str, typer.Option(help="Of one request.")] = "30s",
    force: Annotated[bool, typer.Option("--force", help="Replace a recording that is there already.")] = False,
) -> None:
    """Make a recording from what a Prometheus has stored."""
    from aiops import meaning
    from aiops.clock import WallClock
    from aiops.quantities import format_bytes
    from aiops.sources.access import Access, SourceError
    from aiops.sources.recording.record import record as make

    until = moment(end, "--end", WallClock().now())
    access = Access(tenant=tenant, token_file=token_file, username=username, password_file=password_file, ca_file=ca_file,
                    cert_file=cert_file, key_file=key_file, server_name=server_name)
    try:
        done = make(prometheus, match, moment(start, "--start", until), until, seconds(step, "--step"), out,
                    meanings=meaning.shipped(), access=access, timeout_s=seconds(timeout, "--timeout"), force=force)
    except SourceError as e:
        raise CommandError("", str(e), USAGE if 400 <= e.status < 500 else UNREACHABLE) from None
    except (FileExistsError, ValueError) as e:
        raise CommandError("", str(e)) from None
    for text in done.notes:
        note(f"note: {text}")
    say(f"{done.out}: {done.samples:,} samples of {done.series:,} series, {format_bytes(done.size_bytes)}. "
        f"Play it: aiops replay {done.out}")


def score(
    file: Annotated[Path, argument("FILE.csv", "A CSV with a timestamp column.")],
    columns: Annotated[str, option(metavar="A,B", help="Columns to score; all numbers if not given.")] = "",
    out: Annotated[Path | None, option("-o", "--out", metavar="OUT.csv", help="Where to write, if not stdout.")] = None,
) -> int:
    """Score any CSV, each row from the rows before it."""
    existing(file, "file")
    from aiops.score import score as run

    return int(run(file, [c.strip() for c in columns.split(",") if c.strip()] or None, out) or 0)


def moment(text: str, name: str, now: float) -> float:
    """A point in time as Unix seconds: `now`, Unix seconds, an ISO date (UTC if it names no zone), `-2h` or `+2h`."""
    if text == "now":
        return now
    if text.startswith(("-", "+")):
        return now + (-1 if text[0] == "-" else 1) * seconds(text[1:], name)
    if re.fullmatch(r"\d{9,}(\.\d+)?", text):
        return float(text)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        what = f"{text!r} is not a time. Write 2026-01-31T08:00:00Z, Unix seconds or -2h."
        raise CommandError(name, what) from None
    return at.replace(tzinfo=at.tzinfo or UTC).timestamp()


def seconds(text: str, name: str) -> float:
    """A duration as seconds, with the option in the error."""
    from aiops.quantities import parse_duration

    try:
        return parse_duration(text)
    except ValueError as e:
        raise CommandError(name, str(e)) from None
