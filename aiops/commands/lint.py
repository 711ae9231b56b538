"""Which problems files have: configurations, policies and packs, told apart by what is in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from aiops import yamlfile
from aiops.yamlfile import Document, Place, Problem, Problems

if TYPE_CHECKING:
    from aiops.config import Loaded
    from aiops.policy.load import Policy

POLICY, CONFIG = "RemediationPolicy", "Config"


def yaml_files(paths: Iterable[Path]) -> list[Path]:
    """Files as given, and the YAML files in folders, each once and sorted within its folder."""
    found: dict[Path, None] = {}
    for path in paths:
        inside = sorted(p for p in path.rglob("*") if p.suffix in (".yaml", ".yml") and p.is_file())
        found.update(dict.fromkeys(inside if path.is_dir() else [path]))
    return list(found)


@dataclass(slots=True)
class Findings:
    """What is wrong, and what is right but has no effect. `webhooks`: names of the configurations, None where there is none."""

    problems: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)
    webhooks: set[str] | None = None


def examine(files: Sequence[Path]) -> Findings:
    """Everything there is to say, in the order of the files."""
    found = Findings()
    policies = []
    for file in files:
        try:
            documents = yamlfile.read(file)
        except Problems as e:
            found.problems += e.problems
            continue
        kinds = {kind for d in documents for kind in (_kind(d), *_listed(d))}
        if POLICY in kinds:
            policies.append(file)
        elif CONFIG in kinds or any(_looks_like_config(d) for d in documents):
            _config(file, found)
        else:
            found.problems += [p for d in documents for p in _other(d)]
    found.problems += _policies(policies, found.webhooks)
    for items in (found.problems, found.notes):
        items.sort(key=lambda p: _place(p, files))
    return found


def _looks_like_config(document: Document) -> bool:
    """`aiops run` needs no kind: a file that begins with a setting is meant as one."""
    from aiops.schema import Config

    known = {field.alias or name for name, field in Config.model_fields.items()} - {"apiVersion", "kind"}
    return isinstance(document.data, dict) and not _kind(document) and not known.isdisjoint(document.data)


def _kind(document: Document) -> str:
    return str(document.data.get("kind", "")) if isinstance(document.data, dict) else ""


def _listed(document: Document) -> list[str]:
    """The kinds in a `kind: List`, as kubectl writes several objects."""
    items = document.data.get("items") if isinstance(document.data, dict) else None
    return [str(item.get("kind", "")) for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _config(file: Path, found: Findings) -> None:
    from aiops.config import read

    try:
        loaded = read(file, {})
    except Problems as e:
        found.problems += e.problems
        return
    found.notes += loaded.notes
    found.webhooks = (found.webhooks or set()) | set(loaded.config.webhooks)
    for problem, path in _missing(loaded, file):
        (found.problems if path.is_relative_to(loaded.base) else found.notes).append(problem)


def _missing(loaded: Loaded, file: Path) -> Iterator[tuple[Problem, Path]]:
    """Files and folders that the file names and that are not there. Beyond its own folder they may be on another machine."""
    config = loaded.config
    policies = ("policies", "folder") if isinstance(loaded.layers.data.get("policies"), dict) else ("policies",)
    named: dict[Place, Path | None] = {
        policies: config.policies.folder, ("packs",): config.packs, ("topology", "file"): config.topology.file}
    for place, path in named.items():
        origin = loaded.layers.given(place)
        if path is not None and origin.name == str(file) and not path.exists():
            text = f"{path}: no such file or folder here. Make it, or name another."
            yield Problem(origin.name, origin.line, yamlfile.dollar(place), text), path


def _policies(files: list[Path], webhooks: set[str] | None) -> Iterable[Problem]:
    """webhooks: whom the configuration beside them lets actions call; None where there is no configuration."""
    if not files:
        return ()
    from aiops import meaning
    from aiops.policy.load import load

    try:
        found = load(files, meaning.shipped())
    except Problems as e:
        return e.problems
    return [p for policy in found for p in _unknown_webhooks(policy, webhooks)] if webhooks is not None else ()


def _unknown_webhooks(policy: Policy, webhooks: set[str]) -> Iterator[Problem]:
    from aiops.oneof import hint

    for i, step in enumerate(policy.steps):
        name = str(step.target.get("webhook", "")) if step.type == "Webhook" else ""
        if name and "${" not in name and name not in webhooks:
            text = f"no webhook is called {name!r} in the configuration.{hint(name, tuple(sorted(webhooks)) or ('none',))}"
            yield Problem(policy.file, 0, f"$.spec.actions[{i}].target.webhook", text)


def _other(document: Document) -> Iterator[Problem]:
    """A pack, or something that is none of ours."""
    from aiops.meaning import Pack

    if isinstance(document.data, dict) and "pack" in document.data:
        try:
            yamlfile.validate(document, Pack)
        except Problems as e:
            yield from e.problems
        return
    kind = _kind(document)
    what = f"kind {kind!r} is not known" if kind else "is neither a configuration nor a policy nor a pack"
    yield document.problem(("kind",) if kind else (), f"{what}. Write kind: {CONFIG}, kind: {POLICY} or pack: NAME.")


def _place(problem: Problem, files: Sequence[Path]) -> tuple[int, int]:
    names = [str(f) for f in files]
    return (names.index(problem.file) if problem.file in names else len(names), problem.line)
