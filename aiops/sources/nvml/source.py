"""NVIDIA GPUs of this machine through NVML, in dcgm-exporter's names, so that one pack explains both.

Asks each GPU for what changes at every poll, and for the rest twice a minute. What a GPU or its driver does not offer is asked
once and named in `notes`. A driver call that hangs holds up this source only: its thread is its own, and the source's status
says for how long. https://docs.nvidia.com/deploy/nvml-api/
"""

from __future__ import annotations

import platform
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from aiops import xids
from aiops.gpupods import slices
from aiops.interfaces import Samples
from aiops.sources.nvml.events import MIG_CONFIG, XID, EventSet, Told, address, meaning
from aiops.sources.nvml.gpu import DriverGone, Gpu
from aiops.sources.nvml.processes import GpuUsers
from aiops.types import Edge, Entity, Event, Links, Node

SLOW_S = 30.0
"""How often is asked what changes rarely: spare rows, links, widths, instances, processes, the number of GPUs."""


class NvmlSource:
    """All GPUs that the driver shows. `notes` names what they do not offer, once for all that lack the same."""

    hang_s = 20.0

    def __init__(self, name: str = "nvml", interval_s: float = 15.0, *, node: str | None = None,
                 users: GpuUsers | None = None) -> None:
        self.name, self.interval_s = name, interval_s
        self.host = node or platform.node() or "localhost"
        self.notes: dict[str, str] = {}
        self._users = users or GpuUsers()
        self._nvml: Any = None
        self._gpus: dict[int, Gpu] = {}
        self._unreadable: dict[int, str] = {}
        self._events: EventSet | None = None
        self._slow_at = float("-inf")
        self._driver = ""
        self._uuids: tuple[str, ...] | None = None
        self._lost: set[int] = set()
        self._links: Links | None = None
        self._greeted = False

    # ------------------------------------------------------------------------------------------------ what is called
    def available(self) -> str | None:
        """None where there are GPUs to read, else the reason why not, for people."""
        try:
            self._open()
        except RuntimeError as e:
            return str(e)
        return None if self._gpus else "the NVIDIA driver shows no GPU"

    def poll(self, now: float, into: Samples) -> None:
        """One reading of every GPU, and the events since the last poll. Raises RuntimeError without a working driver."""
        try:
            self._poll(now, into)
        except DriverGone:
            self.close()
            raise
        if self._gpus and all(g.lost for g in self._gpus.values()):
            self.close()  # a reset may have brought them back: begin anew at the next poll
            raise RuntimeError(f"no GPU of {self.host} answers")

    @property
    def driver(self) -> str:
        """Its version, empty where it does not tell."""
        return self._ask(lambda _: self._nvml.nvmlSystemGetDriverVersion(), None) if self._nvml else ""

    def offers(self) -> Iterator[tuple[int, list[str], dict[str, str]]]:
        """For each GPU: the metrics that it gives, sorted, and what it does not offer with the reason. For `aiops doctor`."""
        self._open()
        for gpu in self._gpus.values():
            found = {metric for metric, *_ in gpu.readings(True)}
            yield gpu.index, sorted(found), dict(gpu.absent)

    def close(self) -> None:
        """Gives everything back to the driver. Never raises."""
        if self._nvml is None:
            return
        nvml, events, gpus = self._nvml, self._events, self._gpus
        self._nvml, self._events, self._gpus, self._links = None, None, {}, None
        for gpu in gpus.values():
            gpu.close()
        for free in ([events.close] if events else []) + [nvml.nvmlShutdown]:
            try:
                free()
            except nvml.NVMLError as e:
                self.notes["close"] = f"close: {e}"

    # ------------------------------------------------------------------------------------------------------- opening
    def _open(self) -> None:
        """Opens the driver where it is not open. Raises RuntimeError with the reason where there is none."""
        if self._nvml is not None:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            import pynvml
        try:
            pynvml.nvmlInit()
            count = pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError as e:
            raise RuntimeError(f"NVML: {e}. Is the NVIDIA driver installed, and visible to this process?") from None
        self._nvml, self._unreadable = pynvml, {}
        self._gpus = {g.index: g for g in self._found(count)}
        self._events = EventSet(pynvml, {i: g.handle for i, g in self._gpus.items()})
        self._slow_at, self._greeted = float("-inf"), False

    def _found(self, count: int) -> Iterator[Gpu]:
        nvml = self._nvml
        for index in range(count):
            try:
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
            except nvml.NVMLError as e:  # one broken GPU must not hide the others
                self._unreadable[index] = f"GPU {index}: {e}"
                continue
            pci = self._ask(lambda h: nvml.nvmlDeviceGetPciInfo(h).busId, handle)
            yield Gpu(nvml, index, handle, self._ask(nvml.nvmlDeviceGetUUID, handle), xids.pci(pci) if pci else "")

    def _ask(self, what: Callable[[Any], Any], handle: Any) -> str:
        """A text about a GPU, empty where the driver has none."""
        try:
            got = what(handle)
        except self._nvml.NVMLError:
            return ""
        return got.decode(errors="replace") if isinstance(got, bytes) else str(got)

    def _greet(self, now: float, into: Samples) -> None:
        """Tells of other GPUs, or another driver, than before it was opened anew."""
        driver, node = self.driver, f"node//{self.host}"
        known = dict(enumerate(self._uuids or ()))  # a lost GPU does not tell its own
        uuids = tuple(g.uuid or known.get(index, "") for index, g in enumerate(self._gpus.values()))
        if self._driver and driver and driver != self._driver:
            into.event(Event(now, node, "change", "DriverChange", f"NVIDIA driver {driver}, before {self._driver}"))
        if self._uuids is not None and uuids != self._uuids:
            text = f"{len(uuids)} GPUs, before {len(self._uuids)}; {len(set(uuids) - set(self._uuids))} of them are new"
            into.event(Event(now, node, "warning" if len(uuids) < len(self._uuids) else "change", "GPUChange", text))
        self._driver, self._uuids, self._greeted = driver or self._driver, uuids, True

    # ------------------------------------------------------------------------------------------------------- polling
    def _poll(self, now: float, into: Samples) -> None:
        self._open()
        if not self._greeted:  # `available` may have opened it
            self._greet(now, into)
        for gpu in self._gpus.values():
            gpu.lost = False
        self._take_events(now, into)
        slow = not 0 <= now - self._slow_at < SLOW_S
        if slow:
            self._slow_at = now
            self._recount()
            self._map(now, into)
        for gpu in self._gpus.values():
            self._read(gpu, now, slow, into)
        self._tell()

    def _recount(self) -> None:
        """A GPU that was added or taken away is seen once the driver is opened anew."""
        nvml, before = self._nvml, len(self._gpus) + len(self._unreadable)
        try:
            count = nvml.nvmlDeviceGetCount()
        except nvml.NVMLError as e:
            raise DriverGone(f"NVML: {e}. The driver was unloaded or replaced; it is opened anew.") from None
        if count != before:
            raise DriverGone(f"the number of GPUs changed from {before} to {count}; the driver is opened anew.")

    def _read(self, gpu: Gpu, now: float, slow: bool, into: Samples) -> None:
        """Everything of one GPU. A lost one is told once, and once more when it is back."""
        entity = self._entity(gpu.index)
        for metric, labels, value, kind in gpu.readings(slow):
            into.sample(now, entity, metric, labels, float(value), kind)
        for instance, (metric, labels, value, kind) in gpu.of_instances():
            into.sample(now, self._entity(gpu.index, instance), metric, labels, float(value), kind)
        if gpu.lost != (gpu.index in self._lost):
            self._lost ^= {gpu.index}
            who = f"GPU {gpu.index} ({gpu.pci or gpu.uuid or 'no address'})"
            into.event(Event(now, entity, "warning", "GPULost", f"{who} no longer answers") if gpu.lost else
                       Event(now, entity, "normal", "GPUBack", f"{who} answers again"))
        if gpu.last_xid or not gpu.lost:
            into.sample(now, entity, "DCGM_FI_DEV_XID_ERRORS", {}, float(gpu.last_xid), "gauge")

    def _tell(self) -> None:
        """One note for all GPUs that lack the same things for the same reason."""
        groups: dict[tuple[str, tuple[str, ...]], list[int]] = {}
        for gpu in self._gpus.values():
            for reason in sorted(set(gpu.absent.values())):
                names = tuple(sorted(n for n, why in gpu.absent.items() if why == reason))
                groups.setdefault((reason, names), []).append(gpu.index)
        notes = dict(self._events.notes) if self._events else {}
        for index, text in self._unreadable.items():
            notes[f"gpu {index}"] = text
        for number, ((reason, names), gpus) in enumerate(sorted(groups.items())):
            short = ", ".join(n.removeprefix("DCGM_FI_DEV_") for n in names)
            notes[f"absent {number}"] = f"GPU {', '.join(map(str, gpus))}: {reason}: {short}"
        for gpu in self._gpus.values():
            notes |= {f"{what} {gpu.index}": f"{what} of GPU {gpu.index}: {error}" for what, error in gpu.troubles.items()}
        self.notes = notes

    # -------------------------------------------------------------------------------------------------------- events
    def _take_events(self, now: float, into: Samples) -> None:
        for told, times in self._events.take() if self._events else ():
            gpu = next((g for g in self._gpus.values() if address(g.handle) == told.device), None)
            if gpu is not None:
                into.event(self._event(gpu, told, times, now))

    def _event(self, gpu: Gpu, told: Told, times: int, now: float) -> Event:
        entity = self._entity(gpu.index, told.instance if told.instance in gpu.mig else None)
        if told.type == XID:
            known = xids.by_number().get(told.data)
            if known is None or known.severity != "info":  # what needs no attention is an event and no last XID
                gpu.last_xid = told.data
            return xids.event(now, entity, told.data, f"{times} times." if times > 1 else "")
        if told.type == MIG_CONFIG:
            self._slow_at = float("-inf")
        kind, reason, text = meaning(told, times)
        return Event(now, entity, kind, reason, f"GPU {gpu.index}: {text}")

    # ----------------------------------------------------------------------------------------------------- the topology
    def _map(self, now: float, into: Samples) -> None:
        """MIG instances, processes with their memory, and the topology where it is another than before."""
        edges: set[Edge] = set()
        for gpu in self._gpus.values():
            gpu.find_instances()
            readings, pods = gpu.processes(self._users)
            for metric, labels, value, kind in readings:
                into.sample(now, self._entity(gpu.index), metric, labels, value, kind)
            edges |= {Edge(pod, self._entity(gpu.index, i if i in gpu.mig else None), "uses") for pod, i in pods}
        links = self._topology(edges)
        if links != self._links:
            self._links = links
            into.links(self.name, links)

    def _topology(self, edges: set[Edge]) -> Links:
        node = Node(f"node//{self.host}")
        gpus = [Node(self._entity(g.index), labels={k: v for k, v in (("uuid", g.uuid), ("pci", g.pci)) if v})
                for g in self._gpus.values()]
        migs = [Node(self._entity(g.index, instance)) for g in self._gpus.values() for instance in g.mig]
        more = sorted(edges | slices(n.entity for n in migs), key=lambda e: (e.source, e.target))
        return Links((node, *gpus, *migs), (*(Edge(node.entity, g.entity, "uses") for g in gpus), *more))

    def _entity(self, index: int, instance: int | None = None) -> Entity:
        return f"gpu/{self.host}/{index}" if instance is None else f"mig/{self.host}/{index}/{instance}"
