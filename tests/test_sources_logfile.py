"""Following log files: nothing twice, nothing lost, memory bounded."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from fakes.collected import Collected
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aiops.sources.logs import lines as loglines
from aiops.sources.logs import source as logfile
from aiops.sources.logs import tail
from aiops.sources.logs.source import LogFileSource, plain

NOW = 1_700_000_000.0


def texts(source: LogFileSource, room: float = math.inf) -> list[str]:
    got = Collected(room=room)
    source.poll(NOW, got)
    return got.texts()


def write(path: Path, text: str | bytes) -> None:
    with path.open("ab") as f:
        f.write(text.encode() if isinstance(text, str) else text)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "api.log"
    write(path, "old\n")
    return path


def test_only_what_is_written_from_now_on_is_read(log: Path) -> None:
    """As `tail -F`: a file of last week is not news."""
    source = LogFileSource([str(log)])
    assert texts(source) == []
    write(log, "one\ntwo\n")
    assert texts(source) == ["one", "two"]
    assert texts(source) == []


def test_a_line_is_handed_over_only_when_it_is_whole(log: Path) -> None:
    """A half-written line waits for its end, also over several polls."""
    source = LogFileSource([str(log)])
    texts(source)
    for part in ("half ", "a ", "line"):
        write(log, part)
        assert texts(source) == []
    write(log, "\nnext\n")
    assert texts(source) == ["half a line", "next"]


def test_rotation_by_rename_loses_nothing(log: Path) -> None:
    """What was written to the old file after the last poll comes first, its unfinished line included."""
    source = LogFileSource([str(log)])
    texts(source)
    write(log, "before\nlast words")
    log.rename(log.with_suffix(".log.1"))
    write(log, "after\n")
    assert texts(source) == ["before", "last words", "after"]
    write(log, "more\n")
    assert texts(source) == ["more"]


def test_truncation_in_place_starts_from_the_beginning(log: Path) -> None:
    """logrotate's copytruncate."""
    write(log, "long long long long\n")
    source = LogFileSource([str(log)])
    texts(source)
    os.truncate(log, 0)
    write(log, "new\n")
    assert texts(source) == ["new"]


def test_a_file_that_appears_later_is_read_whole(tmp_path: Path) -> None:
    """A new pod's first lines are often the interesting ones."""
    source = LogFileSource([str(tmp_path / "*.log")])
    assert texts(source) == []
    assert "no file matches" in source.notes["none"]
    write(tmp_path / "b.log", "first\n")
    assert texts(source) == ["first"]
    assert source.notes == {}


def test_a_file_that_goes_away_and_comes_back_is_read_again(log: Path) -> None:
    """Deleted, polled, and made anew."""
    source = LogFileSource([str(log)])
    texts(source)
    log.unlink()
    assert texts(source) == []
    assert texts(source) == []
    write(log, "again\n")
    assert texts(source) == ["again"]


def test_a_restart_goes_on_where_it_stopped(log: Path) -> None:
    """Whole lines are not repeated; the unfinished one is read again from its beginning."""
    source = LogFileSource([str(log)])
    texts(source)
    write(log, "one\nhal")
    assert texts(source) == ["one"]
    state = json.loads(json.dumps(source.state()))
    source.close()
    write(log, "f\ntwo\n")
    after = LogFileSource([str(log)])
    after.restore(state)
    assert texts(after) == ["half", "two"]


def test_a_state_of_another_file_is_not_trusted(log: Path) -> None:
    """Rotated while the daemon was down: the new file is read from its beginning; nonsense is ignored."""
    source = LogFileSource([str(log)])
    state = source.state() | {"files": [{"device": 1, "inode": 12345, "offset": 2}]}
    source.restore(state)
    assert texts(source) == ["old"]
    assert source.rejected == {"rotated_away": 1}


@pytest.mark.parametrize("state", [{}, {"patterns": 1}, {"patterns": [], "files": [1]}, {"patterns": [], "files": None}, [], 3])
def test_a_state_that_is_none_is_told_and_files_are_followed_from_their_end(log: Path, state: Any) -> None:
    """A file of offsets that somebody edited."""
    source = LogFileSource([str(log)])
    source.restore(state)
    assert texts(source) == []
    assert "not understood" in source.notes["begin"]


def test_bytes_that_are_no_text_are_repaired_and_counted(log: Path) -> None:
    """A broken encoding must not stop the log."""
    source = LogFileSource([str(log)])
    texts(source)
    write(log, b"caf\xe9 \xff\nno\x00t ok\r\n")
    assert texts(source) == ["caf� �", "not ok"]
    assert source.rejected == {"undecodable": 1, "nul": 1}


def test_an_endless_line_is_cut_and_needs_no_memory(log: Path) -> None:
    """Ten megabytes without a line break give one cut line; the line after it is whole."""
    source = LogFileSource([str(log)])
    texts(source)
    for _ in range(10):
        write(log, b"x" * 1_000_000)
        for line in texts(source):
            assert len(line) == logfile.MAX_LINE_BYTES
        assert all(len(t.rest) <= logfile.MAX_LINE_BYTES for t in source._tails.values())
    write(log, "tail\nwhole\n")
    assert texts(source) == ["whole"]
    assert source.rejected == {"too_long": 1}


def test_a_flood_is_spread_over_polls_and_does_not_starve_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most MAX_LINES a poll, in order, none lost; the quiet file has its turn."""
    monkeypatch.setattr(logfile, "MAX_LINES", 100)
    source = LogFileSource([str(tmp_path / "*.log")])
    texts(source)
    write(tmp_path / "a.log", "".join(f"{i}\n" for i in range(1000)))
    write(tmp_path / "z.log", "quiet\n")
    first, second = texts(source), texts(source)
    assert len(first) == 100
    assert second[0] == "quiet"
    rest = [line for _ in range(10) for line in texts(source)]
    assert [*first, *second[1:], *rest] == [str(i) for i in range(1000)]


def test_a_file_that_may_not_be_read_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    """A dangling link stands in for missing rights, which root would not notice."""
    (tmp_path / "gone.log").symlink_to(tmp_path / "nowhere")
    (tmp_path / "dir.log").mkdir()
    write(tmp_path / "good.log", "x\n")
    source = LogFileSource([str(tmp_path / "*.log")], from_start=True)
    assert texts(source) == ["x"]


@pytest.mark.parametrize(("path", "entity", "expected"), [
    ("containers/api-7d4_shop_app-" + "0a" * 32 + ".log", "", "pod/shop/api-7d4"),
    ("gateway.log", "", "service//gateway"),
    ("shop/gateway.log", "service/{parent}/{stem}", "service/shop/gateway"),
    ("x.log", "node//here", "node//here"),
])
def test_lines_belong_to_what_the_path_says(tmp_path: Path, path: str, entity: str, expected: str) -> None:
    """Kubelet names, a template, or one fixed entity."""
    file = tmp_path / path
    file.parent.mkdir(exist_ok=True)
    write(file, "x\n")
    got = Collected()
    LogFileSource([str(tmp_path / "**" / "*.log")], entity=entity, from_start=True).poll(NOW, got)
    assert [(line.entity, line.time) for line in got.lines] == [(expected, NOW)]


@pytest.mark.parametrize(("raw", "shown"), [
    ('{"level":"error","msg":"boom","caller":"x.go:1"}', "ERROR boom"),
    ('{"severity":"WARN","message":"slow","error":"timeout"}', "WARN slow timeout"),
    ('{"log":"plain\\n","stream":"stderr"}', "plain"),
    ('2024-05-01T00:00:00.000000000Z stderr F OutOfMemoryError: heap', "OutOfMemoryError: heap"),
    ('2024-05-01T00:00:00Z stdout F {"msg":"x","level":30}', "x"),
    ("{not json}", "{not json}"), ('{"a":1}', '{"a":1}'), ("[1]", "[1]"),
    ('{"msg":' + "[" * 5000 + "}", '{"msg":' + "[" * 5000 + "}"),
])
def test_structured_lines_become_plain_text(raw: str, shown: str) -> None:
    """Level and message of JSON lines, the container runtime's frame taken off; anything else as it is."""
    assert plain(raw) == shown


# ------------------------------------------------------------------------------------------------ rotation, many files
def test_a_file_that_is_rotated_to_a_name_that_matches_too_is_not_read_again(tmp_path: Path) -> None:
    """It is the same file under another name; its lines keep their entity."""
    log = tmp_path / "api.log"
    write(log, "old\n")
    source = LogFileSource([str(tmp_path / "api.log*")])
    assert texts(source) == []
    write(log, "before\n")
    log.rename(tmp_path / "api.log.1")
    write(log, "after\n")
    got = Collected()
    source.poll(NOW, got)
    assert sorted((line.entity, line.text) for line in got.lines) == [("service//api", "after"), ("service//api", "before")]


def test_what_is_written_to_a_renamed_file_before_the_program_reopens_its_log_is_read(log: Path) -> None:
    """A moment passes between the rename and the signal; after some quiet polls the old file is let go."""
    source = LogFileSource([str(log)])
    texts(source)
    old = log.open("ab")
    log.rename(log.with_suffix(".log.1"))
    write(log, "new\n")
    assert texts(source) == ["new"]
    old.write(b"late\n")
    old.close()
    assert texts(source) == ["late"]
    for _ in range(4):
        texts(source)
    assert len(source._tails) == 1


def test_a_file_that_was_emptied_and_filled_again_between_two_polls_is_noticed(log: Path) -> None:
    """Its size alone does not tell: the first bytes do."""
    source = LogFileSource([str(log)])
    texts(source)
    os.truncate(log, 0)
    write(log, "completely new, and longer than before\n")
    assert texts(source) == ["completely new, and longer than before"]


def test_the_hole_that_a_truncation_leaves_is_no_line(log: Path) -> None:
    """A program that does not append goes on writing at its old place: NULs come before it."""
    source = LogFileSource([str(log)])
    texts(source)
    with log.open("r+b") as f:
        f.seek(0, os.SEEK_END)
        f.write(b"x" * 100_000 + b"\n")
        f.flush()
        texts(source)
        os.truncate(log, 0)
        f.write(b"after the hole\n")
    assert texts(source) == ["after the hole"]
    assert source.rejected["too_long"] == 1


@pytest.mark.parametrize(("name", "content"), [("a.log.gz", b"text\n"), ("a.log.1", b"\x1f\x8b\x08\x00rest\n")])
def test_compressed_files_are_left_alone(tmp_path: Path, name: str, content: bytes) -> None:
    """By their name, or by their first bytes."""
    write(tmp_path / name, content)
    assert texts(LogFileSource([str(tmp_path / "*")], from_start=True)) == []


def test_many_files_need_few_handles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All are followed, the first ones stay open; one that was renamed while it was closed is found again."""
    monkeypatch.setattr(logfile, "MAX_OPEN", 5)
    source = LogFileSource([str(tmp_path / "*.log")])
    texts(source)
    for i in range(40):
        write(tmp_path / f"{i:02}.log", f"first {i}\n")
    assert texts(source) == [f"first {i}" for i in range(40)]
    assert sum(t.fd >= 0 for t in source._tails.values()) == 5
    write(tmp_path / "39.log", "last words\n")
    (tmp_path / "39.log").rename(tmp_path / "39.log.1")
    assert texts(source) == ["last words"]
    source.close()
    assert not any(t.fd >= 0 for t in source._tails.values())


def test_lines_belong_to_the_pod_that_the_path_names(tmp_path: Path) -> None:
    """/var/log/pods/NAMESPACE_POD_UID/CONTAINER/N.log; a link to it is the same file."""
    folder = tmp_path / "pods" / "shop_api-7d4_0a1b2c3d" / "app"
    folder.mkdir(parents=True)
    write(folder / "0.log", "2023-11-14T22:13:10.5Z stdout F hello\n")
    (tmp_path / "x.log").symlink_to(folder / "0.log")
    got = Collected()
    LogFileSource([str(tmp_path / "pods" / "*" / "*" / "*.log"), str(tmp_path / "*.log")], from_start=True).poll(NOW, got)
    assert [(line.entity, line.text, line.time) for line in got.lines] == [("pod/shop/api-7d4", "hello", NOW - 9.5)]


# ------------------------------------------------------------------------------------------------------------ restarts
def started(log: Path, place: Path, **more: Any) -> LogFileSource:
    return LogFileSource([str(log.parent / "*.log")], place=place, **more)


def test_an_ordered_end_loses_nothing_and_repeats_nothing(log: Path, tmp_path: Path) -> None:
    """Half a line, half a line of a container, an open trace: all is whole after the restart."""
    place = tmp_path / "offsets.json"
    source = started(log, place, multiline=True)
    texts(source)
    write(log, "one\n2023-11-14T22:13:10Z stdout P begin\nValueError: x\nTraceback (most recent call last):\n  File 1\nhal")
    assert texts(source) == ["one"]
    source.close()
    write(log, "f\n2023-11-14T22:13:10Z stdout F ning\n")
    after = started(log, place, multiline=True)
    assert [*texts(after), *texts(after)] == ["ValueError: x\nTraceback (most recent call last):\n  File 1\nhalf", "beginning"]


def test_after_a_kill_the_lines_of_the_last_poll_come_again_and_none_is_lost(log: Path, tmp_path: Path) -> None:
    """What was written down is how far the poll before the last one came; `close` was never called."""
    place = tmp_path / "offsets.json"
    source = started(log, place)
    texts(source)
    for text in ("one\n", "two\n", "three\n"):
        write(log, text)
        assert texts(source) == [text.strip()]
    write(log, "four\n")
    assert texts(started(log, place)) == ["three", "four"]


def test_a_kill_right_after_the_first_poll_loses_nothing(log: Path, tmp_path: Path) -> None:
    """Where the files were found is written down before they are read."""
    texts(started(log, tmp_path / "offsets.json"))
    write(log, "while down\n")
    write(log.parent / "new.log", "new file\n")
    assert texts(started(log, tmp_path / "offsets.json")) == ["while down", "new file"]


def test_a_rotation_while_the_daemon_is_down_loses_nothing(log: Path, tmp_path: Path) -> None:
    """The file is found under its new name, which matches no pattern, and its rest comes first."""
    place = tmp_path / "offsets.json"
    source = started(log, place)
    texts(source)
    source.close()
    write(log, "rest\n")
    log.rename(log.with_suffix(".old"))
    write(log, "new\n")
    after = started(log, place)
    got = Collected()
    after.poll(NOW, got)
    assert [(line.entity, line.text) for line in got.lines] == [("service//api", "rest"), ("service//api", "new")]
    assert after.rejected == {}


def test_a_file_that_has_the_inode_of_another_is_read_from_its_beginning(log: Path, tmp_path: Path) -> None:
    """Inodes are used again: the first bytes must be the same as well."""
    place = tmp_path / "offsets.json"
    source = started(log, place)
    texts(source)
    source.close()
    saved = json.loads(place.read_text())
    saved["files"][0]["head"] = "0" * 16
    place.write_text(json.dumps(saved))
    assert texts(started(log, place)) == ["old"]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000])
def test_damaged_offsets_are_told(log: Path, tmp_path: Path, content: bytes) -> None:
    """And files are then followed from their end."""
    place = tmp_path / "offsets.json"
    place.write_bytes(content)
    source = started(log, place)
    assert texts(source) == []
    assert "starts without it" in source.notes["begin"]
    write(log, "x\n")
    assert texts(source) == ["x"]


def test_a_disk_that_refuses_is_told_and_lines_come_all_the_same(log: Path, tmp_path: Path) -> None:
    """No folder for the offsets."""
    source = started(log, tmp_path / "nowhere" / "offsets.json")
    texts(source)
    write(log, "x\n")
    assert texts(source) == ["x"]
    assert "cannot be written" in source.notes["offsets"]


@pytest.mark.slow
def test_a_process_that_is_killed_at_any_moment_loses_no_line(tmp_path: Path) -> None:
    """kill -9 in the middle of polling, again and again: every line comes, in order, and only the last poll's twice."""
    log, place, out = tmp_path / "app.log", tmp_path / "offsets.json", tmp_path / "out"
    log.touch()
    program = (
        "import sys\nfrom pathlib import Path\nfrom fakes.collected import Collected\n"
        "from aiops.sources.logs.source import LogFileSource\n"
        "source = LogFileSource([sys.argv[1]], place=Path(sys.argv[2]))\nout = open(sys.argv[3], 'a')\n"
        "while True:\n    got = Collected()\n    source.poll(1.7e9, got)\n"
        "    out.write(''.join(x + '\\n' for x in ['-', *got.texts()]))\n    out.flush()\n")
    written = 0
    for round_ in range(4):
        child = subprocess.Popen([sys.executable, "-c", program, str(log), str(place), str(out)],
                                 env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
        try:
            seen = out.stat().st_size if out.exists() else 0
            while not out.exists() or out.stat().st_size <= seen:  # it polls
                assert child.poll() is None
            for _ in range(300 + 77 * round_):
                write(log, f"{written}\n")
                written += 1
        finally:
            child.kill()
            child.wait()
    last = LogFileSource([str(log)], place=place)
    told = [*out.read_text().splitlines(), "-", *texts(last)]
    fresh: list[int] = []
    for text in told:
        if text not in ("-", "") and (not fresh or int(text) > fresh[-1]):
            fresh.append(int(text))
    assert fresh == list(range(written))
    repeated = len([t for t in told if t not in ("-", "")]) - written
    polls = [p.split() for p in "\n".join(told).split("-")]
    assert repeated <= 4 * max(map(len, polls))


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["line", "part", "poll", "tight", "rename", "restart", "kill"]), max_size=40))
def test_whatever_happens_to_a_file_every_line_comes_in_order(happenings: list[str]) -> None:
    """Lines and halves of lines, rotations, restarts and kills at any moment, and polls of which only one line is taken:
    none is missing; twice only after a kill.

    At most one rotation between two polls: a file that came and went in between was never seen.
    """
    with TemporaryDirectory() as folder:
        log, place = Path(folder) / "app.log", Path(folder) / "offsets.json"
        log.touch()
        source, told, written, half, renamed, looked = started(log, place), [], 0, False, 0, True
        told += texts(source)
        for happening in happenings:
            if happening == "line":
                write(log, "\n" if half else f"{written}\n")
                written, half = written + 1, False
            elif happening == "part" and not half:
                write(log, f"{written}")
                half = True
            elif happening in ("poll", "tight"):
                told += texts(source, 1 if happening == "tight" else math.inf)
                looked = True
            elif happening == "rename" and not half and looked:
                log.rename(log.with_suffix(f".{renamed}"))
                log.touch()
                renamed, looked = renamed + 1, False
            elif happening in ("restart", "kill"):
                if happening == "restart":
                    source.close()
                source = started(log, place)
        told += [line for _ in range(5) for line in texts(source)]
        source.close()
    assert set(told) == {str(i) for i in range(written)}
    assert [t for i, t in enumerate(told) if t not in told[:i]] == [str(i) for i in range(written)]
    assert "kill" in happenings or len(told) == written


PIECES = st.sampled_from([b"a", b"bb" * 30, b"\n", b"\n", b" x", b"2023-11-14T22:13:10Z stdout P p", b"ValueError: x\n", b"\0"])


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@example(b"a\n\n\0" + b"b" * 60, [0], True, True)
@given(st.lists(PIECES, max_size=40).map(b"".join), st.lists(st.integers(0, 4), max_size=30), st.booleans(), st.booleans())
def test_however_little_is_taken_the_lines_are_the_same(content: bytes, rooms: list[int], multiline: bool, restart: bool) -> None:
    """Long lines, parts of lines and traces, over the ends of reads: as if all had been taken at once."""
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(tail, "CHUNK", 16)
        for module in (tail, loglines):
            patch.setattr(module, "MAX_LINE_BYTES", 40)
        patch.setattr(tail, "MAX_BYTES", 1 << 20)
        log, place = Path(folder) / "app.log", Path(folder) / "offsets.json"
        write(log, content)
        def fresh(**more: Any) -> LogFileSource:
            return LogFileSource([str(log)], from_start=True, multiline=multiline, **more)
        whole, source, told = fresh(), fresh(place=place), []
        expected = [line for _ in range(3) for line in texts(whole)]
        for room in rooms:
            told += texts(source, room)
            if restart:
                source.close()
                source = fresh(place=place)
        told += [line for _ in range(3) for line in texts(source)]
        source.close()
    assert told == expected
    assert source.notes == {}


# --------------------------------------------------------------------------------------------------------- end to end
def test_error_lines_of_a_file_open_an_incident(tmp_path: Path) -> None:
    """From the file through the intake and the pipeline: a burst of errors is found, with the time that the lines tell."""
    from helpers import pipeline

    from aiops.clock import ManualClock
    from aiops.feeds import Source
    from aiops.intake import Intake
    from aiops.live import Live
    from aiops.loop import NoActuator

    log = tmp_path / "db.log"
    log.touch()
    clock, reports = ManualClock(NOW), []

    class Keep:
        def publish(self, report: Any) -> None:
            reports.append(report)

        def close(self) -> None: ...

    live = Live(pipeline(), [Source(LogFileSource([str(log)], interval_s=10.0), clock)], Intake(10.0), NoActuator(), [Keep()],
                clock, 10.0, lambda batch: None)
    for k in range(60):
        clock.sleep_until(NOW + 10.0 * k)
        stamp = datetime.fromtimestamp(clock.now() - 3, UTC).isoformat()
        write(log, f"{stamp} INFO request done\n" + f"{stamp} ERROR disk gone\n" * (40 if k > 45 else 0))
        live.sources[0].poll(live.intake)
        live.tick()
    found = [a for r in reports for a in r.anomalies]
    assert {a.entity for a in found} == {"service//db"}
    assert next(a for a in found if a.detector == "logs").onset == NOW + 457.0
    assert reports[-1].counts.log_lines == 59 + 14 * 40, "all but the line that was there before"
    assert [i.entities for i in live.pipeline.book.open()] == [("service//db",)]
