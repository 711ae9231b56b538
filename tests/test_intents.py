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

from aiops.changes import Change, Edit, evict
from aiops.interfaces import Plan
from aiops.store import intents
from aiops.store.intents import Intents
from aiops.types import Action, Outcome

ACTION = Action("a-1", "Restart", "deployment/shop/api", {}, "inc-1", "p", "act", "because", 10.0)
DONE = Outcome("a-1", "done", 12.0, "restarted")


CHANGE = Change("patch", "deployment/shop/api", (Edit(("spec", "replicas"), 2, 4),), subresource="scale")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "actions.sqlite"


def open_ones(ledger):
    return [b.action.id for b in ledger.begun()]


def test_what_was_begun_and_not_ended_is_open(path):
    """Also for the next run that opens the file."""
    ledger = Intents(path)
    ledger.begin(ACTION)
    ledger.begin(replace(ACTION, id="a-0", at=5.0))
    assert open_ones(ledger) == ["a-0", "a-1"]
    ledger.result(ACTION, DONE)
    ledger.close()
    assert open_ones(Intents(path)) == ["a-0"]
    assert Intents(path).ended(["a-0", "a-1", "a-2"]) == {"a-1": DONE}


def test_a_second_intent_is_the_same_action(path):
    """The id is the idempotency key; an ended one does not begin again."""
    ledger = Intents(path)
    ledger.begin(ACTION)
    ledger.result(ACTION, DONE)
    ledger.begin(replace(ACTION, at=99.0))
    assert open_ones(ledger) == []


def test_a_turn_is_read_back_as_it_was_written(path):
    """Action, words, changes: all that is needed to find out what became of it. Written ones are in doubt no more."""
    ledger = Intents(path)
    ledger.begin(ACTION)
    assert ledger.turn(ACTION, Plan("Scale.", (CHANGE, evict({"metadata": {"name": "x", "namespace": "shop", "uid": "u"}})),
                                    "more")) == 0
    ledger.written("a-1", 0, CHANGE.inverse({}))
    ledger.close()
    [begun] = Intents(path).begun()
    assert (begun.action, begun.text, begun.rest) == (ACTION, "Scale.", "more")
    assert [(n, str(c)) for n, c in begun.doubtful] == [(1, "evict pod/shop/x")]
    assert Intents(path).inverses("a-1") == [CHANGE.inverse({})]


def test_the_next_turn_drops_what_was_not_written(path):
    """A turn that ended in Retry wrote nothing more; numbers go on."""
    ledger = Intents(path)
    ledger.begin(ACTION)
    ledger.turn(ACTION, Plan("Once.", (CHANGE, CHANGE)))
    ledger.written("a-1", 0, None)
    assert ledger.turn(ACTION, Plan("Twice.", (CHANGE,))) == 1
    assert ledger.writes("a-1") == [CHANGE]
    [begun] = ledger.begun()
    assert [n for n, _ in begun.doubtful] == [1]


def test_a_kill_at_any_point_leaves_the_intent(path):
    """A process that dies between intent and deed is found out by the next."""
    code = ("import os, sys\nfrom pathlib import Path\nfrom aiops.store.intents import Intents\nfrom aiops.types import Action\n"
            "Intents(Path(sys.argv[1])).begin(Action('a-1', 'Restart', 't', {}, 'i', 'p', 'act', '', 1.0))\nos._exit(9)")
    done = subprocess.run([sys.executable, "-c", code, str(path)], cwd=Path(__file__).parents[1], check=False)
    assert done.returncode == 9
    assert open_ones(Intents(path)) == ["a-1"]


def test_nothing_is_written_by_halves(path):
    """A turn is on record with all its changes or not at all."""
    ledger = Intents(path)
    ledger.begin(ACTION)
    ledger.turn(ACTION, Plan("First.", (CHANGE,)))
    with pytest.raises(OSError, match="cannot be written"):
        ledger._write([("DELETE FROM writes", ()), ("INSERT INTO nonsense VALUES (1)", ())])
    assert len(ledger.begun()[0].doubtful) == 1


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
    ledger.begin(ACTION)
    with sqlite3.connect(path) as other:
        assert other.execute("SELECT count(*) FROM actions").fetchone() == (1,)
    other.close()


def test_old_actions_leave_and_interrupted_ones_stay(path, monkeypatch):
    """The file does not grow for ever."""
    monkeypatch.setattr(intents, "KEEP", 5)
    ledger = Intents(path)
    ledger.begin(replace(ACTION, id="open", at=0.0))
    for k in range(20):
        action = replace(ACTION, id=f"a-{k:02d}", at=float(k + 1))
        ledger.begin(action)
        ledger.turn(action, Plan("x", (CHANGE,)))
        ledger.result(action, replace(DONE, action=action.id))
    names = [f"a-{k:02d}" for k in range(20)]
    assert sorted(ledger.ended(names)) == names[15:]
    assert ledger._read("SELECT count(*) FROM writes") == [(5,)]
    assert open_ones(ledger) == ["open"]


def test_several_threads_write_at_once(path):
    """Each action is there once."""
    ledger = Intents(path)
    threads = [threading.Thread(target=lambda n=n: [ledger.begin(replace(ACTION, id=f"{n}-{k}")) for k in range(10)])
               for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(ledger.begun()) == 40


def test_only_its_owner_can_read_it(path):
    """It holds what was done to a cluster; other users of the machine have no business with it."""
    Intents(path)
    if os.name == "posix":
        assert path.stat().st_mode & 0o022 == 0
