"""The way to a Prometheus: credentials, TLS, limits, politeness, and what a person reads when something is wrong."""

from __future__ import annotations

import gzip
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes.certificates import Authority
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from aiops.clock import ManualClock, WallClock
from aiops.sources.access import Access, SourceError
from aiops.sources.prometheus.api import PromApi, Wanted
from aiops.sources.prometheus.errors import remedy, told
from aiops.sources.prometheus.http import PromHttp

NOW = 1_795_000_000.0
UP = Wanted(NOW - 60, NOW, match="up")
EMPTY = {"status": "success", "data": {"resultType": "matrix", "result": []}}


def answering(server: HTTPServer, body: object = EMPTY, path: str = "/api/v1/query", **more: object) -> list[Request]:
    """Answers everything at `path` alike; returns the list that requests are kept in."""
    asked: list[Request] = []

    def answer(request: Request) -> Response:
        asked.append(request)
        request.get_data()
        data = body if isinstance(body, (str, bytes)) else json.dumps(body)
        return Response(data, **({"content_type": "application/json"} | more))  # type: ignore[arg-type]

    server.expect_request(path).respond_with_handler(answer)
    return asked


def refused(api: PromApi) -> SourceError:
    with pytest.raises(SourceError) as e:
        api.read(UP)
    assert "\n" not in str(e.value) and len(str(e.value)) < 600
    return e.value


# ---------------------------------------------------------------------------------------------------------- questions
def test_queries_are_forms_with_a_timeout_below_a_path_prefix(httpserver: HTTPServer) -> None:
    """Selectors outgrow URLs; the server gives up when we do; gateways put Prometheus below a path."""
    asked = answering(httpserver, path="/prom/eu/api/v1/query")
    PromApi(httpserver.url_for("/prom/eu/"), timeout_s=1.5).read(UP)
    [request] = asked
    assert (request.method, request.query_string) == ("POST", b"")
    assert request.form.to_dict() == {"query": "up[60001ms]", "time": "1795000000.000", "timeout": "1500ms"}
    assert request.headers["Accept-Encoding"] == "gzip"


def test_whoever_lets_no_post_through_is_asked_with_get(httpserver: HTTPServer) -> None:
    """As some proxies with read-only rights; found out once."""
    asked: list[str] = []

    def answer(request: Request) -> Response:
        asked.append(request.method)
        return Response("", 405) if request.method == "POST" else Response(json.dumps(EMPTY))
    httpserver.expect_request("/api/v1/query").respond_with_handler(answer)
    api = PromApi(httpserver.url_for(""), retries=0)
    api.read(UP)
    api.read(UP)
    assert asked == ["POST", "GET", "GET"]


def test_one_query_at_a_time_over_all_sources_of_a_server(httpserver: HTTPServer) -> None:
    """Two readers in two threads, whatever the path: the second is asked only when the first has its answer."""
    running, most, lock, both = [0], [0], threading.Lock(), threading.Barrier(2)

    def answer(request: Request) -> Response:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        threading.Event().wait(0.05)
        with lock:
            running[0] -= 1
        return Response(json.dumps(EMPTY))
    httpserver.expect_request("/api/v1/query").respond_with_handler(answer)

    def reader() -> None:
        api = PromApi(httpserver.url_for(""))
        both.wait(5)
        for _ in range(3):
            api.read(UP)
    threads = [threading.Thread(target=reader) for _ in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(20)
    assert most == [1] and len(httpserver.log) == 6


def test_who_waits_too_long_for_its_turn_says_so(httpserver: HTTPServer) -> None:
    """Another source's query hangs: an error after the timeout, not a thread that waits for ever."""
    api = PromHttp(httpserver.url_for(""), timeout_s=0.05)
    with api._turn.lock, pytest.raises(SourceError, match=r"another query to it has run for 0\.05 s"):
        api.query("query", {"query": "up"})


def test_history_takes_its_share_and_polls_wait_for_nobody(httpserver: HTTPServer) -> None:
    """A query of 2 s with a share of a quarter: the next one 6 s later, also from another source; a live query at once."""
    clock = ManualClock(NOW)

    def slow(_: Request) -> Response:
        clock.sleep_until(clock.now() + 2.0)
        return Response(json.dumps(EMPTY))
    httpserver.expect_request("/api/v1/query").respond_with_handler(slow)
    one, two = (PromApi(httpserver.url_for(path), clock=clock) for path in ("", "/"))
    one._turn.free_at = float("-inf")  # another test may have left its mark there, by another clock
    one.read(UP, share=0.25)
    assert clock.now() == NOW + 2
    two.read(UP)
    assert clock.now() == NOW + 4
    two.read(UP, share=0.25)
    assert clock.now() == NOW + 2 + 6 + 2


# -------------------------------------------------------------------------------------------------------- credentials
def test_every_kind_of_credential_is_sent_and_read_again(httpserver: HTTPServer, tmp_path: Path) -> None:
    """Password and header files change on disk between two requests."""
    asked = answering(httpserver)
    password, key = tmp_path / "password", tmp_path / "key"
    password.write_text("p w\n")
    key.write_text("k1\n")
    api = PromApi(httpserver.url_for(""), Access(username="u", password_file=password, tenant="a|b",
                                                 headers={"X-Team": "sre"}, header_files={"X-Key": key}))
    api.read(UP)
    password.write_text("new\n")
    key.write_text("k2")
    api.read(UP)
    sent = [r.authorization for r in asked]
    assert [(a.username, a.password) for a in sent if a] == [("u", "p w"), ("u", "new")]
    assert [(r.headers["X-Key"], r.headers["X-Team"], r.headers["X-Scope-OrgID"]) for r in asked] == [
        ("k1", "sre", "a|b"), ("k2", "sre", "a|b")]


@pytest.mark.parametrize("content", [b"", b"two\nlines", b"\xff\xfe", b"x" * 100_000, "schlüssel".encode()])
def test_a_secret_that_cannot_be_a_header_is_named_and_not_shown(httpserver: HTTPServer, tmp_path: Path, content: bytes) -> None:
    """The error says which file and which setting; what is in it goes nowhere."""
    token = tmp_path / "token"
    token.write_bytes(content)
    error = refused(PromApi(httpserver.url_for(""), Access(token_file=token)))
    assert str(error).startswith(f"{token}: the token cannot be read: ") and "Check tokenFile" in str(error)
    assert content == b"" or content.decode("latin-1") not in str(error)
    assert httpserver.log == []


def test_a_netrc_of_the_user_is_not_sent(httpserver: HTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`requests` would put its password in place of the token."""
    (tmp_path / ".netrc").write_text("machine localhost login me password hunter2\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    asked = answering(httpserver)
    PromApi(httpserver.url_for(""), Access(token="t0k")).read(UP)
    PromApi(httpserver.url_for("")).read(UP)
    assert [r.headers.get("Authorization") for r in asked] == ["Bearer t0k", None]


def test_a_redirect_is_told_and_not_followed(httpserver: HTTPServer) -> None:
    """To a login page or another host: the token must not go along."""
    elsewhere = {"Location": "https://login.example/oauth?secret=1"}
    httpserver.expect_request("/api/v1/query").respond_with_data("", 302, elsewhere)
    httpserver.expect_request("/api/v1/metadata").respond_with_data("", 307, {"Location": httpserver.url_for("/elsewhere")})
    api = PromApi(httpserver.url_for(""), Access(token="t0k"))
    assert "HTTP 302: it redirects to https://login.example. Redirects are not followed" in str(refused(api))
    with pytest.raises(SourceError, match=r"HTTP 307: it redirects to http://localhost:\d+\."):
        api.metadata()
    assert "/elsewhere" not in [request.path for request, _ in httpserver.log]


# --------------------------------------------------------------------------------------------------------- bad answers
HTML = "<html><head><title>502 Bad\nGateway</title></head><body><h1>nginx</h1></body></html>"


@pytest.mark.parametrize(("status", "body", "text"), [
    (422, {"status": "error", "errorType": "execution", "error": "query processing would load too many samples into memory"},
     "HTTP 422: execution: query processing would load too many samples into memory. Ask for less"),
    (502, HTML, "HTTP 502: 502 Bad Gateway. See the log"),
    (401, {"status": "error", "error": "no org id"}, "HTTP 401: no org id. Give the tenant."),
    (429, {"status": "error", "errorType": "too_many_requests", "error": "rate limited"}, "It is asked too often"),
    (503, "", "HTTP 503: SERVICE UNAVAILABLE."),
    (500, "\x00\x1b[31mred" + "x" * 5000, "HTTP 500: "),
    (500, "[" * 50_000, "HTTP 500: "),
    (200, HTML, "the answer is not of the Prometheus API: not JSON: '<html>"),
    (200, '{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"a":"b"},"valu',
     "half a JSON: the answer broke off. Is this the address"),
    (200, "", "half a JSON"),
    (200, "\xff\xfe", "not JSON"),
    (200, {"status": "success", "data": {"resultType": "scalar", "result": [1, "2"]}}, "a scalar where series were expected"),
    (200, {"status": "error", "errorType": "timeout", "error": "query timed out"}, "timeout: query timed out"),
    (200, [], "JSON, but no result with status and data"),
    (200, {"status": "success", "data": {"resultType": "matrix", "result": [{"metric": {}, "values": [[1, "x"]]}]}},
     "samples that are not pairs of a time and a number"),
    (200, {"status": "success", "data": {"resultType": "matrix", "result": [{"metric": {}, "values": [[1, "1", 2]]}]}},
     "samples that are not pairs of a time and a number"),
])
def test_what_comes_instead_of_an_answer_is_told_in_one_line(
        httpserver: HTTPServer, status: int, body: object, text: str) -> None:
    """Prometheus' own errors, pages of proxies, broken and foreign JSON: the address, what came, what to do."""
    answering(httpserver, body, status=status)
    error = str(refused(PromApi(httpserver.url_for(""), retries=0)))
    assert error.startswith(httpserver.url_for("").rstrip("/") + ": ") and text in error
    assert error.isprintable()


def test_an_answer_that_breaks_off_is_an_error() -> None:
    """Fewer bytes than were announced: whoever stood in between has given up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{\"status\"")
        thread = threading.Thread(target=serve)
        thread.start()
        error = refused(PromApi(f"http://127.0.0.1:{listener.getsockname()[1]}", retries=0))
        thread.join(5)
    assert "broke off" in str(error)


def test_an_answer_that_trickles_is_given_up(httpserver: HTTPServer) -> None:
    """Every byte comes in time and the end never does: it is the whole that has a limit."""
    over = threading.Event()

    def trickle() -> Iterator[bytes]:
        yield b"["
        while not over.wait(0.02):
            yield b" " * (1 << 20)
    httpserver.expect_request("/api/v1/query").respond_with_handler(lambda _: Response(trickle()))
    try:
        error = refused(PromApi(httpserver.url_for(""), timeout_s=0.2, retries=0))
    finally:
        over.set()
    assert "no answer within 0.2 s" in str(error) and error.late


def test_an_answer_beyond_the_limit_is_cut_however_well_it_was_packed(httpserver: HTTPServer) -> None:
    """A hundred megabytes of blanks are a hundred kilobytes of gzip."""
    answering(httpserver, gzip.compress(b" " * (100 << 20), 1), headers={"Content-Encoding": "gzip"})
    error = refused(PromApi(httpserver.url_for(""), max_bytes=4 << 20))
    assert "more than 4 MiB" in str(error) and error.too_much


def test_gzip_is_understood(httpserver: HTTPServer) -> None:
    """And what only says that it is gzip is an error."""
    answering(httpserver, gzip.compress(json.dumps(EMPTY).encode()), headers={"Content-Encoding": "gzip"})
    assert PromApi(httpserver.url_for("")).read(UP).metrics == []
    httpserver.clear()
    answering(httpserver, "no gzip", headers={"Content-Encoding": "gzip"})
    assert "decod" in str(refused(PromApi(httpserver.url_for(""))))


@pytest.mark.parametrize(("header", "after_s"), [
    ("7", 7.0), ("Sat, 18 Nov 2026 11:07:20 GMT", None), ("soon", 0.0), ("-5", 0.0), ("99999999", 300.0), ("9" * 400, 300.0)])
def test_retry_after_is_handed_on_and_bounded(httpserver: HTTPServer, header: str, after_s: float | None) -> None:
    """Seconds or a date; nonsense counts as nothing. A date is compared with the server's own clock."""
    answering(httpserver, "", status=429, headers={"Retry-After": header})
    error = refused(PromApi(httpserver.url_for(""), retries=2))
    assert error.status == 429 and (error.after_s == after_s if after_s is not None else 0 <= error.after_s <= 300)
    assert len(httpserver.log) == 1, "and not asked again at once"


@pytest.mark.parametrize(("offset_s", "told_s"), [(0.0, 0.0), (1.5, 0.0), (-120.0, -120.0), (90.0, 90.0)])
def test_the_servers_clock_is_compared_with_ours(httpserver: HTTPServer, offset_s: float, told_s: float) -> None:
    """It tells whole seconds: what may be rounding is none."""
    clock = ManualClock(WallClock().now() - offset_s)
    answering(httpserver)
    api = PromApi(httpserver.url_for(""), clock=clock)
    api.read(UP)
    assert api.skew_s == pytest.approx(told_s, abs=1.0)
    assert (api.skew_s == 0.0) == (told_s == 0.0)


@pytest.mark.parametrize(("body", "text"), [
    (b'{"error": "a\\nb"}', "a b."), (b'{"errorType": "x"}', "x."), (b"{}", ""), (b"5", "5."), (b"<b>a</b> <i>b</i>", "a b."),
    (b"\xff", "\ufffd.")])
def test_errors_are_found_in_whatever_came(body: bytes, text: str) -> None:
    """One printable line, or nothing."""
    assert told(body) == text


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422, 429, 500, 503])
def test_each_status_has_a_remedy(status: int) -> None:
    """A sentence that says what to do."""
    assert remedy(status)[0].isupper() and remedy(status).endswith((".", "?"))


# ----------------------------------------------------------------------------------------------------------------- TLS
@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def secure(authority: Authority) -> Iterator[Callable[..., str]]:
    """Starts a TLS server on loopback and gives its address."""
    servers = []

    def start(names: str = "IP:127.0.0.1", clients: Path | None = None) -> str:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*authority.issue(f"server{len(servers)}", names))
        if clients:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(clients)
        servers.append(HTTPServer("127.0.0.1", 0, ssl_context=context))
        servers[-1].start()
        answering(servers[-1])
        return servers[-1].url_for("")
    yield start
    for server in servers:
        server.stop()


@pytest.mark.real("openssl")
def test_a_server_is_trusted_through_its_ca(secure: Callable[..., str], authority: Authority) -> None:
    """Not without it: the error says which setting is missing."""
    url = secure()
    assert PromApi(url, Access(ca_file=authority.ca)).read(UP).metrics == []
    error = str(refused(PromApi(url, retries=0)))
    assert "TLS: its certificate is from a CA that is not known here. Give that CA as caFile." in error
    assert PromApi(url, Access(insecure_skip_verify=True)).read(UP).metrics == []


@pytest.mark.real("openssl")
def test_a_certificate_for_another_name_needs_server_name(secure: Callable[..., str], authority: Authority) -> None:
    """As behind a tunnel or a bare address."""
    url = secure("DNS:prometheus.example")
    assert "Write that name as url or as serverName." in str(refused(PromApi(url, Access(ca_file=authority.ca), retries=0)))
    named = Access(ca_file=authority.ca, server_name="prometheus.example")
    assert PromApi(url, named).read(UP).metrics == []
    other = Access(ca_file=authority.ca, server_name="other.example")
    assert "another name" in str(refused(PromApi(url, other, retries=0)))


@pytest.mark.real("openssl")
def test_a_client_certificate_is_shown_and_read_again_when_it_rotates(
        secure: Callable[..., str], authority: Authority, tmp_path: Path) -> None:
    """One of the wrong CA is refused; put the right one in place, and the same reader gets in."""
    strangers = Authority(tmp_path / "strangers", "stranger")
    url = secure(clients=authority.ca)
    assert "certFile and keyFile" in str(refused(PromApi(url, Access(ca_file=authority.ca), retries=0)))
    certificate, key = tmp_path / "client.pem", tmp_path / "client.key"

    def put(issued: tuple[Path, Path]) -> None:
        certificate.write_bytes(issued[0].read_bytes())
        key.write_bytes(issued[1].read_bytes())
    put(strangers.issue("client", "DNS:aiops", "clientAuth"))
    api = PromApi(url, Access(ca_file=authority.ca, cert_file=certificate, key_file=key), retries=0)
    assert "certFile and keyFile" in str(refused(api))
    put(authority.issue("client", "DNS:aiops", "clientAuth"))
    assert api.read(UP).metrics == []
    key.write_bytes(strangers.issue("other", "DNS:x", "clientAuth")[1].read_bytes())
    assert "keyFile is not the key of certFile" in str(refused(api))
    certificate.unlink()
    assert "client.pem: the client certificate cannot be read: no such file" in str(refused(api))


@pytest.mark.real("openssl")
def test_what_the_client_library_asks_goes_the_same_way(secure: Callable[..., str], authority: Authority) -> None:
    """Discovery through prometheus_api_client, with our TLS and our name."""
    url = secure("DNS:prometheus.example", clients=authority.ca)
    client = authority.issue("discovery", "DNS:aiops", "clientAuth")
    api = PromApi(url, Access(ca_file=authority.ca, cert_file=client[0], key_file=client[1], server_name="prometheus.example"))
    with pytest.raises(SourceError, match="HTTP 500"):  # pytest-httpserver's way of saying that nobody expected this
        api.names(NOW - 60, NOW)


@pytest.mark.real("openssl")
def test_https_where_there_is_none(httpserver: HTTPServer) -> None:
    """The mistake in the URL is named."""
    url = httpserver.url_for("").replace("http://", "https://")
    assert "does not speak TLS on this port. Write the url with http://." in str(refused(PromApi(url, retries=0)))
