"""A whole daemon that sees what a file says: for test_handover.py.

usage: python -m kube.sees NAME ALERTS CONFIG

Everything is as in `aiops run`, but for the sources: there is one, a file with a JSON list of [entity, name] that fire now.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from aiops import feeds
from aiops.clock import WallClock
from aiops.cluster import kubernetes
from aiops.cluster.transport import Api
from aiops.config import load
from aiops.daemon import Daemon
from aiops.interfaces import Samples
from aiops.types import RawAlert


class AlertFile:
    """A source. What is no longer in the file is resolved."""

    name, interval_s = "alerts", 0.5

    def __init__(self, path: Path) -> None:
        self._path, self._firing = path, set[tuple[str, str]]()

    def poll(self, now: float, into: Samples) -> None:
        firing = {(entity, name) for entity, name in json.loads(self._path.read_text())}
        for entity, name in sorted(firing | self._firing):
            into.alert(RawAlert(0, now, entity, name, "firing" if (entity, name) in firing else "resolved"))
        self._firing = firing

    def close(self) -> None:
        """Nothing is held open."""


def main(name: str, alerts: str, config: str) -> int:
    real = kubernetes.connect

    def connected(*given: Any, **named: Any) -> Api:
        made = real(*given, **named)
        made._client.user_agent = name
        return made
    kubernetes.connect = connected
    clock = WallClock()
    feeds.sources = lambda *given: [feeds.Source(AlertFile(Path(alerts)), clock)]
    return Daemon(load(Path(config), {}), clock).run()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
