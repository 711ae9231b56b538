"""One GPU of an opened driver: what it gives, and what it does not offer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from aiops.sources.nvml.mig import NO_INSTANCE, Gpm, instances
from aiops.sources.nvml.probes import FAST, FAST_PROBES, SLOW, SLOW_PROBES, Field, Reading, memory, read_fields
from aiops.sources.nvml.processes import GpuUsers, User, shares
from aiops.types import Entity

UNSUPPORTED = "not supported by this GPU or driver"


class DriverGone(RuntimeError):  # noqa: N818 - what happened, and no mistake of anybody
    """The driver was unloaded or replaced under this process, or shows other GPUs than before."""


class Gpu:
    """Asked by one thread. `absent`: what it does not offer -> why; `troubles`: what failed otherwise, by what was asked.

    `lost` is set by whichever call found that the GPU no longer answers; set it to False before asking again.
    """

    def __init__(self, nvml: Any, index: int, handle: Any, uuid: str = "", pci: str = "") -> None:
        self.index, self.handle, self.uuid, self.pci = index, handle, uuid, pci
        self.absent: dict[str, str] = {}
        self.troubles: dict[str, str] = {}
        self.lost = False
        self.last_xid = 0
        self.mig: dict[int, Any] = {}
        self._nvml = nvml
        self._gpm: dict[int | None, Gpm] = {None: Gpm(nvml, handle)}

    def readings(self, slow: bool) -> Reading:
        """The whole GPU: what changes fast, and if `slow` the rest too. Whatever part of it fails, the others are given."""
        for probe in (*FAST_PROBES, *(SLOW_PROBES if slow else ())):
            yield from self._guarded(probe.__name__.strip("_"), lambda p=probe: p(self._nvml, self.handle))  # type: ignore[misc]
        yield from self._guarded("fields", lambda: self._fields(FAST))
        if slow:
            yield from self._guarded("slow fields", lambda: self._fields(SLOW))
        yield from self._guarded("gpm", self._gpm[None].read)

    def of_instances(self) -> Iterator[tuple[int, tuple[str, dict[str, str], float, str]]]:
        """MIG instances: their number, and a reading."""
        for number, handle in self.mig.items():
            gpm = self._gpm.setdefault(number, Gpm(self._nvml, self.handle, number))
            for name, read in (("memory of MIG instances", lambda h=handle: memory(self._nvml, h)),
                               ("gpm of MIG instances", gpm.read)):
                for reading in self._guarded(name, read):
                    yield number, reading

    def find_instances(self) -> None:
        """Looks which MIG instances there are now."""
        before = self.mig.keys()
        list(self._guarded("mig", self._look))
        for gone in before - self.mig.keys():
            if gone in self._gpm:
                self._gpm.pop(gone).close()
        if before != self.mig.keys():
            self.absent.clear()  # with MIG a GPU offers other things

    def processes(self, users: GpuUsers) -> tuple[list[tuple[str, dict[str, str], float, str]], set[tuple[Entity, int | None]]]:
        """Memory by user, and which pods work on it (on which instance of it)."""
        pods: set[tuple[Entity, int | None]] = set()
        return list(self._guarded("processes", lambda: self._processes(users, pods))), pods

    def close(self) -> None:
        """Gives back what it holds of the driver. Never raises."""
        for gpm in self._gpm.values():
            gpm.close()

    # --------------------------------------------------------------------------------------------------- in one place
    def _guarded(self, what: str, read: Callable[[], Reading]) -> Reading:
        """What `read` gives, or nothing. Raises DriverGone."""
        if self.lost or what in self.absent:
            return
        try:
            readings = list(read())
        except self._nvml.NVMLError as e:
            self._failed(what, e)
            return
        self.troubles.pop(what, None)
        yield from readings

    def _failed(self, what: str, error: Exception) -> None:
        nvml, code = self._nvml, getattr(error, "value", None)
        if code in (nvml.NVML_ERROR_GPU_IS_LOST, nvml.NVML_ERROR_GPU_NOT_FOUND):
            self.lost = True
        elif code in (nvml.NVML_ERROR_UNINITIALIZED, nvml.NVML_ERROR_DRIVER_NOT_LOADED, nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH):
            raise DriverGone(f"NVML: {error}. The driver was unloaded or replaced; it is opened anew.")
        elif code == nvml.NVML_ERROR_NO_PERMISSION:
            self.absent[what] = "no permission"
        elif code in (nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_FUNCTION_NOT_FOUND, nvml.NVML_ERROR_INVALID_ARGUMENT,
                      nvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH):
            self.absent[what] = UNSUPPORTED
        else:
            self.troubles[what] = str(error)

    def _fields(self, fields: tuple[Field, ...]) -> Reading:
        """A table of fields in one call, without those that are absent."""
        wanted = [f for f in fields if f.metric not in self.absent]
        for asked, value, code in read_fields(self._nvml, self.handle, wanted) if wanted else ():
            if value is not None:
                self.troubles.pop(asked.metric, None)
                yield asked.metric, {}, value, asked.kind
            else:
                self._failed(asked.metric, self._nvml.NVMLError(code))

    def _look(self) -> Reading:
        self.mig = instances(self._nvml, self.handle)
        yield from ()

    def _processes(self, users: GpuUsers, pods: set[tuple[Entity, int | None]]) -> Reading:
        used: list[tuple[User, float]] = []
        for process in self._nvml.nvmlDeviceGetComputeRunningProcesses_v3(self.handle):
            user = users.of(process.pid)
            used.append((user, float(process.usedGpuMemory or 0)))
            if user.pod:
                pods.add((user.pod, process.gpuInstanceId if process.gpuInstanceId != NO_INSTANCE else None))
        for user, size in shares(used).items():
            yield "nvml_process_memory_bytes", user.labels, size, "gauge"
