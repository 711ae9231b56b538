"""Rules that choose and rewrite series by their labels, in the words and with the meaning of Prometheus' relabel_config.

https://prometheus.io/docs/prometheus/latest/configuration/configuration/#relabel_config. Expressions are matched from end to end.
They are Python's, kept to what RE2 knows, and to what cannot take long on labels from outside: no repetition without bound
within another one, and at most three in a row.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Action = Literal["keep", "drop", "labeldrop", "labelkeep", "replace", "hashmod"]
MOST_MATCHED = 512
"""Characters that an expression is matched against; longer text matches nothing."""
MOST_REPEATS = 3
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_REFERENCE = re.compile(r"\$(?:(\$)|\{(\w+)\}|(\w+))")
_UNBOUNDED = 2**31


class RuleError(ValueError):
    """A rule cannot be used; the text says why, and what to write."""


@dataclass(frozen=True)
class Rule:
    """One rule. Raises RuleError."""

    action: Action = "replace"
    source_labels: tuple[str, ...] = ()
    separator: str = ";"
    regex: str = "(.*)"
    target_label: str = ""
    replacement: str = "$1"
    modulus: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "pattern", compiled(self.regex))
        if self.action in ("replace", "hashmod") and not _NAME.fullmatch(_REFERENCE.sub("", self.target_label) or "_"):
            raise RuleError(f"targetLabel {self.target_label!r} is no label's name.")
        if self.action in ("replace", "hashmod") and not self.target_label:
            raise RuleError(f"{self.action} needs targetLabel.")
        if self.action == "hashmod" and self.modulus < 1:
            raise RuleError("hashmod needs a modulus of 1 or more.")
        if self.action in ("keep", "drop", "hashmod") and not self.source_labels:
            raise RuleError(f"{self.action} needs sourceLabels.")

    def apply(self, labels: dict[str, str]) -> dict[str, str] | None:
        """The labels after the rule, None where the series is dropped. Does not change what it is given."""
        pattern: re.Pattern[str] = self.pattern  # type: ignore[attr-defined]
        if self.action in ("labeldrop", "labelkeep"):
            return {k: v for k, v in labels.items() if bool(_match(pattern, k)) == (self.action == "labelkeep")}
        joined = self.separator.join(labels.get(name, "") for name in self.source_labels)
        if self.action == "hashmod":
            return labels | {self.target_label: str(_hash(joined) % self.modulus)}
        found = _match(pattern, joined)
        if self.action in ("keep", "drop"):
            return labels if bool(found) == (self.action == "keep") else None
        return _replaced(labels, expanded(self.target_label, found), expanded(self.replacement, found)) if found else labels


def relabelled(labels: dict[str, str], rules: Iterable[Rule]) -> dict[str, str] | None:
    """The labels after all rules, in order; None where one of them drops the series."""
    for rule in rules:
        found = rule.apply(labels)
        if found is None:
            return None
        labels = found
    return labels


def expanded(template: str, match: re.Match[str]) -> str:
    """`$1`, `${1}`, `$name` and `$$` in a template; a group that is not there stands for nothing."""
    groups = {str(i): g for i, g in enumerate((match[0], *match.groups()))} | match.groupdict()
    return _REFERENCE.sub(lambda m: m[1] or groups.get(m[2] or m[3]) or "", template)


def compiled(regex: str) -> re.Pattern[str]:
    """The expression, ready. Raises RuleError for what cannot be read, RE2 does not know, or could take very long."""
    if len(regex) > 2000:
        raise RuleError("the expression is longer than 2000 characters. Split it into several rules.")
    try:
        pattern = re.compile(regex, re.DOTALL)
        most = _repeats(re._parser.parse(regex, re.DOTALL))  # type: ignore[attr-defined]
    except (re.error, RecursionError, OverflowError) as e:
        raise RuleError(f"{regex!r} is no regular expression: {e}.") from None
    if most > MOST_REPEATS:
        raise RuleError(f"{regex!r} repeats without bound more than {MOST_REPEATS} times in a row. Split it into several rules.")
    return pattern


def _repeats(parsed: Any) -> int:
    """Repetitions without bound in the longest way through an expression. Raises RuleError."""
    total = 0
    for op, argument in parsed:
        name = str(op)
        if name in ("GROUPREF", "GROUPREF_EXISTS", "ASSERT", "ASSERT_NOT", "ATOMIC_GROUP", "POSSESSIVE_REPEAT"):
            raise RuleError("the expression looks around, refers to a group, or keeps what it took, which RE2 does not know. "
                            "Write it without.")
        if name in ("MAX_REPEAT", "MIN_REPEAT"):
            _, high, inner = argument
            within = _repeats(inner)
            free = high >= _UNBOUNDED or int(high) > 1000
            if within and int(high) > 1:
                raise RuleError("a repetition stands within another one, which could take for ever on long labels. "
                                "Write it without, for example (a|b)* instead of (a*|b)*.")
            total += within + free
        elif name == "SUBPATTERN":
            total += _repeats(argument[-1])
        elif name == "BRANCH":
            total += max(_repeats(branch) for branch in argument[1])
    return total


def _match(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    return pattern.fullmatch(text) if len(text) <= MOST_MATCHED else None


def _hash(text: str) -> int:
    """As Prometheus has it: the last eight bytes of the MD5, big end first."""
    return int.from_bytes(hashlib.md5(text.encode(), usedforsecurity=False).digest()[8:], "big")


def _replaced(labels: Mapping[str, str], target: str, value: str) -> dict[str, str]:
    """A label that becomes empty is gone; a target that is no name changes nothing."""
    if not _NAME.fullmatch(target):
        return dict(labels)
    return {**labels, target: value} if value else {k: v for k, v in labels.items() if k != target}
