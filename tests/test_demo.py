"""The proving ground: telemetry answers to what is done, faults last until they are cured, the loop cures them, and keeps its
hands off what is well."""

from __future__ import annotations

import numpy as np
import pytest
from fakes.collected import Collected

from aiops.cluster.executor import Executor, Notes
from aiops.demo import faults, traps
from aiops.demo.everyday import Autoscaler, Deploys, Hourly, NodeCare, everyday
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


def lived(world, minutes, start=T0):
    """The world after each of so many minutes of ticks."""
    for k in range(int(minutes * 60.0 / world.tick_s)):
        world.tick(start + k * world.tick_s, Collected())
        yield start + k * world.tick_s


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


@pytest.mark.slow
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


# ------------------------------------------------------------------------------------------------------- quiet days
def test_a_rollout_replaces_one_pod_after_the_other():
    """All of them by new ones under another name and revision, and never are fewer ready than are asked for."""
    deploys = Deploys(np.random.default_rng(1), per_day=1e-9)
    world = World(1, habits=[deploys])
    watched(world, 1)
    before = {p.uid for p in world.of("catalog")}
    deploys.begin(world, "catalog", T0 + 60.0)
    ready = [sum(p.ready for p in world.of("catalog")) for _ in lived(world, 10, T0 + 60.0)]
    assert min(ready) >= 3 and ready[-1] == len(world.of("catalog")) == 3
    assert not before & {p.uid for p in world.of("catalog")}
    assert world.workload("catalog")["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "2"
    assert not world.rolling


def test_the_autoscaler_follows_the_load_and_signs_for_it():
    """More at noon than at night, within its bounds, as manager of the replicas."""
    world = World(1, tick_s=180.0, habits=[Autoscaler("gateway", most=5)])
    seen = {len(world.of("gateway")) for _ in lived(world, 14 * 60)}
    assert min(seen) == 2 and 4 <= max(seen) <= 5
    [entry] = world.workload("gateway")["metadata"]["managedFields"]
    assert entry["manager"] == "kube-controller-manager" and entry["fieldsV1"] == {"f:spec": {"f:replicas": {}}}


def test_a_node_that_is_cared_for_is_emptied_rebooted_and_given_back():
    """Nobody is on it while it is down, nobody is lost, and it is schedulable afterwards."""
    care = NodeCare(np.random.default_rng(1), per_day=1e-9)
    world = World(1, habits=[care])
    watched(world, 1)
    care.begin(world, "web-0", T0 + 60.0)
    down = [at for at in lived(world, 30, T0 + 60.0) if not world.nodes["web-0"].ready]
    assert 150.0 <= len(down) * 15.0 <= 210.0
    assert not world.node("web-0")["spec"]["unschedulable"]
    assert [len(world.of(app)) for app in ("db", "catalog", "chat", "gateway")] == [2, 3, 4, 3]


def test_an_hourly_job_ends_and_leaves_nothing():
    """At the full hour a pod, a quarter of an hour later none."""
    world = World(1, tick_s=60.0, habits=[Hourly(np.random.default_rng(1))])
    counts = [len(world.of("report")) for _ in lived(world, 130)]
    assert max(counts) == 1 and counts[-1] == 0 and not world.work


def test_what_goes_on_all_day_does_not_pile_up():
    """Objects and counters of pods that are gone are forgotten; those that are left are as many as are asked for."""
    world = World(2, tick_s=180.0, habits=everyday(2))
    for _ in lived(world, 12 * 60):
        pass
    pods = [e for e in world.cluster.objects if e.startswith("pod/")]
    assert len(pods) < 20 and {key[0] for key in world._totals if key[0].startswith("pod/")} <= set(pods)


@pytest.mark.slow
def test_nothing_is_done_about_a_rollout_autoscaling_and_maintenance():
    """A version comes, a machine is rebooted, the load rises and falls: the shipped policies, in mode act, decide nothing."""
    run = Run(1, True, 30.0)
    deploys, _, _, care, *_ = run.world.habits
    scaled, end = set(), run.at + 2 * WARM_S
    while run.at < end:
        run.tick()
        scaled.add(len(run.world.of("catalog")))
        if run.at == end - WARM_S:
            deploys.begin(run.world, "chat", run.at)
            care.begin(run.world, "web-1", run.at)
    assert run.acts() == []
    assert len(scaled) > 1 and not run.world.rolling
    assert run.world.workload("chat")["metadata"]["annotations"]["deployment.kubernetes.io/revision"] != "1"


# ------------------------------------------------------------------------------------------------------------- traps
OBVIOUS = {
    "ConnectionLimit": ("ScaleUp", SHOP + "chat", {"replicas": "+2"}),
    "ColdCache": ("Restart", POD + "catalog-0", {}),
    "MigratedData": ("Rollback", SHOP + "catalog", {}),
}


@pytest.mark.parametrize("kind", sorted(traps.TRAPS))
def test_the_obvious_action_makes_a_trap_worse(kind):
    """More requests fail after it than before."""
    world = World(1, [getattr(traps, kind)(T0 + 60.0, traps.TRAPS[kind])])

    def failing(start):
        got = watched(world, 10, start)
        pods = [s for s in got.samples if s.metric == "kube_pod_status_ready"]
        errors = sum(p.error_rate for p in world.pods.values())
        return errors + sum(s.value == 0.0 for s in pods[-len(world.pods):])

    before = failing(T0)
    outcome = done(world, *OBVIOUS[kind], T0 + 600.0)
    assert outcome.status == "done", outcome.reason
    assert failing(T0 + 900.0) > before + 0.2


@pytest.mark.slow
def test_what_made_it_worse_is_undone():
    """The verdict is `worse`, and what can be put back is put back, every time."""
    run = Run(0)
    end = run.at + WARM_S
    while run.at < end:
        run.tick()
    for kind in ("ConnectionLimit", "MigratedData"):
        found = forked(run, kind)
        assert found["worse"] >= 1 and found["undone"] == found["reversible"] == found["worse"], found["said"]
