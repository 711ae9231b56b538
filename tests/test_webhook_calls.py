"""The action Webhook on the wire: signed, each once, and what an answer means."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import threading
from pathlib import Path

import pytest
from fakes.acting import NOW, action
from werkzeug import Response

from aiops import build
from aiops.clock import ManualClock
from aiops.cluster.actuator import LiveActuator
from aiops.cluster.calls import WithCalls
from aiops.cluster.simulated import SimulatedCluster
from aiops.schema import Callee
from aiops.store.intents import Intents

CALL = {"webhook": "tickets", "data": {"node": "gpu-1"}}


@pytest.fixture
def live(tmp_path, httpserver):
    """An actuator that calls the server of the test, signed; `statuses(action)` carries it out as far as it comes."""
    secret = tmp_path / "secret"
    secret.write_text("whsec_" + base64.b64encode(b"k" * 24).decode() + "\n")
    made = Callee(url=httpserver.url_for("/hook"), secretFile=secret)
    yield from actuator(tmp_path, {"tickets": made})


def actuator(folder: Path, webhooks):
    clock, ledger, cluster = ManualClock(NOW), Intents(folder / "actions.sqlite"), SimulatedCluster()
    one = LiveActuator(WithCalls(cluster, build.calls(webhooks, clock)), clock, ledger)
    one.clock, one.cluster = clock, cluster
    yield one
    ledger.close()


def outcomes(one, *actions, turns=1):
    one.submit(actions)
    for _ in range(turns):
        wait_s = one.run_due()
        if wait_s is not None:
            one.clock.sleep_until(one.clock.now() + wait_s)
    return [(o.status, o.reason) for o in one.collect()]


def test_a_call_says_who_what_and_why_and_is_signed(live, httpserver):
    """A CloudEvent; the action's id is the key under which the receiver drops a repetition."""
    httpserver.expect_request("/hook").respond_with_data("ok")
    assert outcomes(live, action("Webhook", CALL)) == [("done", "Call webhook//tickets.")]
    [(request, _)] = httpserver.log
    event = json.loads(request.data)
    assert (event["type"], event["id"], event["subject"]) == ("io.aiops.action.webhook", "a-1", "i")
    assert (event["data"]["policy"], event["data"]["data"]) == ("p", {"node": "gpu-1"})
    assert (request.headers["Idempotency-Key"], request.headers["webhook-id"]) == ("a-1", "a-1")
    said = f"a-1.{request.headers['webhook-timestamp']}.".encode() + request.data
    digest = base64.b64encode(hmac.new(b"k" * 24, said, hashlib.sha256).digest()).decode()
    assert request.headers["webhook-signature"] == f"v1,{digest}"
    assert live.cluster.calls == []


@pytest.mark.parametrize(("status", "outcome", "calls"), [
    (204, "done", 1), (400, "refused", 1), (410, "refused", 1), (302, "refused", 1), (500, "unknown", 1), (502, "unknown", 1),
    (408, "unknown", 1), (429, None, 3), (503, None, 3)])
def test_what_an_answer_means(live, httpserver, status, outcome, calls):
    """Turned down: refused. Not now: asked again later. In doubt: unknown, and never repeated."""
    httpserver.expect_request("/hook").respond_with_response(Response("x", status, {"Retry-After": "5", "Location": "/other"}))
    found = outcomes(live, action("Webhook", CALL), turns=3)
    assert [o for o, _ in found] == ([outcome] if outcome else [])
    assert len(httpserver.log) == calls
    assert all(httpserver.url_for("/hook") not in reason for _, reason in found)


def test_an_answer_that_never_comes_is_unknown(tmp_path):
    """The connection breaks after the request was read."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        def hang_up():
            with server.accept()[0] as connection:
                connection.recv(65536)
        thread = threading.Thread(target=hang_up)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/hook"
        [one] = [*actuator_of(tmp_path, url)]
        thread.join(10)
    assert [status for status, _ in one] == ["unknown"]


def actuator_of(folder, url):
    """The outcomes of one call to that address."""
    made = actuator(folder, {"tickets": Callee(url=url)})
    yield outcomes(next(made), action("Webhook", CALL), turns=2)


def test_nobody_there_is_asked_again_later(tmp_path):
    """A refused connection changed nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert [*actuator_of(tmp_path, f"http://127.0.0.1:{port}/hook")] == [[]]


def test_a_name_that_the_configuration_does_not_know_is_refused(live, httpserver):
    """With those that there are; nothing goes out."""
    [(status, reason)] = outcomes(live, action("Webhook", {"webhook": "ticket"}))
    assert (status, httpserver.log) == ("refused", [])
    assert reason == "no webhook is called 'ticket'. Known: tickets. Add it to webhooks in the configuration."


def test_nothing_goes_out_unsigned_by_mistake(live, httpserver, tmp_path):
    """The secret is read again when its file changes; one that was emptied or broken meanwhile does not count."""
    httpserver.expect_request("/hook").respond_with_data("ok")
    for number, content in enumerate(["", "whsec_???", "another-key"]):
        (tmp_path / "secret").write_text(content)
        assert outcomes(live, action("Webhook", CALL, f"a-{number}"))[0][0] == "done"
    signatures = [request.headers["webhook-signature"].removeprefix("v1,") for request, _ in httpserver.log]
    keys = [b"k" * 24, b"k" * 24, b"another-key"]
    for (request, _), key, signature in zip(httpserver.log, keys, signatures, strict=True):
        said = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + request.data
        assert base64.b64decode(signature) == hmac.new(key, said, hashlib.sha256).digest()


def test_a_secret_that_is_not_there_stops_the_start(tmp_path):
    """As that of a sink does."""
    with pytest.raises(build.ConfigurationError, match="the secret cannot be read"):
        build.calls({"x": Callee(url="http://127.0.0.1:1/", secretFile=tmp_path / "none")}, ManualClock(NOW))


def test_a_notice_needs_nobody_and_is_done_at_once(live):
    """Its text is the outcome."""
    assert outcomes(live, action("Notify", {"message": "look at gpu-1"})) == [("done", "look at gpu-1.")]
