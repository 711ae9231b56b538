"""A stream of bytes cut into lines, with a bound on how long one may be."""

from __future__ import annotations


class Lines:
    """Bytes in, whole lines out, without their newline.

    Of a line longer than `most` bytes the first `most` are handed over, once, and the rest of it is skipped: `cut` counts.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._pieces: list[bytes] = []
        self._size = 0
        self._skipping = False
        self.cut = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that this chunk completes."""
        *whole, rest = chunk.split(b"\n")
        lines = [line for line in (self._end(piece) for piece in whole) if line is not None]
        lines += self._keep(rest)
        return lines

    def rest(self) -> bytes:
        """What has come of a line without an end."""
        return b"".join(self._pieces)

    def _end(self, piece: bytes) -> bytes | None:
        if self._skipping:
            self._skipping = False
            return None
        line = b"".join((*self._pieces, piece)) if self._pieces else piece
        self._pieces, self._size = [], 0
        if len(line) > self._most:
            self.cut += 1
        return line[:self._most]

    def _keep(self, piece: bytes) -> list[bytes]:
        """Keeps the beginning of a line; hands it over where it is too long already."""
        if self._skipping or not piece:
            return []
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size <= self._most:
            return []
        line, self._pieces, self._size = self.rest()[:self._most], [], 0
        self._skipping = True
        self.cut += 1
        return [line]
