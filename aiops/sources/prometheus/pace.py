"""How much history is asked for at once: pieces that fit into memory, by queries that do not hold up the server."""

from __future__ import annotations

MIN_PIECE_S, FIRST_PIECE_S, MAX_PIECE_S = 60.0, 300.0, 6 * 3600.0
PIECE_SAMPLES = 1_000_000
"""As many samples of history are read before the pipeline is let at them; the length of a piece follows."""
QUERY_S = 2.0
"""So long may a query for history run; pieces get shorter where it takes longer."""


class Pace:
    """The length of the next piece, `piece_s`, from what the last one brought and how long its slowest query took."""

    def __init__(self) -> None:
        self.piece_s = FIRST_PIECE_S
        self._most_s = MAX_PIECE_S
        self._slowest_s, self._samples = 0.0, 0

    def begin(self) -> None:
        """A new piece."""
        self._slowest_s, self._samples = 0.0, 0

    def took(self, seconds: float) -> None:
        """A query of this piece ran for so long."""
        self._slowest_s = max(self._slowest_s, seconds)

    def read(self, samples: int) -> None:
        """A query of this piece brought so many."""
        self._samples += samples

    def too_long(self, seconds: float) -> None:
        """A query over so many seconds was too much for the server."""
        self._most_s = max(MIN_PIECE_S, seconds / 2)

    def resize(self) -> None:
        """The next piece takes in about as many samples, and its queries about as long, as they should."""
        fits = min(PIECE_SAMPLES / max(1, self._samples), QUERY_S / max(1e-3, self._slowest_s), 2.0)
        self.piece_s = min(max(self.piece_s * fits, MIN_PIECE_S), self._most_s)
        self._most_s = min(self._most_s * 1.05, MAX_PIECE_S)
