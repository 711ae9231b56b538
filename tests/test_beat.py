"""An interval is over as soon as all has come; who is late, gone or new does not keep others waiting."""

from __future__ import annotations

import queue

import numpy as np
import pytest
from helpers import T0, pipeline

from aiops.beat import Beat
from aiops.clock import ManualClock
from aiops.intake import Intake
from aiops.live import Live
from aiops.loop import NoActuator

TICK_S = 15.0


class Sending:
    """Series that are sent again and again: (first, every, how many of them come together). `play` says when intervals end."""

    def __init__(self, *senders, tick_s=TICK_S, first=1.0):
        self.intake, self.beat = Intake(tick_s), Beat(tick_s, first)
        self.senders, self.ends, self.waited = senders, [], []

    def play(self, until, silent=lambda sender, at: False):
        due = sorted((first + k * every, s) for s, (first, every) in enumerate(self.senders)
                     for k in range(int((until - first) / every) + 1))
        came = {}
        for at, s in due:
            while self.beat.left_s(0.0) < at:
                self.end(self.beat.left_s(0.0), came)
            if not silent(s, at):
                self.intake.sample(T0 + at, f"service//s{s}", "m", {}, 1.0)
                came[s] = at
                complete = self.intake.complete()
                self.beat.hear(at)
                if self.beat.over(at, complete):
                    self.end(at, came)
        return self

    def end(self, at, came):
        self.beat.close(at, self.intake.complete())
        self.intake.drain(T0 + at)
        self.ends.append(at)
        self.waited.append({s: at - t for s, t in came.items()})
        came.clear()

    def last_waited(self, count=5):
        """How long the sample that came last waited, in each of the last intervals."""
        return [min(w.values(), default=None) for w in self.waited[-count:]]


@pytest.mark.parametrize("phase", [0.3, 1.2, 7.0, 14.0])
def test_whoever_sends_once_in_an_interval_waits_for_nobody(phase):
    """Whenever the daemon was started: after three intervals the end is there with the sample."""
    sent = Sending((phase, TICK_S)).play(300.0)
    assert sent.last_waited(15) == [0.0] * 15
    assert np.diff(sent.ends[-10:]).tolist() == pytest.approx([TICK_S] * 9)


def test_an_interval_ends_with_the_last_of_several():
    """Three sources, each at its own second: nobody's sample comes twice or not at all."""
    sent = Sending((3.0, TICK_S), (6.5, TICK_S), (11.0, TICK_S)).play(300.0)
    assert sent.last_waited(15) == [0.0] * 15
    assert all(set(w) == {0, 1, 2} for w in sent.waited[-15:])


def test_who_is_gone_costs_the_others_half_a_second_once_or_twice():
    """It is expected twice more; the interval is not longer for it."""
    sent = Sending((3.0, TICK_S), (6.5, TICK_S), (11.0, TICK_S)).play(400.0, silent=lambda s, at: s == 1 and at > 200.0)
    assert max(sent.last_waited(20)) <= 0.5 + 1e-9
    assert sent.last_waited(10) == [0.0] * 10
    assert np.diff(sent.ends[-10:]).tolist() == pytest.approx([TICK_S] * 9)


def test_where_in_each_interval_one_goes_and_another_comes_everybody_waits_half_a_second():
    """Pods come and go all day long."""
    sent = Sending((11.0, TICK_S), *[(5.0, TICK_S)] * 40)
    sent.play(600.0, silent=lambda s, at: s > 0 and not at / TICK_S - 3 < s <= at / TICK_S)
    assert max(sent.last_waited(30)) <= 0.5 + 1e-9
    assert np.diff(sent.ends[-20:]).tolist() == pytest.approx([TICK_S] * 19)


def test_who_sends_often_does_not_make_intervals_shorter():
    """Every five seconds: three samples in each interval, and the last of them ends it."""
    sent = Sending((2.0, 5.0)).play(300.0)
    assert np.diff(sent.ends[-10:]).tolist() == pytest.approx([TICK_S] * 9) and sent.last_waited() == [0.0] * 5


def test_who_sends_seldom_is_not_waited_for():
    """Every half a minute, beside one that comes in each interval."""
    sent = Sending((2.0, TICK_S), (9.0, 30.0)).play(600.0)
    assert [w[0] for w in sent.waited[-10:]] == [0.0] * 10


def test_without_anything_the_tick_goes_on_at_its_pace():
    """Time passes in which nothing is heard: absence is found by that."""
    beat, ends = Beat(TICK_S, 1.0), []
    for _ in range(5):
        ends.append(beat.left_s(0.0))
        beat.close(ends[-1], False)
    assert ends == pytest.approx([1.0, 16.0, 31.0, 46.0, 61.0])


def test_a_step_that_took_minutes_is_not_made_up_for():
    """The next interval ends soon, and those after it at their pace."""
    beat = Beat(TICK_S, 1.0)
    beat.close(301.0, False)
    assert 301.0 <= beat.left_s(0.0) <= 301.0 + TICK_S


class Batches(queue.Queue):
    def __call__(self, batch):
        self.put(batch)


def test_the_daemon_steps_as_soon_as_the_interval_is_complete():
    """Live's own thread, woken by what a sender hands in; the clock moves only when the test says so."""
    clock, batches = ManualClock(T0), Batches()
    live = Live(pipeline(), [], intake := Intake(TICK_S), NoActuator(), [], clock, TICK_S, batches)
    numbers = np.array([intake.series(f"service//s{k}", "m", {}) for k in range(3)], np.int32)

    def send(some):
        assert intake.block(some, np.full(len(some), clock.now()), np.ones(len(some)))
    live.start()
    try:
        for _ in range(3):
            clock.sleep_until(clock.now() + TICK_S + 2.0)
            send(numbers)
            assert len(batches.get(timeout=20.0).series) == 3
        clock.sleep_until(clock.now() + TICK_S)
        send(numbers[:2])
        send(numbers[2:])
        assert sorted(batches.get(timeout=20.0).series.tolist()) == [0, 1, 2]
    finally:
        assert live.stop()


def test_a_tick_that_fails_is_not_the_last(monkeypatch, logged):
    """Whatever goes wrong outside of a step."""
    clock, batches = ManualClock(T0), Batches()
    live = Live(pipeline(), [], intake := Intake(TICK_S), NoActuator(), [], clock, TICK_S, batches)
    failed = queue.Queue()

    class Torn:
        def collect(self):
            failed.put(1)
            raise OSError("no")
    live._actuator, good = Torn(), live._actuator
    live.start()
    try:
        clock.sleep_until(T0 + 20.0)
        intake.news.set()
        failed.get(timeout=20.0)
        live._actuator = good
        clock.sleep_until(T0 + 60.0)
        intake.news.set()
        assert batches.get(timeout=20.0).at == T0 + 60.0
    finally:
        live.stop()
    assert any("a tick failed" in str(line) for line in logged)


def test_backfill_beside_the_present_leaves_the_round_as_it_was():
    """History goes out in batches of its own; what waits still counts."""
    intake = Intake(TICK_S)
    for at in (0.0, 15.0):
        intake.sample(T0 + at, "service//a", "m", {}, 1.0)
        intake.drain(T0 + at + 1.0)
    assert not intake.complete()
    intake.sample(T0 + 20.0, "service//a", "m", {}, 1.0)
    intake.drain_history(T0 + 18.0)
    assert intake.complete()
