"""Recordings of any quality: what can be used is used, the rest is counted, and what cannot be read at all is named."""

from __future__ import annotations

import gzip
import json
import math

import numpy as np
import pytest
from helpers import ERRORS, LATENCY, T0, tiny_recording, tiny_rows, write_csv, write_jsonl

from aiops import cli
from aiops.sources.recording.about import read_topology
from aiops.sources.recording.folder import FolderRecording, RecordingError
from aiops.types import Edge, Node
from aiops.yamlfile import Problems


def rows_of(folder):
    """(batch time, entity, metric, time, value) of everything that comes out."""
    found, series = [], {}
    for batch in FolderRecording(folder).batches():
        series |= {s.id: s for s in batch.new_series}
        found += [(batch.at, series[i].entity, series[i].metric, t, v)
                  for i, t, v in zip(batch.series.tolist(), batch.time.tolist(), batch.value.tolist(), strict=True)]
    return found


def test_a_recording_is_batches_in_time(tmp_path):
    """One a step, strictly rising, with each sample, line, event and alert in the first that ends after it."""
    recording = FolderRecording(tiny_recording(tmp_path))
    batches = list(recording.batches())
    assert recording.step_s == 10.0 and len(recording) == len(batches) == 60
    assert np.all(np.diff([b.at for b in batches]) > 0)
    for before, b in zip([None, *batches], batches, strict=False):
        times = [*b.time, *(x.time for x in (*b.lines, *b.events, *b.alerts))]
        assert all((before.at if before else -math.inf) < t <= b.at for t in times)
    assert sum(len(b.lines) for b in batches) == 65
    assert [(a.index, a.status) for b in batches for a in b.alerts] == [(0, "firing"), (1, "resolved")]
    assert batches[0].links.edges == (Edge("service//shop", "service//db"),) and batches[1].links is None


def test_it_may_be_read_again(tmp_path):
    """The same batches."""
    recording = FolderRecording(tiny_recording(tmp_path))
    assert [repr(b) for b in recording.batches()] == [repr(b) for b in recording.batches()]


def test_the_order_of_rows_does_not_matter(tmp_path):
    """Files of several exporters put together as they came."""
    straight, shuffled = write_csv(tmp_path / "a", tiny_rows()), write_csv(tmp_path / "b", tiny_rows()[::-1])
    assert sorted(rows_of(straight)) == sorted(rows_of(shuffled))


def test_parquet_says_the_same_as_csv(tmp_path):
    """Whatever the form."""
    import fastparquet
    import pandas as pd

    columns = pd.DataFrame(tiny_rows(), columns=["time", "entity", "metric", "value"])
    (tmp_path / "p").mkdir()
    fastparquet.write(str(tmp_path / "p" / "metrics.parquet"), columns)
    assert rows_of(tmp_path / "p") == rows_of(write_csv(tmp_path / "c", tiny_rows()))


def test_unusable_rows_are_counted(tmp_path):
    """No time, no number, too few and too many cells, nothing at all."""
    good = [(T0 + 10 * k, "a//b", "m", k) for k in range(5)]
    timeless = [(t, "a//b", "m", 1) for t in ("", "nan", "inf", "soon", 1e300)]
    folder = write_csv(tmp_path, [*good, *timeless, (T0, "a//b", "m", 1, "more", "cells", "than", "columns"), (T0 + 60, "a//b")])
    recording = FolderRecording(folder)
    assert recording.skipped == {"rows_without_time": 5, "rows_malformed": 1}
    values = [v for *_, v in rows_of(folder)]
    assert values[:5] == [0, 1, 2, 3, 4] and np.isnan(values[5:]).all()


def test_values_that_are_no_numbers_go_on_as_nan(tmp_path):
    """The door counts them."""
    folder = write_csv(tmp_path, [(T0, "a//b", "m", v) for v in ("1", "NaN", "+Inf", "x", "", "1e400")])
    values = [v for *_, v in rows_of(folder)]
    assert values[0] == 1 and not np.isfinite(values[1:]).any()


def test_duplicates_reach_the_door(tmp_path):
    """Which keeps one of each."""
    assert len(rows_of(write_csv(tmp_path, tiny_rows() * 2))) == 240


def test_series_differ_by_their_labels_however_written(tmp_path):
    """One series under one spelling; malformed labels are counted."""
    folder = write_csv(tmp_path, [(T0, "a//b", "m", "'a=\"1\",b=\"2\"'", 1), (T0, "a//b", "m", "nonsense", 1)],
                       "time,entity,metric,labels,value")
    (folder / "metrics.csv").write_text((folder / "metrics.csv").read_text().replace("'a=\"1\",b=\"2\"'", '"b=""2"", a=""1"""'))
    recording = FolderRecording(folder)
    [batch] = recording.batches()
    assert sorted(s.labels for s in batch.new_series) == ['a="1",b="2"', "nonsense"]
    assert +recording.skipped == {"labels_malformed": 1}


def test_entity_names_may_hold_almost_anything(tmp_path):
    """Slashes, colons, at signs, blanks and letters of any language."""
    names = ["pod/a/b/c:d@e f", "service//größe", "service//日本", "x"]
    folder = write_csv(tmp_path, [(T0, n, "m", 1) for n in names])
    assert sorted(e for _, e, *_ in rows_of(folder)) == sorted(names)


def test_malformed_lines_are_counted_by_file(tmp_path):
    """Half a line, another type, a field that is missing, a byte that is no text, a time that is none."""
    good = {"time": T0, "entity": "a//b", "text": "x"}
    (tmp_path / "logs.jsonl").write_bytes(b"\n".join((
        json.dumps(good).encode(), b"", b'{"time": 1,', b"[1, 2]", b'{"time": "x"}', b"\xff\xfe",
        json.dumps({**good, "more": 1}).encode(), b'{"time": 1e300, "entity": "a//b", "text": "late"}', b"")))
    write_jsonl(tmp_path / "events.jsonl", [{"time": T0, "entity": "a//b", "kind": "change"}])
    write_jsonl(tmp_path / "alerts.jsonl", [{"time": T0, "entity": "a//b", "name": "x", "status": "maybe"},
                                            {"time": 1e300, "entity": "a//b", "name": "x"}])
    recording = FolderRecording(tmp_path)
    [batch] = recording.batches()
    assert [x.text for x in batch.lines] == ["x", "x"]
    assert recording.skipped == {
        "logs.jsonl_lines_malformed": 4, "events.jsonl_lines_malformed": 1, "alerts.jsonl_lines_malformed": 1,
        "logs.jsonl_lines_without_time": 1, "alerts.jsonl_lines_without_time": 1}


def test_alerts_keep_the_place_they_had_in_their_file(tmp_path):
    """Malformed lines between them count too: the place is what `--alerts-out` answers for."""
    late, early = (json.dumps({"time": t, "entity": "a//b", "name": "n"}) for t in (20, 10))
    (tmp_path / "alerts.jsonl").write_text("\n".join((late, "garbage", early, "")))
    recording = FolderRecording(tmp_path)
    assert [(a.index, a.time) for b in recording.batches() for a in b.alerts] == [(2, 10.0), (0, 20.0)]
    assert recording.alert_lines == 3


@pytest.mark.parametrize("name", ["logs", "events", "alerts"])
def test_packed_files_are_read_as_well(tmp_path, name):
    """And the plain one wins where both are there."""
    text = {"time": T0, "entity": "a//b", "text": "x", "kind": "change", "reason": "r", "name": "n"}
    (tmp_path / f"{name}.jsonl.gz").write_bytes(gzip.compress(json.dumps(text).encode() + b"\n"))
    [batch] = FolderRecording(tmp_path).batches()
    assert len(batch.lines) + len(batch.events) + len(batch.alerts) == 1


def test_the_step_is_what_the_recording_says(tmp_path):
    """Else the usual interval of its series."""
    folder = write_csv(tmp_path, [(T0 + 7 * k, "a//b", "m", k) for k in range(30)])
    assert FolderRecording(folder).step_s == 7.0
    (folder / "fixture.yaml").write_text("name: x\nstep: 30\nsomebody's: note\n")
    assert FolderRecording(folder).step_s == 30.0


def test_a_topology_has_nodes_and_edges(tmp_path):
    """With what matters and what is only a view."""
    path = tmp_path / "topology.yaml"
    path.write_text("nodes: [{id: a//1, criticality: 3, labels: {proxy: 'true'}}]\n"
                    "edges: [{from: a//1, to: a//2, kind: runs_on}]\n")
    links = read_topology(path)
    assert links.nodes == (Node("a//1", 3.0, {"proxy": "true"}),)
    assert links.edges == (Edge("a//1", "a//2", "runs_on"),)


# ------------------------------------------------------------------------------------------- what cannot be read at all
def empty_files(folder):
    for name in ("metrics.csv", "logs.jsonl", "events.jsonl", "alerts.jsonl"):
        (folder / name).touch()


def damaged(folder, name, data):
    write_csv(folder, tiny_rows(3))
    (folder / name).write_bytes(data)


def with_file(name, data):
    return lambda folder: damaged(folder, name, data)


def with_csv(rows, header="time,entity,metric,value"):
    return lambda folder: write_csv(folder, rows, header)


CUT = gzip.compress(b'{"time": 1}\n' * 999, mtime=0)[:30]
WHOLE = gzip.compress("".join(f'{{"time": {k * k}}}\n' for k in range(999)).encode(), mtime=0)
CORRUPT = [WHOLE[:k] + bytes([WHOLE[k] ^ 255]) + WHOLE[k + 1:] for k in range(100, 800, 100)]
BAD = {
    "nothing in it": (lambda f: None, "nothing to replay", "metrics.parquet"),
    "only empty files": (empty_files, "nothing to replay", "logs.jsonl"),
    "only a header": (with_csv([]), "nothing to replay", "metrics.csv"),
    "no time in any row": (with_csv([("x", "a//b", "m", 1)]), "nothing to replay", "usable row"),
    "no column value": (with_csv([(1, "a", "m")], "time,entity,metric"), "no column value", "Needed: time, entity"),
    "another table": (with_csv([(1, 2)], "x,y"), "no column time, entity, metric, value", "Needed:"),
    "parquet of garbage": (with_file("metrics.parquet", b"PAR1 surely not"), "metrics.parquet", "cannot be read as parquet"),
    "empty parquet": (with_file("metrics.parquet", b""), "metrics.parquet", "cannot be read as parquet"),
    "csv of bytes": (with_file("metrics.csv", b"time,entity,metric,value\n\xff\xfe\x00\n"), "metrics.csv", "cannot be read"),
    "truncated gz": (with_file("logs.jsonl.gz", CUT), "logs.jsonl.gz", "cannot be read to its end"),
    "gz that is none": (with_file("logs.jsonl.gz", b"plain text"), "logs.jsonl.gz", "cannot be read to its end"),
    **{f"corrupt gz {k}": (with_file("logs.jsonl.gz", data), "logs.jsonl.gz", "cannot be read to its end")
       for k, data in enumerate(CORRUPT)},
    "unknown key in the topology": (with_file("topology.yaml", b"nodes: []\nedges:\n- {from: a, too: b}\n"),
                                    "topology.yaml:3", "Did you mean 'to'?"),
    "edge of another kind": (with_file("topology.yaml", b"edges:\n- {from: a, to: b, kind: owes}\n"), "topology.yaml:2", "owns"),
    "topology that is a list": (with_file("topology.yaml", b"- a\n"), "topology.yaml"),
    "no yaml": (with_file("fixture.yaml", b"a: [1\nb: }"), "fixture.yaml", "is not valid YAML"),
    "a step that is none": (with_file("fixture.yaml", b"name: x\nstep: soon\n"), "fixture.yaml:2", "$.step"),
    "a step of nothing": (with_file("fixture.yaml", b"step: 0\n"), "fixture.yaml:1", "$.step"),
    "a step backwards": (with_file("fixture.yaml", b"step: -5\n"), "fixture.yaml:1", "$.step"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_is_named_with_a_remedy(tmp_path, capsys, name):
    """By the reader, and by `aiops replay`, which ends with 2 and without a traceback."""
    make, *said = BAD[name]
    make(tmp_path)
    with pytest.raises((RecordingError, Problems)) as error:
        FolderRecording(tmp_path).links()
    assert str(tmp_path) in str(error.value)
    assert all(part in str(error.value) for part in said)
    assert cli.main(["replay", str(tmp_path)]) == 2
    shown = capsys.readouterr()
    assert (shown.out, "Traceback" in shown.err) == ("", False)
    assert str(tmp_path) in shown.err and shown.err.startswith("error: ")


def test_a_folder_that_is_not_there(tmp_path, capsys):
    """Nor a file in its place."""
    for path in (tmp_path / "nowhere", write_csv(tmp_path, []) / "metrics.csv"):
        with pytest.raises(RecordingError, match="no such folder"):
            FolderRecording(path)
        assert cli.main(["replay", str(path)]) == 2
        assert str(path) in capsys.readouterr().err


@pytest.mark.parametrize("file", ["logs.jsonl", "events.jsonl", "alerts.jsonl", "metrics.csv"])
def test_any_one_file_is_enough(tmp_path, capsys, file):
    """And a replay of it works."""
    tiny = tiny_recording(tmp_path / "tiny")
    (tmp_path / "one").mkdir()
    (tiny / file).rename(tmp_path / "one" / file)
    assert cli.main(["replay", str(tmp_path / "one"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["batches"] > 0


def test_ground_truth_is_not_read(tmp_path):
    """A replay cannot peek."""
    folder = tiny_recording(tmp_path)
    before = [repr(b) for b in FolderRecording(folder).batches()]
    (folder / "expect.yaml").write_text("}: not even yaml")
    assert [repr(b) for b in FolderRecording(folder).batches()] == before


def test_the_tiny_recording_of_these_tests_is_what_they_think(tmp_path):
    """Two services, one metric each."""
    found = {(e, m) for _, e, m, *_ in rows_of(tiny_recording(tmp_path))}
    assert found == {("service//db", ERRORS), ("service//shop", LATENCY)}
