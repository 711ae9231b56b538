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
from helpers import T0, pipeline

from aiops import meaning, reach
from aiops.intake import Intake
from aiops.sources.nvml.probes import REASONS
from aiops.sources.nvml.processes import MAX_NAMES, GpuUsers, User, shares
from aiops.sources.nvml.source import SLOW_S, NvmlSource

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)
    import pynvml

NOW = 1_700_000_000.0
SOURCE = Path(__file__).parent / "fakes/nvml.c"
ROOT = Path(__file__).parents[1]
UID = "2c223d78-1c81-49f5-8269-44550bf786a9"
EVERY_POLL = 12
"""Calls to the driver for a GPU that offers everything, without what is waiting in the event set."""


def build(folder: Path, *flags: str) -> Path:
    """The C file as libnvidia-ml.so.1."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if not compiler:
        pytest.skip("no C compiler on this machine")
    out = folder / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-Wall", "-Werror", "-shared", "-fPIC", *flags, "-o", str(out), str(SOURCE)], check=True)
    return out


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture(scope="module")
def old_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("nvml-old"), "-DOLD")


def loaded(library: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> ctypes.CDLL:
    """A fresh copy of the library (static data and all) as what the binding has loaded."""
    own = ctypes.CDLL(str(shutil.copy(library, folder / "libnvidia-ml.so.1")))
    monkeypatch.setattr(pynvml, "nvmlLib", own)
    pynvml._nvmlGetFunctionPointer_cache.clear()
    return own


@pytest.fixture
def driver(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ctypes.CDLL]:
    yield loaded(library, tmp_path, monkeypatch)
    pynvml._nvmlGetFunctionPointer_cache.clear()


@pytest.fixture
def old_driver(old_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ctypes.CDLL]:
    yield loaded(old_library, tmp_path, monkeypatch)
    pynvml._nvmlGetFunctionPointer_cache.clear()


@pytest.fixture
def users(tmp_path: Path) -> GpuUsers:
    """Three processes: one in a pod that is known, one in a pod that is not, one in none."""
    other = UID.replace("2c22", "ffff")
    for pid, cgroup, comm in (
            (101, f"0::/kubepods.slice/kubepods-pod{UID.replace('-', '_')}.slice/cri-containerd-ab.scope\n", "python3\n"),
            (102, f"12:memory:/kubepods/burstable/pod{other}/ab\n", "worker-123456\n"), (103, "0::/user.slice\n", "nsys\n")):
        (tmp_path / "proc" / str(pid)).mkdir(parents=True)
        (tmp_path / "proc" / str(pid) / "cgroup").write_text(cgroup)
        (tmp_path / "proc" / str(pid) / "comm").write_text(comm)
    (tmp_path / "pods" / f"ml_train-0_{UID}").mkdir(parents=True)
    (tmp_path / "pods" / "odd").mkdir()
    return GpuUsers(tmp_path / "proc", tmp_path / "pods")


def poll(source: NvmlSource, now: float = NOW) -> Collected:
    got = Collected()
    source.poll(now, got)
    return got


def of(got: Collected, entity: str) -> dict[str, float]:
    return {s.metric: s.value for s in got.samples if s.entity == entity and not s.labels}


# ---------------------------------------------------------------------------------------------------------- readings
def test_gpus_are_read_in_the_units_of_dcgm(driver: ctypes.CDLL) -> None:
    """Percent, MiB, watts, degrees, MHz, nanoseconds; each GPU an entity of its node."""
    source = NvmlSource(node="gpu-7")
    assert source.available() is None
    got = poll(source)
    assert {s.entity for s in got.samples} == {"gpu/gpu-7/0", "gpu/gpu-7/1"}
    first = {name.removeprefix("DCGM_FI_DEV_"): value for name, value in of(got, "gpu/gpu-7/0").items()}
    expected = {
        "GPU_UTIL": 37, "FB_USED": 19 * 1024, "FB_TOTAL": 80 * 1024, "FB_RESERVED": 1024, "POWER_USAGE": 312.5,
        "ENFORCED_POWER_LIMIT": 700, "GPU_TEMP": 62, "GPU_TEMP_LIMIT": 27, "MEMORY_TEMP": 71, "SLOWDOWN_TEMP": 89,
        "SHUTDOWN_TEMP": 95, "SM_CLOCK": 1755, "MEM_CLOCK": 2619, "THERMAL_VIOLATION": 123456789,
        "UNCORRECTABLE_REMAPPED_ROWS": 2, "ROW_REMAP_PENDING": 1, "BANKS_REMAP_ROWS_AVAIL_LOW": 1, "PCIE_REPLAY_COUNTER": 7,
        "PCIE_LINK_WIDTH": 16, "PCIE_MAX_LINK_GEN": 5, "ECC_DBE_AGG_TOTAL": 4, "ECC_DBE_VOL_SRM": 5, "THRESHOLD_SRM": 1,
        "NVLINK_RECOVERY_ERROR_COUNT_TOTAL": 6, "NVLINK_COUNT_RX_ERRORS": 18, "FABRIC_MANAGER_STATUS": 3,
        "GET_GPU_RECOVERY_ACTION": 0, "PERSISTENCE_MODE": 1, "nvml_nvlinks_active": 3}
    assert {name: first.get(name) for name in expected} == expected
    assert first["NVLINK_COUNT_EFFECTIVE_BER_FLOAT"] == pytest.approx(5e-15)
    source.close()


@pytest.mark.slow
def test_every_metric_is_known_to_the_dcgm_pack(driver: ctypes.CDLL, users: GpuUsers) -> None:
    """One pack for both: same names, same kinds."""
    pack = meaning.load(names=["dcgm"])
    source = NvmlSource(users=users)
    driver.fake_mig(0, 1)
    samples = poll(source).samples + poll(source, NOW + 2).samples
    assert len({s.metric for s in samples}) > 40
    for s in samples:
        assert pack.knows(s.metric), s.metric
        assert pack.kind(s.metric) == s.kind, s.metric


def test_an_older_driver_is_asked_in_its_own_words(old_driver: ctypes.CDLL) -> None:
    """Memory with what is reserved counted as used, temperature and reasons through the calls of before; the margin is absent."""
    source = NvmlSource(node="n")
    old_driver.fake_throttle(0, ctypes.c_ulonglong(0x40 | 0x8))
    got = poll(source)
    first = of(got, "gpu/n/0")
    assert (first["DCGM_FI_DEV_FB_USED"], first["DCGM_FI_DEV_GPU_TEMP"]) == (20 * 1024, 61)
    assert got.values("DCGM_EXP_CLOCK_EVENTS_COUNT", clock_event="hw_thermal") == [1.0, 0.0]
    assert any("margin" in note for note in source.notes.values())


def test_throttling_names_its_reasons(driver: ctypes.CDLL) -> None:
    """The bit mask is taken apart: a series for each reason that there is."""
    source = NvmlSource()
    driver.fake_throttle(0, ctypes.c_ulonglong(0x40 | 0x8))
    got = poll(source)
    told = {s.labels["clock_event"]: s.value for s in got.samples if s.labels.get("clock_event") and s.entity.endswith("/0")}
    assert told.keys() == REASONS.keys()
    assert {name for name, value in told.items() if value} == {"hw_thermal", "hw_slowdown"}


def test_ecc_errors_are_counted(driver: ctypes.CDLL) -> None:
    """Uncorrected and volatile: not mixed up with the corrected ones."""
    source = NvmlSource()
    driver.fake_ecc(0, ctypes.c_ulonglong(3))
    got = poll(source)
    assert got.values("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL") == [3.0]
    assert got.values("DCGM_FI_DEV_ECC_SBE_VOL_TOTAL") == [0.0]


def test_few_calls_a_poll_and_the_rest_twice_a_minute(driver: ctypes.CDLL) -> None:
    """What is absent is asked once; what rarely changes is asked every half minute."""
    source = NvmlSource()
    poll(source)
    driver.fake_calls()
    poll(source, NOW + 2)
    usual = driver.fake_calls()
    slow = poll(source, NOW + SLOW_S)
    assert usual <= 2 * EVERY_POLL + 1
    assert driver.fake_calls() > usual
    assert slow.values("DCGM_FI_DEV_PCIE_LINK_WIDTH") == [16.0, 8.0]
    assert poll(source, NOW + SLOW_S + 2).values("DCGM_FI_DEV_PCIE_LINK_WIDTH") == []
    poll(source, NOW - 1000)  # the clock was set back: no reason to wait for it


def test_what_a_gpu_does_not_offer_is_named_once(driver: ctypes.CDLL) -> None:
    """One line for all GPUs that lack the same; nothing stops."""
    source = NvmlSource()
    poll(source)
    notes = list(source.notes.values())
    [second] = [n for n in notes if n.startswith("GPU 1: not supported by this GPU or driver: ")]
    assert "ECC_DBE_VOL_TOTAL" in second and "spare_rows" in second and "nvlinks" in second and "gpm" in second
    assert "ECC_DBE_VOL_TOTAL" not in "".join(n for n in notes if n.startswith("GPU 0:"))
    poll(source)
    assert list(source.notes.values()) == notes


def test_what_this_process_may_not_ask_is_told_apart(driver: ctypes.CDLL) -> None:
    """A missing right is another matter than a missing function; equal GPUs share the line."""
    driver.fake_permitted(0)
    source = NvmlSource()
    poll(source)
    assert "GPU 0, 1: no permission: persistence" in source.notes.values()


# ------------------------------------------------------------------------------------------------------------- events
def test_an_xid_is_an_event_with_its_meaning(driver: ctypes.CDLL) -> None:
    """It is delivered once, for the right GPU, and stays visible as the last XID."""
    source = NvmlSource(node="gpu-7")
    assert poll(source).events == []
    driver.fake_xid(1, 79)
    driver.fake_xid(1, 48)
    got = poll(source, NOW + 15)
    assert [(e.time, e.entity, e.kind, e.reason) for e in got.events] == [
        (NOW + 15, "gpu/gpu-7/1", "warning", "XID 79"), (NOW + 15, "gpu/gpu-7/1", "warning", "XID 48")]
    assert "fallen off the bus" in got.events[0].text and "restart" in got.events[0].text
    later = poll(source, NOW + 30)
    assert later.events == []
    assert later.values("DCGM_FI_DEV_XID_ERRORS") == [0.0, 48.0]


def test_a_flood_of_equal_xids_is_one_event(driver: ctypes.CDLL) -> None:
    """XID 45 comes by the hundred when a job is killed, harms nobody, and does not hide the XID that matters."""
    source = NvmlSource(node="n")
    poll(source)
    driver.fake_xid(0, 94)
    for _ in range(500):
        driver.fake_xid(0, 45)
    got = poll(source, NOW + 2)
    assert [(e.reason, e.kind) for e in got.events] == [("XID 94", "warning"), ("XID 45", "normal")]
    assert "500 times" in got.events[1].text
    assert got.values("DCGM_FI_DEV_XID_ERRORS") == [94.0, 0.0]


def test_newer_events_are_asked_for_where_the_driver_knows_them(driver: ctypes.CDLL) -> None:
    """ECC, retirement, MIG, power; not the clocks, which change all the time."""
    source = NvmlSource(node="n")
    poll(source)
    assert (driver.fake_registered(0) & 0x14, driver.fake_registered(0) & 0x8402) == (0, 0x8402)
    assert driver.fake_registered(1) == 8
    for kind, data in ((0x2, 0), (0x400, 0), (0x8000, 1), (0x10, 0)):
        driver.fake_event(0, ctypes.c_ulonglong(kind), ctypes.c_ulonglong(data))
    events = poll(source, NOW + 2).events
    assert [e.reason for e in events] == ["ECCDoubleBit", "MemoryRetired", "RecoveryActionChange"]
    assert events[2].text == "GPU 0: the driver needs a reset of the GPU to recover"


def test_closing_gives_everything_back(driver: ctypes.CDLL) -> None:
    """A daemon that reopens the driver for weeks must not leak."""
    source = NvmlSource()
    poll(source)
    poll(source, NOW + 2)
    assert driver.fake_events_in_use() == 1 and driver.fake_samples_in_use() == 2
    source.close()
    source.close()
    assert driver.fake_events_in_use() == driver.fake_samples_in_use() == 0


# ------------------------------------------------------------------------------------------------- GPUs and the driver
def test_a_lost_gpu_is_one_event_and_the_others_are_still_read(driver: ctypes.CDLL) -> None:
    """Off the bus: said once, with its address; back again, it is read again."""
    source = NvmlSource(node="gpu-7")
    poll(source)
    driver.fake_lose(0, 1)
    got = poll(source)
    assert [(e.entity, e.reason, e.text) for e in got.events] == [
        ("gpu/gpu-7/0", "GPULost", "GPU 0 (0000:3b:00) no longer answers")]
    assert {s.entity for s in got.samples} == {"gpu/gpu-7/1"}
    assert poll(source).events == []
    driver.fake_lose(0, 0)
    back = poll(source)
    assert [e.reason for e in back.events] == ["GPUBack"]
    assert {s.entity for s in back.samples} == {"gpu/gpu-7/0", "gpu/gpu-7/1"}
    driver.fake_lose(0, 1)
    assert [e.reason for e in poll(source).events] == ["GPULost"], "lost a second time is news"


def test_a_gpu_that_was_lost_while_all_was_asked_is_told(driver: ctypes.CDLL) -> None:
    """Whichever call finds it; its XID stays to be seen although nothing else of it is."""
    source = NvmlSource(node="n")
    poll(source)
    driver.fake_xid(0, 79)
    driver.fake_lose(0, 1)
    got = poll(source, NOW + SLOW_S)
    assert [e.reason for e in got.events] == ["XID 79", "GPULost"]
    assert of(got, "gpu/n/0") == {"DCGM_FI_DEV_XID_ERRORS": 79.0}


def test_without_any_gpu_that_answers_the_source_fails_and_starts_anew(driver: ctypes.CDLL) -> None:
    """The failure is visible in its health, and told once; after a reset of the driver it recovers by itself."""
    source = NvmlSource(node="gpu-7")
    poll(source)
    driver.fake_lose(0, 1)
    driver.fake_lose(1, 1)
    events = []
    for _ in range(3):
        got = Collected()
        with pytest.raises(RuntimeError, match="no GPU of gpu-7 answers"):
            source.poll(NOW, got)
        events += got.events
    assert [e.reason for e in events] == ["GPULost", "GPULost"]
    driver.fake_lose(0, 0)
    driver.fake_lose(1, 0)
    assert len({s.entity for s in poll(source).samples}) == 2


def test_a_driver_that_is_replaced_is_opened_anew(driver: ctypes.CDLL) -> None:
    """The poll fails in plain words; the next one works and says which driver it is now."""
    source = NvmlSource(node="n")
    assert source.available() is None
    poll(source)
    driver.fake_driver(1)
    driver.fake_gone(1)
    with pytest.raises(RuntimeError, match="it is opened anew"):
        poll(source, NOW + 2)
    got = poll(source, NOW + 4)
    assert [(e.entity, e.kind, e.reason, e.text) for e in got.events] == [
        ("node//n", "change", "DriverChange", "NVIDIA driver 590.11.01, before 580.65.06")]
    assert len({s.entity for s in got.samples}) == 2


def test_a_gpu_that_is_taken_out_or_changed_is_seen(driver: ctypes.CDLL) -> None:
    """Fewer GPUs than before are a warning, others in their place a change."""
    source = NvmlSource(node="n")
    poll(source)
    driver.fake_count(1)
    poll(source, NOW + 2)
    with pytest.raises(RuntimeError, match="the number of GPUs changed from 2 to 1"):
        poll(source, NOW + SLOW_S)
    got = poll(source, NOW + SLOW_S + 2)
    assert [(e.kind, e.reason, e.text) for e in got.events] == [("warning", "GPUChange", "1 GPUs, before 2; 0 of them are new")]
    source.close()
    driver.fake_swap(1)
    assert [(e.kind, e.text) for e in poll(source, NOW + 99).events] == [("change", "1 GPUs, before 1; 1 of them are new")]


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


# --------------------------------------------------------------------------------------- topology, instances, processes
def test_the_node_depends_on_its_gpus(driver: ctypes.CDLL) -> None:
    """Told once, with what tells a GPU in the kernel's log and in other tools."""
    source = NvmlSource(node="gpu-7", users=GpuUsers(Path("/nowhere")))
    _, links = poll(source).topology[0]
    assert [(e.source, e.target, e.kind) for e in links.edges] == [
        ("node//gpu-7", "gpu/gpu-7/0", "uses"), ("node//gpu-7", "gpu/gpu-7/1", "uses")]
    assert {n.entity: n.labels for n in links.nodes}["gpu/gpu-7/0"] == {"uuid": "GPU-aaaa", "pci": "0000:3b:00"}
    assert poll(source, NOW + SLOW_S).topology == []


def test_who_works_on_a_gpu_is_known_by_pod(driver: ctypes.CDLL, users: GpuUsers) -> None:
    """Memory by pod where the kubelet names it, else by program; a pod depends on its GPU."""
    got = poll(NvmlSource(node="n", users=users))
    _, links = got.topology[0]
    assert ("pod/ml/train-0", "gpu/n/0", "uses") in [(e.source, e.target, e.kind) for e in links.edges]
    assert got.values("nvml_process_memory_bytes", pod="ml/train-0") == [4 * 2**30]
    assert got.values("nvml_process_memory_bytes", process="worker-N") == [2 * 2**30]
    assert got.values("nvml_process_memory_bytes", process="nsys") == [2**30]


def test_processes_that_cannot_be_seen_are_unknown() -> None:
    """Without the host's PID namespace there is nothing to read, and nothing fails."""
    assert GpuUsers(Path("/nowhere"), Path("/nowhere")).of(1) == User(process="unknown")


def test_users_of_a_gpu_are_bounded() -> None:
    """The largest are told apart, the others add up."""
    out = shares((User(process=f"p{chr(97 + i % 26)}{i // 26}"), float(i)) for i in range(60))
    assert len(out) == MAX_NAMES + 1
    assert sum(out.values()) == sum(range(60)) and out[User(process="other")] == sum(range(60 - MAX_NAMES))


def test_mig_instances_are_entities_of_their_own(driver: ctypes.CDLL, users: GpuUsers) -> None:
    """Memory and use by instance, and a pod depends on its instance, which runs on the GPU."""
    source = NvmlSource(node="n", users=users)
    poll(source)
    driver.fake_mig(0, 1)
    driver.fake_event(0, ctypes.c_ulonglong(0x100), ctypes.c_ulonglong(0))
    got = poll(source, NOW + 2)
    assert [e.reason for e in got.events] == ["MIGConfigChange"]
    assert of(got, "mig/n/0/5")["DCGM_FI_DEV_FB_USED"] == 5 * 1024
    edges = [(e.source, e.target, e.kind) for e in got.topology[0][1].edges]
    assert ("mig/n/0/5", "gpu/n/0", "runs_on") in edges and ("pod/ml/train-0", "mig/n/0/5", "uses") in edges
    assert of(poll(source, NOW + 4), "mig/n/0/1")["DCGM_FI_PROF_GR_ENGINE_ACTIVE"] == 0.1
    driver.fake_xid_of_slice(0, 94, 5)
    assert [e.entity for e in poll(source, NOW + 6).events] == ["mig/n/0/5"]
    driver.fake_mig(0, 0)
    got = poll(source, NOW + 99)
    assert not [s for s in got.samples if s.entity.startswith("mig/")]
    assert driver.fake_samples_in_use() == 2, "the samples of the instances were given back"


def test_a_gpu_tells_how_busy_its_parts_are(driver: ctypes.CDLL) -> None:
    """From its own counters, between two polls; the first has nothing to compare with."""
    source = NvmlSource(node="n")
    assert "DCGM_FI_PROF_SM_ACTIVE" not in of(poll(source), "gpu/n/0")
    for k in (1, 2, 3):
        first = of(poll(source, NOW + k), "gpu/n/0")
        names = ("GR_ENGINE_ACTIVE", "SM_ACTIVE", "PIPE_TENSOR_ACTIVE", "DRAM_ACTIVE")
        assert [first[f"DCGM_FI_PROF_{name}"] for name in names] == [0.1, 0.2, 0.3, 0.4]


def test_the_binding_finds_the_library_by_its_own_name(library: Path) -> None:
    """The whole way, as in production: the loader finds libnvidia-ml.so.1, nothing is patched, nothing is warned."""
    code = ("from aiops.sources.nvml.source import NvmlSource\nfrom fakes.collected import Collected\n"
            "c = Collected(); NvmlSource(node='n').poll(1.0, c); print(len({s.entity for s in c.samples}))")
    env = os.environ | {"LD_LIBRARY_PATH": str(library.parent), "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "2\n"


# ---------------------------------------------------------------------------------------------------- what people see
def test_the_doctor_says_what_can_be_read_and_what_is_absent(driver: ctypes.CDLL) -> None:
    """Driver, GPUs by what they have in common, and what a right would bring."""
    driver.fake_permitted(0)
    found = [(f.what, f.state, f.text) for f in reach.nvml()]
    assert found[0] == ("NVML", "ok", "driver 580.65.06, 2 GPUs")
    assert [what for what, state, text in found if state == "ok" and "metrics can be read" in text] == ["GPU 0", "GPU 1"]
    assert ("GPU 1", "problem", "no permission: persistence. Run as root, or with CAP_SYS_ADMIN.") in found
    [absent] = [text for what, state, text in found if what == "GPU 1" and state == "info"]
    assert absent.startswith("not supported by this GPU or driver: ") and "ECC_DBE_VOL_TOTAL" in absent
    assert driver.fake_events_in_use() == 0, "it gave everything back"


def test_the_doctor_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reason and a remedy."""
    def missing(name: str) -> None:
        raise OSError(name)
    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(pynvml, "CDLL", missing)
    pynvml._nvmlGetFunctionPointer_cache.clear()
    [finding] = reach.nvml()
    assert finding.state == "unreachable" and finding.text.endswith("? Without GPUs here, remove the source.")


def test_an_xid_of_the_driver_opens_an_incident_that_names_it(driver: ctypes.CDLL, users: GpuUsers) -> None:
    """The whole way: driver, binding, source, intake, pipeline; the pod on the GPU is near, and the advice is there."""
    source, intake, line = NvmlSource(node="n", users=users), Intake(10.0), pipeline()
    incidents = {}
    for k in range(40):
        now = T0 + 10 * k
        if k == 30:
            driver.fake_xid(0, 79)
            driver.fake_lose(0, 1)
        source.poll(now, intake)
        for batch in intake.drain(now):
            incidents |= {i.id: i for i in line.step(batch).incidents}
        if k == 29:
            assert incidents == {}
    [incident] = incidents.values()
    assert incident.causes[0].entity == "gpu/n/0"
    assert any("XID 79" in r.text and "restart" in r.text for r in incident.causes[0].reasons)
