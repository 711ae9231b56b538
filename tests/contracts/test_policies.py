"""Every shipped policy: loads, carries tests, passes them, and does nothing by itself on a fresh install."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiops.meaning import shipped
from aiops.policy import testing
from aiops.policy.load import load
from aiops.policy.schema import Case, Expect

FOLDER = Path(__file__).parents[2] / "policies"
FILES = sorted(FOLDER.glob("*.yaml"))
DOCUMENTED = "memory-pressure.yaml"  # word for word as in the documentation, so its tests are below


def policies(path):
    return load([path], shipped())


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_it_loads_and_its_own_tests_pass(path):
    """What is written about a policy in its tests is what it decides."""
    [policy] = policies(path)
    assert policy.spec.tests or path.name == DOCUMENTED
    assert [str(r) for r in testing.run([policy]) if not r.passed] == []


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_its_tests_show_it_acting_and_refusing(path):
    """A policy that was only ever seen to say yes was not tested."""
    [policy] = policies(path)
    decisions = {case.expect.decision for case in policy.spec.tests}
    assert path.name == DOCUMENTED or decisions >= {"ask", "refused"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_it_never_acts_without_being_told_to(path):
    """Shipped policies rehearse or ask."""
    [policy] = policies(path)
    assert policy.spec.mode in ("shadow", "ask")


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_the_readme_names_it(path):
    """The table of the folder is complete."""
    assert f"`{path.name}`" in (FOLDER / "README.md").read_text()


def test_all_together_have_names_of_their_own():
    """The folder loads as one."""
    assert len(policies(FOLDER)) == len(FILES)


CASES = {
    "errors": ({"http_error_rate": 0.9, "container_restarts": 0.0}, "shadow", "ScaleUp", "deployment/shop/api-server"),
    "restarts": ({"http_error_rate": 0.1, "container_restarts": 4.0}, "shadow", "Restart", "pod/shop/selector:app=api-server"),
    "neither": ({"http_error_rate": 0.1, "container_restarts": 3.0}, "refused", "ScaleUp", "deployment/shop/api-server"),
    "unknown": ({}, "refused", "ScaleUp", "deployment/shop/api-server"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_documented_policy_decides_as_it_reads(name):
    """Its conditions, in its order, in the namespace of what triggered it."""
    measured, decision, kind, target = CASES[name]
    case = Case(name=name, anomaly={"entity": "pod/shop/api-server-1"}, correlation=measured, expect={"decision": decision})
    action = testing.decide(policies(FOLDER / DOCUMENTED)[0], case, shipped())
    assert (action.decision, action.type, action.target) == (decision, kind, target)


@pytest.mark.parametrize(("expect", "wrong"), [
    ({"decision": "act"}, "expected decision act, got shadow: correlation.http_error_rate > 0.8 is true"),
    ({"decision": "shadow", "type": "Restart"}, "expected type Restart, got ScaleUp"),
    ({"decision": "shadow", "target": "x"}, "expected target x, got deployment/shop/api-server"),
    ({"decision": "shadow", "reason": "zzz"}, "expected a reason with 'zzz', got"),
    ({"decision": "none"}, "expected decision none, got shadow"),
])
def test_a_wrong_expectation_says_what_was_decided(expect, wrong):
    """Tests of policies can fail, and say how."""
    [policy] = policies(FOLDER / DOCUMENTED)
    case = Case(name="x", anomaly={"entity": "pod/shop/api-server-1"}, correlation={"http_error_rate": 0.9},
                expect=Expect(**expect))
    object.__setattr__(policy, "spec", policy.spec.model_copy(update={"tests": (case,)}))
    [result] = testing.run([policy])
    assert not result.passed
    assert wrong in str(result)
