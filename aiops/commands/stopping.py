"""`aiops stop` and `aiops start`: nothing is decided or done any more, and on again."""

from __future__ import annotations

from typing import Annotated

import typer

from aiops.commands.common import option, say
from aiops.commands.incidents import DEFAULT_SERVER, ByOption, ServerOption, TokenOption, talking, who

ReasonOption = Annotated[str, option("--reason", metavar="TEXT", help="Why; people see it.")]


def stop(reason: ReasonOption = "",
         freeze: Annotated[bool, typer.Option("--freeze", help="Do not even undo what did not help.")] = False,
         by: ByOption = "", server: ServerOption = DEFAULT_SERVER, token_file: TokenOption = None) -> None:
    """Stop everything: nothing is decided or done any more, at once."""
    with talking(server, token_file) as client:
        client.stop(who(by), reason, freeze)
    say("frozen: nothing is done any more, nor undone. 'aiops start' ends it." if freeze else
        "stopped: nothing is done any more; what did not help is still undone. 'aiops start' ends it.")


def start(reason: ReasonOption = "", by: ByOption = "", server: ServerOption = DEFAULT_SERVER,
          token_file: TokenOption = None) -> None:
    """Take back 'aiops stop'."""
    with talking(server, token_file) as client:
        client.start(who(by), reason)
    say("started: policies decide again, on fresh evidence only.")

