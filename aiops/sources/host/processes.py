"""Who uses the machine: processes, added up by name, and only the few that matter.

Memory is resident memory: pages that processes share are counted once for each of them.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

TOP = 10
KEEP = 30
MIN_MEMORY_BYTES = 32 * 2**20
MIN_CPU_SHARE = 0.02
_INTERPRETER = re.compile(r"(python|pypy|node|ruby|perl|php|bash|sh|java)[\d.]*")
_NUMBER = re.compile(r"\d{3,}|[0-9a-f]{12,}")


@dataclass(slots=True)
class Group:
    """All processes of one name. cpu_s and written_bytes only ever rise, also when a process ends."""

    name: str
    memory_bytes: float = 0.0
    count: int = 0
    threads: int = 0
    cpu_s: float = 0.0
    written_bytes: float = 0.0


@dataclass(frozen=True, slots=True)
class _Seen:
    """One process at one scan."""

    key: tuple[int, float]
    name: str
    memory_bytes: float
    threads: int
    cpu_s: float
    written_bytes: float


@dataclass
class Processes:
    """Watches at most `keep` names: the largest by memory and by CPU; a name that was watched stays until it ends."""

    top: int = TOP
    keep: int = KEEP
    _before: dict[tuple[int, float], _Seen] = field(default_factory=dict)
    _totals: dict[str, Group] = field(default_factory=dict)
    _scanned_at: float | None = None

    def scan(self, now: float) -> list[Group]:
        """The watched groups, sorted by name. A process that begins and ends between two scans is not seen."""
        seen = {p.key: p for p in _running()}
        span = now - self._scanned_at if self._scanned_at is not None else 0.0
        used = self._used(seen)
        groups = _grouped(seen.values())
        self._watch(groups, used, span)
        for name, total in self._totals.items():
            new, group = used.get(name, Group(name)), groups[name]
            total.cpu_s += new.cpu_s
            total.written_bytes += new.written_bytes
            total.memory_bytes, total.count, total.threads = group.memory_bytes, group.count, group.threads
        self._before, self._scanned_at = seen, now
        return [self._totals[name] for name in sorted(self._totals)]

    def _used(self, seen: dict[tuple[int, float], _Seen]) -> dict[str, Group]:
        """CPU and writes since the last scan, by name. What began since then counts in full."""
        out: dict[str, Group] = {}
        if self._scanned_at is None:
            return out
        for key, p in seen.items():
            old = self._before.get(key)
            group = out.setdefault(p.name, Group(p.name))
            group.cpu_s += max(0.0, p.cpu_s - (old.cpu_s if old else 0.0))
            group.written_bytes += max(0.0, p.written_bytes - (old.written_bytes if old else 0.0))
        return out

    def _watch(self, groups: dict[str, Group], used: dict[str, Group], span: float) -> None:
        big = [g for g in groups.values() if g.memory_bytes >= MIN_MEMORY_BYTES]
        big = sorted(big, key=lambda g: (-g.memory_bytes, g.name))[:self.top]
        busy = [g for g in used.values() if g.cpu_s >= MIN_CPU_SHARE * span > 0]
        busy = sorted(busy, key=lambda g: (-g.cpu_s, g.name))[:self.top]
        wanted = [g.name for g in (*big, *busy)]
        stay = sorted((n for n in self._totals if n in groups), key=lambda n: (-groups[n].memory_bytes, n))
        names = list(dict.fromkeys([*wanted, *stay]))[:self.keep]
        self._totals = {n: self._totals.get(n) or Group(n) for n in names}


def _grouped(seen: Any) -> dict[str, Group]:
    out: dict[str, Group] = {}
    for p in seen:
        group = out.setdefault(p.name, Group(p.name))
        group.memory_bytes += p.memory_bytes
        group.threads += p.threads
        group.count += 1
    return out


def _running() -> Iterator[_Seen]:
    """Every process that can be read. Kernel threads, which own no memory, are left out."""
    import psutil
    for process in psutil.process_iter(["name", "create_time", "memory_info", "cpu_times", "num_threads"]):
        info = process.info
        if not info["memory_info"] or not info["memory_info"].rss or not info["cpu_times"]:
            continue
        cpu = info["cpu_times"].user + info["cpu_times"].system
        yield _Seen((process.pid, info["create_time"] or 0.0), _name(process, info["name"] or "?"),
                    float(info["memory_info"].rss), info["num_threads"] or 0, cpu, _written(process))


def _written(process: Any) -> float:
    import psutil
    try:
        return float(process.io_counters().write_bytes)
    except (psutil.Error, OSError, AttributeError, NotImplementedError):
        return 0.0  # another user's process, or a system that does not count this


def _name(process: Any, name: str) -> str:
    """`nginx`, or `python3:worker.py` for what an interpreter runs. Never arguments: they may hold secrets."""
    if _INTERPRETER.fullmatch(name):
        import psutil
        with contextlib.suppress(psutil.Error):  # it ended, or is not ours to look into: the interpreter has to do
            name = ":".join([name, *_script(process.cmdline()[1:])])
    return _NUMBER.sub("N", name)


def _script(arguments: list[str]) -> list[str]:
    """The file or module that an interpreter was told to run; empty for code given inline or from a terminal."""
    for i, argument in enumerate(arguments):
        if argument in ("-m", "-jar"):
            return [PurePath(a).name for a in arguments[i + 1:i + 2]]
        if not argument.startswith("-"):
            return [PurePath(argument).name] if "." in argument or "/" in argument else []
        if argument in ("-c", "-e"):
            return []
    return []
