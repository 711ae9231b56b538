"""A capsule as one file, `ID.tar.gz`, and back. Archives come from anybody: nothing in them is believed before it was checked."""

from __future__ import annotations

import gzip
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from aiops.store.capsules import NAME, CapsuleError, is_capsule

MOST_BYTES, MOST_FILES, MOST_DEPTH = 2 << 30, 200, 3
"""What an archive may unpack to."""
CHUNK = 1 << 20


def pack(folder: Path, out: IO[bytes]) -> None:
    """Writes the capsule as a tar.gz; equal capsules give equal bytes. Raises OSError."""
    with gzip.GzipFile(filename="", mode="wb", fileobj=out, compresslevel=6, mtime=0) as packed, \
            tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.is_symlink()):
            about = tarfile.TarInfo(f"{folder.name}/{path.relative_to(folder).as_posix()}")
            with path.open("rb") as file:
                about.size = path.stat().st_size
                about.mode = 0o600
                tar.addfile(about, file)


def unpack(archive: Path, into: Path) -> Path:
    """Unpacks an archive into an empty folder and returns the capsule in it. Raises CapsuleError for whatever else is in it.

    Regular files only, below one folder, with plain names, in bounds: no links, no devices, no absolute or upward paths.
    """
    try:
        with tarfile.open(archive, mode="r|gz") as tar:
            names = _extract(archive, tar, into)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, UnicodeError, OverflowError, ValueError) as e:
        raise CapsuleError(f"{archive}: not a capsule's archive: {e}. Export it again with 'aiops capsule export'.") from None
    roots = {name.split("/")[0] for name in names}
    if len(roots) != 1 or not is_capsule(into / next(iter(roots))):
        raise CapsuleError(f"{archive}: holds no capsule. Give a file that 'aiops capsule export' wrote.")
    return into / roots.pop()


def _extract(archive: Path, tar: tarfile.TarFile, into: Path) -> list[str]:
    names: list[str] = []
    room = MOST_BYTES
    for member in tar:
        if member.isdir():
            continue
        parts = member.name.split("/")
        if not member.isreg() or not 2 <= len(parts) <= MOST_DEPTH or not all(NAME.match(p) for p in parts):
            raise CapsuleError(f"{archive}: {member.name[:100]!r} does not belong into a capsule. It was not unpacked.")
        room -= member.size
        if room < 0 or len(names) >= MOST_FILES or member.name in names:
            raise CapsuleError(f"{archive}: larger than a capsule may be ({MOST_BYTES >> 30} GiB, {MOST_FILES} files). "
                               "It was not unpacked.")
        names.append(member.name)
        _write(tar, member, into.joinpath(*parts))
    return names


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    source = tar.extractfile(member)
    assert source is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as target:
        path.chmod(0o600)
        shutil.copyfileobj(source, target, CHUNK)
        if target.tell() != member.size:
            raise tarfile.ReadError("ends early")


@contextmanager
def opened(path: Path) -> Iterator[Path]:
    """The folder of a recording: itself, or what an archive unpacks to, for as long as the context lasts. Raises CapsuleError."""
    if path.is_dir():
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="aiops-capsule-") as scratch:
        yield unpack(path, Path(scratch))


def save(folder: Path, out: Path) -> Path:
    """The capsule at `out`: as an archive where its name ends in .tar.gz or .tgz, else as a folder. Raises OSError, CapsuleError.

    What is there already is not replaced, unless it is an empty folder.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise CapsuleError(f"{out}: is there already. Remove it, or give another name with -o.")
    part = out.with_name(out.name + ".part")
    try:
        if out.name.endswith((".tar.gz", ".tgz")):
            with part.open("xb") as file:
                part.chmod(0o600)
                pack(folder, file)
        else:
            shutil.copytree(folder, part)
        if out.is_dir():
            out.rmdir()
        part.rename(out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True) if part.is_dir() else part.unlink(missing_ok=True)
        raise
    return out
