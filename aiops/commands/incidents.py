"""Commands that talk to a running daemon: `incidents`, `show`, `approve`, `reject`, `feedback`."""

from __future__ import annotations

import getpass
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aiops.commands.common import (
    PROBLEMS,
    UNREACHABLE,
    USAGE,
    CommandError,
    Format,
    FormatOption,
    argument,
    clean,
    console,
    dump,
    note,
    option,
    print_table,
    say,
)

if TYPE_CHECKING:
    from aiops.client import Client

DEFAULT_SERVER = "http://127.0.0.1:8750"
REMEDIES = {
    401: "Give the token with --token-file or AIOPS_TOKEN.",
    403: "Give the right token with --token-file or AIOPS_TOKEN.",
}


class State(str, Enum):  # noqa: UP042 - typer prints the values of exactly this kind of enum
    """Which incidents."""

    open = "open"
    closed = "closed"
    all = "all"


StateOption = Annotated[State, typer.Option(help="Which ones.")]
LimitOption = Annotated[int, typer.Option(min=1, max=1000, help="At most this many, newest first.")]
ServerOption = Annotated[str, typer.Option(envvar="AIOPS_SERVER", help="Address of the daemon.")]
TokenOption = Annotated[Path | None, option("--token-file", metavar="FILE", help="Token for changes, or AIOPS_TOKEN.")]
IncidentArgument = Annotated[str, argument("ID", "As 'aiops incidents' shows it.")]
ByOption = Annotated[str, option("--by", metavar="NAME", help="Who says so; your user name when left out.")]
SetOption = Annotated[list[str] | None, option("--set", metavar="NAME=VALUE", help="Another value than asked: replicas=+1.")]
AblateOption = Annotated[str, option("--ablate", metavar="TEXT", help="Leave out reasons that hold TEXT: how the verdict moves.")]
ActionArgument = Annotated[str, argument("ID", "As 'aiops show' shows it.")]


def incidents(state: StateOption = State.open, limit: LimitOption = 50, output: FormatOption = Format.table,
              server: ServerOption = DEFAULT_SERVER, token_file: TokenOption = None) -> None:
    """List incidents."""
    with talking(server, token_file) as client:
        found = client.incidents("" if state is State.all else state.value, limit)
    if output is not Format.table:
        dump({"incidents": found}, output)
        return
    if not found:
        say("No incidents." if state is State.all else f"No {state.value} incidents.")
        return
    from aiops.commands.story import listing

    print_table(listing(found))


def show(incident: IncidentArgument, output: FormatOption = Format.table, server: ServerOption = DEFAULT_SERVER,
         token_file: TokenOption = None, ablate: AblateOption = "") -> None:
    """Tell the story of one incident."""
    with talking(server, token_file) as client:
        found = client.incident(incident)
    if ablate:
        found = {**found, "causes": _without(found["causes"], ablate, say if output is Format.table else note)}
    if output is not Format.table:
        dump(found, output)
        return
    from aiops.commands.story import story

    out = console()
    for part in story(found):
        out.print(part)


def _without(causes: list[dict[str, Any]], item: str, tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """The causes anew, without one item of evidence; `tell` hears what moved. Raises CommandError where no reason holds it."""
    from aiops.types import Cause, Reason
    from correlators.ablation import ablated

    before = [Cause(c["entity"], c["score"], tuple(c["signals"]),
                    tuple(Reason(r["text"], r["contribution"]) for r in c["reasons"])) for c in causes]
    after = ablated(before, item)
    removed = sum(len(c.reasons) for c in before) - sum(len(c.reasons) for c in after)
    if not removed:
        raise CommandError(f"--ablate {item!r}", "no reason holds this text. 'aiops show ID' lists them.")
    was = {c.entity: f"{place + 1}, {c.score:.0%}" for place, c in enumerate(before)}
    tell(f"Without {removed} reason{'s' if removed > 1 else ''} that hold{'' if removed > 1 else 's'} {item!r}:")
    for place, c in enumerate(after):
        tell(f"  {place + 1}, {c.score:.0%}  {clean(c.entity)} (was {was[c.entity]})")
    return [{"entity": c.entity, "score": c.score, "signals": list(c.signals),
             "reasons": [{"text": r.text, "contribution": r.contribution} for r in c.reasons]} for c in after]


def approve(action: ActionArgument, changes: SetOption = None, by: ByOption = "", server: ServerOption = DEFAULT_SERVER,
            token_file: TokenOption = None) -> None:
    """Let an action happen that asks for approval."""
    wanted = dict(_assigned(text) for text in changes or [])
    with talking(server, token_file) as client:
        client.approve(action, who(by), wanted)
    say(f"approved {action}" + (f" with {', '.join(f'{k}={v}' for k, v in wanted.items())}" if wanted else ""))


def reject(action: ActionArgument, by: ByOption = "", server: ServerOption = DEFAULT_SERVER,
           token_file: TokenOption = None) -> None:
    """Refuse an action that asks for approval."""
    with talking(server, token_file) as client:
        client.reject(action, who(by))
    say(f"rejected {action}")


def who(by: str) -> str:
    """The name that is recorded: what was given, else that of the user."""
    try:
        return by or getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "somebody"


def _assigned(text: str) -> tuple[str, object]:
    """`replicas=+1` -> a name and its value: a number, true or false where it is one, else text."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise CommandError("--set", f"{text!r} is not NAME=VALUE. Write for example replicas=+1.")
    try:
        found = json.loads(value)
    except ValueError:
        found = value
    return name, found if isinstance(found, bool | int | float | str) else value


def feedback(incident: IncidentArgument,
             false_alarm: Annotated[bool, typer.Option("--false-alarm", help="Nothing was wrong.")] = False,
             useful: Annotated[bool, typer.Option("--useful", help="It was right to tell.")] = False, by: ByOption = "",
             server: ServerOption = DEFAULT_SERVER, token_file: TokenOption = None) -> None:
    """Say whether an incident was worth telling."""
    if false_alarm == useful:
        raise CommandError("aiops feedback", "give exactly one of --false-alarm and --useful.")
    verdict = "false_alarm" if false_alarm else "useful"
    with talking(server, token_file) as client:
        client.feedback(incident, verdict, who(by))
    say(f"noted {incident}: {verdict.replace('_', ' ')}")


@contextmanager
def talking(server: str, token_file: Path | None, listed_by: str = "aiops incidents --state all") -> Iterator[Client]:
    """A client whose errors say what to do. listed_by: the command that shows what there is."""
    from aiops.client import Client, Denied, Unreachable

    try:
        yield Client(server, _token(token_file))
    except Unreachable as e:
        raise CommandError("", f"{e} Is it running? Start it with 'aiops run', or name another with --server.",
                           UNREACHABLE) from None
    except Denied as e:
        remedies = {**REMEDIES, 404: f"'{listed_by}' lists what there is."}
        code = UNREACHABLE if e.status >= 500 else USAGE if e.status in remedies else PROBLEMS
        raise CommandError("", f"{e}. {remedies.get(e.status, '')}".rstrip(), code) from None


def _token(path: Path | None) -> str:
    if path is None:
        return os.environ.get("AIOPS_TOKEN", "").strip()
    token = path.read_text(encoding="utf-8").strip()
    if not token:
        raise CommandError(str(path), "is empty. Put the token of the daemon into it.")
    return token
