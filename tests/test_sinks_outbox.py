"""Messages reach their receiver: at least once, newest state only, never in a flood, and never with a secret in a text."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from test_sinks_samples import API, T0, asked, incident
from werkzeug import Request, Response

from aiops import serial
from aiops.clock import ManualClock
from aiops.sinks import news
from aiops.sinks.blocks import message
from aiops.sinks.http import Reply, post
from aiops.sinks.outbox import Message, Outbox, Pace
from aiops.sinks.slack import Slack
from aiops.sinks.webhook import Webhook, key, sign
from aiops.types import Incident, Outcome, Priority, Recurrence, Report, Seen


class Desk:
    """A receiver with scripted replies; keeps what it accepted."""

    def __init__(self, *replies: Reply) -> None:
        self.replies, self.got, self.calls = list(replies), [], 0

    def __call__(self, message: Message) -> Reply:
        self.calls += 1
        reply = self.replies.pop(0) if self.replies else Reply(200)
        if reply.ok:
            self.got.append((message.subject, message.body["n"]))
        return reply


def drain(outbox: Outbox, clock: ManualClock, until: float = 1e11) -> list[float]:
    """Let the outbox work, moving the clock as it asks for. Returns the waits."""
    waits = []
    while (wait := outbox.step()) is not None and clock.now() < until:
        waits.append(wait)
        clock.sleep_until(clock.now() + wait)
    return waits


def test_an_outage_loses_nothing_and_ends_with_the_newest_state_only(tmp_path: Path) -> None:
    """Fifty changes of two incidents during an outage become two messages, the newest of each."""
    desk, clock = Desk(*[Reply(500)] * 5), ManualClock()
    outbox = Outbox(tmp_path, "desk", desk, clock)
    for n in range(25):
        outbox.put("i-1", {"n": n})
        outbox.put("i-2", {"n": n})
        outbox.step()
    drain(outbox, clock)
    outbox.close()
    assert desk.got == [("i-1", 24), ("i-2", 24)]
    assert desk.calls == 7


def test_retries_back_off_and_the_receiver_is_not_hammered(tmp_path: Path) -> None:
    """Waits double up to the ceiling, each between half and all of it, for the receiver as a whole."""
    desk, clock = Desk(*[Reply(0, "timed out")] * 12), ManualClock()
    outbox = Outbox(tmp_path, "desk", desk, clock, Pace(first_s=2.0, longest_s=60.0))
    for k in range(20):
        outbox.put(f"i-{k}", {"n": k})
    waits = drain(outbox, clock)[:12]
    outbox.close()
    ceilings = [min(60.0, 2.0 * 2**k) for k in range(12)]
    assert all(c / 2 <= w <= c for w, c in zip(waits, ceilings, strict=True))
    assert len(set(waits)) == 12
    assert len(desk.got) == 20


def test_after_an_outage_messages_go_at_a_measured_pace(tmp_path: Path) -> None:
    """A backlog is delivered one a second, oldest subject first."""
    desk, clock = Desk(), ManualClock()
    outbox = Outbox(tmp_path, "desk", desk, clock)
    for k in range(5):
        outbox.put(f"i-{k}", {"n": k})
    assert drain(outbox, clock) == [1.0] * 4
    assert [s for s, _ in desk.got] == [f"i-{k}" for k in range(5)]
    outbox.close()


def test_a_permanent_refusal_is_kept_and_listed_and_holds_nobody_up(tmp_path: Path) -> None:
    """A 404 for one message does not stop the next."""
    desk, clock = Desk(Reply(404, "no_service")), ManualClock()
    outbox = Outbox(tmp_path, "desk", desk, clock)
    outbox.put("bad", {"n": 1})
    outbox.put("good", {"n": 2})
    drain(outbox, clock)
    assert desk.got == [("good", 2)]
    assert [(d["subject"], d["reason"], d["attempts"]) for d in outbox.dead()] == [("bad", "HTTP 404: no_service", 1)]
    outbox.close()


def test_what_waits_survives_a_restart(tmp_path: Path) -> None:
    """A new process delivers what the old one could not, with message ids that never repeat."""
    clock, ids = ManualClock(), []
    first = Outbox(tmp_path, "desk", lambda m: (ids.append(m.id), Reply(503))[1], clock)
    first.put("i-1", {"n": 1})
    first.step()
    first.close()
    desk = Desk()
    second = Outbox(tmp_path, "desk", desk, ManualClock(10.0))
    second.put("i-2", {"n": 2})
    epoch = second.epoch
    drain(second, ManualClock(20.0), 1.0)
    second.close()
    assert desk.got[0] == ("i-1", 1)
    assert epoch == first.epoch
    assert ids == [1]


def test_a_message_replaced_while_it_is_being_sent_is_not_lost(tmp_path: Path) -> None:
    """The newer word arrives during the delivery of the older: both are delivered, in order."""
    clock, got = ManualClock(), []

    def send(m: Message) -> Reply:
        got.append(m.body["n"])
        if m.body["n"] == 1:
            outbox.put("i-1", {"n": 2})
        return Reply(200)

    outbox = Outbox(tmp_path, "desk", send, clock)
    outbox.put("i-1", {"n": 1})
    drain(outbox, clock)
    assert got == [1, 2]
    assert outbox.waiting() == 0
    outbox.close()


def test_the_outbox_is_bounded(tmp_path: Path) -> None:
    """Beyond its size the oldest message goes to the dead letters, and of those the oldest are forgotten."""
    outbox = Outbox(tmp_path, "desk", Desk(), ManualClock(), Pace(max_waiting=3, max_dead=2))
    for k in range(10):
        outbox.put(f"i-{k}", {"n": k})
    assert outbox.waiting() == 3
    assert [d["subject"] for d in outbox.dead()] == ["i-6", "i-5"]
    outbox.close()


def test_a_message_is_given_up_after_a_week(tmp_path: Path) -> None:
    """A receiver that is gone for good does not keep its messages waiting for ever."""
    desk, clock = Desk(*[Reply(500)] * 100_000), ManualClock()
    outbox = Outbox(tmp_path, "desk", desk, clock, Pace(longest_s=86400.0))
    outbox.put("i-1", {"n": 1})
    drain(outbox, clock)
    assert 7 * 86400.0 <= clock.now() <= 9 * 86400.0
    assert [d["subject"] for d in outbox.dead()] == ["i-1"]
    outbox.close()


def test_a_clock_that_is_set_back_does_not_silence_the_receiver(tmp_path: Path) -> None:
    """After the host's clock lost a year, the next attempt is at most two hours away."""
    clock = ManualClock(4e7)
    outbox = Outbox(tmp_path, "desk", Desk(Reply(500)), clock)
    outbox.put("i-1", {"n": 1})
    outbox.step()
    clock._now = 1e7
    wait = outbox.step()
    assert wait is not None
    assert wait <= 7200.0
    outbox.close()


def test_the_thread_delivers_as_soon_as_something_is_put(tmp_path: Path) -> None:
    """No polling: a message put into an idle outbox is sent at once."""
    arrived = threading.Event()
    outbox = Outbox(tmp_path, "desk", lambda _: (arrived.set(), Reply(200))[1], ManualClock())
    outbox.start()
    outbox.put("i-1", {"n": 1})
    assert arrived.wait(10.0)
    outbox.close()


# ------------------------------------------------------------------------------------------------------ over HTTP
def incidents(*changed: Incident, at: float = T0) -> Report:
    return Report(at, incidents=changed)


def bodies(server: HTTPServer) -> list[dict[str, object]]:
    return [json.loads(request.get_data()) for request, response in server.log if response.status_code == 200]


def test_slack_outage_then_only_the_newest_state_arrives(httpserver: HTTPServer, tmp_path: Path) -> None:
    """Slack answers 500 while an incident opens, worsens and ends: one message says it is resolved."""
    httpserver.expect_ordered_request("/hook", method="POST").respond_with_data("down", status=500)
    httpserver.expect_ordered_request("/hook", method="POST").respond_with_data("down", status=503)
    httpserver.expect_ordered_request("/hook", method="POST").respond_with_data("ok")
    clock = ManualClock(T0)
    slack = Slack(tmp_path, clock, url=httpserver.url_for("/hook"))
    slack.publish(incidents(incident(severity="warning")))
    slack.outbox.step()
    slack.publish(incidents(incident()))
    clock.sleep_until(T0 + 60)
    slack.outbox.step()
    slack.publish(incidents(incident(state="closed", closed_at=T0 + 300, updated_at=T0 + 300), at=T0 + 300))
    drain(slack.outbox, clock)
    slack.close()
    assert [b["text"] for b in bodies(httpserver)] == [  # type: ignore[comparison-overlap]
        "✅ Resolved: pod shop/db-0: memory\u200b_\u200busage was 7.54 GiB (expected 1.77 GiB to 2.24 GiB)"]
    httpserver.check_assertions()


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_slack_is_left_alone_as_long_as_it_asks(httpserver: HTTPServer, tmp_path: Path, form: str) -> None:
    """429 with Retry-After: nothing is sent before that time, and the message arrives after it."""
    value = "30" if form == "seconds" else formatdate(T0 + 30, usegmt=True)
    httpserver.expect_ordered_request("/hook").respond_with_data("slow down", status=429, headers={"Retry-After": value})
    httpserver.expect_ordered_request("/hook").respond_with_data("ok")
    clock = ManualClock(T0)
    slack = Slack(tmp_path, clock, url=httpserver.url_for("/hook"))
    slack.publish(incidents(incident()))
    assert slack.outbox.step() == pytest.approx(30.0)
    clock.sleep_until(T0 + 29)
    assert slack.outbox.step() == pytest.approx(1.0)
    assert len(httpserver.log) == 1
    clock.sleep_until(T0 + 30)
    assert slack.outbox.step() is None
    assert len(bodies(httpserver)) == 1
    slack.close()


def test_slack_bot_updates_one_message_and_answers_in_its_thread(httpserver: HTTPServer, tmp_path: Path) -> None:
    """With a token: posted once, then updated in place with the news in the thread; the token goes in the header only."""
    said: list[tuple[str, dict[str, object]]] = []

    def answer(request: Request) -> Response:
        assert request.headers["Authorization"] == "Bearer xoxb-secret"
        said.append((request.path, json.loads(request.get_data())))
        return Response(json.dumps({"ok": True, "ts": "17.1", "channel": "C1"}), content_type="application/json")

    for method in ("chat.postMessage", "chat.update"):
        httpserver.expect_request(f"/api/{method}", method="POST").respond_with_handler(answer)
    clock = ManualClock(T0)
    slack = Slack(tmp_path, clock, token="xoxb-secret", channel="#ops", api=httpserver.url_for("/api"))
    slack.publish(incidents(incident()))
    drain(slack.outbox, clock)
    slack.publish(incidents(incident(actions=(asked(),))))
    clock.sleep_until(T0 + 60)
    drain(slack.outbox, clock)
    slack.close()
    assert [(path, body.get("channel"), body.get("ts"), body.get("thread_ts")) for path, body in said] == [
        ("/api/chat.postMessage", "#ops", None, None), ("/api/chat.update", "C1", "17.1", None),
        ("/api/chat.postMessage", "C1", None, "17.1")]
    assert "xoxb" not in json.dumps([body for _, body in said])


def test_slack_refusals_with_status_200_are_understood(httpserver: HTTPServer, tmp_path: Path) -> None:
    """`ok: false` is a dead letter with Slack's own word for it; an internal error of theirs is tried again."""
    httpserver.expect_ordered_request("/api/chat.postMessage").respond_with_json({"ok": False, "error": "internal_error"})
    httpserver.expect_ordered_request("/api/chat.postMessage").respond_with_json({"ok": False, "error": "channel_not_found"})
    clock = ManualClock(T0)
    slack = Slack(tmp_path, clock, token="xoxb-secret", channel="#ops", api=httpserver.url_for("/api"))
    slack.publish(incidents(incident()))
    drain(slack.outbox, clock)
    assert [d["reason"] for d in slack.outbox.dead()] == ["HTTP 400: chat.postMessage: channel_not_found"]
    assert len(httpserver.log) == 2
    slack.close()


def test_a_webhook_gets_a_signed_cloud_event_with_the_same_id_on_repetition(httpserver: HTTPServer, tmp_path: Path) -> None:
    """A receiver can check who sent it, that it is whole and whether it has seen it before."""
    secret = "whsec_" + base64.b64encode(b"k" * 24).decode()
    httpserver.expect_ordered_request("/in").respond_with_data("busy", status=502)
    httpserver.expect_ordered_request("/in").respond_with_data("")
    clock = ManualClock(T0)
    hook = Webhook(tmp_path, clock, httpserver.url_for("/in"), secret)
    hook.publish(incidents(incident()))
    drain(hook.outbox, clock)
    hook.close()
    first, second = (request for request, _ in httpserver.log)
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert float(second.headers["webhook-timestamp"]) >= float(first.headers["webhook-timestamp"])
    body = second.get_data()
    signed = f"{second.headers['webhook-id']}.{second.headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.digest(b"k" * 24, signed, hashlib.sha256)).decode()
    assert second.headers["webhook-signature"] == f"v1,{expected}"
    event = json.loads(body)
    assert {k: event[k] for k in ("specversion", "type", "source", "subject", "id")} == {
        "specversion": "1.0", "type": "io.aiops.incident.opened", "source": "/aiops", "subject": "i-1",
        "id": second.headers["webhook-id"]}
    assert event["data"] == serial.incident(incident())
    assert second.headers["Content-Type"].startswith("application/cloudevents+json")


def test_the_signature_is_what_openssl_computes() -> None:
    """`printf 'msg_1.1700000000.BODY' | openssl dgst -sha256 -hmac secret -binary | base64`, once, by hand."""
    assert key("whsec_c2VjcmV0") == key("secret") == b"secret"
    signed = sign(b"secret", "msg_1", 1_700_000_000, b'{"event_type":"ping"}')
    assert signed["webhook-signature"] == "v1,QW7a4xvQBlAP2Go5r6BOR5BJmbPCF7JT5oQQxO2woI8="


def test_an_incident_that_was_never_announced_is_announced_as_opened(httpserver: HTTPServer, tmp_path: Path) -> None:
    """A receiver that was down while an incident grew hears `opened`, not `updated`."""
    httpserver.expect_ordered_request("/in").respond_with_data("busy", status=502)
    httpserver.expect_ordered_request("/in").respond_with_data("")
    clock = ManualClock(T0)
    hook = Webhook(tmp_path, clock, httpserver.url_for("/in"))
    hook.publish(incidents(incident(severity="warning")))
    hook.outbox.step()
    hook.publish(incidents(incident()))
    drain(hook.outbox, clock)
    assert [b["type"] for b in bodies(httpserver)] == ["io.aiops.incident.opened"]
    assert "webhook-signature" not in httpserver.log[-1][0].headers
    hook.close()


def test_only_news_is_told(httpserver: HTTPServer, tmp_path: Path) -> None:
    """The same incident again, a value that moved, a suspect that flaps: no message. A question, an outcome: at once."""
    httpserver.expect_request("/in").respond_with_data("")
    clock = ManualClock(T0)
    hook = Webhook(tmp_path, clock, httpserver.url_for("/in"))
    one = incident()
    flipped = incident(causes=one.causes[::-1])
    question = replace(flipped, actions=(asked(),))
    answered = replace(question, outcomes=(Outcome("a-1", "helped", T0),))
    over = replace(answered, state="closed", closed_at=T0 + 445)
    story = [(one, 0), (one, 15), (flipped, 30), (one, 45), (flipped, 400), (question, 415), (answered, 430), (over, 445)]
    for state, after in story:
        hook.publish(incidents(state, at=T0 + after))
        drain(hook.outbox, clock)
        clock.sleep_until(clock.now() + 5)
    hook.close()
    assert [b["type"].rsplit(".", 1)[1] for b in bodies(httpserver)] == [  # type: ignore[attr-defined]
        "opened", "updated", "updated", "updated", "resolved"]


def test_minor_incidents_are_not_told_until_they_grow(tmp_path: Path) -> None:
    """Below the minimum severity nobody is disturbed, not by the end of it either."""
    slack = Slack(tmp_path, ManualClock(T0), url="http://127.0.0.1:9/x")
    slack.publish(incidents(incident("small", severity="info")))
    slack.publish(incidents(incident("small", severity="info", state="closed", closed_at=T0)))
    assert slack.outbox.waiting() == 0
    slack.publish(incidents(incident("grows", severity="info")))
    slack.publish(incidents(incident("grows", severity="warning")))
    assert slack.outbox.waiting() == 1
    slack.close()


def test_what_was_said_is_remembered_over_a_restart(tmp_path: Path) -> None:
    """The same open incident after a restart is no news; closed by the restart it is, and says so."""
    clock = ManualClock(T0)
    first = Slack(tmp_path, clock, url="http://127.0.0.1:9/x")
    first.publish(incidents(incident()))
    first.outbox._change("DELETE FROM messages")
    first.close()
    second = Slack(tmp_path, clock, url="http://127.0.0.1:9/x")
    second.publish(incidents(incident()))
    assert second.outbox.waiting() == 0
    form = serial.incident(incident(state="closed", closed_at=T0 + 9))
    form["timeline"].append({"at": T0 + 9, "kind": "interrupted", "text": "the daemon restarted"})
    second.tell(form, T0 + 9)
    pending = second.outbox.pending("i-1")
    assert pending is not None
    assert pending["text"].startswith("✅ Closed by a restart:")
    second.close()


def test_secrets_are_in_no_text(tmp_path: Path) -> None:
    """Neither the address nor the token of a receiver that cannot be reached shows in errors, status or repr."""
    clock = ManualClock(T0)
    hook = Webhook(tmp_path, clock, "http://127.0.0.1:9/T0PSECRET", "whsec_czNjcjN0")
    slack = Slack(tmp_path, clock, token="xoxb-T0PSECRET", channel="#ops", api="http://127.0.0.1:9/T0PSECRET")
    for sink in (hook, slack):
        sink.publish(incidents(incident()))
        sink.outbox.step()
        text = f"{sink!r} {sink.status()} {sink.outbox.dead()}"
        assert "T0PSECRET" not in text
        assert "czNj" not in text
        assert sink.status()["error"] != ""
        sink.close()
    assert b"T0PSECRET" not in b"".join(p.read_bytes() for p in tmp_path.iterdir())
    with pytest.raises(ValueError, match="slack: the configured address is not an http") as e:
        Slack(tmp_path, clock, url="ftp://T0PSECRET")
    assert "T0PSECRET" not in str(e.value)
    with pytest.raises(ValueError, match="base64"):
        Webhook(tmp_path, clock, "http://x", "whsec_!!")


def test_redirects_are_not_followed(httpserver: HTTPServer) -> None:
    """What we say goes to the address that was configured and nowhere else; it is a permanent refusal."""
    httpserver.expect_request("/a").respond_with_data("", status=302, headers={"Location": httpserver.url_for("/b")})
    reply = post(httpserver.url_for("/a"), b"{}", {}, T0)
    assert (reply.status, reply.permanent) == (302, True)
    assert len(httpserver.log) == 1


@pytest.mark.parametrize(("status", "permanent"), [
    (400, True), (404, True), (410, True), (408, False), (429, False), (500, False), (0, False)])
def test_which_refusals_are_final(status: int, permanent: bool) -> None:
    """4xx is final but for time-out and too many; everything else is tried again."""
    assert Reply(status).permanent is permanent


def test_an_entity_cannot_forge_markup(tmp_path: Path) -> None:
    """Names from outside neither mention a channel nor make a link, in any block."""
    evil = "pod/x/<!channel>*a*`b`<http://evil|c>&"
    form = serial.incident(incident(alerts=incident().alerts, impact=incident().impact, entities=(evil,), causes=()))
    form["alerts"][0] |= {"entity": evil, "signal": evil, "text": evil}
    form["impact"]["entities"] = [evil]
    built = message("opened", form)
    text = json.dumps([b for b in built["blocks"] if b["type"] != "header"] + [built["text"]], ensure_ascii=False)
    assert "<!channel>" not in text
    assert "<http" not in text
    assert built["blocks"][0]["text"]["type"] == "plain_text"


def test_a_message_says_how_urgent_it_is_and_what_helped_before() -> None:
    """The level in front of the severity; a section of its own for what was here before, and none for what was not."""
    before = Recurrence(2, 2, (Seen("inc-0", 0.0, 60.0, (("Restart", "helped"),)),))
    form = serial.incident(replace(incident(), priority=Priority("P1", 6.0), before=before))
    texts = [b["text"]["text"] for b in message("opened", form)["blocks"] if b["type"] == "section"]
    assert texts[0].startswith("*P1 · ")
    assert "*Seen before* the third like it in 7 days; on 1970-01-01 Restart helped" in texts
    assert "Seen before" not in json.dumps(message("opened", serial.incident(incident())))


def test_a_higher_priority_is_news_and_a_lower_one_is_not() -> None:
    """P1 after P2 is told at once; what an earlier version said had no priority."""
    def told(level: Any) -> dict[str, Any]:
        return news.said(serial.incident(replace(incident(), priority=Priority(level))), 0.0)
    assert news.kind(told("P2"), told("P1")) == "updated"
    assert news.kind(told("P1"), told("P2")) is None
    assert news.kind({k: v for k, v in told("P2").items() if k != "priority"}, told("P1")) is None


def test_what_is_over_was_wrong() -> None:
    """The last message of an incident does not say that something is."""
    form = serial.incident(incident())
    for state, said in (("open", "*What is wrong*"), ("closed", "*What was wrong*")):
        texts = [b["text"]["text"] for b in message("resolved", {**form, "state": state})["blocks"] if b["type"] == "section"]
        assert [t.split("\n")[0] for t in texts if "wrong*" in t] == [said]


def test_messages_stay_within_the_limits_of_slack() -> None:
    """Hundreds of signals, causes and actions with long names: at most 50 blocks of 3000 characters, header of 150."""
    one, long = incident(), "&" * 5000
    actions = tuple(asked(id=f"a-{k}", reason=long) for k in range(90))
    many = incident(alerts=one.alerts * 300, causes=one.causes * 200, actions=actions, entities=(long,))
    form = serial.incident(many)
    form["alerts"][0]["signal"] = long
    form["impact"]["entities"] = [long] * 100
    built = message("opened", form, "https://aiops.example")
    assert len(built["blocks"]) <= 50
    assert len(built["text"]) <= 3000
    assert len(built["blocks"][0]["text"]["text"]) <= 150
    sections = [b["text"]["text"] for b in built["blocks"] if b["type"] == "section"]
    assert all(0 < len(text) <= 3000 for text in sections)
    assert "more_" in sections[-1]


def test_the_message_has_everything_an_on_call_person_needs() -> None:
    """What broke, since when, impact, causes with reasons, what is asked and how to answer, and where to look."""
    form = serial.incident(incident(actions=(asked(),)))
    text = json.dumps(message("opened", form, "https://aiops.example/"), ensure_ascii=False)
    for needed in ("7.54 GiB", "since 2026-02-25", "CRITICAL", "service shop/web", "74%", "began 45 s before", "+0.41",
                   "restart-leaking", "asks for approval: Restart pod shop/db-0", "`aiops approve a-1`",
                   "<https://aiops.example/incidents/i-1|", API):
        assert needed in text, needed
