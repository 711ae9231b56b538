"""Policies that change while the daemon runs: files and custom resources, in force only when right, and the same in a replay."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes.kube_watch import KubeWatch
from helpers import STEP_S, T0
from test_live import Tables
from test_policy_decide import BAD, acted, incident, policy, step
from test_policy_decide import T0 as BEGIN
from test_reflector import kubeconfig
from test_restart import Life, Telemetry

from aiops import app, build, meaning
from aiops.clock import ManualClock
from aiops.cluster.actuator import SimulatedActuator
from aiops.cluster.simulated import SimulatedCluster
from aiops.config import load as load_config
from aiops.feeds import Source
from aiops.intake import Intake
from aiops.live import Live
from aiops.loop import NoActuator
from aiops.policy import texts
from aiops.policy.decide import PolicyBook
from aiops.reload import Policies
from aiops.replay import replay
from aiops.sinks.journal import Journal, JournalWriter
from aiops.types import Action, Command, Outcome, Report
from aiops.yamlfile import Problems

KNOWN = meaning.shipped()


def text(name: str = "p", condition: str = "cause.name == 'db'", mode: str = "act", more: str = "") -> str:
    return (f"apiVersion: aiops.io/v1\nkind: RemediationPolicy\nmetadata: {{name: {name}}}\nspec:\n"
            f"  trigger: {{type: Incident}}\n"
            f"  actions: [{{type: Restart, condition: \"{condition}\", target: {{deployment: db}}}}]\n  mode: {mode}\n"
            f"  verify: {{settle: 10s, within: 300s}}\n  guards: {{cooldown: 0s}}\n{more}")


# ------------------------------------------------------------------------------------------------------------- the book
def texts_of(*names: str, **changes: Any) -> dict[str, str]:
    """Texts of policies that answer to the anomaly of test_policy_decide."""
    action = {"type": "ScaleUp", "condition": "correlation.http_error_rate > 0.8",
              "target": {"deployment": "api", "replicas": "+2"}}
    spec = {"trigger": {"type": "Anomaly", "metric": "http_error_rate"}, "actions": [action], "mode": "act",
            "diagnosis": {"correlations": [{"metric": "http_error_rate"}]},
            "feedback": {"successMetric": "http_error_rate", "successThreshold": 0.01}, **changes}
    return {f"{n}.yaml": json.dumps({"apiVersion": "aiops.io/v1", "kind": "RemediationPolicy", "metadata": {"name": n},
                                     "spec": spec}) for n in names}


def reloaded(book: PolicyBook, *names: str, **changes: Any) -> tuple[str, ...]:
    return book.reload(texts_of(*names, **changes))


def test_a_reload_says_what_is_new_changed_and_gone() -> None:
    """Once, in words; a set that decides the same says nothing."""
    book = PolicyBook((), "act", KNOWN)
    assert reloaded(book, "a", "b") == ("policies: a, b new.",)
    assert reloaded(book, "a", "b") == ()
    assert reloaded(book, "b", "c", mode="ask") == ("policies: c new, b changed, a gone.",)
    assert reloaded(book, "b", "c", mode="ask", tests=[{"name": "t", "expect": {"decision": "none"}}]) == ()


def test_a_set_that_is_not_understood_changes_nothing() -> None:
    """In the replay of another version's journal, say: the one before stays."""
    book = PolicyBook((), "act", KNOWN)
    reloaded(book, "a")
    [note] = reloaded(book, "a", "b", mode="yolo")
    assert note.startswith("policies: the new set is not understood, the one before stays in force: a.yaml:1: $.spec.mode: ")
    assert list(book.policies) == ["a"]


def test_cooldowns_and_records_survive_a_reload() -> None:
    """A policy that was edited does not act again at once, and keeps what it earned."""
    book = PolicyBook((), "act", KNOWN)
    reloaded(book, "p", guards={"cooldown": "10m"})
    action = acted(book)
    step(book, 1, outcomes=[Outcome(action.id, "done", BEGIN + 1)])
    [helped] = step(book, 100, BAD.__class__({"http_error_rate": 0.0})).outcomes
    assert helped.status == "helped"
    record = book.record.state()
    reloaded(book, "p", guards={"cooldown": "20m"})
    assert book.record.state() == record
    [refused] = step(book, 120, incidents=[incident(2)]).actions
    assert refused.reason.startswith("cooldown: the last action on deployment/shop/api was ") and "18m" in refused.reason


def test_a_question_of_a_changed_policy_is_withdrawn_and_asked_anew() -> None:
    """An approval that comes with the change is one of another question: nothing is done by it."""
    book = PolicyBook((), "act", KNOWN)
    reloaded(book, "p", mode="ask")
    [asked] = step(book).actions
    reloaded(book, "p", mode="ask", guards={"maxUnavailable": 2})
    decided = step(book, 10, commands=[Command(BEGIN + 10, "approve", asked.id, "ann")])
    assert [o.reason for o in decided.outcomes] == ["policy p was changed after it had asked"]
    assert decided.notes == (f"approve {asked.id}: nothing is asked there, it is withdrawn.",)
    [anew] = decided.actions
    assert (anew.decision, anew.id != asked.id) == ("ask", True)
    assert step(book, 20).actions == () == step(book, 20.5).outcomes


def test_a_question_of_a_policy_that_is_gone_is_withdrawn() -> None:
    """With that as its reason, and not that nobody approved."""
    book = PolicyBook((), "act", KNOWN)
    reloaded(book, "p", mode="ask")
    step(book)
    reloaded(book)
    assert [o.reason for o in step(book, 10).outcomes] == ["policy p is not loaded any more"]


def test_an_attempt_of_a_policy_that_is_gone_ends_as_unknown() -> None:
    """Nobody can say any more what would have helped, and the same policy does not try again in this incident."""
    book = PolicyBook((), "act", KNOWN)
    reloaded(book, "p", guards={"cooldown": "0s"})
    action = acted(book)
    reloaded(book)
    decided = step(book, 10, outcomes=[Outcome(action.id, "done", BEGIN + 10)])
    assert [(o.status, o.reason) for o in decided.outcomes] == [("unknown", "policy p is not loaded any more")]
    reloaded(book, "p", guards={"cooldown": "0s"})
    assert step(book, 20).actions == ()


def test_a_changed_policy_says_again_why_it_refuses() -> None:
    """The reason may be another one now."""
    book = PolicyBook((), "act", KNOWN)
    reloaded(book, "p", guards={"namespaces": ["prod"]})
    assert [a.reason for a in step(book).actions] == ["namespace shop is not among guards.namespaces (prod)"]
    assert step(book, 10).actions == ()
    reloaded(book, "p", guards={"namespaces": ["web"]})
    assert [a.reason for a in step(book, 20).actions] == ["namespace shop is not among guards.namespaces (web)"]


def test_reloading_between_any_two_steps_is_as_if_it_had_begun_so() -> None:
    """Where nothing was decided before: the order of files and the way they came do not matter."""
    begun, changed = PolicyBook([policy(name="a"), policy(name="b")], "act", KNOWN), PolicyBook((), "act", KNOWN)
    changed.reload(dict(reversed(texts_of("x", "y").items())))
    spec = policy(name="a").spec.model_dump(mode="json", by_alias=True, exclude_unset=True)
    head = {"apiVersion": "aiops.io/v1", "kind": "RemediationPolicy"}
    changed.reload({n: json.dumps({**head, "metadata": {"name": n}, "spec": spec}) for n in ("b", "a")})
    assert step(begun) == step(changed)


# ------------------------------------------------------------------------------------------------------------- the files
class Watched:
    """A folder of policies that is looked at."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.put("p.yaml", text())
        self.policies = Policies(folder, KNOWN, texts.read(folder))

    def put(self, name: str, content: str) -> None:
        part = self.folder / "part"
        part.write_text(content, encoding="utf-8")
        part.replace(self.folder / name)

    def look(self) -> list[str] | None:
        found = self.policies.refresh(T0)
        return None if found is None else sorted(found)


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path / "policies")


def test_files_that_are_new_changed_or_gone_are_noticed(watched: Watched) -> None:
    """And nothing is, where nothing changed but the time of a file."""
    assert watched.look() is None
    watched.put("q.yml", text("q"))
    assert watched.look() == ["p.yaml", "q.yml"]
    os.utime(watched.folder / "q.yml", (1, 1))
    assert watched.look() is None
    watched.put("q.yml", text("q", mode="ask"))
    assert watched.look() == ["p.yaml", "q.yml"]
    (watched.folder / "p.yaml").unlink()
    assert watched.look() == ["q.yml"]
    assert watched.policies.counts() == {"in_force": 1, "refused": 0} and watched.policies.reloads["taken"] == 3


def test_the_files_count_only_when_all_are_right(watched: Watched, logged: Any) -> None:
    """One that is wrong leaves the last good set in force: told once, shown as long as it is so, and gone when it is mended."""
    watched.look()
    watched.put("q.yaml", text("q"))
    watched.put("bad.yaml", text("b", condition="cause.name =="))
    assert (watched.look(), watched.look()) == (None, None)
    first, note = watched.policies.notes()
    assert first == "policies: files are wrong, and the last good set of them stays in force."
    assert note.startswith(f"policies: {watched.folder}/bad.yaml:6: $.spec.actions[0].condition: condition, line 1, column 14: ")
    assert note.endswith("\n    cause.name ==\n                 ^")
    assert watched.policies.counts() == {"in_force": 1, "refused": 1}
    watched.put("bad.yaml", text("b"))
    assert watched.look() == ["bad.yaml", "p.yaml", "q.yaml"] and watched.policies.notes() == []
    assert [e["event"] for e in logged if "polic" in e["event"]] == ["policies are not taken", "policies are right again"]


def test_two_files_of_one_name_are_refused_by_name(watched: Watched) -> None:
    """The set of before stays."""
    watched.put("q.yaml", text("p", mode="ask"))
    assert watched.look() is None
    assert "'p' is already the name of the policy in p.yaml:3. Rename one." in watched.policies.notes()[1]


def test_a_folder_that_vanishes_takes_nothing_away(watched: Watched) -> None:
    """A mount that is late is not a wish to have no policies; it is taken when it is there again."""
    moved = watched.folder.rename(watched.folder.with_name("away"))
    assert watched.look() is None and "no such folder" in watched.policies.notes()[1]
    (moved / "q.yaml").write_text(text("q"), encoding="utf-8")
    moved.rename(watched.folder)
    assert watched.look() == ["p.yaml", "q.yaml"] and watched.policies.notes() == []


def test_a_mounted_config_map_holds_each_file_once(tmp_path: Path) -> None:
    """Kubernetes keeps the files in a hidden folder and swaps a link to it."""
    data = tmp_path / "..2026_11_21"
    data.mkdir()
    (data / "p.yaml").write_text(text(), encoding="utf-8")
    (tmp_path / "..data").symlink_to(data.name)
    (tmp_path / "p.yaml").symlink_to("..data/p.yaml")
    assert list(texts.read(tmp_path)) == ["p.yaml"]
    assert [p.name for p in build.policies(tmp_path, KNOWN)] == ["p"]


def test_a_file_cannot_pass_for_a_resource(tmp_path: Path) -> None:
    """Nor can it take a resource's place by its name."""
    (tmp_path / "kubernetes:shop").mkdir()
    (tmp_path / "kubernetes:shop" / "p.yaml").write_text(text(), encoding="utf-8")
    assert list(texts.read(tmp_path)) == ["./kubernetes:shop/p.yaml"]


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    """With its path."""
    (tmp_path / "p.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(Problems, match=r"p\.yaml: is not UTF-8 text"):
        texts.read(tmp_path)


# ------------------------------------------------------------------------------------- the daemon's loop and its journal
class Run:
    """Live with policies of a folder, a journal with small segments, and a simulated cluster."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "policies"
        self.watched = Watched(self.folder)
        self.clock, self.reports = ManualClock(T0), list[Report]()
        self.cluster = SimulatedCluster(workloads={"deployment/default/db": 3})
        self.writer = JournalWriter(folder / "journal", {"started_at": T0, "policies": texts.read(self.folder)}, 2_000)
        self.pipeline = pipeline_of(texts.read(self.folder))
        self.live = Live(self.pipeline, [Source(Tables(), self.clock)], Intake(STEP_S), SimulatedActuator(self.cluster), [self],
                         self.clock, STEP_S, self.writer.write, policies=self.watched.policies.refresh)

    def publish(self, report: Report) -> None:
        self.reports.append(report)

    def close(self) -> None:
        """Nothing is held."""

    def run(self, ticks: int, between: Callable[[int], object] = lambda k: None) -> Run:
        for k in range(ticks):
            self.clock.sleep_until(T0 + k * STEP_S)
            self.live.sources[0].poll(self.live.intake)
            between(k)
            self.live.tick()
        self.live.stop()
        self.writer.close(self.pipeline.book.digest())
        return self

    @property
    def actions(self) -> list[Action]:
        return [a for r in self.reports for a in r.actions]


def pipeline_of(found: dict[str, str]) -> Any:
    return build.pipeline(KNOWN, build.policies_from(found, KNOWN), "act", ("baseline", "absence", "logs"))


@pytest.mark.slow
def test_an_edit_is_in_force_in_the_same_tick_and_the_journal_replays_it(tmp_path: Path) -> None:
    """Before it the policy refuses, from the tick of the edit on it acts: live and replayed, to the same digest."""
    run = Run(tmp_path)
    run.watched.put("p.yaml", text(condition="cause.name == 'nobody'"))
    run.run(70, lambda k: run.watched.put("p.yaml", text()) if k == 49 else None)
    assert [(a.decision, round((a.at - T0) / STEP_S)) for a in run.actions if a.policy == "p"][1:] == [("act", 49)]
    assert [n for r in run.reports for n in r.notes if "polic" in n] == ["policies: p changed."] * 2
    assert [c.verb for c in run.cluster.calls] == ["patch"]
    journal = Journal(tmp_path / "journal")
    again = replay("again", journal.batches(), pipeline_of(dict(journal.header["policies"])), NoActuator())
    assert again.digest == run.pipeline.book.digest() == journal.digest
    without = replay("without", Journal(tmp_path / "journal").batches(), pipeline_of({"p.yaml": text(mode="ask")}), NoActuator())
    assert without.digest == again.digest, "what a journal begins with is replaced by the first set that was told"


def test_a_wrong_edit_changes_no_decision(tmp_path: Path) -> None:
    """The run is the same, to the digest, as one in which nobody edited anything."""
    quiet = Run(tmp_path / "quiet").run(70)
    edited = Run(tmp_path / "edited")
    edited.run(70, lambda k: edited.watched.put("p.yaml", "kind: [") if k == 20 else None)
    assert quiet.pipeline.book.digest() == edited.pipeline.book.digest()
    assert all(b.policies is None for b in Journal(tmp_path / "edited" / "journal").batches())


def test_segments_that_are_left_know_the_policies_of_those_that_are_gone(tmp_path: Path) -> None:
    """The ring lost the segment with the reload: the header of the next one tells."""
    run = Run(tmp_path)
    run.run(70, lambda k: run.watched.put("q.yaml", text("q")) if k == 1 else None)
    journal = tmp_path / "journal"
    first, *rest = sorted(journal.iterdir())
    assert len(rest) > 2
    first.unlink()
    told = [b.policies for b in Journal(journal).batches()]
    assert told[0] is not None and sorted(told[0]) == ["p.yaml", "q.yaml"] and set(map(type, told[1:])) == {type(None)}


def test_a_journal_of_before_is_read(tmp_path: Path) -> None:
    """Without policies in its batches and headers."""
    writer = JournalWriter(tmp_path, {"started_at": T0})
    writer.write(build_batch(T0))
    writer.close()
    [path] = tmp_path.glob("*.jsonl*")
    import gzip

    plain = gzip.decompress(path.read_bytes()).replace(b',"policies":null', b"")
    assert b"policies" not in plain
    path.write_bytes(gzip.compress(plain))
    [batch] = Journal(tmp_path).batches()
    assert batch.policies is None


def build_batch(at: float) -> Any:
    from helpers import Feed

    return Feed().batch(at, {"service//a x": 1.0})


def test_a_look_that_fails_does_not_stop_the_daemon(tmp_path: Path, logged: Any) -> None:
    """The step is taken with the policies of before."""
    run = Run(tmp_path)
    run.live._policies = lambda now: 1 / 0  # type: ignore[assignment,return-value]
    run.run(3)
    assert len(run.reports) == 4
    assert "policies cannot be looked at; those of before stay in force" in {e["event"] for e in logged}


# --------------------------------------------------------------------------------------------------- the whole daemon
CONFIG = ("store: state\nlisten: 127.0.0.1:0\nsources: [host, {{kubernetes: {{kubeconfig: kubeconfig}}}}]\nmode: ask\n"
          "policies: {{folder: policies, kubernetes: true}}\ninterval: {step:g}s\ndetectors: {detectors}\n")


@pytest.mark.slow
def test_the_daemon_shows_and_replays_what_became_of_its_policies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file and a resource change in the middle of a run: `/api/status`, `/metrics`, the status of the resource, the journal."""
    monkeypatch.setattr("test_restart.CONFIG", CONFIG)
    from test_policy_resources import PATH, SPEC, manifest  # which itself needs this module

    server = KubeWatch({PATH: [manifest("a"), manifest("bad", {**SPEC, "mode": "yolo"})]})
    kubeconfig(tmp_path / "kubeconfig", server.url)
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "p.yaml").write_text(text(condition="cause.name == 'nobody'"), encoding="utf-8")
    life = Life(tmp_path, Telemetry(10.0, lambda k: 60.0 if k >= 40 else 0.0), detectors="[baseline, absence]")
    try:
        life.run(45)
        for k in range(46, 400):
            life.daemon.policies._resources.fresh.wait(0.05)  # type: ignore[union-attr]
            life.run(k)
            if server.objects[PATH]["shop", "bad"].get("status"):
                break
        (tmp_path / "policies" / "p.yaml").write_text(text(condition="cause.name == 'a'", mode="ask"), encoding="utf-8")
        life.run(life.k + 5)
        (tmp_path / "policies" / "q.yaml").write_text("kind: [", encoding="utf-8")
        life.run(life.k + 2)
        notes = life.daemon.policies.notes()
        assert [n.partition(": $")[0] for n in notes[2:]] == ["policies: kubernetes:shop/bad"] and "q.yaml" in notes[1]
        metrics = life.daemon.metrics.text()
        assert 'aiops_policies{state="in_force"} 2.0' in metrics and 'aiops_policies{state="refused"} 2.0' in metrics
        assert 'aiops_policy_reloads_total{result="taken"} 2.0' in metrics
        asked = [a for r in life.reports for a in r.actions if a.decision == "ask"]
        assert [a.policy for a in asked] == ["p"]
    finally:
        life.stop()
        server.close()
    journal = tmp_path / "state" / "journal"
    written = Journal(journal)
    told = [sorted(b.policies) for b in written.batches() if b.policies is not None]
    assert told == [["kubernetes:shop/a", "p.yaml"]] * 2
    assert app.Player(journal, None).play().digest == written.digest
    others = tmp_path / "others"
    others.mkdir()
    assert not [i for i in app.Player(journal, others).play().incidents.values() if i.actions], "other policies than those told"


def test_the_configuration_takes_a_folder_or_a_map(tmp_path: Path) -> None:
    """A plain folder goes on working; both are relative to the file."""
    def policies(said: str) -> Any:
        (tmp_path / "aiops.yaml").write_text(f"sources: [host]\npolicies: {said}\n", encoding="utf-8")
        return load_config(tmp_path / "aiops.yaml", {}).policies
    assert (policies("rules").folder, policies("rules").kubernetes) == (tmp_path / "rules", False)
    found = policies("{folder: rules, kubernetes: true, beyond: [ops]}")
    assert (found.folder, found.kubernetes, found.beyond) == (tmp_path / "rules", True, ["ops"])
    assert policies("{kubernetes: true}").folder is None
    with pytest.raises(Problems, match=r"\$\.policies\.kubernets: unknown key\. Did you mean 'kubernetes'\?"):
        policies("{kubernets: true}")
