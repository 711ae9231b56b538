"""The folder of capsules: one folder an incident, whole or not there, and within bounds.

A capsule is written as `ID.part` and takes its place by renaming; what it replaces is `ID.gone` for that moment. `capsule.json`
names every file with its size and SHA-256, so that a damaged one is not believed. `ID.job` says that the incident is not over
yet: such a capsule is never evicted.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

from aiops.store.chunks import settle

JSON = dict[str, Any]
FORMAT = 1
MANIFEST = "capsule.json"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")
_LEFT = (".part", ".gone", ".job", ".before")
MOST_MANIFEST = 4 << 20


class CapsuleError(Exception):
    """A capsule that is not there or cannot be believed. The text names it and the remedy."""


def is_capsule(folder: Path) -> bool:
    """Whether the folder says that it is one."""
    return (folder / MANIFEST).is_file()


def manifest(folder: Path) -> JSON:
    """What the capsule says of itself: incident, title, opened_at, closed_at, from, until, figures, `files`.

    Raises CapsuleError.
    """
    path = folder / MANIFEST
    try:
        if path.stat().st_size > MOST_MANIFEST:
            raise ValueError(f"is larger than {MOST_MANIFEST >> 20} MiB")
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict) or not isinstance(found.get("files"), dict):
            raise ValueError("names no files")
    except (OSError, ValueError) as e:
        why = e.strerror if isinstance(e, OSError) else str(e)
        raise CapsuleError(f"{path}: not a capsule: {why}. Export it again with 'aiops capsule export'.") from None
    if found.get("aiops_capsule") != FORMAT:
        raise CapsuleError(f"{path}: capsule format {found.get('aiops_capsule')!r}; "
                           f"this aiops reads format {FORMAT}. Update aiops.")
    return found


def check(folder: Path) -> JSON:
    """The manifest, once every file was found to be as it says. Raises CapsuleError."""
    about = manifest(folder)
    for name, told in about["files"].items():
        path = folder / name
        if ".." in Path(name).parts or Path(name).is_absolute() or path.is_symlink() or not path.is_file():
            raise CapsuleError(f"{path}: is missing. Export the capsule again with 'aiops capsule export'.")
        if [path.stat().st_size, _sha256(path)] != told:
            raise CapsuleError(f"{path}: does not match its checksum. Export the capsule again with 'aiops capsule export'.")
    return about


def seal(part: Path, about: JSON) -> JSON:
    """Writes the manifest over all files of the folder and brings everything to the disk. Raises OSError."""
    paths = sorted(p for p in part.rglob("*") if p.is_file() and p.name != MANIFEST)
    files = {p.relative_to(part).as_posix(): (p.stat().st_size, _sha256(p)) for p in paths}
    whole = {"aiops_capsule": FORMAT, **about, "bytes": sum(size for size, _ in files.values()), "files": files}
    (part / MANIFEST).write_text(json.dumps(whole, indent=1), encoding="utf-8")
    for path in (*paths, part / MANIFEST):
        path.chmod(0o600)
        settle(path)
    settle(part)
    return whole


def place(part: Path, out: Path) -> None:
    """The sealed folder takes the place of an earlier one of that name. A crash in between is mended by `recover`."""
    gone = out.with_name(out.name + ".gone")
    shutil.rmtree(gone, ignore_errors=True)
    if out.exists():
        out.rename(gone)
    part.rename(out)
    settle(out.parent)
    shutil.rmtree(gone, ignore_errors=True)


def recover(folder: Path) -> None:
    """What a crash has left: half a capsule goes, one that was about to be replaced comes back."""
    for part in folder.glob("*.part"):
        shutil.rmtree(part, ignore_errors=True)
    for gone in folder.glob("*.gone"):
        out = gone.with_suffix("")
        if out.exists():
            shutil.rmtree(gone, ignore_errors=True)
        else:
            gone.rename(out)


def listing(folder: Path) -> list[JSON]:
    """What each capsule says of itself, without its files, the newest incident first; damaged ones are left out."""
    found = []
    for path in _capsules(folder):
        try:
            about = manifest(path)
        except CapsuleError:
            continue
        found.append({k: v for k, v in about.items() if k != "files"} | {"whole": not _job(path).exists()})
    return sorted(found, key=lambda c: (-_number(c.get("opened_at")), str(c.get("incident"))))


def find(folder: Path, name: str) -> Path | None:
    """The capsule of an incident; None where there is none, or the name is no name."""
    path = folder / name
    return path if NAME.match(name) and not name.endswith(_LEFT) and is_capsule(path) else None


def evict(folder: Path, keep: int, max_bytes: int) -> list[str]:
    """Removes the capsules of the incidents that closed first until at most `keep` with `max_bytes` are left.

    Those of incidents that are not over stay, whatever they take. Returns the names of what went.
    """
    known = [(path, _closed_at(path), _size(path)) for path in _capsules(folder)]
    count, total = len(known), sum(size for *_, size in known)
    over = sorted((k for k in known if not _job(k[0]).exists()), key=lambda k: (k[1], k[0].name))
    gone = []
    for path, _, size in over:
        if count <= keep and total <= max_bytes:
            break
        shutil.rmtree(path, ignore_errors=True)
        count, total = count - 1, total - size
        gone.append(path.name)
    return gone


def _capsules(folder: Path) -> list[Path]:
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(p for p in found if bool(NAME.match(p.name)) and not p.name.endswith(_LEFT) and is_capsule(p))


def _closed_at(path: Path) -> float:
    """When its incident was over; a capsule that cannot be read goes first."""
    try:
        about = manifest(path)
    except CapsuleError:
        return 0.0
    return _number(about.get("closed_at") or about.get("until"))


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _job(path: Path) -> Path:
    return path.with_name(path.name + ".job")


def _size(path: Path) -> int:
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
