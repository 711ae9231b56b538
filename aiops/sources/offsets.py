"""Where a source went on reading, kept in a small file: written whole, or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class Place:
    """A JSON value in a file. `problem` says in one line why the last `save` or `load` failed, "" for not."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._saved = ""
        self.problem = ""

    def load(self) -> Any:
        """What was saved last; None for nothing, and for what cannot be read."""
        if self._path is None:
            return None
        try:
            self._saved = self._path.read_text(encoding="utf-8")
            return json.loads(self._saved)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as e:
            self.problem = f"{self._path}: not understood, starts without it: {getattr(e, 'strerror', None) or e}"
            return None

    def save(self, value: Any) -> None:
        """Write it where it has changed. A crash in between leaves what was there before."""
        text = json.dumps(value, separators=(",", ":"))
        if self._path is None or text == self._saved:
            return
        part = self._path.with_suffix(".part")
        try:
            with part.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self._path)
        except OSError as e:
            self.problem = f"{self._path}: cannot be written, a restart may repeat lines: {(e.strerror or str(e)).lower()}"
            return
        self._saved, self.problem = text, ""


def note(notes: dict[str, str], key: str, there: bool, text: str) -> None:
    """What a source says to people: there while it holds, gone after."""
    if there:
        notes[key] = text
    else:
        notes.pop(key, None)
