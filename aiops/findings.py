"""What `aiops doctor` says, and the checks that several systems share."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from aiops.secretfile import SecretFile
from aiops.sources import access
from aiops.sources.access import Access, SourceError

State = Literal["ok", "info", "problem", "unreachable"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. `unreachable` means that a system which the configuration names did not answer."""

    what: str
    state: State
    text: str


def secret(what: str, path: Path, check: Callable[[str], object] = lambda text: None) -> Finding:
    """A file with a secret: whether `aiops run` would take it."""
    try:
        SecretFile(path, check)
    except ValueError as e:
        return Finding(what, "problem", str(e))
    return Finding(what, "ok", f"{path}: readable")


def exists(what: str, path: Path) -> Finding:
    """A file or folder that is named."""
    if path.exists():
        return Finding(what, "ok", str(path))
    return Finding(what, "problem", f"{path}: no such file or folder.")


def files(what: str, way: Access) -> Iterator[Finding]:
    """What is wrong with the files of a way into a server, all of them at once: secrets, CA, certificate and its key."""
    named = {"tokenFile": way.token_file, "passwordFile": way.password_file,
             **{f"headerFiles.{name}": path for name, path in way.header_files.items()}}
    for key, path in named.items():
        if path and (text := _secret_fault(path, key)):
            yield Finding(what, "problem", text)
    for key, texts in (("caFile", _ca_fault(way.ca_file)), ("certFile", _certificate_fault(way.cert_file, way.key_file))):
        if texts:
            yield Finding(what, "problem", f"{key}: {texts}")


def _secret_fault(path: Path, key: str) -> str:
    try:
        access.secret(path, key)
    except SourceError as e:
        return str(e)
    return ""


def _ca_fault(path: Path | None) -> str:
    try:
        if path:
            ssl.create_default_context(cafile=str(path))
    except ssl.SSLError:
        return f"{path}: holds no certificate. It is a text in PEM form, BEGIN CERTIFICATE."
    except OSError as e:
        return f"{path}: {(e.strerror or str(e)).lower()}."
    return ""


def _certificate_fault(certificate: Path | None, key: Path | None) -> str:
    for path in filter(None, (certificate, key)):
        try:
            path.read_bytes()
        except OSError as e:
            return f"{path}: {(e.strerror or str(e)).lower()}."
    try:
        if certificate:  # a password of the key would be asked for on the terminal
            ssl.create_default_context().load_cert_chain(certificate, key, password="")
    except ssl.SSLError as e:
        if "MISMATCH" in str(e):
            return f"{certificate}: does not belong to the key in {key or certificate}. Renew both together."
        return f"{certificate}: no certificate in PEM form with its key, unencrypted{f' in {key}' if key else ''}."
    return ""
