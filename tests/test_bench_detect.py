"""The scorers of `make bench-detect` on data whose answers are known, and the whole of it on two tiny sets."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.detect import __main__ as bench
from benchmarks.detect import cases, events, nab, peers, runs, scale, vus
from benchmarks.detect.cases import Case, DataError

START, STEP = 1_700_000_000.0, 300.0
ROWS = 600
HOUR = int(3600 / STEP)


def case(spans=((400, 430),), rows=ROWS, warmup=100, step=STEP, of="asd", columns=1, seed=0) -> Case:
    """Noise with a level shift in each span of rows."""
    times, labels = START + step * np.arange(rows), np.zeros(rows, np.bool_)
    values = np.random.default_rng(seed).normal(10, 1, (rows, columns))
    for first, behind in spans:
        labels[first:behind] = True
        values[first:behind] += 15
    windows = tuple((float(times[a]), float(times[b - 1])) for a, b in spans)
    return Case(of, "x.csv", Path("x.csv"), tuple(f"m{i}" for i in range(columns)), times, values, labels, warmup, step, windows)


def marked(of: Case, *rows: int):
    """Alarms on these rows."""
    out = np.zeros(len(of.times), np.bool_)
    out[list(rows)] = True
    return out


# --------------------------------------------------------------------------------------------------------------- NAB
def nab_rows(of: Case, score) -> nab.Rows:
    return nab.rows(score, of.times, of.windows, of.warmup)


CORPUS = [case(((200 + 20 * k, 240 + 20 * k),), seed=k) for k in range(10)]


def test_windows_as_scores_get_a_hundred_and_silence_nothing():
    """The two ends of NAB's scale, by every rule and profile."""
    perfect = [nab_rows(c, c.labels.astype(float)) for c in CORPUS]
    silent = [nab_rows(c, np.zeros(ROWS)) for c in CORPUS]
    for rule in (nab.best, nab.crossfitted, nab.as_given):
        assert all(v == pytest.approx(100.0) for v in rule(perfect).values())
        assert all(v == 0.0 for v in rule(silent).values())


def test_noise_scores_low():
    """With NAB's own choice of threshold a little above 0, as given far below."""
    noise = [nab_rows(c, np.random.default_rng(k).uniform(size=ROWS)) for k, c in enumerate(CORPUS)]
    assert 0 <= nab.best(noise)["standard"] < 35
    assert nab.crossfitted(noise)["standard"] < 35
    assert nab.as_given(noise)["standard"] < -100


@pytest.mark.parametrize(("rows", "standard", "low_fp", "low_fn"), [
    ([], 0, 0, 0), ([400], 100, 100, 100), ([400, 429], 100, 100, 100), ([400, 300], 94.5, 89, 100 * 2.89 / 3),
    ([300], -5.5, -11, -100 * 0.11 / 3), ([400, 50], 100, 100, 100)])
def test_what_alarms_are_worth(rows, standard, low_fp, low_fn):
    """The first row of a window counts in full, its second alarm not at all; before any window it costs, probation is free."""
    got = nab.as_given([nab_rows(case(), marked(case(), *rows))])
    assert got == pytest.approx({"standard": standard, "low_fp": low_fp, "low_fn": low_fn})


def test_later_is_worth_less_and_just_behind_costs_little():
    """The scaled sigmoid: falling inside of the window to 0 at its end, to the full cost three lengths behind."""
    of = case()
    worth, window = nab.layout(of.times, of.windows)
    assert worth[400] == 1.0 and np.all(np.diff(worth[400:520]) <= 0) and 0 < worth[429] < 0.2
    assert -0.2 < worth[430] < 0 and worth[429 + 4 * 29] == worth[-1] == worth[0] == -1.0
    assert np.array_equal(np.flatnonzero(window == 0), np.arange(400, 430))
    second, _ = nab.layout(case(((300, 330), (400, 430))).times, case(((300, 330), (400, 430))).windows)
    assert second[330] == worth[430] and second[430] == worth[430]


def test_the_threshold_is_the_best_that_there_is():
    """No other score of any row, used as threshold, gets more."""
    rng = np.random.default_rng(5)
    joined = nab.join([nab_rows(c, np.round(rng.normal(size=ROWS) + c.labels, 1)) for c in CORPUS[:3]])
    for profile in nab.PROFILES.values():
        chosen = nab.at(joined, nab.threshold(joined, profile), profile)
        assert chosen == pytest.approx(max(nab.at(joined, t, profile) for t in [*np.unique(joined.score), np.inf]))


# ------------------------------------------------------------------------------------------------------------ events
def test_labels_as_alarms_are_perfect():
    """One event, found on its first row, nothing false."""
    got = events.count(case().labels, case())
    assert (got.events, got.detected, got.false, got.delays) == (1, 1, 0, (0.0,))
    assert (got.precision, got.recall, got.f1) == (1.0, 1.0, 1.0)
    assert got.days == pytest.approx(500 * STEP / 86400)


@pytest.mark.parametrize(("row", "detected", "false", "delay"), [
    (395, 1, 0, 0.0), (394, 0, 1, None), (413, 1, 0, 13.0), (414, 0, 0, None), (435, 0, 0, None), (436, 0, 1, None),
    (99, 0, 0, None)])
def test_when_an_alarm_counts(row, detected, false, delay):
    """From five intervals early to an hour and one interval late; half an hour after the end it is excused, then false."""
    got = events.count(marked(case(), row), case())
    assert (got.detected, got.false, got.delays) == (detected, false, () if delay is None else (delay,))


def test_a_stuck_alarm_costs_one_notification_an_hour():
    """No free recall for always alarming."""
    quiet = case(spans=(), rows=100 + 24 * HOUR)
    got = events.count(np.ones(len(quiet.times), np.bool_), quiet)
    assert (got.false, got.days, got.f1) == (24, pytest.approx(1.0), 0.0)


def test_runs_ten_minutes_apart_are_one_event():
    """And those further apart are two."""
    assert events.count(case().labels, case(((300, 310), (311, 320)))).events == 1
    assert events.count(case().labels, case(((300, 310), (312, 320)))).events == 2


def test_files_are_pooled_event_by_event():
    """Not averaged file by file."""
    one, two = case(), case(((200, 210), (300, 310), (400, 410)))
    got = events.pooled([events.count(one.labels, one), events.count(marked(two, 150), two)])
    assert (got.events, got.detected, got.false, got.recall, got.precision) == (4, 1, 1, 0.25, 0.5)


def test_recall_within_the_allowance():
    """A score that is high in the event alone has all of it; one that never stands out has nothing."""
    of = case(rows=3000, spans=((2000, 2010),))
    spike = of.labels + 1e-6 * np.random.default_rng(0).uniform(size=3000)
    assert events.best_recall([(of, spike)]) == (1.0, 1.0)
    assert events.best_recall([(of, np.zeros(3000))]) == (0.0, 0.0)


# --------------------------------------------------------------------------------------------------------------- VUS
def test_volume_of_labels_constants_and_noise():
    """1, the share of what is labelled, and about as little."""
    labels = case(((100, 110), (300, 330))).labels
    assert vus.vus_pr(labels.astype(float), labels, 12) == pytest.approx(1.0)
    assert vus.vus_pr(np.zeros(ROWS), labels, 0) == pytest.approx(labels.mean())
    assert vus.vus_pr(np.random.default_rng(0).uniform(size=ROWS), labels, 12) < 0.2
    assert vus.vus_pr(-labels.astype(float), labels, 0) < 0.1


def test_a_near_miss_is_worth_something():
    """Alarms three rows beside the event count more with the buffer than without, and less than in it."""
    labels = case().labels
    beside = np.roll(labels, 3).astype(float)
    assert vus.vus_pr(beside, labels, 0) < vus.vus_pr(beside, labels, 12) < 1.0


def test_shoulders_fade_and_never_exceed_a_label():
    """On both sides, cut at the ends, joined where runs are near."""
    labels = np.zeros(12)
    labels[[0, 6, 8]] = 1
    soft = vus.shoulders(labels, 4)
    assert soft[[0, 6, 8]].tolist() == [1, 1, 1] and soft[7] == 1.0
    assert soft[[1, 2, 3]] == pytest.approx([0.75**0.5, 0.5**0.5, 0.0])
    assert soft[[4, 5, 9, 10, 11]] == pytest.approx([0.5**0.5, 0.75**0.5, 0.75**0.5, 0.5**0.5, 0.0])


# ------------------------------------------------------------------------------------------------------------- peers
@pytest.mark.slow
@pytest.mark.parametrize("name", peers.PEERS)
@pytest.mark.parametrize("columns", [1, 3])
def test_peers_do_not_see_what_comes(name, columns):
    """The first 350 rows are judged the same without the other 50, gaps included, and the shift is noticed."""
    whole = case(((340, 350),), rows=400, columns=columns)
    whole.values[200:205] = np.nan
    part = replace(whole, times=whole.times[:350], values=whole.values[:350], labels=whole.labels[:350])
    rank, alarm = peers.PEERS[name].run(whole)
    early, early_alarm = peers.PEERS[name].run(part)
    assert np.array_equal(rank[:350], early) and np.array_equal(alarm[:350], early_alarm)
    assert np.isfinite(rank).all() and rank[340] > np.quantile(rank[288:340], 0.9)


def test_rarity_has_a_tail_beyond_what_was_seen():
    """A score of ten times the largest is rarer than one in a thousand; equal scores are not rare at all."""
    score = np.append(np.random.default_rng(0).exponential(size=1000), 80.0)
    assert peers.rarity(score, STEP)[-1] > 3.5
    assert peers.rarity(np.ones(1000), STEP).max() < 0.01


# ------------------------------------------------------------------------------------------------------- all together
def write(folder: Path, of: Case, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [",".join([f"{t:.0f}", *(f"{v:.6f}" for v in row)]) for t, row in zip(of.times, of.values, strict=True)]
    (folder / name).write_text("\n".join([",".join(["timestamp", *of.columns]), *rows]) + "\n", encoding="utf-8")


def labels_of(of: Case) -> dict[str, object]:
    return {"rows": len(of.times), "warmup_rows": of.warmup, "interval_s": STEP, "anomalous_rows": [[400, 429]]}


@pytest.fixture
def data(tmp_path):
    """One NAB file with dates, two servers."""
    nab_file = case(of="nab")
    write(tmp_path / "nab" / "group", nab_file, "a.csv")
    window = [str(np.datetime64(int(t), "s")).replace("T", " ") for t in nab_file.windows[0]]
    (tmp_path / "nab" / "windows.json").write_text(json.dumps({"group/a.csv": [window]}))
    for seed, name in enumerate(("s1.csv", "s2.csv")):
        write(tmp_path / "asd", case(columns=2, seed=seed), name)
    (tmp_path / "asd" / "labels.json").write_text(json.dumps({n: labels_of(case()) for n in ("s2.csv", "s1.csv")}))
    return tmp_path


def test_truth_is_read_as_it_is_written(data):
    """Windows by time, spans by row, warm-up and interval; in the order of sets and names."""
    found = cases.load([data])
    assert [c.name for c in found] == ["group/a.csv", "s1.csv", "s2.csv"]
    assert [c.warmup for c in found] == [90, 100, 100] and {c.interval_s for c in found} == {STEP}
    assert all(np.array_equal(c.labels, case().labels) for c in found)
    assert [c.values.shape for c in found] == [(ROWS, 1), (ROWS, 2), (ROWS, 2)]


def test_data_that_do_not_fit_their_labels_are_refused(data, capsys):
    """File, what is wrong and the remedy; an empty folder as well."""
    (data / "asd" / "s1.csv").write_text("timestamp,a\n1,2\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"s1\.csv: has 1 rows, labels\.json says 600"):
        cases.load([data])
    assert bench.main([str(data / "nowhere")]) == 2
    assert "none of nab, cloud-monitoring" in capsys.readouterr().err


@pytest.mark.parametrize(("argv", "said"), [
    ([], "DATA is missing"), (["x", "--peers", "nobody"], "peer 'nobody' is not known. Known: ewma"),
    (["x", "--sets", "nba"], "set 'nba' is not known")])
def test_what_was_asked_wrongly_is_said(argv, said, capsys):
    """And exit code 2."""
    with pytest.raises(SystemExit) as end:
        bench.main(argv)
    assert end.value.code == 2 and said in capsys.readouterr().err


@pytest.mark.slow
def test_the_table_has_peers_ours_and_goals(data, capsys):
    """What is printed and what is written as JSON are the same."""
    out, cache = data / "out.json", data / "cache"
    argv = [str(data), "--peers", "ewma,sad", "--no-scale", "--cache", str(cache), "--json", str(out)]
    assert bench.main(argv) == 0
    printed, written = capsys.readouterr().out, json.loads(out.read_text())
    assert list(written["sets"]) == ["nab", "asd"] and list(written["sets"]["asd"]) == ["EWMA z", "river SAD", "aiops"]
    f1 = written["sets"]["asd"]["aiops"]
    assert f"{f1['f1']:.2f} ({f1['false_a_day']:.2f})" in next(x for x in printed.splitlines() if x.startswith("| ASD event F1"))
    assert "| >= 75 (must 71) " in printed and "rows/s of one series" in printed
    assert len(list(cache.iterdir())) == 6


def test_peers_are_run_once_and_then_remembered(tmp_path):
    """The same figures, seconds included; other data are another matter."""
    first = runs.over(CORPUS[:2], "sad", cache=tmp_path)
    again = runs.over(CORPUS[1:3], "sad", cache=tmp_path)
    assert np.array_equal(first[1].rank, again[0].rank) and np.array_equal(first[1].alarm, again[0].alarm)
    assert first[1].seconds == again[0].seconds
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.slow
def test_the_command_line_agrees_with_this_process(data):
    """And where a figure differs its column is named."""
    one = cases.load([data], ["nab"])[0]
    assert runs.command_differs(one) == ""
    other = replace(one, values=one.values + 1.0)
    assert runs.command_differs(other) == "score"


@pytest.mark.slow
def test_very_many_series_are_measured():
    """Every series is judged by then, and what is held is more than nothing and less than a hundred kilobytes."""
    detector = scale._baseline()
    for frame in scale.frames(20):
        detector.observe(frame)
    assert detector.ready_count() == 20
    assert scale.samples_per_s(50) > 0
    assert 40 < scale.bytes_per_series(2000) < 100_000
