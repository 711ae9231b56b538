"""What the page is told of a running pipeline, and what becomes of what people say on it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from helpers import STEP_S, T0, Feed, alert, links, pipeline, tiny_rows

from aiops.cluster.brake import Brake
from aiops.commands.story import story
from aiops.desk import POINTS, SHOWN, Desk, Vitals
from aiops.interfaces import Retry
from aiops.maintenance import CONFIGURED, Maintenance
from aiops.sinks.metrics import Metrics
from aiops.store.sqlite import Store
from aiops.types import Action, Batch, Command, Counts, Incident, Report
from aiops.web import pages
from aiops.web.view import NotPossible
from aiops.windows import parse_weekly

ASKED = Action("a-1", "Restart", "deployment/shop/api", {}, "i-1", "p", "ask", "because", T0, "asked")
INCIDENT = Incident("i-1", T0, T0, "open", "warning", ("service//db",), (alert("service//db x"),), actions=(ASKED,))
OK, FAILING = ({"name": n, "state": s, "error": "", "last_success": None, "failures": 0}
               for n, s in (("a", "ok"), ("b", "failing")))


class Page:
    """A desk over a real store; `said` is what was handed on to the pipeline."""

    def __init__(self, folder, sources=(OK,)):
        self.pipeline, self.now, self.said = pipeline(), T0, []
        self.store, self.vitals, self.metrics = Store(folder / "x.sqlite"), Vitals(self.pipeline), Metrics("1")
        self.desk = Desk(self.store, self.vitals, self.metrics, "ask", T0, lambda: self.now, lambda: sources,
                         self.said.append, lambda: "secret", notes=("stands always",))

    def publish(self, report):
        for sink in (self.store, self.vitals, self.metrics):
            sink.publish(report)

    def step(self, batch):
        self.now = batch.at
        report = self.pipeline.step(batch)
        self.publish(report)
        return report


@pytest.fixture
def page(tmp_path):
    made = Page(tmp_path)
    yield made
    made.store.close()


def run(page, ticks=60):
    feed, rows = Feed(), tiny_rows(ticks)
    for k in range(ticks):
        samples = {f"{e} {m}": v for t, e, m, v in rows if t == T0 + k * STEP_S}
        page.step(feed.batch(T0 + k * STEP_S, samples, links=links("service//shop calls service//db") if k == 0 else None))


def test_before_the_first_step_it_is_not_ready(page):
    """And says why."""
    ready, checks = page.desk.ready()
    assert not ready
    assert [(c.name, c.ok, bool(c.text)) for c in checks] == [("pipeline", False, True), ("sources", True, False)]
    assert (page.desk.status()["at"], page.desk.status()["counts"], page.desk.vitals()) == (None, {}, [])


def test_it_is_ready_while_steps_are_taken_and_a_source_delivers(tmp_path):
    """Not when nothing was stepped for five minutes, nor when every source fails."""
    for sources, expected in (((OK, FAILING), True), ((FAILING,), False), ((), True)):
        folder = tmp_path / str(len(sources)) / str(expected)
        folder.mkdir(parents=True)
        page = Page(folder, sources)
        page.step(Batch(T0))
        assert page.desk.ready()[0] is expected
        page.now = T0 + 301
        assert page.desk.ready()[0] is False
        page.store.close()


def test_the_status_is_the_documented_one(page):
    """Version, mode, times, the funnel, sources and notes."""
    run(page)
    status = page.desk.status()
    assert set(status) == {"version", "mode", "started_at", "at", "counts", "sources", "notes", "stops", "simulation"}
    assert (status["mode"], status["at"], status["sources"]) == ("ask", T0 + 590, [OK])
    assert set(status["counts"]) == set(Counts.__dataclass_fields__)
    assert status["counts"]["incidents"] == 1 and status["counts"]["dropped"] == {}


def test_only_the_newest_notes_are_kept_and_some_stand_always(page):
    """Twenty of them."""
    for k in range(50):
        page.vitals.publish(Report(T0 + k, notes=(f"n{k}",)))
    assert page.desk.status()["notes"] == ["stands always", *(f"n{k}" for k in range(30, 50))]


def test_incidents_come_from_the_store_with_their_points(page):
    """As they are at the end of the run."""
    run(page, 75)
    [form] = page.desk.incidents()
    whole = page.desk.incident(form["id"])
    assert (form["state"], form["causes"][0]["entity"]) == ("closed", "service//db")
    assert {p["entity"] for p in whole["points"]} == {"service//db", "service//shop"}
    assert page.desk.incident("i-none") is None
    assert page.desk.incidents("open") == []


def test_each_step_is_a_new_revision(page):
    """The page knows when to look again."""
    before = page.desk.revision()
    page.step(Batch(T0))
    assert page.desk.revision() > before


# ----------------------------------------------------------------------------------------------------------- plots
def test_plots_show_values_and_the_band(page):
    """The last samples, and whether the signal can be judged yet."""
    run(page, 20)
    assert {p["ready"] for p in page.desk.vitals()} == {False}
    run_on = Feed()
    page.pipeline = pipeline()
    page.vitals._pipeline = page.pipeline
    for k in range(200):
        page.step(run_on.batch(T0 + 1000 + k, {"service//db x": 1.0 + 0.01 * (k % 5)}))
    [plot] = page.desk.vitals()
    assert (plot["entity"], plot["signal"], plot["ready"], len(plot["points"])) == ("service//db", "x", True, POINTS)
    assert plot["lower"] < plot["expected"] < plot["upper"]
    assert plot["points"][-1] == [T0 + 1199, pytest.approx(1.04)]


def test_signals_under_alert_are_shown_first(page):
    """Also the thousandth of them."""
    feed = Feed()
    calm = {f"service//s{k} m": 1.0 for k in range(1000)}
    for k in range(50):
        report = page.step(feed.batch(T0 + STEP_S * k, calm | {"service//s999 m": 50.0 if k > 45 else 1.0}))
    assert [a.entity for a in report.alerts] == ["service//s999"]
    plots = page.desk.vitals()
    assert (plots[0]["entity"], len(plots)) == ("service//s999", SHOWN)
    assert len({p["entity"] for p in plots}) == SHOWN


def test_what_fell_silent_is_not_drawn(page):
    """Nobody wants the curve of a pod that is gone."""
    feed = Feed()
    page.step(feed.batch(T0, {"service//gone m": 1.0, "service//here m": 1.0}))
    for k in range(1, 100):
        page.step(feed.batch(T0 + STEP_S * k, {"service//here m": 1.0}))
    assert [p["entity"] for p in page.desk.vitals()] == ["service//here"]


def test_the_metrics_of_the_daemon_tell_how_its_sources_are(tmp_path):
    """One line a source."""
    page = Page(tmp_path, (OK, FAILING))
    page.step(Batch(T0))
    lines = [x for x in page.desk.metrics_text().splitlines() if "source" in x and not x.startswith("#")]
    assert sorted(x.rsplit(" ", 1)[1] for x in lines if '"a"' in x or '"b"' in x) == ["0.0", "1.0"]
    page.store.close()


def test_what_sources_could_not_use_is_a_metric_by_source_and_reason(tmp_path):
    """A total each, taken over at every scrape and never added up twice."""
    page = Page(tmp_path, ({**OK, "rejected": {"too_long": 2, "bad_json": 1}}, FAILING))
    for _ in range(2):
        text = page.desk.metrics_text()
    assert 'aiops_source_rejected_total{reason="too_long",source="a"} 2.0' in text
    assert text.count('aiops_source_rejected_total{') == 2
    page.store.close()


# ------------------------------------------------------------------------------------------------------- answers
@pytest.mark.parametrize("verb", ["approve", "reject"])
def test_an_answer_becomes_a_command_for_the_next_batch(page, verb):
    """With who gave it, and when."""
    page.publish(Report(T0, incidents=(INCIDENT,), actions=(ASKED,)))
    page.now = T0 + 5
    getattr(page.desk, verb)("a-1", "ann")
    [command] = page.said
    assert (command.verb, command.target, command.by, command.time) == (verb, "a-1", "ann", T0 + 5)


def test_what_does_not_wait_cannot_be_answered(page):
    """It was decided already; the reason says what it is."""
    for decision in ("act", "shadow", "refused"):
        action = replace(ASKED, decision=decision, state=decision)
        page.publish(Report(T0, incidents=(replace(INCIDENT, actions=(action,)),), actions=(action,)))
        with pytest.raises(NotPossible, match=f"is not waiting for an answer: {decision}"):
            page.desk.approve("a-1", "ann")
    assert page.said == []


def test_what_nobody_knows_cannot_be_answered(page):
    """Nor the actions of an incident that is closed."""
    with pytest.raises(LookupError):
        page.desk.approve("a-1", "ann")
    page.publish(Report(T0, incidents=(replace(INCIDENT, state="closed", closed_at=T0),), actions=(ASKED,)))
    with pytest.raises(LookupError):
        page.desk.reject("a-1", "ann")


def test_feedback_is_stored_and_handed_on(page):
    """So that it is in the journal too."""
    page.publish(Report(T0, incidents=(INCIDENT,)))
    page.desk.feedback("i-1", "false_alarm", "ann")
    assert [(c.verb, c.target, c.by) for c in page.said] == [("false_alarm", "i-1", "ann")]
    assert page.desk.incident("i-1")["feedback"]
    with pytest.raises(LookupError):
        page.desk.feedback("i-2", "useful", "ann")


# ------------------------------------------------------------------------------------------ readiness and maintenance
def test_readiness_is_that_of_the_running_pipeline(page):
    """Paged, counted, and told to Prometheus by state."""
    run(page, 20)
    found = page.desk.readiness("db", "warming_up", 10)
    assert (found["total"], found["counts"]["warming_up"], found["signals"][0]["samples"]) == (1, 2, 20)
    assert 'aiops_signals_readiness{state="warming_up"} 2.0' in page.desk.metrics_text()


def test_a_window_enters_with_the_next_batch(page):
    """By the front door: the command is handed on, and in force with the step that brings it."""
    run(page, 20)
    window = page.desk.start_maintenance(["service//d*"], 3600.0, None, "disks", "ann")
    assert (window["matches"], window["until"] - window["from"], page.desk.maintenance()) == (1, 3600.0, [])
    [command] = page.said
    page.step(Batch(T0 + 300, commands=(command,)))
    [listed] = page.desk.maintenance()
    assert (listed["id"], listed["state"], listed["reason"], listed["by"]) == (window["id"], "active", "disks", "ann")
    assert page.desk.readiness("service//db")["counts"]["masked"] == 1
    page.desk.end_maintenance(window["id"], "bob")
    page.step(Batch(T0 + 310, commands=(page.said[-1],)))
    assert page.desk.maintenance()[0]["state"] == "over"
    with pytest.raises(NotPossible, match="is over"):
        page.desk.end_maintenance(window["id"], "bob")


def test_windows_that_cannot_be_started_or_ended(page):
    """One that is over, one that nobody knows, one of the configuration."""
    page.step(Batch(T0))
    with pytest.raises(NotPossible, match="is over already"):
        page.desk.start_maintenance(["a//b"], 60.0, T0 - 3600, "", "ann")
    with pytest.raises(LookupError):
        page.desk.end_maintenance("mnt-0", "ann")
    page.pipeline.masks.calendar.windows = (
        Maintenance("config-0", ("a//b",), parse_weekly("Sun 01:00-02:00", "Europe/Berlin"), by=CONFIGURED),)
    with pytest.raises(NotPossible, match="stands in the configuration"):
        page.desk.end_maintenance("config-0", "ann")
    [listed] = page.desk.maintenance()
    assert (listed["weekly"], listed["timezone"], listed["state"]) == ("Sun 01:00-02:00", "Europe/Berlin", "planned")
    assert page.said == []


def test_equal_windows_started_at_once_have_one_name(page):
    """And the second is answered, not doubled."""
    one, two = (page.desk.start_maintenance(["a//b"], 60.0, None, "", "ann") for _ in range(2))
    assert one == two
    report = page.step(Batch(T0, commands=tuple(page.said)))
    assert len(page.desk.maintenance()) == 1 and "not started: it is known already" in report.notes[0]


def test_a_stop_is_told_at_once_and_approvals_wait_for_the_start(page):
    """The pipeline hears of it, and people are told what to do first."""
    page.publish(Report(T0, incidents=(INCIDENT,), actions=(ASKED,)))
    page.desk.stop("anna", "storm", False)
    assert [(c.verb, c.by, c.reason) for c in page.said] == [("stop", "anna", "storm")]
    assert [s["by"] for s in page.desk.status()["stops"]] == ["anna"]
    with pytest.raises(NotPossible, match=r"stopped by anna at .*: storm\. Start everything first: aiops start"):
        page.desk.approve("a-1", "ben")
    page.desk.reject("a-1", "ben")
    page.desk.start("ben", "")
    assert page.desk.status()["stops"] == []
    with pytest.raises(NotPossible, match="nothing is stopped"):
        page.desk.start("ben", "")
    assert [c.verb for c in page.said] == ["stop", "reject", "start"]


def test_a_stop_is_told_to_the_other_replicas_or_said_that_it_was_not(page):
    """What cannot be told holds here; what cannot be taken back stays; what was put there by hand is not ours."""
    wrote, place = [], "configmap aiops/stop"
    desk = Desk(page.store, page.vitals, page.metrics, "act", T0, lambda: T0, tuple, page.said.append, brake=Brake(),
                for_all=(place, lambda c: wrote.append(c.verb)))
    desk.stop("anna", "storm", True)
    [stop] = desk.status()["stops"]
    assert wrote == ["freeze"] and (stop["source"], stop["by"], stop["freeze"]) == (place, "anna", True)

    def broken(command):
        raise Retry("no answer")

    desk._tell = broken
    with pytest.raises(NotPossible, match="not started, the other replicas could not be told: no answer"):
        desk.start("ben", "")
    assert desk.status()["stops"]
    with pytest.raises(NotPossible, match="stopped here, but other replicas were not told: no answer"):
        desk.stop("anna", "again", False)
    assert [s["source"] for s in desk.status()["stops"]] == ["", place]
    desk._tell = lambda c: wrote.append(c.verb)
    desk.start("ben", "")
    assert desk.status()["stops"] == [] and wrote == ["freeze", "start"]
    desk._brake.obey(Command(T0, "stop", place, place))
    with pytest.raises(NotPossible, match="Take it back there"):
        desk.start("ben", "")


def test_an_incident_says_why_nothing_was_done(page):
    """One state for each of its signals; /metrics counts them, and the command line shows them."""
    run(page, ticks=50)
    [open_one] = page.pipeline.book.open()
    why = page.desk.incident(open_one.id)["why"]
    assert [(w["entity"], w["state"], w["by"]) for w in why] == [
        ("service//db", "no_policy", ""), ("service//shop", "inhibited", "service//db")]
    text = page.desk.metrics_text()
    assert 'aiops_alert_end_states_total{state="no_policy"} 1.0' in text
    tables = [t for t in story(page.desk.incident(open_one.id)) if hasattr(t, "columns")]
    [shown] = [list(t.columns[3].cells) for t in tables if [c.header for c in t.columns][3:4] == ["STATE"]]
    assert shown == ["no policy", "inhibited"]
    html = pages.incident(page.desk, page.desk.incident(open_one.id))
    assert "or why nothing was" in html and "taken for a consequence of what is wrong with service//db" in html


def test_an_incident_of_an_earlier_run_has_no_states(page):
    """They are not known any more, which is said by none."""
    page.publish(Report(T0, incidents=(INCIDENT,)))
    assert page.desk.incident("i-1")["why"] == [] and page.desk.incident("nobody") is None


def test_the_published_schema_knows_all_that_a_source_says():
    """What a supervised source tells of itself is what OpenAPI promises, no key more and none less."""
    from aiops.clock import ManualClock
    from aiops.sources.own import OwnSource
    from aiops.sources.supervisor import Supervised
    from aiops.web.forms import SourceHealth

    told = Supervised(OwnSource(dict, interval_s=5.0), ManualClock(T0)).status()
    assert set(told) == set(SourceHealth.model_fields)
    SourceHealth.model_validate(told)
