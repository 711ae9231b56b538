"""An actuator that is killed at any of the points that matter: before and after a write, and a line of its ledger."""

from __future__ import annotations

from fakes.acting import NOW

from aiops.clock import ManualClock
from aiops.cluster.actuator import LiveActuator
from aiops.cluster.checks import not_paused
from aiops.store.intents import Intents


class Killed(BaseException):
    """As SIGKILL: nothing may catch it."""


class Mortal:
    """Passes calls on to a part, and dies before or after the one with a certain number."""

    def __init__(self, part, life, calls):
        self._part, self._life, self._calls = part, life, calls

    def __getattr__(self, name):
        found = getattr(self._part, name)
        if name not in self._calls:
            return found

        def called(*given):
            self._life.spend()
            result = found(*given)
            self._life.spend()
            return result
        return called


class Life:
    def __init__(self, left):
        self.left = left

    def spend(self):
        if self.left == 0:
            raise Killed
        self.left -= 1


def run(cluster, path, life, submit=(), now=NOW, checks=(not_paused,)):
    """One life of the actuator: until it is killed, or has nothing left to do. None where it was killed."""
    clock, ledger = ManualClock(now), Intents(path)
    try:
        record = Mortal(ledger, life, ("begin", "turn", "written", "result"))
        actuator = LiveActuator(Mortal(cluster, life, ("write",)), clock, record,
                                awaited=[a.id for a in submit], checks=checks)
        actuator.submit(submit)
        for _ in range(40):
            wait_s = actuator.run_due()
            if wait_s is None:
                break
            clock.sleep_until(clock.now() + wait_s)
        return {o.action: o.status for o in actuator.collect()}
    except Killed:
        return None
    finally:
        ledger.close()
