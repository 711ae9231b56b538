"""Planted secrets do not survive; what a reader needs does."""

from __future__ import annotations

import time

import pytest

from aiops.redaction import GONE, MOST_CHARS, Redactor

PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow" + "x" * 300 + "\n-----END RSA PRIVATE KEY-----"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmN"
PLANTED = [
    ("password=hunter2 rest", "hunter2"), ("DB_PASSWORD: 'hun ter2', rest", "hun ter2"), ('{"apiKey": "k-123", "a": 1}', "k-123"),
    ("dbPassword=>hunter2", "hunter2"), ("pwd=1234", "1234"), ("client_secret=abc&x=1", "abc"), ("token=abcdef", "abcdef"),
    ('"access_token":"abcdef"', "abcdef"), ("Authorization: Bearer abc.def-ghi", "abc.def-ghi"),
    ("authorization: Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"), ("got bearer 0123456789 back", "0123456789"),
    ("Cookie: session=abc; other=def", "def"), ("postgres://app:s3cret@db/x", "s3cret"), ("GET /x?a=1&sig=Zm9v&b=2", "Zm9v"),
    (f"jwt is {JWT}", JWT[20:]), ("AKIAIOSFODNN7EXAMPLE was used", "AKIAIOSFODNN7EXAMPLE"), ("ghp_" + "a1" * 18, "a1a1a1"),
    ("xoxb-1234-abcdefgh", "abcdefgh"), ("hf_" + "Ab1" * 10, "Ab1Ab1"), ("sk-proj-" + "a" * 30, "aaaaaa"), (PEM, "MIIEow"),
    ("mail ann.lee+ops@example.co.uk now", "ann.lee"), ("run --db-password hunter2 -v", "hunter2"), ("--token abc123", "abc123"),
    ("\n".join(["line", "secret: s3cret"]), "s3cret"), ("aws_secret_access_key = wJalrXUtnFEMI/K7", "wJalrXUtnFEMI"),
]
HARMLESS = ["time_to_first_token: 0.5", "tokens=1234 generated_tokens: 12", "token: 17", "2 actions in the last 1h",
            "correlation.http_error_rate > 0.8 is true (correlation.http_error_rate = 0.9)", "10.1.2.3:8080 refused",
            "pod/shop/api-7d4: container_restarts is 5", 'MountVolume failed: secret "db" not found', "key=value",
            "tokens_per_second was 3 (wanted >= 10)", "http://prometheus:9090/graph"]


@pytest.mark.parametrize(("text", "secret"), PLANTED)
def test_a_planted_secret_is_gone(text: str, secret: str) -> None:
    """Of each kind, and something shows that there was one."""
    out = Redactor().text(text)
    assert secret not in out
    assert GONE in out or "[e-mail]" in out


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_no_secret_stays(text: str) -> None:
    """Measurements of language models speak of tokens, and Kubernetes of secrets."""
    assert Redactor().text(text) == text


def test_addresses_of_machines_go_by_option() -> None:
    """Versions and times are none."""
    text = "10.1.2.3:8080 and fe80::1 at 12:30:05, version 1.2.3"
    assert Redactor(ips=True).text(text) == "[ip]:8080 and [ip] at 12:30:05, version 1.2.3"


def test_parameters_are_gone_through_to_the_bottom() -> None:
    """Texts by what they say, and everything under the name of a secret; numbers and truth values stay."""
    found = {"env": [{"PASSWORD": "x y", "note": "Bearer abcdefghi"}], "replicas": 3, "token": 5, "apiToken": "t", "dry": True}
    assert Redactor().value(found) == {
        "env": [{"PASSWORD": GONE, "note": f"Bearer {GONE}"}], "replicas": 3, "token": 5, "apiToken": GONE, "dry": True}


@pytest.mark.parametrize("filler", ["a", "a_", "1", "a:", "://", "password=", '"', "\\", "password=\"\\", "eyJ", "@", "::", "-"])
def test_a_text_made_to_be_slow_is_not(filler: str) -> None:
    """Bounded work for whatever is sent, and a bounded text."""
    began = time.process_time()
    out = Redactor(ips=True).text(filler * 100_000)
    assert time.process_time() - began < 0.5 and len(out) <= MOST_CHARS


def test_one_line_comes_out() -> None:
    """Control characters and halves of characters would break lines, terminals and hashes."""
    assert Redactor().text("a\nb\x1b[31m\x7fc\ud800d") == "a b [31m c d"


def test_a_short_look_misses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every planted secret of each kind is found by the look that most texts are done with."""
    with_look = [Redactor().text(text.upper() if k % 2 else text) for k, (text, _) in enumerate(PLANTED)]
    monkeypatch.setattr("aiops.redaction._HINTS", ("",))
    assert [Redactor().text(text.upper() if k % 2 else text) for k, (text, _) in enumerate(PLANTED)] == with_look
