"""What every remediation promises, against both clusters: the one in memory and the real client on a fake API server."""

from __future__ import annotations

import copy
import itertools
import re

import pytest
from fakes.acting import NOW, action, carry_out
from fakes.kube_api import KubeApi
from fakes.kube_objects import seeded

from aiops import plugins, rbac
from aiops.changes import Change, from_json
from aiops.cluster.calls import WithCalls
from aiops.cluster.checks import not_paused
from aiops.cluster.executor import Executor, Notes
from aiops.cluster.kubernetes import KubernetesCluster, api
from aiops.cluster.radius import Radius
from aiops.cluster.simulated import SimulatedCluster
from aiops.interfaces import Refused
from aiops.kinds import KINDS
from aiops.limits import Limits

EXAMPLES = [pytest.param(name, example, id=f"{name}-{next(iter(example), 'alone')}")
            for name in plugins.type_names("remediations") for example in plugins.load_type("remediations", name).examples]


class Simulated:
    """The cluster in memory, filled with what the examples speak of."""

    def __init__(self):
        self.cluster = SimulatedCluster(objects=seeded())
        self.cluster.now = NOW

    def changes(self):
        return [str(c) for c in self.cluster.calls]

    def specs(self):
        return {k: copy.deepcopy(o.get("spec")) for k, o in self.cluster.objects.items() if not k.startswith("pod/")}


class Real:
    """The Kubernetes client on the fake API server."""

    def __init__(self, httpserver):
        from kubernetes import client

        self.server = KubeApi()
        httpserver.expect_request(re.compile(".*")).respond_with_handler(self.server)
        self.fill()
        settings = client.Configuration()
        settings.host = httpserver.url_for("")
        self.calls = []
        self.cluster = WithCalls(KubernetesCluster(api(settings)), self)

    def check(self, change):
        """Whom actions call is always there."""

    def send(self, change):
        self.calls.append(change)

    def fill(self):
        self.server.objects.clear()
        for kind, one in seeded():
            self.server.put(KINDS[kind].plural, one)

    def changes(self):
        return [*self.server.writes, *self.calls]

    def specs(self):
        return {k: copy.deepcopy(o.get("spec")) for k, o in self.server.objects.items() if k[0] != "pods"}


@pytest.fixture(params=["simulated", "real"])
def world(request):
    return Simulated() if request.param == "simulated" else Real(request.getfixturevalue("httpserver"))


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_plan_reads_only(name, example, world):
    """A plan is one sentence and the writes that it would take, each of which is data, and changes nothing."""
    plan = plugins.load_type("remediations", name)().plan(action(name, example), world.cluster)
    assert plan.text.endswith(".")
    assert [from_json(c.as_json()) for c in plan.changes] == list(plan.changes)
    assert world.changes() == []


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_every_write_is_told_from_the_object_whether_it_was_done(name, example, world):
    """Before: not done. After: done. That is what a restart goes by."""
    plan = plugins.load_type("remediations", name)().plan(action(name, example), world.cluster)
    for change in plan.changes:
        if change.verb == "call":
            continue
        assert change.standing(world.cluster.get(change.entity)) == "not done"
        world.cluster.try_out(change)
        assert change.standing(world.cluster.get(change.entity)) == "not done"
        world.cluster.write(change)
        assert change.standing(world.cluster.get(change.entity)) == "done"


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_a_write_that_comes_twice_is_done_once(name, example, world):
    """The second finds another state: it fails, or finds that nothing is left to do."""
    plan = plugins.load_type("remediations", name)().plan(action(name, example), world.cluster)
    for change in [c for c in plan.changes if c.verb != "call"]:
        world.cluster.write(change)
        before = world.specs()
        try:
            world.cluster.write(change)
        except Exception as e:  # noqa: BLE001 - which one depends on the verb
            assert type(e).__name__ in ("Changed", "Refused", "Conflict")
        assert world.specs() == before


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_undo_restores_or_refuses(name, example, world):
    """What says that it is reversible puts everything back, once; the rest refuses in words."""
    kind, notes = plugins.load_type("remediations", name), Notes()
    executor = Executor(world.cluster, notes, [not_paused])
    plan = kind().plan(action(name, example), world.cluster)
    before = world.specs()
    outcome = carry_out(executor, action(name, example))
    assert outcome.status == "done", outcome.reason
    undo = action(name, example, "a-2", "undo", undo_of="a-1")
    if not kind.reversible:
        assert carry_out(executor, undo).status == "refused"
        return
    assert plan.changes and world.specs() != before
    assert carry_out(executor, undo).status == "undone"
    assert world.specs() == before
    assert carry_out(executor, undo).status == "undone"
    assert world.specs() == before


@pytest.mark.parametrize("name", plugins.type_names("remediations"))
def test_the_declared_rights_are_those_that_are_used(name, httpserver):
    """Not one verb too few, and not one too many: RBAC is generated from them."""
    world, kind = Real(httpserver), plugins.load_type("remediations", name)
    for i, example in enumerate(kind.examples):
        world.fill()
        radius = Radius(Limits(), itertools.count(0, 10).__next__)
        executor = Executor(world.cluster, Notes(), [not_paused, radius])
        assert carry_out(executor, action(name, example, f"a-{i}")).status == "done"
        carry_out(executor, action(name, example, f"u-{i}", "undo", undo_of=f"a-{i}"))
    assert kind.verbs <= world.server.seen <= rbac.with_checks(kind.verbs)


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_what_does_not_exist_is_refused(name, example, httpserver):
    """In words, and nothing is changed."""
    world = Real(httpserver)
    world.server.objects.clear()
    remediation = plugins.load_type("remediations", name)()
    plan = None
    try:
        plan = remediation.plan(action(name, example), world.cluster)
    except Refused as e:
        assert e.reason.endswith(".")
    assert plan is None or all(c.verb in ("create", "call") for c in plan.changes)
    assert world.changes() == []


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_what_is_paused_is_left_alone(name, example, world):
    """The object itself, or its whole namespace."""
    plan = plugins.load_type("remediations", name)().plan(action(name, example), world.cluster)
    if not any(c.verb in ("patch", "evict") for c in plan.changes):
        return
    for kind, one in seeded():
        one["metadata"].setdefault("annotations", {})["aiops.io/paused"] = "true"
        world.cluster.put(one, kind) if isinstance(world, Simulated) else world.server.put(KINDS[kind].plural, one)
    assert carry_out(Executor(world.cluster, Notes(), [not_paused]), action(name, example)).status == "refused"
    assert world.changes() == []


@pytest.mark.parametrize("name", plugins.type_names("remediations"))
def test_it_describes_itself(name):
    """Rights as (group, resource, verb), a docstring, and examples for the tests and the documentation."""
    kind = plugins.load_type("remediations", name)
    assert kind.__doc__ and kind.examples
    assert all(len(right) == 3 and all(isinstance(x, str) for x in right) for right in kind.verbs)
    assert isinstance(kind.disruptive, bool) and isinstance(kind.reversible, bool)


def test_changes_say_what_they_do():
    """One line, for people and for the audit."""
    example = {"deployment": "api", "replicas": "+2"}
    plan = plugins.load_type("remediations", "ScaleUp")().plan(action("ScaleUp", example), Simulated().cluster)
    assert [str(c) for c in plan.changes] == ["patch deployment/shop/api spec.replicas: 2 -> 4"]
    assert isinstance(plan.changes[0], Change)
