"""What each action refuses, and how it goes about its work, on the cluster in memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fakes.acting import NOW, action, carry_out
from fakes.kube_objects import seeded

from aiops import plugins, serial, story
from aiops.changes import value_at
from aiops.cluster.executor import Executor, Notes
from aiops.cluster.simulated import SimulatedCluster
from aiops.interfaces import Failed, Refused, Retry

ROLLED_BACK = ("metadata", "annotations", "aiops.io/rolled-back-from")


def world(*changed, without=()):
    """The cluster of the examples; changed: (entity, path, value) of fields that are otherwise."""
    cluster = SimulatedCluster(objects=[(kind, one) for kind, one in seeded()])
    cluster.now = NOW
    for entity in without:
        del cluster.objects[entity]
    for entity, path, value in changed:
        into = cluster.objects[entity]
        for step in path[:-1]:
            into = into.setdefault(step, {}) if isinstance(step, str) else into[step]
        into[path[-1]] = value
    return cluster


def plan(cluster, name, example, key="a-1", **params):
    return plugins.load_type("remediations", name)().plan(action(name, example, key, **params), cluster)


def done(cluster, name, example, notes=None, **params):
    return carry_out(Executor(cluster, notes or Notes()), action(name, example, **params))


HPA = ("horizontalpodautoscaler/shop/web", ("spec", "scaleTargetRef"), {"kind": "Deployment", "name": "api"})
KEDA = [{"kind": "ScaledObject", "name": "web", "controller": True}]
BY_KUBECTL = [{"manager": "kubectl", "fieldsV1": {"f:spec": {"f:unschedulable": {}, "f:suspend": {}}}}]
REFUSED = {
    "down, below the least": ("ScaleDown", {"deployment": "api", "replicas": "-2"}, [], "fewer than the allowed 1"),
    "down, but up": ("ScaleDown", {"deployment": "api", "replicas": 5}, [], "would not be fewer"),
    "down, ruled": ("ScaleDown", {"deployment": "api", "replicas": "-1"}, [HPA], "owns the replicas of deployment/shop/api"),
    "zero, ruled": ("ScaleToZero", {"deployment": "api"}, [HPA], "owns the replicas"),
    "evicted, an orphan": ("Evict", {"pod": "shell"}, [], "no pod of pod/shop/shell has a controller"),
    "back, paused": ("Rollback", {"deployment": "api"}, [("deployment/shop/api", ("spec", "paused"), True)], "is paused"),
    "back, on delete": ("Rollback", {"daemonset": "agent"},
                        [("daemonset/shop/agent", ("spec", "updateStrategy"), {"type": "OnDelete"})], "OnDelete"),
    "back, of age": ("Rollback", {"deployment": "api", "within": "30m"}, [], "is not what broke it"),
    "back, rolled back": ("Rollback", {"deployment": "api"},
                          [("replicaset/shop/api-1", ("metadata", "creationTimestamp"), "2026-09-21T14:00:00Z")],
                          "rolled back already"),
    "back, failed before": ("Rollback", {"deployment": "api"}, [("deployment/shop/api", ROLLED_BACK, "x,api-1")],
                            "it failed then"),
    "drained, orphan": ("Drain", {"node": "gpu-0", "deleteEmptyDirData": True}, [], "shell has no controller"),
    "drained, data": ("Drain", {"node": "gpu-0", "force": True}, [], "keeps data on the node (emptyDir)"),
    "drained, not ours": ("Drain", {"node": "gpu-1"}, [("node//gpu-1", ("spec", "unschedulable"), True)], "by somebody else"),
    "cordoned, uncordoned": ("Cordon", {"node": "gpu-3"}, [("node//gpu-3", ("spec", "unschedulable"), False)],
                             "was uncordoned by somebody after we had cordoned it"),
    "uncordoned, not ours": ("Uncordon", {"node": "gpu-1"}, [("node//gpu-1", ("spec", "unschedulable"), True)], "Hands off"),
    "uncordoned, set anew": ("Uncordon", {"node": "gpu-3"}, [("node//gpu-3", ("metadata", "managedFields"), BY_KUBECTL)],
                             "by somebody else"),
    "taint of others": ("Taint", {"node": "gpu-2", "key": "nvidia.com/gpu", "value": "x"}, [], "of somebody else"),
    "resources, which": ("PatchResources", {"deployment": "api", "container": "x", "limits": {"cpu": 1}}, [],
                         "the containers api"),
    "resources, too much": ("PatchResources", {"deployment": "api", "limits": {"memory": "+300%"}, "max": {"memory": "3Gi"}}, [],
                            "4Gi as limits.memory of deployment/shop/api would be more than the allowed 3Gi"),
    "resources, of nothing": ("PatchResources", {"deployment": "api", "requests": {"cpu": "+5%"}, "max": {"cpu": 1}}, [],
                              "has no requests.cpu"),
    "resources, upside down": ("PatchResources", {"deployment": "api", "requests": {"memory": "2Gi"}}, [],
                               "than its limit (1Gi)"),
    "hpa, too many": ("SetHPA", {"hpa": "web", "maxReplicas": "+11"}, [], "more than the allowed 20"),
    "hpa, too few": ("SetHPA", {"hpa": "web", "minReplicas": "-1", "min": 2}, [], "fewer than the allowed 2"),
    "hpa, crossed": ("SetHPA", {"hpa": "web", "minReplicas": 11}, [], "more than maxReplicas, 10"),
    "hpa, of KEDA": ("SetHPA", {"hpa": "web", "maxReplicas": 12},
                     [("horizontalpodautoscaler/shop/web", ("metadata", "ownerReferences"), KEDA)], "made by ScaledObject/web"),
    "suspended, ended": ("Suspend", {"job": "train"}, [("job/shop/train", ("status", "conditions"),
                                                        [{"type": "Complete", "status": "True"}])], "has ended"),
    "suspended, queued": ("Suspend", {"job": "train"},
                          [("job/shop/train", ("metadata", "labels"), {"kueue.x-k8s.io/queue-name": "gpus"})], "queue 'gpus'"),
    "suspended, managed": ("Suspend", {"job": "train"}, [("job/shop/train", ("spec", "managedBy"), "x.io/y")],
                           "managed by x.io/y"),
    "resumed, not ours": ("Resume", {"job": "train"}, [("job/shop/train", ("spec", "suspend"), True)], "Hands off"),
    "traffic, nobody there": ("ShiftTraffic", {"httproute": "web", "from": "stable", "to": "canary", "percent": 5},
                              [("endpointslice/shop/canary-1", ("endpoints",), [{"conditions": {"ready": False}}])],
                              "service/shop/canary has no ready endpoint"),
    "traffic, none": ("ShiftTraffic", {"httproute": "web", "from": "canary", "to": "stable", "percent": 5},
                      [("httproute/shop/web", ("spec", "rules", 0, "backendRefs", 1, "weight"), 0)], "gets no traffic"),
    "traffic, unknown": ("ShiftTraffic", {"httproute": "web", "from": "x", "to": "stable", "percent": 5}, [],
                         "x is there 0 times"),
    "traffic, no rule": ("ShiftTraffic", {"httproute": "web", "from": "stable", "to": "canary", "percent": 5, "rule": 3}, [],
                         "has 1 rules"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_refuses_in_words(case):
    """The reason names the object and what is in the way; nothing is written."""
    name, example, changed, words = REFUSED[case]
    cluster = world(*changed)
    outcome = done(cluster, name, example)
    assert (outcome.status, cluster.calls) == ("refused", [])
    assert words in outcome.reason
    assert outcome.reason.endswith(".")


NOTHING_TO_DO = {
    "at zero": ("ScaleToZero", {"deployment": "api"}, [("deployment/shop/api", ("spec", "replicas"), 0)]),
    "cordoned": ("Cordon", {"node": "gpu-1"}, [("node//gpu-1", ("spec", "unschedulable"), True)]),
    "not cordoned": ("Uncordon", {"node": "gpu-1"}, []),
    "tainted": ("Taint", {"node": "gpu-2", "key": "nvidia.com/gpu"}, []),
    "suspended": ("Suspend", {"job": "paused"}, []),
    "not suspended": ("Resume", {"cronjob": "nightly"}, []),
    "replaced meanwhile": ("Evict", {"pod": "api-0"}, [("pod/shop/api-0", ("status", "startTime"), "2026-09-21T15:00:00Z")]),
}


@pytest.mark.parametrize("case", NOTHING_TO_DO)
def test_what_is_so_already_is_left_as_it_is(case):
    """Done, without a write; and undoing it would not take from others what they had done."""
    name, example, changed = NOTHING_TO_DO[case]
    cluster, notes = world(*changed), Notes()
    assert done(cluster, name, example, notes).status == "done"
    assert (cluster.calls, notes.inverses("a-1")) == ([], [])


# ----------------------------------------------------------------------------------------------------------- pods
def test_the_least_important_and_youngest_pods_go_first():
    """As the scheduler preempts."""
    cluster = world(("pod/shop/api-0", ("spec", "priority"), 1000), ("pod/shop/api-1", ("spec", "priority"), -5),
                    ("pod/shop/api-2", ("status", "startTime"), "2026-02-01T00:00:00Z"))
    assert done(cluster, "Evict", {"pod": "selector:app=api", "count": 2}).status == "done"
    assert [c.entity for c in cluster.calls] == ["pod/shop/api-1", "pod/shop/api-2"]


@pytest.mark.parametrize("name", ["Evict", "Restart"])
def test_a_pod_of_the_second_of_the_decision_is_a_new_one(name):
    """Kubernetes writes whole seconds: it may have come in the place of one that was evicted, and would go again."""
    cluster = world(("pod/shop/api-0", ("status", "startTime"), "2026-09-21T14:13:20Z"))
    what = action(name, {"pod": "api-0"})
    assert plugins.load_type("remediations", name)().plan(replace(what, at=NOW + 0.7), cluster).changes == ()
    assert len(plugins.load_type("remediations", name)().plan(replace(what, at=NOW + 1.0), cluster).changes) == 1


def test_so_many_are_evicted_and_no_more_though_they_are_there_still():
    """One that is being ended and the one in its place are both listed; what we did is known from the record."""
    cluster = world()
    evict, executor = cluster.write, Executor(cluster, Notes())

    def slowly(change):
        leaving = cluster.get(change.entity)
        evict(change)
        leaving["metadata"] |= {"name": leaving["metadata"]["name"] + "-old", "deletionTimestamp": "2026-09-21T14:14:00Z"}
        cluster.put(leaving)
        return {}
    cluster.write = slowly
    what = action("Evict", {"pod": "selector:app=api", "count": 2})
    for _ in range(2):
        with pytest.raises(Retry):
            executor.carry_out(what, NOW)
        assert [c.entity for c in cluster.calls] == ["pod/shop/api-0"]
    del cluster.objects["pod/shop/api-0-old"]
    assert carry_out(executor, what).status == "done"
    assert [c.entity for c in cluster.calls] == ["pod/shop/api-0", "pod/shop/api-1"]


def test_a_drained_node_is_cordoned_first_and_keeps_what_belongs_to_it():
    """One pod a turn; those of DaemonSets and the node's own stay."""
    cluster = world()
    outcome = done(cluster, "Drain", {"node": "gpu-0", "force": True, "deleteEmptyDirData": True})
    assert (outcome.status, outcome.reason) == ("done", "node//gpu-0 is cordoned and drained.")
    assert [c.verb for c in cluster.calls] == ["patch", "evict", "evict", "evict"]
    assert done(world(), "Drain", {"node": "gpu-1"}).status == "done"
    left = [e for e, one in cluster.objects.items() if value_at(one, ("spec", "nodeName")) == "gpu-1"]
    assert left == ["pod/shop/api-1", "pod/shop/agent-x", "pod/shop/proxy-gpu-1"]


@pytest.mark.parametrize(("namespaces", "refused"), [(["pay", "bank-*"], True), ([], False), (["sh*"], False)], ids=str)
def test_a_node_with_pods_of_others_is_not_drained(namespaces, refused):
    """Where the policy names namespaces; the pods that would go are named, those that would stay are not."""
    cluster = world()
    drain = action("Drain", {"node": "gpu-0", "force": True, "deleteEmptyDirData": True}, namespaces=namespaces)
    if not refused:
        assert carry_out(Executor(cluster, Notes()), drain).status == "done"
        return
    outcome = carry_out(Executor(cluster, Notes()), drain)
    assert (outcome.status, cluster.calls) == ("refused", [])
    assert outcome.reason == (
        "3 pods of node//gpu-0 would go that the policy must not touch: pod/shop/api-0, pod/shop/api-2, pod/shop/shell. "
        "guards.namespaces is pay, bank-*.")


def test_the_clusters_own_pods_are_named_word_for_word():
    """A glob does not reach them."""
    cluster = world()
    for name in [e for e in cluster.objects if e.startswith("pod/shop/api-")]:
        cluster.objects[name]["metadata"]["namespace"] = "kube-system"
    what = {"node": "gpu-1"}
    with pytest.raises(Refused, match="1 pod of node//gpu-1 would go that the policy must not touch: pod/kube-system/api-1"):
        plan(cluster, "Drain", what, namespaces=["*"])
    assert plan(cluster, "Drain", what, namespaces=["*", "kube-system"]).changes


def test_a_budget_that_never_lets_a_pod_go_ends_in_an_uncordoned_node():
    """The others went; giving up puts the node back."""
    cluster, notes = world(), Notes()
    tried, executor = cluster.try_out, Executor(cluster, notes)

    def protected(change):
        if change.entity == "pod/shop/api-0":
            raise Retry("Cannot evict pod as it would violate the pod's disruption budget.", 7.0)
        tried(change)
    cluster.try_out = protected
    drain = action("Drain", {"node": "gpu-0", "force": True, "deleteEmptyDirData": True}, max_unavailable="100%")
    for _ in range(3):
        with pytest.raises(Retry):
            executor.carry_out(drain, NOW)
    assert [str(c) for c in cluster.calls[1:]] == ["evict pod/shop/api-2", "evict pod/shop/shell"]
    assert executor.give_up(drain, NOW, "gave up.").reason == "gave up. What it had changed was put back."
    assert value_at(cluster.get("node//gpu-0"), ("spec", "unschedulable")) is None


def test_whoever_uncordons_in_the_middle_of_a_drain_ends_it():
    """No pod goes after that."""
    cluster = world(("node//gpu-1", ("metadata", "annotations"), {"aiops.io/cordoned-by": "a-1"}))
    with pytest.raises(Refused, match="was uncordoned by somebody"):
        plan(cluster, "Drain", {"node": "gpu-1"})


# ------------------------------------------------------------------------------------------------------- workloads
@pytest.mark.parametrize(("example", "entity"), [
    ({"deployment": "api"}, "deployment/shop/api"), ({"statefulset": "db"}, "statefulset/shop/db"),
    ({"daemonset": "agent"}, "daemonset/shop/agent")])
def test_a_rollback_restores_the_template_of_the_revision_before(example, entity):
    """Without what the controllers added to it; and what was left is remembered."""
    cluster = world()
    assert done(cluster, "Rollback", example).reason == f"Roll {entity} back from revision 2 to 1."
    now = cluster.get(entity)
    name = entity.rpartition("/")[2]
    assert value_at(now, ("spec", "template", "spec", "containers"))[0]["image"] == f"{name}:1"
    assert now["spec"]["template"]["metadata"]["labels"] == {"app": name}
    assert "$patch" not in now["spec"]["template"]
    assert value_at(now, ROLLED_BACK) == f"{name}-2"


def test_a_rollback_waits_for_the_controller_to_see_the_newest_template():
    """Else the revision before would be the wrong one."""
    cluster = world(("deployment/shop/api", ("status", "observedGeneration"), 3),
                    ("deployment/shop/api", ("metadata", "generation"), 4))
    with pytest.raises(Retry, match="has not seen its newest template"):
        plan(cluster, "Rollback", {"deployment": "api"})


def test_a_first_revision_has_nothing_before_it():
    """Revisions of others, though they have its labels, are not its own."""
    cluster = world(("replicaset/shop/api-1", ("metadata", "ownerReferences"), [{"uid": "another"}]))
    with pytest.raises(Refused, match="has no earlier revision"):
        plan(cluster, "Rollback", {"deployment": "api"})


@pytest.mark.parametrize(("amounts", "after"), [
    ({"limits": {"memory": "+25%"}, "max": {"memory": "2Gi"}}, "limits.memory to 1280Mi"),
    ({"limits": {"memory": "+33%"}, "max": {"memory": "2Gi"}}, "limits.memory to 1362Mi"),
    ({"limits": {"cpu": "+1%"}, "max": {"cpu": 1}}, "limits.cpu to 505m"),
    ({"limits": {"memory": "1.5Gi", "cpu": 1}}, "limits.memory to 1536Mi, limits.cpu to 1"),
])
def test_resources_grow_by_whole_steps(amounts, after):
    """Written as the API server writes them, so that what was done is recognised."""
    assert plan(world(), "PatchResources", {"deployment": "api", **amounts}).text == f"Set {after} of container api of " \
        "deployment/shop/api."


@pytest.mark.parametrize(("source", "to", "percent", "weights"), [
    ("canary", "stable", 100, [1, 0]), ("stable", "canary", 50, [9, 11]), ("stable", "canary", 33, [603, 397]),
    ("stable", "canary", 100, [0, 1])])
def test_traffic_is_shifted_without_rounding(source, to, percent, weights):
    """Of nine to one."""
    [change] = plan(world(), "ShiftTraffic", {"httproute": "web", "from": source, "to": to, "percent": percent}).changes
    assert [b["weight"] for b in change.edits[0].after[0]["backendRefs"]] == weights


# ------------------------------------------------------------------------------------------------------------ jobs
JOB = {"job": "rebuild", "image": "runbooks/index:1.4", "env": {"TARGET": "api"}, "timeout": "2m"}


def test_a_runbook_runs_confined():
    """No token, no root, no second try, an end, and the action's id wherever somebody may look for it."""
    [change] = plan(world(), "RunJob", JOB).changes
    spec, pod = change.body["spec"], change.body["spec"]["template"]["spec"]
    assert change.entity == "job/shop/aiops-a-1"
    assert (spec["backoffLimit"], spec["activeDeadlineSeconds"], spec["ttlSecondsAfterFinished"]) == (0, 120, 3600)
    assert (pod["automountServiceAccountToken"], pod["restartPolicy"], pod["securityContext"]["runAsNonRoot"]) == (
        False, "Never", True)
    assert {"name": "TARGET", "value": "api"} in pod["containers"][0]["env"]
    assert pod["containers"][0]["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    marks = [change.body["metadata"]["labels"], change.body["metadata"]["annotations"], spec["template"]["metadata"]["labels"]]
    assert {m["aiops.io/action"] for m in marks} == {"a-1"}


def test_the_job_of_a_cronjob_is_run_with_our_bounds():
    """Its own template otherwise."""
    spec = plan(world(), "RunJob", {"cronjob": "nightly"}).changes[0].body["spec"]
    assert spec["template"]["spec"]["containers"] == [{"name": "job", "image": "job:1"}]
    assert (spec["backoffLimit"], spec["suspend"]) == (0, False)


def test_a_runbook_is_waited_for_and_its_end_is_the_outcome():
    """Running: later. Failed: failed, with its reason, and left to be looked at."""
    cluster = world()
    executor, run = Executor(cluster, Notes()), action("RunJob", JOB)
    with pytest.raises(Retry, match="has not ended yet"):
        executor.carry_out(run, NOW)
    cluster.objects["job/shop/aiops-a-1"]["status"] = {}
    with pytest.raises(Retry, match="has not ended yet"):
        executor.carry_out(run, NOW)
    why = {"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "message": "Job was active\nlonger than specified."}
    cluster.objects["job/shop/aiops-a-1"]["status"] = {"conditions": [why]}
    outcome = executor.carry_out(run, NOW)
    assert outcome.status == "failed"
    assert outcome.reason == ("job/shop/aiops-a-1 failed: DeadlineExceeded Job was active longer than specified. "
                              "Its log says more.")
    assert [c.verb for c in cluster.calls] == ["create"]


def test_a_runbook_that_somebody_deleted_is_not_run_again():
    """It ran once; how far it came nobody knows."""
    cluster = world()
    executor, run = Executor(cluster, Notes()), action("RunJob", JOB)
    with pytest.raises(Retry):
        executor.carry_out(run, NOW)
    del cluster.objects["job/shop/aiops-a-1"]
    outcome = executor.carry_out(run, NOW)
    assert outcome.status == "refused" and "somebody deleted it" in outcome.reason
    assert sum(c.verb == "create" for c in cluster.calls) == 1


def test_a_job_of_that_name_that_is_not_ours_is_left_alone():
    """Neither waited for nor deleted."""
    cluster = world()
    cluster.put({"kind": "Job", "metadata": {"name": "aiops-a-1", "namespace": "shop"}, "spec": {}})
    assert done(cluster, "RunJob", JOB).status == "refused"
    assert cluster.calls == []


def test_failed_is_not_put_back(monkeypatch):
    """Whatever action says so: what it made stays."""
    cluster, notes = world(), Notes()
    executor, run = Executor(cluster, notes), action("RunJob", JOB)
    with pytest.raises(Retry):
        executor.carry_out(run, NOW)
    monkeypatch.setattr(plugins.load_type("remediations", "RunJob"), "plan", lambda *_: (_ for _ in ()).throw(Failed("no.")))
    assert executor.carry_out(run, NOW).status == "failed"
    assert "job/shop/aiops-a-1" in cluster.objects


@pytest.mark.parametrize("decision", ["shadow", "ask", "act"])
def test_a_notice_is_told_wherever_decisions_are(decision):
    """Also where it was only rehearsed: the message is part of the decision."""
    told = replace(action("Notify", {"message": "rows are remapped", "to": "hardware"}), decision=decision)
    assert story.decision(serial.action(told)).endswith("Notify person shop/hardware: rows are remapped")
