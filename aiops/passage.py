"""When a falling amount reaches zero: first passage of Brownian motion with drift, and how sure one can be of it.

What is left falls by `drift` a second and wanders with `variance` a second. Both were estimated over a window of
`window` seconds with `df` degrees of freedom, so the drift itself is known to within sqrt(variance / window), and what is
left now to within `noise`. With a known drift the time to zero is inverse Gaussian (Schrödinger 1915; Chhikara, Folks,
"The Inverse Gaussian Distribution", 1989); its mixture over a normal drift has a closed form (Whitmore, "Normal-gamma
mixtures of inverse Gaussian distributions", Scandinavian Journal of Statistics 13, 1986). All arguments broadcast; amounts
in any unit, times in seconds.

Fails where the past does not speak for the future: what jumps, turns back by itself, or is filled by somebody new.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aiops.types import Floats

NODES = 8
"""Equally probable values over which unknown variance and noise are averaged."""
SHUFFLED = np.array([4, 1, 7, 2, 5, 0, 6, 3])
"""Pairs each value of the one with a value of the other, far from any order."""
LONGEST_S = 10 * 365 * 86_400.0
_HALVINGS = 50
_TINY = 1e-9


@dataclass(frozen=True, slots=True)
class Fall:
    """What is known of amounts that fall: float64[n] each. `room` is what is left."""

    room: Floats
    drift: Floats
    variance: Floats
    window: Floats
    df: Floats
    noise: Floats


def late(fall: Fall, horizon: Floats) -> Floats:
    """At most the chance that zero is not reached within `horizon` seconds: Student's t predictive of what is left then.

    At most, because what touched zero and came back before the horizon counts as not reached.
    """
    from scipy.special import stdtr

    wander = fall.variance * horizon * (1.0 + horizon / fall.window)
    spread = np.sqrt(wander + fall.noise ** 2) + _TINY * fall.room + 1e-300
    return np.asarray(stdtr(fall.df, (fall.room - fall.drift * horizon) / spread), np.float64)


def reached(t: Floats, room: Floats, drift: Floats, variance: Floats, window: Floats) -> Floats:
    """The chance that zero was reached within `t` seconds, for known variance, and a drift known as the window allows."""
    from scipy.special import erfcx, log_ndtr, ndtr

    variance = np.maximum(variance, (_TINY * room) ** 2 / t + 1e-300)
    sd = np.sqrt(variance * t * (1.0 + t / window))
    over = (drift * t - room) / sd
    k = 2.0 * t / window
    back = (room * (1.0 + k) + drift * t) / sd
    # what touched zero and is above it again, by reflection; each of the two forms where it does not overflow
    near = 0.5 * erfcx(np.maximum(back, 0.0) / np.sqrt(2.0)) * np.exp(-0.5 * np.minimum(over * over, 1400.0))
    away = np.exp(np.minimum(room * (2.0 * drift * t + k * room) / (variance * t), 0.0) + log_ndtr(-back))
    return np.asarray(np.clip(ndtr(over) + np.where(back > 0, near, away), 0.0, 1.0), np.float64)


def quantiles(fall: Fall, shares: tuple[float, ...] = (0.05, 0.5, 0.95)) -> Floats:
    """float64[len(shares), n]: the times by which zero is reached with each probability; inf beyond ten years or never."""
    from scipy.special import gammaincinv, ndtri

    level = (np.arange(NODES) + 0.5)[:, None] / NODES
    variance = fall.variance * fall.df / (2.0 * gammaincinv(fall.df / 2.0, level))
    room = np.maximum(fall.room + fall.noise * ndtri(level[SHUFFLED]), 0.0)

    def chance(log_t: Floats) -> Floats:
        each = reached(10.0 ** log_t[:, None, :], room, fall.drift, variance, fall.window)
        return np.asarray(each.mean(axis=1), np.float64)

    wanted = np.array(shares)[:, None]
    low = np.full((len(shares), len(fall.room)), -3.0)
    high = np.full_like(low, np.log10(LONGEST_S))
    never = chance(high) < wanted
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        enough = chance(middle) >= wanted
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return np.where(never, np.inf, 10.0 ** high)
