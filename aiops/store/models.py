"""What was learned, on disk: one file a model, one for the columns, and an index that says which of them count.

A save writes new files first and then replaces `index.json`: a crash at any point leaves the last whole save. Every file
is checked against the SHA-256 in the index. Large arrays lie in pieces beside the files (`aiops.store.chunks`): a save
writes only those that changed. Nothing is pickled: it is MessagePack. Columns are known by entity and signal
(`columns.…state`), so that series may come in another order after a restart.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from aiops.models import Learned, Lineage, Saved
from aiops.rows import Rows
from aiops.store.chunks import CHUNK, Chunks, Damaged, settle

JSON = dict[str, Any]
FORMAT = 3
READ = (1, 2, FORMAT)
INDEX, PIECES = "index.json", "pieces"
_OURS = re.compile(r".+\.(?P<number>\d{6,})\.(state|npz)(\.part)?\Z")
ROWS = ("signals", "series")
"""Of the door, what is kept by names; lists of rows in earlier formats."""
ROLES = ("serving", "candidate", "previous")
_ARRAY, _LIST = 1, 2
"""MessagePack's codes for what lies beside: an array, a long list."""
LONG = 10_000


class ModelFiles:
    """One folder of them. Not thread-safe: one save at a time.

    `notes`: what `read` had to set aside, for people. repair: whether it may rename what is damaged.
    """

    def __init__(self, folder: Path, repair: bool = True) -> None:
        self.folder, self._repair = folder, repair
        self._chunks = Chunks(folder / PIECES, repair)
        self.notes: list[str] = []
        self._kept: dict[str, tuple[Saved, JSON]] = {}

    # ------------------------------------------------------------------------------------------------------ reading
    def read(self) -> Learned | None:
        """The last whole save, less what is damaged; None where there is none. Never raises for what is in the files."""
        path = self.folder / INDEX
        if not path.exists():
            return None
        try:
            index = json.loads(path.read_text(encoding="utf-8"))
            if index.get("aiops_models") not in READ:
                raise Damaged(f"format {index.get('aiops_models')}, this aiops reads formats {READ[0]} to {FORMAT}")
            columns = self._load(index["columns"])
            found = {name: lineage for name, entry in index["lineages"].items()
                     if (lineage := self._lineage(name, entry, columns["trials"].get(name, {})))}
            door = {k: Rows.restored(v) if k in ROWS and isinstance(v, dict) else v for k, v in columns["door"].items()}
            return Learned(float(index["at"]), door, found, columns["more"], bool(index["ended"]))
        except (Damaged, OSError, ValueError, KeyError, TypeError, AttributeError) as e:
            self._set_aside(path, "index", str(e))
            return None

    def _lineage(self, name: str, entry: JSON, trial: JSON) -> Lineage | None:
        saved = {role: self._saved(name, entry[role]) for role in ROLES if entry.get(role)}
        if "serving" not in saved or saved["serving"] is None:
            return None
        return Lineage(saved["serving"], saved.get("candidate"), saved.get("previous"), entry["refused"],
                       float(entry["since"]), trial)

    def _saved(self, name: str, entry: JSON) -> Saved | None:
        try:
            found = self._load(entry)
            if found["detector"] != name:
                raise Damaged(f"holds a model of {found['detector']}")
            saved = Saved(name, int(found["version"]), found["settings"], float(found["at"]), found["state"])
        except (Damaged, OSError, ValueError, KeyError, TypeError) as e:
            self._set_aside(self.folder / str(entry.get("file", "")), name, str(e))
            return None
        return saved

    def _load(self, entry: JSON) -> JSON:
        path = self.folder / Path(entry["file"]).name
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != entry["sha256"]:
            raise Damaged("does not match its checksum")
        if path.suffix == ".npz":
            return _format_1(path)
        try:
            file = msgspec.msgpack.decode(content, type=_File)
            found: JSON = unpacked(file.value, [self._array(a) for a in file.arrays])
            return found
        except msgspec.DecodeError as e:
            raise Damaged(str(e)) from None

    def _array(self, a: _Array) -> NDArray[Any]:
        out = np.empty(a.shape, np.dtype(a.dtype), order="F" if a.fortran else "C")
        if a.pieces:
            self._chunks.get_array(a.pieces, out)
        elif out.nbytes != len(a.data):
            raise Damaged(f"an array of {out.nbytes} bytes is {len(a.data)} bytes long")
        else:
            out.reshape(-1, order="A").view(np.uint8)[:] = np.frombuffer(a.data, np.uint8)
        return out

    def _set_aside(self, path: Path, name: str, why: str) -> None:
        """Out of the way, under a name that the next one of its kind takes over: one of each is kept."""
        aside = path.with_name(f"{name}.set-aside{path.suffix}")
        what = f"{path}: {why}. What it had learned is not used"
        try:
            if self._repair and path.is_file():
                path.replace(aside)
                what += f"; it was moved to {aside.name}"
        except OSError as e:
            what += f", and it cannot be moved: {e.strerror}"
        self.notes.append(what + ".")

    def keep_a_copy(self, name: str) -> None:
        """What a detector's serving model had learned stays as `NAME.set-aside.state`: this version cannot read it."""
        index = json.loads((self.folder / INDEX).read_text(encoding="utf-8"))
        source, aside = self.folder / index["lineages"][name]["serving"]["file"], self.folder / f"{name}.set-aside.state"
        aside.unlink(missing_ok=True)
        _link(source, aside)

    # ------------------------------------------------------------------------------------------------------ writing
    def write(self, learned: Learned) -> None:
        """Save it all; what was saved before is gone only after that. Raises OSError when the disk refuses."""
        self.folder.mkdir(parents=True, exist_ok=True)
        number = 1 + max((int(m["number"]) for p in self.folder.iterdir() if (m := _OURS.match(p.name))), default=0)
        trials = {name: lineage.trial for name, lineage in learned.lineages.items()}
        columns = {"door": learned.door, "more": learned.more, "trials": trials}
        index = {"aiops_models": FORMAT, "at": learned.at, "ended": learned.ended,
                 "columns": self._dump(f"columns.{number:06d}.state", columns),
                 "lineages": {name: self._entry(name, lineage, number) for name, lineage in learned.lineages.items()}}
        self._chunks.settle()
        _replace(self.folder / INDEX, json.dumps(index, indent=1).encode())
        self._sweep(index)

    def _entry(self, name: str, lineage: Lineage, number: int) -> JSON:
        return {"serving": self._model(lineage.serving, "serving", number),
                "candidate": lineage.candidate and self._model(lineage.candidate, "candidate", number),
                "previous": lineage.previous and self._former(name, lineage.previous, number),
                "refused": lineage.refused, "since": lineage.since}

    def _model(self, saved: Saved, role: str, number: int) -> JSON:
        about = {"detector": saved.detector, "version": saved.version, "settings": dict(saved.settings), "at": saved.at,
                 "state": saved.state}
        return {"id": saved.id, **self._dump(f"{saved.id}.{role}.{number:06d}.state", about)}

    def _former(self, name: str, saved: Saved, number: int) -> JSON:
        """The model of before does not change: it is written once."""
        known = self._kept.get(name)
        if known is None or known[0] is not saved:
            known = self._kept[name] = saved, self._model(saved, "previous", number)
        return known[1]

    def _dump(self, name: str, value: JSON) -> JSON:
        text, arrays = packed(value)
        file = _File(text, [self._entry_of(np.asanyarray(a)) for a in arrays])
        content = msgspec.msgpack.encode(file)
        _replace(self.folder / name, content)
        pieces = [piece for a in file.arrays for piece in a.pieces]
        return {"file": name, "sha256": hashlib.sha256(content).hexdigest(), **({"pieces": pieces} if pieces else {})}

    def _entry_of(self, array: NDArray[Any]) -> _Array:
        fortran = array.flags.f_contiguous and not array.flags.c_contiguous
        array = array if fortran else np.ascontiguousarray(array)
        entry = _Array(array.dtype.str, array.shape, fortran)
        if array.nbytes > CHUNK:
            entry.pieces = self._chunks.put_array(array)
        else:
            entry.data = array.tobytes(order="A")
        return entry

    def _sweep(self, index: JSON) -> None:
        """Delete what the index no longer names: earlier saves, and what a crash left half written."""
        named = _files(index)
        for path in self.folder.iterdir():
            if _OURS.match(path.name) and path.name not in named:
                path.unlink(missing_ok=True)
        self._chunks.sweep(_pieces(index))

    def link_into(self, target: Path) -> None:
        """The last save once more in another folder, without taking space twice where the disk can do that. Raises OSError.

        Another thread may save meanwhile: what was linked is that of one save.
        """
        while not self._linked(target):
            shutil.rmtree(target)

    def _linked(self, target: Path) -> bool:
        """Whether it was one save from the first file to the last."""
        text = (self.folder / INDEX).read_bytes()
        index = json.loads(text)
        target.mkdir(parents=True)
        for name in sorted(_files(index)):
            _link_if_there(self.folder / name, target / name)
        pieces = sorted(_pieces(index))
        if pieces:
            (target / PIECES).mkdir()
        for name in pieces:
            _link_if_there(self._chunks.path(name), target / PIECES / name)
        _link(self.folder / INDEX, target / INDEX)
        return (target / INDEX).read_bytes() == text


class _Array(msgspec.Struct, array_like=True):
    """An array: its bytes in the order they lie, here or in pieces."""

    dtype: str
    shape: tuple[int, ...]
    fortran: bool
    data: bytes = b""
    pieces: list[str] = []


class _File(msgspec.Struct, array_like=True):
    """One value, as MessagePack, and the arrays that it names by number."""

    value: bytes
    arrays: list[_Array]


def _entries(index: JSON) -> list[JSON]:
    """The columns and every model that the index names."""
    return [index["columns"], *(e[role] for e in index["lineages"].values() for role in ROLES if e[role])]


def _files(index: JSON) -> set[str]:
    return {entry["file"] for entry in _entries(index)}


def _pieces(index: JSON) -> set[str]:
    return {piece for entry in _entries(index) for piece in entry.get("pieces", ())}


class _Long:
    """A long list, to be kept as a piece of its own: most of it is as it was in the last save."""

    def __init__(self, items: list[Any]) -> None:
        self.blob = np.frombuffer(msgspec.msgpack.encode(items), np.uint8)


def packed(value: Any) -> tuple[bytes, list[NDArray[Any]]]:
    """A value of maps, lists, arrays and plain values as MessagePack, with its arrays beside it. Raises TypeError."""
    arrays: list[NDArray[Any]] = []

    def beside(code: int, array: NDArray[Any]) -> msgspec.msgpack.Ext:
        arrays.append(array)
        return msgspec.msgpack.Ext(code, str(len(arrays) - 1).encode())

    def other(found: Any) -> Any:
        if isinstance(found, np.ndarray) and not found.dtype.hasobject:
            return beside(_ARRAY, found)
        if isinstance(found, _Long):
            return beside(_LIST, found.blob)
        if isinstance(found, np.generic):
            return found.item()
        if isinstance(found, Mapping):
            return dict(found)
        raise TypeError(f"a {type(found).__name__} cannot be saved")
    return msgspec.msgpack.encode(_long_lists(value), enc_hook=other), arrays


def _long_lists(value: Any) -> Any:
    """Maps with their long lists set apart; rows of names as maps."""
    if isinstance(value, Rows):
        value = value.state()
    if isinstance(value, Mapping):
        return {k: _long_lists(v) for k, v in value.items()}
    return _Long(value) if isinstance(value, list) and len(value) >= LONG else value


def unpacked(text: bytes, arrays: list[NDArray[Any]]) -> Any:
    """The reverse; tuples come back as lists."""
    def found(code: int, number: memoryview) -> Any:
        array = arrays[int(bytes(number))]
        return array if code == _ARRAY else msgspec.msgpack.decode(array.data)
    return msgspec.msgpack.decode(text, ext_hook=found)


def _format_1(path: Path) -> JSON:
    """A file of earlier versions: JSON, with places of arrays as `{"$array": NAME}`. Raises Damaged."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found: JSON = json.loads(arrays["json"].tobytes(), object_hook=lambda x: arrays[x["$array"]] if "$array" in x else x)
            return found
    except (zipfile.BadZipFile, EOFError) as e:
        raise Damaged(str(e)) from None


def _replace(path: Path, content: bytes) -> None:
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        part.chmod(0o600)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    settle(path.parent)


def _link_if_there(source: Path, target: Path) -> None:
    """What is damaged was set aside, and a save that is replaced meanwhile is gone."""
    try:
        if source.is_file():
            _link(source, target)
    except FileNotFoundError:
        target.unlink(missing_ok=True)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
