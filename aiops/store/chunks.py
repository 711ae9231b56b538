"""Pieces of large arrays on disk, each a file named after its SHA-256: what did not change is not written again.

The name ends in the piece's CRC-32, which is what a reader checks: that a disk or a copy damaged it is all that can be, and
telling that takes a quarter of the time. Pieces of earlier versions have no such end, and are checked by their SHA-256.
A piece is written beside its place and moved there, and is never changed; a crash leaves whole pieces that nobody names, which
`sweep` removes.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

CHUNK = 4 << 20
READERS = 4
"""Threads that read and check pieces: both leave the interpreter alone."""


class Damaged(Exception):  # noqa: N818 - reads as what it is
    """A file that does not hold what it should. The text says what is wrong with it."""


class Chunks:
    """One folder of pieces. repair: whether a piece that turns out damaged is removed, so that it is written again."""

    def __init__(self, folder: Path, repair: bool = True) -> None:
        self.folder, self._repair = folder, repair
        self._unsettled = False

    def path(self, name: str) -> Path:
        """Where the piece of that name lies, or would."""
        return self.folder / Path(name).name

    def put(self, data: memoryview) -> str:
        """The name of the piece; written if it is not there. Raises OSError when the disk refuses."""
        name = f"{hashlib.sha256(data).hexdigest()}-{zlib.crc32(data):08x}"
        path = self.path(name)
        if not path.exists() or path.stat().st_size != len(data):
            self.folder.mkdir(parents=True, exist_ok=True)
            part = path.with_name(name + ".part")
            with part.open("wb") as file:
                part.chmod(0o600)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
            self._unsettled = True
        return name

    def settle(self) -> None:
        """Wait until all pieces that were put are on disk, by their names too. Raises OSError."""
        if self._unsettled:
            settle(self.folder)
            self._unsettled = False

    def get(self, name: str, into: memoryview) -> None:
        """Fills `into` with the piece. Raises Damaged, OSError."""
        with self.path(name).open("rb") as file:
            if file.readinto(into) != len(into) or file.read(1):
                raise Damaged(f"its piece {name[:12]} is not {len(into)} bytes long")
        _, _, checksum = name.partition("-")
        if (checksum != f"{zlib.crc32(into):08x}") if checksum else (hashlib.sha256(into).hexdigest() != name):
            if self._repair:
                self.path(name).unlink(missing_ok=True)
            raise Damaged(f"its piece {name[:12]} does not match its checksum")

    def put_array(self, array: NDArray[np.generic]) -> list[str]:
        """The names of its pieces: whole rows as long as those are not large, so that one that changes is one piece."""
        data = _bytes_of(array)
        row = array.nbytes // len(array)
        size = row * max(1, CHUNK // row) if 0 < row <= 4 * CHUNK else CHUNK
        return [self.put(data[k:k + size]) for k in range(0, len(data), size)]

    def get_array(self, names: list[str], array: NDArray[np.generic]) -> None:
        """Fills a contiguous array from its pieces. Raises Damaged, OSError."""
        data = _bytes_of(array)
        ends = list(itertools.accumulate(self.path(name).stat().st_size for name in names))
        if (ends or [0])[-1] != len(data):
            raise Damaged(f"its pieces are {(ends or [0])[-1]} bytes, not {len(data)}")
        parts = [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        with ThreadPoolExecutor(READERS) as readers:
            for _ in readers.map(self.get, names, parts):
                """Raises what reading that piece raised."""

    def sweep(self, keep: set[str]) -> None:
        """Delete all pieces but these, and what a crash left half written."""
        for path in self._all():
            if path.name not in keep:
                path.unlink(missing_ok=True)

    def _all(self) -> Iterator[Path]:
        return self.folder.iterdir() if self.folder.is_dir() else iter(())


def settle(folder: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk. Raises OSError."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _bytes_of(array: NDArray[np.generic]) -> memoryview:
    """A contiguous array's memory, in the order it lies."""
    return array.reshape(-1, order="A").view(np.uint8).data
