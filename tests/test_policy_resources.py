"""RemediationPolicies of a cluster: what bounds them, how they come into force, and what their status says."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.kube_watch import KubeWatch
from helpers import T0
from test_policy_reload import text
from test_reflector import kubeconfig

from aiops import meaning
from aiops.policy import texts
from aiops.policy.texts import Compiler
from aiops.reload import Policies
from aiops.sources.kubernetes.api import Access, KubeError
from aiops.sources.kubernetes.policies import POLICIES, PolicyResources, Resource, Standing, Statuses
from aiops.types import Action, Report

KNOWN = meaning.shipped()
PATH = "/apis/aiops.io/v1/remediationpolicies"
RESTART = {"type": "Restart", "condition": "anomaly.score > 0.5", "target": {"deployment": "api"}}
SPEC: dict[str, Any] = {"trigger": {"type": "Anomaly", "metric": "http_error_rate"}, "actions": [RESTART]}


def manifest(name: str, spec: Any = SPEC, namespace: str = "shop", created: str = "2026-11-21T10:00:00Z") -> dict[str, Any]:
    return {"apiVersion": "aiops.io/v1", "kind": "RemediationPolicy", "spec": spec, "metadata": {
        "name": name, "namespace": namespace, "uid": f"{namespace}-{name}-{created}", "creationTimestamp": created}}


# ----------------------------------------------------------------------------------------------- the bounds of a resource
def compiled(spec: dict[str, Any], namespace: str = "shop", beyond: tuple[str, ...] = ()) -> Any:
    key = f"kubernetes:{namespace}/p"
    found = Compiler(KNOWN, beyond)({key: json.dumps(manifest("p", SPEC | spec, namespace))})
    return found.policies[0] if found.policies else [f"{p.path}: {p.text}" for p in found.problems[key]]


def test_a_resource_acts_in_its_own_namespace() -> None:
    """Its guards name that one; a file without guards may act everywhere but in the cluster's own namespaces."""
    found = compiled({})
    assert (found.namespace, found.spec.guards.namespaces) == ("shop", ("shop",))
    assert compiled({"guards": {"namespaces": ["shop"]}}).spec.guards.namespaces == ("shop",)


@pytest.mark.parametrize("namespaces", [["prod"], ["*"], ["shop*"], ["shop", "prod"], ["s?op"], ["kube-system"]], ids=str)
def test_a_resource_cannot_give_itself_more(namespaces: list[str]) -> None:
    """Guards that name more are refused, unless the daemon's configuration trusts its namespace."""
    [said] = compiled({"guards": {"namespaces": namespaces}})
    assert said.startswith("$.spec.guards.namespaces: a policy in namespace shop acts in shop only, not in ")
    assert said.endswith("or let policies.beyond in the daemon's configuration name shop.")
    assert compiled({"guards": {"namespaces": namespaces}}, beyond=("shop",)).spec.guards.namespaces == tuple(namespaces)


def test_to_be_trusted_is_not_enough_to_act_elsewhere() -> None:
    """The policy must name where, too."""
    assert compiled({}, beyond=("shop",)).spec.guards.namespaces == ("shop",)


def test_a_target_in_another_namespace_is_refused_when_it_is_loaded() -> None:
    """One that is only known in an incident is refused by the guard then."""
    assert compiled({"actions": [RESTART | {"target": {"deployment": "prod/api"}}]}) == [
        "$.spec.actions[0].target: deployment/prod/api is in namespace prod; a policy in namespace shop acts in shop only."]
    found = compiled({"actions": [RESTART | {"target": {"deployment": "${cause.namespace}/${cause.name}"}}]})
    assert found.spec.guards.namespaces == ("shop",)


def test_a_resource_touches_a_node_only_where_two_people_say_so() -> None:
    """Found in an incident it passes the loading; then the guard refuses it."""
    node = {"actions": [{"type": "Cordon", "condition": "true", "target": {"node": "${cause.node}"}}]}
    named = node | {"guards": {"namespaces": ["shop"]}}
    assert not compiled(node).cluster_wide and not compiled(named).cluster_wide
    assert not compiled(node, beyond=("shop",)).cluster_wide
    assert compiled(named, beyond=("shop",)).cluster_wide


def test_the_namespaces_of_the_cluster_itself_must_be_trusted() -> None:
    """Whoever may write into kube-system is not by that allowed to have things done there."""
    assert compiled({}, "kube-system") == [
        "$.metadata.namespace: kube-system belongs to the cluster itself: let policies.beyond in the daemon's configuration name "
        "it."]
    assert compiled({}, "kube-system", ("kube-system",)).spec.guards.namespaces == ("kube-system",)


@pytest.mark.parametrize("spec", [None, 3, [], "x", {}, {"trigger": None}, {"actions": [None]}, {"a": float("nan")}], ids=repr)
def test_a_strange_resource_is_a_problem_and_nothing_more(spec: Any) -> None:
    """Whatever an API server without our schema would let in."""
    found = Compiler(KNOWN)({"kubernetes:shop/p": json.dumps(manifest("p", spec))})
    assert not found.policies and found.problems


@pytest.mark.parametrize("bad", ["{", "[" * 100_000, '"' + "x" * (texts.MAX_RESOURCE + 1) + '"', "", "\x00"], ids=lambda b: b[:2])
def test_a_resource_that_cannot_be_read_is_a_problem(bad: str) -> None:
    """Cut off, nested without end, too long, empty."""
    assert Compiler(KNOWN)({"kubernetes:shop/p": bad}).problems


def test_a_resource_full_of_mistakes_takes_no_time_and_no_room() -> None:
    """Thousands of unknown keys, or of actions: a hundred are told, in well under a second of work."""
    import time

    keys = {f"k{i}": 1 for i in range(5_000)}
    for spec in ({**SPEC, **keys}, {**SPEC, "actions": [{"type": "X", "condition": "1 +"}] * 1_500}):
        began = time.process_time()
        problems = Compiler(KNOWN)({"kubernetes:shop/p": json.dumps(manifest("p", spec))}).problems["kubernetes:shop/p"]
        assert time.process_time() - began < 5.0
        assert 2 <= len(problems) <= 200


# --------------------------------------------------------------------------------------------------- resources, watched
class Cluster:
    """A fake API server with policies, and the daemon's view of them."""

    def __init__(self, folder: Path, *manifests: dict[str, Any], beyond: tuple[str, ...] = ()) -> None:
        self.server = KubeWatch({PATH: list(manifests)})
        self.resources = PolicyResources(access=Access(kubeconfig(folder / "kubeconfig", self.server.url)))
        files = folder / "files"
        files.mkdir(exist_ok=True)
        self.policies = Policies(files, KNOWN, texts.read(files), beyond, self.resources)
        self.in_force: list[str] = []
        self.now = T0

    def until(self, holds: Callable[[], bool]) -> None:
        """Tick whenever something has come in."""
        for _ in range(400):
            self.resources.fresh.clear()
            found = self.policies.refresh(self.now)
            self.in_force = sorted(k.removeprefix("kubernetes:") for k in found) if found is not None else self.in_force
            if holds():
                return
            self.resources.fresh.wait(0.1)
        raise AssertionError(f"did not come: {self.in_force}, {self.policies.notes()}, {self.server.objects[PATH]}")

    def ready(self, name: str, namespace: str = "shop") -> dict[str, Any]:
        status = self.server.objects[PATH][namespace, name].get("status", {})
        return next((c for c in status.get("conditions", ()) if c["type"] == "Ready"), {})

    def writes(self) -> list[Any]:
        return [r for r in self.server.requests if r.method == "PATCH"]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    made: list[Cluster] = []

    def make(*manifests: dict[str, Any], **more: Any) -> Cluster:
        made.append(Cluster(tmp_path, *manifests, **more))
        return made[-1]
    yield make
    for one in made:
        one.policies.stop()
        one.server.close()


def test_a_resource_comes_into_force_and_says_so(cluster: Callable[..., Cluster]) -> None:
    """With the generation that was seen, the effective mode, and since when."""
    c = cluster(manifest("a"))
    c.until(lambda: c.ready("a").get("status") == "True")
    assert c.in_force == ["shop/a"]
    status = c.server.objects[PATH]["shop", "a"]["status"]
    assert (status["observedGeneration"], status["mode"]) == (1, "shadow")
    assert c.ready("a") == {"type": "Ready", "status": "True", "reason": "InForce", "message": "in force",
                            "observedGeneration": 1, "lastTransitionTime": "2001-09-09T01:46:40Z"}
    [write] = c.writes()
    assert write.right == ("aiops.io", "remediationpolicies/status", "patch")
    for _ in range(5):
        assert c.policies.refresh(c.now) is None, "our own writing is no change"
    assert len(c.writes()) == 1


@pytest.mark.slow
def test_a_wrong_resource_stops_neither_the_others_nor_the_files(cluster: Callable[..., Cluster], tmp_path: Path) -> None:
    """Its condition says what is wrong and where, with the caret; its last good version stays in force."""
    c = cluster(manifest("a"), manifest("b"), manifest("c", {**SPEC, "actions": [RESTART | {"condition": "anomaly.score >"}]}))
    c.until(lambda: c.ready("c").get("status") == "False" and c.ready("b").get("status") == "True")
    assert c.in_force == ["shop/a", "shop/b"]
    assert c.ready("c")["message"] == ("$.spec.actions[0].condition: condition, line 1, column 16: syntax error: the condition "
                                       "ends too early\n    anomaly.score >\n                   ^")
    (tmp_path / "files" / "f.yaml").write_text(text("f"), encoding="utf-8")
    c.server.change(PATH, "b", spec={"mode": "yolo"})
    c.until(lambda: c.ready("b").get("status") == "False")
    assert c.in_force == ["f.yaml", "shop/a", "shop/b"]
    assert c.ready("b")["observedGeneration"] == 2
    assert c.ready("b")["message"] == ("$.spec.mode: must be 'shadow', 'ask', 'act' or 'earned', got 'yolo'. The last good "
                                       "version stays in force.")
    assert c.policies.counts() == {"in_force": 3, "refused": 2} and len(c.policies.notes()) == 2
    c.server.change(PATH, "b", spec={"mode": "ask"})
    c.until(lambda: c.ready("b").get("status") == "True")
    c.server.delete(PATH, "a")
    c.until(lambda: c.in_force == ["f.yaml", "shop/b"])


@pytest.mark.slow
def test_of_two_of_one_name_the_older_stays(cluster: Callable[..., Cluster], tmp_path: Path) -> None:
    """Whichever was heard of first; files come before resources. The younger takes over when the older is gone."""
    young, old = manifest("p", created="2026-11-21T11:00:00Z"), manifest("p", namespace="web", created="2026-11-21T10:00:00Z")
    c = cluster(young, old)
    c.until(lambda: c.ready("p").get("status") == "False" and c.ready("p", "web").get("status") == "True")
    assert (c.in_force, c.ready("p")["reason"]) == (["web/p"], "NameTaken")
    assert c.ready("p")["message"] == "$.metadata.name: 'p' is already the name of the policy in kubernetes:web/p. Rename one."
    c.server.delete(PATH, "p", "web")
    c.until(lambda: c.ready("p").get("status") == "True")
    (tmp_path / "files" / "f.yaml").write_text(text("p"), encoding="utf-8")
    c.until(lambda: c.ready("p").get("status") == "False")
    assert c.in_force == ["f.yaml"] and "in f.yaml:3" in c.ready("p")["message"]


def test_a_last_good_version_gives_way_to_a_file_of_its_name(cluster: Callable[..., Cluster], tmp_path: Path) -> None:
    """No set ever holds two policies of one name."""
    c = cluster(manifest("p"))
    c.until(lambda: c.in_force == ["shop/p"])
    c.server.change(PATH, "p", spec={"mode": "yolo"})
    c.until(lambda: c.ready("p").get("status") == "False")
    assert c.in_force == ["shop/p"]
    (tmp_path / "files" / "f.yaml").write_text(text("p"), encoding="utf-8")
    c.until(lambda: c.in_force == ["f.yaml"])


def test_a_resource_made_anew_does_not_inherit_a_last_good_version(cluster: Callable[..., Cluster]) -> None:
    """It is another object that happens to have the name."""
    c = cluster(manifest("p"))
    c.until(lambda: c.in_force == ["shop/p"])
    c.server.delete(PATH, "p")
    c.server.put(PATH, manifest("p", {**SPEC, "mode": "yolo"}, created="2026-11-21T12:00:00Z"))
    c.until(lambda: c.ready("p").get("status") == "False")
    assert c.in_force == [] and "last good" not in c.ready("p")["message"]


def test_the_track_record_is_in_the_status(cluster: Callable[..., Cluster]) -> None:
    """The newest decision, and when it acted last; of a policy that is not from the cluster nothing is kept."""
    c = cluster(manifest("a"))
    c.until(lambda: c.ready("a").get("status") == "True")
    for k, decision in enumerate(("act", "refused")):
        c.policies.publish(Report(T0 + k, actions=(
            Action("x", "Restart", "deployment/shop/api", {}, "i", "a", decision, "why", T0 + k),  # type: ignore[arg-type]
            Action("y", "Restart", "deployment/shop/api", {}, "i", "z", "act", "why", T0 + k))))
    c.until(lambda: True)
    wish = c.resources.statuses._wishes["shop", "a"].want
    assert (wish.last_decision, wish.last_decision_time, wish.last_action_time) == \
        ("refused Restart", "2001-09-09T01:46:41Z", "2001-09-09T01:46:40Z")
    assert set(c.policies._record) == {"a"}


def test_while_the_cluster_does_not_answer_what_was_known_stays(cluster: Callable[..., Cluster]) -> None:
    """An API server that is away, or that takes the right back, takes no policy away."""
    c = cluster(manifest("a"))
    c.until(lambda: c.in_force == ["shop/a"])
    c.server.fault = lambda request: 500
    c.server.cut()
    c.until(lambda: bool(c.policies.notes()))
    assert c.policies.refresh(c.now) is None and c.in_force == ["shop/a"]
    assert "500" in c.policies.notes()[0]


def test_a_cluster_without_the_definition_is_named_and_harms_nothing(cluster: Callable[..., Cluster], tmp_path: Path) -> None:
    """The files are in force."""
    c = cluster()
    del c.server.objects[PATH]
    (tmp_path / "files" / "f.yaml").write_text(text("f"), encoding="utf-8")
    c.until(lambda: bool(c.policies.notes()) and c.in_force == ["f.yaml"])
    assert "deploy/policies/ holds the CRD and the role" in c.policies.notes()[0]


def test_without_a_way_in_the_files_are_in_force(tmp_path: Path) -> None:
    """And it is said why there is nothing from the cluster."""
    resources = PolicyResources(access=Access(tmp_path / "no-kubeconfig"))
    policies = Policies(tmp_path, KNOWN, {}, (), resources)
    (tmp_path / "f.yaml").write_text(text("f"), encoding="utf-8")
    assert policies.refresh(T0) is not None
    assert policies.notes() and policies.counts()["in_force"] == 1


class Silent:
    """An API server that has not answered yet."""

    def look(self) -> None:
        """Nothing is known."""

    def tell(self, standings: Any, at: float) -> None:
        assert standings == {}

    def trouble(self) -> str:
        return ""


def test_what_was_in_force_of_the_cluster_survives_a_restart(cluster: Callable[..., Cluster], tmp_path: Path) -> None:
    """The daemon begins with it, also with the version before a wrong edit; an object made anew meanwhile does not get it."""
    def begin(files: dict[str, str] | None = None) -> Policies:
        return Policies(tmp_path / "files", KNOWN, files or {}, (), c.resources, tmp_path / "memory.json")
    c = cluster(manifest("a"), manifest("b"))
    c.policies = begin()
    assert c.policies.in_force == {}
    c.until(lambda: c.in_force == ["shop/a", "shop/b"])
    c.server.change(PATH, "b", spec={"mode": "yolo"})
    c.until(lambda: c.ready("b").get("status") == "False")
    c.policies = begin()
    assert sorted(c.policies.in_force) == ["kubernetes:shop/a", "kubernetes:shop/b"]
    assert c.policies.refresh(T0) is None
    assert c.policies._standing((c.policies._there or [])[1]).message.endswith("stays in force.")
    assert sorted(begin({"f.yaml": text("a")}).in_force) == ["f.yaml", "kubernetes:shop/b"], "a file came before it"
    c.policies = begin()
    c.policies._resources = Silent()  # type: ignore[assignment]
    assert c.policies.refresh(T0) is None and len(c.policies.in_force) == 2, "the cluster has not told yet"
    (tmp_path / "files" / "f.yaml").write_text(text("a"), encoding="utf-8")
    assert sorted(c.policies.refresh(T0) or ()) == ["f.yaml", "kubernetes:shop/b"]
    (tmp_path / "files" / "f.yaml").unlink()
    c.server.delete(PATH, "b")
    c.server.put(PATH, manifest("b", {**SPEC, "mode": "yolo"}, created="2026-11-21T12:00:00Z"))
    c.policies = begin()
    c.until(lambda: list(c.policies.in_force) == ["kubernetes:shop/a"])
    for damaged in ("{", "[]", '{"kubernetes:a/b": 1}', '{"p.yaml": ["u", "x"]}', '{"kubernetes:a/b": ["u", "{}"]}'):
        (tmp_path / "memory.json").write_text(damaged, encoding="utf-8")
        assert begin().in_force == {}
    assert Policies(tmp_path / "files", KNOWN, {}, memory=tmp_path / "memory.json").in_force == {}, "not asked for any more"


# ------------------------------------------------------------------------------------------------------- status writing
READY = Standing(1, True, "InForce", "in force")


NOTHING = Standing(0, False, "")


def resource(told: Standing = NOTHING, uid: str = "u", since: str = "") -> Resource:
    return Resource(("shop", "p"), uid, "", 1, "", told, since)


def wanted(statuses: Statuses, standing: Standing, r: Resource | None = None, at: float = T0) -> Statuses:
    statuses.want({("shop", "p"): standing}, {("shop", "p"): r or resource()}, at)
    return statuses


def test_a_status_is_written_when_readiness_changes_and_else_once_a_minute() -> None:
    """A new last decision waits; a new version, or reason, does not."""
    statuses = wanted(Statuses(), READY)
    assert statuses.due(100.0) == (("shop", "p"), READY, "2001-09-09T01:46:40Z")
    statuses.done(("shop", "p"), READY, 100.0)
    assert wanted(statuses, READY).due(101.0) is None
    busy = Standing(1, True, "InForce", "in force", last_decision="act Restart")
    assert wanted(statuses, busy).due(159.0) is None and wanted(statuses, busy).due(160.0)
    bad = Standing(2, False, "Invalid", "no")
    due = wanted(statuses, bad, at=T0 + 60).due(102.0)
    assert due == (("shop", "p"), bad, "2001-09-09T01:47:40Z")
    statuses.done(("shop", "p"), bad, 102.0)
    worse = Standing(3, False, "Invalid", "still no")
    assert wanted(statuses, worse, at=T0 + 90).due(103.0) == (("shop", "p"), worse, "2001-09-09T01:47:40Z"), "as before"


def test_what_stands_there_already_is_not_written_again() -> None:
    """After a restart; a time of transition is kept where readiness is the same."""
    told = resource(READY, since="2025-12-01T00:00:00Z")
    assert wanted(Statuses(), READY, told).due(0.0) is None
    due = wanted(Statuses(), Standing(2, True, "InForce", "in force"), told).due(0.0)
    assert due is not None and due[2] == "2025-12-01T00:00:00Z"


def test_a_write_that_fails_is_tried_again_later_and_nothing_is_hot() -> None:
    """At most one write a second after one that failed, whatever it was about; a missing right is asked about once a minute."""
    statuses, now, tried = wanted(Statuses(), READY), 0.0, 0
    while now < 600.0:
        if due := statuses.due(now):
            tried += 1
            statuses.failed(due[0], KubeError("/x", "HTTP 500", 500), now)
        now += 0.1
    assert 10 <= tried <= 120 and statuses.problem == "Kubernetes /x: HTTP 500"
    statuses, now, tried = wanted(Statuses(), READY), 0.0, 0
    while now < 600.0:
        if due := statuses.due(now):
            tried += 1
            statuses.failed(due[0], KubeError("/x", "HTTP 403", 403), now)
        now += 0.1
    assert tried <= 10
    statuses.done(("shop", "p"), READY, now)
    assert statuses.problem == ""


def test_an_object_made_anew_gets_its_own_status() -> None:
    """Though the old one of its name had the same."""
    statuses = wanted(Statuses(), READY)
    statuses.done(("shop", "p"), READY, 0.0)
    assert wanted(statuses, READY, resource(uid="v")).due(1.0)
    statuses.want({}, {}, T0)
    assert statuses.due(1000.0) is None and not statuses._wishes


def test_the_kept_text_holds_what_people_wrote_and_nothing_else() -> None:
    """Labels, versions, managed fields and status may change without a reload."""
    import msgspec

    full = manifest("p")
    full["metadata"] |= {"resourceVersion": "7", "labels": {"a": "b"}, "managedFields": [{"manager": "kubectl"}]}
    full["status"] = {"observedGeneration": 1}
    kept = [POLICIES.keep(msgspec.json.decode(json.dumps(m).encode(), type=POLICIES.item)).text for m in (full, manifest("p"))]
    assert kept[0] == kept[1]
    assert json.loads(kept[0]) == {"apiVersion": "aiops.io/v1", "kind": "RemediationPolicy",
                                   "metadata": {"name": "p", "namespace": "shop"}, "spec": SPEC}
