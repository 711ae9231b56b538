"""Log lines as series: what is counted, what is zero, and what is remembered."""

from __future__ import annotations

import json

import pytest

from aiops import logcounts, meaning
from aiops.logcounts import OTHER, TOP, USUAL_AFTER, LogCounts
from aiops.types import LogLine

T0 = 1_700_000_000.0
A, POD = "service//a", "pod/shop/a-1"


def lines(at: float, *texts: str, entity: str = A) -> list[LogLine]:
    return [LogLine(at, entity, text) for text in texts]


def counted(counts: LogCounts, at: float, said: list[LogLine]) -> dict[tuple[str, str], float]:
    """(entity, label) -> lines in this tick."""
    found = counts.count(at, said)
    told = {(c.entity, next(iter(c.labels.values()))): c.value for c in found}
    assert len(told) == len(found)
    return told


def test_every_level_is_counted_in_every_tick() -> None:
    """From the first line on, zeros too; nobody is counted who never logged."""
    counts = LogCounts()
    assert counts.count(T0, []) == []
    first = counted(counts, T0 + 10, lines(T0, "ERROR a", "ERROR b", "WARN c", "fine"))
    assert (first[A, "error"], first[A, "warning"], first[A, "info"]) == (2, 1, 1)
    after = counted(counts, T0 + 20, [])
    assert (after[A, "error"], after[A, "warning"], after[A, "info"], after[A, OTHER]) == (0, 0, 0, 0)


def test_a_trace_is_one_line() -> None:
    """However many lines it has."""
    said = lines(T0, "Traceback (most recent call last):", '  File "a.py", line 3', "ValueError: bad")
    assert counted(LogCounts(), T0, said)[A, "error"] == 1


def test_usual_templates_have_series_of_their_own() -> None:
    """What came often is told apart, the rest is added up: together they are all lines."""
    counts = LogCounts()
    for k in range(USUAL_AFTER):
        told = counted(counts, T0 + 10 * k, lines(T0, f"took {k} ms", f"sent {k} bytes"))
        assert told[A, OTHER] == (2 if k < USUAL_AFTER - 1 else 0)
    told = counted(counts, T0 + 100, lines(T0, "took 9 ms", "took 8 ms", "a stranger"))
    own = {key: n for (_, key), n in told.items() if key not in ("error", "info", "warning", OTHER)}
    assert sorted(own.values()) == [0, 2] and told[A, OTHER] == 1
    assert {counts.text(id) for id in own} == {"took <*> ms", "sent <*> bytes"}


def test_series_are_bounded_and_stay() -> None:
    """Twenty templates make TOP series, and the same ones for ever."""
    counts = LogCounts()
    said = [f"kind {'abcdefghijklmnopqrst'[k]}{'x' * k} did;" + ";" * k for k in range(20)]
    told = [counted(counts, T0 + 10 * k, lines(T0, *said)) for k in range(30)]
    assert len(told[10]) == 3 + TOP + 1
    assert all(t == told[10] for t in told[10:])
    assert told[10][A, OTHER] == 20 - TOP


def test_templates_that_become_one_are_one_series() -> None:
    """The series of the younger one ends; nothing is counted twice."""
    counts = LogCounts()
    for k in range(10):
        told = counted(counts, T0 + 10 * k, lines(T0, "login by user ann", "login by user bob"))
    assert sum(n == 1 for n in told.values()) == 2
    told = counted(counts, T0 + 200, lines(T0, "login by user ann", "login by user eve", "login by user zoe"))
    own = [key for _, key in told if key not in ("error", "info", "warning", OTHER)]
    assert len(own) == 1 and told[A, own[0]] == 3 == told[A, "info"] and counts.text(own[0]) == "login by user <*>"


@pytest.mark.parametrize(("entity", "kept_s"), [(A, 86_400.0), (POD, 3600.0)])
def test_who_logs_no_more_is_zero_for_a_while(entity: str, kept_s: float) -> None:
    """A pod for an hour, others for a day."""
    counts = LogCounts()
    counts.count(T0, lines(T0, "x", entity=entity))
    assert counted(counts, T0 + kept_s - 1, [])[entity, "info"] == 0
    assert counts.count(T0 + kept_s + 1, []) == []


def test_who_was_silent_for_longest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """With more entities than there is room for."""
    monkeypatch.setattr(logcounts, "MAX_ENTITIES", 3)
    counts = LogCounts()
    for k, name in enumerate(("a", "b", "c", "a", "d")):
        counts.count(T0 + k, lines(T0, "x", entity=f"service//{name}"))
    assert {c.entity for c in counts.count(T0 + 9, [])} == {"service//a", "service//c", "service//d"}
    many = [LogLine(T0, f"service//{k}", "ERROR x") for k in range(10)]
    assert {c.entity for c in counts.count(T0 + 10, many)} == {"service//7", "service//8", "service//9"}


def test_error_lines_keep_samples() -> None:
    """The newest, one a kind, cut to what a person reads."""
    counts = LogCounts()
    for k in range(3):
        counts.count(T0 + k, lines(T0 + k, f"ERROR disk {k} full", "fine", "ERROR other " + "x" * 2000))
    kept = counts.samples(A)
    assert [s.text[:14] for s in kept] == ["ERROR disk 2 f", "ERROR other xx"] and kept[0].time == T0 + 2
    assert len(kept[1].text) == 500
    counts.count(T0 + 9, lines(T0, *("ERROR " + "; ".join("abcdefgh"[:k + 1]) for k in range(8))))
    assert len(counts.samples(A)) == 5 and counts.samples("nobody") == ()


def test_a_restart_makes_no_difference() -> None:
    """From its state, as JSON, the same samples as if there had been none."""
    one, two = LogCounts(), LogCounts()
    plan = [lines(T0 + 10 * k, f"took {k} ms", f"user {'abcdef'[k % 6]} in",
                  "ERROR x" if k % 3 else "Traceback (most recent call last):", entity=(A, POD)[k % 2]) for k in range(60)]
    for k, said in enumerate(plan[:30]):
        one.count(T0 + 10 * k, said)
    two.restore(json.loads(json.dumps(one.state())))
    for k, said in enumerate(plan[30:], 30):
        assert one.count(T0 + 10 * k, said) == two.count(T0 + 10 * k, said)
    assert one.state() == two.state() and one.samples(A) == two.samples(A)


def test_packs_say_what_the_series_mean() -> None:
    """Each series is one signal, and more is what is bad."""
    known, counts = meaning.shipped(), LogCounts()
    for k in range(USUAL_AFTER):
        found = counts.count(T0 + k, lines(T0, "ERROR x", "took 3 ms"))
    for c in found:
        used = [n for n in known.used_by[c.metric] if all(p.matches(c.labels) for p in known.signals[n].parts)]
        assert len(used) == 1 and known.signals[used[0]].direction == "up" and known.kind(c.metric) == "gauge"
