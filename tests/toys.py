"""A detector of a few lines in a folder of its own, in versions that a test writes: what an upgrade of aiops brings."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import detectors

CODE = '''
import numpy as np

from aiops.arrays import grown
from aiops.types import Anomaly
from aiops.yamlfile import Strict


class Settings(Strict):
    limit: float = 20.0


class Toy:
    """Everything above a limit is odd, once a signal was seen three times."""

    VERSION = {version}
    BY_SIGNAL = ("n",)

    def __init__(self, settings=None):
        self.limit = (settings or Settings()).limit
        self.n = np.zeros(0)

    def observe(self, frame):
        self.n = grown(self.n, len(frame.signals), 0.0)
        odd = np.flatnonzero((frame.values > self.limit) & (self.n[:len(frame.values)] >= 3))
        self.n[:len(frame.values)] += np.isfinite(frame.values)
        return [Anomaly(frame.at, frame.signals[i].entity, frame.signals[i].key, 1 - 1e-9, 1e-9, "toy", int(i),
                        float(frame.values[i]), 10.0, 0.0, self.limit, frame.at) for i in odd]

    def ready_count(self):
        return int(np.count_nonzero(self.n >= 3))

    def state(self):
        return {{"n": self.n.copy()}}

    def restore(self, state):
        self.n = np.array(state["{key}"], np.float64)
'''
MIGRATE = '''
    @staticmethod
    def migrate(state, version):
        return {"m": state["n"]} if version == 1 else None
'''


class Toys:
    """The folder. `write` puts a version of the detector `toy` there; `keep` leaves the code of an earlier one beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, version: int = 1, key: str = "n", more: str = "") -> None:
        self._put("toy", CODE.format(version=version, key=key) + more)

    def keep(self, version: int) -> None:
        self._put(f"_toy_v{version}", CODE.format(version=version, key="n"))

    def _put(self, name: str, text: str) -> None:
        (self.folder / f"{name}.py").write_text(text, encoding="utf-8")
        forget()


def forget() -> None:
    for name in [m for m in sys.modules if m.startswith(("detectors.toy", "detectors._toy"))]:
        del sys.modules[name]
    importlib.invalidate_caches()


@pytest.fixture
def toys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toys]:
    """Version 1 of the detector `toy` is installed for as long as the test runs."""
    folder = tmp_path_factory.mktemp("detectors")
    detectors.__path__.append(str(folder))
    made = Toys(folder)
    made.write()
    yield made
    detectors.__path__.remove(str(folder))
    forget()
