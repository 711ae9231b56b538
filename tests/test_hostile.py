"""Bad input on its way from alerts, topologies and logs to an incident: each through the parts that stand there in a real run."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import T0, bare_pipeline, links, pipeline, tiny_recording, tiny_rows, write_csv, write_jsonl

from aiops import cli, intake
from aiops.intake import Intake
from aiops.links import WRITTEN
from aiops.sources.logs.source import LogFileSource
from aiops.types import Incident, LogLine, RawAlert

ROOT = Path(__file__).parents[1]
STEP_S = 15.0
WEB, CART, DB = (f"service/shop/{name}" for name in ("web", "cart", "db"))
SHOP = links(f"{WEB} calls {CART}", f"{CART} calls {DB}")
NONSENSE = links("a//1 calls a//2", "a//2 calls a//3", "a//3 calls a//1", "a//1 calls a//1", "a//2 owns a//3", "a//3 owns a//2",
                 "a//1 runs_on nowhere", "node//x runs_on pod//x", "pod//x runs_on node//x", "/// uses ////")


class Daemon:
    """An intake and a pipeline behind it, tick by tick."""

    def __init__(self, **sources: Any) -> None:
        self.intake, self.run, self.at, self.reports = Intake(STEP_S), bare_pipeline([]), T0, []
        self.assigned: dict[int, str] = {}
        for name, told in sources.items():
            self.intake.links(name, told)

    def tick(self, *raw: tuple[Any, ...]) -> list[Incident]:
        """raw: entity, name, and where need be status, seconds ago, severity. The incidents that are open then."""
        self.at += STEP_S
        for r in raw:
            entity, name, status, ago, severity = (*r, *("Slow", "firing", 0.0, "warning")[len(r) - 1:])
            self.intake.alert(RawAlert(0, self.at - ago, entity, name, status, severity))
        for batch in self.intake.drain(self.at):
            report = self.run.step(batch)
            self.assigned.update(report.assigned)
        self.dropped = dict(report.counts.dropped)
        return list(self.run.book.open())


def verdict(found: list[Incident]) -> list[tuple[Any, ...]]:
    """What an incident of the shop comes to."""
    return [(i.entities, [(c.entity, c.score, c.reasons) for c in i.causes], i.impact) for i in found if WEB in i.entities]


# ------------------------------------------------------------------------------------------------------------- topology
def test_nonsense_beside_it_changes_no_verdict() -> None:
    """Cycles, self-loops, parents of their parents, edges to nowhere, unknown entities: the shop's incident is what it is."""
    plain, bad = Daemon(file=SHOP), Daemon(file=SHOP, nonsense=NONSENSE)
    odd = ("a//1", "a//2", "nowhere", "never/heard/of it", "", "///", "pod//x", "node//x")
    for k in range(4):
        shop = [(WEB,), (CART,), (DB,)] if k else [(DB,)]
        expected = plain.tick(*shop)
        found = bad.tick(*shop, *((e,) for e in odd))
        assert verdict(found) == verdict(expected)
    assert verdict(found)[0][1][0][0] == DB
    assert {e for i in found for e in i.entities} == {WEB, CART, DB, *odd}


def test_a_cycle_of_alerts_has_a_ranking() -> None:
    """Each depends on each: shares add up to one, and everybody is hurt but the suspect itself."""
    daemon = Daemon(nonsense=NONSENSE)
    daemon.tick(("a//1",))
    [i] = daemon.tick(*((f"a//{k}",) for k in (1, 2, 3)))
    assert sum(c.score for c in i.causes) == pytest.approx(1.0) and len(i.causes) == 3
    assert {i.causes[0].entity, *i.impact.entities} == {"a//1", "a//2", "a//3"}


def test_an_entity_that_changes_its_parent_while_it_suffers() -> None:
    """It stays in its incident; who is hurt by it follows the new parent, and the old one's trouble is another's."""
    daemon = Daemon(kubernetes=links("service/s/a owns pod/s/x"))
    [first] = daemon.tick(("pod/s/x",))
    assert first.impact.entities == ("service/s/a",)
    daemon.intake.links("kubernetes", links("service/s/b owns pod/s/x", "service/s/c calls service/s/b"))
    [moved] = daemon.tick(("pod/s/x",))
    assert (moved.id, moved.impact.entities) == (first.id, ("service/s/b", "service/s/c"))
    assert sorted(i.entities for i in daemon.tick(("pod/s/x",), ("service/s/a",), ("service/s/b",))) == [
        ("pod/s/x", "service/s/b"), ("service/s/a",)]


def test_a_topology_that_arrives_late() -> None:
    """Alerts before it go together by time; from then on causes and the hurt are found in it, without a second page."""
    daemon = Daemon()
    [blind] = daemon.tick((WEB,), (CART,), (DB,))
    assert not blind.impact.entities and len({c.score for c in blind.causes}) == 1
    daemon.intake.links(WRITTEN, SHOP)
    [seen] = daemon.tick((WEB,), (CART,), (DB,))
    assert (seen.id, seen.causes[0].entity, set(seen.impact.entities)) == (blind.id, DB, {WEB, CART})
    daemon.intake.links(WRITTEN, links())
    [again] = daemon.tick((WEB,), (CART,), (DB,))
    assert again.id == blind.id, "a topology that goes away opens nothing"


# --------------------------------------------------------------------------------------------------------------- alerts
def test_alerts_minutes_out_of_order_are_one_story() -> None:
    """Firing heard after its resolve, minutes old repeats, resolves without firing and twice: counted, and one incident."""
    daemon = Daemon(file=SHOP)
    [first] = daemon.tick((WEB,), (DB, "Slow", "firing", 200.0))
    began = min(a.since for a in first.alerts)
    assert began == daemon.at - 200.0
    [same] = daemon.tick((CART, "Slow", "firing", 240.0), (WEB, "Slow", "firing", 180.0))
    assert same.id == first.id and set(same.entities) == {WEB, CART, DB}
    told = [(WEB, "Slow", "resolved"), (WEB, "Slow", "resolved"), (DB, "Slow", "resolved"), (CART, "Slow", "resolved"),
            ("never//seen", "Slow", "resolved"), (DB, "Never", "resolved"), (WEB, "Slow", "firing", 120.0)]
    daemon.tick(*told)
    for _ in range(12):
        found = daemon.tick((DB, "Slow", "resolved"))
    assert found == [] and daemon.run.counts().incidents == 1
    assert daemon.dropped == {"alerts_resolved_that_did_not_fire": 2 + 12, "alerts_resolved_twice": 1, "alerts_out_of_order": 1}


@pytest.mark.parametrize("entity", ["", "/", "|", "pod", "service/x", "a|b|c", "pod/s/" + "x" * 1000])
def test_an_incident_about_an_odd_name_opens_closes_and_comes_again(entity: str) -> None:
    """Also about nobody at all; and it is remembered."""
    daemon = Daemon(file=SHOP)
    for _ in range(2):
        [found] = daemon.tick((entity, "Odd|name"))
        for _ in range(40):
            daemon.tick()
        assert not daemon.run.book.open()
        daemon.at += 3 * 86_400.0
    assert found.entities == (entity,) and found.before.in_7d == 1


@pytest.mark.parametrize("time", [math.nan, math.inf, -math.inf])
def test_an_alert_without_a_time_is_counted(time: float) -> None:
    """It is about no moment, and the next one about the same is heard."""
    daemon = Daemon(file=SHOP)
    daemon.intake.alert(RawAlert(0, time, WEB, "Slow"))
    assert daemon.tick() == [] and daemon.intake.dropped == {"alerts_without_time": 1}
    assert len(daemon.tick((WEB,))) == 1


def flood(total: int, ticks: int) -> Iterator[list[tuple[Any, ...]]]:
    """Each tick's part of a storm: noise on ever new pods, at the end of each tick the shop's critical alerts, last of all."""
    part = total // ticks
    for k in range(ticks):
        noise = [(f"pod/s/p{k}-{n}", f"Noise{n % 11}", "firing", n * STEP_S / part) for n in range(part - 3)]
        yield [*noise, *((e, "Down", "firing", 0.0, "critical") for e in (WEB, CART, DB))]


def drowned(total: int, ticks: int, room: int) -> None:
    daemon, handed = Daemon(file=SHOP), 0
    for raw in flood(total, ticks):
        found = daemon.tick(*raw)
        handed += len(raw)
    [shop] = [i for i in found if WEB in i.entities]
    assert {a.entity for a in shop.alerts if a.severity == "critical"} == {WEB, CART, DB}, "they came last, and are there"
    assert shop.causes[0].entity == DB
    shed = daemon.intake.dropped["alerts"] + daemon.dropped.get("alerts_too_many_at_once", 0)
    assert shed > 0 and daemon.run.counts().raw_anomalies + daemon.intake.dropped["alerts"] == handed
    assert sum(len(i.alerts) for i in found) <= 2 * room
    assert Counter(daemon.assigned.values())[shop.id] == 3 * ticks, "each of them has its incident"


def test_a_flood_is_shed_by_count_and_what_is_critical_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much noise came before it in the same tick."""
    monkeypatch.setattr(intake, "MAX_ALERTS", 100)
    monkeypatch.setattr("aiops.others.MOST_KEYS", 150)
    drowned(4000, 4, 150)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_million_alerts_in_a_minute() -> None:
    """As shipped."""
    drowned(1_000_000, 4, 100_000)


SHORT = ("service", "service/x", "service//", "pod/x", "pod", "node", "node/x", "deployment/d", "gpu", "gpu/x", "/", "job")
"""Names that lack what the name of an entity has."""


def hostile_recording(folder: Path) -> Path:
    """The tiny recording among all that can be wrong with one."""
    calls = [(T0 + k * 10, e, "traces_service_graph_request_total", '"client=""x"""', k + 1.0) for k in range(60) for e in SHORT]
    tiny_recording(folder)
    write_csv(folder, [*((t, e, m, "", v) for t, e, m, v in tiny_rows()), *calls], "time,entity,metric,labels,value")
    (folder / "expect.yaml").unlink()
    edges = [(e.source, e.kind, e.target) for e in (*NONSENSE.edges, *links("service//shop calls service//db").edges)]
    edges += [(a, kind, b) for a in SHORT for b in SHORT for kind in ("owns", "runs_on", "calls", "uses")]
    (folder / "topology.yaml").write_text(json.dumps({
        "nodes": [{"id": "service//db", "criticality": 0}, {"id": "service//db", "criticality": 9}, {"id": ""}],
        "edges": [{"from": a, "to": b, "kind": k} for a, k, b in edges]}), encoding="utf-8")
    raw = [{"time": T0 + at, "entity": entity, "name": name, "status": status} for at, entity, name, status in [
        (450, "service//shop", "Slow", "firing"), (300, "service//shop", "Slow", "resolved"),
        (450, "ghost//1", "Slow", "resolved"), (540, "service//shop", "Slow", "resolved"),
        (540, "service//shop", "Slow", "resolved"), (200, "weird", "\x1b[31mred\x00", "firing"),
        (-1e6, "service//db", "Ancient", "firing"), (455, "", "Nobody", "firing"), (455, "a//1", "[bold]x[/]", "firing"),
        *((470, e, "Short", "firing") for e in SHORT)]]
    write_jsonl(folder / "alerts.jsonl", raw)
    with (folder / "alerts.jsonl").open("ab") as f:
        f.write(b'{"time": NaN, "entity": "a", "name": "b"}\nno json\n{"time": 1e300, "entity": "a", "name": "b"}\n')
        f.write(b'{"time": 1, "entity": "\xff", "name": "b"}\n{"time": 1, "entity": "a", "name": "b", "status": "pending"}\n')
        f.write(b'{"time": 1, "entity": "a", "name": "b", "x": ' + b"[" * 50_000 + b"}\n")
        f.write(json.dumps({"time": T0, "entity": "a", "name": "n" * 100_000}).encode() + b"\n")
    with (folder / "logs.jsonl").open("ab") as f:
        f.write(b'{"time": 1, "entity": "a", "text": "\xff\xfe"}\n')
        for text in ("a" * 10_000_000 + "!", "\x00\x1b[2J " + "\\" * 1000, "", "ERROR " + "x y " * 100_000):
            f.write(json.dumps({"time": T0 + 300, "entity": "service//db", "text": text}).encode() + b"\n")
    return folder


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hostile_recording(tmp_path_factory.mktemp("hostile"))


def test_a_recording_of_all_that_is_bad_is_replayed(hostile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every raw alert is answered for, all that was left out is counted, and nothing of it reaches the terminal as it is."""
    out = tmp_path / "out"
    assert cli.main(["replay", str(hostile), "--alerts-out", str(out)]) == 0
    answers = [json.loads(line) for line in out.read_text().splitlines()]
    assert [a["index"] for a in answers] == list(range(28))
    assert [a["index"] for a in answers if a["incident"] is None] == [1, 2, *range(21, 28)]
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and "\x00" not in shown and "·[31mred·" in shown and "[bold]x[/]" in shown
    for count in ("6 alerts.jsonl lines malformed", "1 alerts.jsonl lines without time", "1 logs.jsonl lines malformed",
                  "2 alerts resolved that did not fire", "1 alerts resolved twice"):
        assert f"left out: {count}" in shown


def said(folder: Path, seed: int, out: Path) -> tuple[bytes, bytes]:
    """`--json` and `--alerts-out` of a process of its own."""
    command = [sys.executable, "-m", "aiops.cli", "replay", str(folder), "--json", "--alerts-out", str(out)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, env={**os.environ, "PYTHONHASHSEED": str(seed)})
    return done.stdout, out.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hostile", "slow-dependency", "bad-deploy"])
def test_no_verdict_hangs_on_the_order_of_a_set(hostile: Path, tmp_path: Path, name: str) -> None:
    """The same bytes whatever strings hash to."""
    folder = hostile if name == "hostile" else ROOT / "fixtures" / name
    told = [said(folder, seed, tmp_path / "out") for seed in (0, 1, 2)]
    assert told[0] == told[1] == told[2]
    assert json.loads(told[0][0])["incidents"]


# ----------------------------------------------------------------------------------------------------------------- logs
LONG = 16 * 1024
BOMBS = ("a", "1", " ", "a=", "=", ":", "1.", "ab:", "-", "_", "/", "\\", '"', '"a" ', "'", "[", "[]", "(", "{", '{"a":',
         " at a.b(", "deadbeef", "123e4567-", "%41", "1,", "2026-01-01T", "12:34:", "\t", "\x00", "\x1b[31m", "😀", "a\u0301", "http://",
         "a@b.", "0x", "1e", 'k="v" ', "aaaaaaaaaaaaaaaa!", "ERROR ", "NVRM: Xid (PCI:", "Caused by: ", "<*> ", "[123] ", "１")


def bombs() -> Iterator[str]:
    """What makes careless expressions try for ever: one thing over and over, and at the end another."""
    for piece in BOMBS:
        body = (piece * LONG)[:LONG - 40]
        yield from (body, f"{body}!", f"INFO {body} $", f"2026-01-01T00:00:00Z {body}", json.dumps({"msg": body}))


@pytest.mark.slow
def test_hostile_lines_of_a_file_cost_their_length(tmp_path: Path) -> None:
    """From the file to the report: every line is read and counted, and none keeps the step busy."""
    log, core, buffer = tmp_path / "db.log", pipeline(), Intake(STEP_S)
    lines = [b.encode() for b in bombs()]
    binary = [os.urandom(4096).replace(b"\n", b""), bytes(range(256)).replace(b"\n", b""), b"z" * 10_000_000]
    log.write_bytes(b"\n".join([*lines, *binary, b"INFO fine"]) + b"\n")
    source = LogFileSource([str(log)], from_start=True)
    source.poll(T0, buffer)
    waiting = buffer.drain(T0)[-1]
    assert waiting.lines[-1].text == "INFO fine" and all(len(x.text) <= LONG for x in waiting.lines)
    report = core.step(waiting)
    assert report.counts.log_lines == len(waiting.lines) > 200
    source.close()


@pytest.mark.slow
def test_hostile_lines_on_stdin_are_answered_one_by_one() -> None:
    """Bombs, binary, ten megabytes: a template each, nothing on stderr."""
    lines = [*(b.replace("\n", " ").encode() for b in bombs()), os.urandom(9999).replace(b"\n", b""), b"z" * 10_000_000]
    done = subprocess.run([sys.executable, "-m", "aiops.cli", "logs", "templates", "--json"], input=b"\n".join(lines), cwd=ROOT,
                          capture_output=True, timeout=100, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert [set(json.loads(x)) for x in done.stdout.splitlines()] == [{"template_id", "template"}] * len(lines)


def test_long_lines_that_wait_are_bounded_by_their_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who brings more comes again after the tick; one piece that is larger than all room is taken by itself."""
    monkeypatch.setattr(intake, "MAX_TEXT", 100)
    buffer, line = Intake(STEP_S), LogLine(T0, DB, "x" * 60)
    assert [buffer.line(line), buffer.line(line)] == [True, False]
    assert len(buffer.drain(T0)[-1].lines) == 1
    assert buffer.line(line, line) and not buffer.line(line)
    assert len(buffer.drain(T0 + 1)[-1].lines) == 2 and buffer.line(line)
