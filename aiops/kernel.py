"""The arithmetic of the baseline: one sample of one series at a time, for all series in one compiled loop.

    predict -> views (how odd, in units of its own past) -> p-values by each view's own tail -> evidence -> learn

Everything a series remembers lies in rows of arrays (`Table`), so a step allocates nothing. One file, because a compiled
function is kept until the file that holds it changes.

Sources: mixture of predictors weighted by recent error: Vovk, "A game of prediction with expert advice", 1998. Tails: Hill,
Ann. Statist. 3 (1975); peaks over threshold on streams: Siffer et al., KDD 2017. Merging dependent p-values by their
geometric mean: Vovk & Wang, "Combining p-values via averaging", Biometrika 2020. Remembered values: leader clustering,
Hartigan 1975.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from aiops.compiled import in_place

Array = np.ndarray[Any, Any]

# ---------------------------------------------------------------------------------------------- what a series remembers
N, AT, DT, X, FAST, LEVEL, SLOW, OFFSET, SCALE, SLOW_SCALE, JUMP_SCALE, SHIFT, VOLATILITY, JUMPS, Z1, Z2, RUN, RUN_MEAN, FROM, \
    RECENT_EVIDENCE, NOVEL_MEAN, REST_PEAK, REST_AT, GRANTED_AT, DAY_OFFSET, STREAK = range(26)
ERROR = 26  # of the four predictors: fast level, level of the hour, time of day, hour of week
RECENT = 30  # the last 6 values
SEASONAL = 36  # the last 12 seasonal residuals
LOW, HIGH = 48, 52  # of the 4 remembered features
COUNT, NEXT = 56, 60  # how many of each are remembered, and which of them makes room next
WAITING, WAITING_LEVEL, WAITING_SIZE, WAITING_HABIT = range(64, 68)  # samples that the seasons have yet to learn, and their sums
HELD, PINNED = 68, 69  # 1 after a sample of which nothing was learned; share of the last hour at the highest value ever
COLUMNS = 70
VALUES, RESIDUALS = 6, 12

SPIKE, LASTING, FAR, SHIFTED, VOLATILE, JUMP, JUMPY, FLAT, SATURATED, NOVEL = range(10)
VIEWS = ("spike", "lasting", "level", "shift", "variance", "jump", "jumpiness", "flatline", "saturation", "novelty")
TAILS = 9
"""Views with a tail of their own; novelty keeps its own account."""
WEIGHT = np.array([1.0, 0.0, 1.25, 0.5, 1.0, 0.25, 0.5, 0.0, 0.0])
"""What each view adds to the evidence of a row."""
WORTH = float(WEIGHT.sum())
ALERTS = np.array([True, True, True, False, True, False, False, True, True])
"""Views that raise an alarm alone, as novelty does."""
LOOKS = math.log(4.0)
"""An alarm may come from six views with tails; they overlap and count as four (Bonferroni)."""
ALARM, EVIDENCE, LASTING_EVIDENCE, NOVELTY, VIEW, EXPECTED, WIDTH, REFERENCE = range(8)
"""Columns of the result: nats that alarm, nats of all views now and over the last samples, novelty (0.6 is clear), the
loudest view, the expectation, half the band's width, and the expectation that the loudest view holds against the value."""

DAY_S, HOUR_S, WEEK_S = 86400.0, 3600.0, 604800.0
HOURS, SLOTS, WEEK_HOURS = 24, 48, 168
SLOT_S = DAY_S / SLOTS
READY_AFTER = 30
YOUNG = 20
CLIP, ODD_CLIP, ERROR_CLIP, HABIT_CLIP = 8.0, 6.0, 10.0, 50.0
"""In scales: what scales and seasons, the scale of the hour if the sample is odd, the errors and the hour of the week learn at
most from one sample."""
GLITCH, WARY_FOR, TINY, EXPLAINED, STUCK = 50.0, 6.0, 1e-18, 3.0, 20.0
PATIENCE = 30.0
"""So many odd samples in a row may become an incident: seasons wait for them to end, and learn nothing if one is opened."""
FAST_SHARE, DAY_SHARE, SMOOTH = 2.0 / 7.0, 0.3, 0.35
MONTH_S = 30 * DAY_S
QUARTER_S = 90 * DAY_S
REST_S = 8 * HOUR_S
STALE_FROM_S, STALE_S = 120.0, 600.0

BINS, BIN_RATIO, BIN_FROM = 41, math.log(1.2), 0.1
TAIL, PRIOR_N, PRIOR_XI, EXCESS_CAP, REFRESH = 0.02, 10.0, 0.25, 1.0, 16
PRIOR_CUT = np.array([2.9, PRIOR_XI], np.float32)
LEADERS, FEATURES = 48, 4
RADIUS = np.array([0.03, 0.02, 0.02, 0.02])
NOVEL_CAP, NOVEL_NORM, NOVEL_FLOOR, NOVEL_WARM = 2.0, 0.1, 0.5, 200.0
NOVEL_ALARM, NOVEL_MOST = 4.0 * math.log(10.0), 11.0
"""Nats of a novelty of 1, and of any novelty at most: how rare the never seen is cannot be known better."""
SCRATCH = 7, TAILS
"""What a step works with for one series at a time; it makes no arrays."""
BAND_P = 1e-3
HUGE, SINGLE = 1e150, 3e38
"""Larger values count as this: their differences and quotients stay numbers."""
SEEN_OFTEN = 20.0
TWICE = 2.0
"""Scales that two of three samples are off, before more variance raises an alarm: one spike is none."""
PINNED_UNIT = 20.0
"""Of the share of an hour: three minutes at the end of the range count as usual until a series shows its own habit."""
CALM_SQUARE = math.pi / 2.0
"""The mean square of what is normal, in units of its mean size."""
VIEW_CAP = 25.0
SUSPICIOUS = -math.log(1e-3)


def prior_bins() -> Array:
    """float32[BINS]: ten samples' worth of a half-normal law with mean 1, what a tail believes before it has seen anything."""
    edge = np.array([0.0] + [BIN_FROM * math.exp(BIN_RATIO * k) for k in range(BINS - 1)])
    return np.asarray(10.0 * np.array([math.erfc(min(e, 1e6) / math.sqrt(math.pi)) for e in edge]), np.float32)


@in_place
def wrapped(x: float, low: float, high: float) -> float:
    return min(max(x, low), high)


# ----------------------------------------------------------------------------------------------------------- tails
@in_place
def place_of(z: float) -> float:
    """Where a score lies among the bins: 0 up to 0.1, then steps of 20 %, and the share of the step that it has passed."""
    return 0.0 if z <= BIN_FROM else min(math.log(z / BIN_FROM) / BIN_RATIO + 1.0, BINS - 0.5)


@in_place
def surprise(z: float, place: float, v: int, bins: Array, cuts: Array) -> float:
    """-ln p of a score under its own past: the empirical share above it, and beyond the 98 % quantile a Pareto tail.

    place: what `place_of` says of z. bins[v]: how much was counted in each bin and all above it. cuts[v]: the quantile, and the
    Hill exponent of the tail.
    """
    if z > cuts[v, 0]:
        return -math.log(TAIL) + math.log(z / cuts[v, 0]) / cuts[v, 1]
    k = int(place)
    above = bins[v, k]
    if 0 < k < BINS - 1:
        above -= (bins[v, k] - bins[v, k + 1]) * (place - k)
    return -math.log(min(1.0, max((above + 0.5) / (bins[v, 0] + 0.5), TAIL)))


@in_place
def at_most(place: float, v: int, bins: Array) -> float:
    """Nats: what many samples of the past were as odd as is not rarer than they were, whatever the tail says."""
    above = bins[v, int(place)] - bins[v, BINS - 1]  # the last bin has no end: what is in it may be very different
    return math.log((bins[v, 0] + 0.5) / (above + 0.5)) if above >= SEEN_OFTEN else np.inf


@in_place
def count(place: float, amount: float, v: int, bins: Array) -> None:
    """One more score at that place."""
    for j in range(int(place) + 1):
        bins[v, j] += amount


@in_place
def fit_tail(v: int, bins: Array, cuts: Array, keep: float) -> None:
    """Forget a little, then read the 98 % quantile and the Hill exponent off the histogram."""
    for j in range(BINS):
        bins[v, j] *= keep
    beyond, k = TAIL * bins[v, 0], BINS - 1
    while k > 0 and bins[v, k] < beyond:
        k -= 1
    above = bins[v, k + 1] if k < BINS - 1 else 0.0
    part = (beyond - above) / (bins[v, k] - above) if bins[v, k] > above else 0.0
    low = math.log(BIN_FROM) + (k - 1) * BIN_RATIO
    cut_log = max(low + BIN_RATIO * (1.0 - part), 0.0)
    excess, count = 0.0, 0.0
    for j in range(k, BINS):
        middle = math.log(BIN_FROM) + (j - 0.5) * BIN_RATIO - cut_log
        if middle > 0.0:
            inside = bins[v, j] - (bins[v, j + 1] if j < BINS - 1 else 0.0)
            excess += inside * min(middle, EXCESS_CAP)
            count += inside
    cuts[v, 0] = math.exp(cut_log)
    cuts[v, 1] = max((excess + PRIOR_N * PRIOR_XI) / (count + PRIOR_N), 0.03)


# --------------------------------------------------------------------------------------------------------- novelty
@in_place
def distance(value: float, f: int, c: Array, leaders: Array) -> float:
    """Distance to the nearest remembered value of feature f, as a share of the range seen so far; 0 for the first."""
    n = int(c[COUNT + f])
    if n == 0:
        return 0.0
    best = np.inf
    for j in range(n):
        best = min(best, abs(value - leaders[f, j]))
    spread = c[HIGH + f] - c[LOW + f]
    if best <= 1e-6 * abs(value):  # as near as remembering in single precision allows
        return 0.0
    if spread <= 0.0:
        return 1.0
    return min(best / spread, NOVEL_CAP)


@in_place
def remember(value: float, far: float, f: int, c: Array, leaders: Array) -> None:
    """Keep a value that is far from all that are remembered; the oldest makes room."""
    if c[COUNT + f] == 0:
        c[LOW + f] = value
        c[HIGH + f] = value
    if c[COUNT + f] == 0 or far > RADIUS[f]:
        k = int(c[NEXT + f])
        leaders[f, k] = wrapped(value, -SINGLE, SINGLE)
        c[NEXT + f] = (k + 1) % LEADERS
        c[COUNT + f] = min(c[COUNT + f] + 1, LEADERS)
    c[LOW + f] = min(c[LOW + f], value)
    c[HIGH + f] = max(c[HIGH + f], value)


@in_place
def rested(novel: float, at: float, c: Array, learn: bool) -> float:
    """Novelty relative to how much there usually is; for eight hours after a clear one only a much stronger one counts."""
    novel = novel / (c[NOVEL_MEAN] + NOVEL_NORM) * (c[N] / (c[N] + NOVEL_WARM))
    if at - c[REST_AT] <= REST_S and novel < 1.5 * c[REST_PEAK]:
        return 0.1 * novel
    if novel > NOVEL_FLOOR and learn:
        c[REST_AT] = at
        c[REST_PEAK] = novel
    return novel


# -------------------------------------------------------------------------------------------------------- the step
@in_place
def toward_bad(deviation: float, sign: float) -> float:
    """The size of a deviation in the bad direction: -1 down, 1 up, 0 both."""
    return abs(deviation) if sign == 0.0 else max(0.0, sign * deviation)


@in_place
def begin(c: Array, x: float, at: float) -> None:
    """The first sample of a series."""
    c[N], c[AT], c[FROM], c[DT], c[REST_AT] = 1.0, at, at, 0.0, -np.inf
    c[X], c[FAST], c[LEVEL], c[SLOW] = x, x, x, x
    for k in range(VALUES):
        c[RECENT + k] = x


@in_place
def place_in_time(local: float, when: Array) -> None:
    """Fills when: hour, share of it gone, the nearest other hour and its weight, the same for slots, hour of week."""
    hour = (local // HOUR_S) % HOURS
    gone = (local % HOUR_S) / HOUR_S
    when[0], when[1] = hour, gone
    when[2] = (hour + (1 if gone >= 0.5 else HOURS - 1)) % HOURS
    when[3] = abs(gone - 0.5)
    place = (local % DAY_S) / SLOT_S
    slot = math.floor(place)
    when[4], when[5] = slot, place - slot
    when[6] = (slot + (1 if place - slot >= 0.5 else SLOTS - 1)) % SLOTS
    when[7] = abs(place - slot - 0.5)
    when[8] = (local // HOUR_S) % WEEK_HOURS


@in_place
def seasonal_level(i: int, q: int, dt: float, when: Array, hour_level: Array, day: Array) -> float:
    """What this time of day usually is, between the middles of the two nearest slots; NaN where that is not known yet."""
    if q >= 0:
        return (1.0 - when[7]) * day[int(when[4]), q] + when[7] * day[int(when[6]), q]
    here, other = hour_level[int(when[0]), i], hour_level[int(when[2]), i]
    if dt < HOUR_S and not math.isnan(other):
        return (1.0 - when[3]) * here + when[3] * other
    return here


@in_place
def mixture(c: Array, p: Array, silent_s: float) -> float:
    """The predictions weighted by the inverse cube of their recent error; levels that have not learned for long count less."""
    total, expected = 0.0, 0.0
    stale = (1.0 + max(silent_s - STALE_FROM_S, 0.0) / STALE_S) ** 3
    for k in range(4):
        weight = 1.0 / wrapped(c[ERROR + k], 1e-80, 1e90) ** 3
        if k < 2:
            weight /= stale
        total += weight
        expected += weight * p[k]
    return expected / total


@in_place
def look(c: Array, x: float, r: float, away: float, seasonal: float, s: float, floor: float, sign: float, dt: float,
         z: Array) -> float:
    """Fills z with how odd the sample is in each view, in units of the usual; keeps what the views need of the last hour.

    Returns what at least two of the last three samples were off, in scales.
    """
    n = c[N]
    now = toward_bad(r, sign) / s if n > YOUNG else 0.0
    z[SPIKE] = now
    z[LASTING] = min(now, min(c[Z1], c[Z2]))
    twice = max(min(now, max(c[Z1], c[Z2])), min(c[Z1], c[Z2]))
    c[Z2], c[Z1] = c[Z1], now
    z[FAR] = toward_bad(away, sign) / max(c[SLOW_SCALE], floor)
    hour_share = 2.0 / (max(12.0, HOUR_S / dt) + 1.0)
    recent_share = 2.0 / (max(3.0, HOUR_S / dt) + 1.0)
    c[SHIFT] += max(hour_share, 1.0 / n) * (wrapped(seasonal, -50.0 * s, 50.0 * s) - c[SHIFT])
    z[SHIFTED] = toward_bad(c[SHIFT], sign) / s
    c[VOLATILITY] += recent_share * (min(now, 50.0) ** 2 - c[VOLATILITY])
    z[VOLATILE] = math.sqrt(c[VOLATILITY])
    jump = toward_bad(x - c[X], sign) / max(c[JUMP_SCALE], floor)
    z[JUMP] = jump
    c[JUMPS] += recent_share * (min(jump, 50.0) ** 2 - c[JUMPS])
    z[JUMPY] = math.sqrt(c[JUMPS])
    c[RUN] = c[RUN] + 1.0 if x == c[X] else 0.0
    pinned = c[RUN] < STUCK and at_the_end(x, sign, c)  # the same value again and again is a flat line
    c[PINNED] += recent_share * ((1.0 if pinned else 0.0) - c[PINNED])
    z[SATURATED] = PINNED_UNIT * c[PINNED]
    z[FLAT] = c[RUN] / (c[RUN_MEAN] + 1.0) if c[RUN] >= STUCK else 0.0
    return twice


@in_place
def at_the_end(x: float, sign: float, c: Array) -> bool:
    """Within 1 % of the range from its bad end: the highest value ever, or the lowest where down is bad."""
    near = 0.01 * (c[HIGH] - c[LOW])
    if near <= 0.0:
        return False
    return c[LOW] <= x <= c[LOW] + near if sign < 0.0 else c[HIGH] >= x >= c[HIGH] - near


@in_place
def judge(z: Array, ready: bool, explained: bool, twice: float, bins: Array, cuts: Array,
          into: Array) -> tuple[float, float, int]:
    """Evidence of all views, and the nats and number of the loudest that may alarm (-1: none). Fills into with the places of z.

    explained: the hour of the week accounts for the value. twice: what two of the last three samples were off.
    """
    evidence, loudest, loud = 0.0, 0.0, -1
    for v in range(TAILS):
        into[v] = place_of(z[v])
        told = surprise(z[v], into[v], v, bins, cuts) if ready else 0.0
        evidence += WEIGHT[v] * min(told, VIEW_CAP)
        if ALERTS[v] and told > loudest and not (v == FAR and explained) and not (v == VOLATILE and twice < TWICE):
            told = min(told, at_most(into[v], v, bins))
            if told > loudest:
                loudest, loud = told, v
    return evidence / WORTH, loudest, loud


@in_place
def describe(c: Array, x: float, residual: float, f: Array) -> None:
    """Fills f with what novelty remembers: value, its log, deviation of the last 6, mean of the last 12 seasonal residuals."""
    n = int(c[N])
    c[RECENT + n % VALUES] = x
    c[SEASONAL + n % RESIDUALS] = residual
    mean, square, over = 0.0, 0.0, 0.0
    for k in range(VALUES):
        mean += (c[RECENT + k] - x) / VALUES
    for k in range(VALUES):
        square += (c[RECENT + k] - x - mean) ** 2 / VALUES
    for k in range(RESIDUALS):
        over += c[SEASONAL + k]
    f[0] = x
    f[1] = math.log1p(abs(x)) * (1.0 if x >= 0.0 else -1.0)
    f[2] = math.sqrt(square)
    f[3] = over / min(n + 1.0, RESIDUALS * 1.0)


@in_place
def learn_levels(c: Array, x: float, p: Array, r: float, away: float, s: float, floor: float, dt: float, has: bool,
                 season: float) -> float:
    """Errors, levels and scales; all but the levels learn from winsorised deviations. Returns the winsorised residual."""
    n = c[N]
    old = n > READY_AFTER
    clip = CLIP * s if old and s > floor else np.inf
    inside = wrapped(r, -clip, clip)
    known = x - r + inside
    if old and s > floor:  # a glitch of many scales must not drag the levels along, young ones least of all
        glitch = max(GLITCH, 2.0 * n) * s
        x = x - r + wrapped(r, -glitch, glitch)
    raw = x
    if 0.0 < c[STREAK] <= WARY_FOR:  # nor, the quick ones, the beginning of a fault: an incident may follow
        x = known
    share = max(2.0 / (DAY_S / dt + 1.0), 1.0 / (n + 1.0))
    hour_share = 2.0 / (max(12.0, HOUR_S / dt) + 1.0)
    c[SCALE] += share * (abs(inside) - c[SCALE])
    for k in range(4):
        error = abs(x - p[k])
        if old and c[ERROR + k] > floor:
            error = min(error, ERROR_CLIP * c[ERROR + k])
        c[ERROR + k] += share * (error - c[ERROR + k])
    if has:
        c[OFFSET] += hour_share * (x - season - c[OFFSET])
        c[DAY_OFFSET] += share * (known - season - c[DAY_OFFSET])
    c[FAST] += max(FAST_SHARE, 1.0 / (n + 1.0)) * (known - c[FAST])
    c[LEVEL] += max(hour_share, 1.0 / (n + 1.0)) * (x - c[LEVEL])
    slow_share = max(2.0 / (QUARTER_S / dt + 1.0), 1.0 / (n + 1.0))
    limit = CLIP * c[SLOW_SCALE] if old and c[SLOW_SCALE] > floor else np.inf
    c[SLOW_SCALE] += slow_share * (min(abs(away), limit) - c[SLOW_SCALE])
    c[SLOW] += slow_share * (raw - c[SLOW])
    moved = abs(x - c[X])
    limit = CLIP * c[JUMP_SCALE] if old and c[JUMP_SCALE] > floor else np.inf
    c[JUMP_SCALE] += share * (min(moved, limit) - c[JUMP_SCALE])
    c[RUN_MEAN] += share * (c[RUN] - c[RUN_MEAN])
    return inside


@in_place
def blend(old: float, new: float, share: float) -> float:
    """An exponential mean that begins with the first value; fits into single precision."""
    new = wrapped(new, -SINGLE, SINGLE)
    return new if math.isnan(old) else old + share * (new - old)


@in_place
def share_of(n: float, one: float) -> float:
    """What n samples weigh together where each alone weighs `one`."""
    return one if n == 1.0 else 1.0 - (1.0 - min(one, 1.0)) ** n


@in_place
def learn_hours(i: int, c: Array, at: float, dt: float, when: Array, hour_level: Array, hour_scale: Array) -> None:
    """Level and scale of this hour of the day, from the samples that waited. On the first day they are plain means."""
    first = 1.0 / (math.floor(when[1] * HOUR_S / dt) + 1.0) if at - c[FROM] < DAY_S else 0.0
    hour, n = int(when[0]), c[WAITING]
    share = share_of(n, max(first, max(0.01, 0.1 * dt / HOUR_S)))
    hour_scale[hour, i] = blend(hour_scale[hour, i], c[WAITING_SIZE] / n, share)
    share = share_of(n, max(first, DAY_SHARE * min(1.0, dt / HOUR_S)))
    hour_level[hour, i] = blend(hour_level[hour, i], c[WAITING_LEVEL] / n, share)


@in_place
def learn_season(q: int, c: Array, at: float, dt: float, when: Array, day: Array, week: Array) -> None:
    """The slot of the day, and what this hour of the week adds to it. First passes are plain means."""
    age = at - c[GRANTED_AT]
    first_day = 1.0 / (math.floor(when[5] * SLOT_S / dt) + 1.0) if age < DAY_S else 0.0
    first_week = 1.0 / (math.floor(when[1] * HOUR_S / dt) + 1.0) if age < WEEK_S else 0.0
    slot, hour, n = int(when[4]), int(when[8]), c[WAITING]
    share = share_of(n, max(first_day, DAY_SHARE * min(1.0, dt / SLOT_S)))
    day[slot, q] = blend(day[slot, q], c[WAITING_LEVEL] / n, share)
    share = share_of(n, max(first_week, DAY_SHARE * min(1.0, dt / HOUR_S)))
    week[hour, q] = blend(week[hour, q], c[WAITING_HABIT] / n, share)


@in_place
def resume(c: Array, gap: float) -> None:
    """The usual interval; and after a mask, what was held must not linger in means of the last hour, and so in the tails."""
    if c[HELD] > 0.0:
        c[HELD], c[SHIFT], c[PINNED], c[VOLATILITY], c[JUMPS] = 0.0, 0.0, 0.0, CALM_SQUARE, CALM_SQUARE
    c[DT] += 0.05 * (wrapped(gap, 0.5 * c[DT], 2.0 * c[DT]) - c[DT]) if c[DT] > 0.0 else gap


@in_place
def wait(c: Array, known: float, inside: float, habit: float, s: float) -> None:
    """One more sample that the seasons have yet to learn: its level, the size of its residual, what the hour of the week adds."""
    c[WAITING] += 1.0
    c[WAITING_LEVEL] += known
    c[WAITING_SIZE] += abs(inside) if c[STREAK] == 0.0 else min(abs(inside), ODD_CLIP * s)
    c[WAITING_HABIT] += wrapped(habit, -HABIT_CLIP * s, HABIT_CLIP * s)


@in_place
def learn_waiting(i: int, q: int, c: Array, at: float, dt: float, when: Array, hour_level: Array, hour_scale: Array,
                  day: Array, week: Array) -> None:
    """The seasons learn what waited, at the place in time where it was."""
    if c[WAITING] > 0.0:
        if q >= 0 and at - c[FROM] > DAY_S - HOUR_S:
            learn_season(q, c, at, dt, when, day, week)
        learn_hours(i, c, at, dt, when, hour_level, hour_scale)
        forget_waiting(c)


@in_place
def forget_waiting(c: Array) -> None:
    c[WAITING] = c[WAITING_LEVEL] = c[WAITING_SIZE] = c[WAITING_HABIT] = 0.0


@in_place
def learn_tails(c: Array, into: Array, loudest: float, dt: float, bins: Array, cuts: Array) -> None:
    """What has raised suspicion itself counts half as one's own normal."""
    for v in range(TAILS):
        count(into[v], 1.0 if loudest < SUSPICIOUS else 0.5, v, bins)
    if int(c[N]) % REFRESH == 0 or c[N] == READY_AFTER:
        keep = math.exp(-math.log(2.0) * REFRESH * dt / MONTH_S)
        for v in range(TAILS):
            fit_tail(v, bins, cuts, keep)


@in_place
def step(at: float, local: float, values: Array, learns: Array, signs: Array, core: Array, bins: Array, cuts: Array,
         hour_level: Array, hour_scale: Array, day: Array, week: Array, place: Array, leaders: Array, out: Array,
         scratch: Array) -> None:
    """Score, then learn, one sample of each series.

    at, local: seconds, UTC and in the time zone of the seasons. values float64[S] (NaN: none), learns bool[S], signs
    float64[S]: which direction is bad (-1, 0 both, 1). The arrays of the table are described in `Baseline`. Fills out
    float64[S, 8], columns ALARM to REFERENCE. scratch: float64[SCRATCH], anything.
    """
    z, into, p, f, far, when, then = scratch
    place_in_time(local, when)
    for i in range(len(values)):
        c, o, tails, cut, values_seen = core[i], out[i], bins[i], cuts[i], leaders[i]
        o[ALARM], o[EVIDENCE], o[LASTING_EVIDENCE] = 0.0, 0.0, c[RECENT_EVIDENCE]
        o[NOVELTY], o[VIEW], o[WIDTH] = 0.0, -1.0, np.nan
        x = values[i]
        if not math.isfinite(x) or c[N] == 0.0:
            if math.isfinite(x):
                begin(c, wrapped(x, -HUGE, HUGE), at)
            o[EXPECTED] = o[REFERENCE] = c[FAST] if c[N] > 0.0 else np.nan
            continue
        x = wrapped(x, -HUGE, HUGE)
        n, q, sign = c[N], place[i], signs[i]
        if learns[i]:
            resume(c, at - c[AT])
        dt = wrapped(c[DT], 1e-3, DAY_S)
        # predict
        season = seasonal_level(i, q, dt, when, hour_level, day)
        has = at - c[FROM] > DAY_S - HOUR_S and not math.isnan(season)
        has_week = has and q >= 0 and not math.isnan(week[int(when[8]), q])
        p[0], p[1] = c[FAST], c[LEVEL]
        p[2] = season + c[OFFSET] if has else c[LEVEL]
        p[3] = season + c[DAY_OFFSET] + week[int(when[8]), q] if has_week else p[2]
        expected = mixture(c, p, at - c[AT] - 2.0 * dt)
        if has_week and abs(x - p[3]) < abs(x - expected):
            expected = p[3]  # odd is only what the habit of this hour of the week does not explain either
        r = x - expected
        floor = 1e-6 * min(abs(x), abs(expected)) + TINY
        s = max(c[SCALE], floor)
        if at - c[FROM] > DAY_S * max(1.0, YOUNG * dt / HOUR_S):
            s = max(s, hour_scale[int(when[0]), i])
        # look
        away = x - c[SLOW]
        explained = has_week and abs(x - p[3]) < EXPLAINED * s
        twice = look(c, x, r, away, x - (p[3] if abs(x - p[3]) < abs(x - p[2]) else p[2]), s, floor, sign, dt, z)
        base = hour_level[int(when[0]), i]
        describe(c, x, x - (c[LEVEL] if math.isnan(base) else base), f)
        new = 0.0
        for k in range(FEATURES):
            far[k] = distance(f[k], k, c, values_seen)
            new += far[k]
        shown = rested(0.0 if sign * r < 0.0 else new, at, c, learns[i])
        # judge
        evidence, loudest, loud = judge(z, n >= READY_AFTER, explained, twice, tails, cut, into)
        c[RECENT_EVIDENCE] += SMOOTH * (evidence - c[RECENT_EVIDENCE])
        o[EVIDENCE], o[LASTING_EVIDENCE], o[EXPECTED] = evidence, c[RECENT_EVIDENCE], expected
        if n >= READY_AFTER:
            o[NOVELTY] = shown
            o[WIDTH] = cut[SPIKE, 0] * s * math.exp(math.log(TAIL / BAND_P) * cut[SPIKE, 1])
            if min(NOVEL_ALARM * shown, NOVEL_MOST) > loudest:
                loudest, loud = min(NOVEL_ALARM * shown, NOVEL_MOST), NOVEL
            o[ALARM], o[VIEW] = max(loudest - LOOKS, 0.0), loud
        o[REFERENCE] = x - away if loud == FAR else expected
        # learn
        if not learns[i]:
            c[HELD] = 1.0
            forget_waiting(c)
        else:
            c[STREAK] = c[STREAK] + 1.0 if loudest >= SUSPICIOUS else 0.0
            inside = learn_levels(c, x, p, r, away, s, floor, dt, has, season)
            before = local - (at - c[AT])
            if c[WAITING] > 0.0 and before // SLOT_S != local // SLOT_S:
                place_in_time(before, then)
                learn_waiting(i, q, c, c[AT], dt, then, hour_level, hour_scale, day, week)
            wait(c, expected + inside, inside, x - season - c[DAY_OFFSET] if has else 0.0, s)
            if not 0.0 < c[STREAK] <= PATIENCE:
                learn_waiting(i, q, c, at, dt, when, hour_level, hour_scale, day, week)
            for k in range(FEATURES):
                if k != 2 or n >= VALUES:
                    remember(f[k], far[k], k, c, values_seen)
            c[NOVEL_MEAN] += max(1.0 / 2000.0, 1.0 / n) * (min(new, 1.0) - c[NOVEL_MEAN])
            c[N] = n + 1.0
            c[AT] = at
            if n > YOUNG:
                learn_tails(c, into, loudest, dt, tails, cut)
        c[X] = x
