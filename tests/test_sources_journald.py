"""The systemd journal: a stand-in for journalctl that misbehaves, and the real one over a journal made here."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.collected import Collected
from helpers import pipeline
from hypothesis import given
from hypothesis import strategies as st

from aiops.clock import ManualClock
from aiops.feeds import Source
from aiops.intake import Intake
from aiops.live import Live
from aiops.loop import NoActuator
from aiops.sources.access import SourceError
from aiops.sources.journald import source as journald
from aiops.sources.journald.entries import levelled
from aiops.sources.journald.source import JournaldSource
from aiops.types import LogLine

NOW = 1_700_000_100.0
SOON_S = 60.0
REMOTE = "/lib/systemd/systemd-journal-remote"


def entry(i: int, message: Any = "x", **more: Any) -> dict[str, Any]:
    return {"__CURSOR": f"s=ab;i={i}", "__REALTIME_TIMESTAMP": str(1_700_000_000_000_000 + i * 1_000_000), "MESSAGE": message,
            "_HOSTNAME": "gpu-3", **more}


class Journal:
    """A journalctl that prints the lines of a file as they are written to it, from the cursor on that it is given."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.lines, self.program = folder, folder / "lines", folder / "journalctl"
        self.lines.touch()
        self.run(f"""
            import json, pathlib, sys, threading
            pathlib.Path({str(folder / "arguments")!r}).open("a").write(json.dumps(sys.argv[1:]) + "\\n")
            after = next((a.split("=", 1)[1] for a in sys.argv if a.startswith("--after-cursor=")), None)
            seen, pause = after is None, threading.Event()
            with open({str(self.lines)!r}, "rb") as f:
                while True:
                    line = f.readline()
                    if not line:
                        sys.stdout.buffer.flush()
                        pause.wait(0.005)
                    elif seen:
                        sys.stdout.buffer.write(line)
                    elif json.loads(line)["__CURSOR"] == after:
                        seen = True
            """)
        self.sources: list[JournaldSource] = []

    def run(self, code: str) -> None:
        """What the program does."""
        import textwrap
        self.program.write_text(f"#!{sys.executable}\n{textwrap.dedent(code)}")
        self.program.chmod(0o755)

    def write(self, *entries: Any) -> None:
        with self.lines.open("ab") as f:
            for e in entries:
                f.write((e if isinstance(e, bytes) else json.dumps(e).encode()) + b"\n")

    def source(self, **more: Any) -> JournaldSource:
        self.sources.append(JournaldSource(program=str(self.program), **more))
        return self.sources[-1]

    def arguments(self) -> list[list[str]]:
        return [json.loads(line) for line in (self.folder / "arguments").read_text().splitlines()]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path)
    yield made
    for source in made.sources:
        source.close()
        assert source._child is None


def polls(source: JournaldSource, got: Collected, holds: Callable[[], bool], room: float = math.inf) -> None:
    """Polls until it holds. The child is another process: it is not known when it writes, and how busy the machine is."""
    end = time.monotonic() + SOON_S
    while not holds():
        assert time.monotonic() < end, f"only {got.texts()} came"
        got.room = room
        source.poll(NOW, got)


def until(source: JournaldSource, count: int) -> list[LogLine]:
    """Polls until so many lines came."""
    got = Collected()
    polls(source, got, lambda: len(got.lines) >= count)
    return got.lines


def texts(source: JournaldSource, count: int) -> list[str]:
    return [line.text for line in until(source, count)]


def until_it_fails(source: JournaldSource) -> str:
    with pytest.raises(SourceError) as e:
        polls(source, Collected(), lambda: False)
    return str(e.value)


# ------------------------------------------------------------------------------------------------------ backpressure
def test_lines_that_are_not_taken_come_again(journal: Journal) -> None:
    """With the next poll, in their order, also over a restart: the cursor does not pass what was not taken."""
    journal.write(*(entry(i, f"{i}") for i in range(9)))
    got = Collected()
    source = journal.source(place=journal.folder / "place")
    polls(source, got, lambda: "full" in source.notes, room=2)
    taken = len(got.lines)
    assert 2 <= taken < 9
    source.close()
    again = journal.source(place=journal.folder / "place")
    polls(again, got, lambda: len(got.lines) >= 9, room=1)
    assert got.texts() == [f"{i}" for i in range(9)]
    polls(again, got, lambda: again.notes == {})


# --------------------------------------------------------------------------------------------------------------- lines
def test_lines_belong_to_the_unit_and_those_of_the_kernel_to_the_machine(journal: Journal) -> None:
    """With the time of the journal, and the level where the text does not say it. Kernel lines are not touched."""
    journal.write(entry(1, "NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.", _TRANSPORT="kernel", PRIORITY="3",
                        SYSLOG_IDENTIFIER="kernel"),
                  entry(2, "cannot pull image", _SYSTEMD_UNIT="kubelet.service", PRIORITY="3"),
                  entry(3, "E1114 error: no", SYSLOG_IDENTIFIER="cron", PRIORITY="3"), entry(4, "fine", PRIORITY="6"))
    assert [(line.time, line.entity, line.text) for line in until(journal.source(), 4)] == [
        (NOW - 99, "node//gpu-3", "NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus."),
        (NOW - 98, "process/gpu-3/kubelet.service", "ERROR cannot pull image"),
        (NOW - 97, "process/gpu-3/cron", "E1114 error: no"), (NOW - 96, "node//gpu-3", "fine")]


def test_the_name_of_the_machine_may_be_given(journal: Journal) -> None:
    """In a pod it is that of the node."""
    journal.write(entry(1, _TRANSPORT="kernel"), entry(2, _SYSTEMD_UNIT="a"))
    assert [line.entity for line in until(journal.source(node="n1"), 2)] == ["node//n1", "process/n1/a"]


@pytest.mark.parametrize(("message", "shown", "rejected"), [
    (list(b"caf\xc3\xa9"), "café", {}), (list(b"a\xffb\x00c"), "a�bc", {"undecodable": 1}), (["one", "two"], "one", {}),
    ([list(b"one"), "two"], "one", {}), ("x" * 50_000, "x" * 16384, {"too_long": 1}),
])
def test_what_a_message_may_be(journal: Journal, message: Any, shown: str, rejected: dict[str, int]) -> None:
    """Bytes, several values, something long."""
    journal.write(entry(1, message))
    source = journal.source()
    assert texts(source, 1) == [shown]
    assert +source.rejected == rejected


@pytest.mark.parametrize("bad", [None, [], [999], [None], {"a": 1}, "", " ", 3, True])
def test_a_message_that_says_nothing_is_counted(journal: Journal, bad: Any) -> None:
    """And the next one comes."""
    journal.write(entry(1, bad), entry(2, "good"))
    source = journal.source()
    assert texts(source, 1) == ["good"]
    assert +source.rejected == {"empty": 1}


@pytest.mark.parametrize("line", [b"{", b"no json", b"[1]", b'{"__REALTIME_TIMESTAMP": 3}', b'{"MESSAGE": "no time"}',
                                  b"[" * 90_000, b"\xff\xfe"])
def test_a_line_that_is_no_entry_is_counted(journal: Journal, line: bytes) -> None:
    """And the next one comes."""
    journal.write(line, entry(2, "good"))
    source = journal.source()
    assert texts(source, 1) == ["good"]
    assert +source.rejected == {"malformed": 1}


def test_an_endless_entry_needs_no_memory(journal: Journal) -> None:
    """Five MiB are left out and counted once."""
    journal.write(b"x" * (5 << 20), entry(2, "good"))
    source = journal.source()
    assert texts(source, 1) == ["good"]
    assert source.rejected["too_long"] == 1
    assert len(source._rest) <= journald.MAX_ENTRY


def test_more_lines_than_a_poll_takes_wait_in_the_pipe(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is lost: journalctl waits."""
    monkeypatch.setattr(journald, "MAX_LINES", 2000)
    journal.write(*(entry(i, f"{i} " + "y" * 300) for i in range(20_000)))
    source = journal.source()
    first = Collected()
    until(source, 1)
    source.poll(NOW, first)
    assert 0 < len(first.lines) < 10_000
    rest = until(source, 20_000 - len(first.lines) - 10_000)
    assert int(rest[0].text.split()[0]) == int(first.lines[-1].text.split()[0]) + 1


@given(st.one_of(st.none(), st.text(max_size=3), st.integers(), st.lists(st.integers(), max_size=3)), st.text(max_size=20))
def test_any_priority_and_any_text_have_a_level(priority: Any, text: str) -> None:
    """The text is always the end of it."""
    assert levelled(priority, text).endswith(text)


# ----------------------------------------------------------------------------------------------------------- the child
def test_what_is_asked_for(journal: Journal, tmp_path: Path) -> None:
    """Units, or the kernel; from now on at the first start; never through a shell."""
    journal.write(entry(1))
    source = journal.source(units=["kubelet.service", "a;rm -rf"], priority="warning", directory=tmp_path)
    until(source, 1)
    [asked] = journal.arguments()
    assert asked[-5:] == [f"--directory={tmp_path}", "_SYSTEMD_UNIT=kubelet.service", "_SYSTEMD_UNIT=a;rm -rf", "+",
                          "_TRANSPORT=kernel"]
    assert {"--since=@1700000100", "--priority=warning", "--output=json", "--follow"} <= set(asked)


def test_a_child_that_ends_is_told_and_started_again_behind_the_last_line(journal: Journal) -> None:
    """No line is lost or comes twice."""
    journal.write(entry(1, "one"))
    source = journal.source()
    assert texts(source, 1) == ["one"]
    assert source._child is not None
    source._child.kill()
    assert "ended with -9: it said nothing. Check units and directory" in until_it_fails(source)
    journal.write(entry(2, "two"))
    assert texts(source, 1) == ["two"]
    assert journal.arguments()[1][-1] == "--after-cursor=s=ab;i=1"


def test_what_the_child_printed_before_its_end_is_read(journal: Journal) -> None:
    """And then its words are told, in one line."""
    journal.run(f"import sys; print('''{json.dumps(entry(1, 'last'))}'''); sys.exit('No journal files\\nwere opened')")
    source, got = journal.source(), Collected()
    with pytest.raises(SourceError, match=r"ended with 1: No journal files were opened\. Check units"):
        for _ in range(200):
            source.poll(NOW, got)
    assert got.texts() == ["last"]


def test_a_place_that_is_not_understood_is_given_up(journal: Journal, tmp_path: Path) -> None:
    """The journal was deleted: told, and read on from the time of the first start."""
    (tmp_path / "place").write_text(json.dumps({"cursor": "s=gone", "since": 1_700_000_000.0}))
    journal.run("import sys; sys.exit('Failed to seek to cursor: Invalid argument')")
    source = journal.source(place=tmp_path / "place")
    assert "Failed to seek to cursor" in until_it_fails(source)
    assert source._command()[-1] == "--since=@1700000000"
    assert "not understood" in source.notes["cursor"]


def test_without_journalctl_the_remedy_is_told(tmp_path: Path) -> None:
    """A container without systemd."""
    source = JournaldSource(program=str(tmp_path / "journalctl"))
    with pytest.raises(SourceError, match=r"cannot be started: no such file or directory\. Install systemd's journalctl"):
        source.poll(NOW, Collected())


def test_a_child_that_will_not_end_is_killed(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its process id, and waited for."""
    monkeypatch.setattr(journald, "END_S", 0.1)
    said = json.dumps(entry(1))
    journal.run(f"import signal; signal.signal(15, signal.SIG_IGN); print('''{said}''', flush=True); signal.pause()")
    source = journal.source()
    until(source, 1)
    child = source._child
    assert child is not None
    source.close()
    assert child.returncode == -9
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)


# ------------------------------------------------------------------------------------------------------------ restarts
def test_a_restart_goes_on_behind_the_last_line(journal: Journal, tmp_path: Path) -> None:
    """An ordered one repeats nothing; after a kill the lines of the last poll come again, and none is lost."""
    place = tmp_path / "place"
    source = journal.source(place=place)
    for i in (1, 2):
        journal.write(entry(i, f"{i}"))
        assert texts(source, 1) == [f"{i}"]
    journal.write(entry(3, "3"))
    assert texts(journal.source(place=place), 2) == ["2", "3"], "killed"
    source.close()
    assert texts(journal.source(place=place), 1) == ["3"]


@pytest.mark.parametrize("saved", ["{", "[]", '{"cursor": "--output=export"}', '{"cursor": "s=a b", "since": "x"}',
                                   '{"since": 1e99}'])
def test_a_place_that_somebody_wrote_is_not_trusted(journal: Journal, tmp_path: Path, saved: str) -> None:
    """It never becomes an argument that it should not be."""
    (tmp_path / "place").write_text(saved)
    journal.write(entry(1))
    until(journal.source(place=tmp_path / "place"), 1)
    assert journal.arguments()[0][-1] == "--since=@1700000100"


# ------------------------------------------------------------------------------------------------- the real journalctl
def export(i: int, message: bytes, **more: str) -> bytes:
    """In the Journal Export Format, the message as binary."""
    fields = {"__REALTIME_TIMESTAMP": f"{1_700_000_000_000_000 + i * 1_000_000}", "__MONOTONIC_TIMESTAMP": f"{i + 1}",
              "_BOOT_ID": "6c7c6013a26343b29e964691ff25d04c", "_HOSTNAME": "gpu-3", **more}
    text = "".join(f"{k}={v}\n" for k, v in fields.items()).encode()
    return text + b"MESSAGE\n" + len(message).to_bytes(8, "little") + message + b"\n\n"


@pytest.fixture
def real(tmp_path: Path) -> Callable[[bytes], Path]:
    folder = tmp_path / "journal"
    folder.mkdir()

    def append(content: bytes) -> Path:
        (tmp_path / "export").write_bytes(content)
        subprocess.run([REMOTE, f"--output={folder / 'test.journal'}", str(tmp_path / "export")], check=True, capture_output=True)
        return folder
    return append


@pytest.mark.real("journalctl", REMOTE)
def test_the_real_journalctl_is_followed_over_a_restart(real: Callable[[bytes], Path], tmp_path: Path) -> None:
    """Kernel and units, long and binary messages, what is appended while it follows; filters; and on behind the cursor."""
    folder = real(export(1, b"NVRM: Xid (PCI:0000:3b:00): 79", _TRANSPORT="kernel", PRIORITY="3")
                  + export(2, b"up", _SYSTEMD_UNIT="kubelet.service", PRIORITY="6")
                  + export(3, b"x" * 10_000, _SYSTEMD_UNIT="cron.service", PRIORITY="4")
                  + export(4, b"bin\xff\nary", _SYSTEMD_UNIT="kubelet.service", PRIORITY="3"))
    place = tmp_path / "place"
    place.write_text(json.dumps({"cursor": "", "since": 1_700_000_000}))
    source = JournaldSource(directory=folder, place=place)
    try:
        assert [(line.entity, line.text) for line in until(source, 4)] == [
            ("node//gpu-3", "NVRM: Xid (PCI:0000:3b:00): 79"), ("process/gpu-3/kubelet.service", "up"),
            ("process/gpu-3/cron.service", "WARN " + "x" * 10_000), ("process/gpu-3/kubelet.service", "ERROR bin�\nary")]
        real(export(5, b"appended", _SYSTEMD_UNIT="kubelet.service", PRIORITY="6"))
        assert texts(source, 1) == ["appended"]
    finally:
        source.close()
    real(export(6, b"while down", _SYSTEMD_UNIT="kubelet.service", PRIORITY="3") + export(7, b"other", PRIORITY="3")
         + export(8, b"oom", _TRANSPORT="kernel", PRIORITY="6"))
    after = JournaldSource(directory=folder, place=place, units=["kubelet.service"])
    try:
        assert texts(after, 2) == ["ERROR while down", "oom"]
    finally:
        after.close()


@pytest.mark.real("journalctl")
def test_the_real_journalctl_tells_what_is_wrong(tmp_path: Path) -> None:
    """A folder that is not there, and one without a journal."""
    source = JournaldSource(directory=tmp_path / "nowhere")
    assert "No such file or directory" in until_it_fails(source)
    assert "ended with 1" in until_it_fails(JournaldSource(directory=tmp_path))
    assert shutil.which("journalctl")


# --------------------------------------------------------------------------------------------------------- end to end
def test_errors_in_the_journal_open_an_incident(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the child's pipe through the intake and the pipeline."""
    monkeypatch.setattr(journald, "QUIET_MS", 5)
    clock, written = ManualClock(NOW), 0
    live = Live(pipeline(), [Source(journal.source(), clock)], Intake(10.0), NoActuator(), [], clock, 10.0, lambda batch: None)
    for k in range(52):
        clock.sleep_until(NOW + 10.0 * k)
        new = [entry(100 + 10 * k, "fine", _SYSTEMD_UNIT="a.service", PRIORITY="6")]
        new += [entry(100 + 10 * k, "no space", _SYSTEMD_UNIT="a.service", PRIORITY="3") for _ in range(40 if k > 40 else 0)]
        journal.write(*new)
        written += len(new)
        for _ in range(200):
            live.sources[0].poll(live.intake)
            if len(live.intake._lines) >= len(new):
                break
        live.tick()
    assert live.last is not None
    assert live.last.counts.log_lines == written
    assert [i.entities for i in live.pipeline.book.open()] == [("process/gpu-3/a.service",)]
