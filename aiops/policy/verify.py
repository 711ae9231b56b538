"""Did it help? Judged on the evidence that asked for the action, not on the action having been accepted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from aiops.policy.schema import Spec
from aiops.quantities import format_duration
from aiops.types import Direction

Verdict = Literal["helped", "no_help", "worse", "unknown"]
PATIENCE = 0.5
"""So much of `within` neighbours may be in trouble after an action before it made things worse."""


@dataclass(frozen=True, slots=True)
class Look:
    """What is seen now. `value` is the success metric, `clear` whether all alerts are resolved; None = not known.

    `trigger` names what asked for the action, where that still fires; `risen` what began to fire near it after the action.
    """

    value: float | None
    clear: bool | None
    direction: Direction = "both"
    trigger: str = ""
    risen: tuple[str, ...] = ()


def good(spec: Spec, look: Look) -> bool | None:
    """Whether the success metric is on its good side; None where there is none or it is not known."""
    threshold = spec.feedback.success_threshold
    if threshold is None or look.value is None:
        return None
    return look.value >= threshold if look.direction == "down" else look.value <= threshold


def judge(spec: Spec, look: Look, since_s: float, good_before: bool) -> tuple[Verdict, str] | None:
    """The verdict `since_s` seconds after the action was done, or None while it is too early.

    A metric that was good before the action proves nothing: then the alerts must be resolved too. A metric that cannot
    be read at the deadline gives `unknown`, which is neither undone nor tried again. Whoever helps one at the cost of its
    neighbours has made things worse; they get half the time to calm down, as a restart stirs up everybody around it.
    """
    if since_s < spec.verify.settle:
        return None
    after = format_duration(round(since_s))
    if look.risen and since_s < spec.verify.settle + PATIENCE * spec.verify.within:
        return None
    if look.risen:
        more = f" and {len(look.risen) - 2} more" if len(look.risen) > 2 else ""
        return "worse", f"{', '.join(look.risen[:2])}{more} began to alert after the action, and still did {after} after it"
    helped = _helped(spec, look, good_before)
    if helped:
        return "helped", f"{helped} {after} after the action"
    if since_s < spec.verify.settle + spec.verify.within:
        return None
    name = spec.feedback.success_metric
    if name is not None and look.value is None:
        return "unknown", f"{name} could not be measured within {after} after the action"
    if look.clear is None and (name is None or good(spec, look)):
        return "unknown", f"what was wrong is no longer reported {after} after the action, so nobody can tell"
    return "no_help", f"{_still(spec, look)} {after} after the action"


def _helped(spec: Spec, look: Look, good_before: bool) -> str | None:
    if spec.feedback.success_metric is None:
        return "all alerts were resolved" if look.clear else None
    if not good(spec, look) or look.trigger or (good_before and not look.clear):
        return None
    return f"{_measured(spec, look)}" + (" and all alerts were resolved" if good_before else "")


def _still(spec: Spec, look: Look) -> str:
    if spec.feedback.success_metric is None:
        return "alerts were still firing"
    if good(spec, look):
        return f"{_measured(spec, look)}, but {look.trigger or 'alerts'} {'was' if look.trigger else 'were'} still firing"
    return _measured(spec, look)


def _measured(spec: Spec, look: Look) -> str:
    sign = ">=" if look.direction == "down" else "<="
    feedback = spec.feedback
    return f"{feedback.success_metric} was {look.value:.4g} (wanted {sign} {feedback.success_threshold:g})"
