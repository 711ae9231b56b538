"""The generated CustomResourceDefinition says what the models say; policies exported from a cluster are good files."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML
from test_policy_load import DOCUMENTED

from aiops import cli, meaning
from aiops.policy import crd, schema
from aiops.policy.load import load

ROOT = Path(__file__).parents[1]
STRUCTURAL = {"type", "description", "properties", "items", "additionalProperties", "required", "enum", "pattern", "minLength",
              "maxLength", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minItems", "maxItems", "nullable",
              "format", "anyOf", "x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields", "x-kubernetes-validations",
              "x-kubernetes-list-type", "x-kubernetes-list-map-keys"}


def version() -> dict[str, Any]:
    [found] = crd.manifest()["spec"]["versions"]
    return dict(found)


def root() -> dict[str, Any]:
    return dict(version()["schema"]["openAPIV3Schema"])


def nodes(node: dict[str, Any], place: str = "$") -> Iterator[tuple[str, dict[str, Any]]]:
    yield place, node
    for name, inner in node.get("properties", {}).items():
        yield from nodes(inner, f"{place}.{name}")
    for name in ("items", "additionalProperties"):
        if isinstance(node.get(name), dict):
            yield from nodes(node[name], f"{place}[]")


def test_the_committed_file_is_what_is_generated() -> None:
    """Never edited by hand, never out of date."""
    done = subprocess.run([sys.executable, "scripts/crd.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_node_is_typed_and_nothing_is_referred_to() -> None:
    """The rules of a structural schema, one by one; no node sets a default."""
    for place, node in nodes(root()):
        assert node.keys() <= STRUCTURAL, place
        assert ("type" in node) != ("x-kubernetes-int-or-string" in node), place
        assert not ("properties" in node and "additionalProperties" in node), place
    assert "$ref" not in json.dumps(root())


def test_unknown_keys_are_kept_everywhere_below_spec() -> None:
    """A condition that is misspelt and dropped would be an action without one; the program refuses it by name instead."""
    for place, node in nodes(root()["properties"]["spec"]):
        if node.get("type") == "object" and "additionalProperties" not in node:
            assert node.get("x-kubernetes-preserve-unknown-fields") is True, place


def test_every_key_of_the_models_is_in_the_schema() -> None:
    """Below spec; of both kinds of trigger."""
    spec = root()["properties"]["spec"]["properties"]
    assert set(spec) == {f.alias or n for n, f in schema.Spec.model_fields.items()}
    assert set(spec["guards"]["properties"]) == {f.alias or n for n, f in schema.Guards.model_fields.items()}
    kinds = (schema.AnomalyTrigger, schema.IncidentTrigger)
    assert set(spec["trigger"]["properties"]) == {n for kind in kinds for n in kind.model_fields}
    assert spec["trigger"]["properties"]["type"]["enum"] == ["Anomaly", "Incident"]


def test_what_is_not_structural_is_refused_by_its_place() -> None:
    """Whoever extends the models with something that cannot be said is told where."""
    either = {"anyOf": [{"type": "object"}, {"type": "string"}]}
    for bad, said in (({"allOf": []}, "allOf"), (either, "several things"), ({}, "no type")):
        with pytest.raises(ValueError, match=rf"\$\.a.*{said}"):
            crd.structural({"type": "object", "properties": {"a": bad}})


def as_json_schema(node: Any) -> Any:
    """The same in words that a JSON Schema validator knows."""
    if isinstance(node, list):
        return [as_json_schema(n) for n in node]
    if not isinstance(node, dict):
        return node
    out = {k: as_json_schema(v) for k, v in node.items() if not k.startswith("x-") and k != "nullable"}
    return {"anyOf": [out, {"type": "null"}]} if node.get("nullable") else out


def documents() -> list[dict[str, Any]]:
    files = sorted((ROOT / "policies").glob("*.yaml"))
    texts = [DOCUMENTED, *(p.read_text(encoding="utf-8") for p in files)]
    return [d for t in texts for d in YAML(typ="safe", pure=True).load_all(t) if d]


@pytest.mark.parametrize("document", documents(), ids=lambda d: d["metadata"]["name"])
def test_every_policy_that_ships_fits_the_schema(document: dict[str, Any]) -> None:
    """And the documented one, word for word: a file can be applied as it is."""
    jsonschema.validate(document, as_json_schema(root()))


def test_the_columns_and_names() -> None:
    """As `kubectl get rpol` shows them."""
    names = crd.manifest()["spec"]["names"]
    assert (names["plural"], names["shortNames"], names["categories"]) == ("remediationpolicies", ["rpol"], ["aiops"])
    shown = [c["name"] for c in version()["additionalPrinterColumns"] if not c.get("priority")]
    assert shown == ["Mode", "Trigger", "Ready", "Reason", "Age"] and version()["subresources"] == {"status": {}}


# ------------------------------------------------------------------------------------------------ exported from a cluster
EXPORTED = """\
apiVersion: aiops.io/v1
kind: RemediationPolicy
metadata:
  creationTimestamp: 2026-11-21T10:00:00Z
  generation: 3
  managedFields:
  - {apiVersion: aiops.io/v1, fieldsType: FieldsV1, fieldsV1: {"f:spec": {}}, manager: kubectl, operation: Update}
  name: p
  namespace: shop
  resourceVersion: "4711"
  uid: 0b5ec9b1-0000-4000-8000-000000000000
  annotations: {kubectl.kubernetes.io/last-applied-configuration: "{}"}
  ownerReferences: [{apiVersion: v1, kind: ConfigMap, name: c, uid: u}]
  finalizers: [x/y]
spec:
  trigger: {type: Anomaly, metric: http_error_rate}
  actions:
  - {type: Restart, condition: "anomaly.score > 0.5", target: {deployment: api}}
  tests:
  - {name: it rehearses, expect: {decision: shadow}}
status:
  observedGeneration: 3
  conditions: [{type: Ready, status: "True", reason: InForce, message: in force, lastTransitionTime: "2026-11-21T10:00:01Z"}]
"""


@pytest.fixture
def exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.yaml").write_text(EXPORTED, encoding="utf-8")
    return tmp_path


def listed(*texts: str) -> str:
    items = "".join("- " + t.replace("\n", "\n  ").rstrip() + "\n" for t in texts)
    return f"apiVersion: v1\nkind: List\nmetadata: {{resourceVersion: \"\"}}\nitems:\n{items}"


def test_what_kubectl_exports_is_checked_and_tested(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the server added is ignored."""
    assert cli.main(["check", "p.yaml"]) == 0
    assert cli.main(["policy", "test", "p.yaml"]) == 0
    assert capsys.readouterr().out == "1 file, no problems.\np.yaml: p: it rehearses: ok\n1 test of 1 policy, 0 failed.\n"
    [policy] = load([exported / "p.yaml"], meaning.shipped())
    assert policy.namespace == "shop"


def test_a_list_of_them_is_several_policies(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As `kubectl get rpol -A -o yaml` writes it; a mistake has its line in the file and its place in its own document."""
    other = EXPORTED.replace("name: p\n", "name: q\n")
    (exported / "p.yaml").write_text(listed(EXPORTED, other), encoding="utf-8")
    assert cli.main(["check", "p.yaml"]) == 0
    (exported / "p.yaml").write_text(listed(EXPORTED, other.replace("deployment", "deploymnt")), encoding="utf-8")
    capsys.readouterr()
    assert cli.main(["check", "p.yaml"]) == 1
    out = capsys.readouterr().out
    assert out == "p.yaml:45: $.spec.actions[0].target.deploymnt: unknown key 'deploymnt'. Did you mean 'deployment'?\n"
    assert "deploymnt" in (exported / "p.yaml").read_text(encoding="utf-8").splitlines()[44]


def test_a_key_that_no_server_adds_is_still_an_error(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only those of the server are let through, and only where it puts them."""
    (exported / "p.yaml").write_text(EXPORTED.replace("  uid:", "  uidd:").replace("  trigger:", "  status: x\n  trigger:"),
                                     encoding="utf-8")
    assert cli.main(["check", "p.yaml"]) == 1
    out = capsys.readouterr().out
    assert "$.metadata.uidd: unknown key." in out and "$.spec.status: unknown key." in out
