"""`exhaustion`: what is forecast, when it is told, and what is left alone."""

from __future__ import annotations

import pickle
import re
from itertools import pairwise

import numpy as np
import pytest
from helpers import T0, Feed, frame, pipeline

from aiops import serial, story
from aiops.alerting import Alerting
from aiops.types import Signal
from detectors._trends import WINDOW_S, Trends
from detectors.exhaustion import LEAST_P, REPORT_P, Exhaustion

DAY_S, HOUR_S, MIN_S = 86_400.0, 3600.0, 60.0
TICK_S = 2 * MIN_S
MIDNIGHT = T0 - T0 % DAY_S


def disk(**more):
    return Signal(**{"id": 0, "entity": "node//a", "name": "disk_used", "unit": "ratio", "direction": "up", "limit": 1.0} | more)


def play(values, step_s=TICK_S, of=None, detector=None, start=MIDNIGHT, learn=True):
    """(seconds since the start, anomaly) of everything that is said of one signal."""
    detector, of = detector or Exhaustion(), (of or disk(),)
    return [(k * step_s, a) for k, x in enumerate(np.ravel(values))
            for a in detector.observe(frame(start + k * step_s, [x], of, learn))]


def alarms(said):
    return [(at, a) for at, a in said if a.p_value < 1]


def together(columns, step_s=TICK_S, of=None):
    """As `play`, of many columns at once: a list for each."""
    detector, out = Exhaustion(), [[] for _ in columns]
    of = of or tuple(disk(id=i, entity=f"node//{i}") for i in range(len(columns)))
    length = max(len(x) for x in columns)
    x = np.array([np.concatenate([c, np.full(length - len(c), np.nan)]) for c in columns]).T
    for k, row in enumerate(x):
        for a in detector.observe(frame(MIDNIGHT + k * step_s, row, of)):
            out[a.signal].append((k * step_s, a))
    return out


def notes(said):
    return [(at, a) for at, a in said if a.p_value == 1]


def flat(hours, level=0.6, step_s=TICK_S, noise=0.001, seed=0):
    return level + noise * np.random.default_rng(seed).standard_normal(int(hours * HOUR_S / step_s))


def rise(hours, low=0.6, high=1.0, step_s=TICK_S, noise=0.001, seed=1):
    n = int(hours * HOUR_S / step_s)
    return np.clip(np.linspace(low, high, n) + noise * np.random.default_rng(seed).standard_normal(n), 0, 1)


def then(*pieces):
    return np.concatenate(pieces)


def interval(text):
    """Seconds of `(90 %: B to C)` or `(95 %: not before B)`."""
    if parts := re.search(r"\(95 %: not before (.+?)\)", text):
        return _seconds(parts[1]), np.inf
    early, late = re.search(r"\(90 %: (.+?) to (.+?)\)", text).groups()
    return _seconds(early), _seconds(late)


def _seconds(words):
    unit = {"d": DAY_S, "h": HOUR_S, "min": MIN_S, "s": 1.0}
    return sum(float(n) * unit[u] for n, u in re.findall(r"([\d.]+) (d|h|min|s)", words))


# ------------------------------------------------------------------------------------------------ what is told
@pytest.mark.slow
def test_a_disk_that_fills_is_told_in_time():
    """The slower it goes, the earlier, up to a day before; never while it only hovers."""
    leads = {1: 0.25, 6: 1.5, 24: 7, 72: 20}
    for (hours, least_h), said in zip(leads.items(), together([then(flat(48), rise(hours)) for hours in leads]), strict=True):
        told, end = alarms(said), (48 + hours) * HOUR_S
        assert least_h * HOUR_S < end - told[0][0] < 25 * HOUR_S, hours
        assert {a.name for _, a in told} == {"disk_used"}
        for at, a in told[::5]:
            if a.value < 0.99:
                early, late = interval(a.text)
                middle = _seconds(re.match(r"runs out in (.+?) \(", a.text)[1])
                assert early <= middle <= late
                assert abs(middle - (end - at)) < 0.25 * (end - at) + 10 * MIN_S


@pytest.mark.slow
def test_it_says_when_and_how_sure():
    """In words; `value` is the share in use; there is no band, for the figures are times."""
    _, a = alarms(play(then(flat(48), rise(24))))[0]
    assert re.fullmatch(r"runs out in \d+ h \d+ min \(90 %: \d+ h.* to \d+ h.*\)", a.text)
    assert 0.7 < a.value < 0.9 and np.isnan([a.expected, a.lower, a.upper]).all()
    assert (a.entity, a.signal, a.detector) == ("node//a", 0, "exhaustion")
    assert LEAST_P <= a.p_value < REPORT_P and a.score == 1 - a.p_value


@pytest.mark.slow
def test_the_interval_holds_the_end_of_what_fills_faster_or_slower_as_well():
    """Exponential growth, a rate that rises with time, and one that falls to nothing: nine in ten, and eight in ten."""
    pace = np.linspace(0, 1, 6 * 30)
    shapes = {"faster": np.expm1(3 * pace) / np.expm1(3), "square": pace ** 2, "slower": 1 - (1 - pace) ** 1.5}
    said = together([then(flat(48, seed=i), 0.6 + 0.4 * shape + flat(6, 0.0, seed=9 + i))
                     for shape in shapes.values() for i in range(4)])
    for n, name in enumerate(shapes):
        told = [(54 * HOUR_S - at, interval(a.text)) for one in said[4 * n:4 * n + 4] for at, a in one
                if at < 53.9 * HOUR_S and a.p_value < 1]
        held = np.mean([early <= left <= late for left, (early, late) in told])
        assert len(told) > 40 and held > (0.9 if name != "slower" else 0.75), (name, held)
        assert np.median([early / left for left, (early, _) in told]) > 0.25, "and is not so wide that it says nothing"


@pytest.mark.slow
def test_no_single_estimate_is_worth_more_than_one_in_a_million():
    """However straight the line."""
    said = alarms(play(then(flat(48, noise=0.0), rise(6, noise=0.0))))
    assert min(a.p_value for _, a in said) == LEAST_P


@pytest.mark.slow
def test_a_slow_leak_is_a_note_a_week_before_and_an_alarm_only_on_its_last_day():
    """Told again when half of the time is left: three or four times in all."""
    said = play(then(flat(72, step_s=300), rise(10 * 24, step_s=300)), 300.0)
    end = 13 * DAY_S
    left = [(end - at) / DAY_S for at, _ in notes(said)]
    assert 4 < left[0] < 7.5 and 2 <= len(left) <= 4
    assert all(b < 0.6 * a for a, b in pairwise(left))
    assert notes(said)[0][1].text.startswith("disk_used runs out in ")
    assert 0.8 < (end - alarms(said)[0][0]) / DAY_S < 1.05


@pytest.mark.slow
def test_a_leak_under_the_teeth_of_a_collector_is_told():
    """Memory that goes up and down by ten points every 20 min, and slowly up."""
    teeth = 0.1 * ((np.arange(72 * 30) / 10.0) % 1.0)
    said = alarms(play(then(flat(48, 0.5), rise(24, 0.5, 0.9)) + teeth))
    assert said and 3 * HOUR_S < 72 * HOUR_S - said[0][0] < 25 * HOUR_S


@pytest.mark.slow
@pytest.mark.parametrize("step_s", [2.0, 15.0, 300.0, 3600.0])
def test_any_sampling_interval_will_do(step_s):
    """From two seconds to an hour; the lead is what the windows can see."""
    hours, before = (1, 4) if step_s < 60 else (72, 96)
    said = alarms(play(then(flat(before, step_s=step_s), rise(hours, step_s=step_s)), step_s, disk(horizon_s=DAY_S)))
    assert said and (before + hours) * HOUR_S - said[0][0] > 0.2 * hours * HOUR_S


@pytest.mark.slow
def test_what_falls_towards_its_limit_is_told_as_well():
    """Free memory in MiB, which must not reach 0."""
    free = disk(name="free", unit="MiB", direction="down", limit=0.0, horizon_s=4 * HOUR_S)
    said = alarms(play(20_000 * (1.0 - then(flat(48), rise(6))), of=free))
    assert said and 1.0 * HOUR_S < 54 * HOUR_S - said[0][0] <= 4.1 * HOUR_S


@pytest.mark.slow
def test_nothing_is_told_further_ahead_than_the_horizon():
    """Nobody gets up for a KV cache that is full in six hours."""
    said = alarms(play(then(flat(48), rise(24)), of=disk(horizon_s=HOUR_S / 2)))
    assert said and 72 * HOUR_S - said[0][0] < HOUR_S


@pytest.mark.slow
def test_it_goes_on_while_nothing_may_be_learned():
    """A masked disk fills all the same: the same words, masked or not."""
    x = then(flat(24), rise(4))
    assert [(at, a.text) for at, a in play(x, learn=False)] == [(at, a.text) for at, a in play(x)]


# ------------------------------------------------------------------------------------------------ what is left alone
SLOW_S = 5 * MIN_S


def day(days=6, step_s=TICK_S):
    return np.arange(int(days * DAY_S / step_s)) * step_s / DAY_S


def noisy(x):
    return np.clip(x + 0.001 * np.random.default_rng(2).standard_normal(len(x)), 0, 1)


QUIET = {
    "hovers at 97 %": lambda: 0.97 + 0.003 * np.random.default_rng(0).standard_normal(len(day())),
    "hovers at 97 % with a daily wave": lambda: noisy(0.97 + 0.01 * np.sin(2 * np.pi * day())),
    "a daily wave from 40 to 80 %": lambda: noisy(0.6 + 0.2 * np.sin(2 * np.pi * day())),
    "teeth of five minutes": lambda: noisy(0.5 + 0.4 * ((day() * 288) % 1)),
    "a step to 95 %": lambda: noisy(0.5 + 0.45 * (day() > 3)),
    "a burst that would fill it in an hour": lambda: noisy(0.7 + 0.05 * np.clip((day() - 3) * 144, 0, 1)),
    "starts and settles": lambda: noisy(0.85 * (1 - np.exp(-day() * 24))),
    "shrinks": lambda: noisy(np.linspace(0.95, 0.2, len(day()))),
    "full for ever": lambda: np.ones(len(day())),
    "empty for ever": lambda: np.zeros(len(day()))}


@pytest.mark.slow
def test_nobody_is_woken():
    """Six days of what does not fill: no alert at any time, from the first sample on."""
    x = np.array([make() for make in QUIET.values()]).T
    detector, alerting, of = Exhaustion(), Alerting(), tuple(disk(id=i, entity=f"node//{kind}") for i, kind in enumerate(QUIET))
    for k, row in enumerate(x):
        f = frame(MIDNIGHT + TICK_S * k, row, of)
        assert [a.entity for a in alerting.update(f, detector.observe(f)) if a.state == "firing"] == [], k


@pytest.mark.parametrize(("hours", "least_h"), [(2, 0.15), (4, 0.45), (8, 1.0)])
def test_what_fills_from_its_first_minute_is_told_in_time(hours, least_h):
    """Nothing was ever seen of it but this; an eighth of the time is left."""
    at = alarms(play(rise(hours)))[0][0]
    assert least_h * HOUR_S < hours * HOUR_S - at < 0.25 * hours * HOUR_S


@pytest.mark.slow
def test_the_first_teeth_of_a_daily_wave_are_no_alarm():
    """To 90 %, from any hour on: nobody knows yet that it turns."""
    t = day(2)
    waves = [0.65 + 0.25 * np.sin(2 * np.pi * (t + phase)) for phase in np.arange(8) / 8]
    assert [len(alarms(said)) for said in together(waves)] == [0] * 8


def saw(days, high, seed=0):
    """Fills every day from half to `high`, and is emptied at midnight."""
    x = 0.5 + (high - 0.5) * (day(days, SLOW_S) % 1.0)
    return x + 0.002 * np.random.default_rng(seed).standard_normal(len(x))


@pytest.mark.slow
@pytest.mark.parametrize("high", [0.8, 0.9, 0.95])
def test_a_daily_saw_tooth_is_told_at_most_twice(high):
    """After that it is known to come back by itself."""
    days = {int(at // DAY_S) for at, _ in alarms(play(saw(10, high), SLOW_S))}
    assert len(days) <= 2 and all(d <= 4 for d in days)


@pytest.mark.slow
def test_a_tooth_that_does_not_end_is_told():
    """Nobody empties it on the eighth day."""
    said = alarms(play(then(saw(8, 0.9), rise(6, 0.9, 1.0, SLOW_S)), SLOW_S))
    late = [at for at, _ in said if at > 8 * DAY_S]
    assert late and 8.25 * DAY_S - late[0] > HOUR_S


@pytest.mark.slow
def test_a_faster_fall_than_the_known_one_is_told():
    """In four hours what usually takes a day, and from the middle of a tooth."""
    said = alarms(play(then(saw(8.5, 0.9), rise(4, 0.7, 1.0, SLOW_S)), SLOW_S))
    assert [at for at, _ in said if 8.5 * DAY_S < at < 8.5 * DAY_S + 3 * HOUR_S]


@pytest.mark.slow
def test_what_ran_out_is_no_excuse():
    """A container that is killed at its limit every twelve hours is told each time."""
    x = np.tile(rise(12, 0.3, 1.0, noise=0.0005), 7)
    lives = {int(at // (12 * HOUR_S)) for at, _ in alarms(play(x, of=disk(horizon_s=4 * HOUR_S)))}
    assert lives >= {4, 5, 6}


@pytest.mark.slow
def test_it_is_withdrawn_when_the_rise_stops_or_somebody_cleans_up():
    """Within a quarter of what had been seen, and at once."""
    x = then(flat(48), rise(6)[:150], flat(12, 0.93))
    stopped = alarms(play(x))
    assert 53 * HOUR_S - 10 * MIN_S < stopped[-1][0] < 55 * HOUR_S
    cleaned = alarms(play(then(flat(48), rise(6)[:150], flat(12, 0.5))))
    assert cleaned[-1][0] < 53 * HOUR_S + 3 * TICK_S


@pytest.mark.slow
def test_two_odd_samples_are_no_forecast():
    """Nearly full for a minute, on a gentle slope."""
    x = then(flat(48), rise(48, 0.6, 0.7))
    x[1750:1752] = 0.999
    assert alarms(play(x)) == []


def test_a_young_signal_must_be_four_fifths_full():
    """Pods load their models when they start."""
    x = then(rise(0.5, 0.0, 0.7), flat(1, 0.7), rise(2.5, 0.7, 1.0))
    said = alarms(play(x, of=disk(horizon_s=4 * HOUR_S)))
    assert said and min(a.value for _, a in said) > 0.79


# ------------------------------------------------------------------------------------------------ countdowns
def certificate(horizon_d=7.0):
    return disk(entity="certificate//shop", name="left", unit="seconds", direction="down", limit=0.0, horizon_s=horizon_d * DAY_S)


def test_a_certificate_is_told_a_week_before_it_expires():
    """To the hour, without an interval, until it is renewed."""
    left = then(30 * DAY_S - HOUR_S * np.arange(26 * 24), 90 * DAY_S - HOUR_S * np.arange(48))
    said = play(left, HOUR_S, certificate())
    assert [at / DAY_S for at, _ in said] == pytest.approx(np.arange(23, 26, 1 / 24))
    assert said[0][1].text == "runs out in 7 d" and said[0][1].p_value == LEAST_P


def test_what_expired_has_run_out():
    """And stays told."""
    said = play(30 * DAY_S - HOUR_S * np.arange(31 * 24), HOUR_S, certificate())
    assert said[-1][1].text == "has run out" and said[-1][0] == (31 * 24 - 1) * HOUR_S


@pytest.mark.slow
def test_certificates_that_live_for_a_day_are_not_late_in_their_last_week():
    """Renewed at two thirds of their life, again and again; a note at first sight is all."""
    left = np.tile(DAY_S - 600.0 * np.arange(96), 10)
    said = play(left, 600.0, certificate())
    assert alarms(said) == [] and len(notes(said)) <= 2
    assert alarms(play(DAY_S - 600.0 * np.arange(140), 600.0, certificate()))


# ------------------------------------------------------------------------------------------------ bad input and state
@pytest.mark.slow
def test_gaps_are_silence_and_not_a_level():
    """Half of the samples missing at random, and a night without any."""
    x = then(flat(72), rise(24))
    x[np.random.default_rng(3).random(len(x)) < 0.5] = np.nan
    x[1000:1250] = np.nan
    said = alarms(play(x))
    assert said and 4 * HOUR_S < 96 * HOUR_S - said[0][0] < 25 * HOUR_S
    assert all(np.isfinite(a.value) for _, a in said)


def test_a_day_of_silence_and_it_goes_on():
    """Bins that were skipped are empty, however many."""
    trends = Trends()
    trends.arrange([-1])
    for at in (0.0, 10.0, 1e6, 1e6 + 100, 5e9):
        trends.close(at, np.array([DAY_S]))
        trends.add(np.array([1.0]))
    assert np.isnan(trends.bins[0]).all() and (trends.df == 0).all()


@pytest.mark.parametrize("odd", [1e300, -1e300, 5e-324, np.inf])
def test_one_absurd_value_does_not_silence_it_for_long(odd):
    """The windows that hold it know nothing; the others go on."""
    x = then(flat(48), rise(6))
    x[1250] = odd
    assert alarms(play(x))


def test_signals_without_a_limit_cost_nothing():
    """No state but that they have none."""
    of = tuple(Signal(i, "a//b", f"s{i}") for i in range(500))
    detector = Exhaustion()
    before = len(pickle.dumps(detector.state()))
    detector.observe(frame(T0, np.ones(500), of))
    assert len(pickle.dumps(detector.state())) < before + 500 * 8 + 100


@pytest.mark.slow
def test_it_goes_on_when_other_signals_were_forgotten_or_lost_their_limit():
    """Columns move at a restart: what is kept of a signal follows it, or begins anew."""
    of = (disk(entity="node//gone"), disk(id=1, entity="node//a"), disk(id=2, entity="node//b", limit=None),
          disk(id=3, entity="node//c"))
    rows = np.stack([flat(54), then(flat(48), rise(6)), flat(54), then(flat(48), rise(6, seed=3))], axis=1)
    whole, first, second = Exhaustion(), Exhaustion(), Exhaustion()
    for k, row in enumerate(rows[:1530]):
        f = frame(MIDNIGHT + k * TICK_S, row, of)
        whole.observe(f)
        first.observe(f)
    state = first.state()
    second.restore({**state, "place": state["place"][[1, 2, 3]]})
    later = (disk(entity="node//a"), disk(id=1, entity="node//b"), disk(id=2, entity="node//c", limit=None))
    for k, row in enumerate(rows[1530:]):
        at = MIDNIGHT + (1530 + k) * TICK_S
        expected = [(a.entity, a.text) for a in whole.observe(frame(at, row, of)) if a.entity == "node//a"]
        assert [(a.entity, a.text) for a in second.observe(frame(at, row[1:], later))] == expected
    assert expected and second.state()["place"].tolist() == [0, 1, -1]


def test_a_signal_costs_less_than_two_kilobytes():
    """However long it runs."""
    of = tuple(disk(id=i) for i in range(1000))
    detector = Exhaustion()
    for k in range(3):
        detector.observe(frame(T0 + 60 * k, np.full(1000, 0.5), of))
    assert len(pickle.dumps(detector.state())) < 2000 * 1000


@pytest.mark.slow
def test_it_goes_on_after_a_restart_in_the_middle_of_a_leak():
    """To the last letter, and with signals that came in between."""
    x = then(flat(48), rise(6))
    whole = play(x)
    first, second = Exhaustion(), Exhaustion()
    at, before = 1530 * TICK_S, play(x[:1530], detector=first)
    second.restore(pickle.loads(pickle.dumps(first.state())))
    later = (disk(), disk(id=1, name="other"))
    after = [(at + k * TICK_S, a) for k, v in enumerate(x[1530:])
             for a in second.observe(frame(MIDNIGHT + at + k * TICK_S, [v, 0.5], later))]
    assert before and after
    assert [(t, a.text, a.p_value) for t, a in (*before, *after)] == [(t, a.text, a.p_value) for t, a in whole]


@pytest.mark.slow
def test_columns_do_not_disturb_one_another():
    """Two at once say what each says alone."""
    a, b = then(flat(48), rise(6)), noisy(0.6 + 0.2 * np.sin(2 * np.pi * day(2.25)))
    of, detector = (disk(), disk(id=1, entity="node//b")), Exhaustion()
    both = [x for k, row in enumerate(zip(a, b, strict=True)) for x in detector.observe(frame(MIDNIGHT + k * TICK_S, row, of))]
    assert [x.text for x in both if x.entity == "node//a"] == [x.text for _, x in play(a)]


def test_windows_double_and_end_with_days():
    """So that the longest compare whole days."""
    assert np.all(WINDOW_S[1:] == 2 * WINDOW_S[:-1]) and WINDOW_S[-1] == 12 * DAY_S


# ------------------------------------------------------------------------------------------------ through the pipeline
@pytest.mark.slow
def test_people_read_how_full_it_is_and_when_it_will_be():
    """Headline of the incident and the reason of its cause; the alert is of the signal itself, so that policies see it."""
    p, feed, incidents = pipeline(detectors=("exhaustion",)), Feed(), []
    key = 'node//a node_filesystem_used_ratio{mountpoint="/"}'
    for k, v in enumerate(then(flat(72, step_s=300), rise(24, step_s=300))):
        incidents += p.step(feed.batch(T0 + 300.0 * k, {key: v})).incidents
    form = serial.incident(incidents[0])
    said = r'node a: node_filesystem_used_ratio\{mountpoint="/"\} is 8\d(\.\d)? %, runs out in \d+ h.* \(90 %: .+ to .+\)'
    assert re.fullmatch(said, story.headline(form))
    assert form["alerts"][0]["signal"] == 'node_filesystem_used_ratio{mountpoint="/"}'
    assert any("runs out in" in r["text"] for r in form["causes"][0]["reasons"])


@pytest.mark.slow
def test_a_slow_leak_is_a_note_of_the_step():
    """And no incident."""
    p, feed, told = pipeline(detectors=("exhaustion",)), Feed(), []
    for k, v in enumerate(then(flat(72, step_s=600), rise(240, step_s=600)[:700])):
        report = p.step(feed.batch(T0 + 600.0 * k, {"node//a node_filesystem_used_ratio": v}))
        told += report.notes
        assert not report.incidents
    assert 1 <= len(told) <= 3 and re.match(r"node//a: node_filesystem_used_ratio runs out in \d d", told[0])
