"""Names as numbers: the fast paths of a restart, against what plain lists and dictionaries say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_signals import PACK

from aiops import signals as door_module
from aiops.arrays import packed
from aiops.rows import Distinct, Index, Rows, columnar, lean
from aiops.signals import Door
from aiops.types import Batch, Series, Signal
from aiops.watched import Watched
from detectors._kin import LEAST, Groups, owner, shown

ENTITIES = ("pod/a/x", "pod/a/y", "node//n", "process//p")
SHAPES = (("req_total", 'code="500"', "counter"), ("req_total", 'code="200"', "counter"), ("req_total", "", "counter"),
          ("free", "", "gauge"), ("size", "", "gauge"), ("temp", 'core="1"', "gauge"), ("temp", 'core="2"', "gauge"),
          ("own", 'a="1",b="2"', "gauge"), ("own", 'a="1"', "gauge"), ("own_total", "", "counter"), ("own", 'a=1"', "gauge"),
          ("lat_sum", "", "counter"), ("lat_bucket", 'le="1"', "counter"), ("dur_sum", "", "counter"))
quick = settings(max_examples=60, deadline=None, derandomize=True)
pairs = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=20)


def met(which: list[tuple[int, int]]) -> tuple[Series, ...]:
    return tuple(Series(i, ENTITIES[e], *SHAPES[s]) for i, (e, s) in enumerate(which))  # type: ignore[arg-type]


def state(door: Door) -> list[object]:
    return [list(door.signals), dict(door.dropped), door.series_count, door.fed().tolist(), list(door.state()["series"])]


@pytest.mark.slow
@quick
@given(which=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 13)), min_size=1, max_size=30), most=st.integers(1, 40))
def test_series_that_come_together_are_met_as_if_one_by_one(which, most):
    """The same columns in the same order, the same values to the last bit, the same ones left out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(door_module, "MAX_SIGNALS", most)
        series, together, in_turn = met(which), Door(PACK), Door(PACK)
        ids = np.arange(len(series), dtype=np.int32)
        for k, one in enumerate(series):
            in_turn.values(Batch(float(k), new_series=(one,)))
        for tick in range(3):
            at = 1000.0 + 15 * tick
            batch = Batch(at, ids, np.full(len(ids), at), 1.1 * (ids + 1) * (tick + 1), series if tick == 0 else ())
            found = together.values(batch)
            assert found.tobytes() == in_turn.values(replace(batch, new_series=())).tobytes()
        assert state(together) == state(in_turn)
        keys = [(s.entity, s.key) for s in together.signals]
        assert [together.column(*key) for key in keys] == list(range(len(keys))) and len({*keys}) == len(keys) <= most
        assert together.column("pod/a/x", "nobody") is None is together.column("nobody", "own{a=\"1\"}")


@pytest.mark.slow
@quick
@given(which=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 13)), min_size=1, max_size=30), data=st.data())
def test_after_a_restart_all_series_together_find_what_they_find_one_by_one(which, data):
    """Their columns and their last samples, in whatever order they come; some are not kept, some do not come."""
    series, first = met(which), Door(PACK)
    ids = np.arange(len(series), dtype=np.int32)
    first.values(Batch(0.0, ids, np.zeros(len(ids)), 1.0 + ids, series))
    kept = np.flatnonzero([data.draw(st.booleans()) for _ in first.signals])
    order = data.draw(st.permutations(range(len(series))))[:data.draw(st.integers(1, len(series)))]
    again = tuple(replace(series[old], id=new) for new, old in enumerate(order))
    doors = [Door(PACK), Door(PACK)]
    for door in doors:
        door.restore(first.state(), kept)
    for k, one in enumerate(again):
        doors[1].values(Batch(1.0 + k, new_series=(one,)))
    few = np.arange(len(again), dtype=np.int32)
    last = Batch(100.0, few, np.full(len(few), 100.0), 50.0 + few, again)
    one, other = (door.values(batch) for door, batch in zip(doors, (last, replace(last, new_series=())), strict=True))
    assert one.tobytes() == other.tobytes() and state(doors[0]) == state(doors[1])
    assert doors[0].reserved().tolist() == doors[1].reserved().tolist()


@quick
@given(st.lists(pairs, max_size=5), pairs)
def test_an_index_finds_what_a_dictionary_finds(added, asked):
    """Of equal pairs the last counts; a number that nobody has is found nowhere."""
    index, plain, place = Index(), {}, 0
    for some in added:
        left, right = np.array([a for a, _ in some], np.int32), np.array([b for _, b in some], np.int32)
        index.add(left, right, place + np.arange(len(some)))
        plain |= {pair: place + k for k, pair in enumerate(some)}
        place += len(some)
    asked = [*asked, (-1, 2), (2, -1)]
    found = index.find(np.array([a for a, _ in asked]), np.array([b for _, b in asked]))
    assert found.tolist() == [plain.get(pair, -1) for pair in asked]
    assert index.count == len(plain) and sorted(index.places().tolist()) == sorted(plain.values())


@quick
@given(st.lists(st.text(max_size=2), max_size=20), st.lists(st.text(max_size=2), max_size=20))
def test_each_value_has_one_number_by_order_of_appearance(first, then):
    """Over several calls; one by one or together."""
    distinct, plain = Distinct(first), list(dict.fromkeys([*first, *then]))
    assert distinct.find(then).tolist() == [list(dict.fromkeys(first)).index(v) if v in first else -1 for v in then]
    assert distinct.codes(then).tolist() == [plain.index(v) for v in then] == [distinct.code(v) for v in then]
    assert distinct.all == plain and distinct.code("new one") == len(plain) == distinct.codes(["new one"])[0]


def test_signals_by_column_are_those_they_were_made_of():
    """One, some, all; those of some entities; what is asked of each kind and entity once; a cut keeps the numbers."""
    plain = tuple(Signal(i, ENTITIES[i % 3], f"m{i % 2}", direction="up" if i % 2 else "down", limit=None) for i in range(9))
    all_of = columnar(plain)
    assert list(all_of) == list(plain) and all_of[-1] == plain[8] and columnar(all_of) is all_of and columnar(()) is not None
    assert list(all_of[4:7]) == list(plain[4:7]) == list(columnar(plain[4:7])) and list(all_of[5:][1:3]) == list(plain[6:8])
    assert all_of.places(["node//n", "nobody"]).tolist() == [2, 5, 8] and all_of[4:].places(["node//n"]).tolist() == [5, 8]
    asked: list[str] = []
    found = all_of.by_entity(lambda entity: asked.append(entity) or len(entity), np.int64)
    assert found.tolist() == [len(s.entity) for s in plain] and asked == list(ENTITIES[:3])
    assert all_of[3:].by_kind(lambda s: s.direction == "up", np.bool_).tolist() == [s.direction == "up" for s in plain[3:]]
    assert list(all_of.take(np.array([7, 2]))) == [replace(plain[7], id=0), replace(plain[2], id=1)]
    assert all_of.take(np.array([7, 2])).in_order() == [plain[7].entity, plain[2].entity]
    assert [row[:3] for row in all_of.rows()] == [(s.entity, s.name, s.labels) for s in plain]
    assert isinstance(all_of.rows(), Rows)
    with pytest.raises(IndexError):
        all_of[9]
    with pytest.raises(ValueError, match="without steps"):
        all_of[::2]


# ------------------------------------------------------------------------------------------------- columns are given up
def kin_to(k: int) -> Signal:
    return Signal(-1, "", f"m{k % 3}", f'rank="{k}"' if k % 2 else f'disk="{k}"')


coming = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 9)), max_size=12)


@quick
@given(st.lists(st.tuples(coming, st.lists(st.booleans(), min_size=1, max_size=12)), max_size=12))
def test_columns_are_found_by_name_however_often_they_moved(rounds):
    """As a dictionary finds them; whoever looks at signals of before sees those, and names of nobody are forgotten."""
    watched, plain, before = Watched(Rows.of(()), ()), {}, []
    for some, stays in rounds:
        wanted = [(f"pod/a/api-{e}", kin_to(k)) for e, k in some]
        codes = watched.entities([e for e, _ in wanted]), watched.kinds([k for _, k in wanted])
        new = [k for k, found in enumerate(watched.find(*codes).tolist()) if found < 0]
        assert [wanted[k] for k in new] == [pair for pair in wanted if pair not in plain]
        watched.add(codes[0][new], codes[1][new], 1000)
        plain |= {pair: len(plain) + k for k, pair in enumerate(dict.fromkeys(wanted[k] for k in new))}
        before.append((watched.signals, list(watched.signals)))
        columns = packed(np.resize(np.array(stays), len(plain)))
        watched.keep(columns)
        names = list(plain)
        plain = {names[old]: new for new, old in enumerate(columns.tolist())}
        assert [(s.entity, replace(s, id=-1, entity="")) for s in watched.signals] == list(plain)
        assert all(watched.column(e, replace(k, entity=e).key) == column for (e, k), column in plain.items())
        assert all(watched.column(e, replace(k, entity=e).key) is None for e, k in names if (e, k) not in plain)
        used = {e for e, _ in plain}, {k for _, k in plain}
        had = watched.signals.entities, watched.signals.kinds
        assert all(len(all_of.all) <= 2 * len(mine) for all_of, mine in zip(had, used, strict=True))
    assert all(list(signals) == plain for signals, plain in before)


@quick
@given(st.lists(st.integers(0, 40), max_size=60), st.integers(1, 40))
def test_names_of_nobody_are_forgotten_once_they_are_most(codes, size):
    """And the others stay in their order; with few of them nobody is renumbered."""
    codes = np.array([c % size for c in codes], np.int32)
    distinct = Distinct(range(size))
    found, numbers = lean(distinct, codes)
    assert [found.all[k] for k in numbers] == codes.tolist() and found.all == sorted(found.all)
    assert (found is distinct) == (2 * len(set(codes.tolist())) >= size)
    assert len(found.all) <= 2 * len(set(codes.tolist())) and found.codes(found.all).tolist() == list(range(len(found.all)))


@pytest.mark.slow
@quick
@given(st.lists(st.tuples(coming, st.lists(st.booleans(), min_size=1, max_size=12)), max_size=12))
def test_groups_have_the_same_members_however_often_columns_moved(rounds):
    """In the order in which they came, and so do the groups: by who made them three. Kin of nobody are forgotten."""
    groups, of, came, count = Groups(), [], [], 0
    for some, stays in rounds:
        of += [replace(kin_to(k), entity=f"pod/a/{'xy'[e % 2]}{e // 6}-{e}") for e, k in some]
        came += range(count, count + len(some))
        count += len(some)
        groups.extend(columnar(tuple(replace(s, id=k) for k, s in enumerate(of))))
        for move in (False, True):
            if move:
                columns = packed(np.resize(np.array(stays), len(of)))
                of, came = ([had[k] for k in columns.tolist()] for had in (of, came))
                groups.move(columns)
            kin: dict[object, list[int]] = {}
            for k in np.argsort(came).tolist():
                kin.setdefault((owner(of[k].entity), shown(of[k])), []).append(k)
            large = sorted((mine for mine in kin.values() if len(mine) >= LEAST), key=lambda mine: came[mine[LEAST - 1]])
            assert [groups.columns[groups.group == g].tolist() for g in range(groups.count)] == large
        assert groups._index.count == len(kin)
        assert len(groups._owners.all) <= 2 * len({o for o, _ in kin}) and len(groups._shown.all) <= 2 * len({s for _, s in kin})
