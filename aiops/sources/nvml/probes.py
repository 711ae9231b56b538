"""What is asked of one GPU: one function a group of metrics, and a table of fields that come in one call.

The names are those of dcgm-exporter. https://docs.nvidia.com/deploy/nvml-api/ (group nvmlFieldValueEnums)
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Reading = Iterator[tuple[str, dict[str, str], float, str]]
"""metric, labels, value, kind"""
Probe = Callable[[Any, Any], Reading]

MIB = 2**20
ALL_LINKS = 0xFFFFFFFF
"""As scope of a field: summed over all NVLinks."""
MAX_LINKS = 36
REASONS = {"gpu_idle": 0x1, "clocks_setting": 0x2, "sw_power_cap": 0x4, "hw_slowdown": 0x8, "sync_boost": 0x10,
           "sw_thermal": 0x20, "hw_thermal": 0x40, "hw_power_brake": 0x80, "display_clocks": 0x100}
"""Why clocks are not higher: bits of the mask, in the exporter's words."""


def _same(value: float) -> float:
    return value


def _ber(code: float) -> float:
    """A bit error rate: 4 bits of mantissa above 8 bits of a negative power of ten (nvml.h, NVML_NVLINK_BER_…)."""
    return float((int(code) >> 8) & 0xF) * 10.0 ** -(int(code) & 0xFF)


@dataclass(frozen=True, slots=True)
class Field:
    """One field of NVML. `scope` is ALL_LINKS for what is counted by NVLink."""

    id: int
    metric: str
    kind: str = "counter"
    scope: int = 0
    convert: Callable[[float], float] = _same


def _fields(rows: str, **same: Any) -> tuple[Field, ...]:
    return tuple(Field(int(number), f"DCGM_FI_DEV_{name}", **same) for number, name in (row.split() for row in rows.split(",")))


FAST = (
    *_fields("3 ECC_SBE_VOL_TOTAL, 4 ECC_DBE_VOL_TOTAL, 38 NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL,"
             "45 NVLINK_CRC_DATA_ERROR_COUNT_TOTAL, 52 NVLINK_REPLAY_ERROR_COUNT_TOTAL, 59 NVLINK_RECOVERY_ERROR_COUNT_TOTAL,"
             "75 THERMAL_VIOLATION, 77 BOARD_LIMIT_VIOLATION, 79 RELIABILITY_VIOLATION, 94 PCIE_REPLAY_COUNTER,"
             "142 CORRECTABLE_REMAPPED_ROWS, 143 UNCORRECTABLE_REMAPPED_ROWS, 173 PCIE_COUNT_CORRECTABLE_ERRORS,"
             "269 CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN_NS, 270 CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN_NS,"
             "271 CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN_NS"),
    *_fields("82 MEMORY_TEMP, 144 ROW_REMAP_PENDING, 145 ROW_REMAP_FAILURE, 230 GET_GPU_RECOVERY_ACTION", kind="gauge"),
    *_fields("190 ENFORCED_POWER_LIMIT", kind="gauge", convert=lambda milliwatts: milliwatts / 1000),
    *_fields("161 NVLINK_ERROR_DL_REPLAY, 162 NVLINK_ERROR_DL_RECOVERY, 163 NVLINK_ERROR_DL_CRC, 208 NVLINK_COUNT_RX_ERRORS,"
             "211 NVLINK_COUNT_LOCAL_LINK_INTEGRITY_ERRORS, 214 NVLINK_COUNT_LINK_RECOVERY_FAILED_EVENTS,"
             "215 NVLINK_COUNT_LINK_RECOVERY_EVENTS, 221 NVLINK_COUNT_RX_SYMBOL_ERRORS", scope=ALL_LINKS),
    *_fields("220 NVLINK_COUNT_EFFECTIVE_BER_FLOAT", kind="gauge", scope=ALL_LINKS, convert=_ber))
SLOW = (
    *_fields("5 ECC_SBE_AGG_TOTAL, 6 ECC_DBE_AGG_TOTAL, 10 ECC_DBE_VOL_L2, 11 ECC_SBE_VOL_DEV, 12 ECC_DBE_VOL_DEV,"
             "14 ECC_DBE_VOL_REG, 29 RETIRED_SBE, 30 RETIRED_DBE"),
    *_fields("31 RETIRED_PENDING", kind="gauge"))
_TYPES = {0: "dVal", 1: "uiVal", 2: "ulVal", 3: "ullVal", 4: "sllVal", 5: "siVal", 6: "usVal"}
"""Value type of NVML -> member of its union."""


def read_fields(nvml: Any, gpu: Any, fields: Sequence[Field]) -> Iterator[tuple[Field, float | None, int]]:
    """One call for all: field, value (None where it has none) and NVML's return code. Raises NVMLError for the call itself."""
    for field, got in zip(fields, nvml.nvmlDeviceGetFieldValues(gpu, [(f.id, f.scope) for f in fields]), strict=True):
        if got.nvmlReturn == nvml.NVML_SUCCESS and got.valueType in _TYPES:
            yield field, field.convert(float(getattr(got.value, _TYPES[got.valueType]))), 0
        else:
            yield field, None, int(got.nvmlReturn)


# ---------------------------------------------------------------------------------------------- asked at every poll
def _utilisation(nvml: Any, gpu: Any) -> Reading:
    rates = nvml.nvmlDeviceGetUtilizationRates(gpu)
    yield "DCGM_FI_DEV_GPU_UTIL", {}, rates.gpu, "gauge"
    yield "DCGM_FI_DEV_MEM_COPY_UTIL", {}, rates.memory, "gauge"


def memory(nvml: Any, gpu: Any) -> Reading:
    """MiB. The second version of the call does not count what is reserved as used; drivers before 510 lack it."""
    try:
        got = nvml.nvmlDeviceGetMemoryInfo(gpu, nvml.nvmlMemory_v2)
    except nvml.NVMLError_FunctionNotFound:
        got = nvml.nvmlDeviceGetMemoryInfo(gpu)
    for name, value in (("USED", got.used), ("FREE", got.free), ("TOTAL", got.total)):
        yield f"DCGM_FI_DEV_FB_{name}", {}, value / MIB, "gauge"
    yield "DCGM_FI_DEV_FB_RESERVED", {}, getattr(got, "reserved", 0) / MIB, "gauge"


def _power(nvml: Any, gpu: Any) -> Reading:
    yield "DCGM_FI_DEV_POWER_USAGE", {}, nvml.nvmlDeviceGetPowerUsage(gpu) / 1000, "gauge"


def _temperature(nvml: Any, gpu: Any) -> Reading:
    try:
        celsius = nvml.nvmlDeviceGetTemperatureV(gpu, nvml.NVML_TEMPERATURE_GPU)
    except nvml.NVMLError_FunctionNotFound:  # drivers before 570
        celsius = nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU)
    yield "DCGM_FI_DEV_GPU_TEMP", {}, celsius, "gauge"


def _margin(nvml: Any, gpu: Any) -> Reading:
    yield "DCGM_FI_DEV_GPU_TEMP_LIMIT", {}, nvml.nvmlDeviceGetMarginTemperature(gpu), "gauge"


def _clock(nvml: Any, gpu: Any) -> Reading:
    yield "DCGM_FI_DEV_SM_CLOCK", {}, nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM), "gauge"
    yield "DCGM_FI_DEV_MEM_CLOCK", {}, nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_MEM), "gauge"


def _throttle_reasons(nvml: Any, gpu: Any) -> Reading:
    """1 for each reason that holds now."""
    try:
        mask = nvml.nvmlDeviceGetCurrentClocksEventReasons(gpu)
    except nvml.NVMLError_FunctionNotFound:  # drivers before 535
        mask = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu)
    for reason, bit in REASONS.items():
        yield "DCGM_EXP_CLOCK_EVENTS_COUNT", {"clock_event": reason}, float(bool(mask & bit)), "gauge"


# --------------------------------------------------------------------------------------------- asked twice a minute
def _thresholds(nvml: Any, gpu: Any) -> Reading:
    for name, threshold in (("SLOWDOWN", nvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN),
                            ("SHUTDOWN", nvml.NVML_TEMPERATURE_THRESHOLD_SHUTDOWN)):
        yield f"DCGM_FI_DEV_{name}_TEMP", {}, nvml.nvmlDeviceGetTemperatureThreshold(gpu, threshold), "gauge"


def _pcie(nvml: Any, gpu: Any) -> Reading:
    yield "DCGM_FI_DEV_PCIE_LINK_WIDTH", {}, nvml.nvmlDeviceGetCurrPcieLinkWidth(gpu), "gauge"
    yield "DCGM_FI_DEV_PCIE_MAX_LINK_WIDTH", {}, nvml.nvmlDeviceGetMaxPcieLinkWidth(gpu), "gauge"
    yield "DCGM_FI_DEV_PCIE_LINK_GEN", {}, nvml.nvmlDeviceGetCurrPcieLinkGeneration(gpu), "gauge"
    yield "DCGM_FI_DEV_PCIE_MAX_LINK_GEN", {}, nvml.nvmlDeviceGetMaxPcieLinkGeneration(gpu), "gauge"


def _spare_rows(nvml: Any, gpu: Any) -> Reading:
    banks = nvml.nvmlDeviceGetRowRemapperHistogram(gpu)
    for name in ("max", "high", "partial", "low", "none"):
        yield f"DCGM_FI_DEV_BANKS_REMAP_ROWS_AVAIL_{name.upper()}", {}, getattr(banks, name), "gauge"


def _sram(nvml: Any, gpu: Any) -> Reading:
    """Errors of caches and registers, which have no spare rows."""
    status = nvml.c_nvmlEccSramErrorStatus_v1_t()
    nvml.nvmlDeviceGetSramEccErrorStatus(gpu, ctypes.byref(status))
    yield "DCGM_FI_DEV_ECC_DBE_VOL_SRM", {}, status.volatileUncParity + status.volatileUncSecDed, "counter"
    yield "DCGM_FI_DEV_THRESHOLD_SRM", {}, status.bThresholdExceeded, "gauge"


def _unrepairable(nvml: Any, gpu: Any) -> Reading:
    yield "DCGM_FI_DEV_MEMORY_UNREPAIRABLE_FLAG", {}, nvml.nvmlDeviceGetUnrepairableMemoryFlag_v1(gpu), "gauge"


def _nvlinks(nvml: Any, gpu: Any) -> Reading:
    """How many links are up. The first link that is not there ends the asking."""
    states: list[int] = []
    for link in range(MAX_LINKS):
        try:
            states.append(nvml.nvmlDeviceGetNvLinkState(gpu, link))
        except (nvml.NVMLError_InvalidArgument, nvml.NVMLError_NotSupported):
            if link == 0:
                raise
            break
    yield "nvml_nvlinks_active", {}, sum(state == nvml.NVML_FEATURE_ENABLED for state in states), "gauge"


def _fabric(nvml: Any, gpu: Any) -> Reading:
    try:
        info = nvml.c_nvmlGpuFabricInfo_v3_t()
        nvml.nvmlDeviceGetGpuFabricInfoV(gpu, ctypes.byref(info))
    except nvml.NVMLError_ArgumentVersionMismatch:  # drivers before 560
        info = nvml.c_nvmlGpuFabricInfo_v2_t()
        nvml.nvmlDeviceGetGpuFabricInfoV(gpu, ctypes.byref(info))
    failed = info.state == nvml.NVML_GPU_FABRIC_STATE_COMPLETED and info.status != nvml.NVML_SUCCESS
    yield "DCGM_FI_DEV_FABRIC_MANAGER_STATUS", {}, 4 if failed else info.state, "gauge"
    if getattr(info, "healthSummary", 0):
        yield "DCGM_FI_DEV_FABRIC_HEALTH_SUMMARY", {}, info.healthSummary, "gauge"


def _persistence(nvml: Any, gpu: Any) -> Reading:
    yield "DCGM_FI_DEV_PERSISTENCE_MODE", {}, nvml.nvmlDeviceGetPersistenceMode(gpu), "gauge"


FAST_PROBES: tuple[Probe, ...] = (_utilisation, memory, _power, _temperature, _margin, _clock, _throttle_reasons)
SLOW_PROBES: tuple[Probe, ...] = (
    _thresholds, _pcie, _spare_rows, _sram, _unrepairable, _nvlinks, _fabric, _persistence)
