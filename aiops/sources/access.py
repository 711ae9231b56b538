"""How a server is reached: bearer token or password, tenant, further headers, TLS. Secrets come from files, and those rotate.

The vocabulary is that of Prometheus: https://prometheus.io/docs/prometheus/latest/configuration/configuration/#tls_config
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

MAX_SECRET_BYTES = 64 * 1024
_PRINTABLE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")


class SourceError(Exception):
    """A source could not be read. `status` is the HTTP status, 0 where no answer came at all.

    after_s: the server asked not to be asked again for so long. `too_much`: a smaller question may well be answered.
    `late`: it took too long, because of the question or because of the load.
    """

    def __init__(self, url: str, what: str, remedy: str, status: int = 0, *, after_s: float = 0.0,
                 too_much: bool = False, late: bool = False) -> None:
        super().__init__(f"{url}: {what} {remedy}".strip())
        self.url, self.what, self.remedy, self.status = url, what, remedy, status
        self.after_s, self.too_much, self.late = after_s, too_much, late


@dataclass(frozen=True, slots=True)
class Access:
    """Everything a request needs besides its address. Files are read when they are needed: they rotate.

    `tenant` is sent as X-Scope-OrgID (Mimir, Cortex, Loki). `token` is for those who have it in hand, else `token_file`.
    """

    tenant: str = ""
    token: str = field(default="", repr=False)
    token_file: Path | None = None
    username: str = ""
    password_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    server_name: str = ""
    insecure_skip_verify: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    header_files: Mapping[str, Path] = field(default_factory=dict)

    def sent(self) -> dict[str, str]:
        """The headers of the next request. Raises SourceError where a secret cannot be read or cannot be a header."""
        out = dict(self.headers) | {name: secret(path, f"headerFiles.{name}") for name, path in self.header_files.items()}
        if self.tenant:
            out["X-Scope-OrgID"] = self.tenant
        token = secret(self.token_file, "tokenFile") if self.token_file else self.token
        if token:
            out["Authorization"] = f"Bearer {token}"
        elif self.username:
            password = secret(self.password_file, "passwordFile") if self.password_file else ""
            out["Authorization"] = "Basic " + base64.b64encode(f"{self.username}:{password}".encode()).decode()
        return out

    def certificates(self) -> tuple[bytes, ...]:
        """What the files of TLS hold now: when it changes, new connections are needed. Raises SourceError."""
        files = {"caFile": self.ca_file, "certFile": self.cert_file, "keyFile": self.key_file}
        return tuple(_content(path, key) for key, path in files.items() if path)

    @property
    def verify(self) -> bool | str:
        """As `requests` wants it: whom the server's certificate must come from, or False."""
        return False if self.insecure_skip_verify else str(self.ca_file) if self.ca_file else True

    @property
    def client_certificate(self) -> tuple[str, str] | str | None:
        """As `requests` wants it; one file may hold the certificate and its key."""
        if not self.cert_file:
            return None
        return (str(self.cert_file), str(self.key_file)) if self.key_file else str(self.cert_file)


def secret(path: Path, key: str) -> str:
    """One line of text that may stand in a header. Errors name the file and the setting, never what is in it."""
    try:
        text = _content(path, key).decode("utf-8").strip()
    except UnicodeDecodeError:
        raise _unreadable(path, key, "it is not UTF-8 text") from None
    if not text:
        raise _unreadable(path, key, "it is empty")
    if not _PRINTABLE.fullmatch(text) and key != "passwordFile":
        raise _unreadable(path, key, "it holds more than one line, or characters that no header may have")
    return text


def _content(path: Path, key: str) -> bytes:
    try:
        with path.open("rb") as f:
            content = f.read(MAX_SECRET_BYTES * 64 + 1)
    except OSError as e:
        raise _unreadable(path, key, (e.strerror or str(e)).lower()) from None
    if len(content) > MAX_SECRET_BYTES * (64 if key == "caFile" else 1):
        raise _unreadable(path, key, "it is far too large for what it should hold")
    return content


def _unreadable(path: Path, key: str, why: str) -> SourceError:
    what = {"tokenFile": "the token", "passwordFile": "the password", "caFile": "the CA", "certFile": "the client certificate",
            "keyFile": "the client key"}.get(key, "the header")
    return SourceError(str(path), f"{what} cannot be read: {why}.", f"Check {key} and the rights of the file.")
