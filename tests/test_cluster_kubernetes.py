"""The Kubernetes adapter against a fake API server: what is sent, and what each kind of failure becomes."""

from __future__ import annotations

import re
import socket

import pytest
from fakes.kube_api import KubeApi, status
from werkzeug import Response

from aiops.changes import Changed, create, delete, evict, patch
from aiops.cluster import kubernetes as module
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
    return KubernetesCluster(api(settings, timeout_s))


def scaled(cluster, after=5):
    return patch(API, cluster.get(API), {("spec", "replicas"): after}, "scale")


def test_a_patch_is_sent_with_the_version_that_was_read(server, cluster):
    """A merge patch of `/scale` by field manager aiops, with the resource version as precondition; dry run on demand."""
    version = server.get("deployments", "shop", "api")["metadata"]["resourceVersion"]
    change = scaled(cluster)
    cluster.try_out(change)
    assert server.writes == []
    assert cluster.write(change)["spec"]["replicas"] == 5
    path = "/apis/apps/v1/namespaces/shop/deployments/api/scale"
    dry, wet = [r for r in server.requests if r[0] == "PATCH"]
    assert dry[:3] == ("PATCH", path, {"fieldManager": "aiops", "dryRun": "All"})
    assert wet[:3] == ("PATCH", path, {"fieldManager": "aiops"})
    assert dry[4] == wet[4] == "application/merge-patch+json"
    assert server.writes == [("patch", "deployments/scale", "api", {"spec": {"replicas": 5}})]
    assert version not in (None, server.get("deployments", "shop", "api")["metadata"]["resourceVersion"])


def test_somebody_elses_change_is_never_overwritten(server, cluster):
    """Changed since it was planned: nothing is written. Changed in another field: it is made anew on the new version."""
    change = scaled(cluster)
    server.workload("deployments", "shop", "api", 4)
    with pytest.raises(Changed, match=r"spec\.replicas: 3 -> 4, changed by somebody else"):
        cluster.write(change)
    change, raced = scaled(cluster, 6), []

    def race(method, path, trial):
        if method == "PATCH" and not raced:
            raced.append(path)
            server.put("deployments", server.get("deployments", "shop", "api"))

    server.fault = race
    cluster.write(change)
    assert [w[3] for w in server.writes] == [{"spec": {"replicas": 6}}]


def test_what_others_change_all_the_time_waits(server, cluster):
    """Five tries, then Retry."""
    change = scaled(cluster)
    server.fault = lambda method, path, trial: status(409, "modified") if method == "PATCH" else None
    with pytest.raises(Retry, match="is changed by others all the time"):
        cluster.write(change)


def test_eviction_names_the_pod_it_means(server, cluster):
    """With the uid as precondition: a new pod of the same name is never evicted for the old one."""
    change = evict(cluster.get("pod/shop/api-0"))
    cluster.try_out(change)
    cluster.write(change)
    dry, wet = [r[3] for r in server.requests if r[0] == "POST"]
    assert wet == {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "api-0", "namespace": "shop"},
                   "deleteOptions": {"preconditions": {"uid": "uid-api-0"}}}
    assert dry["deleteOptions"] == {"preconditions": {"uid": "uid-api-0"}, "dryRun": ["All"]}
    server.add_pod("shop", "api-0", {"app": "api"}, uid="another")
    cluster.write(change)
    assert [w[0] for w in server.writes] == ["evict"]


def test_a_disruption_budget_is_obeyed(server, cluster):
    """429 from the eviction API is Retry, after as long as the server says."""
    server.protected.add("api-0")
    with pytest.raises(Retry, match="disruption budget") as caught:
        cluster.try_out(evict(cluster.get("pod/shop/api-0")))
    assert caught.value.after_s == 7.0


def test_what_is_created_is_created_once(server, cluster):
    """A second time it is found; what somebody else made under that name is not ours."""
    mine = create("job/shop/fix", {"metadata": {"name": "fix", "annotations": {"aiops.io/last-action": "a-1"}}})
    assert cluster.write(mine)["metadata"]["uid"] == cluster.write(mine)["metadata"]["uid"]
    with pytest.raises(Refused, match="made by somebody else"):
        cluster.write(create("job/shop/fix", {"metadata": {"name": "fix", "annotations": {"aiops.io/last-action": "a-2"}}}))
    cluster.write(delete("job/shop/fix", "another"))
    assert cluster.get("job/shop/fix") is not None
    cluster.write(delete("job/shop/fix", "uid-fix"))
    cluster.write(delete("job/shop/fix", "uid-fix"))
    assert [w[0] for w in server.writes] == ["create", "delete"]


def test_all_pages_are_read(server, cluster):
    """However many there are, by labels, fields and namespace."""
    for i in range(1, 6):
        server.add_pod("shop", f"api-{i}", {"app": "api"})
    server.add_pod("other", "api-7", {"app": "api"})
    assert len(cluster.find("pod", "shop", "app=api")) == 6
    assert len(cluster.find("pod", "", "app=api")) == 7
    assert cluster.find("pod", "shop", "app=api", "status.phase=Failed") == []


def test_a_list_that_expires_is_begun_anew_and_one_that_never_ends_is_given_up(server, cluster, monkeypatch):
    """Half a list is none."""
    for i in range(1, 6):
        server.add_pod("shop", f"api-{i}", {"app": "api"})
    answers = [None, status(410, "The provided continue parameter is too old", "Expired")]
    server.fault = lambda method, path, trial: answers.pop(0) if answers else None
    with pytest.raises(Retry, match="410: The provided continue parameter is too old"):
        cluster.find("pod", "shop")
    assert len(cluster.find("pod", "shop")) == 6
    monkeypatch.setattr(module, "PAGES", 5)
    page = {"items": [], "metadata": {"continue": "for ever"}}
    server.fault = lambda method, path, trial: server.json(page)
    with pytest.raises(Retry, match="a list that never ends"):
        cluster.find("pod", "shop")


def test_a_missing_right_is_refused_with_its_name(server, cluster):
    """The server's words, and where to look."""
    server.forbidden.add(("apps", "deployments/scale", "patch"))
    with pytest.raises(Refused, match=r"403: .* cannot patch resource .*Grant the right, see `aiops doctor`"):
        cluster.write(scaled(cluster))
    assert not cluster.may("apps", "deployments/scale", "patch", "shop")
    assert cluster.may("apps", "deployments", "get", "shop")


@pytest.mark.parametrize(("code", "trial", "verdict"), [
    (400, False, Refused), (422, False, Refused), (404, False, Refused), (409, False, Retry), (429, False, Retry),
    (503, False, Retry), (500, False, Ambiguous), (504, False, Ambiguous), (500, True, Retry), (504, True, Retry),
    (404, True, Refused),
])
def test_every_status_has_one_meaning(server, cluster, code, trial, verdict):
    """A server error leaves a write in doubt, but not a dry run."""
    server.fault = lambda method, path, dry: status(code, "no") if method == "PATCH" and dry == trial else None
    with pytest.raises(verdict):
        (cluster.try_out if trial else cluster.write)(scaled(cluster))


@pytest.mark.parametrize(("code", "trial", "verdict"), [
    (503, False, Ambiguous), (502, False, Ambiguous), (200, False, Ambiguous), (404, False, Refused), (429, False, Retry),
    (503, True, Retry), (200, True, Retry), (404, True, Refused)])
def test_what_a_gateway_says_is_not_what_the_api_server_says(server, cluster, code, trial, verdict):
    """A page instead of an object: of a write nobody knows whether it got further."""
    change = scaled(cluster)
    server.fault = lambda method, path, dry: Response("<html>", code) if method == "PATCH" and dry == trial else None
    with pytest.raises(verdict):
        (cluster.try_out if trial else cluster.write)(change)


@pytest.mark.parametrize("text", ["", "<html>", '{"kind": "Deploy', "null", "[]", "[" * 100_000, '{"kind": "Status"}'], ids=repr)
def test_an_answer_that_says_nothing_is_no_object_that_is_not_there(server, cluster, text):
    """Nor an empty list: reading is tried again."""
    server.fault = lambda method, path, trial: Response(text, 200, content_type="application/json")
    for read in (lambda: cluster.get(API), lambda: cluster.find("pod", "shop")):
        with pytest.raises(Retry):
            read()


def test_a_404_that_is_not_of_the_api_server_is_no_proof_that_something_is_gone(server, cluster):
    """Neither for reading, nor for what was to go."""
    gone = evict(cluster.get("pod/shop/api-0"))
    server.fault = lambda method, path, trial: Response("default backend - 404", 404)
    for ask in (lambda: cluster.get(API), lambda: cluster.write(gone)):
        with pytest.raises(Refused, match="not of the API server, or it does not know this kind"):
            ask()


def test_a_conflict_about_a_pod_that_is_still_there_is_no_eviction(server, cluster):
    """The eviction API knows others than that of the uid."""
    change = evict(cluster.get("pod/shop/api-0"))
    server.fault = lambda method, path, trial: status(409, "conflict") if method == "POST" else None
    with pytest.raises(Retry, match="conflict"):
        cluster.write(change)


def test_errors_of_tls_and_of_credentials(cluster, monkeypatch):
    """TLS that breaks off in a write leaves it in doubt; without credentials nothing was sent."""
    from kubernetes.client import ApiException

    change, client = scaled(cluster), cluster._api._client

    def broken(*args, **more):
        raise ApiException(status=0, reason="SSLEOFError: EOF occurred in violation of protocol")
    monkeypatch.setattr(client, "call_api", broken)
    with pytest.raises(Retry):
        cluster.get(API)
    with pytest.raises(Ambiguous):
        cluster._api.patch("/apis/apps/v1/namespaces/shop/deployments/api/scale", {}, trial=False)

    def rotated(*args, **more):
        raise OSError("token: no such file")
    monkeypatch.setattr(client, "param_serialize", rotated)
    with pytest.raises(Retry, match="no credentials: OSError: token: no such file"):
        cluster.write(change)


def test_a_write_without_an_answer_is_ambiguous(server, httpserver):
    """Sent, and then silence: it may have been done. The same silence on a read is harmless."""
    impatient = connected(httpserver.url_for(""), (2.0, 0.2))
    def silent(method, path, trial):
        if method == "PATCH" and not trial:
            server.released.wait(5)

    server.fault = silent
    with pytest.raises(Ambiguous, match="no answer to PATCH"):
        impatient.write(scaled(impatient))


def test_a_read_without_an_answer_may_be_repeated(server, httpserver):
    """Reads change nothing."""
    impatient = connected(httpserver.url_for(""), (2.0, 0.2))
    server.fault = lambda method, path, trial: server.released.wait(5) and None
    with pytest.raises(Retry):
        impatient.get(API)


def test_a_server_that_is_not_there_is_retried():
    """A refused connection changed nothing, not even for a write."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    with pytest.raises(Retry):
        connected(f"http://127.0.0.1:{port}")._api.post("/x", {})


def test_the_token_is_sent(server, cluster, httpserver):
    """Credentials come from the client's configuration."""
    cluster.get(API)
    assert httpserver.log[0][0].headers["Authorization"] == "Bearer secret"


@pytest.mark.parametrize("target", ["deployment/api", "deployment/shop/a/b", "unicorn/shop/api", "deployment//api"])
def test_targets_that_are_no_workload_are_refused(cluster, server, target):
    """Nothing is sent for them."""
    with pytest.raises(Refused):
        cluster.get(target)
    assert server.requests == []
