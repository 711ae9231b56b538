"""Blast radius: whoever takes something away, it never gets more than the limits allow by our doing, and nobody is kept from
coming back."""

from __future__ import annotations

import copy
import random
import time

import pytest

from aiops.changes import evict, item, patch
from aiops.cluster.executor import Executor, Fewer, Notes
from aiops.cluster.radius import Fleet, Radius, service_of, takes_node
from aiops.cluster.simulated import SimulatedCluster
from aiops.interfaces import Refused, Retry
from aiops.limits import Limit, Limits
from aiops.types import Action

NOW = 1_790_000_000.0
READY = {"conditions": [{"type": "Ready", "status": "True"}]}
DOWN = {"conditions": [{"type": "Ready", "status": "Unknown"}]}
ZONE = "topology.kubernetes.io/zone"


def node(name, zone="", **labels):
    own = {**labels, **({ZONE: zone} if zone else {})}
    return "node", {"kind": "Node", "metadata": {"name": name, "labels": own}, "spec": {}, "status": copy.deepcopy(READY)}


def pod(name, app="api", ready=True, **meta):
    owner = [{"kind": "ReplicaSet", "name": f"{app}-77", "controller": True}]
    return "pod", {"kind": "Pod", "metadata": {"name": name, "namespace": "shop", "ownerReferences": owner,
                                               "labels": {"app": app, "pod-template-hash": "77"}, **meta},
                   "spec": {}, "status": {"phase": "Running", **copy.deepcopy(READY if ready else DOWN)}}


def limits(**given):
    return Limits.model_validate(given)


def fleet(n=20, **more):
    return SimulatedCluster(objects=[node(f"gpu-{i}", **more) for i in range(n)])


class Clock:
    def __init__(self):
        self.t = 0.0

    def __call__(self):
        return self.t


def radius(given=None):
    return Radius(given or Limits(), Clock())


def act(state="", kind="Restart"):
    return Action("a-1", kind, "node//gpu-0", {}, "i", "p", "act", "", NOW, state)


def cordon(cluster, name, off=False):
    entity = f"node//{name}"
    return patch(entity, cluster.get(entity), {("spec", "unschedulable"): None if off else True})


def ask(check, cluster, *changes, state=""):
    """What the check says: nothing, or why not."""
    try:
        check(act(state), list(changes), cluster)
    except (Refused, Retry) as e:
        return e.reason
    return None


def take(check, cluster, *changes, state=""):
    """Asked, and done where it may be."""
    said = ask(check, cluster, *changes, state=state)
    for change in changes if said is None else ():
        cluster.write(change)
    return said


# -------------------------------------------------------------------------------------------------------- the limits
@pytest.mark.parametrize(("count", "share", "total", "most"), [
    (1, "10%", 1000, 1), (50, "10%", 100, 10), (50, "10%", 19, 1), (50, "10%", 3, 1), (0, "50%", 10, 0), (9, "100%", 4, 4)])
def test_count_and_share_both_hold(count, share, total, most):
    """A share is rounded down, but one; a count of 0 means never."""
    assert Limit.model_validate({"count": count, "share": share}).most(total) == most


def test_a_second_node_does_not_go_whoever_took_the_first():
    """Cordoned by a person, failed by itself, tainted as broken: it counts."""
    for spec, status in (({"unschedulable": True}, READY), ({}, DOWN), ({}, {}),
                         ({"taints": [{"key": "node.kubernetes.io/memory-pressure", "effect": "NoSchedule"}]}, READY),
                         ({"taints": [{"key": "aiops.io/suspect", "effect": "NoExecute"}]}, READY)):
        cluster = fleet()
        cluster.objects["node//gpu-7"] |= {"spec": spec, "status": status}
        said = ask(radius(), cluster, cordon(cluster, "gpu-1"))
        assert said and said.startswith("not now: node//gpu-1 must not go away as well: 1 of 20 of the nodes are away (gpu-7 ")
        assert said.endswith("and limits.nodes allows 1 (count 1, share 10%).")


def test_what_a_node_is_for_is_no_fault():
    """Pools keep others off by taints of their own."""
    cluster = fleet()
    for i in range(10):
        cluster.objects[f"node//gpu-{i}"]["spec"]["taints"] = [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]
    assert ask(radius(), cluster, cordon(cluster, "gpu-1")) is None


def test_our_own_taints_count_whatever_their_key():
    """Also after the next listing."""
    cluster, check = fleet(), radius()
    path = ("spec", "taints", item(key="broken", effect="NoSchedule"))
    taint = patch("node//gpu-1", cluster.get("node//gpu-1"), {path: {"key": "broken", "effect": "NoSchedule"}})
    assert takes_node(taint) and take(check, cluster, taint) is None
    check._now.t += 60.0
    assert "gpu-1 tainted with broken" in ask(check, cluster, cordon(cluster, "gpu-2"))


def test_what_is_away_already_costs_nothing():
    """A broken node may be cordoned, tainted and drained."""
    cluster = fleet()
    cluster.objects["node//gpu-1"]["status"] = DOWN
    assert ask(radius(), cluster, cordon(cluster, "gpu-1")) is None


def test_the_last_node_never_goes():
    """Neither of all, nor of its zone, whatever the limits say."""
    wide = limits(nodes={"count": 9, "share": "100%"}, nodeGroup={"count": 9, "share": "100%"})
    alone = fleet(1)
    assert ask(radius(wide), alone, cordon(alone, "gpu-0")).endswith("nobody would be left of the nodes.")
    cluster = SimulatedCluster(objects=[node("a", "z1"), node("b", "z2"), node("c", "z2")])
    assert ask(radius(wide), cluster, cordon(cluster, "a")).endswith(f"nobody would be left of the nodes with {ZONE}=z1.")
    assert ask(radius(wide), cluster, cordon(cluster, "b")) is None


def test_each_group_has_its_own_limit():
    """Two of six may go, but not two of one zone."""
    wide = limits(nodes={"count": 2, "share": "50%"})
    cluster = SimulatedCluster(objects=[node(f"{z}{i}", z) for z in "ab" for i in range(3)])
    check = radius(wide)
    assert take(check, cluster, cordon(cluster, "a0")) is None
    assert "limits.nodeGroup allows 1 (count 1, share 34%)" in take(check, cluster, cordon(cluster, "a1"))
    assert take(check, cluster, cordon(cluster, "b0")) is None
    assert "limits.nodes allows 2" in take(check, cluster, cordon(cluster, "b1"))


def test_the_group_is_the_label_that_was_set_else_the_first_that_is_there():
    """Zone, NVLink domain, instance type; a rack where one says so."""
    wide = {"nodes": {"count": 9, "share": "100%"}, "nodeGroup": {"count": 1, "share": "50%"}}
    types = SimulatedCluster(objects=[node(f"n{i}", **{"node.kubernetes.io/instance-type": "h200", "rack": f"r{i}"})
                                      for i in range(4)] + [node("m0", rack="r0")])
    check = radius(limits(**wide))
    assert take(check, types, cordon(types, "n0")) is None
    assert "instance-type=h200" in take(check, types, cordon(types, "n1"))
    wide["nodeGroup"]["label"] = "rack"
    check = radius(limits(**wide))
    assert take(check, types, cordon(types, "n1")) is not None  # the only one of its rack
    assert "rack=r0" in take(check, types, cordon(types, "m0"))


# ----------------------------------------------------------------------------------------------------------- services
def test_pods_go_one_after_the_other_whatever_the_policy_asks():
    """Three evictions are asked for at once, one goes now; one that is not ready costs nothing."""
    cluster = SimulatedCluster({"deployment/shop/api": 8}, objects=[pod(f"api-{i}", ready=i != 5) for i in range(8)])
    some = [evict(cluster.get(f"pod/shop/api-{i}")) for i in (1, 5, 2)]
    with pytest.raises(Fewer, match=r"1 of 8 pods of deployment/shop/api are away, and limits\.service allows 1") as caught:
        radius()(act(), some, cluster)
    assert [c.entity for c in caught.value.changes] == ["pod/shop/api-5"]
    wide = radius(limits(service={"count": 3, "share": "25%"}))
    with pytest.raises(Fewer) as caught:
        wide(act(), some, cluster)
    assert [c.entity for c in caught.value.changes] == ["pod/shop/api-1", "pod/shop/api-5"]


def test_the_executor_writes_what_may_go_and_comes_back_for_the_rest():
    """Not all or nothing, or an action that asks for two would wait for ever."""
    cluster = SimulatedCluster({"deployment/shop/api": 4}, objects=[pod(f"api-{i}") for i in range(4)])
    cluster.now = NOW
    restart = Action("a-1", "Restart", "pod/shop/selector:app=api", {"max_unavailable": 3}, "i", "p", "act", "", NOW)
    check = radius()
    executor = Executor(cluster, Notes(), [check])
    for turn in range(1, 5):
        with pytest.raises(Retry):
            executor.carry_out(restart, NOW)
        assert len(cluster.calls) == turn
        check._now.t += 10.0
    assert executor.carry_out(restart, NOW).status == "done"


def test_pods_that_nobody_makes_any_more_are_missed():
    """A quota keeps the replacement away: the service must not be taken apart one pod at a time."""
    cluster = SimulatedCluster({"deployment/shop/api": 4}, objects=[pod(f"api-{i}") for i in range(3)])
    with pytest.raises(Fewer, match="1 of 4 pods"):
        radius()(act(), [evict(cluster.get("pod/shop/api-0"))], cluster)


def test_an_only_pod_may_be_restarted():
    """It comes back; a disruption budget can forbid it."""
    cluster = SimulatedCluster({"deployment/shop/api": 1}, objects=[pod("api-0")])
    assert ask(radius(), cluster, evict(cluster.get("pod/shop/api-0"))) is None


def test_pods_that_leave_are_away():
    """Whoever told them to stop."""
    leaving = pod("api-0", deletionTimestamp="2026-01-01T00:00:00Z")
    cluster = SimulatedCluster({"deployment/shop/api": 4}, objects=[leaving, *(pod(f"api-{i}") for i in range(1, 5))])
    assert ask(radius(), cluster, evict(cluster.get("pod/shop/api-1"))) is None  # its replacement is ready already
    del cluster.objects["pod/shop/api-4"]
    assert "1 of 4 pods" in ask(radius(), cluster, evict(cluster.get("pod/shop/api-1")))


def test_a_rollout_that_takes_all_pods_away_at_once_is_refused():
    """Strategy Recreate. Not where they do not serve anyway."""
    for ready, refused in ((True, True), (False, False)):
        cluster = SimulatedCluster({"deployment/shop/api": 3}, objects=[pod(f"api-{i}", ready=ready) for i in range(3)])
        cluster.objects["deployment/shop/api"]["spec"]["strategy"] = {"type": "Recreate"}
        change = patch("deployment/shop/api", cluster.get("deployment/shop/api"), {("spec", "template", "metadata", "x"): "1"})
        said = ask(radius(), cluster, change)
        assert (said is not None and "all its pods away at once" in said) is refused


@pytest.mark.parametrize(("owner", "label", "service"), [
    (("ReplicaSet", "api-7f"), "7f", "deployment/shop/api"), (("ReplicaSet", "mine"), "", "replicaset/shop/mine"),
    (("StatefulSet", "db"), "", "statefulset/shop/db"), (None, "", "pod/shop/x")])
def test_whose_pod_it_is(owner, label, service):
    """The Deployment behind a ReplicaSet is told by the name."""
    owners = [{"kind": owner[0], "name": owner[1], "controller": True}] if owner else []
    assert service_of({"metadata": {"name": "x", "namespace": "shop", "ownerReferences": owners,
                                    "labels": {"pod-template-hash": label}}}) == service


# --------------------------------------------------------------------------------------------------------- recoveries
def test_recoveries_pass_without_a_look():
    """Uncordoning, scaling up, taking a taint off, undoing: also while the API server answers nothing and half the fleet is
    gone. (A tripped breaker that also kept nodes from coming back: NVSentinel PR 1852.)"""
    cluster = fleet()
    for i in range(10):
        cluster.objects[f"node//gpu-{i}"]["spec"] = {"unschedulable": True, "taints": [{"key": "k", "effect": "NoSchedule"}]}
    uncordon = cordon(cluster, "gpu-3", off=True)
    cluster.put({"kind": "Deployment", "metadata": {"name": "api", "namespace": "shop"}, "spec": {"replicas": 1}})
    more = patch("deployment/shop/api", cluster.get("deployment/shop/api"), {("spec", "replicas"): 5}, "scale")
    bare = patch("node//gpu-3", cluster.get("node//gpu-3"), {("spec", "taints", item(key="k", effect="NoSchedule")): None})

    def broken(*_, **__):
        raise Retry("the API server does not answer")

    cluster.find = cluster.get = broken
    assert [ask(radius(), cluster, c) for c in (uncordon, more, bare)] == [None] * 3
    assert ask(radius(), cluster, uncordon.inverse({}).inverse({}), state="undo") is None


def test_undoing_an_uncordon_takes_a_node_away():
    """And is looked at like any other."""
    cluster = fleet()
    cluster.objects["node//gpu-7"]["spec"]["unschedulable"] = True
    assert "limits.nodes allows 1" in ask(radius(), cluster, cordon(cluster, "gpu-1"), state="undo")


def test_without_a_listing_nothing_is_taken_away():
    """Who cannot see what is away does not add to it."""
    cluster = fleet()
    change = cordon(cluster, "gpu-1")
    cluster.find = lambda *_, **__: (_ for _ in ()).throw(Retry("busy"))
    assert ask(radius(), cluster, change) == "busy"


# ------------------------------------------------------------------------------------------------------------ at scale
def test_the_fleet_is_listed_once_in_a_while():
    """A burst of ten thousand asks once; our own writes count without another listing."""
    cluster, check = fleet(30), radius(limits(nodes={"count": 2, "share": "100%"}))
    said = [take(check, cluster, cordon(cluster, f"gpu-{i}")) for i in range(30)]
    assert (check.listed, said[:2], len([s for s in said if s])) == (1, [None, None], 28)
    check._now.t += 29.0
    assert ask(check, cluster, cordon(cluster, "gpu-9")) and check.listed == 1
    cluster.write(cordon(cluster, "gpu-0", off=True))
    check._now.t += 1.0
    assert ask(check, cluster, cordon(cluster, "gpu-9")) is None and check.listed == 2


def test_a_node_is_taken_away_on_a_fresh_listing_only():
    """An old one may say no, but not yes: meanwhile others fail."""
    cluster, check = fleet(30), radius(limits(nodes={"count": 2, "share": "100%"}))
    assert take(check, cluster, cordon(cluster, "gpu-1")) is None
    cluster.objects["node//gpu-2"]["status"] = DOWN
    check._now.t += 3.0
    assert "gpu-2 not ready" in ask(check, cluster, cordon(cluster, "gpu-3")) and check.listed == 2


@pytest.mark.slow
def test_ten_thousand_nodes_cost_little():
    """A listing is summed up once; asking costs microseconds after that."""
    cluster = fleet(10_000, zone="z1")
    check, change = radius(), cordon(cluster, "gpu-1")
    find = cluster.find
    nodes = find("node")
    cluster.find = lambda *_, **__: nodes
    assert ask(check, cluster, change) is None
    began = time.process_time()
    for i in range(2000):
        ask(check, cluster, patch(f"node//gpu-{i + 2}", nodes[i + 2], {("spec", "unschedulable"): True}))
    assert time.process_time() - began < 2.0


# --------------------------------------------------------------------------------------------------------- any order
class World:
    """A small cluster in which everything happens in any order, with arithmetic of its own about what is away."""

    EVENTS = ("others", "others", "fail", "cordon", "cordon", "cordon", "recover", "crash", "evict")

    def __init__(self, dice):
        self.dice = dice
        n, zones, asked = dice.randint(2, 9), dice.randint(1, 3), dice.randint(1, 6)
        self.zone = {f"n{i}": f"z{i % zones}" for i in range(n)}
        self.cordoned, self.down, self.pods = set(), set(), {f"p{i}": True for i in range(asked)}
        self.count, self.group, self.service = (dice.randint(0, 3) for _ in range(3))
        self.shares = [dice.choice((10, 34, 50, 100)) for _ in range(3)]
        self.limits = limits(nodes={"count": self.count, "share": f"{self.shares[0]}%"},
                             nodeGroup={"count": self.group, "share": f"{self.shares[1]}%"},
                             service={"count": self.service, "share": f"{self.shares[2]}%"})
        self.asked, self.clock, self.stale, self.ours = asked, Clock(), False, []
        self.check = Radius(self.limits, self.clock)

    def find(self, kind, namespace="", selector="", fields=""):
        if kind == "pod":
            return [pod(p, ready=r)[1] | {"metadata": pod(p)[1]["metadata"] | {"uid": p}} for p, r in self.pods.items()]
        return [{"metadata": {"name": n, "labels": {ZONE: z}}, "spec": {"unschedulable": n in self.cordoned},
                 "status": DOWN if n in self.down else READY} for n, z in self.zone.items()]

    def get(self, entity):
        kind, name = entity.split("/")[0], entity.split("/")[2]
        if kind == "deployment":
            return {"spec": {"replicas": self.asked}}
        return next(one for one in self.find(kind) if one["metadata"]["name"] == name)

    def away(self, zone=None):
        return {n for n in self.cordoned | self.down if zone in (None, self.zone[n])}

    @staticmethod
    def bound(count, share, total):
        return min(count, max(1, total * share // 100))

    def within(self, name):
        """Whether the limits hold with this node away too; arithmetic of its own."""
        gone, mine = self.away() | {name}, self.zone[name]
        of_zone = [n for n in self.zone if self.zone[n] == mine]
        return (len(gone) <= self.bound(self.count, self.shares[0], len(self.zone)) and len(gone) < len(self.zone)
                and len(self.away(mine) | {name}) <= self.bound(self.group, self.shares[1], len(of_zone))
                and len(self.away(mine) | {name}) < len(of_zone))

    def step(self):
        name = self.dice.choice(list(self.zone))
        getattr(self, self.dice.choice(self.EVENTS))(name)

    def others(self, name):
        self.cordoned ^= {name}
        self.stale = True

    def fail(self, name):
        self.down ^= {name}
        for p in self.pods:
            self.pods[p] = self.dice.random() < 0.8
        self.stale = True

    def crash(self, name):
        """What was known is gone; the cluster is as it is."""
        self.check = Radius(self.limits, self.clock)
        self.stale = False

    def wait(self):
        self.clock.t += 4.0 if self.stale or self.dice.random() < 0.3 else 0.1
        self.stale = False

    def cordon(self, name):
        self.wait()
        change = patch(f"node//{name}", {"spec": {"unschedulable": False}}, {("spec", "unschedulable"): True})
        if ask(self.check, self, change) is None and self.dice.random() < 0.9:  # else it crashed before it wrote
            assert name in self.away() or self.within(name), (name, self.away(), self.zone, self.limits)
            self.cordoned.add(name)
            self.ours.append(name)

    def recover(self, name):
        """Ours come back, and are asked with an API server that does not answer."""
        change = patch(f"node//{name}", {"spec": {"unschedulable": True}}, {("spec", "unschedulable"): False})
        assert ask(self.check, None, change, state=self.dice.choice(("", "undo"))) is None
        self.cordoned.discard(name)

    def evict(self, name):
        self.wait()
        some = self.dice.sample(sorted(self.pods), self.dice.randint(1, len(self.pods)))
        changes = [evict({"metadata": {"name": p, "namespace": "shop", "uid": p}}) for p in some]
        try:
            self.check(act(), changes, self)
        except Fewer as e:
            changes = e.changes
        went = [c.uid for c in changes if self.pods[c.uid]]
        short = sum(not r for r in self.pods.values()) + len(went)
        assert not went or short <= self.bound(self.service, self.shares[2], self.asked), (went, self.pods)
        self.pods |= dict.fromkeys(went, False)


def play(orders, seed):
    """How many nodes and pods were taken away by us, over so many random orders of events."""
    dice, taken = random.Random(seed), 0
    for _ in range(orders):
        world = World(dice)
        for _ in range(dice.randint(4, 14)):
            world.step()
        taken += len(world.ours)
    return taken


def test_no_order_of_events_gets_beyond_the_limits():
    """Others cordon and uncordon, nodes and pods fail and come back, we ask, undo, and crash in between."""
    assert play(1500, 1) > 300


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_order_of_a_hundred_thousand_gets_beyond_the_limits():
    """The same, 10^5 times."""
    assert play(100_000, 2) > 20_000


def test_a_fleet_takes_back_what_came_back():
    """Between two listings, by our own doing."""
    fleet = Fleet([("a", "z", ""), ("b", "z", ""), ("c", "z", "")])
    fleet.take("a", "cordoned")
    assert fleet.refusal("b", Limits())
    fleet.give_back("a")
    assert fleet.refusal("b", Limits()) is None
