"""What every remediation promises, against both clusters: the one in memory and the real client on a fake API server."""

from __future__ import annotations

import re

import pytest
from fakes.kube_api import KubeApi

from aiops import plugins
from aiops.clock import ManualClock
from aiops.cluster.kubernetes import KubernetesCluster, api
from aiops.cluster.simulated import SimulatedCluster
from aiops.interfaces import Refused, Retry
from aiops.types import Action

NOW = 1_790_000_000.0
EXAMPLES = [pytest.param(name, example, id=f"{name}-{next(iter(example))}")
            for name in plugins.type_names("remediations") for example in plugins.load_type("remediations", name).examples]


def action(name, example, key="a-1"):
    target = plugins.load_type("remediations", name).target.model_validate(example)
    return Action(key, name, target.entity("shop"), {**target.params(), "max_unavailable": 1}, "i", "p", "act", "", NOW)


class Simulated:
    """The cluster in memory, filled with what the examples speak of."""

    def __init__(self):
        workloads = {"deployment/shop/api": 2, "statefulset/shop/db": 3, "daemonset/shop/agent": 3}
        self.cluster = SimulatedCluster(workloads, {f"pod/shop/api-{i}": {"app": "api"} for i in range(3)})
        self.cluster.now = NOW

    def changes(self):
        return list(self.cluster.calls)

    def replicas(self):
        return dict(self.cluster.workloads)


class Real:
    """The Kubernetes client on the fake API server."""

    def __init__(self, httpserver):
        from kubernetes import client

        self.server = KubeApi()
        httpserver.expect_request(re.compile(".*")).respond_with_handler(self.server)
        self.server.workload("deployments", "shop", "api", 2)
        self.server.workload("statefulsets", "shop", "db", 3)
        self.server.workload("daemonsets", "shop", "agent")
        for i in range(3):
            self.server.add_pod("shop", f"api-{i}", {"app": "api"})
        settings = client.Configuration()
        settings.host = httpserver.url_for("")
        self.cluster = KubernetesCluster(api(settings), ManualClock(NOW))

    def changes(self):
        return list(self.server.writes)

    def replicas(self):
        return {k: w["spec"]["replicas"] for k, w in self.server.workloads.items()}


@pytest.fixture(params=["simulated", "real"])
def world(request):
    return Simulated() if request.param == "simulated" else Real(request.getfixturevalue("httpserver"))


def act(remediation, what, cluster):
    """As an actuator does: again as long as it says Retry."""
    for _ in range(20):
        try:
            return remediation.act(what, cluster)
        except Retry:
            continue
    raise AssertionError("never finished")


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_plan_reads_only(name, example, world):
    """A plan is one sentence about what would happen, and changes nothing."""
    text = plugins.load_type("remediations", name)().plan(action(name, example), world.cluster)
    assert text.endswith(".")
    assert world.changes() == []


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_twice_with_one_id_is_once(name, example, world):
    """The id is the idempotency key, and the snapshot of the second call is that of the first."""
    remediation, what = plugins.load_type("remediations", name)(), action(name, example)
    first = act(remediation, what, world.cluster)
    changes = world.changes()
    assert changes
    if "pod" in example and "selector:" not in example["pod"]:
        return  # the pod of that name is gone: nothing is left that could be evicted twice
    assert act(remediation, what, world.cluster) == first
    assert world.changes() == changes


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_undo_restores_or_refuses(name, example, world):
    """What says that it is reversible puts everything back, once; the rest refuses in words."""
    remediation, what = plugins.load_type("remediations", name)(), action(name, example)
    before = world.replicas()
    snapshot = act(remediation, what, world.cluster)
    if not remediation.reversible:
        with pytest.raises(Refused):
            remediation.undo(what, snapshot, world.cluster)
        return
    assert world.replicas() != before
    undo = action(name, example, "a-2")
    remediation.undo(undo, snapshot, world.cluster)
    remediation.undo(undo, snapshot, world.cluster)
    assert world.replicas() == before


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_an_undo_without_a_snapshot_is_refused(name, example, world):
    """Nobody guesses what was there before."""
    remediation = plugins.load_type("remediations", name)()
    with pytest.raises(Refused):
        remediation.undo(action(name, example), {}, world.cluster)
    assert world.changes() == []


@pytest.mark.parametrize("name", plugins.type_names("remediations"))
def test_the_declared_rights_are_those_that_are_used(name, httpserver):
    """Not one verb too few, and not one too many: RBAC is generated from them."""
    world, kind = Real(httpserver), plugins.load_type("remediations", name)
    for i, example in enumerate(kind.examples):
        what = action(name, example, f"a-{i}")
        kind().plan(what, world.cluster)
        snapshot = act(kind(), what, world.cluster)
        if kind.reversible:
            kind().undo(action(name, example, f"u-{i}"), snapshot, world.cluster)
        for n in range(3):
            world.server.add_pod("shop", f"api-{n}", {"app": "api"})
    assert world.server.seen == kind.verbs


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_what_does_not_exist_is_refused(name, example, httpserver):
    """The same words from plan and act; nothing is created."""
    world = Real(httpserver)
    world.server.workloads.clear()
    world.server.pods.clear()
    remediation = plugins.load_type("remediations", name)()
    for verb in (remediation.plan, remediation.act):
        with pytest.raises(Refused, match=r"not found|no pod"):
            verb(action(name, example), world.cluster)
    assert world.changes() == []


@pytest.mark.parametrize("name", plugins.type_names("remediations"))
def test_targets_refuse_what_they_do_not_know(name):
    """Unknown keys, no target at all."""
    model = plugins.load_type("remediations", name).target
    for wrong in ({}, {"deploymnt": "api"}, {**plugins.load_type("remediations", name).examples[0], "x": 1}):
        with pytest.raises(ValueError, match="validation error"):
            model.model_validate(wrong)
