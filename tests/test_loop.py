"""One turn: what was decided is written down before it is done."""

from __future__ import annotations

from typing import Any

from helpers import T0

from aiops.loop import advance
from aiops.types import Action, Batch, Report


def test_an_act_is_published_before_it_is_submitted_and_nothing_else_is_submitted() -> None:
    """A crash between the two loses no attempt; asks and refusals never reach the actuator."""
    act, ask = (Action(d, "Restart", "pod/a/b", {}, "i", "p", d, "", T0) for d in ("act", "ask"))  # type: ignore[arg-type]
    seen: list[Any] = []

    class Pipeline:
        def step(self, batch: Batch) -> Report:
            return Report(batch.at, actions=(act, ask))

    class Both:
        def publish(self, report: Report) -> None:
            seen.append("published")

        def submit(self, actions: list[Action]) -> None:
            seen.extend(a.id for a in actions)

    both: Any = Both()
    advance(Pipeline(), Batch(T0), both, [both])  # type: ignore[arg-type]
    assert seen == ["published", "act"]


def test_what_only_shows_is_told_after_the_actions_were_handed_over() -> None:
    """A page that takes a second to draw does not hold up what is to be done; what must be on record does."""
    seen: list[str] = []

    class Pipeline:
        def step(self, batch: Batch) -> Report:
            return Report(batch.at)

    class Told:
        def __init__(self, name: str) -> None:
            self.name = name

        def publish(self, report: Report) -> None:
            seen.append(self.name)

        def submit(self, actions: list[Action]) -> None:
            seen.append("handed over")

    def told(name: str) -> Any:
        return Told(name)
    advance(Pipeline(), Batch(T0), told("actuator"), [told("record")], [told("page")])  # type: ignore[arg-type]
    assert seen == ["record", "handed over", "page"]
