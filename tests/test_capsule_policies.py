"""A capsule keeps the policies that were in force, also those that came while the daemon ran."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from test_capsules import FAULT, POLICY, Shop, Watched, alive, story, told

from aiops import app
from aiops.capsules.cut import Slice
from aiops.capsules.redact import redacted
from aiops.capsules.write import policies

__all__ = ["alive"]


def test_what_was_in_force_at_the_beginning_is_told_apart_from_what_came_later() -> None:
    """The last set before the first batch replaces that of the run's beginning; none, where none was told."""
    a, b, c = {"a": "A"}, {"b": "B"}, {"c": "C"}
    assert policies(Slice(ats=[10.0, 20.0])) == {}
    assert policies(Slice(ats=[10.0, 20.0], policies=[(5.0, a), (20.0, b)])) == {"policies": a, "policy_changes": [[20.0, b]]}
    assert policies(Slice(ats=[10.0, 20.0], policies=[(10.0, a), (20.0, c)])) == {"policy_changes": [[10.0, a], [20.0, c]]}


@pytest.mark.slow
def test_a_capsule_with_an_edit_in_it_replays_to_the_same_decisions(
        alive: Callable[..., Watched], tmp_path: Path) -> None:
    """Before the fault another policy was in force; in its middle a second one came. Also without its names."""
    file = tmp_path / "policies" / "p.yaml"
    file.write_text(POLICY.replace("> 20.0", "> 9999.0"), encoding="utf-8")
    life = alive(Shop()).run(100)
    file.write_text(POLICY, encoding="utf-8")
    life.run(FAULT[0] + 15)
    file.with_name("q.yaml").write_text(POLICY.replace("restart-broken", "another").replace("20.0", "21.0"), encoding="utf-8")
    life.run(FAULT[-1] + 120)
    form = told(life)
    assert {(a["policy"], a["decision"]) for a in form["actions"]} == {("restart-broken", "shadow"), ("another", "shadow")}
    folder = tmp_path / "state" / "capsules" / form["id"]
    run = json.loads((folder / "run.json").read_text())
    assert [sorted(texts) for _, texts in run["policy_changes"]][-1] == ["p.yaml", "q.yaml"]
    [again] = app.Player(folder, None).play().json()["incidents"]
    assert story(again) == story(form)
    out = redacted(folder, tmp_path)
    [hidden] = app.Player(out, None).play().json()["incidents"]
    assert [(a["decision"], a["type"], a["at"]) for a in hidden["actions"]] == [
        (a["decision"], a["type"], a["at"]) for a in form["actions"]]
