"""Following log files: nothing twice, nothing lost, memory bounded."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from fakes.collected import Collected

from aiops.sources import logfile
from aiops.sources.logfile import LogFileSource, plain

NOW = 1_700_000_000.0


def texts(source: LogFileSource) -> list[str]:
    got = Collected()
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
    source.restore({str(log): [12345, 2], "/x": "nonsense", "/y": [1]})
    assert texts(source) == ["old"]


def test_bytes_that_are_no_text_are_repaired_and_counted(log: Path) -> None:
    """A broken encoding must not stop the log."""
    source = LogFileSource([str(log)])
    texts(source)
    write(log, b"caf\xe9 \xff\n\x00ok\r\n")
    assert texts(source) == ["caf� �", "\x00ok"]
    assert source.dropped == {"undecodable": 1}


def test_an_endless_line_is_cut_and_needs_no_memory(log: Path) -> None:
    """Ten megabytes without a line break give one cut line; the line after it is whole."""
    source = LogFileSource([str(log)])
    texts(source)
    for _ in range(10):
        write(log, b"x" * 1_000_000)
        for line in texts(source):
            assert len(line) == logfile.MAX_LINE_BYTES
        assert all(len(f.rest) <= logfile.MAX_LINE_BYTES for f in source._files.values())
    write(log, "tail\nwhole\n")
    assert texts(source) == ["whole"]
    assert source.dropped == {"too_long": 1}


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
