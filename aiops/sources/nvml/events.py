"""What the driver tells by itself: XIDs and the newer kinds of events, taken without waiting.

Changes of clocks and P-states are not asked for: they are ordinary under load, and why clocks are low is a series.
https://docs.nvidia.com/deploy/nvml-api/ (group nvmlEvents)
"""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from aiops.sources.nvml.mig import NO_INSTANCE

MAX_EVENTS = 1024
"""Taken at one poll; what is left waits for the next."""
XID = 0x8
MIG_CONFIG = 0x100
KINDS: Mapping[int, tuple[str, str, str]] = MappingProxyType({
    0x1: ("normal", "ECCSingleBit", "a corrected memory error"),
    0x2: ("warning", "ECCDoubleBit", "an uncorrectable memory error"),
    0x80: ("warning", "PowerSourceChange", "the power source changed"),
    MIG_CONFIG: ("change", "MIGConfigChange", "the MIG configuration changed"),
    0x200: ("warning", "ECCSingleBitStorm", "very many corrected memory errors"),
    0x400: ("warning", "MemoryRetired", "a part of the memory was taken out of use"),
    0x800: ("warning", "MemoryRetirementFailed", "a faulty part of the memory could not be taken out of use"),
    0x1000: ("warning", "NonFatalPoison", "poisoned data was contained"),
    0x2000: ("warning", "FatalPoison", "poisoned data was not contained"),
    0x4000: ("warning", "GPUUnavailable", "the GPU is not available"),
    0x8000: ("warning", "RecoveryActionChange", "what the driver needs to recover changed"),
})
"""Type of an event -> kind, reason and meaning."""
RECOVERY = ("nothing", "a reset of the GPU", "a restart of the node", "a drain of its peers", "a drain and a reset of the GPU",
            "a recovery of the IMEX domain", "a reset of the bus", "a restart of the system")


class Told(NamedTuple):
    """One event, however often it came: address of the device, type, data, GPU instance (None: the whole GPU)."""

    device: int
    type: int
    data: int
    instance: int | None


class EventSet:
    """The driver's event set for all GPUs. `notes` says what could not be had."""

    def __init__(self, nvml: Any, gpus: Mapping[int, Any]) -> None:
        self._nvml = nvml
        self.notes: dict[str, str] = {}
        self._set: Any = None
        try:
            self._set = nvml.nvmlEventSetCreate()
        except nvml.NVMLError as e:
            self.notes["events"] = f"events of the driver, XIDs among them: {e}"
            return
        for index, gpu in gpus.items():
            self._register(index, gpu)

    def _register(self, index: int, gpu: Any) -> None:
        nvml = self._nvml
        try:
            supported = nvml.nvmlDeviceGetSupportedEventTypes(gpu)
        except nvml.NVMLError:
            supported = XID
        wanted = supported & (XID | sum(KINDS))
        try:
            nvml.nvmlDeviceRegisterEvents(gpu, wanted or XID, self._set)
        except nvml.NVMLError as e:
            self.notes[f"events {index}"] = f"events of GPU {index}, XIDs among them: {e}"

    def take(self) -> Iterator[tuple[Told, int]]:
        """What is waiting, each with how often it came, in the order of first coming."""
        nvml = self._nvml
        found: Counter[Told] = Counter()
        for _ in range(MAX_EVENTS if self._set else 0):
            try:
                got = nvml.nvmlEventSetWait_v2(self._set, 0)
            except nvml.NVMLError as e:
                if getattr(e, "value", None) != nvml.NVML_ERROR_TIMEOUT:
                    self.notes["events"] = f"events of the driver: {e}"
                break
            instance = None if got.gpuInstanceId == NO_INSTANCE else int(got.gpuInstanceId)
            found[Told(address(got.device), int(got.eventType), int(got.eventData), instance)] += 1
        yield from found.items()

    def close(self) -> None:
        """Raises NVMLError where the driver is gone."""
        if self._set is not None:
            held, self._set = self._set, None
            self._nvml.nvmlEventSetFree(held)


def address(device: Any) -> int:
    """What tells one GPU from another: a GPU that fell off the bus answers no question."""
    return ctypes.cast(device, ctypes.c_void_p).value or 0


def meaning(told: Told, times: int) -> tuple[str, str, str]:
    """kind, reason and text of an event that is no XID."""
    unknown = ("normal", f"NVMLEvent{told.type:#x}", f"an event of the driver, data {told.data:#x}")
    kind, reason, text = KINDS.get(told.type, unknown)
    if told.type == 0x8000:
        text = f"the driver needs {RECOVERY[told.data] if told.data < len(RECOVERY) else f'action {told.data}'} to recover"
        kind = "warning" if told.data else "normal"
    return kind, reason, text + (f", {times} times" if times > 1 else "")
