"""What the store promises: nothing committed is lost, nothing it is given stops the daemon, and it stays bounded."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from aiops import serial
from aiops.store.sqlite import Store, StoreError
from aiops.types import Action, Alert, Cause, Counts, Incident, Outcome, Point, Report

API = "service/shop/api"
NAN = float("nan")


def alert(entity: str = API, name: str = "http_error_rate") -> Alert:
    return Alert(f"{entity}|{name}", entity, name, "firing", 100.0, 160.0, 0.99, 1e-6, value=0.2, unit="ratio")


def incident(name: str = "i-1", at: float = 160.0, **changes: object) -> Incident:
    base = Incident(name, at, at, "open", "warning", (API,), (alert(),), (Cause(API, 0.8, ("http_error_rate",), ()),))
    return replace(base, **changes)  # type: ignore[arg-type]


def point(at: float, value: float = 0.1, entity: str = API, name: str = "http_error_rate") -> Point:
    return Point(at, entity, name, value, 0.01, NAN, 0.02)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    opened = Store(tmp_path / "aiops.db")
    yield opened  # type: ignore[misc]
    opened.close()


def test_incident_comes_back_in_the_common_form(store: Store) -> None:
    """What was published is read back as aiops.serial writes it."""
    one = incident()
    store.publish(Report(160.0, incidents=(one,)))
    assert store.incidents() == [serial.incident(one)]
    found = store.incident("i-1")
    assert found is not None
    assert found["title"] == one.title
    assert store.incident("nobody") is None


def test_newer_state_replaces_older(store: Store) -> None:
    """An incident is one row, however often it changes."""
    store.publish(Report(160.0, incidents=(incident(),)))
    store.publish(Report(220.0, incidents=(incident(state="closed", closed_at=220.0, updated_at=220.0),)))
    assert [(i["state"], i["closed_at"]) for i in store.incidents()] == [("closed", 220.0)]
    assert store.incidents(state="open") == []


def test_open_incidents_come_first_then_the_newest(store: Store) -> None:
    """An old open incident is above a new closed one."""
    closed = incident("closed", 900.0, state="closed", closed_at=950.0)
    store.publish(Report(1.0, incidents=(incident("old", 100.0), closed, incident("new", 500.0))))
    assert [i["id"] for i in store.incidents()] == ["new", "old", "closed"]
    assert [i["id"] for i in store.incidents(limit=1, offset=1)] == ["old"]


def test_points_are_filed_under_their_incident_with_what_led_to_it(store: Store) -> None:
    """Points from before the opening are attached too; points of other signals are not; NaN becomes null."""
    store.publish(Report(100.0, points=(point(100.0), point(100.0, name="other"))))
    store.publish(Report(160.0, incidents=(incident(),), points=(point(160.0),)))
    store.publish(Report(220.0, points=(point(220.0, NAN), point(220.0, entity="node//a"))))
    found = store.incident("i-1")
    assert found is not None
    assert {p["signal"] for p in found["points"]} == {"http_error_rate"}
    assert [(p["at"], p["value"], p["lower"]) for p in found["points"]] == [
        (100.0, 0.1, None), (160.0, 0.1, None), (220.0, None, None)]


def test_what_became_of_models_is_kept_newest_first(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest thousand; a report without anything else is written for it."""
    from aiops.store import rows
    from aiops.types import ModelEvent

    monkeypatch.setattr(rows, "MODEL_EVENTS", 5)
    for k in range(8):
        event = ModelEvent(float(k), "baseline", "kept", "baseline-v1-0000", f"{k} \ud800")
        store.publish(Report(float(k), model_events=(event,)))
    found = store.model_events(3)
    assert [e["at"] for e in found] == [7.0, 6.0, 5.0] and len(store.model_events()) == 5
    assert found[0] == {"at": 7.0, "detector": "baseline", "kind": "kept", "model": "baseline-v1-0000", "text": "7 ?"}


def test_points_after_closing_are_not_stored(store: Store) -> None:
    """A closed incident's plots end with it."""
    store.publish(Report(160.0, incidents=(incident(),), points=(point(160.0),)))
    store.publish(Report(220.0, incidents=(incident(state="closed", closed_at=220.0),), points=(point(220.0),)))
    store.publish(Report(280.0, points=(point(280.0),)))
    found = store.incident("i-1")
    assert found is not None
    assert [p["at"] for p in found["points"]] == [160.0, 220.0]


@pytest.mark.slow
def test_a_long_plot_is_thinned_over_its_whole_length(tmp_path: Path) -> None:
    """Points per plot stay within the limit, and the first hour is still there."""
    store = Store(tmp_path / "aiops.db", points_per_plot=50)
    store.publish(Report(0.0, incidents=(incident(),)))
    for k in range(1000):
        store.publish(Report(float(k), points=(point(float(k)),)))
    found = store.incident("i-1")
    store.close()
    assert found is not None
    times = [p["at"] for p in found["points"]]
    assert len(times) <= 50
    assert times[0] == 0.0
    assert times[-1] >= 998.0


def test_retention_deletes_the_oldest_closed_and_keeps_the_open(tmp_path: Path) -> None:
    """With room for three, an open incident survives however old; nothing hangs around of what went."""
    store = Store(tmp_path / "aiops.db", keep=3, keep_plots=1)
    store.publish(Report(0.0, incidents=(incident("open", 1.0),)))
    for k in range(10, 15):
        name, at = f"i-{k}", float(k)
        action = Action(f"a-{k}", "Restart", API, {}, name, "p", "act", "because", at)
        store.publish(Report(at, incidents=(incident(name, at),), actions=(action,), points=(point(at),),
                             outcomes=(Outcome(f"a-{k}", "helped", at),)))
        store.publish(Report(at, incidents=(incident(name, at, state="closed", closed_at=at),)))
    stats = store.stats()
    assert [i["id"] for i in store.incidents()] == ["open", "i-14", "i-13"]
    assert (stats["incidents"], stats["actions"], stats["outcomes"], stats["open"]) == (3, 2, 2, 1)
    found = store.incident("i-14")
    store.close()
    assert found is not None
    assert found["points"] == []


def test_feedback_is_kept_and_unknown_incidents_are_told(store: Store) -> None:
    """Feedback shows on the incident; on an unknown one it is refused."""
    store.publish(Report(160.0, incidents=(incident(),)))
    assert store.record_feedback("i-1", "false_alarm", 300.0, "ann")
    assert not store.record_feedback("nobody", "useful", 300.0)
    found = store.incident("i-1")
    assert found is not None
    assert found["feedback"] == [{"verdict": "false_alarm", "at": 300.0, "by": "ann"}]


def test_what_an_earlier_run_left_open_is_closed_with_a_reason(tmp_path: Path) -> None:
    """After a restart nothing is open that nobody watches, and the timeline says why."""
    first = Store(tmp_path / "aiops.db")
    first.publish(Report(160.0, incidents=(incident(),)))
    first.close()
    second = Store(tmp_path / "aiops.db")
    assert [form["id"] for form in second.interrupt_open(500.0)] == ["i-1"]
    assert second.interrupt_open(501.0) == []
    found = second.incident("i-1")
    second.close()
    assert found is not None
    assert (found["state"], found["closed_at"]) == ("closed", 500.0)
    assert found["timeline"][-1] == {"at": 500.0, "kind": "interrupted",
                                     "text": "the daemon restarted; it opens again if it is still wrong"}


def test_counts_are_kept(store: Store) -> None:
    """The funnel survives as of the last write, at most a minute old."""
    store.publish(Report(0.0, counts=Counts(batches=1, dropped={"late": 2})))
    store.publish(Report(30.0, counts=Counts(batches=2)))
    assert store.stats()["counts"]["batches"] == 1
    assert store.stats()["counts"]["dropped"] == {"late": 2}
    store.publish(Report(60.0, counts=Counts(batches=3)))
    assert (store.stats()["counts"]["batches"], store.stats()["counts_at"]) == (3, 60.0)


CHILD = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[2]]
import test_store as t
store = t.Store(Path(sys.argv[1]))
for k in range(10_000):
    store.publish(t.Report(float(k), incidents=(t.incident(f"i-{k}", float(k)),), points=(t.point(float(k)),)))
    print(k, flush=True)
"""


def test_published_incidents_survive_kill_9(tmp_path: Path) -> None:
    """A child process is killed in the middle of writing: everything it had acknowledged is there."""
    path = tmp_path / "aiops.db"
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(path), str(Path(__file__).parent)],
                             stdout=subprocess.PIPE, text=True, env=os.environ)
    assert child.stdout is not None
    for line in child.stdout:
        if int(line) >= 40:
            break
    child.send_signal(signal.SIGKILL)
    said = [int(line), *(int(rest) for rest in child.stdout if rest.endswith("\n"))]
    child.stdout.close()
    assert child.wait() == -signal.SIGKILL
    store = Store(path)
    have = {i["id"] for i in store.incidents(limit=20_000)}
    store.close()
    assert store.notice == ""
    assert {f"i-{k}" for k in range(max(said) + 1)} <= have


def test_a_damaged_file_is_set_aside_with_a_notice(tmp_path: Path) -> None:
    """The daemon starts with an empty store, says so, and the old file is still there for repair."""
    path = tmp_path / "aiops.db"
    path.write_bytes(b"this is not a database" * 500)
    store = Store(path)
    store.publish(Report(160.0, incidents=(incident(),)))
    assert len(store.incidents()) == 1
    store.close()
    assert "damaged" in store.notice
    assert "aiops.db.damaged-1" in store.notice
    assert path.with_name("aiops.db.damaged-1").read_bytes().startswith(b"this is not")


def test_a_file_damaged_inside_is_noticed(tmp_path: Path) -> None:
    """Damage behind a good header is found on opening too."""
    path = tmp_path / "aiops.db"
    store = Store(path)
    store.publish(Report(1.0, incidents=tuple(incident(f"i-{k}") for k in range(200))))
    store.close()
    data = bytearray(path.read_bytes())
    data[8192:] = b"\xa5" * (len(data) - 8192)
    path.write_bytes(data)
    again = Store(path)
    assert again.incidents() == []
    again.close()
    assert "damaged" in again.notice


def test_a_second_daemon_is_refused(store: Store) -> None:
    """Two writers on one file would spoil it; the text names the other process."""
    with pytest.raises(StoreError, match=rf"process {os.getpid()}"):
        Store(store.path)


def test_a_newer_schema_is_refused_not_destroyed(tmp_path: Path) -> None:
    """A downgrade leaves the file as it was."""
    path = tmp_path / "aiops.db"
    Store(path).close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(StoreError, match="newer aiops"):
        Store(path)
    assert list(tmp_path.glob("*damaged*")) == []


def test_what_cannot_be_written_is_kept_and_written_later(store: Store) -> None:
    """While the disk refuses (here: a page limit) publish does not raise; when it yields again nothing is missing."""
    db = store._db
    pages = db.execute("PRAGMA page_count").fetchone()[0]
    db.execute(f"PRAGMA max_page_count={pages}")
    many = tuple(incident(f"i-{k}", float(k)) for k in range(200))
    store.publish(Report(1.0, incidents=many))
    assert store.stats()["write_errors"] == 1
    assert "tried again" in store.stats()["last_error"]
    db.execute("PRAGMA max_page_count=1073741823")
    store.publish(Report(2.0))
    assert store.stats()["incidents"] == 200
    assert store.stats()["last_error"] == ""


def test_broken_names_do_not_stop_anything(store: Store) -> None:
    """Half a surrogate pair in a name, a NaN in an alert and a strange action parameter are all stored."""
    odd = incident("i-\ud800", alerts=(replace(alert("pod/a/\ud800"), value=NAN),))
    action = Action("a", "Webhook", "pod/a/\ud800", {"when": {1, 2}}, "i", "p", "ask", "", 1.0)
    store.publish(Report(1.0, incidents=(odd,), actions=(action,), points=(point(1.0, entity="pod/a/\ud800"),)))
    assert store.stats()["write_errors"] == 0
    assert store.stats()["incidents"] == 1


def test_readers_cannot_write(store: Store) -> None:
    """The connection of a reader refuses to change anything."""
    with store._read() as db, pytest.raises(sqlite3.OperationalError, match="readonly"):
        db.execute("DELETE FROM incidents")


def test_publish_after_close_is_ignored(store: Store) -> None:
    """A late report during shutdown does no harm, nor does closing twice."""
    store.close()
    store.publish(Report(1.0, incidents=(incident(),)))
    store.close()
