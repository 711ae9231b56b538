"""The harness of tests/kube itself: real controllers and a real scheduler move pods that simulated kubelets run."""

from __future__ import annotations

from collections import Counter

import pytest
from kube.apiclient import ApiError, Json
from kube.controlplane import until
from kube.lab import Lab, restarts, state

DEPLOYMENTS = [{"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "patch"]}]


def states(lab: Lab, app: str) -> list[str]:
    return [state(pod) for pod in lab.pods(app)]


def names(pods: list[Json]) -> set[str]:
    return {pod["metadata"]["name"] for pod in pods}


def test_a_deployment_gets_ready_scales_and_restarts(lab: Lab) -> None:
    """Three replicas on three zones' nodes, then five, then all replaced by a rollout restart, and none is left over."""
    lab.deploy("api", 3)
    lab.settled("api")
    first = lab.pods("api")
    assert [state(pod) for pod in first] == ["ready"] * 3
    assert len({pod["status"]["podIP"] for pod in first}) == 3
    lab.admin.change("deployments", lab.namespace, "api", {"spec": {"replicas": 5}}, "scale")
    lab.settled("api")
    assert names(first) < names(lab.pods("api"))
    lab.admin.change("deployments", lab.namespace, "api", {"spec": {"template": {"metadata": {"annotations": {
        "kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z"}}}}})
    lab.settled("api")
    until(lambda: len(lab.pods("api")) == 5, what="the old pods gone")
    assert not names(first) & names(lab.pods("api"))


def test_an_eviction_obeys_the_disruption_budget(lab: Lab) -> None:
    """Of two pods one may go; while its successor is not ready the second may not, afterwards it may."""
    lab.deploy("db", 2, {"ready-after": "3"})
    lab.admin.create("poddisruptionbudgets", {"metadata": {"name": "db"}, "spec": {
        "minAvailable": 1, "selector": {"matchLabels": {"app": "db"}}}}, lab.namespace)
    lab.settled("db")
    until(lambda: lab.admin.get("poddisruptionbudgets", lab.namespace, "db").get("status", {}).get("disruptionsAllowed") == 1)
    one, other = names(lab.pods("db"))
    lab.admin.evict(lab.namespace, one)
    with pytest.raises(ApiError) as refused:
        lab.admin.evict(lab.namespace, other)
    assert (refused.value.status, refused.value.reason) == (429, "TooManyRequests")
    lab.settled("db")
    until(lambda: lab.admin.get("poddisruptionbudgets", lab.namespace, "db")["status"]["disruptionsAllowed"] == 1)
    lab.admin.evict(lab.namespace, other)
    until(lambda: other not in names(lab.pods("db")), what="evicted")


def test_a_pod_crashes_again_and_again_and_a_rollback_ends_it(lab: Lab) -> None:
    """Its restarts rise and it waits in CrashLoopBackOff with the exit code kept; the older ReplicaSet still serves."""
    lab.deploy("web", 2)
    lab.settled("web")
    lab.deploy("web", 2, {"exits-after": "0.2", "exit-code": "3", "ready-after": "never"}, image="web:2")
    bad = until(lambda: next((p for p in lab.pods("web") if restarts(p) >= 2 and state(p) == "CrashLoopBackOff"), None))
    assert bad["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] == 3
    assert states(lab, "web").count("ready") == 2
    lab.deploy("web", 2)
    lab.settled("web")
    until(lambda: states(lab, "web") == ["ready", "ready"], what="only good pods")


def test_a_pod_below_its_memory_is_killed_until_the_limit_is_raised(lab: Lab) -> None:
    """OOMKilled with exit code 137 at 256Mi; at 1Gi it runs."""
    lab.deploy("model", 1, {"needs-memory": "700Mi"}, memory="256Mi")
    killed = until(lambda: next((p for p in lab.pods("model") if restarts(p) >= 1), None))
    ended = killed["status"]["containerStatuses"][0]["lastState"]["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)
    lab.deploy("model", 1, {"needs-memory": "700Mi"}, memory="1Gi")
    lab.settled("model")
    until(lambda: states(lab, "model") == ["ready"], what="only the new pod")
    assert restarts(lab.pods("model")[0]) == 0


def test_images_that_cannot_be_pulled_and_pods_that_never_get_ready(lab: Lab) -> None:
    """Each is visible as such, and a script changed on the pod takes effect."""
    lab.deploy("typo", 1, {"image-pull": "fails"})
    lab.deploy("mute", 1, {"ready-after": "never"})
    until(lambda: (states(lab, "typo"), states(lab, "mute")) == (["ImagePullBackOff"], ["running"]))
    for app in ("typo", "mute"):
        lab.script(*names(lab.pods(app)), image_pull=None, ready_after="0")
    until(lambda: (states(lab, "typo"), states(lab, "mute")) == (["ready"], ["ready"]))


def test_a_job_succeeds_and_another_fails(lab: Lab) -> None:
    """A pod that ends with 0 completes its Job; one that ends with 1 fails it, as no retry is allowed."""
    for name, code in (("good", "0"), ("bad", "1")):
        lab.admin.create("jobs", {"metadata": {"name": name}, "spec": {"backoffLimit": 0, "template": {
            "metadata": {"annotations": {"sim.aiops.io/exits-after": "0.2", "sim.aiops.io/exit-code": code}},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "job:1"}]}}}}, lab.namespace)

    def ends(name: str) -> set[str]:
        conditions = lab.admin.get("jobs", lab.namespace, name)["status"].get("conditions") or []
        return {c["type"] for c in conditions if c["status"] == "True"}
    until(lambda: "Complete" in ends("good") and "Failed" in ends("bad"))


def test_a_node_that_falls_silent_loses_its_pods_and_comes_back(lab: Lab) -> None:
    """Its pods are called not ready and move to the other node; when it speaks again it is schedulable."""
    quiet, _ = lab.nodes(2)
    lab.deploy("app", 2, own_nodes=True, topologySpreadConstraints=[{
        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {"app": "app"}}}])
    lab.settled("app")
    assert quiet in {pod["spec"]["nodeName"] for pod in lab.pods("app")}
    lab.fleet.silence(quiet)

    def ready(node: str) -> str:
        conditions = lab.admin.get("nodes", None, node)["status"]["conditions"]
        return next(str(c["status"]) for c in conditions if c["type"] == "Ready")
    until(lambda: ready(quiet) == "Unknown", what="the node is unknown")
    lab.settled("app")
    until(lambda: all("deletionTimestamp" in pod["metadata"] for pod in lab.pods("app") if pod["spec"].get("nodeName") == quiet),
          what="its pods are taken away")
    lab.settled("app")
    assert quiet in {pod["spec"]["nodeName"] for pod in lab.pods("app")}
    lab.fleet.resume(quiet)
    until(lambda: ready(quiet) == "True" and not lab.admin.get("nodes", None, quiet)["spec"].get("taints"))
    until(lambda: quiet not in {pod["spec"]["nodeName"] for pod in lab.pods("app")}, what="the old pod's end")


def test_an_account_can_do_what_its_rules_say_and_every_write_is_counted(lab: Lab) -> None:
    """One patch and one dry run are allowed, one delete is not; the audit log has the two writes, with body and code."""
    lab.deploy("api", 1)
    healer = lab.account("healer", DEPLOYMENTS)
    healer.client.change("deployments", lab.namespace, "api", {"spec": {"replicas": 2}})
    healer.client.patch(f"/apis/apps/v1/namespaces/{lab.namespace}/deployments/api?dryRun=All", {"spec": {"replicas": 9}})
    with pytest.raises(ApiError) as refused:
        healer.client.delete("deployments", lab.namespace, "api")
    assert (refused.value.status, refused.value.reason) == (403, "Forbidden")
    where = f"{lab.namespace}/api"
    assert [r.what for r in healer.writes()] == [f"patch deployments {where} 200", f"delete deployments {where} 403"]
    assert healer.writes()[0].body == {"spec": {"replicas": 2}}
    assert [r.dry_run for r in lab.control.audit.settled(healer.user)] == [False, True, False]


def test_the_simulation_asks_little(lab: Lab) -> None:
    """A pod's life from start to end is three requests of its kubelet: it runs, it is ready, it is gone."""
    lab.deploy("api", 4)
    lab.settled("api")
    lab.admin.delete("deployments", lab.namespace, "api", propagationPolicy="Background")
    until(lambda: not lab.pods("api"), what="all gone")
    asked = [r for r in lab.control.audit.requests("simulated-kubelet") if r.namespace == lab.namespace]
    assert Counter((r.verb, r.resource, r.sub, r.code) for r in asked) == {
        ("patch", "pods", "status", 200): 8, ("delete", "pods", "", 200): 4}
