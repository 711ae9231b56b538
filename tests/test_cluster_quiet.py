"""What fails is left alone: however many ask, an endpoint that fails is asked once a second at most, and less and less."""

from __future__ import annotations

from itertools import pairwise

import pytest

from aiops.clock import ManualClock
from aiops.cluster.quiet import LEAST_S, MOST_S, SERVER, Quiet, endpoint_of
from aiops.interfaces import Retry


def asked_at(quiet: Quiet, clock: ManualClock, until: float, step_s: float = 0.05) -> list[float]:
    """When requests got through of those who ask all the time, where each fails."""
    times = []
    while clock.now() < until:
        try:
            quiet.ask("GET pods")
        except Retry:
            pass
        else:
            times.append(clock.now())
            quiet.failed("GET pods", "made up")
        clock.sleep_until(clock.now() + step_s)
    return times


@pytest.mark.parametrize("seed", range(20))
def test_requests_become_rare_and_are_never_together(seed: int) -> None:
    """Never two within a second; when it lasts, some seconds apart, and never more than the most. With jitter: no two alike."""
    clock = ManualClock(0.0)
    gaps = [b - a for a, b in pairwise(asked_at(Quiet(clock.monotonic, seed), clock, 300.0))]
    assert min(gaps) >= LEAST_S and max(gaps) <= MOST_S + 0.1
    assert sum(gaps[5:]) / len(gaps[5:]) > 4.0
    assert len({round(gap, 2) for gap in gaps}) > len(gaps) // 2


def test_the_reason_and_the_time_that_is_left_are_told() -> None:
    """And what the server asked for counts, where that is longer."""
    clock = ManualClock(0.0)
    quiet = Quiet(clock.monotonic, 0)
    quiet.failed("GET pods", "GET /api/v1/pods: 429: too many", 60.0)
    clock.sleep_until(20.0)
    with pytest.raises(Retry, match="GET /api/v1/pods: 429: too many") as caught:
        quiet.ask("GET pods")
    assert caught.value.after_s == pytest.approx(40.0)
    clock.sleep_until(60.0)
    quiet.ask("GET pods")


def test_one_that_fails_does_not_hold_up_the_others_but_nobody_at_all_does() -> None:
    """What works is asked on; what works again begins anew."""
    clock = ManualClock(0.0)
    quiet = Quiet(clock.monotonic, 0)
    quiet.failed("GET pods", "pods")
    quiet.ask("GET nodes")
    quiet.failed(SERVER, "nobody there")
    for endpoint, why in (("GET nodes", "nobody there"), ("GET pods", "nobody there")):
        with pytest.raises(Retry, match=why):
            quiet.ask(endpoint)
    quiet.works("GET nodes")
    quiet.ask("GET nodes")
    with pytest.raises(Retry, match="pods"):
        quiet.ask("GET pods")


@pytest.mark.parametrize(("path", "endpoint"), [
    ("/api/v1/namespaces/shop/pods/api-0/eviction", "PATCH /api/v1/pods/eviction"),
    ("/apis/apps/v1/namespaces/shop/deployments/api", "PATCH /apis/apps/v1/deployments"),
    ("/apis/apps/v1/deployments", "PATCH /apis/apps/v1/deployments"), ("/api/v1/nodes/gpu-1", "PATCH /api/v1/nodes"),
    ("/api/v1/namespaces/shop", "PATCH /api/v1/namespaces"), ("/strange", "PATCH other")])
def test_an_endpoint_has_no_names_in_it(path: str, endpoint: str) -> None:
    """So there are few of them, whatever is asked for."""
    assert endpoint_of("PATCH", path) == endpoint
