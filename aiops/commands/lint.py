"""Which problems files have: configurations, policies and packs, told apart by what is in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from aiops import yamlfile
from aiops.yamlfile import Document, Problem, Problems

POLICY, CONFIG = "RemediationPolicy", "Config"


def yaml_files(paths: Iterable[Path]) -> list[Path]:
    """Files as given, and the YAML files in folders, each once and sorted within its folder."""
    found: dict[Path, None] = {}
    for path in paths:
        inside = sorted(p for p in path.rglob("*") if p.suffix in (".yaml", ".yml") and p.is_file())
        found.update(dict.fromkeys(inside if path.is_dir() else [path]))
    return list(found)


def problems_of(files: Sequence[Path]) -> list[Problem]:
    """Everything that is wrong, in the order of the files."""
    found: list[Problem] = []
    policies = []
    for file in files:
        try:
            documents = yamlfile.read(file)
        except Problems as e:
            found += e.problems
            continue
        kinds = {_kind(d) for d in documents}
        if POLICY in kinds:
            policies.append(file)
        elif CONFIG in kinds:
            found += _config(file)
        else:
            found += [p for d in documents for p in _other(d)]
    found += _policies(policies)
    return sorted(found, key=lambda p: _place(p, files))


def _kind(document: Document) -> str:
    return str(document.data.get("kind", "")) if isinstance(document.data, dict) else ""


def _config(file: Path) -> Iterable[Problem]:
    from aiops.config import load

    try:
        load(file, {})
    except Problems as e:
        return e.problems
    return ()


def _policies(files: list[Path]) -> Iterable[Problem]:
    if not files:
        return ()
    from aiops import meaning
    from aiops.policy.load import load

    try:
        load(files, meaning.shipped())
    except Problems as e:
        return e.problems
    return ()


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
