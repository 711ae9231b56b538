"""`aiops score`: one row out for each row in, from the rows before it and nothing else."""

from __future__ import annotations

import csv
import io
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiops import cli
from aiops.score import ScoreError, Scorer, rising, score

FORM = ["timestamp", "score", "p_value", "expected", "lower", "upper", "anomaly"]


def write(folder, text):
    path = folder / "in.csv"
    path.write_text(text, encoding="utf-8")
    return path


def table(values, name="value", start=1_700_000_000, step=60):
    return f"timestamp,{name}\n" + "".join(f"{start + step * k},{v}\n" for k, v in enumerate(values))


def scored(folder, text, *options):
    """The rows of the output, through the command line."""
    out = folder / "out.csv"
    assert cli.main(["score", str(write(folder, text)), "-o", str(out), *options]) == 0
    with out.open(encoding="utf-8", newline="") as f:
        return list(csv.DictReader(f))


NOISE = np.random.default_rng(4).normal(10, 1, 300)


def test_each_row_is_answered_in_the_documented_form(tmp_path):
    """Times as they were, figures in range."""
    rows = scored(tmp_path, table(NOISE))
    assert list(rows[0]) == FORM and len(rows) == 300
    assert [r["timestamp"] for r in rows[:2]] == ["1700000000", "1700000060"]
    for r in rows:
        assert 0 <= float(r["score"]) <= 1 and 0 < float(r["p_value"]) <= 1 and r["anomaly"] in "01"
    judged = [r for r in rows[30:] if float(r["lower"]) <= float(r["expected"]) <= float(r["upper"])]
    assert len(judged) == 270


def test_a_spike_is_an_anomaly_and_noise_is_not(tmp_path):
    """One row of three hundred."""
    rows = scored(tmp_path, table([*NOISE[:250], 60.0, *NOISE[251:]]))
    assert [k for k, r in enumerate(rows) if r["anomaly"] == "1"] == [250]
    assert float(rows[250]["p_value"]) < 1e-3
    assert float(rows[250]["upper"]) < 60


numbers = st.one_of(st.floats(-1e6, 1e6), st.sampled_from([math.nan, 0.0, 1e300]))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.tuples(numbers, numbers), min_size=3, max_size=60), st.data())
def test_a_row_depends_on_the_rows_before_it_only(rows, data):
    """Cut the file anywhere, change all that follows: what was said stays as it was, to the last bit."""
    cut = data.draw(st.integers(1, len(rows) - 1))
    values, times = np.array(rows), np.arange(len(rows), dtype=float)
    changed = values.copy()
    changed[cut:] = 7.0
    for columns in (["a"], ["a", "b"]):
        x, y = values[:, :len(columns)], changed[:, :len(columns)]
        whole, other, part = (Scorer(columns).run(t, v) for t, v in ((times, x), (times, y), (times[:cut], x[:cut])))
        for name in whole:
            assert repr(whole[name][:cut]) == repr(other[name][:cut]) == repr(part[name])


def test_a_long_file_is_causal_too():
    """Past the forest's first fit and the season's beginning."""
    rng = np.random.default_rng(0)
    values, times = rng.normal(size=(500, 3)), 600.0 * np.arange(500)
    whole, part = Scorer(["a", "b", "c"]).run(times, values), Scorer(["a", "b", "c"]).run(times[:400], values[:400])
    assert all(repr(whole[name][:400]) == repr(part[name]) for name in whole)


def test_several_columns_say_who_contributed(tmp_path):
    """Shares that add up, most of it at the column that is off."""
    text = "timestamp,a,b,c\n" + "".join(f"{60 * k},{x},{x * 2},{50 if k == 280 else 5 + x % 1}\n" for k, x in enumerate(NOISE))
    rows = scored(tmp_path, text)
    assert list(rows[0]) == [*FORM, "contribution_a", "contribution_b", "contribution_c"]
    shares = [float(rows[280][f"contribution_{c}"]) for c in "abc"]
    assert rows[280]["anomaly"] == "1" and shares[2] > 0.8 and sum(shares) == pytest.approx(1)
    assert sum(r["anomaly"] == "1" for r in rows) <= 2


def test_columns_may_be_chosen(tmp_path):
    """The others are not looked at."""
    text = "timestamp,a,label,b\n" + "".join(f"{k},{x},ok,{k}\n" for k, x in enumerate(NOISE))
    assert list(scored(tmp_path, text, "--columns", "a")[0]) == FORM
    assert "contribution_b" in scored(tmp_path, text, "--columns", "b,a")[0]
    assert [c for c in scored(tmp_path, text)[0] if c.startswith("contribution")] == ["contribution_a", "contribution_b"]


def test_missing_values_are_no_anomalies(tmp_path):
    """Nor do they stop anything."""
    values = [x if k % 5 else "" for k, x in enumerate(NOISE)]
    values[200] = "n/a"
    rows = scored(tmp_path, table(values))
    assert len(rows) == 300
    assert all(float(rows[k]["p_value"]) == 1.0 for k in (0, 50, 200))


def test_dates_are_times_as_well(tmp_path):
    """With and without a zone."""
    text = "timestamp,value\n" + "".join(f"2024-01-{1 + k // 24:02d} {k % 24:02d}:00:00,{x}\n" for k, x in enumerate(NOISE))
    rows = scored(tmp_path, text)
    assert rows[24]["timestamp"] == "2024-01-02 00:00:00"
    seconds = table(NOISE, start=1_704_067_200, step=3600)
    assert [r["p_value"] for r in rows] == [r["p_value"] for r in scored(tmp_path, seconds)]


@pytest.mark.parametrize("times", [
    [5] * 40, list(range(40, 0, -1)), [1, *[math.nan] * 19, *range(20)], [1e300] * 40, ["", *range(39)]])
def test_times_that_make_no_sense_do_not_stop_it(tmp_path, times):
    """Equal, falling, absent: rows come in the order of the file."""
    text = "timestamp,value\n" + "".join(f"{t},{x}\n" for t, x in zip(times, NOISE, strict=False))
    assert len(scored(tmp_path, text)) == 40


def test_one_time_far_in_the_future_does_not_stop_the_clock(tmp_path, capsys):
    """Three rows later it is known for what it is; how many rows had no time of their own is said."""
    right = [60.0 * k for k in range(300)]
    times, odd = rising(np.array([*right[:100], 1e12, *right[100:]]))
    assert odd == 2 and times[:101].tolist() == [*right[:100], 1e12]
    assert times[101:103].tolist() == [np.nextafter(1e12, 2e12), np.nextafter(np.nextafter(1e12, 2e12), 2e12)]
    assert times[103:].tolist() == right[102:]
    x = [*NOISE[:250], NOISE[250] + 50, *NOISE[251:]]
    lines = [f"{60 * k},{v}" for k, v in enumerate(x)]
    rows = scored(tmp_path, "\n".join(["timestamp,value", *lines[:100], "1e12,10", *lines[100:]]) + "\n")
    assert [k for k, r in enumerate(rows) if r["anomaly"] == "1"] == [251]
    assert "2 of 301 times do not rise" in capsys.readouterr().err


def test_a_clock_that_steps_back_a_little_waits_for_its_time_to_come():
    """As at the end of daylight saving time in a file without zones."""
    times, odd = rising(np.array([0.0, 60, 120, 0, 60, 120, 180]))
    assert odd == 3 and (np.diff(times) > 0).all() and times[-1] == 180


def test_a_file_without_rows_has_none_scored(tmp_path):
    """The header is there."""
    out = tmp_path / "out.csv"
    assert cli.main(["score", str(write(tmp_path, "timestamp,value\n")), "--columns", "value", "-o", str(out)]) == 0
    assert out.read_text() == ",".join(FORM) + "\n"


def test_without_a_file_it_goes_to_stdout(tmp_path, capsys):
    """For pipes."""
    assert cli.main(["score", str(write(tmp_path, table(NOISE[:5])))]) == 0
    assert len(list(csv.DictReader(io.StringIO(capsys.readouterr().out)))) == 5


@pytest.mark.parametrize(("text", "said"), [
    ("", "is empty. A header with 'timestamp' and one value column are needed."),
    ("time,value\n1,2\n", "no column 'timestamp'. Found: time, value."),
    ("timestamp,name\n1,x\n", "no column with numbers"),
    ("timestamp\n1\n", "no column with numbers"),
    ("timestamp,value\nsoon,1\nlater,2\n", "'soon' is neither Unix seconds nor a date"),
    ('timestamp,value\n1,"2\n', "cannot be read as CSV"),
])
def test_what_cannot_be_scored_is_named_with_a_remedy(tmp_path, capsys, text, said):
    """File and place, exit code 2, no traceback."""
    path = write(tmp_path, text)
    with pytest.raises(ScoreError) as error:
        score(path, None, None)
    assert said in str(error.value) and str(path) in str(error.value)
    assert cli.main(["score", str(path)]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_column_that_is_not_there_is_named(tmp_path, capsys):
    """With those that are."""
    assert cli.main(["score", str(write(tmp_path, table([1, 2]))), "--columns", "valu"]) == 2
    assert "no column 'valu'. Found: timestamp, value." in capsys.readouterr().err


def test_bytes_that_are_no_text_are_named(tmp_path, capsys):
    """Not a traceback."""
    path = tmp_path / "x.csv"
    path.write_bytes(b"timestamp,value\n1,\xff\xfe\n")
    assert cli.main(["score", str(path)]) == 2
    assert "cannot be read as CSV" in capsys.readouterr().err
