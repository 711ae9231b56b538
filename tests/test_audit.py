"""The audit record: what it holds, that nobody changes it unseen, and what a kill or a full disk leaves behind."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import T0, alert

from aiops import chain
from aiops.chain import BEGINNING, Draft
from aiops.cli import main
from aiops.loop import Recorded, advance
from aiops.sinks import auditfile
from aiops.sinks.audit import COUNTS_S, Audit
from aiops.sinks.auditfile import DAEMON, AuditFile
from aiops.types import Action, Batch, Command, EndState, Incident, ModelEvent, Outcome, Report

ACT = Action("a-1", "Restart", "pod/shop/api", {"token": "hunter2", "grace": 0.5}, "inc-1", "restart-api", "act",
             "password=hunter2 of ann@example.com at 10.0.0.1", T0, "submitted", ("baseline-v2",))
REFUSED = replace(ACT, id="a-2", decision="refused", state="cooldown", reason="cooldown: wait 4m more")
INCIDENT = Incident("inc-1", T0, T0, "open", "warning", ("pod/shop/api",), (alert("pod/shop/api x"),), actions=(ACT,))


def drafts(count: int, at: float = T0, size: int = 0) -> list[Draft]:
    return [Draft(at + k, "state", DAEMON, {"number": k, "text": "x" * size}) for k in range(count)]


def written(folder: Path, count: int = 5, **more: object) -> Path:
    file = AuditFile(folder, **more)  # type: ignore[arg-type]
    for draft in drafts(count):
        assert file.write([draft])
    file.close()
    return folder


def kinds(folder: Path) -> list[str]:
    return [e["kind"] for e in chain.entries(folder)]


def whole(folder: Path) -> chain.Verdict:
    found = chain.verify(folder)
    assert (found.place, found.problem) == ("", "")
    return found


# ------------------------------------------------------------------------------------------------------- what is in it
def test_everything_that_a_step_decided_is_in_it(tmp_path: Path) -> None:
    """Answers before the decisions that follow from them, each with who and why; the guard by its name."""
    audit = Audit(tmp_path)
    audit.began(T0, {"version": "1", "config": "c", "policies": "p"})
    audit.publish(Report(
        T0, incidents=(INCIDENT,), actions=(ACT, REFUSED), outcomes=(Outcome("a-1", "helped", T0, "all clear"),),
        model_events=(ModelEvent(T0, "baseline", "promoted", "baseline-v2", "by ann"),),
        ends=(EndState(T0, T0, "pod/shop/api", "x", "blocked", "rate", "2 actions", "inc-1", "restart-api"),
              EndState(T0, T0 - 9, "pod/shop/api", "y", "blocked", "rate", "as before", "inc-1", "restart-api")),
        commands=(Command(T0, "approve", "a-1", "ann@example.com"), Command(T0, "useful", "inc-1", "bob"))))
    audit.ended(T0 + 1, True)
    found = list(chain.entries(tmp_path))
    assert kinds(tmp_path) == [
        "started", "answer", "answer", "decision", "decision", "outcome", "model", "state", "stopped"]
    started, answer, feedback, act, refused, outcome, model, state, stopped = found
    assert started["what"] == {"version": "1", "config": "c", "policies": "p"}
    assert (answer["who"], answer["what"]["verb"], answer["what"]["incident"]) == (
        {"role": "person", "name": "ann@example.com"}, "approve", "inc-1")
    assert (feedback["who"]["name"], feedback["what"]["target"]) == ("bob", "inc-1")
    assert act["who"] == answer["who"], "a person approved it"
    assert act["what"]["params"] == {"token": "***", "grace": "0.5"}
    assert act["what"]["models"] == ["baseline-v2"]
    assert (refused["who"], refused["what"]["guard"]) == ({"role": "policy", "name": "restart-api"}, "cooldown")
    assert (outcome["what"]["status"], outcome["what"]["incident"]) == ("helped", "inc-1")
    assert model["what"]["event"] == "promoted"
    assert (state["what"]["signal"], state["what"]["state"], state["what"]["by"]) == ("x", "blocked", "rate")
    assert stopped["what"] == {"orderly": True}
    assert whole(tmp_path).entries == 9


def test_stops_and_changed_parameters_are_answers_with_who_and_what(tmp_path: Path) -> None:
    """Of a person, or of the place where it was said; secrets stay out."""
    audit = Audit(tmp_path)
    audit.publish(Report(T0, commands=(
        Command(T0, "stop", "", "ann", reason="storm, password=hunter2"), Command(T0, "freeze", "configmap a/b", "configmap a/b"),
        Command(T0, "approve", "a-1", "bob", params={"replicas": "+1", "token": "hunter2"}))))
    audit.ended(T0 + 1, True)
    stop, freeze, approve = [e for e in chain.entries(tmp_path) if e["kind"] == "answer"]
    assert (stop["who"], stop["what"]["verb"]) == ({"role": "person", "name": "ann"}, "stop")
    assert stop["what"]["reason"].startswith("storm") and "hunter2" not in json.dumps([stop, approve])
    assert freeze["who"] == {"role": "place", "name": "configmap a/b"}
    assert approve["what"]["changed"] == {"replicas": "+1", "token": "***"}


def test_another_set_of_policies_is_told_with_its_hash(tmp_path: Path) -> None:
    """The one that the start of a run with the same set would have."""
    audit, texts = Audit(tmp_path), {"a.yaml": "kind: RemediationPolicy"}
    audit.publish(Report(T0, policies=texts, notes=("policies: a new.", "else")))
    audit.close()
    [entry] = chain.entries(tmp_path)
    assert (entry["kind"], entry["what"]) == ("policies", {"policies": chain.fingerprint(texts), "text": "policies: a new."})


def test_no_secret_and_no_address_of_a_person_gets_into_it(tmp_path: Path) -> None:
    """In reasons, parameters and texts; addresses of machines by option."""
    for name, ips in (("a", False), ("b", True)):
        audit = Audit(tmp_path / name, ips=ips)
        audit.publish(Report(T0, actions=(ACT,), outcomes=(Outcome("a-1", "failed", T0, "Bearer abcdefgh refused"),),
                             ends=(EndState(T0, T0, "node//10.0.0.1", "x", "suppressed", "", "secret: hunter2"),)))
        audit.close()
        text = next((tmp_path / name).iterdir()).read_text()
        assert not [s for s in ("hunter2", "ann@example.com", "abcdefgh") if s in text]
        assert ("10.0.0.1" in text) is not ips


def test_anomalies_that_are_no_alert_are_counted(tmp_path: Path) -> None:
    """A line for five minutes of them, by state, and one for the rest at the end."""
    audit = Audit(tmp_path)
    weak = tuple(EndState(T0, T0, f"pod//{k}", "x", "below_budget", alerted=False) for k in range(7))
    for at in (T0, T0 + 60, T0 + COUNTS_S, T0 + COUNTS_S + 60):
        audit.publish(Report(at, ends=weak))
    audit.ended(T0 + 999, True)
    assert [e["what"]["counts"] for e in chain.entries(tmp_path) if e["kind"] == "anomalies"] == [
        {"below_budget": 21}, {"below_budget": 7}]


def test_a_quiet_step_writes_nothing(tmp_path: Path) -> None:
    """Not even a file."""
    Audit(tmp_path / "audit").publish(Report(T0))
    assert not (tmp_path / "audit").exists()


# ----------------------------------------------------------------------------------------------- before it is carried out
class Pipeline:
    """Decides what a test says."""

    def __init__(self, *actions: Action) -> None:
        self.actions = actions

    def step(self, batch: Batch) -> Report:
        return Report(batch.at, actions=self.actions)


class Hands:
    """Carries out nothing and remembers what the record said at that time."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.saw = folder, []

    def submit(self, actions):
        self.saw += [(a.id, [e["what"].get("action") for e in chain.entries(self.folder)]) for a in actions]

    def collect(self):
        return []


def test_an_action_is_on_disk_before_it_is_carried_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written and synced; what only asks or tells does not wait for the disk."""
    synced: list[int] = []
    fsync = os.fsync
    monkeypatch.setattr(auditfile.os, "fsync", lambda fd: (synced.append(fd), fsync(fd)))
    audit, hands = Audit(tmp_path), Hands(tmp_path)
    audit.publish(Report(T0, actions=(REFUSED,)))
    before = len(synced)
    audit.publish(Report(T0 + 1, actions=(REFUSED,)))
    assert len(synced) == before
    advance(Pipeline(ACT), Batch(T0 + 2), Recorded(hands, audit), [audit])  # type: ignore[arg-type]
    assert hands.saw == [("a-1", ["a-2", "a-2", "a-1"])]
    assert len(synced) == before + 1


def test_what_cannot_be_recorded_is_not_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The outcome says so; once the disk takes entries again, the record says how many are missing, and actions go on."""
    audit, hands = Audit(tmp_path), Hands(tmp_path)
    actuator = Recorded(hands, audit)
    audit.began(T0, {})
    real = os.write

    def half(fd: int, data: bytes) -> int:
        real(fd, data[:40])
        raise OSError(28, "No space left")
    with monkeypatch.context() as full:
        full.setattr(auditfile.os, "write", half)
        advance(Pipeline(ACT), Batch(T0), actuator, [audit])  # type: ignore[arg-type]
    [outcome] = actuator.collect()
    assert hands.saw == [] and outcome.status == "refused"
    assert "not on record" in outcome.reason and "no space left" in outcome.reason
    assert actuator.collect() == []
    advance(Pipeline(ACT), Batch(T0 + 1), actuator, [audit])  # type: ignore[arg-type]
    assert [name for name, _ in hands.saw] == ["a-1"]
    assert kinds(tmp_path) == ["started", "repaired", "lost", "decision"]
    assert audit.counts() == {"written": 4, "lost": 1} and audit.problem == ""
    whole(tmp_path)


# ------------------------------------------------------------------------------------------------------------ the chain
@pytest.mark.real("jq", "sha256sum")
def test_what_was_hashed_is_what_jq_prints(tmp_path: Path) -> None:
    """The line of docs/audit.md, with whatever texts and numbers."""
    file = AuditFile(tmp_path)
    odd = {"z": 1.5, "a": [1e300, -3, 2**60, float("nan"), 7.0, True, None], "": {"b": ""},
           "ü€😀\u2028": "\x7f\x00\ud800\"\\/<é>\t"}
    file.write([Draft(T0 + 0.25, "state", {"role": "person", "name": "a\nb"}, odd), *drafts(2)])
    file.close()
    [path] = chain.segments(tmp_path)
    for line in path.read_text(encoding="utf-8").splitlines():
        made = subprocess.run(["jq", "-cjS", "del(.hash)"], input=line, capture_output=True, text=True, check=True, timeout=20)
        summed = subprocess.run(["sha256sum"], input=made.stdout, capture_output=True, text=True, check=True, timeout=20)
        assert summed.stdout.split()[0] == json.loads(line)["hash"]
    assert whole(tmp_path).entries == 3


def by_hand(store: Path) -> str:
    """What the lines in docs/audit.md say."""
    [script] = re.findall(r"```sh\n(.*?)```", (Path(__file__).parents[1] / "docs" / "audit.md").read_text(), re.DOTALL)
    env = {**os.environ, "STORE": str(store)}
    ran = subprocess.run(["sh", "-c", script], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0 and not ran.stderr, ran.stderr
    return ran.stdout


@pytest.mark.real("jq", "sha256sum")
def test_the_way_by_hand_that_is_documented(tmp_path: Path) -> None:
    """Silent on a whole record of two files, and it shows the entry that was changed."""
    written(tmp_path / "audit", 6, keep_s=60.0)
    assert by_hand(tmp_path) == "" and whole(tmp_path / "audit").segments > 1
    path = chain.segments(tmp_path / "audit")[-1]
    path.write_text(path.read_text().replace('"number":5', '"number":6', 1))
    assert by_hand(tmp_path).startswith("broken: {") and '"number":6' in by_hand(tmp_path)


def test_a_record_goes_on_after_a_restart(tmp_path: Path) -> None:
    """With the next number, on the same chain, in the same file."""
    written(tmp_path), written(tmp_path)
    found = whole(tmp_path)
    assert (found.entries, found.first, found.last, found.segments) == (10, 1, 10, 1)


@pytest.mark.parametrize("seed", range(40))
def test_any_change_to_any_line_is_found(tmp_path: Path, seed: int) -> None:
    """A byte, a line taken out, two exchanged, one put in or written twice: the first broken line is named."""
    chance = random.Random(seed)
    [path] = chain.segments(written(tmp_path, 12))
    lines = path.read_bytes().splitlines(keepends=True)
    k = chance.randrange(0, 11)
    place = chance.randrange(len(lines[k]) - 1)
    changed = [
        [*lines[:k], lines[k][:place] + bytes([lines[k][place] ^ 1]) + lines[k][place + 1:], *lines[k + 1:]],
        [*lines[:k], *lines[k + 1:]], [*lines[:k], lines[k + 1], lines[k], *lines[k + 2:]],
        [*lines[:k], chain.seal(drafts(1)[0], k + 1, BEGINNING)[0], *lines[k:]], [*lines[:k + 1], *lines[k:]],
        [*lines[:k], lines[k].replace(b'{"at"', b'{ "at"'), *lines[k + 1:]]][seed % 6]
    path.write_bytes(b"".join(changed))
    found = chain.verify(tmp_path)
    where = k + 2 if seed % 6 == 4 else k + 1
    where = 1 if where == 1 or (seed % 6 == 3 and k == 0) else where
    assert (found.place, found.entries) == (f"{path}:{where}", where - 1), found.problem


@pytest.mark.parametrize("cut", range(1, 40))
def test_what_a_kill_tore_off_is_cut_and_told(tmp_path: Path, cut: int) -> None:
    """Wherever the last line ends: the next start repairs it, says so, and the chain holds; so it does before that."""
    [path] = chain.segments(written(tmp_path, 4))
    size = path.stat().st_size
    os.truncate(path, size - 1 - cut * 6)
    assert chain.verify(tmp_path).notes and whole(tmp_path).entries == 3
    file = AuditFile(tmp_path)
    assert file.write(drafts(1))
    file.close()
    assert kinds(tmp_path) == ["state"] * 3 + ["repaired", "state"]
    assert whole(tmp_path).last == 5 and not chain.verify(tmp_path).notes


WRITER = """\
import sys
from pathlib import Path
from aiops.chain import Draft
from aiops.sinks.auditfile import DAEMON, AuditFile
file = AuditFile(Path(sys.argv[1]))
for k in range(10**9):
    assert file.write([Draft(1e9 + k, "state", DAEMON, {"number": k, "text": "x" * 2_000_000})])
    print(file.seq, flush=True)
"""


@pytest.mark.slow
def test_kill_9_in_the_middle_of_writing(tmp_path: Path) -> None:
    """Again and again: what the writer said that it had written is there, and the chain is whole after each new start."""
    chance, said = random.Random(1), 0
    for _ in range(5):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout
        said = int([writer.stdout.readline() for _ in range(chance.randint(1, 8))][-1])
        writer.kill()
        rest = writer.stdout.read().split()
        writer.wait()
        said = int(rest[-1]) if rest else said
        assert whole(tmp_path).last >= said
    file = AuditFile(tmp_path)
    file.write(drafts(1))
    file.close()
    assert whole(tmp_path).last > said and not chain.verify(tmp_path).notes


def test_a_first_line_that_was_torn_is_no_end_of_the_chain(tmp_path: Path) -> None:
    """In the first segment of all, and in one that was just begun."""
    (tmp_path / "audit-000000000001.jsonl").write_bytes(b'{"at":')
    written(tmp_path, 3)
    (tmp_path / "audit-000000000005.jsonl").write_bytes(b'{"at":"2026')
    written(tmp_path, 2)
    assert kinds(tmp_path) == ["repaired", "state", "state", "state", "repaired", "state", "state"]
    assert whole(tmp_path).segments == 2


def test_the_oldest_goes_by_size_and_the_rest_still_verifies(tmp_path: Path) -> None:
    """An entry says which number and hash each dropped file ended with; without that entry it would be a gap."""
    file = AuditFile(tmp_path, max_bytes=1 << 20)
    for draft in drafts(600, size=4000):
        assert file.write([draft])
    file.close()
    assert sum(p.stat().st_size for p in chain.segments(tmp_path)) <= 1 << 20
    found = whole(tmp_path)
    assert found.first > 300 and found.segments >= 3
    gone = [e["what"] for e in chain.entries(tmp_path) if e["kind"] == "dropped"]
    first = next(chain.entries(tmp_path))
    assert any(g["last"] == first["seq"] - 1 and g["hash"] == first["prev"] and g["why"] == "size" for g in gone)
    chain.segments(tmp_path)[0].unlink()
    assert "no entry says that those before it were dropped" in chain.verify(tmp_path).problem


def test_the_oldest_goes_by_age(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A week of hours with a day to keep: some 24 pieces stay."""
    monkeypatch.setattr(auditfile.os, "fsync", lambda fd: None)
    file = AuditFile(tmp_path, keep_s=86400.0)
    for hour in range(24 * 7):
        file.write(drafts(1, T0 + hour * 3600.0))
    file.close()
    oldest = next(chain.entries(tmp_path))
    assert 24 * 3600 <= T0 + 24 * 7 * 3600.0 - chain.seconds(oldest) <= 28 * 3600
    assert any(e["what"]["why"] == "age" for e in chain.entries(tmp_path) if e["kind"] == "dropped")
    whole(tmp_path)


def test_a_crash_between_telling_of_a_drop_and_dropping_is_no_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is still there, and goes the next time."""
    file = AuditFile(tmp_path, max_bytes=1 << 20)
    monkeypatch.setattr(Path, "unlink", lambda self, missing_ok=False: (_ for _ in ()).throw(OSError(5, "gone")))
    for draft in drafts(300, size=4000):
        file.write([draft])
    monkeypatch.undo()
    for draft in drafts(300, size=4000):
        assert file.write([draft])
    file.close()
    assert whole(tmp_path).first > 1
    assert sum(p.stat().st_size for p in chain.segments(tmp_path)) <= 1 << 20


def test_files_are_for_the_owner_only(tmp_path: Path) -> None:
    """Reasons tell of the inside of a cluster."""
    [path] = chain.segments(written(tmp_path / "audit"))
    assert path.stat().st_mode & 0o777 == 0o600 and (tmp_path / "audit").stat().st_mode & 0o777 == 0o700


# ----------------------------------------------------------------------------------------------------------- the command
def test_verify_says_what_is_wrong_and_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """0 and the last hash; 1 and file:line; 2 where there is nothing to read. A store or its folder."""
    folder = written(tmp_path / "audit")
    assert main(["audit", "verify", str(tmp_path)]) == main(["audit", "verify", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "5 entries in 1 file, 1 to 5, all as written. The last hash is " in out
    head = out.split()[-1]
    assert main(["audit", "verify", str(tmp_path), "--holds", head]) == 0
    assert main(["audit", "verify", str(tmp_path), "--holds", head[:7]]) == 2
    assert "is not a hash. Give at least 8 of its 64 digits." in capsys.readouterr().err
    [path] = chain.segments(folder)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    assert main(["audit", "verify", str(tmp_path)]) == 0, "an end that is missing cannot be seen in the file"
    assert main(["audit", "verify", str(tmp_path), "--holds", head]) == 1
    path.write_text(path.read_text().replace('"number":2', '"number":3', 1))
    capsys.readouterr()
    assert main(["audit", "verify", str(tmp_path)]) == 1
    assert f"{path}:3: was changed: its content hashes to" in capsys.readouterr().out
    assert main(["audit", "verify", str(tmp_path / "no")]) == 2
    assert "no such folder. Name the folder that 'store' sets" in capsys.readouterr().err


def test_a_file_that_goes_while_it_is_read_is_no_error(tmp_path: Path) -> None:
    """A daemon may drop the oldest at any time; what is no file is one."""
    folder = written(tmp_path, 6, keep_s=60.0)
    first, second = chain.segments(folder)[:2]
    assert list(chain.lines(folder / "audit-000000000099.jsonl")) == []
    first.unlink()
    assert chain.verify(folder).place == f"{second}:1"
    second.unlink()
    second.mkdir()
    with pytest.raises(chain.ChainError, match="cannot be read: is a directory"):
        chain.verify(folder)


def test_list_shows_one_incident(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a table and as JSON, from a time on, of a kind."""
    audit = Audit(tmp_path / "audit")
    audit.publish(Report(T0, incidents=(INCIDENT,), actions=(ACT, REFUSED), commands=(Command(T0, "useful", "inc-1", "bob"),)))
    audit.publish(Report(T0 + 60, actions=(replace(ACT, incident="inc-2"),)))
    audit.close()
    assert main(["audit", "list", str(tmp_path), "--incident", "inc-1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["SEQ", "1", "2", "3"]
    assert "person bob" in lines[1] and "useful inc-1" in lines[1]
    assert "refused Restart pod/shop/api [cooldown]: cooldown: wait 4m more" in lines[3]
    assert main(["audit", "list", str(tmp_path), "--since", "2001-09-09T01:47:00Z", "-o", "json"]) == 0
    assert [e["seq"] for e in json.loads(capsys.readouterr().out)["entries"]] == [4]
    assert main(["audit", "list", str(tmp_path), "--kind", "answer", "-o", "json"]) == 0
    assert [e["seq"] for e in json.loads(capsys.readouterr().out)["entries"]] == [1]
    assert main(["audit", "list", str(tmp_path), "--limit", "1"]) == 0
    assert "these are the newest 1" in capsys.readouterr().err
