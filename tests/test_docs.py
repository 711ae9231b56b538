"""The documentation is complete: a command, an option or a setting that nobody wrote about fails here."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import BaseModel

from aiops import config, inputs, schema
from aiops.cli import app
from aiops.yamlfile import Problems

ROOT = Path(__file__).parents[1]
DOCS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "deploy" / "README.md",
        ROOT / "docs" / "cli.md", ROOT / "docs" / "configuration.md", ROOT / "docs" / "models.md",
        ROOT / "docs" / "budget.md", ROOT / "docs" / "sources.md", ROOT / "docs" / "architecture.md", ROOT / "docs" / "gpus.md",
        ROOT / "docs" / "audit.md",
        ROOT / "docs" / "decisions" / "006-what-a-restart-keeps.md",
        ROOT / "docs" / "decisions" / "001-layout.md", ROOT / "docs" / "decisions" / "002-dependencies-and-lock.md"]
COMMON = {"--help", "--config", "--server", "--token-file", "--output"}


def text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def settings() -> str:
    """Where settings are documented."""
    return text("docs/configuration.md") + text("docs/sources.md")


def commands(group: Any = None, prefix: str = "aiops") -> Iterator[tuple[str, Any]]:
    for name, command in (group or typer.main.get_command(app)).commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


@pytest.mark.parametrize(("name", "command"), list(commands()), ids=[n for n, _ in commands()])
def test_each_command_and_option_is_documented(name: str, command: Any) -> None:
    """A heading in docs/cli.md, every option in its section, and the command in the README."""
    found = re.search(rf"^## `{name}`\n(.*?)(?=^## |\Z)", text("docs/cli.md"), re.MULTILINE | re.DOTALL)
    assert found, f"docs/cli.md: no section for {name}"
    options = {o for p in command.params for o in p.opts if o.startswith("--")} - COMMON
    assert {o for o in options if o not in found[1]} == set()
    assert name.split()[1] in text("README.md")


def test_no_command_is_documented_that_does_not_exist() -> None:
    """The reverse, for what was renamed or removed."""
    headings = set(re.findall(r"^## `(aiops [a-z ]+)`$", text("docs/cli.md"), re.MULTILINE))
    assert headings == {name for name, _ in commands()}


def keys(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield field.alias or name


SECTIONS = [m for m in {**vars(inputs), **vars(schema)}.values() if isinstance(m, type) and issubclass(m, schema.Strict)]


@pytest.mark.parametrize("model", SECTIONS, ids=lambda m: m.__name__)
def test_each_setting_is_documented(model: type[BaseModel]) -> None:
    """Every key of every section, as code in docs/configuration.md or docs/sources.md."""
    assert [k for k in keys(model) if f"`{k}`" not in settings()] == []


@pytest.mark.parametrize("kind", [k for k in inputs.SourceItem.model_fields if k != "recording"])
def test_each_key_of_a_source_is_in_the_table_of_its_kind(kind: str) -> None:
    """Each kind of source has a section of its own; what it lists is what it takes, and defaults are the defaults."""
    [section] = re.findall(rf"^## `{kind}`\n(.*?)(?=^## |\Z)", text("docs/sources.md"), re.MULTILINE | re.DOTALL)
    [model] = [m for m in SECTIONS if m.__name__.lower() == kind.replace("_", "")]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", section.split("`writeRelabel` takes")[0], re.MULTILINE))
    assert set(rows) == set(keys(model))
    required = {"url": "http://x", "query": "x", "paths": ["x"]}
    made = model(**{k: v for k, v in required.items() if k in model.model_fields}).model_dump(mode="json", by_alias=True)
    for key, shown in rows.items():
        if re.fullmatch(r"`?(\d[\w.]*|true|false)`?", shown):
            assert shown.strip("`") == (str(made[key]).lower() if isinstance(made[key], bool) else str(made[key])), key


def test_the_settings_of_detectors_are_documented_with_their_defaults() -> None:
    """A row each; and no row for what does not exist."""
    from aiops import plugins

    models = {name: plugins.settings(plugins.load("detectors", name)) for name in plugins.names("detectors")}
    expected = {(f"{name}: {key}", str(value)) for name, model in models.items() if model
                for key, value in model().model_dump(mode="json", by_alias=True).items()}
    [section] = re.findall(r"^## `detectors`\n(.*?)^## ", text("docs/configuration.md"), re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"^\| (\w+: \w+) \| (\S+) \|", section, re.MULTILINE)) == expected


def test_no_setting_is_documented_that_does_not_exist() -> None:
    """Every key in the first columns of the tables is one that a file may hold."""
    named = set()
    for section in settings().split("\n## ")[1:]:
        columns = 2 if section.startswith("`sinks`") else 1
        for row in re.findall(r"^\|(.*)\|$", section, re.MULTILINE):
            named |= {name for cell in row.split("|")[:columns] for name in re.findall(r"`(\w+)`", cell)}
    assert named <= config.known_keys()
    assert len(named) > 30


def test_the_example_configuration_is_good(tmp_path: Path) -> None:
    """It loads as it stands, and with each of the parts that are shown further down."""
    example, *parts = re.findall(r"```yaml\n(.*?)```", text("docs/configuration.md"), re.DOTALL)
    path = tmp_path / "aiops.yaml"
    for part in ("", *parts):
        path.write_text(example + part, encoding="utf-8")
        try:
            config.load(path, {})
        except Problems as e:
            pytest.fail(str(e))


def test_defaults_in_the_tables_are_the_defaults() -> None:
    """Figures that can be compared are compared."""
    found = config.default_for({"KUBERNETES_SERVICE_HOST": "1"}).model_dump(mode="json", by_alias=True)
    documented = text("docs/configuration.md")
    for key in ("mode", "listen", "store"):
        assert re.search(rf"^\| `{key}` \| `{re.escape(str(found[key]))}`", documented, re.MULTILINE), key
    for section in ("journal", "budget"):
        for key, value in found[section].items():
            shown = int(value) if isinstance(value, float) else value
            assert re.search(rf"^\| `{key}` \| `?{re.escape(str(shown))}`? \|", documented, re.MULTILINE), key


def test_each_module_is_in_the_table_of_layers() -> None:
    """Whoever looks for a file finds it, and nothing is named that is gone."""
    table = text("docs/architecture.md").split("| Layer | What |")[1]
    there = {p.stem for p in (ROOT / "aiops").iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()} - {"__init__"}
    named = set(re.findall(r"`aiops\.(\w+)`", table.split("\n\n")[0]))
    assert named == there


def test_the_readme_begins_with_how_to_run_and_how_to_test() -> None:
    """The first two commands are what most people came for."""
    assert re.findall(r"^make \w+", text("README.md"), re.MULTILINE)[:2] == ["make run", "make test"]


@pytest.mark.parametrize("path", DOCS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    """Relative links of each page name files that exist, and make targets that are mentioned can be made."""
    page = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page):
        assert (path.parent / target).exists(), target
    targets = set(re.findall(r"^([a-z]+):", text("Makefile"), re.MULTILINE))
    assert set(re.findall(r"`?\bmake (setup|run|demo|check|test|bench|lock|fmt)\b", page)) <= targets
    for script in re.findall(r"scripts/[\w.-]+", page):
        assert (ROOT / script).exists(), script


def test_no_page_or_script_names_a_machine() -> None:
    """Nothing that holds only where it was written."""
    tracked = [*DOCS, ROOT / "Makefile", ROOT / "Dockerfile", *(ROOT / "scripts").iterdir(), *(ROOT / "deploy").rglob("*.yaml")]
    for path in tracked:
        if path.is_file():
            assert not re.search(r"/root/|/home/\w|PIP_INDEX_URL=http", path.read_text(encoding="utf-8")), path


def test_version_is_the_same_everywhere() -> None:
    """Package, project file, image, manifests."""
    from aiops import __version__

    assert f'version = "{__version__}"' in text("pyproject.toml")
    assert f"newTag: {__version__}" in text("deploy/kustomization.yaml")
    assert subprocess.run(["grep", "-c", __version__, "Dockerfile"], cwd=ROOT, capture_output=True, check=True).stdout


def test_each_state_in_which_something_ends_is_documented() -> None:
    """A row each, and no row for what does not exist."""
    from typing import get_args

    from aiops.types import EndName

    [section] = re.findall(r"^## States.*?\n(.*?)^## ", text("docs/audit.md"), re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == set(get_args(EndName))
