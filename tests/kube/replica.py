"""One of several replicas, as a process of its own in real time: for test_replicas.py.

usage: python -m kube.replica NAME KUBECONFIG FOLDER [SIGNAL STAGE]

Reads actions as lines of JSON, tells on stdout what became of each. With a signal it sends that to itself, once, at its first
write outside of its own namespace: `before` it, when it was `sent` and its answer not read, or `after` the answer.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import urllib3.connection

from aiops import build
from aiops.clock import WallClock
from aiops.cluster import kubernetes
from aiops.cluster.actuator import LiveActuator
from aiops.cluster.brake import Brake
from aiops.cluster.transport import Api
from aiops.limits import Limits
from aiops.types import Action


def interrupt(number: int, stage: str) -> None:
    """Patches the connection, so that the process sends itself the signal once, at that stage."""
    call, answer, here, left = Api._call, urllib3.connection.HTTPConnection.getresponse, threading.local(), [stage]

    def strike(at: str) -> None:
        if left == [at]:
            left.clear()
            signal.pthread_kill(threading.get_ident(), number)  # this very thread, here: to the process it may come later

    def called(self: Api, method: str, path: str, *given: Any, **named: Any) -> Any:
        writes = named["writes"] if "writes" in named else given[-1]
        if not writes or "/namespaces/aiops/" in path:
            return call(self, method, path, *given, **named)
        strike("before")
        here.writing = True
        try:
            return call(self, method, path, *given, **named)
        finally:
            here.writing = False
            strike("after")

    def got(self: Any, *given: Any, **named: Any) -> Any:
        if getattr(here, "writing", False):
            strike("sent")
        return answer(self, *given, **named)
    Api._call, urllib3.connection.HTTPConnection.getresponse = called, got  # type: ignore[method-assign]


def main(name: str, kubeconfig: str, folder: str, number: str = "", stage: str = "") -> None:
    real = kubernetes.connect

    def connected(*given: Any, **named: Any) -> Api:
        made = real(*given, **named)
        made._client.user_agent = name
        return made
    kubernetes.connect = connected
    if number:
        interrupt(int(number), stage)
    actuator = build.live_actuator(WallClock(), Path(folder) / f"{name}.sqlite", Path(kubeconfig), None, [], Limits(), Brake(),
                                   lease=("aiops", "aiops"))
    done = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: done.set())
    threading.Thread(target=listen, args=(actuator,), daemon=True).start()
    actuator.start()
    while not done.wait(0.1):
        for outcome in actuator.collect():
            print(json.dumps([outcome.action, outcome.status, outcome.reason]), flush=True)
    actuator.stop()


def listen(actuator: LiveActuator) -> None:
    for line in sys.stdin:
        actuator.submit([Action(**json.loads(line))])


if __name__ == "__main__":
    main(*sys.argv[1:])
