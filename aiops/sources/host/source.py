"""The machine this program runs on, in node-exporter's names so that one pack explains both, and its largest processes.

CPU modes are summed over CPUs to keep series few. What a system does not offer (pressure, outside Linux for example) is
left out and named in `notes`. Network file systems are not touched: asking a dead one can block for ever.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from aiops.interfaces import Samples
from aiops.sources.host.processes import Group, Processes
from aiops.types import Edge, Entity, Links, Node

LINKED_S = 1800.0
"""So long a process that ended stays linked to its node: an incident outlives what caused it."""
Sample = tuple[str, dict[str, str], float, str]
"""metric, labels, value, kind"""

_VIRTUAL_NIC = re.compile(r"lo|(veth|cali|cni|docker|br-|lxc|flannel|virbr|tap|tunl).*")
_PART_OF_DISK = re.compile(r"(z?ram|loop|fd|sr|(h|s|v|xv)d[a-z]|nvme\d+n\d+p|mmcblk\d+p)\d+")
_REMOTE = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "lustre", "9p", "fuse.sshfs", "glusterfs")
_CPU_MODES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")


class HostSource:
    """Polls this host. `node` is how the host is named in the topology, by default its host name."""

    def __init__(self, name: str = "host", interval_s: float = 15.0, *, node: str | None = None,
                 proc: Path = Path("/proc"), processes: bool = True) -> None:
        self.name, self.interval_s = name, interval_s
        self.host = node or platform.node() or "localhost"
        self.entity: Entity = f"node//{self.host}"
        self.notes: dict[str, str] = {}
        self._proc = proc
        self._processes = Processes() if processes else None
        self._linked: frozenset[str] | None = None
        self._seen_at: dict[str, float] = {}

    def poll(self, now: float, into: Samples) -> None:
        """One sample of everything at `now`. Raises RuntimeError when nothing at all can be read."""
        count = 0
        for probe in (_cpu, _memory, _load, _filesystems, _disks, _network):
            count += self._emit(probe.__name__.strip("_"), probe, now, into)
        for read in (_pressure, _vmstat, _stat, _tcp, _handles):
            count += self._emit(read.__name__.strip("_"), lambda r=read: r(self._proc), now, into)  # type: ignore[misc]
        if self._processes:
            self._put_processes(self._processes.scan(now), now, into)
        if not count:
            raise RuntimeError(f"nothing can be read on {self.host}: {'; '.join(self.notes.values())}")

    def close(self) -> None:
        """Nothing is held open between polls."""

    def _emit(self, what: str, probe: Callable[[], Iterator[Sample]], now: float, into: Samples) -> int:
        import psutil
        count = 0
        try:
            for metric, labels, value, kind in probe():
                into.sample(now, self.entity, metric, labels, float(value), kind)
                count += 1
        except (OSError, ValueError, IndexError, KeyError, AttributeError, psutil.Error) as e:
            self.notes[what] = f"{what}: not available here ({str(e) or type(e).__name__})"
        return count

    def _put_processes(self, groups: list[Group], now: float, into: Samples) -> None:
        for g in groups:
            entity = f"process/{self.host}/{g.name}"
            for metric, value, kind in (
                    ("host_process_memory_bytes", g.memory_bytes, "gauge"),
                    ("host_process_count", g.count, "gauge"),
                    ("host_process_threads", g.threads, "gauge"),
                    ("host_process_cpu_seconds_total", g.cpu_s, "counter"),
                    ("host_process_written_bytes_total", g.written_bytes, "counter")):
                into.sample(now, entity, metric, {}, float(value), kind)
        self._seen_at.update((g.name, now) for g in groups)
        self._seen_at = {name: at for name, at in self._seen_at.items() if now - at <= LINKED_S}
        names = frozenset(self._seen_at)
        if names != self._linked:
            self._linked = names
            into.links(self.name, self._links(names))

    def _links(self, names: frozenset[str]) -> Links:
        """The node's trouble comes from its processes: the node depends on them."""
        entities = [f"process/{self.host}/{name}" for name in sorted(names)]
        return Links(tuple(Node(e) for e in (self.entity, *entities)),
                     tuple(Edge(self.entity, e, "uses") for e in entities))


# ------------------------------------------------------------------------------------------- through psutil, any system
def _cpu() -> Iterator[Sample]:
    import psutil
    times = psutil.cpu_times()
    for mode in _CPU_MODES:
        if hasattr(times, mode):
            yield "node_cpu_seconds_total", {"mode": mode}, getattr(times, mode), "counter"


def _memory() -> Iterator[Sample]:
    import psutil
    memory = psutil.virtual_memory()
    yield "node_memory_MemAvailable_bytes", {}, memory.available, "gauge"
    yield "node_memory_MemTotal_bytes", {}, memory.total, "gauge"
    swap = psutil.swap_memory()
    if swap.total:
        yield "node_memory_SwapFree_bytes", {}, swap.free, "gauge"
        yield "node_memory_SwapTotal_bytes", {}, swap.total, "gauge"


def _load() -> Iterator[Sample]:
    yield "node_load1", {}, os.getloadavg()[0], "gauge"


def _filesystems() -> Iterator[Sample]:
    import psutil
    devices: set[str] = set()
    for part in sorted(psutil.disk_partitions(all=False), key=lambda p: (len(p.mountpoint), p.mountpoint)):
        if part.device in devices or part.fstype in _REMOTE:
            continue  # a bind mount of what was counted already
        try:
            found = os.statvfs(part.mountpoint)
        except OSError:
            continue  # unmounted just now, or not ours to look at
        devices.add(part.device)
        labels = {"mountpoint": part.mountpoint, "device": part.device, "fstype": part.fstype}
        yield "node_filesystem_avail_bytes", labels, found.f_bavail * found.f_frsize, "gauge"
        yield "node_filesystem_size_bytes", labels, found.f_blocks * found.f_frsize, "gauge"
        yield "node_filesystem_readonly", labels, float("ro" in part.opts.split(",")), "gauge"
        if found.f_files:
            yield "node_filesystem_files_free", labels, found.f_ffree, "gauge"
            yield "node_filesystem_files", labels, found.f_files, "gauge"


def _disks() -> Iterator[Sample]:
    import psutil
    for device, disk in (psutil.disk_io_counters(perdisk=True) or {}).items():
        if _PART_OF_DISK.fullmatch(device):
            continue
        labels = {"device": device}
        yield "node_disk_read_bytes_total", labels, disk.read_bytes, "counter"
        yield "node_disk_written_bytes_total", labels, disk.write_bytes, "counter"
        if hasattr(disk, "busy_time"):
            yield "node_disk_io_time_seconds_total", labels, disk.busy_time / 1000, "counter"


def _network() -> Iterator[Sample]:
    import psutil
    for device, nic in psutil.net_io_counters(pernic=True).items():
        if _VIRTUAL_NIC.fullmatch(device) or not (nic.bytes_recv or nic.bytes_sent):
            continue
        for way, total, errors, drops in (("receive", nic.bytes_recv, nic.errin, nic.dropin),
                                          ("transmit", nic.bytes_sent, nic.errout, nic.dropout)):
            yield f"node_network_{way}_bytes_total", {"device": device}, total, "counter"
            yield f"node_network_{way}_errs_total", {"device": device}, errors, "counter"
            yield f"node_network_{way}_drop_total", {"device": device}, drops, "counter"


# ---------------------------------------------------------------------------------------------- from /proc, Linux only
def _pressure(proc: Path) -> Iterator[Sample]:
    """`some avg10=0.00 avg60=0.00 avg300=0.00 total=12345`, in microseconds. https://docs.kernel.org/accounting/psi.html"""
    for what in ("cpu", "memory", "io"):
        first = (proc / "pressure" / what).read_text().splitlines()[0]
        yield f"node_pressure_{what}_waiting_seconds_total", {}, int(first.rpartition("total=")[2]) / 1e6, "counter"


def _vmstat(proc: Path) -> Iterator[Sample]:
    found = dict(line.split() for line in (proc / "vmstat").read_text().splitlines())
    for key in ("pgmajfault", "oom_kill"):
        if key in found:
            yield f"node_vmstat_{key}", {}, int(found[key]), "counter"


def _stat(proc: Path) -> Iterator[Sample]:
    for line in (proc / "stat").read_text().splitlines():
        if line.startswith("procs_blocked "):
            yield "node_procs_blocked", {}, int(line.split()[1]), "gauge"


def _tcp(proc: Path) -> Iterator[Sample]:
    """Two lines that begin with `Tcp:`, names and then numbers."""
    lines = (proc / "net/snmp").read_text().splitlines()
    names, numbers = [line.split() for line in lines if line.startswith("Tcp:")][:2]
    found = dict(zip(names, numbers, strict=True))
    for key in ("RetransSegs", "OutSegs"):
        yield f"node_netstat_Tcp_{key}", {}, int(found[key]), "counter"


def _handles(proc: Path) -> Iterator[Sample]:
    used, _, most = (int(n) for n in (proc / "sys/fs/file-nr").read_text().split())
    yield "node_filefd_allocated", {}, used, "gauge"
    yield "node_filefd_maximum", {}, most, "gauge"
    tracked = proc / "sys/net/netfilter"
    if (tracked / "nf_conntrack_count").exists():
        yield "node_nf_conntrack_entries", {}, int((tracked / "nf_conntrack_count").read_text()), "gauge"
        yield "node_nf_conntrack_entries_limit", {}, int((tracked / "nf_conntrack_max").read_text()), "gauge"
