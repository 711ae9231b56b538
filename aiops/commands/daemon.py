"""`aiops run` and `aiops config view`."""

from __future__ import annotations

import os
import re
import sys
import threading
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aiops.commands.common import CommandError, ConfigOption, debugging, option

if TYPE_CHECKING:
    from aiops.config import Loaded


class ModeName(str, Enum):  # noqa: UP042 - typer prints the values of exactly this kind of enum
    """The most that any policy may do."""

    observe = "observe"
    ask = "ask"
    act = "act"


ModeOption = Annotated[ModeName | None, option(help="The most that any policy may do.")]
ListenOption = Annotated[str | None, option(help="host:port of the page and the API.")]
StoreOption = Annotated[Path | None, option(help="Folder for what must survive a restart.")]
PoliciesOption = Annotated[Path | None, option(help="Folder of policies.")]
DemoOption = Annotated[bool, typer.Option("--demo", help="Watch a simulated cluster instead, in which things go wrong.")]


def run(config: ConfigOption = None, mode: ModeOption = None, listen: ListenOption = None,
        store: StoreOption = None, policies: PoliciesOption = None, demo: DemoOption = False) -> int:
    """Run the daemon until it is told to stop.

    Without a configuration: in a cluster, the cluster; else PROMETHEUS_URL; else this host. It observes only, until
    told to act. With --demo it acts, on a simulated cluster and on nothing else.
    """
    if demo:
        return _demo(config, mode or ModeName.act, listen, store, policies)
    loaded = load(config, mode=mode, listen=listen, store=store, policies=policies)
    from aiops import app, logs

    logs.configure(debugging())
    code = int(app.run(loaded.config, loaded.base))
    _leave_hanging_polls(code)
    return code


def _demo(config: Path | None, mode: ModeName, listen: str | None, store: Path | None, policies: Path | None) -> int:
    """What it watches is made up, so nothing may be said about it."""
    for flag, value, why in (("-c", config, "watches a simulated cluster and nothing else, so it takes no configuration file"),
                             ("--store", store, "remembers nothing after its end")):
        if value is not None:
            raise CommandError("--demo", f"{why}. Leave out {flag}, or --demo.")
    loaded = load(None, mode=mode, listen=listen, policies=policies)
    given = loaded.layers.given(("sources",)).name
    if given.startswith("AIOPS_"):
        raise CommandError("--demo", f"watches a simulated cluster and nothing else. Unset {given}, or leave out --demo.")
    from aiops import app

    return int(app.demo(loaded.config))


def _leave_hanging_polls(code: int) -> None:
    """Python waits at its end for the threads of pools; a poll that hangs in a time-out is not worth that. All is saved."""
    if threading.active_count() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def view(config: ConfigOption = None) -> None:
    """Print the configuration as it will be used, and where each value comes from."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.dump(annotated(load(config)), sys.stdout)


def load(path: Path | None, **flags: Any) -> Loaded:
    """The configuration of a command. Paths among the flags are relative to where the command was started."""
    from aiops.config import read

    def plain(value: Any) -> Any:
        return value.value if isinstance(value, Enum) else str(value.absolute()) if isinstance(value, Path) else value
    return read(path, os.environ, {name: plain(value) for name, value in flags.items()})


def annotated(loaded: Loaded) -> Any:
    """The configuration as YAML nodes, each value with a comment that says where it was given."""
    from ruamel.yaml.comments import CommentedMap, CommentedSeq

    from aiops.yamlfile import Place

    def node(value: Any, place: Place) -> Any:
        if isinstance(value, str):
            return re.sub(r"//[^/@\s]*@", "//***@", value)
        out: Any = CommentedMap() if isinstance(value, dict) else CommentedSeq()
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            below = (*place, key)
            leaf = not isinstance(inner, dict | list) or not inner
            if isinstance(out, CommentedMap):
                out[key] = inner if leaf and not isinstance(inner, str) else node(inner, below)
            else:
                out.append(inner if leaf and not isinstance(inner, str) else node(inner, below))
            if leaf:
                out.yaml_add_eol_comment(str(loaded.layers.given(below)), key, column=60)
        return out
    return node(loaded.config.model_dump(mode="json", by_alias=True, exclude_none=True), ())
