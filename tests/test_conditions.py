"""Conditions: checked when loaded, never raising when read, and never true about what is not known."""

import math

import pytest

from aiops.policy import conditions
from aiops.policy.conditions import ConditionError

SCOPE = {"correlation": {"http_error_rate": 0.02, "container_restarts": 4.0, "logs:OutOfMemoryError": 2.0},
         "anomaly": {"metric": "memory"}, "cause": {}, "now": 100.0}


def verdict(text):
    return conditions.compile(text).evaluate(SCOPE)


@pytest.mark.parametrize("text", [
    "correlation.container_restarts > 3",
    "correlation.container_restarts == 4",
    'correlation["logs:OutOfMemoryError"] >= 2',
    "correlation.?nowhere.orValue(0.0) == 0.0",
    "now > 99 && anomaly.metric == 'memory'",
    "!has(correlation.nowhere)",
    "correlation.nowhere > 1 || correlation.container_restarts > 3",
])
def test_true_is_met(text):
    """Numbers compare across types, optional fields have defaults, and a known half of an `or` decides it."""
    assert verdict(text).met


def test_false_says_which_values_it_saw():
    """The reason shows the observed value beside the text that it failed."""
    assert verdict("correlation.http_error_rate > 0.8").reason == \
        "correlation.http_error_rate > 0.8 is false (correlation.http_error_rate = 0.02)"


@pytest.mark.parametrize(("text", "reason"), [
    ("correlation.p99 > 1.0", "correlation.p99 is not known in this incident"),
    ("!(correlation.p99 > 1.0)", "correlation.p99 is not known in this incident"),
    ("cause.name == 'api'", "cause.name is not known in this incident"),
    ('correlation["logs:x y"] > 0', 'correlation["logs:x y"] is not known in this incident'),
    ("1 / 0 > 1", "1 / 0 > 1: divide by zero"),
    ("anomaly.metric > 3", "anomaly.metric > 3: '>' cannot be applied to (string, int)"),
])
def test_what_cannot_be_known_is_not_met(text, reason):
    """A missing measurement, also under a negation, is neither true nor an exception."""
    got = verdict(text)
    assert (got.met, got.reason) == (False, reason)


def test_not_a_number_is_never_true():
    """NaN compares false to everything."""
    scope = {"correlation": {"x": math.nan}}
    assert not conditions.compile("correlation.x > 0.0").evaluate(scope).met
    assert not conditions.compile("correlation.x <= 0.0").evaluate(scope).met


def test_a_costly_condition_is_stopped():
    """A million iterations are over the budget; the condition is not met."""
    ten = "[1,2,3,4,5,6,7,8,9,10]"
    text = "true"
    for name in "abcdef":
        text = f"{ten}.all({name}, {text})"
    got = verdict(text)
    assert not got.met
    assert "budget" in got.reason


@pytest.mark.parametrize(("text", "line", "column", "message"), [
    ("corelation.x > 1", 1, 11, "nothing is called 'corelation'. Did you mean 'correlation'?"),
    ("rate > 1", 1, 1, "nothing is called 'rate'. Known: correlation, anomaly, incident, cause, target, history, now."),
    ("correlation.x >", 1, 16, "syntax error: the condition ends too early"),
    ("correlation.x > 1\n  && correlation.y <", 2, 21, "syntax error: the condition ends too early"),
    ("'a' > 1", 1, 5, "'>' cannot be applied to (string, int)"),
    ("namespace == 'x'", 1, 1, "reserved identifier: namespace"),
    ("correlation.x", 1, 1, "this is a value of unknown type, not true or false. Compare it: `… > 0.8`"),
    ("1 + 1", 1, 1, "this is a number, not true or false. Compare it: `… > 0.8`"),
])
def test_a_broken_condition_is_pointed_at(text, line, column, message):
    """Line, column and a caret under the place, from the compiler and before anything runs."""
    with pytest.raises(ConditionError) as caught:
        conditions.compile(text)
    error = caught.value
    assert (error.line, error.column, error.message) == (line, column, message)
    source, caret = str(error).splitlines()[-2:]
    assert source == "    " + text.splitlines()[line - 1]
    assert caret == " " * (4 + column - 1) + "^"


def test_nesting_is_limited():
    """A text that nests too deep is refused, not a crash of the compiler."""
    with pytest.raises(ConditionError, match="recursion limit"):
        conditions.compile("(" * 500 + "true" + ")" * 500)


def test_names_in_strings_are_not_measurements():
    """Only real references count as measurements."""
    text = "correlation.a > 1 && cause.name != 'correlation.b' && correlation['c d'] > 0 && correlation.?e.orValue(0) > 1"
    assert conditions.compile(text).correlations == ("a", "c d", "e")
