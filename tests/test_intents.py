"""The ledger of actions: nothing is done that is not on disk first, and a kill neither doubles nor loses an action."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from aiops.clock import ManualClock
from aiops.cluster.actuator import LiveActuator
from aiops.cluster.simulated import SimulatedCluster
from aiops.store import intents
from aiops.store.intents import Intents
from aiops.types import Action, Outcome

ACTION = Action("a-1", "Restart", "deployment/shop/api", {}, "inc-1", "p", "act", "because", 10.0)
DONE = Outcome("a-1", "done", 12.0, "restarted")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "actions.sqlite"


def test_what_was_begun_and_not_ended_is_interrupted(path):
    """Also for the next run that opens the file."""
    ledger = Intents(path)
    ledger.intent(ACTION)
    ledger.intent(replace(ACTION, id="a-0", at=5.0))
    assert ledger.interrupted() == ["a-0", "a-1"]
    ledger.result(ACTION, DONE, {"before": 2})
    ledger.close()
    assert Intents(path).interrupted() == ["a-0"]


def test_a_second_intent_is_the_same_action(path):
    """The id is the idempotency key; an ended one does not begin again."""
    ledger = Intents(path)
    ledger.intent(ACTION)
    ledger.result(ACTION, DONE, {})
    ledger.intent(replace(ACTION, at=99.0))
    assert ledger.interrupted() == []


def test_what_an_action_changed_is_known_to_the_next_run(path):
    """So that it can be undone."""
    ledger = Intents(path)
    ledger.intent(ACTION)
    ledger.result(ACTION, DONE, {"before": 2, "after": 4})
    ledger.intent(replace(ACTION, id="a-2"))
    ledger.close()
    assert Intents(path).snapshots() == {"a-1": {"before": 2, "after": 4}}


def test_a_kill_at_any_point_leaves_the_intent(path):
    """A process that dies between intent and deed is found out by the next."""
    code = ("import os, sys\nfrom pathlib import Path\nfrom aiops.store.intents import Intents\nfrom aiops.types import Action\n"
            "Intents(Path(sys.argv[1])).intent(Action('a-1', 'Restart', 't', {}, 'i', 'p', 'act', '', 1.0))\nos._exit(9)")
    done = subprocess.run([sys.executable, "-c", code, str(path)], cwd=Path(__file__).parents[1], check=False)
    assert done.returncode == 9
    assert Intents(path).interrupted() == ["a-1"]


def test_the_next_run_reports_an_interrupted_action_and_never_repeats_it(path):
    """Nobody knows whether it was done, so it is `unknown`."""
    Intents(path).intent(ACTION)
    ledger, cluster = Intents(path), SimulatedCluster(workloads={"deployment/shop/api": 2})
    actuator = LiveActuator(cluster, ManualClock(50.0), ledger, ledger.interrupted(), ledger.snapshots())
    actuator.submit([ACTION])
    assert actuator.run_due() is None
    assert [(o.action, o.status, o.at) for o in actuator.collect()] == [("a-1", "unknown", 50.0)]
    assert cluster.calls == []


def test_an_action_is_written_before_and_after_it_is_done(path):
    """In that order, with what it changed."""
    ledger, cluster = Intents(path), SimulatedCluster(workloads={"deployment/shop/api": 2})
    seen = []
    change = cluster._change
    cluster._change = lambda *given: (seen.append(ledger.interrupted()), change(*given))
    actuator = LiveActuator(cluster, ManualClock(50.0), ledger)
    actuator.submit([ACTION])
    actuator.run_due()
    assert seen == [["a-1"]]
    assert ([o.status for o in actuator.collect()], ledger.interrupted()) == (["done"], [])
    assert "a-1" in ledger.snapshots()


def test_nothing_is_done_when_the_intent_cannot_be_written(path):
    """Without a record there is no deed."""
    ledger, cluster = Intents(path), SimulatedCluster(workloads={"deployment/shop/api": 2})
    ledger.close()
    with pytest.raises(OSError, match="the ledger of actions cannot be written"):
        ledger.intent(ACTION)
    actuator = LiveActuator(cluster, ManualClock(50.0), ledger)
    actuator.submit([ACTION])
    actuator.run_due()
    [outcome] = actuator.collect()
    assert outcome.status == "failed" and "intent could not be recorded" in outcome.reason
    assert cluster.calls == []


@pytest.mark.parametrize("make", [
    lambda p: p.write_bytes(b"not a database, surely not" * 99), lambda p: p.mkdir(), lambda p: (p.parent / "x").touch()])
def test_a_ledger_that_cannot_be_used_is_named(path, make):
    """With its path: garbage, a folder, a folder that is a file."""
    make(path)
    place = path if path.exists() else path.parent / "x" / "actions.sqlite"
    with pytest.raises(OSError, match="the ledger of actions cannot be used") as error:
        Intents(place)
    assert str(place) in str(error.value)


def test_it_is_on_disk_before_it_returns(path):
    """synchronous=FULL: a power cut does not lose an intent."""
    ledger = Intents(path)
    assert ledger._db.execute("PRAGMA synchronous").fetchone() == (2,)
    ledger.intent(ACTION)
    with sqlite3.connect(path) as other:
        assert other.execute("SELECT count(*) FROM intents").fetchone() == (1,)
    other.close()


def test_old_actions_leave_and_interrupted_ones_stay(path, monkeypatch):
    """The file does not grow for ever."""
    monkeypatch.setattr(intents, "KEEP", 5)
    ledger = Intents(path)
    ledger.intent(replace(ACTION, id="open", at=0.0))
    for k in range(20):
        action = replace(ACTION, id=f"a-{k:02d}", at=float(k + 1))
        ledger.intent(action)
        ledger.result(action, replace(DONE, action=action.id), {"k": k})
    assert sorted(ledger.snapshots()) == [f"a-{k}" for k in range(15, 20)]
    assert ledger.interrupted() == ["open"]


def test_several_threads_write_at_once(path):
    """Each action is there once."""
    ledger = Intents(path)
    threads = [threading.Thread(target=lambda n=n: [ledger.intent(replace(ACTION, id=f"{n}-{k}")) for k in range(10)])
               for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(ledger.interrupted()) == 40


def test_only_its_owner_can_read_it(path):
    """It holds what was done to a cluster; other users of the machine have no business with it."""
    Intents(path)
    if os.name == "posix":
        assert path.stat().st_mode & 0o022 == 0
