"""Lines compared with each other: errors among all of them, and what no longer follows what it always followed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from helpers import frame, signals
from scipy.stats import betabinom

from aiops.types import Anomaly, LogLine
from detectors import _logmix
from detectors._logmix import MOST, Mix, _tail
from detectors.logs import Logs

T0, MINUTE = 1_000_000.0, 60.0
POD = "pod/shop/contacts-1"
FIND, FOUND, MISSED = "INFO find contact {}", "INFO contact {} was found", "ERROR no contact {} in the repository"


def play(minutes: Sequence[Sequence[str]], detector: Logs | None = None, first: int = 0) -> list[list[Anomaly]]:
    """What is said of each minute's lines."""
    of, detector = signals(f"{POD} x"), detector or Logs()
    out = []
    for k, texts in enumerate(minutes, first):
        lines = tuple(LogLine(T0 + MINUTE * k - 1, POD, text.format(k * 100 + n)) for n, text in enumerate(texts))
        out.append(list(detector.observe(frame(T0 + MINUTE * k, [1.0], of, True, lines=lines))))
    return out


def busy(seed: int, minutes: int) -> Iterator[list[str]]:
    """Requests that all find what they look for; there are more of them in one minute than in the other."""
    rng = np.random.default_rng(seed)
    for n in rng.poisson(12, minutes).tolist():
        yield [FIND, FOUND] * n


def names(found: Sequence[Anomaly]) -> set[str]:
    return {a.name for a in found}


def test_a_line_that_no_longer_follows_is_told_with_the_one_that_it_followed() -> None:
    """From the first minute on, after a quarter of an hour of logs."""
    *calm, broken = play([*busy(1, 15), [FIND] * 12])
    assert not any(calm)
    [a] = broken
    assert (a.entity, a.name, a.value, round(a.expected)) == (POD, "log_missing", 0.0, 12) and a.p_value < 1e-6
    assert a.text == "0 instead of about 12 lines: INFO contact <*> was found; usually they come with: INFO find contact <*>"


def test_errors_count_among_all_lines() -> None:
    """Ten times the requests with ten times the errors is more traffic; many more errors among the usual requests are not."""
    usual = [[FIND, FOUND] * 20 + [MISSED] * 2] * 40
    *_, traffic = play([*usual, [FIND, FOUND] * 200 + [MISSED] * 20])
    *_, failing = play([*usual, [FIND, FOUND] * 6 + [FIND, MISSED] * 16])
    assert "log_errors" not in names(traffic) and "log_errors" in names(failing)


@pytest.mark.parametrize("then", [[FIND, FOUND] * 40, [FIND, FOUND] * 2, [FIND] * 60 + [FOUND] * 14])
def test_more_and_fewer_requests_are_not_missing_lines(then: list[str]) -> None:
    """Nor is a burst of the leader."""
    *_, found = play([*busy(2, 40), then])
    assert "log_missing" not in names(found)


def test_another_way_through_the_program_is_no_failure() -> None:
    """As many lines of another kind came instead, and they are no errors; as errors they change nothing."""
    for instead, told in (("INFO contact {} came from the cache", False), (MISSED, True)):
        *_, found = play([*busy(3, 40), [FIND, instead] * 12])
        assert ("log_missing" in names(found)) is told


def test_two_ways_that_alternate_do_not_follow_each_other() -> None:
    """Each comes in most minutes, and one of them nearly always more often; how many times as often changes each minute."""
    rng = np.random.default_rng(4)
    for least in (2, 20):
        counts = zip(rng.integers(least, 200, 60).tolist(), rng.integers(2, 20, 60).tolist(), strict=True)
        minutes = [["INFO fast train"] * fast + ["INFO slow train"] * slow for fast, slow in counts]
        *_, found = play([*minutes, ["INFO slow train"] * 9])
        assert "log_missing" not in names(found)


def test_what_was_missing_half_a_minute_ago_and_is_not_now_is_over() -> None:
    """In ticks of ten seconds a minute remembers them; only a tick that shows it too is told."""
    mix, told = Mix(), []
    for k in range(60):
        now = {"find": 8, "found": 0 if k in (50, 51) else 8}
        told.append(mix.missing(mix.hear(k * 10.0, now, True), now, ()) is not None)
    assert [k for k, is_told in enumerate(told) if is_told] == [50, 51]


def test_hours_without_logs_change_nothing() -> None:
    """Somebody collects them now and then; that they are there again is nothing of note."""
    found = play([*busy(5, 15), *[[]] * 300, *busy(6, 5)])
    assert not any(found)


def test_it_goes_on_after_a_restart() -> None:
    """Through JSON, to the bit."""
    one = Logs()
    play(list(busy(7, 20)), one)
    again = Logs()
    again.restore(json.loads(json.dumps(one.state())))
    rest = [*busy(8, 3), [FIND] * 9, [FIND, MISSED] * 9]
    assert play(rest, one, 20) == play(rest, again, 20)
    assert one._entities[POD].mix.state() == again._entities[POD].mix.state()


def test_two_kinds_that_turn_out_to_be_one_are_one() -> None:
    """Neither is missing afterwards, however often that happens, and the place of the other is free."""
    mix = Mix()
    for k in range(20):
        mix.hear(k * MINUTE, {"a": 10, "b": 10, "c": 10, "d": 10}, True)
        if k == 15:
            mix.rename("b", "a")
    mix.rename("b", "a")
    both = mix.both[mix.ids["c"], mix.ids["d"]]
    mix.rename("c", "d")
    assert list(mix.ids.items()) == [("a", 0), ("d", 1)] and mix.total[2:].sum() == mix.both[2:].sum() == mix.cross[2:].sum() == 0
    assert both > 100 and mix.both[1, 1] == 0, "how it goes with itself is learned anew"
    mix = Mix.of(json.loads(json.dumps(mix.state())))
    for k in range(20, 40):
        mix.hear(k * MINUTE, {"a": 20, "c": 10}, True)
    assert mix.ids == {"a": 0, "d": 1, "c": 2}
    recent = mix.hear(40 * MINUTE, {"a": 20, "c": 10}, True)
    assert mix.missing(recent, recent, ()) is None
    for k in range(41, 80):
        mix.hear(k * MINUTE, {"a": 20, "c": 10, **{f"new-{n}": 1 for n in range(k % MOST)}}, True)
    assert len(mix.ids) <= MOST and {"a", "c"} <= mix.ids.keys()
    assert sorted(mix.ids.values()) == list(range(len(mix.ids)))


def test_the_rarest_make_room() -> None:
    """Of a thousand kinds those that come often are followed."""
    mix = Mix()
    for k in range(400):
        mix.hear(k * MINUTE, {"often": 5, "with it": 5, f"once-{k}": 1, f"twice-{k // 2}": 1}, True)
    assert {"often", "with it"} <= mix.ids.keys() and len(mix.ids) == MOST
    lost = mix.hear(400 * MINUTE, {"often": 9}, True)
    found = mix.missing(lost, lost, ())
    assert found is not None and (found.kind, found.leader, found.trials) == ("with it", "often", 9)


def test_what_may_not_be_learned_is_not() -> None:
    """An hour of an incident."""
    mix = Mix()
    for k in range(30):
        mix.hear(k * MINUTE, {"a": 10, "b": 10}, True)
    before = mix.state()
    for k in range(30, 90):
        mix.hear(k * MINUTE, {"a": 10}, False)
    after = mix.state()
    assert {**after, "recent": None} == {**before, "recent": None}


@pytest.mark.parametrize(("count", "trials", "a", "b"), [(4, 5, 1, 1), (5, 5, 0.5, 12.5), (3, 40, 0.05, 200), (12, 400, 2, 90)])
def test_the_tail_is_that_of_the_beta_binomial_law(count: int, trials: int, a: float, b: float) -> None:
    assert _tail(count, trials, a, b) == pytest.approx(float(betabinom.sf(count - 1, trials, a, b)), rel=1e-9)


def test_a_million_trials_cost_no_more_than_some_hundred() -> None:
    """The share is the same, and the tail no smaller."""
    assert _tail(250_000, 1_000_000, 1.0, 9.0) == _tail(100, _logmix.MOST_TRIALS, 1.0, 9.0)
