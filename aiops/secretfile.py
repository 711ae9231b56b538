"""A secret that rotates: read from its file again whenever that changes."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path

import structlog

log = structlog.get_logger("aiops.secrets")
Secret = Callable[[], str]
"""Says what the secret is now."""
_ONE_LINE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")


def read(path: Path) -> str:
    """The secret without the newline at its end. Raises ValueError with a text that names the file, never its content."""
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as e:
        why = (e.strerror or str(e)).lower() if isinstance(e, OSError) else "it is not text"
        raise ValueError(f"{path}: the secret cannot be read: {why}. Check the path and the rights of the file.") from None
    if not text:
        raise ValueError(f"{path}: is empty. Put the secret into it.")
    return text


def header(text: str) -> None:
    """Raises ValueError for what cannot be sent as a token."""
    if not _ONE_LINE.fullmatch(text):
        raise ValueError("holds more than one line, or characters that no header may have. Put the token alone into it.")


class SecretFile:
    """Called, it says what is in the file now. Where that can no longer be used, what was there last still counts (logged once).

    check: raises ValueError for what is no such secret; its text must not repeat the secret. Raises ValueError when made on
    a file that cannot be used. Thread-safe; costs one stat a call.
    """

    def __init__(self, path: Path, check: Callable[[str], object] = lambda text: None) -> None:
        self._path, self._check, self._lock = path, check, threading.Lock()
        self._seen = self._stamp()
        self._text = self._checked()

    def __call__(self) -> str:
        with self._lock:
            stamp = self._stamp()
            if stamp != self._seen:
                self._seen = stamp
                self._again()
            return self._text

    def _again(self) -> None:
        try:
            text = self._checked()
        except ValueError as e:
            log.warning("a secret changed and cannot be used; the last one still counts", problem=str(e))
            return
        if text != self._text:
            log.info("a secret was read again", file=str(self._path))
        self._text = text

    def _checked(self) -> str:
        text = read(self._path)
        try:
            self._check(text)
        except ValueError as e:
            raise ValueError(f"{self._path}: {e}") from None
        return text

    def _stamp(self) -> tuple[int, ...]:
        """Changes with the file; also where a symbolic link leads elsewhere, as Kubernetes does with Secrets."""
        try:
            found = self._path.stat()
        except OSError:
            return ()
        return found.st_mtime_ns, found.st_ino, found.st_size
