"""What policies remember over a restart."""

from __future__ import annotations

from pathlib import Path

from helpers import T0

from aiops.memory import PolicyMemory
from aiops.types import Outcome, Report


class Decider:
    """Remembers one number."""

    def __init__(self, number: int = 0) -> None:
        self.number = number

    def decide(self, *_: object) -> None:
        raise AssertionError("not asked")

    def state(self) -> dict[str, int]:
        return {"number": self.number}

    def restore(self, state: dict[str, int]) -> None:
        self.number = state["number"]


def test_a_new_life_starts_with_what_the_last_one_knew(tmp_path: Path) -> None:
    """State is written with every decision or outcome, and read at the start."""
    first = Decider(3)
    memory = PolicyMemory(tmp_path / "m.json", first)
    assert memory.restored == {}
    memory.publish(Report(T0))
    assert not (tmp_path / "m.json").exists(), "nothing was decided"
    memory.publish(Report(T0, outcomes=(Outcome("a", "done", T0),)))
    second = Decider()
    assert PolicyMemory(tmp_path / "m.json", second).restored == {"number": 3}
    assert second.number == 3


def test_a_damaged_memory_is_set_aside(tmp_path: Path) -> None:
    """A file that is no JSON does not stop the start, and is kept to look at."""
    (tmp_path / "m.json").write_text("{torn")
    decider = Decider(1)
    assert PolicyMemory(tmp_path / "m.json", decider).restored == {}
    assert decider.number == 1
    assert (tmp_path / "m.damaged").read_text() == "{torn"
