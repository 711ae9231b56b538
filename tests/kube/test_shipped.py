"""What deploy/ ships, on a real API server: each manifest is taken, the rights suffice, and two replicas roll one by one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kube.apiclient import APPLY, ApiError, Json, path_of
from kube.controlplane import Control, until
from kube.lab import Account, Cluster
from kube.test_handover import API, Stage
from kube.world import World
from ruamel.yaml import YAML

from aiops import doctor
from aiops.inputs import Kubernetes

DEPLOY = Path(__file__).parents[2] / "deploy"
MORE = {"NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies"}
STRICT = "fieldManager=kubectl&force=true&fieldValidation=Strict"
SELECTOR = "app.kubernetes.io/name=aiops"


def manifests(*kinds: str) -> list[Json]:
    """All of deploy/, or those of some kinds; as plain JSON."""
    files = sorted(p for p in DEPLOY.rglob("*.yaml") if p.name != "kustomization.yaml")
    found = [d for p in files for d in YAML(typ="safe", pure=True).load_all(p.read_text(encoding="utf-8")) if d]
    return [json.loads(json.dumps(d)) for d in found if not kinds or d["kind"] in kinds]


def place(one: Json, namespace: str | None = None) -> str:
    """Its path; in another namespace than its own where one is named."""
    kind, meta = one["kind"], one["metadata"]
    where = namespace or meta.get("namespace")
    plural = {"NetworkPolicy": "networkpolicies"}.get(kind, kind.lower() + "s")
    root = MORE[kind].format(where) if kind in MORE else path_of(plural, where)
    return f"{root}/{meta['name']}"


def apply(control: Control, one: Json, dry: bool = False, namespace: str | None = None) -> Json:
    """Server-side, as `kubectl apply --server-side` does. A dry run goes through admission and validation."""
    body = {**one, "metadata": {**one["metadata"], "namespace": namespace}} if namespace else one
    return control.admin.patch(f"{place(one, namespace)}?{STRICT}{'&dryRun=All' if dry else ''}", body, APPLY)


@pytest.fixture(scope="module")
def home(quiet: Control) -> Control:
    """A control plane with the namespace as it is shipped."""
    for one in manifests("Namespace"):
        apply(quiet, one)
    return quiet


@pytest.mark.parametrize("one", manifests(), ids=lambda d: f"{d['kind']}-{d['metadata']['name']}")
def test_the_api_server_takes_each_manifest(home: Control, one: Json) -> None:
    """Strictly: a field that it does not know is an error."""
    made = apply(home, one, dry=True)
    assert (made["kind"], made["metadata"]["name"]) == (one["kind"], one["metadata"]["name"])


def test_the_dry_run_would_notice_a_misspelt_field(home: Control) -> None:
    """Else the test above could not fail."""
    [one] = manifests("StatefulSet")
    one["spec"]["minReadySecond"] = 1
    with pytest.raises(ApiError, match="minReadySecond"):
        apply(home, one, dry=True)


def test_its_pod_is_let_into_a_restricted_namespace(home: Control) -> None:
    """By the admission of the API server; the same pod as root is not."""
    [one] = manifests("StatefulSet")
    spec = {**one["spec"]["template"]["spec"], "serviceAccountName": "default"}
    spec["volumes"] = [*spec["volumes"], {"name": "store", "emptyDir": {}}]
    until(lambda: home.admin.find("serviceaccounts", "aiops", "default") or home.admin.create(
        "serviceaccounts", {"metadata": {"name": "default"}}, "aiops"), what="an account")
    body: dict[str, Any] = {"metadata": {"name": "aiops-0"}, "spec": spec}
    assert home.admin.create("pods", body, "aiops", dryRun="All")["spec"]["enableServiceLinks"] is False
    spec["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    with pytest.raises(ApiError, match="violates PodSecurity"):
        home.admin.create("pods", body, "aiops", dryRun="All")


# ------------------------------------------------------------------------------------------------------------ the rights
@pytest.fixture
def account(home: Control) -> Account:
    """The ServiceAccount as shipped, which may lead, and scale up in the namespace `shop`: as deploy/README.md says."""
    for one in manifests("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"):
        apply(home, one)
    [daemon] = manifests("ClusterRoleBinding")[0]["subjects"]
    bound = {"metadata": {"name": "aiops-scale-up"}, "subjects": [daemon],
             "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "aiops-scale-up"}}
    if not home.admin.find("rolebindings", "shop", "aiops-scale-up"):
        home.admin.create("rolebindings", bound, "shop")
    token = home.admin.create(path_of("serviceaccounts", "aiops", "aiops", "token"), {"spec": {"expirationSeconds": 7200}})
    text = token["status"]["token"]
    kubeconfig, client = home.kubeconfig("shipped", text), home.client(text, "shipped/1")
    return Account(home, "system:serviceaccount:aiops:aiops", text, kubeconfig, client)


@pytest.fixture
def stage(home: Control, world: World, tmp_path: Path) -> Iterator[Stage]:
    world.reset()
    home.admin.patch(path_of("deployments", "shop", "api"), {"metadata": {"managedFields": [{}]}})
    made = Stage(home, tmp_path)
    yield made
    for one in made.made:
        one.process.kill()
        one.process.wait()


def test_the_shipped_rights_suffice_and_reach_no_further(stage: Stage, account: Account) -> None:
    """It leads, writes the ledger, and does in `shop` what was allowed there; elsewhere, and another action, it may not."""
    told = {f.what: f.state for f in doctor.kubernetes(Kubernetes(kubeconfig=account.kubeconfig), True, lease="aiops/aiops")}
    assert (told["rights: leader"], told["rights: read"]) == ("ok", "ok"), told
    daemon = stage.start("first", account)
    until(daemon.leads, 30.0, "it leads")
    stage.fires(API)
    until(lambda: stage.replicas() == 4, 30.0, lambda: daemon.log.read_text())
    assert [w.what for w in account.writes() if w.code >= 400 and not w.dry_run] == []
    for path, status in ((f"{path_of('deployments', 'shop', 'api')}", 403), (path_of("deployments", "aiops", "x", "scale"), 403)):
        with pytest.raises(ApiError) as e:
            account.client.patch(path, {"spec": {"replicas": 0}})
        assert e.value.status == status


# -------------------------------------------------------------------------------------------------------- two replicas
def volume(cluster: Cluster, number: int) -> None:
    cluster.control.admin.create("/api/v1/persistentvolumes", {"metadata": {"name": f"aiops-{number}"}, "spec": {
        "capacity": {"storage": "10Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": f"/tmp/{number}"}}})


def test_two_replicas_are_apart_and_go_one_at_a_time(cluster: Cluster, namespace: str) -> None:
    """On two nodes in two zones, each with its volume; a drain takes one, and the other when that is back. So does a rollout."""
    admin, control = cluster.control.admin, cluster.control
    admin.create("serviceaccounts", {"metadata": {"name": "aiops"}}, namespace)
    for number in range(2):
        volume(cluster, number)
    for one in manifests("StatefulSet", "PodDisruptionBudget"):
        one.get("spec", {}).pop("replicas", None)
        apply(control, one, namespace=namespace)
    admin.change("statefulsets", namespace, "aiops", {"spec": {"replicas": 2}})

    def pods() -> list[Json]:
        found = admin.list("pods", namespace, labelSelector=SELECTOR)
        ready = [p for p in found if any(c["type"] == "Ready" and c["status"] == "True"
                                         for c in p["status"].get("conditions", [])) and "deletionTimestamp" not in p["metadata"]]
        return sorted(ready, key=lambda p: str(p["metadata"]["name"]))

    def budget() -> int:
        return int(admin.get("poddisruptionbudgets", namespace, "aiops").get("status", {}).get("disruptionsAllowed", 0))
    until(lambda: len(pods()) == 2 and budget() == 1, 90.0, lambda: json.dumps(admin.list("pods", namespace))[-3000:])
    nodes = [p["spec"]["nodeName"] for p in pods()]
    zones = {admin.get("nodes", None, n)["metadata"]["labels"]["topology.kubernetes.io/zone"] for n in nodes}
    assert len(set(nodes)) == 2 == len(zones)
    volumes = [v for p in pods() for v in p["spec"]["volumes"]]
    claims = [v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v]
    assert claims == ["store-aiops-0", "store-aiops-1"]
    admin.evict(namespace, "aiops-0")
    with pytest.raises(ApiError) as e:
        admin.evict(namespace, "aiops-1")
    assert e.value.status == 429
    until(lambda: len(pods()) == 2 and budget() == 1, 120.0, "back again")
    before = {p["metadata"]["uid"] for p in pods()}
    admin.change("statefulsets", namespace, "aiops", {"spec": {"template": {"metadata": {"annotations": {"rolled": "1"}}}}})
    least = [2]

    def rolled() -> bool:
        now = pods()
        least.append(len(now))
        return len(now) == 2 and not before & {p["metadata"]["uid"] for p in now}
    until(rolled, 180.0, "rolled")
    assert min(least) >= 1
