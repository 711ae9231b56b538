"""Series that appear, end and come back under other numbers: whatever is kept by number belongs to whom it belonged."""

from __future__ import annotations

import math
import os
import re
import sys
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FunctionType, ModuleType

import numpy as np
import pytest
from helpers import STEP_S, T0, frame, meanings, pipeline, signals
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import toys

from aiops import xidgauges
from aiops.arrays import pack, packed, renumbered
from aiops.budget import Budget
from aiops.catalogue import EPHEMERAL_SILENT_S, REVIEW_S, Catalogue
from aiops.clock import ManualClock
from aiops.costs import Costs
from aiops.generations import generations
from aiops.intake import Intake
from aiops.live import Live
from aiops.loop import NoActuator
from aiops.models import Model
from aiops.rows import Signals
from aiops.signals import Door
from aiops.sinks.journal import Journal, JournalWriter
from aiops.sources.kubernetes.states import State, States
from aiops.store import chunks
from aiops.store import models as files_of_models
from aiops.store.models import ModelFiles
from aiops.types import Batch, LogLine, Series
from correlators.graph import Graph
from detectors.baseline import Baseline

__all__ = ["toys"]
quick = settings(max_examples=40, deadline=None, derandomize=True)
EVERY = ("baseline", "absence", "drift", "newcomer", "exhaustion", "peers", "isolation_forest")
KNOWN = meanings({"part": "gauge", "hits_total": "counter", "size": "gauge"},
                 {"whole": {"value": {"metric": "part"}, "by": [], "combine": "sum"},
                  "hit_rate": {"rate": {"metric": "hits_total"}},
                  "size_now": {"value": {"metric": "size"}}})
NAMES = [("pod/a/x", "part", 'k="1"'), ("pod/a/x", "part", 'k="2"'), ("pod/a/x", "part", 'k="3"'),
         ("pod/a/x", "hits_total", ""), ("pod/a/y", "hits_total", ""), ("pod/a/y", "size", ""), ("pod/a/z", "odd_metric", "")]


@dataclass
class Naive:
    """What a door says, worked out series by series and by name alone."""

    of: dict[tuple[str, str, str], dict[str, float]] = field(default_factory=dict)

    def values(self, at, told):
        """(entity, signal) -> value of each signal that reports."""
        for name, value in told.items():
            s = self.of.setdefault(name, {"time": math.nan, "last": math.nan, "usual": math.nan, "level": math.nan})
            span, change = at - s["time"], value - s["last"]
            added = value if change < 0 else change
            s["level"] = added / span if name[1].endswith("_total") else value
            near = min(max(span, 0.5 * s["usual"]), 2.0 * s["usual"])
            s["usual"] = s["usual"] + 0.3 * (near - s["usual"]) if s["usual"] == s["usual"] else span
            s |= {"time": at, "last": value, "here": 1.0}
        out = {}
        for name in told:
            mine = [n for n in self.of if n[:2] == name[:2]] if name[1] == "part" else [name]
            levels = [self.of[n]["level"] for n in mine if self._fresh(self.of[n], at)]
            signal = {"part": "whole", "hits_total": "hit_rate", "size": "size_now"}.get(name[1], name[1])
            if self.of[name]["level"] == self.of[name]["level"]:
                out[name[0], signal] = sum(levels)
        return out

    @staticmethod
    def _fresh(s, at):
        limit = 300.0 if s["usual"] != s["usual"] else min(300.0, 3.0 * s["usual"])
        return s["here"] > 0 and at - s["time"] <= limit and s["level"] == s["level"]


tick = st.tuples(st.lists(st.tuples(st.sampled_from(range(len(NAMES))), st.integers(0, 50)), max_size=7),
                 st.lists(st.sampled_from(range(len(NAMES))), max_size=2),
                 st.sampled_from(["", "", "", "keep", "restart", "restart twice"]))


@quick
@given(st.lists(tick, min_size=3, max_size=25))
def test_a_door_is_the_same_whatever_numbers_its_series_have(ticks):
    """As a reference that knows names only: over retirement, numbers used again, moves of columns, and restarts."""
    door, naive, numbers = Door(KNOWN), Naive(), {}
    for k, (told, retired, after) in enumerate(ticks):
        at = T0 + STEP_S * k
        over = {NAMES[i] for i in retired if NAMES[i] in numbers}
        gone = [numbers.pop(name) for name in sorted(over)]
        for name in over:
            del naive.of[name]
        now = {NAMES[i]: float(v) for i, v in told}
        new = []
        for name in now:
            if name not in numbers:
                numbers[name] = min(set(range(20)) - set(numbers.values()))
                new.append(Series(numbers[name], *name))
        ids = np.array([numbers[n] for n in now], np.int32)
        batch = Batch(at, ids, np.full(len(ids), at), np.array(list(now.values())), tuple(new),
                      retired=np.array(gone, np.int32))
        values = door.values(batch)
        found = {(s.entity, s.name): values[s.id] for s in door.signals if not math.isnan(values[s.id])}
        expected = naive.values(at, now)
        assert found.keys() == expected.keys()
        assert all(math.isclose(found[key], expected[key]) for key in found)
        assert [s.id for s in door.signals] == list(range(len(values)))
        if after == "keep":
            fed = door.fed()
            fed[door.reserved()] = True
            door.keep(packed(fed))
        for _ in range(("keep", "restart", "restart twice").index(after) if after else 0):
            state, door, numbers = door.state(), Door(KNOWN), {}
            door.restore(state, range(len(state["signals"])))
            for s in naive.of.values():
                s["here"] = 0.0  # counts in sums once it was heard again


# ------------------------------------------------------------------------------------------------- who has which number
def told(batch, series):
    """(name, value) of each sample of a batch, None for the name of a number that nobody has; `series` is brought up to date."""
    for number in batch.retired.tolist():
        series.pop(number, None)
    series.update((s.id, s.entity) for s in batch.new_series)
    return [(series.get(i), v) for i, v in zip(batch.series.tolist(), batch.value.tolist(), strict=True)]


step = st.tuples(st.sampled_from(["sample", "block", "ended", "drain", "drain", "history"]), st.integers(0, 5),
                 st.sampled_from([10.0, 70.0, EPHEMERAL_SILENT_S / 2, EPHEMERAL_SILENT_S + 1]))


@quick
@given(st.lists(step, min_size=5, max_size=60))
def test_no_sample_ever_reaches_another_series(steps):
    """Numbers are given up, rest, and are given again; a source holds one until it is told, and what it sent may wait."""
    intake, held, series, at, seen = Intake(STEP_S), {}, {}, T0, Counter()
    intake.on_retire(lambda gone: [held.pop(k) for k, n in list(held.items()) if n in gone.tolist()])
    in_flight = []
    for what, k, later in steps:
        sent, in_flight = in_flight, []
        if what == "sample":
            intake.sample(at, f"pod/a/{k}", "m", {}, float(k))
        elif what == "block":
            held.setdefault(k, intake.series(f"pod/a/{k}", "m", {}))
            in_flight = [(held[k], k, at + later)]  # it arrives after whatever happens next
        elif what == "ended" and k in held:
            intake.ended(np.array([held[k]], np.int32))
        elif what in ("drain", "history"):
            at += later
            for batch in intake.drain(at) if what == "drain" else intake.drain_history(at - 50.0):
                for name, value in told(batch, series):
                    assert name in (None, f"pod/a/{value:.0f}")
                    seen[name is not None] += 1
        for number, value, time in sent:
            intake.block(np.array([number], np.int32), np.array([time]), np.array([float(value)]))
    assert seen[False] <= seen[True] + len(steps)


def test_a_number_under_which_something_waits_is_not_given_to_another():
    """History is gone through hour by hour in no time, while what was pushed for the present waits."""
    intake, series = Intake(STEP_S), {}
    old = intake.series("pod/a/old", "m", {})
    intake.block(np.array([old], np.int32), np.array([T0]), np.array([0.0]))
    told(intake.drain_history(T0)[0], series)
    late = False
    for hour in range(1, 12):
        at = T0 + hour * (EPHEMERAL_SILENT_S + REVIEW_S)
        intake.sample(at, f"pod/a/{hour}", "m", {}, float(hour))
        for batch in intake.drain_history(at):
            assert all(name == f"pod/a/{value:.0f}" for name, value in told(batch, series))
            if old in batch.retired.tolist() and not late:  # sent before its sender heard of it
                late = True
                intake.block(np.array([old], np.int32), np.array([T0 + 1e6]), np.array([0.0]))
    assert late
    assert [told(b, series) for b in intake.drain(T0 + 1e6)] == [[(None, 0.0)]]


def test_a_sample_of_nobody_is_survived():
    """Somebody goes on sending under a number that was given up, which nobody else needs: also an hour later."""
    c = Catalogue()
    c.number("pod/a/b", "m", "")
    number = np.zeros(1, np.int32)
    c.heard(number, T0)
    for k in range(1, 6):
        at = T0 + k * (EPHEMERAL_SILENT_S + 1.0)
        assert c.review(at).tolist() == ([0] if k == 1 else [])
        c.heard(number, at)
    c.heard(np.array([-3], np.int32), T0)
    c.ended(np.array([-3], np.int32))
    assert len(c) == 0 and c.retired == 1


# --------------------------------------------------------------------------------------------------- gaps are filled
@quick
@given(st.lists(st.booleans(), max_size=40), st.lists(st.integers(0, 45), max_size=3), st.integers(0, 9))
def test_gaps_are_filled_with_the_last_ones(stays, edges, spare):
    """As taking those columns out does; nobody moves without need, and nobody to where somebody does not look."""
    stays = np.array(stays, np.bool_)
    columns = packed(stays, edges)
    assert sorted(columns.tolist()) == np.flatnonzero(stays).tolist() and (columns >= np.arange(len(columns))).all()
    for edge in edges:
        assert (columns[:np.count_nonzero(stays[:edge])] < edge).all()
    assert np.count_nonzero(columns != np.arange(len(columns))) <= np.count_nonzero(~stays) * (1 + len(edges))
    array = np.arange(2.0 * (len(stays) + spare)).reshape(-1, 2)
    there = pack(array.copy(), columns, -1.0)
    assert np.array_equal(there[:len(columns)], array[columns]) and (there[len(columns):] == -1.0).all()
    flat = pack(array.T.copy().T, columns, -1.0).T
    assert np.array_equal(flat, there.T) and flat.flags.c_contiguous
    where = renumbered(columns, len(stays))
    assert np.array_equal(where[columns], np.arange(len(columns))) and np.array_equal(where >= 0, stays)


def test_a_fleet_that_has_shrunk_gives_its_memory_back():
    """And one that has not takes no second copy of anything."""
    much = np.zeros((100_000, 4))
    same = pack(much, packed(np.arange(100_000) % 3 > 0), 0.0)
    assert same is much
    assert len(pack(much, packed(np.arange(100_000) % 10 == 0), 0.0)) < 12_000


def held(root):
    """What hangs on something: (path, bytes) of every array and container, by how many things are in them, and all text."""
    found, seen, todo = Counter(), set(), [("", root)]
    while todo:
        path, it = todo.pop()
        if id(it) in seen or isinstance(it, (type, ModuleType, FunctionType)):
            continue
        seen.add(id(it))
        if isinstance(it, np.ndarray):
            found[path] += it.nbytes if it.base is None else 0
        elif isinstance(it, (str, bytes)):
            found["text"] += sys.getsizeof(it)  # several hold the same
        elif isinstance(it, dict):
            found[path] += 100 * len(it)
            todo += [(path, k) for k in it] + [(f"{path}.{k}" if len(it) < 60 else path, v) for k, v in it.items()]
        elif isinstance(it, (list, tuple, set, frozenset, deque)):
            found[path] += 8 * len(it)
            todo += [(path, v) for v in it]
        else:
            todo += [(f"{path}.{k}", v) for k, v in getattr(it, "__dict__", {}).items()]
            slots = [k for c in type(it).__mro__ for k in getattr(c, "__slots__", ()) if hasattr(it, k)]
            todo += [(f"{path}.{k}", getattr(it, k)) for k in slots]
    return found


def turnover(minutes, first=0):
    """Four pods of twenty series, of which each lives for a minute: all that there is goes and others come."""
    intake = Intake(60.0)
    for k in range(minutes):
        at = T0 + 60.0 * k
        for pod in range(4):
            name = f"pod/shop/api-7d4f9b5c6d-{10_000_000 + 4 * k + pod}"
            ids = np.array([intake.series(name, f"m{m % 10}", {"shard": f"{m}-{k}"}, "gauge") for m in range(20)], np.int32)
            assert intake.block(ids, np.full(20, at), np.full(20, 1.0 + pod))
            intake.ended(ids)
        yield intake, intake.drain(at)


@pytest.mark.slow
def test_a_series_that_is_gone_leaves_nothing_behind(monkeypatch):
    """After ten times as many series as before not one thing more is held: neither arrays, nor names, nor lists of numbers.

    The most of some time each: names that nobody has any more are forgotten once they are most.
    """
    greedy(monkeypatch)
    p = pipeline(detectors=EVERY)
    moves, keep, early, late = [], p.door.keep, Counter(), Counter()
    monkeypatch.setattr(p.door, "keep", lambda columns: moves.append(keep(columns)))
    for k, (intake, batches) in enumerate(turnover(241)):
        for batch in batches:
            p.step(batch)
        if k in range(35, 61):
            early |= held((p, intake))
        if k in range(215, 241):
            late |= held((p, intake))
    assert len(moves) > 50 and intake.catalogue.retired > 10 * len(intake.catalogue)
    grown = {path: (n, early[path]) for path, n in late.items() if n > 1.02 * early[path] + 2000}
    assert not grown, grown
    assert sum(late.values()) <= 1.01 * sum(early.values())


def test_a_move_works_on_the_gaps_only(monkeypatch):
    """Whoever keeps their number is not touched: the same signals, and the arrays where they were."""
    greedy(monkeypatch)
    p, kept = pipeline(), 0
    for _, batches in turnover(40):
        before, core = p.door.signals, p._banded.serving.detector.core
        for batch in batches:
            p.step(batch)
        if 0 < len(p.door.signals) <= len(before) and len(core):
            kept += p._banded.serving.detector.core is core
    assert kept > 5


def test_nobody_goes_through_all_signals_one_by_one(monkeypatch):
    """Neither when many come, nor while they are new, nor when they are gone: a Signal is made for who is told of."""
    greedy(monkeypatch)
    made, row = [], Signals._row
    monkeypatch.setattr(Signals, "_row", lambda self, *about: made.append(about) or row(self, *about))
    p, intake, sizes = pipeline(detectors=EVERY), Intake(60.0), []

    def pods(which):
        return np.array([intake.series(f"pod/shop/api-{k}", f"m{m}", {}, "gauge") for k in which for m in range(20)], np.int32)

    few, many = pods(range(3)), np.zeros(0, np.int32)
    for k in range(130):
        if k == 32:
            many = pods(range(3, 30))
        at, ids = T0 + 60.0 * k, np.append(few, many) if k < 40 else few
        assert intake.block(ids, np.full(len(ids), at), np.full(len(ids), 1.0))
        if k == 40:
            intake.ended(many)
        for batch in intake.drain(at):
            p.step(batch)
            sizes.append(len(p.door.signals))
    assert sizes[31] == sizes[-1] == 60 and max(sizes) == 600 and len(made) < 60


# --------------------------------------------------------------------------------------------------------- a crash
class Disk:
    """Counts what is asked of it, and refuses from the n-th time on."""

    def __init__(self, monkeypatch):
        self.left = math.inf
        for name in ("open", "replace", "chmod", "unlink", "mkdir"):
            monkeypatch.setattr(Path, name, self._wrapped(getattr(Path, name)))
        monkeypatch.setattr(os, "fsync", self._wrapped(lambda file: None))

    def _wrapped(self, call):
        def maybe(*args, **more):
            self.left -= 1
            if self.left < 0:
                raise OSError(28, "No space left on device")
            return call(*args, **more)
        return maybe


@pytest.fixture
def small(monkeypatch):
    """Pieces of kilobytes, so that a few numbers are many of them."""
    monkeypatch.setattr(chunks, "CHUNK", 4096)
    monkeypatch.setattr(files_of_models, "CHUNK", 4096)
    monkeypatch.setattr(files_of_models, "LONG", 100)


def save(at, seed):
    from aiops.models import Learned, Lineage, Saved
    rng = np.random.default_rng(seed)
    state = {"rows": np.concatenate([np.zeros((3, 700)), rng.normal(size=(9, 700))]), "names": [f"pod/a/{k}" for k in range(9)]}
    door = {"signals": [[f"pod/a/{k}", "m"] for k in range(120)], "heard": np.full(120, at)}
    lineage = Lineage(Saved("toy", 1, {}, at, state), previous=Saved("toy", 1, {"limit": 2}, at, {"n": rng.normal(size=4)}))
    return Learned(at, door, {"toy": lineage}, {"seed": seed})


def test_a_crash_at_any_point_of_a_save_leaves_the_last_whole_one(tmp_path, monkeypatch, small):
    """And the copy beside a journal; whoever goes on after it saves as ever, and leaves nothing behind."""
    folder, disk = tmp_path / "m", Disk(monkeypatch)
    files = ModelFiles(folder)
    files.write(save(1.0, 1))
    files.link_into(tmp_path / "beginning")
    outcomes, before = [], 1
    for n in range(200):
        if n % 2:
            files = ModelFiles(folder)  # another process
        disk.left = n
        try:
            files.write(save(n + 2.0, n + 2))
            outcomes.append("whole")
        except OSError:
            outcomes.append("crash")
        disk.left = math.inf
        found = ModelFiles(folder, repair=False).read()
        assert found.more["seed"] in (before, n + 2)
        expected = save(found.at, found.more["seed"])
        assert np.array_equal(found.lineages["toy"].serving.state["rows"], expected.lineages["toy"].serving.state["rows"])
        assert np.array_equal(found.lineages["toy"].previous.state["n"], expected.lineages["toy"].previous.state["n"])
        before = found.more["seed"]
        if outcomes[-2:] == ["whole", "whole"]:
            break
    assert outcomes.count("crash") > 20 and outcomes[-1] == "whole"
    beginning = ModelFiles(tmp_path / "beginning", repair=False).read()
    rows = save(1.0, 1).lineages["toy"].serving.state["rows"]
    assert np.array_equal(beginning.lineages["toy"].serving.state["rows"], rows)
    assert not list(folder.rglob("*.part")) and len(list(folder.glob("*.state"))) == 3


def test_a_save_that_is_replaced_while_it_is_linked_is_linked_anew(tmp_path, monkeypatch, small):
    """Whoever keeps a copy does so beside the thread that saves."""
    files, other = ModelFiles(tmp_path / "m"), ModelFiles(tmp_path / "m")
    files.write(save(1.0, 1))
    link, todo = os.link, [save(2.0, 2)]

    def beside(source, target):
        if todo and "serving" in str(source):
            other.write(todo.pop())
        link(source, target)
    monkeypatch.setattr(os, "link", beside)
    files.link_into(tmp_path / "copy")
    found = ModelFiles(tmp_path / "copy", repair=False).read()
    assert (found.at, found.more["seed"], sorted(found.lineages)) == (2.0, 2, ["toy"])


def test_a_damaged_piece_is_written_again(tmp_path, small):
    """What it holds has not changed since: its name is that of what it should hold."""
    files = ModelFiles(tmp_path / "m")
    files.write(save(1.0, 1))
    piece = next((tmp_path / "m" / "pieces").iterdir())
    piece.write_bytes(b"!" + piece.read_bytes()[1:])
    assert ModelFiles(tmp_path / "m").read().lineages == {}
    ModelFiles(tmp_path / "m").write(save(1.0, 1))
    assert sorted(ModelFiles(tmp_path / "m").read().lineages) == ["toy"]


# ------------------------------------------------------------------------------------------------ columns are given up
def shop(ticks, tick_s=60.0, seed=1, start=0):
    """Pods that are replaced, a service with a fault, a node that falls silent for good, one that fills up, and log lines."""
    rng, intake, first = np.random.default_rng(seed), Intake(tick_s), 4 * (start // 10)
    for k in range(start, ticks):
        at = T0 + tick_s * k
        first += 4 if k % 10 == 0 else 0
        for pod in range(first, first + 12):
            for m in range(3):
                bad = 30.0 if pod == first and k % 10 > 6 and k > 150 else 0.0
                intake.sample(at, f"pod/shop/api-7d4f9b5c6d-{pod:05d}", f"m{m}", {}, float(rng.normal(10, 1)) + bad)
        for n in range(4):
            if n != 1 or k < 181:
                intake.sample(at, f"node//gpu-{n}", "load", {}, float(rng.normal(5, 1)))
        fault = 40.0 if 200 <= k < 212 else 0.0
        intake.sample(at, "service/shop/api", "queue", {}, float(rng.normal(50, 2)) + fault)
        for i in range(3 if k % 20 else 30):
            intake.line(LogLine(at, "service/shop/api", f"ERROR broken pipe {i}" if k % 20 == 0 and k > 180 else f"GET /{k} 200"))
        yield from intake.drain(at)


def said(report):
    """All of a report that people see, without the numbers of columns, and the share of the budget, which all columns have."""
    told = ([replace(a, signal=-1) for a in report.anomalies], report.alerts, report.incidents, report.points, report.notes,
            report.models, report.model_events)
    return re.sub("budget_share=[^,)]*", "", repr(told))


@pytest.mark.slow
def test_who_gives_columns_up_says_the_same_as_who_never_does(monkeypatch):
    """Down to each note and each point that is drawn: a node that fell silent is still missed after a move."""
    batches, detectors = list(shop(260)), ("baseline", "absence", "logs", "drift", "newcomer", "exhaustion", "peers")
    monkeypatch.setattr("aiops.pipeline.MIN_GONE", 5)
    monkeypatch.setattr("aiops.pipeline.GONE_SHARE", 0.05)
    moved = pipeline(detectors=detectors)
    kept = pipeline(detectors=detectors)
    monkeypatch.setattr(kept, "_tidy", lambda at: None)
    theory = Budget._by_theory  # the level rises with the number of columns, the dead ones too
    monkeypatch.setattr(Budget, "_by_theory", lambda self, signals: theory(self, 100))
    moves, before, found = 0, 0, Counter()
    for k, batch in enumerate(batches):
        mine, theirs = moved.step(batch), kept.step(batch)
        assert said(mine) == said(theirs), k
        moves, before = moves + (len(moved.door.signals) < before), len(moved.door.signals)
        found.update(a.signal for a in mine.alerts if a.state == "firing")
    assert moves >= 5 and len(moved.door.signals) < 0.5 * len(kept.door.signals)
    assert {"absent", "queue"} <= found.keys()


def greedy(monkeypatch):
    monkeypatch.setattr("aiops.pipeline.MIN_GONE", 5)
    monkeypatch.setattr("aiops.pipeline.GONE_SHARE", 0.05)


def test_a_replay_gives_up_the_same_at_the_same_step(tmp_path, monkeypatch):
    """Out of a journal of several segments; and who begins in the middle of it knows who is who."""
    greedy(monkeypatch)
    live, writer = pipeline(), JournalWriter(tmp_path, {"started_at": T0}, max_bytes=50_000)
    reports, names = [], {}
    for batch in shop(230):
        assert writer.write(batch)
        reports.append(said(live.step(batch)))
        told(batch, names)
    writer.close(live.book.digest())
    again, journal = pipeline(), Journal(tmp_path)
    assert [said(again.step(b)) for b in journal.batches()] == reports
    assert (again.book.digest(), len(again.door.signals)) == (journal.digest, len(live.door.signals))
    assert journal.gaps == 0 and len(journal.paths) > 3
    late = {}
    for batch in journal.since(T0 + 60.0 * 190):
        assert all(name is not None for name, _ in told(batch, late))
    assert late == names


@pytest.mark.slow
def test_a_restart_loses_nothing_that_lives_and_forgets_what_is_gone(tmp_path, monkeypatch):
    """Columns from before it are awaited, and given up when nothing came for as long as a restart may take."""
    greedy(monkeypatch)
    first, second = pipeline(), pipeline()
    for batch in shop(150):
        first.step(batch)
    ModelFiles(tmp_path).write(first.learned())
    second.restore(ModelFiles(tmp_path).read(), T0 + 150 * 60.0)
    before = {(s.entity, s.key): n for s, n in zip(first.door.signals, first._banded.samples_seen(), strict=True)}
    awaited = len(second.door.reserved())
    for k, batch in enumerate(shop(150 + 9 * 60, start=150)):
        second.step(batch)
        if k == 0:
            seen = second._banded.samples_seen()
            here = {(s.entity, s.key): seen[s.id] for s in second.door.signals if len(second.history.column(s.id)[0])}
            assert len(here) > 40 and all(n == before[key] + 1 for key, n in here.items() if key in before)
    assert awaited > 40 and len(second.door.reserved()) == 0
    assert len(second.door.signals) < 3 * 12 * 4 + 40


def test_counted_logs_that_ended_make_room_too(monkeypatch):
    """Where nothing but lines comes in, nothing else is ever retired."""
    greedy(monkeypatch)
    p = pipeline()
    for k in range(300):
        at = T0 + 600.0 * k
        p.step(Batch(at, lines=tuple(LogLine(at, f"pod/a/{k // 20}", "INFO ok") for _ in range(2))))
    assert p.door.series_count < 40 and len(p.door.signals) < 40


def test_a_model_that_cannot_be_renumbered_begins_anew(toys):
    """Rather than to take the signals of others for its own; its candidate and the one before it go on, or go."""
    frames_of = signals("a//a m", "a//b m", "a//c m")
    g = generations("toy", {"limit": 20.0})
    for k in range(5):
        g.observe(frame(T0 + k, [1.0, 2.0, 3.0], frames_of))
    g.candidate = Model("toy", {"limit": 9.0})
    g.candidate.observe(frame(T0 + 9, [1.0, math.nan, 3.0], frames_of))
    g.previous = replace(g.serving.saved(), state={"other": 1})
    g.move(np.array([0, 2]))
    assert g.candidate.detector.n.tolist() == [1.0, 1.0] and g.serving.detector.n.tolist() == [5.0, 5.0]
    assert g.previous is None
    g.serving.detector.state = lambda: {"n": "broken"}
    g.move(np.array([1]))
    assert g.serving.fresh and g.candidate.detector.n.tolist() == [1.0]
    assert [e.kind for e in g.review(T0 + 10, (), ())] == ["dropped", "fresh"]
    assert g.observe(frame(T0 + 11, [3.0], frames_of[:1])) == []


def test_the_model_of_before_is_moved_when_somebody_asks_for_it(toys):
    """It knows fewer columns than there are by now: over any number of moves nobody gets what belongs to another."""
    names = [f"a//{k} m" for k in range(9)]
    g, of = generations("toy"), signals(*names)
    g.observe(frame(T0, np.arange(9.0), of))
    g.previous = replace(g.serving.saved(), state={"n": np.arange(4.0)})  # of a day when there were four columns
    for gone in ([0, 5], [1, 4], [3]):
        stays = np.ones(len(of), np.bool_)
        stays[gone] = False
        columns = packed(stays, [g.edge()])
        g.move(columns)
        of = [of[k] for k in columns.tolist()]
    assert [f"a//{n:.0f}" for n in g.previous.state["n"]] == [s.entity for s in of[:g.edge()]]
    assert g.edge() == len(g.previous.state["n"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["isolation_forest", "peers"])
def test_an_entity_whose_columns_change_places_is_judged_as_before(name):
    """What filled the gaps stands in another order than it came in: also after a restart each figure is that of its signal."""
    rng, pods, metrics = np.random.default_rng(3), [f"pod/a/api-{k}" for k in range(9)], ["x", "y", "z"]
    of = signals(*(f"{pod} {metric}" for metric in metrics for pod in pods))
    moved, kept, told = generations(name), generations(name), 0
    columns = np.arange(len(of))
    for k in range(150):
        values = rng.normal(10, 1, len(of)) + (30.0 if k > 140 else 0.0) * np.array([s.entity == pods[5] for s in of])
        if k >= 100:
            values[[s.entity in pods[:3] for s in of]] = np.nan
        if k == 100:
            columns = packed(np.array([s.entity not in pods[:3] for s in of]))
            moved.move(columns)
        if k == 120:
            again = generations(name)
            again.restore(moved.state())
            moved = again
        now = tuple(replace(of[c], id=i) for i, c in enumerate(columns.tolist()))
        mine, theirs = (g.observe(replace(frame(T0 + 15.0 * k, x, s), residuals=(x - 10.0) / 4.0))
                        for g, x, s in ((moved, values[columns], now), (kept, values, of)))
        assert {(a.entity, a.name, round(a.p_value, 9), a.text) for a in mine} \
            == {(a.entity, a.name, round(a.p_value, 9), a.text) for a in theirs}, k
        told += len(mine) * (k > 120)
    assert not np.array_equal(columns, np.sort(columns)) and told


def test_the_arrays_of_a_baseline_stay_as_the_compiled_loop_wants_them():
    """In another order of memory the loop would be compiled once more, in the middle of a step."""
    b = Baseline()
    b.judge(frame(T0, np.ones(9), signals(*(f"a//{k} m" for k in range(9)))))
    b.move(np.array([1, 4, 7]))
    assert all(getattr(b, k).flags.c_contiguous for k in (*b.BY_SIGNAL, "day", "week"))


def test_what_is_counted_once_before_a_restart_is_watched_after_a_move():
    """Costs that were added up already are passed over when the past comes again; their columns are not."""
    costs, of = Costs(), signals("service//a x", "service//a requests_finished_per_second")
    costs.restore({**costs.state(), "at": T0 + 100.0})
    costs.update(frame(T0, [1.0, 1.0], of), Graph())
    costs.keep(np.array([1]))
    for k in (2, 3):
        costs.update(frame(T0 + 100.0 * k, [5.0], signals("service//a requests_finished_per_second")), Graph())
    assert [f.requests for f in costs.sums().figures("total")] == [500.0]


def test_retired_xids_make_room_for_others(monkeypatch):
    """And a gauge that comes back is known as long as there is room."""
    monkeypatch.setattr(xidgauges, "MAX_SERIES", 3)
    xids, found = xidgauges.Xids(), []
    for k in range(9):
        at, gone = T0 + 60.0 * k, np.array([k - 1] if k else [-7], np.int32)
        series = Series(k, f"gpu/n/{k}", xidgauges.LAST)
        for later, value in ((0.0, 0.0), (10.0, 79.0)):
            new = (series,) if not later else ()
            found += xids.observe(Batch(at + later, np.array([k], np.int32), np.array([at + later]), np.array([value]), new,
                                        retired=gone if not later else gone[:0]))
        assert not xids.notes
    assert [e.entity for e in found] == [f"gpu/n/{k}" for k in range(9)]


def test_states_of_a_cluster_are_asked_for_anew_when_they_were_retired():
    """The API server was away for hours: meanwhile their numbers went to others."""
    intake, states, series = Intake(STEP_S), States(), {}
    states.put("pod/a/x", [State("kube_pod_status_ready", "pod/a/x", 1.0)])
    for k in range(5):
        at = T0 + k * (EPHEMERAL_SILENT_S + REVIEW_S)
        intake.sample(at, f"pod/b/{k}", "m", {}, 0.0)
        if k in (0, 4):
            states.emit(at, intake, lambda metric: True)
        found = [pair for b in intake.drain(at) for pair in told(b, series)]
        assert found.count(("pod/a/x", 1.0)) == (k in (0, 4)) and not any(name is None for name, _ in found)


def test_what_a_killed_run_heard_goes_to_whom_it_belonged():
    """A number of its journal that was given up names nobody until it is given again."""
    one, other = Series(0, "pod/a/one", "m"), Series(0, "pod/a/other", "m")
    def heard(at, *new, retired=()):
        return Batch(at, np.zeros(1, np.int32), np.array([at]), np.ones(1), new, retired=np.array(retired, np.int32))
    batches = [heard(T0, one), heard(T0 + 10, retired=[0]), heard(T0 + 20, other)]
    intake = Intake(STEP_S)
    live = Live(pipeline(), [], intake, NoActuator(), [], ManualClock(T0 + 60), STEP_S, lambda batch: None, recorded=batches)
    assert list(live._heard_before()) == [T0, T0 + 10, T0 + 20]
    series = {}
    assert [pair for b in intake.drain(T0 + 60) for pair in told(b, series)] == [("pod/a/one", 1.0), ("pod/a/other", 1.0)]
