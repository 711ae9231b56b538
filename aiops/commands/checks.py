"""`aiops check`, `aiops policy test` and `aiops doctor`: find problems before they matter."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from aiops import humanise
from aiops.commands.common import GOOD, PROBLEMS, UNREACHABLE, ConfigOption, argument, clean, existing, note, print_table, say
from aiops.commands.daemon import load

PathsArgument = Annotated[list[Path] | None, argument("PATH", "Files and folders.")]


def check(paths: PathsArgument = None) -> int:
    """Find mistakes in configurations and policies.

    In packs, too: all problems at once, and notes on keys without effect.

    Without PATH: aiops.yaml and policies/, whichever is there.
    """
    from aiops.commands.lint import examine, yaml_files

    files = yaml_files(_given(paths))
    found = examine(files)
    for problem in found.problems:
        say(clean(problem))
    for remark in found.notes:
        say(f"note: {clean(remark)}")
    if found.problems:
        return PROBLEMS
    say(f"{humanise.count(len(files), 'file')}, no problems.")
    return GOOD


def policy_test(paths: PathsArgument = None) -> int:
    """Run the tests in policies and say which decisions changed.

    Without PATH: policies/.
    """
    chosen = [existing(p, "file or folder") for p in paths or [Path("policies")]]
    from aiops import meaning
    from aiops.policy import testing
    from aiops.policy.load import load as load_policies

    known = meaning.shipped()
    policies = load_policies(chosen, known)
    results = testing.run(policies, known)
    for result in results:
        say(clean(result))
    for policy in policies:
        if not policy.spec.tests:
            note(f"note: {policy.file}: {policy.name}: has no tests.")
    wrong = sum(not r.passed for r in results)
    say(f"{humanise.count(len(results), 'test')} of {humanise.count(len(policies), 'policy', 'policies')}, {wrong} failed.")
    return PROBLEMS if wrong else GOOD


def doctor(config: ConfigOption = None) -> int:
    """Say what can be reached, and which rights are missing."""
    from rich.table import Table
    from rich.text import Text

    from aiops.doctor import examine

    loaded = load(config)
    for remark in loaded.notes:
        note(f"note: {clean(remark)}")
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    style = {"ok": "green", "info": "dim", "problem": "yellow", "unreachable": "red"}
    states = set()
    for finding in examine(loaded.config, os.environ):
        states.add(finding.state)
        table.add_row(Text(finding.state, style[finding.state]), finding.what, clean(finding.text))
    print_table(table)
    return UNREACHABLE if "unreachable" in states else PROBLEMS if "problem" in states else GOOD


def _given(paths: list[Path] | None) -> list[Path]:
    if paths:
        return [existing(p, "file or folder") for p in paths]
    here = [p for p in (Path("aiops.yaml"), Path("policies")) if p.exists()]
    return here or [existing(Path("aiops.yaml"), "file")]
