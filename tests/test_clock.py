"""Clocks: event time must rise whatever happens to the host's clock."""

from __future__ import annotations

from aiops.clock import ManualClock, WallClock


def test_a_clock_that_is_set_back_goes_on_at_its_usual_pace() -> None:
    """An hour back on the host costs neither an hour of sight nor a step back in event time."""
    host = {"wall": 10_000.0, "steady": 5.0}
    clock = WallClock(lambda: host["wall"], lambda: host["steady"])
    assert clock.now() == 10_000.0
    host.update(wall=6_400.0, steady=10.0)
    assert clock.now() == 10_005.0
    host.update(wall=6_410.0, steady=20.0)
    assert clock.now() == 10_015.0


def test_a_clock_that_is_set_forward_is_believed() -> None:
    """After a suspend, or a correction, the host's time counts."""
    host = {"wall": 10_000.0, "steady": 5.0}
    clock = WallClock(lambda: host["wall"], lambda: host["steady"])
    host.update(wall=20_000.0, steady=6.0)
    assert clock.now() == 20_000.0
    host.update(wall=20_001.0, steady=7.0)
    assert clock.now() == 20_001.0


def test_a_manual_clock_moves_only_when_told() -> None:
    """Sleeping until a time makes it that time, and never an earlier one."""
    clock = ManualClock(50.0)
    clock.sleep_until(60.0)
    clock.sleep_until(55.0)
    assert clock.now() == 60.0
