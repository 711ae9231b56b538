"""What holds for all tests: the marker `real`, and that nobody's log lines get into another test's output.

`@pytest.mark.real("prometheus", "chromium")` needs these programs; without any, what it looks for.

Where a program is missing the test is skipped and the summary names it. With AIOPS_REQUIRE_REAL=1 (continuous
integration) a skip is a failure: nobody would notice that the tests against real programs had stopped running.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Iterator
from typing import Any

import hypothesis
import pytest
import structlog

MISSING = "not installed here: "
hypothesis.settings.register_profile("repeatable", derandomize=True)
hypothesis.settings.register_profile("exploring", derandomize=False, max_examples=2000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))
"""The same examples in every run: a run that fails, fails again. HYPOTHESIS_PROFILE=exploring looks for new ones."""


def nothing(*_: Any) -> Any:
    """A processor of structlog that lets no line pass."""
    raise structlog.DropEvent


@pytest.fixture(autouse=True)
def quiet_log() -> None:
    """Nobody hears the log, unless a test sets it up or asks for `logged`: a thread of an earlier test may still speak."""
    structlog.reset_defaults()
    structlog.configure(processors=[nothing])


@pytest.fixture
def logged(quiet_log: None) -> list[Any]:
    """The lines that are logged from here on: what happened under `event`, its fields, and the `exception`, as text."""
    kept = structlog.testing.LogCapture()
    structlog.configure(processors=[structlog.processors.format_exc_info, kept])
    return kept.entries


def required() -> bool:
    return os.environ.get("AIOPS_REQUIRE_REAL", "") not in ("", "0")


def pytest_runtest_setup(item: pytest.Item) -> None:
    programs = [name for mark in item.iter_markers("real") for name in mark.args]
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        pytest.skip(MISSING + ", ".join(missing))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and required() and item.get_closest_marker("real") and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"AIOPS_REQUIRE_REAL is set, so this may not be skipped: {reason}"
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    names = set(_missing(terminalreporter.stats.get("skipped", [])))
    if names:
        programs = ", ".join(sorted(names))
        terminalreporter.write_line(f"real programs {MISSING}{programs}. 'make test' as root on Debian installs them.")


def _missing(reports: list[Any]) -> Iterator[str]:
    for report in reports:
        text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if MISSING in text:
            yield from text.split(MISSING, 1)[1].split(", ")
