"""From residuals to p-values, for all signals at once in arrays.

A z-score means something else for every series; a p-value does not. Each column keeps the 98 % quantile `u` of its own
past scores and the Hill estimate `xi` of how heavy the tail beyond it is, and reads p-values off a Pareto tail there
(peaks over threshold; Siffer et al., "Anomaly Detection in Streams with Extreme Value Theory", KDD 2017).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from aiops.arrays import grown
from aiops.types import Bools, Floats

TAIL = 0.02
PRIOR_U, PRIOR_XI, PRIOR_N = 3.0, 0.2, 20.0
FLOOR_P = 1e-300


class Tail:
    """Calibrates non-negative scores per column. Learns from every score that is handed to `learn`.

    Fails where the past holds the same fault often: then the fault is its tail. Callers mask what must not be learned.
    """

    def __init__(self) -> None:
        self.u = np.zeros(0)
        self.n = np.zeros(0)
        self.exceed_n = np.zeros(0)
        self.exceed_sum = np.zeros(0)

    def resize(self, size: int) -> None:
        self.u = grown(self.u, size, PRIOR_U)
        self.n = grown(self.n, size, 0.0)
        self.exceed_n = grown(self.exceed_n, size, PRIOR_N)
        self.exceed_sum = grown(self.exceed_sum, size, PRIOR_N * PRIOR_XI)

    def xi(self, size: int) -> Floats:
        return np.clip(self.exceed_sum[:size] / self.exceed_n[:size], 0.05, 1.0)

    def p_value(self, score: Floats) -> Floats:
        """float64[S] in (0, 1]; 1 where the score is NaN or not positive."""
        size = len(score)
        u, xi = self.u[:size], self.xi(size)
        z = np.where(np.isfinite(score) & (score > 0), score, 0.0)
        with np.errstate(divide="ignore", over="ignore"):
            beyond = TAIL * np.power(np.maximum(z / u, 1.0), -1.0 / xi)
        p = np.where(z > u, beyond, np.power(TAIL, np.minimum(z / u, 1.0)))
        return np.clip(p, FLOOR_P, 1.0)

    def quantile(self, p: float, size: int) -> Floats:
        """The score that is exceeded with probability `p` < 0.02: half the width of the band that plots show."""
        return np.asarray(self.u[:size] * np.power(TAIL / p, self.xi(size)))

    def learn(self, score: Floats, which: Bools) -> None:
        """Stochastic approximation of the quantile, winsorised Hill sum for the tail; both forget."""
        i = np.flatnonzero(which & np.isfinite(score))
        z, u = np.maximum(score[i], 0.0), self.u[i]
        self.n[i] += 1
        step = np.maximum(0.01, 1.0 / (10.0 + self.n[i]))
        above = z > u
        self.u[i] = np.clip(u * np.exp(step * np.where(above, 1.0 - TAIL, -TAIL) * 2.0), 1.0, 100.0)
        j = i[above]
        self.exceed_sum[j] = 0.99 * self.exceed_sum[j] + np.minimum(np.log(z[above] / u[above]), 2.0)
        self.exceed_n[j] = 0.99 * self.exceed_n[j] + 1.0

    def state(self) -> dict[str, Any]:
        return {k: getattr(self, k).copy() for k in ("u", "n", "exceed_n", "exceed_sum")}

    def restore(self, state: dict[str, Any]) -> None:
        for k in ("u", "n", "exceed_n", "exceed_sum"):
            setattr(self, k, np.array(state[k], np.float64))
