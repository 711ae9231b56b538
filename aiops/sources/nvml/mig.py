"""MIG instances of a GPU, and how busy a GPU or an instance is by its own counters (GPM, from Hopper on)."""

from __future__ import annotations

from typing import Any

from aiops.sources.nvml.probes import Reading

NO_INSTANCE = 0xFFFFFFFF
METRICS = {1: "GR_ENGINE_ACTIVE", 2: "SM_ACTIVE", 5: "PIPE_TENSOR_ACTIVE", 10: "DRAM_ACTIVE"}
"""Metric of GPM (per cent) -> the exporter's name for it (0 to 1)."""


def instances(nvml: Any, gpu: Any) -> dict[int, Any]:
    """GPU instance id -> handle of its first MIG device; empty where MIG is off or unknown. Raises NVMLError when lost."""
    try:
        if nvml.nvmlDeviceGetMigMode(gpu)[0] != nvml.NVML_DEVICE_MIG_ENABLE:
            return {}
        most = nvml.nvmlDeviceGetMaxMigDeviceCount(gpu)
    except (nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound):
        return {}
    found: dict[int, Any] = {}
    for index in range(most):
        try:
            handle = nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, index)
            found.setdefault(nvml.nvmlDeviceGetGpuInstanceId(handle), handle)
        except (nvml.NVMLError_NotFound, nvml.NVMLError_InvalidArgument):
            continue  # the places need not be taken in order
    return found


class Gpm:
    """Two samples in turn; what lies between them is the reading. `instance` None: the whole GPU."""

    def __init__(self, nvml: Any, gpu: Any, instance: int | None = None) -> None:
        self._nvml, self._gpu, self._instance = nvml, gpu, instance
        self._before: Any = None
        self._spare: Any = None

    def read(self) -> Reading:
        """Nothing at the first call. Raises NVMLError where the GPU does not count."""
        nvml = self._nvml
        if self._before is None and not nvml.nvmlGpmQueryDeviceSupport(self._gpu).isSupportedDevice:
            raise nvml.NVMLError(nvml.NVML_ERROR_NOT_SUPPORTED)
        if self._spare is None:
            self._spare = nvml.nvmlGpmSampleAlloc()
        if self._instance is None:
            nvml.nvmlGpmSampleGet(self._gpu, self._spare)
        else:
            nvml.nvmlGpmMigSampleGet(self._gpu, self._instance, self._spare)
        before, self._before, self._spare = self._before, self._spare, self._before
        if before is not None:
            yield from self._between(before, self._before)

    def _between(self, before: Any, after: Any) -> Reading:
        nvml = self._nvml
        ask = nvml.c_nvmlGpmMetricsGet_t()
        ask.version, ask.numMetrics, ask.sample1, ask.sample2 = nvml.NVML_GPM_METRICS_GET_VERSION, len(METRICS), before, after
        for place, number in enumerate(METRICS):
            ask.metrics[place].metricId = number
        nvml.nvmlGpmMetricsGet(ask)
        for place, name in enumerate(METRICS.values()):
            if ask.metrics[place].nvmlReturn == nvml.NVML_SUCCESS:
                yield f"DCGM_FI_PROF_{name}", {}, ask.metrics[place].value / 100, "gauge"

    def close(self) -> None:
        """Gives the samples back. Never raises."""
        for sample in (self._before, self._spare):
            if sample is not None:
                try:
                    self._nvml.nvmlGpmSampleFree(sample)
                except self._nvml.NVMLError:
                    continue  # the driver is gone, and the sample with it
        self._before = self._spare = None
