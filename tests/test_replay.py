"""A recording gives one verdict: every time, at every speed, on every machine."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import T0, tiny_recording, tiny_rows, write_csv

from aiops import app, build, cli
from aiops.clock import ManualClock
from aiops.replay import paced

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_recording(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def no_policies(tmp_path_factory):
    """An empty folder: decisions have tests of their own, and compiling policies takes longer than a tiny replay."""
    return tmp_path_factory.mktemp("none")


@pytest.fixture(scope="module")
def digest(tiny, no_policies):
    return app.Player(tiny, no_policies).play().digest


@pytest.mark.slow
def test_a_hundred_replays_give_one_digest(tiny, no_policies, digest):
    """In one process, one after the other."""
    assert len(digest) == 64
    assert {app.Player(tiny, no_policies).play().digest for _ in range(100)} == {digest}


@pytest.mark.parametrize("speed", [1.0, 60.0, 1e6])
def test_the_speed_changes_nothing_but_the_time_it_takes(tiny, no_policies, digest, speed):
    """Nine minutes and fifty seconds at speed 1."""
    clock = ManualClock(5.0)
    player = app.Player(tiny, no_policies)
    assert player.play(wait=paced(clock, speed)).digest == digest
    assert clock.now() == pytest.approx(5.0 + 590 / speed)


def test_without_a_speed_nobody_waits(tiny, no_policies):
    """The clock has not moved."""
    clock = ManualClock(5.0)
    app.Player(tiny, no_policies).play(wait=paced(clock, 0.0))
    assert clock.now() == 5.0


SURROUNDINGS = [
    {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"},
    {"PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "4", "OPENBLAS_NUM_THREADS": "4", "TZ": "Asia/Tokyo"},
    {"PYTHONHASHSEED": "random", "LANG": "de_DE.UTF-8", "LC_ALL": "C", "TZ": "America/New_York"},
    {"PYTHONHASHSEED": "4242", "PYTHONOPTIMIZE": "1", "COLUMNS": "20"},
]


@pytest.mark.slow
def test_other_processes_say_the_same_to_the_last_byte(tiny):
    """Whatever the hash seed, the number of threads, the time zone or the language."""
    said = [subprocess.run([sys.executable, "-m", "aiops.cli", "replay", str(tiny), "--json"], cwd=ROOT, check=True,
                           capture_output=True, env={**os.environ, **extra}).stdout for extra in SURROUNDINGS]
    assert len(set(said)) == 1
    assert json.loads(said[0])["digest"] == app.Player(tiny, None).play().digest


def test_another_fault_gives_another_digest(tmp_path, no_policies, digest):
    """Or it would prove nothing."""
    other = tiny_recording(tmp_path)
    write_csv(other, tiny_rows(fault=(43, 52)))
    assert app.Player(other, no_policies).play().digest != digest


def test_other_policies_give_another_digest(tiny, tmp_path, digest):
    """Decisions are part of the verdict."""
    (tmp_path / "p.yaml").write_text(POLICY, encoding="utf-8")
    result = app.Player(tiny, tmp_path).play()
    assert [a.decision for i in result.incidents.values() for a in i.actions][-1] == "act"
    assert result.digest != digest


POLICY = """\
apiVersion: aiops.io/v1
kind: RemediationPolicy
metadata: {name: p}
spec:
  trigger: {type: Incident}
  actions: [{type: Restart, target: {deployment: db}}]
  mode: act
"""


def test_the_order_of_rows_changes_nothing(tmp_path, no_policies):
    """A file that was written by several at once. (Lines of one moment keep their order.)"""
    digests = set()
    for name, rows in (("a", tiny_rows()), ("b", tiny_rows()[::-1]), ("c", sorted(tiny_rows(), key=lambda r: (r[1], -r[0])))):
        result = app.Player(write_csv(tmp_path / name, rows), no_policies).play()
        digests.add(tuple((i.opened_at, i.entities, tuple(c.entity for c in i.causes)) for i in result.incidents.values()))
    assert len(digests) == 1


# ---------------------------------------------------------------------------------------------------- what it says
def test_the_json_is_the_documented_one(tiny, capsys):
    """One object on stdout, nothing else."""
    assert cli.main(["replay", str(tiny), "--json"]) == 0
    shown = capsys.readouterr()
    said = json.loads(shown.out)
    assert set(said) >= {"fixture", "batches", "samples", "log_lines", "started_at", "ended_at", "funnel", "incidents", "digest"}
    assert (said["batches"], said["samples"], said["log_lines"]) == (60, 120, 65)
    assert (said["started_at"], said["ended_at"], shown.err) == (T0, T0 + 590, "")
    assert set(said["funnel"]) == {"raw_anomalies", "alerts", "incidents", "prioritised", "actionable"}
    [incident] = said["incidents"]
    assert set(incident) >= {"id", "opened_at", "closed_at", "state", "severity", "entities", "alerts", "causes", "actions",
                             "outcomes"}
    assert set(incident["alerts"][0]) >= {"entity", "signal", "since", "score", "p_value"}
    assert set(incident["causes"][0]) == {"entity", "score", "signals", "reasons"}
    assert incident["causes"][0]["entity"] == "service//db"
    assert said["funnel"]["raw_anomalies"] >= said["funnel"]["alerts"] >= said["funnel"]["incidents"] == 1


def test_verify_agrees_with_the_ground_truth(tiny, tmp_path, capsys):
    """And says what differs, with 1, where it does not."""
    assert cli.main(["replay", str(tiny), "--verify"]) == 0
    other = tiny_recording(tmp_path)
    (other / "expect.yaml").write_text(f"faults: [{{id: f, start: {T0 + 420}, end: {T0 + 520}, cause: service//shop}}]\n")
    capsys.readouterr()
    assert cli.main(["replay", str(other), "--verify"]) == 1
    assert "names service//db as the cause, expected service//shop" in capsys.readouterr().err


@pytest.mark.parametrize(("truth", "said"), [
    ("faults: []", "service//db: app_errors) was raised where nothing is wrong"),
    (f"faults: [{{id: f, start: {T0}, end: {T0 + 20}, cause: service//db}}]", "f: no incident while service//db was broken"),
    (f"faults: [{{id: f, start: {T0 + 420}, end: {T0 + 520}, cause: x, also: [service//db], "
     "decisions: [{policy: p, decision: act}]}]", "f: expected p: act any action, decided nothing"),
    (f"score_from: {T0 + 9e9}\nfaults: []", ""),
    (f"faults: [{{id: f, start: {T0 + 420}, end: {T0 + 520}, cause: x, also: [service//db]}}]", ""),
    ("faults: [{id: f, start: soon, end: 1, cause: x}]", "expect.yaml:1: $.faults[0].start"),
])
def test_verify_says_all_that_differs(tmp_path, no_policies, capsys, truth, said):
    """False alarms, missed faults, missing decisions; nothing before the judging begins."""
    folder = tiny_recording(tmp_path)
    (folder / "expect.yaml").write_text(truth)
    code = cli.main(["replay", str(folder), "--verify", "--policies", str(no_policies)])
    assert code == (0 if not said else 2 if "$" in said else 1)
    assert said in capsys.readouterr().err


def test_verify_without_ground_truth_is_an_error(tmp_path, capsys):
    """There is nothing to compare with."""
    folder = tiny_recording(tmp_path)
    (folder / "expect.yaml").unlink()
    assert cli.main(["replay", str(folder), "--verify"]) == 2
    assert "no expect.yaml" in capsys.readouterr().err


def test_each_raw_alert_is_answered_for(tiny, tmp_path):
    """One line an alert, in input order."""
    out = tmp_path / "alerts.out"
    assert cli.main(["replay", str(tiny), "--json", "--alerts-out", str(out)]) == 0
    lines = [json.loads(x) for x in out.read_text().splitlines()]
    assert [x["index"] for x in lines] == [0, 1]
    assert lines[0]["incident"] == lines[1]["incident"] is not None


def test_a_recording_without_alerts_answers_with_an_empty_file(tmp_path):
    """Not with none."""
    folder = write_csv(tmp_path / "r", tiny_rows(3))
    assert cli.main(["replay", str(folder), "--json", "--alerts-out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out").read_text() == ""


def test_the_summary_names_cause_reasons_and_what_was_left_out(tiny, tmp_path, capsys):
    """For a terminal."""
    folder = tiny_recording(tmp_path)
    with (folder / "metrics.csv").open("a") as f:
        f.write(f"{T0},service//db,app_errors,nan\n")
    assert cli.main(["replay", str(folder)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for part in ("service//db", "1 incidents", "left out: 1 not a number", "digest "):
        assert part in shown


def test_progress_is_for_terminals_only():
    """And only where somebody waits."""
    stream, was = io.StringIO(), sys.stderr
    sys.stderr = stream
    try:
        with app.progress(10, wanted=True) as advance:
            advance()
    finally:
        sys.stderr = was
    assert stream.getvalue() == ""


def test_policies_of_one_name_in_two_folders_are_both_kept_for_the_journal(tmp_path):
    """The journal names files by their path below the folder of policies."""
    for team in ("a", "b"):
        (tmp_path / team).mkdir()
        (tmp_path / team / "restart.yaml").write_text(f"# {team}")
    assert build.policy_texts(tmp_path) == {"a/restart.yaml": "# a", "b/restart.yaml": "# b"}
