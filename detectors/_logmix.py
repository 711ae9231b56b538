"""What one entity's kinds of line have to do with each other: the share of each kind of error, and who follows whom.

Lines of a minute are compared with each other and not with the clock. Twice the traffic, half of it, or logs that are there for
a while only change neither: a request that logs `find` and then `found` does so at any rate. Both questions are about shares
(of so many lines, of so many leaders), answered by the beta-binomial law around what was learned. Lines come in bunches, one
request logs many, so what was learned counts for half of its lines.

Fails where two kinds alternate by themselves for longer than it looks back, and on an entity with more than MOST kinds: the
rarest are not followed.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

MOST = 32
"""Kinds of line of one entity that are followed."""
KEEP = 1.0 - 1.0 / 500
"""What was learned counts for so much less after each tick with lines."""
WINDOW_S = 60.0
"""Ticks of so long are judged together: few lines say little."""
LEAST_LINES, LEAST_TICKS = 100.0, 8
LEAST_LEADERS, LEAST_SEEN = 15.0, 4.0
FOLLOWS, LEADERS = 0.8, 3
"""So often at least a follower comes with its leader; so many leaders are asked, those that it follows most surely."""
LEAST_MISSED = 1.0
LOOSE = 1.5
"""Counts of two that only share their traffic differ from a fixed ratio by a variance of about 1 + ratio per line; a follower's
by no more than so many times that. Two ways that a request may take differ by far more."""
INSTEAD = 0.5
"""Where another kind, no error, came in place of so many of those that are missing, another way was taken and nothing failed."""
BUNCH = 2.0
ODDS_ERROR, ODDS_MISSED = 0.05, 0.5
"""Errors of a kind, and missing followers, that are believed in before anything was seen."""
MOST_TRIALS = 400
"""More trials are taken for so many, with the same share: the tail has that many terms."""


@dataclass(frozen=True, slots=True)
class Odd:
    """`count` of `trials` where `usual` (0..1) of them are: of an error among all lines, or of a kind that follows `leader`."""

    p_value: float
    kind: str
    leader: str
    count: int
    trials: int
    usual: float


class Mix:
    """Judge what came, then learn it a minute later. Bounded: MOST kinds, and the lines of one minute as counts."""

    def __init__(self) -> None:
        self.ticks, self.lines = 0, 0.0
        self.ids: dict[str, int] = {}
        self.total, self.seen = np.zeros(MOST), np.zeros(MOST)
        self.both, self.cross = np.zeros((MOST, MOST)), np.zeros((MOST, MOST))
        self._recent: deque[tuple[float, Mapping[str, int]]] = deque()

    def hear(self, at: float, counts: Mapping[str, int], learn: bool) -> Counter[str]:
        """Lines of one tick, by kind. Returns those of the last minute, none where there are none now; what is older is learned,
        or where it may not be, not."""
        self._recent.append((at, dict(counts)))
        while at - self._recent[0][0] >= WINDOW_S:
            _, old = self._recent.popleft()
            if learn and old:
                self._learn(old)
        return sum((Counter(c) for _, c in self._recent), Counter()) if counts else Counter()

    # ------------------------------------------------------------------------------------------------------ judgement
    def errors(self, counts: Mapping[str, int], errors: Collection[str]) -> Odd | None:
        """The kind of error whose share of all lines is the least likely; None where too little is known."""
        if not self._ready:
            return None
        n, odd = sum(counts.values()), []
        for kind in errors:
            before = self.total[self.ids[kind]] if kind in self.ids else 0.0
            p = _tail(counts[kind], n, ODDS_ERROR + before / BUNCH, 1.0 + (self.lines - before) / BUNCH)
            odd.append(Odd(min(1.0, p * len(errors)), kind, "", counts[kind], n, before / self.lines))
        return min(odd, key=lambda o: (o.p_value, o.kind), default=None)

    def missing(self, counts: Mapping[str, int], now: Mapping[str, int], errors: Collection[str]) -> Odd | None:
        """The kind that is missing most beside those that it else follows, in this tick too; None where none is.

        counts: of the last minute; now: of this tick; errors: the kinds of it that are errors.
        """
        if not self._ready:
            return None
        tried = [o for o in self._missing(counts, errors) if now.get(o.kind, 0) < now.get(o.leader, 0) and self._fewer(o, counts)]
        best = min(tried, key=lambda o: (o.p_value, o.kind), default=None)
        return best and Odd(min(1.0, best.p_value * len(tried)), best.kind, best.leader, best.count, best.trials, best.usual)

    def _missing(self, counts: Mapping[str, int], errors: Collection[str]) -> Iterator[Odd]:
        now = self._row(counts)
        share = self.both / np.maximum(self.total, 1e-9)[:, None]
        leads = (self.total >= LEAST_LEADERS) & (self.seen >= LEAST_SEEN) & (now > 0)
        fewer = np.minimum.outer(now, now) < share * now[:, None] - LEAST_MISSED
        follows = (share >= FOLLOWS) & leads[:, None]
        np.fill_diagonal(follows, False)
        if not (follows & fewer).any():
            return
        follows &= self._in_step()
        well = self._row({kind: n for kind, n in counts.items() if kind not in errors})
        new = sum(n for kind, n in counts.items() if kind not in self.ids and kind not in errors)
        ids = list(self.ids)
        for k in np.flatnonzero((follows & fewer).any(axis=0)).tolist():
            for j in sorted(np.flatnonzero(follows[:, k]).tolist(), key=lambda j: (-share[j, k], j))[:LEADERS]:
                n, found, usual = int(now[j]), int(min(now[j], now[k])), float(share[j, k])
                instead = max(float((np.minimum(well, n) - share[j] * n).max()), float(min(new, n)))
                if fewer[j, k] and instead < INSTEAD * (usual * n - found):
                    missed = max(self.total[j] - self.both[j, k], 0.0)
                    p = _tail(n - found, n, ODDS_MISSED + missed / BUNCH, ODDS_MISSED + self.both[j, k] / BUNCH)
                    yield Odd(p, ids[k], ids[j], found, n, usual)

    def _in_step(self) -> Any:
        """bool[leader, follower]: whether the ratio of their counts hardly changes from tick to tick."""
        squares = np.maximum(np.diag(self.cross), 1e-9)
        ratio = self.cross / squares[:, None]
        left = squares[None, :] - ratio * self.cross
        return left <= LOOSE * (1.0 + ratio) * ratio * self.total[:, None]

    def _fewer(self, odd: Odd, counts: Mapping[str, int]) -> bool:
        """Than it usually is itself: else its leader comes in a burst."""
        place, ticks = self.ids[odd.kind], sum(bool(c) for _, c in self._recent)
        return bool(counts.get(odd.kind, 0) < ticks * self.total[place] / max(self.seen[place], 1.0))

    @property
    def _ready(self) -> bool:
        return self.lines >= LEAST_LINES and self.ticks >= LEAST_TICKS

    # --------------------------------------------------------------------------------------------------------- memory
    def _learn(self, counts: Mapping[str, int]) -> None:
        for kind in counts:
            self._place(kind)
        row = self._row(counts)
        self.ticks += 1
        self.lines = self.lines * KEEP + sum(counts.values())
        self.total = self.total * KEEP + row
        self.seen = self.seen * KEEP + (row > 0)
        self.both = self.both * KEEP + np.minimum.outer(row, row)
        self.cross = self.cross * KEEP + np.outer(row, row)

    def _place(self, kind: str) -> None:
        """A place of its own; where there is none, that of the rarest that comes less than once in a while."""
        if kind in self.ids:
            return
        if len(self.ids) < MOST:
            self.ids[kind] = len(self.ids)
            return
        rarest = min(self.ids, key=lambda k: (self.total[self.ids[k]], k))
        if self.total[place := self.ids[rarest]] < 1.0:
            self.ids = {kind if k == rarest else k: at for k, at in self.ids.items()}
            self._clear(place)

    def _clear(self, place: int) -> None:
        self.total[place] = self.seen[place] = 0.0
        for pairs in (self.both, self.cross):
            pairs[place, :] = pairs[:, place] = 0.0

    def rename(self, gone: str, kept: str) -> None:
        """Two kinds became one. How they went together with others is learned anew; that both came is known."""
        self._recent = deque((at, _renamed(counts, gone, kept)) for at, counts in self._recent)
        if gone not in self.ids:
            return
        if kept not in self.ids:
            self.ids = {kept if k == gone else k: at for k, at in self.ids.items()}
            return
        at, to = self.ids[gone], self.ids[kept]
        total, seen = self.total[at] + self.total[to], max(self.seen[at], self.seen[to])
        self._clear(to)
        self.total[to], self.seen[to] = total, seen
        self._give_up(gone)

    def _give_up(self, kind: str) -> None:
        """Those behind it move up: places are in the order of `ids`."""
        place = self.ids.pop(kind)
        order = np.array([*(k for k in range(MOST) if k != place), place])
        self.total, self.seen = self.total[order], self.seen[order]
        self.both, self.cross = self.both[np.ix_(order, order)], self.cross[np.ix_(order, order)]
        self._clear(MOST - 1)
        self.ids = {name: k for k, name in enumerate(self.ids)}

    def _row(self, counts: Mapping[str, int]) -> Any:
        row = np.zeros(MOST)
        for kind, n in counts.items():
            if kind in self.ids:
                row[self.ids[kind]] = n
        return row

    # ---------------------------------------------------------------------------------------------------------- state
    def state(self) -> dict[str, Any]:
        """Plain values."""
        n = len(self.ids)
        return {"ticks": self.ticks, "lines": self.lines, "ids": list(self.ids), "total": self.total[:n].tolist(),
                "seen": self.seen[:n].tolist(), "both": self.both[:n, :n].tolist(), "cross": self.cross[:n, :n].tolist(),
                "recent": [[at, dict(counts)] for at, counts in self._recent]}

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Mix:
        new, n = cls(), len(state["ids"])
        new.ticks, new.lines = int(state["ticks"]), float(state["lines"])
        new.ids = {kind: k for k, kind in enumerate(state["ids"])}
        new.total[:n], new.seen[:n] = state["total"], state["seen"]
        new.both[:n, :n], new.cross[:n, :n] = (np.reshape(state[name], (n, n)) for name in ("both", "cross"))
        new._recent = deque((float(at), dict(counts)) for at, counts in state["recent"])
        return new


def _renamed(counts: Mapping[str, int], gone: str, kept: str) -> Mapping[str, int]:
    if gone not in counts:
        return counts
    return {**{k: n for k, n in counts.items() if k != gone}, kept: counts.get(kept, 0) + counts[gone]}


def _tail(count: int, trials: int, a: float, b: float) -> float:
    """P(X >= count) of so many trials, X beta-binomial with a for and b against it; 1 up to its mean."""
    if trials > MOST_TRIALS:
        count, trials = math.ceil(count * MOST_TRIALS / trials), MOST_TRIALS
    if count <= trials * a / (a + b):
        return 1.0
    lg = math.lgamma
    whole = lg(trials + 1) + lg(a + b) - lg(a) - lg(b) - lg(trials + a + b)
    return min(1.0, math.fsum(math.exp(whole - lg(k + 1) - lg(trials - k + 1) + lg(k + a) + lg(trials - k + b))
                              for k in range(count, trials + 1)))
