"""The HTTP interface as browsers, scripts and attackers meet it: a real server on loopback."""

from __future__ import annotations

import http.client
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from test_sinks_samples import asked, incident

from aiops import serial
from aiops.generations import generations
from aiops.humanise import duration, quantity
from aiops.models import Model
from aiops.types import Counts, ModelEvent
from aiops.web import forms, plot
from aiops.web.app import create_app
from aiops.web.scale import time_ticks, value_range, value_ticks
from aiops.web.server import ListenError, Server, is_loopback

sys.path.insert(0, str(Path(__file__).with_name("browser")))
from web_demo import NOW, DemoView, busy, calm, fresh, source


class Client:
    """Speaks plain HTTP to a server, with whatever headers a test needs."""

    def __init__(self, server: Server, view: DemoView) -> None:
        self.server, self.view = server, view

    def __call__(self, path: str, method: str = "GET", body: Any = None, **headers: str) -> tuple[int, str, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=10)
        sent = {k.replace("_", "-"): v for k, v in headers.items()}
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, {**({"Content-Type": "application/json"} if data else {}), **sent})
        reply = connection.getresponse()
        text = reply.read().decode()
        connection.close()
        return reply.status, text, {k.lower(): v for k, v in reply.getheaders()}


@contextmanager
def serving(view: DemoView) -> Iterator[Client]:
    server = Server(create_app(view, poll_s=0.01), port=0)
    server.start()
    try:
        yield Client(server, view)
    finally:
        server.stop()


@pytest.fixture
def ask() -> Iterator[Client]:
    with serving(busy()) as client:
        yield client


@pytest.fixture
def guarded() -> Iterator[Client]:
    with serving(busy("s3cret")) as client:
        yield client


# --------------------------------------------------------------------------------------------------------- reading
def test_incidents_as_json(ask: Client) -> None:
    """Open before closed, filtered and limited; each in the common form."""
    status, text, headers = ask("/api/incidents")
    assert (status, headers["content-type"]) == (200, "application/json")
    assert [i["id"] for i in json.loads(text)["incidents"]] == ["inc-90c3", "inc-7f21", "inc-55aa"]
    closed = json.loads(ask("/api/incidents?state=closed&limit=5")[1])["incidents"]
    assert [i["id"] for i in closed] == ["inc-55aa"]
    assert json.loads(ask("/api/incidents?limit=1&offset=1")[1])["incidents"][0]["id"] == "inc-7f21"


def test_one_incident_with_points(ask: Client) -> None:
    """Points come with the incident; what is not known is 404 in JSON."""
    form = json.loads(ask("/api/incidents/inc-7f21")[1])
    assert {"at", "entity", "signal", "value", "expected", "lower", "upper"} == set(form["points"][0])
    status, text, _ = ask("/api/incidents/nobody")
    assert (status, json.loads(text)) == (404, {"error": "no incident 'nobody'"})


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "state=odd", "limit=99999", "offset=-1"])
def test_unusable_questions_are_refused_in_one_sentence(ask: Client, query: str) -> None:
    """422 with the name of the parameter."""
    status, text, _ = ask(f"/api/incidents?{query}")
    assert status == 422
    assert f"query.{query.split('=')[0]}" in json.loads(text)["error"]


def test_numbers_that_are_none_are_null(ask: Client) -> None:
    """A NaN that got into a form does not break the answer."""
    form = ask.view.incident("inc-7f21")
    assert form is not None
    form["alerts"][0]["p_value"] = float("nan")
    assert json.loads(ask("/api/incidents/inc-7f21")[1])["alerts"][0]["p_value"] is None


def test_the_published_schema_is_what_is_served() -> None:
    """aiops.serial and the models of the OpenAPI document name the same fields: neither can drift."""
    forms.Incident.model_validate(serial.incident(incident(actions=(asked(),))), strict=True)
    view = busy()
    for known in view.incidents():
        forms.IncidentWithPoints.model_validate(view.incident(known["id"]))
    forms.Status.model_validate(view.status())
    forms.Models.model_validate(view.models())
    forms.Models.model_validate({"models": [summed_up()], "events": [serial.model_event(EVENT)]}, strict=True)


EVENT = ModelEvent(NOW, "baseline", "shadow", "baseline-v2-3f9c", "is tried")


def summed_up() -> Any:
    """What the pipeline says of a detector with all there can be to say."""
    g = generations("isolation_forest", {"trees": 64})
    g.candidate, g.previous = Model("isolation_forest"), Model("isolation_forest").saved()
    g.trial.begin(NOW)
    g.since = g._at = NOW
    return g.summary()


def test_models_as_json_and_what_may_be_said_to_them(ask: Client) -> None:
    """Promote and roll back reach the view; what cannot be is 409, what is not known 404."""
    form = json.loads(ask("/api/models")[1])
    assert [m["serving"] for m in form["models"]] == ["baseline-v2-3f9c", "isolation_forest-v2-0c7e"]
    assert form["events"][0]["kind"] == "takeover"
    assert ask("/api/models/isolation_forest/promote", "POST")[0] == 202
    assert ask("/api/models/baseline/rollback", "POST")[0] == 202
    assert ask("/api/models/baseline/promote", "POST")[:2] == (409, '{"error":"baseline has no candidate"}')
    assert ask("/api/models/nobody/rollback", "POST")[:2] == (404, '{"error":"no detector \'nobody\'"}')
    assert ask.view.said == [("promote", "isolation_forest", "http"), ("rollback", "baseline", "http")]


def test_openapi_is_served_and_needs_no_foreign_script(ask: Client) -> None:
    """/openapi.json describes every route of the interface; the page that would load scripts from elsewhere is off."""
    paths = json.loads(ask("/openapi.json")[1])["paths"]
    told = {"/api/models", "/api/models/{name}/rollback"}
    told |= {"/api/incidents", "/api/incidents/{name}", "/api/status", "/api/actions/{name}/approve", "/events", "/metrics"}
    assert told <= set(paths)
    assert ask("/docs")[0] == 404


def test_probes_and_metrics(ask: Client) -> None:
    """livez answers always; readyz says which check failed; metrics are in Prometheus' text format."""
    assert ask("/livez")[:2] == (200, "ok\n")
    assert ask("/readyz")[:2] == (503, "[-]sources failed: failing: kubernetes\nreadyz check failed\n")
    assert ask("/metrics")[2]["content-type"].startswith("text/plain; version=0.0.4")
    with serving(calm()) as healthy:
        assert healthy("/readyz?verbose")[:2] == (200, "[+]store ok\n[+]sources ok\nreadyz check passed\n")


def test_events_tell_when_something_changed(ask: Client) -> None:
    """A listener hears the revision now, and again after a change."""
    connection = http.client.HTTPConnection("127.0.0.1", ask.server.port, timeout=10)
    connection.request("GET", "/events")
    reply = connection.getresponse()
    assert reply.getheader("content-type", "").startswith("text/event-stream")
    heard: list[bytes] = []

    def next_revision() -> bytes:
        while not (line := reply.readline()).startswith(b"data:"):
            assert line
        return line

    heard.append(next_revision())
    ask.view.changes = 7
    heard.append(next_revision())
    connection.close()
    assert heard == [b"data: 0\n", b"data: 7\n"]


def test_the_topology_is_paged_and_filtered(ask: Client) -> None:
    """By a part of the name of an end, and by time; unusable questions are refused."""
    page = json.loads(ask("/api/topology?entity=gpu-3&at=1795000000&limit=5")[1])
    assert (page["total"], page["at"], page["edges"][0]["from"]) == (1, 1795000000.0, "service/shop/web")
    assert json.loads(ask("/api/topology?entity=nobody")[1])["edges"] == []
    assert [ask(f"/api/topology?{q}")[0] for q in ("at=x", "at=nan", "at=-1", "limit=0", "limit=10001", "offset=-1")] == [422] * 6
    forms.TopologyPage.model_validate(page)


def test_readiness_is_paged_and_filtered(ask: Client) -> None:
    """By a part of the entity and by state; unusable questions are refused."""
    page = json.loads(ask("/api/readiness?entity=gpu-3&state=warming_up&limit=5")[1])
    assert (page["total"], page["signals"][0]["reason"]) == (1, "warming up: 12 of 30 samples")
    assert json.loads(ask("/api/readiness?state=ready")[1])["total"] == 0
    assert [ask(f"/api/readiness?{q}")[0] for q in ("state=x", "limit=0", "limit=1001", "offset=-1")] == [422] * 4
    forms.ReadinessPage.model_validate(page)


# --------------------------------------------------------------------------------------------------------- writing
WINDOW = {"entities": ["node//gpu-*"], "for_s": 7200, "reason": "disks"}


def test_maintenance_is_started_listed_and_ended(ask: Client) -> None:
    """The answer is the window; what nobody started is 404."""
    status, text, _ = ask("/api/maintenance", "POST", WINDOW)
    assert status == 202 and forms.Started.model_validate_json(text).until == NOW + 7200
    later = forms.Started.model_validate_json(ask("/api/maintenance", "POST", {**WINDOW, "from": NOW + 60})[1])
    assert (later.since, later.until) == (NOW + 60, NOW + 7260)
    listed = forms.Windows.model_validate_json(ask("/api/maintenance")[1]).maintenance
    assert [(w.id, w.state) for w in listed] == [("mnt-1", "active")] * 2
    assert (ask("/api/maintenance/mnt-1/end", "POST")[0], ask("/api/maintenance/x/end", "POST")[0]) == (202, 404)
    assert ask.view.said[-1] == ("end", "mnt-1", "http")
    assert ask("/api/maintenance", "POST", {**WINDOW, "for_s": 1})[:2] == (409, '{"error":"the window is over already."}')


def test_the_page_says_where_people_work(ask: Client) -> None:
    """With the end and the reason; what is planned is not on it."""
    assert "Under maintenance" not in ask("/")[1]
    ask("/api/maintenance", "POST", {**WINDOW, "reason": "<b>disks"})
    text = ask("/")[1]
    assert "Under maintenance" in text and "node//gpu-*" in text and "&lt;b&gt;disks" in text


@pytest.mark.parametrize("change", [
    {"entities": []}, {"entities": ["gpu-3"]}, {"entities": ["a//b"] * 101}, {"for_s": 0}, {"for_s": 31 * 86400}, {"for_s": "x"},
    {"from": -1}, {"from": 1e300}, {"reason": "x" * 501}, {"extra": 1}, {"entities": "node//a"}])
def test_what_is_no_window_is_refused(ask: Client, change: dict[str, Any]) -> None:
    """In one sentence, and nothing is started."""
    status, text, _ = ask("/api/maintenance", "POST", {**WINDOW, **change})
    assert status == 422 and json.loads(text)["error"]
    assert ask.view.said == []


def test_maintenance_needs_the_token_and_the_own_page(guarded: Client) -> None:
    """Whoever could start a window could blind the daemon."""
    token = {"Authorization": "Bearer s3cret"}
    for path, body in (("/api/maintenance", WINDOW), ("/api/maintenance/mnt-1/end", None)):
        assert guarded(path, "POST", body)[0] == 401
        assert guarded(path, "POST", body, **token, Origin="https://evil.example")[0] == 403
    assert guarded.view.said == []
    assert guarded("/api/maintenance", "POST", WINDOW, **token)[0] == 202


def test_answers_reach_the_view(ask: Client) -> None:
    """Approve, reject and feedback arrive; a second answer is told that it is late; unknown ones are 404."""
    assert ask("/api/actions/act-7f21-2/approve", "POST")[0] == 202
    assert ask("/api/actions/act-7f21-2/reject", "POST")[:2] == (409, '{"error":"act-7f21-2 was approved before."}')
    assert ask("/api/actions/nobody/reject", "POST")[0] == 404
    assert ask("/api/incidents/inc-55aa/feedback", "POST", {"verdict": "false_alarm"})[0] == 202
    assert ask("/api/incidents/nobody/feedback", "POST", {"verdict": "useful"})[0] == 404
    assert ask.view.said == [("approve", "act-7f21-2", "http"), ("false_alarm", "inc-55aa", "http")]


@pytest.mark.parametrize("body", [None, {}, {"verdict": "maybe"}, {"verdict": "useful", "extra": 1}, [1]])
def test_feedback_must_be_one_of_two(ask: Client, body: Any) -> None:
    """Anything else is refused and nothing is noted."""
    assert ask("/api/incidents/inc-55aa/feedback", "POST", body)[0] == 422
    assert ask.view.said == []


@pytest.mark.parametrize("headers", [
    {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec_Fetch_Site": "cross-site"}, {"Sec_Fetch_Site": "same-site"},
    {"Origin": "http://127.0.0.1:1"}])
def test_writes_from_another_origin_are_refused(ask: Client, headers: dict[str, str]) -> None:
    """A web site that the reader happens to have open cannot approve anything."""
    status, text, _ = ask("/api/actions/act-7f21-2/approve", "POST", **headers)
    assert status == 403
    assert "another origin" in text
    assert ask.view.said == []


def test_the_own_page_may_write(ask: Client) -> None:
    """What a browser sends from our own page is accepted."""
    own = f"http://127.0.0.1:{ask.server.port}"
    assert ask("/api/actions/act-7f21-2/approve", "POST", Origin=own, Sec_Fetch_Site="same-origin")[0] == 202


@pytest.mark.parametrize("given", ["", "Bearer wrong", "Bearer", "Basic s3cret", "Bearer s3cret2", "Bearer \xe9"])
def test_without_the_token_nothing_is_written(guarded: Client, given: str) -> None:
    """401, and the view hears nothing."""
    headers = {"Authorization": given} if given else {}
    assert guarded("/api/models/baseline/rollback", "POST", **headers)[0] == 401
    status, text, _ = guarded("/api/actions/act-7f21-2/approve", "POST", **headers)
    assert status == 401 and ("is not the one in this daemon's tokenFile" if given else "A token is needed") in text
    assert guarded.view.said == []


def test_with_the_token_it_is(guarded: Client) -> None:
    """The token alone suffices for scripts, but does not excuse another origin; reading needs none."""
    token = {"Authorization": "Bearer s3cret"}
    assert guarded("/api/actions/act-7f21-2/approve", "POST", **token, Origin="https://evil.example")[0] == 403
    assert guarded("/api/actions/act-7f21-2/approve", "POST", **token)[0] == 202
    assert guarded("/api/incidents")[0] == 200


@pytest.mark.parametrize(("host", "status"), [
    ("evil.example", 421), ("127.0.0.1.evil.example:80", 421), ("localhost.evil.example", 421), ("", 421),
    ("localhost:8750", 200), ("LOCALHOST", 200), ("127.0.0.1", 200), ("[::1]:8750", 200)])
def test_foreign_names_are_not_served_on_loopback(ask: Client, host: str, status: int) -> None:
    """DNS rebinding: a name of somebody else that points at 127.0.0.1 gets nothing, whatever it asks for."""
    assert ask("/api/incidents", Host=host)[0] == status


def test_listening_beyond_loopback_needs_a_token() -> None:
    """Without one the server refuses to start, and says what to do; with one, any name is served."""
    with pytest.raises(ListenError, match=r"needs a token.*Configure a token, or listen on 127\.0\.0\.1"):
        Server(create_app(busy()), "0.0.0.0", 0)
    server = Server(create_app(busy("s3cret")), "0.0.0.0", 0)
    server.start()
    try:
        assert Client(server, busy())("/livez", Host="aiops.cluster.example")[0] == 200
        assert server.url == f"http://127.0.0.1:{server.port}"
    finally:
        server.stop()


@pytest.mark.parametrize(("host", "loopback"), [
    ("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False), ("", False),
    ("10.0.0.1", False), ("aiops.example", False), ("localhost.example", False)])
def test_what_counts_as_loopback(host: str, loopback: bool) -> None:
    """A name that is not known to be loopback is not."""
    assert is_loopback(host) is loopback


def test_a_port_that_is_taken_is_said_plainly(ask: Client) -> None:
    """The address, the reason and the remedy, no traceback."""
    with pytest.raises(ListenError, match=rf"127\.0\.0\.1:{ask.server.port}: Address already in use\. Another aiops"):
        Server(create_app(calm()), port=ask.server.port)


def test_senders_close_idle_connections_first(ask: Client) -> None:
    """A Prometheus that pushes every five seconds and is closed on after five has its pushes reset; it waits five minutes."""
    assert ask.server._server.config.timeout_keep_alive > 300


def test_stop_frees_the_port_even_with_a_listener() -> None:
    """An open event stream does not keep the daemon from ending."""
    view = calm()
    server = Server(create_app(view, poll_s=0.01), port=0)
    server.start()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", "/events")
    connection.getresponse().readline()
    server.stop()
    connection.close()
    assert server._thread is not None
    assert not server._thread.is_alive()
    Server(create_app(view), port=server.port).stop()


# --------------------------------------------------------------------------------------------------------- the page
def test_every_answer_carries_a_strict_policy(ask: Client) -> None:
    """Pages, JSON, static files, refusals and errors alike."""
    for path in ("/", "/incidents/inc-7f21", "/api/status", "/static/page.css", "/nothing", "/incidents/nobody"):
        headers = ask(path)[2]
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
    assert ask("/", Host="evil")[2]["x-frame-options"] == "DENY"
    assert ask("/")[2]["cache-control"] == "no-store"


@pytest.mark.parametrize("path", ["/", "/incidents/inc-7f21", "/incidents/inc-55aa", "/incidents/inc-90c3"])
def test_pages_obey_their_own_policy(ask: Client, path: str) -> None:
    """No inline script, style or handler, and nothing from elsewhere."""
    status, page, _ = ask(path)
    assert status == 200
    assert not re.search(r"\sstyle=|\son\w+=|<style|javascript:", page)
    assert re.findall(r"<script[^>]*>", page) == re.findall(r'<script src="/static/page\.js\?v=\w+" defer>', page)
    assert not re.search(r'(src|href)="(?!/|#)', page)


EVIL = 'pod/x/"><script>alert(1)</script>{{7*7}}\'&<img src=x onerror=alert(1)>'


def test_names_from_outside_are_text() -> None:
    """Markup in entities, signals, reasons, policies, ids and errors is shown, never obeyed."""
    form = serial.incident(incident(actions=(asked(reason=EVIL, policy=EVIL, target=EVIL, id=EVIL),)))
    form |= {"id": EVIL, "entities": [EVIL], "title": EVIL}
    form["alerts"] = [a | {"entity": EVIL, "signal": EVIL, "unit": EVIL, "text": EVIL} for a in form["alerts"]]
    cause = {"entity": EVIL, "signals": [EVIL], "reasons": [{"text": EVIL, "contribution": 1.0}], "score": 0.5}
    form["causes"] = [cause, cause]
    form["timeline"] = [{"at": NOW, "kind": EVIL, "text": EVIL}]
    form["impact"]["entities"] = [EVIL]
    named = {"entity": EVIL, "signal": EVIL, "expected": 1, "lower": 0, "upper": 2}
    form["points"] = [{**named, "at": NOW + k, "value": k} for k in range(9)]
    vital = {**named, "unit": EVIL, "points": [[1, 1], [2, 2]], "ready": True}
    view = DemoView([form], vitals=[vital], sources=[source(EVIL, "failing", EVIL)], counts=Counts(dropped={EVIL: 1}))
    with serving(view) as client:
        for path in ("/", f"/incidents/{quote(EVIL, safe='')}", "/incidents/%22%3E%3Cscript%3Ealert(1)"):
            page = client(path)[1]
            assert "&lt;script&gt;" in page
            assert "<script>" not in page
            assert "<img" not in page
            assert "{{7*7}}" in page or "nobody" in page or "No incident" in page


def test_the_page_tells_what_an_on_call_person_asks(ask: Client) -> None:
    """What, since when, why, what is asked; the failing source; every number with its unit."""
    page = ask("/incidents/inc-7f21")[1]
    for needed in ("gpu gpu-3/0: gpu_temperature is 91.2 °C (expected 61 °C to 73 °C)", "since 2026-02-25 14:40:00 UTC (25 min)",
                   "71%", "began first, 3 min before the next entity", "asked whether to Drain node gpu-3", "refused",
                   "guard maxUnavailable", 'data-post="/api/actions/act-7f21-2/approve"', "depend on it", "&lt;*&gt;"):
        assert needed in page, needed
    assert page.count('class="plot"') == 5
    assert 'data-post="/api/actions/act-7f21-1/approve"' not in page
    overview = ask("/")[1]
    assert "Source kubernetes is failing" in overview
    assert overview.index("gpu_temperature") < overview.index("disk_full_in")
    assert "aiops approve act-7f21-2" in page


@pytest.mark.parametrize(("view", "text"), [
    (calm(), "Nothing is wrong. 212 signals watched, 208 ready, 4 warming up."),
    (fresh(), "Waiting for the first telemetry."),
    (DemoView(), "No source is configured, so there is nothing to watch.")])
def test_empty_states_say_what_to_expect(view: DemoView, text: str) -> None:
    """Healthy, just started, not configured: three different sentences."""
    with serving(view) as client:
        assert text in client("/")[1]


def test_failing_sources_are_not_called_calm() -> None:
    """Nobody is told that nothing is wrong while a part is not seen."""
    with serving(DemoView(counts=Counts(signals=5, ready=5), sources=[source("a"), source("b", "failing", "refused")])) as client:
        page = client("/")[1]
    assert "No incident is open, but 1 of 2 sources is failing: what they would show is not seen. 5 signals watched" in page
    assert "othing is wrong" not in page


def test_the_page_is_there_before_the_first_step() -> None:
    """While history is read nothing was counted yet: the sources and what they say are shown all the same."""
    view = calm()
    view.status = lambda: {**DemoView().status(), "at": None, "counts": {}, "sources": [  # type: ignore[method-assign]
        {"name": "loki", "state": "failing", "error": "refused", "last_success": None, "failures": 1,
         "notes": ["<b>behind</b>"], "rejected": {"too_long": 1234, "gap": 0}}]}
    with serving(view) as client:
        status, page, _ = client("/")
    assert status == 200
    assert "Waiting for the first telemetry." in page and "&lt;b&gt;behind&lt;/b&gt;" in page
    assert "too long" in page and "1,234" in page and "gap" not in page


def test_an_unknown_incident_has_a_page(ask: Client) -> None:
    """404 for people too, with the way back."""
    status, page, _ = ask("/incidents/nobody")
    assert status == 404
    assert "No incident nobody" in page


def test_a_view_that_fails_gives_a_sentence_not_a_traceback(ask: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong inside, nobody outside sees code."""
    def fails() -> dict[str, Any]:
        raise RuntimeError("inner detail")

    monkeypatch.setattr(ask.view, "status", fails)
    status, text, _ = ask("/api/status")
    assert status == 500
    assert "inner detail" not in text
    assert "Traceback" not in text


# ---------------------------------------------------------------------------------------------------------- plots
def row(at: float, value: float = 1.0, half: float = 0.5) -> plot.Row:
    return plot.Row(at, value, 1.0, 1.0 - half, 1.0 + half)


def test_a_hole_in_the_data_breaks_the_line() -> None:
    """Missing values and missing time are both gaps, not slopes."""
    values = [row(t) for t in range(0, 100, 10)] + [row(t) for t in range(500, 600, 10)]
    values[3] = row(30.0, float("nan"))
    made = plot.draw("e", "s", "", values)
    assert made is not None
    assert made.line.count("M") == 3
    assert made.band.count("M") == 2


def test_thinning_keeps_every_spike() -> None:
    """Of ten thousand points one is high: it is in the drawing."""
    values = [row(float(t), 1.0 + 0.001 * (t % 7)) for t in range(10_000)]
    values[5003] = row(5003.0, 99.0)
    made = plot.draw("e", "s", "", values)
    assert made is not None
    tops = [float(pair.split()[1]) for pair in re.findall(r"[\d.]+ [\d.]+", made.line)]
    assert len(tops) <= 700
    assert min(tops) < plot.HEIGHT / 3
    assert made.highest == "99"


def test_nothing_to_draw_is_said_by_none() -> None:
    """One point or none is no plot; a constant series is."""
    assert plot.draw("e", "s", "", [row(1.0)]) is None
    assert plot.draw("e", "s", "", [row(1.0, float("nan")), row(2.0, float("nan"))]) is None
    assert plot.draw("e", "s", "", [row(1.0, 0.0, 0.0), row(2.0, 0.0, 0.0)]) is not None
    assert plot.spark({"entity": "e", "signal": "s", "unit": "", "points": [[1, None], [2, 3.0]], "ready": True}) is None


def test_the_wrong_time_is_marked_within_the_frame() -> None:
    """Since before the first point starts at the edge; after the last point is not drawn."""
    values = [row(float(t)) for t in range(100)]
    early, late = plot.draw("e", "s", "", values, -50.0, 50.0), plot.draw("e", "s", "", values, 500.0)
    assert early is not None
    assert late is not None
    assert early.anomaly is not None
    assert early.anomaly[0] == plot.LEFT
    assert late.anomaly is None


def test_an_uncertain_band_does_not_flatten_the_line() -> None:
    """A band a thousand times as wide as the values leaves them at least a quarter of the height."""
    low, high = value_range([1.0, 2.0], [-1000.0, 1000.0])
    assert high - low <= 4.0


@pytest.mark.parametrize(("low", "high", "unit", "labels"), [
    (0.0, 8e9, "bytes", ["0 B", "2 GiB", "4 GiB", "6 GiB"]), (0.0, 0.083, "ratio", ["0 %", "2.5 %", "5 %", "7.5 %"]),
    (0.0, 600.0, "seconds", ["0 s", "5 min", "10 min"]), (61.0, 92.0, "celsius", ["70 °C", "80 °C", "90 °C"])])
def test_axes_have_round_numbers_in_the_unit_that_is_read(low: float, high: float, unit: str, labels: list[str]) -> None:
    """Binary steps for bytes, minutes for long times."""
    assert [label for _, label in value_ticks(low, high, unit)] == labels


def test_time_axes_are_as_fine_as_the_span() -> None:
    """Seconds, minutes or days."""
    assert [label for _, label in time_ticks(NOW, NOW + 60)] == ["15:05:00", "15:05:15", "15:05:30", "15:05:45", "15:06:00"]
    assert [label for _, label in time_ticks(NOW, NOW + 3600)] == ["15:15", "15:30", "15:45", "16:00"]
    assert [label for _, label in time_ticks(NOW, NOW + 5 * 86400)] == ["Feb 26", "Feb 27", "Feb 28", "Mar 01", "Mar 02"]


@pytest.mark.parametrize(("value", "unit", "text"), [
    (0.0, "bytes", "0 B"), (1023.9, "bytes", "1 KiB"), (8.1e9, "bytes", "7.54 GiB"), (9.2e6, "bytes/s", "8.77 MiB/s"),
    (0.083, "ratio", "8.3 %"), (1.0, "ratio", "100 %"), (0.0000123, "ratio", "0.00123 %"), (0.35, "seconds", "350 ms"),
    (2.84, "seconds", "2.84 s"), (11_700.0, "seconds", "3 h 15 min"), (91.23, "celsius", "91.2 °C"), (410.0, "watts", "410 W"),
    (12.0, "requests/s", "12 requests/s"), (123456.0, "requests/s", "123 k requests/s"), (3.0, "", "3"),
    (1234.0, "cores", "1234 cores"),
    (-5.0, "celsius", "-5 °C"), (float("nan"), "bytes", "–"), (None, "bytes", "–"), (1e300, "bytes", "8.88e+284 PiB")])
def test_numbers_are_written_as_people_read_them(value: float | None, unit: str, text: str) -> None:
    """Value and unit, three significant digits."""
    assert quantity(value, unit) == text


@pytest.mark.parametrize(("seconds", "text"), [
    (0.0, "0 s"), (3e-7, "300 ns"), (0.00042, "420 µs"), (0.35, "350 ms"), (0.9999, "1000 ms"), (12.0, "12 s"), (59.9, "1 min"),
    (180.0, "3 min"), (3599.0, "1 h"), (7500.0, "2 h 5 min"), (86400.0, "1 d"), (356_400.0, "4 d 3 h"), (-90.0, "-2 min"),
    (None, "–")])
def test_durations_are_written_as_people_say_them(seconds: float | None, text: str) -> None:
    """Two units at most."""
    assert duration(seconds) == text


@pytest.mark.parametrize(("values", "unit", "text"), [
    ([3.0, 3.0], "errors", "unchanged"), ([0.0, 312.0], "samples", "was 0 to 312 samples"), ([14.0, 754.0], "", "was 14 to 754"),
    ([0.004, 130.0], "seconds", "was 4 ms to 2 min"), ([1024.0, 3072.0], "bytes", "was 1 to 3 KiB"),
    ([512.0, 3072.0], "bytes", "was 512 B to 3 KiB"), ([79.0, 45.0], "number", "was 45 to 79")])
def test_beside_a_small_plot_stands_what_it_moved_between(values: list[float], unit: str, text: str) -> None:
    """In words that cannot be taken for the expected band, the unit once."""
    points = [[k, v] for k, v in enumerate(values)]
    made = plot.spark({"entity": "e", "signal": "s", "unit": unit, "points": points, "ready": True})
    assert made is not None
    assert made.span == text


@pytest.mark.slow
def test_a_long_note_of_a_source_is_folded() -> None:
    """What a GPU does not offer is forty names: they are there, and do not bury the other sources."""
    long = "GPU 0: not supported: " + ", ".join(f"NVLINK_COUNTER_{k}" for k in range(40))
    with serving(DemoView(sources=[{**source("nvml"), "notes": ["a short one", long]}])) as client:
        page = client("/")[1]
    assert 'class="soft">a short one</td>' in page
    assert re.search(r'<details id="note-nvml-2"><summary>GPU 0: not supported: [^<]* …</summary>' + re.escape(long), page)


def test_what_sources_say_and_could_not_use_is_on_the_page() -> None:
    """Notes below their source, and a row a reason; what comes from outside is escaped."""
    said = {**source("remote_write"), "notes": ["9 samples taken; not: <b>"], "rejected": {"no_name": 1200, "histogram": 3}}
    view = DemoView(sources=[said, source("host")])
    with serving(view) as client:
        page = client("/")[1]
    assert 'class="soft">9 samples taken; not: &lt;b&gt;</td>' in page
    assert '<th scope="row">remote_write</th><td>no name</td><td class="num right">1,200</td>' in page
