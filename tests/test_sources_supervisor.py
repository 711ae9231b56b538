"""One failing source must neither stop the daemon nor be hammered."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fakes.collected import Collected

from aiops.clock import ManualClock
from aiops.interfaces import Samples
from aiops.sources.supervisor import MAX_BACKOFF_S, Supervised, brief


class Flaky:
    """Fails as long as `error` is set; remembers when it was polled."""

    def __init__(self, error: Exception | None = None, interval_s: float = 15.0) -> None:
        self.name, self.interval_s, self.error = "flaky", interval_s, error
        self.polled: list[float] = []
        self.closed = False

    def poll(self, now: float, into: Samples) -> None:
        self.polled.append(now)
        if self.error:
            raise self.error
        into.sample(now, "node//a", "node_load1", {}, 1.0, "gauge")

    def close(self) -> None:
        self.closed = True


def test_a_source_that_works_is_ok_and_says_when_it_last_did() -> None:
    """starting -> ok, with the time of the last success."""
    clock, into = ManualClock(1000.0), Collected()
    supervised = Supervised(Flaky(), clock)
    assert supervised.status()["state"] == "starting"
    assert supervised.poll(into)
    status = supervised.status()
    assert (status["state"], status["last_success"], status["failures"], status["error"]) == ("ok", 1000.0, 0, "")
    assert len(into.samples) == 1


def test_a_failing_source_is_never_tried_before_its_time() -> None:
    """Called every second for two hours, it is polled only when `next_try` has come, and at most 5 minutes apart."""
    clock = ManualClock(0.0)
    source = Flaky(RuntimeError("down"))
    supervised = Supervised(source, clock)
    allowed = 0.0
    for second in range(7200):
        clock.sleep_until(float(second))
        before = len(source.polled)
        supervised.poll(Collected())
        if len(source.polled) > before:
            assert second >= allowed
            allowed = supervised.status()["next_try"]
            assert second + 1.0 <= allowed <= second + MAX_BACKOFF_S
    assert 20 < len(source.polled) < 200, "backs off, but goes on trying"
    assert supervised.status()["failures"] == len(source.polled)


def test_waits_grow_but_are_spread_by_jitter() -> None:
    """The upper half of waits after many failures is far longer than the first ones, and no two are alike."""
    clock = ManualClock(0.0)
    supervised = Supervised(Flaky(RuntimeError("down")), clock)
    waits = []
    for _ in range(30):
        supervised.poll(Collected())
        waits.append(supervised.status()["next_try"] - clock.now())
        clock.sleep_until(supervised.status()["next_try"])
    assert waits[0] <= 30.0
    assert max(waits[6:]) > 200.0
    assert len(set(waits)) == 30


def test_the_same_clock_gives_the_same_waits() -> None:
    """Backoff is seeded: two runs agree, two sources of different seed do not."""
    def waits(seed: int) -> list[float]:
        clock = ManualClock(0.0)
        supervised = Supervised(Flaky(RuntimeError("down")), clock, jitter_seed=seed)
        out = []
        for _ in range(5):
            supervised.poll(Collected())
            out.append(supervised.status()["next_try"])
            clock.sleep_until(out[-1])
        return out
    assert waits(1) == waits(1) != waits(2)


def test_recovery_clears_the_error_and_the_backoff() -> None:
    """After a success the source is due at once again and the count of failures is kept as history."""
    clock = ManualClock(0.0)
    source = Flaky(RuntimeError("down"))
    supervised = Supervised(source, clock)
    supervised.poll(Collected())
    source.error = None
    clock.sleep_until(supervised.status()["next_try"])
    assert supervised.poll(Collected())
    status = supervised.status()
    assert (status["state"], status["error"], status["next_try"], status["failures"]) == ("ok", "", None, 1)
    assert supervised.due(clock.now())


def test_a_clock_that_is_set_back_does_not_silence_a_source() -> None:
    """A next try that lies further away than any backoff can be is not waited for."""
    source = Flaky(RuntimeError("down"))
    late = ManualClock(1_000_000.0)
    supervised = Supervised(source, late)
    supervised.poll(Collected())
    assert supervised.due(500_000.0)


@pytest.mark.parametrize(("text", "secret"), [
    ("http://user:hunter2@prom:9090: cannot be reached", "hunter2"),
    ("HTTP 401 for Authorization: Bearer abc.def", "abc.def"),
    ("https://hooks/x?token=hunter2&a=1 failed", "hunter2"),
])
def test_errors_are_shown_without_secrets(text: str, secret: str) -> None:
    """Status pages and logs are read by many; passwords and tokens are blotted out, the rest stays."""
    shown = brief(RuntimeError(text))
    assert secret not in shown
    assert "***" in shown


def test_errors_are_one_bounded_line() -> None:
    """A page of HTML as an error text does not fill the status page."""
    shown = brief(RuntimeError("a\n" * 5000))
    assert len(shown) <= 300
    assert "\n" not in shown


def test_close_never_raises_and_ends_polling() -> None:
    """A source that fails even to close does not stop the daemon from ending."""
    class Stubborn(Flaky):
        def close(self) -> None:
            raise OSError("will not close")
    source = Stubborn()
    supervised = Supervised(source, ManualClock())
    supervised.close()
    assert not supervised.poll(Collected())
    assert source.polled == []
    assert supervised.status()["error"] == "will not close"


def test_history_is_tried_again_after_a_failure() -> None:
    """`backfill` is part of a source only where it has history; a failure backs off like a poll and is resumed."""
    class WithHistory(Flaky):
        def backfill(self, now: float, into: Samples) -> None:
            self.poll(now, into)
    clock = ManualClock(0.0)
    source = WithHistory(RuntimeError("busy"))
    supervised = Supervised(source, clock)
    assert not supervised.backfill(Collected())
    assert not supervised.backfill(Collected())
    assert len(source.polled) == 1, "not before its time"
    source.error = None
    clock.sleep_until(supervised.status()["next_try"])
    assert supervised.backfill(Collected())
    assert Supervised(Flaky(), clock).backfill(Collected()), "nothing to do is done"


def test_history_comes_piece_by_piece_and_goes_on_after_a_failure() -> None:
    """The caller may step through each piece before the next is read; a failure ends it early, and it is resumed."""
    class WithHistory(Flaky):
        done = 0

        def history(self, now: float, into: Samples) -> Iterator[float]:
            while self.done < 4:
                if self.error and self.done == 2:
                    raise self.error
                into.sample(float(self.done), "node//a", "node_load1", {}, 1.0)
                self.done += 1
                yield float(self.done)
    clock, into = ManualClock(100.0), Collected()
    source = WithHistory(RuntimeError("busy"))
    supervised = Supervised(source, clock)
    pieces = supervised.history(into)
    assert next(pieces) == 1.0
    assert len(into.samples) == 1, "nothing is read ahead"
    assert list(pieces) == [2.0]
    assert (supervised.filled, supervised.status()["error"]) == (False, "busy")
    source.error = None
    assert list(supervised.history(into)) == [], "not before its time"
    clock.sleep_until(supervised.status()["next_try"])
    assert list(supervised.history(into)) == [3.0, 4.0]
    assert supervised.filled
    assert Supervised(Flaky(), clock).filled, "no history, nothing to wait for"


def test_a_call_that_does_not_come_back_is_shown_while_it_lasts() -> None:
    """A driver hangs: the poll's thread is stuck, and whoever asks from another one is told since when."""
    clock = ManualClock(1000.0)
    seen: list[tuple[str, str]] = []

    class Stuck(Flaky):
        hang_s = 20.0

        def poll(self, now: float, into: Samples) -> None:
            for spent in (10.0, 95.0):
                clock.sleep_until(now + spent)
                seen.append((supervised.status()["state"], supervised.status()["error"]))

    supervised = Supervised(Stuck(), clock)
    supervised.poll(Collected())
    assert seen == [("starting", ""), ("failing", "a call has not come back for 95 s; other sources go on without it")]
    assert supervised.status()["state"] == "ok"


def test_what_a_source_could_not_use_is_in_its_status_by_reason() -> None:
    """A mapping `rejected` of a source is copied; a source without one rejected nothing."""
    class Picky(Flaky):
        rejected = {"too_long": 2}
    picky = Picky()
    status = Supervised(picky, ManualClock()).status()
    picky.rejected["too_long"] = 3
    assert status["rejected"] == {"too_long": 2}
    assert Supervised(Flaky(), ManualClock()).status()["rejected"] == {}
