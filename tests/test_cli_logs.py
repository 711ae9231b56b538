"""`aiops logs templates`: a filter, fed as people feed filters. Each test runs the real program."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aiops.commands import logs

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-m", "aiops.cli", "logs", "templates"]


def answered(data: bytes, *arguments: str) -> list[str]:
    done = subprocess.run([*COMMAND, *arguments], input=data, capture_output=True, timeout=60, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    out = done.stdout.decode()
    assert not out or out.endswith("\n")
    return out.splitlines()


def started(**more: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, **more)


def test_one_line_out_for_each_line_in() -> None:
    """In order, with the final template of each kind; the last line needs no end."""
    rows = answered(b"user ann in\nuser bob in\ndisk 3 full\nuser eve in", "--json")
    told = [json.loads(row) for row in rows]
    assert [t["template"] for t in told] == ["user <*> in", "user <*> in", "disk <*> full", "user <*> in"]
    assert told[0] == told[1] == told[3] and set(told[0]) == {"template_id", "template"}
    assert answered(b"disk 3 full") == [f"{told[2]['template_id']}  disk <*> full"]


@pytest.mark.slow
def test_whatever_comes_is_answered() -> None:
    """Nothing, empty lines, Windows ends, no UTF-8, control characters, ten megabytes without an end."""
    assert answered(b"") == []
    assert len(answered(b"\n\n\n")) == 3
    rows = answered(b"a 1\r\n\xff\xfe b\n\x1b[2J\x00 c\n" + b"y" * 10_000_000 + b"\nlast " + b"z" * 1_000_000)
    assert len(rows) == 5
    assert rows[0].endswith("  a <*>") and "\x1b" not in rows[2] and all(len(row) < 2000 for row in rows)


def test_json_lines_are_told_by_what_they_say() -> None:
    """With their level; whatever else is in them. One that is broken is a line like any other."""
    rows = answered(b'{"level":"error","msg":"disk 3 full","at":1}\n{"msg":"disk 4 full","level":"error"}\n{"msg":"disk 5\n')
    assert rows[0] == rows[1] and rows[0].endswith("  ERROR disk <*> full") and rows[2].endswith('  {"msg":"disk <*>')


def test_all_lines_of_a_trace_have_its_template() -> None:
    """So that counting them counts traces."""
    rows = answered(b'INFO ok\nTraceback (most recent call last):\n  File "a.py", line 3\nValueError: bad 7\nINFO ok\n')
    assert rows[0] == rows[4] and len(set(rows[1:4])) == 1
    assert rows[1].endswith("  Traceback (most recent call last): ValueError: bad <*>")


def test_a_slow_writer_is_answered_line_by_line() -> None:
    """Before the end of the input."""
    with started() as filter:
        for k in range(2):
            filter.stdin.write(b"took %d ms\n" % k)
            filter.stdin.flush()
            assert filter.stdout.readline().endswith(b"  took <*> ms\n")
        filter.stdin.close()
        assert (filter.wait(20), filter.stderr.read()) == (0, b"")


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    """`aiops logs templates | head -1`."""
    done = subprocess.run(f"yes {'x1' * 99} | {' '.join(COMMAND)} | head -1; echo ${{PIPESTATUS[1]}}", shell=True, cwd=ROOT,
                          executable="/bin/bash", capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    assert done.stdout.splitlines()[1:] == ["141"]


@pytest.fixture
def interruptible() -> Iterator[None]:
    """What a shell runs in its background ignores Ctrl-C, and hands that down: to the tests, and from them to the program."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_is_no_traceback() -> None:
    """Ctrl-C while it waits."""
    with started() as filter:
        filter.stdin.write(b"ready\n")
        filter.stdin.flush()
        assert filter.stdout.readline()
        filter.send_signal(signal.SIGINT)
        assert (filter.wait(20), filter.stderr.read()) == (130, b"")


@pytest.mark.parametrize("pieces", [[b"a\nb", b"c\n", b"d"], [b"a\n", b"bc\n", b"d"], [b"a\nbc\nd"]])
def test_how_the_input_is_cut_does_not_matter(pieces: list[bytes]) -> None:
    """Lines are lines, wherever a read ends."""
    ours, theirs = os.pipe()
    os.close(theirs)
    left = [*pieces, b""]
    try:
        found = [line for block in logs.blocks(ours, lambda fd, size: left.pop(0)) for line in block]
    finally:
        os.close(ours)
    assert found == ["a", "bc", "d"]


def test_a_steady_trickle_is_answered_in_time() -> None:
    """Who writes a little all the time does not wait for the block to be full."""
    ours, theirs = os.pipe()
    os.write(theirs, b"x")  # there is always more
    try:
        block = next(logs.blocks(ours, lambda fd, size: b"line\n"))
        assert len(block) == logs.PATIENCE
    finally:
        os.close(ours)
        os.close(theirs)
