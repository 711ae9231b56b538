"""Who works on a GPU: the pod of a process, where this machine says so, else the name of the program.

The kernel knows the pod's UID from the process's cgroup; the kubelet keeps `/var/log/pods/NAMESPACE_NAME_UID`. Both may be
out of sight (no host PID namespace, folder not mounted): then a process has a name only.
https://kubernetes.io/docs/concepts/cluster-administration/logging/
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from aiops.types import Entity

MAX_BYTES = 4096
MAX_NAMES = 32
"""Users of one GPU that are told apart; the others count as `other`."""
_UID = re.compile(r"pod([0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12}|[0-9a-f]{32})\b")
_NUMBER = re.compile(r"\d{3,}|[0-9a-f]{12,}")
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class User:
    """A pod (`pod/NAMESPACE/NAME`), or the name of a program in none that is known. Exactly one of the two."""

    pod: Entity = ""
    process: str = ""

    @property
    def labels(self) -> dict[str, str]:
        return {"pod": self.pod.removeprefix("pod/")} if self.pod else {"process": self.process}


class GpuUsers:
    """Finds users by process id. `proc` and `pods` are the folders of the kernel and the kubelet."""

    def __init__(self, proc: Path = Path("/proc"), pods: Path = Path("/var/log/pods")) -> None:
        self._proc, self._folder = proc, pods
        self._names: dict[str, Entity] = {}

    def of(self, pid: int) -> User:
        """Never raises: what cannot be read is `unknown`."""
        found = _UID.search(self._read(pid, "cgroup"))
        pod = self._pod(found[1].replace("_", "-")) if found else ""
        return User(pod) if pod else User(process=_NUMBER.sub("N", self._read(pid, "comm").strip()) or UNKNOWN)

    def _pod(self, uid: str) -> Entity:
        if uid not in self._names:
            self._names = self._look()
        return self._names.get(uid, "")

    def _look(self) -> dict[str, Entity]:
        try:
            parts = [entry.name.split("_") for entry in self._folder.iterdir()]
        except OSError:
            return {}
        return {uid: f"pod/{namespace}/{name}" for namespace, name, uid in (p for p in parts if len(p) == 3)}

    def _read(self, pid: int, name: str) -> str:
        try:
            with (self._proc / str(pid) / name).open("rb") as file:
                text = file.read(MAX_BYTES).decode(errors="replace")
        except OSError:
            return ""
        return "".join(c for c in text if c.isprintable() or c == "\n")


def shares(memory: Iterable[tuple[User, float]]) -> dict[User, float]:
    """Bytes by user; beyond the largest `MAX_NAMES` they are added up as `other`."""
    out: dict[User, float] = {}
    for user, used in memory:
        out[user] = out.get(user, 0.0) + used
    ordered = sorted(out, key=lambda u: (-out[u], u.pod, u.process))
    for user in ordered[MAX_NAMES:]:
        out[User(process="other")] = out.get(User(process="other"), 0.0) + out.pop(user)
    return out
