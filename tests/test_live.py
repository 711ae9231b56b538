"""The live edge: what sources hand in becomes batches in time, and the journal of them gives the same verdict again."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field

import numpy as np
import pytest
from helpers import STEP_S, T0, links, pipeline, split_key, tiny_rows

from aiops import build, meaning, yamlfile
from aiops.clock import ManualClock
from aiops.cluster.actuator import SimulatedActuator
from aiops.cluster.simulated import SimulatedCluster
from aiops.feeds import Source
from aiops.intake import Intake
from aiops.live import AGAIN_S, PATIENCE_S, WAITING, Live
from aiops.loop import NoActuator
from aiops.policy.load import compile_document
from aiops.replay import replay
from aiops.sinks.journal import Journal, JournalWriter
from aiops.types import Batch, Command, Edge, Event, Links, LogLine, Node, RawAlert


# ------------------------------------------------------------------------------------------------------------ intake
def put(intake, time, key, value=1.0, kind="unknown"):
    entity, metric, labels = split_key(key)
    intake.sample(time, entity, metric, meaning.parse_labels(labels), value, kind)


def drained(intake, at, outcomes=()):
    [batch] = intake.drain(at, outcomes)
    return batch


def test_a_series_is_introduced_once_with_its_first_sample():
    """By entity, metric and labels, in whatever order the labels come."""
    intake = Intake(STEP_S)
    intake.sample(T0, "a//b", "m", {"y": "2", "x": "1"}, 1.0, "counter")
    intake.sample(T0, "a//b", "m", {"x": "1", "y": "2"}, 2.0, "counter")
    intake.sample(T0, "a//b", "m", {}, 3.0, "nonsense")
    batch = drained(intake, T0)
    assert [(s.id, s.labels, s.kind) for s in batch.new_series] == [(0, 'x="1",y="2"', "counter"), (1, "", "unknown")]
    assert (batch.series.tolist(), batch.value.tolist()) == ([0, 0, 1], [1.0, 2.0, 3.0])
    put(intake, T0 + 1, "a//b m")
    assert drained(intake, T0 + 1).new_series == ()


def test_blocks_of_samples_join_single_ones_in_one_batch():
    """A series has one number, whichever way its samples come; what is handed out does not come again."""
    intake = Intake(STEP_S)
    put(intake, T0, "a//b m", 1.0)
    number = intake.series("a//b", "m", {})
    other = intake.series("a//b", "n", {"x": "1"}, "counter")
    assert (number, other) == (0, 1)
    assert intake.block(np.array([1, 0], np.int32), np.array([T0, T0 + 1]), np.array([5.0, 6.0]))
    batch = drained(intake, T0 + 1)
    assert sorted(zip(batch.series.tolist(), batch.value.tolist(), strict=True)) == [(0, 1.0), (0, 6.0), (1, 5.0)]
    assert [s.metric for s in batch.new_series] == ["m", "n"]
    assert len(drained(intake, T0 + 2).series) == 0


def test_a_block_that_does_not_fit_is_refused_whole_until_the_next_tick(monkeypatch):
    """Memory is bounded: the sender is to come again."""
    monkeypatch.setattr("aiops.intake.MAX_SAMPLES", 3)
    intake = Intake(STEP_S)
    intake.series("a//b", "m", {})

    def block(n):
        return np.zeros(n, np.int32), T0 + np.arange(float(n)), np.ones(n)

    assert [intake.block(*block(2)), intake.block(*block(2)), intake.block(*block(1))] == [True, False, True]
    assert len(drained(intake, T0 + 5).series) == 3
    assert intake.block(*block(3))


def test_what_was_drained_does_not_come_again():
    """Everything is handed out once, with the batch that ends after it."""
    intake = Intake(STEP_S)
    put(intake, T0, "a//b m")
    line, event, command = LogLine(T0, "a//b", "x"), Event(T0, "a//b", "change", "r"), Command(T0, "useful", "i")
    intake.line(line)
    intake.event(event)
    intake.command(command)
    batch = drained(intake, T0)
    assert (batch.lines, batch.events, batch.commands) == ((line,), (event,), (command,))
    empty = drained(intake, T0 + 1)
    assert (len(empty.series), empty.lines, empty.events, empty.commands, empty.links) == (0, (), (), (), None)


def test_alerts_are_numbered_as_they_come():
    """Over the whole run."""
    intake = Intake(STEP_S)
    for at in (T0, T0 + 1):
        intake.alert(RawAlert(0, at, "a//b", "n"))
        intake.alert(RawAlert(0, at, "a//b", "n"))
    assert [a.index for a in drained(intake, T0 + 2).alerts] == [0, 1, 2, 3]


def test_the_topologies_of_all_sources_are_one_and_told_when_they_change():
    """The same again is no news; after the first time only what is another is told."""
    intake = Intake(STEP_S)
    intake.links("b", Links((Node("a//1"),)))
    intake.links("a", Links((), (Edge("a//1", "a//2"),)))
    assert drained(intake, T0).links == Links((Node("a//1"),), (Edge("a//1", "a//2"),))
    intake.links("a", Links((), (Edge("a//1", "a//2"),)))
    assert drained(intake, T0 + 1).links is None
    intake.links("a", Links())
    assert drained(intake, T0 + 2).links == Links(gone_edges=(Edge("a//1", "a//2"),), whole=False)


def test_after_a_failed_step_the_whole_topology_is_told_again():
    """A difference that nobody heard would be missing for ever."""
    intake = Intake(STEP_S)
    intake.links("a", Links((), (Edge("a//1", "a//2"),)))
    drained(intake, T0)
    intake.links_again()
    assert drained(intake, T0 + 1).links == Links((), (Edge("a//1", "a//2"),))
    assert drained(intake, T0 + 2).links is None


def test_time_rises_even_where_the_clock_does_not():
    """A clock that stands, and one that was set back."""
    intake = Intake(STEP_S)
    times = [drained(intake, at).at for at in (T0, T0, T0 - 500, T0 + 1e-9, T0 + 1)]
    assert np.all(np.diff(times) > 0)
    assert times[0] == T0 and times[-1] == T0 + 1


def test_a_flood_of_lines_is_not_taken(monkeypatch):
    """Memory has an end: who brings more than fits is told, and keeps it; several lines are taken together or not at all."""
    monkeypatch.setattr("aiops.intake.MAX_LINES", 7)
    intake = Intake(STEP_S)
    line = LogLine(T0, "a//b", "x")
    taken = [intake.line(line) for _ in range(6)]
    assert all(taken)
    assert not intake.line(line, line)
    assert (intake.line(line), intake.line(line), intake.dropped_total()) == (True, False, 0)
    assert len(drained(intake, T0).lines) == 7
    assert intake.line(line)


def test_history_becomes_one_batch_a_tick():
    """Samples of the past in their order, then the present with everything else."""
    intake = Intake(STEP_S)
    for k in (3, 1, 2, 60):
        put(intake, T0 + STEP_S * k - 4, "a//b m", float(k))
        put(intake, T0 + STEP_S * k - 1, "a//c m", float(k))
    put(intake, math.nan, "a//b m")
    intake.links("s", Links((Node("a//b"),)))
    intake.line(LogLine(T0, "a//b", "x"))
    batches = intake.drain(T0 + 60 * STEP_S)
    assert [b.at for b in batches] == [T0 + STEP_S * k for k in (1, 2, 3, 60)]
    assert [sorted(b.value.tolist()) for b in batches[:3]] == [[1, 1], [2, 2], [3, 3]]
    assert [len(b.new_series) for b in batches] == [2, 0, 0, 0]
    assert [b.links is not None for b in batches] == [True, False, False, False]
    assert [len(b.lines) for b in batches] == [0, 0, 0, 1] and len(batches[3].series) == 3


def test_history_can_be_taken_before_the_rest():
    """Up to a moment; everything newer waits."""
    intake = Intake(STEP_S)
    for k in (1, 2, 3, 4):
        put(intake, T0 + STEP_S * k, "a//b m", float(k))
    intake.line(LogLine(T0, "a//b", "x"))
    assert [b.at for b in intake.drain_history(T0 + 25)] == [T0 + 10, T0 + 20]
    assert intake.drain_history(T0 + 25) == []
    assert [len(b.new_series) for b in intake.drain_history(T0 + 30)] == [0]
    last = drained(intake, T0 + 40)
    assert (last.value.tolist(), len(last.lines)) == ([4.0], 1)


def test_samples_older_than_what_was_handed_out_come_late():
    """The door counts them; no batch goes back in time."""
    intake = Intake(STEP_S)
    put(intake, T0, "a//b m")
    drained(intake, T0)
    put(intake, T0 - 600, "a//b m")
    assert drained(intake, T0 + 100).time.tolist() == [T0 - 600]


def test_many_threads_lose_nothing():
    """Eight sources at once, drained meanwhile."""
    intake, batches = Intake(STEP_S), []

    def feed(n):
        for k in range(300):
            put(intake, T0 + k, f"a//{n} m{k % 20}", float(k))
            intake.line(LogLine(T0, f"a//{n}", "x"))
    threads = [threading.Thread(target=feed, args=(n,)) for n in range(8)]
    for t in threads:
        t.start()
    for k in range(50):
        batches += intake.drain(T0 + 1000 + k)
    for t in threads:
        t.join()
    batches += intake.drain(T0 + 5000)
    assert sum(len(b.series) for b in batches) == sum(len(b.lines) for b in batches) == 2400
    series = [s for b in batches for s in b.new_series]
    assert [s.id for s in series] == list(range(160)) and len({(s.entity, s.metric) for s in series}) == 160


# ------------------------------------------------------------------------------------------------------- live shell
@dataclass
class Tables:
    """A source of the tiny recording's rows, and of lines, as time comes to them."""

    name: str = "tables"
    interval_s: float = STEP_S
    fail_at: frozenset[float] = frozenset()
    polled: list[float] = field(default_factory=list)
    closed: bool = False

    def poll(self, now, into):
        if now in self.fail_at:
            raise ConnectionError("refused")
        if not self.polled:
            into.links(self.name, links("service//shop calls service//db"))
        since = self.polled[-1] if self.polled else T0 - 1
        self.polled.append(now)
        for t, entity, metric, value in ROWS:
            if since < t <= now:
                into.sample(t, entity, metric, {}, value)
                into.line(LogLine(t, entity, "ERROR lost" if value > 5 else "INFO ok"))

    def close(self):
        self.closed = True


ROWS = tiny_rows(70)
POLICY = """\
apiVersion: aiops.io/v1
kind: RemediationPolicy
metadata: {name: p}
spec:
  trigger: {type: Incident}
  actions: [{type: Restart, condition: "cause.name == 'db'", target: {deployment: db}}]
  mode: MODE
  verify: {settle: 10s, within: 300s}
  guards: {cooldown: 0s}
"""


def policies(mode):
    problems = []
    [document] = yamlfile.parse(POLICY.replace("MODE", mode), "p.yaml")
    policy = compile_document(document, meaning.shipped(), problems)
    assert not problems
    return (policy,)


class Daemon:
    """Live with a clock that the test moves, a journal and a simulated cluster."""

    def __init__(self, folder, *sources, mode="act", journal=None, detectors=("baseline", "absence", "logs"),
                 patience_s=PATIENCE_S):
        self.clock, self.sources, self.reports = ManualClock(T0), sources, []
        self.cluster = SimulatedCluster(workloads={"deployment/default/db": 3})
        self.writer = JournalWriter(folder, {"started_at": T0})
        self.pipeline = pipeline(policies(mode), detectors=detectors)
        self.live = Live(self.pipeline, [Source(s, self.clock) for s in sources], Intake(STEP_S),
                         SimulatedActuator(self.cluster), [self], self.clock, STEP_S, journal or self.writer.write,
                         patience_s=patience_s)

    def publish(self, report):
        self.reports.append(report)

    def close(self):
        """A sink has nothing to close here."""

    def ticks(self, count, start=0, between=lambda k: None):
        for k in range(start, start + count):
            self.clock.sleep_until(T0 + k * STEP_S)
            for source in self.live.sources:
                source.poll(self.live.intake)
            between(k)
            self.live.tick()

    def end(self):
        self.live.stop()
        self.writer.close(self.pipeline.book.digest())


def again(folder, mode="act"):
    """What the journal alone gives."""
    return replay("again", Journal(folder).batches(), pipeline(policies(mode)), NoActuator())


def test_the_journal_of_a_run_gives_the_same_verdict_again(tmp_path):
    """With what was done and what became of it, and the digest is in the journal's last line."""
    daemon = Daemon(tmp_path, Tables())
    daemon.ticks(70)
    daemon.end()
    result = again(tmp_path)
    [incident] = result.incidents.values()
    [change] = daemon.cluster.calls
    assert str(change).startswith("patch deployment/default/db spec.template.metadata.annotations.")
    assert [o.status for o in incident.outcomes] == ["done", "helped"]
    journal = Journal(tmp_path)
    assert sum(1 for _ in journal.batches()) == len(daemon.reports) == 71
    assert result.digest == daemon.pipeline.book.digest() == journal.digest
    assert result.counts == daemon.reports[-1].counts


def test_what_people_said_is_in_the_journal_too(tmp_path):
    """An approval enters by the front door, and so it is replayed."""
    daemon = Daemon(tmp_path, Tables(), mode="ask")

    def approve(k):
        for action in (a for r in daemon.reports[-1:] for a in r.actions if a.decision == "ask"):
            daemon.live.intake.command(Command(daemon.clock.now(), "approve", action.id, "ann"))
    daemon.ticks(70, between=approve)
    daemon.end()
    assert [c.entity for c in daemon.cluster.calls] == ["deployment/default/db"]
    assert again(tmp_path, "ask").digest == daemon.pipeline.book.digest()


def test_a_journal_that_stops_anywhere_gives_the_verdict_until_there(tmp_path):
    """The same incidents as the run had at that moment."""
    daemon, digests = Daemon(tmp_path, Tables()), []
    daemon.ticks(70, between=lambda k: digests.append(daemon.pipeline.book.digest()))
    daemon.end()
    batches = list(Journal(tmp_path).batches())
    for cut in (10, 46, 50, 60):
        assert replay("cut", iter(batches[:cut]), pipeline(policies("act")), NoActuator()).digest == digests[cut]


def test_a_failing_source_is_shown_and_does_not_stop_the_rest(tmp_path):
    """The other one is judged as if nothing were."""
    bad, good = Tables("bad", fail_at=frozenset(T0 + STEP_S * k for k in range(70))), Tables()
    daemon = Daemon(tmp_path, bad, good)
    daemon.ticks(70)
    assert [s.status()["state"] for s in daemon.live.sources] == ["failing", "ok"]
    assert daemon.reports[-1].counts.incidents == 1
    assert len(good.polled) == 70 and bad.polled == []


def test_a_step_that_fails_is_logged_and_the_next_goes_on(tmp_path, logged):
    """And the batch that made it fail is in the journal, for the bug report."""
    daemon = Daemon(tmp_path, Tables())
    daemon.ticks(3)
    daemon.pipeline.step, kept = lambda batch: 1 / 0, daemon.pipeline.step
    daemon.ticks(1, start=3)
    daemon.pipeline.step = kept
    daemon.ticks(2, start=4)
    daemon.end()
    assert (daemon.live.failed_steps, len(daemon.reports)) == (1, 6)
    assert sum(1 for _ in Journal(tmp_path).batches()) == 7
    assert ["ZeroDivisionError" in line["exception"] for line in logged if line["log_level"] == "error"] == [True]


def test_stopping_takes_a_last_step_and_closes_the_sources(tmp_path):
    """After that nothing is stepped any more."""
    source = Tables()
    daemon = Daemon(tmp_path, source)
    daemon.ticks(2)
    daemon.live.intake.line(LogLine(T0 + 11, "service//db", "the last"))
    assert daemon.live.stop() is True
    assert source.closed and len(daemon.reports) == 3
    daemon.live.tick()
    assert len(daemon.reports) == 3
    assert [x.text for b in Journal(tmp_path).batches() for x in b.lines][-1] == "the last"


def test_what_was_taken_while_a_step_hung_is_in_the_journal(tmp_path, monkeypatch, logged):
    """Whoever pushed it was told that it was taken; the next daemon finds it there."""
    monkeypatch.setattr("aiops.live.STEP_END_S", 0.05)
    daemon = Daemon(tmp_path, Tables())
    daemon.ticks(2)
    stuck, free = threading.Event(), threading.Event()
    daemon.pipeline.step = lambda batch: (stuck.set(), free.wait(20), 1 / 0)
    daemon.clock.sleep_until(T0 + 2 * STEP_S)
    hanging = threading.Thread(target=daemon.live.tick)
    hanging.start()
    try:
        assert stuck.wait(20)
        put(daemon.live.intake, T0 + 2 * STEP_S, "a//b m", 77.0)
        assert daemon.live.stop() is False
        assert [b.value.tolist() for b in Journal(tmp_path).batches()][-1] == [77.0]
        assert any("what came in after it is in the journal only" in line["event"] for line in logged)
    finally:
        free.set()
        hanging.join(20)


class Past:
    """A source with an hour of history, handed in by the quarter; asked again, it goes on where it was."""

    interval_s = STEP_S

    def __init__(self, name="past", quarters=4, breaks_at=9):
        self.name, self._quarters, self._breaks_at, self.polls = name, quarters, breaks_at, []
        self._read, self._now, self.fails = 0, None, None

    def history(self, now, into):
        self._now = self._now or now
        for q in range(self._read, self._quarters):
            if q == self._breaks_at and self.fails != 0:
                self.fails = self.fails and self.fails - 1
                raise ConnectionError("gone")
            start = self._now - 3600 + 900 * q
            for k in range(90):
                into.sample(start + STEP_S * k, f"service//{self.name}", "m", {}, 10.0 + (k * 7 % 5) / 10)
            self._read = q + 1
            yield start + 890
        self.done = True

    def poll(self, now, into):
        self.polls.append(now)
        into.sample(now, f"service//{self.name}", "m", {}, 10.0)

    def close(self):
        """Nothing is held."""


def test_history_is_stepped_before_the_present(tmp_path):
    """In time order over all sources, whoever is slower; and then everything is ready to be judged."""
    daemon = Daemon(tmp_path, Past("one"), Past("two"))
    daemon.clock.sleep_until(T0 + 3600)
    daemon.live.tick()
    times = [r.at for r in daemon.reports]
    assert times == sorted(times) and len(times) == 361
    assert daemon.reports[-1].counts.ready == 2
    assert {len(b.series) for b in Journal(tmp_path).batches()} <= {0, 2}
    daemon.end()
    assert again(tmp_path).digest == daemon.pipeline.book.digest()


def test_what_history_asks_for_is_not_carried_out(tmp_path):
    """After an outage of minutes the fault is read, found and told, and the action for it refused; the journal agrees."""
    d = Daemon(tmp_path, Tables())
    d.ticks(1)
    d.ticks(2, start=len(ROWS) // 2)
    decided = [a for r in d.reports for a in r.actions if a.decision == "act"]
    outcomes = [o for r in d.reports for o in r.outcomes]
    assert decided and d.cluster.calls == []
    assert [(o.action, o.status) for o in outcomes][:1] == [(decided[0].id, "refused")]
    d.writer.close(d.pipeline.book.digest())
    assert again(tmp_path).digest == d.pipeline.book.digest()


def test_who_has_learned_before_waits_half_a_minute_for_the_gap(tmp_path):
    """A restart while Prometheus is down, in the middle of an incident maybe: the other sources are judged at once."""
    daemon = Daemon(tmp_path, Past("one", breaks_at=0), Past("two"), patience_s=AGAIN_S)
    daemon.clock.sleep_until(T0 + 3600)
    assert "After 30 s without any" in daemon.live.states()[0]["notes"][0]
    daemon.live.tick()
    assert AGAIN_S <= daemon.clock.now() - (T0 + 3600) < AGAIN_S + 2
    assert [s.filled for s in daemon.live.sources] == [False, True]
    assert daemon.reports[-1].counts.samples == 360


def test_a_source_that_loses_its_history_does_not_stop_the_others(tmp_path):
    """What it gave until then is kept, and the present goes on: it was tried again for five minutes."""
    daemon = Daemon(tmp_path, Past("one", breaks_at=1), Past("two"))
    daemon.clock.sleep_until(T0 + 3600)
    daemon.live.tick()
    assert [s.status()["state"] for s in daemon.live.sources] == ["failing", "ok"]
    assert daemon.live.sources[1].filled and not daemon.live.sources[0].filled
    assert daemon.reports[-1].counts.samples == 90 + 360
    assert daemon.live.sources[0].status()["failures"] > 3
    assert PATIENCE_S <= daemon.clock.now() - (T0 + 3600) < PATIENCE_S + 2


def test_history_that_fails_for_a_while_is_read_on(tmp_path):
    """A Prometheus that restarts while it is asked: nothing is lost, and nothing comes twice."""
    source = Past("one", breaks_at=2)
    source.fails = 3
    daemon = Daemon(tmp_path, source)
    daemon.clock.sleep_until(T0 + 3600)
    daemon.live.tick()
    assert daemon.live.sources[0].filled
    assert (daemon.live.sources[0].status()["failures"], daemon.reports[-1].counts.samples) == (3, 360)


def test_nothing_is_polled_before_the_history_is_in(tmp_path):
    """Or the gap between them would be lost."""
    source = Past()
    daemon = Daemon(tmp_path, source)
    daemon.live._poll(daemon.live.sources[0])
    assert source.polls == []
    assert daemon.live.states()[0]["notes"] == [WAITING.format("5 min")]
    daemon.live.tick()
    assert daemon.live.states()[0]["notes"] == []
    daemon.live._poll(daemon.live.sources[0])
    assert source.polls == [T0]


def test_steps_that_are_too_slow_are_told_once(tmp_path, monkeypatch):
    """When they begin to take longer than the interval, and when they no longer do."""
    from structlog.testing import capture_logs

    daemon = Daemon(tmp_path, Past())
    daemon.live.tick()
    took = iter([0.0, 1.0, 0.0, 3 * STEP_S, 0.0, 3 * STEP_S, 0.0, 0.1])
    monkeypatch.setattr(daemon.clock, "monotonic", lambda: next(took))
    with capture_logs() as told:
        for _ in range(4):
            daemon.clock.sleep_until(daemon.clock.now() + STEP_S)
            daemon.live.tick()
    assert [(t["log_level"], t["step_s"]) for t in told if "step" in t["event"]] == [("warning", 3 * STEP_S), ("info", 0.1)]


def test_a_journal_that_cannot_be_written_does_not_stop_the_watch(tmp_path):
    """A full disk is no reason to stop looking."""
    (tmp_path / "file").write_text("not a folder")
    daemon = Daemon(tmp_path / "file" / "journal", Tables())
    daemon.ticks(60)
    assert daemon.reports[-1].counts.incidents == 1
    assert daemon.writer.failed == 60 and "cannot be written" in daemon.writer.problem


def test_each_step_is_timed(tmp_path):
    """In seconds, once a step, also the one that fails."""
    took = []
    live = Live(pipeline(), [], Intake(1.0), NoActuator(), [], ManualClock(T0), 1.0, lambda batch: None, took.append)
    live.tick()
    live.pipeline.step = lambda batch: 1 / 0
    live.tick()
    assert took == [0.0, 0.0]


@pytest.mark.parametrize("detectors", [build.DEFAULT_DETECTORS])
def test_all_detectors_together_replay_as_they_ran(tmp_path, detectors):
    """The slow ones too: equal reports, word for word."""
    daemon = Daemon(tmp_path, Tables(), detectors=detectors)
    daemon.ticks(70)
    daemon.end()
    p, reports = pipeline(policies("act"), detectors=detectors), []
    for batch in Journal(tmp_path).batches():
        assert isinstance(batch, Batch)
        reports.append(p.step(batch))
    assert repr(reports) == repr(daemon.reports)
