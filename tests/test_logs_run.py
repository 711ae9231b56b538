"""Logs of a running daemon, over a kill, a rotation while it is down, and an ordered end: what the journal holds of them."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from fakes.loki import running
from test_run import CLOCK, READY_S, Running, started, until

from aiops import build, config, feeds
from aiops.sinks.journal import Journal, runs
from aiops.sources.journald.source import JournaldSource
from aiops.sources.logs.source import LogFileSource
from aiops.sources.loki.source import LokiSource
from aiops.sources.otlp.source import OtlpSource
from aiops.unused import unused
from aiops.yamlfile import Problems

__all__ = ["started"]
CONFIG = """\
kind: Config
store: state
listen: 127.0.0.1:0
interval: 1s
detectors: [logs]
sources:
  - logs: {{paths: ["*.log"]}}
  - otlp: {{}}
  - loki: {{url: "{url}", query: '{{app="shop"}}', interval: 1s, tail: true}}
"""


def seen(folder: Path) -> Counter[tuple[str, str]]:
    """Every line in the journal of all runs, with its entity."""
    journal = folder / "state" / "journal"
    return Counter((line.entity, line.text) for run in runs(journal) for b in Journal(journal, run).batches() for line in b.lines)


def post(one: Running, path: str, body: Any) -> int:
    request = Request(one.url() + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urlopen(request, timeout=5) as answer:
            return int(answer.status)
    except HTTPError as e:
        return e.code


@pytest.mark.slow
def test_no_line_is_lost_over_a_kill_a_rotation_and_an_end(tmp_path: Path, started: Callable[..., Running]) -> None:
    """Files and Loki: each line at least once, and twice only those of the last poll before the kill. OTLP while it runs."""
    log = tmp_path / "api.log"
    log.touch()

    def write(first: int, last: int) -> None:
        with log.open("a") as f:
            f.writelines(f"line {i}\n" for i in range(first, last))
        now = int(CLOCK.now() * 1e9)
        lines = [(now + i, (("app", "shop"),), f"line {i}") for i in range(first, last)]
        loki.lines += lines
        loki.push(*lines)

    def counted(one: Running, least: int) -> Any:
        return until(lambda: one.status()["counts"].get("log_lines", 0) >= least, READY_S, f"{least} lines")

    with running() as loki:
        one = started(tmp_path, CONFIG.format(url=loki.url))
        until(lambda: one.answers("/readyz"), READY_S, "ready")
        write(0, 50)
        counted(one, 100)
        one.end(signal.SIGKILL)
        write(50, 100)
        log.rename(tmp_path / "api.log.1")
        write(100, 150)
        two = started(tmp_path, CONFIG.format(url=loki.url))
        until(lambda: two.answers("/readyz"), READY_S, "ready")
        counted(two, 200)
        body = {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": {"stringValue": "pushed"}}]}]}]}
        assert post(two, "/v1/logs", body) == 200
        assert post(two, "/v1/logs", {"resourceLogs": 3}) == 400
        with urlopen(two.url() + "/metrics", timeout=5) as answer:
            assert 'aiops_source_rejected_total{reason="malformed",source="otlp"} 1.0' in answer.read().decode()
        [state] = [s for s in two.status()["sources"] if s["name"] == "otlp"]
        assert (state["state"], state["rejected"]) == ("ok", {"malformed": 1})
        write(150, 200)
        assert two.end(signal.SIGTERM) == 0
        three = started(tmp_path, CONFIG.format(url=loki.url))
        until(lambda: three.answers("/readyz"), READY_S, "ready")
        write(200, 210)
        counted(three, 120)
        assert three.end(signal.SIGTERM) == 0
    found = seen(tmp_path)
    lines = {("service//api", f"line {i}") for i in range(210)} | {("service//shop", f"line {i}") for i in range(210)}
    assert set(found) == lines | {("unknown//otlp", "pushed")}
    twice = {int(text.split()[1]) for (_, text), n in found.items() if n > 1}
    assert twice <= set(range(50)), "what was handed on before the kill"
    assert max(found.values()) <= 2


def test_every_source_of_logs_is_made_from_its_settings(tmp_path: Path) -> None:
    """With its place in the store, one a source; paths are relative to the file."""
    path = tmp_path / "aiops.yaml"
    path.write_text("""\
store: state
sources:
  - logs: {paths: ["*.log"], multiline: true, timezone: Europe/Berlin}
  - logs: {paths: [b], entity: service//b}
  - journald: {units: kubelet.service, priority: warning, directory: journal}
  - loki: {url: "https://loki:3100", query: '{a="b"}', tenant: t, tokenFile: token, caFile: ca.pem, tail: true, limit: 7}
  - otlp
""", encoding="utf-8")
    loaded = config.load(path, {})
    a, b, journal, loki, otlp = [s.source for s in feeds.sources(loaded, CLOCK, build.meanings(loaded))]
    assert isinstance(a, LogFileSource)
    assert (a._patterns, a._multiline, str(a._zone), b._entity) == ((f"{tmp_path}/*.log",), True, "Europe/Berlin", "service//b")
    assert isinstance(journal, JournaldSource)
    assert (journal._units, journal._priority, journal._directory) == (("kubelet.service",), "warning", tmp_path / "journal")
    assert isinstance(loki, LokiSource)
    assert (loki._limit, loki._tail is not None, loki._api.ca_file) == (7, True, tmp_path / "ca.pem")
    assert (loki._api._token_file, loki._api._tenant) == (tmp_path / "token", "t")
    assert isinstance(otlp, OtlpSource)
    places = [s._place._path for s in (a, b, journal, loki)]
    assert places == [tmp_path / "state" / f"offsets-{n}.json" for n in ("logs-0", "logs-1", "journald", "loki")]


@pytest.mark.parametrize(("text", "said"), [
    ("logs: {paths: [a], timezone: Berlin}", "timezone: 'Berlin' is not a time zone. Write an IANA name like Europe/Berlin."),
    ("logs: {paths: []}", "paths: must not be empty"),
    ("loki: {url: loki, query: x}", "url: 'loki' is not a URL"), ("loki: {url: 'http://l'}", "query: missing"),
    ("loki: {url: 'http://l', query: x, backfill: 2h}", "backfill: "), ("loki: {url: 'http://l', query: x, limit: 0}", "limit: "),
    ("journald: {priority: bad}", "priority: must be 'emerg'"), ("journald: {units: ['a b']}", "units[0]: "),
    ("otlp: {port: 1}", "otlp.port: unknown key"),
])
def test_mistakes_in_the_settings_are_told_with_their_place(tmp_path: Path, text: str, said: str) -> None:
    """Before anything starts."""
    path = tmp_path / "aiops.yaml"
    path.write_text(f"sources:\n  - {text}\n", encoding="utf-8")
    with pytest.raises(Problems) as e:
        config.load(path, {})
    assert str(e.value).startswith(f"{path}:2: $.sources[0].")
    assert said in str(e.value)


def test_a_second_otlp_source_is_told(tmp_path: Path) -> None:
    """There is one address to push to."""
    path = tmp_path / "aiops.yaml"
    path.write_text("sources:\n  - otlp\n  - otlp\n", encoding="utf-8")
    [(place, told)] = unused(config.load(path, {}))
    assert (place, told[:23]) == (("sources", 1, "otlp"), "there is an otlp source")
