"""The journal gives back exactly what was written, in every weather."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiops.links import Known
from aiops.sinks import journal
from aiops.sinks.journal import Journal, JournalError, JournalWriter
from aiops.types import Batch, Command, Edge, Event, Links, LogLine, Node, Outcome, RawAlert, Series

ABOUT = {"version": "0.1.0", "started_at": 1_700_000_000.5, "config": {"mode": "observe", "budget": 1.5}}
LINKS = Links((Node("pod/a/b", 2.0, {"zone": "x"}),), (Edge("pod/a/b", "node//n", "runs_on"),))


def batch(at: float, **parts: object) -> Batch:
    return Batch(at, np.array([0, 1], np.int32), np.array([at, at]), np.array([1.5, np.nan]), **parts)  # type: ignore[arg-type]


def same(a: Batch, b: Batch) -> bool:
    """Every bit of every array, and everything else equal."""
    arrays = all(getattr(a, n).dtype == getattr(b, n).dtype and getattr(a, n).tobytes() == getattr(b, n).tobytes()
                 for n in ("series", "time", "value", "retired"))
    rest = ("at", "new_series", "lines", "events", "alerts", "links", "outcomes", "commands")
    return arrays and all(getattr(a, n) == getattr(b, n) for n in rest)


def write(folder: Path, batches: list[Batch], digest: str | None = None, about: dict[str, object] | None = None,
          **limits: float) -> JournalWriter:
    writer = JournalWriter(folder, about or ABOUT, **limits)  # type: ignore[arg-type]
    for b in batches:
        assert writer.write(b)
    writer.close(digest)
    return writer


texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
times = st.floats(allow_nan=False, allow_infinity=False)
bits = st.integers(0, 2**64 - 1)
labels = st.dictionaries(texts, texts, max_size=2)
raw_alerts = st.builds(RawAlert, st.integers(0, 9), times, texts, texts, labels=labels)


@st.composite
def batches(draw: st.DrawFn) -> list[Batch]:
    """Batches with floats of any bit pattern, among them NaN with a payload, infinities, -0.0 and subnormals."""
    out = []
    for at in sorted(draw(st.sets(times, max_size=4))):
        n = draw(st.integers(0, 5))
        columns = [np.array(draw(st.lists(bits, min_size=n, max_size=n)), np.uint64).view(np.float64) for _ in range(2)]
        if draw(st.booleans()) and n:
            columns[0] = np.full(n, columns[0][0])
        ids = np.array(draw(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=n, max_size=n)), np.int32)
        out.append(Batch(
            at, ids, *columns,
            new_series=tuple(draw(st.lists(st.builds(Series, st.integers(0, 9), texts, texts, texts), max_size=2))),
            lines=tuple(draw(st.lists(st.builds(LogLine, times, texts, texts), max_size=2))),
            retired=np.array(draw(st.lists(st.integers(0, 9), max_size=2)), np.int32),
            events=tuple(draw(st.lists(st.builds(Event, times, texts, texts, texts, texts), max_size=2))),
            alerts=tuple(draw(st.lists(raw_alerts, max_size=2))),
            links=draw(st.sampled_from([None, LINKS, Links()])),
            outcomes=tuple(draw(st.lists(st.builds(Outcome, texts, st.just("helped"), times, texts), max_size=2))),
            commands=tuple(draw(st.lists(st.builds(Command, times, st.just("approve"), texts, texts), max_size=2)))))
    return out


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given_batches=batches(), max_bytes=st.sampled_from([1, 400, 1 << 20]))
def test_what_was_written_is_read_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, given_batches: list[Batch], max_bytes: int,
) -> None:
    """Bit for bit, whatever the values, and however the segments fall."""
    folder = tmp_path_factory.mktemp("journal")
    expected = given_batches or [batch(1.0)]
    written = write(folder, expected, max_bytes=max_bytes)
    got = list(journal.read(folder))
    assert len(got) == len(expected) == written.batches
    assert all(same(a, b) for a, b in zip(got, expected, strict=True))


def test_header_and_digest_come_back(tmp_path: Path) -> None:
    """What the run said of itself at its start and at its end."""
    write(tmp_path, [batch(1.0)], digest="abc")
    assert journal.header(tmp_path) == {"aiops_journal": 1, **ABOUT}
    read = Journal(tmp_path)
    list(read.batches())
    assert (read.digest, read.torn, read.gaps, read.unordered, read.lost) == ("abc", 0, 0, 0, 0)


def test_closed_segments_are_compressed_and_the_oldest_expire(tmp_path: Path) -> None:
    """Rotation keeps the newest segments, all compressed, none readable by others."""
    write(tmp_path, [batch(float(k)) for k in range(10)], max_bytes=1, keep=4)
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == [f"1700000000500-{k:06d}.jsonl.gz" for k in range(6, 10)]
    assert {oct(p.stat().st_mode & 0o777) for p in tmp_path.iterdir()} == {"0o600"}


def test_a_long_header_does_not_end_its_own_segment(tmp_path: Path) -> None:
    """After weeks of churn the series alone may exceed a segment: it still holds batches, not one each."""
    series = tuple(Series(k, f"pod/a/{k}", "up") for k in range(200))
    write(tmp_path, [batch(1.0, new_series=series), *(batch(float(k)) for k in range(2, 50))], max_bytes=4000)
    assert len(list(tmp_path.iterdir())) < 10


def test_a_later_segment_can_be_read_alone(tmp_path: Path) -> None:
    """With the first segments gone, series and topology known so far enter with the first batch that is left."""
    series = (Series(0, "pod/a/b", "up", kind="gauge"), Series(1, "pod/a/c", "up", 'x="1"'))
    first = batch(1.0, new_series=series[:1], links=LINKS)
    second, third = batch(2.0, new_series=series[1:]), batch(3.0)
    write(tmp_path, [first, second, third], max_bytes=1, keep=1)
    read = Journal(tmp_path)
    got = list(read.batches())
    assert [(b.at, b.new_series, b.links) for b in got] == [(3.0, series, LINKS)]
    assert read.gaps == 1
    assert got[0].value.tobytes() == third.value.tobytes()


def test_after_a_gap_a_number_belongs_to_whom_it_belongs_then(tmp_path: Path) -> None:
    """The batches that gave number 0 to another series, and retired 1, are lost: the next one says both."""
    old, new, other = Series(0, "pod/a/b", "m"), Series(0, "pod/a/c", "m"), Series(1, "pod/a/d", "m")
    gone = np.array([0, 1], np.int32)
    write(tmp_path, [batch(1.0, new_series=(old, other)), batch(2.0, retired=gone), batch(3.0, new_series=(new,)), batch(4.0)],
          max_bytes=1)
    segments = sorted(tmp_path.glob("*.jsonl.gz"))
    segments[1].unlink()
    segments[2].unlink()
    first, last = Journal(tmp_path).batches()
    assert (first.new_series, first.retired.tolist()) == ((old, other), [])
    assert (last.new_series, sorted(last.retired.tolist())) == ((new,), [0, 1])
    [tail] = Journal(tmp_path).since(3.5)
    assert (tail.new_series, tail.retired.tolist()) == ((new,), [])


def test_differences_of_the_topology_add_up_after_a_gap(tmp_path: Path) -> None:
    """Segments whose header tells the whole, and a batch right after the gap that tells what has changed."""
    edges = [Edge(f"pod/s/{k}", "node//n", "runs_on", "kubernetes") for k in range(4)]
    told = [Links(edges=(edges[0], edges[1])), *(Links(edges=(e,), gone_edges=(gone,), whole=False)
                                                 for e, gone in zip(edges[2:], edges, strict=False))]
    write(tmp_path, [batch(float(k), links=t) for k, t in enumerate(told)], max_bytes=1)
    whole = {}
    for keep in (1, 2, 3):
        journal = Journal(tmp_path)
        journal.paths = journal.paths[-keep:]
        known = Known()
        for b in journal.batches():
            known.put(b.links)
        whole[keep] = known.whole()
    assert whole[1] == whole[2] == whole[3] == Links(edges=tuple(edges[2:]))
    assert [e.told for e in whole[1].edges] == ["kubernetes"] * 2


def test_nothing_is_added_when_no_segment_is_missing(tmp_path: Path) -> None:
    """An unchanged topology stays None over segment borders, so a replay sees what the run saw."""
    series = (Series(0, "pod/a/b", "up"),)
    written = [batch(1.0, new_series=series, links=LINKS), batch(2.0), batch(3.0)]
    write(tmp_path, written, max_bytes=1)
    assert all(same(a, b) for a, b in zip(journal.read(tmp_path), written, strict=True))


@pytest.mark.parametrize("cut", [1, 20, 40])
def test_a_torn_last_line_is_counted(tmp_path: Path, cut: int) -> None:
    """After kill -9 the last line may be half there; all before it is read."""
    writer = JournalWriter(tmp_path, ABOUT)
    for k in range(3):
        writer.write(batch(float(k)))
    path = next(tmp_path.glob("*.jsonl"))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - cut)
    read = Journal(tmp_path)
    assert [b.at for b in read.batches()] == [0.0, 1.0]
    assert (read.torn, read.digest) == (1, None)
    writer.close()


def test_batches_are_on_disk_as_soon_as_write_returns(tmp_path: Path) -> None:
    """Nothing waits in a buffer of the process: a kill loses no batch that was accepted."""
    writer = JournalWriter(tmp_path, ABOUT)
    writer.write(batch(1.0))
    assert [b.at for b in journal.read(tmp_path)] == [1.0]
    writer.close()


def test_damage_in_the_middle_costs_only_its_line(tmp_path: Path) -> None:
    """Lines that are no batch, lists of unequal length and times that do not rise are counted and passed over."""
    writer = JournalWriter(tmp_path, ABOUT)
    writer.write(batch(1.0))
    path = next(tmp_path.glob("*.jsonl"))
    writer.write(batch(2.0))
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2:2] = [b'garbage\n{"at":1.5,"series":[1],"times":[],"values":[1]}\n{"at":0.5}\n',
                  b'{"at":1.6,"series":[1],"times":[1],"values":[1],"odd_values":[[7,1]]}\n']
    path.write_bytes(b"".join(lines))
    read = Journal(tmp_path)
    assert [b.at for b in read.batches()] == [1.0, 2.0]
    assert (read.torn, read.unordered) == (3, 1)
    writer.close()


def test_a_truncated_gzip_segment_ends_early_and_the_next_is_read(tmp_path: Path) -> None:
    """A copy that was cut short loses its own tail only."""
    write(tmp_path, [batch(float(k)) for k in range(3)], max_bytes=1)
    path = sorted(tmp_path.glob("*.gz"))[1]
    path.write_bytes(path.read_bytes()[:-12])
    read = Journal(tmp_path)
    times = [b.at for b in read.batches()]
    assert times[0] == 0.0
    assert times[-1] == 2.0
    assert read.gaps == 1


def test_a_segment_that_is_there_twice_is_read_once(tmp_path: Path) -> None:
    """A crash between compressing and removing leaves both forms."""
    write(tmp_path, [batch(1.0), batch(2.0)])
    packed = next(tmp_path.glob("*.gz"))
    packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
    assert [b.at for b in journal.read(tmp_path)] == [1.0, 2.0]


def test_what_a_killed_run_left_open_is_compressed_by_the_next(tmp_path: Path) -> None:
    """Runs stay apart; the newest is read by default; leftovers are packed."""
    JournalWriter(tmp_path, ABOUT).write(batch(1.0))
    write(tmp_path, [batch(2.0)], about={**ABOUT, "started_at": 1_700_000_100.0})
    assert journal.runs(tmp_path) == ["1700000000500", "1700000100000"]
    assert [b.at for b in journal.read(tmp_path)] == [2.0]
    assert [b.at for b in journal.read(tmp_path, "1700000000500")] == [1.0]
    assert list(tmp_path.glob("*.jsonl")) == []


def test_a_folder_that_cannot_be_written_does_not_stop_the_daemon(tmp_path: Path) -> None:
    """The batch is refused with a reason; when the folder works again the next segment tells what was missed."""
    series = (Series(0, "pod/a/b", "up"),)
    blocked = tmp_path / "journal"
    blocked.write_text("a file is in the way")
    writer = JournalWriter(blocked, ABOUT)
    assert not writer.write(batch(1.0, new_series=series, links=LINKS))
    assert str(blocked) in writer.problem
    blocked.unlink()
    assert writer.write(batch(2.0))
    assert (writer.failed, writer.problem) == (1, "")
    writer.close("d")
    read = Journal(blocked)
    assert [(b.at, b.new_series, b.links) for b in read.batches()] == [(2.0, series, LINKS)]
    assert read.lost == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_counted_and_the_next_batch_starts_a_new_segment(tmp_path: Path) -> None:
    """ENOSPC in the middle of a segment loses that batch only."""
    writer = JournalWriter(tmp_path, ABOUT)
    assert writer.write(batch(1.0))
    good, writer._file = writer._file, Path("/dev/full").open("wb", buffering=1 << 16)  # noqa: SIM115
    assert not writer.write(batch(2.0))
    assert "No space left" in writer.problem
    assert writer.write(batch(3.0))
    assert good is not None
    good.close()
    writer.close()
    read = Journal(tmp_path)
    assert [b.at for b in read.batches()] == [1.0, 3.0]
    assert read.lost == 1


@pytest.mark.parametrize("content", ["", '{"aiops_journal":9,"segment":0,"failed":0,"about":{}}\n', "{}\n"])
def test_what_is_no_journal_is_said_in_one_sentence(tmp_path: Path, content: str) -> None:
    """An empty folder, a strange file and a future format each get a clear text."""
    with pytest.raises(JournalError, match="no segments"):
        Journal(tmp_path)
    (tmp_path / "1700000000500-000000.jsonl").write_text(content)
    with pytest.raises(JournalError, match=r"format 9|not a journal segment"):
        Journal(tmp_path)


def ages(folder: Path, at: float, step_s: float) -> None:
    """Sets the times of closed segments as if one had ended every `step_s` seconds, the newest at `at`."""
    closed = sorted(folder.glob("*.gz"))
    for k, path in enumerate(closed):
        os.utime(path, (at, at - step_s * (len(closed) - 1 - k)))


def test_segments_that_are_older_than_asked_for_go(tmp_path: Path) -> None:
    """By the time of their last batch; the run's own segments are cut often enough for that."""
    write(tmp_path, [batch(1000.0 + k) for k in range(5)], max_bytes=1)
    ages(tmp_path, 1004.0, 1.0)
    writer = JournalWriter(tmp_path, {"started_at": 2e9}, keep_s=10.0)
    for at in (1011.0, 1011.1, 1012.0):
        writer.write(batch(at))
    writer.close()
    names = sorted(p.name for p in tmp_path.glob("*.gz"))
    assert [n for n in names if n.startswith("2000000000000")] == [
        "2000000000000-000000.jsonl.gz", "2000000000000-000001.jsonl.gz"]
    assert len(names) == 2 + 3, "those that ended at 1000 and 1001 are more than 10 s older than 1012"


def test_closed_segments_stay_within_their_share_of_the_disk(tmp_path: Path) -> None:
    """The oldest go first, counted by their size after compression."""
    write(tmp_path, [batch(float(k)) for k in range(10)], max_bytes=1)
    size = max(p.stat().st_size for p in tmp_path.glob("*.gz"))
    write(tmp_path, [batch(1e5)], about={"started_at": 3e9}, keep_bytes=4.5 * size)
    kept = sorted(p.name for p in tmp_path.glob("*.gz"))
    assert len(kept) == 4
    assert kept[-1].startswith("3000000000000")


def test_the_end_of_a_run_can_be_read_alone(tmp_path: Path) -> None:
    """From any moment, with the series that were told before; over segments, of which only the last are read."""
    first = Series(7, "service//a", "x")
    all_of_it = [batch(float(k), **({"new_series": (first,)} if k == 0 else {})) for k in range(30)]
    write(tmp_path, all_of_it, max_bytes=300)
    read = Journal(tmp_path)
    assert len(read.paths) > 5 and read.last_at() == 29.0
    for at in (-1.0, 0.0, 3.5, 17.0, 28.0):
        tail = list(read.since(at))
        assert [b.at for b in tail] == [b.at for b in all_of_it if b.at > at]
        assert first in tail[0].new_series and not any(b.new_series for b in tail[1:])
    assert list(read.since(29.0)) == []
    for path in read.paths[:-2]:
        path.unlink()
    assert [b.at for b in Journal(tmp_path).since(28.5)] == [29.0]
