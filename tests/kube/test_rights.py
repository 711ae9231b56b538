"""Each action has the rights that it declares, needs every one of them, and may do nothing else: asked of a real API server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from kube.controlplane import Control, until
from kube.lab import Account, grant
from kube.world import World

from aiops import doctor, plugins, rbac
from aiops.cluster.checks import not_paused
from aiops.cluster.executor import Executor, Notes
from aiops.cluster.kubernetes import KubernetesCluster, connect
from aiops.cluster.transport import Api
from aiops.inputs import Kubernetes
from aiops.interfaces import Retry
from aiops.rbac import Right
from aiops.types import Action, Outcome

TYPES = list(rbac.actions())
RULES = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
TURNS = 30


@pytest.fixture(scope="module")
def space(quiet: Control, world: World) -> str:
    """Where the accounts live."""
    quiet.admin.create("namespaces", {"metadata": {"name": "accounts"}})
    return "accounts"


class Hand:
    """One action's account, whose rights a test takes away and gives back."""

    def __init__(self, quiet: Control, world: World, space: str, name: str) -> None:
        self.control, self.world, self.name = quiet, world, name
        self.rights = rbac.actions()[name]
        self.account: Account = grant(quiet, space, rbac.kebab(name), rbac.rules(self.rights))
        self.role = f"{space}-{rbac.kebab(name)}"
        self.api: Api = connect(self.account.kubeconfig)
        self.cluster = KubernetesCluster(self.api)

    def without(self, *missing: Right) -> None:
        """Returns once the API server knows."""
        self.control.admin.change("clusterroles", None, self.role, {"rules": rbac.rules(self.rights - set(missing))})
        until(lambda: all(self.cluster.may(*right, "shop") == (right not in missing) for right in self.rights), what="rights")

    def outcomes(self) -> Iterator[Outcome]:
        """Of each example, and of undoing it."""
        kind = plugins.load_type("remediations", self.name)
        for number, example in enumerate(kind.examples):
            self.world.reset()
            executor, target = Executor(self.cluster, Notes(), [not_paused]), kind.target.model_validate(example)
            params: dict[str, Any] = {**target.params(), "max_unavailable": 1}
            for state, more in (("", {}), ("undo", {"undo_of": f"a-{number}"})) if kind.reversible else (("", {}),):
                action = Action(f"a-{number}{state}", self.name, target.entity("shop"), {**params, **more}, "i", "p", "act", "",
                                self.world.at, state)
                yield self._patiently(executor, action)

    def _patiently(self, executor: Executor, action: Action) -> Outcome:
        for _ in range(TURNS):
            try:
                return executor.carry_out(action, action.at)
            except Retry:
                self.world.tend()
        raise AssertionError(f"{action} never ended")

    def allowed(self) -> set[Right]:
        """All that it may do in the namespace of its targets, but for what everybody may ask about himself."""
        answer = self.api.post(RULES, {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview",
                                       "spec": {"namespace": "shop"}}, writes=False)
        assert not answer["status"].get("incomplete")
        return {(group, resource, verb) for rule in answer["status"]["resourceRules"] for group in rule["apiGroups"]
                for resource in rule["resources"] for verb in rule["verbs"] if not resource.startswith("self")}


@pytest.mark.parametrize("name", TYPES)
def test_an_action_needs_each_right_that_it_declares_and_has_no_other(
        quiet: Control, world: World, space: str, name: str) -> None:
    """With all of them everything is done and undone. Without one something is refused, and the refusal names it."""
    hand = Hand(quiet, world, space, name)
    hand.without()
    assert hand.allowed() == hand.rights
    assert [o for o in hand.outcomes() if o.status != "done" and not o.action.endswith("undo")] == []
    for right in sorted(plugins.load_type("remediations", name).verbs):
        group, resource, verb = right
        hand.without(right)
        outcomes = list(hand.outcomes())
        said = [o.reason for o in outcomes if o.status not in ("done", "undone")]
        wanted = f'cannot {verb} resource "{resource}" in API group "{group}"'
        assert any(wanted in reason for reason in said), f"without {right}: {said}"
        assert {o.status for o in outcomes} <= {"done", "undone", "refused"}
    world.reset()


def test_who_leads_may_write_the_lease_and_the_ledger_and_no_more(quiet: Control) -> None:
    """In its own namespace, by name."""
    account = grant(quiet, "aiops", "leads", [])
    quiet.admin.create("rolebindings", {"metadata": {"name": "leads"}, "roleRef": rbac.leader_binding()["roleRef"], "subjects": [
        {"kind": "ServiceAccount", "name": "leads", "namespace": "aiops"}]}, "aiops")
    api = connect(account.kubeconfig)
    until(lambda: KubernetesCluster(api).may("", "configmaps", "create", "aiops"), what="rights")
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": "aiops"}}
    rules = api.post(RULES, body, writes=False)["status"]["resourceRules"]
    found = {(group, resource, verb): name for rule in rules for group in rule["apiGroups"] for resource in rule["resources"]
             for verb in rule["verbs"] for name in rule.get("resourceNames") or [""] if not resource.startswith("self")}
    assert found == rbac.LEADER
    assert not KubernetesCluster(api).may("", "configmaps", "create", "shop")
    for lease, state in (("aiops/aiops", "ok"), ("aiops/other", "problem")):
        told = doctor.kubernetes(Kubernetes(kubeconfig=account.kubeconfig), True, lease=lease)
        assert [f.state for f in told if f.what == "rights: leader"] == [state]
