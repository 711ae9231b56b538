"""The demo: one fault after the other, told, healed by the real pipeline, put back, for ever; and the command that shows it."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from fakes.collected import Collected
from test_demo import CURES, done
from test_run import until

from aiops import app, cli
from aiops.changes import value_at
from aiops.config import load
from aiops.demo.tour import CALM_S, FIELDS, FIRST_S, PATIENCE_S, REPAIR_S, SCENES, Tour
from aiops.demo.world import World
from aiops.show import SPEED, STARTED_AT, Demo
from aiops.types import Action, Command, Incident, Outcome, Report
from aiops.web import pages

sys.path.insert(0, str(Path(__file__).with_name("browser")))
from web_demo import calm

T0, TICK_S, READY_S, HEALED_S, END_S = 1_790_000_000.0, 15.0, 60.0, 240.0, 15.0
ROOT = Path(__file__).parents[1]


class Walk:
    """A tour through some scenes, tick by tick, with nobody who heals but the test."""

    def __init__(self, *scenes: Any, seed: int = 0) -> None:
        self.said: list[str] = []
        self.tour = Tour(self.said.append, seed, scenes or SCENES)
        self.world, self.at = World(1, [self.tour]), T0
        self.go_on(60.0)
        self.tour.set_out(self.world, self.at)

    def go_on(self, seconds: float) -> None:
        end = self.at + seconds
        while self.at < end:
            self.at += TICK_S
            self.world.tick(self.at, Collected())

    def specs(self) -> dict[str, Any]:
        objects = {e: o for e, o in self.world.cluster.objects.items() if not e.startswith("pod/")}
        return {e: copy.deepcopy([value_at(o, field) for field in FIELDS]) for e, o in objects.items()}

    def hear(self, **found: Any) -> None:
        self.tour.publish(Report(self.at, **found))


@pytest.mark.parametrize("scene", SCENES, ids=lambda s: s.kind.__name__)
def test_what_was_done_about_a_fault_is_put_back(scene):
    """Nodes are given back, replicas, images and jobs are as they were; and then the same can go wrong, and be cured, again."""
    walk = Walk(scene)
    before = walk.specs()
    walk.go_on(FIRST_S + TICK_S)
    for _ in range(2):
        assert f"since {walk.said[-1][:8]}" in walk.tour.text() and "harmless" not in walk.tour.text()
        for action, target, params in CURES[scene.kind.__name__]:
            outcome = done(walk.world, action, target.replace("gpu-1", scene.target), params, walk.at)
            assert outcome.status == "done", outcome.reason
            walk.go_on(4 * TICK_S)
        assert "harmless since" in walk.tour.text()
        walk.go_on(REPAIR_S)
        assert walk.specs() == before and "nothing is broken" in walk.tour.text()
        walk.go_on(CALM_S)
    assert [line.endswith(scene.text) for line in walk.said] == [True, False, True, False, True]


def test_what_nobody_cures_is_mended_by_people():
    """After a while, so that the tour goes on; and it is said that nothing was done."""
    walk = Walk(SCENES[0])
    walk.go_on(FIRST_S + PATIENCE_S - TICK_S)
    assert scene_of(walk) is not None
    walk.go_on(2 * TICK_S)
    assert scene_of(walk) is None
    walk.hear()
    assert walk.said[-1].strip() == "-> not found -> nothing was done -> people put it right after 40 min"


def scene_of(walk: Walk) -> str | None:
    return None if "nothing is broken" in walk.tour.text() else walk.tour.text()


def test_the_next_fault_waits_for_open_incidents():
    """So that each is seen from its beginning to its end; but one that is never closed does not end the tour."""
    walk = Walk(SCENES[0])
    walk.go_on(FIRST_S + PATIENCE_S + TICK_S)
    stays = Incident("i-1", walk.at, walk.at, "open", "warning", ("pod/shop/x",), ())
    walk.hear(incidents=(stays,))
    while walk.at < T0 + 60.0 + FIRST_S + 2 * PATIENCE_S - TICK_S:
        walk.go_on(TICK_S)
        walk.hear()
    assert len(walk.said) == 1
    walk.go_on(TICK_S)
    assert walk.said[1].endswith("nothing was done -> an incident still open after 1 h 20 min") and len(walk.said) == 3


def test_what_came_of_a_fault_is_told_in_one_line():
    """When it was found, what was done, whether it helped, how long it took."""
    walk = Walk(SCENES[0])
    walk.go_on(FIRST_S + TICK_S)
    i = Incident("i-1", walk.at, walk.at, "open", "warning", ("pod/shop/chat-0",), ())
    acts = Action("a-1", "Restart", "pod/shop/chat-0", {}, "i-1", "p", "act", "", walk.at)
    asks = Action("a-2", "ScaleUp", "deployment/shop/chat", {}, "i-1", "q", "ask", "", walk.at)
    walk.hear(incidents=(i,), actions=(acts, asks))
    done(walk.world, "Restart", "pod/shop/chat-0", {}, walk.at)
    walk.go_on(REPAIR_S + 2 * TICK_S)
    walk.hear(incidents=(), outcomes=(Outcome("a-1", "helped", walk.at, ""),))
    assert len(walk.said) == 1
    closed = Incident("i-1", i.opened_at, walk.at, "closed", "warning", i.entities, ())
    walk.hear(incidents=(closed,))
    assert walk.said[-1].strip() == "-> found 15 s later -> Restart pod shop/chat-0: it helped -> all well after 7 min"


def test_equal_seeds_give_equal_tours():
    """First as written, then shuffled as the seed says."""
    def order(seed):
        tour = Tour(lambda line: None, seed=seed)
        return [next(tour._scenes) for _ in range(3 * len(SCENES))]
    assert order(1) == order(1) != order(2)
    assert tuple(order(2)[:len(SCENES)]) == SCENES
    assert sorted(s.text for s in order(2)[-len(SCENES):]) == sorted(s.text for s in SCENES)


def test_the_page_says_that_it_is_a_simulation():
    """On each page, word for word, and escaped; a real one says nothing of it."""
    view = calm()
    real = view.status()
    assert "imulation" not in pages.overview(view)
    view.status = lambda: {**real, "simulation": "Made up.\nIn truth: <b>"}
    for page in (pages.overview(view), pages.incident(view, view.incident("inc-55aa")), pages.missing(view, "x")):
        assert '<section class="card simulation" aria-label="Simulation">' in page
        assert "Made up.</p><p>In truth: &lt;b&gt;</p>" in page


@pytest.mark.parametrize(("options", "text"), [
    (["-c", "x.yaml"], "so it takes no configuration file. Leave out -c, or --demo."),
    (["--store", "x"], "remembers nothing after its end. Leave out --store, or --demo."),
    (["--listen", "0.0.0.0:1"], "there is no tokenFile"),
    (["--policies", "nowhere"], "nowhere: no such file or folder"),
])
def test_what_makes_no_sense_with_a_demo_is_refused(options, text, capsys):
    """In one sentence, and nothing is started."""
    assert cli.main(["run", "--demo", *options]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and text in said and said.count("\n") == 1


def test_sources_in_the_environment_are_refused_too(monkeypatch, capsys):
    """Whoever names sources wants them watched."""
    monkeypatch.setenv("AIOPS_SOURCES", '[{"host": {}}]')
    assert cli.main(["run", "--demo"]) == 2
    assert "Unset AIOPS_SOURCES, or leave out --demo." in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_each_fault_of_the_tour_is_healed():
    """By the shipped policies, through the pipeline: none is left for people. Memory does not grow with the faults, nor does
    the alarm level: what was healed was true.
    """
    said: list[str] = []
    pipeline = app.demo_pipeline(load(None, {}, {"mode": "act"}))
    demo = Demo(pipeline, said.append)
    while not demo.warm:
        demo.tick(())
    demo.tour.set_out(demo.world, demo.at)
    while len(said) < 2 * len(SCENES):
        demo.tick((demo.tour,))
    assert [line for line in said if "people put it right" in line or "not found" in line] == []
    assert sum("it helped" in line for line in said) == len(SCENES)
    assert not demo.world.cluster.calls and len(demo.world.faults) == 1
    assert demo.at - STARTED_AT < 6 * 3600.0
    assert pipeline.alerting.budget.verdicts.count("healed") >= len(SCENES) and pipeline.alerting.level < 12.0


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_in_mode_ask_a_person_heals():
    """Nothing is done before somebody agrees; then it is, and it is verified as ever."""
    said: list[str] = []
    demo, heard = Demo(app.demo_pipeline(load(None, {}, {"mode": "ask"})), said.append), Heard()
    while not demo.warm:
        demo.tick(())
    demo.tour.set_out(demo.world, demo.at)
    while not heard.actions:
        demo.tick((demo.tour, heard))
    [asked] = heard.actions
    assert (asked.decision, asked.type, asked.target, heard.outcomes) == ("ask", "Restart", "pod/shop/chat-0", [])
    demo.intake.command(Command(demo.at, "approve", asked.id, "a visitor"))
    while len(said) < 2:
        demo.tick((demo.tour, heard))
    assert "Restart pod shop/chat-0: it helped -> all well" in said[1]
    assert [o.status for o in heard.outcomes] == ["done", "helped"]


class Heard:
    """A sink that keeps what was decided, but for refusals, and what came of it."""

    def __init__(self) -> None:
        self.actions: list[Action] = []
        self.outcomes: list[Outcome] = []

    def publish(self, report: Report) -> None:
        self.actions += [a for a in report.actions if a.decision != "refused"]
        self.outcomes += report.outcomes


def ask(url: str, path: str, body: Any = None) -> Any:
    given = None if body is None else json.dumps(body).encode()
    with urlopen(Request(url + path, given, {"Content-Type": "application/json"}), timeout=10) as answer:
        return json.load(answer)


@pytest.fixture
def demo(tmp_path):
    """`aiops run --demo` as a child with a temporary folder of its own: its process, and its address once it tells it."""
    log, env = tmp_path / "stderr", {k: v for k, v in os.environ.items() if not k.startswith("AIOPS_")}
    (tmp_path / "tmp").mkdir()
    with log.open("w") as out:
        process = subprocess.Popen([sys.executable, "-m", "aiops.cli", "run", "--demo", "--listen", "127.0.0.1:0"], cwd=ROOT,
                                   stderr=out, stdout=subprocess.DEVNULL, env={**env, "TMPDIR": str(tmp_path / "tmp")})
    try:
        yield process, log, tmp_path
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(END_S)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_visitor_sees_a_fault_found_explained_healed_and_verified(demo):
    """The command as people start it: the whole loop on the page, an answer is heard, and Ctrl-C leaves nothing behind."""
    process, log, folder = demo
    url = until(lambda: log.read_text().partition("Page: ")[2].partition("\n")[0], READY_S, "the address of the page")

    def healed() -> Any:
        return next((i for i in ask(url, "/api/incidents")["incidents"]
                     if i["state"] == "closed" and any(o["status"] == "helped" for o in i["outcomes"])), None)
    incident = until(healed, HEALED_S, "an incident that was healed, verified and closed")
    [act] = [a for a in incident["actions"] if a["decision"] == "act"]
    assert (act["policy"], act["type"], act["target"]) == ("hung-engine", "Restart", "pod/shop/chat-0")
    assert [o["status"] for o in incident["outcomes"] if o["action"] == act["id"]] == ["done", "helped"]
    assert incident["causes"][0]["entity"] == "pod/shop/chat-0" and incident["causes"][0]["reasons"]
    status = ask(url, "/api/status")
    assert status["mode"] == "act" and f"{SPEED:g} times as fast as life" in status["simulation"]
    assert ask(url, f"/api/incidents/{incident['id']}/feedback", {"verdict": "useful"}) == {"accepted": True}
    with pytest.raises(HTTPError):
        ask(url, "/api/actions/a-none/approve", {})
    told = "-> found 15 s later -> Restart pod shop/chat-0: it helped -> all well after"
    assert until(lambda: told in log.read_text(), READY_S, "what came of it on the terminal")
    process.send_signal(signal.SIGINT)
    assert process.wait(END_S) == 0
    assert list((folder / "tmp").iterdir()) == [] and "Traceback" not in log.read_text()
