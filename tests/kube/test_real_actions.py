"""Each action on a real API server with real controllers, under exactly the rights of its role: done, each write once, undone."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from fakes.mortal import Life, run
from kube.apiclient import Json, path_of
from kube.controlplane import until
from kube.lab import Account, Cluster, Lab, clear

from aiops import plugins, rbac
from aiops.changes import delete
from aiops.cluster.checks import not_paused
from aiops.cluster.executor import Executor, Notes
from aiops.cluster.kubernetes import KubernetesCluster, connect
from aiops.cluster.ownership import hands_off
from aiops.interfaces import Retry
from aiops.types import Action, Outcome
from remediations._pods import started_at

SPACE, STRICT = "acts", "acts-strict"
ROUTES = f"/apis/gateway.networking.k8s.io/v1/namespaces/{SPACE}/httproutes"
CHECKS = (not_paused, hands_off)
WATCHED = ("deployments", "statefulsets", "daemonsets")
_NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def lab(cluster: Cluster) -> Iterator[Lab]:
    """A namespace with one of everything that actions work on, one that enforces the restricted profile, and a node."""
    made = Lab(cluster.control, cluster.fleet, SPACE)
    admin = made.admin
    admin.create("namespaces", {"metadata": {"name": SPACE}})
    admin.create("namespaces", {"metadata": {"name": STRICT, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}})
    made.nodes(1)
    for version in (1, 2):
        for name in ("api", "front"):
            made.deploy(name, 2, memory="1Gi", image=f"{name}:{version}", own_nodes=True)
        for name in ("api", "front"):
            made.settled(name)
    for kind, name in (("StatefulSet", "db"), ("DaemonSet", "agent")):
        workload(made, kind, name)
    others(made)
    yield made
    made.close()
    for namespace in (SPACE, STRICT):
        clear(cluster.control, namespace)


def workload(lab: Lab, kind: str, name: str) -> None:
    """With two revisions, the first one written down by its controller before the second comes."""
    plural = f"{kind.lower()}s"
    template = {"metadata": {"labels": {"app": name}}, "spec": {"nodeSelector": {"lab": SPACE},
                                                               "containers": [{"name": name, "image": f"{name}:1"}]}}
    lab.admin.create(plural, {"metadata": {"name": name}, "spec": {"selector": {"matchLabels": {"app": name}},
                                                                  "template": template}}, SPACE)
    until(lambda: observed(lab, plural, name), what=f"{name} seen")
    template["spec"]["containers"] = [{"name": name, "image": f"{name}:2"}]
    lab.admin.change(plural, SPACE, name, {"spec": {"template": template}})
    until(lambda: observed(lab, plural, name), what=f"{name} seen again")


def observed(lab: Lab, plural: str, name: str) -> bool:
    one = lab.admin.get(plural, SPACE, name)
    return bool(one["status"].get("observedGeneration") == one["metadata"]["generation"])


def others(lab: Lab) -> None:
    pod = {"restartPolicy": "Never", "containers": [{"name": "job", "image": "job:1"}]}
    script = {"sim.aiops.io/exits-after": "0.2", "sim.aiops.io/exit-code": "0"}
    ends = {"template": {"metadata": {"annotations": script}, "spec": pod}}
    lab.admin.create("horizontalpodautoscalers", {"metadata": {"name": "web"}, "spec": {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "minReplicas": 2,
        "maxReplicas": 10}}, SPACE)
    lab.admin.create("jobs", {"metadata": {"name": "train"}, "spec": {"template": {"spec": pod}}}, SPACE)
    lab.admin.create("cronjobs", {"metadata": {"name": "nightly"}, "spec": {
        "schedule": "0 3 1 1 *", "jobTemplate": {"spec": ends}}}, SPACE)
    for name in ("stable", "canary"):
        lab.admin.create("endpointslices", {
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}}, "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.9.9.9"], "conditions": {"ready": True}}]}, SPACE)
    free = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    lab.admin.create("customresourcedefinitions", {
        "metadata": {"name": "httproutes.gateway.networking.k8s.io", "annotations": {
            "api-approved.kubernetes.io": "unapproved, a part of it for tests"}},
        "spec": {"group": "gateway.networking.k8s.io", "scope": "Namespaced", "names": {
            "plural": "httproutes", "singular": "httproute", "kind": "HTTPRoute", "listKind": "HTTPRouteList"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": free}}]}})
    until(lambda: served(lab), what="HTTPRoutes served")
    lab.admin.create(ROUTES, {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "web"},
                              "spec": {"rules": [{"backendRefs": [{"name": "stable", "port": 80, "weight": 9},
                                                                  {"name": "canary", "port": 80}]}]}})


def served(lab: Lab) -> bool:
    try:
        return "items" in lab.admin.call("GET", ROUTES)
    except OSError:
        return False


class Hand:
    """One action's account, and an executor that works with it."""

    def __init__(self, lab: Lab, name: str) -> None:
        self.name = name
        self.account: Account = lab.account(f"{rbac.kebab(name)}-{next(_NUMBERS)}", rbac.rules(rbac.actions()[name]))
        self.cluster = KubernetesCluster(connect(self.account.kubeconfig))
        self.executor = Executor(self.cluster, Notes(), CHECKS)

    def action(self, example: Mapping[str, object], key: str, at: float, state: str = "", **params: Any) -> Action:
        target = plugins.load_type("remediations", self.name).target.model_validate(example)
        return Action(key, self.name, target.entity(SPACE), {**target.params(), "max_unavailable": 1, **params}, "i", "p", "act",
                      "", at, state)

    def does(self, example: Mapping[str, object], key: str = "a-1", state: str = "", later_s: float = 0.0,
             **params: Any) -> Outcome:
        action = self.action(example, key, time.time() + later_s, state, **params)
        return until(lambda: self.turn(action), what=f"{self.name} done")  # type: ignore[no-any-return]

    def undoes(self, example: Mapping[str, object], of: str = "a-1") -> Outcome:
        return self.does(example, f"{of}-undo", "undo", undo_of=of)

    def wrote(self) -> list[str]:
        """What was carried out: a write that came after somebody else's is turned down, and made anew from what is there then."""
        return [f"{w.verb} {w.resource}{'/' + w.sub if w.sub else ''}" for w in self.account.writes() if w.code < 300]

    def turn(self, action: Action) -> Outcome | None:
        try:
            return self.executor.carry_out(action, action.at)
        except Retry:
            return None


UNDONE = [
    ("ScaleDown", {"deployment": "api", "replicas": "-1"}, "deployments", "deployments/scale"),
    ("ScaleToZero", {"deployment": "api"}, "deployments", "deployments/scale"),
    ("Rollback", {"deployment": "front"}, "deployments", "deployments"),
    ("Rollback", {"statefulset": "db"}, "statefulsets", "statefulsets"),
    ("Rollback", {"daemonset": "agent"}, "daemonsets", "daemonsets"),
    ("PatchResources", {"deployment": "api", "limits": {"memory": "+25%", "cpu": 2}, "max": {"memory": "4Gi"}}, "deployments",
     "deployments"),
    ("SetHPA", {"hpa": "web", "minReplicas": "+1", "maxReplicas": 12}, "horizontalpodautoscalers", "horizontalpodautoscalers"),
    ("Suspend", {"job": "train"}, "jobs", "jobs"),
    ("Suspend", {"cronjob": "nightly"}, "cronjobs", "cronjobs"),
    ("ShiftTraffic", {"httproute": "web", "from": "stable", "to": "canary", "percent": 50}, "httproutes", "httproutes"),
]


def spec_of(lab: Lab, plural: str, name: str) -> Json:
    path = f"{ROUTES}/{name}" if plural == "httproutes" else path_of(plural, None if plural == "nodes" else SPACE, name)
    return lab.admin.call("GET", path)["spec"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(("name", "example", "plural", "written"), UNDONE,
                         ids=[f"{name}-{next(iter(example))}" for name, example, *_ in UNDONE])
def test_it_is_done_with_its_rights_and_undone(lab: Lab, name: str, example: dict[str, object], plural: str,
                                               written: str) -> None:
    """One write to do it, one to undo it, and the specification is what it was, as the API server writes it."""
    hand, one = Hand(lab, name), str(next(iter(example.values())))
    before = spec_of(lab, plural, one)
    outcome = hand.does(example, later_s=700.0)  # past the time in which a person's change is left alone
    assert outcome.status == "done", outcome.reason
    assert hand.wrote() == [f"patch {written}"]
    assert spec_of(lab, plural, one) != before
    undo = hand.undoes(example)
    assert undo.status == "undone", undo.reason
    assert spec_of(lab, plural, one) == before
    assert hand.wrote() == [f"patch {written}"] * 2


@pytest.mark.parametrize(("name", "example", "plural", "written"), UNDONE,
                         ids=[f"{name}-{next(iter(example))}" for name, example, *_ in UNDONE])
def test_killed_anywhere_it_is_written_once(lab: Lab, tmp_path: Path, name: str, example: dict[str, object], plural: str,
                                            written: str) -> None:
    """Before and after the write and every line of the ledger, twice in a row; counted by the API server itself."""
    hand, one, killed = Hand(lab, name), str(next(iter(example.values()))), 0
    before, at = spec_of(lab, plural, one), time.time() + 700.0
    for point in range(40):
        until(lambda: plural not in WATCHED or observed(lab, plural, one), what="the controller up to date")
        path, act = tmp_path / f"{point}.sqlite", hand.action(example, f"a-{point}", at)
        whole = run(hand.cluster, path, Life(point), [act], at, CHECKS) is not None
        run(hand.cluster, path, Life(point // 2), (), at, CHECKS)
        run(hand.cluster, path, Life(-1), [act], at, CHECKS)
        assert hand.wrote() == [f"patch {written}"] * (2 * point + 1), f"killed at point {point}"
        undo = hand.action(example, f"u-{point}", at, "undo", undo_of=f"a-{point}")
        assert run(hand.cluster, path, Life(-1), [undo], at, CHECKS) == {f"u-{point}": "undone"}
        assert spec_of(lab, plural, one) == before
        killed += not whole
        if whole:
            break
    assert killed >= 8


def test_what_a_person_just_deployed_is_rolled_back_but_not_resized(lab: Lab) -> None:
    """A rollback is there to take a change back; all others leave it alone for a while."""
    lab.deploy("fresh", 1, memory="1Gi", image="fresh:1")
    lab.settled("fresh")
    lab.deploy("fresh", 1, memory="1Gi", image="fresh:2")
    lab.settled("fresh")
    grow = {"deployment": "fresh", "limits": {"memory": "2Gi"}}
    refused = Hand(lab, "PatchResources").does(grow)
    assert (refused.status, "hands off" in refused.reason) == ("refused", True)
    assert Hand(lab, "Rollback").does({"deployment": "fresh"}).status == "done"
    until(lambda: lab.settled("fresh") and [p["spec"]["containers"][0]["image"] for p in lab.pods("fresh")] == ["fresh:1"])
    again = Hand(lab, "Rollback").does({"deployment": "fresh"})
    assert (again.status, "was rolled back" in again.reason) == ("refused", True)


def test_a_node_is_cordoned_tainted_drained_and_given_back(lab: Lab) -> None:
    """Pods of the DaemonSet stay; a node that a person cordoned in between is that person's."""
    [node] = lab.nodes(1)
    lab.deploy("moved", 3, nodeName=None)
    lab.settled("moved")
    until(lambda: "agent" in {p["metadata"]["labels"].get("app") for p in on(lab, node)}, what="the DaemonSet's pod")
    for name, example in (("Cordon", {"node": node}), ("Taint", {"node": node, "key": "aiops.io/suspect"})):
        hand, before = Hand(lab, name), spec_of(lab, "nodes", node)
        assert hand.does(example).status == "done"
        assert hand.undoes(example).status == "undone"
        until(lambda before=before: spec_of(lab, "nodes", node) == before, what=f"{name} undone")
        assert hand.wrote() == ["patch nodes"] * 2
    drain = Hand(lab, "Drain")
    outcome = drain.does({"node": node}, max_unavailable="100%")
    assert outcome.status == "done", outcome.reason
    assert {p["metadata"]["labels"].get("app") for p in on(lab, node)} <= {"agent"}
    assert drain.wrote().count("patch nodes") == 1
    assert Hand(lab, "Uncordon").does({"node": node}).status == "done"
    assert not spec_of(lab, "nodes", node).get("unschedulable")
    assert Hand(lab, "Cordon").does({"node": node}, "a-3").status == "done"
    for value in (None, True):
        lab.admin.change("nodes", None, node, {"spec": {"unschedulable": value}})
    refused = Hand(lab, "Uncordon").does({"node": node})
    assert (refused.status, "by somebody else" in refused.reason) == ("refused", True)


def on(lab: Lab, node: str) -> list[Json]:
    return lab.admin.list("pods", fieldSelector=f"spec.nodeName={node}")


def test_pods_are_evicted_once_each(lab: Lab) -> None:
    """Two of three, one at a time; those that take their place are left alone."""
    lab.deploy("busy", 3)
    lab.settled("busy")
    first, hand = {p["metadata"]["name"] for p in lab.pods("busy")}, Hand(lab, "Evict")
    until(lambda: all(started_at(p) < time.time() - 1.0 for p in lab.pods("busy")), what="pods of an earlier second")
    assert hand.does({"pod": "selector:app=busy", "count": 2}).status == "done"
    until(lambda: len(lab.pods("busy")) == 3 and len(first & {p["metadata"]["name"] for p in lab.pods("busy")}) == 1)
    assert hand.wrote() == ["create pods/eviction"] * 2


def test_a_suspension_of_ours_is_resumed(lab: Lab) -> None:
    """And one of a person is not."""
    assert Hand(lab, "Suspend").does({"cronjob": "nightly"}, later_s=700.0).status == "done"
    assert Hand(lab, "Resume").does({"cronjob": "nightly"}).status == "done"
    assert spec_of(lab, "cronjobs", "nightly")["suspend"] is False
    lab.admin.change("cronjobs", SPACE, "nightly", {"spec": {"suspend": True}})
    refused = Hand(lab, "Resume").does({"cronjob": "nightly"}, later_s=700.0)
    lab.admin.change("cronjobs", SPACE, "nightly", {"spec": {"suspend": False}})
    assert (refused.status, "by somebody else" in refused.reason) == ("refused", True)


@pytest.mark.parametrize(("code", "status"), [("0", "done"), ("3", "failed")])
def test_a_runbook_runs_to_its_end_where_pods_must_be_restricted(lab: Lab, code: str, status: str) -> None:
    """The namespace enforces the restricted profile; how it ended is the outcome; undoing deletes the Job, and trying out
    whether that is possible does not."""
    hand, key = Hand(lab, "RunJob"), f"a-run-{code}"
    runbook = {"job": f"{STRICT}/fix", "image": "fix:1.0", "args": ["--now"]}
    action = hand.action(runbook, key, time.time())

    def turn() -> Outcome | None:
        for pod in lab.admin.list("pods", STRICT, labelSelector=f"aiops.io/action={key}"):
            notes = {"sim.aiops.io/exit-code": code, "sim.aiops.io/exits-after": "0.1"}
            lab.admin.change("pods", STRICT, pod["metadata"]["name"], {"metadata": {"annotations": notes}})
        return hand.turn(action)
    outcome = until(turn, what="the Job's end")
    assert outcome.status == status, outcome.reason
    assert hand.wrote() == ["create jobs"]
    hand.cluster.try_out(delete(f"job/{STRICT}/aiops-{key}", uid(lab, key)))
    assert lab.admin.find("jobs", STRICT, f"aiops-{key}") is not None
    assert hand.undoes(runbook, key).status == "undone"
    until(lambda: lab.admin.find("jobs", STRICT, f"aiops-{key}") is None, what="the Job gone")
    assert hand.wrote()[-1] == "delete jobs"


def uid(lab: Lab, key: str) -> str:
    return str(lab.admin.get("jobs", STRICT, f"aiops-{key}")["metadata"]["uid"])


def test_the_job_of_a_cronjob_is_run(lab: Lab) -> None:
    """Once, now, and waited for."""
    hand = Hand(lab, "RunJob")
    outcome = hand.does({"cronjob": "nightly"}, "a-nightly")
    assert (outcome.status, hand.wrote()) == ("done", ["create jobs"])
