"""NVIDIA GPUs of this machine through NVML, in dcgm-exporter's names, so that one pack explains both.

Counts of XIDs, ECC errors and remapped rows come from the driver; an XID is also an event, at the moment it is read.
MIG slices are not told apart: figures are those of the whole GPU. https://docs.nvidia.com/deploy/nvml-api/
"""

from __future__ import annotations

import ctypes
import platform
import warnings
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from aiops.interfaces import Samples
from aiops.types import Edge, Entity, Event, Links, Node

Reading = Iterator[tuple[str, dict[str, str], float, str]]
"""metric, labels, value, kind"""

MIB = 2**20
MAX_EVENTS = 256
XIDS: Mapping[int, str] = MappingProxyType({
    13: "graphics engine exception, most often a fault of the application",
    31: "memory page fault, most often a fault of the application",
    43: "the GPU stopped processing for one application",
    45: "preemptive clean-up after an earlier error",
    48: "uncorrectable (double-bit) ECC error",
    61: "internal micro-controller breakpoint",
    62: "internal micro-controller halt",
    63: "a memory row or page was taken out of use",
    64: "a memory row or page could not be taken out of use",
    74: "NVLink error",
    79: "the GPU has fallen off the bus",
    92: "high rate of corrected ECC errors",
    94: "contained ECC error: one application is hit",
    95: "uncontained ECC error: the GPU needs a reset",
    119: "the GPU's system processor did not answer in time",
    120: "error in the GPU's system processor",
})
"""What the driver means. https://docs.nvidia.com/deploy/xid-errors/"""

_THROTTLES = {"hw_slowdown": 0x8, "sw_thermal": 0x20, "hw_thermal": 0x40, "hw_power_brake": 0x80, "sw_power_cap": 0x4}


class NvmlSource:
    """All GPUs that the driver shows. `notes` names each metric that some GPU does not offer, once."""

    def __init__(self, name: str = "nvml", interval_s: float = 15.0, *, node: str | None = None) -> None:
        self.name, self.interval_s = name, interval_s
        self.host = node or platform.node() or "localhost"
        self.notes: dict[str, str] = {}
        self._nvml: Any = None
        self._gpus: dict[int, Any] = {}
        self._events: Any = None
        self._last_xid: dict[int, int] = {}
        self._lost: set[int] = set()
        self._unsupported: set[tuple[int, str]] = set()

    def available(self) -> str | None:
        """None where there are GPUs to read, else the reason why not, for people."""
        try:
            self._open()
        except RuntimeError as e:
            return str(e)
        return None if self._gpus else "the NVIDIA driver shows no GPU"

    def poll(self, now: float, into: Samples) -> None:
        """One reading of every GPU, and the XIDs since the last poll. Raises RuntimeError without a working driver."""
        if self._open():
            into.links(self.name, self._links())
        self._read_xids(now, into)
        for index in self._gpus:
            self._read_gpu(index, now, into)
        if self._gpus and len(self._lost) == len(self._gpus):
            self.close()  # a reset may have brought them back: begin anew at the next poll
            raise RuntimeError(f"no GPU of {self.host} answers")

    def close(self) -> None:
        if self._nvml is None:
            return
        nvml, events = self._nvml, self._events
        self._nvml, self._events, self._gpus = None, None, {}
        for free in ([lambda: nvml.nvmlEventSetFree(events)] if events else []) + [nvml.nvmlShutdown]:
            try:
                free()
            except nvml.NVMLError as e:
                self.notes["close"] = f"close: {e}"

    # ------------------------------------------------------------------------------------------------------- opening
    def _open(self) -> bool:
        """True where this call opened the driver. Raises RuntimeError with the reason where there is none."""
        if self._nvml is not None:
            return False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            import pynvml
        try:
            pynvml.nvmlInit()
            count = pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError as e:
            raise RuntimeError(f"NVML: {e}. Is the NVIDIA driver installed, and visible to this process?") from None
        self._nvml = pynvml
        self._gpus = dict(self._handles(count))
        self._lost.clear()
        self._listen()
        return True

    def _handles(self, count: int) -> Iterator[tuple[int, Any]]:
        for index in range(count):
            try:
                yield index, self._nvml.nvmlDeviceGetHandleByIndex(index)
            except self._nvml.NVMLError as e:  # one broken GPU must not hide the others
                self.notes[f"gpu {index}"] = f"GPU {index}: {e}"

    def _listen(self) -> None:
        """Ask to be told of XIDs. Where the driver refuses, the rest is read all the same."""
        nvml = self._nvml
        try:
            self._events = nvml.nvmlEventSetCreate()
        except nvml.NVMLError as e:
            self.notes["xid"] = f"XID events: {e}"
            return
        for index, gpu in self._gpus.items():
            try:
                nvml.nvmlDeviceRegisterEvents(gpu, nvml.nvmlEventTypeXidCriticalError, self._events)
            except nvml.NVMLError as e:
                self.notes[f"xid {index}"] = f"XID events of GPU {index}: {e}"

    def _links(self) -> Links:
        node = f"node//{self.host}"
        gpus = [self._entity(i) for i in self._gpus]
        return Links(tuple(Node(e) for e in (node, *gpus)), tuple(Edge(node, e, "uses") for e in gpus))

    def _entity(self, index: int) -> Entity:
        return f"gpu/{self.host}/{index}"

    # ------------------------------------------------------------------------------------------------------- reading
    def _read_gpu(self, index: int, now: float, into: Samples) -> None:
        for probe in PROBES:
            what = probe.__name__.strip("_")
            if (index, what) in self._unsupported:
                continue
            try:
                readings = list(probe(self._nvml, self._gpus[index]))
            except self._nvml.NVMLError as e:
                if self._failed(index, what, e, now, into):
                    return
                continue
            self._lost.discard(index)
            for metric, labels, value, kind in readings:
                into.sample(now, self._entity(index), metric, labels, float(value), kind)
        last = float(self._last_xid.get(index, 0))
        into.sample(now, self._entity(index), "DCGM_FI_DEV_XID_ERRORS", {}, last, "gauge")

    def _failed(self, index: int, what: str, error: Exception, now: float, into: Samples) -> bool:
        """True where the GPU is gone, so that asking on is useless."""
        nvml = self._nvml
        code = getattr(error, "value", None)
        if code in (nvml.NVML_ERROR_GPU_IS_LOST, nvml.NVML_ERROR_GPU_NOT_FOUND):
            if index not in self._lost:
                self._lost.add(index)
                into.event(Event(now, self._entity(index), "warning", "GPULost", f"GPU {index}: {error}"))
            return True
        if code in (nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_FUNCTION_NOT_FOUND, nvml.NVML_ERROR_NO_PERMISSION):
            self._unsupported.add((index, what))
        self.notes[f"{what} {index}"] = f"{what} of GPU {index}: {error}"
        return False

    def _read_xids(self, now: float, into: Samples) -> None:
        """Takes what is waiting, without waiting for more."""
        nvml = self._nvml
        for _ in range(MAX_EVENTS if self._events else 0):
            try:
                data = nvml.nvmlEventSetWait_v2(self._events, 0)
            except nvml.NVMLError as e:
                if getattr(e, "value", None) != nvml.NVML_ERROR_TIMEOUT:
                    self.notes["xid"] = f"XID events: {e}"
                return
            index = self._index(data.device)
            if data.eventType == nvml.nvmlEventTypeXidCriticalError and index is not None:
                xid = int(data.eventData)
                self._last_xid[index] = xid
                text = f"XID {xid}: {XIDS.get(xid, 'see the XID catalogue of the driver')}"
                into.event(Event(now, self._entity(index), "warning", "XID", text))

    def _index(self, device: Any) -> int | None:
        """Which GPU an event is about; by address, as a GPU that fell off the bus answers no question."""
        address = ctypes.cast(device, ctypes.c_void_p).value
        return next((i for i, g in self._gpus.items() if ctypes.cast(g, ctypes.c_void_p).value == address), None)


# ------------------------------------------------------------------------- one function a group of metrics of one GPU
def _utilisation(nvml: Any, gpu: Any) -> Reading:
    rates = nvml.nvmlDeviceGetUtilizationRates(gpu)
    yield "DCGM_FI_DEV_GPU_UTIL", {}, rates.gpu, "gauge"
    yield "DCGM_FI_DEV_MEM_COPY_UTIL", {}, rates.memory, "gauge"


def _memory(nvml: Any, gpu: Any) -> Reading:
    memory = nvml.nvmlDeviceGetMemoryInfo(gpu)
    for name, value in (("USED", memory.used), ("FREE", memory.free), ("TOTAL", memory.total)):
        yield f"DCGM_FI_DEV_FB_{name}", {}, value / MIB, "gauge"


def _power(nvml: Any, gpu: Any) -> Reading:
    yield "DCGM_FI_DEV_POWER_USAGE", {}, nvml.nvmlDeviceGetPowerUsage(gpu) / 1000, "gauge"


def _temperature(nvml: Any, gpu: Any) -> Reading:
    yield "DCGM_FI_DEV_GPU_TEMP", {}, nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU), "gauge"


def _clock(nvml: Any, gpu: Any) -> Reading:
    yield "DCGM_FI_DEV_SM_CLOCK", {}, nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM), "gauge"


def _throttle_reasons(nvml: Any, gpu: Any) -> Reading:
    """A bit mask, and 1 for each reason that holds now."""
    try:
        mask = nvml.nvmlDeviceGetCurrentClocksEventReasons(gpu)
    except nvml.NVMLError_FunctionNotFound:  # drivers before 535
        mask = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu)
    yield "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS", {}, mask, "gauge"
    for reason, bit in _THROTTLES.items():
        yield "DCGM_EXP_CLOCK_EVENTS_COUNT", {"clock_event": reason}, float(bool(mask & bit)), "gauge"


def _ecc(nvml: Any, gpu: Any) -> Reading:
    for name, kind in (("DBE", nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED),
                       ("SBE", nvml.NVML_MEMORY_ERROR_TYPE_CORRECTED)):
        count = nvml.nvmlDeviceGetTotalEccErrors(gpu, kind, nvml.NVML_VOLATILE_ECC)
        yield f"DCGM_FI_DEV_ECC_{name}_VOL_TOTAL", {}, count, "counter"


def _remapped_rows(nvml: Any, gpu: Any) -> Reading:
    corrected, uncorrected, pending, failure = nvml.nvmlDeviceGetRemappedRows(gpu)
    yield "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS", {}, corrected, "counter"
    yield "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS", {}, uncorrected, "counter"
    yield "DCGM_FI_DEV_ROW_REMAP_PENDING", {}, pending, "gauge"
    yield "DCGM_FI_DEV_ROW_REMAP_FAILURE", {}, failure, "gauge"


def _retired_pages(nvml: Any, gpu: Any) -> Reading:
    for name, cause in (("SBE", nvml.NVML_PAGE_RETIREMENT_CAUSE_MULTIPLE_SINGLE_BIT_ECC_ERRORS),
                        ("DBE", nvml.NVML_PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR)):
        yield f"DCGM_FI_DEV_RETIRED_{name}", {}, len(nvml.nvmlDeviceGetRetiredPages(gpu, cause)), "counter"
    yield "DCGM_FI_DEV_RETIRED_PENDING", {}, nvml.nvmlDeviceGetRetiredPagesPendingStatus(gpu), "gauge"


def _pcie(nvml: Any, gpu: Any) -> Reading:
    yield "DCGM_FI_DEV_PCIE_REPLAY_COUNTER", {}, nvml.nvmlDeviceGetPcieReplayCounter(gpu), "counter"


PROBES: tuple[Callable[[Any, Any], Reading], ...] = (
    _utilisation, _memory, _power, _temperature, _clock, _throttle_reasons, _ecc, _remapped_rows, _retired_pages, _pcie)
