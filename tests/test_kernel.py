"""The compiled loop of the baseline against the same code as plain Python, and what each view is there for."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import frame, signals

from aiops import kernel
from detectors.baseline import Baseline

DAY_S, HOUR_S = 86400.0, 3600.0
MONDAY = 4 * DAY_S
PLAIN = """
import json, sys
import numpy as np
from test_kernel import judged, mixed
print(json.dumps(judged(*mixed()).tolist()))
"""


def mixed():
    """Three days of everything at ten minutes: a season, noise, a constant, counters at rest, gaps, glitches."""
    rng = np.random.default_rng(7)
    at = MONDAY + 600.0 * np.arange(430)
    x = rng.normal(10, 1, (len(at), 6))
    x[:, 1] += 8 * np.sin(2 * np.pi * at / DAY_S)
    x[:, 2], x[300:, 2] = 4.0, 5.0
    x[:, 3] = rng.poisson(0.2, len(at))
    x[rng.random(len(at)) < 0.2, 4] = np.nan
    x[200, 5], x[250, 5] = 1e30, -np.inf
    return at, x


def judged(at, x, direction="both"):
    """float64[rows, columns, 8] of the baseline."""
    of, baseline = signals(*(f"a//{i} x" for i in range(x.shape[1])), direction=direction), Baseline()
    return np.array([baseline.judge(frame(t, row, of)).copy() for t, row in zip(at, x, strict=True)])


@pytest.mark.slow
def test_compiled_and_plain_python_agree():
    """The same verdicts without the compiler: it is never needed to run."""
    folder = Path(__file__).parent
    env = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": f"{folder}:{folder.parent}"}
    plain = subprocess.run([sys.executable, "-c", PLAIN], env=env, capture_output=True, text=True, check=True, timeout=120)
    ours = judged(*mixed())
    assert np.allclose(np.array(json.loads(plain.stdout), np.float64), ours, rtol=1e-3, atol=1e-3, equal_nan=True)


def test_the_loop_counts_no_references_to_arrays():
    """Each count is a locked addition, and a hundred of them a series were half the time of a step."""
    numba = pytest.importorskip("numba")
    fresh = numba.jit(**kernel.count.targetoptions)(kernel.count.py_func)  # what was kept of an earlier run cannot be looked into
    fresh(3.0, 1.0, 0, kernel.prior_bins()[None])
    assert "NRT_" not in fresh.inspect_llvm(fresh.signatures[0])


def told(x, step_s=60.0, start=MONDAY, direction="both"):
    """Rows that alarm, with the view that spoke, of one series."""
    at = start + step_s * np.arange(len(x))
    out = judged(at, np.asarray(x, float).reshape(-1, 1), direction=direction)[:, 0]
    rows = np.flatnonzero(out[:, kernel.ALARM] > -np.log(1e-3))
    return [(int(k), kernel.VIEWS[int(out[k, kernel.VIEW])]) for k in rows], out


def noise(n, level=10.0, size=1.0, seed=2):
    return np.random.default_rng(seed).normal(level, size, n)


def test_a_spike_is_seen_at_once():
    x = noise(600)
    x[500] += 12
    found, _ = told(x)
    assert 500 in dict(found)


def test_a_slow_leak_leaves_the_usual_level():
    """The quick predictors follow it; the level of the last weeks does not."""
    x = noise(3000, size=0.5)
    x[2000:] += np.linspace(0, 40, 1000)
    found, _ = told(x)
    assert "level" in {view for k, view in found if k >= 2000}


def test_a_flat_line_is_seen():
    """A value that always varied and stands still."""
    x = noise(1500)
    x[1400:] = x[1400]
    found, _ = told(x)
    assert "flatline" in {view for k, view in found if k >= 1400}


def test_a_value_that_was_constant_for_a_month_is_told_when_it_changes_and_not_for_ever():
    """Then it is the new constant."""
    found, _ = told([5.0] * 720 + [7.0] * 720, step_s=HOUR_S)
    rows = [k for k, _ in found]
    assert 720 in rows and max(rows) < 720 + 72


def test_more_variance_raises_the_evidence():
    x = noise(2000)
    x[1800:1900] = noise(100, size=4.0, seed=3)
    _, out = told(x)
    assert out[1830:1900, kernel.LASTING_EVIDENCE].mean() > 3 * out[1000:1800, kernel.LASTING_EVIDENCE].mean()


def test_a_lasting_rise_of_variance_is_told():
    """A daily wave with four times its usual noise."""
    at = 60.0 * np.arange(8640)
    x = 50 + 10 * np.sin(2 * np.pi * at / DAY_S) + noise(len(at), level=0.0)
    x[8400:8500] += noise(100, level=0.0, size=4.0, seed=3)
    assert "variance" in {view for k, view in told(x)[0] if 8400 <= k < 8500}


def test_one_spike_is_not_more_variance():
    """The hour after it is quiet again, and says so."""
    x = noise(2000)
    x[1800] += 40
    assert [k for k, _ in told(x)[0] if 1800 <= k < 1860] == [1800]


def test_staying_at_the_highest_value_ever_is_saturation():
    """Each of these samples was seen before, and none is odd by itself: that they stay there is."""
    rng = np.random.default_rng(4)
    x = 100 * rng.beta(5, 1.2, 3000)
    x[2900:2960] = rng.uniform(99.2, 99.9, 60)
    found, _ = told(x, direction="up")
    assert "saturation" in {view for k, view in found if 2900 <= k < 2960}
    assert "saturation" not in {view for k, view in found if k < 2900}


def shifted(days=10, size=6.0, seed=5):
    """A daily wave with noise of one, a sample a minute; on the last two days six more from ten to twelve. And where."""
    at = MONDAY + 60.0 * np.arange(days * 1440)
    x = 50 + 15 * np.sin(2 * np.pi * at / DAY_S) + np.random.default_rng(seed).normal(0, 1, (8, len(at)))
    faults = [slice(d * 1440 + 600, d * 1440 + 720) for d in (days - 2, days - 1)]
    for where in faults:
        x[:, where] += size
    return at, x.T, faults


def test_what_was_masked_yesterday_is_as_odd_today():
    """The incident opens after ten samples of the fault, and holds until it is over."""
    at, x, (first, second) = shifted()
    of, baseline = signals(*(f"a//{i} x" for i in range(x.shape[1])), direction="up"), Baseline()
    nats = np.zeros(x.shape)
    for k, (t, row) in enumerate(zip(at, x, strict=True)):
        held = first.start + 10 <= k < first.stop
        nats[k] = baseline.judge(frame(t, row, of, learn=not held))[:, kernel.ALARM]
    yesterday, today = (np.median(nats[f.start:f.start + 10].sum(axis=0)) for f in (first, second))
    assert yesterday > 80 and today > 0.75 * yesterday


def test_a_mask_leaves_no_trace_in_the_tail_of_the_variance():
    """The mean of the last hour still holds the fault when the mask ends: it must not be learned as normal."""
    at, x, (first, _) = shifted()
    of, baseline = signals(*(f"a//{i} x" for i in range(x.shape[1])), direction="up"), Baseline()
    tails = []
    for k, (t, row) in enumerate(zip(at[:first.stop + 120], x, strict=False)):
        baseline.judge(frame(t, row, of, learn=not first.start <= k < first.stop))
        tails.append(np.median(baseline.cuts[:len(of), kernel.VOLATILE, 1]))
    assert tails[-1] < 1.5 * tails[first.start - 1]


def test_the_scale_of_an_hour_learns_what_was_odd_and_no_incident():
    """Five minutes of every night: they wait, and are not forgotten."""
    at = MONDAY + 60.0 * np.arange(10 * 1440)
    x = 50 + np.random.default_rng(6).normal(0, 1, len(at))
    x[(at % DAY_S >= 2 * HOUR_S) & (at % DAY_S < 2 * HOUR_S + 300)] += 30
    of, baseline = signals("a//0 x"), Baseline()
    for t, value in zip(at, x, strict=True):
        baseline.judge(frame(t, [value], of))
    assert baseline.hour_scale[2, 0] > 1.5 * np.median(baseline.hour_scale[:, 0])


@pytest.mark.slow
def test_a_job_of_every_night_is_no_news_after_two_weeks():
    """Odd samples wait before the seasons learn them, and are learned when no incident came of them."""
    at = MONDAY + 60.0 * np.arange(15 * 1440)
    x = 50 + np.random.default_rng(6).normal(0, 1, len(at))
    nightly = (at % DAY_S >= 2 * HOUR_S) & (at % DAY_S < 2 * HOUR_S + 300)
    x[nightly] += 30
    alarm = judged(at, x.reshape(-1, 1), direction="up")[nightly, 0, kernel.ALARM].reshape(15, 5)
    first, last = np.maximum(alarm[[1, 14]] + np.log(1e-3), 0.0).sum(axis=1)
    assert first > 20 and last < first / 5


def test_only_the_bad_direction_counts():
    x = noise(600)
    x[500] -= 15
    assert all(k != 500 for k, _ in told(x, direction="up")[0])
    assert any(k == 500 for k, _ in told(x, direction="down")[0])


@pytest.mark.parametrize("step_s", [1.0, 60.0, 3600.0])
def test_a_season_is_learned_at_any_interval(step_s):
    """What the wave does by itself is expected: the residual is a fraction of the wave."""
    n = int(max(4 * DAY_S / max(step_s, 30.0), 96))
    at = MONDAY + max(step_s, 30.0) * np.arange(n) if step_s < 60 else MONDAY + step_s * np.arange(max(n, 24 * 14))
    x = (10 + 5 * np.sin(2 * np.pi * at / DAY_S) + np.random.default_rng(0).normal(0, 0.2, len(at))).reshape(-1, 1)
    out = judged(at, x)[:, 0]
    late = at > at[-1] - DAY_S
    assert np.abs(x[late, 0] - out[late, kernel.EXPECTED]).mean() < 0.5


def test_a_long_gap_changes_little():
    """Three days of silence, then as before."""
    x = noise(800).reshape(-1, 1)
    at = MONDAY + 60.0 * np.arange(800)
    at[600:] += 3 * DAY_S
    out = judged(at, x)[:, 0]
    assert np.count_nonzero(out[600:, kernel.ALARM] > -np.log(1e-3)) <= 2


def test_summer_time_moves_the_day_with_the_people():
    """Load at nine by the clock on the wall: after the change of the clocks it is still expected there."""
    from detectors.baseline import Settings

    def rate(zone):
        of, baseline = signals("a//b x"), Baseline(Settings(timezone=zone))
        start = 1774137600.0  # Sunday, 22 March 2026: Europe changes its clocks a week later
        rng, late = np.random.default_rng(1), []
        for k in range(14 * 96):
            t = start + 900.0 * k
            utc_hour = t % DAY_S / HOUR_S
            local = utc_hour + (1 if k < 7 * 96 + 4 else 2)
            value = 10 + (10 if 9 <= local % 24 < 17 else 0) + rng.normal(0, 0.3)
            row = baseline.judge(frame(t, [value], of))[0]
            if k > 7 * 96 + 20 and k < 9 * 96:
                late.append(abs(value - row[kernel.EXPECTED]))
        return np.mean(late)
    assert rate("Europe/Berlin") < rate("UTC")


def test_an_unknown_time_zone_is_refused():
    from detectors.baseline import Settings
    with pytest.raises(ValueError, match="unknown time zone 'Mars'"):
        Settings(timezone="Mars")


def test_relearning_takes_the_present_for_normal():
    """Levels and tails begin anew; what comes next is judged by that."""
    of, baseline = signals("a//b x"), Baseline()
    x = [*noise(400), *noise(60, level=60.0)]
    for k, v in enumerate(x):
        baseline.observe(frame(MONDAY + 60.0 * k, [v], of, learn=k < 400))
    assert baseline.out[0, kernel.ALARM] > 6.9
    baseline.relearn(np.array([0]))
    for k, v in enumerate(noise(60, level=60.0, seed=9)):
        baseline.observe(frame(MONDAY + 60.0 * (len(x) + k), [v], of))
    assert baseline.out[0, kernel.ALARM] < 6.9 and abs(baseline.band[0][0] - 60) < 5


def test_a_series_that_appears_once_costs_nothing_and_says_nothing():
    of, baseline = signals("a//b x", "a//c x"), Baseline()
    for k in range(100):
        baseline.observe(frame(MONDAY + 60.0 * k, [10.0 + k % 3, 1.0 if k == 0 else np.nan], of))
    assert baseline.samples_seen().tolist() == [100.0, 1.0] and baseline.out[1, kernel.ALARM] == 0.0


def test_memory_of_a_series_is_bounded():
    """All views, with a season, in less than 4 kB."""
    b = Baseline()
    b._resize(1000)
    row = sum(getattr(b, k)[0].nbytes for k in ("core", "bins", "cuts", "leaders")) + b.place.itemsize
    row += 4 * 2 * kernel.HOURS + 4 * (kernel.SLOTS + kernel.WEEK_HOURS)
    assert row <= 4000
