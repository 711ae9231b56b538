"""The folder is the registry: names, types, and what is said about one that is not there."""

import sys

import pytest

from aiops import plugins


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package `gadgets` with two plug-ins, a helper and one file that holds nothing."""
    folder = tmp_path / "gadgets"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "scale_up.py").write_text("class Other: pass\nclass ScaleUp: pass\n")
    (folder / "grouping.py").write_text("def grouping(): return 1\n")
    (folder / "empty.py").write_text("x = 1\n")
    (folder / "_helper.py").write_text("raise RuntimeError('must not be imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "gadgets"
    for name in [n for n in sys.modules if n.split(".")[0] == "gadgets"]:
        del sys.modules[name]


def test_names_are_files_and_nothing_is_imported(package):
    """Helpers are left out; listing loads no plug-in."""
    assert plugins.names(package) == ["empty", "grouping", "scale_up"]
    assert plugins.type_names(package) == ["Empty", "Grouping", "ScaleUp"]
    assert "gadgets.scale_up" not in sys.modules


def test_a_plug_in_is_named_after_its_file(package):
    """The class in CamelCase, or the function."""
    assert plugins.load(package, "scale_up").__name__ == "ScaleUp"
    assert plugins.load_type(package, "ScaleUp") is plugins.load(package, "scale_up")
    assert plugins.load(package, "grouping")() == 1


@pytest.mark.parametrize(("load", "name", "text"), [
    (plugins.load, "grupping", "unknown gadget 'grupping'. Did you mean 'grouping'?"),
    (plugins.load, "ScaleUp", "unknown gadget 'ScaleUp'. Did you mean 'scale_up'?"),
    (plugins.load, "../x", "unknown gadget '../x'. Known: empty, grouping, scale_up."),
    (plugins.load_type, "ScaleUpp", "unknown gadget 'ScaleUpp'. Did you mean 'ScaleUp'?"),
    (plugins.load_type, "scaleup", "unknown gadget 'scaleup'. Did you mean 'ScaleUp'?"),
    (plugins.load, "_helper", "unknown gadget '_helper'. Known: empty, grouping, scale_up."),
])
def test_an_unknown_name_is_answered_with_the_nearest(package, load, name, text):
    """What is in the folder, and nothing outside of it."""
    with pytest.raises(plugins.UnknownPlugin) as caught:
        load(package, name)
    assert str(caught.value) == text


def test_a_file_without_its_class_is_a_mistake_of_its_author(package):
    """Said with the file and the name that was looked for."""
    with pytest.raises(TypeError, match=r"empty\.py: no class 'Empty' and no function 'empty'"):
        plugins.load(package, "empty")
