"""Secrets that rotate: whoever asks gets what is in the file now, and a broken one locks nobody out."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from aiops import build
from aiops.clock import ManualClock
from aiops.config import load
from aiops.desk import Desk, Vitals
from aiops.secretfile import SecretFile, header
from aiops.sinks.metrics import Metrics
from aiops.sinks.slack import Slack
from aiops.sinks.webhook import Webhook, key, sign
from aiops.store.sqlite import Store
from aiops.web.app import create_app
from aiops.web.server import Server
from tests.helpers import pipeline
from tests.test_sinks_outbox import drain, incident, incidents

T0 = 1_800_000_000.0


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A Secret as Kubernetes mounts it: a link into a folder, which is exchanged as a whole."""
    mount(tmp_path, "first")
    (tmp_path / "token").symlink_to("now/token")
    return tmp_path / "token"


def mount(folder: Path, text: str) -> None:
    new = folder / f"data-{len(list(folder.iterdir()))}"
    new.mkdir()
    (new / "token").write_text(text, encoding="utf-8")
    (folder / "next").symlink_to(new.name)
    (folder / "next").replace(folder / "now")


def test_a_new_secret_is_in_force_at_once(place: Path) -> None:
    """By exchange of the folder that a link leads into, and by writing over the file."""
    secret = SecretFile(place)
    assert secret() == "first"
    mount(place.parent, "second\n")
    assert secret() == "second"
    place.write_text("the third one", encoding="utf-8")
    assert secret() == "the third one"


@pytest.mark.parametrize("bad", ["", "\n", "two\nlines", "\x00"])
def test_what_cannot_be_used_leaves_the_last_one_in_force(place: Path, bad: str) -> None:
    """A rotation that went wrong locks nobody out, and the next good one counts."""
    secret = SecretFile(place, header)
    mount(place.parent, bad)
    assert secret() == "first"
    mount(place.parent, "second")
    assert secret() == "second"
    place.unlink()
    assert secret() == "second"


def test_at_the_start_what_cannot_be_used_is_refused(tmp_path: Path) -> None:
    """With file and remedy, and without the secret."""
    file = tmp_path / "token"
    with pytest.raises(build.ConfigurationError, match=r"token: the secret cannot be read: no such file.*Check the path"):
        build.secret(file)
    file.write_text("T0PSECRET\nsecond", encoding="utf-8")
    with pytest.raises(build.ConfigurationError, match=r"token: holds more than one line.*Put the token alone") as e:
        build.secret(file, header)
    assert "T0PSECRET" not in str(e.value)
    file.write_text("whsec_T0PSECRET", encoding="utf-8")
    with pytest.raises(build.ConfigurationError, match="base64") as e:
        build.secret(file, key)
    assert "T0PSECRET" not in str(e.value)


# ----------------------------------------------------------------------------------------------------- who uses them
@pytest.fixture
def served(place: Path, tmp_path: Path) -> Iterator[Server]:
    store = Store(tmp_path / "s.sqlite")
    desk = Desk(store, Vitals(pipeline()), Metrics("1"), "observe", T0, lambda: T0, list, lambda c: None, build.secret(place))
    server = Server(create_app(desk), port=0)
    server.start()
    yield server
    server.stop()
    store.close()


def status(server: Server, token: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("POST", "/api/incidents/i-1/feedback", '{"verdict": "useful"}',
                       {"Authorization": f"Bearer {token}", "Content-Type": "application/json"})
    answer = connection.getresponse().status
    connection.close()
    return answer


def test_the_token_of_the_daemon_rotates(place: Path, served: Server) -> None:
    """The old one is refused from then on, the new one is taken, without a restart."""
    assert (status(served, "first"), status(served, "second")) == (404, 401)
    mount(place.parent, "second")
    assert (status(served, "first"), status(served, "second")) == (401, 404)


def test_slack_and_webhook_use_what_is_in_the_file(place: Path, tmp_path: Path, httpserver: HTTPServer) -> None:
    """A bot token, the address of an incoming webhook, and the key of a signature, each after it rotated."""
    seen: list[tuple[str, Any]] = []

    def answer(request: Request) -> Response:
        seen.append((request.path, request.headers.get("Authorization") or request.headers.get("webhook-signature")))
        return Response('{"ok": true, "ts": "1", "channel": "C"}', content_type="application/json")

    for path in ("/api/chat.postMessage", "/in", "/old", "/new"):
        httpserver.expect_request(path).respond_with_handler(answer)
    address = tmp_path / "address"
    address.write_text(httpserver.url_for("/old"), encoding="utf-8")
    clock = ManualClock(T0)
    made = [Slack(tmp_path / "a", clock, token=SecretFile(place), channel="#x", api=httpserver.url_for("/api")),
            Slack(tmp_path / "b", clock, url=SecretFile(address)),
            Webhook(tmp_path / "c", clock, httpserver.url_for("/in"), SecretFile(place))]
    mount(place.parent, "second")
    address.write_text(httpserver.url_for("/new") + "\n", encoding="utf-8")
    for receiver in made:
        receiver.publish(incidents(incident()))
        drain(receiver.outbox, clock)
        receiver.close()
    assert [path for path, _ in seen] == ["/api/chat.postMessage", "/new", "/in"]
    assert seen[0][1] == "Bearer second"
    signed = httpserver.log[-1][0]
    assert seen[2][1] == sign(b"second", signed.headers["webhook-id"], int(signed.headers["webhook-timestamp"]),
                              signed.get_data())["webhook-signature"]


def test_each_setting_that_names_a_file_rotates(tmp_path: Path) -> None:
    """`aiops.build` hands on the file, not what was in it at the start."""
    files = {name: tmp_path / name for name in ("bot", "hook", "sign")}
    for name, file in files.items():
        file.write_text(f"http://127.0.0.1:9/{name}", encoding="utf-8")
    config = tmp_path / "aiops.yaml"
    config.write_text(f"""\
store: state
sinks:
  - slack: {{tokenFile: {files["bot"]}, channel: "#x"}}
  - slack: {{webhookFile: {files["hook"]}}}
  - webhook: {{url: "http://127.0.0.1:9", secretFile: {files["sign"]}}}
""", encoding="utf-8")
    bot, hook, signer = build.receivers(load(config, {}), ManualClock(T0))
    held = [bot._Slack__token, hook._Slack__url, signer._Webhook__secret]
    for file in files.values():
        file.write_text("http://127.0.0.1:9/rotated", encoding="utf-8")
    assert [secret() for secret in held] == ["http://127.0.0.1:9/rotated"] * 3
    for receiver in (bot, hook, signer):
        receiver.close()
