"""Conditions in CEL, the language of Kubernetes validation rules. The only module that knows the CEL library.

Compiled and type-checked when a policy is loaded; an evaluation never raises. What is not known is not met: a missing
measurement, a division by zero or an exhausted budget gives `met=False` with a reason, never an action.
Language: https://github.com/google/cel-spec
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

VARIABLES = ("correlation", "anomaly", "incident", "cause", "target", "history")
_STRING = re.compile(r"""("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')""")
_FIELD = re.compile(rf"""\b({"|".join(VARIABLES)})(?:\.\??([A-Za-z_]\w*)|\[\??(?:"([^"]*)"|'([^']*)')\])""")
_WHOLE, _IN = re.compile(r"(?<![\w.])correlation\b(?!\s*[.\[])"), re.compile(r"\bin\s*\Z")
_AT = re.compile(r"<input>:(\d+):(\d+): (.*?)(?: \(in container '[^']*'\))?$", re.M)
_MISSING = re.compile(r'Key not found in map : "(.*)"')
_CONFIG = "name: aiops\nextensions: [{name: optional}, {name: math}, {name: strings}, {name: lists}, {name: sets}]\n"


class ConditionError(ValueError):
    """A condition that does not compile. `line` and `column` count from 1."""

    def __init__(self, line: int, column: int, message: str, source: str) -> None:
        self.line, self.column, self.message = line, column, message
        shown = source.splitlines()[line - 1] if 0 < line <= len(source.splitlines()) else source
        super().__init__(f"condition, line {line}, column {column}: {message}\n    {shown}\n    {' ' * (column - 1)}^")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a condition holds, and why (not), with the values that it saw."""

    met: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Condition:
    """A compiled condition. Immutable and safe to share between threads."""

    text: str
    expression: Any

    @property
    def correlations(self) -> tuple[str, ...]:
        """The names under `correlation` that the text mentions, in order of appearance."""
        return tuple(dict.fromkeys(name for variable, name in fields(self.text) if variable == "correlation"))

    def evaluate(self, scope: Mapping[str, Any]) -> Verdict:
        """Read the condition over `scope`: one map for each of VARIABLES, and `now` in seconds."""
        data = {name: scope.get(name, {}) for name in VARIABLES} | {"now": float(scope.get("now", 0.0))}
        try:
            value = self.expression.eval(data=data)
            result = value.value()
        except RuntimeError as e:  # the loop budget
            return Verdict(False, f"{self.text}: {_plain(str(e))}")
        if isinstance(result, bool):
            return Verdict(result, f"{self.text} is {str(result).lower()}{self._seen(scope)}")
        return Verdict(False, self._unknown(str(result), scope))

    def _unknown(self, error: str, scope: Mapping[str, Any]) -> str:
        missing = _MISSING.search(error)
        if not missing:
            return f"{self.text}: {_plain(error)}"
        for variable, name in fields(self.text):
            if name == missing[1] and name not in scope.get(variable, {}):
                return f"{_spell(variable, name)} is not known in this incident"
        return f"{missing[1]!r} is not known in this incident"

    def _seen(self, scope: Mapping[str, Any]) -> str:
        """` (correlation.http_error_rate = 0.02, correlation.restarts is not known)`: each name with its value."""
        seen = {_spell(v, n): f" = {_short(scope[v][n])}" if n in scope.get(v, {}) else " is not known"
                for v, n in fields(self.text)}
        return f" ({', '.join(f'{name}{what}' for name, what in seen.items())})" if seen else ""


def fields(text: str) -> list[tuple[str, str]]:
    """`(variable, name)` for every `variable.name` and `variable["name"]`, left to right, strings left out."""
    kept = {m.start() for m in _STRING.finditer(text) if not text[: m.start()].rstrip().endswith(("[", "[?"))}
    strings = [m.span() for m in _STRING.finditer(text) if m.start() in kept]
    return [(m[1], m[2] or m[3] or m[4]) for m in _FIELD.finditer(text)
            if (m[2] or m[3] or m[4]) and not any(a < m.start() < b for a, b in strings)]


@lru_cache(maxsize=1)
def _environment() -> Any:
    from cel_expr_python import cel  # 50 MB; only where conditions are used

    values = cel.Type.Map(cel.Type.STRING, cel.Type.DYN)
    variables = dict.fromkeys(VARIABLES, values) | {"now": cel.Type.DYN}
    return cel.NewEnv(config=cel.NewEnvConfigFromYaml(_CONFIG), variables=variables)


@lru_cache(maxsize=4096)
def compile(text: str) -> Condition:
    """Compile and type-check. Raises ConditionError where it is not CEL, not known, or not a yes-or-no question."""
    _name_measurements(text)
    try:
        expression = _environment().compile(text)
    except RuntimeError as e:
        raise _error(str(e), text) from None
    result = expression.return_type().name()
    if result.upper() != "BOOL":
        kinds = {"DYN": "a value of unknown type", "INT": "a number", "DOUBLE": "a number", "UINT": "a number"}
        kind = kinds.get(result.upper(), f"a {result.lower()}")
        raise ConditionError(1, 1, f"this is {kind}, not true or false. Compare it: `… > 0.8`", text)
    return Condition(text, expression)


def _name_measurements(text: str) -> None:
    """`correlation` as a whole would hide that something is missing: of nothing, all are below a limit. `"x" in correlation`
    is a question about one of them."""
    without = _STRING.sub(lambda m: " " * len(m[0]), text)
    for m in _WHOLE.finditer(without):
        if not _IN.search(without[:m.start()]):
            line, column = text.count("\n", 0, m.start()) + 1, m.start() - text.rfind("\n", 0, m.start())
            raise ConditionError(line, column, "name one measurement, as correlation.NAME; all of them cannot be asked for", text)


def _error(message: str, text: str) -> ConditionError:
    at = _AT.search(message)
    if not at:
        return ConditionError(1, 1, _plain(message), text)
    return ConditionError(int(at[1]), int(at[2]), _remedy(at[3]), text)


def _remedy(message: str) -> str:
    undeclared = re.match(r"undeclared reference to '([^'.]+)", message)
    if undeclared:
        close = difflib.get_close_matches(undeclared[1], [*VARIABLES, "now"], n=1)
        hint = f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join([*VARIABLES, 'now'])}."
        return f"nothing is called {undeclared[1]!r}. {hint}"
    syntax = re.match(r"Syntax error: (?:mismatched|extraneous) input '(.*?)' expecting", message)
    if syntax:
        found = "the condition ends too early" if syntax[1] == "<EOF>" else f"{syntax[1]!r} is not expected here"
        return f"syntax error: {found}"
    overload = re.match(r"found no matching overload for '(.*?)' applied to '\((.*)\)'", message)
    if overload:
        return f"{_operator(overload[1])} cannot be applied to ({overload[2]})"
    return message


def _plain(message: str) -> str:
    """The library's message without its status codes and inner names."""
    overload = re.search(r"[Nn]o matching overloads found : (\S+?)\((.*)\)", message)
    if overload:
        return f"{_operator(overload[1])} cannot be applied to ({overload[2].replace('int64', 'int')})"
    text = re.sub(r"^[A-Z_]+: |\s*\[[A-Z_]+\]$", "", message.strip()).splitlines()
    return (text[0][:1].lower() + text[0][1:]) if text else "cannot be read"


def _operator(name: str) -> str:
    """`_>_` -> `'>'`."""
    return repr(name.strip("_").replace("_", " ") or name)


def _spell(variable: str, name: str) -> str:
    return f"{variable}.{name}" if name.isidentifier() else f'{variable}["{name}"]'


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else repr(value)
