"""Leaves alone what fails: at most one request a second to each endpoint, and fewer the longer it fails, however many ask.

An endpoint is a method and a kind of object. Where nobody answers at all, that goes for every endpoint. One request finds out
whether it works again. https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from aiops.interfaces import Retry

LEAST_S, MOST_S = 1.0, 15.0
SERVER = "every request"
_NAMES = re.compile(r"(/api/[^/]+|/apis/[^/]+/[^/]+)(?:/namespaces/[^/]+(?=/))?/([^/]+)(?:/[^/]+(/[^/]+)?)?")


class _Failing(NamedTuple):
    """How often in a row, when it may be asked again, and what went wrong last."""

    times: int
    until: float
    why: str


class Quiet:
    """`now`: seconds of a clock that only rises. For one thread; holds one entry for each endpoint that fails."""

    def __init__(self, now: Callable[[], float], seed: int | None = None) -> None:
        self._now, self._random = now, np.random.default_rng(seed)
        self._failing: dict[str, _Failing] = {}

    def ask(self, endpoint: str) -> None:
        """Raises Retry while it is left alone."""
        for failing in filter(None, (self._failing.get(SERVER), self._failing.get(endpoint))):
            left_s = failing.until - self._now()
            if left_s > 0:
                raise Retry(failing.why, left_s)

    def failed(self, endpoint: str, why: str, after_s: float = 0.0) -> None:
        """after_s: so long the server asked for. A random time up to twice the last most, never less than a second."""
        times = self._failing[endpoint].times + 1 if endpoint in self._failing else 1
        drawn_s = float(self._random.uniform(LEAST_S, min(MOST_S, LEAST_S * 2.0 ** min(times, 16))))
        self._failing[endpoint] = _Failing(times, self._now() + max(drawn_s, after_s), why)

    def works(self, endpoint: str) -> None:
        self._failing.pop(endpoint, None)
        self._failing.pop(SERVER, None)


def endpoint_of(method: str, path: str) -> str:
    """`PATCH /apis/apps/v1/deployments/scale`: without the names of namespace and object."""
    found = _NAMES.fullmatch(path)
    return f"{method} {found[1]}/{found[2]}{found[3] or ''}" if found else f"{method} other"
