"""The proving ground: telemetry answers to what is done, faults last until they are cured, and the loop cures them."""

from __future__ import annotations

import pytest
from fakes.collected import Collected

from aiops.cluster.executor import Executor, Notes
from aiops.demo import faults
from aiops.demo.world import World
from aiops.interfaces import Retry
from aiops.types import Action
from benchmarks.healing import TARGETS, WARM_S, Run, forked

T0 = 1_790_000_000.0
POD, SHOP = "pod/shop/", "deployment/shop/"
CURES = {
    "Leak": [("Restart", POD + "selector:app=gateway", {"max_unavailable": 3})],
    "SlowReplica": [("Restart", POD + "chat-0", {})],
    "Hung": [("Evict", POD + "chat-0", {})],
    "BadDeploy": [("Rollback", SHOP + "catalog", {})],
    "CrashLoop": [("Rollback", SHOP + "catalog", {})],
    "Surge": [("ScaleUp", SHOP + "chat", {"replicas": "+4"})],
    "GpuLost": [("Drain", "node//gpu-1", {"max_unavailable": "100%"})],
    "RowRemap": [("Cordon", "node//gpu-2", {})],
    "Hot": [("Drain", "node//gpu-1", {"max_unavailable": "100%"})],
    "NodeLost": [("Drain", "node//web-1", {"max_unavailable": "100%"})],
    "FullVolume": [("RunJob", "cronjob/shop/clean-data-db-0", {})],
    "Noisy": [("Evict", POD + "crunch-0", {})],
    "StuckJob": [("Suspend", "job/shop/embed", {})],
}


def watched(world, minutes, start=T0):
    """What is measured in so many minutes."""
    got = Collected()
    for k in range(int(minutes * 4)):
        world.tick(start + k * 15.0, got)
    return got


def done(world, kind, target, params, at):
    """An action, in turns, with a tick between them as there is in a cluster."""
    executor = Executor(world.cluster, Notes())
    action = Action("a-1", kind, target, params, "i", "p", "act", "", at)
    for k in range(40):
        try:
            return executor.carry_out(action, at)
        except Retry:
            world.tick(at + k * 15.0, Collected())
    raise AssertionError("never finished")


def test_equal_seeds_give_equal_telemetry():
    """To the last bit; other seeds other telemetry."""
    assert watched(World(3), 5) == watched(World(3), 5)
    assert watched(World(3), 5).samples != watched(World(4), 5).samples


def test_a_calm_cluster_is_calm():
    """Nothing restarts, nothing waits, hardly anything fails."""
    got = watched(World(1), 20)
    assert set(got.values("kube_pod_container_status_restarts_total")) == {0.0}
    assert max(got.values("vllm:num_requests_waiting")) < 5
    assert got.lines == [] and got.events == []
    served, failed = (got.values("http_requests_total", code=c) for c in ("200", "500"))
    assert sum(failed) < 0.003 * sum(served)


@pytest.mark.parametrize("kind", sorted(TARGETS))
def test_a_fault_lasts_until_it_is_cured(kind):
    """Waiting helps nobody; what a careful person would do, done through the executor, does, and stays so."""
    world = World(1, [getattr(faults, kind)(T0 + 300.0, TARGETS[kind])])
    [fault] = world.faults
    watched(world, 30)
    assert not fault.cured(world)
    for action, target, params in CURES[kind]:
        assert (action, target) in fault.right
        outcome = done(world, action, target, params, T0 + 1800.0)
        assert outcome.status == "done", outcome.reason
    watched(world, 10, T0 + 2400.0)
    assert fault.cured(world)


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(TARGETS))
def test_a_fault_shows(kind):
    """Somebody who looks at metrics, logs or events sees a difference."""
    calm = watched(World(1), 30)
    ill = watched(World(1, [getattr(faults, kind)(T0 + 300.0, TARGETS[kind])]), 30)
    metrics = {s.metric for s in calm.samples}
    worse = {m for m in metrics if sum(ill.values(m)) != pytest.approx(sum(calm.values(m)), rel=0.01)}
    assert worse or ill.lines or ill.events


@pytest.mark.slow
def test_a_hung_engine_is_found_explained_healed_and_verified():
    """The whole loop: by the shipped policy, on the one replica, once."""
    run = Run(0)
    end = run.at + WARM_S
    while run.at < end:
        run.tick()
    assert run.actions == [] and run.incidents == set()
    found = forked(run, "Hung")
    assert found["healed"] is not None and found["wrong"] == []
    assert [a.split(" ", 1)[1] for a in found["acts"]] == ["hung-engine Restart pod/shop/chat-0"]
    assert "helped" in found["outcomes"]
