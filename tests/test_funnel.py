"""From noise to work: the same five numbers wherever they are shown, each stage within the one before."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers import T0, tiny_recording
from rich.console import Console as Rich

from aiops import app
from aiops.desk import Desk, Vitals
from aiops.incidents import IncidentBook
from aiops.sinks.metrics import Metrics
from aiops.store.sqlite import Store
from aiops.summary import print_summary
from aiops.types import Action, Incident, Priority
from aiops.web import pages

STAGES = ("raw_anomalies", "alerts", "incidents", "prioritised", "actionable")


@pytest.mark.parametrize("name", ["tiny", pytest.param("memory-leak", marks=pytest.mark.slow)])
def test_the_same_figures_in_all_places(tmp_path: Path, name: str) -> None:
    """In --json, on the last line of the terminal, on the page, in the API and in /metrics."""
    folder = tiny_recording(tmp_path / "tiny") if name == "tiny" else Path(__file__).parents[1] / "fixtures" / name
    player, store, metrics = app.Player(folder, None), Store(tmp_path / "s.sqlite"), Metrics("0")
    vitals = Vitals(player.pipeline)
    result = player.play(sinks=(store, vitals, metrics))
    desk = Desk(store, vitals, metrics, "replay", T0, lambda: T0, list, lambda command: None)
    funnel = result.json()["funnel"]
    assert tuple(funnel) == STAGES
    out = Rich(record=True, width=200, file=(tmp_path / "out").open("w", encoding="utf-8"))
    print_summary(result, {}, out)
    [line] = [x for x in out.export_text().splitlines() if "→" in x]
    assert [int(n.replace(",", "")) for n in re.findall(r"[\d,]+", line)] == list(funnel.values())
    shown = re.search(r'<ol class="funnel">(.*?)</ol>', pages.overview(desk), re.DOTALL)
    assert shown
    assert [int(n.replace(",", "")) for n in re.findall(r'<b class="num right">([\d,]+)</b>', shown[1])] == list(funnel.values())
    assert {k: desk.status()["counts"][k] for k in STAGES} == funnel
    told = {k: float(v) for k, v in re.findall(r"^aiops_(\w+?)_total ([\d.e+]+)$", metrics.text(), re.MULTILINE)}
    assert {k: told[k] for k in STAGES} == funnel
    assert sorted(funnel.values(), reverse=True) == list(funnel.values())
    assert funnel["incidents"] == len(result.incidents) >= 1
    store.close()


def test_what_each_stage_counts() -> None:
    """Urgent at some time, or with an answer: once each, however often it changes; a refusal is no answer."""
    book = IncidentBook()

    def incident(name: str, level: str) -> Incident:
        return Incident(name, T0, T0, "open", "warning", (f"node//{name}",), (), priority=Priority(level))  # type: ignore[arg-type]

    def figures() -> tuple[int, int, int]:
        return book.opened, book.prioritised, book.actionable
    book.update(T0, [incident("a", "P4"), incident("b", "P3"), incident("c", "P2")])
    assert figures() == (3, 1, 0)
    book.update(T0 + 1, [incident("a", "P1"), incident("c", "P3")])
    assert figures() == (3, 2, 0)
    action = Action("x", "Restart", "pod/a/b", {}, "b", "p", "refused", "why", T0)
    book.record(T0 + 2, [action], [], [])
    assert figures() == (3, 2, 0)
    book.record(T0 + 2, [Action("y", "Restart", "pod/a/b", {}, "b", "p", "shadow", "why", T0)], [], [])
    assert figures() == (3, 3, 1)
    told = book.get("a")
    assert told is not None
    assert [t.text for t in told.timeline if t.kind == "priority"] == ["priority is now P1, before P4"]
