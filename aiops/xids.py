"""XIDs: the error numbers of NVIDIA's driver, what they mean, and the kernel log lines that tell of them.

The catalogue is `xids.yaml`. An XID becomes an `Event` with the reason `XID 79`, whoever tells of it: the driver's event
set, a line of the kernel log, or the gauge of dcgm-exporter. https://docs.nvidia.com/deploy/xid-errors/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from aiops import yamlfile
from aiops.types import Entity, Event, LogLine, Node, Severity
from aiops.yamlfile import Strict

FILE = Path(__file__).with_suffix(".yaml")
FaultClass = Literal["application", "driver", "hardware", "fabric"]
MAX_DETAIL = 160
"""Characters of the driver's own words that are kept of a log line."""

_XID = re.compile(r"NVRM: Xid \(PCI:([0-9a-fA-F:.]{4,16})(?: GPU-I:(\d{1,3}))?\): (\d{1,5})(?!\d)[, ]*([^\r\n]*)")
_SXID = re.compile(r"\bSXid \(PCI:([0-9a-fA-F:.]{4,16})\): (\d{5})(?!\d)[, ]*([^\r\n]*)")
_FATAL = re.compile(r"(Non-fatal|Fatal)\b")


class Xid(Strict):
    """What one XID means. `action` is what to do first, `then` when it comes again: keys of `Catalogue.actions`."""

    fault: FaultClass = Field(alias="class")
    severity: Severity
    action: str
    then: str = ""
    meaning: str


class Catalogue(Strict):
    """The file. Keys of `xids` are numbers, lists and ranges of them: `"70-72, 85"`."""

    actions: dict[str, str]
    xids: dict[str, Xid]
    sxids: dict[int, str]

    @model_validator(mode="after")
    def _consistent(self) -> Catalogue:
        unknown = {a for x in self.xids.values() for a in (x.action, x.then) if a and a not in self.actions}
        if unknown:
            raise ValueError(f"unknown actions {sorted(unknown)}.")
        numbers = [n for key in self.xids for n in _numbers(key)]
        twice = {n for n in numbers if numbers.count(n) > 1}
        if twice:
            raise ValueError(f"XIDs {sorted(twice)} are there twice.")
        return self


def _numbers(key: str) -> Iterator[int]:
    for part in key.split(","):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


@lru_cache
def catalogue() -> Catalogue:
    """The shipped catalogue, read once."""
    [document] = yamlfile.read(FILE)
    return yamlfile.validate(document, Catalogue)


@lru_cache
def by_number() -> Mapping[int, Xid]:
    """Number -> what it means, for every XID that is documented in public."""
    return {n: xid for key, xid in catalogue().xids.items() for n in _numbers(key)}


# ------------------------------------------------------------------------------------------------------- for people
def describe(number: int) -> str:
    """`XID 79 (hardware, critical): the GPU has fallen off the bus. Drain the node and restart it; if it comes again: …`."""
    xid = by_number().get(number)
    if xid is None:
        return f"XID {number}: not in the catalogue; see https://docs.nvidia.com/deploy/xid-errors/."
    actions = catalogue().actions
    again = f"; if it comes again: {actions[xid.then]}" if xid.then else ""
    return f"XID {number} ({xid.fault}, {xid.severity}): {xid.meaning}. Advice: {actions[xid.action]}{again}."


def event(time: float, entity: Entity, number: int, detail: str = "") -> Event:
    """An XID as an event. `detail` is what else is known, in the words of who told it."""
    xid = by_number().get(number)
    kind = "normal" if xid and xid.severity == "info" else "warning"
    return Event(time, entity, kind, f"XID {number}", f"{describe(number)} {_short(detail)}".rstrip())


def fault(event: Event) -> FaultClass | None:
    """Where the fault lies that an event tells of; None for events that tell of no XID, or only inform."""
    if event.reason in LOST:
        return "hardware"
    if event.reason.startswith("SXID "):
        return "fabric" if event.kind == "warning" else None
    number = event.reason.removeprefix("XID ")
    if number == event.reason or not number.isdecimal():
        return None
    xid = by_number().get(int(number))
    return "driver" if xid is None else None if xid.severity == "info" else xid.fault


def headline(event: Event) -> str:
    """The meaning and the advice of an XID, without the words of who told it; the whole text of other events."""
    number = event.reason.removeprefix("XID ")
    return describe(int(number)) if number != event.reason and number.isdecimal() else event.text or event.reason


LOST = ("GPULost", "GPUUnavailable")
"""Reasons of events by which the driver says that a GPU is gone, without an XID."""


# --------------------------------------------------------------------------------------------- the kernel's log lines
def of_line(line: LogLine, gpus: Mapping[str, Entity] | None = None) -> Event | None:
    """The event that a line of the kernel log tells of; None for every other line.

    `gpus` says which GPU of that node has which PCI address, written as `pci` does (see `by_address`); without it the event
    belongs to whom the line belongs, its node. Never raises, whatever the line holds.
    """
    if found := _XID.search(line.text):
        address, instance, number, words = found.groups()
        gpu = (gpus or {}).get(pci(address))
        entity = f"mig/{gpu.removeprefix('gpu/')}/{int(instance)}" if gpu and instance else gpu or line.entity
        where = f"PCI {address}" + (f", GPU instance {int(instance)}" if instance else "")
        return event(line.time, entity, int(number), f"{where}: {words}" if words else where)
    if found := _SXID.search(line.text):
        return _switch(line, found)
    return None


def by_address(nodes: Iterable[Node]) -> dict[Entity, dict[str, Entity]]:
    """Node -> its GPUs by PCI address, from the topology of the `nvml` source: `of_line(line, found.get(line.entity))`."""
    out: dict[Entity, dict[str, Entity]] = {}
    for node in nodes:
        if node.entity.startswith("gpu/") and node.labels.get("pci"):
            host = node.entity.removeprefix("gpu/").rpartition("/")[0]
            out.setdefault(f"node//{host}", {})[pci(node.labels["pci"])] = node.entity
    return out


def _switch(line: LogLine, found: re.Match[str]) -> Event:
    """NVSwitch errors: the line says itself whether it was fatal; the entity is the node."""
    fatal = _FATAL.match(found[3])
    harmless = fatal is not None and fatal[1] == "Non-fatal"
    part = catalogue().sxids.get(int(found[2]) // 1000, "the switch")
    advice = "nothing needs to be done" if harmless else "check the fabric manager's log; reset all GPUs and switches of the node"
    text = f"SXID {found[2]} ({fatal[1].lower() if fatal else 'unknown severity'}): error in {part}. Advice: {advice}."
    return Event(line.time, line.entity, "normal" if harmless else "warning", f"SXID {found[2]}",
                 f"{text} {_short(f'PCI {found[1]}: {found[3]}')}")


def pci(address: str) -> str:
    """One way of writing a PCI address: `00000000:3B:00.0`, `0000:3b:00` and `3B:00.0` -> `0000:3b:00`."""
    parts = address.lower().split(".")[0].split(":")
    domain = parts[-3] if len(parts) > 2 else "0"
    return ":".join([domain[-4:].rjust(4, "0"), *parts[-2:]])


def _short(text: str) -> str:
    """One bounded line; what cannot be printed is left out."""
    clean = "".join(c for c in " ".join(text.split()) if c.isprintable())
    return clean if len(clean) <= MAX_DETAIL else clean[:MAX_DETAIL - 1] + "…"
