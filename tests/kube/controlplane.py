"""The real control plane on loopback: etcd and kube-apiserver with RBAC; on demand kube-controller-manager and kube-scheduler.

KUBEBUILDER_ASSETS names the folder with the programs; `make kube-tools` builds them.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from kube.apiclient import MERGE, Client, Json
from kube.audit import POLICY, Audit

ASSETS = os.environ.get("KUBEBUILDER_ASSETS", "")
BASE, ALL = ("etcd", "kube-apiserver"), ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
START_S = 120.0
EVICTED_AFTER_S = 8
"""So long a pod stays bound to a node that is not ready; 300 s is the default of Kubernetes."""


def missing(programs: Sequence[str]) -> str:
    """Why tests that need these programs cannot run here; empty where they can."""
    if not ASSETS:
        why = os.environ.get("AIOPS_KUBE_TOOLS_ERROR") or "`make kube-tools` builds the programs and says what to set"
        return f"KUBEBUILDER_ASSETS is not set: {why}"
    absent = [name for name in programs if not (Path(ASSETS) / name).exists()]
    return f"KUBEBUILDER_ASSETS={ASSETS} has no {', '.join(absent)}" if absent else ""


class Control:
    """One control plane with ports of its own. `admin` may do everything; further `users` (name: token) may do nothing yet.

    The programs' logs, the certificate (`ca`) and the audit log are in `folder`; etcd's data is in memory where there is a
    tmpfs. A context manager: at its end all processes are gone.
    """

    def __init__(self, folder: Path, users: Mapping[str, str] | None = None) -> None:
        self.folder, self.ca = folder, folder / "apiserver.crt"
        self.etcd_port, self.peer_port, self.port, self.manager_port, self.scheduler_port = free_ports(5)
        self.url = f"https://127.0.0.1:{self.port}"
        self.etcd_url = f"http://127.0.0.1:{self.etcd_port}"
        self._data = _data_folder()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.audit = Audit(folder / "audit.jsonl")
        subprocess.run(["openssl", "genrsa", "-out", folder / "sa.key", "2048"], check=True, capture_output=True)
        (folder / "audit.json").write_text(json.dumps(POLICY))
        rows = ["admin-token,admin,1,system:masters", "manager-token,system:kube-controller-manager,2,system:masters",
                "scheduler-token,system:kube-scheduler,3,system:masters", "kubelet-token,simulated-kubelet,4,system:masters",
                *(f"{token},{name},{name}" for name, token in (users or {}).items())]
        (folder / "tokens.csv").write_text("\n".join(rows) + "\n")

    def __enter__(self) -> Self:
        try:
            self.start_etcd()
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for program in reversed(list(self.processes)):
            self.stop(program)
        shutil.rmtree(self._data, ignore_errors=True)

    # -------------------------------------------------------------------------------------------------- programs
    def start_etcd(self) -> None:
        peer = f"http://127.0.0.1:{self.peer_port}"
        self.run("etcd", "--data-dir", str(self._data), "--listen-client-urls", self.etcd_url, "--advertise-client-urls",
                 self.etcd_url, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
                 "--initial-cluster", f"default={peer}", "--unsafe-no-fsync")
        self._until_healthy("etcd", f"{self.etcd_url}/health", b'"true"')

    def start(self) -> None:
        """The API server. Without the admission plug-in ServiceAccount, so that pods need no account made first."""
        key = self.folder / "sa.key"
        self.run("kube-apiserver", f"--etcd-servers={self.etcd_url}", f"--cert-dir={self.folder}",
                 "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", f"--secure-port={self.port}",
                 "--authorization-mode=RBAC", f"--token-auth-file={self.folder / 'tokens.csv'}",
                 "--service-account-issuer=https://kubernetes.default.svc", f"--service-account-signing-key-file={key}",
                 f"--service-account-key-file={key}", "--disable-admission-plugins=ServiceAccount",
                 "--service-cluster-ip-range=10.0.0.0/16", "--allow-privileged=true",
                 f"--default-not-ready-toleration-seconds={EVICTED_AFTER_S}",
                 f"--default-unreachable-toleration-seconds={EVICTED_AFTER_S}",
                 f"--audit-policy-file={self.folder / 'audit.json'}", f"--audit-log-path={self.audit.path}",
                 "--audit-log-maxsize=100000")
        self._until_healthy("kube-apiserver", f"{self.url}/readyz", b"ok")
        self.admin = self.client("admin-token")

    def start_controller_manager(self) -> None:
        """All controllers. A node that is silent for 8 s is unknown to them (a real one: 50 s)."""
        if "kube-controller-manager" in self.processes:
            return
        kubeconfig = self.kubeconfig("manager", "manager-token")
        self.run("kube-controller-manager", f"--kubeconfig={kubeconfig}", *self._serving(self.manager_port),
                 f"--service-account-private-key-file={self.folder / 'sa.key'}", f"--root-ca-file={self.ca}",
                 "--node-monitor-grace-period=8s", "--node-monitor-period=1s", "--node-startup-grace-period=20s",
                 "--kube-api-qps=200", "--kube-api-burst=400")
        self._until_healthy("kube-controller-manager", f"https://127.0.0.1:{self.manager_port}/healthz", b"ok")

    def start_scheduler(self) -> None:
        if "kube-scheduler" in self.processes:
            return
        config = self.folder / "scheduler.json"
        config.write_text(json.dumps({
            "apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration",
            "leaderElection": {"leaderElect": False}, "clientConnection": {
                "kubeconfig": str(self.kubeconfig("scheduler", "scheduler-token")), "qps": 200, "burst": 400}}))
        self.run("kube-scheduler", f"--config={config}", *self._serving(self.scheduler_port)[:-1])
        self._until_healthy("kube-scheduler", f"https://127.0.0.1:{self.scheduler_port}/healthz", b"ok")

    def _serving(self, port: int) -> list[str]:
        return ["--bind-address=127.0.0.1", f"--secure-port={port}", f"--cert-dir={self.folder / 'serving'}",
                "--leader-elect=false"]

    def run(self, program: str, *arguments: str) -> None:
        """It ends with us, even where we are killed, if there is `setpriv` (util-linux)."""
        bound = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []
        with (self.folder / f"{program}.log").open("ab") as log:
            self.processes[program] = subprocess.Popen([*bound, str(Path(ASSETS) / program), *arguments], stdout=log, stderr=log,
                                                       cwd=self.folder)

    def stop(self, program: str) -> None:
        """As a crash does: an orderly end would wait for every watch."""
        process = self.processes.pop(program)
        process.kill()
        process.wait()

    def _until_healthy(self, program: str, url: str, answer: bytes) -> None:
        def healthy() -> bool:
            assert self.processes[program].poll() is None, self._last_words(program)
            return answer in _body(url)
        until(healthy, START_S, f"{program} ready")

    def _last_words(self, program: str) -> str:
        return f"{program} ended: " + (self.folder / f"{program}.log").read_text()[-2000:]

    def compact(self) -> None:
        """etcd forgets all history: a watch from an earlier version is answered with 410."""
        key = base64.b64encode(b"x").decode()
        answer = _body(f"{self.etcd_url}/v3/kv/range", json.dumps({"key": key}).encode())
        body = json.dumps({"revision": json.loads(answer)["header"]["revision"], "physical": True}).encode()
        assert _body(f"{self.etcd_url}/v3/kv/compaction", body)

    # --------------------------------------------------------------------------------------------------- clients
    def client(self, token: str, agent: str = "tester/1") -> Client:
        return Client(self.url, self.ca, token, agent)

    def kubeconfig(self, name: str, token: str) -> Path:
        """A kubeconfig in `folder`, with the token in a file beside it (which a test may rewrite)."""
        token_file, path = self.folder / f"{name}.token", self.folder / f"{name}.kubeconfig"
        token_file.write_text(token)
        path.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "lab",
            "clusters": [{"name": "lab", "cluster": {"server": self.url, "certificate-authority": str(self.ca)}}],
            "users": [{"name": name, "user": {"tokenFile": str(token_file)}}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": name}}]}))
        return path

    def call(self, method: str, path: str, body: Any = None, raw: bool = False, content: str = "application/json",
             accept: str = "application/json") -> Any:
        """As the administrator."""
        return self.admin.call(method, path, body, raw, content, accept)

    def create(self, path: str, item: Mapping[str, Any]) -> Json:
        return self.admin.create(path, item)

    def patch(self, path: str, body: Mapping[str, Any]) -> Json:
        return self.admin.patch(path, body, MERGE)


def until(holds: Callable[[], Any], within_s: float = 60.0, what: str | Callable[[], str] = "") -> Any:
    """What `holds` answered when it was first true. Another process has to get somewhere, so this asks again and again."""
    deadline = time.monotonic() + within_s
    while not (got := holds()):
        if time.monotonic() > deadline:
            raise AssertionError(f"did not come within {within_s:g} s: {what() if callable(what) else what or holds}")
        time.sleep(0.1)
    return got


def free_ports(count: int) -> list[int]:
    """All taken at the same time, so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _data_folder() -> Path:
    """A new folder in a tmpfs, where a write costs nothing, else in the usual place. What killed tests left is removed."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        return Path(tempfile.mkdtemp(prefix="aiops-etcd-"))
    for left in memory.glob("aiops-etcd-*-*"):
        if not Path("/proc", left.name.split("-")[2]).exists():
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"aiops-etcd-{os.getpid()}-", dir=memory))


def _body(url: str, data: bytes | None = None) -> bytes:
    """What one of our own processes answers; empty where it does not. Health is open to all: nothing to authenticate yet."""
    context = ssl._create_unverified_context() if url.startswith("https") else None
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data), timeout=30, context=context) as answer:
            return bytes(answer.read())
    except OSError:
        return b""
