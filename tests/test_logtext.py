"""What of a log line is a variable, how bad the line is, and what was logged at once."""

from __future__ import annotations

import time

import pytest

from aiops.logframes import Joiner, Trace, condensed, message
from aiops.logtemplate import glued
from aiops.logtext import VARIABLE, Words, level_of, mask, phrase
from aiops.types import LogLine


def shown(line: str) -> str:
    return phrase(Words().line(line))[1].replace(VARIABLE, "*").replace(" \x02", "")


@pytest.mark.parametrize(("line", "expected"), [
    ("took 15 ms, 3.7 % of -1", "took * ms, * % of *"),
    ("flags=0x1f, uid=10037 tag=a64f992", "flags=*, uid=* tag=*"),
    ("peer 10.0.0.1:5070 and fe80::1:2 closed", "peer * and * closed"),
    ("blk_-6952295868487656571 of 127e769a-4fe6-4548-93b1-513ac51e0452", "* of *"),
    ("open /var/lib/x.sock failed", "open * failed"),
    ("see https://a.example/x?y=z, please", "see *, please"),
    ("device 0000:ba:16.0 and 3b:00.0 lost", "device * and * lost"),
    ("brokers: 10.0.0.1, 10.0.0.2, gone: 10.0.0.3", "brokers: *, gone: *"),
    ("bob@mail.example at 00:1a:2b:3c:4d:5e", "* at *"),
    ("pull registry.io/shop/api done", "pull * done"),
    ("ready=true, ws=null", "ready=*, ws=*"),
    ("at Sun Jul 10 03:55:15 2005", "at *"),
    ("from 2026-01-02 03:04:05 to 2026-01-02T03:04:06.7Z", "from * to *"),
    ('"GET /v1/x HTTP/1.1" 200', '"GET *" *'),
    ("sent 451 bytes (1.2 KB), <1 sec", "sent *, *"),
    ("to 10.0.0.1, 10.0.0.2, 10.0.0.3", "to *"),
    ("from 10.0.0.1 ()", "from * (*)"),
    ("jk2_init() of log4j and k8s", "jk2_init() of log4j and k8s"),
    ("nothing varies, here", "nothing varies, here"),
])
def test_what_varies_is_masked(line: str, expected: str) -> None:
    """Numbers, addresses, ids, paths, times; names with a digit inside stay."""
    assert shown(line) == expected


@pytest.mark.parametrize("frame", [
    "2026-01-02T03:04:05.678Z ", "2026-01-02 03:04:05,678 ", "[2026/01/02 03:04:05] ", "03:04:05 ",
    "I0102 15:04:05.123456    1234 file.go:123] ", "<34>Oct 11 22:14:15 host ", "Oct  1 22:14:15 host ",
    "<34>1 2003-10-11T22:14:15.003Z host ",
])
def test_what_loggers_put_in_front_is_taken_off(frame: str) -> None:
    """The same line under any logger is of one kind."""
    rest = "su: login failed for bob" if "host" in frame else "login failed for bob"
    assert shown(frame + rest) == rest


@pytest.mark.parametrize(("line", "level"), [
    ("2026-01-01 03:04:05 ERROR x", "error"), ("E0102 15:04:05.123456 1 f.go:1] x", "error"), ("level=warn msg=x", "warning"),
    ("W0102 15:04:05.123456 1 f.go:1] error", "warning"), ("[INFO] no error", "info"),
    ("java.lang.NullPointerException: y", "error"),
    ("time=3 level=error msg=z", "error"), ("panic: runtime", "error"), ("GET /errors 200", "info"), ("", "info"),
    ("it is a warning", "warning"), ("INFO request met FooException", "info"), ("error-rate 5", "error")])
def test_the_logger_says_how_bad_a_line_is(line: str, level: str) -> None:
    """Its level in front counts; where there is none, the usual words. The masked line has the same level."""
    assert level_of(line) == level == level_of(Words().line(line))


@pytest.mark.parametrize("piece", [
    "a.", "a-", "/", "1:", "x@", "a.b/", "-", "aa:", "<", "\0", "\0,", "Jan ", "1 ", "Mon ", "[", "0a", "\\", "=null", "(1 KB)",
    ": ", ": a", "a b: ", " (a ", "[a ", "='a ", '"', "a= ", " a=", "=[", "a, "])
def test_hostile_lines_take_no_time(piece: str) -> None:
    """No expression runs wild: a thousand characters in some milliseconds."""
    began = time.process_time()
    for line in (piece * 1000, piece * 1000 + "!", "x " + piece * 1000):
        glued(phrase(Words().line(line))[1])
    assert time.process_time() - began < 0.25


def test_words_are_masked_alike_with_a_full_cache() -> None:
    """What is given does not hang on what is remembered, and no more than so many are."""
    words = Words()
    for k in range(60_000):
        assert words[f"w{k}x="] == mask(f"w{k}x=")
    assert len(words) <= Words.LIMIT
    assert words["y" * 5000] == "y" * 5000 and "y" * 5000 not in words


@pytest.mark.parametrize(("line", "expected"), [
    ("2026-01-02T03:04:05.6Z stderr F disk full", "disk full"),
    ('{"level":"error","msg":"disk full","code":3}', "ERROR disk full"),
    ('2026-01-02T03:04:05.6Z stdout F {"severity":"warn","message":"slow","err":"timeout"}', "WARN slow timeout"),
    ('{"msg":"Traceback (most recent call last):\\n  File x\\nValueError: y"}',
     "Traceback (most recent call last): ValueError: y"),
    ('{"code":3,"path":"/x"}', "{code, path}"), ('{"msg":17}', "{msg}"), ("{}", "{}"),
    ("{not json}", "{not json}"), ('{"msg":"x"', '{"msg":"x"'), ('{"msg": "\udc80"}', '{"msg": "\udc80"}'),
    ("{" * 5000, "{" * 5000), ('{"a":' * 3000 + "1" + "}" * 3000, None)])
def test_json_and_the_frames_of_runtimes(line: str, expected: str | None) -> None:
    """The message with its level; what is none is left as it is, however broken."""
    assert message(line) == (expected or line) or expected is None


JAVA = ["ERROR request failed", "java.lang.RuntimeException: no", "\tat shop.Cart.add(Cart.java:12)", "\t... 3 more",
        "Caused by: java.io.IOException: disk", "\tat x.Y.z(Y.java:1)", "INFO next"]
PYTHON = ["Traceback (most recent call last):", '  File "a.py", line 3, in f', "    g()", "ValueError: bad 7", "INFO next"]
GO = ["panic: boom", "", "goroutine 1 [running]:", "main.main()", "\t/src/a.go:5 +0x1d", "exit status 2", "INFO next"]


@pytest.mark.parametrize(("lines", "heads"), [(JAVA, [0, 1, 6]), (PYTHON, [0, 4]), (GO, [0, 6]),
                                              ([*PYTHON[:4], "", *PYTHON], [0, 5, 9])])
def test_a_trace_belongs_together(lines: list[str], heads: list[int]) -> None:
    """Of Java, Python and Go."""
    trace = Trace()
    assert [k for k, line in enumerate(lines) if not trace.continues(line)] == heads


def test_a_trace_is_told_by_its_beginning_and_its_end() -> None:
    """The error of Python, the last cause of Java, else the first line."""
    assert condensed(PYTHON[:4]) == "Traceback (most recent call last): ValueError: bad 7"
    assert condensed(JAVA[1:6]) == "java.lang.RuntimeException: no Caused by: java.io.IOException: disk"
    assert condensed(GO[:6]) == "panic: boom"


def test_lines_of_several_entities_are_joined_apart() -> None:
    """Also where they come mixed, and where a source has joined them already."""
    a = [LogLine(k, "pod//a", text) for k, text in enumerate(PYTHON)]
    b = [LogLine(k, "pod//b", "INFO fine") for k in range(5)]
    whole = LogLine(9.0, "pod//c", "\n".join(PYTHON[:4]))
    mixed = [line for pair in zip(a, b, strict=True) for line in pair]
    events = Joiner().events([*mixed, whole])
    told = "Traceback (most recent call last): ValueError: bad 7"
    assert [(e.time, e.text) for e in events if e.entity == "pod//a"] == [(0, told), (4, "INFO next")]
    assert [e.text for e in events if e.entity == "pod//b"] == ["INFO fine"] * 5
    assert events[-1] == LogLine(9.0, "pod//c", told)


def test_a_trace_may_be_cut_by_the_end_of_a_tick() -> None:
    """What comes later is still no line of its own kind, over a restart too."""
    lines = [LogLine(0.0, "pod//a", text) for text in PYTHON]
    first, second = Joiner(), Joiner()
    assert [e.text for e in first.events(lines[:2])] == [PYTHON[0]]
    second.restore(first.state())
    assert [e.text for e in second.events(lines[2:])] == [PYTHON[2].strip() and PYTHON[2], "INFO next"]
