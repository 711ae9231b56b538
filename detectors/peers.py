"""One against its own kind: the replica, GPU, node or rank that stops behaving as the others do.

What all members of a group share (load, season, a step) and what a member always differs by are taken out
(`detectors/_consensus.py`). What remains is judged twice: alone, for jumps, and as a mean over minutes, for the straggler that
is 5 % slow while each sample is 2 % noise. Both get their p-value from the tail of what all members of the group did in
the past; the smaller one counts, doubled for having looked twice. What happens at the same hour every day is a schedule and
not told (`detectors/_habit.py`).

Fewer than half of a group can neither hide nor accuse the others. Says nothing of groups of two, of a group that falls
apart into halves, and of a member that was always different in kind (a leader among idle followers). Fails when the part
of leader moves from one member to another, when two of three break alike (the third is the odd one then), and on members
that report in different ticks: only those that report together are compared. What a member does in its first thirty
samples is its own, good or bad. Who belongs together is read off names (`detectors/_kin.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiops.arrays import renumbered
from aiops.calibration import Tail
from aiops.humanise import figure, quantity
from aiops.models import picked
from aiops.rows import columnar
from aiops.types import Anomaly, Bools, Floats, Frame
from detectors._consensus import Consensus, Prediction
from detectors._habit import Habit
from detectors._kin import Groups, Places, carried

READY_AFTER, READY_WINDOWS, SETTLED = 30, 12, 10
"""Jumps are judged from the thirtieth sample on, means over minutes once there were twelve windows of them."""
REPORT_P = 1e-3
LOOKS = 2
PEER_MIN_REL, PEER_SHARE = 0.02, 0.1
"""The least relative deviation worth telling: 2 % of the level, and a tenth of what the signal's meaning asks for.

`Signal.min_rel` (0.25 where no pack knows better) is about deviations from a signal's own past, which varies with load and
season. Peers share load and season, so that far less means something: in a synchronous job one rank that is 5 % slow makes
all of them 5 % slow. Its tenth is kept because what is volatile by nature (bytes written) is so among peers as well.
"""
WINDOW_S, MOST_SHARE = 240.0, 0.15
"""The mean over minutes forgets with this time constant; no single sample makes more than this share of it."""
OFFSET_S, MOST_OFFSET = 6 * 3600.0, 0.05
"""A usual difference is learned anew within a quarter of a day: longer than anybody needs to notice, shorter than a season."""
SCALE_SHARE, SPREAD_PRIOR = 0.003, 30.0
CLIP, WINDOW_CLIP, SHIFT_CLIP = 3.0, 6.0, 60.0
"""Deviations are cut at so many scales before they are learned from, and before they enter the means over minutes."""
TYPICAL = 1.5
"""When the middle member of a group deviates by more scales than this, the group is in motion, and no deviation is news."""
UNLIKE = 3.0
"""A member that usually differs from the others by more than three times their level is not of their kind."""
SOFT, MOST_SCORE = 2.4, 60.0
"""A mean of bounded terms has an exponential tail, so exp(mean / SOFT) has a Pareto tail: for independent terms the very one
that `Tail` starts from."""
TEACHERS, TAUGHT_P, TAUGHT_AFTER = 4, 1e-3, 15
"""In each step so many members of a group, in turn, teach its tails, and none more than a score of this p-value would."""
PAUSE_TICKS = 3.0
PORTION = 3.5
"""Nats: less than the share of the lowest alarm level that alerting takes from one sample (0.6 of 6)."""
CLEAR, CALM_SHARE = 6.0, 0.2
"""Nats told in a row that make an alarm anywhere (`aiops.alerting.MIN_LEVEL`); a calm tick takes a fifth of them away."""
HUGE = 1e150
_COLUMNS = ("n", "heard_at", "learned_at", "held", "scale", "window", "shift", "spread", "claimed", "since", "told")
_MEANT = ("_sign", "_min_abs", "_min_rel")
_UNKNOWN = {"heard_at": np.nan, "since": np.nan, "_sign": np.nan}
_TAILS = ("jumps", "drifts")


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """One tick of all members, float64[P], NaN where nothing can be said. residual, in scales of `unit`, is z; mean is that of z
    over minutes, freed of the group's; jump and drift are the scores of both in the bad direction."""

    at: float
    x: Floats
    learn: Bools
    predicted: Prediction
    residual: Floats
    unit: Floats
    jump: Floats
    drift: Floats


class Peers:
    """Memory: 14 floats and 24 bytes for each signal that is in a group of three or more; two floats and two tails a group.
    What is saved has a column for every signal, and what belongs to a group at each of its members.

    n: samples learned. scale, spread: usual size of the residual and of the mean over minutes (`window`). shift: that mean in
    the signal's unit. since: when the present excursion of the mean began, NaN outside of one; claimed: the nats told of it.
    told: nats told lately by both looks.
    """

    VERSION = 1
    BY_SIGNAL = ("grouped", "habit", *_COLUMNS, *(f"{tail}.{name}" for tail in _TAILS for name in Tail().state()),
                 *(f"consensus.{name}" for name in (*Consensus.per_place, *Consensus.per_group)))

    def __init__(self) -> None:
        self._groups, self._consensus, self._habit = Groups(), Consensus(), Habit()
        self._columns: Places = np.zeros(0, np.int64)
        self._group: Places = np.zeros(0, np.int64)
        self._seen, self._restored = 0, False
        self._at, self._tick_s, self._ticks = np.nan, 0.0, 0
        self._sign = self._min_abs = self._min_rel = np.zeros(0)
        self.jumps, self.drifts = Tail(), Tail()
        self.n = self.heard_at = self.learned_at = self.held = self.scale = np.zeros(0)
        self.window = self.shift = self.spread = self.claimed = self.since = self.told = np.zeros(0)

    def observe(self, frame: Frame) -> Sequence[Anomaly]:
        if len(frame.signals) != self._seen or self._restored:
            self._take_in(frame)
        self._count_time(frame.at)
        if not len(self._columns):
            return []
        look = self._look(frame)
        found = self._judge(frame, look)
        self._learn(look)
        return found

    # --------------------------------------------------------------------------------------------------------- layout
    def _take_in(self, frame: Frame) -> None:
        """Signals that are new, or all of them in the first frame after `restore`."""
        if self._groups.extend(frame.signals) or self._restored:
            self._lay_out()
            new, sign = np.flatnonzero(np.isnan(self._sign)), {"up": 1.0, "down": -1.0, "both": 0.0}
            mine = columnar(frame.signals).take(self._columns[new])
            about = mine.by_kind(lambda s: (sign[s.direction], s.min_abs, s.min_rel)).reshape(-1, 3)
            self._sign[new], self._min_abs[new], least = about.T
            self._min_rel[new] = np.maximum(PEER_MIN_REL, PEER_SHARE * least)
        self._seen, self._restored = len(frame.signals), False

    def move(self, columns: Places) -> None:
        """Only these signals stay, in this order; members stay in the order in which they came."""
        if self._restored:
            self.restore(picked(self.state(), self.BY_SIGNAL, columns))
            return
        columns = columns[columns < self._seen]
        self._columns = renumbered(columns, self._seen)[self._columns]
        self._seen = len(columns)
        self._groups.move(columns)
        self._lay_out()

    def _lay_out(self) -> None:
        """Moves what is known of each column to its new place, and what is known of each group to its new number."""
        before = self._groups.places_before(self._columns)
        group_before = self._groups.groups_before(before, self._group)
        for name in (*_COLUMNS, *_MEANT):
            setattr(self, name, carried(getattr(self, name), before, _UNKNOWN.get(name, 0.0)))
        self._consensus.lay_out(before, group_before)
        self._habit.lay_out(before)
        self._columns, self._group = self._groups.columns, self._groups.group
        self.jumps, self.drifts = _numbered(self.jumps, group_before), _numbered(self.drifts, group_before)

    def _count_time(self, at: float) -> None:
        tick = at - self._at
        if tick > 0:
            usual = self._tick_s or tick
            self._tick_s = usual + 0.1 * (min(max(tick, 0.5 * usual), 2.0 * usual) - usual)
        self._at = at
        self._ticks += 1
        self._habit.enter(at)

    def _window_ticks(self) -> int:
        return max(int(WINDOW_S / max(self._tick_s, 1e-3)), int(1 / MOST_SHARE))

    # ----------------------------------------------------------------------------------------------------------- look
    def _look(self, frame: Frame) -> _Look:
        x = np.clip(frame.values[self._columns], -HUGE, HUGE)
        predicted = self._consensus.predict(self._groups, x, self.n >= SETTLED)
        expected = predicted.expected
        residual = x - expected
        heard = np.isfinite(residual)
        scale = self.scale * self._consensus.stretch(self._groups, expected)
        unit = self._at_least_usual(scale, heard, 1e-3 * np.abs(expected) + 1e-9)
        unit = unit * self._commotion(residual / unit)
        z, before = residual / unit, self.window
        mean = self._roll(frame, z, unit)
        jump = np.minimum(self._bad(z), self._bad(z - before))  # odd, and news
        drift = np.exp(np.minimum(self._bad(mean), MOST_SCORE) / SOFT)
        return _Look(frame.at, x, heard & frame.learn[self._columns], predicted, residual, unit, jump, drift)

    def _at_least_usual(self, own: Floats, heard: Bools, floor: Floats) -> Floats:
        """A member's own scale, but no less than the group's mean: what others do at times is no wonder in one who never did."""
        usual = self._groups.sum(np.where(heard, own, 0.0)) / np.maximum(self._groups.sum(heard), 1.0)
        return np.maximum(np.maximum(own, usual[self._groups.group]), floor)

    def _commotion(self, z: Floats) -> Floats:
        """By how much the whole group is more restless than usual, at least 1."""
        return np.fmax(self._groups.median(np.abs(z), upper=True) / TYPICAL, 1.0)[self._groups.group]

    def _bad(self, deviation: Floats) -> Floats:
        """The deviation where it points in the bad direction, its size where both are bad, else at most 0."""
        return np.where(self._sign == 0, np.abs(deviation), self._sign * deviation)

    def _roll(self, frame: Frame, z: Floats, unit: Floats) -> Floats:
        """Goes on with the means over minutes and returns them in scales; afresh after a pause and when a mask is lifted."""
        heard, learn, gap = np.isfinite(z), frame.learn[self._columns], frame.at - self.heard_at
        share = np.where(heard, np.clip(-np.expm1(-np.fmin(gap, WINDOW_S) / WINDOW_S), 0.0, MOST_SHARE), 0.0)
        afresh = heard & (((self.held > 0) & learn) | ~(gap <= max(WINDOW_S, PAUSE_TICKS * self._tick_s)))
        for name, size, cut in (("window", 1.0, WINDOW_CLIP), ("shift", unit, SHIFT_CLIP)):
            old = getattr(self, name)
            new = old + np.where(heard, share * (np.clip(z, -cut, cut) * size - old), 0.0)
            setattr(self, name, np.where(afresh, 0.0, new))
        self.claimed[afresh], self.since[afresh] = 0.0, np.nan
        self.held, self.heard_at = np.where(heard, ~learn, self.held), np.where(heard, frame.at, self.heard_at)
        white = np.maximum(np.sqrt(share / (2.0 - share)), 1e-6)  # the spread of a mean of independent terms
        self.spread = np.where(self.spread > 0, self.spread, white)
        mean = np.where(heard, self.window, np.nan) / self._at_least_usual(self.spread, heard, white)
        mean = mean - self._groups.median(mean)[self._groups.group]
        return np.asarray(mean / self._commotion(mean))

    # ---------------------------------------------------------------------------------------------------------- judge
    def _judge(self, frame: Frame, look: _Look) -> list[Anomaly]:
        group, count = self._groups.group, self._groups.count
        self._follow(look, look.drift > self.drifts.quantile(0.02, count)[group])
        limit, slow_limit = (tail.quantile(REPORT_P / LOOKS, count)[group] for tail in (self.jumps, self.drifts))
        jumped = (look.jump > limit) & (self.n >= READY_AFTER)
        drifted = (look.drift > slow_limit) & (self.n >= READY_WINDOWS * self._window_ticks())
        alike = np.abs(self._consensus.offset) <= UNLIKE * (np.abs(look.predicted.common) + look.unit)
        i = np.flatnonzero((jumped | drifted) & alike)
        self.told *= 1.0 - CALM_SHARE
        if not len(i):
            return []
        now, lately = look.residual[i], self.shift[i]
        p_now = np.where(jumped[i] & self._worth_telling(look, i, now), self._p(self.jumps, look.jump, i), 1.0)
        p_lately = np.where(drifted[i] & self._worth_telling(look, i, lately), self._p(self.drifts, look.drift, i), 1.0)
        by = np.where(p_now <= p_lately, now, lately)
        p = self._scheduled(i, self._claim(i, p_now, p_lately), look.learn[i])
        peers = self._groups.sum(np.isfinite(look.residual))[group] - 1
        return [self._anomaly(frame, look, int(i[k]), float(p[k]), float(by[k]), float(limit[i[k]]), int(peers[i[k]]))
                for k in np.flatnonzero(p <= REPORT_P)]

    def _follow(self, look: _Look, odd: Bools) -> None:
        """An excursion of the mean over minutes lasts while it is among the 2 % largest."""
        over = np.isfinite(look.residual) & ~odd
        self.claimed[over], self.since[over] = 0.0, np.nan
        self.since[odd & np.isnan(self.since)] = look.at

    def _worth_telling(self, look: _Look, i: Places, deviation: Floats) -> Bools:
        level = np.maximum(np.abs(look.predicted.expected[i]), np.abs(look.predicted.common[i]))
        return np.asarray(np.abs(deviation) >= np.maximum(self._min_abs[i], self._min_rel[i] * level))

    def _p(self, tail: Tail, score: Floats, i: Places) -> Floats:
        """p-values of some members by the tail of their group, corrected for the number of looks (Bonferroni)."""
        each = Tail()
        each.restore({name: array[self._groups.group[i]] for name, array in tail.state().items()})
        return np.minimum(LOOKS * each.p_value(score[i]), 1.0)

    def _claim(self, i: Places, p_now: Floats, p_lately: Floats) -> Floats:
        """The evidence of an excursion counts once, however long it lasts: what is told is what was not told before.

        Means over minutes of successive ticks share their samples, and who differs from the group often does so for an hour;
        adding up each tick's p-value as if it were new would alarm on all of it. While nothing is added, p is REPORT_P. It is
        told in portions that alerting takes in whole.
        """
        surprise = np.log(REPORT_P) - np.log(p_lately)
        fresh = np.clip(surprise - self.claimed[i], 0.0, PORTION)
        told = np.where(surprise >= 0, REPORT_P * np.exp(-fresh), 1.0)
        self.claimed[i] += np.where(told < p_now, fresh, 0.0)
        return np.minimum(p_now, told)

    def _scheduled(self, i: Places, p: Floats, learn: Bools) -> Floats:
        """1 where the member does this every day at this hour. Only what would alarm makes a habit."""
        odd = i[p <= REPORT_P]
        self.told[odd] = self.told[odd] / (1.0 - CALM_SHARE) + np.log(REPORT_P / p[p <= REPORT_P])
        usual = self._habit.usual(i)
        self._habit.mark(i[learn & (self.told[i] >= CLEAR)])
        return np.where(usual, 1.0, p)

    def _anomaly(self, frame: Frame, look: _Look, i: int, p: float, by: float, limit: float, peers: int) -> Anomaly:
        signal, e, since = frame.signals[self._columns[i]], float(look.predicted.expected[i]), float(self.since[i])
        size = f"{figure(100 * abs(by / e), 2)} %" if abs(by) < 10 * abs(e) else quantity(abs(by), signal.unit)
        offset, common = abs(float(self._consensus.offset[i])), abs(float(look.predicted.common[i]))
        usual = ", beyond its usual difference" if offset > PEER_MIN_REL * common else ""
        text = f"{signal.key} {size} {'above' if by > 0 else 'below'} its {peers} peers{usual}"
        lower, upper = signal.band(e, limit * float(look.unit[i]))
        return Anomaly(frame.at, signal.entity, signal.key, 1.0 - p, p, "peers", signal.id, float(look.x[i]), e, lower, upper,
                       frame.at if since != since else since, text)

    # ---------------------------------------------------------------------------------------------------------- learn
    def _learn(self, look: _Look) -> None:
        """In the first minutes of an excursion scales are not learned: a straggler must not hide behind its own deviation."""
        self.n += look.learn
        self._teach(look)
        n = np.maximum(self.n, 1.0)
        floor = 1e-3 * self._consensus.usual + 1e-9
        reach = np.where(n < READY_AFTER, np.inf, CLIP * self._at_least_usual(self.scale, np.isfinite(look.residual), floor))
        gap = np.maximum(look.at - self.learned_at, 0.0)
        self.learned_at = np.where(look.learn, look.at, self.learned_at)
        share, fast = np.maximum(1.0 / n, np.minimum(gap / OFFSET_S, MOST_OFFSET)), np.maximum(SCALE_SHARE, 1.0 / n)
        self._consensus.learn(self._groups, look.x, look.predicted, look.learn, share, fast, reach, look.unit)
        calm = look.learn & ~(look.at - self.since <= 2.0 * WINDOW_S)
        self.scale += np.where(calm, fast * (np.minimum(np.abs(look.residual), reach) - self.scale), 0.0)
        slow = np.maximum(SCALE_SHARE, 1.0 / (n + SPREAD_PRIOR))
        self.spread += np.where(calm, slow * (np.minimum(np.abs(self.window), CLIP * self.spread) - self.spread), 0.0)

    def _teach(self, look: _Look) -> None:
        """A member teaches the jumps in its turn, and the drifts once in a window: means that share samples are one lesson."""
        able = look.learn & (self.n >= TAUGHT_AFTER)
        due = (np.arange(len(able)) + self._ticks) % self._window_ticks() == 0
        self._lessons(self.jumps, look.jump, able)
        self._lessons(self.drifts, look.drift, able & due)

    def _lessons(self, tail: Tail, score: Floats, able: Bools) -> None:
        """Hands the scores of some members of each group, others in each step, to the group's tail."""
        g = self._groups
        many = g.sum(able)
        first = np.cumsum(many) - many
        i = np.flatnonzero(able)
        turn = (np.arange(len(i)) - first[g.group[i]] - TEACHERS * self._ticks) % many[g.group[i]]
        most = tail.quantile(TAUGHT_P, g.count)
        for k in range(TEACHERS):
            j = i[turn == k]
            lesson = np.full(g.count, np.nan)
            lesson[g.group[j]] = score[j]
            tail.learn(np.minimum(lesson, most), np.isfinite(lesson))

    # ---------------------------------------------------------------------------------------------------------- state
    def state(self) -> dict[str, Any]:
        """Arrays with one column a signal, empty (NaN, no bits) where it is in no group; tails and misses of a group stand at
        each of its members. `grouped` bool[S]: is the signal in one?"""
        at, of_group = self._by_signal, self._group
        consensus = {name: at(getattr(self._consensus, name)) for name in Consensus.per_place}
        consensus |= {name: at(getattr(self._consensus, name)[of_group]) for name in Consensus.per_group}
        tails = {tail: {name: at(array[..., of_group]) for name, array in getattr(self, tail).state().items()} for tail in _TAILS}
        return {"grouped": at(np.ones(len(of_group), np.bool_), False), "at": self._at, "tick_s": self._tick_s,
                "ticks": self._ticks, "hour": self._habit.hour, "habit": at(self._habit.bits, 0), "consensus": consensus,
                **tails, **{name: at(getattr(self, name)) for name in _COLUMNS}}

    def _by_signal(self, array: NDArray[Any], empty: float = np.nan) -> NDArray[Any]:
        """From one column a place to one column a signal."""
        out = np.full((*array.shape[:-1], self._seen), empty, array.dtype)
        out[..., self._columns] = array
        return out

    def restore(self, state: Mapping[str, Any]) -> None:
        """Groups follow from the signals of the next frame. Until then each place counts as a group of its own, with the tails
        and misses that it shared; a group of that frame takes them from its first member that has some."""
        self._groups, self._consensus, self._habit = Groups(), Consensus(), Habit()
        grouped = np.array(state["grouped"], np.bool_)
        self._seen, self._restored = len(grouped), True
        self._columns = np.flatnonzero(grouped)
        self._sign = self._min_abs = self._min_rel = np.full(len(self._columns), np.nan)
        self._group = np.arange(len(self._columns))
        self._at, self._tick_s, self._ticks = float(state["at"]), float(state["tick_s"]), int(state["ticks"])
        self._habit.bits, self._habit.hour = np.asarray(state["habit"], np.uint8)[:, grouped], int(state["hour"])
        self.jumps, self.drifts = Tail(), Tail()
        for tail in _TAILS:
            getattr(self, tail).restore({name: array[..., grouped] for name, array in state[tail].items()})
        for name in (*Consensus.per_place, *Consensus.per_group):
            setattr(self._consensus, name, np.asarray(state["consensus"][name], np.float64)[grouped])
        for name in _COLUMNS:
            setattr(self, name, np.asarray(state[name], np.float64)[grouped])


def _numbered(tail: Tail, before: Places) -> Tail:
    """The tails of the groups whose numbers were `before`, in this order; those of new groups (-1) as they begin."""
    out, known = Tail(), np.flatnonzero(before >= 0)
    out.resize(len(before))
    arrays = out.state()
    for name, array in tail.state().items():
        arrays[name][..., known] = array[..., before[known]]
    out.restore(arrays)
    return out
