"""A measurement that is missing never makes a condition true, whatever is built around it, and is named in the reason."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiops.policy import conditions
from aiops.policy.conditions import ConditionError

ATOMS = ("correlation.x > 3", "correlation.x < 3.0", "correlation.x != 3", "correlation.x == 3", "correlation.x in [3.0]",
         'correlation["x"] >= 0', "cause.score > 0.5", 'cause.name == "db"', "double(correlation.x) > 1.0",
         "math.abs(correlation.x) > 1.0", "correlation.x / 0 > 1", "correlation.x + cause.score > 1.0", "history.last_s > 60.0",
         "[1, 2].exists(i, correlation.x > 3)", "[1, 2].all(i, correlation.x > 3)", "correlation.x.startsWith('a')",
         "correlation.x", "type(correlation.x) == double", "(correlation.x > 3 ? true : true)")
"""Yes-or-no questions that cannot be answered without what is missing."""


def built(atoms: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Everything that can be made of them without a constant that decides by itself."""
    return st.recursive(atoms, lambda inner: st.one_of(
        inner.map(lambda a: f"!({a})"), st.tuples(inner, inner).map(lambda p: f"({p[0]} && {p[1]})"),
        st.tuples(inner, inner).map(lambda p: f"({p[0]} || {p[1]})"),
        st.tuples(inner, inner).map(lambda p: f"({p[0]}) == ({p[1]})"),
        st.tuples(inner, inner).map(lambda p: f"({p[0]}) != ({p[1]})"), inner.map(lambda a: f"({a} ? false : true)"),
        inner.map(lambda a: f"[{a}].all(b, b)"), inner.map(lambda a: f"![{a}].exists(b, b)")), max_leaves=6)


def verdict(text: str, scope: dict[str, Any] | None = None) -> conditions.Verdict | None:
    """None where it does not compile, which is refused when the policy is loaded."""
    try:
        return conditions.compile(text).evaluate(scope or {})
    except ConditionError:
        return None


@settings(deadline=None, max_examples=300)
@given(text=built(st.sampled_from(ATOMS)))
def test_whatever_is_built_of_unknown_things_is_not_met(text: str) -> None:
    """Negation, both sides of && and ||, comparison, choice, loops: not met, no exception, and it is said what is missing."""
    found = verdict(text)
    assert found is None or (not found.met and "is not known" in found.reason), text


@settings(deadline=None, max_examples=200)
@given(text=built(st.sampled_from((*ATOMS, "now > 0.0", "true", "false", "anomaly.score > 0.5"))),
       score=st.floats(allow_nan=True, allow_infinity=True), x=st.sampled_from([None, "a", 1, -0.0, float("nan"), [], {}, True]))
def test_no_condition_and_no_value_makes_an_exception(text: str, score: float, x: Any) -> None:
    """Values of any kind, where a number was thought of."""
    found = verdict(text, {"anomaly": {"score": score}, "correlation": {} if x is None else {"x": x}, "now": 1.0})
    assert found is None or isinstance(found.met, bool)


@pytest.mark.parametrize(("text", "met"), [
    ("!(correlation.x > 3)", False), ("correlation.x != 3", False), ("!(correlation.x in [1.0])", False),
    ("correlation.x > 3 || true", True), ("true || correlation.x > 3", True), ("correlation.x > 3 && false", False),
    ("!(correlation.x > 3 && false)", True), ("correlation.x > 3 || anomaly.score > 0.5", True),
    ("correlation.x > 3 || anomaly.score > 0.99", False), ("has(correlation.x)", False), ("!has(correlation.x)", True),
    ('"x" in correlation', False), ("correlation.?x.orValue(0.0) < 1.0", True), ("correlation.?x.orValue(0.0) > 1.0", False)])
def test_what_is_known_decides_by_the_rules_of_cel(text: str, met: bool) -> None:
    """`||` with a side that is true holds whatever the other is; has() and orValue() ask on purpose. What is missing is named."""
    found = verdict(text, {"anomaly": {"score": 0.9}})
    assert found is not None and found.met is met
    assert "correlation.x is not known" in found.reason or '"x" in' in text


@pytest.mark.parametrize("text", ["correlation == {}", "size(correlation) == 0", "dyn(correlation) != null",
                                  "[correlation] == [{}]", "correlation\n == {}",
                                  "!(correlation != correlation)", "cause == correlation"])
def test_all_measurements_together_cannot_be_asked_for(text: str) -> None:
    """Of nothing at all everything is true: the condition would hold because something is missing."""
    with pytest.raises(ConditionError, match="name one measurement") as caught:
        conditions.compile(text)
    assert text.splitlines()[caught.value.line - 1][caught.value.column - 1:].startswith("correlation")


@pytest.mark.parametrize("text", ["'correlation' == anomaly.metric", "'x' in correlation",
                                  "correlation.a>1.0 && 'b'  in  correlation", "correlation [\"x\"] > 1.0",
                                  "correlation . x > 1.0", 'correlation["correlation"] > 1.0'])
def test_the_word_alone_is_no_mistake(text: str) -> None:
    """In a string, before a name, after `in`."""
    assert verdict(text) is not None


@pytest.mark.parametrize("name", ["all", "exists", "filter", "map", "size"])
def test_loops_over_all_measurements_are_refused_when_a_policy_is_loaded(name: str) -> None:
    """They read as measurements of that name, which nobody makes."""
    assert conditions.fields(f"correlation.{name}(k, true)") == [("correlation", name)]
