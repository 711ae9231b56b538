"""What others keep, or have just changed, is left alone."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from aiops.changes import item, patch
from aiops.cluster.executor import Executor, Notes
from aiops.cluster.ownership import hands_off
from aiops.cluster.simulated import SimulatedCluster
from aiops.types import Action

API = "deployment/shop/api"
NOW = 1_790_000_000.0
REPLICAS = {"f:spec": {"f:replicas": {}}}


def owned(manager, fields, ago_s, **more):
    at = datetime.fromtimestamp(NOW - ago_s, UTC).isoformat().replace("+00:00", "Z")
    return {"manager": manager, "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": fields, "time": at, **more}


def outcome(*entries, key="a-1", state="", cluster=None, **params):
    cluster = cluster or SimulatedCluster({API: 3})
    cluster.objects[API]["metadata"]["managedFields"] = list(entries)
    action = Action(key, "ScaleUp", API, {"replicas": "+2", **params}, "i", "p", "act", "", NOW, state)
    return Executor(cluster, Notes(), [hands_off]).carry_out(action, NOW)


@pytest.mark.parametrize("entry", [
    owned("kubectl-edit", REPLICAS, 240), owned("kubectl", REPLICAS, 240, subresource="scale"),
    owned("another-operator", {"f:spec": {"f:replicas": {}, "f:paused": {}}}, 240)])
def test_what_somebody_just_changed_is_left_alone(entry):
    """By hand, by scaling, or by another operator: they are at work there."""
    refused = outcome(entry)
    assert refused.status == "refused"
    assert refused.reason == f"replicas of {API} was changed by {entry['manager']} 4m ago: hands off."


@pytest.mark.parametrize("entry", [
    owned("kubectl-edit", REPLICAS, 700), owned("aiops", REPLICAS, 10), owned("kubectl-edit", {"f:spec": {"f:paused": {}}}, 10),
    owned("clock-ahead", REPLICAS, -900), {"manager": "odd"}, {"manager": "x", "fieldsV1": REPLICAS, "time": "not a time"}])
def test_all_else_is_ours_to_change(entry):
    """Long ago, by ourselves, another field, or not known when."""
    assert outcome(entry).status == "done"


def test_what_gitops_keeps_is_refused_for_good():
    """It would be put back within minutes."""
    refused = outcome(owned("argocd-controller", REPLICAS, 86400))
    assert "is kept by argocd-controller, which would put it back" in refused.reason


def test_an_item_of_a_list_is_found_by_its_key():
    """As the API server writes it."""
    fields = {"f:spec": {"f:template": {"f:spec": {"f:containers": {'k:{"name":"api"}': {"f:image": {}}}}}}}
    cluster = SimulatedCluster({API: 3})
    cluster.objects[API]["metadata"]["managedFields"] = [owned("ci", fields, 60)]
    path = ("spec", "template", "spec", "containers", item(name="api"), "image")
    action = Action("a-1", "ScaleUp", API, {}, "i", "p", "act", "", NOW)
    with pytest.raises(Exception, match="changed by ci 1m ago"):
        hands_off(action, [patch(API, cluster.get(API), {path: "api:0"})], cluster)
