"""Logs of the pods that a label selector names, read from the API server in pieces.

The server takes times by the second, so the last second is asked for again and lines that were handed on are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from aiops.interfaces import Samples
from aiops.sources.kubeapi import KubeApi, KubeError, Pod
from aiops.sources.logfile import MAX_LINE_BYTES, plain
from aiops.types import LogLine

MAX_CONTAINERS = 100
MAX_BYTES = 1024 * 1024
FIRST_S = 30.0
Key = tuple[str, str, str]


class PodLogs:
    """Follows at most 100 containers. `notes` says what could not be read; one pod's failure does not stop the others."""

    def __init__(self, api: KubeApi, selector: str, namespaces: Sequence[str] = ()) -> None:
        self._api, self._selector, self._namespaces = api, selector, tuple(namespaces)
        self._last: dict[Key, str] = {}
        self.notes: dict[str, str] = {}

    def poll(self, now: float, into: Samples) -> None:
        """The lines written since the last poll, with the times the kubelet gave them. Raises KubeError for the list."""
        self.notes.clear()
        found = [(key, p) for p in self._pods() for key in _containers(p)]
        if len(found) > MAX_CONTAINERS:
            text = f"logs: {len(found)} containers match; only {MAX_CONTAINERS} are followed. Narrow the selector."
            self.notes["logs"] = text
        self._last = {key: self._last[key] for key, _ in found if key in self._last}
        for key, pod in found[:MAX_CONTAINERS]:
            for at, text in self._lines(key, now):
                into.line(LogLine(min(at, now), f"pod/{pod.metadata.namespace}/{pod.metadata.name}", text))

    def _pods(self) -> list[Pod]:
        paths = [f"/api/v1/namespaces/{n}/pods" for n in self._namespaces] or ["/api/v1/pods"]
        pods = [p for path in paths for p in self._api.items(path, Pod, labelSelector=self._selector)]
        return [p for p in pods if p.status.phase == "Running"]

    def _lines(self, key: Key, now: float) -> Iterator[tuple[float, str]]:
        namespace, pod, container = key
        last = self._last.get(key, "")
        since = _seconds(last) if last else now - FIRST_S
        query = {"container": container, "timestamps": "true", "limitBytes": str(MAX_BYTES),
                 "sinceTime": datetime.fromtimestamp(since, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
        try:
            body = self._api.get(f"/api/v1/namespaces/{namespace}/pods/{pod}/log", query)
        except KubeError as e:
            if e.status == 0:
                raise
            self.notes[f"{namespace}/{pod}"] = str(e)
            return
        lines = body.split(b"\n")
        for raw in lines if body.endswith(b"\n") else lines[:-1]:
            stamp, _, text = raw[:MAX_LINE_BYTES + 40].decode("utf-8", "replace").partition(" ")
            if text.strip() and _order(stamp) > _order(last):
                self._last[key] = stamp
                yield _seconds(stamp), plain(text.rstrip("\r"))


def _containers(pod: Pod) -> Iterator[Key]:
    for container in pod.spec.containers or ():
        yield pod.metadata.namespace, pod.metadata.name, container.name


def _order(stamp: str) -> tuple[str, str]:
    """Sorts RFC 3339 times with as many digits as there are: nanoseconds do not fit into a float."""
    whole, _, part = stamp.removesuffix("Z").partition(".")
    return whole, part.ljust(9, "0")


def _seconds(stamp: str) -> float:
    whole, part = _order(stamp)
    try:
        return datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(f"0.{part}")
    except ValueError:
        return 0.0
