"""When a falling amount reaches zero: first passage of Brownian motion with drift, and how sure one can be of it.

What is left falls by `drift` a second and wanders with `variance` a second. Both were estimated over a window of
`window` seconds with `df` degrees of freedom, so the drift itself is known to within sqrt(variance / window), and what is
left now to within `noise`. The drift may wander as well (a local linear trend: Harvey, "Forecasting, Structural Time Series
Models and the Kalman Filter", 1989): its own variance grows by `veer` a second, for as long ahead as the window is long.

With a known drift the time to zero is inverse Gaussian (Schrödinger 1915; Chhikara, Folks,
"The Inverse Gaussian Distribution", 1989); its mixture over a normal drift has a closed form (Whitmore, "Normal-gamma
mixtures of inverse Gaussian distributions", Scandinavian Journal of Statistics 13, 1986). All arguments broadcast; amounts
in any unit, times in seconds.

Fails where the past does not speak for the future: what jumps, turns back by itself, or is filled by somebody new.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aiops.types import Floats

NODES = 16
"""Equally probable values over which unknown variance and noise are averaged."""
SHUFFLED = (7 * np.arange(NODES) + 3) % NODES
"""Pairs each value of the one with a value of the other, in no order."""
LONGEST_S = 10 * 365 * 86_400.0
_GRID = 65
_TINY, _MOST = 1e-9, 1e30
NOW_SHARE = 0.1
"""The drift at the end of a window is known as well as one that has strayed for a tenth of it and not been seen since."""


@dataclass(frozen=True, slots=True)
class Fall:
    """What is known of amounts that fall: float64[…, n] each. `room` is what is left."""

    room: Floats
    drift: Floats
    variance: Floats
    window: Floats
    df: Floats
    noise: Floats
    veer: Floats


def lasts(fall: Fall, horizon: Floats) -> Floats:
    """The chance that zero is not reached within `horizon` seconds."""
    room, variance = _possible(fall)
    return np.asarray((1.0 - reached(horizon, room, fall.drift, variance, fall.window, fall.veer)).mean(axis=0), np.float64)


def quantiles(fall: Fall, shares: tuple[float, ...] = (0.05, 0.5, 0.95)) -> Floats:
    """float64[len(shares), n]: by when zero is reached with each probability, from a second on; inf beyond ten years or never.

    `fall` is float64[m, n]: m opinions of equal weight on each of n amounts, NaN where there is none (never, without any).
    Good to a few per cent: chances are interpolated between 65 times, then between 65 times in the range that matters.
    """
    room, variance = _possible(fall)

    def chances(log_t: Floats) -> Floats:
        each = reached(10.0 ** log_t[:, None, None, :], room, fall.drift, variance, fall.window, fall.veer)
        opinions = np.isfinite(each).sum(axis=(1, 2))
        mean = np.nansum(each, axis=(1, 2)) / np.maximum(opinions, 1)
        return np.asarray(np.maximum.accumulate(mean), np.float64)  # what was reached stays reached

    steps = np.linspace(0.0, 1.0, _GRID)[:, None]
    coarse = steps * np.full(fall.room.shape[-1], np.log10(LONGEST_S))
    at = chances(coarse)
    low, high = (_crossing(coarse, at, share, whole=True) for share in (shares[0], shares[-1]))
    fine = low[0] + steps * (high[1] - low[0])
    inside = chances(fine)
    return np.array([np.where(at[-1] < share, np.inf, 10.0 ** _crossing(fine, inside, share)[1]) for share in shares])


def _crossing(log_t: Floats, chance: Floats, share: float, whole: bool = False) -> tuple[Floats, Floats]:
    """float64[n] twice: the grid's times around the first chance of at least `share`; the second interpolated if not `whole`."""
    after = np.where((chance >= share).any(axis=0), (chance >= share).argmax(axis=0), len(log_t) - 1)
    before, column = np.maximum(after - 1, 0), np.arange(log_t.shape[1])
    first, second = log_t[before, column], log_t[after, column]
    if not whole:
        gain = chance[after, column] - chance[before, column]
        part = (share - chance[before, column]) / np.where(gain > 0, gain, 1.0)
        second = first + np.clip(part, 0.0, 1.0) * (second - first)
    return first, second


def _possible(fall: Fall) -> tuple[Floats, Floats]:
    """float64[NODES, …, n]: equally probable pairs of what may be left and of the variance (inverse chi-squared)."""
    from scipy.special import gammaincinv, ndtri

    level = ((np.arange(NODES) + 0.5) / NODES).reshape(-1, *[1] * fall.room.ndim)
    room = np.maximum(fall.room + fall.noise * ndtri(level[SHUFFLED]), 0.0)
    return room, fall.variance * fall.df / (2.0 * gammaincinv(fall.df / 2.0, level))


def reached(t: Floats, room: Floats, drift: Floats, variance: Floats, window: Floats, veer: Floats | float = 0.0) -> Floats:
    """The chance that zero was reached within `t` seconds, for known variance, and a drift known as the window allows.

    With `veer` an approximation, as if the drift had strayed from the beginning as far as it has by `t` on average.
    """
    from scipy.special import erfcx, log_ndtr, ndtr

    variance = np.maximum(variance, (_TINY * room) ** 2 / t + 1e-200)
    strays = veer * (window * NOW_SHARE + np.minimum(t, window) / 3.0)
    doubt = np.minimum(t / window + strays * t / variance, _MOST)  # of the drift, in diffusions
    sd = np.sqrt(variance * t * (1.0 + doubt))
    over = (drift * t - room) / sd
    k = 2.0 * doubt
    back = (room * (1.0 + k) + drift * t) / sd
    # what touched zero and is above it again, by reflection; each of the two forms where it does not overflow
    near = 0.5 * erfcx(np.maximum(back, 0.0) / np.sqrt(2.0)) * np.exp(-0.5 * np.clip(over, -40.0, 40.0) ** 2)
    away = np.exp(np.minimum(room * (2.0 * drift * t + k * room) / (variance * t), 0.0) + log_ndtr(-back))
    return np.asarray(np.clip(ndtr(over) + np.where(back > 0, near, away), 0.0, 1.0), np.float64)
