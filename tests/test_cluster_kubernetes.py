"""The Kubernetes adapter against a fake API server: what is sent, and what each kind of failure becomes."""

from __future__ import annotations

import re
import socket

import pytest
from fakes.kube_api import KubeApi, status

from aiops.clock import ManualClock
from aiops.cluster.kubernetes import KubernetesCluster, api
from aiops.interfaces import Ambiguous, Refused, Retry

API = "deployment/shop/api"


@pytest.fixture
def server(httpserver):
    fake = KubeApi()
    fake.workload("deployments", "shop", "api", 3)
    fake.add_pod("shop", "api-0", {"app": "api"})
    httpserver.expect_request(re.compile(".*")).respond_with_handler(fake)
    yield fake
    fake.released.set()


@pytest.fixture
def cluster(server, httpserver):
    return connected(httpserver.url_for(""))


def connected(url, timeout_s=(2.0, 5.0)):
    from kubernetes import client

    settings = client.Configuration()
    settings.host = url
    settings.api_key = {"BearerToken": "secret"}
    settings.api_key_prefix = {"BearerToken": "Bearer"}
    return KubernetesCluster(api(settings, timeout_s), ManualClock(1_790_000_000.0))


def test_scaling_is_tried_dry_first_on_the_version_that_was_read(server, cluster):
    """A merge patch of `/scale` by field manager aiops, with the resource version as precondition."""
    version = server.workloads["deployments", "shop", "api"]["metadata"]["resourceVersion"]
    assert cluster.scale(API, 3, 5, "a-1") == {"before": 3, "after": 5}
    path = "/apis/apps/v1/namespaces/shop/deployments/api/scale"
    body = {"metadata": {"resourceVersion": version}, "spec": {"replicas": 5}}
    dry, wet = [r for r in server.requests if r[0] == "PATCH"]
    assert dry[:3] == ("PATCH", path, {"fieldManager": "aiops", "dryRun": "All"})
    assert wet[:3] == ("PATCH", path, {"fieldManager": "aiops"})
    assert dry[4] == wet[4] == "application/merge-patch+json"
    assert server.writes[0][3]["spec"] == body["spec"]
    assert cluster.replicas(API) == 5


def test_somebody_elses_change_is_never_overwritten(server, cluster):
    """Changed before we looked, or between look and patch: Retry, and nothing was written."""
    with pytest.raises(Retry, match="has 3 replicas now, not 2"):
        cluster.scale(API, 2, 4, "a-1")
    server.fault = lambda method, path, trial: (
        server.workload("deployments", "shop", "api", 9) if method == "PATCH" else None)
    with pytest.raises(Retry, match="409: the object has been modified"):
        cluster.scale(API, 3, 5, "a-2")
    assert server.writes == []


def test_a_rollout_restart_is_an_annotation_as_kubectl_writes_it(server, cluster):
    """And a second call, even by another process, sees whose work it was."""
    cluster.restart(API, "a-1")
    notes = server.workloads["deployments", "shop", "api"]["spec"]["template"]["metadata"]["annotations"]
    assert notes == {"kubectl.kubernetes.io/restartedAt": "2026-09-21T14:13:20Z", "aiops.io/last-action": "a-1"}
    other = KubernetesCluster(cluster._api, ManualClock(1_790_000_999.0))
    other.restart(API, "a-1")
    assert len(server.writes) == 1


def test_eviction_names_the_pod_it_means(server, cluster):
    """With the uid as precondition, dry first: a new pod of the same name is never evicted for the old one."""
    [pod] = cluster.pods("shop", "app=api")
    cluster.evict(pod.entity, "a-1/x")
    dry, wet = [r[3] for r in server.requests if r[0] == "POST"]
    assert wet == {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "api-0", "namespace": "shop"},
                   "deleteOptions": {"preconditions": {"uid": "uid-api-0"}}}
    assert dry["deleteOptions"] == {"preconditions": {"uid": "uid-api-0"}, "dryRun": ["All"]}
    server.add_pod("shop", "api-0", {"app": "api"}, uid="another")
    cluster.evict(pod.entity, "a-2/x")
    assert [w[0] for w in server.writes] == ["evict"]


def test_a_disruption_budget_is_obeyed(server, cluster):
    """429 from the eviction API is Retry, after as long as the server says."""
    server.protected.add("api-0")
    with pytest.raises(Retry, match="disruption budget") as caught:
        cluster.evict("pod/shop/api-0", "a-1/x")
    assert caught.value.after_s == 7.0


def test_all_pages_of_pods_are_read(server, cluster):
    """Finished pods and paused ones are left out; orphans are known as such."""
    for i in range(1, 5):
        server.add_pod("shop", f"api-{i}", {"app": "api"}, ready=i != 1, owner=None if i == 2 else "ReplicaSet")
    server.add_pod("shop", "api-8", {"app": "api"}, annotations={"aiops.io/paused": "true"})
    server.add_pod("shop", "api-9", {"app": "api"})
    server.pods["shop", "api-9"]["status"]["phase"] = "Succeeded"
    server.add_pod("shop", "api-5", {"app": "api"}, owner="Node", deletionTimestamp="2026-01-01T00:00:00Z")
    pods = cluster.pods("shop", "app=api")
    assert [(p.entity[-1], p.ready, p.owned, p.leaving) for p in pods] == [
        ("0", True, True, False), ("1", False, True, False), ("2", True, False, False), ("3", True, True, False),
        ("4", True, True, False), ("5", True, False, True)]
    assert pods[0].started_at == 1767225600.0


def test_what_is_paused_is_not_touched(server, cluster):
    """The opt-out annotation is honoured everywhere."""
    server.workload("deployments", "shop", "api", 3, **{"aiops.io/paused": "true"})
    server.add_pod("shop", "api-0", {"app": "api"}, annotations={"aiops.io/paused": "true"})
    for call in (lambda: cluster.replicas(API), lambda: cluster.restart(API, "k"), lambda: cluster.scale(API, 3, 4, "k"),
                 lambda: cluster.pod("pod/shop/api-0")):
        with pytest.raises(Refused, match=r"is annotated aiops\.io/paused"):
            call()
    assert server.writes == []


def test_an_autoscaler_is_found_by_what_it_scales(server, cluster):
    """Kind and name must both fit."""
    server.hpas = [{"metadata": {"name": "h"}, "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "api"}}}]
    assert cluster.autoscaler(API) == "horizontalpodautoscaler/shop/h"
    assert cluster.autoscaler("statefulset/shop/api") is None


def test_a_missing_right_is_refused_with_its_name(server, cluster):
    """The server's words, and where to look."""
    server.forbidden.add(("apps", "deployments/scale", "patch"))
    with pytest.raises(Refused, match=r"403: .* cannot patch resource .*Grant the right, see `aiops doctor`"):
        cluster.scale(API, 3, 5, "a-1")
    assert not cluster.may("apps", "deployments/scale", "patch", "shop")
    assert cluster.may("apps", "deployments", "get", "shop")


@pytest.mark.parametrize(("code", "trial", "verdict"), [
    (400, False, Refused), (422, False, Refused), (404, False, Refused), (409, False, Retry), (429, False, Retry),
    (503, False, Retry), (500, False, Ambiguous), (504, False, Ambiguous), (500, True, Retry), (504, True, Retry),
])
def test_every_status_has_one_meaning(server, cluster, code, trial, verdict):
    """A server error leaves a write in doubt, but not a dry run."""
    server.fault = lambda method, path, dry: status(code, "no") if method == "PATCH" and dry == trial else None
    with pytest.raises(verdict):
        cluster.scale(API, 3, 5, "a-1")


def test_a_write_without_an_answer_is_ambiguous(server, httpserver):
    """Sent, and then silence: it may have been done. The same silence on a read is harmless."""
    impatient = connected(httpserver.url_for(""), (2.0, 0.2))
    def silent(method, path, trial):
        if method == "PATCH" and not trial:
            server.released.wait(5)

    server.fault = silent
    with pytest.raises(Ambiguous, match="no answer to PATCH"):
        impatient.scale(API, 3, 5, "a-1")


def test_a_read_without_an_answer_may_be_repeated(server, httpserver):
    """Reads change nothing."""
    impatient = connected(httpserver.url_for(""), (2.0, 0.2))
    server.fault = lambda method, path, trial: server.released.wait(5) and None
    with pytest.raises(Retry):
        impatient.replicas(API)


def test_a_server_that_is_not_there_is_retried():
    """A refused connection changed nothing, not even for a write."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    with pytest.raises(Retry):
        connected(f"http://127.0.0.1:{port}")._api.post("/x", {})


def test_the_token_is_sent(server, cluster, httpserver):
    """Credentials come from the client's configuration."""
    cluster.replicas(API)
    assert httpserver.log[0][0].headers["Authorization"] == "Bearer secret"


@pytest.mark.parametrize("target", ["deployment/api", "deployment/shop/a/b", "cronjob/shop/api", "deployment//api"])
def test_targets_that_are_no_workload_are_refused(cluster, server, target):
    """Nothing is sent for them."""
    with pytest.raises(Refused):
        cluster.replicas(target)
    assert server.requests == []
