"""Relabel rules mean what they mean in Prometheus; what could be slow or is not understood is refused beforehand."""

from __future__ import annotations

import time

import pytest

from aiops.remote_write.relabel import MOST_MATCHED, Rule, RuleError, relabelled

POD = {"__name__": "up", "pod": "api-7d4", "namespace": "shop", "a": "1"}


@pytest.mark.parametrize(("rule", "expected"), [
    (Rule("keep", ("pod",), regex="api-.*"), POD), (Rule("keep", ("pod",), regex="api"), None),
    (Rule("drop", ("namespace", "pod"), regex="shop;api-.*"), None), (Rule("drop", ("namespace",), regex="sho"), POD),
    (Rule("keep", ("absent",), regex=""), POD), (Rule("drop", ("namespace", "a"), separator="/", regex="shop/1"), None),
    (Rule("labeldrop", regex="a|p.*"), {"__name__": "up", "namespace": "shop"}),
    (Rule("labelkeep", regex="__name__|pod"), {"__name__": "up", "pod": "api-7d4"}),
    (Rule(source_labels=("pod",), regex="(.+)-(.+)", target_label="app", replacement="${1}/$2$$"), POD | {"app": "api/7d4$"}),
    (Rule(source_labels=("pod",), regex="(?P<who>[a-z]+).*", target_label="app", replacement="$who"), POD | {"app": "api"}),
    (Rule(source_labels=("pod",), regex="x(.*)", target_label="app"), POD),
    (Rule(target_label="dc", replacement="eu"), POD | {"dc": "eu"}),
    (Rule(source_labels=("absent",), target_label="pod"), {k: v for k, v in POD.items() if k != "pod"}),
    (Rule(source_labels=("pod",), regex="(.+)", target_label="l_$9x", replacement="v"), POD | {"l_": "v"}),
    (Rule(source_labels=("a",), regex="(.)", target_label="n$1", replacement="v"), POD | {"n1": "v"}),
    (Rule("hashmod", ("c",), target_label="d", modulus=1000), POD | {"d": "976"})],
    ids=lambda x: f"{x.action}-{x.regex}" if isinstance(x, Rule) else "")
def test_each_action_does_what_it_does_in_prometheus(rule: Rule, expected: dict[str, str] | None) -> None:
    """Matched from end to end; the labels that come in are left as they are."""
    given = POD | {"c": "baz"}  # its hash is an example of Prometheus' own
    expected = None if expected is None else expected | ({"c": "baz"} if rule.action != "labelkeep" else {})
    assert rule.apply(given) == expected
    assert given == POD | {"c": "baz"}


def test_rules_are_applied_in_order_until_one_drops() -> None:
    """A later rule sees what an earlier one made."""
    rules = [Rule(source_labels=("pod",), regex="(.+)-.*", target_label="app"), Rule("drop", ("app",), regex="api")]
    assert relabelled(POD, rules) is None
    assert relabelled(POD, rules[:1]) == POD | {"app": "api"}


@pytest.mark.parametrize(("settings", "said"), [
    ({"action": "keep"}, "keep needs sourceLabels"),
    ({"action": "hashmod", "source_labels": ("a",), "target_label": "b"}, "modulus"),
    ({"action": "replace"}, "replace needs targetLabel"), ({"target_label": "a-b"}, "no label's name"),
    ({"regex": "("}, "no regular expression"), ({"regex": "(a*)*"}, "within another"), ({"regex": "(a|b+)+"}, "within another"),
    ({"regex": "(a{2,}){3}"}, "within another"), ({"regex": ".*a.*b.*c.*"}, "more than 3 times"), ({"regex": r"(a)\1"}, "RE2"),
    ({"regex": "a(?=b)"}, "RE2"), ({"regex": "a(?!b)"}, "RE2"), ({"regex": "a" * 3000}, "2000 characters"),
    ({"regex": "(" * 1500 + ")" * 400}, "no regular expression")])
def test_a_rule_that_cannot_be_used_is_refused_with_the_reason(settings: dict[str, object], said: str) -> None:
    """At the start, not with the first label that meets it."""
    with pytest.raises(RuleError, match=said):
        Rule(**({"target_label": "x"} if "regex" in settings else {}) | settings)  # type: ignore[arg-type]


def test_what_is_usual_is_accepted() -> None:
    """Alternatives count one by one, and classes may repeat."""
    usual = ("node_.*|container_.*|DCGM_.*|vllm:.*", "(.+);(.+);(.+)", "([a-z0-9-]+)-[a-f0-9]{5,10}-[a-z0-9]{5}", "(?i:prod)", "")
    for regex in usual:
        assert Rule("keep", ("a",), regex=regex)


def test_no_label_from_outside_makes_a_rule_slow() -> None:
    """The worst that is accepted, on the longest text that is matched; anything longer matches nothing."""
    rule = Rule("keep", ("a",), regex="(a+)(a+)(a+)b")
    began = time.thread_time()
    assert rule.apply({"a": "a" * 300}) is None
    assert time.thread_time() - began < 1.0
    assert Rule("keep", ("a",), regex=".*").apply({"a": "a" * (MOST_MATCHED + 1)}) is None
