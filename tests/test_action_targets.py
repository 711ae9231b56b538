"""What a policy may write as a target of each action, and what it is told where it may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiops.meaning import shipped
from aiops.policy.load import load
from aiops.yamlfile import Problems

BAD = {
    "ScaleDown, up": ("ScaleDown", {"deployment": "api", "replicas": "+1"}, "'+1' is no way to scale down"),
    "ScaleDown, to nothing": ("ScaleDown", {"deployment": "api", "replicas": 0}, "ScaleToZero goes to 0"),
    "Evict, many of one": ("Evict", {"pod": "api-0", "count": 2}, "count is for selectors"),
    "Rollback, within": ("Rollback", {"deployment": "api", "within": 5}, "It has no unit."),
    "Drain, node": ("Drain", {"node": "shop/gpu-1"}, "Nodes have no namespace."),
    "Drain, key": ("Drain", {"node": "gpu-1", "deleteEmptyDir": True}, "Did you mean 'deleteEmptyDirData'?"),
    "Taint, effect": ("Taint", {"node": "gpu-1", "key": "x", "effect": "NoExecute"}, "disruption budgets. Use Drain"),
    "Taint, key": ("Taint", {"node": "gpu-1", "key": "node.kubernetes.io/unreachable"}, "belongs to Kubernetes itself"),
    "Resources, none": ("PatchResources", {"deployment": "api"}, "neither requests nor limits"),
    "Resources, endless": ("PatchResources", {"deployment": "api", "limits": {"memory": "+25%"}}, "Add max: {memory: …}."),
    "Resources, beyond": ("PatchResources", {"deployment": "api", "limits": {"cpu": 3}, "max": {"cpu": 2}},
                          "3 is more than max, 2"),
    "Resources, less": ("PatchResources", {"deployment": "api", "limits": {"cpu": "-3%"}}, "'-3%' is no way to change it"),
    "Resources, unit": ("PatchResources", {"deployment": "api", "limits": {"memory": "2GB"}}, "'2GB' is not a quantity"),
    "Resources, kind": ("PatchResources", {"deployment": "api", "limits": {"nvidia.com/gpu": 2}}, "should be 'cpu', 'memory'"),
    "SetHPA, none": ("SetHPA", {"hpa": "web"}, "Give one or both."),
    "SetHPA, zero": ("SetHPA", {"hpa": "web", "minReplicas": 0}, "0 is no number of replicas"),
    "Evict, everything": ("Evict", {"pod": "selector:app!=web,tier!=db"}, "selects whatever is not that, of every service"),
    "Restart, nothing": ("Restart", {"pod": "selector:"}, "is not a selector. Write selector:key=value"),
    "Suspend, two": ("Suspend", {"job": "a", "cronjob": "b"}, "exactly one of job, cronjob"),
    "RunJob, latest": ("RunJob", {"job": "x", "image": "runbook:latest"}, "may be another program tomorrow"),
    "RunJob, no version": ("RunJob", {"job": "x", "image": "runbook"}, "is no image with a version"),
    "RunJob, from telemetry": ("RunJob", {"job": "x", "image": "${cause.name}"}, "is no image with a version"),
    "RunJob, none": ("RunJob", {"job": "x"}, "image is missing"),
    "RunJob, both": ("RunJob", {"cronjob": "x", "args": ["a"]}, "a cronjob brings its own image"),
    "RunJob, env": ("RunJob", {"job": "x", "image": "r:1", "env": {"A B": "c"}}, "'A B' is no name"),
    "RunJob, deep": ("RunJob", {"job": "x", "image": "r:1", "args": ["${cause.nam}"]}, "Did you mean '${cause.name}'?"),
    "RunJob, long": ("RunJob", {"job": "x", "image": "r:1", "timeout": "1h"}, "1h is not between 10s and 9m."),
    "ShiftTraffic, one": ("ShiftTraffic", {"httproute": "w", "from": "a", "to": "a", "percent": 5}, "Name two backends"),
    "Webhook, address": ("Webhook", {"webhook": "https://x.example"}, "'https://x.example' is no name"),
    "Webhook, big": ("Webhook", {"webhook": "x", "data": {"a": "b" * 1001}}, "at most 1000 are taken"),
    "Notify, lines": ("Notify", {"message": "a\nb"}, "Write it on one line."),
    "Notify, silent": ("Notify", {"message": ""}, "at least 1 character"),
}
POLICY = """apiVersion: aiops.io/v1
kind: RemediationPolicy
metadata: {{name: x}}
spec:
  trigger: {{type: Incident}}
  actions:
    - type: {kind}
      target: {target}
"""


def checked(folder: Path, kind: str, target: object):
    from ruamel.yaml import YAML
    path = folder / "x.yaml"
    document = YAML(typ="safe", pure=True).load(POLICY.format(kind=kind, target="{}"))
    document["spec"]["actions"][0]["target"] = target
    with path.open("w") as out:
        YAML().dump(document, out)
    return load([path], shipped())


@pytest.mark.parametrize("case", BAD)
def test_a_bad_target_is_refused_when_the_policy_is_checked(case, tmp_path):
    """Before anything can happen: with the place, the value and the remedy, in one sentence or two."""
    kind, target, words = BAD[case]
    with pytest.raises(Problems) as caught:
        checked(tmp_path, kind, target)
    [problem] = caught.value.problems
    assert words in str(problem)
    assert "$.spec.actions[0].target" in str(problem) and str(problem).endswith((".", "?"))


def test_names_of_the_incident_are_filled_in_deep_down(tmp_path):
    """In values of maps and items of lists; what is no Kubernetes name does not get through."""
    target = {"job": "fix", "image": "r:1", "args": ["--on=${cause.name}"], "env": {"INCIDENT": "${incident.id}"}}
    [policy] = checked(tmp_path, "RunJob", target)
    entity, params = policy.steps[0].aim({"cause.name": "gpu-1", "incident.id": "i-7"}, "shop")
    assert (entity, params["args"], params["env"]) == ("job/shop/fix", ["--on=gpu-1"], {"INCIDENT": "i-7"})
    with pytest.raises(ValueError, match="not a Kubernetes name"):
        policy.steps[0].aim({"cause.name": "x; rm -rf /", "incident.id": "i-7"}, "shop")
