"""What was learned, on disk: read back bit for bit, or set aside with a note, whatever happened to the files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aiops.models import Learned, Lineage, Saved
from aiops.rows import Rows
from aiops.store import models
from aiops.store.chunks import Chunks, Damaged
from aiops.store.models import ModelFiles, packed, unpacked

STATE = {"n": np.arange(6.0).reshape(2, 3), "names": ["pod/a/ü", "b"], "tail": {"u": np.array([np.nan, -np.inf, 5e-324])},
         "told": [-math.inf, 1.5], "empty": np.zeros((0, 4), np.float32), "windows": [np.ones(2, np.int8), None],
         "seen": np.int64(3), "flags": np.array([True]), "nothing": {}}
A, B = Saved("toy", 2, {"limit": 3.5}, 1000.0, STATE), Saved("other", 1, {}, 1000.0, {"n": np.zeros(3)})
DOOR = {"signals": [["pod/a/b", "m", "", "", "both", 0.0, 0.25, False, ""]], "heard": np.array([999.0])}
LEARNED = Learned(1000.0, DOOR, {
    "toy": Lineage(A, candidate=replace(A, settings={"limit": 9.0}), previous=replace(A, version=1, at=500.0), refused="x",
                   since=10.0, trial={"began": math.nan, "cases": {"i": {"said": ""}}}),
    "other": Lineage(B)}, {"alerting": {"level": 7.0}}, True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    ModelFiles(tmp_path / "m").write(LEARNED)
    return tmp_path / "m"


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def same(a, b) -> bool:
    """Equal to the last bit; tuples are lists."""
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or (a != a and b != b)


def test_everything_comes_back_as_it_was(folder: Path) -> None:
    """Arrays with their types and odd floats, text, lists, roles, figures; and who may read the files."""
    found = ModelFiles(folder).read()
    assert found is not None and (found.at, found.ended) == (1000.0, True)
    assert same(found.door, DOOR) and found.more == {"alerting": {"level": 7.0}}
    assert found.lineages.keys() == LEARNED.lineages.keys()
    for name, was in LEARNED.lineages.items():
        now = found.lineages[name]
        assert (now.refused, same(now.since, was.since), same(now.trial, was.trial)) == (was.refused, True, True)
        for role in models.ROLES:
            a, b = getattr(was, role), getattr(now, role)
            assert (a is None) == (b is None)
            assert a is None or ((a.detector, a.version, a.settings, a.at) == (b.detector, b.version, b.settings, b.at)
                                 and same(a.state, b.state))
    assert {p.stat().st_mode & 0o777 for p in folder.glob("*.state")} == {0o600}


def test_nothing_was_saved_yet(tmp_path: Path) -> None:
    """No folder, no file, no note."""
    files = ModelFiles(tmp_path / "none")
    assert (files.read(), files.notes, (tmp_path / "none").exists()) == (None, [], False)


def test_there_is_one_file_a_model_and_one_for_the_columns(folder: Path) -> None:
    """Of the last save only; the model of before is not written again while it stays the same."""
    ids = (LEARNED.lineages["toy"].serving.id, LEARNED.lineages["toy"].candidate.id, LEARNED.lineages["toy"].previous.id)
    expected = [f"{ids[1]}.candidate.000001.state", f"{ids[0]}.serving.000001.state", f"{ids[2]}.previous.000001.state",
                "columns.000001.state", "index.json", "other-v1-4413.serving.000001.state"]
    assert names(folder) == sorted(expected)
    files = ModelFiles(folder)
    found = files.read()
    for _ in range(3):
        files.write(found)
    assert sorted(n.split(".")[-2] for n in names(folder) if n.endswith("state")) == ["000002"] + ["000004"] * 4
    assert same(ModelFiles(folder).read().lineages["toy"].previous.state, STATE)


def test_nothing_is_pickled(folder: Path) -> None:
    """An object is refused when it is written, and no file holds one."""
    for bad in (object(), np.array([object()]), [{"x": range(3)}]):
        with pytest.raises(TypeError, match="cannot be saved"):
            packed({"a": bad})
    assert unpacked(*packed({"a": [np.float64(1.5), np.bool_(True)], "b": math.inf})) == {"a": [1.5, True], "b": math.inf}


def test_a_file_of_format_1_is_read(folder: Path) -> None:
    """As earlier versions wrote it: what was learned is not lost with an update."""
    about = b'{"detector": "toy", "version": 2, "settings": {}, "at": NaN, "state": {"x": {"$array": "a0"}, "names": ["a"]}}'
    with (folder / "toy.npz").open("wb") as file:
        np.savez(file, json=np.frombuffer(about, np.uint8), a0=np.arange(3.0))
    index = json.loads((folder / "index.json").read_text())
    digest = hashlib.sha256((folder / "toy.npz").read_bytes()).hexdigest()
    index["lineages"]["toy"]["serving"] |= {"file": "toy.npz", "sha256": digest}
    (folder / "index.json").write_text(json.dumps({**index, "aiops_models": 1}))
    found = ModelFiles(folder).read().lineages["toy"].serving
    assert math.isnan(found.at) and found.state["names"] == ["a"] and found.state["x"].tolist() == [0.0, 1.0, 2.0]


def large(rows: int = 50, seed: int = 1) -> Learned:
    """A model of a few megabytes, of which a row changes now and then, and a long list."""
    x = np.random.default_rng(seed).normal(size=(rows, 100_000))
    state = {"rows": x, "turned": x[:9].reshape(-1, 9).T, "names": [["pod/a/b", k] for k in range(20_000)], "few": np.arange(4)}
    return Learned(1000.0, DOOR, {"toy": Lineage(Saved("toy", 2, {}, 1000.0, state))})


@pytest.mark.slow
def test_only_what_changed_of_large_arrays_is_written_again(tmp_path: Path) -> None:
    """One row of fifty: one piece; the rest is as it was, and everything reads back."""
    files, learned = ModelFiles(tmp_path / "m"), large()
    files.write(learned)
    pieces = tmp_path / "m" / "pieces"
    before = {p.name: p.stat().st_mtime_ns for p in pieces.iterdir()}
    state = learned.lineages["toy"].serving.state
    state["rows"][30] += 1.0
    files.write(learned)
    after = {p.name: p.stat().st_mtime_ns for p in pieces.iterdir()}
    assert len(before) > 10 and len(after.items() - before.items()) == 1 and len(after) == len(before)
    found = ModelFiles(tmp_path / "m").read()
    assert same(found.lineages["toy"].serving.state, state)
    assert found.lineages["toy"].serving.state["turned"].flags.f_contiguous
    assert {p.stat().st_mode & 0o777 for p in pieces.iterdir()} == {0o600}


@pytest.mark.parametrize("damage", ["short", "long", "flipped", "gone"])
def test_a_damaged_piece_costs_its_model_and_no_other(tmp_path: Path, damage: str) -> None:
    """It is noticed, the model is set aside, the columns are read."""
    files = ModelFiles(tmp_path / "m")
    files.write(large())
    piece = max((tmp_path / "m" / "pieces").iterdir(), key=lambda p: p.stat().st_size)
    content = piece.read_bytes()
    damaged = {"short": content[:-9], "long": content + b"x", "flipped": content[:99] + b"!" + content[100:]}
    piece.unlink() if damage == "gone" else piece.write_bytes(damaged[damage])
    found = files.read()
    assert found is not None and found.lineages == {} and same(found.door, DOOR)
    assert len(files.notes) == 1 and "toy" in files.notes[0]


@pytest.mark.parametrize("damage", [False, True])
def test_pieces_of_earlier_versions_are_checked_by_their_name(tmp_path: Path, damage: bool) -> None:
    """It is their SHA-256, without the CRC-32 that is checked now."""
    data = np.random.default_rng(0).bytes(5000)
    old, into = hashlib.sha256(data).hexdigest(), bytearray(5000)
    new = Chunks(tmp_path).put(memoryview(data))
    assert new == f"{old}-{zlib.crc32(data):08x}"
    (tmp_path / old).write_bytes(data[:-1] + b"!" if damage else data)
    with pytest.raises(Damaged, match="does not match") if damage else contextlib.nullcontext():
        Chunks(tmp_path).get(old, memoryview(into))
    Chunks(tmp_path).get(new, memoryview(into))
    assert into == data and (tmp_path / old).exists() is not damage


def test_rows_of_names_come_back_as_rows(tmp_path: Path) -> None:
    """As two arrays and the few distinct names; lists of rows, as earlier versions wrote them, stay lists. What does not fit
    together is set aside."""
    told = [("pod/a/ü", "m", ""), ("pod/a/b", "m", ""), ("pod/a/ü", "m", 'k="v"'), ("pod/a/b", "m", "")]
    files = ModelFiles(tmp_path / "m")
    files.write(replace(LEARNED, door={**DOOR, "series": Rows.of(told)}))
    found = files.read().door
    assert isinstance(found["series"], Rows) and list(found["series"]) == told and found["signals"] == DOOR["signals"]
    assert list(Rows.of(told[:2]).joined(Rows.of(told[2:]))) == told and Rows.of(found["series"]) is found["series"]
    state = Rows.of(told).state()
    for wrong in ({"kind": np.array([0, 1, 2, 3])}, {"entity": np.array([0, 1, 0, -1])}, {"entities": ["a", "a"]}, {"kind": [0]}):
        with pytest.raises(ValueError, match="do not fit together"):
            Rows.restored({**state, **wrong})


@pytest.mark.slow
def test_a_copy_beside_a_journal_has_the_pieces_too(tmp_path: Path) -> None:
    """Without taking space twice; a later save does not touch it."""
    files, learned = ModelFiles(tmp_path / "m"), large()
    files.write(learned)
    files.link_into(tmp_path / "copy")
    was = learned.lineages["toy"].serving.state["rows"].copy()
    learned.lineages["toy"].serving.state["rows"][:] = 0.0
    files.write(learned)
    assert same(ModelFiles(tmp_path / "copy", repair=False).read().lineages["toy"].serving.state["rows"], was)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "gone", "foreign", "folder"])
def test_a_damaged_file_is_set_aside_and_the_others_are_read(folder: Path, damage: str) -> None:
    """With a note that names it; never fatal; and a save later makes all whole again."""
    path = next(folder.glob("toy-*.serving.*"))
    content = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "gone":
        half = len(content) // 2
        path.write_bytes({"truncated": content[:half], "flipped": content[:half] + b"\xff\x00" + content[half + 2:], "empty": b"",
                          "foreign": next(folder.glob("other*")).read_bytes()}[damage])
    files = ModelFiles(folder)
    found = files.read()
    assert found is not None and list(found.lineages) == ["other"]
    assert len(files.notes) == 1 and str(path) in files.notes[0] and "What it had learned is not used" in files.notes[0]
    assert (folder / "toy.set-aside.state").exists() is (damage not in ("gone", "folder"))
    if damage != "folder":
        ModelFiles(folder).write(LEARNED)
        assert set(ModelFiles(folder).read().lineages) == {"toy", "other"}


def test_a_model_under_another_name_is_not_taken_for_it(folder: Path) -> None:
    """Whole, with its checksum, and yet somebody else's."""
    index = json.loads((folder / "index.json").read_text())
    index["lineages"]["toy"]["serving"] = index["lineages"]["other"]["serving"]
    (folder / "index.json").write_text(json.dumps(index))
    files = ModelFiles(folder)
    assert "toy" not in files.read().lineages and "holds a model of other" in files.notes[0]


@pytest.mark.parametrize("role", ["candidate", "previous"])
def test_without_its_candidate_or_former_model_a_detector_goes_on(folder: Path, role: str) -> None:
    """They are missed, and that is all."""
    next(folder.glob(f"*.{role}.*")).write_bytes(b"x")
    lineage = ModelFiles(folder).read().lineages["toy"]
    assert getattr(lineage, role) is None and lineage.serving is not None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"aiops_models": 2}', b'{"aiops_models": 1}', b"\xff\xfe",
                                     b'{"aiops_models": 1, "columns": {"file": "../x", "sha256": ""}, "lineages": {}}'])
def test_a_damaged_index_is_set_aside(folder: Path, content: bytes) -> None:
    """Without it nobody knows what belongs together: everything begins anew, and says so."""
    (folder / "index.json").write_bytes(content)
    files = ModelFiles(folder)
    assert files.read() is None and len(files.notes) == 1
    assert (folder / "index.set-aside.json").read_bytes() == content


def test_who_only_reads_changes_nothing(folder: Path) -> None:
    """A replay looks at the files of a running daemon."""
    next(folder.glob("toy-*.serving.*")).write_bytes(b"x")
    before = names(folder)
    files = ModelFiles(folder, repair=False)
    assert list(files.read().lineages) == ["other"] and names(folder) == before


@pytest.mark.parametrize("broken", range(6))
def test_a_crash_while_saving_leaves_the_last_whole_save(folder: Path, monkeypatch: pytest.MonkeyPatch, broken: int) -> None:
    """After any number of files; what was half written is swept away with the next save."""
    left = [broken]
    real = os.fsync

    def crash(number: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        real(number)
    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(OSError, match="No space left"):
        ModelFiles(folder).write(replace(LEARNED, at=2000.0))
    monkeypatch.setattr(os, "fsync", real)
    files = ModelFiles(folder)
    assert files.read().at == 1000.0 and files.notes == []
    files.write(replace(LEARNED, at=3000.0))
    assert ModelFiles(folder).read().at == 3000.0 and len(list(folder.iterdir())) == 6


def test_strangers_in_the_folder_are_left_alone(folder: Path) -> None:
    """Only our own names are ever deleted."""
    (folder / "README").write_text("x")
    (folder / "mine.npz").write_bytes(b"x")
    ModelFiles(folder).write(LEARNED)
    assert {"README", "mine.npz"} <= set(names(folder))


def test_a_save_can_be_put_elsewhere_and_stays_what_it_was(folder: Path, tmp_path: Path) -> None:
    """Beside a journal, whatever is saved later; on the same disk it takes no space."""
    ModelFiles(folder).link_into(tmp_path / "there")
    assert next((tmp_path / "there").glob("columns*")).stat().st_nlink == 2
    ModelFiles(folder).write(replace(LEARNED, at=2000.0))
    found = ModelFiles(tmp_path / "there", repair=False).read()
    assert found.at == 1000.0 and set(found.lineages) == {"toy", "other"}


def test_where_nothing_can_be_linked_it_is_copied(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems know no links."""
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")
    monkeypatch.setattr(os, "link", refuse)
    ModelFiles(folder).link_into(tmp_path / "there")
    assert ModelFiles(tmp_path / "there").read().at == 1000.0
