"""From raw lines to what was logged: frames off, parts joined, traces joined, times read."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiops.sources.logs.lines import MAX_JOINED, MAX_LINE_BYTES, LineReader
from aiops.sources.logs.stamps import OLDEST_S, Stamps, number

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC).timestamp()


def at(*parts: int) -> float:
    return datetime(*parts, tzinfo=UTC).timestamp()  # type: ignore[arg-type, misc]


# --------------------------------------------------------------------------------------------------------------- times
@pytest.mark.parametrize(("text", "expected"), [
    ("2026-03-01T11:59:58Z x", at(2026, 3, 1, 11, 59, 58)),
    ("2026-03-01T11:59:58.25Z x", at(2026, 3, 1, 11, 59, 58) + 0.25),
    ("2026-03-01T11:59:58.123456789+00:00", at(2026, 3, 1, 11, 59, 58) + 0.123456789),
    ("2026-03-01T12:59:58+01:00 x", at(2026, 3, 1, 11, 59, 58)),
    ("2026-03-01T12:59:58+0100 x", at(2026, 3, 1, 11, 59, 58)),
    ("2026-03-01 11:59:58,123 INFO python", at(2026, 3, 1, 11, 59, 58) + 0.123),
    ("[2026-03-01 11:59:58] x", at(2026, 3, 1, 11, 59, 58)),
    ("<34>1 2026-03-01T11:59:58.003Z host app - - - x", at(2026, 3, 1, 11, 59, 58) + 0.003),
    ("I0301 11:59:58.000500       1 main.go:12] x", at(2026, 3, 1, 11, 59, 58) + 0.0005),
    ("E0228 23:59:59.999999   77 x.go:1] x", at(2026, 2, 28, 23, 59, 59) + 0.999999),
    ("Mar  1 11:59:58 host sshd[1]: x", at(2026, 3, 1, 11, 59, 58)),
    ("<13>Feb 28 11:59:58 host x", at(2026, 2, 28, 11, 59, 58)),
    ("1772366398.5 x", 1772366398.5), ("1772366398500 x", 1772366398.5), ("1772366398 x", 1772366398.0),
    ("2026-03-01T12:00:30Z a clock that is a little ahead", NOW),
    ("no time", None), ("", None), ("2026-13-01T00:00:00Z x", None), ("Feb 31 11:59:58 host x", None),
    ("1970-01-01T00:00:00Z x", None), ("2100-01-01T00:00:00Z x", None), ("1772366398123456789012 x", None),
    ("I9999 11:59:58.000500 1 x", None), ("Mon Mar 1", None), ("I am a sentence", None), ("[1]", None),
    ("2026-03-01", None), ("Dec 31 23:59:59 host x", None), ("0001-01-01T00:00:00+14:00 x", None),
])
def test_times_at_the_beginning_of_a_line(text: str, expected: float | None) -> None:
    """The usual ways to write them; none that cannot be: another month or year, a day that does not exist."""
    found = Stamps().of(text, NOW)
    assert found == (expected if expected is None else pytest.approx(expected, abs=1e-6))


def test_times_without_a_zone_are_in_the_zone_that_is_configured() -> None:
    """And one that names its own is not moved."""
    stamps = Stamps(ZoneInfo("Europe/Berlin"))
    assert stamps.of("2026-03-01 12:59:58 x", NOW) == NOW - 2
    assert stamps.of("2026-03-01T11:59:58Z x", NOW) == NOW - 2
    assert stamps.of("Mar  1 12:59:58 host x", NOW) == NOW - 2


def test_a_time_without_a_year_is_of_the_past_year() -> None:
    """The last evening of December, read on New Year's morning; and a leap day."""
    assert Stamps().of("Dec 31 23:59:59 host x", at(2026, 1, 1, 0, 0, 5)) == at(2025, 12, 31, 23, 59, 59)
    assert Stamps().of("Feb 29 12:00:00 host x", at(2028, 3, 1)) == at(2028, 2, 29, 12)
    assert Stamps().of("Feb 29 12:00:00 host x", NOW) is None


@given(st.text(max_size=60))
def test_no_text_makes_the_reading_of_times_fail(text: str) -> None:
    """Whatever it is: none, or a time that can be."""
    for prefix in ("", "2026-03-01T", "Mar  1 ", "I0301 ", "17723663", "<1>"):
        found = Stamps().of(prefix + text, NOW)
        assert found is None or NOW - OLDEST_S <= found <= NOW


@pytest.mark.parametrize(("value", "expected"), [
    (1772366398, 1772366398.0), (1772366398500, 1772366398.5), (1772366398500000, 1772366398.5),
    (1772366398500000000, 1772366398.5), (True, None), ("1772366398", None), (12, None), (float("nan"), None),
])
def test_bare_numbers_are_seconds_or_finer(value: object, expected: float | None) -> None:
    """As JSON logs hold them."""
    assert number(value) == expected


# -------------------------------------------------------------------------------------------------- frames and parts
def read(*lines: str | bytes, multiline: bool = False) -> list[tuple[float | None, str]]:
    """All that these lines hold."""
    reader = LineReader(multiline=multiline)
    raw = [x.encode() if isinstance(x, str) else x for x in lines]
    return [*map(tuple, reader.entries(raw, NOW)), *map(tuple, reader.flush(NOW, parts=True))]  # type: ignore[list-item]


def texts(*lines: str, multiline: bool = True) -> list[str]:
    return [text for _, text in read(*lines, multiline=multiline)]


def docker(log: str, stream: str = "stdout") -> str:
    return json.dumps({"log": log, "stream": stream, "time": "2026-03-01T11:59:58.5Z"})


def test_the_frame_of_a_container_runtime_is_taken_off_and_gives_the_time() -> None:
    """CRI and Docker's json-file; tags after the flag are allowed."""
    expected = [(NOW - 1.5, "ERROR x")]
    assert read("2026-03-01T11:59:58.5Z stderr F ERROR x") == expected
    assert read("2026-03-01T11:59:58.5Z stderr F:t1:t2 ERROR x") == expected
    assert read(docker("ERROR x\n", "stderr")) == expected
    assert read(docker('{"level": "error", "msg": "x"}\n')) == expected


def test_parts_of_a_long_line_are_joined_by_stream() -> None:
    """The other stream may come in between; the time is that of the first part."""
    cri = ["2026-03-01T11:59:57Z stdout P one ", "2026-03-01T11:59:58Z stderr F other", "2026-03-01T11:59:59Z stdout F two"]
    assert read(*cri) == [(NOW - 2, "other"), (NOW - 3, "one two")]
    assert [t for _, t in read(docker("one "), docker("other\n", "stderr"), docker("two\n"))] == ["other", "one two"]


def test_parts_without_an_end_need_no_memory() -> None:
    """A line is cut at 16 KiB however many parts it has, and that is counted."""
    reader = LineReader()
    part = b"2026-03-01T11:59:57Z stdout P " + b"x" * 8000
    assert list(reader.entries([part] * 1000, NOW)) == []
    assert len(json.dumps(reader.state())) < 2 * MAX_LINE_BYTES
    [entry] = reader.entries([b"2026-03-01T11:59:57Z stdout F end"], NOW)
    assert len(entry.text) == MAX_LINE_BYTES
    assert reader.rejected == Counter(too_long=1)


@pytest.mark.parametrize(("line", "expected"), [
    ('{"time": "2026-03-01T11:59:58Z", "msg": "m"}', NOW - 2), ('{"ts": 1772366398.5, "msg": "m"}', NOW - 1.5),
    ('{"timestamp": 1772366398500, "message": "m"}', NOW - 1.5), ('{"time": [], "msg": "m"}', None),
    ('{"time": "soon", "msg": "m"}', None), ('{"msg": "m"}', None),
])
def test_the_time_of_a_structured_line_is_in_its_fields(line: str, expected: float | None) -> None:
    """As text or as a number."""
    assert read(line) == [(expected, "m")]


# -------------------------------------------------------------------------------------------------------------- traces
PYTHON = ["ERROR request failed", "Traceback (most recent call last):", '  File "a.py", line 1, in f', "    g()",
          "KeyError: 'x'", "", "During handling of the above exception, another exception occurred:", "",
          "Traceback (most recent call last):", '  File "b.py", line 2, in h', "ValueError: bad"]
JAVA = ['Exception in thread "main" java.lang.IllegalStateException: x', "\tat com.shop.A.f(A.java:1)",
        "Caused by: java.io.IOException: y", "\tat com.shop.B.g(B.java:2)", "\t... 3 more"]
GO = ["panic: runtime error: index out of range [1] with length 1", "", "goroutine 1 [running]:", "main.f(0x1)",
      "\t/src/a.go:5 +0x1d", "main.main()", "\t/src/a.go:9 +0x20", "exit status 2"]


@pytest.mark.parametrize("trace", [PYTHON, JAVA, GO], ids=["python", "java", "go"])
def test_a_trace_is_one_entry(trace: list[str]) -> None:
    """And the lines around it are theirs."""
    assert texts("INFO before", *trace, "INFO after") == ["INFO before", "\n".join(trace), "INFO after"]
    if trace is not PYTHON:
        assert texts(*trace, *trace) == ["\n".join(trace)] * 2 or trace is GO


def test_two_python_traces_in_a_row_are_two_entries_unless_one_caused_the_other() -> None:
    """A line that is no part of a trace ends it."""
    one = ["Traceback (most recent call last):", "  File 1", "KeyError: 1"]
    assert texts(*one, "INFO x", *one) == ["\n".join(one), "INFO x\n" + "\n".join(one)]


def test_without_multiline_every_line_is_an_entry() -> None:
    """Nothing waits for the next line."""
    assert texts(*PYTHON, multiline=False) == [x for x in PYTHON if x]


def test_a_trace_without_an_end_is_cut_into_pieces() -> None:
    """At most 200 lines, and at most 16 KiB."""
    found = texts("x", *["  more"] * 1000)
    assert [t.count("\n") + 1 for t in found[:2]] == [MAX_JOINED, MAX_JOINED]
    assert all(len(t) <= MAX_LINE_BYTES + MAX_JOINED for t in texts("x", *["  " + "y" * 5000] * 100))


def test_traces_of_two_streams_do_not_mix() -> None:
    """stdout goes on while stderr tells a trace."""
    lines = [f"2026-03-01T11:59:58Z stderr F {x}" for x in PYTHON]
    lines[2:2] = ["2026-03-01T11:59:58Z stdout F INFO a", "2026-03-01T11:59:58Z stdout F INFO b"]
    assert sorted(texts(*lines)) == sorted(["\n".join(PYTHON), "INFO a", "INFO b"])


@given(st.lists(st.one_of(st.binary(max_size=80), st.sampled_from([x.encode() for x in [*PYTHON, *GO]]),
                          st.sampled_from([b"2026-03-01T11:59:58Z stdout P x", b"2026-03-01T11:59:58Z stdout F y"])),
                max_size=30), st.integers(0, 30), st.booleans())
def test_a_restart_anywhere_gives_the_same_entries(lines: list[bytes], cut: int, multiline: bool) -> None:
    """Whatever the lines are: what waits is in the state, which is plain JSON."""
    whole, first, second = (LineReader(multiline=multiline) for _ in range(3))
    expected = [*whole.entries(lines, NOW), *whole.flush(NOW, parts=True)]
    found = list(first.entries(lines[:cut], NOW))
    second.restore(json.loads(json.dumps(first.state())))
    found += [*second.entries(lines[cut:], NOW), *second.flush(NOW, parts=True)]
    assert found == expected
