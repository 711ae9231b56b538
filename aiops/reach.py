"""Whether logs can be read, and what is pushed received: the part of `aiops doctor` that is about them and this machine."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

from aiops.clock import WallClock
from aiops.findings import Finding
from aiops.humanise import count, duration
from aiops.inputs import Journald, Logs, Loki
from aiops.remote_write import native
from aiops.sources.access import SourceError

BACK_S = 3600.0
NO_SERVER = "cannot be reached"


def loki(source: Loki) -> Iterator[Finding]:
    """Does it answer, and does the query select lines."""
    from aiops.sources.loki.api import LokiApi

    api = LokiApi(source.url, tenant=source.tenant, token_file=source.token_file, ca_file=source.ca_file,
                  timeout_s=source.timeout_s)
    now = int(WallClock().now() * 1e9)
    try:
        found = api.page(source.query, now - int(BACK_S * 1e9), now, 1)
        yield Finding("Loki", "ok" if found else "info", f"{api.url}: answers. " + (
            "The query selects lines." if found else "No line in the last hour: check query, and tenant if it has several."))
    except SourceError as e:
        yield Finding("Loki", "unreachable" if e.what.startswith(NO_SERVER) else "problem", str(e))
    finally:
        api.close()


def journald(source: Journald) -> Iterator[Finding]:
    """Is there a journalctl, and may it read the system's journal."""
    from aiops.sources.journald.source import JournaldSource

    try:
        newest = JournaldSource(units=source.units, priority=source.priority, directory=source.directory).newest()
    except SourceError as e:
        yield Finding("journald", "problem", str(e))
        return
    if newest is None:
        yield Finding("journald", "info", "no line of these units and this priority. Check units, priority and directory.")
    else:
        yield Finding("journald", "ok", f"newest line {duration(max(0.0, WallClock().now() - newest))} ago")


def log_files(source: Logs) -> Iterator[Finding]:
    """Which files there are, and may they be read."""
    for pattern in source.paths:
        found = [p for p in glob.glob(pattern, recursive=True) if Path(p).is_file()]  # noqa: PTH207 - it may be absolute
        closed = [p for p in found if not os.access(p, os.R_OK)]
        if closed:
            yield Finding("logs", "problem", f"{count(len(closed), 'file')} may not be read, as {closed[0]}. "
                          "Give the daemon's user the right to.")
        elif found:
            yield Finding("logs", "ok", f"{pattern}: {count(len(found), 'file')}")
        else:
            yield _no_file(pattern)


def _no_file(pattern: str) -> Finding:
    """Nothing yet, or a folder that nobody can look into."""
    folder = Path(pattern)
    while glob.has_magic(str(folder)) or folder == Path(pattern):
        folder = folder.parent
    if not folder.is_dir():
        return Finding("logs", "problem", f"{pattern}: there is no folder {folder}. Check paths; in a container, mount it.")
    if not os.access(folder, os.R_OK | os.X_OK):
        return Finding("logs", "problem", f"{folder}: may not be looked into. Give the daemon's user the right to.")
    return Finding("logs", "info", f"{pattern}: no file yet; read as soon as there is one")


def otlp(address: str, guarded: bool) -> Iterator[Finding]:
    """What is understood. address: where it is received; guarded: senders need the token."""
    forms = "protobuf and JSON" if find_spec("opentelemetry") and find_spec("opentelemetry.proto") else ""
    remedy = "JSON only. Install aiops[otlp] for protobuf, or set OTEL_EXPORTER_OTLP_PROTOCOL=http/json at the senders."
    yield Finding("OTLP", "ok" if forms else "info", f"{_received(address, '', guarded)} {forms or remedy}")


def remote_write(address: str, guarded: bool) -> Iterator[Finding]:
    """Which decoder works. address, guarded: as for `otlp`."""
    where = _received(address, "/api/v1/write", guarded)
    try:
        native.load()
        yield Finding("remote_write", "ok", f"{where} The fast decoder is there.")
    except native.UnavailableError as e:
        yield Finding("remote_write", "info", f"{where} Decoded in Python, 6 to 30 times slower: {e}. "
                      "With a Rust compiler, make setup builds the fast one.")


def _received(address: str, path: str, guarded: bool) -> str:
    return f"received at http://{address}{path}{', with the token' if guarded else ''}."


def host() -> Iterator[Finding]:
    """What the kernel tells of this machine."""
    names = ("/proc/stat", "/proc/meminfo", "/proc/diskstats", "/proc/net/dev")
    missing = ", ".join(p for p in names if not os.access(p, os.R_OK))
    yield Finding("host", "problem", f"cannot be read: {missing}.") if missing else Finding("host", "ok", "/proc")


def nvml() -> Iterator[Finding]:
    """Driver and GPUs, and what each group of equal GPUs gives and lacks."""
    from aiops.sources.nvml.source import NvmlSource

    source = NvmlSource()
    reason = source.available()
    if reason:
        text = f"{reason}{'' if reason.endswith(('.', '?')) else '.'} Without GPUs here, remove the source."
        yield Finding("NVML", "unreachable", text)
        return
    try:
        alike: dict[tuple[int, tuple[tuple[str, str], ...]], list[int]] = {}
        for index, metrics, absent in source.offers():
            alike.setdefault((len(metrics), tuple(sorted(absent.items()))), []).append(index)
        yield Finding("NVML", "ok", f"driver {source.driver}, {count(sum(map(len, alike.values())), 'GPU')}")
        for (found, lacking), gpus in alike.items():
            yield from _gpus(f"GPU {', '.join(map(str, gpus))}", found, dict(lacking))
    except RuntimeError as e:
        yield Finding("NVML", "problem", str(e))
    finally:
        source.close()


def _gpus(who: str, found: int, absent: Mapping[str, str]) -> Iterator[Finding]:
    yield Finding(who, "ok" if found else "problem", f"{found} metrics can be read." if found else "does not answer. Reset it.")
    for reason in sorted(set(absent.values())):
        names = sorted(name.removeprefix("DCGM_FI_DEV_") for name, why in absent.items() if why == reason)
        denied = reason == "no permission"
        remedy = " Run as root, or with CAP_SYS_ADMIN." if denied else ""
        yield Finding(who, "problem" if denied else "info", f"{reason}: {', '.join(names)}.{remedy}")
