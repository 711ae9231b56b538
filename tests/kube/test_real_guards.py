"""Blast radius and the stop on a real API server with real controllers, under exactly the rights of each action."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kube.apiclient import path_of
from kube.controlplane import until
from kube.lab import Lab, state
from ruamel.yaml import YAML

from aiops import build, plugins, rbac
from aiops.cluster.brake import Brake, Said, StopMap
from aiops.cluster.checks import not_paused
from aiops.cluster.executor import Executor, Notes
from aiops.cluster.kubernetes import KubernetesCluster, connect
from aiops.cluster.ownership import hands_off
from aiops.cluster.radius import Radius
from aiops.interfaces import Retry
from aiops.limits import Limits
from aiops.schema import Config
from aiops.types import Action, Command, Outcome

ROOT = Path(__file__).parents[2]
_NUMBERS = itertools.count(1)
ONE_OF_MINE = {"nodes": {"count": 1000, "share": "100%"}, "nodeGroup": {"label": "lab", "count": 1, "share": "34%"}}
READ_STOP = {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["stop"], "verbs": ["get"]}


class Hand:
    """One action's account; the executor works with it, the checks of the daemon and these limits."""

    def __init__(self, lab: Lab, name: str, limits: dict[str, Any]) -> None:
        self.name, self.namespace, self.brake = name, lab.namespace, Brake()
        account = lab.account(f"{rbac.kebab(name)}-{next(_NUMBERS)}", [*rbac.rules(rbac.actions()[name]), READ_STOP])
        self.radius = Radius(Limits.model_validate(limits), time.monotonic)
        checks = [StopMap(f"configmap/{lab.namespace}/stop"), not_paused, hands_off, self.radius]
        self.executor = Executor(KubernetesCluster(connect(account.kubeconfig)), Notes(), checks, self.brake.gate)

    def turn(self, target: dict[str, object], key: str = "a-1", at: float | None = None, undo: str = "",
             **params: Any) -> Outcome | None:
        """One turn; None where more is to come, or has to wait."""
        aimed = plugins.load_type("remediations", self.name).target.model_validate(target)
        params = {**aimed.params(), **params, **({"undo_of": undo} if undo else {})}
        action = Action(key, self.name, aimed.entity(self.namespace), params, "i", "p", "act", "",
                        time.time() + 700.0 if at is None else at, "undo" if undo else "")
        try:
            return self.executor.carry_out(action, action.at)
        except Retry:
            return None


def said(outcome: Outcome | None) -> tuple[str, str]:
    assert outcome is not None
    return outcome.status, outcome.reason


def test_a_second_node_of_the_group_stays_and_undoing_passes(lab: Lab) -> None:
    """Also where the first was taken away by a person, and not by us; and where the kubelet fell silent."""
    one, two, three = lab.nodes(3)
    cordon = Hand(lab, "Cordon", ONE_OF_MINE)
    assert said(cordon.turn({"node": one}))[0] == "done"
    status, reason = said(cordon.turn({"node": two}, "a-2"))
    assert status == "refused" and f"1 of 3 of the nodes with lab={lab.namespace} are away ({one} " in reason
    assert said(cordon.turn({"node": one}, "a-1-undo", undo="a-1"))[0] == "undone"
    lab.admin.change("nodes", None, three, {"spec": {"unschedulable": True}})
    status, reason = said(Hand(lab, "Taint", ONE_OF_MINE).turn({"node": two, "key": "aiops.io/suspect"}))
    assert status == "refused" and f"({three} cordoned)" in reason
    lab.admin.change("nodes", None, three, {"spec": {"unschedulable": None}})
    assert said(Hand(lab, "Taint", ONE_OF_MINE).turn({"node": two, "key": "aiops.io/suspect"}))[0] == "done"
    assert "tainted with aiops.io/suspect" in said(Hand(lab, "Cordon", ONE_OF_MINE).turn({"node": one}, "a-3"))[1]


def test_a_quota_that_keeps_replacements_away_costs_one_pod_and_not_the_service(lab: Lab) -> None:
    """Pod by pod a restart would take it apart: what should be there and is not is away."""
    lab.nodes(1)
    lab.deploy("api", 4, own_nodes=True)
    lab.settled("api")
    quota = f"/api/v1/namespaces/{lab.namespace}/resourcequotas"
    lab.admin.call("POST", quota, {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}})
    restart, at = Hand(lab, "Restart", {}), time.time() + 700.0

    def again() -> Outcome | None:
        return restart.turn({"pod": "selector:app=api"}, at=at, max_unavailable=4)

    assert again() is None
    gone: Callable[[], bool] = lambda: len([p for p in lab.pods("api") if state(p) == "ready"]) == 3 == len(lab.pods("api"))  # noqa: E731
    until(gone, what="one pod gone, and none in its place")
    for _ in range(3):
        restart.radius._namespaces.clear()
        assert again() is None
        assert gone()


def test_a_node_with_pods_of_others_is_not_drained(lab: Lab) -> None:
    """Where the policy names namespaces: nothing is done to it, not even cordoned. Without them it is emptied."""
    lab.nodes(3)
    lab.deploy("mine", 1, own_nodes=True)
    lab.settled("mine")
    node, others = lab.pods("mine")[0]["spec"]["nodeName"], f"{lab.namespace}-others"
    lab.admin.create("namespaces", {"metadata": {"name": others}})
    lab.admin.create("pods", {"metadata": {"name": "guest"}, "spec": {
        "nodeName": node, "containers": [{"name": "guest", "image": "guest:1"}]}}, others)
    try:
        drain, at = Hand(lab, "Drain", ONE_OF_MINE), time.time() + 700.0
        target = {"node": node, "force": True}
        assert said(drain.turn(target, namespaces=[lab.namespace])) == (
            "refused", f"1 pod of node//{node} would go that the policy must not touch: pod/{others}/guest. "
                       f"guards.namespaces is {lab.namespace}.")
        assert not lab.admin.get("nodes", None, node)["spec"].get("unschedulable")
        lab.admin.delete("pods", others, "guest", gracePeriodSeconds=0)
        outcome = until(lambda: drain.turn(target, "a-2", at, namespaces=[lab.namespace]), what="the node drained")
        assert outcome.status == "done"
        assert lab.pods("mine")[0]["spec"].get("nodeName") != node
    finally:
        lab.admin.delete("namespaces", None, others)


def test_a_config_map_stops_and_what_was_done_is_still_undone(lab: Lab) -> None:
    """With the right to read that one object."""
    lab.deploy("web", 1)
    scale = Hand(lab, "ScaleUp", {})
    assert said(scale.turn({"deployment": "web", "replicas": "+1"}))[0] == "done"
    lab.admin.create("configmaps", {"metadata": {"name": "stop"}, "data": {"stop": "true", "reason": "storm"}}, lab.namespace)
    assert said(scale.turn({"deployment": "web", "replicas": "+1"}, "a-2")) == (
        "refused", f"not now: stopped by configmap/{lab.namespace}/stop: storm.")
    assert said(scale.turn({"deployment": "web", "replicas": "+1"}, "u-1", undo="a-1"))[0] == "undone"
    lab.admin.change("configmaps", lab.namespace, "stop", {"data": {"stop": "false"}})
    assert said(scale.turn({"deployment": "web", "replicas": "+1"}, "a-3"))[0] == "done"
    assert lab.admin.call("GET", path_of("deployments", lab.namespace, "web"))["spec"]["replicas"] == 2


def test_what_a_person_says_is_written_for_all_replicas(lab: Lab) -> None:
    """Made where it is not there, with the rights of deploy/role-stop.yaml and no others."""
    [role] = [d for d in YAML(typ="safe").load_all((ROOT / "deploy" / "role-stop.yaml").read_text()) if d["kind"] == "Role"]
    account = lab.account("stopper", role["rules"])
    config = Config.model_validate({"sources": [{"kubernetes": {"kubeconfig": str(account.kubeconfig)}}],
                                    "stop": {"configMap": f"{lab.namespace}/aiops-stop"}})
    found, place = build.stop_for_all(config), f"configmap {lab.namespace}/aiops-stop"
    assert found and found[0] == place
    reads = build.stop_places(config)[place]
    assert reads() is None
    for verb, said in (("stop", Said(False, "storm", "anna")), ("freeze", Said(True, "storm", "anna")), ("start", None)):
        found[1](Command(0.0, verb, place, "anna", reason="storm"))  # type: ignore[arg-type]
        assert reads() == said
