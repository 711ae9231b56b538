"""`aiops doctor` on log sources, on what is pushed, and on the files of a way into a Prometheus."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes.kube_api import KubeApi
from pytest_httpserver import HTTPServer
from ruamel.yaml import YAML

from aiops import doctor, findings, rbac, reach
from aiops.inputs import Journald, Kubernetes, Logs, Loki
from aiops.remote_write import native
from aiops.schema import Config
from aiops.sources.access import Access

RANGE = "/loki/api/v1/query_range"


def told(found: Any) -> list[tuple[str, str]]:
    return [(f.state, f.text) for f in found]


def loki(server: HTTPServer, **more: Any) -> tuple[str, str]:
    [finding] = reach.loki(Loki(url=server.url_for("").rstrip("/"), query='{a="b"}', **more))
    return finding.state, finding.text


def test_loki_answers_with_and_without_lines(httpserver: HTTPServer) -> None:
    """As the tenant of the source; nothing found is no fault, but most often a mistake in the query."""
    streams = [{"stream": {"a": "b"}, "values": [["1", "x"]]}]
    for result, state, text in ((streams, "ok", "selects lines"), ([], "info", "check query, and tenant")):
        httpserver.expect_oneshot_request(RANGE, headers={"X-Scope-OrgID": "shop"}).respond_with_json(
            {"data": {"resultType": "streams", "result": result}})
        found = loki(httpserver, tenant="shop")
        assert found[0] == state and text in found[1]


def test_loki_that_refuses_is_a_problem_and_one_that_is_not_there_unreachable(httpserver: HTTPServer) -> None:
    """Exit codes 1 and 3: what was said, and what to do."""
    httpserver.expect_request(RANGE).respond_with_data("parse error", status=400)
    assert loki(httpserver) == ("problem", f"{httpserver.url_for('')[:-1]}: answered 400: parse error. "
                                           "Check query and limit of the loki source.")
    [finding] = reach.loki(Loki(url="http://127.0.0.1:9", query='{a="b"}'))
    assert finding.state == "unreachable" and "cannot be reached: Connection refused. Check url" in finding.text


@pytest.fixture
def journalctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a program of that name, with these lines of shell, first on the path."""
    def make(script: str) -> None:
        program = tmp_path / "journalctl"
        program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return make


@pytest.mark.parametrize(("script", "state", "text"), [
    ("echo '{\"__REALTIME_TIMESTAMP\":\"1000000\",\"MESSAGE\":\"x\"}'", "ok", "newest line "),
    ("true", "info", "no line of these units"),
    ("echo 'No journal files were found.' >&2", "problem", "No journal files were found. Check units and directory"),
    ("echo 'Hint: You are currently not seeing messages from other users and the system.' >&2", "problem", "systemd-journal"),
    ("echo 'Failed to open: denied' >&2; exit 1", "problem", "Failed to open: denied. Check units")])
def test_the_journal_is_there_and_may_be_read(journalctl: Callable[[str], None], script: str, state: str, text: str) -> None:
    """By what journalctl says of it."""
    journalctl(script)
    [finding] = reach.journald(Journald())
    assert finding.state == state and text in finding.text


def test_without_journalctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What to install, or to do instead."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert told(reach.journald(Journald())) == [("problem", "journalctl: cannot be started: no such file or directory. Install "
                                                            "systemd's journalctl, or follow files with a logs source.")]


def test_log_files_are_counted_and_missing_folders_named(tmp_path: Path) -> None:
    """A folder that is not mounted is a problem; a file that is not there yet is none."""
    (tmp_path / "a.log").write_text("x\n", encoding="utf-8")
    paths = [f"{tmp_path}/*.log", f"{tmp_path}/*.txt", f"{tmp_path}/none/*/x.log"]
    assert told(reach.log_files(Logs(paths=paths))) == [
        ("ok", f"{paths[0]}: 1 file"), ("info", f"{paths[1]}: no file yet; read as soon as there is one"),
        ("problem", f"{paths[2]}: there is no folder {tmp_path}/none. Check paths; in a container, mount it.")]


def test_what_is_pushed_says_where_to_and_how_it_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The address for the senders, and what is missing for the fast or the full way."""
    monkeypatch.setattr(native.load, "__defaults__", (tmp_path / "none.so",))
    [slow] = reach.remote_write("127.0.0.1:8750", guarded=True)
    assert slow.state == "info" and "http://127.0.0.1:8750/api/v1/write, with the token." in slow.text
    assert "Decoded in Python" in slow.text and "make setup" in slow.text
    monkeypatch.setattr(reach, "find_spec", lambda name: None)
    [json_only] = reach.otlp("127.0.0.1:8750", guarded=False)
    assert json_only.state == "info" and "Install aiops[otlp] for protobuf" in json_only.text
    monkeypatch.setattr(reach, "find_spec", lambda name: object())
    assert told(reach.otlp("127.0.0.1:8750", guarded=False)) == [("ok", "received at http://127.0.0.1:8750. protobuf and JSON")]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a certificate and its key, and another key."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl on this machine")
    folder = tmp_path_factory.mktemp("pair")
    for name in ("one", "two"):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-days", "2", "-keyout",
                        f"{folder}/{name}.key", "-out", f"{folder}/{name}.pem"], check=True, capture_output=True)
    return folder


def test_files_of_tls_and_secrets_are_all_looked_at(pair: Path, tmp_path: Path) -> None:
    """Each mistake at once, before the server is asked; nothing of what is in them is told."""
    (tmp_path / "token").write_text("\n", encoding="utf-8")
    (tmp_path / "ca.pem").write_text("s3cret", encoding="utf-8")
    way = Access(token_file=tmp_path / "token", ca_file=tmp_path / "ca.pem", cert_file=pair / "one.pem",
                 key_file=pair / "two.key", header_files={"X-Key": tmp_path / "none"})
    texts = [f.text for f in findings.files("Prometheus", way)]
    assert len(texts) == 4 and not any("s3cret" in t for t in texts)
    for text, needed in zip(texts, ("the token cannot be read: it is empty.", "directory. Check headerFiles.X-Key",
                                    "holds no certificate", "does not belong to the key in"), strict=True):
        assert needed in text


def test_files_that_are_right_are_not_mentioned(pair: Path) -> None:
    """The server is asked then."""
    way = Access(ca_file=pair / "one.pem", cert_file=pair / "one.pem", key_file=pair / "one.key")
    assert list(findings.files("Prometheus", way)) == []


class Reviewed:
    """An API server with a version, that answers each question about a right: all are granted but `refused` (verb, resource)."""

    def __init__(self, server: HTTPServer, folder: Path) -> None:
        self.refused: set[tuple[str, str]] = set()
        self.asked: list[dict[str, Any]] = []
        self._fake = KubeApi()
        self._answer, self._fake.answer = self._fake.answer, self._reviewed
        server.expect_request(re.compile(".*")).respond_with_handler(self._fake)
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(
            "apiVersion: v1\nkind: Config\n"
            f"clusters: [{{name: c, cluster: {{server: '{server.url_for('')[:-1]}'}}}}]\n"
            "contexts: [{name: x, context: {cluster: c, user: u}}]\ncurrent-context: x\nusers: [{name: u, user: {}}]\n")

    def _reviewed(self, request: Any, path: str, body: Any, trial: bool) -> Any:
        if path.startswith("/version"):
            return self._fake.json({"gitVersion": "v1.36.0", "major": "1", "minor": "36", "buildDate": "x", "compiler": "gc",
                                    "gitCommit": "x", "gitTreeState": "clean", "goVersion": "go", "platform": "linux"})
        if not path.endswith("selfsubjectaccessreviews"):
            return self._answer(request, path, body, trial)
        one = body["spec"]["resourceAttributes"]
        self.asked.append(one)
        allowed = (one["verb"], one["resource"]) not in self.refused
        return self._fake.json({"status": {"allowed": allowed}, "spec": {"resourceAttributes": {}}})

    def found(self, **more: Any) -> dict[str, tuple[str, str]]:
        return {f.what: (f.state, f.text) for f in doctor.kubernetes(Kubernetes(kubeconfig=self.kubeconfig), True, **more)}


@pytest.fixture
def reviewed(httpserver: HTTPServer, tmp_path: Path) -> Reviewed:
    return Reviewed(httpserver, tmp_path)


@pytest.mark.parametrize(("refused", "text"), [
    ("", "ConfigMap aiops/aiops-stop may be read and written."),
    ("get", "missing in aiops: get configmaps aiops-stop. Until that is granted no action is done. "
            "Apply deploy/role-stop.yaml with that name."),
    ("patch", "missing in aiops: patch configmaps aiops-stop. Until that is granted `aiops stop` stops this replica only. "
              "Apply deploy/role-stop.yaml with that name."),
    ("create", "missing in aiops: create configmaps. Until that is granted `aiops stop` stops this replica only. "
               "Apply deploy/role-stop.yaml with that name.")])
def test_the_config_map_that_stops_everything_must_be_read_and_written(reviewed: Reviewed, refused: str, text: str) -> None:
    """Asked for that one ConfigMap in its namespace, but for making it, of which RBAC knows no name."""
    reviewed.refused = {(refused, "configmaps")} if refused else set()
    assert reviewed.found(stop="aiops/aiops-stop")["rights: stop"] == ("problem" if refused else "ok", text)
    asked = {(a["verb"], a.get("name")) for a in reviewed.asked if a["resource"] == "configmaps" and a.get("namespace")}
    assert asked == {("get", "aiops-stop"), ("patch", "aiops-stop"), ("create", None)}


def test_rights_of_actions_that_no_policy_uses_are_no_problem(reviewed: Reviewed) -> None:
    """Those of the configured policies are; where the cluster may bring policies, all of them."""
    reviewed.refused = {("create", "jobs"), ("patch", "nodes")}
    found = reviewed.found(used={"RunJob"})
    assert found["rights: RunJob"] == ("problem", "missing: create jobs.batch. Bind ClusterRole aiops-run-job (deploy/).")
    assert found["rights: Cordon"] == ("info", "missing: patch nodes. No policy uses it.")
    assert reviewed.found()["rights: Cordon"][0] == "problem"


def test_what_the_configured_policies_use_is_read_from_their_files(tmp_path: Path) -> None:
    """A folder that cannot be used is for others to complain about: then all actions count."""
    write = (tmp_path / "p.yaml").write_text
    write("apiVersion: aiops.io/v1\nkind: RemediationPolicy\nmetadata: {name: p}\nspec: {trigger: {type: Incident}, "
          "actions: [{type: Cordon, target: {node: a}}, {type: Uncordon, target: {node: a}}]}\n", encoding="utf-8")
    config = Config.model_validate({"sources": [{"kubernetes": {}}], "policies": str(tmp_path)})
    assert doctor._used(config) == {"Cordon", "Uncordon"}
    assert doctor._used(Config.model_validate({"policies": {"folder": str(tmp_path), "kubernetes": True}})) is None
    write("kind: RemediationPolicy\nspec: 3\n", encoding="utf-8")
    assert doctor._used(config) is None


def test_the_role_to_stop_grants_what_the_doctor_asks_for() -> None:
    """Word for word."""
    text = (Path(__file__).parents[1] / "deploy" / "role-stop.yaml").read_text(encoding="utf-8")
    [role] = [d for d in YAML(typ="safe").load_all(text) if d["kind"] == "Role"]
    granted = {("", resource, verb): name for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]
               for name in rule.get("resourceNames", [""])}
    assert granted == rbac.stopper("aiops-stop")
