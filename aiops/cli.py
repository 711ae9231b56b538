"""The command line. Each command is a function in `aiops.commands`; this file names them and turns errors into lines.

Exit codes: 0 good, 1 found problems, 2 usage or unreadable input, 3 a needed system cannot be reached.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from typer.exceptions import Abort, TyperException

from aiops.commands import audit as records
from aiops.commands import capsules, checks, costs, daemon, incidents, learned, logs, models, recordings, stopping, tune, watching
from aiops.commands.common import UNREACHABLE, USAGE, CommandError, note, say

INTERRUPTED, BROKEN_PIPE, BUG = 130, 141, 70
OURS = (  # errors that are already written for people; looked up by name, because a module that is not loaded raised nothing
    ("aiops.sources.recording.folder", "RecordingError", USAGE),
    ("aiops.sources.access", "SourceError", UNREACHABLE),
    ("aiops.sinks.journal", "JournalError", USAGE),
    ("aiops.store.database", "StoreError", USAGE),
    ("aiops.store.capsules", "CapsuleError", USAGE),
    ("aiops.chain", "ChainError", USAGE),
    ("aiops.plugins", "UnknownPlugin", USAGE),
    ("aiops.build", "ConfigurationError", USAGE),
    ("aiops.score", "ScoreError", USAGE),
    ("aiops.policy.conditions", "ConditionError", USAGE),
    ("aiops.sources.recording.record", "NoSamplesError", USAGE),
    ("aiops.web.server", "ListenError", USAGE),
    ("aiops.sources.kubernetes.api", "KubeError", UNREACHABLE),
)

app = typer.Typer(
    name="aiops", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Finds what is wrong in a cluster, says why, and heals what a policy allows it to heal.",
)


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks. May stand anywhere.")] = False,
) -> None:
    """`main` has already taken --debug out; it stands here for --help."""


def version() -> None:
    """Print the version."""
    from aiops import __version__

    say(f"aiops {__version__}")


COMMANDS: tuple[Callable[..., Any], ...] = (
    daemon.run, recordings.replay, recordings.record, recordings.score, tune.tune, checks.check, incidents.incidents,
    incidents.show, incidents.approve, incidents.reject, incidents.feedback, stopping.stop, stopping.start,
    watching.readiness, watching.topology, costs.costs,
    checks.doctor, version)
for command in COMMANDS:
    app.command()(command)

policy = typer.Typer(no_args_is_help=True, help="Work on policies.")
policy.command("test")(checks.policy_test)
app.add_typer(policy, name="policy")

maintenance = typer.Typer(no_args_is_help=True, help="Say where people work on purpose.")
maintenance.command("start")(watching.start)
maintenance.command("list")(watching.windows)
maintenance.command("end")(watching.end)
app.add_typer(maintenance, name="maintenance")

capsule = typer.Typer(no_args_is_help=True, help="Work on what incidents kept of the telemetry around them.")
capsule.command("list")(capsules.capsules)
capsule.command("export")(capsules.export)
app.add_typer(capsule, name="capsule")

audit = typer.Typer(no_args_is_help=True, help="Work on the record of every decision.")
audit.command("verify")(records.verify)
audit.command("list")(records.entries)
app.add_typer(audit, name="audit")

config = typer.Typer(no_args_is_help=True, help="Work on the configuration.")
config.command("view")(daemon.view)
app.add_typer(config, name="config")

model = typer.Typer(no_args_is_help=True, help="Work on what detectors have learned.")
model.command("list")(models.models)
model.command("promote")(models.promote)
model.command("rollback")(models.rollback)
app.add_typer(model, name="model")

learning = typer.Typer(no_args_is_help=True, help="Work on what was learned: by detectors, from outcomes, from people.")
learning.command("show")(learned.show)
learning.command("export")(learned.export)
learning.command("reset")(learned.reset)
app.add_typer(learning, name="learned")

log = typer.Typer(no_args_is_help=True, help="Work on log lines.")
log.command("templates")(logs.templates)
app.add_typer(log, name="logs")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code. Never shows a traceback without --debug."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments or os.environ.get("AIOPS_DEBUG", "") not in ("", "0")
    try:
        code = _run([a for a in arguments if a != "--debug"])
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the flush at exit says nothing
        return BROKEN_PIPE
    except (KeyboardInterrupt, Abort):
        return INTERRUPTED
    except SystemExit as e:  # what typer makes of a closed pipe, with exit code 1
        if not isinstance(e.__context__, BrokenPipeError):
            raise
        return BROKEN_PIPE
    except Exception as e:  # the last stop: every error becomes a line
        if debug:
            raise
        text, code = explain(e)
        note(text)
        return code


def _run(arguments: list[str]) -> int:
    result = typer.main.get_command(app).main(arguments, prog_name="aiops", standalone_mode=False)
    return result if isinstance(result, int) else 0


def explain(error: Exception) -> tuple[str, int]:
    """What to print for an error, and the exit code."""
    from aiops.yamlfile import Problems

    if isinstance(error, Problems):
        return "\n".join(f"error: {p}" for p in error.problems), USAGE
    if isinstance(error, CommandError):
        return f"error: {error}", error.exit_code
    if isinstance(error, TyperException):
        return _usage(error), error.exit_code
    for module, name, code in OURS:
        if module in sys.modules and isinstance(error, getattr(sys.modules[module], name)):
            return f"error: {error}", code
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        return f"error: {place}{error.strerror.lower()}.", USAGE
    what = f"{type(error).__name__}: {error}".rstrip(": ")
    return f"error: aiops: {what}. This is a bug; run it again with --debug and report what it says.", BUG


def _usage(error: TyperException) -> str:
    """`error: aiops replay: no such option: --sped. See 'aiops replay --help'.`"""
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "aiops"
    text = error.format_message().strip().replace("Value error, ", "")
    if text.startswith("Usage:"):  # a command group by itself: its help is the answer
        return text
    return f"error: {path}: {text[:1].lower()}{text[1:].rstrip('.')}. See '{path} --help'."


if __name__ == "__main__":
    sys.exit(main())
