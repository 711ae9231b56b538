"""Policies as files: the documented one loads word for word, and everything that is wrong is said at once."""

from pathlib import Path

import pytest

from aiops.meaning import shipped
from aiops.policy.load import load
from aiops.yamlfile import Problems

DOCUMENTED = """\
apiVersion: aiops.io/v1
kind: RemediationPolicy
metadata: {name: memory-pressure-remediation}
spec:
  trigger: {type: Anomaly, metric: container_memory_usage_bytes, model: isolation_forest, sensitivity: 0.95}
  diagnosis:
    correlations:
      - metric: container_restarts
      - metric: http_error_rate
      - logs: "OutOfMemoryError"
  actions:
    - {type: ScaleUp, condition: "correlation.http_error_rate > 0.8", target: {deployment: api-server, replicas: "+2"}}
    - {type: Restart, condition: "correlation.container_restarts > 3", target: {pod: "selector:app=api-server"}}
  feedback: {successMetric: http_error_rate, successThreshold: 0.01, learningEnabled: true}
"""
GOOD = """\
apiVersion: aiops.io/v1
kind: RemediationPolicy
metadata: {name: p}
spec:
  trigger: {type: Anomaly, metric: http_error_rate}
  actions:
    - type: Restart
      condition: "true"
      target: {deployment: shop/api}
"""


def problems(tmp_path, text, name="p.yaml"):
    """What `load` says about one file, with the folder left out."""
    (tmp_path / name).write_text(text)
    with pytest.raises(Problems) as caught:
        load([tmp_path], shipped())
    return [str(p).replace(f"{tmp_path}/", "") for p in caught.value.problems]


def test_the_documented_policy_loads_word_for_word(tmp_path):
    """Everything left out has a careful default: above all, mode shadow."""
    (tmp_path / "p.yaml").write_text(DOCUMENTED)
    [policy] = load([tmp_path], shipped())
    assert policy.name == "memory-pressure-remediation"
    assert [s.type for s in policy.steps] == ["ScaleUp", "Restart"]
    assert [c.key for c in policy.spec.diagnosis.correlations] == \
        ["container_restarts", "http_error_rate", "logs:OutOfMemoryError"]
    assert (policy.spec.mode, policy.spec.guards.cooldown, policy.spec.undo) == ("shadow", 600.0, True)
    assert policy.steps[0].aim({}, "shop") == ("deployment/shop/api-server", {"replicas": "+2", "max": 20})
    assert policy.steps[1].aim({}, "shop") == ("pod/shop/selector:app=api-server", {})


def test_every_optional_key_is_understood(tmp_path):
    """The whole of the schema in one document."""
    (tmp_path / "p.yml").write_text("""\
apiVersion: aiops.io/v1
kind: RemediationPolicy
metadata: {name: all, namespace: shop, labels: {team: sre}, annotations: {note: x}}
spec:
  trigger: {type: Incident, severity: warning}
  match: {entity: "pod/shop/*", namespace: shop, severity: critical}
  diagnosis: {correlations: [{logs: "OOM.*killed", name: ooms}]}
  actions: [{type: Restart, condition: "correlation.ooms > 0", target: {pod: "selector:app=${cause.name}"}}]
  mode: earned
  guards: {cooldown: 1h30m, maxActions: {count: 1, per: 1d}, maxUnavailable: 25%, namespaces: [shop, "shop-*"],
           maxEvidenceAge: 2m, approvalWithin: 10m}
  verify: {settle: 90s, within: 5m}
  undo: false
  escalate: {after: 1, to: "#shop-oncall"}
""")
    [policy] = load([tmp_path / "p.yml"], shipped())
    guards = policy.spec.guards
    assert (guards.cooldown, guards.max_actions.per, guards.max_unavailable) == (5400.0, 86400.0, "25%")
    assert (policy.spec.verify.settle, policy.spec.escalate.to) == (90.0, "#shop-oncall")


def change(old, new):
    assert old in GOOD
    return GOOD.replace(old, new)


BROKEN = {
    "unknown_key": (change("      condition:", "      conditon:"),
                    ["p.yaml:8: $.spec.actions[0].conditon: unknown key. Did you mean 'condition'?"]),
    "unknown_key_in_target": (change("{deployment: shop/api}", "{deploymnt: shop/api}"), [
        "p.yaml:9: $.spec.actions[0].target.deploymnt: unknown key 'deploymnt'. Did you mean 'deployment'?"]),
    "duplicate_key": (change("  actions:", "  mode: ask\n  mode: act\n  actions:"),
                      ["p.yaml:7: found duplicate key \"mode\". Remove one of the two."]),
    "not_yaml": ("a: [1\nb: 2\n", ["p.yaml:2: is not valid YAML: expected ',' or ']', but got ':'."]),
    "not_a_mapping": ("- 1\n", ["p.yaml:1: $: is not a policy but a list. Start with apiVersion: aiops.io/v1."]),
    "no_kind": ("apiVersion: aiops.io/v1\n",
                ["p.yaml:1: $: has no kind, so it is no policy. Add kind: RemediationPolicy, or move it elsewhere."]),
    "other_kind": ("kind: ConfigMap\n", [
        "p.yaml:1: $.kind: 'ConfigMap' is not a policy; only kind RemediationPolicy belongs here. "
        "Move it to another folder."]),
    "misspelt_kind": (change("RemediationPolicy", "RemediationPolcy"), [
        "p.yaml:2: $.kind: 'RemediationPolcy' is not a policy; only kind RemediationPolicy belongs here. "
        "Did you mean 'RemediationPolicy'?"]),
    "wrong_version": (change("aiops.io/v1", "aiops.io/v2"),
                      ["p.yaml:1: $.apiVersion: must be 'aiops.io/v1', got 'aiops.io/v2'."]),
    "no_actions": (GOOD.split("  actions:")[0], ["p.yaml:4: $.spec.actions: missing, and there is no default. Add it."]),
    "unknown_action": (change("Restart", "Restrat"),
                       ["p.yaml:7: $.spec.actions[0].type: unknown action type 'Restrat'. Did you mean 'Restart'?"]),
    "action_in_wrong_case": (change("Restart", "restart"),
                             ["p.yaml:7: $.spec.actions[0].type: unknown action type 'restart'. Did you mean 'Restart'?"]),
    "unknown_trigger": (change("type: Anomaly", "type: Alert"), [
        "p.yaml:5: $.spec.trigger: input tag 'Alert' found using 'type' does not match any of the expected tags: "
        "'Anomaly', 'Incident'."]),
    "unknown_detector": (change("metric: http_error_rate}", "metric: http_error_rate, model: isolation_florest}"), [
        "p.yaml:5: $.spec.trigger.model: unknown detector 'isolation_florest'. Did you mean 'isolation_forest'?"]),
    "sensitivity_out_of_range": (change("metric: http_error_rate}", "metric: http_error_rate, sensitivity: 95}"), [
        "p.yaml:5: $.spec.trigger.sensitivity: must be at most 1, got 95."]),
    "duration_in_words": (change("  actions:", "  guards: {cooldown: 5 minutes}\n  actions:"), [
        "p.yaml:6: $.spec.guards.cooldown: '5 minutes' is not a duration. Write for example 15s, 1h30m or 14d."]),
    "duration_without_unit": (change("  actions:", "  verify: {settle: 60}\n  actions:"), [
        "p.yaml:6: $.spec.verify.settle: 60 is not a duration. It has no unit. Write for example 15s, 1h30m or 14d."]),
    "share_in_words": (change("  actions:", "  guards: {maxUnavailable: half}\n  actions:"), [
        "p.yaml:6: $.spec.guards.maxUnavailable: 'half' is neither a count nor a share. Write for example 1 or 25%."]),
    "bad_mode": (change("  actions:", "  mode: automatic\n  actions:"), [
        "p.yaml:6: $.spec.mode: must be 'shadow', 'ask', 'act' or 'earned', got 'automatic'."]),
    "threshold_without_metric": (change("  actions:", "  feedback: {successThreshold: 0.1}\n  actions:"), [
        "p.yaml:6: $.spec.feedback: successMetric and successThreshold belong together. Give both or neither."]),
    "earned_without_learning": (change("  actions:", "  mode: earned\n  feedback: {learningEnabled: false}\n  actions:"), [
        "p.yaml:4: $.spec: mode 'earned' needs feedback.learningEnabled: true. Trust is earned from outcomes."]),
    "bad_log_pattern": (change("  actions:", "  diagnosis: {correlations: [{logs: 'a(b'}]}\n  actions:"), [
        "p.yaml:6: $.spec.diagnosis.correlations[0].logs: 'a(b' is not a regular expression: missing ), unterminated "
        "subpattern at position 1. To mean ( ) [ ] * + ? themselves, put a backslash before them."]),
    "metric_and_logs": (change("  actions:", "  diagnosis: {correlations: [{logs: a, metric: b}]}\n  actions:"), [
        "p.yaml:6: $.spec.diagnosis.correlations[0]: exactly one of metric, logs and events is needed."]),
    "condition_does_not_compile": (change('"true"', "corelation.x > 1"), [
        "p.yaml:8: $.spec.actions[0].condition: condition, line 1, column 11: nothing is called 'corelation'. "
        "Did you mean 'correlation'?\n    corelation.x > 1\n              ^"]),
    "condition_is_a_number": (change('"true"', "1 + 1"), [
        "p.yaml:8: $.spec.actions[0].condition: condition, line 1, column 1: this is a number, not true or false. "
        "Compare it: `… > 0.8`\n    1 + 1\n    ^"]),
    "misspelt_measurement": (change('"true"', "correlation.http_eror_rate > 0.1"), [
        "p.yaml:8: $.spec.actions[0].condition: correlation.http_eror_rate is not measured by this policy. "
        "Did you mean 'http_error_rate'?"]),
    "two_targets": (change("{deployment: shop/api}", "{deployment: api, pod: api-0}"), [
        "p.yaml:9: $.spec.actions[0].target: exactly one of pod, deployment, statefulset, daemonset is needed, found 2."]),
    "bad_name": (change("shop/api", "Shop_API"), [
        "p.yaml:9: $.spec.actions[0].target.deployment: 'Shop_API' is not a Kubernetes name. "
        "Write name or namespace/name, in lower case."]),
    "bad_selector": (change("{deployment: shop/api}", "{pod: 'selector:app in (a)'}"), [
        "p.yaml:9: $.spec.actions[0].target.pod: 'selector:app in (a)' is not a selector. "
        "Write selector:key=value, several with a comma."]),
    "bad_replicas": (change("Restart", "ScaleUp").replace("shop/api}", "shop/api, replicas: -1}"), [
        "p.yaml:9: $.spec.actions[0].target.replicas: -1 is no way to scale up. "
        'Write "+2" (two more, quoted) or 5 (to five).']),
    "unknown_template": (change("shop/api", '"${cause.nme}"'), [
        "p.yaml:9: $.spec.actions[0].target.deployment: nothing is called '${cause.nme}'. Did you mean '${cause.name}'?"]),
    "test_twice": (GOOD + "  tests:\n    - {name: a, expect: {decision: act}}\n    - {name: a, expect: {decision: act}}\n", [
        "p.yaml:12: $.spec.tests[1].name: 'a' is the name of two tests. Rename one."]),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_policy_is_explained(tmp_path, fault):
    """File, line, path, what is wrong and what to write instead."""
    text, expected = BROKEN[fault]
    assert problems(tmp_path, text) == expected


def test_all_problems_of_all_files_come_at_once(tmp_path):
    """A wrong model does not hide a wrong condition, nor one file another."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "q.yaml").write_text(change("Restart", "Nothing"))
    found = problems(tmp_path, change('"true"', "corelation.x > 1").replace("      condition", "      extra: 1\n      condition"))
    assert [f.split(": ")[1] for f in found] == \
        ["$.spec.actions[0].type", "$.spec.actions[0].extra", "$.spec.actions[0].condition"]
    assert found[0].startswith("deep/q.yaml:7")


def test_two_policies_of_one_name_are_refused(tmp_path):
    """The problem names the other file and line."""
    (tmp_path / "a.yaml").write_text(GOOD)
    assert problems(tmp_path, GOOD, "b.yaml") == \
        ["b.yaml:3: $.metadata.name: 'p' is already the name of the policy in a.yaml:3. Rename one."]


def test_a_path_that_does_not_exist_is_a_problem(tmp_path):
    """Not silently zero policies."""
    with pytest.raises(Problems, match="no such file or folder"):
        load([tmp_path / "nowhere"], shipped())


def test_what_is_no_yaml_file_is_left_alone(tmp_path):
    """A README beside the policies is not read."""
    (tmp_path / "README.md").write_text("x")
    (tmp_path / "p.yaml").write_text(GOOD)
    assert [p.name for p in load([Path(tmp_path)], shipped())] == ["p"]


@pytest.mark.parametrize("value", ["", "a,b=c", "x/../y", "a b", "selector:x"])
def test_only_names_are_filled_into_targets(tmp_path, value):
    """A label from telemetry cannot widen a selector or leave its path."""
    (tmp_path / "p.yaml").write_text(change("{deployment: shop/api}", '{pod: "selector:app=${cause.name}"}'))
    [policy] = load([tmp_path], shipped())
    with pytest.raises(ValueError, match=r"cause\.name is"):
        policy.steps[0].aim({"cause.name": value}, "shop")
    assert policy.steps[0].aim({"cause.name": "api"}, "shop")[0] == "pod/shop/selector:app=api"
