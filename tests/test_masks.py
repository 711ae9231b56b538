"""Of whom nothing is learned, and which alerts raise nothing: each with its reason, and never for ever."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from helpers import STEP_S, T0, Feed, alert, anomaly, graph, links, pipeline, signals

from aiops import build, meaning
from aiops.accepted import ACCEPT_S, MAX_INCIDENTS, MAX_LEVELS, Accepted
from aiops.maintenance import CONFIGURED, KEEP_S, MAX_WINDOWS, Maintenance
from aiops.masks import AFTER_CHANGE_S, CONFIRMED_S, INCIDENT_S, QUIET_S, Masks
from aiops.types import Batch, Command, Event, Incident, RawAlert
from aiops.windows import Once, parse_weekly
from correlators.graph import Graph

DB, SHOP = "service//db app_errors", "service//shop app_latency"
OF = signals("service//db app_errors", "service//db app_latency", "service//shop app_latency", "pod//p1 x", "pod//p2 x")
HOUR = 3600.0


def incident(*alerts, name="i", **more):
    entities = tuple(dict.fromkeys(a.entity for a in alerts))
    return Incident(name, T0, T0, "open", "warning", entities, alerts, **more)


def said(at, verb, target, **more):
    return Command(at, verb, target, "ann", **more)


def window(*entities, since=T0, until=T0 + HOUR, name="mnt-1", **more):
    return Maintenance(name, entities, Once(since, until), **more)


class Step:
    """One masks object, asked at times of its own; `open` are the incidents of the step before."""

    def __init__(self, masks=None, of=OF, topology=None):
        self.masks, self.of, self.graph = masks or Masks(), of, topology or Graph()

    def __call__(self, at, *, open=(), commands=(), events=()):
        self.masks.watch(open)
        self.masks.obey(commands)
        may = self.masks.learn(Batch(at, events=tuple(events)), self.of, self.graph)
        for s in self.of:
            assert not (s.entity in self.masks.held and may[s.id]), "who is held has no column that is learned"
        return [f"{s.entity} {s.key}" for s, ok in zip(self.of, may, strict=True) if not ok]


# -------------------------------------------------------------------------------------------------------- incidents
def test_nothing_is_learned_from_who_is_in_an_incident():
    """All of its signals, while its own alert fires and five minutes longer; the rest of the world is learned."""
    step = Step()
    firing = incident(alert(DB, at=T0), alert(SHOP, state="resolved", at=T0))
    assert step(T0 + 1, open=[firing]) == ["service//db app_errors", "service//db app_latency", SHOP]
    assert step.masks.held["service//db"].reason == "incident i"
    assert step(T0 + QUIET_S, open=[firing]) == ["service//db app_errors", "service//db app_latency"]
    assert step(T0 + QUIET_S + 1, open=[]) == []


def test_after_a_day_it_is_learned_again_and_that_is_said_once():
    """A mask must not starve anybody; and the note says how to prevent it."""
    step, notes = Step(), []
    for k in range(30):
        held = step(T0 + k * HOUR, open=[incident(alert(DB, at=T0 + k * HOUR))])
        notes += step.masks.notes
        assert bool(held) == (k * HOUR < INCIDENT_S), k
    assert notes == ["service//db: learned again after 1d, although i is open. If this is not the new normal, say so: "
                     "aiops feedback i --useful"]
    at = T0 + 30 * HOUR
    assert step(at, open=[incident(alert(DB, at=at))], commands=[said(at, "useful", "i")]), "not too late"


def test_who_is_told_that_it_is_a_fault_holds_it_for_a_week():
    """`useful`: what was learned since must not include it."""
    step = Step()
    held = [bool(step(T0 + k * HOUR, open=[incident(alert(DB, at=T0 + k * HOUR))],
                      commands=[said(T0, "useful", "i")] if k == 5 else ())) for k in range(24 * 8)]
    assert held.index(False) * HOUR == CONFIRMED_S


def test_a_false_alarm_is_learned_at_once():
    """From the very step in which it is said."""
    step = Step()
    assert step(T0, open=[incident(alert(DB))])
    assert step(T0 + 1, open=[incident(alert(DB))], commands=[said(T0, "false_alarm", "i")]) == []
    assert step(T0 + 2, open=[incident(alert(DB)), incident(alert(DB), name="j")]), "another incident is another matter"


def test_a_new_normal_that_is_announced_is_learned():
    """On purpose, and said."""
    step = Step()
    step(T0, open=[incident(alert(DB), alert(SHOP))])
    step.masks.hear([anomaly(T0, "service//db new_normal", 1.0, -1, "drift", text="settled at a new level")])
    assert step.masks.notes == ["service//db: learned again although i is open: settled at a new level"]
    assert step(T0 + 1, open=[incident(alert(DB), alert(SHOP))]) == [SHOP]


def test_a_fault_that_comes_back_is_masked_anew():
    """The day begins again with another incident."""
    step = Step()
    for k in range(26):
        step(T0 + k * HOUR, open=[incident(alert(DB, at=T0 + k * HOUR))])
    step(T0 + 27 * HOUR)
    assert step(T0 + 28 * HOUR, open=[incident(alert(DB, at=T0 + 28 * HOUR), name="j")])


# ---------------------------------------------------------------------------------------------------------- changes
ROLLOUT = graph("deployment//db owns pod//p1", "service//db owns pod//p1")


def test_nothing_is_learned_just_after_a_change():
    """A deploy is no ordinary minute; a warning is no deploy."""
    step = Step()
    events = [Event(T0, "service//db", "change", "Deployed"), Event(T0, "service//shop", "warning", "Slow")]
    assert step(T0, events=events) == ["service//db app_errors", "service//db app_latency"]
    assert step(T0 + AFTER_CHANGE_S - 1) and not step(T0 + AFTER_CHANGE_S)


def test_a_deploy_holds_its_pods_and_the_service_they_serve():
    """Also the pods that come after it."""
    step = Step(topology=ROLLOUT)
    step(T0, events=[Event(T0, "deployment//db", "change", "Rollout")])
    assert set(step.masks.held) == {"deployment//db", "pod//p1", "service//db"}
    assert step(T0 + 1) == ["service//db app_errors", "service//db app_latency", "pod//p1 x"]
    step.graph = graph("deployment//db owns pod//p2", "service//db owns pod//p2")
    step(T0 + 1)
    assert set(step.masks.held) == {"deployment//db", "pod//p2", "service//db"}
    assert step.masks.held["pod//p2"].reason == "deployment//db changed"


def test_a_pod_that_changes_holds_only_itself():
    """Or a service whose pods come and go would never be learned."""
    step = Step(topology=ROLLOUT)
    step(T0, events=[Event(T0, "pod//p1", "change", "created")])
    assert set(step.masks.held) == {"pod//p1"}


def test_changes_are_forgotten_once_they_do_not_matter():
    """Pods come and go for weeks."""
    step = Step()
    for k in range(100):
        step(T0 + k * AFTER_CHANGE_S, events=[Event(T0, f"pod//p{k}", "change", "created")])
    assert len(step.masks._changed) == 1


# ------------------------------------------------------------------------------------------------------ maintenance
def test_a_window_covers_what_it_names_what_that_owns_and_what_runs_on_it():
    """A service with its pods; a node with its guests."""
    topology = graph("service//db owns pod//p1", "pod//p2 runs_on node//n")
    step = Step(Masks([window("service//db", "node//n*")]), topology=topology)
    assert step(T0) == ["service//db app_errors", "service//db app_latency", "pod//p1 x", "pod//p2 x"]
    assert step.masks.held["pod//p2"].reason == "maintenance mnt-1 until 2001-09-09 02:46:40 UTC"
    assert step(T0 + HOUR) == []


def test_pods_that_come_during_a_window_are_covered():
    """And those that are seen for the first time."""
    step = Step(Masks([window("service//db")]), of=OF[:1])
    step(T0)
    step.graph = graph("service//db owns pod//p2")
    step.of = OF
    assert "pod//p2 x" in step(T0 + 1)


def test_a_window_by_namespace():
    """Globs over both."""
    step = Step(Masks([replace(window("pod/*"), namespace="shop-*")]), of=signals("pod/shop-a/x m", "pod/pay/x m", "node//x m"))
    assert step(T0) == ["pod/shop-a/x m"]


def test_a_weekly_window_comes_back():
    """T0 is a Sunday, 01:46:40 UTC."""
    step = Step(Masks([Maintenance("w", ("service//db",), parse_weekly("Sun 01:00-02:00"))]))
    held = [bool(step(T0 + k * HOUR)) for k in range(24 * 15)]
    assert [k for k, ok in enumerate(held) if ok] == [0, 168, 336]


def test_people_start_and_end_windows():
    """Planned, active, over; the list forgets it after a day."""
    step = Step()
    start = said(T0, "maintenance_start", "mnt-9", entities=("service//db",), since=T0 + 100, until=T0 + HOUR, reason="disks")
    assert step(T0, commands=[start]) == [] and step(T0 + 100) != []
    assert step.masks.maintained("service//db") == "maintenance mnt-9 until 2001-09-09 02:46:40 UTC: disks"
    assert step(T0 + 200, commands=[said(T0 + 200, "maintenance_end", "mnt-9")]) == []
    later = T0 + 300 + KEEP_S
    step(later, commands=[said(later, "maintenance_start", "mnt-10", entities=("a//b",), until=later + 1)])
    assert [w.id for w in step.masks.calendar.windows] == ["mnt-10"]


@pytest.mark.parametrize(("command", "note"), [
    (said(T0, "maintenance_end", "nobody"), "not ended: no window of that name was started by a person."),
    (said(T0, "maintenance_end", "config-0"), "not ended: no window of that name was started by a person."),
    (said(T0, "maintenance_start", "m", until=T0 + 9), "not started"),
    (said(T0, "maintenance_start", "m", entities=("a//b",), until=T0), "not started"),
    (said(T0, "maintenance_start", "m", entities=("a//b",), until=float("inf")), "not started"),
    (said(T0, "maintenance_start", "config-0", entities=("a//b",), until=T0 + 9), "not started")])
def test_what_cannot_be_done_is_answered(command, note):
    """And changes nothing."""
    step = Step(Masks([window("service//db", name="config-0", by=CONFIGURED)]))
    before = step.masks.calendar.windows
    step(T0, commands=[command])
    assert note in step.masks.notes[0] and step.masks.calendar.windows == before


def test_windows_are_bounded():
    """A script that runs wild starts two hundred, and is told."""
    step = Step()
    for k in range(MAX_WINDOWS + 5):
        step(T0 + k, commands=[said(T0, "maintenance_start", f"m{k}", entities=("a//b",), until=T0 + 9e5)])
    assert len(step.masks.calendar.windows) == MAX_WINDOWS
    assert "there are 200 windows already" in step.masks.notes[0]


# ------------------------------------------------------------------------------------------------------ suppression
def test_an_alert_under_maintenance_is_suppressed_with_its_reason():
    """Told once; what its text said is kept; others and what is resolved are left alone."""
    masks = Masks([window("service//db")])
    step = Step(masks)
    step(T0)
    firing = alert(DB, text="silent for 200 s")
    out = masks.suppress(T0, [firing, alert(SHOP), alert(DB, state="resolved")])
    assert [a.state for a in out] == ["suppressed", "firing", "resolved"]
    assert out[0].text == "maintenance mnt-1 until 2001-09-09 02:46:40 UTC; silent for 200 s"
    assert len(masks.notes) == masks.suppressed == 1
    step(T0 + 1)
    masks.suppress(T0 + 1, [firing])
    assert (masks.notes, masks.suppressed) == ([], 1)


def test_who_was_never_heard_of_is_covered_by_name():
    """An alert of another system about something that nobody watches."""
    masks = Masks([window("disk//*")])
    Step(masks)(T0)
    assert masks.suppress(T0, [alert("disk//x alert:Full")])[0].state == "suppressed"


def judged(value, later=10.0, verb="false_alarm", **more):
    """State of an alert after one with value 30 where 1 was expected was judged."""
    masks = Masks()
    step = Step(masks)
    step(T0, open=[incident(alert(DB, value=30.0, expected=1.0))])
    step(T0 + 1)
    step(T0 + 2, commands=[said(T0 + 2, verb, "i")])
    again = replace(alert(DB, value=value, expected=1.0), **more)
    return masks.suppress(T0 + later, [again])[0].state


def test_a_level_that_was_called_a_false_alarm_raises_nothing():
    """No worse, by a tenth of the distance; on the same signal, on the same side, for two weeks."""
    assert [judged(v) for v in (5.0, 30.0, 32.0, 34.0, -5.0)] == [
        "suppressed", "suppressed", "suppressed", "firing", "firing"]
    assert judged(30.0, signal="app_latency") == judged(30.0, entity="service//shop") == "firing"
    assert (judged(30.0, later=ACCEPT_S), judged(30.0, later=ACCEPT_S + 3)) == ("suppressed", "firing")
    assert judged(30.0, verb="useful") == "firing"
    assert judged(float("nan")) == "firing"


def test_useful_takes_a_false_alarm_back():
    """The last word counts."""
    accepted = Accepted()
    accepted.watch([incident(alert(DB, value=30.0, expected=1.0))])
    for verb, expected in (("false_alarm", "ann called i a false alarm, and this is no worse"), ("useful", "")):
        accepted.judge(said(T0, verb, "i"))
        assert accepted.reason(alert(DB, value=30.0, expected=1.0), T0) == expected


def test_what_has_no_level_cannot_be_accepted():
    """Silence that was no fault once may be one the next time."""
    accepted = Accepted()
    accepted.watch([incident(alert("service//db absent"))])
    accepted.judge(said(T0, "false_alarm", "i"))
    assert accepted.reason(alert("service//db absent"), T0) == ""


@pytest.mark.parametrize("value", [1.7e308, -1.7e308, float("inf"), 5e-324, 0.0])
def test_absurd_values_break_nothing(value):
    """And what is kept can be written as JSON."""
    accepted = Accepted()
    accepted.watch([incident(alert(DB, value=value, expected=1.0))])
    accepted.judge(said(T0, "false_alarm", "i"))
    assert accepted.reason(alert(DB, value=2.0, expected=1.0), T0) == ""
    json.dumps(accepted.state(), allow_nan=False)


def test_what_is_remembered_is_bounded():
    """Incidents and levels, the oldest go first."""
    accepted = Accepted()
    for k in range(3 * MAX_INCIDENTS):
        many = [alert(f"service//db m{j}", value=3.0, expected=1.0) for j in range(10)]
        accepted.watch([incident(*many, name=f"i{k}")])
        accepted.judge(said(T0, "false_alarm", f"i{k}"))
    state = accepted.state()
    assert len(state["said"]) == MAX_LEVELS and len(state["about"]) <= MAX_INCIDENTS + 1


def test_what_people_said_survives_a_restart():
    """As plain JSON: windows, levels, and what incidents were about."""
    one = Step(Masks([window("pod//p1", name="config-0", by=CONFIGURED)]))
    one(T0, open=[incident(alert(DB, value=30.0, expected=1.0)), incident(alert(SHOP, value=9.0, expected=1.0), name="j")])
    one(T0 + 1, commands=[said(T0, "maintenance_start", "m", entities=("service//shop",), until=T0 + HOUR),
                          said(T0, "false_alarm", "i")])
    two = Step(Masks([window("pod//p1", name="config-0", by=CONFIGURED)]))
    two.masks.restore(json.loads(json.dumps(one.masks.state())))
    assert [w.id for w in two.masks.calendar.windows] == ["config-0", "m"]
    assert two(T0 + 2, commands=[said(T0, "false_alarm", "j")]) == [SHOP, "pod//p1 x"]
    out = two.masks.suppress(T0 + 2, [alert(DB, value=30.0, expected=1.0)])
    assert out[0].state == "suppressed" and two.masks.state()["accepted"]["said"][1]["incident"] == "j"


# ------------------------------------------------------------------------------------------------------- end to end
def run(ticks, fault, *, masks=None, commands=None, events=None, topology=None, policies=(), step_s=STEP_S):
    """A pipeline over a database whose errors rise from 1 to 30 in some ticks; its reports and its incidents by id."""
    known = meaning.shipped()
    p = build.pipeline(known, policies, "act", ("baseline", "absence", "logs"), masks=masks)
    feed, reports, incidents = Feed(), [], {}
    for k in range(ticks):
        row = {DB: 1 + 0.01 * (k % 7) + 29 * fault(k), SHOP: 1 + 0.01 * (k % 5)}
        reports.append(p.step(feed.batch(T0 + k * step_s, row, commands=(commands or (lambda k, i: ()))(k, incidents),
                                         events=(events or {}).get(k, ()), links=topology if k == 0 else None)))
        incidents.update((i.id, i) for i in reports[-1].incidents)
    return p, reports, incidents


def opened(incidents):
    return sorted(int((i.opened_at - T0) / STEP_S) for i in incidents.values())


def test_under_maintenance_there_is_no_incident_and_afterwards_there_is():
    """What is still wrong when the window ends is told then; the onset is the true one."""
    masks = Masks([window("service//db", since=T0 + 1000, until=T0 + 2000)])
    _, reports, incidents = run(300, lambda k: k >= 120, masks=masks)
    assert opened(incidents) == [200]
    [i] = incidents.values()
    assert i.alerts[0].since == T0 + 1200
    during = [a for r in reports[130:200] for a in r.alerts]
    assert {a.state for a in during} == {"suppressed"} and "maintenance mnt-1" in during[0].text
    assert [n for r in reports for n in r.notes] == ["service//db: app_errors is suppressed: " + during[0].text]
    assert (reports[199].counts.alerts, reports[199].counts.suppressed, reports[-1].counts.alerts) == (0, 1, 1)


def test_what_ends_with_its_maintenance_was_never_an_incident():
    """And it is not learned: the same an hour later is found."""
    masks = Masks([window("service//db", since=T0 + 1000, until=T0 + 2000)])
    _, _, incidents = run(400, lambda k: 120 <= k < 180 or k >= 300, masks=masks)
    assert [301 <= k <= 303 for k in opened(incidents)] == [True]


def test_an_incident_that_comes_under_maintenance_closes_and_says_why():
    """People took over."""
    masks = Masks([window("service//db", since=T0 + 1500, until=T0 + 9000, reason="new disks")])
    _, _, incidents = run(200, lambda k: k >= 120, masks=masks)
    [i] = incidents.values()
    assert i.state == "closed" and T0 + 1500 < i.closed_at < T0 + 1600
    assert any("is suppressed: maintenance mnt-1 until" in t.text and t.text.endswith("new disks") for t in i.timeline)


def test_alerts_of_others_are_suppressed_too():
    """Alertmanager does not know of the window."""
    p = pipeline()
    p.masks.calendar.windows = (window("service//db"),)
    report = p.step(Batch(T0, alerts=(RawAlert(0, T0, "service//db", "Slow"), RawAlert(1, T0, "service//shop", "Slow"))))
    assert [(a.entity, a.state) for a in report.alerts] == [("service//db", "suppressed"), ("service//shop", "firing")]
    assert [index for index, _ in report.assigned] == [1]


@pytest.mark.slow
def test_a_false_alarm_closes_the_incident_and_does_not_come_back():
    """The same level again is suppressed; one that is worse is told."""
    def commands(k, incidents):
        return [said(T0 + k, "false_alarm", i) for i in incidents] if k == 1160 else ()

    def size(k):
        return (1120 <= k < 1200) + 1.0 * (1300 <= k < 1310) + 4.0 * (k >= 1380)

    p, reports, incidents = run(1400, size, commands=commands)
    assert [1121 <= k <= 1123 for k in opened(incidents)[:1]] == [True] and 1381 <= opened(incidents)[1] <= 1383
    first = min(incidents.values(), key=lambda i: i.opened_at)
    assert first.closed_at is not None and T0 + 11600 < first.closed_at < T0 + 11700
    assert p.masks.suppressed >= 1 and reports[1305].counts.incidents == 1


def test_a_false_alarm_the_morning_after_counts_too():
    """The incident has left the book by then."""
    def commands(k, incidents):
        return [said(T0 + k, "false_alarm", i) for i in incidents] if k == 700 else ()

    _, _, incidents = run(900, lambda k: 120 <= k < 160 or k >= 800, commands=commands)
    assert len(incidents) == 1


@pytest.mark.slow
def test_a_lasting_fault_is_found_again():
    """After six hours of errors, the next errors are as odd as the first."""
    _, _, incidents = run(60 * 20, lambda k: 300 <= k < 660 or k >= 1000, step_s=60.0)
    assert [int(k / 6) for k in opened(incidents)] in ([301, 1001], [302, 1002]), opened(incidents)


def test_history_of_a_window_in_the_past_is_not_learned():
    """Data that are known to be wrong are named in the configuration, and the next backfill leaves them out."""
    def expected(masks):
        p, _, _ = run(200, lambda k: 100 <= k < 190, masks=masks)
        return p._banded.band[0][0]
    assert expected(Masks([window("service//db", since=T0 + 1000, until=T0 + 1900)])) == pytest.approx(1.0, abs=0.5)
    assert expected(None) == pytest.approx(1.0, abs=0.5), "an incident protects as well"


def test_where_people_work_no_policy_acts():
    """Somebody else's incident that hangs on what is under maintenance is told, and not acted on."""
    from test_live import policies

    topology = links("service//db calls service//shop")
    for masks, decision in ((None, "act"), (Masks([window("service//shop", until=T0 + 9e5, reason="disks")]), "refused")):
        _, reports, _ = run(200, lambda k: k >= 120, masks=masks, topology=topology, policies=policies("act"))
        [action] = [a for r in reports for a in r.actions][:1]
        assert action.decision == decision
        assert ("disks" in action.reason) == (decision == "refused")


def test_equal_input_gives_equal_masks():
    """Whatever order sets come in: the reports are the same to the last byte."""
    def whole():
        masks = Masks([window("service//*", since=T0 + 1000, until=T0 + 1500)])
        topology = links(*[f"service//db owns pod//p{k}" for k in range(20)])
        return repr(run(200, lambda k: k >= 120, masks=masks, topology=topology,
                        events={130: (Event(T0 + 1300, "service//db", "change", "Deployed"),)})[1])
    assert whole() == whole()


def test_learning_is_masked_for_thousands_at_once():
    """One window over ten thousand entities: every column, none besides."""
    of = signals(*[f"pod/{'shop' if k % 2 else 'pay'}/p{k} x" for k in range(10_000)])
    masks = Masks([replace(window("*"), namespace="shop")])
    may = masks.learn(Batch(T0), of, Graph())
    assert np.array_equal(may, np.arange(10_000) % 2 == 0)
