"""The daemon's own health as telemetry."""

from __future__ import annotations

from fakes.collected import Collected

from aiops.sources.own import ENTITY, OwnSource


def test_its_own_figures_and_this_process_become_series() -> None:
    """What the daemon reads of itself arrives beside the memory and CPU time of the process."""
    got = Collected()
    OwnSource(lambda: {"aiops_step_seconds": 0.25, "aiops_dropped_samples_total": 3.0}).poll(100.0, got)
    values = {s.metric: s.value for s in got.samples}
    assert {s.entity for s in got.samples} == {ENTITY}
    assert values["aiops_step_seconds"] == 0.25
    assert values["aiops_process_memory_bytes"] > 1e6
    assert {s.metric for s in got.samples if s.kind == "counter"} == {
        "aiops_dropped_samples_total", "aiops_process_cpu_seconds_total"}
