"""Policy files to compiled policies. Everything that is wrong in all files is said at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from aiops import plugins, yamlfile
from aiops.meaning import Meanings
from aiops.policy import conditions, templates
from aiops.policy.conditions import Condition, ConditionError
from aiops.policy.schema import AnomalyTrigger, RemediationPolicy, Spec
from aiops.yamlfile import Document, Place, Problem, Problems

KIND = "RemediationPolicy"
MOST_ACTIONS = 20


@dataclass(frozen=True)
class Step:
    """One compiled action of a policy: the remediation, its raw target (names not filled in yet) and its condition."""

    type: str
    remediation: Any
    target: Mapping[str, Any]
    condition: Condition

    def aim(self, values: Mapping[str, str], namespace: str) -> tuple[str, dict[str, object]]:
        """Target entity and parameters with all names filled in. Raises ValueError in words for the user."""
        try:
            target = self.remediation.target.model_validate(templates.fill(self.target, values))
        except ValidationError as e:
            raise ValueError("; ".join(_words(item, self.remediation.target) for item in e.errors())) from None
        return target.entity(namespace), dict(target.params())


@dataclass(frozen=True)
class Policy:
    """One policy, ready to decide. `namespace` is where unqualified targets are looked for first. `cluster_wide`: it may also act
    on what belongs to no namespace, such as nodes."""

    name: str
    namespace: str | None
    file: str
    spec: Spec
    steps: tuple[Step, ...]
    cluster_wide: bool = True

    @cached_property
    def wanted(self) -> tuple[str, ...]:
        """Names of metrics that conditions mention without listing them under `diagnosis`."""
        listed = {c.key for c in self.spec.diagnosis.correlations} | {"logs"}
        used = [n for s in self.steps for n in s.condition.correlations]
        return tuple(dict.fromkeys(n for n in used if n not in listed))


def load(paths: Sequence[Path], meanings: Meanings) -> tuple[Policy, ...]:
    """The policies of files and folders (recursive, `*.yaml` and `*.yml`), sorted by name. Raises Problems with all."""
    problems: list[Problem] = []
    found: list[tuple[Document, Policy]] = []
    for path in _files(paths, problems):
        try:
            documents = [d for whole in yamlfile.read(path) for d in unlisted(whole)]
        except Problems as e:
            problems += e.problems
            continue
        for document in documents:
            policy = compile_document(document, meanings, problems)
            if policy:
                found.append((document, policy))
    problems += duplicates(found)
    if problems:
        raise Problems(problems)
    return tuple(sorted((p for _, p in found), key=lambda p: p.name))


def compile_document(document: Document, meanings: Meanings, problems: list[Problem]) -> Policy | None:
    """One document as a policy; what is wrong is added to `problems`, and None returned."""
    wrong = _wrong_kind(document)
    if wrong:
        problems.append(wrong)
        return None
    try:
        model = yamlfile.validate(document, RemediationPolicy)
    except Problems as e:
        problems += [*e.problems, *_conditions_anyway(document)]
        return None
    own: list[Problem] = []
    steps = [_step(document, i, model.spec, own) for i in range(len(model.spec.actions))]
    own += _detector(document, model.spec)
    own += [p for i, s in enumerate(steps) if s for p in _undeclared(document, i, s, model.spec, meanings)]
    own += _tests(document, model.spec)
    problems += own
    if own:
        return None
    meta = model.metadata
    return Policy(meta.name, meta.namespace, document.file, model.spec, tuple(s for s in steps if s))


def _files(paths: Iterable[Path], problems: list[Problem]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from files(path)
        elif path.exists():
            yield path
        else:
            problems.append(Problem(str(path), 0, "", "no such file or folder. Check the path."))


def files(folder: Path) -> list[Path]:
    """The YAML files of a folder and those below it, sorted. Hidden folders are left out: those of a mounted ConfigMap hold
    each file a second time."""
    return sorted(p for p in folder.rglob("*") if p.suffix in (".yaml", ".yml") and p.is_file()
                  and not any(part.startswith(".") for part in p.relative_to(folder).parts))


def unlisted(document: Document) -> list[Document]:
    """The items of a `kind: List`, as `kubectl get -o yaml` writes several objects; the document itself where it is none."""
    data = document.data
    items = data.get("items") if isinstance(data, dict) and data.get("kind") in ("List", f"{KIND}List") else None
    if not isinstance(items, list):
        return [document]
    return [Document(document.file, item, {place[2:]: line for place, line in document.lines.items()
                                           if place[:2] == ("items", i)}) for i, item in enumerate(items)]


def _wrong_kind(document: Document) -> Problem | None:
    data = document.data
    if not isinstance(data, dict):
        return document.problem((), f"is not a policy but a {type(data).__name__}. Start with apiVersion: aiops.io/v1.")
    kind = data.get("kind")
    if kind == KIND:
        return None
    if "kind" not in data:
        return document.problem((), f"has no kind, so it is no policy. Add kind: {KIND}, or move it elsewhere.")
    close = difflib.get_close_matches(str(kind), [KIND], n=1)
    hint = f"Did you mean {KIND!r}?" if close else "Move it to another folder."
    return document.problem(("kind",), f"{kind!r} is not a policy; only kind {KIND} belongs here. {hint}")


def _step(document: Document, i: int, spec: Spec, problems: list[Problem]) -> Step | None:
    place: Place = ("spec", "actions", i)
    rule = spec.actions[i]
    before = len(problems)
    condition = _condition(document, (*place, "condition"), rule.condition, problems)
    remediation = None
    try:
        remediation = plugins.load_type("remediations", rule.type)()
    except plugins.UnknownPlugin as e:
        text = str(e).replace("unknown remediation", "unknown action type")
        problems.append(document.problem((*place, "type"), text))
    if remediation:
        problems += _target(document, (*place, "target"), rule.target, remediation)
    if len(problems) > before or condition is None:
        return None
    return Step(rule.type, remediation, rule.target, condition)


def _condition(document: Document, place: Place, text: str, problems: list[Problem]) -> Condition | None:
    try:
        return conditions.compile(text)
    except ConditionError as e:
        problems.append(document.problem(place, str(e)))
        return None


def _conditions_anyway(document: Document) -> list[Problem]:
    """Conditions of a document whose model failed, so that their problems are not hidden by the others."""
    problems: list[Problem] = []
    spec = document.data.get("spec")
    actions = spec.get("actions") if isinstance(spec, dict) else None
    for i, rule in enumerate(actions[:MOST_ACTIONS] if isinstance(actions, list) else []):
        text = rule.get("condition") if isinstance(rule, dict) else None
        if isinstance(text, str) and 0 < len(text) <= 2000:
            _condition(document, ("spec", "actions", i, "condition"), text, problems)
        kind = rule.get("type") if isinstance(rule, dict) else None
        if isinstance(kind, str) and kind not in plugins.type_names("remediations"):
            problems += _unknown_type(document, i, kind)
    return problems


def _unknown_type(document: Document, i: int, kind: str) -> list[Problem]:
    try:
        plugins.load_type("remediations", kind)
    except plugins.UnknownPlugin as e:
        text = str(e).replace("unknown remediation", "unknown action type")
        return [document.problem(("spec", "actions", i, "type"), text)]
    return []


def _target(document: Document, place: Place, target: Mapping[str, Any], remediation: Any) -> list[Problem]:
    wrong = [(key, templates.unknown(value)) for key, value in target.items()]
    problems = [document.problem((*place, key), text) for key, text in wrong if text]
    if problems:
        return problems
    model = remediation.target
    try:
        model.model_validate(templates.fill(target, templates.SAMPLE))
    except ValidationError as e:
        for item in e.errors():
            where = tuple(p for p in item["loc"] if p in target)
            problems.append(document.problem((*place, *where), _words(item, model)))
    return problems


def _words(item: Any, model: Any = None) -> str:
    name = str(item["loc"][-1]) if item["loc"] else ""
    if item["type"] == "extra_forbidden":
        known = [field.alias or key for key, field in model.model_fields.items()] if model else []
        close = difflib.get_close_matches(name, known, n=1)
        return f"unknown key {name!r}. " + (f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(known)}.")
    if item["type"] == "missing":
        return f"{name!r} is missing. Add it."
    text = str(item["msg"]).removeprefix("Value error, ")
    return text if text.endswith(".") else f"{text}."


def _detector(document: Document, spec: Spec) -> list[Problem]:
    trigger = spec.trigger
    if not isinstance(trigger, AnomalyTrigger) or trigger.model is None:
        return []
    known = plugins.names("detectors")
    if not known or trigger.model in known:
        return []
    close = difflib.get_close_matches(trigger.model, known, n=1)
    hint = f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(known)}."
    return [document.problem(("spec", "trigger", "model"), f"unknown detector {trigger.model!r}. {hint}")]


def _undeclared(document: Document, i: int, step: Step, spec: Spec, meanings: Meanings) -> list[Problem]:
    """Measurements that a condition mentions and nobody makes: most likely misspelt, and then never met."""
    listed = [c.key for c in spec.diagnosis.correlations]
    known = [*listed, *meanings.signals, "logs"]
    problems = []
    for name in step.condition.correlations:
        if meanings.current(name) in known or meanings.knows(name):
            continue
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else "List it under $.spec.diagnosis.correlations."
        problems.append(document.problem(("spec", "actions", i, "condition"),
                                         f"correlation.{name} is not measured by this policy. {hint}"))
    return problems


def _tests(document: Document, spec: Spec) -> list[Problem]:
    """Two tests of one name."""
    problems = []
    seen: set[str] = set()
    for i, case in enumerate(spec.tests):
        if case.name in seen:
            text = f"{case.name!r} is the name of two tests. Rename one."
            problems.append(document.problem(("spec", "tests", i, "name"), text))
        seen.add(case.name)
    return problems


def duplicates(found: Sequence[tuple[Document, Policy]]) -> Iterator[Problem]:
    """Each policy that has the name of one before it."""
    first: dict[str, Document] = {}
    for document, policy in found:
        if policy.name in first:
            other = first[policy.name]
            line = other.line(("metadata", "name"))
            where = f"{other.file}:{line}" if line else other.file
            text = f"{policy.name!r} is already the name of the policy in {where}. Rename one."
            yield document.problem(("metadata", "name"), text)
        else:
            first[policy.name] = document
