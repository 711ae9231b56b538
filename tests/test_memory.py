"""What policies remember over a restart."""

from __future__ import annotations

from pathlib import Path

from helpers import T0

from aiops.masks import Masks
from aiops.memory import PolicyMemory, RevisionMemory
from aiops.types import Command, Incident, Outcome, Report


class Decider:
    """Remembers one number."""

    revision = 0

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


def test_masks_are_written_when_something_was_said_or_an_incident_came_or_went(tmp_path: Path) -> None:
    """And not with every step; the next life has the same windows."""
    masks, path = Masks(), tmp_path / "masks.json"
    memory = RevisionMemory(path, masks)
    memory.publish(Report(T0))
    assert memory.restored == {} and not path.exists()
    masks.obey([Command(T0, "maintenance_start", "m", "ann", ("node//a",), None, T0 + 60, "disks")])
    memory.publish(Report(T0))
    assert path.exists()
    path.unlink()
    open_incident = Incident("i", T0, T0, "open", "warning", (), ())
    for incidents, written in (((), False), ((open_incident,), True), ((open_incident,), False), ((), True)):
        masks.watch(incidents)
        memory.publish(Report(T0))
        assert path.exists() == written
        path.unlink(missing_ok=True)
    masks.obey([Command(T0, "useful", "i")])
    memory.publish(Report(T0))
    second = Masks()
    assert RevisionMemory(path, second).restored
    assert second.calendar.windows == masks.calendar.windows != ()


def test_a_memory_of_another_form_is_set_aside_too(tmp_path: Path) -> None:
    """It is JSON, and not what was written: nothing of it is taken over."""
    for k, text in enumerate(('{"maintenance": [{"id": "m"}], "accepted": {"about": {}, "said": []}}', "[1]", '{"x": 1}', '"x"')):
        path, masks = tmp_path / f"{k}.json", Masks()
        path.write_text(text)
        assert RevisionMemory(path, masks).restored == {}
        assert masks.calendar.windows == () and path.with_suffix(".damaged").read_text() == text
