"""An action as a policy would make it, and an actuator's patience: what all tests of remediations share."""

from __future__ import annotations

from aiops import plugins
from aiops.interfaces import Retry
from aiops.types import Action

NOW = 1_790_000_000.0


def action(name, example, key="a-1", state="", **params):
    target = plugins.load_type("remediations", name).target.model_validate(example)
    return Action(key, name, target.entity("shop"), {**target.params(), "max_unavailable": 1, **params}, "i", "p", "act", "", NOW,
                  state)


def carry_out(executor, what):
    """As an actuator does: again as long as it says Retry."""
    for _ in range(20):
        try:
            return executor.carry_out(what, NOW)
        except Retry:
            continue
    raise AssertionError("never finished")
