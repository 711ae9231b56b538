"""The daemon as people run it: a process of its own, from start to stop and to the replay of what it saw."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from aiops import app, build, chain, cli, feeds, meaning
from aiops.clock import ManualClock, WallClock
from aiops.config import load
from aiops.intake import Intake
from aiops.live import Live
from aiops.loop import NoActuator
from aiops.masks import Masks
from aiops.sinks.journal import Journal, JournalWriter
from aiops.sources.kubernetes.kinds import EVENTS
from aiops.sources.recording.folder import FolderRecording
from aiops.store.sqlite import Store
from aiops.types import Command
from aiops.windows import format_moment
from aiops.yamlfile import Problems

ROOT = Path(__file__).parents[1]
CONFIG = """\
kind: Config
store: state
listen: 127.0.0.1:0
detectors: [baseline, isolation_forest, peers, logs, absence, drift]
sources:
  - remote_write: {}
  - host: {interval: 1s}
"""
READY_S, STOP_S = 60.0, 10.0
CLOCK = WallClock()


def until(found: Callable[[], Any], seconds: float, what: str) -> Any:
    """The first true answer, asked for ten times a second. Fails after `seconds`."""
    end, pause = CLOCK.monotonic() + seconds, threading.Event()
    while not (answer := found()):
        if CLOCK.monotonic() > end:
            pytest.fail(f"not within {seconds:g} s: {what}")
        pause.wait(0.1)
    return answer


class Running:
    """`aiops run` as a child. Its stderr goes to a file, in which it tells its address."""

    def __init__(self, folder: Path, config: str = CONFIG, *options: str) -> None:
        folder.mkdir(exist_ok=True)
        self.log = folder / "stderr"
        (folder / "aiops.yaml").write_text(config, encoding="utf-8")
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "aiops.cli", "run", "-c", str(folder / "aiops.yaml"), *options], cwd=ROOT, stderr=log,
                stdout=subprocess.DEVNULL, env={k: v for k, v in os.environ.items() if not k.startswith("AIOPS_")})

    def text(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def url(self) -> str:
        """Where the page is, once it is said."""
        def said() -> str | None:
            assert self.process.poll() is None, self.text()
            match = re.search(r"Page: (\S+)$", self.text(), re.MULTILINE)
            return match and match[1]
        return str(until(said, READY_S, "the address of the page"))

    def answers(self, path: str) -> bool:
        try:
            with urlopen(self.url() + path, timeout=5) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False

    def status(self) -> Any:
        with urlopen(self.url() + "/api/status", timeout=5) as answer:
            return json.load(answer)

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(STOP_S)


@pytest.fixture
def started() -> Iterator[Callable[..., Running]]:
    """Starts daemons; none outlives the test."""
    running: list[Running] = []

    def start(*arguments: Any) -> Running:
        running.append(Running(*arguments))
        return running[-1]
    yield start
    for one in running:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait(STOP_S)


def refused(one: Running) -> str:
    """What a daemon says that does not start."""
    assert one.process.wait(READY_S) == 2
    return one.text()


def replayed(journal: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """What `aiops replay --json` prints."""
    capsys.readouterr()
    code = cli.main(["replay", str(journal), "--json"])
    out, err = capsys.readouterr()
    assert code == 0, err
    return json.loads(out)


# ------------------------------------------------------------------------------------------------- a daemon's life
@pytest.mark.slow
def test_a_run_from_start_to_the_replay_of_its_journal(
    tmp_path: Path, started: Callable[..., Running], capsys: pytest.CaptureFixture[str]) -> None:
    """Ready, watching, honest about what has no effect, alone on its store and port, ended in order, and repeatable."""
    one = started(tmp_path)
    until(lambda: one.answers("/readyz"), READY_S, "/readyz is 200")
    status = until(lambda: (s := one.status())["counts"].get("batches", 0) >= 3 and s, READY_S, "three steps")
    assert [(s["name"], s["state"]) for s in status["sources"]] == [("remote_write", "ok"), ("host", "ok"), ("aiops", "ok")]
    assert status["counts"]["signals"] > 30
    assert status["notes"] == []
    assert one.text().count("has no effect") == 0 and one.text().count("Page: ") == 1

    capsys.readouterr()
    assert cli.main(["incidents", "-o", "json", "--server", one.url()]) == 0
    assert json.loads(capsys.readouterr().out) == {"incidents": []}

    address = one.url().removeprefix("http://")
    assert refused(started(tmp_path / "two", CONFIG, "--store", str(tmp_path / "state"))) == (
        f"error: {tmp_path}/state/aiops.sqlite: used by another aiops (process {one.process.pid}). "
        "Stop it or set another 'store'.\n")
    assert refused(started(tmp_path / "three", CONFIG, "--listen", address)) == (
        f"error: listen: {address}: Address already in use. Another aiops may be running there; "
        "stop it or listen on another port.\n")

    one.process.send_signal(signal.SIGHUP)
    assert one.answers("/livez")
    assert one.end(signal.SIGTERM) == 0
    assert "Traceback" not in one.text()

    told = Journal(tmp_path / "state" / "journal")
    count = len(list(told.batches()))
    again = replayed(tmp_path / "state" / "journal", capsys)
    assert told.digest is not None
    assert (again["digest"], again["batches"]) == (told.digest, count)


@pytest.mark.slow
def test_a_killed_run_loses_nothing(
    tmp_path: Path, started: Callable[..., Running], capsys: pytest.CaptureFixture[str]) -> None:
    """After kill -9 every step that was shown is in the journal, the store opens, and the next run goes on."""
    one = started(tmp_path)
    seen = until(lambda: (n := one.answers("/readyz") and one.status()["counts"]["batches"]) >= 3 and n, READY_S, "three steps")
    assert one.end(signal.SIGKILL) == -signal.SIGKILL

    again = replayed(tmp_path / "state" / "journal", capsys)
    assert again["batches"] >= seen
    store = Store(tmp_path / "state" / "aiops.sqlite")
    assert (store.notice, store.incidents()) == ("", [])
    store.close()

    two = started(tmp_path)
    until(lambda: two.answers("/readyz"), READY_S, "ready again on the same store")
    assert two.end(signal.SIGTERM) == 0
    assert len(list((tmp_path / "state" / "journal").glob("*.gz"))) == 2, "the killed run's segment is closed, too"

    assert cli.main(["audit", "verify", str(tmp_path / "state")]) == 0
    found = list(chain.entries(tmp_path / "state" / "audit"))
    begun = [e["what"] for e in found if e["kind"] == "started"]
    assert len(begun) == 2 and begun[0] == begun[1], "the same version, configuration and policies"
    assert [e["what"] for e in found if e["kind"] == "stopped"] == [{"orderly": True}], "the killed run did not say so"


@pytest.mark.slow
def test_a_stop_holds_at_once_and_over_a_crash(
        tmp_path: Path, started: Callable[..., Running], capsys: pytest.CaptureFixture[str]) -> None:
    """`aiops stop`, a SIGKILL right after it, a file that stops too, and `aiops start`: on page, status and metrics."""
    config = "kind: Config\nstore: state\nlisten: 127.0.0.1:0\nsources: [{host: {interval: 1s}}]\nstop: {file: STOP}\n"
    first = started(tmp_path, config)
    until(lambda: first.answers("/readyz"), READY_S, "ready")
    assert cli.main(["stop", "--reason", "storm", "--by", "anna", "--server", first.url()]) == 0
    first.end(signal.SIGKILL)
    (tmp_path / "STOP").write_text("power cut")
    second = started(tmp_path, config)
    until(lambda: second.answers("/readyz"), READY_S, "ready")
    until(lambda: len(second.status()["stops"]) == 2, 10.0, "the file stops")
    stops = {s["source"]: (s["by"], s["reason"]) for s in second.status()["stops"]}
    assert stops == {"": ("anna", "storm"), f"the file {tmp_path}/STOP": (f"the file {tmp_path}/STOP", "power cut")}
    with urlopen(second.url(), timeout=5) as answer:
        page = answer.read().decode()
    assert "Stopped by anna since" in page and ": storm." in page
    until(lambda: any("stopped by the file" in n for n in second.status()["notes"]), 10.0, "a note")
    with urlopen(second.url() + "/metrics", timeout=5) as answer:
        assert 'aiops_stopped{by="people"} 1.0' in answer.read().decode()
    assert cli.main(["start", "--by", "ben", "--server", second.url()]) == 0
    assert cli.main(["start", "--server", second.url()]) == 1
    assert "Take it back there" in capsys.readouterr().err
    (tmp_path / "STOP").unlink()
    until(lambda: second.status()["stops"] == [], 10.0, "nobody stops any more")
    assert second.end(signal.SIGTERM) == 0
    assert replayed(tmp_path / "state" / "journal", capsys)


@pytest.mark.slow
def test_what_was_learned_outlives_the_process_and_can_be_called_back(
    tmp_path: Path, started: Callable[..., Running], capsys: pytest.CaptureFixture[str]) -> None:
    """The next one is ready at once; other settings are tried beside it, let in with one command, taken back with another;
    and the journal of it all replays."""
    def told(one: Running) -> Any:
        capsys.readouterr()
        assert cli.main(["model", "list", "-o", "json", "--server", one.url()]) == 0
        return {m["detector"]: m for m in json.loads(capsys.readouterr().out)["models"]}

    def serving(one: Running) -> str:
        return str(told(one)["isolation_forest"]["serving"])

    config = CONFIG.replace("1s", "200ms")
    one = started(tmp_path, config)
    until(lambda: one.answers("/readyz") and one.status()["counts"]["ready"] >= 10, READY_S, "ten signals are ready")
    old = serving(one)
    assert one.end(signal.SIGTERM) == 0

    two = started(tmp_path, config.replace("isolation_forest", "{isolation_forest: {trees: 64}}"))
    first = until(lambda: two.answers("/readyz") and (c := two.status()["counts"])["batches"] and c, READY_S, "a step")
    assert first["ready"] >= 10 and first["batches"] < 30, "ready without a warm-up"
    model = told(two)["isolation_forest"]
    new = model["candidate"]["id"]
    assert (model["serving"], model["candidate"]["settings"]["trees"], new != old) == (old, 64, True)
    assert cli.main(["model", "promote", "isolation_forest", "--server", two.url()]) == 0
    until(lambda: serving(two) == new, READY_S, "the candidate serves")
    assert cli.main(["model", "rollback", "--server", two.url()]) == 0
    until(lambda: serving(two) == old, READY_S, "the former serves")
    assert told(two)["isolation_forest"]["previous"]["id"] == new
    assert two.end(signal.SIGTERM) == 0
    assert "Traceback" not in two.text()

    capsys.readouterr()
    again = replayed(tmp_path / "state" / "journal", capsys)
    run = Journal(tmp_path / "state" / "journal")
    assert list(run.batches()) and again["digest"] == run.digest
    assert old in again["models"] and new not in again["models"]


@pytest.mark.slow
def test_a_restart_while_prometheus_is_down_waits_half_a_minute_for_it(tmp_path: Path, started: Callable[..., Running]) -> None:
    """And the first start of all five minutes: there its history is all that there is."""
    down = CONFIG + "  - prometheus: {url: 'http://127.0.0.1:9'}\n"

    def waits(one: Running) -> str:
        def said() -> str:
            return next((n for s in one.status()["sources"] for n in s["notes"] if "history" in n), "")
        return str(until(said, READY_S, "a note"))

    first = started(tmp_path / "new", down)
    assert "After 5 min without any" in waits(first)
    assert first.end(signal.SIGTERM) == 0
    second = started(tmp_path / "old")
    until(lambda: second.status()["counts"].get("batches", 0) >= 1, READY_S, "a step")
    assert second.end(signal.SIGTERM) == 0
    third = started(tmp_path / "old", down)
    assert "After 30 s without any" in waits(third)
    assert third.end(signal.SIGTERM) == 0


@pytest.mark.slow
def test_a_full_disk_is_on_the_page_until_it_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The watch goes on without a journal; who looks at the page learns of it, and the log says when it began and ended."""
    from structlog.testing import capture_logs

    from aiops.daemon import Daemon
    from aiops.types import Batch

    (tmp_path / "aiops.yaml").write_text(CONFIG, encoding="utf-8")
    daemon = Daemon(load(tmp_path / "aiops.yaml", {}), WallClock())
    daemon._prepare()
    try:
        view = daemon.server._app.state.view
        assert view.status()["notes"] == []
        with capture_logs() as told:
            with monkeypatch.context() as full:
                full.setattr(daemon.journal, "_put", lambda line: (_ for _ in ()).throw(OSError(28, "No space left on device")))
                for k in range(3):
                    daemon._write(Batch(CLOCK.now() + k))
                [note] = view.status()["notes"]
            daemon._write(Batch(CLOCK.now() + 9))
        assert "the journal cannot be written: No space left on device" in note and note.endswith("or set another store.")
        assert view.status()["notes"] == []
        assert [t["log_level"] for t in told] == ["error", "info"]
    finally:
        daemon._end()


@pytest.mark.slow
def test_a_source_that_hangs_does_not_hold_up_the_end(tmp_path: Path, started: Callable[..., Running]) -> None:
    """A Prometheus that takes the request and never answers: SIGTERM still ends the daemon in time and in order."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        source = f"prometheus: {{url: '{url}', interval: 1s, backfill: 0s, timeout: 60s}}"
        one = started(tmp_path, CONFIG.replace("remote_write: {}", source))
        until(lambda: one.answers("/readyz"), READY_S, "/readyz is 200 with one source of two")
        taken, _ = silent.accept()
        began = CLOCK.monotonic()
        assert one.end(signal.SIGTERM) == 0
        assert CLOCK.monotonic() - began < 5.0 + 2.0, "five seconds, and two for a busy machine"
        taken.close()
    told = Journal(tmp_path / "state" / "journal")
    assert list(told.batches()) and told.digest


@pytest.mark.parametrize(("text", "code", "error"), [
    ("mode: act\nsources:\n  - kubernetes: {kubeconfig: none}\nstore: state\n", 2, "error: kubernetes: "),
    ("sources:\n  - host\nstore: state\nsinks:\n  - webhook: {url: 'http://h', secretFile: none}\n", 2,
     "the secret cannot be read: no such file or directory. Check the path"),
    ("sources:\n  - host\nstore: /proc/aiops\n", 2, "Set store to a folder that this user may write."),
    ("sources:\n  - host\nstore: state\npolicies: none\n", 2, "none"),
])
def test_what_cannot_start_says_why_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, code: int,
                                                error: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With the exit code of the kind of problem, and no traceback."""
    monkeypatch.setattr("aiops.logs.configure", lambda debug: None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    (tmp_path / "aiops.yaml").write_text(text + "listen: 127.0.0.1:0\n", encoding="utf-8")
    assert cli.main(["run", "-c", str(tmp_path / "aiops.yaml")]) == code
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1
    assert error in err and "bug" not in err


# ------------------------------------------------------------------------------------------------- live == replay
@pytest.mark.slow
def test_a_fault_is_decided_alike_live_and_from_the_journal(tmp_path: Path) -> None:
    """A recorded fault is run live with a journal; the journal alone gives the same incidents and the same digest."""
    (tmp_path / "aiops.yaml").write_text("mode: act\nstore: state\nsources:\n  - host\n", encoding="utf-8")
    config = load(tmp_path / "aiops.yaml", {})
    known = meaning.shipped()
    live = build.pipeline(known, build.policies(None, known), config.mode, config.detectors)
    journal = JournalWriter(tmp_path / "journal", {
        "started_at": 1.0, "config": config.model_dump_json(by_alias=True), "policies": build.policy_texts(None)}, 100_000)
    shell = Live(live, [], Intake(1.0), NoActuator(), [], ManualClock(), 1.0, journal.write)
    for batch in FolderRecording(ROOT / "fixtures" / "disk-full").batches():
        shell._step(batch)
    assert live.book.opened > 0, "else this compares nothing with nothing"
    journal.close(live.book.digest())

    again = app.Player(tmp_path / "journal", None).play()
    assert again.digest == live.book.digest()
    assert sorted(again.incidents) == sorted(i.id for i in live.book.current())
    assert again.counts == live.counts()


@pytest.mark.slow
def test_what_people_said_is_replayed_after_a_restart_too(tmp_path: Path) -> None:
    """A window from an earlier life, one of the configuration and one started now: the journal alone suppresses alike."""
    batches = list(FolderRecording(ROOT / "fixtures" / "disk-full").batches())
    begin, end = batches[0].at, batches[-1].at
    earlier = Masks()
    earlier.obey([Command(begin - 1, "maintenance_start", "m1", "ann", ("process/*",), None, end, "before")])
    (tmp_path / "aiops.yaml").write_text(
        "store: state\nsources:\n  - host\nmaintenance:\n"
        f"  - {{match: {{entity: 'pod/*'}}, from: '{format_moment(begin)}', until: '{format_moment(end)}'}}\n", encoding="utf-8")
    config = load(tmp_path / "aiops.yaml", {})
    known = meaning.shipped()
    live = build.pipeline(known, build.policies(None, known), config.mode, config.detectors, masks=build.masks(config))
    live.masks.restore(earlier.state())
    journal = JournalWriter(tmp_path / "journal", {
        "started_at": 1.0, "config": config.model_dump_json(by_alias=True), "policies": build.policy_texts(None),
        "mask_memory": earlier.state()}, 100_000)
    shell = Live(live, [], Intake(1.0), NoActuator(), [], ManualClock(), 1.0, journal.write)
    for k, batch in enumerate(batches):
        said = [Command(batch.at, "maintenance_start", "m2", "bob", ("*",), None, batches[-20].at, "now")] if k == 5 else []
        shell._step(replace(batch, commands=tuple(said)))
    assert live.masks.suppressed > 0, "else this compares nothing with nothing"
    journal.close(live.book.digest())

    player = app.Player(tmp_path / "journal", None)
    assert player.play().digest == live.book.digest()
    assert player.pipeline.counts() == live.counts()
    assert [w.id for w in player.pipeline.masks.calendar.windows] == ["config-0", "m1", "m2"]


# --------------------------------------------------------------------------------------------------- parts of a run
def built(tmp_path: Path, text: str) -> Any:
    (tmp_path / "aiops.yaml").write_text(text, encoding="utf-8")
    return load(tmp_path / "aiops.yaml", {})


@pytest.mark.parametrize(("text", "page"), [
    ("kind: Config", "http://127.0.0.1:8750/"),
    ("page: https://aiops.example/x", "https://aiops.example/x"),
    ("listen: 127.0.0.1:0", ""),
    ("listen: 0.0.0.0:8750\ntokenFile: t", ""),
    ("listen: '[::1]:80'", "http://[::1]:80/"),
])
def test_links_in_messages_lead_to_the_page(tmp_path: Path, text: str, page: str) -> None:
    """The address that people were given; one that leads nowhere is left out."""
    assert build.page_address(built(tmp_path, text)) == page


@pytest.mark.parametrize(("sinks", "printed"), [
    ("[]", True), ("[console]", True), ("[{webhook: {url: 'http://h'}}]", False),
    ("[console, {webhook: {url: 'http://h'}}]", True)])
def test_what_happens_is_printed_when_asked_for_or_when_nobody_else_is_told(tmp_path: Path, sinks: str, printed: bool) -> None:
    """`console` among the sinks, or no sinks at all."""
    assert build.has_console(built(tmp_path, f"sinks: {sinks}")) is printed


def test_receivers_tell_from_the_severity_that_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An incident below `minimum` is queued for nobody; and two Slack channels do not share a queue."""
    monkeypatch.setenv("HOOK", "http://127.0.0.1:9/hook")
    config = built(tmp_path, """\
store: state
sinks:
  - slack: {webhookEnv: HOOK, minimum: critical}
  - slack: {webhookEnv: HOOK}
  - webhook: {url: 'http://127.0.0.1:9', minimum: warning}
""")
    receivers = build.receivers(config, ManualClock())
    form = {"id": "i", "state": "open", "severity": "warning", "causes": [], "actions": [], "outcomes": [], "alerts": [],
            "opened_at": 1.0, "updated_at": 1.0, "closed_at": None, "entities": ["node//a"], "title": "node//a",
            "impact": {"entities": [], "weight": 0.0}, "timeline": []}
    for receiver in receivers:
        receiver.tell(form, 1.0)
    assert [(r.error, r.status()["waiting"]) for r in receivers] == [("", 0), ("", 1), ("", 1)]
    for receiver in receivers:
        receiver.close()


def test_the_kubernetes_source_reads_what_was_asked_for(tmp_path: Path) -> None:
    """Each of its keys arrives at the source."""
    (tmp_path / "kube").write_text("""\
apiVersion: v1
kind: Config
current-context: c
contexts: [{name: c, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: 'http://127.0.0.1:9'}}]
users: [{name: u, user: {}}]
""", encoding="utf-8")
    made = feeds.sources(built(tmp_path, """\
topology: {kubernetes: false}
sources:
  - kubernetes: {kubeconfig: kube, interval: 7s, events: false, namespaces: [shop], logs: {selector: app=api}}
  - kubernetes: {kubeconfig: kube}
"""), ManualClock(), meaning.shipped())
    told = [(s.name, s.interval_s, EVENTS in s.source._kinds, s.source._cluster is not None, s.source._watching._namespaces,
             s.source._logs is not None) for s in made]
    for source in made:
        source.close()
    assert told == [("kubernetes-0", 7.0, False, False, ("shop",), True), ("kubernetes-1", 15.0, True, False, (), False)]


def test_a_source_that_begins_to_fail_is_logged_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And once more when it works again."""
    from aiops import logs

    class Flaky:
        name, interval_s, broken = "flaky", 0.1, True

        def poll(self, now: float, into: object) -> None:
            if self.broken:
                raise OSError("no route to host")

        def close(self) -> None:
            """Nothing is held."""

    told: list[tuple[str, str]] = []
    flaky, clock = Flaky(), ManualClock()
    source = feeds.Source(flaky, clock)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feeds, "log", type("Log", (), {
            "info": lambda _, event, **more: told.append((event, "")),
            "warning": lambda _, event, **more: told.append((event, more["error"]))})())
        for broken in (True, True, False, False):
            flaky.broken = broken
            source.poll(Intake(1.0))
            clock.sleep_until(clock.now() + 400.0)
    assert told == [("source failing", "no route to host"), ("source ok", "")]
    assert logs.brief(None, "error", {"exc_info": OSError("disk\n full")}) == {"error": "OSError: disk full"}


def test_a_broken_policy_is_told_before_anything_starts(tmp_path: Path) -> None:
    """With file and line, and without a store left behind."""
    from aiops.daemon import Daemon

    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "a.yaml").write_text("apiVersion: aiops.io/v1\nkind: RemediationPolicy\nspek: 1\n", encoding="utf-8")
    config = built(tmp_path, "store: state\npolicies: rules\nlisten: 127.0.0.1:0\n")
    with pytest.raises(Problems, match=r"a\.yaml:3: \$\.spek: unknown key"):
        Daemon(config, CLOCK)._prepare()
    assert not (tmp_path / "state").exists()
