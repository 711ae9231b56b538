"""The daemon watches itself: its own speed, memory and failures are series like any other."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from aiops.interfaces import Samples

ENTITY = "aiops//daemon"
_COUNTERS = frozenset({"aiops_process_cpu_seconds_total", "aiops_source_failures_total", "aiops_dropped_samples_total"})


class OwnSource:
    """Emits what `readings` answers (metric -> value, in base units) and the memory and CPU time of this process."""

    def __init__(self, readings: Callable[[], Mapping[str, float]], name: str = "aiops", interval_s: float = 15.0) -> None:
        self.name, self.interval_s = name, interval_s
        self._readings = readings

    def poll(self, now: float, into: Samples) -> None:
        import psutil

        process = psutil.Process()
        cpu = process.cpu_times()
        own = {"aiops_process_memory_bytes": float(process.memory_info().rss),
               "aiops_process_cpu_seconds_total": float(cpu.user + cpu.system)}
        for metric, value in {**self._readings(), **own}.items():
            into.sample(now, ENTITY, metric, {}, value, "counter" if metric in _COUNTERS else "gauge")

    def close(self) -> None:
        """Nothing is held open."""
