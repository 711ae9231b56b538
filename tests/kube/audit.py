"""What the API server was asked, by whom, read from its own audit log: so tests count every write exactly."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

READS = frozenset({"get", "list", "watch"})
MACHINERY = ["system:apiserver", "system:kube-controller-manager", "system:kube-scheduler", "simulated-kubelet"]
POLICY = {
    "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitManagedFields": True, "rules": [
        {"level": "None", "users": MACHINERY[:1]},
        {"level": "None", "users": MACHINERY, "resources": [{"group": "coordination.k8s.io", "resources": ["leases"]}]},
        {"level": "Metadata", "users": MACHINERY, "omitStages": ["RequestReceived", "ResponseStarted"]},
        {"level": "Metadata", "verbs": sorted(READS)},
        {"level": "Request"}]}
"""Bodies of people's writes; of the machinery only what it did, its heartbeats not at all."""


@dataclass(frozen=True)
class Request:
    """One request that reached the API server. `code` is the HTTP status, 0 while it is not answered. `at` is when it came,
    in Unix seconds. `body` is what a write sent (None for reads and for the machinery)."""

    id: str
    at: float
    user: str
    agent: str
    verb: str
    resource: str
    sub: str
    namespace: str
    name: str
    uri: str
    code: int
    body: Any

    @property
    def writes(self) -> bool:
        """Whether it changes something: no read, no dry run, no question about rights."""
        return self.verb not in READS and not self.dry_run and not self.resource.startswith("self")

    @property
    def dry_run(self) -> bool:
        options = self.body if isinstance(self.body, dict) else {}
        inner = options.get("deleteOptions") or {}
        return "dryRun=All" in self.uri or "All" in (options.get("dryRun") or inner.get("dryRun") or [])

    @property
    def what(self) -> str:
        """`patch deployments/scale shop/api 200`."""
        resource = f"{self.resource}/{self.sub}" if self.sub else self.resource
        return f"{self.verb} {resource} {self.namespace}/{self.name} {self.code}"


class Audit:
    """The audit log in `path`. Keeps what it read, one entry a request."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self._requests: dict[str, Request] = {}

    def requests(self, user: str | None = None, since: float = 0.0) -> list[Request]:
        """In the order in which they came; of one user (`system:serviceaccount:NAMESPACE:NAME`), since a Unix time."""
        self._read()
        return sorted((r for r in self._requests.values() if (user is None or r.user == user) and r.at >= since),
                      key=lambda r: r.at)

    def writes(self, user: str | None = None, since: float = 0.0) -> list[Request]:
        """Requests that were meant to change something, refused ones too (see their code)."""
        return [r for r in self.requests(user, since) if r.writes]

    def settled(self, user: str, within_s: float = 60.0) -> list[Request]:
        """All of its requests, once each is answered: a request of a killed process may still be at work."""
        deadline = time.monotonic() + within_s
        while True:
            got = self.requests(user)
            pending = [r.what for r in got if not r.code]
            if not pending:
                return got
            assert time.monotonic() < deadline, f"not answered within {within_s:g} s: {pending}"
            time.sleep(0.05)

    def _read(self) -> None:
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # being written
                self._offset += len(line)
                self._take(json.loads(line))

    def _take(self, event: dict[str, Any]) -> None:
        """A later stage replaces the earlier one: only it has the status."""
        before = self._requests.get(event["auditID"])
        made = _request(event)
        if before is None or made.code:
            self._requests[made.id] = made


def _request(event: dict[str, Any]) -> Request:
    ref = event.get("objectRef") or {}
    at = datetime.fromisoformat(event["requestReceivedTimestamp"]).timestamp()
    return Request(event["auditID"], at, event["user"].get("username", ""), event.get("userAgent", ""),
                   event["verb"], ref.get("resource", ""), ref.get("subresource", ""),
                   ref.get("namespace", ""), ref.get("name", ""), event["requestURI"],
                   (event.get("responseStatus") or {}).get("code", 0), event.get("requestObject"))

