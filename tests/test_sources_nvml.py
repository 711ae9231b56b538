"""The NVML source through the real binding, against a small C library that stands in for the driver."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.collected import Collected

from aiops import meaning
from aiops.sources.nvml import NvmlSource

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)
    import pynvml

NOW = 1_700_000_000.0
SOURCE = Path(__file__).parent / "fakes/nvml.c"
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C file as libnvidia-ml.so.1."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if not compiler:
        pytest.skip("no C compiler on this machine")
    out = tmp_path_factory.mktemp("nvml") / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(out), str(SOURCE)], check=True)
    return out


@pytest.fixture
def driver(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ctypes.CDLL]:
    """A fresh copy of the library (static data and all) as what the binding has loaded."""
    own = shutil.copy(library, tmp_path / "libnvidia-ml.so.1")
    loaded = ctypes.CDLL(str(own))
    monkeypatch.setattr(pynvml, "nvmlLib", loaded)
    pynvml._nvmlGetFunctionPointer_cache.clear()
    yield loaded
    pynvml._nvmlGetFunctionPointer_cache.clear()


def poll(source: NvmlSource, now: float = NOW) -> Collected:
    got = Collected()
    source.poll(now, got)
    return got


def test_gpus_are_read_in_the_units_of_dcgm(driver: ctypes.CDLL) -> None:
    """Percent, MiB, watts, degrees, MHz; each GPU an entity of its node."""
    source = NvmlSource(node="gpu-7")
    assert source.available() is None
    got = poll(source)
    assert {s.entity for s in got.samples} == {"gpu/gpu-7/0", "gpu/gpu-7/1"}
    first = {s.metric: s.value for s in got.samples if s.entity.endswith("/0") and not s.labels}
    assert first["DCGM_FI_DEV_GPU_UTIL"] == 37
    assert first["DCGM_FI_DEV_FB_USED"] == 20 * 1024
    assert first["DCGM_FI_DEV_FB_TOTAL"] == 80 * 1024
    assert first["DCGM_FI_DEV_POWER_USAGE"] == 312.5
    assert first["DCGM_FI_DEV_GPU_TEMP"] == 61
    assert first["DCGM_FI_DEV_SM_CLOCK"] == 1755
    assert first["DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS"] == 2
    assert first["DCGM_FI_DEV_PCIE_REPLAY_COUNTER"] == 7
    source.close()


def test_every_metric_is_known_to_the_dcgm_pack(driver: ctypes.CDLL) -> None:
    """One pack for both: same names, same kinds."""
    pack = meaning.load(names=["dcgm"])
    for s in poll(NvmlSource()).samples:
        assert pack.knows(s.metric), s.metric
        assert pack.kind(s.metric) == s.kind, s.metric


def test_the_node_depends_on_its_gpus(driver: ctypes.CDLL) -> None:
    """Told once, when the driver is opened."""
    source = NvmlSource(node="gpu-7")
    _, links = poll(source).topology[0]
    assert [(e.source, e.target, e.kind) for e in links.edges] == [
        ("node//gpu-7", "gpu/gpu-7/0", "uses"), ("node//gpu-7", "gpu/gpu-7/1", "uses")]
    assert poll(source).topology == []


def test_an_xid_is_an_event_with_its_meaning(driver: ctypes.CDLL) -> None:
    """It is delivered once, for the right GPU, and stays visible as the last XID."""
    source = NvmlSource(node="gpu-7")
    assert poll(source).events == []
    driver.fake_xid(1, 79)
    driver.fake_xid(1, 48)
    got = poll(source, NOW + 15)
    assert [(e.time, e.entity, e.kind, e.reason) for e in got.events] == [(NOW + 15, "gpu/gpu-7/1", "warning", "XID")] * 2
    assert got.events[0].text == "XID 79: the GPU has fallen off the bus"
    later = poll(source, NOW + 30)
    assert later.events == []
    assert later.values("DCGM_FI_DEV_XID_ERRORS") == [0.0, 48.0]


def test_throttling_names_its_reason_also_on_an_older_driver(driver: ctypes.CDLL) -> None:
    """The bit mask is taken apart; the library offers only the older of the two calls."""
    source = NvmlSource()
    driver.fake_throttle(0, ctypes.c_ulonglong(0x40 | 0x8))
    got = poll(source)
    assert got.values("DCGM_EXP_CLOCK_EVENTS_COUNT", clock_event="hw_thermal") == [1.0, 0.0]
    assert got.values("DCGM_EXP_CLOCK_EVENTS_COUNT", clock_event="hw_power_brake") == [0.0, 0.0]


def test_ecc_errors_are_counted(driver: ctypes.CDLL) -> None:
    """Uncorrected and volatile: not mixed up with the corrected ones."""
    source = NvmlSource()
    driver.fake_ecc(0, ctypes.c_ulonglong(3))
    got = poll(source)
    assert got.values("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL") == [3.0]
    assert got.values("DCGM_FI_DEV_ECC_SBE_VOL_TOTAL") == [0.0]


def test_what_a_gpu_does_not_offer_is_named_once(driver: ctypes.CDLL) -> None:
    """GPU 1 has no ECC, the library knows no page retirement: notes say so, and nothing stops."""
    source = NvmlSource()
    poll(source)
    notes = dict(source.notes)
    assert notes["ecc 1"] == "ecc of GPU 1: Not Supported"
    assert "ecc 0" not in notes
    assert "retired_pages 0" in notes
    poll(source)
    assert source.notes == notes


def test_a_lost_gpu_is_one_event_and_the_others_are_still_read(driver: ctypes.CDLL) -> None:
    """Off the bus: said once; back again, it is read again."""
    source = NvmlSource(node="gpu-7")
    poll(source)
    driver.fake_lose(0, 1)
    got = poll(source)
    assert [(e.entity, e.reason) for e in got.events] == [("gpu/gpu-7/0", "GPULost")]
    assert {s.entity for s in got.samples} == {"gpu/gpu-7/1"}
    assert poll(source).events == []
    driver.fake_lose(0, 0)
    assert {s.entity for s in poll(source).samples} == {"gpu/gpu-7/0", "gpu/gpu-7/1"}
    driver.fake_lose(0, 1)
    assert [e.reason for e in poll(source).events] == ["GPULost"], "lost a second time is news"


def test_without_any_gpu_that_answers_the_source_fails_and_starts_anew(driver: ctypes.CDLL) -> None:
    """The failure is visible in its health; after a reset of the driver it recovers by itself."""
    source = NvmlSource(node="gpu-7")
    poll(source)
    driver.fake_lose(0, 1)
    driver.fake_lose(1, 1)
    with pytest.raises(RuntimeError, match="no GPU of gpu-7 answers"):
        poll(source)
    driver.fake_lose(0, 0)
    driver.fake_lose(1, 0)
    assert len({s.entity for s in poll(source).samples}) == 2


def test_closing_gives_the_event_set_back(driver: ctypes.CDLL) -> None:
    """A daemon that reopens the driver for weeks must not leak."""
    source = NvmlSource()
    poll(source)
    assert driver.fake_events_in_use() == 1
    source.close()
    source.close()
    assert driver.fake_events_in_use() == 0


def test_a_missing_driver_is_a_reason_and_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine without NVIDIA GPUs `available` says why; a poll fails in plain words."""
    def missing(name: str) -> None:
        raise OSError(name)
    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(pynvml, "CDLL", missing)
    pynvml._nvmlGetFunctionPointer_cache.clear()
    source = NvmlSource()
    reason = source.available()
    assert reason and "NVML Shared Library Not Found" in reason and "driver" in reason
    with pytest.raises(RuntimeError, match="Is the NVIDIA driver installed"):
        poll(source)


def test_the_binding_finds_the_library_by_its_own_name(library: Path) -> None:
    """The whole way, as in production: the loader finds libnvidia-ml.so.1, nothing is patched, nothing is warned."""
    code = ("from aiops.sources.nvml import NvmlSource\nfrom fakes.collected import Collected\n"
            "c = Collected(); NvmlSource(node='n').poll(1.0, c); print(len({s.entity for s in c.samples}))")
    env = os.environ | {"LD_LIBRARY_PATH": str(library.parent), "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "2\n"
