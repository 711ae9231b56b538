"""What commands share: the one error they raise, options, and text that is safe to print."""

from __future__ import annotations

import os
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aiops.humanise import clean as clean

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

GOOD, PROBLEMS, USAGE, UNREACHABLE = 0, 1, 2, 3


class CommandError(Exception):
    """Ends the command with one line on stderr: `error: <place>: <what>. <remedy>`."""

    def __init__(self, place: str, what: str, exit_code: int = USAGE) -> None:
        super().__init__(f"{place}: {what}" if place else what)
        self.exit_code = exit_code


class Format(str, Enum):  # noqa: UP042 - typer prints the values of exactly this kind of enum
    """How a command shows its result."""

    table = "table"
    json = "json"
    yaml = "yaml"


def option(*names: str, help: str, metavar: str | None = None, **more: Any) -> Any:
    """An option whose default says nothing to a reader."""
    return typer.Option(*names, help=help, metavar=metavar, show_default=False, **more)


def argument(metavar: str, help: str) -> Any:
    """A positional argument whose default says nothing to a reader."""
    return typer.Argument(metavar=metavar, help=help, show_default=False)


ConfigOption = Annotated[Path | None, option("-c", "--config", help="The configuration file.")]
FormatOption = Annotated[Format, typer.Option("-o", "--output", help="How to show the result.")]


def console() -> Console:
    """Where tables go. Very wide when it is no terminal, so that `grep` finds whole lines."""
    from rich.console import Console

    out = Console(highlight=False, markup=False, emoji=False)
    return out if out.is_terminal else Console(highlight=False, markup=False, emoji=False, width=10_000)


def print_table(table: Table) -> None:
    """On stdout. Where that is no terminal, nothing stands behind the last word of a line."""
    out = console()
    if out.is_terminal:
        out.print(table)
        return
    with out.capture() as captured:
        out.print(table)
    for line in captured.get().splitlines():
        say(line.rstrip())


def say(text: str = "") -> None:
    """One line on stdout."""
    sys.stdout.write(text + "\n")


def note(text: str) -> None:
    """One line on stderr, for what is not the result."""
    sys.stderr.write(text + "\n")


def dump(value: Any, form: Format) -> None:
    """JSON or YAML on stdout."""
    if form is Format.json:
        import json

        say(json.dumps(value, indent=2, ensure_ascii=False))
        return
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.allow_unicode = True
    yaml.dump(value, sys.stdout)


def debugging() -> bool:
    """Whether tracebacks are wanted: --debug, or AIOPS_DEBUG."""
    return "--debug" in sys.argv or os.environ.get("AIOPS_DEBUG", "") not in ("", "0")


def existing(path: Path, what: str) -> Path:
    """The path, or the error that it is not there."""
    if not path.exists():
        raise CommandError(str(path), f"no such {what}.")
    return path
