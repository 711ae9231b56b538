"""RemediationPolicies on a real kube-apiserver: its schema, their status, and edits while the daemon runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kube.controlplane import BASE, Control, missing, until
from ruamel.yaml import YAML
from test_policy_load import DOCUMENTED

from aiops import rbac
from aiops.meaning import shipped
from aiops.reload import Policies
from aiops.sources.kubernetes.api import Access
from aiops.sources.kubernetes.policies import PolicyResources

ROOT = Path(__file__).parents[2]
RBAC, SHOP = "/apis/rbac.authorization.k8s.io/v1", "/apis/aiops.io/v1/namespaces/shop/remediationpolicies"
GOOD = {"trigger": {"type": "Anomaly", "metric": "http_error_rate"}, "guards": {"cooldown": "1h30m", "maxUnavailable": "25%"},
        "actions": [{"type": "Restart", "condition": "anomaly.score > 0.5", "target": {"deployment": "api"}}]}


def yaml(path: str) -> Any:
    return YAML(typ="safe").load((ROOT / "deploy" / "policies" / path).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    """Its own, with a user `aiops` and nobody else's policies."""
    if why := missing(BASE):
        pytest.skip(why)
    with Control(tmp_path_factory.mktemp("policies-control"), {"aiops": "read-token"}) as control:
        control.create("/api/v1/namespaces", {"metadata": {"name": "shop"}})
        yield control


@pytest.fixture(scope="module")
def cluster(control: Control) -> Control:
    """With the CRD, and the generated role bound to the reader."""
    control.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", yaml("crd.yaml"))
    control.create(f"{RBAC}/clusterroles", yaml("role.yaml"))
    control.create(f"{RBAC}/clusterrolebindings", {
        "metadata": {"name": "aiops-policies"}, "subjects": [{"kind": "User", "name": "aiops"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "aiops-policies"}})
    until(lambda: conditions(control).get("Established") == "True")
    return control


def conditions(control: Control) -> dict[str, str]:
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/remediationpolicies.aiops.io"
    return {c["type"]: c["status"] for c in control.call("GET", path).get("status", {}).get("conditions", [])}


def put(control: Control, name: str, spec: Any, path: str = SHOP) -> Any:
    return control.create(path, {"apiVersion": "aiops.io/v1", "kind": "RemediationPolicy", "metadata": {"name": name},
                                 "spec": spec})


class Watcher:
    """What the daemon does with policies, tick by tick."""

    def __init__(self, control: Control, folder: Path) -> None:
        (folder / "files").mkdir()
        self.resources = PolicyResources(access=Access(control.kubeconfig("policies", "read-token")))
        self.policies = Policies(folder / "files", shipped(), {}, ["ops"], self.resources)
        self.control = control
        self.in_force: dict[str, str] = {}

    def until(self, holds: Callable[[], bool]) -> None:
        def ticked() -> bool:
            found = self.policies.refresh(time.time())
            self.in_force = dict(found) if found is not None else self.in_force
            return holds()
        until(ticked, 60.0)

    def ready(self, name: str, path: str = SHOP) -> dict[str, Any]:
        """The condition Ready of a policy; {} while nobody has written one."""
        status = self.control.call("GET", f"{path}/{name}").get("status", {})
        return {**next((c for c in status.get("conditions", []) if c["type"] == "Ready"), {}), "mode": status.get("mode"),
                "generation": status.get("observedGeneration")}


@pytest.fixture(scope="module")
def watcher(cluster: Control, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watcher]:
    made = Watcher(cluster, tmp_path_factory.mktemp("policies"))
    yield made
    made.policies.stop()


def test_the_schema_is_structural(cluster: Control) -> None:
    """The server names no violation, and knows the short name, the category and the columns."""
    assert conditions(cluster) == {"NamesAccepted": "True", "Established": "True"}
    [kind] = [r for r in cluster.call("GET", "/apis/aiops.io/v1")["resources"] if r["name"] == "remediationpolicies"]
    assert (kind["namespaced"], kind["shortNames"], kind["categories"]) == (True, ["rpol"], ["aiops"])


def test_the_documented_policy_is_accepted_word_for_word(cluster: Control, watcher: Watcher) -> None:
    """And becomes ready, in mode shadow, which nobody wrote."""
    document = YAML(typ="safe").load(DOCUMENTED)
    cluster.create(SHOP, document)
    name = document["metadata"]["name"]
    watcher.until(lambda: watcher.ready(name).get("status") == "True")
    ready = watcher.ready(name)
    assert (ready["reason"], ready["observedGeneration"], ready["generation"], ready["mode"]) == ("InForce", 1, 1, "shadow")
    assert cluster.call("GET", f"{SHOP}/{name}")["spec"] == document["spec"]
    assert list(watcher.in_force) == [f"kubernetes:shop/{name}"]


@pytest.mark.parametrize(("change", "said"), [
    ({"actions": []}, "spec.actions"), ({"trigger": {"type": "Alert"}}, "Unsupported value"), ({"mode": "yolo"}, "spec.mode"),
    ({"trigger": {"type": "Incident", "metric": "x"}}, "metric belongs to type Anomaly"),
    ({"trigger": {"type": "Anomaly"}}, "Anomaly needs metric"), ({"guards": {"cooldown": 600}}, "a duration without a unit"),
    ({"guards": {"cooldown": "10 minutes"}}, "spec.guards.cooldown"), ({"undo": "yes"}, "spec.undo"),
    ({"trigger": {"type": "Anomaly", "metric": "x", "sensitivity": 95}}, "should be less than or equal to 1"),
    ({"escalate": {"after": 0}}, "spec.escalate.after"), ({"actions": [{"type": "Restart"}]}, "target")], ids=str)
def test_the_server_refuses_what_the_schema_can_say(cluster: Control, change: dict[str, Any], said: str) -> None:
    """At once, when somebody applies it."""
    with pytest.raises(OSError, match="422") as caught:
        put(cluster, "bad", {**GOOD, **change})
    assert said in str(caught.value)


def test_what_only_the_program_knows_is_said_in_the_status(cluster: Control, watcher: Watcher) -> None:
    """A misspelt key is not pruned, a condition has its caret and must be true or false, another namespace is out of bounds, a
    selector must say what is meant; the others are in force."""
    action = GOOD["actions"][0]  # type: ignore[index]
    put(cluster, "misspelt", {**GOOD, "actions": [{**action, "conditon": "false"}]})
    put(cluster, "caret", {**GOOD, "actions": [{**action, "condition": "anomaly.score >"}]})
    put(cluster, "elsewhere", {**GOOD, "actions": [{**action, "target": {"deployment": "prod/api"}}]})
    put(cluster, "number", {**GOOD, "actions": [{**action, "condition": "1 + 1"}]})
    put(cluster, "everything", {**GOOD, "actions": [{**action, "target": {"pod": "selector:app!=api"}}]})
    put(cluster, "fine", GOOD)
    names = ("misspelt", "caret", "elsewhere", "number", "everything")
    watcher.until(lambda: all(watcher.ready(n).get("status") == "False" for n in names) and
                  watcher.ready("fine").get("status") == "True")
    said = {n: watcher.ready(n)["message"] for n in names}
    assert said["misspelt"] == "$.spec.actions[0].conditon: unknown key. Did you mean 'condition'?"
    assert said["caret"].startswith("$.spec.actions[0].condition: condition, line 1, column 16: ")
    assert said["caret"].endswith("\n    anomaly.score >\n                   ^")
    assert said["elsewhere"] == ("$.spec.actions[0].target: deployment/prod/api is in namespace prod; a policy in namespace shop "
                                 "acts in shop only.")
    assert "condition, line 1, column 1: this is a number, not true or false." in said["number"]
    assert said["everything"] == ("$.spec.actions[0].target.pod: 'selector:app!=api' selects whatever is not that, of every "
                                  "service. Add what is meant: key=value.")
    assert "kubernetes:shop/fine" in watcher.in_force and not any(n in k for n in names for k in watcher.in_force)


def test_an_edit_is_in_force_in_the_next_tick_and_a_bad_one_leaves_it(cluster: Control, watcher: Watcher) -> None:
    """observedGeneration follows the edits; the last good version stays in force."""
    cluster.patch(f"{SHOP}/fine", {"spec": {"mode": "ask"}})
    watcher.until(lambda: watcher.ready("fine").get("observedGeneration") == 2)
    assert watcher.ready("fine")["mode"] == "ask" and '"mode":"ask"' in watcher.in_force["kubernetes:shop/fine"]
    good = watcher.in_force["kubernetes:shop/fine"]
    since = watcher.ready("fine")["lastTransitionTime"]
    cluster.patch(f"{SHOP}/fine", {"spec": {"mode": "act", "trigger": {"model": "no_such_detector"}}})
    watcher.until(lambda: watcher.ready("fine").get("observedGeneration") == 3)
    ready = watcher.ready("fine")
    assert (ready["status"], ready["reason"]) == ("False", "Invalid") and ready["lastTransitionTime"] >= since
    assert ready["message"].endswith("The last good version stays in force.")
    assert watcher.in_force["kubernetes:shop/fine"] == good
    cluster.patch(f"{SHOP}/fine", {"spec": {"trigger": {"model": None}}})
    watcher.until(lambda: watcher.ready("fine").get("status") == "True")
    assert '"mode":"act"' in watcher.in_force["kubernetes:shop/fine"]


def test_the_older_of_two_policies_of_one_name_stays(cluster: Control, watcher: Watcher) -> None:
    """Whatever its namespace; when the older goes, the younger takes its place."""
    other = SHOP.replace("shop", "ops")
    cluster.create("/api/v1/namespaces", {"metadata": {"name": "ops"}})
    put(cluster, "fine", {**GOOD, "guards": {"namespaces": ["*"]}}, other)
    watcher.until(lambda: watcher.ready("fine", other).get("status") == "False")
    assert watcher.ready("fine", other)["reason"] == "NameTaken" and watcher.ready("fine")["status"] == "True"
    cluster.call("DELETE", f"{SHOP}/fine")
    watcher.until(lambda: watcher.ready("fine", other).get("status") == "True")
    assert "kubernetes:shop/fine" not in watcher.in_force and "kubernetes:ops/fine" in watcher.in_force


def test_what_kubectl_shows(cluster: Control, watcher: Watcher) -> None:
    """The columns, asked for as kubectl does."""
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
    table = cluster.call("GET", SHOP, accept=accept)
    shown = [c["name"] for c in table["columnDefinitions"] if c["priority"] == 0]
    rows = {row["cells"][0]: dict(zip(shown, row["cells"], strict=False)) for row in table["rows"]}
    assert shown == ["Name", "Mode", "Trigger", "Ready", "Reason", "Age"]
    assert [rows["caret"][k] for k in shown[1:5]] == ["", "Anomaly", "False", "Invalid"]
    assert [rows["memory-pressure-remediation"][k] for k in shown[1:5]] == ["shadow", "Anomaly", "True", "InForce"]


def test_the_daemon_can_do_nothing_else_to_policies(cluster: Control) -> None:
    """The role follows them and writes their status; it cannot write a policy."""
    def may(verb: str, sub: str = "") -> bool:
        what = {"group": "aiops.io", "resource": "remediationpolicies", "subresource": sub, "verb": verb, "namespace": "shop"}
        body = {"spec": {"user": "aiops", "resourceAttributes": what}}
        return bool(cluster.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", body)["status"]["allowed"])
    verbs = ("get", "list", "watch", "create", "update", "patch", "delete")
    assert {("", v) for v in verbs if may(v)} | {("status", v) for v in verbs if may(v, "status")} == \
        {(r.partition("/")[2], v) for _, r, v in rbac.POLICIES}
