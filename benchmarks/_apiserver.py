"""An API server for benchmarks, and when it was asked to change something: a real kube-apiserver where KUBEBUILDER_ASSETS names
one, else the double of the tests over loopback."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

SPACE, USER = "shop", "aiops"
Json = dict[str, Any]


@dataclass(frozen=True)
class ApiServer:
    """`written` says, by what the object's name begins with, when the first request came that changes something (Unix s)."""

    what: str
    real: bool
    kubeconfig: Path
    written: Callable[[], dict[str, float]]


def workload(name: str, pods: int = 2) -> list[Json]:
    """A Deployment and its ready pods, NAME-7f-0 and following."""
    own, spec = {"app": name}, {"containers": [{"name": "main", "image": "x:1"}]}
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": f"{name}-7f", "uid": f"uid-{name}", "controller": True}
    made: list[Json] = [{"apiVersion": "v1", "kind": "Pod", "spec": spec, "status": status, "metadata": {
        "name": f"{name}-7f-{k}", "namespace": SPACE, "ownerReferences": [owner],
        "labels": {**own, "pod-template-hash": "7f"}}} for k in range(pods)]
    return [{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": SPACE}, "spec": {
        "replicas": pods, "selector": {"matchLabels": own}, "template": {"metadata": {"labels": own}, "spec": spec}}}, *made]


@contextmanager
def api_server(folder: Path, things: Sequence[Json]) -> Iterator[ApiServer]:
    """Runs one that has these objects in the namespace `shop`; the daemon is the user `aiops` and may do everything."""
    from kube.controlplane import BASE, missing

    with _double(folder, things) if missing(BASE) else _real(folder, things) as server:
        yield server


@contextmanager
def _real(folder: Path, things: Sequence[Json]) -> Iterator[ApiServer]:
    from kube.apiclient import path_of
    from kube.controlplane import Control, until

    from aiops.changes import MANAGER

    with Control(folder, {USER: "aiops-token"}) as control:
        admin = control.admin
        until(lambda: admin.find("namespaces", None, "default"), what="namespaces")
        admin.create("clusterrolebindings", {
            "metadata": {"name": USER}, "subjects": [{"kind": "User", "name": USER}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}})
        for name in (SPACE, USER):
            admin.create("namespaces", {"metadata": {"name": name}})
        for one in things:
            kind, name = f"{one['kind'].lower()}s", one["metadata"]["name"]
            ours = f"{path_of(kind, SPACE)}?fieldManager={MANAGER}"  # what others have just changed is left alone
            control.call("POST", ours, {k: v for k, v in one.items() if k != "status"})
            if kind == "pods":
                control.patch(f"/api/v1/namespaces/{SPACE}/pods/{name}/status", {"status": one["status"]})

        def written() -> dict[str, float]:
            made = [r for r in control.audit.settled(USER) if r.writes and r.namespace == SPACE]
            return {r.name.partition("-")[0]: r.at for r in reversed(made)}
        yield ApiServer("a real kube-apiserver, with a Lease", True, control.kubeconfig(USER, "aiops-token"), written)


@contextmanager
def _double(folder: Path, things: Sequence[Json]) -> Iterator[ApiServer]:
    from fakes import kube_api
    from werkzeug.serving import make_server

    api, times = kube_api.KubeApi(), dict[str, float]()
    kube_api.PAGE = 500
    for one in things:
        api.put(f"{one['kind'].lower()}s", one)

    def came(method: str, path: str, trial: bool) -> None:
        if method != "GET" and not trial and f"/namespaces/{SPACE}/" in path:
            times.setdefault(path.split(f"/namespaces/{SPACE}/")[1].split("/")[1].partition("-")[0], time.time())
    api.fault = came

    def app(environ: Any, start: Any) -> Any:
        from werkzeug import Request
        return api(Request(environ))(environ, start)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "x", "users": [{"name": "x", "user": {"token": "x"}}],
        "clusters": [{"name": "x", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}]}))
    import threading
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield ApiServer("the double of the tests, without a Lease", False, kubeconfig, lambda: times)
    finally:
        server.shutdown()
