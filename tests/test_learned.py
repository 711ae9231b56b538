"""All that was learned can be looked at, saved and forgotten; forgetting is a command that is replayed and survives."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import STEP_S, T0, Feed, alert, links
from test_policy_decide import policy
from test_restart import Life, Telemetry, found
from toys import toys
from typer.testing import CliRunner

from aiops import app, build, learned, meaning
from aiops.cli import app as cli
from aiops.client import Client, Denied
from aiops.commands.common import console
from aiops.commands.story import story
from aiops.desk import Desk, Vitals
from aiops.globs import named, signals_named
from aiops.pipeline import Pipeline
from aiops.rows import columnar
from aiops.sinks.metrics import Metrics
from aiops.store.models import ModelFiles
from aiops.store.sqlite import Store
from aiops.types import Command, Incident, LogLine, Outcome, Signal
from aiops.web.app import create_app
from aiops.web.server import Server
from aiops.web.view import NotPossible

__all__ = ["toys"]
ALL = ("baseline", "isolation_forest", "absence", "logs", "newcomer", "young", "ceased", "drift", "peers", "exhaustion")
ENTITIES = ("pod/shop/a-1", "pod/shop/a-2", "pod/shop/a-3", "node//n")


class Lab:
    """A pipeline over twelve series and some log lines, stepped one by one."""

    def __init__(self, detectors: tuple[str, ...] = ALL, policies: tuple[Any, ...] = ()) -> None:
        self.p: Pipeline = build.pipeline(meaning.shipped(), policies, "act", detectors)
        self.feed, self.k = Feed(), 0

    def run(self, ticks: int, *commands: Command) -> Lab:
        for n in range(ticks):
            x = np.random.default_rng(self.k).normal(10.0, 1.0, 12)
            row = {f"{e} {m}": float(x[3 * i + j]) + (1000.0 * self.k if m == "hits_total" else 0.0)
                   for i, e in enumerate(ENTITIES) for j, m in enumerate(("load", "app_latency", "hits_total"))}
            at = T0 + self.k * STEP_S
            lines = (LogLine(at, ENTITIES[0], f"INFO served request {self.k} well"),)
            self.report = self.p.step(self.feed.batch(at, row, lines=lines, commands=commands if n == 0 else ()))
            self.k += 1
        return self

    @property
    def at(self) -> float:
        return self.report.at

    def samples(self) -> dict[str, int]:
        return {f"{r['entity']} {r['signal']}": r["samples"] for r in learned.listing(self.p, "series", (), self.at, 1000)[1]}


def reset(kind: str, *names: str) -> Command:
    return Command(T0, "reset", kind, "ann", names)


# ------------------------------------------------------------------------------------------------------------- names
@pytest.mark.parametrize(("pattern", "hits"), [
    ("pod/shop/a", 0), ("pod/shop/a*", 2), ("pod/shop/a-1", 1), ("pod/shop/a-1 load", 1), ("* load", 2), ("*load", 0),
    ("* lo?d", 2), ("node//n n 2*", 1), ("node//n *", 1), ("nobody", 0), ("", 0)])
def test_a_name_is_an_entity_or_an_entity_and_a_signal(pattern, hits):
    """Wildcards reach within one of them; entities may hold blanks. One by one, or in columns: the same."""
    of = (Signal(0, "pod/shop/a-1", "load"), Signal(1, "pod/shop/a-2", "load"), Signal(2, "node//n n", "2x", 'a="b c"'))
    each = [named((pattern,), s.entity, s.key) for s in of]
    assert each == signals_named((pattern,), columnar(of)).tolist() and sum(each) == hits
    assert signals_named((), columnar(of)).all() and named((), "anything")


# ------------------------------------------------------------------------------------------------------------ series
def test_a_forgotten_series_begins_anew_and_the_others_go_on():
    """With all detectors; its counter goes on where it was, and everything is told with who wanted it."""
    lab = Lab().run(60)
    before = lab.samples()
    lab.run(1, reset("series", "pod/shop/a-1", "node//n hits*"))
    assert [(e.kind, e.detector, e.text) for e in lab.report.model_events] == [
        ("reset", "series", "series pod/shop/a-1, node//n hits*: forgotten by ann, 9 of them")]
    after = lab.samples()
    gone = {key for key in before if key.startswith("pod/shop/a-1") or key == "node//n hits_total"}
    assert after.keys() == before.keys() and len(gone) == 9
    assert {key for key in after if after[key] <= 1} == gone
    assert {after[key] - before[key] for key in after.keys() - gone} == {1}
    lab.run(40)
    assert all(n >= 40 for key, n in lab.samples().items() if "log_" not in key)
    assert not lab.report.counts.dropped.get("unknown_series") and len(lab.p.door.signals) == len(before)


def test_the_others_are_judged_as_if_nothing_had_been():
    """The values of every signal, and the bands of those that were not forgotten, to the last bit."""
    one, two = Lab(("baseline",)).run(60), Lab(("baseline",)).run(60)
    one.run(1)
    two.run(1, reset("series", "pod/shop/a-2 app_latency"))
    for _ in range(30):
        one.run(1)
        two.run(1)
        for s in one.p.door.signals:
            mine, other = s.id, two.p.door.column(s.entity, s.key)
            a, b = one.p.history.column(mine), two.p.history.column(other)
            assert a[1][-1] == b[1][-1]
            if (s.entity, s.key) != ("pod/shop/a-2", "app_latency"):
                assert (a[2][-1], a[3][-1]) == (b[2][-1], b[3][-1])


def test_an_alert_on_what_is_forgotten_ends():
    """Nobody waits for a column that is gone."""
    lab = Lab(("baseline",)).run(60)
    wrong = {f"{ENTITIES[0]} load": 1000.0}
    for _ in range(4):
        lab.p.step(lab.feed.batch(T0 + lab.k * STEP_S, wrong))
        lab.k += 1
    assert "firing" in {t.state for t in lab.p.alerting._tracks.values()}
    lab.run(1, reset("series", ENTITIES[0]))
    lab.run(40)
    assert not lab.p.alerting._tracks


# ------------------------------------------------------------------------------------------------------ other kinds
def test_a_model_that_is_forgotten_can_be_called_back():
    """It becomes the model of before."""
    lab = Lab(("baseline", "logs")).run(60)
    lab.run(1, reset("models", "base*"))
    assert max(lab.samples().values()) == 1
    lab.run(1, Command(T0, "rollback", "baseline", "ann"))
    assert lab.report.model_events[0].kind == "rollback" and lab.run(1).samples()["node//n load"] > 50
    assert lab.run(1, reset("models", "nobody")).report.model_events[0].text.endswith("0 of them")


def test_templates_are_forgotten_with_what_was_counted_by_them():
    """Numbers of templates may be given again: nothing that was learned of the old ones is left."""
    lab = Lab(("baseline", "logs")).run(60)
    assert learned.listing(lab.p, "templates", (), lab.at)[1] == [
        {"entity": ENTITIES[0], "templates": ["INFO served request <*> well"]}]
    lab.run(1, reset("templates"))
    counted = {key: n for key, n in lab.samples().items() if "log_" in key}
    assert counted and max(counted.values()) <= 1
    assert learned.listing(lab.p, "templates", (), lab.at)[1] == [{"entity": ENTITIES[0], "templates": []}]


def test_what_people_and_outcomes_taught_is_forgotten_by_name():
    """Records, sensitivity, accepted levels, habits, and the budget as a whole."""
    lab = Lab(("baseline",)).run(5)
    lab.p.decider.record.learn("errors|service", "Restart of pod", "helped")
    about = alert("service//a x", value=3.0, expected=1.0)
    lab.p.masks.watch([Incident("i", T0, T0, "open", "warning", ("service//a",), (about,))])
    lab.p.alerting.habits.add(T0, "service//a|x", 90.0)
    lab.run(1, Command(T0, "false_alarm", "i", "ann"))
    kinds = ("records", "sensitivity", "accepted", "habits")
    assert [learned.listing(lab.p, kind, (), lab.at)[0] for kind in kinds] == [1, 1, 1, 1]
    assert learned.listing(lab.p, "budget", (), lab.at)[1][0]["false_alarms"] == 1
    names = ("errors of service Restart*", "service//a x", "service//a", "*")
    lab.run(1, *(reset(kind, name) for kind, name in zip(kinds, names, strict=True)), reset("budget"))
    assert [e.text.rpartition(", ")[2] for e in lab.report.model_events] == ["1 of them"] * 5
    assert [learned.listing(lab.p, kind, (), lab.at)[0] for kind in kinds] == [0, 0, 0, 0]
    assert learned.listing(lab.p, "budget", (), lab.at)[1][0]["false_alarms"] == 0
    assert lab.run(1, reset("nonsense", "x")).report.model_events[0].text == "nonsense x: forgotten by ann, 0 of them"


def test_every_kind_can_be_shown_forgotten_and_saved_as_json():
    """None is forgotten in one of these places."""
    lab = Lab(policies=(policy(mode="earned"),)).run(40)
    assert {row["kind"] for row in learned.summary(lab.p)} == set(learned.KINDS) == set(lab.p.forgetting.kinds)
    told = json.loads(json.dumps(learned.everything(lab.p, lab.at), allow_nan=False))
    assert [r["standing"] for r in told["records"]["rows"]] == ["0 of 5 successes towards act"] * 2
    for kind in learned.KINDS:
        lab.run(1, reset(kind))
        assert lab.report.model_events[0].kind == "reset"
    lab.run(40)


# ------------------------------------------------------------------------------------------ replay, restart
EARNING = policy(trigger={"type": "Anomaly", "metric": "app_latency"}, diagnosis={}, mode="earned", feedback={}, undo=False,
                 actions=[{"type": "Restart", "target": {"deployment": "shop/a"}}], verify={"settle": "10s", "within": "3m"},
                 guards={"cooldown": "0s", "maxActions": {"count": 99, "per": "1h"}})


class World:
    """Three pods that are slow in turn until a restart was done; people approve, judge, and have something forgotten."""

    def __init__(self, p: Pipeline) -> None:
        self.p, self.seen, self.batches = p, [], []
        self.feed, self.k, self.slow, self.due = Feed(), 0, False, ()

    def run(self, until: int) -> World:
        while self.k < until:
            self.step()
        return self

    def step(self) -> None:
        k, at = self.k, T0 + self.k * STEP_S
        self.slow = self.slow or (k > 60 and k % 60 == 0)
        x = np.random.default_rng(k).normal(1.0, 0.05, 3)
        row = {f"{e} app_latency": float(x[i]) + 20.0 * (self.slow and i == k // 60 % 3) for i, e in enumerate(ENTITIES[:3])}
        batch = self.feed.batch(at, row, **self.answers(at))
        self.batches.append(batch)
        report = self.p.step(batch)
        self.due = report.actions
        self.seen.append(repr((report.actions, report.outcomes, report.notes, [i.id for i in report.incidents])))
        self.k += 1

    def answers(self, at: float) -> dict[str, Any]:
        """What people say to the last step's questions, and what became of its actions."""
        done = tuple(Outcome(a.id, "done", at) for a in self.due if a.decision == "act")
        self.slow = self.slow and not done
        said = [Command(at, "approve", a.id, "ann") for a in self.due if a.decision == "ask"]
        verdict = {170: "useful", 290: "false_alarm"}.get(self.k)
        names = list(self.p.masks.sensitivity.state()["about"])
        said += [Command(at, verdict, names[-1], "bob")] if verdict and names else []  # type: ignore[arg-type]
        said += [reset("series", ENTITIES[2])] if self.k == 330 else [reset("habits")] if self.k == 400 else []
        return {"outcomes": done, "commands": tuple(said), "links": None if self.k else links(
            *(f"deployment/shop/a owns {e}" for e in ENTITIES[:3]))}


def fresh() -> Pipeline:
    return build.pipeline(meaning.shipped(), (EARNING,), "act", ("baseline",))


def all_of(p: Pipeline, at: float) -> Any:
    return json.loads(json.dumps([learned.everything(p, at), p.decider.state(), p.masks.state()]))


@pytest.mark.slow
def test_live_replayed_and_cut_in_the_middle_all_learn_the_same(tmp_path):
    """Records and autonomy, words of people, and what was forgotten: equal batches, equal states, to the last bit."""
    whole = World(fresh()).run(520)
    at = T0 + 519 * STEP_S
    told = all_of(whole.p, at)
    [record] = told[0]["records"]["rows"]
    assert record["earned"] and record["helped"] >= 6 and record["standing"] == "acts by itself", record
    assert {(r["useful"], r["false_alarms"]) for r in told[0]["sensitivity"]["rows"]} == {(1, 1)}
    replayed = fresh()
    for batch in whole.batches:
        replayed.step(batch)
    assert all_of(replayed, at) == told
    cut = World(fresh()).run(350)
    files = ModelFiles(tmp_path)
    files.write(cut.p.learned(ended=True))
    again, kept = fresh(), files.read()
    assert kept is not None
    again.decider.restore(json.loads(json.dumps(cut.p.decider.state())))
    again.masks.restore(json.loads(json.dumps(cut.p.masks.state())))
    again.restore(kept, T0 + 350 * STEP_S)
    before, cut.p = len(cut.seen), again
    cut.feed = Feed()  # a new run numbers its series anew
    again.graph = again.evidence.graph = whole.p.graph
    cut.run(520)
    assert cut.seen[before:] == whole.seen[before:]
    assert all_of(cut.p, at)[0] == told[0]


@pytest.fixture
def alive(tmp_path: Path) -> Iterator[Callable[..., Life]]:
    """Starts lives over one folder; the last one is killed at the end of the test."""
    lives: list[Life] = []

    def start(*arguments: Any, **more: Any) -> Life:
        lives.append(Life(tmp_path, *arguments, **more))
        return lives[-1]
    yield start
    for life in lives[-1:]:
        life.kill()


def fault(k: int) -> float:
    return 30.0 if 250 <= k < 262 or 330 <= k < 342 else 0.0


def live_on(life: Life, until: int) -> Life:
    """At tick 280 somebody judges the first incident, at 290 two kinds are forgotten."""
    desk = life.daemon.server._app.state.view
    for k in range(life.k, until):
        if k == 280:
            desk.feedback(next(i.id for r in life.reports for i in r.incidents), "useful", "ann")
        if k == 290:
            desk.forget("series", ["service//b"], "ann")
            desk.forget("models", ["newcomer"], "ann")
        life.run(k + 1)
    return life


def knows(life: Life) -> Any:
    """All that it has learned, as JSON, without what is about the run: how many times anything was seen since its start."""
    p = life.daemon.live.pipeline
    return json.loads(json.dumps(learned.everything(p, T0 + 10 * life.k)))


@pytest.mark.slow
def test_a_restart_after_words_and_resets_leaves_no_trace(alive, tmp_path):
    """Stopped and started after both: what is found and what is known are the same to the last bit."""
    whole = live_on(alive(Telemetry(10.0, fault)), 300).breathe()
    whole = live_on(whole, 360).kill()
    shutil.rmtree(tmp_path / "state")
    live_on(alive(Telemetry(10.0, fault)), 300).stop()
    second = live_on(alive(Telemetry(10.0, fault, order=(3, 1, 2, 0)), start=300), 360)
    assert repr(found(second, 299)) == repr(found(whole, 299)) and second.daemon.live.pipeline.book.opened == 1
    one, two = knows(whole), knows(second)
    assert one["sensitivity"]["rows"] == two["sensitivity"]["rows"] != []
    assert one["budget"] == two["budget"] and one["habits"] == two["habits"] and one["series"] == two["series"]
    assert one == two


@pytest.mark.slow
def test_words_and_resets_are_replayed(alive, tmp_path):
    """The journal holds both: the same digest, the same state of all that was learned."""
    life = live_on(alive(Telemetry(10.0, fault)), 360)
    player = app.Player(tmp_path / "state" / "journal", None)
    assert player.play().digest == life.daemon.live.pipeline.book.digest()
    again = json.loads(json.dumps(learned.everything(player.pipeline, T0 + 3600)))
    assert again == knows(life)
    assert again["sensitivity"]["rows"][0]["useful"] == 1
    shown = life.daemon.server._app.state.view.incident(next(i.id for r in life.reports for i in r.incidents))
    assert [(r["signal"], r["useful"]) for r in shown["sensitivity"]] == [
        (r["signal"], r["useful"]) for r in again["sensitivity"]["rows"]]
    out = console()
    with out.capture() as told:
        for part in story(shown):
            out.print(part)
    assert "0.8" in told.get() and "times the usual evidence, less each day until" in told.get()
    [series] = [r for r in again["series"]["rows"] if r["entity"] == "service//b"]
    assert series["samples"] < 80 < max(r["samples"] for r in again["series"]["rows"])


@pytest.mark.slow
def test_what_was_forgotten_stays_forgotten_after_a_kill(alive, tmp_path):
    """It is on disk with the step; who asked for it stands in the audit record, and in the events of models."""
    first = live_on(alive(Telemetry(10.0, fault)), 291)
    assert any("forgotten by ann" in e["text"] for e in first.daemon.server._app.state.view.models()["events"])
    first.kill()
    told = [line for file in sorted((tmp_path / "state" / "audit").glob("*.jsonl")) for line in file.read_text().splitlines()]
    assert any('"verb":"reset"' in line and '"ann"' in line and "service//b" in line for line in told)
    assert any("series service//b: forgotten by ann, 1 of them" in line for line in told)
    second = alive(Telemetry(10.0, fault), start=291).run(292)
    samples = {r["entity"]: r["samples"] for r in knows(second)["series"]["rows"]}
    assert samples["service//b"] < 5 < 100 < samples["node//n"]
    assert knows(second)["sensitivity"]["rows"][0]["by"] == ["ann"]


# -------------------------------------------------------------------------------------------------- desk, API, words
class Page:
    """A desk over a pipeline, with the folder of a store."""

    def __init__(self, folder: Path, lab: Lab, token: str = "") -> None:
        self.store, self.said, self.lab = Store(folder / "a.sqlite"), [], lab
        self.vitals = Vitals(lab.p)
        self.vitals.publish(lab.report)

        def put(into: Path) -> None:
            ModelFiles(into / "models").write(lab.p.learned())

        self.desk = Desk(self.store, self.vitals, Metrics("0"), "ask", T0, lambda: lab.at, list, self.said.append,
                         (lambda: token) if token else None, files=(folder, put))  # type: ignore[arg-type]


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    made = Page(tmp_path, Lab(("baseline", "logs"), (policy(mode="earned"),)).run(40))
    yield made
    made.store.close()


@pytest.mark.parametrize(("kind", "names", "error", "why"), [
    ("serie", [], LookupError, "nothing of kind 'serie' is learned. Did you mean 'series'?"),
    ("x", [], LookupError, "Known: records, sensitivity"),
    ("series", ["pod/shop/a-9"], NotPossible, r"among series nothing is named 'pod/shop/a-9'. Did you mean 'pod/shop/a-"),
    ("models", ["baselin"], NotPossible, "among models nothing is named 'baselin'. Did you mean 'baseline'?"),
    ("records", ["zzz"], NotPossible, "'aiops learned show records' lists what there is"),
    ("budget", ["x"], NotPossible, "forgotten as a whole. Give no name")])
def test_what_is_not_there_is_answered_with_what_may_be_meant(page, kind, names, error, why):
    """And nothing is said to the pipeline."""
    with pytest.raises(error) as e:
        page.desk.forget(kind, names, "ann")
    assert why in str(e.value) and page.said == []


def test_forgetting_is_a_command_with_a_name(page):
    """How many it will be is said at once."""
    assert page.desk.forget("series", ["pod/shop/*"], "ann") == page.desk.learned_of("series", ["pod/shop/*"])["total"] > 9
    assert page.said == [Command(page.lab.at, "reset", "series", "ann", ("pod/shop/*",))]


@pytest.fixture
def server(page: Page) -> Iterator[str]:
    running = Server(create_app(page.desk), "127.0.0.1", 0)
    running.start()
    yield running.url.rstrip("/")
    running.stop()


def aiops(*words: str) -> Any:
    return CliRunner().invoke(cli, ["learned", *words])


@pytest.mark.slow
def test_the_command_line_shows_saves_and_forgets(page, server, tmp_path):
    """Over HTTP, as people do it."""
    shown = aiops("show", "--server", server).output
    assert shown.splitlines()[0].split() == ["KIND", "COUNT", "WHAT"] and len(shown.splitlines()) == 1 + len(learned.KINDS)
    assert "0 of 5 successes towards act" in aiops("show", "records", "--server", server).output
    rows = json.loads(aiops("show", "series", "node//n load", "-o", "json", "--server", server).output)["rows"]
    assert [r["samples"] for r in rows] == [40]
    assert aiops("show", "accepted", "--server", server).output == "No accepted: levels that people called a false alarm.\n"
    out = tmp_path / "l.tar.gz"
    assert f"{out}. learned.json" in aiops("export", "-o", str(out), "--server", server).output
    with tarfile.open(out) as tar:
        tar.extractall(tmp_path / "x", filter="data")
    assert json.loads((tmp_path / "x" / "learned" / "learned.json").read_text())["series"]["rows"]
    kept = ModelFiles(tmp_path / "x" / "learned" / "models").read()
    assert kept is not None and kept.at == page.lab.at and not list(tmp_path.glob("export-*"))
    assert "is there already" in str(aiops("export", "-o", str(out), "--server", server).exception)
    done = aiops("reset", "series", "node//n", "--by", "bob", "--server", server)
    assert done.output == "forgotten with the next step: series, 3 of them\n"
    assert page.said[-1].by == "bob" and page.said[-1].entities == ("node//n",)
    for words, why in ((("reset", "series"), "give names, or --all"), (("reset", "seris", "x"), "Did you mean 'series'"),
                       (("show", "seris"), "Did you mean 'series'")):
        assert why in str(aiops(*words, "--server", server).exception), words


@pytest.mark.parametrize("names", [["x" * 501], ["a"] * 21])
def test_a_question_that_is_too_long_is_refused(server, names):
    """Anybody who reaches the page may ask."""
    with pytest.raises(Denied) as e:
        Client(server).learned_of("series", names)
    assert e.value.status == 422


def test_the_page_shows_it(page, server):
    """Escaped like everything, and the same on the page as in the API."""
    from aiops.web.pages import learned as rendered

    text = rendered(page.desk)
    assert "0 of 5 successes towards act" in text and "What was learned" in text


@pytest.mark.slow
def test_writing_and_saving_need_the_token(tmp_path):
    """Looking does not."""
    page = Page(tmp_path, Lab(("baseline",)).run(5), token="secret")
    running = Server(create_app(page.desk), "127.0.0.1", 0)
    running.start()
    try:
        url = running.url.rstrip("/")
        assert aiops("show", "--server", url).exit_code == 0
        for words in (("reset", "series", "--all"), ("export", "-o", str(tmp_path / "y.tar.gz"))):
            assert "token" in str(aiops(*words, "--server", url).exception).lower()
        assert page.said == []
    finally:
        running.stop()
        page.store.close()
