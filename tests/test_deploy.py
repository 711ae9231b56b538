"""Packaging and deployment: manifests are valid and safe, the roles match the code, the image is lean, set-up repeats."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from ruamel.yaml import YAML

from aiops import __version__, config, rbac

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
MANIFESTS = sorted(p for p in DEPLOY.rglob("*.yaml") if p.name != "kustomization.yaml")
POLICIES = {"policies/crd.yaml", "policies/role.yaml", "policies/binding.yaml"}
KUBERNETES = ("1.30.0", "1.33.0", "1.37.0")
NO_HOST = re.compile(r"docker\.io|ghcr\.io|quay\.io|gcr\.io")


def documents(path: Path) -> list[dict[str, Any]]:
    return [d for d in YAML(typ="safe", pure=True).load_all(path.read_text(encoding="utf-8")) if d]


def one(kind: str) -> dict[str, Any]:
    """Of what is applied by default, the first of a file."""
    found, *_ = [d for path in MANIFESTS if path.parent == DEPLOY for d in documents(path) if d["kind"] == kind]
    return found


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda p: str(p.relative_to(DEPLOY)))
@pytest.mark.parametrize("version", KUBERNETES)
def test_each_manifest_fits_the_schema_of_kubernetes(path: Path, version: str) -> None:
    """Strictly: an unknown or misspelt field is an error."""
    for document in documents(path):
        kubernetes_validate.validate(document, version, strict=True)


def test_the_validator_would_notice_a_misspelt_field() -> None:
    """Else the test above could not fail."""
    manifest = documents(DEPLOY / "statefulset.yaml")[0]
    manifest["spec"]["template"]["spec"]["securityContext"]["runAsNonRooot"] = True
    with pytest.raises(kubernetes_validate.ValidationError, match="runAsNonRooot"):
        kubernetes_validate.validate(manifest, "1.37.0", strict=True)


def test_kustomize_lists_every_manifest_and_none_that_grants_rights_to_act() -> None:
    """What is applied by default can only read."""
    listed = set(documents(DEPLOY / "kustomization.yaml")[0]["resources"])
    assert listed == {str(p.relative_to(DEPLOY)) for p in MANIFESTS} - {"actions/roles.yaml", "actions/leader.yaml", *POLICIES}
    assert {f"policies/{p}" for p in documents(DEPLOY / "policies" / "kustomization.yaml")[0]["resources"]} == POLICIES
    role = documents(DEPLOY / "role-read.yaml")[0]
    assert {verb for rule in role["rules"] for verb in rule["verbs"]} == {"get", "list", "watch"}
    assert "secrets" not in {resource for rule in role["rules"] for resource in rule["resources"]}


def test_the_pod_is_confined() -> None:
    """The restricted profile, a read-only root, and a volume of its own for each replica."""
    spec = one("StatefulSet")["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert (spec["replicas"], spec["updateStrategy"]["type"]) == (1, "RollingUpdate")
    assert [c["spec"]["accessModes"] for c in spec["volumeClaimTemplates"]] == [["ReadWriteOnce"]]
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == 65532
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                                            "capabilities": {"drop": ["ALL"]}}
    assert {container[p]["httpGet"]["path"] for p in ("startupProbe", "livenessProbe")} == {"/livez"}
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["resources"]["requests"] and container["resources"]["limits"]["memory"]
    assert pod["enableServiceLinks"] is False
    writable = {m["mountPath"] for m in container["volumeMounts"] if not m.get("readOnly")}
    assert writable == {"/var/lib/aiops", "/tmp"}


def test_the_parts_fit_together() -> None:
    """Names, ports and paths agree between deployment, service, config, policy and image."""
    spec = one("StatefulSet")["spec"]
    pod = spec["template"]
    container = pod["spec"]["containers"][0]
    services = documents(DEPLOY / "service.yaml")
    assert [s["metadata"]["name"] for s in services if s["spec"].get("clusterIP") == "None"] == [spec["serviceName"]]
    assert all(s["spec"]["selector"].items() <= pod["metadata"]["labels"].items() for s in services)
    assert one("PodDisruptionBudget")["spec"]["selector"] == spec["selector"]
    assert one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    port = container["ports"][0]["containerPort"]
    assert one("Service")["spec"]["ports"][0]["port"] == port
    assert one("NetworkPolicy")["spec"]["ingress"][0]["ports"][0]["port"] == port
    volumes = {v["name"]: v for v in pod["spec"]["volumes"]}
    assert volumes["config"]["configMap"]["name"] == one("ConfigMap")["metadata"]["name"]
    mounted = {m["name"] for m in container["volumeMounts"]}
    assert mounted == set(volumes) | {c["metadata"]["name"] for c in spec["volumeClaimTemplates"]}
    assert one("ClusterRoleBinding")["roleRef"]["name"] == "aiops-read"
    assert container["image"] == f"aiops:{__version__}"


def test_the_config_map_holds_a_good_configuration(tmp_path: Path) -> None:
    """It loads, observes only, listens on the port of the pod with the mounted token, and writes to the volume."""
    path = tmp_path / "aiops.yaml"
    path.write_text(one("ConfigMap")["data"]["aiops.yaml"], encoding="utf-8")
    loaded = config.load(path, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"})
    mounts = {m["name"]: m["mountPath"] for m in one("StatefulSet")["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]}
    assert (loaded.mode, loaded.listen) == ("observe", "0.0.0.0:8750")
    assert str(loaded.store) == mounts["store"]
    assert loaded.token_file is not None and str(loaded.token_file.parent) == mounts["token"]


@pytest.mark.slow
def test_the_roles_are_what_the_code_declares() -> None:
    """Generated files are never edited by hand and never out of date."""
    done = subprocess.run([sys.executable, "scripts/rbac.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_role_for_policies_writes_their_status_only() -> None:
    """It cannot write a policy, and the binding gives it to the daemon alone."""
    [role] = documents(DEPLOY / "policies" / "role.yaml")
    assert {(r, v) for rule in role["rules"] for r in rule["resources"] for v in rule["verbs"] if v in ("patch", "update")} == {
        ("remediationpolicies/status", "patch"), ("remediationpolicies/status", "update")}
    [binding] = documents(DEPLOY / "policies" / "binding.yaml")
    assert (binding["roleRef"]["name"], binding["subjects"]) == (role["metadata"]["name"], one("ClusterRoleBinding")["subjects"])


def test_each_action_has_its_own_role() -> None:
    """So that each can be granted alone; every right of the role is one that the remediation declares."""
    roles = {d["metadata"]["name"]: d for d in documents(DEPLOY / "actions" / "roles.yaml")}
    declared = rbac.actions()
    assert set(roles) == {f"aiops-{rbac.kebab(name)}" for name in declared}
    for name, rights in declared.items():
        granted = {(group, resource, verb) for rule in roles[f"aiops-{rbac.kebab(name)}"]["rules"]
                   for group in rule["apiGroups"] for resource in rule["resources"] for verb in rule["verbs"]}
        assert granted == rights


def test_rules_join_only_resources_with_equal_verbs() -> None:
    """Grouping must never widen a right."""
    rights = {("", "pods", "get"), ("", "pods", "list"), ("", "nodes", "get"), ("apps", "pods", "get")}
    assert rbac.rules(rights) == [
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]},
        {"apiGroups": ["apps"], "resources": ["pods"], "verbs": ["get"]}]
    assert [rbac.kebab(n) for n in ("ScaleUp", "Restart", "SetHPA")] == ["scale-up", "restart", "set-hpa"]


# ------------------------------------------------------------------------------------------------------ the image
def instructions() -> list[tuple[str, str]]:
    """The Dockerfile as (instruction, rest), continued lines joined."""
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(word, " ".join(rest.split())) for word, _, rest in (line.partition(" ") for line in lines)]


def test_the_image_runs_as_nobody_and_holds_no_installer() -> None:
    """Three stages; the last one starts from a clean base, drops pip, and changes to 65532 before the entry point."""
    steps = instructions()
    last = max(i for i, (word, _) in enumerate(steps) if word == "FROM")
    final = steps[last:]
    assert [word for word, _ in steps].count("FROM") == 3
    assert ("USER", "65532:65532") in final and ("ENTRYPOINT", '["/opt/venv/bin/aiops"]') in final
    assert any(word == "RUN" and "pip uninstall" in rest for word, rest in final)
    assert not any(word == "RUN" and ("apt-get" in rest or "cargo" in rest or "pip install" in rest) for word, rest in final)
    assert not any(word == "ADD" or "curl" in rest for word, rest in steps)
    install = next(rest for word, rest in steps if "pip install" in rest)
    assert "--require-hashes" in install and "--no-deps" in install and "|| true" not in install
    assert f'image.version="{__version__}"' in next(rest for word, rest in final if word == "LABEL")


def test_the_image_gets_every_file_that_it_copies_and_every_package() -> None:
    """What is copied exists and is let through by .dockerignore; no package of the project is forgotten."""
    copied = [p for word, rest in instructions() if word == "COPY" and not rest.startswith("--from") for p in rest.split()[:-1]]
    assert all((ROOT / p).exists() for p in copied)
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line.startswith("!")}
    assert set(copied) == allowed
    assert {"aiops", "detectors", "correlators", "remediations", "policies", "requirements.lock"} <= set(copied)


# ------------------------------------------------------------------------------------------------ scripts and set-up
def test_a_linked_checkout_runs_from_anywhere(tmp_path: Path) -> None:
    """The step that set-up and the image share: one path line, one command, no build tool."""
    venv = tmp_path / "venv with blank"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    subprocess.run([ROOT / "scripts" / "link-checkout", venv, ROOT], check=True)
    code = "import aiops, detectors, correlators, remediations; print(aiops.__file__)"
    done = subprocess.run([venv / "bin" / "python", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(ROOT / "aiops" / "__init__.py")
    run = subprocess.run([venv / "bin" / "aiops"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "No module named 'typer'" in run.stderr  # our code was reached; this environment has no packages


def fake_venv(folder: Path, pip: str) -> Path:
    """A virtual environment whose pip is a script that notes how it was called."""
    venv = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    site = next((venv / "lib").glob("python*")) / "site-packages" / "pip"
    site.mkdir()
    (site / "__init__.py").touch()
    (site / "__main__.py").write_text(f"import sys\nif 'install' in sys.argv:\n    {pip}\n", encoding="utf-8")
    return venv


def setup(venv: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ROOT / "scripts" / "setup", *arguments], env={**os.environ, "VENV": str(venv)}, capture_output=True,
                          text=True, check=False)


def test_setup_installs_from_the_lock_once(tmp_path: Path) -> None:
    """With hashes and without dependencies of its own choosing; the second time it does nothing; dev also covers run."""
    log = tmp_path / "calls"
    venv = fake_venv(tmp_path, f"open({str(log)!r}, 'a').write(' '.join(sys.argv[1:]) + '\\n')")
    assert setup(venv).returncode == 0
    assert setup(venv).stdout == ""
    assert setup(venv, "dev").returncode == 0
    assert setup(venv, "run").stdout == setup(venv, "dev").stdout == ""
    assert log.read_text(encoding="utf-8").splitlines() == [
        "install --quiet --require-hashes --no-deps -r requirements.lock",
        "install --quiet --require-hashes --no-deps -r requirements-dev.lock"]


def test_setup_that_fails_says_so_and_tries_again(tmp_path: Path) -> None:
    """A half-installed environment is never taken for a good one."""
    venv = fake_venv(tmp_path, "sys.exit(1)")
    for _ in range(2):
        done = setup(venv)
        assert done.returncode == 3
        assert "error: setup: the packages of requirements.lock could not be installed." in done.stderr


def test_setup_without_ensurepip_says_what_to_install(tmp_path: Path) -> None:
    """A user who is not root on Debian without python3-venv gets the name of the package, not a stack of errors."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "python3.11").write_text(
        f"#!/bin/sh\n[ \"$1\" = -m ] && {{ echo 'ensurepip is not available' >&2; exit 1; }}\nexec {sys.executable} \"$@\"\n",
        encoding="utf-8")
    (tools / "id").write_text("#!/bin/sh\necho 1000\n", encoding="utf-8")
    for tool in tools.iterdir():
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    env = {**os.environ, "PATH": f"{tools}:/usr/bin:/bin", "VENV": str(tmp_path / "venv"), "PYTHON": ""}
    done = subprocess.run([ROOT / "scripts" / "setup"], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert re.search(r"cannot make virtual environments\. On Debian or Ubuntu: apt-get install python3\.\d+-venv", done.stderr)
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize("path", sorted([*(ROOT / "scripts").iterdir(), ROOT / ".ci" / "run"]), ids=lambda p: p.name)
def test_each_script_parses_and_may_be_run(path: Path) -> None:
    """Shell scripts are executable, strict, and free of syntax errors."""
    if path.suffix == ".py" or path.is_dir():
        return
    first, *_ = path.read_text(encoding="utf-8").splitlines()
    assert os.access(path, os.X_OK)
    assert re.search(r"^set -eu", path.read_text(encoding="utf-8"), re.MULTILINE)
    subprocess.run([first.split("/")[-1].split()[-1], "-n", path], check=True)


@pytest.mark.parametrize("target", ["setup", "run", "demo", "check", "test", "bench", "lock", "fmt"])
def test_each_make_target_exists_and_is_explained(target: str) -> None:
    """`make help` lists it and make can plan it."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.search(rf"^make {target} ", listed, re.MULTILINE)
    subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, check=True)


def test_both_locks_hold_the_same_versions_with_hashes() -> None:
    """What is tested is what runs: every line of the run lock is in the dev lock, and each has a hash."""
    def pins(name: str) -> dict[str, str]:
        text = (ROOT / name).read_text(encoding="utf-8")
        found = dict(re.findall(r"^([A-Za-z0-9_.\[\]-]+==\S+)( ;[^\\]*)?", text, re.MULTILINE))
        assert text.count("--hash=sha256:") >= len(found)
        return found
    assert set(pins("requirements.lock")) <= set(pins("requirements-dev.lock"))


# ------------------------------------------------------------------------------------------------- the marker `real`
def marked(tmp_path: Path, test: str, **env: str) -> str:
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path / "conftest.py")
    (tmp_path / "test_it.py").write_text("import pytest\n" + test, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = real: x\naddopts = -p no:cacheprovider\n", encoding="utf-8")
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "AIOPS", "CI"))}
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", tmp_path], env={**clean, **env}, cwd=tmp_path,
                          capture_output=True, text=True, check=False)
    return done.stdout


MISSING = "@pytest.mark.real('no-such-program')\ndef test_a(): assert False\n"


@pytest.mark.slow
def test_a_missing_program_skips_and_is_named(tmp_path: Path) -> None:
    """On a laptop the suite passes and says what it could not test."""
    out = marked(tmp_path, MISSING)
    assert "1 skipped" in out and "real programs not installed here: no-such-program." in out


@pytest.mark.slow
def test_a_missing_program_fails_where_it_is_required(tmp_path: Path) -> None:
    """In continuous integration nothing real may silently stop being tested; other skips stay skips."""
    out = marked(tmp_path, MISSING + "@pytest.mark.real\ndef test_b(): pytest.skip('none')\ndef test_c(): pytest.skip('fine')\n"
                 "@pytest.mark.real('sh')\ndef test_d(): pass\n", AIOPS_REQUIRE_REAL="1")
    assert "1 failed, 1 passed, 1 skipped, 1 error" in out  # a skip during set-up becomes an error
    assert "may not be skipped" in out
