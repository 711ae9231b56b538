"""Policies from texts: name of the text -> YAML. That is how they come in while the daemon runs, and how a journal keeps them.

A text is a file, named by its path below the folder of policies, or a custom resource, named `kubernetes:NAMESPACE/NAME`. What a
custom resource may touch is bounded by its namespace (policies/README.md, docs/decisions/024-policies-as-resources.md).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from aiops import yamlfile
from aiops.kinds import SYSTEM
from aiops.meaning import Meanings
from aiops.policy import load, templates
from aiops.policy.load import Policy
from aiops.types import entity_parts
from aiops.yamlfile import Document, Problem, Problems

RESOURCE = "kubernetes:"
MAX_RESOURCE = 64 * 1024
"""Bytes of one custom resource; a file may be longer, it was written by whoever runs the daemon."""
Texts = Mapping[str, str]


def read(folder: Path) -> dict[str, str]:
    """The files of a folder (or the one file) as texts. Raises Problems where one cannot be read, or nothing is there."""
    if folder.is_file():
        return {_name(Path(folder.name)): yamlfile.read_text(folder)}
    if not folder.is_dir():
        raise Problems([Problem(str(folder), 0, "", "no such folder. Make it, or name another under policies.")])
    problems: list[Problem] = []
    texts = {}
    for path in load.files(folder):
        try:
            texts[_name(path.relative_to(folder))] = yamlfile.read_text(path)
        except Problems as e:
            problems += e.problems
    if problems:
        raise Problems(problems)
    return texts


def _name(path: Path) -> str:
    """A file never looks like a custom resource."""
    name = path.as_posix()
    return f"./{name}" if name.startswith(RESOURCE) else name


def placed(problem: Problem, folder: Path) -> Problem:
    """The problem of a text, with the path of its file."""
    if problem.file.startswith(RESOURCE):
        return problem
    return replace(problem, file=str(folder if folder.is_file() else folder / problem.file))


@dataclass(frozen=True, slots=True)
class One:
    """What became of one text."""

    text: str
    found: tuple[tuple[Document, Policy], ...]
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class Compiled:
    """What became of a set of texts: the policies that are right, sorted by name, and what is wrong, by text."""

    policies: tuple[Policy, ...]
    problems: Mapping[str, tuple[Problem, ...]]
    taken: frozenset[str] = frozenset()
    """Those of `problems` that are right but for their name."""


class Compiler:
    """Texts to policies; what did not change since the last call is not compiled again.

    beyond: namespaces whose custom resources may act outside of them, where their guards name where.
    """

    def __init__(self, meanings: Meanings, beyond: Collection[str] = ()) -> None:
        self._meanings, self._beyond = meanings, frozenset(beyond)
        self._known: dict[str, One] = {}

    def __call__(self, texts: Texts) -> Compiled:
        """Of two policies of one name the first in the order of `texts` counts."""
        self._known = {name: self._one(name, text) for name, text in texts.items()}
        wrong = {name: one.problems for name, one in self._known.items() if one.problems}
        right = {name: one for name, one in self._known.items() if not one.problems}
        twice: dict[str, tuple[Problem, ...]] = {}
        for problem in load.duplicates([item for one in right.values() for item in one.found]):
            twice[problem.file] = (*twice.get(problem.file, ()), problem)
        good = [p for name, one in right.items() if name not in twice for _, p in one.found]
        return Compiled(tuple(sorted(good, key=lambda p: p.name)), wrong | twice, frozenset(twice))

    def _one(self, name: str, text: str) -> One:
        known = self._known.get(name)
        if known and known.text == text:
            return known
        problems: list[Problem] = []
        found = []
        try:
            for document in _documents(name, text):
                policy = load.compile_document(document, self._meanings, problems)
                if policy and name.startswith(RESOURCE):
                    policy = bounded(document, policy, self._beyond, problems)
                if policy:
                    found.append((document, policy))
        except Problems as e:
            problems += e.problems
        return One(text, tuple(found), tuple(problems))


def _documents(name: str, text: str) -> list[Document]:
    if not name.startswith(RESOURCE):
        return [d for whole in yamlfile.parse(text, name) for d in load.unlisted(whole)]
    if len(text.encode("utf-8", "replace")) > MAX_RESOURCE:
        raise Problems([Problem(name, 0, "$", f"larger than {MAX_RESOURCE >> 10} KiB. Split it.")])
    try:
        return [Document(name, json.loads(text), {})]
    except (ValueError, RecursionError) as e:
        raise Problems([Problem(name, 0, "$", f"cannot be read: {str(e)[:200]}.")]) from None


def bounded(document: Document, policy: Policy, beyond: Collection[str], problems: list[Problem]) -> Policy | None:
    """A custom resource with guards that keep it in its namespace, or what is wrong with where it wants to act.

    One that is trusted, and says in its guards where, may also act on what belongs to no namespace.
    """
    own = policy.namespace or "default"
    wanted = policy.spec.guards.namespaces or (own,)
    wrong = [*_namespaces(document, own, wanted, own in beyond), *_targets(document, policy, own, own in beyond)]
    problems += wrong
    if wrong:
        return None
    wide = own in beyond and bool(policy.spec.guards.namespaces)
    guards = policy.spec.guards.model_copy(update={"namespaces": wanted})
    return replace(policy, namespace=own, spec=policy.spec.model_copy(update={"guards": guards}), cluster_wide=wide)


def _namespaces(document: Document, own: str, wanted: tuple[str, ...], trusted: bool) -> Iterator[Problem]:
    place = ("spec", "guards", "namespaces")
    if not trusted:
        others = [n for n in wanted if n != own]
        if others:
            yield document.problem(place, f"a policy in namespace {own} acts in {own} only, not in {', '.join(others)}. Put it "
                                          f"there, or let policies.beyond in the daemon's configuration name {own}.")
        elif own in SYSTEM:
            yield document.problem(("metadata", "namespace"), f"{own} belongs to the cluster itself: let policies.beyond in the "
                                                              "daemon's configuration name it.")


def _targets(document: Document, policy: Policy, own: str, trusted: bool) -> Iterator[Problem]:
    """Targets that are named word for word and lie elsewhere; the others are judged when their names are known."""
    for i, step in enumerate(policy.steps):
        if trusted or any("${" in str(value) for value in step.target.values()):
            continue
        try:
            target = step.remediation.target.model_validate(templates.fill(step.target, {})).entity(own)
        except (ValidationError, ValueError):
            continue
        where = entity_parts(target)[1]
        if where != own:
            what = f"in namespace {where}" if where else "of the whole cluster"
            yield document.problem(("spec", "actions", i, "target"), f"{target} is {what}; a policy in namespace {own} acts in "
                                                                     f"{own} only.")
