"""The one pure step: from a batch to a report, and what is remembered of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers import STEP_S, T0, Feed, alert, links, pipeline, tiny_rows

from aiops.incidents import FORGET_S, MAX_TIMELINE, IncidentBook
from aiops.types import Action, Batch, Cause, Command, Event, Incident, Links, LogLine, Node, Outcome, RawAlert

DB, SHOP = "service//db app_errors", "service//shop app_latency"


def batches(ticks=60, **more):
    """The tiny recording's metrics as batches; in ticks 42 to 51 the database fails."""
    feed, rows = Feed(), tiny_rows(ticks, **more)
    for k in range(ticks):
        samples = {f"{entity} {metric}": v for t, entity, metric, v in rows if t == T0 + k * STEP_S}
        yield feed.batch(T0 + k * STEP_S, samples, links=links("service//shop calls service//db") if k == 0 else None)


def reports(of=None, p=None):
    p = p or pipeline()
    return [p.step(b) for b in (of or batches())]


@pytest.mark.parametrize("at", [T0, T0 - 1, float("nan"), float("-inf")])
def test_time_must_rise(at):
    """The same moment twice, the past, and no time at all are refused, and nothing has changed."""
    p = pipeline()
    p.step(Batch(T0))
    with pytest.raises(ValueError, match="event time must rise"):
        p.step(Batch(at))
    assert p.step(Batch(T0 + 1)).counts.batches == 2


def test_an_empty_batch_is_a_step_too():
    """Nothing in, nothing found."""
    report = pipeline().step(Batch(T0))
    assert (report.anomalies, report.alerts, report.incidents, report.points) == ((), (), (), ())
    assert (report.counts.batches, report.counts.samples, report.counts.series) == (1, 0, 0)


def test_a_report_counts_everything_so_far():
    """The funnel, what came in, and what was left out by reason."""
    found = reports()
    last = found[-1].counts
    assert (last.batches, last.samples, last.series, last.signals, last.ready) == (60, 120, 2, 2, 2)
    assert last.raw_anomalies == sum(len(r.anomalies) for r in found) > 10
    assert (last.alerts, last.incidents, last.prioritised, last.actionable) == (2, 1, 0, 0)
    p = pipeline()
    report = p.step(Batch(T0, np.array([9], np.int32), np.ones(1), np.ones(1), lines=(LogLine(T0, "a//b", "x"),),
                          alerts=(RawAlert(0, T0, "a//b", "Slow"),)))
    assert dict(report.counts.dropped) == {"unknown_series": 1}
    assert (report.counts.log_lines, report.counts.raw_anomalies, report.counts.alerts) == (1, 1, 1)


def test_a_fault_becomes_one_incident_with_its_cause():
    """Two services suffer; the one that is called is named; it closes when all is well."""
    found = reports(batches(75))
    opened = [i for r in found for i in r.incidents]
    assert len({i.id for i in opened}) == 1
    assert opened[-1].causes[0].entity == "service//db"
    assert set(opened[-1].entities) == {"service//db", "service//shop"}
    assert (opened[0].state, opened[-1].state) == ("open", "closed")
    assert T0 + 420 < opened[0].opened_at < T0 + 460


def test_only_what_changed_is_reported():
    """An incident that goes on as it was is not told again in each step."""
    found = reports()
    assert sum(bool(r.incidents) for r in found) < 8
    assert all(i.updated_at == r.at for r in found for i in r.incidents)


def test_points_draw_what_is_under_alert():
    """Once what led up to it, then each tick, each point once."""
    found = reports()
    points = [(p.entity, p.at) for r in found for p in r.points]
    assert len(points) == len(set(points))
    db = sorted(at for entity, at in points if entity == "service//db")
    assert (db[0], db[-1]) == (T0, T0 + 590)
    assert np.all(np.diff(db) == STEP_S)


def test_points_are_whole_after_a_second_incident():
    """When trouble comes back, what led up to it is drawn again with it."""
    feed, p, drawn = Feed(), pipeline(), []
    for k in range(160):
        bad = 42 <= k < 52 or 120 <= k < 140
        report = p.step(feed.batch(T0 + k * STEP_S, {DB: 1 + 30 * bad + 0.01 * (k % 3)}))
        drawn += [x.at for x in report.points]
    assert T0 + 1150 in drawn and T0 + 1250 in drawn


@pytest.mark.slow
def test_a_long_incident_is_still_a_fault_when_it_ends():
    """After an hour of errors the next errors are as odd as the first."""
    feed, p, incidents = Feed(), pipeline(), {}
    for k in range(700):
        bad = 100 <= k < 460 or 600 <= k < 620
        report = p.step(feed.batch(T0 + k * STEP_S, {DB: 1 + 0.01 * (k % 7) + 30 * bad}))
        incidents.update((i.id, i) for i in report.incidents)
    assert sorted(int(i.opened_at - T0) // 100 for i in incidents.values()) == [10, 60]


def test_equal_input_gives_an_equal_digest():
    """And another input another one."""
    runs = [pipeline() for _ in range(3)]
    for p, fault in zip(runs, [(42, 52), (42, 52), (43, 52)], strict=True):
        reports(batches(fault=fault), p)
    one, two, other = (p.book.digest() for p in runs)
    assert one == two != other


def test_equal_input_gives_equal_reports():
    """Word for word."""
    assert repr(reports()) == repr(reports())


def test_alerts_of_others_are_told_where_they_went():
    """By their index."""
    p = pipeline()
    report = p.step(Batch(T0, alerts=(RawAlert(5, T0, "a//b", "Slow"), RawAlert(6, T0, "a//b", "Slow"))))
    [incident] = report.incidents
    assert report.assigned == ((5, incident.id), (6, incident.id))


def test_a_change_of_topology_counts_from_its_step_on():
    """And the old one until then."""
    p = pipeline()
    p.step(Batch(T0, links=links("a//1 calls a//2")))
    p.step(Batch(T0 + 1))
    assert "a//1" in p.graph and p.graph is p.evidence.graph
    p.step(Batch(T0 + 2, links=links("a//3 calls a//4")))
    assert "a//1" not in p.graph and "a//3" in p.evidence.graph


def test_a_settled_new_level_is_a_note():
    """In words that name the entity; never an incident."""
    p, feed = pipeline(detectors=("drift",)), Feed()
    x = np.random.default_rng(0).normal(10, 0.2, 336) + 30 * (np.arange(336) >= 240)
    found = [p.step(feed.batch(T0 + k * 3600.0, {DB: float(v)})) for k, v in enumerate(x)]
    assert [n for r in found for n in r.notes] == [
        "service//db: app_errors has a new normal: 9.99 -> 40 since 2001-09-19 00:00 UTC"]
    assert found[-1].counts.incidents == 0


# ------------------------------------------------------------------------------------------------------------- book
def incident(name="i", **more):
    return replace(Incident(name, T0, T0, "open", "warning", ("a//b",), (alert("a//b x"),)), **more)


ACTION = Action("a-1", "Restart", "pod/x/y", {}, "i", "p", "act", "because", T0)


def test_the_book_joins_what_was_decided_and_what_became_of_it():
    """Action, outcome and feedback, each with its line in the story; a newer decision replaces the older."""
    book = IncidentBook()
    book.update(T0, [incident()])
    book.record(T0, [replace(ACTION, decision="ask"), ACTION], [], [])
    [i] = book.record(T0 + 9, [], [Outcome("a-1", "helped", T0 + 9, "well")], [Command(T0 + 9, "false_alarm", "i", "ann")])
    assert (i.actions, [o.status for o in i.outcomes]) == ((ACTION,), ["helped"])
    assert [t.kind for t in i.timeline][-4:] == ["ask", "act", "helped", "feedback"]
    [still] = book.update(T0 + 10, [incident(updated_at=T0 + 10)])
    assert (still.actions, still.outcomes, still.timeline) == (i.actions, i.outcomes, i.timeline)


def test_the_book_ignores_what_belongs_to_no_incident():
    """Outcomes of unknown actions, actions and feedback on unknown incidents."""
    book = IncidentBook()
    assert book.record(T0, [ACTION], [Outcome("zzz", "done", T0)], [Command(T0, "useful", "zzz")]) == ()
    assert book.current() == []


def test_refusals_are_not_actionable():
    """Only an answer that some policy had counts."""
    book = IncidentBook()
    book.update(T0, [incident()])
    book.record(T0, [replace(ACTION, decision="refused")], [], [])
    assert book.actionable == 0
    book.record(T0, [replace(ACTION, decision="shadow")], [], [])
    assert book.actionable == 1


def test_the_timeline_is_bounded_and_keeps_its_beginning():
    """An incident that flaps for days."""
    book = IncidentBook()
    for k in range(1000):
        state = ("resolved", "firing")[k % 2]
        book.update(T0 + k, [incident(alerts=(alert("a//b x", state=state),))])
    [i] = book.current()
    assert len(i.timeline) == MAX_TIMELINE
    assert (i.timeline[0].kind, i.timeline[0].at, i.timeline[-1].at) == ("opened", T0, T0 + 999)


def test_the_book_forgets_closed_incidents_after_an_hour():
    """Their part of the digest stays, late outcomes find them until then."""
    book = IncidentBook()
    for k in range(50):
        book.update(T0 + k * FORGET_S, [incident(f"i{k}", state="closed", closed_at=T0 + k * FORGET_S)])
        book.record(T0, [replace(ACTION, id=f"a{k}", incident=f"i{k}")], [], [])
        assert len(book.current()) <= 2 and len(book._action_of) <= 2
    assert book.opened == 50
    fresh = IncidentBook()
    fresh.update(T0, book.current())
    assert book.digest() != fresh.digest()


def test_the_causes_stay_what_they_were_after_closing():
    """With no alert firing any more, the arithmetic would name somebody else."""
    book, causes = IncidentBook(), (Cause("a//b", 1.0, ("x",), ()),)
    book.update(T0, [incident(causes=causes)])
    [closed] = book.update(T0 + 1, [incident(state="closed", closed_at=T0 + 1, causes=())])
    assert closed.causes == causes


def test_the_digest_does_not_see_when_it_was_looked_at():
    """`updated_at` moves on with every batch; the verdict does not."""
    digests = []
    for at in (T0, T0 + 5):
        book = IncidentBook()
        book.update(T0, [incident(updated_at=at)])
        digests.append(book.digest())
    assert digests[0] == digests[1]


def test_the_digest_sees_six_digits():
    """Less is another machine's last bit; more is another verdict."""
    def digest(value):
        book = IncidentBook()
        book.update(T0, [incident(alerts=(alert("a//b x", value=value),))])
        return book.digest()
    assert digest(1.0) == digest(1.0000001) != digest(1.00001)


def test_what_the_decider_notes_is_in_the_report():
    """An approval that came too late is answered, not swallowed."""
    report = pipeline().step(Batch(T0, commands=(Command(T0, "approve", "a-gone"),)))
    assert report.notes == ("approve a-gone: nothing is asked there, no such action.",)


def test_an_xid_in_the_kernels_log_is_an_event_of_the_gpu_it_names() -> None:
    """By its PCI address, where the topology knows it; once, if the driver tells of it too."""
    p = pipeline()
    gpu = Node("gpu/n1/3", labels={"pci": "0000:3b:00.0"})
    text = "NVRM: Xid (PCI:0000:3b:00): 79, pid=1, name=train, GPU has fallen off the bus."
    lines = (LogLine(T0, "node//n1", text), LogLine(T0, "node//n1", text))
    heard: list[tuple[str, str]] = []
    observe = p.xids.observe
    p.xids.observe = lambda batch: heard.extend((e.entity, e.reason) for e in batch.events) or observe(batch)  # type: ignore[method-assign]
    p.step(Batch(T0, lines=lines, links=Links((gpu,))))
    p.step(Batch(T0 + 10, lines=lines[:1], events=(Event(T0, "gpu/n1/3", "warning", "XID 79"),)))
    assert heard == [("gpu/n1/3", "XID 79")] * 2
