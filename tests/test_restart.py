"""Lives of one daemon over one folder: made as `aiops run` makes it, stopped, killed, upgraded, and started again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import T0
from toys import Toys, toys

from aiops import app, feeds
from aiops.clock import ManualClock
from aiops.config import load
from aiops.daemon import Daemon
from aiops.meaning import shipped
from aiops.memory import SAVE_EVERY_S
from aiops.sinks.journal import Journal, runs
from aiops.types import LogLine, Report
from aiops.web.view import NotPossible

__all__ = ["toys"]
CONFIG = "store: state\nlisten: 127.0.0.1:0\nsources: [host]\ninterval: {step:g}s\ndetectors: {detectors}\n"
ALL = "[baseline, isolation_forest, absence, logs, newcomer, drift]"
SERIES = [("service//a", "app_errors", {}), ("service//a", "app_latency", {"q": "9"}), ("service//b", "hits_total", {}),
          ("node//n", "load", {})]


class Telemetry:
    """A source of four series: noise, with a jump on service//a wherever `fault` says. `order`: in which they are told."""

    name = "telemetry"

    def __init__(self, step_s: float, fault: Callable[[int], float] = lambda k: 0.0, order: Sequence[int] = (0, 1, 2, 3)) -> None:
        self.interval_s, self.fault, self.order = step_s, fault, order

    def poll(self, now: float, into: Any) -> None:
        k = round((now - T0) / self.interval_s)
        x = np.random.default_rng(k).normal(10.0, 1.0, 4)
        x[:2] += self.fault(k)
        x[2] = 100.0 * k + x[2]
        for i in self.order:
            entity, metric, labels = SERIES[i]
            into.sample(now, entity, metric, labels, float(x[i]), "counter" if i == 2 else "gauge")
        into.line(LogLine(now, "service//a", "ERROR broken pipe" if self.fault(k) and k % 2 else "INFO ok"))

    def close(self) -> None:
        """Nothing is held."""


class Life:
    """One process. `k` counts its ticks since T0."""

    def __init__(self, folder: Path, source: Telemetry, start: int = 0, detectors: str = ALL) -> None:
        (folder / "aiops.yaml").write_text(CONFIG.format(step=source.interval_s, detectors=detectors), encoding="utf-8")
        self.folder, self.k, self.step_s = folder, start, source.interval_s
        self.clock = ManualClock(T0 + start * source.interval_s)
        self.daemon = Daemon(load(folder / "aiops.yaml", {}), self.clock)  # type: ignore[arg-type]
        self.daemon._prepare()
        self.daemon.live.sources = [feeds.Source(source, self.clock)]
        self.reports: list[Report] = []
        self.daemon.live._sinks = [*self.daemon.live._sinks, self]

    def publish(self, report: Report) -> None:
        self.reports.append(report)

    def close(self) -> None:
        """A sink has nothing to close here."""

    def run(self, until: int) -> Life:
        for k in range(self.k, until):
            self.clock.sleep_until(T0 + k * self.step_s)
            self.daemon.live.sources[0].poll(self.daemon.live.intake)
            self.daemon.live.tick()
        self.k = until
        return self

    def breathe(self) -> Life:
        """A tick in which nothing came: the last one of an orderly end."""
        self.daemon.live.tick()
        return self

    def stop(self) -> Life:
        self.daemon._end()
        return self

    def kill(self) -> Life:
        """Gone at once: only what the system does for a dead process is done."""
        self.daemon.models._wait()
        self.daemon.store.close()
        self.daemon.server.stop()
        return self

    @property
    def models(self) -> dict[str, Any]:
        return {g.name: g for g in self.daemon.live.pipeline.models.all}

    @property
    def events(self) -> list[tuple[str, str]]:
        return [(e.kind, e.model) for r in self.reports for e in r.model_events]


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


def found(life: Life, since: int) -> list[Any]:
    return [(r.at, r.anomalies, [(i.id, i.opened_at, i.models, i.causes) for i in r.incidents])
            for r in life.reports if r.at > T0 + since * life.step_s + 1e-3]


def fault(k: int) -> float:
    return 30.0 if 250 <= k < 262 else 0.0


# ---------------------------------------------------------------------------------------------- as if nothing had been
@pytest.mark.slow
def test_a_restart_leaves_no_trace_in_what_is_found(alive: Callable[..., Life], tmp_path: Path) -> None:
    """Stopped and started, with the series coming in another order: the same anomalies, to the last bit, and incidents."""
    whole = alive(Telemetry(10.0, fault)).run(200).breathe().run(300).kill()
    shutil.rmtree(tmp_path / "state")
    alive(Telemetry(10.0, fault)).run(200).stop()
    second = alive(Telemetry(10.0, fault, order=(3, 1, 2, 0)), start=200).run(300)
    assert repr(found(second, 199)) == repr(found(whole, 199))
    assert sum(len(r.anomalies) for r in second.reports) > 10 and second.daemon.live.pipeline.book.opened == 1
    assert second.reports[0].counts.ready >= 4, "ready with the first step"


@pytest.mark.slow
def test_the_second_life_replays_as_it_was(alive: Callable[..., Life], tmp_path: Path,
                                           capsys: pytest.CaptureFixture[str]) -> None:
    """What it knew at the beginning lies beside its journal; without that, the replay says why it differs."""
    alive(Telemetry(10.0, fault)).run(240).stop()
    second = alive(Telemetry(10.0, fault), start=240).run(300)
    digest = second.daemon.live.pipeline.book.digest()
    folder = tmp_path / "state" / "journal"
    beginning = Journal(folder).beginning
    assert beginning.is_dir() and len(runs(folder)) == 2
    player = app.Player(folder, None)
    result = player.play()
    assert (result.digest, len(result.incidents)) == (digest, 1) and "note:" not in capsys.readouterr().err
    assert result.json()["models"] == sorted(g.id for g in second.models.values())
    [incident] = result.json()["incidents"]
    assert incident["models"] and set(incident["models"]) <= set(result.json()["models"])
    shutil.rmtree(beginning)
    assert app.Player(folder, None).play().digest != digest
    assert f"note: {beginning}: what the run had learned before is not there" in capsys.readouterr().err


@pytest.mark.slow
def test_the_first_life_needs_no_past(alive: Callable[..., Life], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing lies beside its journal, and nothing is missed."""
    first = alive(Telemetry(10.0, fault)).run(300).stop()
    folder = tmp_path / "state" / "journal"
    assert not Journal(folder).beginning.exists()
    assert app.Player(folder, None).play().digest == first.daemon.live.pipeline.book.digest()
    assert "note:" not in capsys.readouterr().err


@pytest.mark.slow
def test_what_a_killed_life_saw_after_its_last_save_is_gone_through_again(alive: Callable[..., Life]) -> None:
    """From its journal; as the past: nobody is told and nothing is done."""
    told: list[Report] = []
    first = alive(Telemetry(10.0)).run(200).kill()
    saved_at = first.daemon.models._saved_at
    assert T0 + 1990 - SAVE_EVERY_S < saved_at < T0 + 1990
    second = alive(Telemetry(10.0), start=201)
    second.daemon.live._receivers = [type("Person", (), {"publish": lambda _, r: told.append(r), "close": lambda _: None})()]
    second.run(205)
    missed = round((T0 + 1990 - saved_at) / 10)
    assert len(second.reports) == missed + 4 and [r.at for r in told] == [r.at for r in second.reports[-4:]]
    baseline = second.models["baseline"].serving.detector
    assert baseline.samples_seen()[:4].tolist() == [204, 204, 203, 204]  # each once; the first of a counter is no rate


@pytest.mark.slow
def test_after_an_orderly_end_there_is_nothing_to_go_through(alive: Callable[..., Life]) -> None:
    """Everything was saved."""
    alive(Telemetry(10.0)).run(50).stop()
    assert len(alive(Telemetry(10.0), start=60).run(61).reports) == 1


@pytest.mark.slow
def test_silence_of_the_daemon_is_nobody_elses(alive: Callable[..., Life]) -> None:
    """Who reported regularly before half an hour in which nobody listened is not absent when others are heard first."""
    alive(Telemetry(10.0)).run(100).stop()
    second = alive(Telemetry(10.0, order=(2, 3)), start=280).run(290)
    assert [a for r in second.reports for a in r.anomalies if a.detector == "absence"] == []
    second.daemon.live.sources[0].source.order = (0, 1, 2, 3)
    second.run(300)
    second.daemon.live.sources[0].source.order = (2, 3)
    second.run(310)
    assert {a.entity for r in second.reports for a in r.anomalies if a.detector == "absence"} == {"service//a"}


@pytest.mark.slow
def test_a_clock_that_was_ahead_does_not_blind_the_next_life(alive: Callable[..., Life]) -> None:
    """Saved in a future that has not come: learning goes on now."""
    alive(Telemetry(10.0), start=100_000).run(100_100).stop()
    second = alive(Telemetry(10.0)).run(50)
    assert second.models["baseline"].serving.detector.samples_seen()[:2].tolist() == [150, 150]


@pytest.mark.slow
def test_pods_that_are_gone_make_room(alive: Callable[..., Life]) -> None:
    """Signals that were silent for long are forgotten with the restart, and the others keep what they know."""
    first = alive(Telemetry(600.0, fault)).run(1)
    first.daemon.live.intake.sample(T0 + 1, "pod/shop/gone", "m", {}, 1.0)
    first.run(100).stop()
    assert len([s for s in first.daemon.live.pipeline.door.signals if not s.name.startswith("log_")]) == 5
    second = alive(Telemetry(600.0, fault, order=(3, 2, 1, 0)), start=100).run(300)
    names = [(s.entity, s.key) for s in second.daemon.live.pipeline.door.signals if not s.name.startswith("log_")]
    assert len(names) == 4 and not any(e.startswith("pod/") for e, _ in names)
    assert second.models["baseline"].serving.detector.samples_seen()[2:4].tolist() == [299, 300]
    assert second.daemon.live.pipeline.book.opened == 1


# ------------------------------------------------------------------------------------------------------- changed models
DAY = 144
"""Ticks of ten minutes."""


def toy(limit: float) -> str:
    return f"[baseline, {{toy: {{limit: {limit}}}}}]"


def spikes(k: int) -> float:
    return 10.0 if k % 20 == 0 else 0.0


@pytest.mark.slow
def test_changed_settings_are_tried_and_take_over(alive: Callable[..., Life], toys: Toys) -> None:
    """Beside the old ones for a day; then told, stored, named by what is found from then on, and kept over a restart."""
    first = alive(Telemetry(600.0), detectors=toy(50)).run(20).stop()
    old = first.models["toy"].id
    second = alive(Telemetry(600.0, lambda k: 40.0 if k % 40 > 35 else 0.0), start=20, detectors=toy(45))
    second.run(30)
    new = second.models["toy"].candidate.id
    assert second.events == [("shadow", new)] and second.models["toy"].id == old
    second.run(20 + DAY + 10)
    assert second.events == [("shadow", new), ("takeover", new)]
    at = next(r.at for r in second.reports if r.model_events and r.at > T0 + 20 * 600.0)
    assert DAY * 600.0 <= at - (T0 + 20 * 600.0) <= (DAY + 5) * 600.0
    assert [i.models for r in second.reports if r.at > at for i in r.incidents if i.opened_at > at] == []
    assert {m for r in second.reports if r.at > at for m in r.models} >= {new} and old not in second.reports[-1].models
    told = second.daemon.store.model_events()
    assert [(e["kind"], e["model"]) for e in told] == [("takeover", new), ("shadow", new)]
    assert "24 h side by side" in told[0]["text"]
    assert any("took over from" in n for r in second.reports for n in r.notes)
    second.run(400).stop()
    incidents = [i for r in second.reports for i in r.incidents]
    assert {m for i in incidents if i.updated_at < at for m in i.models if m.startswith("toy")} == {old}
    assert {m for i in incidents if i.opened_at > at + 7200 for m in i.models if m.startswith("toy")} == {new}
    third = alive(Telemetry(600.0), start=400, detectors=toy(45)).run(402)
    assert (third.models["toy"].id, third.models["toy"].previous.id, third.events) == (new, old, [])


@pytest.mark.slow
def test_a_worse_candidate_stays_in_the_shadow(alive: Callable[..., Life], toys: Toys) -> None:
    """Over restarts, with its figures; what it says goes nowhere."""
    first = alive(Telemetry(600.0), detectors=toy(50)).run(20).stop()
    old = first.models["toy"].id
    second = alive(Telemetry(600.0, spikes), start=20, detectors=toy(15)).run(80).stop()
    figures = second.models["toy"].trial.state()
    third = alive(Telemetry(600.0, spikes), start=80, detectors=toy(15))
    assert third.models["toy"].trial.state() == figures
    third.run(20 + 2 * DAY + 10)
    new = third.models["toy"].candidate.id
    assert third.events == [("kept", new)] * 2 and third.models["toy"].id == old
    assert [a for r in third.reports for a in r.anomalies if a.detector == "toy"] == []
    [summary] = [m for m in third.daemon.live.pipeline.models.summaries() if m["detector"] == "toy"]
    assert summary["candidate"]["not_worse"] is False


def desk(life: Life) -> Any:
    return life.daemon.server._app.state.view


@pytest.mark.slow
def test_one_command_takes_it_back(alive: Callable[..., Life], toys: Toys, tmp_path: Path) -> None:
    """Through the front door and the journal: the replay does the same; and it holds over a kill and a restart."""
    first = alive(Telemetry(600.0), detectors=toy(50)).run(20).stop()
    old = first.models["toy"].id
    second = alive(Telemetry(600.0, lambda k: 35.0 if k % 40 > 35 else 0.0), start=20, detectors=toy(40)).run(30)
    new = second.models["toy"].candidate.id
    with pytest.raises(NotPossible, match="toy has no model from before"):
        desk(second).roll_back("toy", "ann")
    with pytest.raises(LookupError):
        desk(second).promote("tow", "ann")
    desk(second).promote("toy", "ann")
    second.run(60)
    assert second.models["toy"].id == new
    desk(second).roll_back("toy", "ann")
    second.run(61)
    assert second.models["toy"].id == old and second.events[-2:] == [("promoted", new), ("rollback", old)]
    assert desk(second).models()["events"][0]["text"].endswith(f"{new} was taken back by ann")
    second.run(150)
    digest = second.daemon.live.pipeline.book.digest()
    second.kill()
    player = app.Player(tmp_path / "state" / "journal", None)
    assert player.play().digest == digest
    assert [(e.kind, e.model) for e in _events(tmp_path)][-2:] == second.events[-2:]
    third = alive(Telemetry(600.0), start=150, detectors=toy(40)).run(152)
    assert (third.models["toy"].id, third.models["toy"].candidate, third.events[-1][0]) == (old, None, "refused")


def _events(folder: Path) -> list[Any]:
    """What the replay of the last run says of models."""
    heard: list[Any] = []
    sink = type("Ear", (), {"publish": lambda _, r: heard.extend(r.model_events), "close": lambda _: None})()
    app.Player(folder / "state" / "journal", None).play(sinks=(sink,))
    return heard


@pytest.mark.slow
def test_an_upgrade_whose_old_code_is_gone_learns_anew_and_says_so(alive: Callable[..., Life], toys: Toys,
                                                                   tmp_path: Path) -> None:
    """The other detectors keep what they know; what was learned stays in a file, for who goes back."""
    alive(Telemetry(600.0), detectors=toy(50)).run(40).stop()
    toys.write(version=2)
    second = alive(Telemetry(600.0), start=40, detectors=toy(50))
    assert second.daemon.models.since is None, "the past is read once more, for the one that needs it"
    assert (tmp_path / "state" / "models" / "toy.set-aside.state").exists()
    second.run(45)
    assert second.events[0][0] == "fresh" and second.models["toy"].serving.detector.n[:4].tolist() == [5, 5, 4, 5]
    assert second.models["baseline"].serving.detector.samples_seen()[:2].tolist() == [45, 45]


@pytest.mark.slow
def test_an_upgrade_whose_old_code_is_there_is_tried_first(alive: Callable[..., Life], toys: Toys) -> None:
    """The old serves, the new learns beside it."""
    alive(Telemetry(600.0), detectors=toy(50)).run(40).stop()
    toys.write(version=2)
    toys.keep(1)
    second = alive(Telemetry(600.0), start=40, detectors=toy(50)).run(40 + DAY + 10)
    assert [kind for kind, _ in second.events] == ["shadow", "takeover"]
    assert second.models["toy"].id.startswith("toy-v2-") and second.models["toy"].previous.id.startswith("toy-v1-")


@pytest.mark.slow
def test_a_damaged_file_costs_one_detector_its_memory(alive: Callable[..., Life], tmp_path: Path, logged: list[Any]) -> None:
    """Told when the daemon starts; the others go on."""
    alive(Telemetry(10.0)).run(60).stop()
    next((tmp_path / "state" / "models").glob("newcomer-*")).write_bytes(b"garbage")
    second = alive(Telemetry(10.0), start=60)
    assert "does not match its checksum" in str(logged)
    second.run(62)
    assert second.models["newcomer"].serving.detector._ticks == 2
    assert second.models["baseline"].serving.detector.samples_seen()[:2].tolist() == [62, 62]


@pytest.mark.slow
def test_a_detector_that_is_new_learns_from_the_past_and_the_others_pass_it_over(alive: Callable[..., Life], toys: Toys) -> None:
    """History is read in full: who knows it does not learn it twice."""
    alive(Telemetry(10.0), detectors="[baseline]").run(60).stop()
    second = alive(Telemetry(10.0), start=70, detectors="[baseline, toy]")

    class Past(Telemetry):
        def history(self, now: float, into: Any) -> Iterator[float]:
            for k in range(70):
                self.poll(T0 + 10.0 * k, into)
            yield T0 + 690.0
    second.daemon.live.sources = [feeds.Source(Past(10.0), second.clock)]
    second.run(75)
    assert second.models["toy"].serving.detector.n[:4].tolist() == [75, 75, 74, 75]
    assert second.models["baseline"].serving.detector.samples_seen()[:4].tolist() == [75, 75, 74, 75]


def test_prometheus_is_asked_for_what_is_not_known_yet(tmp_path: Path) -> None:
    """All of `backfill` at the first start, the time since the last save afterwards."""
    text = "sources:\n  - prometheus: {url: 'http://127.0.0.1:9', backfill: 2d}\n  - host\n"
    (tmp_path / "aiops.yaml").write_text(text, encoding="utf-8")
    config = load(tmp_path / "aiops.yaml", {})
    for since, asked in ((None, 2 * 86400.0), (T0 - 600.0, 600.0), (T0 - 9e9, 2 * 86400.0), (T0 + 60.0, 0.0)):
        made = feeds.sources(config, ManualClock(T0), shipped(), since)
        assert made[0].source._backfill_s == asked
        for source in made:
            source.close()


# ----------------------------------------------------------------------------------------------------------- saving
@pytest.mark.slow
def test_it_is_saved_every_quarter_of_an_hour_and_not_for_history(alive: Callable[..., Life], tmp_path: Path) -> None:
    """Of event time; a disk that refuses does not stop the watch."""
    class Past(Telemetry):
        def history(self, now: float, into: Any) -> Iterator[float]:
            for k in range(40):
                self.poll(T0 + 100.0 * k, into)
            yield T0 + 3900.0
    life = alive(Past(100.0), start=40)
    written: list[float] = []
    write = life.daemon.models._files.write
    life.daemon.models._files.write = lambda learned: (written.append(learned.at), write(learned))  # type: ignore
    for k in range(41, 81):
        life.run(k).daemon.models._wait()
    assert len(life.reports) == 80 and written == [T0 + t for t in (4000.0, 4900.0, 5800.0, 6700.0, 7600.0)]

    def full(learned: object) -> None:
        raise OSError(28, "No space left on device")
    life.daemon.models._files.write = full  # type: ignore[method-assign]
    life.run(100)
    assert len(life.reports) == 100 and life.daemon.live.failed_steps == 0
    life.daemon.models._files.write = write  # type: ignore[method-assign]
    life.stop()
    index = json.loads((tmp_path / "state" / "models" / "index.json").read_text())
    assert (index["at"], index["ended"]) == (pytest.approx(T0 + 9900.0), True)


@pytest.mark.slow
def test_a_life_without_a_step_leaves_what_is_there(alive: Callable[..., Life], tmp_path: Path) -> None:
    """Started and stopped at once: the last one still takes a step, and nothing that was learned is lost."""
    alive(Telemetry(10.0)).run(60).stop()
    alive(Telemetry(10.0), start=61).stop()
    third = alive(Telemetry(10.0), start=62).run(63)
    assert third.models["baseline"].serving.detector.samples_seen()[:2].tolist() == [61, 61]


def test_beginnings_have_their_share_of_the_space(tmp_path: Path) -> None:
    """A quarter of what the journal may take; the newest stays however large it is, the oldest go first."""
    from test_journal import batch, write

    for run in range(1, 7):
        writer = write(tmp_path, [batch(float(run))], about={"started_at": float(run)}, keep_bytes=40_000)
        writer.beginning.mkdir()
        (writer.beginning / "x").write_bytes(bytes(4_000 if run < 6 else 9_000))
    write(tmp_path, [batch(9.0)], about={"started_at": 9.0}, keep_bytes=40_000)
    assert sorted(p.name for p in tmp_path.glob("*.models")) == ["0000000006000.models"]
    assert len(runs(tmp_path)) == 7


def test_beginnings_go_with_the_journals_they_belong_to(tmp_path: Path) -> None:
    """When the last segment of a run has expired, what it began with is of no use."""
    from test_journal import batch, write

    for run in (1, 2, 3):
        writer = write(tmp_path, [batch(float(run))], about={"started_at": float(run)})
        writer.beginning.mkdir()
    for path in tmp_path.glob("0000000001000-*"):
        path.unlink()
    write(tmp_path, [batch(4.0)], about={"started_at": 4.0})
    assert sorted(p.name for p in tmp_path.glob("*.models")) == ["0000000002000.models", "0000000003000.models"]
